"""The spool: what attempts printed and how they ended, on disk until the agent has acknowledged it.

Append-only segment files hold the records of all attempts. A record is ``u32 length, u32 crc32, payload`` and a payload
``u8 type, u64 attempt number, u8 stream, u64 offset, data``; a length of 0 is the end of a segment. Segments are
allocated in full when they are made, so that a full disk shows there and not in the middle of a record; a segment is
deleted when nobody needs any of its records. Nothing is synced: the spool survives the launcher, not the host.

The start of an attempt, and what is acknowledged of it, are needed until it is forgotten. So that long attempts do not
keep a segment each, those records are written anew when the spool gets full, and segments that held nothing else go.

A disk that fails a write all the same (copy-on-write file systems, quotas, faults) loses nothing that was taken: those
records stay in memory, to be read from there and written in their place when the disk takes them. Until then output is
refused, while ends of attempts are taken as far as they fit into the segment.
"""

from __future__ import annotations

import os
import struct
import zlib

from attempt import Attempt, Stream

PREFIX = struct.Struct("<II")
PAYLOAD = struct.Struct("<BQBQ")
OVERHEAD = PREFIX.size + PAYLOAD.size

START, OUTPUT, FINISH, ACK, FORGOTTEN = 1, 2, 3, 4, 5
ACK_OFFSETS = struct.Struct("<Q")

_SEGMENT_BYTES = 16 << 20
# Kept free of output, so that attempts can still be started and finished when the spool is full.
_RESERVE_BYTES = 64 * 1024
# Of a new segment so much is used at most, as 1 / this, for records that are written anew.
_RENEWED_PART = 8
# An output up to this size is copied and written with the turn's other records; a larger one is written at once.
_BATCH_BYTES = 4096


class SpoolFull(Exception):
    """No room within the spool's limit or on the disk; the message says which."""


class Segment:
    """One file: ``size`` bytes of records in ``capacity`` allocated ones; ``users`` are the attempts that need it."""

    __slots__ = ("capacity", "fd", "number", "path", "size", "users")

    def __init__(self, number: int, path: str, fd: int, size: int, capacity: int) -> None:
        self.number, self.path, self.fd, self.size, self.capacity = number, path, fd, size, capacity
        self.users: set[Attempt] = set()


class Spool:
    """Appends and reads records. Appends go to disk at ``commit``, which comes before anything is sent."""

    def __init__(self, directory: str, limit_bytes: int, log: object) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._log = log
        self._segment_bytes = max(128 * 1024, min(_SEGMENT_BYTES, limit_bytes // 4))
        self._segments: dict[int, Segment] = {}
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._forgotten: list[int] = []
        self._next_attempt = 1
        self._failure = ""  # why the disk did not take the last write; empty when it did
        self._current: Segment | None = None
        self.total_bytes = 0

    def open(self, recovered: list[Segment], next_attempt: int) -> None:
        """Takes over the segments of an earlier launcher and starts a new one. Raises OSError or SpoolFull."""
        for segment in recovered:
            self._segments[segment.number] = segment
            self.total_bytes += segment.capacity
        self._next_attempt = next_attempt
        for segment in recovered:
            self._delete_if_unused(segment)
        self._roll(0, forced=True)

    def next_number(self) -> int:
        self._next_attempt += 1
        return self._next_attempt - 1

    def append_start(self, attempt: Attempt) -> None:
        """Keeps that the attempt was started, unless that is known already. Raises SpoolFull."""
        if not attempt.in_spool:
            attempt.started_in, _ = self._append(START, attempt, 0, 0, _start_data(attempt), 0)
            attempt.in_spool = True

    def append_finish(self, attempt: Attempt, header: bytes, result: bytes) -> tuple[Segment, int, int]:
        """Keeps how the attempt ended; returns where the result lies. Raises SpoolFull."""
        segment, position = self._append(FINISH, attempt, 0, len(header), header + result, 0)
        attempt.in_spool = True
        return segment, position + len(header), len(result)

    def append_output(self, attempt: Attempt, stream: Stream, data: memoryview, reserve: bool = True) -> None:
        """Keeps output from the stream's present end on; the view may be reused afterwards. Raises SpoolFull.

        ``reserve``: leave room for the ends of attempts, and take nothing while the disk fails.
        """
        if reserve and self._failure:
            self._retry()
        if not attempt.in_spool:
            self.append_start(attempt)
        index = 0 if stream is attempt.stdout else 1
        left_free = _RESERVE_BYTES if reserve else 0
        if len(data) <= _BATCH_BYTES:
            segment, position = self._append(OUTPUT, attempt, index, stream.length, bytes(data), left_free)
        else:
            segment, position = self._append(OUTPUT, attempt, index, stream.length, data, left_free)
            self.commit()
            if self._pending:
                self._pending = list(map(bytes, self._pending))
        stream.chunks.append((stream.length, len(data), segment, position))
        stream.length += len(data)

    def append_ack(self, attempt: Attempt) -> None:
        """Keeps the acknowledged offsets in place of earlier ones.

        Without room for them a later launcher may take for lost what was acknowledged.
        """
        try:
            segment, _ = self._append(ACK, attempt, 0, attempt.stdout.acked, _ack_data(attempt), 0)
        except SpoolFull:
            return
        if attempt.acked_in:
            self.release(attempt, attempt.acked_in)
        attempt.acked_in = segment

    def read(self, segment: Segment, position: int, length: int) -> bytes:
        on_disk = length if segment is not self._current else min(length, max(0, segment.size - position))
        data = os.pread(segment.fd, on_disk, position) if on_disk else b""
        return data if on_disk == length else data + self._read_pending(position + on_disk, length - on_disk)

    def _read_pending(self, position: int, length: int) -> bytes:
        """What the disk has not taken yet, from a position in the current segment on."""
        start, pieces = position - self._current.size, []
        for buffer in self._pending:
            piece = buffer[start : start + length] if start < len(buffer) else b""
            start = max(0, start - len(buffer))
            length -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def release(self, attempt: Attempt, segment: Segment, records: int = 1) -> None:
        """The attempt needs that many records of the segment no longer."""
        left = attempt.segments[segment] - records
        if left:
            attempt.segments[segment] = left
            return
        del attempt.segments[segment]
        segment.users.discard(attempt)
        self._delete_if_unused(segment)

    def forget(self, attempt: Attempt) -> None:
        """Nothing of the attempt is needed any more. Recorded with the next commit: it may be lost, as an ack may."""
        for segment in attempt.segments:
            segment.users.discard(attempt)
            if segment is not self._current:
                self._delete_if_unused(segment)
        attempt.segments.clear()
        if attempt.in_spool:
            self._forgotten.append(attempt.number)

    def commit(self) -> None:
        """Writes what was appended. What the disk does not take stays in memory and is tried again each time."""
        if not self._pending:
            return
        if self._forgotten:
            self._append_forgotten()
        self._write()

    def _write(self) -> None:
        segment = self._current
        try:
            while self._pending:
                written = os.pwritev(segment.fd, self._pending[:512], segment.size)  # IOV_MAX is 1024
                segment.size += written
                self._drop_written(written)
        except OSError as error:
            self._note_failure(error)
            return
        if self._failure:
            self._failure = ""
            self._log.info("the spool can be written again", path=segment.path)

    def _drop_written(self, written: int) -> None:
        self._pending_bytes -= written
        if not self._pending_bytes:
            self._pending = []
            return
        done = 0
        for buffer in self._pending:
            if written < len(buffer):
                break
            written -= len(buffer)
            done += 1
        del self._pending[:done]
        if written:
            self._pending[0] = self._pending[0][written:]

    def _note_failure(self, error: OSError) -> None:
        if not self._failure:
            self._log.error("the spool cannot be written", path=self._current.path, error=str(error))
        self._failure = f"the spool cannot be written: {os.strerror(error.errno)}"
        if not self._current.users:
            self._start_over()

    def _start_over(self) -> None:
        """Nobody needs what the disk does not take: the segment begins anew, empty, so that nothing piles up."""
        segment = self._current
        try:
            os.ftruncate(segment.fd, 0)
            segment.size, self._pending, self._pending_bytes = 0, [], 0
            os.posix_fallocate(segment.fd, 0, segment.capacity)
        except OSError:
            pass  # the next commit finds out

    def _retry(self) -> None:
        """Raises SpoolFull while the disk does not take what it was given."""
        self.commit()
        if self._pending:
            raise SpoolFull(self._failure)

    def commit_forgotten(self) -> None:
        """Writes now which attempts are forgotten."""
        if self._forgotten:
            self._append_forgotten()
            self.commit()

    def close(self) -> None:
        self.commit_forgotten()
        for segment in self._segments.values():
            os.close(segment.fd)
        self._segments.clear()

    def _append_forgotten(self) -> None:
        """One record for all attempts forgotten since the last commit, if there is room for it."""
        numbers, self._forgotten = self._forgotten, []
        data = struct.pack(f"<{len(numbers)}Q", *numbers)
        length = OVERHEAD + len(data)
        segment = self._current
        if segment.size + self._pending_bytes + length + PREFIX.size <= segment.capacity:
            self._pending.append(_record(FORGOTTEN, 0, 0, 0, data) + data)
            self._pending_bytes += length

    def _append(
        self, kind: int, attempt: Attempt, stream: int, offset: int, data: bytes | memoryview, reserve: int
    ) -> tuple[Segment, int]:
        """Returns the segment and the position of the record's data."""
        length = OVERHEAD + len(data)
        segment = self._current
        at = segment.size + self._pending_bytes
        # The last PREFIX of a segment stays 0: its end. Whether there will be another segment shows when it is made, so
        # what is reserved stays free in each.
        if at + length + reserve + PREFIX.size > segment.capacity:
            self._roll(length)
            segment = self._current
            at = segment.size + self._pending_bytes
        self._pending += (_record(kind, attempt.number, stream, offset, data), data)
        self._pending_bytes += length
        attempt.segments[segment] = attempt.segments.get(segment, 0) + 1
        segment.users.add(attempt)
        return segment, at + OVERHEAD

    def _capacity_for(self, length: int) -> int:
        return max(self._segment_bytes, length + PREFIX.size)

    def _roll(self, length: int, forced: bool = False) -> None:
        """Starts a segment that has room for a record of that length. Raises SpoolFull."""
        self._retry()
        # Half full is early enough, and costs a spool that empties itself nothing.
        renewed, records, freed_bytes = self._renewable(self.total_bytes + self._segment_bytes - self._limit // 2)
        renewed_bytes = sum(map(len, records))
        capacity = self._capacity_for(length + renewed_bytes)
        # What is freed is so only a moment after the new segment was made.
        if not forced and self.total_bytes - freed_bytes + capacity > self._limit:
            raise SpoolFull(f"the spool holds {self.total_bytes} bytes, its limit is {self._limit}")
        number = max(self._segments, default=0) + 1
        path = os.path.join(self._directory, f"{number:010d}.seg")
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.posix_fallocate(fd, 0, capacity)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
                os.unlink(path)
            raise SpoolFull(f"no room for the spool in {self._directory}: {os.strerror(error.errno)}") from None
        previous, self._current = self._current, Segment(number, path, fd, 0, capacity)
        self._segments[number] = self._current
        self.total_bytes += capacity
        if previous:
            self._delete_if_unused(previous)
        if renewed:
            self._renew(renewed, records)

    def _renewable(self, wanted_bytes: int) -> tuple[list[Attempt], list[bytes], int]:
        """What takes to free so many bytes, the oldest first: attempts, their records, and the bytes that are freed.

        Only segments count that hold nothing but starts and acknowledgements.
        """
        attempts: dict[Attempt, None] = {}
        records: list[bytes] = []
        left, freed_bytes = self._segment_bytes // _RENEWED_PART, 0
        for segment in self._segments.values():
            if freed_bytes >= wanted_bytes:
                break
            if segment is self._current or not all(_only_begins(attempt, segment) for attempt in segment.users):
                continue
            more = {attempt: _begin_records(attempt) for attempt in segment.users if attempt not in attempts}
            left -= sum(map(len, more.values()))
            if left < 0:
                break
            attempts.update(dict.fromkeys(more))
            records += more.values()
            freed_bytes += segment.capacity
        return list(attempts), records, freed_bytes

    def _renew(self, attempts: list[Attempt], records: list[bytes]) -> None:
        """Writes the attempts' records into the current segment, and lets go those that they had."""
        self._pending += records
        self._pending_bytes += sum(map(len, records))
        self._write()
        if self._failure:
            return  # not on disk: the former records are still needed
        segment = self._current
        for attempt in attempts:
            former = [place for place in (attempt.started_in, attempt.acked_in) if place]
            has_ack = _has_ack(attempt)
            attempt.segments[segment] = bool(attempt.started_in) + has_ack
            segment.users.add(attempt)
            attempt.started_in = segment if attempt.started_in else None
            attempt.acked_in = segment if has_ack else None
            for place in former:
                self.release(attempt, place)

    def _delete_if_unused(self, segment: Segment) -> None:
        if segment.users or segment is self._current or segment.number not in self._segments:
            return
        del self._segments[segment.number]
        self.total_bytes -= segment.capacity
        os.close(segment.fd)
        os.unlink(segment.path)


def _start_data(attempt: Attempt) -> bytes:
    return ('{%s,"stdout":%d,"stderr":%d}' % (attempt.ids, attempt.stdout.limit, attempt.stderr.limit)).encode()


def _ack_data(attempt: Attempt) -> bytes:
    return ACK_OFFSETS.pack(attempt.stderr.acked)


def _has_ack(attempt: Attempt) -> bool:
    return bool(attempt.stdout.acked or attempt.stderr.acked)


def _only_begins(attempt: Attempt, segment: Segment) -> bool:
    """Whether the attempt needs nothing of the segment but its start and what is acknowledged."""
    return attempt.segments[segment] == (attempt.started_in is segment) + (attempt.acked_in is segment)


def _begin_records(attempt: Attempt) -> bytes:
    """The start of the attempt, if it was written, and what is acknowledged now: output up to there may be gone."""
    records = b""
    if attempt.started_in:
        data = _start_data(attempt)
        records = _record(START, attempt.number, 0, 0, data) + data
    if _has_ack(attempt):
        data = _ack_data(attempt)
        records += _record(ACK, attempt.number, 0, attempt.stdout.acked, data) + data
    return records


def _record(kind: int, number: int, stream: int, offset: int, data: bytes | memoryview) -> bytes:
    """A record but for its data."""
    payload = PAYLOAD.pack(kind, number, stream, offset)
    return PREFIX.pack(PAYLOAD.size + len(data), zlib.crc32(data, zlib.crc32(payload))) + payload
