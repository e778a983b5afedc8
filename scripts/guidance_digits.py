"""Digits on request at several strengths w of guidance: how many are read as asked, FID, precision and recall, for
notebook 10.

    python scripts/guidance_digits.py [--seeds 0 1 2]      # some 10 minutes of one CPU core

500 digits for each w and seed, 50 of each class, by DDIM in 25 steps from the same noise x_T at every w. The classifier
digits_features reads them; in its features FID is taken against all 10,000 real digits, precision and recall against
the 1,000 of the test set. Every w and seed is kept in runs/guidance_digits as it is done, so a killed run goes on where
it stopped, and seeds can be run side by side. Once all are there, writes data/results/guidance_digits.json and, 40
digits a row, data/results/guidance_digits.webp.

The network runs in bfloat16, as in sampling_digits.py. At w = 0 and w = 1 one of guidance's two calls has no weight, so
it is not made.
"""

from __future__ import annotations

import argparse
import json
from functools import partial

import torch
from manifest import head, record
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import checkpoint, pretrained, samplers, viz
from ddpm_edu.codec import Pixels
from ddpm_edu.data import DATA, ROOT, digits
from ddpm_edu.denoiser import Denoiser, guided
from ddpm_edu.metrics import fid, precision_recall

N, SEEDS, STEPS, SHOWN, BATCH = 500, (0, 1, 2), 25, 40, 100
STRENGTHS = (0, 1, 1.5, 2, 3, 5, 8)
RUNS = ROOT / "runs" / "guidance_digits"
LABELS = torch.arange(N) % 10  # in each row of pictures the ten classes in turn


@torch.no_grad()
def draw(denoise: Denoiser, w: float, seed: int) -> Tensor:
    """(N, 1, 28, 28), of the classes LABELS, from a noise that depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    x_T, parts, null = torch.randn(N, 1, 28, 28, generator=generator), [], torch.tensor([10])
    told = denoise if w in (0, 1) else guided(denoise, null, w)
    for part, labels in zip(x_T.split(BATCH), LABELS.split(BATCH), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            states = samplers.ddim(told, part, denoise.process.timesteps(STEPS), labels if w else null)
            *_, last = tqdm(states, f"w = {w}, seed {seed}", total=STEPS + 1, leave=False)
        parts.append(last.x_t)
    return torch.cat(parts)


def measure(
    features: Tensor, read: Tensor, labels: Tensor, everything: Tensor, unseen: Tensor
) -> dict[str, float | int]:
    """From features (N, d), the labels (N,) read and asked for, and the real features (10_000, d), (1_000, d)."""
    precision, recall = precision_recall(unseen, features)
    return {
        "right": int((read == labels).sum()),
        "fid": round(fid(features, everything), 2),
        "precision": round(precision, 3),
        "recall": round(recall, 3),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    options = parser.parse_args()
    denoise = pretrained.load("digits_class").to(memory_format=torch.channels_last)
    net, encode = pretrained.load("digits_features"), Pixels().encode
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in tqdm(options.seeds, "seeds"):
        for w in STRENGTHS:
            if not (path := RUNS / f"w {w}, seed {seed}.safetensors").exists():
                images = Pixels().decode(draw(denoise, w, seed))
                features = net.features(encode(images))
                checkpoint.save(
                    path, {"features": features, "read": net.head(features).argmax(1), "images": images[:SHOWN]}
                )
    made = [(RUNS / f"w {w}, seed {seed}.safetensors").exists() for w in STRENGTHS for seed in SEEDS]
    if not all(made):
        print(f"{made.count(False)} of {len(made)} are still to be made; run the other seeds, then this.")
        return

    (train, labels), (test, _) = digits("train"), digits("test")
    unseen = net.features(encode(test))
    seen = torch.cat([net.features(encode(part)) for part in train.split(1000)])
    everything = torch.cat([unseen, seen])
    rows, sheet = {}, []
    for w in STRENGTHS:
        kept = [checkpoint.load(RUNS / f"w {w}, seed {seed}.safetensors") for seed in SEEDS]
        rows[str(w)] = [measure(one["features"], one["read"], LABELS, everything, unseen) for one in kept]
        sheet.append(kept[0]["images"])
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).split(N)[: len(SEEDS)]
    rows["real digits"] = [
        measure(seen[part], net.head(seen[part]).argmax(1), labels[part], everything, unseen) for part in order
    ]
    for name, row in rows.items():
        print(f"{name:12s}", "   ".join(f"{key} {[one[key] for one in row]}" for key in row[0]))
    result = {"n": N, "steps": STEPS, "seeds": SEEDS, "reference": len(everything), "rows": rows}
    (DATA / "results" / "guidance_digits.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Image.fromarray(viz.grid(torch.cat(sheet), columns=SHOWN, gap=0)).save(
        DATA / "results" / "guidance_digits.webp", lossless=True, quality=100, method=6
    )
    about = partial(record, licence="MIT", command="python scripts/guidance_digits.py", commit=head())
    about(
        "results/guidance_digits.json", what="Digits read as asked, FID, precision and recall by strength of guidance"
    )
    about(
        "results/guidance_digits.webp",
        what=f"{SHOWN} digits, 0 to 9 in turn, for each w of guidance_digits.json in its order, of seed 0, 28x28 grey",
    )


if __name__ == "__main__":
    main()
