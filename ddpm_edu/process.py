"""The forward process q: how data becomes noise, a little at a time.

Glossary (Ho, Jain and Abbeel 2020, "DDPM"; the same symbols everywhere in the course)

================ ========================================== ==================================================
in the paper     in the code                                meaning
================ ========================================== ==================================================
t                `t`                                        time, 1..T; index 0 *is* the data
x_0, x_t         `x_0`, `x_t`                               data; data after t noising steps
beta_t           `process.beta[t]`                          variance of the noise added by step t; beta[0] = 0
alpha_t          `process.alpha[t]`                         1 - beta_t
alpha_bar_t      `process.alpha_bar[t]`                     alpha_1 alpha_2 ... alpha_t; alpha_bar[0] = 1
sqrt(alpha_bar)  `process.a[t]`                             what is left of the data in x_t
sqrt(1-alpha_bar) `process.b[t]`                            deviation of the noise in x_t
eps              `eps`                                      the whole noise in x_t: x_t = a_t x_0 + b_t eps
================ ========================================== ==================================================

Everything is written with a and b, so that a process need not come from betas: the straight paths of flow matching
(a = 1 - t/T, b = t/T) are a `from_coefficients` away, and every sampler works on them as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Gaussian", "Process"]


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions, one an element: N(mean, var).

    mean: any shape; var: broadcastable to it, >= 0. Variance 0, a point mass, is legal here: q(x_0 | x_1, x_0) is one.
    """

    mean: Tensor
    var: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, in the shape of mean."""
        return self.mean + self.var.sqrt() * randn_like(self.mean, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mean, var) of every element, in nats; at variance 0, inf on the point and -inf off it."""
        distance = torch.where(x == self.mean, 0.0, (x - self.mean) ** 2 / self.var)
        return torch.where(distance == torch.inf, -torch.inf, -0.5 * (distance + torch.log(2 * torch.pi * self.var)))

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) of every element, in nats; 0 between equal point masses, inf where only one is a point."""
        ratio = torch.where(self.var == other.var, 1.0, self.var / other.var)
        distance = torch.where(self.mean == other.mean, 0.0, (self.mean - other.mean) ** 2 / other.var)
        return 0.5 * (distance + torch.where(ratio == torch.inf, torch.inf, ratio - 1 - torch.log(ratio)))


class Process:
    """x_t = a_t x_0 + b_t eps, for t = 0..T. For DDPM a = sqrt(alpha_bar), b = sqrt(1 - alpha_bar) (DDPM eq. 4).

    a, b: (T + 1,), float64; a[0] = 1, b[0] = 0. Coefficients are computed in float64 and cast to x. Wherever a method
    takes `t`, it is an integer tensor (b,), one for each row of x, or one int for all of them.

    >>> process = Process.linear(T=1000)
    >>> x_t = process.marginal(torch.zeros(2, 3), torch.tensor([1, 1000])).sample()
    >>> f"{process.alpha_bar[1000]:.0e}"
    '4e-05'
    """

    def __init__(self, betas: Tensor) -> None:
        """betas: (T,), the variances beta_1..beta_T, each in (0, 1)."""
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or len(betas) == 0 or not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"betas must be a vector of T variances strictly between 0 and 1; got shape {tuple(betas.shape)}"
                + (f", from {betas.min():g} to {betas.max():g}." if betas.numel() else ".")
            )
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
        self.a, self.b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    @classmethod
    def from_coefficients(cls, a: Tensor, b: Tensor) -> Process:
        """Any process x_t = a_t x_0 + b_t eps. a, b: (T + 1,); a falls from 1, b rises from 0.

        >>> t = torch.linspace(0, 1, 101)
        >>> Process.from_coefficients(1 - t, t)  # the straight paths of flow matching
        Process(T=100, alpha_bar[T]=0)
        """
        a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
        falls = a.shape == b.shape and a.ndim == 1 and len(a) > 1 and a[0] == 1 and b[0] == 0
        if not (falls and (a.diff() <= 0).all() and (b.diff() >= 0).all() and a[-1] >= 0 and b[1] > 0):
            raise ValueError("a and b must be vectors of one length, a falling from 1 to 0 at least, b rising from 0.")
        process = cls.__new__(cls)
        process.a, process.b = a, b
        return process

    @property
    def T(self) -> int:
        return len(self.a) - 1

    # Schedules ------------------------------------------------------------------------------------------------------

    @classmethod
    def linear(cls, T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Process:
        """beta_t on a straight line from beta_1 to beta_T (DDPM, section 4). The defaults are for T = 1000: with fewer
        steps the chain ends before it is noise, unless both are raised as 1000 / T."""
        return cls(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))

    @classmethod
    def cosine(cls, T: int = 1000) -> Process:
        """alpha_bar_t = cos^2 of a straight line in t, betas at most 0.999 (Nichol and Dhariwal 2021, eq. 17)."""
        angle = (torch.linspace(0, 1, T + 1, dtype=torch.float64) + 0.008) / 1.008 * torch.pi / 2
        alpha_bar = torch.cos(angle) ** 2
        return cls((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))

    @classmethod
    def named(cls, schedule: str, T: int = 1000) -> Process:
        """`Process.linear(T)` or `Process.cosine(T)`, for names that come from a file or a command line."""
        known = {"linear": cls.linear, "cosine": cls.cosine}
        if schedule not in known:
            raise ValueError(f"Unknown schedule {schedule!r}; the known ones are {', '.join(known)}.")
        return known[schedule](T)

    # Derived coefficients, (T + 1,) -----------------------------------------------------------------------------------

    @property
    def alpha_bar(self) -> Tensor:
        return self.a**2

    @property
    def alpha(self) -> Tensor:
        """alpha_t = (a_t / a_{t-1})^2; alpha[0] = 1."""
        return torch.cat([self.a[:1], self.a[1:] / self.a[:-1]]) ** 2

    @property
    def beta(self) -> Tensor:
        """beta_t = 1 - alpha_t; beta[0] = 0."""
        return 1 - self.alpha

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio a_t^2 / b_t^2; inf at t = 0."""
        return (self.a / self.b) ** 2

    # The three Gaussians ----------------------------------------------------------------------------------------------

    def step(self, x_prev: Tensor, t: Tensor | int) -> Gaussian:
        """q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I), DDPM eq. 2. x_prev: (b, ...), t: 1..T."""
        t = self.check_t(t, x_prev)
        ratio, var = self.transition(t - 1, t)
        return Gaussian(like(ratio, x_prev) * x_prev, like(var, x_prev))

    def marginal(self, x_0: Tensor, t: Tensor | int) -> Gaussian:
        """q(x_t | x_0) = N(a_t x_0, b_t^2 I), DDPM eq. 4. x_0: (b, ...), t: 1..T."""
        a, b = self.at(t, x_0)
        return Gaussian(a * x_0, b**2)

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor | int, s: Tensor | int | None = None) -> Gaussian:
        """q(x_s | x_t, x_0) for 0 <= s < t, DDPM eqs. 6-7; s = t - 1 unless given. x_0, x_t: (b, ...), t: 1..T.

        Bayes: the likelihood q(x_t | x_s) = N(r x_s, v) times the prior q(x_s | x_0) = N(a_s x_0, b_s^2). At s = 0 it
        is the point x_0, since b_0 = 0.
        """
        if x_0.shape != x_t.shape:
            raise ValueError(f"x_0 and x_t must have one shape; got {tuple(x_0.shape)} and {tuple(x_t.shape)}.")
        t = self.check_t(t, x_t)
        s = t - 1 if s is None else self.check_t(s, x_t, low=0)
        if not (s < t).all():
            raise ValueError(f"s must come before t; got s = {s.tolist()} and t = {t.tolist()}.")
        r, v = self.transition(s, t)  # sqrt(alpha_t) and beta_t where s = t - 1
        of_x_0, of_x_t = self.a[s] * v / self.b[t] ** 2, r * self.b[s] ** 2 / self.b[t] ** 2  # eq. 7, the mean
        var = v * self.b[s] ** 2 / self.b[t] ** 2  # eq. 7, beta tilde
        return Gaussian(like(of_x_0, x_t) * x_0 + like(of_x_t, x_t) * x_t, like(var, x_t))

    def transition(self, s: Tensor | int, t: Tensor | int) -> tuple[Tensor, Tensor]:
        """r and v of q(x_t | x_s) = N(r x_s, v), s < t: sqrt(alpha_t) and beta_t of a stride of any length. float64."""
        ratio = self.a[t] / self.a[s]
        return ratio, self.b[t] ** 2 - ratio**2 * self.b[s] ** 2

    # Time -------------------------------------------------------------------------------------------------------------

    def timesteps(self, n: int) -> list[int]:
        """n steps, n + 1 times: T = t_n > ... > t_0 = 0, evenly spread. 1 <= n <= T.

        >>> Process.linear(T=1000).timesteps(4)
        [1000, 750, 500, 250, 0]
        """
        if not 1 <= n <= self.T:
            raise ValueError(f"The number of steps must be in 1..{self.T}; got {n}.")
        return [round(self.T * k / n) for k in range(n, -1, -1)]

    def at(self, t: Tensor | int, x: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and b_t in the dtype and on the device of x: (b, ...), shaped to multiply it. t: 1..T."""
        t = self.check_t(t, x)
        return like(self.a[t], x), like(self.b[t], x)

    def check_t(self, t: Tensor | int, x: Tensor, low: int = 1) -> Tensor:
        """t as a (b,) tensor of integers low..T on the CPU, one a row of x: (b, ...); otherwise says what is wrong."""
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point; got {x.dtype}. Use x.float(), or a codec to encode pictures.")
        if not isinstance(t, Tensor):  # a number stands for every row
            t = torch.as_tensor(t)
            t = t.expand(len(x)) if t.ndim == 0 else t
        if t.is_floating_point() or t.dtype == torch.bool or t.shape != (len(x),):
            raise ValueError(
                f"t must hold one integer for each of the {len(x)} rows of x, shape ({len(x)},); "
                f"got shape {tuple(t.shape)} of {t.dtype}."
            )
        t = t.cpu().long()
        if len(t) and not (low <= int(t.min()) and int(t.max()) <= self.T):
            raise ValueError(f"t must be in {low}..{self.T}; got {int(t.min())}..{int(t.max())}.")
        return t

    def __repr__(self) -> str:
        return f"Process(T={self.T}, alpha_bar[T]={float(self.alpha_bar[-1]):.2g})"


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """Coefficients (b,) in the dtype and on the device of x: (b, ...), shaped to multiply it. The one place that
    broadcasts."""
    return sent(coefficient.to(x.dtype), x.device).reshape(-1, *(1,) * (x.ndim - 1))


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """x on a device. On its way to a GPU nobody waits for it: a training step then costs the CPU's orders alone."""
    return x.to(device, non_blocking=torch.device(device).type == "cuda")


def randn_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise in the shape of x, drawn where x lives: a GPU need not wait for a CPU's numbers. Of a
    generator that lives elsewhere it takes the seed, so one seed gives other noise on a GPU than on a CPU."""
    if generator is not None and generator.device.type != x.device.type:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        generator = torch.Generator(x.device).manual_seed(seed)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
