#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds everything for arm64 with Debian's cross compiler and runs the tests that need no kernel of their own.
#
# Usage: scripts/check-arm64.sh [--build-dir DIR] [--no-setup]
#   --build-dir DIR   default: build/arm64
#   --no-setup        install nothing (scripts/setup.sh --long does nothing either when all is there)
# The arm64 libraries are unpacked into DIR/sysroot; no foreign architecture is added to this machine.
# Unit and bpfhost tests run in qemu-user, one line "N of M tests passed" at the end; the BPF objects are compiled
# for arm64 and linked, not loaded.
set -euo pipefail

ROOT=$(readlink -f "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..")
cd "$ROOT"

dir=$ROOT/build/arm64
setup=1
while (($# > 0)); do
  case $1 in
    --build-dir) dir=$(readlink -m "${2:?--build-dir needs a value}") && shift 2 ;;
    --no-setup) setup=0 && shift ;;
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' && exit 0 ;;
    *) echo "check-arm64: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
  esac
done
((setup == 0)) || scripts/setup.sh --long

# What CMakeLists.txt asks for, of Debian's arm64 packages.
readonly LIBRARIES=libc6-dev,libstdc++-12-dev,libbpf-dev,libldns-dev,libssl-dev,libboost1.81-dev,libcli11-dev,nlohmann-json3-dev,libspdlog-dev,libfmt-dev,libexpected-dev,libre2-dev,libgtest-dev,libgmock-dev,libbenchmark-dev,libyaml-cpp-dev,libnghttp2-dev

sysroot=$dir/sysroot
if [[ "$(cat "$dir/libraries" 2>/dev/null || true)" != "$LIBRARIES" ]]; then
  rm -rf "$sysroot"
  mkdir -p "$dir"
  scripts/debian-sources.sh | mmdebstrap --quiet --architectures=arm64 --variant=extract \
    --include="$LIBRARIES" bookworm "$sysroot"
  printf '%s\n' "$LIBRARIES" >"$dir/libraries"
fi

# -O1 without debug information: what is asked is whether it compiles and is right, not how fast it runs.
cmake -S . -B "$dir/build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$ROOT/scripts/cmake/arm64.cmake" \
  -DMESH_SYSROOT="$sysroot" -DMESH_WERROR=ON -DMESH_BENCH=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g0" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g0" >/dev/null
ninja -C "$dir/build" -k 0
file=$dir/build/agent/mesh-agent
aarch64-linux-gnu-readelf -h "$file" | grep -q 'Machine: *AArch64' || {
  echo "check-arm64: $file is not for arm64" >&2
  exit 1
}

# Not in qemu-user: what needs system calls that it does not pass on, and what measures time or this machine.
readonly LEFT_OUT='Discovery|Netlink|References|AddressSocket|Prometheus|DeployFiles|Preflight|Relay|Pool|Scale|Limits'
status=0
ctest --test-dir "$dir/build" -L '^(unit|bpfhost)$' -E "$LEFT_OUT" --no-tests=error -j "$(nproc)" \
  --output-on-failure >"$dir/tests.log" 2>&1 || status=$?
grep -E 'tests passed|\*\*\*Failed|Not Run' "$dir/tests.log" || true
exit "$status"
