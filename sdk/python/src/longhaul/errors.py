"""What can be raised at a handler or at whoever runs a worker."""

from __future__ import annotations

from .wishes import Cancellation


class Error(Exception):
    """The base of this package's errors."""


class Lost(Error):
    """The operation is no longer this worker's; nothing can be reported on it."""

    def __init__(self) -> None:
        super().__init__("the operation is no longer this worker's")


class Refused(Error):
    """The server refused a call or a report; nothing was changed by it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}" if reason else message)
        self.code = code
        """A google.rpc.Code."""
        self.reason = reason
        """Upper-case reason, such as ``INVALID_VALUE``; may be empty."""
        self.message = message


class StillRunning(Error):
    """A worker ended, but some handlers did not although they were told; end the process."""

    def __init__(self, operations: list[str]) -> None:
        super().__init__("these operations run on though told to stop: " + ", ".join(operations))
        self.operations = operations


class Cancelled(BaseException):
    """Raised in a plain function by ``ctx.check()`` once its work is not wanted any more.

    Like ``asyncio.CancelledError`` no ``Exception``, so that ``except Exception`` does not swallow it.
    """

    def __init__(self, reason: Cancellation) -> None:
        super().__init__(str(reason))
        self.reason = reason
