#!/bin/sh
# The checks that need a GPU, in less than eight minutes: the tests on CUDA, `etfopt bench peers`, one study.
# Output goes to notebooks/results/gpu/. Usage: [PYTHON=python3] [STUDY=cost] sh notebooks/gpu.sh
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-.venv/bin/python}
STUDY=${STUDY:-cost}
OUT=notebooks/results/gpu

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "PyTorch finds no CUDA device"; exit 2; }
mkdir -p "$OUT" && nvidia-smi -L > "$OUT/device.txt"

failed=0
step() { # seconds, a name, and a command, whose output goes to a file of that name
  limit=$1 name=$2; shift 2
  timeout "$limit" "$@" > "$OUT/$name.txt" 2>&1 && echo "$name: done" && return
  echo "$name: failed, or took more than $limit s; see $OUT/$name.txt"
  failed=1
}

step 90 tests "$PYTHON" -m pytest -q -p no:cacheprovider -k "cuda or gpu" \
  tests/nn/test_node_derivatives.py tests/nn/test_modes.py
step 210 peers "$PYTHON" -m etfopt bench peers --device cuda --threads 1 --seconds 3 --overwrite \
  --json "$OUT/peers.json" --figure "$OUT/peers.svg"
step 150 study "$PYTHON" -m etfopt train "notebooks/studies/$STUDY.toml" --accelerator gpu --out "runs/gpu-$STUDY" \
  --overwrite --quiet
step 20 report "$PYTHON" -m etfopt report "runs/gpu-$STUDY" --out "$OUT/$STUDY" --overwrite
exit $failed
