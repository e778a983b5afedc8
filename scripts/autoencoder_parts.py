"""What each part of the autoencoder's loss adds: the same short training with each, measured on val and kept.

    python scripts/autoencoder_parts.py       # some 15 minutes on two CPU cores

Stopped, it goes on where it was: the trainings lie in runs/autoencoder_parts, by the eye that they were trained with.
Writes data/results/autoencoder.json, a row for each training and one for the shipped model, and autoencoder.webp, a
sheet of eight pictures of val and what comes back of them, a row for each, in the order of the table. For notebook 12.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from manifest import head, record, weights
from PIL import Image
from torch import Tensor

from ddpm_edu import pretrained, viz
from ddpm_edu.data import DATA, ROOT, emoji, sha256
from ddpm_edu.metrics import bootstrap, paired_kid, psnr
from ddpm_edu.nets.vae import VAE
from ddpm_edu.objectives import perceptual_distance
from ddpm_edu.process import Gaussian
from ddpm_edu.recipes import Autoencoder
from ddpm_edu.recipes.autoencoder import rebuild
from ddpm_edu.recipes.clip import embed_images

STEPS, RESAMPLES = 500, 1000
AS_SHIPPED = Autoencoder(steps=STEPS)
TRAININGS = {
    "error": replace(AS_SHIPPED, kl=0.0, perceptual=0.0, smaller=0.0),
    "error, KL": replace(AS_SHIPPED, perceptual=0.0, smaller=0.0),
    "error, KL, perceptual": replace(AS_SHIPPED, smaller=0.0),
    "all four": AS_SHIPPED,
    "KL times 1,000": replace(AS_SHIPPED, kl=1000 * AS_SHIPPED.kl),
}
SHOWN = (
    ("noto", "fox"), ("noto", "castle"), ("twemoji", "rose"), ("fluent", "panda"),
    ("fluent 3d", "parrot"), ("fluent 3d", "cupcake"), ("blob", "snowman"), ("blob", "bus"),
)  # fmt: skip
ABOUT = {"licence": "MIT", "command": "python scripts/autoencoder_parts.py"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training; fewer to try it")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "autoencoder_parts", help="of the trainings")
    options = parser.parse_args()
    shipped, shipped_model = pretrained.read(pretrained.shipped("autoencoder"))
    folder = options.folder / sha256(pretrained.shipped("clip"))[:8]
    models: dict[str, tuple[Autoencoder, VAE]] = {}
    for k, (name, training) in enumerate(TRAININGS.items(), start=1):
        recipe = replace(training, steps=options.steps)
        print(f"{k} of {len(TRAININGS)}: {name}, {recipe.steps} steps of {recipe.batch} pictures", flush=True)
        learners, start = recipe.learners(), time.monotonic()
        for _ in recipe.train(learners, folder / f"{name.replace(' ', '_').replace(',', '')}.safetensors"):
            pass
        print(f"   {time.monotonic() - start:.0f} s", flush=True)
        models[name] = recipe, learners[recipe.ships].ema
    models["shipped"] = shipped, shipped_model

    images, about = emoji("val")
    place = {(row.style, row.base): i for i, row in enumerate(about)}
    shown = [place[one] for one in SHOWN]
    rows, sheet = {}, [images[shown]]
    for name, (recipe, model) in models.items():
        rows[name], back = measure(model, images)
        told = {key: getattr(recipe, key) for key in ("kl", "perceptual", "smaller", "batch", "steps")}
        rows[name] = told | rows[name]
        sheet.append(back[shown])
        print(f"{name:24s}", rows[name], flush=True)
    of = weights("autoencoder", "clip", "judge")
    results = {"pictures": len(images), "resamples": RESAMPLES, "shown": SHOWN, "weights": of, "rows": rows}
    (DATA / "results" / "autoencoder.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    picture = Image.fromarray(viz.grid(torch.cat(sheet), columns=len(SHOWN), gap=0))
    picture.save(DATA / "results" / "autoencoder.webp", lossless=True, quality=100, method=6)
    what = "autoencoders trained for a short time with parts of the loss, and the shipped one: "
    for end, kept in (("json", "measured on val"), ("webp", "eight pictures of val and what comes back")):
        record(f"results/autoencoder.{end}", what=what + kept, commit=head(), **ABOUT)


@torch.no_grad()
def measure(model: VAE, images: Tensor) -> tuple[dict[str, Any], Tensor]:
    """A row of the table, and what comes back of the pictures, uint8. Intervals are 95 %, over draws of pictures."""
    eye, judge = pretrained.load("clip").image, pretrained.load("judge")
    x = Autoencoder.codec.encode(images)
    z, y = rebuild(model, x)
    q = [model.encode(part) for part in x.split(100)]
    nats = torch.cat([one.kl(Gaussian(torch.zeros_like(one.mean), torch.ones_like(one.var))) for one in q])
    parts = zip(x.split(100), y.split(100), strict=True)
    seen = torch.cat([perceptual_distance(eye.features, *both) for both in parts])
    back = Autoencoder.codec.decode(y)
    error = (x - y).square().flatten(1).mean(1)
    most, least = (10 * math.log10(4 / end) for end in bootstrap(error, RESAMPLES, generator=seeded()))
    judged = [
        embed_images(judge, pictures).double() * judge.image_head.out_features**0.5 for pictures in (images, back)
    ]
    row = {
        "psnr": round(psnr(x, y), 3),
        "psnr_interval": [round(least, 3), round(most, 3)],
        "perceptual_distance": round(seen.mean().item(), 4),
        "deviation": round(z.std().item(), 4),
        "nats": round(nats.mean().item(), 4),  # an element
        "finest": round(finest(z), 4),
        "kid": round(paired_kid(*judged), 6),
        "kid_interval": kid_interval(*judged),
    }
    return row, back


def finest(z: Tensor) -> float:
    """The share of the variance of latents, about each channel's mean, that means of 2 x 2 places do not hold."""
    centred = z - z.mean((0, 2, 3), keepdim=True)
    kept = F.interpolate(F.avg_pool2d(centred, 2), scale_factor=2)
    return ((centred - kept).square().sum() / centred.square().sum()).item()


def kid_interval(x: Tensor, y: Tensor) -> list[float]:
    """Where `paired_kid` lies, in the middle 95 % of RESAMPLES draws of pictures: one that is drawn twice counts twice,
    but never as a pair with itself. x, y: (n, d)."""
    n, d = x.shape
    xx, yy, xy = ((1 + one @ other.mT / d) ** 3 for one, other in ((x, x), (y, y), (x, y)))
    pairs = (xx + yy - xy - xy.mT).fill_diagonal_(0)
    drawn = torch.randint(n, (RESAMPLES, n), generator=seeded())
    w = torch.zeros(RESAMPLES, n).scatter_add_(1, drawn, torch.ones(RESAMPLES, n)).double()  # how often each is drawn
    values = ((w @ pairs) * w).sum(1) / (w.sum(1) ** 2 - w.square().sum(1))
    return [round(end, 6) for end in values.quantile(torch.tensor([0.025, 0.975]).double()).tolist()]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    main()
