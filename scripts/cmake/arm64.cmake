# SPDX-License-Identifier: Apache-2.0
# Toolchain file: builds for Debian 12 on arm64 with Debian's cross compiler. MESH_SYSROOT names a directory with the
# arm64 libraries (scripts/check-arm64.sh makes one); tools that run during the build are this machine's.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MESH_SYSROOT)
set(CMAKE_SYSROOT ${MESH_SYSROOT})
set(CMAKE_FIND_ROOT_PATH ${MESH_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${MESH_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR}
    ${MESH_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${MESH_SYSROOT}/usr/share/pkgconfig)

# Debian's qemu-user runs the unit tests; without it they are built only.
find_program(MESH_QEMU_ARM64 NAMES qemu-aarch64 qemu-aarch64-static)
if(MESH_QEMU_ARM64)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${MESH_QEMU_ARM64} -L ${MESH_SYSROOT})
endif()
