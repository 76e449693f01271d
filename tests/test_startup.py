"""Importing sepbench and asking for help stays cheap: no torch, no optional package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "skimage",
    "matplotlib",
    "pyarrow",
    "PIL",
    "museval",
    "nussl",
    "librosa",
    "ray",
    "soundfile",
    "altair",
    "jinja2",
    "vl_convert",
)


def _modules_after(code: str, **environment: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint('MODULES ' + json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return set(json.loads(done.stderr.rsplit("MODULES ", 1)[1]))


@pytest.mark.parametrize(
    "code",
    [
        "import sepbench",
        "import sepbench.protocols, sepbench.registry; sepbench.registry.separator_names(); sepbench.registry.suite_names()",
        "import sepbench.metrics.kinds; from sepbench import registry; [registry.points(group) for group in (registry.METRIC_GROUP, registry.DATASET_GROUP)]",
        "import sepbench.cli.main",
        "from sepbench.cli.run_config import options_model; from sepbench.cli.run import run; options_model(run)",  # before --threads takes effect
        "from typer.testing import CliRunner; from sepbench.cli.main import app; assert CliRunner().invoke(app, ['--help']).exit_code == 0",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert not _modules_after(code) & set(HEAVY)


def test_the_check_itself_sees_heavy_modules() -> None:
    assert "torch" in _modules_after("import torch")


BOARD = "leaderboards/gaussian-exact.csv"
READ_ONLY = (
    ["list"],
    ["list", "suites", "--json"],
    ["show", "digits-pairs"],
    ["show", "digits-pairz"],
    ["compare", BOARD, BOARD],
    ["check", BOARD, "--against", "gaussian-exact"],
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the methods have been asked once, for which they must be imported."""
    folder = tmp_path_factory.mktemp("cache")
    _modules_after(
        "from sepbench.run.method_infos import method_infos as of; of(__import__('sepbench').registry.separator_names())", SEPBENCH_CACHE=str(folder)
    )
    assert (folder / "methods.json").is_file()
    return folder


@pytest.mark.slow  # importing all methods once takes 8 s, in every worker that needs it
@pytest.mark.parametrize("arguments", READ_ONLY, ids=" ".join)
def test_what_only_reads_tables_and_names_does_not_wait_for_torch(arguments: list[str], cache: Path) -> None:
    code = f"import sys; sys.argv = ['sepbench', *{arguments}]\nfrom sepbench.cli.main import main\ntry: main()\nexcept SystemExit: pass"
    loaded = _modules_after(code, SEPBENCH_CACHE=str(cache))
    assert "rich" in loaded or "digits-pairz" in arguments or "--json" in arguments
    assert "torch" not in loaded
