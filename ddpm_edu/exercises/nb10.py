"""Notebook 10, conditioning and guidance (Ho and Salimans 2022). C25 is a claim of the course; the papers are named
where an equation is theirs.

Symbols: labels (b,) are classes, and `null` is the label that stands for "none"; eps_cond and eps_null are the noise
that one network predicts when it is told the class, and when it is told null; w is the strength of guidance, 1 is off.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.student import Refused, Student
from ddpm_edu.exercises.values import agree

FLOATS = "You returned floats where classes are needed, whole numbers of type int64: a float is no index."


def whole(student: Student, *args: object) -> Tensor:
    """The classes that the student's function gives. Floats are refused: whoever is handed them as int64 sees them cut
    to whole numbers, and takes 3.9 for 3."""
    classes = getattr(student, student.exercise.name)(*args)
    call = student.calls[-1]
    if call.reply.output.is_floating_point():
        student.calls[-1] = replace(call, fault=FLOATS)
        raise Refused(FLOATS)
    return classes


# 10.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "10.1",
    title="Leave the label out",
    hints=(
        "u < p asks each picture's own question: (b,) of True and False, True with probability p.",
        "torch.where(condition, a, b) takes a where the condition is True and b elsewhere, into a new tensor; a or b "
        "may be a number.",
    ),
)
def drop_labels(labels: Tensor, u: Tensor, p: float, null: int) -> Tensor:
    """Leave out some labels of a training batch, each with probability p (Ho and Salimans 2022, algorithm 1; C25).

    The label of a picture becomes null where its u is below p, and stays as it is elsewhere. The network so learns
    with one set of weights what a picture of its class looks like, and what any picture looks like.

    labels: (b,), int64, the classes, 0 or more.
    u: (b,), uniform random numbers in [0, 1), one for each picture.
    p: the probability, in [0, 1].
    null: the label that stands for "none"; it is no class.
    Returns the labels for the network, (b,), int64; labels stays as it is.
    """
    return torch.where(u < p, null, labels)


def batch(rng: torch.Generator, b: int, p: float, classes: int = 4) -> tuple[Tensor, Tensor]:
    """labels and u, (b,) each, b above 3. The first is kept, and some are dropped: not the first ones only.
    One label is the last class, so that no class is null."""
    labels = torch.randint(0, classes, (b,), generator=rng)
    u = torch.rand(b, generator=rng)
    labels[:3] = torch.tensor([classes - 1, 1, 0])
    low, high = p * u, p + (1 - p) * u  # below p, and at least p
    dropped = (torch.rand(b, generator=rng) < 0.5).index_fill(0, torch.tensor([1, b - 1]), True)
    return labels, torch.where(dropped.index_fill(0, torch.tensor([0, 2]), False), low, high)


@drop_labels.check
def test_drop_matches_algorithm_1(student, rng):
    """agrees with the algorithm for batches of several sizes, other p and other null"""
    for b, p, null in ((9, 0.4, 7), (5, 0.125, 4), (12, 0.75, 31)):
        args = *batch(rng, b, p), p, null
        agree(whole(student, *args), drop_labels(*args))
    for u in (0.2, 0.6):
        args = torch.tensor([2]), torch.tensor([u]), 0.5, 5
        agree(whole(student, *args), drop_labels(*args))


@drop_labels.check
def test_drop_at_the_ends(student, rng):
    """at p = 0 every label stays, at p = 1 none does"""
    labels, u = batch(rng, 8, 0.5)
    u = torch.cat([torch.zeros(1), u[1:]])
    agree(whole(student, labels, u, 0.0, 6), labels)
    agree(whole(student, labels, u, 1.0, 6), torch.full((8,), 6))


@drop_labels.check
def test_drop_on_the_edge(student, rng):
    """where u is exactly p the label stays, a little below it goes"""
    u = torch.tensor([0.25, 0.2499, 0.2501, 0.25, 0.75, 0.0, 0.1, 0.05])
    agree(whole(student, torch.arange(8), u, 0.25, 9), torch.tensor([0, 9, 2, 3, 4, 9, 9, 9]))


@drop_labels.check
def test_drop_of_each_class(student, rng):
    """of 20,000 labels a share p of each class is dropped, and no other label changes"""
    labels, u = torch.randint(0, 4, (20_000,), generator=rng), torch.rand(20_000, generator=rng)
    kept = whole(student, labels, u, 0.1, 10)
    assert ((kept == labels) | (kept == 10)).all()
    for c in range(4):
        share = (kept[labels == c] == 10).double().mean()
        assert (share - 0.1).abs() < 0.03  # 6 standard errors of some 5,000 are 6 sqrt(0.09 / 5,000), or 0.025


@drop_labels.mistake(
    "You dropped where u > p: that happens with probability 1 - p. The null label belongs where u < p."
)
def dropped_above(labels, u, p, null):
    return torch.where(u > p, null, labels)


@drop_labels.mistake(
    "null and the label have changed places: you kept the label where u < p, and dropped it elsewhere, 1 - p of all."
)
def kept_below(labels, u, p, null):
    return torch.where(u < p, labels, null)


@drop_labels.mistake(
    "You compared with <=: where u is exactly p the label stays. With <= a label could go even at p = 0."
)
def edge_dropped(labels, u, p, null):
    return torch.where(u <= p, null, labels)


@drop_labels.mistake("You dropped where u < 1 - p, most of the labels when p is small. Compare u with p.")
def below_the_rest(labels, u, p, null):
    return torch.where(u < 1 - p, null, labels)


@drop_labels.mistake(
    "You dropped where u > 1 - p. That is a share p as well, but of other pictures: asked for is u < p."
)
def above_the_rest(labels, u, p, null):
    return torch.where(u > 1 - p, null, labels)


@drop_labels.mistake("You decided by u[0] for the whole batch. Each picture has its own u.")
def whole_batch_by_first(labels, u, p, null):
    return torch.where(u[:1] < p, null, labels)


@drop_labels.mistake("You decided by the mean of u for the whole batch. Each picture has its own u.")
def whole_batch_by_mean(labels, u, p, null):
    return torch.where(u.mean() < p, null, labels)


@drop_labels.mistake("You dropped all as soon as one u is below p. Each picture goes by its own u.")
def whole_batch_by_any(labels, u, p, null):
    return torch.where((u < p).any(), null, labels)


@drop_labels.mistake("You dropped the first rows, a share p of them. Which ones go is u's to say, and so is how many.")
def first_rows(labels, u, p, null):
    return torch.where(torch.arange(len(u)) < int(p * len(u)), null, labels)


@drop_labels.mistake(
    "You dropped the same number in each batch, those of the least u. How many go is left to chance: u < p."
)
def least_u(labels, u, p, null):
    return torch.where(u.argsort().argsort() < int(p * len(u)), null, labels)


@drop_labels.mistake("You put 0 in place of null. 0 is a class: the network would learn that it may be any picture.")
def class_0_for_null(labels, u, p, null):
    return torch.where(u < p, 0, labels)


@drop_labels.mistake("You put -1 in place of null. The network has no row for -1: null is given, use it.")
def minus_1_for_null(labels, u, p, null):
    return torch.where(u < p, -1, labels)


@drop_labels.mistake("You wrote 10 where null is given. 10 stands for none only beside the ten digits.")
def null_written_in(labels, u, p, null):
    return torch.where(u < p, 10, labels)


@drop_labels.mistake(
    "You took the largest label of the batch plus 1 for null. A batch need not hold every class: null is given."
)
def null_from_batch(labels, u, p, null):
    return torch.where(u < p, labels.max() + 1, labels)


@drop_labels.mistake("You put null + 1 in place of null. null is the label itself, not the last class.")
def null_plus_1(labels, u, p, null):
    return torch.where(u < p, null + 1, labels)


@drop_labels.mistake("You put null - 1 in place of null: that may be a class. null is the label that stands for none.")
def null_less_1(labels, u, p, null):
    return torch.where(u < p, null - 1, labels)


@drop_labels.mistake("You added 1 to the labels that stay. null does not need the place of 0: they stay as they are.")
def labels_moved_up(labels, u, p, null):
    return torch.where(u < p, null, labels + 1)


@drop_labels.mistake("You added null to the label. It takes the label's place.")
def null_added(labels, u, p, null):
    return labels + null * (u < p)


@drop_labels.mistake("You gave a picture its neighbour's label. What is left out is replaced by null.")
def neighbours_label(labels, u, p, null):
    return torch.where(u < p, labels.roll(1), labels)


@drop_labels.mistake(
    "You removed labels from the batch. Their pictures stay, so a label is replaced by null, and b remains b."
)
def removed(labels, u, p, null):
    return labels[u >= p]


@drop_labels.mistake("You returned which labels to drop, as 0 and 1. Returned are the labels, null where u < p.")
def mask_alone(labels, u, p, null):
    return (u < p).long()


@drop_labels.mistake("You compared the labels with p. It is u that is compared.")
def labels_compared(labels, u, p, null):
    return torch.where(labels < p, null, labels)


@drop_labels.mistake("You dropped every label: the network would never hear of a class.")
def all_dropped(labels, u, p, null):
    return torch.full_like(labels, null)


@drop_labels.mistake("You dropped no label: the network would never hear of null, and guidance needs it.")
def none_dropped(labels, u, p, null):
    return labels.clone()


@drop_labels.mistake("You compared u with 1/2, a fair coin. The probability is p.")
def fair_coin(labels, u, p, null):
    return torch.where(u < 0.5, null, labels)


@drop_labels.mistake("You compared u with 0.1, a usual value. The probability is given: p.")
def p_written_in(labels, u, p, null):
    return torch.where(u < 0.1, null, labels)


@drop_labels.mistake("You returned floats. A label is an index into a table of classes: keep it int64.")
def float_labels(labels, u, p, null):
    return torch.where(u < p, float(null), labels.float())


@drop_labels.mistake(
    "You wrote null into labels itself: the data set would lose more of its labels with every batch. Make a new tensor."
)
def written_into_labels(labels, u, p, null):
    labels[u < p] = null
    return labels


# 10.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "10.2",
    title="Guidance",
    hints=(
        "eps_cond - eps_null is an arrow: what being told the class changes. Start at eps_null, and go w times along "
        "the arrow.",
        "Try two values of w by hand: at w = 0 you stand at eps_null, at w = 1 at eps_cond, at w = 2 as far again "
        "beyond it.",
    ),
)
def guide(eps_cond: Tensor, eps_null: Tensor, w: float) -> Tensor:
    """Compute the noise that classifier-free guidance uses (C25): w = 1 is off, w = 0 ignores the class.

    eps = eps_null + w (eps_cond - eps_null)

    Ho and Salimans 2022 count from elsewhere: the w in their eq. 6 is this one less 1.

    eps_cond: (b, ...), the noise predicted when the network is told the class.
    eps_null: like eps_cond, the noise predicted at the same x_t and t when it is told null.
    w: the strength of guidance, a number.
    Returns eps, like eps_cond.
    """
    return eps_null + w * (eps_cond - eps_null)


def two_noises(rng: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Pairs of eps_cond and eps_null: for points, for images, for as many images as each is wide, and for 1."""
    shapes = [(4, 2), (3, 1, 5, 5), (4, 1, 4, 4), (1, 2, 3, 4)]
    return [(normal(rng, *shape), normal(rng, *shape)) for shape in shapes]


@guide.check
def test_guide_matches_the_formula(student, rng):
    """agrees with the formula for points and images, at several w"""
    for (cond, null), w in zip(two_noises(rng), (3.0, 1.7, 0.4, 5.0), strict=True):
        agree(student.guide(cond, null, w), guide(cond, null, w))


@guide.check
def test_guide_at_0_and_1(student, rng):
    """w = 0 gives eps_null, w = 1 gives eps_cond"""
    for cond, null in two_noises(rng):
        agree(student.guide(cond, null, 0.0), null)
        agree(student.guide(cond, null, 1.0), cond)


@guide.check
def test_guide_goes_in_equal_steps(student, rng):
    """each 1 more of w adds eps_cond - eps_null once more, below 0 as well"""
    for cond, null in two_noises(rng):
        for w in (-1.5, 0.3, 4.0):
            agree(student.guide(cond, null, w + 1) - student.guide(cond, null, w), cond - null)


@guide.check
def test_guide_of_no_difference(student, rng):
    """where the class changes nothing, guidance changes nothing"""
    cond, null = two_noises(rng)[1]
    known = torch.rand(cond.shape, generator=rng) < 0.5
    for w in (0.5, 6.0):
        got = student.guide(torch.where(known, null, cond), null, w)
        agree(got[known], null[known])
        agree(got[~known], guide(cond, null, w)[~known])


@guide.mistake(
    "That is (1 + w) eps_cond - w eps_null, the convention of the paper, where w = 0 is off. Here w = 1 is: start at "
    "eps_null."
)
def paper_convention(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, 1 + w)


@guide.mistake(
    "eps_cond and eps_null have changed places: your w = 0 gives eps_cond, and a larger w leads away from the class."
)
def noises_swapped(eps_cond, eps_null, w):
    return guide(eps_null, eps_cond, w)


@guide.mistake("Your sign is wrong: the arrow goes from eps_null to eps_cond, and w of it is added.")
def arrow_turned(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, -w)


@guide.mistake("You went w - 1 arrows from eps_null. w - 1 is right from eps_cond on; from eps_null on it is w.")
def one_arrow_short(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, w - 1)


@guide.mistake("w is missing: eps_null + (eps_cond - eps_null) is just eps_cond, no guidance at all.")
def w_missing(eps_cond, eps_null, w):
    return eps_cond.clone()


@guide.mistake("You returned eps_null whatever w is: the class is ignored.")
def class_ignored(eps_cond, eps_null, w):
    return eps_null.clone()


@guide.mistake("Brackets: eps_null + w eps_cond - eps_null is w eps_cond. The whole difference is multiplied by w.")
def w_times_cond(eps_cond, eps_null, w):
    return w * eps_cond


@guide.mistake("eps_null is missing at the start: w (eps_cond - eps_null) is the arrow alone, added to nothing.")
def arrow_alone(eps_cond, eps_null, w):
    return w * (eps_cond - eps_null)


@guide.mistake("You added w eps_cond to eps_null. It is w of the difference: subtract eps_null inside the brackets.")
def not_subtracted(eps_cond, eps_null, w):
    return eps_null + w * eps_cond


@guide.mistake("The arrow is the sum eps_cond + eps_null. It is the difference.")
def sum_for_difference(eps_cond, eps_null, w):
    return eps_null + w * (eps_cond + eps_null)


@guide.mistake(
    "The sign of eps_null's weight is wrong: with w on eps_cond it has the weight 1 - w, and both together are 1."
)
def null_weight_turned(eps_cond, eps_null, w):
    return w * eps_cond - (1 - w) * eps_null


@guide.mistake("You took w eps_cond - eps_null. The weights add to 1: eps_null has the weight 1 - w.")
def null_once(eps_cond, eps_null, w):
    return w * eps_cond - eps_null


@guide.mistake("You squared the difference. It has a direction: it is added as it is, w times.")
def difference_squared(eps_cond, eps_null, w):
    return eps_null + w * (eps_cond - eps_null) ** 2


@guide.mistake("You took the difference's absolute value. It has a direction, and may be negative.")
def difference_without_sign(eps_cond, eps_null, w):
    return eps_null + w * (eps_cond - eps_null).abs()


@guide.mistake("You squared w. It multiplies the difference as it is.")
def w_squared(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, w**2)


@guide.mistake("You divided the difference by w. A larger w goes further: multiply.")
def divided_by_w(eps_cond, eps_null, w):
    return eps_null + (eps_cond - eps_null) / w


@guide.mistake("You halved w. It multiplies the difference as it is.")
def w_halved(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, w / 2)


@guide.mistake("You divided the difference by its length. How long it is says how much the class matters here.")
def difference_normalised(eps_cond, eps_null, w):
    d = eps_cond - eps_null
    return eps_null + w * d / d.flatten(1).norm(dim=1).view(-1, *[1] * (d.ndim - 1))


@guide.mistake("You divided by 1 + w, a weighted average of the two. Guidance goes beyond both of them.")
def weighted_average(eps_cond, eps_null, w):
    return (eps_null + w * eps_cond) / (1 + w)


@guide.mistake("You kept w between 0 and 1, so you never go beyond eps_cond. Guidance is just that, w above 1.")
def w_clamped(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, min(max(w, 0.0), 1.0))


@guide.mistake("You clipped the result to [-1, 1]. That is the range of pictures; noise goes beyond it.")
def result_clipped(eps_cond, eps_null, w):
    return guide(eps_cond, eps_null, w).clamp(-1, 1)


@guide.mistake("You brought the result to eps_cond's deviation. Some samplers do that afterwards; here it stays.")
def rescaled(eps_cond, eps_null, w):
    eps = guide(eps_cond, eps_null, w)
    factor = eps_cond.flatten(1).std(1) / eps.flatten(1).std(1)
    return factor.view(-1, *[1] * (eps.ndim - 1)) * eps


@guide.mistake("You averaged the difference over the batch. Each picture has its own.")
def difference_averaged(eps_cond, eps_null, w):
    return eps_null + w * (eps_cond - eps_null).mean(0)


# 10.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "10.3",
    title="What guidance aims at",
    hints=(
        "log N(x; m, v) = -(x - m)^2 / (2 v) + a constant. A power multiplies the logarithm, a product adds: you have "
        "one quadratic function of x.",
        "Its x^2 has the factor -(w / var_c + (1 - w) / var) / 2. A Gaussian's has -precision / 2, and its variance is "
        "1 / precision.",
        "Its x has the factor w mean_c / var_c + (1 - w) mean / var. A Gaussian's has precision times mean.",
    ),
)
def sharpened(mean_c: Tensor, var_c: Tensor, mean: Tensor, var: Tensor, w: float) -> list[Tensor]:
    """Compute mean and variance of the density guidance aims at, for Gaussians on a line (C25).

    It is proportional to p(x | c)^w p(x)^(1 - w), by Bayes' theorem also to p(x) p(c | x)^w: the class counts w times.
    With p(x | c) = N(mean_c, var_c) and p(x) = N(mean, var) it is a Gaussian again, wherever its precision, 1 over the
    variance, is above 0. Your inputs are such.

    mean_c, var_c: (n,), means and variances of n Gaussians p(x | c).
    mean, var: (n,), those of the n Gaussians p(x) that go with them.
    w: the strength of guidance, a number.
    Returns [mean_w, var_w], (n,) each.
    """
    precision = w / var_c + (1 - w) / var
    return [(w * mean_c / var_c + (1 - w) * mean / var) / precision, 1 / precision]


def two_gaussians(rng: torch.Generator, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mean_c, var_c, mean, var, (n,) each, with var_c below var: the precision is above 0 at every w from 0 on."""
    u, v = torch.rand(2, n, generator=rng)
    return 1 + normal(rng, n), 0.2 + 0.6 * u, normal(rng, n) - 1, 1.5 + 2 * v


@sharpened.check
def test_sharpened_matches_the_formula(student, rng):
    """agrees with the closed form for several Gaussians and several w"""
    for n, w in ((6, 2.5), (1, 4.0), (3, 0.6)):
        args = *two_gaussians(rng, n), w
        agree(student.sharpened(*args), sharpened(*args))
    wide, var_wide, narrow, var_narrow = two_gaussians(rng, 5)
    args = narrow, var_narrow, wide, var_wide, 0.3
    agree(student.sharpened(*args), sharpened(*args))


@sharpened.check
def test_sharpened_is_that_density(student, rng):
    """its log density is w log p(x | c) + (1 - w) log p(x), but for a constant"""
    args, x = two_gaussians(rng, 4), torch.linspace(-2, 2, 9)[:, None]
    for w in (0.5, 3.0):
        m, v = student.sharpened(*args, w)
        aim = -w * (x - args[0]) ** 2 / (2 * args[1]) - (1 - w) * (x - args[2]) ** 2 / (2 * args[3])
        got = -((x - m) ** 2) / (2 * v)
        agree(got - got[4], aim - aim[4])  # x[4] is 0


@sharpened.check
def test_sharpened_at_0_and_1(student, rng):
    """w = 0 gives p(x), w = 1 gives p(x | c); where both are one Gaussian it stays, at every w"""
    mean_c, var_c, mean, var = two_gaussians(rng, 5)
    agree(student.sharpened(mean_c, var_c, mean, var, 0.0), [mean, var])
    agree(student.sharpened(mean_c, var_c, mean, var, 1.0), [mean_c, var_c])
    agree(student.sharpened(mean, var, mean, var, 3.5), [mean, var])


@sharpened.check
def test_sharpened_of_equal_variances(student, rng):
    """where the variances are equal it is moved, and as wide as they are"""
    mean_c, var, mean, _ = two_gaussians(rng, 5)
    for w in (0.5, 2.0, 6.0):
        agree(student.sharpened(mean_c, var, mean, var, w), [mean + w * (mean_c - mean), var])


def _natural(mean_c, var_c, mean, var, w_c: float, w: float) -> list[Tensor]:
    """Mean and variance of N(mean_c, var_c)^w_c N(mean, var)^w."""
    precision = w_c / var_c + w / var
    return [(w_c * mean_c / var_c + w * mean / var) / precision, 1 / precision]


@sharpened.mistake("You read the variances as deviations and squared them. They are variances as they are.")
def taken_for_deviations(mean_c, var_c, mean, var, w):
    return sharpened(mean_c, var_c**2, mean, var**2, w)


@sharpened.mistake(
    "You read the variances as deviations, squared them, and returned a deviation. In and out these are variances."
)
def deviations_throughout(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c**2, mean, var**2, w)
    return [m, v.sqrt()]


@sharpened.mistake("You took roots of the variances first. The exponent holds the variance itself.")
def roots_for_variances(mean_c, var_c, mean, var, w):
    return sharpened(mean_c, var_c.sqrt(), mean, var.sqrt(), w)


@sharpened.mistake("You added up 1 / deviation, and squared at the end. What adds up in the exponent is 1 / variance.")
def deviations_added(mean_c, var_c, mean, var, w):
    m, s = sharpened(mean_c, var_c.sqrt(), mean, var.sqrt(), w)
    return [m, s**2]


@sharpened.mistake("Your second result is the deviation. Asked for is the variance: leave out the root.")
def deviation_returned(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c, mean, var, w)
    return [m, v.sqrt()]


@sharpened.mistake("Your second result is the precision. The variance is 1 over it.")
def precision_returned(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c, mean, var, w)
    return [m, 1 / v]


@sharpened.mistake("Your second result is half the variance: the exponent has precision / 2 as the factor of x^2.")
def half_variance(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c, mean, var, w)
    return [m, v / 2]


@sharpened.mistake("Your second result is twice the variance: the 1/2 in the exponent is in every Gaussian alike.")
def twice_the_variance(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c, mean, var, w)
    return [m, 2 * v]


@sharpened.mistake(
    "You weighted the means by w and 1 - w alone. The narrower Gaussian pulls harder: weigh them by precision, too."
)
def means_by_w(mean_c, var_c, mean, var, w):
    return [mean + w * (mean_c - mean), sharpened(mean_c, var_c, mean, var, w)[1]]


@sharpened.mistake("The variance does not mix with weights w and 1 - w. The precision, 1 / variance, does.")
def variance_mixed(mean_c, var_c, mean, var, w):
    return [sharpened(mean_c, var_c, mean, var, w)[0], w * var_c + (1 - w) * var]


@sharpened.mistake(
    "You mixed means and variances with weights w and 1 - w. In the exponent 1 / variance and mean / variance add up."
)
def both_mixed(mean_c, var_c, mean, var, w):
    return [mean + w * (mean_c - mean), w * var_c + (1 - w) * var]


@sharpened.mistake(
    "That is the mixture w p(x | c) + (1 - w) p(x), a sum of densities. Here they are powers, and are multiplied."
)
def mixture(mean_c, var_c, mean, var, w):
    m = w * mean_c + (1 - w) * mean
    return [m, w * (var_c + (mean_c - m) ** 2) + (1 - w) * (var + (mean - m) ** 2)]


@sharpened.mistake(
    "That is the variance of w x + (1 - w) y, of a sum of independent draws. Here densities are multiplied."
)
def draws_added(mean_c, var_c, mean, var, w):
    return [mean + w * (mean_c - mean), w**2 * var_c + (1 - w) ** 2 * var]


@sharpened.mistake("You mixed the logarithms of the variances: var_c^w var^(1 - w). It is the precisions that mix.")
def logarithms_mixed(mean_c, var_c, mean, var, w):
    return [sharpened(mean_c, var_c, mean, var, w)[0], var_c**w * var ** (1 - w)]


@sharpened.mistake("w and 1 - w have changed places: w is the power of p(x | c).")
def powers_swapped(mean_c, var_c, mean, var, w):
    return sharpened(mean_c, var_c, mean, var, 1 - w)


@sharpened.mistake("You took the powers 1 + w and -w, those of the paper's convention. Here w = 1 is off: w and 1 - w.")
def paper_powers(mean_c, var_c, mean, var, w):
    return sharpened(mean_c, var_c, mean, var, 1 + w)


@sharpened.mistake("w is missing: that is the product p(x | c) p(x). Their powers are w and 1 - w.")
def product(mean_c, var_c, mean, var, w):
    return _natural(mean_c, var_c, mean, var, 1, 1)


@sharpened.mistake(
    "You gave p(x) the power 1, as in p(x) p(c | x)^w. There it is p(c | x) that has w; p(x | c)^w goes with 1 - w."
)
def power_1_of_the_whole(mean_c, var_c, mean, var, w):
    return _natural(mean_c, var_c, mean, var, w, 1)


@sharpened.mistake("The power of p(x) is 1 - w: you have 1 + w.")
def power_1_plus_w(mean_c, var_c, mean, var, w):
    return _natural(mean_c, var_c, mean, var, w, 1 + w)


@sharpened.mistake("The sign of p(x)'s power is wrong: it is 1 - w, so that the two powers add to 1.")
def sign_of_the_power(mean_c, var_c, mean, var, w):
    return _natural(mean_c, var_c, mean, var, w, w - 1)


@sharpened.mistake("You subtracted p(x)'s term with weight w: powers w and -w. They are w and 1 - w, and add to 1.")
def powers_w_and_minus_w(mean_c, var_c, mean, var, w):
    return _natural(mean_c, var_c, mean, var, w, -w)


@sharpened.mistake("p(x) is missing: that is p(x | c)^w alone. It is divided by p(x)^(w - 1).")
def class_alone(mean_c, var_c, mean, var, w):
    return [mean_c.clone(), var_c / w]


@sharpened.mistake("You squared w and 1 - w. A power stands before the logarithm as it is.")
def powers_squared(mean_c, var_c, mean, var, w):
    return _natural(mean_c, var_c, mean, var, w**2, (1 - w) ** 2)


@sharpened.mistake("Your mean is still multiplied by the precision. Divide by it.")
def mean_not_divided(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c, mean, var, w)
    return [m / v, v]


@sharpened.mistake("You divided the mean by the variance: multiply by it, or divide by the precision.")
def mean_divided_twice(mean_c, var_c, mean, var, w):
    m, v = sharpened(mean_c, var_c, mean, var, w)
    return [m / v**2, v]


@sharpened.mistake(
    "You weighted the means by variance, so that the wider Gaussian pulls harder. Weigh by 1 / variance."
)
def means_by_variance(mean_c, var_c, mean, var, w):
    weight, weight_c = (1 - w) * var, w * var_c
    return [
        (weight_c * mean_c + weight * mean) / (weight_c + weight),
        sharpened(mean_c, var_c, mean, var, w)[1],
    ]


@sharpened.mistake("Each mean is divided by the other's variance: mean_c belongs to var_c, mean to var.")
def variances_crossed(mean_c, var_c, mean, var, w):
    v = sharpened(mean_c, var_c, mean, var, w)[1]
    return [v * (w * mean_c / var + (1 - w) * mean / var_c), v]


@sharpened.mistake("You weighted the means by their precisions alone. Each term has its power, too: w and 1 - w.")
def powers_missing_in_mean(mean_c, var_c, mean, var, w):
    m = _natural(mean_c, var_c, mean, var, 1, 1)[0]
    return [m, sharpened(mean_c, var_c, mean, var, w)[1]]


@sharpened.mistake("Your mean is mean_c at every w. Guidance also moves the mean, beyond mean_c for w above 1.")
def mean_of_class(mean_c, var_c, mean, var, w):
    return [mean_c.clone(), sharpened(mean_c, var_c, mean, var, w)[1]]


@sharpened.mistake("Your variance is var_c at every w. Guidance changes the width as well as the place.")
def variance_of_class(mean_c, var_c, mean, var, w):
    return [sharpened(mean_c, var_c, mean, var, w)[0], var_c.clone()]


@sharpened.mistake("Your two results have changed places: first the mean, then the variance.")
def results_swapped(mean_c, var_c, mean, var, w):
    return sharpened(mean_c, var_c, mean, var, w)[::-1]


@sharpened.mistake("You returned the mean alone. The second result is the variance: [mean_w, var_w].")
def mean_alone(mean_c, var_c, mean, var, w):
    return sharpened(mean_c, var_c, mean, var, w)[0]


# 10.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "10.4",
    title="A denoiser is a classifier",
    hints=(
        "Which axis is which? The draws come first: average over them, and a table (b, k) is left.",
        "argmin(dim=1) gives the place of the smallest number in each row, which is the class.",
    ),
)
def read_digit(errors: Tensor) -> Tensor:
    """Read the class of each picture from how well a denoiser does when told each of k classes (Li et al. 2023; Clark
    and Jaini 2023).

    Told the right class, the denoiser finds the noise best: the class of the smallest mean error over the draws wins.
    Every class met the same draws of t and eps, so that it is the classes that are compared and not the draws.

    errors: (draws, b, k), squared errors; errors[i, j, c] is that of draw i of picture j when told class c.
    Returns the classes, 0 to k - 1, (b,), int64.
    """
    return errors.mean(0).argmin(1)


def trials(rng: torch.Generator, draws: int, b: int, k: int) -> Tensor:
    """(draws, b, k), above 0: each draw of a picture is of its own difficulty, and in each some class stands out."""
    difficulty = 0.5 + 2 * torch.rand(draws, b, 1, generator=rng)
    return difficulty * (0.3 + torch.rand(draws, b, k, generator=rng) + 0.5 * normal(rng, draws, b, k) ** 2)


@read_digit.check
def test_read_matches_the_least_mean(student, rng):
    """agrees with the least mean error for several numbers of draws, pictures and classes"""
    for draws, b, k in ((7, 12, 5), (4, 4, 4), (3, 1, 10), (6, 9, 3), (1, 5, 7)):
        errors = trials(rng, draws, b, k)
        agree(whole(student, errors), read_digit(errors))


@read_digit.check
def test_read_weighs_what_a_draw_says(student, rng):
    """of two pictures with three draws each, which you can add up by hand, a clear draw outweighs close ones"""
    one = torch.tensor([[5.0, 9.0, 4.9], [1.0, 2.0, 0.9], [2.0, 3.0, 7.0]])  # sums 8, 14, 12.8
    two = torch.tensor([[8.0, 4.0, 6.0], [0.5, 3.0, 2.0], [6.0, 4.0, 1.0]])  # sums 14.5, 11, 9
    agree(whole(student, torch.stack([one, two], 1)), torch.tensor([0, 2]))


@read_digit.check
def test_read_compares_the_classes(student, rng):
    """a draw that is harder for every class alike changes no answer, nor does the order of the draws"""
    errors = trials(rng, 6, 10, 4)
    harder = errors + 6 * torch.rand(6, 10, 1, generator=rng)
    for other in (harder, errors.flip(0), harder.roll(2, 0)):
        agree(whole(student, other), read_digit(errors))


@read_digit.check
def test_read_follows_classes_and_pictures(student, rng):
    """where classes or pictures come in another order, so do the answers"""
    errors = trials(rng, 5, 8, 6)
    answer = read_digit(errors)
    agree(whole(student, errors.flip(1)), answer.flip(0))
    agree(whole(student, errors.flip(2)), 5 - answer)


@read_digit.mistake("You took the class of the largest error. Told the right class, the denoiser errs least: argmin.")
def largest_error(errors):
    return errors.mean(0).argmax(1)


@read_digit.mistake(
    "You took the least of each column: a picture for each class. Asked for is a class for each picture."
)
def picture_of_each_class(errors):
    return errors.mean(0).argmin(0)


@read_digit.mistake(
    "You averaged over axis 1, the pictures, as if the batch came first: that is a class for each draw. Average over "
    "axis 0."
)
def pictures_averaged(errors):
    return errors.mean(1).argmin(1)


@read_digit.mistake(
    "You averaged over the classes and took the easiest draw of each picture. Average over the draws, choose a class."
)
def easiest_draw(errors):
    return errors.mean(2).argmin(0)


@read_digit.mistake(
    "You averaged over pictures and draws together: one class for the whole batch. Each picture needs its own."
)
def one_for_all(errors):
    return errors.mean((0, 1)).argmin()


@read_digit.mistake(
    "You reshaped errors to (b, draws, k), which deals the numbers out anew. The axes are moved by permute or "
    "transpose."
)
def reshaped(errors):
    draws, b, k = errors.shape
    return errors.reshape(b, draws, k).mean(1).argmin(1)


@read_digit.mistake(
    "You took each class's luckiest draw, its least error. One easy draw then decides: take the mean of them."
)
def luckiest_draw(errors):
    return errors.amin(0).argmin(1)


@read_digit.mistake("You took each class's worst draw, its largest error. One hard draw then decides: take the mean.")
def worst_draw(errors):
    return errors.amax(0).argmin(1)


@read_digit.mistake("You took the median over the draws. It does not see by how much a draw speaks for a class: mean.")
def median_draw(errors):
    return errors.median(0).values.argmin(1)


@read_digit.mistake(
    "You let each draw vote. A vote does not see by how much: a clear draw counts no more than a close one. Average "
    "first."
)
def votes(errors):
    return errors.argmin(2).mode(0).values


@read_digit.mistake("You used the first draw alone. One draw of noise is mostly chance: average over all of them.")
def first_draw(errors):
    return errors[0].argmin(1)


@read_digit.mistake("You used the last draw alone. One draw of noise is mostly chance: average over all of them.")
def last_draw(errors):
    return errors[-1].argmin(1)


@read_digit.mistake("You chose a class in each draw and averaged their numbers. Average the errors, and choose once.")
def classes_averaged(errors):
    return errors.argmin(2).double().mean(0).round().long()


@read_digit.mistake("You chose a class in each draw and returned them all. Average the errors over the draws first.")
def class_of_each_draw(errors):
    return errors.argmin(2)


@read_digit.mistake("You returned the least mean error itself. Asked for is its place, the class: argmin, not min.")
def error_itself(errors):
    return errors.mean(0).amin(1)


@read_digit.mistake("You counted the classes from 1. They begin at 0, as argmin counts.")
def counted_from_1(errors):
    return errors.mean(0).argmin(1) + 1


@read_digit.mistake("You returned the classes as floats. A class is an index: keep it int64.")
def float_classes(errors):
    return errors.mean(0).argmin(1).float()


@read_digit.mistake(
    "You searched one list of draws times classes: the place in it is no class, and one lucky draw decides. Average "
    "first."
)
def place_in_a_list(errors):
    return errors.transpose(0, 1).flatten(1).argmin(1)


@read_digit.mistake("You took the second smallest mean error: place 0 of the ascending order is the smallest.")
def second_smallest(errors):
    return errors.mean(0).argsort(1)[:, 1]


@read_digit.mistake("You returned the order of the classes. Asked for is the first of it alone.")
def whole_order(errors):
    return errors.mean(0).argsort(1)


@read_digit.mistake("You returned a rank for each class. Asked for is the class of rank 0, one for each picture.")
def ranks(errors):
    return errors.mean(0).argsort(1).argsort(1)


@read_digit.mistake(
    "You multiplied the errors over the draws, or added their logarithms. Each stands for minus a log density already: "
    "add them."
)
def multiplied(errors):
    return errors.log().mean(0).argmin(1)


@read_digit.mistake("You took roots of the errors first. The bound on log p(x | c) has squared errors: they stay so.")
def roots_averaged(errors):
    return errors.sqrt().mean(0).argmin(1)


@read_digit.mistake("You squared the errors. They are squared already.")
def squared_again(errors):
    return errors.square().mean(0).argmin(1)


@read_digit.mistake(
    "You turned each draw into probabilities and averaged those. Errors add up over draws: average first, a softmax "
    "after."
)
def probabilities_averaged(errors):
    return (-errors).softmax(2).mean(0).argmax(1)


@read_digit.mistake("You took the class whose errors vary least. It is the class whose errors are small.")
def steadiest(errors):
    return errors.std(0, correction=0).argmin(1)


@read_digit.mistake(
    "You divided each draw by its own mean error, so that all weigh alike. Asked for is the plain mean over the draws."
)
def draws_made_alike(errors):
    return (errors / errors.mean(2, keepdim=True)).mean(0).argmin(1)


@read_digit.mistake(
    "You subtracted the pictures' mean for each class. It is one picture whose errors are compared across classes."
)
def class_mean_subtracted(errors):
    mean = errors.mean(0)
    return (mean - mean.mean(0)).argmin(1)
