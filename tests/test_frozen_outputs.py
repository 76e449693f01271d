"""What the program shows and writes, held against files in ``tests/golden/outputs/``: tables, pages, charts, run folders, templates, declarations.

Numbers of methods are frozen elsewhere (``tests/baselines/frozen_outcomes.py``); here they are made up or those of methods without arithmetic worth the name.
After a change that is meant, ``python tests/test_frozen_outputs.py`` writes the files anew: read their difference before it is committed.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import frozen_texts
import pytest
from frozen_figures import described
from frozen_texts import files, hold, page, plain
from own_files import image_folder, sound_folder
from synthetic_run import SyntheticRun

from sepbench.cli.main import main

METHODS = {"nmf": 16.0, "ica": 15.9, "rpca": 12.0, "average": 14.0, "ideal-mask": 25.0, "basis-ncsn": 15.0}
SOUND = {"psnr": "sdr", "ssim": "si_sdr"}
VARIABLES = ("SEPBENCH_DATA", "SEPBENCH_SUITES", "SEPBENCH_SHARED", "SEPBENCH_TRACEBACK", "FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS", "PAGER")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs in it, the working folder; no data, an empty cache, and a clock that stands still, so that seconds are none."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in {"COLUMNS": "100", "LINES": "50", "NO_COLOR": "1", "TERM": "dumb", "SEPBENCH_OFFLINE": "1", "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("SEPBENCH_CACHE", str(folder / "cache"))
        patch.setattr(time, "perf_counter", lambda: 1.0)
        patch.chdir(folder)
        made_up_runs(folder)
        yield folder


def made_up_runs(folder: Path) -> None:
    """Runs of every kind of row: bounds, partial, failed, unsupported, without seconds, of several tasks, of sounds, beside papers' numbers."""
    run = SyntheticRun(METHODS, tasks=("class-split", "class-agnostic"), n=30).fail("rpca", 3, "ValueError: <b>singular</b>")
    run.cells["class-agnostic", "ica"] |= {"state": "unsupported", "note": "separates two sources"}
    run.scores = run.scores[~((run.scores["task"] == "class-agnostic") & (run.scores["method"] == "ica"))]
    run.record["methods"]["nmf"]["settings"] = {"atoms": 24}
    run.record["methods"]["nmf"]["deterministic"] = False
    run.save(folder / "a")
    SyntheticRun(METHODS, tasks=("class-split",), n=30).shift("nmf", "psnr", -0.5).shift("ica", "ssim", 0.02).drop_method("basis-ncsn").save(folder / "b")
    sound = SyntheticRun({"mixture": 0.0, "hpss": 1.0, "ft2d": 0.9}, tasks=("by-role", "best-assignment"), suite="drums-bass-synth", n=24)
    sound.record["metrics"] = [SOUND.get(name, name) for name in sound.record["metrics"]]
    sound.scores["metric"] = sound.scores["metric"].replace(SOUND)
    sound.save(folder / "sound")
    SyntheticRun({"basis-ncsn": 16.0, "average": 14.0, "nmf": 13.0}, suite="cifar10-pairs", n=20).save(folder / "papers")


class Done:
    """What a command said, and how it ended."""

    def __init__(self, line: str, out: str, err: str, code: int) -> None:
        self.out, self.err, self.code = out, err, code
        self.text = f"$ sepbench {line}\n{out}" + (f"-- stderr\n{err}" if err else "") + (f"-- exit code {code}\n" if code else "")


@pytest.fixture
def sepbench(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Call the command in process; the text is what it said."""

    def call(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sepbench", *shlex.split(line)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        code = stopped.value.code
        return plain(Done(line, out, err, code if isinstance(code, int) else 0).text, world, Path(os.path.realpath(world)))

    return call


COMMANDS = {
    "list": ("list suites", "list metrics", "list methods", "list metrics --json", "list nnmf"),
    "data": ("data list", "data path mnist", "data verify mnist", "data path digits", "data fetch mnist", "data list --json", "cache list", "cache clear"),
    "show": (
        "show a",
        "show a --stats",
        "show a --format csv",
        "show a --format markdown",
        "show a --json --task class-split --method nmf,rpca",
        "show a --top 2 --metric ssim,psnr --task class-split",
        "show a --method nmf,ica",
        "show sound",
        "show papers",
        "show nothing",
    ),
    "show-committed": ("show gaussian-exact --task d2",),
    "compare": (
        "compare a:nmf a:ica --all-metrics",
        "compare a b",
        "compare a b --all-metrics --json --csv rows.csv",
        "compare sound:hpss sound:ft2d --metric si_sdr",
        "compare a sound",
    ),
    "check": (
        "check b --against a",
        "check b --against a --subset",
        "check a --against a",
        "check b --against a --subset --json",
        "check a --against sound",
        "check b --against a --subset --tolerance psnr=1,ssim=1",
        "check b --against a --subset --tolerance psnr=1 --tolerance ssim=0.5 --methods nmf",
    ),
    "usage": (
        "run",
        "runn",
        "show a --jsn",
        "compare a",
        "run --suite digit-pairs",
        "run --suite digits-pairs --methods nfm",
        "run --suite digits-pairs --set nmf.atom=3 --dry-run",
    ),
    "plan": (
        "run --suite gaussian-exact --limit 3 --budget quick --seeds 2 --tasks d2,d8-three --device cpu --dry-run --out plan",
        "run --suite digits-pairs --methods average,nmf --limit 5 --fits 2 --device cpu --dry-run --save-config plan.yaml --out plan",
    ),
    "validate": ("validate average", "validate mixture --suite gaussian-exact --task d2", "validate ideal-mask --examples 3"),
    "completion": ("--version", "panel a --out panels --figures histogram", "export --suite digits-pairs --task class-split --out a"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_commands_say(name: str, sepbench: Callable[[str], str]) -> None:
    hold(f"said-{name}.txt", "\n".join(sepbench(line) for line in COMMANDS[name]))


PAGES = ("average", "ideal-mask", "nmf", "hpss", "projected-4x", "exact-posterior")


def test_pages_of_methods(sepbench: Callable[[str], str]) -> None:
    hold("said-methods.txt", "\n".join(sepbench(f"list {name}") for name in PAGES))


def test_env_names_what_it_shows(sepbench: Callable[[str], str]) -> None:
    names = [line.split()[0] for line in sepbench("env").splitlines()[1:] if not line.startswith(" ")]
    hold("said-env.txt", "\n".join([*names, *re.findall(r'^  "\w+"', sepbench("env --json"), re.MULTILINE)]) + "\n")


RUNS = {
    "digits": "--suite digits-pairs --limit 3 --methods average,mixture,ideal-mask --keep-estimates --latency",
    "seeds": "--suite gaussian-exact --tasks d2 --limit 3 --methods exact-posterior,average --seeds 2 --budget quick",
    "images": "--suite digits-pairs --tasks class-split --limit 2 --methods average --save-audio 1",
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_and_their_folders(name: str, world: Path, sepbench: Callable[[str], str]) -> None:
    said = sepbench(f"run {RUNS[name]} --device cpu --threads 1 --out run-{name}")
    hold(f"run-{name}.txt", f"{said}\n{files(world / f'run-{name}', world)}")


def test_exported_mixtures_and_supplied_estimates(world: Path, sepbench: Callable[[str], str]) -> None:
    import numpy as np

    task = "--suite digits-pairs --task class-split --limit 4"
    said = [sepbench(f"export {task} --references --out exported"), files(world / "exported", world), sepbench(f"export {task} --format npz --out one")]
    mixtures = np.load(world / "exported" / "mixtures.npy")
    np.save(world / "halves.npy", np.stack([mixtures / 2, mixtures / 2], axis=1))
    said.append(sepbench(f"evaluate {task} --estimates halves.npy --name halves --supervision blind --out supplied"))
    said += [sepbench(f"evaluate {task} --estimates nothing.npy --name halves --out supplied"), files(world / "supplied", world)]
    hold("evaluate.txt", "\n".join(said))


def test_published_rows(world: Path, sepbench: Callable[[str], str]) -> None:
    (world / "boards").mkdir()
    said = [sepbench("publish a --to boards"), sepbench("publish b --to boards --methods nmf"), sepbench("publish b --to boards --methods nmf --force")]
    hold("publish.txt", "\n".join([*said, files(world / "boards", world), sepbench("show boards/digits-pairs.csv")]))


@pytest.mark.parametrize("kind", ["", "--trained"])
def test_templates_of_methods(kind: str, world: Path, sepbench: Callable[[str], str]) -> None:
    name = f"my{kind.strip('-') or 'plain'}"
    said = sepbench(f"new-method {name} {kind} --into methods")
    hold(f"new-method{kind[1:]}.txt", f"{said}\n{files(world / 'methods' / name, world)}")


def test_suites_of_own_files(world: Path, sepbench: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own: suites in the working folder are found by every other command."""
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    own = world / "own"
    own.mkdir()
    monkeypatch.chdir(own)
    image_folder(own / "discs", 6)
    image_folder(own / "bars", 6, key=400)
    sound_folder(own / "hums", 8)
    said = [sepbench("new-suite shapes --sources discs bars --size 8"), files(own / "suites" / "shapes", world), sepbench("verify shapes")]
    said.append(sepbench("new-suite tones --sources hums --agnostic --n-sources 2 --seconds 0.5 --operator gain --snr 3"))
    hold("new-suite.txt", "\n".join([*said, sepbench("list suites").partition("digits-pairs")[0][:40], sepbench("freeze shapes")]))


REPORTS = {"a": ["a"], "sound": ["sound"], "papers": ["papers"], "two": ["a", "b"], "digits": ["run-report"]}
WHOLE = ("a", "digits")
"""Reports of which the pages of methods are held too."""


@pytest.mark.parametrize("name", REPORTS)
def test_pages_and_charts_of_the_report(name: str, world: Path, sepbench: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("altair")
    from sepbench.report.html import page as pages

    monkeypatch.setattr(pages, "vega_script", lambda: "/* not here */")
    if name == "digits":
        sepbench("run --suite digits-pairs --tasks class-split --limit 6 --methods average,ideal-mask --keep-estimates --device cpu --out run-report")
    else:  # the true sources of the worst mixtures: not all of these suites' data are here
        monkeypatch.setattr(pages, "examples", lambda *given: None)
    told: list[str] = []
    tasks = () if name == "digits" else {"sound": ("by-role",)}.get(name, ("class-split",))
    folder = pages.write_report(REPORTS[name], world / f"report-{name}", pages.Options(tasks=tasks), told.append).index.parent
    shown = sorted(folder.glob("*.html")) if name in WHOLE else [folder / "index.html"]
    texts = [f"-- {path.name}\n{page(path, world)}" for path in shown]
    hold(f"report-{name}.txt", "".join([*texts, *told, "\n", files(folder, world, whole=False)]))


CHART_ROW = {
    **{"method": "nmf", "metric": "psnr", "text": "1 dB", "style": "ranked", "group": "g", "told": "1 s", "supervision": "blind", "n": "3", "kind": "exact"},
    **{"mean": 1.0, "low": 0.0, "high": 2.0, "cost": 3.0, "density": 1.0, "x": 1.0, "y": 2.0, "order": 0, "step": 0, "when": "May", "flag": "holds"},
}


def test_charts_that_those_reports_do_not_have() -> None:
    """Samplers, curves along a setting, and histories with every finding."""
    pytest.importorskip("altair", reason="altair is not installed")
    from sepbench.report.html import charts

    flags = [CHART_ROW | {"flag": flag, "when": f"day {step}", "step": step} for step, flag in enumerate(charts.FLAGS)]
    made = {
        "pit": charts.pit([CHART_ROW], ["nmf", "ica"], "words"),
        "scatter": charts.scatter([CHART_ROW], ["nmf", "ica"], "first", "second", "words"),
        "curves": charts.lines([CHART_ROW, CHART_ROW | {"x": 4.0}], "atoms", "psnr", "words", log=True, points=True),
        "history": charts.history(flags, "dB", "words"),
    }
    hold("charts.txt", "".join(f"-- {name}\n{frozen_texts.chart(chart.spec)}" for name, chart in made.items()))


def test_figures_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every word, line and picture of a sheet, a histogram and gradient norms stands, and how it looks."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    import numpy as np

    from sepbench.report.panels import gradients, histogram, sheet

    drawn: list[str] = []
    for module in (gradients, histogram, sheet):
        monkeypatch.setattr(module, "save_png", lambda figure, path: drawn.append(described(figure)))
    shade, block = np.full((1, 20, 30, 3), 0.25), sheet.Head("a-method-with-a-long-name", 3, 1)
    row = sheet.SheetRow(("best", "mixture 1"), (sheet.Block(shade, ("",)), sheet.Block(np.repeat(shade, 3, 0), ("1.00", "2.00", "failed"))))
    subtitle = "All 1,000 mixtures of a suite with a long name, from best to worst, in one order that is told here at such a length that a line has to end."
    sheet.draw_sheet(sheet.Sheet("Title", subtitle, (sheet.Head("mixture", 1, 1), block), (row, row)), Path("x.png"))
    edges = np.array([0.0, 1.0, 2.0])
    rows = histogram.MethodCounts("nmf", "", np.array([3, 4]), 1.25, 0.5, 7), histogram.MethodCounts("average", "lower", np.array([1, 0]), -0.0625, -0.5, 1)
    histogram.draw_histogram(histogram.Histogram("Title", "psnr [dB]", "dB", edges, rows, 1), Path("x.png"))
    curves = tuple(gradients.Curve(f"{k}", np.array([[1.0, 2.0, 4.0], [10.0, 20.0, 90.0]]) * (k + 1)) for k in range(8))
    gradients.draw_gradients(gradients.GradientNorms("Title", "Subtitle", np.array([1.0, 0.1]), 1024, curves), Path("x.png"))
    hold("figures.txt", "\n".join(drawn))


if __name__ == "__main__":
    frozen_texts.recording = True
    sys.exit(pytest.main([__file__, str(Path(__file__).with_name("test_frozen_declarations.py")), "-p", "no:cacheprovider", "-p", "no:randomly"]))
