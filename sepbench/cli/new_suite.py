"""``sepbench new-suite NAME --sources DIR DIR``: folders of images or sounds to a frozen suite."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from sepbench.errors import SepbenchError

if TYPE_CHECKING:
    from sepbench.suites.own import MadeSuite, OwnSuite


class OperatorChoice(StrEnum):
    """How sources become a mixture."""

    sum = "sum"
    mean = "mean"
    gain = "gain"


class SourcesCommand(TyperCommand):
    """``--sources A B C`` as ``--sources A --sources B --sources C``: options of click take a fixed number of words."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The name first: after the folders it would be one of them."""
        return ["NAME", "--sources DIR DIR ...", "[OPTIONS]"]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelt, listing = list[str](), False
        for word in args:
            if word == "--sources":
                listing = True
                continue
            listing = listing and not word.startswith("-")
            spelt += ["--sources", word] if listing else [word]
        if spelt[:1] == ["--sources"] and "--help" not in spelt:
            raise SepbenchError("the suite's name comes first, since all words after --sources are folders: sepbench new-suite NAME --sources DIR DIR")
        return super().parse_args(ctx, spelt)


def new_suite(
    name: Annotated[str, typer.Argument(help="Name of the suite: lower-case letters, digits and single hyphens.")],
    sources: Annotated[list[Path] | None, typer.Option("--sources", metavar="DIR DIR ...", help="Folders of images or sounds, one per class.")] = None,
    agnostic: Annotated[bool, typer.Option("--agnostic", help="Mix the files of one folder with each other.")] = False,
    n_sources: Annotated[int, typer.Option(help="With --agnostic: so many in a mixture.")] = 2,
    size: Annotated[int | None, typer.Option(help="Images: pixels of a side. The middle square is cut out and resized.")] = None,
    rate: Annotated[int | None, typer.Option(help="Sounds: Hz. Default: the rate that all files have.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Sounds: length of the pieces that files are cut into. Default: 3.")] = None,
    operator: Annotated[OperatorChoice | None, typer.Option(help="Sum, mean, or sum at levels. Default: sum of images, gain of sounds.")] = None,
    snr: Annotated[float | None, typer.Option(help="With gain: dB of the first source over each other. Default: 0.")] = None,
    mixtures: Annotated[int | None, typer.Option(help="Test mixtures. Default: 1,000, or as many as the files make.")] = None,
    val: Annotated[float, typer.Option(help="Share of the files for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the files for test.")] = 0.2,
    convert: Annotated[bool, typer.Option("--convert", help="Convert files that do not fit in as they are, by the rules of docs/own-data.md.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder in which NAME/ is made. Default: the first of SEPBENCH_SUITES, or suites.")] = None,
) -> None:
    """Make a frozen suite of your own images or sounds: read, split by file, mix, write digests. Existing folders are never overwritten."""
    from sepbench.registry import suite_folders
    from sepbench.suites.own import OwnSuite, make_suite

    if not sources:
        raise SepbenchError("--sources is missing: give the folders of images or sounds, one per class")
    asked = OwnSuite(
        name=name,
        sources=tuple(sources),
        agnostic=agnostic,
        n_sources=n_sources,
        size=size,
        rate=rate,
        seconds=seconds,
        operator=operator.value if operator else "",
        snr_db=snr,
        mixtures=mixtures,
        validation=val,
        test=test,
        convert=convert,
    )
    _tell(asked, make_suite(asked, out or suite_folders()[0], lambda line: typer.echo(line, err=True)))


def _tell(asked: OwnSuite, made: MadeSuite) -> None:
    from sepbench.registry import suite_names
    from sepbench.results.statistics import MIN_CLUSTERS

    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    for cls, splits in made.classes.items():
        parts = [f"{split} {_amount(*amount)}" for split, amount in splits.items()]
        typer.echo(f"{cls}: {', '.join(parts)}")
    for task, count in made.tasks.items():
        typer.echo(f"{task}: {_count(count, 'mixture')}")
    suite = asked.name if asked.name in suite_names() else made.path.absolute()
    run = f"  sepbench run --suite {suite} --methods average,nmf"
    if made.clusters >= MIN_CLUSTERS:
        typer.echo(f"{made.path}/ written and frozen. Next:\n{run}")
        return
    lacking, remedy = _unranked(asked, made)
    typer.echo(f"{made.path}/ written and frozen, but methods cannot be ranked on it: {lacking}.")
    typer.echo(f"A run gives scores and means, without ranks and verdicts; that is enough to try a method out:\n{run}")
    typer.echo(f"To rank methods, remove {made.path} and run this command again with {remedy}.")


def _unranked(asked: OwnSuite, made: MadeSuite) -> tuple[str, str]:
    """What a suite lacks that cannot rank methods, and which options or files would do."""
    from sepbench.data.own.splits import groups_for, share_for
    from sepbench.results.statistics import MIN_CLUSTERS

    least = asked.n_sources if asked.agnostic else 1
    # Sources of one folder are put in random order: of just enough files, one may never be the first source of a mixture.
    enough = MIN_CLUSTERS + 1 if asked.agnostic else MIN_CLUSTERS
    few = [f"{splits['test']:,} of {cls}" for cls, splits in made.groups.items() if splits["test"] < enough]
    if not few:
        mixtures = _count(next(iter(made.tasks.values())), "mixture")
        held = f"its {mixtures} hold only {made.clusters:,} different test files of a source, {MIN_CLUSTERS} are needed"
        return held, "a larger --mixtures, or without it" if asked.mixtures is not None else "more files"
    share = share_for(enough, [sum(splits.values()) for splits in made.groups.values()], asked.validation, least)
    files = f"{groups_for(enough, asked.validation, asked.test, least):,} different files {'in all' if asked.agnostic else 'per class'}"
    remedy = f"--test {share:g}, or with {files}" if share is not None else f"{files}, or with fewer and a larger --test"
    return f"it has too few test files, {' and '.join(few)}; {enough} are needed{'' if asked.agnostic else ' of each class'}", remedy


def _amount(files: int, signals: int) -> str:
    return _count(files, "file") if files == signals else f"{_count(files, 'file')} ({_count(signals, 'piece')})"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
