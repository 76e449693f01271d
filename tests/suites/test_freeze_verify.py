"""``freeze`` and ``verify``: a suite written by hand, with lists by rule, is frozen once and compared ever after."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import pixels

from sepbench.errors import DataError, SuiteError, UnknownNameError
from sepbench.suites.assembly import DerivedList
from sepbench.suites.freeze import freeze_suite
from sepbench.suites.loader import load_suite, load_unfrozen
from sepbench.suites.verify import verify_suite

BY_HAND = """\
format = 1
name = "by-hand"
version = 1
title = "Two kinds of stripes"
description = "Written by hand"
domain = "image"
metrics = ["psnr"]
ranking_metric = "psnr"
methods = ["average"]

[data]
shape = [3, 8, 8]
cluster = "image"

[classes]
low = { dataset = "beside:low" }
high = { dataset = "beside:high" }

[rules]
test = { builder = "one-of-each", n = 9 }
same = { builder = "any-different", n = 5, skip = 1 }
mixed = { builder = "one-of-each", order = "train", n = 4 }
observed = { builder = "one-of-each", order = "train", n = 3, skip = 4 }

[tasks.split]
pairs = "rule:test"
sources = ["low", "high"]
operator = "sum"
assignment = "permutation"
observed_source = 1
train_mixtures = "rule:mixed"
train_observed = "rule:observed"

[tasks.agnostic]
pairs = "rule:same"
sources = ["low", "low"]
operator = "mean"
assignment = "permutation"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "by-hand"
    for key, name in enumerate(("low", "high")):
        (made / name).mkdir(parents=True)
        for split, count in (("train", 5), ("test", 4)):
            np.save(made / name / f"{split}.npy", np.stack([pixels(100 * key + 10 * count + n, (8, 8)) for n in range(count)]))
    (made / "suite.toml").write_text(BY_HAND, encoding="utf-8")
    return made


def test_a_suite_that_is_not_frozen_says_how_to(folder: Path) -> None:
    with pytest.raises(SuiteError, match=rf"{folder}/suite\.toml is not frozen: .*; freeze it with 'sepbench freeze {folder}/suite\.toml'"):
        load_suite(str(folder))


def test_freezing_writes_lists_and_digests_that_hold(folder: Path) -> None:
    suite = freeze_suite(str(folder))
    assert sorted(path.name for path in (folder / "pairs").iterdir()) == ["agnostic.csv", "split.csv", "split.train_mixtures.csv", "split.train_observed.csv"]
    assert all(task.mixtures_sha256 and task.frozen for task in suite.tasks.values())
    assert [check.problem for check in verify_suite(str(folder))] == ["", ""]
    split, agnostic = (suite.tasks[name].data.pair_list().indices for name in ("split", "agnostic"))
    assert len({tuple(row) for row in split.tolist()}) == 9
    assert len({frozenset(row) for row in agnostic.tolist()}) == 5  # of six pairs, less the one that is skipped
    some = suite.tasks["split"].view("mixtures+one")
    assert (tuple(some.mixtures().shape), tuple(some.observed().shape)) == ((4, 3, 8, 8), (3, 3, 8, 8))


def test_the_lists_are_read_from_their_files_afterwards(folder: Path) -> None:
    before = freeze_suite(str(folder)).tasks["split"].mixture_set().mixtures(range(9)).values
    path = folder / "pairs" / "split.csv"
    path.write_bytes(path.read_bytes().replace(b"\n0,", b"\n0,0", 1))
    with pytest.raises(SuiteError, match="frozen is"):
        load_suite(str(folder)).tasks["split"].mixture_set()
    path.unlink()
    with pytest.raises(SuiteError, match=r"split\.csv cannot be read"):
        load_suite(str(folder)).tasks["split"].mixture_set()
    (folder / "tasks.toml").unlink()
    assert torch.equal(freeze_suite(str(folder)).tasks["split"].mixture_set().mixtures(range(9)).values, before)


def test_a_changed_rule_is_found(folder: Path) -> None:
    freeze_suite(str(folder))
    (folder / "suite.toml").write_text(BY_HAND.replace("n = 9", "n = 8"), encoding="utf-8")
    assert "the list made by the rule" in next(check.problem for check in verify_suite(str(folder)))


def test_what_is_frozen_is_not_frozen_again_but_new_tasks_are(folder: Path) -> None:
    freeze_suite(str(folder))
    with pytest.raises(SuiteError, match=r"is frozen .*; 'sepbench verify .*' compares, and to freeze it anew, raise its version and remove that file"):
        freeze_suite(str(folder))
    more = BY_HAND + '\n[tasks.more]\npairs = "rule:same"\nsources = ["high", "high"]\noperator = "sum"\nassignment = "permutation"\n'
    (folder / "suite.toml").write_text(more, encoding="utf-8")
    with pytest.raises(SuiteError, match=r"no digests of task 'more'; freeze them with 'sepbench freeze"):
        load_suite(str(folder))
    assert list(freeze_suite(str(folder)).tasks) == ["split", "agnostic", "more"]
    again = more.replace("[tasks.more]", "[tasks.again]").replace("n = 5", "n = 4")
    (folder / "suite.toml").write_text(again, encoding="utf-8")
    with pytest.raises(SuiteError, match="task 'agnostic' of suite 'by-hand' is frozen with other digests"):
        freeze_suite(str(folder))


def test_data_that_are_missing_or_too_few_freeze_nothing(folder: Path) -> None:
    (folder / "suite.toml").write_text(BY_HAND.replace("n = 9", "n = 17"), encoding="utf-8")
    with pytest.raises(DataError, match="make 16 different mixtures, the suite needs 17"):
        freeze_suite(str(folder))
    (folder / "high" / "test.npy").unlink()
    with pytest.raises(DataError, match="'beside:high' has no test split"):
        freeze_suite(str(folder))
    assert not (folder / "tasks.toml").exists()


def test_suites_of_packages_are_verified_and_not_frozen() -> None:
    with pytest.raises(SuiteError, match=r"'digits-pairs' .* comes with a package, .* 'sepbench verify digits-pairs'"):
        freeze_suite("digits-pairs")
    assert all(check.frozen and not check.problem for check in verify_suite("gaussian-exact"))
    for use in (freeze_suite, lambda name: list(verify_suite(name))):
        with pytest.raises(UnknownNameError, match="did you mean digits-pairs"):
            use("digit-pairs")


def test_a_suite_that_is_not_frozen_yet_gives_the_training_signals_of_the_frozen_one(folder: Path) -> None:
    """Above all those of the observed source: the column of its list."""
    before, after = load_unfrozen(folder / "suite.toml").tasks["split"], freeze_suite(str(folder)).tasks["split"]
    for what in ("observed", "mixtures"):
        one, other = (getattr(task.view("mixtures+one"), what)() for task in (before, after))
        assert len(one)
        assert torch.equal(one, other)
    assert isinstance(before.data.train_observed, DerivedList)
    assert before.data.train_observed.column == before.spec.observed_source == 1


def test_files_that_changed_are_told_with_the_digest_that_they_have(folder: Path) -> None:
    freeze_suite(str(folder))
    same, other = folder / "suite.toml", folder / "low" / "test.npy"
    wanted = hashlib.sha256(other.read_bytes()).hexdigest()
    kept = hashlib.sha256(same.read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{kept}  suite.toml\n{wanted}  low/test.npy\n{wanted}  gone.npy\n", encoding="utf-8")
    np.save(other, np.load(other)[::-1])
    found = hashlib.sha256(other.read_bytes()).hexdigest()
    checks = list(verify_suite(str(folder)))[:3]
    assert [(check.what, check.digest) for check in checks] == [("suite.toml", kept), ("low/test.npy", found), ("gone.npy", "")]
    assert [check.problem for check in checks] == [
        "",
        f"{other} has sha256 {found}, frozen is {wanted}",
        f"{folder / 'gone.npy'} cannot be read: No such file or directory",
    ]
