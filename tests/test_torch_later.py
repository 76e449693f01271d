"""The stand-in for torch: it asks torch itself at every use, and is the same one in every process."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch as real

from sepbench import torch_later
from sepbench.torch_later import torch

LATER: Any = torch


def test_it_gives_what_torch_has_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LATER.zeros is real.zeros
    assert LATER.__version__ == real.__version__
    monkeypatch.setattr(real, "get_num_threads", lambda: 77)
    assert LATER.get_num_threads() == 77
    with pytest.raises(AttributeError):
        _ = LATER.no_such_thing


def test_it_answers_python_s_own_questions_without_torch() -> None:
    for name in ("__wrapped__", "__path__", "__torch_function__"):
        assert not hasattr(LATER, name)
    assert repr(LATER) == "<torch, imported when it is first used>"


def test_it_travels_to_other_processes_as_itself() -> None:
    assert pickle.loads(pickle.dumps(LATER)) is torch_later.torch
