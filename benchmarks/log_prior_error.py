"""How far off the log density by the probability flow is (``criterion=log-prior``): by solver and steps, by probes, and as it ships.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/log_prior_error.py --part known solver seeds
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/log_prior_error.py --part probes --jacobians FOLDER    # slow: 784 passes backward per node and image
    python benchmarks/log_prior_error.py --plot-only

Images are of ``mnist-pairs`` class-split-val under the prior that ships: the true sources and two draws of ``projected`` for each of the first mixtures.
``difference`` columns hold what decides a selection: the error of (sum over sources of draw 0) minus (the same of draw 1). All in nats.

- ``known``: Gaussian mixtures of ``gaussian-exact`` and ``gmm-exact``, against ``log p`` in closed form.
- ``solver``: error of the integral for fixed probes, which are no source of error here, against 48 nodes.
- ``probes``: whole Jacobians at 14 nodes give every estimator's variance in closed form, and the exact trace; the rows ``drawn`` check the closed form.
- ``seeds``: scatter of the estimate as it ships over seeds; with probes that draws share, and with probes of their own.
- ``base``: what the Gaussian at the highest level costs, against the noisy training images there.

Rows go to ``benchmarks/results/log_prior_error.csv`` (those of other parts are kept) and a plot.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from baselines.priors.probability_flow import drift_and_trace, flow_log_prob, lattice_signs, lattices, quadrature
from baselines.priors.score_prior import FLOW_SPACING, FLOW_STEPS
from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.separator import ScoreSeparator
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "log_prior_error.csv"
LOWEST, HIGHEST = 0.01, 2.0
"""The flow's ends for the shipped prior."""
DRAWS = 2
NODES = 14
"""At which whole Jacobians are made."""
SPACINGS = (1, 2, 3, 4, 5, 6, 8, 10)
Row = dict[str, Any]


class Images:
    """True sources ``(B, 1, K, ...)`` and draws ``(B, DRAWS, K, ...)`` of the first B validation mixtures, and their prior."""

    def __init__(self, mixtures: int) -> None:
        task = load_suite("mnist-pairs").tasks["class-split-val"]
        separator = create_separator("projected", {})
        assert isinstance(separator, ScoreSeparator)
        ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
        separator.fit(task.view("prior"), ctx)
        self.ids = torch.arange(mixtures)
        self.problem = separator.problem(task.mixture_set().mixtures(self.ids, "cpu"), ctx)
        self.draws = separator.draws(self.problem, DRAWS, ctx, separator.draw)
        self.truth = task.mixture_set().sources(self.ids).unsqueeze(1)
        self.prior: Any = separator.score_prior(0)
        self.base = {"base_mean": torch.tensor(self.prior.denoiser.mean), "base_variance": self.prior.denoiser.sigma_data**2}

    def sets(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and images ``(B, N, K, ...)``."""
        yield "draws of projected", self.draws
        yield "true sources", self.truth


def errors(found: torch.Tensor, reference: torch.Tensor) -> Row:
    """Columns for values ``(..., B, N, K)``."""
    off = (found - reference).double()
    row = {"rms": _rms(off), "largest": float(off.abs().max()), "rms_difference": math.nan}
    if off.shape[-2] > 1:
        summed = off.sum(-1)
        row["rms_difference"] = _rms(summed[..., 0] - summed[..., 1])
    return {key: float(f"{value:.4g}") for key, value in row.items()}


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def known(_: argparse.Namespace) -> Iterator[Row]:
    """Against closed forms, at the data themselves; the highest level is far beyond the data, so the Gaussian base is no source of error."""
    for suite, name in [("gaussian-exact", "d8"), ("gaussian-exact", "d64"), ("gmm-exact", "d8"), ("gmm-exact", "d64")]:
        task = load_suite(suite).tasks[name]
        prior = task.view("prior").prior(0)
        assert isinstance(prior, GaussianMixture)
        ids = torch.arange(64)
        x = prior.sample(NoiseSource(0), ids, 0, 0)
        base = {"base_mean": prior.mean(), "base_variance": float(prior.covariance().diagonal().mean())}
        for steps in (8, 12, 16, 24, 32, 64):
            for spacing in (4, prior.dimension):
                signs = lattice_signs(ids, NoiseSource(0), (prior.dimension,), spacing, x.device)
                found = flow_log_prob(prior, x, lowest=0.02, highest=100.0, **base, steps=steps, probes=signs)
                kind = "exact trace" if spacing == prior.dimension else f"signs on lattices of {spacing}"
                row = errors(found[:, None, None], prior.log_prob(x, 0.02)[:, None, None])
                yield {"images": f"{suite} {name}", "solver": "Gauss", "steps": steps, "probes": kind, **row}


def trapezoid(prior: Any, x: torch.Tensor, levels: list[float], directions: torch.Tensor, base_mean: torch.Tensor, base_variance: float) -> torch.Tensor:
    """Heun's rule on rising ``levels`` for state and trace alike, two evaluations a step, as sepbench had it first (eight steps)."""
    dimension = x[0].numel()
    change = torch.zeros(len(x), dtype=torch.float64)
    for low, high in pairwise(levels):
        width = math.log(high / low)
        drift, trace = drift_and_trace(prior, x, low, directions)
        drift_end, trace_end = drift_and_trace(prior, x + width * drift, high, directions)
        x = x + 0.5 * width * (drift + drift_end)
        change += width * (dimension - 0.5 * (trace + trace_end))
    variance = base_variance + levels[-1] ** 2
    return change - 0.5 * ((x - base_mean).double().flatten(1).square().sum(-1) / variance + dimension * math.log(2 * math.pi * variance))


def solver(args: argparse.Namespace) -> Iterator[Row]:
    """Fixed probes make the trace a function without noise; its integral by every solver."""
    images = Images(args.mixtures)
    for name, values in images.sets():
        x = values.flatten(0, 2)
        signs = lattice_signs(torch.zeros(len(x), dtype=torch.int64), NoiseSource(0), tuple(x.shape[1:]), 1, x.device)(0)

        def gauss(steps: int, x: torch.Tensor = x, signs: torch.Tensor = signs) -> torch.Tensor:
            return flow_log_prob(images.prior, x, lowest=LOWEST, highest=HIGHEST, **images.base, steps=steps, probes=lambda node: signs)

        def heun(steps: int, rho: float, x: torch.Tensor = x, signs: torch.Tensor = signs) -> torch.Tensor:
            levels = np.geomspace(LOWEST, HIGHEST, steps + 1).tolist() if not rho else karras_levels(steps + 1, HIGHEST, LOWEST, rho)[::-1]
            return trapezoid(images.prior, x, levels, signs, **images.base)

        solvers: dict[str, tuple[Callable[[int], torch.Tensor], tuple[int, ...]]] = {
            "Gauss": (gauss, (8, 12, 16, 24, 32)),
            "Heun, log sigma": (lambda steps: heun(steps, 0.0), (8, 16, 32, 64, 128)),
            "Heun, rho 7": (lambda steps: heun(steps, 7.0), (8, 16, 32)),
        }
        reference = gauss(48).unflatten(0, values.shape[:3])
        for label, (solve, counts) in solvers.items():
            for steps in counts:
                forward = 4 * steps + 4 if label == "Gauss" else 2 * steps
                row = errors(solve(steps).unflatten(0, values.shape[:3]), reference)
                yield {"images": name, "solver": label, "steps": steps, "probes": "fixed", "forward": forward, **row}


def jacobians(images: Images, folder: Path) -> Iterator[tuple[float, torch.Tensor]]:
    """Weight of every node and the Jacobians of the denoiser there, ``(B, DRAWS, K, n, n)``; kept in the folder, for they are dear."""
    x = images.draws.flatten(0, 2)
    times, weights = quadrature(LOWEST, HIGHEST, NODES)
    folder.mkdir(parents=True, exist_ok=True)
    now = math.log(LOWEST)
    for node, (time, weight) in enumerate(zip(times, weights, strict=True)):
        for start, end in pairwise(np.linspace(now, time, 5).tolist()):
            drift, _ = drift_and_trace(images.prior, x, math.exp(start), x[:0].unsqueeze(1))
            middle, _ = drift_and_trace(images.prior, x + 0.5 * (end - start) * drift, math.exp(0.5 * (start + end)), x[:0].unsqueeze(1))
            x = x + (end - start) * middle
        now = time
        path = folder / f"J{node}.npy"
        if not path.exists():
            np.save(path, _jacobian(images.prior, x, math.exp(time)).numpy())
        yield weight, torch.from_numpy(np.load(path)).unflatten(0, images.draws.shape[:3])


def _jacobian(prior: Any, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """``(M, n, n)``, row by row."""
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        denoised = prior.denoise(point, sigma)
        identity = torch.eye(x[0].numel()).unflatten(1, x.shape[1:])
        rows = [torch.autograd.grad(denoised, point, row.expand_as(denoised), retain_graph=True)[0].flatten(1) for row in identity]
    return torch.stack(rows, 1)


def probes(args: argparse.Namespace) -> Iterator[Row]:
    """Standard errors of the integral for probes that are independent from node to node, and of differences of draws that share them or do not."""
    images = Images(3)
    variances: dict[tuple[str, int], list[torch.Tensor]] = {}
    drawn = torch.zeros(args.seeds, *images.draws.shape[:3], dtype=torch.float64)
    for node, (weight, jacobian) in enumerate(jacobians(images, args.jacobians)):
        symmetric = 0.5 * (jacobian + jacobian.mT)
        for seed in range(args.seeds):
            signs = lattice_signs(images.ids, NoiseSource(seed), tuple(images.draws.shape[3:]), FLOW_SPACING, torch.device("cpu"))(node).flatten(2)
            trace = torch.einsum("pbi,bdkij,pbj->bdk", signs, jacobian, signs)
            drawn[seed] += weight * (trace - jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)).double()
        for key, (own, shared) in _variances(symmetric, tuple(images.draws.shape[3:])).items():
            total = variances.setdefault(key, [torch.zeros(()), torch.zeros(()), torch.zeros(())])
            for place, value in enumerate((own, own.sum((1, 2)), shared)):
                total[place] = total[place] + weight**2 * value
    common = {"images": "draws of projected", "solver": "Gauss", "steps": NODES}
    label = f"signs on lattices of {FLOW_SPACING}, drawn, shared by draws"
    yield {**common, "probes": label, "backward": NODES * FLOW_SPACING**2, **errors(drawn, torch.zeros(()))}
    for (label, passes), (own, apart, shared) in variances.items():
        row = {"rms": float(own.mean().sqrt()), "largest": float(own.max().sqrt()), "rms_difference": float(shared.mean().sqrt())}
        row["rms_difference_apart"] = float(apart.mean().sqrt())
        yield {
            **common,
            "probes": label,
            "backward": NODES * passes,
            **{key: float(f"{value:.4g}") for key, value in row.items()},
        }


def _variances(symmetric: torch.Tensor, shape: tuple[int, ...]) -> dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]]:
    """Variance of one estimate of the trace ``(B, N, K)`` and of the difference of two draws with common probes ``(B,)``, by (probes, passes)."""
    off = symmetric - torch.diag_embed(symmetric.diagonal(dim1=-2, dim2=-1))
    between = (symmetric.sum(2)[:, 0] - symmetric.sum(2)[:, 1]).unsqueeze(1)  # sources share probes too: (B, 1, n, n)
    off_between = between - torch.diag_embed(between.diagonal(dim1=-2, dim2=-1))
    squares = [2 * matrix.square().sum((-2, -1)) for matrix in (symmetric, between, off, off_between)]
    found = {}
    for count in (2, 4, 8, 16, 32, 64):
        found["Gaussian", count] = (squares[0] / count, squares[1][:, 0] / count)
        found["random signs", count] = (squares[2] / count, squares[3][:, 0] / count)
    for spacing in SPACINGS[1:]:
        masks = lattices(shape, spacing).flatten(1)
        parts = [sum(2 * matrix[..., mask, :][..., :, mask].square().sum((-2, -1)) for mask in masks) for matrix in (off, off_between)]
        found[f"signs on lattices of {spacing}", len(masks)] = (torch.as_tensor(parts[0]), torch.as_tensor(parts[1])[:, 0])
    generator = torch.Generator().manual_seed(0)
    for rank in (5, 11, 21):
        found["Hutch++ (QR)", 3 * rank] = (_hutch(symmetric, rank, generator), _hutch(between, rank, generator)[:, 0])
    return found


def _hutch(matrix: torch.Tensor, rank: int, generator: torch.Generator) -> torch.Tensor:
    """Variance of Hutch++ (Meyer et al. 2021) given its random range of ``rank`` products; ``rank`` more for the range's trace, ``rank`` signs for the rest."""
    sketch = torch.randn(matrix.shape[-1], rank, generator=generator)
    q = torch.linalg.qr(matrix @ sketch).Q
    rest = matrix - q @ (q.mT @ matrix)
    rest = rest - (rest @ q) @ q.mT
    rest = rest - torch.diag_embed(rest.diagonal(dim1=-2, dim2=-1))
    return 2 * rest.square().sum((-2, -1)) / rank


def seeds(args: argparse.Namespace) -> Iterator[Row]:
    """The estimate as it ships: standard deviation over seeds, beside how far apart draws lie."""
    images = Images(args.mixtures)
    for name, values in images.sets():
        x = values.flatten(0, 2)
        shared = images.ids.repeat_interleave(len(x) // len(images.ids))
        for kind, ids in [("as shipped", shared), ("as shipped, every image its own", torch.arange(len(x)))]:
            found = torch.stack([images.prior.estimated_log_prob(x, ids, NoiseSource(seed)) for seed in range(args.seeds)]).unflatten(1, values.shape[:3])
            mean = found.mean(0)
            row = errors(mean + (found - mean) * (args.seeds / (args.seeds - 1)) ** 0.5, mean)
            summed = mean.sum(-1)
            spread = _rms(summed[:, 0] - summed[:, 1]) if summed.shape[1] > 1 else math.nan
            yield {"images": name, "solver": "Gauss", "steps": FLOW_STEPS, "probes": kind, **row, "spread_difference": float(f"{spread:.4g}")}


def base(args: argparse.Namespace) -> Iterator[Row]:
    """What the Gaussian at the highest level costs: against the density of the training images there, each with the noise of that level.

    ``norm`` is the squared norm of the flow's states there over that of a noisy image: 1 for samples of ``p_lowest``.
    """
    images = Images(args.mixtures)
    clean = load_suite("mnist-pairs").tasks["class-split-val"].view("prior").clean().flatten(1).double()
    variance = images.base["base_variance"] + HIGHEST**2
    for name, values in images.sets():
        x = values.flatten(0, 2)
        for time, end in pairwise(np.linspace(math.log(LOWEST), math.log(HIGHEST), 65).tolist()):
            drift, _ = drift_and_trace(images.prior, x, math.exp(time), x[:0].unsqueeze(1))
            middle, _ = drift_and_trace(images.prior, x + 0.5 * (end - time) * drift, math.exp(0.5 * (time + end)), x[:0].unsqueeze(1))
            x = x + (end - time) * middle
        state = x.flatten(1).double()
        kernels = torch.cat([-0.5 * (state.square().sum(1)[:, None] - 2 * state @ part.T + part.square().sum(1)) / HIGHEST**2 for part in clean.split(4096)], 1)
        dimension = state.shape[1]
        by_images = kernels.logsumexp(1) - math.log(len(clean)) - 0.5 * dimension * math.log(2 * math.pi * HIGHEST**2)
        centred = (state - images.base["base_mean"]).square().sum(1)
        gaussian = -0.5 * (centred / variance + dimension * math.log(2 * math.pi * variance))
        row = errors(gaussian.unflatten(0, values.shape[:3]), by_images.unflatten(0, values.shape[:3]))
        yield {"images": name, "solver": "Gaussian base", **row, "norm": round(float(centred.mean() / dimension / variance), 3)}


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {"known": known, "solver": solver, "probes": probes, "seeds": seeds, "base": base}


def plot(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    solvers = table[table.part == "solver"]
    for place, (name, rows) in enumerate(solvers.groupby("solver", sort=False)):
        draws, truth = rows[rows.rms_difference.notna()], rows[rows.rms_difference.isna()]
        left.loglog(draws.steps, draws.rms, marker="o", markersize=4, color=f"C{place}", label=name)
        left.loglog(draws.steps, draws.rms_difference, marker="x", markersize=5, linestyle="--", color=f"C{place}")
        left.loglog(truth.steps, truth.rms, marker=".", markersize=4, linestyle=":", color=f"C{place}")
    left.set_title("Solver: error of the integral, fixed probes\n(dashed, crosses: difference of two draws; dotted: true sources)", fontsize=10)
    left.set_xlabel("steps (Gauss: 4 passes forward each, 1 trace; Heun: 2 passes, 2 traces)")
    table_of_probes = table[(table.part == "probes") & ~table.probes.str.contains("drawn", na=False)]
    kinds = table_of_probes.assign(kind=table_of_probes.probes.str.replace(r" of \d+", "", regex=True))
    for place, (kind, rows) in enumerate(kinds.groupby("kind", sort=False)):
        right.loglog(rows.backward / rows.steps, rows.rms, marker="o", markersize=4, color=f"C{place}", label=f"{kind}")
        right.loglog(rows.backward / rows.steps, rows.rms_difference, marker="x", markersize=5, linestyle="--", color=f"C{place}")
    right.set_title(f"Probes: standard error at {NODES} nodes\n(dashed, crosses: difference of two draws that share probes)", fontsize=10)
    right.set_xlabel("passes backward per node")
    for panel in (left, right):
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set_ylabel("rms error [nats]")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=["known", "solver", "seeds", "base"])
    parser.add_argument("--mixtures", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument(
        "--jacobians", type=Path, default=Path("jacobians"), help="folder for the Jacobians of the part probes, 4 bytes * 784^2 * 12 images a node"
    )
    parser.add_argument("--plot-only", action="store_true")
    args = parser.parse_args()
    table = pd.read_csv(CSV) if CSV.exists() else pd.DataFrame()
    for part in [] if args.plot_only else args.part:
        mixtures = {"known": None, "probes": 3}.get(part, args.mixtures)  # the part known has none, the part probes always the first three
        rows = pd.DataFrame([{"part": part, "mixtures": mixtures, **row} for row in PARTS[part](args)])
        table = pd.concat([table[table.part != part] if len(table) else table, rows], ignore_index=True)
        table.to_csv(CSV, index=False)
        print(rows.drop(columns="part").to_string())
    plot(table, CSV.with_suffix(".png"))


if __name__ == "__main__":
    main()
