"""Samplers against diffusers' schedulers, and against mixtures whose every number is known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from stats import assert_average, assert_moments, seeded
from torch import Tensor, nn

from ddpm_edu import denoiser, samplers
from ddpm_edu.denoiser import Denoiser, ExactDenoiser
from ddpm_edu.process import Process, like
from ddpm_edu.samplers import State, ancestral, beta, ddim, dpmpp_2m, heun, langevin, none, posterior

ALL = [ancestral, ddim, heun, dpmpp_2m]


def last(states: Iterator[State]) -> Tensor:
    *_, state = states
    return state.x_t


# Against diffusers ----------------------------------------------------------------------------------------------------


class ExactNet(nn.Module):
    """A network that predicts the target without error: chains stay where data is, and the answer is not linear."""

    def __init__(self, exact: ExactDenoiser, target: denoiser.Target) -> None:
        super().__init__()
        self.exact, self.target = exact, target

    def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        a, b = (like(c[t], x_t) for c in (self.exact.process.a, self.exact.process.b))
        return self.target.of(*self.exact(x_t, t), a, b)


def network(T: int, target: str) -> Denoiser:
    exact = ExactDenoiser(Process.linear(T), [1.0, 2.0], [[-1.0, 0.5], [1.0, 1.0]], [0.05, 0.3])
    target_ = denoiser.TARGETS[target]
    return Denoiser(exact.process, ExactNet(exact, target_), target_)


NAMES = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}  # ours: theirs


def assert_same_chain(ours: Iterator[State], scheduler, denoise: Denoiser, upto: int | None = None, **options) -> None:
    """The whole trajectory, state by state. Their t is ours less 1: index 0 is their first noisy state.

    2e-3: they work in float32 throughout, running products of alphas included.
    """
    states = list(ours)
    scheduler.set_timesteps(len(states) - 1)
    assert [int(t) + 1 for t in scheduler.timesteps] == [state.t for state in states[:-1]]
    theirs = [states[0].x_t]
    for t in scheduler.timesteps:
        with torch.no_grad():
            y = denoise.net(theirs[-1], torch.full((len(theirs[0]),), int(t) + 1))
        theirs.append(scheduler.step(y, t, theirs[-1], **options).prev_sample)
    found = [state.x_t for state in states]
    torch.testing.assert_close(found[:upto], theirs[:upto], rtol=2e-3, atol=2e-3)


def settings(denoise: Denoiser, target: str) -> dict:
    return {
        "num_train_timesteps": denoise.process.T,
        "trained_betas": denoise.process.beta[1:].tolist(),
        "prediction_type": NAMES[target],
        "timestep_spacing": "trailing",  # T, ..., as `process.timesteps` where n divides T
    }


@pytest.mark.parametrize("n", [100, 20])
@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize(("sigma2", "variance"), [(posterior, "fixed_small"), (beta, "fixed_large")])
def test_ancestral_is_diffusers_ddpm(sigma2, variance: str, target: str, n: int):
    denoise, x_T = network(100, target), torch.randn(8, 2, generator=seeded())
    scheduler = DDPMScheduler(**settings(denoise, target), variance_type=variance, clip_sample=False)
    ours = ancestral(denoise, x_T, denoise.process.timesteps(n), sigma2=sigma2, generator=seeded(1))
    # With fixed_large and a stride, diffusers adds noise in the last step too; algorithm 2 has z = 0 there.
    upto = -1 if sigma2 is beta and n < 100 else None
    assert_same_chain(ours, scheduler, denoise, upto, generator=seeded(1))


@pytest.mark.parametrize("n", [100, 20])
@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_diffusers_ddim(eta: float, target: str, n: int):
    denoise, x_T = network(100, target), torch.randn(8, 2, generator=seeded())
    scheduler = DDIMScheduler(**settings(denoise, target), clip_sample=False)
    ours = ddim(denoise, x_T, denoise.process.timesteps(n), eta=eta, generator=seeded(1))
    assert_same_chain(ours, scheduler, denoise, eta=eta, generator=seeded(1))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers, of numpy
@pytest.mark.parametrize("n", [50, 10])
@pytest.mark.parametrize("target", NAMES)
def test_dpmpp_2m_is_diffusers_multistep_solver(target: str, n: int):
    denoise, x_T = network(100, target), torch.randn(8, 2, generator=seeded())
    scheduler = DPMSolverMultistepScheduler(**settings(denoise, target))  # ++, midpoint, last step of first order
    assert_same_chain(dpmpp_2m(denoise, x_T, denoise.process.timesteps(n)), scheduler, denoise)


def test_ddim_with_all_noise_is_ancestral_sampling():
    """eta = 1 is the posterior variance: the same chain from the same noise, in float64."""
    exact = ExactDenoiser(Process.linear(40), [1.0, 2.0], [[-1.0], [1.0]], 0.1)
    x_T = torch.randn(10, 1, dtype=torch.float64, generator=seeded())
    for n in (40, 7):
        steps = exact.process.timesteps(n)
        pairs = zip(
            ddim(exact, x_T, steps, eta=1.0, generator=seeded(1)),
            ancestral(exact, x_T, steps, generator=seeded(1)),
            strict=True,
        )
        for one, other in pairs:
            torch.testing.assert_close(one, other)


# What every sampler promises ------------------------------------------------------------------------------------------


class Wave(nn.Module):
    """A fixed function in place of a network, for data of any shape; counts its calls."""

    calls = 0

    def forward(self, x_t: Tensor, t: Tensor, cond: float | None = None) -> Tensor:
        self.calls += 1
        return torch.sin(3 * x_t + like(t / 10, x_t)) + (cond or 0)


def wave() -> Denoiser:
    return Denoiser(Process.cosine(40), Wave(), denoiser.v)


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 28, 28), (3, 4, 16, 16)], ids=["points", "digits", "latents"])
def test_states_run_from_x_T_to_data(sampler, shape: tuple[int, ...]):
    """n + 1 states: first x_T with its prediction, last t = 0 with x_0 = x_t, for points, digits and latents alike."""
    denoise, x_T = wave(), torch.randn(shape, generator=seeded())
    timesteps = denoise.process.timesteps(6)
    states = list(sampler(denoise, x_T, timesteps, 0.5))
    assert [state.t for state in states] == timesteps
    assert states[0].x_t is x_T
    assert states[-1].x_0 is states[-1].x_t
    for state in states[:-1]:
        assert state.x_t.shape == state.x_0.shape == shape
        assert not state.x_t.requires_grad
        with torch.no_grad():
            assert torch.equal(state.x_0, denoise(state.x_t, state.t, 0.5).x_0)
    assert states[-1].x_t.isfinite().all()


@pytest.mark.parametrize(("sampler", "calls"), [(ancestral, 6), (ddim, 6), (dpmpp_2m, 6), (heun, 11)])
def test_network_calls(sampler, calls: int):
    denoise = wave()
    last(sampler(denoise, torch.randn(2, 2), denoise.process.timesteps(6)))
    assert denoise.net.calls == calls


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("n", [1, 2])
def test_the_last_step_lands_on_the_prediction(sampler, n: int):
    """At s = 0 nothing but x_0 is left; one step from T included."""
    denoise, x_T = wave(), torch.randn(3, 2, generator=seeded())
    states = list(sampler(denoise, x_T, denoise.process.timesteps(n)))
    torch.testing.assert_close(states[-1].x_t, states[-2].x_0)


@pytest.mark.parametrize(("sampler", "random"), [(ancestral, True), (lambda *a, **k: ddim(*a, eta=1.0, **k), True)])
def test_one_seed_one_chain(sampler, random: bool):
    denoise, x_T = wave(), torch.randn(3, 2, generator=seeded())
    draw = [last(sampler(denoise, x_T, denoise.process.timesteps(8), generator=seeded(seed))) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_ddim_draws_nothing_at_eta_0():
    generator, denoise = seeded(), wave()
    before = generator.get_state()
    last(ddim(denoise, torch.randn(3, 2), denoise.process.timesteps(8), generator=generator))
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("timesteps", [[], [0], [40, 20], [41, 0], [40, 40, 0], [20, 30, 0], [40, 20, 0, -1]])
def test_bad_timesteps_get_one_sentence(sampler, timesteps: list[int]):
    with pytest.raises(ValueError, match=r"timesteps must fall from at most T = 40 to 0, as process\.timesteps\(n\)"):
        list(sampler(wave(), torch.randn(2, 2), timesteps))


@pytest.mark.parametrize("sampler", ALL)
def test_a_chain_may_start_below_T(sampler):
    """Half-noised data is a start too: sampling from t = 20 (editing a picture)."""
    assert [state.t for state in sampler(wave(), torch.randn(2, 2), [20, 10, 0])] == [20, 10, 0]


# What comes out is the data's distribution ----------------------------------------------------------------------------

MIXTURE = {"weights": [0.25, 0.75], "means": [[-2.0], [2.0]], "covs": 0.25}
LINEAR = Process.linear(1000)


@pytest.mark.parametrize(
    ("sample", "n", "bias"),
    [
        # bias: of a component's mean and variance, from the finite step; about twice what many more draws show.
        (lambda *a: ancestral(*a, generator=seeded(1)), 500, 0.03),
        (lambda *a: ancestral(*a, sigma2=beta, generator=seeded(1)), 500, 0.03),
        (ddim, 500, 0.02),
        (heun, 200, 0.02),
        (dpmpp_2m, 100, 0.02),
    ],
    ids=["ancestral-posterior", "ancestral-beta", "ddim", "heun", "dpmpp_2m"],
)
def test_samplers_recover_a_mixture(sample, n: int, bias: float):
    exact = ExactDenoiser(LINEAR, **MIXTURE)
    x = last(sample(exact, torch.randn(3000, 1, generator=seeded()), LINEAR.timesteps(n)))
    heavy = x[:, 0] > 0
    assert_average(heavy.double(), 0.75)
    assert_moments(x[heavy], 2.0, 0.25, bias)
    assert_moments(x[~heavy], -2.0, 0.25, bias)


def flow(x_T: Tensor, process: Process, mean: float, sd: float) -> Tensor:
    """Where the deterministic path from x_T ends when the data is N(mean, sd^2): it keeps the standardised value."""
    a, b = process.a[-1], process.b[-1]
    return mean + sd * (x_T - a * mean) / (a**2 * sd**2 + b**2).sqrt()


@pytest.mark.parametrize(("sampler", "low", "high"), [(ddim, 1.8, 2.1), (heun, 3.7, 5.5)])
def test_order_of_convergence(sampler, low: float, high: float):
    """Twice the steps: DDIM's error halves, Heun's is at most a quarter. b rises linearly from 0 here (beta_1 = 1e-7);
    with the usual beta_1 it starts like sqrt(t), and the first-order last step is what one sees in the end."""
    process = Process.linear(1000, beta_1=1e-7)
    exact = ExactDenoiser(process, [1.0], [[1.3]], 0.25)
    x_T = torch.randn(50, 1, dtype=torch.float64, generator=seeded())
    true = flow(x_T, process, 1.3, 0.5)
    errors = [float((last(sampler(exact, x_T, process.timesteps(n))) - true).abs().mean()) for n in (20, 40, 80)]
    for coarse, fine in pairwise(errors):
        assert low < coarse / fine < high, errors


@pytest.mark.parametrize("sampler", [heun, dpmpp_2m])
def test_second_order_beats_ddim(sampler):
    exact = ExactDenoiser(LINEAR, **MIXTURE)
    x_T, steps = torch.randn(50, 1, dtype=torch.float64, generator=seeded()), LINEAR.timesteps
    true = last(heun(exact, x_T, steps(1000)))
    error = [float((last(s(exact, x_T, steps(20))) - true).abs().mean()) for s in (sampler, ddim)]
    assert error[0] < 0.5 * error[1], error


def straight(T: int) -> Process:
    """The paths of flow matching: x_t = (1 - t/T) x_0 + t/T eps. At T nothing is left of the data: a_T = 0."""
    time = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    return Process.from_coefficients(1 - time, time)


@pytest.mark.parametrize("sampler", ALL)
def test_straight_paths_need_no_other_sampler(sampler):
    exact = ExactDenoiser(straight(100), [0.5, 0.5], [[-1.0], [2.0]], [0.04, 0.25])
    x = last(sampler(exact, torch.randn(2000, 1, generator=seeded()), exact.process.timesteps(100)))
    assert_moments(x, 0.5, 0.145 + 1.5**2, bias=0.05)


def test_variances():
    """sigma_t^2 by name: eq. 7 and beta_t at a stride of one, their like at any other, 0 where the chain ends."""
    P = Process.linear(100)
    assert float(posterior(P, 50, 49)) == pytest.approx(
        float(P.beta[50] * (1 - P.alpha_bar[49]) / (1 - P.alpha_bar[50]))
    )
    assert float(beta(P, 50, 49)) == pytest.approx(float(P.beta[50]))
    assert float(beta(P, 50, 30)) == pytest.approx(float(1 - P.alpha_bar[50] / P.alpha_bar[30]))
    for t in (1, 100):
        assert [float(f(P, t, 0)) for f in (posterior, beta, none)] == [0, 0, 0]
    assert float(none(P, 50, 49)) == 0


def test_a_variance_of_your_own():
    denoise, x_T = wave(), torch.randn(3, 2, generator=seeded())
    half = last(ancestral(denoise, x_T, [40, 20, 0], sigma2=lambda P, t, s: posterior(P, t, s) * 0))
    assert torch.equal(half, last(ancestral(denoise, x_T, [40, 20, 0], sigma2=none)))


# Langevin -------------------------------------------------------------------------------------------------------------


def test_langevin_states():
    exact = ExactDenoiser(LINEAR, **MIXTURE)
    x = torch.randn(4, 1, generator=seeded())
    states = list(langevin(exact, x, 100, step=0.01, n=5, generator=seeded(1)))
    assert [state.t for state in states] == [100] * 6
    assert states[0].x_t is x
    z = torch.randn(4, 1, generator=seeded(1))
    torch.testing.assert_close(states[1].x_t, x + 0.005 * exact.score(x, 100) + 0.1 * z)
    assert torch.equal(states[0].x_0, exact(x, 100).x_0)


def test_all_samplers_are_listed():
    assert {s.__name__ for s in ALL} | {"langevin"} <= set(samplers.__all__)
