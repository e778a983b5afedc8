from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch.distributions import Independent, Normal, kl_divergence


def library_kl(mean, log_var):
    q = Independent(Normal(mean, (log_var / 2).exp()), 3)
    return kl_divergence(q, Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 3))


def loop_kl(mean, log_var):
    rows = zip(mean.flatten(1).tolist(), log_var.flatten(1).tolist(), strict=True)
    return torch.tensor([sum((math.exp(s) + m * m - 1 - s) / 2 for m, s in zip(*row, strict=True)) for row in rows])


def mean_times_count(mean, log_var):
    terms = -0.5 * (1 + log_var - mean.pow(2) - log_var.exp())
    return terms.flatten(1).mean(1) * terms[0].numel()


def in_unit_range(x, y):
    """In [0, 1] the peak is 1."""
    return -10 * torch.log10(F.mse_loss((x + 1) / 2, (y + 1) / 2))


def in_bytes(x, y):
    x, y = ((v.double().numpy() + 1) * 127.5 for v in (x, y))
    return float(20 * np.log10(255 / np.sqrt(np.mean((x - y) ** 2))))


def by_cosine(f, g):
    return sum((2 - 2 * F.cosine_similarity(a, b, dim=1)).mean((1, 2)) for a, b in zip(f, g, strict=True))


def loop_perceptual(f, g):
    out = []
    for i in range(len(f[0])):
        total = 0.0
        for a, b in zip(f, g, strict=True):
            u, v = (rearrange(m[i].double(), "c h w -> (h w) c") for m in (a, b))
            u, v = u / u.norm(dim=1)[:, None], v / v.norm(dim=1)[:, None]
            total += torch.dist(u, v).item() ** 2 / len(u)
        out.append(total)
    return torch.tensor(out)


def reduced_perceptual(f, g):
    total = 0
    for a, b in zip(f, g, strict=True):
        a = a / a.pow(2).sum(dim=1, keepdim=True).sqrt()
        b = b / torch.linalg.vector_norm(b, dim=1, keepdim=True)
        total = total + reduce((a - b) ** 2, "b c h w -> b h w", "sum").mean(dim=(1, 2))
    return total


def by_moments(z):
    z = z.double()
    return (z.pow(2).mean() - z.mean().pow(2)).rsqrt()


def step_by_step(z, s, a, b, eps):
    x_0 = z.double() * s
    x_t = x_0.mul(a).add(eps, alpha=b)
    return x_t, x_t.sub(eps, alpha=b).div(a).div(s)


def one_fraction(z, s, a, b, eps):
    x_t = torch.stack([a * s * z, b * eps]).sum(0)
    return [x_t, (x_t - b * eps) / (a * s)]


RIGHT = {
    "12.1": [
        library_kl,
        loop_kl,
        mean_times_count,
        lambda mean, log_var: 0.5 * torch.einsum("bchw->b", log_var.exp() + mean**2 - 1 - log_var),
    ],
    "12.2": [
        in_unit_range,
        in_bytes,
        lambda x, y: 10 * math.log10(4 / F.mse_loss(x, y)),
        lambda x, y: 20 * math.log10(2) - 10 * torch.log10(((x - y) ** 2).mean((1, 2, 3)).mean()),
        lambda x, y: 20 * torch.log10(2 * math.sqrt(x.numel()) / torch.linalg.vector_norm(x - y)),
    ],
    "12.3": [by_cosine, loop_perceptual, reduced_perceptual],
    "12.4": [
        lambda z: 1 / z.std(correction=0),
        lambda z: z.var(unbiased=False) ** -0.5,
        lambda z: 1 / z.numpy().std(),
        by_moments,
    ],
    "12.5": [
        step_by_step,
        one_fraction,
        lambda z, s, a, b, eps: [s * a * z + b * eps, ((s * a * z + b * eps) / a - b / a * eps) / s],
    ],
}  # fmt: skip

WRONG = [
    ("12.1", ["return -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())"], "summed over the batch"),
    ("12.1", ["return -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp(), dim=1)"], "a price for each place"),
    ("12.1", ["return 0.5 * (mean**2 + log_var.exp() - log_var - 1).flatten(1).mean(1)"], "nats an element"),
    ("12.1", ["return 0.5 * (mean**2 + log_var.exp() - 1 - torch.log(log_var)).sum((1, 2, 3))"], "NaN"),
    ("12.2", ["return -10 * torch.log10(F.mse_loss(x, y))"], "Your peak is 1"),
    ("12.2", ["return 20 * torch.log10(255 / torch.sqrt(F.mse_loss(x, y)))"], "Your peak is 255"),
    ("12.2", ["mse = ((x - y) ** 2).mean(dim=(1, 2, 3))", "return (10 * torch.log10(4 / mse)).mean()"],
     "You averaged the pictures' decibels"),
    ("12.2", ["return 10 * math.log10(4 / (x - y) ** 2)"], "use `torch.log10`"),
    ("12.3", ["return sum(((a - b) ** 2).sum(1).mean((1, 2)) for a, b in zip(f, g))"], "You did not scale"),
    ("12.3", ["for a, b in zip(f, g):", "    d = (F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2))",
              "return d"], "You have the last layer alone"),
    ("12.3", ["return sum((1 - F.cosine_similarity(a, b)).mean((1, 2)) for a, b in zip(f, g))"], "1 - cos is half"),
    ("12.3", ["return sum(F.mse_loss(F.normalize(a), F.normalize(b)) for a, b in zip(f, g))"],
     "You averaged over everything in a layer"),
    ("12.4", ["return z.std()"], "You returned the deviation, over the count less one"),
    ("12.4", ["return 1 / z.std()"], "torch's default"),
    ("12.4", ["return 1 / torch.sqrt((z**2).mean())"], "You did not subtract the mean"),
    ("12.4", ["return 1 / z.std(dim=(0, 2, 3))"], "a factor for each channel"),
    ("12.5", ["x = a * s * z + b * eps", "return [x, (x - b * eps) / a]"], "You forgot s on the way back"),
    ("12.5", ["x = a * s * z + b * eps", "return [x, (x - b * eps) / a * s]"], "You multiplied by s on the way back"),
    ("12.5", ["x = a * s * z + b * torch.randn_like(z)", "return [x, (x - b * eps) / a / s]"], "draw nothing in it"),
    ("12.5", ["x = a * s * z + b * eps", "return torch.stack([x, (x - b * eps) / a / s])"],
     "needed is a list or tuple of 2"),
]  # fmt: skip
