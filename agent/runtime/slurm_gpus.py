"""The GPUs that Slurm has given a job: the device nodes of these and of no others go into the sandbox of its code."""

from __future__ import annotations

import os
import re
import stat
import subprocess

import preflight

# What every program that uses a card opens; the last one is for profilers only.
_COMMON = ("nvidiactl", "nvidia-uvm")
_OPTIONAL = "nvidia-uvm-tools"
_CARD = re.compile(r"nvidia\d+")
_LIBRARY = re.compile(r"^\s*libcuda\.so\.1 .*=> (/.+)$", re.MULTILINE)
# The sandbox has these anyway.
_SYSTEM = re.compile(r"/(usr|lib|lib64)(/|$)")
_TIMEOUT_S = 5.0


def give(header: dict, dev_root: str) -> None:
    """Adds the job's cards to the `start` of its attempt; nothing where it has none.

    ``dev_root``: where the node has its device nodes. Raises preflight.Unusable when the cards cannot be used.
    """
    told = os.environ.get("SLURM_JOB_GPUS", "")
    if not told:
        return
    cards = _cards(told, dev_root)
    for name in (*_COMMON, *cards):
        _check(os.path.join(dev_root, name), told)
    names = [*_COMMON, *cards]
    if os.path.exists(os.path.join(dev_root, _OPTIONAL)):
        names.append(_OPTIONAL)
    libraries = _libraries()
    prepared = header.get("environment") or {}
    paths = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    header["environment"] = {
        **prepared,
        # Nobody else's call may see the cards.
        "key": f"gpu-{header['execution']}-{header['attempt']}",
        "binds": [
            *prepared.get("binds", []),
            *([{"source": libraries, "target": libraries, "writable": False}] if libraries else []),
        ],
        "variables": {**paths, **prepared.get("variables", {})},
        "devices": [{"source": os.path.join(dev_root, name), "target": f"/dev/{name}"} for name in names],
    }
    # CUDA counts the cards whose nodes it can open; Slurm may have counted all of the node.
    header["env"] = {**header.get("env", {}), "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(cards))))}


def _cards(told: str, dev_root: str) -> list[str]:
    """The names of the job's device nodes. Slurm counts the cards of its configuration, which are all of the node."""
    try:
        names = sorted(filter(_CARD.fullmatch, os.listdir(dev_root)), key=lambda name: int(name[len("nvidia") :]))
    except OSError as error:
        raise preflight.Unusable(f"the device nodes of GPUs cannot be listed: {error}") from None
    places = told.split(",")
    if all(place.isdigit() and int(place) < len(names) for place in places):
        return [names[int(place)] for place in places]
    raise preflight.Unusable(
        f"Slurm has given the job GPU {told} of its node, which has the device nodes [{', '.join(names)}] in "
        f"{dev_root}; whole cards of NVIDIA are supported, and gres.conf must name all of a node in the order of their "
        "device nodes"
    )


def _check(path: str, told: str) -> None:
    """Slurm may let the job open its own cards only: then this tells another one. Raises preflight.Unusable."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise preflight.Unusable(
            f"Slurm has given the job GPU {told}, but {path} cannot be opened: {error.strerror}; a device node that is "
            "missing is made by nvidia-modprobe (nvidia-modprobe -c 0 -u)"
        ) from None
    is_device = stat.S_ISCHR(os.fstat(fd).st_mode)
    os.close(fd)
    if not is_device:
        raise preflight.Unusable(f"{path} is not a device node of a GPU")


def _libraries() -> str:
    """Directory of the driver's libraries, where the sandbox does not have it anyway; else empty."""
    try:
        listed = subprocess.run(
            ["ldconfig", "-p"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = _LIBRARY.search(listed)
    directory = os.path.dirname(found[1]) if found else "/usr"
    return "" if _SYSTEM.match(directory) else directory
