from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F


def loop_log_density(z, slope):
    return torch.tensor(
        [
            math.log(math.exp(-a * a / 2) / math.sqrt(2 * math.pi) * abs(c))
            for a, c in zip(z.tolist(), slope.tolist(), strict=True)
        ]
    )


def loop_coupling(x, s, t):
    y, half = x.clone(), x.shape[1] // 2
    log_det = torch.zeros(len(x))
    for i in range(len(x)):
        for j in range(half):
            y[i, half + j] = math.exp(s[i, j]) * x[i, half + j] + t[i, j]
            log_det[i] += s[i, j]
    return y, log_det


def padded_coupling(x, s, t):
    """The masked form of the layer (eq. 9): s and t are 0 on the kept half."""
    s, t = (F.pad(value.double(), (value.shape[1], 0)) for value in (s, t))
    return [(x * s.exp() + t).float(), s.exp().prod(1).log().float()]


def divided(y, s, t):
    x = y.double().clone()
    x[:, y.shape[1] // 2 :] -= t
    x[:, y.shape[1] // 2 :] /= s.double().exp()
    return x


def loop_log_likelihood(z, log_dets):
    out = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    for log_det in log_dets.flip(0):
        out = out + log_det
    return out


def loop_sliced_distance(x, y, directions):
    total = 0.0
    for u in directions.T:
        a, b = sorted((x @ u).tolist()), sorted((y @ u).tolist())
        total += sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    return math.sqrt(total / (len(x) * directions.shape[1]))


RIGHT = {
    "04.1": [
        loop_log_density,
        lambda z, slope: torch.distributions.Normal(0.0, 1.0).log_prob(z) + 0.5 * (slope**2).log(),
        lambda z, slope: -z.double().square() / 2 - 0.5 * math.log(2 * math.pi) - (1 / slope.double()).abs().log(),
    ],
    "04.2": [
        loop_coupling,
        padded_coupling,
        lambda x, s, t: (
            torch.hstack((x[:, : s.shape[1]], t.addcmul(x[:, s.shape[1] :], s.exp()))),
            s.sum(dim=-1),
        ),
    ],
    "04.3": [
        divided,
        lambda y, s, t: torch.cat((y[:, : s.shape[1]], y[:, s.shape[1] :] / s.exp() - t / s.exp()), 1),
    ],
    "04.4": [
        loop_log_likelihood,
        lambda z, log_dets: (
            torch.distributions.MultivariateNormal(torch.zeros(z.shape[1]), torch.eye(z.shape[1])).log_prob(z)
            + torch.einsum("kb->b", log_dets)
        ),
        lambda z, log_dets: (
            log_dets.double().sum(0) - (z.double() ** 2).sum(1) / 2 - z.shape[1] * math.log(2 * math.pi) / 2
        ),
    ],
    "04.5": [
        loop_sliced_distance,
        lambda x, y, directions: (
            np.sqrt(np.mean((np.sort((x @ directions).double(), 0) - np.sort((y @ directions).double(), 0)) ** 2))
        ),
        lambda x, y, directions: torch.stack(
            [((x @ u).sort()[0] - (y @ u).sort()[0]).pow(2).mean() for u in directions.unbind(1)]
        ).mean() ** 0.5,
    ],
}  # fmt: skip

WRONG = [
    ("04.1", ["return -0.5 * z**2 - 0.5 * math.log(2 * math.pi) + torch.log(slope)"], "take |slope| first"),
    ("04.1", ["return torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * slope.abs()"], "That is the density"),
    ("04.1", ["return -(z**2) / 2 - 0.5 * math.log(2 * math.pi) + torch.log(slope**2)"], "not by its square"),
    ("04.2", ["x_1, x_2 = x.chunk(2, 1)", "return torch.cat([x_1, x_1 * s.exp() + t], 1), s.sum(1)"], "made of x_1"),
    ("04.2", ["x_1, x_2 = x.chunk(2, 1)", "return torch.cat([x_1, x_2 * s.exp() + t]), s.sum(1)"], "below each other"),
    ("04.3", ["a, b = y.chunk(2, 1)", "return torch.cat([a, b - t * torch.exp(-s)], 1)"], "brackets"),
    ("04.4", ["return -0.5 * z.square().sum(1) + log_dets.sum(0)"], "The constant"),
    ("04.4", ["return -0.5 * (z**2 + math.log(2 * math.pi)).sum() + log_dets.sum(0)"], "over the whole batch"),
    ("04.5", ["d = (x @ directions).sort() - (y @ directions).sort()", "return d.square().mean().sqrt()"], "sort"),
    ("04.5", ["d = ((x - y) @ directions).sort(0).values", "return d.square().mean().sqrt()"], "before you subtract"),
]  # fmt: skip
