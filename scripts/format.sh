#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Formats the C and C++ sources with clang-format 14 (other versions format differently).
#
# Usage: scripts/format.sh [--check] [FILE...]     (all sources when no file is named)
#   --check   change nothing; list what is not formatted and exit 1 if something is not
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
check=0
files=()
for arg in "$@"; do
  case $arg in
    --check) check=1 ;;
    -h | --help) sed -n '3,/^set -/s/^# \{0,1\}//p' scripts/format.sh && exit 0 ;;
    *) files+=("$arg") ;;
  esac
done
formatter=$(command -v clang-format-14) || {
  echo "format: clang-format-14 is missing: run scripts/setup.sh" >&2
  exit 2
}
if ((${#files[@]} == 0)); then
  mapfile -t files < <(find agent bpf ktls metrics tests -type f \
    \( -name '*.h' -o -name '*.c' -o -name '*.cpp' \) | sort)
fi
((${#files[@]} > 0)) || exit 0

if ((check == 0)); then
  "$formatter" -i --style=file "${files[@]}"
  exit 0
fi
bad=0
for file in "${files[@]}"; do
  if ! "$formatter" --style=file --dry-run -Werror "$file" >/dev/null 2>&1; then
    printf 'not formatted: %s\n' "$file"
    bad=$((bad + 1))
  fi
done
if ((bad > 0)); then
  printf 'format: %d of %d files; scripts/format.sh formats them\n' "$bad" "${#files[@]}" >&2
  exit 1
fi
