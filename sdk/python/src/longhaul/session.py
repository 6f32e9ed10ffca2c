"""The connection as one stream in both directions. Losing it loses nothing.

A new stream begins with everything that the worker holds, and with what the server wants of it.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

import grpc

from . import clock
from .book import Book
from .calls import Backoff, Calls, permanent
from .held import Part
from .v1 import workers_pb2 as v1

log = logging.getLogger("longhaul")

OUTSTANDING_MAX = 64
"""Reports without an answer; the server allows 1024."""


class Session:
    """Keeps a session open until it is closed."""

    def __init__(
        self,
        book: Book,
        calls: Calls,
        opening: v1.SessionOpen,
        on_refused: Callable[[grpc.RpcError], None],
    ) -> None:
        """``opening`` says who the worker is and what it serves; ``on_refused`` ends the session for good."""
        self._book, self._calls, self._opening, self._on_refused = book, calls, opening, on_refused
        self._answer_time = min(10.0, max(0.5, book.lease / 6))
        self._closing = threading.Event()
        self._broken = False
        self._stream: Any = None
        self._requests: Optional[queue.SimpleQueue[Optional[v1.SessionRequest]]] = None
        self._outstanding: dict[int, tuple[list[Part], float]] = {}
        self._ids = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="longhaul-session", daemon=True)

    def start(self) -> None:
        self._book.on_slots = self.offer
        self._thread.start()

    def close(self, patience: float) -> None:
        """Ends the session in order; what the server still assigns meanwhile is given back."""
        self._closing.set()
        with self._book.changed:
            opened = self._requests is not None
            if self._requests is not None:
                self._requests.put(None)
        if opened:
            self._thread.join(patience)
        with self._book.changed:
            stream = self._stream
        if stream is not None:
            stream.cancel()
        self._thread.join(patience)

    def offer(self, slots: int) -> None:
        """Tells the server how many operations the worker can hold."""
        with self._book.changed:
            if self._requests is not None:
                self._requests.put(v1.SessionRequest(slots=v1.SessionSlots(slots=slots)))

    # As the reporter sees it.

    def ready(self) -> bool:
        return self._requests is not None and len(self._outstanding) < OUTSTANDING_MAX

    def send(self, parts: list[Part]) -> None:
        report = v1.SessionReport(id=next(self._ids), items=[part.item for part in parts])
        with self._book.changed:
            requests = self._requests
            if requests is not None:
                self._outstanding[report.id] = (parts, clock.now())
                requests.put(v1.SessionRequest(report=report))
        if requests is None:
            self._book.unanswered(parts)

    def check(self, now: float) -> float:
        """Cuts the stream when a report is not answered although the connection seems to live."""
        oldest = min((sent_at for _, sent_at in self._outstanding.values()), default=None)
        if oldest is None:
            return now + 60.0
        if oldest + self._answer_time <= now and self._stream is not None and not self._broken:
            log.warning("the server does not answer; connecting again")
            self._broken = True
            self._stream.cancel()
            return now + 60.0
        return oldest + self._answer_time

    # The stream.

    def _run(self) -> None:
        backoff = Backoff()
        while not self._closing.is_set():
            try:
                self._hold(backoff)
            except grpc.RpcError as error:
                if permanent(error):
                    self._on_refused(error)
                    return
                log.debug("the session broke: %s", error)
            except Exception:
                log.exception("the session broke")
            finally:
                self._lost()
            self._closing.wait(backoff.pause())

    def _hold(self, backoff: Backoff) -> None:
        """One stream from its opening to its end."""
        requests: queue.SimpleQueue[Optional[v1.SessionRequest]] = queue.SimpleQueue()
        opening = v1.SessionOpen()
        opening.CopyFrom(self._opening)
        opening.slots = self._book.offered()
        for held in self._book.holding():
            opening.held.add(operation=held.operation, epoch=held.epoch)
        unnamed = {(one.operation, one.epoch) for one in opening.held}
        requests.put(v1.SessionRequest(open=opening))
        stream = self._calls.session(_until_none(requests))
        with self._book.changed:
            self._stream, self._broken = stream, False
        if self._closing.is_set():
            stream.cancel()
        opened = threading.Timer(self._answer_time * 2, stream.cancel)
        opened.daemon = True
        opened.start()
        try:
            for response in stream:
                opened.cancel()
                self._hear(response, unnamed)
                if response.complete:
                    backoff.reset()
                    self._opened(requests)
        finally:
            opened.cancel()
            requests.put(None)
            stream.cancel()

    def _opened(self, requests: queue.SimpleQueue[Optional[v1.SessionRequest]]) -> None:
        with self._book.changed:
            self._requests = requests
            if self._closing.is_set():
                requests.put(None)
            self._book.changed.notify_all()
        # What changed while the stream was being opened.
        self.offer(self._book.offered())

    def _lost(self) -> None:
        with self._book.changed:
            self._requests = None
            self._stream = None
            outstanding, self._outstanding = self._outstanding, {}
        for parts, _ in outstanding.values():
            self._book.unanswered(parts)

    def _hear(self, response: v1.SessionResponse, unnamed: set[tuple[str, int]]) -> None:
        """One answer. ``unnamed`` is what the opening held and the server has not named yet."""
        for update in response.desired:
            self._book.desired((update.operation, update.epoch), update.desired)
            unnamed.discard((update.operation, update.epoch))
        if response.complete:
            self._book.drop(unnamed)
        if response.assignments:
            self._assigned(response.assignments)
        if response.HasField("results"):
            with self._book.changed:
                parts, sent_at = self._outstanding.pop(response.results.id, ([], 0.0))
            self._book.answered(parts, response.results.results, sent_at)

    def _assigned(self, assignments: Any) -> None:
        """New work. How long it was on its way cannot be known; the clocks of both sides may tell."""
        now, lease = clock.now(), self._book.lease
        for assignment in assignments:
            left = assignment.lease_expire_time.ToNanoseconds() / 1e9 - time.time()
            fresh = lease * 2 / 3 <= left <= lease + 1.0
            self._book.assigned([assignment], now + min(left, lease) if fresh else None)


def _until_none(
    requests: queue.SimpleQueue[Optional[v1.SessionRequest]],
) -> Iterator[v1.SessionRequest]:
    while True:
        request = requests.get()
        if request is None:
            return
        yield request
