"""CLIP: a text encoder and an image encoder that learn to agree (Radford et al. 2021).

Both end in one space of d dimensions, where the cosine of a picture and a caption says how well they fit. The text
encoder alone is the first of the three parts of a text-to-image model: its tokens are what the denoiser reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ddpm_edu.nets.layers import ResBlock, Tokens, attention, group_norm
from ddpm_edu.nets.unet import halve
from ddpm_edu.tokenizer import END

__all__ = ["CLIP", "ImageEncoder", "TextEncoder", "until_end"]


def until_end(tokens: Tensor) -> Tensor:
    """Which tokens count: those up to the first END, itself included. (b, n) int64 -> (b, n) bool."""
    ends = (tokens == END).int()
    return ends.cumsum(1) - ends == 0


class TextBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (b, n, d) -> (b, n, d). Each token sees itself and those before
    it (a causal mask), so that the last one, END, is the only one that has read the whole text."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.qkv, self.out = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.norm_2, self.mlp = nn.LayerNorm(d), nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        q, k, v = rearrange(
            self.qkv(self.norm_1(x)), "b n (three head d) -> three b head n d", three=3, head=self.heads
        )
        y, _ = attention(q, k, v, causal)
        x = x + self.out(rearrange(y, "b head n d -> b n (head d)"))
        return x + self.mlp(self.norm_2(x))


class TextEncoder(nn.Module):
    """A transformer. Tokens (b, n), int64, START first, END last and to fill up -> `Tokens` of width d, one for each.

    length: the largest n.
    """

    def __init__(self, vocabulary: int, d: int = 192, layers: int = 4, heads: int = 4, length: int = 40) -> None:
        super().__init__()
        self.d, self.length = d, length
        self.embed, self.place = nn.Embedding(vocabulary, d), nn.Parameter(torch.zeros(length, d))
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.place, std=0.01)
        self.blocks, self.norm = nn.Sequential(*(TextBlock(d, heads) for _ in range(layers))), nn.LayerNorm(d)

    def forward(self, tokens: Tensor) -> Tokens:
        known = torch.compiler.is_compiling()  # compiled, a look at the values would split the program and stop a GPU
        if tokens.ndim != 2 or tokens.shape[1] > self.length or not (known or (tokens == END).any(1).all()):
            raise ValueError(
                f"Texts must be tokens (b, n), n at most {self.length}, each with an END; got {tuple(tokens.shape)}: "
                "let `captions.read` make them."
            )
        x = self.embed(tokens) + self.place[: tokens.shape[1]]
        return Tokens(self.norm(self.blocks(x)), until_end(tokens))


class ImageEncoder(nn.Module):
    """Convolutions: pictures (b, 3, h, w) in [-1, 1] -> (b, widths[-1]).

    Each width is a level of `blocks` residual blocks, half as high and wide as the one before; at first, patch x patch
    pixels are folded into channels.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 192), blocks: int = 2, patch: int = 4) -> None:
        super().__init__()
        self.d, self.patch = widths[-1], patch
        self.levels = nn.ModuleList()
        for c_in, width in zip((None, *widths), widths, strict=False):
            enter = halve(c_in, width) if c_in else nn.Conv2d(3 * patch**2, width, 3, padding=1)
            self.levels.append(nn.Sequential(enter, *(ResBlock(width, width) for _ in range(blocks))))
        self.head = nn.Sequential(group_norm(width), nn.SiLU())

    def features(self, x: Tensor) -> list[Tensor]:
        """What each level sees, fine to coarse: [(b, widths[k], h / (patch 2^k), w / (patch 2^k)), ...]."""
        x, seen = F.pixel_unshuffle(x, self.patch), []
        for level in self.levels:
            x = level(x)
            seen.append(x)
        return seen

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1]).mean((2, 3))


class CLIP(nn.Module):
    """Both encoders, each followed by a linear map into the common space of d dimensions.

    log_scale: the logarithm of 1 / temperature, learned; the cosines times exp(log_scale) are the logits.
    """

    def __init__(self, text: TextEncoder, image: ImageEncoder, d: int = 192) -> None:
        super().__init__()
        self.text, self.image = text, image
        self.text_head, self.image_head = (nn.Linear(tower.d, d, bias=False) for tower in (text, image))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # Radford et al. 2021, section 2.5

    @property
    def scale(self) -> Tensor:
        """1 / temperature, at most 100."""
        return self.log_scale.clamp(max=math.log(100)).exp()

    def embed_text(self, tokens: Tensor) -> Tensor:
        """(b, n) int64 -> (b, d) of length 1, from the token END."""
        states, mask = self.text(tokens)
        last = mask.sum(1) - 1
        return F.normalize(self.text_head(states[torch.arange(len(last), device=last.device), last]).float(), dim=-1)

    def embed_image(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> (b, d) of length 1."""
        return F.normalize(self.image_head(self.image(x)).float(), dim=-1)
