"""Tells the agent how much there is to do, at most once in a while and only what has changed."""

from __future__ import annotations

from collections.abc import Callable

import frames
from agent_link import AgentLink
from loop import Loop

_INTERVAL_S = 1.0
_FIELDS = ("active", "zygotes", "workers", "spool_bytes")


class LoadReport:
    """``measure`` answers the values of a `load` message, in the order of its fields."""

    def __init__(self, loop: Loop, link: AgentLink, measure: Callable[[], tuple[int, ...]]) -> None:
        self._loop, self._link, self._measure = loop, link, measure
        self._timer = None
        self._sent: tuple[int, ...] | None = None

    def begin(self) -> None:
        """A new connection, to which nothing was told yet."""
        self._sent = None
        self.note()

    def note(self) -> None:
        """Something may have changed."""
        if self._timer is None and self._link.greeted:
            self._timer = self._loop.call_later(_INTERVAL_S, self._send)

    def _send(self) -> None:
        self._timer = None
        load = self._measure()
        if load == self._sent or not self._link.greeted:
            return
        self._sent = load
        self._link.send(frames.encode({"type": "load", **dict(zip(_FIELDS, load))}))
