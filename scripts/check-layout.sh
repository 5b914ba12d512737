#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks what no compiler does: the fixed top level, licence lines, modes of scripts, who may use which library; warns of
# long files.
#
# Usage: scripts/check-layout.sh     (exit 1 when a rule is broken)
set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
readonly TOP='^(\.[^/]+|CMakeLists\.txt|LICENSE|README\.md|agent|bpf|ktls|metrics|scripts|tests)$'
readonly LONG=500

# Tracked files and those that would be, so that a tree is judged before it is committed.
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  mapfile -t files < <(git ls-files --cached --others --exclude-standard | sort -u)
else
  mapfile -t files < <(find . -type f -not -path './.git/*' -not -path './build*' | sed 's,^\./,,' | sort)
fi

# Folders whose sources may include a library; each exception to the design is explained in its README.
readonly -A MAY_INCLUDE=(
  ['bpf/(bpf|libbpf)\.h']='agent/bpf'
  ['openssl/']='ktls agent/identity'
  ['boost/asio/ssl']='agent/health agent/store'
  ['boost/beast']='metrics agent/l7 agent/catalog agent/admin agent/health agent/store'
)

bad=0
complain() {
  printf 'layout: %s\n' "$*"
  bad=$((bad + 1))
}

while read -r entry; do
  [[ $entry =~ $TOP ]] || complain "$entry does not belong at the top level"
done < <(printf '%s\n' "${files[@]}" | cut -d / -f 1 | sort -u)

for file in "${files[@]}"; do
  [[ -f $file ]] || continue # deleted, not yet committed
  case $file in
    *.h | *.c | *.cpp | *.sh | *.py | *.cmake | CMakeLists.txt | */CMakeLists.txt | .ci/run)
      head -n 3 "$file" | grep -q 'SPDX-License-Identifier:' || complain "$file has no SPDX line"
      lines=$(wc -l <"$file")
      ((lines <= LONG)) || printf 'layout: warning: %s has %d lines (more than %d)\n' "$file" "$lines" "$LONG"
      ;;
  esac
  case $file in
    scripts/*.sh | .ci/run) [[ -x $file ]] || complain "$file is a script but not executable" ;;
  esac
done
for library in "${!MAY_INCLUDE[@]}"; do
  while read -r file; do
    [[ " ${MAY_INCLUDE[$library]} " == *" ${file%/*} "* ]] ||
      complain "$file includes $library, which is for ${MAY_INCLUDE[$library]}"
  done < <(grep -rlE "^#include [<\"]$library" --include='*.h' --include='*.cpp' agent ktls metrics || true)
done
((bad == 0)) || exit 1
