#!/usr/bin/env python3
"""The runtime alone: a raw client on the launcher's socket, no agent, no control plane.

``python3 bench/runtime_bench.py [--python PATH] [--json FILE]`` prints medians of fresh, reused and command calls with
one caller and with 64 in flight, log throughput, memory, and the floors of the same run: a bare fork of a warm
interpreter and a JSON line to it and back.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

RUNTIME_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "agent", "runtime")
PREFIX = struct.Struct("!II")
HANDLER = b"def handler(input):\n    return {'n': input['n'] + 1}\n"
PRINTER = b"""import sys
def handler(input):
    block = b'x' * 65536
    for _ in range(input['blocks']):
        sys.stdout.buffer.write(block)
    return {}
"""
LIMITS = {
    "memory_bytes": 512 << 20,
    "cpu": 0,
    "stdout_bytes": 1 << 30,
    "stderr_bytes": 1 << 20,
    "result_bytes": 8 << 20,
    "tmp_bytes": 0,
    "processes": 64,
}


def _frame(header: dict, body: bytes = b"") -> bytes:
    head = json.dumps(header).encode()
    return PREFIX.pack(len(head), len(body)) + head + body


class Client:
    """An agent as small as possible, so that the figures are the launcher's."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._buffer = bytearray()
        self._acks = b""
        self._count = 0
        self.sent_at = 0.0
        self.send({"type": "hello", "protocol": 1})
        self.welcome = self.receive()[0]

    def send(self, header: dict, body: bytes = b"") -> None:
        """Acknowledgements of results travel with the next frame."""
        frame = self._acks + _frame(header, body)
        self._acks = b""
        self.sent_at = time.perf_counter()
        self._socket.sendall(frame)

    def receive(self) -> tuple[dict, bytes]:
        while True:
            if len(self._buffer) >= 8:
                head, body = PREFIX.unpack_from(self._buffer)
                end = 8 + head + body
                if len(self._buffer) >= end:
                    frame = json.loads(self._buffer[8 : 8 + head]), bytes(self._buffer[8 + head : end])
                    del self._buffer[:end]
                    return frame
            data = self._socket.recv(1 << 18)
            if not data:
                raise EOFError("the launcher closed the connection")
            self._buffer += data

    def start(self, code: bytes, value: dict, **fields: object) -> str:
        self._count += 1
        body = code + json.dumps(value).encode()
        header = {
            "type": "start",
            "execution": f"{os.getpid()}-{time.time_ns()}-{self._count}",
            "attempt": 1,
            "tenant": "bench",
            "kind": "python",
            "handler": "handler",
            "filename": "main.py",
            "code_bytes": len(code),
            "input_bytes": len(body) - len(code),
            "env": {},
            "timeout_ms": 30000,
            "grace_ms": 1000,
            "reuse_key": None,
            "limits": LIMITS,
            "context": {},
        }
        header.update(fields)
        self.send(header, body)
        return header["execution"]

    def until_finished(self) -> dict:
        """Skips to the next end and acknowledges it."""
        while True:
            header, _ = self.receive()
            if header["type"] == "output":
                self._acknowledge_output(header)
            if header["type"] == "finished":
                self._acks += _frame({"type": "ack", "execution": header["execution"], "attempt": 1, "result": True})
                if header["outcome"] != "succeeded":
                    raise AssertionError(header)
                return header

    def _acknowledge_output(self, header: dict) -> None:
        if header["offset"] % (256 << 10) == 0 and header["offset"]:
            ack = {
                "type": "ack",
                "execution": header["execution"],
                "attempt": 1,
                "stdout": header["offset"],
                "stderr": 0,
            }
            self.send({**ack, "result": False})


def measure(client: Client, code: bytes, count: int, in_flight: int, **fields: object) -> tuple[float, float, float]:
    """(p50 ms, p99 ms, calls/s) of ``count`` calls."""
    started: dict[str, float] = {}
    latencies = []
    begin = time.perf_counter()
    sent = 0
    while len(latencies) < count:
        while sent < count and len(started) < in_flight:
            execution = client.start(code, {"n": sent}, **fields)
            started[execution] = client.sent_at
            sent += 1
        ended = client.until_finished()["execution"]
        latencies.append(time.perf_counter() - started.pop(ended))
    total = time.perf_counter() - begin
    latencies.sort()
    return latencies[count // 2] * 1e3, latencies[min(count - 1, count * 99 // 100)] * 1e3, count / total


def fork_floor_ms(python: str) -> float:
    """Median of fork, exit and wait of a warm interpreter without any isolation."""
    code = (
        "import gc,json,os,statistics,time,traceback\n"
        "gc.freeze();t=[]\n"
        "for _ in range(300):\n"
        " s=time.perf_counter();p=os.fork()\n"
        " if p==0: os._exit(0)\n"
        " os.waitpid(p,0);t.append(time.perf_counter()-s)\n"
        "print(statistics.median(t)*1e3)"
    )
    return float(subprocess.run([python, "-I", "-S", "-c", code], stdout=subprocess.PIPE, check=True).stdout)


def pipe_floor_ms(python: str) -> float:
    """Median of a JSON line to a warm interpreter and back over two pipes."""
    code = "import sys,json\nfor l in sys.stdin: print(json.dumps({'n':json.loads(l)['n']+1}),flush=True)"
    child = subprocess.Popen([python, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    times = []
    for number in range(2000):
        begin = time.perf_counter()
        child.stdin.write(b'{"n":%d}\n' % number)
        child.stdin.flush()
        json.loads(child.stdout.readline())
        times.append(time.perf_counter() - begin)
    child.stdin.close()
    child.wait()
    child.stdout.close()
    return statistics.median(times) * 1e3


def throughput(client: Client, mib: int) -> float:
    """MiB/s that reach this client of one handler that prints that many MiB."""
    begin = time.perf_counter()
    client.start(PRINTER, {"blocks": mib * 16})
    ended = client.until_finished()
    assert ended["stdout"] == mib << 20, ended
    return mib / (time.perf_counter() - begin)


def processes_below(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                found += map(int, file.read().split())
        except OSError:
            pass
    return found


def memory_mib(pid: int) -> dict[str, float]:
    """Resident and proportional memory: of the launcher, of bubblewrap and the zygote, and of everything."""
    values = {}
    everything = 0.0
    for process in processes_below(pid):
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                rows = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in file if line.endswith("kB\n")}
            with open(f"/proc/{process}/comm") as file:
                name = file.read().strip()
        except OSError:
            continue  # a worker that has just served its call
        role = "launcher" if process == pid else "bwrap" if name == "bwrap" else "zygote"
        values.setdefault(f"{role}_rss_mib", round(rows["Rss"], 1))
        everything += rows["Pss"]
    values["all_pss_mib"] = round(everything, 1)
    return values


def cpu_ticks(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total


def idle_cpu_percent(pid: int, seconds: float) -> float:
    pids = processes_below(pid)
    before = cpu_ticks(pids)
    time.sleep(seconds)
    return (cpu_ticks(pids) - before) / os.sysconf("SC_CLK_TCK") / seconds * 100


def run(options: argparse.Namespace, directory: str) -> dict[str, float]:
    path = os.path.join(directory, "launcher.sock")
    command = [options.python, "-I", "-S", os.path.join(RUNTIME_DIR, "launcher.py"), "--socket", path]
    command += ["--spool", os.path.join(directory, "spool"), "--log", os.path.join(directory, "log"), *options.launcher]
    subprocess.run(command, check=True)
    client = Client(path)
    pid = client.welcome["pid"]
    figures: dict[str, float] = {}
    try:
        measure(client, HANDLER, 50, 1)
        figures.update(memory_mib(pid))
        figures["idle_cpu_percent"] = idle_cpu_percent(pid, options.idle_s)
        argv = {"kind": "command", "argv": ["/bin/true"], "code_bytes": 0}
        cases = [
            ("fresh", HANDLER, {}, 1500),
            ("reuse", HANDLER, {"reuse_key": "bench"}, 6000),
            ("command", b"", argv, 800),
        ]
        for name, code, fields, count in cases:
            for in_flight in (1, 64):
                runs = [measure(client, code, count, in_flight, **fields) for _ in range(options.runs)]
                p50, p99, rate = (statistics.median(values) for values in zip(*runs))
                figures[f"{name}_{in_flight}_p50_ms"] = round(p50, 3)
                figures[f"{name}_{in_flight}_p99_ms"] = round(p99, 3)
                figures[f"{name}_{in_flight}_per_s"] = round(rate)
        figures["log_mib_per_s"] = round(statistics.median(throughput(client, 256) for _ in range(options.runs)), 1)
        figures["floor_fork_ms"] = round(fork_floor_ms(options.python), 3)
        figures["floor_pipe_ms"] = round(pipe_floor_ms(options.python), 3)
        figures.update({f"after_{name}": value for name, value in memory_mib(pid).items()})
    finally:
        client.send({"type": "stop", "grace_ms": 0})
        try:
            while True:
                client.receive()
        except (EOFError, OSError):
            pass
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="/usr/bin/python3", help="interpreter of the launcher")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--idle-s", type=float, default=2.0)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("launcher", nargs="*", help="further options of the launcher, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = run(options, directory)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    sys.exit(main())
