#!/bin/sh
# traces_test.sh EPSIM ROOT FOLDER: the commands of docs/training.md make the traces of examples/ again, to the byte. They were made on a processor with AVX-512: on others oneDNN adds in another order. Exit status 77: not one of those.
set -eu
epsim=$1 root=$2 folder=$3
for flag in avx512f avx512bw avx512vl avx512dq; do
  grep -qw "$flag" /proc/cpuinfo || { echo "SKIPPED: the traces of examples/ were made on a processor with $flag, which this one has not"; exit 77; }
done
rm -rf "$folder"
mkdir -p "$folder"
for run in trace topics; do
  ONEDNN_MAX_CPU_ISA=AVX512_CORE "$epsim" train "$root/examples/train/$run.yaml" --out "$folder/$run" >/dev/null 2>"$folder/$run.err" || { cat "$folder/$run.err"; exit 1; }
done
cmp "$folder/trace/trace.npz" "$root/examples/traces/text.npz"
cmp "$folder/trace/model.json" "$root/examples/traces/text.json"
cmp "$folder/topics/trace.pb" "$root/examples/traces/topics.pb"
cmp "$folder/topics/model.json" "$root/examples/traces/topics.json"
rm -rf "$folder"
