from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from torch.distributions import Normal


def loop_drop(labels, u, p, null):
    return torch.tensor([null if at < p else label for label, at in zip(labels.tolist(), u.tolist(), strict=True)])


def written_into_a_copy(labels, u, p, null):
    out = labels.clone()
    out[u < p] = null
    return out


def by_whole_numbers(labels, u, p, null):
    drop = (u < p).long()
    return labels * (1 - drop) + null * drop


def beyond_cond(eps_cond, eps_null, w):
    return eps_cond + (w - 1) * (eps_cond - eps_null)


def loop_guide(eps_cond, eps_null, w):
    pairs = zip(eps_cond.flatten().tolist(), eps_null.flatten().tolist(), strict=True)
    return torch.tensor([n + w * (c - n) for c, n in pairs]).reshape(eps_cond.shape)


def one_sum(eps_cond, eps_null, w):
    weights = torch.tensor([w, 1 - w], dtype=torch.float64)
    return torch.einsum("k,k...->...", weights, torch.stack([eps_cond, eps_null]).double())


def without_fractions(mean_c, var_c, mean, var, w):
    share = w * var / (w * var + (1 - w) * var_c)
    return mean + share * (mean_c - mean), var_c * var / (w * var + (1 - w) * var_c)


def from_three_points(mean_c, var_c, mean, var, w):
    """A quadratic function is known by its values at -1, 0 and 1."""
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    given, whole = (Normal(m.double(), v.double().sqrt()) for m, v in ((mean_c, var_c), (mean, var)))
    low, mid, high = w * given.log_prob(x) + (1 - w) * whole.log_prob(x)
    precision = 2 * mid - low - high
    return [(high - low) / 2 / precision, 1 / precision]


def loop_sharpened(mean_c, var_c, mean, var, w):
    out = []
    for m_c, v_c, m, v in zip(*(x.tolist() for x in (mean_c, var_c, mean, var)), strict=True):
        precision = w / v_c + (1 - w) / v
        out.append([(w * m_c / v_c + (1 - w) * m / v) / precision, 1 / precision])
    return list(torch.tensor(out).T)


def by_gradient(mean_c, var_c, mean, var, w):
    """The score at 0 is mean / variance, and its slope is -1 / variance."""
    x = torch.zeros_like(mean).requires_grad_()
    with torch.enable_grad():
        log = -(w * (x - mean_c) ** 2 / var_c + (1 - w) * (x - mean) ** 2 / var) / 2
        (score,) = torch.autograd.grad(log.sum(), x, create_graph=True)
        (slope,) = torch.autograd.grad(score.sum(), x)
    return [-score / slope, -1 / slope]


def loop_read(errors):
    draws, b, k = errors.shape
    totals = [[sum(errors[i, j, c].item() for i in range(draws)) for c in range(k)] for j in range(b)]
    return torch.tensor([row.index(min(row)) for row in totals])


def by_sorting(errors):
    return reduce(errors.double(), "i j c -> j c", "mean").sort(dim=1).indices[:, 0]


def by_probability(errors):
    return F.softmax(-errors.sum(0), dim=-1).argmax(-1)


RIGHT = {
    "10.1": [
        loop_drop,
        written_into_a_copy,
        by_whole_numbers,
        lambda labels, u, p, null: labels.masked_fill(u < p, null),
        lambda labels, u, p, null: torch.where(u >= p, labels, torch.full_like(labels, null)),
    ],
    "10.2": [
        beyond_cond,
        loop_guide,
        one_sum,
        lambda eps_cond, eps_null, w: torch.lerp(eps_null, eps_cond, w),
        lambda eps_cond, eps_null, w: w * eps_cond - (w - 1) * eps_null,
    ],
    "10.3": [without_fractions, from_three_points, loop_sharpened, by_gradient],
    "10.4": [
        loop_read,
        by_sorting,
        by_probability,
        lambda errors: errors.permute(1, 2, 0).mean(-1).min(dim=-1).indices,
        lambda errors: (errors - errors.amin(2, keepdim=True)).sum(0).argmin(1),
    ],
}  # fmt: skip

WRONG = [
    ("10.1", ["return torch.where(u > p, null, labels)"], "with probability 1 - p"),
    ("10.1", ["labels[u < p] = null", "return labels"], "into labels itself"),
    ("10.1", ["return labels if u[0] > p else torch.full_like(labels, null)"], "for the whole batch"),
    ("10.1", ["return labels * (u >= p)"], "You put 0 in place of null"),
    ("10.1", ["return torch.where(u < p, torch.tensor(float(null)), labels)"], "You returned floats"),
    ("10.1", ["return torch.where(torch.rand(len(labels)) < p, null, labels)"], "draw nothing in it"),
    ("10.2", ["return (1 + w) * eps_cond - w * eps_null"], "the convention of the paper"),
    ("10.2", ["return eps_cond + w * (eps_cond - eps_null)"], "the convention of the paper"),
    ("10.2", ["return (1 - w) * eps_cond + w * eps_null"], "have changed places"),
    ("10.2", ["return eps_null + w * eps_cond - eps_null"], "Brackets"),
    ("10.2", ["eps_null += w * (eps_cond - eps_null)", "return eps_null"], "changes its argument `eps_null` in place"),
    ("10.3", ["var_w = 1 / (w / var_c + (1 - w) / var)", "return [w * mean_c + (1 - w) * mean, var_w]"],
     "You weighted the means by w and 1 - w alone"),
    ("10.3", ["return [w * mean_c + (1 - w) * mean, w * var_c + (1 - w) * var]"], "You mixed means and variances"),
    ("10.3", ["a, b = w / var_c, (1 - w) / var", "return [(a * mean_c + b * mean) / (a + b), a + b]"],
     "Your second result is the precision"),
    ("10.3", ["a, b = w / var_c**2, (1 - w) / var**2",
              "return [(a * mean_c + b * mean) / (a + b), (1 / (a + b)).sqrt()]"], "returned a deviation"),
    ("10.3", ["a, b = (1 + w) / var_c, -w / var", "return [(a * mean_c + b * mean) / (a + b), 1 / (a + b)]"],
     "those of the paper's convention"),
    ("10.4", ["return errors.mean(0).argmax(1)"], "the class of the largest error"),
    ("10.4", ["return errors.mean(0).argmin(0)"], "a picture for each class"),
    ("10.4", ["return errors.mean(0).min(1).values"], "argmin, not min"),
    ("10.4", ["return errors.argmin(-1).mode(0).values"], "You let each draw vote"),
    ("10.4", ["return errors.mean(0).argmin()"], "You returned"),
]  # fmt: skip
