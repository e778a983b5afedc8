"""Targets, wrappers, and the exact denoiser against brute force, autograd and torch.distributions."""

from __future__ import annotations

import pytest
import torch
from stats import assert_average, seeded
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ddpm_edu import denoiser
from ddpm_edu.denoiser import Denoiser, ExactDenoiser, Prediction, clipped, guided
from ddpm_edu.process import Process, like

PROCESS = Process.linear(50)


class Fixed(nn.Module):
    """A net that is a function of (x_t, t, cond), and remembers what it was called with."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_t: Tensor, t: Tensor, cond=None) -> Tensor:
        self.t, self.cond = t, cond
        return self.function(x_t, cond)


# Targets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", denoiser.TARGETS)
def test_recover_undoes_of(name: str):
    """At every t, in float64: 1e-9 is what dividing by a_T = 0.006 or b_1 = 0.01 leaves of 1e-16."""
    process, target = Process.linear(1000), denoiser.TARGETS[name]
    x_0, eps = torch.randn(2, 1000, 3, dtype=torch.float64, generator=seeded())
    a, b = (like(c[1:], x_0) for c in (process.a, process.b))
    found = target.recover(a * x_0 + b * eps, target.of(x_0, eps, a, b), a, b)
    torch.testing.assert_close(found, Prediction(x_0, eps), rtol=0, atol=1e-9)


def test_targets_are_what_they_are_called():
    x_0, eps, a, b = (torch.tensor(value) for value in (2.0, 3.0, 0.8, 0.6))
    assert denoiser.eps.of(x_0, eps, a, b) == 3
    assert denoiser.x_0.of(x_0, eps, a, b) == 2
    assert denoiser.v.of(x_0, eps, a, b) == pytest.approx(0.8 * 3 - 0.6 * 2)
    assert list(map(repr, denoiser.TARGETS.values())) == list(denoiser.TARGETS)


@pytest.mark.parametrize("name", denoiser.TARGETS)
def test_denoiser_reads_its_networks_answer_as_the_target(name: str):
    """A net that knows the truth: the denoiser gives back the truth, each row at its own t."""
    x_0, eps = torch.randn(2, 3, 1, 2, 2, generator=seeded())
    t = torch.tensor([1, 20, 50])
    a, b = like(PROCESS.a[t], x_0), like(PROCESS.b[t], x_0)
    truth = denoiser.TARGETS[name].of(x_0, eps, a, b)
    denoise = Denoiser(PROCESS, Fixed(lambda x, cond: truth), denoiser.TARGETS[name])
    # float32: 1e-7 over b_1 = 0.01
    torch.testing.assert_close(denoise(a * x_0 + b * eps, t, "cond"), Prediction(x_0, eps), rtol=1e-4, atol=1e-4)
    assert denoise.net.cond == "cond"
    assert torch.equal(denoise.net.t, t)


def test_denoiser_accepts_one_int_and_answers_in_the_dtype_of_x():
    denoise = Denoiser(PROCESS, Fixed(lambda x, cond: x.bfloat16()), denoiser.v)
    x_0, eps = denoise(torch.ones(3, 2), 7)
    assert denoise.net.t.tolist() == [7, 7, 7]
    assert (x_0.dtype, eps.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Denoiser(PROCESS, nn.Identity(), "v"), r"target must be one of eps, x_0, v from .*; got 'v'"),
        (lambda: Denoiser(PROCESS, Fixed(lambda x, c: x[:, :1]), denoiser.v)(torch.ones(2, 2), 1),
         r"must return the shape of x_t, \(2, 2\); got \(2, 1\)"),
        (lambda: Denoiser(PROCESS, Fixed(lambda x, c: x), denoiser.v)(torch.ones(2, 2), 51), r"t must be in 1\.\.50"),
        (lambda: clipped(normal())(torch.ones(2, 1), 0), r"t must be in 1\.\.50"),
        (lambda: normal()(torch.ones(2, 3), 1), r"data of shape \(1,\); got x of \(2, 3\)"),
        (lambda: ExactDenoiser(PROCESS, [1.0], [[0.0], [1.0]], 1.0), r"weights must be 2 numbers"),
        (lambda: ExactDenoiser(PROCESS, [-1.0, 2.0], [[0.0], [1.0]], 1.0), r"weights must be 2 numbers >= 0"),
        (lambda: ExactDenoiser(PROCESS, [0.0, 0.0], [[0.0], [1.0]], 1.0), r"weights must be 2 numbers >= 0"),
        (lambda: ExactDenoiser(PROCESS, [1.0], [[0.0, 0.0]], torch.ones(3)), r"one of the shapes.*got \(3,\)"),
        (lambda: ExactDenoiser(PROCESS, [1.0], [[0.0]], -1.0), r"covs must be variances >= 0"),
        (lambda: ExactDenoiser(PROCESS, [1.0], [[0.0, 0.0]], -torch.eye(2)[None]), r"eigenvalues >= 0"),
        (lambda: ExactDenoiser(PROCESS, [1.0], [[0.0]], 0.0).score(torch.ones(1, 1), 0), r"no density: ask for t >= 1"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(call, sentence: str):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


# Wrappers -------------------------------------------------------------------------------------------------------------


def normal() -> ExactDenoiser:
    return ExactDenoiser(PROCESS, [1.0], [[0.0]], 1.0)


def with_condition() -> Denoiser:
    return Denoiser(PROCESS, Fixed(lambda x, cond: torch.tanh(x + cond)), denoiser.eps)


def test_guidance_is_linear_in_w_between_its_two_ends():
    denoise, null = with_condition(), 0.0
    x, t, cond = torch.randn(4, 2, generator=seeded()), torch.tensor([1, 5, 20, 50]), 2.0
    on, off = denoise(x, t, cond), denoise(x, t, null)
    torch.testing.assert_close(guided(denoise, null, 1.0)(x, t, cond), on, rtol=0, atol=0)
    torch.testing.assert_close(guided(denoise, null, 0.0)(x, t, cond), off, rtol=0, atol=0)
    for w in (0.5, 3.0, 7.5):
        found = guided(denoise, null, w)(x, t, cond)
        torch.testing.assert_close(found.eps, off.eps + w * (on.eps - off.eps))
        a, b = like(PROCESS.a[t], x), like(PROCESS.b[t], x)
        torch.testing.assert_close(a * found.x_0 + b * found.eps, x)  # still two readings of one belief
    assert guided(denoise, null, 3.0).process is PROCESS


def test_guidance_between_two_times_is_off_at_the_others_which_cost_one_call():
    denoise, calls = with_condition(), []
    denoise.net.register_forward_hook(lambda *_: calls.append(1))
    x, t, cond = torch.randn(4, 2, generator=seeded()), torch.tensor([1, 5, 20, 50]), 2.0
    on, strong = denoise(x, t, cond), guided(denoise, 0.0, 3.0)(x, t, cond)
    found = guided(denoise, 0.0, 3.0, (5, 20))(x, t, cond)
    for k, wanted in enumerate((on, strong, strong, on)):
        torch.testing.assert_close(found.eps[k], wanted.eps[k], rtol=0, atol=0)
        torch.testing.assert_close(found.x_0[k], wanted.x_0[k], rtol=0, atol=0)
    for t, w, asked in ((4, 3.0, 1), (5, 3.0, 2), (20, 0.0, 2), (21, 0.0, 1), (10, 1.0, 1)):
        calls.clear()
        guided(denoise, 0.0, w, (5, 20))(x, t, cond)
        assert len(calls) == asked, (t, w)


def test_clipping_keeps_the_range_and_recomputes_eps():
    denoise = with_condition()
    x, t = 3 * torch.randn(50, 2, generator=seeded()), torch.arange(1, 51)
    free, kept = denoise(x, t, 1.0), clipped(denoise)(x, t, 1.0)
    assert (free.x_0.abs() > 1).any()  # else this tests nothing
    assert torch.equal(kept.x_0, free.x_0.clamp(-1, 1))
    torch.testing.assert_close(like(PROCESS.a[t], x) * kept.x_0 + like(PROCESS.b[t], x) * kept.eps, x)
    inside = (free.x_0.abs() < 1).all(1)
    torch.testing.assert_close(kept.eps[inside], free.eps[inside], rtol=1e-3, atol=1e-3)
    assert clipped(denoise, 0.2, 0.3)(x, t, 1.0).x_0.aminmax() == (torch.tensor(0.2), torch.tensor(0.3))
    assert clipped(denoise).process is PROCESS


# The exact denoiser ---------------------------------------------------------------------------------------------------

# Four components in three dimensions: in two, the matrix of principal axes is symmetric and hides a missing transpose.
WEIGHTS = torch.tensor([1.0, 2.0, 5.0, 2.0], dtype=torch.float64)
MEANS = torch.randn(4, 3, dtype=torch.float64, generator=seeded(1)) * 2
T_ALL = torch.arange(1, PROCESS.T + 1)


def matrices() -> Tensor:
    root = torch.randn(4, 3, 3, dtype=torch.float64, generator=seeded(2))
    return root @ root.mT + 0.05 * torch.eye(3, dtype=torch.float64)


COVS = {
    "scalar": torch.tensor(0.3, dtype=torch.float64),
    "one a component": torch.tensor([0.1, 0.5, 0.0, 1.0], dtype=torch.float64),
    "diagonals": torch.rand(4, 3, dtype=torch.float64, generator=seeded(3)) + 0.01,
    "matrices": matrices(),
}


def as_matrices(covs: Tensor) -> Tensor:
    """The same covariances, (4, 3, 3)."""
    if covs.ndim == 3:
        return covs
    return torch.diag_embed(covs if covs.ndim == 2 else covs.expand(4)[:, None].expand(4, 3))


@pytest.fixture(params=COVS, ids=lambda name: name.replace(" ", "-"))
def covs(request: pytest.FixtureRequest) -> Tensor:
    return COVS[request.param]


def torch_mixture(covs: Tensor, t: int) -> MixtureSameFamily:
    """q(x_t) by torch.distributions: N(a m, a^2 C + b^2 I) for each component."""
    a, b = PROCESS.a[t], PROCESS.b[t]
    noisy = a**2 * as_matrices(covs) + b**2 * torch.eye(3, dtype=torch.float64)
    return MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(a * MEANS, noisy))


def test_every_form_of_the_covariance_agrees_with_matrices(covs: Tensor):
    ours, general = (ExactDenoiser(PROCESS, WEIGHTS, MEANS, c) for c in (covs, as_matrices(covs)))
    x = 2 * torch.randn(len(T_ALL), 3, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(ours(x, T_ALL), general(x, T_ALL))
    torch.testing.assert_close(ours.score(x, T_ALL), general.score(x, T_ALL))
    torch.testing.assert_close(ours.log_prob(x, T_ALL), general.log_prob(x, T_ALL))


def test_log_prob_is_that_of_torch_distributions_at_every_t(covs: Tensor):
    exact = ExactDenoiser(PROCESS, WEIGHTS, MEANS, covs)
    x = 2 * torch.randn(6, 3, dtype=torch.float64, generator=seeded())
    for t in range(0 if (as_matrices(covs).diagonal(dim1=1, dim2=2) > 0).all() else 1, PROCESS.T + 1):
        torch.testing.assert_close(exact.log_prob(x, t), torch_mixture(covs, t).log_prob(x))


def test_score_is_the_gradient_of_log_prob_and_eps_follows(covs: Tensor):
    exact = ExactDenoiser(PROCESS, WEIGHTS, MEANS, covs)
    for t in (1, 7, PROCESS.T):
        x = (2 * torch.randn(6, 3, dtype=torch.float64, generator=seeded())).requires_grad_()
        (gradient,) = torch.autograd.grad(torch_mixture(covs, t).log_prob(x).sum(), x)
        torch.testing.assert_close(exact.score(x, t), gradient)
        x_0, eps = exact(x, t)
        torch.testing.assert_close(eps, -PROCESS.b[t] * gradient)
        torch.testing.assert_close(PROCESS.a[t] * x_0 + PROCESS.b[t] * eps, x)


@pytest.mark.parametrize("t", [1, 10, 50])
def test_prediction_is_the_posterior_mean_summed_on_a_grid(t: int):
    """E[x_0 | x_t] with no formula but Bayes': prior times likelihood on 40,001 values of x_0, one dimension."""
    weights, means, variances = torch.tensor([[0.25, 0.75], [-2.0, 2.0], [0.3, 0.05]], dtype=torch.float64)
    exact = ExactDenoiser(PROCESS, weights, means[:, None], variances)
    grid = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    prior = (weights * torch.distributions.Normal(means, variances.sqrt()).log_prob(grid[:, None]).exp()).sum(1)
    for x_t in (-2.5, 0.1, 1.9):
        likelihood = torch.exp(-0.5 * ((x_t - PROCESS.a[t] * grid) / PROCESS.b[t]) ** 2)
        expected = (grid * prior * likelihood).sum() / (prior * likelihood).sum()
        found = exact(torch.tensor([[x_t]], dtype=torch.float64), t).x_0
        assert float(found) == pytest.approx(float(expected), rel=1e-8)


def test_points_are_a_mixture_too():
    """Variance 0: the softmax-weighted mean of the points; next to one, at t = 1, the point itself."""
    points = torch.randn(30, 2, dtype=torch.float64, generator=seeded())
    exact = ExactDenoiser(PROCESS, torch.ones(30), points, 0.0)
    x, t = torch.randn(5, 2, dtype=torch.float64, generator=seeded(1)), 20
    distance = ((x[:, None] - PROCESS.a[t] * points) ** 2).sum(-1)
    expected = (-0.5 * distance / PROCESS.b[t] ** 2).softmax(-1) @ points
    torch.testing.assert_close(exact(x, t).x_0, expected)
    torch.testing.assert_close(exact(PROCESS.a[1] * points, 1).x_0[:1], points[:1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("event", [(), (2,), (1, 2, 3)])
@pytest.mark.parametrize("flat", [False, True], ids=["one variance", "matrices"])
def test_data_of_any_shape(event: tuple[int, ...], flat: bool):
    """Pictures are points with more numbers: the answer is that of the flattened data, in the shape of x_t."""
    means = torch.randn(4, *event, generator=seeded())
    d = means[0].numel()
    covs = 0.2 * torch.eye(d).expand(4, d, d) if flat else 0.2
    shaped = ExactDenoiser(PROCESS, torch.ones(4), means, covs)
    plain = ExactDenoiser(PROCESS, torch.ones(4), means.reshape(4, -1), covs)
    x = torch.randn(7, *event, generator=seeded(1))
    assert shaped(x, 5).x_0.shape == x.shape
    assert torch.equal(shaped(x, 5).eps.reshape(7, -1), plain(x.reshape(7, -1), 5).eps)
    assert shaped.log_prob(x, 5).shape == (7,)
    assert shaped.sample(6).shape == (6, *event)
    assert shaped(x[:0], 5).x_0.shape == (0, *event)


def test_large_batches_are_the_small_ones():
    """The general case works in chunks of rows; the seams must not show."""
    exact = ExactDenoiser(
        PROCESS, torch.ones(2**11), torch.randn(2**11, 2**8, generator=seeded()), torch.ones(2**11, 2**8)
    )
    x = torch.randn(18, 2**8, generator=seeded(1))  # 16 rows a chunk
    t = torch.arange(1, 19)
    torch.testing.assert_close(exact(x, t).x_0[14:], exact(x[14:], t[14:]).x_0)


def test_answers_are_in_the_dtype_of_x_and_ignore_the_condition():
    exact = normal()
    for dtype in (torch.float32, torch.float64):
        assert {value.dtype for value in exact(torch.ones(2, 1, dtype=dtype), 3, "ignored")} == {dtype}


def test_sample_has_the_mixtures_weights_means_and_covariances():
    means = 30 * torch.eye(4, 3)  # far apart: which component is plain to see
    x = ExactDenoiser(PROCESS, WEIGHTS, means, COVS["matrices"]).sample(40_000, seeded())
    assert x.dtype == torch.float32
    which = torch.cdist(x, means).argmin(1)
    for k in range(4):
        assert_average((which == k).double(), WEIGHTS[k] / WEIGHTS.sum())
        off = (x[which == k] - means[k]).double()
        assert_average(off, torch.zeros(3))
        assert_average(off[:, :, None] * off[:, None, :], COVS["matrices"][k])
