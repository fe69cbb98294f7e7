"""The system calls that Python does not wrap: namespaces, mounts, capabilities, prctl. Linux only, through ctypes."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8

PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SYS_CLOSE_RANGE = 436  # the same number on every architecture
_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
libc.syscall.restype = ctypes.c_long

# struct __user_cap_header_struct {version, pid}; pid 0 is the caller. Three empty __user_cap_data_struct words twice.
_cap_header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_no_caps = (ctypes.c_uint32 * 6)()


def check(result: int, what: str) -> None:
    """Raises OSError with errno and the name of the call that failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    check(libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    check(libc.setns(fd, kind), "setns")


def mount_tmpfs(target: bytes, size_bytes: int) -> None:
    """An empty private tmpfs of at most that size; inodes are bounded too, so that empty files cannot eat memory."""
    options = b"size=%d,nr_inodes=%d,mode=1777" % (size_bytes, max(1024, size_bytes // 4096))
    check(libc.mount(b"tmpfs", target, b"tmpfs", MS_NOSUID | MS_NODEV, options), f"mount tmpfs on {target.decode()}")


def mount_proc() -> None:
    """/proc of the caller's own PID namespace."""
    check(libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None), "mount /proc")


def prctl(option: int, a: int = 0, b: int = 0) -> None:
    check(libc.prctl(option, a, b, 0, 0), f"prctl {option}")


def drop_bounding_set() -> None:
    """Nothing executed from here on can gain a capability. Raises OSError without CAP_SETPCAP."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        prctl(PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Gives up every effective, permitted, inheritable and ambient capability of this thread."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    check(libc.capset(_cap_header, _no_caps), "capset")


def close_from(first: int) -> None:
    """Closes every descriptor from ``first`` on, whatever the limit on open files is."""
    if libc.syscall(_SYS_CLOSE_RANGE, first, 0xFFFFFFFF, 0) < 0:
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= first:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the descriptor of the listing itself
