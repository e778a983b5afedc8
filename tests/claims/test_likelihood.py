"""C01, C02, C03: what a generator makes and how likely it is, likelihood and KL, what each family can compute."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.special import digamma
from stats import assert_average, seeded
from torch import Tensor, nn

from ddpm_edu.denoiser import ExactDenoiser
from ddpm_edu.exercises.nb01 import fit_normal, kl_on_grid, log_marginal, mean_log_likelihood, push_log_density
from ddpm_edu.mixture import Mixture
from ddpm_edu.nets.gan import DCGenerator, points_gan
from ddpm_edu.nets.realnvp import RealNVP
from ddpm_edu.objectives import diffusion_bound, elbo, importance_bound
from ddpm_edu.process import Gaussian, Process
from ddpm_edu.recipes.families import FAMILIES, TARGET, Family
from ddpm_edu.training import train

W, M, S = (0.35, 0.65), (-2.0, 2.0), 0.5  # the two-mode world of the notebook
WORLD = Mixture(W, [[m] for m in M], S**2)
MEAN = W[0] * M[0] + W[1] * M[1]
VAR = S**2 + sum(w * (m - MEAN) ** 2 for w, m in zip(W, M, strict=True))
GRID = torch.linspace(-14, 14, 1401, dtype=torch.float64)
DX = 0.02
P = WORLD.log_prob(GRID[:, None]).exp()


def normal(x: Tensor, m: float | Tensor, s: float | Tensor) -> Tensor:
    return torch.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))


# C01 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C01")
def test_c01_a_generative_model_answers_the_discriminative_question_and_not_the_other_way_round():
    """Bayes' rule gives P(y | x) its frequency among draws; and another P(x) has the very same P(y | x)."""
    n, first, second = 200_000, Mixture([1, 1], [[-1.0], [1.0]], 1.0), Mixture([1, 1], [[-2.0], [2.0]], 0.25)
    for world, seed in ((first, 0), (second, 1)):
        x = world.sample(n, seeded(seed))[:, 0].double()
        y = (torch.rand(n, generator=seeded(seed + 5)) < torch.sigmoid(2 * x)).double()  # both worlds label alike
        for group in x.argsort().chunk(10):
            assert_average(y[group] - torch.sigmoid(2 * x[group]), 0.0)
    # In the first world that is what its own components give.
    joint = [0.5 * normal(GRID, m, 1.0) for m in (-1.0, 1.0)]
    torch.testing.assert_close(joint[1] / (joint[0] + joint[1]), torch.sigmoid(2 * GRID))
    apart = kl_on_grid(first.log_prob(GRID[:, None]).exp(), second.log_prob(GRID[:, None]).exp(), DX)
    assert apart > 0.5


@pytest.mark.claim("C01")
@pytest.mark.parametrize("name", ["points_gan", "DCGenerator", "RealNVP"])
def test_c01_moving_z_moves_x_continuously(name: str):
    """Along a path in z, walked in steps half as long, the longest jump of x halves."""
    torch.manual_seed(0)
    made = {
        "points_gan": (points_gan()[0], 2),
        "DCGenerator": (DCGenerator(d_z=16), 16),
        "RealNVP": (RealNVP().inverse, 2),
    }
    G, d_z = made[name]
    ends = torch.randn(2, d_z, generator=seeded(1))

    @torch.no_grad()
    def longest(steps: int) -> float:
        angle = torch.linspace(0, math.pi / 2, steps + 1)[:, None]
        z = angle.cos() * ends[0] + angle.sin() * ends[1]
        return G(z).flatten(1).diff(dim=0).norm(dim=1).max().item()

    jumps = [longest(steps) for steps in (50, 100, 200)]
    assert all(0.4 < after / before < 0.6 for before, after in pairwise(jumps)), jumps


@pytest.mark.claim("C01")
def test_c01_the_pushforward_density():
    """P(x) of x = mu + scale z: it integrates to 1 and holds the draws' own share of every cell."""
    mu, scale = torch.tensor([0.3, -0.5]), torch.tensor([1.2, -0.4])
    side = torch.linspace(-6, 6, 601)
    plane = torch.cartesian_prod(side, side)
    density = push_log_density(plane, mu, scale).exp()
    assert abs(density.sum() * 0.02**2 - 1) < 1e-4
    x = mu + scale * torch.randn(200_000, 2, generator=seeded())
    for low, high in ((0.0, 0.5), (-1.0, 1.0), (1.5, 4.0)):
        inside = ((plane > low) & (plane < high)).all(1)
        assert_average(((x > low) & (x < high)).all(1).double(), density[inside].sum() * 0.02**2, bias=5e-3)


@pytest.mark.claim("C01")
def test_c01_the_density_is_an_integral_over_z():
    """x = a z + sigma eps in d dimensions: the integral by quadrature, by Monte Carlo, and in closed form."""
    a, sigma = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64), 0.7
    x = torch.randn(4, 3, dtype=torch.float64, generator=seeded())
    covariance = a[:, None] * a + sigma**2 * torch.eye(3, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(x)

    def log_p(z: Tensor) -> Tensor:  # (n,) -> log P(x | z), (n, b)
        return torch.distributions.Normal(z[:, None, None] * a, sigma).log_prob(x).sum(-1)

    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    integral = (log_p(grid).exp() * normal(grid, 0, 1)[:, None]).sum(0) * 0.004
    torch.testing.assert_close(integral.log(), exact, rtol=1e-8, atol=1e-8)
    draws = torch.randn(200_000, dtype=torch.float64, generator=seeded(1))
    assert_average((log_p(draws) - exact).exp(), 1.0)
    assert (log_marginal(log_p(draws)) - exact).abs().max() < 0.05


@pytest.mark.claim("C01")
@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_c01_the_integral_gets_hopeless_with_dimension(sigma: float):
    """One draw's relative mean square is exact, a product over the elements: exp(c d); estimates then fall short."""
    v = 1 + sigma**2

    def log_r(x: Tensor) -> Tensor:
        return math.log(v / (sigma * math.sqrt(2 + sigma**2))) + x**2 * (1 / v - 1 / (2 + sigma**2))

    c = math.log(v / (sigma * math.sqrt(2 + sigma**2))) + 1 / (2 + sigma**2)
    x = v**0.5 * torch.randn(40, 32, dtype=torch.float64, generator=seeded())
    assert_average(log_r(x).flatten(), c)
    z = torch.randn(100_000, 2, dtype=torch.float64, generator=seeded(1))
    ratio = (normal(x[0, :2], z, sigma) / normal(x[0, :2], 0, v**0.5)).prod(1)
    assert_average(ratio, 1.0)
    assert_average(ratio**2, log_r(x[0, :2]).sum().exp())
    z = torch.randn(20_000, 32, dtype=torch.float64, generator=seeded(2))
    log_p = -0.5 * torch.cdist(z, x) ** 2 / sigma**2 - 32 * math.log(sigma * math.sqrt(2 * math.pi))
    short = log_marginal(log_p) - torch.distributions.Normal(0, v**0.5).log_prob(x).sum(1)
    assert short.median() < -3  # e^3 = 20 times too small, with 20,000 draws


@pytest.mark.claim("C01")
def test_c01_it_is_not_p_of_x_given_z_simplified():
    """The mean of log P(x | z) and log P(x | best z) lie on either side of log P(x), by amounts that are known."""
    d, sigma, n = 10, 0.5, 100_000
    v = 1 + sigma**2
    x = v**0.5 * torch.randn(n, d, dtype=torch.float64, generator=seeded())
    z = torch.randn(n, d, dtype=torch.float64, generator=seeded(1))
    marginal = torch.distributions.Normal(0.0, v**0.5).log_prob(x).sum(1)
    given_z = torch.distributions.Normal(z, sigma).log_prob(x).sum(1)
    # E[(x - z)^2] = v + 1 for an independent z, and E[x^2] = v
    assert_average(marginal - given_z, 0.5 * d * (math.log(sigma**2 / v) - 1 + (v + 1) / sigma**2))
    best = -d * math.log(sigma * math.sqrt(2 * math.pi))
    assert_average(best - marginal, 0.5 * d * (math.log(v / sigma**2) + 1))


# C02 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C02")
@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (MEAN, VAR**0.5), (2.0, 0.5), (-1.0, 3.0)])
def test_c02_mean_log_likelihood_is_minus_entropy_minus_kl(m: float, s: float):
    """The three terms by three ways: moments, adaptive quadrature, the grid; and a million data."""

    def p(x: float) -> float:
        return sum(w * math.exp(-0.5 * ((x - k) / S) ** 2) for w, k in zip(W, M, strict=True)) / (
            S * math.sqrt(2 * math.pi)
        )

    def log_q(x: float) -> float:
        return -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))

    def integral(f) -> float:
        return quad(f, -8, 8, points=M, epsabs=1e-11, limit=400)[0]

    entropy = integral(lambda x: -p(x) * math.log(p(x)))
    kl = integral(lambda x: p(x) * (math.log(p(x)) - log_q(x)))
    expected = -(VAR + (MEAN - m) ** 2) / (2 * s**2) - math.log(s * math.sqrt(2 * math.pi))
    assert expected == pytest.approx(-entropy - kl, abs=1e-8)
    assert expected != pytest.approx(-kl, abs=1)  # "equal", without the entropy
    assert kl_on_grid(P, normal(GRID, m, s), DX).item() == pytest.approx(kl, abs=1e-6)
    x = WORLD.sample(1_000_000, seeded())[:, 0].double()
    one = torch.ones(1, dtype=torch.float64)
    assert_average(-0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi)), -entropy - kl)
    assert mean_log_likelihood(x, one, m * one, s * one).item() == pytest.approx(-entropy - kl, abs=0.1)


@pytest.mark.claim("C02")
def test_c02_the_argmax_of_the_likelihood_is_the_argmin_of_the_kl():
    """The integrated KL has a zero gradient and a positive curvature at the mean and variance of the data."""

    def kl(theta: Tensor) -> Tensor:
        return kl_on_grid(P, normal(GRID, theta[0], theta[1].exp()), DX)

    at = torch.tensor([MEAN, 0.5 * math.log(VAR)], dtype=torch.float64)
    assert torch.func.grad(kl)(at).abs().max() < 1e-8
    assert (torch.linalg.eigvalsh(torch.autograd.functional.hessian(kl, at)) > 0).all()
    x = WORLD.sample(1_000_000, seeded())
    mean, var = fit_normal(x.double())
    assert_average(x[:, 0], MEAN)
    assert mean.item() == pytest.approx(MEAN, abs=0.01)
    assert var.item() == pytest.approx(VAR, abs=0.02)


@pytest.mark.claim("C02")
@pytest.mark.parametrize("n", [8, 20, 200])
def test_c02_only_as_n_goes_to_infinity(n: int):
    """The fit of n data: its expected KL to the truth, and its likelihood on the data above -H, both exact; both fall
    like 1/n."""
    x = torch.randn(n, 20_000, dtype=torch.float64, generator=seeded(n))
    mean, var = fit_normal(x)
    kl, above = 0.5 * (var.log() + (1 + mean**2) / var - 1), -0.5 * var.log()
    shrink = digamma((n - 1) / 2) + math.log(2 / n)
    assert_average(kl, 0.5 * (shrink + (n + 1) / (n - 3) - 1))
    assert_average(above, -0.5 * shrink)
    assert above.mean() > 0  # on the data it is above the ceiling that -H is for infinitely many
    if n == 200:
        assert kl.mean() * n == pytest.approx(1, abs=0.1)  # two parameters, 2 / (2 n)


@pytest.mark.claim("C02")
def test_c02_likelihoods_depend_on_the_unit_and_kl_does_not():
    q = normal(GRID, MEAN, VAR**0.5)
    unit = 255.0
    before, after = (kl_on_grid(P / u, q / u, DX * u).item() for u in (1.0, unit))
    assert before == pytest.approx(after, abs=1e-12)
    logs = [(torch.special.xlogy(P / u, q / u).sum() * DX * u).item() for u in (1.0, unit)]
    assert logs[0] - logs[1] == pytest.approx(math.log(unit), abs=1e-9)


def descend(p: Tensor, start: tuple[float, float], steps: int = 300) -> tuple[float, float, float]:
    """Mean, deviation and value of a minimum of KL(model || p), from a start (mean, log deviation)."""
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], 0.05)
    for _ in range(steps):
        loss = kl_on_grid(normal(GRID, theta[0], theta[1].exp()) + 1e-300, p + 1e-300, DX)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return theta[0].item(), theta[1].exp().item(), loss.item()


@pytest.mark.claim("C02")
def test_c02_the_reverse_kl_picks_a_mode_that_is_far_from_the_other():
    """It ends on either mode, by its start, with KL = -log of that mode's weight; the forward fit covers both."""
    for start, mode in (((-1.0, 0.0), 0), ((1.0, 0.0), 1)):
        m, s, kl = descend(P, start)
        assert m == pytest.approx(M[mode], abs=0.02)
        assert s == pytest.approx(S, abs=0.02)
        assert kl == pytest.approx(-math.log(W[mode]), abs=5e-3)
    valley = GRID.abs() < 0.75
    assert normal(GRID, MEAN, VAR**0.5)[valley].sum() > 10 * P[valley].sum()


@pytest.mark.claim("C02")
def test_c02_the_reverse_kl_covers_modes_that_are_near():
    """Two equal modes two deviations apart: from either side it ends in the middle, and below log 2."""
    p = 0.5 * (normal(GRID, -S, S) + normal(GRID, S, S))
    for start in ((-1.0, -0.5), (1.0, -0.5)):
        m, _, kl = descend(p, start)
        assert m == pytest.approx(0, abs=0.01)
        assert kl < 0.1 < math.log(2)


@pytest.mark.claim("C02")
@pytest.mark.parametrize(("distance", "expected"), [(4.0, {0}), (5.0, {-1, 0, 1}), (10.0, {-1, 0, 1})])
def test_c02_the_reverse_kl_has_several_minima_when_the_modes_are_apart(distance: float, expected: set[int]):
    """Minima, not saddles: zero gradient and positive curvature; the middle one stays, and costs ever more."""
    half = distance * S / 2
    p = 0.5 * (normal(GRID, -half, S) + normal(GRID, half, S))

    def kl(theta: Tensor) -> Tensor:
        return kl_on_grid(normal(GRID, theta[0], theta[1].exp()) + 1e-300, p + 1e-300, DX)

    found = {}
    for start in ((-half, math.log(S)), (0.1, 0.4), (half, math.log(S))):
        m, s, value = descend(p, start, steps=600)
        at = torch.tensor([m, math.log(s)], dtype=torch.float64)
        assert torch.func.grad(kl)(at).abs().max() < 1e-3
        assert (torch.linalg.eigvalsh(torch.func.hessian(kl)(at)) > 0.01).all()
        found[0 if abs(m) < 0.01 else int(math.copysign(1, m))] = value
    assert set(found) == expected
    if distance == 5:
        assert found[0] < found[1] - 0.1  # the middle is lower still
    if distance == 10:
        assert found[0] > 3 > math.log(2) > found[1] - 1e-3


# C03 ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    """All four, after a few steps on the common target."""
    trained = {}
    with torch.random.fork_rng():
        for name, make in FAMILIES.items():
            torch.manual_seed(0)
            trained[name] = family = make(steps=150)
            for _ in train(
                family.update, lambda generator: TARGET.sample(256, generator), 150, family.learners, progress=False
            ):
                pass
    return trained


def ceiling() -> float:
    """-H of the target, by integration."""
    side = torch.linspace(-3, 3, 601)
    p = TARGET.log_prob(torch.cartesian_prod(side, side)).double().exp()
    assert abs(p.sum() * 1e-4 - 1) < 1e-6
    return torch.special.xlogy(p, p).sum().item() * 1e-4


@pytest.mark.claim("C03")
def test_c03_all_four_sample(families: dict[str, Family]):
    for name in ("GAN", "VAE", "flow", "diffusion"):
        first, again, other = (families[name].sample(100, seeded(seed)) for seed in (0, 0, 1))
        assert first.shape == (100, 2)
        assert first.isfinite().all()
        torch.testing.assert_close(first, again)
        assert (first - other).abs().max() > 0.1


@pytest.mark.claim("C03")
@torch.no_grad()
def test_c03_a_flow_has_the_density_and_the_latent(families: dict[str, Family]):
    flow, x = families["flow"].learners["flow"].ema, TARGET.sample(2000, seeded())
    side = torch.linspace(-5, 5, 251)
    plane = torch.cartesian_prod(side, side)
    assert flow.log_prob(plane).exp().sum().item() * 0.04**2 == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(flow.inverse(flow(x)[0]), x, atol=1e-3, rtol=1e-3)
    log_p = families["flow"].log_prob(x)
    assert_below(log_p, ceiling())


@pytest.mark.claim("C03")
@torch.no_grad()
def test_c03_a_vae_has_a_bound_that_can_be_tightened(families: dict[str, Family]):
    """log p(x) by quadrature over its two-dimensional z; ELBO < importance bound < log p(x), on average."""
    vae, x = families["VAE"].learners["VAE"].ema, TARGET.sample(100, seeded())
    side = torch.linspace(-6, 6, 241)
    z = torch.cartesian_prod(side, side)
    y, log_prior = vae.decode(z), Gaussian(torch.zeros(2), torch.ones(2)).log_prob(z).sum(1)
    joint = torch.stack([vae.likelihood.log_prob(one.expand(len(z), 2), y) + log_prior for one in x], 1)
    exact = joint.logsumexp(0) + 2 * math.log(0.05)
    generator = seeded(1)
    bound = sum((r - kl for r, kl in (elbo(vae, x, generator) for _ in range(200))), torch.zeros(100)) / 200
    tighter = importance_bound(vae, x, 500, generator)
    assert bound.mean() < exact.mean() - 0.01
    assert (tighter - exact).abs().mean() < 0.5 * (exact - bound).mean()
    assert families["VAE"].bound
    assert_below(exact, ceiling())


@pytest.mark.claim("C03")
@torch.no_grad()
def test_c03_a_diffusion_model_has_a_bound(families: dict[str, Family]):
    """DDPM eq. 5, on average over the data: it stays below -H. The exact denoiser comes closer to it."""
    family, x = families["diffusion"], TARGET.sample(4000, seeded())
    assert family.bound
    assert_below(family.log_prob(x), ceiling())
    exact = ExactDenoiser(Process.linear(), TARGET.weights, TARGET.means, 0.12**2)
    best = diffusion_bound(exact, x, seeded(2))
    assert family.log_prob(x).mean() < best.mean()
    error = best.std() / len(best) ** 0.5
    assert ceiling() - 0.2 - 5 * error < best.mean() < ceiling() + 5 * error


@pytest.mark.claim("C03")
def test_c03_a_gan_has_no_density_and_no_inverse(families: dict[str, Family]):
    """Its family offers none. Nothing keeps its generator from folding the plane (det dG/dz of both signs); and with
    fewer elements in z than in x its samples fill no volume at all."""
    assert families["GAN"].log_prob is None
    z = torch.randn(500, 2, generator=seeded())
    folded = 0
    with torch.random.fork_rng():
        for seed in range(8):
            torch.manual_seed(seed)
            G, _ = points_gan()
            negative = (jacobians(G, z).det() < 0).float().mean()
            folded += bool(0.05 < negative < 0.95)
        thin, _ = points_gan(d=2, d_z=1)
    assert folded >= 2
    J = jacobians(thin, z[:, :1])  # (500, 2, 1): a curve
    assert (J @ J.mT).det().abs().max() < 1e-6 * J.norm(dim=(1, 2)).max() ** 4


def jacobians(G: nn.Module, z: Tensor) -> Tensor:
    """dG/dz at every z: (n, d, d_z)."""
    return torch.func.vmap(torch.func.jacrev(lambda one: G(one[None])[0]))(z)


def assert_below(log_p: Tensor, top: float) -> None:
    assert log_p.mean() < top - 5 * log_p.std() / len(log_p) ** 0.5
