"""Ends containers of single calls with the agent's lease: the agent has started them, but may be gone by then."""

from __future__ import annotations

import os
import socket
import urllib.parse

import loop as event_loop
from leases import Leases, max_disconnect_of
from start_request import attempt_key

# The engine may be restarting, or the agent may just start the container: it is told again until the agent releases it.
_REPEAT_S = 5.0
# By their HTTP status: killed, not there, not running.
_SETTLED = ("204", "404", "409")
_STATUS_BYTES = 512


class ContainerDeadlines:
    """One entry for each container that the agent has asked to be guarded."""

    def __init__(self, loop: event_loop.Loop, log: object, leases: Leases) -> None:
        self._loop, self._log, self._leases = loop, log, leases
        self._guarded: dict[tuple[str, int], _Container] = {}

    @property
    def active(self) -> int:
        """Containers that may run."""
        return sum(not container.settled for container in self._guarded.values())

    def guard(self, header: dict) -> None:
        """Takes a `guard` message; a second one for the same attempt changes nothing. Raises ValueError."""
        key = attempt_key(header)
        max_disconnect_ms = max_disconnect_of(header)
        if max_disconnect_ms is None:
            raise ValueError("guard: max_disconnect_ms is missing")
        if key in self._guarded:
            return
        names = ("engine", "container", "mark")
        engine, name, mark = (header.get(field) for field in names)
        for field, value in zip(names, (engine, name, mark)):
            if not isinstance(value, str) or not value:
                raise ValueError(f"guard: {field} must be a text that is not empty")
        container = _Container(self._loop, self._log, engine, name, mark, max_disconnect_ms)
        self._guarded[key] = container
        self._leases.hold(container, max_disconnect_ms, container.stop)

    def release(self, header: dict) -> None:
        """Takes an `unguard` message: the container is gone. Raises ValueError."""
        container = self._guarded.pop(attempt_key(header), None)
        if container is not None:
            self._leases.release(container, container.max_disconnect_ms)
            container.close()


class _Container:
    """Guarded, then told to stop, then killed again and again until it is released."""

    def __init__(
        self, loop: event_loop.Loop, log: object, engine: str, name: str, mark: str, max_disconnect_ms: int
    ) -> None:
        self._loop, self._log = loop, log
        self._engine, self._name, self._mark = engine, name, mark
        self.max_disconnect_ms = max_disconnect_ms
        self._timer: event_loop.Timer | None = None
        self._connection: socket.socket | None = None
        self._answer = ""  # the engine's last one
        self.settled = False  # the engine has said that it does not run

    def stop(self, grace_ms: int) -> None:
        """The mark is there before the container ends: whoever sees the end knows why."""
        try:
            os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            self._log.error("a container's end cannot be marked", container=self._name, error=str(error))
        if grace_ms:
            self._send("SIGTERM")
        self._later(grace_ms / 1000)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._hang_up()

    def _later(self, delay_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._kill)

    def _kill(self) -> None:
        self._send("SIGKILL")
        self._later(_REPEAT_S)

    def _send(self, signal_name: str) -> None:
        self._hang_up()
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        path = f"/containers/{urllib.parse.quote(self._name)}/kill?signal={signal_name}"
        try:
            connection.connect(self._engine)
            connection.send(f"POST {path} HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode())
        except OSError as error:
            connection.close()
            self._note(signal_name, error.strerror or str(error))
            return
        self._connection = connection
        self._loop.register(connection.fileno(), event_loop.READABLE, lambda _: self._on_answer(signal_name))

    def _on_answer(self, signal_name: str) -> None:
        try:
            answer = self._connection.recv(_STATUS_BYTES)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        self._hang_up()
        status = answer.split(b"\r\n", 1)[0].decode("ascii", "replace")
        self._note(signal_name, status or "it closed the connection")
        self.settled = signal_name == "SIGKILL" and status[9:12] in _SETTLED

    def _note(self, signal_name: str, answer: str) -> None:
        if answer != self._answer:
            self._log.info("a container is told to end", container=self._name, signal=signal_name, answer=answer)
        self._answer = answer

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._loop.unregister(self._connection.fileno())
            self._connection.close()
            self._connection = None
