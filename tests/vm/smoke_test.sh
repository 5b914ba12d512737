#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows that a guest of scripts/vm/run.sh is the machine that the other rungs count on: cgroup2, BPF
# hooks that take effect, kTLS, netem, masquerading. Changes the machine it runs on: only for a guest.
#
# Usage: scripts/vm/run.sh --kernel 6.1 -- tests/vm/smoke_test.sh
# Prints PASS or FAIL with a name for each check; exits 1 if one failed.
# shellcheck disable=SC2317  # the checks are called by name
set -euo pipefail

if [[ -z ${MESH_VM:-} ]]; then
  echo "smoke_test: run this in a guest: scripts/vm/run.sh -- $0" >&2
  exit 2
fi
work=$(mktemp -d)
failed=0

check() {
  local name=$1 log=$work/log
  # In a subshell of its own, because `set -e` is off in a condition.
  if bash -c "set -euo pipefail; work=$work; $(declare -f "$name"); $name" >"$log" 2>&1; then
    printf 'PASS %s\n' "$name"
  else
    printf 'FAIL %s\n' "$name"
    sed 's/^/    /' "$log"
    failed=1
  fi
}

cgroup2_and_file_systems() {
  [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]
  [[ $(stat -f -c %T /sys/fs/bpf) == bpf_fs ]]
  [[ -e /sys/kernel/tracing/available_events && -e /sys/kernel/btf/vmlinux ]]
  mkdir /sys/fs/cgroup/mesh-smoke
  rmdir /sys/fs/cgroup/mesh-smoke
  [[ $(stat -f -c %T /run) == tmpfs && $(stat -f -c %T /dev/shm) == tmpfs ]]
  echo written >/tmp/mesh-vm-smoke
}

# A cgroup/connect4 program that refuses one port, really attached, really refusing.
bpf_hook_takes_effect() {
  cat >"$work/refuse.bpf.c" <<'CODE'
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
SEC("cgroup/connect4") int mesh_smoke(struct bpf_sock_addr *ctx)
{
	return ctx->user_port != bpf_htons(7);
}
char _license[] SEC("license") = "Dual BSD/GPL";
CODE
  clang-14 -target bpf -mcpu=v3 -O2 -g -idirafter "/usr/include/$(uname -m)-linux-gnu" \
    -c "$work/refuse.bpf.c" -o "$work/refuse.bpf.o"
  bpftool prog load "$work/refuse.bpf.o" /sys/fs/bpf/mesh-smoke
  bpftool cgroup attach /sys/fs/cgroup connect4 pinned /sys/fs/bpf/mesh-smoke
  python3 - <<'CODE'
import errno, socket
def connect(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port))
assert connect(7) == errno.EPERM, connect(7)
assert connect(8) == errno.ECONNREFUSED, connect(8)
CODE
  bpftool cgroup detach /sys/fs/cgroup connect4 pinned /sys/fs/bpf/mesh-smoke
  rm /sys/fs/bpf/mesh-smoke
}

# Both ends keyed: the reader gets the text, and it is not on the wire as such.
kernel_tls_carries_data() {
  grep -q '^tls ' /proc/modules
  python3 - <<'CODE'
import socket, struct
TCP_ULP, SOL_TLS, TLS_TX, TLS_RX = 31, 282, 1, 2
keys = struct.pack("<HH", 0x0304, 51) + b"i" * 8 + b"k" * 16 + b"s" * 4 + b"\0" * 8
def pair():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    return client, listener.accept()[0]
client, server = pair()
for end in (client, server):
    end.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
client.setsockopt(SOL_TLS, TLS_TX, keys)
server.setsockopt(SOL_TLS, TLS_RX, keys)
client.sendall(b"in the clear?")
assert server.recv(100) == b"in the clear?"
client, server = pair()
client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
client.setsockopt(SOL_TLS, TLS_TX, keys)
client.sendall(b"in the clear?")
wire = server.recv(100)
assert wire[:3] == b"\x17\x03\x03" and b"clear" not in wire, wire
CODE
}

# Two namespaces with the guest as router between them; the first is masqueraded by nft and its link
# is delayed by netem. The server must see the router's address, not before the delay.
netem_and_masquerade() {
  local side
  for side in a b; do
    ip netns add "mt-smoke-$side"
    ip link add "smoke-$side" type veth peer name eth0 netns "mt-smoke-$side"
    ip link set "smoke-$side" up
    ip -n "mt-smoke-$side" link set eth0 up
  done
  ip addr add 192.0.2.1/25 dev smoke-a
  ip addr add 192.0.2.129/25 dev smoke-b
  ip -n mt-smoke-a addr add 192.0.2.2/25 dev eth0
  ip -n mt-smoke-b addr add 192.0.2.130/25 dev eth0
  ip -n mt-smoke-a route add default via 192.0.2.1
  sysctl -qw net.ipv4.ip_forward=1
  nft add table ip mesh_smoke
  nft add chain ip mesh_smoke post '{ type nat hook postrouting priority 100 ; }'
  nft add rule ip mesh_smoke post ip saddr 192.0.2.0/25 oifname smoke-b masquerade
  tc qdisc add dev smoke-a root netem delay 300ms
  cat >"$work/server.py" <<'CODE'
import socket, sys
with socket.create_server(("192.0.2.130", 7000)) as listener:
    open(sys.argv[1], "w").close()
    connection, peer = listener.accept()
    connection.sendall(peer[0].encode())
CODE
  ip netns exec mt-smoke-b timeout 60 python3 "$work/server.py" "$work/listening" &
  while [[ ! -e $work/listening ]]; do
    kill -0 $!
    sleep 0.1
  done
  ip netns exec mt-smoke-a python3 - <<'CODE'
import socket, time
start = time.monotonic()
with socket.create_connection(("192.0.2.130", 7000), timeout=30) as s:
    assert time.monotonic() - start >= 0.3, "not delayed"
    seen = s.recv(100).decode()
assert seen == "192.0.2.129", seen
CODE
  wait
  nft delete table ip mesh_smoke
  ip netns del mt-smoke-a
  ip netns del mt-smoke-b
  sysctl -qw net.ipv4.ip_forward=0
}

check cgroup2_and_file_systems
check bpf_hook_takes_effect
check kernel_tls_carries_data
check netem_and_masquerade
rm -rf "$work"
exit "$failed"
