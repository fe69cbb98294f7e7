"""The launcher's end of one zygote: starts it in its sandbox, asks it for workers, learns when they end."""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import struct

import gather
import loop as event_loop
from environment import Bind, Environment
from sandbox import bare_command, load_runtime, sandbox_command
from worker import Worker

_FORK = struct.Struct("=cIQ?")
_FORKED = struct.Struct("=cII")
_ENDED = struct.Struct("=cIi")
_FAILED = struct.Struct("=cI")
_CONTROL_FD = 3
_STDERR_TAIL_BYTES = 4096
_MESSAGE_BYTES = 16 * 1024
# Some packages take this long to import from a cold disk; one that hangs must not hold its calls for ever.
_START_TIMEOUT_S = 300.0


class Spec:
    """How zygotes are started: the same for all of them."""

    __slots__ = ("bwrap", "gid", "python", "runtime", "runtime_dir", "uid")

    def __init__(self, bwrap: str | None, python: object, runtime_dir: str, uid: int, gid: int) -> None:
        self.bwrap, self.python, self.runtime_dir, self.uid, self.gid = bwrap, python, runtime_dir, uid, gid
        self.runtime = load_runtime(runtime_dir) if bwrap else {}

    @property
    def isolation(self) -> str:
        return "sandbox" if self.bwrap else "none"


class ZygoteProcess:
    """States: starting, ready, dead. ``owner`` gets on_ready(zygote), on_forked(worker), on_ended(worker, status or
    None), on_fork_failed(worker, text) and on_dead(zygote, reason); on_dead comes once and is the last.
    """

    def __init__(
        self, loop: event_loop.Loop, log: object, spec: Spec, owner: object, environment: Environment | None = None
    ) -> None:
        self._loop, self._log = loop, log
        self.owner = owner
        self.ready = False
        self.dead = False
        # What it prints may come from a tenant's packages, and hold the environment's variables: not for the log.
        self.private = environment is not None
        self.overdue = False  # it was killed because it did not become ready
        self.python = ""
        self.faults = ""  # what of its environment failed, as lines, until a call's log has them
        self.workers: dict[int, Worker] = {}
        self._numbers = 0
        self._stderr_tail = b""
        self._pid, self._control, self._stderr = _spawn(spec, environment)
        self._job_owner = (spec.uid, spec.gid) if _changes_user(spec) else None
        loop.register(self._control.fileno(), event_loop.READABLE, self._on_control)
        loop.register(self._stderr, event_loop.READABLE, self._on_stderr)
        self._start_timer = loop.call_later(_START_TIMEOUT_S, self._on_overdue)
        try:
            self._control.send(_configuration(environment))
        except OSError:
            pass  # it has ended already, which is about to be seen

    def fork(self, tmp_bytes: int, rehearse: bool) -> Worker | None:
        """Asks for a worker; on_forked or on_fork_failed follows. None when descriptors or the zygote are used up.

        ``rehearse``: nobody waits for it, so it may warm itself up.
        """
        self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        worker = Worker(self._loop, self, self._numbers, tmp_bytes)
        ends: list[int] = []
        try:
            ends = worker.open_channels(self._job_owner)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", ends))]
            self._control.sendmsg([_FORK.pack(b"F", worker.number, tmp_bytes, rehearse)], rights)
        except OSError as error:
            self._log.warn("a worker cannot be asked for", error=str(error))
            worker.close()
            return None
        finally:
            for fd in ends:
                os.close(fd)
        self.workers[worker.number] = worker
        return worker

    def preload_asyncio(self) -> None:
        """From the next fork on, asynchronous handlers start at once."""
        try:
            self._control.send(b"A")
        except OSError:
            pass  # it only costs time

    def _on_control(self, events: int) -> None:
        for _ in range(64):
            try:
                message, ancillary, _, _ = self._control.recvmsg(_MESSAGE_BYTES, 64, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._died()
                return
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            try:
                self._on_message(message, fds)
            except (struct.error, LookupError, ValueError) as error:
                # It may run what a tenant has installed: whatever it says is checked.
                # An error's text, unlike its repr, does not quote what could not be decoded.
                self._log.error("a zygote broke its protocol and is killed", error=f"{type(error).__name__}: {error}")
                self.kill()
            for fd in fds:
                os.close(fd)
            if self.dead:
                return

    def _on_message(self, message: bytes, fds: array.array) -> None:
        """Takes out of ``fds`` what it keeps."""
        kind = message[:1]
        if kind == b"W":
            self._on_forked(_FORKED.unpack(message)[1], fds)
        elif kind == b"X":
            _, number, status = _ENDED.unpack(message)
            self.owner.on_ended(self.workers.pop(number), status)
        elif kind == b"E":
            number = _FAILED.unpack_from(message)[1]
            worker = self.workers.pop(number)
            self.owner.on_fork_failed(worker, message[_FAILED.size :].decode(errors="replace"))
        elif kind == b"R":
            self._on_ready(json.loads(message[1:]))

    def _on_ready(self, told: dict) -> None:
        if self.ready or not isinstance(told["faults"], str):
            raise ValueError("it is not ready twice")
        self._start_timer.cancel()
        self.python, self.faults = str(told["python"]), told["faults"]
        self.ready = True
        if self.faults:
            self._log.warn("an environment did not load in full", faults=self.faults.count("\n"))
        self.owner.on_ready(self)

    def take_faults(self) -> memoryview:
        """The lines for the first call's stderr; after that there are none."""
        text, self.faults = self.faults, ""
        return memoryview(text.encode("utf-8", "replace"))

    def _on_forked(self, number: int, fds: array.array) -> None:
        worker = self.workers[number]
        if worker.pidfd >= 0 or not fds or not _is_pidfd(fds[0]):
            raise ValueError("a worker comes with the descriptor of its process, once")
        worker.pidfd = fds.pop(0)
        if worker.dead:
            worker.close()  # it was given up while it was being forked
        else:
            self.owner.on_forked(worker)

    def _on_stderr(self, events: int) -> None:
        try:
            data = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.unregister(self._stderr)
            return
        if not self.private:
            self._log.warn("a zygote wrote to stderr", text=data.decode(errors="replace")[-2000:])
        elif not self._stderr_tail:
            self._log.warn("packages of an environment write to stderr, which is not logged")
        self._stderr_tail = (self._stderr_tail + data)[-_STDERR_TAIL_BYTES:]

    def _on_overdue(self) -> None:
        self.overdue = True
        self._stderr_tail += b"\nits packages were not imported within %d s" % _START_TIMEOUT_S
        self.kill()

    def kill(self) -> None:
        """Ends the zygote and every process in its sandbox; on_dead follows from here."""
        self._died()

    def _died(self) -> None:
        if self.dead:
            return
        self.dead, self.ready = True, False
        self._start_timer.cancel()
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status = os.waitpid(self._pid, 0)
        self._on_stderr(0)
        self._loop.unregister(self._control.fileno())
        self._control.close()
        self._loop.unregister(self._stderr)
        os.close(self._stderr)
        told = self._stderr_tail.decode(errors="replace").strip()
        reason = told or f"it ended with wait status {status}"
        workers, self.workers = list(self.workers.values()), {}
        for worker in workers:
            self.owner.on_ended(worker, None)
        self.owner.on_dead(self, reason)


def _configuration(environment: Environment | None) -> bytes:
    """The first message to a zygote: what it does before it is ready."""
    fields = {"site": False, "preload": []}
    if environment:
        fields = {"site": environment.python is not None, "preload": environment.preload}
    return b"C" + json.dumps(fields).encode()


def _is_pidfd(fd: int) -> bool:
    try:
        signal.pidfd_send_signal(fd, 0)
    except ProcessLookupError:
        pass  # it has ended already
    except OSError:
        return False
    return True


def _spawn(spec: Spec, environment: Environment | None) -> tuple[int, socket.socket, int]:
    """Starts the process as the sandbox's user. Returns (pid, control socket, stderr), both non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr, stderr_end = os.pipe()
    files: list[int] = []
    binds = environment.binds if environment else ()
    gathered = gather.directory() if binds and _changes_user(spec) else None
    if spec.bwrap:
        sources = [f"{gathered}/{number}" if gathered else bind.source for number, bind in enumerate(binds)]
        argv, variables, files = sandbox_command(spec.bwrap, spec.python, spec.runtime, environment, sources)
    else:
        argv, variables = bare_command(spec.python, spec.runtime_dir, environment)
    pid = os.fork()
    if pid == 0:
        try:
            _become(spec, theirs.fileno(), stderr_end, files, gathered, binds)
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


def _changes_user(spec: Spec) -> bool:
    return spec.bwrap is not None and os.geteuid() == 0


def _become(
    spec: Spec, control: int, stderr: int, files: list[int], gathered: str | None, binds: tuple[Bind, ...]
) -> None:
    """In the new process: descriptors 0 to 3, what is to be bound, then the sandbox's user if this is root."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(stderr, 2)
    os.dup2(null, 0)
    os.dup2(stderr, 1)
    for fd in files:
        os.set_inheritable(fd, True)
    if _CONTROL_FD in files:
        raise OSError(f"descriptor {_CONTROL_FD} is taken")
    os.dup2(control, _CONTROL_FD)
    if gathered:
        gather.mount(gathered, binds, (spec.uid, spec.gid))
    if _changes_user(spec):
        os.setgroups([])
        os.setresgid(spec.gid, spec.gid, spec.gid)
        os.setresuid(spec.uid, spec.uid, spec.uid)
    if not spec.bwrap:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: bubblewrap does the same
