"""A metric in somebody else's package: one file and one entry point; and one line for whatever is wrong with it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_cases import image_task, random_batch
from third_parties import install

from sepbench.errors import MetricError, NameClaimedError, SuiteError
from sepbench.metrics.catalogue import check_metrics, get_metric, metric_names, pair_metric
from sepbench.metrics.scoring import score_batch
from sepbench.registry import METRIC_GROUP

HEAD = """
from dataclasses import dataclass
import torch
from sepbench.metrics.kinds import MetricInfo
from sepbench.protocols import Support

IMAGE = frozenset({"image"})

def info(name, per="source", by=None, **more):
    return MetricInfo(name, "1", False, IMAGE, per, "toy", name if by is None else by, **more)

class Pair:
    def __init__(self, info): self.info = info
    def pairwise(self, estimates, references):
        return (estimates.unsqueeze(2) - references.unsqueeze(1)).abs().flatten(3).amax(-1)

class Whole:
    def __init__(self, info): self.info = info
    def mixture_scores(self, estimates, references, mixtures):
        worst = (estimates - references).abs().flatten(2).amax(-1)
        return {self.info.name: worst if self.info.per == "source" else worst.amax(-1)}

class Pooled:
    info = info("pooled", "group", "psnr_unclamped")
    spread = "half"
    def parts(self, estimates, references, examples):
        return {"worst": (estimates - references).abs().flatten(2).amax(-1)}
    def pool(self, parts, examples): return parts["worst"] / 2

class Set:
    info = info("distance", "set", "")
    extractor = "none"
    spread = "none"
    def pool(self, features, reference): raise NotImplementedError
"""

_NUMBERS = count()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Registers ``code`` after ``HEAD`` as a module, and its object ``IT`` as the metric of a name."""

    def register(name: str, code: str) -> None:
        module = f"toy_metrics_{next(_NUMBERS)}"  # a module is imported once per process
        install(monkeypatch, tmp_path, module, {METRIC_GROUP: {name: f"{module}:IT"}}, {module: HEAD + code})

    return register


def test_a_pair_metric_is_found_listed_last_assigned_and_scored(registered) -> None:
    registered("largest", 'IT = Pair(info("largest"))')
    assert metric_names("image")[-1] == "largest"
    assert "largest" not in metric_names("audio")
    estimates, references, mixtures = random_batch(6, 2)
    table = score_batch(["psnr", "largest"], estimates, references, mixtures, image_task(2))
    values = table.value[table.metric == "largest"].reshape(6, 2)
    apart = (estimates.double().unsqueeze(2) - references.double().unsqueeze(1)).abs().flatten(3).amax(-1)
    either = torch.stack([apart.diagonal(dim1=1, dim2=2).sum(1), apart.flip(1).diagonal(dim1=1, dim2=2).sum(1)]).amin(0)
    np.testing.assert_allclose(values.sum(1), either.numpy(), rtol=1e-12)


@pytest.mark.parametrize("per", ["source", "mixture"])
def test_a_mixture_metric_is_handed_the_estimates_in_the_order_of_another_metric(registered, per: str) -> None:
    registered("worst", f'IT = Whole(info("worst", "{per}", "psnr"))')
    _, references, mixtures = random_batch(5, 3)
    table = score_batch(["worst"], references[:, [2, 0, 1]] + 0.25, references, mixtures, image_task(3))
    assert set(table.source.tolist()) == ({0, 1, 2} if per == "source" else {-1})
    np.testing.assert_allclose(table.value, 0.25, rtol=1e-5)


@pytest.mark.parametrize("per", ["source", "mixture"])
def test_a_mixture_metric_under_an_undefined_assignment_is_nan(registered, per: str) -> None:
    registered("worst", f'IT = Whole(info("worst", "{per}", "psnr"))')
    estimates, references, mixtures = random_batch(3, 2)
    estimates[1, 0, 0, 0, 0] = torch.nan
    table = score_batch(["worst"], estimates, references, mixtures, image_task(2))
    assert np.isnan(table.value[table.example == 101]).all()
    assert np.isfinite(table.value[table.example != 101]).all()


def test_a_metric_of_sets_says_of_which_estimates_there_are_features(registered) -> None:
    registered("distance", "IT = Set()")
    assert get_metric("distance").info.per == "set"
    estimates, references, mixtures = random_batch(3, 2)
    estimates[1, 0, 0, 0, 0] = torch.nan
    table = score_batch(["distance"], estimates, references, mixtures, image_task(2))
    assert set(table.metric) == {"distance/seen"}
    np.testing.assert_array_equal(table.value.reshape(3, 2), [[1, 1], [np.nan, 1], [1, 1]])


def test_a_pooled_metric_is_scored_by_its_parts_in_the_order_of_another_metric(registered) -> None:
    registered("pooled", "IT = Pooled()")
    _, references, mixtures = random_batch(5, 3)
    table = score_batch(["pooled"], (references[:, [2, 0, 1]] + 0.25).double(), references.double(), mixtures, image_task(3))
    assert set(table.metric) == {"pooled/worst"}
    np.testing.assert_allclose(table.value, 0.25, rtol=1e-5)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ("{}", "must name its parts, without '/', got none"),
        ('{"a/b": 0}', "must name its parts, without '/', got 'a/b'"),
        ('{"a": estimates.double()}', r"must return float64 values \(5, 2\)"),
    ],
)
def test_a_pooled_metric_that_gives_no_parts_is_one_line(registered, parts: str, says: str) -> None:
    registered("pooled", f"class Odd(Pooled):\n    def parts(self, estimates, references, examples): return {parts}\nIT = Odd()")
    with pytest.raises(MetricError, match=f"^metric 'pooled' {says}"):
        score_batch(["pooled"], *random_batch(5, 2), image_task(2))


FAULTS = {
    "it is not there": ("", "cannot be loaded: AttributeError"),
    "its module fails": ("raise SystemExit(0)", "cannot be loaded: SystemExit"),
    "a class": ("IT = Pair", "is the class Pair; its entry point must name an object of it"),
    "no info": ("IT = 3", "cannot say its info: AttributeError"),
    "info of another kind": ('class Odd:\n    info = {"name": "toy"}\nIT = Odd()', "info must be a MetricInfo, got dict"),
    "another name": ('IT = Pair(info("other"))', "calls itself 'other'"),
    "no method": ('class Odd:\n    info = info("toy")\nIT = Odd()', "has none of pairwise, mixture_scores, pool and posterior_score"),
    "another kind than it says": ('IT = Pair(info("toy", "posterior"))', "says per='posterior', which its methods do not give"),
    "pairs are not combined": ('IT = Pair(info("toy", "mixture"))', "says per='mixture', which its methods do not give"),
    "no such kind": ('IT = Pair(info("toy", "pixel"))', "says per='pixel'"),
    "no such domain": ('IMAGE = "image"\nIT = Pair(info("toy"))', "says domains='image'; give a frozenset of image, audio, vector"),
    "no assignment": ('IT = Pair(info("toy", by=""))', "does not say assigned_by"),
}


@pytest.mark.parametrize(("code", "says"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_no_metric_is_one_line_and_harms_no_other(registered, code: str, says: str) -> None:
    registered("toy", code)
    with pytest.raises(MetricError) as caught:
        check_metrics(["toy"], image_task(2))
    assert str(caught.value).startswith("metric 'toy' ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "toy" in metric_names()
    of_sets = [f"{statistic}_{extractor}" for extractor in ("inception", "cifarnet", "mnistnet") for statistic in ("fid", "fid_inf", "kid", "is")]
    others = ["psnr", "psnr_unclamped", "psnr_sum_mse", "psnr_pad32", "psnr_pooled32", "psnr_pooled32_pad", "ssim", "mixture_error"]
    assert metric_names("image") == others + of_sets


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("    def supports(self, task): return True", r"metric 'toy': supports\(\) must return a sepbench.protocols.Support, got bool"),
        ("    def supports(self, task): raise KeyError('rate')", "metric 'toy' cannot say whether it supports a task: KeyError: 'rate'"),
    ],
)
def test_a_broken_answer_about_a_task_is_one_line(registered, code: str, says: str) -> None:
    registered("toy", f'class Odd(Pair):\n{code}\nIT = Odd(info("toy"))')
    with pytest.raises(MetricError, match=says):
        check_metrics(["toy"], image_task(2))


def test_a_metric_may_refuse_tasks(registered) -> None:
    registered("toy", 'class Odd(Pair):\n    def supports(self, task): return Support(False, "wants sound")\nIT = Odd(info("toy"))')
    with pytest.raises(SuiteError, match="metric 'toy' wants sound; remove it from task toy/task"):
        check_metrics(["toy"], image_task(2))


@pytest.mark.parametrize("by", ["mixture_error", "nothing_like_it"])
def test_an_assignment_by_what_gives_no_pairs_is_refused(registered, by: str) -> None:
    registered("toy", f'IT = Whole(info("toy", by="{by}"))')
    with pytest.raises(SuiteError, match=rf"metric 'toy' cannot be assigned by '{by}' \("):
        check_metrics(["toy"], image_task(2))
    check_metrics(["toy"], image_task(2, assignment="ordered"))


RETURNS = {
    "an array": ("return super().pairwise(estimates, references).numpy()", "got ndarray"),
    "float32": ("return super().pairwise(estimates, references).float()", r"got torch.float32 \(3, 2, 2\)"),
    "another shape": ("return super().pairwise(estimates, references)[:, 0]", r"got torch.float64 \(3, 2\)"),
}


@pytest.mark.parametrize(("line", "says"), RETURNS.values(), ids=RETURNS.keys())
def test_what_breaks_the_contract_while_scoring_is_one_line(registered, line: str, says: str) -> None:
    registered("toy", f'class Odd(Pair):\n    def pairwise(self, estimates, references): {line}\nIT = Odd(info("toy"))')
    with pytest.raises(MetricError, match=rf"^metric 'toy' must return float64 values \(3, 2, 2\)[^\n]*{says}"):
        score_batch(["toy"], *random_batch(3, 2), image_task(2))


def test_values_under_another_name_are_refused(registered) -> None:
    code = 'class Odd(Whole):\n    def mixture_scores(self, e, r, m): return {"sdr": torch.zeros(len(e), 2)}\nIT = Odd(info("toy", by="psnr"))'
    registered("toy", code)
    with pytest.raises(MetricError, match="metric 'toy': mixture_scores gave values of sdr and none of its own"):
        score_batch(["toy"], *random_batch(3, 2), image_task(2))


def test_a_built_in_name_cannot_be_taken(registered) -> None:
    registered("psnr", 'IT = Pair(info("psnr"))')
    with pytest.raises(
        NameClaimedError, match=r"metric 'psnr' is claimed by toy_metrics_\w+ \(toy_metrics_\w+:IT\) and sepbench \(sepbench.metrics.psnr:PSNR\)"
    ):
        get_metric("psnr")
    assert pair_metric("psnr_unclamped").info.name == "psnr_unclamped"
