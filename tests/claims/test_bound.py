"""C13 to C16: the step back, and the bound it makes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import sympy
import torch
from stats import assert_average, seeded
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from ddpm_edu.denoiser import ExactDenoiser
from ddpm_edu.objectives import prior_term, transition_term
from ddpm_edu.process import Gaussian, Process
from ddpm_edu.samplers import Variance, beta, posterior

SCHEDULES = [Process.linear(1000), Process.cosine(1000), Process.linear(40, 0.0025, 0.5)]
CHAIN = Process.linear(8, 0.02, 0.4)  # short enough for every term to matter, the prior's too


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# C14: Bayes -----------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C14")
@pytest.mark.parametrize("process", SCHEDULES, ids=repr)
def test_c14_bayes_holds_at_every_step(process: Process):
    """log q(x_{t-1} | x_t, x_0) = log q(x_t | x_{t-1}) + log q(x_{t-1} | x_0) - log q(x_t | x_0), t = 2..T."""
    t = torch.arange(2, process.T + 1)
    x_0, x_prev, x_t = draws(3, len(t), 2)
    back = process.posterior(x_0, x_t, t).log_prob(x_prev)
    forward = process.step(x_prev, t).log_prob(x_t) + process.marginal(x_0, t - 1).log_prob(x_prev)
    torch.testing.assert_close(back, forward - process.marginal(x_0, t).log_prob(x_t), rtol=1e-6, atol=1e-6)


@pytest.mark.claim("C14")
def test_c14_it_takes_the_markov_property():
    """On tables, where conditionals are sums and quotients: right for a chain, wrong for one that remembers x_0."""

    def rows(*shape: int) -> Tensor:
        table = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return table / table.sum(-1, keepdim=True)

    generator = seeded()
    start, first, second, peeking = rows(4), rows(4, 4), rows(4, 4), rows(4, 4, 4)
    for joint, markov in (
        (torch.einsum("i,ij,jk->ijk", start, first, second), True),
        (torch.einsum("i,ij,ijk->ijk", start, first, peeking), False),
    ):
        by_definition = joint / joint.sum(1, keepdim=True)
        x_2_given_1 = joint.sum(0) / joint.sum((0, 2))[:, None]
        x_2_given_0 = joint.sum(1) / joint.sum((1, 2))[:, None]
        by_bayes = first[:, :, None] * x_2_given_1[None] / x_2_given_0[:, None]
        assert torch.allclose(by_definition, by_bayes) == markov


@pytest.mark.claim("C14")
def test_c14_without_x_0_it_is_another_distribution():
    """Two points as data. The mixture of posteriors over q(x_0 | x_t) is q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t) on
    a grid: it depends on the data's shares, and dividing by q(x_t) in the conditional form does not integrate to 1."""
    process, t, s, x_t = Process.linear(1000), 300, 200, 0.1
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    points, x = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.full((2,), x_t, dtype=torch.float64)
    at, means = torch.full_like(grid, x_t), []
    r, v = process.transition(s, t)
    for shares in ([0.3, 0.7], [0.9, 0.1]):
        data = ExactDenoiser(process, shares, points[:, None], 0.0)
        share = torch.tensor(shares, dtype=torch.float64)
        likelihood = process.marginal(points, t).log_prob(x).exp()
        weight = share * likelihood / (share * likelihood).sum()
        each = process.posterior(points, x, t, s)
        mixed = (weight[:, None] * Gaussian(each.mean[:, None], each.var[:, None]).log_prob(grid).exp()).sum(0)
        log_q = Gaussian(r * grid, v).log_prob(at) + data.log_prob(grid[:, None], s) - data.log_prob(at[:, None], t)
        torch.testing.assert_close(mixed, log_q.exp(), rtol=1e-6, atol=1e-9)
        means.append((grid * mixed).sum() / mixed.sum())
        wrong = process.step(grid, t).log_prob(at) + process.marginal(points[:1].expand(6001), t - 1).log_prob(grid)
        total = (wrong.exp() / (share * likelihood).sum()).sum() * (grid[1] - grid[0])
        assert abs(total - likelihood[0] / (share * likelihood).sum()) < 1e-6
        assert abs(total - 1) > 0.01
    assert abs(means[0] - means[1]) > 0.1


@pytest.mark.claim("C14")
def test_c14_the_average_kl_is_minimised_by_the_unknown_reverse():
    """E_{q(x_0 | x_t)} KL(q(. | x_t, x_0) || p) - KL(q(. | x_t) || p) is one number for every p: its minimiser over
    Gaussians has the mean and the variance of q(x_{t-1} | x_t)."""
    process, grid = Process.linear(1000), torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    points, x = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.full((2,), 0.1, dtype=torch.float64)
    weight = (torch.tensor([0.3, 0.7]).double().log() + process.marginal(points, 300).log_prob(x)).softmax(0)
    each = process.posterior(points, x, 300, 280)
    blend = (weight[:, None] * Gaussian(each.mean[:, None], each.var[:, None]).log_prob(grid).exp()).sum(0)
    mean = (weight * each.mean).sum()
    var = (weight * (each.var + each.mean**2)).sum() - mean**2
    constants, averages = [], []
    for m, s2 in ((mean, var), (mean + 0.1, var), (mean, 1.5 * var), (mean, 0.7 * var)):
        p = Gaussian(m, s2)
        averages.append((weight * each.kl(p)).sum())
        of_blend = (torch.special.xlogy(blend, blend) - blend * p.log_prob(grid)).sum() * (grid[1] - grid[0])
        constants.append(averages[-1] - of_blend)
    torch.testing.assert_close(torch.stack(constants), constants[0].expand(4), atol=1e-6, rtol=0)
    assert min(averages) == averages[0]


# C15: mean and variance -----------------------------------------------------------------------------------------------


@pytest.mark.claim("C15")
def test_c15_completing_the_square():
    """Symbolically, with the constant that is left: q(x_t | x_0)."""
    x, x_0, x_t = sympy.symbols("x x_0 x_t", real=True)
    a, r = sympy.symbols("a r", positive=True)  # sqrt(abar_{t-1}), sqrt(alpha_t)
    before, step, now = 1 - a**2, 1 - r**2, 1 - a**2 * r**2
    square = (x - a * x_0) ** 2 / before + (x_t - r * x) ** 2 / step
    mean, var = (a * step * x_0 + r * before * x_t) / now, step * before / now
    left = square - (x - mean) ** 2 / var - (x_t - a * r * x_0) ** 2 / now
    assert sympy.cancel(sympy.together(left)) == 0
    assert sympy.cancel(step * before - var * now) == 0
    assert mean.subs(a, 1).equals(x_0)
    assert var.subs(a, 1) == 0


@pytest.mark.claim("C15")
@pytest.mark.parametrize("process", SCHEDULES, ids=repr)
def test_c15_is_the_conditional_of_the_joint_gaussian(process: Process):
    """Mean and variance as stated, and by linear algebra from the covariance of (x_{t-1}, x_t) given x_0, t = 1..T."""
    t = torch.arange(1, process.T + 1)
    x_0, x_t = draws(2, process.T)
    ab, alpha, b = process.alpha_bar, process.alpha[t], process.beta[t]
    got = process.posterior(x_0, x_t, t)
    of_x_0, of_x_t = ab[t - 1].sqrt() * b / (1 - ab[t]), alpha.sqrt() * (1 - ab[t - 1]) / (1 - ab[t])
    torch.testing.assert_close(got.mean, of_x_0 * x_0 + of_x_t * x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.var, b * (1 - ab[t - 1]) / (1 - ab[t]), rtol=1e-9, atol=1e-12)
    cross, total = alpha.sqrt() * (1 - ab[t - 1]), alpha * (1 - ab[t - 1]) + b
    mean = ab[t - 1].sqrt() * x_0 + cross / total * (x_t - (alpha * ab[t - 1]).sqrt() * x_0)
    torch.testing.assert_close(got.mean, mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(got.var, 1 - ab[t - 1] - cross**2 / total, rtol=1e-6, atol=1e-9)


@pytest.mark.claim("C15")
@pytest.mark.parametrize("t", [2, 3, 6])
def test_c15_is_what_the_forward_process_shows(t: int):
    """Chains from x_0, step by step: what is left of x_{t-1} has mean 0, no link to x_t, and the stated variance."""
    x = torch.full((200_000,), 0.8, dtype=torch.float64)
    generator = seeded(t)
    for k in range(1, t + 1):
        before, x = x, CHAIN.step(x, k).sample(generator)
    q = CHAIN.posterior(torch.full_like(x, 0.8), x, t)
    left = before - q.mean
    for linked in (left, left * x, left * (x > 0.5), left**2 - q.var):
        assert_average(linked, 0.0)
    assert left.var() / CHAIN.beta[t] < 0.95  # beta_t is too large a variance


@pytest.mark.claim("C15")
@pytest.mark.parametrize("process", SCHEDULES, ids=repr)
def test_c15_at_the_first_step_it_is_the_point_x_0(process: Process):
    x_0, x_1 = draws(2, 5, 3)
    q = process.posterior(x_0, x_1, 1)
    torch.testing.assert_close(q.mean, x_0)
    assert (q.var == 0).all()


# C16: in terms of the noise -------------------------------------------------------------------------------------------


@pytest.mark.claim("C16")
def test_c16_substitution():
    """Symbolically: C15's mean with x_0 from x_t and eps; and the two that leave something out differ from it."""
    x_t, eps = sympy.symbols("x_t epsilon", real=True)
    a, r = sympy.symbols("a r", positive=True)
    before, step, now = 1 - a**2, 1 - r**2, 1 - a**2 * r**2
    x_0 = (x_t - sympy.sqrt(now) * eps) / (a * r)
    mean = (a * step * x_0 + r * before * x_t) / now
    assert sympy.simplify(mean - (x_t - step / sympy.sqrt(now) * eps) / r) == 0
    for wrong in (x_t - eps, x_t - step / sympy.sqrt(now) * eps, (x_t - sympy.sqrt(step) * eps) / r):
        assert sympy.simplify(mean - wrong) != 0


@pytest.mark.claim("C16")
@pytest.mark.parametrize("process", SCHEDULES, ids=repr)
def test_c16_is_the_mean_of_the_step_back(process: Process):
    t = torch.arange(1, process.T + 1)
    x_0, eps = draws(2, process.T, 1)
    x_t = process.a[t, None] * x_0 + process.b[t, None] * eps
    share = (process.beta[t] / process.b[t])[:, None]
    torch.testing.assert_close(
        (x_t - share * eps) / process.alpha[t, None].sqrt(),
        process.posterior(x_0, x_t, t).mean,
        rtol=1e-6,
        atol=1e-9,
    )


@pytest.mark.claim("C16")
def test_c16_subtracting_the_noise_ends_elsewhere():
    """With the exact E[eps | x_t] and fresh noise of the posterior's variance, walked back from T: the mean of C16 has
    the mixture's E x_0^2; the three that leave the coefficient or the rescaling out do not."""
    process, n = Process.linear(1000), 2000
    exact = ExactDenoiser(process, [0.3, 0.7], [[-1.0], [1.0]], 0.04)
    rules = {
        "C16": lambda x, eps, t: (x - process.beta[t] / process.b[t] * eps) / process.alpha[t].sqrt(),
        "subtract eps": lambda x, eps, t: x - eps,
        "eps as the last step's": lambda x, eps, t: (x - process.beta[t].sqrt() * eps) / process.alpha[t].sqrt(),
        "no rescaling": lambda x, eps, t: x - process.beta[t] / process.b[t] * eps,
    }
    for name, rule in rules.items():
        generator = seeded()
        x = torch.randn(n, 1, generator=generator, dtype=torch.float64)
        for t in range(process.T, 0, -1):
            fresh = torch.randn(n, 1, generator=generator, dtype=torch.float64)
            x = rule(x, exact(x, t).eps, t) + posterior(process, t, t - 1).sqrt() * fresh
        off = (x**2).mean() - 1.04
        assert (abs(off) < 4 * (x**2).std() / n**0.5) == (name == "C16"), name


# C13: the bound -------------------------------------------------------------------------------------------------------


def model(m: float, s2: float, sigma2: Variance) -> tuple[Tensor, Tensor, Tensor]:
    """k, c, v of p(x_{t-1} | x_t) = N(k x_t + c, v), t = 1..T of CHAIN: the posterior's mean at E[x_0 | x_t] for data
    N(m, s2), with variance sigma2 (beta_1 at t = 1). (T,) each."""
    t = torch.arange(1, CHAIN.T + 1)
    zero, one = torch.zeros(CHAIN.T, 1, dtype=torch.float64), torch.ones(CHAIN.T, 1, dtype=torch.float64)
    exact = ExactDenoiser(CHAIN, [1.0], [[m]], s2)
    at_0, at_1 = (CHAIN.posterior(exact(x, t).x_0, x, t).mean[:, 0] for x in (zero, one))
    v = torch.cat([CHAIN.beta[1:2], sigma2(CHAIN, t[1:], t[1:] - 1)])
    return at_1 - at_0, at_0, v


def backward_chain(k: Tensor, c: Tensor, v: Tensor) -> MultivariateNormal:
    """p(x_{0:T}), with p(x_T) = N(0, 1)."""
    T = len(k)
    root = torch.linalg.inv(torch.eye(T + 1, dtype=torch.float64) - torch.diag(k, 1))
    one = torch.ones(1, dtype=torch.float64)
    return MultivariateNormal(root @ torch.cat([c, 0 * one]), root @ torch.diag(torch.cat([v, one])) @ root.T)


def forward_chain(x_0: Tensor) -> MultivariateNormal:
    """q(x_{1:T} | x_0)."""
    a, b2 = CHAIN.a[1:], CHAIN.b[1:] ** 2
    first = torch.minimum(torch.arange(CHAIN.T)[:, None], torch.arange(CHAIN.T))
    return MultivariateNormal(a * x_0, a[:, None] * a / a[first] ** 2 * b2[first])


def given_x_0(p: MultivariateNormal, x_0: Tensor) -> tuple[Tensor, MultivariateNormal]:
    """log p(x_0), and p(x_{1:T} | x_0)."""
    mean, cov = p.mean, p.covariance_matrix
    gain = cov[1:, 0] / cov[0, 0]
    rest = cov[1:, 1:] - gain[:, None] * cov[0, 1:]
    return Normal(mean[0], cov[0, 0].sqrt()).log_prob(x_0), MultivariateNormal(
        mean[1:] + gain * (x_0 - mean[0]), (rest + rest.T) / 2
    )


@pytest.mark.claim("C13")
@pytest.mark.parametrize("sigma2", [beta, posterior])
@pytest.mark.parametrize(("m", "s2", "x_0"), [(0.5, 0.36, 0.9), (-0.3, 1.5, -1.0), (0.0, 1.0, 2.0)])
def test_c13_the_bound_is_log_p_less_the_kl_of_the_chains(sigma2: Variance, m: float, s2: float, x_0: float):
    """The three terms as the package computes them, by Monte Carlo, against log p(x_0) - KL(q(x_{1:T} | x_0) ||
    p(x_{1:T} | x_0)) from linear algebra, which knows nothing of the three terms."""
    n, generator, at = 40_000, seeded(), torch.tensor(x_0, dtype=torch.float64)
    k, c, v = model(m, s2, sigma2)
    exact, x = ExactDenoiser(CHAIN, [1.0], [[m]], s2), at.expand(n, 1)
    terms = prior_term(CHAIN, x)
    for t in range(2, CHAIN.T + 1):
        terms = terms + transition_term(exact, x, torch.full((n,), t), sigma2=sigma2, generator=generator)
    x_1 = CHAIN.marginal(x, 1).sample(generator)
    terms = terms - Gaussian(k[0] * x_1 + c[0], v[0]).log_prob(x)[:, 0]
    log_p, back = given_x_0(backward_chain(k, c, v), at)
    gap = kl_divergence(forward_chain(at), back)
    assert gap > -1e-9
    assert_average(-terms, log_p - gap)


@pytest.mark.claim("C13")
def test_c13_it_is_tight_where_the_steps_back_are_exact():
    """Data N(0, 1), variance beta: no gap. Another variance, of the data or of the steps: a gap. A model that is right
    for other data, N(0.4, 1), is wrong here and has next to none: the gap compares steps, not data."""
    for x_0 in torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64):
        log_p, back = given_x_0(backward_chain(*model(0.0, 1.0, beta)), x_0)
        torch.testing.assert_close(log_p, Normal(0, 1).log_prob(x_0))
        assert kl_divergence(forward_chain(x_0), back).abs() < 1e-8
        for k, c, v in (model(0.0, 1.0, posterior), model(0.0, 0.3, beta)):
            assert kl_divergence(forward_chain(x_0), given_x_0(backward_chain(k, c, v), x_0)[1]) > 0.01
        _, back = given_x_0(backward_chain(*model(0.4, 1.0, beta)), x_0)
        assert kl_divergence(forward_chain(x_0), back) < 0.02


@pytest.mark.claim("C13")
def test_c13_line_by_line():
    """On 50,000 chains: each rewriting is the same number for every chain, the last has the same mean, and the first is
    log p(x_0) by importance sampling."""
    n, T, generator = 50_000, CHAIN.T, seeded(2)
    k, c, v = model(0.5, 0.36, beta)
    x = [torch.full((n,), 0.9, dtype=torch.float64)]
    for t in range(1, T + 1):
        x.append(CHAIN.step(x[-1], t).sample(generator))
    start = Gaussian(torch.zeros(n).double(), torch.ones(1).double())
    steps = [Gaussian(k[t - 1] * x[t] + c[t - 1], v[t - 1]) for t in range(1, T + 1)]
    posteriors = [CHAIN.posterior(x[0], x[t], t) for t in range(2, T + 1)]
    p = [step.log_prob(x[t]) for t, step in enumerate(steps)]
    q = [CHAIN.step(x[t - 1], t).log_prob(x[t]) for t in range(1, T + 1)]
    jump = [CHAIN.marginal(x[0], t).log_prob(x[t]) for t in range(1, T + 1)]
    back = [post.log_prob(x[t]) for t, post in enumerate(posteriors, 1)]
    chains = start.log_prob(x[T]) + sum(p) - sum(q)
    turned = start.log_prob(x[T]) + p[0] - jump[0] + sum(p[1:]) - sum(back)
    turned = turned + sum(a - b for a, b in pairwise(jump))
    telescoped = start.log_prob(x[T]) - jump[-1] + p[0] + sum(p[1:]) - sum(back)
    kls = [post.kl(step) for post, step in zip(posteriors, steps[1:], strict=True)]
    terms = p[0] - CHAIN.marginal(x[0], T).kl(start) - sum(kls)
    torch.testing.assert_close(turned, chains, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(telescoped, chains, rtol=1e-7, atol=1e-7)
    log_p, reverse = given_x_0(backward_chain(k, c, v), x[0][0])
    expected = log_p - kl_divergence(forward_chain(x[0][0]), reverse)
    assert_average(chains, expected)
    assert_average(terms, expected)
    assert_average((chains - log_p).exp(), 1.0)
    for t, kl in enumerate(kls, 1):  # term by term the KL fluctuates less than the ratio whose mean it is
        assert kl.std() < (back[t - 1] - p[t]).std()


@pytest.mark.claim("C13")
def test_c13_a_model_that_sees_x_0_bounds_nothing():
    """With p(x_{t-1} | x_t, x_0) = q all KLs are 0; what is left exceeds minus the data's entropy. No density can:
    the honest model stays below it."""
    process, s = Process.linear(1000), 0.6
    x_0 = 0.5 + s * draws(2000, 1)
    ceiling = -0.5 * math.log(2 * math.pi * math.e * s**2)
    peeking = -0.5 * math.log(2 * math.pi * float(process.beta[1])) - prior_term(process, x_0).mean()
    assert peeking > ceiling + 4
    k, c, v = model(0.5, s**2, beta)
    honest = sum(given_x_0(backward_chain(k, c, v), x)[0] for x in x_0[:200, 0]) / 200
    assert honest < ceiling + 4 * 0.71 / 200**0.5  # the deviation of log p under its own Gaussian is sqrt(1/2)


@pytest.mark.claim("C13")
def test_c13_kl_of_gaussians_and_of_two_variances():
    """`Gaussian.kl` against quadrature; and KL with beta_t = r KL with beta tilde + d/2 (r - 1 - log r), r their ratio,
    for one network: what the kept table of bits per dimension computes its second variance by."""
    grid = torch.linspace(-15, 15, 60_001, dtype=torch.float64)
    for m_1, v_1, m_2, v_2 in ((0.3, 0.5, -0.4, 0.9), (1.0, 2.0, 1.0, 0.5)):
        q, p = (Gaussian(torch.tensor(m).double(), torch.tensor(v).double()) for m, v in ((m_1, v_1), (m_2, v_2)))
        log_q, log_p = q.log_prob(grid), p.log_prob(grid)
        integral = (log_q.exp() * (log_q - log_p)).sum() * (grid[1] - grid[0])
        torch.testing.assert_close(q.kl(p), integral)
    exact = ExactDenoiser(CHAIN, [0.3, 0.7], [[-1.0, 0.0, 1.0], [1.0, 0.5, 0.0]], 0.1)
    t = torch.arange(2, CHAIN.T + 1)
    x_0 = draws(len(t), 3)
    small, large = (transition_term(exact, x_0, t, sigma2=sigma2, generator=seeded(1)) for sigma2 in (posterior, beta))
    r = (CHAIN.b[t - 1] / CHAIN.b[t]) ** 2
    torch.testing.assert_close(large, r * small + 3 / 2 * (r - 1 - r.log()))


@pytest.mark.claim("C13")
def test_c13_strata_of_t_are_unbiased():
    """A stratum's mean times its width, summed, is the sum over all t within its standard error."""
    exact, n = ExactDenoiser(CHAIN, [0.3, 0.7], [[-1.0], [1.0]], 0.1), 20_000
    x_0, generator = exact.sample(n, seeded()).double(), seeded(1)
    every = [transition_term(exact, x_0, torch.full((n,), t), generator=generator) for t in range(2, CHAIN.T + 1)]
    sampled = torch.zeros(n, dtype=torch.float64)
    for low, high in pairwise((2, 3, 5, 8, CHAIN.T + 1)):
        t = torch.randint(low, high, (n,), generator=generator)
        sampled += (high - low) * transition_term(exact, x_0, t, generator=generator)
    assert_average(sampled - sum(every), 0.0)
