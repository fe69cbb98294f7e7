"""The agent's lease as the newest launcher knows it, for whoever outlives that launcher."""

from __future__ import annotations

import json
import os

# Times of another boot mean nothing.
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class KeptLease:
    """``end``: by the clock of ``boot_timer``, None for a lease without an end."""

    __slots__ = ("end", "grace_s")

    def __init__(self, end: float | None, grace_s: float) -> None:
        self.end, self.grace_s = end, grace_s


def write(path: str, lease: KeptLease) -> None:
    """The whole of it or nothing. Raises OSError."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, json.dumps({"boot": _boot(), "end": lease.end, "grace_s": lease.grace_s}).encode())
    finally:
        os.close(fd)
    os.replace(new, path)


def read(path: str) -> KeptLease | None:
    """None when nothing is known of this boot. Raises OSError for what is there and cannot be read."""
    try:
        with open(path) as file:
            kept = json.load(file)
        if kept["boot"] != _boot():
            return None
        return KeptLease(None if kept["end"] is None else float(kept["end"]), float(kept["grace_s"]))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        return None  # not ours


def _boot() -> str:
    with open(_BOOT_ID) as file:
        return file.read().strip()
