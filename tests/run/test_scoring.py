"""From the estimates of a shard to rows: columns, counters and errors, worked out by hand on a metric that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.run import scoring
from sepbench.run.plan import Shard
from sepbench.run.scoring import SetScoring, failed_scores, prepare_sets, score_shard
from sepbench.run.sink import ShardEstimates, ShardScores

SHARD = Shard("t", "m", 4, 8)
METRICS = ("psnr", "ssim")
MIXTURES: Any = SimpleNamespace(mixtures=lambda ids: ("mixtures", ids.tolist()), sources=lambda ids: ("sources", ids.tolist()))


def _task(draws: int = 0) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(posterior_draws=draws), exact_posterior=lambda: "posterior")


def _data(errors: dict[int, str] | None = None, evaluations: list[float] | None = None) -> ShardEstimates:
    counted = None if evaluations is None else torch.tensor(evaluations, dtype=torch.float64)
    return ShardEstimates(torch.arange(4.0)[:, None], torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64), errors or {}, counted)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """``score_batch`` gives of every example a psnr of source 1, an ssim of source 0, and a part of the psnr; the list holds what it was given."""
    asked: list[Any] = []

    def score(metrics: Any, rows: torch.Tensor, references: Any, mixtures: Any, spec: Any) -> Any:
        asked.append((metrics, rows.flatten().tolist(), references, mixtures, spec))
        ids = references[1]
        return SimpleNamespace(
            metric=["psnr"] * len(ids) + ["ssim"] * len(ids) + ["psnr/mse"] * len(ids),
            example=ids * 3,
            source=[1] * len(ids) + [0] * len(ids) + [-1] * len(ids),
            value=[10.0 * one for one in ids] + [0.5] * len(ids) + [0.25] * len(ids),
        )

    monkeypatch.setattr(scoring, "score_batch", score)
    return asked


def _columns(scores: ShardScores) -> list[tuple[Any, ...]]:
    names = (*scores.metrics, *scores.parts)
    columns = (scores.example, scores.source, scores.metric, scores.value, scores.seconds, scores.error)
    return [(e, s, names[m], None if v != v else v, t, scores.errors[x]) for e, s, m, v, t, x in zip(*(c.tolist() for c in columns), strict=True)]


def test_rows_of_what_was_scored_come_first_and_then_one_of_each_metric_of_what_failed(scored: list[Any]) -> None:
    task = _task()
    found = score_shard(SHARD, _data({5: "no estimate", 7: "no estimate"}), MIXTURES, task, METRICS)
    assert scored == [(METRICS, [0.0, 2.0], ("sources", [4, 6]), ("mixtures", [4, 6]), task.spec)]
    assert _columns(found) == [
        (4, 1, "psnr", 40.0, 1.0, ""),
        (6, 1, "psnr", 60.0, 4.0, ""),
        (4, 0, "ssim", 0.5, 1.0, ""),
        (6, 0, "ssim", 0.5, 4.0, ""),
        (4, -1, "psnr/mse", 0.25, 1.0, ""),
        (6, -1, "psnr/mse", 0.25, 4.0, ""),
        (5, -1, "psnr", None, 2.0, "no estimate"),
        (5, -1, "ssim", None, 2.0, "no estimate"),
        (7, -1, "psnr", None, 8.0, "no estimate"),
        (7, -1, "ssim", None, 8.0, "no estimate"),
    ]
    assert (found.n_separated, found.n_failed, found.separate_seconds, found.fit_failed) == (2, 2, 5.0, False)
    assert (list(found.errors), found.parts, found.metrics) == (["", "no estimate"], ("psnr/mse",), METRICS)
    kinds = [column.dtype for column in (found.example, found.source, found.metric, found.value, found.seconds, found.error)]
    assert kinds == [np.int64, np.int64, np.int32, np.float64, np.float64, np.int32]
    assert (len(found.features), len(found.feature_examples)) == (0, 0)


def test_a_metric_that_raises_fails_the_examples_that_were_left_and_keeps_the_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*about: Any) -> Any:
        raise kind("a\nb")

    kind: type[BaseException] = ValueError
    monkeypatch.setattr(scoring, "score_batch", burst)
    found = score_shard(SHARD, _data({4: "was bad"}, [5.0] * 4), MIXTURES, _task(), ("psnr",))
    assert [(row[0], row[5]) for row in _columns(found)] == [(4, "was bad"), *((n, "scoring failed: ValueError: a b") for n in (5, 6, 7))]
    assert (found.n_separated, found.n_failed, found.separate_seconds, found.evaluations, found.parts) == (0, 4, 0.0, None, ())
    kind = SystemExit
    assert score_shard(SHARD, _data(), MIXTURES, _task(), ("psnr",)).errors[1] == "scoring failed: SystemExit: a b"
    kind = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        score_shard(SHARD, _data(), MIXTURES, _task(), ("psnr",))


def test_a_metric_without_a_row_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "score_batch", lambda *about: SimpleNamespace(metric=[], example=[], source=[], value=[]))
    found = score_shard(SHARD, _data(), MIXTURES, _task(), METRICS)
    assert (_columns(found), found.parts, found.n_separated, found.n_failed, list(found.errors)) == ([], (), 4, 0, [""])


def test_where_all_examples_failed_no_metric_is_asked(scored: list[Any]) -> None:
    found = score_shard(SHARD, _data(dict.fromkeys(range(4, 8), "x")), MIXTURES, _task(), METRICS)
    assert scored == []
    assert (len(found.example), found.n_failed, found.fit_failed) == (8, 4, False)


def test_draws_are_scored_against_the_exact_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def score(metrics: Any, rows: torch.Tensor, *rest: Any) -> Any:
        asked.append((metrics, rows.flatten().tolist(), *rest))
        return SimpleNamespace(metric=["psnr"], example=[5], source=[-1], value=[1.0])

    monkeypatch.setattr(scoring, "score_draws", score)
    task = _task(draws=2)
    assert _columns(score_shard(SHARD, _data({4: "", 6: "x", 7: "y"}), MIXTURES, task, ("psnr",)))[0] == (5, -1, "psnr", 1.0, 2.0, "")
    assert asked == [(("psnr",), [1.0], ("mixtures", [5]), "posterior", task.spec)]


@pytest.mark.parametrize(
    ("evaluations", "errors", "summed"),
    [
        (None, {}, None),
        ([1.0, 2.0, 3.0, 4.0], {}, 10.0),
        ([1.0, 2.0, 3.0, 4.0], {5: "x"}, 8.0),
        ([1.0, float("nan"), 3.0, 4.0], {5: "x"}, 8.0),
        ([1.0, float("nan"), 3.0, 4.0], {}, None),
        ([1.0, 2.0, 3.0, 4.0], dict.fromkeys(range(4, 8), "x"), None),
        ([0.0] * 4, {}, 0.0),
    ],
)
def test_evaluations_of_what_was_separated(scored: list[Any], evaluations: list[float] | None, errors: dict[int, str], summed: float | None) -> None:
    assert score_shard(SHARD, _data(errors, evaluations), MIXTURES, _task(), METRICS).evaluations == summed


def test_a_score_of_a_metric_that_was_not_asked_for_is_no_row(monkeypatch: pytest.MonkeyPatch, scored: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"^scores of metrics that were not asked for: \['psnr', 'psnr/mse'\]$"):
        score_shard(SHARD, _data(), MIXTURES, _task(), ("ssim",))


def test_a_shard_whose_method_could_not_be_fitted() -> None:
    found = failed_scores(SHARD, "no fit", METRICS)
    assert [(row[0], row[2], row[5]) for row in _columns(found)] == [(n, metric, "no fit") for n in range(4, 8) for metric in METRICS]
    assert np.isnan(found.seconds).all()
    assert (found.n_separated, found.n_failed, found.separate_seconds, found.fit_failed) == (0, 4, 0.0, True)
    assert not failed_scores(SHARD, "lost", METRICS, fit_failed=False).fit_failed


def test_references_of_sets_are_kept_in_the_run_and_their_features_go_with_the_scores(scored: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def keep(task: Any, extractor: Any, device: str) -> Any:
        asked.append((extractor, device))
        return SimpleNamespace(key=f"key of {extractor}", path=f"path of {extractor}")

    def features(name: str, rows: torch.Tensor, spec: Any, device: str, key: str) -> Any:
        asked.append((name, len(rows), device, key))
        return f"features of {name}"

    for name, value in (("extractors_of", lambda metrics: ("deep", "flat")), ("get_extractor", str.upper), ("keep_reference", keep), ("features_of", features)):
        monkeypatch.setattr(scoring, name, value)
    kept: list[Any] = []
    sink: Any = SimpleNamespace(keep_reference=lambda key, path: kept.append((key, path)))
    sets = prepare_sets(_task(), METRICS, "cuda:1", sink)
    assert kept == [("key of DEEP", "path of DEEP"), ("key of FLAT", "path of FLAT")]
    assert sets == SetScoring("cuda:1", {"deep": "key of DEEP", "flat": "key of FLAT"})
    assert asked == [("DEEP", "cuda:1"), ("FLAT", "cuda:1")]
    asked.clear()
    found = score_shard(SHARD, _data({5: "x"}), MIXTURES, _task(), METRICS, sets)
    assert found.features == {"deep": "features of deep", "flat": "features of flat"}
    assert found.feature_examples.tolist() == [4, 6, 7]
    assert asked == [("deep", 3, "cuda:1", "key of DEEP"), ("flat", 3, "cuda:1", "key of FLAT")]
