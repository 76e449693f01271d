"""``freeze`` and ``verify``: a suite written by hand, with lists by rule, is frozen once and compared ever after."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import pixels
from suite_toys import ToyFolder

from sepbench.errors import DataError, SepbenchError, SuiteError, UnknownNameError
from sepbench.registry import suite_path
from sepbench.suites.assembly import DerivedList
from sepbench.suites.freeze import freeze_suite, render, task_digests, write_digests
from sepbench.suites.loader import load_suite, load_unfrozen
from sepbench.suites.verify import SuiteCheck, verify_suite

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


def _made(root: Path) -> Path:
    made = root / "by-hand"
    for key, name in enumerate(("low", "high")):
        (made / name).mkdir(parents=True)
        for split, count in (("train", 5), ("test", 4)):
            np.save(made / name / f"{split}.npy", np.stack([pixels(100 * key + 10 * count + n, (8, 8)) for n in range(count)]))
    (made / "suite.toml").write_text(BY_HAND, encoding="utf-8")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The suite's folder, not frozen."""
    return _made(tmp_path)


@pytest.fixture(scope="module")
def frozen_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = _made(tmp_path_factory.mktemp("frozen"))
    freeze_suite(str(made))
    return made


@pytest.fixture
def frozen(frozen_once: Path, tmp_path: Path) -> Path:
    """A copy of the frozen folder."""
    return shutil.copytree(frozen_once, tmp_path / "by-hand")


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
    with pytest.raises(SuiteError) as caught:
        freeze_suite("digits-pairs")
    where = suite_path("digits-pairs")
    told = f"suite 'digits-pairs' ({where}) comes with a package, which freezes it; 'sepbench verify digits-pairs' compares it with its data"
    assert str(caught.value) == told
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
    (folder / "SHA256SUMS").write_text(f"{kept}  suite.toml\n{wanted}  gone.npy\n{wanted}  low/test.npy\n", encoding="utf-8")
    np.save(other, np.load(other)[::-1])
    found = hashlib.sha256(other.read_bytes()).hexdigest()
    checks = list(verify_suite(str(folder)))[:3]
    assert [(check.what, check.digest) for check in checks] == [("suite.toml", kept), ("gone.npy", ""), ("low/test.npy", found)]
    assert [check.problem for check in checks] == [
        "",
        f"{folder / 'gone.npy'} cannot be read: No such file or directory",
        f"{other} has sha256 {found}, frozen is {wanted}",
    ]


# --- what is written, and what cannot be ----------------------------------------------------------------------------------------------


def test_digests_are_written_in_one_form() -> None:
    assert render({"b": {"z": {"n": 3, "pairs_sha256": "x"}}, "a": {"t": {"n": 1, "mixtures_sha256": ""}, "s": {"n": 2}}}) == (
        "# Digests of every frozen task, written by sepbench.suites.freeze. Read by load_suite; never edited by hand.\n"
        "# pairs_sha256: the pair list's file. mixtures_sha256: float32 mixtures in order. train_*: the lists behind level mixtures+one.\n"
        '\n[a.t]\nn = 1\nmixtures_sha256 = ""  # the data were not on the machine that froze this list\n'
        "\n[a.s]\nn = 2\n"
        '\n[b.z]\nn = 3\npairs_sha256 = "x"\n'
    )


def test_every_list_that_a_rule_made_stands_with_rule_digest_and_file(folder: Path) -> None:
    other = '[other.task]\nn = 3\nmixtures_sha256 = "kept"\n'
    (folder / "tasks.toml").write_text(other, encoding="utf-8")
    freeze_suite(str(folder))
    digests = tomllib.loads((folder / "tasks.toml").read_text(encoding="utf-8"))
    assert digests["other"] == {"task": {"n": 3, "mixtures_sha256": "kept"}}  # of another suite beside it
    assert list(digests["by-hand"]) == ["split", "agnostic"]
    split, agnostic = digests["by-hand"]["split"], digests["by-hand"]["agnostic"]
    rules = {
        "pairs": "one-of-each, order by-hand.test, 9 after 0, 0 dB",
        "train_mixtures": "one-of-each, order by-hand.train, 4 after 0, 0 dB",
        "train_observed": "one-of-each, order by-hand.train, 3 after 4, 0 dB",
    }
    assert {key: split[f"{key}_rule"] for key in rules} == rules
    assert (split["n"], agnostic["n"]) == (9, 5)
    assert agnostic["pairs_rule"] == "any-different, order by-hand.same, 5 after 1, 0 dB"
    for task, keys in (("split", [*rules]), ("agnostic", ["pairs"])):
        for key in keys:
            file = folder / digests["by-hand"][task][f"{key}_file"]
            assert file == folder / "pairs" / (f"{task}.csv" if key == "pairs" else f"{task}.{key}.csv")
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digests["by-hand"][task][f"{key}_sha256"]
    assert set(agnostic) == {"n", "mixtures_sha256", "pairs_rule", "pairs_sha256", "pairs_file"}


@pytest.mark.parametrize(
    ("blocked", "told"),
    [
        ("pairs", "the list of rule one-of-each, order by-hand.test cannot be written to {}/pairs/split.csv: "),
        ("tasks.toml/x", "the digests cannot be written to {}/tasks.toml: "),
    ],
)
def test_a_folder_that_cannot_be_written_names_what_could_not(folder: Path, blocked: str, told: str) -> None:
    (folder / blocked).parent.mkdir(exist_ok=True)
    (folder / blocked).write_text("in the way")
    with pytest.raises(SepbenchError) as caught:
        freeze_suite(str(folder))
    assert str(caught.value).startswith(told.format(folder))
    assert str(caught.value).endswith("; choose a writable folder, or free some space")


def test_what_freezing_says_of_a_frozen_suite_in_full(frozen: Path) -> None:
    folder = frozen
    for name in (str(folder), str(folder / "suite.toml")):
        with pytest.raises(SuiteError) as caught:
            freeze_suite(name)
        where, again = folder / "tasks.toml", "to freeze it anew, raise its version and remove that file"
        assert str(caught.value) == f"suite 'by-hand' is frozen ({where}); 'sepbench verify {name}' compares, and {again}"
    np.save(folder / "low" / "test.npy", np.load(folder / "low" / "test.npy")[::-1])
    more = BY_HAND + '\n[tasks.more]\npairs = "rule:same"\nsources = ["high", "high"]\noperator = "sum"\nassignment = "permutation"\n'
    (folder / "suite.toml").write_text(more, encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        freeze_suite(str(folder))
    told = f"task 'split' of suite 'by-hand' is frozen with other digests ({where}); restore its lists and data, or, {again}"
    assert str(caught.value) == told


def test_digests_that_need_absent_data_are_kept_of_an_unchanged_rule_alone(frozen: Path) -> None:
    folder = frozen
    suite, target = folder / "suite.toml", folder / "tasks.toml"
    before = tomllib.loads(target.read_text(encoding="utf-8"))["by-hand"]
    target.write_text(target.read_text(encoding="utf-8") + "\n[other.task]\nn = 3\n", encoding="utf-8")
    (folder / "low" / "test.npy").unlink()
    (folder / "low" / "train.npy").unlink()
    suite.write_text(BY_HAND.replace("n = 5", "n = 4"), encoding="utf-8")
    write_digests([suite], target)
    whole = tomllib.loads(target.read_text(encoding="utf-8"))
    after = whole["by-hand"]
    assert (list(whole), whole["other"]) == (["by-hand", "other"], {"task": {"n": 3}})
    assert after["split"] == {key: value for key, value in before["split"].items() if not key.endswith("_file")}
    rule = "any-different, order by-hand.same, 4 after 1, 0 dB"
    assert after["agnostic"] == {"n": 4, "pairs_rule": rule, "pairs_sha256": "", "mixtures_sha256": ""}
    write_digests([suite], folder / "anew.toml")  # nothing was frozen before
    anew = tomllib.loads((folder / "anew.toml").read_text(encoding="utf-8"))["by-hand"]
    assert {key for key, value in anew["split"].items() if value == ""} == {key for key in anew["split"] if key.endswith("sha256")}


def test_a_digest_of_mixtures_is_not_kept_of_a_list_that_nobody_has_frozen(folder: Path) -> None:
    """Nobody knows whether the list that the rule would make is the one that those mixtures were of."""
    for name in ("low", "high"):
        shutil.rmtree(folder / name)
    task = load_unfrozen(folder / "suite.toml").tasks["agnostic"]
    rule = "any-different, order by-hand.same, 5 after 1, 0 dB"
    before = {"pairs_rule": rule, "pairs_sha256": "", "mixtures_sha256": "b" * 64}
    assert task_digests(task, before) == {"n": 5, "pairs_rule": rule, "pairs_sha256": "", "mixtures_sha256": ""}
    known = before | {"pairs_sha256": "a" * 64}
    assert task_digests(task, known) == known | {"n": 5}


def test_a_validation_task_has_the_training_lists_of_its_test_task_and_freezes_none(toy: ToyFolder) -> None:
    suite = load_suite(str(toy.toml), toy.opener)
    split, val = (task_digests(suite.tasks[name], {}) for name in ("split", "split-val"))
    assert set(val) == {"n", "pairs_sha256", "mixtures_sha256"}
    assert set(split) == {*val, "train_mixtures_sha256", "train_observed_sha256"}


def test_a_task_that_is_gone_leaves_its_suite_frozen(frozen: Path) -> None:
    (frozen / "suite.toml").write_text(BY_HAND[: BY_HAND.index("[tasks.agnostic]")], encoding="utf-8")
    with pytest.raises(SuiteError, match="suite 'by-hand' is frozen"):
        freeze_suite(str(frozen))


def test_lists_of_ones_own_are_frozen_with_their_data_or_not_at_all(folder: Path) -> None:
    (folder / "mine.csv").write_text("example,source_0,source_1\n0,1,2\n1,3,0\n")
    (folder / "suite.toml").write_text(BY_HAND[: BY_HAND.index("[rules]")] + BY_HAND[BY_HAND.index("[tasks.agnostic]") :].replace("rule:same", "mine.csv"))
    kept = (folder / "low" / "test.npy").read_bytes()
    (folder / "low" / "test.npy").unlink()
    with pytest.raises(DataError, match="'beside:low' has no test split"):
        freeze_suite(str(folder))
    assert not (folder / "tasks.toml").exists()
    (folder / "low" / "test.npy").write_bytes(kept)
    task = freeze_suite(str(folder)).tasks["agnostic"]
    assert task.pairs_sha256 == hashlib.sha256((folder / "mine.csv").read_bytes()).hexdigest()
    digests = tomllib.loads((folder / "tasks.toml").read_text(encoding="utf-8"))["by-hand"]["agnostic"]
    assert digests == {"n": 2, "pairs_sha256": task.pairs_sha256, "mixtures_sha256": task.mixtures_sha256}
    assert not (folder / "pairs").exists()


def test_gains_of_a_rule_are_frozen_too(folder: Path) -> None:
    for key, name in enumerate(("low", "high")):
        np.save(folder / name / "test.npy", (np.arange(1, 4)[:, None] * np.full((1, 16), 2000 * (key + 1))).astype(np.int16))
    loud = BY_HAND.replace('"image"', '"audio"', 1).replace("[3, 8, 8]", "[1, 16]").replace('["psnr"]', '["sdr"]').replace('"psnr"', '"sdr"')
    loud = loud[: loud.index("[tasks.agnostic]")].replace('"one-of-each", n = 9', '"independent-at-snr", n = 3, snr_db = 6')
    loud = loud.replace('"sum"', '"gain"').split("observed_source")[0]
    (folder / "suite.toml").write_text(loud, encoding="utf-8")
    task = freeze_suite(str(folder)).tasks["split"]
    pairs = task.data.pair_list()
    assert (folder / "pairs" / "split.csv").read_text().startswith("example,source_0,source_1,gain_0,gain_1\n0,")
    assert pairs.gains is not None
    levels = pairs.gains * torch.tensor([2000.0, 4000.0]) * (1 + pairs.indices)
    assert (20 * torch.log10(levels[:, 0] / levels[:, 1])).tolist() == pytest.approx([6.0] * 3, abs=1e-4)
    assert [check.problem for check in verify_suite(str(folder))] == [""]


# --- verify ---------------------------------------------------------------------------------------------------------------------------


def test_malformed_sums_are_told_with_their_line(frozen: Path) -> None:
    zeros, sums = "0" * 64, frozen / "SHA256SUMS"
    good = f"{hashlib.sha256((frozen / 'suite.toml').read_bytes()).hexdigest()}  suite.toml\n"
    for line in ("0123  a", f"{zeros} a", f"{zeros} *a", f"{'A' * 64}  a", f"{zeros}0  a", f"{zeros}  ", f" {zeros}  a", "", "\udcff"):
        sums.write_bytes(f"{good}{line}\n{good}".encode("utf-8", "surrogateescape"))
        found = verify_suite(str(frozen))
        assert next(found).problem == ""
        with pytest.raises(SuiteError) as caught:
            next(found)
        assert str(caught.value) == f"{sums}, line 2 is not 'sha256 file'; copy the suite's folder anew"


def test_every_check_says_what_it_found_and_one_that_fails_is_not_the_last(frozen: Path) -> None:
    folder, suite = frozen, load_suite(str(frozen))
    sums = {task: suite.tasks[task].mixtures_sha256 for task in ("split", "agnostic")}
    digests = folder / "tasks.toml"
    digests.write_text(digests.read_text(encoding="utf-8").replace(sums["split"], ""), encoding="utf-8")
    assert list(verify_suite(str(folder))) == [SuiteCheck("split", sums["split"], "", False), SuiteCheck("agnostic", sums["agnostic"], "", True)]
    (folder / "high" / "test.npy").unlink()
    (folder / "SHA256SUMS").mkdir()  # no file of digests
    split, agnostic = verify_suite(str(folder))
    assert (split.what, split.digest, split.frozen) == ("split", "", True)
    assert "'beside:high' has no test split" in split.problem
    assert agnostic == SuiteCheck("agnostic", sums["agnostic"], "", True)
