"""What is minimised, by each family of models.

Sums run over the elements of a datum, means over the batch; all values are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu.denoiser import Denoise, Denoiser
from ddpm_edu.nets.realnvp import RealNVP
from ddpm_edu.nets.vae import VAE
from ddpm_edu.process import Gaussian, Process, like, randn_like, sent
from ddpm_edu.samplers import Variance, beta

__all__ = [
    "autoencoder_losses", "contrastive_loss", "decoder_term", "diffusion_bound", "diffusion_errors", "diffusion_loss",
    "elbo", "elbo_weight", "flow_loss", "gan_value", "gradient_penalty", "importance_bound", "non_saturating",
    "perceptual_distance", "prior_term", "saturating", "transition_term", "vae_loss",
]  # fmt: skip


# GAN ------------------------------------------------------------------------------------------------------------------


def gan_value(real: Tensor, fake: Tensor) -> Tensor:
    """V(G, D) = E_data[log D] + E_G[log(1 - D)] (Goodfellow et al. 2014, eq. 1): (). The discriminator's loss is -V.

    real, fake: logits of D on data and on samples of G, (b,) each. log sigmoid(f) is taken from the logit: the
    logarithm of a rounded sigmoid would be -inf.
    """
    return F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()


def saturating(fake: Tensor) -> Tensor:
    """E_G[log(1 - D)], what the minimax game asks G to minimise: (). fake: logits of D on samples of G, (b,)."""
    return F.logsigmoid(-fake).mean()


def non_saturating(fake: Tensor) -> Tensor:
    """-E_G[log D] (Goodfellow et al. 2014, section 3): (). Its gradient does not vanish where D is sure."""
    return -F.logsigmoid(fake).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018): E ||grad_x logit||^2 on data x, (b, ...) -> (), added to D's loss with a factor
    gamma / 2. It keeps D smooth around the data, so that its gradient goes on leading G there."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).float().sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


# VAE ------------------------------------------------------------------------------------------------------------------


def elbo(vae: VAE, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The two terms of ELBO = E_q[log p(x | z)] - KL(q(z | x) || N(0, I)): (b,) each, the first at one z ~ q(z | x).

    Kingma and Welling 2014, eq. 3. x: (b, ...).
    """
    q = vae.encode(x)
    prior = Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    return vae.likelihood.log_prob(x, vae.decode(q.sample(generator))), q.kl(prior).sum(1)


def vae_loss(vae: VAE, x: Tensor, beta: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """-(reconstruction - beta KL), the mean over the batch: (). beta = 1 is the bound; another is Higgins et al. 2017,
    eq. 4."""
    reconstruction, kl = elbo(vae, x, generator)
    return (beta * kl - reconstruction).mean()


def importance_bound(vae: VAE, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """log 1/k sum_i p(x, z_i) / q(z_i | x) at k draws z_i ~ q(z | x): (b,), a lower bound of log p(x) in expectation,
    tighter with k (Burda et al. 2016, eq. 8). x: (b, ...)."""
    if k < 1:
        raise ValueError(f"k, the number of draws, must be 1 or more; got {k}.")
    q = vae.encode(x)
    prior = Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    weights = []
    for _ in range(k):
        z = q.sample(generator)
        weights.append(vae.likelihood.log_prob(x, vae.decode(z)) + (prior.log_prob(z) - q.log_prob(z)).sum(1))
    return torch.stack(weights).logsumexp(0) - math.log(k)


# Flow -----------------------------------------------------------------------------------------------------------------


def flow_loss(flow: RealNVP, x: Tensor) -> Tensor:
    """-E[log p(x)], exact: (). x: (b, d)."""
    return -flow.log_prob(x).mean()


# Diffusion ------------------------------------------------------------------------------------------------------------


def diffusion_errors(denoise: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, cond: Any = None) -> Tensor:
    """The squared error of what the network predicts, for given t and eps: (b,), the mean over each row.

    x_0, eps: (b, ...), t: (b,) in 1..T. With target `eps` it is the summand of L_simple, DDPM eq. 14.
    """
    a, b = denoise.process.at(t, x_0)
    predicted = denoise.net(a * x_0 + b * eps, sent(t, x_0.device), cond)
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
    return q.kl(Gaussian(p.mean, like(sigma2(process, t, t - 1), x_0))).flatten(1).sum(1)


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


def diffusion_bound(denoise: Denoise, x_0: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """At most log p(x_0) on average, in nats: (b,). Every term of the bound (DDPM eq. 5), each at one draw of x_t.

    x_0: (b, d), points, not pixels: the decoder is the density N(mean, beta_1 I). sigma_t^2 = beta_t, which suits data
    that are spread over much more than the last steps' noise.
    """
    process, one = denoise.process, torch.ones(len(x_0), dtype=torch.long)
    x_1 = process.marginal(x_0, one).sample(generator)
    decoder = Gaussian(denoise(x_1, one).x_0, process.beta[1].to(x_0)).log_prob(x_0).flatten(1).sum(1)
    between = (transition_term(denoise, x_0, t * one, generator=generator) for t in range(2, process.T + 1))
    return decoder - sum(between) - prior_term(process, x_0)


def elbo_weight(process: Process, sigma2: Variance = beta) -> Tensor:
    """The factor of ||eps - eps_theta||^2 in L_{t-1}: beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)), DDPM eq. 12.

    (T + 1,), float64; nan where it is not defined (t = 0 and 1). The simple loss puts 1 in its place.
    """
    t = torch.arange(2, process.T + 1)
    ratio, noise = process.transition(t - 1, t)  # sqrt(alpha_t) and beta_t
    weight = noise**2 / (2 * sigma2(process, t, t - 1) * ratio**2 * process.b[t] ** 2)
    return torch.cat([torch.full((2,), torch.nan, dtype=torch.float64), weight])


# CLIP -----------------------------------------------------------------------------------------------------------------


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor | float, also: Tensor | None = None) -> Tensor:
    """Which caption belongs to which picture? The mean of two cross-entropies, over the captions for each picture and
    over the pictures for each caption (Radford et al. 2021, figure 3): ().

    image: (b, d), text: (b + m, d), both of length 1, row i of one belonging to row i of the other. Where there are m
    more texts, they belong to no picture: captions made wrong, that a picture must not choose (Yuksekgonul et al.
    2023, section 4). scale: 1 / temperature.
    also: (b + m, b) bool, [i, j] where caption i is true of picture j too: that pair is left out, for it is no
    negative.
    """
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1] or len(text) < len(image):
        raise ValueError(
            f"image and text must be (b, d) alike, or text have more rows; got {tuple(image.shape)} and "
            f"{tuple(text.shape)}."
        )
    logits, own = scale * text @ image.T, torch.arange(len(image), device=text.device)  # (captions, pictures)
    if also is not None:
        logits = logits.masked_fill(also & ~torch.eye(*also.shape, dtype=torch.bool, device=also.device), float("-inf"))
    return (F.cross_entropy(logits[: len(own)], own) + F.cross_entropy(logits.T, own)) / 2


# Autoencoder ----------------------------------------------------------------------------------------------------------


def perceptual_distance(features: Callable[[Tensor], list[Tensor]], x: Tensor, y: Tensor) -> Tensor:
    """How differently a network sees two pictures (Zhang et al. 2018, eq. 1, with all weights 1): (b,).

    features: pictures -> maps (b, c, h, w) of some layers. At every place the c numbers are scaled to length 1; the
    squared distance of the two is averaged over places and summed over layers.
    """
    pairs = zip(features(x), features(y), strict=True)
    return torch.stack(
        [(F.normalize(f, dim=1) - F.normalize(g, dim=1)).float().square().sum(1).mean((1, 2)) for f, g in pairs]
    ).sum(0)


class AutoencoderLoss(NamedTuple):
    """The parts, each (): mean squared error of a channel of a pixel, KL in nats an element of z, perceptual, and the
    mean squared error of what smaller latents decode to."""

    pixels: Tensor
    kl: Tensor
    perceptual: Tensor
    smaller: Tensor


def autoencoder_losses(
    vae: VAE, x: Tensor, features: Callable[[Tensor], list[Tensor]], generator: torch.Generator | None = None
) -> AutoencoderLoss:
    """What latent diffusion's autoencoder is trained on, for the caller to weigh (Rombach et al. 2022, section 3.1; the
    last part: Skorokhodov et al. 2025). x: (b, 3, h, w) in [-1, 1]; the sides of z must be divisible by 4.

    smaller: z at a half and at a quarter of its size should decode to x at that size. Without it an autoencoder writes
    a picture's form into the finest detail of z, where noise destroys it first.
    """
    q = vae.encode(x)
    z = q.sample(generator)
    y = vae.decode(z)
    kl = q.kl(Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.var)))
    # The decoder itself, which like every net of convolutions takes any size; `decode` wants that of the model.
    small = [(F.avg_pool2d(x, f) - vae.decoder(F.avg_pool2d(z, f))).square().mean() for f in (2, 4)]
    return AutoencoderLoss((x - y).square().mean(), kl.mean(), perceptual_distance(features, x, y).mean(), sum(small))
