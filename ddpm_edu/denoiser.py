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

from ddpm_edu.process import Process

__all__ = ["Denoise", "Denoiser", "ExactDenoiser", "Prediction", "Target", "clipped", "eps", "guided", "v", "x_0"]


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


def guided(denoise: Denoise, null: Any, w: float) -> Denoise:
    """Classifier-free guidance: eps = eps_null + w (eps_cond - eps_null) (Ho and Salimans 2022, eq. 6, whose own w is
    this one less 1). w = 1 is off, w = 0 ignores the condition. null: the condition that stands for "none".

    x_0 is linear in eps, so it follows the same rule.
    """

    def predict(x_t: Tensor, t: Tensor, cond: Any) -> Prediction:
        with_cond, without = denoise(x_t, t, cond), denoise(x_t, t, null)
        return Prediction(*(torch.lerp(n, c, w) for n, c in zip(without, with_cond, strict=True)))

    return _Wrapped(denoise.process, predict)


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """Keeps the predicted x_0 in the range of the data, and eps consistent with it."""

    def predict(x_t: Tensor, t: Tensor, cond: Any) -> Prediction:
        x_0 = denoise(x_t, t, cond).x_0.clamp(low, high)
        a, b = denoise.process.at(t, x_t)
        return Prediction(x_0, (x_t - a * x_0) / b)

    return _Wrapped(denoise.process, predict)


# The exact denoiser ---------------------------------------------------------------------------------------------------


class ExactDenoiser:
    """E[x_0 | x_t] and E[eps | x_t] when the data is a Gaussian mixture: no network, no training, no error.

    weights: (k,), normalised here. means: (k, ...), the ... being the shape of one datum. covs: one variance, (k,)
    variances, (k, d) diagonals or (k, d, d) matrices, d the number of elements of a datum; zero is allowed, so a set of
    points (a drawing, 9,000 digits) is a mixture too. Under q each component stays Gaussian, N(a m, a^2 C + b^2 I).
    All in float64 inside, answers in the dtype of x_t.

    >>> denoise = ExactDenoiser(Process.linear(), [0.25, 0.75], [[-2.0], [2.0]], 0.1)
    >>> denoise(torch.tensor([[1.5]]), 1).x_0.round(decimals=1)
    tensor([[1.5000]])
    """

    def __init__(self, process: Process, weights: Any, means: Any, covs: Any) -> None:
        self.process = process
        weights, means, covs = (torch.as_tensor(value).double().cpu() for value in (weights, means, covs))
        k = len(means)
        if weights.shape != (k,) or not (weights >= 0).all() or weights.sum() <= 0:
            raise ValueError(f"weights must be {k} numbers >= 0, one for each mean; got shape {tuple(weights.shape)}.")
        self.event = means.shape[1:]
        self.means = means.reshape(k, -1)
        d = self.means.shape[1]
        allowed = [(), (k,), (k, d), (k, d, d)]
        if covs.shape not in allowed:
            raise ValueError(
                f"covs must have one of the shapes {allowed} for {k} means of {d} elements; got {tuple(covs.shape)}."
            )
        self.log_weights = (weights / weights.sum()).log()
        self.axes: Tensor | None = None  # (k, d, d): columns are the principal axes of each covariance
        if covs.ndim == 3:
            if not torch.allclose(covs, covs.mT):
                raise ValueError("covs must be symmetric matrices.")
            covs, self.axes = torch.linalg.eigh(covs)
        if not (covs >= -1e-9).all():
            raise ValueError("covs must be variances >= 0, or symmetric matrices with eigenvalues >= 0.")
        covs = covs.clamp(min=0)
        self.vars = (covs if covs.ndim == 2 else covs.expand(k)[:, None]).clone()  # (k, d) or (k, 1): along those axes

    def __call__(self, x_t: Tensor, t: Tensor | int, cond: Any = None) -> Prediction:
        """x_t: (b, ...), t: (b,) in 1..T. A mixture has no condition: cond is there for the form alone."""
        t = self.process.check_t(t, x_t)
        _, x_0, score = self._moments(x_t, t)
        return Prediction(x_0, -self.process.at(t, x_t)[1] * score)

    def score(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        """grad log q(x_t), the shape of x_t. t: (b,) in 0..T (0 is the data, unless it has variance 0)."""
        return self._moments(x_t, self.process.check_t(t, x_t, low=0))[2]

    def log_prob(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        """log q(x_t) in nats, (b,). t: (b,) in 0..T (0 is the data, unless it has variance 0)."""
        return self._moments(x_t, self.process.check_t(t, x_t, low=0))[0]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws of the data itself, x_0: (n, ...), float32."""
        which = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        noise = noise * self.vars[which].sqrt()
        if self.axes is not None:
            noise = torch.einsum("bij,bj->bi", self.axes[which], noise)
        return (self.means[which] + noise).reshape(n, *self.event).float()

    def _moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log q(x_t): (b,), E[x_0 | x_t] and the score: the shape of x_t."""
        if x_t.shape[1:] != self.event:
            raise ValueError(f"This mixture lives on data of shape {tuple(self.event)}; got x_t of {tuple(x_t.shape)}.")
        if (t == 0).any() and not (self.vars > 0).all():
            raise ValueError(
                "At t = 0 a mixture with variance 0 has no density: ask for t >= 1, or give it a variance."
            )
        x = x_t.reshape(len(x_t), self.means.shape[1]).double().cpu()
        a, b = self.process.a[t], self.process.b[t]
        spherical = self.axes is None and self.vars.shape[1] == 1
        # (rows, k, d) numbers at a time in the general case: rows in chunks, so that memory stays small.
        rows = len(x) if spherical else max(1, 2**23 // self.means.numel())
        solve = self._spherical if spherical else self._general
        parts = [solve(*part) for part in zip(x.split(rows), a.split(rows), b.split(rows), strict=True)]
        log_prob, x_0, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return log_prob.to(x_t), x_0.reshape(x_t.shape).to(x_t), score.reshape(x_t.shape).to(x_t)

    def _general(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (b, d). Every component in its own principal axes, where its covariance is diagonal."""
        a, b = a[:, None, None], b[:, None, None]
        delta = x[:, None] - a * self.means  # (b, k, d)
        if self.axes is not None:
            delta = torch.einsum("kji,bkj->bki", self.axes, delta)
        var = a**2 * self.vars + b**2  # of x_t, along each axis
        log_p = self.log_weights - 0.5 * (delta**2 / var + torch.log(2 * torch.pi * var)).sum(-1)  # (b, k)
        r = log_p.softmax(-1)[..., None]  # responsibilities
        pull, shift = delta / var, a * self.vars * delta / var
        if self.axes is not None:
            pull, shift = (torch.einsum("kij,bkj->bki", self.axes, y) for y in (pull, shift))
        return log_p.logsumexp(-1), (r * (self.means + shift)).sum(1), -(r * pull).sum(1)

    def _spherical(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for covariances c I, where matrix products do: 9,000 digits cost milliseconds, not seconds."""
        a, b = a[:, None], b[:, None]
        c = self.vars[:, 0]  # (k,)
        var = a**2 * c + b**2  # (b, k)
        square = (x**2).sum(1, keepdim=True) - 2 * a * (x @ self.means.T) + a**2 * (self.means**2).sum(1)
        log_p = self.log_weights - 0.5 * (square / var + x.shape[1] * torch.log(2 * torch.pi * var))
        r = log_p.softmax(-1)
        gain = r * a * c / var  # how far E[x_0 | x_t, component] moves from the mean towards x_t
        x_0 = (r - gain * a) @ self.means + gain.sum(1, keepdim=True) * x
        score = a * ((r / var) @ self.means) - (r / var).sum(1, keepdim=True) * x
        return log_p.logsumexp(-1), x_0, score
