from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import sqrtm


def by_eigvals(mean_1, cov_1, mean_2, cov_2):
    roots = torch.linalg.eigvals(cov_1 @ cov_2).real.clamp(min=0) ** 0.5
    return ((mean_1 - mean_2) ** 2).sum() + torch.trace(cov_1 + cov_2) - 2 * roots.sum()


def by_scipy(mean_1, cov_1, mean_2, cov_2):
    tiny = 1e-12 * torch.eye(len(cov_1), dtype=torch.float64)
    root = np.real(sqrtm(((cov_1 + tiny) @ (cov_2 + tiny)).numpy()))
    return torch.dist(mean_1, mean_2) ** 2 + (cov_1 + cov_2).trace() - 2 * float(np.trace(root))


def by_singular_values(mean_1, cov_1, mean_2, cov_2):
    """tr (S1 S2)^(1/2) is the sum of the singular values of L1^T L2, where S = L L^T."""
    factors = []
    for cov in (cov_1, cov_2):
        values, axes = torch.linalg.eigh(cov)
        factors.append(axes * values.clamp(min=0).sqrt())
    cross = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    return (mean_1 - mean_2) @ (mean_1 - mean_2) + cov_1.diagonal().sum() + cov_2.diagonal().sum() - 2 * cross


def by_lstsq(n, fid):
    return torch.linalg.lstsq(torch.stack([torch.ones_like(n), 1 / n], 1), fid[:, None]).solution[0, 0]


def loop_kid(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1.0) ** 3

    def mean(pairs):
        values = [k(a, b) for a, b in pairs]
        return sum(values) / len(values)

    n, m = len(x), len(y)
    xx = mean([(x[i], x[j]) for i in range(n) for j in range(i)])
    yy = mean([(y[i], y[j]) for i in range(m) for j in range(i)])
    return xx + yy - 2 * mean([(a, b) for a in x for b in y])


def masked_kid(x, y):
    within = []
    for z in (x, y):
        gram = (z.matmul(z.T) / z.size(1) + 1).pow(3)
        within.append(gram[~torch.eye(len(z), dtype=torch.bool)].mean())
    return within[0] + within[1] - (x.matmul(y.T) / x.size(1) + 1).pow(3).mean().mul(2)


def loop_precision(real, generated, k):
    hits = 0
    for g in generated:
        for i, r in enumerate(real):
            others = torch.cat([real[:i], real[i + 1 :]])
            radius = (others - r).norm(dim=1).kthvalue(k).values
            if (g - r).norm() <= radius:
                hits += 1
                break
    return hits / len(generated)


def topk_precision(real, generated, k):
    distances = torch.cdist(real, real)
    distances.fill_diagonal_(float("inf"))
    radius = distances.topk(k, dim=1, largest=False).values.amax(1)
    return (torch.cdist(generated, real) <= radius).any(dim=1).float().mean()


def ranked_copying(generated, held_out, train):
    """By the rank sum of Mann and Whitney, ties at their mean rank."""
    a, b = (torch.cdist(z, train).amin(1) for z in (generated, held_out))
    both = torch.cat([a, b])
    rank = torch.stack([(both < v).sum() + ((both == v).sum() + 1) / 2 for v in a])
    u = rank.sum() - len(a) * (len(a) + 1) / 2
    return 1 - u.double() / (len(a) * len(b))


def loop_copying(generated, held_out, train):
    total = 0.0
    for g in generated:
        for h in held_out:
            near, far = ((train - z).norm(dim=1).min() for z in (g, h))
            total += 1.0 if near < far else 0.5 if near == far else 0.0
    return torch.tensor(total / len(generated) / len(held_out))


RIGHT = {
    "09.1": [by_eigvals, by_scipy, by_singular_values],
    "09.2": [by_lstsq, lambda n, fid: float(np.polyfit(1 / n.numpy(), fid.numpy(), 1)[1])],
    "09.3": [loop_kid, masked_kid],
    "09.4": [loop_precision, topk_precision],
    "09.5": [ranked_copying, loop_copying],
}  # fmt: skip

WRONG = [
    ("09.1", ["return ((mean_1 - mean_2) ** 2).sum() + (cov_1 + cov_2 - 2 * (cov_1 @ cov_2) ** 0.5).trace()"],
     "You took the root of each entry"),
    ("09.1", ["return (mean_1 - mean_2).square().sum() + cov_1 + cov_2 - 2 * (cov_1 @ cov_2).sqrt()"],
     "needed is ()"),
    ("09.1", ["cross = torch.linalg.eigvalsh(cov_1 @ cov_2).clamp(min=0).sqrt().sum()",
              "return ((mean_1 - mean_2) ** 2).sum() + torch.trace(cov_1 + cov_2) - 2 * cross"],
     "You gave eigvalsh the product"),
    ("09.1", ["return ((mean_1 - mean_2) ** 2).sum() + (cov_1 + cov_2).trace() - 2 * (cov_1 @ cov_2).trace() ** 0.5"],
     "You took the root of the trace"),
    ("09.1", ["e, Q = torch.linalg.eigh(cov_1)", "R = Q * e.clamp(min=0).sqrt() @ Q.T",
              "cross = torch.linalg.eigvalsh(R @ cov_2 @ R).sqrt().sum()",
              "return ((mean_1 - mean_2) ** 2).sum() + torch.trace(cov_1 + cov_2) - 2 * cross"], "NaN"),
    ("09.1", ["r = torch.linalg.eigvals(cov_1 @ cov_2).sqrt().sum()",
              "return (mean_1 - mean_2).square().sum() + (cov_1 + cov_2).trace() - 2 * r"], "complex"),
    ("09.2", ["return torch.as_tensor(np.polyfit(n, fid, 1)[1])"], "You fitted a line in n"),
    ("09.2", ["return torch.as_tensor(np.polyfit(1 / n, fid, 1)[0])"], "You returned the slope"),
    ("09.2", ["u = 1 / n", "c = torch.cov(torch.stack([u, fid]))[0, 1] / u.var(correction=0)",
              "return fid.mean() - c * u.mean()"], "You divided a covariance over k - 1"),
    ("09.3", ["k = lambda a, b: (a @ b.T / a.shape[1]) ** 3 + 1",
              "w = lambda a: (k(a, a).sum() - k(a, a).trace()) / (len(a) * (len(a) - 1))",
              "return w(x) + w(y) - 2 * k(x, y).mean()"], "The kernel's + 1 is missing, or stands outside"),
    ("09.3", ["k = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3",
              "return k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean()"], "You counted each picture with itself"),
    ("09.4", ["r = torch.cdist(real, real).kthvalue(k, dim=1).values",
              "return (torch.cdist(real, generated) <= r[:, None]).any(0).double().mean()"],
     "You counted each picture as its own first neighbour"),
    ("09.4", ["r = torch.cdist(real, real).sort(1)[0][:, k]",
              "return (torch.cdist(generated, real) < r).any(1).double().mean()"], "A picture exactly on the edge"),
    ("09.5", ["a, b = (torch.cdist(z, train).min(1)[0] for z in (generated, held_out))",
              "return (a[:, None] < b).double().mean()"], "Ties count half"),
]  # fmt: skip
