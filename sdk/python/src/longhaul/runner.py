"""The worker: takes operations, runs handlers, reports how they ended, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import grpc

from .book import Book
from .calls import Calls, Metadata, open_channel
from .context import call_soon
from .errors import Refused, StillRunning
from .handlers import handlers_of
from .held import Held
from .polling import Polling
from .reporter import Reporter
from .session import Session
from .supervisor import Supervisor
from .v1 import workers_pb2 as v1
from .wishes import Cancellation, Why

log = logging.getLogger("longhaul")

SLOTS_MAX = 65_536
"""Most operations that one worker runs at once; what one process can renew comfortably."""


class Worker:
    """Serves the methods of some handlers.

    :param target: the server, such as ``http://127.0.0.1:7151``.
    :param functions: functions marked with :func:`longhaul.worker`.
    :param name: who this is, in its own words, 1 to 256 bytes; must differ from every other worker's.
    :param queues: names of the queues to take work from; none means any.
    :param slots: most operations at once, 1 to 65,536.
    :param lease: seconds that the server waits for a silent worker before it gives its operations to
        another, 1 to 3600. Leases are renewed three times as often, and a handler whose lease could not be
        renewed is stopped before it ends.
    :param drain: seconds that handlers may go on after :meth:`stop` before they are told to stop.
    :param grace: seconds that a handler may take to return after it was told so.
    :param metadata: gRPC metadata of every call, such as ``[("authorization", "Bearer ..")]``.
    :param credentials: of the channel; for ``https`` those of the system are the default.
    """

    def __init__(
        self,
        target: str,
        *functions: Callable[..., Any],
        name: Optional[str] = None,
        queues: Sequence[str] = (),
        slots: int = 100,
        lease: float = 30.0,
        drain: float = 0.0,
        grace: float = 5.0,
        metadata: Metadata = (),
        credentials: Optional[grpc.ChannelCredentials] = None,
    ) -> None:
        self._handlers = handlers_of(functions)
        self.name = f"{socket.gethostname()}/{os.getpid()}-{os.urandom(3).hex()}" if name is None else name
        if not 1 <= len(self.name.encode()) <= 256:
            raise ValueError(f"worker name {self.name!r} must have 1 to 256 bytes")
        if not 1 <= slots <= SLOTS_MAX:
            raise ValueError(f"{slots} slots; 1 to {SLOTS_MAX} are possible")
        if not 1 <= lease <= 3600:
            raise ValueError(f"a lease of {lease} s; 1 to 3600 s are possible")
        if drain < 0 or grace < 0:
            raise ValueError("drain and grace must not be negative")
        open_channel(target, lease, credentials).close()
        self._target, self._credentials, self._metadata = target, credentials, tuple(metadata)
        self._slots, self._lease, self._drain_time, self._grace = slots, lease, drain, grace
        self._opening = v1.SessionOpen(worker=self.name, methods=sorted(self._handlers), queues=queues)
        self._opening.lease.FromNanoseconds(round(lease * 1e9))
        self._lock = threading.Lock()
        self._stopped = False
        self._running: Optional[_Running] = None

    def stop(self) -> None:
        """Begins to end the worker: takes no more work, lets handlers finish or tells them to stop, gives
        back what is left. May be called from any thread, more than once, and before :meth:`run`."""
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.stop()

    async def run(self) -> None:
        """Works until :meth:`stop`; cancelling it does the same.

        Raises :class:`Refused` when the server refuses this worker for good, and :class:`StillRunning`
        when handlers run on though they were told to stop: their leases are left to run out, and the
        process should end. A worker runs once.
        """
        running = _Running(self)
        with self._lock:
            if self._running is not None:
                raise RuntimeError("a worker runs once")
            self._running = running
            if self._stopped:
                running.stop()
        await running.run()


class _Running:
    """A worker while it runs, on one event loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._refused: Optional[Refused] = None
        self._supervisions: dict[asyncio.Task[None], Supervisor] = {}
        self._newest: dict[str, asyncio.Task[None]] = {}
        self._book = Book(worker._lease, worker._slots, lambda held: call_soon(self._loop, self._start, held))
        self._reporter = Reporter(self._book)
        self._channel = open_channel(worker._target, worker._lease, worker._credentials)
        self._calls = Calls(self._channel, worker._metadata)
        self._answer_time = min(10.0, max(1.0, worker._lease / 6))
        self._lock = threading.Lock()
        self._link: Union[Session, Polling, None] = None
        self._closing = False

    def stop(self) -> None:
        call_soon(self._loop, self._stopping.set)

    async def run(self) -> None:
        interrupted = False
        self._reporter.start()
        self._use(Session)
        try:
            await self._stopping.wait()
        except asyncio.CancelledError:
            interrupted = True
        try:
            await self._drain()
        finally:
            # In a thread: it may wait for the server, and the loop has other things to do.
            await asyncio.shield(self._loop.run_in_executor(None, self._close))
        if interrupted:
            raise asyncio.CancelledError
        if self._refused is not None:
            raise self._refused
        if self._supervisions:
            raise StillRunning([one.operation for one in self._supervisions.values()])

    # Work comes and goes.

    def _start(self, held: Held) -> None:
        handler = self._worker._handlers.get(held.assignment.method)
        if handler is None or held.over:
            log.error("%s came although nobody serves %s", held.operation, held.assignment.method)
            self._book.gone(held)
            return
        supervisor = Supervisor(held, handler, self._book, self._worker._grace)
        # An older epoch of the same operation may still have a function running that does not stop.
        task = self._loop.create_task(supervisor.run(self._newest.get(held.operation)))
        self._newest[held.operation] = task
        self._supervisions[task] = supervisor
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        operation = self._supervisions.pop(task).operation
        if self._newest.get(operation) is task:
            del self._newest[operation]
        if not task.cancelled() and task.exception() is not None:
            log.error("the supervision of %s broke", operation, exc_info=task.exception())

    async def _drain(self) -> None:
        """Lets handlers finish, then tells them to stop, then insists."""
        self._book.close()
        with self._lock:
            link = self._link
        if link is not None:
            link.offer(0)
        if await self._idle(self._worker._drain_time):
            return
        for supervisor in self._supervisions.values():
            supervisor.tell(Cancellation(Why.WORKER_SHUTDOWN))
        if await self._idle(self._worker._grace):
            return
        for supervisor in self._supervisions.values():
            supervisor.insist()
        if await self._idle(self._answer_time):
            return
        # What only waits for the server to take its end is given up; its lease runs out.
        for task, supervisor in self._supervisions.items():
            if supervisor.returned:
                task.cancel()
        await asyncio.sleep(0)

    async def _idle(self, patience: float) -> bool:
        tasks = set(self._supervisions)
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        return all(task.done() for task in tasks)

    # The connection, whose threads call what follows.

    def _use(self, kind: Union[type[Session], type[Polling]]) -> None:
        with self._lock:
            if self._closing:
                return
            link = kind(self._book, self._calls, self._worker._opening, self._on_refused)
            self._link = link
        link.start()
        self._reporter.use(link)

    def _on_refused(self, error: grpc.RpcError) -> None:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED and isinstance(self._link, Session):
            log.info("the server has no sessions; using claims and reports")
            self._use(Polling)
            return
        self._refused = Refused(error.code().value[0], "", f"the server refuses this worker: {error.details()}")
        self.stop()

    def _close(self) -> None:
        with self._lock:
            self._closing = True
            link = self._link
        if link is not None:
            link.close(self._answer_time)
        self._reporter.stop()
        leftovers = self._book.leftovers()
        if leftovers:
            request = v1.ReportRequest(worker=self._worker.name, items=leftovers)
            try:
                self._calls.report(request, self._answer_time).result()
            except grpc.RpcError as error:
                log.warning("leases could not be given back; they will run out: %s", error)
        self._channel.close()


def run(target: str, *functions: Callable[..., Any], **options: Any) -> None:
    """Runs a :class:`Worker` with these arguments until SIGTERM or SIGINT, then ends it in order.

    A second signal ends the process at once.
    """

    async def main() -> None:
        worker = Worker(target, *functions, **options)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for number in signals:
                loop.remove_signal_handler(number)
            worker.stop()

        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop)
        await worker.run()

    asyncio.run(main())
