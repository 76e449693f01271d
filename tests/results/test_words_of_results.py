"""What is said of results that cannot be compared, published or summed up, each line in whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.footnotes import Footnote, note_texts
from sepbench.report.html.board import open_board
from sepbench.report.panels.choice import spread
from sepbench.report.panels.sheet import pictures
from sepbench.results import feature_files, pooled, target
from sepbench.results.columns import OLD_INTERVAL
from sepbench.results.compare import Side, compare_sides
from sepbench.results.gate import _obstacle
from sepbench.results.leaderboard_file import write_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.repeats import _half_width
from sepbench.results.score_files import StoreError
from sepbench.results.statistics import Designs, holm, paired_difference, summarise
from sepbench.results.store import RunStore
from sepbench.results.target import Results, open_results, open_run
from sepbench.results.values import Values

FREE = Designs(None)


def told(kind: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# ---- statistics ------------------------------------------------------------------------------------------------------------------------


def test_values_that_are_none() -> None:
    one, two, ids = np.ones(3), np.ones((3, 2)), np.arange(3)
    assert told(ValueError, lambda: summarise(two, ids, FREE)) == "values must be (n,), got shape (3, 2)"
    for bad in (math.nan, math.inf):
        line = "values must be finite; leave failed examples out first"
        assert told(ValueError, lambda bad=bad: summarise(np.array([1.0, bad, 2.0]), ids, FREE)) == line
    assert told(ValueError, lambda: summarise(one, ids[:2], FREE)) == "values and examples must have one shape, got (3,) and (2,)"
    line = "a, b and examples must be (n,) alike, got (3,), (2,) and (3,)"
    assert told(ValueError, lambda: paired_difference(one, one[:2], ids, FREE)) == line
    assert told(ValueError, lambda: paired_difference(one, one, ids[:2], FREE)).endswith("got (3,), (3,) and (2,)")
    for p in (-0.01, 1.01, math.nan):
        assert told(ValueError, lambda p=p: holm(np.array([0.5, p]))) == "p-values must be in [0, 1]"
    assert holm(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
    assert math.isnan(_half_width(math.inf, 7, 1.0, 2))  # too few mixtures to say anything


# ---- results that are opened, compared and published -----------------------------------------------------------------------------------


def test_sides_without_a_common_score() -> None:
    def side(label: str) -> Side:
        run = SyntheticRun({"nmf": 16.0}, n=3, metrics=("psnr",))
        return Side(Results(label, run.frame(), run.suite, Values(lambda task, method: {})))

    assert told(SepbenchError, lambda: compare_sides(side("mine"), side("theirs"))) == "mine and theirs have no scores in common"


def test_other_seeds_without_scores() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=12, metrics=("psnr",))
    (old,) = run.frame().to_dict("records")
    new: dict[Any, Any] = old | {"seed": 3}
    assert _obstacle(new, old, False, False) == "seed 0 in OLD, 3 in NEW, and no per-example scores to tell chance from change"
    assert _obstacle(new, old, True, False) == ""


def test_a_run_without_rows_has_nothing_to_publish(tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0}, n=3, metrics=("psnr",))
    run.cells["class-split", "nmf"] |= {"state": "unsupported", "note": "no"}
    run.scores = run.scores.iloc[:0]
    name = run.save(tmp_path / "run")
    assert told(SepbenchError, lambda: publish_run(name, tmp_path / "boards")) == f"nothing of {name} can be published: it has no rows"


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    line = told(StoreError, lambda: RunStore(tmp_path / "a\udcffb"))
    assert line.startswith(f"the name of folder {tmp_path}/a")
    assert line.endswith(" is not UTF-8, in which Parquet and safetensors write names; rename it")


def test_what_is_no_run_and_where_runs_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    line = "x is not the folder of a run (it has no run.json); name one that 'sepbench run' wrote, below runs/ by default"
    assert told(SepbenchError, lambda: open_results("x")) == line
    monkeypatch.setattr(target, "committed_path", lambda suite: tmp_path / "nothing.csv")
    line = "there is no run of it in ./runs either: name the folder of one, or make one with `sepbench run --suite digits-pairs`"
    assert told(SepbenchError, lambda: open_results("digits-pairs", suites=True)) == f"no leaderboard is committed for suite digits-pairs; {line}"


def test_repetitions_count_in_what_is_opened_unless_only_values_are_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for seed, folder in ((0, tmp_path / "run"), (1, tmp_path / "run" / "seeds" / "1")):
        made = SyntheticRun({"nmf": 16.0}, n=4, metrics=("psnr",)).shift("nmf", "psnr", 2.0 * seed)
        made.record["seed"] = seed
        made.save(folder)
    (row,) = open_run(tmp_path / "run", "r").frame.to_dict("records")
    assert (row["seeds"], row["n_scored"]) == (2, 4)
    monkeypatch.setattr(target, "with_repetitions", None)
    monkeypatch.setattr(target, "build_leaderboard", None)
    (bare,) = open_run(tmp_path / "run", "r", statistics=False).frame.to_dict("records")
    assert (bare["method"], bare["n_scored"], math.isnan(bare["mean"])) == ("nmf", 0, True)


def test_old_intervals_have_their_name() -> None:
    """It stands in files of the first versions, and in what is read of files without the column."""
    assert OLD_INTERVAL == "bootstrap of mixtures"
    assert note_texts({"t": [Footnote("interval", f"intervals: {OLD_INTERVAL}")]}) == ("intervals: bootstrap of mixtures, as if no two shared a signal",)
    assert note_texts({"t": [Footnote("interval", "intervals: cluster t")]}) == ("intervals: cluster t",)


def test_numbers_of_samples_stand_in_one_line() -> None:
    notes = {"t": [Footnote("samples", "100", ("a",)), Footnote("samples", "16", ("b", "c"))]}
    assert note_texts(notes) == ("samples per mixture: b, c 16; a 100",)
    assert note_texts({"t": notes["t"][:1]}) == ("a: 100 samples per mixture",)


# ---- what breaks while it is read ------------------------------------------------------------------------------------------------------


def test_a_run_that_vanishes_while_it_is_looked_at_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Vanishing:
        def __init__(self, path: Path) -> None:
            self.path = path

        def read_run(self) -> Any:
            if self.path.name == "gone":
                (self.path / "run.json").unlink()
            return SimpleNamespace(suite=SimpleNamespace(name="s"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target, "RunStore", Vanishing)
    for name in ("gone", "there"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    assert target._runs_of("s") == "name the folder of a run: `sepbench show runs/there`"


@pytest.mark.parametrize("error", [ValueError("shapes"), KeyError("mse")], ids=repr)
def test_scores_that_cannot_be_pooled(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def pool(parts: Any, examples: Any) -> Any:
        raise error

    monkeypatch.setattr(pooled, "pooled_metric", lambda name: SimpleNamespace(pool=pool))
    parts = pooled.Parts("psnr_pooled32", np.arange(2), {"mse": np.zeros((1, 2))})
    line = f"psnr_pooled32 cannot be pooled from its scores: {error}; run `sepbench score` again"
    assert told(SepbenchError, lambda: parts.pooled(np.ones(2, bool))) == line


@pytest.mark.parametrize("error", [OSError("cut off"), SafetensorError("no header")], ids=repr)
def test_features_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    def opened(path: Path, kind: str) -> Any:
        raise error

    monkeypatch.setattr(feature_files, "safe_open", opened)
    (tmp_path / "f").touch()
    files: Any = next(one for one in vars(feature_files).values() if hasattr(one, "_open"))
    line = f"the features {tmp_path}/f cannot be read ({error}); run `sepbench score` of the run again"
    assert told(StoreError, lambda: files._open(None, tmp_path / "f", lambda file: file)) == line


# ---- what cannot be shown --------------------------------------------------------------------------------------------------------------


def test_a_run_whose_signals_cannot_be_shown_is_a_board_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0}, n=3, metrics=("psnr",))
    run.record["suite"]["version"] = 7
    name = run.save(tmp_path / "run")
    write_leaderboard(run.frame(), tmp_path / "run" / "leaderboard.csv")
    said: list[str] = []
    board = open_board(name, set(), said.append)
    assert (board.record, board.opened, board.folder, board.title) == (None, None, None, "digits-pairs")
    (line,) = said
    assert line.startswith(f"no signals of {name} are shown: ")
    assert "\n" not in line


def test_pictures_that_are_none() -> None:
    import torch

    line = "only images of 1 or 3 channels can be shown, these signals have shape (2, 4, 4)"
    assert told(SepbenchError, lambda: pictures(torch.zeros(5, 2, 4, 4))) == line
    line = "no mixture has a value of psnr; name mixtures with --examples to look at them"
    assert told(SepbenchError, lambda: spread({0: math.nan, 1: math.inf}, 3, True, "psnr")) == line
