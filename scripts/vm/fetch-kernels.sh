#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetches Debian's newest 6.1 and 6.12 kernels (generic flavour) into a cache, for scripts/vm/run.sh.
#
# Usage: scripts/vm/fetch-kernels.sh [--refresh] [6.1] [6.12]     (both when none is named)
#   --refresh   ask the package mirror for newer kernels even if the cache has good ones
# Prints one line for each: "6.1 DIR", DIR being the unpacked package. Needs no root: when the lists
# of apt do not offer a kernel that is new enough, it reads the same mirror with lists of its own.
# Environment: MESH_VM_CACHE (default ${XDG_CACHE_HOME:-$HOME/.cache}/mesh-agent/kernels).
set -euo pipefail

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/vm/common.sh
. "$HERE/common.sh"

# Below these, kTLS and sockmap behave otherwise than what is tested for.
declare -rA MINIMUM=([6.1]=6.1.190 [6.12]=6.12.111)
# Not cloud (has no 9p), not rt, not unsigned, not dbg.
declare -rA PATTERN=(
  [6.1]='^linux-image-6\.1\.0-[0-9]+-amd64$'
  [6.12]='^linux-image-6\.12\.[0-9]+\+deb12-amd64$'
)

apt_options=(-o APT::Sandbox::User=root -o Acquire::Retries=3)
refresh=0
refreshed=0

# Prints "VERSION PACKAGE" of the newest package of a series that the lists of apt know, or nothing.
newest_offered() {
  local package version best_version="" best_package=""
  while read -r package _; do
    version=$(apt-cache "${apt_options[@]}" show --no-all-versions "$package" 2>/dev/null |
      sed -n 's/^Version: //p' | head -n 1)
    if [[ -n $version ]] &&
      { [[ -z $best_version ]] || dpkg --compare-versions "$version" gt "$best_version"; }; then
      best_version=$version
      best_package=$package
    fi
  done < <(apt-cache "${apt_options[@]}" search --names-only "${PATTERN[$1]}" 2>/dev/null |
    sort -V -r | head -n 3)
  [[ -z $best_version ]] || printf '%s %s\n' "$best_version" "$best_package"
}

new_enough() { dpkg --compare-versions "$2" ge "${MINIMUM[$1]}"; }

# Reads the configured mirror anew, with backports beside it, into lists that belong to this run
# alone: needs no root and changes nothing in /etc/apt or /var/lib/apt.
refresh_lists() {
  local state=$work/apt uri
  mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/sources.list.d"
  cp -L /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources "$state/sources.list.d/" \
    2>/dev/null || true # either kind may be absent
  # shellcheck disable=SC2016  # apt's own variables, not the shell's
  if ! apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' |
    grep -qxE 'bookworm-backports'; then
    # The mirror that serves the release itself; its keys are Debian's own for backports too.
    # shellcheck disable=SC2016
    uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
      awk '$1 == "bookworm" || $1 == "stable" {print $2; exit}')
    if [[ -n $uri ]]; then
      printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "$uri" bookworm-backports >"$state/sources.list.d/mesh-backports.list"
    fi
  fi
  apt_options+=(-o Dir::State::Lists="$state/lists" -o Dir::Cache="$state"
    -o Dir::Etc::SourceParts="$state/sources.list.d")
  vm_log "reading the package lists of the configured mirror"
  apt-get "${apt_options[@]}" -q update >"$work/update.log" 2>&1 ||
    vm_log "apt-get update failed in part: $(grep -m 1 -E '^[EW]:' "$work/update.log" || true)"
  refreshed=1
}

# Returns 1 when the download or the unpacking fails (called in a condition, so `set -e` is off here).
unpack() {
  local series=$1 version=$2 package=$3 release dir tmp
  release=${package#linux-image-}
  dir=$VM_CACHE/$release
  if [[ $(cat "$dir/.version" 2>/dev/null) != "$version" ]]; then
    vm_log "downloading $package $version"
    (cd "$work" && apt-get "${apt_options[@]}" -q download "$package=$version" >download.log 2>&1) ||
      { cat "$work/download.log" >&2 && return 1; }
    tmp=$(mktemp -d "$VM_CACHE/.unpack-XXXXXX") || return 1
    if ! dpkg -x "$work/${package}_"*.deb "$tmp" || ! depmod -b "$tmp" "$release"; then
      rm -rf "$tmp"
      return 1
    fi
    [[ -e $tmp/boot/vmlinuz-$release ]] || vm_die "$package has no kernel image"
    ls "$tmp/lib/modules/$release/kernel/net/9p/"9pnet_virtio.ko* >/dev/null 2>&1 ||
      vm_die "$package has no 9p: not the generic flavour"
    rm -rf "$tmp/usr/share/doc"
    chmod 755 "$tmp"
    printf '%s\n' "$version" >"$tmp/.version"
    # A directory appears complete or not at all; a second run at the same time loses harmlessly.
    rm -rf "$dir"
    mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"
  fi
  ln -sfn "$release" "$VM_CACHE/$series"
}

fetch() {
  local series=$1 offered cached
  cached=$(cat "$VM_CACHE/$series/.version" 2>/dev/null || true)
  if ((refresh == 0)) && [[ -n $cached ]] && new_enough "$series" "$cached"; then
    printf '%s %s\n' "$series" "$(readlink -f "$VM_CACHE/$series")"
    return
  fi
  offered=$(newest_offered "$series")
  if ((refreshed == 0)) && { ((refresh == 1)) || [[ -z $offered ]] ||
    ! new_enough "$series" "${offered%% *}"; }; then
    refresh_lists
    offered=$(newest_offered "$series")
  fi
  [[ -n $offered ]] || vm_die "the configured package sources offer no $series kernel"
  new_enough "$series" "${offered%% *}" ||
    vm_die "the newest $series kernel on offer is ${offered%% *}; at least ${MINIMUM[$series]} is needed"
  if ! unpack "$series" "${offered%% *}" "${offered#* }"; then
    # The lists may name a version that the mirror has replaced since.
    ((refreshed == 0)) || vm_die "cannot download ${offered#* }"
    refresh_lists
    offered=$(newest_offered "$series")
    unpack "$series" "${offered%% *}" "${offered#* }" || vm_die "cannot download ${offered#* }"
  fi
  printf '%s %s\n' "$series" "$(readlink -f "$VM_CACHE/$series")"
}

all_series=()
for arg in "$@"; do
  case $arg in
    --refresh) refresh=1 ;;
    -h | --help) vm_usage "${BASH_SOURCE[0]}" && exit 0 ;;
    6.1 | 6.12) all_series+=("$arg") ;;
    *) vm_die "unknown argument: $arg (see --help)" ;;
  esac
done
((${#all_series[@]} > 0)) || all_series=(6.1 6.12)
vm_need apt-get apt-cache dpkg depmod xz

mkdir -p "$VM_CACHE"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for series in "${all_series[@]}"; do
  fetch "$series"
done
