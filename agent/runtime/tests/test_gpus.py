"""Calls with GPUs: they see the device nodes of their own cards and no others, in a sandbox that ends with them."""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest

import support

SEEN = """
import os, stat
def handler(input):
    names = sorted(name for name in os.listdir('/dev') if name.startswith('nvidia'))
    with open('/dev/nvidia3', 'wb') as device:
        device.write(b'x')
    made = None
    try:
        os.mknod('/tmp/nvidia0', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError as error:
        made = error.errno
    return {'names': names, 'visible': os.environ.get('CUDA_VISIBLE_DEVICES'), 'mknod': made}
"""
LIST = "import os\ndef handler(input): return {'names': [n for n in os.listdir('/dev') if n.startswith('nvidia')]}"


class Gpus(unittest.TestCase):
    def setUp(self) -> None:
        self.nodes = tempfile.mkdtemp(prefix="harrier-")
        self.addCleanup(shutil.rmtree, self.nodes)
        # Any device that may be written to stands in for a card.
        for name in ("nvidia3", "nvidiactl", "nvidia0"):
            os.symlink("/dev/null", os.path.join(self.nodes, name))
        os.chmod(self.nodes, 0o755)

    def environment(self, key: str, *names: str) -> dict:
        devices = [{"source": os.path.join(self.nodes, name), "target": f"/dev/{name}"} for name in names]
        return {"key": key, "devices": devices}

    def test_a_call_sees_its_own_cards_only_and_cannot_make_others(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            environment = self.environment("gpu-1", "nvidia3", "nvidiactl")
            env = {"CUDA_VISIBLE_DEVICES": "GPU-a"}
            ended = agent.run(SEEN, environment=environment, gpus=["GPU-a"], env=env)
            self.assertEqual(ended.outcome, "succeeded", ended.header)
            self.assertEqual(ended.result["names"], ["nvidia3", "nvidiactl"])
            self.assertEqual(ended.result["visible"], "GPU-a")
            self.assertIsNotNone(ended.result["mknod"])
            other = agent.run(LIST)
            self.assertEqual(other.result, {"names": []}, "a call without a card sees none")

    def test_its_sandbox_ends_with_it(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            for _ in range(2):
                ended = agent.run(LIST, environment=self.environment("gpu-1", "nvidia3"), gpus=["GPU-a"])
                self.assertEqual(ended.result, {"names": ["nvidia3"]})
            while True:
                header, _ = agent.receive()
                if header["type"] == "load" and header["active"] == 0:
                    break
            # The spare one, if any, belongs to nobody: none was started for the tenant beside those that have ended.
            self.assertLessEqual(header["zygotes"], 1)
            self.assertEqual(header["workers"], 0)

    def test_a_restarted_agent_is_told_who_has_which_card(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            self.assertIn("gpus", agent.welcome["features"])
            waits = "import signal\ndef handler(input): signal.pause()"
            running = agent.start(waits, environment=self.environment("gpu-1", "nvidia3"), gpus=["GPU-a", "GPU-b"])
            agent.wait_for(running, "started")
            again = launcher.connect()
            told = {attempt["execution"]: attempt for attempt in again.welcome["attempts"]}
            self.assertEqual(told[running]["gpus"], ["GPU-a", "GPU-b"])
            again.auto_ack = False
            again.send({"type": "cancel", "execution": running, "attempt": 1, "reason": "cancel", "grace_ms": 0})
            again.wait_for(running)
            last = launcher.connect()
            told = {attempt["execution"]: attempt for attempt in last.welcome["attempts"]}
            self.assertEqual((told[running]["state"], told[running]["gpus"]), ("finished", ["GPU-a", "GPU-b"]))

    def test_devices_that_are_none_of_a_gpu_are_refused(self) -> None:
        with support.Launcher() as launcher:
            agent = launcher.connect()
            for devices, why in (
                ([{"source": "/dev/sda", "target": "/dev/sda"}], "is not a device node of a GPU"),
                ([{"source": "dev/nvidia0", "target": "/dev/nvidia0"}], "must be absolute paths"),
                ([{"source": "/dev/sda", "target": "/dev/nvidia/../sda"}], "must be absolute paths"),
                ("all", "must be a list"),
            ):
                ended = agent.run(LIST, environment={"key": "k", "devices": devices})
                self.assertEqual(ended.code, "INTERNAL")
                self.assertIn(why, ended.message)
            ended = agent.run(LIST, gpus="all")
            self.assertIn("gpus must be a list", ended.message)


if __name__ == "__main__":
    unittest.main()
