#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures what a request, a connection and a byte cost on each path, beside direct TCP and two proxies.
#
# Usage: scripts/bench.sh [options]
#   --kernel 6.12|6.1   of the measuring VM (default 6.12)
#   --quick             fewer repeats: within some 2 % of the full run
#   --baseline          only the rows without the agent
#   --mesh              instead: two nodes and mutual TLS, beside pairs of proxies
#   --readme            put the tables into tests/bench/README.md and a few of their rows into README.md, in both
#                       between the bench:begin and bench:end lines (--mesh: bench-mesh:begin and bench-mesh:end)
#   --strict            exit with 2 when a target is missed
#   --profile           also sample where instructions go (perf; files in <build>/bench)
#   --wall              instead: on this host's clock, interleaved rounds (root; attaches the agent)
#   --wall-vm           the same in a VM with two processors, where this host's kernel does not accelerate
#   --build DIR         build directory (default build, or MESH_BUILD)
#   --report            measure nothing: report on the results of the last run
# The table counts guest instructions under QEMU's -icount: repeatable, whatever else the host does.
# Results stay in <build>/bench. tests/bench/README.md explains the numbers.
set -euo pipefail

ROOT=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$ROOT"

log() { printf 'bench: %s\n' "$*" >&2; }
die() {
  log "$*"
  exit 1
}

command_line="scripts/bench.sh${*:+ $*}"
kernel=6.12
build=${MESH_BUILD:-$ROOT/build}
baseline=0
quick=0
readme=0
mesh=0
wall=0
wall_vm=0
only_report=0
profile=0
report_options=()
while (($# > 0)); do
  case $1 in
    --kernel) kernel=${2:?--kernel needs a value} && shift 2 ;;
    --build) build=${2:?--build needs a value} && shift 2 ;;
    --quick) quick=1 && shift ;;
    --baseline) baseline=1 && shift ;;
    --mesh) mesh=1 && shift ;;
    --readme) readme=1 && shift ;;
    --strict) report_options+=(--strict) && shift ;;
    --profile) profile=1 && shift ;;
    --wall) wall=1 && shift ;;
    --wall-vm) wall=1 && wall_vm=1 && shift ;;
    --report) only_report=1 && shift ;;
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) die "unknown argument: $1 (see --help)" ;;
  esac
done
((wall + baseline == 0 || readme == 0)) || die "--readme takes the whole table of instructions, not --wall or --baseline"
((mesh == 0 || wall + baseline == 0)) || die "--mesh goes with neither --wall nor --baseline"
[[ $kernel == 6.12 || $kernel == 6.1 ]] || die "--kernel is 6.12 or 6.1"

# Replaces what is between the two marks of a file; fails when they are not there.
put_into() {
  local file=$1 table=$2 fresh
  fresh=$(mktemp)
  awk -v table="$table" -v begin="<!-- $mark:begin -->" -v end="<!-- $mark:end -->" '
    index($0, begin) { print; while ((getline line < table) > 0) print line; inside = 1; begun = 1 }
    index($0, end) { inside = 0; ended = 1 }
    !inside { print }
    END { exit !(begun && ended) }' "$file" >"$fresh" ||
    die "$file has no $mark:begin and $mark:end lines"
  cat "$fresh" >"$file"
  rm "$fresh"
}

# The beginning of table.md, with the command that made it, and of its first table these rows; fails when one is missing.
summary() {
  local rows
  rows=$(printf '%s;' "$@")
  awk -F ' *[|] *' -v rows="$rows" '
    BEGIN { wanted = split(rows, names, ";") - 1; for (n = 1; n <= wanted; ++n) summary[names[n]] = 1 }
    !/^[|]/ { if (table) exit; print; next }
    ++table <= 2 || $2 in summary { print; found += table > 2 }
    END { exit found != wanted }' "$MESH_BENCH_OUT/table.md" ||
    die "the results lack one of the rows of README.md: $*"
}

MESH_BENCH_BUILD=$(mkdir -p "$build" && readlink -f "$build")
MESH_BENCH_OUT=$MESH_BENCH_BUILD/bench
guest=tests/bench/guest.sh
mark=bench
# shellcheck disable=SC2016  # the name of a row, as it is in the table
summary_rows=(
  "direct TCP between two pods, no agent"
  "local, metrics on"
  "local with sockmap, budget and metrics on"
  'relay (`path = "twoleg"`), metrics on'
  "HAProxy TCP, one hop, both legs on loopback"
  "nginx stream, one hop, both legs on loopback"
)
if ((wall == 1)); then
  MESH_BENCH_OUT+=-wall
elif ((mesh == 1)); then
  MESH_BENCH_OUT+=-mesh
  guest=tests/bench/mesh_guest.sh
  mark=bench-mesh
  summary_rows=(
    "direct TCP from pod to pod, no agent"
    "mesh-agent, kernel TLS, metrics on"
    "mesh-agent, records in user space, metrics on"
    "mesh-agent, a new leg each time, by PSK"
    "HAProxy mutual-TLS pair"
    "nginx stream mutual-TLS pair"
  )
  report_options+=(--mesh)
fi
export MESH_BENCH_BUILD MESH_BENCH_OUT MESH_BENCH_QUICK=$quick MESH_BENCH_BASELINE=$baseline
export MESH_BENCH_PROFILE=$profile
((profile == 0)) || command -v perf >/dev/null || die "--profile needs perf (Debian package linux-perf)"

if ((only_report == 0)); then
  scripts/setup.sh
  [[ -e $MESH_BENCH_BUILD/build.ninja ]] || cmake -S . -B "$MESH_BENCH_BUILD" -G Ninja >/dev/null
  targets=(mesh-bench-programs)
  if ((baseline == 0)); then
    targets+=(mesh-agent)
  fi
  ninja -C "$MESH_BENCH_BUILD" "${targets[@]}" >&2
  rm -rf "$MESH_BENCH_OUT"
  mkdir "$MESH_BENCH_OUT"
  date -u +%Y-%m-%d >"$MESH_BENCH_OUT/date"
  printf '%s\n' "$command_line" >"$MESH_BENCH_OUT/command"
  if ((wall_vm == 1)); then
    scripts/vm/run.sh --kernel "$kernel" --smp 2 --timeout 3000 --share "$MESH_BENCH_OUT" -- tests/bench/wall.sh
  elif ((wall == 1)); then
    tests/bench/wall.sh
  else
    scripts/vm/run.sh --kernel "$kernel" --icount --timeout 3600 --share "$MESH_BENCH_OUT" -- "$guest"
  fi
fi

note="$(<"$MESH_BENCH_OUT/date"), kernel $(<"$MESH_BENCH_OUT/kernel"), \`$(<"$MESH_BENCH_OUT/command")\`"
if ((wall == 1)); then
  report_options+=(--wall)
  ((wall_vm == 0)) || note+=", two processors, QEMU without icount"
else
  note+=", one processor, QEMU \`-icount shift=0\`"
fi
status=0
"$MESH_BENCH_BUILD/tests/bench/mesh-bench" report --results "$MESH_BENCH_OUT/results.jsonl" \
  --note "$note" "${report_options[@]}" >"$MESH_BENCH_OUT/table.md" || status=$?
cat "$MESH_BENCH_OUT/table.md"
((status == 0 || status == 2)) || exit "$status"
if ((readme == 1)); then
  summary "${summary_rows[@]}" >"$MESH_BENCH_OUT/summary.md"
  put_into tests/bench/README.md "$MESH_BENCH_OUT/table.md"
  put_into README.md "$MESH_BENCH_OUT/summary.md"
fi
exit "$status"
