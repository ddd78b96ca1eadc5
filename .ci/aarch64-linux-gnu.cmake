# SPDX-License-Identifier: Apache-2.0
# Cross build for 64-bit Arm Linux with Debian's g++-aarch64-linux-gnu; programs run under qemu-user.
# Libraries come from build/aarch64-root (.ci/arm64-libs makes it) or else from Debian multiarch packages.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

get_filename_component(arm64_root ${CMAKE_CURRENT_LIST_DIR}/../build/aarch64-root ABSOLUTE)
if(EXISTS ${arm64_root}/usr)
  set(CMAKE_FIND_ROOT_PATH ${arm64_root})
  set(ENV{PKG_CONFIG_SYSROOT_DIR} ${arm64_root})
  set(ENV{PKG_CONFIG_LIBDIR} ${arm64_root}/usr/lib/aarch64-linux-gnu/pkgconfig)
else()
  set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig)
endif()
