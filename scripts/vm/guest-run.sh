#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Process 1 of the guest after guest-init.sh, on the host's root file system: makes the machine that
# tests expect, runs the command, writes its status where run.sh reads it, and powers off.
# With run.sh --systemd, process 1 becomes systemd instead, and that runs this file again as a service.
# Not `set -e`: whatever fails here has to end in a status and a power-off, never in a kernel panic.
set -uo pipefail

CONTROL=/run/mesh-vm
# shellcheck source=/dev/null
. "$CONTROL/config" # KERNEL_DIR, CWD, SHARES, MODULES, INTERACTIVE, SYSTEMD
export HOME=/root
export MESH_VM=$KERNEL_DIR
# shellcheck source=/dev/null
. "$CONTROL/environment" # and the caller's PATH: its root file system is ours
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${PATH:-}
# What systemd gives a service (DefaultLimitNOFILE).
ulimit -Hn 524288
out=/dev/ttyS1

say() { printf 'vm: %s\n' "$*" >>"$CONTROL/messages"; }

finish() {
  printf '%s\n' "$1" >"$CONTROL/status"
  : >"$CONTROL/finished"
  sync -f "$CONTROL/status"
  busybox poweroff -f
  # Never return from process 1.
  while :; do sleep 60; done
}

# The guest is not what the command expects: its status must not look like the command's own.
not_prepared() {
  say "guest: $*"
  : >"$CONTROL/not-prepared"
  finish 125
}

mount_or_die() {
  mkdir -p "${!#}"
  mount "$@" || not_prepared "mount $* failed"
}

run_command() {
  cd "$CWD" 2>/dev/null || cd /
  printf '%s\n' "$(cut -d ' ' -f 1 /proc/uptime)" >"$CONTROL/boot-seconds"
  if [[ $INTERACTIVE == 1 ]]; then
    stty -F "$out" sane clocal
    TERM=linux setsid -c -w bash "$CONTROL/command" <>"$out" >&0 2>&1
  else
    setsid -w bash "$CONTROL/command" </dev/null >"$out" 2>&1
  fi
  finish $?
}

# In the place of this process: everything up to sysinit.target, then the command. Left out is what looks after hardware
# and this machine's disks, users and clock: half a minute where instructions are emulated.
become_systemd() {
  local unit generator
  : >/etc/fstab
  printf 'mesh-vm\n' >/etc/hostname
  mkdir -p /etc/tmpfiles.d /etc/systemd/system-generators /run/systemd/system
  ln -sfn /dev/null /etc/tmpfiles.d/tmp.conf # would empty /tmp, where a build may be
  for generator in /lib/systemd/system-generators/*; do
    ln -sfn /dev/null "/etc/systemd/system-generators/${generator##*/}"
  done
  for unit in systemd-udevd.service systemd-udevd-{kernel,control}.socket systemd-udev-trigger.service \
    systemd-{binfmt,modules-load,sysusers,timesyncd,pstore,random-seed,update-utmp,machine-id-commit}.service \
    systemd-{firstboot,hwdb-update,journal-catalog-update,update-done,boot-system-token}.service \
    kmod-static-nodes.service sys-kernel-config.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
    modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}.service proc-sys-fs-binfmt_misc.automount; do
    ln -sfn /dev/null "/run/systemd/system/$unit"
  done
  cat >/run/systemd/system/mesh-vm.service <<UNIT
[Unit]
Description=The command of run.sh
AllowIsolate=yes
[Service]
Type=oneshot
ExecStart=/bin/bash $CONTROL/guest-run.sh command
UNIT
  shopt -s execfail # what follows is for that
  # shellcheck disable=SC2093
  exec /lib/systemd/systemd --unit=mesh-vm.service --show-status=error
  not_prepared "cannot run systemd"
}

if [[ ${1:-} == command ]]; then
  run_command
fi

mount_or_die -t proc proc /proc
mount_or_die -t sysfs sys /sys
mount_or_die -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount_or_die -t tmpfs -o mode=1777 tmpfs /dev/shm
mount_or_die -t cgroup2 cgroup2 /sys/fs/cgroup
mount_or_die -t bpf bpf /sys/fs/bpf
mount_or_die -t tracefs tracefs /sys/kernel/tracing
mount_or_die -t debugfs debugfs /sys/kernel/debug
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr
mkdir -p /run/lock /run/netns

# The modules of this kernel, where modprobe and the kernel look for them.
release=$(uname -r)
mkdir -p "/lib/modules/$release"
mount_or_die --bind "$KERNEL_DIR/lib/modules/$release" "/lib/modules/$release"

# Directories that the host wants written: the same path on both sides.
for index in "${!SHARES[@]}"; do
  mount_or_die -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none "share$index" \
    "${SHARES[$index]}"
done

stty -F "$out" raw -echo 2>/dev/null
cd "$CWD" 2>/dev/null || true
if [[ -e $CONTROL/early ]]; then
  # As a oneshot unit before the network: no interface is up yet.
  setsid -w bash "$CONTROL/early" </dev/null >"$out" 2>&1
  status=$?
  ((status == 0)) || not_prepared "the --init-script failed with status $status"
fi

hostname mesh-vm
ip link set lo up
# shellcheck disable=SC2086  # a list
modprobe -a $MODULES >>"$CONTROL/messages" 2>&1 || say "guest: not every module could be loaded"

[[ $SYSTEMD == 0 ]] || become_systemd
run_command
