"""What issue 17 measured on a GPU, measured again: one row of JSON per figure, written as soon as it is known.

    python benchmarks/gpu_timings.py --device cuda --out timings.jsonl [--seconds 200] [--only TEXT] [--tiny]

Rows that are in the file already are not measured again, so a run that was stopped goes on. A figure that cannot be measured is a row with its error.
To be run alone on the device: everything is a clock time. ``--tiny`` runs every line of it on the CPU in seconds; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from baselines.networks.unet import UNetConfig, fuse
from baselines.priors.engine import fused_norm, record_cuda_graph, rounded
from baselines.training.config import TrainConfig
from baselines.training.score import RECIPES, build_model
from baselines.training.trainer import ScoreTraining
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.precision import float32_products
from sepbench.protocols import Mixtures, RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite


@dataclass(frozen=True)
class Setup:
    """Device and sizes."""

    device: str
    tiny: bool

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def release(self) -> None:
        """What one figure took is not the next one's."""
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], repeats: int = 3, warm_up: int = 1) -> float:
        """Median of so many calls, after others that are not counted."""
        for _ in range(warm_up):
            call()
        taken = []
        for _ in range(1 if self.tiny else repeats):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)


@dataclass(frozen=True)
class Figure:
    """One line of the table: ``measure`` returns a number in ``unit``; ``to_reach`` is what the issue asks for, empty where it asks for nothing."""

    name: str
    unit: str
    to_reach: str
    measure: Callable[[Setup], float]


# ---- samplers -----------------------------------------------------------------------------------------------------------------------------


def _method(name: str, setup: Setup, **settings: Any) -> tuple[Any, RunContext]:
    """A separator on the prior that ships, fitted on MNIST's task (8 x 8 digits if tiny); no data are read."""
    task = load_suite("digits-pairs" if setup.tiny else "mnist-pairs").tasks["class-split"]
    separator: Any = create_separator(name, settings)
    ctx = RunContext(task.spec, setup.device, NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    return separator, ctx


def _mixtures(count: int, ctx: RunContext) -> Mixtures:
    """Noise in the shape of the task: what a network costs does not depend on what it sees."""
    ids = torch.arange(count)
    operator = make_operator("sum", 2)
    return Mixtures(operator.forward(NoiseSource(0).uniforms(ids, 0, 2, ctx.task.source_shape).square()).to(ctx.device), ids, operator)


def _invariance(name: str, precision: str, **settings: Any) -> Callable[[Setup], float]:
    def measure(setup: Setup) -> float:
        separator, ctx = _method(name, setup, precision=precision, **settings)
        batch = _mixtures(setup.size(16, 3), ctx)
        together = separator.separate(batch, ctx)
        alone = [separator.separate(Mixtures(batch.values[b : b + 1], batch.example_ids[b : b + 1], batch.operator), ctx) for b in range(len(batch))]
        return float((torch.cat(alone) - together).abs().max())

    return measure


def _throughput(name: str, count: int, share: float = 1.0, **settings: Any) -> Callable[[Setup], float]:
    """Mixtures per second; ``share`` of the method's steps are timed."""

    def measure(setup: Setup) -> float:
        shortened: dict[str, Any] = {}
        if setup.tiny:
            shortened = {"steps": 4} if name.startswith("projected") else {"steps_per_level": 1}
        if setup.tiny:  # engines are for GPUs
            settings.pop("engine", None)
        separator, ctx = _method(name, setup, **{**settings, **shortened})
        batch = _mixtures(setup.size(count, 2), ctx)
        separator.separate(batch, ctx)
        return len(batch) / (setup.seconds(lambda: separator.separate(batch, ctx), repeats=1, warm_up=0) / share)

    return measure


def _vector_draws(setup: Setup) -> float:
    task = load_suite("gaussian-exact").tasks["d8"]
    separator: Any = create_separator("basis-ncsn", {"steps_per_level": 2} if setup.tiny else {})
    ctx = RunContext(task.spec, setup.device, NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    batch = task.mixture_set().mixtures(torch.arange(min(setup.size(512, 2), task.n_examples)), setup.device)
    separator.sample(batch, 4, ctx)
    return setup.seconds(lambda: separator.sample(batch, setup.size(256, 4), ctx), repeats=1, warm_up=0) / len(batch)


# ---- the network alone --------------------------------------------------------------------------------------------------------------------


def _network(rows: int, how: str) -> Callable[[Setup], float]:
    """Images per second of the MNIST U-Net in bfloat16; ``how``: eager, autocast (which rounds the weights at every call),
    fused (norms in one kernel), channels-last, graph, compile."""

    def measure(setup: Setup) -> float:
        layout = UNetConfig(widths=(8, 16, 16), blocks=(1, 1, 1), heads=2, embedding=16) if setup.tiny else RECIPES["mnist"].layout
        model: nn.Module = build_model(layout, torch.rand(4, 1, 28, 28), 0).to(setup.device).eval().requires_grad_(False)
        model = model if how == "autocast" else rounded(model)
        count = setup.size(rows, 2)
        x, sigma = torch.rand(count, 1, 28, 28, device=setup.device), torch.full((count,), 0.3, device=setup.device)
        call: Callable[[], object] = lambda: model(x, sigma)  # noqa: E731
        with torch.no_grad(), torch.autocast(torch.device(setup.device).type, torch.bfloat16, cache_enabled=False):
            if how == "fused" and setup.device != "cpu":
                fuse(model, fused_norm(torch.device(setup.device)))
            if how in ("channels-last", "compile"):
                model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                x = x.contiguous(memory_format=torch.channels_last)
            if how == "compile" and not setup.tiny:
                compiled = torch.compile(model)
                call = lambda: compiled(x, sigma)  # noqa: E731
            if how == "graph" and setup.device != "cpu":
                call = record_cuda_graph(model.forward, x, sigma).replay
            return count / setup.seconds(call, repeats=10, warm_up=3)

    return measure


# ---- noise, ICA, training -----------------------------------------------------------------------------------------------------------------


def _noise(sources_at_once: bool) -> Callable[[Setup], float]:
    def measure(setup: Setup) -> float:
        noise, ids = NoiseSource(0), torch.arange(setup.size(1024, 8), device=setup.device)
        if sources_at_once:
            rows = noise.counters(ids, range(2), setup.device)  # as samplers do: once for all steps
            return 1e3 * setup.seconds(lambda: noise.draw(rows, 1, (1, 28, 28)), repeats=20, warm_up=3)
        return 1e3 * setup.seconds(lambda: [noise.normal(ids, 1, k, (1, 28, 28), setup.device) for k in range(2)], repeats=20, warm_up=3)

    return measure


def _noise_eager(setup: Setup) -> float:
    """The same without the kernel."""
    noise, ids = NoiseSource(0), torch.arange(setup.size(1024, 8), device=setup.device)
    rows = noise.counters(ids, range(2), setup.device)
    from sepbench.noise import _normals

    return 1e3 * setup.seconds(lambda: _normals(noise._words(rows.ids, rows.last_words, 1, 784)), repeats=20, warm_up=3)


def _ica(setup: Setup) -> float:
    """Milliseconds per mixture of pairs of digits, enlarged to 28 x 28."""
    task = load_suite("digits-pairs").tasks["class-split"]
    whole = task.mixture_set().mixtures(torch.arange(setup.size(task.n_examples, 2)))
    repeats = setup.size(max(1, 2000 // task.n_examples), 1)
    values = torch.nn.functional.interpolate(whole.values, size=setup.size(28, 8), mode="bilinear").repeat(repeats, 1, 1, 1).to(setup.device)
    ids = torch.arange(len(values))
    separator: Any = create_separator("ica", {})
    ctx = RunContext(task.spec, setup.device, NoiseSource(0), 0)
    batches = [Mixtures(values[part.to(setup.device)], part, whole.operator) for part in ids.split(separator.info.max_batch)]
    return 1e3 * setup.seconds(lambda: [separator.separate(batch, ctx) for batch in batches], repeats=1) / len(values)


def _eigh(setup: Setup) -> float:
    """Milliseconds per 64 x 64 float64 matrix of a batch, by torch on the device: what ``ica`` would whiten with there."""
    batch = torch.rand(setup.size(256, 2), 64, 64, dtype=torch.float64, device=setup.device)
    batch = batch @ batch.mT
    return 1e3 * setup.seconds(lambda: torch.linalg.eigh(batch), repeats=1) / len(batch)


def _training(recipe: str, compiled: bool) -> Callable[[Setup], float]:
    """Images per second of a recipe's network and optimiser at a GPU's batch."""

    def measure(setup: Setup) -> float:
        chosen = RECIPES["digits" if setup.tiny else recipe]
        side = {"mnist": 28, "cifar10": 32}[recipe] if not setup.tiny else 8
        images = torch.randint(0, 256, (4096, chosen.layout.channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        config = TrainConfig(steps=10_000, batch=setup.size(1024, 8))
        model = build_model(chosen.layout, images, 0).to(setup.device)
        with TemporaryDirectory() as folder:
            training = ScoreTraining(model, images[:4000], images[4000:], config, Path(folder), resident=True, compiled=compiled and not setup.tiny)
            steps = setup.size(20, 1)
            seconds = setup.seconds(lambda: [training.train_step() for _ in range(steps)], repeats=2, warm_up=1)
        return steps * config.batch / seconds

    return measure


def _convolution_error(setup: Setup) -> float:
    """Largest error of a float32 convolution in units of its deviation: 1e-6 in float32, 1e-3 in TF32."""
    random = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*shape, generator=random) for shape in ((8, 64, 28, 28), (64, 64, 3, 3)))
    exact = torch.nn.functional.conv2d(x.double(), w.double(), padding=1)
    with float32_products(setup.device):
        found = torch.nn.functional.conv2d(x.to(setup.device), w.to(setup.device), padding=1).cpu()
    return float((found - exact).abs().max() / exact.std())


BF16 = {"precision": "bfloat16"}
FIGURES = (
    Figure("float32 convolution, error", "of its deviation", "<= 1e-5", _convolution_error),
    Figure("projected float32, alone against together", "largest difference", "<= 1e-4", _invariance("projected", "float32", steps=20)),
    Figure("basis float32, alone against together", "largest difference", "<= 1e-4", _invariance("basis-ncsn", "float32", steps_per_level=2)),
    Figure("basis bf16, eager", "mixtures/s", ">= 60", _throughput("basis-ncsn", 1024, 0.1, **BF16, steps_per_level=10)),
    Figure("projected-4x bf16, eager", "mixtures/s", ">= 250", _throughput("projected-4x", 512, **BF16)),
    *(
        Figure(f"U-Net bf16, {how}, {rows:,} rows", "images/s", ">= 150,000" if rows >= 1024 else "", _network(rows, how))
        for how in ("eager", "fused", "graph", "channels-last")
        for rows in (128, 1024, 4096)
    ),
    Figure("U-Net bf16, autocast, 1,024 rows", "images/s", "", _network(1024, "autocast")),
    Figure("normals of 2 sources, 1,024 rows, one call", "ms", "one launch (was 2.0 to 2.6)", _noise(sources_at_once=True)),
    Figure("normals of 2 sources, 1,024 rows, a call each", "ms", "", _noise(sources_at_once=False)),
    Figure("normals of 2 sources, 1,024 rows, without the kernel", "ms", "", _noise_eager),
    Figure("ica", "ms/mixture", "<= 0.2", _ica),
    Figure("256 draws of a vector suite, basis", "s/mixture", "<= 0.05", _vector_draws),
    Figure("trainer, MNIST U-Net, eager", "images/s", ">= 40,000", _training("mnist", compiled=False)),
    Figure("trainer, CIFAR-10 U-Net, eager", "images/s", "", _training("cifar10", compiled=False)),
    Figure("U-Net bf16, compile, 1,024 rows", "images/s", ">= 150,000", _network(1024, "compile")),
    Figure("U-Net bf16, compile, 4,096 rows", "images/s", ">= 150,000", _network(4096, "compile")),
    Figure("basis bf16, engine fused", "mixtures/s", ">= 60", _throughput("basis-ncsn", 1024, 0.1, **BF16, steps_per_level=10, engine="fused")),
    Figure("projected-4x bf16, engine fused", "mixtures/s", ">= 250", _throughput("projected-4x", 512, **BF16, engine="fused")),
    Figure("basis bf16, engine graph", "mixtures/s", ">= 60", _throughput("basis-ncsn", 1024, 0.1, **BF16, steps_per_level=10, engine="graph")),
    Figure("basis bf16, engine compile", "mixtures/s", ">= 60", _throughput("basis-ncsn", 1024, 0.1, **BF16, steps_per_level=10, engine="compile")),
    Figure("projected-4x bf16, engine compile", "mixtures/s", ">= 250", _throughput("projected-4x", 512, **BF16, engine="compile")),
    Figure("trainer, MNIST U-Net, compiled", "images/s", ">= 40,000", _training("mnist", compiled=True)),
    Figure("eigh of 64 x 64 on the device", "ms/matrix", "", _eigh),
)
"""In order of value: a run that is cut short lacks the last."""


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows that are there; a line that was cut off counts as none."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def measured(figure: Figure, setup: Setup) -> dict[str, Any]:
    """The row of one figure."""
    row: dict[str, Any] = {"name": figure.name, "unit": figure.unit, "to_reach": figure.to_reach}
    start = time.perf_counter()
    try:
        row["measured"] = float(f"{figure.measure(setup):.4g}")
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    setup.release()
    device = "cpu" if setup.device == "cpu" else torch.cuda.get_device_name(setup.device)
    return {**row, "device": device, "torch": torch.__version__, "took_seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no figure is begun after so many")
    parser.add_argument("--only", default="", help="figures whose name contains this")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    setup, begun = Setup(args.device, args.tiny), time.monotonic()
    there = {row["name"] for row in rows_of(args.out)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        if args.only not in figure.name or figure.name in there:
            continue
        if time.monotonic() - begun > args.seconds:
            break
        row = measured(figure, setup)
        print(json.dumps(row), flush=True)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
