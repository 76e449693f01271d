"""Posterior suites: which samplers sample the posterior. Every method is held against independent exact draws, whose row is ``exact-posterior``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sepbench.errors import SepbenchError
from sepbench.metrics.draws import posterior_reference
from sepbench.metrics.posterior import pit_values
from sepbench.report.html import charts
from sepbench.report.html.board import TaskView
from sepbench.report.numbers import number_format
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.results.pairing import difference, pair_up
from sepbench.results.ranking import LEVEL
from sepbench.results.statistics import FLOAT_NOISE, MIN_CLUSTERS, holm
from sepbench.suites.model import Task

EXACT = "exact-posterior"
_BINS, _MIXTURES, _DRAWS_SHOWN = 20, 20, 200


@dataclass(frozen=True, slots=True)
class Finding:
    """One method against exact draws: ratio of the means by metric, and whether the test tells them apart."""

    method: str
    ratios: tuple[str, ...]
    verdict: str


@dataclass(frozen=True, slots=True)
class Posterior:
    """All of the section; ``pit`` and ``draws`` are there where the run kept the draws."""

    metrics: tuple[str, ...]
    findings: tuple[Finding, ...]
    told: str
    note: str = ""
    pit: charts.Chart | None = None
    draws: charts.Chart | None = None
    pit_told: str = ""


def posterior(view: TaskView) -> Posterior | None:
    """The section of a task; None where no draws were scored."""
    suite = view.board.results.suite
    task = suite.tasks.get(view.task) if suite is not None else None
    if task is None or not task.spec.posterior_draws or EXACT not in view.methods:
        return None
    names = tuple(metric.name for metric in view.metrics)
    findings = tuple(_findings(view))
    tested = bool(view.values)
    told = "Mean of each metric as a multiple of that of exact draws: 1 is a perfect sampler. "
    told += (
        f"The verdict is the paired one-sided test on {view.metric.name}, adjusted by Holm over all methods, at {LEVEL:.0%}."
        if tested
        else "No values per mixture lie beside this leaderboard, so there is no test: compare the intervals of the leaderboard."
    )
    run = view.board.opened
    if run is None:
        return Posterior(names, findings, told, "PIT plots need a run that kept its draws.")
    try:
        (opened,) = run.tasks([view.task])
        pit_rows, draw_rows, methods = _from_draws(run, opened, run.methods(view.task))
    except SepbenchError as error:
        return Posterior(names, findings, told, f"No PIT plots: {error}.")
    dims = opened.spec.n_sources * math.prod(opened.spec.source_shape)
    count = min(_MIXTURES, run.n_planned(view.task))
    pit_told = f"First {count} mixtures, all {dims} coordinates. Flat at 1: calibrated. A hill: too wide. Horns at the ends: too narrow. A slope: biased."
    pit_told += f" Bars beyond {charts.PIT_TOP:g} are cut."
    words = f"PIT histograms of {len(methods)} samplers on {view.task}; their distance from uniform is the metric pit_error"
    scatter_words = f"Draws for mixture 0 of {view.task} by each sampler, over exact draws"
    second = "second" if opened.spec.source_shape[-1] > 1 else "first of source 2,"
    drawn = charts.scatter(draw_rows, methods, "first coordinate of source 1", f"{second} coordinate", scatter_words)
    return Posterior(names, findings, told, "", charts.pit(pit_rows, methods, words), drawn, pit_told)


def _findings(view: TaskView) -> Iterator[Finding]:
    others = [method for method in view.methods if method != EXACT]
    verdicts = _verdicts(view, others)
    write = number_format("1", 1.0)
    for method in [EXACT, *others]:
        ratios = []
        for metric in view.metrics:
            mine, exact = (view.records.get((name, metric.name)) for name in (method, EXACT))
            usable = mine is not None and exact is not None and math.isfinite(mine["mean"]) and exact["mean"] > 0
            ratios.append(write(mine["mean"] / exact["mean"]) if usable and mine is not None and exact is not None else "")
        yield Finding(method, tuple(ratios), verdicts.get(method, "exact draws" if method == EXACT else ""))


def _verdicts(view: TaskView, methods: list[str]) -> dict[str, str]:
    """Which methods are further from the posterior than exact draws are."""
    known = [method for method in methods if method in view.values]
    if EXACT not in view.values or not known:
        return {}
    designs, p_values, decidable = view.designs.task(view.task), [], {}
    for method in known:
        paired = difference(pair_up(view.values[method], view.values[EXACT]), designs)
        decidable[method] = paired.decidable
        small = abs(paired.mean) <= FLOAT_NOISE
        p_values.append(1.0 if small or not paired.decidable else paired.p_lower if view.metric.higher_is_better else paired.p_higher)
    adjusted = holm(np.array(p_values))
    return {
        method: (f"no verdict below {MIN_CLUSTERS} clusters" if not decidable[method] else "does not sample it" if p < LEVEL else "not told from exact draws")
        for method, p in zip(known, adjusted.tolist(), strict=True)
    }


def _from_draws(run: OpenedRun, task: Task, methods: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """PIT densities over the first mixtures, and the draws of the first one, of every method."""
    spec = task.spec
    examples = range(min(_MIXTURES, run.n_planned(spec.name)))
    mixtures = task.mixture_set().mixtures(examples)
    reference = posterior_reference(task.exact_posterior(), mixtures, spec.posterior_draws)
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    pits, drawn = [], []
    for method in methods:
        draws = run.estimates(task, method, examples).double().flatten(2)
        usable = draws.isfinite().flatten(1).all(1)
        values = pit_values(draws[usable], reference.draws[usable]).flatten().numpy()
        density = np.histogram(values, edges, density=True)[0] if len(values) else np.zeros(_BINS)
        pits += [
            {"method": method, "low": round(float(a), 4), "high": round(float(b), 4), "density": float(f"{d:.4g}")}
            for a, b, d in zip(edges[:-1], edges[1:], density, strict=True)
        ]
        for kind, points in (("exact", reference.draws[0]), ("sampler", draws[0])):
            drawn += [{"method": method, "kind": kind, "x": x, "y": y} for x, y in _first_two(points)]
    return pits, drawn, methods


def _first_two(points: torch.Tensor) -> list[tuple[float, float]]:
    first = points[:_DRAWS_SHOWN, :2].tolist()
    return [(float(f"{x:.4g}"), float(f"{y:.4g}")) for x, y in first if math.isfinite(x) and math.isfinite(y)]
