"""Where suites of one's own are found: by name, by path; what two of one name mean; and what suites need before they run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from own_files import image_folder

from sepbench.errors import NameClaimedError, SuiteError, UnknownNameError
from sepbench.registry import own_suite, suite_folders, suite_names
from sepbench.suites.loader import load_suite, recorded_suite
from sepbench.suites.own import OwnSuite, make_suite
from sepbench.suites.readiness import readiness

pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    folders = image_folder(root / "a", 5, sizes=[9]), image_folder(root / "b", 5, key=99, sizes=[9])
    return make_suite(OwnSuite("mine", folders), root).path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SEPBENCH_SUITES", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_suites_are_looked_up_in_the_folders_named_and_here(home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert suite_folders() == [home / "suites"]
    with pytest.raises(UnknownNameError, match="unknown suite 'mine'; "):
        load_suite("mine")
    shutil.copytree(made, home / "suites" / "mine")
    assert "mine" in suite_names()
    assert load_suite("mine").name == "mine"
    with pytest.raises(UnknownNameError, match="unknown suite 'mime'; did you mean mine"):
        load_suite("mime")
    (home / "suites").rename(home / "kept")
    assert "mine" not in suite_names()
    monkeypatch.setenv("SEPBENCH_SUITES", os.pathsep.join(["nowhere", "kept"]))
    assert suite_folders() == [home / "nowhere", home / "kept", home / "suites"]
    assert load_suite("mine").name == "mine"


def test_a_folder_named_twice_is_one(home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, home / "suites" / "mine")
    monkeypatch.setenv("SEPBENCH_SUITES", os.pathsep.join([str(home / "suites"), "suites/../suites"]))
    assert load_suite("mine").name == "mine"


def test_paths_of_a_folder_or_file_do(home: Path, made: Path) -> None:
    assert own_suite(str(made)) == made / "suite.toml"
    assert load_suite(f"{made}/").name == load_suite(str(made / "suite.toml")).name == "mine"
    with pytest.raises(SuiteError, match=r"nowhere is not the folder of a suite: it has no suite\.toml"):
        load_suite("./nowhere")
    assert own_suite("digits-pairs") is None


def test_two_suites_of_one_name(home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, home / "suites" / "mine")
    shutil.copytree(made, home / "more" / "mine")
    shutil.copytree(made, home / "suites" / "digits-pairs")
    monkeypatch.setenv("SEPBENCH_SUITES", "more")
    with pytest.raises(NameClaimedError, match=f"suite 'mine' is claimed by {home}/more/mine and {home}/suites/mine"):
        load_suite("mine")
    with pytest.raises(NameClaimedError, match=f"'digits-pairs' is claimed by sepbench .built in. and {home}/suites/digits-pairs"):
        load_suite("digits-pairs")
    assert load_suite("mnist-pairs").name == "mnist-pairs"


def test_a_folder_of_another_name_says_so(home: Path, made: Path) -> None:
    shutil.copytree(made, home / "suites" / "other")
    with pytest.raises(SuiteError, match="is the suite 'mine'; give its folder this name"):
        load_suite("other")


def test_unfinished_suites_are_not_seen(home: Path, made: Path) -> None:
    shutil.copytree(made, home / "suites" / ".mine.host-1-1.tmp")
    assert not {name for name in suite_names() if "mine" in name}


def test_a_run_finds_its_suite_after_it_moved(home: Path, made: Path) -> None:
    shutil.copytree(made, home / "suites" / "mine")
    assert recorded_suite("mine", str(home / "gone" / "suite.toml")).name == "mine"
    assert recorded_suite("mine", str(made / "suite.toml")).name == "mine"
    with pytest.raises(SuiteError, match=r"'theirs' was in .*gone/suite\.toml, which does not exist; .* theirs/ in SEPBENCH_SUITES"):
        recorded_suite("theirs", str(home / "gone" / "suite.toml"))


def test_what_suites_need(home: Path, made: Path, data_home: Path) -> None:
    found = readiness("digits-pairs", load_suite("digits-pairs"))
    assert (found.state, found.download, found.lacking) == ("ready", 0, ())
    found = readiness("mnist-pairs", load_suite("mnist-pairs"))
    assert (found.state, found.download, found.lacking) == ("download", 11_594_722, ("mnist",))  # the four files' sizes
    found = readiness("speech-noise", load_suite("speech-noise"))
    assert (found.state, found.lacking) == ("own copy", ("esc50", "lrw"))
    own = shutil.copytree(made, home / "suites" / "mine")
    found = readiness("mine", load_suite("mine"))
    assert (found.state, found.where) == ("ready", (own,))
    shutil.rmtree(own / "data" / "a")
    assert readiness("mine", load_suite("mine")).lacking == ("beside:data/a",)
