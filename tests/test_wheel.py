"""The wheel, installed into an empty environment and run from an empty folder, is the whole product."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)], check=True, capture_output=True, text=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.mark.slow
def test_everything_travels(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {
        "data_manifests": [p.relative_to(ROOT).as_posix() for p in (ROOT / "data_manifests").rglob("*") if p.is_file()],
        "leaderboards": [p.relative_to(ROOT).as_posix() for p in (ROOT / "leaderboards").rglob("*") if p.is_file()],
    }
    for files in inside.values():
        assert files
        assert not [f for f in files if f"sepbench/_resources/{f}" not in names]
    suites = [f"sepbench/suites/{p.name}" for p in (ROOT / "sepbench" / "suites").glob("*.toml")]
    templates = [f"sepbench/cli/templates/{p.name}" for p in (ROOT / "sepbench" / "cli" / "templates").iterdir()]
    weights = [p.relative_to(ROOT).as_posix() for p in (ROOT / "baselines").rglob("*.safetensors")]
    typed = ["sepbench/py.typed", "baselines/py.typed"]
    pages = [p.relative_to(ROOT).as_posix() for room in ("assets", "templates") for p in (ROOT / "sepbench" / "report" / "html" / room).iterdir()]
    assert pages
    assert not [f for f in [*suites, *templates, *weights, *typed, *pages] if f not in names]
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/")) or n.endswith((".pyc", ".gz", ".npy", ".bin", ".wav"))]


@pytest.mark.slow
def test_it_runs_in_an_empty_environment_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    for what in (["torch==2.13.0"], [str(wheel)]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, *what], check=True, capture_output=True, text=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SEPBENCH_DATA")} | {"SEPBENCH_OFFLINE": "1"}
    sepbench = tmp_path / "env" / "bin" / "sepbench"
    run = [sepbench, "run", "--suite", "digits-pairs", "--limit", "20"]
    done = subprocess.run(run, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(empty.glob("runs/*/leaderboard.csv"))
    shown = subprocess.run([sepbench, "show", "digits-pairs"], cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "average" in shown.stdout
