"""Source text in a language with an interpreter of its own: what a runner and a worker say to each other."""

from __future__ import annotations

import json

import support

# Within reach of the sandbox's user, whatever runs the tests.
PYTHON = "/usr/bin/python3"

# A runner in Python, whose language is Python: the code does what it likes, with `call`, `body` and `send` at hand.
RUNNER = """
import json, os, struct, sys

def send(fields, body=b""):
    head = json.dumps(fields).encode()
    data = struct.pack("!II", len(head), len(body)) + head + body
    while data:
        data = data[os.write(3, data):]

def read(count):
    data = b""
    while len(data) < count:
        data += os.read(3, count - len(data)) or sys.exit(1)
    return data

send({"type": "ready"})
head, size = struct.unpack("!II", read(8))
call, body = json.loads(read(head)), read(size)
exec(body[: call["code_bytes"]])
"""
RESULT = "send({'type': 'result'}, json.dumps(%s).encode())"


class Script(support.RuntimeTest):
    def start(self, code: str, value: object = None, **fields: object) -> str:
        argv = [PYTHON, "-I", "-S", "-c", RUNNER]
        return self.agent.start(code, value, **{"kind": "script", "argv": argv, "filename": "main.x", **fields})

    def run_script(self, code: str, value: object = None, **fields: object) -> support.Ended:
        return self.agent.wait_for(self.start(code, value, **fields))

    def test_the_runner_gets_the_call_and_gives_the_result(self) -> None:
        code = RESULT % "{**call, 'input': json.loads(body[call['code_bytes']:])}"
        ended = self.run_script(code, {"a": "ä" * 100_000})
        self.assertEqual(ended.outcome, "succeeded", ended.header)
        result = ended.result
        self.assertEqual(
            (result["handler"], result["filename"], result["result_bytes"]), ("handler", "main.x", 8 << 20)
        )
        self.assertEqual((result["context"]["attempt"], result["input"]), (1, {"a": "ä" * 100_000}))
        self.assertGreater(ended.header["usage"]["cpu_ms"], 1)

    def test_its_output_and_its_progress_come_before_the_end(self) -> None:
        code = "send({'type': 'progress', 'percent': 30, 'step': 'on'}); print('out', flush=True); "
        ended = self.run_script(code + "print('err', file=sys.stderr, flush=True); " + RESULT % "{}")
        self.assertSucceeds(ended, {})
        self.assertEqual((ended.stdout, ended.stderr), (b"out\n", b"err\n"))

    def test_a_result_on_stdout_is_none(self) -> None:
        forged = 'sys.stdout.buffer.write(b\'\\0\\0\\0\\x11\\0\\0\\0\\2{"type":"result"}{}\'); sys.stdout.flush(); '
        ended = self.run_script(forged + RESULT % "{'forged': False}")
        self.assertSucceeds(ended, {"forged": False})

    def test_the_last_word_ends_the_call_whatever_the_process_does_then(self) -> None:
        code = RESULT % "{'n': 1}" + "; import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        self.assertSucceeds(self.run_script(code), {"n": 1})

    def test_an_error_is_told_with_its_details(self) -> None:
        details = {"type": "Odd", "traceback": "Odd: no\n  at main.x:1"}
        error = {"type": "error", "code": "HANDLER_ERROR", "message": "Odd: no", "details": details}
        ended = self.run_script(f"send({error!r})")
        self.assertFails(ended, "HANDLER_ERROR", "Odd: no")
        self.assertEqual(ended.header["error"]["details"], details)

    def test_codes_that_are_not_the_code_s_to_give_are_not_taken(self) -> None:
        error = {"type": "error", "code": "AGENT_LOST", "message": "please again", "details": {}}
        self.assertFails(self.run_script(f"send({error!r})"), "HANDLER_ERROR", "please again")

    def test_an_exit_before_the_end_fails_the_call(self) -> None:
        for code in (0, 3):
            ended = self.run_script(f"os._exit({code})")
            self.assertFails(ended, "HANDLER_ERROR", f"exited with code {code} before the handler returned")
            self.assertEqual(ended.header["exit_code"], code)

    def test_a_signal_is_told(self) -> None:
        ended = self.run_script("os.kill(os.getpid(), 9)")
        self.assertFails(ended, "KILLED", "SIGKILL")
        self.assertEqual(ended.header["signal"], 9)

    def test_an_abort_at_the_limit_of_memory_is_out_of_memory(self) -> None:
        limits = {"memory_bytes": 32 << 20}
        code = "held = bytearray(b'x') * (%d << 20); os.abort()"
        self.assertFails(self.run_script(code % 40, limits=limits), "OUT_OF_MEMORY", "33554432")
        self.assertFails(self.run_script("os.abort()", limits=limits), "KILLED", "SIGABRT")

    def test_more_memory_than_the_limit_is_out_of_memory(self) -> None:
        code = (
            "try:\n    held = [bytearray(b'x') * (1 << 20) for _ in range(1000)]\nexcept MemoryError:\n    os.abort()\n"
        )
        self.assertFails(self.run_script(code, limits={"memory_bytes": 64 << 20}), "OUT_OF_MEMORY")

    def test_nonsense_fails_the_call(self) -> None:
        self.assertFails(
            self.run_script("os.write(3, b'\\xff' * 100_000)"), "HANDLER_ERROR", "header of 4294967295 bytes"
        )
        self.assertFails(
            self.run_script("send({'type': 'exit', 'exit_code': 0})"), "HANDLER_ERROR", "unexpected 'exit'"
        )
        self.assertFails(self.run_script("send({'type': 'ready'})"), "HANDLER_ERROR", "unexpected 'ready'")
        self.assertFails(self.run_script("send({'type': 'progress'})"), "HANDLER_ERROR", "percent")
        self.assertFails(
            self.run_script("send({'type': 'result'}, b'x' * 2_000_000)", limits={"result_bytes": 100}), "HANDLER_ERROR"
        )

    def test_the_process_that_waits_for_it_is_out_of_its_reach(self) -> None:
        code = (
            "def tried(path, flags):\n"
            "    try:\n        os.close(os.open(path, flags))\n        return 'opened'\n"
            "    except OSError as error:\n        return error.strerror\n"
            "def listed():\n"
            "    try:\n        return os.listdir('/proc/1/fd')\n"
            "    except OSError as error:\n        return error.strerror\n"
            "found = {'memory': tried('/proc/1/mem', os.O_RDWR), 'descriptors': listed()}\n"
        )
        ended = self.run_script(code + RESULT % "found")
        self.assertSucceeds(ended, {"memory": "Permission denied", "descriptors": "Permission denied"})

    def test_a_closed_socket_is_no_end(self) -> None:
        ended = self.run_script("os.close(3); print('on', flush=True); os._exit(4)")
        self.assertFails(ended, "HANDLER_ERROR", "code 4")
        self.assertEqual(ended.stdout, b"on\n")

    def test_a_stop_reaches_it_and_its_clean_up_is_seen(self) -> None:
        code = (
            "import signal\n"
            "def stop(*_):\n    print('cleaned up', flush=True); os._exit(0)\n"
            "signal.signal(signal.SIGTERM, stop)\nprint('up', flush=True)\nwhile True: signal.pause()\n"
        )
        execution = self.start(code)
        self.agent.wait_for_output(execution, b"up\n")
        self.agent.send(
            {"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 60_000}
        )
        ended = self.agent.wait_for(execution)
        self.assertEqual((ended.outcome, ended.stdout), ("cancelled", b"up\ncleaned up\n"))
        ended = self.run_script("while True: pass", timeout_ms=100)
        self.assertEqual((ended.outcome, ended.code), ("timed_out", "TIMEOUT"))

    def test_orphans_are_reaped_while_it_runs(self) -> None:
        code = """
import time
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
def zombies():
    found = []
    for pid in os.listdir("/proc"):
        try:
            found += [pid] if pid.isdigit() and ") Z " in open("/proc/%s/stat" % pid).read() else []
        except FileNotFoundError:
            pass
    return found
while zombies():
    time.sleep(0.01)
"""
        self.assertSucceeds(self.run_script(code + RESULT % "{}"), {})

    def test_a_runner_that_cannot_be_started_is_told(self) -> None:
        ended = self.run_script("", argv=["/no/such/runner"])
        self.assertFails(ended, "SUBMIT_FAILED", "'/no/such/runner': not found")

    def test_fields_are_checked(self) -> None:
        self.assertFails(self.run_script("", argv=[]), "INTERNAL", "argv")
        self.assertFails(self.run_script("", handler=""), "INTERNAL", "handler")

    def test_a_launcher_tells_that_it_runs_scripts(self) -> None:
        self.assertIn("script", self.agent.welcome["features"])


class ScriptWithNetwork(support.RuntimeTest):
    def test_it_has_the_proxy_of_its_call(self) -> None:
        argv = [PYTHON, "-I", "-S", "-c", RUNNER]
        network = {"mode": "hosts", "hosts": ["a.example"]}
        code = RESULT % "{'proxy': os.environ.get('HTTPS_PROXY')}"
        execution = self.agent.start(code, kind="script", argv=argv, network=network)
        ended = self.agent.wait_for(execution)
        self.assertEqual(json.loads(ended.body)["proxy"], "http://127.0.0.1:3128")


if __name__ == "__main__":
    support.unittest.main()
