"""Why work is not wanted any more, and what it leaves behind. Values only."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Optional

from google.protobuf import timestamp_pb2

from .v1 import workers_pb2 as v1


class Why(enum.Enum):
    """What made work unwanted."""

    WORKER_SHUTDOWN = "worker shutdown"
    """The worker itself is ending; another one goes on from the checkpoint."""
    CLIENT_CANCEL = "client cancel"
    """A client asked."""
    DEADLINE = "deadline"
    """The operation's deadline passed."""
    SUPERSEDED = "superseded"
    """A newer operation took its place."""
    UNKNOWN = "unknown"
    """The server asked, for a reason that this version does not know."""
    LEASE_LOST = "lease lost"
    """The lease ran out, or another claim holds the operation."""
    DONE = "done"
    """The operation is done without this worker."""
    DELETED = "deleted"
    """The operation is gone."""

    @property
    def gravity(self) -> int:
        """0 to 2; a graver reason replaces a lighter one. At 2 nobody listens to reports any more."""
        if self is Why.WORKER_SHUTDOWN:
            return 0
        return 2 if self in (Why.LEASE_LOST, Why.DONE, Why.DELETED) else 1


class Effects(enum.IntEnum):
    """What an operation that did not succeed left behind."""

    NONE = v1.Effects.Value("NONE")
    """Nothing was changed."""
    UNDONE = v1.Effects.Value("UNDONE")
    """Changes were made and undone."""
    PARTIAL = v1.Effects.Value("PARTIAL")
    """Changes were made and remain."""
    UNKNOWN = v1.Effects.Value("UNKNOWN")
    """Nobody can say."""


@dataclasses.dataclass(frozen=True)
class Cancellation:
    """The wish to stop, in full."""

    why: Why
    actor: str = ""
    """Who asked; may be empty."""
    message: str = ""
    """What they said; may be empty."""
    request_time: Optional[datetime.datetime] = None
    """When it was asked, by the server's clock."""
    deadline: Optional[datetime.datetime] = None
    """By when the work must have stopped, by the server's clock."""

    def __str__(self) -> str:
        by = f" by {self.actor}" if self.actor else ""
        said = f": {self.message}" if self.message else ""
        return f"{self.why.value}{by}{said}"


_REASONS = {
    v1.DesiredState.CLIENT_CANCEL: Why.CLIENT_CANCEL,
    v1.DesiredState.DEADLINE: Why.DEADLINE,
    v1.DesiredState.SUPERSEDED: Why.SUPERSEDED,
    v1.DesiredState.LEASE_LOST: Why.LEASE_LOST,
    v1.DesiredState.DONE: Why.DONE,
    v1.DesiredState.DELETED: Why.DELETED,
}


def read(desired: v1.DesiredState) -> Optional[Cancellation]:
    """What the server wants; ``None`` when the work is to go on."""
    if desired.action == v1.DesiredState.STOP:
        why = _REASONS.get(desired.reason, Why.LEASE_LOST)
        # Whatever the reason, nobody listens any more.
        why = why if why.gravity == 2 else Why.LEASE_LOST
    elif desired.action == v1.DesiredState.CANCEL:
        why = _REASONS.get(desired.reason, Why.UNKNOWN)
        why = why if why.gravity == 1 else Why.UNKNOWN
    else:
        return None
    return Cancellation(
        why=why,
        actor=desired.actor,
        message=desired.message,
        request_time=moment(desired, "request_time"),
        deadline=moment(desired, "deadline"),
    )


def moment(message: v1.DesiredState | v1.Assignment, field: str) -> Optional[datetime.datetime]:
    """A timestamp field as an aware time; ``None`` when it is unset or beyond what Python can say."""
    if not message.HasField(field):
        return None
    value: timestamp_pb2.Timestamp = getattr(message, field)
    try:
        return value.ToDatetime(tzinfo=datetime.timezone.utc)
    except (ValueError, OverflowError):
        return None
