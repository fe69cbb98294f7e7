#!/usr/bin/env python3
"""Runs one attempt inside a job of Slurm, as the launcher runs many on its host: the same sandbox, limits and ends.

``PYTHON -I -S slurm_job.py`` in the attempt's directory on the file system that agent and node share. What is in it,
and what this leaves there, is in docs/slurm.md.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback

RUNTIME_DIR = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, RUNTIME_DIR)

import frames
import preflight
import slurm_gpus
from ground import Ground
from job_lease import JobLease
from job_records import RecordLink, Records, RecordSpool
from log import Logger
from loop import READABLE, Loop
from options import parse
from supervisor import PROTOCOL

# sysexits.h
_EX_UNAVAILABLE, _EX_SOFTWARE, _EX_CANTCREAT, _EX_TEMPFAIL = 69, 70, 73, 75
# Slurm signals all processes of the job: the code may have ended of it before this one was told.
_SIGNAL_S = 0.25
# Slurm ends the job by itself; the agent learns from Slurm why.
_STOPPING = frames.encode({"type": "stopping"})
# How often it looks whether the agent wants it to stop, in case that Slurm cannot tell it.
_LOOK_S = 5.0
# How long a stop takes that Slurm asks for by itself: at the time limit, or for another job. It kills after KillWait
# (30 s).
_SLURM_GRACE_MS = 10_000
# That which has shown that the sandbox holds, and that of the attempt's environment.
_ZYGOTES = "2"
# While the shared directory cannot be written.
_RETRY_S = 1.0
# Of the job's variables, those that say what it was given.
_TOLD = (
    *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT", "SLURM_JOB_QOS"),
    *("SLURM_JOB_NODELIST", "SLURM_CLUSTER_NAME", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE"),
    *("SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
    "ZE_AFFINITY_MASK",
)


def main() -> None:
    os.umask(0o077)
    log = Logger(os.dup(2))
    try:
        with open("job.json", encoding="utf-8") as file:
            job = json.load(file)
        _claim()
        records = Records("records", log)
        with open("start", "rb") as file:
            header, body = _start(file.read(), job.get("time_ms", 0))
    except FileExistsError:
        _note_second_start()
        sys.exit(_EX_TEMPFAIL)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"harrier: the attempt cannot be read: {error}\n")
        sys.exit(_EX_CANTCREAT)
    stop = _StopSignal()
    try:
        code = _run(job, header, body, records, stop, log)
    except preflight.Unusable as error:
        records.append(_refusal(header, "SUBMIT_FAILED", f"{os.uname().nodename}: {error}"))
        code = _EX_UNAVAILABLE
    except Exception as error:  # a defect of the runtime must not look like one of the code
        log.error("the runtime failed", traceback=traceback.format_exc())
        records.append(_refusal(header, "INTERNAL", f"the runtime on {os.uname().nodename} failed: {error!r}"))
        code = _EX_SOFTWARE
    records.release_end()
    while not records.complete:
        records.commit()
        if records.failure:
            time.sleep(_RETRY_S)
    records.close()
    sys.exit(code)


def _claim() -> None:
    """An attempt is started once, whatever Slurm does with the job. Raises FileExistsError.

    Only who makes this has the attempt: a job, which makes a file, or the agent before it gives the attempt back, which
    makes a directory. What is run is read only then; of an attempt that is removed, it goes before this does.
    """
    fd = os.open("taken", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump({"job": os.environ.get("SLURM_JOB_ID", ""), "node": os.uname().nodename}, file)


def _note_second_start() -> None:
    """Slurm may have started this job before, and have forgotten that: then only this tells the agent what happened."""
    if os.path.isdir("taken"):
        sys.stderr.write("harrier: the agent had taken this attempt back before this job started\n")
        return
    sys.stderr.write("harrier: this attempt was started by another job, or before this job was requeued\n")
    try:
        with open("taken", encoding="utf-8") as file:
            taken = json.load(file)
        if taken["job"] == os.environ.get("SLURM_JOB_ID"):
            os.close(os.open("again", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"harrier: who has started it cannot be read: {error}\n")


def _start(frame: bytes, time_ms: int) -> tuple[dict, bytes]:
    """The `start` of the attempt, with what only the node knows. Raises ValueError."""
    head, body = frames.frame_length(frame, 0)
    header = frames.parse_header(frame[frames.PREFIX.size : frames.PREFIX.size + head])
    content = frame[frames.PREFIX.size + head :]
    if len(content) != body:
        raise ValueError(f"start has {len(content)} bytes of code and input, not {body}")
    told = {name: os.environ[name] for name in _TOLD if name in os.environ}
    header["env"] = {**header.get("env", {}), **told}
    header["reuse_key"] = None
    ends_at = os.environ.get("SLURM_JOB_END_TIME", "")  # Slurm 22.05 does not tell
    if header["timeout_ms"] or not ends_at.isdigit():
        left_ms = header["timeout_ms"] or time_ms
        header["context"]["deadline"] = time.time() + left_ms / 1000 if left_ms else None
    else:
        header["context"]["deadline"] = int(ends_at)
    return header, content


def _refusal(header: dict, code: str, reason: str) -> bytes:
    """The end of an attempt that this node cannot run."""
    names = {name: header[name] for name in ("execution", "attempt")}
    end = {"outcome": "failed", "error": {"code": code, "message": reason, "details": {}}, "run_ms": 0}
    unknown = {"exit_code": None, "signal": None, "usage": None}
    streams = {"stdout": 0, "stderr": 0, "stdout_truncated": False, "stderr_truncated": False}
    return frames.encode({"type": "finished", **names, **end, **unknown, **streams})


class _StopSignal:
    """SIGTERM, from the moment at which there is something to end."""

    def __init__(self) -> None:
        self._received, write_end = os.pipe()
        os.set_blocking(self._received, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def watch(self, loop: Loop, stop: object) -> None:
        def on_signal(events: int) -> None:
            os.read(self._received, 64)
            stop()

        loop.register(self._received, READABLE, on_signal)

    def comes_within(self, seconds: float) -> bool:
        return bool(select.select([self._received], [], [], seconds)[0])


def _run(job: dict, header: dict, body: bytes, records: Records, stop: _StopSignal, log: Logger) -> int:
    """Runs the attempt to its end, and answers the job's exit code. Raises Unusable when there is no sandbox."""
    fixed = ("--socket", "none", "--spool", "none", "--max-zygotes", _ZYGOTES, "--fork-ahead", "1")
    ground = Ground(parse([*fixed, *job["flags"]]), log)
    try:
        if ground.about["isolation"] == "sandbox":  # without one, it sees all cards of the node
            slurm_gpus.give(header, job.get("gpu_dev_root", "/dev"))
    except preflight.Unusable:
        ground.close()
        raise
    loop = ground.loop
    # Nobody tells a job of containers, which the kept lease is for.
    supervisor = ground.supervise(RecordSpool(records), RecordLink(records), "lease", lambda: None)

    def tell(message: dict, content: bytes = b"") -> None:
        supervisor.on_frame(message, memoryview(content), memoryview(frames.encode(message, content)))

    def on_turn_end() -> None:
        supervisor.on_turn_end()
        if records.finished:
            loop.stop()

    names = {name: header[name] for name in ("execution", "attempt")}

    def cancel(reason: str, grace_ms: int) -> None:
        tell({"type": "cancel", **names, "reason": reason, "grace_ms": grace_ms})

    def look_for_cancel() -> bool:
        asked = _cancel_asked()
        if asked:
            cancel(*asked)
        return asked is not None

    def on_signal() -> None:
        if not look_for_cancel():
            records.append(_STOPPING)
            cancel("shutdown", _SLURM_GRACE_MS)

    def look_again() -> None:
        look_for_cancel()
        loop.call_later(_LOOK_S, look_again)

    loop.turn_end.append(on_turn_end)
    tell({"type": "hello", "protocol": PROTOCOL})
    JobLease(job["lease"], header.get("max_disconnect_ms") or 0, log, tell).watch(loop)
    tell(header, body)
    stop.watch(loop, on_signal)
    look_again()
    on_turn_end()
    if not records.finished:
        loop.run()
    if not records.succeeded and stop.comes_within(_SIGNAL_S) and not _cancel_asked():
        records.append(_STOPPING)
    ground.close()
    return 0 if records.succeeded else 1


def _cancel_asked() -> tuple[str, int] | None:
    """What the agent asks for, by a file that it makes."""
    try:
        with open("cancel.json", encoding="utf-8") as file:
            asked = json.load(file)
        return asked["reason"], asked["grace_ms"]
    except (OSError, ValueError, KeyError):
        return None


if __name__ == "__main__":
    main()
