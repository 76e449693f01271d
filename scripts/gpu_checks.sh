#!/usr/bin/env bash
# Everything that needs a GPU, in one go: run in the repository's root on a machine with one, with sepbench importable and MNIST in
# $SEPBENCH_DATA/mnist. Results go to $OUT (default: ./gpu-checks). Steps go on after a failure; the last line counts them.
#
#   bash scripts/gpu_checks.sh            # all steps
#   bash scripts/gpu_checks.sh train      # only the steps whose name contains "train"
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu-checks}
mkdir -p "$OUT"
only=${1:-}
passed=0
failed=0
export SEPBENCH_OFFLINE=1 PYTHONUNBUFFERED=1
python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "error: torch sees no GPU here" >&2; exit 2; }

step() { # step NAME COMMAND...
    local name=$1
    shift
    case "$name" in *"$only"*) ;; *) return ;; esac
    echo "== $name: $*"
    if "$@" > "$OUT/$name.log" 2>&1; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "== FAILED: $name (see $OUT/$name.log)" >&2
        tail -n 5 "$OUT/$name.log" >&2
    fi
}
sepbench() { python3 -m sepbench.cli.main "$@"; }

step environment sepbench env --json
# Bit-identical uniforms on CPU and GPU, and whatever else is skipped without a device.
step tests-noise python3 -m pytest -q -p no:cacheprovider tests/test_noise.py
step noise-throughput python3 benchmarks/noise.py --device cuda
for method in average mixture ideal-mask nmf nmf-semi ica rpca; do
    step "validate-$method" sepbench validate "$method" --device cuda
done
step run-digits sepbench run --suite digits-pairs --device cuda --out "$OUT/digits"
# Another device moves the last digits only: the gate's paired intervals must hold against the committed CPU figures.
step gate-digits sepbench check "$OUT/digits" --against leaderboards/digits-pairs.csv
if [ -n "${SEPBENCH_DATA:-}" ] && [ -d "$SEPBENCH_DATA/mnist" ]; then
    step run-mnist sepbench run --suite mnist-pairs --device cuda --latency --no-keep-estimates --out "$OUT/mnist"
    # The score prior of the BASIS issue: full MNIST and the two halves of the class split.
    step train-images python3 -c "import numpy as np; from sepbench.data.datasets import open_dataset as o; np.save('$OUT/mnist-train.npy', o('mnist', 'train').signals.numpy())"
    step train-mnist python3 -m baselines.priors.train_score --recipe mnist --images "$OUT/mnist-train.npy" --device cuda --folder "$OUT/train-mnist" --out "$OUT/mnist-all.safetensors" \
        --steps "${TRAIN_STEPS:-20000}"
    step basis-mnist sepbench run --suite mnist-pairs --methods basis-ncsn,basis-ncsn-denoised --device cuda --limit 500 --no-keep-estimates \
        --set "basis-ncsn.weights=$OUT/mnist-all.safetensors" --set "basis-ncsn-denoised.weights=$OUT/mnist-all.safetensors" --out "$OUT/basis"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
