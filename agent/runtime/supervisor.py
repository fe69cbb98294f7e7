"""Owns the attempts: takes the agent's messages, moves each attempt from start to its end, and forgets it when told.

Invariant: an attempt that was accepted gets exactly one final record, whatever its process or the agent does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import boot_timer
import environment
import fast_json
import final_record
import frames
import outcome as outcomes
import start_request
from agent_link import AgentLink
from attachments import Attachments
from attempt import FINISHED, PENDING, RUNNING, Attempt
from cgroups import Cgroups
from delivery import Delivery, unacknowledged_bytes
from egress import Egress
from guard_process import GuardProcess
from leases import Leases, max_disconnect_of
from limits import SCRIPT_INTERPRETER_BYTES
from load_report import LoadReport
from loop import Loop
from outcome import Outcome
from output_reader import OutputReader
from spool import Spool, SpoolFull
from start_notices import StartNotices
from tenants import Tenants
from termination import Termination
from worker import Worker

PROTOCOL = 1
# What an agent may not expect of every launcher of this protocol.
FEATURES = ("lease", "script", "gpus", "warm")
# Acknowledged attempts are crossed out on disk with the next records, or after this time.
_FORGET_DELAY_S = 0.05
# How long a zygote may take to tell that a process killed with the lease has ended, before it is killed itself.
_LEASE_PATIENCE_S = 1.0
# Errors carry a message and a traceback; results have their own limit. A worker's frame is refused above the larger.
_SMALLEST_BODY_BOUND = 1 << 20


class Supervisor:
    """The launcher's core. Everything runs in the loop's one thread."""

    def __init__(
        self,
        loop: Loop,
        log: object,
        spool: Spool,
        link: AgentLink,
        tenants: Tenants,
        egress: Egress,
        attachments: Attachments,
        cgroups: Cgroups,
        lease_path: str,
        about: dict,
        on_stopped: Callable,
    ) -> None:
        self._loop, self._log, self._spool, self._link, self._tenants = loop, log, spool, link, tenants
        self._egress, self._attachments, self._cgroups = egress, attachments, cgroups
        attachments.tell = self._tell_of_attachment
        self._about = about  # the constant fields of `welcome`
        self._on_stopped = on_stopped
        self._delivery = Delivery(link, spool)
        self._output = OutputReader(loop, spool, self._delivery, log)
        self._notices = StartNotices(loop, spool, self._delivery)
        self._termination = Termination(loop)
        self._leases = Leases(loop, log)
        self._containers = GuardProcess(loop, log, self._leases, lease_path)
        self._load_report = LoadReport(loop, link, self._load)
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._active = 0
        self._stopping = False
        self._progressed: dict[Attempt, None] = {}
        self._forget_timer = None
        self.last_active = time.monotonic()
        self._started_at = boot_timer.now()
        self._handlers = {
            "start": self._on_start,
            "ack": self._on_ack,
            "cancel": self._on_cancel,
            "hello": self._on_hello,
            "warm": self._on_warm,
            "retire": self._on_retire,
            "expect": self._on_expect,
            "lease": self._on_lease,
            "guard": lambda header, *_: self._containers.guard(header),
            "unguard": lambda header, *_: self._containers.release(header),
            "stop": self._on_stop,
        }

    @property
    def active(self) -> int:
        """Attempts that are accepted and not finished."""
        return self._active

    def adopt(self, attempts: dict[tuple[str, int], Attempt]) -> None:
        """Takes over what an earlier launcher left in the spool; what was running then was lost with it."""
        self._attempts = attempts
        for attempt in attempts.values():
            if attempt.state != FINISHED:
                lost = outcomes.failed("AGENT_LOST", "The launcher ended while this attempt ran")
                final_record.write(self._spool, self._log, attempt, lost, 0)

    # Messages from the agent.

    def on_frame(self, header: dict, body: memoryview, frame: memoryview) -> None:
        """Raises FrameError for what ends the connection."""
        handler = self._handlers.get(header["type"])
        if handler is None:
            raise frames.FrameError(f"unknown type {header['type'][:40]!r}")
        if not self._link.greeted and header["type"] != "hello":
            raise frames.FrameError("the first frame must be hello")
        try:
            handler(header, body, frame)
        except ValueError as error:
            raise frames.FrameError(str(error)) from None

    def _on_hello(self, header: dict, body: memoryview, frame: memoryview) -> None:
        if header.get("protocol") != PROTOCOL:
            raise ValueError(f"hello: protocol must be {PROTOCOL}")
        attempts = [attempt.summary() for attempt in self._attempts.values()]
        told_again = fast_json.encode([attempt.told_again() for attempt in self._attempts.values()])
        self._link.greeted = True
        age_ms = (boot_timer.now() - self._started_at) * 1000
        changing = {"cgroup_limits": self._cgroups.holding, "age_ms": age_ms, "attempts": attempts}
        welcome = {"type": "welcome", "protocol": PROTOCOL, **self._about, **changing}
        # In the body: of all attempts that an agent can hold, a header has no room for it.
        self._link.send(frames.encode(welcome, told_again.encode("utf-8", "replace")))
        self._attachments.tell_all()
        self._load_report.begin()
        for attempt in list(self._attempts.values()):
            self._delivery.restart(attempt)

    def _on_start(self, header: dict, body: memoryview, frame: memoryview) -> None:
        key = start_request.attempt_key(header)
        if key in self._attempts:
            return
        limits = header.get("limits")
        limits = limits if isinstance(limits, dict) else {}
        bounds = [limits.get(name) if type(limits.get(name)) is int else 0 for name in ("stdout_bytes", "stderr_bytes")]
        attempt = Attempt(*key, self._spool.next_number(), *bounds)
        self._attempts[key] = attempt
        self._active += 1
        attempt.header = header
        try:
            start_request.check(header, len(body))
            wanted = environment.parse(header.get("environment"))
            attempt.max_disconnect_ms = max_disconnect_of(header)
            attempt.gpus = header.get("gpus", [])
            attempt.tenant, attempt.about = header["tenant"], header.get("about", {})
        except ValueError as error:
            code = error.code if isinstance(error, start_request.Refused) else "INTERNAL"
            self._finish(attempt, outcomes.failed(code, f"The launcher does not take it: {error}"))
            return
        if self._stopping:
            attempt.cancel_reason = "shutdown"
            self._finish(attempt, outcomes.stopped(attempt))
            return
        if attempt.max_disconnect_ms is not None and self._leases.is_over(attempt.max_disconnect_ms):
            attempt.cancel_reason = "lease"
            self._finish(attempt, outcomes.stopped(attempt))
            return
        prelude_bytes = header.get("prelude_bytes", 0)
        if prelude_bytes:
            try:
                self._output.prepend(attempt, body[:prelude_bytes])
            except SpoolFull as full:
                self._finish(attempt, outcomes.failed("INTERNAL", f"No room to keep what the preparation said: {full}"))
                return
        if wanted and (wanted.binds or wanted.devices) and self._about["isolation"] == "none":
            why = "An environment needs a sandbox, and this agent runs without one"
            self._finish(attempt, outcomes.failed("ENVIRONMENT_FAILED", why))
            return
        if wanted and wanted.attached and not self._tenants.is_attached(attempt.header["tenant"], wanted.key):
            self._finish(attempt, outcomes.failed("INTERNAL", f"No container is attached for {wanted.key}"))
            return
        self._submit(attempt, wanted, frame)

    def _submit(self, attempt: Attempt, wanted: environment.Environment | None, frame: memoryview) -> None:
        header = attempt.header
        if attempt.max_disconnect_ms is not None:
            self._leases.hold(attempt, attempt.max_disconnect_ms, partial(self._on_lease_over, attempt))
        attempt.network = header.get("network") is not None and self._about["isolation"] == "sandbox"
        if header["kind"] == "python" and header.get("reuse_key") is not None:
            # A kept worker has a network namespace of its own, or has none.
            attempt.reuse_key = header["reuse_key"] + ("\0network" if attempt.network else "")
        attempt.frame = frame
        attempt.pool = self._tenants.pool(attempt.tenant, wanted)
        attempt.pool.submit(attempt)
        if wanted and wanted.devices:
            self._tenants.retire(attempt.tenant, wanted.key)  # ends with this call
        if attempt.state == PENDING and attempt.frame is not None:
            attempt.frame = bytes(frame)  # the view is valid for this call only
            if wanted:
                self._termination.while_importing(attempt, self._on_import_timeout)

    def _on_ack(self, header: dict, body: memoryview, frame: memoryview) -> None:
        attempt = self._attempts.get(start_request.attempt_key(header))
        if attempt is None:
            return
        stdout, stderr = header.get("stdout", 0), header.get("stderr", 0)
        if type(stdout) is not int or type(stderr) is not int:
            raise ValueError("ack: stdout and stderr must be integers")
        if header.get("result") is True and attempt.state == FINISHED:
            self._forget(attempt)
        else:
            self._delivery.acknowledge(attempt, stdout, stderr)
        self._load_report.note()

    def _forget(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        self._delivery.forget(attempt)
        self._spool.forget(attempt)
        if self._forget_timer is None:
            self._forget_timer = self._loop.call_later(_FORGET_DELAY_S, self._record_forgotten)

    def _record_forgotten(self) -> None:
        self._forget_timer = None
        self._spool.commit_forgotten()

    def _on_cancel(self, header: dict, body: memoryview, frame: memoryview) -> None:
        attempt = self._attempts.get(start_request.attempt_key(header))
        grace_ms = header.get("grace_ms", 0)
        if type(grace_ms) is not int or grace_ms < 0:
            raise ValueError("cancel: grace_ms must be an integer from 0")
        if attempt is not None:
            self._cancel(attempt, "shutdown" if header.get("reason") == "shutdown" else "cancel", grace_ms)

    def _on_lease(self, header: dict, body: memoryview, frame: memoryview) -> None:
        self._leases.renew(header)
        self._containers.renew()

    def _on_lease_over(self, attempt: Attempt, grace_ms: int) -> None:
        # Whoever owns it next may start soon.
        self._cancel(attempt, "lease", grace_ms, _LEASE_PATIENCE_S)

    def _cancel(self, attempt: Attempt, reason: str, grace_ms: int, *patience_s: float) -> None:
        if attempt.state == FINISHED:
            return
        if not attempt.timed_out and not attempt.cancel_reason:
            attempt.cancel_reason = reason
        if attempt.state == PENDING:
            attempt.pool.withdraw(attempt)
            self._tenants.on_idle()
            self._finish(attempt, outcomes.stopped(attempt))
        else:
            self._termination.start(attempt, grace_ms, *patience_s)

    def _on_warm(self, header: dict, body: memoryview, frame: memoryview) -> None:
        wanted = environment.parse(header.get("environment"))
        if wanted is None:
            self._tenants.pool(_tenant_of(header)).warm()
        elif self._about["isolation"] == "sandbox":
            self._tenants.start_ahead(_tenant_of(header), wanted, _expected_worker(header.get("worker")))

    def _on_retire(self, header: dict, body: memoryview, frame: memoryview) -> None:
        key = header.get("key")
        if not isinstance(key, str) or not key:
            raise ValueError("retire: key must be a text that is not empty")
        self._tenants.retire(_tenant_of(header), key)

    def _on_expect(self, header: dict, body: memoryview, frame: memoryview) -> None:
        wanted = environment.parse_expected(header)
        tenant = _tenant_of(header)
        try:
            self._attachments.expect(tenant, wanted, header["socket"])
        except OSError as error:
            reason = f"cannot listen on {header['socket']}: {error.strerror or error}"
            self._send({"type": "detached", "tenant": tenant, "key": wanted.key, "reason": reason})

    def _tell_of_attachment(self, header: dict) -> None:
        if self._link.greeted:  # an agent that comes later is told what is attached then
            self._send(header)

    def _on_stop(self, header: dict, body: memoryview, frame: memoryview) -> None:
        grace_ms = header.get("grace_ms", 0)
        if type(grace_ms) is not int or grace_ms < 0:
            raise ValueError("stop: grace_ms must be an integer from 0")
        self.stop(grace_ms)

    def stop(self, grace_ms: int) -> None:
        """Ends all attempts; ``on_stopped`` follows when the last one has its final record."""
        self._log.info("the launcher stops", active=self._active)
        self._stopping = True
        for attempt in list(self._attempts.values()):
            self._cancel(attempt, "shutdown", grace_ms)
        if not self._active:
            self._on_stopped()

    # An attempt runs.

    def on_assigned(self, attempt: Attempt, worker: Worker) -> None:
        """The pool has a worker for it: the code is about to run."""
        if worker.reuse_key is not None:
            self._output.discard(worker)
        header = attempt.header
        frame, attempt.frame = attempt.frame, None
        attempt.state, attempt.worker, attempt.started_at = RUNNING, worker, time.monotonic()
        bound = max(_SMALLEST_BODY_BOUND, header["limits"]["result_bytes"])
        if worker.slot:
            self._limit(worker, attempt)
        if attempt.network:
            self._egress.open(attempt.number, worker.listener, header["network"])
        worker.give(attempt, frame, bound, self._on_reply)
        if worker.zygote.faults:
            self._output.keep(attempt, attempt.stderr, worker.zygote.take_faults())
        self._output.watch(attempt, worker)
        self._termination.after_timeout(attempt)
        self._notices.add(attempt)
        self._load_report.note()

    def _limit(self, worker: Worker, attempt: Attempt) -> None:
        limits = attempt.header["limits"]
        memory_bytes = limits["memory_bytes"]
        if memory_bytes and attempt.header["kind"] == "script":
            memory_bytes += SCRIPT_INTERPRETER_BYTES
        try:
            worker.slot.limit(memory_bytes, limits.get("cpu", 0), limits["processes"], worker.pidfd)
        except OSError as error:
            self._log.error("a limit cannot be set", execution=attempt.execution, error=str(error))

    def _on_reply(self, worker: Worker, reply: dict, body: bytes) -> None:
        attempt = worker.attempt
        if attempt is None:
            return
        if reply["type"] == "progress":
            self._on_progress(attempt, reply)
            return
        if reply["type"] == "asyncio":
            attempt.pool.preload_asyncio()
            return
        self._finish(attempt, outcomes.from_reply(attempt, reply, body))

    def _on_progress(self, attempt: Attempt, reply: dict) -> None:
        percent, step = reply.get("percent"), reply.get("step")
        if isinstance(percent, (int, float)) and 0 <= percent <= 100 and isinstance(step, str):
            ids = {"execution": attempt.execution, "attempt": attempt.attempt}
            attempt.progress = frames.encode({"type": "progress", **ids, "percent": percent, "step": step[:1000]})
            self._progressed[attempt] = None

    def on_worker_ended(self, attempt: Attempt, worker: Worker, status: int | None) -> None:
        """The process has ended. What it said before that is still in its channel and counts."""
        while worker.attempt is attempt and worker.read_channel():
            pass
        if worker.attempt is attempt:
            self._finish(attempt, outcomes.from_status(attempt, status))

    def on_assign_failed(self, attempt: Attempt, code: str, reason: str) -> None:
        self._finish(attempt, outcomes.failed(code, reason))

    def _on_import_timeout(self, attempt: Attempt, limit_s: float) -> None:
        attempt.pool.withdraw(attempt)
        self._tenants.on_idle()
        self._finish(attempt, outcomes.import_timed_out(limit_s))

    # An attempt ends.

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Records the end, tells the agent, gives the worker back; in this order."""
        run_ms = 0.0
        worker, attempt.worker = attempt.worker, None
        if attempt.timer:
            attempt.timer.cancel()
            attempt.timer = None
        if worker:
            run_ms = (time.monotonic() - attempt.started_at) * 1000
            if worker.slot and worker.slot.take_oom_kills():
                outcome = outcomes.with_oom_kill(attempt, outcome)
            self._output.drain(attempt, worker)
            self._output.unwatch(attempt, worker)
            if attempt.network:
                self._egress.close(attempt.number)
        attempt.frame = None
        if attempt.max_disconnect_ms is not None:
            self._leases.release(attempt, attempt.max_disconnect_ms)
        self._active -= 1
        final_record.write(self._spool, self._log, attempt, outcome, run_ms)
        attempt.header = {}
        self._delivery.pump(attempt)
        if worker:
            attempt.pool.release(worker, outcome.healthy)
            self._tenants.on_idle()
        self.last_active = time.monotonic()
        self._load_report.note()
        if self._stopping and not self._active:
            self._on_stopped()

    # Once a turn.

    def on_turn_end(self) -> None:
        """Commits to disk, then lets the link write: what is sent is on disk."""
        if self._progressed:
            for attempt in self._progressed:
                if attempt.state == RUNNING:
                    self._delivery.pump(attempt)
            self._progressed.clear()
        if self._delivery.take_offered():
            self._load_report.note()
        self._spool.commit()
        self._link.flush()
        # A link that took everything does not tell that it takes more.
        while self._delivery.waits and self._link.open_for_data:
            self._delivery.pump_waiting()
            self._spool.commit()
            self._link.flush()

    def end_guard(self) -> None:
        """The launcher ends. Containers of single calls are the agent's, and may go on."""
        self._containers.end()

    def on_link_drained(self) -> None:
        self._delivery.pump_waiting()

    def on_link_gone(self) -> None:
        self.last_active = time.monotonic()
        for attempt in self._attempts.values():
            self._delivery.forget(attempt)

    def _send(self, header: dict) -> None:
        self._link.send(frames.encode(header))

    def _load(self) -> tuple[int, ...]:
        zygotes, workers = self._tenants.counts()
        return self._active, zygotes, workers, unacknowledged_bytes(self._attempts.values())


def _expected_worker(fields: object) -> tuple[int, bool] | None:
    """What the first call of a `warm` will need: size of /tmp, network. Raises ValueError."""
    if fields is None:
        return None
    tmp_bytes = fields.get("tmp_bytes") if isinstance(fields, dict) else None
    if type(tmp_bytes) is not int or tmp_bytes < 1:
        raise ValueError("warm: worker.tmp_bytes must be an integer from 1")
    return tmp_bytes, fields.get("network") is True


def _tenant_of(header: dict) -> str:
    tenant = header.get("tenant")
    if not isinstance(tenant, str) or not tenant:
        raise ValueError(f"{header['type']}: tenant must be a text that is not empty")
    return tenant
