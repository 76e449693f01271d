"""The page of a method: it describes the implementation for the signals of its suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from sepbench.protocols import Domain
from sepbench.registry import separator_class, separator_domains, separator_names
from sepbench.report.html.board import open_board, task_views
from sepbench.report.html.media import Media
from sepbench.report.html.methods import MethodPage, MethodPages
from sepbench.settings import setting_names

pytest.importorskip("altair")


def pages(folder: Path, suite: str, task: str, methods: list[str]) -> dict[str, MethodPage]:
    made = SyntheticRun(dict.fromkeys(methods, 10.0), tasks=(task,), n=6, suite=suite, metrics=("mixture_error",))
    board = open_board(made.save(folder / "run"), set(), lambda text: None)
    collected = MethodPages(board, Media(0))
    for view in task_views(board):
        collected.add(view)
    return {page.name: page for page in collected.pages()}


@pytest.mark.parametrize(("suite", "task", "domain"), [("digits-pairs", "class-split", "image"), ("drums-bass-synth", "by-role", "audio")])
def test_a_method_of_several_algorithms_is_described_by_the_one_for_these_signals(tmp_path: Path, suite: str, task: str, domain: Domain) -> None:
    several = [name for name in separator_names() if len(separator_domains(name)) > 1]
    assert {"ica", "nmf", "nmf-semi", "rpca"} <= set(several)
    found = pages(tmp_path, suite, task, several)
    assert sorted(found) == sorted(several)
    for name, page in found.items():
        cls: Any = separator_class(name, domain)
        words = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
        about = dict(page.about)
        assert (page.title, about["about"], about["paper"]) == (cls.info.title, words, cls.info.paper)
        assert [setting.name for setting in page.settings] == list(setting_names(cls))
    other = separator_class("nmf", "audio" if domain == "image" else "image")
    assert dict(found["nmf"].about)["about"] not in " ".join((other.__doc__ or "").split())
