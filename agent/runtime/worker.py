"""The launcher's end of one worker: its channel, its two output pipes, and the descriptor that kills it."""

from __future__ import annotations

import _socket
import fcntl
import os
import signal

import frames
import loop as event_loop
from cgroup_slot import Slot

# The plain function: the one in ``socket`` wraps both ends in objects that would be taken apart at once.
_socketpair = _socket.socketpair
_READ_BYTES = 256 * 1024
_PIPE_BYTES = 1 << 20


class Worker:
    """States: forking, parked (may get work), busy, dead. The pool moves them; this class moves bytes.

    Everything that comes from the channel was written by a process that runs job code, and is checked as such.
    """

    __slots__ = (
        "_loop",
        "_outgoing",
        "_received",
        "attempt",
        "channel",
        "dead",
        "frames_bound",
        "idle_timer",
        "listener",
        "network",
        "number",
        "on_frame",
        "outputs",
        "pidfd",
        "reuse_key",
        "slot",
        "tmp_bytes",
        "zygote",
    )

    def __init__(
        self, loop: event_loop.Loop, zygote: object, number: int, tmp_bytes: int, network: bool = False
    ) -> None:
        self._loop = loop
        self.zygote = zygote
        self.number = number
        self.tmp_bytes = tmp_bytes
        self.network = network  # it has a network namespace of its own
        self.listener = -1  # the socket in that namespace at which the egress proxy accepts
        self.channel = -1
        self.outputs = [-1, -1]
        self.pidfd = -1
        self.slot: Slot | None = None  # the control groups that its process has joined
        self.dead = False
        self.attempt = None
        self.reuse_key: tuple[str, str] | None = None
        self.idle_timer = None
        self.on_frame = None
        self.frames_bound = 0  # the largest body it may send
        self._received = b""
        self._outgoing: memoryview | None = None

    def open_channels(self, owner: tuple[int, int] | None) -> list[int]:
        """Makes the channel and the pipes; returns the three descriptors for the worker's side, to be closed here.

        ``owner``: user and group of the job where they are not this process's own. The pipes are made theirs, because
        opening /dev/stdout or /dev/stderr opens the pipe anew, with the permissions of a file.
        """
        ours, theirs = _socketpair()
        self.channel = ours.detach()
        ends = [theirs.detach()]
        for index in (0, 1):
            self.outputs[index], end = os.pipe()
            ends.append(end)
            if owner is not None:
                os.fchown(end, *owner)
        for fd in (self.channel, *self.outputs):
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        return ends

    def give(self, attempt: object, frame: bytes | memoryview, bound: int, on_frame: object) -> None:
        """Hands over work: the agent's own start frame, unchanged."""
        self.attempt = attempt
        self.on_frame = on_frame
        self.frames_bound = bound
        self._loop.register(self.channel, event_loop.READABLE, self._on_channel)
        written = self._write(frame)
        if written < len(frame):
            self._outgoing = memoryview(bytes(frame[written:]))
            self._loop.modify(self.channel, event_loop.READABLE | event_loop.WRITABLE)

    def rest(self) -> None:
        """After a call: nothing is read from it until it gets work again."""
        self.attempt = None
        self._received = b""
        self._loop.unregister(self.channel)

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.channel, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # it has ended; the zygote tells how

    def _on_channel(self, events: int) -> None:
        if events & event_loop.WRITABLE and self._outgoing is not None:
            self._outgoing = self._outgoing[self._write(self._outgoing) :] or None
            if self._outgoing is None:
                self._loop.modify(self.channel, event_loop.READABLE)
        if events & ~event_loop.WRITABLE:
            self.read_channel()

    def read_channel(self) -> bool:
        """Reads once and handles whole frames. False when there was nothing more to read.

        Raises nothing: a peer that breaks the protocol is cut off, and its attempt ends with its process.
        """
        try:
            data = os.read(self.channel, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.unregister(self.channel)
            return False
        if self._received:
            self._received += data  # a bytearray from the second piece on, so this appends in place
        else:
            self._received = data
        try:
            self._cut_frames()
        except (frames.FrameError, KeyError, TypeError, ValueError) as error:
            self._received = b""
            self.on_frame(self, {"type": "broken", "message": str(error)}, b"")
        return True

    def _cut_frames(self) -> None:
        while len(self._received) >= frames.PREFIX.size:
            received = self._received
            head, body = frames.frame_length(received, 0, self.frames_bound)
            end = frames.PREFIX.size + head + body
            if len(received) < end:
                if isinstance(received, bytes):
                    self._received = bytearray(received)
                return
            header = frames.parse_header(received[8 : 8 + head])
            self._received = received[end:]
            self.on_frame(self, header, bytes(received[8 + head : end]))
            if self.attempt is None:
                return  # that was the end of its call

    def widen_pipe(self, index: int) -> None:
        """For jobs that print much: fewer, larger reads. The kernel may refuse (a user's pipe quota), which is fine."""
        try:
            fcntl.fcntl(self.outputs[index], 1031, _PIPE_BYTES)  # F_SETPIPE_SZ, in the fcntl module only from 3.10
        except OSError:
            pass

    def signal(self, number: int) -> None:
        """Sends a signal to the worker's first process; one that has ended is no error."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass
            except OSError:
                self.zygote.signal(self, number)  # another user's, in a container

    def close(self) -> None:
        """Kills the worker, and with it its PID namespace, and closes everything. Safe to call twice."""
        self.dead = True
        self.attempt = None
        if self.idle_timer:
            self.idle_timer.cancel()
            self.idle_timer = None
        self.signal(signal.SIGKILL)
        for fd in (self.channel, *self.outputs, self.pidfd, self.listener):
            if fd >= 0:
                self._loop.forget(fd)
                os.close(fd)
        self.channel = self.pidfd = self.listener = -1
        self.outputs = [-1, -1]
