"""How long a job of a cluster may go on: its agent, on another host, writes that down at each renewal of its lease.

The file says for how long the lease holds from the moment at which it was written, since two hosts have no clock in
common. When that was tells the file server: by its clock, which has also stamped a file that is touched here and now.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from loop import Loop

_CLOCK = "clock"
_QUICK_S = 2.0
_SLOW_S = 15.0


class JobLease:
    """Looks at the agent's file from time to time, and hands on what has changed as the launcher's message `lease`."""

    def __init__(self, path: str, max_disconnect_ms: int, log: object, tell: Callable[[dict], None]) -> None:
        """``tell`` gets the message. What may go on for long without its agent need not look often."""
        self._path, self._log, self._tell = path, log, tell
        self._pause_s = _QUICK_S if max_disconnect_ms < 60_000 else _SLOW_S
        self._last = b""

    def watch(self, loop: Loop) -> None:
        self.look()
        loop.call_later(self._pause_s, lambda: self.watch(loop))

    def look(self) -> None:
        """A file that cannot be read, or that is just being written, renews nothing."""
        try:
            with open(self._path, "rb") as file:
                content, written = file.read(4096), os.fstat(file.fileno()).st_mtime
            if content == self._last:
                return
            lease = json.loads(content)
            valid_ms, grace_ms = lease["valid_ms"], lease["grace_ms"]
            age_s = max(0.0, _server_time() - written)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._log.warn("the agent's lease cannot be read", path=self._path, error=str(error))
            return
        self._last = content
        until = None if valid_ms is None else max(0.0, (time.monotonic() - age_s) * 1000 + valid_ms)
        self._tell({"type": "lease", "until_ms": until, "grace_ms": grace_ms})


def _server_time() -> float:
    """The time of the file server, in seconds."""
    fd = os.open(_CLOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.utime(fd)
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
