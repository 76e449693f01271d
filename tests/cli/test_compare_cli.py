"""``sepbench compare`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import typer
from synthetic_run import SyntheticRun
from typer.testing import CliRunner, Result

from sepbench.cli.compare import compare
from sepbench.errors import SepbenchError
from sepbench.results.compare import COMPARE_COLUMNS, compare_sides, open_side

app = typer.Typer()
app.command()(compare)


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    return SyntheticRun(n=50).save(tmp_path / "run")


def test_two_methods_of_a_run(saved: str) -> None:
    result = invoke(f"{saved}:nmf", f"{saved}:average")
    assert result.exit_code == 0, result.output
    assert "A better" in result.output
    assert f"A = {saved}:nmf" in result.output
    assert " dB " in result.output


def test_two_runs(saved: str, tmp_path: Path) -> None:
    other = SyntheticRun(n=50).shift("nmf", "psnr", 1.0).save(tmp_path / "other")
    result = invoke(saved, other)
    assert result.exit_code == 0, result.output
    assert "B better" in result.output
    assert "no difference shown" in " ".join(result.output.split())
    assert "-1.00 [-1.00, -1.00]" in result.output


def test_metrics_and_csv(saved: str, tmp_path: Path) -> None:
    for options, metrics in (((), ["psnr"]), (("--metric", "ssim,psnr"), ["ssim", "psnr"]), (("--all-metrics",), ["psnr", "ssim", "mixture_error"])):
        result = invoke(f"{saved}:nmf", f"{saved}:average", *options, "--csv", str(tmp_path / "rows.csv"))
        assert result.exit_code == 0, result.output
        assert list(pd.read_csv(tmp_path / "rows.csv")["metric"]) == metrics


def test_wide_enough_for_the_interval(saved: str) -> None:
    lines = invoke(f"{saved}:nmf", f"{saved}:average", "--all-metrics").output.splitlines()
    assert max(map(len, (line for line in lines if not line.startswith(("A = ", "B = "))))) <= 80
    assert sum("A better" in line and "[" in line and "]" in line for line in lines) == 3  # one line per metric, verdict and interval whole
    assert "mixture_error: lower is better" in lines


def test_errors_are_one_line(saved: str, tmp_path: Path) -> None:
    changed = SyntheticRun(n=50)
    changed.record["tasks"]["class-split"]["digest"] = "feed"
    other = changed.save(tmp_path / "other")
    for arguments, message in (
        ((saved, other), "other mixtures"),
        ((saved, str(tmp_path / "nothing")), "there is no"),
        ((f"{saved}:nfm", saved), "did you mean nmf"),
        ((saved, saved, "--metric", "psnrr"), "did you mean psnr"),
        ((saved, saved, "--metric", "sdr"), "unknown metric 'sdr'; "),
        ((saved, saved, "--metric", "psnr", "--all-metrics"), "exclude each other"),
    ):
        result = invoke(*arguments)
        assert isinstance(result.exception, SepbenchError), result.output
        assert message in str(result.exception)
        assert "\n" not in str(result.exception)


def test_json_has_every_column_at_full_precision(tmp_path: Path) -> None:
    a, b = (SyntheticRun({"nmf": level}, n=20, key=key).save(tmp_path / name) for name, level, key in (("a", 16.0, 1), ("b", 15.0, 2)))
    result = invoke(a, b, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (row,) = document["rows"]
    (mine,) = compare_sides(open_side(a), open_side(b)).to_dict("records")
    assert {key: row[key] for key in COMPARE_COLUMNS} == mine
    assert (document["a"], document["b"]) == (a, b)
