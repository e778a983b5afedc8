"""Gaussian mixtures: data whose density is known, also after noise. What is learned elsewhere is computed here."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Mixture", "Noisy"]


class Noisy(NamedTuple):
    """What is known of x = a x_0 + b eps, x_0 from a mixture and eps ~ N(0, I)."""

    log_prob: Tensor  # log density of x: (b,), nats
    x_0: Tensor  # E[x_0 | x]: the shape of x
    score: Tensor  # grad log density of x: the shape of x


class Mixture:
    """sum_k w_k N(m_k, C_k).

    weights: (k,), normalised here. means: (k, ...), the ... being the shape of one datum. covs: one variance, (k,)
    variances, (k, d) diagonals or (k, d, d) matrices, d the number of elements of a datum; zero is allowed: points.
    All in float64 inside, answers in the dtype of x.

    >>> Mixture([0.5, 0.5], [[-1.0], [1.0]], 0.0).sample(3, torch.Generator().manual_seed(0)).abs().flatten()
    tensor([1., 1., 1.])
    """

    def __init__(self, weights: Any, means: Any, covs: Any) -> None:
        weights, means, covs = (torch.as_tensor(value).double().cpu() for value in (weights, means, covs))
        k = len(means)
        if weights.shape != (k,) or not (weights >= 0).all() or weights.sum() <= 0:
            raise ValueError(f"weights must be {k} numbers >= 0, one for each mean; got {weights.tolist()}.")
        self.event = means.shape[1:]
        self._means = means.reshape(k, -1)
        d = self._means.shape[1]
        allowed = [(), (k,), (k, d), (k, d, d)]
        if covs.shape not in allowed:
            raise ValueError(
                f"covs must have one of the shapes {allowed} for {k} means of {d} elements; got {tuple(covs.shape)}."
            )
        self.weights = weights / weights.sum()
        self._axes: Tensor | None = None  # (k, d, d): columns are the principal axes of each covariance
        if covs.ndim == 3:
            if not torch.allclose(covs, covs.mT):
                raise ValueError("covs must be symmetric matrices.")
            covs, self._axes = torch.linalg.eigh(covs)
        if not (covs >= -1e-9).all():
            raise ValueError("covs must be variances >= 0, or symmetric matrices with eigenvalues >= 0.")
        covs = covs.clamp(min=0)
        # (k, d) or (k, 1): the variances along those axes
        self._vars = (covs if covs.ndim == 2 else covs.expand(k)[:, None]).clone()

    @property
    def means(self) -> Tensor:
        """(k, ...), float32."""
        return self._means.reshape(-1, *self.event).float()

    @property
    def deviations(self) -> Tensor:
        """(k,), float64: of each component, along its widest axis."""
        return self._vars.amax(1).sqrt()

    def log_prob(self, x: Tensor) -> Tensor:
        """log density in nats, (b,). x: (b, ...). Variances must be above 0."""
        one = torch.ones(len(x), dtype=torch.float64)
        return self.noisy(x, one, 0 * one).log_prob

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws: (n, ...), float32."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self._means.shape[1], generator=generator, dtype=torch.float64)
        noise = noise * self._vars[which].sqrt()
        if self._axes is not None:
            noise = torch.einsum("bij,bj->bi", self._axes[which], noise)
        return (self._means[which] + noise).reshape(n, *self.event).float()

    def noisy(self, x: Tensor, a: Tensor, b: Tensor) -> Noisy:
        """What is known of x = a x_0 + b eps. x: (b, ...); a, b: (b,), float64, b = 0 only without variances of 0.

        Every component stays Gaussian under the noise: N(a m, a^2 C + b^2 I).
        """
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point; got {x.dtype}. Use x.float().")
        if x.shape[1:] != self.event:
            raise ValueError(f"This mixture lives on data of shape {tuple(self.event)}; got x of {tuple(x.shape)}.")
        if (b == 0).any() and not (self._vars > 0).all():
            raise ValueError(
                "Where b = 0 (t = 0) a mixture with variance 0 has no density: ask for t >= 1, or give it a variance."
            )
        flat = x.reshape(len(x), self._means.shape[1]).double().cpu()
        spherical = self._axes is None and self._vars.shape[1] == 1
        # (rows, k, d) numbers at a time in the general case: rows in chunks, so that memory stays small.
        rows = len(flat) if spherical else max(1, 2**23 // self._means.numel())
        solve = self._spherical if spherical else self._general
        parts = [solve(*part) for part in zip(flat.split(rows), a.split(rows), b.split(rows), strict=True)]
        log_prob, x_0, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return Noisy(log_prob.to(x), x_0.reshape(x.shape).to(x), score.reshape(x.shape).to(x))

    def _general(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (b, d). Every component in its own principal axes, where its covariance is diagonal."""
        a, b = a[:, None, None], b[:, None, None]
        delta = x[:, None] - a * self._means  # (b, k, d)
        if self._axes is not None:
            delta = torch.einsum("kji,bkj->bki", self._axes, delta)
        var = a**2 * self._vars + b**2  # of x_t, along each axis
        log_p = self.weights.log() - 0.5 * (delta**2 / var + torch.log(2 * torch.pi * var)).sum(-1)  # (b, k)
        r = log_p.softmax(-1)[..., None]  # responsibilities
        pull, shift = delta / var, a * self._vars * delta / var
        if self._axes is not None:
            pull, shift = (torch.einsum("kij,bkj->bki", self._axes, y) for y in (pull, shift))
        return log_p.logsumexp(-1), (r * (self._means + shift)).sum(1), -(r * pull).sum(1)

    def _spherical(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for covariances c I, where matrix products do: 9,000 digits cost milliseconds, not seconds."""
        a, b = a[:, None], b[:, None]
        c = self._vars[:, 0]  # (k,), or (1,) if they are all alike: then the logarithm is taken once a row
        c = c[:1] if (c == c[0]).all() else c
        var = a**2 * c + b**2  # (b, k or 1)
        square = (x**2).sum(1, keepdim=True) - 2 * a * (x @ self._means.T) + a**2 * (self._means**2).sum(1)
        log_p = self.weights.log() - 0.5 * (square / var + x.shape[1] * torch.log(2 * torch.pi * var))
        r = log_p.softmax(-1)
        gain = r * a * c / var  # how far E[x_0 | x_t, component] moves from the mean towards x_t
        x_0 = (r - gain * a) @ self._means + gain.sum(1, keepdim=True) * x
        score = a * ((r / var) @ self._means) - (r / var).sum(1, keepdim=True) * x
        return log_p.logsumexp(-1), x_0, score
