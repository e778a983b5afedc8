"""CLIP on the captioned emoji, and a second one, the judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu import captions
from ddpm_edu.codec import Pixels
from ddpm_edu.data import Emoji, emoji, lookalikes
from ddpm_edu.metrics import retrieval
from ddpm_edu.nets.clip import CLIP, ImageEncoder, TextEncoder
from ddpm_edu.objectives import contrastive_loss
from ddpm_edu.process import sent
from ddpm_edu.recipes.base import Recipe
from ddpm_edu.tokenizer import Tokenizer
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class Clip(Recipe):
    """A text encoder and an image encoder of the emoji, trained together. About 40 minutes on two CPU cores."""

    name: ClassVar[str] = "clip"
    ships: ClassVar[str] = "clip"
    codec: ClassVar[Pixels] = Pixels()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {"steps": 3_200}, "gpu": {"batch": 512, "steps": 6_000}}
    looks: ClassVar[int] = 10

    merges: int = 1000
    d: int = 192
    layers: int = 4
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: int = 2
    patch: int = 4
    shift: float = 3.0  # training pictures are moved by up to so many pixels,
    zoom: float = 0.15  # made larger or smaller by up to this share,
    turn: float = 8.0  # and turned by up to so many degrees
    alike: int = 4  # a batch is groups of this many look-alikes: pictures of one role
    balance: float = 0.25  # 0: a role is drawn as often as it has pictures; 1: all roles equally often
    ways: int = 32  # in which each picture is said
    swaps: int = 0  # so many captions of a batch come once more with an attribute wrong
    batch: int = 128
    lr: float = 1e-3
    decay: float = 0.995
    weight_decay: float = 0.1
    steps: int = 5_000
    seed: int = 0

    def networks(self) -> dict[str, CLIP]:
        text = TextEncoder(len(captions.tokenizer(self.merges)), self.d, self.layers, length=captions.LENGTH)
        return {"clip": CLIP(text, ImageEncoder(self.widths, self.blocks, self.patch), self.d)}

    def learner(self, net: CLIP) -> Learner[CLIP]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay, weight_decay=self.weight_decay)

    def update(self, learners: dict[str, Learner]) -> Update:
        images, rows = emoji("train")
        by, net = captions.tokenizer(self.merges), learners["clip"].net
        device = next(net.parameters()).device
        images, truth = images.to(device), captions.facts(rows).to(device)
        said, right = captions.sayings(rows, self.ways, by, self.seed, device), {row.caption for row in rows}

        def wrong(which: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
            """The first pictures of a batch with an attribute wrong: tokens, what they state, and what they mean."""
            u = torch.rand(len(which[: self.swaps]), 6, generator=generator).tolist()
            misread = [(captions.misread(rows[i], v, right), u) for i, (v, *u) in zip(which.tolist(), u, strict=False)]
            meant = [row for row, _ in misread if row]
            saying = [captions.say(row, u) for row, u in misread if row]
            tokens = captions.read([one.text for one in saying], by, captions.LENGTH)
            states = torch.stack([one.states for one in saying]) if saying else said.states[:0, 0].cpu()
            return tokens.to(device), states.to(device), captions.facts(meant).to(device)

        def update(which: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            shown = sent(which, device)
            parts = [(*said.draw(shown, generator), truth[shown])]
            if self.swaps:
                parts.append(wrong(which, generator))
            tokens, states, meant = (torch.cat(part) for part in zip(*parts, strict=True))
            also = captions.describes(states, meant, truth[shown])
            x = moved(self.codec.encode(images[shown]), self.shift, self.zoom, self.turn, generator)
            text = net.embed_text(captions.trimmed(tokens))
            yield "clip", contrastive_loss(net.embed_image(x), text, net.scale, also)

        return update

    def data(self) -> Tensor:
        """The pictures' numbers: what is said of them is drawn in every batch."""
        return torch.arange(len(emoji("train").rows))

    def batches(self, data: Tensor) -> Callable[[torch.Generator], Tensor]:
        return lookalikes(roles(emoji("train").rows), self.batch, self.alike, self.balance)

    @torch.no_grad()
    def quality(self, model: CLIP) -> dict[str, Any]:
        """On val, and on val alone, since it is looked at while there is something to choose: captions whose picture is
        found first or among the first five; attributes read right."""
        (images, rows), by = emoji("val"), captions.tokenizer(self.merges)
        image, text = embed_images(model, images), embed_texts(model, [row.caption for row in rows], by)
        found = {f"top_{k}": retrieval(image, text, k) for k in (1, 5)}
        for name in captions.VALUES:
            found[name] = reads(model, image, rows, name, by).double().mean().item()
        return {name: round(value, 4) for name, value in found.items()} | {"n": f"{len(rows)} pictures of val"}


@dataclass(frozen=True)
class Judge(Clip):
    """A second CLIP, built otherwise, that measures what others make and trains nothing: other weights at the start,
    other draws of captions and of how pictures are moved. It has to read attributes, so it is also shown captions with
    one of them wrong. About 28 minutes on two CPU cores."""

    name: ClassVar[str] = "judge"
    ships: ClassVar[str] = "clip"

    d: int = 128
    layers: int = 3
    widths: tuple[int, ...] = (32, 64, 112, 128)  # a level more, from finer pixels: a style is told by its shading
    blocks: int = 1
    patch: int = 2
    swaps: int = 48
    steps: int = 5_000
    seed: int = 1


@torch.no_grad()
def embed_images(model: CLIP, images: Tensor) -> Tensor:
    """(n, 64, 64, 3) uint8 -> (n, d), on the CPU."""
    device = model.log_scale.device
    return torch.cat([model.embed_image(Clip.codec.encode(part).to(device)).cpu() for part in images.split(100)])


@torch.no_grad()
def embed_texts(model: CLIP, texts: Sequence[str], by: Tokenizer) -> Tensor:
    """-> (n, d), on the CPU."""
    device = model.log_scale.device
    return torch.cat([model.embed_text(part.to(device)).cpu() for part in captions.read(texts, by).split(500)])


def reads(model: CLIP, image: Tensor, rows: Sequence[Emoji], attribute: str, by: Tokenizer) -> Tensor:
    """Does the model read the attribute off a picture: of all values said in its caption, is the true one the nearest?
    image: embeddings (n, d). One answer, bool, for each picture that has the attribute."""
    said = [(k, row, texts) for k, row in enumerate(rows) if (texts := captions.swapped(row, attribute))]
    values = list(captions.VALUES[attribute])
    text = embed_texts(model, [text for _, _, texts in said for text in texts.values()], by)
    text = text.view(len(said), len(values), -1)
    nearest = (text @ image[[k for k, _, _ in said]][..., None])[..., 0].argmax(1)
    return nearest == torch.tensor([values.index(getattr(row, attribute)) for _, row, _ in said])


def roles(rows: Sequence[Emoji]) -> Tensor:
    """The role of each picture as a number, (n,) int64: the groups of `data.lookalikes`."""
    code = {role: k for k, role in enumerate(sorted({row.role for row in rows}))}
    return torch.tensor([code[row.role] for row in rows])


def moved(x: Tensor, shift: float, zoom: float, turn: float, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `shift` pixels, up or down and left or right, made larger or smaller by up to the
    share `zoom` and turned by up to `turn` degrees, all uniform; white comes in. (b, 3, h, w) in [-1, 1]."""
    u = sent(2 * torch.rand(4, len(x), generator=generator) - 1, x.device)
    right, down = 2 * shift * u[2] / x.shape[3], 2 * shift * u[3] / x.shape[2]
    angle, scale = math.radians(turn) * u[0], 1 + zoom * u[1]
    c, s = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack(row, 1) for row in ((c, -s, right), (s, c, down))]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x - 1, grid, align_corners=False) + 1
