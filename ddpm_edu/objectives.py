"""What is minimised.

Sums run over the elements of a datum, means over the batch; all values are in nats.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddpm_edu.denoiser import Denoise, Denoiser
from ddpm_edu.process import Gaussian, Process, like, randn_like
from ddpm_edu.samplers import Variance, beta

__all__ = ["decoder_term", "diffusion_errors", "diffusion_loss", "elbo_weight", "prior_term", "transition_term"]


def diffusion_errors(denoise: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, cond: Any = None) -> Tensor:
    """The squared error of what the network predicts, for given t and eps: (b,), the mean over each row.

    x_0, eps: (b, ...), t: (b,) in 1..T. With target `eps` it is the summand of L_simple, DDPM eq. 14.
    """
    a, b = denoise.process.at(t, x_0)
    predicted = denoise.net(a * x_0 + b * eps, t.to(x_0.device), cond)
    return (predicted - denoise.target.of(x_0, eps, a, b)).float().square().flatten(1).mean(1)


def diffusion_loss(
    denoise: Denoiser, x_0: Tensor, cond: Any = None, generator: torch.Generator | None = None
) -> Tensor:
    """One pass of DDPM algorithm 1: t uniform on 1..T, eps ~ N(0, I), the squared error. x_0: (b, ...) -> ()."""
    t = torch.randint(1, denoise.process.T + 1, (len(x_0),), generator=generator)
    return diffusion_errors(denoise, x_0, t, randn_like(x_0, generator), cond).mean()


# The bound: -log p(x_0) <= prior_term + sum_{t=2..T} transition_term + decoder_term (DDPM eq. 5) ----------------------


def prior_term(process: Process, x_0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x_0) || N(0, I)): (b,). Nothing in it is learned; it is small when alpha_bar_T is."""
    q = process.marginal(x_0, process.T)
    return q.kl(Gaussian(torch.zeros_like(x_0), torch.ones_like(q.var))).flatten(1).sum(1)


def transition_term(
    denoise: Denoise,
    x_0: Tensor,
    t: Tensor,
    cond: Any = None,
    sigma2: Variance = beta,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) at one x_t ~ q(x_t | x_0): (b,). t: (b,) in 2..T.

    p has the mean of the posterior at the predicted x_0, and variance sigma2 (DDPM section 3.2).
    """
    process = denoise.process
    t = process.check_t(t, x_0, low=2)
    x_t = process.marginal(x_0, t).sample(generator)
    q, p = process.posterior(x_0, x_t, t), process.posterior(denoise(x_t, t, cond).x_0, x_t, t)
    var = torch.stack([sigma2(process, int(i), int(i) - 1) for i in t])
    return q.kl(Gaussian(p.mean, like(var, x_0))).flatten(1).sum(1)


def decoder_term(
    denoise: Denoise, x_0: Tensor, cond: Any = None, bins: int = 256, generator: torch.Generator | None = None
) -> Tensor:
    """L_0 = -log p(x_0 | x_1) at one x_1 ~ q(x_1 | x_0), the decoder of DDPM eq. 13: (b,).

    x_0: pictures of `bins` levels scaled to [-1, 1]. p is the probability that N(mean, b_1^2) gives each level's bin;
    the first and the last bin reach to infinity.
    """
    process = denoise.process
    x_1 = process.marginal(x_0, 1).sample(generator)
    mean, sigma = denoise(x_1, torch.ones(len(x_0), dtype=torch.long), cond).x_0, float(process.b[1])
    half = 1 / (bins - 1)
    x, mean = x_0.double(), mean.double()
    below = torch.where(x <= -1 + half, -torch.inf, (x - half - mean) / sigma)
    above = torch.where(x >= 1 - half, torch.inf, (x + half - mean) / sigma)
    # The two tails are mirror images; the lower one keeps its digits where both values of the CDF would round to 1.
    flip = (below + above) > 0
    below, above = torch.where(flip, -above, below), torch.where(flip, -below, above)
    probability = torch.special.ndtr(above) - torch.special.ndtr(below)
    return -probability.clamp(min=1e-300).log().flatten(1).sum(1).to(x_0.dtype)


def elbo_weight(process: Process, sigma2: Variance = beta) -> Tensor:
    """The factor of ||eps - eps_theta||^2 in L_{t-1}: beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)), DDPM eq. 12.

    (T + 1,), float64; nan where it is not defined (t = 0 and 1). The simple loss puts 1 in its place.
    """
    t = torch.arange(2, process.T + 1)
    ratio, noise = process.transition(t - 1, t)  # sqrt(alpha_t) and beta_t
    var = torch.stack([sigma2(process, int(i), int(i) - 1) for i in t])
    weight = noise**2 / (2 * var * ratio**2 * process.b[t] ** 2)
    return torch.cat([torch.full((2,), torch.nan, dtype=torch.float64), weight])
