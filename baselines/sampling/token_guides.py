"""Candidates that are cut down while they grow: ours, the paper (Postolache et al. 2023) draws all to their end and takes the best.

Which of N candidates decodes to an image near the mixture is seen long before the last token. After every row of tokens but the first and the last, candidates
are decoded as far as they have come, with the mixture's own tokens in the place of those to come; the share of them whose mean is nearest to the mixture so
far goes on, each as often as there is room. So N candidates are a search of every row, not of all rows at once. They are then no draws of the
posterior at all: the decoded error, which the paper asks at the end, is asked all the way.

A code's image reaches into its neighbours', so the last row of tokens so far is left out of the error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def all_go_on(position: int, tokens: torch.Tensor) -> torch.Tensor | None:
    """Nobody is left behind."""
    return None


def keep_nearest(
    decode: Callable[[torch.Tensor], torch.Tensor], means: torch.Tensor, mixture: torch.Tensor, width: int, count: int, share: float
) -> Callable[[int, torch.Tensor], torch.Tensor | None]:
    """For ``draw_tree``'s ``parents_after``.

    Args:
        decode: tokens ``(n, S)`` to images ``(n, C, H, W)``.
        means: ``(B, C, H, W)``, means of the sources.
        mixture: their tokens ``(B, S)``.
        width: tokens in a row of the grid.
        count: candidates of each mixture, whose rows lie together.
        share: of the candidates that go on, in (0, 1]; at least one does.
    """
    length, height = mixture.shape[1], means.shape[-2]
    pixels = height * width // length  # rows of pixels to a row of tokens
    kept = max(1, round(share * count))

    def parents(position: int, tokens: torch.Tensor) -> torch.Tensor | None:
        rows, left = divmod(position + 1, width)
        if left or rows < 2 or position + 1 == length:
            return None
        batch, sources = len(means), tokens.shape[1]
        grown = tokens.clone()
        grown[..., position + 1 :] = mixture.to(tokens.device).repeat_interleave(count, 0)[:, None, position + 1 :]
        seen = (rows - 1) * pixels
        images = decode(grown.flatten(0, 1)).unflatten(0, (batch, count, sources)).mean(2)
        errors = (images - means[:, None])[..., :seen, :].flatten(2).square().sum(2)
        best = errors.argsort(dim=1, stable=True)[:, :kept]
        copies = best.repeat(1, -(-count // kept))[:, :count]
        chosen: torch.Tensor = (torch.arange(batch, device=tokens.device)[:, None] * count + copies).flatten()
        return chosen

    return parents
