"""Turns a process in a container into a zygote like those in a sandbox: namespaces of its own, the launcher's socket.

The container gives what bubblewrap gives a sandbox: a file system, a user that is not root, no capability. It must let
this process make user namespaces and mount /proc in one: no masked and read-only paths below /proc, and seccomp and
AppArmor profiles that leave mounting to the kernel's own rules.
"""

from __future__ import annotations

import os
import socket
import sys

import namespaces
import network_maker

_CONTROL_FD = 3
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
# nosuid, nodev and noexec: the numbers in f_flag are those of mount(2). What is set must stay set.
_KEPT_FLAGS = 2 | 4 | 8


def enter(path: str) -> None:
    """Returns in the process that becomes the zygote, PID 1 of a PID namespace of its own, with descriptor 3 set.

    The process that was started waits for it and never returns. Exits with a message when something is not allowed; the
    launcher gets it too.
    """
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.connect(path)
    except OSError as error:
        sys.exit(f"harrier: cannot connect to {path}: {error.strerror}")
    fd = control.detach()
    if fd != _CONTROL_FD:
        os.dup2(fd, _CONTROL_FD, False)
        os.close(fd)
    try:
        _make_namespaces()
        if os.fork():
            os.close(_CONTROL_FD)
            _, status = os.wait()
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
        _settle()
    except OSError as error:
        text = f"the container does not allow what a sandbox takes: {error}"
        socket.socket(fileno=os.dup(_CONTROL_FD)).send(b"Q" + text.encode())
        sys.exit(f"harrier: {text}")


def _make_namespaces() -> None:
    """The user namespace maps the own user to itself; it owns the other namespaces."""
    uid, gid = os.getuid(), os.getgid()
    wanted = namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET
    namespaces.run([namespaces.call("unshare", wanted)])
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _settle() -> None:
    """In the new PID namespace: dies with its parent, a /proc of its own, nothing writable but what calls mount."""
    call, memory = namespaces.call, namespaces.Memory()
    root = memory.address(b"/")
    flags = os.statvfs("/").f_flag & _KEPT_FLAGS
    private = call("mount", 0, root, 0, _MS_REC | _MS_PRIVATE)
    namespaces.run([call("prctl", namespaces.PR_SET_PDEATHSIG, 9), private])
    try:
        namespaces.run([namespaces.mount_proc(memory)])
    except OSError as error:
        # The kernel shows a user namespace no more of /proc than its parent sees.
        raise OSError(error.errno, f"{error.strerror} (/proc; are paths below it masked or read-only?)") from None
    namespaces.run([call("mount", 0, root, 0, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags)])
    network_maker.set_loopback_up()
