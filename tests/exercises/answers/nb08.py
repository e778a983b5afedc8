from __future__ import annotations

import math

import torch

from answers import column


def step_by_way_of_x_0(x_t, eps, t, z, beta, alpha_bar):
    """The mean of eq. 7, in float64."""
    a, x_t, eps = alpha_bar.double(), x_t.double(), eps.double()
    x_0 = x_t / a[t].sqrt() - (1 / a[t] - 1).sqrt() * eps
    gain = (1 - a[t - 1]) / (1 - a[t])
    mean = a[t - 1].sqrt() * (1 - gain * a[t] / a[t - 1]) * x_0 + (a[t] / a[t - 1]).sqrt() * gain * x_t
    return mean + (0 if t == 1 else math.sqrt(beta[t])) * z


def loop_step(x_t, eps, t, z, beta, alpha_bar):
    alpha, rows = float(1 - beta[t]), []
    for x, e, n in zip(x_t, eps, z, strict=True):
        row = alpha**-0.5 * x - (1 - alpha) / math.sqrt(alpha * (1 - float(alpha_bar[t]))) * e
        if t != 1:
            row += math.sqrt(1 - alpha) * n
        rows.append(row)
    return torch.stack(rows)


def ddim_by_ratios(x_t, eps, t, s, z, eta, alpha_bar):
    """In float64, without x_0: x_t rescaled, and what then is missing of eps."""
    now, then = alpha_bar[t].double(), alpha_bar[s].double()
    sigma = eta * torch.sqrt((1 - then) / (1 - now)) * torch.sqrt(1 - now / then)
    left = torch.sqrt(torch.clamp(1 - then - sigma**2, min=0))
    return (then / now) ** 0.5 * x_t + (left - (then / now * (1 - now)) ** 0.5) * eps + sigma * z


def ddim_in_numbers(x_t, eps, t, s, z, eta, alpha_bar):
    now, then = float(alpha_bar[t]), float(alpha_bar[s])
    sigma = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    out = torch.zeros_like(x_t)
    for i in range(len(x_t)):
        x_0 = (x_t[i] - math.sqrt(1 - now) * eps[i]) / math.sqrt(now)
        out[i] = math.sqrt(then) * x_0 + math.sqrt(max(1 - then - sigma * sigma, 0.0)) * eps[i] + sigma * z[i]
    return out


def chain_in_one_scale(predict_eps, x_T, beta, alpha_bar, z):
    """In y = x / sqrt(alpha_bar), where a step subtracts and adds, and nothing is rescaled. In float64."""
    a = alpha_bar.double()
    y, t = x_T / a[-1].sqrt(), len(beta) - 1
    while t > 0:
        ones = torch.ones(x_T.shape[0], dtype=torch.long)
        eps = predict_eps(y * a[t].sqrt(), t * ones)
        y = y - beta[t] / ((1 - a[t]) * a[t]).sqrt() * eps
        t -= 1
        if t:
            y = y + (beta[t + 1] / a[t]).sqrt() * z[t + 1]
    return y


def recursive_chain(predict_eps, x_T, beta, alpha_bar, z):
    def go(x, t):
        if t == 0:
            return x
        eps = predict_eps(x, torch.tensor([t] * len(x)))
        return go(loop_step(x, eps, t, z[t], beta, alpha_bar), t - 1)

    return go(x_T, beta.numel() - 1)


def zero_based_chain(predict_eps, x_T, beta, alpha_bar, z):
    """Published code's index: 0..T - 1, tables without their first entry."""
    b, a_bar, x = beta[1:], alpha_bar[1:], x_T
    for i in reversed(range(len(b))):
        eps = predict_eps(x, torch.full((x.shape[0],), i + 1, dtype=torch.int64))
        x = (x - b[i] / (1 - a_bar[i]) ** 0.5 * eps) / (1 - b[i]) ** 0.5 + (i > 0) * b[i] ** 0.5 * z[i + 1]
    return x


def loop_langevin(x, score, step, z):
    return torch.stack([a + 0.5 * step * b + math.sqrt(step) * c for a, b, c in zip(x, score, z, strict=True)])


def guided_by_scores(eps, gradient, t, scale, alpha_bar):
    b = column((1 - alpha_bar[t].double()).sqrt().tolist(), eps)
    return -b * (-eps / b + scale * gradient)


def loop_guided(eps, gradient, t, scale, alpha_bar):
    rows = zip(eps, gradient, t.tolist(), strict=True)
    return torch.stack([e - scale * math.sqrt(1 - alpha_bar[s]) * g for e, g, s in rows])


RIGHT = {
    "08.1": [step_by_way_of_x_0, loop_step],
    "08.2": [ddim_by_ratios, ddim_in_numbers],
    "08.3": [chain_in_one_scale, recursive_chain, zero_based_chain],
    "08.4": [
        loop_langevin,
        lambda x, score, step, z: torch.add(x.double(), score, alpha=step / 2).add(z, alpha=step**0.5),
    ],
    "08.5": [guided_by_scores, loop_guided],
}  # fmt: skip

WRONG = [
    ("08.1", ["mean = (x_t - beta[t] / torch.sqrt(1 - alpha_bar[t]) * eps) / torch.sqrt(1 - beta[t])",
              "noise = z if t > 0 else torch.zeros_like(z)",
              "return mean + torch.sqrt(beta[t]) * noise"], "You add noise at t = 1, too"),
    ("08.1", ["alpha = 1 - beta[t]",
              "mean = 1 / alpha**0.5 * x_t - (1 - alpha) / (1 - alpha_bar[t])**0.5 * eps",
              "return mean + beta[t]**0.5 * z if t > 1 else mean"], "You divided x_t alone by sqrt(alpha_t)"),
    ("08.1", ["mean = (x_t - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()",
              "return mean + beta[t] * z"], "multiplied z by beta_t"),
    ("08.1", ["mean = (x_t - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()",
              "return mean + (beta[t].sqrt() * torch.randn_like(x_t) if t > 1 else 0)"], "draw nothing in it"),
    ("08.1", ["return (x_t - beta / (1 - alpha_bar).sqrt() * eps) / (1 - beta).sqrt()"], "pick with `beta[t]`"),
    ("08.1", ["mean = x_t - beta[t] / (1 - alpha_bar[t])**0.5 * eps / (1 - beta[t])**0.5",
              "return mean + beta[t]**0.5 * z if t > 1 else mean"], "divided eps's share alone"),
    ("08.1", ["mean = (x_t - beta[t] / (1 - alpha_bar[t])**0.5 * eps) / (1 - beta[t])**0.5",
              "return mean + beta[t]**0.5 * z if t < len(beta) - 1 else mean"], "out of the first step"),
    ("08.2", ["x_0 = (x_t - (1 - alpha_bar[t])**0.5 * eps) / alpha_bar[t]**0.5",
              "return alpha_bar[s]**0.5 * x_0 + (1 - alpha_bar[s])**0.5 * eps"], "eta changes nothing"),
    ("08.2", ["x_0 = (x_t - (1 - alpha_bar[t])**0.5 * eps) / alpha_bar[t]**0.5",
              "noise = (1 - eta) * eps + eta * z",
              "return alpha_bar[s]**0.5 * x_0 + (1 - alpha_bar[s])**0.5 * noise"], "as 1 - eta and eta"),
    ("08.2", ["x_0 = (x_t - (1 - alpha_bar[t])**0.5 * eps) / alpha_bar[t]**0.5",
              "sigma = eta * ((1 - alpha_bar[s]) / (1 - alpha_bar[t]) * (1 - alpha_bar[t] / alpha_bar[s]))**0.5",
              "return alpha_bar[s]**0.5 * x_0 + (1 - alpha_bar[s])**0.5 * eps + sigma * z"], "not taken off"),
    ("08.2", ["x_0 = (x_t - (1 - alpha_bar[t])**0.5 * eps) / alpha_bar[t]**0.5",
              "sigma = eta * (1 - alpha_bar[t] / alpha_bar[s])**0.5",
              "return alpha_bar[s]**0.5 * x_0 + (1 - alpha_bar[s] - sigma**2)**0.5 * eps + sigma * z"],
     "the first root is missing"),
    ("08.3", ["x = x_T",
              "for t in reversed(range(len(beta))):",
              "    eps = predict_eps(x, torch.full((x.shape[0],), t))",
              "    x = (x - beta[t] / (1 - alpha_bar[t])**0.5 * eps) / (1 - beta[t])**0.5",
              "    x = x + beta[t]**0.5 * z[t] if t > 1 else x",
              "return x"], "Index 0 is read"),
    ("08.3", ["x, T = x_T, len(beta) - 1",
              "for t in range(T, 0, -1):",
              "    eps = predict_eps(x, t)",
              "    x = (x - beta[t] / (1 - alpha_bar[t])**0.5 * eps) / (1 - beta[t])**0.5",
              "return x"], "one integer for each sample"),
    ("08.3", ["x, T = x_T, len(beta) - 1",
              "for t in range(T, 0, -1):",
              "    eps = predict_eps(x, torch.full((len(x),), t))",
              "    x = (x - beta[t] / (1 - alpha_bar[t])**0.5 * eps) / (1 - beta[t])**0.5",
              "    x = x + beta[t]**0.5 * (z[t] if t > 1 else 0)",
              "    return x"], "your return stands inside the loop"),
    ("08.3", ["x, T = x_T, len(beta) - 1",
              "for t in range(T, 0, -1):",
              "    eps = predict_eps(x, torch.full((len(x),), t))",
              "    x = (x - beta[t] / (1 - alpha_bar[t])**0.5 * eps) / (1 - beta[t])**0.5",
              "    if t > 1: x = x + beta[t]**0.5 * torch.rand_like(x)",
              "return x"], "draw nothing in it"),
    ("08.3", ["x = x_T",
              "for t in range(len(beta) - 1, 0, -1):",
              "    eps = predict_eps(x, torch.full((len(x_T),), t))",
              "    x = (x - beta[t] / (1 - alpha_bar[t])**0.5 * eps) / (1 - beta[t])**0.5 + beta[t]**0.5 * z",
              "return x"], "You added the whole of z"),
    ("08.3", ["x = x_T",
              "for t in range(len(beta) - 1, 0, -1):",
              "    eps = predict_eps(x, torch.full((len(x),), t))",
              "    x_0 = ((x - (1 - alpha_bar[t])**0.5 * eps) / alpha_bar[t]**0.5).clamp(-1, 1)",
              "    old = (1 - beta[t])**0.5 * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * x",
              "    x = alpha_bar[t - 1]**0.5 * beta[t] / (1 - alpha_bar[t]) * x_0 + old",
              "    x = x + beta[t]**0.5 * z[t] if t > 1 else x",
              "return x"], "clamped the predicted x_0"),
    ("08.4", ["return x + step * score + np.sqrt(2 * step) * z"], "That is the other convention"),
    ("08.4", ["return x + 0.5 * step * (score + z)"], "You multiplied z by step / 2"),
    ("08.5", ["return eps + scale * (1 - alpha_bar[t]).sqrt().view(-1, *[1] * (eps.ndim - 1)) * gradient"],
     "drives the chain away"),
    ("08.5", ["return eps - scale * (1 - alpha_bar[t])[:, None] ** 0.5 * gradient"], "(b, 1, 1, 1)"),
]  # fmt: skip
