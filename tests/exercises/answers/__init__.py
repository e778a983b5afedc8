"""What learners write, chapter by chapter: `nbNN.py` for the exercises of notebook NN.

RIGHT: {id: [function, ...]}, right answers written another way: with loops, in float64, in another order of reduction.
WRONG (may be absent): [(id, lines of the body, words of the sentence the learner gets)], wrong answers as typed.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import torch
from torch import Tensor


def column(values: list[float], x: Tensor) -> Tensor:
    """(b,) numbers in float64, with as many axes as x has."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, *[1] * (x.ndim - 1))


def gathered(name: str) -> list[Any]:
    """The tables of this name of all chapters."""
    chapters = [importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__)]
    return [getattr(chapter, name) for chapter in chapters if hasattr(chapter, name)]
