#!/bin/sh
# mutants_test.sh ROOT FOLDER: runs tools/mutants on a small repository with a mutant that its test catches, one that survives, and ones that are no good.
set -eu
root=${1:?usage: mutants_test.sh ROOT FOLDER}
repository=${2:?usage: mutants_test.sh ROOT FOLDER}
failures=0
fail() { echo "FAILED: $*"; failures=1; }
# expect STATUS TEXT COMMAND...: the command ends with the status and writes the text.
expect() {
  status=$1 text=$2
  shift 2
  code=0
  "$@" >"$repository.log" 2>&1 || code=$?
  [ "$code" -eq "$status" ] || { cat "$repository.log"; fail "$* ended with $code, not $status"; }
  grep -qF "$text" "$repository.log" || { cat "$repository.log"; fail "$* did not say: $text"; }
}
# mutant NAME FILE EXPRESSION RED: writes a patch that edits the file with sed.
mutant() {
  sed "$3" "$2" >"$2.new"
  mv "$2.new" "$2"
  { printf 'Bug: %s.\nRed: %s\nBuild: words\n' "$1" "$4"; git diff; } >"tests/mutants/$1.patch"
  git checkout -q "$2"
}

rm -rf "$repository"
mkdir -p "$repository/tools" "$repository/tests/mutants"
cp "$root/tools/mutants" "$root/tools/build" "$root/tools/mpi-env" "$repository/tools/"
cd "$repository"
echo '/build/' >.gitignore
printf 'left\nright\nup\n' >words.txt
cat >CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(words NONE)
enable_testing()
add_custom_target(words)
add_test(NAME words.right COMMAND grep -q right ${PROJECT_SOURCE_DIR}/words.txt)
add_test(NAME words.up COMMAND grep -q up ${PROJECT_SOURCE_DIR}/words.txt)
CMAKE
echo '{"version": 6, "configurePresets": [{"name": "release", "generator": "Ninja", "binaryDir": "${sourceDir}/build/release"}]}' >CMakePresets.json
git init -q
git add -A
git -c user.name=a -c user.email=a@example.org commit -qm words

expect 1 'holds no patch' tools/mutants --check
mutant caught words.txt 's/right/wrong/' '^words\.'
expect 0 'all 1 patches apply' tools/mutants --check
expect 0 'caught was caught by words.right' tools/mutants --one
expect 0 'all 1 were caught' tools/mutants --all
[ "$(cat words.txt)" = "$(printf 'left\nright\nup')" ] || fail 'the working tree was changed'
# A name that matches no test is no proof of anything.
mutant nothing words.txt 's/right/wrong/' '^nosuch\.'
expect 1 'do not pass without it' tools/mutants --one nothing
rm tests/mutants/nothing.patch
mutant survivor words.txt 's/left/back/' '^words\.'
expect 1 'survivor SURVIVED' tools/mutants --one survivor
expect 1 'survived: survivor' tools/mutants --all
rm tests/mutants/survivor.patch
mutant large words.txt 's/[gp]/b/' '^words\.'
expect 1 'changes more than one line' tools/mutants --check
rm tests/mutants/large.patch
sed -i 's/right/rights/' words.txt
expect 1 'no longer applies' tools/mutants --check
expect 1 'there is no mutant nosuch' tools/mutants --one nosuch
cd "$root"
rm -rf "$repository" "$repository.log"
exit $failures
