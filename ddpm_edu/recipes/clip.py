"""CLIP on the captioned emoji, and a second one, the judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu import captions
from ddpm_edu.codec import Pixels
from ddpm_edu.data import EMOJI_SPLITS, Emoji, emoji, lookalikes
from ddpm_edu.metrics import retrieval
from ddpm_edu.nets.clip import CLIP, ImageEncoder, TextEncoder
from ddpm_edu.objectives import contrastive_loss
from ddpm_edu.recipes.base import Recipe
from ddpm_edu.tokenizer import Tokenizer
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class Clip(Recipe):
    """A text encoder and an image encoder of the emoji, trained together. About 25 minutes on two CPU cores."""

    name: ClassVar[str] = "clip"
    ships: ClassVar[str] = "clip"
    codec: ClassVar[Pixels] = Pixels()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "gpu": {"batch": 1024, "lr": 2e-3, "steps": 4_000}}
    looks: ClassVar[int] = 10

    merges: int = 1000
    d: int = 192
    layers: int = 4
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: int = 2
    patch: int = 4
    shift: int = 3  # pixels: training pictures are moved by up to this much
    alike: int = 4  # a batch is groups of this many look-alikes: pictures of one role
    batch: int = 256
    lr: float = 1e-3
    decay: float = 0.995
    weight_decay: float = 0.1
    steps: int = 1_500
    seed: int = 0

    def networks(self) -> dict[str, CLIP]:
        text = TextEncoder(len(captions.tokenizer(self.merges)), self.d, self.layers, length=captions.LENGTH)
        return {"clip": CLIP(text, ImageEncoder(self.widths, self.blocks, self.patch), self.d)}

    def learner(self, net: CLIP) -> Learner[CLIP]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay, weight_decay=self.weight_decay)

    def update(self, learners: dict[str, Learner]) -> Update:
        images, rows = emoji("train")
        by, truth, net = captions.tokenizer(self.merges), captions.facts(rows), learners["clip"].net
        device = next(net.parameters()).device

        def update(which: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            draws = torch.rand(len(which), 5, generator=generator).tolist()
            said = [captions.say(rows[i], u) for i, u in zip(which.tolist(), draws, strict=True)]
            also = captions.describes(torch.stack([one.states for one in said]), truth[which]).to(device)
            x = shifted(self.codec.encode(images[which].to(device)), self.shift, generator)
            text = net.embed_text(captions.read([one.text for one in said], by).to(device))
            yield "clip", contrastive_loss(net.embed_image(x), text, net.scale, also)

        return update

    def data(self) -> Tensor:
        """The pictures' numbers: what is said of them is new in every batch."""
        return torch.arange(len(emoji("train").rows))

    def batches(self, data: Tensor) -> Callable[[torch.Generator], Tensor]:
        roles = [row.role for row in emoji("train").rows]
        code = {role: k for k, role in enumerate(sorted(set(roles)))}
        return lookalikes(torch.tensor([code[role] for role in roles]), self.batch, self.alike)

    @torch.no_grad()
    def quality(self, model: CLIP) -> dict[str, Any]:
        """On val: captions whose picture is found first or among the first five, of val's pictures and of all that are
        held out; attributes read right."""
        images, rows = emoji("val", *(split for split in EMOJI_SPLITS if split.startswith("test")))
        n, by = len(emoji("val").rows), captions.tokenizer(self.merges)
        image, text = embed_images(model, images), embed_texts(model, [row.caption for row in rows[:n]], by)
        found = {
            "top_1": retrieval(image[:n], text, 1),
            "top_5": retrieval(image[:n], text, 5),
            "top_5_of_all": retrieval(image, text, 5),
        }
        for name in ("style", "tone", "gender"):
            found[name] = reads(model, image[:n], rows[:n], name, by).double().mean().item()
        return {name: round(value, 4) for name, value in found.items()} | {
            "n": f"{n} pictures of val, {len(rows)} in all"
        }


@dataclass(frozen=True)
class Judge(Clip):
    """A second, smaller CLIP that measures what others make, and has trained nothing: other weights at the start, other
    captions and shifts. About 15 minutes on two CPU cores."""

    name: ClassVar[str] = "judge"

    d: int = 128
    layers: int = 3
    widths: tuple[int, ...] = (64, 96, 160)
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


def shifted(x: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `by` pixels, up or down and left or right; white comes in. (b, 3, h, w)."""
    b, c, h, w = x.shape
    padded = F.pad(x, (by, by, by, by), value=1.0)
    i, j = torch.randint(2 * by + 1, (2, b), generator=generator).to(x.device)
    rows, columns = (start[:, None] + torch.arange(n, device=x.device) for start, n in ((i, h), (j, w)))
    batch, channel = torch.arange(b, device=x.device), torch.arange(c, device=x.device)
    return padded[batch[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]]
