"""The loader on a third party's suite: what it reads, and one clear line for everything that can be wrong."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from suite_toys import NumberedSignals, Opener, ToyFolder

from sepbench.data.lists.pairs import pairs_csv, read_pairs
from sepbench.errors import DataError, SepbenchError, SuiteError, SupervisionError, UnknownNameError, UnsupportedTaskError
from sepbench.suites.freeze import write_digests
from sepbench.suites.loader import load_suite


def test_a_suite_is_read_as_written(toy: ToyFolder) -> None:
    suite = load_suite(str(toy.toml), toy.opener)
    assert (suite.name, suite.version, suite.title, suite.domain) == ("toy-suite", 3, "Toy", "image")
    assert (suite.metrics, suite.ranking_metric, suite.methods) == (("psnr", "ssim"), "psnr", ("average",))
    task, val = suite.tasks["split"], suite.tasks["split-val"]
    assert (task.split, task.validates, val.split, val.validates) == ("test", "", "validation", "split")
    assert task.spec.source_shape == (1, 4, 4)
    assert (task.spec.n_sources, task.spec.source_classes, task.spec.scored_sources, task.spec.observed_source) == (2, ("low", "high"), (0,), 1)
    assert (val.spec.name, val.spec.assignment, val.spec.scored_sources) == ("split-val", "ordered", (0,))
    (row,) = suite.published
    assert (row.task, row.method, row.metric, row.value, row.std, row.n) == ("split", "average", "psnr", 12.5, 0.25, 40)
    assert (row.source, row.title, row.notes) == ("P Table 1", "Mean", "theirs; ours")


def test_the_task_digest_covers_list_and_mixtures(toy: ToyFolder) -> None:
    task = load_suite(str(toy.toml), toy.opener).tasks["split"]
    assert task.mixtures_sha256 == task.mixture_set().digest() == task.verify()
    assert task.digest == hashlib.sha256((task.pairs_sha256 + task.mixtures_sha256).encode()).hexdigest()
    assert task.n_examples == len(task.mixture_set()) == len(read_pairs(toy.folder / "split.csv"))


def test_loading_opens_no_data(toy: ToyFolder) -> None:
    def refuse(name: str, split: str) -> NumberedSignals:
        raise AssertionError("opened")

    suite = load_suite(str(toy.toml), refuse)  # type: ignore[arg-type]
    assert suite.tasks["split"].view("blind").supervision == "blind"


def test_training_views_keep_clear_of_test_and_validation(toy: ToyFolder) -> None:
    task = load_suite(str(toy.toml), toy.opener).tasks["split"]
    train = toy.opener("toy", "train")
    low, high = train.labels[:40] < 5, train.labels[:40] >= 5

    def rows(values: torch.Tensor) -> list[int]:
        return train.rows(values[..., 1:-1, 1:-1]).tolist()  # type: ignore[attr-defined]

    view = task.view("sources")
    assert rows(view.clean()) == list(range(40))
    assert rows(view.sources(0)) == low.nonzero().flatten().tolist()
    assert rows(view.sources(1)) == high.nonzero().flatten().tolist()
    one = task.view("mixtures+one")
    assert rows(one.observed()) == read_pairs(toy.folder / "train-observed.csv").indices[:, 0].tolist()
    assert len(one.mixtures()) == 8


def test_training_images_with_the_content_of_a_test_image_are_left_out(toy: ToyFolder) -> None:
    mixtures = read_pairs(toy.folder / "train-mixtures.csv").indices
    observed = read_pairs(toy.folder / "train-observed.csv").indices[:, 0]
    doubles = {int(mixtures[2, 1]): "test", int(observed[0]): "held out"}

    class Leaky(NumberedSignals):
        def load(self, indices: object) -> torch.Tensor:
            rows = torch.as_tensor(indices, dtype=torch.int64).clone()  # type: ignore[call-overload]
            values = super().load(rows)
            for row, twin in doubles.items():
                values[rows == row] = 0.5 + 7 / 2**17 if twin == "test" else 55 / 2**17
            return values

    def opener(name: str, split: str) -> NumberedSignals:
        found = toy.opener(name, split)
        return Leaky(name, split, found.labels, found.shape) if split == "train" else found  # type: ignore[return-value]

    task = load_suite(str(toy.toml), opener).tasks["split"]  # type: ignore[arg-type]
    material = task.data.training()
    assert material.excluded == task.view("prior").excluded_duplicates == 2  # type: ignore[attr-defined]
    assert len(task.view("prior").clean()) == 38
    assert material.mixture_rows.tolist() == [row for row in range(8) if row != 2]
    assert len(task.view("mixtures+one").mixtures()) == 7
    assert len(task.view("mixtures+one").observed()) == len(observed) - 1


def test_a_task_without_training_data_says_which_methods_it_takes(toy: ToyFolder) -> None:
    toy.edit("[tasks.split-val]", 'untrainable = "only a test set was released"\n\n[tasks.split-val]')
    task = load_suite(str(toy.toml), toy.opener).tasks["split"]
    for level in ("blind", "bound"):
        assert task.support(level).ok  # type: ignore[arg-type]
        task.view(level)  # type: ignore[arg-type]
    for level in ("mixtures+one", "sources", "prior"):
        assert task.support(level).note == "only a test set was released"  # type: ignore[arg-type]
        with pytest.raises(UnsupportedTaskError, match="toy-suite/split: only a test set was released"):
            task.view(level)  # type: ignore[arg-type]


def test_a_task_without_an_observed_class_supports_no_method_that_needs_one(toy: ToyFolder) -> None:
    toy.edit("observed_source = 1\n", "")
    task = load_suite(str(toy.toml), toy.opener).tasks["split"]
    assert not task.support("mixtures+one").ok
    assert task.support("sources").ok
    with pytest.raises(SupervisionError, match="no observed class"):
        task.view("mixtures+one").observed()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format = 1", "format = 2", "format 2 is not known"),
        ("format = 1", "", "'format' is missing"),
        ("version = 3", 'version = "3"', "'version' must be a whole number"),
        ("version = 3", "version = true", "'version' must be a whole number"),
        ('title = "Toy"', 'titel = "Toy"', "'title' is missing"),
        ('title = "Toy"', 'title = "Toy"\nranking = 1', "unknown key 'ranking'; did you mean 'ranking_metric'"),
        ('name = "toy-suite"', 'name = "toy--suite"', "joined by single hyphens"),
        ("tasks.split]", "tasks.Split]", "joined by single hyphens"),
        ('domain = "image"', 'domain = "smell"', "'domain' must be one of"),
        ('ranking_metric = "psnr"', 'ranking_metric = "fid"', "'ranking_metric' must be one of psnr, ssim"),
        ('metrics = ["psnr", "ssim"]\nranking_metric = "psnr"', 'metrics = ["sdr", "sir"]\nranking_metric = "sir"', "ranking_metric must not be 'sir'"),
        ('metrics = ["psnr", "ssim"]', 'metrics = ["psnr", 3]', "must be a list of text"),
        ('operator = "sum"', 'operator = "product"', "'operator' must be one of sum, mean"),
        ('assignment = "ordered"', 'assignment = "best"', "'assignment' must be one of"),
        ("scored_sources = [0]", "scored_sources = [2]", "there is no source 2"),
        ("observed_source = 1", "observed_source = 5", "there is no source 5"),
        ('validates = "split"', 'validates = "spilt"', "did you mean split"),
        ("held_out = 20\n", "", "needs held_out"),
        ("held_out = 20\n", "test_row = 3\nheld_out = 20\n", "unknown key 'test_row'"),
        ('sources = ["low", "high"]', 'sources = ["low", "hihg"]', "did you mean high"),
        ('sources = ["low", "high"]', 'sources = ["low", "high"]\ntest_rows = [3, 1]', "0 <= start < stop"),
        ('pairs = "split-val.csv"', 'pairs = "split-val.csv"\noperator = "sum"', "unknown key 'operator'"),
        ('pairs = "split.csv"', 'pairs = "nowhere.csv"', "cannot be read"),
        ('task = "split"\nmethod', 'task = "splitt"\nmethod', "did you mean split"),
        ('method = "Mean" }', 'method = "Median" }', "matches 0 rows"),
        ('method = "Mean" }', 'method = "Other" }', "matches 2 rows"),
        ('method = "Mean" }', 'method = "Odd" }', "numbers cannot be read"),
        ('method = "Mean" }', 'value = "12.5" }', "no key column"),
        ('method = "Mean" }', "method = 3 }", "must be text"),
        ('table = "Table 1",', "table = ", "not valid TOML"),
    ],
)
def test_a_malformed_suite_is_one_clear_line(toy: ToyFolder, old: str, new: str, says: str) -> None:
    toy.edit(old, new)
    with pytest.raises(SepbenchError) as caught:
        load_suite(str(toy.toml), toy.opener)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_linked_twice_is_refused(toy: ToyFolder) -> None:
    toy.toml.write_text(toy.toml.read_text() + toy.toml.read_text()[toy.toml.read_text().index("[[published]]") :])
    with pytest.raises(SuiteError, match="linked twice"):
        load_suite(str(toy.toml), toy.opener)


def test_an_unknown_suite_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean mnist-pairs"):
        load_suite("mnist-pair")


def test_a_missing_suite_file_is_named(toy: ToyFolder) -> None:
    with pytest.raises(SuiteError, match=r"absent\.toml cannot be read"):
        load_suite(str(toy.folder / "absent.toml"))


@pytest.mark.parametrize("name", ["split", "split-val", "train-mixtures", "train-observed"])
def test_a_changed_list_is_noticed_while_loading(toy: ToyFolder, name: str) -> None:
    path = toy.folder / f"{name}.csv"
    frozen = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes().replace(b"\n0,", b"\n0,1", 1))
    with pytest.raises(SuiteError) as caught:
        load_suite(str(toy.toml), toy.opener)
    assert frozen in str(caught.value)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in str(caught.value)


def test_a_list_that_changes_after_loading_is_noticed_when_it_is_read(toy: ToyFolder) -> None:
    task = load_suite(str(toy.toml), toy.opener).tasks["split"]
    path = toy.folder / "split.csv"
    path.write_bytes(path.read_bytes().replace(b"\n0,", b"\n0,1", 1))
    with pytest.raises(SuiteError, match="restore the file"):
        task.mixture_set()


def test_other_data_are_noticed_with_both_digests(toy: ToyFolder) -> None:
    def other(name: str, split: str) -> NumberedSignals:
        found = toy.opener(name, split)
        changed = NumberedSignals(name, split, found.labels, found.shape)
        changed.offset += 1 / 2**10
        return changed

    task = load_suite(str(toy.toml), other).tasks["split"]  # type: ignore[arg-type]
    with pytest.raises(SuiteError) as caught:
        task.verify()
    assert task.mixtures_sha256 in str(caught.value)
    assert task.mixture_set().digest() in str(caught.value)


def test_lists_that_reach_where_they_must_not_are_refused(toy: ToyFolder) -> None:
    test, train = toy.opener("toy", "test").labels.numpy(), toy.opener("toy", "train").labels.numpy()
    low, high = ToyFolder.pick(test, 0, 40, low=True), ToyFolder.pick(test, 0, 40, low=False)
    trained = np.array([[ToyFolder.pick(train, 0, 40, low=True)[0], ToyFolder.pick(train, 0, 40, low=False)[0]]])
    held_out = np.array([[ToyFolder.pick(train, 40, 60, low=False)[0]]])
    cases = [
        ("split", np.array([[low[0], high[0]], [high[1], low[1]]]), "test signal of class 'low'"),
        ("split", np.array([[low[0], 40]]), "there are only 40"),
        ("split-val", trained, "not a validation signal"),
        ("train-observed", held_out, "not a training signal"),
        ("split", np.array([[low[0]]]), "has 1 sources per mixture"),
    ]

    def use() -> None:
        toy.freeze()
        load_suite(str(toy.toml), toy.opener).tasks["split"].data.training()

    for name, rows, says in cases:
        original = (toy.folder / f"{name}.csv").read_bytes()
        toy.write(name, rows)
        with pytest.raises(SuiteError) as caught:
            use()
        assert says in str(caught.value)
        (toy.folder / f"{name}.csv").write_bytes(original)


def test_signals_of_another_shape_are_refused(toy: ToyFolder) -> None:
    toy.edit("shape = [1, 2, 2]", "shape = [1, 3, 3]")
    with pytest.raises(SuiteError, match=r"shape \(1, 2, 2\), the suite expects \(1, 3, 3\)"):
        load_suite(str(toy.toml), toy.opener).tasks["split"].mixture_set()


def test_a_task_that_was_never_frozen_says_how_to(toy: ToyFolder) -> None:
    toy.edit("[tasks.split-val]", "[tasks.split-val2]")
    with pytest.raises(SuiteError, match="freeze them with 'sepbench freeze"):
        load_suite(str(toy.toml), toy.opener)


def test_freezing_without_data_keeps_the_digest_of_an_unchanged_list_only(toy: ToyFolder) -> None:
    target = toy.folder / "tasks.toml"
    before = target.read_text()

    def missing(name: str, split: str) -> NumberedSignals:
        raise DataError("no data here")

    toy_opener, toy.opener = toy.opener, missing  # type: ignore[assignment]
    toy.freeze()
    assert target.read_text() == before
    path = toy.folder / "split.csv"
    path.write_bytes(b"example,source_0,source_1\n0,1,2\n")
    toy.freeze()
    digests = tomllib.loads(target.read_text())["toy-suite"]
    assert digests["split"]["mixtures_sha256"] == ""
    assert digests["split-val"]["mixtures_sha256"] != ""
    task = load_suite(str(toy.toml), toy_opener).tasks["split"]
    assert task.digest == ""
    assert task.n_examples == 1


EXACT = """\
format = 1
name = "toy-exact"
version = 1
title = "Toy"
description = "Made up"
domain = "vector"
metrics = ["energy_distance"]
ranking_metric = "energy_distance"
methods = ["exact-posterior"]
posterior_draws = 16

[data]
shape = [2]

[classes]
first = { dataset = "generated:gaussian-d2-0" }
second = { dataset = "generated:gaussian-d2-1" }
third = { dataset = "generated:gaussian-d8-0" }

[tasks.two]
pairs = "two.csv"
sources = ["first", "second"]
operator = "mean"
assignment = "ordered"

[tasks.eight]
pairs = "two.csv"
shape = [8]
sources = ["third", "third"]
operator = "sum"
assignment = "permutation"
"""


def exact_folder(folder: Path, text: str = EXACT) -> Path:
    path = folder / "toy-exact.toml"
    path.write_text(text)
    (folder / "two.csv").write_bytes(pairs_csv(np.array([[0, 1], [2, 3]])))
    write_digests([path], folder / "tasks.toml")
    return path


def test_a_third_partys_suite_of_known_sources(tmp_path: Path) -> None:
    suite = load_suite(str(exact_folder(tmp_path)))
    two, eight = suite.tasks["two"], suite.tasks["eight"]
    assert (two.spec.source_shape, eight.spec.source_shape) == ((2,), (8,))
    assert (two.spec.analytic_prior, two.spec.posterior_draws) == (True, 16)
    assert two.exact_posterior().operator_weights.tolist() == [0.5, 0.5]
    assert two.verify() == two.mixtures_sha256


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("posterior_draws = 16", "posterior_draws = 1", "toml: posterior_draws must be at least 2, or left out; found 1"),
        ("posterior_draws = 16", "posterior_draws = -2", "toml: posterior_draws must be at least 2, or left out; found -2"),
        ("generated:gaussian-d2-1", "digits", "posterior_draws needs sources whose distribution is known, data sets 'generated:...'"),
        ('"generated:gaussian-d2-1"', '"generated:gaussian-d2-1", labels = [0]', "posterior_draws needs sources whose distribution is known"),
        ("generated:gaussian-d2-1", "generated:gaussian-d5-1", "unknown generated data set 'generated:gaussian-d5-1'"),
        ("[data]\nshape = [2]", "[data]", "key 'shape' is missing"),
        ("shape = [8]", 'shape = "8"', "key 'shape' must be a list"),
    ],
)
def test_malformed_exact_suites_are_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = exact_folder(tmp_path)
    assert old in EXACT
    path.write_text(EXACT.replace(old, new, 1))
    with pytest.raises(SepbenchError) as caught:
        load_suite(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ranks_count_within_a_class(toy: ToyFolder, opener: Opener) -> None:
    toy.edit('operator = "sum"', 'operator = "sum"\nindex = "rank-in-class"')
    toy.write("split", np.array([[3, 0], [19, 7], [0, 3]]))
    for name in ("split-val", "train-mixtures", "train-observed"):
        rows = read_pairs(toy.folder / f"{name}.csv").indices.numpy()
        labels = opener("toy", "train").labels.numpy()
        ranks = [np.searchsorted(ToyFolder.pick(labels, 0, 60, low=rows.shape[1] == 2 and k == 0), rows[:, k]) for k in range(rows.shape[1])]
        toy.write(name, np.stack(ranks, axis=1))
    toy.freeze()
    task = load_suite(str(toy.toml), opener).tasks["split"]
    labels = opener("toy", "test").labels.numpy()
    low, high = ToyFolder.pick(labels, 0, 40, low=True), ToyFolder.pick(labels, 0, 40, low=False)
    assert task.mixture_set().pairs.indices.tolist() == [[low[3], high[0]], [low[19], high[7]], [low[0], high[3]]]
    assert len(np.unique(task.clusters().keys)) == 6  # the third of one class is not the third of the other
    assert len(task.data.training().mixture_rows) == 8
    toy.write("split", np.array([[20, 0]]))
    with pytest.raises(SuiteError, match="asks for number 20 of the 'low' signals of toy test, but there are only 20"):
        toy.freeze()
