"""Which mixtures the pictures of ``panel`` show, in what order they are drawn and where they go, without a picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sepbench.cli import panel
from sepbench.cli.main import app
from sepbench.errors import SepbenchError

VALUES = {"m": {number: float(number) for number in range(30)}, "n": {number: -float(number) for number in range(30)}}


class Run:
    """A run of two methods on one task; writes down what it is asked for."""

    def __init__(self, planned: int = 30, higher: bool = True) -> None:
        self.metric = SimpleNamespace(info=SimpleNamespace(name="psnr", higher_is_better=higher))
        self.planned, self.asked, self.warned = planned, list[Any](), list[str]()
        self.warn = self.warned.append

    def values(self, task: str, method: str) -> dict[int, float]:
        assert task == "t"
        return VALUES[method]

    def n_planned(self, task: str) -> int:
        assert task == "t"
        return self.planned

    def estimates(self, task: Any, method: str, ids: Any) -> None:
        self.asked.append((method, list(ids)))


def job(run: Run, methods: tuple[str, ...] = ("m", "n"), by_name: bool = False, examples: tuple[int, ...] = (), count: int | None = None) -> Any:
    task: Any = SimpleNamespace(spec=SimpleNamespace(name="t"))
    return panel._Job(run, task, list(methods), by_name, examples, count, "cpu", Path("out"))  # type: ignore[arg-type]


# ---- which mixtures --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("higher", "count", "first", "last", "many"), [(True, None, 29, 0, 7), (False, None, 0, 29, 7), (True, 2, 29, 0, 2), (True, 30, 29, 0, 30)]
)
@pytest.mark.parametrize(("averaged", "by"), [(False, "psnr"), (True, "psnr averaged over the methods")])
def test_a_spread_from_best_to_worst_says_of_what(higher: bool, count: int | None, first: int, last: int, many: int, averaged: bool, by: str) -> None:
    found = job(Run(higher=higher), count=count)._choice(VALUES["m"], averaged)
    assert (found.examples[0], found.examples[-1], len(found.examples)) == (first, last, many)
    told = {7: f"ranks of {by} (best, median, worst included)", 2: f"ranks of {by} (best, worst included)", 30: f"from best to worst {by}"}[many]
    assert found.told.endswith(told)


def test_named_mixtures_have_to_be_of_the_run() -> None:
    assert job(Run(), examples=(7, 3), count=None)._choice({}).examples == (7, 3)
    with pytest.raises(SepbenchError, match=r"^--examples: mixture 30 is not part of this run, which took mixtures 0 to 29$"):
        job(Run(), examples=(30,))._choice({})
    assert job(Run(planned=31), examples=(30,))._choice({}).examples == (30,)


# ---- what is drawn, and where ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing returns what was to be drawn, and where."""
    monkeypatch.setattr("sepbench.report.panels.sheet.draw_sheet", lambda sheet, path: (sheet, str(path)))
    monkeypatch.setattr("sepbench.report.panels.histogram.draw_histogram", lambda values, path: (values, str(path)))
    monkeypatch.setattr("sepbench.report.panels.histogram.histogram", lambda run, task, methods: (task, methods))
    monkeypatch.setattr("sepbench.report.panels.grids.method_grid", lambda run, task, method, choice: (method, choice.examples))
    monkeypatch.setattr(
        "sepbench.report.panels.grids.shared_values", lambda run, task, methods: {1: 5.0, 2: 9.0} if (task, methods) == ("t", ["m", "n"]) else {}
    )
    monkeypatch.setattr(
        "sepbench.report.panels.grids.comparison_grid", lambda run, task, methods, choice: (methods, choice.examples, "averaged" in choice.told)
    )


@pytest.mark.usefixtures("drawn")
def test_every_picture_shows_its_own_and_has_its_own_name() -> None:
    one = job(Run(), count=2)
    assert one._histogram() == (("t", ["m", "n"]), "out/psnr-t.png")
    assert one._grid("m") == (("m", (29, 0)), "out/grid-t-m.png")
    assert one._grid("n") == (("n", (0, 29)), "out/grid-t-n.png")
    assert one._comparison() == ((["m", "n"], (2, 1), True), "out/grid-t.png")


@pytest.mark.parametrize(
    ("methods", "figures", "samples", "checked", "estimates", "names"),
    [
        (("m", "n"), "all", 0, True, ["m", "n"], ["comparison", "histogram", "grid m", "grid n"]),
        (("m",), "all", 0, True, ["m"], ["histogram", "grid m"]),  # one method needs no comparison
        (("m", "n"), "grid", 0, True, ["m", "n"], ["comparison", "grid m", "grid n"]),
        (("m", "n"), "histogram", 0, False, [], ["histogram"]),  # also of signals that cannot be drawn, and without estimates
        (("m", "n"), "histogram", 3, True, [], ["histogram", "samples m 3", "samples n 3"]),
    ],
)
def test_what_can_be_drawn_is_checked_before_the_first_picture(
    monkeypatch: pytest.MonkeyPatch, methods: tuple[str, ...], figures: str, samples: int, checked: bool, estimates: list[str], names: list[str]
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("sepbench.report.panels.shown.check_shown", shown.append)
    monkeypatch.setattr("sepbench.report.panels.samples.can_sample", lambda run, method: True)
    run = Run()
    one = job(run, methods, count=2)
    for name in ("comparison", "histogram", "grid", "samples"):
        monkeypatch.setattr(one, f"_{name}", lambda *about, name=name: " ".join(map(str, (name, *about))))
    drawing = one.figures(panel.Figures(figures), samples, False)
    first = next(drawing)
    assert shown == ([one.task.spec] if checked else [])
    assert run.asked == [(method, [29 if method == "m" else 0]) for method in estimates]  # one estimate of each says whether they were kept
    assert [first(), *(draw() for draw in drawing)] == names


# ---- the command -----------------------------------------------------------------------------------------------------------------------

ASKED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "task": (("--task", "a, b"), {"tasks": ("a", "b")}),
    "method": (("--method", "m"), {"methods": ("m",), "by_name": True}),
    "examples": (("--examples", "3,1"), {"asked": (3, 1)}),
    "count": (("--count", "4"), {"count": 4}),
    "device": (("--device", "cuda:1"), {"device": "cuda:1"}),
    "out": (("--out", "there"), {"folder": Path("there")}),
    "figures": (("--figures", "grid"), {"figures": "grid"}),
    "samples": (("--samples", "2"), {"samples": 2}),
    "gradients": (("--gradients",), {"gradients": True}),
}


@pytest.mark.parametrize("name", ASKED)
def test_an_option_of_panel_changes_what_it_is_called_after_and_nothing_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found: dict[str, Any] = {}
    order: list[str] = []

    class Job:
        def __init__(self, run: Any, task: Any, methods: Any, by_name: bool, asked: Any, count: Any, device: str, folder: Path) -> None:
            found.update(methods=methods, by_name=by_name, asked=asked, count=count, device=device, folder=folder)

        def figures(self, figures: str, samples: int, gradients: bool) -> Any:
            found.update(figures=str(figures), samples=samples, gradients=gradients)
            return iter([lambda: Path("one.png"), lambda: Path("two.png")])

    def opened(path: Path, warn: Any) -> Any:
        order.append("opened")
        warn("odd [x]")
        chosen: Any = SimpleNamespace(spec=SimpleNamespace(name="t"))
        return SimpleNamespace(tasks=lambda names: found.update(tasks=names) or [chosen], methods=lambda task, names: {"t": names}[task])

    monkeypatch.setattr(panel, "_Job", Job)
    monkeypatch.setattr("sepbench.report.panels.canvas.new_figure", lambda width, height: order.append("matplotlib"))
    monkeypatch.setattr("sepbench.report.panels.opened_run.OpenedRun.open", opened)
    words, differs = ASKED[name]
    done = CliRunner(env={"COLUMNS": "20"}).invoke(app, ["panel", "runs/x", *words])
    assert done.exit_code == 0, done.exception
    assert (done.stdout, done.stderr) == ("one.png\ntwo.png\n", "note: odd [x]\n")
    usual = {"tasks": (), "methods": (), "by_name": False, "asked": (), "count": None, "device": "auto", "folder": Path("runs/x/panels")}
    assert found == usual | {"figures": "all", "samples": 0, "gradients": False} | differs
    assert order == ["matplotlib", "opened"]  # what is missing is said before anything is read


@pytest.mark.parametrize("words", [("--count", "0"), ("--samples", "-1"), ("--samples", "65"), ("--figures", "none")])
def test_numbers_of_panel_have_bounds(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["panel", "nowhere", *words]).exit_code == 2
