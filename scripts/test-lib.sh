#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How scripts/test.sh counts: rungs, their passed, failed and skipped tests, the closing table. Sourced.

rung_rows=()
rung_passed=0
rung_failed=0
rung_skipped=0
total_passed=0
total_failed=0
total_skipped=0
failures=() # what the closing part says of each failure, because a record may hold only the end of a log
readonly FAILURES_SHOWN=40

rung_begin() {
  rung_name=$1
  rung_started=$SECONDS
  rung_passed=0
  rung_failed=0
  rung_skipped=0
  printf '\n=== %s ===\n' "$1"
}

# rung_end [SECONDS]: closes a rung; one in which nothing at all was counted has failed.
rung_end() {
  if ((rung_passed + rung_failed == 0)); then
    count_not_run "no test"
  fi
  rung_rows+=("$(printf '%-12s %8d %8d %8d %8d' "$rung_name" "$rung_passed" "$rung_failed" \
    "$rung_skipped" "${1:-$((SECONDS - rung_started))}")")
  total_passed=$((total_passed + rung_passed))
  total_failed=$((total_failed + rung_failed))
  total_skipped=$((total_skipped + rung_skipped))
}

# count PASSED FAILED [SKIPPED]
count() {
  rung_passed=$((rung_passed + $1))
  rung_failed=$((rung_failed + $2))
  rung_skipped=$((rung_skipped + ${3:-0}))
}

count_not_run() {
  failures+=("$rung_name did not run: $*")
  printf 'FAIL %s: did not run: %s\n' "$rung_name" "$*"
  count 0 1
}

# count_check NAME COMMAND...: one check, one count.
count_check() {
  local name=$1
  shift
  if "$@"; then
    printf 'PASS %s\n' "$name"
    count 1 0
  else
    printf 'FAIL %s\n' "$name"
    failures+=("$rung_name $name")
    count 0 1
  fi
}

# count_lines FILE: PASS and FAIL lines; a file that is not there counts nothing.
count_lines() {
  [[ -e $1 ]] || return 0
  local line
  while read -r line; do
    failures+=("$rung_name $line")
  done < <(grep '^FAIL ' "$1" || true)
  count "$(grep -c '^PASS ' "$1" || true)" "$(grep -c '^FAIL ' "$1" || true)"
}

# count_junit FILE [strict]: ctest's own results. A test that skipped itself is named and, when strict,
# failed; one that could not be started has always failed.
count_junit() {
  local passed failed skipped not_run
  passed=$(grep -c '<testcase .*status="run"' "$1" || true)
  failed=$(grep -c '<testcase .*status="fail"' "$1" || true)
  not_run=$(grep -c '<testcase .*status="\(notrun\|disabled\)"' "$1" || true)
  skipped=$(grep -c '<skipped message="SKIP_' "$1" || true)
  failed=$((failed + not_run - skipped))
  if ((skipped > 0)); then
    printf 'skipped in %s:\n' "$rung_name"
    grep -B 1 '<skipped message="SKIP_' "$1" | sed -n 's/.*<testcase name="\([^"]*\)".*/  \1/p'
    if [[ ${2:-} == strict ]]; then
      failed=$((failed + skipped))
      skipped=0
    fi
  fi
  if ((failed > 0)); then
    local text
    while IFS= read -r -d '' text; do
      failures+=("$rung_name $text")
    done < <(junit_failures "$1" "${2:-}")
  fi
  count "$passed" "$failed" "$skipped"
}

# junit_failures FILE [strict]: the name of each test that did not pass and the lines that say why, each ended by NUL.
# First those of sanitizers, fuzzers and exceptions that sum up: what leads to them may be long.
junit_failures() {
  /usr/bin/python3 - "$1" "${2:-}" <<'END'
import re, sys
import xml.etree.ElementTree as tree

sums_up = re.compile(r"SUMMARY: |ERROR: |what\(\): |runtime error: |Test unit written to")
said = re.compile(r"Failure$|ERROR: |runtime error:|terminate called|Assertion|timed? ?out", re.I)
for case in tree.parse(sys.argv[1]).iter("testcase"):
    skipped = case.find("skipped")
    if case.get("status") == "run" or (
        sys.argv[2] != "strict" and skipped is not None and skipped.get("message", "").startswith("SKIP_")
    ):
        continue
    lines = (case.findtext("system-out") or "").splitlines()
    shown = list(dict.fromkeys(line.strip()[:200] for line in lines if sums_up.search(line)))[:6]
    for at, line in enumerate(lines):
        if len(shown) >= 12:
            break
        if said.search(line):
            shown += [text[:200] for text in lines[at : at + 6] if text.strip()[:200] not in shown]
    why = "".join("\n    " + line for line in (shown or lines[-4:])[:12])
    sys.stdout.write(f"{case.get('name')} ({case.get('status')}){why}\0")
END
}

# run_ctest LIMIT DIR LABELS JUNIT_FILE CTEST_ARG...
run_ctest() {
  local limit=$1 dir=$2 labels=$3 junit=$4 status=0 failed_before
  shift 4
  failed_before=$rung_failed
  timeout -k 20 "$limit" ctest --test-dir "$dir" -L "^($labels)\$" --no-tests=error \
    --output-on-failure --output-junit "$junit" "$@" || status=$?
  if [[ -e $junit ]]; then
    count_junit "$junit"
  fi
  if ((status == 124 || status == 137)); then
    count_not_run "not finished after $limit s"
  elif ((status != 0 && rung_failed == failed_before)); then
    count_not_run "ctest ended with status $status"
  fi
}

# Prints the table and the closing line; the status is that of the whole run.
print_summary() {
  if ((${#failures[@]} > 0)); then
    printf '\nnot passed:\n'
    printf '  %s\n' "${failures[@]:0:FAILURES_SHOWN}"
    ((${#failures[@]} <= FAILURES_SHOWN)) || printf '  and %d more\n' $((${#failures[@]} - FAILURES_SHOWN))
  fi
  printf '\n%-12s %8s %8s %8s %8s\n' rung passed failed skipped seconds
  printf '%s\n' "${rung_rows[@]}"
  printf '\n%d passed, %d failed' "$total_passed" "$total_failed"
  if ((total_skipped > 0)); then
    printf ', %d skipped' "$total_skipped"
  fi
  printf '\n'
  ((total_failed == 0))
}
