"""Seconds of the trace of the matrix root in FID: ours (eigenvalues of a symmetric matrix) against torch-fidelity's and scipy's ``sqrtm``.

    python benchmarks/frechet.py [--features 2048] [--images 10000] [--repeats 3]

One run, the three in turn, medians; the same random features for all. torch-fidelity 0.4 takes eigenvalues of the product S R, which is not
symmetric; earlier releases and other projects take ``scipy.linalg.sqrtm``. Prints one line per way and the largest relative difference of the distances.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import scipy.linalg

from sepbench.compat import import_torch_fidelity
from sepbench.metrics.sets.frechet import FrechetReference, frechet_distance
from sepbench.metrics.sets.moments import Moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    mixing = random.standard_normal((args.features, args.features)) / args.features**0.5
    sets = [Moments.of(np.abs(scale * random.standard_normal((args.images, args.features)) @ mixing)) for scale in (1.0, 1.2)]
    reference = FrechetReference(sets[1])
    fidelity = import_torch_fidelity("metric_fid")
    statistics = [{"mu": moments.mean, "sigma": moments.covariance} for moments in sets]

    def theirs() -> float:
        return float(fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])

    def by_sqrtm() -> float:
        (m, s), (n, r) = ((one["mu"], one["sigma"]) for one in statistics)
        return float((m - n) @ (m - n) + np.trace(s) + np.trace(r) - 2 * np.trace(scipy.linalg.sqrtm(s @ r)).real)

    started = time.perf_counter()
    assert reference.factor is not None
    print(f"Cholesky factor of the reference, once: {time.perf_counter() - started:.2f} s")
    ways = {"ours": lambda: frechet_distance(sets[0], reference), "torch-fidelity": theirs, "scipy sqrtm": by_sqrtm}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, float] = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f"{name}: {median(times):.2f} s, {median(times) / median(seconds['ours']):.1f} times ours, distance {found[name]:.8g}")
    values = list(found.values())
    print(f"largest relative difference {(max(values) - min(values)) / values[0]:.1e}")


if __name__ == "__main__":
    main()
