"""SSIM: our batched version against a loop over scikit-image, in float64 and float32, interleaved in one run.

::

    python benchmarks/ssim.py [--pairs 12000] [--repeats 7]

Each repeat times skimage and ours on the same pairs one after the other, chunk by chunk, so that other work on the machine hits both;
the ratio of a repeat is skimage / ours. Real MNIST test images if ``SEPBENCH_DATA`` holds them, else random ones.
Prints medians over the repeats. Targets: at least 6 in float64 and 12 in float32.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity as skimage_ssim

from sepbench.metrics.ssim import structural_similarity

TARGETS = {torch.float64: 6.0, torch.float32: 12.0}


def load_pairs(n: int) -> tuple[str, torch.Tensor, torch.Tensor]:
    """What the images are, and ``(n, 1, 28, 28)`` float64 in [0, 1] twice: references, and estimates that are noisy references."""
    rng = np.random.Generator(np.random.PCG64(0))
    path = Path(os.environ.get("SEPBENCH_DATA", "")) / "mnist" / "t10k-images-idx3-ubyte.gz"
    if path.is_file():
        digits = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28) / 255.0
        what, references = "MNIST test", digits[rng.integers(0, len(digits), n)]
    else:
        what, references = "random", rng.random((n, 28, 28))
    estimates = references + 0.2 * rng.standard_normal(references.shape)
    return what, torch.from_numpy(estimates).unsqueeze(1), torch.from_numpy(references).unsqueeze(1)


def time_interleaved(x: torch.Tensor, y: torch.Tensor, chunk: int) -> tuple[float, float, float]:
    """Seconds of skimage's loop, seconds of ours, and the largest difference."""
    theirs = ours = difference = 0.0
    for start in range(0, len(x), chunk):
        a, b = x[start : start + chunk], y[start : start + chunk]
        a_images, b_images = a[:, 0].numpy(), b[:, 0].numpy()
        begin = time.perf_counter()
        expected = [skimage_ssim(p, q, data_range=1.0) for p, q in zip(a_images, b_images, strict=True)]
        middle = time.perf_counter()
        got = structural_similarity(a, b)
        end = time.perf_counter()
        theirs, ours = theirs + middle - begin, ours + end - middle
        difference = max(difference, float((got - torch.tensor(expected, dtype=torch.float64)).abs().max()))
    return theirs, ours, difference


def main() -> None:
    parser = argparse.ArgumentParser(description="SSIM against a loop over scikit-image")
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--chunk", type=int, default=1_000, help="pairs between two switches of the side that is timed")
    args = parser.parse_args()
    what, x, y = load_pairs(args.pairs)
    print(f"{args.pairs} pairs of 28x28, {what}; {args.repeats} repeats; load {os.getloadavg()[0]:.1f}")
    for dtype, target in TARGETS.items():
        a, b = x.to(dtype), y.to(dtype)
        time_interleaved(a[: args.chunk], b[: args.chunk], args.chunk)  # warm-up
        rows = [time_interleaved(a, b, args.chunk) for _ in range(args.repeats)]
        theirs, ours = (statistics.median(row[side] for row in rows) for side in (0, 1))
        ratios = sorted(row[0] / row[1] for row in rows)
        print(
            f"{str(dtype).removeprefix('torch.')}: skimage {theirs:.3f} s, ours {ours:.4f} s, ratio {statistics.median(ratios):.1f} "
            f"(from {ratios[0]:.1f} to {ratios[-1]:.1f}, target {target:.0f}), largest difference {max(row[2] for row in rows):.1e}"
        )


if __name__ == "__main__":
    main()
