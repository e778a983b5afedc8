"""Variational autoencoders (Kingma and Welling 2014; Rezende et al. 2014): two networks and a likelihood.

encoder: x -> (b, 2 d_z), the two heads of q(z | x) = N(m, diag(exp(s))): mean m and log-variance s.
decoder: z -> what the likelihood p(x | z) takes. The prior is p(z) = N(0, I).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_edu.nets.layers import group_norm
from ddpm_edu.nets.mlp import mlp
from ddpm_edu.process import Gaussian, randn_like

__all__ = ["VAE", "Bernoulli", "Likelihood", "Normal", "digits_vae", "points_vae"]


# What the decoder's output means --------------------------------------------------------------------------------------


class Likelihood(Protocol):
    """p(x | y), y being what the decoder gives: the shape of x."""

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x | y) in nats, summed over the elements of a datum: (b,)."""
        ...

    def mean(self, y: Tensor) -> Tensor:
        """E[x | y]: the shape of x."""
        ...

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of x: the shape of x."""
        ...


class Normal(nn.Module):
    """p(x | y) = N(y, sigma^2 I): a squared error with its factor 1 / (2 sigma^2) and its constant.

    learned: let training choose sigma; `sigma` is then where it starts.
    """

    def __init__(self, sigma: float = 1.0, learned: bool = False) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"sigma, a deviation, must be above 0; got {sigma}.")
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)), requires_grad=learned)

    def p(self, y: Tensor) -> Gaussian:
        return Gaussian(y, (2 * self.log_sigma).exp())

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        return self.p(y).log_prob(x).flatten(1).sum(1)

    def mean(self, y: Tensor) -> Tensor:
        return y

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.p(y).sample(generator)


class Bernoulli(nn.Module):
    """Each element of x is 0 or 1, and is 1 with probability sigmoid(y): -log p is the binary cross-entropy."""

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"x must lie in 0..1, not in {x.min():g}..{x.max():g}: encode pictures by codec.Binary.")
        return -F.binary_cross_entropy_with_logits(y, x, reduction="none").flatten(1).sum(1)

    def mean(self, y: Tensor) -> Tensor:
        return y.sigmoid()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.bernoulli(y.sigmoid(), generator=generator)


# The model ------------------------------------------------------------------------------------------------------------


class VAE(nn.Module):
    """An encoder, a decoder and a likelihood; d_z, the number of elements of z or, where z is a picture, its shape.

    `objectives.elbo` and `objectives.importance_bound` bound its log p(x).
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, d_z: int | tuple[int, ...]
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood, self.d_z = encoder, decoder, likelihood, d_z

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return (self.d_z,) if isinstance(self.d_z, int) else self.d_z

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean m and log-variance s of q(z | x): (b, *shape) each."""
        m, s = self.encoder(x).float().chunk(2, dim=1)
        return m, s

    def encode(self, x: Tensor) -> Gaussian:
        """q(z | x) = N(m, diag(exp(s)))."""
        m, s = self.heads(x)
        return Gaussian(m, s.exp())

    def decode(self, z: Tensor) -> Tensor:
        """z: (b, *shape) -> y, the parameters of p(x | z): the shape of x."""
        if z.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"z must be (b, {wanted}); got {tuple(z.shape)}. To rebuild x, give vae.encode(x).mean.")
        return self.decoder(z).float()

    def forward(self, z: Tensor) -> Tensor:
        """The picture or point that z stands for: E[x | z], the shape of x."""
        return self.likelihood.mean(self.decode(z))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws of p(x): z from the prior, then x from p(x | z)."""
        z = randn_like(torch.empty(n, *self.shape, device=next(self.parameters()).device), generator)
        return self.likelihood.sample(self.decode(z), generator)


def points_vae(
    d: int = 2,
    d_z: int = 2,
    width: int = 128,
    sigma: float = 0.12,
    learned: bool = False,
    act: type[nn.Module] = nn.SiLU,
) -> VAE:
    """For points (b, d): two hidden layers each way, a Gaussian likelihood."""
    encoder, decoder = mlp(d, width, width, 2 * d_z, act=act), mlp(d_z, width, width, d, act=act)
    return VAE(encoder, decoder, Normal(sigma, learned), d_z)


def digits_vae(d_z: int = 2, width: int = 32) -> VAE:
    """For pictures (b, 1, 28, 28) of zeros and ones: convolutions 28 -> 14 -> 7 and back, a Bernoulli likelihood."""
    encoder = nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
        group_norm(width),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(width * 7 * 7, 128),
        nn.SiLU(),
        nn.Linear(128, 2 * d_z),
    )
    decoder = nn.Sequential(
        nn.Linear(d_z, 128),
        nn.SiLU(),
        nn.Linear(128, width * 7 * 7),
        nn.Unflatten(1, (width, 7, 7)),
        group_norm(width),
        nn.SiLU(),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        group_norm(width),
        nn.SiLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
    )
    return VAE(encoder, decoder, Bernoulli(), d_z)
