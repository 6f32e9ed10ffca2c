"""What a handler can say and hear while it works."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable
from typing import Any, Optional

from . import wishes
from .book import ITEM_BYTES_MAX, Book
from .errors import Cancelled, Lost, Refused
from .held import Ask, Held
from .messages import AnyMessage, to_any
from .v1 import workers_pb2 as v1
from .wishes import Cancellation


class _Context:
    """One operation's side of the worker: what both kinds of handlers have."""

    def __init__(self, held: Held, book: Book) -> None:
        self._held, self._book = held, book
        self._checkpoint: bytes = held.assignment.checkpoint
        self._external_ref: str = held.assignment.external_ref

    @property
    def operation(self) -> str:
        """Full name of the operation."""
        return self._held.operation

    @property
    def epoch(self) -> int:
        """The fencing token: higher at each claim. Hand it to whatever can check it."""
        return self._held.epoch

    @property
    def attempt(self) -> int:
        """Counted from 1."""
        return self._held.assignment.attempt

    @property
    def method(self) -> str:
        """Full name of the method that started it."""
        return self._held.assignment.method

    @property
    def parent(self) -> str:
        """What lists find it under, such as ``projects/p/locations/l``."""
        return self._held.assignment.parent

    @property
    def target(self) -> str:
        """The resource it acts on; may be empty."""
        return self._held.assignment.target

    @property
    def cleanup(self) -> bool:
        """Whether this is to clean up after the work instead of doing it."""
        return self._held.assignment.cleanup

    @property
    def deadline(self) -> Optional[datetime.datetime]:
        """By when the operation must be done, by the server's clock; ``None``: never."""
        return wishes.moment(self._held.assignment, "deadline")

    @property
    def traceparent(self) -> str:
        """W3C trace context of the start; may be empty."""
        return self._held.assignment.traceparent

    @property
    def assignment(self) -> v1.Assignment:
        """Everything that the server said when it gave the operation to this worker."""
        return self._held.assignment

    @property
    def checkpoint(self) -> bytes:
        """Where the work stands: what was saved last, by this attempt or an earlier one; empty at first."""
        return self._checkpoint

    @property
    def external_ref(self) -> str:
        """Work outside that was noted last, by this attempt or an earlier one; may be empty."""
        return self._external_ref

    @property
    def cancelled(self) -> threading.Event:
        """Set once the work is not wanted any more."""
        return self._held.told

    @property
    def cancel_reason(self) -> Optional[Cancellation]:
        """Why the work is not wanted any more; ``None`` while it is. The gravest reason heard so far."""
        return self._held.wish

    def progress(
        self,
        percent: Optional[float] = None,
        *,
        step: int = 0,
        steps: int = 0,
        message: str = "",
    ) -> None:
        """Says how far the work is: 0 to 100 percent, or ``step`` of ``steps``. Never waits.

        Of several in quick succession the last is sent. ``ValueError`` for what cannot be.
        """
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"{percent} is not between 0 and 100")
        if step < 0 or steps < 0 or (steps and step > steps):
            raise ValueError(f"there is no step {step} of {steps}")
        progress = v1.Progress(percent=percent, step=step, steps=steps, message=message)
        self._book.remark(self._held, progress=progress)

    def metadata(self, message: AnyMessage) -> None:
        """Replaces the operation's metadata by a message of the method's declared type. Never waits.

        Of several in quick succession the last is sent. One of another type is logged and dropped.
        """
        packed = to_any(message)
        _check_size("metadata", packed.ByteSize())
        self._book.remark(self._held, metadata=packed)

    @property
    def _interrupts(self) -> bool:
        """Whether the wish to stop is to be thrown: past the gate only when nobody listens any more."""
        wish = self._held.wish
        return wish is not None and (wish.why.gravity == 2 or not self._held.gate_passed)

    def check(self) -> None:
        """Raises :class:`Cancelled` once the work is not wanted any more.

        After a passed gate it does so only when nobody listens to this worker any more.
        """
        wish = self._held.wish
        if wish is not None and self._interrupts:
            raise Cancelled(wish)


class Context(_Context):
    """What an ``async def`` handler is given.

    When the work is not wanted any more the handler's task is cancelled once, and a second time if nobody
    listens any more. After that it may still save and report, for as long as the lease holds. Use it from
    the handler's event loop only.
    """

    def __init__(self, held: Held, book: Book, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(held, book)
        self._loop = loop
        self._task: Optional[asyncio.Task[Any]] = None
        self._thrown = -1
        self._at_gate = 0

    async def save_checkpoint(self, checkpoint: bytes) -> None:
        """Keeps where a later attempt should go on, up to 1 MiB. Returns when it is durable."""
        await self._say(v1.ReportItem(checkpoint=checkpoint))
        self._checkpoint = bytes(checkpoint)

    async def save_external_ref(self, reference: str) -> None:
        """Notes work outside that is about to be started, up to 1 KiB, so that a later attempt or cleanup
        can find it. Returns when it is durable."""
        await self._say(v1.ReportItem(external_ref=reference))
        self._external_ref = reference

    async def gate(self) -> None:
        """Asks whether an irreversible step may be taken; returns only when it may.

        From then on no client's cancel interrupts the handler: the operation is carried to its end, or
        looks at ``ctx.cancelled`` by itself. If a cancel came first, the handler is interrupted here.
        """
        self._at_gate += 1
        thrown = False
        try:
            result = await self._ask(v1.ReportItem(gate=v1.Gate()))
        finally:
            self._at_gate -= 1
            thrown = self._throw_if_due()
        if result.gate_passed:
            return
        if self._held.wish is None:
            raise _refused(result)
        if thrown and asyncio.current_task() is self._task:
            # The task is being cancelled already; this is where it hears of it.
            await self._loop.create_future()
        raise asyncio.CancelledError(str(self._held.wish))

    async def _say(self, item: v1.ReportItem) -> None:
        _check_size("the report", item.ByteSize())
        result = await self._ask(item)
        if result.HasField("error"):
            raise _refused(result)

    async def _ask(self, item: v1.ReportItem) -> v1.ReportResult:
        answer: asyncio.Future[Optional[v1.ReportResult]] = self._loop.create_future()

        def answered(result: Optional[v1.ReportResult]) -> None:
            if not answer.done():
                answer.set_result(result)

        self._book.ask(self._held, Ask(item, lambda result: call_soon(self._loop, answered, result)))
        result = await answer
        if result is None:
            raise Lost
        return result

    def _throw_if_due(self, again: bool = False) -> bool:
        """Cancels the handler's task, once for each kind of wish, and says whether it did.

        Called on the event loop. ``again``: for the last time, whatever was done before.
        """
        wish, task = self._held.wish, self._task
        if wish is None or task is None or task.done():
            return False
        grave = wish.why.gravity == 2
        if not grave and not again and (self._at_gate or not self._interrupts):
            return False
        if self._thrown >= int(grave) and not again:
            return False
        self._thrown = int(grave)
        return task.cancel(str(wish))


class SyncContext(_Context):
    """What a plain function is given, which runs in a thread of its own.

    Nothing can stop such a function from outside: it must look at ``ctx.cancelled``, call ``ctx.check()``
    or use ``ctx.sleep()``. One that never does keeps its slot, and its lease is renewed, until it returns.
    """

    def sleep(self, seconds: float) -> None:
        """Sleeps, and raises :class:`Cancelled` as soon as the work is not wanted any more."""
        self.check()
        if self._held.gate_passed:
            # The other flag may be up already without meaning to interrupt.
            self._held.lost.wait(seconds)
        else:
            self._held.told.wait(seconds)
        self.check()

    def save_checkpoint(self, checkpoint: bytes) -> None:
        """Keeps where a later attempt should go on, up to 1 MiB. Returns when it is durable."""
        self._say(v1.ReportItem(checkpoint=checkpoint))
        self._checkpoint = bytes(checkpoint)

    def save_external_ref(self, reference: str) -> None:
        """Notes work outside that is about to be started, up to 1 KiB, so that a later attempt or cleanup
        can find it. Returns when it is durable."""
        self._say(v1.ReportItem(external_ref=reference))
        self._external_ref = reference

    def gate(self) -> None:
        """Asks whether an irreversible step may be taken; returns only when it may.

        From then on ``check`` and ``sleep`` ignore a client's cancel. If a cancel came first, this raises
        :class:`Cancelled`.
        """
        result = self._ask(v1.ReportItem(gate=v1.Gate()))
        if result.gate_passed:
            return
        wish = self._held.wish
        if wish is None:
            raise _refused(result)
        raise Cancelled(wish)

    def _say(self, item: v1.ReportItem) -> None:
        _check_size("the report", item.ByteSize())
        result = self._ask(item)
        if result.HasField("error"):
            raise _refused(result)

    def _ask(self, item: v1.ReportItem) -> v1.ReportResult:
        answered = threading.Event()
        answers: list[Optional[v1.ReportResult]] = []

        def answer(result: Optional[v1.ReportResult]) -> None:
            answers.append(result)
            answered.set()

        self._book.ask(self._held, Ask(item, answer))
        answered.wait()
        if answers[0] is None:
            self.check()
            raise Lost
        return answers[0]


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """Runs something on the loop; nothing when the loop has ended."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        pass


def _check_size(what: str, size: int) -> None:
    if size > ITEM_BYTES_MAX:
        raise Refused(3, "INVALID_VALUE", f"{what} has {size} bytes; at most {ITEM_BYTES_MAX} can be sent")


def _refused(result: v1.ReportResult) -> Refused:
    return Refused(result.error.code, result.error.reason, result.error.message)
