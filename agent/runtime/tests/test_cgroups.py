"""Limits of an attempt as a whole, where the host has control groups that the launcher may use."""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest
from collections.abc import Iterator

import support
from test_sandbox import descendants

# isort: split
import cgroup_hierarchy
import cgroup_slot
import cgroups
from log import Logger

FORKS = """
import os, time
def handler(input):
    held = []
    try:
        while len(held) < 1000:
            pid = os.fork()
            if pid == 0:
                time.sleep(1000)
            held.append(pid)
    except BlockingIOError:
        pass
    return {'processes': len(held)}
"""

SPIN = """
import time
def handler(input):
    used = time.process_time()
    start = time.monotonic()
    while time.process_time() - used < 0.2: pass
    return {'share': 0.2 / (time.monotonic() - start)}
"""


# The numbers of the call's groups, whatever of their paths it may see.
GROUPS = """
def handler(input):
    with open('/proc/self/cgroup') as file:
        names = [line.rstrip().rpartition('/')[2] for line in file]
    return {'groups': [name for name in names if name.isdigit()]}
"""


def own_groups(pid: int) -> list[str]:
    """Directories of that launcher, in all hierarchies."""
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(directory, name) for name in names if name.startswith(f"harrier-{pid}-")]
    return found


class Groups(support.RuntimeTest):
    def setUp(self) -> None:
        super().setUp()
        if not self.agent.welcome["cgroup_limits"]:
            self.skipTest("this host lets the launcher use no control groups")

    def test_memory_is_limited_over_all_processes(self) -> None:
        code = (
            "import os\ndef handler(input):\n    for _ in range(4):\n        if os.fork() == 0:\n"
            "            x = bytearray(60 << 20)\n            os.write(1, b'.')\n            import time\n            time.sleep(1000)\n"
            "    os.wait()\n    raise ValueError('a process is gone')"
        )
        ended = self.agent.run(code, limits={"memory_bytes": 100 << 20})
        self.assertFails(ended, "OUT_OF_MEMORY", f"More memory was needed than the limit of {100 << 20} bytes: ")
        self.assertLess(len(ended.stdout), 4)

    def test_what_is_written_to_tmp_counts(self) -> None:
        code = "def handler(input):\n    with open('/tmp/x', 'wb') as f:\n        for _ in range(200): f.write(bytes(1 << 20))\n    return {}"
        ended = self.agent.run(code, limits={"memory_bytes": 64 << 20, "tmp_bytes": 1 << 30})
        self.assertFails(ended, "OUT_OF_MEMORY", f"the limit of {64 << 20} bytes")
        self.assertEqual(
            self.agent.run(code, limits={"memory_bytes": 400 << 20, "tmp_bytes": 1 << 30}).outcome, "succeeded"
        )

    def test_a_command_out_of_memory(self) -> None:
        code = "x = []\nwhile True: x.append(bytearray(1 << 20))"
        ended = self.agent.wait_for(
            self.agent.command("sh", "-c", f"/usr/bin/python3 -c '{code}' & wait $!", limits={"memory_bytes": 64 << 20})
        )
        self.assertIn(ended.code, ("OUT_OF_MEMORY", "EXIT_NONZERO"))  # MemoryError, where one process met its own limit

    def test_processes_are_counted_for_each_call(self) -> None:
        running = [self.agent.start(FORKS, limits={"processes": 20}) for _ in range(3)]
        for execution in running:
            self.assertSucceeds(self.agent.wait_for(execution), {"processes": 20})

    def test_a_busy_loop_gets_its_share_of_a_processor(self) -> None:
        self.assertLess(self.agent.run(SPIN, limits={"cpu": 0.2}).result["share"], 0.6)

    def test_a_worker_takes_the_limits_of_its_call(self) -> None:
        for _ in range(3):
            for processes in (5, 50):
                ended = self.agent.run(FORKS, limits={"processes": processes})
                self.assertSucceeds(ended, {"processes": processes})

    def test_an_oom_kill_of_one_call_is_not_told_of_the_next(self) -> None:
        eater = "import subprocess\ndef handler(input):\n    subprocess.run(['/usr/bin/python3', '-c', 'import mmap; mmap.mmap(-1, 1 << 30).write(bytes(200 << 20))'])\n    return {}"
        kept = {"reuse_key": "kept", "limits": {"memory_bytes": 300 << 20}}
        failing = "def handler(input):\n    raise ValueError('mine')"
        for fields in (kept, {"limits": {"memory_bytes": 300 << 20}}):
            self.assertEqual(self.agent.run(eater, **fields).outcome, "succeeded")
            for _ in range(10):
                self.assertFails(self.agent.run(failing, **fields), "HANDLER_ERROR", "mine")

    def test_calls_of_environments_are_limited_too(self) -> None:
        ended = self.agent.run(FORKS, limits={"processes": 10}, environment={"key": "limited", "preload": ["json"]})
        self.assertSucceeds(ended, {"processes": 10})

    def test_groups_that_packages_have_had_are_for_nobody_else(self) -> None:
        def groups(**fields: object) -> set[str]:
            ended = [self.agent.wait_for(self.agent.start(GROUPS, **fields)) for _ in range(20)]
            return {group for one in ended for group in one.result["groups"]}

        # They are handed the descriptors of each of their groups, and could join it at any time later.
        packages = groups(tenant="one", environment={"key": "packages", "preload": ["json"]})
        same = groups(tenant="two", environment={"key": "packages", "preload": ["json"]})
        inline = groups(tenant="three")
        self.agent.send({"type": "retire", "tenant": "one", "key": "packages"})
        later = groups(tenant="four")
        for mine, others in ((packages, same), (packages, inline), (same, inline), (packages | same, later)):
            self.assertNotEqual(mine, set())
            self.assertEqual(mine & others, set())

    def test_a_call_cannot_change_its_groups(self) -> None:
        code = (
            "import os\ndef handler(input):\n    return {'mounts': 'cgroup' in open('/proc/mounts').read(),"
            " 'fds': sorted(os.readlink('/proc/self/fd/' + f).split(':')[0] for f in os.listdir('/proc/self/fd')[:-1])}"
        )
        result = self.agent.run(code).result
        self.assertFalse(result["mounts"])
        self.assertEqual(result["fds"], ["/dev/null", "pipe", "pipe", "socket"])


class Removed(support.RuntimeTest):
    """Somebody else removes groups without processes, as those who tidy up do."""

    def setUp(self) -> None:
        super().setUp()
        if not self.agent.welcome["cgroup_limits"]:
            self.skipTest("this host lets the launcher use no control groups")
        for execution in [self.agent.start(FORKS, limits={"processes": 5}) for _ in range(10)]:
            self.agent.wait_for(execution)

    def remove_empty(self) -> list[str]:
        """What could be removed of the launcher's groups."""
        gone = []
        for own in own_groups(self.launcher.pid):
            for path in [*(os.path.join(own, name) for name in os.listdir(own)), own]:
                if os.path.isdir(path) and cgroup_slot.remove_group(path):
                    gone.append(path)
        return gone

    def test_calls_and_environments_go_on_and_are_limited(self) -> None:
        for number in range(3):
            self.assertNotEqual(self.remove_empty(), [])
            environment = {"key": f"e{number}", "preload": ["json"]}
            self.agent.send({"type": "warm", "tenant": f"warm{number}"})
            ended = self.agent.run(FORKS, limits={"processes": 10}, environment=environment)
            self.assertSucceeds(ended, {"processes": 10})
            for _ in range(10):
                self.assertSucceeds(self.agent.run(FORKS, limits={"processes": 10}), {"processes": 10})
        self.assertEqual(self.launcher.connect().welcome["cgroup_limits"], self.agent.welcome["cgroup_limits"])

    def test_a_parked_worker_gets_its_share_of_a_processor(self) -> None:
        for _ in range(3):
            self.remove_empty()
            self.assertLess(self.agent.run(SPIN, limits={"cpu": 0.2}).result["share"], 0.6)

    def test_a_call_ends_when_its_group_is_gone(self) -> None:
        dying = "import os\ndef handler(input):\n    os.kill(os.getpid(), 9)"
        for _ in range(20):
            execution = self.agent.start(dying)
            self.remove_empty()
            self.assertEqual(self.agent.wait_for(execution).outcome, "failed")


class Bounded(unittest.TestCase):
    def test_packages_find_no_group_without_limits(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            if "memory" not in agent.welcome["cgroup_limits"]:
                self.skipTest("this host lets the launcher limit no memory")
            limits: list[str] = []
            while len(limits) < 3:  # the zygote, and workers that wait for a call
                environment = {"key": "e", "preload": ["json"]}
                agent.run(
                    "def handler(input):\n    return {}", limits={"memory_bytes": 64 << 20}, environment=environment
                )
                limits = list(self.limits_of_populated(launcher.pid))
            for limit in limits:
                self.assertNotEqual(limit, "max")
                self.assertLessEqual(int(limit), (8 << 30) + (32 << 20))

    def limits_of_populated(self, pid: int) -> Iterator[str]:
        for slot in [os.path.join(own, name) for own in own_groups(pid) for name in os.listdir(own)]:
            for name in ("memory.max", "memory.limit_in_bytes"):
                try:
                    with open(os.path.join(slot, "cgroup.procs")) as processes, open(os.path.join(slot, name)) as limit:
                        if processes.read():
                            yield limit.read().strip()
                except (FileNotFoundError, NotADirectoryError):
                    pass  # of another hierarchy or version


class Cleaning(unittest.TestCase):
    def test_no_group_is_left_behind(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            pid = launcher.pid
            if not agent.welcome["cgroup_limits"]:
                self.skipTest("this host lets the launcher use no control groups")
            sleeper = "import time\ndef handler(input):\n    time.sleep(0.1)\n    return {}"
            for execution in [agent.start(sleeper) for _ in range(100)]:
                agent.wait_for(execution)
            self.assertNotEqual(own_groups(pid), [])
            launcher.stop()
            self.assertEqual(own_groups(pid), [])

    def test_groups_of_a_launcher_that_was_killed_are_removed_by_the_next(self) -> None:
        with support.Launcher() as launcher:
            if not launcher.connect().welcome["cgroup_limits"]:
                self.skipTest("this host lets the launcher use no control groups")
            pid = launcher.pid
            watches = support.watch_all([pid, *descendants(pid)])
            os.kill(pid, 9)
            for watch in watches:
                support.wait_until_ended(watch)
            self.assertNotEqual(own_groups(pid), [])
            self.assertEqual(launcher.start().returncode, 0)
            self.assertEqual(own_groups(pid), [])


class Unified(unittest.TestCase):
    """Version 2 as far as files can show it: what is written where."""

    def setUp(self) -> None:
        self.parent = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.parent)

    def group(self, *files: str) -> dict[str, str]:
        path = os.path.join(self.parent, "1")
        os.mkdir(path)
        for name in ("cgroup.procs", *files):
            with open(os.path.join(path, name), "w") as file:
                file.write("low 0\noom 2\noom_kill 3\noom_group_kill 1\n" if name == "memory.events" else "")
        return dict.fromkeys(cgroup_slot.CONTROLLERS, path)

    def read(self, name: str) -> str:
        with open(os.path.join(self.parent, "1", name)) as file:
            return file.read()

    def test_limits(self) -> None:
        names = ("memory.max", "memory.swap.max", "memory.oom.group", "memory.events", "cpu.max", "pids.max")
        slot = cgroup_slot.Slot(self.group(*names))
        self.addCleanup(slot.close)
        self.assertEqual(len(slot.joins), 1)
        slot.limit(1 << 30, 0.5, 64)
        self.assertEqual([self.read(name) for name in (*names[:3], *names[4:])],
                         [str((1 << 30) + (32 << 20)), "0", "1", "50000 100000", "65"])  # fmt: skip
        self.assertEqual((slot.take_oom_kills(), slot.take_oom_kills()), (3, 0))

    def test_no_room_is_made_when_the_group_is_empty(self) -> None:
        self.group()
        cgroup_hierarchy.make_room(os.path.join(self.parent, "1"))
        self.assertEqual(os.listdir(os.path.join(self.parent, "1")), ["cgroup.procs"])

    def test_groups_that_cannot_be_made_are_told_once(self) -> None:
        path = os.path.join(self.parent, "log")
        with open(path, "w") as file:
            groups = cgroups.Cgroups({"memory": os.path.join(self.parent, "missing")}, Logger(file.fileno()))
            self.assertEqual((groups.take(), groups.take_bounded(1, 1)), (None, None))
            self.assertEqual((groups.limits, groups.holding), (["memory"], []))
        with open(path) as file:
            self.assertEqual(file.read().count("a control group cannot be made"), 1)


if __name__ == "__main__":
    unittest.main()
