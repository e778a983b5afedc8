from __future__ import annotations

import math

import torch
from torch.distributions import Normal, kl_divergence

from answers import column


def loop_bayes(mean, var, y, r, v):
    """The gain's form: no precisions."""
    out = []
    for m, s, one, k, w in zip(*(x.tolist() for x in (mean, var, y, r, v)), strict=True):
        gain = s * k / (k * k * s + w)
        out.append((m + gain * (one - k * m), (1 - gain * k) * s))
    return [torch.tensor(part, dtype=torch.float64) for part in zip(*out, strict=True)]


def bayes_by_matrix(mean, var, y, r, v):
    """Conditioning of the joint Gaussian of x and y."""
    cov_xy, var_y = r * var, r**2 * var + v
    return mean + cov_xy / var_y * (y - r * mean), var - cov_xy**2 / var_y


def loop_posterior(x_0, x_t, t, beta, alpha_bar):
    means, variances = [], []
    for x, z, s in zip(x_0, x_t, t.tolist(), strict=True):
        prior, r, v = 1 - alpha_bar[s - 1], (1 - beta[s]) ** 0.5, beta[s]
        gain = r * prior / (r**2 * prior + v)
        means.append(alpha_bar[s - 1] ** 0.5 * x + gain * (z - r * alpha_bar[s - 1] ** 0.5 * x))
        variances.append(v * prior / (r**2 * prior + v))
    return torch.stack(means), torch.stack(variances)


def double_posterior(x_0, x_t, t, beta, alpha_bar):
    beta, alpha_bar = beta.double(), alpha_bar.double()
    ratio = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    of_x_0 = alpha_bar[t - 1].sqrt() * (1 - ratio * (1 - beta[t]))
    mean = column(of_x_0.tolist(), x_0) * x_0 + column(((1 - beta[t]).sqrt() * ratio).tolist(), x_t) * x_t
    return [mean, beta[t] * ratio]


def loop_mean(x_t, t, eps, beta, alpha_bar):
    rows = []
    for x, s, e in zip(x_t, t.tolist(), eps, strict=True):
        alpha = alpha_bar[s] / alpha_bar[s - 1]
        rows.append(x / alpha**0.5 - (1 - alpha) / (alpha * (1 - alpha_bar[s])) ** 0.5 * e)
    return torch.stack(rows)


def mean_by_way_of_x_0(x_t, t, eps, beta, alpha_bar):
    beta, alpha_bar = beta.double(), alpha_bar.double()
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_0 = (x_t - column(b[t].tolist(), x_t) * eps) / column(a[t].tolist(), x_t)
    return double_posterior(x_0, x_t, t, beta, alpha_bar)[0]


def loop_kl(mean_1, var_1, mean_2, var_2):
    total = []
    for row in zip(mean_1.tolist(), var_1.tolist(), mean_2.tolist(), var_2.tolist(), strict=True):
        total.append(
            sum(
                math.log(math.sqrt(v2 / v1)) + (v1 + (m1 - m2) ** 2) / (2 * v2) - 0.5
                for m1, v1, m2, v2 in zip(*row, strict=True)
            )
        )
    return torch.tensor(total)


def loop_decoder(x_0, mean, sigma):
    rows = []
    for picture, middle in zip(x_0, mean, strict=True):
        cost = 0.0
        for x, m in zip(picture.double().flatten().tolist(), middle.double().flatten().tolist(), strict=True):
            level = round((x + 1) * 127.5)
            edges = [-math.inf, *((2 * k - 255 + 1) / 255 for k in range(255)), math.inf]
            below, above = (0.5 * math.erfc(-(edges[k] - m) / sigma / math.sqrt(2)) for k in (level, level + 1))
            cost -= math.log2(above - below)
        rows.append(cost / picture.numel())
    return torch.tensor(rows)


def decoder_by_distribution(x_0, mean, sigma):
    normal, half = Normal(mean.double(), sigma), 1 / 255
    above, below = normal.cdf(x_0.double() + half), normal.cdf(x_0.double() - half)
    above[x_0 >= 1 - half] = 1.0
    below[x_0 <= -1 + half] = 0.0
    return -(above - below).log().flatten(1).sum(1) / math.log(2) / x_0[0].numel()


RIGHT = {
    "06.1": [loop_bayes, bayes_by_matrix],
    "06.2": [loop_posterior, double_posterior],
    "06.3": [loop_mean, mean_by_way_of_x_0],
    "06.4": [
        loop_kl,
        lambda mean_1, var_1, mean_2, var_2: (
            kl_divergence(Normal(mean_1, var_1.sqrt()), Normal(mean_2, var_2.sqrt())).sum(-1)
        ),
    ],
    "06.5": [loop_decoder, decoder_by_distribution],
}  # fmt: skip

WRONG = [
    ("06.1", ["new = 1 / (1 / var + r**2 / v)", "return new * (mean / var + y / v), new"], "r y / v"),
    (
        "06.2",
        [
            "now, before = 1 - alpha_bar[t], 1 - alpha_bar[t - 1]",
            "mean = (alpha_bar[t - 1] ** 0.5 * beta[t] / now)[:, None] * x_0",
            "return mean + ((1 - beta[t]) ** 0.5 * before / now)[:, None] * x_t, beta[t] * before / now",
        ],
        "(b, 1, 1, 1)",
    ),
    (
        "06.3",
        [
            "alpha = (1 - beta[t]).view(-1, *[1] * (x_t.ndim - 1))",
            "a_bar = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))",
            "return (x_t - (1 - alpha / (1 - a_bar).sqrt()) * eps) / alpha.sqrt()",
        ],
        "divides alpha alone",
    ),
    ("06.3", ["return x_t - eps"], "Only the last step's share"),
    (
        "06.4",
        ["return ((var_2 / var_1).log() + (var_1 + (mean_1 - mean_2) ** 2) / (2 * var_2) - 0.5).sum(1)"],
        "formula in deviations",
    ),
    (
        "06.5",
        ["return -torch.distributions.Normal(mean, sigma).log_prob(x_0).flatten(1).mean(1) / math.log(2)"],
        "A grey level is a bin",
    ),
    ("06.1", ["p = 1 / var + 1 / v", "return (mean / var + y / r / v) / p, 1 / p"], "divides the variance by r^2"),
    (
        "06.2",
        [
            "s = lambda v: v.view(-1, *[1] * (x_t.ndim - 1))",
            "A = alpha_bar[t]",
            "mean = s(A.sqrt() * beta[t] / (1 - A)) * x_0 + s((1 - beta[t]).sqrt() * (1 - A) / (1 - A)) * x_t",
            "return mean, beta[t] * (1 - A) / (1 - A)",
        ],
        "throughout",
    ),
    ("06.4", ["return 0.5 * (var_1 + mean_1**2 - 1 - var_1.log()).sum(1)"], "as for a VAE"),
    (
        "06.5",
        [
            "cdf = lambda edge: 0.5 * (1 + torch.erf((edge - mean) / sigma))",
            "above, below = cdf(x_0 + 1 / 255), cdf(x_0 - 1 / 255)",
            "above[x_0 > 0.999], below[x_0 < -0.999] = 1, 0",
            "return -(above - below).log2().flatten(1).mean(1)",
        ],
        "With erf",
    ),
]  # fmt: skip
