#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the initramfs with which run.sh boots a kernel: busybox, guest-init.sh and the modules that
# are needed to reach the host's root file system; every other module is loaded from there.
#
# Usage: scripts/vm/mkinitramfs.sh KERNEL_DIR OUT
#   KERNEL_DIR   an unpacked linux-image package of the generic flavour (fetch-kernels.sh)
set -euo pipefail

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/vm/common.sh
. "$HERE/common.sh"

if (($# != 2)); then
  vm_usage "${BASH_SOURCE[0]}"
  exit 2
fi
kernel_dir=$1
out=$2
vm_need busybox modprobe cpio gzip xz zstd
# There is no dynamic loader in there.
if ldd "$(command -v busybox)" >/dev/null 2>&1; then
  vm_die "busybox is not the static one: run scripts/setup.sh"
fi

release=$(basename "$(echo "$kernel_dir"/lib/modules/*)")
[[ -d $kernel_dir/lib/modules/$release ]] || vm_die "$kernel_dir is not one unpacked kernel package"
[[ -e $kernel_dir/lib/modules/$release/modules.dep ]] || depmod -b "$kernel_dir" "$release"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,proc,dev,modules,root,lower,upper}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in sh mount umount insmod echo cat poweroff mkdir switch_root; do
  ln -s busybox "$root/bin/$applet"
done

for module in virtio_pci 9p 9pnet_virtio overlay; do
  # Prints nothing for what is built in.
  modprobe -d "$kernel_dir" -S "$release" --show-depends "$module" |
    awk '$1 == "insmod" {print $2}'
done | awk '!seen[$0]++' | while read -r path; do
  name=$(basename "$path")
  name=${name%.xz}
  name=${name%.zst}
  case $path in
    *.xz) xz -dc "$path" >"$root/modules/$name" ;;
    *.zst) zstd -qdc "$path" >"$root/modules/$name" ;;
    *) cp "$path" "$root/modules/$name" ;;
  esac
  printf '%s\n' "$name" >>"$root/modules/order"
done
[[ -s $root/modules/order ]] || vm_die "$kernel_dir has no virtio and 9p modules"

install -m 755 "$HERE/guest-init.sh" "$root/init"
temporary=$(mktemp "$out.XXXXXX")
(cd "$root" && find . -print0 | cpio -0 -o -H newc --quiet | gzip -1) >"$temporary"
chmod 644 "$temporary"
mv "$temporary" "$out"
