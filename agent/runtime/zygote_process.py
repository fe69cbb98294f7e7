"""The launcher's end of one zygote: starts it in its sandbox, asks it for workers, learns when they end."""

from __future__ import annotations

import array
import errno
import json
import os
import signal
import socket
import struct
import time

import cgroup_hierarchy
import loop as event_loop
from cgroup_slot import Slot
from cgroups import Cgroups
from environment import Environment
from sandbox import bare_command, enters, sandbox_command
from spawn import Spec, bind_sources, spawn
from worker import Worker

_FORK = struct.Struct("=cIQ??")
_FORKED = struct.Struct("=cII")
_ENDED = struct.Struct("=cIi")
_FAILED = struct.Struct("=cI")
_NUMBER = struct.Struct("=I")
_SIGNAL = struct.Struct("=cIi")
_STDERR_TAIL_BYTES = 4096
_MESSAGE_BYTES = 16 * 1024
# Some packages take this long to import from a cold disk; one that hangs must not hold its calls for ever.
_START_TIMEOUT_S = 300.0
_ZYGOTE_PROCESSES = 1024


class ZygoteProcess:
    """States: held, starting, ready, dead. ``owner`` gets on_ready(zygote), on_forked(worker), on_ended(worker, status
    or None), on_fork_failed(worker, text) and on_dead(zygote, reason); on_dead comes once and is the last.
    """

    def __init__(
        self,
        loop: event_loop.Loop,
        log: object,
        spec: Spec,
        owner: object,
        environment: Environment | None = None,
        control: socket.socket | None = None,
        memory_bytes: int = 0,
        held: bool = False,
    ) -> None:
        """Starts it, unless ``control`` is the socket of one that runs in a container already.

        ``memory_bytes``: what packages of the environment may use, where the container does not bound them, and what
        nobody's worker may; 0 is no limit. ``held``: it runs nothing but the runtime before ``begin``.
        """
        self._loop, self._log = loop, log
        self.owner = owner
        self.held = held
        self.ready = False
        self.dead = False
        # What it prints may come from a tenant's packages, and hold the environment's variables: not for the log.
        self.private = environment is not None
        self.overdue = False  # it was killed because it did not become ready
        self.loading = False  # it has begun to load packages of its environment, and is not ready
        self.out_of_memory = False  # it ended because its packages need more memory than it may use
        self.python = ""
        self.faults = ""  # what of its environment failed, as lines, until a call's log has them
        self.workers: dict[int, Worker] = {}
        self._numbers = 0
        self._stderr_tail = b""
        self._is_apart = bool(spec.bwrap or control)  # in a PID namespace of its own
        self._cgroups = spec.cgroups if control is None else _cgroups_for(spec.cgroups, control, log)
        # Packages run in the zygote itself, where no call's limits hold.
        self._memory_bytes = memory_bytes
        self._slot = self._take_limited() if environment and control is None else None
        self.started_at = time.monotonic()
        if control is None:
            self._pid, self._control, self._stderr = _start(spec, environment, self._slot)
            self._job_owner = (spec.uid, spec.gid) if spec.changes_user else None
            loop.register(self._stderr, event_loop.READABLE, self._on_stderr)
        else:
            self._pid, self._control, self._stderr = 0, control, -1
            self._job_owner = _peer_of(control)[1:] if os.geteuid() == 0 else None
        self._maker: socket.socket | None = None
        loop.register(self._control.fileno(), event_loop.READABLE, self._on_control)
        bounded = control or (self._slot and "memory" in self._cgroups.limits)
        self._configuration = _configuration(environment, self._cgroups.limits, 0 if bounded else memory_bytes)
        self._start_timer: event_loop.Timer | None = None
        if control is None and spec.bwrap and enters(environment):
            self._start_first_maker()
        if not held:
            self.begin()

    def _start_first_maker(self) -> None:
        """What comes before the environment's interpreter waits for it."""
        try:
            self._start_maker(b"M")
        except OSError:
            pass  # it has ended already, which is about to be seen

    def begin(self) -> None:
        """Has it import what its environment wants, and get ready. To be called once."""
        self.held, self.started_at = False, time.monotonic()
        self._start_timer = self._loop.call_later(_START_TIMEOUT_S, self._on_overdue)
        try:
            if self.private and not self._maker:
                self._start_maker(self._configuration)  # now: later it might be the packages' process
            else:
                self._control.send(self._configuration)
        except OSError:
            pass  # it has ended already, which is about to be seen

    def fork(self, tmp_bytes: int, network: bool, rehearse: bool) -> Worker | None:
        """Asks for a worker; on_forked or on_fork_failed follows. None when descriptors or the zygote are used up.

        ``network``: with a network namespace of its own. ``rehearse``: nobody waits for it, so it may warm itself up.
        """
        self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        worker = Worker(self._loop, self, self._numbers, tmp_bytes, network)
        try:
            if network:
                if self._maker is None:
                    self._start_maker(b"M")
                self._maker.send(_NUMBER.pack(worker.number))
            else:
                self._ask_for(worker, rehearse)
        except OSError as error:
            self._log.warn("a worker cannot be asked for", error=str(error))
            worker.close()
            self._leave(worker)
            return None
        self.workers[worker.number] = worker
        return worker

    def _ask_for(self, worker: Worker, rehearse: bool, namespace: tuple[int, ...] = ()) -> None:
        """Raises OSError."""
        ends: list[int] = []
        try:
            ends = worker.open_channels(self._job_owner)
            # Packages in the zygote could put processes of theirs into a slot that waits for its call.
            worker.slot = self._take_bounded(self) if self.private else self._cgroups.take()
            joins = worker.slot.joins if worker.slot else ()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [*ends, *namespace, *joins]))]
            self._control.sendmsg([_FORK.pack(b"F", worker.number, worker.tmp_bytes, rehearse, worker.network)], rights)
        finally:
            for fd in ends:
                os.close(fd)

    def _take_bounded(self, user: object = None) -> Slot | None:
        return self._cgroups.take_bounded(self._memory_bytes, _ZYGOTE_PROCESSES, user)

    def _take_limited(self) -> Slot | None:
        """Of its own: a call that had the slot before may have left it with less."""
        slot = self._take_bounded()
        if slot:
            try:
                slot.limit(self._memory_bytes, 0, _ZYGOTE_PROCESSES)
            except OSError as error:
                self._log.error("a limit cannot be set", error=str(error))
        return slot

    def _leave(self, worker: Worker) -> None:
        """Its process, and with it its PID namespace, has ended, if the zygote is to be believed."""
        if worker.slot:
            slot, worker.slot = worker.slot, None
            self._cgroups.give_back(slot, ended=not self.dead and not self.private)
            if self.dead:
                self._cgroups.forget(self)

    def _start_maker(self, message: bytes) -> None:
        """Sends the message with the socket of the process that makes network namespaces. Raises OSError."""
        self._maker, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._maker.setblocking(False)
        self._loop.register(self._maker.fileno(), event_loop.READABLE, self._on_maker)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
        with theirs:
            self._control.sendmsg([message], rights)

    def _on_maker(self, events: int) -> None:
        """A network namespace has been made, or could not be."""
        try:
            message, ancillary, _, _ = self._maker.recvmsg(512, 64, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if len(message) < _NUMBER.size:
            self._log.error("the process that makes network namespaces has ended")
            self.kill()
            return
        fds = _descriptors(ancillary)
        worker = self.workers.get(_NUMBER.unpack_from(message)[0])
        try:
            if worker is None:
                return  # the zygote says that it has ended
            if not fds:
                raise OSError(f"no network namespace: {message[_NUMBER.size :].decode(errors='replace')}")
            worker.listener = fds.pop()
            self._ask_for(worker, False, (fds[0],))
        except OSError as error:
            del self.workers[worker.number]
            self.owner.on_fork_failed(worker, str(error))
            self._leave(worker)
        finally:
            for fd in fds:
                os.close(fd)

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
            except ConnectionResetError:
                continue  # it has ended without reading all; what it said before that comes next
            except OSError:
                message = b""
            if not message:
                self._died()
                return
            fds = _descriptors(ancillary)
            try:
                self._on_message(message, fds)
            except (struct.error, LookupError, TypeError, ValueError, RecursionError) as error:
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
            worker = self.workers.pop(number)
            self.owner.on_ended(worker, status)
            self._leave(worker)
        elif kind == b"E":
            number = _FAILED.unpack_from(message)[1]
            if self.workers[number].pidfd >= 0 or self.workers[number].channel < 0:
                raise ValueError("a worker fails to be forked when it is asked for")
            worker = self.workers.pop(number)
            self.owner.on_fork_failed(worker, message[_FAILED.size :].decode(errors="replace"))
            self._leave(worker)
        elif kind == b"R":
            self._on_ready(json.loads(message[1:]))
        elif kind == b"L" and not self.ready:
            self.loading = True
        elif kind == b"O" and not self.ready:
            self._ran_out_of_memory()
            self.kill()
        elif kind == b"Q":
            self._stderr_tail = message[1:]
            self.kill()

    def _on_ready(self, told: dict) -> None:
        if self.ready or self.held or not isinstance(told["faults"], str):
            raise ValueError("it is ready once, when it was told what to import")
        self._start_timer.cancel()
        self.python, self.faults = str(told["python"]), told["faults"]
        self.ready, self.loading = True, False
        if self.faults:
            self._log.warn("an environment did not load in full", faults=self.faults.count("\n"))
        self.owner.on_ready(self)

    def _ran_out_of_memory(self) -> None:
        self.out_of_memory = True
        told = "\nits packages needed more memory than %d bytes while they were imported" % self._memory_bytes
        self._stderr_tail += told.encode()

    def take_faults(self) -> memoryview:
        """The lines for the first call's stderr; after that there are none."""
        text, self.faults = self.faults, ""
        return memoryview(text.encode("utf-8", "replace"))

    def _on_forked(self, number: int, fds: array.array) -> None:
        worker = self.workers[number]
        if worker.channel < 0 or worker.pidfd >= 0 or not fds or not self._is_worker(fds[0]):
            raise ValueError("a worker that was asked for comes with the descriptor of its process, once")
        worker.pidfd = fds.pop(0)
        if worker.dead:
            worker.close()  # it was given up while it was being forked
        else:
            self.owner.on_forked(worker)

    def _is_worker(self, fd: int) -> bool:
        """Whether it is the descriptor of a process, and of none that a tenant's packages could not have forked."""
        return _is_pidfd(fd) and not (self.private and self._is_apart and _is_outside(fd))

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

    def signal(self, worker: Worker, number: int) -> None:
        """Has the zygote signal one of its workers; nothing happens when either has ended."""
        try:
            self._control.send(_SIGNAL.pack(b"K", worker.number, number))
        except OSError:
            pass

    def _end_process(self) -> str:
        """Kills bubblewrap, and with it everything inside. Returns how it ended."""
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status = os.waitpid(self._pid, 0)
        self._on_stderr(0)
        self._loop.unregister(self._stderr)
        os.close(self._stderr)
        return f"it ended with wait status {status}"

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
        importing = not self.ready
        self.dead, self.ready = True, False
        if self._start_timer:
            self._start_timer.cancel()
        ended = "its connection ended"
        if self._pid:
            ended = self._end_process()
        if importing and self._slot and self._slot.take_oom_kills():
            self._ran_out_of_memory()
        self._loop.unregister(self._control.fileno())
        self._control.close()
        if self._maker:
            self._loop.unregister(self._maker.fileno())
            self._maker.close()
        told = self._stderr_tail.decode(errors="replace").strip()
        reason = told or ended
        workers, self.workers = list(self.workers.values()), {}
        for worker in workers:
            self.owner.on_ended(worker, None)
            self._leave(worker)
        if self._slot:
            self._cgroups.give_back(self._slot, ended=False)
        self._cgroups.forget(self)
        self.owner.on_dead(self, reason)


def _peer_of(control: socket.socket) -> tuple[int, int, int]:
    """The process that has connected (0: not to be seen from here), its user and its group."""
    return struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))


def _cgroups_for(cgroups: Cgroups, control: socket.socket, log: object) -> Cgroups:
    """Where the workers of a container can be taken out of its groups, each call has its own; else none has."""
    reason = cgroup_hierarchy.why_out_of_reach(cgroups, _peer_of(control)[0])
    if reason is None:
        return cgroups
    log.info("in a container, limits hold for each process alone", reason=reason)
    return Cgroups({}, log)


def _start(spec: Spec, environment: Environment | None, slot: Slot | None) -> tuple[int, socket.socket, int]:
    if not spec.bwrap:
        return spawn(spec, *bare_command(spec.python, spec.runtime_dir, environment), [], slot=slot)
    binds = environment.binds if environment else ()
    gathered, sources = bind_sources(spec, binds)
    command = sandbox_command(spec.bwrap, spec.python, spec.runtime, environment, sources)
    return spawn(spec, *command, gathered, binds, slot)


def _descriptors(ancillary: list) -> array.array:
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return fds


def _configuration(environment: Environment | None, limits: list[str], memory_bytes: int) -> bytes:
    """The first message to a zygote: what it does before it is ready, and with what limit of its own (0: none)."""
    fields = {"site": False, "preload": [], "limits": limits, "variables": {}, "memory_bytes": memory_bytes}
    if environment:
        fields.update(site=environment.python is not None, preload=environment.preload)
    if environment and environment.attached:
        fields["variables"] = environment.variables
    return b"C" + json.dumps(fields).encode()


def _is_pidfd(fd: int) -> bool:
    try:
        signal.pidfd_send_signal(fd, 0)
    except OSError as error:
        return error.errno != errno.EBADF  # it has ended, or is not this process's to signal
    return True


def _is_outside(pidfd: int) -> bool:
    """True for a process that is in no PID namespace below this one's: this process itself, for one.

    Since Linux 6.5 whoever has a socket can get the descriptor of the process at its other end (SO_PEERPIDFD). What has
    ended, or is not to be seen from here, cannot be signalled either, and is none.
    """
    numbers = _namespace_numbers(f"/proc/self/fdinfo/{pidfd}")
    return bool(numbers) and numbers[0] > 0 and len(numbers) <= len(_namespace_numbers("/proc/self/status"))


def _namespace_numbers(path: str) -> list[int]:
    """A process's number in each of its PID namespaces, this one's first; none on kernels that do not tell."""
    with open(path) as file:
        for line in file:
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []
