# SPDX-License-Identifier: Apache-2.0
"""infer in a pseudo-terminal: what is shown, and what Ctrl-C does."""
import os
import pty
import select
import subprocess
import unittest

from support import INTERRUPTED, MODEL, OK, PATIENCE, TEMPLATE, program

CTRL_C, CTRL_D = b"\x03", b"\x04"
# Text without an end: the answer is still under way when Ctrl-C arrives.
ENDLESS = ("-m", MODEL, "--ignore-eos", "-c", "60000", "-s", "1", "--temp", "1")
CHAT = ("--chat", "--chat-template-file", TEMPLATE)


class Terminal:
    """A program with a pseudo-terminal as its controlling terminal."""

    def __init__(self, *args):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(program("infer"), ["infer", *args])

    def _read(self):
        if not select.select([self.fd], [], [], PATIENCE)[0]:
            raise AssertionError(f"nothing more came after {self.seen[-300:]!r}")
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the program has closed the terminal
            data = b""
        self.seen += data
        return data

    def wait_for(self, text, start=0):
        """Reads until `text` stands at or after `start`; returns where it ends."""
        while text not in self.seen[start:]:
            if not self._read():
                raise AssertionError(f"the program ended before {text!r}: {self.seen[-300:]!r}")
        return self.seen.index(text, start) + len(text)

    def wait_for_more(self):
        before = len(self.seen)
        while len(self.seen) == before:
            if not self._read():
                raise AssertionError("the program ended")

    def send(self, data):
        os.write(self.fd, data)

    def end(self):
        """Reads to the end; the exit code."""
        while self._read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Progress(unittest.TestCase):
    def test_only_on_a_terminal(self):
        command = [program("infer"), "-m", MODEL, "-p", "the answer " * 20, "-n", "4", "--temp", "0"]
        parent, child = pty.openpty()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=child)
        os.close(child)
        shown = b""
        try:
            while data := os.read(parent, 65536):
                shown += data
        except OSError:
            pass
        text = process.communicate(timeout=PATIENCE)[0]
        os.close(parent)
        self.assertEqual(process.returncode, OK)
        self.assertIn(b"loading", shown)
        self.assertIn(b"reading the prompt 100%", shown)
        self.assertNotIn(b"\x1b", text)

        piped = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        self.assertEqual(piped.stdout, text)
        self.assertNotIn(b"loading", piped.stderr)
        self.assertNotIn(b"\x1b", piped.stderr)


class CtrlC(unittest.TestCase):
    def test_ends_a_completion_with_its_figures(self):
        t = Terminal(*ENDLESS, "-p", "the answer")
        t.wait_for(b"reading the prompt 100%")
        t.wait_for_more()
        t.send(CTRL_C)
        self.assertEqual(t.end(), INTERRUPTED)
        self.assertRegex(t.seen, rb"generated \d+ tokens, [\d.]+ tokens/s .* peak memory")

    def test_in_a_conversation_ends_the_answer_then_the_program(self):
        t = Terminal(*ENDLESS, *CHAT)
        at = t.wait_for(b"> ")
        t.send(b"hello\n")
        at = t.wait_for(b"reading the prompt 100%", at)
        t.wait_for_more()
        t.send(CTRL_C)
        at = t.wait_for(b"> ", at)
        t.send(CTRL_C)
        self.assertEqual(t.end(), INTERRUPTED)

    def test_ctrl_d_ends_a_conversation(self):
        t = Terminal("-m", MODEL, "-n", "4", *CHAT, "-p", "hello")
        t.wait_for(b"> ")
        t.send(CTRL_D)
        self.assertEqual(t.end(), OK)
        self.assertIn(b"peak memory", t.seen)


if __name__ == "__main__":
    unittest.main()
