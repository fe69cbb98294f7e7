"""Drives a real launcher over its socket, as an agent would."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

RUNTIME_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, RUNTIME_DIR)

import frames

# Waiting longer than this for an event is a failure, not a slow machine.
DEADLINE_S = 60
LIMITS = {
    "memory_bytes": 512 << 20,
    "cpu": 0,
    "stdout_bytes": 16 << 20,
    "stderr_bytes": 16 << 20,
    "result_bytes": 8 << 20,
    "tmp_bytes": 0,
    "processes": 64,
}

_executions = itertools.count(1)


class Ended:
    """Everything that was seen of one attempt."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self.stdout = b""
        self.stderr = b""
        self.progress: list[tuple[float, str]] = []
        self.header: dict = {}
        self.body = b""

    @property
    def outcome(self) -> str:
        return self.header["outcome"]

    @property
    def code(self) -> str | None:
        return (self.header["error"] or {}).get("code")

    @property
    def message(self) -> str:
        return (self.header["error"] or {}).get("message", "")

    @property
    def result(self) -> object:
        return json.loads(self.body)


class Agent:
    """One connection. Keeps what arrives for attempts other than the one that is waited for."""

    def __init__(self, path: str, hello: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(path)
        self._buffer = bytearray()
        self._seen: dict[tuple[str, int], Ended] = {}
        self.auto_ack = True
        self.welcome: dict = {}
        self.welcome_body = b""
        if hello:
            self.send({"type": "hello", "protocol": 1})
            self.welcome, self.welcome_body = self.receive()

    def close(self) -> None:
        self.socket.close()

    def send(self, header: dict, body: bytes = b"") -> None:
        self.socket.sendall(frames.encode(header, body))

    def receive(self) -> tuple[dict, bytes]:
        """The next frame. Raises EOFError when the launcher has closed the connection."""
        while True:
            if len(self._buffer) >= 8:
                head, body = struct.unpack_from("!II", self._buffer)
                end = 8 + head + body
                if len(self._buffer) >= end:
                    frame = json.loads(self._buffer[8 : 8 + head]), bytes(self._buffer[8 + head : end])
                    del self._buffer[:end]
                    return frame
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError("the launcher closed the connection")
            self._buffer += data

    def start(self, code: str = "", value: object = None, **fields: object) -> str:
        """Starts a handler (or whatever ``fields`` say) and returns the execution's id."""
        source = code.encode()
        given = fields.pop("input", None)
        given = json.dumps({} if value is None else value).encode() if given is None else given
        limits = {**LIMITS, **fields.pop("limits", {})}
        prelude = fields.pop("prelude", b"")
        execution = f"0190b3a0-0000-7000-8000-{os.getpid():06d}{next(_executions):06d}"
        context = {"execution_id": execution, "attempt": 1, "tenant": "acme", "deadline": 1e9}
        header = {
            "type": "start",
            "execution": execution,
            "attempt": 1,
            "tenant": "acme",
            "kind": "python",
            "handler": "handler",
            "filename": "main.py",
            "code_bytes": len(source),
            "input_bytes": len(given),
            "env": {},
            "timeout_ms": 0,
            "grace_ms": 2000,
            "reuse_key": None,
            "limits": limits,
            "context": context,
        }
        header.update(fields)
        if prelude:
            header["prelude_bytes"] = len(prelude)
            self._seen.setdefault((header["execution"], 1), Ended()).stderr = prelude
        self.send(header, prelude + source + given)
        return header["execution"]

    def command(self, *argv: str, stdin: bytes = b"", **fields: object) -> str:
        return self.start("", None, kind="command", argv=list(argv), input=stdin, **fields)

    def wait_for(self, execution: str, kind: str = "finished", attempt: int = 1) -> Ended:
        """Reads until that attempt has sent a frame of that type; acknowledges what arrives."""
        while True:
            ended = self._seen.setdefault((execution, attempt), Ended())
            if kind in ended.types:
                return ended
            self._note(*self.receive())

    def wait_for_output(self, execution: str, text: bytes) -> Ended:
        """Reads until the attempt's stdout contains the text."""
        while True:
            ended = self._seen.setdefault((execution, 1), Ended())
            if text in ended.stdout:
                return ended
            self._note(*self.receive())

    def _note(self, header: dict, body: bytes) -> None:
        if "execution" not in header:
            return
        ended = self._seen.setdefault((header["execution"], header["attempt"]), Ended())
        kind = header["type"]
        ended.types.append(kind)
        if kind == "output":
            stream = header["stream"]
            held = getattr(ended, stream)
            if header["offset"] != len(held):
                raise AssertionError(f"{stream} continues at {header['offset']}, {len(held)} bytes were seen")
            setattr(ended, stream, held + body)
        elif kind == "progress":
            ended.progress.append((header["percent"], header["step"]))
        elif kind == "finished":
            ended.header, ended.body = header, body
        if self.auto_ack and kind in ("output", "finished"):
            self.ack(header["execution"], len(ended.stdout), len(ended.stderr), kind == "finished", header["attempt"])

    def ack(self, execution: str, stdout: int, stderr: int, result: bool, attempt: int = 1) -> None:
        header = {"type": "ack", "execution": execution, "attempt": attempt, "stdout": stdout, "stderr": stderr}
        self.send({**header, "result": result})

    def run(self, code: str, value: object = None, **fields: object) -> Ended:
        """One handler call, from start to end."""
        return self.wait_for(self.start(code, value, **fields))


class Launcher:
    """A launcher of its own, detached as in production, in a temporary directory."""

    def __init__(self, *options: str, python: str = sys.executable) -> None:
        self.directory = tempfile.mkdtemp(prefix="harrier-")
        self.path = os.path.join(self.directory, "launcher.sock")
        self.spool = os.path.join(self.directory, "spool")
        self.log = os.path.join(self.directory, "log")
        self.options, self.python = options, python
        self.pid = 0
        self._agents: list[Agent] = []

    def start(self, *options: str, env: dict | None = None) -> subprocess.CompletedProcess:
        """Runs the command that starts it; returns when that has returned."""
        command = [self.python, "-I", "-S", os.path.join(RUNTIME_DIR, "launcher.py"), "--socket", self.path]
        command += ["--spool", self.spool, "--log", self.log, "--idle-exit-s", "120", *self.options, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, env=env)

    def connect(self) -> Agent:
        agent = Agent(self.path)
        self.pid = agent.welcome["pid"]
        self._agents.append(agent)
        return agent

    def log_text(self) -> str:
        with open(self.log) as file:
            return file.read()

    def __enter__(self) -> Launcher:
        started = self.start()
        if started.returncode:
            shutil.rmtree(self.directory)
            raise AssertionError(f"the launcher did not start: {started.stderr}")
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.stop()
        finally:
            for agent in self._agents:
                agent.close()
            shutil.rmtree(self.directory)

    def stop(self) -> None:
        """Stops it and waits until its processes are gone."""
        if not os.path.exists(self.path):
            return
        try:
            agent = self.connect()
        except (ConnectionRefusedError, FileNotFoundError, EOFError):
            return  # it is ending by itself
        watch = os.pidfd_open(self.pid)
        agent.send({"type": "stop", "grace_ms": 0})
        try:
            while True:
                agent.receive()
        except EOFError:
            pass
        wait_until_ended(watch)


def watch_all(pids: list[int]) -> list[int]:
    """Descriptors of those of the processes that still run, for ``wait_until_ended``."""
    watches = []
    for pid in pids:
        try:
            watches.append(os.pidfd_open(pid))
        except ProcessLookupError:
            pass  # a worker that has just served its call
    return watches


def wait_until_ended(pidfd: int) -> None:
    """Waits for the end of a process that is not a child; closes the descriptor."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(DEADLINE_S * 1000)
    os.close(pidfd)
    if not ended:
        raise AssertionError("a process did not end")


class RuntimeTest(unittest.TestCase):
    """Tests that share one launcher, each with a connection of its own."""

    launcher_options: tuple[str, ...] = ()

    @classmethod
    def setUpClass(cls) -> None:
        cls.launcher = Launcher(*cls.launcher_options)
        cls.launcher.__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.launcher.__exit__()

    def setUp(self) -> None:
        self.agent = self.launcher.connect()

    def tearDown(self) -> None:
        log = self.launcher.log_text()
        self.assertNotIn("a handler of the event loop failed", log)

    def assertSucceeds(self, ended: Ended, result: object) -> None:
        self.assertEqual((ended.outcome, ended.header["error"]), ("succeeded", None))
        self.assertEqual(ended.result, result)

    def assertFails(self, ended: Ended, code: str, message: str = "") -> None:
        self.assertEqual((ended.outcome, ended.code), ("failed", code), ended.header)
        self.assertIn(message, ended.message)
