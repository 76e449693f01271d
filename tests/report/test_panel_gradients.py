"""Norms of priors' gradients by hand: which noise is added to which source, which prior is asked for what, and what the figure says of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.report.panels import gradients
from sepbench.report.panels.gradients import gradient_norms, score_norms


class Noise:
    """A source of noise that tells apart what it is asked: stream, step and slot."""

    def __init__(self, stream: int = 0) -> None:
        self.stream = stream

    def fork(self, stream: int) -> Noise:
        return Noise(stream)

    def normal(self, ids: torch.Tensor, step: int, slot: int, shape: tuple[int, ...], device: str) -> torch.Tensor:
        assert (ids.tolist(), ids.dtype, shape, device) == ([0, 1, 2], torch.int64, (1, 2, 5), "cpu")
        return (ids + 10.0 * step + 100.0 * slot + 1000.0 * self.stream).reshape(-1, 1, 1, 1).expand(-1, *shape)


def test_scores_are_asked_at_sources_with_noise_of_their_own_stream() -> None:
    """Norms are of double precision, whatever the prior answers."""
    asked: list[float] = []

    def score(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        torch.set_grad_enabled(False)
        return noisy / 3

    clean = torch.linspace(0.0, 1.0, 30).reshape(3, 1, 2, 5)
    session: Any = SimpleNamespace(ctx=SimpleNamespace(noise=Noise(), device="cpu"))
    found = score_norms(SimpleNamespace(score=score), clean, [0.5, 0.25], session, slot=2)  # type: ignore[arg-type]
    assert torch.is_grad_enabled()  # what the prior has changed is put back
    assert (asked, found.shape, found.dtype) == ([0.5, 0.25], (2, 3), np.float64)
    for step, sigma in enumerate(asked):
        for number in range(3):
            noisy = (clean[number] + sigma * (number + 10.0 * step + 200.0 + 7000.0)) / 3
            assert found[step, number] == pytest.approx(np.linalg.norm(noisy.double().numpy()), rel=1e-12)


@pytest.mark.parametrize(
    ("priors", "curves"),
    [("aa", [("", "a", 0)]), ("ab", [("0-4", "a", 0), ("5-9", "b", 1)]), ("abb", [("0-4", "a", 0), ("5-9", "b", 1), ("rest", "b", 2)])],
)
@pytest.mark.parametrize(("n", "planned", "taken"), [(64, 40, "40"), (40, 64, "40"), (5000, 1200, "1,200")])
def test_each_prior_is_asked_for_its_own_source(
    monkeypatch: pytest.MonkeyPatch, priors: str, curves: list[tuple[str, str, int]], n: int, planned: int, taken: str
) -> None:
    spec = SimpleNamespace(name="t", suite="s", n_sources=len(priors), source_classes=("0-4", "5-9", "rest"), source_shape=(1, 3, 4))
    fitted: Any = SimpleNamespace(separator=SimpleNamespace(score_prior=lambda slot: priors[slot]))
    calls: list[tuple[Any, ...]] = []

    def norms(prior: str, clean: torch.Tensor, sigmas: list[float], session: Any, slot: int) -> Any:
        assert session is fitted
        assert (clean == slot).all()
        calls.append((prior, len(clean), tuple(sigmas), slot))
        return np.full((2, 1), slot)

    monkeypatch.setattr(gradients, "score_norms", norms)
    monkeypatch.setattr(gradients, "fitted_again", lambda *given: fitted if given == (run, task, "toy", "a device") else None)
    mixtures = SimpleNamespace(sources=lambda examples: torch.arange(len(priors)).expand(len(examples), -1))
    task: Any = SimpleNamespace(spec=spec, mixture_set=lambda: mixtures)
    settings = {"highest": 1.0, "lowest": 0.25, "levels": 2}
    run: Any = SimpleNamespace(n_planned=lambda name: {"t": planned}[name], record=SimpleNamespace(methods={"toy": SimpleNamespace(settings=settings)}))
    data = gradient_norms(run, task, "toy", "a device", n)
    assert calls == [(prior, int(taken.replace(",", "")), (1.0, 0.25), slot) for _, prior, slot in curves]
    assert [(curve.label, curve.norms.tolist()) for curve in data.curves] == [(label, [[slot], [slot]]) for label, _, slot in curves]
    assert (data.title, data.sigmas.tolist(), data.dimension) == ("Gradient norm of the prior of toy", [1.0, 0.25], 12)
    assert data.subtitle == f"Score at noisy true sources of {taken} mixtures of s, t: mean, and band from the 5 % to the 95 % quantile"
