"""What a policy allows, and the addresses that none does."""

from __future__ import annotations

import socket
import unittest

import support  # noqa: F401  (puts the runtime on the path)

# isort: split
import network_policy
from network_policy import Policy


class Policies(unittest.TestCase):
    def test_hosts(self) -> None:
        policy = Policy("hosts", ["PyPI.org:443", "*.example.org", "192.0.2.7", "[2001:db8::1]:80", "any.port"])
        cases = {
            ("pypi.org", 443): True, ("pypi.org", 80): False, ("evil-pypi.org", 443): False,
            ("pypi.org.evil", 443): False, ("a.example.org", 1): True, ("a.b.example.org", 443): True,
            ("example.org", 443): False, ("badexample.org", 443): False, ("192.0.2.7", 22): True,
            ("192.0.2.70", 22): False, ("2001:db8::1", 80): True, ("2001:db8:0::1", 80): True,
            ("2001:db8::1", 81): False, ("any.port", 65535): True,
        }  # fmt: skip
        for (host, port), allowed in cases.items():
            self.assertEqual(policy.allows(host, port), allowed, (host, port))
        self.assertFalse(Policy("hosts", []).allows("pypi.org", 443))
        self.assertTrue(Policy("full", []).allows("pypi.org", 443))

    def test_addresses_that_no_call_reaches(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        cases = {
            "127.0.0.1": "loopback", "127.255.0.3": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
            "::127.0.0.1": "loopback", "64:ff9b::7f00:1": "loopback", "2002:7f00:1::": "loopback",
            "169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
            "::ffff:169.254.169.254": "link-local", "fd00:ec2::254": "metadata", "100.100.100.200": "metadata",
            "0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified", "224.0.0.1": "multicast",
            "ff02::1": "multicast", "255.255.255.255": "multicast", own: "own address", f"::ffff:{own}": "own address",
            "192.0.2.1": None, "10.1.2.3": None, "2001:db8::1": None, "::ffff:192.0.2.1": None,
        }  # fmt: skip
        for address, rule in cases.items():
            self.assertEqual(network_policy.forbidden(address), rule, address)

    def test_hosts_and_ports_are_read(self) -> None:
        cases = {
            "a.b": ("a.b", None), "a.b:80": ("a.b", 80), "[::1]": ("::1", None), "[::1]:443": ("::1", 443),
            "::1": ("::1", None),
        }  # fmt: skip
        for text, parts in cases.items():
            self.assertEqual(network_policy.split_port(text), parts)
        for text in ("", ":80", "a:", "a:x", "a:0", "a:65536", "[::1", "[::1]x", "a:-1"):
            with self.assertRaises(ValueError, msg=text):
                network_policy.split_port(text)

    def test_what_a_start_may_say(self) -> None:
        for fields in (None, {"mode": "full"}, {"mode": "hosts", "hosts": ["a:1", "*.b"]}):
            network_policy.check(fields)
        for fields in ("full", {}, {"mode": "some"}, {"mode": "hosts", "hosts": "a"}, {"mode": "hosts", "hosts": ["a:b"]},
                       {"mode": "hosts", "hosts": [1]}, {"mode": "hosts", "hosts": ["a"] * 257}):  # fmt: skip
            with self.assertRaises(ValueError, msg=str(fields)):
                network_policy.check(fields)


if __name__ == "__main__":
    unittest.main()
