"""How tests judge random numbers: by standard errors, with the seed fixed, so that a test passes or fails for good."""

from __future__ import annotations

import torch
from torch import Tensor

Z = 5.0  # standard errors allowed; a right formula exceeds them once in two million draws, a wrong one at once


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_average(values: Tensor, expected: Tensor | float, bias: float = 0.0) -> None:
    """The mean over the rows of values (n, ...) is `expected` within Z standard errors, and `bias` where the quantity
    itself is only approximately that."""
    values = values.double()
    error = values.std(0) / len(values) ** 0.5
    off = (values.mean(0) - torch.as_tensor(expected).double()).abs()
    assert (off <= Z * error + bias).all(), f"{values.mean(0)} is not {expected} within {Z} x {error}"


def assert_moments(x: Tensor, mean: Tensor | float, var: Tensor | float, bias: float = 0.0) -> None:
    """x (n, ...) has this mean and this variance, element by element."""
    assert_average(x, mean, bias)
    assert_average((x.double() - torch.as_tensor(mean).double()) ** 2, var, bias)
