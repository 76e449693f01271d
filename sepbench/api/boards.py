"""``sepbench.methods`` and ``sepbench.leaderboard``: what there is to run, and how it went so far."""

from __future__ import annotations

import os

import pandas as pd

from sepbench.api.arguments import choice, one_name, public, suite_name
from sepbench.errors import SepbenchError, nearest, reason
from sepbench.metrics.catalogue import get_metric
from sepbench.protocols import Domain
from sepbench.registry import create_separator, separator_class, separator_domains, separator_names, suite_names
from sepbench.results.columns import COLUMNS
from sepbench.results.target import committed_leaderboard
from sepbench.settings import Setting, describe
from sepbench.suites import loader
from sepbench.suites.model import Suite
from sepbench.suites.published import PublishedRow

METHOD_COLUMNS = ("name", "title", "supervision", "domains", "bound", "deterministic", "paper", "version", "settings", "error")


@public
def methods(domain: Domain | None = None) -> pd.DataFrame:
    """The registered methods, one row per implementation: a method with another algorithm for another kind of signal has several.

    ==============  ===================================================================================
    column          what
    ==============  ===================================================================================
    name            what ``run`` and ``separate`` take
    title           the paper's name of it
    supervision     what it learns from, see ``sepbench.protocols.SUPERVISION_LEVELS``
    domains         kinds of signal, a tuple of ``image``, ``audio``, ``vector``
    bound           ``lower`` or ``upper`` for rows that are only there for comparison, else empty
    deterministic   its estimates do not depend on the seed
    paper, version  as the method says
    settings        dict of name -> ``sepbench.settings.Setting`` (kind, default, range, description)
    error           why it cannot be loaded, else empty
    ==============  ===================================================================================

    Args:
        domain: only those for this kind of signal.
    """
    kind = None if domain is None else choice("domain", domain, ("image", "audio", "vector"))
    rows = [_method_row(name, of) for name in separator_names() for of in _domains(name)]
    frame = pd.DataFrame(rows, columns=list(METHOD_COLUMNS))
    return frame if kind is None else frame[[kind in one for one in frame["domains"]]].reset_index(drop=True)


def _domains(name: str) -> list[Domain | None]:
    try:
        return separator_domains(name)
    except SepbenchError:
        return [None]


def _method_row(name: str, domain: Domain | None) -> dict[str, object]:
    empty: dict[str, object] = {"title": "", "supervision": "", "domains": (), "bound": "", "deterministic": False, "paper": "", "version": ""}
    try:
        info, settings = create_separator(name, domain=domain).info, _settings(name, domain)
    except SepbenchError as error:
        return {"name": name, **empty, "settings": {}, "error": str(error)}
    facts = {key: getattr(info, key) for key in empty} | {"domains": tuple(sorted(info.domains))}
    return {"name": name, **facts, "settings": settings, "error": ""}


def _settings(name: str, domain: Domain | None) -> dict[str, Setting]:
    try:
        return {setting.name: setting for setting in describe(separator_class(name, domain))}
    except (ValueError, TypeError) as error:
        raise SepbenchError(f"the settings of {name!r} cannot be listed: {reason(error)}") from error


@public
def leaderboard(suite: str | os.PathLike[str], *, task: str | None = None, metric: str | None = None) -> pd.DataFrame:
    """The committed leaderboard of a suite, and below each task's rows the papers' numbers for it.

    The columns of leaderboards (docs/statistics.md), and three more: ``source`` is ``sepbench`` for measured rows and paper and table for published
    ones (``BASIS Table 2``), ``counterpart`` our name of a published method where we have it, ``notes`` what to know before comparing. Of a published
    row only the method's title, the metric, ``mean``, ``std`` and ``n_scored`` are known, and the last two not always.

    Args:
        suite: its name.
        task, metric: only these.

    Raises:
        SepbenchError: there is neither a leaderboard nor a published number.
        UnknownNameError: no such suite, task or metric; the nearest names are offered.
    """
    name = suite_name(suite)
    loaded = loader.load_suite(name)
    measured = committed_leaderboard(loaded.name) if name in suite_names() else None
    if measured is None and not loaded.published:
        raise SepbenchError(f"suite {loaded.name} has neither a committed leaderboard nor published numbers; make a run with sepbench.run({name!r})")
    frames = [] if measured is None else [_nullable(measured.assign(source="sepbench", counterpart="", notes=""))]
    if loaded.published:
        frames.append(_nullable(pd.DataFrame([_published(loaded, row) for row in loaded.published])))
    frame = pd.concat(frames, ignore_index=True)
    places = {known: number for number, known in enumerate(loaded.tasks)}
    frame = frame.sort_values("task", key=lambda column: column.map(places), kind="stable", ignore_index=True)
    for column, wanted in (("task", task), ("metric", metric)):
        known = list(dict.fromkeys(frame[column]))
        if wanted is not None:
            if one_name(column, wanted, f"a {column}'s name") not in known:
                raise nearest(wanted, known, f"{column} of the leaderboard of {loaded.name}")
            frame = frame[frame[column] == wanted].reset_index(drop=True)
    return frame


def _published(suite: Suite, row: PublishedRow) -> dict[str, object]:
    try:
        info = get_metric(row.metric).info
    except SepbenchError:  # not installed here
        info = None
    unit, higher = (info.unit, info.higher_is_better) if info is not None else ("", pd.NA)
    about = {"suite": suite.name, "suite_version": suite.version, "task": row.task, "method": row.title, "metric": row.metric, "unit": unit}
    values = {"higher_is_better": higher, "mean": row.value, "std": row.std, "n_scored": row.n}
    return {**about, **values, "source": row.source, "counterpart": row.method, "notes": row.notes}


def _nullable(frame: pd.DataFrame) -> pd.DataFrame:
    """Every column of leaderboards with a type that knows missing values: a published row has most of its columns empty."""
    kinds = {"text": "object", "integer": "Int64", "number": "float64", "flag": "boolean"}
    types = {column.name: kinds[column.kind] for column in COLUMNS}
    whole = frame.reindex(columns=[*types, "source", "counterpart", "notes"]).astype(types)
    texts = [column.name for column in COLUMNS if column.kind == "text"]
    return whole.assign(**{name: whole[name].fillna("") for name in texts})
