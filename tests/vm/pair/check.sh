#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two nodes that are two machines with two kernels: guests linked by a cable of QEMU's, an agent in each, real
# programs in their pods, and a capture of the cable. Both guests do what this script asks (node.sh).
#
# Usage: tests/vm/pair/check.sh [--build-dir DIR] [--results FILE] [KERNEL_1 KERNEL_2]
#   --build-dir DIR   with the agent in DIR/agent (default build/release)
#   --results FILE    gets the PASS and FAIL lines too; until all is done it says FAIL
#   KERNEL_1 KERNEL_2 of the nodes 1 and 2 (default 6.1 6.12); node 1 has the capture
# MESH_LONG=1: 64 MiB each way instead of 8, 20 kills on each node instead of 4.
set -euo pipefail

ROOT=$(readlink -f "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../..")
cd "$ROOT"

# One compound command, so that the shell has read all of it before it runs any.
{

build=$ROOT/build/release
results=/dev/null
kernels=()
while (($# > 0)); do
  case $1 in
    --build-dir) build=$(readlink -m "${2:?--build-dir needs a value}") && shift 2 ;;
    --results) results=$(readlink -m "${2:?--results needs a value}") && shift 2 ;;
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' && exit 0 ;;
    -*) echo "pair: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
    *) kernels+=("$1") && shift ;;
  esac
done
((${#kernels[@]} > 0)) || kernels=(6.1 6.12)
((${#kernels[@]} == 2)) || { echo "pair: two kernels, or none" >&2 && exit 2; }

bytes=$((8 << 20))
rounds=2 # two kills each
limit=900 # the processors may have much else to do
if [[ -n ${MESH_LONG:-} ]]; then
  bytes=$((64 << 20))
  rounds=10
  limit=1800
fi
readonly REQUEST_LIMIT=$((limit / 3))

dir=$(mktemp -d "${TMPDIR:-/tmp}/mesh-pair-XXXXXX")
begun=$SECONDS
step="the guests boot"
guests=()
passed=()
printf 'FAIL pair: not finished\n' >"$results"

# shellcheck disable=SC2317  # called by the trap
finish() {
  local status=$? pid side
  trap - EXIT
  trap '' INT TERM
  set +e
  if ((status != 0)); then
    printf 'FAIL %s\n' "$step"
    for side in 1 2; do
      printf -- '--- node %s: its last request, its agent, its console\n' "$side"
      cat "$dir/$side/out-$(<"$dir/$side/number")"
      tail -n 40 "$dir/$side/agent.log"
      tail -n 10 "$dir/$side/console"
      cat "$dir/$side/run.log"
    done 2>/dev/null
  fi
  for pid in "${guests[@]}"; do
    kill "$pid" && wait "$pid"
  done 2>/dev/null
  {
    ((${#passed[@]} == 0)) || printf "PASS pair_${kernels[0]}_${kernels[1]}_%s\n" "${passed[@]// /_}"
    ((status == 0)) || printf 'FAIL pair %s %s: %s\n' "${kernels[@]}" "$step"
  } >"$results"
  rm -rf "$dir"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ask SIDE COMMAND...: begins a request. answer SIDE: waits for it and prints its output.
ask() {
  local own=$dir/$1 number
  number=$(($(<"$own/number") + 1))
  echo "$number" >"$own/number" # a file, because requests are made in subshells too
  shift
  printf '%q ' "$@" >"$own/call.new"
  mv "$own/call.new" "$own/call-$number"
}
answer() {
  local side=$1 number answered end=$((SECONDS + REQUEST_LIMIT))
  number=$(<"$dir/$side/number")
  answered=$dir/$side/done-$number
  until [[ -e $answered ]]; do
    kill -0 "${guests[side]}" 2>/dev/null || { echo "pair: the guest of node $side has ended" && return 1; }
    ((SECONDS < end)) || { echo "pair: no answer of node $side" && return 1; }
    sleep 0.05
  done
  cat "$dir/$side/out-$number"
  [[ $(<"$answered") == 0 ]]
}
on() {
  ask "$@"
  answer "$1"
}
both() {
  ask 1 "$@"
  ask 2 "$@"
  answer 1
  answer 2
}
# begin STEP: the one before has passed.
begin() {
  passed+=("$step")
  printf 'PASS %s (after %d s)\n' "$step" $((SECONDS - begun))
  step=$1
}
expect() { # WHAT WANTED GOT
  [[ $3 == "$2" ]] || { printf 'pair: %s: wanted %s, got %s\n' "$1" "$2" "$3" && return 1; }
}

# --- what the nodes start with --------------------------------------------------------------------

agent=$build/agent/mesh-agent
[[ -x $agent ]] || { step="no agent at $agent" && exit 1; }
"$agent" ca init --trust-domain mesh.test --dir "$dir/ca" >/dev/null
for side in 1 2; do
  mkdir -p "$dir/$side/config"
  echo 0 >"$dir/$side/number"
  "$agent" ca issue-node --dir "$dir/ca" --node "node-$side" --out "$dir/$side/identity" >/dev/null
done
/usr/bin/python3 - "$dir" <<'CODE'
import json, sys
pods = [("caller", 10, 1), ("stranger", 11, 1), ("web", 12, 8080), ("store", 13, 6379), ("talk", 14, 9000)]
catalog = {
    "nodes": [{"name": f"node-{n}", "address": f"172.31.0.{n}", "cidrs": [f"10.71.{n}.0/24", f"fd71:0:0:{n}::/64"]}
              for n in (1, 2)],
    "services": [{"id": f"{name}-{n}-{family}", "name": f"{name}-{n}", "address": address, "port": port}
                 for n in (1, 2) for name, host, port in pods
                 for family, address in ((4, f"10.71.{n}.{host}"), (6, f"fd71:0:0:{n}::{host}"))],
}
for n in (1, 2):
    # What the server's node alone knows, so that it is its decision.
    denied = {"Kind": "service-intentions", "Name": f"web-{n}",
              "Sources": [{"Name": f"stranger-{3 - n}", "Action": "deny"}]}
    for name, content in (("catalog", catalog), ("intentions", denied)):
        with open(f"{sys.argv[1]}/{n}/config/{name}.json", "w") as file:
            json.dump(content, file, indent=2)
CODE

export MESH_BUILD_DIR=$build
links=([1]=listen [2]=connect)
for side in 1 2; do
  scripts/vm/run.sh --kernel "${kernels[side - 1]}" --mem 2048 --timeout "$limit" --share "$dir" \
    --link "${links[side]}=$dir/cable" --console "$dir/$side/console" \
    -- tests/vm/pair/node.sh "$side" "$dir" >"$dir/$side/run.log" 2>&1 &
  guests[side]=$!
done
both setup
both uname -r
[[ $(on 1 uname -r) != $(on 2 uname -r) || ${kernels[0]} == "${kernels[1]}" ]]

# --- what the nodes do ----------------------------------------------------------------------------

begin "without agents everything is seen on the cable"
both serve
for address in 10.71.2.14 fd71:0:0:2::14; do # each family alone: each has a filter of its own
  on 1 capture_begin
  on 1 pod client python3 "$ROOT/tests/vm/pair/talk.py" transfer "$address" 9000 10000
  on 1 capture_end
  (($(on 1 plaintext) > 0 && $(on 1 segments_in_clear) > 0))
done

begin "with the guard and no agent nothing gets out"
both guard
on 1 capture_begin
talk=(pod client python3 "$ROOT/tests/vm/pair/talk.py")
for side in 1 2; do
  peer=$((3 - side))
  on "$side" background load "${talk[@]}" load load "10.71.$peer.14" 9000 "fd71:0:0:$peer::14" 9000
done
both wait_for load 60 test -s load.count
sleep 1
expect "served without an agent" "0 0" "$(on 1 cat load.count)"

begin "agents start one after the other"
on 1 start_agent
on 1 wait_for "identities" 60 enrolled 5
expect "served while the peer has no agent" "0 0" "$(on 1 cat load.count)"
on 2 start_agent
on 2 wait_for "identities" 60 enrolled 5
both everybody_served

begin "both kernels make the records"
for side in 1 2; do
  on "$side" background hold "${talk[@]}" hold "$(on "$side" vip "talk-$((3 - side))" vip4)" 9000 hold
done
both wait_for "messages" 60 test -s hold.count
for side in 1 2; do
  peer=$((3 - side))
  ask "$side" kernel_tls "talk-$peer" client # as the client's node
  ask "$peer" kernel_tls "talk-$peer" talk   # as the server's
  answer "$side"
  answer "$peer"
done

begin "real programs reach each other"
for side in 1 2; do
  peer=$((3 - side))
  on "$side" pod client curl -sSf -m 60 "http://$(on "$side" vip "web-$peer" vip4)/?by-vip4" \
    "http://[$(on "$side" vip "web-$peer" vip6)]/?by-vip6" "http://10.71.$peer.12:8080/?by-address"
  on "$peer" wait_for "nginx saw the client" 20 grep -qx "10.71.$side.10 /?by-vip4 200" nginx.access
  on "$peer" wait_for "nginx saw the client" 20 grep -qx "fd71:0:0:$side::10 /?by-vip6 200" nginx.access
  on "$side" pod client redis-benchmark -h "10.71.$peer.13" -t set,get -n 100 -c 5 --csv
  on "$side" pod client redis-cli -h "10.71.$peer.13" set of-the-pair plaintext-of-the-pair
  expect "what node $peer stored" plaintext-of-the-pair "$(on "$peer" pod store redis-cli get of-the-pair)"
done

begin "a client that the server's node denies"
for side in 1 2; do
  peer=$((3 - side))
  before=$(on "$peer" metric mesh_denied_total 'reason="policy"')
  if on "$side" pod stranger curl -sSf -m 30 "http://10.71.$peer.12:8080/?stranger"; then exit 1; fi
  on "$peer" wait_for "the denial is counted" 20 metric_is $((before + 1)) mesh_denied_total 'reason="policy"'
  if on "$peer" grep stranger nginx.access; then exit 1; fi
  on "$side" pod stranger curl -sSf -m 60 -o /dev/null "http://10.71.$side.12:8080/?neighbour"
done

begin "every byte arrives, in both directions at once"
for side in 1 2; do
  ask "$side" "${talk[@]}" transfer "10.71.$((3 - side)).14" 9000 "$bytes"
done
answer 1
answer 2

begin "an upgrade under open connections"
both take_over
for side in 1 2; do
  on "$side" wait_for "more messages" 60 grown hold.count "$(on "$side" cat hold.count)"
  on "$side" kernel_tls "talk-$((3 - side))" client
  on "$side" touch hold.stop
  on "$side" wait_for "the end of the open connection" 60 test -e hold.status
  on "$side" grep -qx 0 hold.status
done

begin "agents are killed at any moment"
seed=$RANDOM
RANDOM=$seed
echo "seed $seed"
for ((round = 0; round < rounds; round++)); do
  for side in 1 2; do
    ask "$side" kill_while_busy $((RANDOM % 2000)) $((RANDOM % 1000)) $((200 + RANDOM % 6000))
  done
  answer 1
  answer 2
done
both wait_for "identities" 60 enrolled 5
both everybody_served
for side in 1 2; do
  ask "$side" "${talk[@]}" transfer "fd71:0:0:$((3 - side))::14" 9000 "$bytes"
done
answer 1
answer 2

begin "nothing was in clear on the cable"
on 1 capture_end
seen=$(on 1 packets "tcp port 15008")
echo "$seen packets of mesh legs"
((seen > 1000))
expect "lines with the marker" 0 "$(on 1 plaintext)"
expect "segments that are not of a mesh leg" 0 "$(on 1 segments_in_clear)"

begin "both guests end by themselves"
for side in 1 2; do
  ask "$side" quit
done
for side in 1 2; do
  wait "${guests[side]}" || { cat "$dir/$side/run.log" && exit 1; }
  cat "$dir/$side/run.log"
done
begin ""
exit 0
}
