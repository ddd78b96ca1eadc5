# SPDX-License-Identifier: Apache-2.0
import json
import os
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

    def test_device(self):
        device = os.environ.get("QUERN_TEST_VULKAN_DEVICE", "llvmpipe")
        p = run("roofline", "--device", device, "--quick", "--json")
        if p.returncode != OK:
            self.assertTrue(p.stderr.startswith("roofline: "), p.stderr)
            self.assertEqual(p.stdout, "")
            self.skipTest(p.stderr.strip())
        r = json.loads(p.stdout)
        self.assertIn(device.lower(), r["device"].lower())
        self.assertTrue(r["rates"])
        for rate in ("read_gb_s", "copy_gb_s"):
            self.assertEqual(r[rate], max(x[rate] for x in r["rates"]))
            self.assertGreater(r[rate], 0)
        self.assertGreater(r["f32_gop_s"], 0)
        for name, module in (("f16_gop_s", "peak_f16"), ("int8_gop_s", "peak_i8"), ("coopmat_gop_s", "peak_coopmat")):
            missing = any(m.startswith(module + ": ") for m in r["missing"])
            self.assertEqual(r[name] == 0, missing, name)
        table = run("roofline", "--device", device, "--quick")
        self.assertEqual((table.returncode, table.stderr), (OK, ""))
        self.assertRegex(table.stdout, r"(?m)^  copy +[\d.]+ GB/s .*<- best")
        self.assertRegex(table.stdout, r"(?m)^  F32 +[\d.]+ GOP/s")

    def test_errors(self):
        p = run("roofline", "--device", "no such device")
        self.assertNotEqual(p.returncode, OK)
        self.assertEqual(p.stdout, "")
        self.assertEqual(run("roofline", "--device", "0", "-t", "1").returncode, USAGE)
        for flags in (("-t", "0"), ("--memory", "much")):
            p = run("roofline", *flags)
            self.assertEqual((p.returncode, p.stdout), (USAGE, ""), p.stderr)
            self.assertIn(flags[1], p.stderr)


if __name__ == "__main__":
    unittest.main()
