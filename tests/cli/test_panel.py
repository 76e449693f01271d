"""``sepbench panel``: files, choices, and one line for every mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from sepbench.cli import panel
from sepbench.cli.main import main
from sepbench.report.panels.opened_run import OpenedRun


def sepbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("panel") / "run"
    with pytest.MonkeyPatch.context() as patch:
        command = ("run", "--suite", "digits-pairs", "--limit", "20", "--methods", "average,nmf", "--set", "nmf.atoms=8", "--out", str(path))
        assert sepbench(patch, *command) == 0
    return str(path)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_pictures_of_a_task(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str) -> None:
    capsys.readouterr()
    assert sepbench(monkeypatch, "panel", run, "--task", "class-split") == 0
    folder = Path(run) / "panels"
    wanted = {"psnr-class-split.png", "grid-class-split-nmf.png", "grid-class-split-average.png", "grid-class-split.png"}
    assert names(folder) == wanted
    assert capsys.readouterr().out.split() == [
        str(folder / name) for name in ("grid-class-split.png", "psnr-class-split.png", "grid-class-split-nmf.png", "grid-class-split-average.png")
    ]
    for name in wanted:
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 300
            assert len(set(image.convert("L").tobytes())) > 10


def test_one_method_and_named_mixtures(monkeypatch: pytest.MonkeyPatch, run: str, tmp_path: Path) -> None:
    assert sepbench(monkeypatch, "panel", run, "--method", "nmf", "--examples", "0,5", "--figures", "grid", "--out", str(tmp_path / "new" / "folder")) == 0
    assert names(tmp_path / "new" / "folder") == {"grid-class-split-nmf.png", "grid-class-agnostic-nmf.png"}


def test_histograms_need_no_estimates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    command = ("run", "--suite", "digits-pairs", "--limit", "5", "--methods", "average", "--tasks", "class-split", "--no-keep-estimates", "--out", folder)
    assert sepbench(monkeypatch, *command) == 0
    capsys.readouterr()
    assert sepbench(monkeypatch, "panel", folder) == 2
    assert "run again without --no-keep-estimates" in capsys.readouterr().err
    assert not (tmp_path / "run" / "panels").exists()
    assert sepbench(monkeypatch, "panel", folder, "--figures", "histogram") == 0
    assert names(tmp_path / "run" / "panels") == {"psnr-class-split.png"}


CASES = {
    "no such run": (("nothing",), "there is no nothing"),
    "not a run": ((".",), "it has no run.json"),
    "no such task": (("RUN", "--task", "class-splt"), "did you mean class-split"),
    "no such method": (("RUN", "--method", "nfm"), "did you mean nmf"),
    "no such mixture": (("RUN", "--examples", "20"), "took mixtures 0 to 19"),
    "no numbers": (("RUN", "--examples", "best"), "write it as 0,5,7"),
    "both choices": (("RUN", "--examples", "1", "--count", "3"), "exclude each other"),
    "no sampler": (("RUN", "--samples", "2"), "none of nmf, average draws posterior samples"),
    "no prior": (("RUN", "--gradients"), "none of nmf, average has a score prior"),
    "no folder": (("RUN", "--figures", "histogram", "--out", "/dev/null/x"), "choose a writable folder with --out"),
}


@pytest.mark.parametrize(("arguments", "expected"), CASES.values(), ids=CASES.keys())
def test_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    out = () if "--out" in arguments else ("--out", str(tmp_path / "out"))
    assert sepbench(monkeypatch, "panel", *(run if word == "RUN" else word for word in arguments), *out) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    capsys.readouterr()
    assert sepbench(monkeypatch, "panel", run) == 2
    assert capsys.readouterr().err == "error: pictures need matplotlib, which comes with the extra 'report': pip install 'sepbench[report]'\n"


@pytest.mark.parametrize("figures", list(panel.Figures))
@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("gradients", [False, True])
def test_each_option_draws_its_own_pictures_of_the_methods_that_can(
    monkeypatch: pytest.MonkeyPatch, run: str, figures: panel.Figures, samples: int, gradients: bool
) -> None:
    """Of two methods the one can sample and the other has a prior: neither gets the other's picture."""
    monkeypatch.setattr("sepbench.report.panels.samples.can_sample", lambda opened, method: method == "nmf")
    monkeypatch.setattr("sepbench.report.panels.gradients.has_prior", lambda opened, method: method == "average")
    opened = OpenedRun.open(Path(run), lambda text: None)
    (task,) = opened.tasks(["class-split"])
    job = panel._Job(opened, task, ["nmf", "average"], False, (), None, "cpu", Path("nowhere"))
    for name in ("comparison", "histogram", "grid", "samples", "gradients"):
        monkeypatch.setattr(job, f"_{name}", lambda *about, name=name: (name, *about))
    grids = figures in ("all", "grid")
    wanted = [("comparison",)] * grids + [("histogram",)] * (figures in ("all", "histogram")) + [("grid", "nmf"), ("grid", "average")] * grids
    wanted += [("samples", "nmf", samples)] * bool(samples) + [("gradients", "average")] * gradients
    assert [draw() for draw in job.figures(figures, samples, gradients)] == wanted
