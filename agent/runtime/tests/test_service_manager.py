"""What a launcher that systemd has started tells it."""

import os
import socket
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import service_manager


class ServiceManagerTest(unittest.TestCase):
    def test_is_told_when_the_launcher_is_ready(self):
        with tempfile.TemporaryDirectory() as directory:
            for address in (os.path.join(directory, "notify"), f"@harrier-test-{os.getpid()}"):
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                    manager.bind("\0" + address[1:] if address.startswith("@") else address)
                    manager.settimeout(10)
                    service_manager.tell_ready(address)
                    self.assertEqual(manager.recv(4096), b"READY=1\nSTATUS=Ready for the agent")

    def test_its_socket_is_not_inherited(self):
        with mock.patch.dict(os.environ, {"NOTIFY_SOCKET": "/run/systemd/notify"}):
            self.assertEqual(service_manager.take_socket(), "/run/systemd/notify")
            self.assertNotIn("NOTIFY_SOCKET", os.environ)
            self.assertIsNone(service_manager.take_socket())

    def test_nothing_happens_without_one(self):
        service_manager.tell_ready(None)


if __name__ == "__main__":
    unittest.main()
