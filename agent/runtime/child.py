"""A worker: a process forked from the zygote. It shuts itself in, parks, and serves one call or, kept, many."""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
from array import array
from time import process_time

import channel
import command_host
import frames
import handler_host
import limits
import namespaces
import network_maker
import script_host
import seccomp

SANDBOX = "sandbox"
WORK_DIR = b"/tmp"

_PROXY = f"http://127.0.0.1:{network_maker.PROXY_PORT}"
_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_PROXY_VARIABLES = {name: _PROXY for upper in _PROXY_NAMES for name in (upper, upper.lower())}
_PROXY_VARIABLES.update({"NO_PROXY": "", "no_proxy": ""})
_TRACE = "TRACEPARENT"


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
    """What the zygote prepares once for all its children; see ``namespaces`` for why so much is prepared.

    To be made when the zygote has imported everything: it also sets the zygote's own standard streams and SIGTERM
    handler, which are those of its children.
    """

    def __init__(self, isolation: str, cgroup_limits: list[str]) -> None:
        self.isolation = isolation
        self.cgroup_limits = cgroup_limits  # what holds for a call as a whole, when its worker joins control groups
        self._memory = namespaces.Memory()
        self._ruleset = namespaces.scope_ruleset(self._memory) if isolation == SANDBOX else None
        self._calls: dict[int, list[namespaces.Call]] = {}
        self._program = seccomp.build() if isolation == SANDBOX else b""
        self.baseline = limits.baseline_bytes()
        self.host = handler_host.Host()
        self.stdout = sys.stdout = sys.__stdout__ = _text_stream(1, "surrogateescape")
        self.stderr = sys.stderr = sys.__stderr__ = _text_stream(2, "backslashreplace")
        namespaces.unbuffer_c_stdout()
        signal.signal(signal.SIGTERM, _stop)

    def calls(self, tmp_bytes: int) -> list[namespaces.Call]:
        """What a child with a /tmp of this size does to shut itself in, after it has taken its descriptors."""
        if tmp_bytes not in self._calls:
            self._calls[tmp_bytes] = self._prepare(tmp_bytes)
        return self._calls[tmp_bytes]

    def _prepare(self, tmp_bytes: int) -> list[namespaces.Call]:
        call, memory = namespaces.call, self._memory
        # Calls without network share an abstract socket namespace with the tenant's others.
        calls = [call("landlock_restrict_self", self._ruleset)] if self._ruleset is not None else []
        calls += [
            call("close_range", channel.FD + 1, 0xFFFFFFFF),
            call("setsid"),  # a signal to "my process group" must not reach the zygote or another call
        ]
        if self.isolation == SANDBOX:
            calls += [
                call("unshare", namespaces.CLONE_NEWNS | namespaces.CLONE_NEWIPC),
                namespaces.mount_tmpfs(memory, b"/tmp", tmp_bytes),
                namespaces.mount_tmpfs(memory, b"/dev/shm", tmp_bytes),
                namespaces.mount_proc(memory),
                namespaces.drop_capabilities(memory),
                namespaces.install_filter(memory, self._program),
            ]
        else:
            calls.append(call("prctl", namespaces.PR_SET_CHILD_SUBREAPER, 1))
        return [*calls, call("chdir", memory.address(WORK_DIR))]


def main(shared: Shared, calls: list[namespaces.Call], with_rehearsal: bool, fds: array, joins: array) -> None:
    """Never returns. The process is PID 1 of a PID namespace that was made for it.

    Of its descriptors it keeps /dev/null, the channel and the two output pipes: ``fds``, in this order. ``joins``: the
    control groups that it joins. A rehearsal
    costs time now and saves more of it when a call comes; it is for workers that nobody waits for.
    """
    try:
        os.dup2(fds[1], 1)
        os.dup2(fds[2], 2)
        os.dup2(fds[0], channel.FD, False)
        try:
            for fd in joins:
                os.write(fd, b"0")
            namespaces.run(calls)
        except OSError as error:
            channel.send({"type": "setup_failed", "message": str(error)})
            os._exit(70)
        if with_rehearsal:
            rehearse(shared)
        _serve(shared, shared.cgroup_limits if joins else [])
    except handler_host.Stopped:
        os._exit(0)  # told to stop while it was between a job's code and its report
    except BaseException:
        sys.excepthook(*sys.exc_info())  # a fault of the runtime itself: the launcher reports the exit code
        os._exit(71)


def _text_stream(fd: int, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(StdStream(fd, "w", closefd=False), "utf-8", errors, write_through=True)


def _stop(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not interrupt the clean-up
    raise handler_host.Stopped


_REHEARSAL = (
    b'{"type":"start","execution":"-","attempt":1,"tenant":"-","kind":"python","handler":"handler","filename":"-",'
    b'"limits":{"memory_bytes":0,"processes":0,"result_bytes":0},"context":{"execution_id":"-","attempt":1}}',
    b"def handler(input, context):\n    return {'a': [1, 'b', None, 2.5]}\n",
    b'{"n":1}',
)


def rehearse(shared: Shared) -> None:
    """Runs a call that does nothing: it makes private, in one go, the pages that a real call will write."""
    header, code, input_bytes = _REHEARSAL
    reply, body = shared.host.run(frames.parse_header(header), code, input_bytes)
    reply["usage"] = _usage_since(process_time())
    frames.encode(reply, body)
    shared.host.forget()


def _serve(shared: Shared, cgroup_limits: list[str]) -> None:
    first, own = True, os.getpid()
    while True:
        header, code, input_bytes = channel.receive()
        used_s = process_time()
        if first:
            wanted = header["limits"]
            memory_bytes, processes = wanted["memory_bytes"], wanted["processes"]
            limits.set_for_call(header["kind"], memory_bytes, processes, shared.baseline, cgroup_limits)
            first = False
        if header.get("network") and shared.isolation == SANDBOX:
            os.environ.update(_PROXY_VARIABLES)
        os.environ.pop(_TRACE, None)  # a kept worker has served calls of other traces
        if header.get("env"):
            os.environ.update(header["env"])
        try:
            if header["kind"] == "command":
                reply, body = command_host.run(header, input_bytes)
            elif header["kind"] == "script":
                reply, body = script_host.run(header, code, input_bytes, "memory" in cgroup_limits)
            else:
                reply, body = shared.host.run(header, code, input_bytes)
        except handler_host.Stopped:
            reply, body = {"type": "stopped"}, b""
        if os.getpid() != own:
            os._exit(0)  # a process that the job forked, and that came back here like its parent
        _flush(shared)
        reply["usage"] = _usage_since(used_s)
        channel.send(reply, body)
        if not header.get("reuse_key") or header["kind"] != "python" or reply["type"] == "stopped":
            os._exit(0)


def _flush(shared: Shared) -> None:
    """Everything the job has printed is in the pipes before the result is sent. The own streams have no buffers."""
    for stream, own in ((sys.stdout, shared.stdout), (sys.stderr, shared.stderr)):
        if stream is not own:
            try:
                stream.flush()
            except Exception:
                pass  # whatever the job has put there


def _usage_since(used_s: float) -> dict:
    """CPU of this call in ms (its processes that have been waited for included); the largest process in bytes."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime - used_s + others.ru_utime + others.ru_stime
    rss_kib = max(own.ru_maxrss, others.ru_maxrss)
    return {"cpu_ms": round(max(0.0, cpu_s) * 1000, 3), "max_rss_bytes": rss_kib * 1024}
