"""C22: what FID is, what it depends on, and what it does not see."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from stats import assert_average, seeded
from torch import Tensor

from ddpm_edu import data, pretrained
from ddpm_edu.codec import Pixels
from ddpm_edu.exercises.nb09 import copying, extrapolate
from ddpm_edu.metrics import fid, frechet_distance, kid, precision_recall


def root(S: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(S)
    return axes * values.clamp(min=0).sqrt() @ axes.mT


def covariance(d: int, seed: int) -> Tensor:
    mix = torch.randn(d, d + 2, generator=seeded(seed), dtype=torch.float64)
    return mix @ mix.mT


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the points themselves, not of what they are drawn from: the covariance is divided by n."""
    return x.mean(0), torch.atleast_2d(x.T.cov(correction=0))


def transport(x: Tensor, y: Tensor) -> float:
    """The mean squared distance of the cheapest pairing, by a solver that knows nothing of Gaussians."""
    costs = torch.cdist(x, y).square().numpy()
    return costs[linear_sum_assignment(costs)].mean()


# The formula ----------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C22")
@pytest.mark.parametrize("d", [1, 2, 5])
def test_c22_the_formula_is_the_cost_of_the_best_transport(d: int):
    """Points x and their images m + T x, T symmetric and positive: no pairing is cheaper than this one, and its cost is
    the formula of the two sets' means and covariances, exactly."""
    x = torch.randn(150, d, generator=seeded(), dtype=torch.float64) @ root(covariance(d, 1))
    y = x @ root(covariance(d, 2)) + torch.arange(d)
    expected = (x - y).square().sum(1).mean().item()
    assert transport(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.claim("C22")
def test_c22_in_one_dimension_sorted_samples_come_to_it():
    """(m1 - m2)^2 + (s1 - s2)^2 = 4.25, from 200 sets of 5,000 draws in sorted order. What sampling adds is less than
    0.002: the mean squared distance of two sorted sets of one distribution."""
    x, y, other = torch.randn(3, 200, 5000, generator=seeded(), dtype=torch.float64)
    costs = (x.sort(1).values - 2 - 1.5 * y.sort(1).values).square().mean(1)
    added = (x.sort(1).values - other.sort(1).values).square().mean()
    assert added < 0.002
    exact = frechet_distance(torch.zeros(1), torch.ones(1, 1), torch.full((1,), 2.0), torch.full((1, 1), 2.25))
    assert exact == pytest.approx(4.25, rel=1e-12)
    assert_average(costs, exact, bias=2.25 * added.item())


@pytest.mark.claim("C22")
@pytest.mark.parametrize("shape", ["cubes", "rings", "heavy tails"])
def test_c22_for_other_distributions_it_is_a_lower_bound(shape: str):
    """Only means and covariances enter the proof, so no pairing of any two sets costs less."""
    u = torch.rand(2, 120, 2, generator=seeded(), dtype=torch.float64)
    angle = 2 * math.pi * u[..., 0]
    sets = {
        "cubes": u,
        "rings": torch.stack([angle.cos(), angle.sin()], -1),
        "heavy tails": (u - 0.5) / (u - 0.5).abs().sqrt().clamp(min=1e-3) ** 3,
    }[shape]
    x, y = sets[0], sets[1] @ torch.tensor([[1.0, 0.7], [0.0, 2.0]], dtype=torch.float64) + 1
    assert 0 < frechet_distance(*moments(x), *moments(y)) < transport(x, y)


@pytest.mark.claim("C22")
def test_c22_means_and_covariances_are_all_it_sees():
    """A circle and a Gaussian cloud brought to its mean and covariance: 0, and precision tells them apart."""
    angle = torch.arange(500, dtype=torch.float64) * 2 * math.pi / 500
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    cloud = torch.randn(500, 2, generator=seeded(), dtype=torch.float64)
    cloud = (cloud - cloud.mean(0)) @ torch.linalg.inv(root(cloud.T.cov())) @ root(circle.T.cov())
    assert fid(circle, cloud) < 1e-9
    assert precision_recall(circle, cloud).precision < 0.1


@pytest.mark.claim("C22")
def test_c22_kid_sees_no_further_than_third_moments():
    """A circle and a cloud symmetric about its centre, of one covariance: odd moments are 0 in both. KID is not
    above 0; the cheapest transport is, and so is KID where third moments differ."""
    angle = torch.arange(400, dtype=torch.float64) * 2 * math.pi / 400
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    half = torch.randn(200, 2, generator=seeded(), dtype=torch.float64)
    cloud = torch.cat([half, -half])
    cloud = cloud @ torch.linalg.inv(root(cloud.T.cov())) @ root(circle.T.cov())
    assert fid(circle, cloud) < 1e-9
    assert kid(circle, cloud) < 1e-9
    assert transport(circle, cloud) > 0.1
    skew = torch.stack([half[:, 0].exp(), half[:, 1]], 1)
    skew = (skew - skew.mean(0)) @ torch.linalg.inv(root(skew.T.cov())) @ root(circle.T.cov())
    assert fid(circle, skew) < 1e-9
    assert kid(circle, skew) > 0.03


# One number without N -------------------------------------------------------------------------------------------------


def of_one_distribution(n: int, m: int, repeats: int = 800) -> tuple[Tensor, float]:
    """FID of n and m draws of one Gaussian, many times; and its mean to first order, by the eigenvalues l:
    (1/n + 1/m) [sum_i l_i + 1/2 sum_ij l_i l_j (1 + delta_ij) / (l_i + l_j)]."""
    values = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    x, y = (
        torch.randn(repeats, k, 3, generator=seeded(seed), dtype=torch.float64) * values.sqrt()
        for seed, k in enumerate((n, m))
    )
    found = torch.tensor([fid(*sets) for sets in zip(x, y, strict=True)])
    i, j = values[:, None], values[None]
    bracket = values.sum() + 0.5 * (i * j * (1 + torch.eye(3)) / (i + j)).sum()
    return found, ((1 / n + 1 / m) * bracket).item()


@pytest.mark.claim("C22")
@pytest.mark.parametrize(("n", "m"), [(60, 60), (240, 240), (100, 800)])
def test_c22_it_is_biased_upwards_as_1_over_n(n: int, m: int):
    found, expected = of_one_distribution(n, m)
    assert found.mean() > 10 * found.std() / len(found) ** 0.5
    assert_average(found, expected, bias=5 / min(n, m) * expected)  # the next order


@pytest.mark.claim("C22")
def test_c22_it_is_convex_so_that_its_bias_is_upwards_for_any_two_distributions():
    """The mean FID over sets whose means and covariances average to S is at least the FID of S: midpoints."""
    reference = torch.zeros(4, dtype=torch.float64), covariance(4, 100)
    for seed in range(50):
        S_1, S_2 = covariance(4, 2 * seed), covariance(4, 2 * seed + 1)
        m_1, m_2 = torch.randn(2, 4, generator=seeded(seed), dtype=torch.float64)
        ends = frechet_distance(*reference, m_1, S_1), frechet_distance(*reference, m_2, S_2)
        assert frechet_distance(*reference, (m_1 + m_2) / 2, (S_1 + S_2) / 2) < sum(ends) / 2


@pytest.mark.claim("C22")
def test_c22_unequal_n_turn_a_ranking_over():
    """Few draws of the right distribution against many of a wrong one."""
    reference, right = torch.randn(2, 4000, 8, generator=seeded(), dtype=torch.float64)
    wrong = 0.85 * torch.randn(4000, 8, generator=seeded(1), dtype=torch.float64)
    assert fid(reference, right) < fid(reference, wrong)
    few = torch.tensor([fid(reference, part) for part in right.split(40)])
    assert few.mean() - 5 * few.std() / 10 > 2 * fid(reference, wrong)


@pytest.mark.claim("C22")
def test_c22_extrapolation_in_1_over_n_takes_the_bias_away():
    """Of one Gaussian, whose distance to itself is 0: what 100 extrapolations from 50 to 400 leave is a fiftieth of the
    bias at 400 and the error of their mean."""
    reference = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    sizes = torch.tensor([50, 100, 200, 400])
    left, at_most = [], []
    for x in torch.randn(100, 400, 4, generator=seeded(), dtype=torch.float64):
        values = [
            torch.tensor([frechet_distance(*reference, part.mean(0), part.T.cov()) for part in x.split(n)]).mean()
            for n in sizes.tolist()
        ]
        left.append(extrapolate(sizes.double(), torch.stack(values).double()))
        at_most.append(values[-1])
    bias = torch.stack(at_most).mean().item()
    # The formula for unit variances and a reference without error: d + d (d + 1) / 4 over n.
    assert bias == pytest.approx((4 + 4 * 5 / 4) / 400, rel=0.1)
    assert_average(torch.stack(left), 0.0, bias=0.02 * bias)


@pytest.mark.claim("C22")
def test_c22_kid_has_no_bias_and_fid_has():
    """Over all subsets of 3 of 7 points the mean of KID is that of the 7, exactly; the mean of FID lies above it."""
    x, y = torch.randn(2, 7, 2, generator=seeded(), dtype=torch.float64)
    subsets = [x[list(rows)] for rows in itertools.combinations(range(7), 3)]
    kids, fids = (torch.tensor([metric(part, y) for part in subsets], dtype=torch.float64) for metric in (kid, fid))
    assert kids.mean().item() == pytest.approx(kid(x, y), rel=1e-9)
    assert fids.mean() > 1.2 * fid(x, y)
    sets = torch.randn(500, 2, 10, 3, generator=seeded(1))
    assert_average(torch.tensor([kid(*pair) for pair in sets]), 0.0)


# One number without its features --------------------------------------------------------------------------------------


@pytest.mark.claim("C22")
def test_c22_turned_features_change_nothing_and_other_features_the_order():
    reference = torch.randn(300, 2, generator=seeded(), dtype=torch.float64)
    first, second = reference + torch.tensor([1.0, 0.0]), reference + torch.tensor([0.0, 2.0])
    turn = torch.linalg.qr(torch.randn(2, 2, generator=seeded(1), dtype=torch.float64))[0]
    assert fid(reference @ turn, first @ turn) == pytest.approx(fid(reference, first), rel=1e-9)
    assert fid(3 * reference, 3 * first) == pytest.approx(9 * fid(reference, first), rel=1e-9)  # the unit squared
    assert (fid(reference, first), fid(reference, second)) == pytest.approx((1, 4), rel=1e-9)
    other = torch.tensor([1.0, 0.1], dtype=torch.float64)  # a map that hardly looks at the second feature
    assert fid(other * reference, other * first) > 20 * fid(other * reference, other * second)


@pytest.mark.claim("C22")
def test_c22_the_shipped_features_see_digits_where_pixels_see_places():
    """Test digits moved by two pixels: the nearest training digit is the same one for the features, seldom for pixels;
    and their FID tells a missing digit from a set of the same size that has them all."""
    net, codec = pretrained.load("digits_features"), Pixels()
    (train, labels), (test, expected) = data.digits("train"), data.digits("test")
    train, labels, test, expected = train[:2000], labels[:2000], test[:150], expected[:150]
    seen = torch.cat([net.features(codec.encode(part)) for part in train.split(500)])
    assert seen.shape == (2000, 64)
    moved = torch.roll(test, (2, 2), dims=(1, 2))
    by_features = torch.cdist(net.features(codec.encode(moved)), seen).argmin(1)
    by_pixels = torch.cdist(moved.flatten(1).float(), train.flatten(1).float()).argmin(1)
    assert (labels[by_features] == expected).double().mean() > 0.9
    assert (labels[by_pixels] == expected).double().mean() < 0.6
    reference, rest, kept = seen[:1000], seen[1000:], labels[1000:] > 0
    n = int(kept.sum())
    assert fid(reference, rest[kept]) > 3 * fid(reference, rest[:n])


# What no distance of distributions sees -------------------------------------------------------------------------------


@pytest.mark.claim("C22")
def test_c22_a_copier_wins_and_distances_to_the_training_set_catch_it():
    """A model that is nearly right, and one that copies: FID prefers the copies, and is 0 for all of them."""
    train, held_out, honest = torch.randn(3, 600, 5, generator=seeded(), dtype=torch.float64)
    assert fid(train, train) < 1e-9
    assert fid(train, train[:300]) < fid(train, 1.1 * honest[:300])
    assert copying(train[:300], held_out, train) > 0.99
    error = math.sqrt(1201 / (12 * 600 * 600))  # of the rank statistic of Mann and Whitney, 600 and 600 alike
    assert abs(copying(honest, held_out, train) - 0.5) < 4 * error


@pytest.mark.claim("C22")
def test_c22_precision_and_recall_part_what_fid_mixes():
    """Two far modes: one of them left out costs recall, half of the samples astray costs precision; FID sees both."""
    centre = torch.tensor([[-20.0, 0.0], [20.0, 0.0]]).repeat(200, 1)
    real, other = (centre + torch.randn(400, 2, generator=seeded(k)) for k in (0, 1))
    right, one = precision_recall(real, other), precision_recall(real, other[::2])
    astray = precision_recall(real, torch.cat([other[:200], other[200:] + torch.tensor([0.0, 50.0])]))
    assert min(right) > 0.9
    assert one.precision > 0.9
    assert one.recall == pytest.approx(0.5, abs=0.05)
    assert astray.precision == pytest.approx(0.5, abs=0.05)
    assert astray.recall > 0.9
    assert fid(real, other[::2]) > 100 * fid(real, other)
