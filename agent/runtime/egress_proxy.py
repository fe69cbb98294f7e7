#!/usr/bin/env python3
"""The way out of calls with network access: an HTTP and SOCKS5 proxy that applies each call's policy.

One process beside the launcher, in a sandbox but for the network. Its control socket (SOCK_SEQPACKET, descriptor 3)
gets JSON objects: first ``{"https", "http", "no_proxy"}``, the proxy that the host itself needs; then ``{"open": N,
"mode", "hosts"}`` with a listening socket in a call's network namespace, and ``{"close": N}``, which ends all of its
connections.
"""

from __future__ import annotations

import array
import asyncio
import encodings.idna  # noqa: F401  (looked up by name when a host is resolved)
import json
import os
import socket
import sys
from collections.abc import Coroutine

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from egress_dial import Dialer, Failed, Refused, Upstream
from egress_handshake import BadRequest, read_request
from egress_http import copy_all
from network_policy import Policy

_CONTROL_FD = 3
_CONTROL_BYTES = 256 * 1024
# More wait in the backlog until one ends.
_CONNECTIONS = 128
_HANDSHAKE_S = 30.0
_BLOCK_BYTES = 64 * 1024


class Gate:
    """One call's listener and its connections."""

    def __init__(self, listener: socket.socket, dialer: Dialer) -> None:
        self._listener, self._dialer = listener, dialer
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task] = set()
        self._accepting = False
        listener.setblocking(False)
        self._accept_more()

    def close(self) -> None:
        if self._accepting:
            self._loop.remove_reader(self._listener)
            self._accepting = False
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        self._dialer.close()

    def _accept_more(self) -> None:
        if not self._accepting and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)
            self._accepting = True

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors, or a listener that is none: not to be tried again at once.
            self._pause()
            self._loop.call_later(1, self._accept_more)
            return
        task = self._loop.create_task(_serve(connection, self._dialer))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        if len(self._tasks) >= _CONNECTIONS:
            self._pause()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)
        self._accepting = False

    def _on_done(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        self._accept_more()


async def _serve(connection: socket.socket, dialer: Dialer) -> None:
    """One connection of a call, from its first byte to its end. Raises nothing but cancellation."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_BLOCK_BYTES)
        request = await asyncio.wait_for(read_request(reader, writer), _HANDSHAKE_S)
        try:
            far_reader, far_writer = await dialer.dial(request.host, request.port, request.tunnel)
        except Refused as refused:
            await request.refuse(writer, refused)
            return
        except Failed as failed:
            await request.fail(writer, failed)
            return
        try:
            await request.accept(writer, far_writer, dialer.upstream_for(request.host, request.tunnel))
            await _relay(request.pass_on(reader, far_writer), copy_all(far_reader, writer))
        finally:
            far_writer.transport.abort()
    except BadRequest as fault:
        await fault.answer(writer)
    except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError, ValueError):
        pass  # whoever was there has gone, or speaks neither HTTP nor SOCKS
    finally:
        if writer is None:
            connection.close()
        else:
            writer.close()


async def _relay(*directions: Coroutine) -> None:
    """Until both directions have ended, or one has failed."""
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class Proxy:
    """The gates of all calls, moved by the control socket."""

    def __init__(self, done: asyncio.Future) -> None:
        self._control = socket.socket(fileno=_CONTROL_FD)
        self._control.setblocking(False)
        self._done = done
        self._upstream: Upstream | None = None
        self._gates: dict[int, Gate] = {}
        asyncio.get_running_loop().add_reader(self._control, self._on_control)

    def _on_control(self) -> None:
        message, ancillary, _, _ = self._control.recvmsg(_CONTROL_BYTES, 64, socket.MSG_CMSG_CLOEXEC)
        if not message:
            self._done.set_result(None)
            return
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        fields = json.loads(message)
        if "open" in fields:
            dialer = Dialer(Policy(fields["mode"], fields.get("hosts", [])), self._upstream)
            self._gates[fields["open"]] = Gate(socket.socket(fileno=fds[0]), dialer)
        elif "close" in fields:
            gate = self._gates.pop(fields["close"], None)
            if gate:
                gate.close()
        else:
            self._upstream = Upstream(fields)


async def _main() -> None:
    done = asyncio.get_running_loop().create_future()
    proxy = Proxy(done)
    await done
    del proxy


if __name__ == "__main__":
    asyncio.run(_main())
