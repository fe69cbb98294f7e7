#!/usr/bin/env python3
"""Starts the launcher: checks, detaches, wires its parts, runs.

``PYTHON -I -S launcher.py --socket PATH --spool DIR`` returns when the socket accepts connections, or fails with the
reason on stderr. See docs/launcher-protocol.md.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys

RUNTIME_DIR = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, RUNTIME_DIR)

import preflight
import service_manager
import spool_recovery
from agent_link import AgentLink
from ground import Ground
from log import Logger
from loop import READABLE, Loop
from options import parse
from spool import Spool, SpoolFull
from supervisor import PROTOCOL, Supervisor

_STOP_GRACE_MS = 5000


class StartError(Exception):
    """The launcher cannot start; the message is for the operator."""


def main() -> None:
    options = parse(sys.argv[1:])
    manager = service_manager.take_socket()
    if options.foreground:
        _run(options, lambda: service_manager.tell_ready(manager))
    else:
        _detach(options)


def _detach(options: object) -> None:
    """Forks the launcher off into a session of its own and waits until it is ready or has failed."""
    for name in ("socket", "spool", "log"):
        if getattr(options, name):
            setattr(options, name, os.path.abspath(getattr(options, name)))
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(told)
            os.chdir("/")
            _run(options, lambda: _report(tell, b""), lambda text: _report(tell, text.encode()))
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        message = pipe.read()
    os.wait()
    if message != b"ready":
        sys.stderr.write(message.decode() or "launcher: it ended while it started\n")
        sys.exit(1)


def _report(fd: int, fault: bytes) -> None:
    os.write(fd, fault or b"ready")
    os.close(fd)


def _allow_many_descriptors() -> None:
    """A worker takes four; the usual soft limit of 1024 would end at 250 calls at once."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run(options: object, on_ready: object, on_fault: object = None) -> None:
    """Runs until told to stop; never returns. ``on_fault``: where a detached launcher says why it cannot start."""
    _allow_many_descriptors()
    try:
        log = Logger(_open_log(options, detached=on_fault is not None))
        loop, stop = _build(options, log)
    except (StartError, preflight.Unusable, SpoolFull, OSError) as error:
        (on_fault or sys.stderr.write)(f"launcher: {error}\n")
        sys.exit(1)
    _on_signals(loop, stop)
    on_ready()
    loop.run()
    sys.exit(0)


def _open_log(options: object, detached: bool) -> int:
    """The log's descriptor. A detached launcher keeps none of the descriptors that it was started with."""
    target = options.log or ("/dev/null" if detached and not os.isatty(2) else None)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if target else os.dup(2)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    if detached:
        os.dup2(null, 1)
        os.dup2(fd, 2)
    os.close(null)
    return fd


def _build(options: object, log: Logger) -> tuple[Loop, object]:
    """Wires everything. Returns the loop and what stops the launcher (grace in ms)."""
    lock = _lock_spool(options.spool)
    ground = Ground(options, log)
    loop = ground.loop
    spool = Spool(options.spool, options.spool_bytes, log)
    segments, attempts, next_attempt = spool_recovery.recover(options.spool, log)
    spool.open(segments, next_attempt)

    def exit_now() -> None:
        loop.stop()
        supervisor.on_turn_end()
        ground.close()
        spool.close()
        link.close(options.socket)
        os.close(lock)

    link = AgentLink(
        loop,
        log,
        lambda *frame: supervisor.on_frame(*frame),
        lambda: supervisor.on_link_drained(),
        lambda: supervisor.on_link_gone(),
    )
    supervisor = ground.supervise(spool, link, os.path.join(options.spool, "lease"), exit_now)
    supervisor.adopt(attempts)
    spool.commit()
    loop.turn_end.append(supervisor.on_turn_end)
    link.listen(options.socket)
    if options.idle_exit_s:
        _exit_when_idle(loop, log, link, supervisor, options.idle_exit_s)
    log.info("ready", protocol=PROTOCOL, cgroup_limits=ground.groups.holding, **ground.about)
    return loop, supervisor.stop


def _lock_spool(directory: str) -> int:
    """Makes the spool directory and takes its lock. Raises StartError when another launcher has it."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(f"another launcher owns the spool {directory}") from None
    return fd


def _exit_when_idle(loop: Loop, log: Logger, link: AgentLink, supervisor: Supervisor, idle_s: int) -> None:
    """Exits once no agent has been connected and nothing has run for that long. Unacknowledged results stay on disk."""

    def check() -> None:
        unused_s = loop.now() - supervisor.last_active
        if link.connected or supervisor.active:
            loop.call_later(idle_s, check)
        elif unused_s < idle_s:
            loop.call_later(idle_s - unused_s, check)
        else:
            log.info("no agent and no work", idle_s=idle_s)
            supervisor.stop(0)

    loop.call_later(idle_s, check)


def _on_signals(loop: Loop, stop: object) -> None:
    """SIGTERM and SIGINT stop the launcher like a `stop` from the agent; an agent's end does not concern it."""
    received, write_end = os.pipe()
    os.set_blocking(received, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def on_signal(events: int) -> None:
        os.read(received, 64)
        stop(_STOP_GRACE_MS)

    loop.register(received, READABLE, on_signal)


if __name__ == "__main__":
    main()
