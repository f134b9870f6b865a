#!/bin/sh
# same_bits.sh EPSIM FILE FOLDER [--set KEY=VALUE]...: holds I5, I7 and I8: `execute` gives the same bytes with 1, 2, 3, 5 and 8 processes (or the numbers in PROCESSES, 1 among them), and equals the reference each time.
set -eu
epsim=$1 file=$2 folder=$3
shift 3
mpirun=$(cd "$(dirname "$0")/../../tools" && pwd)/mpirun
rm -rf "$folder"
mkdir -p "$folder"
for n in ${PROCESSES:-1 2 3 5 8}; do
  out=$folder/n$n
  "$mpirun" -n $n "$epsim" execute "$file" "$@" --format json --dump "$out" >"$out.json" 2>"$out.err" || { cat "$out.err" "$out.json"; echo "FAILED with $n processes: epsim execute ended with an error"; exit 1; }
  # The word is looked for as JSON writers put it, with or without a space.
  grep -qE '"bit_identical": ?true' "$out.json" || { cat "$out.json"; echo "FAILED with $n processes: not the reference's bits"; exit 1; }
  grep -qE '"rows_match_plan": ?true' "$out.json" || { cat "$out.json"; echo "FAILED with $n processes: rows on the wire are not the plan's"; exit 1; }
  # Of each pass, where there are two.
  ! grep -qE '"(bit_identical|rows_match_plan)": ?false' "$out.json" || { cat "$out.json"; echo "FAILED with $n processes: backwards not the reference's bits, or not the plan's rows"; exit 1; }
  cmp "$folder/n1/dump.npz" "$out/dump.npz" || { echo "FAILED: $n processes wrote other bytes than one process"; exit 1; }
done
rm -rf "$folder"
