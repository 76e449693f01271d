"""Whether a suite's mixtures are still those that were frozen: the files of its folder, and every task mixed again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sepbench.errors import SepbenchError, SuiteError
from sepbench.files import file_sha256
from sepbench.registry import own_suite
from sepbench.suites.freeze import SUMS
from sepbench.suites.loader import load_suite

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, slots=True)
class SuiteCheck:
    """What was found of one task, or of one file of a suite's folder.

    Attributes:
        what: the task, or the file.
        digest: the digest that was found; empty if nothing could be read.
        problem: what is wrong; empty if nothing.
        frozen: False if there is nothing to compare with.
    """

    what: str
    digest: str
    problem: str = ""
    frozen: bool = True


def verify_suite(name: str) -> Iterator[SuiteCheck]:
    """The files that ``SHA256SUMS`` lists, where the suite has one, and every task, one check after the other.

    Args:
        name: a suite's name, or the path of its file or folder.

    Raises:
        UnknownNameError: no such suite.
        SuiteError: it is malformed or not frozen, or one of its lists is not the frozen one.
    """
    path = own_suite(name)
    suite = load_suite(name)
    if path is not None and (path.parent / SUMS).is_file():
        yield from _files(path.parent)
    for task in suite.tasks.values():
        try:
            yield SuiteCheck(task.spec.name, task.verify(), frozen=bool(task.mixtures_sha256))
        except SepbenchError as error:
            yield SuiteCheck(task.spec.name, "", str(error))


def _files(folder: Path) -> Iterator[SuiteCheck]:
    for number, line in enumerate((folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise SuiteError(f"{folder / SUMS}, line {number} is not 'sha256  file'; copy the suite's folder anew")
        wanted, file = found.groups()
        try:
            digest = file_sha256(folder / file)
        except OSError as error:
            yield SuiteCheck(file, "", f"{folder / file} cannot be read: {error.strerror}")
            continue
        problem = "" if digest == wanted else f"{folder / file} has sha256 {digest}, frozen is {wanted}"
        yield SuiteCheck(file, digest, problem)
