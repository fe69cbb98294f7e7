"""Ends the process of an attempt that is not to go on: SIGTERM, after its grace SIGKILL, then the whole sandbox."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from attempt import Attempt
from loop import Loop

# After this long without word of a killed process, its whole sandbox is killed.
_KILL_PATIENCE_S = 10.0
# An interpreter may take this long to start on a busy host: a shorter timeout is for the code.
_SHORTEST_IMPORT_S = 5.0
_MAX_GRACE_MS = 24 * 3600 * 1000


class Termination:
    """Uses the attempt's one timer: first for its timeout, then for what comes after."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def while_importing(self, attempt: Attempt, on_timeout: Callable[[Attempt, float], None]) -> None:
        """The attempt waits for a process: packages that are imported for it may take as long as it may run itself.

        What it waits for else, as for another call of its kept worker, takes as long as it takes.
        """
        if not attempt.header["timeout_ms"]:
            return
        limit_s = max(_SHORTEST_IMPORT_S, attempt.header["timeout_ms"] / 1000)
        waits_since = time.monotonic()

        def check() -> None:
            attempt.timer = None
            since = attempt.pool.importing_since
            left_s = limit_s if since is None else max(since, waits_since) + limit_s - time.monotonic()
            if left_s <= 0:
                on_timeout(attempt, limit_s)
            else:
                attempt.timer = self._loop.call_later(left_s, check)

        check()

    def after_timeout(self, attempt: Attempt) -> None:
        """The attempt starts to run: it ends when its time is over, if it has a limit."""
        if attempt.timer:
            attempt.timer.cancel()
            attempt.timer = None
        if attempt.header["timeout_ms"]:
            attempt.timer = self._loop.call_later(
                attempt.header["timeout_ms"] / 1000, lambda: self._on_timeout(attempt)
            )

    def _on_timeout(self, attempt: Attempt) -> None:
        attempt.timer = None
        if not attempt.cancel_reason:
            attempt.timed_out = True
        self.start(attempt, attempt.header["grace_ms"])

    def start(self, attempt: Attempt, grace_ms: int, patience_s: float = _KILL_PATIENCE_S) -> None:
        """SIGTERM once, SIGKILL after the grace. A second request may only shorten the grace."""
        grace_s = min(grace_ms, _MAX_GRACE_MS) / 1000
        timer = attempt.timer
        if attempt.killing:
            if timer and timer.due - time.monotonic() <= grace_s:
                return
        else:
            attempt.killing = True
            attempt.worker.signal(signal.SIGTERM)
        if timer:
            timer.cancel()
        attempt.timer = self._loop.call_later(grace_s, lambda: self._kill(attempt, patience_s))

    def _kill(self, attempt: Attempt, patience_s: float) -> None:
        """Its end is recorded when the zygote has reaped the process, or by the zygote's own end.

        A zygote that has imported a tenant's packages may have been taken over by them, and never tell.
        """
        worker = attempt.worker
        worker.signal(signal.SIGKILL)
        attempt.timer = self._loop.call_later(patience_s, worker.zygote.kill)
