# SPDX-License-Identifier: Apache-2.0
import unittest

from support import OK, USAGE, run, run_json


class Roofline(unittest.TestCase):
    def test_json(self):
        result = run_json("roofline", "--quick", "--json", "-t", "1,2")
        self.assertTrue(result["cpu"])
        self.assertTrue(result["quick"])
        self.assertEqual([r["n_threads"] for r in result["rooflines"]], [1, 2])
        for r in result["rooflines"]:
            self.assertGreater(r["checksum"], 0)
            self.assertEqual(r["read_gb_s"], max(x["gb_s"] for x in r["reads"]))
            self.assertEqual({x["huge_pages"] for x in r["reads"]}, {False, True})
            best = {"int8": r["int8_gop_s"], "BF16": r["bf16_gop_s"], "F32": r["f32_gop_s"]}
            for arithmetic, peak in best.items():
                rates = [p["gop_s"] for p in r["peaks"] if p["arithmetic"] == arithmetic]
                self.assertEqual(peak, max(rates, default=0))
            self.assertGreater(r["read_gb_s"], 0)

    def test_table(self):
        p = run("roofline", "--quick", "-t", "1", "--memory", "16M")
        self.assertEqual((p.returncode, p.stderr), (OK, ""))
        self.assertRegex(p.stdout, r"(?m)^1 thread$")
        self.assertRegex(p.stdout, r"(?m)^  read, huge pages +[\d.]+ GB/s .*<- best|^  read +[\d.]+ GB/s .*<- best")
        self.assertIn("buffer 16 MiB", p.stdout)

    def test_errors(self):
        for flags in (("-t", "0"), ("--memory", "much")):
            p = run("roofline", *flags)
            self.assertEqual((p.returncode, p.stdout), (USAGE, ""), p.stderr)
            self.assertIn(flags[1], p.stderr)


if __name__ == "__main__":
    unittest.main()
