"""Manifests: which files a data set consists of, where they come from and how to tell that they are the right ones.

One TOML file per data set under ``data_manifests/``::

    name = "mnist"                 # equals the file's stem
    title = "..."
    licence = "CC BY-SA 3.0"
    citation = "..."
    homepage = "https://..."
    notes = "..."                  # optional
    shipped_with = "sklearn"       # optional: the installed package that carries the data, then ``files`` is empty ...
    array_sha256 = "..."           # ... and this is the digest of what its reader finds
    layout = ["test", "*/meta"]    # optional: for data whose bytes nobody here has seen, then ``files`` is empty: paths that must be there (``*`` for any
    how = "..."                    # ... name), and how to get the data, the end of the sentence "data set ... is not complete; ..."
    made_by = "package.module"     # optional: the package makes the files itself, see ``sepbench.data.files.made``; no file has urls then
    cut_from = "cifar10"           # optional: a data set that holds all of this one: it is read from there where only that one is here
    listing = "listings/x.csv"     # optional: many small files, named in a CSV beside the manifest (name,size,sha256) instead of here

    [[files]]
    name = "train-images-idx3-ubyte.gz"   # relative to the data set's folder, may lie in a subfolder
    size = 9912422                        # bytes
    sha256 = "440f..."                    # and/or md5 where the authors publish only that
    urls = ["https://..."]                # mirrors, tried in this order; none: the file cannot be downloaded
    optional = false                      # optional files need not be there
    form = "binary"                       # optional: files of one form belong together, any complete form is enough
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from sepbench.errors import DataError, some
from sepbench.registry import nearest
from sepbench.resources import resource_root

# TOML files of the same folder that describe something else: frozen task digests and trained weights.
_NOT_DATA_SETS = frozenset({"tasks", "weights"})


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set.

    Attributes:
        name: path relative to the data set's folder, with forward slashes.
        size: bytes.
        sha256, md5: lower-case hex digests; at least one is there.
        urls: mirrors in the order they are tried.
        optional: True if the data set is complete without it.
        form: name of the alternative layout it belongs to; ``""`` where there is only one.
    """

    name: str
    size: int
    sha256: str = ""
    md5: str = ""
    urls: tuple[str, ...] = ()
    optional: bool = False
    form: str = ""

    @property
    def algorithm(self) -> str:
        """The digest that is checked: ``sha256`` wherever it is known."""
        return "sha256" if self.sha256 else "md5"

    @property
    def digest(self) -> str:
        """Hex digest under ``algorithm``."""
        return self.sha256 or self.md5


@dataclass(frozen=True, slots=True)
class Manifest:
    """A data set's files and provenance; see the module's text for the TOML keys."""

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    files: tuple[DataFile, ...] = field(default=())
    notes: str = ""
    shipped_with: str = ""
    array_sha256: str = ""
    layout: tuple[str, ...] = ()
    how: str = ""
    listing: str = ""
    made_by: str = ""
    cut_from: str = ""

    @property
    def forms(self) -> tuple[str, ...]:
        """Alternative layouts in order of preference; ``("",)`` where there is only one."""
        return tuple(dict.fromkeys(file.form for file in self.files)) or ("",)

    def files_of(self, form: str) -> tuple[DataFile, ...]:
        """The files of one layout."""
        return tuple(file for file in self.files if file.form == form)

    def required(self, form: str) -> tuple[DataFile, ...]:
        """The files of one layout that must be there."""
        return tuple(file for file in self.files_of(form) if not file.optional)

    @property
    def download_form(self) -> str | None:
        """The first layout of which every required file can be downloaded, or None."""
        return next((form for form in self.forms if self.required(form) and all(file.urls for file in self.required(form))), None)


def manifest_names() -> list[str]:
    """Names of all data sets that have a manifest, sorted."""
    return sorted(path.stem for path in resource_root("data_manifests").glob("*.toml") if path.stem not in _NOT_DATA_SETS)


def load_manifest(name: str) -> Manifest:
    """The manifest of a data set.

    Raises:
        UnknownNameError: no such data set.
        DataError: its manifest is malformed.
    """
    names = manifest_names()
    if name not in names:
        raise nearest(name, names, "data set")
    return read_manifest(resource_root("data_manifests") / f"{name}.toml")


def read_manifest(path: Path) -> Manifest:
    """A manifest from any TOML file.

    Raises:
        DataError: not readable, not TOML, or a key is missing, unknown or out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"the manifest {path} cannot be read: {error}") from error
    entries = document.pop("files", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"the manifest {path} is malformed: files must be an array of tables")
    listing = document.get("listing", "")
    if listing and isinstance(listing, str):
        if entries:
            raise DataError(f"the manifest {path} is malformed: it needs either files or a listing")
        files = _listed_files(path.parent / listing)
    else:
        files = tuple(_data_file(entry, f"the manifest {path} is malformed: file {number}") for number, entry in enumerate(entries, start=1))
    values = _checked(document, Manifest, {"files"}, f"the manifest {path} is malformed")
    manifest = Manifest(**{**values, "layout": tuple(values.get("layout", ()))}, files=files)
    _check_manifest(manifest, path)
    return manifest


_TYPES: Mapping[str, type] = {"size": int, "urls": list, "layout": list, "optional": bool}


def _checked(table: Mapping[str, Any], cls: type[DataFile] | type[Manifest], given: set[str], where: str) -> dict[str, Any]:
    """The table's values if every key is known, every key without a default is there and every type is right."""
    known = {f.name for f in fields(cls)} - given
    needed = {"name", "size"} if cls is DataFile else {"name", "title", "licence", "citation", "homepage"}
    if unknown := sorted(table.keys() - known):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; known: {some(sorted(known))}")
    if missing := sorted(needed - table.keys()):
        raise DataError(f"{where}: the key {missing[0]!r} is missing")
    for key, value in table.items():
        wanted = _TYPES.get(key, str)
        if type(value) is not wanted:
            raise DataError(f"{where}: {key} must be {wanted.__name__}, got {value!r}")
    return dict(table)


_LISTING_HEADER = ["name", "size", "sha256"]


@lru_cache(maxsize=8)  # thousands of lines, asked for whenever a split is opened; a package's own file does not change under it
def _listed_files(path: Path) -> tuple[DataFile, ...]:
    where = f"the listing {path} is malformed"
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the listing {path} cannot be read: {error}") from error
    if not rows or rows[0] != _LISTING_HEADER:
        raise DataError(f"{where}: it must start with {','.join(_LISTING_HEADER)}")
    files = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(_LISTING_HEADER) or not row[1].isdecimal():
            raise DataError(f"{where}: line {number} must be name,size,sha256, found {','.join(row)[:80]!r}")
        files.append(_data_file({"name": row[0], "size": int(row[1]), "sha256": row[2]}, f"{where}: line {number}"))
    return tuple(files)


def _data_file(entry: Mapping[str, Any], where: str) -> DataFile:
    values = _checked(entry, DataFile, set(), where)
    file = DataFile(**{**values, "urls": tuple(values.get("urls", ()))})
    _check_inside(file.name, where)
    if file.size <= 0:
        raise DataError(f"{where}: size must be a positive number of bytes, got {file.size}")
    for value, digits in ((file.sha256, 64), (file.md5, 32)):
        if value and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
            raise DataError(f"{where}: {value!r} is no lower-case hex digest of {digits} digits")
    if not file.digest:
        raise DataError(f"{where}: sha256 or md5 is missing")
    for url in file.urls:
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise DataError(f"{where}: {url!r} is no http(s) address")
    return file


def _check_inside(name: object, where: str) -> None:
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not isinstance(name, str) or not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise DataError(f"{where}: the name {name!r} must be a relative path inside the data set's folder")


def _check_manifest(manifest: Manifest, path: Path) -> None:
    where = f"the manifest {path} is malformed"
    if manifest.name != path.stem:
        raise DataError(f"{where}: its name is {manifest.name!r}, it must be {path.stem!r} like the file")
    ways = sum(map(bool, (manifest.files, manifest.shipped_with, manifest.layout)))
    if ways != 1 or bool(manifest.shipped_with) != bool(manifest.array_sha256) or bool(manifest.layout) != bool(manifest.how):
        raise DataError(f"{where}: it needs either files, or shipped_with and array_sha256, or layout and how")
    if manifest.made_by and (not manifest.files or any(file.urls or file.optional or file.form for file in manifest.files)):
        raise DataError(f"{where}: with made_by it needs files, without urls, optional and form")
    for name in manifest.layout:
        _check_inside(name, where)
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names):
        raise DataError(f"{where}: a file is listed twice")
    for form in manifest.forms:
        if manifest.files and not manifest.required(form):
            raise DataError(f"{where}: all files of form {form!r} are optional")
