"""The launcher as a process: how it starts, who may talk to it, what survives what."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import struct
import subprocess
import tempfile
import unittest

import support
from test_sandbox import descendants

# isort: split
import frames
from attempt import FINISHED, Attempt

QUICK = "def handler(input):\n    return {'ok': 1}"
WAITS = "import os, time\ndef handler(input):\n    print('up')\n    while True: time.sleep(600)"


class Start(unittest.TestCase):
    def test_it_is_detached_and_its_socket_is_private(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            self.assertEqual(os.getsid(launcher.pid) == os.getsid(0), False)
            self.assertEqual(stat.S_IMODE(os.stat(launcher.path).st_mode), 0o600)
            self.assertEqual(stat.S_IMODE(os.stat(launcher.spool).st_mode), 0o700)
            self.assertEqual(agent.run(QUICK).result, {"ok": 1})

    def test_the_system_interpreter_can_start_it(self) -> None:
        if not os.path.exists("/usr/bin/python3"):
            self.fail("/usr/bin/python3 is missing (Debian: apt-get install python3)")
        with support.Launcher(python="/usr/bin/python3") as launcher:
            self.assertEqual(launcher.connect().run(QUICK).result, {"ok": 1})

    def test_a_second_one_on_the_same_spool_stops_with_a_message(self) -> None:
        with support.Launcher() as launcher:
            second = launcher.start()
            self.assertEqual(second.returncode, 1)
            self.assertIn(f"another launcher owns the spool {launcher.spool}", second.stderr)
            self.assertEqual(launcher.connect().run(QUICK).result, {"ok": 1})

    def test_without_bubblewrap_it_refuses_unless_that_is_allowed(self) -> None:
        launcher = support.Launcher()
        with tempfile.TemporaryDirectory() as empty:
            refused = launcher.start(env={"PATH": empty})
            self.assertEqual(refused.returncode, 1)
            self.assertIn("bubblewrap is not installed (Debian: apt-get install bubblewrap)", refused.stderr)
            allowed = launcher.start("--allow-unsandboxed", env={"PATH": empty})
        try:
            self.assertEqual((allowed.returncode, allowed.stderr), (0, ""))
            agent = launcher.connect()
            self.assertEqual(agent.welcome["isolation"], "none")
            self.assertEqual(agent.run(QUICK).result, {"ok": 1})
        finally:
            launcher.__exit__()

    def test_a_sandbox_that_does_not_hold_is_refused(self) -> None:
        for option, missing in (
            ("--unshare-net", "no network but a loopback"),
            ("--remount-ro", "a file system that cannot"),
        ):
            launcher = support.Launcher()
            self.addCleanup(launcher.__exit__)
            with tempfile.TemporaryDirectory() as directory:
                os.chmod(directory, 0o755)
                path = os.path.join(directory, "bwrap")
                words = ["--remount-ro", "/"] if option == "--remount-ro" else [option]
                with open(path, "w") as file:
                    file.write(
                        f"#!/usr/bin/python3\nimport os, sys\nwords, gone = sys.argv, {words!r}\nat = words.index(gone[0])\n"
                    )
                    file.write("del words[at:at + len(gone)]\nos.execv('/usr/bin/bwrap', words)\n")
                os.chmod(path, 0o755)
                refused = launcher.start(env={"PATH": f"{directory}:/usr/bin:/bin"})
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"the sandbox lacks {missing}", refused.stderr)

    def test_a_bubblewrap_that_fails_is_told(self) -> None:
        launcher = support.Launcher()
        self.addCleanup(launcher.__exit__)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "bwrap")
            with open(path, "w") as file:
                file.write("#!/bin/sh\necho 'no namespaces today' >&2\nexit 1\n")
            os.chmod(path, 0o755)
            os.chmod(directory, 0o755)
            refused = launcher.start(env={"PATH": f"{directory}:/usr/bin:/bin"})
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no namespaces today", refused.stderr)
        self.assertFalse(os.path.exists(launcher.path))

    @unittest.skipUnless(os.geteuid() == 0, "only root starts sandboxes as another user")
    def test_an_interpreter_out_of_reach_is_named(self) -> None:
        launcher = support.Launcher()
        self.addCleanup(launcher.__exit__)
        with tempfile.TemporaryDirectory() as directory:
            python = os.path.join(directory, "python3")
            os.symlink("/usr/bin/python3", python)
            hidden = os.path.join(directory, "copy")
            subprocess.run(["cp", "/usr/bin/python3", hidden], check=True)
            refused = launcher.start("--python", hidden)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(f"may not enter {directory}", refused.stderr)

    def test_it_exits_by_itself_when_nobody_needs_it(self) -> None:
        launcher = support.Launcher("--idle-exit-s", "3")
        with launcher:
            agent = launcher.connect()
            watch = os.pidfd_open(launcher.pid)
            agent.run(QUICK)
            agent.close()
            support.wait_until_ended(watch)
            self.assertFalse(os.path.exists(launcher.path))

    def test_stop_and_sigterm_end_attempts_and_processes(self) -> None:
        for how in ("stop", "sigterm"):
            with self.subTest(how), support.Launcher() as launcher:
                agent = launcher.connect()
                agent.auto_ack = False
                execution = agent.start(WAITS)
                agent.wait_for_output(execution, b"up\n")
                watches = support.watch_all([launcher.pid, *descendants(launcher.pid)])
                if how == "stop":
                    agent.send({"type": "stop", "grace_ms": 0})
                else:
                    os.kill(launcher.pid, signal.SIGTERM)
                ended = agent.wait_for(execution)
                self.assertEqual((ended.outcome, ended.message), ("failed", "The agent stopped it"))
                for watch in watches:
                    support.wait_until_ended(watch)


class WelcomeSize(unittest.TestCase):
    # MAX_HELD_ATTEMPTS of shared/src/link/held-bounds.ts
    HELD = 6144

    def test_the_attempts_that_an_agent_can_hold_fit_into_a_header(self) -> None:
        attempt = Attempt("0190b3a0-0000-7000-8000-000000000000", 999_999, 1, 0, 0)
        attempt.state = FINISHED
        attempt.stdout.length = attempt.stderr.length = 1 << 40
        frame = frames.encode({"type": "welcome", "attempts": [attempt.summary()] * self.HELD})
        frames.frame_length(frame, 0)
        with self.assertRaises(frames.FrameError):
            frames.frame_length(frames.encode({"attempts": [attempt.summary()] * self.HELD * 2}), 0)


class Unsandboxed(support.RuntimeTest):
    launcher_options = ("--allow-unsandboxed",)

    @classmethod
    def setUpClass(cls) -> None:
        cls.launcher = support.Launcher("--allow-unsandboxed")
        with tempfile.TemporaryDirectory() as empty:
            started = cls.launcher.start(env={"PATH": empty})
        if started.returncode:
            raise AssertionError(started.stderr)

    def test_calls_work_the_same(self) -> None:
        code = "import sys\ndef handler(input):\n    print('out'); print('err', file=sys.stderr)\n    return input"
        ended = self.agent.run(code, {"a": 1})
        self.assertSucceeds(ended, {"a": 1})
        self.assertEqual((ended.stdout, ended.stderr), (b"out\n", b"err\n"))
        self.assertFails(self.agent.run("def handler(input): 1/0"), "HANDLER_ERROR", "ZeroDivisionError")
        self.assertEqual(self.agent.wait_for(self.agent.command("echo", "hi")).stdout, b"hi\n")

    def test_an_environment_is_refused(self) -> None:
        binds = [{"source": "/usr", "target": "/environment", "writable": False}]
        ended = self.agent.run(QUICK, environment={"key": "k", "binds": binds})
        self.assertFails(ended, "ENVIRONMENT_FAILED", "this agent runs without one")

    def test_timeouts_and_self_kills(self) -> None:
        ended = self.agent.run("while True: pass\n", timeout_ms=50, grace_ms=0)
        self.assertEqual(ended.outcome, "timed_out")
        ended = self.agent.run("import os\ndef handler(input): os.kill(os.getpid(), 9)")
        self.assertFails(ended, "KILLED", "SIGKILL")

    def test_nothing_is_left_of_a_call(self) -> None:
        code = (
            "import os, subprocess\ndef handler(input):\n"
            "    p = subprocess.Popen(['setsid', 'sleep', '1000'])\n    return {'pid': p.pid}"
        )
        pid = self.agent.run(code).result["pid"]
        try:
            support.wait_until_ended(os.pidfd_open(pid))
        except ProcessLookupError:
            pass


class Connections(support.RuntimeTest):
    def test_a_newer_connection_replaces_the_older(self) -> None:
        newer = self.launcher.connect()
        with self.assertRaises(EOFError):
            self.agent.receive()
        self.assertEqual(newer.run(QUICK).result, {"ok": 1})

    def test_an_attempt_outlives_its_connection(self) -> None:
        code = "import os, time\ndef handler(input):\n    print('a')\n    while not os.path.exists('/tmp/x'): time.sleep(0.01); open('/tmp/x', 'w').close()\n    print('b')\n    return {'ok': 1}"
        self.agent.auto_ack = False
        execution = self.agent.start(code)
        self.agent.wait_for(execution, "started")
        self.agent.close()
        second = self.launcher.connect()
        self.assertEqual([a["execution"] for a in second.welcome["attempts"]], [execution])
        ended = second.wait_for(execution)
        self.assertEqual((ended.stdout, ended.result), (b"a\nb\n", {"ok": 1}))
        second.close()
        # The acknowledgement was on its way when the connection closed: the next hello finds nothing left.
        self.assertEqual(self.launcher.connect().welcome["attempts"], [])

    def test_a_restarted_agent_is_told_again_what_its_attempts_are(self) -> None:
        about = {"task_class": "cpu_long", "environment": "inline", "trace_parent": "00-1-2-01"}
        with support.Launcher() as launcher:
            agent = launcher.connect()
            told, plain = agent.start(WAITS, about=about), agent.start(WAITS)
            for execution in (told, plain):
                agent.wait_for(execution, "started")
            again = launcher.connect()
            names = [attempt["execution"] for attempt in again.welcome["attempts"]]
            known = dict(zip(names, json.loads(again.welcome_body)))
            self.assertEqual(known, {told: {"tenant": "acme", **about}, plain: {"tenant": "acme"}})

    def test_what_it_is_to_tell_again_is_an_object(self) -> None:
        self.assertEqual(self.agent.run("", about="cpu_long").code, "INTERNAL")

    def test_what_is_not_acknowledged_comes_again(self) -> None:
        self.agent.auto_ack = False
        execution = self.agent.start("def handler(input):\n    print('x' * 100)\n    return {'ok': 1}")
        first = self.agent.wait_for(execution)
        self.agent.ack(execution, 40, 0, False)
        self.agent.close()
        second = self.launcher.connect()
        self.assertEqual(
            second.welcome["attempts"],
            [{"execution": execution, "attempt": 1, "state": "finished", "stdout": 101, "stderr": 0}],
        )
        again = b""
        while True:
            header, body = second.receive()
            if header["type"] != "output":
                break
            self.assertEqual(header["offset"], 40 + len(again))
            again += body
        self.assertEqual(again, b"x" * 60 + b"\n")
        self.assertEqual((header, body), (first.header, first.body))
        second.ack(execution, 101, 0, True)

    def test_many_results_that_are_not_acknowledged_all_come_again(self) -> None:
        self.agent.auto_ack = False
        code = "def handler(input):\n    return {'x': 'x' * 40000}"
        executions = [self.agent.start(code) for _ in range(30)]
        for execution in executions:
            self.agent.wait_for(execution)
        self.agent.close()
        second = self.launcher.connect()
        for execution in executions:
            self.assertEqual(len(second.wait_for(execution).body), 40008)

    def test_a_second_start_of_a_known_attempt_is_ignored(self) -> None:
        self.agent.auto_ack = False
        execution = self.agent.start(QUICK)
        self.agent.wait_for(execution)
        self.agent.start(QUICK, execution=execution)
        other = self.agent.start(QUICK)
        self.agent.wait_for(other)
        seen = self.agent._seen[(execution, 1)]
        self.assertEqual(seen.types.count("finished"), 1)
        for name in (execution, other):
            self.agent.ack(name, 0, 0, True)

    def test_attempts_of_one_execution_are_apart(self) -> None:
        execution = self.agent.start(QUICK)
        self.agent.start(QUICK, execution=execution, attempt=2)
        for attempt in (1, 2):
            self.assertEqual(self.agent.wait_for(execution, attempt=attempt).result, {"ok": 1})

    def test_frames_that_are_not_the_protocols_end_the_connection_only(self) -> None:
        running = self.agent.start(WAITS)
        self.agent.wait_for_output(running, b"up\n")
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            struct.pack("!II", 2 << 20, 0),
            struct.pack("!II", 2, 25 << 20) + b"{}",
            struct.pack("!II", 2, 0) + b"[]",
            struct.pack("!II", 3, 0) + b"{x}",
            struct.pack("!II", 12, 0) + b'{"type": "x"',
            support.frames.encode({"type": "nonsense"}),
            support.frames.encode({"type": "hello", "protocol": 2}),
            support.frames.encode({"type": "ack", "execution": 5, "attempt": 1}),
            support.frames.encode({"type": "start", "execution": "e", "attempt": 0}),
        ):
            with self.subTest(garbage[:40]):
                agent = self.launcher.connect()
                agent.socket.sendall(garbage)
                with self.assertRaises(EOFError):
                    while True:
                        agent.receive()
        agent = self.launcher.connect()
        self.assertIn(running, [a["execution"] for a in agent.welcome["attempts"]])
        agent.send({"type": "cancel", "execution": running, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        agent._seen[(running, 1)] = support.Ended()
        agent._seen[(running, 1)].stdout = b"up\n"
        while True:
            header, _ = agent.receive()
            if header["type"] == "finished":
                break
        agent.ack(running, 3, 0, True)

    @unittest.skipUnless(os.geteuid() == 0, "only root can try as another user")
    def test_another_user_is_refused(self) -> None:
        code = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nprint(s.recv(1))"
        os.chmod(self.launcher.directory, 0o755)
        os.chmod(self.launcher.path, 0o666)  # as an operator might, by mistake
        ran = subprocess.run(
            ["/usr/bin/python3", "-c", code, self.launcher.path],
            user=65534,
            capture_output=True,
            text=True,
            check=False,
            timeout=support.DEADLINE_S,
        )
        self.assertEqual((ran.stdout, ran.stderr), ("b''\n", ""))
        self.assertEqual(self.agent.run(QUICK).result, {"ok": 1})

    def test_anything_before_hello_ends_the_connection(self) -> None:
        agent = support.Agent(self.launcher.path, hello=False)
        agent.send({"type": "warm", "tenant": "t"})
        with self.assertRaises(EOFError):
            agent.receive()
        agent.close()

    def test_a_start_with_a_wrong_field_fails_that_attempt(self) -> None:
        command = {"kind": "command", "code_bytes": 0}
        for fields, code, text in (
            ({"kind": "perl"}, "SUBMIT_FAILED", "kind must be one of"),
            ({"handler": 5}, "INTERNAL", "handler must be"),
            ({"code_bytes": 1}, "INTERNAL", "do not add up"),
            ({"tenant": ""}, "INTERNAL", "tenant must be"),
            ({"limits": {"memory_bytes": -1}}, "INPUT_INVALID", "limits.memory_bytes must be"),
            ({"env": {"A=B": "x"}}, "INPUT_INVALID", "'A=B' is not a valid variable"),
            ({"network": {"mode": "any"}}, "INPUT_INVALID", "network must be"),
            ({**command, "argv": ["echo", "a\0b"]}, "INPUT_INVALID", "argv must not contain NUL"),
        ):
            with self.subTest(text):
                source = "" if "argv" in fields else QUICK
                self.assertFails(self.agent.run(source, **fields), code, text)

    def test_load_is_told(self) -> None:
        self.agent.run(QUICK)
        header = self.load()
        while header["active"] or header["spool_bytes"]:
            header = self.load()
        self.assertGreaterEqual(header["zygotes"], 1)

    def load(self) -> dict:
        """The next `load`."""
        while True:
            header, body = self.agent.receive()
            if header["type"] == "load":
                return header
            self.agent._note(header, body)

    def wait_for_load(self, spool_bytes: int) -> None:
        while self.load()["spool_bytes"] != spool_bytes:
            pass

    def test_load_counts_the_bytes_that_are_not_acknowledged(self) -> None:
        self.agent.auto_ack = False
        code = (
            "import sys\ndef handler(input):\n    print('out')\n    sys.stderr.write('e')\n    return {'x': 'x' * %d}"
        )
        large, small = (self.agent.start(code % size) for size in (100_000, 8))
        for execution in (large, small):
            self.agent.wait_for(execution)
        bodies = [100_000 + len('{"x":""}'), 8 + len('{"x":""}')]
        self.wait_for_load(sum(bodies) + 2 * 5)
        self.agent.ack(large, 4, 0, False)
        self.wait_for_load(sum(bodies) + 5 + 1)
        self.agent.ack(large, 0, 0, True)
        self.wait_for_load(bodies[1] + 5)
        self.agent.ack(small, 0, 0, True)
        self.wait_for_load(0)

    def test_load_is_told_while_a_job_prints_and_nobody_acknowledges(self) -> None:
        self.agent.auto_ack = False
        code = (
            "import signal, time\ndef handler(input):\n"
            "    signal.signal(signal.SIGTERM, lambda *_: print('more'))\n"
            "    print('up')\n    while True: time.sleep(600)"
        )
        execution = self.agent.start(code)
        self.wait_for_load(len("up\n"))
        cancel = {"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel"}
        self.agent.send({**cancel, "grace_ms": 3_600_000})
        self.wait_for_load(len("up\nmore\n"))
        self.agent.send({**cancel, "grace_ms": 0})
        self.agent.wait_for(execution)
        self.agent.ack(execution, 8, 0, True)


class Zygotes(unittest.TestCase):
    def test_their_number_is_bounded(self) -> None:
        with support.Launcher("--max-zygotes", "2") as launcher:
            agent = launcher.connect()
            executions = [agent.start(QUICK, tenant=f"t{n % 6}") for n in range(30)]
            for execution in executions:
                self.assertEqual(agent.wait_for(execution).outcome, "succeeded")
            zygotes = [pid for pid in descendants(launcher.pid) if is_bwrap(pid)]
            self.assertLessEqual(len(zygotes), 2)

    def test_calls_wait_when_all_are_busy(self) -> None:
        with support.Launcher("--max-zygotes", "1") as launcher:
            agent = launcher.connect()
            first = agent.start(WAITS, tenant="one")
            agent.wait_for_output(first, b"up\n")
            second = agent.start(QUICK, tenant="two")
            agent.send({"type": "cancel", "execution": first, "attempt": 1, "reason": "cancel", "grace_ms": 0})
            self.assertEqual(agent.wait_for(second).result, {"ok": 1})

    def test_a_killed_one_fails_its_calls_and_is_replaced(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            execution = agent.start(WAITS)
            agent.wait_for_output(execution, b"up\n")
            for pid in descendants(launcher.pid):
                if is_bwrap(pid):
                    os.kill(pid, signal.SIGKILL)
            ended = agent.wait_for(execution)
            self.assertEqual((ended.outcome, ended.code), ("failed", "KILLED"))
            self.assertEqual(agent.run(QUICK).result, {"ok": 1})


class Spool(unittest.TestCase):
    def kill_and_restart(self, launcher: support.Launcher) -> None:
        """SIGKILL; every process of the old launcher is gone before the new one starts."""
        watches = support.watch_all([launcher.pid, *descendants(launcher.pid)])
        os.kill(launcher.pid, signal.SIGKILL)
        for watch in watches:
            support.wait_until_ended(watch)
        started = launcher.start()
        self.assertEqual((started.returncode, started.stderr), (0, ""))

    def test_results_and_output_survive_a_killed_launcher(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            agent.auto_ack = False
            printed = agent.start(
                "import sys\ndef handler(input):\n    sys.stdout.write('y' * 300000)\n    print('e', file=sys.stderr)\n    return {'big': 'x' * 200000}"
            )
            first = agent.wait_for(printed)
            known = agent.start(QUICK)
            agent.wait_for(known)
            agent.ack(known, 0, 0, True)
            running = agent.start(WAITS)
            agent.wait_for_output(running, b"up\n")
            self.kill_and_restart(launcher)
            agent = launcher.connect()
            states = {a["execution"]: (a["state"], a["stdout"]) for a in agent.welcome["attempts"]}
            # What a former launcher was to tell again is not in the spool.
            self.assertEqual(json.loads(agent.welcome_body), [None] * len(states))
            # What was acknowledged may be offered again (the crash came first), never be lost.
            self.assertLessEqual({printed, running}, set(states))
            self.assertEqual(states[printed], ("finished", 300000))
            again = agent.wait_for(printed)
            self.assertEqual((again.stdout, again.stderr, again.body), (first.stdout, first.stderr, first.body))
            self.assertEqual(again.header, first.header)
            lost = agent.wait_for(running)
            self.assertEqual((lost.outcome, lost.code, lost.stdout), ("failed", "AGENT_LOST", b"up\n"))
            self.assertEqual(agent.run(QUICK).result, {"ok": 1})
            launcher.stop()
            self.assertEqual(launcher.start().returncode, 0)
            self.assertEqual(launcher.connect().welcome["attempts"], [])

    def test_acknowledged_results_are_forgotten_on_disk(self) -> None:
        with support.Launcher("--spool-bytes", str(4 << 20)) as launcher:
            agent = launcher.connect()
            for _ in range(12):
                ended = agent.run("def handler(input):\n    return {'x': 'x' * (1 << 20)}")
                self.assertEqual(ended.outcome, "succeeded")
            launcher.stop()
            files = [name for name in os.listdir(launcher.spool) if name.endswith(".seg")]
            self.assertLessEqual(sum(os.path.getsize(os.path.join(launcher.spool, n)) for n in files), 4 << 20)

    def test_a_torn_tail_is_recognised(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            agent.auto_ack = False
            kept = agent.start("def handler(input):\n    print('kept')\n    return {'ok': 1}")
            agent.wait_for(kept)
            last = agent.start("def handler(input):\n    return {'torn': 1}")
            agent.wait_for(last)
            path = os.path.join(launcher.spool, sorted(n for n in os.listdir(launcher.spool) if n.endswith(".seg"))[-1])
            watches = support.watch_all([launcher.pid, *descendants(launcher.pid)])
            os.kill(launcher.pid, signal.SIGKILL)
            for watch in watches:
                support.wait_until_ended(watch)
            with open(path, "r+b") as file:
                data = file.read()
                file.seek(data.rindex(b'{"torn":1}') + 3)
                file.write(b"\0" * 20)
            self.assertEqual(launcher.start().returncode, 0)
            self.assertIn("torn record", launcher.log_text())
            agent = launcher.connect()
            self.assertEqual(agent.wait_for(kept).stdout, b"kept\n")
            if len(agent.welcome["attempts"]) > 1:  # the start of the torn one may have been recorded on its own
                self.assertEqual(agent.wait_for(last).code, "AGENT_LOST")

    def test_output_behind_a_damaged_record_is_lost_and_said_to_be(self) -> None:
        code = (
            "import os\ndef handler(input):\n"
            "    for n in range(10): os.write(1, bytes([65 + n]) * 32768)\n    return {'ok': 1}"
        )
        whole = b"".join(bytes([65 + n]) * 32768 for n in range(10))
        # With the first one goes the record that the attempt was started. Neither is in the file that has the result.
        for letter in (b"A", b"C"):
            with self.subTest(letter), support.Launcher("--spool-bytes", str(1 << 20)) as launcher:
                agent = launcher.connect()
                agent.auto_ack = False
                execution = agent.start(code)
                agent.wait_for(execution)
                watches = support.watch_all([launcher.pid, *descendants(launcher.pid)])
                os.kill(launcher.pid, signal.SIGKILL)
                for watch in watches:
                    support.wait_until_ended(watch)
                self.damage(launcher.spool, letter)
                self.assertEqual(launcher.start().returncode, 0)
                self.assertIn("output is lost", launcher.log_text())
                ended = launcher.connect().wait_for(execution)
                self.assertEqual(ended.result, {"ok": 1})
                self.assertTrue(whole.startswith(ended.stdout))
                self.assertLess(len(ended.stdout), len(whole))
                told = ended.header["stdout"], ended.header["stdout_truncated"], ended.header["stderr_truncated"]
                self.assertEqual(told, (len(ended.stdout), True, False))

    def damage(self, directory: str, letter: bytes) -> None:
        """Changes a byte in the middle of that output."""
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), "r+b") as file:
                data = file.read()
                if letter * 4096 in data:
                    file.seek(data.index(letter * 4096) + 2048)
                    file.write(b"?")

    def test_what_was_acknowledged_and_is_gone_is_not_missed(self) -> None:
        """A long-lived attempt whose output comes and goes, beside others that fill the segments with its records."""
        code = (
            "import os, signal, time\ndef handler(input):\n"
            "    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'last'))\n"
            "    for n in range(10): os.write(1, bytes([65 + n]) * 32768)\n    while True: time.sleep(600)"
        )
        with support.Launcher("--spool-bytes", str(1 << 20)) as launcher:
            agent = launcher.connect()
            execution = agent.start(code)
            agent.wait_for_output(execution, b"J" * 32768)
            for _ in range(20):
                agent.run("def handler(input):\n    print('x' * 100_000)\n    return {}")
            agent.auto_ack = False
            cancel = {"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel"}
            agent.send({**cancel, "grace_ms": 3_600_000})
            stdout = agent.wait_for_output(execution, b"last").stdout
            self.kill_and_restart(launcher)
            agent = launcher.connect()
            held = {a["execution"]: a["stdout"] for a in agent.welcome["attempts"]}
            self.assertEqual(held[execution], len(stdout))
            header, body = agent.receive()
            while header["type"] != "finished":
                # At most from where it is recorded that what is before was acknowledged.
                self.assertEqual(stdout[header["offset"] :][: len(body)], body)
                header, body = agent.receive()
            told = header["error"]["code"], header["stdout"], header["stdout_truncated"]
            self.assertEqual(told, ("AGENT_LOST", len(stdout), False))
            agent.ack(execution, len(stdout), 0, True)

    def test_a_full_spool_drops_output_with_a_mark_and_still_tells_the_end(self) -> None:
        with support.Launcher("--spool-bytes", str(1 << 20)) as launcher:
            agent = launcher.connect()
            agent.auto_ack = False  # so nothing leaves the spool; what fits into it also fits into the window
            ended = agent.run(
                "import sys\ndef handler(input):\n    for _ in range(64): sys.stdout.buffer.write(b'x' * 65536)\n    return {'ok': 1}"
            )
            self.assertEqual((ended.outcome, ended.result), ("succeeded", {"ok": 1}))
            self.assertTrue(ended.header["stdout_truncated"])
            self.assertEqual(ended.header["stdout"], len(ended.stdout))
            self.assertTrue(ended.stdout.endswith(b"bytes: the agent's spool is full]\n"))
            self.assertIn("output is dropped", launcher.log_text())
            agent.ack(ended.header["execution"], len(ended.stdout), 0, True)
            agent.auto_ack = True
            ended = agent.run("def handler(input):\n    print('x' * 100000)\n    return {}")
            self.assertEqual((ended.header["stdout"], ended.header["stdout_truncated"]), (100001, False))

    def test_a_result_that_does_not_fit_is_an_error(self) -> None:
        with support.Launcher("--spool-bytes", str(1 << 20)) as launcher:
            ended = launcher.connect().run("def handler(input):\n    return {'x': 'x' * (2 << 20)}")
            self.assertEqual((ended.outcome, ended.code), ("failed", "INTERNAL"))
            self.assertIn("No room to keep the result", ended.message)

    def test_the_log_is_json_and_holds_no_input(self) -> None:
        with support.Launcher() as launcher:
            launcher.connect().run(
                "def handler(input):\n    return {}", {"password": "hunter2"}, env={"TOKEN": "s3cret"}
            )
            launcher.stop()
            text = launcher.log_text()
            for line in text.splitlines():
                json.loads(line)
            for secret in ("hunter2", "s3cret"):
                self.assertNotIn(secret, text)


def is_bwrap(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read() == "bwrap\n"
    except OSError:
        return False


class Idle(unittest.TestCase):
    def test_nothing_runs_while_nothing_happens(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            agent.run(QUICK)
            for _ in range(20):  # what follows a call (acknowledgement, load) is over after a few of these
                pids = [launcher.pid, *descendants(launcher.pid)]
                before = {pid: switches(pid) for pid in pids}
                select.select([], [], [], 0.3)
                after = {pid: switches(pid) for pid in pids}
                if before == after:
                    return
            self.assertEqual(after, before)


def switches(pid: int) -> str:
    """How often the process has given up the processor: a process that sleeps all the time does not."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((line for line in file if line.startswith("voluntary_ctxt_switches")), "")
    except OSError:
        return "ended"


if __name__ == "__main__":
    unittest.main()
