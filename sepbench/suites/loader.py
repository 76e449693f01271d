"""``load_suite``: a suite's TOML file to a ``Suite``, every list checked against its frozen digest.

Files that a suite names (pair lists, ``tasks.toml``, ``published.csv``) are looked up beside its TOML file first, and
then among the files of sepbench. So a third party's suite is a folder of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from sepbench.data.datasets import open_dataset
from sepbench.data.lists.pairs import list_sha256
from sepbench.data.lists.rules import BUILDERS, GAINED, PairRule
from sepbench.data.mixtures import Transform
from sepbench.data.own.stored import beside
from sepbench.errors import SuiteError
from sepbench.operators import OPERATOR_NAMES
from sepbench.protocols import Assignment, Domain, TaskSpec
from sepbench.registry import nearest, own_suite, suite_names, suite_path
from sepbench.resources import resource_root
from sepbench.suites.assembly import DerivedList, DerivedLists, FrozenList, Listing, Opener, SourceClass, TaskData, UsableRows
from sepbench.suites.model import Suite, Task, TaskSplit
from sepbench.suites.published import PublishedRow, published_row
from sepbench.suites.tables import Table, read_table

FORMAT = 1
RULE_PREFIX = "rule:"
NEVER_RANKING = frozenset({"isr", "sir", "sar"})
"""Metrics whose single windows depend on the last bit of the samples, see ``sepbench/metrics/bss_eval_images.py``."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # no "--": it separates task and method in file names


def load_suite(name: str, opener: Opener = open_dataset) -> Suite:
    """A suite by name, or by the path of its TOML file or folder.

    Args:
        name: a suite's name (``sepbench.registry.suite_names``), a path ending in ``.toml``, or the path, with a ``/``, of a folder with a ``suite.toml``.
        opener: opens a split of a data set; nothing is opened while loading.

    Raises:
        UnknownNameError: no such suite.
        SuiteError: malformed, a link that leads nowhere, or a pair list that is not the frozen one.
    """
    own = own_suite(name)
    suite = _Reader(own or suite_path(name), opener, check=True).suite()
    if own is not None and own.parent.name == name and suite.name != name:
        raise SuiteError(f"{own} is the suite {suite.name!r}; give its folder this name, or rename the suite (key 'name', and freeze it again)")
    return suite


def recorded_suite(name: str, path: str) -> Suite:
    """The suite of a run: from its own file if that still exists, else the one of its name.

    Raises:
        UnknownNameError, SuiteError: see ``load_suite``.
    """
    if path and Path(path).is_file():
        return load_suite(path)
    if path and name not in suite_names():
        raise SuiteError(f"the run's suite {name!r} was in {path}, which does not exist; put it back, or name the folder with {name}/ in SEPBENCH_SUITES")
    return load_suite(name)


def load_unfrozen(path: Path, opener: Opener = open_dataset) -> Suite:
    """A suite whose digests are taken from the lists as they are; only for freezing them."""
    return _Reader(path, opener, check=False).suite()


class _Reader:
    """One TOML file being read."""

    def __init__(self, path: Path, opener: Opener, check: bool) -> None:
        self.path = path
        self.usable: UsableRows = {}
        self.derived: DerivedLists = {}
        self.root = root = read_table(path)
        if root.integer("format") != FORMAT:
            raise SuiteError(f"{path}: format {root.integer('format')} is not known, this sepbench reads format {FORMAT}")
        self.name = _name(root.text("name"), str(path))
        self.domain = cast(Domain, root.choice("domain", get_args(Domain)))
        self.opener = beside(path.resolve().parent, self.domain, opener)
        self.classes = {key: _source_class(key, table) for key, table in root.tables("classes").items()}
        self.rules = {key: _rule(self.name, key, table) for key, table in root.tables("rules", {}).items()}
        self.frozen = self._digests() if check else None
        data = root.table("data")
        self.shape = data.integers("shape", [])
        self.test_split = data.text("test", "test")
        self.train_split = data.text("train", "train")
        self.validation_split = data.text("validation", "")
        self.held_out = data.integer("held_out", 0)
        if self.held_out and self.validation_split:
            raise SuiteError(f"{data.where}: give either held_out or validation")
        self.transform = Transform(data.integer("pad", 0))
        self.sample_rate = data.optional_integer("sample_rate")
        self.cluster = data.text("cluster", "signal")
        self.posterior_draws = root.integer("posterior_draws", 0)
        if self.posterior_draws < 0 or self.posterior_draws == 1:
            raise SuiteError(f"{path}: posterior_draws must be at least 2, or left out; found {self.posterior_draws}")
        data.close()

    def suite(self) -> Suite:
        root = self.root
        metrics = root.texts("metrics")
        tasks = dict(self._tasks(root.tables("tasks")))
        suite = Suite(
            name=self.name,
            version=root.integer("version"),
            title=root.text("title"),
            description=root.text("description"),
            domain=self.domain,
            metrics=metrics,
            ranking_metric=_ranking_metric(root, metrics),
            methods=root.texts("methods"),
            tasks=tasks,
            published=list(self._published(tasks)),
        )
        root.close()
        return suite

    def _tasks(self, tables: dict[str, Table]) -> Iterator[tuple[str, Task]]:
        for key, table in tables.items():
            _name(key, table.where)
            model = table.text("validates", "")
            if model and model not in tables:
                raise nearest(model, sorted(tables), f"task (validated by {key})")
            if model and not (self.held_out or self.validation_split):
                raise SuiteError(f"{table.where}: a validation task needs held_out or validation in [data]")
            yield key, self._task(key, tables[model] if model else table, table, model)
        for table in tables.values():
            table.close()

    def _task(self, key: str, rules: Table, own: Table, validates: str) -> Task:
        """A task; ``rules`` is the table of the task it validates, or its own."""
        slots = tuple(self._class(name, rules) for name in rules.texts("sources"))
        shape = rules.integers("shape", list(self.shape))
        if not shape:
            raise SuiteError(f"{rules.where}: key 'shape' is missing, here and in [data]")
        spec = self._spec(key, rules, slots, shape)
        data = self._data(rules, own, validates or key, key, slots, spec, shape)
        spec = replace(spec, analytic_prior=data.knows_priors)
        if self.posterior_draws and not spec.analytic_prior:
            raise SuiteError(f"{rules.where}: posterior_draws needs sources whose distribution is known, data sets 'generated:...'")
        split: TaskSplit = "validation" if validates else "test"
        frozen = self._frozen(key)
        mixtures = "" if frozen is None else frozen.text("mixtures_sha256")
        return Task(spec, split, validates, _length(data.pairs, frozen), mixtures, data)

    def _spec(self, key: str, rules: Table, slots: tuple[SourceClass, ...], shape: tuple[int, ...]) -> TaskSpec:
        observed = rules.optional_integer("observed_source")
        scored = rules.integers("scored_sources", list(range(len(slots))))
        for slot in (*scored, *(() if observed is None else (observed,))):
            if not 0 <= slot < len(slots):
                raise SuiteError(f"{rules.where}: there is no source {slot}, the task has {len(slots)}")
        return TaskSpec(
            suite=self.name,
            name=key,
            domain=self.domain,
            n_sources=len(slots),
            source_shape=self.transform.shape(shape),
            operator=rules.choice("operator", OPERATOR_NAMES),
            source_classes=tuple(c.name for c in slots),
            assignment=cast(Assignment, rules.choice("assignment", get_args(Assignment))),
            scored_sources=scored,
            observed_source=observed,
            sample_rate=self.sample_rate,
            datasets=tuple(c.dataset for c in slots),
            posterior_draws=self.posterior_draws,
            padding=self.transform.pad,
        )

    def _data(self, rules: Table, own: Table, trained_as: str, key: str, slots: tuple[SourceClass, ...], spec: TaskSpec, shape: tuple[int, ...]) -> TaskData:
        pairs = self._list(own, "pairs", key)
        if pairs is None:
            raise SuiteError(f"{own.where}: key 'pairs' is missing")
        if isinstance(pairs, DerivedList) and (pairs.rule.builder in GAINED) != (spec.operator == "gain"):
            raise SuiteError(f"{own.where}: builder {pairs.rule.builder!r} does not go with operator {spec.operator!r}")
        return TaskData(
            opener=self.opener,
            slots=slots,
            shape=shape,
            operator=spec.operator,
            transform=self.transform,
            test_split=self.test_split,
            train_split=self.train_split,
            validation_split=self.validation_split,
            held_out=self.held_out,
            test_rows=rules.rows("test_rows"),
            train_rows=rules.rows("train_rows"),
            by_rank=rules.choice("index", ("row", "rank-in-class"), "row") == "rank-in-class",
            pairs=pairs,
            validation=own is not rules,
            train_mixtures=self._list(rules, "train_mixtures", trained_as),
            train_observed=self._list(rules, "train_observed", trained_as, column=spec.observed_source),
            train_sources=self._list(rules, "train_sources", trained_as),
            observed_slot=spec.observed_source,
            untrainable=rules.text("untrainable", ""),
            cluster=self.cluster,
            cluster_file=self._beside(file, resource_root("data_manifests") / "clusters") if (file := own.text("clusters", "")) else None,
            usable=self.usable,
            derived=self.derived,
        )

    def _class(self, name: str, table: Table) -> SourceClass:
        if name not in self.classes:
            raise nearest(name, sorted(self.classes), f"source class in {table.where}")
        return self.classes[name]

    def _list(self, table: Table, key: str, task: str, column: int | None = None) -> Listing | None:
        """A frozen list, compared with its digest while loading: a changed file must not wait for the first mixture to be found out.

        A list that is made by a rule is compared when it is made. ``column`` is the slot that such a list is wanted for.
        """
        file = table.text(key, "")
        if not file:
            return None
        if file.startswith(RULE_PREFIX):
            return self._derived(file.removeprefix(RULE_PREFIX), table, key, task, column)
        path = self._beside(file, resource_root("data_manifests") / "pairs")
        found = list_sha256(path)
        frozen = self._frozen(task)
        wanted = found if frozen is None else frozen.text(f"{key}_sha256")
        if found != wanted:
            raise SuiteError(f"pair list {path} has sha256 {found}, frozen for {self.name}/{task} is {wanted}; restore the file")
        return FrozenList(path, found)

    def _derived(self, rule: str, table: Table, key: str, task: str, column: int | None) -> DerivedList:
        if rule not in self.rules:
            raise nearest(rule, sorted(self.rules), f"rule in {table.where}")
        if table.text("index", "row") != "row":
            raise SuiteError(f"{table.where}: lists made by a rule contain rows; leave out 'index'")
        made, frozen = self.rules[rule], self._frozen(task)
        if frozen is None:
            return DerivedList(made, "", column)
        # The file that 'sepbench freeze' wrote is the list of the rule as it was then; another rule's list is made, and found to differ.
        file = frozen.text(f"{key}_file", "") if frozen.text(f"{key}_rule", "") == made.text else ""
        return DerivedList(made, frozen.text(f"{key}_sha256"), column, self.path.parent / file if file else None)

    def _frozen(self, task: str) -> Table | None:
        if self.frozen is None:
            return None
        if task not in self.frozen:
            raise SuiteError(f"{self.frozen.where} has no digests of task {task!r}; freeze them with 'sepbench freeze {self.path}'")
        return self.frozen.table(task)

    def _digests(self) -> Table:
        table = read_table(self._beside("tasks.toml", resource_root("data_manifests")))
        if self.name not in table:
            raise SuiteError(f"{self.path} is not frozen: {table.where} has no digests of {self.name!r}; freeze it with 'sepbench freeze {self.path}'")
        return table.table(self.name)

    def _beside(self, file: str, fallback: Path) -> Path:
        beside = self.path.parent / file
        return beside if beside.is_file() else fallback / file

    def _published(self, tasks: dict[str, Task]) -> Iterator[PublishedRow]:
        path = self._beside("published.csv", resource_root("leaderboards"))
        seen: set[tuple[str, str, str]] = set()
        for entry in self.root.array("published"):
            task, method, metric = entry.text("task"), entry.text("method", ""), entry.text("metric")
            if task not in tasks:
                raise nearest(task, sorted(tasks), f"task in {entry.where}")
            if method and (task, method, metric) in seen:
                raise SuiteError(f"{entry.where}: {task}, {method}, {metric} is linked twice; a method has one published number per task and metric")
            seen.add((task, method, metric))
            find = entry.table("find").raw()
            if not all(isinstance(value, str) for value in find.values()):
                raise SuiteError(f"{entry.where}: every value of 'find' must be text, as in the CSV file")
            row = published_row(task, method, metric, find, entry.text("notes", ""), path, entry.where)
            measured_on = entry.text("measured_on", "")
            entry.close()
            # Other data than the suite's: said wherever the number's source is, leaderboards included.
            yield replace(row, source=f"{row.source} on {measured_on}") if measured_on else row


def _ranking_metric(root: Table, metrics: tuple[str, ...]) -> str:
    metric = root.choice("ranking_metric", metrics)
    if metric in NEVER_RANKING:
        raise SuiteError(f"{root.where}: ranking_metric must not be {metric!r}, whose windows move by tens of dB with the samples' last bit; rank by 'sdr'")
    return metric


def _name(name: str, where: str) -> str:
    if not NAME.fullmatch(name):
        raise SuiteError(f"{where}: name {name!r} must be lower-case letters and digits in groups joined by single hyphens")
    return name


def _rule(suite: str, name: str, table: Table) -> PairRule:
    """A table of ``[rules]``; ``order`` is the rule's own name unless it shares one with other rules."""
    order = f"{suite}.{table.text('order', name)}"
    rule = PairRule(
        table.choice("builder", tuple(BUILDERS)), order, table.integer("n"), table.integer("skip", 0), table.integer("snr_db", 0), table.integer("window", 0)
    )
    if rule.count < 1 or min(rule.skip, rule.window) < 0 or (rule.snr_db and rule.builder not in GAINED):
        raise SuiteError(f"{table.where}: n must be at least 1, skip and window at least 0, and snr_db goes with {', '.join(sorted(GAINED))}")
    table.close()
    return rule


def _length(pairs: Listing, frozen: Table | None) -> int:
    if isinstance(pairs, DerivedList):
        return pairs.rule.count
    return len(pairs.read()) if frozen is None else frozen.integer("n")


def _source_class(name: str, table: Table) -> SourceClass:
    labels = table.integers("labels") if "labels" in table else None
    found = SourceClass(name, table.text("dataset"), labels, table.integer("rows_per_cluster", 1))
    if found.rows_per_cluster < 1:
        raise SuiteError(f"{table.where}: rows_per_cluster must be at least 1, found {found.rows_per_cluster}")
    table.close()
    return found
