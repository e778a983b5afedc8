"""The autoencoder of latent diffusion (Rombach et al. 2022, section 3.1): a VAE whose z is a small picture.

Diffusion then works on z, which has a twelfth of the picture's numbers, and the decoder draws the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ddpm_edu.nets.layers import ResBlock, group_norm
from ddpm_edu.nets.unet import double, halve
from ddpm_edu.nets.vae import VAE, Normal

__all__ = ["autoencoder"]


class Whole(nn.Sequential):
    """A sequence with a `forward` of its own, which torch.compile makes one program of; of torch's class, before 2.12,
    it would leave the layers apart."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def autoencoder(
    channels: int = 4, widths: Sequence[int] = (64, 128), blocks: Sequence[int] = (1, 2), side: int = 64, patch: int = 2
) -> VAE:
    """Pictures (b, 3, side, side) in [-1, 1] <-> z (b, channels, side / f, side / f), f = patch 2^(levels - 1).

    widths, blocks: channels and residual blocks of each level, finest first; the decoder has one block more at each.
    patch: pixels are first folded into channels, patch x patch at a time, where processors are fast.
    """
    encoder: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(3 * patch**2, widths[0], 3, padding=1)]
    decoder: list[nn.Module] = [nn.Conv2d(channels, widths[-1], 3, padding=1)]
    for level, (width, n) in enumerate(zip(widths, blocks, strict=True)):
        encoder += [halve(widths[level - 1], width)] if level else []
        encoder += [ResBlock(width, width) for _ in range(n)]
    for level, (width, n) in reversed(list(enumerate(zip(widths, blocks, strict=True)))):
        decoder += [ResBlock(width, width) for _ in range(n + 1)]
        decoder += [double(width, widths[level - 1])] if level else []
    encoder += [group_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 2 * channels, 3, padding=1)]
    decoder += [group_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 3 * patch**2, 3, padding=1)]
    small = side // (patch * 2 ** (len(widths) - 1))
    return VAE(Whole(*encoder), Whole(*decoder, nn.PixelShuffle(patch)), Normal(), (channels, small, small))
