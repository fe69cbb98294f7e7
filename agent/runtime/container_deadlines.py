"""Ends containers of single calls with the agent's lease: the agent has started them, but may be gone by then."""

from __future__ import annotations

import os
import socket
import urllib.parse
from collections.abc import Callable
from functools import partial

import loop as event_loop
from leases import Leases, max_disconnect_of
from start_request import attempt_key

# The engine may be restarting, or the agent may just start the container: it is told again until the agent releases it.
_REPEAT_S = 5.0
# By their HTTP status: killed, not there, not running.
_NO_CONTAINER = "404"
_SETTLED = ("204", _NO_CONTAINER, "409")
_STATUS_BYTES = 512
_TEXTS = ("engine", "container", "mark")


class ContainerDeadlines:
    """One entry for each container that the agent has asked to be guarded.

    ``on_empty`` when the last one has left: the agent releases them; or they leave by themselves when they have ended,
    once nobody is there to release them (``settle``).
    """

    def __init__(
        self, loop: event_loop.Loop, log: object, leases: Leases, on_empty: Callable[[], None] = lambda: None
    ) -> None:
        self._loop, self._log, self._leases, self._on_empty = loop, log, leases, on_empty
        self._guarded: dict[tuple[str, int], _Container] = {}
        self._settling = False

    @property
    def guarded(self) -> int:
        return len(self._guarded)

    def guard(self, header: dict) -> None:
        """Takes a `guard` message that was checked; a second one for the same attempt changes nothing."""
        key = attempt_key(header)
        if key in self._guarded:
            return
        texts = [header[field] for field in _TEXTS]
        on_settled = partial(self._on_settled, key)
        container = _Container(self._loop, self._log, *texts, header["max_disconnect_ms"], on_settled)
        self._guarded[key] = container
        self._leases.hold(container, container.max_disconnect_ms, container.stop)

    def release(self, header: dict) -> None:
        """Takes an `unguard` message: the container is gone."""
        self._drop(attempt_key(header))

    def settle(self) -> None:
        """From now on, what the engine says to have ended leaves."""
        self._settling = True
        for key in [key for key, container in self._guarded.items() if container.settled]:
            self._drop(key)

    def drop_gone(self) -> None:
        """Asks the engine which containers there still are; those that are removed leave."""
        for container in list(self._guarded.values()):
            container.look()

    def _on_settled(self, key: tuple[str, int]) -> None:
        if self._settling:
            self._drop(key)

    def _drop(self, key: tuple[str, int]) -> None:
        container = self._guarded.pop(key, None)
        if container is None:
            return
        self._leases.release(container, container.max_disconnect_ms)
        container.close()
        if not self._guarded:
            self._on_empty()


def check_guard(header: dict) -> None:
    """Raises ValueError for a `guard` message that names too little."""
    if max_disconnect_of(header) is None:
        raise ValueError("guard: max_disconnect_ms is missing")
    for field in _TEXTS:
        if not isinstance(header.get(field), str) or not header[field]:
            raise ValueError(f"guard: {field} must be a text that is not empty")


class _Container:
    """Guarded, then told to stop, then killed again and again until it is released."""

    def __init__(
        self,
        loop: event_loop.Loop,
        log: object,
        engine: str,
        name: str,
        mark: str,
        max_disconnect_ms: int,
        on_settled: Callable[[], None],
    ) -> None:
        self._loop, self._log, self._on_settled = loop, log, on_settled
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

    def look(self) -> None:
        """Settles it when the engine has it no more. One that is being ended is asked for anyway."""
        if self._timer is None:
            self._ask("GET", "json", self._on_state)

    def _on_state(self, status: str) -> None:
        if _code_of(status) == _NO_CONTAINER:
            self._settle()

    def _send(self, signal_name: str) -> None:
        def on_answer(answer: str) -> None:
            if answer != self._answer:
                self._log.info("a container is told to end", container=self._name, signal=signal_name, answer=answer)
            self._answer = answer
            if signal_name == "SIGKILL" and _code_of(answer) in _SETTLED:
                self._settle()

        self._ask("POST", f"kill?signal={signal_name}", on_answer)

    def _settle(self) -> None:
        self.settled = True
        self._on_settled()

    def _ask(self, method: str, what: str, on_answer: Callable[[str], None]) -> None:
        """``on_answer``: with the first line of the answer, or why there is none."""
        self._hang_up()
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        path = f"/containers/{urllib.parse.quote(self._name)}/{what}"
        try:
            connection.connect(self._engine)
            connection.send(f"{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode())
        except OSError as error:
            connection.close()
            on_answer(error.strerror or str(error))
            return
        self._connection = connection
        self._loop.register(connection.fileno(), event_loop.READABLE, lambda _: self._read_answer(on_answer))

    def _read_answer(self, on_answer: Callable[[str], None]) -> None:
        try:
            answer = self._connection.recv(_STATUS_BYTES)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        self._hang_up()
        status = answer.split(b"\r\n", 1)[0].decode("ascii", "replace")
        on_answer(status or "it closed the connection")

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._loop.unregister(self._connection.fileno())
            self._connection.close()
            self._connection = None


def _code_of(status_line: str) -> str:
    """Of `HTTP/1.1 204 No Content`."""
    return status_line[9:12]
