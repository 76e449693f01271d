"""The trained priors that ship with the package: found by data set and signal shape, listed with their SHA-256 in ``data_manifests/weights.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from sepbench.errors import DataError
from sepbench.protocols import TaskSpec
from sepbench.resources import resource_root

FOLDER = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, slots=True)
class ShippedWeights:
    """One entry of the manifest.

    Attributes:
        name: file stem in ``baselines/weights``.
        dataset: whose training split it was trained on.
        classes: source class it models, as suites name it; empty for all.
        shape: of one signal.
        sha256: of the file.
    """

    name: str
    dataset: str
    classes: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.safetensors"


def shipped_weights() -> list[ShippedWeights]:
    """All entries of ``data_manifests/weights.toml``; empty if the file is not there.

    Raises:
        DataError: the manifest cannot be read.
    """
    path = resource_root("data_manifests") / "weights.toml"
    if not path.is_file():
        return []
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("weights", [])
        return [ShippedWeights(e["name"], e["dataset"], e.get("classes", ""), tuple(e["shape"]), e["sha256"]) for e in entries]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); install sepbench again") from None


def find_weights(task: TaskSpec, slot: int, per_class: bool = False) -> ShippedWeights | None:
    """The shipped prior for a source slot: of its class if ``per_class``, else of the whole data set; None if there is none.

    Where the task pads its images, it may be a prior of the images without their borders (``baselines/priors/padded.py``).
    """
    if not task.datasets:
        return None
    wanted = task.source_classes[slot] if per_class else ""
    for entry in shipped_weights():
        if (entry.dataset, entry.classes) == (task.datasets[slot], wanted) and entry.shape in (task.source_shape, task.unpadded_shape):
            return entry
    return None
