"""From a training run to a shipped checkpoint: the averaged weights in fp16, listed in data/MANIFEST.json.

    python scripts/release.py digits runs/digits/checkpoint.safetensors [--commit HASH]

--commit: the commit the run was started from, if it is not the current one. The recipe measures its quality.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from manifest import head, record

from ddpm_edu import pretrained
from ddpm_edu.data import DATA
from ddpm_edu.recipes import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("run", type=Path)
    parser.add_argument("--commit", default=head())
    parser.add_argument("--command", help="what made it, where that was more than one training with the defaults")
    options = parser.parse_args()
    name = f"checkpoints/{options.name}.safetensors"
    pretrained.write(DATA / name, options.run)
    recipe, denoise = pretrained.read(DATA / name)
    quality = recipe.quality(denoise)
    record(
        name,
        what=f"{sum(p.numel() for p in denoise.parameters()):,} weights, fp16: {recipe.__doc__}",
        licence="MIT",
        command=options.command or f"ddpm-edu train {options.name}",
        commit=options.commit,
        quality=quality,
    )
    print(f"{DATA / name}: {(DATA / name).stat().st_size / 2**20:.2f} MiB, {quality}")


if __name__ == "__main__":
    main()
