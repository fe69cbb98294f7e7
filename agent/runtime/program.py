"""A program that a worker runs as its child. The worker stays PID 1: it forwards SIGTERM and reaps orphans.

The program is a child and not PID 1 itself because the kernel keeps signals without a handler from PID 1, so a program
could not even abort.
"""

from __future__ import annotations

import os
import signal

import namespaces


class NotStarted(Exception):
    """``code``: what a shell would exit with, 127 (not found) or 126."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Program:
    """One program; to be made, and started, once in a process."""

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None  # its wait status, once it has ended
        self._early = 0  # a SIGTERM that came before there was a program
        signal.signal(signal.SIGTERM, self._on_signal)

    def start(self, argv: list[str], descriptors: dict[int, int]) -> None:
        """``descriptors``: which of this process's the program gets, by the number that it has there.

        From then on the program, which has the same user, can neither read nor write this process's memory, nor open
        its descriptors: it is not what says how the call ends. Raises NotStarted.
        """
        namespaces.run([namespaces.call("prctl", namespaces.PR_SET_DUMPABLE, 0)])
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, own, number) for number, own in descriptors.items()],
                setpgroup=0,
                setsigmask=[],
                setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            found = not isinstance(error, FileNotFoundError)
            why = os.strerror(error.errno) if found else "not found"
            raise NotStarted(126 if found else 127, f"{argv[0]!r}: {why}") from None
        if self._early:
            self._on_signal(self._early, None)

    def reap(self, flags: int = 0) -> bool:
        """Waits for the child that ends first; orphans are children too. False when none has ended, or is left."""
        try:
            pid, status = os.waitpid(-1, flags)
        except ChildProcessError:
            return False
        if pid == self.pid:
            self.status = status
        return pid != 0

    def wait(self) -> int:
        """The program's wait status, when it has ended."""
        while self.status is None:
            self.reap()
        return self.status

    def kill(self) -> None:
        """Ends it now, if it has not ended."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def _on_signal(self, number: int, frame: object) -> None:
        if not self.pid:
            self._early = number
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it has ended; its status is about to be read


def exit_reply(status: int) -> dict:
    """How a program ended, as the worker tells it."""
    if os.WIFSIGNALED(status):
        return {"type": "exit", "exit_code": None, "signal": os.WTERMSIG(status), "message": ""}
    return {"type": "exit", "exit_code": os.WEXITSTATUS(status), "signal": None, "message": ""}
