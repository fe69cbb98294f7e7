"""Commands in the sandbox."""

from __future__ import annotations

import support


class Command(support.RuntimeTest):
    def run_command(self, *argv: str, **fields: object) -> support.Ended:
        return self.agent.wait_for(self.agent.command(*argv, **fields))

    def test_input_goes_to_stdin_and_output_comes_back(self) -> None:
        data = bytes(range(256)) * 5000
        ended = self.run_command("cat", stdin=data)
        self.assertEqual((ended.outcome, ended.header["exit_code"], ended.body), ("succeeded", 0, b""))
        self.assertEqual(ended.stdout, data)

    def test_arguments_and_variables_arrive(self) -> None:
        ended = self.run_command("sh", "-c", 'echo "$1|$GREETING|$PWD"', "sh", "a b *", env={"GREETING": "hi"})
        self.assertEqual(ended.stdout, b"a b *|hi|/tmp\n")

    def test_its_streams_can_be_opened_by_name(self) -> None:
        ended = self.run_command(
            "sh", "-c", "echo one > /dev/stdout; echo two > /dev/stderr; echo in | tee /dev/stderr"
        )
        self.assertEqual((ended.outcome, ended.stdout, ended.stderr), ("succeeded", b"one\nin\n", b"two\nin\n"))

    def test_an_exit_code_is_told(self) -> None:
        ended = self.run_command("sh", "-c", "echo out; echo err >&2; exit 3")
        self.assertFails(ended, "EXIT_NONZERO", "Exited with code 3")
        self.assertEqual((ended.header["exit_code"], ended.stdout, ended.stderr), (3, b"out\n", b"err\n"))

    def test_a_signal_is_told(self) -> None:
        for number, name in ((9, "SIGKILL"), (6, "SIGABRT"), (15, "SIGTERM")):
            ended = self.run_command("sh", "-c", f"kill -{number} $$")
            self.assertFails(ended, "KILLED", name)
            self.assertEqual((ended.header["signal"], ended.header["exit_code"]), (number, None))

    def test_a_command_that_is_not_there_or_cannot_be_run(self) -> None:
        ended = self.run_command("no-such-command")
        self.assertFails(ended, "EXIT_NONZERO", "'no-such-command': not found")
        self.assertEqual(ended.header["exit_code"], 127)
        ended = self.run_command("/etc/passwd")
        self.assertFails(ended, "EXIT_NONZERO", "'/etc/passwd': Permission denied")
        self.assertEqual(ended.header["exit_code"], 126)

    def test_it_is_in_the_same_sandbox(self) -> None:
        ended = self.run_command("sh", "-c", "ls /proc | grep -c '^[0-9]'; id -u; ls /tmp; cat /sys/kernel 2>&1")
        count, uid, *rest = ended.stdout.decode().splitlines()
        self.assertLessEqual(int(count), 5)
        self.assertEqual((uid, rest), ("1000", ["cat: /sys/kernel: No such file or directory"]))
        self.assertFails(self.run_command("unshare", "-Ur", "true"), "EXIT_NONZERO")

    def test_what_it_started_in_the_background_ends_with_it(self) -> None:
        ended = self.run_command("sh", "-c", "setsid sleep 1000 & echo started")
        self.assertEqual((ended.outcome, ended.stdout), ("succeeded", b"started\n"))

    def test_cancel_reaches_it(self) -> None:
        execution = self.agent.command(
            "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
        )
        self.agent.wait_for_output(execution, b"up\n")
        self.agent.send(
            {"type": "cancel", "execution": execution, "attempt": 1, "reason": "cancel", "grace_ms": 60_000}
        )
        ended = self.agent.wait_for(execution)
        self.assertEqual((ended.outcome, ended.stdout), ("cancelled", b"up\nbye\n"))

    def test_timeout_kills_it(self) -> None:
        ended = self.run_command("sh", "-c", "trap '' TERM; while :; do :; done", timeout_ms=100, grace_ms=50)
        self.assertEqual((ended.outcome, ended.code), ("timed_out", "TIMEOUT"))

    def test_usage_counts_the_command(self) -> None:
        ended = self.run_command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
        self.assertGreater(ended.header["usage"]["cpu_ms"], 5)


if __name__ == "__main__":
    support.unittest.main()
