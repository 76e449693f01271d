"""Coverage of intervals of pooled values on the project's own lists of mixtures, by simulation: which interval holds the true value in 95 % of worlds?

    python benchmarks/coverage_pooled.py [--worlds 500] [--quick]

Worlds are those of ``coverage.py``: every cluster of the list (song, image, take) and every mixture has an effect, of mean 0, with a standard
deviation of 5 dB in all; ``share`` is the part of the variance that comes from clusters. For ``psnr_pooled32`` the effects are the dB of a mixture's
error around 20 dB. For ``sdr_corpus_median`` they are those of a mixture's SDR around 5 dB, to which every piece between two borders of windows
adds 3.5 dB of its own. The true value is that of all worlds together: the mean of their pooled PSNRs, the median of all their windows. Intervals:

=====================  =========================================================================================================
jackknife t            what leaderboards print for ``psnr_pooled32``: ``results.intervals`` of the values of ``PooledPsnr.pool``
delta t                the same with the derivative of the logarithm instead of the jackknife
influence t            what leaderboards print for ``sdr_corpus_median``: ``results.intervals`` of the values of ``CorpusSdr.pool``
influence t, Bofinger  the same with the bandwidth of Bofinger (1975) alone
influence t, parts     the same with windows shared out to mixtures by samples, not by their square roots
Woodruff t             Woodruff (1952): the cluster-robust t interval of the share of windows below the median, read off as quantiles
... of mixtures        the first one as if mixtures were independent
pigeonhole             percentile bootstrap that draws clusters of every slot with replacement (Owen 2007); an ordinary cluster bootstrap for one slot
=====================  =========================================================================================================

Writes ``benchmarks/results/coverage_pooled.csv``: the share of worlds whose interval holds the true value, and its mean width over that of the one
that is printed. The standard error of a share near 0.95 is 0.01 for 500 worlds.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from coverage import counts, pigeonhole, values

from sepbench.data.lists.clusters import Clusters, independent
from sepbench.metrics.psnr_pooled import BATCH, PSNR_POOLED32
from sepbench.metrics.sdr_corpus import ERROR, RATE, SAMPLES, SDR_CORPUS_MEDIAN, SIGNAL, CorpusWindows, corpus_windows, n_pieces, sparsity
from sepbench.metrics.squared_error import decibels
from sepbench.results.intervals import LEVEL, Design
from sepbench.suites.loader import load_suite

RESULTS = Path(__file__).with_name("results") / "coverage_pooled.csv"
IMAGES = (("mnist-nes", "x-0-4"), ("mnist-pairs", "class-split"), ("mnist-pairs", "class-agnostic"), ("bags-shoes-mini", "x-bags"))
AUDIO = (("fsdd-noise", "white"), ("fsdd-noise", "babble"), ("fsdd-pairs", "class-split"), ("drums-bass-synth", "best-assignment"))
KINDS = ("normal", "skewed", "failing")
SHARES = (0.0, 0.3, 0.6)
RESAMPLES = 199
SPREAD_DB = 5.0
PIECE_DB = 3.5

Floats = npt.NDArray[np.float64]
Found = tuple[Floats, dict[str, Floats]]
"""Values ``(worlds,)`` whose mean is the truth, and the intervals' ends ``(2, worlds)`` by name, the printed one first."""


def weights(generator: np.random.Generator, clusters: Clusters) -> Floats:
    """``(R, n)`` of the pigeonhole bootstrap; mixtures that share nothing are drawn one by one."""
    drawn = counts(generator, np.arange(len(clusters))) if clusters.unit == "mixture" else pigeonhole(generator, clusters)
    return drawn[:RESAMPLES]


def percentiles(draws: Floats) -> Floats:
    return np.asarray(np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def delta(mse: Floats) -> Floats:
    """``PooledPsnr.pool`` with the derivative of -10 log10; for whole batches only."""
    n, rows = len(mse), mse[: len(mse) // BATCH * BATCH].reshape(-1, BATCH)
    means = rows.mean(axis=1, keepdims=True)
    of_batch = decibels(means)
    found = np.full(n, of_batch.mean())
    found[: rows.size] += ((of_batch - of_batch.mean() - 10 / np.log(10) * (rows - means) / means) * (n / rows.size)).reshape(-1)
    return found


def images(generator: np.random.Generator, clusters: Clusters, effects: Floats) -> Found:
    n = len(clusters)
    mse = 10.0 ** (-(20.0 + SPREAD_DB * effects) / 10.0)
    design, every = Design(clusters), np.arange(n)
    pooled = np.stack([PSNR_POOLED32.pool({"mse": column}, every) for column in mse.T], axis=1)
    drawn = weights(generator, clusters)[:, : n // BATCH * BATCH].reshape(-1, n // BATCH, BATCH)
    totals = drawn.sum(axis=2)
    ends = []
    for column in mse.T:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.einsum("rbk,bk->rb", drawn, column[: n // BATCH * BATCH].reshape(-1, BATCH)) / totals
            ends.append(percentiles((np.where(totals > 0, decibels(means), 0.0) * totals).sum(axis=1) / totals.sum(axis=1)))
    return pooled.mean(axis=0), {
        "jackknife t": design.intervals(pooled),
        "delta t": design.intervals(np.stack([delta(column) for column in mse.T], axis=1)),
        "jackknife t of mixtures": Design(independent(n)).intervals(pooled),
        "pigeonhole": np.stack(ends, axis=1),
    }


def energies(generator: np.random.Generator, effects: Floats, samples: int, window: int) -> dict[str, Floats]:
    """Parts of one world."""
    n, count = len(effects), n_pieces(samples, window)
    found = {SAMPLES: np.full(n, float(samples)), RATE: np.full(n, float(window))}
    start = np.arange(n) * samples
    loudness = 10.0 ** (0.3 * generator.standard_normal(n))
    for place in range(count):
        number = start // window + place
        size = np.maximum(np.minimum((number + 1) * window, start + samples) - np.maximum(number * window, start), 0)
        ratio = 5.0 + SPREAD_DB * effects + PIECE_DB * generator.standard_normal(n)
        found[f"{SIGNAL}_{place}"] = size * loudness
        found[f"{ERROR}_{place}"] = size * loudness * 10.0 ** (-ratio / 10.0)
    return found


def weighted_medians(windows: CorpusWindows, drawn: Floats) -> Floats:
    """``(R, n)`` weights -> ``(R,)`` medians over windows that weigh as much as their mixtures."""
    order = np.argsort(windows.decibels)
    of_windows = np.zeros((len(drawn), len(order)))
    np.add.at(of_windows.T, windows.numbers, (drawn[:, windows.rows] * windows.shares).T)
    summed = np.cumsum(of_windows[:, order], axis=1)
    place = (summed < summed[:, -1:] / 2).sum(axis=1)
    return np.asarray(windows.decibels[order][np.minimum(place, len(order) - 1)])


def audio(samples: int, window: int) -> Callable[[np.random.Generator, Clusters, Floats], Found]:
    def simulate(generator: np.random.Generator, clusters: Clusters, effects: Floats) -> Found:
        n, worlds = effects.shape
        design, every, drawn = Design(clusters), np.arange(n), weights(generator, clusters)
        pooled: list[Floats] = []
        others: dict[str, list[Floats]] = {"influence t, Bofinger": [], "influence t, parts": [], "below": []}
        ends, sets = [], []
        for column in effects.T:
            parts = energies(generator, column, samples, window)
            windows = corpus_windows(parts, every)
            assert windows is not None
            x = windows.decibels
            value, scale = float(np.median(x)), n / len(x)
            pooled.append(SDR_CORPUS_MEDIAN.pool(parts, every))
            width = min(0.648 * len(x) ** -0.2, 0.25)  # (4.5 phi(0)^4)^(1/5)
            low, high = np.quantile(x, [0.5 - width, 0.5 + width])
            signs, roots = np.sign(x - value), np.sqrt(windows.shares)
            columns = (roots, signs * (high - low) / (4 * width)), (windows.shares, signs * sparsity(x) / 2), (roots, (signs < 0) * 1.0)
            for name, (shares, of_windows) in zip(others, columns, strict=True):
                found = scale * np.bincount(windows.rows, weights=shares * of_windows[windows.numbers], minlength=n)
                others[name].append(found - found.mean() + value)
            ends.append(percentiles(weighted_medians(windows, drawn)))
            sets.append(x)
        of_pooled = np.stack(pooled, axis=1)
        half = design.quantile((1 + LEVEL) / 2) * design.standard_errors(np.stack(others.pop("below"), axis=1))
        woodruff = [np.quantile(x, np.clip([0.5 - h, 0.5 + h], 0, 1)) for x, h in zip(sets, half, strict=True)]
        truth = np.full(worlds, np.median(np.concatenate(sets)))
        return truth, {
            "influence t": design.intervals(of_pooled),
            **{name: design.intervals(np.stack(columns, axis=1)) for name, columns in others.items()},
            "Woodruff t": np.stack(woodruff, axis=1),
            "influence t of mixtures": Design(independent(n)).intervals(of_pooled),
            "pigeonhole": np.stack(ends, axis=1),
        }

    return simulate


def simulate(worlds: int, sizes: tuple[int, ...], kinds: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """One row per list, size, kind, share and interval."""
    for suite, task in (*IMAGES, *AUDIO):
        chosen = load_suite(suite).tasks[task]
        whole, spec = chosen.clusters(), chosen.spec
        measure = images if spec.domain == "image" else audio(spec.source_shape[-1], spec.sample_rate or 1)
        for n in sorted({*(size for size in sizes if size < len(whole)), min(len(whole), 6000)}):
            clusters = whole.of(np.arange(n))
            design = Design(clusters)
            for kind in kinds:
                for share in SHARES:
                    generator = np.random.Generator(np.random.Philox(key=[n, zlib.crc32(f"{suite}/{task}/{kind}/{share}".encode())]))
                    estimates, found = measure(generator, clusters, values(generator, clusters, kind, share, worlds))
                    truth, width = float(estimates.mean()), 0.0
                    for name, ends in found.items():
                        width = width or float(np.nanmean(ends[1] - ends[0]))
                        held, ratio = float(((ends[0] <= truth) & (truth <= ends[1])).mean()), float(np.nanmean(ends[1] - ends[0])) / width
                        metric = "psnr_pooled32" if measure is images else "sdr_corpus_median"
                        head = (f"{suite}/{task}", metric, str(n), clusters.unit, str(design.n_clusters), f"{design.effective:.1f}", kind, f"{share:g}")
                        yield (*head, name, f"{held:.4f}", f"{ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="normal effects and few mixtures only; writes nothing")
    chosen = parser.parse_args()
    rows = simulate(chosen.worlds, (100,) if chosen.quick else (100, 500), KINDS[:1] if chosen.quick else KINDS)
    head = ("list", "metric", "n", "unit", "clusters", "effective", "effects", "share", "interval", "coverage", "width")
    if chosen.quick:
        for row in rows:
            print(*row, sep=",", flush=True)
        return
    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        for row in rows:
            writer.writerow(row)
            stream.flush()


if __name__ == "__main__":
    main()
