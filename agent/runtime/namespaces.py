"""System calls that Python does not wrap, through one ctypes function. Linux only.

A child of the zygote pays about 2 µs for every page that it is the first to write, and in CPython using an object
writes to it. So what children do is prepared in the zygote as plain numbers, and goes through one function.
"""

from __future__ import annotations

import ctypes
import errno
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CAP_SYS_ADMIN = 21

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_IONBF = 2
_SECCOMP_SET_MODE_FILTER = 1
_LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1
_CAPABILITY_VERSION_3 = 0x20080522

_NUMBERS = {
    "x86_64": {
        "capset": 126,
        "chdir": 80,
        "close_range": 436,
        "landlock_create_ruleset": 444,
        "landlock_restrict_self": 446,
        "mount": 165,
        "pidfd_open": 434,
        "prctl": 157,
        "seccomp": 317,
        "setns": 308,
        "setsid": 112,
        "unshare": 272,
    },
    "aarch64": {
        "capset": 91,
        "chdir": 49,
        "close_range": 436,
        "landlock_create_ruleset": 444,
        "landlock_restrict_self": 446,
        "mount": 40,
        "pidfd_open": 434,
        "prctl": 167,
        "seccomp": 277,
        "setns": 268,
        "setsid": 157,
        "unshare": 97,
    },
}
_UNKNOWN = "system calls are known for x86_64 and aarch64 only"

libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc.syscall
_syscall.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * 5
_syscall.restype = ctypes.c_long

Call = tuple  # (name, number, five arguments)


def call(name: str, *arguments: int) -> Call:
    """A system call as data, for ``run``; missing arguments are 0."""
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, _UNKNOWN)
    return (name, numbers[name], *arguments, *(0,) * (5 - len(arguments)))


def run(calls: list[Call]) -> None:
    """Makes the calls in order. Raises OSError, naming the one that failed."""
    for name, *arguments in calls:
        if _syscall(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")


class Memory:
    """Bytes at fixed addresses, for the arguments of prepared calls; they live as long as this object."""

    def __init__(self) -> None:
        self._buffers: list[ctypes.Array] = []

    def address(self, data: bytes) -> int:
        buffer = ctypes.create_string_buffer(data, len(data) + 1)
        self._buffers.append(buffer)
        return ctypes.addressof(buffer)


def mount_tmpfs(memory: Memory, target: bytes, size_bytes: int) -> Call:
    """An empty private tmpfs of at most that size; inodes are bounded too, so that empty files cannot eat memory."""
    options = b"size=%d,nr_inodes=%d,mode=1777" % (size_bytes, max(1024, size_bytes // 4096))
    tmpfs = memory.address(b"tmpfs")
    return call("mount", tmpfs, memory.address(target), tmpfs, _MS_NOSUID | _MS_NODEV, memory.address(options))


def mount_proc(memory: Memory) -> Call:
    """/proc of the caller's own PID namespace."""
    proc = memory.address(b"proc")
    return call("mount", proc, memory.address(b"/proc"), proc, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def drop_capabilities(memory: Memory) -> Call:
    """Gives up every effective, permitted and inheritable capability; ambient ones go with them."""
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)  # pid 0: the caller
    return call("capset", memory.address(header), memory.address(bytes(24)))


def keep_capabilities(memory: Memory, *kept: int, inherited: bool = False) -> Call:
    """Gives up every capability but these, whose numbers are below 32.

    ``inherited``: what is executed keeps those of these that are ambient; else it has none.
    """
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    mask = sum(1 << number for number in kept).to_bytes(4, "little")
    # Effective, permitted, inheritable; then the same for the upper 32.
    data = mask + mask + (mask if inherited else bytes(4)) + bytes(12)
    return call("capset", memory.address(header), memory.address(data))


def install_filter(memory: Memory, program: bytes) -> Call:
    """Filters the caller's system calls for good. Needs no_new_privs. ``program``: BPF instructions of 8 bytes."""
    # struct sock_fprog {unsigned short len; struct sock_filter *filter;}
    fprog = (len(program) // 8).to_bytes(8, "little") + memory.address(program).to_bytes(8, "little")
    return call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, memory.address(fprog))


def pidfd_open(pid: int) -> int:
    """``os.pidfd_open``, also in interpreters that were built with old headers. Raises OSError."""
    return _result("pidfd_open", pid)


def scope_ruleset(memory: Memory) -> int | None:
    """Descriptor of a Landlock ruleset that takes abstract unix sockets of others out of reach (Linux 6.12).

    Each process that restricts itself by it is on its own, with its children. None where the kernel has no such rules.
    """
    # struct landlock_ruleset_attr {u64 handled_access_fs, handled_access_net, scoped;}
    attributes = bytes(16) + _LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET.to_bytes(8, "little")
    try:
        return _result("landlock_create_ruleset", memory.address(attributes), len(attributes))
    except OSError:
        return None


def _result(name: str, *arguments: int) -> int:
    _, *numbers = call(name, *arguments)
    value = _syscall(*numbers)
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return value


def drop_bounding_set() -> None:
    """Nothing executed from here on can gain a capability. Raises OSError without CAP_SETPCAP."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    run([call("prctl", PR_CAPBSET_DROP, capability) for capability in range(last + 1)])


def unbuffer_c_stdout() -> None:
    """What C code prints appears at once and in order with what Python prints, and needs no flush at the end."""
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _IONBF, 0)
