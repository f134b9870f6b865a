#!/bin/sh
# kill_test.sh EPSIM FILE FOLDER OPTION...: a process that is killed in mid-run ends the whole run within 10 s, with a non-zero exit and a clear message.
# The options must make the run long: it has to be under way for well over the second of processor time that this test waits for.
set -eu
epsim=$1 file=$2 folder=$3
shift 3
mpirun=$(cd "$(dirname "$0")/../../tools" && pwd)/mpirun
processes=4
rm -rf "$folder"
mkdir -p "$folder"
fail() {
  echo "FAILED: $*"
  for stream in out err; do echo "-- the run's std$stream:"; tail -n 20 "$folder/$stream"; done
  kill -9 "$launcher" $(children) 2>/dev/null || true
  exit 1
}
# Seconds since boot, in hundredths: /proc needs no program that a small system lacks.
now() { read -r up _ </proc/uptime && echo "${up%.*}${up#*.}"; }
# The processes that this run's mpirun started.
children() {
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    fields=${line##*) }
    # shellcheck disable=SC2086
    set -- $fields
    # Field 1: state, 2: parent.
    [ "$2" != "$launcher" ] || [ "$1" = Z ] || { pid=${stat#/proc/} && echo "${pid%/stat}"; }
  done
}
# Clock ticks of processor time that a process has used; nothing when it has ended.
ticks() {
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
  # shellcheck disable=SC2086
  set -- ${line##*) }
  [ "$1" = Z ] || echo $((${12} + ${13}))
}

"$mpirun" -n $processes "$epsim" execute "$file" "$@" --format json >"$folder/out" 2>"$folder/err" </dev/null &
launcher=$!
second=$(getconf CLK_TCK)
deadline=$(($(now) + 6000))
# In mid-run: all processes are there, and each has computed for a second since its start.
while :; do
  kill -0 "$launcher" 2>/dev/null || fail "the run ended before a process could be killed"
  [ "$(now)" -lt "$deadline" ] || fail "the run was not under way after 60 s"
  busy=0 victim=
  for pid in $(children); do
    used=$(ticks "$pid")
    [ "${used:-0}" -lt "$second" ] || { busy=$((busy + 1)) victim=$pid; }
  done
  [ $busy -lt $processes ] || break
  sleep 0.05
done
others=$(children)
kill -9 "$victim"
killed=$(now)
# The whole run: the launcher and every process that it started.
for pid in $launcher $others; do
  while [ -n "$(ticks "$pid")" ]; do
    [ $(($(now) - killed)) -lt 1000 ] || fail "process $pid still goes on 10 s after process $victim was killed"
    sleep 0.05
  done
done
took=$(($(now) - killed))
status=0
wait "$launcher" || status=$?
[ $status -ne 0 ] || fail "the run ended with 0 although a process was killed"
grep -qiE 'exited on signal 9|killed|lost|ended' "$folder/err" || fail "nothing on stderr says what happened"
! grep -q '"bit_identical"' "$folder/out" || fail "a result was printed"
echo "killed process $victim; the run ended $((took / 100)).$(printf %02d $((took % 100))) s later with exit $status"
sed -n '/signal 9\|[Kk]illed/p' "$folder/err" | head -n 3
rm -rf "$folder"
