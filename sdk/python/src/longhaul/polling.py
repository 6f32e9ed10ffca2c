"""The connection as hanging claims and reports, for servers and proxies without sessions."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any, Optional

import grpc

from . import clock
from .book import BATCH_MAX, Book
from .calls import Backoff, Calls, permanent
from .held import Held, Part
from .v1 import workers_pb2 as v1

log = logging.getLogger("longhaul")

REPORTS_MAX = 16
"""Reports under way at once."""
GATHER = 0.005
"""How long operations gather before they are listened for together, in seconds."""


class Polling:
    """Claims while there are free slots, and listens for what is wanted of what is held."""

    def __init__(
        self,
        book: Book,
        calls: Calls,
        opening: v1.SessionOpen,
        on_refused: Callable[[grpc.RpcError], None],
    ) -> None:
        """As for a session."""
        self._book, self._calls, self._opening, self._on_refused = book, calls, opening, on_refused
        self._answer_time = min(10.0, max(0.5, book.lease / 6))
        self._hang = min(20.0, book.lease / 3)
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._reports: set[Any] = set()
        self._claiming: Any = None
        self._listening: list[Any] = []
        self._pause_until = 0.0
        self._backoff = Backoff()
        self._claims = threading.Thread(target=self._run_claims, name="longhaul-claims", daemon=True)
        self._hearing = threading.Thread(target=self._run_hearing, name="longhaul-hearing", daemon=True)

    def start(self) -> None:
        self._claims.start()
        self._hearing.start()

    def offer(self, slots: int) -> None:
        """Free slots are counted anew at each claim; a claim that hangs is ended when none may come."""
        with self._book.changed:
            self._book.changed.notify_all()
            claiming = self._claiming if slots == 0 else None
        if claiming is not None:
            claiming.cancel()

    def close(self, patience: float) -> None:
        """Ends all calls; what a claim may have been granted meanwhile is given back."""
        self._closing.set()
        self.offer(0)
        self._claims.join(patience)
        self._ended.set()
        with self._book.changed:
            self._book.changed.notify_all()
            listening = list(self._listening)
        for call in listening:
            call.cancel()
        self._hearing.join(patience)

    # As the reporter sees it.

    def ready(self) -> bool:
        return len(self._reports) < REPORTS_MAX and clock.now() >= self._pause_until

    def send(self, parts: list[Part]) -> None:
        request = v1.ReportRequest(worker=self._opening.worker, items=[part.item for part in parts])
        sent_at = clock.now()
        call = self._calls.report(request, self._answer_time)
        with self._book.changed:
            self._reports.add(call)
        call.add_done_callback(lambda call: self._reported(call, parts, sent_at))

    def check(self, now: float) -> float:
        """Calls end by their own timeouts; only the pause after a failure is waited for."""
        return max(self._pause_until, now) if self._pause_until > now else now + 60.0

    def _reported(self, call: Any, parts: list[Part], sent_at: float) -> None:
        error = call.exception()
        with self._book.changed:
            self._reports.discard(call)
            if error is None:
                self._backoff.reset()
            else:
                self._pause_until = clock.now() + self._backoff.pause()
            self._book.changed.notify_all()
        if error is None:
            self._book.answered(parts, call.result().results, sent_at)
        else:
            log.debug("a report got no answer: %s", error)
            self._book.unanswered(parts)

    # Claims.

    def _run_claims(self) -> None:
        backoff = Backoff()
        while not self._closing.is_set():
            free = self._wait_for_slots()
            if free == 0:
                return
            request = v1.ClaimRequest(
                worker=self._opening.worker,
                methods=self._opening.methods,
                queues=self._opening.queues,
                max=min(free, BATCH_MAX),
                claim_id=str(uuid.uuid4()),
                lease=self._opening.lease,
            )
            try:
                self._claim(request, backoff)
            except grpc.RpcError as error:
                self._on_refused(error)
                return

    def _wait_for_slots(self) -> int:
        with self._book.changed:
            while not self._closing.is_set():
                free = self._book.free()
                if free > 0:
                    return free
                self._book.changed.wait()
        return 0

    def _claim(self, request: v1.ClaimRequest, backoff: Backoff) -> None:
        """Repeats one claim until it is answered: the same id brings the same leases, so an answer that
        was lost on the way loses nothing. At the end it no longer hangs, and what comes is given back."""
        began = clock.now()
        while True:
            closing = self._no_more()
            hang = 0.0 if closing else self._hang
            request.wait.FromNanoseconds(round(hang * 1e9))
            call = self._calls.claim(request, hang + self._answer_time)
            with self._book.changed:
                self._claiming = call
            if self._no_more() and not closing:
                call.cancel()
            try:
                assignments = call.result().assignments
            except grpc.FutureCancelledError:
                continue
            except grpc.RpcError as error:
                if permanent(error):
                    raise
                if closing:
                    return
                log.debug("a claim got no answer: %s", error)
                self._closing.wait(backoff.pause())
                continue
            finally:
                with self._book.changed:
                    self._claiming = None
            backoff.reset()
            fence = began + self._book.lease
            self._book.assigned(assignments, fence if clock.now() < fence - self._book.margin else None)
            return

    def _no_more(self) -> bool:
        return self._closing.is_set() or self._book.free() == 0

    # Hanging reports.

    def _run_hearing(self) -> None:
        backoff = Backoff()
        while not self._ended.is_set():
            holding = self._wait_for_work()
            if not holding:
                continue
            answered = self._listen(holding)
            if answered:
                backoff.reset()
            elif not self._ended.is_set():
                self._ended.wait(backoff.pause())

    def _wait_for_work(self) -> list[Held]:
        """What to listen for; what was told already is only renewed, by the reporter."""
        with self._book.changed:
            while not self._ended.is_set():
                holding = self._worth_hearing()
                if holding:
                    return holding
                self._book.changed.wait()
        return []

    def _worth_hearing(self) -> list[Held]:
        light = (held for held in self._book.holding() if not held.ending)
        return [held for held in light if held.wish is None or held.wish.why.gravity == 0]

    def _listen(self, holding: list[Held]) -> bool:
        """One round of hanging reports; over when one of them ends or something else is held."""
        self._ended.wait(GATHER)
        chunks = [holding[start : start + BATCH_MAX] for start in range(0, len(holding), BATCH_MAX)]
        over = threading.Event()
        calls = [(chunk, clock.now(), self._hang_on(chunk)) for chunk in chunks]
        with self._book.changed:
            self._listening = [call for _, _, call in calls]
        for _, _, call in calls:
            call.add_done_callback(lambda _: self._wake(over))
        known = {held.key for held in holding}
        with self._book.changed:
            while not over.is_set() and not self._ended.is_set():
                if any(held.key not in known for held in self._worth_hearing()):
                    break
                self._book.changed.wait()
            self._listening = []
        answered = True
        for chunk, sent_at, call in calls:
            call.cancel()
            answered &= self._heard(chunk, sent_at, call)
        return answered

    def _hang_on(self, chunk: list[Held]) -> Any:
        items = []
        for held in chunk:
            item = v1.ReportItem(operation=held.operation, epoch=held.epoch, lease=self._opening.lease)
            items.append(item)
        request = v1.ReportRequest(worker=self._opening.worker, items=items)
        request.wait.FromNanoseconds(round(self._hang * 1e9))
        return self._calls.report(request, self._hang + self._answer_time)

    def _wake(self, over: threading.Event) -> None:
        with self._book.changed:
            over.set()
            self._book.changed.notify_all()

    def _heard(self, chunk: list[Held], sent_at: float, call: Any) -> bool:
        """What an answer said; one that was given up counts as answered."""
        error: Optional[BaseException] = None
        try:
            error = call.exception()
        except grpc.FutureCancelledError:
            return True
        if error is not None:
            log.debug("a hanging report broke: %s", error)
            return False
        for held, result in zip(chunk, call.result().results):
            self._book.heard(held, result, sent_at)
        return True
