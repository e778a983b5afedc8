"""A classifier of handwritten digits whose features the metrics of notebook 09 compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ddpm_edu.codec import Pixels
from ddpm_edu.data import digits
from ddpm_edu.nets.features import FeatureNet
from ddpm_edu.recipes.base import Recipe
from ddpm_edu.training import Learner, Update, cosine

SHIFT = 2  # pixels: training pictures are moved by up to this much, up or down and left or right


@dataclass(frozen=True)
class DigitsFeatures(Recipe):
    """A small classifier of handwritten digits: its features are what FID compares. About 2 minutes on two cores."""

    name: ClassVar[str] = "digits_features"
    ships: ClassVar[str] = "net"
    codec: ClassVar[Pixels] = Pixels()

    d: int = 64
    width: int = 32
    batch: int = 128
    lr: float = 2e-3
    decay: float = 0.99
    weight_decay: float = 0.01
    steps: int = 1_500
    seed: int = 0

    def networks(self) -> dict[str, FeatureNet]:
        return {"net": FeatureNet(self.d, self.width)}

    def learner(self, net: FeatureNet) -> Learner[FeatureNet]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay, weight_decay=self.weight_decay)

    def update(self, learners: dict[str, Learner]) -> Update:
        def update(rows: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            pixels, label = rows[:, :-1], rows[:, -1].long()
            x = self.codec.encode(rearrange(pixels, "b (h w) -> b h w", h=28))
            i, j = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
            x = F.pad(x, (SHIFT, SHIFT, SHIFT, SHIFT), value=-1.0)[..., i : i + 28, j : j + 28]
            yield "net", F.cross_entropy(learners["net"].net.logits(x), label)

        return update

    def data(self) -> Tensor:
        """A row a digit, uint8: its 784 pixels and, last, its label."""
        images, labels = digits("train")
        return torch.cat([rearrange(images, "n h w -> n (h w)"), labels[:, None].to(torch.uint8)], 1)

    @torch.no_grad()
    def quality(self, model: FeatureNet) -> dict[str, Any]:
        """On the 1,000 test digits: the share read right, and the cross-entropy in nats."""
        images, labels = digits("test")
        logits = model.logits(self.codec.encode(images))
        return {
            "accuracy": round((logits.argmax(1) == labels).double().mean().item(), 4),
            "test_loss": round(F.cross_entropy(logits, labels).item(), 4),
            "n": f"{len(labels)} digits",
        }
