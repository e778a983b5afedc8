"""From a sentence to a picture: a latent diffusion model of the emoji (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ddpm_edu import captions
from ddpm_edu.codec import Latents
from ddpm_edu.data import emoji, lookalikes
from ddpm_edu.denoiser import Denoiser, v
from ddpm_edu.nets.clip import CLIP
from ddpm_edu.nets.layers import Tokens
from ddpm_edu.nets.unet import UNet
from ddpm_edu.objectives import diffusion_errors, diffusion_loss
from ddpm_edu.process import Process, sent
from ddpm_edu.recipes.base import Conditional
from ddpm_edu.recipes.clip import Clip, embed_images, embed_texts, roles
from ddpm_edu.training import Learner, Update, cosine


@dataclass(frozen=True)
class Text2Image(Conditional):
    """A UNet that denoises the autoencoder's latents while it reads CLIP's tokens: with both, which come trained and
    stay as they are, a text-to-image model. About an hour on two CPU cores."""

    name: ClassVar[str] = "text2image"
    ships: ClassVar[str] = "denoise"
    noise_shape: ClassVar[tuple[int, ...]] = (4, 16, 16)
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "gpu": {"batch": 512, "steps": 25_000}}
    looks: ClassVar[int] = 12
    w: ClassVar[float] = 3.0
    between: ClassVar[tuple[float, float]] = (0.2, 0.9)
    examples: ClassVar[Sequence[str]] = (
        "a noto style red heart", "a fluent style panda", "a twemoji style woman astronaut, dark skin tone",
        "a blob style sailboat", "a fluent 3d style pizza", "a noto style man cook, medium skin tone",
        "a twemoji style owl", "a fluent style rose",
    )  # fmt: skip

    T: int = 1000
    widths: tuple[int, ...] = (64, 144, 208)
    blocks: int = 1
    attend: tuple[int, ...] = (1, 2)
    scale: float = 0.854  # of the latents: 1 / their deviation over the training pictures
    ways: int = 32  # in which each picture is said
    drop: float = 0.1  # so many captions are left empty, which is what guidance compares with
    balance: float = 0.5  # 0: a role is drawn as often as it has pictures; 1: all roles equally often
    batch: int = 64
    lr: float = 1e-3
    decay: float = 0.999
    steps: int = 8_000
    seed: int = 0

    @cached_property
    def _clip(self) -> tuple[Clip, CLIP]:
        return _shipped("clip")

    @cached_property
    def codec(self) -> Latents:  # type: ignore[override]
        return Latents(_shipped("autoencoder")[1], self.scale)

    def read(self, texts: Sequence[str]) -> Tokens:
        """What the denoiser reads of texts: the text encoder's tokens (b, n, d). The empty text is the null token."""
        return self._encode(captions.read(texts, captions.tokenizer(self._clip[0].merges)))

    @torch.no_grad()
    def _encode(self, tokens: Tensor) -> Tokens:
        """(b, n) int64, as `captions.read` gives them -> a vector of width d for each."""
        clip = self._clip[1]
        return clip.text(tokens.to(clip.log_scale.device))

    def fit(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        recipe, clip = self._clip
        text = embed_texts(clip, texts, captions.tokenizer(recipe.merges))
        return (embed_images(clip, images.cpu()) * text).sum(1)

    def networks(self) -> dict[str, Denoiser]:
        net = UNet(self.noise_shape[0], self.widths, self.blocks, self.attend, d_cond=self._clip[0].d)
        return {"denoise": Denoiser(Process.cosine(self.T), net, v)}

    def learner(self, net: Denoiser) -> Learner[Denoiser]:
        return Learner(net, self.lr, cosine(self.steps), decay=self.decay)

    def programs(self, learners: dict[str, Learner]) -> list[nn.Module]:
        return [*super().programs(learners), self._clip[1].text]

    def data(self) -> Tensor:
        """The pictures' numbers: what is said of them is drawn in every batch."""
        return torch.arange(len(emoji("train").rows))

    def batches(self, data: Tensor) -> Callable[[torch.Generator], Tensor]:
        return lookalikes(roles(emoji("train").rows), self.batch, 1, self.balance)

    def update(self, learners: dict[str, Learner]) -> Update:
        images, rows = emoji("train")
        denoise = learners["denoise"].net
        self.prepare(denoise)
        latents, by = self.codec.encode(images), captions.tokenizer(self._clip[0].merges)
        said = captions.sayings(rows, self.ways, by, self.seed, latents.device)
        empty = captions.read([""], by, captions.LENGTH).to(latents.device)

        def update(which: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            tokens, _ = said.draw(which, generator)
            silent = sent(torch.rand(len(which), 1, generator=generator), tokens.device) < self.drop
            cond = self._encode(captions.trimmed(torch.where(silent, empty, tokens)))
            yield "denoise", diffusion_loss(denoise, latents[sent(which, latents.device)], cond, generator)

        return update

    @torch.no_grad()
    def quality(self, model: Denoiser) -> dict[str, Any]:
        """The loss on val, with the canonical captions: mean, and deviation over 4 draws of times and noises; of the
        pictures with a skin tone and of the rest."""
        self.prepare(model)
        images, rows = emoji("val")
        x_0, generator = self.codec.encode(images), torch.Generator().manual_seed(0)
        conds = [self.read([row.caption for row in rows[i : i + 100]]) for i in range(0, len(rows), 100)]
        draws = []
        for _ in range(4):
            t = torch.randint(1, self.T + 1, (len(rows),), generator=generator)
            eps = torch.randn(x_0.shape, generator=generator).to(x_0)
            parts = zip(x_0.split(100), t.split(100), eps.split(100), conds, strict=True)
            draws.append(torch.cat([diffusion_errors(model, *part).cpu() for part in parts]))
        errors, toned = torch.stack(draws), torch.tensor([bool(row.tone) for row in rows])
        found = {
            "val_loss": errors.mean(),
            "deviation": errors.mean(1).std(),
            "with_tone": errors[:, toned].mean(),
            "without": errors[:, ~toned].mean(),
        }
        return {name: round(value.item(), 4) for name, value in found.items()} | {
            "n": f"{len(rows)} pictures of val x {len(draws)} draws"
        }

    @torch.no_grad()
    def picture(self, model: Denoiser) -> Tensor:
        """What it makes of sixteen captions of val, one noise each, and below each row the true pictures."""
        images, rows = emoji("val")
        which = torch.linspace(0, len(images) - 1, 16).long()
        noise = torch.randn(16, *self.noise_shape, generator=torch.Generator().manual_seed(0))
        noise = noise.to(next(model.parameters()).device)
        *_, made = self.states(model, noise, texts=[rows[i].caption for i in which.tolist()])
        made, true = self.codec.decode(made).cpu(), images[which]
        return torch.stack([made.view(2, 8, 64, 64, 3), true.view(2, 8, 64, 64, 3)], 1).flatten(0, 2)

    def prepare(self, model: Denoiser) -> None:
        """The other two parts to where the denoiser is; all in the layout that convolutions are fastest in."""
        device = next(model.parameters()).device
        for part in (model, self._clip[1], self.codec.vae):
            part.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _shipped(name: str) -> Any:
    from ddpm_edu import pretrained  # which knows all recipes, this one too

    return pretrained.read(pretrained.shipped(name))
