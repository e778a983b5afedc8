"""The digits model sampled with and without sigma z, by several samplers in many and in few steps: FID, precision and
recall, for notebook 08.

    python scripts/sampling_digits.py [--seeds 0 1 2]      # some 90 minutes of one CPU core

500 digits for each row and seed, from the same noise x_T in every row, measured in the features of digits_features: FID
against all 10,000 real digits, precision and recall against the 1,000 of the test set. Every row and seed is kept in
runs/sampling_digits as it is done, so a killed run goes on where it stopped, and seeds can be run side by side. Once
all are there, writes data/results/sampling_digits.json and, ten digits a row, data/results/sampling_digits.webp.

The network runs in bfloat16, twice as fast as in float32; one row is made both ways, to show that nothing else changes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from manifest import head, record
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import checkpoint, pretrained, samplers, viz
from ddpm_edu.codec import Pixels
from ddpm_edu.data import DATA, ROOT, digits
from ddpm_edu.denoiser import Denoiser
from ddpm_edu.metrics import fid, precision_recall
from ddpm_edu.process import Process

N, SEEDS, SHOWN, BATCH = 500, (0, 1, 2), 10, 100
RUNS = ROOT / "runs" / "sampling_digits"


class Row(NamedTuple):
    """A sampler and its number of steps."""

    sampler: str
    steps: int
    dtype: torch.dtype = torch.bfloat16

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps}" + (", float32" if self.dtype == torch.float32 else "")


def always(process: Process, t: int, s: int) -> Tensor:
    """beta_t, in the last step too."""
    return process.transition(s, t)[1]


def chain(kind: Callable[..., Iterator[samplers.State]], **options: Any) -> Callable[..., Iterator[samplers.State]]:
    """A sampler with its options, called as sampler(denoise, x_T, timesteps, generator)."""
    return lambda *at, generator: kind(*at, generator=generator, **options)


def alone(kind: Callable[..., Iterator[samplers.State]]) -> Callable[..., Iterator[samplers.State]]:
    """A sampler that draws no noise, called as the others are."""
    return lambda *at, generator: kind(*at)


SAMPLERS = {
    "posterior": chain(samplers.ancestral, sigma2=samplers.posterior),
    "beta": chain(samplers.ancestral, sigma2=samplers.beta),
    "beta, last step too": chain(samplers.ancestral, sigma2=always),
    "none": chain(samplers.ancestral, sigma2=samplers.none),
    "DDIM": chain(samplers.ddim),
    "DDIM, eta 0.5": chain(samplers.ddim, eta=0.5),
    "DPM-Solver++(2M)": alone(samplers.dpmpp_2m),
    "Heun": alone(samplers.heun),
}
# Heun calls the network twice in every step but the last: 25 steps are 49 calls.
ROWS = [
    *(Row(name, steps) for steps in (50, 10, 5) for name in SAMPLERS if name != "Heun"),
    *(Row("Heun", steps) for steps in (25, 5, 3)),
    Row("DDIM", 50, torch.float32),
    *(Row(name, 1000) for name in ("none", "posterior")),
]


@torch.no_grad()
def draw(denoise: Denoiser, row: Row, seed: int) -> Tensor:
    """(N, 1, 28, 28), from a noise that depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    x_T, parts = torch.randn(N, 1, 28, 28, generator=generator), []
    for part in x_T.split(BATCH):
        with torch.autocast("cpu", row.dtype, enabled=row.dtype != torch.float32):
            timesteps = denoise.process.timesteps(row.steps)
            states = SAMPLERS[row.sampler](denoise, part, timesteps, generator=generator)
            *_, last = tqdm(states, f"{row}, seed {seed}", total=row.steps + 1, leave=False)
        parts.append(last.x_t)
    return torch.cat(parts)


def measure(generated: Tensor, everything: Tensor, unseen: Tensor) -> dict[str, float]:
    """From features: (N, d), (10_000, d), (1_000, d)."""
    precision, recall = precision_recall(unseen, generated)
    return {"fid": round(fid(generated, everything), 2), "precision": round(precision, 3), "recall": round(recall, 3)}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    options = parser.parse_args()
    denoise = pretrained.load("digits").to(memory_format=torch.channels_last)
    net, encode = pretrained.load("digits_features"), Pixels().encode
    RUNS.mkdir(parents=True, exist_ok=True)
    for row in tqdm(ROWS, "rows"):
        for seed in options.seeds:
            if not (path := RUNS / f"{row}, seed {seed}.safetensors").exists():
                x_0 = draw(denoise, row, seed)
                images = Pixels().decode(x_0)
                kept = {"features": net.features(encode(images)), "images": images[:SHOWN]}
                checkpoint.save(path, kept)
    missing = [
        name for row in ROWS for seed in SEEDS if not (RUNS / (name := f"{row}, seed {seed}.safetensors")).exists()
    ]
    if missing:
        print(f"{len(missing)} of {len(ROWS) * len(SEEDS)} are still to be made; run the other seeds, then this again.")
        return

    train, test = (encode(digits(split)[0]) for split in ("train", "test"))
    unseen = net.features(test)
    everything = torch.cat([unseen, *map(net.features, train.split(1000))])
    rows, sheet = {}, []
    for row in ROWS:
        kept = [checkpoint.load(RUNS / f"{row}, seed {seed}.safetensors") for seed in SEEDS]
        rows[str(row)] = [measure(one["features"], everything, unseen) for one in kept]
        sheet.append(kept[0]["images"])
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    real = [everything[1000 + order[k * N : (k + 1) * N]] for k in range(len(SEEDS))]
    rows["real digits"] = [measure(one, everything, unseen) for one in real]
    for name, row in rows.items():
        print(f"{name:30s}", "   ".join(f"{key} {[one[key] for one in row]}" for key in row[0]))
    result = {"n": N, "seeds": SEEDS, "reference": len(everything), "rows": rows}
    (DATA / "results" / "sampling_digits.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Image.fromarray(viz.grid(torch.cat(sheet), columns=SHOWN, gap=0)).save(
        DATA / "results" / "sampling_digits.webp", lossless=True, quality=100, method=6
    )
    about = partial(record, licence="MIT", command="python scripts/sampling_digits.py", commit=head())
    about("results/sampling_digits.json", what="FID, precision and recall of the digits model by sampler and steps")
    about(
        "results/sampling_digits.webp",
        what=f"{SHOWN} digits for each row of sampling_digits.json in its order, of seed 0 and one x_T, 28x28 grey",
    )


if __name__ == "__main__":
    main()
