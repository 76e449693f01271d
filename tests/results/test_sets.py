"""Metrics of sets from estimates to tables: shards, failures, growth, subsets, references, and what is said where something is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from third_parties import install
from typer.testing import CliRunner

from sepbench.cli import check, compare, run, score, show
from sepbench.errors import SepbenchError
from sepbench.metrics.sets.extractors import eight_bits, extracted, get_extractor
from sepbench.metrics.sets.frechet import FrechetReference, frechet_distance
from sepbench.metrics.sets.kernel import block_distance
from sepbench.metrics.sets.moments import Moments
from sepbench.registry import EXTRACTOR_GROUP, METRIC_GROUP
from sepbench.results.intervals import Design
from sepbench.results.pairing import pair_up
from sepbench.results.store import RunStore
from sepbench.results.values import MetricValues, Values
from sepbench.suites.loader import load_suite

EXTRACTOR = """
import torch
from sepbench.metrics.sets.extractors import ExtractorInfo
from sepbench.metrics.sets import catalogue

class Toy:
    info = ExtractorInfo("toy", 6, 3, (1, 8, 8), "random projections")
    def digest(self): return "toy 1"
    def extract(self, images, device):
        draw = torch.Generator().manual_seed(0)
        flat = images.float().flatten(1) / 255
        return flat @ torch.randn(64, 6, generator=draw), flat @ torch.randn(64, 3, generator=draw)

TOY = Toy()
FID, KID, IS, LIMIT = (make("toy") for make in (catalogue.fid, catalogue.kid, catalogue.inception_score, catalogue.fid_limit))
"""
METRICS = "psnr,fid_toy,kid_toy,is_toy,fid_inf_toy"
RUN = ("run", "--suite", "digits-pairs", "--device", "cpu", "--tasks", "class-split", "--methods", "halves,noisy")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_methods: None) -> None:
    """Registers the extractor ``toy`` and its metrics, and works in an empty folder with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    names = {"fid_toy": "FID", "kid_toy": "KID", "is_toy": "IS", "fid_inf_toy": "LIMIT"}
    entries = {EXTRACTOR_GROUP: {"toy": "toy_extractor:TOY"}, METRIC_GROUP: {name: f"toy_extractor:{made}" for name, made in names.items()}}
    install(monkeypatch, tmp_path / "site", "toy-extractor", entries, {"toy_extractor": EXTRACTOR})


def sepbench(*arguments: str, code: int = 0) -> str:
    app = typer.Typer()
    for command in (run.run, score.score, show.show, compare.compare, check.check):
        app.command(command.__name__)(command)
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "250"})
    assert done.exit_code == code, f"{done.output} {done.exception}"
    return done.stdout


def scored(folder: str, limit: int = 40, shard: int = 64, metrics: str = METRICS) -> RunStore:
    sepbench(*RUN, "--limit", str(limit), "--shard-size", str(shard), "--out", folder)
    sepbench("score", folder, "--metrics", metrics)
    return RunStore.open(Path(folder))


def values(store: RunStore, metric: str, method: str = "noisy") -> MetricValues:
    return Values.of_run(store).of("class-split", method, metric)


def images(store: RunStore, method: str = "noisy") -> torch.Tensor:
    shards = store.estimates_of("class-split", method)
    return eight_bits(torch.cat([store.read_estimates(shard).estimates for shard in shards]).flatten(0, 1))


def reference_images() -> torch.Tensor:
    """All training images of the digits; the split's classes are 0-4 and 5-9."""
    ((signals, rows, transform),) = load_suite("digits-pairs").tasks["class-split"].reference()
    assert len(rows) == len(signals) == 1_000
    return eight_bits(transform(signals.load(rows)))


@pytest.mark.usefixtures("toy")
def test_the_values_are_those_of_all_estimates_and_all_training_images() -> None:
    store = scored("run")
    features, logits = extracted(get_extractor("toy"), images(store), "cpu")
    reference, _ = extracted(get_extractor("toy"), reference_images(), "cpu")
    distance = frechet_distance(Moments.of(features.numpy()), FrechetReference(Moments.of(reference.numpy())))
    assert values(store, "fid_toy").values.mean() == pytest.approx(distance, rel=1e-9)
    assert values(store, "kid_toy").values.mean() == pytest.approx(block_distance(features.numpy(), reference.numpy()[:80])[0], rel=1e-9)
    p = logits.double().softmax(1)
    splits = [torch.exp((q * (q.log() - q.mean(0).log())).sum(1).mean()).item() for q in p.split(8)]
    assert values(store, "is_toy").values.mean() == pytest.approx(np.mean(splits), rel=1e-9)
    assert np.isnan(values(store, "fid_inf_toy").values).all()  # 80 images of 6 features are too few
    frame = pd.read_csv("run/leaderboard.csv").set_index(["method", "metric"])
    row = frame.loc[("noisy", "fid_toy")]
    assert row["mean"] == pytest.approx(distance, rel=1e-5)
    assert (row["n_scored"], row["n_failed"]) == (40, 0)
    assert row["interval"] == "cluster t, influence function"
    design = Design(load_suite("digits-pairs").tasks["class-split"].clusters().of(np.arange(40)))
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], design.intervals(values(store, "fid_toy").values[:, None])[:, 0], rtol=1e-4)
    assert frame.loc[("noisy", "is_toy"), "std"] == pytest.approx(np.std(splits), rel=1e-4)
    assert not row["higher_is_better"]
    assert frame.loc[("noisy", "is_toy"), "higher_is_better"]


@pytest.mark.usefixtures("toy")
def test_the_value_does_not_depend_on_shards_or_on_growth() -> None:
    once = scored("once", 70, 70)
    for limit in (20, 33, 70):
        sepbench(*RUN, "--limit", str(limit), "--shard-size", "9", "--out", "grown")
    sepbench("score", "grown", "--metrics", METRICS)
    for metric in ("fid_toy", "kid_toy", "is_toy", "fid_inf_toy"):
        np.testing.assert_array_equal(values(once, metric).values, values(RunStore.open(Path("grown")), metric).values)


@pytest.mark.usefixtures("toy")
def test_sides_with_other_examples_are_held_against_the_reference_anew() -> None:
    long, short = scored("long", 60), scored("short", 25)
    pair = pair_up(values(long, "fid_toy"), values(short, "fid_toy"))
    assert pair.examples.tolist() == list(range(25))
    assert pair.a.mean() == pytest.approx(values(short, "fid_toy").values.mean(), rel=1e-12)
    assert pair.a.mean() != pytest.approx(values(long, "fid_toy").values.mean(), rel=1e-3)


@pytest.mark.usefixtures("toy")
def test_estimates_that_are_not_finite_do_not_enter() -> None:
    store = scored("run")
    shard = store.estimates_of("class-split", "noisy")[0]
    data = store.read_estimates(shard)
    data.estimates[3, 1, 0, 0, 0] = torch.inf
    store.write_estimates(shard, data)
    sepbench("score", "run", "--metrics", METRICS)
    found = values(store, "fid_toy")
    assert np.flatnonzero(~found.scored).tolist() == [3]
    rest = torch.arange(80)[(torch.arange(80) // 2) != 3]
    features, _ = extracted(get_extractor("toy"), images(store)[rest], "cpu")
    reference, _ = extracted(get_extractor("toy"), reference_images(), "cpu")
    distance = frechet_distance(Moments.of(features.numpy()), FrechetReference(Moments.of(reference.numpy())))
    assert np.nanmean(found.values) == pytest.approx(distance, rel=1e-9)
    assert pd.read_csv("run/leaderboard.csv").set_index(["method", "metric"]).loc[("noisy", "fid_toy"), "n_failed"] == 1


@pytest.mark.usefixtures("toy")
def test_a_run_carries_its_reference_and_says_what_is_missing() -> None:
    store = scored("run", metrics="psnr,fid_toy")
    shutil.rmtree("cache")
    shutil.move("run", "elsewhere")
    expected = pd.read_csv("elsewhere/leaderboard.csv").set_index(["method", "metric"]).loc[("noisy", "fid_toy"), "mean"]
    store = RunStore.open(Path("elsewhere"))
    assert values(store, "fid_toy").values.mean() == pytest.approx(expected, rel=1e-5)
    shutil.rmtree("elsewhere/references")
    with pytest.raises(SepbenchError, match=r"the reference features \S+ cannot be read .* `sepbench score` of the run makes them again$"):
        values(RunStore.open(Path(shutil.move("elsewhere", "third"))), "fid_toy")  # under another name: what was read once is held
    shutil.move("third", "elsewhere")
    sepbench("score", "elsewhere", "--metrics", "psnr,fid_toy")
    assert values(store, "fid_toy").values.mean() == pytest.approx(expected, rel=1e-5)
    shutil.rmtree("elsewhere/features")
    with pytest.raises(SepbenchError, match="example 0 has scores and no features of extractor 'toy'; run `sepbench score` of the run again"):
        values(store, "fid_toy")


@pytest.mark.usefixtures("toy")
def test_worse_sets_are_a_regression() -> None:
    scored("good")
    sepbench(*RUN, "--limit", "40", "--seed", "3", "--out", "other")
    sepbench("score", "other", "--metrics", METRICS)
    shown = sepbench("compare", "good:noisy", "good:halves", "--metric", "fid_toy")
    assert "better" in shown
    sepbench("check", "good", "--against", "good")
    row = pd.read_csv("good/leaderboard.csv").set_index(["method", "metric"]).loc[("noisy", "fid_inf_toy")]
    assert np.isnan(row["mean"])
    assert (row["n_scored"], row["n_failed"]) == (40, 0)


@pytest.mark.usefixtures("toy")
def test_a_task_of_other_images_is_refused_in_one_line() -> None:
    sepbench(*RUN, "--limit", "5", "--out", "run")
    app = typer.Typer()
    app.command("score")(score.score)
    done = CliRunner().invoke(app, ["run", "--metrics", "fid_cifarnet"])
    assert str(done.exception) == (
        "metric 'fid_cifarnet' has features of images of shape (3, 32, 32), the task has (1, 8, 8); leave it out for task 'class-split'"
    )
