"""Tells systemd that the launcher is ready (sd_notify(3)), when it was started by it."""

from __future__ import annotations

import os
import socket


def take_socket() -> str | None:
    """Where systemd waits for word; taken out of the environment, so that no other process speaks for this one."""
    return os.environ.pop("NOTIFY_SOCKET", None) or None


def tell_ready(path: str | None) -> None:
    """A service manager that cannot be told ends the launcher by its own deadline, and says so."""
    if path is None:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.sendto(b"READY=1\nSTATUS=Ready for the agent", address)
