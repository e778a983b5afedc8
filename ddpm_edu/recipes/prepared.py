"""What a training of the text-to-image model would compute anew at every start: the latents of its pictures, kept.

Only latents are kept, and of q(z | x) only the mean, which is what diffuses (`codec.Latents`). Texts are not: what is
said of a picture is new in every batch (`captions.say`), so the states of its one canonical caption would serve no
training, and with 192 numbers a token they would take more room than the latents.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import checkpoint
from ddpm_edu.codec import Latents
from ddpm_edu.data import ROOT, emoji, manifest

__all__ = ["FOLDER", "latents"]

FOLDER = ROOT / "runs" / "prepared"
AUTOENCODER = "checkpoints/autoencoder.safetensors"


def latents(split: str = "train", folder: Path = FOLDER) -> Tensor:
    """The mean of q(z | x) of the shipped autoencoder, not scaled, of all pictures of a split: (n, 4, 16, 16), float32,
    in the order of `emoji(split)`, each number rounded to float16.

    Read from `folder`/latents_SPLIT.safetensors; encoded and written first where there is no such file, or one of other
    weights or pictures. A file that is damaged raises ValueError, as does an unknown split.
    """
    path, made_from = Path(folder) / f"latents_{split}.safetensors", _made_from()
    if path.exists():
        try:
            kept = checkpoint.load(path)
            if kept["made_from"] == made_from:
                return kept["latents"].float()
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged: delete it, and it is made anew.") from None
    z = _encode(emoji(split).images).half()
    checkpoint.save(path, {"made_from": made_from, "latents": z})
    return z.float()


def _made_from() -> dict[str, str]:
    """The sha256 of all that the latents depend on: the weights, the pictures and their order."""
    listed = manifest()
    if AUTOENCODER not in listed:
        raise ValueError(f"{AUTOENCODER} is not listed in data/MANIFEST.json: ship an autoencoder first.")
    return {name: listed[name]["sha256"] for name in sorted(listed) if name == AUTOENCODER or name.startswith("emoji/")}


def _encode(images: Tensor) -> Tensor:
    """(n, 64, 64, 3) uint8 -> (n, 4, 16, 16), on the CPU; computed on the GPU where there is one."""
    from ddpm_edu import pretrained  # which knows all recipes, those that read this too

    device = "cuda" if torch.cuda.is_available() else "cpu"
    codec = Latents(pretrained.load("autoencoder").to(device), 1.0)
    return torch.cat([codec.encode(part).cpu() for part in tqdm(images.split(100), desc="encoding the pictures")])
