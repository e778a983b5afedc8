"""C19, C20, C21: sampling, what its noise is for, and the score."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from stats import Z, assert_average, assert_moments, seeded
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from ddpm_edu.data import eight_gaussians
from ddpm_edu.denoiser import ExactDenoiser
from ddpm_edu.process import Process
from ddpm_edu.samplers import State, ancestral, beta, ddim, langevin, none, posterior

LINEAR = Process.linear(1000)
SHORT = Process.linear(60, beta_T=0.15)


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 1, generator=seeded(seed), dtype=torch.float64)


def last(states: Iterator[State]) -> Tensor:
    *_, state = states
    return state.x_t


def gaussian(process: Process, mean: float, sd: float) -> ExactDenoiser:
    return ExactDenoiser(process, [1.0], [[mean]], sd**2)


# C19 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C19")
@pytest.mark.parametrize("sigma2", [beta, posterior])
def test_c19_the_step_in_eps(sigma2):
    """x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t) + sigma_t z, z = 0 at t = 1: the whole chain."""
    exact = ExactDenoiser(SHORT, [0.25, 0.75], [[-2.0], [2.0]], 0.1)
    x, z = noise(8), seeded(1)
    for state in ancestral(exact, x, SHORT.timesteps(60), sigma2=sigma2, generator=seeded(1)):
        torch.testing.assert_close(state.x_t, x)
        if (t := state.t) > 0:
            drift = (x - SHORT.beta[t] / SHORT.b[t] * exact(x, t).eps) / (1 - SHORT.beta[t]).sqrt()
            fresh = torch.randn(x.shape, generator=z, dtype=torch.float64) if t > 1 else torch.zeros_like(x)
            x = drift + sigma2(SHORT, t, t - 1).sqrt() * fresh


@pytest.mark.claim("C19")
def test_c19_beta_is_exact_for_a_standard_normal():
    """Data N(0, I): every state of the chain has variance 1 with beta_t; with the posterior variance it falls short."""
    exact, x_T = gaussian(SHORT, 0.0, 1.0), noise(20_000)
    for state in ancestral(exact, x_T, SHORT.timesteps(60), sigma2=beta, generator=seeded(1)):
        if state.t % 10 == 1:
            assert_moments(state.x_t, 0.0, 1.0)
    assert last(ancestral(exact, x_T, SHORT.timesteps(60), generator=seeded(1))).var() < 0.95


@pytest.mark.claim("C19")
def test_c19_the_posterior_variance_is_exact_for_a_point():
    """Data 1.5: every state is q(x_t | x_0 = 1.5) with the posterior variance; with beta_t the chain is too wide."""
    exact, x_T = gaussian(SHORT, 1.5, 0.0), SHORT.marginal(torch.full((20_000, 1), 1.5), 60).sample(seeded())
    chains = (ancestral(exact, x_T, SHORT.timesteps(60), sigma2=s, generator=seeded(1)) for s in (posterior, beta))
    for right, wide in zip(*chains, strict=True):
        if 0 < right.t < 60 and right.t % 10 == 1:
            assert_moments(right.x_t, SHORT.a[right.t] * 1.5, SHORT.b[right.t] ** 2)
        if right.t == 1:
            assert wide.x_t.var() > 1.2 * SHORT.b[1] ** 2
    torch.testing.assert_close(right.x_t, torch.full_like(right.x_t, 1.5), rtol=0, atol=1e-5)


@pytest.mark.claim("C19")
def test_c19_noise_in_the_last_step_is_left_in_the_picture():
    """`if t > 0` in a loop over t = T..1 is always true: sqrt(beta_1) of noise remains on every pixel."""
    exact = gaussian(SHORT, 1.5, 0.0)

    def always(process: Process, t: int, s: int) -> Tensor:
        return 1 - process.alpha_bar[t] / process.alpha_bar[s]

    wrong, right = (
        last(ancestral(exact, noise(5000), SHORT.timesteps(60), sigma2=s, generator=seeded(1))) for s in (always, beta)
    )
    assert_moments(wrong, 1.5, SHORT.beta[1])
    assert right.std() < 1e-9


@pytest.mark.claim("C19")
@pytest.mark.parametrize("n", [60, 7, 2])
@pytest.mark.parametrize("sd", [0.1, 0.5, 2.0])
def test_c19_the_variance_that_is_exact_for_any_gaussian(n: int, sd: float):
    """sigma^2 = beta V_s / V_t, V_t = Var[x_t]: each state has its variance V_t, in however few steps. beta (V = 1) and
    the posterior's variance (V_t = 1 - abar_t) are cases of it. From the linear map, without sampling error."""
    V = SHORT.alpha_bar * sd**2 + SHORT.b**2
    exact, at = gaussian(SHORT, 0.0, sd), SHORT.timesteps(n)
    pair, var = torch.tensor([[0.0], [1.0]], dtype=torch.float64), V[60]
    for t, s in pairwise(at):
        mean = SHORT.posterior(exact(pair, t).x_0, pair, t, s).mean
        var = (mean[1, 0] - mean[0, 0]) ** 2 * var + SHORT.transition(s, t)[1] * V[s] / V[t]
        torch.testing.assert_close(var, V[s])
    t = torch.arange(2, 61)
    for special, named in ((1.0, beta), (0.0, posterior)):
        V = SHORT.alpha_bar * special**2 + SHORT.b**2
        torch.testing.assert_close(beta(SHORT, t, t - 1) * V[t - 1] / V[t], named(SHORT, t, t - 1))


@pytest.mark.claim("C19")
@pytest.mark.parametrize("n", [60, 5, 1])
def test_c19_what_the_quiet_last_step_costs(n: int):
    """Data N(0, I), beta_t: exact in any number of steps but for z = 0 in the last, which leaves out its beta. That is
    nothing in many steps, and nearly all of the variance in one."""
    exact, at = gaussian(SHORT, 0.0, 1.0), SHORT.timesteps(n)
    pair, var = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for t, s in pairwise(at):
        x_0 = exact(pair, t).x_0
        mean = SHORT.posterior(x_0, pair, t, s).mean
        var = (mean[1, 0] - mean[0, 0]) ** 2 * var + (beta(SHORT, t, s) if s else 0)
    torch.testing.assert_close(var, 1 - SHORT.transition(0, at[-2])[1])


# C20 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C20")
@pytest.mark.parametrize("s", [0.2, 0.5, 1.0])
def test_c20_without_noise_a_gaussian_contracts(s: float):
    """To deviation s^2 sqrt(abar_T / (abar_T s^2 + 1 - abar_T)): 0.0016 for s = 0.5. Chains start from q(x_T).

    The map from x_T to x_0 is linear, so two chains measure its slope without sampling error.
    """
    exact, abar = gaussian(LINEAR, 1.3, s), LINEAR.alpha_bar[-1]
    start = LINEAR.a[-1] * 1.3 + torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    end = last(ancestral(exact, start, LINEAR.timesteps(1000), sigma2=none))
    assert float(end[0]) == pytest.approx(1.3, abs=1e-6)  # the mean stays
    spread = float(end[1] - end[0]) * float((abar * s**2 + 1 - abar) ** 0.5)
    assert spread == pytest.approx(float(s**2 * (abar / (abar * s**2 + 1 - abar)) ** 0.5), rel=1e-6)
    if s == 0.5:
        assert spread == pytest.approx(0.0016, abs=5e-5)


@pytest.mark.claim("C20")
def test_c20_with_noise_it_does_not():
    """N(1.3, 0.5^2): 0.496 with the posterior variance, 0.501 with beta_t. From the linear map itself, step by step."""
    for sigma2, expected in ((posterior, 0.496), (beta, 0.501), (none, 0.0016)):
        var = float(LINEAR.b[-1] ** 2 + LINEAR.a[-1] ** 2 * 0.25)
        exact, ends = gaussian(LINEAR, 1.3, 0.5), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        for t in range(1000, 0, -1):
            x_0 = exact(ends, t).x_0
            mean = LINEAR.posterior(x_0, ends, t).mean
            var = float(mean[1] - mean[0]) ** 2 * var + float(sigma2(LINEAR, t, t - 1))
        assert var**0.5 == pytest.approx(expected, abs=0.0006)


@pytest.mark.claim("C20")
@pytest.mark.parametrize("s", [0.0, 0.2, 0.5])
def test_c20_without_noise_a_mixture_loses_its_weights(s: float):
    """1/4 at -2 and 3/4 at 2: every chain ends at the heavy mode, on (nearly) one point. With noise both modes come
    out, with their weights and their spread."""
    exact = ExactDenoiser(LINEAR, [0.25, 0.75], [[-2.0], [2.0]], s**2)
    collapsed = last(ancestral(exact, noise(500), LINEAR.timesteps(1000), sigma2=none))
    assert (collapsed - 2).abs().max() < 0.07
    assert collapsed.std() < 0.005
    x = last(ancestral(exact, noise(1000), LINEAR.timesteps(1000), generator=seeded(1)))
    heavy = x[:, 0] > 0
    assert_average(heavy.double(), 0.75)
    assert_moments(x[heavy], 2.0, s**2, bias=0.02)


@pytest.mark.claim("C20")
@pytest.mark.parametrize(("n", "expected"), [(5, 0.26), (50, 0.47), (1000, 0.498)])
def test_c20_it_is_not_ddim(n: int, expected: float):
    """True deviation 0.5; DDIM has it in the limit of many steps. Linear too: two chains give it exactly."""
    ends = last(
        ddim(gaussian(LINEAR, 1.3, 0.5), torch.tensor([[0.0], [1.0]], dtype=torch.float64), LINEAR.timesteps(n))
    )
    assert float(ends[1] - ends[0]) == pytest.approx(expected, abs=0.005 if n < 1000 else 0.0006)


@pytest.mark.claim("C20")
@pytest.mark.parametrize("n", [1000, 30, 3])
def test_c20_without_noise_a_gaussian_ends_at_what_its_start_knows(n: int):
    """In any number of steps at E[x_0 | x_T]: means of conditional means are conditional means."""
    exact, x_T = gaussian(LINEAR, 1.3, 0.5), noise(5)
    end = last(ancestral(exact, x_T, LINEAR.timesteps(n), sigma2=none))
    torch.testing.assert_close(end, exact(x_T, 1000).x_0, rtol=1e-6, atol=1e-9)


@pytest.mark.claim("C20")
def test_c20_the_old_noise_and_the_fresh_make_up_b():
    """The posterior's mean is a_s x_0 + w eps with w^2 + beta tilde = b_s^2: the mean alone is less noisy than time s
    says, DDIM is not."""
    x_0, eps = noise(3), noise(3, seed=1)
    for t, s in ((1000, 999), (600, 300), (40, 1)):
        x_t = LINEAR.a[t] * x_0 + LINEAR.b[t] * eps
        q = LINEAR.posterior(x_0, x_t, t, s)
        w = (q.mean - LINEAR.a[s] * x_0) / eps
        torch.testing.assert_close(w**2 + q.var, (LINEAR.b[s] ** 2).expand(3, 1))
        assert (w < LINEAR.b[s]).all()


@pytest.mark.claim("C20")
def test_c20_ddim_loses_a_second_order_share_of_the_spread():
    """One step on N(0, 0.5^2): DDIM loses a multiple of the step's square, the mean alone a multiple of the step."""
    exact, pair = gaussian(LINEAR, 0.0, 0.5), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    V = LINEAR.alpha_bar * 0.25 + LINEAR.b**2
    prediction = exact(pair, 500)

    def lost(s: int) -> list[float]:
        moved = LINEAR.a[s] * prediction.x_0 + LINEAR.b[s] * prediction.eps
        alone = LINEAR.posterior(prediction.x_0, pair, 500, s).mean
        return [float(1 - (x[1] - x[0]) * (V[500] / V[s]).sqrt()) for x in (moved, alone)]

    one, two = lost(499), lost(498)
    assert two[0] / one[0] == pytest.approx(4, rel=0.05)
    assert two[1] / one[1] == pytest.approx(2, rel=0.05)


# C21 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C21")
@pytest.mark.parametrize("t", [1, 300, 1000])
def test_c21_the_noise_is_the_score(t: int):
    """E[eps | x_t] = -sqrt(1 - abar_t) grad log q(x_t), the gradient taken by autograd from the density of q(x_t)."""
    a, b = LINEAR.a[t], LINEAR.b[t]
    exact = ExactDenoiser(LINEAR, [0.25, 0.75], [[-2.0], [2.0]], 0.25)
    means, sd = a * torch.tensor([-2.0, 2.0], dtype=torch.float64), (a**2 * 0.25 + b**2).sqrt()
    q = MixtureSameFamily(Categorical(torch.tensor([0.25, 0.75], dtype=torch.float64)), Normal(means, sd.expand(2)))
    x = torch.linspace(-4, 4, 41, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(q.log_prob(x).sum(), x)
    torch.testing.assert_close(exact(x.detach()[:, None], t).eps[:, 0], -b * gradient)


def stationary(step: float, var: float) -> float:
    """Variance at which x <- x - step/2 x / var + sqrt(step) z stays: step = v (1 - (1 - step / (2 var))^2)."""
    return step / (1 - (1 - step / (2 * var)) ** 2)


@pytest.mark.claim("C21")
@pytest.mark.parametrize("step", [1.0, 0.3, 0.1])
def test_c21_langevin_keeps_a_distribution_biased_by_its_step(step: float):
    """On q(x_t) of N(0, 0.5^2) data: the variance is too large by a factor 1 / (1 - step / (4 var)), which goes to 1 as
    the step goes to 0."""
    t = 100
    var = float(LINEAR.a[t] ** 2 * 0.25 + LINEAR.b[t] ** 2)
    x = last(
        langevin(gaussian(LINEAR, 0.0, 0.5), noise(20_000), t, step, n=int(12 * var / step) + 5, generator=seeded(1))
    )
    assert stationary(step, var) == pytest.approx(var / (1 - step / (4 * var)))
    assert_moments(x, 0.0, stationary(step, var))
    if step >= 0.3:  # and the bias is seen, not lost in the sampling error
        assert x.var() > var * (1 + Z * (2 / 20_000) ** 0.5)


@pytest.mark.claim("C21")
def test_c21_the_score_alone_ends_on_points():
    """Without its noise every chain climbs to a peak of q(x_t), a point; with it a region is kept, both modes of it."""
    t = 50
    exact = ExactDenoiser(LINEAR, [0.25, 0.75], [[-2.0], [2.0]], 0.1)
    x_t = LINEAR.marginal(exact.sample(4000, seeded()), t).sample(seeded(1)).double()
    end = last(langevin(exact, x_t, t, 0.1, n=60, noise=0.0))
    heavy = end[:, 0] > 0
    for side in (heavy, ~heavy):
        assert end[side].std() < 1e-3
    assert exact.score(end, t).abs().max() < 1e-2
    kept = last(langevin(exact, x_t, t, 0.02, n=60, generator=seeded(2)))
    heavy = kept[:, 0] > 0
    assert_average(heavy.double(), 0.75)
    var = float(LINEAR.a[t] ** 2 * 0.1 + LINEAR.b[t] ** 2)
    assert_moments(kept[heavy], 2 * LINEAR.a[t], stationary(0.02, var), bias=0.002)


@pytest.mark.claim("C21")
@pytest.mark.parametrize("c", [0.25, 0.5, 1.0])
def test_c21_less_noise_is_another_distribution(c: float):
    """With c times its noise Langevin keeps c^2 of the variance, however small the step."""
    t, step = 100, 0.1
    exact = gaussian(LINEAR, 0.0, 0.5)
    var = float(LINEAR.a[t] ** 2 * 0.25 + LINEAR.b[t] ** 2)
    x = last(langevin(exact, noise(20_000), t, step, n=int(14 * var / step), noise=c, generator=seeded(1)))
    assert_moments(x, 0.0, c**2 * stationary(step, var))


@pytest.mark.claim("C21")
def test_c21_the_peak_is_not_a_sample():
    """N(0, I) in 784 dimensions: samples are 28 +- 0.71 from the peak and 392 nats below it."""
    x = torch.randn(4000, 784, generator=seeded(), dtype=torch.float64)
    assert_average(x.square().sum(1) / 2, 392.0)
    assert float(x.norm(dim=1).std()) == pytest.approx(0.5**0.5, abs=Z * 0.5**0.5 / (2 * 4000) ** 0.5 + 1e-3)
    assert x.norm(dim=1).min() > 24


@pytest.mark.claim("C21")
def test_c21_annealing_finds_the_weights_that_one_level_does_not():
    """All start on one mode. From large noise to small the weights come out right; at one small t nobody crosses."""
    exact = ExactDenoiser(LINEAR, [0.25, 0.75], [[-2.0], [2.0]], 0.09)
    ends = []
    for levels in (LINEAR.timesteps(100)[:-1], [20] * 20):
        x, generator = torch.full((2000, 1), 2.0, dtype=torch.float64), seeded(1)
        for t in levels:
            step = 0.2 * float(LINEAR.a[t] ** 2 * 0.09 + LINEAR.b[t] ** 2)
            x = last(langevin(exact, x, t, step, n=20, generator=generator))
        ends.append((x[:, 0] > 0).double())
    assert_average(ends[0], 0.75)
    assert ends[1].min() == 1


@pytest.mark.claim("C21")
@pytest.mark.parametrize("t", [1, 100, 500, 1000])
def test_c21_a_classifiers_gradient_makes_the_conditional_score(t: int):
    """eps - b grad log p(y | x_t) is the eps of class y alone (Dhariwal and Nichol 2021, algorithm 2)."""
    ring = eight_gaussians()
    whole = ExactDenoiser(LINEAR, ring.weights, ring.means, 0.12**2)
    inside = ExactDenoiser(LINEAR, torch.ones(3), ring.means[:3], 0.12**2)
    x = 1.5 * torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((inside.log_prob(x, t) - whole.log_prob(x, t)).sum(), x)
    x = x.detach()
    torch.testing.assert_close(whole(x, t).eps - LINEAR.b[t] * gradient, inside(x, t).eps)
