"""``celeba-lass`` on made-up files in the official layout: its lists, its words, and a run from its name to a leaderboard."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import torch
from face_layouts import make_celeba
from typer.testing import CliRunner

from sepbench.cli.main import app
from sepbench.data.datasets import open_dataset
from sepbench.errors import DataError
from sepbench.resources import resource_root, suites_root
from sepbench.suites.assembly import DerivedList
from sepbench.suites.loader import load_suite

pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    make_celeba(root, train=12, validation=6, test=8)
    return root


@pytest.fixture
def suite_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite with short lists, not frozen."""
    monkeypatch.setenv("SEPBENCH_DATA", str(home))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    text = (suites_root() / "celeba-lass.toml").read_text()
    for rule, count in (("test", 20), ("validation", 5)):
        text, changed = re.subn(rf"(?m)^({rule} = .*n = )\d+", rf"\g<1>{count}", text)
        assert changed == 1
    path = tmp_path / "celeba-lass.toml"
    path.write_text(text)
    empty = {"n": 1, "pairs_sha256": "", "mixtures_sha256": ""}
    lines = [f"[celeba-lass.{key}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in empty.items()) for key in ("pairs", "pairs-val")]
    (tmp_path / "tasks.toml").write_text("\n".join(lines))
    return path


def test_the_frozen_file_states_the_rules() -> None:
    frozen = tomllib.loads((resource_root("data_manifests") / "tasks.toml").read_text(encoding="utf-8"))["celeba-lass"]
    tasks = load_suite("celeba-lass").tasks
    assert set(tasks) == set(frozen) == {"pairs", "pairs-val"}
    for key, task in tasks.items():
        assert isinstance(task.data.pairs, DerivedList)
        assert (frozen[key]["n"], frozen[key]["pairs_rule"]) == (task.n_examples, task.data.pairs.rule.text)


def test_mixtures_are_means_of_two_test_faces(suite_file: Path) -> None:
    tasks = load_suite(str(suite_file)).tasks
    for key, split, count in (("pairs", "test", 20), ("pairs-val", "validation", 5)):
        mixtures, pool = tasks[key].mixture_set(), open_dataset("celeba32", split)
        indices = mixtures.pairs.indices
        assert (len(mixtures), indices.shape) == (count, (count, 2))
        assert (indices[:, 0] != indices[:, 1]).all()
        assert len({tuple(sorted(pair)) for pair in indices.tolist()}) == count
        assert torch.equal(mixtures.sources(range(count)), pool.load(indices.flatten()).unflatten(0, (count, 2)))
        torch.testing.assert_close(mixtures.mixtures(range(count)).values, mixtures.sources(range(count)).mean(1))
    spec = tasks["pairs"].spec
    assert (spec.source_shape, spec.operator, spec.assignment, spec.class_agnostic) == ((3, 32, 32), "mean", "permutation", True)


def test_methods_learn_from_the_training_split(suite_file: Path) -> None:
    task = load_suite(str(suite_file)).tasks["pairs"]
    assert task.support("prior").ok
    assert torch.equal(task.view("prior").clean(), open_dataset("celeba32", "train").load(range(12)))


def test_a_run_goes_from_its_name_to_a_leaderboard(suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["run", "--suite", str(suite_file), "--methods", "average,original", "--device", "cpu", "--out", "here"])
    assert done.exit_code == 0, done.output
    assert "list of mixtures not frozen" in done.stdout
    assert re.search(r"LASS\s+fid_inception 8\.96", done.stdout)
    board = pd.read_csv("here/leaderboard.csv")
    assert (board["n_scored"] == 20).all()
    assert board.set_index(["method", "metric"])["mean"]["average", "mixture_error"] == pytest.approx(0, abs=1e-7)


def test_without_the_data_one_line_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEPBENCH_DATA", raising=False)
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "none"))
    done = CliRunner().invoke(app, ["run", "--suite", "celeba-lass", "--methods", "average", "--device", "cpu", "--out", "here"])
    assert isinstance(done.exception, DataError)
    assert "download Img/img_align_celeba.zip and Eval/list_eval_partition.txt from https://mmlab.ie.cuhk.edu.hk" in str(done.exception)
    assert not Path("here").exists()
