from __future__ import annotations

import math

import numpy as np
import torch

from answers import column


def loop_q_step(x_prev, t, eps, beta):
    out = torch.empty_like(x_prev)
    for i in range(len(t)):
        out[i] = math.sqrt(1 - beta[t[i]].item()) * x_prev[i] + math.sqrt(beta[t[i]].item()) * eps[i]
    return out


def loop_q_sample(x_0, t, eps, alpha_bar):
    pairs = zip(x_0, t.tolist(), eps, strict=True)
    return torch.stack([alpha_bar[s] ** 0.5 * x + (1 - alpha_bar[s]) ** 0.5 * e for x, s, e in pairs])


def loop_make_alpha_bar(betas):
    out = [1.0]
    for beta in betas.tolist():
        out.append(out[-1] * (1 - beta))
    return torch.tensor(out)


def loop_cosine_betas(T):
    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)])


def precise_denoise(x_t, t, alpha_bar, m, s):
    """precision-weighted: 1 / s^2 for m, alpha_bar / (1 - alpha_bar) for x_t / a"""
    a = column(alpha_bar[t].double().sqrt().tolist(), x_t)
    weight = a**2 / (1 - a**2)
    return ((m / s**2 + weight * x_t / a) / (1 / s**2 + weight)).float()


RIGHT = {
    "05.1": [
        loop_q_step,
        lambda x_prev, t, eps, beta: (
            column((1 - beta[t].double()).sqrt().tolist(), x_prev) * x_prev
            + column(beta[t].double().sqrt().tolist(), x_prev) * eps
        ),
        lambda x_prev, t, eps, beta: (
            (1 - beta)[(t, *[None] * (x_prev.ndim - 1))] ** 0.5 * x_prev
            + (beta**0.5)[(t, *[None] * (x_prev.ndim - 1))] * eps
        ),
    ],
    "05.2": [
        loop_q_sample,
        lambda x_0, t, eps, alpha_bar: (
            torch.einsum("b,b...->b...", alpha_bar[t].sqrt(), x_0)
            + torch.einsum("b,b...->b...", (1 - alpha_bar[t]).sqrt(), eps)
        ),
        lambda x_0, t, eps, alpha_bar: (
            (x_0.transpose(0, -1) * alpha_bar[t].double().sqrt()).transpose(0, -1)
            + column((1 - alpha_bar[t].double()).sqrt().tolist(), eps) * eps
        ),
    ],
    "05.3": [
        loop_make_alpha_bar,
        lambda betas: torch.cat([torch.zeros(1), torch.log1p(-betas.double()).cumsum(0)]).exp(),
        lambda betas: torch.from_numpy(np.cumprod(np.append(1.0, 1 - betas.numpy()))),
        lambda betas: torch.stack([(1 - betas[:t]).prod() for t in range(len(betas) + 1)]),
    ],
    "05.4": [
        loop_cosine_betas,
        lambda T: torch.as_tensor(loop_cosine_betas(T), dtype=torch.float64),
        lambda T: (
            lambda f: torch.minimum((f[:-1] - f[1:]) / f[:-1], torch.tensor(0.999))
        )(torch.cos((torch.linspace(0, 1, T + 1) + 0.008) / 1.008 * torch.pi / 2).square()),
    ],
    "05.5": [
        precise_denoise,
        lambda x_t, t, alpha_bar, m, s: torch.stack(
            [
                m + math.sqrt(a) * s * s / (a * s * s + 1 - a) * (x - math.sqrt(a) * m)
                for x, a in zip(x_t, alpha_bar[t].tolist(), strict=True)
            ]
        ),
    ],
}  # fmt: skip

BETA = "b = beta[t].view(-1, *[1] * (x_prev.ndim - 1))"
SIGNAL = "ab = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1)); a = ab.sqrt(); b = (1 - ab).sqrt()"
F = "f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2; a = f / f[0]"

WRONG = [
    ("05.1", [BETA, "return x_prev + b * eps"], "as it was"),
    ("05.1", [BETA, "return (1 - b).sqrt() * x_prev - b.sqrt() * eps"], "You subtracted the noise"),
    ("05.1", [BETA, "return (1 - b).sqrt() * x_prev + b.sqrt() * torch.randn_like(eps)"], "another result each time"),
    ("05.1", ["return (1 - beta).sqrt() * x_prev + beta.sqrt() * eps"], "`beta` has T + 1 entries, one a time"),
    ("05.1", ["b = beta[:, None, None]", "return b * x_prev"], "(4, 2): `beta` has T + 1 entries"),
    ("05.1", ["return math.sqrt(1 - beta[t]) * x_prev"], "`math.sqrt` takes one number: use `torch.sqrt`"),
    ("05.1", ["return beta[int(t)] * x_prev"], "scalars. A tensor of many numbers stands where Python wants one"),
    ("05.1", ["b = beta[t].unsqueeze(1)", "return (1 - b) * x_prev + b * b * eps"], "none of the mistakes known"),
    ("05.1", ["b = beta[t].view(-1, 1, 1)", "return b * x_prev"], "as many axes as x has"),
    ("05.2", ["ab = alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1))", "return x_0 + (1 - ab).sqrt() * eps"], "left x_0"),
    ("05.3", ["return torch.cat([torch.ones(1), (1 - betas).cumsum(0)])"], "running sum of alpha_t"),
    ("05.3", ["return torch.cat([torch.ones(1), 1 - betas.cumprod(0)])"], "one minus the product"),
    ("05.3", ["return torch.exp(-torch.cat([torch.zeros(1), betas]).cumsum(0))"], "exp(-sum of betas)"),
    ("05.3", ["return torch.cat([torch.ones(1), 1 - betas ** 2])"], "Entry 0 is right, later entries are not"),
    ("05.4", [F, "return (1 - a[:-1] / a[1:]).clamp(max=0.999)"], "alpha_bar_{t-1} is the larger"),
    ("05.4", [F, "return (1 - a[:-1] / a[1:]).clamp(0, 0.999)"], "turns all of it to 0"),
    ("05.4", [F, "return (a[:-1] / a[1:] - 1).clamp(0, 0.999)"], "as a share of alpha_bar_t"),
    ("05.4", [F, "return (a[:-1] / a[1:]).clamp(max=0.999)"], "above 1 at every t"),
    ("05.4", [F, "return (a[1:] / a[:-1]).clamp(max=0.999)"], "You clipped the ratio"),
    ("05.4", [F, "return 1 - (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "You returned alpha_t"),
    ("05.4", [F, "return (1 - a[1:]).clamp(max=0.999)"], "noise of all t steps"),
    ("05.4", [F, "return 1 - a[1:] / a[:-1]"], "The clip is missing"),
    ("05.4", [F.replace(" * math.pi / 2", ""), "return (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "pi / 2 is missing"),
    ("05.4", [F.replace("math.pi / 2", "math.pi"), "return (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "runs to pi"),
    ("05.4", [F.replace(" / T", ""), "return (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "where t / T belongs"),
    ("05.4", [F.replace("torch.cos", "math.cos"), "return a"], "`math.cos` takes one number: use `torch.cos`"),
    ("05.5", [SIGNAL, "return m + s**2 / (ab * s**2 + b * b) * (x_t - a * m)"], "Your gain has s^2 above"),
    ("05.5", [SIGNAL, "return m + a * s**2 / (a * s**2 + b * b) * (x_t - a * m)"], "takes the factor squared"),
    ("05.5", [SIGNAL, "return a * m + a * s**2 / (ab * s**2 + b * b) * (x_t - a * m)"], "starts from its mean, m"),
    ("05.5", [SIGNAL, "return m + a * (x_t - a * m)"], "variance 1 only"),
    ("05.5", [SIGNAL, "return m + b * s**2 / (b * b * s**2 + ab) * (x_t - b * m)"], "have changed places"),
    ("05.5", [SIGNAL, "return b / (ab * s**2 + b * b) * (x_t - a * m)"], "best guess of the noise"),
    ("05.5", [SIGNAL.replace("*[1] * (x_t.ndim - 1)", "1"), "return m + a * s**2 / (ab * s**2 + b * b) * (x_t - a * m)"
              ], "serve points"),
]  # fmt: skip
