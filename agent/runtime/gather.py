"""Puts the sources of binds where the sandbox's user can reach them. Only for a launcher that is root.

An environment lies in the agent's data directory, which other users may not enter, and bubblewrap runs as the sandbox's
user. So its process gets a mount namespace of its own first, with the sources side by side below one directory.
"""

from __future__ import annotations

import os
import stat

import namespaces
from environment import Bind

# A directory that every host has and that no interpreter lies in; what is in it is hidden for bubblewrap alone.
_CANDIDATES = ("/mnt", "/media", "/srv")

_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18


def directory() -> str:
    """Where the sources will be. Raises OSError when the host has no such directory."""
    for path in _CANDIDATES:
        if os.path.isdir(path) and not os.path.islink(path):
            return path
    raise OSError(f"none of {', '.join(_CANDIDATES)} exists on this host")


def mount(path: str, binds: tuple[Bind, ...], owner: tuple[int, int]) -> None:
    """In the process that becomes bubblewrap: bind number N lies at PATH/N. Writable ones are given to the owner.

    Raises OSError.
    """
    memory = namespaces.Memory()
    call = namespaces.call
    private = call("mount", 0, memory.address(b"/"), 0, _MS_REC | _MS_PRIVATE)
    namespaces.run([call("unshare", namespaces.CLONE_NEWNS), private])
    sources = [_open(bind) for bind in binds]  # now: a mount of another namespace cannot be bound
    namespaces.run([call("mount", *(memory.address(text) for text in (b"tmpfs", path.encode(), b"tmpfs")))])
    os.chmod(path, 0o755)
    for number, (source, bind) in enumerate(zip(sources, binds)):
        target = f"{path}/{number}"
        info = os.fstat(source)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
        origin = f"/proc/self/fd/{source}".encode()
        if bind.writable and info.st_uid == os.geteuid():
            os.chown(origin, *owner)
        namespaces.run([call("mount", memory.address(origin), memory.address(target.encode()), 0, _MS_BIND | _MS_REC)])
        os.close(source)


def _open(bind: Bind) -> int:
    try:
        return os.open(bind.source, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(f"cannot bind {bind.source} to {bind.target}: {error.strerror}") from None
