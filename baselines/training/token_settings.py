"""Settings of the token models of LASS, and the recipes that they make: of the codec, of the prior, and of the counts.

Images (``token_models.py``) and sounds (``sound_tokens.py``) share them.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from baselines.networks.token_transformer import TokenTransformer
from baselines.training.codec import Precision, VQVAERecipe
from baselines.training.epochs import cut_epochs
from baselines.training.tokens import TokenRecipe, new_transformer
from sepbench.protocols import RunContext
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class TokenSettings:
    """How the token models are learnt.

    The defaults are the paper's if the paper states them. Budget ``quick`` makes a tenth of epochs and passes, rounded
    up.
    """

    codes: int = Field(256, ge=2, description="K, codes of the VQ-VAE")
    width: int = Field(128, ge=1, description="channels of the VQ-VAE's layers, and the dimension of a code")
    codec_epochs: int = Field(500, ge=1, description="passes over the images to train the VQ-VAE")
    codec_batch: int = Field(64, ge=2, description="images per step")
    codec_lr: float = Field(1e-4, gt=0, description="Adam's rate for the VQ-VAE")
    commitment: float = Field(0.25, ge=0, description="beta, weight of the commitment loss")
    reconstruction: float = Field(1.0, gt=0, description="r, weight of the reconstruction's mean squared error")
    restart_every: int = Field(100, ge=0, description="steps after which an unused code restarts; 0: never")
    prior_width: int = Field(128, ge=1, description="width of the transformer")
    prior_layers: int = Field(3, ge=1, description="blocks of the transformer")
    prior_heads: int = Field(2, ge=1, description="attention heads of each block")
    prior_epochs: int = Field(500, ge=1, description="passes over the token sequences to train the prior")
    prior_batch: int = Field(128, ge=1, description="sequences per step")
    prior_lr: float = Field(2e-4, gt=0, description="Adam's rate for the prior")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate of the prior during the fit")
    decay: float = Field(0.2, ge=0, le=1, description="share of the steps, at the end of both trainings, over which the rate falls linearly to zero")
    passes: int = Field(50, ge=1, description="how often all images are put in pairs to count sums of tokens")
    symmetric: bool = Field(True, description="count each pair in both orders; false: the released code (flag 42)")
    every_triple: bool = Field(True, description="count every triple of a batch; false: each one once, the released code (flag 43)")
    held_out: int = Field(1000, ge=0, description="how many of the last clean images serve only for figures, at most a tenth")
    fit_precision: Precision = Field("bfloat16", description="of the networks during the fit (float32 on CPUs without it); mixtures are separated in float32")
    means: float = Field(0.0, ge=0, lt=1, description="share of each of the VQ-VAE's batches that becomes means of two images; 0: the paper")

    @model_validator(mode="after")
    def _check_heads(self) -> TokenSettings:
        """Check this before the codec trains for hours."""
        if self.prior_width % self.prior_heads:
            raise ValueError(f"prior_heads={self.prior_heads} must divide prior_width={self.prior_width}")
        return self

    def new_prior(self, length: int, seed: int, device: str | torch.device) -> TokenTransformer:
        """A prior of sequences of ``length`` tokens. Its weights depend only on the seed."""
        return new_transformer(self.codes, length, self.prior_width, self.prior_layers, self.prior_heads, seed, device)

    def codec_recipe(self, ctx: RunContext) -> VQVAERecipe:
        """How the codec is trained in a run."""
        epochs = cut_epochs(self.codec_epochs, ctx.budget)
        return VQVAERecipe(
            epochs,
            self.codec_batch,
            self.codec_lr,
            self.decay,
            commitment=self.commitment,
            reconstruction=self.reconstruction,
            restart_every=self.restart_every,
            precision=self.fit_precision,
            seed=ctx.seed,
            means=self.means,
        )

    def prior_recipe(self, ctx: RunContext) -> TokenRecipe:
        """How a prior is trained in a run."""
        epochs = cut_epochs(self.prior_epochs, ctx.budget)
        return TokenRecipe(epochs, self.prior_batch, self.prior_lr, self.decay, self.dropout, self.fit_precision, ctx.seed)
