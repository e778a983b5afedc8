"""Notebook 08, sampling. Equations are those of DDPM (Ho et al. 2020) unless another source is named; C19 to C21 are
claims of the course.

Symbols: beta (T + 1,) with beta[0] = 0; alpha_bar (T + 1,) with alpha_bar[0] = 1; x (b, ...), points or images. A chain
is at one time for the whole batch, so its steps take t and s as one integer; a network takes t (b,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import along, normal, points_and_images, schedule, times
from ddpm_edu.exercises.nb05 import FIRST_FOR_ALL, INDEX_BEFORE, MEETS_LAST_AXIS, POINTS_ONLY, q_sample
from ddpm_edu.exercises.nb06 import posterior
from ddpm_edu.exercises.values import agree

SHAPES = [(4, 2), (3, 2, 5, 5)]  # points and images
UNITS = torch.tensor([1.0, 0.0]).repeat(4, 1), torch.tensor([0.0, 1.0]).repeat(4, 1)  # show the factors of x and of z

# 08.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "08.1",
    title="One step back",
    hints=(
        "The mean is 06.3's: take out the last step's expected noise, beta_t / sqrt(1 - alpha_bar_t) eps, then divide "
        "by sqrt(alpha_t), where alpha_t = 1 - beta_t.",
        "Then add sigma_t z. sigma_t is a deviation, the root of beta_t, and the division by sqrt(alpha_t) does not "
        "reach it.",
        "t is a plain integer: beta[t] is one number, and `if t > 1:` decides about the noise.",
    ),
)
def ancestral_step(x_t: Tensor, eps: Tensor, t: int, z: Tensor, beta: Tensor, alpha_bar: Tensor) -> Tensor:
    """Take one step back, from x_t to x_{t-1}: line 4 of algorithm 2, with sigma_t^2 = beta_t (C19).

    The last step, t = 1, adds no noise (line 3).

    x_t: (b, ...), points (b, d) or images (b, c, h, w).
    eps: like x_t, the network's prediction of the whole noise in x_t.
    t: one integer for the whole batch, 1..T.
    z: like x_t, the standard normal noise to use.
    beta, alpha_bar: (T + 1,), with beta[0] = 0 and alpha_bar[0] = 1.
    Returns x_{t-1}, like x_t.
    """
    mean = (x_t - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()
    return mean + beta[t].sqrt() * z if t > 1 else mean


@ancestral_step.check
def test_step_matches_algorithm_2(student, rng):
    """agrees with algorithm 2 for t > 1, on points and on images"""
    beta, alpha_bar = schedule(rng)
    for shape in SHAPES:
        for t in (5, 2, 12):
            x_t, eps, z = (normal(rng, *shape) for _ in range(3))
            agree(student.ancestral_step(x_t, eps, t, z, beta, alpha_bar),
                  ancestral_step(x_t, eps, t, z, beta, alpha_bar))  # fmt: skip


@ancestral_step.check
def test_step_is_clean_at_the_end(student, rng):
    """at t = 1 it adds no noise, and with the true eps gives back x_0"""
    beta, alpha_bar = schedule(rng)
    x_0, eps, z = (normal(rng, 4, 2) for _ in range(3))
    x_1 = q_sample(x_0, torch.ones(4, dtype=torch.long), eps, alpha_bar)
    agree(student.ancestral_step(x_1, eps, 1, z, beta, alpha_bar), x_0)


@ancestral_step.check
def test_step_keeps_a_standard_normal(student, rng):
    """for data N(0, I) and its exact eps, x_{t-1} is N(0, I) again: the squares of the two factors add up to 1"""
    beta, alpha_bar = schedule(rng)
    x_t, z = UNITS
    for t in (3, 9):
        eps = (1 - alpha_bar[t]).sqrt() * x_t  # E[eps | x_t]
        agree(student.ancestral_step(x_t, eps, t, z, beta, alpha_bar).square().sum(1), torch.ones(4))


def _stepped(x_t, eps, t, z, beta, alpha_bar, share=None, root=None, sigma=None):
    """(x_t - share eps) / root + sigma z, each right unless it is given."""
    share = beta[t] / (1 - alpha_bar[t]).sqrt() if share is None else share
    root = (1 - beta[t]).sqrt() if root is None else root
    sigma = beta[t].sqrt() if sigma is None else sigma
    mean = (x_t - share * eps) / root
    return mean + sigma * z if t > 1 else mean


def _clean(x_t, eps, t, alpha_bar):
    """The x_0 that x_t and eps come from."""
    return (x_t - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()


def _posterior_var(t, s, alpha_bar):
    """The variance of q(x_s | x_t, x_0)."""
    return (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * (1 - alpha_bar[t] / alpha_bar[s])


@ancestral_step.mistake(
    "You add noise at t = 1, too. Nothing takes it out any more: z = 0 in the last step (algorithm 2, line 3)."
)
def noise_at_the_last_step(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, torch.zeros_like(z), beta, alpha_bar) + beta[t].sqrt() * z


@ancestral_step.mistake("You return the mean alone: sigma_t z is missing. Without it the chain contracts (C20).")
def no_noise(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, torch.zeros_like(z), beta, alpha_bar)


@ancestral_step.mistake("Your condition is the wrong way round: noise is added at every t but t = 1.")
def noise_only_at_the_last_step(x_t, eps, t, z, beta, alpha_bar):
    mean = _stepped(x_t, eps, t, torch.zeros_like(z), beta, alpha_bar)
    return mean + beta[t].sqrt() * z if t == 1 else mean


@ancestral_step.mistake("You stop adding noise one step too early, at t = 2. Only t = 1 goes without.")
def no_noise_at_2(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, eps, t, z if t > 2 else 0 * z, beta, alpha_bar)


@ancestral_step.mistake("At t = 1 you return x_t. That step is done as well, and only its noise is left out.")
def x_1_returned(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, eps, t, z, beta, alpha_bar) if t > 1 else x_t


@ancestral_step.mistake(
    "At t = 1 yours is 0: `mean + sigma * z if t > 1 else 0` needs brackets around what comes after +."
)
def else_0(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, eps, t, z, beta, alpha_bar) if t > 1 else 0


@ancestral_step.mistake("At t = 1 yours is all zeros: it is the noise that is 0 there, and the mean stays.")
def else_zeros(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, eps, t, z, beta, alpha_bar) if t > 1 else torch.zeros_like(x_t)


@ancestral_step.mistake("You multiplied z by beta_t. That is the variance sigma_t^2; z takes its root, the deviation.")
def variance_for_deviation(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=beta[t])


@ancestral_step.mistake("You added z as it is, with variance 1. Its variance is to be sigma_t^2 = beta_t.")
def z_unscaled(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=1.0)


@ancestral_step.mistake(
    "Your sigma_t^2 is the posterior's variance. DDPM allows it, and it is exact for data of one point; asked for is "
    "beta_t."
)
def posterior_for_beta(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=_posterior_var(t, t - 1, alpha_bar).sqrt())


@ancestral_step.mistake(
    "You gave z the posterior's variance as it is. Asked for is sigma_t^2 = beta_t, and z takes the root of it."
)
def posterior_unrooted(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=_posterior_var(t, t - 1, alpha_bar))


@ancestral_step.mistake(
    "You gave z the deviation of all t steps, sqrt(1 - alpha_bar_t). One step back has one step's: sqrt(beta_t)."
)
def noise_of_all_steps(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=(1 - alpha_bar[t]).sqrt())


@ancestral_step.mistake("You gave z the factor sqrt(alpha_t). Its variance is sigma_t^2 = beta_t = 1 - alpha_t.")
def alpha_for_sigma(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=(1 - beta[t]).sqrt())


@ancestral_step.mistake("The noise is divided by sqrt(alpha_t), too. sigma_t z stands outside that bracket.")
def noise_in_the_bracket(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=(beta[t] / (1 - beta[t])).sqrt())


@ancestral_step.mistake(
    "You added eps in z's place. eps is the noise already in x_t; sigma_t z is fresh, drawn for this step."
)
def eps_for_z(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, eps, t, eps, beta, alpha_bar)


@ancestral_step.mistake("eps and z have changed places: eps, the predicted noise, goes; z, the fresh one, comes.")
def eps_and_z_swapped(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, z, t, eps, beta, alpha_bar)


@ancestral_step.mistake("You gave z the root of beta_{t-1}. The step from t to t - 1 has index t: beta_t.")
def sigma_before(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, sigma=beta[t - 1].sqrt())


@ancestral_step.mistake("You leave the noise out of the first step, t = T. The last one, t = 1, goes without.")
def no_noise_at_T(x_t, eps, t, z, beta, alpha_bar):
    last = len(beta) - 1
    mean = _stepped(x_t, eps, t, torch.zeros_like(z), beta, alpha_bar)
    return mean + beta[t].sqrt() * z if t < last else mean


@ancestral_step.mistake(
    "You subtracted sigma_t z. As z is symmetric that would do as well, but algorithm 2 adds it, and so do the checks."
)
def z_subtracted(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, eps, t, -z, beta, alpha_bar)


@ancestral_step.mistake(
    "You subtracted sqrt(beta_t) eps: under the root belongs 1 - alpha_bar_t, since eps is the noise of all t steps, "
    "not of the last."
)
def beta_in_the_root(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=beta[t].sqrt())


@ancestral_step.mistake(
    "alpha_t and alpha_bar_t have changed places: one step's alpha_t in front and in beta_t = 1 - alpha_t, alpha_bar_t "
    "under eps's root."
)
def alphas_swapped(x_t, eps, t, z, beta, alpha_bar):
    share, root = (1 - alpha_bar[t]) / beta[t].sqrt(), alpha_bar[t].sqrt()
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=share, root=root)


@ancestral_step.mistake(
    "You divided by sqrt(alpha_bar_t), which undoes the shrinking of all t steps. One step back is sqrt(alpha_t)."
)
def rescaled_by_all_steps(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, root=alpha_bar[t].sqrt())


@ancestral_step.mistake("The division by sqrt(alpha_t) is missing: the step has shrunk x, and that must be undone.")
def not_rescaled(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, root=1.0)


@ancestral_step.mistake(
    "You divided x_t alone by sqrt(alpha_t). What is divided is x_t without its share of eps: brackets."
)
def only_x_t_rescaled(x_t, eps, t, z, beta, alpha_bar):
    share = beta[t] / (1 - alpha_bar[t]).sqrt() * (1 - beta[t]).sqrt()
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=share)


@ancestral_step.mistake(
    "You divided eps's share alone by sqrt(alpha_t). The whole mean is divided: brackets round x_t, too."
)
def only_eps_rescaled(x_t, eps, t, z, beta, alpha_bar):
    root = (1 - beta[t]).sqrt()
    return _stepped(root * x_t, eps, t, z, beta, alpha_bar)


@ancestral_step.mistake("You multiplied by sqrt(alpha_t). Going forward did that; going back is dividing.")
def shrunk_again(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, root=1 / (1 - beta[t]).sqrt())


@ancestral_step.mistake("You divided by alpha_t. The forward step multiplies by its root: divide by sqrt(alpha_t).")
def divided_by_alpha(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, root=1 - beta[t])


@ancestral_step.mistake("You divided by sqrt(beta_t). The forward step multiplies by sqrt(alpha_t) = sqrt(1 - beta_t).")
def divided_by_root_of_beta(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, root=beta[t].sqrt())


@ancestral_step.mistake("alpha_t and beta_t have changed places: beta_t is above eps's root, sqrt(alpha_t) divides.")
def alpha_and_beta_swapped(x_t, eps, t, z, beta, alpha_bar):
    share = (1 - beta[t]) / (1 - alpha_bar[t]).sqrt()
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=share, root=beta[t].sqrt())


@ancestral_step.mistake("The root is missing under beta_t: eps's factor is beta_t / sqrt(1 - alpha_bar_t).")
def root_left_out(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=beta[t] / (1 - alpha_bar[t]))


@ancestral_step.mistake("You took the root of beta_t, too. eps's factor is beta_t / sqrt(1 - alpha_bar_t).")
def root_of_both(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=(beta[t] / (1 - alpha_bar[t])).sqrt())


@ancestral_step.mistake("You divided by sqrt(alpha_bar_t), the signal's factor. Under beta_t is sqrt(1 - alpha_bar_t).")
def signal_for_noise(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=beta[t] / alpha_bar[t].sqrt())


@ancestral_step.mistake("You subtracted beta_t eps: the division by sqrt(1 - alpha_bar_t) is missing.")
def beta_alone(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=beta[t])


@ancestral_step.mistake("Above sqrt(1 - alpha_bar_t) stands beta_t = 1 - alpha_t. You wrote alpha_t.")
def alpha_for_beta(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=(1 - beta[t]) / (1 - alpha_bar[t]).sqrt())


@ancestral_step.mistake(
    "Brackets: 1 - alpha / sqrt(...) divides alpha alone. It is (1 - alpha_t) / sqrt(1 - alpha_bar_t)."
)
def brackets(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=1 - (1 - beta[t]) / (1 - alpha_bar[t]).sqrt())


@ancestral_step.mistake("You subtracted eps as it is. Only the last step's expected share of it is to go.")
def whole_eps(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=1.0)


@ancestral_step.mistake(
    "You took eps off x_t, as if it were the last step's noise. It is that of all t steps, and unscaled."
)
def subtract_the_noise(x_t, eps, t, z, beta, alpha_bar):
    return x_t - eps


@ancestral_step.mistake(
    "You removed all of the noise, sqrt(1 - alpha_bar_t) eps, and undid one step's shrinking. Only the last step's "
    "share is to go."
)
def all_noise_one_step(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=(1 - alpha_bar[t]).sqrt())


@ancestral_step.mistake("You went all the way: that is the predicted x_0. Asked for is x_{t-1}, one step back.")
def all_the_way(x_t, eps, t, z, beta, alpha_bar):
    return _clean(x_t, eps, t, alpha_bar)


@ancestral_step.mistake(
    "You went all the way to the predicted x_0 and added sigma_t z. Asked for is x_{t-1}, one step back."
)
def all_the_way_with_noise(x_t, eps, t, z, beta, alpha_bar):
    x_0 = _clean(x_t, eps, t, alpha_bar)
    return x_0 + beta[t].sqrt() * z if t > 1 else x_0


@ancestral_step.mistake("You added eps's share. On the way back it has to be subtracted.")
def noise_added(x_t, eps, t, z, beta, alpha_bar):
    return ancestral_step(x_t, -eps, t, z, beta, alpha_bar)


@ancestral_step.mistake(
    "You noised the predicted x_0 anew, to t - 1, as the forward process does. Algorithm 2 stays with x_t: its mean, "
    "then sigma_t z."
)
def noised_anew(x_t, eps, t, z, beta, alpha_bar):
    x_0 = _clean(x_t, eps, t, alpha_bar)
    return alpha_bar[t - 1].sqrt() * x_0 + (1 - alpha_bar[t - 1]).sqrt() * z


@ancestral_step.mistake(
    "That is DDIM's step (08.2), without fresh noise. Algorithm 2 takes less of eps and adds sigma_t z."
)
def ddim_for_ancestral(x_t, eps, t, z, beta, alpha_bar):
    x_0 = _clean(x_t, eps, t, alpha_bar)
    return alpha_bar[t - 1].sqrt() * x_0 + (1 - alpha_bar[t - 1]).sqrt() * eps


@ancestral_step.mistake(
    "That is a step forward, eq. 2: it adds noise and shrinks. The way back divides by sqrt(alpha_t)."
)
def forward(x_t, eps, t, z, beta, alpha_bar):
    return (1 - beta[t]).sqrt() * x_t + beta[t].sqrt() * z


@ancestral_step.mistake("In eps's factor you used alpha_bar_{t-1}. eps is the noise in x_t: alpha_bar_t.")
def bar_before(x_t, eps, t, z, beta, alpha_bar):
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=beta[t] / (1 - alpha_bar[t - 1]).sqrt())


@ancestral_step.mistake(INDEX_BEFORE)
def index_before(x_t, eps, t, z, beta, alpha_bar):
    share, root = beta[t - 1] / (1 - alpha_bar[t - 1]).sqrt(), (1 - beta[t - 1]).sqrt()
    return _stepped(x_t, eps, t, z, beta, alpha_bar, share=share, root=root, sigma=beta[t - 1].sqrt())


# 08.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "08.2",
    title="DDIM: any step, any noise",
    hints=(
        "First x_0, as in 07.1: take sqrt(1 - alpha_bar_t) eps out of x_t and divide by sqrt(alpha_bar_t).",
        "Then put noise back to the level of s: sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps. That is all for "
        "eta = 0.",
        "With eta, part of that noise is fresh, sigma z. Variances add up: 1 - alpha_bar_s is sigma^2 plus the square "
        "of what is left for eps.",
    ),
)
def ddim_step(x_t: Tensor, eps: Tensor, t: int, s: int, z: Tensor, eta: float, alpha_bar: Tensor) -> Tensor:
    """Step from x_t to x_s for any s < t: Song, Meng and Ermon 2021, eq. 12 (their alpha is our alpha_bar).

    x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma z,
    sigma = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_s)  (eq. 16),

    where x_0 is what x_t and eps predict. eta = 0 adds no fresh noise; eta = 1 is DDPM with the posterior's
    variance.

    x_t: (b, ...), points (b, d) or images (b, c, h, w).
    eps: like x_t, the network's prediction of the whole noise in x_t.
    t, s: one integer each for the whole batch, 0 <= s < t <= T; s need not be t - 1.
    z: like x_t, the standard normal noise to use.
    eta: a number, 0..1.
    alpha_bar: (T + 1,), with alpha_bar[0] = 1.
    Returns x_s, like x_t; at s = 0 that is the predicted x_0.
    """
    x_0 = (x_t - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
    var = eta**2 * (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * (1 - alpha_bar[t] / alpha_bar[s])
    return alpha_bar[s].sqrt() * x_0 + (1 - alpha_bar[s] - var).sqrt() * eps + var.sqrt() * z


STRIDES = [(7, 4), (12, 2), (5, 0), (3, 2), (1, 0)]  # (t, s)


@ddim_step.check
def test_ddim_without_noise(student, rng):
    """for eta = 0 it agrees with eq. 12, in steps of any length, down to s = 0"""
    _, alpha_bar = schedule(rng)
    for shape in SHAPES:
        for t, s in STRIDES:
            x_t, eps, z = (normal(rng, *shape) for _ in range(3))
            agree(student.ddim_step(x_t, eps, t, s, z, 0.0, alpha_bar), ddim_step(x_t, eps, t, s, z, 0.0, alpha_bar))


@ddim_step.check
def test_ddim_with_noise(student, rng):
    """for eta > 0 it agrees with eqs. 12 and 16"""
    _, alpha_bar = schedule(rng)
    for eta in (0.3, 0.8):
        for t, s in STRIDES[:3]:
            x_t, eps, z = (normal(rng, 4, 2) for _ in range(3))
            agree(student.ddim_step(x_t, eps, t, s, z, eta, alpha_bar), ddim_step(x_t, eps, t, s, z, eta, alpha_bar))


@ddim_step.check
def test_ddim_stays_on_the_way(student, rng):
    """for eta = 0 and the true eps, x_s is what the forward process makes of the same x_0 and eps"""
    _, alpha_bar = schedule(rng)
    x_0, eps, z = (normal(rng, 4, 2) for _ in range(3))
    for t, s in STRIDES[:4]:
        x_t, x_s = (q_sample(x_0, torch.full((4,), time), eps, alpha_bar) for time in (t, s))
        agree(student.ddim_step(x_t, eps, t, s, z, 0.0, alpha_bar), x_s)


@ddim_step.check
def test_ddim_is_ddpm_at_eta_1(student, rng):
    """for eta = 1 and s = t - 1 it is DDPM's posterior: its mean, and its variance for z"""
    beta, alpha_bar = schedule(rng)
    for t in (8, 2):
        x_t, eps, z = (normal(rng, 4, 2) for _ in range(3))
        mean, var = posterior(_clean(x_t, eps, t, alpha_bar), x_t, torch.full((4,), t), beta, alpha_bar)
        agree(student.ddim_step(x_t, eps, t, t - 1, z, 1.0, alpha_bar), mean + along(var.sqrt(), z) * z)


def _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=None, of_x_0=None, of_eps=None, sigma=None):
    """of_x_0 x_0 + of_eps eps + sigma z, each right unless it is given; of_eps then from sigma."""
    x_0 = _clean(x_t, eps, t, alpha_bar) if x_0 is None else x_0
    of_x_0 = alpha_bar[s].sqrt() if of_x_0 is None else of_x_0
    sigma = eta * _posterior_var(t, s, alpha_bar).sqrt() if sigma is None else sigma
    of_eps = (1 - alpha_bar[s] - sigma**2).sqrt() if of_eps is None else of_eps
    return of_x_0 * x_0 + of_eps * eps + sigma * z


@ddim_step.mistake("The root over eps's factor is missing: 1 - alpha_bar_s - sigma^2 is a variance.")
def variance_on_eps(x_t, eps, t, s, z, eta, alpha_bar):
    of_eps = 1 - alpha_bar[s] - eta**2 * _posterior_var(t, s, alpha_bar)
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=of_eps)


@ddim_step.mistake("You gave eps back at the level of t. x_s has the noise of s: 1 - alpha_bar_s under the root.")
def noise_of_t_kept(x_t, eps, t, s, z, eta, alpha_bar):
    of_eps = (1 - alpha_bar[t] - eta**2 * _posterior_var(t, s, alpha_bar)).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=of_eps)


@ddim_step.mistake("You multiplied x_t itself by sqrt(alpha_bar_s). There belongs the predicted x_0.")
def x_t_for_x_0(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=x_t)


@ddim_step.mistake(
    "You predicted x_0 with alpha_bar_t / alpha_bar_s, the stride's own factor. eps is the noise since x_0: "
    "alpha_bar_t."
)
def stride_for_bar(x_t, eps, t, s, z, eta, alpha_bar):
    r = alpha_bar[t] / alpha_bar[s]
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=(x_t - (1 - r).sqrt() * eps) / r.sqrt())


@ddim_step.mistake(
    "You predicted x_0 with alpha_t = alpha_bar_t / alpha_bar_{t-1}, one step's factor. It is alpha_bar_t, that of "
    "all t."
)
def alpha_for_bar(x_t, eps, t, s, z, eta, alpha_bar):
    r = alpha_bar[t] / alpha_bar[t - 1]
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=(x_t - (1 - r).sqrt() * eps) / r.sqrt())


@ddim_step.mistake("You went to t - 1. The step goes to s, which may lie far below: index with s.")
def one_step_alone(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, t - 1, z, eta, alpha_bar)


@ddim_step.mistake("You returned the predicted x_0. x_s has noise of its own level, unless s = 0: put it back.")
def predicted_x_0(x_t, eps, t, s, z, eta, alpha_bar):
    return _clean(x_t, eps, t, alpha_bar)


@ddim_step.mistake("In the predicted x_0 the division by sqrt(alpha_bar_t) is missing.")
def x_0_not_rescaled(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=x_t - (1 - alpha_bar[t]).sqrt() * eps)


@ddim_step.mistake("In the predicted x_0 you divided by alpha_bar_t. In x_t the signal has its root for a factor.")
def x_0_over_alpha_bar(x_t, eps, t, s, z, eta, alpha_bar):
    x_0 = (x_t - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t]
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=x_0)


@ddim_step.mistake("In the predicted x_0 a root is missing: the noise in x_t is sqrt(1 - alpha_bar_t) eps.")
def x_0_less_variance(x_t, eps, t, s, z, eta, alpha_bar):
    x_0 = (x_t - (1 - alpha_bar[t]) * eps) / alpha_bar[t].sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=x_0)


@ddim_step.mistake("In the predicted x_0 both roots are missing: sqrt(1 - alpha_bar_t) and sqrt(alpha_bar_t).")
def x_0_without_roots(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=(x_t - (1 - alpha_bar[t]) * eps) / alpha_bar[t])


@ddim_step.mistake("In the predicted x_0 eps has no factor. The noise in x_t is sqrt(1 - alpha_bar_t) eps.")
def x_0_less_eps(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=(x_t - eps) / alpha_bar[t].sqrt())


@ddim_step.mistake(
    "In the predicted x_0 you divided x_t alone by sqrt(alpha_bar_t). Divide x_t without its noise: brackets."
)
def x_0_brackets(x_t, eps, t, s, z, eta, alpha_bar):
    x_0 = x_t / alpha_bar[t].sqrt() - (1 - alpha_bar[t]).sqrt() * eps
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=x_0)


@ddim_step.mistake("Your x_0 is x_t, rescaled: the noise sqrt(1 - alpha_bar_t) eps has to be taken out first.")
def x_0_with_its_noise(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=x_t / alpha_bar[t].sqrt())


@ddim_step.mistake("You clamped x_0 to -1..1. That is a help for pictures, and not part of eq. 12.")
def x_0_clamped(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=_clean(x_t, eps, t, alpha_bar).clamp(-1, 1))


@ddim_step.mistake("In the predicted x_0 the noise is added. It has to be taken out of x_t.")
def x_0_sign(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=_clean(x_t, -eps, t, alpha_bar))


@ddim_step.mistake(
    "For eta = 0 you get x_t back: noise is taken out and put back at one and the same time. Out at t, back at s."
)
def x_0_from_s(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, x_0=_clean(x_t, eps, s, alpha_bar))


@ddim_step.mistake("The factor of x_0 is sqrt(alpha_bar_s), the signal's at s. You kept that of t.")
def signal_of_t_kept(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_x_0=alpha_bar[t].sqrt())


@ddim_step.mistake("The root over alpha_bar_s is missing: x_0's factor is sqrt(alpha_bar_s).")
def signal_unrooted(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_x_0=alpha_bar[s])


@ddim_step.mistake(
    "Both roots are missing: x_0 comes with sqrt(alpha_bar_s), eps with sqrt(1 - alpha_bar_s - sigma^2)."
)
def both_unrooted(x_t, eps, t, s, z, eta, alpha_bar):
    of_eps = 1 - alpha_bar[s] - eta**2 * _posterior_var(t, s, alpha_bar)
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_x_0=alpha_bar[s], of_eps=of_eps)


@ddim_step.mistake("The factors of x_0 and eps have changed places: sqrt(alpha_bar_s) is the signal's.")
def factors_swapped(x_t, eps, t, s, z, eta, alpha_bar):
    of_x_0 = (1 - alpha_bar[s] - eta**2 * _posterior_var(t, s, alpha_bar)).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_x_0=of_x_0, of_eps=alpha_bar[s].sqrt())


@ddim_step.mistake("x_0 lacks its factor sqrt(alpha_bar_s): at s the signal has shrunk.")
def signal_unscaled(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_x_0=1.0)


@ddim_step.mistake("You subtracted eps in the second term. There the noise is put back, at the level of s: plus.")
def direction_subtracted(x_t, eps, t, s, z, eta, alpha_bar):
    right = _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=0.0)
    return 2 * right - ddim_step(x_t, eps, t, s, z, eta, alpha_bar)


@ddim_step.mistake("The second term is missing: x_s contains the direction eps, at the level of s.")
def direction_missing(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=0.0)


@ddim_step.mistake("The second term lacks its factor: eps comes with sqrt(1 - alpha_bar_s - sigma^2).")
def direction_unscaled(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=1.0)


@ddim_step.mistake(
    "z stands where eps belongs: for eta = 0 nothing fresh is drawn, the predicted eps itself goes back in."
)
def z_for_eps(x_t, eps, t, s, z, eta, alpha_bar):
    sigma = eta * _posterior_var(t, s, alpha_bar).sqrt()
    x_0 = alpha_bar[s].sqrt() * _clean(x_t, eps, t, alpha_bar)
    return x_0 + ((1 - alpha_bar[s] - sigma**2).sqrt() + sigma) * z


@ddim_step.mistake("t and s have changed places.")
def t_and_s_swapped(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, s, t, z, eta, alpha_bar)


@ddim_step.mistake(
    "For eta = 0 yours is DDPM's mean, the step with z left out. DDIM gives eps its full weight, sqrt(1 - alpha_bar_s) "
    "(C20)."
)
def posterior_mean(x_t, eps, t, s, z, eta, alpha_bar):
    var = _posterior_var(t, s, alpha_bar)
    of_eps = (1 - alpha_bar[s] - var).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=of_eps)


@ddim_step.mistake(
    "sigma^2 is not taken off eps's share. The fresh noise replaces a part of the old: 1 - alpha_bar_s - sigma^2."
)
def sigma_not_taken_off(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=(1 - alpha_bar[s]).sqrt())


@ddim_step.mistake("Under the root you subtracted sigma. Variances are subtracted there: sigma^2.")
def sigma_not_squared(x_t, eps, t, s, z, eta, alpha_bar):
    sigma = eta * _posterior_var(t, s, alpha_bar).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=(1 - alpha_bar[s] - sigma).sqrt())


@ddim_step.mistake("You subtracted sigma from the root. sigma^2 belongs under it: variances add up, deviations do not.")
def sigma_outside_the_root(x_t, eps, t, s, z, eta, alpha_bar):
    sigma = eta * _posterior_var(t, s, alpha_bar).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=(1 - alpha_bar[s]).sqrt() - sigma)


@ddim_step.mistake("Your root ends too early: sigma^2 belongs under it, sqrt(1 - alpha_bar_s - sigma^2).")
def root_too_short(x_t, eps, t, s, z, eta, alpha_bar):
    of_eps = (1 - alpha_bar[s]).sqrt() - eta**2 * _posterior_var(t, s, alpha_bar)
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=of_eps)


@ddim_step.mistake("Under the root you added sigma^2. The fresh noise takes the place of a part of eps: subtract it.")
def sigma_added(x_t, eps, t, s, z, eta, alpha_bar):
    of_eps = (1 - alpha_bar[s] + eta**2 * _posterior_var(t, s, alpha_bar)).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=of_eps)


@ddim_step.mistake("You multiplied z by sigma^2. z takes the deviation, sigma.")
def variance_on_z(x_t, eps, t, s, z, eta, alpha_bar):
    var = eta**2 * _posterior_var(t, s, alpha_bar)
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=var, of_eps=(1 - alpha_bar[s] - var).sqrt())


@ddim_step.mistake("The fresh noise sigma z is missing: you made room for it in eps's factor and did not add it.")
def fresh_noise_missing(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, torch.zeros_like(z), eta, alpha_bar)


@ddim_step.mistake("z has no factor. It takes sigma, which eta scales.")
def fresh_noise_unscaled(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, torch.zeros_like(z), eta, alpha_bar) + z


@ddim_step.mistake("At s = 1 you leave sigma z out. Only at s = 0 does it vanish, and there sigma is 0 of itself.")
def no_noise_to_1(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, z if s > 1 else 0 * z, eta, alpha_bar)


@ddim_step.mistake(
    "You shared the noise out as 1 - eta and eta. Variances add up: sigma from eq. 16, then 1 - alpha_bar_s - sigma^2 "
    "under eps's root."
)
def shares_of_eta(x_t, eps, t, s, z, eta, alpha_bar):
    b = (1 - alpha_bar[s]).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, of_eps=(1 - eta) * b, sigma=eta * b)


@ddim_step.mistake("eta changes nothing in yours: it scales sigma, the share of the noise that is fresh.")
def eta_ignored(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, z, 0.0, alpha_bar)


@ddim_step.mistake("eta is missing in sigma: yours adds DDPM's full noise, whatever eta.")
def eta_missing(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, z, 1.0, alpha_bar)


@ddim_step.mistake("z is multiplied by eta twice: it is in sigma already.")
def eta_twice(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, eta * z, eta, alpha_bar)


@ddim_step.mistake("eta stands under a root. It scales the deviation: sigma = eta sqrt(...), so sigma^2 = eta^2 (...).")
def eta_in_the_root(x_t, eps, t, s, z, eta, alpha_bar):
    return ddim_step(x_t, eps, t, s, z, eta**0.5, alpha_bar)


@ddim_step.mistake("You took eta itself for sigma. It is only a factor in it (eq. 16).")
def eta_for_sigma(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=torch.tensor(eta))


@ddim_step.mistake(
    "In sigma the first root is missing, that of (1 - alpha_bar_s) / (1 - alpha_bar_t). It makes sigma 0 at s = 0."
)
def beta_for_sigma(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=eta * (1 - alpha_bar[t] / alpha_bar[s]).sqrt())


@ddim_step.mistake("In sigma the second root is missing, that of 1 - alpha_bar_t / alpha_bar_s.")
def stride_missing_in_sigma(x_t, eps, t, s, z, eta, alpha_bar):
    sigma = eta * ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt()
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=sigma)


@ddim_step.mistake("In sigma the roots are missing: sigma is a deviation, what eq. 16 has under its roots a variance.")
def sigma_without_roots(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=eta * _posterior_var(t, s, alpha_bar))


@ddim_step.mistake("In sigma the first fraction is upside down: (1 - alpha_bar_s) above, (1 - alpha_bar_t) below.")
def fraction_upside_down(x_t, eps, t, s, z, eta, alpha_bar):
    fraction = (1 - alpha_bar[t]) / (1 - alpha_bar[s])
    return _rebuilt(
        x_t, eps, t, s, z, eta, alpha_bar, sigma=eta * (fraction * (1 - alpha_bar[t] / alpha_bar[s])).sqrt()
    )


@ddim_step.mistake("In sigma the ratio is upside down: alpha_bar_t / alpha_bar_s is below 1, its inverse above.")
def ratio_upside_down(x_t, eps, t, s, z, eta, alpha_bar):
    var = (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * (1 - alpha_bar[s] / alpha_bar[t])
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=eta * var.sqrt())


@ddim_step.mistake(
    "In sigma you took alpha_bar_t alone. Its second root has 1 - alpha_bar_t / alpha_bar_s, the stride's."
)
def bar_alone_in_sigma(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=eta * (1 - alpha_bar[s]).sqrt())


@ddim_step.mistake("In sigma you took t - 1 for s. The stride may be longer: alpha_bar_s.")
def one_step_in_sigma(x_t, eps, t, s, z, eta, alpha_bar):
    return _rebuilt(x_t, eps, t, s, z, eta, alpha_bar, sigma=eta * _posterior_var(t, t - 1, alpha_bar).sqrt())


# 08.3 ---------------------------------------------------------------------------------------------------------------

Network = Callable[[Tensor, Tensor], Tensor]  # predict_eps(x_t, t), t (b,)


@exercise(
    "08.3",
    title="The whole chain",
    hints=(
        "range(T, 0, -1) gives t = T, ..., 1; the last of these steps arrives at x_0. T is len(beta) - 1.",
        "The network takes one t a sample: predict_eps(x, torch.full((len(x),), t)). Ask it anew in each step, about "
        "the x of that step.",
        "Inside stands the step of 08.1, with z[t] for z and no noise at t = 1; its result is the next step's x.",
    ),
)
def p_sample_loop(predict_eps, x_T: Tensor, beta: Tensor, alpha_bar: Tensor, z: Tensor) -> Tensor:
    """Draw samples: algorithm 2 from x_T to x_0, sigma_t^2 = beta_t, one step for each t = T, ..., 1.

    Write the step out (yours of 08.1 is in another cell, which grading does not see).

    predict_eps: the network, called as predict_eps(x_t, t) with t of shape (b,), integers 1..T, the same for
        every sample; index 0 was never trained. Gives eps, like x_t.
    x_T: (b, ...), the noise to start from: points (b, d) or images (b, c, h, w).
    beta, alpha_bar: (T + 1,), with beta[0] = 0 and alpha_bar[0] = 1.
    z: (T + 1, b, ...), the noise to use: z[t] in step t. z[0] and z[1] are not used.
    Returns x_0, like x_T.
    """
    x = x_T
    for t in range(len(beta) - 1, 0, -1):
        eps = predict_eps(x, torch.full((len(x),), t, device=x.device))
        x = (x - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()
        if t > 1:
            x = x + beta[t].sqrt() * z[t]
    return x


# The networks of the checks are pure functions of (x_t, t), made from numbers alone.


def _asked(predict: Network, shape: tuple[int, ...]) -> Network:
    """`predict`, particular about what it is asked: x_t of this shape, t a vector of b integers."""

    def predict_eps(x_t: Tensor, t: Tensor) -> Tensor:
        got = tuple(x_t.shape) if isinstance(x_t, Tensor) else type(x_t).__name__
        if got != shape:
            raise ValueError(f"predict_eps takes x_t of x_T's shape {shape}, and was given {got}")
        if not isinstance(t, Tensor) or t.shape != shape[:1] or t.is_floating_point():
            raise TypeError("predict_eps takes t as a tensor of integers, one a sample, shape (b,)")
        return predict(x_t, t)

    predict_eps.__qualname__ = "predict_eps"  # as an exception names it
    return predict_eps


def _exact(mean: float, var: float, alpha_bar: Tensor, shape: tuple[int, ...]) -> Network:
    """E[eps | x_t] for data N(mean, var), var = 0 for a point; finite at t = 0, too, though nobody should ask."""

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        a_bar = along(alpha_bar[t], x_t)
        return (1 - a_bar).sqrt() * (x_t - a_bar.sqrt() * mean) / (a_bar * var + 1 - a_bar)

    return _asked(predict, shape)


def _told(answers: Tensor) -> Network:
    """Gives answers[t], whatever x_t: so what was asked, and in which step, shows in what comes out."""
    return _asked(lambda x_t, t: answers[t[0]], tuple(answers.shape[1:]))


def _chains(rng: torch.Generator, T: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_T, beta, alpha_bar and z for chains of T steps."""
    beta, alpha_bar = schedule(rng, T)
    return normal(rng, *shape), beta, alpha_bar, normal(rng, T + 1, *shape)


@p_sample_loop.check
def test_loop_matches_algorithm_2(student, rng):
    """agrees with algorithm 2 for the exact network of Gaussian data, on points and on images"""
    for T, shape in ((6, (4, 2)), (5, (3, 2, 5, 5))):
        x_T, beta, alpha_bar, z = _chains(rng, T, shape)
        exact = _exact(1.5, 0.3, alpha_bar, shape)
        agree(student.p_sample_loop(exact, x_T, beta, alpha_bar, z), p_sample_loop(exact, x_T, beta, alpha_bar, z))


@p_sample_loop.check
def test_loop_asks_for_each_t(student, rng):
    """asks the network for t = T, ..., 1, once each, and uses each answer in its own step"""
    for T, shape in ((5, (4, 2)), (1, (4, 2))):
        x_T, beta, alpha_bar, z = _chains(rng, T, shape)
        network = _told(normal(rng, T + 1, *shape))
        agree(student.p_sample_loop(network, x_T, beta, alpha_bar, z), p_sample_loop(network, x_T, beta, alpha_bar, z))


@p_sample_loop.check
def test_loop_ends_on_the_data(student, rng):
    """when the data is one point, every chain ends on it, whatever the noise on the way"""
    shape, point = (4, 2), 0.5 + torch.rand(1, generator=rng).item()  # near 0 rounding alone would be an error
    x_T, beta, alpha_bar, z = _chains(rng, 5, shape)
    exact = _exact(point, 0.0, alpha_bar, shape)
    agree(student.p_sample_loop(exact, x_T, beta, alpha_bar, z), torch.full(shape, point))


def _walked(predict_eps, x_T, beta, alpha_bar, z, times=None, ask=lambda t: t, noise=lambda t: t, step=ancestral_step):
    """The chain over `times`, which asks the network at ask(t) and takes z[noise(t)]."""
    x = x_T
    for t in range(len(beta) - 1, 0, -1) if times is None else times:
        eps = predict_eps(x, torch.full((len(x),), ask(t)))
        x = step(x, eps, t, z[noise(t)], beta, alpha_bar)
    return x


@p_sample_loop.mistake(
    "Your chain stops at x_1: the step at t = 1 is missing. range leaves its end out, so range(T, 0, -1) ends with 1."
)
def stops_at_x_1(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=range(len(beta) - 1, 1, -1))


@p_sample_loop.mistake("Your chain starts at t = T - 1. x_T is at t = T = len(beta) - 1, so that is the first step.")
def starts_at_T_less_1(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=range(len(beta) - 2, 0, -1))


@p_sample_loop.mistake("Your chain starts at t = T + 1. beta has T + 1 entries, index 0 among them: T = len(beta) - 1.")
def starts_at_T_and_1(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=range(len(beta), 0, -1))


@p_sample_loop.mistake("You wrote T = 1000 into the loop. T is what the schedule says: len(beta) - 1.")
def T_written_out(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=range(1000, 0, -1))


@p_sample_loop.mistake(
    "Index 0 is read, where beta / sqrt(1 - alpha_bar) is 0 / 0. Times are 1..T here: range(T, 0, -1), with beta[t]."
)
def down_to_0(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=range(len(beta) - 1, -1, -1))


@p_sample_loop.mistake("Your chain runs forwards, from t = 1 to T. It starts at x_T, so t falls: range(T, 0, -1).")
def runs_forwards(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=range(1, len(beta)))


@p_sample_loop.mistake(
    "x_T comes back: no step was done. Either the -1 is missing in range(T, 0, -1), or x is never changed."
)
def no_step(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=())


@p_sample_loop.mistake("Only the first step was done: your return stands inside the loop. Indent it less.")
def returns_at_once(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=(len(beta) - 1,))


@p_sample_loop.mistake("Every step starts from x_T again. Its result must be the next step's x: x = ...")
def always_from_x_T(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, times=(1,))


@p_sample_loop.mistake("The step subtracts from x_T each time. It starts from the x of the step before.")
def mean_from_x_T(predict_eps, x_T, beta, alpha_bar, z):
    def step(x, eps, t, noise, beta, alpha_bar):
        return ancestral_step(x_T, eps, t, noise, beta, alpha_bar)

    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=step)


@p_sample_loop.mistake(
    "You jump to the predicted x_0 at once. At t = T it is a blur; algorithm 2 takes T steps, one for each t."
)
def x_0_at_once(predict_eps, x_T, beta, alpha_bar, z):
    T = len(beta) - 1
    return _clean(x_T, predict_eps(x_T, torch.full((len(x_T),), T)), T, alpha_bar)


@p_sample_loop.mistake("The network is shown x_T in every step. It has to see the x of that step.")
def network_sees_x_T(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(lambda x, t: predict_eps(x_T, t), x_T, beta, alpha_bar, z)


@p_sample_loop.mistake("The network is asked once, at x_T, and its answer used in every step. Ask it in each step.")
def network_asked_once(predict_eps, x_T, beta, alpha_bar, z):
    eps = predict_eps(x_T, torch.full((len(x_T),), len(beta) - 1))
    return _walked(lambda x, t: eps, x_T, beta, alpha_bar, z)


@p_sample_loop.mistake("The network is told t = T in every step. It has to know how noisy its x is: this step's t.")
def network_told_T(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, ask=lambda t: len(beta) - 1)


@p_sample_loop.mistake(
    "You ask the network at t - 1. It was trained for t = 1..T: x_t goes with t, and index 0 it has never seen."
)
def network_asked_before(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, ask=lambda t: t - 1)


@p_sample_loop.mistake(
    "The network is not given t as it needs it: one integer for each sample, torch.full((len(x),), t)."
)
def t_as_a_number(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(lambda x, t: predict_eps(x, int(t[0])), x_T, beta, alpha_bar, z)


@p_sample_loop.mistake("The arguments of predict_eps have changed places: predict_eps(x, t).")
def arguments_swapped(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(lambda x, t: predict_eps(t, x), x_T, beta, alpha_bar, z)


@p_sample_loop.mistake("You add noise at t = 1, too. Nothing takes it out any more: the last step goes without.")
def noise_in_the_last_step(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=noise_at_the_last_step)


@p_sample_loop.mistake("There is no noise in your steps: sigma_t z is missing. Such a chain contracts (C20).")
def no_noise_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=no_noise)


@p_sample_loop.mistake("You add noise at t = 1 alone. Your condition is the wrong way round: every step but that one.")
def noise_only_in_the_last_step(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=noise_only_at_the_last_step)


@p_sample_loop.mistake("You stop adding noise one step too early, at t = 2. Only t = 1 goes without.")
def loop_without_noise_at_2(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=no_noise_at_2)


@p_sample_loop.mistake("You use z[0] in every step. Steps need noise independent of each other: z[t] in step t.")
def one_z(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, noise=lambda t: 0)


@p_sample_loop.mistake("You use the last z in every step. Steps need noise independent of each other: z[t] in step t.")
def one_last_z(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, noise=lambda t: -1)


@p_sample_loop.mistake("You use z[1] in every step. Steps need noise independent of each other: z[t] in step t.")
def one_first_z(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, noise=lambda t: 1)


@p_sample_loop.mistake("You use x_T as the noise of every step. It is in x already; fresh noise is z[t].")
def x_T_for_z(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, x_T.expand_as(z))


@p_sample_loop.mistake("You use z[t - 1] in step t. z is indexed as beta is: z[t].")
def z_before(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, noise=lambda t: t - 1)


@p_sample_loop.mistake("You take z in the order of the steps, z[0] first. z is indexed by time: z[t] in step t.")
def z_in_order(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, noise=lambda t: len(beta) - 1 - t)


@p_sample_loop.mistake("You added the whole of z, the noise of every step, to x. Step t takes z[t].")
def whole_z(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, noise=lambda t: slice(None))


@p_sample_loop.mistake("You returned the whole chain, stacked. Asked for is its end, x_0.")
def chain_stacked(predict_eps, x_T, beta, alpha_bar, z):
    return torch.stack(chain_listed(predict_eps, x_T, beta, alpha_bar, z))


@p_sample_loop.mistake("You returned the states of all steps, stacked. Asked for is the last of them, x_0.")
def states_stacked(predict_eps, x_T, beta, alpha_bar, z):
    return torch.stack(chain_listed(predict_eps, x_T, beta, alpha_bar, z)[1:])


@p_sample_loop.mistake("You returned the whole chain as a list. Asked for is its end, x_0.")
def chain_listed(predict_eps, x_T, beta, alpha_bar, z):
    T = len(beta) - 1
    return [_walked(predict_eps, x_T, beta, alpha_bar, z, times=range(T, t, -1)) for t in range(T, -1, -1)]


@p_sample_loop.mistake(
    "Your chain ends at 0: `... + sigma * z if t > 1 else 0` needs brackets around what comes after +."
)
def loop_else_0(predict_eps, x_T, beta, alpha_bar, z):
    return 0


@p_sample_loop.mistake(
    "You clamped what comes out to -1..1. Algorithm 2 returns x_0 as it is; limits are the decoder's."
)
def clamped_at_the_end(predict_eps, x_T, beta, alpha_bar, z):
    return p_sample_loop(predict_eps, x_T, beta, alpha_bar, z).clamp(-1, 1)


@p_sample_loop.mistake(
    "You clamped the mean in every step. Algorithm 2 clamps nothing: x_t, mostly noise, leaves -1..1."
)
def clamped_in_each_step(predict_eps, x_T, beta, alpha_bar, z):
    def step(x, eps, t, noise, beta, alpha_bar):
        mean = _stepped(x, eps, t, torch.zeros_like(noise), beta, alpha_bar).clamp(-1, 1)
        return mean + beta[t].sqrt() * noise if t > 1 else mean

    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=step)


@p_sample_loop.mistake(
    "You clamped the predicted x_0 in every step. Published code often does, for pictures; it is not in algorithm 2."
)
def x_0_clamped_in_each_step(predict_eps, x_T, beta, alpha_bar, z):
    def step(x, eps, t, noise, beta, alpha_bar):
        a, b = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
        return ancestral_step(x, (x - a * _clean(x, eps, t, alpha_bar).clamp(-1, 1)) / b, t, noise, beta, alpha_bar)

    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=step)


@p_sample_loop.mistake("Each of your steps goes all the way to the predicted x_0. A step leads to x_{t-1} only.")
def all_the_way_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=all_the_way)


@p_sample_loop.mistake("In the step z is multiplied by beta_t. It takes the root, the deviation sigma_t.")
def variance_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=variance_for_deviation)


@p_sample_loop.mistake("In the step z has no factor. It takes the deviation sigma_t = sqrt(beta_t).")
def z_unscaled_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=z_unscaled)


@p_sample_loop.mistake("In the step sigma_t^2 is the posterior's variance: a legal choice, but asked for is beta_t.")
def posterior_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=posterior_for_beta)


@p_sample_loop.mistake("In the step the noise is divided by sqrt(alpha_t), too. sigma_t z stands outside that bracket.")
def noise_in_the_loops_bracket(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=noise_in_the_bracket)


@p_sample_loop.mistake("In the step the division by sqrt(alpha_t) is missing.")
def not_rescaled_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=not_rescaled)


@p_sample_loop.mistake(
    "In the step x is divided by sqrt(alpha_bar_t), as if it undid all t steps. It is sqrt(alpha_t)."
)
def rescaled_by_all_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=rescaled_by_all_steps)


@p_sample_loop.mistake("In the step sqrt(beta_t) eps is subtracted. Under the root belongs 1 - alpha_bar_t.")
def beta_in_the_loops_root(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=beta_in_the_root)


@p_sample_loop.mistake("Your steps are DDIM's, with no fresh noise. Algorithm 2 takes less of eps and adds sigma_t z.")
def ddim_in_the_loop(predict_eps, x_T, beta, alpha_bar, z):
    return _walked(predict_eps, x_T, beta, alpha_bar, z, step=ddim_for_ancestral)


# 08.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "08.4",
    title="A Langevin step",
    hints=(
        "Two terms are added to x: one uphill, along the score, and one of fresh noise.",
        "x + step / 2 * score + step**0.5 * z. step is a plain number: step**0.5 or math.sqrt(step) is its root.",
    ),
)
def langevin_step(x: Tensor, score: Tensor, step: float, z: Tensor) -> Tensor:
    """Take one step of Langevin dynamics (Song and Ermon 2019, eq. 4, their epsilon being our step) (C21).

    x moves by half of step times the score, and by noise whose variance is step.

    x: (b, ...), points (b, d) or images (b, c, h, w).
    score: like x, the gradient of log q at x.
    step: a number above 0.
    z: like x, the standard normal noise to use.
    Returns the next x, like x.
    """
    return x + step / 2 * score + step**0.5 * z


@langevin_step.check
def test_langevin_matches_eq_4(student, rng):
    """agrees with eq. 4 for several steps, on points and on images"""
    for step in (0.3, 0.02, 0.8):
        for shape in SHAPES:
            x, score, z = (normal(rng, *shape) for _ in range(3))
            agree(student.langevin_step(x, score, step, z), langevin_step(x, score, step, z))


@langevin_step.check
def test_langevin_keeps_a_gaussian(student, rng):
    """on N(0, v) it keeps the variance V = v / (1 - step / (4 v)), which goes to v with the step"""
    x, z = UNITS
    for v, step in ((0.5, 0.4), (2.0, 0.1)):
        of_x, of_z = student.langevin_step(x, -x / v, step, z).T
        V = torch.full((4,), v / (1 - step / (4 * v)))
        agree(of_x**2 * V + of_z**2, V)


def _moved(x, score, z, of_score, of_z):
    return x + of_score * score + of_z * z


@langevin_step.mistake("The factor 1/2 is missing: with noise of variance step, the score counts step / 2.")
def half_missing(x, score, step, z):
    return _moved(x, score, z, step, step**0.5)


@langevin_step.mistake("You multiplied z by step. step is the noise's variance; z takes its root.")
def step_not_rooted(x, score, step, z):
    return _moved(x, score, z, step / 2, step)


@langevin_step.mistake("You walk downhill: the score points to higher density, and is added.")
def score_subtracted(x, score, step, z):
    return langevin_step(x, -score, step, z)


@langevin_step.mistake("The noise is missing. Following the score alone every chain ends on a peak, one point (C21).")
def noise_missing(x, score, step, z):
    return _moved(x, score, z, step / 2, 0)


@langevin_step.mistake("The noise is missing, and so is the factor 1/2: that is gradient ascent on log q.")
def ascent(x, score, step, z):
    return _moved(x, score, z, step, 0)


@langevin_step.mistake(
    "The score is multiplied by the root of step. The root is the noise's alone: step / 2 for the score."
)
def rooted_score(x, score, step, z):
    return _moved(x, score, z, step**0.5, step**0.5)


@langevin_step.mistake("The score has sqrt(step) / 2. The root is the noise's alone: step / 2 for the score.")
def half_rooted_score(x, score, step, z):
    return _moved(x, score, z, step**0.5 / 2, step**0.5)


@langevin_step.mistake("The roots have changed places: step / 2 for the score, sqrt(step) for the noise.")
def root_at_the_wrong_term(x, score, step, z):
    return _moved(x, score, z, step**0.5 / 2, step)


@langevin_step.mistake(
    "That is the other convention, step score + sqrt(2 step) z: right, but twice as long. Eq. 4 has step / 2 and "
    "sqrt(step)."
)
def other_convention(x, score, step, z):
    return _moved(x, score, z, step, (2 * step) ** 0.5)


@langevin_step.mistake(
    "Two conventions are mixed: sqrt(2 step) for z goes with step for the score. Here it is step / 2 and sqrt(step)."
)
def conventions_mixed(x, score, step, z):
    return _moved(x, score, z, step / 2, (2 * step) ** 0.5)


@langevin_step.mistake("You halved the noise's variance, too: z takes sqrt(step), the 1/2 is the score's alone.")
def half_in_the_root(x, score, step, z):
    return _moved(x, score, z, step / 2, (step / 2) ** 0.5)


@langevin_step.mistake("You halved the noise, too: z takes sqrt(step), the 1/2 is the score's alone.")
def noise_halved(x, score, step, z):
    return _moved(x, score, z, step / 2, step**0.5 / 2)


@langevin_step.mistake("The 1/2 stands at the noise. It is the score's: step / 2, and sqrt(step) for z.")
def half_at_the_noise(x, score, step, z):
    return _moved(x, score, z, step, step**0.5 / 2)


@langevin_step.mistake("You multiplied z by step / 2, the score's factor. z takes sqrt(step).")
def one_factor(x, score, step, z):
    return _moved(x, score, z, step / 2, step / 2)


@langevin_step.mistake("You multiplied score and z by step. It is step / 2 for the score, and sqrt(step) for z.")
def step_for_both(x, score, step, z):
    return _moved(x, score, z, step, step)


@langevin_step.mistake("z has no factor. Its variance is to be step, so multiply by the root.")
def noise_unscaled(x, score, step, z):
    return _moved(x, score, z, step / 2, 1)


@langevin_step.mistake("The score's factor lacks the step: step / 2. A shorter step must move x less.")
def score_without_step(x, score, step, z):
    return _moved(x, score, z, 1 / 2, step**0.5)


@langevin_step.mistake("The score has no factor. It counts step / 2.")
def score_unscaled(x, score, step, z):
    return _moved(x, score, z, 1, step**0.5)


@langevin_step.mistake("You squared the step at the score: it is step / 2.")
def step_squared(x, score, step, z):
    return _moved(x, score, z, step**2 / 2, step**0.5)


@langevin_step.mistake("You multiplied z by step squared. step is a variance: z takes its root.")
def step_squared_at_the_noise(x, score, step, z):
    return _moved(x, score, z, step / 2, step**2)


@langevin_step.mistake("You doubled the noise: z takes sqrt(step). The 2 divides the score's factor, step / 2.")
def noise_doubled(x, score, step, z):
    return _moved(x, score, z, step / 2, 2 * step**0.5)


@langevin_step.mistake("You pull x towards 0, as if the score were -x. That is N(0, I)'s; use the score you are given.")
def score_of_a_standard_normal(x, score, step, z):
    return langevin_step(x, -x, step, z)


@langevin_step.mistake("The score is missing: x only diffuses. It is what keeps x where the density is.")
def score_missing(x, score, step, z):
    return _moved(x, score, z, 0, step**0.5)


@langevin_step.mistake("You returned how x moves. Asked for is where it arrives: x + ...")
def x_missing(x, score, step, z):
    return _moved(0 * x, score, z, step / 2, step**0.5)


@langevin_step.mistake("You subtracted the noise. As z is symmetric that would do as well, but eq. 4 adds it.")
def noise_subtracted(x, score, step, z):
    return langevin_step(x, score, step, -z)


@langevin_step.mistake(
    "You shrank x by sqrt(1 - step), as the forward process does. Here the score alone pulls x back."
)
def x_shrunk(x, score, step, z):
    return _moved((1 - step) ** 0.5 * x, score, z, step / 2, step**0.5)


@langevin_step.mistake("That is a step of the forward process: it leads to N(0, I). The score leads to q.")
def forward_step(x, score, step, z):
    return _moved((1 - step) ** 0.5 * x, score, z, 0, step**0.5)


@langevin_step.mistake(
    "You took step for the noise's deviation: step^2 / 2 and step. A usual convention, but here step is the variance."
)
def step_as_deviation(x, score, step, z):
    return _moved(x, score, z, step**2 / 2, step)


@langevin_step.mistake("You subtracted both terms. The score points to higher density: it is added.")
def both_subtracted(x, score, step, z):
    return langevin_step(x, -score, step, -z)


# 08.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "08.5",
    title="A classifier takes the wheel",
    hints=(
        "Bayes: log q(x_t | y) = log q(x_t) + log p(y | x_t) + a constant, so the gradient joins the score.",
        "score = -eps / sqrt(1 - alpha_bar_t). Add scale times the gradient to it and solve for the new eps.",
        "eps and score have opposite signs, so the gradient is subtracted: eps - scale sqrt(1 - alpha_bar_t) gradient.",
    ),
)
def guided_eps(eps: Tensor, gradient: Tensor, t: Tensor, scale: float, alpha_bar: Tensor) -> Tensor:
    """Change the predicted noise so that the chain goes where a classifier sees the class y.

    Dhariwal and Nichol 2021, algorithm 2 (their eq. 14), with a scale on the gradient: the score of q(x_t)
    becomes score + scale * gradient. How score and eps belong together is claim C21.

    eps: (b, ...), the predicted noise in x_t: points (b, d) or images (b, c, h, w).
    gradient: like eps, the gradient of log p(y | x_t) with respect to x_t.
    t: (b,), integers 1..T, each sample its own.
    scale: a number; 0 is no guidance.
    alpha_bar: (T + 1,), with alpha_bar[0] = 1.
    Returns the guided eps, like eps.
    """
    b = (1 - alpha_bar[t]).sqrt().view(-1, *[1] * (eps.ndim - 1))
    return eps - scale * b * gradient


@guided_eps.check
def test_guided_matches_algorithm_2(student, rng):
    """agrees with the guided eps of algorithm 2 on points and on images, each sample with its own t"""
    _, alpha_bar = schedule(rng)
    for (t, shape), scale in zip(points_and_images(rng, T=12), (2.5, 0.4, 6.0), strict=True):
        eps, gradient = normal(rng, *shape), normal(rng, *shape)
        agree(student.guided_eps(eps, gradient, t, scale, alpha_bar), guided_eps(eps, gradient, t, scale, alpha_bar))


@guided_eps.check
def test_guided_is_bayes(student, rng):
    """two Gaussians, each a class: with scale 1 and the exact p(y | x_t) it is the exact eps of class y; t = 1 too"""
    _, alpha_bar = schedule(rng)
    t = torch.tensor([1, 4, 12, 7, 1, 2])
    x_t, means = normal(rng, 6, 2), normal(rng, 2, 1, 2)
    a_bar, var = along(alpha_bar[t], x_t), along(0.3 * alpha_bar[t] + 1 - alpha_bar[t], x_t)
    away = x_t - a_bar.sqrt() * means  # (2, 6, 2): from the mean of each class
    p = (-away.square().sum(-1, keepdim=True) / (2 * var)).softmax(0)  # p(y | x_t), (2, 6, 1)
    score = -away / var
    mixed = (p * score).sum(0)
    eps, exact = -(1 - a_bar).sqrt() * mixed, -(1 - a_bar).sqrt() * score[0]
    agree(student.guided_eps(eps, score[0] - mixed, t, 1.0, alpha_bar), exact)


@guided_eps.check
def test_guided_by_nothing(student, rng):
    """scale 0 leaves eps as it is"""
    _, alpha_bar = schedule(rng)
    eps, gradient, t = normal(rng, 4, 2), normal(rng, 4, 2), times(rng, 4, T=12)
    agree(student.guided_eps(eps, gradient, t, 0.0, alpha_bar), eps)


def _b(t, x, alpha_bar):
    """sqrt(1 - alpha_bar_t), shaped to multiply x."""
    return along(1 - alpha_bar[t], x).sqrt()


@guided_eps.mistake(
    "You added the gradient to eps, which drives the chain away from the class: score = -eps / sqrt(1 - alpha_bar_t), "
    "so minus."
)
def gradient_added(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, -gradient, t, scale, alpha_bar)


@guided_eps.mistake("You multiplied by the variance 1 - alpha_bar_t. Between score and eps stands its root.")
def variance_on_gradient(eps, gradient, t, scale, alpha_bar):
    return eps - scale * along(1 - alpha_bar[t], eps) * gradient


@guided_eps.mistake(
    "Variance for deviation, and the sign: you added (1 - alpha_bar_t) gradient. It is -sqrt(1 - alpha_bar_t)."
)
def variance_added(eps, gradient, t, scale, alpha_bar):
    return eps + scale * along(1 - alpha_bar[t], eps) * gradient


@guided_eps.mistake(
    "You used alpha_t, one step's factor. eps is the noise of all t steps, so its score has sqrt(1 - alpha_bar_t)."
)
def alpha_for_alpha_bar(eps, gradient, t, scale, alpha_bar):
    return eps - scale * along(1 - alpha_bar[t] / alpha_bar[t - 1], eps).sqrt() * gradient


@guided_eps.mistake("scale is missing: it multiplies the gradient.")
def scale_dropped(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, gradient, t, 1.0, alpha_bar)


@guided_eps.mistake("You divided by scale. A larger scale must guide more: multiply.")
def divided_by_scale(eps, gradient, t, scale, alpha_bar):
    return eps - _b(t, eps, alpha_bar) * gradient / scale


@guided_eps.mistake("You squared scale. It multiplies the gradient as it is.")
def scale_squared(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, gradient, t, scale**2, alpha_bar)


@guided_eps.mistake("scale stands under the root. Only 1 - alpha_bar_t does.")
def scale_in_the_root(eps, gradient, t, scale, alpha_bar):
    return eps - (scale * along(1 - alpha_bar[t], eps)).sqrt() * gradient


@guided_eps.mistake("scale multiplies eps, too. It scales the gradient alone: brackets.")
def scale_on_both(eps, gradient, t, scale, alpha_bar):
    return scale * guided_eps(eps, gradient, t, 1.0, alpha_bar)


@guided_eps.mistake("scale multiplies eps. It belongs to the gradient.")
def scale_on_eps(eps, gradient, t, scale, alpha_bar):
    return scale * eps - _b(t, eps, alpha_bar) * gradient


@guided_eps.mistake(
    "You divided the gradient by sqrt(1 - alpha_bar_t). That leads from eps to score; the gradient goes back."
)
def divided_by_deviation(eps, gradient, t, scale, alpha_bar):
    return eps - scale * gradient / _b(t, eps, alpha_bar)


@guided_eps.mistake("You added the gradient, divided by sqrt(1 - alpha_bar_t). Subtract it, multiplied by that root.")
def divided_and_added(eps, gradient, t, scale, alpha_bar):
    return eps + scale * gradient / _b(t, eps, alpha_bar)


@guided_eps.mistake("The gradient lacks its factor sqrt(1 - alpha_bar_t): it joins the score, not eps.")
def gradient_as_it_is(eps, gradient, t, scale, alpha_bar):
    return eps - scale * gradient


@guided_eps.mistake("The gradient lacks its factor sqrt(1 - alpha_bar_t), and has the wrong sign.")
def gradient_as_it_is_added(eps, gradient, t, scale, alpha_bar):
    return eps + scale * gradient


@guided_eps.mistake("You used the signal's factor, sqrt(alpha_bar_t). The noise's is sqrt(1 - alpha_bar_t).")
def signal_on_gradient(eps, gradient, t, scale, alpha_bar):
    return eps - scale * along(alpha_bar[t], eps).sqrt() * gradient


@guided_eps.mistake("You multiplied by alpha_bar_t. Between score and eps stands sqrt(1 - alpha_bar_t).")
def alpha_bar_on_gradient(eps, gradient, t, scale, alpha_bar):
    return eps - scale * along(alpha_bar[t], eps) * gradient


@guided_eps.mistake("You wrote 1 - sqrt(alpha_bar_t). The root goes over all of it: sqrt(1 - alpha_bar_t).")
def root_over_alpha_bar_alone(eps, gradient, t, scale, alpha_bar):
    return eps - scale * (1 - along(alpha_bar[t], eps).sqrt()) * gradient


@guided_eps.mistake("That is the guided score. Asked for is eps: multiply by -sqrt(1 - alpha_bar_t).")
def score_returned(eps, gradient, t, scale, alpha_bar):
    return scale * gradient - eps / _b(t, eps, alpha_bar)


@guided_eps.mistake(
    "You took eps for the score. That is -eps / sqrt(1 - alpha_bar_t), and the result turns back into eps."
)
def eps_for_score(eps, gradient, t, scale, alpha_bar):
    return -_b(t, eps, alpha_bar) * (eps + scale * gradient)


@guided_eps.mistake("sqrt(1 - alpha_bar_t) multiplies eps, too. It belongs to the gradient alone.")
def deviation_on_both(eps, gradient, t, scale, alpha_bar):
    return _b(t, eps, alpha_bar) * (eps - scale * gradient)


@guided_eps.mistake("eps is missing: you returned the correction alone.")
def correction_alone(eps, gradient, t, scale, alpha_bar):
    return -scale * _b(t, eps, alpha_bar) * gradient


@guided_eps.mistake(
    "That is the rule of classifier-free guidance, which mixes two predicted eps. A gradient is no eps: scale and "
    "subtract it."
)
def classifier_free(eps, gradient, t, scale, alpha_bar):
    return eps + scale * (gradient - eps)


@guided_eps.mistake("eps is multiplied by 1 + scale, as in classifier-free guidance. Here eps stays as it is.")
def eps_amplified(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, gradient, t, scale, alpha_bar) + scale * eps


@guided_eps.mistake("eps is multiplied by 1 - scale. Guidance is no average of two: eps stays whole.")
def eps_faded(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, gradient, t, scale, alpha_bar) - scale * eps


@guided_eps.mistake(INDEX_BEFORE)
def guided_index_before(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, gradient, t - 1, scale, alpha_bar)


@guided_eps.mistake(FIRST_FOR_ALL)
def guided_first_for_all(eps, gradient, t, scale, alpha_bar):
    return guided_eps(eps, gradient, t[:1].expand_as(t), scale, alpha_bar)


@guided_eps.mistake(MEETS_LAST_AXIS)
def guided_meets_last_axis(eps, gradient, t, scale, alpha_bar):
    return eps - scale * (1 - alpha_bar[t]).sqrt() * gradient


@guided_eps.mistake(POINTS_ONLY)
def guided_points_only(eps, gradient, t, scale, alpha_bar):
    return eps - scale * (1 - alpha_bar[t]).sqrt()[:, None] * gradient
