"""Data: points in the plane to think with, and the real pictures that ship with the course.

Every shipped file is listed in data/MANIFEST.json with its sha256 and licence, and is checked before it is read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ddpm_edu.mixture import Mixture
from ddpm_edu.process import sent

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


# Captioned emoji ------------------------------------------------------------------------------------------------------

EMOJI_SPLITS = (
    "train", "val", "test_tone", "test_pair", "test_gender", "test_style", "test_near", "test_colour",
)  # fmt: skip


@dataclass(frozen=True)
class Emoji:
    """One picture's caption and attributes; an attribute that it does not have is empty.

    caption: "STYLE style: NAME", NAME being CLDR's. char: the emoji itself; hex: its code points. base: the name
    without its tone; role: what man, woman and person of one role or activity have in common. gender: man, woman or
    mixed. tone, tone2: of the first and the second person. facing: right, for a mirrored drawing.
    """

    style: str
    caption: str
    caption_zh: str
    char: str
    hex: str
    group: str
    subgroup: str
    base: str
    role: str
    gender: str
    tone: str
    tone2: str
    hair: str
    facing: str
    keywords: tuple[str, ...]
    split: str


class Captioned(NamedTuple):
    """images: (n, 64, 64, 3) uint8, on white. rows: what each shows, in the same order."""

    images: Tensor
    rows: tuple[Emoji, ...]


@lru_cache
def _emoji_by_split() -> dict[str, Captioned]:
    """Sorted by split while decoding, so that each split is a view of the one tensor there is."""
    with gzip.open(asset("emoji/captions.tsv.gz"), "rt", encoding="utf-8", newline="") as file:
        table = sorted(csv.DictReader(file, delimiter="\t"), key=lambda row: EMOJI_SPLITS.index(row["split"]))
    images = torch.empty(len(table), 64, 64, 3, dtype=torch.uint8)
    for style in dict.fromkeys(row["style"] for row in table):
        sheet = np.array(Image.open(asset(f"emoji/{style.replace(' ', '_')}.webp")).convert("RGB"))
        tiles = rearrange(torch.from_numpy(sheet), "(r h) (c w) rgb -> r c h w rgb", h=64, w=64)
        rows = torch.tensor([i for i, row in enumerate(table) if row["style"] == style])
        tile = torch.tensor([int(row["tile"]) for row in table if row["style"] == style])
        images[rows] = tiles[tile // tiles.shape[1], tile % tiles.shape[1]]
    about = [
        Emoji(**{f.name: row[f.name] for f in fields(Emoji)} | {"keywords": tuple(row["keywords"].split())})
        for row in table
    ]
    rows_of = {split: tuple(row for row in about if row.split == split) for split in EMOJI_SPLITS}
    views = images.split([len(rows) for rows in rows_of.values()])
    return {split: Captioned(*both) for split, *both in zip(EMOJI_SPLITS, views, rows_of.values(), strict=True)}


def emoji(split: str = "train", *more: str) -> Captioned:
    """Unicode's emoji in five drawing styles, captioned. Whose drawings and names they are: data/ATTRIBUTION.md.

    split, more: of `EMOJI_SPLITS`; several are joined in the order given. train and val are drawn at random; what the
    others hold out never meets in training: a skin tone of a subject (test_tone), two people's tones (test_pair) or a
    colour and a shape (test_colour), in any style; men or women of a role (test_gender) or an object (test_style), in
    one designer's styles; an object in fluent 3d, though not in its flat twin (test_near).

    The images of one split are not a copy, but those that every call returns: do not write into them.
    """
    for name in (split, *more):
        if name not in EMOJI_SPLITS:
            raise ValueError(f"Unknown split {name!r}; the splits are {', '.join(EMOJI_SPLITS)}.")
    parts = [_emoji_by_split()[name] for name in (split, *more)]
    if not more:
        return parts[0]
    return Captioned(torch.cat([part.images for part in parts]), tuple(row for part in parts for row in part.rows))


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
    return lambda generator: x[sent(torch.randint(len(x), (size,), generator=generator), x.device)]


def lookalikes(group: Tensor, size: int, alike: int, balance: float = 0.0) -> Callable[[torch.Generator], Tensor]:
    """Batches of indices in groups of `alike`: a row drawn from all, and others of its group, (n,) int64. What has to
    be told apart then stands side by side.

    balance: a row counts as the size of its group to the power of -balance; with 1 every group is drawn as often.
    """
    if len(group) == 0 or size % alike:
        raise ValueError(f"There must be rows, and a batch of whole groups of {alike}; got {len(group)} and {size}.")
    order, count = group.argsort(stable=True), group.bincount()
    start, weight = count.cumsum(0) - count, count[group].double() ** -balance

    def batch(generator: torch.Generator) -> Tensor:
        first = torch.multinomial(weight, size // alike, replacement=True, generator=generator)[:, None]
        of = group[first]
        place = (torch.rand(size // alike, alike - 1, generator=generator) * count[of]).long()
        return torch.cat([first, order[start[of] + place]], 1).flatten()

    return batch
