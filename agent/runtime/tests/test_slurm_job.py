"""A job of a cluster whose attempt it may not start, or not any more. What one runs is tested with a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest

import support

EX_CANTCREAT, EX_TEMPFAIL = 73, 75


class NotStarted(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="harrier-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        for name, text in (("job.json", "{}"), ("start", "what would run"), ("records", "")):
            self.write(name, text)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def write(self, name: str, text: str) -> None:
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def run_job(self, number: str = "7") -> tuple[int, str]:
        """How a job ends that has not started the attempt, and what it says."""
        ended = subprocess.run(
            [sys.executable, "-I", "-S", os.path.join(support.RUNTIME_DIR, "slurm_job.py")],
            cwd=self.directory,
            env={"SLURM_JOB_ID": number},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=support.DEADLINE_S,
        )
        self.assertEqual(os.path.getsize(self.path("records")), 0)
        return ended.returncode, ended.stderr

    def test_a_job_ends_that_finds_its_attempt_taken_by_the_agent(self) -> None:
        os.mkdir(self.path("taken"))
        code, said = self.run_job()
        self.assertEqual(code, EX_TEMPFAIL)
        self.assertEqual(said, "harrier: the agent had taken this attempt back before this job started\n")
        self.assertEqual(os.listdir(self.path("taken")), [])
        self.assertFalse(os.path.exists(self.path("again")))

    def test_a_job_ends_that_finds_its_attempt_started_by_another_one(self) -> None:
        self.write("taken", '{"job":"6","node":"n1"}')
        code, said = self.run_job()
        self.assertEqual(code, EX_TEMPFAIL)
        self.assertIn("was started by another job", said)
        self.assertFalse(os.path.exists(self.path("again")))

    def test_a_job_that_is_started_again_ends_and_says_so(self) -> None:
        self.write("taken", '{"job":"7","node":"n1"}')
        self.assertEqual(self.run_job()[0], EX_TEMPFAIL)
        self.assertTrue(os.path.exists(self.path("again")))

    def test_a_job_ends_whose_attempt_is_being_removed(self) -> None:
        # As the agent removes it: what is run goes first, and who has taken it at any time after that.
        os.unlink(self.path("start"))
        code, said = self.run_job()
        self.assertEqual(code, EX_CANTCREAT)
        self.assertIn("No such file or directory: 'start'", said)


if __name__ == "__main__":
    unittest.main()
