"""Samplers: from noise x_T to data x_0, as generators of states.

Every sampler is called as `sampler(denoise, x_T, timesteps, cond=None)` and yields n + 1 states for n steps: first x_T
with its prediction, last t = 0, where x_0 = x_t (`langevin` alone stays at one t). What it yields is what the sliders
show; the picture is in the last:

>>> from ddpm_edu.denoiser import ExactDenoiser
>>> from ddpm_edu.process import Process
>>> denoise = ExactDenoiser(Process.cosine(), weights=[1.0], means=[[3.0]], covs=0.0)
>>> *_, last = ddim(denoise, torch.randn(5, 1), denoise.process.timesteps(10))
>>> last.x_t.flatten()
tensor([3., 3., 3., 3., 3.])

They read a and b off the denoiser's process and know neither networks nor pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_edu.denoiser import Denoise
from ddpm_edu.process import Process, randn_like

__all__ = ["State", "ancestral", "beta", "ddim", "dpmpp_2m", "heun", "langevin", "none", "posterior"]


class State(NamedTuple):
    """One moment of a chain: time t, the noisy x_t, and x_0, what the denoiser takes it for. Both (b, ...)."""

    t: int
    x_t: Tensor
    x_0: Tensor


# sigma_t^2, the variance of the noise that ancestral sampling adds on its way from t to s -----------------------------

# sigma2(process, t, s), t and s two ints or two integer tensors (b,)
Variance = Callable[[Process, Any, Any], Tensor]


def posterior(process: Process, t: Any, s: Any) -> Tensor:
    """That of q(x_s | x_t, x_0), DDPM eq. 7: exact when the data is one point. 0 at s = 0."""
    return beta(process, t, s) * process.b[s] ** 2 / process.b[t] ** 2


def beta(process: Process, t: Any, s: Any) -> Tensor:
    """beta_t (for a stride, the variance of q(x_t | x_s)): exact when the data is N(0, I). 0 at s = 0: the last step
    adds no noise (DDPM, algorithm 2, line 3)."""
    return process.transition(s, t)[1] * (s > 0)


def none(process: Process, t: Any, s: Any) -> Tensor:
    """No noise: the chain contracts, and what comes out is not a sample (notebook 08)."""
    return torch.zeros_like(process.b[t])


# Samplers -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ancestral(
    denoise: Denoise,
    x_T: Tensor,
    timesteps: Sequence[int],
    cond: Any = None,
    sigma2: Variance = posterior,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DDPM's own sampler (algorithm 2): draw x_s from q(x_s | x_t, x_0), with the predicted x_0 for the true one.

    sigma2: the variance of the noise, `posterior`, `beta` or `none`, or a function of your own (process, t, s) -> (),
    which then decides about the last step, s = 0, too.
    """
    process, x_t = denoise.process, x_T
    for t, s in _steps(process, timesteps):
        x_0, _ = denoise(x_t, _rows(t, x_t), cond)
        yield State(t, x_t, x_0)
        mean = process.posterior(x_0, x_t, t, s).mean
        x_t = mean + float(sigma2(process, t, s)) ** 0.5 * randn_like(x_t, generator)
    yield State(0, x_t, x_t)


@torch.no_grad()
def ddim(
    denoise: Denoise,
    x_T: Tensor,
    timesteps: Sequence[int],
    cond: Any = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Song, Meng and Ermon 2021, eq. 12: rebuild x_s from the predicted x_0 and eps; a share eta of the noise is fresh.

    eta = 0 is deterministic, eta = 1 is ancestral sampling with the posterior variance.
    """
    process, x_t = denoise.process, x_T
    a, b = process.a.tolist(), process.b.tolist()
    for t, s in _steps(process, timesteps):
        x_0, eps = denoise(x_t, _rows(t, x_t), cond)
        yield State(t, x_t, x_0)
        sigma2 = eta**2 * float(posterior(process, t, s))
        x_t = a[s] * x_0 + max(b[s] ** 2 - sigma2, 0.0) ** 0.5 * eps
        if eta:
            x_t = x_t + sigma2**0.5 * randn_like(x_t, generator)
    yield State(0, x_t, x_t)


@torch.no_grad()
def heun(denoise: Denoise, x_T: Tensor, timesteps: Sequence[int], cond: Any = None) -> Iterator[State]:
    """Second order in the step, two network calls each, after Karras et al. 2022, algorithm 1, with a and b for axes.

    The deterministic path obeys dx = x_0 da + eps db. DDIM is Euler's step along it; Heun averages the prediction at
    both ends of the step. Nothing is divided by a, so it also starts where a_T = 0. The last step is Euler's: at t = 0
    there is no noise left to predict.
    """
    process, x_t = denoise.process, x_T
    a, b = process.a.tolist(), process.b.tolist()
    for t, s in _steps(process, timesteps):
        x_0, eps = denoise(x_t, _rows(t, x_t), cond)
        yield State(t, x_t, x_0)
        da, db = a[s] - a[t], b[s] - b[t]
        x_s = x_t + da * x_0 + db * eps  # Euler's step
        if s > 0:
            x_0_s, eps_s = denoise(x_s, _rows(s, x_s), cond)
            x_s = x_t + da * (x_0 + x_0_s) / 2 + db * (eps + eps_s) / 2  # the correction
        x_t = x_s
    yield State(0, x_t, x_t)


@torch.no_grad()
def dpmpp_2m(denoise: Denoise, x_T: Tensor, timesteps: Sequence[int], cond: Any = None) -> Iterator[State]:
    """DPM-Solver++(2M), Lu et al. 2022b, algorithm 2: second order from the last two predictions, one call a step.

    x_0 is extrapolated in lambda = log(a / b) to the middle of the step. The first step and the last, where lambda is
    infinite, take the prediction as it stands.
    """
    process, x_t = denoise.process, x_T
    a, b, lam = process.a.tolist(), process.b.tolist(), torch.log(process.a / process.b).tolist()
    x_0_before: Tensor | None = None
    h_before = 0.0
    for t, s in _steps(process, timesteps):
        x_0, _ = denoise(x_t, _rows(t, x_t), cond)
        yield State(t, x_t, x_0)
        h = lam[s] - lam[t]
        D = x_0
        if x_0_before is not None and s > 0:
            D = x_0 + h / (2 * h_before) * (x_0 - x_0_before)
        x_t = b[s] / b[t] * x_t - a[s] * math.expm1(-h) * D
        x_0_before, h_before = x_0, h
    yield State(0, x_t, x_t)


@torch.no_grad()
def langevin(
    denoise: Denoise,
    x: Tensor,
    t: int,
    step: float,
    n: int,
    cond: Any = None,
    noise: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """n steps of Langevin dynamics on q(x_t) at one fixed t: x + step/2 score + sqrt(step) z, score = -eps / b_t.

    Its limit, as n -> inf and step -> 0, is q(x_t) (Song and Ermon 2019, eq. 4). noise = 0 climbs to a peak of the
    density instead. Yields n + 1 states.
    """
    b = float(denoise.process.b[denoise.process.check_t(t, x[:1])])
    for k in range(n + 1):
        x_0, eps = denoise(x, _rows(t, x), cond)
        yield State(t, x, x_0)
        if k < n:
            x = x - step / 2 * eps / b + noise * step**0.5 * randn_like(x, generator)


def _rows(t: int, x: Tensor) -> Tensor:
    """The same t for every row of x, as denoisers are called: (b,)."""
    return torch.full((len(x),), t, device=x.device)


def _steps(process: Process, timesteps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The pairs (t, s) of a chain, checked: T >= t_n > ... > t_0 = 0."""
    timesteps = [int(t) for t in timesteps]
    steps = list(pairwise(timesteps))
    if not steps or timesteps[-1] != 0 or timesteps[0] > process.T or any(t <= s for t, s in steps):
        raise ValueError(
            f"timesteps must fall from at most T = {process.T} to 0, as process.timesteps(n) makes them; "
            f"got {timesteps[:6]}{' ...' if len(timesteps) > 6 else ''}."
        )
    return iter(steps)
