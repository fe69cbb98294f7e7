"""Which addresses a call may reach: its own rules, and what no call ever reaches, whatever name leads there."""

from __future__ import annotations

import ipaddress
import socket

MAX_HOSTS = 256
_MAX_HOST_CHARS = 300

# Metadata services of clouds that are not in a link-local range.
_METADATA = frozenset(ipaddress.ip_address(text) for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Policy:
    """``rule`` is the name that an answer gives to what refused a connection."""

    __slots__ = ("_patterns", "rule")

    def __init__(self, mode: str, hosts: list[str]) -> None:
        self.rule = mode
        self._patterns = [split_port(host.lower()) for host in hosts] if mode == "hosts" else None

    def allows(self, host: str, port: int) -> bool:
        """``host``: a name or an address without brackets, in lower case, without a dot at its end."""
        if self._patterns is None:
            return True
        return any(wanted in (None, port) and _matches(pattern, host) for pattern, wanted in self._patterns)


def check(fields: object) -> None:
    """Raises ValueError naming what is wrong with the `network` of a `start`."""
    if fields is None:
        return
    if not isinstance(fields, dict) or fields.get("mode") not in ("hosts", "full"):
        raise ValueError("start: network must be null or an object with mode hosts or full")
    hosts = fields.get("hosts", [])
    if not isinstance(hosts, list) or len(hosts) > MAX_HOSTS:
        raise ValueError(f"start: network.hosts must be a list of at most {MAX_HOSTS}")
    for host in hosts:
        if not isinstance(host, str) or not 0 < len(host) <= _MAX_HOST_CHARS or not host.isascii():
            raise ValueError("start: network.hosts must be ASCII texts")
        try:
            split_port(host)
        except ValueError:
            raise ValueError(f"start: network.hosts: {host!r} is not a host with or without a port") from None


def split_port(text: str) -> tuple[str, int | None]:
    """(host, port or None) of `host`, `host:port`, `[address]`, `[address]:port`, or a bare IPv6 address."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(text)
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, port = text.partition(":")
        port = port if colon else None
    if not host or (port is not None and not (port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(text)
    return host, int(port) if port is not None else None


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    if pattern == host:
        return True
    wanted = as_address(pattern)
    return wanted is not None and wanted == as_address(host)


def as_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def forbidden(text: str) -> str | None:
    """The name of the rule by which no call reaches this address; None when there is none."""
    address = ipaddress.ip_address(text.partition("%")[0])
    every = [*_embedded(address), address]
    rules = [rule for rule in map(_forbidden, every) if rule]
    return rules[0] if rules else None


def _forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    if address in _METADATA:
        return "metadata"
    if address.is_unspecified or (address.version == 4 and address.packed[0] == 0):
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast or address.packed == b"\xff" * 4:
        return "multicast"
    if _is_own(address):
        return "own address"
    return None


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that an IPv6 one stands for (RFC 4291, 3056, 4380, 6052)."""
    if address.version == 4:
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or 1 < int(address) < 1 << 32:
        found.append(ipaddress.IPv4Address(address.packed[12:]))
    return [inner for inner in found if inner is not None]


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True for an address of this host: only to such a one does the kernel send from that very address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # sends nothing
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False
