"""Runs a Python handler inside a worker: loads the module, calls the handler, turns what comes out into a reply."""

from __future__ import annotations

import builtins
import sys
import types

import channel
import fast_json
import limits
import result_json
import tracebacks

MODULE_NAME = "harrier_module"
_MAX_STEP_CHARS = 1000


class Stopped(BaseException):
    """Raised in the main thread on SIGTERM (cancel, timeout, shutdown), so that ``finally`` blocks run."""


class Failure(Exception):
    """A call that failed, as data: an error code of the execution model, a message and details."""

    def __init__(self, code: str, message: str, details: dict | None = None) -> None:
        super().__init__(message)
        self.reply = {"type": "error", "code": code, "message": message, "details": details or {}}


class Context:
    """What a handler may know about its call, and how it reports progress."""

    __slots__ = ("attempt", "deadline", "execution_id", "tenant")

    def __init__(self, fields: dict) -> None:
        self.execution_id = fields.get("execution_id")
        self.attempt = fields.get("attempt")
        self.tenant = fields.get("tenant")
        self.deadline = fields.get("deadline")

    def progress(self, percent: float, step: str = "") -> None:
        """Tells the caller how far the work is (0 to 100) and what it does; the newest report wins."""
        value = float(percent)
        if not 0 <= value <= 100:
            raise ValueError(f"progress: percent is {percent!r}, not between 0 and 100")
        channel.send({"type": "progress", "percent": value, "step": str(step)[:_MAX_STEP_CHARS]})


class Host:
    """One worker's interpreter. It keeps the last module, for workers that serve many calls of the same one."""

    def __init__(self) -> None:
        self._loaded: tuple[bytes, str] | None = None
        self._module: types.ModuleType | None = None

    def run(self, header: dict, code: bytes, input_json: bytes) -> tuple[dict, bytes]:
        """One call. Returns the reply's header and body; raises nothing but Stopped."""
        filename = header["filename"]
        try:
            module = self._load(code, filename)
            handler = _find_handler(module, header["handler"], filename)
            value = _call(handler, _parse_input(input_json), header.get("context") or {})
            body = _encode_result(value, header["limits"]["result_bytes"])
            return {"type": "result"}, body
        except Failure as failure:
            return failure.reply, b""
        except Stopped:
            raise
        except MemoryError:
            limits.allow_report()
            return Failure("OUT_OF_MEMORY", "MemoryError: the memory limit was reached").reply, b""
        except BaseException as error:
            return self._user_error(error, filename), b""

    def forget(self) -> None:
        """Drops the kept module."""
        self._loaded = self._module = None
        sys.modules.pop(MODULE_NAME, None)

    def _user_error(self, error: BaseException, filename: str) -> dict:
        try:
            details = tracebacks.describe(error, filename)
            return Failure("HANDLER_ERROR", tracebacks.message(error), details).reply
        except MemoryError:
            limits.allow_report()
            return Failure("OUT_OF_MEMORY", "MemoryError: the memory limit was reached").reply

    def _load(self, code: bytes, filename: str) -> types.ModuleType:
        if self._loaded == (code, filename):
            return self._module
        module = types.ModuleType(MODULE_NAME)
        module.__file__ = filename
        module.__loader__ = tracebacks.SourceLoader(code)
        sys.modules[MODULE_NAME] = module
        self._loaded = None  # a module whose import fails is loaded again by the next call
        exec(compile(code, filename, "exec", dont_inherit=True), module.__dict__)
        self._loaded, self._module = (code, filename), module
        return module


def _find_handler(module: types.ModuleType, name: str, filename: str) -> object:
    handler = module.__dict__.get(name)
    if handler is None:
        raise Failure("HANDLER_NOT_FOUND", f"{filename} defines no function {name!r}")
    if not callable(handler):
        raise Failure("HANDLER_NOT_FOUND", f"{name!r} in {filename} is {type(handler).__name__}, not a function")
    return handler


def _parse_input(text: bytes) -> object:
    try:
        return fast_json.decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise Failure("INPUT_INVALID", f"The input is not JSON: {error}") from None


def _call(handler: object, value: object, fields: dict) -> object:
    """Calls the handler, with the context when it asks for one, and awaits what it returns if that can be awaited."""
    how = _context_parameter(handler)
    if how is None:
        result = handler(value)
    elif how == "":
        result = handler(value, Context(fields))
    else:
        result = handler(value, **{how: Context(fields)})
    if hasattr(result, "__await__"):
        return _await(result)
    return result


def _await(awaitable: object) -> object:
    if "asyncio" not in sys.modules:
        channel.send({"type": "asyncio"})  # the zygote preloads it from now on: it takes 40 ms
    import asyncio

    async def main() -> object:
        return await awaitable

    return asyncio.run(main())


def _context_parameter(handler: object) -> str | None:
    """How the context is passed: None not at all, "" as second argument, else by that keyword.

    A second parameter is the context if it has no default or is named like one. Read from the code object: ``inspect``
    is slow to import, and needed only for callables that are not functions.
    """
    function = getattr(handler, "__func__", handler)
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__"):
        return _context_parameter_by_signature(handler)
    bound = 1 if function is not handler else 0
    names = code.co_varnames[bound : code.co_argcount]
    required = len(names) - len(function.__defaults__ or ())
    if len(names) >= 2 and (required >= 2 or names[1] in _CONTEXT_NAMES):
        return ""
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return next((name for name in keyword_only if name in _CONTEXT_NAMES), None)


_CONTEXT_NAMES = ("context", "ctx", "_context", "_ctx")


def _context_parameter_by_signature(handler: object) -> str | None:
    import inspect

    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) >= 2 and (positional[1].default is positional[1].empty or positional[1].name in _CONTEXT_NAMES):
        return ""
    return next((p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name in _CONTEXT_NAMES), None)


def _encode_result(value: object, result_bytes: int) -> bytes:
    try:
        body = result_json.encode(value)
    except result_json.NotJson as fault:
        raise Failure("OUTPUT_INVALID", f"The handler's result is not JSON: {fault}") from None
    if result_bytes and len(body) > result_bytes:
        raise Failure("OUTPUT_TOO_LARGE", f"The result has {len(body)} bytes of JSON, the limit is {result_bytes}")
    return body


def add_site_builtins() -> None:
    """``exit`` and ``quit``, which the interpreter adds only with ``site``."""
    import _sitebuiltins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
