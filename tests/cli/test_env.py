"""``sepbench env`` shows the device that a run would take."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from sepbench.cli.main import main


@pytest.mark.parametrize(("gpus", "shown"), [(0, ""), (2, "NVIDIA Test")])
def test_the_gpu_is_shown_where_there_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpus: int, shown: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Test")
    monkeypatch.setattr(sys, "argv", ["sepbench", "env", "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert json.loads(capsys.readouterr().out)["gpu"] == shown
