"""What a job cannot see or do. Every probe runs as a job and reports what it got."""

from __future__ import annotations

import os
import platform
import unittest

import support

ERRNO_OF = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def outcome(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(a) for a in arguments])
    return errno.errorcode.get(ctypes.get_errno(), '0') if result == -1 else 'allowed'
"""


class Sandbox(support.RuntimeTest):
    def probe(self, body: str, **fields: object) -> dict:
        indented = "\n".join("    " + line for line in body.strip("\n").split("\n"))
        ended = self.agent.run(f"{ERRNO_OF}\ndef handler(input):\n{indented}", **fields)
        self.assertEqual(ended.outcome, "succeeded", ended.header)
        return ended.result

    def test_welcome_tells_the_isolation(self) -> None:
        self.assertEqual(self.agent.welcome["isolation"], "sandbox")
        self.assertRegex(self.agent.welcome["python"], r"^3\.\d+\.\d+$")

    def test_it_sees_only_its_own_processes(self) -> None:
        other = self.agent.start("import time\ndef handler(input):\n    print('up')\n    time.sleep(60)")
        self.agent.wait_for_output(other, b"up\n")
        result = self.probe("return {'pids': [p for p in os.listdir('/proc') if p.isdigit()], 'pid': os.getpid()}")
        self.agent.send({"type": "cancel", "execution": other, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(result, {"pids": ["1"], "pid": 1})

    def test_it_sees_no_files_of_the_host(self) -> None:
        result = self.probe(
            "return {'root': sorted(os.listdir('/')), 'etc': sorted(os.listdir('/etc')), 'tmp': os.listdir('/tmp'),"
            " 'harrier': [n for n in os.listdir('/harrier') if not n.endswith('.py')], 'cwd': os.getcwd()}"
        )
        self.assertLessEqual(
            set(result["root"]),
            {"bin", "dev", "etc", "harrier", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr", "var"},
        )
        self.assertLessEqual(
            set(result["etc"]),
            {"alternatives", "group", "hosts", "ld.so.cache", "localtime", "nsswitch.conf", "passwd", "ssl"},
        )
        self.assertEqual((result["tmp"], result["harrier"], result["cwd"]), ([], [], "/tmp"))

    def test_it_has_no_descriptor_but_its_own(self) -> None:
        result = self.probe(
            "return {fd: os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd')[:-1]}"
        )
        kinds = {fd: target.split(":")[0] for fd, target in result.items()}
        self.assertEqual(kinds, {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"})

    def test_it_cannot_write_outside_its_own_directories(self) -> None:
        result = self.probe("""
out = {}
for path in ('/x', '/usr/x', '/etc/x', '/harrier/x', '/dev/x', '/proc/sys/kernel/hostname', '/var/tmp/x', '/tmp/x', '/dev/shm/x'):
    try:
        open(path, 'w').close()
        out[path] = 'written'
    except OSError as e:
        out[path] = errno.errorcode[e.errno]
return out
""")
        written = [path for path, got in result.items() if got == "written"]
        self.assertEqual(written, ["/tmp/x", "/dev/shm/x"])

    def test_it_has_no_capability_and_cannot_get_one(self) -> None:
        result = self.probe("""
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
return {k: status[k] for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Uid')}
""")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(result[name], 16), 0, name)
        self.assertEqual((result["NoNewPrivs"], result["Seccomp"]), ("1", "2"))
        self.assertEqual(result["Uid"].split(), ["1000"] * 4)

    def test_it_runs_as_an_unprivileged_user_of_the_host(self) -> None:
        execution = self.agent.start("import time\ndef handler(input):\n    print('up')\n    time.sleep(60)")
        self.agent.wait_for_output(execution, b"up\n")
        uids = set()
        for pid in descendants(self.launcher.pid):
            uids.update(line for line in proc_text(pid, "status").splitlines() if line.startswith("Uid:"))
        self.agent.send({"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        own = 70621 if os.geteuid() == 0 else os.geteuid()
        self.assertEqual(uids, {f"Uid:\t{own}\t{own}\t{own}\t{own}"})

    def test_it_has_no_network_but_its_own_loopback(self) -> None:
        result = self.probe("""
import socket
out = {'interfaces': [name for _, name in socket.if_nameindex()]}
s = socket.socket()
try:
    s.connect(('192.0.2.1', 80))
except OSError as e:
    out['connect'] = errno.errorcode[e.errno]
return out
""")
        self.assertEqual(result, {"interfaces": ["lo"], "connect": "ENETUNREACH"})

    def test_abstract_sockets_of_other_calls_are_out_of_reach(self) -> None:
        if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
            self.skipTest("Landlock knows abstract unix sockets from Linux 6.12 on")
        other = self.agent.start(
            "import socket, time\ndef handler(input):\n    server = socket.socket(socket.AF_UNIX)\n"
            "    server.bind('\\0mine')\n    server.listen()\n    print('up')\n    time.sleep(60)"
        )
        self.agent.wait_for_output(other, b"up\n")
        result = self.probe("""
import socket
out = {}
own = socket.socket(socket.AF_UNIX)
own.bind('\\0own')
own.listen()
for name in ('mine', 'own'):
    out[name] = socket.socket(socket.AF_UNIX).connect_ex('\\0' + name)
return out
""")
        self.agent.send({"type": "cancel", "execution": other, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(result, {"mine": 1, "own": 0})

    def test_every_mount_forbids_setuid_files(self) -> None:
        result = self.probe(
            "return {'mounts': [line.split()[1] for line in open('/proc/mounts') if 'nosuid' not in line.split()[3]]}"
        )
        self.assertEqual(result, {"mounts": []})

    def test_limits_on_what_a_process_may_hold(self) -> None:
        result = self.probe("""
import resource
return {n: resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in ('CORE', 'NOFILE', 'MEMLOCK', 'RTPRIO', 'NICE')}
""")
        self.assertLessEqual(result.pop("NOFILE")[1], 4096)
        self.assertLessEqual(result.pop("MEMLOCK")[1], 8 << 20)
        self.assertEqual(result, {"CORE": [0, 0], "RTPRIO": [0, 0], "NICE": [0, 0]})

    def test_shared_memory_is_its_own(self) -> None:
        code = "return {'id': libc.shmget(4711, 4096, 0o1600 | 0o2000)}"  # IPC_CREAT | IPC_EXCL: fails if it exists
        for _ in range(2):
            self.assertGreaterEqual(self.probe(code)["id"], 0)

    @unittest.skipUnless(platform.machine() == "x86_64", "the numbers are those of x86_64")
    def test_forbidden_system_calls_are_refused(self) -> None:
        calls = {
            "mount": (165,), "umount2": (166,), "pivot_root": (155,), "chroot": (161,), "unshare": (272, 0x10000000),
            "setns": (308,), "clone newuser": (56, 0x10000000 | 17), "clone newpid": (56, 0x20000000 | 17),
            "ptrace": (101,), "process_vm_readv": (310,), "process_vm_writev": (311,), "bpf": (321,),
            "io_uring_setup": (425,), "io_uring_enter": (426,), "io_uring_register": (427,), "add_key": (248,),
            "request_key": (249,), "keyctl": (250,), "userfaultfd": (323,), "perf_event_open": (298,),
            "kexec_load": (246,), "kexec_file_load": (320,), "init_module": (175,), "finit_module": (313,),
            "delete_module": (176,), "reboot": (169,), "swapon": (167,), "swapoff": (168,),
            "open_by_handle_at": (304,), "name_to_handle_at": (303,), "fanotify_init": (300,), "open_tree": (428,),
            "move_mount": (429,), "fsopen": (430,), "mount_setattr": (442,), "personality": (135, 0x0040000),
            "ioctl TIOCSTI": (16, 0, 0x5412), "ioctl TIOCSTI, high bits": (16, 0, 0x7_0000_5412), "kcmp": (312,),
        }  # fmt: skip
        result = self.probe(f"return {{name: outcome(*call) for name, call in {calls!r}.items()}}")
        self.assertEqual({name: got for name, got in result.items() if got != "EPERM"}, {})

    @unittest.skipUnless(platform.machine() == "x86_64", "the numbers are those of x86_64")
    def test_other_answers_of_the_filter(self) -> None:
        result = self.probe(
            "return {'clone3': outcome(435), 'personality query': outcome(135, 0xffffffff), 'vsock': outcome(41, 40, 1, 0),"
            " 'packet': outcome(41, 17, 3, 0), 'alg': outcome(41, 38, 5, 0), 'unix': outcome(41, 1, 1, 0)}"
        )
        self.assertEqual(
            result,
            {
                "clone3": "ENOSYS",
                "personality query": "allowed",
                "vsock": "EAFNOSUPPORT",
                "packet": "EAFNOSUPPORT",
                "alg": "EAFNOSUPPORT",
                "unix": "allowed",
            },
        )

    @unittest.skipUnless(platform.machine() == "x86_64", "x32 exists on x86_64")
    def test_x32_system_calls_kill(self) -> None:
        ended = self.agent.run(f"{ERRNO_OF}\ndef handler(input):\n    return {{'x': outcome(0x40000000 + 39)}}")
        self.assertFails(ended, "KILLED", "SIGSYS")

    def test_threads_and_subprocesses_work(self) -> None:
        result = self.probe("""
import subprocess, threading
seen = []
thread = threading.Thread(target=lambda: seen.append(1))
thread.start(); thread.join()
return {'thread': seen, 'out': subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout}
""")
        self.assertEqual(result, {"thread": [1], "out": "hi\n"})

    def test_signals_to_its_group_stay_inside(self) -> None:
        other = self.agent.start("import time\ndef handler(input):\n    print('up')\n    time.sleep(60)")
        self.agent.wait_for_output(other, b"up\n")
        self.probe("""
import subprocess
subprocess.run(['sh', '-c', 'kill -9 0'])
subprocess.run(['sh', '-c', 'kill -9 -1'])
return {}
""")
        self.agent.send({"type": "cancel", "execution": other, "attempt": 1, "reason": "cancel", "grace_ms": 0})
        self.assertEqual(self.agent.wait_for(other).outcome, "cancelled")

    def test_zygotes_are_not_shared_between_tenants(self) -> None:
        code = (
            "import os\ndef handler(input):\n    return {k: os.readlink('/proc/self/ns/' + k) for k in ('user', 'net')}"
        )
        one = self.agent.run(code, tenant="one").result
        self.assertEqual(self.agent.run(code, tenant="one").result, one)
        two = self.agent.run(code, tenant="two").result
        self.assertNotEqual(one["user"], two["user"])
        self.assertNotEqual(one["net"], two["net"])

    def test_nothing_is_left_of_a_call(self) -> None:
        code = (
            "import os, subprocess, signal\n"
            "def handler(input):\n"
            "    subprocess.Popen(['sh', '-c', 'trap \"\" TERM HUP; setsid sleep 1000 & sleep 1000'])\n"
            "    if os.fork() == 0:\n"
            "        os.setsid()\n"
            "        if os.fork() == 0:\n"
            "            for n in range(1, 65):\n"
            "                try: signal.signal(n, signal.SIG_IGN)\n"
            "                except (OSError, ValueError): pass\n"
            "            print('daemon', flush=True)\n"
            "            signal.pause()\n"
            "        os._exit(0)\n"
            "    return {}"
        )
        before = set(descendants(self.launcher.pid))
        ended = self.agent.run(code)
        self.assertEqual(ended.outcome, "succeeded")
        for pid in set(descendants(self.launcher.pid)) - before:
            try:
                watch = os.pidfd_open(pid)
                with open(f"/proc/{pid}/cmdline") as file:
                    left = "sleep" in file.read()
            except OSError:
                continue
            if left:
                support.wait_until_ended(watch)
            else:
                os.close(watch)


def proc_text(pid: int, name: str) -> str:
    """A file of a process below /proc; empty when it has ended, as children do that were forked ahead."""
    try:
        with open(f"/proc/{pid}/{name}") as file:
            return file.read()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                found += map(int, file.read().split())
        except OSError:
            pass
    return found[1:]


if __name__ == "__main__":
    unittest.main()
