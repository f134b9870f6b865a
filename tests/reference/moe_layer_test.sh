#!/bin/sh
# moe_layer_test.sh EPSIM EXPERIMENT FOLDER: what `epsim layer` and `epsim execute --dump` write is what NumPy computes from the formulas. Exit status 77 without NumPy.
set -eu
epsim=$1 experiment=$2 folder=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$here/numpy.sh"
rm -rf "$folder"
mkdir -p "$folder"
"$python" - "$folder" <<'EOF'
import sys
import numpy as np

rng = np.random.default_rng(1)
T, E, h, f, q = 90, 6, 24, 20, 14
sizes = dict(x=(T, h), r=(T, h), gate=(h, E), linear_bias=(E,), w1=(E, h, f), w3=(E, h, f), w2=(E, f, h), b1=(E, f), b3=(E, f), b2=(E, h), shared_w1=(h, q), shared_w3=(h, q), shared_w2=(q, h), shared_gate=(h, 1))
arrays = {name: (rng.standard_normal(size) * 0.4).astype(np.float32) for name, size in sizes.items()}
np.savez(f"{sys.argv[1]}/all.npz", **arrays)
more = dict(gate=(h, E + 6), linear_bias=(E + 6,), constant=(3, h), constant_gate=(3, h, 2))
idle = arrays | {name: (rng.standard_normal(size) * 0.4).astype(np.float32) for name, size in more.items()}
np.savez(f"{sys.argv[1]}/idle.npz", **idle)
for name in ("w3", "b3", "shared_w3"):
    del arrays[name]
np.savez(f"{sys.argv[1]}/ungated.npz", **arrays)
EOF
compare() {
  file=$1
  shift
  settings=
  for setting in "$@"; do
    case $setting in
      zero=*) settings="$settings --set router=zero_experts --set router.$setting" ;;
      score=* | identity=* | constant=*) settings="$settings --set router.$setting" ;;
      *) settings="$settings --set $setting" ;;
    esac
  done
  echo "$file $*"
  # shellcheck disable=SC2086
  "$epsim" layer --inputs "$folder/$file.npz" --set top_k=3 --set 'capacity={megatron: {factor: 1}}' $settings --out "$folder/out.npz" >/dev/null
  "$python" "$here/moe_layer.py" "$folder/$file.npz" "$folder/out.npz" "$@"
}
compare all activation=swiglu score=softmax_after
compare all activation=clamped_swiglu score=softmax_after
compare all activation=swiglu weigh=input score=softmax_after
compare idle zero=2 identity=1 constant=3 score=softmax_after
for activation in gelu gelu_tanh relu; do
  compare all activation=$activation score=softmax_after
  compare ungated activation=$activation score=softmax_after
done
executed() {
  echo "execute $*"
  keys=$1
  shift
  OMPI_MCA_ess_singleton_isolated=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$epsim" execute "$experiment" --repeat 1 --backward --dump "$folder" "$@" >/dev/null 2>&1
  # shellcheck disable=SC2086
  "$python" "$here/moe_layer.py" "$folder/dump.npz" $keys | tee "$folder/compared"
  for name in y dx dw1 dw3 dw2 d_weight; do grep -q "^$name " "$folder/compared" || { echo "FAILED: $name was not compared"; exit 1; }; done
}
# Weights that are a softmax over the logits of a token's choices; and weights that do not come from a gate.
executed score=softmax_after
grep -q '^dgate ' "$folder/compared" || { echo "FAILED: dgate was not compared"; exit 1; }
executed "score=softmax_after zero=1 identity=2 constant=2" --set 'router={zero_experts: {zero: 1, identity: 2, constant: 2, score: softmax_after}}'
for name in dconstant dconstant_gate dgate; do grep -q "^$name " "$folder/compared" || { echo "FAILED: $name was not compared"; exit 1; }; done
executed "" --set model=deepseek-v2-lite --set layers=3 --set 'execute={hidden: 64, ffn: 32}' --set 'source={zipf: {tokens_per_rank: 30}}' --set 'placement={eplb: {slots: 80}}'
grep -q '^dshared_w2 ' "$folder/compared" || { echo "FAILED: dshared_w2 was not compared"; exit 1; }
rm -rf "$folder"
