#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The boot guard: until the agent runs, pods are refused what belongs to the mesh and nothing else; then the agent
# takes over what the guard pinned. Runs in a guest that ran early.sh at its boot (tests/README.md).
# shellcheck disable=SC2317  # finish is called by the trap
set -euo pipefail

if [[ -z ${MESH_VM:-} ]]; then
  echo "guard: run this in a guest: see tests/README.md" >&2
  exit 2
fi
# shellcheck source=tests/vm/boot/lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lib.sh"
agent=${MESH_BUILD_DIR:?}/agent/mesh-agent
work=$(mktemp -d)
agent_pid=""

finish() {
  [[ -z $agent_pid ]] || kill "$agent_pid" 2>/dev/null || true
  # shellcheck disable=SC2046  # a list of numbers
  kill $(jobs -p) 2>/dev/null || true
  [[ $failed == 0 ]] || { echo "--- mesh-agent" && cat "$work/agent.log"; } 2>/dev/null || true
}
trap finish EXIT

# listen NAMESPACE ADDRESS PORT: a server that answers every connection with its name.
listen() {
  local in=()
  [[ $1 == host ]] || in=(nsenter "--net=/run/netns/$1")
  "${in[@]}" python3 - "$2" "$3" "$work/listening-$3" <<'CODE' &
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], int(sys.argv[2])), family=family) as listener:
    open(sys.argv[3], "w").close()
    while True:
        connection, _ = listener.accept()
        connection.close()
CODE
  while [[ ! -e $work/listening-$3 ]]; do
    kill -0 $!
    sleep 0.1
  done
}

expect "the guard's pins are there" yes \
  "$(compgen -G '/sys/fs/bpf/mesh-agent/v*/links/*' >/dev/null && echo yes || echo no)"

make_pods
ip addr add 192.0.2.1/24 dev lo
ip addr add 2001:db8::1/64 dev lo
listen b 10.88.0.3 8080
listen b fd88::3 8081
listen host 192.0.2.1 8082
listen host 2001:db8::1 8083

refused=0
for target in "10.88.0.3 8080" "fd88::3 8081" "240.0.0.1 80" "255.0.0.1 80" "10.88.0.99 80" "10.88.1.5 80"; do
  read -r address port <<<"$target"
  expect "a pod is refused $address" ECONNREFUSED "$(attempt a "$address" "$port")"
  refused=$((refused + 1))
done
expect "a pod reaches what is not the mesh's" connected "$(attempt a 192.0.2.1 8082)"
expect "... by IPv6" connected "$(attempt a 2001:db8::1 8083)"
expect "the node reaches what is not the mesh's" connected "$(attempt host 192.0.2.1 8082)"

mkdir "$work/services"
cat >"$work/services/web.json" <<'JSON'
{"services": [{"name": "web", "address": "10.88.0.3", "port": 8080},
              {"name": "caller", "address": "10.88.0.2", "port": 1}]}
JSON
"$agent" --node-cidr 10.88.0.0/24,fd88::/64 --mesh-cidr 10.88.0.0/16 --config-dir "$work/services" \
  >"$work/agent.log" 2>&1 &
agent_pid=$!
for ((tries = 0; tries < 300; tries++)); do
  if curl -sf http://127.0.0.1:15020/readyz >/dev/null; then break; fi
  kill -0 "$agent_pid" || break
  sleep 0.1
done
status=$("$agent" status --json)
field() { python3 -c "import json, sys; status = json.load(sys.stdin); print($1)" <<<"$status"; }
expect "the agent takes the guard's pins over" adopted "$(field 'status["pins"]')"
expect "it finds both pods" 2 "$(field 'len(status["workloads"])')"
vip=$(field '[s["vip4"] for s in status["services"] if s["name"] == "web"][0]')
expect "the pod reaches the service" connected "$(attempt a "$vip" 80)"
expect "the pod reaches the other pod" connected "$(attempt a 10.88.0.3 8080)"
expect "the refusals of the guard were counted" "$refused" "$(curl -s http://127.0.0.1:15020/metrics |
  sed -n 's/^mesh_denied_total{reason="netns_unclassified"} //p')"
expect "nothing is attached twice" 1 "$(bpftool cgroup show /sys/fs/cgroup | grep -c mesh_connect4)"
exit "$failed"
