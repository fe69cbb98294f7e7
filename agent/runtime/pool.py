"""The workers of one tenant's environment: a zygote, a few workers forked ahead, and workers kept for reuse keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import loop as event_loop
from attempt import Attempt
from environment import Environment
from worker import Worker
from zygote_process import ZygoteProcess

# Forks asked for and not yet answered: enough to keep the zygote busy, few enough that a burst ends soon.
_FORKING_AT_ONCE = 4
_FORK_AHEAD_MAX = 16
_STARTS_BEFORE_GIVING_UP = 3
_REUSE_IDLE_S = 60.0


class PoolSettings:
    """Bounds of every tenant's pool."""

    __slots__ = ("fork_ahead", "kept_workers", "reuse_workers", "tmp_bytes")

    def __init__(self, fork_ahead: int, reuse_workers: int, kept_workers: int, tmp_bytes: int) -> None:
        self.fork_ahead, self.reuse_workers, self.kept_workers = fork_ahead, reuse_workers, kept_workers
        self.tmp_bytes = tmp_bytes


class _Group:
    """Workers kept for one reuse key: idle ones (the last used first), how many are or will be there, waiting calls."""

    __slots__ = ("count", "idle", "waiting")

    def __init__(self) -> None:
        self.idle: list[Worker] = []
        self.count = 0
        self.waiting: deque[Attempt] = deque()


class Pool:
    """Gives each attempt a worker as soon as there is one; order of arrival within a key, and among fresh calls.

    A kept worker takes one of its key's places and one of the pool's. When all of the pool's are taken, the worker that
    has been idle longest makes room; when all are busy, the next one that ends its call gives its place to the waiting
    key with the fewest workers, unless its own key has as few: every key gets its turn, and no key waits for a call
    that waits itself. Invariant: while a key waits for a place in the pool, all of them are taken and none is idle.

    ``on_assigned(attempt, worker)`` when an attempt gets its worker, ``on_ended(attempt, worker, status)`` when a
    worker's process has ended (also after its call), ``on_failed(attempt, code, reason)`` when none can be had.
    """

    def __init__(
        self,
        loop: event_loop.Loop,
        log: object,
        tenant: str,
        settings: PoolSettings,
        start_zygote: Callable[[Pool], ZygoteProcess | None],
        on_assigned: Callable[[Attempt, Worker], None],
        on_ended: Callable[[Attempt, Worker, int | None], None],
        on_failed: Callable[[Attempt, str, str], None],
    ) -> None:
        self._loop, self._log, self.tenant, self._settings = loop, log, tenant, settings
        self._start_zygote = start_zygote
        self._on_assigned, self._on_ended, self._on_failed = on_assigned, on_ended, on_failed
        self.environment: Environment | None = None  # of the zygotes that it starts
        self.on_detached: Callable[[str], None] | None = None  # where its zygote came by itself: told of its end
        self.zygote: ZygoteProcess | None = None
        self.held = False  # its zygote is started ahead of the first call, and imports nothing before that comes
        self._expects = False  # a worker is to be forked for the first call
        self._network = False  # parked workers have a network namespace
        self._failed_starts = 0
        self._waiting: deque[Attempt] = deque()
        self._parked: deque[Worker] = deque()
        self._forking = 0
        self._groups: dict[str, _Group] = {}
        self._kept = 0  # places taken in the pool: the sum of the groups' counts
        self._idle: dict[Worker, None] = {}  # idle kept workers of all keys, the longest idle one first
        self._short: dict[str, None] = {}  # keys with waiting calls that only lack a place in the pool, in order
        self._ahead = settings.fork_ahead
        self._tmp_bytes = settings.tmp_bytes
        self.busy = 0
        self.last_used = 0.0
        self._asyncio = False

    @property
    def idle(self) -> bool:
        """True when no attempt runs or waits here, so that its zygote may be given up."""
        return not self.busy and not self._waiting and not any(group.waiting for group in self._groups.values())

    @property
    def worker_count(self) -> int:
        return len(self.zygote.workers) if self.zygote else 0

    def adopt(self, zygote: ZygoteProcess) -> None:
        """Takes a zygote that is ready and has served nobody."""
        self.zygote, zygote.owner = zygote, self
        self._refill()

    def submit(self, attempt: Attempt) -> None:
        """The attempt's start frame must be kept by the caller when this returns without on_assigned."""
        self._let_go()
        self._expects = self._network = False
        wanted = attempt.header["limits"]["tmp_bytes"] or self._settings.tmp_bytes
        self._tmp_bytes = wanted
        if attempt.reuse_key is not None and self._submit_to_group(attempt):
            return
        if self._begin(attempt):
            if len(self._parked) * 2 < self._ahead:
                self._refill()
        else:
            if not attempt.network and self._settings.fork_ahead:
                self._ahead = min(_FORK_AHEAD_MAX, max(self._ahead, self._settings.fork_ahead) + 1)
            self._refill()

    def warm(self) -> None:
        """Keeps a zygote and parked workers ready."""
        self._let_go()
        self._refill()

    def hold(self) -> None:
        """Starts a zygote that imports nothing of its environment before the first call. For a pool without calls."""
        self.held = True
        self._refill()

    def expect(self, tmp_bytes: int, network: bool) -> None:
        """Starts a zygote and forks a worker for the first call, which is like this. For a pool without calls."""
        self._expects, self._tmp_bytes, self._network = True, tmp_bytes, network
        self._refill()

    def _let_go(self) -> None:
        if self.held:
            self.held = False
            if self.zygote:
                self.zygote.begin()

    @property
    def importing_since(self) -> float | None:
        """Since when (monotonic) its zygote has been importing packages; None while there is none that is."""
        return self.zygote.started_at if self.zygote and not self.zygote.ready else None

    def withdraw(self, attempt: Attempt) -> None:
        """An attempt that has no worker yet is cancelled."""
        if attempt in self._waiting:
            self._waiting.remove(attempt)
            self._drop_empty_place(attempt)
            if self._waiting:
                self._refill()
        elif attempt.reuse_key is not None:
            group = self._groups[attempt.reuse_key]
            group.waiting.remove(attempt)
            if not group.waiting:
                self._short.pop(attempt.reuse_key, None)
                self._forget_if_empty(attempt.reuse_key)

    def release(self, worker: Worker, healthy: bool) -> None:
        """A call has ended. A worker with a reuse key serves the next one if it is healthy; others are killed."""
        self.busy -= 1
        if worker.reuse_key is None or not healthy or worker.dead:
            self._give_up(worker)
        else:
            worker.rest()
            self._next_of_group(worker)
        self._refill()

    def close(self) -> None:
        """Kills the zygote and with it every worker."""
        if self.zygote:
            self.zygote.kill()

    # What the zygote tells.

    def on_ready(self, zygote: ZygoteProcess) -> None:
        if self._asyncio:
            zygote.preload_asyncio()
        self._refill()

    def on_forked(self, worker: Worker) -> None:
        self._failed_starts = 0  # now, not before: one that gets ready and then dies would be started for ever
        self._forking -= 1
        attempt = self._next_waiting(worker)
        if attempt:
            self._assign(attempt, worker)
        elif worker.network != self._network:
            self._give_up(worker)  # its call was withdrawn
        else:
            self._parked.append(worker)
        self._refill()

    def on_fork_failed(self, worker: Worker, text: str) -> None:
        self._forking -= 1
        worker.close()
        self._log.warn("a worker could not be forked", tenant=self.tenant, error=text)
        if self._waiting:
            attempt = self._waiting.popleft()
            self._drop_empty_place(attempt)
            self._on_failed(attempt, "INTERNAL", f"no process could be forked: {text}")
        self._refill()

    def on_ended(self, worker: Worker, status: int | None) -> None:
        attempt = worker.attempt
        if attempt is not None:
            worker.dead = True  # whatever it still said, it serves no other call
            self._on_ended(attempt, worker, status)
            return
        if worker.dead:
            return
        if worker in self._parked:
            self._parked.remove(worker)
        elif worker.pidfd < 0:
            self._forking -= 1
        self._give_up(worker)

    def on_dead(self, zygote: ZygoteProcess, reason: str) -> None:
        """The zygote has ended; every worker was reported before. A new one is started if somebody waits."""
        self.zygote = None
        self._forking = 0
        self._parked.clear()
        if self.on_detached:
            self._fail_waiting(f"its container is gone: {reason}")
            self.on_detached(reason)
            return
        if self.idle:
            return
        self._failed_starts += 1
        logged = "told to its calls alone" if zygote.private else reason
        self._log.error("a zygote ended", tenant=self.tenant, reason=logged)
        if zygote.out_of_memory:  # the next one would be, too
            self._failed_starts = 0
            self._fail_waiting(reason, "OUT_OF_MEMORY")
        elif self._failed_starts >= _STARTS_BEFORE_GIVING_UP or zygote.overdue:
            self._failed_starts = 0
            if zygote.loading:  # the next one's packages would end it as well
                self._fail_waiting(f"its packages cannot be loaded: {reason}", "ENVIRONMENT_FAILED")
            else:
                self._fail_waiting(f"the sandbox does not start: {reason}")
        else:
            self._refill()

    def preload_asyncio(self) -> None:
        """An asynchronous handler was seen: there will be more."""
        if not self._asyncio and self.zygote:
            self._asyncio = True
            self.zygote.preload_asyncio()

    def shrink(self) -> None:
        """After a while without calls one parked worker is enough."""
        self._ahead = min(1, self._ahead)
        while len(self._parked) > 1:
            self._give_up(self._parked.pop())

    # How workers come and go.

    def _refill(self) -> None:
        if self.zygote is None:
            self.zygote = self._start_zygote(self)
            return
        if not self.zygote.ready:
            return
        wanted = (self._tmp_bytes, self._network)
        while self._parked and (self._parked[0].tmp_bytes, self._parked[0].network) != wanted:
            self._give_up(self._parked.popleft())
        count = self._ahead + self._expects + len(self._waiting)
        while self._forking < _FORKING_AT_ONCE and len(self._parked) + self._forking < count:
            tmp_bytes, network = self._tmp_bytes, self._network
            if self._waiting:
                attempt = self._waiting[min(self._forking, len(self._waiting) - 1)]
                tmp_bytes, network = self._tmp_of(attempt), attempt.network
            if self.zygote.fork(tmp_bytes, network, not self._waiting) is None:
                break
            self._forking += 1

    def _tmp_of(self, attempt: Attempt) -> int:
        return attempt.header["limits"]["tmp_bytes"] or self._settings.tmp_bytes

    def _begin(self, attempt: Attempt) -> bool:
        """Gives the attempt a parked worker, or lets it wait for a new one; True when it has one."""
        worker = self._take_parked(self._tmp_of(attempt), attempt.network)
        if worker:
            self._assign(attempt, worker)
        else:
            self._waiting.append(attempt)
        return worker is not None

    def _take_parked(self, tmp_bytes: int, network: bool) -> Worker | None:
        """The oldest parked worker, the one most likely to have finished its set-up; none of a zygote that ends."""
        if not self._parked or not self.zygote.ready:
            return None
        suits = self._parked[0].tmp_bytes == tmp_bytes and self._parked[0].network == network
        return self._parked.popleft() if suits else None

    def _next_waiting(self, worker: Worker) -> Attempt | None:
        """The first waiting call that the worker suits."""
        for attempt in self._waiting:
            if attempt.network == worker.network and self._tmp_of(attempt) == worker.tmp_bytes:
                self._waiting.remove(attempt)
                return attempt
        return None

    def _assign(self, attempt: Attempt, worker: Worker) -> None:
        self.busy += 1
        if attempt.reuse_key is not None and worker.reuse_key is None:
            worker.reuse_key = attempt.reuse_key
        if worker.idle_timer:
            worker.idle_timer.cancel()
            worker.idle_timer = None
        self._on_assigned(attempt, worker)

    def _give_up(self, worker: Worker) -> None:
        """Kills the worker; a kept one leaves its place to a call that waits."""
        key = worker.reuse_key
        worker.close()
        if key is not None:
            if worker in self._idle:
                del self._idle[worker]
                self._groups[key].idle.remove(worker)
            worker.reuse_key = None
            self._leave_place(key)
            if self._waiting:
                self._refill()

    # Kept workers.

    def _submit_to_group(self, attempt: Attempt) -> bool:
        """True when a kept worker takes the call or the call waits for one; False when it needs a new worker."""
        key = attempt.reuse_key
        group = self._groups.setdefault(key, _Group())
        if group.idle:
            worker = group.idle.pop()
            del self._idle[worker]
            self._assign(attempt, worker)
            return True
        if group.count >= self._settings.reuse_workers:
            group.waiting.append(attempt)
            return True
        if self._kept >= self._settings.kept_workers and not self._evict():
            group.waiting.append(attempt)
            self._short[key] = None
            return True
        self._take_place(group)
        return False

    def _next_of_group(self, worker: Worker) -> None:
        """A kept worker has ended its call: it serves its key's next one, makes room for another key, or rests."""
        key = worker.reuse_key
        group = self._groups[key]
        if self._short:
            neediest = self._neediest()
            if not group.waiting or self._groups[neediest].count < group.count:
                self._give_up(worker)
                return
        if group.waiting:
            attempt = group.waiting.popleft()
            if not group.waiting:
                self._short.pop(key, None)
            self._assign(attempt, worker)
            return
        group.idle.append(worker)
        self._idle[worker] = None
        worker.idle_timer = self._loop.call_later(_REUSE_IDLE_S, lambda: self._give_up(worker))

    def _take_place(self, group: _Group) -> None:
        group.count += 1
        self._kept += 1

    def _leave_place(self, key: str) -> None:
        """A worker of the key has ended, or will not come. Its place goes to the neediest key; the own one is last."""
        group = self._groups[key]
        group.count -= 1
        self._kept -= 1
        self._short.pop(key, None)
        if group.waiting:
            self._short[key] = None
        self._forget_if_empty(key)
        while self._short and self._kept < self._settings.kept_workers:
            self._admit(self._neediest())

    def _admit(self, key: str) -> None:
        """The key's first waiting call gets a place, and a new worker."""
        group = self._groups[key]
        self._take_place(group)
        attempt = group.waiting.popleft()
        if not group.waiting or group.count >= self._settings.reuse_workers:
            del self._short[key]
        self._begin(attempt)

    def _neediest(self) -> str:
        """Of the keys that wait for a place: the one with the fewest workers, among equals the first that came."""
        return min(self._short, key=lambda key: self._groups[key].count)

    def _evict(self) -> bool:
        """Gives up the kept worker that has been idle longest; False when all are busy."""
        worker = next(iter(self._idle), None)
        if worker is not None:
            self._give_up(worker)
        return worker is not None

    def _drop_empty_place(self, attempt: Attempt) -> None:
        """A call that was to bring its group a new worker will not."""
        if attempt.reuse_key is not None:
            self._leave_place(attempt.reuse_key)

    def _forget_if_empty(self, key: str) -> None:
        group = self._groups[key]
        if not group.count and not group.waiting:
            del self._groups[key]

    def _fail_waiting(self, reason: str, code: str = "INTERNAL") -> None:
        while self._waiting:
            attempt = self._waiting.popleft()
            self._drop_empty_place(attempt)
            self._on_failed(attempt, code, reason)
