"""A worker: a process forked from the zygote. It shuts itself in, parks, and serves one call or, kept, many."""

from __future__ import annotations

import io
import os
import resource
import signal
import sys

import channel
import command_host
import handler_host
import limits
import namespaces

SANDBOX = "sandbox"
WORK_DIR = "/tmp"


class StdStream(io.FileIO):
    """Unbuffered bytes to a standard stream. Unlike a bare FileIO it never writes only a part."""

    def write(self, data: object) -> int:
        written = super().write(data)
        total = data.nbytes if isinstance(data, memoryview) else len(data)
        if written == total:
            return total
        view = memoryview(data).cast("B")
        while written is not None and written < total:
            written += super().write(view[written:])
        return total


class Shared:
    """What the zygote prepares once for all its children."""

    def __init__(self, isolation: str, seccomp_filter: object | None) -> None:
        self.isolation = isolation
        self.seccomp_filter = seccomp_filter
        self.baseline = limits.baseline_bytes()
        self.host = handler_host.Host()


def main(shared: Shared, channel_fd: int, stdout_fd: int, stderr_fd: int, tmp_bytes: int) -> None:
    """Never returns. The process is PID 1 of a PID namespace that was made for it."""
    try:
        try:
            _take_descriptors(channel_fd, stdout_fd, stderr_fd)
            _shut_in(shared, tmp_bytes)
        except OSError as error:
            channel.send({"type": "setup_failed", "message": str(error)})
            os._exit(70)
        _serve(shared)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # a fault of the runtime itself: the launcher reports the exit code
        os._exit(71)


def _take_descriptors(channel_fd: int, stdout_fd: int, stderr_fd: int) -> None:
    """Keeps /dev/null, the two output pipes and the channel, and nothing else."""
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    os.dup2(channel_fd, channel.FD, inheritable=False)
    namespaces.close_from(channel.FD + 1)
    sys.stdout = _text_stream(1, "surrogateescape")
    sys.stderr = _text_stream(2, "backslashreplace")
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr


def _text_stream(fd: int, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(StdStream(fd, "w", closefd=False), "utf-8", errors, write_through=True)


def _shut_in(shared: Shared, tmp_bytes: int) -> None:
    os.setsid()  # signals to "my process group" must not reach the zygote or another call
    if shared.isolation == SANDBOX:
        namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWIPC)
        namespaces.mount_tmpfs(b"/tmp", tmp_bytes)
        namespaces.mount_tmpfs(b"/dev/shm", tmp_bytes)
        namespaces.mount_proc()
        namespaces.drop_capabilities()
        shared.seccomp_filter.install()
    else:
        namespaces.prctl(namespaces.PR_SET_CHILD_SUBREAPER, 1)
    os.chdir(WORK_DIR)
    limits.set_fixed()
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not interrupt the clean-up
    raise handler_host.Stopped


def _serve(shared: Shared) -> None:
    first = True
    while True:
        header, code, input_bytes = channel.receive()
        used = resource.getrusage(resource.RUSAGE_SELF)
        if first:
            wanted = header["limits"]
            limits.set_for_call(wanted["memory_bytes"], wanted["processes"], shared.baseline)
            first = False
        os.environ.update(header.get("env") or {})
        try:
            if header["kind"] == "command":
                reply, body = command_host.run(header, input_bytes)
            else:
                reply, body = shared.host.run(header, code, input_bytes)
        except handler_host.Stopped:
            reply, body = {"type": "stopped"}, b""
        _flush()
        reply["usage"] = _usage_since(used)
        channel.send(reply, body)
        if not header.get("reuse_key") or header["kind"] == "command" or reply["type"] == "stopped":
            os._exit(0)


def _flush() -> None:
    """Everything the job has printed is in the pipes before the result is sent: Python's buffers and C's."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass  # the job has closed or replaced it
    namespaces.libc.fflush(None)


def _usage_since(before: resource.struct_rusage) -> dict:
    """CPU of this call in ms (its processes that have been waited for included); the largest process in bytes."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime - before.ru_utime - before.ru_stime + others.ru_utime + others.ru_stime
    return {"cpu_ms": round(cpu_s * 1000, 3), "max_rss_bytes": max(own.ru_maxrss, others.ru_maxrss) * 1024}
