"""Suites whose lists are made by rules: the built-in four on made-up data in the official layouts, from loading to ``sepbench run``."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import audio_layouts as layouts
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from sepbench.cli.main import app
from sepbench.data.lists.rules import SILENT_RMS
from sepbench.errors import DataError, SepbenchError, SuiteError
from sepbench.resources import resource_root, suites_root
from sepbench.suites.assembly import DerivedList
from sepbench.suites.freeze import write_digests
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

# Lists as long as the made-up data allow: suite -> rule -> (n, skip).
SMALL = {
    "slakh-drums-bass": {"test": (3, 0), "validation": (2, 0), "training": (4, 0)},
    "musdb-vocals": {"test": (3, 0), "validation": (2, 0), "training": (4, 0), "training-mixtures": (2, 0), "training-observed": (2, 2)},
    "musdb-drums": {"test": (3, 0), "validation": (2, 0), "training": (4, 0), "training-mixtures": (2, 0), "training-observed": (2, 2)},
    "speech-noise": {"test": (8, 0), "validation": (5, 0), "training": (8, 0), "training-mixtures": (4, 0), "training-observed": (4, 4)},
}
TASK = {"slakh-drums-bass": "by-role", "musdb-vocals": "vocals", "musdb-drums": "drums", "speech-noise": "speech"}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_frozen_file_states_the_rules_as_they_are(name: str) -> None:
    """A rule that is changed without ``scripts/build_pairs.py`` would keep the digest of the list that it made before."""
    frozen = tomllib.loads((resource_root("data_manifests") / "tasks.toml").read_text(encoding="utf-8"))[name]
    stated = 0
    for key, task in load_suite(name).tasks.items():
        lists = {"pairs": task.data.pairs, "train_mixtures": task.data.train_mixtures, "train_observed": task.data.train_observed}
        for kind, listing in (lists | {"train_sources": task.data.train_sources}).items():
            if isinstance(listing, DerivedList) and (kind == "pairs" or task.split == "test"):
                assert frozen[key][f"{kind}_rule"] == listing.rule.text
                stated += 1
    assert stated >= 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    layouts.make_slakh(root)
    layouts.make_musdb(root, chunks=2)
    layouts.make_lrw(root)
    layouts.make_esc50(root)
    return root


@pytest.fixture
def data(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SEPBENCH_DATA", str(home))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    return home


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEPBENCH_DATA", raising=False)
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "none"))


def small(folder: Path, name: str) -> Path:
    """The built-in suite with short lists, not frozen, in a folder of its own."""
    text = (suites_root() / f"{name}.toml").read_text()
    for rule, (count, skip) in SMALL[name].items():
        text, changed = re.subn(rf"(?m)^({rule} = .*?n = )\d+", rf"\g<1>{count}", text)
        assert changed == 1
        if skip:
            text, changed = re.subn(rf"(?m)^({rule} = .*?skip = )\d+", rf"\g<1>{skip}", text)
            assert changed == 1
    path = folder / f"{name}.toml"
    path.write_text(text)
    digests = {
        key: {"n": 1, "mixtures_sha256": ""} | {f"{kind}_sha256": "" for kind in ("pairs", "train_mixtures", "train_observed", "train_sources")}
        for key in tomllib.loads(text)["tasks"]
    }
    lines = [f"[{name}.{key}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) for key, values in digests.items()]
    (folder / "tasks.toml").write_text("\n".join(lines))
    return path


@pytest.fixture
def suite(tmp_path: Path, data: Path) -> Callable[[str], Suite]:
    return lambda name: load_suite(str(small(tmp_path, name)))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_lists_are_made_from_the_data_and_said_not_to_be_frozen(suite: Callable[[str], Suite], name: str) -> None:
    loaded = suite(name)
    for key, task in loaded.tasks.items():
        rule = "validation" if task.split == "validation" else "test"
        mixtures = task.mixture_set()
        assert task.n_examples == len(mixtures) == SMALL[name][rule][0], key
        assert not task.frozen
        assert task.digest == f"not-frozen-{mixtures.pairs_sha256}"
        assert mixtures.source_shape == task.spec.source_shape
        sources = mixtures.sources(range(len(mixtures)))
        assert float(sources.square().mean((2, 3)).sqrt().min()) >= SILENT_RMS
        assert task.verify() == mixtures.digest()


def test_slakh_mixes_half_of_both_stems_of_one_place(suite: Callable[[str], Suite]) -> None:
    task = suite("slakh-drums-bass").tasks["best-assignment"]
    mixtures = task.mixture_set()
    assert torch.equal(mixtures.pairs.indices[:, 0], mixtures.pairs.indices[:, 1])
    assert not {1, 4} & set(mixtures.pairs.indices.flatten().tolist())  # the second chunk of each track has silent drums
    torch.testing.assert_close(mixtures.mixtures([1]).values[0], mixtures.sources([1])[0].mean(0))
    assert (task.spec.sample_rate, task.spec.source_classes) == (22_050, ("drums", "bass"))


def test_both_slakh_tasks_have_the_same_list(suite: Callable[[str], Suite]) -> None:
    tasks = suite("slakh-drums-bass").tasks
    assert tasks["best-assignment"].pairs_sha256 == tasks["by-role"].pairs_sha256 != tasks["by-role-val"].pairs_sha256
    assert [tasks[key].spec.assignment for key in ("best-assignment", "by-role")] == ["permutation", "ordered"]


def test_speech_and_noise_have_the_same_energy_in_the_mixture(suite: Callable[[str], Suite]) -> None:
    mixtures = suite("speech-noise").tasks["speech"].mixture_set()
    ids = range(len(mixtures))
    weights = mixtures.operator_for(ids).matrix()[:, 0]
    energy = (weights[..., None] * mixtures.sources(ids).flatten(2).double()).square().mean(2)
    torch.testing.assert_close(10 * torch.log10(energy[:, 0] / energy[:, 1]), torch.zeros(len(mixtures), dtype=torch.float64), rtol=0, atol=1e-4)
    assert (weights[:, 0] == 1).all()


def _places(values: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in values.flatten(1).numpy()}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_training_views_hold_the_named_chunks_and_no_other(suite: Callable[[str], Suite], name: str) -> None:
    loaded = suite(name)
    task = loaded.tasks[TASK[name]]
    sources = [_places(task.view("sources").sources(slot)) for slot in (0, 1)]
    assert [len(found) for found in sources] == [SMALL[name]["training"][0]] * 2
    assert _places(task.view("prior").clean()) == sources[0] | sources[1]
    scored = [other.mixture_set().sources(range(other.n_examples)).flatten(0, 1) for other in loaded.tasks.values()]
    assert not (sources[0] | sources[1]) & set().union(*map(_places, scored))
    assert task.view("sources").excluded_duplicates == 0  # type: ignore[attr-defined]
    if task.spec.observed_source is None:
        assert not task.support("mixtures+one").ok
        return
    view, material = task.view("mixtures+one"), task.data.training()
    observed = _places(view.observed())
    assert observed <= sources[1]
    assert len(observed) == SMALL[name]["training-observed"][0]
    assert len(view.mixtures()) == SMALL[name]["training-mixtures"][0]
    assert material.mixtures is not None
    assert not observed & _places(material.mixtures.sources(material.mixture_rows)[:, 1])


def test_a_training_song_that_is_also_a_test_song_is_left_out(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "copied"
    folder = layouts.make_musdb(root, chunks=2, songs={"train": ("A", "B", "Leaf - Summerghost"), "test": ("C", "D")})
    for stem in ("vocals", "drums", "bass", "other"):
        (folder / "train/A" / f"{stem}.wav").write_bytes((folder / "test/C" / f"{stem}.wav").read_bytes())
    monkeypatch.setenv("SEPBENCH_DATA", str(root))
    task = load_suite(str(small(tmp_path, "musdb-vocals"))).tasks["vocals"]
    view = task.view("sources")
    assert len(view.sources(0)) == 2
    assert view.excluded_duplicates == 4  # type: ignore[attr-defined]


# --- freezing -------------------------------------------------------------------------------------------------------------------------


def test_freezing_with_the_data_and_what_it_notices_afterwards(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = small(tmp_path, "musdb-vocals"), tmp_path / "tasks.toml"
    unfrozen = load_suite(str(path)).tasks["vocals"]
    write_digests([path], target)
    frozen = load_suite(str(path)).tasks["vocals"]
    assert frozen.frozen
    assert frozen.pairs_sha256 == unfrozen.pairs_sha256
    assert re.fullmatch("[0-9a-f]{64}", frozen.digest)
    assert frozen.verify() == frozen.mixtures_sha256
    assert len(frozen.view("mixtures+one").observed()) == 2
    entry = tomllib.loads(target.read_text())["musdb-vocals"]["vocals"]
    assert entry["pairs_rule"] == "aligned-chunks, order musdb-vocals.test, 3 after 0, 0 dB, a window of 20480 samples"
    assert {key for key in entry if key.endswith("_sha256")} == {
        *("pairs_sha256", "mixtures_sha256", "train_mixtures_sha256", "train_observed_sha256", "train_sources_sha256")
    }
    before = target.read_text()
    with monkeypatch.context() as without:
        without.setenv("SEPBENCH_DATA", str(tmp_path))
        write_digests([path], target)  # on a machine without the data: all that was frozen is kept
        assert target.read_text() == before
        path.write_text(path.read_text().replace('test = { builder = "aligned-chunks", n = 3,', 'test = { builder = "aligned-chunks", n = 2,'))
        write_digests([path], target)  # but not for another rule
        entry = tomllib.loads(target.read_text())["musdb-vocals"]["vocals"]
        assert (entry["n"], entry["pairs_sha256"], entry["mixtures_sha256"]) == (2, "", "")
        assert entry["train_mixtures_sha256"] != ""


def test_other_data_than_the_frozen_ones_are_refused(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(tmp_path, "speech-noise")
    write_digests([path], tmp_path / "tasks.toml")
    root = tmp_path / "other"
    layouts.make_lrw(root, files=5)
    layouts.make_esc50(root)
    monkeypatch.setenv("SEPBENCH_DATA", str(root))
    task = load_suite(str(path)).tasks["speech"]
    with pytest.raises(SuiteError, match=r"order speech-noise\.test, 8 after 0, 0 dB\) has sha256 .* frozen is .*not those of this suite version"):
        task.mixture_set()


# --- without the data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SMALL))
def test_loading_needs_no_data_and_running_says_how_to_get_them(nothing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    task = load_suite(name).tasks[TASK[name]]
    assert task.n_examples == (1000 if name == "speech-noise" else 450)
    assert not task.frozen
    assert task.support("sources").ok
    done = CliRunner().invoke(app, ["run", "--suite", name, "--methods", "average", "--device", "cpu", "--out", "here"])
    assert isinstance(done.exception, DataError)
    assert "is not complete" in str(done.exception)
    assert "http" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not Path("here").exists()


def test_the_list_of_suites_marks_what_is_not_frozen(nothing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["list", "suites"]).stdout
    cells = [(line.split("│")[1].strip(), line.split("│")[3].strip(), line) for line in shown.splitlines() if line.count("│") > 4]
    rows = {(suite.split(" ")[0], task): line for suite, task, line in cells}
    assert " 450 * " in rows["musdb-drums", "drums"]
    assert "*" not in rows["stems-drums", "drums"]
    assert "*" not in rows["cifar10-color", "colorization"]
    assert "\n*: the list of mixtures is not frozen" in shown


# --- from a name to a leaderboard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_run_records_the_digest_of_the_list_it_made(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    path = small(tmp_path, name)
    command = ["run", "--suite", str(path), "--tasks", TASK[name], "--methods", "average", "--device", "cpu", "--out", "here"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "list of mixtures not frozen" in done.stdout
    task = load_suite(str(path)).tasks[TASK[name]]
    record = json.loads(Path("here/run.json").read_text())["tasks"][TASK[name]]
    assert (record["pairs_sha256"], record["mixtures_sha256"]) == (task.pairs_sha256, "")
    board = pd.read_csv("here/leaderboard.csv")
    assert set(board["task_digest"]) == {f"not-frozen-{task.pairs_sha256}"}
    scores = board.set_index(["method", "metric"])["mean"]
    assert (board["n_scored"] == task.n_examples).all()
    assert np.isfinite(scores[("average", "sdr")])
    assert scores[("average", "mixture_error")] == pytest.approx(0, abs=1e-7)


# --- malformed rules ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('builder = "aligned-chunks", n = 3', 'builder = "aligned", n = 3', "'builder' must be one of aligned-chunks"),
        ("n = 3", "n = 0", "n must be at least 1"),
        ("n = 3", "n = 3, snr_db = 3", "snr_db goes with independent-at-snr"),
        ("n = 3", "n = 3, colour = 3", "unknown key 'colour'"),
        ('pairs = "rule:test"', 'pairs = "rule:tset"', "did you mean test"),
        ('pairs = "rule:test"', 'pairs = "rule:test"\nindex = "rank-in-class"', "leave out 'index'"),
        ('operator = "sum"', 'operator = "gain"', "does not go with operator 'gain'"),
        ('validation = "validation"', 'validation = "validation"\nheld_out = 3', "give either held_out or validation"),
        ('validation = "validation"', "", "needs held_out or validation"),
    ],
)
def test_a_malformed_rule_is_one_clear_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = small(tmp_path, "musdb-vocals")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SepbenchError) as caught:
        load_suite(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
