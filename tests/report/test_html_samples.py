"""Posterior samples on a page: which mixture, which methods, what their files are called and show, and what is said where there are none."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.html import samples
from sepbench.report.html.board import Board, open_board
from sepbench.report.html.media import Media, strip
from sepbench.report.html.samples import samples as section
from sepbench.report.panels.shown import shown

pytest.importorskip("altair")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Values of nmf rise with the mixture's number and those of ica fall faster: their means fall from 20 to 14.5. A third method failed on number 0."""
    made = SyntheticRun({"ica": 13.0, "nmf": 16.0, "rpca": 1.0}, n=5).fail("rpca", 0)
    for example, (nmf, ica) in enumerate([(10.0, 30.0), (12.0, 25.0), (14.0, 20.0), (16.0, 15.0), (17.0, 12.0)]):
        for method, value in (("nmf", nmf), ("ica", ica)):
            made.scores.loc[made.where(method, "psnr", example), "value"] = value
    return open_board(made.save(tmp_path_factory.mktemp("samples") / "run"), set(), lambda text: None)


class Drawn:
    """Methods that can sample, and what was asked of them: draws are the true sources in the wrong order, a tenth darker with each draw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, board: Board, able: tuple[str, ...]) -> None:
        self.board, self.able, self.asked, self.told = board, able, list[tuple[Any, ...]](), list[str]()
        self.broken: tuple[str, ...] = ()
        assert board.opened is not None
        (self.task,) = board.opened.tasks()
        monkeypatch.setattr(samples, "can_sample", lambda run, method: method in self.able)
        monkeypatch.setattr(samples, "fitted_again", self.fitted)
        monkeypatch.setattr(samples, "draw_samples", self.draws)

    def fitted(self, run: Any, task: Any, method: str, device: str) -> str:
        assert (run, task.spec.name) == (self.board.opened, "class-split")
        if method in self.broken:
            raise SepbenchError("does not fit")
        self.asked.append((method, device))
        return method

    def draws(self, session: str, example: int, count: int) -> torch.Tensor:
        self.asked.append((session, example, count))
        truth = self.task.mixture_set().sources([example])[0].flip(0)
        return torch.stack([truth * (1 - draw / 10) for draw in range(count)])

    def made(self, count: int = 2, asked: tuple[int, ...] = (), budget: int = 1 << 20, device: str = "cpu", task: str = "class-split") -> Any:
        self.media = Media(budget)
        view: Any = SimpleNamespace(board=self.board, task=task)
        return section(view, self.media, count, device, asked, self.told.append)


def test_the_section_of_a_run_whose_methods_draw(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch, board, ("nmf", "ica"))
    found = drawn.made(3, device="cuda")
    # means of both: 20, 18.5, 17, 15.5, 14.5
    assert (found.count, found.example, found.why, found.width) == (3, 2, "median mean psnr of the methods that draw", 64)
    assert drawn.asked == [("ica", "cuda"), ("ica", 2, 3), ("nmf", "cuda"), ("nmf", 2, 3)]  # best first
    folder = "media/run/class-split"
    assert found.mixture == (f"{folder}/samples_mixture.png", "Mixture 2")
    classes = drawn.task.spec.source_classes
    assert found.truths == tuple((f"{folder}/samples_truth_{k}.png", f"True {classes[k]} of mixture 2") for k in range(2))
    assert [one.method for one in found.drawn] == ["ica", "nmf"]
    assert found.drawn[1].strips == tuple((f"{folder}/samples-nmf_{k}.png", f"3 samples of {classes[k]} by nmf, mixture 2") for k in range(2))
    truth = drawn.task.mixture_set().sources([2])
    for k in range(2):
        assert drawn.media.files[f"{folder}/samples_truth_{k}.png"] == strip(shown(truth[:, k], drawn.task.spec))
        darker = torch.stack([truth[0, k] * (1 - draw / 10) for draw in range(3)])  # in the order of the references
        assert drawn.media.files[f"{folder}/samples-nmf_{k}.png"] == strip(shown(darker, drawn.task.spec))
    picture = np.asarray(Image.open(io.BytesIO(drawn.media.files[f"{folder}/samples_mixture.png"])).convert("L"), dtype=float) / 255
    mixture = drawn.task.mixture_set().mixtures([2]).values[0, 0].numpy()
    assert picture == pytest.approx(mixture / 2, abs=1 / 255)  # white is the largest sum
    assert len(drawn.media.files) == 3 + 2 * 2
    assert drawn.told == []


def test_the_median_is_of_the_methods_that_draw(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Drawn(monkeypatch, board, ("nmf",)).made()
    assert (found.example, found.why) == (2, "median psnr")
    some = Drawn(monkeypatch, board, ("rpca",)).made()
    values = board.opened.values("class-split", "rpca")  # type: ignore[union-attr]
    finite = sorted((example for example, value in values.items() if math.isfinite(value)), key=lambda example: -values[example])
    assert some.example == finite[(len(finite) - 1) // 2]  # number 0 failed


def test_the_first_mixture_that_is_asked_for(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Drawn(monkeypatch, board, ("nmf", "ica")).made(asked=(4, 9))  # the section beside it says that there is no 9
    assert (found.example, found.why) == (4, "chosen")


def test_where_there_is_no_section(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch, board, ("nmf",))
    assert drawn.made(count=0) is None
    closed: Any = SimpleNamespace(board=Board("x", board.results), task="class-split")  # a leaderboard
    assert section(closed, Media(1 << 20), 2, "cpu", (), drawn.told.append) is None
    nobody = Drawn(monkeypatch, board, ())
    assert nobody.made() is None
    assert (drawn.told, nobody.told, nobody.media.files) == ([], [], {})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"asked": (5,)}, "no samples of class-split: --examples: mixture 5 is not part of this run, which took mixtures 0 to 4"),
        ({"budget": 10}, "no samples of class-split: the budget is used up (--budget-mb)"),
        ({"task": "clas-split"}, "no samples of clas-split: unknown task of "),
    ],
)
def test_why_there_are_no_samples(board: Board, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: str) -> None:
    drawn = Drawn(monkeypatch, board, ("nmf",))
    assert drawn.made(**options) is None
    (said,) = drawn.told
    assert said.startswith(told)


def test_signals_that_are_no_pictures_are_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch, board, ("nmf",))

    def refuse(spec: Any) -> None:
        raise SepbenchError(f"{spec.name} is a vector")

    monkeypatch.setattr(samples, "check_shown", refuse)
    assert drawn.made() is None
    assert drawn.told == ["no samples of class-split: class-split is a vector"]


def test_a_method_that_cannot_is_told_and_the_others_are_drawn(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch, board, ("nmf", "ica"))
    drawn.broken = ("ica",)
    found = drawn.made()
    assert [one.method for one in found.drawn] == ["nmf"]
    assert drawn.told == ["no samples of ica: does not fit"]
    drawn.broken = ("ica", "nmf")
    assert drawn.made() is None


def test_a_method_whose_strips_do_not_fit_is_left_out(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch, board, ("nmf", "ica"))
    drawn.made()
    sizes = {name: len(content) for name, content in drawn.media.files.items()}
    room = sum(size for name, size in sizes.items() if "nmf" not in name)
    found = drawn.made(budget=room)
    assert [one.method for one in found.drawn] == ["ica"]
    assert (drawn.media.left_out, drawn.media.used) == (2, room)


def test_sources_of_one_class_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_board(SyntheticRun({"nmf": 16.0}, ("class-agnostic",), n=2).save(tmp_path / "a b"), set(), lambda text: None)
    drawn = Drawn(monkeypatch, made, ("nmf",))
    monkeypatch.setattr(drawn, "fitted", lambda run, task, method, device: method)
    monkeypatch.setattr(samples, "fitted_again", drawn.fitted)
    found = drawn.made(task="class-agnostic")
    assert [words for _, words in found.truths] == [f"True source {k} of mixture {found.example}" for k in (1, 2)]
    assert found.mixture[0] == f"media/{made.slug}/class-agnostic/samples_mixture.png"
    assert made.slug.startswith("a-b-")
