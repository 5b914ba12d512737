#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Parts of mesh_guest.sh: two nodes with a pod each and a cable between them, their agents, and pairs of
# proxies that do mutual TLS. Sourced after lib.sh, never run.

# shellcheck disable=SC2034  # constants that only mesh_guest.sh uses
NODE_A=mb-a NODE_B=mb-b
CLIENT_ADDRESS=10.214.1.2 SERVER_ADDRESS=10.214.2.2
PORT_KTLS=9010 PORT_TLS=9443
HELD=1000 # connections that stand open while memory is measured

agent_pids=()

# mesh_node NAME N: the namespace of a node with a bridge for its pods, 10.214.N.0/24.
mesh_node() {
  local name=$1 number=$2
  ip netns add "$name"
  bench_namespaces+=("$name")
  bench_cgroup["$name"]=/sys/fs/cgroup/$name/host
  mkdir -p "${bench_cgroup["$name"]}"
  ip netns exec "$name" sysctl -qw net.ipv4.ip_forward=1
  ip -n "$name" link set lo up
  ip -n "$name" link add br0 type bridge
  ip -n "$name" addr add "10.214.$number.1/24" dev br0
  ip -n "$name" link set br0 up
}

# mesh_cable NODE N OTHER: its side of the cable.
mesh_cable() {
  ip -n "$1" addr add "172.31.0.$2/30" dev cable
  ip -n "$1" link set cable up
  ip -n "$1" route add "10.214.$3.0/24" via "172.31.0.$3"
}

# mesh_pod NAME NODE N
mesh_pod() {
  ip netns add "$1"
  bench_namespaces+=("$1")
  bench_cgroup["$1"]=/sys/fs/cgroup/$2/pod
  mkdir -p "${bench_cgroup["$1"]}"
  ip link add "v$1" netns "$2" type veth peer name eth0 netns "$1"
  ip -n "$2" link set "v$1" master br0 up
  ip -n "$1" link set lo up
  ip -n "$1" addr add "10.214.$3.2/24" dev eth0
  ip -n "$1" link set eth0 up
  ip -n "$1" route add default via "10.214.$3.1"
}

mesh_topology() {
  mesh_node "$NODE_A" 1
  mesh_node "$NODE_B" 2
  ip link add cable netns "$NODE_A" type veth peer name cable netns "$NODE_B"
  mesh_cable "$NODE_A" 1 2
  mesh_cable "$NODE_B" 2 1
  mesh_pod "$CLIENT" "$NODE_A" 1
  mesh_pod "$SERVER" "$NODE_B" 2
}

# mesh_wait_ktls ADDRESS:PORT
mesh_wait_ktls() {
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    ! in_pod "$CLIENT" "$BENCH" crr --kernel-tls --row wait --connect "$1" --request 1 --response 1 \
      --count 1 --warmup 0 --repeats 1 >/dev/null 2>&1 || return 0
    sleep 0.05
  done
  bench_die "$1 does not answer by kernel TLS"
}

# mesh_certificates: root, an intermediate for each side, a leaf of it: ECDSA P-256, as the agent's are.
mesh_certificates() {
  local dir=$BENCH_DIR/certificates
  [[ ! -d $dir ]] || return 0
  mkdir "$dir"
  (
    cd "$dir"
    key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
    # issue NAME ISSUER EXTENSIONS
    issue() {
      key "$1.key"
      openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
      printf '%b' "$3" >"$1.extensions"
      openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 30 -sha256 \
        -extfile "$1.extensions" -out "$1.crt"
    }
    key root.key
    openssl req -x509 -new -key root.key -subj /CN=root -days 30 -sha256 -out root.crt
    for side in client server; do
      issue "node-$side" root 'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n'
      issue "$side" "node-$side" "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:$side.bench.test\n"
      cat "$side.crt" "node-$side.crt" >"$side.chain"
      cat "$side.chain" "$side.key" >"$side.pem"
    done
  ) >"$MESH_BENCH_OUT/certificates.log" 2>&1 || bench_die "no certificates, see certificates.log"
}

# mesh_peer_half NAME client|server POD LISTEN TO
mesh_peer_half() {
  local file command
  case $1 in
    haproxy) file=$(bench_config "haproxy-mesh-$2.cfg" "$4" "$5") && command=(haproxy -db -f "$file") ;;
    nginx) file=$(bench_config "nginx-mesh-$2.conf" "$4" "$5") &&
      command=(nginx -g 'daemon off;' -c "$file") ;;
  esac
  sed -i "s|@CERTIFICATES@|$BENCH_DIR/certificates|g" "$file"
  bench_start "$3" "$1-$2" "${command[@]}"
  peer_pids+=("$started")
}

# mesh_peer NAME: both proxies of a pair; the client's is on 127.0.0.1:$PORT_PROXY of its pod. Their
# process ids are in `peer_pids`.
mesh_peer() {
  mesh_certificates
  peer_pids=()
  mesh_peer_half "$1" server "$SERVER" "0.0.0.0:$PORT_TLS" "127.0.0.1:$PORT_PLAIN"
  mesh_peer_half "$1" client "$CLIENT" "127.0.0.1:$PORT_PROXY" "$SERVER_ADDRESS:$PORT_TLS"
  bench_wait "$CLIENT" "127.0.0.1:$PORT_PROXY"
}

mesh_peer_stop() {
  local pid
  for pid in "${peer_pids[@]}"; do bench_stop "$pid"; done
}

mesh_identities() {
  {
    "$AGENT" ca init --trust-domain bench.test --dir "$BENCH_DIR/ca"
    "$AGENT" ca issue-node --dir "$BENCH_DIR/ca" --node a --out "$BENCH_DIR/identity-a"
    "$AGENT" ca issue-node --dir "$BENCH_DIR/ca" --node b --out "$BENCH_DIR/identity-b"
  } >"$MESH_BENCH_OUT/ca.log" 2>&1 || bench_die "no identities, see ca.log"
  mkdir "$BENCH_DIR/config"
  cat >"$BENCH_DIR/config/mesh.json" <<EOF
{"nodes": [
  {"name": "a", "address": "172.31.0.1", "cidrs": ["10.214.1.0/24"]},
  {"name": "b", "address": "172.31.0.2", "cidrs": ["10.214.2.0/24"]}
 ],
 "services": [
  {"name": "bench-caller", "address": "$CLIENT_ADDRESS", "port": 1},
  {"name": "bench-server", "address": "$SERVER_ADDRESS", "port": $PORT_PLAIN}
]}
EOF
}

# agent_of a|b COMMAND...
agent_of() { MESH_AGENT_ADMIN_SOCKET=$BENCH_DIR/$1.sock "$AGENT" "${@:2}"; }

# mesh_agents [OPTION...]: one on each node, `vip` is the server's.
mesh_agents() {
  local name node number=1
  agent_pids=()
  for name in a b; do
    node=mb-$name
    bench_start "$node" "agent-$name" "$AGENT" --node-name "$name" --node-cidr "10.214.$number.0/24" \
      --config-dir "$BENCH_DIR/config" --identity-dir "$BENCH_DIR/identity-$name" \
      --metrics-listen "$METRICS" --cgroup-root "/sys/fs/cgroup/$node" --pin-dir "/sys/fs/bpf/$node" \
      --admin-socket "$BENCH_DIR/$name.sock" --relay-threads 1 "$@"
    agent_pids+=("$started")
    number=$((number + 1))
  done
  export MESH_AGENT_ADMIN_SOCKET=$BENCH_DIR/a.sock
  agent_pid=${agent_pids[0]} # bench_vip watches it
  vip=$(bench_vip bench-server):$PORT_PLAIN
  agent_pid=""
  bench_wait "$CLIENT" "$vip"
}

mesh_agents_stop() {
  local pid name
  for pid in "${agent_pids[@]}"; do bench_stop "$pid"; done
  for name in a b; do
    MESH_AGENT_PIN_DIR=/sys/fs/bpf/mb-$name MESH_AGENT_CGROUP_ROOT=/sys/fs/cgroup/mb-$name \
      MESH_AGENT_ADMIN_SOCKET=$BENCH_DIR/$name.sock "$AGENT" cleanup
  done
}

# agents_set KEY=VALUE...: on both nodes.
agents_set() {
  agent_of a debug set "$@" >/dev/null
  agent_of b debug set "$@" >/dev/null
}

# The client's agent is asked.
bench_metric() {
  ip netns exec "$NODE_A" curl -sSf "http://$METRICS/metrics" |
    awk -v pattern="$1" '$0 ~ pattern {sum += $NF} END {printf "%d\n", sum}'
}

slab_bytes() { awk '$1 == "Slab:" {print $2 * 1024}' /proc/meminfo; }

# Of these processes and their children (nginx has a worker).
resident_bytes() {
  local pid
  for pid in "$@"; do
    printf '%s\n' "$pid"
    cat "/proc/$pid/task/$pid/children"
  done | xargs -n 1 | while read -r pid; do cat "/proc/$pid/status"; done |
    awk '/^VmRSS:/ {sum += $2} END {print sum * 1024}'
}

# measure_memory ROW ADDRESS:PORT [PID...]: what each of HELD open connections holds, of the kernel's slab
# and of these processes. MEMORY_OPTIONS are the client's.
measure_memory() {
  local row=$1 address=$2 slab_before slab rss_before=0 rss=0 tries holder
  shift 2
  sleep 70 # what stood in TIME_WAIT or idled in a pool is gone
  slab_before=$(slab_bytes)
  (($# == 0)) || rss_before=$(resident_bytes "$@")
  bench_start "$CLIENT" "hold-$row" "$BENCH" hold --connect "$address" --count "$HELD" \
    "${MEMORY_OPTIONS[@]}"
  holder=$started
  for ((tries = 0; tries < 36000; tries++)); do
    ! grep -qx held "$MESH_BENCH_OUT/hold-$row.log" || break
    kill -0 "$holder" 2>/dev/null || bench_die "$row: $(cat "$MESH_BENCH_OUT/hold-$row.log")"
    sleep 0.1
  done
  sleep 2
  slab=$(slab_bytes)
  (($# == 0)) || rss=$(resident_bytes "$@")
  bench_stop "$holder"
  printf '{"row":"%s","mode":"memory-slab","ns":[%d]}\n' "$row" $(((slab - slab_before) / HELD)) >>"$RESULTS"
  ((rss - rss_before < HELD)) ||
    printf '{"row":"%s","mode":"memory-rss","ns":[%d]}\n' "$row" $(((rss - rss_before) / HELD)) >>"$RESULTS"
}
