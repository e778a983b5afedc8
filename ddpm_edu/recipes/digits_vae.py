"""A VAE of handwritten digits with a latent plane, for notebook 03."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm_edu.codec import Binary
from ddpm_edu.data import digits
from ddpm_edu.nets.vae import VAE, digits_vae
from ddpm_edu.objectives import elbo, importance_bound, vae_loss
from ddpm_edu.recipes.base import Generative
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class DigitsVAE(Generative):
    """A VAE of handwritten digits, black and white, whose latent is a plane. About 2 minutes on two CPU cores."""

    name: ClassVar[str] = "digits_vae"
    ships: ClassVar[str] = "vae"
    codec: ClassVar[Binary] = Binary()

    d_z: int = 2
    width: int = 16
    beta: float = 1.0
    batch: int = 128
    lr: float = 2e-3
    decay: float = 0.995
    steps: int = 3_000
    seed: int = 0

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.d_z,)

    def networks(self) -> dict[str, VAE]:
        return {"vae": digits_vae(self.d_z, self.width)}

    def learner(self, net: VAE) -> Learner[VAE]:
        # The loss is a sum over 784 pixels: so is the norm of its gradient.
        return Learner(net, self.lr, cosine(self.steps), clip=100.0, decay=self.decay)

    def update(self, learners: dict[str, Learner]) -> Update:
        def update(x: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            yield "vae", vae_loss(learners["vae"].net, x, self.beta, generator)

        return update

    def data(self) -> Tensor:
        return self.codec.encode(digits("train")[0])

    @torch.no_grad()
    def quality(self, model: VAE) -> dict[str, Any]:
        """Bounds of log p(x) on the 1,000 test digits, in nats a digit: the ELBO and that of 500 importance samples."""
        x, generator = self.codec.encode(digits("test")[0]), torch.Generator().manual_seed(0)
        reconstruction, kl = (
            sum(terms) / 20 for terms in zip(*[elbo(model, x, generator) for _ in range(20)], strict=True)
        )
        bound = importance_bound(model, x, 500, generator)
        return {
            "elbo": round((reconstruction - kl).mean().item(), 2),
            "kl": round(kl.mean().item(), 2),
            "importance_bound_500": round(bound.mean().item(), 2),
            "standard_error": round((bound.std() / len(x) ** 0.5).item(), 2),
            "n": f"{len(x)} digits",
        }
