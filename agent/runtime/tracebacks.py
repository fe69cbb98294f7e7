"""Exceptions of user code, told with the user's own frames only."""

from __future__ import annotations

import os
import sys
import traceback

MAX_MESSAGE_CHARS = 8 * 1024
MAX_TRACEBACK_CHARS = 64 * 1024
# Exceptions that are told of a chain of causes.
MAX_CHAIN = 20

_RUNTIME_DIR = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STDLIB_DIR = os.path.dirname(os.__file__) + os.sep


class SourceLoader:
    """Lets ``linecache`` (tracebacks, ``inspect.getsource``) find source that is in no file."""

    def __init__(self, source: bytes) -> None:
        self._source = source

    def get_source(self, name: str) -> str:
        return self._source.decode("utf-8", "replace")


def message(error: BaseException) -> str:
    """``TypeName: text``; an exception whose own text fails gets only its name."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return _cut(f"{name}: {text}" if text else name, MAX_MESSAGE_CHARS)


def describe(error: BaseException, filename: str) -> dict:
    """``{"type", "traceback"}`` of an exception of code that is shown as ``filename``."""
    try:
        _shorten_chain(error)
        text = _format(error, filename)
    except RecursionError:
        # Groups and contexts can be as deep as code likes; what has led to this one is left out then.
        error.__cause__ = error.__context__ = None
        text = _format(error, filename)
    return {"type": _type_name(error), "traceback": _cut(text, MAX_TRACEBACK_CHARS)}


def _format(error: BaseException, filename: str) -> str:
    told = traceback.TracebackException(type(error), error, error.__traceback__, limit=-200)
    _keep_user_frames(told, filename)
    return "".join(told.format())


def _shorten_chain(error: BaseException) -> None:
    """Leaves out the middle of a long chain of causes: the last exceptions and the first tell most."""
    chain, seen = [error], {id(error)}
    while True:
        last = chain[-1]
        before = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if before is None or id(before) in seen:
            break
        seen.add(id(before))
        chain.append(before)
    if len(chain) <= MAX_CHAIN:
        return
    half = MAX_CHAIN // 2
    middle = Exception(f"{len(chain) - 2 * half} exceptions of the chain are left out here")
    middle.__cause__ = chain[-half]
    chain[half - 1].__cause__ = middle
    chain[half - 1].__context__ = None


def _type_name(error: BaseException) -> str:
    kind = type(error)
    own = ("builtins", "__main__", "harrier_module")
    return kind.__qualname__ if kind.__module__ in own else f"{kind.__module__}.{kind.__qualname__}"


def _keep_user_frames(root: traceback.TracebackException, filename: str) -> None:
    """Filters an exception, its causes and, for a group, its members."""
    seen: set[int] = set()
    left = [root]
    while left:
        told = left.pop()
        if id(told) in seen:
            continue
        seen.add(id(told))
        frames = [frame for frame in told.stack if _is_user(frame.filename, filename)]
        told.stack = traceback.StackSummary.from_list(frames)
        related = [told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or [])]
        left.extend(other for other in related if other is not None)


def _is_user(frame_file: str, filename: str) -> bool:
    if frame_file == filename:
        return True
    return not (frame_file.startswith((_RUNTIME_DIR, _STDLIB_DIR, "<frozen ")) or frame_file == sys.executable)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit // 2] + "\n… cut …\n" + text[-limit // 2 :]
