#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One of the two guests of tests/vm/pair/check.sh: a node of the mesh with its pods, which does what check.sh asks.
#
# Usage: node.sh SIDE DIR     SIDE is 1 or 2; DIR is shared with check.sh, DIR/SIDE is ours
# A request is a file DIR/SIDE/call-N with a line of shell that may use the functions below; its output goes to out-N,
# its status to done-N. `quit` ends us, and so do ten minutes without a request.
# shellcheck disable=SC2317  # the functions are called by requests
set -euo pipefail

if [[ -z ${MESH_VM:-} ]]; then
  echo "node: run this in a guest: see check.sh" >&2
  exit 2
fi
side=$1
dir=$2
other=$((3 - side))
own=$dir/$side
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
agent=${MESH_BUILD_DIR:?}/agent/mesh-agent
work=/run/pair
capture=$work/cable.pcap
readonly METRICS=http://127.0.0.1:15020

wait_for() { # WHAT SECONDS COMMAND...
  local what=$1 end=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { echo "$what: not in time" >&2 && return 1; }
    sleep 0.1
  done
}

pod() { nsenter "--net=/run/netns/$1" "${@:2}"; }
export -f pod # for background

# background NAME COMMAND...: outlives the request; its output is in DIR/SIDE/NAME.log, its status in NAME.status.
background() {
  local name=$1
  shift
  rm -f "$work/$name.status"
  # shellcheck disable=SC2016  # for the inner shell
  setsid bash -c '"${@:3}"; echo $? >"$1/$2.status"' background "$work" "$name" "$@" \
    </dev/null >>"$own/$name.log" 2>&1 &
  echo $! >"$work/$name.pid"
}

setup() {
  local name host
  mkdir -p "$work"
  cd "$work"
  ip link set eth0 up
  ip addr add "172.31.0.$side/24" dev eth0
  ip addr add "fd31::$side/64" dev eth0 nodad
  sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip link add br0 type bridge
  ip addr add "10.71.$side.1/24" dev br0
  ip addr add "fd71:0:0:$side::1/64" dev br0 nodad
  ip link set br0 up
  ip route add "10.71.$other.0/24" via "172.31.0.$other"
  ip route add "fd71:0:0:$other::/64" via "fd31::$other"
  for name in client:10 stranger:11 web:12 store:13 talk:14; do
    host=${name#*:} name=${name%:*}
    ip netns add "$name"
    ip link add "v$name" type veth peer name eth0 netns "$name"
    ip link set "v$name" master br0 up
    ip -n "$name" link set lo up
    ip -n "$name" addr add "10.71.$side.$host/24" dev eth0
    ip -n "$name" addr add "fd71:0:0:$side::$host/64" dev eth0 nodad
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via "10.71.$side.1"
    ip -n "$name" route add default via "fd71:0:0:$side::1"
  done
}

serve() {
  mkdir -p html
  printf 'nginx of node %s says plaintext-of-the-pair-must-stay-within-its-node\n' "$side" >html/index.html
  cat >nginx.conf <<CONF
daemon off;
master_process off;
user root;
pid $work/nginx.pid;
error_log $work/nginx.error;
events {}
http {
  log_format who '\$remote_addr \$request_uri \$status';
  access_log $work/nginx.access who;
  client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
  uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
  server { listen 8080; listen [::]:8080; root $work/html; }
}
CONF
  background nginx pod web nginx -c "$work/nginx.conf" -p "$work"
  background redis pod store redis-server --bind 0.0.0.0 --protected-mode no --save '' \
    --appendonly no --dir "$work"
  background talk pod talk python3 "$here/talk.py" serve 9000
  wait_for nginx 60 pod web curl -sf http://127.0.0.1:8080/
  wait_for redis 60 pod store redis-cli ping
  wait_for "the server of talk" 60 test -e accepted-9000
}

flags() {
  printf '%s\n' --node-name "node-$side" --node-cidr "10.71.$side.0/24" --node-cidr "fd71:0:0:$side::/64" \
    --mesh-cidr 10.71.0.0/16 --mesh-cidr fd71::/32 --config-dir "$own/config" --identity-dir "$own/identity"
}
guard() {
  local arguments
  mapfile -t arguments < <(flags)
  "$agent" guard "${arguments[@]}"
}
ready() { curl -sf "$METRICS/readyz"; }
begin_agent() { # MORE...
  local arguments
  mapfile -t arguments < <(flags)
  background agent "$agent" "${arguments[@]}" "$@"
  # The program itself, not the shell above it.
  wait_for "the process of the agent" 20 agent_pid
}
agent_pid() { pgrep -P "$(<"$work/agent.pid")" -x mesh-agent; }
kill_agent() { kill -KILL "$(agent_pid)"; }
start_agent() {
  begin_agent
  wait_for "the agent is ready" 60 ready
}
# An agent ends at a moment of its own, another one while it starts, the third one stays.
kill_while_busy() { # MS_BEFORE MS_AFTER MS_OF_START
  sleep_ms "$1"
  kill_agent
  sleep_ms "$2"
  begin_agent
  sleep_ms "$3"
  kill_agent
  start_agent
}
sleep_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
take_over() {
  local old
  old=$(agent_pid)
  begin_agent --takeover
  wait_for "the former agent ends" 60 gone "$old"
  wait_for "its successor is ready" 60 ready
}
gone() { ! kill -0 "$1"; }

enrolled() { # COUNT: so many workloads have their identity
  "$agent" status --json |
    python3 -c 'import json, sys
seen = sum(w["identity"] is not None for w in json.load(sys.stdin)["workloads"])
sys.exit(seen != int(sys.argv[1]))' "$1"
}
vip() { # SERVICE vip4|vip6
  "$agent" status --json |
    python3 -c 'import json, sys
print(next(s[sys.argv[2]] for s in json.load(sys.stdin)["services"] if s["name"] == sys.argv[1]))' "$1" "$2"
}
metric() { # NAME LABELS: the sum
  curl -sf "$METRICS/metrics" | awk -v name="$1" -v labels="${2:-}" '
    index($1, name "{") == 1 && (labels == "" || index($1, labels)) {sum += $2} END {print sum + 0}'
}
metric_is() { [[ $(metric "$2" "$3") == "$1" ]]; } # VALUE NAME LABELS

# The kernel of this node makes the records of the open connection to SERVICE: the agent says so and the kernel does.
kernel_tls() { # SERVICE POD
  local name
  "$agent" connections --json |
    python3 -c 'import json, sys
found = [c for c in json.load(sys.stdin)["connections"] if c["destination"] == sys.argv[1] and "tls" in c]
assert found, "no connection to " + sys.argv[1]
tls = found[0]["tls"]
print(tls["cipher"], tls["handshake"], tls["leg"], "records", tls["records_sent"], tls["records_received"])
assert tls["kernel_tx"] and tls["kernel_rx"], tls
cipher = "-".join(tls["cipher"].split("_")[1:-1])
assert tls["ulp"] == {"name": "tls", "version": "1.3", "cipher": cipher, "tx": "software", "rx": "software"}, tls
assert tls["records_sent"] > 1 and tls["records_received"] > 1, tls' "$1"
  for name in TlsCurrTxSw TlsCurrRxSw TlsTxSw TlsRxSw; do
    # shellcheck disable=SC2016  # awk's
    pod "$2" awk -v name="$name" '$1 == name {print; found = $2 > 0} END {exit !found}' /proc/net/tls_stat
  done
  # shellcheck disable=SC2016  # awk's
  pod "$2" awk '/Error/ && $2 > 0 {print; bad = 1} END {exit bad}' /proc/net/tls_stat
  pod "$2" ss -tien '( sport = :15008 or dport = :15008 )' | grep -o 'tcp-ulp-tls version: 1.3 cipher: [^ ]*'
}

capture_begin() {
  # As large as any packet here; with tcpdump's own size its ring has room for few.
  background tcpdump tcpdump -i eth0 -s 3000 -B 65536 -U --immediate-mode -n -Z root -w "$capture"
  wait_for tcpdump 60 grep -q 'listening on' "$own/tcpdump.log"
}
# What was sent before this datagram is in the file when it is.
capture_reached() { echo "$1" >"/dev/udp/172.31.0.$other/9" && sleep 0.2 && grep -qaF "$1" "$capture"; }
capture_end() {
  wait_for "the end of the capture" 60 capture_reached the-end-of-the-capture
  pkill -INT -P "$(<"$work/tcpdump.pid")" -x tcpdump
  wait_for "the end of tcpdump" 60 test -e "$work/tcpdump.status"
  grep -q '^0 packets dropped by kernel' "$own/tcpdump.log"
  rm "$own/tcpdump.log"
}
# A filter that does not compile and a file that is cut are no number, and not 0.
packets() {
  local seen
  seen=$(tcpdump -n -r "$capture" "$1" 2>"$work/tcpdump.err" | wc -l) || { cat "$work/tcpdump.err" && return 1; }
  echo "$seen"
}
# Lines of the capture that hold a part of the marker.
plaintext() { LC_ALL=C grep -caF -e plaintext-of-the-pair -e must-stay-within-its-node "$capture" || true; }
segments_in_clear() {
  packets "(tcp and not port 15008 and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0) or
    (ip6[6] = 6 and not port 15008 and ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0)"
}

grown() { # FILE BEFORE...: every number in it is greater now
  local now i before=("${@:2}")
  read -r -a now <"$1"
  for ((i = 0; i < ${#before[@]}; i++)); do
    ((now[i] > before[i])) || return 1
  done
}
everybody_served() {
  local before
  read -r -a before <load.count
  wait_for "every client of the load is served" 60 grown load.count "${before[@]}"
  echo "served: $(<load.count)"
}

# --- requests -------------------------------------------------------------------------------------

number=1
idle=$SECONDS
: >"$own/alive"
while ((SECONDS - idle < 600)); do
  call=$own/call-$number
  if [[ ! -e $call ]]; then
    sleep 0.05
    continue
  fi
  if [[ $(<"$call") == "quit " ]]; then
    exit 0
  fi
  status=0
  # In a process of its own, because `set -e` is off in a condition.
  (
    set -euo pipefail
    [[ ! -d $work ]] || cd "$work"
    # shellcheck source=/dev/null
    . "$call"
  ) >"$own/out-$number" 2>&1 &
  wait $! || status=$?
  echo "$status" >"$own/done-$number.new"
  mv "$own/done-$number.new" "$own/done-$number"
  number=$((number + 1))
  idle=$SECONDS
done
echo "node: no request for ten minutes" >&2
exit 1
