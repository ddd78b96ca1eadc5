# SPDX-License-Identifier: Apache-2.0
"""Short runs of gpu_kernels on a device for tests."""
import json
import os
import unittest

from support import OK, USAGE, run


class GpuKernels(unittest.TestCase):
    def test_device(self):
        device = os.environ.get("QUERN_TEST_VULKAN_DEVICE", "llvmpipe")
        p = run("gpu_kernels", "--device", device, "--quick", "--json", "--types", "Q4_0,F16", "--rows", "80", "--k", "512",
                "--repeats", "2", "--megabytes", "1")
        if p.returncode != OK:
            self.assertTrue(p.stderr.strip().startswith("gpu_kernels: "), p.stderr)
            self.skipTest(p.stderr.strip())
        r = json.loads(p.stdout)
        self.assertIn(device.lower(), r["device"].lower())
        kernels = {(k["type"], k["kernel"]) for k in r["kernels"]}
        self.assertLessEqual({("Q4_0", "matvec"), ("Q4_0", "matmul"), ("F16", "matvec"), ("F16", "matmul")}, kernels)
        for k in r["kernels"]:
            self.assertGreater(k["seconds"], 0)
            self.assertGreater(k["gop_s"], 0)

    def test_errors(self):
        p = run("gpu_kernels", "--device", "no such device")
        self.assertNotEqual(p.returncode, OK)
        self.assertEqual(run("gpu_kernels", "--rows", "many").returncode, USAGE)


if __name__ == "__main__":
    unittest.main()
