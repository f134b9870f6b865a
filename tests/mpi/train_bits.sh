#!/bin/sh
# train_bits.sh EPSIM FILE FOLDER OPTION...: `train` writes the same bytes with 1, 2, 3 and 4 processes, and goes on from a checkpoint with another number of them to the same bytes, after kill -9. (I5)
set -eu
epsim=$1 file=$2 folder=$3
shift 3
mpirun=$(cd "$(dirname "$0")/../../tools" && pwd)/mpirun
rm -rf "$folder"
mkdir -p "$folder"
fail() { echo "FAILED: $*"; exit 1; }
EPSIM_THREADS=2 "$epsim" train "$file" "$@" --out "$folder/alone" >"$folder/alone.out" 2>"$folder/alone.err" || { cat "$folder/alone.err"; fail "epsim train ended with an error"; }
for n in 1 2 3 4; do
  "$mpirun" -n $n "$epsim" train "$file" "$@" --out "$folder/n$n" >"$folder/n$n.out" 2>"$folder/n$n.err" || { cat "$folder/n$n.err"; fail "epsim train ended with an error on $n processes"; }
  diff -r "$folder/alone" "$folder/n$n" || fail "$n processes wrote other bytes than one without MPI"
  cmp "$folder/alone.out" "$folder/n$n.out" || fail "$n processes printed something else"
done
# One process alone is killed as soon as there is a checkpoint; three go on from it.
"$epsim" train "$file" "$@" --out "$folder/cut" >/dev/null 2>&1 &
victim=$!
while kill -0 $victim 2>/dev/null && [ ! -e "$folder/cut/checkpoint.npz" ]; do sleep 0.01; done
kill -9 $victim 2>/dev/null || fail "the run ended before it could be killed"
wait $victim 2>/dev/null || true
[ ! -e "$folder/cut/steps.csv" ] || fail "the run ended before it could be killed"
"$mpirun" -n 3 "$epsim" train "$file" "$@" --out "$folder/cut" --resume >"$folder/cut.out" 2>"$folder/cut.err" || { cat "$folder/cut.err"; fail "it cannot go on after kill -9"; }
rm -f "$folder/cut/checkpoint.npz.part"
diff -r "$folder/alone" "$folder/cut" || fail "what goes on after kill -9 gives other bytes"
rm -rf "$folder"
