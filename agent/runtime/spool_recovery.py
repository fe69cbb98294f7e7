"""Reads the spool of a launcher that is gone: which attempts there were, what they printed, how they ended."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator

import spool
from attempt import FINISHED, RUNNING, Attempt

# Results up to this size are kept in memory; larger ones are read again when they are sent.
RESULT_IN_MEMORY_BYTES = 64 * 1024

# Records of attempts whose start has not been read, by number: the arguments of `_apply_progress`.
_Early = dict[int, list[tuple[spool.Segment, int, int, int, int, int, int]]]


def recover(directory: str, log: object) -> tuple[list[spool.Segment], dict[tuple[str, int], Attempt], int]:
    """Returns the segments, the unacknowledged attempts by key, and the next attempt number.

    Attempts without a record of their end come back in state RUNNING: their processes died with the launcher.
    """
    segments = []
    attempts: dict[int, Attempt] = {}
    early: _Early = {}
    highest = 0
    for name in sorted(name for name in os.listdir(directory) if name.endswith(".seg")):
        path = os.path.join(directory, name)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        capacity = os.fstat(fd).st_size
        segment = spool.Segment(int(name[:-4]), path, fd, 0, capacity)
        for record in _records(segment, log):
            highest = max(highest, record[1])
            _apply(attempts, early, segment, *record)
        segments.append(segment)
    for attempt in attempts.values():
        _settle(attempt, log)
    return segments, {attempt.key: attempt for attempt in attempts.values()}, highest + 1


def _records(segment: spool.Segment, log: object) -> Iterator[tuple[int, int, int, int, int, memoryview]]:
    """(kind, attempt number, stream, offset, position of the data, data) up to the end or the first torn record."""
    data = memoryview(os.pread(segment.fd, segment.capacity, 0))
    at = 0
    while at + spool.PREFIX.size <= len(data):
        length, crc = spool.PREFIX.unpack_from(data, at)
        if length == 0:
            break
        payload = data[at + spool.PREFIX.size : at + spool.PREFIX.size + length]
        if len(payload) != length or length < spool.PAYLOAD.size or zlib.crc32(payload) != crc:
            log.warn("the spool ends in a torn record, which is dropped", path=segment.path, position=at)
            break
        kind, number, stream, offset = spool.PAYLOAD.unpack_from(payload)
        yield kind, number, stream, offset, at + spool.OVERHEAD, payload[spool.PAYLOAD.size :]
        at += spool.PREFIX.size + length
        segment.size = at


def _apply(
    attempts: dict[int, Attempt],
    early: _Early,
    segment: spool.Segment,
    kind: int,
    number: int,
    stream: int,
    offset: int,
    position: int,
    data: memoryview,
) -> None:
    if kind == spool.FORGOTTEN:
        for forgotten in struct.unpack(f"<{len(data) // 8}Q", data):
            early.pop(forgotten, None)
            _forget(attempts, forgotten)
        return
    attempt = attempts.get(number)
    if attempt is None:
        if kind not in (spool.START, spool.FINISH):
            # Either its start was written anew and comes later, or its first records are gone because it was forgotten.
            stderr = spool.ACK_OFFSETS.unpack(data)[0] if kind == spool.ACK else 0
            early.setdefault(number, []).append((segment, kind, stream, offset, position, len(data), stderr))
            return
        fields = json.loads(bytes(data if kind == spool.START else data[:offset]))
        attempt = Attempt(fields["execution"], fields["attempt"], number, fields["stdout"], fields["stderr"])
        attempt.state, attempt.in_spool = RUNNING, True
        attempts[number] = attempt
        for record in early.pop(number, ()):
            _apply_progress(attempt, *record)
    if kind == spool.START:
        if attempt.started_in:
            _release(attempt, attempt.started_in)
        attempt.started_in = segment
        _need(attempt, segment)
    elif kind == spool.FINISH:
        _apply_finish(attempt, segment, position, offset, data)
        _need(attempt, segment)
    else:
        stderr = spool.ACK_OFFSETS.unpack(data)[0] if kind == spool.ACK else 0
        _apply_progress(attempt, segment, kind, stream, offset, position, len(data), stderr)


def _need(attempt: Attempt, segment: spool.Segment) -> None:
    attempt.segments[segment] = attempt.segments.get(segment, 0) + 1
    segment.users.add(attempt)


def _apply_progress(
    attempt: Attempt,
    segment: spool.Segment,
    kind: int,
    stream: int,
    offset: int,
    position: int,
    length: int,
    stderr_acked: int,
) -> None:
    """A record between start and end: output, or what is acknowledged."""
    if kind == spool.ACK:
        _apply_ack(attempt, offset, stderr_acked)
        if attempt.acked_in:
            _release(attempt, attempt.acked_in)
        attempt.acked_in = segment
    elif kind == spool.OUTPUT:
        _apply_output(attempt, stream, offset, segment, position, length)
    _need(attempt, segment)


def _apply_output(attempt: Attempt, index: int, offset: int, segment: object, position: int, length: int) -> None:
    attempt.streams[index].chunks.append((offset, length, segment, position))


def _apply_finish(attempt: Attempt, segment: object, position: int, header_length: int, data: memoryview) -> None:
    attempt.state = FINISHED
    attempt.final = bytes(data[:header_length])
    length = len(data) - header_length
    if length <= RESULT_IN_MEMORY_BYTES:
        attempt.result = bytes(data[header_length:])
    else:
        attempt.result = (segment, position + header_length, length)


def _apply_ack(attempt: Attempt, stdout: int, stderr: int) -> None:
    """Acknowledged chunks that are still there stay listed until the agent acknowledges again."""
    for stream, acked in zip(attempt.streams, (stdout, stderr)):
        stream.acked = stream.sent = max(stream.acked, acked)


def _settle(attempt: Attempt, log: object) -> None:
    """Takes of each stream what is there without a gap; segments that are gone were acknowledged, and that is recorded.

    An end that names more than that would be waited for in vain: it tells of the loss instead.
    """
    header = json.loads(attempt.final) if attempt.state == FINISHED else {}
    for stream in attempt.streams:
        reach = 0
        for offset, length, _, _ in stream.chunks:
            if offset > max(reach, stream.acked):
                break  # a record before it was damaged
            reach = offset + length
        while stream.chunks and stream.chunks[-1][0] >= reach:
            _release(attempt, stream.chunks.pop()[2])
            stream.truncated = True
        stream.length = max(reach, stream.acked)
        told = header.get(stream.name, stream.length)
        stream.truncated |= stream.length > stream.limit or told > stream.length
        if told > stream.length:
            ids = {"execution": attempt.execution, "attempt": attempt.attempt, "stream": stream.name}
            log.error("output is lost: the spool is damaged", **ids, kept=stream.length, was=told)
            header[stream.name], header[f"{stream.name}_truncated"] = stream.length, True
            attempt.final = json.dumps(header).encode()


def _release(attempt: Attempt, segment: spool.Segment) -> None:
    attempt.segments[segment] -= 1
    if not attempt.segments[segment]:
        del attempt.segments[segment]
        segment.users.discard(attempt)


def _forget(attempts: dict[int, Attempt], number: int) -> None:
    attempt = attempts.pop(number, None)
    if attempt:
        for segment in attempt.segments:
            segment.users.discard(attempt)
