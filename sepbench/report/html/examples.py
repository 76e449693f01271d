"""Look and listen: mixture, true sources, estimates and errors of a few mixtures, chosen so that no page shows the good ones alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from sepbench.errors import SepbenchError
from sepbench.report.html.board import TaskView, slug
from sepbench.report.html.media import Media, flac, strip
from sepbench.report.numbers import number_format
from sepbench.report.panels.choice import named, spread
from sepbench.report.panels.grids import assignment_of, in_order, mixture_head, shared_values
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.shown import check_shown, shown
from sepbench.suites.model import Task

RANDOM = 3
MIXTURE, TRUTH = "_mixture", "_truth"
"""Names of files. No slug holds ``_``: a method called ``mixture`` has files of its own."""


@dataclass(frozen=True, slots=True)
class Sound:
    """One thing to listen to: where its file is."""

    label: str
    file: str


@dataclass(frozen=True, slots=True)
class Card:
    """What one method made of a mixture, or the mixture or the truth.

    Attributes:
        picture, error: files; error is the absolute difference from the truth (of sounds: the spectrogram of the difference), empty for mixture and truth.
        words, error_words: what they show, for those who do not see them.
        captions: one per source, under the picture.
        sounds: one per source; empty for images.
        count: pictures side by side in the file.
    """

    name: str
    picture: str
    words: str
    captions: tuple[str, ...]
    error: str = ""
    error_words: str = ""
    sounds: tuple[Sound, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class Example:
    """One mixture: why it is here, and its cards."""

    number: int
    why: str
    cards: tuple[Card, ...]
    scale_note: str = ""


@dataclass(frozen=True, slots=True)
class Examples:
    """All of the section.

    Attributes:
        told: how the mixtures were chosen.
        note: why there are none, or fewer; empty if all are there.
        seconds, kilohertz: ends of the spectrograms' axes; 0 for images.
        width: pixels that one picture is shown at.
    """

    told: str
    examples: tuple[Example, ...] = ()
    note: str = ""
    seconds: float = 0.0
    kilohertz: float = 0.0
    width: int = 0
    audio: bool = False
    methods: tuple[str, ...] = ()


def choose(run: OpenedRun, task: str, methods: Sequence[str], asked: Sequence[int]) -> dict[int, str]:
    """Mixture -> why it is shown: the named ones, best, median and worst mean over the methods, the largest disagreement of two, and some drawn by lot.

    Raises:
        SepbenchError: a named mixture is not part of the run, or no mixture has a value of every method.
    """
    info = run.metric.info
    write = number_format(info.unit, 1.0)
    reasons: dict[int, list[str]] = {}
    for example in named(asked, run.n_planned(task)).examples if asked else ():
        reasons.setdefault(example, []).append("chosen")
    shared = shared_values(run, task, methods)
    chosen = spread(shared, 3, info.higher_is_better, info.name)
    whose = f"mean {info.name} of the methods" if len(methods) > 1 else info.name
    for example, word in zip(chosen.examples, chosen.words, strict=True):
        reasons.setdefault(example, []).append(f"{word} {whose}, {write(shared[example])}")
    apart = _disagreement(run, task, methods)
    if apart is not None:
        example, (first, a), (second, b) = apart
        reasons.setdefault(example, []).append(f"largest disagreement: {first} {write(a)}, {second} {write(b)}")
    known = np.array(sorted(shared))
    seed = int.from_bytes(hashlib.sha256(f"{run.suite.name} {task}".encode()).digest()[:8], "big")
    lot = np.random.Generator(np.random.Philox(seed)).permutation(len(known))
    for example in known[lot[:RANDOM]].tolist():
        reasons.setdefault(example, []).append("drawn by lot")
    return {example: "; ".join(words) for example, words in reasons.items()}


def _disagreement(run: OpenedRun, task: str, methods: Sequence[str]) -> tuple[int, tuple[str, float], tuple[str, float]] | None:
    """The mixture with the largest difference of two methods that are no bounds, and what each got."""
    ranked = [method for method in methods if not run.record.methods[method].bound]
    best: tuple[float, int, tuple[str, float], tuple[str, float]] | None = None
    values = {method: run.values(task, method) for method in ranked}
    for a, b in combinations(ranked, 2):
        for example in values[a].keys() & values[b].keys():
            gap = abs(values[a][example] - values[b][example])
            if math.isfinite(gap) and (best is None or (gap, -example) > (best[0], -best[1])):
                best = (gap, example, (a, values[a][example]), (b, values[b][example]))
    return None if best is None else best[1:]


def examples(view: TaskView, media: Media, asked: Sequence[int] = ()) -> Examples | None:
    """The section of a task; None for leaderboards, which have no signals, and for vectors."""
    run = view.board.opened
    if run is None or run.suite.domain == "vector":
        return None
    try:
        (task,) = run.tasks([view.task])
        check_shown(task.spec)
        methods = run.methods(view.task)
        reasons = choose(run, view.task, methods, asked)
    except SepbenchError as error:
        return Examples("", note=f"No signals are shown: {error}.")
    return _Section(view, run, task, methods, media).made(reasons)


class _Section:
    """One task's examples: of every method no more than these mixtures is read."""

    def __init__(self, view: TaskView, run: OpenedRun, task: Task, methods: Sequence[str], media: Media) -> None:
        self.view, self.run, self.task, self.spec, self.methods, self.media = view, run, task, task.spec, methods, media
        self.folder = f"media/{view.board.slug}/{slug(view.task)}"
        self.classes = ("",) * self.spec.n_sources if self.spec.class_agnostic else tuple(map(str, self.spec.source_classes))
        self.audio = self.spec.domain == "audio"

    def made(self, reasons: Mapping[int, str]) -> Examples:
        numbers = list(reasons)
        truths = self.task.mixture_set().sources(numbers)
        kept, troubles = {}, []
        for method in self.methods:
            try:
                estimates = self.run.estimates(self.task, method, numbers)
            except SepbenchError as error:
                troubles.append(f"{error}.")
                continue
            kept[method] = in_order(estimates, assignment_of(self.run.metric, estimates, truths, self.spec))
        done, note, skipped = [], " ".join(dict.fromkeys(troubles)), 0
        for row, example in enumerate(numbers if kept else ()):
            made, files = self._example(example, reasons[example], truths[row], {method: estimates[row] for method, estimates in kept.items()})
            if self.media.add(files):
                done.append(made)
            else:
                skipped += 1
        if skipped:
            note += f" {skipped} of {len(reasons)} mixtures are left out: the budget of {self.media.budget / 1e6:g} MB is used up (--budget-mb)."
        told = "Best, median and worst by the mean over the methods, the largest disagreement of two methods, and mixtures drawn by lot."
        rate, length = self.spec.sample_rate or 0, self.spec.source_shape[-1]
        return Examples(
            told,
            tuple(done),
            note.strip(),
            seconds=length / rate if self.audio else 0.0,
            kilohertz=rate / 2000 if self.audio else 0.0,
            width=176 if self.audio else max(84, self.spec.source_shape[-1]),
            audio=self.audio,
            methods=tuple(kept),
        )

    def _example(self, example: int, why: str, truth: torch.Tensor, signals: Mapping[str, torch.Tensor]) -> tuple[Example, dict[str, bytes]]:
        mixtures = self.task.mixture_set().mixtures([example])
        peak = max(float(torch.nan_to_num(values).abs().max()) for values in (mixtures.values, truth, *signals.values()))
        scale = 1.0 if peak <= 1.0 else 1.0 / peak
        place = f"{self.folder}/{example:05}"
        files: dict[str, bytes] = {}
        low, high = mixtures.operator.output_range(0.0, 1.0)
        files[f"{place}/{MIXTURE}.png"] = strip(shown(mixtures.values, self.spec, low, high))
        head = mixture_head(self.task).replace("\n", " ")
        sounds = self._sounds(files, f"{place}/{MIXTURE}", mixtures.values, scale, ("mixture",))
        cards = [Card(head, f"{place}/{MIXTURE}.png", f"Mixture {example}", (), sounds=sounds)]
        files[f"{place}/{TRUTH}.png"] = strip(shown(truth, self.spec))
        sounds = self._sounds(files, f"{place}/{TRUTH}", truth, scale, self._labels("truth"))
        words = f"True sources of mixture {example}: {', '.join(self._labels('source'))}"
        cards.append(Card("truth", f"{place}/{TRUTH}.png", words, self.classes, sounds=sounds, count=self.spec.n_sources))
        for method, estimates in signals.items():
            cards.append(self._card(files, place, example, method, estimates, truth, scale))
        note = f"All sounds of this mixture are played at {scale:.2f} of their level, because one of them goes beyond full scale." if scale < 1 else ""
        return Example(example, why, tuple(cards), note if self.audio else ""), files

    def _card(self, files: dict[str, bytes], place: str, example: int, method: str, estimates: torch.Tensor, truth: torch.Tensor, scale: float) -> Card:
        values = self.run.source_values(self.view.task, method, [example])
        info = self.run.metric.info
        write = number_format(info.unit, max((abs(v) for v in values.values() if math.isfinite(v)), default=1.0))
        unit = "" if info.unit in ("", "1") else f"\N{NO-BREAK SPACE}{info.unit}"
        scores = [values.get((example, k), math.nan) for k in range(self.spec.n_sources)]
        captions = tuple(
            " ".join(filter(None, (name, f"{write(score)}{unit}" if math.isfinite(score) else ""))) for name, score in zip(self.classes, scores, strict=True)
        )
        failed = not bool(estimates.isfinite().all())
        stem = f"{place}/{slug(method)}"
        files[f"{stem}.png"] = strip(shown(estimates, self.spec))
        files[f"{stem}_error.png"] = strip(shown(estimates - truth if self.audio else (estimates - truth).abs(), self.spec))
        sounds = () if failed else self._sounds(files, stem, estimates, scale, self._labels(method))
        told = ", ".join(filter(None, captions)) or "without values"
        return Card(
            method,
            f"{stem}.png",
            f"Estimates of {method} for mixture {example}: {told}",
            ("failed",) * len(captions) if failed else captions,
            f"{stem}_error.png",
            f"Absolute difference of {method}'s estimates from the truth, mixture {example}",
            sounds,
            self.spec.n_sources,
        )

    def _labels(self, whose: str) -> tuple[str, ...]:
        return tuple(f"{whose}: {name}" if name else f"{whose} {k + 1}" for k, name in enumerate(self.classes))

    def _sounds(self, files: dict[str, bytes], stem: str, signals: torch.Tensor, scale: float, labels: Sequence[str]) -> tuple[Sound, ...]:
        if not self.audio:
            return ()
        assert self.spec.sample_rate is not None
        made = []
        for k, label in enumerate(labels):
            files[f"{stem}_{k}.flac"] = flac(signals[k], self.spec.sample_rate, scale)
            made.append(Sound(label, f"{stem}_{k}.flac"))
        return tuple(made)
