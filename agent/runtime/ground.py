"""What attempts run on: control groups of the host, the sandbox that was tried, and interpreters kept warm in it."""

from __future__ import annotations

import os

import cgroup_hierarchy
import preflight
from attachments import Attachments
from egress import Egress, upstream_of
from loop import Loop
from options import VERSION
from pool import PoolSettings
from supervisor import FEATURES, Supervisor
from tenants import Tenants

_RUNTIME_DIR = os.path.dirname(os.path.abspath(__file__))


class Ground:
    """The same under the launcher of a host and in a job of a cluster: what differs is who asks for attempts, and where
    their output goes."""

    def __init__(self, options: object, log: object) -> None:
        """Tries the sandbox. Raises preflight.Unusable or OSError."""
        self._log = log
        self.groups = cgroup_hierarchy.find(log)
        self.spec, zygote, self.loop = preflight.choose(
            log,
            _RUNTIME_DIR,
            options.python,
            options.sandbox_uid,
            options.sandbox_gid,
            options.allow_unsandboxed,
            self.groups,
            lambda: Loop(log),
        )
        settings = PoolSettings(options.fork_ahead, options.reuse_workers, options.kept_workers, options.tmp_bytes)
        bounds = (options.max_zygotes, options.zygote_idle_s, options.zygote_memory_bytes)
        self.tenants = Tenants(self.loop, log, self.spec, settings, *bounds)
        self.tenants.keep_spare(zygote)
        self._attachments = Attachments(self.loop, log, self.spec, self.tenants, options.zygote_memory_bytes)
        self._egress = Egress(self.loop, log, self.spec, upstream_of(dict(os.environ)))
        self._supervisor: Supervisor | None = None
        # The constant fields of `welcome`.
        self.about = {
            "version": VERSION,
            "features": FEATURES,
            "build": options.build,
            "pid": os.getpid(),
            "isolation": self.spec.isolation,
            "python": zygote.python,
            "python_path": self.spec.python.executable,
        }

    def supervise(self, spool: object, link: object, lease_path: str, on_stopped: object) -> Supervisor:
        """The supervisor of the attempts; to be called once."""
        parts = (self.tenants, self._egress, self._attachments, self.groups)
        supervisor = Supervisor(self.loop, self._log, spool, link, *parts, lease_path, self.about, on_stopped)
        self.tenants.callbacks = (supervisor.on_assigned, supervisor.on_worker_ended, supervisor.on_assign_failed)
        self._supervisor = supervisor
        return supervisor

    def close(self) -> None:
        """Ends all that runs here."""
        self._attachments.close()
        self.tenants.close()
        self._egress.end()
        if self._supervisor:
            self._supervisor.end_guard()
        self.groups.close()
