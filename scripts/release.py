"""From a training run to a shipped checkpoint: the averaged weights in fp16, listed in data/MANIFEST.json.

    python scripts/release.py digits runs/digits/checkpoint.safetensors [--commit HASH]

--commit: the commit the run was started from, if it is not the current one. Quality is the mean loss on held-out data,
over 10 draws of times and noises, with its spread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from manifest import head, record

from ddpm_edu import pretrained
from ddpm_edu.data import DATA, digits
from ddpm_edu.objectives import diffusion_loss
from ddpm_edu.recipes import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("run", type=Path)
    parser.add_argument("--commit", default=head())
    options = parser.parse_args()
    name = f"checkpoints/{options.name}.safetensors"
    pretrained.write(DATA / name, options.run)
    recipe, denoise = pretrained.read(DATA / name)
    x_0 = recipe.codec.encode(digits("test")[0])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = torch.stack([diffusion_loss(denoise, x_0, generator=generator) for _ in range(10)])
    record(
        name,
        what=f"{sum(p.numel() for p in denoise.parameters()):,} weights, fp16: {recipe.__doc__}",
        licence="MIT",
        command=f"ddpm-edu train {options.name}",
        commit=options.commit,
        quality={
            "test_loss": round(losses.mean().item(), 4),
            "spread": round(losses.std().item(), 4),
            "n": f"{len(x_0)} digits of the test set x {len(losses)} draws",
        },
    )
    size = (DATA / name).stat().st_size / 2**20
    print(f"{DATA / name}: {size:.2f} MiB, test loss {losses.mean():.4f} +- {losses.std():.4f}")


if __name__ == "__main__":
    main()
