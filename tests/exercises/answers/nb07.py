from __future__ import annotations

import math

import numpy as np
import torch

from answers import column
from ddpm_edu.exercises.nb07 import CAUSES


def loop_x_0(x_t, t, eps, alpha_bar):
    a = alpha_bar[t].sqrt().tolist()
    return torch.stack([x / k - math.sqrt(1 / k**2 - 1) * e for x, k, e in zip(x_t, a, eps, strict=True)])


def loop_last_noise(t, eps, beta, alpha_bar):
    return torch.stack([beta[s] * (1 - alpha_bar[s]) ** -0.5 * e for s, e in zip(t, eps, strict=True)])


def loop_simple_loss(eps, eps_pred):
    total = 0.0
    for a, b in zip(eps.flatten().tolist(), eps_pred.flatten().tolist(), strict=True):
        total += (a - b) ** 2
    return total / eps.numel()


def loop_ema(ema, params, decay):
    out = []
    for i in reversed(range(len(ema))):
        out.insert(0, ema[i].double() - (1 - decay) * (ema[i].double() - params[i].double()))
    return tuple(out)


def long_diagnose(symptom):
    if symptom == "A":
        return CAUSES["A"]
    return CAUSES["B"] if symptom == "B" else CAUSES["C"]


RIGHT = {
    "07.1": [
        loop_x_0,
        lambda x_t, t, eps, alpha_bar: (
            (x_t - column((1 - alpha_bar[t].double()).sqrt().tolist(), eps) * eps)
            / column(alpha_bar[t].double().sqrt().tolist(), eps)
        ),
    ],
    "07.2": [
        loop_last_noise,
        lambda t, eps, beta, alpha_bar: torch.einsum(
            "b,b...->b...", beta[t].double() / (1 - alpha_bar[t].double()) ** 0.5, eps.double()
        ),
    ],
    "07.3": [
        loop_simple_loss,
        lambda eps, eps_pred: (eps_pred - eps).pow(2).flatten(1).mean(1).mean(),
        lambda eps, eps_pred: torch.nn.functional.mse_loss(eps_pred, eps),
        lambda eps, eps_pred: np.float32(((eps - eps_pred).double().numpy() ** 2).mean()),
    ],
    "07.4": [
        lambda t, beta, alpha_bar: torch.tensor([beta[s] / (2 * (1 - beta[s]) * (1 - alpha_bar[s])) for s in t]),
        lambda t, beta, alpha_bar: 0.5 * beta.double()[t] / (1 - beta.double()[t]) / (1 - alpha_bar.double()[t]),
    ],
    "07.5": [loop_ema, lambda ema, params, decay: [torch.lerp(p, e, decay) for e, p in zip(ema, params, strict=True)]],
    "07.6": [long_diagnose],
}  # fmt: skip

WRONG = [
    ("07.2", ["return (beta[t] / (1 - alpha_bar[t]).sqrt())[:, None] * eps"], "(b, 1, 1, 1) for images"),
    ("07.2", ["return (beta[t] / (1 - alpha_bar).sqrt())[:, None] * eps"], "pick with `alpha_bar[t]`"),
    ("07.3", ["return 3 * ((eps - eps_pred) ** 2).mean()"], "Your result is 3 times what it should be"),
]  # fmt: skip
