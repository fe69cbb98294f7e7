"""The socket on which the agent talks to the launcher: one agent at a time, frames in both directions."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable

import frames
import loop as event_loop

# Above this many queued bytes nothing but small control frames is added: output and results wait in the spool.
HIGH_WATER_BYTES = 256 * 1024
_SOCKET_BUFFER_BYTES = 1 << 20
_FRAMES_PER_TURN = 256


class AgentLink:
    """Listens, checks the peer, cuts frames, queues and writes frames. Knows nothing of what they mean."""

    def __init__(
        self,
        loop: event_loop.Loop,
        log: object,
        on_frame: Callable[[dict, memoryview, memoryview], None],
        on_drained: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._loop, self._log = loop, log
        self._on_frame, self._on_drained, self._on_gone = on_frame, on_drained, on_gone
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self._fd = -1
        self._reader = frames.FrameReader()
        self._queue: list[bytes | memoryview] = []
        self._writable = True
        self.queued_bytes = 0
        self.greeted = False  # the agent has said hello: output and results may be sent

    @property
    def connected(self) -> bool:
        return self._peer is not None

    @property
    def open_for_data(self) -> bool:
        """True when a frame with data may be queued now."""
        return self.greeted and self.queued_bytes < HIGH_WATER_BYTES

    def listen(self, path: str) -> None:
        """Replaces a socket file that an earlier launcher left. Raises OSError."""
        if os.path.lexists(path):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(f"{path} exists and is not a socket")
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(mask)
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._loop.register(self._listener.fileno(), event_loop.READABLE, self._accept)

    def send(self, frame: bytes) -> None:
        """Queues a frame until the end of the turn. Dropped without an agent: `welcome` tells the next one."""
        if self._peer is not None:
            self._queue.append(frame)
            self.queued_bytes += len(frame)

    def send_now(self, head: bytes, body: memoryview) -> None:
        """Writes at once what the socket takes; only the rest is copied, so the body may be reused afterwards."""
        self._queue += (head, body)
        self.queued_bytes += len(head) + len(body)
        self.flush()
        if self._queue and isinstance(self._queue[-1], memoryview):
            self._queue[-1] = bytes(self._queue[-1])

    def flush(self) -> None:
        """Writes what is queued, as far as the socket takes it."""
        while self._queue and self._writable and self._peer is not None:
            try:
                written = os.writev(self._fd, self._queue[:512])
            except BlockingIOError:
                self._wait_writable()
                return
            except OSError as error:
                self.drop(f"cannot write: {error.strerror}")
                return
            self._forget_written(written)

    def _forget_written(self, written: int) -> None:
        self.queued_bytes -= written
        done = 0
        for buffer in self._queue:
            if written < len(buffer):
                break
            written -= len(buffer)
            done += 1
        del self._queue[:done]
        if written:
            self._queue[0] = memoryview(self._queue[0])[written:]

    def _wait_writable(self) -> None:
        self._writable = False
        self._loop.modify(self._fd, event_loop.READABLE | event_loop.WRITABLE)

    def _accept(self, events: int) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            self._log.warn("a connection of another user is refused", uid=uid)
            peer.close()
            return
        if self._peer is not None:
            self.drop("a newer connection replaces it")
        peer.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        self._peer, self._fd = peer, peer.fileno()
        self._reader = frames.FrameReader()
        self._loop.register(self._fd, event_loop.READABLE, self._on_events)

    def _on_events(self, events: int) -> None:
        if events & event_loop.WRITABLE:
            self._writable = True
            self._loop.modify(self._fd, event_loop.READABLE)
            self.flush()
            if self.queued_bytes < HIGH_WATER_BYTES and self._peer is not None:
                self._on_drained()
        if events & ~event_loop.WRITABLE and self._peer is not None:
            self._read()

    def _read(self) -> None:
        reader, peer = self._reader, self._peer
        try:
            if reader.fill(self._fd) == 0:
                self.drop("the agent closed it")
                return
            while self._peer is peer:
                item = reader.next()
                if item is None:
                    return
                self._on_frame(item[1], item[2], item[0])
        except BlockingIOError:
            return
        except frames.FrameError as error:
            self.drop(f"not the protocol: {error}")
        except OSError as error:
            self.drop(f"cannot read: {error.strerror}")

    def drop(self, why: str) -> None:
        """Ends the connection; attempts go on."""
        if self._peer is None:
            return
        self._log.info("the agent's connection ended", reason=why)
        self._loop.unregister(self._fd)
        self._peer.close()
        self._peer, self._fd = None, -1
        self._queue, self.queued_bytes = [], 0
        self._writable, self.greeted = True, False
        self._on_gone()

    def close(self, path: str) -> None:
        """Ends the listener, removes its file, then ends the connection."""
        if self._listener:
            self._loop.unregister(self._listener.fileno())
            self._listener.close()
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # its directory was removed while this ran
        self.drop("the launcher stops")
