"""Non-negative factorisation of magnitude spectrograms; for ``nmf`` and ``nmf-semi``.

It has frames of training signals, dictionaries, and codes of whole mixtures. A frame of the spectrogram is a signal of
``baselines.decomposition.nonnegative``: atoms ``W (R, F)`` and codes ``H (R, N)`` explain ``V (F, N)``, ``V ~ W^T H``.
There are two objectives, both with the multiplicative updates of Lee and Seung, "Algorithms for non-negative matrix
factorization" (NIPS 2000). They are ``euclidean`` (theorem 1) and ``kl``, the generalised Kullback-Leibler divergence
(theorem 2). Smaragdis, Raj and Shashanka (ICA 2007) minimise ``kl`` in the form of a latent variable model. It weighs
an error by the level of the bin, as hearing does.

Mixtures are coded as a batch of matrices, one each, and iterations are counted: row b of the codes depends only on
mixture b.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from baselines.decomposition.masks import CHUNK_BINS
from baselines.decomposition.nonnegative import FLOOR, Factors, Progress, factorise
from sepbench.errors import MethodError
from sepbench.stft import Stft

Divergence = Literal["kl", "euclidean"]


def recording_spectra(signals: torch.Tensor, sample_rate: int, device: str) -> list[torch.Tensor]:
    """Magnitude spectrograms ``(n, F, N)`` of signals ``(n, C, T)``, a few signals each. Channels are averaged.

    Raises:
        MethodError: a sample is not finite.
    """
    if not bool(signals.isfinite().all()):
        raise MethodError("NMF needs training signals whose samples are all finite")
    stft = Stft.at(sample_rate)
    size = max(1, CHUNK_BINS // (stft.bins * stft.frames(signals.shape[-1]) * signals.shape[1]))
    return [stft.forward(chunk.to(device)).abs().mean(1) for chunk in signals.split(size)]


def training_frames(signals: torch.Tensor, sample_rate: int, limit: int, device: str) -> torch.Tensor:
    """At most ``limit`` frames ``(n, F)`` of training signals ``(N, C, T)``, evenly spread over all of them.

    Silent frames are dropped.

    Raises:
        MethodError: a sample is not finite, or all signals are silent.
    """
    stft = Stft.at(sample_rate)
    count = signals.shape[0] * stft.frames(signals.shape[-1])
    wanted = torch.arange(min(limit, count), dtype=torch.int64) * count // min(limit, count)
    taken, passed = [], 0
    for chunk in recording_spectra(signals, sample_rate, device):
        frames = chunk.mT.flatten(0, 1)
        inside = wanted[(wanted >= passed) & (wanted < passed + len(frames))] - passed
        taken.append(frames[inside.to(frames.device)])
        passed += len(frames)
    found = torch.cat(taken)
    found = found[found.amax(1) > 0]
    if len(found) == 0:
        raise MethodError("NMF needs training signals with some sound in them: all of these are silent")
    return found


def learn_atoms(frames: torch.Tensor, start: torch.Tensor, iterations: int, divergence: Divergence, progress: Progress) -> torch.Tensor:
    """Atoms ``(R, F)`` of length 1 for frames ``(n, F)``, from positive start atoms ``(R, F)``."""
    if divergence == "euclidean":
        return factorise(frames, start, iterations, progress=progress).unit_atoms().atoms
    atoms = start.clone()
    spectra = frames.T.contiguous()
    codes = _flat_codes(spectra.unsqueeze(0), atoms)[0]
    for iteration in range(iterations):
        # With one quotient for both factors F could rise, so it is computed anew in between.
        codes.mul_(atoms @ _quotient(spectra, atoms.T @ codes)).div_(atoms.sum(1, keepdim=True).add_(FLOOR))
        atoms.mul_(codes @ _quotient(spectra, atoms.T @ codes).T).div_(codes.sum(1, keepdim=True).add_(FLOOR))
        progress((iteration + 1) / iterations)
    return Factors(atoms, codes.T).unit_atoms().atoms


def code_spectra(spectra: torch.Tensor, atoms: torch.Tensor, iterations: int, divergence: Divergence) -> torch.Tensor:
    """Codes ``(B, R, N)`` of spectrograms ``(B, F, N)`` on fixed atoms ``(R, F)``.

    They start from the flat code of each frame's level.
    """
    batch, bins, frames = spectra.shape
    count = len(atoms)
    # Sizes that are multiples of 4 keep every matrix of the batch on a 64-byte boundary, where kernels sum in the same
    # order.
    spectra, atoms = functional.pad(spectra, (0, -frames % 4, 0, -bins % 4)), functional.pad(atoms, (0, -bins % 4, 0, -len(atoms) % 4))
    codes = _flat_codes(spectra, atoms)
    rows = atoms.expand(batch, *atoms.shape)
    if divergence == "euclidean":
        products, gram = rows @ spectra, (atoms @ atoms.T).expand(batch, len(atoms), len(atoms))
        for _ in range(iterations):
            model = (gram @ codes).add_(FLOOR)
            codes.mul_(products).div_(model)
    else:
        sums = atoms.sum(1, keepdim=True) + FLOOR
        for _ in range(iterations):
            codes.mul_(rows @ _quotient(spectra, rows.mT @ codes)).div_(sums)
    return codes[:, :count, :frames]


def _quotient(spectra: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    return torch.div(spectra, model.add_(FLOOR), out=model)


def _flat_codes(spectra: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Start codes with all atoms equally strong, at the level of the frame: ``(B, F, N)`` to ``(B, R, N)``."""
    level = spectra.sum(1, keepdim=True) / atoms.sum().clamp(min=FLOOR)
    return level.expand(-1, len(atoms), -1).clone()


def explained(codes: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """``W^T H``: codes ``(B, R, N)`` and atoms ``(R, F)`` to spectrograms ``(B, F, N)``."""
    bins, frames = atoms.shape[1], codes.shape[2]
    padded, rows = functional.pad(codes, (0, -frames % 4, 0, -len(atoms) % 4)), functional.pad(atoms, (0, -bins % 4, 0, -len(atoms) % 4))
    return (rows.T.expand(len(codes), -1, -1) @ padded)[:, :bins, :frames]


def masks_of_parts(parts: torch.Tensor, channels: int) -> torch.Tensor:
    """Parts ``(B, K, F, N)``, not negative, to masks ``(B, K, channels, F, N)`` in their ratio.

    If all parts of a bin are zero, it is shared evenly.
    """
    parts = parts + FLOOR
    return (parts / parts.sum(1, keepdim=True)).unsqueeze(2).expand(-1, -1, channels, -1, -1)
