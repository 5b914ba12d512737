#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Parts of guest.sh, mesh_guest.sh and wall.sh: pods, servers, proxies and the agent of a benchmark.
# Sourced, never run.
#
# Expects MESH_BENCH_BUILD (the build directory) and MESH_BENCH_OUT (a directory for results and logs).

# shellcheck disable=SC2034  # constants that only the scripts use that source this
BENCH_HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
BENCH=$MESH_BENCH_BUILD/tests/bench/mesh-bench
RELAY=$MESH_BENCH_BUILD/tests/bench/mesh-relay-bench
AGENT=$MESH_BENCH_BUILD/agent/mesh-agent
RESULTS=$MESH_BENCH_OUT/results.jsonl
BENCH_DIR=$(mktemp -d /tmp/mesh-bench-XXXXXX)
PATH=$PATH:/usr/sbin:/sbin

# Pods of the node's range, and two beside it that the agent leaves alone (wall.sh).
POD_CIDR=10.213.0.0/24
CLIENT=mb-client
SERVER=mb-server
SERVER_ADDRESS=10.213.0.3
# Ports of the one server: what the agent makes of each is decided by its service.
PORT_PLAIN=9000 PORT_ACCEL=9002 PORT_RELAY=9003 PORT_HTTP=9004
PORT_BLOCKING=9008
PORT_PROXY=9100
METRICS=127.0.0.1:15020

started=""
bench_pids=()
bench_namespaces=()
bench_bridges=()
declare -A bench_cgroup=() # of a namespace, where its processes have one of their own
agent_pid=""

bench_log() { printf 'bench: %s\n' "$*" >&2; }

bench_die() {
  bench_log "$*"
  exit 1
}

# Ends one process that bench_start started, and waits for it.
bench_stop() {
  local pid=$1 kept=() other
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  for other in "${bench_pids[@]}"; do
    [[ $other == "$pid" ]] || kept+=("$other")
  done
  bench_pids=("${kept[@]}")
}

bench_cleanup() {
  local status=$? item
  trap - EXIT
  for item in "${bench_pids[@]}"; do bench_stop "$item"; done
  if [[ -n $agent_pid ]]; then
    "$AGENT" cleanup || true
  fi
  for item in "${bench_namespaces[@]}"; do ip netns del "$item" 2>/dev/null || true; done
  for item in "${bench_bridges[@]}"; do ip link del "$item" 2>/dev/null || true; done
  rm -rf "$BENCH_DIR"
  exit "$status"
}

# bench_enter NAMESPACE|-: sets `enter` to the words before a command that is to run there.
bench_enter() {
  enter=(ip netns exec "$1")
  if [[ $1 == - ]]; then
    enter=(env)
  elif [[ -n ${bench_cgroup[$1]:-} ]]; then
    # nsenter, because `ip netns exec` mounts a new /sys, in which bpffs and cgroup2 are missing.
    # shellcheck disable=SC2016  # for the inner shell
    enter=(sh -c 'echo $$ >"$0" && exec "$@"' "${bench_cgroup[$1]}/cgroup.procs" nsenter
      "--net=/run/netns/$1")
  fi
}

# bench_start NAMESPACE|- LOG COMMAND...: in the background, output to a file; the process id, which is
# the command's own, is in `started`.
bench_start() {
  local enter
  bench_enter "$1"
  "${enter[@]}" "${@:3}" >"$MESH_BENCH_OUT/$2.log" 2>&1 </dev/null &
  started=$!
  bench_pids+=("$started")
}

# bench_local_copies: the programs in memory. The guest of the measuring VM reads the host's files through
# 9p, and its clock leaps while it waits for them: nothing may be read once a measurement runs.
bench_local_copies() {
  local name program
  mkdir "$BENCH_DIR/bin"
  for name in BENCH RELAY AGENT; do
    program=${!name}
    [[ -x $program ]] || continue
    cp "$program" "$BENCH_DIR/bin/"
    printf -v "$name" '%s' "$BENCH_DIR/bin/${program##*/}"
  done
  for program in "$BENCH_DIR"/bin/* "$(command -v haproxy)" "$(command -v nginx)" "$(command -v curl)"; do
    ldd "$program" | awk '$3 ~ /^\// {print $3}' | xargs cat "$program" >/dev/null
  done
  cat /usr/lib/nginx/modules/ngx_stream_module.so >/dev/null
}

# bench_bridge NAME ADDRESS/PREFIX
bench_bridge() {
  ip link add "$1" type bridge
  bench_bridges+=("$1")
  ip addr add "$2" dev "$1"
  ip link set "$1" up
}

# bench_pod NAME BRIDGE ADDRESS/PREFIX GATEWAY: a namespace on a veth pair, as a CNI plugin makes it.
bench_pod() {
  ip netns add "$1"
  bench_namespaces+=("$1")
  ip link add "v$1" type veth peer name eth0 netns "$1"
  ip link set "v$1" master "$2" up
  ip -n "$1" link set lo up
  ip -n "$1" addr add "$3" dev eth0
  ip -n "$1" link set eth0 up
  ip -n "$1" route add default via "$4"
}

in_pod() {
  local enter
  bench_enter "$1"
  "${enter[@]}" "${@:2}"
}

# bench_wait NAMESPACE ADDRESS:PORT [OPTION]: until a connection has been served.
bench_wait() { in_pod "$1" "$BENCH" wait --connect "$2" "${@:3}" || bench_die "$2 does not answer in $1"; }

# bench_servers NAMESPACE
bench_servers() {
  local listen=() port
  for port in "$PORT_PLAIN" "$PORT_ACCEL" "$PORT_RELAY" "$PORT_HTTP"; do
    listen+=(--listen "0.0.0.0:$port")
  done
  bench_start "$1" "server-$1" "$BENCH" server "${listen[@]}"
  bench_wait "$1" "127.0.0.1:$PORT_HTTP"
}

# measure NAMESPACE ROW MODE ADDRESS:PORT [OPTION...]
measure() {
  in_pod "$1" "$BENCH" "$3" --row "$2" --connect "$4" "${@:5}" >>"$RESULTS"
}

# bench_config TEMPLATE LISTEN SERVER: prints the name of the filled-in copy.
bench_config() {
  local file
  file=$(mktemp "$BENCH_DIR/${1%.*}-XXXXXX")
  sed -e "s|@LISTEN@|$2|" -e "s|@SERVER@|$3|" -e "s|@PID@|$file.pid|" "$BENCH_HERE/$1" >"$file"
  printf '%s\n' "$file"
}

# bench_haproxy NAMESPACE SERVER:PORT, bench_nginx the same: one hop on 127.0.0.1:$PORT_PROXY.
bench_haproxy() {
  bench_start "$1" "haproxy-$1" haproxy -db -f \
    "$(bench_config haproxy.cfg "127.0.0.1:$PORT_PROXY" "$2")"
  bench_wait "$1" "127.0.0.1:$PORT_PROXY"
}

bench_nginx() {
  bench_start "$1" "nginx-$1" nginx -g 'daemon off;' -c \
    "$(bench_config nginx.conf "127.0.0.1:$PORT_PROXY" "$2")"
  bench_wait "$1" "127.0.0.1:$PORT_PROXY"
}

bench_relay() {
  bench_start "$1" "relay-$1" "$RELAY" --listen "127.0.0.1:$PORT_PROXY" --connect "$2"
  bench_wait "$1" "127.0.0.1:$PORT_PROXY"
}

# The agent with one service for each way that it can carry a connection.
bench_agent() {
  [[ -x $AGENT ]] || bench_die "$AGENT is not built"
  mkdir "$BENCH_DIR/config"
  cat >"$BENCH_DIR/config/services.json" <<EOF
{"services": [
  {"name": "bench-plain", "address": "$SERVER_ADDRESS", "port": $PORT_PLAIN},
  {"name": "bench-accel", "address": "$SERVER_ADDRESS", "port": $PORT_ACCEL,
   "meta": {"mesh-acceleration": "sockmap"}},
  {"name": "bench-relay", "address": "$SERVER_ADDRESS", "port": $PORT_RELAY,
   "meta": {"mesh-path": "twoleg"}}
]}
EOF
  bench_start - agent "$AGENT" --node-cidr "$POD_CIDR" --config-dir "$BENCH_DIR/config" \
    --metrics-listen "$METRICS" --pin-dir /sys/fs/bpf/mesh-bench --admin-socket "$BENCH_DIR/agent.sock"
  agent_pid=$started
  export MESH_AGENT_PIN_DIR=/sys/fs/bpf/mesh-bench MESH_AGENT_ADMIN_SOCKET=$BENCH_DIR/agent.sock
  VIP_PLAIN=$(bench_vip bench-plain):$PORT_PLAIN
  VIP_ACCEL=$(bench_vip bench-accel):$PORT_ACCEL
  VIP_RELAY=$(bench_vip bench-relay):$PORT_RELAY
  local vip
  for vip in "$VIP_PLAIN" "$VIP_ACCEL" "$VIP_RELAY"; do bench_wait "$CLIENT" "$vip"; done
}

# A service that speaks HTTP: from now on the sniffer is attached.
bench_agent_http() {
  cat >"$BENCH_DIR/config/http.json" <<EOF
{"service": {"name": "bench-http", "address": "$SERVER_ADDRESS", "port": $PORT_HTTP, "protocol": "http"}}
EOF
  VIP_HTTP=$(bench_vip bench-http):$PORT_HTTP
  bench_wait "$CLIENT" "$VIP_HTTP"
}

bench_agent_no_http() {
  local tries
  rm "$BENCH_DIR/config/http.json"
  for ((tries = 0; tries < 200; tries++)); do
    "$AGENT" status --json | python3 "$BENCH_HERE/vip.py" bench-http >/dev/null 2>&1 || return 0
    sleep 0.05
  done
  bench_die "the agent does not forget a service"
}

bench_agent_stop() {
  bench_stop "$agent_pid"
  agent_pid=""
  "$AGENT" cleanup
}

# bench_vip SERVICE: prints its IPv4 VIP as soon as the agent knows the service.
bench_vip() {
  local tries vip
  for ((tries = 0; tries < 200; tries++)); do
    if vip=$("$AGENT" status --json 2>/dev/null | python3 "$BENCH_HERE/vip.py" "$1"); then
      printf '%s\n' "$vip"
      return
    fi
    kill -0 "$agent_pid" 2>/dev/null || bench_die "the agent ended: $(tail -n 3 "$MESH_BENCH_OUT/agent.log")"
    sleep 0.05
  done
  bench_die "the agent gives no VIP for $1"
}

# bench_metric REGEX: prints the sum of the samples that match.
bench_metric() {
  curl -sSf "http://$METRICS/metrics" | awk -v pattern="$1" '$0 ~ pattern {sum += $NF} END {printf "%d\n", sum}'
}

# bench_expect REGEX COMMAND...: runs the command, which must raise the sum of these samples. A row
# that was carried in another way than its name says must never get into the table.
bench_expect() {
  local before after
  before=$(bench_metric "$1")
  "${@:2}"
  after=$(bench_metric "$1")
  ((after > before)) || bench_die "$1 stayed at $before during: ${*:2}"
}
