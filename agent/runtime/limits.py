"""Resource limits that a job's process sets on itself before any of the job's code runs.

They hold for each process; a limit on the sum over all processes of a call needs a cgroup (``cgroups``). Where there is
one, those of these that only stand in for it are not set.
"""

from __future__ import annotations

import resource

_MIB = 1 << 20

# Code that fails for want of memory still has to say so: the soft limit is raised by this much for the report.
REPORT_RESERVE_BYTES = 16 * _MIB
# RLIMIT_AS also counts reserved but unused address space (thread arenas, mapped libraries), so it is only the bound on
# shared mappings, which RLIMIT_DATA does not count.
_ADDRESS_SPACE_SLACK_BYTES = 512 * _MIB
# RLIMIT_NPROC counts every task of the zygote's user namespace: all calls of the tenant that run at the same time.
PROCESS_SLACK = 512

# An interpreter starts its threads when they are first needed, and their stacks count as data before they are used.
_SCRIPT_SLACK_BYTES = 64 * _MIB
# What an interpreter of another language uses before any code of the job runs, and of its heap before that is limited.
# A cgroup counts it, unlike the warm interpreter of Python, which the zygote has paid for.
SCRIPT_INTERPRETER_BYTES = 64 * _MIB

NOFILE = 4096
# The kernel's default. Locked memory cannot be swapped out or reclaimed.
_MEMLOCK_BYTES = 8 * _MIB


def baseline_bytes(pid: int | str = "self") -> tuple[int, int]:
    """(address space, private data) of a process in bytes: what a job finds already used."""
    values = {}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("VmSize", "VmData"):
                values[name] = int(rest.split()[0]) * 1024
    return values["VmSize"], values["VmData"]


def set_fixed() -> None:
    """Limits that every call has."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    nofile = NOFILE if hard == resource.RLIM_INFINITY else min(NOFILE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    locked = _MEMLOCK_BYTES if hard == resource.RLIM_INFINITY else min(_MEMLOCK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))
    for kind in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(kind, (0, 0))  # no call goes before the host's own processes


def set_for_packages(memory_bytes: int) -> None:
    """What packages may use while a zygote imports them, where no cgroup says so; 0 is no limit."""
    if memory_bytes:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        data = baseline_bytes()[1] + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data if hard == resource.RLIM_INFINITY else min(data, hard), hard))


def set_for_call(
    kind: str, memory_bytes: int, processes: int, baseline: tuple[int, int], cgroup_limits: list[str]
) -> None:
    """Limits of one call, on top of what the interpreter itself uses. 0 is no limit.

    ``kind``: a `script` gets its limit of memory when its interpreter is there. ``cgroup_limits``: what a cgroup
    limits. Private data of Python stays limited all the same: MemoryError says more than a killed process.
    """
    if memory_bytes and kind != "script":
        size, data = baseline
        _lower(resource.RLIMIT_DATA, data + memory_bytes)
        if "memory" not in cgroup_limits:
            _lower(resource.RLIMIT_AS, size + 2 * memory_bytes + _ADDRESS_SPACE_SLACK_BYTES)
    if processes and "processes" not in cgroup_limits:
        _lower(resource.RLIMIT_NPROC, processes + PROCESS_SLACK, 0)


def set_for_script(pid: int, memory_bytes: int) -> None:
    """The limit of a process that is about to run code of a language with an interpreter of its own. 0 is none.

    For want of a cgroup only: such interpreters reserve address space by the gigabyte, V8 for every thread with code of
    its own half a gigabyte that counts as private data.
    """
    if memory_bytes:
        data = baseline_bytes(pid)[1] + memory_bytes + _SCRIPT_SLACK_BYTES
        try:
            resource.prlimit(pid, resource.RLIMIT_DATA, (data, data))
        except ProcessLookupError:
            pass  # it has ended, which is about to be seen


def allow_report() -> None:
    """Lets a process at its memory limit use the reserve."""
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard, hard))


def _lower(kind: int, value: int, reserve: int = REPORT_RESERVE_BYTES) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY and value + reserve > hard:
        resource.setrlimit(kind, (min(value, hard), hard))
    else:
        resource.setrlimit(kind, (value, value + reserve))
