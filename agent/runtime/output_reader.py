"""Reads what a running attempt prints: promptly, in few large pieces, never more than its limit keeps."""

from __future__ import annotations

import os
import time

import loop as event_loop
from attempt import Attempt, Stream
from delivery import Delivery
from spool import Spool, SpoolFull
from worker import Worker

_CHUNK_BYTES = 64 * 1024
_CHUNKS_PER_TURN = 16
# Many small prints are gathered: a stream that was read this short ago is read again only after the pause. Its first
# bytes after a quiet time are never delayed.
_PAUSE_S = 0.005
# While the agent is away or behind, nobody waits for the bytes, and each record costs memory until it is acknowledged.
_LAGGING_PAUSE_S = 0.05
_SMALL_BYTES = 16 * 1024


class OutputReader:
    """One buffer for all streams: bytes go from it to the spool and to the agent before the next read."""

    def __init__(self, loop: event_loop.Loop, spool: Spool, delivery: Delivery, log: object) -> None:
        self._loop, self._spool, self._delivery, self._log = loop, spool, delivery, log
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self._buffers = [self._buffer]

    def watch(self, attempt: Attempt, worker: Worker) -> None:
        for index in (0, 1):
            self._watch_stream(attempt, worker, index)

    def _watch_stream(self, attempt: Attempt, worker: Worker, index: int) -> None:
        stream = attempt.streams[index]
        fd = worker.outputs[index]
        self._loop.register(fd, event_loop.READABLE, lambda events: self._on_readable(attempt, stream, worker, index))

    def unwatch(self, attempt: Attempt, worker: Worker) -> None:
        for index, stream in enumerate(attempt.streams):
            if worker.reuse_key is not None:
                self._loop.unregister(worker.outputs[index])  # every other worker is closed next
            if stream.pause:
                stream.pause.cancel()
                stream.pause = None

    def drain(self, attempt: Attempt, worker: Worker) -> None:
        """Takes what is in the pipes now. Bounded: something that outlived the handler may still be printing."""
        for index, stream in enumerate(attempt.streams):
            left = 2 << 20
            while left > 0:
                count = self._read(attempt, stream, worker.outputs[index])
                left -= count
                if count < _CHUNK_BYTES:
                    break

    def discard(self, worker: Worker) -> None:
        """Drops what a kept worker printed between two calls: it belongs to neither."""
        for fd in worker.outputs:
            for _ in range(64):
                try:
                    if os.readv(fd, self._buffers) < _CHUNK_BYTES:
                        break
                except BlockingIOError:
                    break

    def prepend(self, attempt: Attempt, data: memoryview) -> None:
        """The first bytes of stderr, which the agent has sent up already. Beyond the stream's limit.

        Raises SpoolFull when they cannot be kept; the stream then goes on behind them all the same.
        """
        stream = attempt.stderr
        stream.limit += len(data)
        try:
            for at in range(0, len(data), _CHUNK_BYTES):
                self._spool.append_output(attempt, stream, data[at : at + _CHUNK_BYTES])
        except SpoolFull:
            for _, _, segment, _ in stream.chunks:
                self._spool.release(attempt, segment)
            stream.chunks.clear()
            stream.acked = len(data)
            raise
        finally:
            stream.length = stream.sent = stream.known = len(data)

    def _on_readable(self, attempt: Attempt, stream: Stream, worker: Worker, index: int) -> None:
        fd = worker.outputs[index]
        for turn in range(_CHUNKS_PER_TURN):
            count = self._read(attempt, stream, fd)
            if count == 0 and turn == 0:
                self._loop.unregister(fd)  # every writer has closed it
                return
            if count < _CHUNK_BYTES:
                break
            if turn == 0 and stream.length <= 2 * _CHUNK_BYTES:
                worker.widen_pipe(index)
        if count < _SMALL_BYTES:
            self._pause_if_busy(attempt, stream, worker, index)

    def _pause_if_busy(self, attempt: Attempt, stream: Stream, worker: Worker, index: int) -> None:
        now = time.monotonic()
        lagging = stream.sent < stream.length
        pause_s = _LAGGING_PAUSE_S if lagging else _PAUSE_S
        busy = now - stream.last_read < pause_s
        stream.last_read = now
        if not busy:
            return
        self._loop.unregister(worker.outputs[index])

        def resume() -> None:
            stream.pause = None
            self._watch_stream(attempt, worker, index)

        stream.pause = self._loop.call_later(pause_s, resume)

    def _read(self, attempt: Attempt, stream: Stream, fd: int) -> int:
        """Reads one piece and passes it on. Returns its size; 0 at the end, and -1 when there is nothing now."""
        try:
            count = os.readv(fd, self._buffers)
        except BlockingIOError:
            return -1
        if count and not stream.truncated:
            self.keep(attempt, stream, self._buffer[:count])
        return count

    def keep(self, attempt: Attempt, stream: Stream, data: memoryview) -> None:
        """Passes on what the stream got now, within its limit."""
        room = stream.limit - stream.length
        try:
            if len(data) > room:
                if room:
                    self._append(attempt, stream, data[:room])
                self._truncate(attempt, stream, "truncated after %d bytes")
            else:
                self._append(attempt, stream, data)
        except SpoolFull as full:
            self._log.warn("output is dropped", execution=attempt.execution, attempt=attempt.attempt, reason=str(full))
            self._truncate(attempt, stream, "dropped after %d bytes: the agent's spool is full")

    def _append(self, attempt: Attempt, stream: Stream, data: memoryview) -> None:
        self._spool.append_output(attempt, stream, data)
        self._delivery.offer(attempt, stream, data)

    def _truncate(self, attempt: Attempt, stream: Stream, why: str) -> None:
        """From here on the stream's bytes are read and dropped, and its end says so."""
        stream.truncated = True
        marker = f"\n[harrier: {stream.name} {why % stream.length}]\n".encode()
        try:
            self._spool.append_output(attempt, stream, memoryview(marker), reserve=False)
            self._delivery.offer(attempt, stream, memoryview(marker))
        except SpoolFull:
            pass  # `stdout_truncated` in `finished` still tells
