"""Finds the Python interpreter that jobs run in: one that the sandbox's user can reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys

_SYSTEM_CANDIDATES = ("/usr/bin/python3", "/usr/local/bin/python3")
_PROBE = "import json,sys;print(json.dumps([sys.executable,sys.base_prefix,sys.base_exec_prefix,sys.version_info[:3]]))"
_OLDEST = (3, 9)


class Interpreter:
    """An executable and the directories that it needs besides /usr."""

    __slots__ = ("executable", "prefixes")

    def __init__(self, executable: str, prefixes: list[str]) -> None:
        self.executable, self.prefixes = executable, prefixes


def candidates(wanted: str | None) -> list[str]:
    """Interpreters to try, best first: the one asked for and no other, or the launcher's own, then the system's."""
    if wanted:
        return [wanted]
    own = os.path.realpath(sys.executable)
    return list(dict.fromkeys([own, *_SYSTEM_CANDIDATES]))


def describe(path: str) -> Interpreter:
    """Runs it once to learn where its library is. Raises OSError or ValueError saying why it cannot be used."""
    if os.path.realpath(path) == os.path.realpath(sys.executable):
        return Interpreter(os.path.realpath(path), [sys.base_prefix, sys.base_exec_prefix])
    ran = subprocess.run([path, "-I", "-S", "-c", _PROBE], capture_output=True, timeout=30, check=False)
    if ran.returncode:
        raise ValueError(f"{path} does not run: {ran.stderr.decode(errors='replace').strip()[-500:]}")
    executable, prefix, exec_prefix, version = json.loads(ran.stdout)
    if tuple(version) < _OLDEST:
        raise ValueError(f"{path} is Python {version[0]}.{version[1]}, at least 3.9 is needed")
    return Interpreter(os.path.realpath(executable), [prefix, exec_prefix])


def unreachable(path: str, uid: int, gid: int) -> str | None:
    """The first component of the path that this user may not enter (for a file: not execute), or None."""
    current = "/"
    for part in os.path.realpath(path).split("/")[1:]:
        current = os.path.join(current, part)
        info = os.stat(current)
        bit = 0o100 if info.st_uid == uid else 0o010 if info.st_gid == gid else 0o001
        if not info.st_mode & bit:
            return current
    return None
