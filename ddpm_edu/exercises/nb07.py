"""Notebook 07, training. Equations are those of DDPM (Ho et al. 2020); C17 and C18 are claims of the course.

Symbols: beta (T + 1,) with beta[0] = 0; alpha_bar (T + 1,) with alpha_bar[0] = 1; t (b,), integers 1..T;
x (b, ...), points or images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import along, linear, normal, points_and_images, schedule, times
from ddpm_edu.exercises.nb05 import INDEX_BEFORE, MEETS_LAST_AXIS, POINTS_ONLY, q_sample
from ddpm_edu.exercises.values import agree

# 07.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "07.1",
    title="From the noise back to the data",
    hints=(
        "Write eq. 4 as x_t = a x_0 + b eps and solve it for x_0.",
        "a = sqrt(alpha_bar_t), b = sqrt(1 - alpha_bar_t), each (b,) and to be given as many axes as x_t has.",
    ),
)
def x_0_from_eps(x_t: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Recover x_0 from x_t and the noise in it: eq. 4 solved for x_0. A network that predicts eps predicts x_0 by this.

    x_t: (b, ...), points (b, d) or images (b, c, h, w).
    t: (b,), integers 1..T, each sample its own.
    eps: like x_t, the whole noise between x_0 and x_t.
    alpha_bar: (T + 1,), with alpha_bar[0] = 1.
    Returns x_0, like x_t.
    """
    a_bar = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))
    return (x_t - (1 - a_bar).sqrt() * eps) / a_bar.sqrt()


@x_0_from_eps.check
def test_x_0_matches_eq_4_solved(student, rng):
    """agrees with eq. 4 solved for x_0, on points and on images, each sample with its own t"""
    _, alpha_bar = schedule(rng)
    for t, shape in points_and_images(rng, T=12):
        x_t, eps = normal(rng, *shape), normal(rng, *shape)
        agree(student.x_0_from_eps(x_t, t, eps, alpha_bar), x_0_from_eps(x_t, t, eps, alpha_bar))


@x_0_from_eps.check
def test_x_0_undoes_the_jump(student, rng):
    """takes x_t back to the very x_0 it was made from"""
    _, alpha_bar = schedule(rng)
    t, x_0, eps = times(rng, 6, T=12), normal(rng, 6, 1, 3, 3), normal(rng, 6, 1, 3, 3)
    agree(student.x_0_from_eps(q_sample(x_0, t, eps, alpha_bar), t, eps, alpha_bar), x_0)


@x_0_from_eps.mistake(
    "You left out both square roots: alpha_bar_t and 1 - alpha_bar_t are variances, eq. 4 takes their roots."
)
def no_roots_in_recovery(x_t, t, eps, alpha_bar):
    return (x_t - along(1 - alpha_bar[t], x_t) * eps) / along(alpha_bar[t], x_t)


@x_0_from_eps.mistake("You subtracted the noise but did not rescale: what is left is sqrt(alpha_bar_t) x_0.")
def not_rescaled(x_t, t, eps, alpha_bar):
    return x_t - along(1 - alpha_bar[t], x_t).sqrt() * eps


@x_0_from_eps.mistake(
    "You rescaled x_t alone. What is divided by sqrt(alpha_bar_t) is what is left after the noise is taken out."
)
def only_x_t_rescaled(x_t, t, eps, alpha_bar):
    a_bar = along(alpha_bar[t], x_t)
    return x_t / a_bar.sqrt() - (1 - a_bar).sqrt() * eps


@x_0_from_eps.mistake("You divided by alpha_bar_t. In eq. 4 x_0 is multiplied by its square root.")
def divided_by_alpha_bar(x_t, t, eps, alpha_bar):
    a_bar = along(alpha_bar[t], x_t)
    return (x_t - (1 - a_bar).sqrt() * eps) / a_bar


@x_0_from_eps.mistake(
    "You multiplied eps by 1 - alpha_bar_t. That is a variance; in x_t the noise is scaled by its square root."
)
def variance_of_noise(x_t, t, eps, alpha_bar):
    a_bar = along(alpha_bar[t], x_t)
    return (x_t - (1 - a_bar) * eps) / a_bar.sqrt()


@x_0_from_eps.mistake("You subtracted eps as it is. In x_t it is scaled by sqrt(1 - alpha_bar_t).")
def noise_not_scaled(x_t, t, eps, alpha_bar):
    return (x_t - eps) / along(alpha_bar[t], x_t).sqrt()


@x_0_from_eps.mistake("You added the noise once more. To get from x_t to x_0 it has to be subtracted.")
def noise_added(x_t, t, eps, alpha_bar):
    return x_0_from_eps(x_t, t, -eps, alpha_bar)


@x_0_from_eps.mistake(
    "You used alpha_t, one step's factor. eps is the whole noise since x_0, so alpha_bar_t belongs here."
)
def one_step_undone(x_t, t, eps, alpha_bar):
    alpha = along(alpha_bar[t] / alpha_bar[t - 1], x_t)
    return (x_t - (1 - alpha).sqrt() * eps) / alpha.sqrt()


@x_0_from_eps.mistake(INDEX_BEFORE)
def x_0_index_before(x_t, t, eps, alpha_bar):
    return x_0_from_eps(x_t, t - 1, eps, alpha_bar)


@x_0_from_eps.mistake(MEETS_LAST_AXIS)
def x_0_meets_last_axis(x_t, t, eps, alpha_bar):
    return (x_t - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()


@x_0_from_eps.mistake(POINTS_ONLY)
def x_0_points_only(x_t, t, eps, alpha_bar):
    a_bar = alpha_bar[t][:, None]
    return (x_t - (1 - a_bar).sqrt() * eps) / a_bar.sqrt()


# 07.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "07.2",
    title="The last step's share of the noise",
    hints=(
        "Given x_0, the last step's noise n = sqrt(beta_t) eps_t and x_t are jointly Gaussian: E[n | x_t] = Cov(n, "
        "x_t) / Var(x_t) * (x_t - E[x_t]).",
        "x_t contains n itself, so Cov(n, x_t) = Var(n) = beta_t. Given x_0, Var(x_t) = 1 - alpha_bar_t and x_t - "
        "E[x_t] = sqrt(1 - alpha_bar_t) eps.",
        "At t = 1 the last step is the only one: then the answer must be the whole noise, sqrt(beta_1) eps.",
    ),
)
def last_noise(t: Tensor, eps: Tensor, beta: Tensor, alpha_bar: Tensor) -> Tensor:
    """Compute E[sqrt(beta_t) eps_t | x_t, x_0]: the noise the last step, x_{t-1} to x_t, is expected to have added.

    eps is the whole noise, x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps; eps_t is the last step's own,
    x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps_t. How the two meet is claim C17.

    t: (b,), integers 1..T, each sample its own.
    eps: (b, ...), the whole noise.
    beta, alpha_bar: (T + 1,), with beta[0] = 0 and alpha_bar[0] = 1.
    Returns the expected noise of the last step, like eps.
    """
    share = beta[t] / (1 - alpha_bar[t]).sqrt()
    return share.view(-1, *[1] * (eps.ndim - 1)) * eps


@last_noise.check
def test_last_noise_matches_conditioning(student, rng):
    """agrees with Gaussian conditioning on points and on images, each sample with its own t"""
    beta, alpha_bar = schedule(rng)
    for t, shape in points_and_images(rng, T=12):
        eps = normal(rng, *shape)
        agree(student.last_noise(t, eps, beta, alpha_bar), last_noise(t, eps, beta, alpha_bar))


@last_noise.check
def test_last_noise_at_the_first_step(student, rng):
    """at t = 1 the last step is the only one: its noise is the whole noise"""
    beta, alpha_bar = schedule(rng)
    eps = normal(rng, 4, 3)
    agree(student.last_noise(torch.ones(4, dtype=torch.long), eps, beta, alpha_bar), beta[1].sqrt() * eps)


@last_noise.check
def test_last_noise_is_what_simulation_shows(student, rng):
    """in 20,000 simulated chains, what it leaves of the last step's noise has nothing to do with x_t"""
    beta, alpha_bar = schedule(rng, T=4)
    x = torch.zeros(4, 5000)  # x_0 = 0, so that x_t is noise alone
    for step in range(1, 5):
        added = beta[step].sqrt() * normal(rng, 4, 5000)
        x = (1 - beta[step]).sqrt() * x + added
    left = added - student.last_noise(torch.full((4,), 4), x / (1 - alpha_bar[4]).sqrt(), beta, alpha_bar)
    assert (left * x).mean().abs() < 6 * (left * x).std() / x.numel() ** 0.5  # 6 standard errors


@last_noise.mistake("That is the whole noise in x_t, sqrt(1 - alpha_bar_t) eps. The last step added only a part of it.")
def whole_noise(t, eps, beta, alpha_bar):
    return along(1 - alpha_bar[t], eps).sqrt() * eps


@last_noise.mistake(
    "You took eps for the last step's own noise. It is the noise of all t steps together; the last one has a share "
    "in it."
)
def eps_as_last(t, eps, beta, alpha_bar):
    return along(beta[t], eps).sqrt() * eps


@last_noise.mistake("That is the expected eps_t. What the step added is sqrt(beta_t) eps_t.")
def eps_t_itself(t, eps, beta, alpha_bar):
    return along(beta[t] / (1 - alpha_bar[t]), eps).sqrt() * eps


@last_noise.mistake(
    "You divided by 1 - alpha_bar_t and stopped there: x_t - E[x_t] is sqrt(1 - alpha_bar_t) eps, not eps."
)
def deviation_taken_for_eps(t, eps, beta, alpha_bar):
    return along(beta[t] / (1 - alpha_bar[t]), eps) * eps


@last_noise.mistake(
    "You returned beta_t eps, the covariance times eps: the division by the deviation of x_t, sqrt(1 - alpha_bar_t), "
    "is missing."
)
def not_divided(t, eps, beta, alpha_bar):
    return along(beta[t], eps) * eps


@last_noise.mistake("You divided by sqrt(alpha_bar_t), the signal's factor. The noise's is sqrt(1 - alpha_bar_t).")
def divided_by_signal(t, eps, beta, alpha_bar):
    return along(beta[t] / alpha_bar[t].sqrt(), eps) * eps


@last_noise.mistake("You divided by sqrt(1 - alpha_bar_{t-1}), the noise before the last step. At t = 1 that is 0.")
def divided_by_noise_before(t, eps, beta, alpha_bar):
    return along(beta[t] / (1 - alpha_bar[t - 1]).sqrt(), eps) * eps


@last_noise.mistake(
    "That is the whole step of the sampler: its division by sqrt(alpha_t) rescales x afterwards and is not noise."
)
def with_rescaling(t, eps, beta, alpha_bar):
    return along(beta[t] / ((1 - alpha_bar[t]) * (1 - beta[t])).sqrt(), eps) * eps


@last_noise.mistake(MEETS_LAST_AXIS)
def last_meets_last_axis(t, eps, beta, alpha_bar):
    return beta[t] / (1 - alpha_bar[t]).sqrt() * eps


# 07.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "07.3",
    title="The simple loss",
    hints=(
        "One number for the whole batch: average over the samples, and over the numbers in each of them.",
        "The mean of squares over every axis does both at once, whatever the shape.",
    ),
)
def simple_loss(eps: Tensor, eps_pred: Tensor) -> Tensor:
    """Compute the simple loss (eq. 14): the squared error of the predicted noise, averaged over the whole batch.

    A network that always answers 0 then has loss 1, for points and for images of any size.

    eps: (b, ...), the noise that was put in.
    eps_pred: like eps, what the network predicts.
    Returns the loss, a tensor of shape ().
    """
    return (eps - eps_pred).square().mean()


@simple_loss.check
def test_simple_loss_matches_eq_14(student, rng):
    """agrees with the mean squared error on points and on images"""
    for shape in [(4, 2), (3, 2, 5, 5), (6, 1, 4, 4)]:
        eps, eps_pred = normal(rng, *shape), normal(rng, *shape)
        agree(student.simple_loss(eps, eps_pred), simple_loss(eps, eps_pred))


@simple_loss.check
def test_simple_loss_of_guessing_zero(student, rng):
    """always guessing 0 costs 1, for a small batch of points and for a large one of images"""
    for shape in [(2, 2), (16, 1, 8, 8)]:
        eps = normal(rng, *shape)
        eps = eps / eps.square().mean().sqrt()
        agree(student.simple_loss(eps, torch.zeros(shape)), torch.tensor(1.0))


@simple_loss.mistake(
    "You summed where the mean belongs: the loss then grows with the batch and with the picture's size."
)
def summed(eps, eps_pred):
    return (eps - eps_pred).square().sum()


@simple_loss.mistake(
    "You summed over each sample and averaged over the batch: the loss then grows with the picture's size."
)
def summed_in_sample(eps, eps_pred):
    return (eps - eps_pred).square().flatten(1).sum(1).mean()


@simple_loss.mistake(
    "You averaged in each sample but summed over the batch: the loss, and so each step, then grows with the batch."
)
def summed_over_batch(eps, eps_pred):
    return (eps - eps_pred).square().flatten(1).mean(1).sum()


@simple_loss.mistake(
    "You averaged in each sample and stopped: training needs one number, so average over the batch as well."
)
def one_per_sample(eps, eps_pred):
    return (eps - eps_pred).square().flatten(1).mean(1)


@simple_loss.mistake("You returned the squares themselves. Training needs one number: their mean over every axis.")
def not_averaged(eps, eps_pred):
    return (eps - eps_pred).square()


@simple_loss.mistake(
    "You took absolute values. Eq. 14 has squares: only then is the best prediction the mean, E[eps | x_t]."
)
def absolute(eps, eps_pred):
    return (eps - eps_pred).abs().mean()


@simple_loss.mistake("You took a root at the end. Eq. 14 has none, and the root would change what a step counts for.")
def root(eps, eps_pred):
    return (eps - eps_pred).square().mean().sqrt()


@simple_loss.mistake("You averaged the differences before squaring: errors of opposite sign then cancel.")
def averaged_too_early(eps, eps_pred):
    return (eps - eps_pred).mean().square()


@simple_loss.mistake(
    "There is a factor 1/2 in yours. It belongs to the bound's weights (07.4), and the simple loss drops them."
)
def halved(eps, eps_pred):
    return 0.5 * (eps - eps_pred).square().mean()


# 07.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "07.4",
    title="The weight that the simple loss drops",
    hints=(
        "Both means have the noise form (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t), one with eps and "
        "one with its prediction. Subtract them.",
        "Square the difference and divide by 2 sigma_t^2: beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)). Here "
        "sigma_t^2 = beta_t.",
        "alpha_t = 1 - beta_t is one step's, alpha_bar_t is the product of all: the weight has both.",
    ),
)
def elbo_weight(t: Tensor, beta: Tensor, alpha_bar: Tensor) -> Tensor:
    """Compute the weight that the bound gives to the squared noise error at time t (C18):

    |mu_q - mu_theta|^2 / (2 sigma_t^2) = weight * |eps - eps_pred|^2, with sigma_t^2 = beta_t.

    t: (b,), integers 1..T, each sample its own.
    beta, alpha_bar: (T + 1,), with beta[0] = 0 and alpha_bar[0] = 1.
    Returns the weights, (b,).
    """
    return beta[t] ** 2 / (2 * beta[t] * (1 - beta[t]) * (1 - alpha_bar[t]))


@elbo_weight.check
def test_weight_matches_the_bound(student, rng):
    """agrees with the bound's weight for random schedules"""
    for T in (6, 12):
        beta, alpha_bar = schedule(rng, T)
        t = times(rng, 5, T)
        agree(student.elbo_weight(t, beta, alpha_bar), elbo_weight(t, beta, alpha_bar))


@elbo_weight.check
def test_weight_is_that_of_the_means(student, rng):
    """times the squared noise error it gives the distance of the two means over twice the variance"""
    beta, alpha_bar = schedule(rng)
    t, error = times(rng, 7, T=12), normal(rng, 7)
    mean = beta[t] / (1 - alpha_bar[t]).sqrt() * error / (1 - beta[t]).sqrt()
    agree(student.elbo_weight(t, beta, alpha_bar) * error**2, mean**2 / (2 * beta[t]))


@elbo_weight.check
def test_weight_favours_small_t(student, rng):
    """for the linear schedule, T = 1000, it falls from 1/2 at t = 1 to a fiftieth of that at t = 1000"""
    weight = student.elbo_weight(torch.tensor([1, 10, 100, 1000]), *linear())
    assert 0.49 < weight[0] < 0.51
    assert 0.01 < weight[3] < 0.011


@elbo_weight.mistake(
    "You left out sigma_t^2 = beta_t in the denominator: the squared distance is divided by 2 sigma_t^2."
)
def sigma_missing(t, beta, alpha_bar):
    return elbo_weight(t, beta, alpha_bar) * beta[t]


@elbo_weight.mistake("The factor 2 is missing: a Gaussian's log-density has 1 / (2 sigma^2) in it.")
def two_missing(t, beta, alpha_bar):
    return 2 * elbo_weight(t, beta, alpha_bar)


@elbo_weight.mistake("You squared sigma_t^2 once more. Given is the variance, sigma_t^2 = beta_t, not the deviation.")
def variance_squared(t, beta, alpha_bar):
    return 1 / (2 * (1 - beta[t]) * (1 - alpha_bar[t]))


@elbo_weight.mistake("You used alpha_bar_t for alpha_t. The mean is rescaled by this one step's sqrt(alpha_t).")
def alpha_bar_for_alpha(t, beta, alpha_bar):
    return beta[t] / (2 * alpha_bar[t] * (1 - alpha_bar[t]))


@elbo_weight.mistake(
    "alpha_t is missing: both means are divided by sqrt(alpha_t), so their squared distance by alpha_t."
)
def alpha_missing(t, beta, alpha_bar):
    return beta[t] / (2 * (1 - alpha_bar[t]))


@elbo_weight.mistake("1 - alpha_bar_t is missing: in the means eps has the factor beta_t / sqrt(1 - alpha_bar_t).")
def noise_missing(t, beta, alpha_bar):
    return beta[t] / (2 * (1 - beta[t]))


@elbo_weight.mistake(
    "You kept the roots: the distance of the means is squared, so sqrt(alpha_t) and sqrt(1 - alpha_bar_t) lose theirs."
)
def roots_kept(t, beta, alpha_bar):
    return beta[t] / (2 * ((1 - beta[t]) * (1 - alpha_bar[t])).sqrt())


@elbo_weight.mistake("You left beta_t unsquared above: with sigma_t^2 = beta_t, one of the two cancels and one stays.")
def beta_cancelled(t, beta, alpha_bar):
    return beta[t] / (2 * beta[t] * (1 - beta[t]) * (1 - alpha_bar[t]) ** 0.5)


@elbo_weight.mistake("A weight of 1 at every t is the simple loss. Asked for is what it leaves out.")
def simple(t, beta, alpha_bar):
    return torch.ones_like(beta[t])


@elbo_weight.mistake(
    "You used the posterior's variance for sigma_t^2. Here it is beta_t; the posterior's is 0 at t = 1."
)
def posterior_variance(t, beta, alpha_bar):
    sigma_2 = beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    return beta[t] ** 2 / (2 * sigma_2 * (1 - beta[t]) * (1 - alpha_bar[t]))


@elbo_weight.mistake(INDEX_BEFORE)
def weight_index_before(t, beta, alpha_bar):
    return elbo_weight(t - 1, beta, alpha_bar)


# 07.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "07.5",
    title="The moving average of the weights",
    hints=(
        "An average of old and new: the factors decay and 1 - decay add up to 1, and decay is close to 1.",
        "zip(ema, params) walks through both lists; build a new list, leave the old ones as they are.",
    ),
)
def ema_update(ema: list[Tensor], params: list[Tensor], decay: float) -> list[Tensor]:
    """Compute the exponential moving average of a network's weights after one more training step.

    ema: the average so far, a list of tensors.
    params: the weights now, tensors of the same shapes.
    decay: how much of the old average stays, 0..1; 0.999 is usual.
    Returns the new average, a new list; neither argument is changed.
    """
    return [decay * average + (1 - decay) * now for average, now in zip(ema, params, strict=True)]


def weights(rng: torch.Generator) -> list[Tensor]:
    return [normal(rng, 3, 2), normal(rng, 3), normal(rng, 2, 1, 3, 3)]


@ema_update.check
def test_ema_averages(student, rng):
    """agrees with the moving average for several decays, on every tensor of the list"""
    for decay in (0.3, 0.9, 0.5 + 0.4 * torch.rand((), generator=rng).item()):
        ema, params = weights(rng), weights(rng)
        agree(student.ema_update(ema, params, decay), ema_update(ema, params, decay))


@ema_update.check
def test_ema_forgets_by_decay(student, rng):
    """with weights that stand still, their distance to the average shrinks by decay at each step"""
    start, params = weights(rng), weights(rng)
    ema = start
    for _ in range(5):
        ema = student.ema_update(ema, params, 0.8)
    for now, before, target in zip(ema, start, params, strict=True):
        agree(now, target + 0.8**5 * (before - target))


@ema_update.mistake(
    "decay and 1 - decay have changed places: decay is what stays of the old average, nearly all of it."
)
def factors_swapped(ema, params, decay):
    return ema_update(params, ema, decay)


@ema_update.mistake(
    "Your values are right, but the old average was changed in place. Build new tensors: decay * old + (1 - decay) * "
    "new."
)
def in_place(ema, params, decay):
    for average, now in zip(ema, params, strict=True):
        average.mul_(decay).add_(now, alpha=1 - decay)
    return ema


@ema_update.mistake("The new weights lack their factor 1 - decay: the average would grow at every step.")
def new_not_scaled(ema, params, decay):
    return [decay * average + now for average, now in zip(ema, params, strict=True)]


@ema_update.mistake("The old average lacks its factor decay: the average would grow at every step.")
def old_not_scaled(ema, params, decay):
    return [average + (1 - decay) * now for average, now in zip(ema, params, strict=True)]


@ema_update.mistake("You gave old and new the same share, 1/2 each. decay says how much of the old stays.")
def plain_mean(ema, params, decay):
    return ema_update(ema, params, 0.5)


@ema_update.mistake("You returned the weights themselves: that is training without an average.")
def weights_themselves(ema, params, decay):
    return params


@ema_update.mistake("You averaged the first tensor only. A network is a list of them, and all are averaged.")
def first_only(ema, params, decay):
    return [*ema_update(ema[:1], params[:1], decay), *ema[1:]]


@ema_update.mistake("You moved away from the new weights: the average goes towards them, by a share of 1 - decay.")
def wrong_way(ema, params, decay):
    return [average - (1 - decay) * (now - average) for average, now in zip(ema, params, strict=True)]


# 07.6 ---------------------------------------------------------------------------------------------------------------
# The clinic: notebook 07 trains three networks with the faults named in CAUSES. To change a case, change these tables
# and what stands in `diagnose`: its statement and its answer are what a learner reads, so they are written out.

FAULTS = {
    "x_0 read as eps": "the network was trained on x_0, and the sampler takes its answer for eps",
    "noise drawn twice": "the target eps is drawn anew after x_t was made",
    "pixels in 0..1": "the pictures were not brought to -1..1 before training",
    "learning rate too high": "the optimizer's steps are a hundred times too large",
    "t not passed": "the network does not see t",
    "average not used": "samples are drawn with the last weights, not with their average",
}
SYMPTOMS = {
    "A": "the loss falls as it should, the samples are noise",
    "B": "the loss stays at 1, the samples are noise",
    "C": "the loss falls as it should, the samples are digits on grey",
}
CAUSES = {"A": "x_0 read as eps", "B": "noise drawn twice", "C": "pixels in 0..1"}


@exercise(
    "07.6",
    title="The symptom clinic",
    hints=(
        "A loss that falls shows that the network learns what it is asked. Then the fault lies outside the loss: in "
        "the data or in the sampler.",
        "What does a network answer that cannot know its target, because nothing it sees depends on it? What is its "
        "loss?",
        "The decoder takes -1 for black and 1 for white. What does it make of 0?",
    ),
)
def diagnose(symptom: str) -> str:
    """Find the one-line fault in each of the three broken trainings above.

    symptom: "A", "B" or "C", the training whose loss and samples you saw.
    Returns the fault, one of
        "x_0 read as eps": the network was trained on x_0, and the sampler takes its answer for eps,
        "noise drawn twice": the target eps is drawn anew after x_t was made,
        "pixels in 0..1": the pictures were not brought to -1..1 before training,
        "learning rate too high": the optimizer's steps are a hundred times too large,
        "t not passed": the network does not see t,
        "average not used": samples are drawn with the last weights, not with their average.
    """
    return {"A": "x_0 read as eps", "B": "noise drawn twice", "C": "pixels in 0..1"}[symptom]


@diagnose.check
def test_case_a(student, rng):
    """A: the loss falls as it should, the samples are noise"""
    agree(student.diagnose("A"), CAUSES["A"])


@diagnose.check
def test_case_b(student, rng):
    """B: the loss stays at 1, the samples are noise"""
    agree(student.diagnose("B"), CAUSES["B"])


@diagnose.check
def test_case_c(student, rng):
    """C: the loss falls as it should, the samples are digits on grey"""
    agree(student.diagnose("C"), CAUSES["C"])


# Each wrong match of a case with a fault, and what speaks against it.
_AGAINST = {
    ("A", "noise drawn twice"): (
        "A's loss falls. With a target that x_t does not contain, nothing could be learned and it would stay at 1."
    ),
    ("A", "pixels in 0..1"): (
        "A's samples are noise. With pixels in 0..1 training and sampling agree, and digits would come out, on grey."
    ),
    ("A", "learning rate too high"): "A's loss falls as it should. Steps too large would let it jump about or grow.",
    ("A", "t not passed"): (
        "Without t a network still guesses the noise level from x_t: samples get worse, but digits remain. A's are "
        "noise."
    ),
    ("A", "average not used"): (
        "The last weights are a little rougher than their average: strokes get ragged, but A's samples are noise."
    ),
    ("B", "x_0 read as eps"): (
        "B's loss stays at 1. Trained on x_0 the network learns well and its loss falls; the harm is done in the "
        "sampler."
    ),
    ("B", "pixels in 0..1"): (
        "B's loss stays at 1. With pixels in 0..1 the noise is found as easily, and the loss falls."
    ),
    ("B", "learning rate too high"): (
        "Steps too large make the loss jump or grow. B's stays at 1, the price of always guessing 0."
    ),
    ("B", "t not passed"): (
        "B's loss stays at 1. Without t a network still sees from x_t how noisy it is, and the loss falls."
    ),
    ("B", "average not used"): (
        "The average changes the weights samples are drawn with, not the loss. B's loss stays at 1."
    ),
    ("C", "x_0 read as eps"): (
        "C's samples are digits. With its answer taken for the wrong thing, the sampler would arrive at noise."
    ),
    ("C", "noise drawn twice"): "C's loss falls. With a target that x_t does not contain it would stay at 1.",
    ("C", "learning rate too high"): "C's loss falls as it should. Steps too large would let it jump about or grow.",
    ("C", "t not passed"): (
        "Without t the strokes get worse, but black stays black. C's digits are good, and their ground is grey."
    ),
    ("C", "average not used"): "The average makes strokes smoother. It does not turn black to grey.",
}


def _mismatch(case: str, fault: str) -> None:
    def wrong(symptom: str) -> str:
        return fault if symptom == case else diagnose(symptom)

    wrong.__name__ = f"{case}_is_{fault}".replace(" ", "_").replace(".", "")
    diagnose.mistake(_AGAINST[case, fault])(wrong)


for _case, _fault in _AGAINST:
    _mismatch(_case, _fault)
