"""The command line that starts a zygote: in its sandbox by bubblewrap, or bare when the operator allowed that.

The runtime's own files reach the sandbox as open descriptors (`--file`), so that the directory they lie in need not be
readable by the sandbox's user. Few mounts on purpose: every worker copies the mount table.
"""

from __future__ import annotations

import os

import seccomp
from environment import Environment
from interpreter import Interpreter

RUNTIME_FILES = (
    "channel.py",
    "child.py",
    "command_host.py",
    "fast_json.py",
    "frames.py",
    "handler_host.py",
    "limits.py",
    "namespaces.py",
    "network_maker.py",
    "own_signals.py",
    "program.py",
    "result_json.py",
    "sandbox_entry.py",
    "script_host.py",
    "seccomp.py",
    "tracebacks.py",
    "zygote.py",
)
PROXY_FILES = ("egress_dial.py", "egress_handshake.py", "egress_http.py", "egress_proxy.py", "network_policy.py")
RUNTIME_MOUNT = "/harrier"

# Outside the ranges that distributions, systemd and subuid tables hand out (systemd.io/UIDS-GIDS).
DEFAULT_UID = 70621
# What jobs see as their own user.
JOB_UID = 1000

# What every sandbox has, with no capability unless it is added.
_APART = (
    *("--unshare-user", "--uid", str(JOB_UID), "--gid", str(JOB_UID)),
    *("--unshare-pid", "--as-pid-1", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--hostname", "sandbox"),
    *("--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"),
)
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "USER": "job",
}
_ETC = {
    "passwd": f"root:x:0:0::/:/bin/sh\njob:x:{JOB_UID}:{JOB_UID}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": f"root:x:0:\njob:x:{JOB_UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
# Copied, not mounted: small, and needed by nearly every program.
_ETC_COPIED = ("ld.so.cache", "localtime")
# Not all of /etc/ssl: its `private` may be readable for the launcher's user.
_ETC_BOUND = ("ssl/certs", "ssl/openssl.cnf", "alternatives")
_DEVICES = ("null", "zero", "full", "random", "urandom")
# CAP_NET_ADMIN is for the process that makes network namespaces; a zygote that loads packages gives it up before.
_ZYGOTE_CAPS = ("CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_NET_ADMIN")


def find_bwrap() -> str | None:
    """The bubblewrap executable on PATH, or None."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, "bwrap")
        if os.access(path, os.X_OK):
            return path
    return None


def load_files(runtime_dir: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """What zygotes or the proxy run, read once: an upgrade on disk must not mix with a launcher that runs on."""
    return {name: _read(os.path.join(runtime_dir, name)) for name in names}


def bare_command(
    python: Interpreter, runtime_dir: str, environment: Environment | None
) -> tuple[list[str], dict[str, str]]:
    """(argv, variables) of a zygote without a sandbox, where nothing can be mounted."""
    executable = environment.python if environment and environment.python else python.executable
    argv = [*_python(executable), os.path.join(runtime_dir, "zygote.py"), "none"]
    return argv, {**_ENVIRONMENT, **(environment.variables if environment else {})}


def sandbox_command(
    bwrap: str, python: Interpreter, runtime: dict[str, bytes], environment: Environment | None, sources: list[str]
) -> tuple[list[str], dict[str, str], list[int]]:
    """(argv, variables, descriptors to inherit and then close) of a zygote in its sandbox.

    ``sources``: where the sources of the environment's binds are found.
    """
    files: list[int] = []
    argv = [bwrap, *_APART, "--unshare-net"]
    for capability in _ZYGOTE_CAPS:
        argv += ["--cap-add", capability]
    variables = {**_ENVIRONMENT, **(environment.variables if environment else {})}
    argv += _variables(files, variables)
    argv += _system(python)
    for name, text in runtime.items():
        argv += _file(files, text, f"{RUNTIME_MOUNT}/{name}")
    argv += [*_etc(files), *_devices(), "--dir", "/tmp", "--dir", "/var/tmp", "--dir", "/dev/shm"]
    for bind, source in zip(environment.binds if environment else (), sources):
        argv += ["--bind" if bind.writable else "--ro-bind", source, bind.target]
    for device in environment.devices if environment else ():
        argv += ["--dev-bind", device.source, device.target]
    argv += ["--remount-ro", "/", "--chdir", "/"]
    own, zygote = python.executable, f"{RUNTIME_MOUNT}/zygote.py"
    if enters(environment):
        argv += [*_python(own), f"{RUNTIME_MOUNT}/sandbox_entry.py", *_python(environment.python), zygote, "entered"]
    else:
        argv += [*_python(own), zygote, "sandbox"]
    return argv, {}, files


def enters(environment: Environment | None) -> bool:
    """Its interpreter is one that a build has made: the host's comes before it, and needs the maker's socket first."""
    return environment is not None and environment.python is not None


def _python(executable: str) -> list[str]:
    return [executable, "-I", "-S", "-B", "-X", "utf8"]


def proxy_command(
    bwrap: str, python: Interpreter, proxy: dict[str, bytes]
) -> tuple[list[str], dict[str, str], list[int]]:
    """(argv, variables, descriptors to inherit and then close) of the egress proxy: the host's network, little else."""
    files: list[int] = []
    argv = [bwrap, *_APART, *_variables(files, _ENVIRONMENT), *_system(python)]
    for name, text in proxy.items():
        argv += _file(files, text, f"{RUNTIME_MOUNT}/{name}")
    argv += ["--ro-bind", "/etc", "/etc"]
    resolver = os.path.dirname(os.path.realpath("/etc/resolv.conf"))  # systemd-resolved keeps it below /run
    if not _is_below(resolver, "/etc") and os.path.isdir(resolver):
        argv += ["--ro-bind", resolver, resolver]
    argv += [*_devices(), "--seccomp", str(_memory_file(files, seccomp.build())), "--remount-ro", "/", "--chdir", "/"]
    argv += [*_python(python.executable), f"{RUNTIME_MOUNT}/egress_proxy.py"]
    return argv, {}, files


def _devices() -> list[str]:
    argv = ["--proc", "/proc"]
    for name in _DEVICES:
        argv += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        argv += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    return argv


def _variables(files: list[int], variables: dict[str, str]) -> list[str]:
    """Handed over as a descriptor: other users of the host can read a command line."""
    words = [word for name, value in variables.items() for word in ("--setenv", name, value)]
    return ["--args", str(_memory_file(files, b"".join(word.encode() + b"\0" for word in words)))]


def _system(python: Interpreter) -> list[str]:
    """/usr read-only, the links to it as the host has them, and the interpreter where it is elsewhere."""
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = f"/{name}"
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            argv += ["--ro-bind", path, path]
    for prefix in dict.fromkeys([*python.prefixes, os.path.dirname(python.executable)]):
        if not _is_below(prefix, "/usr") and not any(_is_below(prefix, done) for done in argv[1::3]):
            argv += ["--ro-bind", prefix, prefix]
    return argv


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _etc(files: list[int]) -> list[str]:
    argv = []
    for name, text in _ETC.items():
        argv += _file(files, text.encode(), f"/etc/{name}")
    for name in _ETC_COPIED:
        if os.path.exists(f"/etc/{name}"):
            argv += _file(files, _read(f"/etc/{name}"), f"/etc/{name}")
    for name in _ETC_BOUND:
        if os.path.exists(f"/etc/{name}"):
            argv += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    return argv


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _file(files: list[int], data: bytes, target: str) -> list[str]:
    """A read-only file of the sandbox with this content, handed over as a descriptor."""
    return ["--perms", "0444", "--file", str(_memory_file(files, data)), target]


def _memory_file(files: list[int], data: bytes) -> int:
    fd = os.memfd_create("harrier", os.MFD_CLOEXEC)
    files.append(fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
