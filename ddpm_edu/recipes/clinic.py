"""The symptom clinic of notebook 07: three trainings of a small digits network, each with a fault of one line.

`scripts/clinic.py` runs them to their end and keeps losses and samples in data/results/clinic.safetensors; the notebook
shows those and repeats the first steps of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_edu.data import digits
from ddpm_edu.denoiser import TARGETS, Denoiser
from ddpm_edu.process import Process, randn_like
from ddpm_edu.recipes.digits import Digits
from ddpm_edu.training import Learner, Update

SMALL = Digits(widths=(32, 64), attend=(), lr=4e-3, decay=0.99, steps=700)
PROCESS = Process.linear()


@dataclass(frozen=True)
class Case:
    """A training: data x_0 (n, 1, 28, 28), what is minimised, and the denoiser that the sampler is given."""

    x_0: Tensor
    learner: Learner[Denoiser]
    update: Update
    sampled: Denoiser


def case_a() -> Case:
    learner = Learner(Denoiser(PROCESS, SMALL.model().net, TARGETS["x_0"]), SMALL.lr, decay=SMALL.decay)
    sampled = Denoiser(PROCESS, learner.ema.net, TARGETS["eps"])  # the fault: the network was trained on x_0
    return Case(SMALL.codec.encode(digits("train")[0]), learner, SMALL.update({"denoise": learner}), sampled)


def case_b() -> Case:
    learner = Learner(Denoiser(PROCESS, SMALL.model().net, TARGETS["eps"]), SMALL.lr, decay=SMALL.decay)

    def update(x_0: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        t = torch.randint(1, PROCESS.T + 1, (len(x_0),), generator=generator)
        x_t = PROCESS.marginal(x_0, t).sample(generator)
        eps = randn_like(x_0, generator)  # the fault: not the noise that is in x_t
        yield "denoise", (learner.net.net(x_t, t) - eps).float().square().mean()

    return Case(SMALL.codec.encode(digits("train")[0]), learner, update, learner.ema)


def case_c() -> Case:
    learner = Learner(Denoiser(PROCESS, SMALL.model().net, TARGETS["v"]), SMALL.lr, decay=SMALL.decay)
    x_0 = digits("train")[0][:, None].float() / 255  # the fault: 0..1, and the codec's pictures are -1..1
    return Case(x_0, learner, SMALL.update({"denoise": learner}), learner.ema)


CASES: dict[str, Callable[[], Case]] = {"A": case_a, "B": case_b, "C": case_c}
