"""Tells the agent, a moment later, of attempts that run: a short call's `started` goes with its end, in one write."""

from __future__ import annotations

import frames
from attempt import RUNNING, Attempt
from delivery import Delivery
from loop import Loop
from spool import Spool, SpoolFull

# A call that ends sooner costs the agent one read instead of two, and the spool one record.
_DELAY_S = 0.002


class StartNotices:
    """Holds the attempts that have begun to run since the last time it told."""

    def __init__(self, loop: Loop, spool: Spool, delivery: Delivery) -> None:
        self._loop, self._spool, self._delivery = loop, spool, delivery
        self._starting: dict[Attempt, None] = {}
        self._timer = None

    def add(self, attempt: Attempt) -> None:
        """The attempt begins to run: whatever is sent of it from now on comes after its `started`."""
        head = ('{"type":"started",%s}' % attempt.ids).encode()
        attempt.started = frames.PREFIX.pack(len(head), 0) + head
        self._starting[attempt] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_DELAY_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        for attempt in self._starting:
            if attempt.state == RUNNING:
                try:
                    self._spool.append_start(attempt)
                except SpoolFull:
                    pass  # its output will tell, or its end
                self._delivery.send_started(attempt)
        self._starting.clear()
