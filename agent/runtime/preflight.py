"""Proves that calls can be run, and that the sandbox holds, before the launcher says that it is ready: by one call."""

from __future__ import annotations

import json
import os

import frames
import interpreter
from cgroups import Cgroups
from loop import Loop
from sandbox import find_bwrap
from spawn import Spec
from worker import Worker
from zygote_process import ZygoteProcess

_TIMEOUT_S = 30.0
_TMP_BYTES = 1 << 20
# What must hold in every sandbox, as a call sees it: the names of what does not.
_CODE = b"""
import os, socket
def handler(input):
    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines() if ':' in line)
    capabilities = [int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')]
    def writable(path):
        try:
            os.close(os.open(path + '/harrier-probe', os.O_CREAT | os.O_WRONLY))
            return True
        except OSError:
            return False
    holds = {
        'a PID namespace of its own': os.getpid() == 1 and [n for n in os.listdir('/proc') if n.isdigit()] == ['1'],
        'a user that is not root': 0 not in (os.getuid(), os.geteuid()),
        'no capabilities': not any(capabilities),
        'no_new_privs': status['NoNewPrivs'].strip() == '1',
        'a seccomp filter': status['Seccomp'].strip() == '2',
        'no network but a loopback': {name for _, name in socket.if_nameindex()} <= {'lo'},
        'a file system that cannot be written': not any(map(writable, ('', '/usr', '/etc', '/dev', '/harrier'))),
        'a private /tmp and /dev/shm': writable('/tmp') and writable('/dev/shm'),
        'no open descriptors of others': sorted(os.listdir('/proc/self/fd'))[:4] == ['0', '1', '2', '3']
            and len(os.listdir('/proc/self/fd')) <= 5,
    }
    return {'missing': [name for name, held in holds.items() if not held]}
"""
_BARE_CODE = b"def handler(input):\n    return {'missing': []}\n"
_FINE = b'{"missing":[]}'


class Unusable(Exception):
    """No call can be run this way; the message says why and what to do."""


class _Check:
    """Owner of the zygote while it is tried."""

    def __init__(self, loop: Loop, log: object, spec: Spec) -> None:
        self._loop = loop
        self._code = _CODE if spec.bwrap else _BARE_CODE
        self.fault: str | None = "it did not answer in time"
        self._timer = loop.call_later(_TIMEOUT_S, loop.stop)
        self.zygote = ZygoteProcess(loop, log, spec, self)

    def on_ready(self, zygote: ZygoteProcess) -> None:
        if zygote.fork(_TMP_BYTES, False, rehearse=True) is None:
            self._end("no worker could be asked for")

    def on_forked(self, worker: Worker) -> None:
        header = {"type": "start", "kind": "python", "handler": "handler", "filename": "preflight.py", "context": {}}
        header.update(code_bytes=len(self._code), input_bytes=2)
        header["limits"] = {"memory_bytes": 0, "processes": 0, "result_bytes": 0}
        worker.give(self, frames.encode(header, self._code + b"{}"), 1 << 20, self._on_reply)

    def on_fork_failed(self, worker: Worker, text: str) -> None:
        self._end(text)

    def on_ended(self, worker: Worker, status: int | None) -> None:
        while worker.channel >= 0 and worker.read_channel():
            pass
        worker.close()
        self._end(f"its process ended with wait status {status}")

    def on_dead(self, zygote: ZygoteProcess, reason: str) -> None:
        self._end(reason)

    def _on_reply(self, worker: Worker, reply: dict, body: bytes) -> None:
        if reply["type"] != "result":
            self._end(str(reply.get("message", reply)))
        else:
            self._end(None if body == _FINE else f"the sandbox lacks {', '.join(json.loads(body)['missing'])}")
        worker.close()

    def _end(self, fault: str | None) -> None:
        if self._timer.callback:
            self.fault = fault
            self._timer.cancel()
            self._loop.stop()


def choose(
    log: object,
    runtime_dir: str,
    wanted: str | None,
    uid: int,
    gid: int,
    allow_bare: bool,
    cgroups: Cgroups,
    new_loop: object,
) -> tuple[Spec, ZygoteProcess, Loop]:
    """The first way of running calls that works, with its zygote and the loop that it is registered in.

    Raises Unusable. Without a sandbox only when ``allow_bare``, and only after every interpreter failed in one.
    """
    bwrap = find_bwrap()
    faults = [] if bwrap else ["bubblewrap is not installed (Debian: apt-get install bubblewrap)"]
    for path in interpreter.candidates(wanted) if bwrap else []:
        blocked = interpreter.unreachable(path, uid, gid) if os.geteuid() == 0 and os.path.exists(path) else None
        if blocked:
            faults.append(f"{path}: the sandbox's user {uid} may not enter {blocked}")
            continue
        try:
            return _try(log, Spec(bwrap, interpreter.describe(path), runtime_dir, uid, gid, cgroups), new_loop)
        except (OSError, ValueError, Unusable) as error:
            faults.append(f"{path}: {error}")
    if not allow_bare:
        raise Unusable("no sandbox can be started: " + "; ".join(faults))
    log.warn("jobs run without a sandbox", reasons=faults)
    path = wanted or interpreter.candidates(None)[0]
    try:
        return _try(log, Spec(None, interpreter.describe(path), runtime_dir, uid, gid, cgroups), new_loop)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from None


def _try(log: object, spec: Spec, new_loop: object) -> tuple[Spec, ZygoteProcess, Loop]:
    loop = new_loop()
    check = _Check(loop, log, spec)
    loop.run()
    if check.fault is None and check.zygote.ready:
        return spec, check.zygote, loop
    check.zygote.kill()
    raise Unusable(check.fault or "its zygote ended")
