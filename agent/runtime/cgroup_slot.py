"""One control group, or of version 1 one in each hierarchy: the limits of one attempt as a whole."""

from __future__ import annotations

import os

MEMORY, CPU, PROCESSES = "memory", "cpu", "processes"
CONTROLLERS = {MEMORY: "memory", CPU: "cpu", PROCESSES: "pids"}

# Above the limit of the attempt: what a worker itself takes, and room to report that its limit was reached.
_MEMORY_SLACK_BYTES = 32 << 20
_PERIOD_US = 100_000
_SMALLEST_QUOTA_US = 1000


class Slot:
    """One worker's groups. ``joins``: open descriptors; what writes "0" there is in the slot from then on.

    A group of version 1 that limits processors alone is joined only for a call that has such a limit: few have one, and
    each group that is joined costs a fresh call some hundredths of a millisecond.
    """

    __slots__ = ("_events", "_late", "_limits", "_oom_kills", "_paths", "doubtful", "joins", "user")

    def __init__(self, paths: dict[str, str], user: object = None) -> None:
        """``paths``: controller to directory, which exist. ``user``: the only one that gets it. Raises OSError."""
        self._paths = paths
        self.user = user
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
            self._join_late(_pid_of(pidfd))
        for controller, value in ((MEMORY, memory_bytes), (CPU, cpu), (PROCESSES, processes)):
            if controller == CPU and self._late:
                continue  # nobody is in it
            if self._limits.get(controller) != value:
                self._set(controller, value)

    def bound(self, memory_bytes: int, processes: int) -> None:
        """Writes these limits where there is none, or a larger one: until a call sets its own. Raises OSError."""
        for controller, value in ((MEMORY, memory_bytes), (PROCESSES, processes)):
            if not 0 < self._limits.get(controller, 0) <= value:
                self._set(controller, value)

    def _set(self, controller: str, value: float) -> None:
        if controller in self._paths:
            self._limits.pop(controller, None)
            _WRITERS[controller](self._paths[controller], value)
            self._limits[controller] = value

    def _join_late(self, pid: str) -> None:
        """Nobody is in that group before: whoever tidies up may have removed it, unlike one with processes."""
        processes = os.path.join(self._paths[CPU], "cgroup.procs")
        if not os.path.exists(processes):
            os.makedirs(self._paths[CPU])
            self._limits.pop(CPU, None)
        write_file(processes, pid)
        self._late = False

    def take_oom_kills(self) -> int:
        """How many processes were killed for want of memory since this was asked last; 0 when the group is gone."""
        if self._events < 0:
            return 0
        try:
            text = os.pread(self._events, 4096, 0).decode()
        except OSError:
            return 0
        seen = next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
        new, self._oom_kills = seen - self._oom_kills, seen
        return new

    def make_ready(self) -> bool:
        """For another worker. False when there are processes in it, or when it was removed. Raises OSError."""
        if not all(map(os.path.isdir, set(self._paths.values()))):
            return False
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
        self._paths = {controller: path for controller, path in self._paths.items() if not remove_group(path)}
        return not self._paths


def remove_group(path: str) -> bool:
    """False when processes are in it, or are still ending there."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def read_file(path: str) -> str:
    with open(path) as file:
        return file.read()


def write_file(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {text} to {path}: {error.strerror}") from None
    finally:
        os.close(fd)


def _limit_memory(path: str, value: float) -> None:
    limit = int(value) + _MEMORY_SLACK_BYTES if value else None
    if os.path.exists(os.path.join(path, "memory.max")):
        write_file(os.path.join(path, "memory.oom.group"), "1")
        write_file(os.path.join(path, "memory.max"), "max" if limit is None else str(limit))
        if os.path.exists(os.path.join(path, "memory.swap.max")):
            write_file(os.path.join(path, "memory.swap.max"), "max" if limit is None else "0")
        return
    memory, both = (os.path.join(path, f"memory.{name}limit_in_bytes") for name in ("", "memsw."))
    text = "-1" if limit is None else str(limit)
    if not os.path.exists(both):  # a kernel that does not count swap
        write_file(memory, text)
        return
    # The sum is never below the memory alone: it goes first on the way up and last on the way down.
    grows = limit is None or limit > int(read_file(both))
    for name in (both, memory) if grows else (memory, both):
        write_file(name, text)


def _limit_cpu(path: str, value: float) -> None:
    quota = max(_SMALLEST_QUOTA_US, round(value * _PERIOD_US)) if value else None
    if os.path.exists(os.path.join(path, "cpu.max")):
        write_file(os.path.join(path, "cpu.max"), f"{'max' if quota is None else quota} {_PERIOD_US}")
        return
    write_file(os.path.join(path, "cpu.cfs_period_us"), str(_PERIOD_US))
    write_file(os.path.join(path, "cpu.cfs_quota_us"), "-1" if quota is None else str(quota))


def _limit_processes(path: str, value: float) -> None:
    # One more: the worker that waits for a command, or whose handler starts the first process.
    write_file(os.path.join(path, "pids.max"), str(int(value) + 1) if value else "max")


_WRITERS = {MEMORY: _limit_memory, CPU: _limit_cpu, PROCESSES: _limit_processes}


def _pid_of(pidfd: int) -> str:
    """In this process's PID namespace."""
    text = read_file(f"/proc/self/fdinfo/{pidfd}")
    return next(line.split()[1] for line in text.splitlines() if line.startswith("Pid:"))
