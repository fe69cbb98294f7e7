"""Zygotes that connect by themselves. Bubblewrap stands for the container: its processes are those of any container."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unittest

import support
from test_cgroups import FORKS
from test_sandbox import descendants

# isort: split
import cgroup_hierarchy
from cgroups import Cgroups

PYTHON = "/usr/bin/python3"
FACTS = """
import os, sys
def status(name):
    return next(line.split(':', 1)[1].strip() for line in open('/proc/self/status') if line.startswith(name + ':'))
def handler(input):
    written = []
    for path in ('/x', '/usr/x', '/tmp/x', '/dev/shm/x'):
        try:
            open(path, 'w').close()
            written.append(path)
        except OSError:
            pass
    return {'pid': os.getpid(), 'pids': [p for p in os.listdir('/proc') if p.isdigit()], 'uid': os.getuid(), 'cwd': os.getcwd(),
            'caps': [int(status(n), 16) for n in ('CapEff', 'CapPrm', 'CapBnd')], 'seccomp': status('Seccomp'),
            'nnp': status('NoNewPrivs'), 'written': written, 'tmp': os.listdir('/tmp'), 'zygote': os.readlink('/proc/self/ns/user')}
"""


class Container:
    """Started as the agent starts one: the runtime at /harrier, the socket's directory at /harrier-socket."""

    def __init__(
        self, directory: str, *options: str, user: tuple[str, ...] = (), runtime: str = support.RUNTIME_DIR
    ) -> None:
        words = (
            "bwrap --unshare-user --uid 1000 --gid 1000 --unshare-pid --unshare-ipc --die-with-parent --cap-drop ALL"
            " --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin"
            " --bind /proc /proc --dev /dev --tmpfs /tmp --setenv FROM_IMAGE yes"
            f" --ro-bind {runtime} /harrier --ro-bind {directory} /harrier-socket"
        )
        command = [*user, *words.split(), *options]
        command += [PYTHON, "-I", "-B", "/harrier/zygote.py", "container", "/harrier-socket/zygote.sock"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


class ContainerTest(support.RuntimeTest):
    def setUp(self) -> None:
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="harrier-socket-")
        os.chmod(self.directory, 0o755)
        self.addCleanup(shutil.rmtree, self.directory)
        self.key = os.path.basename(self.directory)
        self.fields = {"environment": {"key": self.key, "attached": True}}

    def expect(self, **fields: object) -> None:
        path = os.path.join(self.directory, "zygote.sock")
        self.agent.send({"type": "expect", "tenant": "acme", "key": self.key, "socket": path, **fields})
        self.agent.send({"type": "ack", "execution": "none", "attempt": 1, "stdout": 0, "stderr": 0, "result": False})
        self.agent.run("def handler(input):\n    return {}")  # it was read: the socket is there

    def next_of(self, kind: str) -> dict:
        while True:
            header, body = self.agent.receive()
            if header["type"] == kind and header["key"] == self.key:
                return header
            self.agent._note(header, body)

    def attach(self, *options: str, **fields: object) -> Container:
        self.expect(**fields)
        container = Container(self.directory, *options)
        self.addCleanup(container.end)
        self.assertEqual(self.next_of("attached"), {"type": "attached", "tenant": "acme", "key": self.key})
        return container


class Attached(ContainerTest):
    def test_calls_are_as_separate_as_in_a_sandbox(self) -> None:
        self.attach()
        for _ in range(2):
            facts = self.agent.run(FACTS, **self.fields).result
            facts.pop("zygote")
            self.assertEqual(
                facts,
                {"pid": 1, "pids": ["1"], "uid": 1000, "cwd": "/tmp", "caps": [0, 0, 0], "seccomp": "2", "nnp": "1",
                 "written": ["/tmp/x", "/dev/shm/x"],
                 "tmp": ["x"]},
            )  # fmt: skip

    def test_commands_timeouts_and_what_is_left_behind(self) -> None:
        container = self.attach()
        command = self.agent.wait_for(self.agent.command("sh", "-c", "echo $FROM_IMAGE; exit 3", **self.fields))
        self.assertEqual((command.stdout, command.header["exit_code"]), (b"yes\n", 3))
        code = (
            "import os, signal, subprocess\ndef handler(input):\n    signal.signal(15, signal.SIG_IGN)\n"
            "    subprocess.Popen(['setsid', 'sleep', '98765'])\n    while True: signal.pause()"
        )
        # By then it takes no notice of the signal, also on a busy machine.
        ended = self.agent.run(code, timeout_ms=6_000, grace_ms=50, **self.fields)
        self.assertEqual((ended.outcome, ended.header["signal"]), ("timed_out", 9))
        left = [pid for pid in descendants(container.process.pid) if "98765" in command_line(pid)]
        for watch in support.watch_all(left):
            support.wait_until_ended(watch)

    def test_variables_and_modules(self) -> None:
        self.attach(preload=["decimal", "no_such_module"], variables={"FROM_AGENT": "a"})
        code = (
            "import os, sys\nthere = 'decimal' in sys.modules\ndef handler(input):\n"
            "    return {'there': there, **{n: os.environ.get(n) for n in ('FROM_IMAGE', 'FROM_AGENT', 'OWN')}}"
        )
        first = self.agent.run(code, env={"OWN": "o"}, **self.fields)
        self.assertSucceeds(first, {"there": True, "FROM_IMAGE": "yes", "FROM_AGENT": "a", "OWN": "o"})
        self.assertIn(b"preload of no_such_module failed", first.stderr)

    def test_without_network_there_is_none_and_with_it_the_proxy(self) -> None:
        self.attach()  # the stand-in shares the host's network
        code = (
            "import os, socket\ndef handler(input):\n    probe = socket.socket()\n    probe.settimeout(5)\n"
            "    return {'names': [n for _, n in socket.if_nameindex()], 'proxy': probe.connect_ex(('127.0.0.1', 3128))}"
        )
        self.assertSucceeds(self.agent.run(code, **self.fields), {"names": ["lo"], "proxy": 111})
        ended = self.agent.run(code, network={"mode": "full"}, **self.fields)
        self.assertSucceeds(ended, {"names": ["lo"], "proxy": 0})

    def test_a_container_that_ends_is_told_and_its_calls_fail(self) -> None:
        container = self.attach()
        running = self.agent.start(
            "import time\ndef handler(input):\n    print('up')\n    time.sleep(1000)", **self.fields
        )
        self.agent.wait_for_output(running, b"up\n")
        container.end()
        self.assertFails(self.agent.wait_for(running), "KILLED")
        self.assertEqual(self.next_of("detached")["tenant"], "acme")
        self.assertFails(self.agent.run(FACTS, **self.fields), "INTERNAL", "No container is attached")

    def test_retiring_one_ends_it(self) -> None:
        container = self.attach()
        self.agent.run(FACTS, **self.fields)
        self.agent.send({"type": "retire", "tenant": "acme", "key": self.key})
        self.next_of("detached")
        self.assertEqual(container.process.wait(support.DEADLINE_S), 0)

    def test_it_stays_attached_for_the_next_connection(self) -> None:
        self.attach()
        first = self.agent.run(FACTS, **self.fields).result["zygote"]
        self.agent = self.launcher.connect()
        self.next_of("attached")
        self.assertEqual(self.agent.run(FACTS, **self.fields).result["zygote"], first)

    def test_a_call_for_one_that_has_not_come_fails(self) -> None:
        self.assertFails(self.agent.run(FACTS, **self.fields), "INTERNAL", f"No container is attached for {self.key}")
        self.expect()
        self.assertFails(self.agent.run(FACTS, **self.fields), "INTERNAL", "No container is attached")

    def test_a_container_that_allows_too_little_says_so(self) -> None:
        self.expect()
        container = Container(self.directory, "--disable-userns")
        self.addCleanup(container.end)
        reason = self.next_of("detached")["reason"]
        self.assertRegex(reason, "the container does not allow what a sandbox takes: .*unshare")
        self.assertIn(b"does not allow", container.process.stderr.read())

    def test_a_container_with_masked_paths_says_so(self) -> None:
        self.expect()
        container = Container(self.directory, "--ro-bind", "/proc/sys", "/proc/sys")
        self.addCleanup(container.end)
        self.assertIn("(/proc; are paths below it masked or read-only?)", self.next_of("detached")["reason"])

    def test_a_socket_that_cannot_be_made_is_told(self) -> None:
        self.agent.send({"type": "expect", "tenant": "acme", "key": self.key, "socket": "/no/such/place/zygote.sock"})
        self.assertIn("/no/such/place", self.next_of("detached")["reason"])

    def test_only_one_zygote_is_taken(self) -> None:
        self.attach()
        late = Container(self.directory)
        self.addCleanup(late.end)
        self.assertEqual(late.process.wait(support.DEADLINE_S), 1)
        self.assertIn(b"cannot connect", late.process.stderr.read())

    def test_messages_that_are_wrong_end_the_connection(self) -> None:
        good = {"type": "expect", "tenant": "acme", "key": "k", "socket": "/tmp/x"}
        for fields in ({"key": ""}, {"socket": "relative"}, {"tenant": None}, {"variables": []}, {"preload": ["a b"]}):
            agent = self.launcher.connect()
            agent.send({**good, **fields})
            with self.assertRaises(EOFError):
                for _ in range(10):  # what was said before, such as the load
                    agent.receive()


@unittest.skipUnless(os.geteuid() == 0, "taking processes out of a container's groups takes root")
class Limits(ContainerTest):
    """Of a call as a whole: its worker joins groups of its own, as in a sandbox."""

    def setUp(self) -> None:
        super().setUp()
        if not self.agent.welcome["cgroup_limits"]:
            self.skipTest("this host lets the launcher use no control groups")

    def test_memory_is_limited_over_all_processes(self) -> None:
        self.attach()
        code = (
            "import os, time\ndef handler(input):\n    for _ in range(4):\n        if os.fork() == 0:\n"
            "            x = bytearray(60 << 20)\n            os.write(1, b'.')\n            time.sleep(1000)\n"
            "    os.wait()\n    raise ValueError('a process is gone')"
        )
        ended = self.agent.run(code, limits={"memory_bytes": 100 << 20}, **self.fields)
        self.assertFails(ended, "OUT_OF_MEMORY", f"More memory was needed than the limit of {100 << 20} bytes: ")
        self.assertLess(len(ended.stdout), 4)

    def test_processes_are_counted_for_each_call(self) -> None:
        self.attach()
        sleeper = "import os, time\ndef handler(input):\n    for _ in range(5): os.fork() or time.sleep(1000)\n    print('up')\n    time.sleep(1000)"
        running = self.agent.start(sleeper, limits={"processes": 8}, **self.fields)
        self.agent.wait_for_output(running, b"up\n")
        ended = self.agent.run(FORKS, limits={"processes": 8}, **self.fields)
        self.assertSucceeds(ended, {"processes": 8})


class Reach(unittest.TestCase):
    def test_without_groups_there_are_none_to_join(self) -> None:
        self.assertIn("no control groups", cgroup_hierarchy.why_out_of_reach(Cgroups({}, None), os.getpid()))

    def test_groups_that_cannot_be_seen_are_out_of_reach(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            open(os.path.join(directory, "cgroup.controllers"), "w").close()
            groups = Cgroups({"memory": os.path.join(directory, "harrier-1")}, None)
            reason = cgroup_hierarchy.why_out_of_reach(groups, 0)
        expected = "not root of the system" if os.geteuid() else "its groups are not to be seen"
        self.assertIn(expected, reason)


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "a container of another user takes root to start")
class OtherUser(unittest.TestCase):
    def test_a_launcher_that_may_not_signal_has_the_zygote_do_it(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            os.chown(directory, 12345, 12345)
            os.chmod(directory, 0o755)
            launcher = support.Launcher(python=PYTHON)
            self.addCleanup(shutil.rmtree, launcher.directory)
            os.chown(launcher.directory, 12345, 12345)
            # Where the checkout lies may be closed to that user.
            runtime = shutil.copytree(support.RUNTIME_DIR, os.path.join(directory, "runtime"))
            command = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", PYTHON, "-I", "-S"]
            command += [
                os.path.join(runtime, "launcher.py"),
                "--socket",
                launcher.path,
                "--spool",
                launcher.spool,
            ]
            started = subprocess.run([*command, "--log", launcher.log], capture_output=True, text=True, check=False)
            self.assertEqual(started.returncode, 0, started.stderr)
            agent = launcher.connect()
            try:
                agent.send({"type": "expect", "tenant": "acme", "key": "k", "socket": f"{directory}/zygote.sock"})
                agent.run("def handler(input):\n    return {}")
                user = ("setpriv", "--reuid", "23456", "--regid", "23456", "--clear-groups")
                container = Container(directory, user=user, runtime=runtime)
                try:
                    while agent.receive()[0]["type"] != "attached":
                        pass
                    code = "import signal\ndef handler(input):\n    signal.signal(15, signal.SIG_IGN)\n    while True: signal.pause()"
                    ended = agent.run(code, timeout_ms=6_000, grace_ms=50, environment={"key": "k", "attached": True})
                    self.assertEqual((ended.outcome, ended.header["signal"]), ("timed_out", 9))
                finally:
                    container.end()
            finally:
                launcher.stop()
                for connected in launcher._agents:
                    connected.close()


def command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    unittest.main()
