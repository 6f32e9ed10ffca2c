"""How a handler says that its work ended without a response: by raising one of these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional, Union

import grpc
from google.protobuf import any_pb2

from .messages import AnyMessage, to_any
from .v1 import workers_pb2 as v1
from .wishes import Effects


class Ending(Exception):
    """The base of the endings."""

    def item(self) -> v1.ReportItem:
        """What is reported."""
        raise NotImplementedError


class Stopped(Ending):
    """Stopped as asked; ``effects`` says what is left behind.

    ``metadata`` may carry what was achieved: a message of the method's metadata type. While the worker
    shuts down this gives the operation back instead. To deliver a whole result in spite of a
    cancellation, return it.
    """

    def __init__(
        self,
        effects: Effects = Effects.UNKNOWN,
        message: str = "",
        *,
        metadata: Optional[AnyMessage] = None,
        checkpoint: Optional[bytes] = None,
    ) -> None:
        super().__init__(message or effects.name)
        self.effects = Effects(effects)
        self.message = message
        self.metadata = None if metadata is None else to_any(metadata)
        self.checkpoint = checkpoint

    def item(self) -> v1.ReportItem:
        stopped = v1.Stopped(effects=int(self.effects), message=self.message)  # type: ignore[arg-type]
        item = v1.ReportItem(stopped=stopped, checkpoint=self.checkpoint)
        if self.metadata is not None:
            item.metadata.CopyFrom(self.metadata)
        return item

    def released(self) -> v1.ReportItem:
        """The same ending while the worker shuts down."""
        item = self.item()
        item.release.SetInParent()
        return item


class Failed(Ending):
    """Went wrong. ``code`` is a google.rpc.Code from 1 to 16, or a ``grpc.StatusCode``.

    ``retryable``: another attempt may succeed. ``effects``: what is left behind, where that is known.
    """

    def __init__(
        self,
        code: Union[int, grpc.StatusCode],
        message: str,
        *,
        retryable: bool = False,
        effects: Optional[Effects] = None,
        details: Iterable[AnyMessage] = (),
    ) -> None:
        super().__init__(message)
        self.code = code if isinstance(code, int) else int(code.value[0])
        self.message = message
        self.retryable = retryable
        self.effects = effects
        self.details: list[any_pb2.Any] = [to_any(detail) for detail in details]

    def item(self) -> v1.ReportItem:
        failure = v1.Failure(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            effects=int(self.effects or 0),  # type: ignore[arg-type]
            details=self.details,
        )
        return v1.ReportItem(failure=failure)


class Released(Ending):
    """Gives the operation back as if it had not been claimed; no attempt is counted."""

    def __init__(self, checkpoint: Optional[bytes] = None) -> None:
        super().__init__("given back")
        self.checkpoint = checkpoint

    def item(self) -> v1.ReportItem:
        return v1.ReportItem(release=v1.Release(), checkpoint=self.checkpoint)
