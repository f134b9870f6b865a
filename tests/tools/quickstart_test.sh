#!/bin/sh
# quickstart_test.sh EPSIM ROOT FOLDER: tools/quickstart on a user's model and trace, without and with weights, on few ranks. What it sets up and builds is taken as there.
set -eu
epsim=${1:?usage: quickstart_test.sh EPSIM ROOT FOLDER}
root=${2:?usage: quickstart_test.sh EPSIM ROOT FOLDER}
copy=${3:?usage: quickstart_test.sh EPSIM ROOT FOLDER}
rm -rf "$copy"
mkdir -p "$copy/tools" "$copy/build/release"
cp "$root/tools/quickstart" "$root/tools/mpirun" "$root/tools/mpi-env" "$copy/tools/"
printf '#!/bin/sh\n' | tee "$copy/tools/setup" >"$copy/tools/build"
chmod +x "$copy/tools/setup" "$copy/tools/build"
ln -s "$epsim" "$copy/build/release/epsim"

# A recording that has no weights: 64 tokens of four choices in two layers.
indices=''
token=0
while [ "$token" -lt 64 ]; do
  indices="$indices${indices:+, }[$((token % 16)), $(((token + 1) % 16)), $(((token + 5) % 16)), $(((token + 11) % 16))]"
  token=$((token + 1))
done
for layer in 1 2; do printf '{"rank": 0, "step": 0, "layer": %s, "top_indices": [%s]}\n' "$layer" "$indices"; done >"$copy/router_trace_rank0.jsonl"
"$epsim" import "$copy/router_trace_rank0.jsonl" --out "$copy/routing.npz" >"$copy/log" || { cat "$copy/log"; exit 1; }

# plays RANKS MODEL TRACE: the quickstart ends well and its execution proved the plan, on as many processes as there are ranks.
plays() {
  "$copy/tools/quickstart" --model "$2" --trace "$3" --ranks "$1" >"$copy/log" 2>&1 || { cat "$copy/log"; echo "FAILED: quickstart --ranks $1 --trace $3"; exit 1; }
  for text in "$1 plan ranks on $1 MPI process" 'equals the serial reference bit for bit' 'compare.svg'; do
    grep -qF "$text" "$copy/log" || { cat "$copy/log"; echo "FAILED: quickstart --ranks $1 --trace $3 did not say: $text"; exit 1; }
  done
}
plays 2 "$root/examples/models/tiny-moe.json" "$copy/routing.npz"
plays 3 "$root/examples/traces/text.json" "$root/examples/traces/text.npz"
rm -rf "$copy"
