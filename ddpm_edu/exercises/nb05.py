"""Notebook 05, the forward process. Equations are those of DDPM (Ho et al. 2020) unless another source is named.

Symbols: beta (T + 1,) with beta[0] = 0; alpha_bar (T + 1,) with alpha_bar[0] = 1; t (b,), integers 1..T;
x (b, ...), points or images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import along, linear, normal, points_and_images, schedule, times
from ddpm_edu.exercises.values import agree

INDEX_BEFORE = "You read the coefficient at t - 1. Index 0 is the data here, so step t has index t."
FIRST_FOR_ALL = "You used the first sample's t for the whole batch. Each sample has its own t: index with all of it."
MEETS_LAST_AXIS = (
    "A coefficient of shape (b,) met the last axis of x, not its batch axis. "
    "Give it as many axes as x has: (b, 1, ...)."
)
POINTS_ONLY = "Coefficients of shape (b, 1) serve points (b, d) only. Images (b, c, h, w) need (b, 1, 1, 1)."


# 05.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "05.1",
    title="One forward step",
    hints=(
        "Eq. 2 gives a mean and a variance. A sample of N(mean, var) is mean + sqrt(var) * eps.",
        "beta[t] has shape (b,): one number for each sample. To multiply x of shape (b, ...) it needs shape (b, 1, "
        "...).",
        "beta[t].view(-1, *[1] * (x_prev.ndim - 1)) has that shape, for points and for images.",
    ),
)
def q_step(x_prev: Tensor, t: Tensor, eps: Tensor, beta: Tensor) -> Tensor:
    """Take one forward step: a sample x_t of q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)  (eq. 2).

    x_prev: (b, ...), x_{t-1}: points (b, d) or images (b, c, h, w).
    t: (b,), integers 1..T, each sample its own.
    eps: like x_prev, the standard normal noise to use.
    beta: (T + 1,), variances; beta[0] = 0.
    Returns x_t, like x_prev.
    """
    beta_t = beta[t].view(-1, *[1] * (x_prev.ndim - 1))
    return (1 - beta_t).sqrt() * x_prev + beta_t.sqrt() * eps


@q_step.check
def test_q_step_matches_eq_2(student, rng):
    """agrees with eq. 2 on points and on images, each sample with its own t"""
    beta, _ = schedule(rng)
    for t, shape in points_and_images(rng, T=12):
        x_prev, eps = normal(rng, *shape), normal(rng, *shape)
        agree(student.q_step(x_prev, t, eps, beta), q_step(x_prev, t, eps, beta))


@q_step.check
def test_q_step_keeps_unit_variance(student, rng):
    """keeps variance 1: the squares of what multiplies x_prev and eps add up to 1"""
    beta, _ = schedule(rng)
    t, one, zero = times(rng, 6, T=12), torch.ones(6, 1), torch.zeros(6, 1)
    of_x, of_eps = student.q_step(one, t, zero, beta), student.q_step(zero, t, one, beta)
    agree(of_x**2 + of_eps**2, one)


@q_step.mistake("You multiplied the noise by beta_t. That is its variance: the noise takes the square root.")
def beta_as_deviation(x_prev, t, eps, beta):
    beta_t = along(beta[t], x_prev)
    return (1 - beta_t).sqrt() * x_prev + beta_t * eps


@q_step.mistake(
    "You scaled x_prev by 1 - beta_t without the square root: variances then add up to less than 1 at every step."
)
def no_root_on_x(x_prev, t, eps, beta):
    beta_t = along(beta[t], x_prev)
    return (1 - beta_t) * x_prev + beta_t.sqrt() * eps


@q_step.mistake(
    "You left out both square roots: eq. 2 names a variance, and deviations are what multiply x_prev and eps."
)
def no_roots(x_prev, t, eps, beta):
    beta_t = along(beta[t], x_prev)
    return (1 - beta_t) * x_prev + beta_t * eps


@q_step.mistake(
    "You added noise without shrinking x_prev: the variance then grows at every step instead of staying at 1."
)
def x_not_shrunk(x_prev, t, eps, beta):
    return x_prev + along(beta[t], x_prev).sqrt() * eps


@q_step.mistake(
    "The two coefficients have changed places: x_prev is kept by sqrt(1 - beta_t), the noise comes in by sqrt(beta_t)."
)
def coefficients_swapped(x_prev, t, eps, beta):
    beta_t = along(beta[t], x_prev)
    return beta_t.sqrt() * x_prev + (1 - beta_t).sqrt() * eps


@q_step.mistake(
    "You added beta_t eps to x_prev as it was. x_prev shrinks by sqrt(1 - beta_t), and the noise takes sqrt(beta_t)."
)
def not_shrunk_and_no_root(x_prev, t, eps, beta):
    return x_prev + along(beta[t], x_prev) * eps


@q_step.mistake("You subtracted the noise. Its sign would not matter to a histogram, but in eq. 2 a sample adds it.")
def noise_subtracted(x_prev, t, eps, beta):
    return q_step(x_prev, t, -eps, beta)


@q_step.mistake("You returned the mean of q(x_t | x_{t-1}). A sample also has its noise, sqrt(beta_t) eps.")
def mean_alone(x_prev, t, eps, beta):
    return (1 - along(beta[t], x_prev)).sqrt() * x_prev


@q_step.mistake(INDEX_BEFORE)
def step_index_before(x_prev, t, eps, beta):
    return q_step(x_prev, t - 1, eps, beta)


@q_step.mistake(FIRST_FOR_ALL)
def step_first_for_all(x_prev, t, eps, beta):
    return q_step(x_prev, t[:1].expand_as(t), eps, beta)


@q_step.mistake(MEETS_LAST_AXIS)
def step_meets_last_axis(x_prev, t, eps, beta):
    return (1 - beta[t]).sqrt() * x_prev + beta[t].sqrt() * eps


@q_step.mistake(POINTS_ONLY)
def step_points_only(x_prev, t, eps, beta):
    beta_t = beta[t][:, None]
    return (1 - beta_t).sqrt() * x_prev + beta_t.sqrt() * eps


# 05.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "05.2",
    title="A jump to any t",
    hints=(
        "Eq. 4 gives the mean and the variance of x_t once x_0 is known; x_t = mean + sqrt(variance) * eps.",
        "With a = sqrt(alpha_bar_t) and b = sqrt(1 - alpha_bar_t): x_t = a x_0 + b eps, and a^2 + b^2 = 1.",
        "alpha_bar[t] has shape (b,); view(-1, *[1] * (x_0.ndim - 1)) lets it meet points and images alike.",
    ),
)
def q_sample(x_0: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Jump from x_0 to x_t at once: a sample of q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)  (eq. 4).

    x_0: (b, ...), data: points (b, d) or images (b, c, h, w).
    t: (b,), integers 1..T, each sample its own.
    eps: like x_0, the standard normal noise to use.
    alpha_bar: (T + 1,), with alpha_bar[0] = 1.
    Returns x_t, like x_0.
    """
    a_bar = alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1))
    return a_bar.sqrt() * x_0 + (1 - a_bar).sqrt() * eps


@q_sample.check
def test_q_sample_matches_eq_4(student, rng):
    """agrees with eq. 4 on points and on images, each sample with its own t"""
    _, alpha_bar = schedule(rng)
    for t, shape in points_and_images(rng, T=12):
        x_0, eps = normal(rng, *shape), normal(rng, *shape)
        agree(student.q_sample(x_0, t, eps, alpha_bar), q_sample(x_0, t, eps, alpha_bar))


@q_sample.check
def test_q_sample_shrinks_like_t_steps(student, rng):
    """without noise, one jump shrinks x_0 exactly as t single steps do"""
    beta, alpha_bar = schedule(rng)
    t, x_0 = times(rng, 5, T=12), normal(rng, 5, 2)
    stepped = torch.stack([x * (1 - beta[1 : int(s) + 1]).sqrt().prod() for x, s in zip(x_0, t, strict=True)])
    agree(student.q_sample(x_0, t, torch.zeros_like(x_0), alpha_bar), stepped)


@q_sample.check
def test_q_sample_ends_nearly_in_noise(student, rng):
    """at t = T of the linear schedule, T = 1000, x_T is nearly the noise alone, and not exactly"""
    _, alpha_bar = linear()
    x_0, eps, t = normal(rng, 6, 2), normal(rng, 6, 2), torch.full((6,), 1000)
    rest = student.q_sample(x_0, t, eps, alpha_bar) - eps
    assert 0 < rest.abs().max() < 0.05


@q_sample.mistake("You multiplied the noise by 1 - alpha_bar_t. That is its variance: the noise takes the square root.")
def variance_as_deviation(x_0, t, eps, alpha_bar):
    a_bar = along(alpha_bar[t], x_0)
    return a_bar.sqrt() * x_0 + (1 - a_bar) * eps


@q_sample.mistake("You scaled x_0 by alpha_bar_t. Eq. 4 has its square root, so that the two squares add up to 1.")
def no_root_on_x_0(x_0, t, eps, alpha_bar):
    a_bar = along(alpha_bar[t], x_0)
    return a_bar * x_0 + (1 - a_bar).sqrt() * eps


@q_sample.mistake("You left out both square roots: x_t = a x_0 + b eps needs a^2 + b^2 = 1, and yours has a + b = 1.")
def no_roots_in_jump(x_0, t, eps, alpha_bar):
    a_bar = along(alpha_bar[t], x_0)
    return a_bar * x_0 + (1 - a_bar) * eps


@q_sample.mistake(
    "You made the noise's factor 1 - sqrt(alpha_bar_t). Variances add up to 1, not deviations: sqrt(1 - alpha_bar_t)."
)
def deviations_add_to_one(x_0, t, eps, alpha_bar):
    a = along(alpha_bar[t], x_0).sqrt()
    return a * x_0 + (1 - a) * eps


@q_sample.mistake(
    "You used alpha_t, the factor of step t alone. A jump from x_0 takes the product of all t steps, alpha_bar_t."
)
def one_step_only(x_0, t, eps, alpha_bar):
    alpha = along(alpha_bar[t] / alpha_bar[t - 1], x_0)
    return alpha.sqrt() * x_0 + (1 - alpha).sqrt() * eps


@q_sample.mistake("You took a running product of alpha_bar. It already is one: alpha_bar_t = alpha_1 ... alpha_t.")
def product_of_products(x_0, t, eps, alpha_bar):
    return q_sample(x_0, t, eps, alpha_bar.cumprod(0))


@q_sample.mistake(
    "The two coefficients have changed places: x_0 keeps sqrt(alpha_bar_t), which falls from 1 as t grows."
)
def jump_coefficients_swapped(x_0, t, eps, alpha_bar):
    return q_sample(eps, t, x_0, alpha_bar)


@q_sample.mistake("You left x_0 as it is: it shrinks by sqrt(alpha_bar_t), so that next to nothing is left of it at T.")
def x_0_not_shrunk(x_0, t, eps, alpha_bar):
    return x_0 + along(1 - alpha_bar[t], x_0).sqrt() * eps


@q_sample.mistake(
    "You subtracted the noise. x_t = a x_0 + b eps adds it: whoever predicts eps later must find it with this sign."
)
def jump_noise_subtracted(x_0, t, eps, alpha_bar):
    return q_sample(x_0, t, -eps, alpha_bar)


@q_sample.mistake("You returned the mean of q(x_t | x_0). A sample also has its noise, sqrt(1 - alpha_bar_t) eps.")
def jump_mean_alone(x_0, t, eps, alpha_bar):
    return along(alpha_bar[t], x_0).sqrt() * x_0


@q_sample.mistake(INDEX_BEFORE)
def jump_index_before(x_0, t, eps, alpha_bar):
    return q_sample(x_0, t - 1, eps, alpha_bar)


@q_sample.mistake(FIRST_FOR_ALL)
def jump_first_for_all(x_0, t, eps, alpha_bar):
    return q_sample(x_0, t[:1].expand_as(t), eps, alpha_bar)


@q_sample.mistake(MEETS_LAST_AXIS)
def jump_meets_last_axis(x_0, t, eps, alpha_bar):
    return alpha_bar[t].sqrt() * x_0 + (1 - alpha_bar[t]).sqrt() * eps


@q_sample.mistake(POINTS_ONLY)
def jump_points_only(x_0, t, eps, alpha_bar):
    a_bar = alpha_bar[t][:, None]
    return a_bar.sqrt() * x_0 + (1 - a_bar).sqrt() * eps


# 05.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "05.3",
    title="alpha_bar from the betas",
    hints=(
        "alpha_t = 1 - beta_t, and alpha_bar_t = alpha_1 alpha_2 ... alpha_t: a running product.",
        "torch.cumprod(x, dim=0) is the running product. It starts at alpha_bar_1: what is alpha_bar_0, after no "
        "step at all?",
        "torch.cat([torch.ones(1), ...]) puts the empty product in front.",
    ),
)
def make_alpha_bar(betas: Tensor) -> Tensor:
    """Compute alpha_bar_t = (1 - beta_1) (1 - beta_2) ... (1 - beta_t) for t = 0..T.

    betas: (T,), beta_1 to beta_T: betas[0] is beta_1.
    Returns alpha_bar, (T + 1,): alpha_bar[t] belongs to time t, and index 0 is the data, before any step.
    """
    return torch.cat([torch.ones(1), torch.cumprod(1 - betas, dim=0)])


@make_alpha_bar.check
def test_alpha_bar_is_the_running_product(student, rng):
    """agrees with the running product on random betas"""
    for T in (5, 12):
        betas = schedule(rng, T)[0][1:]
        agree(student.make_alpha_bar(betas), make_alpha_bar(betas))


@make_alpha_bar.check
def test_alpha_bar_steps_by_alpha(student, rng):
    """from each t - 1 to t it shrinks by 1 - beta_t, down to the last"""
    betas = schedule(rng, T=40)[0][1:]
    alpha_bar = student.make_alpha_bar(betas)
    agree(alpha_bar[1:] / alpha_bar[:-1], 1 - betas)


@make_alpha_bar.check
def test_alpha_bar_of_the_linear_schedule(student, rng):
    """for the linear schedule it ends near 4e-5: almost no signal is left"""
    alpha_bar = student.make_alpha_bar(linear()[0][1:])
    assert 4.0e-5 < alpha_bar[-1] < 4.1e-5


@make_alpha_bar.mistake(
    "Index 0 is missing: alpha_bar has T + 1 entries, and alpha_bar_0 belongs to the data, before any step."
)
def no_index_0(betas):
    return torch.cumprod(1 - betas, dim=0)


@make_alpha_bar.mistake("You put 0 at index 0. Before any step nothing is lost: the product of no factors is 1.")
def zero_at_index_0(betas):
    return torch.cat([torch.zeros(1), torch.cumprod(1 - betas, dim=0)])


@make_alpha_bar.mistake("You appended the 1 at the end. It is alpha_bar_0, the data, and belongs to index 0.")
def one_at_the_end(betas):
    return torch.cat([torch.cumprod(1 - betas, dim=0), torch.ones(1)])


@make_alpha_bar.mistake(
    "You multiplied the betas. What is kept at each step is alpha_t = 1 - beta_t, and those are multiplied."
)
def product_of_betas(betas):
    return torch.cat([torch.ones(1), torch.cumprod(betas, dim=0)])


@make_alpha_bar.mistake(
    "You took the running sum of the betas from 1. Steps multiply: each keeps 1 - beta_t of what is left."
)
def sum_of_betas(betas):
    return torch.cat([torch.ones(1), 1 - torch.cumsum(betas, dim=0)])


@make_alpha_bar.mistake(
    "You took the running sum of alpha_t. It grows past 1; what is left after each step is a product."
)
def sum_of_alphas(betas):
    return torch.cat([torch.ones(1), torch.cumsum(1 - betas, dim=0)])


@make_alpha_bar.mistake(
    "You took one minus the product of the betas. It is the other way round: the product of all 1 - beta_t."
)
def one_minus_product(betas):
    return torch.cat([torch.ones(1), 1 - torch.cumprod(betas, dim=0)])


@make_alpha_bar.mistake(
    "exp(-sum of betas) is the limit of many tiny steps. Here each step keeps 1 - beta_t exactly: multiply those."
)
def exponential_of_sum(betas):
    return torch.cat([torch.ones(1), torch.exp(-torch.cumsum(betas, dim=0))])


@make_alpha_bar.mistake(
    "You returned alpha_t, each step's own factor. alpha_bar_t is the product of all factors up to t."
)
def not_cumulative(betas):
    return torch.cat([torch.ones(1), 1 - betas])


@make_alpha_bar.mistake(
    "You multiplied square roots: that is sqrt(alpha_bar_t), what multiplies x_0. alpha_bar_t is its square."
)
def product_of_roots(betas):
    return torch.cat([torch.ones(1), torch.cumprod((1 - betas).sqrt(), dim=0)])


@make_alpha_bar.mistake(
    "You returned 1 - alpha_bar_t, the variance of the noise, where alpha_bar_t itself is asked for."
)
def noise_variance(betas):
    return 1 - make_alpha_bar(betas)


@make_alpha_bar.mistake(
    "You lost alpha_bar_T: all T factors belong to the product, and the 1 for index 0 comes on top of them."
)
def last_lost(betas):
    return make_alpha_bar(betas)[:-1]


# 05.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "05.4",
    title="The cosine schedule",
    hints=(
        "First alpha_bar at all T + 1 times: t = torch.arange(T + 1), and eq. 17 as it stands. The division by f(0) "
        "makes alpha_bar_0 = 1.",
        "alpha_bar_t = alpha_bar_{t-1} (1 - beta_t). Solve for beta_t: two slices of one tensor, [1:] and [:-1].",
        "At t = T alpha_bar is 0, so beta_T would be 1 and nothing would be left: .clamp(max=0.999).",
    ),
)
def cosine_betas(T: int) -> Tensor:
    """Compute the betas of the cosine schedule (Nichol & Dhariwal 2021, eq. 17):

    alpha_bar_t = f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) * pi / 2), s = 0.008, for t = 0..T,
    beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, but at most 0.999.

    T: the number of steps.
    Returns betas, (T,): beta_1 to beta_T.
    """
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2
    alpha_bar = f / f[0]
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999).float()


def cosine(T: int, s: float = 0.008, power: int = 2, angle: float = math.pi / 2, most: float = 0.999) -> Tensor:
    """The schedule with its parts exposed, for the mistakes; most=1.0 leaves the clip out."""
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * angle) ** power
    return (1 - f[1:] / f[:-1]).clamp(max=most).float()


@cosine_betas.check
def test_cosine_matches_eq_17(student, rng):
    """agrees with eq. 17 for several T"""
    for T in (8, 10 + int(torch.randint(40, (), generator=rng)), 1000):
        agree(student.cosine_betas(T), cosine_betas(T))


@cosine_betas.check
def test_cosine_multiplies_back(student, rng):
    """the product of 1 - beta_t is eq. 17's alpha_bar again, up to the last step, which is clipped"""
    T = 100
    alpha_bar = (1 - student.cosine_betas(T).double()).cumprod(0)
    t = torch.arange(1, T, dtype=torch.float64)
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    agree(alpha_bar[:-1], f)
    assert 0 < alpha_bar[-1] < 0.01 * alpha_bar[-2]


@cosine_betas.mistake("The square is missing: f(t) is the cosine squared.")
def cosine_not_squared(T):
    return cosine(T, power=1)


@cosine_betas.mistake("The offset s is missing. It keeps the first betas from being too small to be of use.")
def no_offset(T):
    return cosine(T, s=0.0)


@cosine_betas.mistake(
    "The clip is missing: beta_T comes out as 1, which would leave nothing of x_{T-1} to go back from."
)
def not_clipped(T):
    return cosine(T, most=1.0)


@cosine_betas.mistake("You clipped at 0.02, the linear schedule's last beta. Eq. 17 allows up to 0.999.")
def clipped_as_linear(T):
    return cosine(T, most=0.02)


@cosine_betas.mistake(
    "You returned alpha_bar_1 to alpha_bar_T. Asked for are the betas, one minus the ratio of two neighbours."
)
def alpha_bar_itself(T):
    return (1 - cosine(T, most=1.0)).cumprod(0)


@cosine_betas.mistake(
    "You returned alpha_t = 1 - beta_t, what a step keeps. Asked for is beta_t, what it replaces by noise."
)
def alphas(T):
    return 1 - cosine_betas(T)


@cosine_betas.mistake(
    "You clipped the ratio, which is alpha_t. Take one minus the ratio first, then clip that: beta_t."
)
def alphas_clipped(T):
    return (1 - cosine(T, most=1.0)).clamp(max=0.999)


@cosine_betas.mistake(
    "You took the difference of two neighbours. beta_t is what is lost of alpha_bar_{t-1}: one minus their ratio."
)
def difference_of_neighbours(T):
    alpha_bar = torch.cat([torch.ones(1), (1 - cosine(T, most=1.0)).cumprod(0)])
    return (alpha_bar[:-1] - alpha_bar[1:]).clamp(max=0.999)


@cosine_betas.mistake(
    "The ratio is upside down: alpha_bar falls, so alpha_bar_{t-1} is the larger one and belongs below."
)
def ratio_upside_down(T):
    alpha = 1 - cosine(T, most=1.0)
    return (1 - 1 / alpha).clamp(max=0.999)


@cosine_betas.mistake(
    "You took the loss as a share of alpha_bar_t, what is left after the step. It is one of alpha_bar_{t-1}, before it."
)
def share_of_what_is_left(T):
    return (1 / (1 - cosine(T, most=1.0)) - 1).clamp(max=0.999)


@cosine_betas.mistake(
    "The ratio is upside down, and so above 1 at every t: the clip then makes all of it 0.999. Take one minus the "
    "ratio of the smaller to the larger."
)
def ratio_all_clipped(T):
    return torch.full((T,), 0.999)


@cosine_betas.mistake(
    "The ratio is upside down: one minus it is negative at every t, and a clip from below turns all of it to 0."
)
def ratio_clipped_to_zero(T):
    return torch.zeros(T)


@cosine_betas.mistake(
    "You returned 1 - alpha_bar_t, the noise of all t steps together. beta_t is that of step t alone."
)
def noise_of_all_steps(T):
    return (1 - (1 - cosine(T, most=1.0)).cumprod(0)).clamp(max=0.999)


@cosine_betas.mistake("pi / 2 is missing: the cosine must reach 0 at t = T, and its angle there is now 1.")
def no_half_pi(T):
    return cosine(T, angle=1.0)


@cosine_betas.mistake("Your angle runs to pi. It should end at pi / 2, where the cosine first is 0.")
def whole_pi(T):
    return cosine(T, angle=math.pi)


@cosine_betas.mistake("You used t where t / T belongs: the angle runs through many turns instead of a quarter of one.")
def t_not_divided(T):
    return cosine(T, s=0.008 / T, angle=math.pi / 2 * (T + 0.008) / 1.008)


@cosine_betas.mistake("alpha_bar is needed at T + 1 times, 0 to T: from T of them come only T - 1 ratios.")
def too_few_times(T):
    return cosine(T)[:-1]


# 05.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "05.5",
    title="The exact denoiser of a Gaussian",
    hints=(
        "x_0 and x_t = a x_0 + b eps are jointly Gaussian, so E[x_0 | x_t] = E[x_0] + Cov(x_0, x_t) / Var(x_t) * "
        "(x_t - E[x_t]).",
        "With a^2 = alpha_bar_t and b^2 = 1 - alpha_bar_t: E[x_t] = a m, Var(x_t) = a^2 s^2 + b^2, Cov(x_0, x_t) = a "
        "s^2.",
        "Try the ends: at a = 1, b = 0 the answer is x_t, at a = 0, b = 1 it is m.",
    ),
)
def denoise_gaussian(x_t: Tensor, t: Tensor, alpha_bar: Tensor, m: float, s: float) -> Tensor:
    """Compute E[x_0 | x_t], the best guess of the data, when x_0 ~ N(m, s^2 I) and q(x_t | x_0) is that of eq. 4.

    x_t: (b, ...), points or images.
    t: (b,), integers 1..T, each sample its own.
    alpha_bar: (T + 1,), with alpha_bar[0] = 1.
    m, s: mean and standard deviation of every coordinate of x_0.
    Returns E[x_0 | x_t], like x_t.
    """
    a_bar = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))
    gain = a_bar.sqrt() * s**2 / (a_bar * s**2 + 1 - a_bar)
    return m + gain * (x_t - a_bar.sqrt() * m)


@denoise_gaussian.check
def test_denoise_matches_conditioning(student, rng):
    """agrees with Gaussian conditioning on points and on images, each sample with its own t"""
    _, alpha_bar = schedule(rng)
    for (t, shape), m, s in zip(points_and_images(rng, T=12), (1.3, -2.0, 0.7), (0.5, 1.6, 0.8), strict=True):
        x_t = normal(rng, *shape)
        agree(student.denoise_gaussian(x_t, t, alpha_bar, m, s), denoise_gaussian(x_t, t, alpha_bar, m, s))


@denoise_gaussian.check
def test_denoise_at_the_ends(student, rng):
    """with next to no noise it gives x_t back, with noise alone it gives the mean m"""
    alpha_bar, x_t = torch.tensor([1.0, 1 - 1e-7, 1e-14]), normal(rng, 2, 3)
    clean, noise = student.denoise_gaussian(x_t, torch.tensor([1, 2]), alpha_bar, 1.3, 0.5)
    agree(clean, x_t[0], rtol=1e-2)
    agree(noise, torch.full((3,), 1.3))


@denoise_gaussian.check
def test_denoise_is_the_best_guess(student, rng):
    """at small, middle and large t its error has nothing to do with x_t, as that of the best guess must"""
    alpha_bar, t = torch.tensor([1.0, 0.8, 0.5, 0.2]), torch.tensor([2, 1, 3])
    x_0, eps = 1.3 + 1.5 * normal(rng, 3, 4000), normal(rng, 3, 4000)
    x_t = q_sample(x_0, t, eps, alpha_bar)
    error = x_0 - student.denoise_gaussian(x_t, t, alpha_bar, 1.3, 1.5)
    for linked in (error, error * (x_t - x_t.mean(1, keepdim=True))):
        assert (linked.mean(1).abs() < 6 * linked.std(1) / 4000**0.5).all()  # 6 standard errors


@denoise_gaussian.mistake(
    "You divided x_t by sqrt(alpha_bar_t) as if it held no noise. The guess leans back towards m by how noisy x_t is."
)
def noise_ignored(x_t, t, alpha_bar, m, s):
    return x_t / along(alpha_bar[t], x_t).sqrt()


@denoise_gaussian.mistake(
    "You returned m: the best guess before x_t is seen. x_t says how far this sample lies from the mean."
)
def prior_mean(x_t, t, alpha_bar, m, s):
    return torch.full_like(x_t, m)


@denoise_gaussian.mistake("You used s where s^2 belongs: covariance and variance are made of squares.")
def deviation_for_variance(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t, alpha_bar, m, s**0.5)


@denoise_gaussian.mistake(
    "You subtracted m from x_t. The mean of x_t is sqrt(alpha_bar_t) m: the data's mean shrinks, too."
)
def mean_not_shrunk(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + a_bar.sqrt() * s**2 / (a_bar * s**2 + 1 - a_bar) * (x_t - m)


@denoise_gaussian.mistake(
    "You did not subtract the mean of x_t, sqrt(alpha_bar_t) m, before scaling: only the deviation from it is scaled."
)
def mean_not_subtracted(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + a_bar.sqrt() * s**2 / (a_bar * s**2 + 1 - a_bar) * x_t


@denoise_gaussian.mistake("You left out m: the deviation from the mean is scaled, and then the mean is added back.")
def mean_not_added(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t, alpha_bar, m, s) - m


@denoise_gaussian.mistake(
    "Your gain is the signal's share of Var(x_t). That cleans x_t; x_0 is larger than that by 1 / sqrt(alpha_bar_t)."
)
def gain_of_signal(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + a_bar * s**2 / (a_bar * s**2 + 1 - a_bar) * (x_t - a_bar.sqrt() * m)


@denoise_gaussian.mistake("Var(x_t) has 1 - alpha_bar_t in it, the noise's variance, without a square root.")
def noise_deviation_in_variance(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + a_bar.sqrt() * s**2 / (a_bar * s**2 + (1 - a_bar).sqrt()) * (x_t - a_bar.sqrt() * m)


@denoise_gaussian.mistake("You used alpha_bar_t where its square root belongs: x_t = sqrt(alpha_bar_t) x_0 + noise.")
def no_root_in_gain(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + a_bar * s**2 / (a_bar**2 * s**2 + 1 - a_bar) * (x_t - a_bar * m)


@denoise_gaussian.mistake(
    "Your gain has s^2 above. Cov(x_0, x_t) is sqrt(alpha_bar_t) s^2: x_t holds x_0 shrunk by that root."
)
def covariance_not_shrunk(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + s**2 / (a_bar * s**2 + 1 - a_bar) * (x_t - a_bar.sqrt() * m)


@denoise_gaussian.mistake(
    "In Var(x_t) you multiplied s^2 by sqrt(alpha_bar_t). A variance takes the factor squared: alpha_bar_t s^2."
)
def signal_deviation_in_variance(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return m + a_bar.sqrt() * s**2 / (a_bar.sqrt() * s**2 + 1 - a_bar) * (x_t - a_bar.sqrt() * m)


@denoise_gaussian.mistake(
    "You started from sqrt(alpha_bar_t) m, the mean of x_t. The guess is about x_0, and starts from its mean, m."
)
def starts_from_mean_of_x_t(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t, alpha_bar, m, s) + (along(alpha_bar[t], x_t).sqrt() - 1) * m


@denoise_gaussian.mistake("s is missing: your gain is right for data of variance 1 only. Var(x_0) is s^2.")
def unit_variance(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t, alpha_bar, m, 1.0)


@denoise_gaussian.mistake("You returned the best guess of the noise, E[eps | x_t]. Asked for is that of the data, x_0.")
def noise_guessed(x_t, t, alpha_bar, m, s):
    a_bar = along(alpha_bar[t], x_t)
    return (x_t - a_bar.sqrt() * denoise_gaussian(x_t, t, alpha_bar, m, s)) / (1 - a_bar).sqrt()


@denoise_gaussian.mistake(
    "alpha_bar_t and 1 - alpha_bar_t have changed places: the first belongs to the data, the second to the noise."
)
def signal_and_noise_swapped(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t, 1 - alpha_bar, m, s)


@denoise_gaussian.mistake(FIRST_FOR_ALL)
def denoise_first_for_all(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t[:1].expand_as(t), alpha_bar, m, s)


@denoise_gaussian.mistake(POINTS_ONLY)
def denoise_points_only(x_t, t, alpha_bar, m, s):
    a_bar = alpha_bar[t][:, None]
    return m + a_bar.sqrt() * s**2 / (a_bar * s**2 + 1 - a_bar) * (x_t - a_bar.sqrt() * m)


@denoise_gaussian.mistake(INDEX_BEFORE)
def denoise_index_before(x_t, t, alpha_bar, m, s):
    return denoise_gaussian(x_t, t - 1, alpha_bar, m, s)


@denoise_gaussian.mistake(MEETS_LAST_AXIS)
def denoise_meets_last_axis(x_t, t, alpha_bar, m, s):
    a_bar = alpha_bar[t]
    return m + a_bar.sqrt() * s**2 / (a_bar * s**2 + 1 - a_bar) * (x_t - a_bar.sqrt() * m)
