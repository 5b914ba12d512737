#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All rows of the table of two nodes, in one boot of the measuring VM; scripts/bench.sh --mesh runs it there.
# MESH_BENCH_ROWS chooses among: direct ktls mesh user haproxy nginx memory (all of them unless set), and
# syscalls, which counts what the agents ask of the kernel.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
# shellcheck source=tests/bench/mesh_lib.sh
. "$here/mesh_lib.sh"
trap bench_cleanup EXIT
ulimit -n 65536

# Operations a repeat. The guest executes some 60 million instructions per second of real time.
if [[ ${MESH_BENCH_QUICK:-0} == 1 ]]; then
  repeats=1 round_trips=200 connections=20 bulk_repeats=9
else
  repeats=3 round_trips=1000 connections=100 bulk_repeats=15
fi
readonly MEGABYTES=8 # a bulk connection; see guest.sh
rows=" ${MESH_BENCH_ROWS:-direct ktls mesh user haproxy nginx memory} "
wanted() { [[ $rows == *" $1 "* ]]; }

# measure_rr ROW ADDRESS:PORT [OPTION...], the others the same.
measure_rr() {
  measure "$CLIENT" "$1" rr "$2" --count "$round_trips" --repeats "$repeats" "${@:3}"
  measure "$CLIENT" "$1" rr "$2" --count "$round_trips" --repeats "$repeats" --request 4096 \
    --response 4096 "${@:3}"
}
measure_bulk() {
  measure "$CLIENT" "$1" bulk "$2" --count "$MEGABYTES" --warmup "$MEGABYTES" \
    --repeats "$bulk_repeats" "${@:3}"
}
measure_crr() {
  measure "$CLIENT" "$1" crr "$2" --request 1 --response 1 --count "$connections" --warmup 5 \
    --repeats "$repeats" "${@:3}"
}
measure_all() {
  bench_log "$1"
  measure_rr "$@"
  measure_bulk "$@"
  measure_crr "$@"
}

# memory ROW ADDRESS:PORT [PID...]: before anything else, while the process has no free memory of its own.
memory() { ! wanted memory || measure_memory "$@"; }

# syscalls NAME PID: what one agent asks of the kernel for 500 requests and responses.
syscalls() {
  wanted syscalls || return 0
  strace -c -f -U name,calls,errors -p "$2" -o "$MESH_BENCH_OUT/syscalls-$1.txt" &
  local tracer=$!
  sleep 2
  in_pod "$CLIENT" "$BENCH" rr --row x --connect "$vip" --count 500 --warmup 0 --repeats 1 >/dev/null
  kill -INT "$tracer"
  wait "$tracer" || true
}

# With --profile: samples of every 20,000 instructions, for `perf report` on the host.
bench_profile() {
  [[ ${MESH_BENCH_PROFILE:-0} == 1 ]] || return 0
  local enter
  sysctl -qw kernel.perf_event_max_sample_rate=100000 kernel.perf_cpu_time_max_percent=0
  bench_enter "$CLIENT"
  perf record -q -e cpu-clock -c 20000 -a -g -o "$BENCH_DIR/perf.data" -- "${enter[@]}" "$BENCH" "$1" \
    --row x --connect "$vip" --count 500 --repeats 1 "${@:2}" >/dev/null
  cp "$BENCH_DIR/perf.data" "$MESH_BENCH_OUT/mesh-$1.perf.data"
  cat /proc/kallsyms >"$MESH_BENCH_OUT/mesh-$1.kallsyms"
}

# expect_handshakes KIND COMMAND...: the client's agent made its legs ready in this way meanwhile.
expect_handshakes() {
  bench_expect "mesh_tls_handshakes_total.*side=\"outbound\".*kind=\"$1\"|mesh_tls_handshakes_total.*kind=\"$1\".*side=\"outbound\"" "${@:2}"
}

rows_of_mesh() {
  mesh_agents
  memory mesh "$vip" "${agent_pids[@]}"
  syscalls client "${agent_pids[0]}"
  syscalls server "${agent_pids[1]}"
  bench_profile rr
  bench_log mesh
  measure_rr mesh "$vip"
  measure_bulk mesh "$vip"
  expect_handshakes reused measure_crr mesh "$vip"
  bench_profile crr --request 1 --response 1
  agents_set metrics=off
  bench_log mesh-bare
  measure_rr mesh-bare "$vip"
  measure_bulk mesh-bare "$vip"
  agents_set metrics=on
  bench_log mesh-psk
  agents_set mesh-idle-legs=0
  expect_handshakes psk measure_crr mesh-psk "$vip"
  bench_log mesh-cold
  agents_set psk=off
  expect_handshakes full measure_crr mesh-cold "$vip"
  (($(bench_metric '^mesh_tls_user_space_total') == 0)) || bench_die "records were made in user space"
  mesh_agents_stop
}

rows_of_user_space() {
  mesh_agents --disable-kernel-tls
  (($(bench_metric '^mesh_tls_user_space_total') > 0)) || bench_die "records were made by the kernel"
  memory mesh-user "$vip" "${agent_pids[@]}"
  measure_all mesh-user "$vip"
  mesh_agents_stop
}

rows_of_peer() {
  mesh_peer "$1"
  memory "$1" "127.0.0.1:$PORT_PROXY" "${peer_pids[@]}"
  measure_all "$1" "127.0.0.1:$PORT_PROXY"
  mesh_peer_stop
}

: >"$RESULTS"
uname -r >"$MESH_BENCH_OUT/kernel"
head -c 1 /dev/random >/dev/null # see guest.sh
bench_local_copies
mesh_topology
bench_start "$SERVER" server "$BENCH" server --listen "0.0.0.0:$PORT_PLAIN"
bench_start "$SERVER" server-ktls "$BENCH" server --kernel-tls --listen "0.0.0.0:$PORT_KTLS"
bench_wait "$CLIENT" "$SERVER_ADDRESS:$PORT_PLAIN"
MEMORY_OPTIONS=()
if wanted direct; then
  memory direct "$SERVER_ADDRESS:$PORT_PLAIN"
  measure_all direct "$SERVER_ADDRESS:$PORT_PLAIN"
fi
if wanted ktls; then
  mesh_wait_ktls "$SERVER_ADDRESS:$PORT_KTLS"
  MEMORY_OPTIONS=(--kernel-tls)
  memory ktls "$SERVER_ADDRESS:$PORT_KTLS"
  MEMORY_OPTIONS=()
  measure_all ktls "$SERVER_ADDRESS:$PORT_KTLS" --kernel-tls
fi
mesh_identities
! wanted mesh || rows_of_mesh
! wanted user || rows_of_user_space
for peer in haproxy nginx; do
  ! wanted "$peer" || rows_of_peer "$peer"
done
! wanted direct || measure_all direct-again "$SERVER_ADDRESS:$PORT_PLAIN"
bench_log "done"
