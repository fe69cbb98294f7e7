"""Timeouts, cancellation, limits: how a call ends that does not end by itself."""

from __future__ import annotations

import support

# By then a handler runs, also on a busy machine.
BEGUN_MS = 5_000
SLEEPER = """
import time
def handler(input):
    try:
        print('up')
        time.sleep(600)
    finally:
        print('cleaned up')
"""
STUBBORN = """
import signal, time
def handler(input):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('up')
    while True:
        time.sleep(600)
"""


class Ends(support.RuntimeTest):
    def cancel(self, execution: str, grace_ms: int, reason: str = "cancel") -> support.Ended:
        header = {"type": "cancel", "execution": execution, "attempt": 1, "reason": reason, "grace_ms": grace_ms}
        self.agent.send(header)
        return self.agent.wait_for(execution)

    def started(self, code: str, **fields: object) -> str:
        execution = self.agent.start(code, **fields)
        self.agent.wait_for_output(execution, b"up\n")
        return execution

    def test_a_cancelled_handler_cleans_up(self) -> None:
        ended = self.cancel(self.started(SLEEPER), 60_000)
        self.assertEqual((ended.outcome, ended.code), ("cancelled", "CANCELLED"))
        self.assertEqual(ended.stdout, b"up\ncleaned up\n")

    def test_a_shutdown_is_told_as_such(self) -> None:
        ended = self.cancel(self.started(SLEEPER), 60_000, reason="shutdown")
        self.assertEqual((ended.outcome, ended.message), ("failed", "The agent stopped it"))

    def test_a_cancelled_asynchronous_handler_cleans_up(self) -> None:
        code = (
            "import asyncio\nasync def handler(input):\n    try:\n"
            "        print('up')\n        await asyncio.sleep(600)\n    finally:\n        print('cleaned up')"
        )
        ended = self.cancel(self.started(code), 60_000)
        self.assertEqual((ended.outcome, ended.stdout), ("cancelled", b"up\ncleaned up\n"))

    def test_a_stubborn_handler_is_killed_after_the_grace(self) -> None:
        ended = self.cancel(self.started(STUBBORN), 50)
        self.assertEqual((ended.outcome, ended.header["signal"]), ("cancelled", 9))

    def test_a_second_cancel_may_shorten_the_grace(self) -> None:
        execution = self.started(STUBBORN)
        header = {"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 3_600_000}
        self.agent.send(header)
        self.assertEqual(self.cancel(execution, 0).outcome, "cancelled")

    def test_a_timeout_ends_the_call(self) -> None:
        ended = self.agent.run(SLEEPER, timeout_ms=BEGUN_MS, grace_ms=60_000)
        self.assertEqual((ended.outcome, ended.code), ("timed_out", "TIMEOUT"))
        self.assertEqual((ended.message, ended.stdout), (f"Did not end within {BEGUN_MS} ms", b"up\ncleaned up\n"))

    def test_a_timeout_kills_what_does_not_react(self) -> None:
        for code in (STUBBORN, "def handler(input):\n    sum(range(10**12))"):
            ended = self.agent.run(code, timeout_ms=BEGUN_MS, grace_ms=50)
            self.assertEqual((ended.outcome, ended.header["signal"]), ("timed_out", 9))

    def test_a_timeout_during_import(self) -> None:
        ended = self.agent.run("while True: pass", timeout_ms=100, grace_ms=0)
        self.assertEqual(ended.outcome, "timed_out")

    def test_a_call_that_swallows_the_stop_and_returns_is_still_cancelled(self) -> None:
        code = "import time\ndef handler(input):\n    try:\n        print('up')\n        time.sleep(600)\n    except BaseException:\n        return {}"
        self.assertEqual(self.cancel(self.started(code), 60_000).outcome, "cancelled")

    def test_cancelling_what_is_unknown_or_over_changes_nothing(self) -> None:
        ended = self.agent.run("def handler(input): return {}")
        for execution in (ended.header["execution"], "unknown"):
            self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(self.agent.run("def handler(input): return {}").outcome, "succeeded")

    def test_a_waiting_call_can_be_cancelled(self) -> None:
        many = [self.agent.start(SLEEPER, tenant="burst") for _ in range(40)]
        for execution in reversed(many):
            self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        for execution in many:
            self.assertEqual(self.agent.wait_for(execution).outcome, "cancelled")

    def test_too_much_memory(self) -> None:
        code = "def handler(input):\n    x = bytearray(%d << 20)\n    return {'n': len(x)}"
        self.assertFails(self.agent.run(code % 300, limits={"memory_bytes": 200 << 20}), "OUT_OF_MEMORY")
        self.assertEqual(self.agent.run(code % 150, limits={"memory_bytes": 200 << 20}).outcome, "succeeded")

    def test_memory_in_small_pieces(self) -> None:
        code = "def handler(input):\n    x = []\n    while True: x.append('%d' % len(x) * 100)"
        self.assertFails(self.agent.run(code, limits={"memory_bytes": 64 << 20}), "OUT_OF_MEMORY")

    def test_shared_memory_counts_too(self) -> None:
        code = "import mmap\ndef handler(input):\n    m = mmap.mmap(-1, 3 << 30)\n    [m.write(bytes(1 << 20)) for _ in range(400)]\n    return {}"
        ended = self.agent.run(code, limits={"memory_bytes": 300 << 20})
        as_a_whole = "memory" in self.agent.welcome["cgroup_limits"]
        self.assertFails(ended, "OUT_OF_MEMORY" if as_a_whole else "HANDLER_ERROR")

    def test_tmp_has_a_size(self) -> None:
        code = (
            "def handler(input):\n    import errno\n    try:\n"
            "        with open(input['dir'] + '/x', 'wb') as f:\n            f.write(bytes(3 << 20))\n"
            "    except OSError as e:\n        return {'errno': errno.errorcode[e.errno]}\n    return {}"
        )
        for directory in ("/tmp", "/dev/shm"):
            small = self.agent.run(code, {"dir": directory}, limits={"tmp_bytes": 1 << 20})
            self.assertSucceeds(small, {"errno": "ENOSPC"})
            self.assertSucceeds(self.agent.run(code, {"dir": directory}, limits={"tmp_bytes": 8 << 20}), {})

    def test_processes_have_a_bound(self) -> None:
        code = (
            "import os, signal\ndef handler(input):\n    n = 0\n    try:\n        while n < 2000:\n"
            "            if os.fork() == 0: signal.pause()\n            n += 1\n"
            "    except BlockingIOError:\n        pass\n    return {'n': n}"
        )
        self.assertLess(self.agent.run(code, limits={"processes": 50}).result["n"], 600)
        self.assertEqual(self.agent.run("def handler(input): return {}").outcome, "succeeded")

    def test_open_files_have_a_bound_and_there_are_no_cores(self) -> None:
        code = "import resource as r\ndef handler(input):\n    return {'n': r.getrlimit(r.RLIMIT_NOFILE)[1], 'c': r.getrlimit(r.RLIMIT_CORE)[1]}"
        result = self.agent.run(code).result
        self.assertLessEqual(result["n"], 4096)
        self.assertEqual(result["c"], 0)


if __name__ == "__main__":
    support.unittest.main()
