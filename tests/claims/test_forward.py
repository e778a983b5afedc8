"""C11, C12: the forward process."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import ks_2samp
from stats import assert_average, assert_moments, seeded
from torch import Tensor

from ddpm_edu.process import Process

PROCESS = Process.linear(1000)


def coin(n: int, seed: int = 0) -> Tensor:
    """Data of mean 0 and variance 1 that is nothing like a Gaussian: -1 or 1, (n, 1)."""
    return torch.randint(2, (n, 1), generator=seeded(seed)).float() * 2 - 1


@pytest.mark.claim("C11")
@pytest.mark.parametrize("t", [1, 500, 1000])
def test_c11_one_step(t: int):
    """q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I)."""
    x_prev = torch.tensor([-2.0, 0.0, 3.0]).expand(20_000, 3)
    beta = PROCESS.beta[t]
    assert_moments(PROCESS.step(x_prev, t).sample(seeded()), (1 - beta) ** 0.5 * x_prev[0], beta.expand(3))


@pytest.mark.claim("C11")
def test_c11_the_square_root_keeps_unit_variance():
    """With sqrt(alpha) variance 1 stays 1. "Add beta noise" lets it grow by beta each step; a factor of alpha, without
    the root, lets it shrink."""
    process, scaled, added, rootless = Process.linear(50, beta_T=0.2), *(coin(20_000) for _ in range(3))
    generator = seeded(1)
    for t in range(1, 51):
        noise = process.beta[t].sqrt().float() * torch.randn(scaled.shape, generator=generator)
        scaled = process.step(scaled, t).sample(generator)
        added, rootless = added + noise, (1 - process.beta[t]).float() * rootless + noise
    assert_moments(scaled, 0.0, 1.0)
    assert_moments(added, 0.0, 1 + process.beta.sum())
    assert added.var() > 5
    assert rootless.var() < 0.6


@pytest.mark.claim("C12")
@pytest.mark.parametrize("t", [2, 30, 100])
def test_c12_many_steps_are_one_jump(t: int):
    """The same distribution, not only the same moments: two-sample Kolmogorov-Smirnov on data that is no Gaussian."""
    walk = coin(10_000)
    generator = seeded(1)
    for step in range(1, t + 1):
        walk = PROCESS.step(walk, step).sample(generator)
    jump = PROCESS.marginal(coin(10_000, 2), t).sample(generator)
    assert ks_2samp(walk[:, 0], jump[:, 0]).pvalue > 1e-3
    other = PROCESS.marginal(coin(10_000, 2), 2 * t).sample(generator)
    assert ks_2samp(walk[:, 0], other[:, 0]).pvalue < 1e-3  # the test can tell


@pytest.mark.claim("C12")
def test_c12_closed_form():
    """q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I), abar_t the product of 1 - beta."""
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))[:400].prod()
    x_0 = torch.tensor([-2.0, 3.0]).expand(20_000, 2)
    assert_moments(PROCESS.marginal(x_0, 400).sample(seeded()), abar.sqrt() * x_0[0], (1 - abar).expand(2))


@pytest.mark.claim("C12")
def test_c12_at_T_it_is_nearly_pure_noise():
    """abar_T = 4e-5: x_T is off N(0, I) by 0.6 % of x_0. A small part, and not nothing: enough draws see it."""
    assert float(PROCESS.alpha_bar[1000]) == pytest.approx(4.0e-5, rel=0.02)
    x_T = PROCESS.marginal(torch.full((400_000, 1), 10.0), 1000).sample(seeded())
    assert_average(x_T, 0.0635)
    with pytest.raises(AssertionError):
        assert_average(x_T, 0.0)
