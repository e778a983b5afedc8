"""How good samples are: pure functions of samples, or of features of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu.mixture import Mixture

__all__ = [
    "Interval", "Modes", "PrecisionRecall", "bootstrap", "clip_score", "fid", "frechet_distance", "kid",
    "modes_covered", "paired_kid", "precision_recall", "psnr", "retrieval", "sliced_wasserstein", "wilson",
]  # fmt: skip


# Points whose density is known ----------------------------------------------------------------------------------------


class Modes(NamedTuple):
    """covered: how many modes the samples reach. quality: the share of the samples that lies on a mode."""

    covered: int
    quality: float


def modes_covered(x: Tensor, mixture: Mixture, share: float = 0.1) -> Modes:
    """Which modes of a mixture samples reach. x: (n, d).

    A sample lies on the nearest mode if it is within 3 of its deviations (in the plane 98.9 % of a Gaussian's own
    are); a mode is covered if at least `share` of the samples it should have (n times its weight) lie on it.
    """
    x = _finite(x, mixture.means.shape[1])
    distance, nearest = torch.cdist(x, mixture.means.double()).min(1)
    counts = nearest[distance <= 3 * mixture.deviations[nearest]].bincount(minlength=len(mixture.weights))
    return Modes(
        int((counts >= share * len(x) * mixture.weights)[mixture.weights > 0].sum()), counts.sum().item() / len(x)
    )


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 200, generator: torch.Generator | None = None) -> float:
    """The root of the mean squared Wasserstein-2 distance of projections on random directions (Bonneel et al. 2015).

    x, y: (n, d), as many of one as of the other: in one dimension the best transport pairs them in sorted order. In the
    units of x; between two sets of samples of one distribution it is not 0 but falls with n.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"x and y must be (n, d) of one shape; got {tuple(x.shape)} and {tuple(y.shape)}.")
    if directions < 1:
        raise ValueError(f"There must be 1 direction or more; got {directions}.")
    x, y = (_finite(z, x.shape[1]) for z in (x, y))
    u = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    u = u / u.norm(dim=0)
    return (x @ u).sort(0).values.sub((y @ u).sort(0).values).square().mean().sqrt().item()


# Pictures against the ones they should be -----------------------------------------------------------------------------


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], from their mean squared error, of all of them together:
    10 log10(4 / error). x, y: (b, ...) alike."""
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape; got {tuple(x.shape)} and {tuple(y.shape)}.")
    return 10 * math.log10(4 / (x.double() - y.double()).square().mean().clamp(min=1e-12).item())


# Features of pictures: (n, d), one row a picture, from a fixed network ------------------------------------------------


def frechet_distance(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> float:
    """The squared Wasserstein-2 distance of two Gaussians (Dowson and Landau 1982):

    ||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). means: (d,), covariances: (d, d), symmetric, singular ones too.
    """
    m_1, S_1, m_2, S_2 = (torch.as_tensor(value).double() for value in (mean_1, cov_1, mean_2, cov_2))
    d = len(m_1)
    if not (m_1.shape == m_2.shape == (d,) and S_1.shape == S_2.shape == (d, d)):
        shapes = ", ".join(str(tuple(value.shape)) for value in (m_1, S_1, m_2, S_2))
        raise ValueError(f"There must be two means (d,) and two covariances (d, d); got {shapes}.")
    if not (torch.allclose(S_1, S_1.mT) and torch.allclose(S_2, S_2.mT)):
        raise ValueError("The covariances must be symmetric and finite.")
    # S1 S2 has the eigenvalues of the symmetric R S2 R with R = S1^(1/2): no complex root of a product that rounding
    # has left without one.
    root = _root(S_1)
    cross = torch.linalg.eigvalsh(root @ S_2 @ root).clamp(min=0).sqrt().sum()
    return ((m_1 - m_2).square().sum() + S_1.trace() + S_2.trace() - 2 * cross).clamp(min=0).item()


def _root(S: Tensor) -> Tensor:
    """The symmetric square root of a covariance; eigenvalues that rounding made negative are 0."""
    values, axes = torch.linalg.eigh(S)
    return axes * values.clamp(min=0).sqrt() @ axes.mT


def fid(features_1: Tensor, features_2: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features, (n, d) and (m, d) (Heusel et al. 2017, eq. 6).

    Between two independent sets of one distribution it is not 0 but about proportional to 1/n: only values at one n,
    and from one network, can be compared.
    """
    x, y = _features(features_1, features_2)
    cov_x, cov_y = (torch.atleast_2d(z.T.cov()) for z in (x, y))
    return frechet_distance(x.mean(0), cov_x, y.mean(0), cov_y)


def kid(features_1: Tensor, features_2: Tensor) -> float:
    """Kernel distance: the unbiased estimate of the squared maximum mean discrepancy with the kernel
    (x . y / d + 1)^3, from all pairs (Bińkowski et al. 2018, section 3). (n, d) and (m, d).

    Between sets of one distribution its mean is 0 at any n, so it may come out negative.
    """
    x, y = _features(features_1, features_2)
    d, n, m = x.shape[1], len(x), len(y)
    xx, yy, xy = ((one @ other.mT / d + 1) ** 3 for one, other in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))  # no x with itself
    return (within - 2 * xy.mean()).item()


def paired_kid(features_1: Tensor, features_2: Tensor) -> float:
    """`kid` where row i of one set was made from row i of the other, as a picture and its reconstruction. (n, d) each.

    (x_i, y_i) are independent of (x_j, y_j), but not of each other: k(x_i, y_i) is larger than k of two strangers, and
    `kid`, which takes it into its mean over all (i, j), comes out too small. Left out, what remains is the mean over
    i != j of h = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i). Each term is of two independent pairs, so
    E[h] = E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y')], the squared discrepancy of the two distributions: unbiased
    (Gretton et al. 2012, eq. 4). Where y_i = x_i, every h is 0, and so is the estimate.
    """
    x, y = _features(features_1, features_2)
    if len(x) != len(y):
        raise ValueError(f"Row i of both sets must belong together; got {len(x)} and {len(y)} rows.")
    xx, yy, xy = ((one @ other.mT / x.shape[1] + 1) ** 3 for one, other in ((x, x), (y, y), (x, y)))
    h = xx + yy - xy - xy.mT
    return ((h.sum() - h.trace()) / (len(x) * (len(x) - 1))).item()


class PrecisionRecall(NamedTuple):
    """precision: the share of generated pictures that look real. recall: the share of real ones that are generated."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, eqs. 1 and 2). (n, d) and (m, d).

    A set's manifold is the union of balls around its features, each reaching to the k-th nearest other feature of the
    set. Precision: how many generated features lie in the manifold of the real; recall: the reverse.
    """
    x, y = _features(real, generated)
    if not 1 <= k < min(len(x), len(y)):
        raise ValueError(f"k must be 1 or more, and below the sets' sizes {len(x)} and {len(y)}; got {k}.")
    between = torch.cdist(x, y)  # (n, m)
    radius_x, radius_y = (torch.cdist(z, z).kthvalue(k + 1, dim=1).values for z in (x, y))  # itself is the nearest
    precision = (between <= radius_x[:, None]).any(0).double().mean()
    recall = (between <= radius_y[None]).any(1).double().mean()
    return PrecisionRecall(precision.item(), recall.item())


def retrieval(image: Tensor, text: Tensor, k: int = 1) -> float:
    """The share of texts whose own picture is among the k nearest of all. Embeddings (n, d) and (m, d), m <= n, text i
    belonging to picture i."""
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1] or not k <= len(image) >= len(text):
        raise ValueError(
            f"There must be (n, d) pictures and (m, d) texts, m <= n, and k <= n; "
            f"got {tuple(image.shape)}, {tuple(text.shape)}, k = {k}."
        )
    cosine = F.normalize(text.double(), dim=1) @ F.normalize(image.double(), dim=1).T
    own = cosine.diagonal()[:, None]
    return ((cosine > own).sum(1) < k).double().mean().item()


def clip_score(image: Tensor, text: Tensor, w: float = 2.5) -> Tensor:
    """w max(cos(image, text), 0) of each pair of embeddings: (b, d) and (b, d) -> (b,) (Hessel et al. 2021, eq. 1).

    w is 2.5 in the paper; 100 is in use as well, so say which.
    """
    if image.shape != text.shape or image.ndim != 2:
        raise ValueError(f"image and text must be (b, d) alike; got {tuple(image.shape)} and {tuple(text.shape)}.")
    return w * torch.cosine_similarity(image.float(), text.float(), dim=1).clamp(min=0)


# How sure a measured number is ----------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """The values from low to high."""

    low: float
    high: float


def wilson(right: int, n: int, z: float = 1.96) -> Interval:
    """Where the chance of being right lies if `right` of n independent answers were: those chances p from which the
    share is at most z deviations sqrt(p (1 - p) / n) away (Wilson 1927). z = 1.96 gives 95 %.

    It stays in [0, 1], and has a width even if all answers are right, where a bootstrap has none.
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"There must be n answers, 1 or more, and 0 to n of them right; got {right} of {n}.")
    share, extra = right / n, z * z / n
    centre, half = share + extra / 2, z * math.sqrt(share * (1 - share) / n + extra / (4 * n))
    return Interval(max(0.0, (centre - half) / (1 + extra)), min(1.0, (centre + half) / (1 + extra)))


def bootstrap(
    values: Tensor, resamples: int = 1000, level: float = 0.95, generator: torch.Generator | None = None
) -> Interval:
    """Where the mean of values, (n,), lies: the middle `level` of the means of n values drawn from them with repeats,
    `resamples` times (Efron 1979). For a paired difference, give the differences, one a pair."""
    if values.ndim != 1 or len(values) < 2 or not values.isfinite().all():
        raise ValueError(f"There must be 2 values or more, (n,), all finite; got shape {tuple(values.shape)}.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"There must be 1 resample or more and a level in (0, 1); got {resamples} and {level}.")
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return Interval(*values.double()[drawn].mean(1).quantile(tails).tolist())


def _features(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, or one sentence on what is wrong."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"Features must be (n, d) and (m, d); got {tuple(x.shape)} and {tuple(y.shape)}.")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"There must be 2 features or more in each set; got {len(x)} and {len(y)}.")
    return _finite(x, x.shape[1]), _finite(y, y.shape[1])


def _finite(x: Tensor, d: int) -> Tensor:
    """x, (n, d), in float64, or one sentence on what is wrong."""
    if x.ndim != 2 or x.shape[1] != d or len(x) == 0:
        raise ValueError(f"There must be samples of shape (n, {d}); got {tuple(x.shape)}.")
    if not x.isfinite().all():
        raise ValueError("The samples hold NaN or inf: look at what they were computed from.")
    return x.double()
