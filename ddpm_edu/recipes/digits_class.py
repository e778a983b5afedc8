"""Digits on request: one denoiser that has learned what each class looks like, and what digits look like at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm_edu.codec import Pixels
from ddpm_edu.data import digits
from ddpm_edu.denoiser import Denoiser, v
from ddpm_edu.nets.unet import ClassUNet
from ddpm_edu.objectives import diffusion_loss
from ddpm_edu.process import Process, sent
from ddpm_edu.recipes.base import Conditional
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class DigitsClass(Conditional):
    """A DDPM of handwritten digits that is told which digit to make, or nothing. 14 minutes on two CPU cores."""

    name: ClassVar[str] = "digits_class"
    ships: ClassVar[str] = "denoise"
    codec: ClassVar[Pixels] = Pixels()
    noise_shape: ClassVar[tuple[int, ...]] = (1, 28, 28)
    w: ClassVar[float] = 1.0  # plain sampling: guidance is what notebook 10 is about
    examples: ClassVar[Sequence[str]] = "0123456789"

    T: int = 1000
    widths: tuple[int, ...] = (48, 96)
    blocks: int = 1
    attend: tuple[int, ...] = (1,)
    patch: int = 2
    d_cond: int = 32
    drop: float = 0.1  # so many labels are replaced by the null token
    batch: int = 64
    lr: float = 2e-3
    decay: float = 0.999
    steps: int = 5_000
    seed: int = 0

    def networks(self) -> dict[str, Denoiser]:
        net = ClassUNet(10, 1, self.widths, self.blocks, self.attend, self.d_cond, self.patch)
        return {"denoise": Denoiser(Process.linear(self.T), net, v)}

    def learner(self, net: Denoiser) -> Learner[Denoiser]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay)

    def data(self) -> Tensor:
        """The pictures' numbers: a batch needs the pictures and their labels."""
        return torch.arange(len(digits("train")[0]))

    def read(self, texts: Sequence[str]) -> Tensor:
        """The digits as labels, (b,) int64: "0" to "9", and "" for the null token, 10."""
        wrong = [text for text in texts if text not in {"", *"0123456789"}]
        if wrong:
            raise ValueError(f"This model makes single digits, 0 to 9, and knows no {wrong[0]!r}.")
        return torch.tensor([int(text) if text else 10 for text in texts])

    def update(self, learners: dict[str, Learner]) -> Update:
        images, labels = digits("train")
        denoise = learners["denoise"].net
        device = next(denoise.parameters()).device
        x_0, labels, null = self.codec.encode(images).to(device), labels.to(device), self.read([""]).to(device)

        def update(which: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            which, silent = sent(which, device), sent(torch.rand(len(which), generator=generator), device) < self.drop
            yield "denoise", diffusion_loss(denoise, x_0[which], torch.where(silent, null, labels[which]), generator)

        return update

    @torch.no_grad()
    def quality(self, model: Denoiser) -> dict[str, Any]:
        """The loss on the 1,000 test digits, with their labels and with the null token: mean over 10 draws of times and
        noises, the same for both, and the deviation of each."""
        images, labels = digits("test")
        x_0, found = self.codec.encode(images), {}
        for name, cond in {"test_loss": labels, "without_label": self.read([""])}.items():
            generator = torch.Generator().manual_seed(0)
            losses = torch.stack([diffusion_loss(model, x_0, cond, generator) for _ in range(10)])
            found[name] = round(losses.mean().item(), 4)
            found[f"deviation_{name}"] = round(losses.std().item(), 4)
        return found | {"n": f"{len(x_0)} digits x 10 draws"}
