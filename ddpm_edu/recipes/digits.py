"""A DDPM of handwritten digits, for notebooks 07 to 10."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm_edu.codec import Pixels
from ddpm_edu.data import digits, minibatches
from ddpm_edu.denoiser import Denoiser, target_named
from ddpm_edu.nets.unet import UNet
from ddpm_edu.objectives import diffusion_loss
from ddpm_edu.process import Process
from ddpm_edu.recipes.base import config
from ddpm_edu.training import Learner, Step, cosine, train


@dataclass(frozen=True)
class Digits:
    """A DDPM of handwritten digits, 28x28, without a condition. About 20 minutes on two CPU cores."""

    name: ClassVar[str] = "digits"
    shape: ClassVar[tuple[int, ...]] = (1, 28, 28)

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

    @property
    def codec(self) -> Pixels:
        return Pixels()

    def denoiser(self) -> Denoiser:
        """The network with fresh weights, drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = UNet(1, self.widths, self.blocks, self.attend, patch=self.patch)
        return Denoiser(Process.named(self.schedule, self.T), net, target_named(self.target))

    def learner(self, device: str = "cpu") -> Learner[Denoiser]:
        """That network on a device, and its optimizer."""
        return Learner(self.denoiser().to(device), self.lr, cosine(self.steps), decay=self.decay)

    @torch.no_grad()
    def quality(self, denoise: Denoiser) -> dict[str, Any]:
        """The loss on the 1,000 test digits: mean and deviation over 10 draws of times and noises."""
        x_0, generator = self.codec.encode(digits("test")[0]), torch.Generator().manual_seed(0)
        losses = torch.stack([diffusion_loss(denoise, x_0, generator=generator) for _ in range(10)])
        mean, deviation = round(losses.mean().item(), 4), round(losses.std().item(), 4)
        return {"test_loss": mean, "deviation": deviation, "n": f"{len(x_0)} digits x {len(losses)} draws"}

    def train(
        self, learner: Learner[Denoiser], path: Path | None = None, progress: bool = True
    ) -> Generator[Step, None, None]:
        """Trains to `steps` on the 9,000 training digits; `training.train` says how it resumes."""

        def update(x_0: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            yield "denoise", diffusion_loss(learner.net, x_0, generator=generator)

        device = next(learner.net.parameters()).device
        batches = minibatches(self.codec.encode(digits("train")[0]).to(device), self.batch)
        return train(
            update,
            batches,
            self.steps,
            {"denoise": learner},
            seed=self.seed,
            path=path,
            config=config(self),
            progress=progress,
        )
