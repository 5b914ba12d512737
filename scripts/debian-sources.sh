#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the apt sources of Debian itself that this machine uses, for mmdebstrap; those of others are left out.
set -euo pipefail

if [[ -s /etc/apt/sources.list.d/debian.sources ]]; then
  cat /etc/apt/sources.list.d/debian.sources
elif grep -qE '^deb .*debian' /etc/apt/sources.list 2>/dev/null; then
  grep -E '^deb .*debian' /etc/apt/sources.list
else
  printf 'deb http://deb.debian.org/debian bookworm main\n'
  printf 'deb http://deb.debian.org/debian-security bookworm-security main\n'
fi
