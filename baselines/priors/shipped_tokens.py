"""Token models that ship with the package: folders of a codec, a prior and counts in ``baselines/weights``, each with a ``card.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from baselines.priors.shipped import FOLDER
from sepbench.errors import DataError
from sepbench.files import file_sha256
from sepbench.protocols import TaskSpec

FILES = ("codec.safetensors", "prior.safetensors", "sums.safetensors")
CARD = "card.json"


@dataclass(frozen=True, slots=True)
class ShippedTokens:
    """One folder.

    Attributes:
        folder: where it lies.
        dataset: whose training split it was learnt from, all classes of it.
        shape: of one image.
        sha256: digests of its files by name.
    """

    folder: Path
    dataset: str
    shape: tuple[int, ...]
    sha256: dict[str, str]

    @property
    def digest(self) -> str:
        """Of all files together."""
        return hashlib.sha256(" ".join(self.sha256[name] for name in FILES).encode()).hexdigest()

    def check(self) -> None:
        """Compare the files with the card.

        Raises:
            DataError: one is missing or another one.
        """
        for name in FILES:
            path = self.folder / name
            if not path.is_file() or file_sha256(path) != self.sha256[name]:
                raise DataError(f"{path} is not the file of its card; install sepbench again, or learn with --set METHOD.weights=train")


def read_card(folder: Path) -> ShippedTokens:
    """The card of a folder.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return ShippedTokens(folder, card["dataset"], tuple(card["shape"]), {name: card["files"][name] for name in FILES})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder / CARD} cannot be read as a card of token models ({type(error).__name__})") from error


def find_tokens(task: TaskSpec) -> ShippedTokens | None:
    """What ships for a task whose sources are all of one data set, at its shape; None if nothing does."""
    for path in sorted(FOLDER.glob(f"*/{CARD}")):
        found = read_card(path.parent)
        if set(task.datasets) == {found.dataset} and task.source_shape == found.shape:
            return found
    return None


def shipped_digest() -> str:
    """Of all folders that ship, so that what was kept of an older one is not taken for it; empty if none does."""
    digests = [read_card(path.parent).digest for path in sorted(FOLDER.glob(f"*/{CARD}"))]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest() if digests else ""
