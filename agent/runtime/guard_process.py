"""The launcher's end of the process that ends containers with the agent's lease: starts it, tells it what to guard."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

import lease_file
import loop as event_loop
from container_deadlines import check_guard
from leases import Leases
from start_request import attempt_key

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "container_guard.py")
_RESTART_S = 0.1
_RESTART_MAX_S = 10.0


class GuardProcess:
    """Holds what is guarded, so that a process that is started anew can be told all of it."""

    def __init__(self, loop: event_loop.Loop, log: object, leases: Leases, lease_path: str) -> None:
        self._loop, self._log, self._leases, self._lease_path = loop, log, leases, lease_path
        self._guarded: dict[tuple[str, int], dict] = {}
        self._pid = 0
        self._control: socket.socket | None = None
        self._outgoing = b""
        self._restart: event_loop.Timer | None = None
        self._restart_s = _RESTART_S
        self._kept_error = ""

    def guard(self, header: dict) -> None:
        """Takes a `guard` message; a second one for the same attempt changes nothing. Raises ValueError."""
        key = attempt_key(header)
        check_guard(header)
        if key in self._guarded:
            return
        self._guarded[key] = header
        if self._control is not None:
            self._tell(header)
        elif self._restart is None:
            self._start()

    def release(self, header: dict) -> None:
        """Takes an `unguard` message: the container is gone. Raises ValueError."""
        if self._guarded.pop(attempt_key(header), None) and self._control is not None:
            self._tell(header)

    def renew(self) -> None:
        """The lease is another one: told, and kept for processes that former launchers have started."""
        if self._control is not None:
            self._tell_lease()
        error = ""
        try:
            lease_file.write(self._lease_path, lease_file.KeptLease(self._leases.end, self._leases.grace_s))
        except OSError as fault:
            error = str(fault)
        if error and error != self._kept_error:
            self._log.error("the lease cannot be kept", error=error)
        self._kept_error = error

    def end(self) -> None:
        """The launcher ends: what is guarded goes on being guarded."""
        if self._restart:
            self._restart.cancel()
        if self._control is not None:
            self._loop.unregister(self._control.fileno())
            self._control.setblocking(True)  # the last words
            try:
                self._control.sendall(self._outgoing)
            except OSError:
                pass
            self._control.close()
            self._control = None

    def _start(self) -> None:
        self._restart = None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                theirs.set_inheritable(True)
                argv = [sys.executable, "-I", "-S", _PROGRAM, str(theirs.fileno()), self._lease_path]
                # A session of its own: a signal to the launcher's group is not for it.
                self._pid = os.posix_spawn(argv[0], argv, {}, setsid=True)
        except OSError as error:
            ours.close()
            self._log.error("the guard of containers cannot be started", error=str(error))
            self._start_later()
            return
        self._control, self._outgoing = ours, b""
        self._loop.register(ours.fileno(), event_loop.READABLE, self._on_control)
        self._tell_lease()
        for header in self._guarded.values():
            self._tell(header)

    def _start_later(self) -> None:
        if self._guarded:
            self._restart = self._loop.call_later(self._restart_s, self._start)
            self._restart_s = min(self._restart_s * 2, _RESTART_MAX_S)

    def _tell_lease(self) -> None:
        self._tell({"type": "lease", "end": self._leases.end, "grace_s": self._leases.grace_s})

    def _tell(self, header: dict) -> None:
        waits = bool(self._outgoing)
        self._outgoing += json.dumps(header).encode() + b"\n"
        if not waits:
            self._flush()

    def _flush(self) -> None:
        try:
            self._outgoing = self._outgoing[self._control.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing = b""  # it has ended, which is about to be seen
        wanted = event_loop.READABLE | (event_loop.WRITABLE if self._outgoing else 0)
        self._loop.modify(self._control.fileno(), wanted)

    def _on_control(self, events: int) -> None:
        if events & event_loop.WRITABLE:
            self._restart_s = _RESTART_S
            self._flush()
        if events & ~event_loop.WRITABLE:
            self._on_ended()

    def _on_ended(self) -> None:
        """It ends by itself when there is nothing to guard for a while."""
        self._loop.unregister(self._control.fileno())
        self._control.close()
        self._control = None
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status = os.waitpid(self._pid, 0)
        if self._guarded:
            self._log.error("the guard of containers ended; it is started again", status=status)
        self._start_later()
