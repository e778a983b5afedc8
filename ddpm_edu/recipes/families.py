"""The four families on one target, the eight Gaussians: about 35,000 weights each, and as many steps as take the same
time. Learning rates and activations are the best of two or three tried on one seed. For the comparison of notebooks 04
and 08; `scripts/families.py` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_edu.data import eight_gaussians, minibatches
from ddpm_edu.denoiser import TARGETS, Denoiser
from ddpm_edu.metrics import modes_covered, sliced_wasserstein
from ddpm_edu.nets.gan import points_gan
from ddpm_edu.nets.mlp import MLP
from ddpm_edu.nets.realnvp import RealNVP
from ddpm_edu.nets.vae import points_vae
from ddpm_edu.objectives import (
    diffusion_bound,
    diffusion_loss,
    flow_loss,
    gan_value,
    gradient_penalty,
    importance_bound,
    non_saturating,
    vae_loss,
)
from ddpm_edu.process import Process
from ddpm_edu.samplers import ddim
from ddpm_edu.training import Learner, Step, Update, cosine, train

TARGET = eight_gaussians()
BATCH, GAMMA = 256, 0.2
Losses = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Family:
    """One model on its way: what `training.train` takes, and what the trained model can do.

    sample(n, generator) -> (n, 2). log_prob(x (b, 2)) -> (b,), in nats: the exact density, a bound of it
    (`bound`), or None where the family has neither. passes: evaluations of a network that one sample costs.
    """

    learners: dict[str, Learner]
    update: Update
    steps: int
    sample: Callable[[int, torch.Generator], Tensor]
    log_prob: Callable[[Tensor], Tensor] | None = None
    bound: bool = False
    passes: int = 1


def gan(steps: int = 5000) -> Family:
    """Non-saturating, with R1."""
    nets = points_gan(width=92, hidden=3, act=nn.ReLU)
    G, D = (Learner(net, 1e-3, cosine(steps), betas=(0.5, 0.99)) for net in nets)

    def noise(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    def update(x: Tensor, generator: torch.Generator) -> Losses:
        fake = G.net(noise(len(x), generator))
        yield "D", -gan_value(D.net(x), D.net(fake.detach())) + GAMMA / 2 * gradient_penalty(D.net, x)
        yield "G", non_saturating(D.net(fake))

    return Family({"G": G, "D": D}, update, steps, lambda n, generator: G.ema(noise(n, generator)))


def vae(steps: int = 12000) -> Family:
    """Two latent numbers; the deviation of its Gaussian likelihood is learned."""
    learner = Learner(points_vae(sigma=0.5, learned=True, act=nn.ReLU), 4e-3, cosine(steps))

    def update(x: Tensor, generator: torch.Generator) -> Losses:
        yield "VAE", vae_loss(learner.net, x, generator=generator)

    def log_prob(x: Tensor) -> Tensor:
        return importance_bound(learner.ema, x, 1000, torch.Generator().manual_seed(0))

    return Family({"VAE": learner}, update, steps, learner.ema.sample, log_prob, bound=True)


def flow(steps: int = 6000) -> Family:
    """RealNVP: eight coupling layers."""
    learner = Learner(RealNVP(), 5e-3, cosine(steps))

    def update(x: Tensor, generator: torch.Generator) -> Losses:
        yield "flow", flow_loss(learner.net, x)

    return Family({"flow": learner}, update, steps, learner.ema.sample, learner.ema.log_prob, passes=8)


def diffusion(steps: int = 10000) -> Family:
    """DDPM on v with the linear schedule, sampled by DDIM in 50 steps."""
    learner = Learner(Denoiser(Process.linear(), MLP(width=64), TARGETS["v"]), 5e-3, cosine(steps))

    def update(x: Tensor, generator: torch.Generator) -> Losses:
        yield "diffusion", diffusion_loss(learner.net, x, generator=generator)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        denoise = learner.ema
        *_, last = ddim(denoise, torch.randn(n, 2, generator=generator), denoise.process.timesteps(50))
        return last.x_t

    def log_prob(x: Tensor) -> Tensor:
        return diffusion_bound(learner.ema, x, torch.Generator().manual_seed(0))

    return Family({"diffusion": learner}, update, steps, sample, log_prob, bound=True, passes=50)


FAMILIES: dict[str, Callable[..., Family]] = {"GAN": gan, "VAE": vae, "flow": flow, "diffusion": diffusion}


def training(family: Family, seed: int = 0, progress: bool = False) -> Generator[Step, None, None]:
    """Trains it on 50,000 points of the target."""
    x = TARGET.sample(50_000, torch.Generator().manual_seed(seed))
    return train(family.update, minibatches(x, BATCH), family.steps, family.learners, seed=seed, progress=progress)


@torch.no_grad()
def score(x: Tensor, log_prob: Callable[[Tensor], Tensor] | None) -> dict[str, Any]:
    """What samples x, (n, 2), score against n test points of the target, always the same; and what a density, where
    there is one, says of the first 4,000 of these: `nll`, in nats, with its standard error `nll_error`.

    The distance wants many samples: with 4,000, two draws of the target itself are 0.07 apart, since their shares of
    the eight modes differ by chance.
    """
    test = TARGET.sample(len(x), torch.Generator().manual_seed(2**20))
    covered, quality = modes_covered(x, TARGET)
    distance = sliced_wasserstein(x, test, generator=torch.Generator().manual_seed(0))
    found = {"covered": covered, "quality": quality, "distance": distance}
    if log_prob is not None:
        nll = -log_prob(test[:4000])
        found |= {"nll": nll.mean().item(), "nll_error": nll.std().item() / len(nll) ** 0.5}
    return found
