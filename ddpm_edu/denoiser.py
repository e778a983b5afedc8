"""Denoisers: from (x_t, t) to a prediction of the clean x_0 and of the noise eps in it.

A denoiser is anything that is called as `denoise(x_t, t, cond=None)`, answers with a `Prediction` and has a `.process`.
Three kinds stand here: a network (`Denoiser`), the exact answer for a Gaussian mixture (`ExactDenoiser`), and wrappers
around another denoiser (`guided`, `clipped`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ddpm_edu.mixture import Mixture, Noisy
from ddpm_edu.process import Process, like

__all__ = [
    "Denoise",
    "Denoiser",
    "ExactDenoiser",
    "Prediction",
    "Target",
    "clipped",
    "eps",
    "guided",
    "inpainted",
    "v",
    "x_0",
]


class Prediction(NamedTuple):
    """Two readings of one belief about x_t = a_t x_0 + b_t eps; each follows from the other. Both: shape of x_t."""

    x_0: Tensor
    eps: Tensor


class Denoise(Protocol):
    """What samplers and losses ask of a denoiser."""

    @property
    def process(self) -> Process: ...

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Prediction: ...


# What a network predicts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What a network is trained to output: y = c x_0 + d eps, where c and d depend on a_t and b_t alone.

    Together with x_t = a x_0 + b eps that makes two equations for two unknowns, so x_0 and eps can be recovered from
    any of them. All methods take a, b broadcastable to the tensors.
    """

    name: str
    coefficients: Callable[[Tensor, Tensor], tuple[Any, Any]]

    def of(self, x_0: Tensor, eps: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The training target y."""
        c, d = self.coefficients(a, b)
        return c * x_0 + d * eps

    def recover(self, x_t: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Prediction:
        """x_0 and eps from x_t and the prediction y: Cramer's rule."""
        c, d = self.coefficients(a, b)
        det = a * d - b * c
        return Prediction(x_0=(d * x_t - b * y) / det, eps=(a * y - c * x_t) / det)

    def __repr__(self) -> str:
        return self.name


eps = Target("eps", lambda a, b: (0.0, 1.0))  # DDPM, eq. 11
x_0 = Target("x_0", lambda a, b: (1.0, 0.0))
v = Target("v", lambda a, b: (-b, a))  # Salimans and Ho 2022, section 4; well posed at every t
TARGETS = {target.name: target for target in (eps, x_0, v)}


def target_named(name: str) -> Target:
    """`eps`, `x_0` or `v`, for names that come from a file or a command line."""
    if name not in TARGETS:
        raise ValueError(f"Unknown target {name!r}; the known ones are {', '.join(TARGETS)}.")
    return TARGETS[name]


class Denoiser(nn.Module):
    """A network, what it predicts, and the process it was made for.

    net: called as net(x_t, t, cond), t: (b,) integers 1..T; returns the shape of x_t. target: `eps`, `x_0` or `v`.
    """

    def __init__(self, process: Process, net: nn.Module, target: Target) -> None:
        super().__init__()
        if not isinstance(target, Target):
            raise ValueError(f"target must be one of {', '.join(TARGETS)} from ddpm_edu.denoiser; got {target!r}.")
        c, d = target.coefficients(process.a[1:], process.b[1:])
        if (process.a[1:] * d - process.b[1:] * c == 0).any():
            raise ValueError(f"Where a_t = 0 nothing can be recovered from {target}: use v or x_0 with this process.")
        self.process, self.net, self.target = process, net, target

    def forward(self, x_t: Tensor, t: Tensor | int, cond: Any = None) -> Prediction:
        """x_t: (b, ...), t: (b,) in 1..T, cond: whatever the network accepts."""
        t = self.process.check_t(t, x_t)
        y = self.net(x_t, t.to(x_t.device), cond)
        if y.shape != x_t.shape:
            raise ValueError(f"The network must return the shape of x_t, {tuple(x_t.shape)}; got {tuple(y.shape)}.")
        a, b = self.process.at(t, x_t)
        return self.target.recover(x_t, y.to(x_t.dtype), a, b)


# Wrappers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wrapped:
    """A denoiser made from a function and the process of the denoiser inside it."""

    process: Process
    predict: Callable[[Tensor, Tensor, Any], Prediction]

    def __call__(self, x_t: Tensor, t: Tensor | int, cond: Any = None) -> Prediction:
        return self.predict(x_t, self.process.check_t(t, x_t), cond)


def guided(denoise: Denoise, null: Any, w: float, between: tuple[int, int] | None = None) -> Denoise:
    """Classifier-free guidance: eps = eps_null + w (eps_cond - eps_null) (Ho and Salimans 2022, eq. 6, whose own w is
    this one less 1). w = 1 is off, w = 0 ignores the condition. null: the condition that stands for "none".

    between: first and last t at which it guides; None: always. At the others w is 1 (Kynkäänniemi et al. 2024). Where
    w is 1 the network is asked once instead of twice. x_0 is linear in eps, so it follows the same rule.
    """
    first, last = between or (1, denoise.process.T)

    def predict(x_t: Tensor, t: Tensor, cond: Any) -> Prediction:
        with_cond, inside = denoise(x_t, t, cond), (first <= t) & (t <= last)
        if w == 1 or not inside.any():
            return with_cond
        factor = like(torch.where(inside, w, 1.0), x_t)
        return Prediction(*(torch.lerp(n, c, factor) for n, c in zip(denoise(x_t, t, null), with_cond, strict=True)))

    return _Wrapped(denoise.process, predict)


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """Keeps the predicted x_0 in the range of the data, and eps consistent with it."""

    def predict(x_t: Tensor, t: Tensor, cond: Any) -> Prediction:
        x_0 = denoise(x_t, t, cond).x_0.clamp(low, high)
        a, b = denoise.process.at(t, x_t)
        return Prediction(x_0, (x_t - a * x_0) / b)

    return _Wrapped(denoise.process, predict)


def inpainted(denoise: Denoise, x_0: Tensor, known: Tensor) -> Denoise:
    """Keeps what is known: where `known` is True the prediction is x_0, elsewhere the denoiser's own; eps follows.

    So a sampler carries the known part along at every noise level, as RePaint does (Lugmayr et al. 2022, eq. 8), and
    what is new comes to fit it. Only nearly, even with an exact denoiser, since each prediction was made before the
    known part was put in: better with fresh noise at every step (`ancestral`, or `ddim` with eta = 1), and RePaint goes
    back and forth besides. x_0: (b, ...); known: bool, broadcastable to it.
    """

    def predict(x_t: Tensor, t: Tensor, cond: Any) -> Prediction:
        filled = torch.where(known, x_0.to(x_t), denoise(x_t, t, cond).x_0)
        a, b = denoise.process.at(t, x_t)
        return Prediction(filled, (x_t - a * filled) / b)

    return _Wrapped(denoise.process, predict)


# The exact denoiser ---------------------------------------------------------------------------------------------------


class ExactDenoiser:
    """E[x_0 | x_t] and E[eps | x_t] when the data is a Gaussian mixture: no network, no training, no error.

    weights, means, covs: those of the data, as `Mixture` takes them. Zero covariance is allowed, so a set of points (a
    drawing, 9,000 digits) is a mixture too. All in float64 inside, answers in the dtype of x_t.

    >>> denoise = ExactDenoiser(Process.linear(), [0.25, 0.75], [[-2.0], [2.0]], 0.1)
    >>> denoise(torch.tensor([[1.5]]), 1).x_0.round(decimals=1)
    tensor([[1.5000]])
    """

    def __init__(self, process: Process, weights: Any, means: Any, covs: Any) -> None:
        self.process = process
        self.data = Mixture(weights, means, covs)

    def __call__(self, x_t: Tensor, t: Tensor | int, cond: Any = None) -> Prediction:
        """x_t: (b, ...), t: (b,) in 1..T. A mixture has no condition: cond is there for the form alone."""
        t = self.process.check_t(t, x_t)
        noisy = self._noisy(x_t, t)
        return Prediction(noisy.x_0, -self.process.at(t, x_t)[1] * noisy.score)

    def score(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        """grad log q(x_t), the shape of x_t. t: (b,) in 0..T (0 is the data, unless it has variance 0)."""
        return self._noisy(x_t, self.process.check_t(t, x_t, low=0)).score

    def log_prob(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        """log q(x_t) in nats, (b,). t: (b,) in 0..T (0 is the data, unless it has variance 0)."""
        return self._noisy(x_t, self.process.check_t(t, x_t, low=0)).log_prob

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws of the data itself, x_0: (n, ...), float32."""
        return self.data.sample(n, generator)

    def _noisy(self, x_t: Tensor, t: Tensor) -> Noisy:
        return self.data.noisy(x_t, self.process.a[t], self.process.b[t])
