#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts what ctest wrote as JUnit, for scripts/test-lib.sh.

Usage: junit.py FIRST [--again SECOND] [--strict]
  --again SECOND  results of those tests of FIRST that were run once more because they had failed. One that passed
                  then is "unstable": it counts as passed, and is named with what it said the first time. Not if it
                  said that something went in clear, that bytes were wrong or that a program crashed.
  --strict        a test that skipped itself has failed
Prints records, each ended by NUL: "count PASSED FAILED SKIPPED UNSTABLE", then "failed TEXT", "unstable TEXT" and
"skipped NAME". A test that could not be started has always failed.
"""
import argparse
import os
import re
import sys
import xml.etree.ElementTree as tree

# What sums a failure up, shown first, because what leads to it may be long: sanitizers, fuzzers, exceptions.
SUMS_UP = re.compile(r"SUMMARY: |ERROR: |what\(\): |runtime error: |Test unit written to")
SAID = re.compile(r"Failure$|ERROR: |runtime error:|terminate called|Assertion|timed? ?out", re.I)
# What is never chance, so that a second attempt excuses nothing: a byte in clear, bytes that were not the right ones, a
# crash. gtest prints the expression of the check. The size of `sent_by` is asked for where something must be seen.
NEVER_CHANCE = re.compile(
    r"plaintext_segments|\bcable_?(->|\.)contains\(|\bcable_?(->|\.)count\(\"tcp and not port 15008\"\)"
    r"|\bsent_by\(\w+\)(?!\.size)|wrong byte|Sanitizer|terminate called"
    r"|Segmentation|SIGSEGV|SIGABRT|signal (6|11)\b|kernel BUG|Oops"
)
LINES_SHOWN = 12
WIDTH_SHOWN = 200


def reason(case):
    """The test's name and the lines that say why it did not pass."""
    lines = (case.findtext("system-out") or "").splitlines()
    shown = list(dict.fromkeys(line.strip()[:WIDTH_SHOWN] for line in lines if SUMS_UP.search(line)))[:6]
    for at, line in enumerate(lines):
        if len(shown) >= LINES_SHOWN:
            break
        if SAID.search(line):
            shown += [t[:WIDTH_SHOWN] for t in lines[at : at + 6] if t.strip()[:WIDTH_SHOWN] not in shown]
    why = "".join("\n    " + line for line in (shown or lines[-4:])[:LINES_SHOWN])
    return f"{case.get('name')} ({case.get('status')}){why}"


def skipped_itself(case):
    skipped = case.find("skipped")
    return skipped is not None and skipped.get("message", "").startswith("SKIP_")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("--again")
    parser.add_argument("--strict", action="store_true")
    args = parser.parse_args()
    passed_again = set()
    if args.again and os.path.exists(args.again):
        cases = tree.parse(args.again).iter("testcase")
        passed_again = {case.get("name") for case in cases if case.get("status") == "run"}
    passed = 0
    records = {"failed": [], "unstable": [], "skipped": []}
    for case in tree.parse(args.first).iter("testcase"):
        if case.get("status") == "run":
            passed += 1
        elif skipped_itself(case):
            records["failed" if args.strict else "skipped"].append(
                f"{case.get('name')}" + (" (skipped itself)" if args.strict else "")
            )
        elif case.get("name") in passed_again and not NEVER_CHANCE.search(case.findtext("system-out") or ""):
            passed += 1
            records["unstable"].append(reason(case))
        else:
            records["failed"].append(reason(case))
    counts = " ".join(str(len(records[kind])) for kind in ("failed", "skipped", "unstable"))
    sys.stdout.write(f"count {passed} {counts}\0")
    for kind, texts in records.items():
        for text in texts:
            sys.stdout.write(f"{kind} {text}\0")


if __name__ == "__main__":
    main()
