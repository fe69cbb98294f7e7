"""How long attempts may run: an agent that cannot reach the control plane owns them for a while only.

The agent tells at each renewal until when it owns its attempts. Nobody has to tell that this is over: the attempts are
stopped here, whether an agent is connected, hangs, or is gone. Whoever gives them to another agent waits for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import boot_timer
from loop import Loop

# Called with the milliseconds between asking to stop and killing.
Stop = Callable[[int], None]

_MAX_DISCONNECT_MS = 7 * 24 * 3600 * 1000


class Leases:
    """The one lease of the agent, and those that hold by it: attempts, and containers that the agent has started."""

    def __init__(self, loop: Loop, log: object, before_due: Callable[[], None] | None = None) -> None:
        """``before_due``: called before anything is stopped; it may ``set`` another lease."""
        self._loop, self._log, self._before_due = loop, log, before_due
        self._timer = boot_timer.BootTimer(loop, self._on_due)
        self._end: float | None = None  # by the clock of boot_timer; None: no lease, nothing is stopped
        self._grace = 0.0
        # By the milliseconds for which they may go on beyond the lease.
        self._holders: dict[int, dict[object, Stop]] = {}

    def renew(self, header: dict) -> None:
        """Takes a `lease` message. Raises ValueError."""
        until_ms, grace_ms = header.get("until_ms"), header.get("grace_ms", 0)
        if until_ms is None:
            self.set(None, self._grace)
            return
        if isinstance(until_ms, bool) or not isinstance(until_ms, (int, float)) or not 0 <= until_ms < 1 << 53:
            raise ValueError("lease: until_ms must be null or a number from 0")
        if type(grace_ms) is not int or grace_ms < 0:
            raise ValueError("lease: grace_ms must be an integer from 0")
        # The message may have waited long: what counts is the time in it.
        self.set(boot_timer.now() + until_ms / 1000 - time.monotonic(), grace_ms / 1000)

    def set(self, end: float | None, grace_s: float) -> None:
        """``end``: by the clock of ``boot_timer``; None: no lease, nothing is stopped."""
        self._end, self._grace = end, grace_s
        if end is None:
            self._timer.arm(None)
        else:
            self._arm()

    @property
    def end(self) -> float | None:
        return self._end

    @property
    def grace_s(self) -> float:
        return self._grace

    def is_over(self, max_disconnect_ms: int) -> bool:
        """Whether what may go on for that long beyond the lease must not be started any more."""
        return self._end is not None and self._stop_at(max_disconnect_ms) <= boot_timer.now()

    def hold(self, holder: object, max_disconnect_ms: int, stop: Stop) -> None:
        """``stop`` is called once, when the holder must end, unless it is released before."""
        group = self._holders.setdefault(max_disconnect_ms, {})
        group[holder] = stop
        if len(group) == 1:
            self._arm()

    def release(self, holder: object, max_disconnect_ms: int) -> None:
        """Does nothing for one that does not hold."""
        group = self._holders.get(max_disconnect_ms)
        if group is not None and group.pop(holder, None) and not group:
            del self._holders[max_disconnect_ms]

    def _stop_at(self, max_disconnect_ms: int) -> float:
        return self._end + max_disconnect_ms / 1000 - self._grace

    def _arm(self) -> None:
        if self._end is not None:
            self._timer.arm(self._stop_at(min(self._holders)) if self._holders else None)

    def _on_due(self) -> None:
        if self._before_due:
            self._before_due()
        now = boot_timer.now()
        for max_ms in [ms for ms in self._holders if self._end is not None and self._stop_at(ms) <= now]:
            holders = self._holders.pop(max_ms)
            # Half of the grace is for the kill itself. What learns late, as after a sleep of the host, gets none.
            left_s = self._stop_at(max_ms) + self._grace / 2 - now
            self._log.warn("the agent's lease is over", stopped=len(holders), max_disconnect_ms=max_ms)
            grace_ms = max(0, int(left_s * 1000))
            for stop in holders.values():
                self._loop.call_later(0, partial(stop, grace_ms))  # in this turn, and each for itself
        self._arm()


def max_disconnect_of(header: dict) -> int | None:
    """How long what a message names may go on beyond the lease; None: it does not depend on it. Raises ValueError."""
    value = header.get("max_disconnect_ms")
    if value is not None and (type(value) is not int or not 0 <= value <= _MAX_DISCONNECT_MS):
        raise ValueError(f"{header['type']}: max_disconnect_ms must be null or an integer up to {_MAX_DISCONNECT_MS}")
    return value
