"""Mode collapse, provoked and cured: GANs on the eight Gaussians whose generator takes larger steps than D can follow.

    python scripts/mode_collapse.py [--seeds 5]      # some 6 minutes on two CPU cores

For each remedy and seed: how many of the eight modes the generator covers, looked at every 250 steps, and at the end
the share of its samples that lie on a mode, and the value V that the two networks play at (mean of the last 100 steps).
Prints a table and writes data/results/mode_collapse.json, for notebook 02.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from manifest import head, record
from torch import Tensor

from ddpm_edu.data import DATA, eight_gaussians
from ddpm_edu.metrics import modes_covered
from ddpm_edu.nets.gan import points_gan
from ddpm_edu.objectives import gan_value, gradient_penalty, non_saturating
from ddpm_edu.training import Learner, train

TARGET = eight_gaussians()
STEPS, BATCH, WIDTH = 1500, 256, 64


@dataclass(frozen=True)
class Game:
    """lr: the generator's rate (D's is 0.001). memory: beta_1 of both optimizers. gamma: R1's. group: PacGAN's m."""

    lr: float = 5e-3
    memory: float = 0.9
    gamma: float = 0.0
    group: int = 1


GAMES = {
    "G five times as fast as D": Game(),
    "and R1, gamma = 0.2": Game(gamma=0.2),
    "and R1, gamma = 2": Game(gamma=2.0),
    "and D sees 2 at once": Game(group=2),
    "and D sees 4 at once": Game(group=4),
    "and D sees 8 at once": Game(group=8),
    "G as fast as D": Game(lr=1e-3),
    "G as fast as D, beta_1 = 0.5": Game(lr=1e-3, memory=0.5),
}


def play(game: Game, seed: int) -> tuple[list[int], float, float]:
    """Modes covered every 250 steps; at the end, the share of samples on modes and V."""
    torch.manual_seed(seed)
    (G, _), (_, D) = points_gan(width=WIDTH), points_gan(d=2 * game.group, width=WIDTH)
    betas = (game.memory, 0.999)
    learners = {"D": Learner(D, 1e-3, betas=betas), "G": Learner(G, game.lr, betas=betas)}

    def seen(x: Tensor) -> Tensor:
        return rearrange(x, "(n m) d -> n (m d)", m=game.group)

    def update(x: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        fake = G(torch.randn(len(x), 2, generator=generator))
        value = gan_value(D(seen(x)), D(seen(fake.detach())))
        values.append(value.item())
        yield "D", (game.gamma / 2 * gradient_penalty(D, seen(x)) if game.gamma else 0.0) - value
        yield "G", non_saturating(D(seen(fake)))

    values: list[float] = []
    z, covered = torch.randn(8000, 2, generator=torch.Generator().manual_seed(1)), []
    for step in train(update, lambda g: TARGET.sample(BATCH, g), STEPS, learners, seed=seed, progress=False):
        if step.step % 250 == 0:
            with torch.no_grad():
                modes = modes_covered(G(z), TARGET)
            covered.append(modes.covered)
    return covered, modes.quality, math.fsum(values[-100:]) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = {}
    for name, game in GAMES.items():
        covered, quality, value = zip(*(play(game, seed) for seed in range(options.seeds)), strict=True)
        rows[name] = asdict(game) | {
            "covered": covered,
            "quality": [round(q, 3) for q in quality],
            "value": [round(v, 3) for v in value],
        }
        ends = [looks[-1] for looks in covered]
        print(f"{name:30s} modes {ends}  quality {rows[name]['quality']}  V {rows[name]['value']}", flush=True)
    out = DATA / "results" / "mode_collapse.json"
    kept = {"target": "eight gaussians", "steps": STEPS, "batch": BATCH, "width": WIDTH, "every": 250, "rows": rows}
    out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    record(
        "results/mode_collapse.json",
        what="modes covered by GANs that collapse, and by the same with a remedy, for notebook 02",
        licence="MIT",
        command="python scripts/mode_collapse.py",
        commit=head(),
    )


if __name__ == "__main__":
    main()
