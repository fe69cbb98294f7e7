"""The fork server inside a tenant's sandbox: warm, never running job code, one child per request of the launcher.

Messages on its control socket (SOCK_SEQPACKET, descriptor 3), one letter first:
launcher → zygote  C json (+ the maker's socket): first, what to load;  M (+ the maker's socket): start it (before C
                   it is for ``sandbox_entry``, where that comes first);
                   F worker tmp_bytes rehearse network (+ channel, stdout, stderr, network namespace, then
                   control groups to join): fork a worker;  K worker signal: send it;  A: preload asyncio
zygote → launcher  R json: ready;  W worker pid (+ pidfd): forked;  E worker text: not forked;  X worker status: ended;
                   L: it begins to load packages;  O: it ends, since its packages take more memory than they may
"""

from __future__ import annotations

import array
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
import types
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import child
import handler_host
import limits
import namespaces
import network_maker
import own_signals
import sandbox_entry

CONTROL_FD = 3
FORK = struct.Struct("=cIQ??")
FORKED = struct.Struct("=cII")
ENDED = struct.Struct("=cIi")
FAILED = struct.Struct("=cI")
SIGNAL = struct.Struct("=cIi")

_CONFIGURATION_BYTES = 64 * 1024
_FDS_OF_EACH = 3
# A message to the launcher has at most 16 KiB, and JSON may need six bytes for a character.
_MAX_FAULT_CHARS = 2000

# Imported here once, so that every child has them for nothing; chosen for what handlers use most.
_PRELOAD = ("collections", "datetime", "functools", "itertools", "linecache", "math", "re", "time", "traceback")


class Zygote:
    """Owns the control socket and the children; single-threaded, blocking in epoll."""

    def __init__(self, isolation: str, entered: bool) -> None:
        """``entered``: ``sandbox_entry`` came before, and did what takes rights."""
        self._control = socket.socket(fileno=CONTROL_FD)
        self._isolation, self._entered = isolation, entered
        self._sandboxed = isolation == child.SANDBOX
        self._faults: list[str] = []
        self._limits: list[str] = []
        self._own_limit = 0  # of its memory while it imports packages, where no cgroup limits it
        self._epoll = select.epoll()
        self._children: dict[int, tuple[int, int]] = {}  # pidfd: (pid, worker)
        if self._sandboxed:
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            call, kind = namespaces.call, namespaces.CLONE_NEWPID
            self._new_pid_namespace = [call("setns", own, kind), call("unshare", kind)]

    def prepare(self) -> None:
        """Everything that children would otherwise do again, each for itself."""
        for name in _PRELOAD:
            __import__(name)
        handler_host.add_site_builtins()
        if self._sandboxed:
            if self._entered:  # it has what it needs from what came before; its own children inherit none of it
                memory = namespaces.Memory()
                namespaces.run([namespaces.keep_capabilities(memory, namespaces.CAP_SYS_ADMIN)])
            else:
                sandbox_entry.give_up_rights()
            own_signals.install()
        else:
            namespaces.run([namespaces.call("prctl", namespaces.PR_SET_CHILD_SUBREAPER, 1)])
        limits.set_fixed()
        _hide_runtime_modules()
        self._load_environment()
        self._shared = child.Shared(self._isolation, self._limits)
        for _ in range(20):
            child.rehearse(self._shared)  # children inherit warm code and filled caches
        gc.collect()
        gc.freeze()  # the collector of a child never touches, and so never copies, these pages
        version = ".".join(str(part) for part in sys.version_info[:3])
        told = {"python": version, "faults": "".join(self._faults)[:_MAX_FAULT_CHARS]}
        self._control.send(b"R" + json.dumps(told).encode())

    def _load_environment(self) -> None:
        """What the environment's packages do at start: behind a filter, and when all of the runtime is loaded."""
        message, fds = self._receive(_CONFIGURATION_BYTES)
        if not message:
            sys.exit(0)
        wanted = json.loads(message[1:])
        self._limits = wanted["limits"]
        os.environ.update(wanted["variables"])
        if self._sandboxed and fds:
            sandbox_entry.shut_in(fds[0])
        self._own_limit = wanted["memory_bytes"]
        limits.set_for_packages(self._own_limit)
        if wanted["site"] or wanted["preload"]:
            self._control.send(b"L")  # from here on it may end for what packages do
        if wanted["site"]:
            self._attempt("site-packages", _add_site_packages)
        for name in wanted["preload"]:
            self._attempt(f"preload of {name}", lambda name=name: __import__(name))
        if self._own_limit:
            limits.allow_report()  # calls have limits of their own

    def _receive(self, size: int) -> tuple[bytes, array.array]:
        message, ancillary, _, _ = self._control.recvmsg(size, 64, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        return message, fds

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        """A package that fails is told, and the calls that need it fail by themselves."""
        try:
            action()
        except BaseException as error:  # SystemExit too: a zygote does not end because a package wants to
            if self._own_limit and isinstance(error, MemoryError):
                limits.allow_report()
                self._control.send(b"O")
                sys.exit(1)
            text = traceback.format_exception_only(type(error), error)[-1].strip()
            self._faults.append(f"harrier: {what} failed: {text}\n"[:_MAX_FAULT_CHARS])

    def run(self) -> None:
        """Serves until the launcher is gone."""
        self._epoll.register(CONTROL_FD, select.EPOLLIN)
        while True:
            for fd, _ in self._epoll.poll():
                if fd == CONTROL_FD:
                    if not self._serve():
                        return
                else:
                    self._reap(fd)

    def _serve(self) -> bool:
        message, fds = self._receive(64)
        if not message:
            return False
        if message[:1] == b"A":
            self._preload_asyncio()
            return True
        if message[:1] == b"K":
            self._signal(*SIGNAL.unpack(message)[1:])
            return True
        if message[:1] == b"M":
            network_maker.start(fds[0])
            return True
        _, worker, tmp_bytes, rehearse, network = FORK.unpack(message)
        try:
            calls = self._shared.calls(tmp_bytes)
            if network:
                calls = [namespaces.call("setns", fds[_FDS_OF_EACH], namespaces.CLONE_NEWNET), *calls]
            self._fork(worker, calls, rehearse, fds, fds[_FDS_OF_EACH + network :])
        except OSError as error:
            self._control.send(FAILED.pack(b"E", worker) + str(error).encode()[:200])
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, worker: int, calls: list, rehearse: bool, fds: array.array, joins: array.array) -> None:
        """The next child becomes PID 1 of a new PID namespace, with one fork instead of two.

        A process may unshare its PID namespace again once ``setns`` has put its children's one back to its own.
        """
        if self._sandboxed:
            namespaces.run(self._new_pid_namespace)
        pid = os.fork()
        if pid == 0:
            child.main(self._shared, calls, rehearse, fds, joins)
        pidfd = namespaces.pidfd_open(pid)
        self._children[pidfd] = (pid, worker)
        self._epoll.register(pidfd, select.EPOLLIN)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))]
        self._control.sendmsg([FORKED.pack(b"W", worker, pid)], rights)

    def _signal(self, worker: int, number: int) -> None:
        """For a launcher that may not signal this user's processes itself."""
        for pid, known in self._children.values():
            if known == worker:
                os.kill(pid, number)

    def _reap(self, pidfd: int) -> None:
        pid, worker = self._children.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        self._epoll.unregister(pidfd)  # closing is not enough: the launcher has the same open description
        os.close(pidfd)
        if not self._sandboxed:
            self._kill_orphans()
        self._control.send(ENDED.pack(b"X", worker, status))

    def _kill_orphans(self) -> None:
        """Without a PID namespace, what a job leaves behind comes to the zygote, which started none of it."""
        known = {pid for pid, _ in self._children.values()}
        while True:
            with open("/proc/self/task/%d/children" % os.getpid()) as file:
                orphans = [int(pid) for pid in file.read().split() if int(pid) not in known]
            if not orphans:
                return
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _preload_asyncio(self) -> None:
        import asyncio  # noqa: F401

        gc.collect()
        gc.freeze()


def _add_site_packages() -> None:
    """What the interpreter does by itself without -S: the environment's site-packages, with their .pth files."""
    import site

    site.main()


def _hide_runtime_modules() -> None:
    """A job that imports ``limits`` or ``frames`` gets its own module or an ImportError, not a part of the runtime."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name, module in list(sys.modules.items()):
        if os.path.dirname(getattr(module, "__file__", None) or "") == here:
            del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.path.remove(here)


def main() -> None:
    """``sandbox``, ``entered`` or ``none`` with the launcher's socket as descriptor 3, or ``container SOCKET``."""
    isolation = sys.argv[1]
    if isolation == "container":
        import container

        container.enter(sys.argv[2])
        isolation = child.SANDBOX
    entered = isolation == "entered"
    zygote = Zygote(child.SANDBOX if entered else isolation, entered)
    try:
        zygote.prepare()
        zygote.run()
    except ConnectionError:
        pass  # the launcher is gone


if __name__ == "__main__":
    main()
