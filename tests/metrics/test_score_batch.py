"""Scoring: golden values, the same bits in any batch, equivariance, ordered tasks, undefined estimates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import image_task, mixtures_of, random_batch
from third_parties import install

from sepbench.errors import SuiteError, UnknownNameError
from sepbench.metrics.assignment import best_assignment
from sepbench.metrics.catalogue import get_metric, metric_names, pair_metric
from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.scoring import ScoreTable, score_batch
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, TaskSpec
from sepbench.registry import METRIC_GROUP

GOLDEN = json.loads((Path(__file__).resolve().parent.parent / "golden" / "metrics" / "image_metrics.json").read_text(encoding="utf-8"))
OF_EXAMPLES = [name for name in metric_names("image") if get_metric(name).info.per != "set"]
PER_SOURCE = ["psnr", "psnr_unclamped", "psnr_pad32", "psnr_pooled32/mse", "psnr_pooled32_pad/mse", "ssim"]
PER_MIXTURE = ["psnr_sum_mse", "mixture_error"]


def column(table: ScoreTable, metric: str, width: int) -> np.ndarray:
    return table.value[table.metric == metric].reshape(-1, width)


def select(mixtures: Mixtures, rows: torch.Tensor) -> Mixtures:
    return Mixtures(mixtures.values[rows], mixtures.example_ids[rows], mixtures.operator.select(rows))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_golden_values(case: dict) -> None:
    side, k = case["side"], len(case["references"])
    references, estimates = (
        torch.tensor(case[what], dtype=torch.float64).reshape(1, k, 1, 1, 1).expand(-1, -1, 1, side, side) for what in ("references", "estimates")
    )
    names = list(case["expected"])
    table = score_batch(names, estimates, references, mixtures_of(references), image_task(k, (1, side, side)))
    for name in names:
        np.testing.assert_allclose(table.value[table.metric == name], case["expected"][name], rtol=0, atol=1e-9, err_msg=name)


def test_rows_of_the_table() -> None:
    estimates, references, mixtures = random_batch(3, 2)
    table = score_batch(["mixture_error", "psnr"], estimates, references, mixtures, image_task(2))
    assert len(table) == 9
    assert table.metric.tolist() == ["mixture_error"] * 3 + ["psnr"] * 6
    assert table.example.tolist() == [100, 101, 102, 100, 100, 101, 101, 102, 102]
    assert table.source.tolist() == [-1, -1, -1, 0, 1, 0, 1, 0, 1]
    assert table.value.dtype == np.float64
    assert table.example.dtype == table.source.dtype == np.int64


@pytest.mark.parametrize(("k", "shape", "n"), [(2, (1, 28, 28), 300), (3, (3, 8, 8), 60), (5, (1, 8, 8), 40), (1, (1, 32, 32), 20), (2, (3, 30, 29), 100)])
def test_an_example_has_the_same_bits_in_any_batch(k: int, shape: tuple[int, int, int], n: int) -> None:
    estimates, references, mixtures = random_batch(n, k, shape)
    task = image_task(k, shape)
    whole = score_batch(OF_EXAMPLES, estimates, references, mixtures, task)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for rows in (order, order[: n // 2], torch.arange(n - 3, n), *(torch.tensor([b]) for b in (0, 7, n - 1))):
        part = score_batch(OF_EXAMPLES, estimates[rows], references[rows], select(mixtures, rows), task)
        for name in dict.fromkeys(whole.metric):
            width = k if name in PER_SOURCE else 1
            np.testing.assert_array_equal(column(part, name, width), column(whole, name, width)[rows.numpy()], err_msg=name)


def test_large_images_have_the_same_bits_alone() -> None:
    # Beyond the size from which torch would split a single row over threads.
    estimates, references, mixtures = random_batch(3, 2, (3, 128, 150))
    task = image_task(2, (3, 128, 150))
    names = [name for name in OF_EXAMPLES if name not in ("psnr_pad32", "psnr_pooled32_pad")]
    whole = score_batch(names, estimates, references, mixtures, task)
    for b in range(3):
        rows = torch.tensor([b])
        part = score_batch(names, estimates[rows], references[rows], select(mixtures, rows), task)
        np.testing.assert_array_equal(part.value, whole.value[whole.example == 100 + b])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_the_order_of_estimates_does_not_matter_and_references_carry_their_scores(k: int, seed: int) -> None:
    estimates, references, mixtures = random_batch(4, k, seed=seed)
    task = image_task(k)
    before = score_batch(OF_EXAMPLES, estimates, references, mixtures, task)
    shuffle = torch.randperm(k, generator=torch.Generator().manual_seed(seed + 1))
    shuffled = score_batch(OF_EXAMPLES, estimates[:, shuffle], references, mixtures, task)
    moved = score_batch(OF_EXAMPLES, estimates, references[:, shuffle], mixtures, task)
    for name in PER_SOURCE:
        np.testing.assert_array_equal(column(shuffled, name, k), column(before, name, k))
        np.testing.assert_array_equal(column(moved, name, k), column(before, name, k)[:, shuffle.numpy()])
    for name in PER_MIXTURE:
        for other in (shuffled, moved):
            np.testing.assert_allclose(column(other, name, 1), column(before, name, 1), rtol=1e-12)


def test_ordered_tasks_keep_the_order_and_report_only_scored_slots() -> None:
    estimates, references, mixtures = random_batch(20, 3)
    free = score_batch(OF_EXAMPLES, estimates, references, mixtures, image_task(3))
    table = score_batch(OF_EXAMPLES, estimates, references, mixtures, image_task(3, assignment="ordered", scored=(2, 0)))
    assert set(table.source[table.metric == "psnr"].tolist()) == {0, 2}
    assert table.source[table.metric == "psnr"][:2].tolist() == [2, 0]
    errors = (estimates.double() - references.double()).square().flatten(2).mean(2).numpy()[:, [2, 0]]
    np.testing.assert_allclose(column(table, "psnr_unclamped", 2), -10 * np.log10(errors), rtol=1e-12)
    np.testing.assert_allclose(column(table, "psnr_sum_mse", 1)[:, 0], -10 * np.log10(errors.sum(1)), rtol=1e-12)
    # The shuffled estimates were not put in order, so the free assignment must do better somewhere, in all three metrics.
    for name in ("psnr", "psnr_unclamped", "ssim"):
        assert column(free, name, 3)[:, [2, 0]].mean() > column(table, name, 2).mean() + 0.1


def test_permutation_tasks_assign_over_all_sources_but_report_the_scored() -> None:
    estimates, references, mixtures = random_batch(20, 3)
    names = [name.partition("/")[0] for name in PER_SOURCE]
    everything = score_batch(names, estimates, references, mixtures, image_task(3))
    some = score_batch(names, estimates, references, mixtures, image_task(3, scored=(1,)))
    for name in PER_SOURCE:
        np.testing.assert_array_equal(column(some, name, 1)[:, 0], column(everything, name, 3)[:, 1])


def test_ssim_follows_the_assignment_of_psnr() -> None:
    # By SSIM the flat estimate belongs to the flat reference; by PSNR it is the other way round.
    texture = (torch.arange(64).reshape(8, 8) % 2).double()
    references = torch.stack([0.5 + 0.1 * (texture - 0.5), torch.full((8, 8), 0.9).double()]).reshape(1, 2, 1, 8, 8)
    estimates = torch.stack([torch.full((8, 8), 0.5).double(), 0.9 + 0.1 * (texture - 0.5)]).reshape(1, 2, 1, 8, 8)
    table = score_batch(["ssim"], estimates, references, mixtures_of(references), image_task(2))
    pairwise = pair_metric("ssim").pairwise(estimates, references)
    assert best_assignment(pairwise).tolist() == [[1, 0]]
    np.testing.assert_array_equal(table.value, [float(pairwise[0, 0, 0]), float(pairwise[0, 1, 1])])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("assignment", ["ordered", "permutation"])
@pytest.mark.parametrize("k", [2, 5])
def test_undefined_estimates_give_nan_and_spoil_nothing_else(bad: float, assignment: str, k: int) -> None:
    estimates, references, mixtures = random_batch(4, k)
    task = replace(image_task(k), assignment=assignment)
    expected = score_batch(OF_EXAMPLES, estimates, references, mixtures, task)
    estimates[2, 1, 0, 4, 4] = bad
    got = score_batch(OF_EXAMPLES, estimates, references, mixtures, task)
    hit = got.example == 102
    if assignment == "ordered":
        hit &= (got.source == 1) | (got.source == -1)
    assert np.isnan(got.value[hit]).all()
    np.testing.assert_array_equal(got.value[~hit], expected.value[~hit])


def test_colorization_has_one_source() -> None:
    generator = torch.Generator().manual_seed(0)
    references = torch.rand(5, 1, 3, 8, 8, generator=generator)
    operator = make_operator("channel-mean", 1)
    task = TaskSpec("toy", "color", "image", 1, (3, 8, 8), "channel-mean", ("picture",), "ordered", (0,))
    mixtures = Mixtures(operator.forward(references), torch.arange(5), operator)
    table = score_batch(["psnr", "mixture_error"], operator.pseudo_inverse(mixtures.values), references, mixtures, task)
    assert (table.value[table.metric == "mixture_error"] < 1e-6).all()
    assert (table.value[table.metric == "psnr"] < 30).all()


class _MeanAbsolute:
    """A metric as other domains bring it: lower is better, it assigns itself, and is no function of the squared error."""

    info = MetricInfo("toy_mae", "1", False, frozenset({"image"}), "source", "test", "toy_mae")

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        return (estimates.unsqueeze(2) - references.unsqueeze(1)).abs().flatten(3).mean(-1)


MEAN_ABSOLUTE = _MeanAbsolute()


def test_a_metric_that_assigns_itself_and_prefers_low_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "toys", {METRIC_GROUP: {"toy_mae": f"{__name__}:MEAN_ABSOLUTE"}})
    estimates, references, mixtures = random_batch(10, 3)
    pairwise = _MeanAbsolute().pairwise(estimates.double(), references.double())
    free = score_batch(["toy_mae"], estimates, references, mixtures, image_task(3))
    brute = torch.stack([pairwise[:, list(p), range(3)].mean(1) for p in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])]).amin(0)
    np.testing.assert_allclose(free.value.reshape(10, 3).mean(1), brute.numpy(), rtol=1e-12)
    fixed = score_batch(["toy_mae"], estimates, references, mixtures, image_task(3, assignment="ordered"))
    np.testing.assert_allclose(fixed.value.reshape(10, 3), pairwise.diagonal(dim1=1, dim2=2).numpy(), rtol=1e-12)


def test_inputs_are_not_changed() -> None:
    estimates, references, mixtures = random_batch(5, 2)
    for dtype in (torch.float32, torch.float64):
        x, y = estimates.to(dtype), references.to(dtype)
        kept = x.clone(), y.clone(), mixtures.values.clone()
        score_batch(OF_EXAMPLES, x, y, mixtures, image_task(2))
        assert all(torch.equal(a, b) for a, b in zip((x, y, mixtures.values), kept, strict=True))


def test_empty_batch_and_no_metrics() -> None:
    estimates, references, mixtures = random_batch(2, 2)
    none = torch.arange(0)
    empty = score_batch(OF_EXAMPLES, estimates[:0], references[:0], select(mixtures, none), image_task(2))
    assert len(empty) == len(empty.example) == len(empty.metric) == len(empty.source) == 0
    assert len(score_batch([], estimates, references, mixtures, image_task(2))) == 0


def test_misuse_is_refused() -> None:
    estimates, references, mixtures = random_batch(2, 2)
    with pytest.raises(ValueError, match=r"estimates of task toy/task must be \(2, 2, 1, 8, 8\), got \(2, 2, 64\)"):
        score_batch(["psnr"], estimates.flatten(2), references, mixtures, image_task(2))
    with pytest.raises(ValueError, match="references of task"):
        score_batch(["psnr"], estimates, references[:1], mixtures, image_task(2))
    with pytest.raises(UnknownNameError):
        score_batch(["psnrr"], estimates, references, mixtures, image_task(2))
    with pytest.raises(SuiteError):
        score_batch(["psnr", "psnr"], estimates, references, mixtures, image_task(2))


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    code = (
        "import hashlib; from metric_cases import *; from sepbench.metrics.scoring import score_batch\n"
        "x, y, m = random_batch(300, 3, (1, 28, 28))\n"
        f"print(hashlib.sha256(score_batch({OF_EXAMPLES}, x, y, m, image_task(3, (1, 28, 28))).value.tobytes()).hexdigest())"
    )
    digests = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parent)}
        digests.add(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(digests) == 1


def test_every_block_is_scored_under_its_own_gains() -> None:
    """More examples than go into a block, each with gains of its own."""
    n = 300
    estimates, references, _ = random_batch(n, 2)
    operator = make_operator("gain", 2, gains=0.2 + torch.rand(n, 2, generator=torch.Generator().manual_seed(3)))
    mixtures = Mixtures(operator.forward(references), torch.arange(n), operator)
    table = score_batch(["mixture_error"], estimates, references, mixtures, replace(image_task(2), operator="gain"))
    wanted = (mixtures.values - operator.forward(estimates)).double().flatten(1).square().mean(1).sqrt()
    np.testing.assert_allclose(column(table, "mixture_error", 1)[:, 0], wanted.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in OF_EXAMPLES if get_metric(name).info.assigned_by not in ("", name)])
def test_a_metric_that_is_assigned_by_another_follows_it(name: str) -> None:
    """Estimates far out of [0, 1], for which clamped and unclamped errors prefer other orders."""
    g = torch.Generator().manual_seed(4)
    references = torch.rand(200, 2, 1, 32, 32, generator=g)
    estimates = references.flip(1) + 3.0 * torch.randn(200, 2, 1, 1, 1, generator=g) + 0.5 * torch.randn(references.shape, generator=g)
    mixtures, by = mixtures_of(references), ASSIGNED_BY[name]
    order = best_assignment(pair_metric(by).pairwise(estimates.double(), references.double()))
    clamped = best_assignment(pair_metric("psnr" if by != "psnr" else "psnr_unclamped").pairwise(estimates.double(), references.double()))
    assert 10 < int((order != clamped).any(1).sum()) < 190
    free = score_batch([name], estimates, references, mixtures, image_task(2, (1, 32, 32)))
    put = torch.stack([estimates[b, order[b]] for b in range(200)])
    fixed = score_batch([name], put, references, mixtures, image_task(2, (1, 32, 32), "ordered"))
    np.testing.assert_allclose(free.value, fixed.value, rtol=1e-12)


ASSIGNED_BY = {"ssim": "psnr", "psnr_pooled32": "psnr_unclamped", "psnr_pooled32_pad": "psnr_unclamped"}
