"""C07, C08, C09: the variational bound, the two heads, the two losses. Linear decoders are the oracle: with x = W z +
mu + sigma eps the evidence log p(x) and the posterior p(z | x) are exact."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from stats import assert_average, assert_moments, seeded
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import MultivariateNormal
from torch.distributions import Normal as TorchNormal

from ddpm_edu import data
from ddpm_edu.nets.vae import VAE, Bernoulli, Normal
from ddpm_edu.objectives import elbo, importance_bound, vae_loss
from ddpm_edu.process import Gaussian

W = torch.tensor([[1.0, 0.3], [0.0, 0.7]])  # (x, z)
MU = torch.tensor([0.5, -0.2])
SIGMA = 0.6
PRECISION = torch.eye(2) + W.T @ W / SIGMA**2  # of the posterior
GAIN = PRECISION.inverse() @ W.T / SIGMA**2  # the posterior's mean is GAIN (x - MU)
X = torch.tensor([[1.3, -0.4]])  # the datum that most tests look at
EVIDENCE = MultivariateNormal(MU, W @ W.T + SIGMA**2 * torch.eye(2))


class Heads(nn.Module):
    """q(z | x) = N(gain (x - MU) + shift, diag(exp(s))): an encoder given by hand."""

    def __init__(self, gain: Tensor, s: Tensor, shift: float = 0.0) -> None:
        super().__init__()
        self.gain, self.s, self.shift = gain, s, shift

    def forward(self, x: Tensor) -> Tensor:
        m = (x - MU) @ self.gain.T + self.shift
        return torch.cat([m, self.s.expand_as(m)], 1)


class Line(nn.Module):
    """z -> W z + MU."""

    def __init__(self, weight: Tensor = W) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.T + MU


def linear(s: Tensor, gain: Tensor = GAIN, shift: float = 0.0, weight: Tensor = W) -> VAE:
    return VAE(Heads(gain, s, shift), Line(weight), Normal(SIGMA), d_z=2)


BEST = -PRECISION.diag().log()  # log-variances of the best diagonal q: 1 / Lambda_jj
ENCODERS = {
    "the best diagonal q": (BEST, 0.0),
    "too wide": (BEST + 1.0, 0.0),
    "too narrow": (BEST - 1.0, 0.0),
    "beside it": (BEST, 0.3),
}


def gap(s: Tensor, shift: float) -> float:
    """KL(q || posterior) by torch.distributions: the same for every x, since q moves with the posterior's mean."""
    q = MultivariateNormal(torch.full((2,), shift), s.exp().diag())
    return torch.distributions.kl_divergence(q, MultivariateNormal(torch.zeros(2), PRECISION.inverse())).item()


# C07 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C07")
@pytest.mark.parametrize("name", ENCODERS)
def test_c07_the_elbo_misses_the_evidence_by_the_kl_from_the_posterior(name: str):
    s, shift = ENCODERS[name]
    x = X.expand(200_000, 2)
    reconstruction, kl = elbo(linear(s, shift=shift), x, seeded())
    assert_average(reconstruction - kl + gap(s, shift), EVIDENCE.log_prob(x[0]))
    assert gap(s, shift) > 0.01


@pytest.mark.claim("C07")
def test_c07_it_is_tight_iff_q_is_the_posterior():
    """With orthogonal columns the posterior is diagonal: at its own mean and variances one draw is exact, and the
    log weights do not vary at all; a step away in any direction leaves a gap."""
    weight = W * torch.eye(2)
    precision = torch.eye(2) + weight.T @ weight / SIGMA**2
    s, gain = -precision.diag().log(), precision.inverse() @ weight.T / SIGMA**2
    evidence = MultivariateNormal(MU, weight @ weight.T + SIGMA**2 * torch.eye(2))
    x = MU + 1.5 * torch.randn(500, 2, generator=seeded())
    for k in (1, 7):
        exact = importance_bound(linear(s, gain, weight=weight), x, k, seeded())
        torch.testing.assert_close(exact, evidence.log_prob(x), rtol=1e-4, atol=1e-4)
    x = x[:1].expand(100_000, 2)
    for other, shift in ((s + 0.5, 0.0), (s - 0.5, 0.0), (s, 0.3), (s, -0.3)):
        reconstruction, kl = elbo(linear(other, gain, shift, weight), x, seeded())
        short = evidence.log_prob(x) - (reconstruction - kl)
        assert short.mean() > 5 * short.std() / len(x) ** 0.5


@pytest.mark.claim("C07")
def test_c07_log_p_is_elbo_plus_kl_for_a_q_with_two_hills():
    """By numeric integration in 1-D: q need not be normal."""
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    w, mu, sigma, x = 1.5, 0.5, 0.8, torch.tensor(2.0).double()
    one = torch.ones_like(z[:1])
    q = 0.3 * Gaussian(-one, 0.1 * one).log_prob(z).exp() + 0.7 * Gaussian(one, 0.3 * one).log_prob(z).exp()
    prior = Gaussian(0 * one, one).log_prob(z)
    likelihood = Gaussian(w * z + mu, sigma**2 * one).log_prob(x)
    var = w**2 + sigma**2
    posterior = Gaussian(w * (x - mu) / var * one, sigma**2 / var * one).log_prob(z)
    integral = lambda f: torch.trapezoid(torch.nan_to_num(q * f), z)  # noqa: E731
    bound = integral(likelihood) - integral(q.log() - prior)
    exact = Gaussian(mu * one, var * one).log_prob(x)
    torch.testing.assert_close((bound + integral(q.log() - posterior))[None], exact, rtol=0, atol=1e-9)


@pytest.mark.claim("C07")
@pytest.mark.parametrize("name", ENCODERS)
def test_c07_importance_weighting_closes_the_gap_and_never_widens_it(name: str):
    s, shift = ENCODERS[name]
    vae = linear(s, shift=shift)
    x = X.expand(40_000, 2)
    exact = EVIDENCE.log_prob(x[0])
    bounds = {k: importance_bound(vae, x, k, seeded(k)) for k in (1, 2, 4, 16, 64)}
    assert_average(bounds[1] + gap(s, shift), exact)
    for few, many in zip([1, 2, 4, 16], [2, 4, 16, 64], strict=True):
        rise = bounds[many].mean() - bounds[few].mean()
        assert rise > -5 * (bounds[few].var() / len(x) + bounds[many].var() / len(x)).sqrt()
    short = exact - bounds[64].mean()
    error = bounds[64].std() / len(x) ** 0.5
    assert -5 * error < short < 0.2 * gap(s, shift)


# C08 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C08")
def test_c08_the_heads_are_a_mean_and_a_log_variance():
    vae = linear(torch.tensor([-1.0, 0.7]), shift=0.4)
    x = X.expand(200_000, 2)
    m, s = vae.heads(x)
    q = vae.encode(x)
    torch.testing.assert_close(q.mean, m)
    torch.testing.assert_close(q.var, s.exp())
    assert_moments(q.sample(seeded()), m[0], s[0].exp())


@pytest.mark.claim("C08")
def test_c08_the_kl_is_half_of_exp_s_plus_m2_minus_1_minus_s():
    x = torch.randn(50, 2, generator=seeded())
    vae = linear(torch.tensor([-1.0, 0.7]), shift=0.4)
    m, s = vae.heads(x)
    _, kl = elbo(vae, x, seeded())
    torch.testing.assert_close(kl, 0.5 * (s.exp() + m**2 - 1 - s).sum(1))
    q, p = TorchNormal(m, (s / 2).exp()), TorchNormal(torch.zeros_like(m), torch.ones_like(m))
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, p).sum(1))
    q = MultivariateNormal(m[0], s[0].exp().diag())
    z = m[0] + (s[0] / 2).exp() * torch.randn(200_000, 2, generator=seeded(1))
    assert_average(q.log_prob(z) - MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z), kl[0])


@pytest.mark.claim("C08")
def test_c08_the_bound_draws_with_the_deviation_that_its_kl_charges_for():
    """E log p(x | z) is exact for a linear decoder; it tells the variance of the z that `elbo` draws inside."""
    s, x = torch.tensor([-1.0, 0.7]), X.expand(200_000, 2)
    vae = linear(s, shift=0.4)
    m, _ = vae.heads(x[:1])
    at_mean = vae.likelihood.log_prob(x[:1], vae.decode(m))
    spread = lambda var: (var * W.square().sum(0)).sum() / (2 * SIGMA**2)  # noqa: E731
    reconstruction, _ = elbo(vae, x, seeded())
    assert_average(reconstruction, at_mean - spread(s.exp()))
    assert abs(spread(s.exp()) - spread((2 * s).exp())) > 0.5  # what the bug of C08 would draw


@pytest.mark.claim("C08")
def test_c08_draw_and_loss_that_read_the_head_differently_claim_more_than_log_p():
    """exp(sigma) eps beside exp(sigma) - 1 - sigma, trained in 1-D: the variance drawn ends below half of the
    posterior's, the one charged for above it, and the bound above the evidence."""
    lam = 10.0  # w^2 / sigma^2
    head = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([head], 0.05)

    def loss() -> Tensor:
        return 0.5 * lam * (2 * head).exp() + 0.5 * (head.exp() - 1 - head)

    for _ in range(1500):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    drawn, charged, posterior = (2 * head).exp().item(), head.exp().item(), 1 / (1 + lam)
    r = (-1 + math.sqrt(1 + 8 * lam)) / (4 * lam)
    assert drawn == pytest.approx(r**2, rel=1e-4)
    assert drawn < 0.5 * posterior
    assert charged > 2 * posterior
    # Up to what q's variance does not enter, log p(x) is the best of the right bound.
    evidence = -(0.5 * lam * posterior + 0.5 * (posterior - 1 - math.log(posterior)))
    assert -loss().item() > evidence + 0.5


@pytest.mark.claim("C08")
@pytest.mark.parametrize("d", [1, 8])
def test_c08_both_gradients_are_right_and_the_reparameterised_one_varies_less(d: int):
    n, x, w, sigma2 = 100_000, 2.0, 1.5, 0.64
    m = torch.full((n, d), 0.3, dtype=torch.float64, requires_grad=True)
    q = Gaussian(m, torch.full_like(m, 0.6))
    value = lambda z: -((x - w * z) ** 2).sum(1) / (2 * sigma2)  # noqa: E731
    z = q.sample(seeded())
    (path,) = torch.autograd.grad(value(z).sum(), m, retain_graph=True)
    (score,) = torch.autograd.grad((value(z).detach() * q.log_prob(z.detach()).sum(1)).sum(), m)
    for gradient in (path, score):
        assert_average(gradient[:, 0], w * (x - w * 0.3) / sigma2)
    assert score[:, 0].var() > (2 if d == 1 else 50) * path[:, 0].var()


# C09 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C09")
@pytest.mark.parametrize("shape", [(5, 2), (3, 1, 6, 6)])
def test_c09_reconstructions_are_log_likelihoods_in_nats(shape: tuple[int, ...]):
    """A sum over elements, the squared error with its 1 / (2 sigma^2) and its constants; the cross-entropy."""
    x, y = torch.randn(shape, generator=seeded()), torch.randn(shape, generator=seeded(1))
    total = TorchNormal(y, 0.3).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(Normal(0.3).log_prob(x, y), total)
    n = x[0].numel()
    squared = (x - y).square().flatten(1).sum(1)
    torch.testing.assert_close(total, -squared / (2 * 0.09) - n * math.log(0.3) - n / 2 * math.log(2 * math.pi))
    bits = (x > 0).float()
    expected = TorchBernoulli(logits=y).log_prob(bits).flatten(1).sum(1)
    torch.testing.assert_close(Bernoulli().log_prob(bits, y), expected)


def linear_digits() -> VAE:
    """One linear map each way between 28 x 28 pixels and 2 latents."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 4))
    decoder = nn.Sequential(nn.Linear(2, 784), nn.Unflatten(1, (1, 28, 28)))
    return VAE(encoder, decoder, Bernoulli(), d_z=2)


def mean_beside_sum(vae: VAE, x: Tensor, generator: torch.Generator) -> Tensor:
    """The slip: PyTorch's default mean over pixels and batch, beside a divergence summed over latents."""
    q = vae.encode(x)
    m, s = vae.heads(x)
    kl = 0.5 * (s.exp() + m**2 - 1 - s).sum(1).mean()
    return F.binary_cross_entropy_with_logits(vae.decode(q.sample(generator)), x) + kl


@pytest.mark.claim("C09")
def test_c09_a_mean_beside_a_sum_is_another_beta():
    """Its gradients are those of beta = 784, divided by 784."""
    vae = linear_digits()
    x = (data.digits("test")[0][:16] > 127).float()[:, None]
    slip = torch.autograd.grad(mean_beside_sum(vae, x, seeded()), list(vae.parameters()))
    meant = torch.autograd.grad(vae_loss(vae, x, 784.0, seeded()), list(vae.parameters()))
    for a, b in zip(slip, meant, strict=True):
        torch.testing.assert_close(784 * a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.claim("C09")
def test_c09_an_averaged_squared_error_is_a_decoder_of_variance_half_the_number_of_pixels():
    x, y = torch.randn(2, 4, 1, 28, 28, generator=seeded())
    y.requires_grad_()
    likelihood = Normal((784 / 2) ** 0.5)
    (averaged,) = torch.autograd.grad(F.mse_loss(y, x), y)
    (in_nats,) = torch.autograd.grad(-likelihood.log_prob(x, y).mean(), y)
    torch.testing.assert_close(averaged, in_nats, rtol=1e-4, atol=0)


@pytest.mark.claim("C09")
def test_c09_which_collapses_the_posterior_and_the_right_units_do_not():
    x = (data.digits("train")[0][:2000] > 127).float()[:, None]
    rates = {}
    for name, loss in {
        "slip": mean_beside_sum,
        "right": lambda *args: vae_loss(args[0], args[1], 1.0, args[2]),
    }.items():
        vae, generator = linear_digits(), seeded()
        optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
        for _ in range(300):
            optimizer.zero_grad()
            loss(vae, x[torch.randint(len(x), (64,), generator=generator)], generator).backward()
            optimizer.step()
        with torch.no_grad():
            rates[name] = elbo(vae, x, generator)[1].mean().item()
    assert rates["slip"] < 0.02
    assert rates["right"] > 1


@pytest.mark.claim("C09")
def test_c09_a_latent_lives_while_its_variance_exceeds_beta_sigma2():
    """Data of variances a_j, a linear encoder and decoder, sigma fixed: the trained rate of latent j is
    max(0, log(a_j / (beta sigma^2)) / 2)."""
    torch.manual_seed(0)
    a, sigma2 = torch.tensor([1.0, 0.25], dtype=torch.float64), 0.04
    beta = torch.logspace(0, 2, 8, dtype=torch.float64)
    encoder, decoder = (torch.randn(8, 2, 2, dtype=torch.float64).mul(0.3).requires_grad_() for _ in range(2))
    s = torch.zeros(8, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([encoder, decoder, s], 0.02)
    for _ in range(1800):
        rest = torch.eye(2) - decoder @ encoder
        missed = (rest**2 * a).sum((1, 2)) + (s.exp()[:, None] * decoder**2).sum((1, 2))
        rate = 0.5 * (s.exp() + (encoder**2 * a).sum(2) - 1 - s)
        optimizer.zero_grad()
        (missed / (2 * sigma2) + beta * rate.sum(1)).sum().backward()
        optimizer.step()
    exact = (0.5 * torch.log(a / (beta[:, None] * sigma2))).clamp(min=0)
    torch.testing.assert_close(rate.detach().sort(1, descending=True).values, exact, rtol=0, atol=0.02)
