#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up, builds, and shows a node with two pods in one mesh: from a fresh clone on bare Debian 12, as root.
#
# Usage: scripts/demo.sh [--vm | --no-vm] [--no-setup] [--build-dir DIR]
#   --vm            the whole demonstration in a virtual machine with Debian's 6.12 kernel
#   --no-vm         never start one. Default: only for the accelerated pair, if this kernel refuses it
#   --no-setup      do not install packages
#   --build-dir DIR another place than build/release
# The node and the pods are network namespaces and a cgroup of the demonstration's own: this machine's traffic is
# not touched, and everything is gone at the end.
set -euo pipefail

ROOT=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$ROOT"
PATH=$PATH:/usr/sbin:/sbin

# One compound command: the shell has read all of it before it runs any.
{

vm=auto
setup=1
build=$ROOT/build/release
part=all
while (($# > 0)); do
  case $1 in
    --vm) vm=yes && shift ;;
    --no-vm) vm=no && shift ;;
    --no-setup) setup=0 && shift ;;
    --build-dir) build=${2:?--build-dir needs a value} && shift 2 ;;
    --built) part=${2:?} && shift 2 ;; # in the virtual machine: nothing to set up or build
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) echo "demo: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
  esac
done
agent=$build/agent/mesh-agent
inside_vm=${MESH_VM:+1}

heading() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
note() { printf '   %s\n' "$*"; }
indent() { sed 's/^/   /'; }
die() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

[[ $(id -u) == 0 ]] || die "namespaces and BPF programs need root: run this as root"

# --- set up and build -----------------------------------------------------------------------------

# Ninja's lines -> one line a tenth of the way.
progress() {
  local line percent last=0
  while IFS= read -r line; do
    [[ $line =~ ^\[\ *([0-9]+)%\] ]] || continue
    percent=${BASH_REMATCH[1]}
    ((percent / 10 > last / 10)) || continue
    last=$percent
    note "building: $percent %"
  done
}

if [[ -z $inside_vm ]]; then
  heading "Set up and build (some minutes the first time)"
  ((setup == 0)) || scripts/setup.sh
  mkdir -p "$build"
  [[ -e $build/build.ninja ]] || cmake -S . -B "$build" -G Ninja >"$build/configure.log" 2>&1 ||
    { cat "$build/configure.log" >&2 && die "cmake failed"; }
  NINJA_STATUS='[%p] ' ninja -C "$build" mesh-agent 2>&1 | tee "$build/demo-build.log" | progress ||
    { tail -n 30 "$build/demo-build.log" >&2 && die "the build failed"; }
  note "$("$agent" version), kernel $(uname -r)"
fi

in_vm() {
  scripts/vm/run.sh --kernel 6.12 --timeout 900 -- scripts/demo.sh --no-vm --build-dir "$build" --built "$1"
}

if [[ $vm == yes && -z $inside_vm ]]; then
  heading "The rest happens in a virtual machine with Debian's 6.12 kernel"
  in_vm all
  exit
fi

# --- the stage ------------------------------------------------------------------------------------

node=mesh-demo-node
pins=/sys/fs/bpf/mesh-demo
work=$(mktemp -d /tmp/mesh-demo-XXXXXX)
socket=$work/agent.sock
cgroup_mount=""
bpffs_mounted=0
cgroup=""
agent_pid=""
pids=()

# shellcheck disable=SC2317  # called by the trap
cleanup() {
  local status=$? pid
  trap - EXIT INT TERM
  set +e
  if ((status != 0)) && [[ -s $work/agent.log ]]; then
    printf '\n--- the log of mesh-agent\n' >&2
    tail -n 20 "$work/agent.log" >&2
  fi
  for pid in "${pids[@]}" $agent_pid; do
    kill -KILL "$pid"
    wait "$pid"
  done 2>/dev/null
  if [[ -n $cgroup && -d $cgroup ]]; then
    while read -r pid; do kill -KILL "$pid"; done <"$cgroup/cgroup.procs" 2>/dev/null
  fi
  "$agent" cleanup --pin-dir "$pins" >/dev/null 2>&1
  for namespace in mesh-demo-client mesh-demo-server "$node"; do
    ip netns del "$namespace" 2>/dev/null
  done
  if [[ -n $cgroup ]]; then
    for ((i = 0; i < 50; i++)); do
      rmdir "$cgroup" 2>/dev/null && break
      sleep 0.1
    done
  fi
  [[ -z $cgroup_mount ]] || umount "$cgroup_mount"
  ((bpffs_mounted == 0)) || umount /sys/fs/bpf
  rm -rf "$work"
  exit "$status"
}

# A command in the namespace of a pod or of the node, and in the cgroup that the mesh is attached to. Not with
# `ip netns exec`: that would hide /sys/fs/bpf and the cgroups.
inside() {
  bash -c 'echo 0 >"$1/cgroup.procs" && shift && exec nsenter "$@"' inside "$cgroup" "--net=/run/netns/$1" "${@:2}"
}
pod() { inside "mesh-demo-$1" "${@:2}"; }

build_stage() {
  local name host
  ! ip netns list | grep -q '^mesh-demo-' || die "namespaces mesh-demo-* exist: is another demonstration running?"
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [[ $(stat -f -c %T /sys/fs/bpf 2>/dev/null) != bpf_fs ]]; then
    mount -t bpf bpf /sys/fs/bpf
    bpffs_mounted=1
  fi
  cgroup=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
  if [[ -z $cgroup ]]; then
    cgroup_mount=$work/cgroup
    mkdir "$cgroup_mount"
    mount -t cgroup2 cgroup2 "$cgroup_mount"
    cgroup=$cgroup_mount
  fi
  cgroup=$cgroup/mesh-demo
  mkdir -p "$cgroup"

  ip netns add "$node"
  ip -n "$node" link set lo up
  ip -n "$node" link add br0 type bridge
  ip -n "$node" addr add 10.99.0.1/24 dev br0
  ip -n "$node" link set br0 up
  host=10
  for name in client server; do
    ip netns add "mesh-demo-$name"
    ip -n "mesh-demo-$name" link set lo up
    ip -n "$node" link add "v$name" type veth peer name eth0 netns "mesh-demo-$name"
    ip -n "$node" link set "v$name" master br0 up
    ip -n "mesh-demo-$name" addr add "10.99.0.$host/24" dev eth0
    ip -n "mesh-demo-$name" link set eth0 up
    ip -n "mesh-demo-$name" route add default via 10.99.0.1
    host=$((host + 1))
  done
}

write_services() {
  mkdir "$work/services"
  cat >"$work/services/demo.json" <<'JSON'
{"services": [
  {"name": "shop",    "address": "10.99.0.10", "port": 1},
  {"name": "web",     "address": "10.99.0.11", "port": 8080, "protocol": "http"},
  {"name": "relayed", "address": "10.99.0.11", "port": 8081, "protocol": "http", "meta": {"mesh-path": "twoleg"}},
  {"name": "echo",    "address": "10.99.0.11", "port": 8082},
  {"name": "fast",    "address": "10.99.0.11", "port": 8083, "meta": {"mesh-acceleration": "sockmap"}}
]}
JSON
}

start_servers() {
  cat >"$work/nginx.conf" <<CONF
daemon off;
master_process off;
user root;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
  access_log off;
  client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
  uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
  server {
    listen 8080;
    listen 8081;
    location / { return 200 "nginx at \$server_addr:\$server_port saw the client \$remote_addr\n"; }
  }
}
CONF
  cat >"$work/echo.py" <<'CODE'
import socket, sys, threading
def serve(connection):
    with connection:
        connection.settimeout(3600)  # Python waits in poll then, as programs on accelerated connections have to
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(65536):
            connection.sendall(data)
def listen(port):
    with socket.create_server(("0.0.0.0", port)) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
for port in sys.argv[2:]:
    threading.Thread(target=listen, args=(int(port),), daemon=True).start()
threading.Event().wait()
CODE
  # Sends 128 bytes and waits for them, ROUNDS times; then a round every 0.2 s and its number into a file.
  cat >"$work/talk.py" <<'CODE'
import socket, sys, time
host, port, rounds, progress = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
message = b"m" * 128
with socket.create_connection((host, port), timeout=10) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    done = 0
    while True:
        connection.sendall(message)
        left = len(message)
        while left:
            data = connection.recv(left)
            if not data:
                sys.exit("the connection was closed")
            left -= len(data)
        done += 1
        if done >= rounds:
            with open(progress, "w") as file:
                file.write(str(done))
            time.sleep(0.2)
CODE
  pod server nginx -c "$work/nginx.conf" -p "$work" >"$work/nginx.out" 2>&1 &
  pids+=($!)
  pod server python3 "$work/echo.py" serve 8082 8083 >"$work/echo.out" 2>&1 &
  pids+=($!)
  for port in 8080 8082 8083; do
    wait_for "a server on port $port" pod server bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
  done
}

# wait_for WHAT COMMAND...
wait_for() {
  local i what=$1
  shift
  for ((i = 0; i < 300; i++)); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    [[ $what != mesh-agent ]] || kill -0 "$agent_pid" 2>/dev/null || die "mesh-agent ended"
    sleep 0.1
  done
  die "$what: not within 30 seconds"
}

start_agent() {
  # Its own connections pass the hooks, too: it belongs into the cgroup. Not by inside(), whose process would be another.
  bash -c 'echo 0 >"$1/cgroup.procs" && shift && exec nsenter "$@"' agent "$cgroup" \
    "--net=/run/netns/$node" "$agent" --node-cidr 10.99.0.0/24 --node-name demo \
    --config-dir "$work/services" --cgroup-root "$cgroup" --pin-dir "$pins" --admin-socket "$socket" \
    >>"$work/agent.log" 2>&1 &
  agent_pid=$!
  wait_for "mesh-agent" inside "$node" curl -sf http://127.0.0.1:15020/readyz
}

ask() { "$agent" "$@" --admin-socket "$socket"; }
# A word of `status --json`: python expression over `s`.
status() { ask status --json | python3 -c "import json, sys; s = json.load(sys.stdin); print($1)"; }
vip() { status "[x['vip4'] for x in s['services'] if x['name'] == '$1'][0]"; }
request() { pod client curl -sS -m 5 "$@" 2>&1 | indent; }

show() {
  printf '   $ %s\n' "$*"
}

# --- what is shown --------------------------------------------------------------------------------

show_requests() {
  local web relayed
  web=$(vip web)
  relayed=$(vip relayed)
  heading "A service is a name with a virtual address"
  show mesh-agent status
  ask status | indent
  heading "A request to the virtual address: the connect hook sends it to the pod, no hop between"
  show "curl http://$web/            (in the pod client, 10.99.0.10)"
  request "http://$web/"
  heading "A service with mesh-path = twoleg: through the agent, and the server still sees the client"
  show "curl http://$relayed/"
  request "http://$relayed/"
  heading "What nobody serves is refused at once"
  show "curl http://240.200.0.1/"
  request http://240.200.0.1/ || true
  heading "No iptables, no nft, no tc: what is there are BPF programs on a cgroup"
  bpftool cgroup show "$cgroup" 2>/dev/null | awk '/mesh_/ {printf "%-26s %s\n", $2, $NF}' | indent
}

show_metrics() {
  local i
  for i in 1 2 3 4 5; do
    pod client curl -s -o /dev/null "http://$(vip web)/$i"
  done
  heading "Prometheus metrics, counted in BPF"
  show "curl http://NODE:15020/metrics"
  note "(each connection is reported by both ends; here is the client's word)"
  inside "$node" curl -s http://127.0.0.1:15020/metrics |
    grep -E '^mesh_(connections_opened_total|sent_bytes_total|http_requests_total|denied_total)' |
    grep -vE ' 0$|reporter="destination"' | head -n 14 | indent
}

show_kill() {
  local before after relayed
  relayed=$(vip relayed)
  heading "kill -9 of the agent: what needs no agent goes on"
  pod client python3 "$work/talk.py" "$(vip echo)" 80 1 "$work/progress" 2>"$work/talk.err" &
  pids+=($!)
  wait_for "a conversation" test -s "$work/progress"
  show mesh-agent connections
  ask connections | indent
  kill -KILL "$agent_pid"
  { wait "$agent_pid" || true; } 2>/dev/null
  agent_pid=""
  before=$(<"$work/progress")
  note "killed; the open connection had exchanged $before messages"
  note "a new connection to web:"
  request "http://$web_vip/"
  note "a new connection to relayed, which needs the agent:"
  request "http://$relayed/" || true
  sleep 1
  after=$(<"$work/progress")
  ((after > before)) || die "the connection did not live on: $(cat "$work/talk.err")"
  note "the open connection goes on: $after messages"
  start_agent
  note "a new agent: pins $(status "s['pins']"), and relayed answers again:"
  wait_for "the relay" pod client curl -sf -m 2 "http://$relayed/"
  request "http://$relayed/"
}

# wire_bytes: what has come in over the server's interface, frames and all.
wire_bytes() {
  ip -n mesh-demo-server -j -s link show eth0 |
    python3 -c "import json, sys; print(json.load(sys.stdin)[0]['stats64']['rx']['bytes'])"
}

# talk_to SERVICE: 2000 messages of 128 bytes there and back; gives what came in over the interface meanwhile.
talk_to() {
  local before
  before=$(wire_bytes)
  pod client python3 "$work/talk.py" "$(vip "$1")" 80 2000 "$work/talked-$1" 2>"$work/talk.err" >&2 &
  echo $! >"$work/talk-$1.pid"
  wait_for "2000 messages to $1" test -s "$work/talked-$1"
  echo $(($(wire_bytes) - before))
}

# Succeeds if this kernel accelerates.
show_accelerated() {
  local reason plain fast redirected name
  heading "An accelerated pair: mesh-acceleration = sockmap, payload goes from socket to socket"
  reason=$(status "next((d['reason'] for d in s['degraded'] if d['feature'] == 'sockmap'), '')")
  if [[ -n $reason ]]; then
    note "not on this kernel ($(uname -r)): $reason"
    return 1
  fi
  note "2000 messages of 128 bytes to echo, and to fast, which is the same server with acceleration on:"
  plain=$(talk_to echo)
  fast=$(talk_to fast)
  pids+=("$(<"$work/talk-echo.pid")" "$(<"$work/talk-fast.pid")")
  show mesh-agent connections
  ask connections | grep -E 'REPORTER|fast' | indent
  redirected=$(ask connections --json | python3 -c '
import json, sys
redirected = [c.get("sockmap_redirected_bytes", 0) for c in json.load(sys.stdin)["connections"] if c["destination"] == "fast"]
print(max(redirected, default=0))')
  note "what came in over the server's interface: $plain bytes for echo, $fast bytes for fast;"
  note "$redirected bytes of fast, both directions, went past TCP (kernel $(uname -r))"
  ((redirected >= 2 * 2000 * 128)) || die "only $redirected bytes were redirected"
  ((fast * 10 < plain)) || die "the bytes were seen on the wire"
}

write_services
heading "A node with two pods: network namespaces behind a bridge, 10.99.0.0/24"
build_stage
start_servers
start_agent
web_vip=$(vip web)
if [[ $part == all ]]; then
  show_requests
  show_metrics
  show_kill
fi
accelerated=yes
show_accelerated || accelerated=no
if [[ $accelerated == no ]]; then
  [[ -z $inside_vm ]] || die "this kernel should accelerate"
  if [[ $vm == auto && $(uname -m) == x86_64 ]]; then
    note "so this part again, in a virtual machine with Debian's 6.12 kernel (a minute or two):"
    in_vm accelerated
  else
    note "scripts/demo.sh --vm shows it in a virtual machine with Debian's 6.12 kernel"
  fi
fi
if [[ $part == all ]]; then
  heading "Done: everything that was made is taken away again"
fi
exit 0
}
