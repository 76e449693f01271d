"""Supplied estimates become a row like any other: perfect for the truth, refused in one line where they do not fit, never whole where some are missing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from estimate_cases import SOUND
from safetensors.numpy import save_file

from sepbench.data.estimates.png import png_bytes
from sepbench.data.estimates.problems import EstimatesError
from sepbench.errors import SepbenchError
from sepbench.report.rows import task_tables
from sepbench.results.evaluation import evaluate_estimates
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.store import RunStore, StoreError
from sepbench.results.target import open_run
from sepbench.run import supplied
from sepbench.run.records import CellRecord, MethodRecord
from sepbench.run.request import RequestError
from sepbench.run.supplied import SuppliedCell, check_same, inspect_estimates
from sepbench.suites.export import export_task
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

N = 12  # of fewer clusters than 10 no row is ranked
TASK = "class-split"


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("digits-pairs")


@pytest.fixture(scope="module")
def truth(suite: Suite) -> np.ndarray:
    return suite.tasks[TASK].mixture_set().sources(list(range(N))).numpy()


@pytest.fixture
def noisy(truth: np.ndarray) -> np.ndarray:
    return truth + 0.1 * np.random.Generator(np.random.PCG64(0)).standard_normal(truth.shape).astype(np.float32)


def rows(store: RunStore, metric: str = "psnr") -> dict[str, dict[str, Any]]:
    frame = read_leaderboard(store.path / "leaderboard.csv")
    records = [{name: None if value != value else value for name, value in row.items()} for row in frame[frame["metric"] == metric].to_dict("records")]
    return {f"{row['task']}/{row['method']}".removeprefix(f"{TASK}/"): row for row in records}


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


# -- the row


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "png"])
def test_references_that_were_exported_score_perfectly(suite: Suite, tmp_path: Path, form: Any) -> None:
    export_task(suite, suite.tasks[TASK], tmp_path / "export", form=form, references=True, limit=N)
    path = tmp_path / "export" / ("references" if form == "png" else f"references.{form}")
    (row,) = rows(evaluate_estimates(suite, TASK, path, "mine", tmp_path / "run", limit=N)).values()
    # 100 dB is what psnr gives for no error; 16 bits are below 1e-10 in the mean square.
    assert row["mean"] == 100.0 if form != "png" else row["mean"] > 95.0
    assert (row["n_scored"], row["n_failed"], row["n_expected"]) == (N, 0, N)


def test_the_row_says_what_is_known_and_no_more(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", noisy)
    store = evaluate_estimates(suite, TASK, tmp_path / "mine.npy", "mine", tmp_path / "run", limit=N, command="sepbench evaluate")
    (row,) = rows(store).values()
    assert row["estimates_sha256"] == hashlib.sha256((tmp_path / "mine.npy").read_bytes()).hexdigest()
    assert (row["supervision"], row["device"], row["budget"], row["timing_group"], row["command"]) == ("unstated", "", "", "", "sepbench evaluate")
    assert all(row[name] is None for name in ("seconds_per_mixture", "fit_seconds", "peak_mb"))
    assert store.read_scores()["seconds"].isna().all()
    (table,) = task_tables(open_run(store.path, "run").frame, suite)
    assert [line.rank for line in table.lines] == ["1"]
    assert f"mine: estimates supplied, sha256 {row['estimates_sha256'][:12]}; what their method learns from is not stated" in table.footnotes


def test_kept_estimates_of_a_run_score_as_in_the_run(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    first = evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "first", limit=N)
    (kept,) = (tmp_path / "first" / "estimates").rglob("*.safetensors")
    second = evaluate_estimates(suite, TASK, kept, "mine", tmp_path / "second", limit=N)
    assert first.read_scores().equals(second.read_scores())


def test_by_default_the_folder_has_the_suites_name_and_a_hash(
    suite: Suite, noisy: np.ndarray, truth: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stores = [evaluate_estimates("digits-pairs", TASK, values, "mine", limit=N) for values in (noisy, truth, noisy)]
    assert re.fullmatch(r"runs/digits-pairs-[0-9a-f]{8}", stores[0].path.as_posix())
    assert stores[0].path == stores[2].path != stores[1].path


def test_what_was_learnt_from_may_be_stated_and_stays_said(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    said = []
    for supervision in ("", "prior", "", "bound"):
        store = evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N, supervision=supervision)
        said.append(rows(store)["mine"]["supervision"])
    assert said == ["unstated", "prior", "prior", "bound"]
    (table,) = task_tables(open_run(tmp_path / "run", "run").frame, suite)
    assert [line.rank for line in table.lines] == ["bound"]
    assert not any("not stated" in note for note in table.footnotes)


# -- growing


def test_another_name_another_task_and_more_mixtures_are_added(suite: Suite, noisy: np.ndarray, truth: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    np.save(tmp_path / "mine.npy", noisy)
    evaluate_estimates(suite, TASK, tmp_path / "mine.npy", "mine", folder, limit=3)
    mine = rows(RunStore.open(folder))["mine"]
    evaluate_estimates(suite, TASK, truth, "truth", folder, limit=3)
    agnostic = suite.tasks["class-agnostic"].mixture_set().sources([0, 1]).numpy()
    store = evaluate_estimates(suite, "class-agnostic", agnostic, "mine", folder, limit=2)
    assert list(rows(store)) == ["mine", "truth", "class-agnostic/mine"]
    assert rows(store)["mine"] == mine
    evaluate_estimates(suite, TASK, tmp_path / "mine.npy", "mine", folder, limit=N)
    grown = rows(evaluate_estimates(suite, TASK, tmp_path / "mine.npy", "mine", folder, limit=2))["mine"]  # fewer: what is there stays
    assert (grown["n_expected"], grown["n_scored"]) == (N, N)
    whole = evaluate_estimates(suite, TASK, tmp_path / "mine.npy", "mine", tmp_path / "whole", limit=N)
    assert rows(whole)["mine"]["mean"] == grown["mean"]


def test_the_same_again_changes_no_score(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N)
    stamps = {path: path.stat().st_mtime_ns for part in ("scores", "estimates") for path in (tmp_path / "run" / part).rglob("*")}
    evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_other_estimates_of_the_same_name_are_refused(suite: Suite, noisy: np.ndarray, truth: np.ndarray, tmp_path: Path) -> None:
    evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N)
    before = contents(tmp_path / "run")
    with pytest.raises(
        EstimatesError, match=r"the run holds other estimates of mine on class-split \(sha256 \w{12}\.\.\. there, \w{12}\.\.\. here\); choose another --name"
    ):
        evaluate_estimates(suite, TASK, truth, "mine", tmp_path / "run", limit=N)
    assert contents(tmp_path / "run") == before


def test_a_name_of_a_method_that_separated_is_refused(suite: Suite) -> None:
    cell = SuppliedCell(suite.tasks[TASK], "mine", N, None, SimpleNamespace(sha256="ab"))  # type: ignore[arg-type]
    with pytest.raises(EstimatesError, match="mine is a method of this run, which separated by itself"):
        check_same(cell, {"mine": MethodRecord(version="1", source="a:B")}, CellRecord())


def test_a_killed_evaluation_goes_on(suite: Suite, noisy: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplied, "_MAX_SHARD", 4)
    done: list[int] = []

    def stop(number: int, total: int) -> None:
        done.append(number)
        if number == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N, scored=stop)
    assert open_run(tmp_path / "run", "run").frame["n_scored"].max() == 8
    store = evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N, scored=stop)
    assert done == [4, 8, 12]
    straight = evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "straight", limit=N)
    assert store.read_scores().equals(straight.read_scores())
    assert rows(store)["mine"]["mean"] == rows(straight)["mine"]["mean"]


def test_estimates_need_not_be_kept(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    store = evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N, keep_estimates=False)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    again = evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N, keep_estimates=False)
    assert rows(store) == rows(again)


# -- partial sets


@pytest.mark.parametrize("shard", [1, 4, 1000])
def test_a_partial_set_is_marked_and_never_ranked(suite: Suite, noisy: np.ndarray, tmp_path: Path, shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplied, "_MAX_SHARD", shard)
    np.savez(tmp_path / "part.npz", estimates=noisy[[5, 0, 3]], example_ids=[5, 0, 3])
    with pytest.raises(EstimatesError, match=r"9 missing \(mixture 1, mixture 2, mixture 4 and 6 more\); add them, or score what is there with --partial"):
        evaluate_estimates(suite, TASK, tmp_path / "part.npz", "part", tmp_path / "run", limit=N)
    evaluate_estimates(suite, TASK, noisy, "whole", tmp_path / "run", limit=N)
    store = evaluate_estimates(suite, TASK, tmp_path / "part.npz", "part", tmp_path / "run", limit=N, partial=True)
    assert {name: (row["n_scored"], row["n_failed"], row["n_expected"]) for name, row in rows(store).items()} == {"whole": (12, 0, 12), "part": (3, 9, 12)}
    scores = store.read_scores()
    values = {
        name: scores[(scores["method"] == name) & (scores["metric"] == "psnr") & scores["example"].isin([0, 3, 5])]["value"] for name in ("whole", "part")
    }
    np.testing.assert_array_equal(values["part"], values["whole"])
    assert set(scores["error"]) == {"", "no estimate was supplied"}
    (table,) = task_tables(open_run(store.path, "run").frame, suite, cells=store.read_cells())
    assert [line.rank for line in table.lines if line.method in ("whole", "part")] == ["1", "part"]
    assert any("part: 3 of 12 mixtures scored, 9 failed (no estimate was supplied)" in note for note in table.footnotes)


def test_partial_forgives_nothing_else(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    noisy[1, 0, 0, 0, 0] = np.nan
    with pytest.raises(EstimatesError, match=r"^the array cannot be scored: 1 not finite \(mixture 1\); mend"):
        evaluate_estimates(suite, TASK, noisy[:3], "mine", tmp_path / "run", limit=N, partial=True)
    with pytest.raises(EstimatesError, match="has a complete estimate of none of the 12 mixtures"):
        evaluate_estimates(suite, TASK, noisy[:0], "mine", tmp_path / "run", limit=N, partial=True)


# -- publishing


def test_a_published_row_keeps_its_digest(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N)
    publication = publish_run(str(tmp_path / "run"), tmp_path / "boards")
    frame = read_leaderboard(publication.path)
    assert frame["estimates_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    (table,) = task_tables(frame, suite)
    assert any(note.startswith("mine: estimates supplied, sha256") for note in table.footnotes)


# -- what is refused: one line, exit code 2 (a SepbenchError), nothing written and nothing changed


def _good(folder: Path) -> None:
    for example in range(N):
        for slot in (1, 2):
            PIL.Image.fromarray(np.full((8, 8), 40 * slot, np.uint8)).save(folder / f"{example:06d}_{slot}.png")


def _png(folder: Path, name: str, values: np.ndarray) -> None:
    PIL.Image.fromarray(values).save(folder / name)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: [(f / f"00000{n}_2.png").unlink() for n in range(5)], r"5 missing \(000000_2.png, 000001_2.png, 000002_2.png and 2 more\)"),
    "extra mixture": (lambda f: _png(f, "001000_1.png", np.zeros((8, 8), np.uint8)), r"1 extra \(001000_1.png\)"),
    "extra source": (lambda f: _png(f, "000001_3.png", np.zeros((8, 8), np.uint8)), r"1 extra \(000001_3.png\)"),
    "misnamed": (lambda f: (f / "000001_1.png").rename(f / "one.png"), r"1 misnamed \(one.png\), 1 missing \(000001_1.png\)"),
    "another kind of file": (lambda f: (f / "notes.txt").touch(), r"1 misnamed \(notes.txt\)"),
    "twice": (lambda f: _png(f, "1_1.png", np.zeros((8, 8), np.uint8)), r"1 there twice \(1_1.png\)"),
    "shape": (lambda f: _png(f, "000002_1.png", np.zeros((9, 8), np.uint8)), r"1 of another shape \(000002_1.png: 1 x 9 x 8 instead of 1 x 8 x 8\)"),
    "colour": (
        lambda f: _png(f, "000002_1.png", np.zeros((8, 8, 3), np.uint8)),
        r"1 grey or colour where the task has the other \(000002_1.png: colour, the task has grey\)",
    ),
    "cut off": (lambda f: (f / "000003_2.png").write_bytes((f / "000003_2.png").read_bytes()[:-20]), r"1 unreadable \(000003_2.png: cut off\)"),
    "empty file": (lambda f: (f / "000003_2.png").write_bytes(b""), r"1 unreadable \(000003_2.png: no PNG file\)"),
    "a folder for a file": (
        lambda f: ((f / "000003_2.png").unlink(), (f / "000003_2.png").mkdir()),
        r"1 misnamed \(000003_2.png/\), 1 missing \(000003_2.png\)",
    ),
    "two kinds": (
        lambda f: ((f / "000005_1.png").unlink(), (f / "000000_1.png").write_bytes(png_bytes(np.zeros((1, 4, 4), np.uint16)))),
        r"1 of another shape \(000000_1.png: 1 x 4 x 4 instead of 1 x 8 x 8\), 1 missing \(000005_1.png\)",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD.keys())
def test_folders_that_do_not_fit(suite: Suite, noisy: np.ndarray, tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    folder = tmp_path / "estimates"
    folder.mkdir()
    _good(folder)
    evaluate_estimates(suite, TASK, noisy, "earlier", tmp_path / "run", limit=N)
    before = contents(tmp_path / "run")
    spoil(folder)
    with pytest.raises(EstimatesError, match=f"^{re.escape(folder.as_posix())} cannot be scored: {words}; ") as caught:
        evaluate_estimates(suite, TASK, folder, "mine", tmp_path / "run", limit=N)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "run") == before


def test_stems_that_are_called_otherwise_are_told_what_to_be_called(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "stems" / "000000").mkdir(parents=True)
    for name in ("S00.png", "S01.png"):  # as Slakh2100 numbers its stems
        _png(tmp_path / "stems" / "000000", name, np.zeros((8, 8), np.uint8))
    told = r"2 extra .*; name files MIXTURE_SOURCE\.png or MIXTURE/SOURCE\.png, where SOURCE is 0-4, 5-9, 1 or 2, as in 000012_1\.png; add them"
    with pytest.raises(EstimatesError, match=told):
        evaluate_estimates(suite, TASK, tmp_path / "stems", "mine", tmp_path / "run", limit=1)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("cut", [0, 1, 7, 40, 200, -1, -100])
def test_damaged_arrays(suite: Suite, noisy: np.ndarray, tmp_path: Path, suffix: str, cut: int) -> None:
    path = tmp_path / f"mine{suffix}"
    {".npy": np.save, ".npz": lambda path, values: np.savez(path, values=values), ".safetensors": lambda path, values: save_file({"values": values}, path)}[
        suffix
    ](path, noisy)
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    with pytest.raises(EstimatesError) as caught:
        evaluate_estimates(suite, TASK, path, "mine", tmp_path / "run", limit=N)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": "average"}, RequestError, "average is a registered method"),
        ({"name": "a--b"}, RequestError, "--name 'a--b' must be"),
        ({"name": "../mine"}, RequestError, "must be up to 64 letters"),
        ({"name": ""}, RequestError, "must be up to 64 letters"),
        ({"supervision": "oracle"}, RequestError, "--supervision must be one of blind, mixtures"),
        ({"limit": 0}, RequestError, "--limit must be at least 1"),
        ({"task": "class-splt"}, SepbenchError, "did you mean class-split"),
        ({"device": "gpu7"}, RequestError, "unknown device"),
        ({"estimates": "nowhere"}, EstimatesError, "there is no nowhere"),
        ({"estimates": __file__}, EstimatesError, r"is no \.npy, \.npz, \.safetensors or \.parquet file"),
        ({"limit": None}, EstimatesError, r"988 missing \(mixture 12, mixture 13, mixture 14 and 985 more\)"),
    ],
)
def test_requests_that_make_no_sense(suite: Suite, noisy: np.ndarray, tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str) -> None:
    asked = {"suite": suite, "task": TASK, "estimates": noisy, "name": "mine", "out": tmp_path / "run", "limit": N} | change
    with pytest.raises(error, match=words):
        evaluate_estimates(**asked)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run(suite: Suite, noisy: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="contains something other than a run"):
        evaluate_estimates(suite, TASK, noisy, "mine", tmp_path / "run", limit=N)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EstimatesError, match=r"is empty; it must hold one file per mixture and source, 000012_1\.png or 000012_1\.npy"):
        evaluate_estimates(suite, TASK, tmp_path / "empty", "mine", tmp_path / "other", limit=N)


def test_numbers_up_to_255_are_warned_of(suite: Suite, truth: np.ndarray, tmp_path: Path) -> None:
    said: list[str] = []
    evaluate_estimates(suite, TASK, truth * 255, "mine", tmp_path / "run", limit=N, warn=said.append)
    assert said == ["the array reaches 255, and images are in [0, 1]: if it holds numbers from 0 to 255, divide by 255 first"]


# -- sounds


def _sounds(folder: Path, peak: float) -> SimpleNamespace:
    """A task of one mixture whose estimates, and whose truth, stay at ``peak`` for a while."""
    soundfile = pytest.importorskip("soundfile")
    loud = np.clip(2 * np.sin(np.arange(400) / 9), -0.5, 1.0).astype(np.float32)
    folder.mkdir()
    for slot in (1, 2):
        soundfile.write(folder / f"000000_{slot}.wav", loud, 8000, subtype="PCM_16")
    true = torch.from_numpy(peak * loud).expand(1, 2, 1, 400)
    return SimpleNamespace(spec=SOUND, n_examples=1, mixture_set=lambda: SimpleNamespace(sources=lambda examples: true))


def test_clipped_sounds_are_refused_unless_the_truth_is_clipped_too(tmp_path: Path) -> None:
    task: Any = _sounds(tmp_path / "soft", 0.9)
    with pytest.raises(
        EstimatesError, match=r"2 clipped \(000000_1.wav, 000000_2.wav\); write them at a lower level .* or score them as they are with --allow-clipped"
    ):
        inspect_estimates(task, "mine", tmp_path / "soft")
    assert inspect_estimates(task, "mine", tmp_path / "soft", allow_clipped=True).inspection.examples.tolist() == [0]
    of_loud: Any = _sounds(tmp_path / "loud", 1.0)
    assert inspect_estimates(of_loud, "mine", tmp_path / "loud").inspection.examples.tolist() == [0]


# -- posterior draws


def test_draws_are_scored_where_the_suite_scores_draws(tmp_path: Path) -> None:
    task = load_suite("gaussian-exact").tasks["d2"]
    draws = np.random.Generator(np.random.PCG64(0)).standard_normal((2, task.spec.posterior_draws, 2, 2)).astype(np.float32)
    store = evaluate_estimates("gaussian-exact", "d2", draws, "mine", tmp_path / "run", limit=2)
    (row,) = rows(store, "posterior_mean_error").values()
    assert (row["n_scored"], row["samples"]) == (2, task.spec.posterior_draws)
    (tmp_path / "folder").mkdir()
    with pytest.raises(EstimatesError, match=r"scores 256 draws per mixture; give one array \(M, N, K, \.\.\.\)"):
        evaluate_estimates("gaussian-exact", "d2", tmp_path / "folder", "other", tmp_path / "run", limit=2)
