"""The seccomp filters of jobs and of zygotes, as classic BPF, without libseccomp.

A job's denies what only makes sense for taking a sandbox apart: mounts, new namespaces, tracing other processes, kernel
modules, BPF, io_uring, key rings, file handles; and reserving disk space without writing to it, which would fill the
disk of a build at once, before anybody sees it. A zygote that imports a tenant's packages runs under the same filter
but for what it needs to fork jobs: mounting, and changing to the namespaces that jobs get. A filter is a binary search
over system call numbers, because the kernel runs it once for every number when it is installed and after that on every
call that it does not always allow.

Layout of the input: ``struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }``.
"""

from __future__ import annotations

import errno
import os
import struct

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_ALLOW = 0x7FFF0000

_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24

# CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
_NEW_NAMESPACES = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
# What ``zygote`` and ``child`` ask for: the PID namespace by itself, the mount and IPC namespaces together.
_ZYGOTE_UNSHARES = (0x20000000, 0x00020000 | 0x08000000)
_ZYGOTE_JOINS = (0x20000000, 0x40000000)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# FS_IOC_RESVSP, FS_IOC_RESVSP64, FS_IOC_ZERO_RANGE: other names of fallocate.
_RESERVE_SPACE = (0x40305828, 0x4030582A, 0x40305839)
_PUNCH_HOLE = 0x02
_SOCKET_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink; not vsock, packet, alg, …
_PERSONALITY_QUERY = 0xFFFFFFFF

_COMMON_DENIED = (
    [425, 426, 427]  # io_uring
    + [428, 429, 430, 431, 432, 433, 442, 467]  # open_tree … fspick, mount_setattr, open_tree_attr
    + [438, 443]  # pidfd_getfd, quotactl_fd
)

# name: (audit arch, x32 bit or None, denied numbers, numbers by name where arguments or the kind of filter decide)
_ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        0x40000000,
        # mount umount2 pivot_root chroot unshare setns ptrace process_vm_* kcmp bpf perf_event_open userfaultfd
        [165, 166, 155, 161, 272, 308, 101, 310, 311, 312, 321, 298, 323]
        # add_key request_key keyctl kexec_* modules reboot swap acct syslog quotactl
        + [248, 249, 250, 246, 320, 174, 175, 176, 177, 178, 313, 169, 167, 168, 163, 103, 179]
        # file handles, fanotify, clocks, host names, ports, and calls that are only there for old programs
        + [303, 304, 300, 301, 164, 227, 159, 305, 170, 171, 172, 173, 212, 180, 153, 154, 134, 156],
        {
            "clone": 56,
            "clone3": 435,
            "ioctl": 16,
            "fallocate": 285,
            "socket": 41,
            "personality": 135,
            "mount": 165,
            "unshare": 272,
            "setns": 308,
        },
    ),
    "aarch64": (
        0xC00000B7,
        None,
        [40, 39, 41, 51, 97, 268, 117, 270, 271, 272, 280, 241, 282]
        + [217, 218, 219, 104, 294, 105, 106, 273, 142, 224, 225, 89, 116, 60]
        + [264, 265, 262, 263, 170, 112, 171, 266, 161, 162, 18, 42, 58],
        {
            "clone": 220,
            "clone3": 435,
            "ioctl": 29,
            "fallocate": 47,
            "socket": 198,
            "personality": 92,
            "mount": 40,
            "unshare": 97,
            "setns": 268,
        },
    ),
}


JOB, ZYGOTE = "job", "zygote"


def build(kind: str = JOB, machine: str | None = None) -> bytes:
    """The filter's instructions for this machine. Raises OSError (ENOSYS) on an architecture that has no table."""
    machine = machine or os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp table for {machine}")
    audit_arch, x32_bit, denied, special = _ARCHITECTURES[machine]
    actions = {number: _deny(errno.EPERM) for number in [*denied, *_COMMON_DENIED]}
    actions[special["clone3"]] = _deny(errno.ENOSYS)  # its flags are behind a pointer; libc falls back to clone
    actions[special["clone"]] = _deny_if_any_bit(_ARG0, _NEW_NAMESPACES)
    actions[special["ioctl"]] = _deny_if_in(_ARG1, (_TIOCSTI, _TIOCLINUX, *_RESERVE_SPACE), errno.EPERM)
    # libc writes instead. What only gives space back is no harm.
    actions[special["fallocate"]] = _deny_unless_any_bit(_ARG1, _PUNCH_HOLE, errno.EOPNOTSUPP)
    actions[special["socket"]] = _deny_unless_in(_ARG0, _SOCKET_FAMILIES, errno.EAFNOSUPPORT)
    if kind == ZYGOTE:
        del actions[special["mount"]]
        actions[special["unshare"]] = _deny_unless_in(_ARG0, _ZYGOTE_UNSHARES, errno.EPERM)
        actions[special["setns"]] = _deny_unless_in(_ARG1, _ZYGOTE_JOINS, errno.EPERM)
    actions[special["personality"]] = _deny_unless_in(_ARG0, (0, _PERSONALITY_QUERY), errno.EPERM)
    program = [_op(_LOAD, _ARCH), _op(_EQUAL, audit_arch, 1, 0), _op(_RETURN, _KILL_PROCESS), _op(_LOAD, _NR)]
    if x32_bit is not None:
        program += [_op(_AT_LEAST, x32_bit, 0, 1), _op(_RETURN, _KILL_PROCESS)]
    program += _search(_intervals(actions))
    return b"".join(program)


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


def _deny(number: int) -> list[bytes]:
    return [_op(_RETURN, _ERRNO | number)]


def _deny_if_any_bit(arg: int, mask: int) -> list[bytes]:
    return [_op(_LOAD, arg), _op(_ANY_BIT, mask, 0, 1), *_deny(errno.EPERM), _op(_RETURN, _ALLOW)]


def _deny_unless_any_bit(arg: int, mask: int, number: int) -> list[bytes]:
    return [_op(_LOAD, arg), _op(_ANY_BIT, mask, 1, 0), *_deny(number), _op(_RETURN, _ALLOW)]


def _deny_if_in(arg: int, values: tuple[int, ...], number: int) -> list[bytes]:
    tests = [_op(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [_op(_LOAD, arg), *tests, _op(_RETURN, _ALLOW), *_deny(number)]


def _deny_unless_in(arg: int, values: tuple[int, ...], number: int) -> list[bytes]:
    tests = [_op(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [_op(_LOAD, arg), *tests, *_deny(number), _op(_RETURN, _ALLOW)]


def _intervals(actions: dict[int, list[bytes]]) -> list[tuple[int, list[bytes]]]:
    """(first number, what happens from it on): all numbers, neighbours with the same answer as one."""
    allow = [_op(_RETURN, _ALLOW)]
    found = [(0, allow)]
    for number in sorted({*actions, *(number + 1 for number in actions)}):
        action = actions.get(number, allow)
        if action != found[-1][1]:
            found.append((number, action))
    return found


def _search(intervals: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """Binary search for the interval of the loaded number."""
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    left, right = _search(intervals[:middle]), _search(intervals[middle:])
    if len(left) > 255:  # a jump's distance is one byte; a longer one goes through an unconditional jump
        return [_op(_AT_LEAST, intervals[middle][0], 0, 1), _op(0x05, len(left)), *left, *right]
    return [_op(_AT_LEAST, intervals[middle][0], len(left), 0), *left, *right]
