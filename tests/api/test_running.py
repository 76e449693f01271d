"""``sepbench.run``: the command's numbers, own classes and objects, and one clear error for what is wrong."""

from __future__ import annotations

import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from own_methods_toys import Hidden, Misshapes, NamedAverage, Raises, Scoped, Shares, Takes
from third_parties import install
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner, Result

import sepbench
from sepbench import Run, RunWarning, SepbenchError
from sepbench.ambient import threads
from sepbench.api import running
from sepbench.cli.run import run as run_command
from sepbench.cli.show import show
from sepbench.errors import ArgumentError, SettingError, UnknownNameError
from sepbench.registry import BACKEND_GROUP
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.store import RunStore
from sepbench.run.request import RequestError

app = typer.Typer()
app.command("run")(run_command)
app.command("show")(show)

KEYS = ["task", "method", "example", "source", "metric"]


def quick(*methods: Any, **options: Any) -> Run:
    return sepbench.run("digits-pairs", methods=methods, **({"tasks": "class-split", "limit": 6, "device": "cpu"} | options))


def command(*arguments: str) -> Result:
    """The command in this process, with the threads that it would have in its own."""
    with threads(running.thread_count(None)):
        return CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments)


def mean(run: Run, method: str, metric: str = "psnr") -> float:
    rows = run.summary.query("method == @method and metric == @metric")
    return float(rows["mean"].iloc[0])


def test_the_numbers_are_the_commands_to_the_bit(shared_run: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "command")
    options = ["--suite", "digits-pairs", "--methods", "average,nmf", "--limit", "12", "--device", "cpu", "--refit", "--out", out]
    assert command("run", *options).exit_code == 0
    theirs = RunStore.open(Path(out)).read_scores().astype({"task": object, "method": object, "metric": object})
    ours = shared_run.scores.query("method != 'shares'").reset_index(drop=True)
    pd.testing.assert_frame_equal(ours[[*KEYS, "value"]], theirs[[*KEYS, "value"]], check_exact=True, check_dtype=False)
    for task in shared_run.tasks:
        for method in ("average", "nmf"):
            assert torch.equal(shared_run.estimates(task, method), sepbench.open_run(out).estimates(task, method))
    assert shared_run.record.tasks == sepbench.open_run(out).record.tasks
    assert sepbench.compare(shared_run.method("nmf"), f"{out}:nmf").frame["difference"].abs().max() == 0


def test_a_call_and_the_command_share_a_folder_and_nothing_is_done_twice() -> None:
    first = quick("average")
    assert command("run", "--suite", "digits-pairs", "--methods", "average", "--tasks", "class-split", "--limit", "6").exit_code == 0
    again = quick("average")
    assert first.path == again.path
    assert first.path.parent == Path("runs")
    assert len(again.record.sessions) == 3
    pd.testing.assert_frame_equal(first.scores, again.scores)  # the seconds too: they are those of the first time
    assert list(Path("runs").iterdir()) == [again.path]
    assert "sepbench.run('digits-pairs', methods=['average']" in first.record.command


def test_an_object_of_ones_own_stands_beside_registered_methods(shared_run: Run) -> None:
    assert shared_run.methods == ("average", "nmf", "shares")
    task = sepbench.load_suite("digits-pairs").task("class-split")
    mixtures = task.mixtures(range(12))
    assert torch.equal(shared_run.estimates("class-split", "shares")[:, 0], 0.3 * mixtures)
    assert shared_run.record.methods["shares"].settings == {"share": 0.3}
    shown = command("show", str(shared_run.path))
    assert shown.exit_code == 0
    assert "shares" in shown.output


def test_a_class_takes_settings_and_an_object_has_its_own() -> None:
    as_class = quick(Shares, settings={"shares": {"share": 0.3}})
    as_object = quick(Shares(0.3))
    assert as_class.path == as_object.path  # the same method with the same settings is the same run
    with pytest.raises(SettingError, match="shares has no settings"):
        quick(Shares(0.3), settings={"shares": {"share": 0.4}})
    with pytest.raises(UnknownNameError, match="unknown setting of shares 'shar'; did you mean share"):
        quick(Shares, settings={"shares": {"shar": 0.3}})
    registered = quick("nmf", settings={"nmf": {"atoms": 3}})
    assert registered.record.methods["nmf"].settings["atoms"] == 3


def test_what_an_object_hides_makes_another_run() -> None:
    layers = [torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)]
    for layer in layers:
        torch.nn.init.constant_(layer.weight, 0.25)
    given = Hidden(0.3, layers[0])
    runs = [quick(one) for one in (given, Hidden(0.3, layers[1]), Hidden(0.4, layers[0]))]
    assert runs[0].path == runs[1].path  # equal content
    assert runs[0].path != runs[2].path
    assert mean(runs[0], "hidden") != mean(runs[2], "hidden")
    torch.nn.init.constant_(layers[1].weight, 0.5)
    assert quick(Hidden(0.3, layers[1])).path not in {run.path for run in runs}
    assert given.fits == 0  # copies were fitted
    with_file = Hidden(0.3)
    with_file._file = lambda: None  # type: ignore[attr-defined]
    assert quick(with_file).path != quick(with_file).path  # what cannot be told from another is run anew


SOURCE = """
from sepbench.protocols import MethodInfo, Support

FACTOR = {factor}

def scaled(values):
    {comment}
    return FACTOR * values

class Typed:
    info = MethodInfo("typed", "Typed", "1", frozenset({{"image"}}), "blind", "none", True)
    def supports(self, task): return Support(True)
    def fit(self, view, ctx): pass
    def separate(self, mixtures, ctx): return mixtures.operator.pseudo_inverse(scaled(mixtures.values))
"""


def typed(**parts: Any) -> type:
    """A class as a notebook's cell defines it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(SOURCE.format(**parts), "<cell>", "exec"), names)
    return names["Typed"]  # type: ignore[no-any-return]


def test_a_class_that_is_typed_in_anew_is_a_new_method() -> None:
    first = quick(typed(factor=1.0, comment=""))
    assert quick(typed(factor=1.0, comment="# said otherwise")).path == first.path
    other = quick(typed(factor=0.5, comment=""))
    assert other.path != first.path
    assert mean(other, "typed") != mean(first, "typed")
    with pytest.raises(SepbenchError, match="holds another run: source_sha256 of method typed"):
        quick(typed(factor=0.5, comment=""), out=first.path)


def test_a_run_grows_and_other_methods_join() -> None:
    small = quick("average", out="grows")
    large = quick("average", Shares, out="grows", limit=9)
    assert (small.path, len(large.scores.query("metric == 'psnr'"))) == (large.path, 9 * 2 * 2)


def test_nothing_is_printed_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    run = quick("average", Shares)
    run.summary, run.scores, repr(run)
    assert capfd.readouterr() == ("", "")
    quick("average", out="shown", progress=True)
    out, err = capfd.readouterr()
    assert not out
    assert "done class-split / average: 6 mixtures" in err
    run.show()
    assert "digits-pairs version 1: class-split" in capfd.readouterr().out


def test_what_fails_is_a_warning_and_has_its_traceback() -> None:
    with pytest.warns(RunWarning, match=r"^raises on class-split failed: RuntimeError: .* \(own_methods_toys.py, line \d+\); Run.cells has the traceback"):
        run = quick("average", Raises)
    assert run.summary.query("method == 'raises'")["mean"].isna().all()
    assert set(run.summary.query("method == 'raises'")["state"]) == {"failed"}
    cell = run.cells.set_index("method").loc["raises"]
    assert "own_methods_toys.py" in cell["traceback"]
    assert cell["n_failed"] == 6
    assert mean(run, "average") > 0


def test_the_same_failure_is_told_again_and_of_the_line_that_called() -> None:
    for _ in range(2):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            quick(Raises)
        assert [(Path(one.filename).name, one.category) for one in told] == [("test_running.py", RunWarning)]


def test_an_object_shares_no_fit_with_one_that_hides_something_else() -> None:
    for share in (0.3, 0.4):
        given = Scoped()
        given._share = torch.tensor(share)
        quick(given)
    assert Scoped.learnt == ["class-split"] * 2


def test_threads_are_one_and_afterwards_as_they_were() -> None:
    with threadpool_limits(2, user_api="openmp"):  # not torch.set_num_threads: it breaks batched LU for the process
        run = quick("average")
        assert run.record.environment.threads == 1
        assert quick("average", out="two", threads=2).record.environment.threads == 2
        assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_batched_lu_stays_right_after_a_run_with_other_threads() -> None:
    """What ``torch.set_num_threads`` breaks for a process (pytorch issues 142815 and 141358)."""
    code = """
import torch, sepbench
from threadpoolctl import threadpool_limits
random = torch.Generator().manual_seed(1)
matrices, wanted = (torch.randn(2, 256, columns, dtype=torch.float64, generator=random) for columns in (256, 4))
sepbench.run("digits-pairs", methods="average", tasks="class-split", limit=2, device="cpu", threads=2)
with threadpool_limits(2, user_api="openmp"):
    torch.testing.assert_close(torch.linalg.solve(matrices, matrices @ wanted), wanted, atol=1e-8, rtol=0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class NoInfo(Takes):
    def separate(self, mixtures: Any, ctx: Any) -> Any: ...


class SaysLater(NoInfo):
    @property
    def info(self) -> Any:
        return Shares.info


WRONG: dict[str, tuple[Callable[[], object], type[SepbenchError], str]] = {
    "suite": (lambda: sepbench.run("digit-pairs"), UnknownNameError, "unknown suite 'digit-pairs'; did you mean digits-pairs"),
    "suite object": (lambda: sepbench.run(sepbench.load_suite("digits-pairs")), ArgumentError, "give its name, 'digits-pairs'"),  # type: ignore[arg-type]
    "suite path": (lambda: sepbench.run(Path("x.csv")), ArgumentError, "the path of a TOML file"),
    "method": (lambda: quick("avarage"), UnknownNameError, "unknown method 'avarage'; did you mean average"),
    "methods in one text": (lambda: quick("average,nmf"), ArgumentError, r"methods=\['average', 'nmf'\], not 'average,nmf'"),
    "no method": (lambda: quick(3), ArgumentError, "lacks info, supports, fit, separate"),
    "no methods": (lambda: sepbench.run("digits-pairs", methods=3), ArgumentError, "methods must be"),  # type: ignore[arg-type]
    "no info": (lambda: quick(NoInfo), ArgumentError, r"hand over an object of it: NoInfo\(...\)"),
    "info later": (lambda: quick(SaysLater), ArgumentError, r"hand over an object of it: SaysLater\(...\)"),
    "no info at all": (lambda: quick(NoInfo()), ArgumentError, "lacks info"),
    "name of another": (lambda: quick(NamedAverage), ArgumentError, "'average' is the name of a registered method"),
    "same name": (lambda: quick(Shares, Shares(0.2)), ArgumentError, "two methods of this run are named 'shares'"),
    "workers": (lambda: quick(Shares, workers=2), ArgumentError, r"other processes can import, and 'shares' \(own_methods_toys.Shares\) was handed over"),
    "backend of own": (lambda: quick(Shares, backend="ray"), ArgumentError, r"backend='ray' needs methods that other processes can import"),
    "backend": (lambda: quick("average", backend="locl"), UnknownNameError, "unknown backend 'locl'; did you mean local"),
    "seeds": (lambda: quick("average", seeds=0), ArgumentError, "seeds must be a whole number of at least 1, got 0"),
    "fits": (lambda: quick("average", fits="2"), ArgumentError, "fits must be a whole number of at least 1, got '2'"),
    "latency": (lambda: quick("average", latency=1), ArgumentError, "latency must be True or False, got 1"),
    "task": (lambda: quick("average", tasks="class-splitt"), UnknownNameError, "did you mean class-split"),
    "limit": (lambda: quick("average", limit=0), ArgumentError, "limit must be a whole number of at least 1, got 0"),
    "limit text": (lambda: quick("average", limit="5"), ArgumentError, "limit must be a whole number of at least 1, got '5'"),
    "seed": (lambda: quick("average", seed=-1), ArgumentError, "seed must be a whole number of at least 0, got -1"),
    "seed large": (lambda: quick("average", seed=2**63), RequestError, r"^seed= must be below"),
    "device": (lambda: quick("average", device="gpu"), RequestError, "unknown device 'gpu'; choose cpu"),
    "device none": (lambda: quick("average", device=None), ArgumentError, "device must be 'cpu'"),
    "budget": (lambda: quick("average", budget="papers"), UnknownNameError, "unknown value of budget 'papers'; did you mean paper"),
    "progress": (lambda: quick("average", progress="yes"), ArgumentError, "progress must be True or False, got 'yes'"),
    "settings": (lambda: quick("average", settings=[("nmf", 3)]), ArgumentError, "settings must be a dict, method -> setting -> value"),
    "settings flat": (lambda: quick("nmf", settings={"atoms": 3}), ArgumentError, "settings must be a dict, method -> setting -> value"),
    "settings of none": (lambda: quick("nmf", settings={"nmff": {}}), UnknownNameError, "unknown method of settings 'nmff'; did you mean nmf"),
    "setting": (lambda: quick("nmf", settings={"nmf": {"atom": 3}}), UnknownNameError, "unknown setting of nmf 'atom'; did you mean atoms"),
    "value": (lambda: quick("nmf", settings={"nmf": {"atoms": "x"}}), SettingError, "nmf.atoms must be"),
    "out": (lambda: quick("average", out=3), ArgumentError, "out must be a path, got 3"),
    "nothing runs": (lambda: quick("hpss"), RequestError, "nothing to run: hpss on class-split"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_one_line_at_the_door(wrong: str) -> None:
    call, kind, text = WRONG[wrong]
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
    assert caught.value.__suppress_context__
    files = [Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert set(files) <= {"test_running.py", "arguments.py", "__init__.py"}
    assert not Path("runs").exists()


def _boards(tmp_path: Path, options: dict[str, Any], *words: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``leaderboard.csv`` of a call and of the command with the same options, by method and metric."""
    theirs, ours = tmp_path / "theirs", quick("average", "nmf", budget="quick", out=tmp_path / "ours", **options).path
    asked = ["--suite", "digits-pairs", "--methods", "average,nmf", "--tasks", "class-split", "--limit", "6", "--device", "cpu", "--budget", "quick"]
    assert command("run", *asked, "--out", str(theirs), *words).exit_code == 0
    ours_and_theirs = [read_leaderboard(folder / "leaderboard.csv").set_index(["method", "metric"]) for folder in (ours, theirs)]
    return ours_and_theirs[0], ours_and_theirs[1]


def test_seeds_and_fits_are_the_commands(tmp_path: Path) -> None:
    ours, theirs = _boards(tmp_path, {"seeds": 2, "fits": 2}, "--seeds", "2", "--fits", "2")
    numbers = ["mean", "std", "ci_low", "ci_high", "seeds", "fits", "std_seeds", "std_fits"]
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers], check_exact=True)
    assert (ours.loc[("nmf", "psnr"), "seeds"], ours.loc[("nmf", "psnr"), "fits"]) == (2, 2)
    assert ours.loc[("nmf", "psnr"), "std_fits"] > 0
    shown = sepbench.open_run(tmp_path / "ours").summary.set_index(["method", "metric"])
    assert shown.loc[("nmf", "psnr"), "std_fits"] == pytest.approx(ours.loc[("nmf", "psnr"), "std_fits"], rel=1e-5)  # six digits in a CSV


def test_latency_is_measured_and_changes_no_number(tmp_path: Path) -> None:
    ours, theirs = _boards(tmp_path, {"latency": True}, "--latency")
    for place in ("ours", "theirs"):
        assert (sepbench.open_run(tmp_path / place).cells["latency_seconds"] > 0).all()
    pd.testing.assert_series_equal(ours["mean"], theirs["mean"], check_exact=True)
    assert "latency=True" in sepbench.open_run(tmp_path / "ours").record.command


def test_a_backend_of_another_package_works_from_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "my-cluster", {BACKEND_GROUP: {"mine": "sepbench.run.backends.local:LocalBackend"}})
    ours, theirs = _boards(tmp_path, {"backend": "mine"}, "--backend", "mine")
    pd.testing.assert_series_equal(ours["mean"], theirs["mean"], check_exact=True)
    assert sepbench.open_run(tmp_path / "ours").record.sessions[0].backend == "mine"


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(SepbenchError, match="contains something other than a run; choose a new or empty folder with out="):
        quick("average", out=tmp_path / "photos")


def test_numbers_of_numpy_are_numbers() -> None:
    assert quick("average", limit=np.int64(4), seed=np.int32(0)).record.limit == 4


def test_a_shape_that_is_wrong_is_told_as_in_the_command() -> None:
    with pytest.warns(
        RunWarning, match=r"misshapes on class-split failed: ContractError: separate returned shape \(6, 1, 1, 8, 8\) instead of \(6, 2, 1, 8, 8\)"
    ):
        quick(Misshapes)
