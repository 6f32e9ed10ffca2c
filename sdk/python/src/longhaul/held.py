"""One operation that the worker holds under one epoch: what is to be said, what was heard.

Only state and its transitions; no thread, no call. Everything here happens under the book's lock.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, Optional

from .v1 import workers_pb2 as v1
from .wishes import Cancellation

TERMINAL = ("response", "failure", "stopped", "release")
"""Actions after which an epoch has nothing more to say."""


@dataclasses.dataclass
class Ask:
    """Something whose answer is waited for."""

    item: v1.ReportItem
    answer: Callable[[Optional[v1.ReportResult]], None]
    """Called once, from another thread, without a lock; with nothing when no answer can come any more."""

    @property
    def terminal(self) -> bool:
        return self.item.WhichOneof("action") in TERMINAL


@dataclasses.dataclass
class Part:
    """One item on its way to the server."""

    held: Held
    item: v1.ReportItem
    ask: Optional[Ask] = None
    remarks: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The fields of an item that nobody waits for."""


class Held:
    """One operation, claimed by this worker under one epoch."""

    def __init__(self, assignment: v1.Assignment, fence: float) -> None:
        self.assignment = assignment
        self.operation: str = assignment.operation
        self.epoch: int = assignment.epoch
        self.fence = fence
        """By then, at the latest, the server may give the operation away."""
        self.renew_at = fence
        self.confirmed = False
        """The server has answered a report, so the lease was still held when that was sent."""
        self.wish: Optional[Cancellation] = None
        self.told = threading.Event()
        """Set when the work is not wanted any more."""
        self.lost = threading.Event()
        """Set when nobody listens to reports any more."""
        self.on_wish: Callable[[], None] = lambda: None
        """Called from any thread, without a lock, at each wish that is graver than the last."""
        self.over = False
        """No report can matter any more."""
        self.ending = False
        """The handler has returned; only its end is still to be reported."""
        self.gate_passed = False
        self.remarks: dict[str, Any] = {}
        """What is to be said without waiting for an answer; of each field only the last value."""
        self.asks: collections.deque[Ask] = collections.deque()
        self.in_line = False
        self.in_flight = False

    @property
    def key(self) -> tuple[str, int]:
        return (self.operation, self.epoch)

    def next_part(self, lease: float, renew: bool) -> Optional[Part]:
        """The next thing to say, if there is any. One at a time, so that the order is kept."""
        if self.over or self.in_flight:
            return None
        part = self._next_part()
        if part is None and not renew:
            return None
        part = part or Part(self, v1.ReportItem())
        part.item.operation, part.item.epoch = self.operation, self.epoch
        part.item.lease.FromNanoseconds(round(lease * 1e9))
        self.in_flight = True
        return part

    def _next_part(self) -> Optional[Part]:
        # Alone, so that it is not refused for the sake of something else.
        if self.remarks.pop("acknowledge_cancel", False):
            remarks: dict[str, Any] = {"acknowledge_cancel": True}
        elif self.remarks:
            remarks, self.remarks = self.remarks, {}
        elif self.asks:
            ask = self.asks.popleft()
            item = v1.ReportItem()
            item.CopyFrom(ask.item)
            return Part(self, item, ask)
        else:
            return None
        return Part(self, v1.ReportItem(**remarks), remarks=remarks)

    def take_back(self, part: Part) -> None:
        """A part got no answer: it is said again. Every item may be repeated."""
        self.in_flight = False
        if part.ask is not None:
            self.asks.appendleft(part.ask)
        self.remarks = {**part.remarks, **self.remarks}

    @property
    def has_more(self) -> bool:
        return not self.over and bool(self.remarks or self.asks)
