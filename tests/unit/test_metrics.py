"""Metrics of features, against torchmetrics, scipy, scikit-learn and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors
from stats import assert_average, seeded
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ddpm_edu.metrics import (
    bootstrap,
    clip_score,
    fid,
    frechet_distance,
    kid,
    paired_kid,
    precision_recall,
    wilson,
)


def features(n: int, d: int = 6, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Correlated, of unlike scales."""
    mix = torch.randn(d, d, generator=seeded(99))
    return torch.randn(n, d, generator=seeded(seed)) @ mix + shift


class Alone(nn.Module):
    """A "network" that hands on the features it is given as pictures."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.num_features]


def as_pictures(x: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, 3 * 4 * 4 - x.shape[1])).reshape(-1, 3, 4, 4)


def test_frechet_distance_of_commuting_gaussians_is_that_of_their_deviations():
    m = torch.tensor([1.0, -2.0])
    assert frechet_distance(m, torch.diag(torch.tensor([4.0, 9.0])), 0 * m, torch.eye(2)) == pytest.approx(5 + 1 + 4)
    assert frechet_distance(m, torch.zeros(2, 2), m, torch.eye(2)) == pytest.approx(2)
    assert frechet_distance(m, torch.eye(2), m, torch.eye(2)) == 0


def test_frechet_distance_is_that_of_scipys_root():
    x, y = features(50), features(60, seed=1, shift=0.5)
    a, b = x.T.cov(), y.T.cov()
    root = torch.from_numpy(sqrtm((a.double() @ b.double()).numpy()).real)
    expected = (x.mean(0) - y.mean(0)).square().sum() + (a + b).trace() - 2 * root.trace()
    assert frechet_distance(x.mean(0), a, y.mean(0), b) == pytest.approx(expected.item(), rel=1e-5)


def test_fid_of_one_feature():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert fid(x, y) == pytest.approx((1 - 3) ** 2 + (2**0.5 - 8**0.5) ** 2)


def test_frechet_distance_of_singular_covariances():
    """Fewer samples than dimensions: the root of the product of such matrices is where implementations break."""
    x, y = torch.randn(5, 40, generator=seeded()), torch.randn(7, 40, generator=seeded(1))
    found = fid(x, y)
    # The distance does not see a rotation, nor dimensions that neither set fills.
    q = torch.linalg.qr(torch.cat([x, y]).double().T)[0]
    assert found == pytest.approx(fid(x.double() @ q, y.double() @ q), rel=1e-6)
    assert fid(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_fid_is_torchmetrics():
    x, y = features(300), features(200, seed=1, shift=0.3)
    theirs = FrechetInceptionDistance(feature=Alone(), input_img_size=(3, 4, 4), normalize=True).set_dtype(
        torch.float64
    )
    theirs.update(as_pictures(x), real=True)
    theirs.update(as_pictures(y), real=False)
    assert fid(x, y) == pytest.approx(theirs.compute().item(), rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_kid_is_torchmetrics():
    """Of one subset that is the whole set."""
    x, y = features(150), features(150, seed=1, shift=0.3)
    theirs = KernelInceptionDistance(feature=Alone(), subsets=1, subset_size=150, normalize=True)
    theirs.update(as_pictures(x), real=True)
    theirs.update(as_pictures(y), real=False)
    assert kid(x, y) == pytest.approx(theirs.compute()[0].item(), rel=1e-3)


def test_kid_is_unbiased_and_fid_is_not():
    sets = torch.randn(400, 2, 20, 6, generator=seeded())
    kids, fids = (torch.tensor([metric(x, y) for x, y in sets]) for metric in (kid, fid))
    assert_average(kids, 0.0)
    assert fids.mean() > 10 * fids.std() / 20


def test_kid_by_scikit_learns_kernel():
    x, y = features(9), features(12, seed=1)
    k = [torch.from_numpy(polynomial_kernel(a, b, degree=3)) for a, b in ((x, x), (y, y), (x, y))]
    for square in k[:2]:
        square.fill_diagonal_(0)
    expected = k[0].sum() / (9 * 8) + k[1].sum() / (12 * 11) - 2 * k[2].mean()
    assert kid(x, y) == pytest.approx(expected.item(), rel=1e-6)


def test_paired_kid_by_a_slow_loop():
    x, y = features(7), features(7, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        return float((a.double() @ b.double() / 6 + 1) ** 3)

    terms = [
        k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i in range(7) for j in range(7) if i != j
    ]
    assert paired_kid(x, y) == pytest.approx(sum(terms) / 42, rel=1e-9)
    many = features(301, 48)
    assert paired_kid(many, many) == pytest.approx(0, abs=1e-9 * abs(kid(many, many)))


def test_paired_kid_is_unbiased_where_the_rows_belong_together_and_kid_is_not():
    """y = (x + z) / sqrt(2) has the distribution of x, but looks like its own x."""
    x, z = torch.randn(2, 600, 20, 6, generator=seeded())
    y = (x + z) / 2**0.5
    assert_average(torch.tensor([paired_kid(*pair) for pair in zip(x, y, strict=True)]), 0.0)
    biased = torch.tensor([kid(*pair) for pair in zip(x, y, strict=True)])
    assert biased.mean() < -10 * biased.std() / 600**0.5


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (431, 595)])
def test_wilson_is_scipys(right: int, n: int):
    theirs = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-4)  # 1.96 for 1.95996


def test_bootstrap_is_that_of_scipy_and_of_the_normal_law():
    values = torch.randn(400, generator=seeded()).exp()
    found = bootstrap(values, 20_000, generator=seeded(1))
    theirs = scipy_bootstrap((values.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=0)
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    assert found.low < values.mean() < found.high
    half = 1.96 * values.std().item() / 20
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert bootstrap(values, generator=seeded(2)) == bootstrap(values, generator=seeded(2))
    narrow = bootstrap(values, level=0.5, generator=seeded(2))
    assert found.low < narrow.low < narrow.high < found.high


@pytest.mark.parametrize("k", [1, 3])
def test_precision_recall_by_scikit_learns_neighbours(k: int):
    real, generated = features(80), features(60, seed=1, shift=1.0)

    def share(of: Tensor, within: Tensor) -> float:
        radius = NearestNeighbors(n_neighbors=k + 1).fit(within).kneighbors(within)[0][:, -1]
        inside = torch.cdist(of.double(), within.double()) <= torch.from_numpy(radius)
        return inside.any(1).double().mean().item()

    found = precision_recall(real, generated, k)
    assert found == pytest.approx((share(generated, real), share(real, generated)))
    assert 0 < found.recall != found.precision > 0


def test_precision_sees_bad_pictures_and_recall_missing_ones():
    real = torch.randn(500, 2, generator=seeded())
    half = torch.randn(2000, 2, generator=seeded(1))
    half = half[half[:, 0] > 0][:500]
    precision, recall = precision_recall(real, half)
    assert precision > 0.9
    assert 0.4 < recall < 0.65
    wide = precision_recall(real, 3 * torch.randn(500, 2, generator=seeded(2)))
    assert wide.precision < 0.7
    assert wide.recall > 0.9


def test_clip_score():
    image, text = (
        torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[6.0, 8.0], [0.0, 2.0], [-1.0, 0.0]]),
    )
    torch.testing.assert_close(clip_score(image, text), torch.tensor([2.5, 0.0, 0.0]))
    torch.testing.assert_close(clip_score(image, text, w=100), torch.tensor([100.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fid(torch.zeros(3, 2), torch.zeros(3, 4)), r"\(n, d\) and \(m, d\); got \(3, 2\) and \(3, 4\)"),
        (lambda: kid(torch.zeros(1, 2), torch.zeros(3, 2)), "2 features or more"),
        (lambda: fid(torch.zeros(3, 2), torch.full((3, 2), torch.nan)), "NaN or inf"),
        (lambda: precision_recall(torch.zeros(3, 2), torch.zeros(9, 2)), "below the sets' sizes 3 and 9; got 3"),
        (lambda: precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), k=0), "k must be 1 or more"),
        (lambda: frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(1), torch.eye(2)), r"two means \(d,\)"),
        (lambda: frechet_distance(*2 * (torch.zeros(2), torch.tensor([[1.0, 2], [3, 4]]))), "symmetric and finite"),
        (lambda: frechet_distance(*2 * (torch.zeros(2), torch.full((2, 2), torch.nan))), "symmetric and finite"),
        (lambda: clip_score(torch.zeros(3, 2), torch.zeros(2, 2)), r"\(b, d\) alike"),
        (lambda: paired_kid(torch.zeros(3, 2), torch.zeros(4, 2)), "belong together; got 3 and 4 rows"),
        (lambda: wilson(4, 3), "0 to n of them right; got 4 of 3"),
        (lambda: wilson(0, 0), "1 or more"),
        (lambda: bootstrap(torch.zeros(2, 2)), r"2 values or more, \(n,\), all finite; got shape \(2, 2\)"),
        (lambda: bootstrap(torch.full((3,), torch.nan)), "all finite"),
        (lambda: bootstrap(torch.zeros(3), level=1.0), r"a level in \(0, 1\); got 1000 and 1\.0"),
    ],
)
def test_bad_features_get_a_sentence(call, words: str):
    with pytest.raises(ValueError, match=words):
        call()
