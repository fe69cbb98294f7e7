"""A timer that goes on while the host sleeps: what is due meanwhile comes the moment the host wakes."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

from loop import READABLE, Loop

# <linux/time.h>, <sys/timerfd.h>
_CLOCK_BOOTTIME = 7
_TFD_TIMER_ABSTIME = 1
_TFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


def now() -> float:
    """Seconds since the host was started, those in which it slept included."""
    return time.clock_gettime(_CLOCK_BOOTTIME)


class BootTimer:
    """One call at a time of the clock of ``now``. Raises OSError where the kernel has no such timer."""

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._fd = _libc.timerfd_create(_CLOCK_BOOTTIME, _TFD_FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "no timer")
        self._callback = callback
        loop.register(self._fd, READABLE, self._on_due)

    def arm(self, due: float | None) -> None:
        """Replaces what was set before; None: never. A time that has passed is due at once."""
        nanoseconds = 0 if due is None else max(1, int(due * 1_000_000_000))
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(nanoseconds, 1_000_000_000)))
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), f"the timer cannot be set to {due}")

    def _on_due(self, events: int) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew in the same turn
        self._callback()
