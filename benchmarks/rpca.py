"""Robust PCA: our batched version against a plain loop of the same algorithm over single matrices, interleaved in one run.

::

    python benchmarks/rpca.py [--mixtures 600] [--repeats 7]

The loop is numpy with one full SVD per matrix and iteration, in float64, at the same settings, so both do the same iterations and give the
same parts. Each repeat times both on the same mixtures one after the other, so that other work on the machine hits both; the ratio of a
repeat is loop / ours. Sums of two real MNIST test images if ``SEPBENCH_DATA`` holds them, else random matrices. Prints medians.

On a machine with other work, threads that spin while they wait make torch ten times slower: set ``GOMP_SPINCOUNT=0``.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.decomposition.robust_pca import robust_pca
from baselines.rpca import RobustPCA

Matrix = NDArray[np.float64]


def load_mixtures(n: int) -> tuple[str, Matrix]:
    """What the matrices are, and ``(n, 28, 28)`` of them in [0, 2]."""
    rng = np.random.Generator(np.random.PCG64(0))
    path = Path(os.environ.get("SEPBENCH_DATA", "")) / "mnist" / "t10k-images-idx3-ubyte.gz"
    if path.is_file():
        digits = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28) / 255.0
        return "sums of two MNIST test images", digits[rng.integers(0, len(digits), (n, 2))].sum(1)
    return "random matrices", 2 * rng.random((n, 28, 28))


def plain_rpca(data: Matrix, method: RobustPCA) -> Matrix:
    """The low-rank part of one matrix: Lin, Chen and Ma (2010), Algorithm 5."""
    weight = method.sparsity / math.sqrt(max(data.shape))
    norm, spectral = np.linalg.norm(data), np.linalg.norm(data, 2)
    multiplier = data / max(spectral, np.abs(data).max() / weight)
    low_rank, sparse, penalty = np.zeros_like(data), np.zeros_like(data), 1.25 / spectral
    for _ in range(method.max_iterations):
        u, s, vt = np.linalg.svd(data - sparse + multiplier / penalty, full_matrices=False)
        low_rank = (u * np.maximum(s - 1 / penalty, 0.0)) @ vt
        target = data - low_rank + multiplier / penalty
        old, sparse = sparse, np.sign(target) * np.maximum(np.abs(target) - weight / penalty, 0.0)
        residual = data - low_rank - sparse
        multiplier = multiplier + penalty * residual
        if np.linalg.norm(residual) < method.tolerance * norm:
            break
        if min(penalty, math.sqrt(penalty)) * np.linalg.norm(sparse - old) < method.penalty_tolerance * norm:
            penalty *= method.growth
    return low_rank


def time_both(mixtures: Matrix, method: RobustPCA) -> tuple[float, float, float, float]:
    """Seconds of the loop, seconds of ours, the largest difference of the low-rank parts, and our mean number of iterations."""
    begin = time.perf_counter()
    expected = np.stack([plain_rpca(matrix, method) for matrix in mixtures])
    middle = time.perf_counter()
    found = robust_pca(
        torch.from_numpy(mixtures),
        sparsity=method.sparsity,
        growth=method.growth,
        tolerance=method.tolerance,
        penalty_tolerance=method.penalty_tolerance,
        max_iterations=method.max_iterations,
    )
    end = time.perf_counter()
    return middle - begin, end - middle, float(np.abs(found.low_rank.numpy() - expected).max()), float(found.iterations.double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="robust PCA against a loop over single matrices")
    parser.add_argument("--mixtures", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--chunk", type=int, default=100, help="mixtures between two switches of the side that is timed")
    args = parser.parse_args()
    what, mixtures = load_mixtures(args.mixtures)
    method = RobustPCA()
    print(f"{args.mixtures} {what}; {args.repeats} repeats; {torch.get_num_threads()} threads; load {os.getloadavg()[0]:.1f}")
    time_both(mixtures[: args.chunk], method)  # warm-up
    rows = []
    for _ in range(args.repeats):
        parts = np.array([time_both(mixtures[start : start + args.chunk], method) for start in range(0, args.mixtures, args.chunk)])
        rows.append((parts[:, 0].sum(), parts[:, 1].sum(), parts[:, 2].max(), parts[:, 3].mean()))
    loop, ours = (statistics.median(row[side] for row in rows) for side in (0, 1))
    ratios = sorted(row[0] / row[1] for row in rows)
    print(
        f"loop {1e3 * loop / args.mixtures:.2f} ms, ours {1e3 * ours / args.mixtures:.2f} ms per mixture, ratio {statistics.median(ratios):.1f} "
        f"(from {ratios[0]:.1f} to {ratios[-1]:.1f}); {rows[0][3]:.0f} iterations; largest difference {max(row[2] for row in rows):.1e}"
    )


if __name__ == "__main__":
    main()
