"""Notebook 03, variational autoencoders (Kingma and Welling 2014; Rezende et al. 2014). C07 to C09 are claims of the
course.

Symbols: q(z | x) = N(m, diag(exp(s))), with mean m and log_var s, (b, d) each; p(z) = N(0, I); k draws of z for one x.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

# 03.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "03.1",
    title="The divergence from the prior",
    hints=(
        "One element first: 1/2 (variance + mean^2 - 1 - log variance). What is the variance, when s is its logarithm?",
        "Elements are independent, so their divergences add: a sum over the last axis, one number for each sample.",
    ),
)
def kl_to_prior(mean: Tensor, log_var: Tensor) -> Tensor:
    """Compute KL(q || p) for q = N(mean, diag(exp(log_var))) and the prior p = N(0, I), in nats.

    mean: (b, d).
    log_var: (b, d), the logarithms of the variances.
    Returns one divergence for each sample, (b,).
    """
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1)


@kl_to_prior.check
def test_kl_matches_the_closed_form(student, rng):
    """agrees with the closed form, for several numbers of elements"""
    for shape in [(5, 3), (4, 1), (3, 3), (2, 8)]:
        mean, log_var = normal(rng, *shape), normal(rng, *shape)
        agree(student.kl_to_prior(mean, log_var), kl_to_prior(mean, log_var))


@kl_to_prior.check
def test_kl_is_zero_for_the_prior_itself(student, rng):
    """is 0 where q is the prior, and above 0 near it, on every side"""
    near = 0.2 * torch.cat([torch.eye(4), -torch.eye(4)])
    at = torch.cat([torch.zeros(1, 4), near])
    assert (student.kl_to_prior(torch.zeros(1, 4), torch.zeros(1, 4)).abs() < 1e-6).all()
    agree(student.kl_to_prior(at[:, :2], at[:, 2:]) > 1e-3, torch.arange(9) > 0)


@kl_to_prior.check
def test_kl_is_what_draws_say(student, rng):
    """20,000 draws of log q - log p average to it"""
    mean, log_var, eps = normal(rng, 1, 2), normal(rng, 1, 2), normal(rng, 20_000, 2)
    z = mean + (log_var / 2).exp() * eps
    log_ratio = 0.5 * (z**2 - eps**2 - log_var).sum(1)
    off = log_ratio.mean() - student.kl_to_prior(mean, log_var)[0]
    assert off.abs() < 6 * log_ratio.std() / len(log_ratio) ** 0.5  # 6 standard errors


@kl_to_prior.mistake("The factor 1/2 is missing: it comes from the exponent of the normal density.")
def half_missing(mean, log_var):
    return 2 * kl_to_prior(mean, log_var)


@kl_to_prior.mistake("You averaged over the elements. They are independent, so their divergences add.")
def averaged_over_elements(mean, log_var):
    return kl_to_prior(mean, log_var) / mean.shape[1]


@kl_to_prior.mistake(
    "You read log_var as the logarithm of the deviation and squared it. It is that of the variance: exp(log_var) as "
    "it is."
)
def log_deviation(mean, log_var):
    return kl_to_prior(mean, 2 * log_var)


@kl_to_prior.mistake("You put the deviation, exp(log_var / 2), where the variance exp(log_var) belongs.")
def deviation_for_variance(mean, log_var):
    return 0.5 * ((log_var / 2).exp() + mean**2 - 1 - log_var).sum(1)


@kl_to_prior.mistake("You read log_var as the variance itself. It may be negative, and its logarithm is NaN there.")
def variance_itself(mean, log_var):
    return 0.5 * (log_var + mean**2 - 1 - log_var.log()).sum(1)


@kl_to_prior.mistake("Your sign is wrong: a divergence is 0 or more, and the loss grows with it.")
def sign_flipped(mean, log_var):
    return -kl_to_prior(mean, log_var)


@kl_to_prior.mistake("The sign of log_var is wrong: with + log_var the least is not at the prior, log_var = 0.")
def log_var_added(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 + log_var).sum(1)


@kl_to_prior.mistake("The mean is missing: q may also differ from the prior by where it lies.")
def mean_missing(mean, log_var):
    return kl_to_prior(0 * mean, log_var)


@kl_to_prior.mistake("You added the mean as it is. Its square counts: left and right of 0 cost alike.")
def mean_not_squared(mean, log_var):
    return 0.5 * (log_var.exp() + mean - 1 - log_var).sum(1)


@kl_to_prior.mistake("The -1 is missing: q = p would then cost 1/2 for each element instead of 0.")
def one_missing(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - log_var).sum(1)


@kl_to_prior.mistake("That is KL(p || q). The bound has q, whose samples we take, in front.")
def other_way_round(mean, log_var):
    return 0.5 * ((1 + mean**2) * (-log_var).exp() - 1 + log_var).sum(1)


@kl_to_prior.mistake("You summed over the batch as well. Each sample has its own divergence: sum over the last axis.")
def summed_over_batch(mean, log_var):
    return kl_to_prior(mean, log_var).sum()


@kl_to_prior.mistake("You averaged over the batch. Each sample has its own divergence; averaging comes later.")
def averaged_over_batch(mean, log_var):
    return kl_to_prior(mean, log_var).mean()


@kl_to_prior.mistake("You averaged over everything. Sum over the elements, and leave the batch as it is.")
def averaged_over_all(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var).mean()


@kl_to_prior.mistake("You did not sum: the elements of one sample add up to its one divergence.")
def not_summed(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var)


@kl_to_prior.mistake("You summed over the batch axis. The elements of a sample lie along the last.")
def wrong_axis(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(0)


@kl_to_prior.mistake(
    "The factor -1/2 before the sum is missing: with 1 + s - m^2 - exp(s) inside, it makes the rest positive."
)
def minus_half_missing(mean, log_var):
    return -2 * kl_to_prior(mean, log_var)


@kl_to_prior.mistake("1/2 multiplies all four terms, not exp(log_var) alone.")
def half_on_the_first_term(mean, log_var):
    return (0.5 * log_var.exp() + mean**2 - 1 - log_var).sum(1)


@kl_to_prior.mistake("The -1 comes once for each element of z, not once for each sample.")
def one_for_a_sample(mean, log_var):
    return 0.5 * ((log_var.exp() + mean**2 - log_var).sum(1) - 1)


@kl_to_prior.mistake("+1 where -1 belongs: q = p would then cost 1 for each element instead of 0.")
def plus_one(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 + 1 - log_var).sum(1)


@kl_to_prior.mistake("The square of the mean is added: a q far from the prior costs more.")
def mean_subtracted(mean, log_var):
    return 0.5 * (log_var.exp() - mean**2 - 1 - log_var).sum(1)


@kl_to_prior.mistake("You squared exp(log_var). It is the variance already.")
def variance_squared(mean, log_var):
    return 0.5 * (log_var.exp() ** 2 + mean**2 - 1 - log_var).sum(1)


@kl_to_prior.mistake("You subtracted 2 log_var. log_var is the logarithm of the variance, so it comes once.")
def log_var_twice(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 - 2 * log_var).sum(1)


# 03.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "03.2",
    title="A tighter bound from k draws",
    hints=(
        "The bound is log((w_1 + ... + w_k) / k) for each sample, and given are the log w_i.",
        "torch.logsumexp(x, dim=0) is log(sum(exp(x))) without overflow. The division by k is then a subtraction.",
    ),
)
def iwae_bound(log_weights: Tensor) -> Tensor:
    """Compute the importance-weighted bound on log p(x), log (1/k) sum_i w_i  (Burda et al. 2016, eq. 8).

    log_weights: (k, b), log w_i = log p(x, z_i) - log q(z_i | x) of k draws z_i ~ q(z | x), for each of b samples.
        On pictures they are numbers like -900: in a computer exp of them is 0.
    Returns the bound for each sample, in nats, (b,).
    """
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))


@iwae_bound.check
def test_iwae_matches_eq_8(student, rng):
    """agrees with the logarithm of the mean weight"""
    for shape in [(5, 3), (2, 4), (4, 4)]:
        log_weights = 2 * normal(rng, *shape) - 1
        agree(student.iwae_bound(log_weights), log_weights.double().exp().mean(0).log())


@iwae_bound.check
def test_iwae_with_one_draw_is_the_elbo(student, rng):
    """one draw leaves its log weight; k equal ones as well"""
    one = normal(rng, 1, 6)
    agree(student.iwae_bound(one), one[0])
    agree(student.iwae_bound(one.expand(7, 6)), one[0])


@iwae_bound.check
def test_iwae_of_pictures(student, rng):
    """stays exact for log weights about -900, as pictures have them"""
    log_weights = normal(rng, 4, 3)
    agree(student.iwae_bound(log_weights - 900), iwae_bound(log_weights) - 900, rtol=1e-6)


@iwae_bound.mistake(
    "You averaged the logarithms: that is the ELBO again, whatever k. Take the logarithm of the average."
)
def mean_of_logs(log_weights):
    return log_weights.mean(0)


@iwae_bound.mistake("You did not divide by k: the bound would grow by log k without end, past log p(x).")
def k_missing(log_weights):
    return torch.logsumexp(log_weights, 0)


@iwae_bound.mistake("You added log k. The weights are averaged: their sum is divided by k.")
def k_added(log_weights):
    return torch.logsumexp(log_weights, 0) + math.log(len(log_weights))


@iwae_bound.mistake("You divided by k after the logarithm. What is averaged are the weights, not their logarithm.")
def k_after_the_log(log_weights):
    return torch.logsumexp(log_weights, 0) / len(log_weights)


@iwae_bound.mistake("You subtracted k, not log k: dividing by k inside a logarithm subtracts log k.")
def k_for_log_k(log_weights):
    return torch.logsumexp(log_weights, 0) - len(log_weights)


@iwae_bound.mistake("You averaged over the last axis, the samples. The k draws of one sample lie along the first.")
def over_the_batch(log_weights):
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


@iwae_bound.mistake("You divided by the number of samples b. The weights of one sample are k.")
def divided_by_b(log_weights):
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[1])


@iwae_bound.mistake("You averaged over samples and draws together. Each sample has its own bound.")
def over_everything(log_weights):
    return torch.logsumexp(log_weights, (0, 1)) - math.log(log_weights.numel())


@iwae_bound.mistake("You returned the mean weight. The bound is its logarithm.")
def log_missing(log_weights):
    return log_weights.exp().mean(0)


@iwae_bound.mistake(
    "Right on paper, but exp(-900) is 0 in a computer and its logarithm -inf. torch.logsumexp does it without overflow."
)
def underflows(log_weights):
    return log_weights.exp().mean(0).log()


@iwae_bound.mistake("You took the largest log weight. The bound has the mean of all k weights.")
def largest(log_weights):
    return log_weights.max(0).values


@iwae_bound.mistake(
    "You averaged log weights, each by its share of the weights. The bound is the logarithm of the plain mean weight."
)
def self_normalised(log_weights):
    return (log_weights.softmax(0) * log_weights).sum(0)


@iwae_bound.mistake("Your sign is wrong. The bound is the logarithm of the mean weight; a loss would be its negative.")
def loss_for_bound(log_weights):
    return -iwae_bound(log_weights)


@iwae_bound.mistake(
    "You averaged the logarithms and subtracted log k as well. Sum the weights, then take one logarithm."
)
def mean_of_logs_minus_log_k(log_weights):
    return log_weights.mean(0) - math.log(len(log_weights))


@iwae_bound.mistake(
    "You added up the logarithms: that is the logarithm of the product. Add the weights, then take the logarithm."
)
def sum_of_logs(log_weights):
    return log_weights.sum(0)


@iwae_bound.mistake("You divided the log weights by k. Divide the weights: that subtracts log k from their logarithms.")
def logs_divided_by_k(log_weights):
    return torch.logsumexp(log_weights / len(log_weights), 0)


# 03.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "03.3",
    title="Reparameterise",
    hints=(
        "A draw of N(m, sigma^2) is m + sigma * eps, with the deviation sigma.",
        "s = log sigma^2 = 2 log sigma. So sigma = exp(s / 2).",
    ),
)
def reparameterise(mean: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """Draw z ~ N(mean, diag(exp(log_var))) as a function of the two heads, with the noise given.

    mean: (b, ...).
    log_var: (b, ...), the logarithms of the variances.
    eps: (b, ...), standard normal noise.
    Returns z, like mean.
    """
    return mean + (log_var / 2).exp() * eps


@reparameterise.check
def test_reparameterise_matches(student, rng):
    """agrees with mean + deviation * eps, for vectors and for latents that are pictures"""
    for shape in [(5, 3), (3, 3), (4, 2, 3, 3)]:
        mean, log_var, eps = normal(rng, *shape), normal(rng, *shape), normal(rng, *shape)
        agree(student.reparameterise(mean, log_var, eps), reparameterise(mean, log_var, eps))


@reparameterise.check
def test_reparameterise_has_the_variance_it_says(student, rng):
    """draws with eps = 1 and eps = -1 lie exp(log_var / 2) to both sides of the mean"""
    mean, log_var = normal(rng, 6, 2), normal(rng, 6, 2)
    up, down = (student.reparameterise(mean, log_var, sign * torch.ones(6, 2)) for sign in (1.0, -1.0))
    agree(((up - down) / 2) ** 2, log_var.exp())
    agree((up + down) / 2, mean)


@reparameterise.mistake(
    "exp(log_var) is the variance. Noise is multiplied by the deviation, its root: exp(log_var / 2)."
)
def variance_times_eps(mean, log_var, eps):
    return mean + log_var.exp() * eps


@reparameterise.mistake("You took the root of log_var, which may be negative. The variance is exp(log_var).")
def root_of_log(mean, log_var, eps):
    return mean + log_var.sqrt() * eps


@reparameterise.mistake("You multiplied by log_var itself. It is a logarithm: the deviation is exp(log_var / 2).")
def log_itself(mean, log_var, eps):
    return mean + log_var * eps


@reparameterise.mistake("You halved the logarithm but did not take exp: the deviation is exp(log_var / 2).")
def exp_missing(mean, log_var, eps):
    return mean + log_var / 2 * eps


@reparameterise.mistake("You doubled log_var where it is to be halved: a deviation is the root of the variance.")
def doubled(mean, log_var, eps):
    return mean + (2 * log_var).exp() * eps


@reparameterise.mistake(
    "You halved the variance. Its root is asked for, and that halves the logarithm: exp(log_var / 2)."
)
def half_the_variance(mean, log_var, eps):
    return mean + log_var.exp() / 2 * eps


@reparameterise.mistake("You left out the deviation: eps alone has variance 1, whatever the encoder says.")
def unit_variance(mean, log_var, eps):
    return mean + eps


@reparameterise.mistake("The mean is missing: z then says nothing of where its x lies.")
def centred(mean, log_var, eps):
    return (log_var / 2).exp() * eps


@reparameterise.mistake("You multiplied the mean and the noise. The noise is added to the mean.")
def mean_times_noise(mean, log_var, eps):
    return mean * (log_var / 2).exp() * eps


@reparameterise.mistake("You scaled the mean as well. Only the noise is multiplied by the deviation.")
def mean_scaled(mean, log_var, eps):
    return (log_var / 2).exp() * (mean + eps)


@reparameterise.mistake("You used the first sample's noise for the whole batch. Each sample has its own.")
def one_noise_for_all(mean, log_var, eps):
    return reparameterise(mean, log_var, eps[:1].expand_as(eps))


@reparameterise.mistake("You used one number of noise for all elements of a sample. Each element has its own.")
def one_noise_for_elements(mean, log_var, eps):
    return reparameterise(mean, log_var, eps[:, :1].expand_as(eps))


@reparameterise.mistake("You took the negative of log_var: that is the precision's root, 1 / deviation.")
def precision(mean, log_var, eps):
    return reparameterise(mean, -log_var, eps)


@reparameterise.mistake("You returned the mean alone: without the noise there is no draw, and q has no width.")
def no_noise(mean, log_var, eps):
    return mean + 0 * eps


@reparameterise.mistake("You subtracted the noise. A histogram does not show it, but the noise given is to be added.")
def subtracted(mean, log_var, eps):
    return reparameterise(mean, log_var, -eps)


@reparameterise.mistake(
    "eps is missing: you moved every draw by one deviation. The noise says how many deviations, and which way."
)
def always_one_deviation(mean, log_var, eps):
    return mean + (log_var / 2).exp()


@reparameterise.mistake("You added the deviation and the noise. The deviation multiplies the noise.")
def deviation_added(mean, log_var, eps):
    return mean + (log_var / 2).exp() + eps


@reparameterise.mistake("The noise got into the exponent. It is multiplied by the deviation: exp(log_var / 2) * eps.")
def noise_in_the_exponent(mean, log_var, eps):
    return mean + (log_var / 2 * eps).exp()


@reparameterise.mistake("You exchanged the heads: mean is added, log_var makes the deviation.")
def heads_exchanged(mean, log_var, eps):
    return log_var + (mean / 2).exp() * eps


# 03.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "03.4",
    title="The log-likelihood of a reconstruction",
    hints=(
        "One element: log N(x; y, sigma^2) = -(x - y)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2.",
        "Elements are independent: sum over all axes but the first. Flatten what comes after it, x.flatten(1).",
        "The last two terms come once for every element.",
    ),
)
def gaussian_log_prob(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Compute log p(x | z) = log N(x; y, sigma^2 I), where y is what the decoder makes of z. In nats.

    x: (b, ...), points or images.
    y: like x, the decoder's output.
    sigma: the decoder's deviation, the same for every element.
    Returns one log-likelihood for each sample, (b,).
    """
    element = -((x - y) ** 2) / (2 * sigma**2) - math.log(sigma) - 0.5 * math.log(2 * math.pi)
    return element.flatten(1).sum(1)


@gaussian_log_prob.check
def test_gaussian_matches_the_density(student, rng):
    """agrees with the normal density, on points and on images, at several sigma"""
    for shape, sigma in [((4, 2), 0.3), ((3, 1, 4, 4), 0.7), ((5, 5), 1.9)]:
        x, y = normal(rng, *shape), normal(rng, *shape)
        agree(student.gaussian_log_prob(x, y, sigma), gaussian_log_prob(x, y, sigma))


@gaussian_log_prob.check
def test_gaussian_is_a_density(student, rng):
    """its exponential integrates to 1 over x"""
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    for sigma in (0.4, 1.5):
        total = student.gaussian_log_prob(x, torch.full_like(x, 0.5), sigma).exp().sum() * (x[1] - x[0])
        agree(total, torch.ones(1), rtol=1e-3)


@gaussian_log_prob.check
def test_gaussian_adds_up_over_elements(student, rng):
    """twice the elements, twice the log-likelihood"""
    x, y = normal(rng, 3, 4), normal(rng, 3, 4)
    twice = student.gaussian_log_prob(torch.cat([x, x], 1), torch.cat([y, y], 1), 0.6)
    agree(twice, 2 * student.gaussian_log_prob(x, y, 0.6))


@gaussian_log_prob.mistake(
    "You averaged over the elements. Independent elements multiply their densities: their logarithms add."
)
def averaged(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) / x[0].numel()


@gaussian_log_prob.mistake("That is the squared error, weighted: the log sigma and log(2 pi) / 2 of each are missing.")
def constants_missing(x, y, sigma):
    return -((x - y) ** 2).flatten(1).sum(1) / (2 * sigma**2)


@gaussian_log_prob.mistake("log(2 pi) / 2 is missing, once for each element.")
def two_pi_missing(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) + 0.5 * math.log(2 * math.pi) * x[0].numel()


@gaussian_log_prob.mistake("log sigma is missing. Without it the largest sigma would always be the best.")
def log_sigma_missing(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) + math.log(sigma) * x[0].numel()


@gaussian_log_prob.mistake("The constants come once for each element, not once for each sample.")
def constants_once(x, y, sigma):
    return constants_missing(x, y, sigma) - math.log(sigma) - 0.5 * math.log(2 * math.pi)


@gaussian_log_prob.mistake("You read sigma as the variance. It is the deviation: the squared error is over 2 sigma^2.")
def sigma_is_variance(x, y, sigma):
    return gaussian_log_prob(x, y, sigma**0.5)


@gaussian_log_prob.mistake("You divided the squared error by 2 sigma. It is divided by twice the variance, 2 sigma^2.")
def sigma_not_squared(x, y, sigma):
    element = -((x - y) ** 2) / (2 * sigma) - math.log(sigma) - 0.5 * math.log(2 * math.pi)
    return element.flatten(1).sum(1)


@gaussian_log_prob.mistake("The factor 1/2 of the squared error is missing: it is divided by 2 sigma^2.")
def two_missing(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) + constants_missing(x, y, sigma)


@gaussian_log_prob.mistake("You have log sigma^2 where log sigma belongs: half the logarithm of the variance.")
def log_variance_whole(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) - math.log(sigma) * x[0].numel()


@gaussian_log_prob.mistake("You have log(2 pi) where half of it belongs: it stands under the root.")
def log_two_pi_whole(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) - 0.5 * math.log(2 * math.pi) * x[0].numel()


@gaussian_log_prob.mistake("The sign is wrong: that is the negative log-likelihood, a loss.")
def negative(x, y, sigma):
    return -gaussian_log_prob(x, y, sigma)


@gaussian_log_prob.mistake("log sigma has the wrong sign: a wide density is a low one.")
def log_sigma_added(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) + 2 * math.log(sigma) * x[0].numel()


@gaussian_log_prob.mistake("You summed over the batch as well. Each sample has its own log-likelihood.")
def summed_with_batch(x, y, sigma):
    return gaussian_log_prob(x, y, sigma).sum()


@gaussian_log_prob.mistake("You returned the elements. Sum over all axes but the batch.")
def elements(x, y, sigma):
    return -((x - y) ** 2) / (2 * sigma**2) - math.log(sigma) - 0.5 * math.log(2 * math.pi)


@gaussian_log_prob.mistake("You returned the density. Its logarithm is asked for: the density itself underflows to 0.")
def density(x, y, sigma):
    return gaussian_log_prob(x, y, sigma).exp()


@gaussian_log_prob.mistake("You summed over one axis only. An image has three: sum over all but the batch.")
def last_axis_only(x, y, sigma):
    return elements(x, y, sigma).sum(-1)


@gaussian_log_prob.mistake("You gave the variance where the deviation is asked for: torch's Normal takes sigma itself.")
def variance_for_deviation(x, y, sigma):
    return gaussian_log_prob(x, y, sigma**2)


@gaussian_log_prob.mistake("Under the logarithm sigma is to be squared: log(2 pi sigma^2) / 2.")
def sigma_not_squared_in_the_log(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) + 0.5 * math.log(sigma) * x[0].numel()


@gaussian_log_prob.mistake("You have log(2 pi sigma^2) where half of it belongs: it stands under the root.")
def constants_whole(x, y, sigma):
    return 2 * gaussian_log_prob(x, y, sigma) - constants_missing(x, y, sigma)


@gaussian_log_prob.mistake("The squared error has the wrong sign: a point far from y is unlikely.")
def error_added(x, y, sigma):
    return gaussian_log_prob(x, y, sigma) - 2 * constants_missing(x, y, sigma)


# 03.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "03.5",
    title="The loss, with its units right",
    hints=(
        "Two terms, both in nats for one picture: the cross-entropy summed over its pixels, and the divergence summed "
        "over the elements of z. Then the mean over the batch.",
        'F.binary_cross_entropy_with_logits(logits, x) averages over everything. Its argument reduction="none" '
        "leaves (b, 1, h, w), to be summed over the last three axes.",
        "The divergence is that of 03.1. This cell is graded alone, so write it out here: "
        "0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1).",
    ),
)
def vae_loss(x: Tensor, logits: Tensor, mean: Tensor, log_var: Tensor, beta: float) -> Tensor:
    """Compute the loss of a VAE whose pixels are Bernoulli: minus log p(x | z) plus beta times KL(q(z | x) || N(0, I)).

    x: (b, 1, h, w), pixels 0. or 1.
    logits: like x: the decoder says that a pixel is 1 with probability sigmoid(logit). May be as large as 200.
    mean, log_var: (b, d), the encoder's two heads.
    beta: the weight of the divergence; 1 gives the bound itself.
    Returns the loss in nats for one picture, averaged over the batch, a tensor of shape ().
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    kl = 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1)
    return (cross_entropy + beta * kl).mean()


def _pictures(rng: torch.Generator, b: int, h: int, w: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, logits, mean and log_var of b pictures of h x w pixels and d latents."""
    x = (normal(rng, b, 1, h, w) > 0).float()
    return x, normal(rng, b, 1, h, w), normal(rng, b, d), normal(rng, b, d)


@vae_loss.check
def test_vae_loss_matches_the_bound(student, rng):
    """agrees with minus the bound, for several sizes and at several beta"""
    for shape, beta in [((4, 5, 5, 3), 1.0), ((3, 4, 6, 2), 0.3), ((5, 3, 3, 4), 4.0)]:
        args = (*_pictures(rng, *shape), beta)
        agree(student.vae_loss(*args), vae_loss(*args))


@vae_loss.check
def test_vae_loss_of_knowing_nothing(student, rng):
    """logits of 0 and q = prior: log 2 for every pixel, whatever beta"""
    x = (normal(rng, 3, 1, 6, 6) > 0).float()
    nothing = torch.zeros(3, 2)
    agree(student.vae_loss(x, torch.zeros_like(x), nothing, nothing, 7.0), torch.tensor(36 * math.log(2)))


@vae_loss.check
def test_vae_loss_of_a_sure_decoder(student, rng):
    """stays finite and exact when the decoder is very sure, rightly or wrongly"""
    x, logits, mean, log_var = _pictures(rng, 3, 4, 4, 2)
    args = x, 200 * logits.sign(), mean, log_var, 1.0
    agree(student.vae_loss(*args), vae_loss(*args))


@vae_loss.mistake(
    "The cross-entropy is averaged over pixels, the divergence summed: as if beta were the number of pixels times as "
    "large."
)
def mean_beside_sum(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, beta * x[0].numel()) / x[0].numel()


@vae_loss.mistake(
    "You averaged both, over pixels and over elements of z. There are fewer of these: each counts for more than it "
    "should."
)
def mean_beside_mean(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, beta * x[0].numel() / mean.shape[1]) / x[0].numel()


@vae_loss.mistake("You averaged the divergence over the elements of z. Nats add: sum over them.")
def kl_averaged(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, beta / mean.shape[1])


@vae_loss.mistake("You subtracted the divergence: this loss rewards a q far from the prior. Minus the bound adds it.")
def kl_subtracted(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, -beta)


@vae_loss.mistake("That is the bound itself, which is to be raised. A loss is its negative.")
def bound_for_loss(x, logits, mean, log_var, beta):
    return -vae_loss(x, logits, mean, log_var, beta)


@vae_loss.mistake("beta stands on the wrong term: it weighs the divergence.")
def beta_on_reconstruction(x, logits, mean, log_var, beta):
    return beta * vae_loss(x, logits, mean, log_var, 1 / beta)


@vae_loss.mistake("beta multiplies both terms: then it only scales the loss. It weighs the divergence alone.")
def beta_on_both(x, logits, mean, log_var, beta):
    return beta * vae_loss(x, logits, mean, log_var, 1.0)


@vae_loss.mistake("beta is missing: it multiplies the divergence.")
def beta_missing(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, 1.0)


@vae_loss.mistake("You summed over the batch: the loss, and so each step, then grows with the batch. Average there.")
def summed_over_the_batch(x, logits, mean, log_var, beta):
    return len(x) * vae_loss(x, logits, mean, log_var, beta)


@vae_loss.mistake("You summed the cross-entropy over the batch and averaged the divergence: average both over it.")
def batch_summed_in_one(x, logits, mean, log_var, beta):
    return len(x) * vae_loss(x, logits, mean, log_var, beta / len(x))


@vae_loss.mistake("You averaged the cross-entropy over the batch and summed the divergence: average both over it.")
def batch_summed_in_kl(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, beta * len(x))


@vae_loss.mistake("You squashed twice: binary_cross_entropy_with_logits takes the logits as they are.")
def squashed_twice(x, logits, mean, log_var, beta):
    return vae_loss(x, logits.sigmoid(), mean, log_var, beta)


@vae_loss.mistake("Only pixels that are 1 count in yours: a pixel that is 0 has -log(1 - sigmoid(logit)).")
def ones_alone(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, beta) + ((1 - x) * F.logsigmoid(-logits)).flatten(1).sum(1).mean()


@vae_loss.mistake(
    "Right on paper, but sigmoid(200) is 1 in float32 and log(1 - 1) is -inf. "
    "binary_cross_entropy_with_logits does it safely."
)
def overflows(x, logits, mean, log_var, beta):
    p = logits.sigmoid()
    cross_entropy = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)
    return (cross_entropy + beta * kl_to_prior(mean, log_var)).mean()


@vae_loss.mistake(
    "F.binary_cross_entropy cuts off what a pixel costs at 100, and a sure, wrong decoder pays more. "
    "Take the version with logits."
)
def cut_off(x, logits, mean, log_var, beta):
    cross_entropy = F.binary_cross_entropy(logits.sigmoid(), x, reduction="none").flatten(1).sum(1)
    return (cross_entropy + beta * kl_to_prior(mean, log_var)).mean()


@vae_loss.mistake("You took a squared error of the pixels. They are 0 or 1: -log p is the cross-entropy.")
def squared_error(x, logits, mean, log_var, beta):
    error = ((x - logits.sigmoid()) ** 2).flatten(1).sum(1)
    return (error + beta * kl_to_prior(mean, log_var)).mean()


@vae_loss.mistake("You returned one loss for each picture. Training needs one number: the mean over the batch.")
def one_per_picture(x, logits, mean, log_var, beta):
    return torch.stack(
        [vae_loss(*(part[None] for part in row), beta) for row in zip(x, logits, mean, log_var, strict=True)]
    )


@vae_loss.mistake("The divergence is missing: an autoencoder, whose z follow no prior that could be sampled.")
def kl_missing(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, 0.0)


@vae_loss.mistake("Your divergence lacks its factor 1/2.")
def kl_doubled(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, log_var, 2 * beta)


@vae_loss.mistake("Your divergence reads log_var as the logarithm of the deviation. It is that of the variance.")
def kl_of_log_deviation(x, logits, mean, log_var, beta):
    return vae_loss(x, logits, mean, 2 * log_var, beta)


@vae_loss.mistake(
    "You exchanged the first two arguments: binary_cross_entropy_with_logits takes the logits first, then x."
)
def exchanged(x, logits, mean, log_var, beta):
    return vae_loss(logits, x, mean, log_var, beta)


@vae_loss.mistake("You took a squared error of x and the logits. Pixels are 0 or 1, and -log p is their cross-entropy.")
def squared_error_of_logits(x, logits, mean, log_var, beta):
    return ((x - logits) ** 2).flatten(1).sum(1).mean() + beta * kl_to_prior(mean, log_var).mean()


@vae_loss.mistake("You took an averaged squared error. Pixels are 0 or 1: their cross-entropy, summed, is -log p.")
def averaged_squared_error(x, logits, mean, log_var, beta):
    return F.mse_loss(logits, x) + beta * kl_to_prior(mean, log_var).mean()


@vae_loss.mistake(
    "The reconstruction has the wrong sign: a loss has minus log p(x | z), which is the cross-entropy as it is."
)
def reconstruction_negative(x, logits, mean, log_var, beta):
    return -vae_loss(x, logits, mean, log_var, -beta)


@vae_loss.mistake(
    "The cross-entropy is averaged over all, the divergence summed over all. Both: sum, then average over the batch."
)
def mean_beside_sum_over_all(x, logits, mean, log_var, beta):
    return F.binary_cross_entropy_with_logits(logits, x) + beta * kl_to_prior(mean, log_var).sum()
