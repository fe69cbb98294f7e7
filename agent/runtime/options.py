"""The launcher's command line: the only place that reads it."""

from __future__ import annotations

import argparse
import os

from sandbox import DEFAULT_UID

VERSION = "0.1.0"
_MIB = 1 << 20
# The largest packages take a tenth of it while they are imported.
_MAX_ZYGOTE_MEMORY_BYTES = 8192 * _MIB


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a message on options that are not valid."""
    parser = argparse.ArgumentParser("launcher.py", description="Owns the running processes of a Harrier agent.")
    add = parser.add_argument
    add("--socket", required=True, help="unix socket that the agent connects to")
    add("--spool", required=True, help="directory of output and results not yet acknowledged; made if missing")
    add("--log", help="file that the log is appended to (default: stderr)")
    add("--build", default="", help="what it is started from, for `welcome`")
    add("--foreground", action="store_true", help="do not detach")
    add("--allow-unsandboxed", action="store_true", help="run jobs without a sandbox when none can be started")
    add("--python", help="interpreter of the jobs (default: the launcher's own if the sandbox's user can reach it)")
    add("--sandbox-uid", type=_positive, default=DEFAULT_UID, help="user of the sandboxes when this is root")
    add("--sandbox-gid", type=_positive, help="its group (default: the same number)")
    add("--max-zygotes", type=_positive, default=16, help="sandboxes kept warm, one for each tenant")
    add("--fork-ahead", type=_positive, default=4, help="processes kept ready in each sandbox")
    add("--reuse-workers", type=_positive, default=8, help="processes kept for one reuse key at most")
    add("--kept-workers", type=_positive, default=64, help="processes kept for all reuse keys of a sandbox at most")
    add("--tmp-bytes", type=_positive, default=256 * _MIB, help="size of /tmp where a start gives none")
    add("--zygote-memory-bytes", type=_positive, help="what packages may use before a call")
    add("--spool-bytes", type=_positive, default=2048 * _MIB, help="size of the spool at most")
    add("--zygote-idle-s", type=_positive, default=900, help="seconds without a call after which a sandbox ends")
    add("--idle-exit-s", type=_not_negative, default=600, help="seconds without agent and work to exit after; 0: never")
    options = parser.parse_args(arguments)
    if options.zygote_memory_bytes is None:
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        options.zygote_memory_bytes = min(_MAX_ZYGOTE_MEMORY_BYTES, host // 2)
    if options.sandbox_gid is None:
        options.sandbox_gid = options.sandbox_uid
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value
