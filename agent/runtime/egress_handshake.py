"""What a client asks the egress proxy for, and the answers: HTTP/1.1 (CONNECT, absolute-form), SOCKS5 (RFC 1928)."""

from __future__ import annotations

import asyncio
import ipaddress
import struct

from network_policy import split_port

_HEAD_BYTES = 64 * 1024
_SOCKS_VERSION = 5
_SOCKS_CONNECT = 1
_SOCKS_OK, _SOCKS_FAILED, _SOCKS_DENIED, _SOCKS_UNREACHABLE, _SOCKS_NO_COMMAND, _SOCKS_NO_TYPE = 0, 1, 2, 4, 7, 8
_HOP_BY_HOP = ("connection", "proxy-connection", "proxy-authorization", "keep-alive")


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

    async def refuse(self, writer: asyncio.StreamWriter, why: Exception) -> None:
        await _answer(writer, 403, why)

    async def fail(self, writer: asyncio.StreamWriter, why: Exception) -> None:
        await _answer(writer, 502, why)


class Forward(Connect):
    """A plain HTTP request, passed on with its connection closed after the answer."""

    tunnel = False

    def __init__(self, method: str, host: str, port: int, path: str, headers: list[str]) -> None:
        super().__init__(host, port)
        self._method, self._path, self._headers = method, path, headers

    async def accept(self, writer: asyncio.StreamWriter, far: asyncio.StreamWriter, upstream: object) -> None:
        target, extra = self._path, []
        if upstream is not None:
            host = f"[{self.host}]" if ":" in self.host else self.host
            target, extra = f"http://{host}:{self.port}{self._path}", upstream.authorization
        lines = [f"{self._method} {target} HTTP/1.1", *self._headers, *extra, "Connection: close", "", ""]
        far.write("\r\n".join(lines).encode("latin-1"))
        await far.drain()


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


def _parse_http(head: str) -> Connect:
    request, *headers = head[:-4].split("\r\n")
    words = request.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(_page(400, "Not a request of HTTP/1.1"))
    method, target, _ = words
    try:
        if method == "CONNECT":
            host, port = split_port(target)
            if port is None:
                raise ValueError(target)
            return Connect(_normal(host), port)
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() != "http":
            raise BadRequest(_page(400, "This is a proxy: it takes CONNECT and absolute http:// addresses"))
        authority, slash, path = rest.partition("/")
        if not slash and "?" in authority:
            authority, _, query = authority.partition("?")
            path = "?" + query
        host, port = split_port(authority.rpartition("@")[2])
    except ValueError:
        raise BadRequest(_page(400, "The address is not a host and a port")) from None
    kept = [line for line in headers if line.partition(":")[0].strip().lower() not in _HOP_BY_HOP]
    return Forward(method, _normal(host), port or 80, "/" + path, kept)


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
    return Socks(_normal(host), port)


def _normal(host: str) -> str:
    """Raises ValueError for what cannot be a host's name or address."""
    host = host.lower()
    host = host[:-1] if host.endswith(".") else host
    if not host or len(host) > 255 or not all(character.isalnum() or character in "-._:" for character in host):
        raise ValueError(host)
    if not host.isascii():
        raise ValueError(host)
    return host


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
