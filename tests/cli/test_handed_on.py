"""What commands hand on to those who work: every option of ``run``, ``train`` and ``panel``, and words that depend on what is there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sepbench.cli import completion, data, evaluate, panel
from sepbench.cli.config_files import file_text, read_file
from sepbench.cli.main import app
from sepbench.errors import SepbenchError
from sepbench.run.request import RunRequest


class Asked(Exception):
    """Ends a command where what it passes on is known."""


def sepbench(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


# ---- run -------------------------------------------------------------------------------------------------------------------------------

REQUEST: dict[str, Any] = {
    **{"suite": "digits-pairs", "methods": (), "tasks": (), "limit": None, "device": "auto", "seed": 0, "budget": "paper", "settings": {}},
    **{"keep_estimates": True, "latency": False, "retry_failed": False, "refit": False, "shard_size": None},
}
GIVEN: dict[str, tuple[tuple[str, ...], Any]] = {
    "methods": (("--methods", "nmf, ica"), ("nmf", "ica")),
    "tasks": (("--tasks", "a,b"), ("a", "b")),
    "limit": (("--limit", "7"), 7),
    "device": (("--device", "cuda:1"), "cuda:1"),
    "seed": (("--seed", "3"), 3),
    "budget": (("--budget", "quick"), "quick"),
    "settings": (("--set", "nmf.atoms=8", "--set", "nmf.x=1"), {"nmf": {"atoms": 8, "x": 1}}),
    "keep_estimates": (("--no-keep-estimates",), False),
    "latency": (("--latency",), True),
    "retry_failed": (("--retry-failed",), True),
    "refit": (("--refit",), True),
    "shard_size": (("--shard-size", "9"), 9),
}


@pytest.mark.parametrize("name", ["", *GIVEN])
def test_an_option_of_run_changes_what_it_is_called_after_and_nothing_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[RunRequest] = []

    def stop(request: RunRequest, suite: object) -> None:
        asked.append(request)
        raise Asked

    monkeypatch.setattr("sepbench.run.plan.make_plan", stop)
    words, value = GIVEN[name] if name else ((), None)
    assert isinstance(sepbench("run", "--suite", "digits-pairs", *words).exception, Asked)
    assert {key: getattr(asked[0], key) for key in REQUEST} == REQUEST | ({name: value} if name else {})


@pytest.mark.parametrize(
    ("words", "wanted"),
    [((), (1, 1, "local", "")), (("--seeds", "4", "--fits", "5"), (4, 5, "local", "")), (("--backend", "ray", "--workers", "3"), (1, 1, "ray", "3"))],
)
def test_seeds_fits_and_workers_of_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], wanted: tuple[Any, ...]) -> None:
    made: list[Any] = []
    monkeypatch.setattr("sepbench.run.backends.chosen.make_backend", lambda *given: made.extend(given[:2]) or SimpleNamespace(workers=1))

    def stop(plan: Any, suite: Any, seeds: int, fits: int) -> None:
        made[:0] = [seeds, fits]
        raise Asked

    monkeypatch.setattr("sepbench.run.plan.repeated_plans", stop)
    asked = ("run", "--suite", "digits-pairs", "--methods", "average", "--device", "cpu", "--out", str(tmp_path / "run"))
    assert isinstance(sepbench(*asked, *words).exception, Asked)
    assert tuple(made) == wanted


# ---- train -----------------------------------------------------------------------------------------------------------------------------

TRAIN: dict[str, Any] = {
    **{"labels": (), "folder": Path("runs/train-digits-score"), "out": Path("digits-score.safetensors"), "steps": None, "minutes": None, "init": None},
    **{"seed": 0, "device": "cpu", "command": "sepbench train score --dataset digits"},
}
TRAINED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "labels": (("--labels", "1,0"), {"labels": (1, 0), "folder": Path("runs/train-digits-score-10"), "out": Path("digits-score-10.safetensors")}),
    "folder": (("--folder", "here"), {"folder": Path("here")}),
    "out": (("--out", "w.safetensors"), {"out": Path("w.safetensors")}),
    "steps": (("--steps", "5"), {"steps": 5}),
    "minutes": (("--minutes", "0.5"), {"minutes": 0.5}),
    "init": (("--init", "old"), {"init": Path("old")}),
    "seed": (("--seed", "4"), {"seed": 4}),
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kind", ["score", "vqvae"])
def test_an_option_of_train_reaches_the_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, kind: str) -> None:
    asked: list[dict[str, Any]] = []

    def trainer(signals: Any, **options: Any) -> Path:
        options.pop("progress")(0.5, "half")
        asked.append(options)
        return Path("made.safetensors")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sepbench.registry.trainer", lambda wanted: trainer)
    monkeypatch.setattr("sepbench.run.timing.keep_freed_memory", lambda: None)
    monkeypatch.setattr("sepbench.run.plan.resolve_device", lambda device: {"auto": "cpu"}[device])
    monkeypatch.setattr(sys, "argv", ["sepbench", "train", kind, "--dataset", "digits"])
    words, differs = TRAINED[name]
    done = sepbench("train", kind, "--dataset", "digits", *words)
    assert done.exit_code == 0, done.output
    wanted = {key: value if not isinstance(value, (str, Path)) else type(value)(str(value).replace("score", kind)) for key, value in (TRAIN | differs).items()}
    assert asked == [wanted]
    use = "sepbench train tokens --init made.safetensors ..." if kind == "vqvae" else "sepbench run ... --set METHOD.weights=made.safetensors"
    assert done.stdout == f"made.safetensors and its card made.json written. It is used by: {use}\n"


# ---- panel -----------------------------------------------------------------------------------------------------------------------------


def job(**changes: Any) -> Any:
    run = SimpleNamespace(
        metric=SimpleNamespace(info=SimpleNamespace(name="psnr", higher_is_better=True)),
        values=lambda task, method: {4: 1.0, 5: 3.0, 6: 2.0},
        n_planned=lambda task: 20,
        warn=changes.pop("warn", None),
    )
    options = {"by_name": False, "examples": (), "count": None, "device": "cuda:3", "folder": Path("out")} | changes
    return panel._Job(run, SimpleNamespace(spec=SimpleNamespace(name="t")), ["m", "n"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("examples", "example"), [((), 6), ((9, 3), 9)])
def test_samples_are_of_one_mixture_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, examples: tuple[int, ...], example: int) -> None:
    one = job(examples=examples)
    monkeypatch.setattr("sepbench.report.panels.samples.sample_sheet", lambda *given: given)
    monkeypatch.setattr("sepbench.report.panels.sheet.draw_sheet", lambda sheet, path: (sheet, path))
    assert one._samples("m", 5) == ((one.run, one.task, "m", example, 5, "cuda:3"), Path("out/samples-t-m.png"))


def test_gradients_are_computed_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job()
    monkeypatch.setattr("sepbench.report.panels.gradients.gradient_norms", lambda *given: given)
    monkeypatch.setattr("sepbench.report.panels.gradients.draw_gradients", lambda norms, path: (norms, path))
    assert one._gradients("m") == ((one.run, one.task, "m", "cuda:3"), Path("out/gradient-norm-t-m.png"))


@pytest.mark.parametrize(("able", "by_name", "told"), [(("m",), True, ["--x is not for n: only a method that draws can serve it"]), (("m",), False, [])])
def test_only_named_methods_are_said_to_be_unable(able: tuple[str, ...], by_name: bool, told: list[str]) -> None:
    said: list[str] = []
    one = job(by_name=by_name, warn=said.append)
    assert one._able(lambda run, method: method in able, "--x", "draws") == ["m"]
    assert said == told
    with pytest.raises(SepbenchError) as refused:
        one._able(lambda run, method: False, "--x", "draws")
    assert str(refused.value) == "--x: none of m, n draws; name a method of the run that does, or leave the option out"


@pytest.mark.parametrize(("text", "found"), [("", ()), ("0,5, 7,", (0, 5, 7)), (" 3 ", (3,))])
def test_numbers_with_commas(text: str, found: tuple[int, ...]) -> None:
    assert panel.numbers(text) == found


# ---- words that depend on what is there ------------------------------------------------------------------------------------------------

STATES = {
    "missing, offered": ("missing", "zip", False, "[yellow]download[/yellow]"),
    "incomplete, offered": ("incomplete", "zip", False, "[yellow]download[/yellow]\n(incomplete)"),
    "missing, own": ("missing", None, False, "[yellow]own copy[/yellow]"),
    "incomplete, own": ("incomplete", None, False, "[yellow]own copy[/yellow]\n(incomplete)"),
    "damaged": ("damaged", "zip", False, "[red]damaged[/red]"),
    "there": ("complete", "zip", False, "[green]ready[/green]"),
    "built in": ("built-in", "zip", False, "[green]ready[/green]\n(built in)"),
    "on demand": ("on demand", None, False, "[green]ready[/green]\n(made when used)"),
    "cut": ("complete", None, True, "[green]ready[/green]\n(cut from whole)"),
}


@pytest.mark.parametrize("case", STATES)
def test_the_state_of_a_data_set_in_words(case: str) -> None:
    state, form, cut, words = STATES[case]
    assert data._state_text(SimpleNamespace(download_form=form, cut_from="whole"), SimpleNamespace(state=state), cut) == words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cut_from", "folder", "cut"), [("", None, False), ("", Path("a/x"), False), ("x", None, False), ("x", Path("a/x"), True), ("x", Path("x/a"), False)]
)
def test_a_data_set_is_cut_where_it_lies_in_the_other_ones_folder(cut_from: str, folder: Path | None, cut: bool) -> None:
    assert data._is_cut(SimpleNamespace(cut_from=cut_from), SimpleNamespace(folder=folder)) is cut  # type: ignore[arg-type]


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize(("planned", "limit"), [(1000, ""), (999, " --limit 999")])
@pytest.mark.parametrize(
    ("methods", "named"), [(("ica", "nmf", "average"), "nmf,average"), (("ica", "rpca", "x"), "ica,rpca"), (("average", "ica"), "average"), (("x",), "x")]
)
def test_a_row_that_stands_alone_is_told_how_others_join(
    capsys: pytest.CaptureFixture[str], others: int, planned: int, limit: str, methods: tuple[str, ...], named: str
) -> None:
    record = SimpleNamespace(
        methods_on=lambda task: ["mine", *["nmf"] * others], tasks={"t": SimpleNamespace(n_planned=planned)}, suite=SimpleNamespace(path="my suite.toml")
    )
    suite: Any = SimpleNamespace(name="s", methods=methods, tasks={"t": SimpleNamespace(n_examples=1000)})
    store: Any = SimpleNamespace(read_run=lambda: record, path=Path("here"))
    evaluate._print_next_step(store, "t", "mine", suite, Console())
    line = f"to compare mine with methods on the same mixtures: sepbench run --suite 'my suite.toml' --tasks t --methods {named}{limit} --out here\n"
    assert capsys.readouterr().out == ("" if others else line)


@pytest.mark.parametrize(
    ("text", "found"), [("", ["aa", "ab", "b"]), ("a", ["aa", "ab"]), ("b,a", ["b,aa", "b,ab"]), ("aa, a", ["aa,ab"]), ("aa,ab,b,", []), ("x", [])]
)
def test_lists_with_commas_leave_out_what_they_have(text: str, found: list[str]) -> None:
    assert completion._in_list(text, ["aa", "ab", "b"]) == found


@pytest.mark.parametrize("content", [None, "tasks = [", "tasks = 3", "x = 1", b"\xff"], ids=str)
def test_a_suite_that_cannot_be_read_completes_no_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None) -> None:
    if content is not None:
        (tmp_path / "suite.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr("sepbench.registry.suite_path", lambda name: tmp_path / "suite.toml")
    assert completion._tasks("mine") == []


@pytest.mark.parametrize("ending", [".YAML", ".Json", ".TOML", ".yml"])
def test_endings_are_taken_in_any_letters_and_with_a_mark_of_bytes(tmp_path: Path, ending: str) -> None:
    text = {".json": '{"limit": 3}', ".toml": "limit = 3"}.get(ending.lower(), "limit: 3")
    (tmp_path / f"a{ending}").write_text(text, encoding="utf-8-sig")
    assert read_file(tmp_path / f"a{ending}") == {"limit": 3}


@pytest.mark.parametrize(("ending", "text"), [(".yaml", "# told\na: ä\n"), (".yml", "# told\na: ä\n"), (".JSON", '{\n  "a": "ä"\n}\n')])
def test_a_file_is_written_in_whole(ending: str, text: str) -> None:
    assert file_text({"a": "ä"}, ending, "told") == text
    assert file_text({"a": "ä"}, ending) == text.removeprefix("# told\n")
    with pytest.raises(SepbenchError, match=r"^--save-config writes files that end in \.yaml or \.json$"):
        file_text({}, ".toml")
