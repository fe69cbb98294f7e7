"""Makes the network namespaces of calls with network access: a process beside the zygote, forked before it imports
anything of an environment, so that only it has CAP_NET_ADMIN and the listening sockets.

On its socket (SOCK_SEQPACKET), a request is a worker's number, ``u32``; the answer is the number and two descriptors,
the namespace and a socket that listens in it where the proxy variables point, or the number and a text.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

import namespaces

# Where calls find the way out, in their own namespace.
PROXY_PORT = 3128

_NUMBER = struct.Struct("=I")
_SIOCSIFFLAGS = 0x8914
_UP = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
_BACKLOG = 128


def start(control: int) -> None:
    """Forks it; the descriptor is its own from then on."""
    if os.fork() == 0:
        try:
            os.dup2(control, 3)
            namespaces.run([namespaces.call("close_range", 4, 0xFFFFFFFF)])
            _serve(socket.socket(fileno=3))
        finally:
            os._exit(0)
    os.close(control)


def set_loopback_up() -> None:
    """In a new network namespace. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _UP)


def _serve(control: socket.socket) -> None:
    while True:
        request = control.recv(_NUMBER.size)
        if not request:
            return
        try:
            fds = _make()
        except OSError as error:
            control.send(request + str(error).encode()[:200])
            continue
        control.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        for fd in fds:
            os.close(fd)


def _make() -> list[int]:
    """This process changes to the new namespace, and leaves it with the next one."""
    namespaces.run([namespaces.call("unshare", namespaces.CLONE_NEWNET)])
    set_loopback_up()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", PROXY_PORT))
        listener.listen(_BACKLOG)
        return [os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), listener.detach()]
    finally:
        listener.close()
