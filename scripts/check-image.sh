#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the image of scripts/deploy/Containerfile and tests pods against the agent in a container of it.
#
# Usage: scripts/check-image.sh [--build-dir DIR] [--no-setup] [--keep] [--no-build]
#   --build-dir DIR   with the tests built in DIR/release (default build); the image is stored in DIR/image
#   --no-setup        install nothing
#   --keep            leave image and storage in place (to run it by hand)
#   --no-build        try the image that an earlier run with --keep has built
# No image registry is asked: the base image is made of Debian's packages and gets the name that FROM asks for. The
# container is what the DaemonSet makes: privileged, read-only root, the host's network, process ids, bpffs, cgroups
# and /run/netns. Root, and a BPF file system at /sys/fs/bpf (mounted if nothing is there).
set -euo pipefail

ROOT=$(readlink -f "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..")
cd "$ROOT"
PATH=$PATH:/usr/sbin:/sbin

build=$ROOT/build
setup=1
keep=0
fresh=1
while (($# > 0)); do
  case $1 in
    --build-dir) build=$(readlink -m "${2:?--build-dir needs a value}") && shift 2 ;;
    --no-setup) setup=0 && shift ;;
    --keep) keep=1 && shift ;;
    --no-build) fresh=0 && keep=1 && shift ;;
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' && exit 0 ;;
    *) echo "check-image: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
  esac
done
die() {
  printf 'check-image: %s\n' "$*" >&2
  exit 1
}
[[ $(id -u) == 0 ]] || die "containers with BPF need root"
((setup == 0)) || scripts/setup.sh --long
tests=$build/release/tests/netns
[[ -x $tests/netns_capture_test ]] || die "build the tests first: scripts/test.sh --rung build"

readonly IMAGE=localhost/mesh-agent:0.1.0
store=$build/image
mkdir -p "$store"
mounted=0
# runc, because crun refuses hosts with cgroup v1 and v2 at a time.
engine=(podman --root "$store/storage" --runroot "$store/run" --cgroup-manager cgroupfs --runtime runc)
# shellcheck disable=SC2317  # called by the trap
cleanup() {
  "${engine[@]}" rm --all --force --time 5 >/dev/null 2>&1 || true
  if ((keep == 0)); then
    umount "$store/storage/overlay" 2>/dev/null || true
    rm -rf "$store/storage" "$store/run"
  fi
  # Podman leaves these empty directories behind, in each hierarchy; those of cgroup2 that begin with mt- are the tests'.
  for directory in /sys/fs/cgroup/{,*/}libpod_parent /sys/fs/cgroup/*/mt-*; do
    [[ ! -d $directory || ($directory == */mt-* && $(stat -f -c %T "$directory") == cgroup2fs) ]] ||
      find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  ((mounted == 0)) || umount /sys/fs/bpf
}
trap cleanup EXIT
if [[ $(stat -f -c %T /sys/fs/bpf 2>/dev/null) != bpf_fs ]]; then
  mount -t bpf bpf /sys/fs/bpf
  mounted=1
fi

build_image() {
  local base
  base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' scripts/deploy/Containerfile | sort -u)
  [[ $(wc -l <<<"$base") == 1 ]] || die "more than one base image in the Containerfile: $base"
  if ! "${engine[@]}" image exists "docker.io/library/$base"; then
    if [[ ! -s $store/base.tar ]]; then
      scripts/debian-sources.sh | mmdebstrap --quiet --format=tar --variant=minbase bookworm "$store/base.tar.new"
      mv "$store/base.tar.new" "$store/base.tar"
    fi
    "${engine[@]}" import "$store/base.tar" "docker.io/library/$base" >/dev/null
  fi
  "${engine[@]}" build --isolation chroot --pull=never --network host --format docker \
    -f scripts/deploy/Containerfile -t "$IMAGE" .
  "${engine[@]}" image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' "$IMAGE"
}
((fresh == 0)) || build_image

# Limits that a host without CAP_SYS_RESOURCE may set.
container=("${engine[@]}" run --rm --privileged --read-only --network host --pid host
  --ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" --ulimit nproc=4096:4096
  --volume /sys/fs/bpf:/sys/fs/bpf --volume /sys/fs/cgroup:/sys/fs/cgroup
  --volume /run/netns:/run/netns:rslave)
mkdir -p /run/netns
"${container[@]}" "$IMAGE" version
status=0
"${container[@]}" "$IMAGE" preflight --node-cidr 10.0.0.0/24 || status=$?
((status <= 1)) || die "preflight in the container ended with $status"

# What the fixtures start as mesh-agent: the daemon in a container, its sub-commands outside, as an operator's are.
# The directory of the test's services has its admin socket too.
wrapper=$store/mesh-agent
cat >"$wrapper" <<WRAPPER
#!/bin/bash
if [[ \$1 != -* ]]; then
  exec $(printf '%q' "$build/release/agent/mesh-agent") "\$@"
fi
for ((i = 1; i < \$#; i++)); do
  if [[ \${!i} == --config-dir ]]; then
    value=\$((i + 1))
    directory=\${!value%/*}
  fi
done
# Below the --cgroup-root of the test, where the fixture has started this, as all containers are below that of a node: its
# own sockets pass the hooks like all others.
exec $(printf '%q ' "${container[@]}") --cgroup-parent "\$(sed -n 's/^0:://p' /proc/self/cgroup)" \\
  --volume "\$directory:\$directory" $IMAGE "\$@"
WRAPPER
chmod +x "$wrapper"
export MESH_AGENT_BINARY=$wrapper MESH_REQUIRE_ROOT=1
failed=0
"$tests/netns_capture_test" || failed=1
"$tests/netns_deny_test" || failed=1
# Not those that kill the process they started, which is podman here.
"$tests/netns_lifecycle_test" --gtest_filter='*Drains*:*DeletedPod*:*BadConfig*:*NoRule*' || failed=1
((failed == 0)) || die "tests against the image failed"
printf 'check-image: the image works\n'
