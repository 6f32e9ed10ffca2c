"""The one place that reads a clock."""

from __future__ import annotations

import time

_ID = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Seconds since some moment, never set back; goes on while the machine sleeps, where it can."""
    return time.monotonic() if _ID is None else time.clock_gettime(_ID)
