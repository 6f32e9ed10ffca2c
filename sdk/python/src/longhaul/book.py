"""What the worker holds: the meeting place of handlers, reports and the connection.

Thread-safe; never blocks and never calls out while it is locked. Owns no rule about operations: the
server's row decides, and everything here only asks and obeys.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Optional

from . import clock, wishes
from .held import Ask, Held, Part
from .v1 import workers_pb2 as v1
from .wishes import Cancellation, Why

log = logging.getLogger("longhaul")

BATCH_MAX = 100
"""Most items of one report; the server takes 1000 unless it is told otherwise."""
BATCH_BYTES = 1 << 20
"""A report of several items has about as many bytes at most; the server takes messages of 4 MiB."""
ITEM_BYTES_MAX = 3 << 20

Calls = list[Callable[[], None]]


class Book:
    """Everything that the worker holds, by name and epoch."""

    def __init__(self, lease: float, slots: int, start: Callable[[Held], None]) -> None:
        self.lease = lease
        self.renew_every = lease / 3
        self.margin = lease / 6
        """How long before the lease ends a handler is told, so that it has stopped by then."""
        self.on_slots: Callable[[int], None] = lambda slots: None
        """Told when the number of operations that the worker can hold changes."""
        self._slots = slots
        self._start = start
        self._closed = False
        self._held: dict[tuple[str, int], Held] = {}
        self._dirty: collections.deque[Held] = collections.deque()
        self._offered = slots
        self.changed = threading.Condition()
        """Notified when there may be something to send."""

    # What the connection brings.

    def assigned(self, assignments: Iterable[v1.Assignment], fence: Optional[float]) -> None:
        """New work. What does not fit is given back.

        ``fence`` is when the lease ends at the earliest; ``None`` when that is not known for sure.
        """
        calls: Calls = []
        with self.changed:
            now = clock.now()
            for assignment in assignments:
                held = Held(assignment, now + self.lease if fence is None else fence)
                held.confirmed = fence is not None
                if held.key in self._held:
                    continue
                full = self._closed or len(self._held) >= self._slots
                self._held[held.key] = held
                if full:
                    self._give_back(held)
                else:
                    held.renew_at = now + self.renew_every
                    calls.append(lambda held=held: self._start(held))  # type: ignore[misc]
                    self._heed(held, assignment.desired, calls)
            self.changed.notify_all()
        _run(calls)

    def desired(self, key: tuple[str, int], desired: v1.DesiredState) -> None:
        """What is wanted of one operation. Meant for one epoch, heard by no other."""
        calls: Calls = []
        with self.changed:
            held = self._held.get(key)
            if held is not None and not held.over:
                self._heed(held, desired, calls)
            self.changed.notify_all()
        _run(calls)

    def heard(self, held: Held, result: v1.ReportResult, sent_at: float) -> None:
        """The server's answer to a report that only kept the lease."""
        calls: Calls = []
        with self.changed:
            if not held.over:
                if not result.HasField("error"):
                    held.fence = max(held.fence, sent_at + self.lease)
                    held.confirmed = True
                self._heed(held, result.desired, calls)
            self.changed.notify_all()
        _run(calls)

    def drop(self, keys: Iterable[tuple[str, int]]) -> None:
        """The server has not named these among what it believes the worker to hold."""
        calls: Calls = []
        with self.changed:
            for key in keys:
                held = self._held.get(key)
                if held is not None and not held.over:
                    self._tell(held, Cancellation(Why.LEASE_LOST), calls)
        _run(calls)

    def answered(self, parts: list[Part], results: Iterable[v1.ReportResult], sent_at: float) -> None:
        """The server's answers to items, in their order."""
        calls: Calls = []
        with self.changed:
            for part, result in zip(parts, results):
                self._settle(part, result, sent_at, calls)
            self.changed.notify_all()
        _run(calls)

    def unanswered(self, parts: Iterable[Part]) -> None:
        """No answer will come; everything is said again."""
        calls: Calls = []
        with self.changed:
            for part in parts:
                ask = part.ask
                if part.held.over and ask is not None:
                    calls.append(lambda ask=ask: ask.answer(None))  # type: ignore[misc]
                    continue
                part.held.take_back(part)
                self._put_in_line(part.held, renew=True)
            self.changed.notify_all()
        _run(calls)

    # What handlers say.

    def remark(self, held: Held, **fields: Any) -> None:
        """Says something without waiting for an answer."""
        with self.changed:
            if not held.over and not held.ending:
                held.remarks.update(fields)
                self._put_in_line(held)
                self.changed.notify_all()

    def ask(self, held: Held, ask: Ask) -> None:
        """Says something and gets an answer."""
        ask.item.operation, ask.item.epoch = held.operation, held.epoch
        with self.changed:
            lost = held.over
            if not lost:
                held.asks.append(ask)
                self._put_in_line(held)
                self.changed.notify_all()
        if lost:
            ask.answer(None)

    def tell(self, held: Held, wish: Cancellation) -> None:
        """Passes on that the work is not wanted; a lighter reason than one already known is dropped."""
        calls: Calls = []
        with self.changed:
            self._tell(held, wish, calls)
        _run(calls)

    def end(self, held: Held) -> None:
        """The handler has returned: from now on only its end is reported."""
        with self.changed:
            held.ending = True

    def gone(self, held: Held) -> None:
        """Nothing of the operation is left in this worker; its slot is free."""
        calls: Calls = []
        with self.changed:
            self._over(held, calls)
            self._held.pop(held.key, None)
            self._offer(calls)
            self.changed.notify_all()
        _run(calls)

    # What reports and the connection need to know.

    def close(self) -> None:
        """From now on whatever comes is given back."""
        with self.changed:
            self._closed = True

    def holding(self) -> list[Held]:
        """What the worker believes to hold; handlers that run on without a lease are not in it."""
        with self.changed:
            return [held for held in self._held.values() if not held.over]

    def offered(self) -> int:
        """Operations that the worker can hold: its slots less what runs on without a lease."""
        with self.changed:
            return 0 if self._closed else self._offered

    def free(self) -> int:
        """Operations that it can take now."""
        with self.changed:
            return 0 if self._closed else max(0, self._slots - len(self._held))

    def leftovers(self) -> list[v1.ReportItem]:
        """What is to be given back and was not."""
        with self.changed:
            waiting = [ask.item for held in self._held.values() for ask in held.asks]
            return [item for item in waiting if item.HasField("release")]

    def next_parts(self, now: float) -> list[Part]:
        """Takes out what is to be sent now; with the lock held."""
        for held in self._held.values():
            if held.renew_at <= now and not held.over and not held.in_flight:
                self._put_in_line(held, renew=True)
        parts: list[Part] = []
        size = 0
        while self._dirty and len(parts) < BATCH_MAX and size < BATCH_BYTES:
            held = self._dirty.popleft()
            held.in_line = False
            part = held.next_part(self.lease, renew=held.renew_at <= now)
            if part is not None:
                held.renew_at = now + self.renew_every
                size += part.item.ByteSize()
                parts.append(part)
        return parts

    def due_at(self) -> Optional[float]:
        """When something happens by itself: a lease to renew, or to give up; with the lock held."""
        moments = [
            min(held.fence - self.margin, held.fence if held.in_flight else held.renew_at)
            for held in self._held.values()
            if not held.over
        ]
        return min(moments, default=None)

    def fence_off(self, now: float) -> None:
        """Gives up what no renewal got through for. An end that is still to be reported goes on trying."""
        calls: Calls = []
        with self.changed:
            for held in self._held.values():
                if not held.over and held.fence - self.margin <= now:
                    if held.ending:
                        held.fence = now + self.lease
                        continue
                    log.warning("no renewal of %s got through; giving it up", held.operation)
                    self._tell(held, Cancellation(Why.LEASE_LOST), calls)
        _run(calls)

    # Steps.

    def _settle(self, part: Part, result: v1.ReportResult, sent_at: float, calls: Calls) -> None:
        held, ask = part.held, part.ask
        held.in_flight = False
        refused = result.error if result.HasField("error") else None
        if refused is None:
            held.fence = max(held.fence, sent_at + self.lease)
            held.confirmed = True
            held.gate_passed |= result.gate_passed
        terminal = ask is not None and ask.terminal
        if not terminal:
            self._heed(held, result.desired, calls)
        if refused is not None and refused.reason in ("LEASE_LOST", "OPERATION_NOT_FOUND") and not terminal:
            self._tell(held, Cancellation(Why.LEASE_LOST), calls)
        if ask is not None:
            calls.append(lambda: ask.answer(result))
        elif refused is not None and part.remarks:
            names = ", ".join(sorted(part.remarks))
            log.warning("%s of %s was refused: %s: %s", names, held.operation, refused.reason, refused.message)
        if held.has_more:
            self._put_in_line(held)

    def _heed(self, held: Held, desired: v1.DesiredState, calls: Calls) -> None:
        wish = wishes.read(desired)
        if wish is None:
            return
        if wish.why.gravity == 1 and (held.wish is None or held.wish.why.gravity < 1):
            held.remarks["acknowledge_cancel"] = True
            self._put_in_line(held)
        self._tell(held, wish, calls)

    def _tell(self, held: Held, wish: Cancellation, calls: Calls) -> None:
        graver = held.wish is None or held.wish.why.gravity < wish.why.gravity
        if graver:
            held.wish = wish
            held.told.set()
            calls.append(lambda: held.on_wish())
        if wish.why.gravity == 2:
            self._over(held, calls)
            self._offer(calls)

    def _over(self, held: Held, calls: Calls) -> None:
        if held.over:
            return
        held.over = True
        held.lost.set()
        for ask in held.asks:
            calls.append(lambda ask=ask: ask.answer(None))  # type: ignore[misc]
        held.asks.clear()
        held.remarks.clear()

    def _offer(self, calls: Calls) -> None:
        running_on = sum(held.over for held in self._held.values())
        offered = self._slots - running_on
        if offered != self._offered and not self._closed:
            self._offered = offered
            calls.append(lambda: self.on_slots(offered))

    def _give_back(self, held: Held) -> None:
        held.ending = True
        held.renew_at = held.fence
        item = v1.ReportItem(operation=held.operation, epoch=held.epoch, release=v1.Release())
        held.asks.append(Ask(item, lambda result: self.gone(held)))
        self._put_in_line(held)

    def _put_in_line(self, held: Held, renew: bool = False) -> None:
        if renew:
            held.renew_at = min(held.renew_at, clock.now())
        if not held.in_line:
            held.in_line = True
            self._dirty.append(held)


def _run(calls: Calls) -> None:
    for call in calls:
        call()
