"""Codecs: from what a person looks at to what diffuses, and back. Training and sampling never ask which one it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from ddpm_edu.nets.vae import VAE


class Codec(Protocol):
    def encode(self, x: Tensor) -> Tensor:
        """What a person looks at -> x_0, of about unit size."""
        ...

    def decode(self, x_0: Tensor) -> Tensor:
        """The way back."""
        ...


class Identity:
    """For points: they diffuse as they are."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0


class Pixels:
    """Pictures, uint8 0..255, (b, h, w) grey or (b, h, w, 3) colour <-> x_0 in [-1, 1], (b, 1 or 3, h, w), float32."""

    def encode(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] != 3):
            raise ValueError(
                "Pictures must be uint8, (b, h, w) grey or (b, h, w, 3) colour; "
                f"got {x.dtype} of shape {tuple(x.shape)}."
            )
        x = x[..., None] if x.ndim == 3 else x
        return rearrange(x, "b h w c -> b c h w").float() / 127.5 - 1

    def decode(self, x_0: Tensor) -> Tensor:
        if not x_0.isfinite().all():
            raise ValueError("x_0 holds NaN or inf, which no picture has: the sampler or the network diverged.")
        x = rearrange((x_0.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8), "b c h w -> b h w c")
        return x[..., 0] if x.shape[-1] == 1 else x


class Binary:
    """Grey pictures, uint8 (b, h, w), in black and white <-> x, (b, 1, h, w), float32: 1. where the grey level is above
    127, else 0. The way back takes probabilities too, and shows them as grey levels."""

    def encode(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8 or x.ndim != 3:
            raise ValueError(f"Pictures must be uint8, (b, h, w); got {x.dtype} of shape {tuple(x.shape)}.")
        return (x > 127).float()[:, None]

    def decode(self, x_0: Tensor) -> Tensor:
        return Pixels().decode(2 * x_0 - 1)


class Latents:
    """Colour pictures, uint8 (b, h, w, 3) <-> x_0, the autoencoder's latents at about unit variance, (b, c, h', w').

    vae: its z are pictures themselves. scale: what z, the mean of q(z | x), is multiplied by (Rombach et al. 2022,
    appendix G): 1 / the deviation of z over the training pictures.
    """

    def __init__(self, vae: VAE, scale: float) -> None:
        if not scale > 0:
            raise ValueError(f"scale must be above 0: 1 / the deviation of the latents; got {scale}.")
        self.vae, self.scale, self.pixels = vae, scale, Pixels()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        device = next(self.vae.parameters()).device
        parts = self.pixels.encode(x).split(100)  # the layers' maps of a whole split would fill the memory
        return torch.cat([self.vae.encode(part.to(device)).mean for part in parts]) * self.scale

    @torch.no_grad()
    def decode(self, x_0: Tensor) -> Tensor:
        device = next(self.vae.parameters()).device
        return torch.cat([self.pixels.decode(self.vae(part.to(device) / self.scale)) for part in x_0.split(100)])
