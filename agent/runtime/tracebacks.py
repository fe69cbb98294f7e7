"""Exceptions of user code, told with the user's own frames only."""

from __future__ import annotations

import os
import sys
import traceback

MAX_MESSAGE_CHARS = 8 * 1024
MAX_TRACEBACK_CHARS = 64 * 1024

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
    told = traceback.TracebackException(type(error), error, error.__traceback__, limit=-200)
    _keep_user_frames(told, filename, set())
    return {"type": _type_name(error), "traceback": _cut("".join(told.format()), MAX_TRACEBACK_CHARS)}


def _type_name(error: BaseException) -> str:
    kind = type(error)
    own = ("builtins", "__main__", "harrier_module")
    return kind.__qualname__ if kind.__module__ in own else f"{kind.__module__}.{kind.__qualname__}"


def _keep_user_frames(told: traceback.TracebackException, filename: str, seen: set[int]) -> None:
    """Filters an exception, its causes and, for a group, its members."""
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if _is_user(frame.filename, filename)])
    related = [told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or [])]
    for other in related:
        if other is not None:
            _keep_user_frames(other, filename, seen)


def _is_user(frame_file: str, filename: str) -> bool:
    if frame_file == filename:
        return True
    return not (frame_file.startswith((_RUNTIME_DIR, _STDLIB_DIR, "<frozen ")) or frame_file == sys.executable)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit // 2] + "\n… cut …\n" + text[-limit // 2 :]
