"""Zygotes that the launcher has not started: each runs in a container and connects to a socket that was made for it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable

import loop as event_loop
from environment import Environment
from spawn import Spec
from tenants import Tenants
from zygote_process import ZygoteProcess

Tell = Callable[[dict], None]


class Attachments:
    """Listens for one zygote for each (tenant, key) that the agent expects, and makes a pool of each that is ready."""

    def __init__(self, loop: event_loop.Loop, log: object, spec: Spec, tenants: Tenants, memory_bytes: int) -> None:
        """``memory_bytes``: what a worker without a call may use, where it has control groups of its own."""
        self._loop, self._log, self._spec, self._tenants = loop, log, spec, tenants
        self._memory_bytes = memory_bytes
        self._listeners: dict[tuple[str, str], tuple[socket.socket, str]] = {}
        self.tell: Tell | None = None

    def expect(self, tenant: str, environment: Environment, path: str) -> None:
        """Replaces what was expected for that key before. Raises OSError."""
        self._forget(tenant, environment.key)
        if os.path.lexists(path) and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(path)
            os.chmod(path, 0o666)  # the container's user; who may enter the directory is the agent's business
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._listeners[tenant, environment.key] = (listener, path)
        self._loop.register(listener.fileno(), event_loop.READABLE, lambda _: self._accept(tenant, environment))

    def tell_all(self) -> None:
        """For an agent that has just connected."""
        for pool in self._tenants.attached():
            self._tell("attached", pool.tenant, pool.environment.key)

    def close(self) -> None:
        for tenant, key in list(self._listeners):
            self._forget(tenant, key)

    def _forget(self, tenant: str, key: str) -> None:
        listener, path = self._listeners.pop((tenant, key), (None, ""))
        if listener is None:
            return
        self._loop.unregister(listener.fileno())
        listener.close()
        try:
            os.unlink(path)
        except OSError:
            pass  # its directory is gone

    def _accept(self, tenant: str, environment: Environment) -> None:
        try:
            control, _ = self._listeners[tenant, environment.key][0].accept()
        except OSError:
            return
        self._forget(tenant, environment.key)
        control.setblocking(False)
        arrival = _Arrival(self, tenant, environment)
        ZygoteProcess(self._loop, self._log, self._spec, arrival, environment, control, self._memory_bytes)

    def on_ready(self, tenant: str, environment: Environment, zygote: ZygoteProcess) -> None:
        def on_detached(reason: str) -> None:
            self._tell("detached", tenant, environment.key, reason)

        self._tenants.attach(tenant, environment, zygote, on_detached)
        self._tell("attached", tenant, environment.key)

    def on_failed(self, tenant: str, environment: Environment, reason: str) -> None:
        self._tell("detached", tenant, environment.key, reason)

    def _tell(self, kind: str, tenant: str, key: str, reason: str | None = None) -> None:
        self.tell({"type": kind, "tenant": tenant, "key": key, **({} if reason is None else {"reason": reason})})


class _Arrival:
    """Owner of a zygote until it is ready."""

    def __init__(self, attachments: Attachments, tenant: str, environment: Environment) -> None:
        self._attachments, self._tenant, self._environment = attachments, tenant, environment

    def on_ready(self, zygote: ZygoteProcess) -> None:
        self._attachments.on_ready(self._tenant, self._environment, zygote)

    def on_dead(self, zygote: ZygoteProcess, reason: str) -> None:
        self._attachments.on_failed(self._tenant, self._environment, reason)
