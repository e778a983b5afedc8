"""C17, C18: what the network predicts, and what is minimised."""

from __future__ import annotations

import pytest
import torch
from stats import assert_average, seeded
from torch import Tensor, nn

from ddpm_edu import denoiser
from ddpm_edu.denoiser import Denoiser, ExactDenoiser
from ddpm_edu.objectives import diffusion_errors, elbo_weight, transition_term
from ddpm_edu.process import Process
from ddpm_edu.samplers import beta, posterior

PROCESS = Process.linear(100, beta_T=0.1)
MIXTURE = ExactDenoiser(PROCESS, [0.25, 0.75], [[-2.0], [2.0]], 0.25)


def pairs(t: int, n: int = 200_000) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 from the mixture, the whole noise eps, and x_t: (n, 1) each."""
    x_0, eps = MIXTURE.sample(n, seeded()), torch.randn(n, 1, generator=seeded(1))
    return x_0, eps, PROCESS.a[t].float() * x_0 + PROCESS.b[t].float() * eps


class Bent(nn.Module):
    """The exact E[eps | x_t], bent: factor * eps + shift."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        return self.factor * MIXTURE(x_t, t).eps + self.shift


@pytest.mark.claim("C17")
@pytest.mark.parametrize("t", [5, 30, 100])
def test_c17_the_minimiser_is_the_conditional_mean(t: int):
    """Among the exact E[eps | x_t] and functions near it, the exact one has the least squared error, paired by draw:
    what a bend costs is its own mean square, since the error of a conditional mean is orthogonal to every function."""
    x_0, eps, x_t = pairs(t)
    times = torch.full((len(x_0),), t)
    best = diffusion_errors(Denoiser(PROCESS, Bent(1, 0), denoiser.eps), x_0, times, eps)
    for factor, shift in ((0.8, 0.0), (1.2, 0.0), (1.0, 0.1), (1.0, -0.1)):
        net = Bent(factor, shift)
        worse = diffusion_errors(Denoiser(PROCESS, net, denoiser.eps), x_0, times, eps)
        bend = (net(x_t, times) - MIXTURE(x_t, times).eps)[:, 0] ** 2
        assert_average(worse - best - bend, 0.0)
        assert bend.mean() > 0


@pytest.mark.claim("C17")
def test_c17_it_is_the_mean_noise_of_all_that_end_at_x_t():
    """Draws sorted by x_t: in each of 20 groups, the mean of eps is the exact denoiser's answer."""
    _, eps, x_t = pairs(40)
    for group in x_t[:, 0].argsort().chunk(20):
        assert_average(eps[group] - MIXTURE(x_t[group], 40).eps, 0.0)


@pytest.mark.claim("C17")
@pytest.mark.parametrize("t", [2, 40, 100])
def test_c17_it_is_not_the_noise_of_the_last_step_and_how_they_meet(t: int):
    """E[sqrt(beta_t) eps_t | x_t, x_0] = beta_t / sqrt(1 - abar_t) eps: right on average given (x_0, x_t), while the
    two noises themselves differ."""
    n, beta_t, b = 100_000, PROCESS.beta[t].float(), PROCESS.b[t].float()
    x_0 = MIXTURE.sample(n, seeded())
    eps_t = torch.randn(n, 1, generator=seeded(1))
    x_t = (1 - beta_t).sqrt() * PROCESS.marginal(x_0, t - 1).sample(seeded(2)) + beta_t.sqrt() * eps_t
    eps = (x_t - PROCESS.a[t].float() * x_0) / b
    off = beta_t.sqrt() * eps_t - beta_t / b * eps
    # A conditional mean: 0 whatever x_0 and eps are, hence against each of these functions of them.
    for function in (torch.ones_like(eps), eps, x_0, x_0 * eps, (eps > 1).float(), (x_0 > 0).float() * eps):
        assert_average(off * function, 0.0)
    assert (off**2).mean() > 0.2 * beta_t * (1 - beta_t / b**2)  # what the mean leaves open


@pytest.mark.claim("C18")
@pytest.mark.parametrize("sigma2", [beta, posterior])
def test_c18_each_kl_is_a_weighted_error_of_the_noise(sigma2):
    """KL = ||mu_q - mu_theta||^2 / (2 sigma_t^2) + const, and that is the weight times ||eps - eps_theta||^2."""
    t = torch.arange(2, PROCESS.T + 1)
    x_0 = torch.randn(len(t), 3, dtype=torch.float64, generator=seeded())
    eps = torch.randn(
        x_0.shape, dtype=torch.float64, generator=seeded(1)
    )  # what `transition_term` draws from that seed
    var = torch.stack([sigma2(PROCESS, int(i), int(i) - 1) for i in t])

    class Off(nn.Module):
        def __init__(self, error: Tensor) -> None:
            super().__init__()
            self.error = error

        def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
            return eps + self.error

    error = torch.randn(x_0.shape, dtype=torch.float64, generator=seeded(2))
    kl, const = (
        transition_term(Denoiser(PROCESS, Off(e), denoiser.eps), x_0, t, sigma2=sigma2, generator=seeded(1))
        for e in (error, 0 * error)
    )
    # C16: the mean in eps, straight from the betas; two such means differ in proportion to their eps.
    shift = PROCESS.beta[t] / PROCESS.b[t] / (1 - PROCESS.beta[t]).sqrt()
    distance = (shift[:, None] * error).square().sum(1) / (2 * var)
    torch.testing.assert_close(kl - const, distance)
    torch.testing.assert_close(distance, elbo_weight(PROCESS, sigma2)[t] * error.square().sum(1))


@pytest.mark.claim("C18")
def test_c18_the_weight_and_what_the_simple_loss_drops():
    """beta_t^2 / (2 sigma_t^2 alpha_t (1 - abar_t)) falls by a factor of 40 along the chain; the simple loss has 1."""
    process = Process.linear(1000)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)
    expected = (betas**2 / (2 * betas * (1 - betas) * (1 - abar)))[1:]
    weight = elbo_weight(process, beta)
    torch.testing.assert_close(weight[2:], expected)
    assert weight[2] / weight[2:].min() > 40
