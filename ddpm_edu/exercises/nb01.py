"""Notebook 01, generative models and likelihood. C01 and C02 are claims of the course.

Symbols: x (b, d) or (n,), data; z, noise; mu and sigma, means and deviations; log is natural everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)

# 01.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "01.1",
    title="The density of what a generator makes",
    hints=(
        "Which z was pushed to this x? Solve x = mu + scale * z for z. P(z) is the product of its elements' "
        "densities exp(-z_j^2 / 2) / sqrt(2 pi).",
        "A small box at z with volume dz lands on a box of volume |scale_1| |scale_2| ... dz: the same probability, "
        "spread over another volume. So log P(x) = log P(z) - sum_j log |scale_j|.",
        "Of shape (b,): sum over the last axis, sum(-1).",
    ),
)
def push_log_density(x: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
    """Compute log P(x) for x = mu + scale * z, z from N(0, I): each element stretched and shifted alone.

    x: (b, d), points.
    mu: (d,), the shift.
    scale: (d,), the stretch of each element; not 0, but it may be negative (a mirror).
    Returns log P(x), (b,), in nats (natural logarithms).
    """
    z = (x - mu) / scale
    log_p_z = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    return (log_p_z - scale.abs().log()).sum(-1)


def pushes(rng: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    """x, mu, scale, with positive scales: in one, two and five dimensions."""
    return [
        (2 * normal(rng, b, d), normal(rng, d), 0.3 + 2 * torch.rand(d, generator=rng))
        for b, d in ((4, 1), (5, 2), (3, 5))
    ]


@push_log_density.check
def test_push_matches_the_stretched_normal(student, rng):
    """agrees with the change of variables in one, two and five dimensions"""
    for x, mu, scale in pushes(rng):
        agree(student.push_log_density(x, mu, scale), push_log_density(x, mu, scale))


@push_log_density.check
def test_push_loses_density_where_it_stretches(student, rng):
    """stretching all of three elements by 10 lowers log P at the mean by 3 log 10"""
    mu, scale = normal(rng, 3), 0.5 + torch.rand(3, generator=rng)
    at = [student.push_log_density(mu.expand(4, 3).clone(), mu, factor * scale) for factor in (1, 10)]
    agree(at[0] - at[1], torch.full((4,), 3 * math.log(10)))


@push_log_density.check
def test_push_with_a_mirror(student, rng):
    """a negative scale mirrors, and gives the same density as its positive twin"""
    x, mu, scale = normal(rng, 4, 2), normal(rng, 2), torch.tensor([-0.6, 1.7])
    agree(student.push_log_density(x, mu, scale), push_log_density(x, mu, scale.abs()))


@push_log_density.check
def test_push_far_out(student, rng):
    """stays finite for an x whose z is about 60"""
    mu, scale = normal(rng, 2), torch.tensor([0.5, 1.5])
    x = mu + scale * (60 + normal(rng, 4, 2))
    agree(student.push_log_density(x, mu, scale), push_log_density(x, mu, scale))


def log_n(z: Tensor) -> Tensor:
    """log N(z; 0, 1) of every element."""
    return -0.5 * z**2 - HALF_LOG_2_PI


@push_log_density.mistake(
    "You left out the stretch. Where G stretches, the same probability fills more room: subtract log |scale|."
)
def no_jacobian(x, mu, scale):
    return log_n((x - mu) / scale).sum(-1)


@push_log_density.mistake(
    "You added log |scale|. Stretching thins the density out: it is divided by |scale|, so the logarithm is subtracted."
)
def jacobian_added(x, mu, scale):
    return (log_n((x - mu) / scale) + scale.abs().log()).sum(-1)


@push_log_density.mistake(
    "You subtracted log scale^2. A length is stretched by |scale|; its square belongs under a root: 1/2 log scale^2."
)
def variance_in_jacobian(x, mu, scale):
    return (log_n((x - mu) / scale) - (scale**2).log()).sum(-1)


@push_log_density.mistake("scale may be negative, and its logarithm is then NaN. A length is stretched by |scale|.")
def no_absolute_value(x, mu, scale):
    return (log_n((x - mu) / scale) - scale.log()).sum(-1)


@push_log_density.mistake(
    "You pushed x forward once more. P(z) wants the z that was pushed to this x: z = (x - mu) / scale."
)
def pushed_again(x, mu, scale):
    return (log_n(mu + scale * x) - scale.abs().log()).sum(-1)


@push_log_density.mistake("You put x itself into P(z). First take it back: z = (x - mu) / scale.")
def not_taken_back(x, mu, scale):
    return (log_n(x) - scale.abs().log()).sum(-1)


@push_log_density.mistake(
    "You divided the squared distance by scale. With z = (x - mu) / scale, its square divides by scale^2."
)
def square_over_scale(x, mu, scale):
    return (-0.5 * (x - mu) ** 2 / scale.abs() - HALF_LOG_2_PI - scale.abs().log()).sum(-1)


@push_log_density.mistake("The square lacks its factor 1/2: log N(z; 0, 1) = -z^2 / 2 - log(2 pi) / 2.")
def no_half(x, mu, scale):
    return (-(((x - mu) / scale) ** 2) - HALF_LOG_2_PI - scale.abs().log()).sum(-1)


@push_log_density.mistake("log(2 pi) / 2 is missing for each element: without it the density does not integrate to 1.")
def not_normalised(x, mu, scale):
    return (log_n((x - mu) / scale) + HALF_LOG_2_PI - scale.abs().log()).sum(-1)


@push_log_density.mistake(
    "You counted log(2 pi) / 2 once. Each of the d elements of z has its own: d log(2 pi) / 2 in all."
)
def normalised_once(x, mu, scale):
    return (log_n((x - mu) / scale) + HALF_LOG_2_PI - scale.abs().log()).sum(-1) - HALF_LOG_2_PI


@push_log_density.mistake(
    "You averaged over the elements. Their densities are multiplied, so their logarithms are added: sum(-1)."
)
def averaged_elements(x, mu, scale):
    return push_log_density(x, mu, scale) / x.shape[-1]


@push_log_density.mistake(
    "You did not add up the elements: a point has one density, the product of its elements' densities."
)
def one_an_element(x, mu, scale):
    return log_n((x - mu) / scale) - scale.abs().log()


@push_log_density.mistake(
    "You took scale^2 for the deviation. With deviation 1 for z, that of scale * z is |scale|; scale^2 is its variance."
)
def variance_as_deviation(x, mu, scale):
    return push_log_density(x, mu, scale**2)


@push_log_density.mistake("You took |scale| for the variance of x. It is the deviation: the variance is scale^2.")
def deviation_as_variance(x, mu, scale):
    return push_log_density(x, mu, scale.abs().sqrt())


@push_log_density.mistake("You multiplied by scale. Solve x = mu + scale * z for z: z = (x - mu) / scale.")
def multiplied_by_scale(x, mu, scale):
    return (log_n((x - mu) * scale) - scale.abs().log()).sum(-1)


@push_log_density.mistake("You divided before you shifted back. Undo the last step first: z = (x - mu) / scale.")
def divided_first(x, mu, scale):
    return (log_n(x / scale - mu) - scale.abs().log()).sum(-1)


@push_log_density.mistake("The square has the wrong sign: log N(z; 0, 1) falls with the distance, -z^2 / 2.")
def square_added(x, mu, scale):
    z = (x - mu) / scale
    return (0.5 * z**2 - HALF_LOG_2_PI - scale.abs().log()).sum(-1)


@push_log_density.mistake("You subtracted the whole log(2 pi) for each element. It stands under a root: log(2 pi) / 2.")
def whole_log_two_pi(x, mu, scale):
    return (log_n((x - mu) / scale) - HALF_LOG_2_PI - scale.abs().log()).sum(-1)


@push_log_density.mistake("You subtracted the stretch itself. P is divided by it, so its logarithm is subtracted.")
def stretch_not_logged(x, mu, scale):
    return log_n((x - mu) / scale).sum(-1) - scale.abs().prod()


@push_log_density.mistake(
    "You divided the logarithm by the stretch. P is divided by it: of log P, log |scale| is subtracted."
)
def logarithm_divided(x, mu, scale):
    return log_n((x - mu) / scale).sum(-1) / scale.abs().prod()


@push_log_density.mistake(
    "The formula is right, but far out exp(-z^2 / 2) is 0 in floats. Do not compute exp and then log: add logarithms."
)
def exp_then_log(x, mu, scale):
    return (log_n((x - mu) / scale).exp() / scale.abs()).log().sum(-1)


@push_log_density.mistake("You returned P(x). Asked for is its logarithm: in many dimensions P(x) itself underflows.")
def density_itself(x, mu, scale):
    return push_log_density(x, mu, scale).exp()


# 01.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "01.2",
    title="log P(x) by Monte Carlo",
    hints=(
        "P(x) = E_z[P(x|z)] is estimated by the mean of P(x|z_i) over the n draws. You are given the logarithms, so: "
        "the logarithm of the mean of the exponentials.",
        "exp(-900) is 0 in any float. Take the largest out first: log mean exp(a) = m + log mean exp(a - m), with one "
        "m for each x.",
        "torch.logsumexp(a, dim=0) does that for the sum. A mean is the sum divided by n: subtract log n.",
    ),
)
def log_marginal(log_p: Tensor) -> Tensor:
    """Estimate log P(x) of b data from n draws of z: P(x) = E_z[P(x|z)], about the mean of P(x|z_i) (C01).

    log_p: (n, b), log P(x|z_i): a row for each draw z_i from P(z), a column for each x. May be -900 or 800.
    Returns the estimates of log P(x), (b,), finite.
    """
    return torch.logsumexp(log_p, dim=0) - math.log(len(log_p))


@log_marginal.check
def test_marginal_is_the_log_of_the_mean(student, rng):
    """agrees with the logarithm of the mean of P(x|z_i), for several n and b"""
    for n, b in ((6, 3), (12, 1), (4, 4)):
        log_p = 1.5 * normal(rng, n, b) - 2
        agree(student.log_marginal(log_p), log_marginal(log_p))


@log_marginal.check
def test_marginal_of_a_constant(student, rng):
    """if P(x|z) is the same for all z, it is that, whatever the number of draws"""
    value = normal(rng, 3)
    for n in (2, 50):
        agree(student.log_marginal(value.expand(n, 3).clone()), value)


@log_marginal.check
def test_marginal_neither_underflows_nor_overflows(student, rng):
    """stays finite and exact where exp does not: at -900, at -1500 and at 800, side by side"""
    log_p = normal(rng, 5, 3) + torch.tensor([-900.0, -1500.0, 800.0])
    log_p[0] += 120  # one draw far better than the others, as it happens with pictures
    agree(student.log_marginal(log_p), log_marginal(log_p), rtol=1e-6)


@log_marginal.mistake(
    "You averaged the logarithms. P(x) is the mean of P(x|z): first exp, then mean, then log. Yours is too small."
)
def mean_of_logs(log_p):
    return log_p.mean(0)


@log_marginal.mistake("You summed over the draws without dividing by n: subtract log n from the logsumexp.")
def sum_for_mean(log_p):
    return torch.logsumexp(log_p, dim=0)


@log_marginal.mistake("You added log n. Dividing by n inside the logarithm subtracts it.")
def log_n_added(log_p):
    return torch.logsumexp(log_p, dim=0) + math.log(len(log_p))


@log_marginal.mistake("You divided the logarithm by n. The mean is taken inside: that subtracts log n.")
def divided_outside(log_p):
    return torch.logsumexp(log_p, dim=0) / len(log_p)


@log_marginal.mistake("You subtracted n. Inside the logarithm the sum is divided by n, so outside log n is subtracted.")
def n_for_log_n(log_p):
    return torch.logsumexp(log_p, dim=0) - len(log_p)


@log_marginal.mistake("You divided by the number of data. The mean is over the n draws of z, the rows.")
def data_counted(log_p):
    return torch.logsumexp(log_p, dim=0) - math.log(log_p.shape[1])


@log_marginal.mistake(
    "You averaged over the data. Each x (column) has its own P(x); the mean is over the draws of z, dim=0."
)
def over_the_data(log_p):
    return torch.logsumexp(log_p, dim=1) - math.log(log_p.shape[1])


@log_marginal.mistake("You made one number of all columns. Each x has its own P(x): reduce over dim=0 alone.")
def over_everything(log_p):
    return torch.logsumexp(log_p.flatten(), dim=0) - math.log(log_p.numel())


@log_marginal.mistake(
    "The formula is right, but exp(-900) is 0 and exp(800) is inf: take each column's largest value out, or use "
    "logsumexp."
)
def underflow(log_p):
    return log_p.exp().mean(0).log()


@log_marginal.mistake(
    "You took out one largest value for all columns: the others then underflow. Take out each column's own."
)
def one_shift(log_p):
    shift = log_p.max()
    return shift + (log_p - shift).exp().mean(0).log()


@log_marginal.mistake("You took the mean out. A draw far above it still overflows: take out the largest value.")
def mean_shift(log_p):
    shift = log_p.mean(0)
    return shift + (log_p - shift).exp().mean(0).log()


@log_marginal.mistake(
    "You added the logarithms over the draws. P(x) is the mean of P(x|z): first exp, then mean, then log."
)
def sum_of_logs(log_p):
    return log_p.sum(0)


@log_marginal.mistake(
    "You divided each logarithm by n. It is the mean of the densities that is divided: subtract log n."
)
def divided_inside(log_p):
    return torch.logsumexp(log_p / len(log_p), dim=0)


@log_marginal.mistake("You took the largest value out and did not put it back: add it after the logarithm.")
def shift_lost(log_p):
    return (log_p - log_p.max(0).values).exp().mean(0).log()


@log_marginal.mistake("You kept only the best draw. The mean counts all draws, and divides by n.")
def best_draw(log_p):
    return log_p.max(0).values


@log_marginal.mistake("You returned P(x). Asked for is its logarithm.")
def not_logged(log_p):
    return log_p.exp().mean(0)


@log_marginal.mistake("You took the logarithm to the base 2. The course counts in nats: natural logarithms.")
def bits(log_p):
    return log_marginal(log_p) / math.log(2)


# 01.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "01.3",
    title="The mean log-likelihood of a mixture",
    hints=(
        "x[:, None] has shape (n, 1) and meets mu and sigma, (k,), in a table (n, k): log N(x_i; mu_j, sigma_j^2) = "
        "-(x_i - mu_j)^2 / (2 sigma_j^2) - log sigma_j - log(2 pi) / 2.",
        "P(x_i) = sum_j w_j N_ij. With logarithms at hand: torch.logsumexp(log w + log N, dim=1).",
        "Then the mean over the data, one number. Not the product of all P(x_i): that is 0 in any float.",
    ),
)
def mean_log_likelihood(x: Tensor, w: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """Compute the mean over the data of log P(x) for a mixture, P(x) = sum_j w_j N(x; mu_j, sigma_j^2).

    The sum over j is the integral over z, with a z of k values. With k = 1 it is one normal density.

    x: (n,), data, some perhaps far from every component.
    w: (k,), weights that add up to 1.
    mu, sigma: (k,), means and deviations.
    Returns the mean of log P(x_i) over the data, one number, in nats.
    """
    z = (x[:, None] - mu) / sigma
    log_normal = -0.5 * z**2 - sigma.log() - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(w.log() + log_normal, dim=1).mean()


def mixture(rng: torch.Generator, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """w, mu, sigma of k components, the weights far from equal."""
    w = torch.rand(k, generator=rng) + torch.linspace(0.2, 1.5, k)
    return w / w.sum(), 2 * normal(rng, k), 0.4 + torch.rand(k, generator=rng)


@mean_log_likelihood.check
def test_likelihood_matches(student, rng):
    """agrees with the mean of log P(x_i), for one, two and four components"""
    for n, k in ((7, 2), (9, 1), (4, 4)):
        x, parts = 2 * normal(rng, n), mixture(rng, k)
        agree(student.mean_log_likelihood(x, *parts), mean_log_likelihood(x, *parts))


@mean_log_likelihood.check
def test_likelihood_does_not_grow_with_the_data(student, rng):
    """the same data twice over have the same mean log-likelihood"""
    x, parts = normal(rng, 6), mixture(rng, 2)
    once, twice = (student.mean_log_likelihood(data, *parts) for data in (x, torch.cat([x, x])))
    agree(once, mean_log_likelihood(x, *parts))
    agree(twice, once)


@mean_log_likelihood.check
def test_likelihood_of_much_data(student, rng):
    """stays finite for 5,000 data"""
    x, parts = normal(rng, 5000), mixture(rng, 3)
    agree(student.mean_log_likelihood(x, *parts), mean_log_likelihood(x, *parts))


@mean_log_likelihood.check
def test_likelihood_far_away(student, rng):
    """stays finite where a datum lies 100 deviations from every component"""
    x, (w, mu, _) = torch.cat([normal(rng, 5), torch.tensor([60.0])]), mixture(rng, 2)
    sigma = torch.full((2,), 0.5)
    agree(student.mean_log_likelihood(x, w, mu, sigma), mean_log_likelihood(x, w, mu, sigma))


def log_normals(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """log N(x_i; mu_j, sigma_j^2), (n, k)."""
    return log_n((x[:, None] - mu) / sigma) - sigma.log()


def log_mixture(x: Tensor, w: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """log P(x_i), (n,)."""
    return torch.logsumexp(w.log() + log_normals(x, mu, sigma), dim=1)


@mean_log_likelihood.mistake("You summed over the data. The mean is asked for: it does not grow with their number.")
def summed_data(x, w, mu, sigma):
    return log_mixture(x, w, mu, sigma).sum()


@mean_log_likelihood.mistake("You returned its negative, the loss. Asked for is the log-likelihood itself.")
def negative(x, w, mu, sigma):
    return -mean_log_likelihood(x, w, mu, sigma)


@mean_log_likelihood.mistake(
    "You took the logarithm of the mean of P(x_i). Over the data it is the other way round: log first, then mean."
)
def log_of_mean(x, w, mu, sigma):
    return log_mixture(x, w, mu, sigma).exp().mean().log()


@mean_log_likelihood.mistake(
    "You mixed the logarithms, sum_j w_j log N_j. P(x) mixes the densities: first sum_j w_j N_j, then log."
)
def logs_mixed(x, w, mu, sigma):
    return (w * log_normals(x, mu, sigma)).sum(1).mean()


@mean_log_likelihood.mistake("The weights are missing: each component counts with its w_j, that is plus log w_j.")
def weights_missing(x, w, mu, sigma):
    return torch.logsumexp(log_normals(x, mu, sigma), dim=1).mean()


@mean_log_likelihood.mistake("You added w_j to log N_j. A factor inside a logarithm is added as log w_j.")
def weights_added(x, w, mu, sigma):
    return torch.logsumexp(w + log_normals(x, mu, sigma), dim=1).mean()


@mean_log_likelihood.mistake("You averaged the components alike. Each counts with its own weight w_j.")
def equal_weights(x, w, mu, sigma):
    return torch.logsumexp(log_normals(x, mu, sigma), dim=1).mean() - math.log(len(w))


@mean_log_likelihood.mistake("You kept only the best component of each x. P(x) adds all of them.")
def best_component(x, w, mu, sigma):
    return (w.log() + log_normals(x, mu, sigma)).max(1).values.mean()


@mean_log_likelihood.mistake(
    "You subtracted log sigma^2 where log sigma belongs: 1/2 log of the variance, or log of the deviation."
)
def log_of_variance(x, w, mu, sigma):
    return torch.logsumexp(w.log() + log_normals(x, mu, sigma) - sigma.log(), dim=1).mean()


@mean_log_likelihood.mistake("You took sigma for a variance. It is the deviation: the square is divided by sigma^2.")
def sigma_as_variance(x, w, mu, sigma):
    return mean_log_likelihood(x, w, mu, sigma.sqrt())


@mean_log_likelihood.mistake(
    "You squared sigma. It is the deviation already: the square is divided by sigma^2, not sigma^4."
)
def sigma_squared(x, w, mu, sigma):
    return mean_log_likelihood(x, w, mu, sigma**2)


@mean_log_likelihood.mistake("You added log sigma. N has 1 / sigma in front, so its logarithm is subtracted.")
def log_sigma_added(x, w, mu, sigma):
    return torch.logsumexp(w.log() + log_normals(x, mu, sigma) + 2 * sigma.log(), dim=1).mean()


@mean_log_likelihood.mistake("You divided the square by sigma. It is divided by sigma^2: ((x - mu) / sigma)^2 / 2.")
def square_by_sigma(x, w, mu, sigma):
    square = (x[:, None] - mu) ** 2 / sigma
    return torch.logsumexp(w.log() - 0.5 * square - sigma.log() - HALF_LOG_2_PI, dim=1).mean()


@mean_log_likelihood.mistake(
    "The normal densities lack 1 / (sigma sqrt(2 pi)): their logarithm has - log sigma - log(2 pi) / 2."
)
def not_a_density(x, w, mu, sigma):
    z = (x[:, None] - mu) / sigma
    return torch.logsumexp(w.log() - 0.5 * z**2, dim=1).mean()


@mean_log_likelihood.mistake("You subtracted the whole log(2 pi). It stands under a root: log(2 pi) / 2.")
def two_pi_whole(x, w, mu, sigma):
    return mean_log_likelihood(x, w, mu, sigma) - HALF_LOG_2_PI


@mean_log_likelihood.mistake(
    "You summed over the data inside the logarithm (dim=0). P(x_i) sums over the components: dim=1."
)
def data_inside(x, w, mu, sigma):
    return torch.logsumexp(w.log() + log_normals(x, mu, sigma), dim=0).mean()


@mean_log_likelihood.mistake(
    "You took one logarithm of the sum over data and components. Each datum has its own log P(x_i)."
)
def everything_inside(x, w, mu, sigma):
    return torch.logsumexp((w.log() + log_normals(x, mu, sigma)).flatten(), dim=0)


@mean_log_likelihood.mistake(
    "You averaged over the components after weighting. The weights add up to 1 already: sum over j."
)
def weighted_and_averaged(x, w, mu, sigma):
    return mean_log_likelihood(x, w, mu, sigma) - math.log(len(w))


@mean_log_likelihood.mistake(
    "You put the factor w_j before log N_j. Inside the logsumexp a weight is a summand: log w_j + log N_j."
)
def weights_times_logs(x, w, mu, sigma):
    return torch.logsumexp(w * log_normals(x, mu, sigma), dim=1).mean()


@mean_log_likelihood.mistake("log sigma is missing: a wider density is lower, N has 1 / sigma in front.")
def log_sigma_missing(x, w, mu, sigma):
    return torch.logsumexp(w.log() + log_normals(x, mu, sigma) + sigma.log(), dim=1).mean()


@mean_log_likelihood.mistake("log(2 pi) / 2 is missing: without it the density does not integrate to 1.")
def two_pi_missing(x, w, mu, sigma):
    return mean_log_likelihood(x, w, mu, sigma) + HALF_LOG_2_PI


@mean_log_likelihood.mistake("The square lacks its factor 1/2: log N has -(x - mu)^2 / (2 sigma^2).")
def half_missing(x, w, mu, sigma):
    z = (x[:, None] - mu) / sigma
    return torch.logsumexp(w.log() - z**2 - sigma.log() - HALF_LOG_2_PI, dim=1).mean()


@mean_log_likelihood.mistake(
    "You multiplied all P(x_i) before the logarithm: the product of many data is 0 in any float. Add logarithms."
)
def product_of_data(x, w, mu, sigma):
    return log_mixture(x, w, mu, sigma).exp().prod().log() / len(x)


@mean_log_likelihood.mistake(
    "The formula is right, but far from all components every N_j is 0 in floats: use logsumexp on log w_j + log N_j."
)
def far_underflow(x, w, mu, sigma):
    return (w * log_normals(x, mu, sigma).exp()).sum(1).log().mean()


@mean_log_likelihood.mistake("You returned log P(x_i) for each datum. One number is asked for: their mean.")
def each_datum(x, w, mu, sigma):
    return log_mixture(x, w, mu, sigma)


@mean_log_likelihood.mistake(
    "x of shape (n,) met mu of shape (k,). Every datum meets every component: x[:, None] gives a table (n, k)."
)
def no_table(x, w, mu, sigma):
    return torch.logsumexp(w.log() + log_n((x - mu) / sigma) - sigma.log(), dim=-1).mean()


# 01.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "01.4",
    title="The likeliest normal distribution",
    hints=(
        "Set the derivatives of the mean log-likelihood to 0. By mu: sum of (x_i - mu) = 0. By sigma: "
        "sum of (x_i - mu)^2 / sigma^3 = n / sigma.",
        "So mu is the mean and sigma^2 the mean squared distance from it, divided by n and not by n - 1.",
        "x.var(0) divides by n - 1; x.var(0, correction=0) divides by n.",
    ),
)
def fit_normal(x: Tensor) -> list[Tensor]:
    """Compute the mean and the variance of the normal distribution under which the data are likeliest.

    x: (n, d), n data; each of the d elements is fitted on its own.
    Returns [mean, variance], (d,) each: the maximisers of the mean log-likelihood. A tuple will do as well.
    """
    mean = x.mean(0)
    return [mean, ((x - mean) ** 2).mean(0)]


@fit_normal.check
def test_fit_matches(student, rng):
    """agrees with the maximum of the likelihood, in one dimension and in three"""
    for n, d in ((5, 1), (4, 3), (6, 6)):
        x = 2 * normal(rng, n, d) + 1.5
        agree(student.fit_normal(x), fit_normal(x))


@fit_normal.check
def test_fit_is_a_maximum(student, rng):
    """no mean or variance nearby makes the data likelier"""
    x = 1.5 * normal(rng, 8, 1) + 1
    mean, var = student.fit_normal(x)

    def likelihood(mean: Tensor, var: Tensor) -> float:
        return (-((x - mean) ** 2) / (2 * var) - 0.5 * var.log()).mean().item() if (var > 0).all() else -math.inf

    best = likelihood(mean, var)
    for shift, factor in ((0.05, 1.0), (-0.05, 1.0), (0.0, 1.05), (0.0, 0.95)):
        assert likelihood(mean + shift, var * factor) < best


@fit_normal.mistake(
    "You divided by n - 1 (torch's var does). That estimate is unbiased, but the likelihood is largest with n."
)
def unbiased(x):
    return x.mean(0), x.var(0)


@fit_normal.mistake("You returned the deviation. Asked for is the variance, its square.")
def deviation(x):
    return x.mean(0), x.std(0, correction=0)


@fit_normal.mistake("You returned torch's std: a deviation where the variance is asked for, and with n - 1.")
def torch_std(x):
    return x.mean(0), x.std(0)


@fit_normal.mistake("You did not subtract the mean before squaring: the variance is measured around the mean.")
def around_zero(x):
    return x.mean(0), (x**2).mean(0)


@fit_normal.mistake("You subtracted the mean from the mean square. The mean has to be squared: E[x^2] - E[x]^2.")
def mean_not_squared(x):
    return x.mean(0), (x**2).mean(0) - x.mean(0)


@fit_normal.mistake(
    "You squared after averaging: distances from the mean average to 0. First square each, then average."
)
def squared_late(x):
    return x.mean(0), (x - x.mean(0)).mean(0) ** 2


@fit_normal.mistake("You halved the variance. The 1/2 in the exponent falls out when the derivative is set to 0.")
def halved(x):
    return x.mean(0), 0.5 * x.var(0, correction=0)


@fit_normal.mistake("You summed the squares. Setting the derivative to 0 gives their mean: divide by n.")
def squares_summed(x):
    return x.mean(0), ((x - x.mean(0)) ** 2).sum(0)


@fit_normal.mistake("You summed the data. The likeliest mean is their average: divide by n.")
def data_summed(x):
    return x.sum(0), x.var(0, correction=0)


@fit_normal.mistake("You took the median. It would be right for exp(-|x - mu|); for exp(-(x - mu)^2) it is the mean.")
def median(x):
    return x.median(0).values, x.var(0, correction=0)


@fit_normal.mistake("You averaged distances. The exponent of a normal density has squares: mean squared distance.")
def absolute_distance(x):
    return x.mean(0), (x - x.mean(0)).abs().mean(0)


@fit_normal.mistake("Mean and variance have changed places: first the mean, then the variance.")
def places_swapped(x):
    return x.var(0, correction=0), x.mean(0)


@fit_normal.mistake("You averaged over everything. Each of the d elements has its own mean and variance: dim=0.")
def one_for_all(x):
    return x.mean(), x.var(correction=0)


@fit_normal.mistake("You averaged over the elements of each datum. The data are the rows: dim=0.")
def wrong_axis(x):
    return x.mean(1), x.var(1, correction=0)


@fit_normal.mistake("You returned the log of the variance. Asked for is the variance itself.")
def log_variance(x):
    return x.mean(0), x.var(0, correction=0).log()


# 01.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "01.5",
    title="A KL divergence on a grid",
    hints=(
        "An integral over a grid is a sum times the spacing: sum(f) * dx.",
        "KL(p || q) = integral of p log(p / q): weighted by p, the first. Where p is 0 the integrand is 0, though "
        "0 * log(0) is NaN for a computer.",
        "torch.special.xlogy(p, p / q) is p log(p / q), and 0 where p is 0.",
    ),
)
def kl_on_grid(p: Tensor, q: Tensor, dx: float) -> Tensor:
    """Compute KL(p || q) = integral of p(x) log(p(x) / q(x)) dx by a sum over a grid (C02).

    p, q: (n,), two densities at n evenly spaced points, as far as p reaches. p may be 0 in places, q not.
    dx: the spacing of the grid.
    Returns KL(p || q), one number, in nats.
    """
    return torch.special.xlogy(p, p / q).sum() * dx


def densities(rng: torch.Generator, n: int = 400) -> tuple[Tensor, Tensor, float]:
    """Two mixtures of two normals on a grid from -12 to 12, and its spacing."""
    x = torch.linspace(-12, 12, n)
    pair = [log_mixture(x, *mixture(rng, 2)).exp() + 1e-30 for _ in range(2)]
    return pair[0], pair[1], 24 / (n - 1)


@kl_on_grid.check
def test_kl_matches_the_sum(student, rng):
    """agrees with the sum times dx, on grids of several spacings"""
    for n in (300, 700):
        p, q, dx = densities(rng, n)
        agree(student.kl_on_grid(p, q, dx), kl_on_grid(p, q, dx))


@kl_on_grid.check
def test_kl_of_two_normals(student, rng):
    """for two normal densities it is the closed form"""
    x = torch.linspace(-15, 15, 3001)
    m, s = normal(rng, 2), 0.5 + torch.rand(2, generator=rng)
    p, q = (log_normals(x, m[i : i + 1], s[i : i + 1])[:, 0].double().exp() + 1e-60 for i in (0, 1))
    closed = (s[1] / s[0]).log() + (s[0] ** 2 + (m[0] - m[1]) ** 2) / (2 * s[1] ** 2) - 0.5
    agree(student.kl_on_grid(p, q, 0.01), closed.double(), rtol=1e-3)


@kl_on_grid.check
def test_kl_with_zeros(student, rng):
    """is finite where p is 0 in places"""
    x = torch.linspace(-5, 5, 1001)
    p = ((x.abs() < 1).float() * (1 + 0.5 * torch.sin(3 * x))) / 2
    q = log_normals(x, normal(rng, 1), torch.ones(1))[:, 0].exp()
    agree(student.kl_on_grid(p, q, 0.01), kl_on_grid(p, q, 0.01))


@kl_on_grid.mistake("You computed KL(q || p). The first density, p, is the one that weighs: p log(p / q).")
def kl_swapped(p, q, dx):
    return kl_on_grid(q, p, dx)


@kl_on_grid.mistake("dx is missing: an integral is the sum times the spacing, so that a finer grid changes nothing.")
def dx_missing(p, q, dx):
    return kl_on_grid(p, q, 1.0)


@kl_on_grid.mistake("You took the mean over the grid. The integral is the sum times dx.")
def mean_over_grid(p, q, dx):
    return torch.special.xlogy(p, p / q).mean()


@kl_on_grid.mistake("You took the logarithm to the base 2: those are bits. The course counts in nats.")
def kl_in_bits(p, q, dx):
    return kl_on_grid(p, q, dx) / math.log(2)


@kl_on_grid.mistake("The sign is wrong: it is p log(p / q), which is 0 or more in all; you have log(q / p).")
def kl_negative(p, q, dx):
    return -kl_on_grid(p, q, dx)


@kl_on_grid.mistake("You did not weigh by p: the logarithm of the ratio is averaged over what p makes.")
def not_weighted(p, q, dx):
    return (p / q).log().sum() * dx


@kl_on_grid.mistake("Your formula is right but for p = 0, where 0 * log(0) gives NaN; its limit is 0. See xlogy.")
def nan_at_zero(p, q, dx):
    return (p * (p / q).log()).sum() * dx


@kl_on_grid.mistake("You computed -integral of p log q, the cross entropy: that is KL(p || q) plus the entropy of p.")
def cross_entropy(p, q, dx):
    return -(p * q.log()).sum() * dx


@kl_on_grid.mistake("You left q out: integral of p log p is minus the entropy of p.")
def q_left_out(p, q, dx):
    return torch.special.xlogy(p, p).sum() * dx


@kl_on_grid.mistake(
    "You took absolute values. The integrand may be negative in places, and only with its sign is the sum KL."
)
def absolute_ratio(p, q, dx):
    return torch.special.xlogy(p, p / q).abs().sum() * dx


@kl_on_grid.mistake("You averaged KL(p || q) and KL(q || p). KL is not symmetric, and only the first is asked for.")
def both_ways(p, q, dx):
    return 0.5 * (kl_on_grid(p, q, dx) + kl_on_grid(q, p, dx))


@kl_on_grid.mistake("You weighted by q. KL(p || q) asks what happens where p is: p log(p / q).")
def weighted_by_q(p, q, dx):
    return (q * torch.where(p > 0, p / q, 1.0).log()).sum() * dx


@kl_on_grid.mistake("You integrated p log q: KL(p || q) has p log p as well, integral of p (log p - log q).")
def only_log_q(p, q, dx):
    return torch.special.xlogy(p, q).sum() * dx


@kl_on_grid.mistake(
    "You divided log p by log q. The logarithm of the ratio is their difference: log(p / q) = log p - log q."
)
def ratio_of_logs(p, q, dx):
    return (torch.special.xlogy(p, p) / q.log()).sum() * dx


@kl_on_grid.mistake("You averaged and multiplied by dx. It is the sum that is multiplied (F.kl_div: reduction='sum').")
def mean_times_dx(p, q, dx):
    return torch.special.xlogy(p, p / q).mean() * dx


@kl_on_grid.mistake(
    "F.kl_div takes the logarithm of its first argument, and KL(first || second) is the other way round: see its page."
)
def kl_div_as_named(p, q, dx):
    return torch.nn.functional.kl_div(p, q, reduction="sum") * dx


@kl_on_grid.mistake("F.kl_div wants its first argument as a logarithm: the second density, q.log().")
def kl_div_without_log(p, q, dx):
    return torch.nn.functional.kl_div(q, p, reduction="sum") * dx


@kl_on_grid.mistake("You added KL(p || q) and KL(q || p). KL is not symmetric, and only the first is asked for.")
def both_added(p, q, dx):
    return kl_on_grid(p, q, dx) + kl_on_grid(q, p, dx)


@kl_on_grid.mistake(
    "You rescaled p and q to sum to 1. They are densities: keep them as they are, and multiply the sum by dx."
)
def as_probabilities(p, q, dx):
    p, q = p / p.sum(), q / q.sum()
    return torch.special.xlogy(p, p / q).sum()


@kl_on_grid.mistake("You divided by dx. The sum is multiplied by it: each grid point stands for a strip of width dx.")
def divided_by_dx(p, q, dx):
    return kl_on_grid(p, q, 1 / dx)


@kl_on_grid.mistake("You returned the integrand. It has to be summed over the grid and multiplied by dx.")
def integrand(p, q, dx):
    return torch.special.xlogy(p, p / q)
