from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange


def loop_best_discriminator(p_data, p_g):
    pairs = zip(p_data.double().flatten().tolist(), p_g.double().flatten().tolist(), strict=True)
    out = [a / (a + b) if a + b > 0 else 0.5 for a, b in pairs]
    return torch.tensor(out).reshape(p_data.shape)


def logits_best_discriminator(p_data, p_g):
    out = (p_data.double().log() - p_g.double().log()).sigmoid()
    out[(p_data == 0) & (p_g == 0)] = 0.5
    return out


def loop_jsd(p, q, dx):
    total = 0.0
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        m = (a + b) / 2
        total += (a * math.log(a / m) if a else 0.0) + (b * math.log(b / m) if b else 0.0)
    return total * dx / 2


def entropies_jsd(p, q, dx):
    """H(m) - (H(p) + H(q)) / 2"""
    p, q = p.double().numpy(), q.double().numpy()

    def entropy(density):
        seen = density[density > 0]
        return -(seen * np.log(seen)).sum() * dx

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def cross_entropy_loss(real, fake):
    one = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    return one + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))


def autograd_slopes(fake):
    f = fake.clone().requires_grad_()
    return torch.stack([torch.autograd.grad(loss.sum(), f)[0] for loss in (-F.softplus(f), F.softplus(-f))])


def loop_mode_shares(x, means, sigma):
    count = [0] * len(means)
    for point in x:
        distances = [(point - mean).square().sum().sqrt().item() for mean in means]
        nearest = min(range(len(means)), key=distances.__getitem__)
        count[nearest] += distances[nearest] <= 3 * sigma
    return torch.tensor(count) / len(x)


def one_hot_mode_shares(x, means, sigma):
    square = (x[:, None] - means).square().sum(-1)
    on = F.one_hot(square.argmin(1), len(means)) * (square.min(1, keepdim=True).values < 9 * sigma**2)
    return on.double().mean(0)


RIGHT = {
    "02.1": [
        loop_best_discriminator,
        logits_best_discriminator,
        lambda p_data, p_g: (p_data / (p_data + p_g)).nan_to_num(0.5),
        lambda p_data, p_g: 1 / (1 + p_g / p_data).nan_to_num(2.0),
    ],
    "02.2": [
        loop_jsd,
        entropies_jsd,
        lambda p, q, dx: (
            math.log(2) + 0.5 * dx * sum(torch.xlogy(a, a / (p + q).clamp(min=1e-30)).sum() for a in (p, q))
        ),
    ],
    "02.3": [
        cross_entropy_loss,
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda real, fake: sum(F.softplus(-real.double())) / len(real) + sum(F.softplus(fake.double())) / len(fake),
    ],
    "02.4": [
        autograd_slopes,
        lambda fake: torch.stack([-fake.sigmoid(), fake.sigmoid() - 1]),
        lambda fake: torch.stack([-1 / (1 + (-fake.double()).exp()), -1 / (1 + fake.double().exp())]),
    ],
    "02.5": [loop_mode_shares, one_hot_mode_shares],
    "02.6": [
        lambda x, m: x.reshape(len(x) // m, m * x.shape[1], *x.shape[2:]),
        lambda x, m: torch.cat([x[i::m] for i in range(m)], dim=1),
        lambda x, m: torch.stack([torch.cat(list(group)) for group in x.split(m)]),
        lambda x, m: rearrange(x, "(n m) c ... -> n (m c) ...", n=len(x) // m),
    ],
}  # fmt: skip

WRONG = [
    ("02.1", ["return 1 / 2"], "needed is (7,)"),
    ("02.1", ["return p_data / (p_data + p_g + 1e-12)"], "very small number below the line"),
    ("02.2", ["m = (p + q) / 2", "return 0.5 * ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) * dx"], "NaN"),
    ("02.3", ["return -F.logsigmoid(real) - F.logsigmoid(-fake)"], "First average each batch"),
    ("02.3", ["return -F.logsigmoid(real).mean() - F.logsigmoid(1 - fake).mean()"], "The 1 - belongs outside"),
    ("02.4", ["D = fake.sigmoid()", "return torch.stack([-D, 1 - D])"], "A minus was lost"),
    ("02.5", ["return torch.bincount(torch.cdist(x, means).argmin(1)) / len(x)"], "nearest mode, however far"),
    ("02.6", ["return x.view(-1, m * x.shape[1])"], "Right for points, not for pictures"),
]  # fmt: skip
