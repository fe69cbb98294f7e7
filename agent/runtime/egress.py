"""The launcher's end of the egress proxy: starts it when a call first needs it or it has died, tells it of calls."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
from collections import deque

import loop as event_loop
from sandbox import proxy_command
from spawn import Spec, spawn

_RESTART_S = 0.1
_RESTART_MAX_S = 10.0


def upstream_of(variables: dict[str, str]) -> dict:
    """The proxies that the host needs, from the launcher's own variables; lower case wins, as with curl."""

    def variable(name: str) -> str | None:
        return variables.get(name) or variables.get(name.upper()) or None

    everything = variable("all_proxy")
    return {
        "https": variable("https_proxy") or everything,
        "http": variable("http_proxy") or everything,
        "no_proxy": (variable("no_proxy") or "").split(","),
    }


def _command(spec: Spec) -> tuple[list[str], dict[str, str], list[int]]:
    return proxy_command(spec.bwrap, spec.python, spec.proxy)


class Egress:
    """Holds what is open, so that a proxy that is started anew can be told all of it."""

    def __init__(self, loop: event_loop.Loop, log: object, spec: Spec, upstream: dict) -> None:
        self._loop, self._log, self._spec, self._upstream = loop, log, spec, upstream
        self._open: dict[int, tuple[int, dict]] = {}  # call: (its listening socket, its policy)
        self._pid = 0
        self._control: socket.socket | None = None
        self._stderr = -1
        self._queue: deque[tuple[bytes, int]] = deque()  # (message, descriptor or -1)
        self._writable = True
        self._restart = None
        self._restart_s = _RESTART_S
        self._started_at = 0.0

    def open(self, number: int, listener: int, policy: dict) -> None:
        """From now on, what connects to that socket reaches what the policy allows."""
        self._open[number] = (listener, policy)
        if self._control is not None:
            self._tell_open(number)
        elif self._restart is None:
            self._start()

    def close(self, number: int) -> None:
        """Ends the call's connections; no new ones are accepted. Safe for a call that is not open."""
        if self._open.pop(number, None) and self._control is not None:
            self._send({"close": number})

    def end(self) -> None:
        self._open.clear()
        if self._restart:
            self._restart.cancel()
        self._stop()

    def _start(self) -> None:
        self._restart = None
        try:
            self._pid, self._control, self._stderr = spawn(self._spec, *_command(self._spec))
        except OSError as error:
            self._log.error("the egress proxy cannot be started", error=str(error))
            self._start_later()
            return
        self._writable, self._started_at = True, self._loop.now()
        self._loop.register(self._control.fileno(), event_loop.READABLE, self._on_control)
        self._loop.register(self._stderr, event_loop.READABLE, self._on_stderr)
        self._send(self._upstream)
        for number in self._open:
            self._tell_open(number)

    def _start_later(self) -> None:
        if self._open:
            self._restart = self._loop.call_later(self._restart_s, self._start)
            self._restart_s = min(self._restart_s * 2, _RESTART_MAX_S)

    def _tell_open(self, number: int) -> None:
        listener, policy = self._open[number]
        self._send({"open": number, "mode": policy["mode"], "hosts": policy.get("hosts", [])}, listener)

    def _send(self, fields: dict, fd: int = -1) -> None:
        # A descriptor of its own: the call may end, and its socket be closed, while the message waits.
        self._queue.append((json.dumps(fields).encode(), os.dup(fd) if fd >= 0 else -1))
        self._flush()

    def _flush(self) -> None:
        while self._queue and self._writable:
            message, fd = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            try:
                self._control.sendmsg([message], rights)
            except BlockingIOError:
                self._writable = False
                self._loop.modify(self._control.fileno(), event_loop.READABLE | event_loop.WRITABLE)
                return
            except OSError:
                return  # it has ended, which is about to be seen
            self._drop_first()

    def _drop_first(self) -> None:
        _, fd = self._queue.popleft()
        if fd >= 0:
            os.close(fd)

    def _on_control(self, events: int) -> None:
        if events & event_loop.WRITABLE:
            self._writable = True
            self._loop.modify(self._control.fileno(), event_loop.READABLE)
            self._flush()
        if events & ~event_loop.WRITABLE:
            self._log.error("the egress proxy ended; it is started again", open=len(self._open))
            self._stop()
            if self._loop.now() - self._started_at > _RESTART_MAX_S:
                self._restart_s = _RESTART_S
            self._start_later()

    def _on_stderr(self, events: int) -> None:
        try:
            data = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if data:
            self._log.warn("the egress proxy wrote to stderr", text=data.decode(errors="replace")[-2000:])
        else:
            self._loop.unregister(self._stderr)

    def _stop(self) -> None:
        if self._control is None:
            return
        while self._queue:
            self._drop_first()
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self._pid, 0)
        self._on_stderr(0)
        self._loop.unregister(self._control.fileno())
        self._control.close()
        self._control = None
        self._loop.unregister(self._stderr)
        os.close(self._stderr)
        self._stderr = -1
