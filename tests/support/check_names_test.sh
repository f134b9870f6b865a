#!/bin/sh
# check_names_test.sh FOLDER: plants names of one machine and expects check_names.sh to see each; a text without any must pass.
set -eu
check=$(cd "$(dirname "$0")" && pwd)/check_names.sh
tree=${1:?usage: check_names_test.sh FOLDER}
rm -rf "$tree"
mkdir -p "$tree"
failures=0
while IFS= read -r text; do
  echo "$text" >"$tree/a.md"
  if sh "$check" "$tree" >/dev/null; then
    echo "not seen: $text"
    failures=1
  fi
done <<'TEXTS'
see /work/tree for it
path="/root/x"
`/home/someone/data.npz`
in /tmp/result.csv
/tmp/a/b
/workspace
http://192.168.1.7/x
https://mirror.example.org/debian
https://registry.example.org
"https://pypi.org/simple"
/builds/x
TEXTS
cat >"$tree/a.md" <<'TEXT'
framework/workloads, base/root, the root/home of a tree, `${TMPDIR:-/tmp}`, workloads/source, ../results
https://ui.perfetto.dev and https://www.apache.org/licenses/LICENSE-2.0, version 10.2.1, 1/work, and/or
#!/usr/bin/env bash, /dev/null, /proc/meminfo, build/tmp/x
TEXT
sh "$check" "$tree" || { echo "a clean text is refused"; failures=1; }
rm -rf "$tree"
exit $failures
