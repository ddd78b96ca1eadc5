#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench/gpu.sh [flags]: measures every figure that Quern states about a GPU, in under eight minutes, on a machine with a
# driver and python3 but no compiler: the programs are carried there. A step that runs over its time or fails is named
# in the table and the others go on.
#   --device NAME   the Vulkan device, by a part of its name or its index; default: the first GPU
#   --bin DIR       programs (bench, roofline, gpu_kernels, test_vulkan_*); default: build/release/bin
#   --models DIR    7b-Q4_0.gguf and 7b-Q8_0.gguf; missing ones are made there by --synth; default: /tmp/quern-models
#   --synth FILE    the program that writes models of random weights (needs python's gguf and numpy)
#   --tokenizer F   any GGUF with a tokenizer, for --synth; default: tests/data/tiny/llama-q4_0.gguf
#   --peer DIR      llama.cpp's build with Vulkan (llama-bench and its libraries), to compare with
#   --out DIR       where the results go; default: build/gpu
#   --quick         tiny models and short runs: shows that the script works, the figures mean nothing
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
device="" bin="$root/build/release/bin" models=/tmp/quern-models synth="$root/../shared/models/synth.py" peer=""
tokenizer="$root/tests/data/tiny/llama-q4_0.gguf" out="$root/build/gpu" quick=""
while [ $# -gt 0 ]; do
    case "$1" in
        --quick) quick=1; shift; continue ;;
        -h | --help) sed -n '3,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    esac
    [ $# -ge 2 ] || { echo "gpu: $1 needs a value" >&2; exit 2; }
    case "$1" in
        --device) device=$2 ;;
        --bin) bin=$2 ;;
        --models) models=$2 ;;
        --synth) synth=$2 ;;
        --tokenizer) tokenizer=$2 ;;
        --peer) peer=$2 ;;
        --out) out=$2 ;;
        *) echo "gpu: unknown flag $1" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$bin/roofline" ] || { echo "gpu: no program $bin/roofline; name the folder of the programs with --bin" >&2; exit 2; }
command -v python3 >/dev/null || { echo "gpu: python3 is needed for the table" >&2; exit 2; }
mkdir -p "$models" "$out" || exit 2
rm -f "$out"/*.json "$out"/*.txt
started=$(date +%s)
limit=470  # seconds in all

# step NAME SECONDS COMMAND...: standard output to NAME.json, the rest to NAME.txt; bounded by its time and what is left.
step() {
    name=$1 most=$2
    shift 2
    left=$((started + limit - $(date +%s)))
    [ "$left" -lt "$most" ] && most=$left
    if [ "$most" -le 5 ]; then
        echo "not run: the time was used up" >"$out/$name.failed.txt"
        return
    fi
    began=$(date +%s)
    timeout "$most" "$@" >"$out/$name.json" 2>"$out/$name.txt"
    code=$?
    echo "gpu: $name: $(($(date +%s) - began)) s, exit $code" >&2
    [ $code -eq 0 ] && return
    [ $code -eq 124 ] && echo "longer than $most s" >"$out/$name.failed.txt"
    [ $code -eq 124 ] || grep -v "^Run with" "$out/$name.txt" | tail -n 1 >"$out/$name.failed.txt"
}

prompt=512 gen=128 depth=8192 repeat=3
if [ "$quick" ]; then
    prompt=16 gen=4 depth=64 repeat=1
    for type in Q4_0 Q8_0; do ln -sf "$root/tests/data/tiny/llama-q4_0.gguf" "$models/7b-$type.gguf"; done
fi

step roofline 60 "$bin/roofline" --device "${device:-auto}" --json ${quick:+--quick}
[ "$device" ] || device=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["device"])' "$out/roofline.json" 2>/dev/null)
[ "$device" ] || { echo "gpu: no device: $(cat "$out/roofline.txt")" >&2; exit 1; }
for type in Q4_0 Q8_0; do
    [ -e "$models/7b-$type.gguf" ] ||
        step "model-$type" 120 python3 "$synth" qwen2.5-7b "$type" "$models/7b-$type.gguf" --tokenizer "$tokenizer"
done
for type in Q4_0 Q8_0; do
    step "quern-$type" 80 "$bin/bench" -m "$models/7b-$type.gguf" --device "$device" -p $prompt -n $gen -r $repeat \
        --no-roofline -o json
    [ -z "$peer" ] || step "peer-$type" 60 env LD_LIBRARY_PATH="$peer:${LD_LIBRARY_PATH-}" "$peer/llama-bench" \
        -m "$models/7b-$type.gguf" -ngl 99 -p $prompt -n $gen -r $repeat -o json
done
step deep 60 "$bin/bench" -m "$models/7b-Q4_0.gguf" --device "$device" --kv two-tier -p 0 -n $gen -d 0,$depth -r 1 \
    --no-roofline -o json
step cpu 60 "$bin/bench" -m "$models/7b-Q4_0.gguf" -p $((prompt / 4)) -n 16 -r 1 --no-roofline --no-tune -o json
# The kernels by themselves, of the types that matter most; the roofline was measured at length above.
step kernels 45 "$bin/gpu_kernels" --device "$device" --types Q4_0,Q8_0,Q4_K,F16 --json --quick \
    ${quick:+--rows 80 --k 512 --repeats 2 --megabytes 1}
# The suite's programs, one after another; each fails where the validation layer says anything.
tests=$(cd "$bin" && ls test_vulkan_* 2>/dev/null | grep -v '\.' || true)
[ "$tests" ] || echo "no test_vulkan_* in $bin" >"$out/tests.failed.txt"
for test in $tests; do
    step "$test" 60 env QUERN_TEST_VULKAN_DEVICE="$device" "$bin/$test" --gtest_brief=1
done

OUT=$out PROMPT=$prompt DEPTH=$depth SECONDS_TAKEN=$(($(date +%s) - started)) python3 - <<'PYTHON'
import glob, json, os, re
out = os.environ["OUT"]
prompt, depth = int(os.environ["PROMPT"]), int(os.environ["DEPTH"])


def load(name):
    try:
        with open(f"{out}/{name}.json") as f:
            text = f.read()
        return json.loads(text[min(i for i in (text.find("["), text.find("{")) if i >= 0):])
    except (OSError, ValueError):
        return None


def why(name):
    try:
        with open(f"{out}/{name}.failed.txt") as f:
            return f.read().strip() or "failed"
    except OSError:
        return "not run"


def test_of(rows, prompt_tokens, deep=0):
    for r in rows or []:
        if (r["n_prompt"] > 0) == prompt_tokens and r["n_depth"] == deep:
            return r
    return None


def row(what, value, target=""):
    print(f"{what:<52} {value:<34} {target}")


def ratio(a, b, form="{:.2f}x"):
    return form.format(a / b) if a and b else "-"


roof, cpu, deep = load("roofline"), load("cpu"), load("deep")
row("figure", "measured", "target")
if roof:
    row("device", f"{roof['device']}, {roof['driver']}")
    row("read, copy bandwidth", f"{roof['read_gb_s']:.0f}, {roof['copy_gb_s']:.0f} GB/s")
    peaks = [f"{roof[k + '_gop_s'] / 1000:.2f}" for k in ("f32", "f16", "int8", "coopmat")]
    row("F32, F16, int8, F16 matrix", ", ".join(peaks) + " TOP/s")
    for missing in roof["missing"]:
        row("", "no " + missing)
else:
    row("roofline", why("roofline"))
for kind, share in (("Q4_0", "60%"), ("Q8_0", "75%")):
    ours, peer = load(f"quern-{kind}"), load(f"peer-{kind}")
    for pp, name, target in ((False, "decode", f"{share} of read bandwidth"), (True, f"prefill {prompt}", "40% of matrix peak")):
        r, p = test_of(ours, pp), test_of(peer, pp)
        if not r:
            row(f"7B {kind} {name}", why(f"quern-{kind}"), target)
            continue
        peak = roof and (roof["coopmat_gop_s"] or roof["f16_gop_s"] or roof["f32_gop_s"])
        of = ratio(r["gop_s"], peak, "{:.0%}") if pp else ratio(r["gb_s"], roof and roof["read_gb_s"], "{:.0%}")
        row(f"7B {kind} {name}", f"{r['avg_ts']:.1f} tokens/s, {of}", target)
        if glob.glob(f"{out}/peer-{kind}.*"):
            value = f"{p['avg_ts']:.1f} tokens/s, {ratio(r['avg_ts'], p['avg_ts'])}" if p else why(f"peer-{kind}")
            row(f"  beside llama.cpp's Vulkan", value, "1.2x")
        if pp:
            row(f"7B {kind} first token after {prompt}", f"{r['avg_ns'] / 1e6:.0f} ms", "500 ms")
        slow = test_of(cpu, pp)
        if kind == "Q4_0":
            row(f"  beside this machine's CPU", ratio(r["avg_ts"], slow["avg_ts"]) if slow else why("cpu"), "2x")
near, far = test_of(deep, False), test_of(deep, False, depth)
share = ratio(far["avg_ts"], near["avg_ts"], "{:.0%}") if near and far else why("deep")
row(f"two-tier decode at depth {depth} over depth 0", share, "80%")
kernels = load("kernels")
if not kernels:
    row("kernels by themselves", why("kernels"))
peaks = {"matmul_coop": "coopmat", "matvec_dot": "int8", "matmul_dot": "int8"}
for k in kernels["kernels"] if kernels else []:
    if k["n_cols"] not in (1, 512):
        continue
    peak = kernels[peaks.get(k["kernel"], "f32") + "_gop_s"]
    few = k["n_cols"] == 1
    rate = f"{k['gb_s']:.0f} GB/s" if few else f"{k['gop_s'] / 1000:.2f} TOP/s"
    of = ratio(k["gb_s"], kernels["read_gb_s"], "{:.0%}") if few else ratio(k["gop_s"], peak, "{:.0%}")
    row(f"{k['type']} {k['kernel']}, {k['n_cols']} column{'' if few else 's'}", f"{rate}, {of}")
bad = 0
for path in sorted(glob.glob(f"{out}/test_vulkan_*.json")):
    name = os.path.basename(path)[:-5]
    text = open(path).read()
    passed = re.search(r"\[  PASSED  \] (\d+) test", text)
    failed = re.findall(r"\[  FAILED  \] (\S+)", text)
    skipped = re.search(r"\[  SKIPPED \] (\d+) test", text)
    ok = passed and not failed and not os.path.exists(f"{out}/{name}.failed.txt")
    bad += not ok
    what = f"{passed.group(1)} passed" if ok else "FAILED " + (" ".join(failed) or why(name))
    row(name, what + (f", {skipped.group(1)} skipped" if skipped else ""))
row("seconds in all", os.environ["SECONDS_TAKEN"], "480")
raise SystemExit(1 if bad else 0)
PYTHON
