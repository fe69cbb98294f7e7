"""Network access of calls: through the egress proxy and no other way."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unittest

import support
from test_sandbox import descendants, proc_text

FULL = {"mode": "full"}
FETCH = """
import os, urllib.request, urllib.error
def handler(input):
    try:
        with urllib.request.urlopen(input['url'], timeout=30) as answer:
            return {'status': answer.status, 'body': answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {'status': error.code, 'reason': error.reason, 'body': error.read().decode()}
"""
TUNNEL = """
import socket
def tunnel(target):
    connection = socket.create_connection(('127.0.0.1', 3128), timeout=30)
    connection.sendall(f'CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n'.encode())
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'):
        head += connection.recv(1) or b'\\r\\n\\r\\n'
    return connection, head.split(b'\\r\\n')[0].decode()
"""
ECHO = (
    TUNNEL
    + """
def handler(input):
    connection, status = tunnel(input['target'])
    if ' 200 ' not in status:
        return {'status': status}
    connection.sendall(b'hello')
    connection.shutdown(socket.SHUT_WR)
    echoed = b''
    while data := connection.recv(100):
        echoed += data
    return {'status': status, 'echoed': echoed.decode()}
"""
)


class Upstream:
    """An HTTP proxy that echoes what comes through a tunnel, and answers a plain request with itself."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[str] = []
        self.ended = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb", buffering=0) as file:
            lines = []
            while (line := file.readline().strip()) != b"":
                lines.append(line.decode())
            self.heads.append("\n".join(lines))
            if lines and lines[0].startswith("CONNECT denied"):
                connection.sendall(b"HTTP/1.1 407 Who are you\r\n\r\n")
            elif lines and lines[0].startswith("CONNECT"):
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)
                except ConnectionError:
                    pass
            else:
                body = "\n".join(lines).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                # To close it with a body of the request unread would reset it, and the answer may be lost with that.
                connection.shutdown(socket.SHUT_WR)
                try:
                    while connection.recv(1 << 16):
                        pass
                except ConnectionError:
                    pass
        self.ended.release()


class Network(support.RuntimeTest):
    """The host's own proxy stands for the world outside, so that nothing has to be reached there."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.upstream = Upstream()
        url = f"http://user:pass%40word@127.0.0.1:{cls.upstream.port}"
        variables = {**os.environ, "HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": "direct.invalid,192.0.2.0/24"}
        for name in ("https_proxy", "http_proxy", "no_proxy", "all_proxy", "ALL_PROXY"):
            variables.pop(name, None)
        cls.launcher = support.Launcher()
        started = cls.launcher.start(env=variables)
        if started.returncode:
            raise AssertionError(started.stderr)

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.upstream.close()

    def echo(self, target: str, network: dict, **fields: object) -> dict:
        ended = self.agent.run(ECHO, {"target": target}, network=network, **fields)
        self.assertEqual(ended.outcome, "succeeded", (ended.header, ended.stderr))
        return ended.result

    def test_a_tunnel_through_the_proxy_that_the_host_needs(self) -> None:
        result = self.echo("far.invalid:443", FULL)
        self.assertEqual(result, {"status": "HTTP/1.1 200 Connection established", "echoed": "hello"})
        credentials = base64.b64encode(b"user:pass@word").decode()
        self.assertIn(
            f"CONNECT far.invalid:443 HTTP/1.1\nHost: far.invalid:443\nProxy-Authorization: Basic {credentials}",
            self.upstream.heads,
        )

    def test_a_plain_request(self) -> None:
        ended = self.agent.run(FETCH, {"url": "http://far.invalid/a?b=c"}, network=FULL)
        lines = ended.result["body"].split("\n")
        self.assertEqual(lines[0], "GET http://far.invalid:80/a?b=c HTTP/1.1")
        self.assertIn("Connection: close", lines)
        self.assertIn("Host: far.invalid", lines)

    def test_socks(self) -> None:
        code = """
import socket, struct
def ask(host, port):
    connection = socket.create_connection(('127.0.0.1', 3128), timeout=30)
    connection.sendall(b'\\x05\\x01\\x00')
    greeting = connection.recv(2)
    connection.sendall(b'\\x05\\x01\\x00\\x03' + bytes([len(host)]) + host.encode() + struct.pack('!H', port))
    return connection, (greeting + connection.recv(10)).hex()
def handler(input):
    connection, allowed = ask('far.invalid', 443)
    connection.sendall(b'over socks')
    return {'allowed': allowed, 'echoed': connection.recv(100).decode(), 'refused': ask('other.invalid', 443)[1]}
"""
        ended = self.agent.run(code, network={"mode": "hosts", "hosts": ["far.invalid:443"]})
        self.assertSucceeds(
            ended,
            {"allowed": "050005000001000000000000", "echoed": "over socks", "refused": "050005020001000000000000"},
        )

    def test_only_the_hosts_of_the_policy_are_reached(self) -> None:
        policy = {"mode": "hosts", "hosts": ["far.invalid:443", "*.below.invalid"]}
        self.assertEqual(self.echo("far.invalid:443", policy)["echoed"], "hello")
        self.assertEqual(self.echo("FAR.invalid.:443", policy)["echoed"], "hello")
        self.assertEqual(self.echo("a.below.invalid:8443", policy)["echoed"], "hello")
        before = len(self.upstream.heads)
        for target in ("far.invalid:80", "below.invalid:443", "other.invalid:443"):
            status = f"HTTP/1.1 403 {target} is not among the hosts that this call may reach (rule: hosts)"
            self.assertEqual(self.echo(target, policy), {"status": status})
        self.assertEqual(len(self.upstream.heads), before)

    def test_the_host_and_its_neighbours_are_never_reached(self) -> None:
        before = len(self.upstream.heads)
        cases = {
            f"127.0.0.1:{self.upstream.port}": "loopback", f"localhost:{self.upstream.port}": "loopback",
            "127.1:80": "loopback", "2130706433:80": "loopback", "0x7f000001:80": "loopback", "0.0.0.0:80": "unspecified",
            "0x7f.1:80": "loopback", "127.0.0.1.:80": "loopback", "LocalHost.:80": "loopback", "a.localhost:80": "loopback",
            "[64:ff9b::7f00:1]:80": "loopback", "[2002:a9fe:a9fe::]:80": "link-local", "[::7f00:1]:80": "loopback",
            "[::1]:80": "loopback", "[::ffff:127.0.0.1]:80": "loopback", "169.254.169.254:80": "link-local",
            "[fe80::1]:80": "link-local", "[fd00:ec2::254]:80": "metadata", "224.0.0.1:80": "multicast",
        }  # fmt: skip
        for target, rule in cases.items():
            hosts = {"mode": "hosts", "hosts": [target]}
            for policy in (FULL, hosts):
                self.assertRegex(self.echo(target, policy)["status"], rf"^HTTP/1.1 403 .* \(rule: {rule}\)$", target)
        self.assertEqual(len(self.upstream.heads), before)

    def test_what_cannot_be_reached_is_told(self) -> None:
        self.assertEqual(
            self.echo("denied.invalid:443", FULL),
            {"status": "HTTP/1.1 502 Cannot reach denied.invalid:443: the upstream proxy says 407 Who are you"},
        )
        direct = self.agent.run(FETCH, {"url": "http://direct.invalid/"}, network=FULL).result
        self.assertEqual(direct["status"], 502)
        self.assertIn("harrier: Cannot reach direct.invalid:80: ", direct["body"])

    def test_nonsense_is_answered(self) -> None:
        code = """
import socket
def handler(input):
    answers = []
    for text in input['requests']:
        connection = socket.create_connection(('127.0.0.1', 3128), timeout=30)
        connection.sendall(text.encode('latin-1'))
        connection.shutdown(socket.SHUT_WR)
        answers.append(connection.makefile('rb').readline().decode('latin-1').strip()[:40])
    return {'answers': answers}
"""
        requests = ["GET / HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n", "CONNECT a:b:c HTTP/1.1\r\n\r\n", "CONNECT x HTTP/1.1\r\n\r\n",
                    "GET https://a/ HTTP/1.1\r\n\r\n", "CONNECT a\tb:1 HTTP/1.1\r\n\r\n", "CONNECT a:0 HTTP/1.1\r\n\r\n",
                    "CONNECT a:65536 HTTP/1.1\r\n\r\n", "CONNECT localhost..:80 HTTP/1.1\r\n\r\n",
                    "CONNECT a..b:80 HTTP/1.1\r\n\r\n", "CONNECT \xe4.example:80 HTTP/1.1\r\n\r\n",
                    "\x05\x01\x02", "", "GET"]  # fmt: skip
        answers = self.agent.run(code, {"requests": requests}, network=FULL).result["answers"]
        self.assertEqual([answer[:12] for answer in answers[:-3]], ["HTTP/1.1 400"] * 11)
        self.assertEqual(answers[-3:], ["\x05\xff", "", ""])
        self.assertEqual(self.echo("far.invalid:443", FULL)["echoed"], "hello")

    def test_no_request_hides_behind_another(self) -> None:
        code = """
import socket
def handler(input):
    answers = []
    for text in input['requests']:
        connection = socket.create_connection(('127.0.0.1', 3128), timeout=30)
        connection.sendall(text.encode('latin-1'))
        answers.append(connection.makefile('rb').readline().decode('latin-1').strip()[:12])
    return {'answers': answers}
"""
        hidden = "GET http://169.254.169.254/latest HTTP/1.1\r\nX: y\r\n\r\n"
        plain = "POST http://far.invalid/hiding HTTP/1.1\r\nHost: far.invalid"
        requests = [
            f"{plain}\n\n{hidden}",
            f"{plain}\r\n\n{hidden}",
            f"{plain}\r\nX: {hidden}",
            f"{plain}\r\n\r\n{hidden}",
            f"{plain}\r\nContent-Length: 2\r\n\r\nab{hidden}",
            f"{plain}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n{hidden}",
            f"{plain}\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        ]
        ended = self.agent.run(code, {"requests": requests}, network=FULL)
        bad, good = "HTTP/1.1 400", "HTTP/1.1 200"
        # The third one's first line of a hidden head is the value of a field.
        self.assertSucceeds(ended, {"answers": [bad, bad, good, good, good, good, bad]})
        self.assertFalse([head for head in self.upstream.heads if head.startswith("GET http://169.254")])

    def test_there_is_no_other_way_out(self) -> None:
        code = """
import errno, os, socket
def handler(input):
    out = {'interfaces': [name for _, name in socket.if_nameindex()], 'proxy': os.environ['https_proxy']}
    for target in (('192.0.2.1', 80), ('127.0.0.1', input['port'])):
        try:
            socket.create_connection(target, timeout=5)
        except OSError as error:
            out[target[0]] = errno.errorcode[error.errno]
    return out
"""
        ended = self.agent.run(code, {"port": self.upstream.port}, network=FULL)
        self.assertSucceeds(
            ended,
            {
                "interfaces": ["lo"],
                "proxy": "http://127.0.0.1:3128",
                "192.0.2.1": "ENETUNREACH",
                "127.0.0.1": "ECONNREFUSED",
            },
        )

    def test_a_call_without_network_has_no_proxy(self) -> None:
        self.echo("far.invalid:443", FULL)
        code = (
            "import os, socket\ndef handler(input):\n"
            "    return {'code': socket.socket().connect_ex(('127.0.0.1', 3128)), 'set': [n for n in os.environ if 'proxy' in n.lower()]}"
        )
        self.assertSucceeds(self.agent.run(code), {"code": 111, "set": []})

    def test_calls_with_network_share_no_loopback(self) -> None:
        code = (
            "import socket, time\ndef handler(input):\n    server = socket.create_server(('127.0.0.1', 4711))\n"
            "    abstract = socket.socket(socket.AF_UNIX)\n    abstract.bind('\\0mine')\n    print('up', flush=True)\n"
            "    time.sleep(1000)"
        )
        running = [self.agent.start(code, network=FULL) for _ in range(2)]
        for execution in running:
            self.agent.wait_for_output(execution, b"up\n")
            self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})

    def test_connections_end_with_the_call(self) -> None:
        code = (
            TUNNEL
            + "def handler(input):\n    connection, _ = tunnel('far.invalid:443')\n    print('up', flush=True)\n    import time\n    time.sleep(1000)"
        )
        while self.upstream.ended.acquire(blocking=False):
            pass
        execution = self.agent.start(code, network=FULL)
        self.agent.wait_for_output(execution, b"up\n")
        self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertTrue(self.upstream.ended.acquire(timeout=support.DEADLINE_S))

    def test_a_kept_worker_has_the_policy_of_each_call(self) -> None:
        kept = {"reuse_key": "kept"}
        first = self.echo("far.invalid:443", FULL, **kept)
        second = self.echo("far.invalid:443", {"mode": "hosts", "hosts": []}, **kept)
        self.assertEqual((first["echoed"], second["status"][:12]), ("hello", "HTTP/1.1 403"))
        without = self.agent.run(
            "import socket\ndef handler(input):\n    return {'code': socket.socket().connect_ex(('127.0.0.1', 3128))}",
            **kept,
        )
        self.assertSucceeds(without, {"code": 111})

    def test_more_connections_than_one_call_may_have_wait(self) -> None:
        code = (
            TUNNEL
            + """
def handler(input):
    held = []
    for _ in range(128):
        connection, status = tunnel('far.invalid:443')
        assert ' 200 ' in status
        held.append(connection)
    late = socket.create_connection(('127.0.0.1', 3128), timeout=30)
    late.sendall(b'CONNECT far.invalid:443 HTTP/1.1\\r\\n\\r\\n')
    late.setblocking(False)
    try:
        return {'early': late.recv(100).decode()}
    except BlockingIOError:
        pass
    held.pop().close()
    late.setblocking(True)
    return {'late': late.recv(100).decode()}
"""
        )
        ended = self.agent.run(code, network=FULL)
        self.assertSucceeds(ended, {"late": "HTTP/1.1 200 Connection established\r\n\r\n"})

    def test_a_proxy_that_dies_is_replaced(self) -> None:
        code = (
            TUNNEL
            + """
def handler(input):
    for line in ('first', 'second'):
        connection, status = tunnel('far.invalid:443')
        connection.sendall(b'x')
        print(line, status, connection.recv(1), flush=True)
        while connection.recv(1):
            pass
    return {}
"""
        )
        execution = self.agent.start(code, network=FULL)
        self.agent.wait_for_output(execution, b"first")
        for pid in egress_proxies(self.launcher.pid):
            os.kill(pid, signal.SIGKILL)
        self.agent.wait_for_output(execution, b"second HTTP/1.1 200 Connection established b'x'")
        self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(self.agent.wait_for(execution).outcome, "cancelled")

    def test_commands_and_environments_have_it_too(self) -> None:
        command = self.agent.command(sys.executable if sys.executable.startswith("/usr/") else "/usr/bin/python3", "-c",
                                     ECHO + "print(handler({'target': 'far.invalid:443'})['echoed'])", network=FULL)  # fmt: skip
        self.assertEqual(self.agent.wait_for(command).stdout, b"hello\n")
        environment = {"key": "with-network", "preload": ["socket"]}
        self.assertEqual(self.echo("far.invalid:443", FULL, environment=environment)["echoed"], "hello")

    def test_the_proxy_has_no_privileges(self) -> None:
        self.echo("far.invalid:443", FULL)
        pid = egress_proxies(self.launcher.pid)[-1]
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        self.assertEqual((int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]), (0, 0, "1"))
        self.assertEqual(status["Seccomp"], "2")
        self.assertNotIn("0", status["Uid"].split())


def egress_proxies(launcher: int) -> list[int]:
    """The process in the sandbox comes after bubblewrap, which started it."""
    found = []
    for pid in descendants(launcher):
        if "egress_proxy.py" in proc_text(pid, "cmdline"):
            found.append(pid)
    return found


@unittest.skipUnless(
    os.geteuid() == 0 and shutil.which("ip"), "a second host is a network namespace, which takes root and iproute2"
)
class Direct(support.RuntimeTest):
    """Without an upstream proxy, to a second host."""

    OURS, THEIRS = "198.18.77.1", "198.18.77.2"

    @classmethod
    def setUpClass(cls) -> None:
        cls.namespace = f"harrier{os.getpid()}"
        link = f"hv{os.getpid() % 100000}"
        inside = ("ip", "-n", cls.namespace)
        for command in (
            ("ip", "netns", "add", cls.namespace),
            ("ip", "link", "add", f"{link}a", "type", "veth", "peer", "name", f"{link}b", "netns", cls.namespace),
            ("ip", "addr", "add", f"{cls.OURS}/30", "dev", f"{link}a"),
            ("ip", "link", "set", f"{link}a", "up"),
            (*inside, "addr", "add", f"{cls.THEIRS}/30", "dev", f"{link}b"),
            (*inside, "link", "set", f"{link}b", "up"),
        ):
            subprocess.run(command, check=True)
        program = (
            "import http.server, sys\n"
            "server = http.server.ThreadingHTTPServer((sys.argv[1], 8080), http.server.BaseHTTPRequestHandler)\n"
            "server.RequestHandlerClass.log_message = lambda *_: None\n"
            "def answer(self):\n"
            "    self.send_response(200); self.end_headers(); self.wfile.write((self.path + ' ' + self.headers['Host']).encode())\n"
            "server.RequestHandlerClass.do_GET = answer\n"
            "print('up', flush=True)\nserver.serve_forever()\n"
        )
        command = ["ip", "netns", "exec", cls.namespace, sys.executable, "-c", program, cls.THEIRS]
        cls.server = subprocess.Popen(command, stdout=subprocess.PIPE)
        cls.server.stdout.readline()
        variables = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        cls.launcher = support.Launcher()
        started = cls.launcher.start(env=variables)
        if started.returncode:
            raise AssertionError(started.stderr)

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()
        subprocess.run(["ip", "netns", "del", cls.namespace], check=True)

    def fetch(self, url: str, network: dict) -> dict:
        ended = self.agent.run(FETCH, {"url": url}, network=network)
        self.assertEqual(ended.outcome, "succeeded", (ended.header, ended.stderr))
        return ended.result

    def test_another_host_is_reached_and_this_one_is_not(self) -> None:
        self.assertEqual(
            self.fetch(f"http://{self.THEIRS}:8080/path?x=1", FULL),
            {"status": 200, "body": f"/path?x=1 {self.THEIRS}:8080"},
        )
        refused = self.fetch(f"http://{self.OURS}:8080/", FULL)
        self.assertEqual((refused["status"], refused["reason"][-19:]), (403, "(rule: own address)"))
        self.assertIn("Connection refused", self.fetch(f"http://{self.THEIRS}:9/", FULL)["reason"])
        policy = {"mode": "hosts", "hosts": [f"{self.THEIRS}:8080"]}
        self.assertEqual(self.fetch(f"http://{self.THEIRS}:8080/", policy)["status"], 200)
        self.assertEqual(self.fetch(f"http://{self.THEIRS}:8081/", policy)["status"], 403)


if __name__ == "__main__":
    unittest.main()
