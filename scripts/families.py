"""GAN, VAE, flow and diffusion on one target, with equal numbers of weights and equal time: three seeds each, kept.

    python scripts/families.py                # some 12 minutes on one CPU core
    python scripts/families.py diffusion      # one family anew, the others as they are kept

Writes data/results/families.json and families.safetensors: for every family and seed the modes covered, the sliced
Wasserstein distance, the negative log-likelihood where there is one, and the seconds of processor time that training
and sampling took; beside them what further samples of the target itself score; and 1,000 samples of each model.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from manifest import head, record
from torch import Tensor

from ddpm_edu import checkpoint
from ddpm_edu.data import DATA
from ddpm_edu.recipes.families import FAMILIES, TARGET, Family, score, training

SEEDS, N = (0, 1, 2), 20_000
TABLE, SAMPLES = (DATA / "results" / f"families.{end}" for end in ("json", "safetensors"))
ABOUT = {"licence": "MIT", "command": "python scripts/families.py"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("only", nargs="*", choices=[*FAMILIES, []], help="the families to make anew; all, unless said")
    chosen = parser.parse_args().only or list(FAMILIES)
    torch.set_num_threads(1)  # so that processor time is the time of the work
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("target", *FAMILIES)}
    samples: dict[str, list[Tensor]] = {name: [] for name in FAMILIES}
    if len(chosen) < len(FAMILIES):
        rows |= {
            name: kept for name, kept in json.loads(TABLE.read_text("utf-8"))["rows"].items() if name not in chosen
        }
        samples |= {name: kept for name, kept in checkpoint.load(SAMPLES).items() if name not in chosen}
    else:
        for seed in SEEDS:
            again = TARGET.sample(N, torch.Generator().manual_seed(100 + seed))
            rows["target"].append({"seed": seed, **score(again, TARGET.log_prob)})
    for seed in SEEDS:
        for name in chosen:
            torch.manual_seed(seed)
            family = FAMILIES[name]()
            training_time, early = train_it(family, seed)
            start = time.process_time()
            with torch.no_grad():
                x = family.sample(N, torch.Generator().manual_seed(seed))
            seconds = {"training": training_time, "sampling": time.process_time() - start}
            row = {"seed": seed, **score(x, family.log_prob), **seconds}
            row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            rows[name].append({**row, "early": early})
            samples[name].append(x[:1000].half())
            print(name, rows[name][-1], flush=True)
    results = {
        "samples": N,
        "weights": {name: weights(make()) for name, make in FAMILIES.items()},
        "steps": {name: make().steps for name, make in FAMILIES.items()},
        "rows": rows,
    }
    TABLE.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    checkpoint.save(SAMPLES, samples)
    for end, what in (("json", "scores of"), ("safetensors", "samples of")):
        record(
            f"results/families.{end}",
            what=f"{what} the four families on the eight Gaussians, three seeds",
            commit=head(),
            **ABOUT,
        )


def train_it(family: Family, seed: int) -> tuple[float, dict[str, float]]:
    """The seconds of processor time that it took, and the mean loss of each learner over steps 201 to 300, which the
    notebook repeats."""
    start, early = time.process_time(), []
    for step in training(family, seed):
        if 200 < step.step <= 300:
            early.append(step.losses)
    seconds = time.process_time() - start
    return seconds, {name: round(sum(losses[name] for losses in early) / 100, 4) for name in family.learners}


def weights(family: Family) -> int:
    return sum(p.numel() for learner in family.learners.values() for p in learner.net.parameters())


if __name__ == "__main__":
    main()
