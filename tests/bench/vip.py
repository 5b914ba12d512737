#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the IPv4 VIP of one service out of `mesh-agent status --json` on standard input."""
import json
import sys


def find(value, name):
    if isinstance(value, dict):
        if value.get("name") == name and value.get("vip4"):
            return value["vip4"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = find(item, name)
            if found:
                return found
    return None


try:
    vip = find(json.load(sys.stdin), sys.argv[1])
except ValueError:
    vip = None
if not vip:
    sys.exit(1)
print(vip)
