"""What runs first in the sandbox of an environment with an interpreter of its own: the host's interpreter.

A build may have replaced the environment's own, or what that reads before it runs the runtime. So everything that takes
rights is done before it starts, and the filter that holds for packages holds for it from its first instruction.

``sandbox_entry.py PYTHON ARGUMENT…`` with the launcher's socket as descriptor 3. The first message on it is ``M`` with
the socket of the process that makes network namespaces; what comes after that is for PYTHON.
"""

from __future__ import annotations

import array
import os
import socket
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import limits
import namespaces
import network_maker
import seccomp

_CONTROL_FD = 3


def give_up_rights() -> None:
    """Nothing that is executed from here on can gain a capability."""
    namespaces.drop_bounding_set()
    namespaces.run([namespaces.call("prctl", namespaces.PR_SET_NO_NEW_PRIVS, 1)])


def shut_in(maker: int, inherited: bool = False) -> None:
    """Starts the maker of network namespaces on its socket, and keeps what forking calls takes, for good.

    ``inherited``: what is executed keeps it too.
    """
    network_maker.start(maker)
    memory = namespaces.Memory()
    only = namespaces.keep_capabilities(memory, namespaces.CAP_SYS_ADMIN, inherited=inherited)
    namespaces.run([only, namespaces.install_filter(memory, seccomp.build(seccomp.ZYGOTE))])


def main() -> None:
    """Becomes PYTHON; ends when the launcher is gone."""
    argv = sys.argv[1:]
    give_up_rights()
    limits.set_fixed()
    maker = _receive_maker()
    if maker is None:
        return
    shut_in(maker, inherited=True)
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        sys.exit(f"cannot start {argv[0]}: {error.strerror}")


def _receive_maker() -> int | None:
    control = socket.socket(fileno=_CONTROL_FD)
    try:
        _, ancillary, _, _ = control.recvmsg(1, 64, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        ancillary = []
    control.detach()
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return fds[0] if fds else None


if __name__ == "__main__":
    main()
