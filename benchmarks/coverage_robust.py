"""Coverage of the intervals of ``sepbench show --stats`` on the project's own lists of mixtures, by simulation.

    python benchmarks/coverage_robust.py [--worlds 500] [--quick]

Worlds are those of ``coverage.py``: every cluster of the list (song, image, take) and every mixture has an effect, and ``share`` is the part of the
variance that comes from clusters. Lists are cut to their first mixtures. For the interquartile mean the true value is that of 200,000 mixtures that
share nothing. For the probability of improvement a mixture is won where its value, of normal effects, is below the quantile ``p``. Intervals:

=====================  =========================================================================================================
interquartile mean     ``middle half t`` (printed) has as many degrees of freedom as the mixtures of the middle half have effective clusters, less
                       one; ``t of all`` as all mixtures have
probability            ``Korn and Graubard`` (printed); ``t``, the interval of a mean
=====================  =========================================================================================================

Writes ``benchmarks/results/coverage_robust.csv``: the share of worlds whose interval holds the true value, and its mean width, both over worlds with an
interval, and the share of these (``known``). The standard error of a share near 0.95 is 0.01 for 500 worlds.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from coverage import LISTS, SHARES, values
from scipy import special

from sepbench.data.lists.clusters import Clusters
from sepbench.results.intervals import LEVEL, Design
from sepbench.results.robust import interquartile_mean, probability
from sepbench.results.statistics import Designs, Summary
from sepbench.suites.loader import load_suite

RESULTS = Path(__file__).with_name("results") / "coverage_robust.csv"
KINDS = ("normal", "skewed", "failing")
SIZES = (12, 25, 100, 500)
WON = (0.5, 0.8, 0.95, 0.99, 0.999)
MANY = 200_000

Floats = npt.NDArray[np.float64]


def apart(like: Clusters) -> Clusters:
    """Many mixtures that share nothing, with as many slots."""
    slots = like.keys.shape[1]
    if (like.keys == like.keys[:, :1]).all():  # a song for all slots
        return Clusters(like.unit, np.repeat(np.arange(MANY)[:, None], slots, axis=1))
    return Clusters(like.unit, np.arange(MANY * slots).reshape(MANY, slots))


def held(found: list[Summary], plain: Floats, truth: float) -> dict[str, tuple[float, float, float]]:
    """Coverage, mean width and share of known intervals, of the printed ones and of ``plain`` ``(2, worlds)``."""
    printed = np.array([(one.ci_low, one.ci_high) for one in found]).T
    result = {}
    for name, (low, high) in (("printed", printed), ("plain", plain)):
        known = np.isfinite(low)
        inside = (low[known] <= truth) & (truth <= high[known])
        result[name] = (float(inside.mean()), float((high - low)[known].mean()), float(known.mean())) if known.any() else (np.nan, np.nan, 0.0)
    return result


def each(y: Floats, clusters: Clusters, measure: Callable[..., Summary]) -> list[Summary]:
    designs, examples = Designs(clusters), np.arange(len(clusters))
    return [measure(column, examples, designs) for column in y.T]


def t_of_all(y: Floats, design: Design) -> Floats:
    """``(2, worlds)`` ends of the interval of the interquartile mean with the degrees of freedom of all mixtures."""
    ordered, cut = np.sort(y, axis=0), int(0.25 * len(y))
    middle = ordered[cut : len(y) - cut]
    half = design.quantile((1 + LEVEL) / 2) * design.standard_errors(2 * np.clip(y, middle[0], middle[-1]))
    return np.stack([middle.mean(axis=0) - half, middle.mean(axis=0) + half])


def simulate(worlds: int, sizes: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
    """One row per list, size, share, statistic and interval."""
    for suite, task in LISTS:
        whole = load_suite(suite).tasks[task].clusters()
        for n, share in ((n, share) for n in sizes if n <= len(whole) for share in SHARES):
            clusters = whole.of(np.arange(n))
            design = Design(clusters)
            generator = np.random.Generator(np.random.Philox(key=[n, zlib.crc32(f"{suite}/{task}/{share}".encode())]))
            head = (f"{suite}/{task}", str(n), clusters.unit, str(design.n_clusters), f"{design.effective:.1f}", f"{share:g}")
            for kind in KINDS:
                y = values(generator, clusters, kind, share, worlds)
                truth = float(np.sort(values(generator, apart(whole), kind, share, 1)[:, 0])[MANY // 4 : -MANY // 4].mean())
                found = held(each(y, clusters, interquartile_mean), t_of_all(y, design), truth)
                for interval, numbers in zip(("middle half t", "t of all"), found.values(), strict=True):
                    yield (*head, "interquartile mean", kind, interval, *(f"{number:.4g}" for number in numbers))
            for p in WON:
                won = (values(generator, clusters, "normal", share, worlds) < special.ndtri(p)).astype(np.float64)
                found = held(each(won, clusters, probability), design.intervals(won), p)
                for interval, numbers in zip(("Korn and Graubard", "t"), found.values(), strict=True):
                    yield (*head, "probability", f"{p:g}", interval, *(f"{number:.4g}" for number in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="12 mixtures only; writes nothing")
    chosen = parser.parse_args()
    rows = simulate(chosen.worlds, SIZES[:1] if chosen.quick else SIZES)
    if chosen.quick:
        for row in rows:
            print(*row, sep=",", flush=True)
        return
    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("list", "n", "unit", "clusters", "effective", "share", "statistic", "effects or p", "interval", "coverage", "width", "known"))
        for row in rows:
            writer.writerow(row)
            stream.flush()


if __name__ == "__main__":
    main()
