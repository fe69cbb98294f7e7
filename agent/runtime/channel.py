"""The worker's end of its channel to the launcher: work comes in, progress and one result go out.

It is a unix stream socket of this worker alone. Nothing that a job prints goes here, so text cannot forge a result.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

import frames

# After the set-up of a worker its channel is this descriptor; 0 to 2 are the standard streams.
FD = 3

_lock = allocate_lock()


def send(header: dict, body: bytes = b"") -> None:
    """Writes one whole frame; safe to call from any thread. A launcher that is gone ends the process."""
    data = frames.encode(header, body)
    with _lock:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(FD, view) :]
            except BrokenPipeError:
                os._exit(1)


def receive() -> tuple[dict, bytes, bytes]:
    """The next work as (header, code, input). Ends the process when the launcher has closed the channel."""
    data = os.read(FD, 16 * 1024)
    while True:
        if not data:
            os._exit(0)
        if len(data) >= frames.PREFIX.size:
            head, body = frames.PREFIX.unpack_from(data)
            if len(data) >= frames.PREFIX.size + head + body:
                break
            data += _read_exactly(frames.PREFIX.size + head + body - len(data))
        else:
            data += os.read(FD, frames.PREFIX.size - len(data)) or sys.exit(0)
    header = frames.parse_header(data[8 : 8 + head])
    code_at = 8 + head + header.get("prelude_bytes", 0)
    code_end = code_at + header.get("code_bytes", 0)
    return header, data[code_at:code_end], data[code_end:]


def _read_exactly(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(FD, min(count, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
