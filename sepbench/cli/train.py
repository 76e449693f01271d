"""``sepbench train KIND``: train a network on a data set's training split. Trainers are entry points (``sepbench.trainers``), as methods are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sepbench.errors import SepbenchError


def train(
    kind: Annotated[
        str,
        typer.Argument(
            help="What to train: 'score': a denoiser over a continuous range of noise; 'ncsn': the ten-level network of BASIS, which wants a GPU; "
            "'classifier': features for distances between sets of images; 'vqvae' and 'tokens': the models of LASS."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Data set; 'sepbench data list' shows them.")],
    labels: Annotated[str, typer.Option(help="Only images of these classes, as in 0,1,2,3,4.")] = "",
    out: Annotated[Path | None, typer.Option(help="Weights to write (.safetensors); the card goes beside it. Default: DATASET-KIND.safetensors.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Checkpoints and log; the same command resumes there. Default: runs/train-DATASET-KIND.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the run; default: the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes of training; the schedule then depends on the clock.")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights to start from, for fine-tuning.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and noise.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
) -> None:
    """Train a prior or a classifier; stop it when you like, the same command resumes to the same bits."""
    import math
    import os
    import shlex
    import sys

    # Trainers share a batch between Python threads; torch's own threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from sepbench.data.datasets import manifest_of, open_dataset
    from sepbench.data.files.manifests import load_manifest
    from sepbench.registry import trainer
    from sepbench.report.fetching import fetch_with_progress
    from sepbench.run.plan import resolve_device
    from sepbench.run.timing import keep_freed_memory

    keep_freed_memory()
    if minutes is not None and not 0.0 < minutes < math.inf:
        raise SepbenchError(f"--minutes {minutes:g} is no time to train; give a number above 0, or leave it out for the whole recipe")
    wanted = _labels(labels)
    run_trainer = trainer(kind)
    if manifest_of(dataset):
        fetch_with_progress(load_manifest(manifest_of(dataset)))
    signals = open_dataset(dataset, "train")
    stem = f"{dataset.replace('/', '-').replace(':', '-')}-{kind}" + (f"-{''.join(map(str, wanted))}" if wanted else "")
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=1.0)
        written = run_trainer(
            signals,
            labels=wanted,
            folder=folder or Path("runs") / f"train-{stem}",
            out=out or Path(f"{stem}.safetensors"),
            steps=steps,
            minutes=minutes,
            init=init,
            seed=seed,
            device=resolve_device(device),
            command=shlex.join(["sepbench", *sys.argv[1:]]),
            progress=lambda fraction, text: bars.update(task, completed=fraction, description=text),
        )
    card = "" if written.is_dir() else f" and its card {written.with_suffix('.json')}"
    use = f"sepbench train tokens --init {written} ..." if kind == "vqvae" else f"sepbench run ... --set METHOD.weights={written}"
    typer.echo(f"{written}{card} written. It is used by: {use}")


def _labels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SepbenchError(f"--labels {text!r} is no list of numbers; write it as 0,1,2,3,4") from None
