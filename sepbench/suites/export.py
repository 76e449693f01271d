"""A task's mixtures, and its references if asked for, as files that a program in any language reads, with a manifest.

::

    FOLDER/manifest.json                    what the files are, see ``_manifest``
    FOLDER/mixtures.npy                     (M, ...) float32; or .npz, .safetensors
    FOLDER/references.npy                   (M, K, ...)
    FOLDER/mixtures/000012.wav              png and wav: one file per mixture
    FOLDER/references/000012_1.wav          and one per source

References have the names and shapes that estimates are to have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sepbench
from sepbench.data.estimates.files import files_digest
from sepbench.data.estimates.names import MANIFEST
from sepbench.data.estimates.supplied import Advance
from sepbench.data.estimates.writers import ARRAY_FORMATS, FILE_FORMATS, ArrayFormat, FileFormat, Floats, file_writer, write_array
from sepbench.data.mixtures import MixtureSet
from sepbench.errors import SepbenchError
from sepbench.files import file_sha256, making_folder
from sepbench.suites.model import Suite, Task

FORMAT = 1
_STRETCH = 1 << 22
"""Values of sources that are made at once, 16 MB."""
Format = ArrayFormat | FileFormat
FORMATS: tuple[Format, ...] = (*ARRAY_FORMATS, *FILE_FORMATS)
MIXTURES, REFERENCES = "mixtures", "references"


class ExportError(SepbenchError):
    """A task cannot be exported: the format does not suit it, or the folder holds something else."""


def export_task(
    suite: Suite,
    task: Task,
    folder: Path,
    *,
    form: Format = "npy",
    references: bool = False,
    limit: int | None = None,
    advance: Advance = lambda done, total: None,
) -> bool:
    """Write a task's mixtures. The folder appears when all of it is there: an attempt that was killed leaves nothing that looks complete.

    Args:
        folder: must not be there, be empty, or hold just this export.
        form: ``npy``, ``npz``, ``safetensors``, ``png`` (16 bits per channel) or ``wav`` (32-bit float).
        references: the true sources too.
        limit: only the first so many mixtures.

    Returns:
        False if the export was there already.

    Raises:
        ExportError: the folder holds something else or cannot be written; the format does not suit the signals; a limit below 1.
        DataError, SuiteError: the task's data are missing or not those of the suite.
    """
    _check(task, form, limit)
    count = task.n_examples if limit is None else min(limit, task.n_examples)
    wanted = _manifest(suite, task, form, references, count, task.mixture_set())
    if _is_there(folder, wanted):
        return False
    try:
        with making_folder(folder.resolve()) as place:
            files = _write(task, place, form, references, count, wanted["value_range"], advance)
            (place / MANIFEST).write_text(_json(wanted | {"files": files}), encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror or error}; choose a writable folder with --out") from error
    return True


def _check(task: Task, form: Format, limit: int | None) -> None:
    spec = task.spec
    if limit is not None and limit < 1:
        raise ExportError(f"--limit must be at least 1, got {limit}; leave it out to export every mixture")
    if form not in FORMATS:
        raise ExportError(f"--format must be one of {', '.join(FORMATS)}, got {form!r}")
    if (form == "png" and spec.domain != "image") or (form == "wav" and spec.domain != "audio"):
        raise ExportError(f"{spec.domain} signals cannot be written as {form}; choose --format {_suited(spec.domain)}")


def _suited(domain: str) -> str:
    return ", ".join([*ARRAY_FORMATS, *({"image": ["png"], "audio": ["wav"]}.get(domain, []))])


def _manifest(suite: Suite, task: Task, form: Format, references: bool, count: int, mixture_set: MixtureSet) -> dict[str, Any]:
    """Everything that is known before a file is written; the files' digests come to it."""
    spec, operator = task.spec, mixture_set.operator_for(list(range(count)))
    matrix = operator.matrix()
    low, high = operator.output_range(0.0, 1.0)
    mixture_shape = list(mixture_set.mixtures([0]).values.shape[1:])
    images = spec.domain == "image"
    return {
        "format": FORMAT,
        "sepbench_version": sepbench.__version__,
        "suite": suite.name,
        "suite_version": suite.version,
        "task": spec.name,
        "task_digest": task.digest,
        "pairs_sha256": task.pairs_sha256,
        "mixtures_sha256": task.mixtures_sha256,
        "domain": spec.domain,
        "n_examples": task.n_examples,
        "example_ids": list(range(count)),
        "n_sources": spec.n_sources,
        "source_classes": list(spec.source_classes),
        "scored_sources": list(spec.scored_sources),
        "assignment": spec.assignment,
        "source_shape": list(spec.source_shape),
        "mixture_shape": mixture_shape,
        "sample_rate": spec.sample_rate,
        "operator": {
            "name": operator.name,
            "mixes": "the channels of one source" if operator.name == "channel-mean" else "the sources",
            "weights": matrix.squeeze(-2).tolist(),  # one list, or one per example
        },
        "value_range": {MIXTURES: [low, high], REFERENCES: [0.0, 1.0]} if images else None,
        "file_format": form,
        "encoding": _encoding(form),
        "holds": [MIXTURES, *([REFERENCES] if references else [])],
        "estimates_shape": ["M", *([spec.posterior_draws] if spec.posterior_draws else []), spec.n_sources, *spec.source_shape],
    }


def _json(manifest: dict[str, Any]) -> str:
    """One entry per line: 25,000 numbers of mixtures are one of them."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items()) + "\n}\n"


def _encoding(form: Format) -> str:
    if form == "png":
        return "16 bits per channel: value = low + pixel / 65535 * (high - low), with the value_range of mixtures or references"
    return "32-bit float samples, as they are" if form == "wav" else "little-endian float32, as they are"


def _is_there(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds this export already.

    Raises:
        ExportError: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if {key: value for key, value in found.items() if key != "files"} == json.loads(json.dumps(wanted)):
            return True
    except (OSError, ValueError, AttributeError):
        pass
    raise ExportError(f"{folder} has something other than this export in it; choose a new or empty folder with --out")


def _write(task: Task, place: Path, form: Format, references: bool, count: int, ranges: dict[str, list[float]] | None, advance: Advance) -> dict[str, Any]:
    """Write all files; returns what the manifest says of them."""
    mixture_set, spec = task.mixture_set(), task.spec
    step = max(1, _STRETCH // (math.prod(spec.source_shape) * spec.n_sources))
    made: dict[str, Callable[[list[int]], Floats]] = {MIXTURES: lambda ids: mixture_set.mixtures(ids).values.numpy()}
    if references:
        made[REFERENCES] = lambda ids: mixture_set.sources(ids).numpy()
    found: dict[str, dict[str, Any]] = {}
    total = count * len(made)
    for done, (what, make) in enumerate(made.items()):

        def parts(make: Callable[[list[int]], Floats] = make, done: int = done) -> Iterator[tuple[int, Floats]]:
            for start in range(0, count, step):
                ids = list(range(start, min(count, start + step)))
                yield start, make(ids)
                advance(done * count + ids[-1] + 1, total)

        if form in ("png", "wav"):
            low, high = (ranges or {}).get(what, [0.0, 1.0])
            write = file_writer(form, (low, high), spec.sample_rate or 0)
            found[what] = {"path": f"{what}/", "sha256": _write_each(place / what, form, write, parts())}
        else:
            shape = (count, *make([0]).shape[1:])
            path = place / f"{what}.{form}"
            write_array(path, what, shape, (values for _, values in parts()))
            found[what] = {"path": path.name, "sha256": file_sha256(path), "shape": list(shape), "dtype": "float32"}
    return found


def _write_each(folder: Path, form: str, write: Callable[[Path, Floats], None], parts: Iterator[tuple[int, Floats]]) -> str:
    """One file per signal; the digest is that of ``evaluate`` for the folder."""
    folder.mkdir()
    digests = []
    for start, values in parts:
        for example, whole in enumerate(values, start):
            several = folder.name == REFERENCES
            for slot, signal in enumerate(whole if several else whole[None]):
                path = folder / (f"{example:06d}_{slot + 1}.{form}" if several else f"{example:06d}.{form}")
                write(path, np.ascontiguousarray(signal))
                digests.append((path.name, file_sha256(path)))
    return files_digest(digests)
