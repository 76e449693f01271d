"""Several seeds and fits: their spread beside that of the mixtures, and intervals that know both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import SyntheticRun
from typer.testing import CliRunner

from sepbench.cli.main import app
from sepbench.errors import SepbenchError
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.repeats import folder_of, with_repetitions
from sepbench.results.statistics import TaskDesigns
from sepbench.results.store import RunStore
from sepbench.results.target import open_results

DESIGNS = TaskDesigns(lambda task: None)


def saved(tmp_path: Path, shifts: list[float], kind: str = "seeds", noise: float = 0.0, n: int = 40) -> Path:
    """A run of ``nmf`` and ``average`` and repetitions of ``nmf`` whose values are shifted as a whole."""
    SyntheticRun(n=n).save(tmp_path / "run")
    for seed, shift in enumerate(shifts, start=1):
        other = SyntheticRun(n=n).drop_method("average")
        other.record["seed" if kind == "seeds" else "fit_seed"] = seed
        drawn = np.random.Generator(np.random.Philox(seed)).normal(size=int(other.where("nmf").sum()))
        other.scores.loc[other.where("nmf"), "value"] += shift + noise * drawn
        other.save(folder_of(tmp_path / "run", kind, seed))
    return tmp_path / "run"


def rows(run: Path) -> dict[str, dict[str, float]]:
    frame = open_results(str(run)).frame
    return {row["method"]: row for row in frame[frame["metric"] == "psnr"].to_dict("records")}  # type: ignore[misc]


def test_the_spread_of_seeds_stands_beside_that_of_mixtures(tmp_path: Path) -> None:
    alone = rows(saved(tmp_path / "alone", []))["nmf"]
    found = rows(saved(tmp_path / "three", [0.3, -0.3]))
    assert (found["nmf"]["seeds"], found["average"]["seeds"], alone["seeds"]) == (3, 1, 1)
    assert found["nmf"]["std_seeds"] == pytest.approx(0.3)
    assert np.isnan(found["average"]["std_seeds"])
    assert found["nmf"]["mean"] == pytest.approx(alone["mean"])
    assert found["nmf"]["std"] == pytest.approx(alone["std"])
    assert found["nmf"]["interval"] == "cluster t and seeds"


def test_the_interval_knows_that_seeds_share_every_mixture(tmp_path: Path) -> None:
    alone, wide = (rows(saved(tmp_path / name, shifts))["nmf"] for name, shifts in (("alone", []), ("shifted", [3.0, -3.0])))
    half = (alone["ci_high"] - alone["ci_low"]) / 2
    assert (wide["ci_high"] - wide["ci_low"]) / 2 > 3.0 / np.sqrt(3) * 1.96 > half
    same = rows(saved(tmp_path / "same", [0.0, 0.0]))["nmf"]
    assert (same["ci_low"], same["ci_high"]) == pytest.approx((alone["ci_low"], alone["ci_high"]))


def test_fits_and_seeds_are_kept_apart(tmp_path: Path) -> None:
    found = rows(saved(tmp_path, [1.0], kind="fits"))["nmf"]
    assert (found["fits"], found["seeds"]) == (2, 1)
    assert found["std_fits"] == pytest.approx(1 / np.sqrt(2))
    assert np.isnan(found["std_seeds"])


def lacking(kind: str) -> SyntheticRun:
    """A repetition of a run of 40 mixtures that lacks some."""
    other = SyntheticRun(n=10 if kind == "grown" else 40).drop_method("average")
    if kind == "failed":
        other.fail("nmf", 3)
    elif kind == "interrupted":
        other.scores = other.scores[other.scores["example"] < 25]
    elif kind == "not begun":
        other.scores = other.scores[:0]
    elif kind == "one metric":
        other.scores = other.scores[(other.scores["metric"] != "psnr") | (other.scores["example"] != 3)]
    return other


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("grown", ": 30 missing of the 40 mixtures scored here"),
        ("interrupted", ": 15 missing of the 40 mixtures scored here"),
        ("not begun", ": 40 missing of the 40 mixtures scored here"),
        ("failed", ": 1 failed of the 40 mixtures scored here"),
        ("one metric", " of psnr: 1 missing of the 40 mixtures scored here"),
    ],
)
def test_a_repetition_without_all_mixtures_of_a_row_is_left_out_and_named(tmp_path: Path, kind: str, why: str) -> None:
    alone, run = rows(saved(tmp_path / "alone", [])), saved(tmp_path, [])
    for seed in (1, 2):
        other = lacking(kind)
        other.record["seed"] = seed
        other.scores["value"] += seed
        other.save(folder_of(run, "seeds", seed))
    assert {name: dict(row) for name, row in rows(run).items()} == {name: pytest.approx(dict(row), nan_ok=True) for name, row in alone.items()}
    told = f"nmf: seeds 1, 2 left out{why}"
    shown = CliRunner().invoke(app, ["show", str(run), "--json"])
    assert told in json.loads(shown.stdout)["notes"]
    shutil.rmtree(folder_of(run, "seeds", 1))
    saved(tmp_path, [3.0])  # seed 1 has them all now
    found = rows(run)["nmf"]
    assert (found["seeds"], found["n_scored"]) == (2, 40)
    assert found["mean"] == pytest.approx(alone["nmf"]["mean"] + 1.5)
    assert f"nmf: seed 2 left out{why}" in json.loads(CliRunner().invoke(app, ["show", str(run), "--json"]).stdout)["notes"]


def test_a_repetition_that_has_more_than_the_run_counts_with_what_the_run_has(tmp_path: Path) -> None:
    run = saved(tmp_path, [2.0])
    SyntheticRun(n=40).fail("nmf", 3).save(run)
    SyntheticRun(n=40).fail("nmf", 3).save(tmp_path / "alone")
    alone = rows(tmp_path / "alone")["nmf"]
    found = rows(run)["nmf"]
    assert (found["seeds"], found["n_scored"], found["n_failed"]) == (2, 39, 1)
    assert found["mean"] == pytest.approx(alone["mean"] + 1.0)
    assert (found["std"], found["n_clusters"]) == (alone["std"], alone["n_clusters"])


def test_a_grown_run_tells_of_its_old_seeds_until_they_have_grown_too(tmp_path: Path) -> None:
    arguments = ["run", "--suite", "digits-pairs", "--tasks", "class-split", "--methods", "nmf", "--budget", "quick", "--out", str(tmp_path / "r")]
    for more in (["--limit", "4", "--seeds", "2"], ["--limit", "6"]):
        done = CliRunner().invoke(app, [*arguments, *more])
        assert done.exit_code == 0, done.output
    assert "nmf: seed 1 left out: 2 missing of the 6 mixtures scored here" in " ".join(done.output.split())
    assert read_leaderboard(tmp_path / "r" / "leaderboard.csv")["seeds"].tolist()[0] == 1
    done = CliRunner().invoke(app, [*arguments, "--limit", "6", "--seeds", "2"])
    assert "left out" not in done.output
    assert read_leaderboard(tmp_path / "r" / "leaderboard.csv")["seeds"].tolist()[0] == 2


def test_a_damaged_repetition_names_the_option_that_makes_it_again(tmp_path: Path) -> None:
    run = saved(tmp_path, [1.0, 2.0], kind="fits")
    (path,) = folder_of(run, "fits", 2).rglob("*.parquet")
    path.write_bytes(b"cut")
    with pytest.raises(SepbenchError) as caught:
        open_results(str(run))
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("run the run's own command again to make damaged files anew, with --fits 3")


def test_repetitions_of_another_run_are_refused(tmp_path: Path) -> None:
    run = saved(tmp_path, [])
    other = SyntheticRun(n=40)
    other.record["budget"] = "quick"
    other.save(folder_of(run, "seeds", 1))
    store = RunStore.open(run)
    with pytest.raises(SepbenchError, match="repeats another run"):
        with_repetitions(open_results(str(tmp_path / "run"), statistics=False).frame, {}, store, DESIGNS)


def test_the_command_repeats_random_methods_only(tmp_path: Path) -> None:
    arguments = ["run", "--suite", "digits-pairs", "--tasks", "class-split", "--methods", "average,nmf", "--limit", "12", "--out", str(tmp_path / "r")]
    first = CliRunner().invoke(app, [*arguments, "--seeds", "2", "--fits", "3"])
    assert first.exit_code == 0, first.output
    frame = read_leaderboard(tmp_path / "r" / "leaderboard.csv")
    psnr = frame[frame["metric"] == "psnr"].set_index("method")
    assert (psnr.loc["nmf", "seeds"], psnr.loc["nmf", "fits"]) == (2, 3)
    assert (psnr.loc["average", "seeds"], psnr.loc["average", "fits"]) == (1, 1)
    assert psnr.loc["nmf", "std_seeds"] == pytest.approx(0, abs=1e-12)  # its separation is not random, its fit is
    assert psnr.loc["nmf", "std_fits"] > 0
    assert sorted(path.name for path in (tmp_path / "r" / "fits").iterdir()) == ["1", "2"]
    again = CliRunner().invoke(app, [*arguments, "--seeds", "2", "--fits", "3"])
    assert again.exit_code == 0, again.output


def test_more_seeds_make_the_interval_narrower(tmp_path: Path) -> None:
    few, many = (rows(saved(tmp_path / str(count), [3.0, -3.0] * count))["nmf"] for count in (1, 6))
    assert many["std_seeds"] == pytest.approx(3.0, rel=0.1)
    assert (many["ci_high"] - many["ci_low"]) / 2 < 1.2 * 2.2 * 3.0 / np.sqrt(13)
    assert few["ci_high"] - few["ci_low"] > 2 * (many["ci_high"] - many["ci_low"])
