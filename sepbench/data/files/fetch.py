"""Where data sets lie and how they get there.

A data set is looked up in ``$SEPBENCH_DATA/<name>/`` first (never written to) and in the user's cache folder next
(``platformdirs``; ``SEPBENCH_CACHE`` overrides it). What is in neither is downloaded into the cache, file by file, each from the first mirror
that delivers the right bytes. ``SEPBENCH_OFFLINE=1`` forbids every network access.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
import requests

from sepbench.data.files.integrity import FileCheck, check_file, check_files, check_size, read_digest
from sepbench.data.files.made import make_missing
from sepbench.data.files.manifests import DataFile, Manifest, load_manifest
from sepbench.data.readers.digits import digits_sha256
from sepbench.errors import DataError

with warnings.catch_warnings():  # in a notebook without widgets tqdm complains, which pooch imports and nobody here uses
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

DATA_VARIABLE = "SEPBENCH_DATA"
CACHE_VARIABLE = "SEPBENCH_CACHE"
OFFLINE_VARIABLE = "SEPBENCH_OFFLINE"

_NAMED_FILES = 5  # a message names so many missing files and counts the rest
_CHUNK = 1 << 16  # bytes between two reports of progress

# Called with (file name, bytes so far, bytes in all); the count starts again at 0 when the next mirror is tried.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class FoundData:
    """A complete data set: its folder and which of the manifest's forms lies there (``""`` where there is only one)."""

    folder: Path
    form: str


@dataclass(frozen=True, slots=True)
class DataStatus:
    """What ``sepbench data list`` shows.

    Attributes:
        state: ``present`` (all files, right sizes), ``built-in``, ``on demand`` (made by the package when needed), ``damaged`` (a file of the wrong
            size), ``incomplete`` or ``missing``.
        folder: where the data lie, or the fullest of the folders searched; None if nothing is anywhere.
        form: the form found there.
    """

    state: Literal["present", "built-in", "on demand", "damaged", "incomplete", "missing"]
    folder: Path | None
    form: str = ""


def offline() -> bool:
    """True if ``SEPBENCH_OFFLINE`` is set to anything but ``0``, ``false``, ``no`` or nothing."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def cache_folder() -> Path:
    """The user's cache of sepbench; it need not exist yet.

    Raises:
        DataError: nothing says where the home folder is.
    """
    override = os.environ.get(CACHE_VARIABLE, "").strip()
    if override:
        return _folder_of(CACHE_VARIABLE, override)
    try:
        folder = Path(platformdirs.user_cache_dir("sepbench", appauthor=False))
    except RuntimeError:  # neither HOME nor the list of users knows the home folder: an error, or, of older versions, "~/.cache"
        folder = Path()
    if not folder.is_absolute():
        raise DataError(f"there is no home folder to keep data in: set HOME, or set {CACHE_VARIABLE} to a folder that can be written to")
    return folder


def _folder_of(variable: str, value: str) -> Path:
    """The folder that a variable of the environment names.

    Raises:
        DataError: it begins with ``~`` and nobody knows that home folder.
    """
    try:
        return Path(value).expanduser().resolve()
    except RuntimeError as error:
        raise DataError(f"{variable}={value}: the home folder is not known; set HOME, or give {variable} (or {CACHE_VARIABLE}) as a whole path") from error


def data_folders() -> list[Path]:
    """The folders data sets are looked up in, in order; they need not exist."""
    override = os.environ.get(DATA_VARIABLE, "").strip()
    return [*([_folder_of(DATA_VARIABLE, override)] if override else []), cache_folder()]


def _search_folders(manifest: Manifest) -> list[Path]:
    override = os.environ.get(DATA_VARIABLE, "").strip()
    folders = data_folders()
    if override and not folders[0].is_dir():
        raise DataError(f"{DATA_VARIABLE}={override} is not a folder; set it to the folder that holds {manifest.name}/, or unset it to use {cache_folder()}")
    return [folder / manifest.name for folder in folders]


def _stamps() -> Path:
    return cache_folder() / ".verified"


def _needed(manifest: Manifest, form: str) -> int:
    """How many names ``_lacking`` looks for."""
    return len(manifest.required(form)) + len(manifest.layout)


def _lacking(manifest: Manifest, folder: Path, form: str) -> list[str]:
    """Required files of a form, and paths of the layout, that are not in a folder."""
    files = [file.name for file in manifest.required(form) if not os.path.isfile(f"{folder}/{file.name}")]  # noqa: PTH113 - a Path per file is slow for thousands
    return files + [name for name in manifest.layout if next(folder.glob(name), None) is None]


def _find(manifest: Manifest) -> FoundData | None:
    """The first folder and form of which every required file exists, whatever its content."""
    for folder in _search_folders(manifest):
        for form in manifest.forms:
            if not _lacking(manifest, folder, form):
                return FoundData(folder, form)
    return None


def _nearest_to_complete(manifest: Manifest) -> tuple[FoundData, list[str]]:
    """The folder and form with the most of its required files, and those that lack; the download form where nothing is anywhere."""
    forms = sorted(manifest.forms, key=lambda form: form != manifest.download_form)
    best: tuple[float, FoundData, list[str]] | None = None
    for folder in _search_folders(manifest):
        for form in forms:
            lacking = _lacking(manifest, folder, form)
            share = 1 - len(lacking) / _needed(manifest, form)
            if best is None or share > best[0]:
                best = (share, FoundData(folder, form), lacking)
    if best is None:
        raise ValueError("a manifest with files has at least one form and there is always a cache folder")
    return best[1], best[2]


def _missing(manifest: Manifest) -> DataError:
    _, lacking = _nearest_to_complete(manifest)
    searched = " and ".join(str(folder) for folder in _search_folders(manifest))
    named = lacking[:_NAMED_FILES] + ([f"{len(lacking) - _NAMED_FILES:,} more files"] if len(lacking) > _NAMED_FILES else [])
    problem = f"data set {manifest.name!r} is not complete: no {', '.join(named)} in {searched}"
    if manifest.made_by:
        return DataError(f"{problem}; run 'sepbench data fetch {manifest.name}', which makes them here and needs no network")
    if manifest.how:
        return DataError(f"{problem}; {manifest.how} ({DATA_VARIABLE} names the first folder's parent)")
    if manifest.download_form is None:
        remedy = f"get it from {manifest.homepage} and put the files there yourself ({DATA_VARIABLE} names the first folder's parent)"
        return DataError(f"{problem}; it is not offered for download, {remedy}")
    if offline():
        return DataError(f"{problem}; {OFFLINE_VARIABLE} forbids downloading: unset it, or put the files there yourself")
    return DataError(f"{problem}; run 'sepbench data fetch {manifest.name}' or put the files there yourself")


def _damaged(manifest: Manifest, found: FoundData, check: FileCheck) -> DataError:
    if found.folder == cache_folder() / manifest.name and (manifest.made_by or manifest.download_form == found.form):
        return DataError(f"{check.describe()}; run 'sepbench data fetch {manifest.name}' to {'make' if manifest.made_by else 'download'} it again")
    return DataError(f"{check.describe()}; replace the file, or remove it to have the data looked up elsewhere")


def _package_folder(manifest: Manifest) -> Path:
    spec = importlib.util.find_spec(manifest.shipped_with)
    if spec is None or spec.origin is None:
        raise DataError(f"data set {manifest.name!r} ships with the package {manifest.shipped_with!r}, which is not installed; install it")
    return Path(spec.origin).parent


def find(manifest: Manifest) -> FoundData:
    """Folder and form of a complete and intact data set, without touching the network.

    Every file's size is compared each time, its digest when it was not verified before at this size and modification time.

    Raises:
        DataError: files are missing or damaged, or ``SEPBENCH_DATA`` names no folder.
    """
    if manifest.shipped_with:
        return FoundData(_package_folder(manifest), "")
    found = _find(manifest)
    if found is None:
        whole = _whole(manifest)
        if whole is None:
            raise _missing(manifest)
        return whole
    return _intact(manifest, found)


def _whole(manifest: Manifest) -> FoundData | None:
    """Of a data set that is cut from another one and has no files of its own here: the other one, intact, if it is here."""
    if not manifest.cut_from:
        return None
    other = load_manifest(manifest.cut_from)
    found = _find(other)
    return None if found is None else _intact(other, found)


def _intact(manifest: Manifest, found: FoundData) -> FoundData:
    faults = check_files(manifest.required(found.form), found.folder, _stamps())
    if faults:
        raise _damaged(manifest, found, faults[0])
    return found


def locate(manifest: Manifest) -> Path:
    """Folder of a complete and intact data set: ``$SEPBENCH_DATA/<name>`` or ``<cache>/<name>``. Raises as ``find`` does."""
    return find(manifest).folder


def fetch(manifest: Manifest, progress: Progress | None = None) -> Path:
    """Folder of the data set, after downloading what is missing. Raises as ``obtain`` does."""
    return obtain(manifest, progress).folder


def obtain(manifest: Manifest, progress: Progress | None = None, part: str = "") -> FoundData:
    """Folder and form of the data set, after downloading, or making, what is missing into the user's cache.

    Files that are there and intact are kept; a damaged file in the cache is removed and downloaded again, a damaged file in
    ``SEPBENCH_DATA`` is the user's own and only reported.

    Args:
        manifest: the data set.
        progress: called with (file name, bytes so far, bytes in all).
        part: of a data set that the package makes itself, the only subfolder that is needed.

    Raises:
        DataError: the data cannot be had: offline, not offered for download, no mirror delivers the right bytes, the cache cannot be written.
    """
    if manifest.shipped_with:
        return find(manifest)
    if manifest.made_by:
        return _made(manifest, part, progress)
    found = _find(manifest)
    cache = cache_folder() / manifest.name
    refetchable = manifest.download_form is not None and not offline()
    if found is not None and (found.folder != cache or found.form != manifest.download_form or not refetchable):
        return _intact(manifest, found)
    form = manifest.download_form
    if form is None or not refetchable:
        whole = _whole(manifest)
        if whole is not None:
            return whole
        raise _missing(manifest)
    for file in manifest.required(form):
        check = check_file(file, cache, _stamps())
        if not check.ok:
            _download(file, cache, progress)
    return FoundData(cache, form)


def _made(manifest: Manifest, part: str, progress: Progress | None) -> FoundData:
    """A data set that the package makes itself: in the cache, unless the user has put all of it elsewhere."""
    found, cache = _find(manifest), cache_folder() / manifest.name
    if found is not None and found.folder != cache:
        return find(manifest)
    make_missing(manifest, part, cache, _stamps(), progress)
    return FoundData(cache, "")


class _PoochBar:
    """What pooch wants of a progress bar, handed on as (name, bytes so far, bytes in all)."""

    def __init__(self, file: DataFile, progress: Progress) -> None:
        self._file, self._progress, self._done = file, progress, 0
        self.total = file.size  # pooch sets it to the server's content length

    def update(self, n_bytes: int) -> None:
        # pooch counts whole chunks, so that the last one overshoots.
        self._done = min(self._done + n_bytes, self._file.size)
        self._progress(self._file.name, self._done, self._file.size)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


class _WrongContentError(Exception):
    """A mirror delivered other bytes than the manifest promises."""


class _CheckedDownloader:
    """Downloads to the temporary name that pooch chose and compares the digest there, so that both digests can be told to the user."""

    def __init__(self, file: DataFile, progress: Progress | None) -> None:
        self._file = file
        bar = _PoochBar(file, progress) if progress else False
        # identity: some stores unpack .gz files on the way for clients that accept gzip as a transfer encoding.
        self._http = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, headers={"Accept-Encoding": "identity"})

    def __call__(self, url: str, output_file: str, pooch_object: object) -> None:
        self._http(url, output_file, pooch_object)
        found = read_digest(Path(output_file), self._file.algorithm)
        if found != self._file.digest:
            raise _WrongContentError(f"wrong {self._file.algorithm} {found}, expected {self._file.digest}; discarded")


def _download(file: DataFile, folder: Path, progress: Progress | None) -> None:
    """One file from the first mirror that delivers it; pooch renames the temporary file after the digest agrees and removes it otherwise."""
    target = folder / file.name
    pooch.get_logger().setLevel("WARNING")  # its own lines on stderr would tear the progress bar
    failures = []
    for url in file.urls:
        try:
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            downloader = _CheckedDownloader(file, progress)
            pooch.retrieve(url, known_hash=f"{file.algorithm}:{file.digest}", fname=target.name, path=target.parent, downloader=downloader)
        except (requests.exceptions.RequestException, _WrongContentError) as error:
            failures.append(f"{url}: {_reason(error)}")
        except OSError as error:  # after RequestException, which is an OSError too
            raise DataError(f"cannot write {target}: {error.strerror or error}; free some space or set {CACHE_VARIABLE} to a writable folder") from error
        else:
            check_file(file, folder, _stamps())
            return
    raise DataError(f"cannot download {file.name}: {'; '.join(failures)}; try again later or put the file into {target.parent} yourself")


def _reason(error: Exception) -> str:
    """A short reason: the server's answer where there is one, else the kind of failure."""
    if isinstance(error, _WrongContentError):
        return str(error)
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    kinds = {requests.exceptions.Timeout: "timed out", requests.exceptions.ChunkedEncodingError: "connection broke off"}
    return next((text for kind, text in kinds.items() if isinstance(error, kind)), f"no connection ({type(error).__name__})")


def verify(manifest: Manifest) -> list[FileCheck]:
    """Check every file of a data set anew: presence, size, digest. Optional files are checked where they exist.

    The files are those of the complete form found, else, of a data set that is cut from another one, the other one's where that is there, else those of the
    folder and form with the most files. Nothing is downloaded.

    Returns:
        One check per file, in the manifest's order. For a data set that ships with a package: one check of its content. For one without
        digests: one check of presence per path of its layout, expected digest ``unknown``.

    Raises:
        DataError: ``SEPBENCH_DATA`` names no folder, or the package is not installed.
    """
    if manifest.shipped_with:
        package = _package_folder(manifest)
        found_digest = digits_sha256(package)
        state: Literal["ok", "wrong sha256"] = "ok" if found_digest == manifest.array_sha256 else "wrong sha256"
        return [FileCheck("load_digits()", package, state, manifest.array_sha256, found_digest)]
    if manifest.layout:
        folder, lacking = (_find(manifest) or _nearest_to_complete(manifest)[0]).folder, _nearest_to_complete(manifest)[1]
        return [_layout_check(name, folder, name in lacking) for name in manifest.layout]
    own = _find(manifest)
    if own is None and manifest.cut_from and _find(load_manifest(manifest.cut_from)) is not None:
        return verify(load_manifest(manifest.cut_from))
    found = own or _nearest_to_complete(manifest)[0]
    dispensable = bool(manifest.made_by) and any((found.folder / file.name).is_file() for file in manifest.files)
    wanted = [file for file in manifest.files_of(found.form) if not (file.optional or dispensable) or (found.folder / file.name).is_file()]
    return check_files(wanted, found.folder, _stamps(), rehash=True)


def _layout_check(name: str, folder: Path, lacking: bool) -> FileCheck:
    """Presence is all that can be told: no digests are known."""
    return FileCheck(name, folder / name, "missing") if lacking else FileCheck(name, folder / name, "ok", expected="unknown", found="present")


def status(manifest: Manifest) -> DataStatus:
    """Whether a data set is there, by presence and sizes alone: nothing is hashed or downloaded.

    Raises:
        DataError: ``SEPBENCH_DATA`` names no folder.
    """
    if manifest.shipped_with:
        return DataStatus("built-in", _package_folder(manifest))
    found = _find(manifest)
    if found is not None:
        intact = all(check_size(file, found.folder).ok for file in manifest.required(found.form))
        return DataStatus("present" if intact else "damaged", found.folder, found.form)
    whole = _find(load_manifest(manifest.cut_from)) if manifest.cut_from else None
    if whole is not None:
        return DataStatus("present", whole.folder, whole.form)
    nearest, lacking = _nearest_to_complete(manifest)
    if manifest.made_by:
        return DataStatus("on demand", nearest.folder if len(lacking) < len(manifest.files) else None)
    if len(lacking) == _needed(manifest, nearest.form):
        return DataStatus("missing", None)
    return DataStatus("incomplete", nearest.folder, nearest.form)
