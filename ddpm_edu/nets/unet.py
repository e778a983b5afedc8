"""A UNet for denoising (Ronneberger et al. 2015; DDPM, appendix B): down, through the bottom, and up again, with a
skip from every block on the way down to its twin on the way up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_edu.nets.layers import AttentionBlock, ResBlock, TimeEmbedding, Tokens, group_norm, zero


class Stage(nn.Module):
    """A residual block, self-attention if asked for, attention over the condition if there is one."""

    def __init__(self, c_in: int, c_out: int, d: int, attend: bool, d_cond: int | None) -> None:
        super().__init__()
        self.res = ResBlock(c_in, c_out, d)
        self.self_attention = AttentionBlock(c_out) if attend else None
        self.cross_attention = AttentionBlock(c_out, d_cond) if attend and d_cond else None

    def forward(self, x: Tensor, emb: Tensor, cond: Tokens | None) -> Tensor:
        x = self.res(x, emb)
        if self.self_attention:
            x = self.self_attention(x)
        if self.cross_attention:
            x = self.cross_attention(x, cond)
        return x


class Halve(nn.Conv2d):
    """(b, c_in, h, w) -> (b, c_out, h/2, w/2)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, stride=2, padding=1)

    def forward(self, input: Tensor, emb: Tensor | None = None, cond: Tokens | None = None) -> Tensor:
        return super().forward(input)  # called as a stage is; it needs neither t nor the condition


class Double(nn.Conv2d):
    """(b, c_in, h, w) -> (b, c_out, 2h, 2w): every pixel becomes four, then a convolution smooths."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, input: Tensor, emb: Tensor | None = None, cond: Tokens | None = None) -> Tensor:
        return super().forward(F.interpolate(input, scale_factor=2.0))


class UNet(nn.Module):
    """x_t: (b, channels, h, w), t: (b,), cond: Tokens of width d_cond -> (b, channels, h, w).

    widths: channels at each level; every level halves h and w. blocks: stages a level. attend: levels (0 = full size)
    with attention. d_cond: width of the condition's tokens, None for no condition; it enters at the levels that attend.
    patch: pixels are first folded into channels, patch x patch at a time: fewer, fatter layers, which is where
    processors are fast. h and w must be multiples of patch * 2^(levels - 1).
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (64, 128),
        blocks: int = 2,
        attend: Sequence[int] = (),
        d_cond: int | None = None,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if not set(attend) <= set(range(len(widths))) or (d_cond and not attend):
            raise ValueError(
                f"attend must name levels 0..{len(widths) - 1}, one at least for a condition; got {tuple(attend)}."
            )
        self.d_cond, self.patch = d_cond, patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        d = 2 * widths[0]
        self.time = TimeEmbedding(d)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        levels = list(enumerate(widths))

        def stage(c_in: int, level: int) -> Stage:
            return Stage(c_in, widths[level], d, level in attend, d_cond)

        self.down, now = nn.ModuleList(), widths[0]
        for level, width in levels:
            if level > 0:
                self.down.append(Halve(now, width))
            self.down.extend(stage(width, level) for _ in range(blocks))
            now = width
        self.middle = nn.ModuleList(stage(now, len(widths) - 1) for _ in range(2))
        self.up = nn.ModuleList()
        for level, width in reversed(levels):
            self.up.extend(stage(2 * width, level) for _ in range(blocks))
            if level > 0:
                self.up.append(Double(width, widths[level - 1]))
        now = widths[0]
        self.head = nn.Sequential(group_norm(now), nn.SiLU(), zero(nn.Conv2d(now, channels * patch**2, 3, padding=1)))

    def forward(self, x_t: Tensor, t: Tensor, cond: Tokens | None = None) -> Tensor:
        if x_t.shape[-1] % self.multiple or x_t.shape[-2] % self.multiple:
            raise ValueError(f"Height and width must be multiples of {self.multiple}; got {tuple(x_t.shape[-2:])}.")
        if (cond is None) != (self.d_cond is None):
            raise ValueError(
                f"This UNet needs a condition: Tokens of width {self.d_cond}."
                if self.d_cond
                else "This UNet was built without a condition (d_cond); call it without."
            )
        emb = self.time(t)
        x, skips = self.stem(F.pixel_unshuffle(x_t, self.patch)), []
        for layer in self.down:
            x = layer(x, emb, cond)
            if isinstance(layer, Stage):
                skips.append(x)
        for layer in self.middle:
            x = layer(x, emb, cond)
        for layer in self.up:
            if isinstance(layer, Stage):
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, emb, cond)
        return F.pixel_shuffle(self.head(x), self.patch)
