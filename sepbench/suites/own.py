"""A user's folders of images or sounds to a frozen suite in a folder of its own. ``docs/own-data.md`` says what lies in it.

Everything is written into a hidden folder beside it that gets its name at the end: an interrupted ``new-suite`` leaves nothing that looks like a suite.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepbench.data.own.folders import OwnFolder, first_three, open_folders
from sepbench.data.own.images import read_images
from sepbench.data.own.lists import ListPlan, OwnLists, make_lists
from sepbench.data.own.signals import OwnSignals, check_no_shared_content, distinct_signals
from sepbench.data.own.sounds import read_sounds
from sepbench.data.own.splits import SPLITS, check_shares, split_groups
from sepbench.data.own.stored import BESIDE
from sepbench.errors import SepbenchError, SuiteError
from sepbench.files import file_sha256, making_folder
from sepbench.protocols import Domain
from sepbench.registry import SUITE_FILE, suite_names
from sepbench.suites.freeze import SUMS, write_digests
from sepbench.suites.loader import NAME, load_suite

_METRICS: Mapping[str, tuple[str, ...]] = {
    "image": ("psnr", "psnr_unclamped", "psnr_sum_mse", "ssim", "mixture_error"),
    "audio": ("sdr", "sdr_mean", "si_sdr", "si_sdr_improvement", "mixture_error"),
}
"""The first one ranks."""
_METHODS: Mapping[str, tuple[str, ...]] = {
    "image": ("average", "mixture", "ideal-mask", "nmf", "nmf-semi", "ica", "rpca"),
    "audio": ("average", "mixture", "ideal-ratio-mask", "ideal-binary-mask", "nmf", "nmf-semi", "nmf-blind", "ica", "rpca", "hpss", "repet", "ft2d"),
}
_UNIT = {"image": "image", "audio": "recording"}
DEFAULT_SECONDS = 3.0
MOST_SOURCES = 6
"""The best of all orders of the estimates is looked for."""
_MOST_DB = 100.0


@dataclass(frozen=True, slots=True)
class OwnSuite:
    """What ``new-suite`` is asked for.

    Attributes:
        name: of the suite.
        sources: one folder per class.
        agnostic: mix signals of one folder with each other.
        n_sources: then, how many.
        size: pixels of a side; None: images have one size already.
        rate: Hz; None: the files' own.
        seconds: of a piece of sound; None: ``DEFAULT_SECONDS``.
        operator: ``sum``, ``mean``, ``gain``; empty: ``sum`` of images, ``gain`` of sounds.
        snr_db: of ``gain``: level of source 0 over each other one; None: 0.
        mixtures: test mixtures; None: 1,000, or as many as the files make.
        validation, test: shares of the files.
        convert: change files, by the stated rules, that do not fit in as they are.
    """

    name: str
    sources: tuple[Path, ...]
    agnostic: bool = False
    n_sources: int = 2
    size: int | None = None
    rate: int | None = None
    seconds: float | None = None
    operator: str = ""
    snr_db: float | None = None
    mixtures: int | None = None
    validation: float = 0.1
    test: float = 0.2
    convert: bool = False

    @property
    def length(self) -> float:
        """Seconds of a piece of sound."""
        return DEFAULT_SECONDS if self.seconds is None else self.seconds


@dataclass(frozen=True, slots=True)
class MadeSuite:
    """What ``new-suite`` made.

    Attributes:
        path: the suite's folder.
        classes: name of a class -> split -> (files, signals).
        groups: name of a class -> split -> groups of files; files that share content are one.
        tasks: task -> mixtures.
        clusters: different groups of files in the test mixtures, of the source that has fewest: what intervals count.
        notes: what was done to files, or was left out.
    """

    path: Path
    classes: dict[str, dict[str, tuple[int, int]]]
    groups: dict[str, dict[str, int]]
    tasks: dict[str, int]
    clusters: int
    notes: list[str]


def make_suite(asked: OwnSuite, into: Path, tell: Callable[[str], object] = lambda line: None) -> MadeSuite:
    """Read, convert, split, mix and freeze.

    Args:
        asked: the request.
        into: the folder in which the suite's folder is made.
        tell: is given a line before the part that takes long.

    Raises:
        SuiteError: a name that is taken or malformed, options that do not go together.
        DataError: files that cannot be used.
        SepbenchError: an optional package is missing, the folder cannot be written.
    """
    target = into / asked.name
    _check(asked, target)
    domain, folders = open_folders(asked.sources)
    _check_kind(asked, domain)
    names = _class_names(asked.sources)
    notes = _passed_over(names, folders)
    tell(f"reading {sum(len(folder.files) for folder in folders):,} {'images' if domain == 'image' else 'sounds'}")
    rate = None
    if domain == "image":
        read, told = read_images(folders, names, asked.size, asked.convert)
    else:
        read, rate, told = read_sounds(folders, names, asked.rate, asked.length, asked.convert)
    notes += told
    check_no_shared_content(read)
    classes = []
    for signals in read:
        chosen, copies = distinct_signals(signals)
        notes += [f"{signals.name}: left out, of the same content as another: {first_three(copies)}"] if copies else []
        classes.append(chosen)
    parts = [_split(asked, signals) for signals in classes]
    operator = asked.operator or ("sum" if domain == "image" else "gain")
    n_sources = asked.n_sources if asked.agnostic else len(classes)
    plan = ListPlan(asked.name, asked.agnostic, n_sources, operator == "gain", asked.snr_db or 0.0, asked.mixtures, _UNIT[domain])
    lists = make_lists(plan, parts)
    try:
        with making_folder(target) as folder:
            _write(folder, parts, lists)
            text = _suite_text(asked, domain, plan, operator, rate, parts, lists)
            (folder / SUITE_FILE).write_text(text, encoding="utf-8")
            write_digests([folder / SUITE_FILE], folder / "tasks.toml")
            load_suite(str(folder / SUITE_FILE))
    except OSError as error:
        raise SepbenchError(f"cannot write {target}: {error.strerror or error}; choose another folder with --out, or free some space") from error
    sizes = {part_name: {split: (len(np.unique(s.file)), len(s)) for split, s in part.items()} for part_name, part in zip(names, parts, strict=True)}
    groups = {part_name: {split: len(np.unique(s.group)) for split, s in part.items()} for part_name, part in zip(names, parts, strict=True)}
    return MadeSuite(target, sizes, groups, lists.sizes, lists.used[plan.task], notes)


def _check(asked: OwnSuite, target: Path) -> None:
    if not NAME.fullmatch(asked.name):
        raise SuiteError(f"{asked.name!r} is no name for a suite: use lower-case letters, digits and single hyphens, as in 'my-suite'")
    if target.parent.exists() and not target.parent.is_dir():
        raise SuiteError(f"{target.parent} is a file; choose another folder with --out")
    if target.exists():
        raise SuiteError(f"{target} exists; nothing was written. Choose another name or --out, or remove the folder")
    if asked.name in suite_names():
        raise SuiteError(f"there is a suite {asked.name!r} already; choose another name (see 'sepbench list suites')")
    if asked.agnostic and len(asked.sources) != 1:
        raise SuiteError(f"--agnostic mixes the files of one folder with each other, and {len(asked.sources)} are given; leave it out, or give one folder")
    if not asked.agnostic and len(asked.sources) == 1:
        raise SuiteError("one folder is one class: give a second folder after --sources, or --agnostic to mix the files of this one with each other")
    if not 2 <= asked.n_sources <= MOST_SOURCES:
        raise SuiteError(f"--n-sources must be from 2 to {MOST_SOURCES}, got {asked.n_sources}")
    if len(asked.sources) > MOST_SOURCES:
        raise SuiteError(f"--sources takes at most {MOST_SOURCES} folders, a source of each mixture from each; got {len(asked.sources)}")
    if not asked.agnostic and asked.n_sources != 2:
        raise SuiteError("--n-sources goes with --agnostic; without it every folder is a source")
    check_shares(asked.validation, asked.test)


def _passed_over(names: Sequence[str], folders: Sequence[OwnFolder]) -> list[str]:
    """Files of other kinds: nobody should find out by counting that they are not in the suite."""
    others = ((name, [folder.name(file) for file in folder.others]) for name, folder in zip(names, folders, strict=True))
    return [f"{name}: passed over, neither image nor sound: {first_three(files)}" for name, files in others if files]


def _check_kind(asked: OwnSuite, domain: Domain) -> None:
    """Options of the other kind are mistakes."""
    if domain == "image":
        given = [option for option, value in (("--rate", asked.rate), ("--seconds", asked.seconds), ("--snr", asked.snr_db)) if value is not None]
        given += ["--operator gain"] if asked.operator == "gain" else []
    else:
        given = ["--size"] if asked.size is not None else []
        if asked.snr_db is not None and asked.operator not in ("", "gain"):
            raise SuiteError(f"--snr goes with --operator gain, not with {asked.operator}")
        if asked.snr_db is not None and not abs(asked.snr_db) <= _MOST_DB:
            raise SuiteError(f"--snr must be from {-_MOST_DB:g} to {_MOST_DB:g} dB, got {asked.snr_db:g}")
    if given:
        raise SuiteError(f"the folders hold {'images' if domain == 'image' else 'sounds'}; leave out {', '.join(given)}")


def _class_names(sources: Sequence[Path]) -> list[str]:
    """The folders' names in lower-case letters, digits and hyphens; those that are not unique then get a number."""
    names = []
    for number, source in enumerate(sources):
        plain = unicodedata.normalize("NFKD", source.resolve().name).encode("ascii", "ignore").decode("ascii").lower()
        names.append(re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or f"source-{number}")
    return [f"{name}-{number}" if names.count(name) > 1 else name for number, name in enumerate(names)]


def _split(asked: OwnSuite, signals: OwnSignals) -> dict[str, OwnSignals]:
    least = asked.n_sources if asked.agnostic else 1
    try:
        places = split_groups(f"{asked.name}.{signals.name}.split", signals.group, asked.validation, asked.test, least)
    except SepbenchError as error:
        files, groups = len(np.unique(signals.file)), len(np.unique(signals.group))
        joined = f"{files:,} files, of which those that share content count as one, " if files > groups else ""
        raise SuiteError(f"{signals.name}: {joined}{error}") from error
    rows = {split: np.flatnonzero(places == place) for place, split in enumerate(SPLITS)}
    return {split: signals.of(chosen) for split, chosen in rows.items() if len(chosen)}


def _write(folder: Path, parts: Sequence[Mapping[str, OwnSignals]], lists: OwnLists) -> None:
    """Signals, lists, cluster keys, where each signal came from, and the signals' digests."""
    origins = io.StringIO()
    table = csv.writer(origins, lineterminator="\n")
    table.writerow(["class", "split", "row", "file", "start", "group"])
    for part in parts:
        for split, signals in part.items():
            path = folder / "data" / signals.name / f"{split}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, signals.values)
            columns = (signals.file.tolist(), signals.start.tolist(), signals.group.tolist())
            for row, (file, start, group) in enumerate(zip(*columns, strict=True)):
                table.writerow([signals.name, split, row, signals.file_names[file], start, group])
    (folder / "files.csv").write_text(origins.getvalue(), encoding="utf-8")
    for kind, files in (("pairs", lists.pairs), ("clusters", lists.clusters)):
        (folder / kind).mkdir()
        for stem, content in files.items():
            (folder / kind / f"{stem}.csv").write_bytes(content)
    summed = sorted([*(folder / "data").rglob("*.npy"), folder / "files.csv"])
    (folder / SUMS).write_text("".join(f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in summed), encoding="utf-8")


def _suite_text(
    asked: OwnSuite, domain: Domain, plan: ListPlan, operator: str, rate: int | None, parts: Sequence[Mapping[str, OwnSignals]], lists: OwnLists
) -> str:
    """The suite's TOML. Words of the user's are written as JSON texts, which are TOML texts too."""
    classes = [part["test"].name for part in parts]
    shape = parts[0]["test"].values.shape[1:]
    shape = (1, *shape) if len(shape) < 3 else (shape[2], shape[0], shape[1])
    title = f"{' and '.join(classes)}, {f'{plan.n_sources} at a time' if plan.agnostic else 'one of each'} ({operator})"
    settings = _settings(asked, domain, operator, rate)
    validated = f"{plan.task}-val" in lists.sizes
    lines = [
        "# Written by 'sepbench new-suite'; docs/own-data.md describes every key.",
        "format = 1",
        f"name = {json.dumps(asked.name)}",
        "version = 1",
        f"title = {json.dumps(title)}",
        f"description = {json.dumps('Own files. ' + settings)}",
        f"domain = {json.dumps(domain)}",
        f"metrics = {json.dumps(_METRICS[domain])}",
        f"ranking_metric = {json.dumps(_METRICS[domain][0])}",
        f"methods = {json.dumps(_METHODS[domain])}",
        "",
        "[data]",
        f"cluster = {json.dumps(plan.unit)}",
        f"shape = {json.dumps(shape)}",
        *([f"sample_rate = {rate}"] if rate is not None else []),
        *(['validation = "validation"'] if validated else []),
        "",
        "[classes]",
        *(f"{json.dumps(name)} = {{ dataset = {json.dumps(f'{BESIDE}data/{name}')} }}" for name in classes),
        "",
        f"[tasks.{plan.task}]",
        f'pairs = "pairs/{plan.task}.csv"',
        f'clusters = "clusters/{plan.task}.csv"',
        f"sources = {json.dumps(classes * plan.n_sources if plan.agnostic else classes)}",
        f"operator = {json.dumps(operator)}",
        'assignment = "permutation"',
    ]
    if f"{plan.task}.train-mixtures" in lists.pairs:
        lines += ["observed_source = 1", *(f'{key} = "pairs/{plan.task}.{key.replace("_", "-")}.csv"' for key in ("train_mixtures", "train_observed"))]
    if not all("train" in part for part in parts):
        lines.append('untrainable = "all files of this suite are for validation and test"')
    if validated:
        files = (f'{key} = "{key}/{plan.task}-val.csv"' for key in ("pairs", "clusters"))
        lines += ["", f"[tasks.{plan.task}-val]", f'validates = "{plan.task}"', *files]
    return "\n".join(lines) + "\n"


def _settings(asked: OwnSuite, domain: Domain, operator: str, rate: int | None) -> str:
    """The options that decided the data, as they would be given again."""
    given = [f"--size {asked.size}"] if asked.size is not None else []
    if domain == "audio":
        given += [f"--rate {rate}", f"--seconds {asked.length:g}"]
    given.append(f"--operator {operator}")
    given += [f"--snr {asked.snr_db or 0.0:g}"] if operator == "gain" else []
    given += [f"--mixtures {asked.mixtures}"] if asked.mixtures is not None else []
    given += [f"--agnostic --n-sources {asked.n_sources}"] if asked.agnostic else []
    given += [f"--val {asked.validation:g} --test {asked.test:g}", *(["--convert"] if asked.convert else [])]
    return f"Made with {' '.join(given)}."
