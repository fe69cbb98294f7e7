"""Output as the agent gets it: live, in order, byte for byte, bounded."""

from __future__ import annotations

import support

GATED_PRINTER = """
import os, sys, time
def handler(input):
    print('first')
    while not os.path.exists('/tmp/never'):
        time.sleep(0.01)
"""


class Output(support.RuntimeTest):
    def test_a_print_arrives_while_the_handler_runs(self) -> None:
        execution = self.agent.start("import time\ndef handler(input):\n    print('live', end='')\n    time.sleep(60)")
        ended = self.agent.wait_for_output(execution, b"live")
        self.assertEqual((ended.stdout, ended.types[0]), (b"live", "started"))
        self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.agent.wait_for(execution)

    def test_bytes_are_kept_as_they_are(self) -> None:
        code = (
            "import sys\ndef handler(input):\n"
            "    sys.stdout.buffer.write(bytes(range(256)) * 300)\n    sys.stdout.write('\\udcff\\n')\n    return {}"
        )
        self.assertEqual(self.agent.run(code).stdout, bytes(range(256)) * 300 + b"\xff\n")

    def test_every_way_to_print_keeps_its_order(self) -> None:
        code = (
            "import ctypes, os, subprocess, sys\n"
            "def handler(input):\n"
            "    libc = ctypes.CDLL(None)\n"
            "    print('1')\n"
            "    os.write(1, b'2\\n')\n"
            "    sys.stdout.buffer.write(b'3\\n')\n"
            "    subprocess.run(['echo', '4'])\n"
            "    libc.puts(b'5')\n"
            "    os.system('echo 6')\n"
            "    print('7', end='')\n"
            "    return {}"
        )
        self.assertEqual(self.agent.run(code).stdout, b"1\n2\n3\n4\n5\n6\n7")

    def test_a_replaced_stdout_is_flushed(self) -> None:
        code = (
            "import io, sys\ndef handler(input):\n    sys.stdout = open(1, 'w', closefd=False)\n"
            "    print('buffered')\n    return {}"
        )
        self.assertEqual(self.agent.run(code).stdout, b"buffered\n")

    def test_what_the_preparation_said_comes_first_and_does_not_count(self) -> None:
        code = "import sys\ndef handler(input):\n    print('x' * 30, file=sys.stderr)\n    return input"
        prelude = b"Resolved 3 packages\n" * 10000
        ended = self.agent.run(code, {"a": 1}, prelude=prelude, limits={"stderr_bytes": 10})
        self.assertSucceeds(ended, {"a": 1})
        self.assertEqual(
            ended.stderr, prelude + b"x" * 10 + b"\n[harrier: stderr truncated after %d bytes]\n" % (len(prelude) + 10)
        )
        self.assertEqual(ended.header["stderr"], len(ended.stderr))
        command = self.agent.wait_for(self.agent.command("cat", stdin=b"in", prelude=b"said\n"))
        self.assertEqual((command.stdout, command.stderr), (b"in", b"said\n"))

    def test_a_new_connection_gets_what_the_preparation_said(self) -> None:
        code = "import sys, time\ndef handler(input):\n    print('own', file=sys.stderr)\n    print('up')\n    time.sleep(1000)"
        said = b"built\n" * 1000
        self.agent.auto_ack = False
        first, second = (self.agent.start(code, prelude=said) for _ in range(2))
        for execution in (first, second):
            self.agent.wait_for_output(execution, b"up\n")
        self.agent.ack(second, 0, 600, False)
        newer = self.launcher.connect()
        self.assertEqual({a["stderr"] for a in newer.welcome["attempts"]}, {len(said) + 4})
        got = {first: b"", second: b"built\n" * 100}
        while min(map(len, got.values())) < len(said) + 4:
            header, body = newer.receive()
            if header["type"] == "output" and header["stream"] == "stderr":
                self.assertEqual(header["offset"], len(got[header["execution"]]))
                got[header["execution"]] += body
        self.assertEqual(set(got.values()), {said + b"own\n"})
        for execution in got:
            newer.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
            newer.auto_ack = False
        ended = set()
        while ended != set(got):
            header, _ = newer.receive()
            if header["type"] == "finished":
                ended.add(header["execution"])
                newer.ack(header["execution"], header["stdout"], header["stderr"], True)

    def test_stderr_is_its_own_stream(self) -> None:
        ended = self.agent.run(
            "import sys\ndef handler(input):\n    print('e', file=sys.stderr)\n    print('o')\n    return {}"
        )
        self.assertEqual((ended.stdout, ended.stderr), (b"o\n", b"e\n"))
        self.assertEqual((ended.header["stdout"], ended.header["stderr"]), (2, 2))

    def test_much_output_arrives_complete_before_the_end(self) -> None:
        code = (
            "import sys, hashlib\ndef handler(input):\n    h = hashlib.sha256()\n    for n in range(400):\n"
            "        block = (b'%08d' % n) * 4096\n        sys.stdout.buffer.write(block); h.update(block)\n"
            "    return {'sha': h.hexdigest()}"
        )
        ended = self.agent.run(code)
        import hashlib

        self.assertEqual(ended.result["sha"], hashlib.sha256(ended.stdout).hexdigest())
        self.assertEqual(ended.types[-1], "finished")

    def test_many_small_prints_arrive_complete(self) -> None:
        ended = self.agent.run("def handler(input):\n    for n in range(20000): print(n)\n    return {}")
        self.assertEqual(ended.stdout, b"".join(b"%d\n" % n for n in range(20000)))

    def test_output_beyond_the_limit_is_dropped_and_marked(self) -> None:
        marker = b"\n[harrier: stdout truncated after 1000 bytes]\n"
        for size, kept in ((1000, b"x" * 1000), (1001, b"x" * 1000 + marker), (500_000, b"x" * 1000 + marker)):
            with self.subTest(size):
                code = "import sys\ndef handler(input):\n    sys.stdout.write('x' * %d)\n    sys.stdout.write('')\n    return {}"
                ended = self.agent.run(code % size, limits={"stdout_bytes": 1000})
                self.assertEqual(ended.outcome, "succeeded")
                self.assertEqual(ended.stdout, kept)
                self.assertEqual(ended.header["stdout"], len(kept))
                self.assertEqual(ended.header["stdout_truncated"], size > 1000)
                self.assertFalse(ended.header["stderr_truncated"])

    def test_a_limit_of_nothing(self) -> None:
        ended = self.agent.run("def handler(input):\n    print('x')\n    return {}", limits={"stdout_bytes": 0})
        self.assertEqual(ended.stdout, b"\n[harrier: stdout truncated after 0 bytes]\n")

    def test_an_agent_that_does_not_acknowledge_gets_one_mebibyte(self) -> None:
        self.agent.auto_ack = False
        execution = self.agent.start(
            "import sys\ndef handler(input):\n    sys.stdout.buffer.write(b'x' * (3 << 20))\n    return {}"
        )
        # The process is not held up: another call sees the launcher idle again while the first one's output waits.
        seen = 0
        while seen < 1 << 20:
            header, body = self.agent.receive()
            if header["type"] == "output":
                self.assertEqual(header["offset"], seen)
                seen += len(body)
        self.assertEqual(seen, 1 << 20)
        other = self.agent.start("def handler(input):\n    return {}")
        while True:
            header, body = self.agent.receive()
            self.assertNotEqual((header.get("execution"), header["type"]), (execution, "output"))
            if header["type"] == "finished":
                break
        self.assertEqual(header["execution"], other)
        ended = support.Ended()
        ended.stdout = b"x" * seen
        self.agent._seen[(execution, 1)] = ended
        self.agent.auto_ack = True
        self.agent.ack(execution, seen, 0, False)
        self.assertEqual(len(self.agent.wait_for(execution).stdout), 3 << 20)


if __name__ == "__main__":
    support.unittest.main()
