#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command as root under a Debian kernel in QEMU, on a throw-away copy of this root file system.
#
# Usage: scripts/vm/run.sh [options] [-- COMMAND [ARG...]]
#   --kernel 6.1|6.12|DIR   kernel series, or an unpacked linux-image package      (default 6.12)
#   --smp N, --mem MIB      virtual processors (2) and memory (4096)
#   --timeout SECONDS       limit for the whole run, boot included (600)
#   --share DIR             the guest writes DIR through to the host; repeatable. All else that it
#                           writes is gone afterwards
#   --init-script FILE      run by bash before the network is up, as a oneshot unit at boot would be;
#                           the command only runs if it succeeds
#   --systemd               systemd is process 1, as on a machine that was installed, and the command a service of
#                           it, begun when sysinit.target is reached (and nothing that this machine starts after that)
#   --link listen=SOCKET|connect=SOCKET
#                           a cable (eth0, which the command brings up) to the guest of another run.sh, over
#                           the unix socket SOCKET: one of the two listens, the other waits until it does
#   --icount                one guest instruction is one nanosecond: the measuring mode (one CPU, TCG)
#   --append STRING         added to the kernel's command line
#   --console FILE          keep the kernel's messages there
#   --shell                 a terminal in the guest (COMMAND, or bash); leave it with exit
# The guest sees all files at their paths on the host, the working directory, PATH and the variables
# MESH_*, GTEST_*, ASAN_OPTIONS and UBSAN_OPTIONS; MESH_VM is set. cgroup2 is at /sys/fs/cgroup, bpffs,
# tracefs, debugfs are mounted, /run and /dev/shm are empty, lo is up, there is no other network but the --link.
# Exit status: the command's; 124 after the time limit, 125 when the guest could not be prepared, 130
# when it ended (panic, oops, kill) before the command did.
# Environment: MESH_VM_ACCEL=auto|kvm|tcg (auto: kvm if a probe boots with it within 10 s; the answer
# is kept until the host reboots), MESH_VM_CACHE (see fetch-kernels.sh).
set -euo pipefail

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/vm/common.sh
. "$HERE/common.sh"

# One compound command, so that the shell has read all of it before it runs any: a run takes minutes, and
# this file may be edited meanwhile.
{

# Loaded at boot, so that a kernel that lacks one says so at once; others load on demand.
MODULES="tls veth bridge dummy inet_diag tcp_diag sch_netem nf_conntrack nf_tables nft_chain_nat
  nft_nat nft_masq gcm ghash_clmulni_intel aesni_intel"

kernel=6.12
smp=""
mem=4096
limit=600
append=""
init_script=""
systemd=0
console=""
link=""
icount=0
interactive=0
shares=()
command=()

value() { (($# >= 2)) || vm_die "$1 needs a value"; }

while (($# > 0)); do
  case $1 in
    --kernel) value "$@" && kernel=$2 && shift 2 ;;
    --smp) value "$@" && smp=$2 && shift 2 ;;
    --mem) value "$@" && mem=$2 && shift 2 ;;
    --timeout) value "$@" && limit=$2 && shift 2 ;;
    --share) value "$@" && shares+=("$2") && shift 2 ;;
    --init-script) value "$@" && init_script=$2 && shift 2 ;;
    --append) value "$@" && append=$2 && shift 2 ;;
    --systemd) systemd=1 && shift ;;
    --console) value "$@" && console=$2 && shift 2 ;;
    --link) value "$@" && link=$2 && shift 2 ;;
    --icount) icount=1 && shift ;;
    --shell) interactive=1 && shift ;;
    -h | --help) vm_usage "${BASH_SOURCE[0]}" && exit 0 ;;
    --) shift && command=("$@") && break ;;
    *) vm_die "unknown argument: $1 (see --help; the command comes after --)" ;;
  esac
done
if ((${#command[@]} == 0)); then
  ((interactive == 1)) || vm_die "no command given (see --help)"
  command=(bash -i)
fi
case $link in
  "" | listen=?* | connect=?*) ;;
  *) vm_die "--link $link: listen=SOCKET or connect=SOCKET" ;;
esac
[[ $(uname -m) == x86_64 ]] || vm_die "only x86-64 hosts can run these guests"
vm_need qemu-system-x86_64 timeout sha256sum
if ((systemd == 1)) && [[ ! -x /lib/systemd/systemd ]]; then
  vm_die "systemd is missing: run scripts/setup.sh"
fi
case $kernel in
  6.1 | 6.12) kernel_dir=$("$HERE/fetch-kernels.sh" "$kernel" | cut -d ' ' -f 2-) ;;
  *) kernel_dir=$(readlink -e "$kernel") || vm_die "no such kernel directory: $kernel" ;;
esac
vmlinuz=$(compgen -G "$kernel_dir/boot/vmlinuz-*" | head -n 1) ||
  vm_die "no kernel image in $kernel_dir/boot"

work=$(mktemp -d "${TMPDIR:-/tmp}/mesh-vm-XXXXXX")
qemu_pid=""
# shellcheck disable=SC2317  # called by the trap
cleanup() {
  trap - EXIT
  trap '' INT TERM # a second signal must not leave the guest or its files behind
  trap '' PIPE # whoever read our messages may be gone as well
  if [[ -n $qemu_pid ]]; then
    kill "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
  fi
  if [[ -n $console && -e $work/console ]]; then
    cp "$work/console" "$console" 2>/dev/null || true # its directory may be gone with our caller
  fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 129' HUP INT
control=$work/control
mkdir "$control"

# The initramfs depends on the kernel and on two files here; one per combination is kept.
mkdir -p "$VM_CACHE"
key=$(cat "$HERE/mkinitramfs.sh" "$HERE/guest-init.sh" <(printf '%s' "$kernel_dir") \
  "$kernel_dir/.version" 2>/dev/null | sha256sum | cut -c 1-16)
initramfs=$VM_CACHE/initramfs-$key
[[ -e $initramfs ]] || "$HERE/mkinitramfs.sh" "$kernel_dir" "$initramfs"

# Says whether KVM boots a guest at all: the device may exist and hang. Never waits for a process
# that cannot be killed.
kvm_boots() {
  local pid tries answer=no cached
  cached=$VM_CACHE/.kvm-$(cat /proc/sys/kernel/random/boot_id)
  if [[ ! -e $cached ]]; then
    vm_log "trying /dev/kvm (10 s at most)"
    timeout -k 1 10 qemu-system-x86_64 -accel kvm -cpu max -m 512 -nodefaults -display none -no-reboot \
      -kernel "$vmlinuz" -initrd "$initramfs" -append "console=ttyS0 panic=-1 quiet mesh_vm_probe" \
      -serial "file:$work/probe" </dev/null >/dev/null 2>&1 &
    pid=$!
    disown "$pid"
    for ((tries = 0; tries < 100; tries++)); do
      if grep -qs 'mesh_vm_probe ok' "$work/probe"; then
        answer=yes
        break
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    rm -f "$VM_CACHE"/.kvm-*
    printf '%s\n' "$answer" >"$cached"
  fi
  [[ $(cat "$cached") == yes ]]
}

accel=${MESH_VM_ACCEL:-auto}
if ((icount == 1)); then
  [[ $accel != kvm ]] || vm_die "--icount needs tcg"
  [[ ${smp:-1} == 1 ]] || vm_die "--icount allows one processor"
  accel=icount
elif [[ $accel == auto ]]; then
  accel=tcg
  if [[ -w /dev/kvm ]] && kvm_boots; then
    accel=kvm
  fi
fi
qemu=(qemu-system-x86_64)
# no_timer_check: an emulated timer that is late on a loaded host is no broken one.
kernel_args="console=ttyS0 panic=-1 oops=panic quiet loglevel=5 mitigations=off no_timer_check"
case $accel in
  kvm) qemu+=(-accel kvm -cpu max -smp "${smp:-2}") ;;
  # thread=multi crashes 6.12 guests at boot now and then (int3 in a patched static key).
  tcg) qemu+=(-accel "tcg,thread=single" -cpu max -smp "${smp:-2}") ;;
  icount)
    # Without erms and fsrm the kernel does not copy with `rep movsb`, which counts one instruction
    # per byte; without rdrand and rdseed, and with a fixed clock, two boots give the same figures.
    qemu+=(-accel tcg -smp 1 -cpu "max,-rdrand,-rdseed,-erms,-fsrm" -icount "shift=0,sleep=off"
      -rtc "clock=vm,base=2026-01-01")
    kernel_args+=" nokaslr norandmaps random.trust_cpu=off"
    ;;
  *) vm_die "MESH_VM_ACCEL=$accel: auto, kvm or tcg" ;;
esac

qemu+=(-m "$mem" -nodefaults -display none -no-reboot
  -kernel "$vmlinuz" -initrd "$initramfs" -append "$kernel_args $append"
  -virtfs "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"
  -virtfs "local,path=$control,mount_tag=control,security_model=none"
  -serial "file:$work/console" -chardev "stdio,id=out,signal=off" -serial chardev:out)
for index in "${!shares[@]}"; do
  shares[index]=$(readlink -e "${shares[index]}") || vm_die "no such directory to share"
  qemu+=(-virtfs "local,path=${shares[index]},mount_tag=share$index,security_model=none,multidevs=remap")
done

if [[ -n $link ]]; then
  socket=${link#*=}
  netdev="stream,id=link,addr.type=unix,addr.path=$socket"
  case $link in
    listen=*)
      netdev+=",server=on"
      mac=52:54:00:6d:73:01
      ;;
    connect=*)
      netdev+=",server=off"
      mac=52:54:00:6d:73:02
      # QEMU tries once.
      for ((tries = 0; tries < 300; tries++)); do
        [[ ! -S $socket ]] || break
        sleep 0.1
      done
      [[ -S $socket ]] || vm_die "nobody listens at $socket after 30 s"
      ;;
  esac
  # Without an option ROM: nothing boots from it.
  qemu+=(-netdev "$netdev" -device "virtio-net-pci,netdev=link,mac=$mac,romfile=")
  MODULES+=" virtio_net"
fi

# What the guest is to do. The status is a failure until a finished run overwrites it.
printf '130\n' >"$control/status"
: >"$control/messages"
cp "$HERE/guest-run.sh" "$control/guest-run.sh"
if [[ -n $init_script ]]; then
  cp "$init_script" "$control/early"
fi
{
  printf 'KERNEL_DIR=%q\nCWD=%q\nMODULES=%q\nINTERACTIVE=%q\nSYSTEMD=%q\n' \
    "$kernel_dir" "$PWD" "${MODULES//$'\n'/ }" "$interactive" "$systemd"
  printf 'SHARES=('
  ((${#shares[@]} == 0)) || printf '%q ' "${shares[@]}"
  printf ')\n'
} >"$control/config"
{
  while read -r name; do
    printf 'export %s=%q\n' "$name" "${!name}"
  done < <(compgen -e | grep -E '^(PATH$|MESH_|GTEST_|(ASAN|UBSAN)_OPTIONS$)' | grep -v '^MESH_VM')
} >"$control/environment"
{
  printf 'exec'
  printf ' %q' "${command[@]}"
  printf '\n'
} >"$control/command"

started=$SECONDS
qemu_status=0
if ((interactive == 1)); then
  timeout --foreground -k 5 "$limit" "${qemu[@]}" || qemu_status=$?
else
  # QEMU makes its output non-blocking, which must not reach whatever our own is.
  mkfifo "$work/output"
  cat "$work/output" &
  cat_pid=$!
  timeout -k 5 "$limit" "${qemu[@]}" </dev/null >"$work/output" 2>"$work/qemu-errors" &
  qemu_pid=$!
  wait "$qemu_pid" || qemu_status=$?
  qemu_pid=""
  wait "$cat_pid" || true
fi

cat "$control/messages" >&2
if [[ -s $work/qemu-errors ]]; then
  sed 's/^/vm: /' "$work/qemu-errors" >&2
fi
status=$(cat "$control/status")
readonly TROUBLE='Kernel panic|Oops|BUG: |general protection fault|WARNING: |kernel BUG at|Call Trace'
if ((qemu_status == 124 || qemu_status == 137)); then
  vm_log "time limit of $limit s reached; the guest was ended"
  status=124
elif [[ ! -e $control/finished ]]; then
  if grep -qE 'Kernel panic|Oops' "$work/console" 2>/dev/null; then
    vm_log "the guest's kernel panicked"
  fi
  vm_log "the guest ended before the command did (QEMU's status $qemu_status)"
fi
if [[ ! -e $control/finished || -e $control/not-prepared ]]; then
  vm_log "last kernel messages:"
  tail -n 60 "$work/console" >&2 2>/dev/null || true
elif grep -qE "$TROUBLE" "$work/console" 2>/dev/null; then
  vm_log "the kernel complained, though the command finished:"
  grep -nE -A 12 "$TROUBLE" "$work/console" | head -n 60 >&2
fi
vm_log "$(basename "$kernel_dir"), $accel: booted in $(cat "$control/boot-seconds" 2>/dev/null || echo '?') s" \
  "of its own clock, ran $((SECONDS - started)) s in all, status $status"
exit "$status"
}
