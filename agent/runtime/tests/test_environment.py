"""Calls in an environment: its interpreter, packages, variables and binds, and what its packages cannot do."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import unittest

import support

PYTHON = "/usr/bin/python3"
SITE = "lib/python%d.%d/site-packages"
# Where an interpreter has its modules in memory differs from one to the next; the numbers of namespaces come again.
WHERE = "import sys\ndef handler(input):\n    return {'zygote': id(sys.modules)}"
PROBE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def outcome(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(a) for a in arguments])
    return errno.errorcode.get(ctypes.get_errno(), '0') if result == -1 else 'allowed'
found = {
    'pid': os.getpid(),
    'runtime': [name for name in ('child', 'channel', 'handler_host', 'seccomp') if name in sys.modules],
    'calls': {name: outcome(*call) for name, call in {
        'ptrace': (101,), 'bpf': (321,), 'io_uring': (425,), 'keyctl': (250,), 'userfaultfd': (323,), 'umount': (166,),
        'pivot_root': (155,), 'chroot': (161,), 'kexec': (246,), 'init_module': (175,), 'new user': (272, 0x10000000),
        'new net': (272, 0x40000000), 'clone newuser': (56, 0x10000000 | 17), 'setns user': (308, 0, 0x10000000),
        'open_tree': (428,), 'perf': (298,), 'process_vm_writev': (311,),
    }.items()},
}
"""

# Stands where the environment's interpreter was. It tells what it could do before it becomes a real one.
INTERPRETER = f"""#!{PYTHON} -IS
import json, os, resource, sys
told, tells = os.pipe()
if os.fork() == 0:  # what is allowed must not stay with what comes after
    with open('/proc/self/status') as file:
        status = dict(line.split(':\\t', 1) for line in file if ':\\t' in line)
    exec({PROBE!r})
    for name in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb', 'CapBnd', 'NoNewPrivs', 'Seccomp'):
        found[name] = int(status[name], 16)
    found['core'] = resource.getrlimit(resource.RLIMIT_CORE)
    os.write(tells, (json.dumps(found) + chr(10)).encode())
    os._exit(0)
os.environ['FOUND'] = os.fdopen(told).readline()
os.execv({PYTHON!r}, [sys.argv[0], '-I', '-S', '-B', *sys.argv[1:]])
"""

# Sends what the zygote would, on its socket: at once, or while calls run.
TAKES_OVER = """
import array, os, socket, struct, threading, time
control = socket.socket(fileno=os.dup(3))
case = os.environ['CASE']
ready = b'R{"python":"3","faults":""}'
at_once = {
    'not json': [b'R{'], 'deep': [b'R' + b'[' * 15000], 'a list': [b'R[]'], 'ready twice': [ready, ready],
    'unknown worker': [struct.pack('=cIi', b'X', 4711, 0)],
}.get(case, [])
later = {
    'failed': lambda n: [control.send(struct.pack('=cI', b'E', n) + b'no')],
    'ended': lambda n: [control.send(struct.pack('=cIi', b'X', n, 0))],
    'forked': lambda n: [control.send(struct.pack('=cII', b'W', n, 1))],
    'other descriptors': lambda n: [control.sendmsg([struct.pack('=cII', b'W', n, 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])],
}.get(case)
if case == 'the launcher':  # instead of each worker, before the zygote has told it
    try:
        launcher = array.array('i', [control.getsockopt(socket.SOL_SOCKET, 77)])  # SO_PEERPIDFD
    except OSError:
        launcher = array.array('i', [0])  # a kernel before 6.5
    own = socket.socket.sendmsg
    def sendmsg(self, parts, rights):
        return own(self, parts, [(*rights[0][:2], launcher)] if parts[0][:1] == b'W' else rights)
    socket.socket.sendmsg = sendmsg
for message in at_once:
    control.send(message)
def meddle():
    while True:
        for number in range(1, 8):
            time.sleep(0.02)
            later(number)
if later:
    threading.Thread(target=meddle, daemon=True).start()
"""


class VenvTest(support.RuntimeTest):
    """Has a virtual environment that tests put packages into."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.directory = tempfile.mkdtemp(prefix="harrier-environments-")  # 0700: the sandbox's user cannot enter it
        cls.venv = os.path.join(cls.directory, "venv")
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", cls.venv], check=True)
        probe = "import json, sys; print(json.dumps(sys.version_info[:2]))"
        version = support.json.loads(subprocess.run([PYTHON, "-c", probe], stdout=subprocess.PIPE, check=True).stdout)
        cls.site = os.path.join(cls.venv, SITE % tuple(version))
        for name, text in {
            "greeting.py": "import os\nword, imported_by = 'hello', os.getpid()\n",
            "limits.py": "mine = True\n",
            "probe.py": PROBE,
            "from_pth.pth": "import sys; sys.from_pth = True\n",
        }.items():
            with open(os.path.join(cls.site, name), "w") as file:
                file.write(text)

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        shutil.rmtree(cls.directory)

    def venv_environment(self, key: str, **fields: object) -> dict:
        bind = {"source": self.venv, "target": "/environment", "writable": False}
        return {"key": key, "python": "/environment/bin/python", "binds": [bind], **fields}


def namespace_numbers(pid: int) -> list[str]:
    """Of a process, in its PID namespace and in those above."""
    with open(f"/proc/{pid}/status") as file:
        return next(line.split()[1:] for line in file if line.startswith("NSpid:"))


def zygotes_below(launcher: int) -> set[int]:
    """Zygotes that have become the interpreter of an environment: all of it was mounted by then. No workers of theirs:
    one may be forked at any time.
    """
    found = set()
    level = len(namespace_numbers(launcher)) + 1
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if not file.read().startswith(b"/environment/bin/python\0"):
                    continue
            numbers = namespace_numbers(int(name))
            if len(numbers) != level or numbers[-1] != "1":
                continue
            parent = int(name)
            while parent not in (0, launcher):
                with open(f"/proc/{parent}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            if parent:
                found.add(int(name))
        except OSError:
            continue  # it has ended
    return found


class StartedAhead(VenvTest):
    """The tree is elsewhere when the call comes, as that of an environment that was built: no other zygote finds it."""

    def setUp(self) -> None:
        super().setUp()
        self.moved = self.venv + "-moved"

    def tearDown(self) -> None:
        if os.path.exists(self.moved):
            os.rename(self.moved, self.venv)
        super().tearDown()

    def warm(self, environment: dict, **fields: object) -> None:
        self.agent.send({"type": "warm", "tenant": "t", "environment": environment, **fields})

    def start_ahead(self, environment: dict, **fields: object) -> set[int]:
        """Returns the new interpreter of the environment, when it is there."""
        before = zygotes_below(self.launcher.pid)
        self.warm(environment, **fields)
        until = time.monotonic() + support.DEADLINE_S
        while time.monotonic() < until:
            found = zygotes_below(self.launcher.pid) - before
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError("no interpreter was started")

    def test_a_zygote_imports_nothing_before_the_first_call(self) -> None:
        environment = self.venv_environment("ahead", preload=["late"])
        self.start_ahead(environment)
        os.rename(self.venv, self.moved)
        late = os.path.join(self.moved, os.path.relpath(self.site, self.venv), "late.py")
        with open(late, "w") as file:
            file.write("import os\nimported_by = os.getpid()\n")
        self.addCleanup(os.unlink, late.replace(self.moved, self.venv))
        code = "import late, sys\ndef handler(input):\n    return {'by': late.imported_by, 'pth': sys.from_pth}"
        ended = self.agent.run(code, environment=environment, tenant="t")
        self.assertSucceeds(ended, {"by": 1, "pth": True})
        self.assertEqual(ended.stderr, b"")

    def test_a_call_finds_the_worker_that_was_forked_for_it(self) -> None:
        environment = self.venv_environment("expected", single=True)
        tmp_bytes = 1 << 20
        self.start_ahead(environment, worker={"tmp_bytes": tmp_bytes, "network": True})
        os.rename(self.venv, self.moved)
        fields = {"environment": environment, "tenant": "t", "network": {"mode": "hosts", "hosts": []}}
        script = "import os; s = os.statvfs('/tmp'); print(s.f_blocks * s.f_frsize, 'HTTPS_PROXY' in os.environ)"
        execution = self.agent.command("python3", "-c", script, limits={"tmp_bytes": tmp_bytes}, **fields)
        ended = self.agent.wait_for(execution)
        self.assertEqual((ended.outcome, ended.stdout), ("succeeded", b"%d True\n" % tmp_bytes))

    def test_one_that_is_retired_before_a_call_comes_ends(self) -> None:
        watches = support.watch_all(self.start_ahead(self.venv_environment("unused")))
        self.agent.send({"type": "retire", "tenant": "t", "key": "unused"})
        for watch in watches:
            support.wait_until_ended(watch)

    def test_a_worker_without_a_size_ends_the_connection(self) -> None:
        self.warm(self.venv_environment("wrong"), worker={"network": True})
        with self.assertRaises(EOFError):
            while True:
                self.agent.receive()


class Environments(VenvTest):
    def test_packages_of_the_environment_can_be_imported(self) -> None:
        code = (
            "import greeting, sys\ndef handler(input):\n"
            "    return {'word': greeting.word, 'pth': sys.from_pth, 'prefix': sys.prefix, 'python': sys.executable}"
        )
        ended = self.agent.run(code, environment=self.venv_environment("packages"))
        self.assertSucceeds(
            ended, {"word": "hello", "pth": True, "prefix": "/environment", "python": "/environment/bin/python"}
        )
        self.assertEqual(ended.stderr, b"")
        self.assertFails(self.agent.run(code), "HANDLER_ERROR", "No module named 'greeting'")

    def test_a_package_may_have_the_name_of_a_part_of_the_runtime(self) -> None:
        environment = self.venv_environment("names", preload=["limits"])
        ended = self.agent.run(
            "import limits\ndef handler(input):\n    return {'mine': limits.mine}", environment=environment
        )
        self.assertSucceeds(ended, {"mine": True})

    def test_calls_share_a_zygote_by_tenant_and_key(self) -> None:
        def zygote(key: str | None, tenant: str) -> str:
            environment = key and self.venv_environment(key)
            return self.agent.run(WHERE, environment=environment, tenant=tenant).result["zygote"]

        first = zygote("shared", "one")
        self.assertEqual(zygote("shared", "one"), first)
        others = {zygote("shared", "two"), zygote("another", "one"), zygote(None, "one")}
        self.assertEqual(len(others - {first}), 3)

    def test_modules_are_imported_before_the_call(self) -> None:
        environment = self.venv_environment("preload", preload=["greeting", "email.message"])
        code = (
            "import sys\nthere = 'email.message' in sys.modules\nimport greeting\ndef handler(input):\n"
            "    return {'there': there, 'imported_by_zygote': greeting.imported_by == 1}"
        )
        self.assertSucceeds(self.agent.run(code, environment=environment), {"there": True, "imported_by_zygote": True})

    def test_an_import_that_fails_is_told_once_and_ends_nothing(self) -> None:
        environment = self.venv_environment("failing", preload=["no_such_module", "greeting"])
        code = "import greeting\ndef handler(input):\n    return {}"
        first = self.agent.run(code, environment=environment)
        self.assertSucceeds(first, {})
        text = b"harrier: preload of no_such_module failed: ModuleNotFoundError: No module named 'no_such_module'\n"
        self.assertEqual(first.stderr, text)
        self.assertEqual(self.agent.run(code, environment=environment).stderr, b"")

    def test_packages_that_exit_at_start_do_not_end_the_zygote(self) -> None:
        path = os.path.join(self.site, "leave.py")
        with open(path, "w") as file:
            file.write("import sys\nsys.exit('goodbye')\n")
        ended = self.agent.run(
            "def handler(input):\n    return {}", environment=self.venv_environment("exit", preload=["leave"])
        )
        self.assertSucceeds(ended, {})
        self.assertIn(b"preload of leave failed: SystemExit: goodbye", ended.stderr)

    def test_what_packages_print_is_not_in_the_log(self) -> None:
        for name, end in (("talks", "raise ValueError(word)"), ("dies", "os.kill(1, 9)\nos._exit(3)")):
            with open(os.path.join(self.site, f"{name}.py"), "w") as file:
                file.write(f"import os\nword = os.environ['TOKEN']\nos.write(2, word.encode())\nprint(word)\n{end}\n")
        variables = {"TOKEN": "s3cret-of-an-environment"}
        code = "def handler(input):\n    return {}"
        talks = self.venv_environment("talks", preload=["talks"], variables=variables)
        self.assertIn(b"s3cret-of-an-environment", self.agent.run(code, environment=talks).stderr)
        dies = self.venv_environment("dies", preload=["dies"], variables=variables)
        ended = self.agent.run(code, environment=dies)
        self.assertFails(ended, "ENVIRONMENT_FAILED", "its packages cannot be loaded")
        log = self.launcher.log_text()
        for message in ("did not load in full", "write to stderr, which is not logged", "told to its calls alone"):
            self.assertIn(message, log)
        self.assertNotIn("s3cret", log)

    def test_what_is_stopped_while_packages_are_imported_is_told_never_to_have_started(self) -> None:
        self.write_hangs()
        environment = self.venv_environment("stopped", preload=["hangs"])
        execution = self.agent.start("def handler(input):\n    return {}", environment=environment)
        header = {"type": "cancel", "execution": execution, "attempt": 1, "reason": "shutdown", "grace_ms": 60_000}
        self.agent.send(header)
        ended = self.agent.wait_for(execution)
        self.assertEqual((ended.outcome, ended.code), ("failed", "AGENT_LOST"))
        self.assertIs(ended.header["never_started"], True)
        self.assertNotIn("started", ended.types)
        self.agent.send({"type": "retire", "tenant": "acme", "key": "stopped"})
        self.assertNotIn("never_started", self.agent.run("def handler(input):\n    return {}").header)

    def write_hangs(self) -> None:
        with open(os.path.join(self.site, "hangs.py"), "w") as file:
            file.write("import signal\nsignal.pause()\n")

    def test_packages_that_hang_take_no_longer_than_the_call_may(self) -> None:
        self.write_hangs()
        code = "def handler(input):\n    return {}"
        environment = self.venv_environment("hangs", preload=["hangs"])
        ended = self.agent.run(code, environment=environment, timeout_ms=100)
        self.assertEqual((ended.outcome, ended.code), ("timed_out", "TIMEOUT"))
        self.assertIn("were not imported within 5000 ms", ended.message)
        self.assertSucceeds(self.agent.run(code, environment=self.venv_environment("next"), timeout_ms=60_000), {})
        self.agent.send({"type": "retire", "tenant": "acme", "key": "hangs"})

    @unittest.skipUnless(os.uname().machine == "x86_64", "the numbers are those of x86_64")
    def test_packages_run_behind_a_filter_and_find_nothing_of_the_runtime(self) -> None:
        code = "import probe\ndef handler(input):\n    return probe.found"
        found = self.agent.run(code, environment=self.venv_environment("probe", preload=["probe"])).result
        self.assertEqual((found["pid"], found["runtime"]), (1, []))
        self.assertEqual({name: got for name, got in found["calls"].items() if got != "EPERM"}, {})

    @unittest.skipUnless(os.uname().machine == "x86_64", "the numbers are those of x86_64")
    def test_an_interpreter_that_a_build_has_replaced_starts_behind_the_filter(self) -> None:
        python = os.path.join(self.venv, "bin", "python")
        self.addCleanup(os.rename, python + ".own", python)
        os.rename(python, python + ".own")
        with open(python, "w") as file:
            file.write(INTERPRETER)
        os.chmod(python, 0o755)
        code = "import json, os\ndef handler(input):\n    return json.loads(os.environ['FOUND'])"
        fields = {"environment": self.venv_environment("replaced"), "network": {"mode": "full"}}
        found = self.agent.run(code, **fields).result
        self.assertEqual({name: got for name, got in found["calls"].items() if got != "EPERM"}, {})
        sys_admin = 1 << 21
        kept = {"CapEff": sys_admin, "CapPrm": sys_admin, "CapInh": sys_admin, "CapAmb": sys_admin, "CapBnd": 0}
        self.assertEqual({name: found[name] for name in kept}, kept)
        self.assertEqual((found["NoNewPrivs"], found["Seccomp"], found["core"]), (1, 2, [0, 0]))

    def test_packages_that_speak_for_the_zygote_hurt_nobody_else(self) -> None:
        with open(os.path.join(self.site, "takes_over.py"), "w") as file:
            file.write(TAKES_OVER)
        sleeper = "import time\ndef handler(input):\n    print('up', flush=True)\n    time.sleep(1000)"
        neighbour = self.agent.start(sleeper)
        self.agent.wait_for_output(neighbour, b"up\n")
        for case in (
            "not json",
            "deep",
            "a list",
            "ready twice",
            "unknown worker",
            "failed",
            "ended",
            "forked",
            "other descriptors",
            "the launcher",
        ):
            with self.subTest(case):
                environment = self.venv_environment(
                    f"takes over: {case}", preload=["takes_over"], variables={"CASE": case}
                )
                for fields in ({}, {"network": {"mode": "full"}}):
                    running = self.agent.start(sleeper, timeout_ms=1000, grace_ms=0, environment=environment, **fields)
                    ended = self.agent.wait_for(running)
                    self.assertIn(ended.outcome, ("failed", "timed_out"), ended.header)
                self.agent.send({"type": "retire", "tenant": "acme", "key": environment["key"]})
        self.assertSucceeds(self.agent.run("def handler(input):\n    return {}"), {})
        self.agent.send({"type": "cancel", "execution": neighbour, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(self.agent.wait_for(neighbour).outcome, "cancelled")

    def test_variables_of_the_environment_come_before_those_of_the_call(self) -> None:
        environment = {"key": "variables", "variables": {"ONE": "1", "TWO": "2", "PATH": "/environment/bin:/usr/bin"}}
        code = (
            "import os\ndef handler(input):\n    return {k: os.environ.get(k) for k in ('ONE', 'TWO', 'PATH', 'HOME')}"
        )
        ended = self.agent.run(code, environment=environment, env={"TWO": "mine"})
        self.assertSucceeds(ended, {"ONE": "1", "TWO": "mine", "PATH": "/environment/bin:/usr/bin", "HOME": "/tmp"})

    def test_a_writable_bind_keeps_what_a_command_writes(self) -> None:
        target = os.path.join(self.directory, "build")
        os.mkdir(target)
        tool = os.path.join(self.directory, "tool")
        with open(tool, "w") as file:
            file.write("#!/bin/sh\necho built > /environment/result\n! touch /opt/harrier/tool\n")
        os.chmod(tool, 0o755)
        binds = [
            {"source": target, "target": "/environment", "writable": True},
            {"source": tool, "target": "/opt/harrier/tool", "writable": False},
        ]
        environment = {"key": "build", "binds": binds}
        ended = self.agent.wait_for(self.agent.command("/opt/harrier/tool", environment=environment))
        self.assertEqual(ended.outcome, "succeeded")
        self.assertIn(b"cannot touch '/opt/harrier/tool'", ended.stderr)
        with open(os.path.join(target, "result")) as file:
            self.assertEqual(file.read(), "built\n")
        # As it is used later: read-only, at the same path.
        used = {"key": "used", "binds": [{**binds[0], "writable": False}]}
        ended = self.agent.wait_for(
            self.agent.command("sh", "-c", "cat /environment/result; touch /environment/x", environment=used)
        )
        self.assertEqual((ended.code, ended.stdout), ("EXIT_NONZERO", b"built\n"))

    def test_a_bind_that_is_not_there_fails_the_call_with_its_path(self) -> None:
        environment = {"key": "nowhere", "binds": [{"source": "/no/such/place", "target": "/environment"}]}
        ended = self.agent.run("def handler(input):\n    return {}", environment=environment)
        self.assertFails(ended, "INTERNAL", "/no/such/place")

    def test_an_environment_that_is_retired_ends_when_it_is_idle(self) -> None:
        environment = self.venv_environment("retired")
        first = self.agent.run(WHERE, environment=environment).result
        self.agent.send({"type": "retire", "tenant": "acme", "key": "retired"})
        second = self.agent.run(WHERE, environment=environment).result
        self.assertNotEqual(second, first)
        busy = self.agent.start(
            "import os, sys\ndef handler(input):\n    print('up', flush=True)\n    os.read(3, 0)\n"
            "    import time\n    time.sleep(1000)",
            environment=environment,
        )
        self.agent.wait_for_output(busy, b"up\n")
        self.agent.send({"type": "retire", "tenant": "acme", "key": "retired"})
        third = self.agent.run(WHERE, environment=environment).result
        self.assertNotEqual(third, second)
        self.agent.send({"type": "cancel", "execution": busy, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(self.agent.wait_for(busy).outcome, "cancelled")
        self.assertEqual(self.agent.run(WHERE, environment=environment).result, third)
        self.agent.send({"type": "retire", "tenant": "acme", "key": "never heard of"})

    def test_kept_workers_belong_to_the_environment(self) -> None:
        code = "count = 0\ndef handler(input):\n    global count\n    count += 1\n    return {'count': count}"
        calls = [(None, 1), ("kept-1", 1), ("kept-2", 1), ("kept-1", 2), (None, 2)]
        for key, count in calls:
            environment = key and self.venv_environment(key)
            self.assertSucceeds(self.agent.run(code, environment=environment, reuse_key="same"), {"count": count})

    def test_fields_that_are_wrong_are_named(self) -> None:
        bind = {"source": "/usr", "target": "/environment"}
        cases = (
            ({}, "environment.key"),
            ({"key": "x" * 257}, "environment.key"),
            ({"key": "x", "python": "python3"}, "environment.python"),
            ({"key": "x", "binds": [{**bind, "source": "usr"}]}, "environment.binds"),
            ({"key": "x", "binds": [{**bind, "target": "/a/../../proc"}]}, "environment.binds"),
            ({"key": "x", "binds": [{**bind, "target": "/harrier/zygote.py"}]}, "target /harrier/zygote.py"),
            ({"key": "x", "binds": [{**bind, "target": "/"}]}, "target /"),
            ({"key": "x", "variables": {"A=B": ""}}, "environment.variables"),
            ({"key": "x", "preload": ["os; import sys"]}, "environment.preload"),
            (["x"], "environment must be an object"),
        )
        for environment, message in cases:
            with self.subTest(environment):
                self.assertFails(self.agent.run("", environment=environment), "INTERNAL", message)


class Few(support.RuntimeTest):
    launcher_options = ("--max-zygotes", "2")

    def test_environments_of_all_tenants_share_the_bound_on_zygotes(self) -> None:
        keys = ["a", "b", "c", "a"]
        seen = [self.agent.run(WHERE, environment={"key": key}).result["zygote"] for key in keys]
        self.assertEqual(len(set(seen)), 4)  # the first one made room for the third
        started = [self.agent.start(WHERE, environment={"key": key}) for key in "defg"]
        self.assertEqual({self.agent.wait_for(execution).outcome for execution in started}, {"succeeded"})


class Memory(VenvTest):
    """What packages may use before any call runs."""

    launcher_options = ("--zygote-memory-bytes", str(64 << 20))

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for name, mib in (("greedy", 1000), ("frugal", 8)):
            with open(os.path.join(cls.site, f"{name}.py"), "w") as file:
                file.write(f"held = [bytearray(b'x') * (1 << 20) for _ in range({mib})]\n")

    def test_packages_that_need_more_than_they_may_are_out_of_memory(self) -> None:
        code = "def handler(input):\n    return {'n': len(bytearray(96 << 20)) >> 20}"
        self.assertSucceeds(
            self.agent.run(code, environment=self.venv_environment("frugal", preload=["frugal"])), {"n": 96}
        )
        for _ in range(2):
            ended = self.agent.run(code, environment=self.venv_environment("greedy", preload=["greedy"]))
            self.assertFails(ended, "OUT_OF_MEMORY", "more memory than 67108864 bytes while they were imported")
        self.assertSucceeds(
            self.agent.run(code, environment=self.venv_environment("frugal", preload=["frugal"])), {"n": 96}
        )


if __name__ == "__main__":
    unittest.main()
