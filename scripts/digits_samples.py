"""2,000 digits drawn from the diffusion model, kept as pictures for notebook 09: whoever has another feature network
can measure them too.

    python scripts/digits_samples.py      # some 5 minutes on two CPU cores

Writes data/results/digits_samples.webp, a sheet of 50 a row, lossless. The one-pass models are sampled live.
"""

from __future__ import annotations

from manifest import head, record
from PIL import Image

from ddpm_edu import pretrained, viz
from ddpm_edu.data import DATA


def main() -> None:
    recipe, model = pretrained.read(pretrained.shipped("digits"))
    name = "results/digits_samples.webp"
    sheet = viz.grid(pretrained.sample(recipe, model, 2000), columns=50, gap=0)
    Image.fromarray(sheet).save(DATA / name, lossless=True, quality=100, method=6)
    record(
        name,
        what="2,000 digits of the diffusion model (DDIM, 50 steps, seed 0), 28x28 grey, in a sheet of 50 a row",
        licence="MIT",
        command="python scripts/digits_samples.py",
        commit=head(),
    )
    print(f"{DATA / name}: {(DATA / name).stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
