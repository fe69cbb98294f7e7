"""What the egress proxy takes for a request, what it makes of it, and whose lookups wait for whose."""

from __future__ import annotations

import asyncio
import socket
import threading
import unittest
from unittest import mock

import support

# isort: split
import egress_handshake
from egress_dial import Dialer, Failed, Refused, Upstream
from egress_http import Malformed
from network_policy import Policy

SECRET = "Proxy-Authorization: Basic c2VjcmV0"
HIDDEN = "GET http://169.254.169.254/latest HTTP/1.1"


class Written:
    """As much of a StreamWriter as a request is sent with."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False


class UpstreamServer:
    authorization = [SECRET]


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def sent(data: bytes, upstream: object) -> tuple[str, bytes]:
    """(head, body) of what goes to the next server. Raises as the proxy's parts do."""
    reader, far = reader_of(data), Written()
    request = await egress_handshake.read_request(reader, Written())
    await request.accept(Written(), far, upstream)
    head = far.data
    await request.pass_on(reader, far)
    return head.decode("latin-1"), far.data[len(head) :]


class Heads(unittest.TestCase):
    def sent(self, text: str, upstream: object = None) -> tuple[str, bytes]:
        return asyncio.run(sent(text.encode("latin-1"), upstream))

    def test_what_is_no_clean_head_is_refused(self) -> None:
        line = "GET http://a.example/ HTTP/1.1\r\n"
        heads = [
            f"{line}Host: a\n\n{HIDDEN}\r\nX: y",
            f"{line}Host: a\r\r{HIDDEN}\r\nX: y",
            f"{line}Host: a\n{HIDDEN}",
            f"{line}\n{HIDDEN}\nX: y",
            f"{line}X: a\0b", f"{line}X: a\rb", f"{line}X: a\nb", f"{line}X\0: a", f"{line}X: \x7f", f"{line}X: \x0b",
            f"{line}X : a", f"{line}X\t: a", f"{line} X: a", f"{line}X: a\r\n folded", f"{line}X: a\r\n\tfolded",
            f"{line}X", f"{line}: a", f"{line}X Y: a", f"{line}(X): a", f"{line}\xe4: a",
            f"{line}Content-Length: 1\r\nTransfer-Encoding: chunked",
            f"{line}Transfer-Encoding: chunked\r\ncontent-length: 1",
            f"{line}Content-Length: 1\r\nContent-Length: 2", f"{line}Content-Length: 1\r\nContent-Length: 1",
            f"{line}Content-Length: 1, 1", f"{line}Content-Length: +1", f"{line}Content-Length: -1", f"{line}Content-Length:",
            f"{line}Content-Length: 0x1", f"{line}Content-Length: 1_0", f"{line}Content-Length: \xb2", f"{line}Content-Length: 1 1",
            f"{line}Content-Length: 9999999999999999999",
            f"{line}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", f"{line}Transfer-Encoding: gzip, chunked",
            f"{line}Transfer-Encoding: xchunked", f"{line}Transfer-Encoding: \x0bchunked", f"{line}Transfer-Encoding: identity",
            "GET http://a.example/ HTTP/1.0\r\nTransfer-Encoding: chunked",
            f"{line}Host: a\r\nHost: b",
            "GET  http://a.example/ HTTP/1.1", "GET http://a.example/ HTTP/1.1 ", "GET\thttp://a.example/\tHTTP/1.1",
            "GET http://a.example/ HTTP/1.1\n", "GET http://a.example/ HTTP/1.10", "GET http://a.example/ HTTP/2.0",
            "GET http://a.example/ HTTP/1.\xb2", "GET http://a.example/", "G(T http://a.example/ HTTP/1.1", " http://a.example/ HTTP/1.1",
            "GET http://a.example/\x00 HTTP/1.1", "GET http://a.example/\xe4 HTTP/1.1", "GET http://a.example/\n HTTP/1.1",
            "GET http://a.example/#b HTTP/1.1", "GET http:///a HTTP/1.1", "GET http://a.example\\@b/ HTTP/1.1",
            "GET http://a.example:0/ HTTP/1.1", "GET http://a.example:65536/ HTTP/1.1", "GET http://a.example:/ HTTP/1.1",
            "GET http://a:b:c/ HTTP/1.1", "GET http://a..b/ HTTP/1.1", "GET http://.a/ HTTP/1.1", "GET http://0169.254.169.254/ HTTP/1.1",
            "CONNECT a.example:443 HTTP/1.1\nX: y", "CONNECT a.example:443 HTTP/1.1\r\nX : y", "CONNECT http://a.example/ HTTP/1.1",
        ]  # fmt: skip
        for head in heads:
            for upstream in (None, UpstreamServer()):
                with self.assertRaises(egress_handshake.BadRequest, msg=repr(head)) as raised:
                    self.sent(f"{head}\r\n\r\n", upstream)
                self.assertRegex(str(raised.exception), "HTTP/1.1 400 ", head)

    def test_a_head_is_built_anew(self) -> None:
        head, body = self.sent(
            "PUT HTTP://User@EXAMPLE.org.:8080/a?b=c HTTP/1.0\r\nhost: other.example\r\nAccept:  x \r\nX-Empty:\r\nX-Utf: \xc3\xa4\r\n"
            "Connection: close, X-Listed\r\nX-Listed: 1\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\n"
            "Upgrade: h2c\r\nHTTP2-Settings: AA\r\nTE: trailers\r\nCONTENT-LENGTH: 003\r\n\r\nabc",
            UpstreamServer(),
        )
        self.assertEqual(
            head.split("\r\n"),
            ["PUT http://example.org:8080/a?b=c HTTP/1.1", "Host: example.org:8080", "Accept: x", "X-Empty: ", "X-Utf: \xc3\xa4",
             "Content-Length: 3", SECRET, "Connection: close", "", ""],
        )  # fmt: skip
        self.assertEqual(body, b"abc")

    def test_targets(self) -> None:
        cases = {
            "http://a.example": ("GET / HTTP/1.1", "Host: a.example"),
            "http://a.example?x=/y": ("GET /?x=/y HTTP/1.1", "Host: a.example"),
            "http://a.example:80//x": ("GET //x HTTP/1.1", "Host: a.example"),
            "http://[2001:DB8::0:1]:81/": ("GET / HTTP/1.1", "Host: [2001:db8::1]:81"),
            "http://0x08080808/": ("GET / HTTP/1.1", "Host: 8.8.8.8"),
            "http://a.example@b.example/": ("GET / HTTP/1.1", "Host: b.example"),
        }
        for target, lines in cases.items():
            self.assertEqual(tuple(self.sent(f"GET {target} HTTP/1.1\r\n\r\n")[0].split("\r\n")[:2]), lines, target)

    def test_nothing_follows_a_body(self) -> None:
        line, after = "POST http://a.example/ HTTP/1.1\r\n", f"{HIDDEN}\r\n\r\n"
        self.assertEqual(self.sent(f"{line}\r\n{after}")[1], b"")
        self.assertEqual(self.sent(f"{line}Content-Length: 0\r\n\r\n{after}")[1], b"")
        self.assertEqual(self.sent(f"{line}Content-Length: 2\r\n\r\nab{after}")[1], b"ab")
        chunks = "2;x=y\r\nab\r\n0A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        body = self.sent(f"{line}Transfer-Encoding: Chunked\r\n\r\n{chunks}{after}")[1]
        self.assertEqual(body, b"2\r\nab\r\na\r\n0123456789\r\n0\r\n\r\n")

    def test_a_body_that_is_not_framed_ends_the_connection(self) -> None:
        line = "POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        for body in ("2\nab\r\n0\r\n\r\n", "2\r\nabc\r\n0\r\n\r\n", "-2\r\nab\r\n", "0x2\r\nab\r\n", "\r\n", "2;\n\r\nab\r\n", "+2\r\nab\r\n",
                     "0\r\nX : y\r\n\r\n", "0\r\nX: y\n\r\n\r\n", "2\r\nab\n\n0\r\n\r\n", "1" * 16 + "\r\n"):  # fmt: skip
            with self.assertRaises(Malformed, msg=repr(body)):
                self.sent(line + body)
        for cut in ("Transfer-Encoding: chunked\r\n\r\n2\r\na", "Content-Length: 2\r\n\r\na"):
            with self.assertRaises(EOFError):
                self.sent(f"POST http://a.example/ HTTP/1.1\r\n{cut}")

    def test_long_heads_are_read_in_no_time(self) -> None:
        """A search that goes back over blanks would take minutes for this."""
        for tail in ("\0", "x\0"):
            with self.assertRaises(egress_handshake.BadRequest):
                self.sent("GET http://a.example/ HTTP/1.1\r\nX:" + " " * 60000 + tail + "\r\n\r\n")

    def test_socks_refuses_what_is_no_host_and_port(self) -> None:
        async def refused(host: bytes, port: int) -> bytes:
            data = b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(host)]) + host + port.to_bytes(2, "big")
            answer = Written()
            with self.assertRaises(egress_handshake.BadRequest) as raised:
                await egress_handshake.read_request(reader_of(data), Written())
            await raised.exception.answer(answer)
            return answer.data[:2]

        for host, port in (
            (b"a", 0),
            (b"a..b", 80),
            (b"a\r\nb", 80),
            (b"\xc3\xa4", 80),
            (b"", 80),
            (b"localhost..", 80),
        ):
            self.assertEqual(asyncio.run(refused(host, port)), b"\x05\x01", (host, port))


class Lookups(unittest.TestCase):
    """With an upstream proxy, and a name server that does not answer for names below slow.example."""

    def setUp(self) -> None:
        self.answer = threading.Event()
        self.asked: list[str] = []

        def getaddrinfo(host: str, port: int, **_: object) -> list:
            self.asked.append(host)
            if host.endswith("slow.example"):
                self.answer.wait(support.DEADLINE_S)
            found = {"inside.example": ["127.0.0.1"], "both.example": ["192.0.2.1", "169.254.169.254"]}
            addresses = found.get(host, ["192.0.2.1"])
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        patches = (
            mock.patch("socket.getaddrinfo", getaddrinfo),
            mock.patch("egress_dial._UPSTREAM_RESOLVE_S", 0.05),
            mock.patch.object(Dialer, "_through", self.through),
        )
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(self.answer.set)
        self.upstream = Upstream({"https": "http://192.0.2.9:3128"})

    async def through(self, server: object, name: str, tunnel: bool) -> str:
        return f"through {name}"

    def dialer(self) -> Dialer:
        dialer = Dialer(Policy("full", []), self.upstream)
        self.addCleanup(dialer.close)
        return dialer

    def test_slow_names_of_one_call_leave_the_check_of_others_on(self) -> None:
        async def run() -> None:
            hostile, other = self.dialer(), self.dialer()
            slow = [f"{number}.slow.example" for number in range(40)]
            await asyncio.gather(*(hostile.dial(name, 443, True) for name in slow))
            with mock.patch("egress_dial._UPSTREAM_RESOLVE_S", float(support.DEADLINE_S)):
                for dialer in (other, self.dialer()):
                    with self.assertRaisesRegex(Refused, "rule: loopback"):
                        await dialer.dial("inside.example", 443, True)
                self.assertEqual(await other.dial("outside.example", 443, True), "through outside.example:443")
            for host in ("127.0.0.1", "169.254.169.254", "localhost", "a.localhost", "::ffff:127.0.0.1"):
                with self.assertRaises(Refused, msg=host):
                    await hostile.dial(host, 443, True)

        asyncio.run(run())

    def test_a_name_with_one_forbidden_address_is_left_to_no_upstream_proxy(self) -> None:
        async def run() -> None:
            patient = mock.patch("egress_dial._UPSTREAM_RESOLVE_S", float(support.DEADLINE_S))
            with patient, self.assertRaisesRegex(Refused, "169.254.169.254, .*rule: link-local"):
                await self.dialer().dial("both.example", 443, True)

        asyncio.run(run())

    def test_a_slow_name_is_waited_for_once_and_others_are_still_checked(self) -> None:
        async def run() -> None:
            dialer = self.dialer()
            for _ in range(3):
                self.assertEqual(await dialer.dial("a.slow.example", 443, True), "through a.slow.example:443")
            self.assertEqual(self.asked, ["a.slow.example"])
            patient = mock.patch("egress_dial._UPSTREAM_RESOLVE_S", float(support.DEADLINE_S))
            with patient, self.assertRaisesRegex(Refused, "rule: loopback"):
                await dialer.dial("inside.example", 443, True)

        asyncio.run(run())

    def test_without_an_upstream_proxy_a_name_that_is_not_resolved_is_not_reached(self) -> None:
        async def run() -> None:
            dialer = Dialer(Policy("full", []), None)
            self.addCleanup(dialer.close)
            with mock.patch("egress_dial._RESOLVE_S", 0.05), self.assertRaises(Failed):
                await dialer.dial("a.slow.example", 443, True)

        asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
