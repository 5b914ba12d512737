#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Interleaved rounds on this host's clock: direct TCP, local path, sockmap, one after the other in every
# round; scripts/bench.sh --wall runs it. Needs root, attaches the agent to this host while it runs.
set -euo pipefail

# shellcheck source=tests/bench/lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"
trap bench_cleanup EXIT

[[ $(id -u) == 0 ]] || bench_die "root is needed: this makes namespaces and attaches the agent"
rounds=25
if [[ ${MESH_BENCH_QUICK:-0} == 1 ]]; then
  rounds=16
fi

megabytes=256 round_trips=2000
if [[ -n ${MESH_VM:-} ]]; then
  megabytes=16 round_trips=300 # an emulated processor is slow
fi

# Two pods beside the node's range: the agent leaves them alone, so they are the direct leg of a round
# while it runs.
BARE_CLIENT=mb-bare-client
BARE_SERVER=mb-bare-server
BARE_ADDRESS=10.214.0.3

# leg ROUND NAMESPACE ROW MODE ADDRESS:PORT [OPTION...]: like measure, the round is noted.
leg() {
  in_pod "$2" "$BENCH" "$4" --row "$3" --connect "$5" --repeats 1 "${@:6}" |
    sed "s/^{/{\"round\":$1,/" >>"$RESULTS"
}

: >"$RESULTS"
uname -r >"$MESH_BENCH_OUT/kernel"
if ! mountpoint -q /sys/fs/bpf; then
  mount -t bpf bpf /sys/fs/bpf
fi
bench_bridge mb-bridge 10.213.0.1/24
bench_pod "$CLIENT" mb-bridge 10.213.0.2/24 10.213.0.1
bench_pod "$SERVER" mb-bridge "$SERVER_ADDRESS/24" 10.213.0.1
bench_bridge mb-bare 10.214.0.1/24
bench_pod "$BARE_CLIENT" mb-bare 10.214.0.2/24 10.214.0.1
bench_pod "$BARE_SERVER" mb-bare "$BARE_ADDRESS/24" 10.214.0.1
bench_servers "$SERVER"
bench_servers "$BARE_SERVER"
bench_agent
bench_expect 'sockmap_redirected_messages' leg 0 "$CLIENT" sockmap rr "$VIP_ACCEL"
: >"$RESULTS"

for ((round = 1; round <= rounds; round++)); do
  for mode in bulk rr; do
    options=(--count "$round_trips" --warmup $((round_trips / 4)))
    if [[ $mode == bulk ]]; then
      options=(--count "$megabytes" --warmup $((megabytes / 8)))
    fi
    leg "$round" "$BARE_CLIENT" direct "$mode" "$BARE_ADDRESS:$PORT_PLAIN" "${options[@]}"
    leg "$round" "$CLIENT" local "$mode" "$VIP_PLAIN" "${options[@]}"
    leg "$round" "$CLIENT" sockmap "$mode" "$VIP_ACCEL" "${options[@]}"
  done
done
bench_agent_stop
bench_log "done: $rounds rounds"
