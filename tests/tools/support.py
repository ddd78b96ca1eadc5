# SPDX-License-Identifier: Apache-2.0
"""Running Quern's programs on the tiny models in tests/data."""
import json
import os
import subprocess
import tempfile
import unittest

BIN = os.environ["QUERN_BIN"]
SOURCE = os.environ["QUERN_SOURCE"]
TINY = os.path.join(SOURCE, "tests", "data", "tiny")
MODEL = os.path.join(TINY, "llama-q4_0.gguf")
TEMPLATE = os.path.join(SOURCE, "tests", "data", "chat", "smollm2.jinja")

# A bound for machines that hang, far above what any run takes, sanitizers included.
PATIENCE = 300

# What programs keep from run to run goes where no earlier run left anything.
CACHE = tempfile.TemporaryDirectory()

OK, ERROR, USAGE, MODEL_ERROR, MEMORY, CONTEXT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def program(name):
    return os.path.join(BIN, name)


def run(name, *args, stdin="", env=None, **more):
    """The finished process; standard output and error as text. A random model also writes bytes that are not UTF-8."""
    return subprocess.run([program(name), *map(str, args)], input=stdin, capture_output=True, text=True,
                          errors="replace", timeout=PATIENCE, env={**os.environ, "XDG_CACHE_HOME": CACHE.name, **(env or {})}, **more)


def run_json(name, *args, **more):
    """Standard output as JSON, after checking that it is all there is and that the program succeeded."""
    p = run(name, *args, **more)
    assert p.returncode == OK, f"{name} ended with {p.returncode}: {p.stderr}"
    return json.loads(p.stdout)


def need_lavapipe():
    """Skips where Mesa's software device is missing. It is taken only where it is named, so by tests that name it."""
    p = run("infer", "--list-devices")
    if p.returncode != OK or "llvmpipe" not in p.stdout:
        raise unittest.SkipTest("no lavapipe here: " + (p.stderr or p.stdout).strip())


def manifest(file):
    """The entry of a tiny model: token_ids, logits, shape."""
    with open(os.path.join(TINY, "manifest.json")) as f:
        return next(m for m in json.load(f)["models"] if m["file"] == file)
