"""The loss, and the bound on a chain where log p(x_0) is known exactly."""

from __future__ import annotations

import pytest
import torch
from stats import assert_average, seeded
from torch import Tensor, nn
from torch.distributions import Normal

from ddpm_edu import denoiser
from ddpm_edu.denoiser import Denoiser, ExactDenoiser, Prediction
from ddpm_edu.objectives import decoder_term, diffusion_errors, diffusion_loss, elbo_weight, prior_term, transition_term
from ddpm_edu.process import Gaussian, Process, like
from ddpm_edu.samplers import beta, posterior

PROCESS = Process.linear(40, beta_T=0.2)


class Says(nn.Module):
    """A network that gives one answer whatever it is asked, and keeps the question."""

    def __init__(self, answer: Tensor | float) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_t: Tensor, t: Tensor, cond=None) -> Tensor:
        self.x_t, self.t, self.cond = x_t, t, cond
        return torch.zeros_like(x_t) + self.answer


# The loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", denoiser.TARGETS)
def test_errors_are_of_what_the_network_predicts(name: str):
    target = denoiser.TARGETS[name]
    x_0, eps = torch.randn(2, 3, 1, 4, 4, generator=seeded())
    t = torch.tensor([1, 20, 40])
    a, b = like(PROCESS.a[t], x_0), like(PROCESS.b[t], x_0)
    y = target.of(x_0, eps, a, b)
    right = Denoiser(PROCESS, Says(y), target)
    assert (diffusion_errors(right, x_0, t, eps, "cond") == 0).all()
    torch.testing.assert_close(right.net.x_t, a * x_0 + b * eps)
    assert torch.equal(right.net.t, t)
    assert right.net.cond == "cond"
    off = torch.tensor([1.0, 2.0, 3.0])
    wrong = Denoiser(PROCESS, Says(y + like(off, y)), target)
    torch.testing.assert_close(diffusion_errors(wrong, x_0, t, eps), off**2)  # the mean over a row's elements


def test_loss_draws_t_uniformly_and_eps_from_the_generator():
    process = Process.linear(5)
    denoise = Denoiser(process, Says(0.0), denoiser.eps)
    x_0 = torch.zeros(20_000, 1)
    loss = diffusion_loss(denoise, x_0, "cond", seeded())
    net = denoise.net
    for t in range(1, 6):
        assert_average((net.t == t).double(), 0.2)
    assert net.cond == "cond"
    eps = net.x_t / like(process.b[net.t], x_0)  # x_0 is 0
    assert_average(eps, 0.0)
    assert_average(eps**2, 1.0)
    assert float(loss) == pytest.approx(float((eps**2).mean()), rel=1e-4)  # the error of answering 0
    assert float(diffusion_loss(denoise, x_0, generator=seeded())) == float(loss)
    assert float(diffusion_loss(denoise, x_0, generator=seeded(1))) != float(loss)


def test_loss_reaches_the_weights():
    net = Says(nn.Parameter(torch.zeros(())))
    diffusion_loss(Denoiser(PROCESS, net, denoiser.eps), torch.zeros(8, 2)).backward()
    assert net.answer.grad.abs() > 0


@pytest.mark.parametrize("t", [0, 41])
def test_t_is_checked(t: int):
    with pytest.raises(ValueError, match=r"t must be in 1\.\.40"):
        diffusion_errors(
            Denoiser(PROCESS, Says(0.0), denoiser.eps), torch.zeros(2, 1), torch.full((2,), t), torch.zeros(2, 1)
        )
    with pytest.raises(ValueError, match=r"t must be in 2\.\.40"):
        transition_term(Denoiser(PROCESS, Says(0.0), denoiser.eps), torch.zeros(2, 1), torch.full((2,), min(t, 1)))


# The bound ------------------------------------------------------------------------------------------------------------


def test_the_bound_is_tight_where_the_model_is_exact():
    """Data N(0, I), the exact denoiser and sigma2 = beta: then p is q run backwards, and
    prior + sum of transitions + decoder = -log N(x_0; 0, I) for every single x_0. No term is 0.

    The decoder is taken as a density here, N(E[x_0 | x_1], beta_1); `decoder_term` is for pictures.
    """
    n, x = 4000, torch.tensor([0.3, -1.5], dtype=torch.float64)
    exact = ExactDenoiser(PROCESS, [1.0], [[0.0, 0.0]], 1.0)
    x_0, generator = x.expand(n, 2), seeded()
    total = prior_term(PROCESS, x_0)
    for t in range(2, PROCESS.T + 1):
        total = total + transition_term(exact, x_0, torch.full((n,), t), generator=generator)
    x_1 = PROCESS.marginal(x_0, 1).sample(generator)
    decoder = Gaussian(exact(x_1, 1).x_0, PROCESS.beta[1])
    assert_average(total - decoder.log_prob(x_0).sum(1), -Normal(0, 1).log_prob(x).sum())


def test_a_worse_model_has_a_larger_bound():
    """The posterior variance in place of beta, or a denoiser that is off: the KL can only grow."""
    x_0, t = torch.randn(2000, 1, generator=seeded()), torch.full((2000,), 10)
    exact = ExactDenoiser(PROCESS, [1.0], [[0.0]], 1.0)
    off = ExactDenoiser(PROCESS, [1.0], [[0.0]], 0.3)
    best = transition_term(exact, x_0, t, generator=seeded(1)).mean()
    assert transition_term(exact, x_0, t, sigma2=posterior, generator=seeded(1)).mean() > best
    assert transition_term(off, x_0, t, generator=seeded(1)).mean() > best


def test_prior_term():
    """KL to N(0, I), summed over the elements; nearly 0 for a long chain, whatever the network."""
    x_0 = torch.randn(3, 1, 2, 2, generator=seeded())
    q = Normal(PROCESS.a[-1].float() * x_0, PROCESS.b[-1].float())
    expected = torch.distributions.kl_divergence(q, Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(prior_term(PROCESS, x_0), expected, rtol=1e-4, atol=1e-6)
    assert (prior_term(Process.linear(1000), x_0) < 1e-3).all()


@pytest.mark.parametrize("sigma2", [beta, posterior])
def test_elbo_weight_is_what_multiplies_the_squared_noise_error(sigma2):
    """L_{t-1} of two networks, one right and one off by a constant in eps: their difference over the squared error."""
    x_0 = torch.randn(PROCESS.T - 1, 3, dtype=torch.float64, generator=seeded())
    t = torch.arange(2, PROCESS.T + 1)
    eps = torch.randn(x_0.shape, dtype=torch.float64, generator=seeded(1))  # what `transition_term` will draw
    right, off = (Denoiser(PROCESS, Says(eps + error), denoiser.eps) for error in (0.0, 0.7))
    terms = [transition_term(d, x_0, t, sigma2=sigma2, generator=seeded(1)) for d in (off, right)]
    weight = elbo_weight(PROCESS, sigma2)
    assert weight.shape == (PROCESS.T + 1,)
    assert weight[:2].isnan().all()
    torch.testing.assert_close((terms[0] - terms[1]) / (3 * 0.7**2), weight[2:], rtol=1e-6, atol=1e-9)


# The decoder of pictures ----------------------------------------------------------------------------------------------


class Knows:
    """A denoiser that predicts one picture, whatever it sees."""

    def __init__(self, process: Process, x_0: Tensor) -> None:
        self.process, self.x_0 = process, x_0

    def __call__(self, x_t: Tensor, t: Tensor, cond=None) -> Prediction:
        return Prediction(self.x_0.expand_as(x_t), x_t)


def levels(bins: int) -> Tensor:
    return torch.linspace(-1, 1, bins, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("bins", [2, 256])
@pytest.mark.parametrize("mean", [-1.7, -1.0, -0.3, 0.0, 0.99, 4.0])
@pytest.mark.parametrize("beta_1", [1e-4, 0.05])
def test_decoder_is_a_distribution_over_the_levels(bins: int, mean: float, beta_1: float):
    denoise = Knows(Process.linear(3, beta_1, 0.5), torch.tensor([[mean]], dtype=torch.float64))
    nats = decoder_term(denoise, levels(bins), bins=bins)
    assert nats.isfinite().all()
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mean", [0.2, -0.95, 0.97])
def test_decoder_is_the_normal_mass_of_each_bin(mean: float):
    """Directly from Normal.cdf, where that has digits (within 5 sigma), the open bins at the ends included."""
    process = Process.linear(3, 0.01, 0.5)
    nats = decoder_term(Knows(process, torch.tensor([[mean]], dtype=torch.float64)), levels(256))
    p = Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64))
    ends = torch.tensor([torch.inf], dtype=torch.float64)
    edges = torch.cat([-ends, (levels(256)[1:, 0] + levels(256)[:-1, 0]) / 2, ends])
    expected = -p.cdf(edges).diff().log()
    near = (levels(256)[:, 0] - mean).abs() < 0.5
    torch.testing.assert_close(nats[near], expected[near], rtol=1e-6, atol=1e-6)


def test_decoder_sums_over_pixels_and_is_symmetric():
    process = Process.linear(3, 0.01, 0.5)
    picture = levels(256)[torch.randint(256, (5, 4), generator=seeded()), 0].reshape(5, 1, 2, 2)
    nats = decoder_term(Knows(process, torch.zeros(())), picture)
    assert nats.shape == (5,)
    single = decoder_term(Knows(process, torch.zeros(())), picture.reshape(-1, 1)).reshape(5, 4).sum(1)
    torch.testing.assert_close(nats, single)
    torch.testing.assert_close(nats, decoder_term(Knows(process, torch.zeros(())), -picture))


def test_decoder_asks_at_t_1():
    """The denoiser sees x_1 ~ q(x_1 | x_0) and t = 1, and the condition."""
    process = Process.linear(3, 0.01, 0.5)
    net = Says(0.0)
    decoder_term(Denoiser(process, net, denoiser.x_0), torch.full((20_000, 1), 0.5), cond="cond", generator=seeded())
    assert (net.t == 1).all()
    assert net.cond == "cond"
    assert_average(net.x_t, 0.5 * 0.99**0.5)
    assert_average((net.x_t - 0.5 * 0.99**0.5) ** 2, 0.01)
