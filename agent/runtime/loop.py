"""The launcher's event loop: descriptors and timers, one thread, no polling while nothing happens."""

from __future__ import annotations

import heapq
import select
import time
import traceback
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT


class Timer:
    """A call that is due at a time of the monotonic clock; ``cancel`` may be called at any time, also after it ran."""

    __slots__ = ("_loop", "callback", "due")

    def __init__(self, loop: Loop, due: float, callback: Callable[[], None]) -> None:
        self._loop, self.due, self.callback = loop, due, callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._loop.note_cancelled()


class Loop:
    """A turn calls the handlers of descriptors with events, then due timers, then what closes the turn."""

    def __init__(self, log: object) -> None:
        self._log = log
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._cancelled = 0
        self._running = True
        self.turn_end: list[Callable[[], None]] = []

    def register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Does nothing when the descriptor is not registered. To be called before it is closed."""
        if self._handlers.pop(fd, None):
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Like ``unregister``, for a descriptor that nobody else has and that is closed next: that does the rest."""
        self._handlers.pop(fd, None)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, time.monotonic() + delay_s, callback)
        self._sequence += 1
        heapq.heappush(self._timers, (timer.due, self._sequence, timer))
        return timer

    def note_cancelled(self) -> None:
        """Drops cancelled timers once they are most of the heap: short calls may have long timeouts."""
        self._cancelled += 1
        if self._cancelled > 256 and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].callback]
            heapq.heapify(self._timers)
            self._cancelled = 0

    @staticmethod
    def now() -> float:
        """The clock that timers go by, in seconds."""
        return time.monotonic()

    def stop(self) -> None:
        """Ends ``run`` after this turn; it may be run again."""
        self._running = False

    def run(self) -> None:
        poll, handlers = self._epoll.poll, self._handlers
        self._running = True
        while self._running:
            for fd, events in poll(self._wait_s()):
                handler = handlers.get(fd)
                if handler:
                    self._guard(handler, events)
            if self._timers:
                self._run_due()
            for callback in self.turn_end:
                self._guard(callback)

    def _wait_s(self) -> float:
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
            self._cancelled -= 1
        return max(0.0, timers[0][0] - time.monotonic()) if timers else -1

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback:
                self._guard(callback)
            else:
                self._cancelled -= 1

    def _guard(self, callback: Callable, *args: object) -> None:
        """A fault in one handler is told and contained: the launcher owns other people's jobs."""
        try:
            callback(*args)
        except Exception:
            self._log.error("a handler of the event loop failed", traceback=traceback.format_exc())
