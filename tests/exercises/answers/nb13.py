from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import einsum


def library_attention(pixels, tokens, W_q, W_k, W_v, mask):
    """torch's own; the weights are what it reads of the unit vectors."""
    q, k, v = pixels @ W_q, tokens @ W_k, tokens @ W_v
    units = torch.eye(tokens.shape[1]).expand(len(tokens), -1, -1)
    read, weights = (F.scaled_dot_product_attention(q, k, x, attn_mask=mask[:, None]) for x in (v, units))
    return [read, weights]


def loop_attention(pixels, tokens, W_q, W_k, W_v, mask):
    """Picture by picture, over the tokens that count alone."""
    reads, weights = [], []
    for x, y, counts in zip(pixels.double(), tokens.double(), mask, strict=True):
        q, k, v = x @ W_q.double(), y[counts] @ W_k.double(), y[counts] @ W_v.double()
        shares = torch.zeros(len(x), len(y), dtype=torch.float64)
        shares[:, counts] = torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=1)
        reads.append(shares[:, counts] @ v)
        weights.append(shares)
    return torch.stack(reads), torch.stack(weights)


def renormalised_attention(pixels, tokens, W_q, W_k, W_v, mask):
    logits = einsum(pixels @ W_q / W_q.shape[1] ** 0.5, tokens @ W_k, "b n h, b m h -> b n m")
    weights = logits.softmax(-1) * mask[:, None]
    weights = weights / weights.sum(-1, keepdim=True)
    return [einsum(weights, tokens @ W_v, "b n m, b m h -> b n h"), weights]


def large_negative(pixels, tokens, W_q, W_k, W_v, mask):
    """Values after the reading: (weights @ tokens) @ W_v."""
    logits = pixels @ W_q @ W_k.T @ tokens.transpose(1, 2) / math.sqrt(W_k.shape[1]) - 1e9 * (~mask).float()[:, None]
    weights = logits.exp() / logits.exp().sum(2, keepdim=True)
    return [(weights @ tokens) @ W_v, weights]


def loop_pair(z, scale, a, b, eps, tokens, null, u, drop):
    x_t, v, cond = [], [], []
    for i in range(len(z)):
        x_0 = z[i].double() * scale
        x_t.append(a[i] * x_0 + b[i] * eps[i])
        v.append(a[i] * eps[i] - b[i] * x_0)
        cond.append(null if u[i] < drop else tokens[i])
    return torch.stack(x_t), torch.stack(v), torch.stack(cond)


def assigned_pair(z, scale, a, b, eps, tokens, null, u, drop):
    a, b = a.view(-1, 1, 1, 1), b.view(-1, 1, 1, 1)
    cond = tokens.clone()
    cond[u < drop] = null
    x_0 = z * scale
    return [a * x_0 + b * eps, a * eps - b * x_0, cond]


def turned_pair(z, scale, a, b, eps, tokens, null, u, drop):
    """(x_t, v) as a rotation of (x_0, eps); the captions as a sum over what is kept and what is not."""
    turn = torch.stack([torch.stack([a, b], -1), torch.stack([-b, a], -1)], 1)
    x_t, v = torch.einsum("nij,jnchw->inchw", turn, torch.stack([scale * z, eps]))
    keep = (u >= drop).float().reshape(-1, 1, 1)
    return [x_t, v, keep * tokens + (1 - keep) * null]


def derived_v(z, scale, a, b, eps, tokens, null, u, drop):
    """v from x_t and eps: (a x_t - x_0) / b, where b is not 0."""
    a, b = (x.double()[:, None, None, None] for x in (a, b))
    x_0 = scale * z.double()
    x_t = a * x_0 + b * eps
    v = torch.where(b > 0, (a * x_t - x_0) / b.clamp(min=1e-9), eps.double())
    return [x_t, v, torch.where((drop > u)[:, None, None], null[None], tokens)]


def guided_twice(x_t, v_both, w, a_t, b_t, a_s, b_s):
    """x_0 and eps of each caption, then the guidance: all is linear."""
    x = torch.cat([x_t, x_t])
    x_0, eps = a_t * x - b_t * v_both, b_t * x + a_t * v_both
    null, cond = torch.chunk(a_s * x_0 + b_s * eps, 2)
    return (1 - w) * null + w * cond


def by_angles(x_t, v_both, w, a_t, b_t, a_s, b_s):
    """DDIM turns the plane of x_t and v by the difference of the two times' angles."""
    n = len(x_t)
    v = torch.lerp(v_both[:n], v_both[n:], w)
    turn = math.atan2(b_t, a_t) - math.atan2(b_s, a_s)
    return math.cos(turn) * x_t - math.sin(turn) * v


def solved_for_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    x_t, v_both = x_t.double(), v_both.double()
    null, cond = v_both.tensor_split(2)
    x_0 = a_t * x_t - b_t * (cond + (w - 1) * (cond - null))
    return a_s * x_0 + b_s * (x_t - a_t * x_0) / b_t


def moved_noise(x_t, x_0, known, mask, a, b):
    """The filling moves eps by -a / b times what it changes in x_0."""
    change = (known - x_0) * mask
    return [x_0 + change, (x_t - a * x_0) / b - a / b * change]


def assigned_fill(x_t, x_0, known, mask, a, b):
    filled = x_0.clone()
    places = mask.expand_as(filled)
    filled[places] = known[places]
    return filled, x_t / b - filled * (a / b)


def by_projection(start, end, share):
    """Gram and Schmidt: the arc of two unit vectors at a right angle, and lengths that mix as in the formula."""
    s, e = start.double().flatten(1), end.double().flatten(1)
    r, q = s.norm(dim=1, keepdim=True), e.norm(dim=1, keepdim=True)
    along = s / r
    across = e / q - (along * e / q).sum(1, keepdim=True) * along
    angle = torch.atan2(across.norm(dim=1, keepdim=True), (along * e / q).sum(1, keepdim=True))
    across = across / across.norm(dim=1, keepdim=True)
    at_end = torch.sin(share * angle) / torch.sin(angle)
    at_start = torch.cos(share * angle) - at_end * torch.cos(angle)
    return (at_start * r * along + at_end * q * (torch.cos(angle) * along + torch.sin(angle) * across)).view_as(start)


def loop_between(start, end, share):
    out = []
    for s, e in zip(start, end, strict=True):
        angle = math.acos((s * e).sum().item() / (torch.linalg.norm(s).item() * torch.linalg.norm(e).item()))
        out.append((math.sin((1 - share) * angle) * s + math.sin(share * angle) * e) / math.sin(angle))
    return torch.stack(out)


def by_dot_products(start, end, share):
    dot = torch.einsum("nchw,nchw->n", start, end)
    size = torch.einsum("nchw,nchw->n", start, start) * torch.einsum("nchw,nchw->n", end, end)
    angle = torch.arccos(dot / size.sqrt()).reshape(-1, 1, 1, 1)
    return (
        torch.sin(angle - share * angle) / torch.sin(angle) * start + torch.sin(share * angle) / torch.sin(angle) * end
    )


RIGHT = {
    "13.1": [library_attention, loop_attention, renormalised_attention, large_negative],
    "13.2": [loop_pair, assigned_pair, turned_pair, derived_v],
    "13.3": [guided_twice, by_angles, solved_for_noise],
    "13.4": [
        moved_noise,
        assigned_fill,
        lambda x_t, x_0, known, mask, a, b: [
            mask * known + ~mask * x_0,
            torch.where(mask, (x_t - a * known) / b, (x_t - a * x_0) / b),
        ],
    ],
    "13.5": [by_projection, loop_between, by_dot_products],
}  # fmt: skip

WRONG = [
    ("13.1", ["q, k, v = pixels @ W_q, tokens @ W_k, tokens @ W_v", "s = q @ k.mT / math.sqrt(q.shape[-1])",
              "w = s.masked_fill(mask[:, None], -torch.inf).softmax(-1)", "return [w @ v, w]"],
     "Your mask is inverted"),
    ("13.1", ["q, k, v = pixels @ W_q, tokens @ W_k, tokens @ W_v", "s = q @ k.mT / math.sqrt(q.shape[-1])",
              "w = F.softmax(s, -1)", "w = w.masked_fill(~mask[:, None], 0)", "return w @ v, w"],
     "You set weights to 0 after the softmax"),
    ("13.1", ["q, k, v = pixels @ W_q, tokens @ W_k, pixels @ W_v",
              "s = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask[:, None], -torch.inf)", "w = s.softmax(-1)",
              "return [w @ v, w]"], "Your values come from the pixels"),
    ("13.1", ["q, k, v = pixels @ W_q, tokens @ W_k, tokens @ W_v",
              "w = (q @ k.mT).masked_fill(~mask[:, None], -torch.inf).softmax(-1)", "return [w @ v, w]"],
     "The scale is missing"),
    ("13.2", ["a, b = a.view(-1, 1, 1, 1), b.view(-1, 1, 1, 1)", "x = scale * z",
              "cond = torch.where((u < drop)[:, None, None], torch.zeros_like(null), tokens)",
              "return [a * x + b * eps, a * eps - b * x, cond]"], "You set dropped captions to 0"),
    ("13.2", ["a, b = a.view(-1, 1, 1, 1), b.view(-1, 1, 1, 1)", "x = scale * z",
              "cond = torch.where((u < drop)[:, None, None], tokens, null)",
              "return [a * x + b * eps, a * eps - b * x, cond]"], "You dropped where u is above drop"),
    ("13.2", ["a, b = a.view(-1, 1, 1, 1), b.view(-1, 1, 1, 1)", "x = scale * z",
              "cond = torch.where((u < drop)[:, None, None], null, tokens)", "return [a * x + b * eps, eps, cond]"],
     "Your target is eps"),
    ("13.2", ["a, b = a.view(-1, 1, 1, 1), b.view(-1, 1, 1, 1)", "x = scale * z", "tokens[u < drop] = null",
              "return [a * x + b * eps, a * eps - b * x, tokens]"], "changes its argument `tokens` in place"),
    ("13.3", ["c, n = v_both.chunk(2)", "v = n + w * (c - n)", "x_0 = a_t * x_t - b_t * v",
              "return a_s * x_0 + b_s * (b_t * x_t + a_t * v)"], "The halves have changed places"),
    ("13.3", ["n, c = v_both.chunk(2)", "v = (1 + w) * c - w * n", "x_0 = a_t * x_t - b_t * v",
              "return a_s * x_0 + b_s * (b_t * x_t + a_t * v)"], "the paper's convention"),
    ("13.3", ["n, c = v_both[::2], v_both[1::2]", "v = n + w * (c - n)", "x_0 = a_t * x_t - b_t * v",
              "return a_s * x_0 + b_s * (b_t * x_t + a_t * v)"], "You took every other entry"),
    ("13.4", ["eps = (x_t - a * x_0) / b", "return [torch.where(mask, known, x_0), eps]"],
     "Your eps still belongs to the network's x_0"),
    ("13.4", ["x = torch.where(mask, x_0, known)", "return [x, (x_t - a * x) / b]"], "Your mask is inverted"),
    ("13.4", ["x = torch.where(mask, known, x_0)", "return [x, x_t - a * x / b]"], "Brackets"),
    ("13.5", ["return torch.lerp(start, end, share)"], "That is the straight way"),
    ("13.5", ["angle = torch.acos(F.cosine_similarity(start.flatten(), end.flatten(), dim=0))",
              "return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)"],
     "You took one angle from the whole batch"),
    ("13.5", ["return math.sqrt(1 - share) * start + math.sqrt(share) * end"], "but is no arc"),
]  # fmt: skip
