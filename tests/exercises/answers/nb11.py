from __future__ import annotations

import math
import re

import numpy as np
import torch
import torch.nn.functional as F


def stack_merge(tokens, pair, new):
    """Each token meets the one that came out last."""
    out = []
    for token in tokens:
        if out and [out[-1], token] == list(pair):
            out[-1] = new
        else:
            out.append(token)
    return out


def text_merge(tokens, pair, new):
    """With the limits of a word around the pair, as Sennrich and others print it."""
    text = re.sub(rf"(?<!\S){pair[0]} {pair[1]}(?!\S)", str(new), " ".join(map(str, tokens)))
    return tuple(int(word) for word in text.split())


def recursive_merge(tokens, pair, new):
    match tokens:
        case [a, b, *rest] if (a, b) == tuple(pair):
            return [new, *recursive_merge(rest, pair, new)]
        case [a, *rest]:
            return [a, *recursive_merge(rest, pair, new)]
    return []


def marked_merge(tokens, pair, new):
    """In a copy, from the left, with None for what is to go."""
    out = list(tokens)
    for i in range(len(out) - 1):
        if out[i] == pair[0] and out[i + 1] == pair[1]:
            out[i], out[i + 1] = None, new
    return [token for token in out if token is not None]


def loop_attention(q, k, v):
    b, n, d = q.shape
    y = torch.zeros(b, n, d)
    for i in range(n):
        logits = torch.einsum("bd,bjd->bj", q[:, i], k[:, : i + 1]) / d**0.5
        y[:, i] = torch.einsum("bj,bjd->bd", logits.softmax(1), v[:, : i + 1])
    return y


def divided_attention(q, k, v):
    """Masked after exp, then divided by what is left."""
    weights = (q.double() @ k.double().transpose(1, 2) / q.size(-1) ** 0.5).exp().tril()
    return (weights / weights.sum(-1, keepdim=True)) @ v.double()


def added_attention(q, k, v):
    n = q.shape[1]
    above = torch.full((n, n), -math.inf).triu(1)
    return torch.softmax(q / math.sqrt(math.sqrt(q.shape[2])) @ k.mT / q.shape[2] ** 0.25 + above, 2) @ v


def loop_end(states, tokens, end):
    return torch.stack([state[row.tolist().index(end)] for state, row in zip(states, tokens, strict=True)])


def counted_end(states, tokens, end):
    """As the package has it: cumsum finds the places up to the first end."""
    ends = (tokens == end).int()
    last = (ends.cumsum(1) - ends == 0).sum(1) - 1
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


def one_hot_end(states, tokens, end):
    ends = (tokens == end).long()
    first = ends * (ends.cumsum(1) == 1)
    return torch.einsum("bn,bnd->bd", first.to(states.dtype), states)


def written_out_contrastive(image, text, scale):
    image, text = (x.double() / x.double().norm(dim=-1, keepdim=True) for x in (image, text))
    logits = scale * torch.einsum("id,jd->ij", image, text)
    by_picture, by_caption = logits.logsumexp(1) - logits.diag(), logits.logsumexp(0) - logits.diag()
    return (by_picture + by_caption).mean() / 2


def loop_contrastive(image, text, scale):
    b, total = len(image), 0.0
    p = [[math.exp(scale * float(F.cosine_similarity(x, y, dim=0))) for y in text] for x in image]
    for i in range(b):
        total -= math.log(p[i][i] / sum(p[i])) + math.log(p[i][i] / sum(row[i] for row in p))
    return total / (2 * b)


def transposed_contrastive(image, text, scale):
    cosines = torch.cosine_similarity(text[:, None], image[None], dim=2)
    eye = torch.eye(len(text))
    return 0.5 * (F.cross_entropy(scale * cosines, eye) + F.cross_entropy(scale * cosines.T, eye))


def where_without(logits, also):
    b = len(logits)
    keep = ~also | torch.eye(b).bool()
    logits = torch.where(keep, logits, torch.tensor(-1e9))
    return -(logits.log_softmax(0).diag().mean() + logits.log_softmax(1).diag().mean()) / 2


def summed_without(logits, also):
    keep = (~also).double()
    keep.fill_diagonal_(1)
    e = logits.double().exp() * keep
    return -0.5 * ((e.diag() / e.sum(1)).log() + (e.diag() / e.sum(0)).log()).mean()


def loop_without(logits, also):
    b, total = len(logits), 0.0
    for i in range(b):
        row = [logits[i, j].item() for j in range(b) if j == i or not also[i, j]]
        column = [logits[j, i].item() for j in range(b) if j == i or not also[j, i]]
        for answers in (row, column):
            total += math.log(sum(math.exp(x) for x in answers)) - logits[i, i].item()
    return torch.tensor(total / (2 * b))


def loop_score(image, text, w):
    scores = []
    for x, y in zip(image.double(), text.double(), strict=True):
        scores.append(max(0.0, w * float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))))
    return torch.tensor(scores)


RIGHT = {
    "11.1": [stack_merge, text_merge, recursive_merge, marked_merge],
    "11.2": [
        loop_attention,
        divided_attention,
        added_attention,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    ],
    "11.3": [
        loop_end,
        counted_end,
        one_hot_end,
        lambda states, tokens, end: states[np.arange(len(tokens)), (tokens.numpy() != end).argmin(1)],
    ],
    "11.4": [written_out_contrastive, loop_contrastive, transposed_contrastive],
    "11.5": [where_without, summed_without, loop_without],
    "11.6": [
        loop_score,
        lambda image, text, w: w * F.relu((F.normalize(image) @ F.normalize(text).T).diag()),
        lambda image, text, w: torch.einsum(
            "bd,bd->b", image / image.norm(dim=1)[:, None], w * text / text.norm(dim=1)[:, None]
        ).clamp(min=0),
    ],
}  # fmt: skip

WRONG = [
    ("11.1", ["out, i = [], 0", "while i < len(tokens):", "    if (tokens[i], tokens[i + 1]) == tuple(pair):",
              "        out.append(new)", "        i += 2", "    else:", "        out.append(tokens[i])",
              "        i += 1", "return out"], "You looked at tokens[i + 1] where i is the last"),
    ("11.1", ["out = []", "for i in range(len(tokens)):", "    if tokens[i:i + 2] == pair:", "        out.append(new)",
              "        i += 1", "    else:", "        out.append(tokens[i])", "return out"],
     "in a for loop i += 2 does not do that"),
    ("11.1", ["s = ' '.join(str(t) for t in tokens)", "s = s.replace(' '.join(str(t) for t in pair), str(new))",
              "return [int(t) for t in s.split()]"], "You replaced in a text of digits"),
    ("11.1", ["i = 0", "while i < len(tokens):", "    if tokens[i:i + 2] == pair:", "        tokens[i:i + 2] = [new]",
              "    i += 1", "return tokens"], "you changed the list you were given"),
    ("11.1", ["t = torch.tensor(tokens)", "hit = (t[:-1] == pair[0]) & (t[1:] == pair[1])", "t[:-1][hit] = new",
              "return t[~torch.cat([torch.tensor([False]), hit])].tolist()"], "You merged a whole run of equal tokens"),
    ("11.2", ["return F.scaled_dot_product_attention(q, k, v)"], "The mask is missing"),
    ("11.2", ["a = (q @ k.mT / math.sqrt(q.shape[-1])).tril()", "return a.softmax(-1) @ v"],
     "You put 0 for the hidden logits"),
    ("11.2", ["n = q.shape[1]", "m = torch.ones(n, n).triu() * -1e9",
              "return (q @ k.mT / math.sqrt(q.shape[-1]) + m).softmax(-1) @ v"], "You hide each token from itself"),
    ("11.2", ["return (q @ k / math.sqrt(q.shape[-1])).softmax(-1) @ v"], "k is not transposed"),
    ("11.3", ["return states[torch.arange(len(states)), tokens.argmax(dim=-1)]"], "You took the largest token"),
    ("11.3", ["i = (tokens == end).nonzero()[:, 1]", "return states[torch.arange(len(states)), i]"],
     "lists every end, the filling too"),
    ("11.3", ["i = (tokens == 257).int().argmax(1)", "return states[torch.arange(len(states)), i]"],
     "You compared with 257"),
    ("11.3", ["i = (tokens != end).sum(1)", "return states[torch.arange(len(states)), i - 1]"],
     "You took the last word"),
    ("11.3", ["i = (tokens == end).argmax(1)", "return states[torch.arange(len(states)), i]"],
     "argmax(): does not support bool"),
    ("11.4", ["image, text = image / image.norm(dim=0), text / text.norm(dim=0)", "y = torch.arange(len(image))",
              "s = image @ text.T * scale", "return (F.cross_entropy(s, y) + F.cross_entropy(s.T, y)) / 2"],
     "You normalised down the columns"),
    ("11.4", ["image, text = F.normalize(image * scale), F.normalize(text * scale)", "s = image @ text.T",
              "y = torch.arange(len(s))", "return (F.cross_entropy(s, y) + F.cross_entropy(s.T, y)) / 2"],
     "You left scale out"),
    ("11.4", ["s = scale * F.normalize(image) @ F.normalize(text).T", "p = s.exp() / s.exp().sum()",
              "return -p.diag().log().mean()"], "You took the softmax over all b^2 pairs"),
    ("11.4", ["return -(scale * F.cosine_similarity(image, text)).mean()"], "The wrong pairs are missing"),
    ("11.5", ["y = torch.arange(len(logits))", "s = logits.masked_fill(also, -1e9)",
              "return (F.cross_entropy(s, y) + F.cross_entropy(s.T, y)) / 2"], "You left out own pairs as well"),
    ("11.5", ["y = torch.arange(len(logits))", "also.fill_diagonal_(False)", "s = logits.masked_fill(also, -math.inf)",
              "return (F.cross_entropy(s, y) + F.cross_entropy(s.T, y)) / 2"], "fill_diagonal_ works in place"),
    ("11.5", ["m = also & ~torch.eye(len(also)).bool()", "p = logits.softmax(1).masked_fill(m, 0).diag()",
              "r = logits.softmax(0).masked_fill(m, 0).diag()", "return -(p.log() + r.log()).mean() / 2"],
     "The twins still count"),
    ("11.5", ["y, m = torch.arange(len(logits)), also & ~torch.eye(len(also)).bool()",
              "s, r = logits.masked_fill(m, -math.inf), logits.T.masked_fill(m, -math.inf)",
              "return (F.cross_entropy(s, y) + F.cross_entropy(r, y)) / 2"], "you turned the logits, but not the mask"),
    ("11.6", ["return w * F.cosine_similarity(image, text)"], "The max is missing"),
    ("11.6", ["return w * (F.normalize(image) @ F.normalize(text).T).clamp(min=0)"],
     "every picture with every caption"),
    ("11.6", ["return 2.5 * F.cosine_similarity(image, text).clamp(min=0)"], "the paper's value"),
    ("11.6", ["return (w * F.cosine_similarity(image, text).clamp(min=0)).mean()"], "You returned the mean"),
]  # fmt: skip
