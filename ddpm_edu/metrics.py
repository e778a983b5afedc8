"""How good samples are: pure functions of samples, or of features of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_edu.mixture import Mixture

__all__ = ["Modes", "modes_covered", "sliced_wasserstein"]


class Modes(NamedTuple):
    """covered: how many modes the samples reach. quality: the share of the samples that lies on a mode."""

    covered: int
    quality: float


def modes_covered(x: Tensor, mixture: Mixture, share: float = 0.1) -> Modes:
    """Which modes of a mixture samples reach. x: (n, d).

    A sample lies on the nearest mode if it is within 3 of its deviations (in the plane 98.9 % of a Gaussian's own
    are); a mode is covered if at least `share` of the samples it should have (n times its weight) lie on it.
    """
    distance, nearest = torch.cdist(x.double(), mixture.means.double()).min(1)
    counts = nearest[distance <= 3 * mixture.deviations[nearest]].bincount(minlength=len(mixture.weights))
    return Modes(int((counts >= share * len(x) * mixture.weights).sum()), counts.sum().item() / len(x))


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 200, generator: torch.Generator | None = None) -> float:
    """The root of the mean squared Wasserstein-2 distance of projections on random directions (Bonneel et al. 2015).

    x, y: (n, d), as many of one as of the other: in one dimension the best transport pairs them in sorted order. In the
    units of x; between two sets of samples of one distribution it is not 0 but falls with n.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"x and y must be (n, d) of one shape; got {tuple(x.shape)} and {tuple(y.shape)}.")
    u = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    u = u / u.norm(dim=0)
    return (x.double() @ u).sort(0).values.sub((y.double() @ u).sort(0).values).square().mean().sqrt().item()
