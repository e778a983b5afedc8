"""Notebook 06, the bound and the posterior. Equations are those of DDPM (Ho et al. 2020); C13 to C16 are claims of the
course.

Symbols: beta (T + 1,) with beta[0] = 0; alpha_bar (T + 1,) with alpha_bar[0] = 1; t (b,), integers 1..T;
x (b, ...), points or images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import along, normal, points_and_images, schedule
from ddpm_edu.exercises.nb05 import FIRST_FOR_ALL, INDEX_BEFORE, MEETS_LAST_AXIS, POINTS_ONLY, q_sample
from ddpm_edu.exercises.nb07 import x_0_from_eps
from ddpm_edu.exercises.values import agree

# 06.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "06.1",
    title="Two Gaussians become one",
    hints=(
        "Take minus twice the logarithm of prior times likelihood: (x - mean)^2 / var + (y - r x)^2 / v. Collect x^2.",
        "The factor of x^2 is 1 / var + r^2 / v. A Gaussian in x has 1 / variance there: that is the new variance.",
        "The factor of -2 x is mean / var + r y / v. A Gaussian has mean / variance there: so the new mean is this "
        "times "
        "the new variance.",
    ),
)
def bayes_gaussian(mean: Tensor, var: Tensor, y: Tensor, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of x given y, when x ~ N(mean, var) and, for a given x, y ~ N(r x, v).

    mean, var: (b,), the prior of x; variances, not deviations.
    y: (b,), what was observed.
    r, v: (b,), the likelihood's factor and variance. var and v are above 0.
    Returns (mean of x given y, variance of x given y), (b,) each.
    """
    new_var = 1 / (1 / var + r**2 / v)
    return new_var * (mean / var + r * y / v), new_var


def _problems(rng: torch.Generator, n: int = 6) -> list[Tensor]:
    """mean, var, y, r and v, (n,) each."""
    var, r, v = (0.3 + 1.5 * torch.rand(n, generator=rng) for _ in range(3))
    return [normal(rng, n), var, normal(rng, n), r, v]


@bayes_gaussian.check
def test_bayes_matches_conditioning(student, rng):
    """agrees with Gaussian conditioning on random priors and likelihoods"""
    for n in (6, 9):
        problem = _problems(rng, n)
        agree(student.bayes_gaussian(*problem), bayes_gaussian(*problem))


@bayes_gaussian.check
def test_bayes_between_sure_and_unsure(student, rng):
    """a very vague likelihood leaves the prior as it is; a very sharp one puts x on y / r"""
    mean, var, y, r, _ = _problems(rng)
    agree(student.bayes_gaussian(mean, var, y, r, torch.full((6,), 1e8)), (mean, var), rtol=1e-3)
    agree(student.bayes_gaussian(mean, var, y, r, torch.full((6,), 1e-8))[0], y / r, rtol=1e-3)


@bayes_gaussian.check
def test_bayes_twice(student, rng):
    """two observations, one after the other, give the same in either order"""
    mean, var, y_1, r_1, v_1 = _problems(rng)
    _, _, y_2, r_2, v_2 = _problems(rng)
    first = student.bayes_gaussian(*student.bayes_gaussian(mean, var, y_1, r_1, v_1), y_2, r_2, v_2)
    agree(first, bayes_gaussian(*bayes_gaussian(mean, var, y_2, r_2, v_2), y_1, r_1, v_1))


@bayes_gaussian.mistake(
    "You took 1 / v for the likelihood's share of the precision. As a function of x it is N(y / r, v / r^2): r^2 / v."
)
def precision_without_r(mean, var, y, r, v):
    new_var = 1 / (1 / var + 1 / v)
    return new_var * (mean / var + r * y / v), new_var


@bayes_gaussian.mistake("r is missing throughout: y is not x with noise on it, but r times x with noise on it.")
def r_left_out(mean, var, y, r, v):
    return bayes_gaussian(mean, var, y, torch.ones_like(r), v)


@bayes_gaussian.mistake("You wrote r / v where r^2 / v belongs: in (y - r x)^2 the factor of x^2 is r squared.")
def r_not_squared(mean, var, y, r, v):
    new_var = 1 / (1 / var + r / v)
    return new_var * (mean / var + r * y / v), new_var


@bayes_gaussian.mistake(
    "The mean's second part is r y / v: in (y - r x)^2 the factor of -2 x is r y. Yours has no r there."
)
def y_without_r(mean, var, y, r, v):
    new_var = 1 / (1 / var + r**2 / v)
    return new_var * (mean / var + y / v), new_var


@bayes_gaussian.mistake("You weighed y / r by 1 / v. As a function of x the likelihood has precision r^2 / v.")
def y_over_r_by_v(mean, var, y, r, v):
    new_var = 1 / (1 / var + r**2 / v)
    return new_var * (mean / var + y / r / v), new_var


@bayes_gaussian.mistake(
    "You gave y / r the variance v, and so the precision 1 / v. Dividing by r divides the variance by r^2: r^2 / v."
)
def y_over_r_with_variance_v(mean, var, y, r, v):
    return bayes_gaussian(mean, var, y / r, torch.ones_like(r), v)


@bayes_gaussian.mistake("You multiplied v by r^2. As a function of x the likelihood has variance v / r^2: divide.")
def likelihood_variance_times_r2(mean, var, y, r, v):
    return bayes_gaussian(mean, var, y / r, torch.ones_like(r), v * r**2)


@bayes_gaussian.mistake(
    "You added the variances. Two pieces of evidence make a belief sharper: what adds up is 1 / variance."
)
def variances_added(mean, var, y, r, v):
    return bayes_gaussian(mean, var, y, r, v)[0], var + v / r**2


@bayes_gaussian.mistake(
    "You returned the precision, 1 / variance, in the second place. Take it to the power -1 at the end."
)
def precision_returned(mean, var, y, r, v):
    new_mean, new_var = bayes_gaussian(mean, var, y, r, v)
    return new_mean, 1 / new_var


@bayes_gaussian.mistake("You returned the deviation in the second place. Asked for is the variance: no root.")
def root_returned(mean, var, y, r, v):
    new_mean, new_var = bayes_gaussian(mean, var, y, r, v)
    return new_mean, new_var.sqrt()


@bayes_gaussian.mistake(
    "Your mean is not divided by the sum of the precisions: it is mean / var + r y / v, and still lacks the variance."
)
def mean_not_normalised(mean, var, y, r, v):
    return mean / var + r * y / v, bayes_gaussian(mean, var, y, r, v)[1]


@bayes_gaussian.mistake("You weighed by variances. The surer of the two must count more: weigh by 1 / variance.")
def weights_swapped(mean, var, y, r, v):
    of_y = v / r**2
    return (var * mean + of_y * y / r) / (var + of_y), bayes_gaussian(mean, var, y, r, v)[1]


@bayes_gaussian.mistake("You took the plain average of mean and y / r. Each counts by how sure it is, 1 / variance.")
def plain_average(mean, var, y, r, v):
    return (mean + y / r) / 2, bayes_gaussian(mean, var, y, r, v)[1]


@bayes_gaussian.mistake("You squared var and v. They are variances already, as the text says.")
def variances_squared(mean, var, y, r, v):
    return bayes_gaussian(mean, var**2, y, r, v**2)


@bayes_gaussian.mistake("You left the prior out: y / r with variance v / r^2 is what the likelihood alone says.")
def prior_ignored(mean, var, y, r, v):
    return y / r, v / r**2


@bayes_gaussian.mistake("That is the distribution of y before it is seen, r mean and r^2 var + v. Asked is x given y.")
def predictive(mean, var, y, r, v):
    return r * mean, r**2 * var + v


# 06.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "06.2",
    title="The posterior, mean and variance",
    hints=(
        "It is 06.1 with prior N(sqrt(alpha_bar_{t-1}) x_0, 1 - alpha_bar_{t-1}), y = x_t, r = sqrt(alpha_t), v = "
        "beta_t.",
        "As a formula that also holds at t = 1, where the prior is a point: mean (sqrt(alpha_bar_{t-1}) beta_t x_0 + "
        "sqrt(alpha_t) (1 - alpha_bar_{t-1}) x_t) / (1 - alpha_bar_t), variance beta_t (1 - alpha_bar_{t-1}) / "
        "(1 - alpha_bar_t).",
        "alpha_t is 1 - beta_t. alpha_bar_{t-1} is alpha_bar[t - 1], and at t = 1 that is alpha_bar[0] = 1.",
    ),
)
def posterior(x_0: Tensor, x_t: Tensor, t: Tensor, beta: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of q(x_{t-1} | x_t, x_0), eqs. 6 and 7 (C15). At t = 1 they are x_0 and 0.

    x_0, x_t: (b, ...), points (b, d) or images (b, c, h, w).
    t: (b,), integers 1..T, each sample its own.
    beta, alpha_bar: (T + 1,), with beta[0] = 0 and alpha_bar[0] = 1.
    Returns (mean, like x_t; variance, (b,)).
    """
    before, now = 1 - alpha_bar[t - 1], 1 - alpha_bar[t]
    of_x_0 = alpha_bar[t - 1].sqrt() * beta[t] / now
    of_x_t = (1 - beta[t]).sqrt() * before / now
    axes = (-1, *[1] * (x_t.ndim - 1))
    return of_x_0.view(axes) * x_0 + of_x_t.view(axes) * x_t, beta[t] * before / now


def _mixed(x_0: Tensor, x_t: Tensor, of_x_0: Tensor, of_x_t: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """The mean with these coefficients, (b,) each, beside this variance."""
    return along(of_x_0, x_t) * x_0 + along(of_x_t, x_t) * x_t, var


def _parts(t: Tensor, beta: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The right coefficients of x_0 and x_t, and the right variance: (b,) each."""
    before, now = 1 - alpha_bar[t - 1], 1 - alpha_bar[t]
    return alpha_bar[t - 1].sqrt() * beta[t] / now, (1 - beta[t]).sqrt() * before / now, beta[t] * before / now


@posterior.check
def test_posterior_matches_eqs_6_and_7(student, rng):
    """agrees with eqs. 6 and 7 on points and on images, each sample with its own t"""
    beta, alpha_bar = schedule(rng)
    for t, shape in points_and_images(rng, T=12):
        x_0, x_t = normal(rng, *shape), normal(rng, *shape)
        agree(student.posterior(x_0, x_t, t, beta, alpha_bar), posterior(x_0, x_t, t, beta, alpha_bar))


@posterior.check
def test_posterior_at_the_first_step(student, rng):
    """at t = 1 it is the point x_0, with variance 0"""
    beta, alpha_bar = schedule(rng)
    x_0, x_t, t = normal(rng, 5, 2), normal(rng, 5, 2), torch.tensor([3, 1, 7, 1, 12])
    mean, var = student.posterior(x_0, x_t, t, beta, alpha_bar)
    agree(mean[t == 1], x_0[t == 1])
    agree(var[t == 1], torch.zeros(2))


@posterior.check
def test_posterior_is_what_the_forward_process_shows(student, rng):
    """in 20,000 forward steps what it leaves of x_{t-1} has nothing to do with x_t, and has its variance"""
    beta, alpha_bar = schedule(rng, T=6)
    t, x_0 = torch.tensor([4, 2, 6, 3]), normal(rng, 4, 1).expand(4, 5000)
    x_prev = q_sample(x_0, t - 1, normal(rng, 4, 5000), alpha_bar)
    x_t = along((1 - beta[t]).sqrt(), x_0) * x_prev + along(beta[t].sqrt(), x_0) * normal(rng, 4, 5000)
    mean, var = student.posterior(x_0, x_t, t, beta, alpha_bar)
    left = x_prev - mean
    for linked in (left, left * (x_t - x_t.mean(1, keepdim=True)), left**2 - along(var, x_t)):
        assert (linked.mean(1).abs() < 6 * linked.std(1) / 5000**0.5).all()  # 6 standard errors


@posterior.mistake("You divided the mean by beta_t where 1 - alpha_bar_t belongs: the variance of x_t given x_0.")
def divided_by_beta(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    factor = (1 - alpha_bar[t]) / beta[t]
    return _mixed(x_0, x_t, factor * of_x_0, factor * of_x_t, var)


@posterior.mistake(
    "beta_t stands where 1 - alpha_bar_{t-1} belongs, in x_t's factor and in the variance: the noise before this step "
    "is that of all steps up to t - 1."
)
def beta_for_noise_before(x_0, x_t, t, beta, alpha_bar):
    of_x_0, _, _ = _parts(t, beta, alpha_bar)
    now = 1 - alpha_bar[t]
    return _mixed(x_0, x_t, of_x_0, (1 - beta[t]).sqrt() * beta[t] / now, beta[t] ** 2 / now)


@posterior.mistake(
    "alpha_t and alpha_bar_t are mixed up: the factor of x_t has sqrt(alpha_t), the factor of one step alone."
)
def bar_on_x_t(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0, of_x_t * (alpha_bar[t] / (1 - beta[t])).sqrt(), var)


@posterior.mistake(
    "alpha_t and alpha_bar_{t-1} have changed places: x_0 comes with sqrt(alpha_bar_{t-1}), x_t with sqrt(alpha_t)."
)
def alphas_swapped(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    swap = (alpha_bar[t - 1] / (1 - beta[t])).sqrt()
    return _mixed(x_0, x_t, of_x_0 / swap, of_x_t * swap, var)


@posterior.mistake("The factor of x_0 has sqrt(alpha_bar_t). The prior is q(x_{t-1} | x_0): sqrt(alpha_bar_{t-1}).")
def bar_t_on_x_0(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0 * (1 - beta[t]).sqrt(), of_x_t, var)


@posterior.mistake("The roots are missing: x_0 is multiplied by sqrt(alpha_bar_{t-1}) and x_t by sqrt(alpha_t).")
def no_roots_in_mean(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0 * alpha_bar[t - 1].sqrt(), of_x_t * (1 - beta[t]).sqrt(), var)


@posterior.mistake("A root is missing: x_t is multiplied by sqrt(alpha_t).")
def no_root_on_x_t(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0, of_x_t * (1 - beta[t]).sqrt(), var)


@posterior.mistake("A root is missing: x_0 is multiplied by sqrt(alpha_bar_{t-1}).")
def no_root_on_x_0(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0 * alpha_bar[t - 1].sqrt(), of_x_t, var)


@posterior.mistake("In the factor of x_0 you wrote alpha_t. There belongs beta_t = 1 - alpha_t.")
def alpha_for_beta_on_x_0(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0 * (1 - beta[t]) / beta[t], of_x_t, var)


@posterior.mistake("In the factor of x_0 beta_t is missing.")
def no_beta_on_x_0(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0 / beta[t], of_x_t, var)


@posterior.mistake("Your t - 1 is missing: alpha_bar_{t-1} is alpha_bar[t - 1], and you took alpha_bar[t] throughout.")
def alpha_bar_t_throughout(x_0, x_t, t, beta, alpha_bar):
    of_x_0, _, _ = _parts(t, beta, alpha_bar)
    root = (1 - beta[t]).sqrt()
    return _mixed(x_0, x_t, of_x_0 * root, root, beta[t])


@posterior.mistake("In the variance beta_t is missing: beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t).")
def variance_without_beta(x_0, x_t, t, beta, alpha_bar):
    mean, var = posterior(x_0, x_t, t, beta, alpha_bar)
    return mean, var / beta[t]


@posterior.mistake("The factors of x_0 and x_t have changed places.")
def factors_swapped(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_t, of_x_0, var)


@posterior.mistake(
    "In x_t's factor you wrote 1 - alpha_bar_t, and it cancels. There belongs 1 - alpha_bar_{t-1}, the noise before."
)
def noise_now_for_before(x_0, x_t, t, beta, alpha_bar):
    of_x_0, _, var = _parts(t, beta, alpha_bar)
    return _mixed(x_0, x_t, of_x_0, (1 - beta[t]).sqrt(), var)


@posterior.mistake("You divided the mean by sqrt(1 - alpha_bar_t). Here it stands without a root.")
def root_of_denominator(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    root = (1 - alpha_bar[t]).sqrt()
    return _mixed(x_0, x_t, root * of_x_0, root * of_x_t, var)


@posterior.mistake("The mean is not divided by 1 - alpha_bar_t.")
def mean_not_divided(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    now = 1 - alpha_bar[t]
    return _mixed(x_0, x_t, now * of_x_0, now * of_x_t, var)


@posterior.mistake(
    "You gave beta_t as the variance. Knowing x_0 as well makes x_{t-1} surer: beta_t (1 - alpha_bar_{t-1}) / "
    "(1 - alpha_bar_t)."
)
def variance_of_the_step(x_0, x_t, t, beta, alpha_bar):
    return posterior(x_0, x_t, t, beta, alpha_bar)[0], beta[t]


@posterior.mistake("You returned the deviation in the second place. Asked for is the variance: no root.")
def posterior_deviation(x_0, x_t, t, beta, alpha_bar):
    mean, var = posterior(x_0, x_t, t, beta, alpha_bar)
    return mean, var.sqrt()


@posterior.mistake("The variance is upside down: it has 1 - alpha_bar_{t-1} above and 1 - alpha_bar_t below.")
def variance_upside_down(x_0, x_t, t, beta, alpha_bar):
    before, now = 1 - alpha_bar[t - 1], 1 - alpha_bar[t]
    return posterior(x_0, x_t, t, beta, alpha_bar)[0], beta[t] * now / before


@posterior.mistake("In the variance the division by 1 - alpha_bar_t is missing.")
def variance_not_divided(x_0, x_t, t, beta, alpha_bar):
    return posterior(x_0, x_t, t, beta, alpha_bar)[0], beta[t] * (1 - alpha_bar[t - 1])


@posterior.mistake(
    "Your answer divides by 1 - alpha_bar_{t-1}, which is 0 at t = 1. Multiply through: over 1 - alpha_bar_t nothing "
    "is divided by 0."
)
def by_precisions(x_0, x_t, t, beta, alpha_bar):
    before = 1 - alpha_bar[t - 1]
    var = 1 / (1 / before + (1 - beta[t]) / beta[t])
    of_x_0, of_x_t = var * alpha_bar[t - 1].sqrt() / before, var * (1 - beta[t]).sqrt() / beta[t]
    return _mixed(x_0, x_t, of_x_0, of_x_t, var)


@posterior.mistake("That is q(x_{t-1} | x_0), the prior. x_t is not in it.")
def prior_alone(x_0, x_t, t, beta, alpha_bar):
    return along(alpha_bar[t - 1], x_0).sqrt() * x_0, 1 - alpha_bar[t - 1]


@posterior.mistake(INDEX_BEFORE)
def posterior_index_before(x_0, x_t, t, beta, alpha_bar):
    return posterior(x_0, x_t, t - 1, beta, alpha_bar)


@posterior.mistake(FIRST_FOR_ALL)
def posterior_first_for_all(x_0, x_t, t, beta, alpha_bar):
    return posterior(x_0, x_t, t[:1].expand_as(t), beta, alpha_bar)


@posterior.mistake(MEETS_LAST_AXIS)
def posterior_meets_last_axis(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return of_x_0 * x_0 + of_x_t * x_t, var


@posterior.mistake(POINTS_ONLY)
def posterior_points_only(x_0, x_t, t, beta, alpha_bar):
    of_x_0, of_x_t, var = _parts(t, beta, alpha_bar)
    return of_x_0[:, None] * x_0 + of_x_t[:, None] * x_t, var


# 06.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "06.3",
    title="The mean from the noise",
    hints=(
        "Put x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) into the posterior's mean and collect x_t and "
        "eps.",
        "It becomes (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t): take out the last step's expected "
        "noise, "
        "then undo its shrinking.",
        "In code: beta[t] / (1 - alpha_bar[t]).sqrt() is eps's factor, and all of it is divided by (1 - "
        "beta[t]).sqrt().",
    ),
)
def mean_from_eps(x_t: Tensor, t: Tensor, eps: Tensor, beta: Tensor, alpha_bar: Tensor) -> Tensor:
    """Compute the mean of q(x_{t-1} | x_t, x_0) from x_t and the whole noise eps in it: eq. 11 with the
    true eps (C16).

    x_t: (b, ...), points (b, d) or images (b, c, h, w).
    t: (b,), integers 1..T, each sample its own.
    eps: like x_t, the whole noise: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps.
    beta, alpha_bar: (T + 1,), with beta[0] = 0 and alpha_bar[0] = 1.
    Returns the mean, like x_t.
    """
    axes = (-1, *[1] * (x_t.ndim - 1))
    share = (beta[t] / (1 - alpha_bar[t]).sqrt()).view(axes)
    return (x_t - share * eps) / (1 - beta[t]).sqrt().view(axes)


@mean_from_eps.check
def test_mean_matches_eq_11(student, rng):
    """agrees with eq. 11 on points and on images, each sample with its own t"""
    beta, alpha_bar = schedule(rng)
    for t, shape in points_and_images(rng, T=12):
        x_t, eps = normal(rng, *shape), normal(rng, *shape)
        agree(student.mean_from_eps(x_t, t, eps, beta, alpha_bar), mean_from_eps(x_t, t, eps, beta, alpha_bar))


@mean_from_eps.check
def test_mean_is_the_posteriors(student, rng):
    """is the mean of eq. 7 for the x_0 that x_t and eps come from; at t = 1 that is x_0"""
    beta, alpha_bar = schedule(rng)
    t, x_0, eps = torch.tensor([5, 1, 12, 2]), normal(rng, 4, 1, 3, 3), normal(rng, 4, 1, 3, 3)
    x_t = q_sample(x_0, t, eps, alpha_bar)
    agree(student.mean_from_eps(x_t, t, eps, beta, alpha_bar), posterior(x_0, x_t, t, beta, alpha_bar)[0])


@mean_from_eps.mistake(
    "You subtracted eps as it is, the unscaled noise of all t steps. Only the last step's share is to go, and x is "
    "then "
    "rescaled."
)
def subtract_the_noise(x_t, t, eps, beta, alpha_bar):
    return x_t - eps


@mean_from_eps.mistake(
    "You took out the noise of all t steps and returned x_0. Asked for is the mean of x_{t-1}, one step back."
)
def all_the_way(x_t, t, eps, beta, alpha_bar):
    return x_0_from_eps(x_t, t, eps, alpha_bar)


@mean_from_eps.mistake(
    "You removed all of the noise, sqrt(1 - alpha_bar_t) eps, and then undid one step's shrinking. Only the last "
    "step's "
    "share is to go."
)
def all_noise_one_step(x_t, t, eps, beta, alpha_bar):
    return (x_t - along(1 - alpha_bar[t], x_t).sqrt() * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("The division by sqrt(alpha_t) is missing: the step has shrunk x, and that must be undone.")
def not_rescaled(x_t, t, eps, beta, alpha_bar):
    return x_t - along(beta[t] / (1 - alpha_bar[t]).sqrt(), x_t) * eps


@mean_from_eps.mistake("You multiplied by sqrt(alpha_t). Going forward the step did that; going back is dividing.")
def shrunk_again(x_t, t, eps, beta, alpha_bar):
    return along(1 - beta[t], x_t) * mean_from_eps(x_t, t, eps, beta, alpha_bar)


@mean_from_eps.mistake("You divided by alpha_t. The step multiplies by its root: divide by sqrt(alpha_t).")
def divided_by_alpha(x_t, t, eps, beta, alpha_bar):
    return mean_from_eps(x_t, t, eps, beta, alpha_bar) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("You divided by sqrt(alpha_bar_t), which undoes all t steps. One step back is sqrt(alpha_t).")
def rescaled_by_all_steps(x_t, t, eps, beta, alpha_bar):
    return mean_from_eps(x_t, t, eps, beta, alpha_bar) * along((1 - beta[t]) / alpha_bar[t], x_t).sqrt()


@mean_from_eps.mistake("The factor of eps is beta_t / sqrt(1 - alpha_bar_t): yours lacks the root.")
def root_left_out(x_t, t, eps, beta, alpha_bar):
    return (x_t - along(beta[t] / (1 - alpha_bar[t]), x_t) * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("You rescaled x_t alone. What is divided by sqrt(alpha_t) is x_t without its share of noise.")
def only_x_t_rescaled(x_t, t, eps, beta, alpha_bar):
    return x_t / along(1 - beta[t], x_t).sqrt() - along(beta[t] / (1 - alpha_bar[t]).sqrt(), x_t) * eps


@mean_from_eps.mistake(
    "You subtracted sqrt(beta_t) eps, as if eps were the last step's noise. It is that of all t steps; the last one's "
    "expected share is beta_t / sqrt(1 - alpha_bar_t) eps."
)
def eps_taken_for_the_last(x_t, t, eps, beta, alpha_bar):
    return (x_t - along(beta[t], x_t).sqrt() * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("You subtracted beta_t eps: the division by sqrt(1 - alpha_bar_t) is missing.")
def beta_alone(x_t, t, eps, beta, alpha_bar):
    return (x_t - along(beta[t], x_t) * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake(
    "You divided eps by sqrt(alpha_bar_t), the signal's factor. The noise's is sqrt(1 - alpha_bar_t)."
)
def signal_for_noise(x_t, t, eps, beta, alpha_bar):
    return (x_t - along(beta[t] / alpha_bar[t].sqrt(), x_t) * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake(
    "Brackets: 1 - alpha / sqrt(...) divides alpha alone. It is (1 - alpha_t) / sqrt(1 - alpha_bar_t)."
)
def brackets(x_t, t, eps, beta, alpha_bar):
    share = 1 - (1 - beta[t]) / (1 - alpha_bar[t]).sqrt()
    return (x_t - along(share, x_t) * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("Above sqrt(1 - alpha_bar_t) stands beta_t = 1 - alpha_t. You wrote alpha_t.")
def alpha_for_beta(x_t, t, eps, beta, alpha_bar):
    share = along((1 - beta[t]) / (1 - alpha_bar[t]).sqrt(), x_t)
    return (x_t - share * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("You took the root of beta_t, too. The factor of eps is beta_t / sqrt(1 - alpha_bar_t).")
def root_of_beta(x_t, t, eps, beta, alpha_bar):
    share = along((beta[t] / (1 - alpha_bar[t])).sqrt(), x_t)
    return (x_t - share * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake("You divided by sqrt(beta_t). The step shrinks by sqrt(alpha_t) = sqrt(1 - beta_t).")
def rescaled_by_beta(x_t, t, eps, beta, alpha_bar):
    return mean_from_eps(x_t, t, eps, beta, alpha_bar) * along((1 - beta[t]) / beta[t], x_t).sqrt()


@mean_from_eps.mistake("You added the noise's share. On the way back it has to be subtracted.")
def noise_added(x_t, t, eps, beta, alpha_bar):
    return mean_from_eps(x_t, t, -eps, beta, alpha_bar)


@mean_from_eps.mistake("In eps's factor you used alpha_bar_{t-1}. It is the noise in x_t: alpha_bar_t.")
def noise_before(x_t, t, eps, beta, alpha_bar):
    share = along(beta[t] / (1 - alpha_bar[t - 1]).sqrt(), x_t)
    return (x_t - share * eps) / along(1 - beta[t], x_t).sqrt()


@mean_from_eps.mistake(INDEX_BEFORE)
def mean_index_before(x_t, t, eps, beta, alpha_bar):
    return mean_from_eps(x_t, t - 1, eps, beta, alpha_bar)


@mean_from_eps.mistake(FIRST_FOR_ALL)
def mean_first_for_all(x_t, t, eps, beta, alpha_bar):
    return mean_from_eps(x_t, t[:1].expand_as(t), eps, beta, alpha_bar)


@mean_from_eps.mistake(MEETS_LAST_AXIS)
def mean_meets_last_axis(x_t, t, eps, beta, alpha_bar):
    return (x_t - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()


@mean_from_eps.mistake(POINTS_ONLY)
def mean_points_only(x_t, t, eps, beta, alpha_bar):
    share = (beta[t] / (1 - alpha_bar[t]).sqrt())[:, None]
    return (x_t - share * eps) / (1 - beta[t]).sqrt()[:, None]


# 06.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "06.4",
    title="The KL divergence of two Gaussians",
    hints=(
        "KL(1 || 2) is the mean of log N_1(x) - log N_2(x) over x from the first. Independent elements: KLs add up.",
        "Under the first, E (x - mean_1)^2 = var_1 and E (x - mean_2)^2 = var_1 + (mean_1 - mean_2)^2.",
        "For one element: 1/2 (var_1 / var_2 + (mean_1 - mean_2)^2 / var_2 - 1 - log(var_1 / var_2)).",
    ),
)
def gaussian_kl(mean_1: Tensor, var_1: Tensor, mean_2: Tensor, var_2: Tensor) -> Tensor:
    """Compute KL(N(mean_1, var_1) || N(mean_2, var_2)) in nats; the elements of a row are independent.

    mean_1, mean_2: (b, d).
    var_1, var_2: (b, d), variances above 0.
    Returns one number for each row, (b,).
    """
    ratio = var_1 / var_2
    return 0.5 * (ratio + (mean_1 - mean_2) ** 2 / var_2 - 1 - ratio.log()).sum(1)


def _pairs(rng: torch.Generator, b: int, d: int) -> list[Tensor]:
    """mean_1, var_1, mean_2, var_2, (b, d) each."""
    var_1, var_2 = (0.3 + 1.5 * torch.rand(b, d, generator=rng) for _ in range(2))
    return [normal(rng, b, d), var_1, normal(rng, b, d), var_2]


@gaussian_kl.check
def test_kl_matches_the_closed_form(student, rng):
    """agrees with the closed form for random means and variances"""
    for b, d in ((5, 3), (2, 7)):
        pair = _pairs(rng, b, d)
        agree(student.gaussian_kl(*pair), gaussian_kl(*pair))


@gaussian_kl.check
def test_kl_of_equals_is_zero(student, rng):
    """it is 0 between equal distributions, and above 0 where one variance differs"""
    mean, var, _, _ = _pairs(rng, 4, 3)
    assert (student.gaussian_kl(mean, var, mean, var).abs() < 1e-5).all()
    assert (student.gaussian_kl(mean, 1.5 * var, mean, var) > 0.01).all()
    assert (student.gaussian_kl(mean, var, mean, 1.5 * var) > 0.01).all()


@gaussian_kl.check
def test_kl_is_a_squared_error(student, rng):
    """with equal variances it is the squared distance of the means over twice the variance"""
    mean_1, var, mean_2, _ = _pairs(rng, 4, 3)
    agree(student.gaussian_kl(mean_1, var, mean_2, var), ((mean_1 - mean_2) ** 2 / (2 * var)).sum(1))


@gaussian_kl.mistake(
    "The two have changed places: the mean is taken over the first, and the second's variance divides."
)
def other_way_round(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_2, var_2, mean_1, var_1)


@gaussian_kl.mistake("The -1 is missing: without it the KL of two equal Gaussians is 1/2 an element, not 0.")
def no_minus_one(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) + 0.5 * mean_1.shape[1]


@gaussian_kl.mistake("The logarithm has the wrong sign: it is - log(var_1 / var_2), or + log(var_2 / var_1).")
def log_sign(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) + (var_1 / var_2).log().sum(1)


@gaussian_kl.mistake(
    "You divided the squared distance by the first variance. The second one's density is averaged: var_2."
)
def divided_by_the_first(mean_1, var_1, mean_2, var_2):
    ratio = var_1 / var_2
    return 0.5 * (ratio + (mean_1 - mean_2) ** 2 / var_1 - 1 - ratio.log()).sum(1)


@gaussian_kl.mistake("The distance of the means is not squared.")
def not_squared(mean_1, var_1, mean_2, var_2):
    ratio = var_1 / var_2
    return 0.5 * (ratio + (mean_1 - mean_2).abs() / var_2 - 1 - ratio.log()).sum(1)


@gaussian_kl.mistake("The factor 1/2 is missing.")
def no_half(mean_1, var_1, mean_2, var_2):
    return 2 * gaussian_kl(mean_1, var_1, mean_2, var_2)


@gaussian_kl.mistake("The factor 1/2 stands before the whole bracket: your squared distance is without it.")
def no_half_on_the_distance(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) + ((mean_1 - mean_2) ** 2 / (2 * var_2)).sum(1)


@gaussian_kl.mistake("Your ratio of variances is upside down: var_1 / var_2.")
def ratio_upside_down(mean_1, var_1, mean_2, var_2):
    ratio = var_2 / var_1
    return 0.5 * (ratio + (mean_1 - mean_2) ** 2 / var_2 - 1 - ratio.log()).sum(1)


@gaussian_kl.mistake("That is the KL from N(0, 1), as for a VAE. Here the second Gaussian is given.")
def from_the_standard_normal(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, torch.zeros_like(mean_2), torch.ones_like(var_2))


@gaussian_kl.mistake("The 1 is subtracted once a row. It belongs to each element: inside the sum.")
def one_once_a_row(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) + 0.5 * (mean_1.shape[1] - 1)


@gaussian_kl.mistake("You divided the squared distance by var_2^2. var_2 is the square of a deviation already.")
def distance_over_var_squared(mean_1, var_1, mean_2, var_2):
    ratio = var_1 / var_2
    return 0.5 * (ratio + (mean_1 - mean_2) ** 2 / var_2**2 - 1 - ratio.log()).sum(1)


@gaussian_kl.mistake("You squared var_1 and var_2. They are variances already.")
def taken_for_deviations(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1**2, mean_2, var_2**2)


@gaussian_kl.mistake(
    "Your logarithm is that of the formula in deviations, log(s_2 / s_1). In variances it is 1/2 log(var_2 / var_1)."
)
def log_of_deviations(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) - 0.5 * (var_1 / var_2).log().sum(1)


@gaussian_kl.mistake("You averaged over the elements. Independent elements' KLs add up: a sum.")
def averaged(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) / mean_1.shape[1]


@gaussian_kl.mistake("You summed over the batch, too. Each row has a KL of its own: sum over the elements, axis 1.")
def summed_over_all(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2).sum()


@gaussian_kl.mistake("You returned one KL for each element. A row's KL is the sum over its elements.")
def one_an_element(mean_1, var_1, mean_2, var_2):
    ratio = var_1 / var_2
    return 0.5 * (ratio + (mean_1 - mean_2) ** 2 / var_2 - 1 - ratio.log())


@gaussian_kl.mistake(
    "The terms of the variances are missing: the squared error is all of the KL only if they are equal."
)
def means_alone(mean_1, var_1, mean_2, var_2):
    return ((mean_1 - mean_2) ** 2 / (2 * var_2)).sum(1)


@gaussian_kl.mistake("The distance of the means is missing: yours sees the variances alone.")
def variances_alone(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_1, var_2)


@gaussian_kl.mistake("You took the logarithm to base 2: that gives bits in one term of four. Nats are asked for.")
def log_base_2(mean_1, var_1, mean_2, var_2):
    return gaussian_kl(mean_1, var_1, mean_2, var_2) + 0.5 * ((var_1 / var_2).log() - (var_1 / var_2).log2()).sum(1)


# 06.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "06.5",
    title="The decoder of grey levels, in bits",
    hints=(
        "Levels lie 2/255 apart, so each level's bin reaches 1/255 to both sides. Its probability is a difference of "
        "two "
        "values of the normal CDF, torch.special.ndtr((edge - mean) / sigma).",
        "The bin of the lowest level, -1, has no lower edge (CDF 0 there); that of the highest, 1, no upper edge "
        "(CDF 1).",
        "Bits are -log2 of the probability; the mean over all axes but the first gives bits per element.",
    ),
)
def decoder_bits(x_0: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """Compute what the last step costs, -log2 p(x_0 | x_1), for the discretised decoder of eq. 13.

    p gives a grey level the probability that N(mean, sigma^2) gives to its bin. The levels are -1, -1 +
    2/255, ..., 1; each bin reaches half-way to its neighbours, and the first and the last bin reach to infinity.

    x_0: (b, ...), pictures of 256 levels in -1..1.
    mean: like x_0, the mean of p.
    sigma: its deviation.
    Returns bits per element, the mean over each picture: (b,).
    """
    above = torch.where(x_0 > 0.999, 1.0, torch.special.ndtr((x_0 + 1 / 255 - mean) / sigma))
    below = torch.where(x_0 < -0.999, 0.0, torch.special.ndtr((x_0 - 1 / 255 - mean) / sigma))
    return -(above - below).log2().flatten(1).mean(1)


def _levels(rng: torch.Generator, *shape: int) -> Tensor:
    """Pictures of 256 levels, a third of the elements black and some white."""
    return (torch.randint(-120, 300, shape, generator=rng).clamp(0, 255) / 127.5 - 1).float()


def _bin(x_0: Tensor, mean: Tensor, sigma: float, half: float = 1 / 255, low: float = -1, high: float = 1) -> Tensor:
    """The probability of each bin; those of `low` and below and of `high` and above are open."""
    above = torch.where(x_0 > high - 1e-3, 1.0, torch.special.ndtr((x_0 + half - mean) / sigma))
    below = torch.where(x_0 < low + 1e-3, 0.0, torch.special.ndtr((x_0 - half - mean) / sigma))
    return above - below


def _cost(probability: Tensor) -> Tensor:
    return -probability.log2().flatten(1).mean(1)


@decoder_bits.check
def test_decoder_matches_eq_13(student, rng):
    """agrees with eq. 13 on pictures and on vectors, for a wide and a narrow decoder"""
    for shape, sigma in (((4, 1, 6, 6), 0.1), ((3, 9), 0.02)):
        x_0 = _levels(rng, *shape)
        mean = x_0 + sigma * normal(rng, *shape).clamp(-2, 2)
        agree(student.decoder_bits(x_0, mean, sigma), decoder_bits(x_0, mean, sigma))


@decoder_bits.check
def test_decoder_is_a_distribution(student, rng):
    """the probabilities of the 256 levels add up to 1, wherever the mean lies"""
    levels = (torch.arange(256) / 127.5 - 1)[:, None]
    for mean in (0.2, -0.97, 1.05):
        bits = student.decoder_bits(levels, torch.full_like(levels, mean), 0.3)
        assert abs((2.0**-bits).sum() - 1) < 1e-3


@decoder_bits.check
def test_decoder_of_black(student, rng):
    """a black element costs less the further below -1 the mean lies"""
    black = torch.full((3, 4), -1.0)
    mean = torch.tensor([-0.99, -1.0, -1.02])[:, None].expand(3, 4)
    bits = student.decoder_bits(black, mean, 0.01)
    assert bits[0] > bits[1] > bits[2] > 0


@decoder_bits.mistake(
    "You took the density at x_0. A grey level is a bin: its probability is the density's integral over it."
)
def density(x_0, mean, sigma):
    return _cost(torch.distributions.Normal(mean, sigma).log_prob(x_0).exp())


@decoder_bits.mistake(
    "You took the density times the bin's width. That is close in the middle; the end bins reach to infinity."
)
def density_times_width(x_0, mean, sigma):
    return _cost(torch.distributions.Normal(mean, sigma).log_prob(x_0).exp() * 2 / 255)


@decoder_bits.mistake(
    "The bins of the lowest and the highest level are open: what the Gaussian gives beyond -1 and 1 belongs to them."
)
def closed_ends(x_0, mean, sigma):
    return _cost(_bin(x_0, mean, sigma, low=-2, high=2))


@decoder_bits.mistake("You opened the lowest bin alone. The highest one, that of level 1, has no upper edge either.")
def one_end_closed(x_0, mean, sigma):
    return _cost(_bin(x_0, mean, sigma, high=2))


@decoder_bits.mistake("Half a bin is 1/255: the 256 levels span 2, in 255 gaps. You used 1/256.")
def gaps_miscounted(x_0, mean, sigma):
    return _cost(_bin(x_0, mean, sigma, half=1 / 256))


@decoder_bits.mistake("Your bins are twice too wide and overlap: 2/255 is the whole width, half of it on each side.")
def bins_overlap(x_0, mean, sigma):
    return _cost(_bin(x_0, mean, sigma, half=2 / 255))


@decoder_bits.mistake("Your bins are too narrow and leave gaps: 1/255 belongs on each side, 2/255 in all.")
def bins_with_gaps(x_0, mean, sigma):
    return _cost(_bin(x_0, mean, sigma, half=0.5 / 255))


@decoder_bits.mistake("Your bins begin at their level. Each has its level in the middle: 1/255 to both sides.")
def bins_begin_at_the_level(x_0, mean, sigma):
    return _cost(_bin(x_0 + 1 / 255, mean, sigma, low=-1 + 1 / 255, high=1 + 1 / 255))


@decoder_bits.mistake("The two open ends have changed places: level 1 has no upper edge, level -1 no lower one.")
def ends_swapped(x_0, mean, sigma):
    above, below = (torch.special.ndtr((x_0 + side / 255 - mean) / sigma) for side in (1, -1))
    return _cost(torch.where(x_0 < -0.999, 1.0, above) - torch.where(x_0 > 0.999, 0.0, below))


@decoder_bits.mistake("With erf the argument is divided by sqrt(2), too: the normal CDF is (1 + erf(z / sqrt(2))) / 2.")
def erf_without_root_2(x_0, mean, sigma):
    return decoder_bits(x_0, mean, sigma / math.sqrt(2))


@decoder_bits.mistake("sigma is missing: the CDF of N(0, 1) is asked at (edge - mean) / sigma.")
def no_sigma(x_0, mean, sigma):
    return decoder_bits(x_0, mean, 1.0)


@decoder_bits.mistake("Half a level is 0.5 only on the scale 0..255. Here the levels lie 2/255 apart.")
def half_a_unit(x_0, mean, sigma):
    return _cost(_bin(x_0, mean, sigma, half=0.5))


@decoder_bits.mistake("You returned nats. Bits have the logarithm to base 2: divide by log 2.")
def nats(x_0, mean, sigma):
    return decoder_bits(x_0, mean, sigma) * math.log(2)


@decoder_bits.mistake("You multiplied by log 2. A bit is log 2 = 0.69 nats, so the number of bits is larger: divide.")
def log_2_multiplied(x_0, mean, sigma):
    return decoder_bits(x_0, mean, sigma) * math.log(2) ** 2


@decoder_bits.mistake("You summed over each picture. Bits per element are the mean.")
def bits_of_the_picture(x_0, mean, sigma):
    return decoder_bits(x_0, mean, sigma) * x_0[0].numel()


@decoder_bits.mistake("You averaged over the batch, too. Each picture has its own number: average over the other axes.")
def one_number(x_0, mean, sigma):
    return decoder_bits(x_0, mean, sigma).mean()


@decoder_bits.mistake("The sign is missing: a probability below 1 has a negative logarithm, and a cost is positive.")
def no_sign(x_0, mean, sigma):
    return -decoder_bits(x_0, mean, sigma)


@decoder_bits.mistake("You divided by sigma^2. The CDF of N(0, 1) is asked at (edge - mean) / sigma, the deviation.")
def variance_in_cdf(x_0, mean, sigma):
    return decoder_bits(x_0, mean, sigma**2)


@decoder_bits.mistake(
    "You averaged the probabilities and then took the logarithm. Each element has its own cost: log first."
)
def log_of_the_mean(x_0, mean, sigma):
    return -_bin(x_0, mean, sigma).flatten(1).mean(1).log2()
