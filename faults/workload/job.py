"""What the executions of the fault machine do: prints, takes its time, and tells a witness past everything of Harrier.

The witness is a named pipe that the sandbox shows read-only: a pipe can be written to all the same, and nothing that
happens to Harrier's processes loses what is in it. Input: the fields of `jobInput`.
"""

import json
import os
import signal
import sys
import time

_BEAT_S = 0.2


class _Witness:
    def __init__(self, paths, key, attempt, execution):
        path = next(path for path in paths if os.path.exists(path))
        self._fd = os.open(path, os.O_WRONLY)
        # Each time of a schedule has evidence of its own.
        time_of_schedule = os.environ.get("HARRIER_SCHEDULE_TIME")
        name = f"{key}@{time_of_schedule}" if time_of_schedule else key
        self._prefix = f"{name} {attempt} {execution} {os.urandom(6).hex()}"

    def mark(self, event):
        # Shorter than PIPE_BUF: whole lines only (pipe(7)).
        os.write(self._fd, f"{self._prefix} {event} {time.monotonic_ns() // 1000}\n".encode())


def handler(input, context=None):
    attempt = context.attempt if context else 0
    execution = context.execution_id if context else ""
    witness = _Witness(input["witness"], input["key"], attempt, execution or "-") if input["witness"] else None
    _mark(witness, "start")
    if input["daemon"] and witness:
        _leave_daemon(witness)
    _print_slowly(input, witness)
    if (attempt and attempt <= input["failures"]) or (input["flaky"] and int(execution[-1], 16) < 8):
        _mark(witness, "raised")
        raise RuntimeError("this attempt was meant to fail")
    _mark(witness, "end")
    return {"key": input["key"], "lines": input["lines"]}


def _print_slowly(input, witness):
    run_s, lines = input["run_ms"] / 1000, input["lines"]
    beats = max(1, int(run_s / _BEAT_S))
    for beat in range(beats):
        for number in range(lines * beat // beats, lines * (beat + 1) // beats):
            print(f"{input['key']} {number} ".ljust(input["line_bytes"], "."))
        sys.stdout.flush()
        time.sleep(run_s / beats)
        _mark(witness, "alive")


def _leave_daemon(witness):
    """A process in a session of its own that no signal but SIGKILL ends."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        witness.mark("daemon")
        time.sleep(_BEAT_S)


def _mark(witness, event):
    if witness:
        witness.mark(event)


if __name__ == "__main__":
    handler(json.load(sys.stdin))
