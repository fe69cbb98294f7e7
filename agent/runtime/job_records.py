"""Where a job of a cluster leaves what its attempt prints and how it ends: one file, which its agent reads from afar.

The file holds the launcher's frames, each behind a ``u32`` CRC-32 of it (big-endian). It is only ever appended to, and
the agent has made it before: a network file system shows other hosts a longer file sooner than a new one. It may also
show them the length before the bytes, which is what the checksum is for.
"""

from __future__ import annotations

import os
import struct
import zlib

from attempt import Attempt, Stream
from spool import SpoolFull

_CHECKSUM = struct.Struct("!I")
_IGNORED = b'"type":"load"'
_FINISHED = b'"type":"finished"'
_SUCCEEDED = b'"outcome":"succeeded"'
_PREFIX_BYTES = 8
# How much of a header is looked at: its type comes first, and after the attempt's name how it ended.
_HEAD_BYTES = 32
_END_BYTES = 160


class Records:
    """Appends frames. What the disk does not take stays in memory and is tried again with each ``commit``."""

    def __init__(self, path: str, log: object) -> None:
        """Raises OSError when the agent has not made the file, or has removed it."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._path, self._log = path, log
        self._pending = bytearray()
        self.failure = ""  # why the disk did not take the last write; empty when it did
        self.finished = False  # the attempt's end is known, and written once it is released
        self._end = b""
        self.succeeded = False

    @property
    def complete(self) -> bool:
        """Whether the end, and all before it, is written."""
        return self.finished and not self._end and not self._pending

    def append(self, frame: bytes) -> None:
        kind = frame[_PREFIX_BYTES : _PREFIX_BYTES + _HEAD_BYTES]
        if _IGNORED in kind:
            return
        if _FINISHED in kind:
            self.finished, self.succeeded = True, _SUCCEEDED in frame[_PREFIX_BYTES : _PREFIX_BYTES + _END_BYTES]
            self._end = frame
        else:
            self._append(frame)

    def release_end(self) -> None:
        """Nothing comes before the end any more."""
        self._append(self._end)
        self._end = b""

    def _append(self, frame: bytes) -> None:
        self._pending += _CHECKSUM.pack(zlib.crc32(frame))
        self._pending += frame

    def commit(self) -> None:
        try:
            while self._pending:
                written = os.write(self._fd, self._pending)
                del self._pending[:written]
        except OSError as error:
            if not self.failure:
                self._log.error("the shared directory cannot be written", path=self._path, error=str(error))
            self.failure = f"the shared directory cannot be written: {os.strerror(error.errno)}"
            return
        self.failure = ""

    def close(self) -> None:
        """Raises OSError when what was written did not reach the file server."""
        os.close(self._fd)


class RecordLink:
    """In the place of an agent's connection: everything is written down, and nobody has to acknowledge it."""

    connected = True
    open_for_data = True
    queued_bytes = 0

    def __init__(self, records: Records) -> None:
        self._records = records
        self.greeted = False

    def send(self, frame: bytes) -> None:
        self._records.append(frame)

    def send_now(self, head: bytes, body: memoryview) -> None:
        self._records.append(head + body)

    def flush(self) -> None:
        self._records.commit()

    def drop(self, why: str) -> None:
        """There is nobody to lose."""


class RecordSpool:
    """In the place of the spool: output goes straight to the records, which are kept for long enough."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._numbers = 0

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def append_start(self, attempt: Attempt) -> None:
        attempt.in_spool = True

    def append_output(self, attempt: Attempt, stream: Stream, data: memoryview, reserve: bool = True) -> None:
        """Counts the bytes, which are about to be sent. Raises SpoolFull while the records cannot be written."""
        if reserve and self._records.failure:
            self._records.commit()
            if self._records.failure:
                raise SpoolFull(self._records.failure)
        stream.acked = stream.sent
        stream.length += len(data)

    def append_finish(self, attempt: Attempt, header: bytes, result: bytes) -> tuple[bytes, int, int]:
        return result, 0, len(result)

    def read(self, result: bytes, position: int, length: int) -> bytes:
        return result[position : position + length]

    def commit(self) -> None:
        """The link writes."""
