"""Importing sepbench and asking for help stays cheap: no torch, no optional package."""

from __future__ import annotations

import json
import subprocess
import sys

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


def _modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint('MODULES ' + json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
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
    assert "torch" in _modules_after("import sepbench.noise")
