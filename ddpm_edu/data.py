"""Data: points in the plane to think with, and the real pictures that ship with the course.

Every shipped file is listed in data/MANIFEST.json with its sha256 and licence, and is checked before it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ddpm_edu.mixture import Mixture

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DDPM_EDU_DATA", ROOT / "data"))


# Shipped files --------------------------------------------------------------------------------------------------------


def manifest() -> dict[str, dict[str, Any]]:
    """What data/MANIFEST.json says of each file, by its path inside data/."""
    path = DATA / "MANIFEST.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: use a full clone of the course, or point DDPM_EDU_DATA at its data."
        )
    return {entry["path"]: entry for entry in json.loads(path.read_text("utf-8"))["files"]}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def asset(name: str) -> Path:
    """The path of a shipped file, once it is known to be whole. name: its path inside data/."""
    entries = manifest()
    if name not in entries:
        raise ValueError(f"{name!r} is not listed in data/MANIFEST.json; listed are: {', '.join(sorted(entries))}.")
    path = DATA / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; restore it with: git checkout -- data/{name}")
    if sha256(path) != entries[name]["sha256"]:
        raise ValueError(
            f"{path} is truncated or altered (sha256 differs); restore it with: git checkout -- data/{name}"
        )
    return path


@lru_cache
def _all_digits() -> tuple[Tensor, Tensor]:
    sheet = torch.from_numpy(np.array(Image.open(asset("digits/mnist_10k.webp")).convert("L")))
    images = rearrange(sheet, "(r h) (c w) -> (r c) h w", h=28, w=28)[:10_000].contiguous()
    labels = torch.from_numpy(np.fromfile(asset("digits/mnist_10k.labels"), np.uint8)).long()
    return images, labels


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """Real handwritten digits (MNIST, LeCun and Cortes): images (n, 28, 28) uint8, labels (n,) int64.

    split: "train" (the first 9,000), "test" (the last 1,000) or "all".
    """
    parts = {"train": slice(9000), "test": slice(9000, None), "all": slice(None)}
    if split not in parts:
        raise ValueError(f"Unknown split {split!r}; the splits are {', '.join(parts)}.")
    images, labels = _all_digits()
    return images[parts[split]].clone(), labels[parts[split]].clone()


# Points in the plane --------------------------------------------------------------------------------------------------


def eight_gaussians() -> Mixture:
    """Eight equal Gaussians of deviation 0.12 on a circle of radius 1.4. All families of models are compared on this
    set, since its density is known."""
    angle = torch.arange(8) * math.pi / 4
    return Mixture(torch.ones(8), 1.4 * torch.stack([angle.cos(), angle.sin()], 1), 0.12**2)


def _moons(u: Tensor, z: Tensor, side: Tensor) -> Tensor:
    angle = math.pi * u
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return torch.where(side[:, None] < 0.5, upper, -upper) + 0.06 * z


def _spiral(u: Tensor, z: Tensor, side: Tensor) -> Tensor:
    angle = 3 * math.pi * u.sqrt()
    return torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 5.0 + 0.05 * z


def _rings(u: Tensor, z: Tensor, side: Tensor) -> Tensor:
    radius = torch.where(side < 2 / 3, 1.5, 0.75)[:, None]
    return radius * torch.stack([(2 * math.pi * u).cos(), (2 * math.pi * u).sin()], 1) + 0.06 * z


def _eight(u: Tensor, z: Tensor, side: Tensor) -> Tensor:
    return eight_gaussians().means[(8 * u).long()] + 0.12 * z


def _checkerboard(u: Tensor, z: Tensor, side: Tensor) -> Tensor:
    column = 4 * u
    row = 2 * (2 * side).floor() + column.floor() % 2 + torch.special.ndtr(z[:, 0])
    return torch.stack([column, row], 1) - 2


_TOYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "moons": _moons, "spiral": _spiral, "rings": _rings, "eight gaussians": _eight, "checkerboard": _checkerboard,
}  # fmt: skip
TOYS = tuple(_TOYS)


def toy(name: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n points of a 2-D set, (n, 2), about as wide as a standard normal. name: one of `TOYS`."""
    if name not in _TOYS:
        raise ValueError(f"Unknown 2-D set {name!r}; the sets are {', '.join(TOYS)}.")
    u, side = torch.rand(2, n, generator=generator)
    return _TOYS[name](u, torch.randn(n, 2, generator=generator), side)


# Batches --------------------------------------------------------------------------------------------------------------


def minibatches(x: Tensor, size: int) -> Callable[[torch.Generator], Tensor]:
    """Batches for `training.train`: `size` rows of x drawn independently, a function of the generator alone, so that a
    resumed training goes on with the very batches it would have seen."""
    if len(x) == 0 or size < 1:
        raise ValueError(f"There must be rows to draw and a batch size of 1 or more; got {len(x)} rows, size {size}.")
    return lambda generator: x[torch.randint(len(x), (size,), generator=generator).to(x.device)]
