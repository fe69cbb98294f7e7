"""What a policy allows, and the addresses that none does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import unittest

import support  # noqa: F401  (puts the runtime on the path)

# isort: split
import network_policy
from network_policy import Policy, as_address


class Policies(unittest.TestCase):
    def test_hosts(self) -> None:
        policy = Policy("hosts", ["PyPI.org:443", "*.example.org", "192.0.2.7", "[2001:DB8:0::1]:80", "any.port"])
        cases = {
            ("pypi.org", 443): True, ("pypi.org", 80): False, ("evil-pypi.org", 443): False,
            ("pypi.org.evil", 443): False, ("a.example.org", 1): True, ("a.b.example.org", 443): True,
            ("example.org", 443): False, ("badexample.org", 443): False, ("192.0.2.7", 22): True,
            ("192.0.2.70", 22): False, ("2001:db8::1", 80): True,
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
            "64:ff9b:1::a9fe:a9fe": "link-local", "::ffff:0:127.0.0.1": "loopback", "64:ff9b::a9fe:a9fe": "link-local",
            "2002:a9fe:a9fe::1": "link-local", "::169.254.169.254": "link-local", "::ffff:6464:64c8": "metadata",
            f"64:ff9b::{own}": "own address", "64:ff9b::192.0.2.1": None, "2002:c000:201::1": None,
            "169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
            "::ffff:169.254.169.254": "link-local", "fd00:ec2::254": "metadata", "100.100.100.200": "metadata",
            "168.63.129.16": "metadata", "64:ff9b::168.63.129.16": "metadata", "192.0.0.192": "metadata",
            "fd00:c1::a9fe:a9fe": "metadata", "fd00:42::42": "metadata", "168.63.129.17": None,
            "0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified", "224.0.0.1": "multicast",
            "ff02::1": "multicast", "255.255.255.255": "multicast", own: "own address", f"::ffff:{own}": "own address",
            "192.0.2.1": None, "10.1.2.3": None, "2001:db8::1": None, "::ffff:192.0.2.1": None,
        }  # fmt: skip
        for address, rule in cases.items():
            self.assertEqual(network_policy.forbidden(address), rule, address)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("ip"), "giving the host an address takes root and iproute2")
    def test_addresses_that_the_host_is_given_later_are_its_own(self) -> None:
        def ip(*words: str) -> None:
            subprocess.run(("ip", *words), check=True)

        link = f"hp{os.getpid() % 100000}"
        ip("link", "add", f"{link}a", "type", "veth", "peer", "name", f"{link}b")
        self.addCleanup(ip, "link", "del", f"{link}a")
        ip("link", "set", f"{link}a", "up")
        # To the second address of a network the kernel sends from the first.
        for address, size in (("198.18.78.1", 24), ("198.18.78.2", 24), ("2001:db8:78::1", 64)):
            for rule, change in ((None, "add"), ("own address", "del"), (None, "add"), ("own address", None)):
                self.assertEqual(network_policy.forbidden(address), rule)
                if change:
                    ip(
                        "addr",
                        change,
                        f"{address}/{size}",
                        "dev",
                        f"{link}a",
                        *(("nodad",) if ":" in address and change == "add" else ()),
                    )

    def test_a_host_has_one_form(self) -> None:
        cases = {
            "PyPI.org": "pypi.org", "pypi.org.": "pypi.org", "_a-b.c": "_a-b.c", "xn--bcher-kva.example": "xn--bcher-kva.example",
            "2130706433": "127.0.0.1", "0x7F000001": "127.0.0.1", "0x7f.1": "127.0.0.1", "017700000001": "127.0.0.1",
            "0127.0.0.1": "87.0.0.1", "127.1.": "127.0.0.1", "0": "0.0.0.0", "::FFFF:7f00:1": "::ffff:7f00:1",
            "0:0::1": "::1", "2001:DB8::0001": "2001:db8::1",
        }  # fmt: skip
        for text, host in cases.items():
            self.assertEqual(as_address(network_policy.canonical(text)), as_address(host), text)
            if as_address(host) is None:
                self.assertEqual(network_policy.canonical(text), host)
        for text in ("", ".", "..", "a..b", ".a", "a..", "localhost..", "b\u00fccher.example", "\uff11\uff12\uff17.1", "a b", "a\n",
                     "a\r\nb", "a\0", "a/b", "a@b", "a%2e", "fe80::1%eth0", "::1.", ":", "a:b:c", "1.2.3.4.5", "1.2.3.256",
                     "0169.254.169.254", "4294967296", "0x100000000", "a.0x7f", "a" * 64, "a." * 127 + "b"):  # fmt: skip
            with self.assertRaises(ValueError, msg=repr(text)):
                network_policy.canonical(text)
        self.assertTrue(Policy("hosts", ["0x08080808:53"]).allows("8.8.8.8", 53))

    def test_names_of_this_host(self) -> None:
        for name in ("localhost", "a.localhost", "a.b.localhost", "localhost.localdomain", "ip6-loopback"):
            self.assertEqual(network_policy.forbidden_name(name), "loopback")
        for name in ("localhost.example", "notlocalhost", "local"):
            self.assertIsNone(network_policy.forbidden_name(name))

    def test_hosts_and_ports_are_read(self) -> None:
        cases = {
            "a.b": ("a.b", None), "a.b:80": ("a.b", 80), "[::1]": ("::1", None), "[::1]:443": ("::1", 443),
            "::1": ("::1", None),
        }  # fmt: skip
        for text, parts in cases.items():
            self.assertEqual(network_policy.split_port(text), parts)
        for text in (
            "",
            ":80",
            "a:",
            "a:x",
            "a:0",
            "a:00",
            "a:65536",
            "[::1",
            "[::1]x",
            "a:-1",
            "a:+1",
            "a:\u0663",
            "a:\u00b2",
            "a: 1",
        ):
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
