"""Checks a `start` frame's fields, so that the rest of the launcher and the workers can rely on them."""

from __future__ import annotations

import environment
import network_policy

_KINDS = ("python", "command", "script")
_LIMITS = ("memory_bytes", "stdout_bytes", "stderr_bytes", "result_bytes", "tmp_bytes", "processes")
_MAX_NAME_BYTES = 256
_MAX_GPUS = 128


def attempt_key(header: dict) -> tuple[str, int]:
    """(execution, attempt) of any message about an attempt. Raises ValueError."""
    execution, attempt = header.get("execution"), header.get("attempt")
    if not isinstance(execution, str) or not 0 < len(execution) <= _MAX_NAME_BYTES:
        raise ValueError(f"{header['type']}: execution must be a text of 1 to {_MAX_NAME_BYTES} characters")
    if type(attempt) is not int or attempt < 1:
        raise ValueError(f"{header['type']}: attempt must be an integer from 1")
    return execution, attempt


class Refused(ValueError):
    """An attempt that this launcher does not start: ``code`` says whether another try can help."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check(header: dict, body_bytes: int) -> None:
    """Raises ValueError naming the field that is wrong; Refused where that is not a defect of the agent."""
    _text(header, "tenant")
    if header.get("kind") not in _KINDS:
        # Of a newer agent; others may have a launcher that knows it.
        raise Refused("SUBMIT_FAILED", f"start: kind must be one of {', '.join(_KINDS)}")
    for name in ("input_bytes", "timeout_ms", "grace_ms"):
        _count(header, name)
    code_bytes = 0
    if header["kind"] != "command":
        _text(header, "handler")
        _text(header, "filename")
        code_bytes = _count(header, "code_bytes")
    if header["kind"] == "script":
        _argv(header)
    prelude_bytes = _count(header, "prelude_bytes") if "prelude_bytes" in header else 0
    if prelude_bytes + code_bytes + header["input_bytes"] != body_bytes:
        raise ValueError(
            f"start: prelude_bytes, code_bytes and input_bytes do not add up to the body's {body_bytes} bytes"
        )
    try:
        _check_asked(header)
    except ValueError as error:
        raise Refused("INPUT_INVALID", str(error)) from None
    if header.get("reuse_key") is not None and not isinstance(header["reuse_key"], str):
        raise ValueError("start: reuse_key must be null or a text")
    gpus = header.get("gpus", [])
    if not isinstance(gpus, list) or len(gpus) > _MAX_GPUS or not all(isinstance(uuid, str) for uuid in gpus):
        raise ValueError(f"start: gpus must be a list of at most {_MAX_GPUS} texts")
    for name in ("context", "about"):
        if not isinstance(header.get(name, {}), dict):
            raise ValueError(f"start: {name} must be an object")


def _check_asked(header: dict) -> None:
    """What the caller asks for, as it came: every other agent would refuse it, too."""
    if header["kind"] == "command":
        _argv(header)
    _limits(header)
    if header.get("env") is not None:
        environment.check_variables(header["env"], "start: env")
    network_policy.check(header.get("network"))


def _text(header: dict, name: str) -> None:
    value = header.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"start: {name} must be a text that is not empty")


def _count(fields: dict, name: str, where: str = "start: ") -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError(f"{where}{name} must be an integer from 0")
    return value


def _argv(header: dict) -> None:
    argv = header.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(item, str) for item in argv) or not argv[0]:
        raise ValueError("start: argv must be a list of texts that starts with the command")
    if any("\0" in item for item in argv):
        raise ValueError("start: argv must not contain NUL")


_valid_limits: dict = {}  # the last ones that were valid: an agent sends the same few again and again


def _limits(header: dict) -> None:
    global _valid_limits
    limits = header.get("limits")
    if limits and limits == _valid_limits:
        return
    if not isinstance(limits, dict):
        raise ValueError("start: limits must be an object")
    for name in _LIMITS:
        _count(limits, name, "start: limits.")
    cpu = limits.get("cpu", 0)
    if isinstance(cpu, bool) or not isinstance(cpu, (int, float)) or not cpu >= 0:
        raise ValueError("start: limits.cpu must be a number from 0")
    _valid_limits = limits
