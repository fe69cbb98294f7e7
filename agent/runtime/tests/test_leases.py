"""What ends with the agent's lease, whether an agent is there or not, and what goes on."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
import unittest

import support

WAITS = "import time\ndef handler(input):\n    print('up', flush=True)\n    time.sleep(600)"
STUBBORN = (
    "import signal, time\ndef handler(input):\n"
    "    signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
    "    print('up', flush=True)\n    while True: time.sleep(600)"
)
LOOK = "GET /containers/harrier-x/json HTTP/1.1"
REASON = "could not reach the control plane"


def in_ms(delay_ms: int) -> float:
    return time.monotonic() * 1000 + delay_ms


class Lease(support.RuntimeTest):
    def renew(self, delay_ms: int | None, grace_ms: int = 100) -> None:
        until_ms = None if delay_ms is None else in_ms(delay_ms)
        self.agent.send({"type": "lease", "until_ms": until_ms, "grace_ms": grace_ms})

    def tearDown(self) -> None:
        self.launcher.connect().send({"type": "lease", "until_ms": None})
        super().tearDown()

    def start_waiting(self, code: str = WAITS, **fields: object) -> str:
        execution = self.agent.start(code, **fields)
        self.agent.wait_for_output(execution, b"up\n")
        return execution

    def test_the_launcher_says_that_it_knows_leases(self) -> None:
        self.assertIn("lease", self.agent.welcome["features"])

    def test_an_attempt_ends_with_the_lease(self) -> None:
        self.renew(60_000)
        execution = self.start_waiting(max_disconnect_ms=0)
        self.renew(200)
        self.assertFails(self.agent.wait_for(execution), "AGENT_LOST", REASON)

    def test_it_ends_without_an_agent_and_is_offered_to_the_next(self) -> None:
        self.agent.auto_ack = False
        execution = self.start_waiting(max_disconnect_ms=0)
        self.renew(300)
        self.agent.close()
        deadline = time.monotonic() + support.DEADLINE_S
        while "the agent's lease is over" not in self.launcher.log_text():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        ended = self.launcher.connect().wait_for(execution)
        self.assertFails(ended, "AGENT_LOST", REASON)
        self.assertEqual(ended.stdout, b"up\n")

    def test_it_is_asked_first_and_killed_before_the_end(self) -> None:
        execution = self.start_waiting(STUBBORN, max_disconnect_ms=0)
        end = in_ms(12_000)
        self.agent.send({"type": "lease", "until_ms": end, "grace_ms": 10_000})
        ended = self.agent.wait_for(execution)
        self.assertFails(ended, "AGENT_LOST", REASON)
        self.assertEqual((ended.stdout, ended.header["signal"]), (b"up\nasked\n", signal.SIGKILL))
        self.assertLess(in_ms(0), end, "what comes after the end of the lease is no use to the next owner")

    def test_a_renewal_that_comes_too_late_ends_it_at_once(self) -> None:
        execution = self.start_waiting(STUBBORN, max_disconnect_ms=0)
        self.renew(-60_000, grace_ms=50_000)
        self.assertEqual(self.agent.wait_for(execution).header["signal"], signal.SIGKILL)

    def test_renewals_let_it_go_on(self) -> None:
        code = "import sys\ndef handler(input):\n    print('up', flush=True)\n    import time; time.sleep(3)\n    return {}"
        self.renew(60_000)
        other = self.start_waiting(max_disconnect_ms=0)
        self.renew(2_500)
        execution = self.agent.start(code, max_disconnect_ms=0)
        self.renew(60_000)
        self.assertSucceeds(self.agent.wait_for(execution), {})
        self.renew(1)
        self.agent.wait_for(other)

    def test_only_what_has_used_up_its_time_beyond_the_lease_ends(self) -> None:
        kept = self.start_waiting(max_disconnect_ms=3_600_000)
        longer = self.start_waiting(max_disconnect_ms=500)
        unleased = self.start_waiting()
        stopped = self.start_waiting(max_disconnect_ms=0)
        self.renew(100)
        for execution in (stopped, longer):
            self.assertFails(self.agent.wait_for(execution), "AGENT_LOST", REASON)
        attempts = {a["execution"]: a["state"] for a in self.launcher.connect().welcome["attempts"]}
        self.assertEqual((attempts[kept], attempts[unleased]), ("running", "running"))
        agent = self.launcher.connect()
        for execution in (kept, unleased):
            agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
            self.assertEqual(agent.wait_for(execution).outcome, "cancelled")

    def test_nothing_starts_after_the_lease(self) -> None:
        self.renew(-1)
        ended = self.agent.wait_for(self.agent.start(WAITS, max_disconnect_ms=0))
        self.assertFails(ended, "AGENT_LOST", REASON)
        self.assertEqual(ended.types, ["finished"])
        self.assertSucceeds(self.agent.run("def handler(input): return {}", max_disconnect_ms=60_000), {})
        self.renew(60_000)
        self.assertSucceeds(self.agent.run("def handler(input): return {}", max_disconnect_ms=0), {})

    def test_what_a_caller_cancelled_stays_cancelled(self) -> None:
        execution = self.start_waiting(STUBBORN, max_disconnect_ms=0)
        self.agent.send(
            {"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 3_600_000}
        )
        self.renew(100)
        self.assertEqual(self.agent.wait_for(execution).outcome, "cancelled")

    def test_what_waits_for_a_process_ends_too(self) -> None:
        self.renew(60_000)
        first = self.start_waiting(reuse_key="only", max_disconnect_ms=3_600_000)
        busy = [self.agent.start(WAITS, reuse_key="only", max_disconnect_ms=3_600_000) for _ in range(7)]
        waiting = self.agent.start(WAITS, reuse_key="only", max_disconnect_ms=0)
        for execution in busy:
            self.agent.wait_for_output(execution, b"up\n")
        self.renew(50)
        ended = self.agent.wait_for(waiting)
        self.assertFails(ended, "AGENT_LOST", REASON)
        self.assertEqual(ended.types, ["finished"])
        for execution in (first, *busy):
            self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "grace_ms": 0})
            self.agent.wait_for(execution)

    def test_wrong_fields_are_named(self) -> None:
        ended = self.agent.run(WAITS, max_disconnect_ms=-1)
        self.assertFails(ended, "INTERNAL", "start: max_disconnect_ms must be null or an integer up to")
        for header in (
            {"type": "lease", "until_ms": "soon"},
            {"type": "lease", "until_ms": 5, "grace_ms": 1.5},
            {"type": "guard", "execution": "e", "attempt": 1},
            {"type": "guard", "execution": "e", "attempt": 1, "max_disconnect_ms": 0, "engine": ""},
        ):
            with self.subTest(header):
                agent = self.launcher.connect()
                agent.send(header)
                with self.assertRaises(EOFError):
                    agent.receive()


class Engine:
    """Answers as Docker's engine does, from a list of statuses; keeps what it was asked."""

    def __init__(self, directory: str, *statuses: str) -> None:
        self.path = os.path.join(directory, "engine.sock")
        self._statuses = list(statuses)
        self.asked: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for status in self._statuses:
            connection, _ = self._listener.accept()
            with connection:
                self.asked.append(connection.recv(4096).split(b"\r\n")[0].decode())
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        self._done.set()

    def wait(self) -> list[str]:
        if not self._done.wait(support.DEADLINE_S):
            raise AssertionError(f"the engine was only asked {self.asked}")
        return self.asked

    def close(self) -> None:
        self._listener.close()


class LivelyEngine(Engine):
    """Has one container until it is killed, or until so many have looked for it."""

    def __init__(self, directory: str, looks: int | None = None) -> None:
        self._looks = looks
        super().__init__(directory)

    def _serve(self) -> None:
        running = True
        while running:
            connection, _ = self._listener.accept()
            with connection:
                request = connection.recv(4096).split(b"\r\n")[0].decode()
                self.asked.append(request)
                gone = self.asked.count(LOOK) == self._looks
                running = "SIGKILL" not in request and not gone
                status = "404 Not Found" if gone else "204 No Content"
                try:
                    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                except BrokenPipeError:
                    pass  # it asks for something else by now
        self._done.set()


class Containers(support.RuntimeTest):
    """A container of one call is the agent's; the launcher ends it when the agent cannot."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.mark = os.path.join(self.directory, "mark")

    def engine(self, *statuses: str) -> Engine:
        engine = Engine(self.directory, *statuses)
        self.addCleanup(engine.close)
        return engine

    def guard(self, engine: Engine, max_disconnect_ms: int = 0) -> None:
        guard = {"execution": "e1", "attempt": 1, "engine": engine.path, "container": "harrier-x", "mark": self.mark}
        self.agent.send({"type": "guard", **guard, "max_disconnect_ms": max_disconnect_ms})

    def tearDown(self) -> None:
        agent = self.launcher.connect()
        agent.send({"type": "unguard", "execution": "e1", "attempt": 1})
        agent.send({"type": "lease", "until_ms": None})
        agent.run("def handler(input): return {}")
        super().tearDown()

    def test_a_container_is_marked_asked_and_killed_although_the_agent_is_gone(self) -> None:
        engine = self.engine("204 No Content", "204 No Content")
        self.guard(engine)
        self.agent.send({"type": "lease", "until_ms": in_ms(10_000), "grace_ms": 9_900})
        self.agent.close()
        kill = "POST /containers/harrier-x/kill?signal="
        self.assertEqual(engine.wait(), [f"{kill}SIGTERM HTTP/1.1", f"{kill}SIGKILL HTTP/1.1"])
        self.assertTrue(os.path.exists(self.mark))

    def test_an_engine_that_fails_is_asked_again(self) -> None:
        engine = self.engine("500 Internal Server Error", "204 No Content")
        self.guard(engine)
        self.agent.send({"type": "lease", "until_ms": in_ms(-1), "grace_ms": 0})
        self.assertEqual(len(engine.wait()), 2)

    def test_a_container_that_ended_is_left_alone(self) -> None:
        engine = self.engine()
        self.guard(engine)
        self.agent.send({"type": "unguard", "execution": "e1", "attempt": 1})
        self.agent.send({"type": "lease", "until_ms": in_ms(-1), "grace_ms": 0})
        self.assertFails(self.agent.run(WAITS, max_disconnect_ms=0), "AGENT_LOST")
        self.assertFalse(os.path.exists(self.mark))


class WithoutLauncher(unittest.TestCase):
    """The process that guards containers is all that is left."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.mark = os.path.join(directory.name, "mark")
        self.directory = directory.name
        self.launcher = support.Launcher()
        self.launcher.__enter__()
        self.addCleanup(self.launcher.__exit__)
        self.agent = self.launcher.connect()

    def begin(self, looks: int | None = None) -> Engine:
        """A container is guarded, and the process that does so runs."""
        engine = LivelyEngine(self.directory, looks)
        self.addCleanup(engine.close)
        fields = {"engine": engine.path, "container": "harrier-x", "mark": self.mark, "max_disconnect_ms": 0}
        self.agent.send({"type": "guard", "execution": "e1", "attempt": 1, **fields})
        self.agent.run("def handler(input): return {}")
        return engine

    def renew(self, agent: support.Agent, delay_ms: int, grace_ms: int = 100) -> None:
        agent.send({"type": "lease", "until_ms": in_ms(delay_ms), "grace_ms": grace_ms})
        agent.run("def handler(input): return {}")

    def guard_pid(self) -> int:
        for pid in children_of(self.launcher.pid):
            with open(f"/proc/{pid}/cmdline") as file:
                if "container_guard.py" in file.read():
                    return pid
        raise AssertionError("nothing guards the container")

    def kill_launcher(self) -> int:
        """Returns a watch of the process that guards."""
        watch = os.pidfd_open(self.guard_pid())
        launcher = os.pidfd_open(self.launcher.pid)
        os.kill(self.launcher.pid, signal.SIGKILL)
        support.wait_until_ended(launcher)
        return watch

    def test_a_container_is_marked_and_killed_and_then_nothing_is_left(self) -> None:
        engine = self.begin()
        # It is asked in the time of grace: long enough that a busy machine does not miss it.
        self.renew(self.agent, 13_000, grace_ms=10_000)
        watch = self.kill_launcher()
        kill = "POST /containers/harrier-x/kill?signal="
        asked = [request for request in engine.wait() if request != LOOK]
        self.assertEqual(asked, [f"{kill}SIGTERM HTTP/1.1", f"{kill}SIGKILL HTTP/1.1"])
        self.assertTrue(os.path.exists(self.mark))
        support.wait_until_ended(watch)

    def test_a_container_whose_lease_another_launcher_renews_goes_on_until_it_is_gone(self) -> None:
        engine = self.begin(looks=14)  # one a second: until the first lease is over
        # A launcher takes a while to start on a busy machine.
        self.renew(self.agent, 10_000)
        watch = self.kill_launcher()
        self.launcher.__enter__()
        self.renew(self.launcher.connect(), 60_000)
        self.assertEqual(set(engine.wait()), {LOOK})
        support.wait_until_ended(watch)
        self.assertFalse(os.path.exists(self.mark))

    def test_without_a_lease_containers_are_left_to_the_next_agent(self) -> None:
        engine = self.begin()
        support.wait_until_ended(self.kill_launcher())
        self.assertEqual(engine.asked, [])

    def test_one_that_is_killed_is_started_again_and_knows_all(self) -> None:
        engine = self.begin()
        self.renew(self.agent, 60_000)
        watch = os.pidfd_open(self.guard_pid())
        os.kill(self.guard_pid(), signal.SIGKILL)
        support.wait_until_ended(watch)
        self.renew(self.agent, -1)
        self.assertEqual(engine.wait()[-1], "POST /containers/harrier-x/kill?signal=SIGKILL HTTP/1.1")


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
