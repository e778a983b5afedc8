"""Notebook 12, the autoencoder of latent diffusion (Rombach et al. 2022; Kingma and Welling 2014). C24 is a claim of
the course; the papers are named where an equation is theirs.

Symbols: z (b, c, h, w) are latents, small pictures of c channels; x and y (b, 3, h, w) are a picture and what the
decoder makes of its latent, both in [-1, 1]; f_l and g_l (b, c_l, h_l, w_l) are a fixed network's maps of x and y at
layer l.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

# 12.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "12.1",
    title="The price of a latent",
    hints=(
        "One number of z first: 1/2 (variance + mean^2 - 1 - log variance). The variance is exp(log_var).",
        "The numbers of z are independent under both Gaussians, so their divergences add: over channels, rows and "
        "columns.",
        "x.sum((1, 2, 3)) sums over the last three axes and leaves the first, the pictures, as it is.",
    ),
)
def kl_nats(mean: Tensor, log_var: Tensor) -> Tensor:
    """Compute KL(q || p) of each picture's q(z | x) = N(mean, exp(log_var)) from the prior p = N(0, I), in nats.

    Kingma and Welling 2014, appendix B. The numbers of z are independent; log_var are the logarithms of their
    variances.

    mean: (b, c, h, w), the means.
    log_var: (b, c, h, w), the logarithms of the variances.
    Returns one divergence for each picture, the sum over all its numbers, (b,).
    """
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.check
def test_kl_nats_matches_the_closed_form(student, rng):
    """agrees with the closed form, for latents of several sizes"""
    for shape in [(5, 4, 3, 2), (3, 3, 3, 3), (2, 1, 4, 5)]:
        mean, log_var = normal(rng, *shape), normal(rng, *shape)
        agree(student.kl_nats(mean, log_var), kl_nats(mean, log_var))


@kl_nats.check
def test_kl_nats_is_zero_at_the_prior(student, rng):
    """is 0 where q is the prior, and above 0 near it, on every side"""
    near = 0.2 * torch.cat([torch.eye(4), -torch.eye(4)])
    at = torch.cat([torch.zeros(1, 4), near])[:, :, None, None]
    assert (student.kl_nats(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)).abs() < 1e-6).all()
    agree(student.kl_nats(at[:, :2], at[:, 2:]) > 1e-3, torch.arange(9) > 0)


@kl_nats.check
def test_kl_nats_adds_up(student, rng):
    """a latent cut in two, by channels or by columns, costs the sum of its parts"""
    mean, log_var = normal(rng, 3, 4, 2, 6), normal(rng, 3, 4, 2, 6)
    whole = student.kl_nats(mean, log_var)
    for axis, at in ((1, 3), (3, 2)):
        (m_1, m_2), (s_1, s_2) = (x.tensor_split([at], axis) for x in (mean, log_var))
        agree(student.kl_nats(m_1, s_1) + student.kl_nats(m_2, s_2), whole)


@kl_nats.check
def test_kl_nats_is_what_draws_say(student, rng):
    """20,000 draws of log q - log p average to it"""
    mean, log_var, eps = normal(rng, 1, 2, 2, 1), normal(rng, 1, 2, 2, 1), normal(rng, 20_000, 2, 2, 1)
    z = mean + (log_var / 2).exp() * eps
    log_ratio = 0.5 * (z**2 - eps**2 - log_var).sum((1, 2, 3))
    off = log_ratio.mean() - student.kl_nats(mean, log_var)[0]
    assert off.abs() < 6 * log_ratio.std() / len(log_ratio) ** 0.5  # 6 standard errors


def _elements(mean: Tensor, log_var: Tensor) -> Tensor:
    """The divergence of each number of z, like mean."""
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var)


@kl_nats.mistake("The factor 1/2 is missing: it comes from the exponent of the normal density.")
def kl_half_missing(mean, log_var):
    return 2 * kl_nats(mean, log_var)


@kl_nats.mistake(
    "You averaged over the numbers of z: nats an element. They are independent, so a picture's price is their sum."
)
def kl_averaged_in_picture(mean, log_var):
    return _elements(mean, log_var).mean((1, 2, 3))


@kl_nats.mistake(
    "You summed over the channels and averaged over the places: nats a place. A picture's price is the sum of both."
)
def kl_averaged_over_places(mean, log_var):
    return _elements(mean, log_var).sum(1).mean((1, 2))


@kl_nats.mistake("You averaged over the channels and summed over the places. A picture's price is the sum over both.")
def kl_averaged_over_channels(mean, log_var):
    return _elements(mean, log_var).mean(1).sum((1, 2))


@kl_nats.mistake(
    "You summed over the channels alone and have a price for each place. Sum over rows and columns as well."
)
def kl_of_each_place(mean, log_var):
    return _elements(mean, log_var).sum(1)


@kl_nats.mistake(
    "You summed over rows and columns alone and have a price for each channel. Sum over the channels as well."
)
def kl_of_each_channel(mean, log_var):
    return _elements(mean, log_var).sum((2, 3))


@kl_nats.mistake("You summed over the last axis alone. A picture's numbers lie along three: channels, rows, columns.")
def kl_last_axis(mean, log_var):
    return _elements(mean, log_var).sum(-1)


@kl_nats.mistake("You divided by log 2: these are bits. Natural logarithms give nats as they are.")
def kl_in_bits(mean, log_var):
    return kl_nats(mean, log_var) / math.log(2)


@kl_nats.mistake("You multiplied by log 2, which turns bits into nats. The formula gives nats as it is.")
def kl_nats_taken_for_bits(mean, log_var):
    return kl_nats(mean, log_var) * math.log(2)


@kl_nats.mistake(
    "You read log_var as the logarithm of the deviation and doubled it. It is that of the variance: exp(log_var) as "
    "it is."
)
def kl_log_deviation(mean, log_var):
    return kl_nats(mean, 2 * log_var)


@kl_nats.mistake("You put the deviation, exp(log_var / 2), where the variance exp(log_var) belongs.")
def kl_deviation_for_variance(mean, log_var):
    return 0.5 * ((log_var / 2).exp() + mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("You halved log_var throughout: with sigma for sigma^2 it is another Gaussian's divergence.")
def kl_log_var_halved(mean, log_var):
    return kl_nats(mean, log_var / 2)


@kl_nats.mistake("You squared exp(log_var). It is the variance already.")
def kl_variance_squared(mean, log_var):
    return 0.5 * (log_var.exp() ** 2 + mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("You subtracted 2 log_var. log_var is the logarithm of the variance, so it comes once.")
def kl_log_var_twice(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 - 2 * log_var).sum((1, 2, 3))


@kl_nats.mistake("You subtracted log_var / 2 inside the bracket. The 1/2 stands before it, and counts once.")
def kl_log_var_halved_twice(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var / 2).sum((1, 2, 3))


@kl_nats.mistake("You read log_var as the variance itself. It may be negative, and its logarithm is NaN there.")
def kl_variance_itself(mean, log_var):
    return 0.5 * (log_var + mean**2 - 1 - log_var.log()).sum((1, 2, 3))


@kl_nats.mistake("log_var stands as it is where the variance belongs: take its exponential in the first term.")
def kl_exp_missing(mean, log_var):
    return 0.5 * (log_var + mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("Your sign is wrong: a divergence is 0 or more, and the loss grows with it.")
def kl_sign_turned(mean, log_var):
    return -kl_nats(mean, log_var)


@kl_nats.mistake(
    "The factor -1/2 before the sum is missing: with 1 + log_var - mean^2 - exp(log_var) inside, it makes the rest "
    "positive."
)
def kl_minus_half_missing(mean, log_var):
    return -2 * kl_nats(mean, log_var)


@kl_nats.mistake("The sign of log_var is wrong: with + log_var the least is not at the prior, log_var = 0.")
def kl_log_var_added(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1 + log_var).sum((1, 2, 3))


@kl_nats.mistake(
    "You turned the sign of log_var everywhere: a variance of exp(-log_var) is that of another Gaussian, 1 / variance."
)
def kl_precision(mean, log_var):
    return kl_nats(mean, -log_var)


@kl_nats.mistake("You turned the sign of log_var in the exponent. The variance is exp(log_var).")
def kl_exponent_turned(mean, log_var):
    return 0.5 * ((-log_var).exp() + mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("The log_var term is missing: without it a variance of 0 would cost less than the prior's 1.")
def kl_log_var_missing(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - 1).sum((1, 2, 3))


@kl_nats.mistake("That is KL(p || q). Here q, from which z is drawn, stands in front.")
def kl_other_way_round(mean, log_var):
    return 0.5 * ((1 + mean**2) * (-log_var).exp() - 1 + log_var).sum((1, 2, 3))


@kl_nats.mistake("The mean is missing: q may also differ from the prior by where it lies.")
def kl_mean_missing(mean, log_var):
    return kl_nats(0 * mean, log_var)


@kl_nats.mistake("The variance is missing: q may lie at 0 and still be narrower or wider than the prior.")
def kl_mean_alone(mean, log_var):
    return kl_nats(mean, 0 * log_var)


@kl_nats.mistake("You added the mean as it is. Its square counts: left and right of 0 cost alike.")
def kl_mean_not_squared(mean, log_var):
    return 0.5 * (log_var.exp() + mean - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("The square of the mean is added: a q far from the prior costs more.")
def kl_mean_subtracted(mean, log_var):
    return 0.5 * (log_var.exp() - mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("The -1 is missing: q = p would then cost 1/2 for each number of z instead of 0.")
def kl_one_missing(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 - log_var).sum((1, 2, 3))


@kl_nats.mistake("+1 where -1 belongs: q = p would then cost 1 for each number of z instead of 0.")
def kl_plus_one(mean, log_var):
    return 0.5 * (log_var.exp() + mean**2 + 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("The -1 comes once for each number of z, not once for each picture.")
def kl_one_for_a_picture(mean, log_var):
    return 0.5 * ((log_var.exp() + mean**2 - log_var).sum((1, 2, 3)) - 1)


@kl_nats.mistake("1/2 multiplies all four terms, not exp(log_var) alone.")
def kl_half_on_the_first_term(mean, log_var):
    return (0.5 * log_var.exp() + mean**2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake(
    "You summed over the batch as well. Each picture has its own divergence: sum over the last three axes."
)
def kl_summed_over_batch(mean, log_var):
    return kl_nats(mean, log_var).sum()


@kl_nats.mistake("You averaged over the batch. Each picture has its own divergence; averaging comes later.")
def kl_averaged_over_batch(mean, log_var):
    return kl_nats(mean, log_var).mean()


@kl_nats.mistake("You averaged over everything. Sum over a picture's numbers, and leave the batch as it is.")
def kl_averaged_over_all(mean, log_var):
    return _elements(mean, log_var).mean()


@kl_nats.mistake("You summed over the batch axis and left the channels. The first axis is the pictures: leave that.")
def kl_wrong_axes(mean, log_var):
    return _elements(mean, log_var).sum((0, 2, 3))


@kl_nats.mistake("You summed over the first three axes, the pictures among them. Leave the first, sum over the rest.")
def kl_first_three_axes(mean, log_var):
    return _elements(mean, log_var).sum((0, 1, 2))


@kl_nats.mistake("You did not sum: the numbers of one picture add up to its one divergence.")
def kl_not_summed(mean, log_var):
    return _elements(mean, log_var)


@kl_nats.mistake("1/2 multiplies all four terms, log_var and the 1 among them, not the first two alone.")
def kl_half_on_two_terms(mean, log_var):
    return ((log_var.exp() + mean**2) / 2 - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("1/2 multiplies the 1 as well: q = p would otherwise cost -1/2 for each number of z.")
def kl_one_not_halved(mean, log_var):
    return ((log_var.exp() + mean**2 - log_var) / 2 - 1).sum((1, 2, 3))


@kl_nats.mistake("The factor 1/2 is missing, and you averaged over the numbers of z, where their sum belongs.")
def kl_averaged_without_half(mean, log_var):
    return 2 * _elements(mean, log_var).mean((1, 2, 3))


@kl_nats.mistake("You divided by the number of pictures. Each has its own divergence, however many there are.")
def kl_divided_by_batch(mean, log_var):
    return kl_nats(mean, log_var) / len(mean)


@kl_nats.mistake("You added the size of the mean. Its square counts.")
def kl_mean_size(mean, log_var):
    return 0.5 * (log_var.exp() + mean.abs() - 1 - log_var).sum((1, 2, 3))


@kl_nats.mistake("You read log_var as the deviation itself and squared it. It is the logarithm of the variance.")
def kl_deviation_itself(mean, log_var):
    return 0.5 * (log_var**2 + mean**2 - 1 - (log_var**2).log()).sum((1, 2, 3))


@kl_nats.mistake("exp(log_var) and log_var have changed signs: the variance is added, its logarithm subtracted.")
def kl_signs_exchanged(mean, log_var):
    return 0.5 * (log_var + mean**2 - 1 - log_var.exp()).sum((1, 2, 3))


# 12.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "12.2",
    title="Decibels",
    hints=(
        "First the mean squared error: one number, the mean over pictures, channels, rows and columns.",
        "The largest error a pixel can have is from -1 to 1: the peak is 2, and its square stands above the error.",
        "torch.log10 is the logarithm to base 10. It takes a tensor.",
    ),
)
def psnr_db(x: Tensor, y: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of y against x in decibels: 10 log10(peak^2 / mse).

    The peak is the width of the range of a pixel, which is 2 in [-1, 1]; mse is the mean squared error over
    everything: the pictures, their channels and pixels. What is averaged is the error, not the pictures' decibels.

    x, y: (b, 3, h, w), in [-1, 1]: the pictures and what came back of them, y different from x.
    Returns the ratio in dB, a tensor of shape ().
    """
    return 10 * torch.log10(4 / (x - y).square().mean())


def rebuilt(rng: torch.Generator, b: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Pictures (b, 3, h, w) and what came back of them: the first off by a hundredth or so, the last by a third."""
    x = 0.9 * normal(rng, b, 3, h, w).tanh()
    error = torch.logspace(-2, -0.5, b)[:, None, None, None] * torch.tensor([1.0, 0.5, 2.0])[:, None, None]
    return x, (x + error * (0.3 + normal(rng, b, 3, h, w))).clamp(-1, 1)


@psnr_db.check
def test_psnr_matches_the_formula(student, rng):
    """agrees with the formula, for several numbers of pictures and sizes"""
    for b, h, w in ((4, 5, 7), (2, 8, 8), (6, 3, 4)):
        x, y = rebuilt(rng, b, h, w)
        x.view(-1)[0] = -(1 + x.abs().max()) / 2  # of the largest size, and not the largest
        agree(student.psnr_db(x, y), psnr_db(x, y))


@psnr_db.check
def test_psnr_of_the_largest_error(student, rng):
    """black for white is 0 dB, and an error of 1/10 of the range in every pixel is 20 dB"""
    white, sign = torch.ones(2, 3, 4, 6), normal(rng, 2, 3, 4, 6).sign()
    agree(student.psnr_db(white, -white) + 1, torch.tensor(1.0))
    agree(student.psnr_db(white - 1, 0.2 * sign), torch.tensor(20.0))


@psnr_db.check
def test_psnr_grows_by_20_dB_a_digit(student, rng):
    """an error ten times smaller is 20 dB more, and x and y may change places"""
    x, y = rebuilt(rng, 3, 4, 4)
    agree(student.psnr_db(x, x + (y - x) / 10) - student.psnr_db(x, y), torch.tensor(20.0))
    agree(student.psnr_db(y, x), student.psnr_db(x, y))


@psnr_db.check
def test_psnr_is_of_the_mean_error(student, rng):
    """a second picture with no error at all halves the mean error: 10 log10 2, about 3 dB more"""
    x, y = rebuilt(rng, 1, 6, 5)
    both = student.psnr_db(torch.cat([x, x]), torch.cat([y, x + 1e-6]))
    agree(both - student.psnr_db(x, y), torch.tensor(10 * math.log10(2)))


def _error(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean()


def _decibels(ratio: Tensor) -> Tensor:
    return 10 * ratio.log10()


@psnr_db.mistake("Your peak is 1, the largest value. From -1 to 1 a pixel can be off by 2, and that is the peak.")
def peak_one(x, y):
    return _decibels(1 / _error(x, y))


@psnr_db.mistake("Your peak is 255, that of whole numbers 0..255. These pictures lie in [-1, 1]: the peak is 2.")
def peak_255(x, y):
    return _decibels(255**2 / _error(x, y))


@psnr_db.mistake("You did not square the peak. It is set against a squared error, so it is peak^2 = 4.")
def peak_not_squared(x, y):
    return _decibels(2 / _error(x, y))


@psnr_db.mistake("You took the peak from the pictures at hand, their widest range. It belongs to the format: 2.")
def peak_from_range(x, y):
    return _decibels((x.max() - x.min()) ** 2 / _error(x, y))


@psnr_db.mistake("You took the largest value of x for the peak. The peak is the width of the whole range, 2.")
def peak_from_largest(x, y):
    return _decibels(x.max() ** 2 / _error(x, y))


@psnr_db.mistake(
    "You set 4^2 against the mse: either the peak is squared twice, or the pictures were brought to [0, 1] and the "
    "peak was left at 2."
)
def range_halved(x, y):
    return psnr_db(x / 2, y / 2)


@psnr_db.mistake(
    "You compared with the mean square of x: that is the signal-to-noise ratio. PSNR takes the peak's square, 4."
)
def mean_square_for_peak(x, y):
    return _decibels(x.square().mean() / _error(x, y))


@psnr_db.mistake("You compared with the variance of x. PSNR takes the peak's square, 4, the same for every picture.")
def variance_for_peak(x, y):
    return _decibels(x.var() / _error(x, y))


@psnr_db.mistake("20 log10 belongs to peak / root of the mse. With squares, peak^2 / mse, it is 10 log10.")
def twenty_of_squares(x, y):
    return 2 * psnr_db(x, y)


@psnr_db.mistake("20 log10 goes with the root of the mse: you set the peak as it is against a squared error.")
def twenty_without_root(x, y):
    return 20 * (2 / _error(x, y)).log10()


@psnr_db.mistake("You took the root of the mse and kept 10 log10. With peak / root of the mse it is 20 log10.")
def ten_with_root(x, y):
    return psnr_db(x, y) / 2


@psnr_db.mistake("You took the root of the mse but squared the peak. Square both, or neither and use 20 log10.")
def root_of_the_error_alone(x, y):
    return _decibels(4 / _error(x, y).sqrt())


@psnr_db.mistake("You used the natural logarithm. Decibels are 10 times the logarithm to base 10, torch.log10.")
def natural_logarithm(x, y):
    return 10 * (4 / _error(x, y)).log()


@psnr_db.mistake("You used the logarithm to base 2. Decibels are 10 times the logarithm to base 10, torch.log10.")
def logarithm_to_base_2(x, y):
    return 10 * (4 / _error(x, y)).log2()


@psnr_db.mistake("The factor 10 is missing: without it the unit is the bel. A decibel is a tenth of one.")
def in_bels(x, y):
    return (4 / _error(x, y)).log10()


@psnr_db.mistake("You returned the ratio itself. In decibels it is 10 times its logarithm to base 10.")
def ratio_itself(x, y):
    return 4 / _error(x, y)


@psnr_db.mistake("You returned the mean squared error. PSNR sets it against peak^2, in decibels.")
def error_itself(x, y):
    return _error(x, y)


@psnr_db.mistake("The ratio is upside down: peak^2 stands above the error. The better the copy, the more decibels.")
def upside_down(x, y):
    return -psnr_db(x, y)


@psnr_db.mistake("You divided the logarithm of peak^2 by the error. The logarithm is that of their ratio.")
def logarithm_of_peak_alone(x, y):
    return 10 * math.log10(4) / _error(x, y)


@psnr_db.mistake("You divided one logarithm by the other. The logarithm of a ratio is their difference.")
def logarithms_divided(x, y):
    return 10 * math.log10(4) / _error(x, y).log10()


@psnr_db.mistake("You added the logarithm of the error. log10(peak^2 / mse) is log10(peak^2) - log10(mse).")
def logarithms_added(x, y):
    return _decibels(4 * _error(x, y))


@psnr_db.mistake("You averaged the pictures' decibels. The mean error comes first, and then its logarithm.")
def mean_of_pictures(x, y):
    return _decibels(4 / (x - y).square().mean((1, 2, 3))).mean()


@psnr_db.mistake("You have one number for each picture. Asked for is one for all: the mean error of all of them.")
def one_for_each_picture(x, y):
    return _decibels(4 / (x - y).square().mean((1, 2, 3)))


@psnr_db.mistake("You averaged the decibels of the channels. Average the error over everything, then the logarithm.")
def mean_of_channels(x, y):
    return _decibels(4 / (x - y).square().mean((0, 2, 3))).mean()


@psnr_db.mistake("You averaged the decibels of the channels of each picture. Average the error, then the logarithm.")
def mean_of_channels_of_pictures(x, y):
    return _decibels(4 / (x - y).square().mean((2, 3))).mean()


@psnr_db.mistake("You took each pixel's decibels and averaged those. The mean error comes first.")
def mean_of_pixels(x, y):
    return _decibels(4 / (x - y).square()).mean()


@psnr_db.mistake("You averaged the pictures' ratios. The mean is that of the error, below the fraction line.")
def mean_of_ratios(x, y):
    return _decibels((4 / (x - y).square().mean((1, 2, 3))).mean())


@psnr_db.mistake("You averaged absolute errors and set them against a squared peak. Square the errors.")
def absolute_against_square(x, y):
    return _decibels(4 / (x - y).abs().mean())


@psnr_db.mistake("You averaged absolute errors. The root of the mean square is larger wherever errors differ.")
def absolute_with_twenty(x, y):
    return 20 * (2 / (x - y).abs().mean()).log10()


@psnr_db.mistake("You averaged absolute errors, and 2 / error with 10 log10 is of neither form. Square the errors.")
def absolute_with_ten(x, y):
    return _decibels(2 / (x - y).abs().mean())


@psnr_db.mistake("You summed the squared errors. It is their mean: the sum grows with the size of the pictures.")
def error_summed(x, y):
    return _decibels(4 / (x - y).square().sum())


@psnr_db.mistake("You summed each picture's squared errors and averaged over the batch. Average over pixels, too.")
def error_summed_in_picture(x, y):
    return _decibels(4 / (x - y).square().sum((1, 2, 3)).mean())


@psnr_db.mistake("You summed the error over the three channels. The mean is over the channels as well.")
def error_summed_over_channels(x, y):
    return _decibels(4 / (x - y).square().sum(1).mean())


@psnr_db.mistake("You averaged each picture's error and summed over the batch. The mean is over the pictures, too.")
def error_summed_over_batch(x, y):
    return _decibels(4 / (x - y).square().mean((1, 2, 3)).sum())


@psnr_db.mistake("You averaged the differences before squaring: errors of opposite sign then cancel.")
def averaged_before_squaring(x, y):
    return _decibels(4 / (x - y).mean().square())


@psnr_db.mistake("You took the variance of the error: its mean, a picture too bright or too dark, counts as well.")
def variance_of_error(x, y):
    return _decibels(4 / (x - y).var())


@psnr_db.mistake("You took the largest squared error. The peak is a property of the range; the error is a mean.")
def largest_error(x, y):
    return _decibels(4 / (x - y).square().max())


@psnr_db.mistake("Your peak is 1, and 20 log10 goes with the root of the mse. It is 10 log10(peak^2 / mse), peak 2.")
def peak_one_and_twenty(x, y):
    return 20 * (1 / _error(x, y)).log10()


@psnr_db.mistake("You took the largest size in x for the peak. The peak is the width of the whole range, 2.")
def peak_from_largest_size(x, y):
    return _decibels(x.abs().max() ** 2 / _error(x, y))


@psnr_db.mistake("You divided by the length of the error, the root of a sum. The mse is the mean of the squares.")
def length_of_error(x, y):
    return _decibels(4 / (x - y).norm())


@psnr_db.mistake("4 / sum / count divides by the count as well. The mse is sum / count: it needs brackets.")
def divided_twice(x, y):
    return _decibels(4 / (x - y).square().sum() / x.numel())


# 12.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "12.3",
    title="What an eye sees",
    hints=(
        "Axis 1 holds the channels. A place's length is f.square().sum(1, keepdim=True).sqrt(), (b, 1, h, w); "
        "F.normalize(f, dim=1) divides by it.",
        "One layer: the squared distance is .square().sum(1), (b, h, w). Its mean over the places is .mean((1, 2)), "
        "(b,).",
        "The layers have maps of different shapes: zip(f, g) walks through both lists, and what is summed is (b,).",
    ),
)
def perceptual(f: list[Tensor], g: list[Tensor]) -> Tensor:
    """Compute how differently a network sees two pictures (Zhang et al. 2018, eq. 1, with all weights 1).

    At each place of each layer the c_l numbers of both maps are vectors: scale each to length 1. The squared distance
    of the two is summed over the channels, averaged over the places of the layer, and summed over the layers.

    f: list of (b, c_l, h_l, w_l), the maps of the layers l for the pictures x. No vector is 0.
    g: the same for the pictures y.
    Returns one distance for each pair of pictures, (b,).
    """
    distance = torch.zeros(len(f[0]))
    for f_l, g_l in zip(f, g, strict=True):
        apart = F.normalize(f_l, dim=1) - F.normalize(g_l, dim=1)
        distance = distance + apart.square().sum(1).mean((1, 2))
    return distance


LAYERS = ((3, 6, 4), (4, 3, 5), (7, 2, 2))  # channels, rows and columns of a small network's maps
LIKE_THE_BATCH = ((3, 3, 3), (3, 3, 3))  # of three pictures: a wrong axis then raises no error


def maps(rng: torch.Generator, b: int, layers: tuple[tuple[int, int, int], ...] = LAYERS) -> list[Tensor]:
    """Maps (b, c, h, w), whose sizes differ from channel to channel and from place to place."""
    sizes = [
        (0.3 + torch.rand(b, c, 1, 1, generator=rng), 0.2 + torch.rand(b, 1, h, w, generator=rng)) for c, h, w in layers
    ]
    return [2 * u * v * (0.5 + normal(rng, b, *shape)) for (u, v), shape in zip(sizes, layers, strict=True)]


@perceptual.check
def test_perceptual_matches_eq_1(student, rng):
    """agrees with eq. 1 on maps of three layers, and of two layers as large as the batch"""
    for b, layers in ((2, LAYERS), (5, LAYERS), (3, LIKE_THE_BATCH)):
        f, g = maps(rng, b, layers), maps(rng, b, layers)
        agree(student.perceptual(f, g), perceptual(f, g))


@perceptual.check
def test_perceptual_sees_directions_alone(student, rng):
    """stays the same when the vector of each place is made longer or shorter"""
    f, g = maps(rng, 4), maps(rng, 4)
    longer = [(0.5 + 2 * torch.rand(len(f_l), 1, *f_l.shape[2:], generator=rng)) * f_l for f_l in f]
    agree(student.perceptual(longer, g), student.perceptual(f, g))


@perceptual.check
def test_perceptual_from_0_to_4(student, rng):
    """0 for the same maps; opposite vectors are 2 apart, so their squared distance is 4 a layer"""
    f = maps(rng, 3)
    agree(student.perceptual(f, f) + 1, torch.ones(3))
    agree(student.perceptual(f, [-f_l for f_l in f]), torch.full((3,), 4.0 * len(f)))


@perceptual.check
def test_perceptual_adds_over_layers(student, rng):
    """the layers one by one add up to all of them"""
    f, g = maps(rng, 4), maps(rng, 4)
    alone = [student.perceptual([f_l], [g_l]) for f_l, g_l in zip(f, g, strict=True)]
    agree(student.perceptual(f, g), torch.stack(alone).sum(0))


def _over_layers(f, g, layer) -> Tensor:
    """The sum over the layers of `layer(f_l, g_l)`."""
    return torch.stack([layer(f_l, g_l) for f_l, g_l in zip(f, g, strict=True)]).sum(0)


def _units(f_l: Tensor, g_l: Tensor) -> Tensor:
    """The difference of the vectors of length 1, (b, c, h, w)."""
    return F.normalize(f_l, dim=1) - F.normalize(g_l, dim=1)


def _squared(difference: Tensor) -> Tensor:
    """(b, c, h, w) -> (b,): the rest of the formula."""
    return difference.square().sum(1).mean((1, 2))


def _scaled(scale):
    """The distance with both maps scaled by `scale` instead."""
    return lambda f, g: _over_layers(f, g, lambda f_l, g_l: _squared(scale(f_l) - scale(g_l)))


@perceptual.mistake(
    "You did not scale the vectors to length 1: a layer with large numbers, or a bright place, then outweighs all else."
)
def not_scaled(f, g):
    return _scaled(lambda f_l: f_l)(f, g)


@perceptual.mistake("You scaled along the columns. A place's vector lies along the channels, axis 1.")
def scaled_along_columns(f, g):
    return _scaled(lambda f_l: F.normalize(f_l, dim=-1))(f, g)


@perceptual.mistake("You scaled along the rows. A place's vector lies along the channels, axis 1.")
def scaled_along_rows(f, g):
    return _scaled(lambda f_l: F.normalize(f_l, dim=2))(f, g)


@perceptual.mistake("You scaled along the batch. A place's vector lies along the channels, axis 1.")
def scaled_along_batch(f, g):
    return _scaled(lambda f_l: F.normalize(f_l, dim=0))(f, g)


@perceptual.mistake(
    "You scaled each channel's map to length 1 over the places. Scale the vector of each place, along the channels."
)
def scaled_over_places(f, g):
    return _scaled(lambda f_l: F.normalize(f_l.flatten(2), dim=2).view_as(f_l))(f, g)


@perceptual.mistake(
    "You scaled each picture's whole map to length 1. Scale the vector of each place, along the channels."
)
def scaled_whole(f, g):
    return _scaled(lambda f_l: F.normalize(f_l.flatten(1), dim=1).view_as(f_l))(f, g)


@perceptual.mistake("You divided by the sum of absolute values. The length is the root of the sum of squares.")
def scaled_to_sum_of_sizes(f, g):
    return _scaled(lambda f_l: F.normalize(f_l, p=1, dim=1))(f, g)


@perceptual.mistake(
    "You divided by the sum of the channels, which may be near 0. The length is the root of the squares' sum."
)
def scaled_to_sum(f, g):
    return _scaled(lambda f_l: f_l / f_l.sum(1, keepdim=True))(f, g)


@perceptual.mistake("You divided by the squared length. The root is missing: the vectors' length is then not 1.")
def scaled_by_squared_length(f, g):
    return _scaled(lambda f_l: f_l / f_l.square().sum(1, keepdim=True))(f, g)


@perceptual.mistake("You divided by the root of the mean square over the channels. The length has the sum of squares.")
def scaled_by_mean_square(f, g):
    return _scaled(lambda f_l: f_l / f_l.square().mean(1, keepdim=True).sqrt())(f, g)


@perceptual.mistake("You divided by the largest channel. The vectors then have other lengths than 1.")
def scaled_by_largest(f, g):
    return _scaled(lambda f_l: f_l / f_l.abs().amax(1, keepdim=True))(f, g)


@perceptual.mistake("You took a softmax over the channels: shares that sum to 1. A vector of length 1 is f / |f|.")
def softmax_for_scaling(f, g):
    return _scaled(lambda f_l: f_l.softmax(1))(f, g)


@perceptual.mistake("You subtracted the mean over the channels as well. Eq. 1 scales the vector, and nothing else.")
def centred(f, g):
    return _scaled(lambda f_l: F.normalize(f_l - f_l.mean(1, keepdim=True), dim=1))(f, g)


@perceptual.mistake("You standardised over the channels: mean 0 and deviation 1. Eq. 1 scales to length 1.")
def standardised(f, g):
    return _scaled(lambda f_l: (f_l - f_l.mean(1, keepdim=True)) / f_l.var(1, correction=0, keepdim=True).sqrt())(f, g)


@perceptual.mistake(
    "You scaled the difference. Scale f and g each, then subtract: a difference of length 1 says nothing any more."
)
def difference_scaled(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _squared(F.normalize(f_l - g_l, dim=1)))


@perceptual.mistake("You scaled the vectors of x alone. Those of y are scaled to length 1 as well.")
def second_not_scaled(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _squared(F.normalize(f_l, dim=1) - g_l))


@perceptual.mistake("You averaged over the channels. The squared distance of two vectors is a sum over them.")
def averaged_over_channels(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).square().mean((1, 2, 3)))


@perceptual.mistake("You summed over the places. Average over them: a layer with more places is not more important.")
def summed_over_places(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).square().sum((1, 2, 3)))


@perceptual.mistake("You exchanged sum and mean: the channels are summed, and the places averaged.")
def sum_and_mean_exchanged(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).square().mean(1).sum((1, 2)))


@perceptual.mistake(
    "You have the last layer alone. All layers add up: set the sum to 0 before the loop, return after it."
)
def last_layer(f, g):
    return _squared(_units(f[-1], g[-1]))


@perceptual.mistake("You have the first layer alone. All layers add up: return after the loop, not inside it.")
def first_layer(f, g):
    return _squared(_units(f[0], g[0]))


@perceptual.mistake("You averaged over the layers. In eq. 1 they are summed.")
def averaged_over_layers(f, g):
    return perceptual(f, g) / len(f)


@perceptual.mistake("You have one number for each layer. In eq. 1 the layers are summed.")
def layers_not_summed(f, g):
    return torch.stack([_squared(_units(f_l, g_l)) for f_l, g_l in zip(f, g, strict=True)])


@perceptual.mistake("You weighed the layers by their places, as one list of all places. Average within each layer.")
def places_pooled(f, g):
    apart = [_units(f_l, g_l).square().sum(1).flatten(1) for f_l, g_l in zip(f, g, strict=True)]
    return torch.cat(apart, 1).mean(1)


@perceptual.mistake("You took the root at each place: the distance. Eq. 1 has its square.")
def distance_not_squared(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).norm(dim=1).mean((1, 2)))


@perceptual.mistake("You took a root of the whole at the end. Eq. 1 is the mean of the squared distances.")
def root_at_the_end(f, g):
    return perceptual(f, g).sqrt()


@perceptual.mistake("You took a root of each layer. Eq. 1 adds up the layers' mean squared distances as they are.")
def root_of_each_layer(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _squared(_units(f_l, g_l)).sqrt())


@perceptual.mistake("You summed absolute differences of the channels. Eq. 1 has their squares.")
def absolute_differences(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).abs().sum(1).mean((1, 2)))


@perceptual.mistake("You summed the differences over the channels before squaring: those of opposite sign cancel.")
def summed_before_squaring(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).sum(1).square().mean((1, 2)))


@perceptual.mistake(
    "You averaged the differences over the places before squaring: where the picture differs would then not count."
)
def places_averaged_before_squaring(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).mean((2, 3)).square().sum(1))


@perceptual.mistake("You averaged the maps over the places first. Eq. 1 compares the two maps place by place.")
def maps_averaged_first(f, g):
    return _over_layers(
        f,
        g,
        lambda f_l, g_l: (F.normalize(f_l.mean((2, 3)), dim=1) - F.normalize(g_l.mean((2, 3)), dim=1)).square().sum(1),
    )


def _cosines(f, g) -> Tensor:
    return _over_layers(f, g, lambda f_l, g_l: F.cosine_similarity(f_l, g_l, dim=1).mean((1, 2)))


@perceptual.mistake("You returned the cosines, which are 1 where both are alike. A distance is 0 there.")
def cosine(f, g):
    return _cosines(f, g)


@perceptual.mistake("1 - cos is half of it: the squared distance of two vectors of length 1 is 2 - 2 cos.")
def one_minus_cosine(f, g):
    return len(f) - _cosines(f, g)


@perceptual.mistake("You subtracted the summed cosines from 1. Each layer has its own 2 - 2 cos.")
def one_minus_all_cosines(f, g):
    return 1 - _cosines(f, g)


@perceptual.mistake("You averaged over the batch. Each pair of pictures has its own distance.")
def perceptual_averaged_over_batch(f, g):
    return perceptual(f, g).mean()


@perceptual.mistake("You summed over the batch. Each pair of pictures has its own distance.")
def perceptual_summed_over_batch(f, g):
    return perceptual(f, g).sum()


@perceptual.mistake("You averaged over everything in a layer, channels and batch too. Each pair has its own distance.")
def averaged_over_everything(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).square().mean())


@perceptual.mistake(
    "You did not scale the vectors and averaged over the channels: that is the maps' mean squared error."
)
def mean_squared_error_of_maps(f, g):
    return _over_layers(f, g, lambda f_l, g_l: (f_l - g_l).square().mean((1, 2, 3)))


@perceptual.mistake(
    "You averaged over axes 0 and 1 after the sum, the batch and the rows. The places are axes 1 and 2 then."
)
def wrong_places(f, g):
    parts = [_units(f_l, g_l).square().sum(1).mean((0, 1)) for f_l, g_l in zip(f, g, strict=True)]
    if len({part.shape for part in parts}) > 1:
        return sum(parts)  # as the learner's own loop would: torch says that the sizes do not match
    return torch.stack(parts).sum(0)


@perceptual.mistake(
    "You scaled the maps of the whole batch to one length. Scale the vector of each place, along the channels."
)
def scaled_batch(f, g):
    return _scaled(lambda f_l: f_l / f_l.norm())(f, g)


@perceptual.mistake("You took 1 - cos of the flattened maps. Compare place by place: a vector has the channels alone.")
def one_minus_flat_cosine(f, g):
    return _over_layers(f, g, lambda f_l, g_l: 1 - F.cosine_similarity(f_l.flatten(1), g_l.flatten(1)))


@perceptual.mistake(
    "You took 2 - 2 cos of the flattened maps. Compare place by place: a vector has the channels alone."
)
def flat_cosine(f, g):
    return 2 * one_minus_flat_cosine(f, g)


@perceptual.mistake("You averaged the cosines over the layers and took 1 - that. Each layer adds 2 - 2 cos.")
def one_minus_mean_cosine(f, g):
    return 1 - _cosines(f, g) / len(f)


@perceptual.mistake("You averaged over the channels and over the layers. Both are sums; only the places are averaged.")
def averaged_over_channels_and_layers(f, g):
    return averaged_over_channels(f, g) / len(f)


@perceptual.mistake(
    "You did not scale the vectors and took their distance. Scale each to length 1, and square the distance."
)
def distance_not_scaled(f, g):
    return _over_layers(f, g, lambda f_l, g_l: (f_l - g_l).norm(dim=1).mean((1, 2)))


@perceptual.mistake("You summed over the rows and averaged over the columns. The places are both: average over all.")
def summed_over_rows(f, g):
    return _over_layers(f, g, lambda f_l, g_l: _units(f_l, g_l).square().sum((1, 2)).mean(1))


# 12.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "12.4",
    title="One number for unit variance",
    hints=(
        "Multiplying by s multiplies the deviation by s. What must s be for the product to be 1?",
        "One mean and one deviation, over everything: z.mean() takes the mean over all axes at once.",
        "z.std() divides by the count less one; z.std(correction=0) divides by the count.",
    ),
)
def scale_factor(z: Tensor) -> Tensor:
    """Compute the s for which s z has deviation 1 (Rombach et al. 2022, appendix G).

    The deviation is that about the mean, both over everything: the n latents, their channels, rows and columns. It is
    the root of the sum of squares over their count (not over the count less one). One s serves all channels.

    z: (n, c, h, w), the latents of n pictures; not all numbers are the same.
    Returns s, a tensor of shape ().
    """
    return 1 / (z - z.mean()).square().mean().sqrt()


def latents(rng: torch.Generator, n: int, c: int, h: int, w: int) -> Tensor:
    """(n, c, h, w): each channel and each latent with a mean and a deviation of its own."""
    spread = (0.5 + 2 * torch.rand(1, c, 1, 1, generator=rng)) * (0.5 + torch.rand(n, 1, 1, 1, generator=rng))
    return 0.7 + normal(rng, 1, c, 1, 1) + normal(rng, n, 1, 1, 1) + spread * normal(rng, n, c, h, w)


@scale_factor.check
def test_scale_matches_the_definition(student, rng):
    """agrees with the definition for latents of several sizes"""
    for shape in ((6, 4, 3, 3), (2, 3, 2, 2), (5, 2, 4, 1)):
        z = latents(rng, *shape)
        agree(student.scale_factor(z), scale_factor(z))


@scale_factor.check
def test_scale_gives_unit_deviation(student, rng):
    """s z has deviation 1, wide latents or narrow ones"""
    for width in (0.05, 1.0, 20.0):
        z = width * latents(rng, 4, 4, 5, 5)
        agree((student.scale_factor(z) * z).std(correction=0), torch.tensor(1.0))


@scale_factor.check
def test_scale_knows_no_place(student, rng):
    """the same number added to all leaves s as it is; latents three times as wide need a third of it"""
    z = latents(rng, 5, 3, 4, 4)
    s = student.scale_factor(z)
    agree(student.scale_factor(z - 4), s)
    agree(student.scale_factor(3 * z), s / 3)


@scale_factor.mistake("You returned the deviation. z has to be divided by it, so the factor is its inverse.")
def deviation_itself(z):
    return z.std(correction=0)


@scale_factor.mistake("You returned the variance. z has to be divided by its root, the deviation.")
def scale_variance(z):
    return z.var(correction=0)


@scale_factor.mistake("You divided by the variance. Multiplying by s multiplies the variance by s^2: take its root.")
def one_over_variance(z):
    return 1 / z.var(correction=0)


@scale_factor.mistake("You took one root too many: z.std() is the root of the variance already.")
def root_of_deviation(z):
    return z.std(correction=0) ** -0.5


@scale_factor.mistake(
    "You divided by the count less one, torch's default. The statement has the count itself: std(correction=0)."
)
def count_less_one(z):
    return 1 / z.std()


@scale_factor.mistake(
    "You returned the deviation, over the count less one. Asked for is its inverse, and over the count."
)
def deviation_less_one(z):
    return z.std()


@scale_factor.mistake(
    "You did not subtract the mean: that is the root mean square, and a common shift of z would change s."
)
def mean_not_subtracted(z):
    return 1 / z.square().mean().sqrt()


@scale_factor.mistake("You have a factor for each channel. One s for all keeps the channels' shares: take all axes.")
def one_for_each_channel(z):
    return 1 / z.std((0, 2, 3), correction=0)


@scale_factor.mistake("You have a factor for each latent. One s serves all: take the deviation over the batch as well.")
def one_for_each_latent(z):
    return 1 / z.std((1, 2, 3), correction=0)


@scale_factor.mistake("You averaged the channels' deviations: how far their means lie apart is then left out.")
def mean_of_channel_deviations(z):
    return 1 / z.std((0, 2, 3), correction=0).mean()


@scale_factor.mistake("You averaged the channels' factors. Take one deviation over all channels, and its inverse.")
def mean_of_channel_factors(z):
    return (1 / z.std((0, 2, 3), correction=0)).mean()


@scale_factor.mistake("You averaged the latents' deviations: how far their means lie apart is then left out.")
def mean_of_latent_deviations(z):
    return 1 / z.std((1, 2, 3), correction=0).mean()


@scale_factor.mistake("You averaged the latents' factors. Take one deviation over all latents, and its inverse.")
def mean_of_latent_factors(z):
    return (1 / z.std((1, 2, 3), correction=0)).mean()


@scale_factor.mistake("You averaged the latents' deviations, each over the count less one. Take one, over everything.")
def mean_of_latent_deviations_less_one(z):
    return 1 / z.std((1, 2, 3)).mean()


@scale_factor.mistake("You averaged the channels' deviations, each over the count less one. Take one, over everything.")
def mean_of_channel_deviations_less_one(z):
    return 1 / z.std((0, 2, 3)).mean()


@scale_factor.mistake("You subtracted each channel's own mean. The deviation is about the one mean of everything.")
def about_channel_means(z):
    return 1 / (z - z.mean((0, 2, 3), keepdim=True)).square().mean().sqrt()


@scale_factor.mistake("You subtracted each latent's own mean. The deviation is about the one mean of everything.")
def about_latent_means(z):
    return 1 / (z - z.mean((1, 2, 3), keepdim=True)).square().mean().sqrt()


@scale_factor.mistake("You subtracted the mean over the batch alone, place by place. The mean is over all axes.")
def about_mean_latent(z):
    return 1 / (z - z.mean(0)).square().mean().sqrt()


@scale_factor.mistake("You averaged the deviations of each place over the batch. Take one deviation, over everything.")
def mean_of_place_deviations(z):
    return 1 / z.std(0, correction=0).mean()


@scale_factor.mistake("You divided by the largest size: that brings z into [-1, 1], and its deviation below 1.")
def one_over_largest(z):
    return 1 / z.abs().max()


@scale_factor.mistake(
    "You divided by the largest value. The deviation is the root of the mean squared distance from the mean."
)
def one_over_maximum(z):
    return 1 / z.max()


@scale_factor.mistake("You divided by the range. It grows with the number of latents; the deviation does not.")
def one_over_range(z):
    return 1 / (z.max() - z.min())


@scale_factor.mistake("You brought the range to width 2, as of pictures in [-1, 1]. Asked for is deviation 1.")
def two_over_range(z):
    return 2 / (z.max() - z.min())


@scale_factor.mistake("You averaged the distances from the mean. The deviation is the root of their mean square.")
def mean_absolute_deviation(z):
    return 1 / (z - z.mean()).abs().mean()


@scale_factor.mistake("You divided by the mean size of z. The deviation is about the mean, and of squares.")
def mean_absolute(z):
    return 1 / z.abs().mean()


@scale_factor.mistake("You divided by the mean. The deviation says how wide z is, not where it lies.")
def one_over_mean(z):
    return 1 / z.mean()


@scale_factor.mistake("You summed the squares and did not divide by their count: that is a length, not a deviation.")
def squares_summed(z):
    return 1 / (z - z.mean()).square().sum().sqrt()


@scale_factor.mistake(
    "You divided by the length of z, a sum of squares about 0. The deviation is a mean, about the mean."
)
def one_over_length(z):
    return 1 / z.norm()


@scale_factor.mistake("You averaged before squaring: the distances from the mean cancel, and rounding is left.")
def scale_averaged_before_squaring(z):
    return 1 / (z - z.mean()).mean().square().sqrt()


@scale_factor.mistake("You returned the scaled latents. Asked for is the factor alone: one number.")
def scaled_latents(z):
    return z * scale_factor(z)


@scale_factor.mistake("You returned the standardised latents. Asked for is the factor alone, and the mean stays in z.")
def standardised_latents(z):
    return (z - z.mean()) * scale_factor(z)


@scale_factor.mistake(
    "0.18215 is the factor of Stable Diffusion's autoencoder. Each autoencoder has its own: compute it."
)
def stable_diffusions(z):
    return torch.tensor(0.18215)


@scale_factor.mistake("You took the first latent alone. Its deviation is not that of all: use the whole of z.")
def first_latent(z):
    return scale_factor(z[:1])


@scale_factor.mistake("You divided by the variance, over the count less one. Divide by its root, over the count.")
def one_over_variance_less_one(z):
    return 1 / z.var()


@scale_factor.mistake("You returned the root mean square. The deviation is about the mean, and s is its inverse.")
def root_mean_square_itself(z):
    return z.square().mean().sqrt()


@scale_factor.mistake("You divided by the mean square. Subtract the mean first, and take the root.")
def one_over_mean_square(z):
    return 1 / z.square().mean()


@scale_factor.mistake("You took the root of the deviation, which is a root already. s is the deviation's inverse.")
def root_of_deviation_itself(z):
    return z.std(correction=0).sqrt()


@scale_factor.mistake("You have a factor for each channel, over the count less one. One s serves all channels.")
def one_for_each_channel_less_one(z):
    return 1 / z.std((0, 2, 3))


@scale_factor.mistake("You have a factor for each latent, over the count less one. One s serves all latents.")
def one_for_each_latent_less_one(z):
    return 1 / z.std((1, 2, 3))


@scale_factor.mistake(
    "You have a factor for each number of a latent. One s serves all: take the deviation over everything."
)
def one_for_each_place(z):
    return 1 / z.std(0, correction=0)


@scale_factor.mistake("You have a factor for each number of a latent, over the count less one. One s serves all.")
def one_for_each_place_less_one(z):
    return 1 / z.std(0)


@scale_factor.mistake("You averaged the channels' factors, each over the count less one. Take one, over everything.")
def mean_of_channel_factors_less_one(z):
    return (1 / z.std((0, 2, 3))).mean()


@scale_factor.mistake("You averaged the latents' factors, each over the count less one. Take one, over everything.")
def mean_of_latent_factors_less_one(z):
    return (1 / z.std((1, 2, 3))).mean()


@scale_factor.mistake(
    "You averaged each place's deviation over the batch, over the count less one. Take one, over everything."
)
def mean_of_place_deviations_less_one(z):
    return 1 / z.std(0).mean()


@scale_factor.mistake("You averaged the deviations of the single maps: how far their means lie apart is then left out.")
def mean_of_map_deviations(z):
    return 1 / z.std((2, 3), correction=0).mean()


@scale_factor.mistake(
    "You divided the sum of squares by the number of latents. Divide by the count of all their numbers."
)
def divided_by_latents(z):
    return 1 / ((z - z.mean()).square().sum() / len(z)).sqrt()


# 12.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "12.5",
    title="There and back",
    hints=(
        "On the way in: first the scale, then the noise. Diffusion knows x_0 = s z alone.",
        "On the way back everything is undone in reverse order: subtract the noise, divide by a, divide by s.",
    ),
)
def noised_latent(z: Tensor, s: float, a: float, b: float, eps: Tensor) -> list[Tensor]:
    """Take a latent z into diffusion, and from there back to the decoder (Rombach et al. 2022; C24).

    In: x_0 = s z, which has deviation 1, and x_t = a x_0 + b eps.
    Back: given x_t and the true eps, solve for x_0, and undo the scale. The decoder takes latents as z was.

    z: (n, c, h, w), latents as the encoder gives them.
    s: the scale factor, above 0.
    a, b: the factors of signal and noise at time t, a^2 + b^2 = 1, a above 0.
    eps: like z, the noise.
    Returns [x_t, back], both like z.
    """
    x_0 = s * z
    x_t = a * x_0 + b * eps
    return [x_t, (x_t - b * eps) / a / s]


def journey(rng: torch.Generator, *shape: int) -> tuple[Tensor, float, float, float, Tensor]:
    """z of a deviation that s brings to about 1, s away from 1, and a and b away from each other."""
    u, v = torch.rand(2, generator=rng).tolist()
    s = 0.2 + 0.4 * u
    angle = 0.25 + 0.35 * v  # a in 0.83..0.97, b in 0.25..0.56
    return normal(rng, *shape) / s, s, math.cos(angle), math.sin(angle), normal(rng, *shape)


@noised_latent.check
def test_noised_matches_the_formula(student, rng):
    """x_t and what goes to the decoder agree with the formulas, for latents of several sizes"""
    for shape in ((2, 4, 3, 5), (3, 3, 3, 3), (1, 4, 4, 4)):
        args = journey(rng, *shape)
        agree(student.noised_latent(*args), noised_latent(*args))
    z, s, a, b, eps = journey(rng, 2, 4, 4, 4)
    agree(student.noised_latent(z / 9, 9 * s, b, a, eps), noised_latent(z / 9, 9 * s, b, a, eps))


@noised_latent.check
def test_noised_comes_back(student, rng):
    """what goes to the decoder is z itself, whatever the scale and the noise"""
    for s in (0.18, 1.0, 5.0):
        z, _, a, b, eps = journey(rng, 2, 4, 3, 3)
        agree(student.noised_latent(z, s, a, b, eps)[1], z)


@noised_latent.check
def test_noised_keeps_deviation_1(student, rng):
    """with the right s, x_t has deviation 1 at every noise level"""
    z, eps = 3 * normal(rng, 50, 4, 10, 10), normal(rng, 50, 4, 10, 10)
    s = scale_factor(z).item()
    for angle in (0.2, 0.8, 1.4):
        x_t, _ = student.noised_latent(z, s, math.cos(angle), math.sin(angle), eps)
        # 6 standard errors of the variance of 20,000 numbers are 6 sqrt(2 / 20,000), or 0.06; the deviation's are half
        assert abs(x_t.std().item() - 1) < 0.03


@noised_latent.check
def test_noised_without_noise(student, rng):
    """at a = 1, b = 0 it is x_0 = s z, and the noise is nowhere"""
    z, s, _, _, eps = journey(rng, 2, 4, 3, 3)
    agree(student.noised_latent(z, s, 1.0, 0.0, eps), [s * z, z])


def _noised(z, s, a, b, eps) -> Tensor:
    return a * s * z + b * eps


@noised_latent.mistake(
    "The scale is the wrong way round: z is multiplied by s on the way in, and divided by it on the way back."
)
def scale_turned(z, s, a, b, eps):
    return [_noised(z, 1 / s, a, b, eps), z]


@noised_latent.mistake("You divided by s on the way in. s was chosen so that s z has deviation 1: multiply.")
def divided_on_the_way_in(z, s, a, b, eps):
    return [_noised(z, 1 / s, a, b, eps), z / s**2]


@noised_latent.mistake("You multiplied by s on the way back. What was multiplied on the way in is divided.")
def multiplied_on_the_way_back(z, s, a, b, eps):
    return [_noised(z, s, a, b, eps), s**2 * z]


@noised_latent.mistake("You left s out altogether. Diffusion needs deviation 1: x_0 is s z.")
def scale_left_out(z, s, a, b, eps):
    return [_noised(z, 1, a, b, eps), z]


@noised_latent.mistake("You forgot s on the way in: x_0 is s z. On the way back you then divide by what never came in.")
def scale_forgotten_in(z, s, a, b, eps):
    return [_noised(z, 1, a, b, eps), z / s]


@noised_latent.mistake(
    "You forgot s on the way back: what you have is x_0 = s z. The decoder was trained on z, so divide by s."
)
def scale_forgotten_back(z, s, a, b, eps):
    return [_noised(z, s, a, b, eps), s * z]


@noised_latent.mistake("You scaled the noise as well. Only z is multiplied by s; eps has deviation 1 as it is.")
def noise_scaled_too(z, s, a, b, eps):
    x_t = s * (a * z + b * eps)
    return [x_t, (x_t - b * eps) / a / s]


@noised_latent.mistake(
    "You scaled after the noise was added, and undid that rightly. But the noise must stay as it is: x_0 = s z first."
)
def scaled_after_noise(z, s, a, b, eps):
    return [s * (a * z + b * eps), z]


@noised_latent.mistake("You noised z first, scaled the sum on the way in, and forgot s on the way back.")
def scaled_after_noise_not_undone(z, s, a, b, eps):
    x_t = s * (a * z + b * eps)
    return [x_t, (x_t - b * eps) / a]


@noised_latent.mistake(
    "On the way back you divided x_t by s before the noise was out: undo in reverse order, the scale last."
)
def scale_undone_too_early(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t / s - b * eps) / a]


@noised_latent.mistake("You forgot a on the way back: with the noise out, a x_0 is left. Divide by a.")
def signal_factor_forgotten(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t - b * eps) / s]


@noised_latent.mistake("You multiplied by a on the way back. x_t has a x_0 in it: divide by a.")
def signal_factor_multiplied(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, a * (x_t - b * eps) / s]


@noised_latent.mistake("On the way back you divided by a^2, or by a twice. a multiplies x_0 as it is.")
def signal_factor_squared(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t - b * eps) / a**2 / s]


@noised_latent.mistake("You divided x_t alone by a. What is divided is what is left after the noise is taken out.")
def noised_alone_divided(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t / a - b * eps) / s]


@noised_latent.mistake("Brackets: you divided the noise alone by a and s. All of x_t - b eps is divided.")
def noise_alone_divided(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, x_t - b * eps / a / s]


@noised_latent.mistake("You added the noise once more on the way back. To get from x_t to x_0 it is subtracted.")
def noise_added_again(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t + b * eps) / a / s]


@noised_latent.mistake("You subtracted the noise on the way in: x_t = a x_0 + b eps.")
def noise_subtracted(z, s, a, b, eps):
    return [_noised(z, s, a, b, -eps), z]


@noised_latent.mistake("You subtracted the noise on the way in, and once more on the way back.")
def noise_subtracted_twice(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, -eps)
    return [x_t, (x_t - b * eps) / a / s]


@noised_latent.mistake("You subtracted eps as it is. In x_t it has the factor b.")
def noise_not_weighted_back(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t - eps) / a / s]


@noised_latent.mistake("You added eps as it is on the way in. In x_t it has the factor b.")
def noise_not_weighted(z, s, a, b, eps):
    return [_noised(z, s, a, 1, eps), z]


@noised_latent.mistake("You added eps as it is on the way in, and subtracted b eps on the way back.")
def noise_weighted_back_alone(z, s, a, b, eps):
    x_t = _noised(z, s, a, 1, eps)
    return [x_t, (x_t - b * eps) / a / s]


@noised_latent.mistake("You left the noise in: x_t divided by a and s still has b eps in it. Subtract that first.")
def noise_left_in(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, x_t / a / s]


@noised_latent.mistake("You squared a and b on the way in. They are factors, a^2 and b^2 the variances.")
def factors_squared(z, s, a, b, eps):
    return [_noised(z, s, a**2, b**2, eps), z]


@noised_latent.mistake("You squared b on the way in. b multiplies eps as it is; b^2 is the noise's variance.")
def noise_factor_squared(z, s, a, b, eps):
    return [_noised(z, s, a, b**2, eps), z]


@noised_latent.mistake("You squared b on the way in, and took b as it is on the way back.")
def noise_factor_squared_in_alone(z, s, a, b, eps):
    x_t = _noised(z, s, a, b**2, eps)
    return [x_t, (x_t - b * eps) / a / s]


@noised_latent.mistake("You squared b on the way back. b multiplies eps as it is; b^2 is the noise's variance.")
def noise_factor_squared_back(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t - b**2 * eps) / a / s]


@noised_latent.mistake(
    "You took roots of a and b. They are factors already, not the variances alpha_bar_t and 1 - alpha_bar_t."
)
def factors_rooted(z, s, a, b, eps):
    return [_noised(z, s, a**0.5, b**0.5, eps), z]


@noised_latent.mistake("You took a for alpha_bar_t: sqrt(a) and sqrt(1 - a). Here a and b are the factors themselves.")
def a_taken_for_alpha_bar(z, s, a, b, eps):
    return [_noised(z, s, a**0.5, (1 - a) ** 0.5, eps), z]


@noised_latent.mistake("You took 1 - a for b. It is a^2 + b^2 that is 1: use b as it is given.")
def b_taken_for_the_rest(z, s, a, b, eps):
    return [_noised(z, s, a, 1 - a, eps), z]


@noised_latent.mistake("a and b have changed places: a is the signal's factor, b the noise's.")
def factors_swapped(z, s, a, b, eps):
    return [_noised(z, s, b, a, eps), z]


@noised_latent.mistake("On the way back a and b have changed places: subtract b eps, divide by a.")
def factors_swapped_back(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t - a * eps) / b / s]


@noised_latent.mistake("a is missing on the way in: x_t = a x_0 + b eps, or its deviation would exceed 1.")
def signal_factor_left_out(z, s, a, b, eps):
    return [_noised(z, s, 1, b, eps), z]


@noised_latent.mistake("a is missing on the way in, and you divide by it on the way back.")
def signal_factor_back_alone(z, s, a, b, eps):
    return [_noised(z, s, 1, b, eps), z / a]


@noised_latent.mistake("You multiplied the noise by a as well: a (x_0 + b eps). In x_t it has the factor b alone.")
def signal_factor_on_noise(z, s, a, b, eps):
    return [a * (s * z + b * eps), z]


@noised_latent.mistake("Your two results have changed places: first x_t, then what goes to the decoder.")
def order_swapped(z, s, a, b, eps):
    return noised_latent(z, s, a, b, eps)[::-1]


@noised_latent.mistake("You returned x_t alone. The second result is the latent for the decoder, recovered from it.")
def noised_alone(z, s, a, b, eps):
    return _noised(z, s, a, b, eps)


@noised_latent.mistake("You returned the latent for the decoder alone. The first result is x_t.")
def back_alone(z, s, a, b, eps):
    return noised_latent(z, s, a, b, eps)[1]


@noised_latent.mistake("Your first result is x_0 = s z, without noise. Asked for is x_t = a x_0 + b eps.")
def clean_first(z, s, a, b, eps):
    return [s * z, z]


@noised_latent.mistake("On the way back you took out the noise and stopped: a and s are still in it. Divide by both.")
def noise_taken_out_alone(z, s, a, b, eps):
    return [_noised(z, s, a, b, eps), a * s * z]


@noised_latent.mistake("On the way back you undid s alone: the noise is still in, and the factor a. Undo these first.")
def scale_undone_alone(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, x_t / s]


@noised_latent.mistake("You divided by b on the way back. With the noise out, a x_0 is left: divide by a.")
def divided_by_noise_factor(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, (x_t - b * eps) / b / s]


@noised_latent.mistake("Brackets: you divided x_t by a and the noise by s. All of x_t - b eps is divided by both.")
def each_divided_by_one(z, s, a, b, eps):
    x_t = _noised(z, s, a, b, eps)
    return [x_t, x_t / a - b * eps / s]


@noised_latent.mistake(
    "You divided z by its own deviation here. s is given, one number for all latents: multiply by it."
)
def own_deviation(z, s, a, b, eps):
    return [_noised(z, 1 / z.std(), a, b, eps), z]


@noised_latent.mistake(
    "You subtracted the mean of z. s scales, and nothing is moved: the mean would be lost to the decoder."
)
def mean_subtracted(z, s, a, b, eps):
    x_t = _noised(z - z.mean(), s, a, b, eps)
    return [x_t, (x_t - b * eps) / a / s]


@noised_latent.mistake("You noised z first and divided the sum by s. First the scale, x_0 = s z, then the noise.")
def divided_after_noise(z, s, a, b, eps):
    return [(a * z + b * eps) / s, z]
