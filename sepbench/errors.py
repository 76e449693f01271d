"""Errors a user can cause. The command line prints one line of them and exits with code 2."""

from __future__ import annotations


class SepbenchError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do next."""


class DataError(SepbenchError):
    """Data are missing, incomplete or corrupt; the message names the file and, where one is known, the byte offset."""


class SuiteError(SepbenchError):
    """A suite, task or pair list is malformed or does not match its frozen digest."""


class UnknownNameError(SepbenchError):
    """A name is not registered; the message offers the nearest names."""


class NameClaimedError(SepbenchError):
    """Two installed distributions register one name in one group; the message names both."""


class SupervisionError(SepbenchError):
    """A method asked for more than its declared supervision level hands out."""


class UnsupportedTaskError(SepbenchError):
    """A method cannot separate this task; the message says why."""


class MethodError(SepbenchError):
    """A method broke its contract: wrong shape, wrong dtype, non-finite values, mutated inputs."""


class MetricError(SepbenchError):
    """A metric cannot be loaded or broke its contract: no kind of metric, wrong shape, wrong dtype."""
