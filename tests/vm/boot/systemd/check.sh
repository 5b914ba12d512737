#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The units of scripts/deploy under the systemd that booted the guest: guard, start, reload, restart, stop. early.sh has
# installed them (tests/README.md).
# shellcheck disable=SC2317  # finish is called by the trap
set -euo pipefail

if [[ -z ${MESH_VM:-} || $(cat /proc/1/comm) != systemd ]]; then
  echo "systemd: run this in a guest with --systemd: see tests/README.md" >&2
  exit 2
fi
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=tests/vm/boot/lib.sh
. "$here/../lib.sh"
work=$(mktemp -d)

finish() {
  # shellcheck disable=SC2046  # a list of numbers
  kill $(jobs -p) 2>/dev/null || true
  [[ $failed == 0 && $1 == 0 ]] ||
    { systemctl status -n 0 mesh-agent mesh-agent-guard && journalctl -o short-monotonic --no-pager -n 150; } || true
}
trap 'finish $?' EXIT

property() { systemctl show -P "$1" mesh-agent.service; }
readiness() { curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:15020/readyz || true; }

# start_and_watch: `systemctl start`, as it is seen from outside: an active unit is a ready agent.
start_and_watch() {
  local job state early=0
  systemctl start mesh-agent &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    state=$(property ActiveState)
    [[ $state != active || $(readiness) == 200 ]] || early=1
    sleep 0.2
  done
  wait "$job" || early="systemctl start failed"
  expect "an active unit is a ready agent" 0 "$early"
  expect "... and it is active" "active 200" "$(property ActiveState) $(readiness)"
}

expect "systemd accepts the units" "" \
  "$(systemd-analyze verify --recursive-errors=no mesh-agent.service mesh-agent-guard.service 2>&1)"
expect "the guard has run" "active exited" \
  "$(systemctl show -P ActiveState -P SubState mesh-agent-guard | paste -sd ' ')"
expect "... before the network" yes "$([[ -s /run/pinned-before-network ]] && echo yes || echo no)"
make_pods
nsenter --net=/run/netns/b python3 "$here/talk.py" serve 10.88.0.3 8080 &
expect "a pod is refused another while there is only the guard" ECONNREFUSED "$(attempt a 10.88.0.3 8080)"

mkdir -p /run/systemd/system/mesh-agent.service.d
printf '[Service]\nEnvironment=MESH_AGENT_METRICS_LISTEN=nowhere\n' >/run/systemd/system/mesh-agent.service.d/wrong.conf
systemctl daemon-reload
expect "a wrong flag: the start fails" failed "$(systemctl start mesh-agent 2>/dev/null && echo started || echo failed)"
sleep 3 # RestartSec= is 1
expect "... the unit is failed, and nothing tries it again" "failed exit-code 2 0" \
  "$(property ActiveState) $(property Result) $(property ExecMainStatus) $(property NRestarts)"
expect "... and the journal says why" 1 \
  "$(journalctl -u mesh-agent -o cat --no-pager | grep -c 'metrics-listen.*nowhere')"
rm -r /run/systemd/system/mesh-agent.service.d
systemctl daemon-reload

start_and_watch
vip=$(mesh-agent status --json |
  python3 -c 'import json, sys; print([s["vip4"] for s in json.load(sys.stdin)["services"] if s["name"] == "echo"][0])')
mkfifo "$work/say" "$work/heard"
nsenter --net=/run/netns/a python3 "$here/talk.py" ask "$vip" 80 <"$work/say" >"$work/heard" &
exec {say}>"$work/say" {heard}<"$work/heard"
# talk: everything that is open speaks and one more is opened; "ANSWERED of OPEN".
talk() {
  local line
  echo >&"$say"
  read -r -t 60 line <&"$heard" || line="nothing within 60 s"
  echo "$line"
}
expect "a connection is opened" "1 of 1" "$(talk)"
expect "a second one" "2 of 2" "$(talk)"
expect "both are relayed" 2 "$(mesh-agent connections --json | python3 -c 'import json, sys
print(sum(c["path"] == "twoleg" and c["reporter"] == "source" for c in json.load(sys.stdin)["connections"]))')"

before=$(property MainPID)
expect "reload works" 0 "$(systemctl reload mesh-agent >&2 && echo 0 || echo $?)"
after=$(property MainPID)
expect "... in another process" changed "$([[ $after != "$before" ]] && echo changed || echo "still $after")"
expect "... which is the one that serves" "$after" \
  "$(ss -Hltnp 'sport = :15020' | grep -o 'pid=[0-9]*' | sed 's/pid=//' | sort -u)"
for ((tries = 0; tries < 100; tries++)); do [[ -e /proc/$before ]] || break && sleep 0.1; done
expect "... and the one before it has gone" gone "$([[ -e /proc/$before ]] && echo "$before" || echo gone)"
expect "... the unit is active, and was not started again" "active 200 0" \
  "$(property ActiveState) $(readiness) $(property NRestarts)"
expect "... what was open still is" "3 of 3" "$(talk)"

before=$after
expect "restart works" 0 "$(systemctl restart mesh-agent >&2 && echo 0 || echo $?)"
after=$(property MainPID)
expect "... in another process" changed "$([[ $after != "$before" ]] && echo changed || echo "still $after")"
expect "... the unit is active" "active 200" "$(property ActiveState) $(readiness)"
expect "... what was open still is" "4 of 4" "$(talk)"
expect "... and systemd keeps nothing more for it" 0 "$(property NFileDescriptorStore)"

kill -KILL "$after"
for ((tries = 0; tries < 600; tries++)); do
  [[ $(property NRestarts) == 0 || $(property ActiveState) != active ]] || break
  sleep 0.2
done
expect "a killed agent is started again" "active 1" "$(property ActiveState) $(property NRestarts)"
expect "... its relayed connections have ended, new ones are served" "1 of 5" "$(talk)"

expect "stop works" 0 "$(systemctl stop mesh-agent >&2 && echo 0 || echo $?)"
expect "... the unit has no process and no failure" "inactive success" "$(property ActiveState) $(property Result)"
expect "... what needs the agent is refused" ECONNREFUSED "$(attempt a "$vip" 80)"
expect "... what was open has ended" "0 of 1" "$(talk)"
expect "... the programs stay attached" 1 "$(bpftool cgroup show /sys/fs/cgroup | grep -c mesh_connect4)"
expect "cleanup works" 0 "$(mesh-agent cleanup >&2 && echo 0 || echo $?)"
expect "... nothing is attached" "" "$(bpftool cgroup show /sys/fs/cgroup | grep mesh_ || true)"
expect "... nothing is pinned" "" "$(find /sys/fs/bpf -path '*mesh*' | head -n 3)"
expect "... a pod reaches another as if there had never been an agent" connected "$(attempt a 10.88.0.3 8080)"
exit "$failed"
