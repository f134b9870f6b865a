#!/bin/sh
# check_invariants.sh ROOT: each invariant of docs/invariants.md is cited by its number in every test file that its row names, and in no row without one;
# and no test cites a number that the document does not have. Exit status 1 if not so.
set -eu
cd "${1:?usage: check_invariants.sh ROOT}"
status=0
say() { echo "docs/invariants.md: $*"; status=1; }

# A row reads "| I7 | what holds | `tests/a_test.cpp`, `tests/b_test.cpp` |".
numbers=$(sed -n 's/^| \(I[0-9][0-9]*\) |.*/\1/p' docs/invariants.md)
[ -n "$numbers" ] || say "has no rows"
for number in $numbers; do
  [ "$(echo "$numbers" | grep -cx "$number")" -eq 1 ] || say "$number has two rows"
  files=$(sed -n "s/^| $number |.*| \([^|]*\) |\$/\1/p" docs/invariants.md | grep -o '`tests/[^`]*`' | tr -d '`')
  [ -n "$files" ] || say "$number names no test"
  for file in $files; do
    if [ ! -f "$file" ]; then
      say "$number names $file, which is not there"
    elif ! grep -qE "(^|[^A-Za-z0-9_])$number([^A-Za-z0-9_]|\$)" "$file"; then
      say "$number is said to be held by $file, which does not cite it"
    fi
  done
done
cited=$(find tests -name '*_test.cpp' -exec grep -ohE '//.*' {} + | grep -oE '(^|[^A-Za-z0-9_])I[0-9]+([^A-Za-z0-9_]|$)' | grep -oE 'I[0-9]+' | sort -u)
for number in $cited; do
  echo "$numbers" | grep -qx "$number" || say "has no $number, which a test cites"
done
exit $status
