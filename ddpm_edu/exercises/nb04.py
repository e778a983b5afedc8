"""Notebook 04, normalising flows. Equations are those of RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) unless another
source is named; C10 is a claim of the course.

Symbols: x (b, d) is data and z = f(x) (b, d) its noise, N(0, I); s, t are what a network made of the kept half;
log_det = log |det df/dx|, (b,). All logarithms are natural.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

# 04.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "04.1",
    title="The density of something pushed, in one dimension",
    hints=(
        "The mass near x is the mass near z: p_x(x) |dx| = p_z(z) |dz|. Divide by |dx| and take the logarithm.",
        "log p_x(x) = log p_z(z) + log |slope|, and for a standard normal log p_z(z) = -z^2 / 2 - log(2 pi) / 2.",
    ),
)
def log_density(z: Tensor, slope: Tensor) -> Tensor:
    """Compute log p_x(x) by the change of variables (eq. 3 in one dimension), where z = f(x) is standard normal.

    z: (b,), f(x) at b points x.
    slope: (b,), f'(x) at the same points; never 0, and negative where f falls.
    Returns log p_x(x), (b,), in nats.
    """
    return -0.5 * (z**2 + math.log(2 * math.pi)) + slope.abs().log()


def _slopes(rng: torch.Generator, b: int) -> Tensor:
    """(b,) slopes of both signs, none near 0 and none near 1."""
    slope = 1.3 + 2 * torch.rand(b, generator=rng)
    slope[::2] = 1 / slope[::2]
    return slope * torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(b)[:b]


@log_density.check
def test_log_density_of_a_rising_map(student, rng):
    """agrees with the change of variables where f rises"""
    z, slope = normal(rng, 7), _slopes(rng, 7).abs()
    agree(student.log_density(z, slope), log_density(z, slope))


@log_density.check
def test_log_density_of_any_map(student, rng):
    """agrees where f falls, too: a density does not know which way f runs"""
    z, slope = normal(rng, 8), _slopes(rng, 8)
    agree(student.log_density(z, slope), log_density(z, slope))


@log_density.check
def test_log_density_integrates_to_one(student, rng):
    """for z = (x - m) / c it is the density of N(m, c^2), and its integral is 1"""
    m, c = normal(rng, 2).tolist()
    c = -(0.4 + abs(c))  # z falls as x rises
    x = torch.linspace(m - 9 * abs(c), m + 9 * abs(c), 2001)
    log_p = student.log_density((x - m) / c, torch.full_like(x, 1 / c))
    agree(torch.trapezoid(log_p.exp(), x), torch.tensor(1.0))


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z**2 + math.log(2 * math.pi))


@log_density.mistake("You forgot the slope: the density at z is not the density at x, unless f keeps all lengths.")
def jacobian_forgotten(z, slope):
    return _log_normal(z)


@log_density.mistake("You took the logarithm of the slope itself. Where f falls it is negative: take |slope| first.")
def no_absolute_value(z, slope):
    return _log_normal(z) + slope.log()


@log_density.mistake(
    "You subtracted log |slope|. That is right for the slope of G, noise to data; this one is of f, data to noise."
)
def slope_of_the_inverse(z, slope):
    return _log_normal(z) - slope.abs().log()


@log_density.mistake(
    "You added |slope| without its logarithm. Densities are multiplied by |slope|, log densities are not."
)
def slope_without_log(z, slope):
    return _log_normal(z) + slope.abs()


@log_density.mistake("You multiplied the log density by |slope|. The density is what it multiplies: add log |slope|.")
def multiplied_by_slope(z, slope):
    return _log_normal(z) * slope.abs()


@log_density.mistake("That is the density. Its logarithm is asked for.")
def density_itself(z, slope):
    return log_density(z, slope).exp()


@log_density.mistake("The constant -log(2 pi) / 2 of the normal density is missing: yours does not integrate to 1.")
def constant_missing(z, slope):
    return -0.5 * z**2 + slope.abs().log()


@log_density.mistake(
    "The constant of log p_z is log(2 pi) / 2: the density has sqrt(2 pi), so its logarithm has half of it."
)
def constant_not_halved(z, slope):
    return -0.5 * z**2 - math.log(2 * math.pi) + slope.abs().log()


@log_density.mistake("The exponent of the normal density is -z^2 / 2: the half is missing.")
def square_not_halved(z, slope):
    return -(z**2) - 0.5 * math.log(2 * math.pi) + slope.abs().log()


@log_density.mistake("You took log(1 + |slope|). A slope of 1 keeps the density, so log |slope| it is.")
def log_of_one_plus(z, slope):
    return _log_normal(z) + slope.abs().log1p()


@log_density.mistake("You took half of log |slope|. The slope is a length's factor here, not a variance's.")
def slope_halved(z, slope):
    return _log_normal(z) + 0.5 * slope.abs().log()


@log_density.mistake("The sign of z^2 / 2 is wrong: the density of the noise falls away from 0, -z^2 / 2.")
def square_with_plus(z, slope):
    return 0.5 * z**2 - 0.5 * math.log(2 * math.pi) + slope.abs().log()


@log_density.mistake("You took the logarithm of slope^2. The density is multiplied by |slope|, not by its square.")
def slope_squared(z, slope):
    return _log_normal(z) + slope.square().log()


@log_density.mistake("You added log |slope| to the density of the noise. Take the logarithm of that density, too.")
def density_not_logged(z, slope):
    return _log_normal(z).exp() + slope.abs().log()


# 04.2 ---------------------------------------------------------------------------------------------------------------


def halves(rng: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Triples of x (b, d), s and t (b, d / 2): d is 2, 6, and 2 b, where a wrong axis goes unnoticed."""
    return [(normal(rng, b, d), normal(rng, b, d // 2), normal(rng, b, d // 2)) for b, d in [(5, 2), (4, 6), (3, 6)]]


@exercise(
    "04.2",
    title="A coupling layer",
    hints=(
        "x_1, x_2 = x.chunk(2, dim=1) cuts x in its halves; torch.cat([y_1, y_2], dim=1) puts two together.",
        "Eq. 4: y_1 = x_1. Eq. 5: y_2 = x_2 * exp(s) + t.",
        "The Jacobian is triangular; on its diagonal stand d / 2 ones and the d / 2 factors exp(s). The logarithm of "
        "their product is the sum of s: one number for each sample.",
    ),
)
def coupling(x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Run an affine coupling layer (eqs. 4 and 5): the first half of x is kept, the second is scaled by exp(s) and then
    shifted by t.

    x: (b, d), d even. Its halves are x_1, the first d / 2 elements, and x_2, the others.
    s, t: (b, d / 2), what a network has made of x_1.
    Returns y, (b, d), and log_det = log |det dy/dx|, (b,): a tuple of the two.
    """
    x_1, x_2 = x.chunk(2, dim=1)
    return torch.cat([x_1, x_2 * s.exp() + t], dim=1), s.sum(1)


@coupling.check
def test_coupling_matches_eqs_4_and_5(student, rng):
    """y agrees with eqs. 4 and 5, for d = 2 and for d = 6"""
    for x, s, t in halves(rng):
        y, _ = student.coupling(x, s, t)
        agree(y, coupling(x, s, t)[0])


@coupling.check
def test_coupling_log_det(student, rng):
    """log_det is the logarithm of the product of all factors, one number for each sample"""
    for x, s, t in halves(rng):
        _, log_det = student.coupling(x, s, t)
        agree(log_det, s.exp().prod(1).log())


@coupling.check
def test_coupling_keeps_the_first_half(student, rng):
    """the first half comes out as it went in, and with s = t = 0 the second does too, with log_det 0"""
    x, s, t = normal(rng, 4, 6), normal(rng, 4, 3), normal(rng, 4, 3)
    y, _ = student.coupling(x, s, t)
    assert torch.equal(y[:, :3], x[:, :3])
    y, log_det = student.coupling(x, 0 * s, 0 * t)
    agree(y, x)
    assert torch.equal(log_det, torch.zeros(4))


def _y(x: Tensor, y_2: Tensor) -> Tensor:
    return torch.cat([x.chunk(2, dim=1)[0], y_2], dim=1)


@coupling.mistake(
    "log_det is a mean in yours. The determinant is the product of all factors: its logarithm is their sum."
)
def mean_of_s(x, s, t):
    return coupling(x, s, t)[0], s.mean(1)


@coupling.mistake("You scaled by s. The factor is exp(s): positive whatever s is, so that the layer can be undone.")
def scaled_by_s(x, s, t):
    return _y(x, x.chunk(2, dim=1)[1] * s + t), s.sum(1)


@coupling.mistake("You scaled by s, with log |s| in log_det. The factor is exp(s), so that it is never 0 or negative.")
def scaled_by_s_and_its_log(x, s, t):
    return _y(x, x.chunk(2, dim=1)[1] * s + t), s.abs().log().sum(1)


@coupling.mistake("log_det is the sum of the factors exp(s) in yours: the logarithm of their product is the sum of s.")
def sum_of_factors(x, s, t):
    return coupling(x, s, t)[0], s.exp().sum(1)


@coupling.mistake("You returned the determinant itself. Its logarithm is asked for: just the sum of s.")
def determinant_itself(x, s, t):
    return coupling(x, s, t)[0], s.exp().prod(1)


@coupling.mistake("log_det has the wrong sign: from x to y the layer stretches by exp(s). -s belongs to the way back.")
def log_det_negative(x, s, t):
    return coupling(x, s, t)[0], -s.sum(1)


@coupling.mistake("You shifted before you scaled. Eq. 5 scales x_2 first: then t is not scaled with it.")
def shifted_first(x, s, t):
    return _y(x, (x.chunk(2, dim=1)[1] + t) * s.exp()), s.sum(1)


@coupling.mistake(
    "You scaled and shifted the first half and kept the second. s and t came from x_1: that is what is kept."
)
def other_half(x, s, t):
    x_1, x_2 = x.chunk(2, dim=1)
    return torch.cat([x_1 * s.exp() + t, x_2], dim=1), s.sum(1)


@coupling.mistake("You returned the second half alone. y has the kept half as well, in front: (b, d).")
def second_half_alone(x, s, t):
    return x.chunk(2, dim=1)[1] * s.exp() + t, s.sum(1)


@coupling.mistake("The halves have changed places in y: the kept one stays in front.")
def halves_swapped(x, s, t):
    return coupling(x, s, t)[0].roll(x.shape[1] // 2, dims=1), s.sum(1)


@coupling.mistake("You put the halves below each other: torch.cat joins samples unless it is told dim=1.")
def joined_along_the_batch(x, s, t):
    return torch.cat(coupling(x, s, t)[0].chunk(2, dim=1)), s.sum(1)


@coupling.mistake("You took every other element for a half. Here x_1 is the first d / 2 elements, x_2 the others.")
def every_other_element(x, s, t):
    y = x.clone()
    y[:, 1::2] = x[:, 1::2] * s.exp() + t
    return y, s.sum(1)


@coupling.mistake(
    "You summed log_det over the whole batch. Every sample has its own: sum over the elements alone, dim=1."
)
def summed_over_batch_too(x, s, t):
    return coupling(x, s, t)[0], s.sum()


@coupling.mistake("You summed s over the batch axis. log_det is one number for each sample: sum over dim=1.")
def summed_over_the_batch(x, s, t):
    return coupling(x, s, t)[0], s.sum(0)


@coupling.mistake("You returned s, not its sum: log_det is one number for each sample, (b,).")
def not_summed(x, s, t):
    return coupling(x, s, t)[0], s


@coupling.mistake("t belongs to no determinant: a shift moves, and stretches nothing. log_det is the sum of s alone.")
def shift_in_log_det(x, s, t):
    return coupling(x, s, t)[0], (s + t).sum(1)


@coupling.mistake("You forgot to shift: y_2 = x_2 exp(s) + t.")
def not_shifted(x, s, t):
    return _y(x, x.chunk(2, dim=1)[1] * s.exp()), s.sum(1)


@coupling.mistake("You returned y alone. Two things are asked for: y and log_det, as in `return y, log_det`.")
def without_log_det(x, s, t):
    return coupling(x, s, t)[0]


@coupling.mistake("s and t have changed places: exp(s) scales, t shifts.")
def roles_changed(x, s, t):
    return coupling(x, t, s)


@coupling.mistake("You ran the layer backwards: (y_2 - t) exp(-s) is the way back. Here x_2 exp(s) + t is asked for.")
def way_back(x, s, t):
    return coupling_inverse(x, s, t), s.sum(1)


@coupling.mistake("That is the way back, with its log_det. From x to y: x_2 exp(s) + t, and the sum of s.")
def way_back_and_its_log_det(x, s, t):
    return coupling_inverse(x, s, t), -s.sum(1)


@coupling.mistake("You scaled by exp(-s), which is for the way back. From x to y the factor is exp(s).")
def scaled_by_minus_s(x, s, t):
    return coupling(x, -s, t)[0], s.sum(1)


@coupling.mistake("You subtracted t. From x to y it is added.")
def shifted_back(x, s, t):
    return coupling(x, s, -t)


@coupling.mistake("y_2 is made of x_1 in yours. x_1 only decides s and t; what they scale and shift is x_2.")
def first_half_scaled(x, s, t):
    x_1 = x.chunk(2, dim=1)[0]
    return _y(x, x_1 * s.exp() + t), s.sum(1)


@coupling.mistake("You took log |s|. The diagonal holds exp(s), and the logarithm of that is s itself.")
def log_of_s(x, s, t):
    return coupling(x, s, t)[0], s.abs().log().sum(1)


@coupling.mistake("You took |s|. A layer that shrinks has s < 0, and its log_det is negative.")
def absolute_s(x, s, t):
    return coupling(x, s, t)[0], s.abs().sum(1)


@coupling.mistake("You multiplied the elements of s. The factors are exp(s): the logarithm of their product is a sum.")
def product_of_s(x, s, t):
    return coupling(x, s, t)[0], s.prod(1)


@coupling.mistake("You added the factors before the logarithm. A determinant is their product, so log_det is sum(s).")
def log_of_the_sum(x, s, t):
    return coupling(x, s, t)[0], s.logsumexp(1)


# 04.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "04.3",
    title="The way back",
    hints=(
        "Solve eq. 5, y_2 = x_2 exp(s) + t, for x_2. What was done last is undone first.",
        "x_2 = (y_2 - t) exp(-s), and x_1 = y_1: that is why s and t, made from the kept half, are the same both ways.",
    ),
)
def coupling_inverse(y: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Undo an affine coupling layer (eqs. 7 and 8): from y back to the x it was made from.

    y: (b, d), d even. Its first half y_1 is the kept half, x_1.
    s, t: (b, d / 2), what the network has made of y_1, which is x_1: the same numbers as on the way there.
    Returns x, (b, d).
    """
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, (y_2 - t) * (-s).exp()], dim=1)


@coupling_inverse.check
def test_inverse_matches_eqs_7_and_8(student, rng):
    """agrees with eqs. 7 and 8, for d = 2 and for d = 6"""
    for y, s, t in halves(rng):
        agree(student.coupling_inverse(y, s, t), coupling_inverse(y, s, t))


@coupling_inverse.check
def test_inverse_undoes_the_layer(student, rng):
    """takes y back to the very x that eqs. 4 and 5 made it from"""
    for x, s, t in halves(rng):
        agree(student.coupling_inverse(coupling(x, s, t)[0], s, t), x)


@coupling_inverse.mistake(
    "You unscaled first and subtracted t after. On the way there t came last: here it goes first."
)
def unscaled_first(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, y_2 * (-s).exp() - t], dim=1)


@coupling_inverse.mistake("You multiplied by exp(s) once more. To undo it, multiply by exp(-s).")
def scaled_again(y, s, t):
    return coupling_inverse(y, -s, t)


@coupling_inverse.mistake("You added t. It was added on the way there, so here it is subtracted.")
def shift_added(y, s, t):
    return coupling_inverse(y, s, -t)


@coupling_inverse.mistake("You ran the layer forwards again: t is subtracted first, then comes exp(-s).")
def forwards_again(y, s, t):
    return coupling(y, s, t)[0]


@coupling_inverse.mistake(
    "You put -s and -t into the forward formula: that scales first and then subtracts t. Undo the shift first."
)
def forwards_with_minus(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, y_2 * (-s).exp() - t * s.exp()], dim=1)


@coupling_inverse.mistake("You divided by s. The layer's factor is exp(s).")
def divided_by_s(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, (y_2 - t) / s], dim=1)


@coupling_inverse.mistake("You undid the scale and left the shift in: subtract t first.")
def shift_left(y, s, t):
    return coupling_inverse(y, s, 0 * t)


@coupling_inverse.mistake("You undid the shift and left the scale in: multiply by exp(-s) after it.")
def scale_left(y, s, t):
    return coupling_inverse(y, 0 * s, t)


@coupling_inverse.mistake(
    "You took the first half back and left the second. The layer kept the first: it needs no undoing."
)
def wrong_half_undone(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([(y_1 - t) * (-s).exp(), y_2], dim=1)


@coupling_inverse.mistake("You returned the second half alone. x has the kept half as well, in front: (b, d).")
def second_half_of_x_alone(y, s, t):
    return coupling_inverse(y, s, t).chunk(2, dim=1)[1]


@coupling_inverse.mistake("You put the halves below each other: torch.cat joins samples unless it is told dim=1.")
def halves_joined_along_the_batch(y, s, t):
    return torch.cat(coupling_inverse(y, s, t).chunk(2, dim=1))


@coupling_inverse.mistake("The halves have changed places in x: the kept one stays in front.")
def halves_of_x_swapped(y, s, t):
    return coupling_inverse(y, s, t).roll(y.shape[1] // 2, dims=1)


@coupling_inverse.mistake("The minus stands outside in yours: -exp(s). To divide by exp(s), multiply by exp(-s).")
def minus_outside(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, (y_2 - t) * -s.exp()], dim=1)


@coupling_inverse.mistake("You unscaled and then added t: t is subtracted, and before the scale is undone.")
def unscaled_then_added(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, y_2 * (-s).exp() + t], dim=1)


@coupling_inverse.mistake("You divided t by exp(s), but not y_2: put y_2 - t in brackets.")
def brackets_forgotten(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, y_2 - t * (-s).exp()], dim=1)


@coupling_inverse.mistake("x_2 is made of y_1 in yours. y_1 only decides s and t; what is undone is y_2.")
def first_half_undone_twice(y, s, t):
    y_1 = y.chunk(2, dim=1)[0]
    return torch.cat([y_1, (y_1 - t) * (-s).exp()], dim=1)


@coupling_inverse.mistake("s and t have changed places: t is subtracted, then comes exp(-s).")
def roles_changed_on_the_way_back(y, s, t):
    return coupling_inverse(y, t, s)


@coupling_inverse.mistake("You multiplied by s. The layer scaled by exp(s): undo it with exp(-s).")
def multiplied_by_s(y, s, t):
    y_1, y_2 = y.chunk(2, dim=1)
    return torch.cat([y_1, (y_2 - t) * s], dim=1)


# 04.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "04.4",
    title="The exact log-likelihood",
    hints=(
        "Two terms: log N(z; 0, I), the log density of the noise, and the log-determinants of all layers, added up.",
        "log N(z; 0, I) is a sum over the d elements of z, each of them -z^2 / 2 - log(2 pi) / 2.",
        "log_dets has the layers along its first axis: log_dets.sum(0) is one number for each sample.",
    ),
)
def log_likelihood(z: Tensor, log_dets: Tensor) -> Tensor:
    """Compute log p(x) of a flow (C10): where the layers took x, and how much each of them stretched.

    z: (b, d), f(x), what comes out of the last layer; its distribution is to be N(0, I).
    log_dets: (k, b), log |det| of each of the k layers, at the point that came into it.
    Returns log p(x), (b,), in nats.
    """
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_dets.sum(0)


def _stacks(rng: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Pairs of z (b, d) and log_dets (k, b); in the second k = b = d, where a wrong axis goes unnoticed."""
    return [(normal(rng, 5, 2), normal(rng, 3, 5)), (normal(rng, 4, 4), normal(rng, 4, 4))]


@log_likelihood.check
def test_log_likelihood_is_exact(student, rng):
    """agrees with the formula, in two and in four dimensions"""
    for z, log_dets in _stacks(rng):
        agree(student.log_likelihood(z, log_dets), log_likelihood(z, log_dets))


@log_likelihood.check
def test_log_likelihood_of_a_scaling(student, rng):
    """for layers that only scale, z = c_3 c_2 c_1 x, it is the density of N(0, 1 / c^2) at x"""
    c, x = 0.5 + torch.rand(3, generator=rng), normal(rng, 6, 2)
    z, log_dets = c.prod() * x, (2 * c.log())[:, None].expand(3, 6).clone()  # each of two elements is scaled by c
    agree(student.log_likelihood(z, log_dets), torch.distributions.Normal(0, 1 / c.prod()).log_prob(x).sum(1))


def _prior(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


@log_likelihood.mistake("You subtracted the log-determinants. They are of the way from x to z, so they are added.")
def log_dets_subtracted(z, log_dets):
    return _prior(z) - log_dets.sum(0)


@log_likelihood.mistake("You left out the log-determinants: that is the density of z, not of x.")
def log_dets_forgotten(z, log_dets):
    return _prior(z)


@log_likelihood.mistake("You averaged over the layers. Their determinants multiply, so their logarithms add up.")
def mean_over_layers(z, log_dets):
    return _prior(z) + log_dets.mean(0)


@log_likelihood.mistake("You used the last layer's log-determinant alone. Every layer stretches: add them all.")
def last_layer_alone(z, log_dets):
    return _prior(z) + log_dets[-1]


@log_likelihood.mistake("You multiplied the log-determinants. Determinants multiply; their logarithms add up.")
def product_over_layers(z, log_dets):
    return _prior(z) + log_dets.prod(0)


@log_likelihood.mistake("You summed log_dets over its last axis, the samples. The layers are its first axis: sum(0).")
def summed_over_samples(z, log_dets):
    return _prior(z) + log_dets.sum(1)


@log_likelihood.mistake(
    "You added up all log-determinants of the batch. Each sample has its own: sum over dim 0 alone."
)
def summed_over_everything(z, log_dets):
    return _prior(z) + log_dets.sum()


@log_likelihood.mistake("The constant of the normal density, log(2 pi) / 2 for each element, is missing.")
def prior_without_constant(z, log_dets):
    return -0.5 * z.square().sum(1) + log_dets.sum(0)


@log_likelihood.mistake("log(2 pi) / 2 is there once in yours. Each of the d elements of z brings its own.")
def constant_only_once(z, log_dets):
    return -0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi) + log_dets.sum(0)


@log_likelihood.mistake("The half is missing at z^2: each element gives -z^2 / 2 - log(2 pi) / 2.")
def prior_square_not_halved(z, log_dets):
    return _prior(z) - 0.5 * z.square().sum(1) + log_dets.sum(0)


@log_likelihood.mistake(
    "You averaged over the elements of z. The density of independent elements is a product: sum the logs."
)
def mean_over_elements(z, log_dets):
    return _prior(z) / z.shape[1] + log_dets.sum(0)


@log_likelihood.mistake("You did not sum over the elements of z: log p(x) is one number for each sample.")
def elements_not_summed(z, log_dets):
    return -0.5 * (z.square() + math.log(2 * math.pi)) + log_dets.sum(0)[:, None]


@log_likelihood.mistake(
    "You summed z^2 / 2 + log(2 pi) / 2 over the whole batch. Each sample has its own: sum over its elements, dim=1."
)
def prior_of_the_whole_batch(z, log_dets):
    return _prior(z).sum() + log_dets.sum(0)


@log_likelihood.mistake("That is the negative log-likelihood, what training minimises. log p(x) itself is asked for.")
def negative_log_likelihood(z, log_dets):
    return -log_likelihood(z, log_dets)


@log_likelihood.mistake("You averaged over the batch. The likelihood of each sample is asked for, (b,).")
def mean_over_batch(z, log_dets):
    return log_likelihood(z, log_dets).mean()


@log_likelihood.mistake("You used the first layer's log-determinant alone. Every layer stretches: add them all.")
def first_layer_alone(z, log_dets):
    return _prior(z) + log_dets[0]


@log_likelihood.mistake("You took |log det|. Layers that shrink have negative ones, and they count as such.")
def absolute_log_dets(z, log_dets):
    return _prior(z) + log_dets.abs().sum(0)


@log_likelihood.mistake("You took the logarithm once more: log_dets are logarithms already. Add them.")
def log_of_log_dets(z, log_dets):
    return _prior(z) + log_dets.abs().log().sum(0)


@log_likelihood.mistake("You took exp of the log-determinants. In a log-likelihood their logarithms are added.")
def determinants_added(z, log_dets):
    return _prior(z) + log_dets.exp().sum(0)


@log_likelihood.mistake("You multiplied log N(z; 0, I) by the log-determinants. Densities multiply; logarithms add.")
def multiplied_by_log_dets(z, log_dets):
    return _prior(z) * log_dets.sum(0)


@log_likelihood.mistake("That is the likelihood. Its logarithm is asked for.")
def likelihood_itself(z, log_dets):
    return log_likelihood(z, log_dets).exp()


@log_likelihood.mistake("The sign of z^2 / 2 is wrong: each element gives -z^2 / 2 - log(2 pi) / 2.")
def prior_square_with_plus(z, log_dets):
    return _prior(z) + z.square().sum(1) + log_dets.sum(0)


@log_likelihood.mistake("The constant is log(2 pi) / 2 for each element; yours is twice that.")
def prior_constant_not_halved(z, log_dets):
    return _prior(z) - 0.5 * z.shape[1] * math.log(2 * math.pi) + log_dets.sum(0)


@log_likelihood.mistake("The constant has the wrong sign: each element gives -z^2 / 2 - log(2 pi) / 2.")
def prior_constant_with_plus(z, log_dets):
    return _prior(z) + z.shape[1] * math.log(2 * math.pi) + log_dets.sum(0)


@log_likelihood.mistake("You summed z before you squared it. Each element is squared, then they are added up.")
def square_of_the_sum(z, log_dets):
    return _prior(z) + 0.5 * (z.square().sum(1) - z.sum(1).square()) + log_dets.sum(0)


@log_likelihood.mistake("You used |z| where |z|^2 belongs: the norm is not yet squared.")
def norm_not_squared(z, log_dets):
    return _prior(z) + 0.5 * (z.square().sum(1) - z.norm(dim=1)) + log_dets.sum(0)


# 04.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "04.5",
    title="The distance of two clouds of points",
    hints=(
        "x @ directions is (n, k): each column holds the n projections on one direction.",
        "In one dimension the cheapest way to move one set onto the other pairs them in sorted order: sort each column "
        "of both, `.sort(dim=0).values`, and subtract.",
        "Then the mean of the squares over all pairs and all directions, and the root of that.",
    ),
)
def sliced_distance(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Compute the sliced Wasserstein distance of two sets of points (Bonneel et al. 2015).

    In one dimension the squared Wasserstein-2 distance of two sets of n numbers is the mean of (a_i - b_i)^2, a_i and
    b_i being the i-th smallest of each. In more dimensions: project both sets on many directions, average the squared
    distances, and take the root of that average.

    x, y: (n, d), two sets of n points each, in any order.
    directions: (d, k), k unit vectors, the columns.
    Returns the distance, a tensor of shape ().
    """
    difference = (x @ directions).sort(dim=0).values - (y @ directions).sort(dim=0).values
    return difference.square().mean().sqrt()


def _directions(rng: torch.Generator, d: int, k: int) -> Tensor:
    """(d, k), unit vectors; the first sees least of a shift along (1, ..., 1), so it is not the worst one."""
    u = normal(rng, d, k)
    u = u / u.norm(dim=0)
    return u[:, u.sum(0).abs().argsort()]


@sliced_distance.check
def test_sliced_distance_is_exact(student, rng):
    """agrees with the definition, in two and in five dimensions"""
    for d, k in [(2, 6), (5, 3)]:
        x, y, directions = normal(rng, 9, d), 0.5 * normal(rng, 9, d) + 1, _directions(rng, d, k)
        agree(student.sliced_distance(x, y, directions), sliced_distance(x, y, directions))


@sliced_distance.check
def test_sliced_distance_ignores_the_order(student, rng):
    """it is the same for the points in another order"""
    x, y, directions = normal(rng, 8, 2), normal(rng, 8, 2), _directions(rng, 2, 5)
    shuffled = y[torch.randperm(8, generator=rng)]
    agree(student.sliced_distance(x, shuffled, directions), sliced_distance(x, y, directions))


@sliced_distance.check
def test_sliced_distance_of_a_shift(student, rng):
    """a set shifted by v lies at the root of the mean of (v . direction)^2"""
    x, v, directions = normal(rng, 20, 3), normal(rng, 3), _directions(rng, 3, 4)
    agree(student.sliced_distance(x, x + v, directions), (v @ directions).square().mean().sqrt())


def _sorted(x: Tensor, directions: Tensor) -> Tensor:
    return (x @ directions).sort(dim=0).values


@sliced_distance.mistake(
    "The pairs are those that came. Sort the projections of each set by itself, before you subtract: then the i-th "
    "smallest goes to the i-th smallest."
)
def unsorted(x, y, directions):
    return ((x - y) @ directions).square().mean().sqrt()


@sliced_distance.mistake(
    "You sorted along the last axis, the directions. Each column is one direction: sort along dim=0, the points."
)
def sorted_along_directions(x, y, directions):
    return ((x @ directions).sort().values - (y @ directions).sort().values).square().mean().sqrt()


@sliced_distance.mistake("You sorted the coordinates before you projected. Project first, then sort each projection.")
def sorted_before_projecting(x, y, directions):
    return ((x.sort(dim=0).values - y.sort(dim=0).values) @ directions).square().mean().sqrt()


@sliced_distance.mistake("You sorted one set and not the other: a pair is the i-th smallest of both.")
def one_sorted(x, y, directions):
    return (_sorted(x, directions) - y @ directions).square().mean().sqrt()


@sliced_distance.mistake("You sorted the two sets in opposite orders: the smallest goes to the smallest.")
def sorted_in_opposite_orders(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions).flip(0)).square().mean().sqrt()


@sliced_distance.mistake("The root at the end is missing: that is the squared distance.")
def distance_squared(x, y, directions):
    return sliced_distance(x, y, directions).square()


@sliced_distance.mistake("You summed the squares where their mean belongs: the distance then grows with n and with k.")
def squares_summed(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().sum().sqrt()


@sliced_distance.mistake(
    "You took absolute values: that is the Wasserstein-1 distance. Here the differences are squared."
)
def absolute_differences(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).abs().mean()


@sliced_distance.mistake(
    "You took the root for each direction and then the mean. Average the squares first, the root last."
)
def root_of_each_direction(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().mean(0).sqrt().mean()


@sliced_distance.mistake("You took the worst direction. Here the squared distances of all directions are averaged.")
def worst_direction(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().mean(0).max().sqrt()


@sliced_distance.mistake("You compared the means of the projections. Two sets with one mean may differ all the same.")
def means_compared(x, y, directions):
    return ((x @ directions).mean(0) - (y @ directions).mean(0)).square().mean().sqrt()


@sliced_distance.mistake("You averaged the differences before you squared them: those of opposite sign then cancel.")
def averaged_before_squaring(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).mean().abs()


@sliced_distance.mistake(
    "You returned one distance for each direction. One number is asked for: average before the root."
)
def one_for_each_direction(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().mean(0).sqrt()


@sliced_distance.mistake("You used the first direction alone: a cloud has more sides than one.")
def first_direction_alone(x, y, directions):
    return sliced_distance(x, y, directions[:, :1])


@sliced_distance.mistake("You summed over the points where the mean belongs: the distance then grows with n.")
def summed_over_points(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().sum(0).mean().sqrt()


@sliced_distance.mistake("You summed over the directions where the mean belongs: the distance then grows with k.")
def summed_over_directions(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().sum(1).mean().sqrt()


@sliced_distance.mistake("You subtracted the places, not the values: `.sort(dim=0)` gives both; take `.values`.")
def places_subtracted(x, y, directions):
    places = (x @ directions).argsort(dim=0) - (y @ directions).argsort(dim=0)
    return places.float().square().mean().sqrt()


@sliced_distance.mistake("You never projected: the coordinates are sorted in yours, not x @ directions.")
def coordinates_sorted(x, y, directions):
    return (x.sort(dim=0).values - y.sort(dim=0).values).square().mean().sqrt()


@sliced_distance.mistake("You sorted all directions together. Each column is a set of its own: sort along dim=0.")
def directions_sorted_together(x, y, directions):
    a, b = (x @ directions).flatten().sort().values, (y @ directions).flatten().sort().values
    return (a - b).square().mean().sqrt()


@sliced_distance.mistake("You took the best direction. Here the squared distances of all directions are averaged.")
def best_direction(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().mean(0).min().sqrt()


@sliced_distance.mistake("You took the root for each point, then the mean. Average all squares first, the root last.")
def root_of_each_point(x, y, directions):
    return (_sorted(x, directions) - _sorted(y, directions)).square().mean(1).sqrt().mean()
