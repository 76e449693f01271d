"""Pictures for the methods' pages: mixtures from a method's best to its worst, on data that may be shown (scikit-learn's digits, songs made by the package).

``python scripts/failure_pictures.py OUT`` runs both suites and writes ``OUT/METHOD.png``, for sounds ``OUT/METHOD.audio.png`` where the method also has an
algorithm for images. Budgets are quick: the pictures show how a method fails, not how well it does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from sepbench.registry import separator_domains

DIGITS = (
    "average,mixture,ideal-mask,nmf,nmf-semi,nmf-semi-printed,ica,rpca,basis-ncsn,projected,projected-4x,projected-auto,dirac,gaussian,diffusion-gibbs,"
    "alpha-rgs,supervised,nes,am,glom,s-d-1"
)
SONGS = "nmf,nmf-semi,ica,rpca,hpss,repet,repet-sim,ft2d,nmf-blind,ideal-ratio-mask,ideal-binary-mask"
JOBS = (
    ("digits-pairs", ("class-split", "class-agnostic"), DIGITS, "100", "5"),
    ("drums-bass-synth", ("by-role", "best-assignment"), SONGS, "40", "3"),
)


def sepbench(*arguments: str) -> None:
    """Run a command of sepbench in a process of its own."""
    subprocess.run([sys.executable, "-m", "sepbench.cli.main", *arguments], check=True)


def main(out: Path) -> None:
    """Run, draw, and keep one picture a method: that of the first task on which it ran."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for suite, tasks, methods, limit, count in JOBS:
            run = Path(work) / suite
            command = ("run", "--suite", suite, "--tasks", ",".join(tasks), "--methods", methods, "--limit", limit, "--budget", "quick", "--out", str(run))
            sepbench(*command)
            sepbench("panel", str(run), "--count", count, "--figures", "grid")
            for name in methods.split(","):
                drawn = [path for task in tasks if (path := run / "panels" / f"grid-{task}-{name}.png").exists()]
                if drawn:
                    sound = ".audio" if suite == "drums-bass-synth" and len(separator_domains(name)) > 1 else ""
                    Image.open(drawn[0]).quantize(64).save(out / f"{name}{sound}.png", optimize=True)  # a third of the size


if __name__ == "__main__":
    main(Path(sys.argv[1]))
