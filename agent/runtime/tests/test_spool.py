"""The spool with long attempts: what they need to be found again is written anew, so that they do not keep a segment each."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import unittest
from unittest import mock

import support
from test_sandbox import descendants

# isort: split
import spool as spools
import spool_recovery
from attempt import FINISHED, RUNNING, Attempt, Stream
from delivery import Delivery

LIMIT = 1 << 20
SEGMENT = LIMIT // 4
NO_FEWER = 1 << 30
STAYS = "import time\ndef handler(input):\n    print('up', flush=True)\n    time.sleep(600)"
PRINTS = "import os\ndef handler(input):\n    os.write(1, b'x' * input['n'])\n    return {}"


class NoLink:
    greeted = False


class Model:
    """What a spool must have of its attempts, beside the spool itself."""

    def __init__(self, directory: str) -> None:
        self.log = mock.Mock()
        self.path = os.path.join(directory, "spool")
        os.mkdir(self.path)
        self.attempts: dict[str, Attempt] = {}
        self.written: dict[tuple[str, str], bytes] = {}
        self.full = 0
        self._serial = 0
        self.open()

    def open(self) -> None:
        """As a launcher does that finds what another one has left."""
        segments, found, next_number = spool_recovery.recover(self.path, self.log)
        self.spool = spools.Spool(self.path, LIMIT, self.log)
        self.spool.open(segments, next_number)
        self.delivery = Delivery(NoLink(), self.spool)
        self.found = {execution: attempt for (execution, _), attempt in found.items()}

    def die(self) -> None:
        """What was not written is lost with the process."""
        self.spool.commit()
        for segment in self.spool._segments.values():
            os.close(segment.fd)

    def start(self, written: bool = True) -> Attempt:
        self._serial += 1
        attempt = Attempt(f"e{self._serial}", 1, self.spool.next_number(), NO_FEWER, NO_FEWER)
        attempt.state = RUNNING
        self.attempts[attempt.execution] = attempt
        if written:
            self.spool.append_start(attempt)
        return attempt

    def prints(self, attempt: Attempt, stream: Stream, data: bytes) -> None:
        try:
            self.spool.append_output(attempt, stream, memoryview(data))
        except spools.SpoolFull:
            self.full += 1
            return
        key = attempt.execution, stream.name
        self.written[key] = self.written.get(key, b"") + data

    def acknowledge(self, attempt: Attempt, stdout: int, stderr: int) -> None:
        self.delivery.acknowledge(attempt, stdout, stderr)

    def finish(self, attempt: Attempt) -> None:
        header = '{"type":"finished",%s,"stdout":%d,"stderr":%d}'
        final = (header % (attempt.ids, attempt.stdout.length, attempt.stderr.length)).encode()
        self.spool.append_finish(attempt, final, b"{}")
        attempt.state, attempt.final = FINISHED, final

    def forget(self, attempt: Attempt) -> None:
        del self.attempts[attempt.execution]
        self.spool.forget(attempt)
        self.spool.commit_forgotten()

    def kept(self, attempt: Attempt, stream: Stream) -> bytes:
        """What the spool still has of a stream, from what is acknowledged on."""
        data, at = b"", stream.acked
        for offset, length, segment, position in stream.chunks:
            if offset + length > at:
                data += self.spool.read(segment, position + at - offset, length - (at - offset))
                at = offset + length
        return data


class Renewal(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp(prefix="harrier-")
        self.addCleanup(shutil.rmtree, directory)
        self.model = Model(directory)
        self.addCleanup(lambda: self.model.spool.close())

    def check(self, attempt: Attempt, found: Attempt) -> None:
        """``found`` is the attempt as a launcher knows it that has read the spool."""
        self.assertEqual((found.attempt, found.state), (attempt.attempt, attempt.state))
        for stream, again in zip(attempt.streams, found.streams):
            whole = self.model.written.get((attempt.execution, stream.name), b"")
            name = f"{attempt.execution} {stream.name}"
            self.assertEqual((again.length, again.truncated), (len(whole), False), name)
            self.assertLessEqual(again.acked, stream.acked, name)
            self.assertEqual(self.model.kept(found, again), whole[again.acked :], name)

    def passes(self, segments: int) -> None:
        """Another attempt prints that many segments full, ends, and is forgotten."""
        model = self.model
        chatty = model.start()
        for _ in range(segments * SEGMENT // 4000 + 1):
            model.prints(chatty, chatty.stdout, b"c" * 4000)
            model.acknowledge(chatty, chatty.stdout.length, 0)
        model.finish(chatty)
        model.forget(chatty)

    def test_long_attempts_do_not_fill_the_spool(self) -> None:
        model = self.model
        long = []
        for _ in range(40):
            attempt = model.start()
            model.prints(attempt, attempt.stdout, b"up\n")
            model.acknowledge(attempt, 3, 0)
            model.prints(attempt, attempt.stderr, b"waits\n")
            model.acknowledge(attempt, 3, 6)
            long.append(attempt)
            self.passes(1)
            self.assertLessEqual(model.spool.total_bytes, LIMIT)
        self.assertEqual(model.full, 0)
        model.die()
        model.open()
        self.assertEqual(sorted(model.found), sorted(attempt.execution for attempt in long))
        for attempt in long:
            self.check(attempt, model.found[attempt.execution])

    def test_output_that_nobody_has_acknowledged_lies_before_the_start_that_was_written_anew(self) -> None:
        model = self.model
        attempt = model.start()
        model.prints(attempt, attempt.stdout, b"a" * 100)
        model.acknowledge(attempt, 100, 0)
        self.passes(1)
        model.prints(attempt, attempt.stdout, b"b" * 100)
        model.prints(attempt, attempt.stderr, b"e" * 50)
        first = attempt.started_in
        self.passes(2)
        self.assertNotEqual(attempt.started_in, first)
        model.die()
        self.assertFalse(os.path.exists(first.path))
        model.open()
        found = model.found[attempt.execution]
        self.check(attempt, found)
        self.assertEqual((found.stdout.acked, found.stderr.acked), (100, 0))

    def test_a_launcher_that_dies_before_the_former_segments_are_gone(self) -> None:
        model = self.model
        attempt = model.start()
        model.prints(attempt, attempt.stdout, b"a" * 100)
        model.acknowledge(attempt, 100, 0)
        first = attempt.started_in
        copy = first.path + ".copy"
        self.passes(1)
        shutil.copyfile(first.path, copy)
        self.passes(2)
        model.die()
        os.rename(copy, first.path)
        model.open()
        self.check(attempt, model.found[attempt.execution])
        for found in model.found.values():
            model.spool.forget(found)
        self.assertFalse(os.path.exists(first.path))

    def test_whatever_happens_a_later_launcher_finds_what_was_kept(self) -> None:
        for seed in range(30):
            with self.subTest(seed=seed):
                self.doCleanups()
                self.setUp()
                self.happens(random.Random(seed))

    def happens(self, choice: random.Random) -> None:
        model = self.model
        for _ in range(600):
            some = choice.choice(list(model.attempts.values())) if model.attempts else None
            what = choice.random()
            if some is None or (what < 0.1 and len(model.attempts) < 12):
                model.start(written=choice.random() < 0.9)
            elif what < 0.6 and some.state == RUNNING:
                model.prints(some, choice.choice(some.streams), choice.randbytes(choice.choice((10, 3_000, 20_000))))
            elif what < 0.9:
                acked = [choice.choice((stream.acked, stream.length)) for stream in some.streams]
                model.acknowledge(some, *acked)
            elif what < 0.93 and some.state == RUNNING:
                model.finish(some)
            elif what < 0.97 and some.state == FINISHED:
                model.forget(some)
            elif what > 0.99:
                self.restart()
        self.restart()

    def restart(self) -> None:
        model = self.model
        model.die()
        model.open()
        # One that had not written anything yet is not known.
        kept = {execution: attempt for execution, attempt in model.attempts.items() if attempt.in_spool}
        # One that was forgotten may be found again, as its records may outlive that word.
        for forgotten in model.found.keys() - kept.keys():
            model.spool.forget(model.found.pop(forgotten))
        self.assertEqual(sorted(model.found), sorted(kept))
        for execution, attempt in kept.items():
            self.check(attempt, model.found[execution])
        model.attempts = dict(model.found)
        for found in model.attempts.values():
            found.stdout.limit = found.stderr.limit = NO_FEWER


class LongCalls(unittest.TestCase):
    def test_long_calls_beside_chatty_ones_leave_room_for_output_and_survive_the_launcher(self) -> None:
        with support.Launcher("--spool-bytes", str(LIMIT)) as launcher:
            agent = launcher.connect()
            stays = []
            for _ in range(8):
                execution = agent.start(STAYS)
                agent.wait_for_output(execution, b"up\n")
                stays.append(execution)
                printed = agent.run(PRINTS, {"n": SEGMENT + 100_000})
                self.assertEqual((printed.outcome, printed.header["stdout_truncated"]), ("succeeded", False))
                self.assertEqual(len(printed.stdout), SEGMENT + 100_000)
            segments = [name for name in os.listdir(launcher.spool) if name.endswith(".seg")]
            used = sum(os.stat(os.path.join(launcher.spool, name)).st_size for name in segments)
            self.assertLessEqual(used, LIMIT)
            agent.close()
            watches = support.watch_all([launcher.pid, *descendants(launcher.pid)])
            os.kill(launcher.pid, 9)
            for watch in watches:
                support.wait_until_ended(watch)
            self.assertEqual(launcher.start().returncode, 0)
            agent = launcher.connect()
            agent.auto_ack = False
            listed = {told["execution"]: told for told in agent.welcome["attempts"]}
            self.assertLessEqual(set(stays), set(listed))
            for execution in stays:
                self.assertEqual((listed[execution]["state"], listed[execution]["stdout"]), ("finished", 3))


if __name__ == "__main__":
    unittest.main()
