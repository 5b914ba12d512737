#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what a bare Debian 12 needs to build, test, demonstrate and measure; starts no service.
#
# Usage: scripts/setup.sh [--check] [--long]
#   --check   install nothing; list what is missing and exit 1 if something is.
#   --long    also what only scripts/test.sh --long needs: a cross compiler, a container engine.
# Quick when everything is there: then neither root nor the network is used.
set -euo pipefail

PACKAGES=(
  # Build: compilers (g++ for C++20, clang for BPF and fuzzing), generators, code generation.
  ca-certificates git g++ clang-14 libclang-rt-14-dev cmake ninja-build ccache pkg-config bpftool
  # Build: libraries.
  libc6-dev libbpf-dev libssl-dev libboost1.81-dev libcli11-dev nlohmann-json3-dev libspdlog-dev
  libfmt-dev libexpected-dev libldns-dev libnghttp2-dev libre2-dev libyaml-cpp-dev libgtest-dev libgmock-dev
  libbenchmark-dev
  # Checks.
  shellcheck clang-format-14
  # Tests: namespaces, packet filters to compare or to masquerade with, captures, processes.
  iproute2 iputils-ping nftables iptables tcpdump procps psmisc util-linux openssl
  # Tests and bench: real programs as peers.
  curl nginx libnginx-mod-stream redis-server redis-tools haproxy wrk apache2-utils iperf3 nghttp2-client
  prometheus dnsmasq-base bind9-dnsutils python3 python3-grpcio python3-yaml netcat-openbsd postgresql
  # Tests: what others see of a mesh leg.
  tshark
  # Tests: the store of many nodes.
  etcd-server etcd-client
  # VM: emulator, guest's first user space, module tools, unpacking of kernels, the init of an installed machine.
  qemu-system-x86 busybox-static kmod cpio xz-utils zstd systemd
)

readonly LONG_PACKAGES=(
  # Cross build for arm64 and its tests in emulation; images without a registry; a second compiler.
  g++-aarch64-linux-gnu qemu-user mmdebstrap podman buildah runc conmon clang-16
)

log() { printf 'setup: %s\n' "$*" >&2; }
die() {
  log "$*"
  exit 1
}

# Tests: a program in Go, whose toolchain a machine may have from elsewhere.
command -v go >/dev/null || PACKAGES+=(golang-go)

# Prints the packages of the list that are not installed, one a line.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
    awk '$1 == "installed" {print $2}')
  local package
  for package in "${PACKAGES[@]}"; do
    grep -qxF -- "$package" <<<"$installed" || printf '%s\n' "$package"
  done
}

# Debian starts a daemon as its package is installed, unless this file says no (101).
readonly POLICY=/usr/sbin/policy-rc.d
policy_saved=""

forbid_services() {
  if [[ -e $POLICY || -L $POLICY ]]; then
    policy_saved=$(mktemp -u "$POLICY.mesh-XXXXXX")
    mv "$POLICY" "$policy_saved"
  fi
  trap restore_policy EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
}

restore_policy() {
  rm -f "$POLICY"
  if [[ -n $policy_saved ]]; then
    mv "$policy_saved" "$POLICY"
  fi
}

main() {
  local check=0
  local arg
  for arg in "$@"; do
    case $arg in
      --check) check=1 ;;
      --long) PACKAGES+=("${LONG_PACKAGES[@]}") ;;
      -h | --help)
        sed -n '3,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'
        exit 0
        ;;
      *) die "unknown argument: $arg (see --help)" ;;
    esac
  done
  command -v dpkg-query >/dev/null || die "this is not Debian: dpkg-query is missing"

  local missing=()
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    log "all ${#PACKAGES[@]} packages are installed"
    return 0
  fi
  log "missing: ${missing[*]}"
  ((check == 0)) || exit 1

  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "root is needed to install packages: run this as root"
    log "asking sudo"
    exec sudo -- "$(readlink -f "${BASH_SOURCE[0]}")" "$@"
  fi

  # An unreachable foreign source is no reason to stop; a package that is missing then is.
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o DPkg::Lock::Timeout=300 -qq update ||
    log "apt-get update failed in part; going on with the lists there are"
  forbid_services
  apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq -y --no-install-recommends \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    install "${missing[@]}"

  mapfile -t missing < <(missing_packages)
  ((${#missing[@]} == 0)) || die "still missing after the installation: ${missing[*]}"
  log "done"
}

main "$@"
