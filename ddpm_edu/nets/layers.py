"""The parts that denoising networks are made of.

Shapes: feature maps are (b, c, h, w); sequences (b, n, d); the embedding of t is (b, d).
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Tokens(NamedTuple):
    """A condition: tokens (b, n, d) and mask (b, n), True where a token counts; mask None = all count. b = 1 serves a
    whole batch. A class label is n = 1."""

    tokens: Tensor
    mask: Tensor | None = None


class TimeEmbedding(nn.Module):
    """t (b,) -> (b, d): sines and cosines of t at wavelengths from 2 pi towards 2 pi 10,000 (Vaswani et al. 2017,
    section 3.5), then a two-layer network. d is even."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.d = d
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))

    def forward(self, t: Tensor) -> Tensor:
        half = torch.arange(self.d // 2, device=t.device)
        angle = t[:, None] * torch.exp(-2 * math.log(10_000) / self.d * half)  # float32, whatever the weights are
        waves = torch.cat([angle.sin(), angle.cos()], -1)
        return self.mlp(waves.to(next(self.parameters(), waves).dtype))


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018) that stays in the dtype of its input. Autocast would run it in float32, with
    a copy of every feature map there and back; the kernel accumulates in float32 anyway."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def group_norm(channels: int) -> GroupNorm:
    """Groups of 16 channels, or of the greatest common divisor of 16 and the number of channels."""
    return GroupNorm(channels // math.gcd(channels, 16), channels)


def zero(layer: nn.Module) -> nn.Module:
    """The layer with its weights at zero, so that the block around it starts as the identity."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class ResBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), the second norm scaled and shifted by the embedding of t.

    x: (b, c_in, h, w), emb: (b, d) -> (b, c_out, h, w). d = None: a block that knows no t.
    """

    def __init__(self, c_in: int, c_out: int, d: int | None = None) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(d, 2 * c_out) if d else None
        self.norm_2, self.conv_2 = group_norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.norm_2(self.conv_1(F.silu(self.norm_1(x))))
        if self.emb:
            scale, shift = self.emb(F.silu(cast(Tensor, emb)))[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.skip(x) + self.conv_2(F.silu(h))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d)) v and its weights (Vaswani et al. 2017, eq. 1).

    q: (..., n, d), k, v: (..., m, d), mask: broadcastable to (..., n, m), True where a key counts (one at least)
    -> (..., n, d), (..., n, m). Written out, it gives the weights, and in bf16 on a CPU its
    backward is twice to five times faster than the fused one.
    """
    logits = q @ k.mT / math.sqrt(q.shape[-1])  # (..., n, m)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    weights = logits.softmax(-1)
    return weights.to(v.dtype) @ v, weights


class AttentionBlock(nn.Module):
    """x + attention(x), over the pixels of x itself or, with d_cond, over the tokens of the condition.

    x: (b, c, h, w), cond: Tokens of width d_cond, or None for self-attention -> (b, c, h, w).
    """

    def __init__(self, channels: int, d_cond: int | None = None, heads: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} heads must divide the {channels} channels between them.")
        self.heads = heads
        self.norm = group_norm(channels)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(d_cond or channels, 2 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, cond: Tokens | None = None) -> Tensor:
        y, _ = self.attend(x, cond)
        y = self.out(rearrange(y, "b head n d -> b n (head d)"))
        return x + rearrange(y, "b (h w) c -> b c h w", h=x.shape[2])

    def attend(self, x: Tensor, cond: Tokens | None = None) -> tuple[Tensor, Tensor]:
        """What each head reads at each pixel, (b, heads, h w, c / heads), and its weights, (b, heads, h w, m): how much
        of it comes from each of m tokens."""
        pixels = rearrange(self.norm(x), "b c h w -> b (h w) c")
        context, mask = Tokens(pixels) if cond is None else cond  # (b, m, d_cond)
        q, (k, v) = self.q(pixels), self.kv(context).chunk(2, dim=-1)  # (b, n, c); (b, m, c) each
        q, k, v = (rearrange(y, "b n (head d) -> b head n d", head=self.heads) for y in (q, k, v))
        if mask is not None:
            mask = rearrange(mask, "b m -> b 1 1 m")  # the same for every head and every pixel
        return attention(q, k, v, mask)
