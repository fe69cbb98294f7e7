"""Who gets a worker when, and how many are kept: the pool with a stand-in for the zygote, in any order of events."""

from __future__ import annotations

import os
import random
import unittest

import support
from attempt import PENDING, RUNNING, Attempt
from log import Logger
from loop import Loop
from pool import Pool, PoolSettings
from worker import Worker

PER_KEY, KEPT = 2, 4


class Process(Worker):
    """A worker without a process: its descriptor is a file's, so it takes no signals."""

    __slots__ = ()

    def signal(self, number: int) -> None:
        pass


class Zygote:
    """Forks when the test says so."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.ready, self.overdue = True, False
        self.asked: list[Process] = []
        self.workers: dict[int, Process] = {}

    def fork(self, tmp_bytes: int, network: bool, rehearse: bool) -> Process:
        worker = Process(self._loop, self, len(self.workers), tmp_bytes, network)
        self.workers[worker.number] = worker
        self.asked.append(worker)
        return worker


class World:
    """A pool, its zygote, and what the pool told."""

    def __init__(self, per_key: int = PER_KEY, kept: int = KEPT, fork_ahead: int = 1) -> None:
        self.loop = Loop(None)
        self.zygote = Zygote(self.loop)
        self.order: list[Attempt] = []
        self.busy: dict[Attempt, Worker] = {}
        self.pending: dict[Attempt, None] = {}
        self.failed: list[Attempt] = []
        with open(os.devnull, "wb") as null:
            self.null = os.dup(null.fileno())
        settings = PoolSettings(fork_ahead, per_key, kept, 1 << 20)
        self.pool = Pool(
            self.loop,
            Logger(self.null),
            "acme",
            settings,
            lambda pool: self.zygote,
            self._assigned,
            lambda attempt, worker, status: self.end(attempt, False),
            self._failed,
        )
        self.pool.warm()

    def close(self) -> None:
        for worker in self.zygote.workers.values():
            worker.close()
        os.close(self.null)

    def _assigned(self, attempt: Attempt, worker: Worker) -> None:
        assert attempt.state == PENDING, "an attempt is started once"
        attempt.state, worker.attempt = RUNNING, attempt
        del self.pending[attempt]
        self.busy[attempt] = worker
        self.order.append(attempt)

    def _failed(self, attempt: Attempt, code: str, reason: str) -> None:
        del self.pending[attempt]
        self.failed.append(attempt)

    def submit(self, key: str | None, network: bool = False) -> Attempt:
        attempt = Attempt(f"e{len(self.order) + len(self.pending)}", 1, 1, 0, 0)
        attempt.header, attempt.reuse_key, attempt.network = {"limits": {"tmp_bytes": 0}}, key, network
        self.pending[attempt] = None
        self.pool.submit(attempt)
        return attempt

    def fork(self) -> None:
        """The zygote answers its oldest request."""
        worker = self.zygote.asked.pop(0)
        worker.pidfd = os.dup(self.null)
        self.pool.on_forked(worker)

    def fork_all(self) -> None:
        while self.zygote.asked:
            self.fork()

    def end(self, attempt: Attempt, healthy: bool = True) -> None:
        worker = self.busy.pop(attempt)
        worker.attempt = None
        self.pool.release(worker, healthy)

    def withdraw(self, attempt: Attempt) -> None:
        del self.pending[attempt]
        self.pool.withdraw(attempt)

    def kept(self) -> list[Worker]:
        return [worker for worker in self.zygote.workers.values() if worker.reuse_key is not None and not worker.dead]

    def idle(self) -> list[Worker]:
        return [worker for worker in self.kept() if worker not in self.busy.values()]


class Bounds(unittest.TestCase):
    def world(self, *bounds: int, **settings: int) -> World:
        world = World(*bounds, **settings)
        self.addCleanup(world.close)
        return world

    def test_any_order_of_events_keeps_the_bounds_and_loses_no_call(self) -> None:
        for seed in range(150):
            with self.subTest(seed=seed):
                world = World()
                try:
                    self.play(world, random.Random(seed))
                finally:
                    world.close()

    def play(self, world: World, rng: random.Random) -> None:
        submitted, gone = 0, 0
        for _ in range(250):
            event = rng.randrange(10)
            if event < 4:
                world.submit(rng.choice([None, *"abcdefgh"]))
                submitted += 1
            elif event < 6 and world.zygote.asked:
                world.fork()
            elif event < 8 and world.busy:
                world.end(rng.choice(list(world.busy)), rng.random() < 0.8)
            elif event == 8 and world.pending:
                world.withdraw(rng.choice(list(world.pending)))
                gone += 1
            elif event == 9 and world.zygote.asked and rng.random() < 0.3:
                world.pool.on_fork_failed(world.zygote.asked.pop(0), "no more processes")
            elif event == 9 and world.kept():
                world.pool.on_ended(rng.choice(world.kept()), 9)
            self.check(world)
        while world.pending or world.busy:
            self.assertTrue(world.zygote.asked or world.busy, "calls wait and nothing is under way")
            world.fork_all()
            for attempt in list(world.busy):
                world.end(attempt)
            self.check(world)
        self.assertEqual(len(world.order) + len(world.failed) + gone, submitted)
        self.assertTrue(world.pool.idle)
        for worker in world.idle():
            world.pool.on_ended(worker, 9)
        self.assertEqual((world.pool._groups, world.pool._kept, world.pool._short), ({}, 0, {}))

    def check(self, world: World) -> None:
        kept = world.kept()
        self.assertLessEqual(len(kept), KEPT)
        keys = [worker.reuse_key for worker in kept]
        self.assertLessEqual(max(map(keys.count, keys), default=0), PER_KEY)
        for attempt in world.pending:
            if attempt.reuse_key is None:
                self.assertTrue(world.zygote.asked, "a fresh call waits for nothing but its process")
        if world.pool._short:
            self.assertEqual((world.pool._kept, world.idle()), (KEPT, []))

    def test_a_worker_is_forked_for_the_call_that_is_expected_and_for_another_one_that_comes(self) -> None:
        for comes in (True, False):
            with self.subTest(network=comes):
                world = self.world(fork_ahead=0)
                world.pool.expect(1 << 20, True)
                self.assertEqual([worker.network for worker in world.zygote.asked], [True])
                world.fork_all()
                attempt = world.submit(None, network=comes)
                self.assertEqual(attempt in world.busy, comes)
                world.fork_all()
                self.assertEqual(world.busy[attempt].network, comes)
                world.end(attempt)
                self.assertEqual([worker for worker in world.zygote.workers.values() if worker.pidfd >= 0], [])

    def test_the_worker_that_was_idle_longest_makes_room(self) -> None:
        world = self.world(1, 3)
        for key in "abca":
            attempt = world.submit(key)
            world.fork_all()
            world.end(attempt)
        world.submit("d")
        world.fork_all()
        self.assertEqual(sorted(worker.reuse_key for worker in world.kept()), ["a", "c", "d"])

    def test_fresh_calls_run_while_all_kept_workers_are_busy(self) -> None:
        world = self.world(1, 2)
        for key in "abc":
            world.submit(key)
        world.fork_all()
        fresh = world.submit(None)
        world.fork_all()
        self.assertIn(fresh, world.busy)
        self.assertEqual([attempt.reuse_key for attempt in world.pending], ["c"])

    def test_a_key_with_many_calls_does_not_hold_up_the_others(self) -> None:
        world = self.world(2, 2)
        many = [world.submit("many") for _ in range(50)]
        world.fork_all()
        others = [world.submit(key) for key in "xyz"]
        for attempt in (many[0], many[1], others[0]):
            self.assertIn(attempt, world.busy)
            world.end(attempt)
            world.fork_all()
        self.assertEqual(world.order, [*many[:2], *others])

    def test_a_key_keeps_its_worker_when_no_other_key_has_fewer(self) -> None:
        world = self.world(2, 2)
        first = [world.submit(key) for key in "ab"]
        world.fork_all()
        worker = world.busy[first[0]]
        second = [world.submit(key) for key in "ab"]
        world.end(first[0])
        self.assertIs(world.busy[second[0]], worker)


if __name__ == "__main__":
    support.unittest.main()
