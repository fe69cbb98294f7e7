"""HTTP/1.1 as strictly as RFC 9112 writes it: heads are taken apart and built anew, bodies are passed by their framing.

A proxy that passes on what it has not understood lets one request hide another one, to a host that nobody has checked.
"""

from __future__ import annotations

import asyncio
import re

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
# Of the absolute form; what follows `#` is no part of a request.
_TARGET = re.compile(r"http://([0-9a-z._~!$&'()*+,;=:@%\[\]-]+)((?:[/?][^#]*)?)", re.IGNORECASE)
# Enough for any length that fits 63 bits.
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?\r\n")
# For one connection only (RFC 9110, 7.6.1), and the framing and the host, which a rebuilt head states itself.
_DROPPED = frozenset(
    ("connection", "proxy-connection", "proxy-authorization", "keep-alive", "te", "upgrade", "http2-settings")
    + ("host", "content-length", "transfer-encoding")
)
_BLOCK_BYTES = 64 * 1024


class Malformed(ValueError):
    """The message says what is wrong with the request."""


class Head:
    """A request's head: ``method``, ``target`` as it came, and the fields to pass on; ``body`` is its framing."""

    def __init__(self, text: str) -> None:
        """``text`` ends with the empty line, as latin-1. Raises Malformed."""
        request, *lines = text[:-4].split("\r\n")
        words = _REQUEST_LINE.fullmatch(request)
        if words is None:
            raise Malformed("Not a request of HTTP/1.1")
        self.method, self.target, minor = words.groups()
        fields = [_field(line) for line in lines]
        self.body = _framing(fields, minor)
        listed = {name.strip().lower() for value in _values(fields, "connection") for name in value.split(",")}
        dropped = _DROPPED | listed
        self._fields = [f"{name}: {value}" for name, value in fields if name.lower() not in dropped]

    def absolute_target(self) -> tuple[str, str]:
        """(authority, path with its query). Raises Malformed for a target that is no absolute http:// address."""
        parts = _TARGET.fullmatch(self.target)
        if parts is None:
            raise Malformed("This is a proxy: it takes CONNECT and absolute http:// addresses")
        authority, path = parts.groups()
        return authority.rpartition("@")[2], path if path.startswith("/") else "/" + path

    def rebuilt(self, target: str, host: str, extra: list[str]) -> bytes:
        """The head to send: for one request only, its Host that of the target (RFC 9112, 3.2.2)."""
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {host}", *self._fields, *self.body.fields, *extra]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


class _Sized:
    """A body of as many bytes; None: the request says nothing, and has no body."""

    def __init__(self, length: int | None) -> None:
        self.fields = [] if length is None else [f"Content-Length: {length}"]
        self._left = length or 0

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _copy_exactly(reader, writer, self._left)


class _Chunked:
    """Chunks are written anew: without extensions and trailers, so that what is read is what the next one reads."""

    fields = ("Transfer-Encoding: chunked",)

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = _CHUNK_HEAD.fullmatch(await reader.readuntil(b"\r\n"))
            if head is None:
                raise Malformed("A chunk begins with its size")
            size = int(head[1], 16)
            if size == 0:
                break
            writer.write(b"%x\r\n" % size)
            await _copy_exactly(reader, writer, size)
            if await reader.readexactly(2) != b"\r\n":
                raise Malformed("A chunk ends with CRLF")
            writer.write(b"\r\n")
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            _field(line[:-2].decode("latin-1"))
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _field(line: str) -> tuple[str, str]:
    """(name, value). Raises Malformed, also for a folded line, and whitespace before the colon."""
    parts = _FIELD.fullmatch(line)
    if parts is None:
        raise Malformed("A field of the request is malformed")
    return parts[1], parts[2].strip(" \t")


def _values(fields: list[tuple[str, str]], wanted: str) -> list[str]:
    return [value for name, value in fields if name.lower() == wanted]


def _framing(fields: list[tuple[str, str]], minor: str) -> _Sized | _Chunked:
    """Where the request ends (RFC 9112, 6). Raises Malformed where two readers could differ about it."""
    lengths, codings = _values(fields, "content-length"), _values(fields, "transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed("The request states its length more than once")
    if len(_values(fields, "host")) > 1:
        raise Malformed("The request has more than one Host")
    if codings:
        if minor == "0" or codings[0].lower() != "chunked":
            raise Malformed("The only Transfer-Encoding is chunked, of HTTP/1.1")
        return _Chunked()
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("Content-Length is not a number of bytes")
    return _Sized(int(lengths[0]) if lengths else None)


async def _copy_exactly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Raises IncompleteReadError when the client ends before."""
    left = size
    while left:
        data = await reader.read(min(left, _BLOCK_BYTES))
        if not data:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(data)
        writer.write(data)
        await writer.drain()


async def copy_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of what is read, which is passed on."""
    while data := await reader.read(_BLOCK_BYTES):
        writer.write(data)
        await writer.drain()
    end(writer)


def end(writer: asyncio.StreamWriter) -> None:
    """Nothing more will be written; TLS has no such half."""
    if writer.can_write_eof():
        writer.write_eof()
