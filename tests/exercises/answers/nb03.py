from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence


def library_kl(mean, log_var):
    q = Independent(Normal(mean, (log_var / 2).exp()), 1)
    return kl_divergence(q, Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1))


def loop_kl(mean, log_var):
    rows = zip(mean.tolist(), log_var.tolist(), strict=True)
    return torch.tensor([sum((math.exp(s) + m * m - 1 - s) / 2 for m, s in zip(*row, strict=True)) for row in rows])


def shifted_bound(log_weights):
    top = log_weights.max(0).values
    return top + (log_weights - top).exp().mean(0).log()


def loop_bound(log_weights):
    k, b = log_weights.shape
    columns = [[log_weights[i, j].item() for i in range(k)] for j in range(b)]
    return torch.tensor([max(c) + math.log(sum(math.exp(v - max(c)) for v in c) / k) for c in columns])


def library_gaussian(x, y, sigma):
    return Normal(y, sigma).log_prob(x).reshape(len(x), -1).sum(-1)


def sums_gaussian(x, y, sigma):
    n = x[0].numel()
    square = torch.stack([((a - b) ** 2).sum() for a, b in zip(x.double(), y.double(), strict=True)])
    return -0.5 * (square / sigma**2 + n * math.log(2 * math.pi * sigma**2))


def library_loss(x, logits, mean, log_var, beta):
    log_p = Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))
    return (beta * library_kl(mean, log_var) - log_p).mean()


def totals_loss(x, logits, mean, log_var, beta):
    total = F.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="sum")
    kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
    return (total + beta * kl) / len(x)


RIGHT = {
    "03.1": [
        library_kl,
        loop_kl,
        lambda mean, log_var: -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp(), dim=-1),
    ],
    "03.2": [
        shifted_bound,
        loop_bound,
        lambda log_weights: (log_weights - math.log(log_weights.shape[0])).logsumexp(0),
    ],
    "03.3": [
        lambda mean, log_var, eps: torch.exp(0.5 * log_var).mul(eps).add(mean),
        lambda mean, log_var, eps: mean + log_var.exp().sqrt() * eps,
        lambda mean, log_var, eps: torch.addcmul(mean.double(), log_var.double().exp() ** 0.5, eps.double()),
    ],
    "03.4": [library_gaussian, sums_gaussian],
    "03.5": [
        library_loss,
        totals_loss,
        lambda x, logits, mean, log_var, beta: np.float32(totals_loss(x, logits, mean, log_var, beta)),
        lambda x, logits, mean, log_var, beta: (
            (F.softplus(logits) - x * logits).sum() / len(x) + beta * loop_kl(mean, log_var).mean()
        ),
    ],
}  # fmt: skip

WRONG = [
    ("03.1", ["return 0.5 * torch.mean(log_var.exp() + mean**2 - 1 - log_var)"], "averaged over everything"),
    ("03.1", ["return -0.5 * torch.sum(1 + log_var - mean - log_var.exp(), dim=1)"], "Its square counts"),
    ("03.1", ["return torch.sum(log_var.exp() + mean**2 - 1 - log_var, dim=1)"], "factor 1/2 is missing"),
    ("03.1", ["return torch.sum(1 + log_var - mean**2 - log_var.exp(), dim=1)"], "factor -1/2"),
    ("03.1", ["return torch.sum(0.5 * log_var.exp() + mean**2 - 1 - log_var, dim=1)"], "all four terms"),
    ("03.2", ["return log_weights.mean(dim=0)"], "the ELBO again"),
    ("03.2", ["return log_weights.mean(0) - math.log(len(log_weights))"], "subtracted log k as well"),
    ("03.2", ["return torch.log(torch.exp(log_weights).sum(0) / len(log_weights))"], "exp(-900) is 0"),
    ("03.2", ["return torch.logsumexp(log_weights, dim=-1) - np.log(log_weights.shape[-1])"], "along the first"),
    ("03.3", ["return mean + torch.exp(log_var) * eps"], "exp(log_var) is the variance"),
    ("03.3", ["return mean + torch.sqrt(log_var) * eps"], "may be negative"),
    ("03.3", ["return mean + torch.exp(log_var / 2) * torch.randn_like(eps)"], "draw nothing in it"),
    ("03.3", ["return mean + torch.exp(log_var / 2)"], "eps is missing"),
    ("03.3", ["return mean + torch.exp(log_var / 2) + eps"], "multiplies the noise"),
    ("03.4", ["return torch.distributions.Normal(y, sigma**2).log_prob(x).flatten(1).sum(1)"], "takes sigma itself"),
    ("03.4", ["return -((x - y) ** 2).flatten(1).sum(1) / (2 * sigma**2)"], "log sigma and log(2 pi) / 2"),
    ("03.4", ["return -F.mse_loss(x, y)"], "shape ()"),
    ("03.5", ["return F.binary_cross_entropy_with_logits(logits, x) + beta * "
              "(0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1)).mean()"], "the number of pixels"),
    ("03.5", ["return F.binary_cross_entropy_with_logits(x, logits, reduction='sum') / len(x) + beta * "
              "(0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1)).mean()"], "exchanged the first two"),
    ("03.5", ["return F.binary_cross_entropy_with_logits(logits, x) + beta * "
              "(0.5 * (log_var.exp() + mean**2 - 1 - log_var)).mean()"], "You averaged both"),
    ("03.5", ["return F.binary_cross_entropy_with_logits(logits, x, reduction='sum') - beta * 0.5 * "
              "(1 + log_var - mean**2 - log_var.exp()).sum()"], "summed over the batch"),
    ("03.5", ["return F.binary_cross_entropy_with_logits(logits, x, reduction='sum') / len(x)"],
     "The divergence is missing"),
]  # fmt: skip
