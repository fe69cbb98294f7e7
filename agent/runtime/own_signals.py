"""Signals that a job sends to itself. A worker is PID 1 of its namespace, and the kernel keeps from PID 1 every signal
that it does not handle, even SIGKILL when it comes from inside. So ``os.kill(os.getpid(), SIGKILL)`` would do nothing;
here it ends the call as it would end any other process.
"""

from __future__ import annotations

import os
import signal
import sys

import channel

_HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

_kill, _killpg, _raise_signal = os.kill, os.killpg, signal.raise_signal


def install() -> None:
    """Replaces the functions by which Python code signals itself."""
    os.kill, os.killpg, os.abort, signal.raise_signal = _own_kill, _own_killpg, _abort, _own_raise


def _own_kill(pid: int, number: int, /) -> None:
    if pid in (os.getpid(), 0):
        _end_if_fatal(number)
    _kill(pid, number)


def _own_killpg(group: int, number: int, /) -> None:
    if group in (os.getpgrp(), 0):
        _end_if_fatal(number)
    _killpg(group, number)


def _own_raise(number: int, /) -> None:
    _end_if_fatal(number)
    _raise_signal(number)


def _abort() -> None:
    _end(signal.SIGABRT)


def _end_if_fatal(number: int) -> None:
    if os.getpid() != 1 or number == 0 or number in _HARMLESS or number in _STOPPING:
        return
    if number == signal.SIGKILL or signal.getsignal(number) is signal.SIG_DFL:
        _end(number)


def _end(number: int) -> None:
    if os.getpid() != 1:
        signal.signal(number, signal.SIG_DFL)
        _kill(os.getpid(), number)
    for stream in (sys.__stdout__, sys.__stderr__):
        stream.flush()
    channel.send({"type": "exit", "exit_code": None, "signal": int(number), "message": ""})
    os._exit(128 + number)
