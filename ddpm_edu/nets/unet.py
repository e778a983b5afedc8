"""A UNet for denoising (Ronneberger et al. 2015; DDPM, appendix B): down, through the bottom, and up again, with a
skip from every block on the way down to its twin on the way up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

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


def halve(c_in: int, c_out: int) -> nn.Module:
    """(b, c_in, h, w) -> (b, c_out, h/2, w/2)."""
    return nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)


def double(c_in: int, c_out: int) -> nn.Module:
    """(b, c_in, h, w) -> (b, c_out, 2h, 2w): every pixel becomes four, then a convolution smooths."""
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1))


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
        folded = channels * patch**2

        def stages(c_in: int, level: int, n: int) -> nn.ModuleList:
            return nn.ModuleList(Stage(c_in, widths[level], d, level in attend, d_cond) for _ in range(n))

        # Level by level, a way in and the stages there; then the stages and a way out.
        self.enter, self.down, self.up, self.leave = (nn.ModuleList() for _ in range(4))
        for level, width in enumerate(widths):
            self.enter.append(halve(widths[level - 1], width) if level else nn.Conv2d(folded, width, 3, padding=1))
            self.down.append(stages(width, level, blocks))
        self.middle = stages(width, level, 2)
        for level, width in reversed(list(enumerate(widths))):
            self.up.append(stages(2 * width, level, blocks))
            self.leave.append(double(width, widths[level - 1]) if level else nn.Identity())
        self.head = nn.Sequential(group_norm(width), nn.SiLU(), zero(nn.Conv2d(width, folded, 3, padding=1)))

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
        x, skips = F.pixel_unshuffle(x_t, self.patch), []
        for enter, stages in zip(self.enter, self.down, strict=True):
            x = enter(x)
            for stage in stages.children():
                x = stage(x, emb, cond)
                skips.append(x)
        for stage in self.middle:
            x = stage(x, emb, cond)
        for stages, leave in zip(self.up, self.leave, strict=True):
            for stage in stages.children():
                x = stage(torch.cat([x, skips.pop()], dim=1), emb, cond)
            x = leave(x)
        return F.pixel_shuffle(self.head(x), self.patch)


@contextmanager
def watched(net: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the list receives the weights of each cross-attention of a network at each call, in their order: (b,
    heads, h, w, n), at a level of h x w pixels, over n tokens. They are computed once more, for the look alone.

    >>> with watched(denoise.net) as maps:
    ...     denoise(x_t, t, cond)
    """
    maps: list[Tensor] = []

    def look(block: nn.Module, given: tuple[Tensor, Tokens]) -> None:
        with torch.no_grad():
            _, weights = cast(AttentionBlock, block).attend(*given)
        maps.append(weights.unflatten(2, given[0].shape[2:]))

    blocks = [part.cross_attention for part in net.modules() if isinstance(part, Stage)]
    hooks = [block.register_forward_pre_hook(look) for block in blocks if block]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


class ClassUNet(nn.Module):
    """A UNet whose condition is a class.

    x_t: (b, channels, h, w), t: (b,), cond: (b,) or (1,) int64 -> (b, channels, h, w). Classes are 0..classes - 1;
    `null` = classes says nothing. The network owns a vector for each, classes + 1 in all, and attends to it as to a
    text of one token.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        widths: Sequence[int],
        blocks: int,
        attend: Sequence[int],
        d_cond: int,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.null = classes
        self.tokens = nn.Embedding(classes + 1, d_cond)
        self.unet = UNet(channels, widths, blocks, attend, d_cond, patch)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.unet(x_t, t, Tokens(self.tokens(cond)[:, None]))
