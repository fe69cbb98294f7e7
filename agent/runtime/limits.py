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

NOFILE = 4096
# The kernel's default. Locked memory cannot be swapped out or reclaimed.
_MEMLOCK_BYTES = 8 * _MIB


def baseline_bytes() -> tuple[int, int]:
    """(address space, private data) of this process in bytes: what a job finds already used."""
    values = {}
    with open("/proc/self/status") as file:
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


def set_for_call(memory_bytes: int, processes: int, baseline: tuple[int, int], cgroup_limits: list[str]) -> None:
    """Limits of one call, on top of what the interpreter itself uses. 0 is no limit.

    ``cgroup_limits``: what a cgroup limits. Private data stays limited all the same: Python then raises MemoryError,
    which says more than a killed process.
    """
    if memory_bytes:
        size, data = baseline
        _lower(resource.RLIMIT_DATA, data + memory_bytes)
        if "memory" not in cgroup_limits:
            _lower(resource.RLIMIT_AS, size + 2 * memory_bytes + _ADDRESS_SPACE_SLACK_BYTES)
    if processes and "processes" not in cgroup_limits:
        _lower(resource.RLIMIT_NPROC, processes + PROCESS_SLACK, 0)


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
