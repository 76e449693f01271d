"""Files that travel with the package: those inside a wheel come first, and what is missing is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepbench import resources


def test_the_wheel_s_own_folder_comes_before_the_checkout_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, wheel = tmp_path / "site" / "sepbench", tmp_path / "site" / "sepbench" / "_resources"
    monkeypatch.setattr(resources, "_PACKAGE", package)
    monkeypatch.setattr(resources, "_WHEEL_ROOT", wheel)
    (package / "leaderboards").mkdir(parents=True)  # nobody looks there
    with pytest.raises(FileNotFoundError) as missing:
        resources.resource_root("leaderboards")
    assert str(missing.value) == "the folder 'leaderboards' is missing from this installation of sepbench; install it again"
    (tmp_path / "site" / "leaderboards").mkdir()
    assert resources.resource_root("leaderboards") == tmp_path / "site" / "leaderboards"
    wheel.mkdir()
    (wheel / "leaderboards").touch()  # no folder
    assert resources.resource_root("leaderboards") == tmp_path / "site" / "leaderboards"
    (wheel / "leaderboards").unlink()
    (wheel / "leaderboards").mkdir()
    assert resources.resource_root("leaderboards") == wheel / "leaderboards"


def test_in_a_checkout_they_are_the_repository_s() -> None:
    root = Path(__file__).resolve().parents[1]
    assert Path(resources.__file__).resolve().parent / "_resources" == resources._WHEEL_ROOT
    assert resources.resource_root("data_manifests") == root / "data_manifests"
    assert resources.suites_root() == root / "sepbench" / "suites" / "builtin"
    assert (resources.suites_root() / "digits-pairs.toml").is_file()
