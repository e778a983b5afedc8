"""Generators and discriminators (Goodfellow et al. 2014), for points and for digits.

A generator maps z ~ N(0, I), (b, d_z), to x. A discriminator maps x to logits (b,); D(x) = sigmoid(logit), the
probability that x is real.
"""

from __future__ import annotations

from torch import nn

from ddpm_edu.nets.layers import group_norm
from ddpm_edu.nets.mlp import mlp

__all__ = ["DCDiscriminator", "DCGenerator", "points_gan"]


def points_gan(
    d: int = 2, d_z: int = 2, width: int = 128, hidden: int = 2, act: type[nn.Module] = nn.SiLU
) -> tuple[nn.Module, nn.Module]:
    """A generator (b, d_z) -> (b, d) and a discriminator (b, d) -> (b,), with `hidden` hidden layers each."""
    between = [width] * hidden
    return mlp(d_z, *between, d, act=act), nn.Sequential(mlp(d, *between, 1, act=act), nn.Flatten(0))


class DCGenerator(nn.Sequential):
    """z: (b, d_z) -> pictures (b, 1, 28, 28) in [-1, 1]: 7 -> 14 -> 28 by transposed convolutions, after Radford et al.
    2016 (DCGAN).

    Group in the place of batch normalisation: a picture does not depend on the others in its batch, and the average of
    the weights needs no statistics of its own.
    """

    def __init__(self, d_z: int = 32, width: int = 48) -> None:
        super().__init__(
            nn.Linear(d_z, 2 * width * 7 * 7),
            nn.Unflatten(1, (2 * width, 7, 7)),
            group_norm(2 * width),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            group_norm(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
            nn.Tanh(),
        )


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
