"""Workers that are kept for calls of the same key."""

from __future__ import annotations

import support

COUNTER = """
import os
n = 0
def handler(input):
    global n
    n += 1
    print('call', input.get('i'))
    return {'n': n, 'ns': os.readlink('/proc/self/ns/pid')}
"""


class Reuse(support.RuntimeTest):
    launcher_options = ("--reuse-workers", "2")

    def test_calls_of_one_key_share_an_interpreter(self) -> None:
        results = [self.agent.run(COUNTER, {"i": i}, reuse_key="k") for i in range(5)]
        self.assertEqual([r.result["n"] for r in results], [1, 2, 3, 4, 5])
        self.assertEqual(len({r.result["ns"] for r in results}), 1)
        self.assertEqual([r.stdout for r in results], [b"call %d\n" % i for i in range(5)])

    def test_keys_and_tenants_do_not_share(self) -> None:
        first = self.agent.run(COUNTER, reuse_key="a").result
        self.assertEqual(self.agent.run(COUNTER, reuse_key="b").result["n"], 1)
        self.assertEqual(self.agent.run(COUNTER, reuse_key="a", tenant="other").result["n"], 1)
        self.assertEqual(self.agent.run(COUNTER, reuse_key="a").result, {**first, "n": 2})
        self.assertEqual(self.agent.run(COUNTER).result["n"], 1)

    def test_other_code_under_the_same_key_is_loaded(self) -> None:
        self.agent.run(COUNTER, reuse_key="c")
        ended = self.agent.run("def handler(input):\n    return {'other': True}", reuse_key="c")
        self.assertSucceeds(ended, {"other": True})

    def test_concurrent_calls_get_workers_up_to_the_bound_and_none_is_lost(self) -> None:
        executions = [self.agent.start(COUNTER, {"i": i}, reuse_key="many") for i in range(60)]
        results = []
        for i, execution in enumerate(executions):
            ended = self.agent.wait_for(execution)
            self.assertEqual(ended.stdout, b"call %d\n" % i)
            results.append(ended.result)
        self.assertLessEqual(len({r["ns"] for r in results}), 2)
        self.assertEqual(max(r["n"] for r in results) >= 30, True)

    def test_an_exception_keeps_the_worker(self) -> None:
        code = (
            "n = 0\ndef handler(input):\n    global n\n    n += 1\n    if input: raise ValueError\n    return {'n': n}"
        )
        self.assertFails(self.agent.run(code, {"x": 1}, reuse_key="e"), "HANDLER_ERROR")
        self.assertSucceeds(self.agent.run(code, reuse_key="e"), {"n": 2})

    def test_a_module_that_failed_to_load_is_loaded_again(self) -> None:
        code = "import os\nif not os.path.exists('/tmp/x'):\n    open('/tmp/x', 'w').close()\n    raise ValueError('first')\ndef handler(input):\n    return {}"
        self.assertFails(self.agent.run(code, reuse_key="l"), "HANDLER_ERROR", "first")
        self.assertSucceeds(self.agent.run(code, reuse_key="l"), {})

    def test_a_worker_that_dies_fails_its_call_only(self) -> None:
        code = "import os\ndef handler(input):\n    if input.get('die'): os._exit(3)\n    return {'pid': 1}"
        executions = [self.agent.start(code, {"die": i % 5 == 2}, reuse_key="d") for i in range(25)]
        outcomes = [self.agent.wait_for(execution).outcome for execution in executions]
        self.assertEqual(outcomes, ["failed" if i % 5 == 2 else "succeeded" for i in range(25)])

    def test_a_worker_that_timed_out_serves_nobody_else(self) -> None:
        code = "import time\nn = 0\ndef handler(input):\n    global n\n    n += 1\n    time.sleep(input['s'])\n    return {'n': n}"
        self.assertSucceeds(self.agent.run(code, {"s": 0}, reuse_key="t"), {"n": 1})
        ended = self.agent.run(code, {"s": 600}, reuse_key="t", timeout_ms=50, grace_ms=60_000)
        self.assertEqual(ended.outcome, "timed_out")
        self.assertSucceeds(self.agent.run(code, {"s": 0}, reuse_key="t"), {"n": 1})

    def test_a_worker_out_of_memory_is_replaced(self) -> None:
        code = (
            "n = 0\ndef handler(input):\n    global n\n    n += 1\n    bytearray(input['m'] << 20)\n    return {'n': n}"
        )
        limits = {"memory_bytes": 100 << 20}
        self.assertSucceeds(self.agent.run(code, {"m": 1}, reuse_key="m", limits=limits), {"n": 1})
        self.assertFails(self.agent.run(code, {"m": 200}, reuse_key="m", limits=limits), "OUT_OF_MEMORY")
        self.assertSucceeds(self.agent.run(code, {"m": 1}, reuse_key="m", limits=limits), {"n": 1})

    def test_output_between_calls_belongs_to_no_call(self) -> None:
        code = (
            "import socket, threading\n"
            "def late(listener):\n"
            "    peer, _ = listener.accept()\n"
            "    print('between calls')\n"
            "    peer.send(b'.')\n"
            "def handler(input):\n"
            "    print('mine')\n"
            "    if input.get('first'):\n"
            "        listener = socket.create_server(('127.0.0.1', 4710))\n"
            "        threading.Thread(target=late, args=(listener,), daemon=True).start()\n"
            "    return {}"
        )
        poke = "import socket\ndef handler(input):\n    socket.create_connection(('127.0.0.1', 4710)).recv(1)\n    return {}"
        self.assertEqual(self.agent.run(code, {"first": True}, reuse_key="o").stdout, b"mine\n")
        self.assertSucceeds(self.agent.run(poke), {})
        self.assertEqual(self.agent.run(code, reuse_key="o").stdout, b"mine\n")

    def test_a_cancelled_call_in_the_queue_leaves_the_others(self) -> None:
        code = "import time\ndef handler(input):\n    time.sleep(input['s'])\n    return {}"
        executions = [self.agent.start(code, {"s": 0.05}, reuse_key="q") for _ in range(8)]
        self.agent.send({"type": "cancel", "execution": executions[5], "attempt": 1, "reason": "cancel", "grace_ms": 0})
        outcomes = [self.agent.wait_for(execution).outcome for execution in executions]
        self.assertEqual(outcomes, ["cancelled" if i == 5 else "succeeded" for i in range(8)])

    def test_a_job_that_exits_after_its_result_hurts_nobody(self) -> None:
        code = (
            "import os, threading\ndef handler(input):\n"
            "    threading.Timer(0.01, lambda: os._exit(9)).start()\n    return {}"
        )
        self.assertSucceeds(self.agent.run(code, reuse_key="x"), {})
        for _ in range(3):
            self.assertSucceeds(self.agent.run("def handler(input):\n    return {}", reuse_key="y"), {})


HOLDS = """
import os, socket
def handler(input):
    listener = socket.create_server(('127.0.0.1', input['port']))
    print('up')
    listener.accept()
    return {'ns': os.readlink('/proc/self/ns/pid')}
"""
FREES = """
import socket
def handler(input):
    socket.create_connection(('127.0.0.1', input['port']))
    return {}
"""


class Kept(support.RuntimeTest):
    launcher_options = ("--reuse-workers", "2", "--kept-workers", "3")

    def test_many_keys_keep_few_processes(self) -> None:
        executions = [self.agent.start(COUNTER, {"i": n % 40}, reuse_key=f"key {n % 40}") for n in range(120)]
        for execution in executions:
            self.assertEqual(self.agent.wait_for(execution).outcome, "succeeded")
        header: dict = {}
        while header.get("type") != "load" or header["active"]:
            header, _ = self.agent.receive()
        self.assertLessEqual(header["workers"], 3 + 16)  # kept ones, and those forked ahead

    def test_the_least_recently_used_key_starts_anew(self) -> None:
        for key in ("a", "b", "c", "a", "d"):
            self.agent.run(COUNTER, reuse_key=key)
        counts = {key: self.agent.run(COUNTER, reuse_key=key).result["n"] for key in ("a", "c", "d", "b")}
        self.assertEqual(counts, {"a": 3, "c": 2, "d": 2, "b": 1})

    def test_calls_wait_while_all_are_busy_and_fresh_ones_do_not(self) -> None:
        ports = {"x": 4711, "y": 4712, "z": 4713}
        held = {key: self.agent.start(HOLDS, {"port": port}, reuse_key=key) for key, port in ports.items()}
        for execution in held.values():
            self.agent.wait_for_output(execution, b"up\n")
        waiting = self.agent.start(COUNTER, reuse_key="w")
        self.assertSucceeds(self.agent.run(FREES, {"port": ports["y"]}), {})
        self.assertEqual(self.agent.wait_for(waiting).result["n"], 1)
        for key in ("x", "z"):
            self.agent.run(FREES, {"port": ports[key]})
        for execution in held.values():
            self.assertEqual(self.agent.wait_for(execution).outcome, "succeeded")


if __name__ == "__main__":
    support.unittest.main()
