"""The forward process against torch.distributions, against linear algebra, and against diffusers' schedules."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler
from stats import assert_moments, seeded
from torch.distributions import Normal, kl_divergence

from ddpm_edu.process import Gaussian, Process, like, randn_like

RANDOM_BETAS = torch.rand(12, generator=seeded(), dtype=torch.float64) * 0.5 + 0.01


@pytest.fixture(params=["linear", "cosine", "random"])
def process(request: pytest.FixtureRequest) -> Process:
    if request.param == "random":
        return Process(RANDOM_BETAS)
    return Process.named(request.param, 40)


# Gaussian -------------------------------------------------------------------------------------------------------------


def gaussian(seed: int) -> Gaussian:
    """Mean (5, 3), variance (5, 1): broadcast, as the process makes them."""
    generator = seeded(seed)
    return Gaussian(torch.randn(5, 3, generator=generator), torch.rand(5, 1, generator=generator) + 0.1)


def test_gaussian_agrees_with_torch_distributions():
    ours, other, x = gaussian(0), gaussian(1), gaussian(2).mean
    theirs, theirs_other = (Normal(g.mean, g.var.sqrt()) for g in (ours, other))
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.kl(other), kl_divergence(theirs, theirs_other))
    assert (ours.kl(ours) == 0).all()


def test_gaussian_sample_has_its_moments():
    mean, var = torch.tensor([-3.0, 0.0, 2.0]), torch.tensor([0.25, 1.0, 4.0])
    assert_moments(Gaussian(mean.expand(20_000, 3), var).sample(seeded()), mean, var)


def test_gaussian_of_variance_zero_is_a_point():
    inf = torch.inf
    zeros, ones = torch.zeros(2), torch.ones(2)
    point = Gaussian(torch.tensor([1.0, 2.0]), zeros)
    assert torch.equal(point.sample(), point.mean)
    assert point.log_prob(torch.tensor([1.0, 2.5])).tolist() == [inf, -inf]
    assert point.kl(point).tolist() == [0, 0]
    assert point.kl(Gaussian(torch.tensor([1.0, 2.5]), zeros)).tolist() == [0, inf]
    assert point.kl(Gaussian(point.mean, ones)).tolist() == [inf, inf]
    assert Gaussian(point.mean, ones).kl(point).tolist() == [inf, inf]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_everything_stays_in_the_dtype_of_x(dtype: torch.dtype):
    process, x = Process.linear(10), torch.zeros(2, 3, dtype=dtype)
    for q in (process.step(x, 3), process.marginal(x, 3), process.posterior(x, x, 3)):
        assert {q.mean.dtype, q.var.dtype, q.sample().dtype, q.log_prob(x).dtype, q.kl(q).dtype} == {dtype}


def test_randn_like_follows_the_generator():
    x = torch.zeros(3, 2, dtype=torch.float64)
    assert torch.equal(randn_like(x, seeded(3)), torch.randn(3, 2, dtype=torch.float64, generator=seeded(3)))
    assert like(torch.ones(4), torch.zeros(4, 1, 2, 2)).shape == (4, 1, 1, 1)


# Schedules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_schedules_are_those_of_diffusers(ours: str, theirs: str, T: int):
    process, scheduler = Process.named(ours, T), DDPMScheduler(T, beta_schedule=theirs)
    # Theirs are computed in float32: betas to 1e-7; the running product of 1,000 factors to about 1e-5 of itself.
    torch.testing.assert_close(process.beta[1:].float(), scheduler.betas, rtol=1e-4, atol=2e-7)
    torch.testing.assert_close(process.alpha_bar[1:].float(), scheduler.alphas_cumprod, rtol=2e-4, atol=1e-9)


def test_coefficients(process: Process):
    for value in (process.a, process.b, process.alpha, process.beta, process.alpha_bar):
        assert value.shape == (process.T + 1,)
        assert value.dtype == torch.float64
    start = [process.a[0], process.b[0], process.alpha[0], process.beta[0], process.alpha_bar[0], process.snr[0]]
    assert [float(value) for value in start] == [1, 0, 1, 0, 1, torch.inf]
    torch.testing.assert_close(process.a**2 + process.b**2, torch.ones(process.T + 1, dtype=torch.float64))
    torch.testing.assert_close(process.alpha_bar, process.alpha.cumprod(0))
    assert (process.snr.diff() < 0).all()


def test_betas_go_in_and_come_out():
    torch.testing.assert_close(Process(RANDOM_BETAS).beta[1:], RANDOM_BETAS)
    linear = Process.linear(T=5, beta_1=0.1, beta_T=0.5).beta
    torch.testing.assert_close(linear, torch.tensor([0, 0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64))
    assert Process.cosine(1000).beta.max() == pytest.approx(0.999)  # the cap of Nichol and Dhariwal


# The three Gaussians --------------------------------------------------------------------------------------------------


def test_steps_compose_to_the_marginal(process: Process):
    """Mean and variance carried through one step after the other are those of one jump."""
    x_0 = torch.randn(4, 2, dtype=torch.float64, generator=seeded())
    mean, var = x_0, torch.zeros(4, 1, dtype=torch.float64)
    for t in range(1, process.T + 1):
        one = process.step(torch.ones_like(x_0), t)  # its mean is the factor
        mean, var = one.mean * mean, one.mean[:, :1] ** 2 * var + one.var
        jump = process.marginal(x_0, t)
        torch.testing.assert_close(jump.mean, mean)
        torch.testing.assert_close(jump.var, var)
        assert one.var[0] == pytest.approx(float(process.beta[t]))


def joint(betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x_0..x_T given x_0 as one Gaussian, straight from eq. 2: M x = x_0 e_0 + noise, M with 1 on the diagonal and
    -sqrt(1 - beta) under it. The factor of x_0 in each mean, (T + 1,), and the covariance, (T + 1, T + 1)."""
    M = torch.eye(len(betas) + 1, dtype=torch.float64) - torch.diag((1 - betas).sqrt(), -1)
    inverse = torch.linalg.inv(M)
    noise = torch.diag(torch.cat([torch.zeros(1, dtype=torch.float64), betas]))
    return inverse[:, 0], inverse @ noise @ inverse.T


def test_posterior_is_gaussian_conditioning_at_every_stride(process: Process):
    """Against the Schur complement of the joint covariance, for all 0 <= s < t <= T at once."""
    mean, cov = joint(process.beta[1:])
    s, t = torch.triu_indices(process.T + 1, process.T + 1, 1)
    x_0, x_t = torch.randn(2, len(t), 3, dtype=torch.float64, generator=seeded())
    ours = process.posterior(x_0, x_t, t, s)
    gain = (cov[s, t] / cov[t, t])[:, None]
    torch.testing.assert_close(ours.mean, mean[s, None] * x_0 + gain * (x_t - mean[t, None] * x_0))
    torch.testing.assert_close(ours.var, (cov[s, s] - cov[s, t] ** 2 / cov[t, t])[:, None], rtol=1e-6, atol=1e-13)


def test_posterior_steps_by_one_unless_told_and_ends_on_x_0(process: Process):
    x_0, x_t = torch.randn(2, process.T, 2, generator=seeded())
    t = torch.arange(1, process.T + 1)
    default, spelt = process.posterior(x_0, x_t, t), process.posterior(x_0, x_t, t, t - 1)
    assert torch.equal(default.mean, spelt.mean)
    assert torch.equal(default.var, spelt.var)
    for t_last in (1, process.T):  # one step, and the whole chain in one stride
        end = process.posterior(x_0, x_t, t_last, 0)
        assert torch.equal(end.mean, x_0)
        assert (end.var == 0).all()


def test_one_t_a_row(process: Process):
    """A batch with its own t in every row is the rows one by one; an int serves all."""
    x_0, x_t = torch.randn(2, 3, 1, 2, 2, generator=seeded())
    t = torch.tensor([2, process.T, 5])
    for method in (process.step, process.marginal, lambda x, t: process.posterior(x_0[: len(x)], x, t)):
        together = method(x_t, t)
        assert torch.equal(together.mean[:1], method(x_t[:1], 2).mean)
        assert torch.equal(method(x_t, torch.tensor([5, 5, 5])).mean, method(x_t, 5).mean)
        assert together.var.shape == (3, 1, 1, 1)


# Time, and what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 7, 50])
def test_timesteps_fall_evenly_from_T_to_0(T: int):
    for n in range(1, T + 1):
        steps = Process.linear(T).timesteps(n)
        assert (len(steps), steps[0], steps[-1]) == (n + 1, T, 0)
        gaps = [t - s for t, s in pairwise(steps)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


X = torch.zeros(2, 3)
LINEAR = Process.linear(10)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: LINEAR.marginal(X, 0), r"t must be in 1\.\.10; got 0\.\.0"),
        (lambda: LINEAR.marginal(X, 11), r"t must be in 1\.\.10; got 11\.\.11"),
        (lambda: LINEAR.marginal(X, torch.tensor([1, 11])), r"t must be in 1\.\.10; got 1\.\.11"),
        (lambda: LINEAR.marginal(X, torch.tensor([1, 2, 3])), r"one integer for each of the 2 rows.*got shape \(3,\)"),
        (lambda: LINEAR.marginal(X, torch.tensor([[1], [2]])), r"shape \(2,\); got shape \(2, 1\)"),
        (lambda: LINEAR.marginal(X, torch.tensor(3)), r"got shape \(\)"),
        (lambda: LINEAR.marginal(X, torch.tensor([1.0, 2.0])), r"integer.*float32"),
        (lambda: LINEAR.marginal(X, 2.5), r"integer.*float32"),
        (lambda: LINEAR.marginal(X.int(), 1), r"floating point; got torch\.int32\. Use x\.float\(\)"),
        (lambda: LINEAR.step(X, 0), r"t must be in 1\.\.10"),
        (lambda: LINEAR.posterior(X, X, 0), r"t must be in 1\.\.10"),
        (lambda: LINEAR.posterior(X, X, 3, 3), r"s must come before t; got s = \[3, 3\] and t = \[3, 3\]"),
        (lambda: LINEAR.posterior(X, X, 3, -1), r"must be in 0\.\.10; got -1"),
        (lambda: LINEAR.posterior(X, X[:1], 3), r"one shape; got \(2, 3\) and \(1, 3\)"),
        (lambda: LINEAR.timesteps(0), r"must be in 1\.\.10; got 0"),
        (lambda: LINEAR.timesteps(11), r"must be in 1\.\.10; got 11"),
        (lambda: Process.named("sigmoid"), r"Unknown schedule 'sigmoid'; the known ones are linear, cosine"),
        (lambda: Process(torch.tensor([])), r"betas must be a vector.*got shape \(0,\)"),
        (lambda: Process(torch.tensor([[0.1]])), r"betas must be a vector.*got shape \(1, 1\)"),
        (lambda: Process(torch.tensor([0.1, 1.0])), r"strictly between 0 and 1.*from 0\.1 to 1"),
        (lambda: Process(torch.tensor([0.0, 0.1])), r"strictly between 0 and 1.*from 0 to 0\.1"),
        (lambda: Process(torch.tensor([0.1, torch.nan])), r"strictly between 0 and 1"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence: str):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)
