"""The launcher's log: one JSON object a line, to a file or to stderr."""

from __future__ import annotations

import json
import os
import time


class Logger:
    """Writes lines at once; a log that cannot be written never stops the launcher."""

    def __init__(self, fd: int, name: str = "launcher") -> None:
        self._fd, self._name = fd, name

    def info(self, message: str, **fields: object) -> None:
        self._write("info", message, fields)

    def warn(self, message: str, **fields: object) -> None:
        self._write("warn", message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict) -> None:
        entry = {"level": level, "time": int(time.time() * 1000), "name": self._name, "msg": message, **fields}
        try:
            os.write(self._fd, json.dumps(entry, default=str).encode() + b"\n")
        except OSError:
            pass
