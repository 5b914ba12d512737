#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What each BPF program cost during one row, as Markdown lines, from two `bpftool --json prog show`.

Usage: programs.py BEFORE AFTER OPERATIONS ROW
Needs kernel.bpf_stats_enabled; reading the clock twice is part of every run's time (OVERHEAD).
"""
import json
import sys

# Instructions that an empty program shows (measured with empty_hooks.bpf.c on 6.12).
OVERHEAD = 49


def load(path):
    with open(path, encoding="utf-8") as file:
        return {program["id"]: program for program in json.load(file)}


before, after = load(sys.argv[1]), load(sys.argv[2])
operations, row = int(sys.argv[3]), sys.argv[4]
total = 0.0
for number, program in sorted(after.items()):
    old = before.get(number, {})
    runs = program.get("run_cnt", 0) - old.get("run_cnt", 0)
    if runs == 0:
        continue
    spent = program.get("run_time_ns", 0) - old.get("run_time_ns", 0)
    each = spent / runs - OVERHEAD
    total += each * runs / operations
    print(f"| {row} | {program.get('name', '?')} | {runs / operations:.2f} | {each:.0f} "
          f"| {each * runs / operations:.0f} |")
print(f"| {row} | all | | | {total:.0f} |")
