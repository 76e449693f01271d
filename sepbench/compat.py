"""The only place with import shims. Each does nothing where the package imports by itself.

Facts: museval imports musdb, which imports stempeg, which refuses to import without ``ffmpeg`` and ``ffprobe`` on the PATH, although no
metric needs them. nussl 1.1.9 imports musdb too, and takes window functions from ``scipy.signal``, whence they moved to
``scipy.signal.windows``. torch-fidelity imports torchvision, whose published wheel fails beside a torch for the CPU.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from sepbench.errors import SepbenchError

_MOVED_WINDOWS = ("hamming", "hann", "blackman")


def import_museval() -> ModuleType:
    """museval 0.4, the reference implementation of BSS Eval v3 and v4.

    Raises:
        SepbenchError: it is not installed.
    """
    with_musdb()
    return _imported("museval", "audio")


def import_nussl() -> ModuleType:
    """nussl 1.1.9, against which our own separators are held in tests and benchmarks.

    Raises:
        SepbenchError: it is not installed.
    """
    with_musdb()
    windows, signal = importlib.import_module("scipy.signal.windows"), importlib.import_module("scipy.signal")
    for name in _MOVED_WINDOWS:
        if not hasattr(signal, name):
            setattr(signal, name, getattr(windows, name))
    return _imported("nussl", "nussl")


def import_soundfile() -> ModuleType:
    """soundfile, which reads and writes WAV and FLAC.

    Raises:
        SepbenchError: it is not installed.
    """
    return _imported("soundfile", "audio")


def import_torch_fidelity(module: str = "") -> ModuleType:
    """torch-fidelity, or one of its modules: the extractor of published FIDs, and the reference of our own statistics in tests.

    Raises:
        SepbenchError: it is not installed.
    """
    with_torchvision()
    return _imported(f"torch_fidelity.{module}" if module else "torch_fidelity", "")


def with_torchvision() -> None:
    """Make ``import torchvision`` succeed: its published wheel wants operators of CUDA that a torch for the CPU does not have, and nothing here calls."""
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # its definitions end with it
        importlib.import_module("torchvision")
    except ImportError:
        return  # whoever needs it says so


_KEPT: list[object] = []


def with_musdb() -> None:
    """Make ``import musdb`` succeed: as it is where it can, by an empty stand-in where it cannot (no ffmpeg, or not installed)."""
    if "musdb" in sys.modules:
        return
    try:
        importlib.import_module("musdb")
    except Exception:  # stempeg raises a plain RuntimeError without ffmpeg
        for name in [name for name in sys.modules if name.split(".")[0] in ("musdb", "stempeg")]:
            del sys.modules[name]
        stand_in = ModuleType("musdb", "A stand-in by sepbench.compat: musdb cannot be imported here, and nothing of it is used.")
        stand_in.__spec__ = ModuleSpec("musdb", None)
        stand_in.DB = stand_in.MultiTrack = type("Absent", (), {})  # type: ignore[attr-defined]
        sys.modules["musdb"] = stand_in


def _imported(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile without the libsndfile library
        what = f"sepbench[{extra}]" if extra else name.split(".")[0].replace("_", "-")
        raise SepbenchError(f"{name} cannot be imported ({error}); install it with: pip install '{what}' torch==2.13.0") from error
