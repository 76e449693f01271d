"""What a suite's file may say: defaults, limits, names and rules, each wrong one in full; and where files and suites are looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite_toys import Opener, ToyFolder

from sepbench.data.lists.rules import PairRule
from sepbench.errors import SepbenchError, SuiteError, UnknownNameError
from sepbench.suites.assembly import DerivedList
from sepbench.suites.freeze import write_digests
from sepbench.suites.loader import NEVER_RANKING, load_suite, load_unfrozen, recorded_suite

TASK = "{} [tasks] [split]: "
RULE = "{} [rules] [made]: n must be at least 1, skip and window at least 0, and snr_db goes with independent-at-snr"
RULES = '[rules]\nmade = { builder = "one-of-each", n = 4 }\n\n[tasks.split]'


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"scored_sources = [0]": "scored_sources = [-1]"}, TASK + "there is no source -1, the task has 2"),
        ({"observed_source = 1": "observed_source = -1"}, TASK + "there is no source -1, the task has 2"),
        ({"observed_source = 1": "observed_source = 2"}, TASK + "there is no source 2, the task has 2"),
        ({"scored_sources = [0]": "scored_sources = [0, 1, 2]"}, TASK + "there is no source 2, the task has 2"),
        ({'operator = "sum"': 'operator = "sum"\nindex = "rank"'}, TASK + "key 'index' must be one of row, rank-in-class; found 'rank'"),
        ({"labels = [0": "rows_per_cluster = 0, labels = [0"}, "{} [classes] [low]: rows_per_cluster must be at least 1, found 0"),
        ({"labels = [0": "kind = 1, labels = [0"}, "{} [classes] [low]: unknown key 'kind'; known keys: dataset, labels, rows_per_cluster"),
        ({"pad = 1": "pads = 1"}, "{} [data]: unknown key 'pads'; did you mean 'pad'?"),
        ({"held_out = 20": 'held_out = 20\nvalidation = "val"'}, "{} [data]: give either held_out or validation"),
        ({"held_out = 20": ""}, "{} [tasks] [split-val]: a validation task needs held_out or validation in [data]"),
        ({"shape = [1, 2, 2]\n": ""}, TASK + "key 'shape' is missing, here and in [data]"),
        ({'pairs = "split.csv"\n': ""}, TASK + "key 'pairs' is missing"),
        ({'sources = ["low", "high"]': 'sources = ["low", "hgih"]'}, "unknown source class in {} [tasks] [split] 'hgih'; did you mean high?"),
        ({'validates = "split"': 'validates = "splat"'}, "unknown task (validated by split-val) 'splat'; did you mean split?"),
        ({'name = "toy-suite"': 'name = "Toy"'}, "{}: name 'Toy' must be lower-case letters and digits in groups joined by single hyphens"),
        ({"tasks.split]": "tasks.a_b]"}, "{} [tasks] [a_b]: name 'a_b' must be lower-case letters and digits in groups joined by single hyphens"),
        ({"format = 1": "format = 2"}, "{}: format 2 is not known, this sepbench reads format 1"),
        ({'task = "split"\nmethod': 'task = "splat"\nmethod'}, "unknown task in {} [[published]] 1 'splat'; did you mean split?"),
        ({'method = "Mean" }': "method = 3 }"}, "{} [[published]] 1: every value of 'find' must be text, as in the CSV file"),
        ({"[tasks.split]": RULES.replace("n = 4", "n = 0")}, RULE),
        ({"[tasks.split]": RULES.replace("n = 4", "n = 4, skip = -1")}, RULE),
        ({"[tasks.split]": RULES.replace("n = 4", "n = 4, window = -1")}, RULE),
        ({"[tasks.split]": RULES.replace("n = 4", "n = 4, snr_db = -6")}, RULE),
        ({"[tasks.split]": RULES, "split.csv": "rule:maed"}, "unknown rule in {} [tasks] [split] 'maed'; did you mean made?"),
        (
            {"[tasks.split]": RULES, '"split.csv"': '"rule:made"\nindex = "rank-in-class"'},
            TASK + "lists made by a rule contain rows; leave out 'index'",
        ),
        (
            {"[tasks.split]": RULES, "split.csv": "rule:made", '"sum"': '"gain"'},
            TASK + "builder 'one-of-each' does not go with operator 'gain'",
        ),
        (
            {"[tasks.split]": RULES.replace("one-of-each", "independent-at-snr"), "split.csv": "rule:made"},
            TASK + "builder 'independent-at-snr' does not go with operator 'sum'",
        ),
    ],
)
def test_what_is_said_of_a_malformed_suite(toy: ToyFolder, edits: dict[str, str], told: str) -> None:
    for old, new in edits.items():
        toy.edit(old, new)
    with pytest.raises(SepbenchError) as caught:
        load_suite(str(toy.toml), toy.opener)
    assert str(caught.value) == told.format(toy.toml)


@pytest.mark.parametrize("metric", ["isr", "sir", "sar"])
def test_metrics_that_must_not_rank(toy: ToyFolder, metric: str) -> None:
    assert {"isr", "sir", "sar"} == NEVER_RANKING
    toy.edit('metrics = ["psnr", "ssim"]\nranking_metric = "psnr"', f'metrics = ["sdr", "{metric}"]\nranking_metric = "{metric}"')
    with pytest.raises(SuiteError) as caught:
        load_suite(str(toy.toml), toy.opener)
    why = "whose windows move by tens of dB with the samples' last bit; rank by 'sdr'"
    assert str(caught.value) == f"{toy.toml}: ranking_metric must not be '{metric}', {why}"


def test_what_is_not_said_has_a_default_and_what_is_said_is_taken(toy: ToyFolder) -> None:
    bare = load_suite(str(toy.toml), toy.opener).tasks["split"]
    assert (bare.spec.sample_rate, bare.spec.posterior_draws, bare.data.cluster, bare.data.by_rank) == (None, 0, "signal", False)
    assert (bare.data.test_split, bare.data.train_split, bare.data.validation_split, bare.data.held_out) == ("test", "train", "", 20)
    assert (bare.data.test_rows, bare.data.train_rows, bare.data.untrainable, bare.data.cluster_file) == (None, None, "", None)
    assert [one.rows_per_cluster for one in bare.data.slots] == [1, 1]
    toy.edit("pad = 1\n", 'sample_rate = 8000\ncluster = "song"\n')
    toy.edit("scored_sources = [0]\nobserved_source = 1\n", 'test_rows = [0, 40]\ntrain_rows = [3, 40]\nclusters = "keys.csv"\n')
    toy.edit('{ dataset = "toy", labels = [0', '{ dataset = "toy", rows_per_cluster = 5, labels = [0')
    (toy.folder / "keys.csv").touch()
    said, val = load_suite(str(toy.toml), toy.opener).tasks.values()
    assert (said.spec.source_shape, said.spec.sample_rate, said.data.cluster, said.data.cluster_file) == ((1, 2, 2), 8000, "song", toy.folder / "keys.csv")
    assert (said.spec.scored_sources, said.spec.observed_source, said.data.observed_slot) == ((0, 1), None, None)
    assert [one.rows_per_cluster for one in said.data.slots] == [5, 1]
    for task in (said, val):
        assert (task.data.test_rows, task.data.train_rows) == ((0, 40), (3, 40))
    assert (said.data.validation, val.data.validation, val.data.cluster_file) == (False, True, None)
    assert val.spec.datasets == ("toy", "toy")


def test_a_rule_is_taken_as_it_is_said(toy: ToyFolder) -> None:
    rules = 'made = { builder = "one-of-each", n = 4 }\nother = { builder = "aligned-chunks", order = "made", n = 2, skip = 4, window = 9 }\n'
    toy.edit("[tasks.split]", f"[rules]\n{rules}\n[tasks.split]")
    toy.edit("split.csv", "rule:made")
    toy.edit("train-mixtures.csv", "rule:other")
    task = load_unfrozen(toy.toml, toy.opener).tasks["split"]
    pairs, mixtures = task.data.pairs, task.data.train_mixtures
    assert isinstance(pairs, DerivedList)
    assert isinstance(mixtures, DerivedList)
    assert (pairs.rule, mixtures.rule) == (PairRule("one-of-each", "toy-suite.made", 4), PairRule("aligned-chunks", "toy-suite.made", 2, 4, 0, 9))
    assert (pairs.sha256, pairs.path, pairs.column, task.n_examples) == ("", None, None, 4)
    assert str(pairs) == "of rule one-of-each, order toy-suite.made"


def test_files_beside_a_suite_go_before_sepbenchs(toy: ToyFolder, opener: Opener) -> None:
    (toy.folder / "split.csv").unlink()
    with pytest.raises(SuiteError, match=r"pairs/split\.csv cannot be read"):
        load_suite(str(toy.toml), toy.opener)
    toy.edit("split.csv", "digits-pairs.class-split.csv")  # one of sepbench's, looked up by its name
    with pytest.raises(
        SuiteError, match=r"data_manifests/pairs/digits-pairs\.class-split\.csv has sha256 \w{64}, frozen for toy-suite/split is \w{64}; restore the file$"
    ):
        load_suite(str(toy.toml), toy.opener)
    (toy.folder / "tasks.toml").unlink()
    with pytest.raises(SuiteError) as caught:
        load_suite(str(toy.toml), toy.opener)
    told = f"has no digests of 'toy-suite'; freeze it with 'sepbench freeze {toy.toml}'"
    assert str(caught.value).startswith(f"{toy.toml} is not frozen: ")
    assert str(caught.value).endswith(f"data_manifests/tasks.toml {told}")


def test_a_task_without_digests_says_where_and_how(toy: ToyFolder) -> None:
    toy.edit("[tasks.split-val]", "[tasks.other-val]")
    with pytest.raises(SuiteError) as caught:
        load_suite(str(toy.toml), toy.opener)
    where = f"{toy.folder / 'tasks.toml'} [toy-suite]"
    assert str(caught.value) == f"{where} has no digests of task 'other-val'; freeze them with 'sepbench freeze {toy.toml}'"


def test_the_folder_of_a_suite_by_name_and_by_path(toy: ToyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    suites = tmp_path / "suites"
    for name in ("toy-suite", "another"):
        (suites / name).mkdir(parents=True)
        for file in toy.folder.iterdir():
            if file.is_file():
                (suites / name / ("suite.toml" if file == toy.toml else file.name)).write_bytes(file.read_bytes())
    monkeypatch.setenv("SEPBENCH_SUITES", str(suites))
    assert load_suite("toy-suite", toy.opener).name == load_suite(f"{suites}/another/", toy.opener).name == "toy-suite"
    with pytest.raises(SuiteError) as caught:
        load_suite("another", toy.opener)
    told = "is the suite 'toy-suite'; give its folder this name, or rename the suite (key 'name', and freeze it again)"
    assert str(caught.value) == f"{suites}/another/suite.toml {told}"


def test_the_suite_of_a_run(toy: ToyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEPBENCH_SUITES", raising=False)
    gone = str(tmp_path / "gone" / "suite.toml")
    assert recorded_suite("gaussian-exact", "").name == recorded_suite("gaussian-exact", gone).name == "gaussian-exact"
    assert recorded_suite("gaussian-exact", str(tmp_path)).name == "gaussian-exact"  # a folder is no suite's file
    assert recorded_suite("gaussian-exact", str(toy.toml)).name == "toy-suite"
    with pytest.raises(UnknownNameError, match="unknown suite 'toy-suite'"):
        recorded_suite("toy-suite", "")
    with pytest.raises(SuiteError) as caught:
        recorded_suite("toy-suite", gone)
    told = "which does not exist; put it back, or name the folder with toy-suite/ in SEPBENCH_SUITES"
    assert str(caught.value) == f"the run's suite 'toy-suite' was in {gone}, {told}"


def test_digests_of_training_lists_are_compared_by_the_task_that_they_validate(toy: ToyFolder, opener: Any) -> None:
    """A validation task has no digests of training lists of its own: those of its test task count."""
    digests = toy.folder / "tasks.toml"
    val = digests.read_text().split("[toy-suite.split-val]")[1]
    assert "train_" not in val
    assert load_suite(str(toy.toml), opener).tasks["split-val"].view("mixtures+one").supervision == "mixtures+one"
    toy.write("train-mixtures", np.array([[0, 1]]))
    with pytest.raises(SuiteError, match=r"train-mixtures\.csv has sha256 .* frozen for toy-suite/split is"):
        load_suite(str(toy.toml), opener)
    write_digests([toy.toml], digests, opener)
    assert "train_mixtures_sha256" in digests.read_text()
