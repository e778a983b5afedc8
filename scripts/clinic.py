"""The three broken trainings of notebook 07's symptom clinic, run to their end and kept.

    python scripts/clinic.py              # some 3 minutes on two CPU cores

Writes data/results/clinic.safetensors: for each case the loss of every step and 24 samples as the sampler gave them.
"""

from __future__ import annotations

import torch
from manifest import head, record

from ddpm_edu import checkpoint
from ddpm_edu.data import DATA, minibatches
from ddpm_edu.recipes.clinic import CASES, SMALL
from ddpm_edu.samplers import ddim
from ddpm_edu.training import train


def main() -> None:
    kept = {}
    for name, make in CASES.items():
        case = make()
        steps = train(case.update, minibatches(case.x_0, SMALL.batch), SMALL.steps, {"denoise": case.learner})
        losses = torch.tensor([step.losses["denoise"] for step in steps])
        x_T = torch.randn(24, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        *_, last = ddim(case.sampled, x_T, case.sampled.process.timesteps(50))
        kept[name] = {"losses": losses, "samples": SMALL.codec.decode(last.x_t)}
        print(f"{name}: loss {losses[:20].mean():.3f} at the start, {losses[-100:].mean():.3f} at the end")
    checkpoint.save(DATA / "results" / "clinic.safetensors", kept)
    record(
        "results/clinic.safetensors",
        what="losses and samples of three broken trainings, for the symptom clinic of notebook 07",
        licence="MIT",
        command="python scripts/clinic.py",
        commit=head(),
    )


if __name__ == "__main__":
    main()
