"""Solves and installs conda environments with py-rattler, inside the build's sandbox.

Usage: rattler_driver.py solve | install PREFIX
`solve` reads {"channels": [URL...], "dependencies": [...], "cache": DIR} from standard input; the last line of
its standard output is {"packages": [{"url", "digest"}...], "size_bytes": N}. `install` reads {"packages": [...],
"cache": DIR}. Both also read "names": [{"outside", "inside"}...], beginnings of addresses as they may be told, and as
they are here: with passwords, which are in nothing that is installed. What goes wrong is on standard error in the
solver's own words, with exit code 1.
"""

from __future__ import annotations

import asyncio
import glob
import json
import os
import re
import sys

from rattler import (
    BuildString,
    Channel,
    Gateway,
    InstallerReporter,
    MatchSpec,
    PackageRecord,
    RepoDataRecord,
    Subdir,
    VirtualPackage,
    install,
    solve,
)

_ARCHIVE = re.compile(r"^(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+?)(\.conda|\.tar\.bz2)$")


class Progress(InstallerReporter):
    """One line for each package: what a person follows."""

    def on_link_start(self, operation: int, record: object) -> int:
        print(f"linking {record.name.normalized} {record.version}", file=sys.stderr, flush=True)
        return operation


async def solve_environment(request: dict) -> dict:
    channels = [Channel(url) for url in request["channels"]]
    print("solving", *request["dependencies"], file=sys.stderr, flush=True)
    records = await solve(
        channels,
        [MatchSpec(spec) for spec in request["dependencies"]],
        gateway=Gateway(cache_dir=os.path.join(request["cache"], "repodata")),
        platforms=[str(Subdir.current()), "noarch"],
        virtual_packages=VirtualPackage.detect(),
    )
    records.sort(key=lambda record: record.name.normalized)
    packages = []
    for record in records:
        digest = record.sha256.hex() if record.sha256 else record.md5.hex() if record.md5 else ""
        packages.append({"url": record.url, "digest": digest})
    return {"packages": packages, "size_bytes": sum(record.size or 0 for record in records)}


def record_of(url: str, digest: str) -> RepoDataRecord:
    """A package by its address and its MD5 or SHA-256, if one is known."""
    directory, _, file_name = url.rpartition("/")
    channel, _, subdir = directory.rpartition("/")
    match = _ARCHIVE.match(file_name)
    if match is None:
        raise ValueError(f"{file_name!r} is not the name of a conda package")
    number = re.search(r"(\d+)$", match["build"])
    package = PackageRecord(
        match["name"],
        match["version"],
        BuildString(match["build"]),
        int(number[1]) if number else 0,
        subdir,
        noarch="python" if subdir == "noarch" else None,
        md5=bytes.fromhex(digest) if len(digest) == 32 else None,
        sha256=bytes.fromhex(digest) if len(digest) == 64 else None,
    )
    return RepoDataRecord(package, file_name, url, channel)


def told(request: dict, text: str) -> str:
    """A text with the addresses of channels as everybody may read them."""
    for name in request["names"]:
        text = text.replace(name["inside"].rstrip("/"), name["outside"].rstrip("/"))
    return text


def hide_credentials(request: dict, prefix: str) -> None:
    """Each package's record says where it is from, and whoever runs in the environment can read it."""
    for path in glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "*.json")):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if told(request, text) != text:
            os.unlink(path)  # it may have the name of a file in the cache
            with open(path, "w", encoding="utf-8") as file:
                file.write(told(request, text))


async def install_environment(request: dict, prefix: str) -> None:
    records = [record_of(package["url"], package["digest"]) for package in request["packages"]]
    print(f"installing {len(records)} packages", file=sys.stderr, flush=True)
    await install(
        records,
        prefix,
        cache_dir=os.path.join(request["cache"], "pkgs"),
        show_progress=False,
        reporter=Progress(),
        execute_link_scripts=False,
    )
    hide_credentials(request, prefix)


def main() -> int:
    request = json.load(sys.stdin)
    try:
        if sys.argv[1] == "solve":
            print(json.dumps(asyncio.run(solve_environment(request))))
        else:
            asyncio.run(install_environment(request, sys.argv[2]))
    except Exception as error:
        print(f"error: {told(request, str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by the interpreter's own end: threads of the solver that call back into it meanwhile abort the process.
    os._exit(code)
