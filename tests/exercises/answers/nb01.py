from __future__ import annotations

import math
import statistics

import numpy as np
import torch


def loop_push(x, mu, scale):
    out = []
    for row in x.tolist():
        total = 0.0
        for value, m, s in zip(row, mu.tolist(), scale.tolist(), strict=True):
            total -= ((value - m) / s) ** 2 / 2 + math.log(math.sqrt(2 * math.pi) * abs(s))
        out.append(total)
    return torch.tensor(out)


def full_push(x, mu, scale):
    covariance = torch.diag(scale.double() ** 2)
    return torch.distributions.MultivariateNormal(mu.double(), covariance).log_prob(x.double())


def loop_marginal(log_p):
    out = []
    for column in log_p.double().T:
        top = max(column.tolist())
        out.append(top + math.log(statistics.fmean(math.exp(a - top) for a in column.tolist())))
    return torch.tensor(out)


def shifted_marginal(log_p):
    top = log_p.amax(0, keepdim=True)
    return (top + (log_p - top).exp().mean(0, keepdim=True).log()).squeeze(0)


def loop_likelihood(x, w, mu, sigma):
    total = 0.0
    for value in x.double():
        logs = [
            math.log(a) - 0.5 * ((value.item() - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))
            for a, m, s in zip(w.tolist(), mu.tolist(), sigma.tolist(), strict=True)
        ]
        total += max(logs) + math.log(sum(math.exp(a - max(logs)) for a in logs))
    return total / len(x)


def torch_likelihood(x, w, mu, sigma):
    parts = torch.distributions.Normal(mu, sigma)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(w), parts).log_prob(x).mean()


def loop_kl(p, q, dx):
    return sum(a * math.log(a / b) * dx for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0)


RIGHT = {
    "01.1": [
        loop_push,
        full_push,
        lambda x, mu, scale: torch.distributions.Normal(mu, scale.abs()).log_prob(x).sum(-1),
        lambda x, mu, scale: (
            -0.5 * (((x - mu) / scale) ** 2).sum(1) - 0.5 * (2 * torch.pi * scale**2).log().sum()
        ),
    ],
    "01.2": [
        loop_marginal,
        shifted_marginal,
        lambda log_p: torch.logsumexp(log_p - math.log(log_p.shape[0]), 0),
        lambda log_p: torch.tensor(np.logaddexp.reduce(log_p.double().numpy(), axis=0) - np.log(len(log_p))),
    ],
    "01.3": [
        loop_likelihood,
        torch_likelihood,
        lambda x, w, mu, sigma: torch.logsumexp(
            w.log()[:, None] - (x[None] - mu[:, None]) ** 2 / (2 * sigma[:, None] ** 2)
            - 0.5 * (2 * math.pi * sigma[:, None] ** 2).log(), dim=0,
        ).sum() / x.numel(),
    ],
    "01.4": [
        lambda x: (x.mean(0), x.var(0, correction=0)),
        lambda x: [x.double().mean(0), (x.double() ** 2).mean(0) - x.double().mean(0) ** 2],
        lambda x: (x.sum(0) / len(x), x.var(0) * (len(x) - 1) / len(x)),
        lambda x: torch.stack([x.mean(0), x.var(0, unbiased=False)]).unbind(0),
    ],
    "01.5": [
        loop_kl,
        lambda p, q, dx: (p * torch.where(p > 0, p / q, 1.0).log()).sum() * dx,
        lambda p, q, dx: torch.trapezoid(torch.special.xlogy(p, p / q), dx=dx),
        lambda p, q, dx: torch.nn.functional.kl_div(q.double().log(), p.double(), reduction="sum") * dx,
    ],
}  # fmt: skip

WRONG = [
    ("01.1", ["z = (x - mu) / scale", "return -0.5 * (z**2).sum(-1) - torch.log(scale).sum()"], "log(2 pi) / 2"),
    ("01.1", ["return torch.distributions.Normal(mu, scale**2).log_prob(x).sum(-1)"], "scale^2 for the deviation"),
    ("01.1", ["return (x - mu) / scale"], "You returned shape"),
    ("01.1", ["p = torch.exp(-0.5 * ((x - mu) / scale) ** 2) / math.sqrt(2 * math.pi) / scale.abs()",
              "return torch.log(p).sum(-1)"], "add logarithms"),
    ("01.1", ["z = (x - mu) * scale",
              "return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - scale.abs().log()).sum(-1)"],
     "You multiplied by scale"),
    ("01.2", ["return torch.log(torch.exp(log_p).mean(dim=0))"], "exp(-900) is 0"),
    ("01.2", ["return torch.logsumexp(log_p, dim=0) / log_p.shape[0]"], "You divided the logarithm by n"),
    ("01.2", ["m = log_p.mean(0)", "return m + torch.log(torch.exp(log_p - m).mean(0))"], "take out the largest"),
    ("01.2", ["return math.log(log_p.exp().mean(0))"], "use `torch.log`"),
    ("01.3", ["p = (w * torch.distributions.Normal(mu, sigma).log_prob(x[:, None]).exp()).sum(1)",
              "return torch.log(p).mean()"], "far from all components"),
    ("01.3", ["return (w * torch.distributions.Normal(mu, sigma).log_prob(x[:, None])).sum(1).mean()"],
     "You mixed the logarithms"),
    ("01.3", ["z = (x - mu) / sigma",
              "return torch.logsumexp(w.log() - z**2 / 2 - torch.log(sigma * math.sqrt(2 * math.pi)), -1).mean()"],
     "Every datum meets every component"),
    ("01.3", ["log_n = torch.distributions.Normal(mu, sigma**2).log_prob(x[:, None])",
              "return torch.logsumexp(w.log() + log_n, 1).mean()"],
     "You squared sigma"),
    ("01.4", ["return x.mean(dim=0), x.var(dim=0)"], "You divided by n - 1"),
    ("01.4", ["return x.mean(0)"], "You returned"),
    ("01.5", ["return (p * torch.log(p / q)).sum() * dx"], "0 * log(0)"),
    ("01.5", ["return F.kl_div(p.log(), q, reduction='sum') * dx"], "You computed KL(q || p)"),
    ("01.5", ["return (p * torch.log(p / q)).sum()"], "dx is missing"),
    ("01.5", ["return F.kl_div(q.log(), p) * dx"], "reduction='sum'"),
    ("01.5", ["p, q = p / p.sum(), q / q.sum()", "return torch.special.xlogy(p, p / q).sum()"], "They are densities"),
]  # fmt: skip
