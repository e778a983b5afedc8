"""The picture at the head of the README: a digit drowning in noise, and a new one coming out of it.

python scripts/readme_picture.py      # writes docs/there_and_back.png
"""

from __future__ import annotations

import torch

from ddpm_edu import pretrained, viz
from ddpm_edu.codec import Pixels
from ddpm_edu.data import ROOT, digits
from ddpm_edu.samplers import ddim

TIMES = [0, 60, 120, 200, 300, 420, 600, 1000]


def main() -> None:
    denoise = pretrained.load("digits")
    process, generator = denoise.process, torch.Generator().manual_seed(15)
    x_0 = Pixels().encode(digits("test")[0][[2, 12, 18, 5]])
    eps = torch.randn(x_0.shape, generator=generator)
    there = {t: process.a[t].float() * x_0 + process.b[t].float() * eps for t in TIMES}
    x_T = torch.randn(4, 1, 28, 28, generator=generator)
    back = {state.t: state.x_t for state in ddim(denoise, x_T, process.timesteps(50))}  # every 20: all of TIMES

    fig, axes = viz.figure(11, 3.9, columns=len(TIMES), nrows=2)
    fig.subplots_adjust(0.01, 0.03, 0.99, 0.87, wspace=0.06, hspace=0.42)
    for row, (chain, order, what) in enumerate(
        [
            (there, TIMES, "q: data to noise, known exactly"),
            (back, TIMES[::-1], "p: noise to data, learned. Nobody wrote these digits"),
        ]
    ):
        for ax, t in zip(axes[row], order, strict=True):
            ax.imshow(viz.grid(chain[t], columns=2), cmap="gray", vmin=0, vmax=255)
            ax.set_axis_off()
            ax.set_title(f"t = {t}", fontsize=11, pad=4)
        fig.text(0.01, 0.955 - 0.49 * row, what, fontsize=13, color=viz.NOISE if row == 0 else viz.MODEL)
    out = ROOT / "docs" / "there_and_back.png"
    out.parent.mkdir(exist_ok=True)
    fig.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
