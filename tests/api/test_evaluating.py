"""``sepbench.evaluate``: the command's row from arrays and paths, and one clear error for what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sepbench
from sepbench.errors import ArgumentError

TASK = "class-split"


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return sepbench.load_suite("digits-pairs").task(TASK).references(range(6)).numpy()


def test_arrays_and_files_make_the_same_row_and_a_second_name_joins_it(truth: np.ndarray, tmp_path: Path) -> None:
    noisy = truth + 0.1
    np.save(tmp_path / "noisy.npy", noisy)
    first = sepbench.evaluate("digits-pairs", task=TASK, estimates=noisy, name="array", limit=6, out=tmp_path / "run", supervision="prior")
    both = sepbench.evaluate("digits-pairs", task=TASK, estimates=tmp_path / "noisy.npy", name="file", limit=6, out=tmp_path / "run")
    assert first.methods == ("array",)
    assert set(both.methods) == {"array", "file"}
    wide = both.scores.pivot_table(index=["example", "source", "metric"], columns="method", values="value")
    assert np.array_equal(wide["array"], wide["file"], equal_nan=True)
    levels = both.summary.drop_duplicates("method").set_index("method")["supervision"]
    assert dict(levels) == {"array": "prior", "file": "unstated"}
    assert np.array_equal(both.estimates(TASK, "array", [4]).numpy()[0], noisy[4])


def test_what_does_not_fit_is_one_error_and_nothing_is_written(truth: np.ndarray, tmp_path: Path) -> None:
    good = {"task": TASK, "estimates": truth, "name": "mine", "limit": 6, "out": tmp_path / "run"}
    for wrong in ({"estimates": truth[:, :1]}, {"estimates": truth[:3]}, {"task": "class-spilt"}, {"name": "nmf"}, {"supervision": "magic"}):
        with pytest.raises(sepbench.SepbenchError) as caught:
            sepbench.evaluate("digits-pairs", **(good | wrong))
        assert "\n" not in str(caught.value), wrong
        assert not (tmp_path / "run").exists()
    with pytest.raises(ArgumentError, match="partial must be True or False"):
        sepbench.evaluate("digits-pairs", **(good | {"partial": "yes"}))
