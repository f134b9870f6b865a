#!/bin/sh
# part_matrix.sh PROGRAM MODELS FOLDER: every pair of a capacity and an exchange, and each router, gives the serial reference's bits on 1, 2, 3, 5 and 8 processes, of one plan. (I5, I7, I8)
set -eu
program=$1 models=$2 folder=$3
mpirun=$(cd "$(dirname "$0")/../../tools" && pwd)/mpirun
rm -rf "$folder"
mkdir -p "$folder"
for n in 1 2 3 5 8; do
  "$mpirun" -n $n "$program" "$models" >"$folder/n$n" 2>"$folder/n$n.err" || { cat "$folder/n$n.err"; grep NOT "$folder/n$n" || tail -n 1 "$folder/n$n"; echo "FAILED with $n processes"; exit 1; }
  cmp "$folder/n1" "$folder/n$n" || { echo "FAILED: $n processes planned or did something else than one"; exit 1; }
done
echo "$(grep -c "the reference's bits" "$folder/n1") combinations, $(grep -c 'both passes' "$folder/n1") of them in both passes"
rm -rf "$folder"
