"""The pools of all tenants and environments: how many zygotes there may be, which one makes room, which ones end."""

from __future__ import annotations

import time
from collections.abc import Callable

from environment import Environment
from loop import Loop
from pool import Pool, PoolSettings
from spawn import Spec
from worker import Worker
from zygote_process import ZygoteProcess

_CHECK_S = 60.0
# A tenant's pool is cut to one parked worker after the first time without a call, and ended after the second.
_SHRINK_AFTER_S = 60.0


class Tenants:
    """One pool for each environment of each tenant. Nothing warm is ever shared between two of them."""

    def __init__(
        self,
        loop: Loop,
        log: object,
        spec: Spec,
        settings: PoolSettings,
        max_zygotes: int,
        idle_s: float,
        zygote_memory_bytes: int,
    ) -> None:
        self._loop, self._log, self._spec, self._settings = loop, log, spec, settings
        self._max_zygotes, self._idle_s = max_zygotes, idle_s
        self._zygote_memory_bytes = zygote_memory_bytes
        # Where there is one call at a time only, no worker is kept for the next one.
        self._single = PoolSettings(0, settings.reuse_workers, settings.kept_workers, settings.tmp_bytes)
        self._pools: dict[tuple[str, str | None], Pool] = {}  # by tenant and the environment's key
        self._retired: list[Pool] = []  # take no new calls; end when theirs have ended
        self._spare: ZygoteProcess | None = None
        self._check_timer = None
        self.callbacks: tuple[Callable, Callable, Callable] | None = None

    def keep_spare(self, zygote: ZygoteProcess) -> None:
        """A zygote that has served nobody, for the first tenant that comes."""
        self._spare, zygote.owner = zygote, self

    def pool(self, tenant: str, environment: Environment | None = None) -> Pool:
        """The pool of that environment, None being the launcher's own interpreter; made when there is none."""
        key = (tenant, environment.key if environment else None)
        pool = self._pools.get(key)
        if pool is None:
            single = environment and (environment.devices or environment.single)
            settings = self._single if single else self._settings
            arguments = (self._loop, self._log, tenant, settings, self._start_zygote, *self.callbacks)
            pool = self._pools[key] = Pool(*arguments)
            if self._spare and environment is None:
                spare, self._spare = self._spare, None
                pool.adopt(spare)
        if not pool.on_detached:
            pool.environment = environment  # its next zygote's
        pool.last_used = time.monotonic()
        if self._check_timer is None:
            self._check_timer = self._loop.call_later(_CHECK_S, self._check)
        return pool

    def start_ahead(self, tenant: str, environment: Environment, worker: tuple[int, bool] | None) -> None:
        """Starts the environment's zygote ahead of its first call, where it takes nobody's place.

        ``worker``: size of /tmp and network of that call, for which a worker is forked. Without, nothing of the
        environment is imported before the call comes.
        """
        if (tenant, environment.key) in self._pools or not self._has_room():
            return
        pool = self.pool(tenant, environment)
        if worker is None:
            pool.hold()
        else:
            pool.expect(*worker)

    def attach(
        self, tenant: str, environment: Environment, zygote: ZygoteProcess, on_detached: Callable[[str], None]
    ) -> None:
        """A zygote that came by itself is ready: it serves its key until it ends, which is told."""
        self.retire(tenant, environment.key)
        arguments = (self._loop, self._log, tenant, self._settings, lambda pool: None, *self.callbacks)
        pool = self._pools[tenant, environment.key] = Pool(*arguments)

        def detached(reason: str) -> None:
            if self._pools.get((tenant, environment.key)) is pool:
                del self._pools[tenant, environment.key]
            on_detached(reason)

        pool.environment, pool.on_detached = environment, detached
        pool.adopt(zygote)

    def attached(self) -> list[Pool]:
        """The pools of zygotes that came by themselves."""
        return [pool for pool in self._pools.values() if pool.on_detached]

    def is_attached(self, tenant: str, key: str) -> bool:
        pool = self._pools.get((tenant, key))
        return pool is not None and pool.on_detached is not None

    def retire(self, tenant: str, key: str) -> None:
        """The environment's zygote ends as soon as no call runs or waits in it; a later call gets a new one."""
        pool = self._pools.pop((tenant, key), None)
        if pool:
            self._retired.append(pool)
            self._end_retired()

    def counts(self) -> tuple[int, int]:
        """(zygotes, workers) that exist now."""
        zygotes = [pool for pool in self._all() if pool.zygote]
        return len(zygotes) + (self._spare is not None), sum(pool.worker_count for pool in zygotes)

    def close(self) -> None:
        for pool in self._all():
            pool.close()
        if self._spare:
            self._spare.kill()

    def on_dead(self, zygote: ZygoteProcess, reason: str) -> None:
        """The spare one ended; the next tenant starts its own."""
        self._spare = None

    def on_ended(self, worker: Worker, status: int | None) -> None:
        """The worker that the check at start used."""
        worker.close()

    def on_idle(self) -> None:
        """An attempt has ended: a pool that waits for its zygote may get room now."""
        if self._retired:
            self._end_retired()
        for pool in self._all():
            if pool.zygote is None and not pool.idle:
                pool.warm()

    def _start_zygote(self, pool: Pool) -> ZygoteProcess | None:
        """None when all the zygotes there may be are busy."""
        own = [other for other in self._pools.values() if not other.on_detached]
        while not self._has_room():
            idle = [other for other in own if other is not pool and other.zygote and other.idle]
            if not idle:
                return None
            self._end(min(idle, key=lambda other: other.last_used))
        arguments = (self._loop, self._log, self._spec, pool, pool.environment)
        return ZygoteProcess(*arguments, memory_bytes=self._zygote_memory_bytes, held=pool.held)

    def _has_room(self) -> bool:
        return self.counts()[0] - len(self.attached()) < self._max_zygotes

    def _all(self) -> list[Pool]:
        return [*self._pools.values(), *self._retired]

    def _end(self, pool: Pool) -> None:
        del self._pools[pool.tenant, pool.environment.key if pool.environment else None]
        pool.close()

    def _end_retired(self) -> None:
        for pool in [pool for pool in self._retired if pool.idle]:
            self._retired.remove(pool)
            pool.close()

    def _check(self) -> None:
        """Runs once a minute as long as there is a pool with something to give up."""
        self._check_timer = None
        now = time.monotonic()
        for pool in list(self._pools.values()):
            unused_s = now - pool.last_used
            if not pool.idle or pool.on_detached:
                continue
            if unused_s >= self._idle_s:
                self._end(pool)
            elif unused_s >= _SHRINK_AFTER_S:
                pool.shrink()
        if self._pools:
            self._check_timer = self._loop.call_later(_CHECK_S, self._check)
