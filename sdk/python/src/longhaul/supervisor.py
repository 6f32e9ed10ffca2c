"""Runs one handler beside its lease, and reports its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any, Optional, Union

from .book import ITEM_BYTES_MAX, Book
from .context import Context, SyncContext, call_soon
from .endings import Ending, Failed, Released, Stopped
from .errors import Cancelled, Lost
from .handlers import Handler, is_async
from .held import Ask, Held
from .messages import from_any, response_of
from .v1 import workers_pb2 as v1
from .wishes import Cancellation, Effects, Why

log = logging.getLogger("longhaul")

ABORTED, INTERNAL, UNIMPLEMENTED = 10, 13, 12
"""Codes of google.rpc.Code."""


class Supervisor:
    """One operation from its start to its reported end."""

    def __init__(self, held: Held, handler: Handler, book: Book, grace: float) -> None:
        self._held, self._handler, self._book, self._grace = held, handler, book, grace
        self._loop = asyncio.get_running_loop()
        self._function = handler.cleanup if held.assignment.cleanup else handler.function
        self._context: Union[Context, SyncContext]
        if self._function is not None and not is_async(self._function):
            self._context = SyncContext(held, book)
        else:
            self._context = Context(held, book, self._loop)
        self.returned = False
        """Whether the handler has; then only its end is still to be reported."""

    @property
    def operation(self) -> str:
        return self._held.operation

    def tell(self, wish: Cancellation) -> None:
        """Tells the handler to stop."""
        self._book.tell(self._held, wish)

    def insist(self) -> None:
        """Interrupts a handler once more that did not stop when told."""
        if self.returned:
            return
        log.error("%s runs on although it was told to stop: %s", self.operation, self._held.wish)
        if isinstance(self._context, Context):
            self._context._throw_if_due(again=True)

    async def run(self, before: Optional[asyncio.Task[None]]) -> None:
        """Runs the handler once ``before`` has ended."""
        try:
            item = await self._outcome(before)
            self.returned = True
            if item is not None:
                self._book.end(self._held)
                await self._finish(item)
        finally:
            self._book.gone(self._held)

    async def _outcome(self, before: Optional[asyncio.Task[None]]) -> Optional[v1.ReportItem]:
        """What the handler's end comes to; nothing when nobody wants to know."""
        task = self._loop.create_task(self._call(before))
        if isinstance(self._context, Context):
            self._context._task = task
        self._held.on_wish = lambda: call_soon(self._loop, self._wished)
        if self._held.wish is not None:
            self._wished()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._held.on_wish = lambda: None
        if task.cancelled():
            return self._interrupted()
        error = task.exception()
        if error is not None:
            return self._raised(error)
        try:
            return self._returned(task.result())
        except TypeError as wrong:
            log.error("%s: %s", self.operation, wrong)
            return Failed(INTERNAL, f"the worker's result is wrong: {wrong}", effects=Effects.UNKNOWN).item()

    def _wished(self) -> None:
        if isinstance(self._context, Context):
            self._context._throw_if_due()
        wish = self._held.wish
        if wish is not None and wish.why.gravity == 2:
            self._loop.call_later(self._grace, self.insist)

    # The call.

    async def _call(self, before: Optional[asyncio.Task[None]]) -> Any:
        if before is not None:
            await asyncio.wait({before})
        if not self._held.confirmed:
            result = await self._ask(v1.ReportItem())
            if result is None or result.HasField("error"):
                raise Released
        if self._function is None:
            raise Failed(UNIMPLEMENTED, "this worker has no cleanup for the method")
        try:
            request = from_any(self._held.assignment.request, self._handler.request)
        except ValueError as error:
            raise Failed(INTERNAL, f"this worker cannot read the request: {error}", effects=Effects.NONE) from None
        if isinstance(self._context, Context):
            return await self._function(self._context, request)
        return await self._in_thread(self._function, self._context, request)

    async def _in_thread(self, function: Callable[..., Any], context: SyncContext, request: Any) -> Any:
        """Runs a plain function to its end: nothing can stop it from outside."""
        context.check()
        ended: asyncio.Future[tuple[Any, Optional[BaseException]]] = self._loop.create_future()

        def end(value: Any, error: Optional[BaseException]) -> None:
            if not ended.done():
                ended.set_result((value, error))

        def work() -> None:
            value, error = None, None
            try:
                value = function(context, request)
            except BaseException as raised:
                error = raised
            call_soon(self._loop, end, value, error)

        run = contextvars.copy_context().run
        # Daemon threads do not keep a process alive that is to end.
        threading.Thread(target=run, args=(work,), name=f"longhaul {self.operation}", daemon=True).start()
        value, error = await ended
        if isinstance(error, (StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt)):
            # Those would mean something else in a coroutine.
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error
        if error is not None:
            raise error
        return value

    # Its end.

    def _returned(self, value: Any) -> Optional[v1.ReportItem]:
        if self._held.assignment.cleanup:
            effects = Effects.UNDONE if value is None else Effects(value)
            return Stopped(effects).item()
        response = response_of(value, self._held.assignment.response_type, self._handler.response)
        return v1.ReportItem(response=response)

    def _interrupted(self) -> Optional[v1.ReportItem]:
        """The handler let the interruption end it."""
        wish = self._held.wish
        if wish is None:
            log.error("%s: the handler cancelled itself", self.operation)
            return Failed(INTERNAL, "the worker's handler cancelled itself", retryable=True, effects=Effects.UNKNOWN).item()
        if wish.why.gravity == 2:
            return None
        if wish.why is Why.WORKER_SHUTDOWN:
            return Released().item()
        return Stopped().item()

    def _raised(self, error: BaseException) -> Optional[v1.ReportItem]:
        wish = self._held.wish
        if isinstance(error, Cancelled) or (isinstance(error, Lost) and wish is not None):
            return self._interrupted()
        if isinstance(error, Stopped) and wish is not None and wish.why is Why.WORKER_SHUTDOWN:
            return error.released()
        if isinstance(error, Ending):
            return error.item()
        log.error("the handler of %s raised", self.operation, exc_info=error)
        message = f"the worker's handler raised {type(error).__name__}; its log says more"
        return Failed(INTERNAL, message, retryable=True, effects=Effects.UNKNOWN).item()

    async def _finish(self, item: v1.ReportItem) -> None:
        """Reports the end until the server has taken it, in the best form that it takes."""
        refused = await self._say(item)
        if refused and (item.HasField("metadata") or item.HasField("checkpoint")):
            bare = v1.ReportItem()
            bare.CopyFrom(item)
            bare.ClearField("metadata")
            bare.ClearField("checkpoint")
            refused = await self._say(bare)
        if refused:
            refused = await self._say(_instead(item, refused))
        if refused:
            log.error("%s: no end could be reported; its lease will run out", self.operation)

    async def _say(self, item: v1.ReportItem) -> str:
        """Reports an end; answers why it was refused, or nothing."""
        size = item.ByteSize()
        if size > ITEM_BYTES_MAX:
            refused = f"it has {size} bytes; at most {ITEM_BYTES_MAX} can be sent"
        else:
            result = await self._ask(item)
            if result is None or not result.HasField("error"):
                return ""
            refused = f"{result.error.reason}: {result.error.message}"
            if result.error.reason == "LEASE_LOST":
                log.warning("%s is no longer this worker's; its end is dropped", self.operation)
                return ""
        log.error("%s: the server refused how the work ended: %s", self.operation, refused)
        return refused

    async def _ask(self, item: v1.ReportItem) -> Optional[v1.ReportResult]:
        answer: asyncio.Future[Optional[v1.ReportResult]] = self._loop.create_future()

        def answered(result: Optional[v1.ReportResult]) -> None:
            if not answer.done():
                answer.set_result(result)

        self._book.ask(self._held, Ask(item, lambda result: call_soon(self._loop, answered, result)))
        return await answer


def _instead(item: v1.ReportItem, refused: str) -> v1.ReportItem:
    """What is reported in place of an end that the server refused."""
    action = item.WhichOneof("action")
    if action == "stopped":
        code, effects, what = ABORTED, item.stopped.effects, "the worker stopped"
    elif action == "failure":
        code, effects, what = INTERNAL, item.failure.effects, "the worker failed"
    elif action == "response":
        code, effects = INTERNAL, v1.UNKNOWN
        what = f"the worker answered with {item.response.type_url!r}"
    else:
        code, effects, what = INTERNAL, v1.UNKNOWN, "the worker gave up"
    return v1.ReportItem(failure=v1.Failure(code=code, message=f"{what}, but: {refused}", effects=effects))
