"""The filter's program, run by a small interpreter of classic BPF: every number, on both architectures."""

from __future__ import annotations

import errno
import struct
import unittest

import support  # noqa: F401  (puts the runtime on the path)

# isort: split
import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# From the kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
HARMLESS = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "fork": 57, "execve": 59, "kill": 62, "prctl": 157, "futex": 202,
               "openat": 257, "memfd_create": 319, "pidfd_open": 434, "futex_waitv": 449},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "execve": 221, "kill": 129, "prctl": 167, "futex": 98,
                "openat": 56, "memfd_create": 279, "pidfd_open": 434, "futex_waitv": 449},
}  # fmt: skip
FORBIDDEN = {
    "x86_64": {
        "mount": 165,
        "unshare": 272,
        "setns": 308,
        "ptrace": 101,
        "bpf": 321,
        "keyctl": 250,
        "io_uring_setup": 425,
    },
    "aarch64": {
        "mount": 40,
        "unshare": 97,
        "setns": 268,
        "ptrace": 117,
        "bpf": 280,
        "keyctl": 219,
        "io_uring_setup": 425,
    },
}
SPECIAL = {
    "x86_64": {"clone": 56, "clone3": 435, "ioctl": 16, "fallocate": 285, "socket": 41, "personality": 135},
    "aarch64": {"clone": 220, "clone3": 435, "ioctl": 29, "fallocate": 47, "socket": 198, "personality": 92},
}


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer; raises IndexError when a jump leaves the program."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *(0,) * (6 - len(arguments)))
    at = value = 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x15:
            at += if_true if value == k else if_false
        elif code == 0x35:
            at += if_true if value >= k else if_false
        elif code == 0x45:
            at += if_true if value & k else if_false
        elif code == 0x05:
            at += k
        elif code == 0x06:
            return k
        else:
            raise AssertionError(f"instruction {code:#x}")


class Program(unittest.TestCase):
    def each(self):
        for machine, arch in ARCH.items():
            with self.subTest(machine):
                yield machine, arch, seccomp.build(machine=machine)

    def test_every_number_gets_an_answer(self) -> None:
        for _machine, arch, program in self.each():
            self.assertLess(len(program) // 8, 4096)
            answers = {number: decide(program, arch, number) for number in range(600)}
            self.assertLessEqual(
                set(answers.values()),
                {
                    ALLOW,
                    *(ERRNO | number for number in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)),
                },
            )
            denied = [number for number, answer in answers.items() if answer != ALLOW]
            self.assertGreater(len(denied), 45)
            self.assertLess(len(denied), 90)

    def test_known_calls(self) -> None:
        for machine, arch, program in self.each():
            for name, number in HARMLESS[machine].items():
                self.assertEqual(decide(program, arch, number), ALLOW, name)
            for name, number in FORBIDDEN[machine].items():
                self.assertEqual(decide(program, arch, number), ERRNO | errno.EPERM, name)

    def test_arguments_decide(self) -> None:
        eperm, family = ERRNO | errno.EPERM, ERRNO | errno.EAFNOSUPPORT
        cases = (
            ("clone", (17,), ALLOW), ("clone", (0x3D0F00,), ALLOW), ("clone3", (), ERRNO | errno.ENOSYS),
            *(("clone", (flag | 17,), eperm) for flag in (0x80, 1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30)),
            ("ioctl", (0, 0x5413), ALLOW), ("ioctl", (0, 0x5412), eperm), ("ioctl", (0, 0xF00005412), eperm),
            ("ioctl", (0, 0x541C), eperm), ("socket", (1,), ALLOW), ("socket", (10,), ALLOW), ("socket", (40,), family),
            ("socket", (17,), family), ("personality", (0,), ALLOW), ("personality", (0xFFFFFFFF,), ALLOW),
            ("personality", (0x40000,), eperm),
            *(("fallocate", (3, mode, 0, 1), ERRNO | errno.EOPNOTSUPP) for mode in (0, 0x01, 0x10, 0x11, 0x40)),
            ("fallocate", (3, 0x03, 0, 1), ALLOW), ("ioctl", (3, 0x40305828), eperm), ("ioctl", (3, 0x4030582A), eperm),
        )  # fmt: skip
        for machine, arch, program in self.each():
            for name, arguments, answer in cases:
                self.assertEqual(decide(program, arch, SPECIAL[machine][name], *arguments), answer, (name, arguments))

    def test_a_zygote_may_only_do_what_forking_takes(self) -> None:
        eperm = ERRNO | errno.EPERM
        names = {
            "x86_64": {"mount": 165, "unshare": 272, "setns": 308},
            "aarch64": {"mount": 40, "unshare": 97, "setns": 268},
        }
        cases = (
            ("mount", (), ALLOW), ("unshare", (1 << 29,), ALLOW), ("unshare", (1 << 17 | 1 << 27,), ALLOW),
            ("unshare", (1 << 28,), eperm), ("unshare", (1 << 30,), eperm), ("unshare", (1 << 29 | 1 << 28,), eperm),
            ("setns", (5, 1 << 29), ALLOW), ("setns", (5, 1 << 30), ALLOW), ("setns", (5, 1 << 28), eperm),
            ("setns", (5, 0), eperm),
        )  # fmt: skip
        for machine, arch in ARCH.items():
            program = seccomp.build(seccomp.ZYGOTE, machine)
            for name, arguments, answer in cases:
                self.assertEqual(decide(program, arch, names[machine][name], *arguments), answer, (name, arguments))
            for name in ("ptrace", "bpf", "keyctl", "io_uring_setup"):
                self.assertEqual(decide(program, arch, FORBIDDEN[machine][name]), eperm, name)
            self.assertEqual(decide(program, arch, SPECIAL[machine]["clone"], 1 << 28 | 17), eperm)

    def test_other_architectures_kill(self) -> None:
        for _machine, _arch, program in self.each():
            self.assertEqual(decide(program, 0x40000003, 1), KILL)  # i386
        self.assertEqual(decide(seccomp.build(machine="x86_64"), ARCH["x86_64"], 0x40000001), KILL)  # x32

    def test_an_unknown_architecture_is_an_error(self) -> None:
        with self.assertRaises(OSError):
            seccomp.build(machine="riscv64")


if __name__ == "__main__":
    unittest.main()
