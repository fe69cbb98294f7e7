"""JSON at the speed of CPython's C scanner and encoder, without the layers of the ``json`` package around them.

Both the launcher (three headers a call) and a fresh worker (each page that it touches costs 2 µs) feel those layers.
What the short way cannot do, an error's text first of all, the ``json`` package does.
"""

from __future__ import annotations

import json
import json.encoder

_scan = json.JSONDecoder().scan_once
_make_encoder = json.encoder.c_make_encoder
_quote = json.encoder.encode_basestring
_slow_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def decode(text: str) -> object:
    """The value of a JSON text. Raises ValueError (malformed) or RecursionError (too deep)."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return json.loads(text)  # white space in front, or an error to be told
    return value if end == len(text) else json.loads(text)


def _no_json(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def encode(value: object) -> str:
    """Compact JSON; non-ASCII text stays as it is. Raises ValueError, TypeError or RecursionError."""
    if _make_encoder is None:
        return _slow_encode(value)
    if isinstance(value, str):
        return _quote(value)
    return "".join(_make_encoder({}, _no_json, _quote, None, ":", ",", False, False, False)(value, 0))
