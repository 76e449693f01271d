"""The import shims: nothing where the package imports by itself, a stand-in where it cannot, one clear line where it is absent."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import scipy.signal

from sepbench import compat
from sepbench.errors import SepbenchError

_NAMES = ("musdb", "stempeg", "museval", "nussl", "soundfile")

Install = Callable[..., None]


def _loaded() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] in _NAMES}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes toy packages that shadow the real ones; none of the real ones is imported yet, and all are put back afterwards."""
    kept = _loaded()
    for name in kept:
        del sys.modules[name]
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(kept)


MUSDB = "import stempeg\nclass DB: ...\nclass MultiTrack: ...\nreal = True\n"
MUSEVAL = "import musdb\nseen = musdb\nannotation = musdb.DB, musdb.MultiTrack\n"
NO_FFMPEG = "import stempeg.cmds\n"


def test_where_musdb_imports_nothing_is_done(install: Install) -> None:
    install(stempeg="", musdb=MUSDB, museval=MUSEVAL)
    museval = compat.import_museval()
    assert museval.__name__ == "museval"
    assert museval.seen is sys.modules["musdb"]
    assert museval.seen.real


def test_a_musdb_that_is_imported_already_is_left_alone(install: Install) -> None:
    install(museval=MUSEVAL, stempeg="", musdb=MUSDB)
    musdb = importlib.import_module("musdb")
    compat.with_musdb()
    assert sys.modules["musdb"] is musdb
    assert compat.import_museval().seen is musdb


def test_without_ffmpeg_a_stand_in_takes_the_place_of_musdb(install: Install, tmp_path: Path) -> None:
    install(stempeg=NO_FFMPEG, musdb=MUSDB, museval=MUSEVAL)
    (tmp_path / "stempeg" / "cmds.py").write_text("raise RuntimeError('ffmpeg or ffprobe could not be found!')\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="ffmpeg"):
        importlib.import_module("museval")
    museval = compat.import_museval()
    assert "stand-in by sepbench" in (museval.seen.__doc__ or "")
    assert not [name for name in sys.modules if name.split(".")[0] == "stempeg"]
    # What others ask of a module: pytest and importlib look at its spec.
    assert importlib.util.find_spec("musdb") is museval.seen.__spec__


def test_without_musdb_a_stand_in_takes_its_place_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(museval=MUSEVAL)
    real = importlib.import_module

    def without_musdb(name: str, package: str | None = None) -> ModuleType:
        if name == "musdb":
            raise ModuleNotFoundError("No module named 'musdb'", name="musdb")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without_musdb)
    seen = compat.import_museval().seen
    assert "stand-in" in (seen.__doc__ or "")
    compat.with_musdb()
    assert sys.modules["musdb"] is seen


@pytest.mark.parametrize(
    ("name", "load", "extra"),
    [("museval", compat.import_museval, "audio"), ("nussl", compat.import_nussl, "nussl"), ("soundfile", compat.import_soundfile, "audio")],
)
def test_an_absent_package_is_one_clear_line(install: Install, monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], ModuleType], extra: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]  # the import system's own way to say: not there
    with pytest.raises(SepbenchError, match=rf"^{name} cannot be imported \(.*\); install it with: pip install 'sepbench\[{extra}\]'") as caught:
        load()
    assert "\n" not in str(caught.value)


def test_a_package_that_lacks_something_itself_says_what(install: Install) -> None:
    install(museval="import a_package_that_nobody_has\n", musdb="", stempeg="")
    with pytest.raises(SepbenchError, match=r"museval cannot be imported \(No module named 'a_package_that_nobody_has'\)"):
        compat.import_museval()


def test_windows_that_moved_are_where_nussl_looks_for_them(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(nussl="from scipy.signal import blackman, hamming, hann\n", musdb="", stempeg="")
    for name in ("blackman", "hamming"):
        monkeypatch.setattr(scipy.signal, name, None, raising=False)  # so that it is put back afterwards
        monkeypatch.delattr(scipy.signal, name)
    own = object()
    monkeypatch.setattr(scipy.signal, "hann", own, raising=False)
    nussl = compat.import_nussl()
    assert nussl.hamming is scipy.signal.windows.hamming
    assert nussl.blackman is scipy.signal.windows.blackman
    assert nussl.hann is own, "a name that scipy.signal has is not replaced"


def test_compat_itself_imports_none_of_them() -> None:
    code = f"import sys, sepbench.compat; print([name for name in {_NAMES!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_real_museval_imports_without_ffmpeg_on_the_path(tmp_path: Path) -> None:
    if importlib.util.find_spec("museval") is None:
        pytest.skip("museval is not installed (extra 'audio')")
    code = "from sepbench.compat import import_museval; m = import_museval(); print(m.__name__, callable(m.evaluate), callable(m.metrics.bss_eval_sources))"
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == "museval True True", done.stderr


def test_the_line_pins_the_torch_that_the_project_is_tested_with(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pin, pip fetches a newer torch with several GB of CUDA libraries."""
    monkeypatch.setitem(sys.modules, "soundfile", None)  # type: ignore[arg-type]
    with pytest.raises(SepbenchError) as caught:
        compat.import_soundfile()
    (pinned,) = [line for line in (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    assert str(caught.value).endswith(f"; install it with: pip install 'sepbench[audio]' {pinned}")


def test_a_library_below_a_package_may_be_what_is_missing(install: Install) -> None:
    install(soundfile="raise OSError('sndfile library not found')\n")
    with pytest.raises(SepbenchError, match=r"^soundfile cannot be imported \(sndfile library not found\); install it with: pip install 'sepbench\[audio\]'"):
        compat.import_soundfile()


def test_torch_fidelity_is_named_as_pip_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "with_torchvision", lambda: None)
    for module, name in (("", "torch_fidelity"), ("metric_fid", "torch_fidelity.metric_fid")):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
        with pytest.raises(SepbenchError, match=rf"^{name} cannot be imported \(.*\); install it with: pip install 'torch-fidelity' torch=="):
            compat.import_torch_fidelity(module)


def _torchvision(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> list[str]:
    """``import torchvision`` raises these one after another; returns what was imported."""
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    imported, left = [], list(errors)

    def fake(name: str, package: str | None = None) -> ModuleType:
        imported.append(name)
        error = left.pop(0)
        if error is not None:
            raise error
        return ModuleType(name)

    monkeypatch.setattr(importlib, "import_module", fake)
    return imported


@pytest.mark.parametrize(
    ("error", "raised"),
    [(None, None), (ImportError("no torchvision"), None), (RuntimeError("operator torchvision::roi does not exist"), RuntimeError)],
)
def test_a_torchvision_that_fails_in_another_way_is_not_mended(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, raised: type[Exception] | None
) -> None:
    imported = _torchvision(monkeypatch, error)
    if raised is None:
        compat.with_torchvision()
    else:
        with pytest.raises(raised, match="roi does not exist"):
            compat.with_torchvision()
    assert imported == ["torchvision"]


def test_a_torchvision_that_is_imported_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = _torchvision(monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    compat.with_torchvision()
    assert imported == []


def test_a_torchvision_without_its_operators_is_imported_again_beside_ones_that_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []

    class Library:
        def __init__(self, *named: str) -> None:
            made.append(named)

        def define(self, schema: str) -> None:
            made.append((schema,))

    monkeypatch.setattr("torch.library.Library", Library)
    monkeypatch.setattr(compat, "_KEPT", [])
    monkeypatch.setitem(sys.modules, "torchvision.ops", ModuleType("torchvision.ops"))  # what the first attempt has left
    monkeypatch.setitem(sys.modules, "torchvisionary", ModuleType("torchvisionary"))
    imported = _torchvision(monkeypatch, RuntimeError("operator torchvision::nms does not exist"), None)
    compat.with_torchvision()
    assert imported == ["torchvision", "torchvision"]
    assert made == [
        ("torchvision", "DEF"),
        ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",),
        ("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",),
    ]
    assert ("torchvision.ops" in sys.modules, "torchvisionary" in sys.modules) == (False, True)
    assert len(compat._KEPT) == 1


def test_a_window_that_scipy_lacks_is_found_for_nussl_by_each_of_its_names(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(nussl="", musdb="", stempeg="")
    for name in ("hamming", "hann", "blackman"):
        monkeypatch.setattr(scipy.signal, name, None, raising=False)
        monkeypatch.delattr(scipy.signal, name)
    compat.import_nussl()
    for name in ("hamming", "hann", "blackman"):
        assert getattr(scipy.signal, name) is getattr(scipy.signal.windows, name)
