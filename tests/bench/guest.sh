#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All rows of the instruction table, in one boot of the measuring VM; scripts/bench.sh runs it there.
# MESH_BENCH_ROWS chooses among: proxies local sockmap relay http bare (all of them unless set), and
# syscalls, which counts what the agent asks of the kernel for relayed connections.
set -euo pipefail

# shellcheck source=tests/bench/lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"
trap bench_cleanup EXIT

# Operations a repeat. The guest executes some 60 million instructions per second of real time.
if [[ ${MESH_BENCH_QUICK:-0} == 1 ]]; then
  repeats=1 round_trips=300 connections=60 bulk_repeats=5
else
  repeats=3 round_trips=1000 connections=200 bulk_repeats=15
fi
# One connection's bulk rate depends on how its windows fall into step: many short ones say more than
# a long one.
readonly MEGABYTES=16
rows=" ${MESH_BENCH_ROWS:-proxies local sockmap relay http bare} "
wanted() { [[ $rows == *" $1 "* ]]; }

# measure_rr NAMESPACE ROW ADDRESS:PORT [OPTION...]
measure_rr() {
  measure "$1" "$2" rr "$3" --count "$round_trips" --repeats "$repeats" "${@:4}"
}

measure_bulk() {
  measure "$1" "$2" bulk "$3" --count "$MEGABYTES" --warmup "$MEGABYTES" --repeats "$bulk_repeats" \
    "${@:4}"
}

# measure_http NAMESPACE ROW ADDRESS:PORT
measure_http() {
  local size
  for size in 512 4096; do
    measure "$1" "$2" http "$3" --response "$size" --count "$round_trips" --repeats "$repeats"
  done
}

# measure_all NAMESPACE ROW ADDRESS:PORT: every column of the table.
measure_all() {
  bench_log "$2"
  measure_rr "$@"
  measure_rr "$@" --request 4096 --response 4096
  measure_bulk "$@"
  measure "$1" "$2" crr "$3" --request 1 --response 1 --count "$connections" --warmup 20 \
    --repeats "$repeats"
}

# bench_programs NAMESPACE ROW MODE ADDRESS:PORT [OPTION...]: which BPF programs ran and what each took,
# in a pass of its own, because the statistics cost something themselves.
bench_programs() {
  local operations=200
  sysctl -qw kernel.bpf_stats_enabled=1
  bpftool --json prog show >"$BENCH_DIR/before.json"
  in_pod "$1" "$BENCH" "$3" --row "$2" --connect "$4" --count "$operations" --warmup 0 --repeats 1 \
    "${@:5}" >/dev/null
  bpftool --json prog show >"$BENCH_DIR/after.json"
  sysctl -qw kernel.bpf_stats_enabled=0
  python3 "$BENCH_HERE/programs.py" "$BENCH_DIR/before.json" "$BENCH_DIR/after.json" "$operations" \
    "$2 $3" >>"$MESH_BENCH_OUT/programs.md"
}

# bench_profile NAMESPACE NAME MODE ADDRESS:PORT [OPTION...]
# With --profile: samples of every 20,000 instructions, for `perf report` on the host.
bench_profile() {
  [[ ${MESH_BENCH_PROFILE:-0} == 1 ]] || return 0
  local file=$MESH_BENCH_OUT/$2.perf.data
  # The rate cannot be set while the percentage is 0.
  sysctl -qw kernel.perf_cpu_time_max_percent=25
  sysctl -qw kernel.perf_event_max_sample_rate=100000 kernel.perf_cpu_time_max_percent=0
  perf record -q -e cpu-clock -c 20000 -a -g -o "$BENCH_DIR/perf.data" -- ip netns exec "$1" "$BENCH" "$3" \
    --row "$2" --connect "$4" --repeats 1 "${@:5}" >/dev/null
  cp "$BENCH_DIR/perf.data" "$file"
  cat /proc/kallsyms >"$MESH_BENCH_OUT/$2.kallsyms"
}

empty_hooks_on() {
  bpftool prog loadall "$MESH_BENCH_BUILD/tests/bench/empty_hooks.linked.bpf.o" /sys/fs/bpf/empty-hooks
  bpftool cgroup attach /sys/fs/cgroup cgroup_inet_egress pinned /sys/fs/bpf/empty-hooks/empty_egress multi
  bpftool cgroup attach /sys/fs/cgroup cgroup_inet_ingress pinned /sys/fs/bpf/empty-hooks/empty_ingress multi
}

empty_hooks_off() {
  bpftool cgroup detach /sys/fs/cgroup cgroup_inet_egress pinned /sys/fs/bpf/empty-hooks/empty_egress
  bpftool cgroup detach /sys/fs/cgroup cgroup_inet_ingress pinned /sys/fs/bpf/empty-hooks/empty_ingress
  rm -r /sys/fs/bpf/empty-hooks
}

rows_without_agent() {
  measure_all "$CLIENT" direct "$SERVER_ADDRESS:$PORT_PLAIN"
  wanted proxies || return 0

  empty_hooks_on
  measure_all "$CLIENT" empty-hooks "$SERVER_ADDRESS:$PORT_PLAIN"
  empty_hooks_off

  # Where the legs of the relay are, which is where a proxy costs least: both on loopback.
  bench_haproxy "$SERVER" "127.0.0.1:$PORT_PLAIN"
  measure_all "$SERVER" haproxy "127.0.0.1:$PORT_PROXY"
  bench_stop "$started"
  bench_nginx "$SERVER" "127.0.0.1:$PORT_PLAIN"
  measure_all "$SERVER" nginx "127.0.0.1:$PORT_PROXY"
  bench_stop "$started"

  bench_haproxy "$CLIENT" "$SERVER_ADDRESS:$PORT_PLAIN"
  measure_all "$CLIENT" haproxy-sidecar "127.0.0.1:$PORT_PROXY"
  bench_stop "$started"
  bench_nginx "$CLIENT" "$SERVER_ADDRESS:$PORT_PLAIN"
  measure_all "$CLIENT" nginx-sidecar "127.0.0.1:$PORT_PROXY"
  bench_stop "$started"

  if [[ -x $RELAY ]]; then
    bench_relay "$SERVER" "127.0.0.1:$PORT_PLAIN"
    measure_all "$SERVER" relay-engine "127.0.0.1:$PORT_PROXY"
    bench_stop "$started"
  fi

  # Comparable with figures taken elsewhere: blocking sockets, no veth.
  bench_start "$SERVER" server-blocking "$BENCH" server --io blocking \
    --listen "127.0.0.1:$PORT_BLOCKING"
  bench_wait "$SERVER" "127.0.0.1:$PORT_BLOCKING"
  bench_log loopback
  measure_rr "$SERVER" loopback "127.0.0.1:$PORT_BLOCKING" --io blocking
  measure_bulk "$SERVER" loopback "127.0.0.1:$PORT_BLOCKING" --io blocking
  bench_stop "$started"
}

# what_runs NAMESPACE ROW ADDRESS:PORT
what_runs() {
  bench_programs "$1" "$2" rr "$3"
  bench_programs "$1" "$2" crr "$3" --request 1 --response 1
  bench_profile "$1" "$2" rr "$3" --count 1000
  bench_profile "$1" "$2-connect" crr "$3" --request 1 --response 1 --count 400 --warmup 20
}

# row_with_agent NAME METRIC ADDRESS:PORT
row_with_agent() {
  wanted "$1" || return 0
  bench_expect "$2" measure_all "$CLIENT" "$1" "$3"
}

rows_http() {
  bench_log http
  bench_agent_http
  measure_http "$CLIENT" http-l4 "$VIP_PLAIN"
  bench_expect 'http_requests_total.*destination="bench-http"' \
    measure_http "$CLIENT" http-l7 "$VIP_HTTP"

  bench_programs "$CLIENT" http-l4 http "$VIP_PLAIN"
  bench_programs "$CLIENT" http-l7 http "$VIP_HTTP"
  bench_profile "$CLIENT" http http "$VIP_HTTP" --response 512 --count 2000
  bench_agent_no_http
}

rows_bare() {
  "$AGENT" debug set metrics=off >/dev/null
  measure_all "$CLIENT" local-bare "$VIP_PLAIN"
  "$AGENT" debug set accel-budget=4294967295 >/dev/null
  measure_all "$CLIENT" sockmap-bare "$VIP_ACCEL"
}

# What the relay's worker asks of the kernel for relayed connections of one byte each way. Only that thread:
# tracing makes virtual time leap, and an agent whose heart beats too rarely gets no connections.
syscalls() {
  local thread tracer format
  thread=$(grep -l '^relay-0$' /proc/"$agent_pid"/task/*/comm | cut -d/ -f5)
  for format in -c -r; do
    strace "$format" -p "$thread" -o "$MESH_BENCH_OUT/syscalls$format.txt" &
    tracer=$!
    sleep 3
    in_pod "$CLIENT" "$BENCH" crr --row x --connect "$VIP_RELAY" --request 1 --response 1 --count 20 \
      --warmup 0 --repeats 1 >/dev/null
    kill -INT "$tracer"
    wait "$tracer" || true
  done
}

rows_with_agent() {
  bench_agent
  row_with_agent local 'connections_opened_total.*destination="bench-plain".*path="local"' "$VIP_PLAIN"
  row_with_agent sockmap 'sockmap_redirected_messages' "$VIP_ACCEL"
  row_with_agent relay 'connections_opened_total.*destination="bench-relay".*path="twoleg"' "$VIP_RELAY"

  {
    printf '| row | BPF program | runs an operation | instructions a run | instructions an operation |\n'
    printf '|---|---|---:|---:|---:|\n'
  } >"$MESH_BENCH_OUT/programs.md"
  ! wanted local || what_runs "$CLIENT" local "$VIP_PLAIN"
  ! wanted sockmap || what_runs "$CLIENT" sockmap "$VIP_ACCEL"
  ! wanted relay || what_runs "$CLIENT" relay "$VIP_RELAY"
  ! wanted syscalls || syscalls
  ! wanted http || rows_http
  ! wanted bare || rows_bare
  bench_agent_stop
}

: >"$RESULTS"
uname -r >"$MESH_BENCH_OUT/kernel"
# The guest has no source of randomness but interrupts; until the kernel's generator is ready each use
# of it costs thousands of instructions, and a new connection uses it several times.
head -c 1 /dev/random >/dev/null
bench_local_copies
bench_bridge mb-bridge 10.213.0.1/24
bench_pod "$CLIENT" mb-bridge 10.213.0.2/24 10.213.0.1
bench_pod "$SERVER" mb-bridge "$SERVER_ADDRESS/24" 10.213.0.1
bench_servers "$SERVER"
rows_without_agent
if [[ ${MESH_BENCH_BASELINE:-0} == 0 ]]; then
  rows_with_agent
fi
# Once more at the end: shows a drift within the boot, and what is left of the agent after cleanup.
measure_all "$CLIENT" direct-again "$SERVER_ADDRESS:$PORT_PLAIN"
bench_log "done"
