"""The thread that sends reports, renews leases and gives up what could not be renewed.

Runs beside the handlers, so that nothing they do delays a renewal.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from . import clock
from .book import Book
from .held import Part

log = logging.getLogger("longhaul")


class Link(Protocol):
    """A way to the server."""

    def ready(self) -> bool:
        """Whether a report can be sent now. Whoever changes that notifies ``book.changed``."""

    def send(self, parts: list[Part]) -> None:
        """Sends a report. Leads to ``book.answered`` or ``book.unanswered``, once."""

    def check(self, now: float) -> float:
        """Gives up calls that take too long; answers when to look again."""


class Reporter:
    """Sends what the book has to say, over whichever link is in use."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._link: Link | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="longhaul-reports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def use(self, link: Link) -> None:
        """From now on reports go this way."""
        with self._book.changed:
            self._link = link
            self._book.changed.notify_all()

    def stop(self) -> None:
        """Ends the thread."""
        with self._book.changed:
            self._ended = True
            self._book.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            try:
                self._step()
            except Exception:
                # Without this thread every lease would be lost; the next step starts from the book again.
                log.exception("a report could not be sent")

    def _step(self) -> None:
        book = self._book
        book.fence_off(clock.now())
        parts: list[Part] = []
        with book.changed:
            link, now = self._link, clock.now()
            if self._ended:
                return
            moments = [moment for moment in (book.due_at(),) if moment is not None]
            if link is not None:
                moments.append(link.check(now))
                if link.ready():
                    parts = book.next_parts(now)
            if not parts:
                pause = min(moments, default=now + 60.0) - now
                book.changed.wait(max(pause, 0.01))
        if parts and link is not None:
            link.send(parts)
