"""C25: guidance is eps_null + w (eps_cond - eps_null); what w does, what makes it possible, and what it costs."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from stats import seeded
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ddpm_edu import pretrained
from ddpm_edu.denoiser import Denoiser, ExactDenoiser, Prediction, guided, v
from ddpm_edu.metrics import bootstrap, wilson
from ddpm_edu.nets.unet import ClassUNet
from ddpm_edu.objectives import diffusion_errors
from ddpm_edu.process import Process
from ddpm_edu.samplers import ancestral, ddim
from ddpm_edu.training import Learner, cosine

PROCESS = Process.linear(100, 0.001, 0.2)  # as noisy at the end as 1,000 steps of the usual ones
F64 = torch.float64


class ByClass:
    """The exact denoiser of data in classes, each a mixture, told the class or, by `null`, nothing.

    priors: (n,), of the classes. classes: of each, (weights, means, covs), as `ExactDenoiser` takes them.
    """

    def __init__(self, process: Process, priors: list[float], classes: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        self.process, self.null = process, torch.tensor([len(classes)])
        self.priors = torch.tensor(priors, dtype=F64) / sum(priors)
        self.given = [ExactDenoiser(process, *one) for one in classes]
        weights = [p * w / w.sum() for p, (w, _, _) in zip(self.priors, classes, strict=True)]
        means, covs = (torch.cat([one[k] for one in classes]) for k in (1, 2))
        self.given.append(ExactDenoiser(process, torch.cat(weights), means, covs))

    def __call__(self, x_t: Tensor, t: Tensor | int, cond: Tensor) -> Prediction:
        """cond: (b,) or (1,) int64."""
        parts = [one(x_t, t) for one in self.given]
        rows = torch.arange(len(x_t))
        return Prediction(*(torch.stack(part)[cond.expand(len(x_t)), rows] for part in zip(*parts, strict=True)))


def data() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Three classes in three dimensions, of one to three Gaussians with covariances of any direction."""
    generator, classes = seeded(1), []
    for k in (2, 1, 3):
        root = torch.randn(k, 3, 3, dtype=F64, generator=generator)
        means = 2 * torch.randn(k, 3, dtype=F64, generator=generator)
        classes.append(
            (torch.rand(k, dtype=F64, generator=generator) + 0.1, means, root @ root.mT + 0.05 * torch.eye(3))
        )
    return classes


PRIORS = [0.2, 0.5, 0.3]
TIMES = [1, 10, 40, 70, 100]


@pytest.fixture(scope="module")
def exact() -> ByClass:
    return ByClass(PROCESS, PRIORS, data())


def points(n: int = 30) -> Tensor:
    return 2 * torch.randn(n, 3, dtype=F64, generator=seeded(2))


def log_densities(x: Tensor, t: int) -> Tensor:
    """log p(x_t | c) of each class by torch.distributions: (n, b)."""
    a, b, found = PROCESS.a[t], PROCESS.b[t], []
    for weights, means, covs in data():
        noisy = a**2 * covs + b**2 * torch.eye(3, dtype=F64)
        found.append(MixtureSameFamily(Categorical(weights), MultivariateNormal(a * means, noisy)).log_prob(x))
    return torch.stack(found)


# The formula ----------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C25")
@pytest.mark.parametrize("t", TIMES)
def test_c25_what_null_predicts_is_the_mean_over_the_classes_that_x_t_may_have(exact: ByClass, t: int):
    """Weighted by p(c | x_t), not by the priors."""
    x = points()
    p = (log_densities(x, t) + torch.tensor(PRIORS, dtype=F64).log()[:, None]).softmax(0)  # (n, b)
    of_classes = torch.stack([exact(x, t, torch.tensor([c])).eps for c in range(3)])
    null = exact(x, t, exact.null).eps
    torch.testing.assert_close(null, (p[..., None] * of_classes).sum(0), rtol=0, atol=1e-9)
    if t < 70:  # close to T, x_t says little of the class
        by_priors = (torch.tensor(PRIORS, dtype=F64)[:, None, None] * of_classes).sum(0)
        assert (null - by_priors).abs().max() > 0.01


@pytest.mark.claim("C25")
@pytest.mark.parametrize("t", TIMES)
def test_c25_w_1_is_off_and_w_0_is_null_exactly(exact: ByClass, t: int):
    x, cond = points(), torch.arange(30) % 3
    on, off = exact(x, t, cond), exact(x, t, exact.null)
    for w, expected in ((1.0, on), (0.0, off)):
        found = guided(exact, exact.null, w)(x, t, cond)
        assert torch.equal(found.eps, expected.eps)
        assert torch.equal(found.x_0, expected.x_0)
    assert (on.eps - off.eps).abs().max() > 1e-4


@pytest.mark.claim("C25")
@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0, 7.5])
@pytest.mark.parametrize("t", TIMES)
def test_c25_the_guided_score_is_that_of_x_t_and_w_times_the_classifiers(exact: ByClass, t: int, w: float):
    """grad log p(x_t) + w grad log p(c | x_t), by autograd and Bayes, with no denoiser in it."""
    x, cond = points().requires_grad_(), torch.arange(30) % 3
    joint = log_densities(x, t) + torch.tensor(PRIORS, dtype=F64).log()[:, None]  # log p(x_t, c)
    log_p = joint.logsumexp(0)
    log_c = joint[cond, torch.arange(30)] - log_p
    (score,) = torch.autograd.grad((log_p + w * log_c).sum(), x)
    found = guided(exact, exact.null, w)(x.detach(), t, cond)
    torch.testing.assert_close(-found.eps / PROCESS.b[t], score, rtol=1e-8, atol=1e-8)
    a, b = PROCESS.a[t], PROCESS.b[t]
    torch.testing.assert_close(a * found.x_0 + b * found.eps, x.detach(), rtol=0, atol=1e-9)


@pytest.mark.claim("C25")
@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 4.0])
def test_c25_the_papers_w_is_this_one_less_1(exact: ByClass, w: float):
    """(1 + w) eps_cond - w eps_null, eq. 6 of Ho and Salimans 2022; read with the same number, another thing."""
    x, cond = points(), torch.arange(30) % 3
    for t in TIMES:
        on, off = exact(x, t, cond).eps, exact(x, t, exact.null).eps
        theirs = (1 + w) * on - w * off
        torch.testing.assert_close(guided(exact, exact.null, w + 1)(x, t, cond).eps, theirs, rtol=0, atol=1e-10)
        gap = (guided(exact, exact.null, w)(x, t, cond).eps - theirs).abs().max()
        torch.testing.assert_close(gap, (on - off).abs().max(), rtol=1e-9, atol=1e-12)  # one whole difference
        assert gap > 1e-4


# What it samples from -------------------------------------------------------------------------------------------------

# On a line: two classes, N(-1, 0.5^2) and N(1, 0.5^2), as likely as each other. The first deviation of noise is 1e-4.
LINE = Process(torch.cat([torch.tensor([1e-8], dtype=F64), torch.linspace(0.0005, 0.1, 199, dtype=F64)]))
GRID = torch.linspace(-8, 8, 16_001, dtype=F64)
WS = (1.0, 2.0, 4.0, 8.0)


@cache
def on_a_line() -> ByClass:
    one, variance = torch.ones(1, dtype=F64), torch.full((1,), 0.25, dtype=F64)
    return ByClass(LINE, [0.5, 0.5], [(one, torch.tensor([[m]], dtype=F64), variance) for m in (-1.0, 1.0)])


class Density(NamedTuple):
    values: Tensor
    mean: float
    deviation: float


def normalised(log_p: Tensor) -> Density:
    """exp(log_p) on GRID, made a density by numerical integration, with its moments."""
    p = (log_p - log_p.max()).exp()
    p = p / torch.trapezoid(p, GRID)
    mean = torch.trapezoid(p * GRID, GRID)
    return Density(p, mean.item(), torch.trapezoid(p * (GRID - mean) ** 2, GRID).sqrt().item())


def sharpened(w: float) -> Density:
    """p(x | c = 1)^w p(x)^(1 - w)."""
    log_c = torch.stack([-0.5 * ((GRID - m) / 0.5) ** 2 for m in (-1.0, 1.0)])
    return normalised(w * log_c[1] + (1 - w) * log_c.logsumexp(0))


@pytest.mark.claim("C25")
@pytest.mark.parametrize("w", [0.0, 0.5, *WS])
def test_c25_without_noise_the_guided_score_is_that_of_the_sharpened_density(w: float):
    """The score at t = 1, integrated along the line: p(x | c)^w p(x)^(1 - w) up to its constant."""
    line = on_a_line()
    inside = GRID.abs() <= 3
    x = GRID[inside, None]
    score = -guided(line, line.null, w)(x, 1, torch.tensor([1])).eps[:, 0] / LINE.b[1]
    log_p = torch.cumulative_trapezoid(score, GRID[inside])
    p = sharpened(w).values[inside][1:]
    off = log_p - p.log()
    assert (off - off.median()).abs().max() < 1e-3


@pytest.mark.claim("C25")
@pytest.mark.parametrize("w", [1.0, 1.5, 3.0, 8.0])
def test_c25_of_gaussians_the_sharpened_density_is_a_narrower_gaussian(w: float):
    """p(x | c) = N(m, s^2) and p(x) = N(0, r^2), s < r: precisions add as w / s^2 + (1 - w) / r^2."""
    m, s, r = 0.7, 0.6, 1.3
    found = normalised(-0.5 * (w * ((GRID - m) / s) ** 2 + (1 - w) * (GRID / r) ** 2))
    precision = w / s**2 + (1 - w) / r**2
    assert found.deviation == pytest.approx(precision**-0.5, rel=1e-6)
    assert found.mean == pytest.approx(w * m / s**2 / precision, rel=1e-6)
    one, mean = torch.ones(1, dtype=F64), torch.tensor([[m]], dtype=F64)
    pair = ByClass(LINE, [1.0], [(one, mean, torch.tensor([s * s], dtype=F64))])
    pair.given[-1] = ExactDenoiser(LINE, one, 0 * mean, r * r)  # c is one of many here: all of them make N(0, r^2)
    x = torch.linspace(-3, 3, 13, dtype=F64)[:, None]
    score = -guided(pair, pair.null, w)(x, 1, torch.tensor([0])).eps / LINE.b[1]
    torch.testing.assert_close(score, (found.mean - x) * precision, rtol=1e-4, atol=1e-4)


@cache
def sampled(w: float, sampler: str) -> Tensor:
    """4,000 samples of the class N(1, 0.5^2), guided by w, from one set of x_T and of noises: (n,)."""
    x_T, times = torch.randn(4000, 1, dtype=F64, generator=seeded(3)), LINE.timesteps(200)
    denoise, cond = guided(on_a_line(), on_a_line().null, w), torch.tensor([1])
    if sampler == "ddim":
        *_, last = ddim(denoise, x_T, times, cond)
    else:
        *_, last = ancestral(denoise, x_T, times, cond, generator=seeded(4))
    return last.x_t[:, 0]


@pytest.mark.claim("C25")
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_c25_the_larger_w_the_narrower_what_is_sampled(sampler: str):
    made = [sampled(w, sampler) for w in WS]
    spread = [x.std().item() for x in made]
    assert spread[0] == pytest.approx(0.5, rel=0.05)  # w = 1: the class itself
    assert all(narrow < wide for wide, narrow in pairwise(spread))  # one x_T, and one noise, for all w
    assert spread[-1] < 0.9 * spread[0]
    means = [x.mean().item() for x in made]
    assert means == sorted(means)  # and the further from the other class
    assert means[-1] > 1.1


@pytest.mark.claim("C25")
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_c25_what_is_sampled_is_not_the_sharpened_density(sampler: str):
    """At w = 1 both are the class. Above, the mean lies further out, by 0.1 and 5 standard errors, and the deviation is
    smaller, by 5 standard errors: the sharpened density, once noisy, has another score than the guided one."""
    for w in WS:
        x, target = sampled(w, sampler), sharpened(w)
        n, deviation = len(x), x.std().item()
        error = deviation / n**0.5
        of_deviation = ((x - x.mean()) ** 2).std().item() / n**0.5 / (2 * deviation)
        if w == 1:
            assert abs(x.mean().item() - target.mean) < 5 * error
            assert abs(deviation - target.deviation) < 5 * of_deviation
        else:
            assert x.mean().item() - target.mean > 0.1 + 5 * error
            assert target.deviation - deviation > 5 * of_deviation


# What makes it possible -----------------------------------------------------------------------------------------------


def plain(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures of 4 x 4, grey -0.5 (class 0) or 0.5 (class 1) and noise of deviation 0.3: (n, 1, 4, 4) and (n,)."""
    c = torch.randint(2, (n,), generator=generator)
    return (c - 0.5)[:, None, None, None] + 0.3 * torch.randn(n, 1, 4, 4, generator=generator), c


def trained(drop: float) -> Denoiser:
    """A network of two classes; the label of a picture is left out with probability drop."""
    torch.manual_seed(0)
    net = ClassUNet(2, 1, (16, 16), 1, (1,), 8)
    learner = Learner(Denoiser(Process.linear(50, 0.002, 0.4), net, v), 8e-3, cosine(150, warmup=20))
    generator = seeded(1)
    for _ in range(150):
        x_0, c = plain(64, generator)
        cond = torch.where(torch.rand(64, generator=generator) < drop, net.null, c)
        t, eps = torch.randint(1, 51, (64,), generator=generator), torch.randn(x_0.shape, generator=generator)
        learner.step(diffusion_errors(learner.net, x_0, t, eps, cond).mean())
    return learner.net.requires_grad_(False)


@pytest.mark.claim("C25")
@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_c25_without_dropout_there_is_no_null(drop: float):
    """Told the class, either network comes near the least loss there is. Told nothing, only the one does that was told
    nothing now and then: the other's null token is still as it was drawn."""
    model, generator, n = trained(drop), seeded(9), 2000
    x_0, c = plain(n, generator)
    t, eps = torch.randint(1, 51, (n,), generator=generator), torch.randn(x_0.shape, generator=generator)
    one, variance = torch.ones(1, dtype=F64), torch.tensor([0.09], dtype=F64)
    means = [torch.full((1, 1, 4, 4), m, dtype=F64) for m in (-0.5, 0.5)]
    exact = ByClass(model.process, [0.5, 0.5], [(one, mean, variance) for mean in means])
    a, b = model.process.at(t, x_0)
    x_t, target = a * x_0 + b * eps, v.of(x_0, eps, a, b)

    def over_least(cond: Tensor) -> float:
        """The loss in units of the least, that of the exact denoiser."""
        best = v.of(*exact(x_t, t, cond), a, b)
        return (diffusion_errors(model, x_0, t, eps, cond).mean() / (best - target).square().mean()).item()

    assert over_least(c) < 1.15
    if drop:
        assert over_least(exact.null) < 1.2
    else:
        assert over_least(exact.null) > 1.5


# The digits -----------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """Digits that were asked for, 0 to 9 in turn. asked, read: (n,), the classes asked for and read by the classifier
    of real digits. pixels, features: (n, d), the digits and the classifier's features of them."""

    asked: Tensor
    read: Tensor
    pixels: Tensor
    features: Tensor


@cache
@torch.no_grad()
def digits_at(w: float, n: int) -> Made:
    """n digits of the shipped model in 10 steps of DDIM, from the same noise whatever w is."""
    recipe, model = pretrained.read(pretrained.shipped("digits_class"))
    reader, asked = pretrained.load("digits_features"), torch.arange(n) % 10
    noise = torch.randn(n, *recipe.noise_shape, generator=seeded())
    *_, x = recipe.states(model, noise, 10, [str(k) for k in asked.tolist()], w=w)
    x = x.clamp(-1, 1)
    return Made(asked, reader.logits(x).argmax(1), x.flatten(1), reader.features(x))


def apart(x: Tensor, asked: Tensor) -> Tensor:
    """The mean distance between two digits of a class, by their rows in x, (n, d): (10,)."""
    return torch.stack([torch.pdist(x[asked == k]).mean() for k in range(10)])


@pytest.mark.claim("C25")
def test_c25_digits_come_as_asked_for():
    """At w = 2 the classifier reads more than nine in ten as the digit asked for: the whole interval lies above 0.9."""
    made = digits_at(2.0, 100)
    assert wilson(int((made.read == made.asked).sum()), 100).low > 0.9


@pytest.mark.claim("C25")
def test_c25_at_w_0_they_come_as_they_like():
    """One in ten by chance. And not all of one kind."""
    made = digits_at(0.0, 60)
    right = wilson(int((made.read == made.asked).sum()), 60)
    assert right.low < 0.1 < right.high < 0.35
    assert len(made.read.unique()) >= 7


@pytest.mark.claim("C25")
def test_c25_w_is_paid_for_with_diversity():
    """From w = 1 to w = 8, digits of one class come closer together, class by class: in the classifier's features to
    less than three quarters of the distance, and in pixels to less than nine tenths. They are still read as asked."""
    plain, strong = digits_at(1.0, 60), digits_at(8.0, 60)
    for name, share in (("features", 0.75), ("pixels", 0.9)):
        wide, narrow = (apart(getattr(one, name), one.asked) for one in (plain, strong))
        assert bootstrap(wide - narrow, generator=seeded()).low > 0
        assert narrow.mean() < share * wide.mean()
    assert (strong.read == strong.asked).sum() >= (plain.read == plain.asked).sum()
