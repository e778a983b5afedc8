"""The autoencoder of the emoji: from 64x64x3 numbers to 16x16x4, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm_edu.codec import Pixels
from ddpm_edu.data import emoji
from ddpm_edu.metrics import psnr
from ddpm_edu.nets.autoencoder import autoencoder
from ddpm_edu.nets.vae import VAE
from ddpm_edu.objectives import autoencoder_losses
from ddpm_edu.recipes.base import Recipe
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class Autoencoder(Recipe):
    """An autoencoder whose latents are small pictures, with CLIP's image encoder as its eye. About 35 minutes on two
    CPU cores."""

    name: ClassVar[str] = "autoencoder"
    ships: ClassVar[str] = "autoencoder"
    codec: ClassVar[Pixels] = Pixels()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {"steps": 5_500}, "gpu": {"batch": 64, "steps": 14_000}}
    looks: ClassVar[int] = 10
    any_size: ClassVar[bool | None] = False  # the decoder sees three sizes, and one program for any would be slower

    channels: int = 4
    widths: tuple[int, ...] = (64, 128)
    blocks: tuple[int, ...] = (1, 2)
    patch: int = 2
    kl: float = 2.5e-4  # weights of the loss beside the mean squared error
    perceptual: float = 0.01
    smaller: float = 0.25
    batch: int = 12  # many small steps do more here than fewer large ones in the same time
    lr: float = 1e-3
    decay: float = 0.995
    steps: int = 8_000
    seed: int = 0

    def networks(self) -> dict[str, VAE]:
        return {"autoencoder": autoencoder(self.channels, self.widths, self.blocks, patch=self.patch)}

    def learner(self, net: VAE) -> Learner[VAE]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay)

    def update(self, learners: dict[str, Learner]) -> Update:
        from ddpm_edu import pretrained  # which knows all recipes, this one too

        net = learners["autoencoder"].net
        eye = pretrained.load("clip").image
        eye.to(next(net.parameters()).device, memory_format=torch.channels_last)

        def update(images: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            x = self.codec.encode(images)
            loss = autoencoder_losses(net, x, eye.features, generator)
            rest = self.kl * loss.kl + self.perceptual * loss.perceptual + self.smaller * loss.smaller
            yield "autoencoder", loss.pixels + rest

        return update

    def data(self) -> Tensor:
        return emoji("train").images

    @torch.no_grad()
    def picture(self, model: VAE) -> Tensor:
        """Sixteen pictures of val, and below each row what comes back of them."""
        images = emoji("val").images
        images = images[torch.linspace(0, len(images) - 1, 16).long()]
        _, y = rebuild(model, self.codec.encode(images))
        back = self.codec.decode(y)
        return torch.stack([images.view(2, 8, 64, 64, 3), back.view(2, 8, 64, 64, 3)], 1).flatten(0, 2)

    @torch.no_grad()
    def quality(self, model: VAE) -> dict[str, Any]:
        """On val: PSNR in dB of the mean error, and the deviation of the latents."""
        x = self.codec.encode(emoji("val").images)
        z, y = rebuild(model, x)
        return {"psnr": round(psnr(x, y), 2), "deviation": round(z.std().item(), 3), "n": f"{len(x)} pictures of val"}


@torch.no_grad()
def rebuild(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """z, the mean of q(z | x), and the picture decoded from it, both on the CPU. x: (n, 3, h, w) in [-1, 1]."""
    device = next(model.parameters()).device
    z = torch.cat([model.encode(part.to(device)).mean for part in x.split(100)])
    return z.cpu(), torch.cat([model(part).cpu() for part in z.split(100)])
