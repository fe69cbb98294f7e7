"""A process that ends containers of single calls when the agent's lease is over. It outlives agent and launcher.

``PYTHON -I -S container_guard.py SOCKET LEASE``: an open stream socket of the launcher, by number, and the file that
launchers keep the lease in. The launcher passes the agent's `guard` and `unguard` on, and tells of every `lease`, one
JSON object a line. When it is gone, what it has said last holds, unless a later launcher that renews the lease has said
so in the file.
"""

from __future__ import annotations

import json
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lease_file
import loop as event_loop
from container_deadlines import ContainerDeadlines
from leases import Leases
from log import Logger

_READ_BYTES = 1 << 16
# The next container may come soon, and starting a process takes longer than a short call.
_IDLE_S = 60.0
# Without a launcher nobody tells that a container is gone.
_LOOK_S = 1.0


class ContainerGuard:
    """Ends its loop when there is nothing left to guard: without a launcher at once, else after a while."""

    def __init__(self, loop: event_loop.Loop, log: object, control: socket.socket, lease_path: str) -> None:
        self._loop, self._log, self._control, self._lease_path = loop, log, control, lease_path
        self._leases = Leases(loop, log, self._before_due)
        self._containers = ContainerDeadlines(loop, log, self._leases, self._on_empty)
        self._orphaned = False
        self._received = b""
        self._idle: event_loop.Timer | None = None
        self._handlers = {
            "guard": self._guard,
            "unguard": self._containers.release,
            "lease": lambda header: self._leases.set(header["end"], header["grace_s"]),
        }
        control.setblocking(False)
        loop.register(control.fileno(), event_loop.READABLE, self._on_control)

    def _on_control(self, events: int) -> None:
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_orphaned()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            header = json.loads(line)
            self._handlers[header["type"]](header)

    def _guard(self, header: dict) -> None:
        if self._idle:
            self._idle.cancel()
            self._idle = None
        self._containers.guard(header)

    def _on_empty(self) -> None:
        if self._orphaned:
            self._loop.stop()
        elif self._idle is None:
            self._idle = self._loop.call_later(_IDLE_S, self._loop.stop)

    def _on_orphaned(self) -> None:
        self._loop.unregister(self._control.fileno())
        self._control.close()
        self._orphaned = True
        # Without a lease nothing would ever end them: they are left to the next agent.
        if not self._containers.guarded or self._leases.end is None:
            self._loop.stop()
            return
        self._log.warn("the launcher is gone; containers are guarded on", containers=self._containers.guarded)
        self._containers.settle()
        self._look()

    def _look(self) -> None:
        self._containers.drop_gone()
        self._loop.call_later(_LOOK_S, self._look)

    def _before_due(self) -> None:
        """Another launcher may have come, and its agent may have taken the containers up, or removed them."""
        if not self._orphaned:
            return
        try:
            kept = lease_file.read(self._lease_path)
        except OSError as error:
            self._log.error("the lease cannot be read; what was last heard holds", error=str(error))
            return
        if kept is None or kept.end == self._leases.end:
            return
        self._leases.set(kept.end, kept.grace_s)
        if kept.end is None:
            self._loop.stop()


def main() -> None:
    log = Logger(2, "container-guard")
    loop = event_loop.Loop(log)
    ContainerGuard(loop, log, socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    loop.run()


if __name__ == "__main__":
    main()
