"""The clock that leases and transactions are measured by."""

from __future__ import annotations

import time

# A machine that sleeps stops the usual monotonic clock, but not the lease that others see expire.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def seconds() -> float:
    """Seconds since some moment; never set back, and going on while the machine sleeps where the system knows that."""
    return time.clock_gettime(_CLOCK)
