"""Frames, as on the agent's socket and on the channel between the launcher and a worker.

A frame is ``u32 header length, u32 body length`` (big-endian), a JSON object, raw bytes. See docs/launcher-protocol.md.
"""

from __future__ import annotations

import os
import struct

import fast_json

PREFIX = struct.Struct("!II")
MAX_HEADER_BYTES = 1 << 20
MAX_BODY_BYTES = 24 << 20


class FrameError(ValueError):
    """The peer sent something that is not a frame; the message says what."""


def dump_header(header: dict) -> bytes:
    """The header's JSON as UTF-8; lone surrogates become ``?`` so that no text can make a frame unsendable."""
    return fast_json.encode(header).encode("utf-8", "replace")


def encode(header: dict, body: bytes = b"") -> bytes:
    """One whole frame."""
    head = dump_header(header)
    return PREFIX.pack(len(head), len(body)) + head + body


def frame_length(prefix: bytes | memoryview, offset: int, max_body: int = MAX_BODY_BYTES) -> tuple[int, int]:
    """Header and body length announced at ``offset``. Raises FrameError when they are out of bounds."""
    head, body = PREFIX.unpack_from(prefix, offset)
    if head > MAX_HEADER_BYTES:
        raise FrameError(f"header of {head} bytes, at most {MAX_HEADER_BYTES}")
    if body > max_body:
        raise FrameError(f"body of {body} bytes, at most {max_body}")
    return head, body


def parse_header(raw: bytes | memoryview) -> dict:
    """The header as a dict with a text ``type``. Raises FrameError otherwise."""
    try:
        header = fast_json.decode(str(raw, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"header is not JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise FrameError("header is not an object with a type")
    return header


class FrameReader:
    """Cuts frames out of a byte stream, in place: the views it hands out are valid until the next ``fill``."""

    def __init__(self, capacity: int = 256 * 1024, max_body: int = MAX_BODY_BYTES) -> None:
        self._capacity = capacity
        self._max_body = max_body
        self._view = memoryview(bytearray(capacity))
        self._start = 0
        self._end = 0

    def fill(self, fd: int) -> int:
        """Reads once. Returns the bytes read, 0 at the end of the stream. Raises BlockingIOError."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._view) > self._capacity:
                self._view = memoryview(bytearray(self._capacity))
        elif self._end == len(self._view):
            self._make_room()
        count = os.readv(fd, [self._view[self._end :]])
        self._end += count
        return count

    def _make_room(self) -> None:
        """Moves the incomplete frame to the front of a buffer that holds all of it."""
        pending = bytes(self._view[self._start : self._end])
        size = self._capacity
        if len(pending) >= PREFIX.size:
            head, body = frame_length(pending, 0, self._max_body)
            size = max(size, PREFIX.size + head + body)
        if size != len(self._view):
            self._view = memoryview(bytearray(size))
        self._view[: len(pending)] = pending
        self._start, self._end = 0, len(pending)

    def next(self) -> tuple[memoryview, dict, memoryview] | None:
        """The next whole frame as (frame, header, body), or None. Raises FrameError."""
        start = self._start
        if self._end - start < PREFIX.size:
            return None
        head, body = frame_length(self._view, start, self._max_body)
        header_at = start + PREFIX.size
        body_at = header_at + head
        end = body_at + body
        if end > self._end:
            return None
        self._start = end
        header = parse_header(self._view[header_at:body_at])
        return self._view[start:end], header, self._view[body_at:end]
