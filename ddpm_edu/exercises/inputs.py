"""Inputs for the checks, drawn from the generator a check is given; and the shape rule that the mistakes share."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers of this shape, float32."""
    return torch.randn(*shape, generator=rng)


def times(rng: torch.Generator, b: int, T: int) -> Tensor:
    """t, (b,): b different times from 1..T in random order, not 1 first and not T first."""
    t = torch.randperm(T, generator=rng)[:b] + 1
    return t if 1 < t[0] < T else times(rng, b, T)


def schedule(rng: torch.Generator, T: int = 12) -> tuple[Tensor, Tensor]:
    """beta and alpha_bar, (T + 1,) each, for random betas in 0.05..0.45; beta[0] = 0, alpha_bar[0] = 1."""
    beta = torch.cat([torch.zeros(1), 0.05 + 0.4 * torch.rand(T, generator=rng)])
    return beta, (1 - beta).cumprod(0)


def linear(T: int = 1000) -> tuple[Tensor, Tensor]:
    """beta and alpha_bar, (T + 1,) each, of DDPM's linear schedule (1e-4 to 0.02)."""
    beta = torch.cat([torch.zeros(1), torch.linspace(1e-4, 0.02, T)])
    return beta, (1 - beta.double()).cumprod(0).float()


def points_and_images(rng: torch.Generator, T: int) -> list[tuple[Tensor, torch.Size]]:
    """Pairs of t (b,) and a shape (b, ...): points in the plane, images, and images as wide as the batch.

    A factor of shape (b,) meets the first two with an error, and the last silently and wrongly.
    """
    shapes = [(4, 2), (3, 2, 5, 5), (4, 1, 4, 4)]
    return [(times(rng, shape[0], T), torch.Size(shape)) for shape in shapes]


def along(factor: Tensor, x: Tensor) -> Tensor:
    """(b,) -> (b, 1, ...), with as many axes as x has."""
    return factor.view(-1, *[1] * (x.ndim - 1))
