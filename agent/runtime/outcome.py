"""How an attempt ends, as data: what the worker's last words and its exit status mean in the execution model."""

from __future__ import annotations

import os
import signal

from attempt import Attempt

# JSON may need 6 bytes for a character; a header is at most 1 MiB.
_MAX_MESSAGE_CHARS = 16 * 1024
_MAX_DETAIL_CHARS = 64 * 1024

# What a process that runs job code may say of its end. Whatever else it says, that code has said: it is the handler's
# error. OUT_OF_MEMORY is taken from it too, since code can run out of memory whenever it likes.
_HEALTHY_CODES = ("HANDLER_ERROR", "HANDLER_NOT_FOUND", "OUTPUT_INVALID", "OUTPUT_TOO_LARGE", "INPUT_INVALID")

SUCCEEDED, FAILED, TIMED_OUT, CANCELLED = "succeeded", "failed", "timed_out", "cancelled"


class Outcome:
    """``error`` is None or {code, message, details}; ``healthy`` says that the worker may serve another call."""

    __slots__ = ("error", "exit_code", "healthy", "kind", "result", "signal", "usage")

    def __init__(self, kind: str, error: dict | None = None, result: bytes = b"", healthy: bool = False) -> None:
        self.kind, self.error, self.result, self.healthy = kind, error, result, healthy
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.usage = {"cpu_ms": 0, "max_rss_bytes": 0}


def failed(code: str, message: str, details: dict | None = None, healthy: bool = False) -> Outcome:
    return Outcome(FAILED, {"code": code, "message": message, "details": details or {}}, healthy=healthy)


def from_reply(attempt: Attempt, reply: dict, body: bytes) -> Outcome:
    """The outcome that a worker reported. The reply was written by a process that runs job code: nothing is assumed."""
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    checked = {name: _number(usage.get(name)) for name in ("cpu_ms", "max_rss_bytes")}
    outcome = stopped(attempt) or _from_checked_reply(attempt, reply, body, checked["max_rss_bytes"])
    outcome.usage = checked
    return outcome


def _from_checked_reply(attempt: Attempt, reply: dict, body: bytes, max_rss_bytes: float) -> Outcome:
    kind = reply["type"]
    if kind == "result" and attempt.header["kind"] != "command":
        return Outcome(SUCCEEDED, result=body, healthy=True)
    if kind == "error":
        code, healthy = reply.get("code"), reply.get("code") in _HEALTHY_CODES
        if not healthy and code != "OUT_OF_MEMORY":
            code = "HANDLER_ERROR"
        message = str(reply.get("message"))[:_MAX_MESSAGE_CHARS]
        if code == "OUT_OF_MEMORY" and attempt.header["limits"]["memory_bytes"]:
            message += f" ({attempt.header['limits']['memory_bytes']} bytes)"
        return failed(code, message, _details(reply), healthy)
    if kind == "exit":
        number, code = (reply[name] if _is_small(reply.get(name)) else None for name in ("signal", "exit_code"))
        if attempt.header["kind"] == "script":
            return _from_lost_script(attempt, number, code or 0, max_rss_bytes)
        return from_exit(number, code, reply)
    if kind == "stopped":
        outcome = failed("KILLED", "Killed by SIGTERM, which it sent itself")
        outcome.signal = signal.SIGTERM.value
        return outcome
    if kind == "setup_failed":
        return failed("INTERNAL", f"the sandbox could not be set up: {str(reply.get('message'))[:_MAX_MESSAGE_CHARS]}")
    if kind == "not_started" and attempt.header["kind"] == "script":
        return failed("SUBMIT_FAILED", str(reply.get("message"))[:_MAX_MESSAGE_CHARS])
    told = str(reply.get("message", kind))[:_MAX_MESSAGE_CHARS]
    return failed("HANDLER_ERROR", f"the process broke its result channel: {told}")


def _details(reply: dict) -> dict:
    """An exception's type and traceback, cut so that the header stays well below its bound."""
    details = reply.get("details")
    if not isinstance(details, dict):
        return {}
    return {
        name: details[name][:_MAX_DETAIL_CHARS] for name in ("type", "traceback") if isinstance(details.get(name), str)
    }


def from_exit(number: int | None, code: int | None, reply: dict) -> Outcome:
    """The end of a command, or of a handler's process that signalled itself."""
    if number is not None:
        outcome = failed("KILLED", f"Killed by {signal_name(number)}")
    elif code:
        outcome = failed("EXIT_NONZERO", str(reply.get("message") or f"Exited with code {code}")[:_MAX_MESSAGE_CHARS])
    else:
        outcome = Outcome(SUCCEEDED)
    outcome.exit_code, outcome.signal = code, number
    return outcome


def _from_lost_script(attempt: Attempt, number: int | None, code: int, max_rss_bytes: float) -> Outcome:
    """The end of a script whose interpreter has ended without a word of the runner."""
    outcome = _without_answer(number, code)
    limit = attempt.header["limits"]["memory_bytes"]
    # V8 aborts when its heap has reached the limit that it was given, and so its process more than that.
    if number in (signal.SIGABRT, signal.SIGTRAP) and 0 < limit <= max_rss_bytes:
        outcome.error = {**outcome.error, "code": "OUT_OF_MEMORY"}
        outcome.error["message"] = f"The memory limit was reached ({limit} bytes): the interpreter aborted"
    outcome.signal, outcome.exit_code = number, None if number else code
    return outcome


def _without_answer(number: int | None, code: int) -> Outcome:
    if number is not None:
        return failed("KILLED", f"The process was killed by {signal_name(number)}")
    return failed("HANDLER_ERROR", f"The process exited with code {code} before the handler returned")


def from_status(attempt: Attempt, status: int | None) -> Outcome:
    """The outcome of an attempt whose process ended without a reply; None is a status that nobody could read."""
    outcome = stopped(attempt)
    if outcome is None and status is None:
        outcome = failed("KILLED", "The sandbox of the process was killed")
    elif outcome is None:
        outcome = _without_answer(os.WTERMSIG(status) if os.WIFSIGNALED(status) else None, os.WEXITSTATUS(status))
    if status is not None and os.WIFSIGNALED(status):
        outcome.signal = os.WTERMSIG(status)
    elif status is not None:
        outcome.exit_code = os.WEXITSTATUS(status)
    return outcome


def with_oom_kill(attempt: Attempt, outcome: Outcome) -> Outcome:
    """The outcome of an attempt of which the kernel has killed a process for want of memory."""
    error = outcome.error
    if outcome.kind != FAILED or error["code"] not in ("HANDLER_ERROR", "EXIT_NONZERO", "KILLED"):
        return outcome
    limit = attempt.header["limits"]["memory_bytes"]
    why = f"More memory was needed than the limit of {limit} bytes" if limit else "The host ran out of memory"
    outcome.error = {**error, "code": "OUT_OF_MEMORY", "message": f"{why}: {error['message']}"}
    outcome.healthy = False
    return outcome


def stopped(attempt: Attempt) -> Outcome | None:
    """The outcome of an attempt that was told to stop, whatever its process made of that; None when it was not."""
    if attempt.timed_out:
        limit = attempt.header["timeout_ms"]
        error = {"code": "TIMEOUT", "message": f"Did not end within {limit} ms", "details": {}}
        return Outcome(TIMED_OUT, error)
    if attempt.cancel_reason:
        if attempt.cancel_reason == "shutdown":
            # Nobody cancelled it: it is tried elsewhere.
            return failed("AGENT_LOST", "The agent stopped it")
        if attempt.cancel_reason == "lease":
            return failed("AGENT_LOST", "Its agent could not reach the control plane for longer than it may go on")
        return Outcome(CANCELLED, {"code": "CANCELLED", "message": "Cancelled", "details": {}})
    return None


def import_timed_out(limit_s: float) -> Outcome:
    """Of an attempt whose environment did not become ready in its time."""
    message = f"The packages of its environment were not imported within {limit_s * 1000:.0f} ms"
    return Outcome(TIMED_OUT, {"code": "TIMEOUT", "message": message, "details": {}})


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _number(value: object) -> float:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 53
    return value if ok else 0


def _is_small(value: object) -> bool:
    return type(value) is int and 0 <= value < 256
