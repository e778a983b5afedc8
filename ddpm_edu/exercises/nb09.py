"""Notebook 09, measuring. C22 is a claim of the course; the papers are named where an equation is theirs.

Symbols: features are (n, d), one row a picture; m1, S1 are the mean (d,) and covariance (d, d) of the first set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

# 09.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "09.1",
    title="The Fréchet distance",
    hints=(
        "The trace of a root is the sum of the roots of the eigenvalues. You do not need the root itself.",
        "S1 S2 is not symmetric, but R S2 R is, with R = S1^(1/2), and it has the same eigenvalues. Get R from "
        "torch.linalg.eigh(cov_1): axes * values.sqrt() @ axes.mT.",
        "A covariance of few samples has eigenvalues that are 0; rounding may make them -1e-17, whose root is NaN: "
        "clamp(min=0) first.",
    ),
)
def frechet(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> Tensor:
    """Compute the Fréchet distance of two Gaussians, as FID has it (Heusel et al. 2017, eq. 6):

    ||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    mean_1, mean_2: (d,), float64.
    cov_1, cov_2: (d, d), float64, symmetric; some of their eigenvalues may be 0, which rounding may make -1e-17.
    Returns the distance, a tensor of shape ().
    """
    values, axes = torch.linalg.eigh(cov_1)
    root = axes * values.clamp(min=0).sqrt() @ axes.mT
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp(min=0).sqrt().sum()
    return (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross


def covariance(rng: torch.Generator, d: int, rank: int) -> Tensor:
    """(d, d) of this rank, all entries positive."""
    mix = torch.rand(d, rank, generator=rng, dtype=torch.float64) + 0.1
    return mix @ mix.T


def gaussians(rng: torch.Generator, d: int, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two means and two covariances of this rank, by default full."""
    means = normal(rng, 2, d).double()
    return means[0], covariance(rng, d, rank or d + 2), means[1], covariance(rng, d, rank or d + 2)


@frechet.check
def test_frechet_matches_the_formula(student, rng):
    """agrees with the formula for random Gaussians in 2, 3 and 6 dimensions"""
    for d in (3, 2, 6):
        args = gaussians(rng, d)
        agree(student.frechet(*args), frechet(*args))


@frechet.check
def test_frechet_in_one_dimension(student, rng):
    """in one dimension it is (m1 - m2)^2 + (s1 - s2)^2, of the means and the deviations"""
    m, s = normal(rng, 2, 1).double(), 0.3 + torch.rand(2, 1, 1, generator=rng, dtype=torch.float64)
    agree(
        student.frechet(m[0], s[0] ** 2, m[1], s[1] ** 2), (m[0] - m[1]).square().sum() + (s[0] - s[1]).square().sum()
    )


@frechet.check
def test_frechet_of_flat_covariances(student, rng):
    """covariances of fewer samples than dimensions are no obstacle"""
    args = gaussians(rng, 6, rank=2)
    agree(student.frechet(*args), frechet(*args))


@frechet.check
def test_frechet_to_itself(student, rng):
    """a Gaussian's distance to itself is 0, and to the same one moved by v it is v^2"""
    mean, cov, *_ = gaussians(rng, 4)
    v = normal(rng, 4).double()
    assert student.frechet(mean, cov, mean, cov).abs() < 1e-6
    agree(student.frechet(mean, cov, mean + v, cov), v.square().sum())


def _with(mean_part: Tensor, cov_1: Tensor, cov_2: Tensor, cross: Tensor) -> Tensor:
    return mean_part + cov_1.trace() + cov_2.trace() - cross


def _cross(cov_1: Tensor, cov_2: Tensor) -> Tensor:
    """tr (S1 S2)^(1/2), from the reference."""
    zero = torch.zeros(len(cov_1), dtype=cov_1.dtype)
    return (cov_1.trace() + cov_2.trace() - frechet(zero, cov_1, zero, cov_2)) / 2


def _root(cov: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(cov)
    return axes * values.clamp(min=0).sqrt() @ axes.mT


@frechet.mistake(
    "You took the root of each entry. The root of a matrix is the matrix that gives it when multiplied by itself."
)
def root_of_entries(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * (cov_1 @ cov_2).sqrt().trace())


@frechet.mistake("The root is missing: you subtracted 2 tr(S1 S2), a product of variances, from variances.")
def no_root(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * (cov_1 @ cov_2).trace())


@frechet.mistake(
    "The factor 2 is missing in front of the root: with it a Gaussian's distance to itself is 0, without it tr S."
)
def two_missing(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, _cross(cov_1, cov_2))


@frechet.mistake(
    "You took the distance of the means, not its square. Everything here is squared: traces are variances."
)
def mean_not_squared(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).norm(), cov_1, cov_2, 2 * _cross(cov_1, cov_2))


@frechet.mistake("You averaged the squares over the d features. ||m1 - m2||^2 is their sum.")
def mean_averaged(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().mean(), cov_1, cov_2, 2 * _cross(cov_1, cov_2))


@frechet.mistake("The means are missing: what you have compares the shapes of the two clouds, wherever they lie.")
def means_missing(mean_1, cov_1, mean_2, cov_2):
    return _with(0 * mean_1.sum(), cov_1, cov_2, 2 * _cross(cov_1, cov_2))


@frechet.mistake("The covariances are missing: two clouds about one mean may still have other widths.")
def covariances_missing(mean_1, cov_1, mean_2, cov_2):
    return (mean_1 - mean_2).square().sum()


@frechet.mistake("One of the two traces is missing: tr S1 and tr S2 both belong to it.")
def one_trace(mean_1, cov_1, mean_2, cov_2):
    return frechet(mean_1, cov_1, mean_2, cov_2) - cov_2.trace()


@frechet.mistake("You added the root. It is subtracted: the more alike the two spread, the smaller the distance.")
def root_added(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, -2 * _cross(cov_1, cov_2))


@frechet.mistake(
    "You took a root of the whole at the end. The formula, and every published FID, is the squared distance."
)
def root_of_all(mean_1, cov_1, mean_2, cov_2):
    return frechet(mean_1, cov_1, mean_2, cov_2).clamp(min=0).sqrt()


@frechet.mistake(
    "You multiplied the two roots: S1^(1/2) S2^(1/2) is (S1 S2)^(1/2) only where S1 and S2 have the same axes."
)
def roots_apart(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * (_root(cov_1) @ _root(cov_2)).trace())


@frechet.mistake(
    "You used the diagonals alone, as if the features were independent. The root is of the whole product S1 S2."
)
def diagonals_alone(mean_1, cov_1, mean_2, cov_2):
    cross = 2 * (cov_1.diagonal() * cov_2.diagonal()).sqrt().sum()
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, cross)


@frechet.mistake("You summed every entry of S1 and S2. The trace is the sum along the diagonal.")
def sums_for_traces(mean_1, cov_1, mean_2, cov_2):
    return (mean_1 - mean_2).square().sum() + cov_1.sum() + cov_2.sum() - 2 * _cross(cov_1, cov_2)


@frechet.mistake("You took the root of the trace. Needed is the trace of the root: root each eigenvalue, then sum.")
def root_of_trace(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * (cov_1 @ cov_2).trace().sqrt())


@frechet.mistake("You put S1 for its root R: the matrix is R S2 R, and R = S1^(1/2) has the roots of the eigenvalues.")
def no_root_in_the_middle(mean_1, cov_1, mean_2, cov_2):
    cross = torch.linalg.eigvalsh(cov_1 @ cov_2 @ cov_1).clamp(min=0).sqrt().sum()
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * cross)


@frechet.mistake(
    "You multiplied the eigenvalues of S1 and S2 in order of size, as if their axes were the same. "
    "Take those of the product."
)
def eigenvalues_apart(mean_1, cov_1, mean_2, cov_2):
    one, two = (torch.linalg.eigvalsh(cov).clamp(min=0) for cov in (cov_1, cov_2))
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * (one * two).sqrt().sum())


@frechet.mistake(
    "You gave eigvalsh the product S1 S2, which is not symmetric: it reads one triangle alone. Give it R S2 R."
)
def one_triangle(mean_1, cov_1, mean_2, cov_2):
    cross = torch.linalg.eigvalsh(cov_1 @ cov_2).clamp(min=0).sqrt().sum()
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * cross)


@frechet.mistake(
    "You took the singular values of S1 S2. Its eigenvalues are needed: S1 S2 is not symmetric, and they differ."
)
def singular_values(mean_1, cov_1, mean_2, cov_2):
    cross = torch.linalg.svdvals(cov_1 @ cov_2).sqrt().sum()
    return _with((mean_1 - mean_2).square().sum(), cov_1, cov_2, 2 * cross)


@frechet.mistake("You summed the differences of the means, then squared. Square each one first: ||m1 - m2||^2.")
def sum_squared(mean_1, cov_1, mean_2, cov_2):
    return _with((mean_1 - mean_2).sum().square(), cov_1, cov_2, 2 * _cross(cov_1, cov_2))


# 09.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "09.2",
    title="To infinitely many samples",
    hints=(
        "Draw fid against u = 1/n: about a straight line. Infinitely many samples are u = 0.",
        "Least squares: slope = sum((u - mean u)(fid - mean fid)) / sum((u - mean u)^2), and the line goes through "
        "the means.",
    ),
)
def extrapolate(n: Tensor, fid: Tensor) -> Tensor:
    """Extrapolate FID to infinitely many samples (Chong and Forsyth 2020): its bias is about proportional to 1/n.

    Fit fid = a + c / n by least squares.

    n: (k,), float64, numbers of samples.
    fid: (k,), float64, the FID measured with so many.
    Returns a, a tensor of shape ().
    """
    u = 1 / n
    slope = ((u - u.mean()) * (fid - fid.mean())).sum() / (u - u.mean()).square().sum()
    return fid.mean() - slope * u.mean()


def measured(rng: torch.Generator, k: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """k numbers of samples, in no order and the extremes not at the ends, and a biased, noisy FID of each."""
    n = 10.0 * torch.tensor([4.0, 1.5, 20.0, 8.0, 13.0, 2.0, 6.0])[:k].double()
    a, c = 10 + 5 * torch.rand(2, generator=rng, dtype=torch.float64)
    return n, a + 20 * c / n + noise * normal(rng, k).double()


@extrapolate.check
def test_extrapolate_matches_least_squares(student, rng):
    """agrees with the least-squares line in 1/n for noisy values of 4 and of 7 sizes"""
    for k in (7, 4):
        n, fid = measured(rng, k)
        agree(student.extrapolate(n, fid), extrapolate(n, fid))


@extrapolate.check
def test_extrapolate_finds_a_line(student, rng):
    """finds a exactly where fid is a + c / n, whatever a, c and the order of n"""
    for a, c in ((3.0, 500.0), (0.0, 900.0), (8.0, -200.0)):
        n = (50 + 1000 * torch.rand(5, generator=rng, dtype=torch.float64)).round()
        assert (student.extrapolate(n, a + c / n) - a).abs() < 1e-6


@extrapolate.mistake("You fitted a line in n. The bias falls as 1/n, and a line in n gives its value at n = 0.")
def line_in_n(n, fid):
    return extrapolate(1 / n, fid)


@extrapolate.mistake("You returned the slope c. Asked for is a, what the line says at 1/n = 0.")
def the_slope(n, fid):
    u = 1 / n
    return ((u - u.mean()) * (fid - fid.mean())).sum() / (u - u.mean()).square().sum()


@extrapolate.mistake("You fitted a line in 1/sqrt(n). So do standard errors fall; the bias falls as 1/n.")
def line_in_root(n, fid):
    return extrapolate(n.sqrt(), fid)


@extrapolate.mistake("You fitted a line in log n, which has no value at infinite n. The bias falls as 1/n.")
def line_in_log(n, fid):
    return extrapolate(1 / n.log(), fid)


@extrapolate.mistake("You took the value with the most samples. It still has its bias, c / n.")
def the_largest(n, fid):
    return fid[n.argmax()]


@extrapolate.mistake("You took the last value, as if the list were in order. And even the largest n has its bias.")
def the_last(n, fid):
    return fid[-1]


@extrapolate.mistake("You averaged the values: each has its own bias c / n, and none of them is taken away.")
def the_mean(n, fid):
    return fid.mean()


@extrapolate.mistake("The sign of the slope's part is wrong: a = mean fid - slope * mean(1/n).")
def sign_of_slope(n, fid):
    return 2 * fid.mean() - extrapolate(n, fid)


@extrapolate.mistake("You put mean n for the mean of 1/n: the line goes through the means of fid and of 1/n.")
def mean_of_n(n, fid):
    return fid.mean() - the_slope(n, fid) / n.mean()


@extrapolate.mistake("You drew the line through the first and the last point alone. Least squares uses them all.")
def two_points(n, fid):
    u = 1 / n
    return fid[0] - (fid[-1] - fid[0]) / (u[-1] - u[0]) * u[0]


@extrapolate.mistake("You returned a + c, what the line says for n = 1. Infinitely many samples are 1/n = 0.")
def at_one(n, fid):
    return extrapolate(n, fid) + the_slope(n, fid)


@extrapolate.mistake("You fitted 1/n as a line in fid. The errors are in fid: it stands on the left.")
def axes_swapped(n, fid):
    u = 1 / n
    slope = (fid - fid.mean()).square().sum() / ((u - u.mean()) * (fid - fid.mean())).sum()
    return fid.mean() - slope * u.mean()


@extrapolate.mistake("Your line has no a: fitted through 0, it gives c alone. Fit both, and return a.")
def through_0(n, fid):
    return (fid / n).sum() / (1 / n).square().sum()


@extrapolate.mistake(
    "Your slope is that of a line through 0. Subtract the means of 1/n and of fid before you multiply and sum."
)
def not_centred(n, fid):
    return fid.mean() - through_0(n, fid) * (1 / n).mean()


@extrapolate.mistake(
    "You divided a covariance over k - 1 by a variance over k, or the reverse. Take one divisor in both."
)
def two_divisors(n, fid):
    return fid.mean() - the_slope(n, fid) * (1 / n).mean() * len(n) / (len(n) - 1)


@extrapolate.mistake("You fitted a line in 1/n^2. The bias is of first order: it falls as 1/n.")
def line_in_square(n, fid):
    return extrapolate(n**2, fid)


# 09.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "09.3",
    title="The kernel distance, unbiased",
    hints=(
        "Three kernel matrices: x with x, (n, n); y with y, (m, m); x with y, (n, m). One line makes each: "
        "(x @ y.mT / d + 1) ** 3.",
        "Within a set leave out the pairs of a picture with itself, the diagonal, and divide by the number of pairs "
        "that are left: n (n - 1).",
        "Between the sets every pair counts: a plain mean, and it is subtracted twice.",
    ),
)
def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute KID, the unbiased estimate of the squared maximum mean discrepancy (Bińkowski et al. 2018).

    The kernel is k(a, b) = (a . b / d + 1)^3. KID is the mean of k over pairs of different pictures of x, plus the same
    of y, minus twice the mean of k over all pairs of a picture of x and one of y.

    x: (n, d), y: (m, d), float64, the features of two sets.
    Returns the estimate, a tensor of shape (); it may be negative.
    """

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        return (k(a, a).sum() - k(a, a).trace()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * k(x, y).mean()


def two_sets(rng: torch.Generator, n: int, m: int, d: int) -> tuple[Tensor, Tensor]:
    return normal(rng, n, d).double(), 1.2 * normal(rng, m, d).double() + 0.5


@kernel_distance.check
def test_kid_matches_the_estimate(student, rng):
    """agrees with the unbiased estimate for sets of equal and of unequal size"""
    for n, m, d in ((7, 5, 3), (6, 6, 4), (4, 9, 2)):
        x, y = two_sets(rng, n, m, d)
        agree(student.kernel_distance(x, y), kernel_distance(x, y))


@kernel_distance.check
def test_kid_is_0_on_average(student, rng):
    """between sets of one distribution it is 0 on average, even with 4 pictures in each"""
    values = torch.stack([torch.as_tensor(student.kernel_distance(*normal(rng, 2, 4, 3).double())) for _ in range(200)])
    assert values.mean().abs() < 5 * values.std() / len(values) ** 0.5  # 5 standard errors


@kernel_distance.check
def test_kid_of_two_points(student, rng):
    """of two pictures and two pictures it is what you can work out by hand"""
    x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    agree(student.kernel_distance(x, y), torch.tensor(27.0 + 1 - 2 * (1 + 8 + 1 + 27) / 4).double())


def _kid(x: Tensor, y: Tensor, d: float | None = None, plus: float = 1, degree: int = 3, cross: float = 2) -> Tensor:
    """The reference with other constants."""
    d = x.shape[1] if d is None else d

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / d + plus) ** degree

    def within(a: Tensor) -> Tensor:
        return (k(a, a).sum() - k(a, a).trace()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - cross * k(x, y).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT / a.shape[1] + 1) ** 3


@kernel_distance.mistake(
    "You counted each picture with itself. That is the biased estimate: the diagonal adds about 1/n, always upwards."
)
def diagonal_counted(x, y):
    return _kernel(x, x).mean() + _kernel(y, y).mean() - 2 * _kernel(x, y).mean()


@kernel_distance.mistake(
    "You left out the diagonal and still divided by n^2. What is left are n (n - 1) pairs: divide by that."
)
def divided_by_n_squared(x, y):
    parts = [(_kernel(a, a).sum() - _kernel(a, a).trace()) / len(a) ** 2 for a in (x, y)]
    return sum(parts) - 2 * _kernel(x, y).mean()


@kernel_distance.mistake("You divided by n (n - 1) and left the diagonal in the sum: subtract the trace first.")
def diagonal_left_in(x, y):
    parts = [_kernel(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    return sum(parts) - 2 * _kernel(x, y).mean()


@kernel_distance.mistake("The kernel's scale is missing: a . b is divided by d, so that its size does not grow with d.")
def not_divided_by_d(x, y):
    return _kid(x, y, d=1)


@kernel_distance.mistake("You divided a . b by sqrt(d), as attention does. This kernel divides by d.")
def divided_by_root(x, y):
    return _kid(x, y, d=x.shape[1] ** 0.5)


@kernel_distance.mistake(
    "You divided a . b by the number of pictures. The kernel divides by d, the number of features."
)
def divided_by_n(x, y):
    return _kid(x, y, d=len(x))


@kernel_distance.mistake(
    "The kernel's + 1 is missing, or stands outside the power, where it cancels: then only third moments are compared."
)
def plus_1_missing(x, y):
    return _kid(x, y, plus=0)


@kernel_distance.mistake(
    "The power 3 is missing: with a kernel of power 1 only the means of the two sets are compared."
)
def power_missing(x, y):
    return _kid(x, y, degree=1)


@kernel_distance.mistake("You squared where the kernel takes the third power.")
def squared(x, y):
    return _kid(x, y, degree=2)


@kernel_distance.mistake("The factor 2 is missing: the pairs between the sets are subtracted twice.")
def cross_once(x, y):
    return _kid(x, y, cross=1)


@kernel_distance.mistake("You added the pairs between the sets. They are subtracted: alike sets are near 0.")
def cross_added(x, y):
    return _kid(x, y, cross=-2)


@kernel_distance.mistake(
    "You took a root at the end. It would spoil the unbiasedness, and the estimate may be negative."
)
def kid_rooted(x, y):
    return kernel_distance(x, y).abs().sqrt()


@kernel_distance.mistake("You cut the estimate off at 0. It is unbiased because it may come out negative.")
def cut_off(x, y):
    return kernel_distance(x, y).clamp(min=0)


@kernel_distance.mistake(
    "You took each pair within a set once, i < j, and divided by n (n - 1). Those are half as many: n (n - 1) / 2."
)
def half_the_pairs(x, y):
    return kernel_distance(x, y) / 2 - _kernel(x, y).mean()


@kernel_distance.mistake("You divided the pairs of y by n (n - 1). There are m (m - 1) of them.")
def one_size_for_both(x, y):
    n, m = len(x), len(y)
    parts = [(_kernel(a, a).sum() - _kernel(a, a).trace()) / (n * (n - 1)) for a in (x, y)]
    return sum(parts) - 2 * _kernel(x, y).sum() / (n * m)


@kernel_distance.mistake(
    "You left the diagonal out between the sets too. There no picture meets itself: all n m pairs count."
)
def cross_without_diagonal(x, y):
    between = _kernel(x, y)
    cross = (between.sum() - between.diagonal().sum()) / (between.numel() - min(between.shape))
    return kernel_distance(x, y) + 2 * (between.mean() - cross)


@kernel_distance.mistake("You compared the mean features alone. The kernel is of each pair, and then comes the mean.")
def kernel_of_means(x, y):
    one, two = x.mean(0, keepdim=True), y.mean(0, keepdim=True)
    return (_kernel(one, one) + _kernel(two, two) - 2 * _kernel(one, two)).sum()


# 09.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "09.4",
    title="Precision",
    hints=(
        "torch.cdist gives all distances: of real with real, (n, n), and of real with generated, (n, m).",
        "Sort each row of real with real: first comes the picture itself, at 0; entry k is the k-th neighbour.",
        "Inside: between <= radius[:, None], (n, m). A generated picture counts if it is inside at least one ball: "
        "any over the real ones.",
    ),
)
def precision(real: Tensor, generated: Tensor, k: int) -> Tensor:
    """Compute precision: the share of generated pictures that look real (Kynkäänniemi et al. 2019, eqs. 1 and 2).

    Around each real picture lies a ball that reaches to its k-th nearest other real picture. A generated picture looks
    real if it lies in at least one of these balls (on the edge counts).

    real: (n, d), generated: (m, d), float64, features; k: a number from 1 to n - 1.
    Returns the share, a tensor of shape ().
    """
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    inside = torch.cdist(real, generated) <= radius[:, None]
    return inside.any(0).double().mean()


def real_and_generated(rng: torch.Generator, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Generated ones are wider and a little off: some of them in the balls of the real ones."""
    return normal(rng, n, 3).double(), 1.3 * normal(rng, m, 3).double() + 0.6


@precision.check
def test_precision_matches_the_definition(student, rng):
    """agrees with the definition for random features and k = 3, 1, 5, 4"""
    for n, m, k in ((40, 600, 3), (60, 520, 1), (30, 680, 5), (50, 640, 4)):  # many: a share of few agrees by chance
        real, generated = real_and_generated(rng, n, m)
        agree(student.precision(real, generated, k), precision(real, generated, k))


@precision.check
def test_precision_on_a_line(student, rng):
    """on a line, with four real pictures and six generated, one on an edge, it is what you can count"""
    real = torch.tensor([[0.0], [1.0], [3.0], [9.0]]).double()
    generated = torch.tensor([[0.5], [-1.5], [4.5], [2.0], [15.0], [20.0]]).double()
    agree(student.precision(real, generated, 1), torch.tensor(4 / 6).double())


@precision.check
def test_precision_does_not_see_what_is_missing(student, rng):
    """pictures near a single real one look real, all of them; pictures far away do not"""
    real = normal(rng, 30, 3).double()
    near = real[:1] + 1e-3 * normal(rng, 20, 3).double()
    agree(student.precision(real, near, 3), torch.tensor(1.0).double())
    agree(student.precision(real, torch.cat([near, near + 100]), 3), torch.tensor(0.5).double())


@precision.mistake(
    "You counted each picture as its own first neighbour, so your balls are one neighbour too small: entry 0 is itself."
)
def itself_counted(real, generated, k):
    return precision(real, generated, k - 1)


@precision.mistake(
    "Your balls are one neighbour too large: sorted, entry 0 is the picture itself and entry k the k-th."
)
def one_too_far(real, generated, k):
    return precision(real, generated, k + 1)


@precision.mistake("That is recall: the share of real pictures inside the balls of the generated. Swap the two.")
def recall_instead(real, generated, k):
    return precision(generated, real, k)


@precision.mistake(
    "Your balls lie around the generated pictures. What looks real is told by balls around the real ones."
)
def balls_of_generated(real, generated, k):
    radius = torch.cdist(generated, generated).sort(dim=1).values[:, k]
    return (torch.cdist(generated, real) <= radius[:, None]).any(1).double().mean()


@precision.mistake(
    "You counted real pictures whose ball holds a generated one. Asked for is the share of the generated ones."
)
def real_counted(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    return (torch.cdist(real, generated) <= radius[:, None]).any(1).double().mean()


@precision.mistake("You asked for every ball. One is enough: any over the real pictures, not all.")
def in_every_ball(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    return (torch.cdist(real, generated) <= radius[:, None]).all(0).double().mean()


@precision.mistake("You averaged over all pairs. A generated picture counts once, however many balls it lies in.")
def pairs_counted(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    return (torch.cdist(real, generated) <= radius[:, None]).double().mean()


@precision.mistake("You returned how many look real. Asked for is the share: divide by the number of generated ones.")
def not_a_share(real, generated, k):
    return precision(real, generated, k) * len(generated)


@precision.mistake("You used one radius for all, the mean. Each ball has its own: small where real pictures are dense.")
def one_radius(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k].mean()
    return (torch.cdist(real, generated) <= radius).any(0).double().mean()


@precision.mistake(
    "You asked only the nearest real picture's ball. A farther one may be larger: any of the balls will do."
)
def nearest_alone(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    distance, nearest = torch.cdist(real, generated).min(0)
    return (distance <= radius[nearest]).double().mean()


@precision.mistake(
    "Your radius reaches to the k-th nearest generated picture. It reaches to the k-th nearest real one."
)
def radius_to_generated(real, generated, k):
    between = torch.cdist(real, generated)
    radius = between.sort(dim=1).values[:, k - 1]
    return (between <= radius[:, None]).any(0).double().mean()


@precision.mistake("The comparison is the wrong way round: inside a ball is a distance of at most its radius.")
def outside(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    return (torch.cdist(real, generated) > radius[:, None]).any(0).double().mean()


@precision.mistake("A picture exactly on the edge of a ball counts as inside: <=, not <.")
def edge_left_out(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    return (torch.cdist(real, generated) < radius[:, None]).any(0).double().mean()


@precision.mistake("Your radius is the mean distance to the k nearest. The ball reaches to the k-th of them.")
def mean_of_neighbours(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1).values[:, 1 : k + 1].mean(1)
    return (torch.cdist(real, generated) <= radius[:, None]).any(0).double().mean()


@precision.mistake("You counted from the farthest real picture. The k-th nearest is at entry k of the ascending order.")
def from_the_far_end(real, generated, k):
    radius = torch.cdist(real, real).sort(dim=1, descending=True).values[:, k - 1]
    return (torch.cdist(real, generated) <= radius[:, None]).any(0).double().mean()


# 09.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "09.5",
    title="A test for copies",
    hints=(
        "First two lists: torch.cdist(generated, train).min(1).values, (n,), and the same of held_out, (m,).",
        "Then all pairs at once: a[:, None] < b[None], (n, m), and its mean; a tie counts half.",
    ),
)
def copying(generated: Tensor, held_out: Tensor, train: Tensor) -> Tensor:
    """Compute how often a generated picture lies nearer to the training set than a real one that was held out.

    A picture's distance to the training set is that to its nearest picture there. Of all pairs of a generated and a
    held-out picture, take the share in which the generated one is strictly nearer; a tie counts half. 1/2 is what new
    pictures from the data's own distribution have, 1 what copies have (the idea of Meehan et al. 2020).

    generated: (n, d), held_out: (m, d), train: (k, d), float64, features.
    Returns the share, a tensor of shape ().
    """
    a, b = (torch.cdist(z, train).min(1).values for z in (generated, held_out))
    return ((a[:, None] < b).double() + 0.5 * (a[:, None] == b)).mean()


def three_sets(rng: torch.Generator, n: int, m: int, k: int, copies: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Some generated points lie close to a training point each."""
    train, held_out = normal(rng, k, 3).double(), normal(rng, m, 3).double()
    close = train[:copies] + 0.05 * normal(rng, copies, 3).double()
    return torch.cat([close, 1.2 * normal(rng, n - copies, 3).double()]), held_out, train


@copying.check
def test_copying_matches_the_share(student, rng):
    """agrees with the share over all pairs, for sets of equal and of unequal size"""
    for n, m, k in ((25, 16, 20), (18, 18, 24), (14, 23, 12)):
        sets = three_sets(rng, n, m, k)
        agree(student.copying(*sets), copying(*sets))


@copying.check
def test_copying_on_a_line(student, rng):
    """on a line, with ties, it is what you can count"""
    train = torch.tensor([[0.0], [10.0]]).double()
    generated, held_out = torch.tensor([[0.0], [2.0], [7.0]]).double(), torch.tensor([[8.0], [11.0], [4.0]]).double()
    agree(student.copying(generated, held_out, train), torch.tensor((3 + 1.5 + 1) / 9).double())


@copying.check
def test_copying_of_copies(student, rng):
    """copies have 1, and the held-out pictures themselves 1/2"""
    _, held_out, train = three_sets(rng, 10, 12, 15)
    agree(student.copying(train[:6] + 1e-6, held_out, train), torch.tensor(1.0).double())
    agree(student.copying(held_out, held_out, train), torch.tensor(0.5).double())


def _distances(generated, held_out, train):
    return [torch.cdist(z, train).min(1).values for z in (generated, held_out)]


@copying.mistake("Generated and held-out have changed places: that is how often the held-out one is nearer.")
def places_swapped(generated, held_out, train):
    return copying(held_out, generated, train)


@copying.mistake("Ties count half: left out, even the held-out pictures themselves would not come to 1/2.")
def ties_left_out(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return (a[:, None] < b).double().mean()


@copying.mistake("You counted a tie as nearer, with <=. A tie counts half.")
def ties_counted_whole(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return (a[:, None] <= b).double().mean()


@copying.mistake("You took the mean distance to the training pictures. A copy is near to one of them: take the least.")
def mean_distance(generated, held_out, train):
    a, b = (torch.cdist(z, train).mean(1) for z in (generated, held_out))
    return ((a[:, None] < b).double() + 0.5 * (a[:, None] == b)).mean()


@copying.mistake("You took the largest distance to a training picture. A copy is near to one of them: take the least.")
def farthest(generated, held_out, train):
    a, b = (torch.cdist(z, train).max(1).values for z in (generated, held_out))
    return ((a[:, None] < b).double() + 0.5 * (a[:, None] == b)).mean()


@copying.mistake(
    "You took the least over the wrong axis: a distance for each training picture. Each generated one needs its own."
)
def wrong_axis(generated, held_out, train):
    a, b = (torch.cdist(z, train).min(0).values for z in (generated, held_out))
    return ((a[:, None] < b).double() + 0.5 * (a[:, None] == b)).mean()


@copying.mistake(
    "You measured the generated pictures against the held-out ones. Measure both against the training set."
)
def against_held_out(generated, held_out, train):
    a, b = torch.cdist(generated, held_out).min(1).values, torch.cdist(held_out, train).min(1).values
    return ((a[:, None] < b).double() + 0.5 * (a[:, None] == b)).mean()


@copying.mistake(
    "You compared with the held-out pictures' mean distance. Compare pair by pair: all of a with all of b."
)
def against_the_mean(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return ((a < b.mean()).double() + 0.5 * (a == b.mean())).mean()


@copying.mistake(
    "You compared with the held-out pictures' median distance. Compare pair by pair: all of a with all of b."
)
def against_the_median(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return ((a < b.median()).double() + 0.5 * (a == b.median())).mean()


@copying.mistake("You compared the mean distances, one number with one. Asked for is the share of the pairs.")
def means_compared(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return (a.mean() < b.mean()).double() + 0.5 * (a.mean() == b.mean())


@copying.mistake("You compared row with row, the first of a with the first of b. All pairs count: a[:, None] < b.")
def row_by_row(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return ((a < b).double() + 0.5 * (a == b)).mean()


@copying.mistake("You returned the number of pairs. Asked for is their share: divide by n m.")
def pairs_not_divided(generated, held_out, train):
    return copying(generated, held_out, train) * len(generated) * len(held_out)


@copying.mistake(
    "You asked whether a generated picture is nearer to the training set than to the held-out one. "
    "Compare its distance with theirs."
)
def nearer_than_to_held_out(generated, held_out, train):
    a, b = (torch.cdist(generated, z).min(1).values for z in (train, held_out))
    return ((a < b).double() + 0.5 * (a == b)).mean()


@copying.mistake(
    "You divided the mean distances. Asked for is the share of the pairs in which the generated one is nearer."
)
def ratio_of_means(generated, held_out, train):
    a, b = _distances(generated, held_out, train)
    return a.mean() / b.mean()
