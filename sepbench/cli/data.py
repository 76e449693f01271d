"""``sepbench data list|fetch|verify|path``: where the data are, whether they are right, and how to get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from sepbench.data.files.fetch import DataStatus
    from sepbench.data.files.integrity import FileCheck
    from sepbench.data.files.manifests import Manifest

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Data sets: list, fetch, verify, path.")

_ABOUT, _WORDS = "data set", 24
"""Head of the column of sentences, and how many characters it has at least."""
_Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Data sets, see 'sepbench data list'.", show_default=False)]


@app.command("list")
def list_datasets() -> None:
    """List data sets with size, licence, and whether and where they are on this machine."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    from sepbench.data.datasets import dataset_names, manifest_of
    from sepbench.data.files.fetch import data_folders, offline, status
    from sepbench.data.files.manifests import load_manifest, manifest_names
    from sepbench.errors import SepbenchError
    from sepbench.report.fitting import print_table

    table = Table(title="Data sets", title_justify="left", show_lines=True)
    for column in ("name", "state", "size", _ABOUT, "files", "folder"):
        justify: Literal["left", "right"] = "right" if column in ("files", "size") else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column != _ABOUT, min_width=_WORDS if column == _ABOUT else None)
    for name in manifest_names():
        manifest = load_manifest(name)
        state = status(manifest)
        cut = _is_cut(manifest, state)
        files = () if cut else manifest.required(state.form or manifest.forms[0])
        size = decimal(sum(file.size for file in files)) if files else "-"
        about = f"{escape(manifest.title)}\n[dim]licence: {escape(manifest.licence)}[/dim]"
        table.add_row(name, _state_text(manifest, state, cut), size, about, f"{len(files):,}" if files else "-", escape(str(state.folder or "")))
    for name in dataset_names():
        try:
            if manifest_of(name) == "":
                table.add_row(name, "registered", "-", "of another package, with files of its own", "-", "")
        except SepbenchError as error:
            table.add_row(name, "[red]unusable[/red]", "-", escape(str(error)), "-", "")
    console = Console()
    print_table(table, console, spare=("folder", "files"))
    console.print("download: 'sepbench data fetch NAME' gets it.", soft_wrap=True)
    console.print("own copy: 'sepbench data verify NAME' says where it comes from.", soft_wrap=True)
    console.print("'sepbench data path NAME' prints the folder of one.", soft_wrap=True)
    console.print("Looked up in: " + ", then ".join(str(folder) for folder in data_folders()), soft_wrap=True, highlight=False, markup=False)
    if offline():
        console.print("SEPBENCH_OFFLINE is set: nothing is downloaded.")


def _is_cut(manifest: Manifest, state: DataStatus) -> bool:
    """Whether a data set is read from the files of another one."""
    return bool(manifest.cut_from) and state.folder is not None and state.folder.name == manifest.cut_from


def _state_text(manifest: Manifest, state: DataStatus, cut: bool) -> str:
    """The word that ``sepbench list suites`` has for it, and below it how that is. ``cut``: it is read from the files of another data set."""
    if state.state in ("missing", "incomplete"):
        word, colour = "own copy" if manifest.download_form is None else "download", "yellow"
    else:
        word, colour = ("damaged", "red") if state.state == "damaged" else ("ready", "green")
    hint = {"incomplete": "incomplete", "built-in": "built in", "on demand": "made when used"}.get(state.state, "")
    hint = f"cut from {manifest.cut_from}" if cut else hint
    return f"[{colour}]{word}[/{colour}]" + (f"\n({hint})" if hint else "")


@app.command("fetch")
def fetch_datasets(
    names: _Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Every data set that is offered for download.")] = False,
) -> None:
    """Download what is missing, verified by checksum, into the user's cache. Files already there are kept."""
    from sepbench.data.files.manifests import load_manifest, manifest_names
    from sepbench.errors import SepbenchError
    from sepbench.report.fetching import fetch_with_progress

    if bool(names) == everything:
        raise SepbenchError("name the data sets to fetch, or give --all (not both); see 'sepbench data list'")
    manifests = [load_manifest(name) for name in names or manifest_names()]
    for manifest in manifests:
        if everything and manifest.download_form is None:
            continue
        folder = fetch_with_progress(manifest)
        typer.echo(f"{manifest.name}: {folder}")


@app.command("verify")
def verify_datasets(names: _Names = None) -> None:
    """Read every file anew and compare size and checksum. Without names: every data set that is there. Exit code 2 if a file is missing or wrong."""
    from rich.console import Console
    from rich.table import Table

    from sepbench.data.files.fetch import status, verify
    from sepbench.data.files.integrity import MANY_FILES
    from sepbench.data.files.manifests import load_manifest, manifest_names
    from sepbench.errors import DataError

    manifests = [load_manifest(name) for name in names or manifest_names()]
    if not names:
        manifests = [manifest for manifest in manifests if status(manifest).state != "missing" and not (manifest.made_by and status(manifest).folder is None)]
    table = Table(title="Files", title_justify="left")
    for column in ("data set", "file", "state", "found", "expected"):
        table.add_column(column, overflow="fold", min_width=12 if column == "found" else None)
    wrong: list[tuple[Manifest, FileCheck]] = []
    # The files of a set that is cut from another one are the other's, once, and so is what is to be done about them.
    owners = [load_manifest(manifest.cut_from) if _is_cut(manifest, status(manifest)) else manifest for manifest in manifests]
    for manifest in {owner.name: owner for owner in owners}.values():
        checks = verify(manifest)
        few = len(checks) < MANY_FILES
        if not few:
            table.add_row(manifest.name, f"{len(checks):,} files", f"{sum(check.ok for check in checks):,} ok", "", "")
        for check in checks:
            if check.ok and few:
                table.add_row(manifest.name, check.name, "[green]ok[/green]", check.found[:12], check.expected[:12])
            elif not check.ok:
                table.add_row(manifest.name, check.name, f"[red]{check.state}[/red]", check.found, check.expected)
                wrong.append((manifest, check))
    Console().print(table)
    if wrong:
        manifest, check = wrong[0]
        more = f" ({len(wrong)} files are missing or wrong)" if len(wrong) > 1 else ""
        fetchable = manifest.download_form is not None or manifest.made_by
        remedy = f"run 'sepbench data fetch {manifest.name}'" if fetchable else manifest.how or "replace it"
        raise DataError(f"data set {manifest.name!r}: {check.describe()}{more}; {remedy}")


@app.command("path")
def dataset_path(name: Annotated[str, typer.Argument(help="Data set, see 'sepbench data list'.")]) -> None:
    """Print the folder of a data set and nothing else; for scripts. Never downloads."""
    from sepbench.data.files.fetch import locate
    from sepbench.data.files.manifests import load_manifest

    typer.echo(str(locate(load_manifest(name))))
