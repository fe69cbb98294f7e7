"""Runs a command inside a worker: the input on stdin, the exit status as the answer."""

from __future__ import annotations

import os

import program


def run(header: dict, input_bytes: bytes) -> tuple[dict, bytes]:
    """Starts ``argv`` and waits for it. Returns the reply's header and an empty body."""
    command = program.Program()
    try:
        command.start(header["argv"], {0: _stdin_of(input_bytes)})
    except program.NotStarted as error:
        return {"type": "exit", "exit_code": error.code, "signal": None, "message": f"Command {error}"}, b""
    return program.exit_reply(command.wait()), b""


def _stdin_of(data: bytes) -> int:
    """A descriptor that reads those bytes and then ends: memory, so that no thread has to feed a pipe."""
    fd = os.memfd_create("stdin")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
