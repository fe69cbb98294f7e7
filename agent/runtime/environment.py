"""What a call runs in besides the sandbox: an interpreter, directories, variables, modules imported ahead."""

from __future__ import annotations

import posixpath

_MAX_KEY_CHARS = 256
_MAX_BINDS = 64
_MAX_DEVICES = 256
_MAX_PRELOAD = 64
# The sandbox's own directories: what is mounted there later would hide a bind, or a bind would hide them.
_OWN_TARGETS = ("/proc", "/dev", "/harrier", "/tmp")


class Bind:
    """A directory or file of the host in the sandbox."""

    __slots__ = ("source", "target", "writable")

    def __init__(self, source: str, target: str, writable: bool) -> None:
        self.source, self.target, self.writable = source, target, writable


class Environment:
    """Calls of one tenant with the same ``key`` share a zygote, which is started with the rest of this.

    With ``devices`` there is one call only: its zygote sees the cards too, and must be gone when others get them. With
    ``single`` no worker is kept ready for another call.
    """

    __slots__ = ("attached", "binds", "devices", "key", "preload", "python", "single", "variables")

    def __init__(
        self,
        key: str,
        python: str | None = None,
        binds: tuple[Bind, ...] = (),
        variables: dict[str, str] | None = None,
        preload: tuple[str, ...] = (),
        attached: bool = False,
        devices: tuple[Bind, ...] = (),
        single: bool = False,
    ) -> None:
        self.devices, self.single = devices, single
        self.key, self.python, self.binds, self.preload, self.attached = key, python, binds, preload, attached
        self.variables = variables or {}


_last: tuple[dict | None, Environment | None] = (None, None)  # an agent sends the same few again and again


def parse(fields: object) -> Environment | None:
    """The environment of a `start`; None for the launcher's own interpreter. Raises ValueError naming the field."""
    global _last
    if fields is None:
        return None
    if fields == _last[0]:
        return _last[1]
    if not isinstance(fields, dict):
        raise ValueError("start: environment must be an object")
    environment = Environment(
        _key(fields.get("key")),
        _python(fields.get("python")),
        _binds(fields.get("binds", [])),
        check_variables(fields.get("variables", {}), "start: environment.variables"),
        check_preload(fields.get("preload", []), "start: environment.preload"),
        fields.get("attached") is True,
        _devices(fields.get("devices", [])),
        fields.get("single") is True,
    )
    _last = (fields, environment)
    return environment


def parse_expected(header: dict) -> Environment:
    """The environment that an `expect` announces. Raises ValueError naming the field."""
    key = header.get("key")
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY_CHARS:
        raise ValueError(f"expect: key must be a text of 1 to {_MAX_KEY_CHARS} characters")
    if not _is_absolute(header.get("socket")):
        raise ValueError("expect: socket must be an absolute path")
    return Environment(
        key,
        variables=check_variables(header.get("variables", {}), "expect: variables"),
        preload=check_preload(header.get("preload", []), "expect: preload"),
        attached=True,
    )


def check_variables(variables: object, where: str) -> dict[str, str]:
    """Raises ValueError unless it is an object of variables that a process can have."""
    if not isinstance(variables, dict):
        raise ValueError(f"{where} must be an object of texts")
    for name, value in variables.items():
        if not isinstance(value, str) or not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"{where}: {name!r} is not a valid variable")
    return variables


def check_preload(names: object, where: str) -> tuple[str, ...]:
    """Raises ValueError unless it is a list of module names."""
    if not isinstance(names, list) or len(names) > _MAX_PRELOAD:
        raise ValueError(f"{where} must be a list of at most {_MAX_PRELOAD} module names")
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{where}: {name!r} is not a module's name")
    return tuple(names)


def _key(key: object) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY_CHARS:
        raise ValueError(f"start: environment.key must be a text of 1 to {_MAX_KEY_CHARS} characters")
    return key


def _python(path: object) -> str | None:
    if path is not None and not _is_absolute(path):
        raise ValueError("start: environment.python must be an absolute path")
    return path


def _binds(binds: object) -> tuple[Bind, ...]:
    if not isinstance(binds, list) or len(binds) > _MAX_BINDS:
        raise ValueError(f"start: environment.binds must be a list of at most {_MAX_BINDS}")
    return tuple(_bind(bind) for bind in binds)


def _bind(bind: object) -> Bind:
    if not isinstance(bind, dict) or not _is_absolute(bind.get("source")) or not _is_absolute(bind.get("target")):
        raise ValueError("start: environment.binds: source and target must be absolute paths")
    target = posixpath.normpath(bind["target"])
    if target.strip("/") == "" or any(target == own or target.startswith(own + "/") for own in _OWN_TARGETS):
        raise ValueError(f"start: environment.binds: target {target} is the sandbox's own")
    return Bind(bind["source"], target, bind.get("writable") is True)


def _devices(devices: object) -> tuple[Bind, ...]:
    if not isinstance(devices, list) or len(devices) > _MAX_DEVICES:
        raise ValueError(f"start: environment.devices must be a list of at most {_MAX_DEVICES}")
    return tuple(_device(device) for device in devices)


def _device(device: object) -> Bind:
    if not isinstance(device, dict) or not _is_absolute(device.get("source")) or not _is_absolute(device.get("target")):
        raise ValueError("start: environment.devices: source and target must be absolute paths")
    target = posixpath.normpath(device["target"])
    if not target.startswith("/dev/nvidia"):
        raise ValueError(f"start: environment.devices: target {target} is not a device node of a GPU")
    return Bind(device["source"], target, True)


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and "\0" not in path and ".." not in path.split("/")
