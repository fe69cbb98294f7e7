"""Runs a function behind Harrier's container protocol: one JSON document comes on standard input, one goes to standard
output. What the function prints on either stream goes to standard error, which is the log."""

import asyncio
import importlib.util
import inspect
import json
import os
import sys
import traceback

OWN_MODULE = "/app/execute.py"
OWN_HANDLER = "execute_function"


def main() -> None:
    # Whatever prints to standard output, programs that the function starts included, writes to the log.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        document = json.load(sys.stdin)
        output = load()(document["input"])
        if inspect.isawaitable(output):
            output = asyncio.run(_await(output))
        if not isinstance(output, dict):
            result = failure("OUTPUT_INVALID", f"the function returned a {type(output).__name__}, not a dict")
        else:
            result = json.dumps({"ok": True, "output": output}, ensure_ascii=False, allow_nan=False)
    except Exception as error:
        details = {"type": type(error).__name__, "traceback": traceback.format_exc()}
        result = failure("HANDLER_ERROR", f"{type(error).__name__}: {error}", details)
    answer.write(result)
    answer.flush()


def load():
    """The function of an image that is made of this one."""
    spec = importlib.util.spec_from_file_location("execute", OWN_MODULE)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(OWN_MODULE))
    spec.loader.exec_module(module)
    return getattr(module, OWN_HANDLER)


def failure(code: str, message: str, details: "dict | None" = None) -> str:
    return json.dumps({"ok": False, "error": {"message": message, "code": code, "details": details or {}}})


async def _await(value: object) -> object:
    return await value


if __name__ == "__main__":
    main()
