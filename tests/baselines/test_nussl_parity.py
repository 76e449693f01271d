"""HPSS, REPET, REPET-SIM and FT2D give the estimates of nussl 1.1.9 at its defaults: on drums and bass made here, and on real speech.

Lengths give an odd number of frames; see ``ft2d.py`` for what differs with an even one. HPSS is among the slow tests, since librosa compiles for
ten seconds first; ``test_hpss.py`` holds it against scipy's filters, which librosa calls.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
import torch
from method_toys import context, mix
from sound_toys import correlation, nussl, nussl_estimates, nussl_signal, sound_task

from baselines.ft2d import FT2D
from baselines.hpss import HPSS
from baselines.repet import REPET
from baselines.repet_sim import REPETSim, similar_share
from sepbench.protocols import Separator
from sepbench.stft import Stft

METHODS: dict[str, type] = {"HPSS": HPSS, "Repet": REPET, "RepetSim": REPETSim, "FT2D": FT2D}
"""nussl's name and our class."""


def drums_and_bass(length: int = 65_536, rate: int = 22_050) -> torch.Tensor:
    """``(1, T)``: a noise burst on every beat of 0.47 s over four plucked low notes."""
    g = torch.Generator().manual_seed(1)
    time, signal = torch.arange(length) / rate, torch.zeros(length)
    for beat in range(int(length / rate / 0.47) + 1):
        since = (time - 0.47 * beat).clamp(min=0)
        on = time >= 0.47 * beat
        signal += on * 0.5 * torch.exp(-30 * since) * torch.randn(length, generator=g)
        note = sum(torch.sin(2 * torch.pi * (55.0, 65.4, 73.4, 82.4)[beat % 4] * k * since) / k for k in range(1, 9))
        signal += on * (since < 0.47) * 0.3 * torch.exp(-2 * since) * note
    return (0.8 * signal / signal.abs().max()).unsqueeze(0)


def speech(length: int = 32_768) -> torch.Tensor:
    """``(1, T)`` at 8 kHz: two speakers of FSDD at once, digits one after the other; skips the test where the data are missing."""
    soundfile = pytest.importorskip("soundfile")
    root = Path(os.environ.get("SEPBENCH_DATA", "/nonexistent")) / "fsdd" / "recordings"
    if not root.is_dir():
        pytest.skip("SEPBENCH_DATA has no FSDD")
    voices = []
    for speaker in ("george", "theo"):
        takes = [torch.from_numpy(soundfile.read(root / f"{digit}_{speaker}_{take}.wav")[0]) for take in range(2) for digit in range(10)]
        voices.append(torch.cat(takes)[:length])
    return (voices[0] + voices[1]).float().unsqueeze(0)


def both(name: str, signal: torch.Tensor, rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates ``(2, 1, T)`` of ours and of nussl's, of one mixture ``(1, T)``."""
    nussl()
    method: Separator = METHODS[name]()
    task = sound_task(signal.shape[-1], operator="sum", rate=rate)
    halves = torch.stack([signal, signal]).unsqueeze(0) / 2
    ours = method.separate(mix(halves, "sum"), context(task))[0]
    theirs = nussl_estimates(getattr(importlib.import_module("nussl.separation.primitive"), name)(nussl_signal(signal, rate)))
    return ours, theirs


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "HPSS" else ()) for name in METHODS])
@pytest.mark.parametrize(("source", "rate"), [(drums_and_bass, 22_050), (speech, 8_000)], ids=["drums-bass", "speech"])
def test_estimates_are_those_of_nussl(name: str, source: object, rate: int) -> None:
    ours, theirs = both(name, source(), rate)  # type: ignore[operator]
    for part in range(2):
        assert float(theirs[part].norm()) > 0.01 * float(theirs.norm())
        assert correlation(ours[part], theirs[part]) >= 0.999
        assert float(ours[part].norm() / theirs[part].norm()) == pytest.approx(1, abs=0.01)


def test_ft2d_of_an_even_number_of_frames_is_near_nussl_which_mirrors_beside_zero() -> None:
    """260 frames. Its peaks have ghosts beside their mirror images, which cost up to 0.004."""
    ours, theirs = both("FT2D", drums_and_bass(66_150), 22_050)
    for part in range(2):
        assert correlation(ours[part], theirs[part]) >= 0.995


def test_repet_sim_in_float64_chooses_the_very_frames_of_nussl() -> None:
    """In float32 the last bit decides between two peaks of nearly the same height now and then; the rule is the same."""
    signal, rate = drums_and_bass(), 22_050
    separator = nussl().separation.primitive.RepetSim(nussl_signal(signal, rate))
    separator.run()
    theirs = torch.from_numpy(separator.result_masks[0].mask[..., 0])
    stft = Stft.at(rate)
    ours = similar_share(stft.forward(signal.double()).abs(), rate / stft.hop, 99, 0.0)[0]
    audible = stft.forward(signal.double()).abs()[0] > 1e-9
    audible[:6] = False  # nussl's mask has its high pass in it
    torch.testing.assert_close(ours[audible], theirs[audible], atol=1e-6, rtol=1e-6)


def test_where_nussl_has_no_period_to_search_it_fails() -> None:
    """2 s are less than three periods of 0.8 s; ``test_repet.py`` says what ours does there."""
    with pytest.raises(Exception, match="min_period"):
        both("Repet", drums_and_bass(44_100), 22_050)
