#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts of this folder share: messages, the cache directory. Sourced, never run.

# shellcheck disable=SC2034  # used by the scripts that source this
VM_CACHE=${MESH_VM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mesh-agent/kernels}
# Tools of the administrator are not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

vm_log() { printf 'vm: %s\n' "$*" >&2; }

vm_die() {
  vm_log "$*"
  exit 2
}

# Prints the comment block at the head of a script, which is its help.
vm_usage() { sed -n '3,/^set -/s/^# \{0,1\}//p' "$1"; }

vm_need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || vm_die "$tool is missing: run scripts/setup.sh"
  done
}
