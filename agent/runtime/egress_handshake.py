"""What a client asks the egress proxy for, and the answers: HTTP/1.1 (CONNECT, absolute-form), SOCKS5 (RFC 1928)."""

from __future__ import annotations

import asyncio
import ipaddress
import struct

from egress_http import Head, Malformed, copy_all, end
from network_policy import canonical, split_port

_HEAD_BYTES = 64 * 1024
_SOCKS_VERSION = 5
_SOCKS_CONNECT = 1
_SOCKS_OK, _SOCKS_FAILED, _SOCKS_DENIED, _SOCKS_UNREACHABLE, _SOCKS_NO_COMMAND, _SOCKS_NO_TYPE = 0, 1, 2, 4, 7, 8


class BadRequest(Exception):
    """A request that cannot be understood; carries the answer."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self._reply = reply

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._reply)
        await writer.drain()


class Connect:
    """CONNECT: a tunnel."""

    tunnel = True

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    async def accept(self, writer: asyncio.StreamWriter, far: asyncio.StreamWriter, upstream: object) -> None:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()

    async def pass_on(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        """What the client sends after its request, to its end."""
        await copy_all(reader, far)

    async def refuse(self, writer: asyncio.StreamWriter, why: Exception) -> None:
        await _answer(writer, 403, why)

    async def fail(self, writer: asyncio.StreamWriter, why: Exception) -> None:
        await _answer(writer, 502, why)


class Forward(Connect):
    """A plain HTTP request, the only one of its connection, which is closed after the answer."""

    tunnel = False

    def __init__(self, head: Head, host: str, port: int, path: str) -> None:
        super().__init__(host, port)
        self._head, self._path = head, path

    async def accept(self, writer: asyncio.StreamWriter, far: asyncio.StreamWriter, upstream: object) -> None:
        name = f"[{self.host}]" if ":" in self.host else self.host
        target, extra = self._path, []
        if upstream is not None:
            target, extra = f"http://{name}:{self.port}{self._path}", upstream.authorization
        far.write(self._head.rebuilt(target, name if self.port == 80 else f"{name}:{self.port}", extra))
        await far.drain()

    async def pass_on(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        """The body. Nobody has checked where a request behind it would go: that is read and forgotten."""
        await self._head.body.copy(reader, far)
        while await reader.read(_HEAD_BYTES):
            pass
        end(far)


class Socks(Connect):
    """SOCKS5 CONNECT."""

    async def accept(self, writer: asyncio.StreamWriter, far: asyncio.StreamWriter, upstream: object) -> None:
        writer.write(_socks_reply(_SOCKS_OK))
        await writer.drain()

    async def refuse(self, writer: asyncio.StreamWriter, why: Exception) -> None:
        writer.write(_socks_reply(_SOCKS_DENIED))
        await writer.drain()

    async def fail(self, writer: asyncio.StreamWriter, why: Exception) -> None:
        writer.write(_socks_reply(_SOCKS_UNREACHABLE))
        await writer.drain()


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connect:
    """Raises BadRequest, or what reading raises."""
    first = await reader.readexactly(1)
    if first[0] == _SOCKS_VERSION:
        return await _read_socks(reader, writer)
    try:
        head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise BadRequest(_page(431, f"The request's head has more than {_HEAD_BYTES} bytes")) from None
    return _parse_http(head.decode("latin-1"))


def _parse_http(text: str) -> Connect:
    try:
        head = Head(text)
        if head.method == "CONNECT":
            host, port = split_port(head.target)
            if port is None:
                raise ValueError(head.target)
            return Connect(canonical(host), port)
        authority, path = head.absolute_target()
        host, port = split_port(authority)
        return Forward(head, canonical(host), port or 80, path)
    except Malformed as error:
        raise BadRequest(_page(400, str(error))) from None
    except ValueError:
        raise BadRequest(_page(400, "The address is not a host and a port")) from None


async def _read_socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Socks:
    methods = await reader.readexactly((await reader.readexactly(1))[0])
    if 0 not in methods:
        raise BadRequest(bytes((_SOCKS_VERSION, 0xFF)))
    writer.write(bytes((_SOCKS_VERSION, 0)))
    await writer.drain()
    version, command, _, kind = await reader.readexactly(4)
    if kind == 1:
        host = str(ipaddress.IPv4Address(await reader.readexactly(4)))
    elif kind == 4:
        host = str(ipaddress.IPv6Address(await reader.readexactly(16)))
    elif kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode("latin-1")
    else:
        raise BadRequest(_socks_reply(_SOCKS_NO_TYPE))
    port = struct.unpack("!H", await reader.readexactly(2))[0]
    if version != _SOCKS_VERSION or command != _SOCKS_CONNECT:
        raise BadRequest(_socks_reply(_SOCKS_NO_COMMAND))
    try:
        host = canonical(host)
        if port == 0:
            raise ValueError(port)
    except ValueError:
        raise BadRequest(_socks_reply(_SOCKS_FAILED)) from None
    return Socks(host, port)


def _socks_reply(code: int) -> bytes:
    return bytes((_SOCKS_VERSION, code, 0, 1)) + bytes(6)


async def _answer(writer: asyncio.StreamWriter, status: int, why: Exception) -> None:
    writer.write(_page(status, str(why)))
    await writer.drain()


def _page(status: int, text: str) -> bytes:
    """The text is the reason phrase too: of a refused CONNECT most clients show nothing else."""
    line = " ".join(text.split()).encode("ascii", "replace").decode()
    body = f"harrier: {line}\n"
    fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status} {line}\r\n{fields}\r\n{body}".encode()
