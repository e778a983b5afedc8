"""A DDPM of handwritten digits, for notebooks 07 to 10."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm_edu.codec import Pixels
from ddpm_edu.data import digits
from ddpm_edu.denoiser import Denoiser, target_named
from ddpm_edu.nets.unet import UNet
from ddpm_edu.objectives import diffusion_loss
from ddpm_edu.process import Process
from ddpm_edu.recipes.base import Generative
from ddpm_edu.samplers import ddim
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class Digits(Generative):
    """A DDPM of handwritten digits, 28x28, without a condition. About 20 minutes on two CPU cores."""

    name: ClassVar[str] = "digits"
    ships: ClassVar[str] = "denoise"
    codec: ClassVar[Pixels] = Pixels()
    noise_shape: ClassVar[tuple[int, ...]] = (1, 28, 28)
    sampling: ClassVar[int] = 50

    schedule: str = "linear"
    T: int = 1000
    target: str = "v"
    widths: tuple[int, ...] = (48, 96)
    blocks: int = 1
    attend: tuple[int, ...] = (1,)
    patch: int = 2
    batch: int = 64
    lr: float = 2e-3
    decay: float = 0.999
    steps: int = 10_000
    seed: int = 0

    def networks(self) -> dict[str, Denoiser]:
        net = UNet(1, self.widths, self.blocks, self.attend, patch=self.patch)
        return {"denoise": Denoiser(Process.named(self.schedule, self.T), net, target_named(self.target))}

    def learner(self, net: Denoiser) -> Learner[Denoiser]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay)

    def update(self, learners: dict[str, Learner]) -> Update:
        def update(x_0: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            yield "denoise", diffusion_loss(learners["denoise"].net, x_0, generator=generator)

        return update

    def data(self) -> Tensor:
        return self.codec.encode(digits("train")[0])

    def states(self, model: Denoiser, noise: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """DDIM."""
        timesteps = model.process.timesteps(self.sampling if steps is None else steps)
        return (state.x_t for state in ddim(model, noise, timesteps))

    @torch.no_grad()
    def quality(self, model: Denoiser) -> dict[str, Any]:
        """The loss on the 1,000 test digits: mean and deviation over 10 draws of times and noises."""
        x_0, generator = self.codec.encode(digits("test")[0]), torch.Generator().manual_seed(0)
        losses = torch.stack([diffusion_loss(model, x_0, generator=generator) for _ in range(10)])
        mean, deviation = round(losses.mean().item(), 4), round(losses.std().item(), 4)
        return {"test_loss": mean, "deviation": deviation, "n": f"{len(x_0)} digits x {len(losses)} draws"}
