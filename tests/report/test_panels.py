"""Sheets of a real run: what they show is what was scored, and the same every time."""

from __future__ import annotations

import io
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from sepbench import registry
from sepbench.errors import MethodError, SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.report.panels.choice import named, spread
from sepbench.report.panels.gradients import annealing_levels, draw_gradients, gradient_norms, has_prior
from sepbench.report.panels.grids import assignment_of, comparison_grid, estimate_blocks, method_grid, shared_values
from sepbench.report.panels.histogram import draw_histogram, histogram
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.samples import can_sample, draw_samples, layout_samples, sample_sheet
from sepbench.report.panels.session import fitted_again
from sepbench.report.panels.sheet import Block, Head, Sheet, SheetRow, block_layout, draw_sheet, enlargement, pictures
from sepbench.report.panels.shown import check_shown, shown, spectrograms
from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.plan import Shard, make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite


class GaussianPrior:
    """Standard normal sources: ``p_sigma`` is normal with variance ``1 + sigma^2``."""

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return -x / (1 + float(sigma) ** 2)

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return x / (1 + float(sigma) ** 2)


class Toy:
    """Draws noise around half the mixture; its estimates come in the wrong order for every second mixture."""

    info: ClassVar[MethodInfo] = MethodInfo("toy", "Toy", "1", frozenset({"image"}), "blind", "none", deterministic=False, max_batch=8)
    broken = ""

    def __init__(self, spread: float = 0.05, levels: int = 4) -> None:
        self.settings = {"spread": spread, "levels": levels}

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        if self.broken == "fit":
            raise RuntimeError("no\nfit")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return self.sample(mixtures, 1, ctx)[:, 0]

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
        if self.broken == "sample":
            raise RuntimeError("no sample")
        shape, ids = ctx.task.source_shape, mixtures.example_ids
        noise = [torch.stack([ctx.noise.fork(draw).normal(ids, 0, k, shape) for k in range(2)], 1) for draw in range(n)]
        return (mixtures.values / 2)[:, None, None] + self.settings["spread"] * torch.stack(noise, 1)

    def score_prior(self, slot: int) -> GaussianPrior:
        return GaussianPrior()


@pytest.fixture(autouse=True, scope="module")
def _toy_is_registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        found, point = registry._separators, EntryPoint("toy", f"{__name__}:Toy", registry.SEPARATOR_GROUP)
        patch.setattr(registry, "_separators", lambda: found() | {"toy": point})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panels") / "run"
    make_run(path, ("average", "nmf", "toy"), {"nmf": {"atoms": 8}})
    return path


def make_run(path: Path, methods: tuple[str, ...], settings: dict[str, dict[str, Any]] | None = None, **options: Any) -> None:
    request = RunRequest("digits-pairs", methods, ("class-split",), limit=20, device="cpu", shard_size=8, settings=settings or {}, **options)
    plan = make_plan(request, load_suite("digits-pairs"))
    record = run_record(plan, "sepbench run --suite digits-pairs")
    store = RunStore.create(path, record)
    with store.session(record):
        execute(plan, store)


@pytest.fixture
def run(folder: Path) -> OpenedRun:
    return OpenedRun.open(folder)


def size_of(path: Path) -> tuple[int, int]:
    image = Image.open(io.BytesIO(path.read_bytes()))
    assert image.format == "PNG"
    return image.size


def images_of(sheet: Sheet) -> bytes:
    return b"".join(block.images.tobytes() for row in sheet.rows for block in row.blocks if block is not None)


# -- grids


@pytest.mark.parametrize("method", ["nmf", "toy", "average"])
def test_shown_estimates_are_in_the_order_they_were_scored_in(run: OpenedRun, method: str) -> None:
    (task,) = run.tasks()
    examples = list(range(20))
    truth = task.mixture_set().sources(examples)
    values = run.source_values("class-split", method, examples)
    psnr = get_metric("psnr")
    blocks = estimate_blocks(run, task, method, examples)
    for example, block in zip(examples, blocks, strict=True):
        shown = torch.from_numpy(block.images[..., 0])[:, None]
        for k in range(2):
            again = float(psnr.pairwise(shown[None, k : k + 1], truth[example][None, k : k + 1].double()))
            assert again == pytest.approx(values[example, k], abs=1e-9)
            assert block.captions[k] == f"{values[example, k]:.2f}"


def test_the_assignment_is_that_of_the_task(run: OpenedRun) -> None:
    (task,) = run.tasks()
    truth = task.mixture_set().sources(range(4))
    swapped = truth.flip(1)
    assert assignment_of(get_metric("psnr"), swapped, truth, task.spec).tolist() == [[1, 0]] * 4
    assert assignment_of(get_metric("psnr_sum_mse"), swapped, truth, task.spec).tolist() == [[1, 0]] * 4
    assert assignment_of(get_metric("mixture_error"), swapped, truth, task.spec).tolist() == [[0, 1]] * 4
    assert assignment_of(get_metric("psnr"), swapped, truth, replace(task.spec, assignment="ordered")).tolist() == [[0, 1]] * 4


def test_a_grid_shows_mixture_estimates_and_truth(run: OpenedRun, tmp_path: Path) -> None:
    (task,) = run.tasks()
    values = run.values("class-split", "nmf")
    choice = spread(values, 5, higher_is_better=True, by="psnr")
    sheet = method_grid(run, task, "nmf", choice)
    assert [head.text for head in sheet.heads] == ["mixture\n(0 to 2)", "estimates", "true sources"]
    assert "best, median, worst included" in sheet.subtitle
    assert [row.label[0] for row in sheet.rows] == list(choice.words)
    best = max(values, key=lambda example: values[example])
    assert sheet.rows[0].label == ("best", f"mixture {best}", f"{values[best]:.2f} dB")
    mixture, estimates, truth = (block.images for block in sheet.rows[0].blocks if block is not None)
    assert (mixture.shape, estimates.shape, truth.shape) == ((1, 8, 8, 3), (2, 8, 8, 3), (2, 8, 8, 3))
    assert np.allclose(truth.sum(0) / 2, mixture[0], atol=1e-6)
    assert images_of(sheet) == images_of(method_grid(OpenedRun.open(run.store.path), task, "nmf", choice))
    width, height = size_of(draw_sheet(sheet, tmp_path / "a" / "grid.png"))
    assert 600 <= width <= 2000
    assert 5 * 120 <= height <= 2000


def test_a_comparison_shares_its_mixtures(run: OpenedRun, tmp_path: Path) -> None:
    (task,) = run.tasks()
    methods = run.methods("class-split")
    means = [np.mean(list(run.values("class-split", method).values())) for method in methods]
    assert means == sorted(means, reverse=True)
    shared = shared_values(run, "class-split", methods)
    assert shared[3] == pytest.approx(np.mean([run.values("class-split", method)[3] for method in methods]))
    sheet = comparison_grid(run, task, methods, named((3, 1), 20))
    assert [head.text for head in sheet.heads] == ["mixture\n(0 to 2)", *methods, "truth"]
    assert [row.label for row in sheet.rows] == [("mixture 3",), ("mixture 1",)]
    size_of(draw_sheet(sheet, tmp_path / "grid.png"))


def test_a_failed_mixture_is_an_empty_field(folder: Path, tmp_path: Path) -> None:
    run = OpenedRun.open(folder)
    (task,) = run.tasks()
    kept = run.estimates
    broken = kept(task, "nmf", (0, 1))
    broken[1] = math.nan
    run.estimates = lambda task, method, examples: broken  # type: ignore[method-assign]
    first, second = estimate_blocks(run, task, "nmf", (0, 1))
    assert "failed" not in first.captions
    assert second.captions == ("failed", "failed")
    assert np.isnan(second.images).all()
    draw_sheet(Sheet("t", "s", (Head("h", 1, 2),), (SheetRow(("r",), (second,)),)), tmp_path / "failed.png")


def test_estimates_over_several_shards(run: OpenedRun) -> None:
    (task,) = run.tasks()
    together = run.estimates(task, "nmf", (19, 0, 9))
    for row, example in enumerate((19, 0, 9)):
        assert torch.equal(together[row], run.estimates(task, "nmf", (example,))[0])
    stored = RunStore.open(run.store.path).read_estimates(Shard("class-split", "nmf", 8, 16)).estimates
    assert torch.equal(together[2], stored[1])


# -- sheets


def test_pictures_clamp_for_display_only() -> None:
    values = torch.tensor([-1.0, 0.25, 3.0, math.nan]).reshape(1, 1, 2, 2)
    shown = pictures(values)
    assert shown.shape == (1, 2, 2, 3)
    assert shown[0, :, :, 1].ravel()[:3].tolist() == [0.0, 0.25, 1.0]
    assert math.isnan(shown[0, 1, 1, 0])
    assert values.flatten()[0] == -1.0
    assert pictures(torch.full((2, 3, 4, 5), 1.0), 0, 4).max() == 0.25
    with pytest.raises(SepbenchError, match="1 or 3 channels"):
        pictures(torch.zeros(1, 2, 4, 4))


def test_layouts() -> None:
    assert [block_layout(k, 8) for k in (1, 2, 3, 4, 5, 8)] == [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (4, 2)]
    assert block_layout(2, 4) == (1, 2)
    assert [enlargement(side, side) for side in (8, 28, 32, 64, 512)] == [15, 5, 4, 2, 1]


@pytest.mark.parametrize("size", [(8, 8), (5, 40), (64, 48), (200, 200)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_sheets_of_any_size(tmp_path: Path, k: int, size: tuple[int, int]) -> None:
    rows, columns = block_layout(k, 9)
    blocks = Block(np.full((1, *size, 3), 0.5), ("",)), Block(np.zeros((k, *size, 3)), ("12.34",) * k)
    heads = Head("mixture", 1, 1), Head("a-method-with-a-long-name", rows, columns)
    sheet = Sheet("Title", "Subtitle " * 30, heads, (SheetRow(("best", "mixture 1"), blocks), SheetRow((), (None, blocks[1]))))
    width, height = size_of(draw_sheet(sheet, tmp_path / "sheet.png"))
    assert width >= 900
    assert height > 2 * rows * size[0]


# -- histogram


def test_the_histogram_counts_every_finite_value(run: OpenedRun, tmp_path: Path) -> None:
    data = histogram(run, "class-split", run.methods("class-split"))
    values = run.values("class-split", "nmf")
    (row,) = (row for row in data.rows if row.method == "nmf")
    assert row.n == row.counts.sum() == 20
    assert row.mean == pytest.approx(np.mean(list(values.values())))
    assert row.median == pytest.approx(np.median(list(values.values())))
    assert {row.method: row.bound for row in data.rows} == {"average": "lower", "nmf": "", "toy": ""}
    again = histogram(OpenedRun.open(run.store.path), "class-split", run.methods("class-split"))
    assert again.edges.tobytes() == data.edges.tobytes()
    assert [row.counts.tobytes() for row in again.rows] == [row.counts.tobytes() for row in data.rows]
    assert size_of(draw_histogram(data, tmp_path / "psnr.png"))[0] == 1050


# -- what computes


def test_samples_are_the_runs_own_draws(run: OpenedRun, tmp_path: Path) -> None:
    (task,) = run.tasks()
    assert [can_sample(run, method) for method in ("average", "nmf", "toy")] == [False, False, True]
    drawn = draw_samples(fitted_again(run, task, "toy", "cpu"), 4, 10)
    assert drawn.shape == (10, 2, 1, 8, 8)
    assert torch.equal(drawn[0], run.estimates(task, "toy", (4,))[0])
    assert not torch.equal(drawn[0], drawn[1])
    sheet = layout_samples(run, task, "toy", 4, drawn)
    assert images_of(sheet) == images_of(sample_sheet(run, task, "toy", 4, 10, "cpu"))
    assert [row.label for row in sheet.rows] == [("mixture 4", "samples 1 to 5"), ("samples 6 to 10",)]
    scored = run.source_values("class-split", "toy", (4,))
    first = sheet.rows[0].blocks[3]
    assert first is not None
    assert first.captions == tuple(f"{scored[4, k]:.2f}" for k in range(2))
    size_of(draw_sheet(sheet, tmp_path / "samples.png"))


def test_what_a_method_raises_is_one_line(run: OpenedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = run.tasks()
    monkeypatch.setattr(Toy, "broken", "sample")
    with pytest.raises(MethodError, match="toy failed to sample mixture 2: RuntimeError: no sample"):
        sample_sheet(run, task, "toy", 2, 3, "cpu")
    monkeypatch.setattr(Toy, "broken", "fit")
    with pytest.raises(SepbenchError, match="toy cannot be fitted on class-split: RuntimeError: no fit"):
        sample_sheet(run, task, "toy", 2, 3, "cpu")
    monkeypatch.undo()
    with pytest.raises(MethodError, match="average draws no posterior samples"):
        sample_sheet(run, task, "average", 2, 3, "cpu")
    monkeypatch.setattr(Toy, "info", replace(Toy.info, version="2"))
    with pytest.raises(SepbenchError, match="made with toy version 1, version 2 is installed"):
        sample_sheet(run, task, "toy", 2, 3, "cpu")


@pytest.mark.parametrize("where", ["fit", "sample", "score"])
def test_what_a_method_changes_for_its_process_is_put_back(run: OpenedRun, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    owner = GaussianPrior if where == "score" else Toy
    own, (task,) = getattr(owner, where), run.tasks()

    def careless(self: object, *arguments: object) -> object:
        torch.set_grad_enabled(False)
        return own(self, *arguments)

    monkeypatch.setattr(owner, where, careless)
    assert sample_sheet(run, task, "toy", 2, 3, "cpu") and gradient_norms(run, task, "toy", "cpu", n=2)  # noqa: PT018
    assert torch.is_grad_enabled()
    if where != "score":
        monkeypatch.setattr(Toy, where, lambda self, *arguments: sys.exit(3))
        with pytest.raises(SepbenchError, match=r"toy .*: SystemExit: 3"):
            sample_sheet(run, task, "toy", 2, 3, "cpu")


def test_gradient_norms_of_a_gaussian_are_the_exact_ones(run: OpenedRun, tmp_path: Path) -> None:
    (task,) = run.tasks()
    assert [has_prior(run, method) for method in ("average", "toy")] == [False, True]
    data = gradient_norms(run, task, "toy", "cpu", n=16)
    assert data.sigmas.tolist() == pytest.approx([1.0, 10 ** (-2 / 3), 10 ** (-4 / 3), 0.01])
    assert data.dimension == 64
    assert [curve.label for curve in data.curves] == ["0-4", "5-9"]
    clean = task.mixture_set().sources(range(16))[:, 1].flatten(1).norm(dim=1).numpy()
    lowest = data.curves[1].norms[-1] * (1 + 0.01**2)  # hardly any noise: the score is minus the source itself
    assert lowest == pytest.approx(clean, rel=0.01)
    assert data.curves[1].norms[0].mean() == pytest.approx(np.sqrt((clean**2 + 64).mean()) / 2, rel=0.1)
    assert gradient_norms(run, task, "toy", "cpu", n=16).curves[0].norms.tobytes() == data.curves[0].norms.tobytes()
    assert size_of(draw_gradients(data, tmp_path / "gradients.png")) == (1200, 555)
    with pytest.raises(MethodError, match="average has no score prior"):
        gradient_norms(run, task, "average", "cpu")


def test_annealing_levels_default_to_those_of_basis() -> None:
    assert annealing_levels({}) == pytest.approx([10 ** (-2 * i / 9) for i in range(10)])
    assert annealing_levels({"highest": 2.0, "lowest": 0.5, "levels": 3}) == pytest.approx([2.0, 1.0, 0.5])


# -- what cannot be shown


def test_signals_that_cannot_be_shown(run: OpenedRun) -> None:
    spec = run.tasks()[0].spec
    with pytest.raises(SepbenchError, match="has vector signals, and grids and samples show images and sounds only"):
        check_shown(replace(spec, domain="vector", source_shape=(100,)))
    with pytest.raises(SepbenchError, match="have 2 channels"):
        check_shown(replace(spec, source_shape=(2, 8, 8)))
    check_shown(replace(spec, source_shape=(3, 8, 8)))
    check_shown(replace(spec, domain="audio", source_shape=(2, 8_000), sample_rate=8_000))


def test_a_sine_is_a_dark_line_at_its_frequency(run: OpenedRun) -> None:
    time = torch.arange(16_000, dtype=torch.float64) / 8_000
    loud, quiet = (amplitude * torch.sin(2 * torch.pi * 1_000 * time) for amplitude in (0.02, 1e-6))
    grey = spectrograms(torch.stack([loud, quiet])[:, None], 8_000)[:, 0]
    assert grey.shape[1:] == (128, 160)
    darkest = grey[0, :, 20:-20].argmin(0)
    assert ((1 - (darkest + 0.5) / 128) * 4_000 - 1_000).abs().max() < 4_000 / 128  # frequency upwards, 4 kHz at the top
    assert 0.15 < float(grey[0].min()) < 0.5  # -34 dB, spread over a cell's bins
    assert float(grey[1].min()) == 1.0  # -120 dB is below the quietest
    spec = replace(run.tasks()[0].spec, domain="audio", source_shape=(1, 16_000), sample_rate=8_000)
    sheet = shown(torch.stack([loud, torch.full_like(loud, torch.nan)])[:, None], spec)
    assert np.isfinite(sheet[0]).all()
    assert not np.isfinite(sheet[1]).any()


def test_estimates_that_were_not_kept(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ("average",), keep_estimates=False)
    run = OpenedRun.open(tmp_path / "run")
    (task,) = run.tasks()
    assert histogram(run, "class-split", run.methods("class-split")).rows[0].n == 20
    with pytest.raises(SepbenchError, match="--figures histogram"):
        run.estimates(task, "average", (0,))


def test_what_did_not_finish(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ("average", "mixture"))
    next((tmp_path / "run" / "scores" / "class-split--mixture").rglob("00000008-*.parquet")).unlink()
    told: list[str] = []
    run = OpenedRun.open(tmp_path / "run", told.append)
    assert run.methods("class-split") == ["average"]
    assert "12 of 20 mixtures" in told[0]
    with pytest.raises(SepbenchError, match="finish the run with its own command: sepbench run"):
        run.methods("class-split", ("mixture",))
    shutil.rmtree(tmp_path / "run" / "scores")
    with pytest.raises(SepbenchError, match="average on class-split is not finished"):
        OpenedRun.open(tmp_path / "run").methods("class-split")


def test_a_method_that_could_not_be_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "broken", "fit")
    make_run(tmp_path / "run", ("toy",))
    with pytest.raises(SepbenchError, match="toy failed on class-split"):
        OpenedRun.open(tmp_path / "run").methods("class-split")


def test_another_version_of_the_suite(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ("average",))
    store = RunStore.open(tmp_path / "run")
    record = store.read_run()
    store.write_run(record.model_copy(update={"suite": record.suite.model_copy(update={"version": 99})}))
    with pytest.raises(SepbenchError, match="version 99"):
        OpenedRun.open(tmp_path / "run")
    record.tasks["class-split"].pairs_sha256 = "feed"
    store.write_run(record)
    with pytest.raises(SepbenchError, match="are not those that"):
        OpenedRun.open(tmp_path / "run").tasks()
