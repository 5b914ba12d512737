#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the checks of this folder share: reports and pods. Sourced, never run.

# shellcheck disable=SC2034  # read by who sources this
failed=0

# expect NAME WANTED GOT
expect() {
  if [[ $3 == "$2" ]]; then
    printf 'ok   %s\n' "$1"
  else
    printf 'NOT  %s: wanted %s, got %s\n' "$1" "$2" "$3"
    failed=1
  fi
}

# attempt NAMESPACE ADDRESS PORT: connected, or the name of the error.
attempt() {
  local in=()
  [[ $1 == host ]] || in=(nsenter "--net=/run/netns/$1")
  "${in[@]}" python3 - "$2" "$3" <<'CODE'
import errno, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as s:
    s.settimeout(5)
    try:
        s.connect((sys.argv[1], int(sys.argv[2])))
        print("connected")
    except TimeoutError:
        print("timeout")
    except OSError as error:
        print(errno.errorcode[error.errno])
CODE
}

# make_pods: namespaces a (10.88.0.2, fd88::2) and b (10.88.0.3, fd88::3) at a bridge of the node (10.88.0.1, fd88::1).
make_pods() {
  local pod name host
  ip link add br0 type bridge
  ip addr add 10.88.0.1/24 dev br0
  ip addr add fd88::1/64 dev br0 nodad
  ip link set br0 up
  for pod in a:2 b:3; do
    name=${pod%:*} host=${pod#*:}
    ip netns add "$name"
    ip link add "v$name" type veth peer name eth0 netns "$name"
    ip link set "v$name" master br0 up
    ip -n "$name" link set lo up
    ip -n "$name" addr add "10.88.0.$host/24" dev eth0
    ip -n "$name" addr add "fd88::$host/64" dev eth0 nodad
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via 10.88.0.1
    ip -n "$name" route add default via fd88::1
  done
}
