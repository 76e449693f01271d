"""Mixtures, estimates and true sources of a run as WAV files, to be listened to (``sepbench run --save-audio N``). Reads what the run kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from sepbench.compat import import_soundfile
from sepbench.errors import SepbenchError
from sepbench.protocols import TaskSpec
from sepbench.report.panels.grids import assignment_of, in_order
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.suites.model import Suite


def check_audio(suite: Suite) -> None:
    """Refuse what cannot be written, before anything is computed.

    Raises:
        SepbenchError: no signals to listen to, or soundfile is not installed.
    """
    if suite.domain != "audio":
        raise SepbenchError(f"--save-audio: suite {suite.name} has {suite.domain} signals; draw them with `sepbench panel RUN` instead")
    import_soundfile()


def write_examples(run: OpenedRun, count: int, folder: Path) -> list[Path]:
    """Write the first ``count`` mixtures of every task.

    ``folder/TASK/0000/`` holds ``mixture.wav``, ``truth-0-drums.wav`` for each source and ``METHOD-0-drums.wav`` for each estimate of every finished
    method, in the order of the references that it was scored against. 32-bit float samples: nothing is scaled or clipped.

    Returns:
        The folders, one per mixture.

    Raises:
        SepbenchError: the estimates were not kept, or a file cannot be written.
    """
    soundfile = import_soundfile()
    written = []
    for task in run.tasks():
        spec = task.spec
        assert spec.sample_rate is not None
        examples = range(min(count, run.n_planned(spec.name)))
        mixture_set = task.mixture_set()
        signals = {"mixture": mixture_set.mixtures(examples).values}
        truths = mixture_set.sources(examples)
        signals |= _by_source("truth", truths, spec)
        for method in run.methods(spec.name):
            estimates = run.estimates(task, method, examples)
            signals |= _by_source(method, in_order(estimates, assignment_of(run.metric, estimates, truths, spec)), spec)
        for row, example in enumerate(examples):
            place = folder / spec.name / f"{example:04}"
            try:
                place.mkdir(parents=True, exist_ok=True)
                for name, values in signals.items():
                    soundfile.write(place / f"{name}.wav", values[row].T.numpy(), spec.sample_rate, subtype="FLOAT")
            except (OSError, soundfile.LibsndfileError) as error:
                raise SepbenchError(f"cannot write {place}: {error}; choose a writable folder with --out") from error
            written.append(place)
    return written


def _by_source(whose: str, signals: torch.Tensor, spec: TaskSpec) -> dict[str, torch.Tensor]:
    """``(n, K, channels, T)`` to one ``(n, channels, T)`` per source, by name."""
    return {name: signals[:, k] for k, name in enumerate(_names(whose, spec))}


def _names(whose: str, spec: TaskSpec) -> Iterator[str]:
    for k, source_class in enumerate(spec.source_classes):
        yield f"{whose}-{k}" if spec.class_agnostic else f"{whose}-{k}-{source_class}"
