# SPDX-License-Identifier: Apache-2.0
# installed.sh STEP PREFIX EXAMPLES MODEL: uses an installed Quern as a stranger's project would.
set -eu
step=$1 prefix=$2 examples=$3 model=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $step in
    headers)
        # Each public header compiles alone, in the language it is meant for.
        for header in "$prefix"/include/quern/*.hpp "$prefix"/include/quern/*.h; do
            [ -e "$header" ] || continue
            echo "#include \"quern/${header##*/}\"" | tee "$work/alone.cpp" >"$work/alone.c"
            "$CXX" -std=c++20 -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" -fsyntax-only "$work/alone.cpp"
            case $header in
                *.h) "$CC" -std=c99 -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" -fsyntax-only "$work/alone.c" ;;
            esac
        done
        [ -e "$prefix/include/quern/quern.hpp" ] ;;
    find_package)
        cp "$examples/CMakeLists.txt" "$examples/generate.cpp" "$work"
        "$CMAKE" -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_COMPILER="$CXX"
        "$CMAKE" --build "$work/build"
        "$work/build/generate" "$model" | grep -q ' tokens\]$' ;;
    pkg_config)
        cp "$examples/build.sh" "$examples/generate.cpp" "$work"
        pc=$(find "$prefix" -name quern.pc)
        PKG_CONFIG_PATH=${pc%/quern.pc}
        export PKG_CONFIG_PATH
        (cd "$work" && sh ./build.sh)
        "$work/generate" "$model" | grep -q ' tokens\]$' ;;
    *) echo "unknown step $step" >&2; exit 2 ;;
esac
