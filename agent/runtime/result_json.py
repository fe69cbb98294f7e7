"""A handler's result as JSON text, or the reason why it is none, with the JSON path of the first offending value."""

from __future__ import annotations

import json
import math
import re

import fast_json

# The largest double has so many digits before its point.
_MAX_DIGITS = 309
_LONG_NUMBER = re.compile(r"\d{%d}" % _MAX_DIGITS)

# MAX_DOCUMENT_DEPTH of shared/src/document-fault.ts, which says why.
MAX_DEPTH = 32


class NotJson(ValueError):
    """The value cannot be JSON; the message names the path and why."""


def encode(value: object) -> bytes:
    """UTF-8 JSON of a dict. Raises NotJson.

    The ordinary case runs at the speed of the C encoder; what that one lets through without a word (keys that are not
    text, and so possibly the same key twice) shows when the text is read back. Only then is the value walked.
    """
    if not isinstance(value, dict):
        raise NotJson(f"$: the handler returned {_name(value)}, not a dict")
    try:
        text = fast_json.encode(value)
        data = text.encode()
        shallow = text.count("[") + text.count("{") <= MAX_DEPTH
        small = len(text) < _MAX_DIGITS or not _LONG_NUMBER.search(text)
        if small and (shallow or _depth(value) <= MAX_DEPTH) and fast_json.decode(text) == value:
            return data
    except (ValueError, TypeError, RecursionError, OverflowError):
        text = data = None
    fault = _find_fault(value)
    if fault:
        raise NotJson(fault)
    if data is None:
        raise NotJson("$: the value cannot be written as JSON")
    return data


def _depth(value: object) -> int:
    """Levels of nesting, counted one whole level at a time and no further than one past the bound."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list, tuple))
        ]
    return depth


def _find_fault(root: object) -> str | None:
    """The first fault in document order. Walks with its own stack: the value may be deeper than the interpreter's."""
    stack: list[tuple[object, str, tuple[int, ...]]] = [(root, "$", ())]
    while stack:
        value, path, parents = stack.pop()
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, int):
            if not _fits_double(value):
                return f"{path}: the whole number is beyond what readers of JSON can hold (about 1.8e308)"
        elif isinstance(value, str):
            if not _is_text(value):
                return f"{path}: a string with a lone surrogate is not valid Unicode"
        elif isinstance(value, float):
            if not math.isfinite(value):
                return f"{path}: {value!r} is not a JSON number"
        elif isinstance(value, (dict, list, tuple)):
            if id(value) in parents:
                return f"{path}: the value contains itself"
            if len(parents) >= MAX_DEPTH:
                return f"{path[:200]}: nested deeper than {MAX_DEPTH} levels"
            children, fault = _children(value, path)
            if fault:
                return fault
            inner = (*parents, id(value))
            stack.extend((child, child_path, inner) for child, child_path in reversed(children))
        else:
            return f"{path}: {_name(value)} is not a JSON value"
    return None


def _children(value: dict | list | tuple, path: str) -> tuple[list[tuple[object, str]], str | None]:
    if not isinstance(value, dict):
        return [(child, f"{path}[{index}]") for index, child in enumerate(value)], None
    children = []
    for key, child in value.items():
        if not isinstance(key, str):
            return [], f"{path}: the key {key!r:.80} is {_name(key)}, not a string"
        if not _is_text(key):
            return [], f"{path}: the key {key!r:.80} has a lone surrogate"
        children.append((child, path + (f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]")))
    return children, None


def _fits_double(value: int) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
