"""Runs source text in another language inside a worker: starts the language's runner, gives it the call, and passes on
what it says.

The two speak frames over a socket that is descriptor 3 of the runner, as the launcher and a worker do:
runner → worker  `ready`, then any number of `progress`, then `result` (body: JSON text) or `error`
worker → runner  `call`: handler, filename, code_bytes, result_bytes, context; body: the code, then the input
So what the code prints is no result, and the worker, which runs no code of the job, decides when the call has ended.
The code can write whatever it likes to the socket, and so choose its result or its own error, as Python code can; it
reaches neither the worker's memory nor its channel (``program``), and so nothing that only the launcher may say of it.
"""

from __future__ import annotations

import os
import select
import signal
import socket

import channel
import frames
import limits
import program

_RUNNER_FD = 3
_READ_BYTES = 256 * 1024
# What an error takes; results have their own limit.
_SMALLEST_BODY_BOUND = 1 << 20
_FINAL = ("result", "error")


def run(header: dict, code: bytes, input_bytes: bytes, in_cgroup: bool) -> tuple[dict, bytes]:
    """One call, in a fresh process. Returns the reply's header and body. ``in_cgroup``: that limits its memory."""
    runner = program.Program()
    ours, theirs = socket.socketpair()
    with ours:
        try:
            with theirs:
                woken = _on_ended_child()
                runner.start(header["argv"], {_RUNNER_FD: theirs.fileno()})
        except program.NotStarted as error:
            message = f"The interpreter cannot be started: {error}"
            return {"type": "not_started", "message": message}, b""
        ours.setblocking(False)
        reply, body = _converse(_Link(ours, header, code, input_bytes, in_cgroup), runner, woken)
    runner.kill()  # what it would do after its last word is nobody's
    status = runner.wait()
    return (program.exit_reply(status), b"") if reply is None else (reply, body)


def _on_ended_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable


def _converse(link: _Link, runner: program.Program, woken: int) -> tuple[dict | None, bytes]:
    """The runner's last word; None when it has ended without one."""
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    try:
        while True:
            if link.events:
                poll.register(link.fd, link.events)
            else:
                poll.unregister(link.fd)  # the runner has closed its end, and may run on
            ready = dict(poll.poll())
            if woken in ready:
                os.read(woken, 4096)
                while runner.reap(os.WNOHANG):
                    pass
            ended = runner.status is not None
            while True:
                final = link.read(runner.pid)
                if final is not None:
                    return final
                if not ended or not link.more:
                    break
            if ended:
                return None, b""
            link.write()
    except (frames.FrameError, KeyError, TypeError, ValueError) as error:
        return {"type": "broken", "message": str(error)}, b""


class _Link:
    """This end of the socket. What comes from it was written by a process that runs the job's code, and is checked."""

    def __init__(self, end: socket.socket, header: dict, code: bytes, input_bytes: bytes, in_cgroup: bool) -> None:
        self.fd = end.fileno()
        self.more = True  # there may be something to read at once
        self._open = True
        self._memory_bytes = 0 if in_cgroup else header["limits"]["memory_bytes"]
        result_bytes = header["limits"]["result_bytes"]
        self._bound = max(_SMALLEST_BODY_BOUND, result_bytes)
        call = {"type": "call", "handler": header["handler"], "filename": header["filename"]}
        call.update(code_bytes=len(code), result_bytes=result_bytes, context=header.get("context"))
        self._call: bytes | None = frames.encode(call, code + input_bytes)
        self._outgoing = memoryview(b"")
        self._received = bytearray()

    @property
    def events(self) -> int:
        if not self._open:
            return 0
        return select.POLLIN | (select.POLLOUT if self._outgoing else 0)

    def write(self) -> None:
        if self._outgoing:
            try:
                self._outgoing = self._outgoing[os.write(self.fd, self._outgoing) :]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                self._outgoing = memoryview(b"")  # it ends, which is about to be seen

    def read(self, pid: int) -> tuple[dict, bytes] | None:
        """Reads once; returns the last word when it has come. Raises FrameError and the like."""
        self.more = False
        if not self._open:
            return None
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        self._open = self.more = bool(data)
        self._received += data
        while len(self._received) >= frames.PREFIX.size:
            head, body = frames.frame_length(self._received, 0, self._bound)
            body_at = frames.PREFIX.size + head
            if len(self._received) < body_at + body:
                return None
            header = frames.parse_header(bytes(self._received[frames.PREFIX.size : body_at]))
            content = bytes(self._received[body_at : body_at + body])
            del self._received[: body_at + body]
            if header["type"] in _FINAL:
                return header, content
            self._on_word(header, pid)
        return None

    def _on_word(self, header: dict, pid: int) -> None:
        if header["type"] == "progress":
            channel.send({"type": "progress", "percent": header["percent"], "step": header["step"]})
        elif header["type"] == "ready" and self._call is not None:
            # Nothing of the job has run yet: what is used now is the interpreter's own.
            limits.set_for_script(pid, self._memory_bytes)
            self._outgoing, self._call = memoryview(self._call), None
        else:
            raise frames.FrameError(f"unexpected {header['type'][:40]!r}")
