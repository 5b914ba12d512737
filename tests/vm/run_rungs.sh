#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What scripts/test.sh runs in a guest: the smoke test, then the tests that need a kernel (ctest labels
# bpfrun and netns but for the agent's own, with MESH_LONG all and netnsnative too) from a build directory of the host,
# then a look for what they left behind.
#
# Usage: scripts/vm/run.sh --share RESULTS -- tests/vm/run_rungs.sh BUILD_DIR RESULTS [CTEST_ARG...]
# Leaves in RESULTS: smoke.txt and leftovers.txt (PASS/FAIL lines), ctest.xml (JUnit), ctest.xml.again of up to three
# tests that failed and were run once more. Exits 1 if something failed. BUILD_DIR must have been listed on the host
# (ctest -N), so that the guest does not start every test program only to ask for its tests; what ctest writes there
# stays in the guest.
set -euo pipefail

if [[ -z ${MESH_VM:-} ]]; then
  echo "run_rungs: run this in a guest of scripts/vm/run.sh" >&2
  exit 2
fi
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/test-lib.sh
. "$here/../../scripts/test-lib.sh"
build=$1
results=$2
shift 2
failed=0
export MESH_REQUIRE_ROOT=1

"$here/smoke_test.sh" | tee "$results/smoke.txt" || failed=1

labels='bpfrun|netns'
# Of the agent rather than of the kernel, and minutes of an emulated processor: natively always, here with MESH_LONG.
agents_own=(
  'bpfrun\.(BalanceTest|Kinds/SourceTest)\.(LeastRequestIsByWeight|.*(Wrap|AtRandom|Family|Mixed|Adopted|FewMove))'
  'netns\.DiscoveryTest\.(StartsOnce|StopsWithout|LoopbackAnd|ItsOwn|AnAddressOnTwo)'
  'netns\.LifetimeTest\.More'
  'netns\.Lifecycle\.(BadConfig|SecondAgent|DrainEnds|NoRuleOf)'
  'netns\.OwnCgroup\.(Moved|OneThatIs|Preflight)'
  'netns\.HttpReporters\.TheNodeItself'
  'netns\.(ThreeNodesThief|TwoNodes)\.'
)
chosen=(-E "^($(IFS='|' && echo "${agents_own[*]}"))")
if [[ -n ${MESH_LONG:-} ]]; then
  # All but what is about etcd and files rather than a kernel.
  labels+='|netnsnative'
  chosen=(-E '^netnsnative\.(EtcdEngine|StoreCommands|StoreSource|Scale)\.')
fi
ctest --test-dir "$build" -L "^($labels)\$" "${chosen[@]}" -j 1 --no-tests=error --output-on-failure \
  --output-junit "$results/ctest.xml" "$@" || {
  failed=1 # scripts/test.sh counts
  attempt_again "$build" "$results/ctest.xml" "$results/ctest.xml.again"
}

# The guest was empty before: whatever is there now was leaked.
{
  leaked=$(ip netns list | cut -d ' ' -f 1 | tr '\n' ' ')
  [[ -z $leaked ]] && echo "PASS no_namespace_left" || echo "FAIL no_namespace_left: $leaked"
  leaked=$(find /sys/fs/bpf -mindepth 1 -maxdepth 2 | tr '\n' ' ')
  [[ -z $leaked ]] && echo "PASS no_pin_left" || echo "FAIL no_pin_left: $leaked"
  leaked=$(bpftool cgroup tree 2>/dev/null | grep -E '^ *[0-9]+ +[a-z]' | tr '\n' ' ' || true)
  [[ -z $leaked ]] && echo "PASS no_program_left" || echo "FAIL no_program_left: $leaked"
} | tee "$results/leftovers.txt"
if grep -q '^FAIL' "$results/leftovers.txt"; then
  failed=1
fi
exit "$failed"
