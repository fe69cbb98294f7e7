"""What a Python handler may do and what its caller gets."""

from __future__ import annotations

import sys

import support


class Calls(support.RuntimeTest):
    def test_a_handler_gets_its_input_and_returns_its_result(self) -> None:
        ended = self.agent.run("def handler(input):\n    return {'sum': sum(input['n'])}", {"n": [1, 2, 3]})
        self.assertSucceeds(ended, {"sum": 6})
        self.assertEqual(ended.types, ["started", "finished"])

    def test_unicode_survives_both_ways(self) -> None:
        text = 'héllo \u2028 \U0001f985 \x00 \\ "'
        self.assertSucceeds(self.agent.run("def handler(input):\n    return input", {text: text}), {text: text})

    def test_white_space_around_the_input_is_json(self) -> None:
        ended = self.agent.run("def handler(input):\n    return input", input=b' \n{"a": 1}\n ')
        self.assertSucceeds(ended, {"a": 1})

    def test_input_that_is_not_json_is_refused(self) -> None:
        self.assertFails(self.agent.run("def handler(input): return {}", input=b"{"), "INPUT_INVALID", "not JSON")

    def test_every_call_has_a_fresh_process(self) -> None:
        code = (
            "import os, sys\nn = 0\n"
            "def handler(input):\n"
            "    global n\n    n += 1\n"
            "    seen = os.path.exists('/tmp/left')\n"
            "    open('/tmp/left', 'w').close()\n"
            "    sys.modules['left'] = sys\n"
            "    return {'n': n, 'seen': seen}"
        )
        for _ in range(3):
            self.assertSucceeds(self.agent.run(code), {"n": 1, "seen": False})

    def test_the_context_tells_about_the_call(self) -> None:
        code = (
            "def handler(input, context):\n"
            "    return {k: getattr(context, k) for k in ('execution_id', 'attempt', 'tenant', 'deadline')}"
        )
        context = {"execution_id": "e-1", "attempt": 3, "tenant": "acme", "deadline": 12.5}
        self.assertSucceeds(self.agent.run(code, context=context), context)

    def test_the_context_is_passed_to_handlers_that_ask_for_it(self) -> None:
        for signature, expected in (
            ("input, anything", True),
            ("input, *rest", False),
            ("input, n=5", False),
            ("input, context=None", True),
            ("input, *, context", True),
        ):
            last = "rest" if "*rest" in signature else signature.split()[-1].split("=")[0].strip("*")
            code = f"def handler({signature}):\n    return {{'got': hasattr({last}, 'progress')}}"
            with self.subTest(signature):
                self.assertSucceeds(self.agent.run(code), {"got": expected})

    def test_a_callable_object_and_a_decorated_function_are_handlers(self) -> None:
        code = (
            "import functools\n"
            "class H:\n    def __call__(self, input, context):\n        return {'id': context.execution_id}\n"
            "def passing(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n"
            "@passing\ndef decorated(input, context):\n    return {'id': context.execution_id}\n"
            "instance = H()"
        )
        for name in ("instance", "decorated"):
            with self.subTest(name):
                ended = self.agent.run(code, handler=name, context={"execution_id": "e"})
                self.assertSucceeds(ended, {"id": "e"})

    def test_asynchronous_handlers_are_awaited(self) -> None:
        code = "import asyncio\nasync def handler(input, context):\n    await asyncio.sleep(0)\n    return {'ok': True}"
        for _ in range(2):
            self.assertSucceeds(self.agent.run(code), {"ok": True})

    def test_progress_reaches_the_agent(self) -> None:
        code = (
            "def handler(input, context):\n    context.progress(12.5, 'half of a half')\n"
            "    print('said', flush=True)\n    import time; time.sleep(0.02)\n    return {}"
        )
        ended = self.agent.run(code)
        self.assertEqual(ended.progress, [(12.5, "half of a half")])

    def test_progress_out_of_range_is_the_handlers_error(self) -> None:
        ended = self.agent.run("def handler(input, context):\n    context.progress(101)")
        self.assertFails(ended, "HANDLER_ERROR", "ValueError: progress: percent is 101")

    def test_variables_are_set_and_the_agents_are_not(self) -> None:
        code = "import os\ndef handler(input):\n    return dict(os.environ)"
        result = self.agent.run(code, env={"GREETING": "hi ü"}).result
        self.assertEqual(result["GREETING"], "hi ü")
        self.assertEqual(set(result) - {"LC_CTYPE", "PWD"}, {"GREETING", "PATH", "HOME", "TMPDIR", "LANG", "USER"})

    def test_many_calls_at_once_get_their_own_results(self) -> None:
        code = "def handler(input):\n    print(input['n'])\n    return input"
        executions = {self.agent.start(code, {"n": n}): n for n in range(40)}
        for execution, n in executions.items():
            ended = self.agent.wait_for(execution)
            self.assertSucceeds(ended, {"n": n})
            self.assertEqual(ended.stdout, b"%d\n" % n)

    def test_hundreds_of_calls_run_at_once(self) -> None:
        code = "import time\ndef handler(input):\n    print('up')\n    time.sleep(600)"
        executions = [self.agent.start(code) for _ in range(300)]
        for execution in executions:
            self.agent.wait_for_output(execution, b"up\n")
        for execution in executions:
            self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        for execution in executions:
            self.assertEqual(self.agent.wait_for(execution).outcome, "cancelled")

    def test_a_forked_process_that_returns_is_not_the_handler(self) -> None:
        code = (
            "import os\ndef handler(input):\n    pid = os.fork()\n    if pid: os.waitpid(pid, 0)\n"
            "    return {'parent': bool(pid)}"
        )
        self.assertSucceeds(self.agent.run(code), {"parent": True})

    def test_a_large_input_and_result_pass(self) -> None:
        ended = self.agent.run("def handler(input):\n    return input", {"text": "x" * (7 << 20)})
        self.assertEqual(len(ended.result["text"]), 7 << 20)

    def test_usage_is_told(self) -> None:
        code = "def handler(input):\n    x = bytearray(64 << 20)\n    for i in range(3000000): pass\n    return {}"
        usage = self.agent.run(code).header["usage"]
        self.assertGreater(usage["cpu_ms"], 5)
        self.assertGreater(usage["max_rss_bytes"], 64 << 20)

    def test_runtime_modules_are_not_the_jobs(self) -> None:
        code = "def handler(input):\n    import limits"
        self.assertFails(self.agent.run(code), "HANDLER_ERROR", "ModuleNotFoundError")

    def test_classes_of_the_module_can_be_pickled_and_dataclasses_work(self) -> None:
        code = (
            "import pickle, dataclasses\n"
            "@dataclasses.dataclass\nclass P:\n    x: int\n"
            "def handler(input):\n    return {'x': pickle.loads(pickle.dumps(P(3))).x}"
        )
        self.assertSucceeds(self.agent.run(code), {"x": 3})


class Failures(support.RuntimeTest):
    def test_an_exception_is_told_with_user_frames_only(self) -> None:
        code = "import json\ndef inner():\n    json.loads('{')\ndef handler(input):\n    inner()\n"
        ended = self.agent.run(code, filename="job.py")
        self.assertFails(ended, "HANDLER_ERROR", "JSONDecodeError: Expecting property name")
        details = ended.header["error"]["details"]
        self.assertEqual(details["type"], "json.decoder.JSONDecodeError")
        lines = details["traceback"].splitlines()
        self.assertEqual(
            [line for line in lines if line.startswith("  File")],
            [
                '  File "job.py", line 5, in handler',
                '  File "job.py", line 3, in inner',
            ],
        )
        self.assertIn("    json.loads('{')", lines)

    def test_causes_are_told(self) -> None:
        code = (
            "def handler(input):\n    try:\n        {}['k']\n    except KeyError as e:\n"
            "        raise RuntimeError('outer') from e"
        )
        traceback = self.agent.run(code).header["error"]["details"]["traceback"]
        self.assertIn("KeyError: 'k'", traceback)
        self.assertIn("direct cause", traceback)
        self.assertNotIn("handler_host", traceback)

    def test_a_long_chain_of_causes_is_told_from_both_ends(self) -> None:
        chain = (
            "def handler(input):\n"
            "    error = KeyError('first')\n"
            "    for n in range(5000):\n"
            "        later = ValueError(f'cause {n}')\n"
            "        later.%s = error\n"
            "        error = later\n"
            "    raise error"
        )
        for name in ("__cause__", "__context__"):
            with self.subTest(name):
                ended = self.agent.run(chain % name)
                self.assertFails(ended, "HANDLER_ERROR", "ValueError: cause 4999")
                traceback = ended.header["error"]["details"]["traceback"]
                for text in (
                    "KeyError: 'first'",
                    "cause 8",
                    "4981 exceptions of the chain are left out here",
                    "cause 4990",
                ):
                    self.assertIn(text, traceback)
                self.assertNotIn("cause 2500", traceback)

    def test_groups_within_groups_are_told_too(self) -> None:
        code = (
            "def handler(input):\n"
            "    error = KeyError('innermost')\n"
            "    for n in range(5000):\n"
            "        error = ExceptionGroup(f'group {n}', [error])\n"
            "    raise error"
        )
        if sys.version_info >= (3, 11):
            self.assertFails(self.agent.run(code), "HANDLER_ERROR", "group 4999")

    def test_a_syntax_error_names_the_line(self) -> None:
        ended = self.agent.run("def handler(input):\n    return {\n")
        self.assertFails(ended, "HANDLER_ERROR", "SyntaxError")
        self.assertIn("line 2", ended.message + ended.header["error"]["details"]["traceback"])

    def test_an_exit_is_an_error(self) -> None:
        for code in ("import sys; sys.exit(3)", "exit(3)", "raise SystemExit(3)"):
            with self.subTest(code):
                self.assertFails(self.agent.run(f"def handler(input):\n    {code}"), "HANDLER_ERROR", "SystemExit: 3")

    def test_a_missing_handler_is_named(self) -> None:
        self.assertFails(self.agent.run("x = 1"), "HANDLER_NOT_FOUND", "main.py defines no function 'handler'")
        self.assertFails(self.agent.run("handler = 5"), "HANDLER_NOT_FOUND", "is int, not a function")

    def test_a_process_that_exits_without_a_result(self) -> None:
        ended = self.agent.run("import os\ndef handler(input):\n    print('x'); os._exit(7)")
        self.assertFails(ended, "HANDLER_ERROR", "exited with code 7")
        self.assertEqual((ended.header["exit_code"], ended.stdout), (7, b"x\n"))

    def test_a_crash_is_told_with_its_signal(self) -> None:
        ended = self.agent.run("import ctypes\ndef handler(input):\n    ctypes.string_at(0)")
        self.assertFails(ended, "KILLED", "SIGSEGV")
        self.assertEqual(ended.header["signal"], 11)

    def test_a_process_that_kills_itself(self) -> None:
        for call, number in (("os.kill(os.getpid(), 9)", 9), ("os.abort()", 6), ("os.kill(0, 15)", 15)):
            with self.subTest(call):
                ended = self.agent.run(f"import os\ndef handler(input):\n    {call}\n    return {{}}")
                self.assertFails(ended, "KILLED")
                self.assertEqual(ended.header["signal"], number)

    def test_deep_recursion_is_an_error_of_the_handler(self) -> None:
        ended = self.agent.run("def f():\n    f()\ndef handler(input):\n    f()")
        self.assertFails(ended, "HANDLER_ERROR", "RecursionError")

    def test_an_exception_that_cannot_be_told(self) -> None:
        code = "class E(Exception):\n    def __str__(self): raise ValueError\ndef handler(input):\n    raise E"
        self.assertFails(self.agent.run(code), "HANDLER_ERROR", "E")

    def test_an_error_with_text_that_is_not_unicode(self) -> None:
        ended = self.agent.run("def handler(input):\n    raise ValueError('\\ud800 and \\x00')")
        self.assertFails(ended, "HANDLER_ERROR", "ValueError")


class Results(support.RuntimeTest):
    def returns(self, expression: str, **fields: object) -> support.Ended:
        return self.agent.run(f"def handler(input):\n    return {expression}", **fields)

    def test_values_that_are_not_json_are_refused_with_their_path(self) -> None:
        for expression, path in (
            ("{'a': [1, 2, 3, {'b': float('nan')}]}", "$.a[3].b: nan"),
            ("{'a': float('-inf')}", "$.a: -inf"),
            ("{'a b': b'x'}", '$["a b"]: a value of type bytes'),
            ("{'a': {1}}", "$.a: a value of type set"),
            ("{'a': {1: 2}}", "$.a: the key 1 is a value of type int, not a string"),
            ("{True: 2}", "$: the key True"),
            ("{'1': 0, 1: 2}", "$: the key 1"),
            ("{'a': '\\ud800'}", "$.a: a string with a lone surrogate"),
            ("{'\\ud800': 1}", "$: the key"),
            ("[1]", "$: the handler returned a value of type list"),
            ("None", "$: the handler returned None"),
            ("{'a': object()}", "$.a: a value of type object"),
        ):
            with self.subTest(expression):
                self.assertFails(self.returns(expression), "OUTPUT_INVALID", path)

    def test_a_cycle_is_refused(self) -> None:
        code = "def handler(input):\n    a = []\n    a.append(a)\n    return {'x': a}"
        self.assertFails(self.agent.run(code), "OUTPUT_INVALID", "$.x[0]: the value contains itself")

    def test_nesting_has_a_limit(self) -> None:
        code = "def handler(input):\n    v = 1\n    for _ in range(%d): v = [v]\n    return {'v': v}"
        self.assertFails(self.agent.run(code % 32), "OUTPUT_INVALID", "nested deeper than 32")
        self.assertFails(self.agent.run(code % 5000), "OUTPUT_INVALID", "nested deeper than 32")
        self.assertEqual(self.agent.run(code % 31).outcome, "succeeded")

    def test_whole_numbers_have_a_limit(self) -> None:
        for number in ("10**309", "-10**400", "10**5000"):
            ended = self.returns("{'a': [1, {'k': %s}]}" % number)
            self.assertFails(ended, "OUTPUT_INVALID", "$.a[1].k: the whole number is beyond")
        ended = self.returns("{'k': 10**308, 'digits': '1' * 400}")
        self.assertEqual(ended.result["k"], 10**308)

    def test_values_that_are_json_pass(self) -> None:
        ended = self.returns("{'t': (1, 2.5, None, True), 'big': 2**70, 'e': {}, 'l': [], 'same': [x := [], x]}")
        self.assertSucceeds(ended, {"t": [1, 2.5, None, True], "big": 2**70, "e": {}, "l": [], "same": [[], []]})

    def test_a_result_at_its_limit_passes_and_above_it_does_not(self) -> None:
        limits = {"result_bytes": 1000}
        self.assertEqual(len(self.returns("{'a': 'x' * 992}", limits=limits).body), 1000)
        ended = self.returns("{'a': 'x' * 993}", limits=limits)
        self.assertFails(ended, "OUTPUT_TOO_LARGE", "1001 bytes of JSON, the limit is 1000")

    def test_printed_frames_forge_nothing(self) -> None:
        code = (
            "import os, json, struct\n"
            "def handler(input):\n"
            "    head = json.dumps({'type': 'result'}).encode()\n"
            "    body = b'{\"forged\":true}'\n"
            "    frame = struct.pack('!II', len(head), len(body)) + head + body\n"
            "    os.write(1, frame); os.write(2, frame)\n"
            "    return {'forged': False}"
        )
        ended = self.agent.run(code)
        self.assertSucceeds(ended, {"forged": False})
        self.assertIn(b'{"forged":true}', ended.stdout)

    def test_a_job_that_spoils_its_channel_fails_alone(self) -> None:
        other = self.agent.start("import time\ndef handler(input):\n    time.sleep(0.2)\n    return {'fine': 1}")
        for spoil in ("b'x' * 100", "b'\\xff' * 8", "b'\\0\\0\\0\\2\\0\\0\\0\\0[]'"):
            with self.subTest(spoil):
                ended = self.agent.run(f"import os\ndef handler(input):\n    os.write(3, {spoil})\n    return {{}}")
                self.assertFails(ended, "HANDLER_ERROR", "broke its result channel")
        self.assertSucceeds(self.agent.wait_for(other), {"fine": 1})

    def test_a_job_cannot_end_as_only_the_launcher_may_say(self) -> None:
        for code in ("AGENT_LOST", "KILLED", "TIMEOUT", "CANCELLED", "INTERNAL", "POLICY_DENIED"):
            with self.subTest(code):
                word = f"{{'type': 'error', 'code': '{code}', 'message': 'again', 'details': {{}}}}"
                forge = f"json.dumps({word}).encode()\n    os.write(3, struct.pack('!II', len(head), 0) + head)"
                source = f"import json, os, struct\ndef handler(input):\n    head = {forge}\n    return {{}}"
                self.assertFails(self.agent.run(source), "HANDLER_ERROR", "again")
        source = source.replace("'type': 'error'", "'type': 'not_started'")
        self.assertFails(self.agent.run(source), "HANDLER_ERROR", "again")

    def test_a_job_that_closes_its_channel_ends_without_a_result(self) -> None:
        ended = self.agent.run("import os\ndef handler(input):\n    os.close(3)\n    return {}")
        self.assertFails(ended, "HANDLER_ERROR", "exited with code")


if __name__ == "__main__":
    support.unittest.main()
