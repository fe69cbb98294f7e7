"""Finds what this host lets the launcher limit: the control groups that it may make slots in."""

from __future__ import annotations

import os
import time

from cgroup_slot import CONTROLLERS, read_file, remove_group, write_file
from cgroups import Cgroups, make_parent

# Processes that were killed are gone by then, but for those that hang in the kernel.
_EMPTY_S = 1.0
_PREFIX = "harrier-"
_MAIN = "harrier-main"


def find(log: object) -> Cgroups:
    """What this host lets the launcher limit, maybe nothing; groups that dead launchers left are removed."""
    reasons: list[str] = []
    with open("/proc/self/cgroup") as file:
        own = [line.rstrip("\n").split(":", 2) for line in file]
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" ") for line in file]
    parents = _find_unified(own, mounts, reasons) or _find_v1(own, mounts, reasons)
    for path in dict.fromkeys(parents.values()):
        _remove_leftovers(os.path.dirname(path))
    made: dict[str, str] = {}
    for controller, path in parents.items():
        try:
            make_parent(path, parents)
            made[controller] = path
        except OSError as error:
            reasons.append(f"{controller}: {error}")
    if reasons:
        log.info("some limits hold for each process alone", reasons=reasons)
    return Cgroups(made, log)


def _find_unified(own: list, mounts: list, reasons: list[str]) -> dict[str, str]:
    """Version 2, where the host has the controllers in it."""
    directory = next((_directory(mounts, "cgroup2", None, path) for _, names, path in own if names == ""), None)
    if directory is None:
        return {}
    try:
        there = read_file(os.path.join(directory, "cgroup.controllers")).split()
        wanted = {name: controller for name, controller in CONTROLLERS.items() if controller in there}
        if not wanted:
            return {}
        parent = delegated(directory)
        make_room(parent)
        write_file(os.path.join(parent, "cgroup.subtree_control"), " ".join(f"+{name}" for name in wanted.values()))
    except OSError as error:
        reasons.append(f"cgroup v2: {error}")
        return {}
    return {name: os.path.join(parent, _own_name()) for name in wanted}


def why_out_of_reach(cgroups: Cgroups, pid: int) -> str | None:
    """Why a process that this launcher has not started cannot join its groups; None when it can.

    The kernel asks for the system's own root (version 1: or for the process's own user, who is another one in a
    container), and in version 2 for the group that both have in common, which must be in sight.
    """
    if not cgroups.parents:
        return "there are no control groups to join"
    if os.geteuid() != 0 or not _is_system_root():
        return "the agent is not root of the system"
    directory = os.path.dirname(next(iter(cgroups.parents.values())))
    if not os.path.exists(os.path.join(directory, "cgroup.controllers")):
        return None
    try:
        path = _unified_path(pid)
    except OSError as error:
        return f"its groups are not to be seen: {error}"
    if path.split("/")[1] == "..":
        return "its groups are outside of the agent's own"
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" ") for line in file]
    common = _directory(mounts, "cgroup2", None, os.path.commonpath([path, _unified_path(os.getpid())]))
    if common is None or not os.access(os.path.join(common, "cgroup.procs"), os.W_OK):
        return f"{common or path} is not writable"
    return None


def _unified_path(pid: int) -> str:
    """Raises OSError."""
    lines = read_file(f"/proc/{pid}/cgroup").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "/")


def _is_system_root() -> bool:
    """Not that of a user namespace."""
    return read_file("/proc/self/uid_map").split()[:2] == ["0", "0"]


def delegated(directory: str) -> str:
    """The group that was delegated to this service: the own one, or the one above when the service manager has put the
    service's processes into a group of their own (systemd's DelegateSubgroup=)."""
    return next((path for path in (directory, os.path.dirname(directory)) if _is_delegated(path)), directory)


def make_room(parent: str) -> None:
    """Moves this process, and where the group is delegated all of the service's, into a group below: in version 2, a
    group that limits others has no processes of its own. Raises OSError."""
    processes = read_file(os.path.join(parent, "cgroup.procs")).split()
    if not processes:
        return
    main = os.path.join(parent, _MAIN)
    os.makedirs(main, exist_ok=True)
    for process in processes if _is_delegated(parent) else [str(os.getpid())]:
        try:
            write_file(os.path.join(main, "cgroup.procs"), process)
        except ProcessLookupError:
            pass


def _find_v1(own: list, mounts: list, reasons: list[str]) -> dict[str, str]:
    found = {}
    for name, controller in CONTROLLERS.items():
        path = next((path for _, names, path in own if controller in names.split(",")), None)
        directory = path and _directory(mounts, "cgroup", controller, path)
        if not directory:
            reasons.append(f"{name}: this host has no {controller} controller")
        elif not os.access(directory, os.W_OK):
            reasons.append(f"{name}: {directory} is not writable")
        else:
            found[name] = os.path.join(directory, _own_name())
    return found


def _directory(mounts: list, kind: str, controller: str | None, path: str) -> str | None:
    """Where the group of that path is mounted; None when it is not visible here."""
    for fields in mounts:
        rest = fields[fields.index("-") + 1 :]
        if rest[0] != kind or (controller and controller not in rest[2].strip().split(",")):
            continue
        root, mount_point = fields[3], fields[4]
        if root == "/":
            inside = path
        elif path == root or path.startswith(root + "/"):
            inside = path[len(root) :]
        else:
            inside = "/"  # a container without a cgroup namespace: its mount shows its own group as the root
        directory = os.path.normpath(mount_point + inside)
        if os.path.isdir(directory):
            return directory
    return None


def _own_name() -> str:
    return f"{_PREFIX}{os.getpid()}-{_start_time(os.getpid())}-{_pid_namespace()}"


def _pid_namespace() -> str:
    """Launchers in containers may share the hierarchy with those of the host, but not the numbers of processes."""
    return str(os.stat("/proc/self/ns/pid").st_ino)


def _start_time(pid: int) -> str:
    """In ticks since boot: a number that a later process with the same pid does not have. Raises OSError."""
    fields = read_file(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)  # dead, and not waited for
    return fields[19]


def _remove_leftovers(directory: str) -> None:
    until = time.monotonic() + _EMPTY_S
    for name in os.listdir(directory):
        parts = name[len(_PREFIX) :].split("-")
        if not name.startswith(_PREFIX) or len(parts) != 3 or not parts[0].isdigit():
            continue
        if parts[2] != _pid_namespace():
            continue
        try:
            if _start_time(int(parts[0])) == parts[1]:
                continue
        except OSError:
            pass  # no such process
        path = os.path.join(directory, name)
        try:
            slots = [os.path.join(path, slot) for slot in os.listdir(path)]
        except FileNotFoundError:
            continue  # another launcher has removed it
        for group in [*filter(os.path.isdir, slots), path]:
            while not remove_group(group) and time.monotonic() < until:
                time.sleep(0.005)


def _is_delegated(path: str) -> bool:
    """systemd marks what it has handed over (systemd.io/CGROUP_DELEGATION)."""
    for attribute in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(path, attribute) == b"1":
                return True
        except OSError:
            pass  # not set, or not for this user to see
    return False
