"""Writes down how an attempt ended: into the spool, or where that has no room, into memory."""

from __future__ import annotations

import json

import outcome as outcomes
from attempt import FINISHED, PENDING, Attempt
from outcome import Outcome
from spool import Spool, SpoolFull
from spool_recovery import RESULT_IN_MEMORY_BYTES


def write(spool: Spool, log: object, attempt: Attempt, outcome: Outcome, run_ms: float) -> None:
    """An end that finds no room in the spool is kept in memory, and with it a small result; a large one is lost."""
    reason = _write(spool, attempt, outcome, run_ms)
    if reason:
        size = len(outcome.result)
        log.error(
            "an end is not in the spool",
            execution=attempt.execution,
            attempt=attempt.attempt,
            result_bytes=size,
            reason=reason,
        )
        if size > RESULT_IN_MEMORY_BYTES:
            lost = outcomes.failed("INTERNAL", f"No room to keep the result of {size} bytes: {reason}")
            _write(spool, attempt, lost, run_ms)
    attempt.state = FINISHED


def _write(spool: Spool, attempt: Attempt, outcome: Outcome, run_ms: float) -> str:
    """Returns why the spool does not take it; it is in memory then. Empty when the spool does."""
    attempt.final, attempt.result = _header(attempt, outcome, run_ms), outcome.result
    try:
        place = spool.append_finish(attempt, attempt.final, outcome.result)
    except SpoolFull as full:
        return str(full)
    if len(outcome.result) > RESULT_IN_MEMORY_BYTES:
        attempt.result = place
    return ""


def _header(attempt: Attempt, outcome: Outcome, run_ms: float) -> bytes:
    text = json.dumps(outcome.error) if outcome.error else "null"
    usage = outcome.usage
    return (
        '{"type":"finished",%s,"outcome":"%s","error":%s,"exit_code":%s,"signal":%s,"run_ms":%.3f,'
        '"stdout":%d,"stderr":%d,"stdout_truncated":%s,"stderr_truncated":%s,'
        '"usage":{"cpu_ms":%s,"max_rss_bytes":%d}%s}'
        % (
            attempt.ids,
            outcome.kind,
            text,
            "null" if outcome.exit_code is None else outcome.exit_code,
            "null" if outcome.signal is None else outcome.signal,
            run_ms,
            attempt.stdout.length,
            attempt.stderr.length,
            "true" if attempt.stdout.truncated else "false",
            "true" if attempt.stderr.truncated else "false",
            usage["cpu_ms"],
            usage["max_rss_bytes"],
            ',"never_started":true' if attempt.state == PENDING else "",
        )
    ).encode()
