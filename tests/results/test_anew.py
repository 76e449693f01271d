"""A method that was mended after it failed begins anew in the folder of its run, if there is nothing of it to lose."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from third_parties import install

import sepbench
from sepbench import Run, RunWarning, SepbenchError
from sepbench.registry import SEPARATOR_GROUP

METHOD = """
from sepbench.protocols import MethodInfo, Support

class Mended:
    info = MethodInfo(name="mended", title="M", version="1", domains=frozenset({"image"}), supervision="blind", paper="none", deterministic=True)

    def supports(self, task):
        return Support(True)

    def fit(self, view, ctx):
        FIT

    def separate(self, mixtures, ctx):
        SEPARATE
        return mixtures.operator.pseudo_inverse(mixtures.values).repeat(1, 2, 1, 1, 1)[:, :2]
"""
FAILURES = {"fit": ("raise ValueError('x')", "pass"), "separate": ("pass", "raise ValueError('x')")}
PARTLY = ("pass", "assert 2 not in mixtures.example_ids")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Writes the method's module, as its author does between two commands."""
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, tmp_path, "mended", {SEPARATOR_GROUP: {"mended": "mended_method:Mended"}})

    def write(fit: str = "pass", separate: str = "pass") -> None:
        (tmp_path / "mended" / "mended_method.py").write_text(METHOD.replace("FIT", fit).replace("SEPARATE", separate), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "mended_method", raising=False)

    return write


def run(*tasks: str, **options: Any) -> Run:
    return sepbench.run("digits-pairs", methods=["average", "mended"], tasks=tasks or ("class-split",), limit=4, device="cpu", out="here", **options)


def files(part: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path("here").rglob(f"*{part}*") if path.is_file()}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_method_of_which_nothing_was_scored_begins_anew(written: Callable[..., None], failure: str) -> None:
    written(*FAILURES[failure])
    with pytest.warns(RunWarning, match="ValueError: x"):
        run("class-split", "class-agnostic")
    others, mine = files("average"), files("mended")
    written()
    with pytest.raises(SepbenchError, match=r"has changed since; give retry_failed= to begin mended anew, of which nothing was scored, or choose another"):
        run("class-split")
    assert files("mended") == mine
    with pytest.warns(RunWarning, match=r"^mended has changed since, and nothing of it was scored: it begins anew$"):
        done = run("class-split", retry_failed=True)
    rows = done.summary.query("method == 'mended'")
    assert (set(rows["task"]), set(rows["n_scored"]), set(rows["error"])) == ({"class-split"}, {4}, {""})
    assert {path: when for path, when in files("average").items() if path in others} == others  # nobody else is touched
    assert not [path for path in files("mended") if "class-agnostic" in path]
    assert run("class-split", "class-agnostic").cells["state"].tolist() == ["done"] * 4


def test_a_method_with_scored_mixtures_is_not_removed(written: Callable[..., None]) -> None:
    written(*PARTLY)
    with pytest.warns(RunWarning, match="1 of 4 mixtures failed"):
        run()
    before = files("mended")
    written()
    with pytest.raises(SepbenchError, match=r"the code of mended has changed since; choose another out=$"):
        run(retry_failed=True)
    assert files("mended") == before


def test_where_more_has_changed_nothing_is_removed(written: Callable[..., None]) -> None:
    written(*FAILURES["separate"])
    with pytest.warns(RunWarning, match="ValueError: x"):
        run()
    before = files("mended")
    written()
    with pytest.raises(SepbenchError, match=r"^here holds another run: .*; choose another out=$"):
        run(seed=1, retry_failed=True)
    assert files("mended") == before
