"""Coverage of intervals of FID, its limit, KID and inception score on CIFAR-10's own list of pairs, by simulation with Gaussian features.

    python benchmarks/coverage_sets.py [--worlds 400] [--quick]

A world gives every test image of ``cifar10-pairs`` (class-agnostic) a feature vector; a mixture's two estimates have features
``m + s (sqrt(share) image + sqrt(1 - share) noise)``, standard normal image and noise, so that mixtures that share an image are not independent.
The reference is standard normal: its moments are exact, and the distance of infinitely many images is ``|m|^2 + F (s - 1)^2``. Logits of the
inception score are the first ten features, doubled.

======================  ==============================================================================================================
influence t             what leaderboards print: ``results.intervals`` of the values of ``sepbench.metrics.sets``
influence t, mixtures   the same as if mixtures were independent
pigeonhole              percentile bootstrap that draws images of every slot with replacement (FID only)
======================  ==============================================================================================================

An interval is held against two truths: the mean of all worlds (the expectation at this number of mixtures), and the distance of infinitely many
images. Writes ``benchmarks/results/coverage_sets.csv``: shares of worlds, mean widths, the bias. The standard error of a share near 0.95 is
0.011 for 400 worlds.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from coverage import pigeonhole

from sepbench.data.lists.clusters import independent
from sepbench.metrics.sets.features import order_of
from sepbench.metrics.sets.frechet import FrechetReference, frechet_distance, frechet_limit_values, frechet_values
from sepbench.metrics.sets.inception_score import inception_values
from sepbench.metrics.sets.kernel import kernel_values
from sepbench.metrics.sets.moments import Moments
from sepbench.results.intervals import LEVEL, Design
from sepbench.suites.loader import load_suite

RESULTS = Path(__file__).with_name("results") / "coverage_sets.csv"
SIZES = ((200, 16), (1_000, 16), (5_000, 16), (1_000, 64))
SHARES = (0.0, 0.8)
MEAN, SCALE = 0.3, 1.2
RESAMPLES = 99
BOOTSTRAPPED = 200
"""Mixtures up to which the bootstrap is tried."""
EXACT = 10**9
"""Images behind the reference's moments, as good as exact."""

Floats = npt.NDArray[np.float64]


def world(generator: np.random.Generator, images: npt.NDArray[np.int64], size: int, share: float) -> Floats:
    """Features ``(n, 2, F)`` of the estimates of mixtures of these images ``(n, 2)``."""
    of_image = generator.standard_normal((10_000, size))[images]
    return np.asarray(MEAN + SCALE * (share**0.5 * of_image + (1 - share) ** 0.5 * generator.standard_normal((*images.shape, size))))


def statistics(features: Floats, reference: FrechetReference, against: npt.NDArray[np.float32]) -> dict[str, Floats]:
    """Values per mixture ``(n,)`` of each statistic."""
    n = len(features)
    flat = features.reshape(2 * n, -1)
    values = {
        "fid": frechet_values(lambda: iter([flat]), reference),
        "fid_inf": frechet_limit_values(lambda: iter([flat]), reference, order_of(np.repeat(np.arange(n), 2))),
        "kid": kernel_values(lambda: iter([flat]), against).values,
        "is": inception_values(lambda: iter([2.0 * flat[:, :10]])).values,
    }
    return {name: found.reshape(n, 2).mean(axis=1) for name, found in values.items()}


def resampled(features: Floats, weights: Floats, reference: FrechetReference) -> Floats:
    """FID ``(R,)`` under weights of mixtures ``(R, n)``."""
    flat, found = features.reshape(2 * len(features), -1), []
    for row in np.repeat(weights, 2, axis=1):
        mean = row @ flat / row.sum()
        centred = flat - mean
        scatter = (centred * (row / row.sum() * len(flat))[:, None]).T @ centred
        found.append(frechet_distance(Moments(len(flat), mean, scatter), reference))
    return np.asarray(found)


def cells(worlds: int, sizes: tuple[tuple[int, int], ...]) -> Iterator[dict[str, object]]:
    task = load_suite("cifar10-pairs").tasks["class-agnostic"]
    images = task.data.pair_list().indices.numpy()
    for n, size in sizes:
        clusters = task.clusters().of(np.arange(n))
        design, alone = Design(clusters), Design(independent(n))
        reference = FrechetReference(Moments(EXACT, np.zeros(size), np.eye(size) * (EXACT - 1)))
        against = np.random.default_rng(1).standard_normal((50_000, size)).astype(np.float32)
        for share in SHARES:
            generator = np.random.default_rng(zlib.crc32(f"{n} {size} {share}".encode()))
            found: dict[str, list[Floats]] = {}
            ends = []
            for _ in range(worlds):
                features = world(generator, images[:n], size, share)
                for name, values in statistics(features, reference, against).items():
                    found.setdefault(name, []).append(values)
                if n <= BOOTSTRAPPED:
                    draws = resampled(features, pigeonhole(generator, clusters)[:RESAMPLES], reference)
                    ends.append(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
            for name, columns in found.items():
                values = np.stack(columns, axis=1)
                if np.isnan(values).all():
                    continue
                limit = size * (MEAN**2 + (SCALE - 1) ** 2) if name.startswith("fid") else np.nan
                intervals = {"influence t": design.intervals(values), "influence t, mixtures": alone.intervals(values)}
                if name == "fid" and ends:
                    intervals["pigeonhole"] = np.stack(ends, axis=1)
                for interval, (low, high) in intervals.items():
                    yield row(n, size, share, name, interval, values.mean(axis=0), low, high, limit)


def row(n: int, size: int, share: float, statistic: str, interval: str, means: Floats, low: Floats, high: Floats, limit: float) -> dict[str, object]:
    expected = means.mean()

    def held(truth: float) -> str:
        return f"{((low <= truth) & (truth <= high)).mean():.3f}" if np.isfinite(truth) else ""

    return {
        "mixtures": n,
        "features": size,
        "share": share,
        "statistic": statistic,
        "interval": interval,
        "worlds": len(means),
        "held_expectation": held(expected),
        "held_limit": held(limit),
        "expectation": f"{expected:.5g}",
        "limit": f"{limit:.5g}" if np.isfinite(limit) else "",
        "sd_of_worlds": f"{means.std(ddof=1):.3g}",
        "width": f"{(high - low).mean():.3g}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="20 worlds of the smallest set; writes nothing")
    args = parser.parse_args()
    rows = []
    for line in cells(20 if args.quick else args.worlds, SIZES[:1] if args.quick else SIZES):
        print(", ".join(f"{key} {value}" for key, value in line.items()), flush=True)
        rows.append(line)
    if not args.quick:
        with RESULTS.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
