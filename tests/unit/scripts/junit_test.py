#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/junit.py: which failures a second attempt excuses. Its path is the first argument."""
import subprocess
import sys
import tempfile
import unittest
from xml.sax.saxutils import escape

JUNIT = sys.argv.pop(1)


def counted(said):
    """What is counted when the first attempt of a test said this and the second one passed: (failed, unstable)."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, status in (("first", "fail"), ("second", "run")):
            with open(f"{scratch}/{name}", "w") as file:
                file.write(
                    f'<testsuite><testcase name="netns.A.B" status="{status}">'
                    f"<system-out>{escape(said)}</system-out></testcase></testsuite>"
                )
        out = subprocess.run(
            [JUNIT, f"{scratch}/first", "--again", f"{scratch}/second"], check=True, capture_output=True, text=True
        ).stdout
    numbers = out.split("\0")[0].split()
    return int(numbers[2]), int(numbers[4])


class SecondAttempt(unittest.TestCase):
    def test_excuses_what_may_be_chance(self):
        for said in (
            "Expected: (cable.count(\"tcp port 15008\")) > (10u), actual: 3 vs 10",
            "Expected: (capture_->sent_by(sender).size()) >= (5u), actual: 4 vs 5",
            "Value of: eventually(kSettle, [&] { return reached(); }, \"in time\")\n  Actual: false",
        ):
            self.assertEqual(counted("a_test.cpp:7: Failure\n" + said), (0, 1), said)

    def test_excuses_no_byte_in_clear(self):
        for said in (
            "Expected equality of these values:\n  cable.plaintext_segments()\n    Which is: 2\n  0u",
            "Expected equality of these values:\n  cable.count(\"tcp and not port 15008\")\n    Which is: 1\n  0u",
            "Expected equality of these values:\n  cable_->count(\"tcp and not port 15008\")\n    Which is: 1\n  0u",
            "Value of: cable.contains(kSecret)\n  Actual: true\nExpected: false",
            "Value of: capture_->sent_by(sender)\nExpected: is empty\n  Actual: { \"03:04 IP 10.0.0.2.9 > ...\" }",
        ):
            self.assertEqual(counted("a_test.cpp:7: Failure\n" + said), (1, 0), said)

    def test_excuses_no_wrong_byte_and_no_crash(self):
        for said in ("wrong byte at 17", "AddressSanitizer: heap-use-after-free", "***Exception: SIGSEGV"):
            self.assertEqual(counted(said), (1, 0), said)


if __name__ == "__main__":
    unittest.main()
