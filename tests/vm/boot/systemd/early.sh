#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the units as shipped, before systemd runs: both enabled, and one that stands for whoever brings the network up.
set -euo pipefail
deploy=$PWD/scripts/deploy # the root of the tree, which is where tests are run from
units=/etc/systemd/system

ln -s "${MESH_BUILD_DIR:?}/agent/mesh-agent" /usr/local/sbin/mesh-agent
install -m 644 "$deploy/mesh-agent.service" "$deploy/mesh-agent-guard.service" "$units"
# The later line of two counts.
cat "$deploy/mesh-agent.default" - >/etc/default/mesh-agent <<'ENVIRONMENT'
MESH_AGENT_NODE_CIDR=10.88.0.0/24,fd88::/64
MESH_AGENT_MESH_CIDR=10.88.0.0/16
ENVIRONMENT
mkdir -p /etc/mesh-agent/services
cat >/etc/mesh-agent/services/services.json <<'JSON'
{"services": [{"name": "echo", "address": "10.88.0.3", "port": 8080, "path": "twoleg"},
              {"name": "caller", "address": "10.88.0.2", "port": 1}]}
JSON

cat >"$units/network-probe.service" <<'UNIT'
[Unit]
Description=What is pinned when the network may come up
DefaultDependencies=no
After=network-pre.target
Before=network.target sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ls /sys/fs/bpf/mesh-agent/v*/links >/run/pinned-before-network'
[Install]
WantedBy=sysinit.target
UNIT
systemctl enable mesh-agent-guard.service mesh-agent.service network-probe.service
