"""NMF against scikit-learn's multiplicative solver at equal iterations: objective and seconds, in one process, interleaved.

    python benchmarks/nmf.py                      # random sparse images in MNIST's shape
    SEPBENCH_DATA=... python benchmarks/nmf.py --mnist

Two jobs: the fit of 12,000 x 784 and the coding of 6,000 mixtures on fixed atoms. scikit-learn gets float64 arrays, as dividing by 255 gives
them, and float32 arrays. Tolerance 0: nobody stops early, and scikit-learn skips its objective checks; "tol > 0" is what its default does, a
check every ten iterations (the tolerance is so small here that it never stops). Each figure is the median over the repeats; ratios are
medians of the ratios within one repeat. Where other programs want the same cores, measure with OMP_NUM_THREADS=1: threads then wait for each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning

from baselines.decomposition.nonnegative import Factors, encode, factorise, random_atoms
from sepbench.data.datasets import open_dataset
from sepbench.noise import NoiseSource


def images(count: int, mnist: bool) -> torch.Tensor:
    """``(count, 784)`` float32 in [0, 1]: MNIST's first training images, or noise with four fifths of zeros."""
    if mnist:
        return open_dataset("mnist", "train").load(range(count)).flatten(1)
    draws = NoiseSource(0).uniform(torch.arange(count), 0, 0, (784,))
    return (5.0 * draws - 4.0).clamp(min=0.0)


def sklearn_factors(signals: np.ndarray, atoms: np.ndarray, codes: np.ndarray | None, iterations: int, tolerance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Codes and atoms; with ``codes`` None the atoms are fixed, which is what ``NMF.transform`` runs."""
    fixed = codes is None
    found, components, _ = non_negative_factorization(
        signals,
        W=None if fixed else codes.copy(),
        H=atoms.copy(),
        n_components=len(atoms),
        init="custom",
        update_H=not fixed,
        solver="mu",
        beta_loss="frobenius",
        tol=tolerance,
        max_iter=iterations,
    )
    return found, components


def timed(job: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def report(title: str, jobs: dict[str, Callable[[], object]], objective: Callable[[object], float], repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    levels: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            elapsed, result = timed(job)
            if repeat:  # the first round warms up
                seconds[name].append(elapsed)
            levels[name] = objective(result)
    ours = next(iter(jobs))
    print(title)
    for name in jobs:
        ratio = statistics.median(theirs / mine for theirs, mine in zip(seconds[name], seconds[ours], strict=True))
        print(f"  {name:24s} {statistics.median(seconds[name]):8.3f} s (best {min(seconds[name]):.3f})   x {ratio:5.2f}   objective {levels[name]:.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=50)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--fit-iterations", type=int, default=20, help="per repeat of the fit; each costs the same")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mnist", action="store_true", help="real MNIST instead of random images")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {options.atoms} atoms")

    signals = images(12_000, options.mnist)
    mixtures = signals[:6000] + signals[6000:]
    start = random_atoms(signals, options.atoms, NoiseSource(0))
    codes = NoiseSource(1).uniform(torch.arange(len(signals)), 0, 0, (options.atoms,))
    atoms = factorise(signals, start, 10, codes=codes).atoms

    def arrays(dtype: str, *tensors: torch.Tensor) -> list[np.ndarray]:
        return [tensor.numpy().astype(dtype) for tensor in tensors]

    def half_error(data: torch.Tensor, found: object) -> float:
        if isinstance(found, Factors):
            return found.objective(data)
        h, w = found  # type: ignore[misc]
        return Factors(torch.as_tensor(w), torch.as_tensor(h)).objective(data)

    wide, narrow = arrays("float64", mixtures, atoms), arrays("float32", mixtures, atoms)
    report(
        f"coding of {len(mixtures):,} mixtures, {options.iterations} iterations",
        {
            "sepbench float32": lambda: Factors(atoms, encode(mixtures, atoms, options.iterations)),
            "scikit-learn float64": lambda: sklearn_factors(wide[0], wide[1], None, options.iterations),
            "scikit-learn float32": lambda: sklearn_factors(narrow[0], narrow[1], None, options.iterations),
            "float64, tol > 0": lambda: sklearn_factors(wide[0], wide[1], None, options.iterations, 1e-12),
        },
        lambda found: half_error(mixtures, found),
        options.repeats,
    )
    wide_fit, narrow_fit = arrays("float64", signals, start, codes), arrays("float32", signals, start, codes)
    report(
        f"fit of {len(signals):,} x {signals.shape[1]}, {options.fit_iterations} iterations",
        {
            "sepbench float32": lambda: factorise(signals, start, options.fit_iterations, codes=codes),
            "scikit-learn float64": lambda: sklearn_factors(*wide_fit, options.fit_iterations),
            "scikit-learn float32": lambda: sklearn_factors(*narrow_fit, options.fit_iterations),
            "float64, tol > 0": lambda: sklearn_factors(*wide_fit, options.fit_iterations, 1e-12),
        },
        lambda found: half_error(signals, found),
        options.repeats,
    )


if __name__ == "__main__":
    main()
