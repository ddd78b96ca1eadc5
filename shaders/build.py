# SPDX-License-Identifier: Apache-2.0
"""Build steps of the shaders: `compile` makes one SPIR-V module, `embed` writes all of them as C++.

A module is the same whatever the C++ compiler and its sanitizers: with QUERN_SHADER_CACHE=FOLDER in the environment it is
kept there, and the next build with the same sources, tools and options copies it.
"""
import argparse
import array
import hashlib
import os
import pathlib
import re
import subprocess
import sys

# SPIRV-Tools older than an extension say this of its first use; nothing else is forgiven.
UNKNOWN = re.compile(r"[Ii]nvalid (capability|opcode|extension|operand)|unknown (capability|opcode|extension)")


def call(command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def cache_entry(a):
    """The path without suffix of what QUERN_SHADER_CACHE has or may have of a module; None without the variable."""
    folder = os.environ.get("QUERN_SHADER_CACHE")
    if not folder:
        return None
    key = hashlib.sha256(repr([a.name, a.source, a.defines, a.include, a.extended]).encode())
    for tool in (a.glslang, a.val, a.opt):
        found = os.stat(tool)
        key.update(f"{tool} {found.st_size} {found.st_mtime_ns}\n".encode())
    # All that a module could include: reading it is quicker than asking the compiler what it did.
    for f in sorted(f for i in a.include for f in pathlib.Path(i).rglob("*") if f.is_file()) + [pathlib.Path(__file__)]:
        key.update(f"{f}\n".encode() + f.read_bytes())
    return pathlib.Path(folder) / key.hexdigest()


def compile_module(a):
    entry = cache_entry(a)
    module, dep = pathlib.Path(a.out), pathlib.Path(a.out + ".d")
    if entry and entry.with_suffix(".spv").exists():
        dep.write_text(a.out + entry.with_suffix(".d").read_text())
        module.write_bytes(entry.with_suffix(".spv").read_bytes())
        return
    defines = [d if d.startswith("-D") else "-D" + d for d in a.defines]
    out, raw = a.out, a.out + ".raw"
    made = call([a.glslang, "-V", "--quiet", "--target-env", "vulkan1.2", "-S", "comp", *["-I" + i for i in a.include],
                 *defines, "--depfile", a.out + ".d", "-o", raw, a.source])
    if made.returncode != 0:
        sys.exit(f"{a.source} ({a.name}): {a.glslang} failed\n{made.stdout}")
    # glslang names the file that it wrote; the build waits for the last one.
    inputs = ":" + dep.read_text().split(":", 1)[1]
    dep.write_text(a.out + inputs)
    steps = [("not validated", [a.val, "--target-env", "vulkan1.2", raw]),
             ("not optimised", [a.opt, "-O", "--strip-debug", "--target-env=vulkan1.2", raw, "-o", out])]
    for failed, command in steps:
        done = call(command)
        if done.returncode == 0:
            continue
        if not (a.extended and UNKNOWN.search(done.stdout)):
            sys.exit(f"{a.source} ({a.name}): {command[0]} failed\n{done.stdout}")
        print(f"{a.name}: {failed}: {pathlib.Path(command[0]).name} does not know its extension", file=sys.stderr)
        if command[0] == a.opt:
            module.write_bytes(pathlib.Path(raw).read_bytes())
    if entry:
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.with_suffix(".d").write_text(inputs)
        part = entry.with_suffix(f".{os.getpid()}")   # a name that others look for appears with all of its bytes
        part.write_bytes(module.read_bytes())
        part.replace(entry.with_suffix(".spv"))


def text(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


def embed(a):
    modules = sorted((pathlib.Path(p).stem, pathlib.Path(p).read_bytes()) for p in a.modules)
    lines = ["// Written by shaders/build.py.", '#include "kernels/vulkan/device.h"', "", "namespace quern::vulkan {",
             "namespace {", ""]
    for i, (_, code) in enumerate(modules):
        words = array.array("I", code)
        if words.itemsize != 4 or words[0] != 0x07230203:
            sys.exit(f"{modules[i][0]}: this is no SPIR-V of this machine's byte order")
        lines.append(f"constexpr std::uint32_t k{i}[] = {{")
        lines += [",".join(f"{w:#x}" for w in words[j:j + 16]) + "," for j in range(0, len(words), 16)]
        lines.append("};")
    lines.append("constexpr ModuleInfo kInfo[] = {")
    lines += [f"    {{{text(name)}, {len(code)}}}," for name, code in modules]
    lines += ["};", "constexpr const std::uint32_t* kWords[] = {"]
    lines += [f"    k{i}," for i in range(len(modules))]
    lines.append("};")
    if a.missing:
        lines += ["constexpr std::string_view kMissing[] = {", *[f"    {text(m)}," for m in a.missing], "};"]
    lines += ["", "}  // namespace", "", "std::span<const ModuleInfo> modules() { return kInfo; }",
              f"std::span<const std::string_view> missing_modules() {{ return {'kMissing' if a.missing else '{}'}; }}",
              "std::span<const std::uint32_t> module_words(std::size_t index);",
              "std::span<const std::uint32_t> module_words(std::size_t index) {",
              "    return {kWords[index], kInfo[index].bytes / 4};", "}",
              "", "}  // namespace quern::vulkan", ""]
    pathlib.Path(a.out).write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("compile")
    one.set_defaults(run=compile_module)
    for option in ("--glslang", "--val", "--opt", "--out", "--name"):
        one.add_argument(option, required=True)
    one.add_argument("--include", action="append", default=[])
    one.add_argument("--extended", action="store_true", help="uses an extension that older SPIRV-Tools may not know")
    one.add_argument("source")
    one.add_argument("defines", nargs="*")
    all_of_them = verbs.add_parser("embed")
    all_of_them.set_defaults(run=embed)
    all_of_them.add_argument("--out", required=True)
    all_of_them.add_argument("--missing", action="append", default=[])
    all_of_them.add_argument("modules", nargs="*")
    a = parser.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
