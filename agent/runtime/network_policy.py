"""Which addresses a call may reach: its own rules, and what no call ever reaches, whatever name leads there."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

MAX_HOSTS = 256
_MAX_HOST_CHARS = 300
_PORT = re.compile(r"[0-9]{1,5}")

# Metadata services of clouds that are not in a link-local range: of AWS, Google, Alibaba, Azure (which hands the
# settings and certificates of a machine out there), Oracle and Scaleway.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
    )
)
# RFC 6052 and 8215 (NAT64), 7915 (SIIT): the IPv4 address stands in the last 32 bits.
_TRANSLATED = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96"))
_NAME = re.compile(r"(?=.{1,253}$)[0-9a-z_-]{1,63}(?:\.[0-9a-z_-]{1,63})*")
# Names that mean this host to whoever resolves them (RFC 6761), or in the hosts files of most systems.
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")
# A last label like these makes the whole an IPv4 address, or nothing (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# linux/rtnetlink.h
_NLMSG, _RTMSG, _RTATTR = struct.Struct("=IHHII"), struct.Struct("=BBBBBBBBI"), struct.Struct("=HH")
_RTM_NEWROUTE, _RTM_GETROUTE, _NLM_F_REQUEST, _RTA_DST, _RTN_LOCAL = 24, 26, 1, 1, 2


class Policy:
    """``rule`` is the name that an answer gives to what refused a connection."""

    __slots__ = ("_patterns", "rule")

    def __init__(self, mode: str, hosts: list[str]) -> None:
        self.rule = mode
        self._patterns = [_pattern(host) for host in hosts] if mode == "hosts" else None

    def allows(self, host: str, port: int) -> bool:
        """``host``: as ``canonical`` gives it."""
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
    if not host or (port is not None and not (_PORT.fullmatch(port) and 0 < int(port) < 65536)):
        raise ValueError(text)
    return host, int(port) if port is not None else None


def canonical(host: str) -> str:
    """The one form of a host's name or address: lower case, no dot at its end, `127.1` and `0x7f000001` written out.

    Whoever it is passed on to shall read what was checked here: there are several ways to read `0127.0.0.1`. Names of
    other alphabets are taken in their ASCII form (RFC 5891) only. Raises ValueError for what cannot be a host.
    """
    host = host.lower()
    if ":" in host:
        if not host.isascii() or "%" in host:
            raise ValueError(host)
        return str(ipaddress.IPv6Address(host))
    host = host[:-1] if host.endswith(".") else host
    if not _NAME.fullmatch(host):
        raise ValueError(host)
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            raise ValueError(host) from None
    return host


def _pattern(text: str) -> tuple[str, int | None]:
    host, port = split_port(text.lower())
    try:
        return canonical(host), port
    except ValueError:
        return host, port  # `*.` and a name; anything else equals no canonical host


def _matches(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else pattern == host


def as_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def forbidden_name(host: str) -> str | None:
    """The same for a name that needs no lookup, since others might look it up elsewhere."""
    return "loopback" if host in _LOOPBACK_NAMES or host.endswith((".localhost", ".localhost.localdomain")) else None


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
    """IPv4 addresses that an IPv6 one stands for (RFC 4291, 3056, 4380, 6052, 7915)."""
    if address.version == 4:
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _TRANSLATED) or 1 < int(address) < 1 << 32:
        found.append(ipaddress.IPv4Address(address.packed[12:]))
    return [inner for inner in found if inner is not None]


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True for an address of this host now; asked anew each time, since addresses come and go.

    The kernel's routes tell, and to an address of its own it sends from that very address. The latter alone would miss
    the second IPv4 address of a network, to which it sends from the first; the former is not there on every kernel.
    """
    return _has_local_route(address) or _is_sent_from_itself(address)


def _has_local_route(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family, size = (socket.AF_INET if address.version == 4 else socket.AF_INET6), len(address.packed)
    body = _RTMSG.pack(family, size * 8, 0, 0, 0, 0, 0, 0, 0) + _RTATTR.pack(_RTATTR.size + size, _RTA_DST)
    length = _NLMSG.size + len(body) + size
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            kernel.send(_NLMSG.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + body + address.packed)
            answer = kernel.recv(4096)  # the kernel answers before send returns
    except OSError:
        return False
    kind = _NLMSG.unpack_from(answer)[1]
    return kind == _RTM_NEWROUTE and _RTMSG.unpack_from(answer, _NLMSG.size)[7] == _RTN_LOCAL


def _is_sent_from_itself(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # sends nothing
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False
