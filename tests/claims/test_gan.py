"""C04, C05, C06: what the best discriminator is, what it measures, and what of it reaches the generator."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import sympy
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import norm
from stats import assert_average, seeded
from torch import Tensor, nn

from ddpm_edu.data import asset, eight_gaussians
from ddpm_edu.exercises.nb02 import best_discriminator, jsd
from ddpm_edu.metrics import modes_covered
from ddpm_edu.mixture import Mixture
from ddpm_edu.nets.mlp import mlp
from ddpm_edu.objectives import gan_value, gradient_penalty, non_saturating, saturating

DATA, MADE = Mixture([0.4, 0.6], [[-1.6], [1.4]], [0.25, 0.16]), Mixture([1.0], [[0.3]], 2.25)
X = torch.linspace(-20, 20, 8001, dtype=torch.float64)
DX = 0.005


def on_grid(mixture: Mixture) -> Tensor:
    return mixture.log_prob(X[:, None]).exp()


def best_logit(x: Tensor) -> Tensor:
    """(b, 1) -> (b,)."""
    return DATA.log_prob(x) - MADE.log_prob(x)


def exact_value(logit: Tensor) -> float:
    """V for logits on the grid, by integration."""
    return ((on_grid(DATA) * F.logsigmoid(logit) + on_grid(MADE) * F.logsigmoid(-logit)).sum() * DX).item()


def jsd_by_quad(p: Callable[[float], float], q: Callable[[float], float]) -> float:
    """H(m) - (H(p) + H(q)) / 2 by adaptive quadrature: another formula, another rule."""

    def entropy(density: Callable[[float], float]) -> float:
        return quad(lambda x: -density(x) * math.log(density(x)) if density(x) > 0 else 0.0, -20, 20, limit=400)[0]

    return entropy(lambda x: (p(x) + q(x)) / 2) - (entropy(p) + entropy(q)) / 2


@pytest.mark.claim("C04")
def test_c04_the_maximum_at_each_x():
    """a log D + b log(1 - D) has one stationary point, a / (a + b), and is concave (u / (1 + u) is any D in (0, 1))."""
    a, b, D, u = sympy.symbols("a b D u", positive=True)
    at_x = a * sympy.log(D) + b * sympy.log(1 - D)
    assert sympy.solve(sympy.diff(at_x, D), D) == [a / (a + b)]
    assert sympy.simplify(sympy.diff(at_x, D, 2).subs(D, u / (1 + u))).is_negative


@pytest.mark.claim("C04")
def test_c04_v_is_a_mean_over_samples_and_d_star_maximises_it():
    """The package's V on samples averages to the integral; bending the best logit costs what the Bernoulli KL says."""
    real, fake = DATA.sample(200_000, seeded()), MADE.sample(200_000, seeded(1))
    batches = zip(real.split(500), fake.split(500), strict=True)
    values = torch.stack([gan_value(best_logit(r), best_logit(f)) for r, f in batches])
    best = best_logit(X[:, None])
    assert_average(values, exact_value(best))
    torch.testing.assert_close(best_discriminator(on_grid(DATA), on_grid(MADE)), best.sigmoid())
    for k in range(1, 30):
        bent = best + 0.1 * k * torch.sin(0.4 * k * X + k)
        kl = best.sigmoid() * (F.logsigmoid(best) - F.logsigmoid(bent))
        kl += (-best).sigmoid() * (F.logsigmoid(-best) - F.logsigmoid(-bent))
        cost = exact_value(best) - exact_value(bent)
        assert cost > 0
        assert abs(cost - ((on_grid(DATA) + on_grid(MADE)) * kl).sum() * DX) < 1e-9


@pytest.mark.claim("C05")
@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (0.4, 1.0), (2.0, 0.5), (-3.0, 2.0), (8.0, 1.0)])
def test_c05_the_best_value_is_twice_jsd_less_log_4(m: float, s: float):
    """V at D*, the exercise's JSD, and the entropies by adaptive quadrature: three computations, one number."""
    p, q = norm(0, 1), norm(m, s)
    logit = torch.from_numpy(p.logpdf(X) - q.logpdf(X))
    p_x, q_x = torch.from_numpy(p.pdf(X.numpy())), torch.from_numpy(q.pdf(X.numpy()))
    value = ((p_x * F.logsigmoid(logit) + q_x * F.logsigmoid(-logit)).sum() * DX).item()
    oracle = jsd_by_quad(p.pdf, q.pdf)
    assert value == pytest.approx(2 * oracle - 2 * math.log(2), abs=1e-7)
    assert float(jsd(p_x, q_x, DX)) == pytest.approx(oracle, abs=1e-7)
    assert abs(value - oracle) > 0.69  # "max V = JSD" is off by at least log 2 everywhere
    if (m, s) == (0.0, 1.0):
        assert value == pytest.approx(-math.log(4), abs=1e-12)
    else:
        assert value > -math.log(4) + 1e-3


@pytest.mark.claim("C05")
def test_c05_apart_the_jsd_does_not_tell_near_from_far():
    """Two boxes that do not overlap: log 2, touching or ten widths away; the best V is then 0, and it has no slope."""
    x = (torch.arange(200, dtype=torch.float64) + 0.5) / 10
    p = (x < 1).double()
    for start in (1, 1.5, 11):
        q = ((x > start) & (x < start + 1)).double()
        assert float(jsd(p, q, 0.1)) == pytest.approx(math.log(2), abs=1e-12)
    assert float(jsd(p, ((x > 0.5) & (x < 1.5)).double(), 0.1)) < 0.6 * math.log(2)


@pytest.mark.claim("C05")
def test_c05_a_trained_d_stays_below_and_approaches():
    """V by integration at every tenth step of a training on samples: never above the bound, in the end next to it."""
    bound = 2 * float(jsd(on_grid(DATA), on_grid(MADE), DX)) - 2 * math.log(2)
    torch.manual_seed(0)
    net = nn.Sequential(mlp(1, 64, 64, 1), nn.Flatten(0))
    optimizer, values = torch.optim.Adam(net.parameters(), 4e-3), []
    real, fake = seeded(), seeded(1)
    for step in range(601):
        if step % 10 == 0:
            with torch.no_grad():
                values.append(exact_value(net(X[:, None].float()).double()))
        loss = -gan_value(net(DATA.sample(512, real)), net(MADE.sample(512, fake)))
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 601)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert max(values) < bound
    assert bound - values[0] > 0.3
    assert bound - values[-1] < 0.01


# C06: data N(0, 1), G(z) = m + s z; z stands for N(0, 1) by the midpoints of 500,000 slices of equal mass.
Z = torch.special.ndtri((torch.arange(500_000, dtype=torch.float64) + 0.5) / 500_000)


def standing_logit(m: float, s: float) -> Callable[[Tensor], Tensor]:
    """The logit of D* for N(0, 1) against N(m, s^2)."""
    return lambda x: -0.5 * x**2 + 0.5 * ((x - m) / s) ** 2 + math.log(s)


def gradients(m: float, s: float) -> Tensor:
    """d/dm and d/ds of the saturating and the non-saturating loss, D* standing still: (2, 2)."""
    at = torch.tensor([m, s], dtype=torch.float64, requires_grad=True)
    fake = standing_logit(m, s)(at[0] + at[1] * Z)
    return torch.stack([
        torch.autograd.grad(loss(fake), at, retain_graph=True)[0] for loss in (saturating, non_saturating)
    ])  # fmt: skip


@pytest.mark.claim("C06")
def test_c06_each_sample_weighs_d_or_one_minus_d():
    """By the logit, log(1 - D) has the slope -D, next to nothing for poor samples, and -log D has -(1 - D)."""
    logit = torch.linspace(-30, 30, 61, dtype=torch.float64, requires_grad=True)
    for loss, weight in ((saturating, logit.sigmoid()), (non_saturating, (-logit).sigmoid())):
        (slope,) = torch.autograd.grad(loss(logit), logit)
        torch.testing.assert_close(len(logit) * slope, -weight.detach())


@pytest.mark.claim("C06")
def test_c06_the_saturating_gradient_vanishes_far_away():
    """d/dm is m E_G[D*] against m E_G[1 - D*]: the first falls to nothing as G starts farther off, the second grows."""
    low, high = torch.stack([gradients(m, 1.0)[:, 0] for m in (1.0, 2.0, 4.0, 6.0, 8.0)]).T
    for m, a, b in zip((1.0, 2.0, 4.0, 6.0, 8.0), low, high, strict=True):
        deceived, _ = quad(lambda x, m=m: norm.pdf(x) * norm.pdf(x, m) / (norm.pdf(x) + norm.pdf(x, m)), -12, 20)
        assert a == pytest.approx(m * deceived, rel=1e-2, abs=1e-5)
        assert b == pytest.approx(m * (1 - deceived), rel=1e-3)
    assert (low[2:].diff() < 0).all()
    assert (high.diff() > 0).all()
    assert high[-1] / low[-1] > 10_000


@pytest.mark.claim("C06")
def test_c06_both_losses_have_one_fixed_point():
    """At p_G = p_data, D* = 1/2 is flat and both gradients are 0; in m or s off it, neither is."""
    torch.testing.assert_close(gradients(0.0, 1.0), torch.zeros(2, 2, dtype=torch.float64))
    for m, s, which in ((0.2, 1.0, 0), (-0.2, 1.0, 0), (0.0, 1.2, 1), (0.0, 0.8, 1)):
        off = gradients(m, s)[:, which]
        assert (off * (m or s - 1) > 0).all()  # both lead back
        assert off.abs().min() > 0.05


@pytest.mark.claim("C06")
@pytest.mark.parametrize(("m", "s"), [(2.0, 1.0), (0.7, 0.6), (-0.5, 1.3)])
def test_c06_what_each_loss_walks_down(m: float, s: float):
    """The game's own loss: 2 JSD. The non-saturating one: KL(p_G || p_data) - 2 JSD (Arjovsky and Bottou 2017)."""

    def heights(m: float, s: float) -> np.ndarray:
        divergence = jsd_by_quad(norm.pdf, norm(m, s).pdf)
        reverse_kl = (m**2 + s**2 - 1) / 2 - math.log(s)  # KL(N(m, s^2) || N(0, 1))
        return np.array([2 * divergence, reverse_kl - 2 * divergence])

    h = 1e-2
    slopes = np.stack([
        (heights(m + h, s) - heights(m - h, s)) / (2 * h), (heights(m, s + h) - heights(m, s - h)) / (2 * h)
    ], 1)  # fmt: skip
    np.testing.assert_allclose(gradients(m, s).numpy(), slopes, atol=2e-3)
    assert np.abs(slopes[0] - slopes[1]).max() > 0.03  # two landscapes, not one


@pytest.mark.claim("C06")
def test_c06_against_a_standing_d_one_point_beats_the_data():
    """Why modes are lost: the best answer to a D that stands still is a single point, the data themselves are worse."""
    data, wide = eight_gaussians(), Mixture([1.0], [[0.0, 0.0]], 4.0)

    def logit(x: Tensor) -> Tensor:
        return data.log_prob(x) - wide.log_prob(x)

    samples = data.sample(5000, seeded())
    best = samples[logit(samples).argmax()].expand(5000, 2)
    assert modes_covered(best, data).covered == 1 < modes_covered(samples, data).covered == 8
    for loss in (saturating, non_saturating):
        assert loss(logit(best)) < loss(logit(samples)) - 0.01


@pytest.mark.claim("C06")
def test_c06_r1_ends_the_circling():
    """The smallest GAN (Mescheder et al. 2018): data at 0, G at theta, logit psi x. Only with R1 it comes to rest."""

    def distance(gamma: float) -> float:
        theta = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
        psi = torch.tensor([[0.0]], dtype=torch.float64, requires_grad=True)
        real = torch.zeros(1, 1, dtype=torch.float64)

        def D(x: Tensor) -> Tensor:
            return (x @ psi)[:, 0]

        for _ in range(400):
            loss = gamma / 2 * gradient_penalty(D, real) - gan_value(D(real), D(theta.detach()))
            psi.data -= 0.1 * torch.autograd.grad(loss, psi)[0]
            theta.data -= 0.1 * torch.autograd.grad(saturating(D(theta)), theta)[0]
        return math.hypot(theta.item(), psi.item())

    assert distance(0.0) > 0.9
    assert distance(0.5) < 1e-3


@pytest.mark.claim("C06")
def test_c06_mode_collapse_and_its_cure_as_measured():
    """The kept table: with G too fast modes are missing on every seed; a slower G, or a D that sees four at once, has
    them all; and the value in play is near -log 4 in either case."""
    rows = json.loads(asset("results/mode_collapse.json").read_text("utf-8"))["rows"]
    ends = {name: [looks[-1] for looks in row["covered"]] for name, row in rows.items()}
    assert min(map(len, ends.values())) >= 5
    assert max(ends["G five times as fast as D"]) < 8
    assert min(ends["and D sees 4 at once"] + ends["G as fast as D"]) == 8
    for name in ("G five times as fast as D", "and D sees 4 at once"):
        assert max(abs(value + math.log(4)) for value in rows[name]["value"]) < 0.1
