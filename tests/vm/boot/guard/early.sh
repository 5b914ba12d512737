#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What mesh-agent-guard.service does at boot: before any interface is up, and once.
set -euo pipefail
"${MESH_BUILD_DIR:?}/agent/mesh-agent" guard --node-cidr 10.88.0.0/24,fd88::/64 \
  --mesh-cidr 10.88.0.0/16
