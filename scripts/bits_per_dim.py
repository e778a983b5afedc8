"""The bound on -log p(x_0) of the shipped digits model, in bits per pixel, term by term, beside simple codes.

    python scripts/bits_per_dim.py [--n 1000]      # some 4 minutes on two CPU cores

On n test digits and as many training digits. The 999 transitions are subsampled: t = 2..1000 falls into strata, narrow
where the terms are large, and each digit draws one t in each of them. A stratum's mean times its width is then an
unbiased estimate of its share of the bound, and since digits draw independently of each other, the spread of their
totals over sqrt(n) is the standard error of the whole, subsampling included. Writes data/results/bits_per_dim.json,
for notebook 06.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import pairwise
from typing import Any

import torch
from manifest import head, record
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import data, pretrained
from ddpm_edu.codec import Pixels
from ddpm_edu.data import DATA
from ddpm_edu.denoiser import Denoiser
from ddpm_edu.objectives import decoder_term, prior_term, transition_term
from ddpm_edu.process import Process
from ddpm_edu.samplers import posterior

EDGES = [
    *(2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90, 110, 135, 165, 200),
    *(245, 300, 370, 450, 550, 670, 820, 1001),
]  # stratum k is EDGES[k] <= t < EDGES[k + 1]
PIXELS = 28 * 28


@torch.no_grad()
def transitions(denoise: Denoiser, x_0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """L_{t-1} in nats at one t a stratum and digit, (strata, n), with the posterior's variance and with beta_t.

    Of one q and one mean, KL_beta = r KL_posterior + d / 2 (r - 1 - log r), r the ratio of the two variances: so one
    call of the network serves for both.
    """
    small, large = [], []
    for low, high in tqdm(list(pairwise(EDGES)), "strata"):
        t = torch.randint(low, high, (len(x_0),), generator=generator)
        parts = [
            transition_term(denoise, *part, sigma2=posterior, generator=generator)
            for part in zip(x_0.split(100), t.split(100), strict=True)
        ]
        r = (denoise.process.b[t - 1] / denoise.process.b[t]) ** 2
        small.append(torch.cat(parts).double())
        large.append(r * small[-1] + PIXELS / 2 * (r - 1 - r.log()))
    return torch.stack(small), torch.stack(large)


def informed_decoder(process: Process, level: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """-log p(x_0 | x_1) of a decoder that knows how frequent each grey level is, and no network: (n,) nats.

    Bayes: p(level | x_1) is its share times q(x_1 | level), over their sum. level: (n, pixels) int64; share: (256,).
    """
    value = torch.linspace(-1, 1, 256, dtype=torch.float64)
    x_1 = process.marginal(value[level], 1).sample(generator)
    log_joint = share.log() - (x_1[..., None] - process.a[1] * value) ** 2 / (2 * process.beta[1])
    return -log_joint.log_softmax(-1).gather(-1, level[..., None])[..., 0].sum(1)


def bits(nats: Tensor) -> list[float]:
    """(n,) nats a digit -> their mean in bits per pixel and its standard error."""
    per_pixel = nats.double() / (PIXELS * math.log(2))
    return [round(per_pixel.mean().item(), 5), round(per_pixel.std().item() / len(nats) ** 0.5, 5)]


def terms(denoise: Denoiser, level: Tensor, share: Tensor, seed: int) -> dict[str, Any]:
    """Every term of the bound on these digits. level: (n, 28, 28) uint8."""
    generator = torch.Generator().manual_seed(seed)
    x_0, process = Pixels().encode(level), denoise.process
    small, large = transitions(denoise, x_0, generator)
    width = torch.tensor(EDGES).diff()[:, None]
    with torch.no_grad():
        decoder = torch.cat([decoder_term(denoise, part, generator=generator) for part in x_0.split(100)]).double()
    flat = level.flatten(1).long()
    informed = torch.cat([informed_decoder(process, part, share, generator) for part in flat.split(50)])
    prior = prior_term(process, x_0).double()
    totals = {"posterior": (width * small).sum(0), "beta": (width * large).sum(0)}
    return {
        "prior": bits(prior),
        "transitions": {name: bits(total) for name, total in totals.items()},
        "decoder": {"gaussian": bits(decoder), "informed": bits(informed)},
        "bound": {
            f"{name}, {code} decoder": bits(prior + total + last)
            for name, total in totals.items()
            for code, last in (("gaussian", decoder), ("informed", informed))
        },
        "nats_per_t": {
            name: [[round(row.mean().item(), 5), round(row.std().item() / len(row) ** 0.5, 5)] for row in rows]
            for name, rows in (("posterior", small), ("beta", large))
        },
    }


def simple_codes(train: Tensor, test: Tensor) -> dict[str, list[float]]:
    """Bits per pixel of codes without a network. Frequencies are of the training digits, 0.1 added to each count."""
    train, test = train.flatten(1).long(), test.flatten(1).long()
    counts = torch.zeros(PIXELS, 256, dtype=torch.float64)
    counts.scatter_add_(1, train.T, torch.ones(train.T.shape, dtype=torch.float64))
    shares = {"one histogram for all pixels": counts.sum(0, keepdim=True), "one histogram for each pixel": counts}
    rows = {"every level alike": [8.0, 0.0]}
    for name, count in shares.items():
        nats = -((count + 0.1) / (count + 0.1).sum(1, keepdim=True)).log()
        rows[name] = bits(nats.expand(PIXELS, 256).gather(1, test.T).sum(0))
    size = data.asset("digits/mnist_10k.webp").stat().st_size
    return rows | {"lossless WebP, as shipped": [round(8 * size / (10_000 * PIXELS), 5), 0.0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=1000)
    n = parser.parse_args().n
    denoise = pretrained.load("digits")
    train, test = data.digits("train")[0], data.digits("test")[0]
    share = torch.bincount(train.flatten().long(), minlength=256).double() / train.numel()
    kept = {"n": n, "edges": EDGES, "baselines": simple_codes(train, test)} | {
        name: terms(denoise, level[:n], share, seed)
        for seed, (name, level) in enumerate([("test", test), ("train", train)])
    }
    for name in ("test", "train"):
        for row, (mean, error) in kept[name]["bound"].items():
            print(f"{name:6s}{row:32s}{mean:.4f} +- {error:.4f} bits per pixel")
    for row, (mean, error) in kept["baselines"].items():
        print(f"{'test':6s}{row:32s}{mean:.4f} +- {error:.4f} bits per pixel")
    (DATA / "results" / "bits_per_dim.json").write_text(json.dumps(kept) + "\n", "utf-8")
    record(
        "results/bits_per_dim.json",
        what="the bound of the digits model in bits per pixel, term by term, beside simple codes, for notebook 06",
        licence="MIT",
        command="python scripts/bits_per_dim.py",
        commit=head(),
    )


if __name__ == "__main__":
    main()
