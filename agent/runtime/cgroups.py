"""Limits of an attempt as a whole: memory, processors, processes. Control groups of version 2 or 1, below the own one.

A slot is one group (version 1: one in each hierarchy). A worker's process joins its slot before it parks, since joining
may take milliseconds, and the slot gets the limits of the call that comes; slots are kept for later workers, because
making and removing them costs more than a call.
"""

from __future__ import annotations

import os
import time

MEMORY, CPU, PROCESSES = "memory", "cpu", "processes"

# Above the limit of the attempt: what a worker itself takes, and room to report that its limit was reached.
_MEMORY_SLACK_BYTES = 32 << 20
_PERIOD_US = 100_000
_SMALLEST_QUOTA_US = 1000
_KEPT_SLOTS = 64
# Processes that were killed are gone by then, but for those that hang in the kernel.
_EMPTY_S = 1.0
_PREFIX = "harrier-"
_MAIN = "harrier-main"

_CONTROLLERS = {MEMORY: "memory", CPU: "cpu", PROCESSES: "pids"}


class Slot:
    """One worker's groups. ``joins``: open descriptors; what writes "0" there is in the slot from then on.

    A group of version 1 that limits processors alone is joined only for a call that has such a limit: few have one, and
    each group that is joined costs a fresh call some hundredths of a millisecond.
    """

    __slots__ = ("_events", "_late", "_limits", "_oom_kills", "_paths", "doubtful", "joins")

    def __init__(self, paths: dict[str, str]) -> None:
        """``paths``: controller to directory, which exist. Raises OSError."""
        self._paths = paths
        self._limits: dict[str, float] = {}
        self._oom_kills = 0
        self.doubtful = False  # nobody trustworthy has said that its processes have ended
        self.joins: list[int] = []
        self._events = -1
        try:
            self._late = paths.get(CPU) not in (None, *self._joined_paths())
            for path in self._joined_paths():
                self.joins.append(os.open(os.path.join(path, "cgroup.procs"), os.O_RDWR | os.O_CLOEXEC))
            if MEMORY in paths:
                for name in ("memory.events", "memory.oom_control"):
                    path = os.path.join(paths[MEMORY], name)
                    if os.path.exists(path):
                        self._events = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                        break
        except OSError:
            self.close()
            raise

    def limit(self, memory_bytes: int, cpu: float, processes: int, pidfd: int = -1) -> None:
        """Writes what differs from before; 0 is no limit. ``pidfd``: the worker's. Raises OSError."""
        if cpu and self._late:
            _write(os.path.join(self._paths[CPU], "cgroup.procs"), _pid_of(pidfd))
            self._late = False
        for controller, value in ((MEMORY, memory_bytes), (CPU, cpu), (PROCESSES, processes)):
            if controller in self._paths and self._limits.get(controller) != value:
                self._limits.pop(controller, None)
                _WRITERS[controller](self._paths[controller], value)
                self._limits[controller] = value

    def take_oom_kills(self) -> int:
        """How many processes were killed for want of memory since this was asked last."""
        if self._events < 0:
            return 0
        text = os.pread(self._events, 4096, 0).decode()
        seen = next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
        new, self._oom_kills = seen - self._oom_kills, seen
        return new

    def make_ready(self) -> bool:
        """For another worker. False when there are processes in it. Raises OSError."""
        if self.doubtful and any(os.pread(fd, 16, 0) for fd in self.joins):
            return False
        self.doubtful = False
        self._late = self._paths.get(CPU) not in (None, *self._joined_paths())
        self.take_oom_kills()
        return True

    def _joined_paths(self) -> set[str]:
        return {path for controller, path in self._paths.items() if controller != CPU}

    def close(self) -> None:
        for fd in (*self.joins, self._events):
            if fd >= 0:
                os.close(fd)
        self.joins, self._events = [], -1

    def remove(self) -> bool:
        """False when something of it is still there: a process counts for a moment after it was waited for."""
        self.close()
        self._paths = {controller: path for controller, path in self._paths.items() if not _remove(path)}
        return not self._paths


class Cgroups:
    """Makes, keeps and removes slots."""

    def __init__(self, parents: dict[str, str], log: object) -> None:
        """``parents``: controller to the directory that slots are made in."""
        self._parents, self._log = parents, log
        self._free: list[Slot] = []
        self._busy: set[Slot] = set()
        self._ending: list[Slot] = []  # could not be removed yet
        self._number = 0
        self._warned = False

    @property
    def limits(self) -> list[str]:
        """What is enforced, in words of the protocol."""
        return [name for name in _CONTROLLERS if name in self._parents]

    def take(self) -> Slot | None:
        """A slot without processes; None when there are none here, or none can be made."""
        while self._free:
            slot = self._free.pop()
            try:
                if slot.make_ready():
                    self._busy.add(slot)
                    return slot
            except OSError:
                pass
            self._ending.append(slot)
        return self._make() if self._parents else None

    def give_back(self, slot: Slot, ended: bool) -> None:
        """Its worker has no more use for it. ``ended``: its processes are gone for sure, which saves a look."""
        slot.doubtful = not ended
        self._busy.discard(slot)
        self._free.insert(0, slot)  # the one that is used next has had the most time to become empty
        if len(self._free) > _KEPT_SLOTS:
            self._ending.append(self._free.pop())
        if self._ending:
            self._ending = [slot for slot in self._ending if not slot.remove()]

    def close(self) -> None:
        """Every process has been killed, and may be ending still."""
        until = time.monotonic() + _EMPTY_S
        for slot in [*self._free, *self._busy, *self._ending]:
            while not slot.remove() and time.monotonic() < until:
                time.sleep(0.005)
        for path in dict.fromkeys(self._parents.values()):
            _remove(path)
        self._free, self._busy, self._ending, self._parents = [], set(), [], {}

    def _make(self) -> Slot | None:
        self._number += 1
        paths = {controller: os.path.join(path, str(self._number)) for controller, path in self._parents.items()}
        made = []
        try:
            for path in dict.fromkeys(paths.values()):
                os.mkdir(path)
                made.append(path)
            slot = Slot(paths)
        except OSError as error:
            for path in made:
                _remove(path)
            if not self._warned:
                self._warned = True
                self._log.error("a control group cannot be made; limits hold for each process alone", error=str(error))
            return None
        self._busy.add(slot)
        return slot


def find(log: object) -> Cgroups:
    """What this host lets the launcher limit, maybe nothing; groups that dead launchers left are removed."""
    reasons: list[str] = []
    with open("/proc/self/cgroup") as file:
        own = [line.rstrip("\n").split(":", 2) for line in file]
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" ") for line in file]
    parents = _find_unified(own, mounts, reasons) or _find_v1(own, mounts, reasons)
    for path in dict.fromkeys(parents.values()):
        _remove_leftovers(os.path.dirname(path))
    made: dict[str, str] = {}
    for controller, path in parents.items():
        try:
            os.makedirs(path, exist_ok=True)
            _enable(path, parents)
            made[controller] = path
        except OSError as error:
            reasons.append(f"{controller}: {error}")
    if reasons:
        log.info("some limits hold for each process alone", reasons=reasons)
    return Cgroups(made, log)


def _find_unified(own: list, mounts: list, reasons: list[str]) -> dict[str, str]:
    """Version 2, where the host has the controllers in it."""
    directory = next((_directory(mounts, "cgroup2", None, path) for _, names, path in own if names == ""), None)
    if directory is None:
        return {}
    try:
        there = _read(os.path.join(directory, "cgroup.controllers")).split()
        wanted = {name: controller for name, controller in _CONTROLLERS.items() if controller in there}
        if not wanted:
            return {}
        parent = delegated(directory)
        make_room(parent)
        _write(os.path.join(parent, "cgroup.subtree_control"), " ".join(f"+{name}" for name in wanted.values()))
    except OSError as error:
        reasons.append(f"cgroup v2: {error}")
        return {}
    return {name: os.path.join(parent, _own_name()) for name in wanted}


def delegated(directory: str) -> str:
    """The group that was delegated to this service: the own one, or the one above when the service manager has put the
    service's processes into a group of their own (systemd's DelegateSubgroup=)."""
    return next((path for path in (directory, os.path.dirname(directory)) if _is_delegated(path)), directory)


def make_room(parent: str) -> None:
    """Moves this process, and where the group is delegated all of the service's, into a group below: in version 2, a
    group that limits others has no processes of its own. Raises OSError."""
    processes = _read(os.path.join(parent, "cgroup.procs")).split()
    if not processes:
        return
    main = os.path.join(parent, _MAIN)
    os.makedirs(main, exist_ok=True)
    for process in processes if _is_delegated(parent) else [str(os.getpid())]:
        try:
            _write(os.path.join(main, "cgroup.procs"), process)
        except ProcessLookupError:
            pass


def _find_v1(own: list, mounts: list, reasons: list[str]) -> dict[str, str]:
    found = {}
    for name, controller in _CONTROLLERS.items():
        path = next((path for _, names, path in own if controller in names.split(",")), None)
        directory = path and _directory(mounts, "cgroup", controller, path)
        if not directory:
            reasons.append(f"{name}: this host has no {controller} controller")
        elif not os.access(directory, os.W_OK):
            reasons.append(f"{name}: {directory} is not writable")
        else:
            found[name] = os.path.join(directory, _own_name())
    return found


def _directory(mounts: list, kind: str, controller: str | None, path: str) -> str | None:
    """Where the group of that path is mounted; None when it is not visible here."""
    for fields in mounts:
        rest = fields[fields.index("-") + 1 :]
        if rest[0] != kind or (controller and controller not in rest[2].strip().split(",")):
            continue
        root, mount_point = fields[3], fields[4]
        if root == "/":
            inside = path
        elif path == root or path.startswith(root + "/"):
            inside = path[len(root) :]
        else:
            inside = "/"  # a container without a cgroup namespace: its mount shows its own group as the root
        directory = os.path.normpath(mount_point + inside)
        if os.path.isdir(directory):
            return directory
    return None


def _enable(path: str, parents: dict[str, str]) -> None:
    """Version 2: what the launcher's group passes on to its slots."""
    control = os.path.join(path, "cgroup.subtree_control")
    if os.path.exists(control):
        _write(control, " ".join(f"+{_CONTROLLERS[name]}" for name in parents))


def _own_name() -> str:
    return f"{_PREFIX}{os.getpid()}-{_start_time(os.getpid())}-{_pid_namespace()}"


def _pid_namespace() -> str:
    """Launchers in containers may share the hierarchy with those of the host, but not the numbers of processes."""
    return str(os.stat("/proc/self/ns/pid").st_ino)


def _start_time(pid: int) -> str:
    """In ticks since boot: a number that a later process with the same pid does not have. Raises OSError."""
    fields = _read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)  # dead, and not waited for
    return fields[19]


def _remove_leftovers(directory: str) -> None:
    until = time.monotonic() + _EMPTY_S
    for name in os.listdir(directory):
        parts = name[len(_PREFIX) :].split("-")
        if not name.startswith(_PREFIX) or len(parts) != 3 or not parts[0].isdigit():
            continue
        if parts[2] != _pid_namespace():
            continue
        try:
            if _start_time(int(parts[0])) == parts[1]:
                continue
        except OSError:
            pass  # no such process
        path = os.path.join(directory, name)
        slots = [os.path.join(path, slot) for slot in os.listdir(path)]
        for group in [*filter(os.path.isdir, slots), path]:
            while not _remove(group) and time.monotonic() < until:
                time.sleep(0.005)


def _remove(path: str) -> bool:
    """False when processes are in it, or are still ending there."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _limit_memory(path: str, value: float) -> None:
    limit = int(value) + _MEMORY_SLACK_BYTES if value else None
    if os.path.exists(os.path.join(path, "memory.max")):
        _write(os.path.join(path, "memory.oom.group"), "1")
        _write(os.path.join(path, "memory.max"), "max" if limit is None else str(limit))
        if os.path.exists(os.path.join(path, "memory.swap.max")):
            _write(os.path.join(path, "memory.swap.max"), "max" if limit is None else "0")
        return
    memory, both = (os.path.join(path, f"memory.{name}limit_in_bytes") for name in ("", "memsw."))
    text = "-1" if limit is None else str(limit)
    if not os.path.exists(both):  # a kernel that does not count swap
        _write(memory, text)
        return
    # The sum is never below the memory alone: it goes first on the way up and last on the way down.
    grows = limit is None or limit > int(_read(both))
    for name in (both, memory) if grows else (memory, both):
        _write(name, text)


def _limit_cpu(path: str, value: float) -> None:
    quota = max(_SMALLEST_QUOTA_US, round(value * _PERIOD_US)) if value else None
    if os.path.exists(os.path.join(path, "cpu.max")):
        _write(os.path.join(path, "cpu.max"), f"{'max' if quota is None else quota} {_PERIOD_US}")
        return
    _write(os.path.join(path, "cpu.cfs_period_us"), str(_PERIOD_US))
    _write(os.path.join(path, "cpu.cfs_quota_us"), "-1" if quota is None else str(quota))


def _limit_processes(path: str, value: float) -> None:
    # One more: the worker that waits for a command, or whose handler starts the first process.
    _write(os.path.join(path, "pids.max"), str(int(value) + 1) if value else "max")


_WRITERS = {MEMORY: _limit_memory, CPU: _limit_cpu, PROCESSES: _limit_processes}


def _pid_of(pidfd: int) -> str:
    """In this process's PID namespace."""
    text = _read(f"/proc/self/fdinfo/{pidfd}")
    return next(line.split()[1] for line in text.splitlines() if line.startswith("Pid:"))


def _is_delegated(path: str) -> bool:
    """systemd marks what it has handed over (systemd.io/CGROUP_DELEGATION)."""
    for attribute in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(path, attribute) == b"1":
                return True
        except OSError:
            pass  # not set, or not for this user to see
    return False


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {text} to {path}: {error.strerror}") from None
    finally:
        os.close(fd)
