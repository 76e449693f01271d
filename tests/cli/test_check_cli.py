"""``sepbench check`` on the command line: exit codes 0, 1, 2 and what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from synthetic_run import SyntheticRun
from typer.testing import CliRunner, Result

from sepbench.cli.check import check
from sepbench.errors import SepbenchError
from sepbench.results.leaderboard import write_leaderboard

app = typer.Typer()
app.command()(check)


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments)


def as_csv(run: SyntheticRun, path: Path) -> str:
    write_leaderboard(run.frame(), path)
    return str(path)


@pytest.fixture
def old(tmp_path: Path) -> str:
    return as_csv(SyntheticRun(n=20), tmp_path / "old.csv")


def test_holds(old: str, tmp_path: Path) -> None:
    result = invoke(SyntheticRun(n=20).save(tmp_path / "run"), "--against", old)
    assert result.exit_code == 0
    assert result.output.startswith("holds: ")
    assert "6 figures hold (by means)" in result.output
    assert len(result.output.splitlines()) == 1


def test_regression(old: str, tmp_path: Path) -> None:
    worse = as_csv(SyntheticRun(n=20).shift("nmf", "psnr", -1.0), tmp_path / "new.csv")
    result = invoke(worse, "--against", old)
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert re.search(r"regression class-split, nmf, psnr \S+ -> \S+: -1\.00, tolerance 0\.01", words), words
    assert "average" not in words  # only the rows that matter
    assert "regression: " in result.output.splitlines()[-1]
    assert invoke(worse, "--against", old, "--tolerance", "psnr=2").exit_code == 0


@pytest.mark.parametrize("how", ["row", "digest", "nan"])
def test_not_comparable(old: str, tmp_path: Path, how: str) -> None:
    run = SyntheticRun(n=20)
    if how == "row":
        run.drop_method("nmf")
    frame = run.frame()
    if how == "digest":
        frame["task_digest"] = "feed"
    if how == "nan":
        frame.loc[0, "mean"] = float("nan")
    write_leaderboard(frame, tmp_path / "new.csv")
    result = invoke(str(tmp_path / "new.csv"), "--against", old)
    assert result.exit_code == 2
    assert "not comparable: " in result.output.splitlines()[-1]


def test_json_for_ci(old: str, tmp_path: Path) -> None:
    worse = SyntheticRun(n=20).shift("nmf", "psnr", -1.0).drop_method("average").save(tmp_path / "run")
    result = invoke(worse, "--against", old, "--format", "json")
    assert result.exit_code == 2
    report = json.loads(result.output)
    assert (report["verdict"], report["exit_code"], len(report["rows"])) == ("not comparable", 2, 6)
    by_key = {(row["method"], row["metric"]): row for row in report["rows"]}
    assert by_key["average", "psnr"]["new"] is None
    assert by_key["average", "psnr"]["reason"] == "missing in NEW"
    assert by_key["nmf", "psnr"]["status"] == "regression"
    assert by_key["nmf", "psnr"]["difference"] == pytest.approx(-1.0, abs=1e-4)


def test_run_against_run_pairs(tmp_path: Path) -> None:
    a, b = SyntheticRun(n=20).save(tmp_path / "a"), SyntheticRun(n=20).shift("nmf", "ssim", 0.1).save(tmp_path / "b")
    result = invoke(b, "--against", a)
    assert result.exit_code == 0
    assert "improvement" in result.output
    assert "paired test" in result.output


def test_what_cannot_be_read(old: str, tmp_path: Path) -> None:
    (tmp_path / "text.csv").write_text("hello")
    for arguments, message in (
        ((str(tmp_path / "nothing"), "--against", old), "there is no"),
        ((old, "--against", str(tmp_path / "text.csv")), "not a leaderboard"),
        ((old, "--against", old, "--tolerance", "psnr"), "METRIC=VALUE"),
        ((old, "--against", "digits-pears"), "digits-pears"),
    ):
        result = invoke(*arguments)
        assert isinstance(result.exception, SepbenchError), result.output
        assert message in str(result.exception)
