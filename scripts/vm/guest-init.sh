#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# First process of the guest, in the initramfs (busybox sh): mounts the host's root read-only by 9p
# with a tmpfs overlay above it and goes over to guest-run.sh there. Keep it small: all that can be
# done with the host's own tools is done by guest-run.sh.
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
case $(cat /proc/cmdline) in
  *mesh_vm_probe*)
    # run.sh only asks whether this accelerator boots at all.
    echo "mesh_vm_probe ok"
    poweroff -f
    ;;
esac
while read -r module; do
  insmod "/modules/$module" || echo "mesh-vm: insmod $module failed"
done </modules/order
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$options,ro,cache=loose" root /lower || echo "mesh-vm: cannot mount the host's root"
mount -t tmpfs -o size=75% tmpfs /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root ||
  echo "mesh-vm: cannot mount the overlay"
mkdir -p /root/run
mount -t tmpfs tmpfs /root/run
mkdir /root/run/mesh-vm
mount -t 9p -o "$options,cache=none" control /root/run/mesh-vm
mount -t devtmpfs dev /root/dev
umount /proc
umount /dev
# switch_root as the first process also moves the root of the kernel's own helpers: modprobe and the
# loading of modules on demand then work as on a machine that was installed.
exec switch_root /root /bin/bash /run/mesh-vm/guest-run.sh
