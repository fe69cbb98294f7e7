"""A disk that takes no more while attempts run: nothing that was taken is lost, and all is well when there is room."""

from __future__ import annotations

import os
import signal
import subprocess
import unittest

import support
from test_launcher import QUICK
from test_sandbox import descendants

SPOOL_BYTES = 2 << 20
PRINTS = """
import sys
def handler(input):
    for n in range(input['n']):
        sys.stdout.write('%07d\\n' % n * 1000)
        sys.stdout.flush()
    return {'ok': 1}
"""
RETURNS = "def handler(input):\n    return {'x': input['c'] * input['n']}"
DROPPED = b"bytes: the agent's spool is full]\n"


class TinyDisk(support.Launcher):
    """A launcher whose spool has a file system of its own, not much larger than the spool may be."""

    def __enter__(self) -> TinyDisk:
        os.mkdir(self.spool, 0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", self.spool], check=True)
        try:
            super().__enter__()
        except BaseException:
            self._unmount()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.stop()
        finally:
            self._unmount()
            super().__exit__(*error)

    def _unmount(self) -> None:
        subprocess.run(["umount", self.spool], check=True)

    def fill(self) -> None:
        """Takes the room that the segments have beyond their records, as a copy-on-write file system may, and the rest."""
        for name in os.listdir(self.spool):
            if name.endswith(".seg"):
                path = os.path.join(self.spool, name)
                with open(path, "rb") as file:
                    used = len(file.read().rstrip(b"\0"))
                os.truncate(path, (used | 4095) + 1)
        with open(os.path.join(self.spool, "filler"), "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass

    def make_room(self) -> None:
        os.unlink(os.path.join(self.spool, "filler"))

    def kill_and_restart(self) -> None:
        watches = support.watch_all([self.pid, *descendants(self.pid)])
        os.kill(self.pid, signal.SIGKILL)
        for watch in watches:
            support.wait_until_ended(watch)
        started = self.start()
        if started.returncode:
            raise AssertionError(started.stderr)


@unittest.skipUnless(os.geteuid() == 0, "only root can mount a small file system")
class FullDisk(unittest.TestCase):
    def setUp(self) -> None:
        self.launcher = TinyDisk("--spool-bytes", str(SPOOL_BYTES))
        self.launcher.__enter__()
        self.addCleanup(self.launcher.__exit__)
        self.agent = self.launcher.connect()

    def tearDown(self) -> None:
        self.assertNotIn("a handler of the event loop failed", self.launcher.log_text())

    def messages(self, text: str) -> int:
        return self.launcher.log_text().count(text)

    def test_output_is_dropped_with_a_mark_and_results_are_offered_from_memory(self) -> None:
        self.agent.auto_ack = False
        before = self.agent.run(PRINTS, {"n": 1})
        self.launcher.fill()
        printed = self.agent.run(PRINTS, {"n": 200})
        self.assertEqual((printed.outcome, printed.result), ("succeeded", {"ok": 1}))
        self.assertTrue(printed.header["stdout_truncated"])
        self.assertEqual(printed.header["stdout"], len(printed.stdout))
        self.assertTrue(printed.stdout.endswith(DROPPED), printed.stdout[-100:])
        large = self.agent.run(RETURNS, {"c": "y", "n": 150_000})
        self.assertEqual((large.outcome, large.result), ("succeeded", {"x": "y" * 150_000}))
        small = self.agent.run(RETURNS, {"c": "z", "n": 10})
        self.agent.close()

        seen = [before, printed, large, small]
        self.offered_again(seen)
        told = self.messages('"the spool cannot be written"'), self.messages('"the spool can be written again"')
        self.assertEqual(told, (1, 0))

        self.launcher.make_room()
        agent = self.launcher.connect()
        agent.auto_ack = False
        for ended in seen:
            agent.wait_for(ended.header["execution"])
        after = agent.run(PRINTS, {"n": 10})
        self.assertEqual((after.header["stdout"], after.header["stdout_truncated"]), (80_000, False))
        self.assertEqual(self.messages('"the spool can be written again"'), 1)
        agent.close()
        self.launcher.kill_and_restart()
        self.offered_again([*seen, after])

    def offered_again(self, seen: list[support.Ended]) -> None:
        agent = self.launcher.connect()
        agent.auto_ack = False
        listed = {attempt["execution"] for attempt in agent.welcome["attempts"]}
        self.assertEqual(listed, {ended.header["execution"] for ended in seen})
        for first in seen:
            again = agent.wait_for(first.header["execution"])
            self.assertEqual((again.header, again.body), (first.header, first.body))
            self.assertEqual(again.stdout, first.stdout)
        agent.close()

    def test_acknowledged_results_leave_the_memory_while_the_disk_is_full(self) -> None:
        self.launcher.fill()
        for n in range(12):  # more than a segment holds
            ended = self.agent.run(RETURNS, {"c": chr(97 + n), "n": 150_000})
            self.assertEqual((ended.outcome, ended.code), ("succeeded", None))
            self.assertEqual(ended.result, {"x": chr(97 + n) * 150_000})
        self.launcher.make_room()
        ended = self.agent.run(PRINTS, {"n": 10})
        self.assertEqual((ended.header["stdout"], ended.header["stdout_truncated"]), (80_000, False))
        self.launcher.stop()
        self.assertEqual(self.launcher.start().returncode, 0)
        self.assertEqual(self.launcher.connect().welcome["attempts"], [])

    def test_a_new_segment_that_finds_no_room_leaves_some_for_marks_and_ends(self) -> None:
        self.agent.auto_ack = False
        with open(os.path.join(self.launcher.spool, "filler"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, (3 << 20) - SPOOL_BYTES // 4 - 65536)
        for _ in range(3):
            ended = self.agent.run(PRINTS, {"n": 200})
            self.assertEqual((ended.outcome, ended.result), ("succeeded", {"ok": 1}))
            self.assertTrue(ended.stdout.endswith(DROPPED))
        self.launcher.make_room()
        ended = self.agent.run(PRINTS, {"n": 10})
        self.assertEqual((ended.header["stdout"], ended.header["stdout_truncated"]), (80_000, False))


class FullSpool(unittest.TestCase):
    def test_small_results_are_kept_in_memory(self) -> None:
        with support.Launcher("--spool-bytes", str(1 << 20)) as launcher:
            agent = launcher.connect()
            agent.auto_ack = False
            seen = [agent.run(RETURNS, {"c": "x", "n": 40_000}) for _ in range(40)]
            self.assertEqual({ended.outcome for ended in seen}, {"succeeded"})
            self.assertIn("an end is not in the spool", launcher.log_text())
            agent.close()
            agent = launcher.connect()
            for first in seen:
                self.assertEqual(agent.wait_for(first.header["execution"]).body, first.body)
            self.assertEqual(agent.run(QUICK).result, {"ok": 1})


if __name__ == "__main__":
    support.unittest.main()
