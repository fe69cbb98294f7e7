"""Connects the egress proxy to where a call wants to go: resolves, checks every address, connects to that very one."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import ssl
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from network_policy import Policy, as_address, forbidden, forbidden_name

_RESOLVE_S = 15.0
# With an upstream proxy a lookup only serves the check. A host without a name server waits as long for each name.
_UPSTREAM_RESOLVE_S = 1.0
_CONNECT_S = 20.0
# At a time, in threads of the call's own: names that nobody answers for keep threads busy for long after the deadline,
# and with an upstream proxy a lookup that waits too long for a thread checks nothing.
_LOOKUPS = 4
# Names that a call is not to wait for again.
_SLOW_NAMES = 256
_HEAD_BYTES = 64 * 1024

Streams = tuple  # (StreamReader, StreamWriter)


class Refused(Exception):
    """The policy does not allow it; the message names the rule."""


class Failed(Exception):
    """It is allowed, but cannot be reached."""

    timed_out = False


class Upstream:
    """The proxy that the host itself needs, as its environment names it; HTTPS_PROXY is the one for tunnels."""

    def __init__(self, fields: dict) -> None:
        self._for_tunnels, self._for_requests = (_Server.parse(fields.get(name)) for name in ("https", "http"))
        self._direct = [entry.strip().lower() for entry in fields.get("no_proxy") or [] if entry.strip()]

    def server(self, host: str, tunnel: bool) -> _Server | None:
        return None if self._is_direct(host) else self._for_tunnels if tunnel else self._for_requests

    def _is_direct(self, host: str) -> bool:
        """NO_PROXY as curl and Go read it: `*`, names with everything below them, addresses, networks."""
        address = as_address(host)
        for entry in self._direct:
            if entry == "*":
                return True
            if address is None:
                name = entry.partition(":")[0].lstrip("*").lstrip(".")
                if name and (host == name or host.endswith("." + name)):
                    return True
                continue
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                pass  # a name
        return False


class _Server:
    """An upstream proxy: ``http://user:password@host:port``, or https."""

    def __init__(self, url: urllib.parse.SplitResult) -> None:
        self.secure = url.scheme == "https"
        self.host, self.port = url.hostname, url.port or (443 if self.secure else 80)
        self.authorization: list[str] = []
        if url.username is not None:
            user = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
            self.authorization = [f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}"]

    @classmethod
    def parse(cls, text: str | None) -> _Server | None:
        if not text:
            return None
        url = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        return cls(url) if url.scheme in ("http", "https") and url.hostname else None


class Dialer:
    """One call's way to the network."""

    def __init__(self, policy: Policy, upstream: Upstream | None) -> None:
        self._policy, self._upstream = policy, upstream
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._threads = ThreadPoolExecutor(_LOOKUPS)
        self._slow_names: set[str] = set()

    def close(self) -> None:
        """Lookups under way end by themselves, unheard."""
        self._threads.shutdown(wait=False)

    def upstream_for(self, host: str, tunnel: bool) -> _Server | None:
        return self._upstream.server(host, tunnel) if self._upstream else None

    async def dial(self, host: str, port: int, tunnel: bool) -> Streams:
        """Raises Refused or Failed."""
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not self._policy.allows(host, port):
            raise Refused(f"{name} is not among the hosts that this call may reach (rule: {self._policy.rule})")
        address = as_address(host)
        rule = forbidden_name(host) if address is None else forbidden(host)
        if rule:
            raise Refused(f"{name} is what no call may reach (rule: {rule})")
        server = self.upstream_for(host, tunnel)
        if address is not None:
            found = [(socket.AF_INET if address.version == 4 else socket.AF_INET6, (host, port))]
        elif server is None:
            found = await self._resolve(host, port, name, _RESOLVE_S)
        else:
            found = []
            await self._check_if_known(host, port, name)
        return await (self._connect_to(found, name) if server is None else self._through(server, name, tunnel))

    async def _check_if_known(self, host: str, port: int, name: str) -> None:
        """Raises Refused. Names of the world outside may be known to the upstream proxy alone."""
        if host in self._slow_names:
            return
        try:
            await self._resolve(host, port, name, _UPSTREAM_RESOLVE_S, every=True)
        except Failed as failed:
            if failed.timed_out:
                if len(self._slow_names) == _SLOW_NAMES:
                    self._slow_names.clear()
                self._slow_names.add(host)

    async def _resolve(self, host: str, port: int, name: str, limit_s: float, every: bool = False) -> list[tuple]:
        """(family, address) of what the name leads to and may be reached. Raises Refused or Failed.

        ``every``: for somebody else who chooses among the addresses, so that none may be a forbidden one.
        """
        loop = asyncio.get_running_loop()
        try:
            async with self._lookups:
                lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
                found = await asyncio.wait_for(loop.run_in_executor(self._threads, lookup), limit_s)
        except asyncio.TimeoutError:
            failed = Failed(f"Cannot reach {name}: its name was not resolved within {limit_s:.0f} s")
            failed.timed_out = True
            raise failed from None
        except (OSError, UnicodeError) as error:
            raise Failed(f"Cannot reach {name}: {_told(error)}") from None
        rules = [forbidden(address[0]) for _, _, _, _, address in found]
        allowed = [(entry[0], entry[4]) for entry, rule in zip(found, rules) if rule is None]
        if not allowed or (every and len(allowed) < len(found)):
            address, rule = next((entry[4][0], rule) for entry, rule in zip(found, rules) if rule)
            raise Refused(f"{name} is at {address}, which no call may reach (rule: {rule})")
        return allowed

    async def _connect_to(self, addresses: list[tuple], name: str) -> Streams:
        why: object = "no address"
        for family, address in addresses:
            try:
                return await asyncio.wait_for(_connect(family, address), _CONNECT_S)
            except asyncio.TimeoutError:
                why = f"no answer within {_CONNECT_S:.0f} s"
            except OSError as error:
                why = _told(error)
        raise Failed(f"Cannot reach {name}: {why}")

    async def _through(self, server: _Server, name: str, tunnel: bool) -> Streams:
        try:
            context = ssl.create_default_context() if server.secure else None
            opening = asyncio.open_connection(server.host, server.port, ssl=context, limit=_HEAD_BYTES)
            reader, writer = await asyncio.wait_for(opening, _CONNECT_S)
        except (OSError, asyncio.TimeoutError) as error:
            raise Failed(f"Cannot reach {name}: the upstream proxy {server.host}:{server.port}: {error}") from None
        if not tunnel:
            return reader, writer
        try:
            lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}", *server.authorization, "", ""]
            writer.write("\r\n".join(lines).encode("latin-1"))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _CONNECT_S)
            words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            if len(words) < 2 or words[1] != "200":
                raise Failed(f"Cannot reach {name}: the upstream proxy says {' '.join(words[1:])}")
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError) as error:
            writer.transport.abort()
            raise Failed(f"Cannot reach {name}: the upstream proxy {server.host}:{server.port}: {error}") from None
        except Failed:
            writer.transport.abort()
            raise
        return reader, writer


def _told(error: Exception) -> object:
    """asyncio puts words of its own into an error's text."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return getattr(error, "strerror", None) or error
    return os.strerror(error.errno)


async def _connect(family: int, address: tuple) -> Streams:
    """To this address and no other: a name resolved again might lead elsewhere."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, address)
        return await asyncio.open_connection(sock=connection, limit=_HEAD_BYTES)
    except BaseException:
        connection.close()
        raise
