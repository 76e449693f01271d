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
# Samplers on analytic priors: no weights, no data.
samplers="basis-ncsn basis-ncsn-denoised basis-ncsn-tuned basis-ncsn-tuned-denoised basis-ncsn-10x dirac gaussian diffusion-gibbs alpha-rgs projected projected-4x"
for method in $samplers exact-posterior; do
    step "validate-exact-$method" sepbench validate "$method" --suite gaussian-exact --task d8 --device cuda
done
for suite in gaussian-exact gmm-exact; do
    step "run-$suite" sepbench run --suite "$suite" --device cuda --no-keep-estimates --out "$OUT/$suite"
done
step score-timing python3 benchmarks/score_timing.py --device cuda --batches 1 512
# Audio on songs that the package makes: every method on the device, held against the committed CPU figures where they are complete.
audio="average mixture nmf nmf-semi nmf-blind ica rpca hpss repet repet-sim ft2d ideal-ratio-mask ideal-binary-mask"
for method in $audio; do
    step "validate-audio-$method" sepbench validate "$method" --suite drums-bass-synth --task best-assignment --device cuda
done
step run-drums-bass sepbench run --suite drums-bass-synth --device cuda --no-keep-estimates --out "$OUT/drums-bass-synth"
step run-digits sepbench run --suite digits-pairs --device cuda --out "$OUT/digits"
# Another device moves the last digits only: the gate's paired intervals must hold against the committed CPU figures.
step gate-digits sepbench check "$OUT/digits" --against leaderboards/digits-pairs.csv
if [ -n "${SEPBENCH_DATA:-}" ] && [ -d "$SEPBENCH_DATA/mnist" ]; then
    step run-mnist sepbench run --suite mnist-pairs --device cuda --latency --no-keep-estimates --out "$OUT/mnist"
    # The score prior of the BASIS issue: full MNIST and the two halves of the class split.
    # From the shipped weights on; minutes where a CPU takes hours. BASIS must come to 29.5 / 29.3 dB.
    step train-mnist sepbench train score --dataset mnist --init baselines/weights/mnist-all.safetensors --seed 3 --steps "${TRAIN_STEPS:-40000}" \
        --device cuda --folder "$OUT/train-mnist" --out "$OUT/mnist-all.safetensors"
    prior=$OUT/mnist-all.safetensors
    [ -f "$prior" ] || prior=baselines/weights/mnist-all.safetensors
    score_methods=basis-ncsn,basis-ncsn-denoised,basis-ncsn-code,basis-ncsn-tuned,basis-ncsn-tuned-denoised,dirac,gaussian,diffusion-gibbs,alpha-rgs,projected,projected-4x,projected-8x,projected-16x
    settings=()
    for method in ${score_methods//,/ }; do settings+=(--set "$method.weights=$prior"); done
    for method in ${score_methods//,/ }; do
        step "validate-mnist-$method" sepbench validate "$method" --suite mnist-pairs --task class-split --device cuda
    done
    step score-mnist sepbench run --suite mnist-pairs --methods "$score_methods" --device cuda --no-keep-estimates "${settings[@]}" --out "$OUT/score-mnist"
    for method in basis-ncsn-per-class projected-4x-per-class; do
        step "validate-mnist-$method" sepbench validate "$method" --suite mnist-pairs --task class-split --device cuda
    done
    step score-per-class sepbench run --suite mnist-pairs --tasks class-split --methods basis-ncsn-per-class,projected-4x-per-class --device cuda \
        --no-keep-estimates --out "$OUT/score-per-class"
    step score-quads sepbench run --suite mnist-quads --methods basis-ncsn,basis-ncsn-denoised,projected-16x --device cuda --no-keep-estimates \
        --set "basis-ncsn.weights=$prior" --set "basis-ncsn-denoised.weights=$prior" --set "projected-16x.weights=$prior" --out "$OUT/score-quads"
    step sampler-study python3 benchmarks/sampler_study.py --examples 512 --weights "$prior" --csv "$OUT/sampler_study.csv"
    step basis-settings python3 benchmarks/basis_settings.py --examples 512 --weights "$prior" --csv "$OUT/basis_settings.csv"
fi
if [ -n "${SEPBENCH_DATA:-}" ] && [ -d "$SEPBENCH_DATA/cifar10-mini" ]; then
    step train-cifar sepbench train score --dataset cifar10-mini --init baselines/weights/cifar10-mini-all.safetensors --seed 2 --minutes "${CIFAR_MINUTES:-8}" \
        --device cuda --folder "$OUT/train-cifar" --out "$OUT/cifar10-mini-all.safetensors"
    prior=$OUT/cifar10-mini-all.safetensors
    [ -f "$prior" ] || prior=baselines/weights/cifar10-mini-all.safetensors
    step score-cifar sepbench run --suite cifar10-mini-pairs --methods basis-ncsn,projected-4x --device cuda --no-keep-estimates \
        --set "basis-ncsn.weights=$prior" --set "projected-4x.weights=$prior" --out "$OUT/score-cifar"
    step score-color sepbench run --suite cifar10-mini-color --methods average,basis-ncsn,gaussian --device cuda --no-keep-estimates \
        --set "basis-ncsn.weights=$prior" --set "gaussian.weights=$prior" --out "$OUT/score-color"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
