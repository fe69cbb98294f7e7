"""What the launcher knows about one attempt: its streams, its state, how it ended."""

from __future__ import annotations

from collections import deque

import fast_json

# States, in their only order: pending (no process yet), running, finished (final, not yet acknowledged).
PENDING, RUNNING, FINISHED = "pending", "running", "finished"

STREAM_NAMES = ("stdout", "stderr")


class Stream:
    """One output stream. ``acked <= sent <= length``, in bytes from the start of the stream.

    ``known``: so many bytes came from the agent itself.
    """

    __slots__ = ("acked", "chunks", "known", "last_read", "length", "limit", "name", "pause", "sent", "truncated")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.length = 0
        self.known = 0
        self.sent = 0
        self.acked = 0
        self.truncated = False
        self.chunks: deque[tuple[int, int, object, int]] = deque()  # (offset, length, segment, position)
        self.last_read = 0.0
        self.pause = None  # the timer after which it is read again


class Attempt:
    """One attempt. ``final`` is the header of its `finished` frame, ``result`` that frame's body or where it lies."""

    __slots__ = (
        "about",
        "acked_in",
        "attempt",
        "cancel_reason",
        "execution",
        "final",
        "final_sent",
        "frame",
        "gpus",
        "header",
        "ids",
        "in_spool",
        "killed",
        "killing",
        "max_disconnect_ms",
        "network",
        "number",
        "pool",
        "progress",
        "result",
        "reuse_key",
        "segments",
        "started",
        "started_at",
        "started_in",
        "state",
        "stderr",
        "stdout",
        "streams",
        "tenant",
        "timed_out",
        "timer",
        "worker",
    )

    def __init__(self, execution: str, attempt: int, number: int, stdout_limit: int, stderr_limit: int) -> None:
        self.execution = execution
        self.attempt = attempt
        self.number = number  # its name in the spool
        quoted = '"%s"' % execution if execution.replace("-", "").isalnum() else fast_json.encode(execution)
        self.ids = '"execution":%s,"attempt":%d' % (quoted, attempt)
        self.stdout = Stream("stdout", stdout_limit)
        self.stderr = Stream("stderr", stderr_limit)
        self.streams = (self.stdout, self.stderr)
        self.state = PENDING
        self.tenant = ""
        self.gpus: list[str] = []  # what the agent has reserved for it
        self.about: dict = {}  # what the agent wants to be told again
        self.network = False  # it runs in a network namespace of its own
        self.pool = None  # what gives it its worker
        self.reuse_key: str | None = None
        self.header: dict = {}
        self.frame: bytes | None = None  # the start frame, kept while no worker has it
        self.worker = None
        self.timer = None  # its timeout, later the end of its grace
        self.started_at = 0.0
        self.cancel_reason: str | None = None
        self.max_disconnect_ms: int | None = None  # how long it may go on beyond the agent's lease; None: for ever
        self.timed_out = False
        self.killing = False  # SIGTERM was sent, SIGKILL follows after the grace
        self.killed = False
        self.started: bytes | None = None  # its `started` frame, not yet sent
        self.in_spool = False  # its start, or its end, is recorded
        self.progress: bytes | None = None  # the newest report, not yet sent
        self.final: bytes | None = None
        self.final_sent = False
        self.result: bytes | tuple[object, int, int] = b""  # bytes, or (segment, position, length)
        self.started_in: object | None = None  # the spool segment with the newest record of its start
        self.acked_in: object | None = None  # the spool segment with the newest record of what is acknowledged
        self.segments: dict[object, int] = {}  # spool segment: how many of its records are still needed

    @property
    def key(self) -> tuple[str, int]:
        return self.execution, self.attempt

    def unacked(self) -> int:
        """Bytes sent and not acknowledged, both streams together, but for those that the agent had before."""
        out, err = self.stdout, self.stderr
        return out.sent - out.acked + err.sent - max(err.acked, err.known)

    def told_again(self) -> dict | None:
        """Its line in the body of `welcome`; None for one of a former launcher, whose spool does not have it."""
        return {"tenant": self.tenant, **self.about} if self.tenant else None

    def summary(self) -> dict:
        """Its line in `welcome`."""
        gpus = {"gpus": self.gpus} if self.gpus else {}
        return {
            **gpus,
            "execution": self.execution,
            "attempt": self.attempt,
            "state": "finished" if self.state == FINISHED else "running",
            "stdout": self.stdout.length,
            "stderr": self.stderr.length,
        }
