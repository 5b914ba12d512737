#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up, builds and runs every test; tests/README.md says what each rung is for.
#
# Usage: scripts/test.sh [--rung NAME]... [--no-vm] [--no-setup] [--long] [--build-dir DIR]
#   --rung NAME       only this rung and what it needs; repeatable. Names: lint build unit bpfhost asan
#                     fuzz demo bpfrun netns vm-6.1 vm-6.12, and with --long vm-pair netns-asan compilers
#                     arm64 image
#   --no-vm           leave the VM rungs out
#   --no-setup        install nothing (scripts/setup.sh does nothing either when all is there)
#   --long            fuzz for minutes instead of seconds, run netns with sanitizers too, set MESH_LONG=1
#                     for tests that have a longer form, run what is natively otherwise in the guests too,
#                     give the rungs four times their time, compile with other compilers and for arm64,
#                     build and try the image, link two guests by a cable
#   --build-dir DIR   default: build
# Ends with a table and the line "N passed, N failed". A rung that could not run counts as a failure. Up to three
# tests of bpfrun, netns or a guest that failed are run once more, alone; what passes then is named as unstable.
# Environment: MESH_RUNG_LIMIT, seconds for one rung (default 2100; an emulated guest gets twice that).
set -euo pipefail

ROOT=$(readlink -f "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..")
# shellcheck source=scripts/test-lib.sh
. "$ROOT/scripts/test-lib.sh"
cd "$ROOT"

# One compound command, so that the shell has read all of it before it runs any: a run takes minutes, and
# this file may be edited meanwhile.
{

readonly ALL_RUNGS=(lint build unit bpfhost asan fuzz demo bpfrun netns netns-asan vm-6.1 vm-6.12 vm-pair compilers arm64 image)
build_dir=$ROOT/build
limit=${MESH_RUNG_LIMIT:-2100}
run_vm=1
run_setup=1
long=0
wanted=()

die() {
  printf 'test: %s\n' "$*" >&2
  exit 2
}

while (($# > 0)); do
  case $1 in
    --rung | --build-dir)
      (($# >= 2)) || die "$1 needs a value"
      if [[ $1 == --rung ]]; then
        printf '%s\n' "${ALL_RUNGS[@]}" | grep -qxF -- "$2" || die "no such rung: $2 (see --help)"
        wanted+=("$2")
      else
        build_dir=$(readlink -m "$2")
      fi
      shift 2
      ;;
    --no-vm) run_vm=0 && shift ;;
    --no-setup) run_setup=0 && shift ;;
    --long) long=1 && shift ;;
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' scripts/test.sh | sed '$d' && exit 0 ;;
    *) die "unknown argument: $1 (see --help)" ;;
  esac
done
if ((${#wanted[@]} == 0)); then
  for rung in "${ALL_RUNGS[@]}"; do
    case $rung in
      vm-pair) ((run_vm == 1 && long == 1)) || continue ;;
      vm-*) ((run_vm == 1)) || continue ;;
      netns-asan | compilers | arm64 | image) ((long == 1)) || continue ;;
    esac
    wanted+=("$rung")
  done
fi
if ((long == 1)); then
  limit=$((limit * 4))
  export MESH_LONG=1
fi
wants() { printf '%s\n' "${wanted[@]}" | grep -qxE -- "$1"; }

jobs=$(nproc)
release=$build_dir/release
sanitized=$build_dir/asan
fuzzing=$build_dir/fuzz
results=$(mktemp -d)
vm_pids=()
# shellcheck disable=SC2317  # called by the trap
cleanup() {
  trap - EXIT INT TERM
  for pid in "${vm_pids[@]}"; do
    kill -- "-$pid" 2>/dev/null || true
  done
  rm -rf "$results"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ((run_setup == 1)); then
  setup_args=()
  ! wants 'compilers|arm64|image' || setup_args+=(--long)
  scripts/setup.sh "${setup_args[@]}"
fi

# --- lint -----------------------------------------------------------------------------------------

# shellcheck disable=SC2317  # called by count_check
lint_shell() {
  local files=()
  mapfile -t files < <(find scripts tests .ci -type f \( -name '*.sh' -o -path .ci/run \) | sort)
  shellcheck -x "${files[@]}"
}

if wants lint; then
  rung_begin lint
  count_check shellcheck lint_shell
  count_check format scripts/format.sh --check
  count_check layout scripts/check-layout.sh
  rung_end
fi

# --- builds ---------------------------------------------------------------------------------------

# build NAME DIR TARGETS CMAKE_ARG...: configures and builds; 1 when something does not compile. All
# that can be compiled is, so that one run shows every error.
build() {
  local name=$1 dir=$2 targets=$3 status=0
  shift 3
  rung_begin "$name"
  # shellcheck disable=SC2086  # a list of targets
  if cmake -S "$ROOT" -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMESH_WERROR=ON "$@" &&
    ninja -C "$dir" -k 0 $targets; then
    count 1 0
  else
    count 0 1
    status=1
  fi
  rung_end
  return "$status"
}

built_release=1
built_sanitized=1
built_fuzzing=1
if wants 'build|unit|bpfhost|demo|bpfrun|netns|vm-.*|image'; then
  # Lines for backtraces are enough: whole debug information costs a third of the time.
  build build "$release" all -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O2 -g1 -DNDEBUG" \
    -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O2 -g1 -DNDEBUG" || built_release=0
  # Asks every test program for its tests once, here, and not in each guest.
  ctest --test-dir "$release" -N >/dev/null 2>&1 || true
fi
if wants 'asan|netns-asan'; then
  targets="mesh_tests_unit mesh_tests_bpfhost"
  wants netns-asan && targets=all
  # Reading Asio's and nlohmann's headers once for six files takes a quarter of the processor's time. The release build
  # does without, so that each file is known to include what it uses.
  build build-asan "$sanitized" "$targets" -DMESH_SANITIZE=ON -DMESH_BENCH=OFF \
    -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=6 \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" ||
    built_sanitized=0
fi
if wants fuzz; then
  build build-fuzz "$fuzzing" mesh_fuzzers -DMESH_FUZZ=ON -DMESH_TESTS=OFF -DMESH_BENCH=OFF \
    -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14 || built_fuzzing=0
fi

# --- rungs ----------------------------------------------------------------------------------------

# ctest_rung NAME BUILT DIR LABELS once|again CTEST_ARG...
ctest_rung() {
  local name=$1 built=$2 dir=$3 labels=$4
  shift 4
  rung_begin "$name"
  if ((built == 0)); then
    count_not_run "its build failed"
  else
    run_ctest "$limit" "$dir" "$labels" "$results/$name.xml" "$@"
  fi
  rung_end
}

# root_rung NAME BUILT DIR LABELS once|again: serial, as root, on the kernel of this machine.
root_rung() {
  local before after
  if [[ $(id -u) != 0 ]]; then
    rung_begin "$1"
    count_not_run "needs root"
    rung_end
    return
  fi
  if [[ $(stat -f -c %T /sys/fs/bpf 2>/dev/null) != bpf_fs ]]; then
    mount -t bpf bpf /sys/fs/bpf || true # the tests say what they miss
  fi
  before=$(ip netns list | cut -d ' ' -f 1 | grep '^mt-' | sort || true)
  MESH_REQUIRE_ROOT=1 ctest_rung "$@" -j 1
  after=$(ip netns list | cut -d ' ' -f 1 | grep '^mt-' | sort || true)
  # No failure here, where another run may be using them; in the guests it is one.
  if [[ $after != "$before" ]]; then
    printf 'test: warning: namespaces left by %s: %s\n' "$1" \
      "$(comm -13 <(echo "$before") <(echo "$after") | tr '\n' ' ')"
  fi
}

if wants unit; then
  ctest_rung unit "$built_release" "$release" unit once -j "$jobs"
fi
if wants bpfhost; then
  ctest_rung bpfhost "$built_release" "$release" bpfhost once -j "$jobs"
fi
if wants asan; then
  ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1} \
    ctest_rung asan "$built_sanitized" "$sanitized" 'unit|bpfhost' once -j "$jobs"
fi
if wants fuzz; then
  fuzz_args=(-j "$jobs")
  # Each repetition is 20 s with another seed.
  ((long == 0)) || fuzz_args+=(--repeat until-fail:15)
  ctest_rung fuzz "$built_fuzzing" "$fuzzing" fuzz once "${fuzz_args[@]}"
fi
# The first of README's two commands; its accelerated pair is the guests' matter.
if wants demo; then
  rung_begin demo
  if ((built_release == 0)); then
    count_not_run "its build failed"
  elif [[ $(id -u) != 0 ]]; then
    count_not_run "needs root"
  else
    count_check demo timeout -k 20 300 scripts/demo.sh --no-setup --no-vm --build-dir "$release"
  fi
  rung_end
fi

# --- guests ---------------------------------------------------------------------------------------
# After all builds, not beside them: a compiler and an emulator each take a processor whole, so nothing would be done
# sooner, and what has a time limit in a guest would wait for one more.

# start_vm KERNEL: the smoke test and the bpfrun and netns tests under one kernel, in the background
# (an emulated guest uses one core), then each of tests/vm/boot/* in a boot of its own.
start_vm() {
  local kernel=$1 dir=$results/vm-$1
  mkdir -p "$dir/results"
  set -m # a process group of its own, so that cleanup reaches the emulator
  (
    started=$SECONDS
    status=0
    scripts/vm/run.sh --kernel "$kernel" --timeout "$((limit * 2))" --console "$dir/console" \
      --share "$dir/results" -- tests/vm/run_rungs.sh "$release" "$dir/results" || status=$?
    echo "$status" >"$dir/status"
    for boot in tests/vm/boot/*/; do
      [[ -e $boot/check.sh ]] || continue
      name=$(basename "$boot")
      options=()
      [[ ! -e $boot/early.sh ]] || options=(--init-script "$boot/early.sh")
      # shellcheck disable=SC2207  # words
      [[ ! -e $boot/options ]] || options+=($(<"$boot/options"))
      if MESH_BUILD_DIR=$release scripts/vm/run.sh --kernel "$kernel" --timeout 180 "${options[@]}" \
        -- bash "$boot/check.sh"; then
        echo "PASS boot_$name" >>"$dir/results/boot.txt"
      else
        echo "FAIL boot_$name" >>"$dir/results/boot.txt"
      fi
    done
    echo $((SECONDS - started)) >"$dir/seconds"
  ) > >(sed -u "s/^/[$kernel] /") 2>&1 &
  vm_pids+=($!)
  set +m
}

# collect_vm KERNEL: counts what the guest wrote; a guest that did not finish is a failure of its own.
collect_vm() {
  local dir=$results/vm-$1 file status
  for file in smoke leftovers boot; do
    count_lines "$dir/results/$file.txt"
  done
  status=$(cat "$dir/status" 2>/dev/null || echo none)
  if [[ -e $dir/results/ctest.xml ]]; then
    # Nothing is missing in a guest that would excuse a skipped test.
    count_junit "$dir/results/ctest.xml" "$dir/results/ctest.xml.again" --strict
  else
    count_not_run "the guest's ctest gave no result"
  fi
  case $status in
    0 | 1) ;;
    *) count_not_run "the guest ended with status $status" ;;
  esac
}

# The two kernels as two nodes, each in both places; after the guests, because it takes two cores itself.
pair_rung() {
  local kernels
  rung_begin vm-pair
  if ((built_release == 0)) || ! scripts/vm/fetch-kernels.sh 6.1 6.12; then
    count_not_run "no build or no kernel to boot"
  else
    for kernels in "6.1 6.12" "6.12 6.1"; do
      printf 'FAIL pair: not begun\n' >"$results/pair.txt"
      # shellcheck disable=SC2086  # two words
      timeout -k 20 "$((limit * 2))" tests/vm/pair/check.sh --build-dir "$release" --results "$results/pair.txt" \
        $kernels || true # the file says what happened
      count_lines "$results/pair.txt"
    done
  fi
  rung_end
}

vms=()
for kernel in 6.1 6.12; do
  if wants "vm-${kernel/./\\.}"; then
    vms+=("$kernel")
  fi
done
if ((${#vms[@]} > 0)); then
  if ((built_release == 0)) || ! scripts/vm/fetch-kernels.sh "${vms[@]}"; then
    for kernel in "${vms[@]}"; do
      rung_begin "vm-$kernel"
      count_not_run "no build or no kernel to boot"
      rung_end
    done
    vms=()
  fi
  for kernel in "${vms[@]}"; do
    start_vm "$kernel"
  done
fi

# --- this machine's kernel, while the guests run --------------------------------------------------

if wants bpfrun; then
  # bpfnative: what BPF_PROG_TEST_RUN of 6.1 and 6.12 cannot do (no data_end for cgroup_skb).
  root_rung bpfrun "$built_release" "$release" 'bpfrun|bpfnative' again
fi
if wants netns; then
  # netnsnative: what depends on no kernel older than this one's and would be slow in a guest.
  root_rung netns "$built_release" "$release" 'netns|netnsnative' again
fi
if wants netns-asan; then
  root_rung netns-asan "$built_sanitized" "$sanitized" 'netns|netnsnative' once
fi

# --- what the guests said -------------------------------------------------------------------------

for pid in "${vm_pids[@]}"; do
  wait "$pid" || true # the results say what happened
done
vm_pids=()
for kernel in "${vms[@]}"; do
  rung_begin "vm-$kernel"
  collect_vm "$kernel"
  rung_end "$(cat "$results/vm-$kernel/seconds" 2>/dev/null || echo 0)"
done

if wants vm-pair; then
  pair_rung
fi

# --- what changes seldom --------------------------------------------------------------------------

if wants compilers; then
  # The image is built with -O3, whose warnings are others; and a second compiler has opinions of its own.
  build gcc-release "$build_dir/gcc-release" all -DCMAKE_BUILD_TYPE=Release || true
  build clang "$build_dir/clang" all -DCMAKE_C_COMPILER=clang-16 -DCMAKE_CXX_COMPILER=clang++-16 || true
fi
if wants arm64; then
  rung_begin arm64
  count_check arm64 timeout -k 20 "$((limit * 2))" scripts/check-arm64.sh --no-setup --build-dir "$build_dir/arm64"
  rung_end
fi
if wants image; then
  rung_begin image
  if ((built_release == 0)); then
    count_not_run "its build failed"
  else
    count_check image timeout -k 20 "$((limit * 2))" scripts/check-image.sh --no-setup --build-dir "$build_dir"
  fi
  rung_end
fi

print_summary
exit
}
