"""Generators and discriminators (Goodfellow et al. 2014), for points and for digits.

A generator maps z ~ N(0, I), (b, d_z), to x. A discriminator maps x to logits (b,); D(x) = sigmoid(logit), the
probability that x is real.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ddpm_edu.nets.layers import group_norm
from ddpm_edu.nets.mlp import mlp

__all__ = ["DCDiscriminator", "DCGenerator", "points_gan"]


def points_gan(d: int = 2, d_z: int = 2, width: int = 128) -> tuple[nn.Module, nn.Module]:
    """A generator (b, d_z) -> (b, d) and a discriminator (b, d) -> (b,), with two hidden layers each."""
    return mlp(d_z, width, width, d), nn.Sequential(mlp(d, width, width, 1), nn.Flatten(0))


class DCGenerator(nn.Module):
    """z: (b, d_z) -> pictures (b, 1, 28, 28) in [-1, 1]: from 7x7 up, after Radford et al. 2016 (DCGAN).

    Group instead of batch normalisation: a picture does not depend on the others in its batch, and the average of the
    weights needs no statistics of its own.
    """

    def __init__(self, d_z: int = 64, width: int = 32) -> None:
        super().__init__()
        self.d_z, self.width = d_z, width
        self.enter = nn.Linear(d_z, 2 * width * 7 * 7)
        self.norms = nn.ModuleList([group_norm(2 * width), group_norm(2 * width), group_norm(width)])
        self.ups = nn.ModuleList([
            nn.ConvTranspose2d(2 * width, 2 * width, 4, stride=2, padding=1),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        ])  # fmt: skip
        self.leave = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = rearrange(self.enter(z), "b (c h w) -> b c h w", h=7, w=7)
        for norm, up in zip(self.norms, self.ups, strict=False):
            x = up(F.silu(norm(x)))  # 7 -> 14 -> 28
        return self.leave(F.silu(self.norms[-1](x))).tanh()


class DCDiscriminator(nn.Sequential):
    """Pictures (b, 1, 28, 28) -> logits (b,): 28 -> 14 -> 7 by strided convolutions. No normalisation: the gradient
    penalty asks for the gradient of one picture's logit alone."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * 4 * 4, 1),
            nn.Flatten(0),
        )
