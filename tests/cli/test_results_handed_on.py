"""What the commands about results and suites hand on, and every word that they print: ``publish``, ``score``, ``check``, ``compare``, ``export`` ..."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from sepbench.cli import export
from sepbench.cli.threads import set_defaults, use_threads
from sepbench.errors import SepbenchError, SuiteError
from sepbench.results.gate import Scope


@cache
def alone(command: str) -> typer.Typer:
    """One command by itself: the whole ``sepbench`` takes ten times as long to build, at every call."""
    app = typer.Typer()
    app.command()(getattr(importlib.import_module(f"sepbench.cli.{command}"), command))
    return app


def sepbench(command: str, *arguments: str, columns: str = "40") -> Any:
    return CliRunner().invoke(alone(command), list(arguments), env={"COLUMNS": columns})  # narrow: lines that are to stay whole must not be folded


def well(*arguments: str) -> str:
    done = sepbench(*arguments)
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return str(done.stdout)


# ---- publish ---------------------------------------------------------------------------------------------------------------------------

PUBLISHED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--to", "there"): {"to": Path("there")},
    ("--methods", "a, b"): {"methods": ("a", "b")},
    ("--tasks", "t,u,"): {"tasks": ("t", "u")},
    ("--force",): {"force": True},
}


@pytest.mark.parametrize("words", PUBLISHED, ids=" ".join)
def test_an_option_of_publish_changes_what_it_is_called_after_and_nothing_else(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    asked: list[dict[str, Any]] = []
    left_out = ("t, [bold]m: not finished", "u, n: quick")
    done = SimpleNamespace(path=Path("boards/a-suite-with-a-long-name[b].csv"), replaced=2, added=3, removed=0, left_out=left_out)
    monkeypatch.setattr("sepbench.results.publication.publish_run", lambda run, to, **options: asked.append({"run": run, "to": to, **options}) or done)
    out = well("publish", "runs/x", *words)
    assert callable(asked[0].pop("waiting"))
    assert asked == [{"run": "runs/x", "to": Path("leaderboards"), "force": False, "tasks": (), "methods": ()} | PUBLISHED[words]]
    assert out == f"{done.path}: 2 rows replaced, 3 added\nleft out: t, [bold]m: not finished\nleft out: u, n: quick\n"


def test_publish_says_on_stderr_that_it_waits_and_how_many_rows_went(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sepbench.cli.publish import publish

    def waited(run: str, to: Path, *, waiting: Callable[[], None], **options: object) -> SimpleNamespace:
        waiting()
        return SimpleNamespace(path=to / "s.csv", replaced=1, added=0, removed=4, left_out=())

    monkeypatch.setattr("sepbench.results.publication.publish_run", waited)
    publish("runs/x", Path("boards[b]"), "", "", True)
    out, err = capsys.readouterr()
    assert out == "boards[b]/s.csv: 1 rows replaced, 0 added, 4 removed\n"
    assert err == "waiting for another process that works in boards[b]\n"


# ---- score -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "metrics", "device"), [((), (), "<cpu>"), (("--metrics", "psnr, fid"), ("psnr", "fid"), "<cpu>"), (("--device", "cuda:1"), (), "<cuda:1>")]
)
def test_score_hands_on_metrics_and_device_and_writes_what_it_scored(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], metrics: tuple[str, ...], device: str
) -> None:
    order: list[Any] = []

    @contextlib.contextmanager
    def session() -> Any:
        order.append("session")
        yield
        order.append("end")

    record: Any = SimpleNamespace(suite=SimpleNamespace(name="s", path="a.toml"))
    store: Any = SimpleNamespace(read_run=lambda: record, refuse_older=lambda given: order.append(("older", given is record)), session=session)
    store.end_session = lambda chosen: order.append(("chosen", chosen))

    def opened(path: Path, warn: Callable[[str], None]) -> Any:
        warn("a file [x] of the run is damaged and will be made again by the next run")
        order.append(path)
        return store

    def rescore(*given: Any) -> tuple[str, ...]:
        given[4]("a shard")
        order.append((given[0] is record, *given[1:3], given[3] is store, given[5]))
        return ("scored",)

    monkeypatch.setattr("sepbench.results.store.RunStore.open", opened)
    monkeypatch.setattr("sepbench.suites.loader.recorded_suite", lambda name, path: f"suite {name} of {path}")
    monkeypatch.setattr("sepbench.run.plan.resolve_device", lambda wanted: f"<{wanted}>")
    monkeypatch.setattr("sepbench.run.execute.rescore", rescore)
    monkeypatch.setattr("sepbench.cli.run.finish", lambda given, suite, console: order.append((given is store, suite)))
    done = sepbench("score", "runs/x", *words)
    assert done.exit_code == 0, done.exception
    scored = (True, "suite s of a.toml", metrics, True, device)
    assert order == [Path("runs/x"), ("older", True), "session", scored, ("chosen", ("scored",)), (True, "suite s of a.toml"), "end"]
    assert done.stdout == ""
    assert done.stderr == "warning: a file [x] of the run is damaged and will be made again by the next run\n"


# ---- check and compare -----------------------------------------------------------------------------------------------------------------

CHECKED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--tolerance", "psnr=1", "--tolerance", "ssim=0.5"): {"tolerances": {"psnr": 1.0, "ssim": 0.5}},
    ("--methods", "a, b"): {"scope": Scope((), ("a", "b"))},
    ("--tasks", "t"): {"scope": Scope(("t",))},
    ("--subset",): {"scope": Scope(subset=True)},
}


@pytest.mark.parametrize(("words", "code"), [*((words, 0) for words in CHECKED), ((), 1), ((), 2)], ids=str)
def test_an_option_of_check_reaches_the_gate(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int) -> None:
    asked: list[Any] = []
    agree: list[Any] = []
    monkeypatch.setattr("sepbench.results.agreement.check_agreement", lambda *given: agree.append(given))
    monkeypatch.setattr("sepbench.results.target.open_results", lambda target, suites=False: (target, suites))
    monkeypatch.setattr("sepbench.results.gate.check_results", lambda *given: asked.append(given) or SimpleNamespace(exit_code=code))
    monkeypatch.setattr("sepbench.report.table.gate_json", lambda report, new, old: f"JSON {new} {old} {report.exit_code}")
    monkeypatch.setattr("sepbench.report.table.render_gate", lambda report, new, old, console: console.print(f"table {new} {old} {report.exit_code}"))
    wanted = {"tolerances": {}, "scope": Scope()} | CHECKED[words]
    for form, said in (((), "table"), (("--format", "table"), "table"), (("--format", "json"), "JSON"), (("--json",), "JSON")):
        done = sepbench("check", "new", "--against", "old", *words, *form)
        assert (done.exit_code, done.stdout) == (code, f"{said} new old {code}\n")
    assert asked == [(("new", False), ("old", True), wanted["tolerances"], wanted["scope"])] * 4
    assert agree == [(side, wanted["scope"].tasks, wanted["scope"].methods) for side in (("new", False), ("old", True))] * 4


def side(label: str, *metrics: str) -> Any:
    return SimpleNamespace(label=label, results=SimpleNamespace(frame=pd.DataFrame({"metric": metrics})))


@pytest.mark.parametrize(
    ("words", "metrics"), [((), ()), (("--metric", "ssim, psnr"), ("ssim", "psnr")), (("--all-metrics",), ["psnr", "ssim"]), (("--metric", ","), ())]
)
def test_compare_hands_on_sides_and_metrics(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], metrics: Any) -> None:
    """All metrics are those that both have, each once, in the order of the first."""
    sides = {"one": side("A!", "psnr", "mse", "ssim", "psnr"), "two:m": side("B!", "ssim", "fid", "psnr")}
    asked: list[Any] = []
    monkeypatch.setattr("sepbench.results.compare.open_side", sides.__getitem__)
    monkeypatch.setattr("sepbench.results.compare.compare_sides", lambda *given: asked.append(given) or "rows")
    monkeypatch.setattr("sepbench.results.compare.write_comparison", lambda *given: asked.append(given))
    monkeypatch.setattr("sepbench.report.table.render_comparison", lambda rows, a, b, console: console.print(rows, a, b))
    monkeypatch.setattr("sepbench.report.documents.comparison_document", lambda *given: given)
    monkeypatch.setattr("sepbench.report.documents.json_text", lambda document: f"JSON {' '.join(document)}")
    compared = (sides["one"], sides["two:m"], metrics)
    assert well("compare", "one", "two:m", *words) == "rows A! B!\n"
    assert well("compare", "one", "two:m", *words, "--json") == "JSON rows A! B!\n"
    assert asked == [compared] * 2
    assert well("compare", "one", "two:m", *words, "--csv", "a.csv") == "rows A! B!\n"
    assert asked[2:] == [compared, ("rows", Path("a.csv"))]


# ---- export ----------------------------------------------------------------------------------------------------------------------------

EXPORTED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--references",): {"references": True},
    ("--format", "wav"): {"form": "wav"},
    ("--limit", "5"): {"limit": 5},
}


@pytest.mark.parametrize("words", EXPORTED, ids=" ".join)
def test_an_option_of_export_changes_what_it_is_called_after_and_nothing_else(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    asked: list[Any] = []

    def made(suite: Any, task: Any, out: Path, **options: Any) -> bool:
        options.pop("advance")(1_000, 2_000)
        asked.append((suite.name, task.spec.name, out, options))
        return True

    monkeypatch.setattr("sepbench.suites.export.export_task", made)
    monkeypatch.setattr("sepbench.cli.evaluate.fetch_data_of", lambda task: asked.append(task.spec.name))
    assert well("export", "--suite", "digits-pairs", "--task", "class-agnostic", "--out", "o/p", *words).count("\n") == (5 if "--references" in words else 4)
    options = {"form": "npy", "references": False, "limit": None} | EXPORTED[words]
    assert asked == ["class-agnostic", ("digits-pairs", "class-agnostic", Path("o/p"), options)]


def test_an_export_that_is_interrupted_or_of_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **options: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("sepbench.suites.export.export_task", interrupted)
    done = sepbench("export", "--suite", "digits-pairs", "--task", "class-split", "--out", "o")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted; nothing was written, the same command starts again\n"
    assert str(sepbench("export", "--suite", "digits-pairs", "--task", "class", "--out", "o").exception).startswith(
        "unknown task of suite digits-pairs 'class'; "
    )


def exported(
    form: str = "npy", n: int = 1_000, count: int = 1_000, references: bool = False, draws: int = 0, highest: float = 1.0, made: bool = True, by: str = "sum"
) -> list[str]:
    spec = SimpleNamespace(name="t", n_sources=2, source_shape=(1, 8, 9), posterior_draws=draws, operator=by)
    operator = SimpleNamespace(output_range=lambda low, high: (0.0, highest))
    task: Any = SimpleNamespace(spec=spec, n_examples=n, mixture_set=lambda: SimpleNamespace(operator_for=lambda ids: operator))
    return export._told("s", "my suite.toml", task, Path("o"), export.FormatChoice(form), references, count, made)


ARRAY, FILES = "one array {}", "2 files each, named as 000000_1.{}"
EXPORTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "all": ({}, "1,000 mixtures of s, t, as npy: o/mixtures.npy", ARRAY.format((1000, 2, 1, 8, 9)), ""),
    "one": ({"made": False, "count": 1}, "1 mixture of s, t, as npy (there already): o/mixtures.npy", ARRAY.format((1, 2, 1, 8, 9)), " --limit 1"),
    "draws": ({"form": "npz", "draws": 5, "count": 999}, "999 mixtures of s, t, as npz: o/mixtures.npz", ARRAY.format((999, 5, 2, 1, 8, 9)), " --limit 999"),
    "few": ({"form": "safetensors", "n": 3, "count": 3}, "3 mixtures of s, t, as safetensors: o/mixtures.safetensors", ARRAY.format((3, 2, 1, 8, 9)), ""),
    "quieter": ({"by": "mean"}, "1,000 mixtures of s, t, as npy: o/mixtures.npy", ARRAY.format((1000, 2, 1, 8, 9)), ""),
    "sounds": ({"form": "wav", "by": "gain"}, "1,000 mixtures of s, t, as wav: o/mixtures/", FILES.format("wav"), ""),
    "pictures": ({"form": "png", "highest": 1.5}, "1,000 mixtures of s, t, as png: o/mixtures/", FILES.format("png"), ""),
}


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("case", EXPORTS)
def test_what_an_export_says_in_whole(case: str, references: bool) -> None:
    given, first, estimates, limit = EXPORTS[case]
    pictures, weighted = case == "pictures", case in ("quieter", "sounds")
    weights = "Each is a source before its weight in the mixture: divide a stem as it sounds there by its weight in manifest.json. " * weighted
    assert exported(**given, references=references) == [
        first,
        *([f"true sources: {first.rpartition(' ')[2].replace('mixtures', 'references')}"] if references else []),
        f"{'what the pixels mean, and ' if pictures else ''}how they were mixed: o/manifest.json",
        *(["the pixel 65535 means 1.5 in a mixture and 1 in an estimate"] if pictures else []),
        f"Next: separate them into {estimates} (docs/evaluate.md has more layouts). {weights}Then:",
        f"  sepbench evaluate --suite 'my suite.toml' --task t --estimates PATH --name NAME{limit}",
    ]


# ---- verify and freeze -----------------------------------------------------------------------------------------------------------------


def check(what: str, digest: str = "", problem: str = "", frozen: bool = True) -> Any:
    return SimpleNamespace(what=what, digest=digest, problem=problem, frozen=frozen)


@pytest.mark.parametrize(
    ("checks", "out", "error"),
    [
        ([check("a", "12"), check("b", "34", frozen=False), check("c")], "a: ok, 12\nb: not frozen, 34\nc: ok\n", None),
        ([check("a", "12"), check("b", "34", "b differs")], "a: ok, 12\nb: wrong\n", "s is not as it was frozen: b differs"),
        ([check("a", "", "no a", False), check("b", "34", "b differs")], "a: wrong\nb: wrong\n", "s is not as it was frozen: no a (2 in all are wrong)"),
        ([], "", None),
    ],
)
def test_verify_tells_every_check_and_then_what_is_wrong(monkeypatch: pytest.MonkeyPatch, checks: list[Any], out: str, error: str | None) -> None:
    monkeypatch.setattr("sepbench.suites.verify.verify_suite", {"s": checks}.__getitem__)
    done = sepbench("verify", "s")
    assert done.stdout == out
    assert (str(done.exception) if done.exception else None) == error
    assert error is None or isinstance(done.exception, SuiteError)


def test_freeze_tells_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {name: SimpleNamespace(n_examples=n, mixtures_sha256=f"{n:x}" * 8) for name, n in (("one", 1), ("many", 1_234))}
    monkeypatch.setattr("sepbench.suites.freeze.freeze_suite", {"mine": SimpleNamespace(tasks=tasks)}.__getitem__)
    assert well("freeze", "mine") == "one: 1 mixture, 11111111\nmany: 1,234 mixtures, 4d24d24d24d24d24d24d24d2\n"


# ---- threads ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [({}, ("1", "0")), ({"OMP_NUM_THREADS": "4"}, ("4", "0")), ({"GOMP_SPINCOUNT": "9"}, ("1", "9"))])
def test_threads_are_one_and_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: tuple[str, str]) -> None:
    monkeypatch.setattr(os, "environ", dict(before))
    set_defaults()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["GOMP_SPINCOUNT"]) == after
    use_threads(None)
    assert os.environ["OMP_NUM_THREADS"] == after[0]
    use_threads(3)
    assert (os.environ["OMP_NUM_THREADS"], os.environ["GOMP_SPINCOUNT"]) == ("3", after[1])


# ---- validate --------------------------------------------------------------------------------------------------------------------------

VALIDATED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--device", "cuda:1"): {"device": "<cuda:1>"},
    ("--budget", "paper"): {"budget": "paper"},
    ("--examples", "9"): {"examples": 9},
    ("--set", "nmf.atoms=3"): {"settings": {"atoms": 3}},
    ("--task", "class-agnostic"): {"task": "class-agnostic"},
    ("--suite", "mnist-pairs"): {"suite": "mnist-pairs"},
}


@pytest.mark.parametrize("words", VALIDATED, ids=" ".join)
def test_an_option_of_validate_reaches_the_rules(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    asked: list[Any] = []

    def rules(method: str, task: Any, warn: Any, **options: Any) -> list[Any]:
        asked.append({"suite": task.spec.suite, "task": task.spec.name, **options})
        return [SimpleNamespace(passed=passed, rule=f"rule {passed}", detail=f"[x] {passed}", traceback="") for passed in (True, None, True)]

    monkeypatch.setattr("sepbench.conformance.validate_method", rules)
    monkeypatch.setattr("sepbench.cli.evaluate.fetch_data_of", lambda task: None)  # the data need not be here
    monkeypatch.setattr("sepbench.run.plan.resolve_device", lambda wanted: f"<{wanted}>")
    done = sepbench("validate", "nmf", *words, columns="200")
    assert done.exit_code == 0, done.exception
    wanted = {"suite": "digits-pairs", "task": "class-split", "device": "<cpu>", "budget": "quick", "settings": {}, "examples": 6} | VALIDATED[words]
    assert asked == [wanted]
    title, last = done.stdout.partition("┏")[0].split(), done.stdout.splitlines()[-1]
    assert " ".join(title) == f"nmf on {wanted['suite']}/{wanted['task']}, {wanted['budget']} budget, {wanted['device'].strip('<>')}"
    assert last == "nmf: 2 rules hold, 0 broken"
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "rule " in line and "[x]" in line]
    assert cells == [["ok", "rule True", "[x] True"], ["-", "rule None", "[x] None"], ["ok", "rule True", "[x] True"]]


def test_validate_offers_the_nearest_task() -> None:
    error = sepbench("validate", "nmf", "--task", "class-splitt").exception
    assert isinstance(error, SepbenchError)
    assert str(error) == "unknown task of digits-pairs 'class-splitt'; did you mean class-split or class-split-val?"
