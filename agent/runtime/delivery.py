"""Brings output and results to the agent: straight from the pipe while it keeps up, from the spool when it does not."""

from __future__ import annotations

from collections.abc import Iterable

from agent_link import AgentLink
from attempt import FINISHED, STREAM_NAMES, Attempt, Stream
from frames import PREFIX
from spool import Spool

WINDOW_BYTES = 1 << 20
_FRAME_BYTES = 64 * 1024
_COPY_BYTES = 4096  # a body up to this size is queued with the turn's other frames


class Delivery:
    """Holds no state of its own but which attempts wait for the link; offsets are in the attempts."""

    def __init__(self, link: AgentLink, spool: Spool) -> None:
        self._link, self._spool = link, spool
        self._waiting: dict[Attempt, None] = {}  # has something to send that the link did not take
        self._offered = False

    @property
    def waits(self) -> bool:
        """True when there is something to send that the link did not take."""
        return bool(self._waiting)

    def offer(self, attempt: Attempt, stream: Stream, data: memoryview) -> None:
        """Output that was just appended to the spool, its bytes still at hand. Sends it if nothing is ahead of it."""
        self._offered = True
        size = len(data)
        if stream.sent + size != stream.length or attempt in self._waiting:
            self.pump(attempt)
        elif self._link.open_for_data and attempt.unacked() + size <= WINDOW_BYTES:
            self._send_output(attempt, stream, data)
        else:
            self._wait(attempt)

    def take_offered(self) -> bool:
        """Whether output has come since the last call."""
        offered, self._offered = self._offered, False
        return offered

    def pump(self, attempt: Attempt) -> None:
        """Sends what the window and the link allow: progress, output, and after all of that the end."""
        link = self._link
        if not link.greeted:
            return
        if attempt.progress:
            self.send_started(attempt)
            link.send(attempt.progress)
            attempt.progress = None
        for stream in attempt.streams:
            if stream.sent < stream.length and not self._send_chunks(attempt, stream):
                return
        self._waiting.pop(attempt, None)
        if attempt.state == FINISHED and not attempt.final_sent:
            if link.open_for_data:
                self._send_final(attempt)
            else:
                self._wait(attempt)

    def pump_waiting(self) -> None:
        """The link takes data again."""
        for attempt in list(self._waiting):
            if not self._link.open_for_data:
                return
            self.pump(attempt)

    def acknowledge(self, attempt: Attempt, stdout: int, stderr: int) -> None:
        """The agent has stored that much of each stream; it need not be sent again, nor kept."""
        done: dict[object, int] = {}  # segment: how many of its records are not needed any more
        for stream, acked in zip(attempt.streams, (stdout, stderr)):
            acked = min(acked, stream.length)
            if acked <= stream.acked:
                continue
            stream.acked = acked
            stream.sent = max(stream.sent, acked)
            chunks = stream.chunks
            while chunks and chunks[0][0] + chunks[0][1] <= acked:
                segment = chunks.popleft()[2]
                done[segment] = done.get(segment, 0) + 1
        if any(attempt.segments[segment] == count for segment, count in done.items()):
            # On disk before the segments go: what is missing there was acknowledged, or is lost.
            self._spool.append_ack(attempt)
            self._spool.commit()
        for segment, count in done.items():
            self._spool.release(attempt, segment, count)
        if stream_waits(attempt):
            self.pump(attempt)

    def forget(self, attempt: Attempt) -> None:
        self._waiting.pop(attempt, None)

    def restart(self, attempt: Attempt) -> None:
        """A new connection: whatever is not acknowledged is sent again."""
        for stream in attempt.streams:
            stream.sent = stream.acked
        attempt.final_sent = False
        self._waiting.pop(attempt, None)
        self.pump(attempt)

    def _wait(self, attempt: Attempt) -> None:
        if self._link.greeted:
            self._waiting[attempt] = None

    def _send_chunks(self, attempt: Attempt, stream: Stream) -> bool:
        """Reads unsent output again from the spool. False when the window or the link is full."""
        self._spool.commit()
        for offset, length, segment, position in stream.chunks:
            end = offset + length
            while stream.sent < end:
                if not self._link.open_for_data:
                    self._wait(attempt)
                    return False
                size = min(end - stream.sent, _FRAME_BYTES, WINDOW_BYTES - attempt.unacked())
                if size <= 0:
                    self._waiting.pop(attempt, None)  # an acknowledgement will pump it
                    return False
                data = self._spool.read(segment, position + stream.sent - offset, size)
                self._send_output(attempt, stream, memoryview(data))
        return True

    def _send_output(self, attempt: Attempt, stream: Stream, data: memoryview) -> None:
        self.send_started(attempt)
        head = ('{"type":"output",%s,"stream":"%s","offset":%d}' % (attempt.ids, stream.name, stream.sent)).encode()
        stream.sent += len(data)
        prefix = PREFIX.pack(len(head), len(data)) + head
        if len(data) <= _COPY_BYTES:
            self._link.send(prefix + bytes(data))
        else:
            self._spool.commit()  # what is sent is on disk
            self._link.send_now(prefix, data)

    def send_started(self, attempt: Attempt) -> None:
        """Sends `started` once, before everything else of the attempt."""
        if attempt.started is not None:
            self._link.send(attempt.started)
            attempt.started = None

    def _send_final(self, attempt: Attempt) -> None:
        self.send_started(attempt)
        result = attempt.result
        if isinstance(result, tuple):
            self._spool.commit()
            result = self._spool.read(*result)
        self._link.send(PREFIX.pack(len(attempt.final), len(result)) + attempt.final + result)
        attempt.final_sent = True


def unacknowledged_bytes(attempts: Iterable[Attempt]) -> int:
    """Output, and results of attempts that have ended, that the agent has not acknowledged."""
    total = 0
    for attempt in attempts:
        total += sum(stream.length - stream.acked for stream in attempt.streams)
        total += attempt.result[2] if isinstance(attempt.result, tuple) else len(attempt.result)
    return total


def stream_waits(attempt: Attempt) -> bool:
    """True when something of the attempt is not sent yet."""
    unsent = any(getattr(attempt, name).sent < getattr(attempt, name).length for name in STREAM_NAMES)
    return unsent or (attempt.state == FINISHED and not attempt.final_sent)
