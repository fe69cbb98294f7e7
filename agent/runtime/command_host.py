"""Runs a command inside a worker. The worker stays PID 1: it forwards SIGTERM, reaps orphans, reports the status.

The command is a child and not PID 1 itself because the kernel keeps signals without a handler from PID 1, so a command
could not even abort.
"""

from __future__ import annotations

import os
import signal


class _Forwarder:
    """Passes SIGTERM on to the command's process group, also one that comes before there is a command."""

    def __init__(self) -> None:
        self._pid = 0
        self._early = 0
        signal.signal(signal.SIGTERM, self._on_signal)

    def follow(self, pid: int) -> None:
        self._pid = pid
        if self._early:
            self._on_signal(self._early, None)

    def _on_signal(self, number: int, frame: object) -> None:
        if not self._pid:
            self._early = number
            return
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            pass  # it has ended; its status is about to be read


def run(header: dict, input_bytes: bytes) -> tuple[dict, bytes]:
    """Starts ``argv`` with the input on stdin and waits for it. Returns the reply's header and an empty body."""
    argv = header["argv"]
    stdin = _stdin_of(input_bytes)
    forwarder = _Forwarder()
    try:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)],
            setpgroup=0,
            setsigmask=[],
            setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ],
        )
    except OSError as error:
        found = not isinstance(error, FileNotFoundError)
        why = os.strerror(error.errno) if found else "not found"
        return _exited(126 if found else 127, f"Command {argv[0]!r}: {why}"), b""
    forwarder.follow(pid)
    return _told(_wait_for(pid)), b""


def _stdin_of(data: bytes) -> int:
    """A descriptor that reads those bytes and then ends: memory, so that no thread has to feed a pipe."""
    fd = os.memfd_create("stdin")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _wait_for(pid: int) -> int:
    """The wait status of ``pid``; orphans that end meanwhile are reaped."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return status


def _told(status: int) -> dict:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return {"type": "exit", "exit_code": None, "signal": number, "message": ""}
    return _exited(os.WEXITSTATUS(status), "")


def _exited(code: int, message: str) -> dict:
    return {"type": "exit", "exit_code": code, "signal": None, "message": message}
