#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How scripts/test.sh counts: rungs, their passed, failed and skipped tests, the closing table. Sourced.

rung_rows=()
rung_passed=0
rung_failed=0
rung_skipped=0
rung_unstable=0
total_passed=0
total_failed=0
total_skipped=0
failures=() # what the closing part says of each failure, because a record may hold only the end of a log
unstable=() # and of each test that passed at the second attempt only
readonly FAILURES_SHOWN=40
# So many tests of a rung may be run once more when they have failed; where more fail, something is broken. And so
# many may need it in a whole run: chance does not strike that often.
readonly AGAIN_MAX=3
SCRIPTS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

rung_begin() {
  rung_name=$1
  rung_started=$SECONDS
  rung_passed=0
  rung_failed=0
  rung_skipped=0
  rung_unstable=0
  printf '\n=== %s ===\n' "$1"
}

# rung_end [SECONDS]: closes a rung; one in which nothing at all was counted has failed.
rung_end() {
  if ((rung_passed + rung_failed == 0)); then
    count_not_run "no test"
  fi
  rung_rows+=("$(printf '%-12s %8d %8d %8d %8d %8d' "$rung_name" "$rung_passed" "$rung_failed" \
    "$rung_skipped" "$rung_unstable" "${1:-$((SECONDS - rung_started))}")")
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

# count_junit FILE AGAIN_FILE [--strict]: ctest's own results, and those of a second attempt if there was one
# (scripts/junit.py).
count_junit() {
  local record numbers
  while IFS= read -r -d '' record; do
    case $record in
      count\ *) read -ra numbers <<<"${record#count }" ;;
      failed\ *) failures+=("$rung_name ${record#failed }") ;;
      unstable\ *) unstable+=("$rung_name ${record#unstable }") ;;
      skipped\ *) printf 'skipped in %s: %s\n' "$rung_name" "${record#skipped }" ;;
    esac
  done < <("$SCRIPTS/junit.py" "$1" --again "$2" "${@:3}")
  if [[ -z ${numbers[*]:-} ]]; then
    count_not_run "$1 cannot be read"
    return
  fi
  count "${numbers[0]}" "${numbers[1]}" "${numbers[2]}"
  rung_unstable=$((rung_unstable + numbers[3]))
}

# attempt_again DIR FIRST_XML AGAIN_XML: runs what failed in the last run of ctest once more, one test at a time, if it
# was not much. For tests with real clocks, processes and networks, which share two processors with emulators; what
# is told apart so is shown as unstable, never hidden. Not for unit tests nor sanitizers: what fails there by chance is a
# race.
attempt_again() {
  local failed
  failed=$(grep -c '<testcase .*status="fail"' "$2" || true)
  ((failed > 0 && failed <= AGAIN_MAX)) || return 0
  printf '\n%s failed: once more, alone\n' "$failed"
  timeout -k 20 900 ctest --test-dir "$1" --rerun-failed -j 1 --output-on-failure --output-junit "$3" || true
}

# run_ctest LIMIT DIR LABELS JUNIT_FILE once|again CTEST_ARG...
run_ctest() {
  local limit=$1 dir=$2 labels=$3 junit=$4 attempts=$5 status=0 failed_before
  shift 5
  failed_before=$((rung_failed + rung_unstable))
  timeout -k 20 "$limit" ctest --test-dir "$dir" -L "^($labels)\$" --no-tests=error \
    --output-on-failure --output-junit "$junit" "$@" || status=$?
  if [[ -e $junit ]]; then
    if ((status != 124 && status != 137)) && [[ $attempts == again ]]; then
      attempt_again "$dir" "$junit" "$junit.again"
    fi
    count_junit "$junit" "$junit.again"
  fi
  if ((status == 124 || status == 137)); then
    count_not_run "not finished after $limit s"
  elif ((status != 0 && rung_failed + rung_unstable == failed_before)); then
    count_not_run "ctest ended with status $status"
  fi
}

# Prints the table and the closing line; the status is that of the whole run.
print_summary() {
  if ((${#unstable[@]} > AGAIN_MAX)); then
    failures+=("${#unstable[@]} tests passed at the second attempt only; more than $AGAIN_MAX are no chance")
    total_failed=$((total_failed + 1))
  fi
  if ((${#unstable[@]} > 0)); then
    printf '\nunstable, passed at the second attempt only:\n'
    printf '  %s\n' "${unstable[@]}"
  fi
  if ((${#failures[@]} > 0)); then
    printf '\nnot passed:\n'
    printf '  %s\n' "${failures[@]:0:FAILURES_SHOWN}"
    ((${#failures[@]} <= FAILURES_SHOWN)) || printf '  and %d more\n' $((${#failures[@]} - FAILURES_SHOWN))
  fi
  printf '\n%-12s %8s %8s %8s %8s %8s\n' rung passed failed skipped unstable seconds
  printf '%s\n' "${rung_rows[@]}"
  printf '%-12s %44d\n' "in all" "$SECONDS"
  printf '\n%d passed, %d failed' "$total_passed" "$total_failed"
  if ((total_skipped > 0)); then
    printf ', %d skipped' "$total_skipped"
  fi
  if ((${#unstable[@]} > 0)); then
    printf ', %d unstable' "${#unstable[@]}"
  fi
  printf '\n'
  ((total_failed == 0))
}
