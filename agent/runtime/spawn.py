"""Starts a zygote or the egress proxy as the sandbox's user, with a control socket."""

from __future__ import annotations

import ctypes
import os
import signal
import socket

import gather
from cgroup_slot import Slot
from cgroups import Cgroups
from environment import Bind
from interpreter import Interpreter
from sandbox import PROXY_FILES, RUNTIME_FILES, load_files

_CONTROL_FD = 3


class Spec:
    """How processes are started: the same for all of them."""

    __slots__ = ("bwrap", "cgroups", "gid", "proxy", "python", "runtime", "runtime_dir", "uid")

    def __init__(
        self, bwrap: str | None, python: Interpreter, runtime_dir: str, uid: int, gid: int, cgroups: Cgroups
    ) -> None:
        self.bwrap, self.python, self.runtime_dir, self.uid, self.gid = bwrap, python, runtime_dir, uid, gid
        self.cgroups = cgroups
        self.runtime = load_files(runtime_dir, RUNTIME_FILES) if bwrap else {}
        self.proxy = load_files(runtime_dir, PROXY_FILES) if bwrap else {}

    @property
    def isolation(self) -> str:
        return "sandbox" if self.bwrap else "none"

    @property
    def changes_user(self) -> bool:
        return self.bwrap is not None and os.geteuid() == 0


def bind_sources(spec: Spec, binds: tuple[Bind, ...]) -> tuple[str | None, list[str]]:
    """Where bubblewrap finds the sources, and the directory that they are gathered in when it could not else."""
    if not binds or not spec.changes_user:
        return None, [bind.source for bind in binds]
    directory = gather.directory()
    return directory, [f"{directory}/{number}" for number in range(len(binds))]


def spawn(
    spec: Spec,
    argv: list[str],
    variables: dict[str, str],
    files: list[int],
    gathered: str | None = None,
    binds: tuple[Bind, ...] = (),
    slot: Slot | None = None,
) -> tuple[int, socket.socket, int]:
    """Starts the process, in that slot; closes ``files``, which it inherits.

    Returns (pid, control socket, stderr), both non-blocking.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr, stderr_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for fd in slot.joins if slot else ():
                os.write(fd, b"0")
            _take_descriptors(theirs.fileno(), stderr_end, files)
            if gathered:
                gather.mount(gathered, binds, (spec.uid, spec.gid))
            _become_user(spec)
            os.execve(argv[0], argv, variables)
        except BaseException as error:
            os.write(2, f"cannot start {argv[0]}: {error}\n".encode())
            os._exit(127)
    for fd in (*files, stderr_end):
        os.close(fd)
    theirs.close()
    ours.setblocking(False)
    os.set_blocking(stderr, False)
    return pid, ours, stderr


def _take_descriptors(control: int, stderr: int, files: list[int]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(stderr, 2)
    os.dup2(null, 0)
    os.dup2(stderr, 1)
    for fd in files:
        os.set_inheritable(fd, True)
    if _CONTROL_FD in files:
        raise OSError(f"descriptor {_CONTROL_FD} is taken")
    os.dup2(control, _CONTROL_FD)


def _become_user(spec: Spec) -> None:
    if spec.changes_user:
        os.setgroups([])
        os.setresgid(spec.gid, spec.gid, spec.gid)
        os.setresuid(spec.uid, spec.uid, spec.uid)
    if not spec.bwrap:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: bubblewrap does the same
