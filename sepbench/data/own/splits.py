"""Which files train, validate and test: by file, never by signal, so that no two splits hold parts of one file or of files that share content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sepbench.data.lists.builders import Draws
from sepbench.errors import DataError

SPLITS = ("train", "validation", "test")
_ROUNDING = 1e-9


def check_shares(validation: float, test: float) -> None:
    """Shares of the files that can be had.

    Raises:
        DataError: outside [0, 1], no test files at all, or more than all files together.
    """
    for option, share in (("--val", validation), ("--test", test)):
        if not 0.0 <= share <= 1.0:
            raise DataError(f"{option} is a share of the files, from 0 to 1; got {share:g}")
    if test == 0.0:
        raise DataError("--test 0 leaves nothing to separate; give it a share of the files, such as 0.2")
    if validation + test > 1.0 + _ROUNDING:
        raise DataError(f"--val {validation:g} and --test {test:g} are more than all files; for a suite without training data give --val 0 --test 1")


def split_sizes(n: int, validation: float, test: float, least: int = 1) -> tuple[int, int, int]:
    """How many of n groups of files train, validate and test; they add up to n.

    Shares are rounded to whole numbers, halves up, and the training part is the rest. A part whose share is above 0 has at least one group, and of those that
    are mixed, validation and test, at least ``least``: what one class-agnostic mixture takes.

    Raises:
        DataError: n is too few.
    """
    check_shares(validation, test)
    trains = validation + test < 1.0 - _ROUNDING
    for_validation = least if validation > 0.0 else 0
    wanted = int(trains) + for_validation + least
    if n < wanted:
        files = f"{n} different {'file' if n == 1 else 'files'}"
        parts = f"{int(trains)} for training, {for_validation} for validation and {least} for test"
        raise DataError(f"{files} cannot be split by --val {validation:g} --test {test:g}, which take at least {parts}; add files, or lower --val to 0")
    n_test = min(max(least, int(test * n + 0.5)), n - for_validation - int(trains))
    if not trains:  # all that does not test validates
        n_test = n_test if validation > 0.0 else n
        return 0, n - n_test, n_test
    n_validation = min(max(for_validation, int(validation * n + 0.5)), n - n_test - 1)
    return n - n_validation - n_test, n_validation, n_test


def share_for(enough: int, groups: Sequence[int], validation: float, least: int = 1) -> float | None:
    """The smallest share in hundredths that gives every class ``enough`` groups for test and leaves some for training; None: there are too few files.

    Args:
        enough: groups.
        groups: how many groups of files each class has.
        validation, least: see ``split_sizes``.
    """
    for hundredths in range(1, 100):
        share = hundredths / 100
        if validation + share < 1.0 - _ROUNDING and all(_n_test(n, validation, share, least) >= enough for n in groups):
            return share
    return None


def groups_for(enough: int, validation: float, test: float, least: int = 1) -> int:
    """The smallest number of groups of which ``enough`` are for test; arguments as of ``split_sizes``."""
    n = enough
    while _n_test(n, validation, test, least) < enough:
        n += 1
    return n


def _n_test(n: int, validation: float, test: float, least: int) -> int:
    try:
        return split_sizes(n, validation, test, least)[2]
    except DataError:
        return 0


def split_groups(name: str, groups: npt.NDArray[np.int64], validation: float, test: float, least: int = 1) -> npt.NDArray[np.int64]:
    """The split of every signal, ``(N,)``, as a position in ``SPLITS``; signals of one group are never apart.

    Args:
        name: key of the random order.
        groups: ``(N,)`` group of every signal.
        validation, test, least: see ``split_sizes``; shares are of the groups.

    Raises:
        DataError: see ``split_sizes``.
    """
    numbers = np.unique(groups)
    of_group = np.empty(len(numbers), dtype=np.int64)
    of_group[Draws(name).permutation(len(numbers), slot=0)] = np.repeat(np.arange(len(SPLITS)), split_sizes(len(numbers), validation, test, least))
    chosen: npt.NDArray[np.int64] = of_group[np.searchsorted(numbers, groups)]
    return chosen
