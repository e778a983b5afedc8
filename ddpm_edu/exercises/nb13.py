"""Notebook 13, text to image: latent diffusion that reads a sentence (Rombach et al. 2022), with classifier-free
guidance (Ho and Salimans 2022). C24 and C25 are claims of the course; the papers are named where an equation is theirs.

Symbols: z (n, c, h, w) are latents as the encoder gives them, x_0 = scale z is what diffusion works on, and
x_t = a x_0 + b eps, a^2 + b^2 = 1, is x_0 noised at time t. v = a eps - b x_0 is what the network predicts (Salimans
and Ho 2022). tokens (n, m, d) are the text encoder's vectors, m for each caption.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

# 13.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "13.1",
    title="Pixels read words",
    hints=(
        "The pixels ask, the tokens answer: q = pixels @ W_q, but k = tokens @ W_k and v = tokens @ W_v.",
        "q @ k.mT holds q_i . k_j of pixel i and token j, (b, n, m). Divide by sqrt(h), h the width of q and k.",
        "Hide before the softmax: logits.masked_fill(~mask[:, None, :], -math.inf). Then softmax(dim=-1): over the "
        "tokens.",
    ),
)
def cross_attention(
    pixels: Tensor, tokens: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, mask: Tensor
) -> list[Tensor]:
    """Compute what each pixel reads of the sentence, by one head of cross-attention: softmax(q k^T / sqrt(h)) v.

    Vaswani et al. 2017, eq. 1; Rombach et al. 2022, section 3.3: the queries q come from the pixels, the keys k and the
    values v from the tokens. Tokens that do not count (padding) get weight 0, and the others' weights add up to 1.

    pixels: (b, n, c), n pixels of b pictures.
    tokens: (b, m, d), the m tokens of each picture's caption.
    W_q, W_k, W_v: (c, h), (d, h), (d, h), the weights that make q, k and v, each as x @ W.
    mask: (b, m), bool, True where a token counts; one at least in each caption.
    Returns [what each pixel reads (b, n, h), the weights (b, n, m)].
    """
    q, k, v = pixels @ W_q, tokens @ W_k, tokens @ W_v
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    weights = logits.masked_fill(~mask[:, None, :], -math.inf).softmax(dim=-1)
    return [weights @ v, weights]


def reading(rng: torch.Generator, b: int, n: int, m: int, c: int, d: int, h: int) -> tuple[Tensor, ...]:
    """Arguments of `cross_attention`: logits of deviation about 1.5; of each caption 2 tokens or more count, one or
    more does not."""
    weights = [1.2 * normal(rng, width, h) / width**0.5 for width in (c, d, d)]
    return normal(rng, b, n, c), normal(rng, b, m, d), *weights, counted(rng, b, m)


def counted(rng: torch.Generator, b: int, m: int) -> Tensor:
    """A mask (b, m): True at 2 to m - 1 random places of each row, of each row another number where that can be."""
    place = torch.stack([torch.randperm(m, generator=rng) for _ in range(b)])
    how_many = 2 + (torch.arange(b) + torch.randint(m, (1,), generator=rng)) % (m - 2)
    return place < how_many[:, None]


@cross_attention.check
def test_cross_attention_matches_the_formula(student, rng):
    """what is read and the weights agree with the formula, for several sizes, each caption with its own mask"""
    for sizes in ((3, 4, 4, 4, 4, 4), (2, 6, 5, 3, 4, 7), (1, 3, 6, 5, 2, 8)):
        args = reading(rng, *sizes)
        agree(student.cross_attention(*args), cross_attention(*args))


@cross_attention.check
def test_cross_attention_weights_add_up(student, rng):
    """each pixel's weights are 0 or more, add up to 1, and are 0 where a token does not count"""
    args = reading(rng, 2, 5, 7, 3, 4, 6)
    _, weights = student.cross_attention(*args)
    agree(weights.sum(-1), torch.ones(2, 5))
    assert (weights >= 0).all()
    assert (weights.mT[~args[-1]] == 0).all()


@cross_attention.check
def test_cross_attention_ignores_padding(student, rng):
    """other vectors at tokens that do not count, or more such tokens, change nothing"""
    pixels, tokens, *W, mask = reading(rng, 2, 5, 6, 3, 4, 6)
    read, weights = student.cross_attention(pixels, tokens, *W, mask)
    changed = torch.where(mask[..., None], tokens, 3 * normal(rng, 2, 6, 4))
    agree(student.cross_attention(pixels, changed, *W, mask), [read, weights])
    longer, hidden = torch.cat([tokens, normal(rng, 2, 3, 4)], 1), torch.zeros(2, 3, dtype=torch.bool)
    agree(student.cross_attention(pixels, longer, *W, torch.cat([mask, hidden], 1))[0], read)


@cross_attention.check
def test_cross_attention_has_no_order(student, rng):
    """a permutation of the tokens permutes the weights, and leaves what is read; one of the pixels permutes both"""
    pixels, tokens, *W, mask = reading(rng, 2, 5, 6, 3, 4, 6)
    read, weights = student.cross_attention(pixels, tokens, *W, mask)
    i, j = torch.randperm(5, generator=rng), torch.randperm(6, generator=rng)
    got = student.cross_attention(pixels[:, i], tokens[:, j], *W, mask[:, j])
    agree(got, [read[:, i], weights[:, i][:, :, j]])


@cross_attention.check
def test_cross_attention_one_word(student, rng):
    """where one token alone counts, every pixel reads that token's value"""
    pixels, tokens, *W, _ = reading(rng, 3, 4, 5, 3, 2, 6)
    only = torch.randint(5, (3,), generator=rng)
    mask = F.one_hot(only, 5).bool()
    value = tokens[torch.arange(3), only] @ W[2]
    agree(student.cross_attention(pixels, tokens, *W, mask)[0], value[:, None].expand(3, 4, 6))


def _logits(pixels, tokens, W_q, W_k) -> Tensor:
    """q k^T before its scale, (b, n, m)."""
    return (pixels @ W_q) @ (tokens @ W_k).mT


def _root(W: Tensor) -> float:
    return math.sqrt(W.shape[1])


def _hidden(logits: Tensor, mask: Tensor, value: float = -math.inf) -> Tensor:
    """The logits with `value` where a token does not count."""
    return logits.masked_fill(~mask[:, None, :], value)


def _read(logits: Tensor, tokens: Tensor, W_v: Tensor, mask: Tensor) -> list[Tensor]:
    weights = _hidden(logits, mask).softmax(-1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("Your softmax runs over the pixels. Each pixel shares out its attention over the tokens.")
def cross_softmax_over_pixels(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask).softmax(1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake(
    "Your softmax runs over the pixels, and the mask came after it. Each pixel shares out its attention over tokens."
)
def cross_softmax_over_pixels_then_mask(pixels, tokens, W_q, W_k, W_v, mask):
    weights = (_logits(pixels, tokens, W_q, W_k) / _root(W_q)).softmax(1) * mask[:, None, :]
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("Your softmax runs over the batch: pictures know nothing of each other. Its axis is the last.")
def cross_softmax_over_batch(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask).softmax(0)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("The scale is missing: divide q k^T by sqrt(h), or wide heads make the softmax too hard.")
def cross_scale_missing(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k), tokens, W_v, mask)


@cross_attention.mistake("You divided by h. The scale is its root: q . k has the deviation sqrt(h).")
def cross_scale_without_root(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / W_q.shape[1], tokens, W_v, mask)


@cross_attention.mistake("You multiplied by sqrt(h). q . k grows with the width: divide.")
def cross_scale_multiplied(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) * _root(W_q), tokens, W_v, mask)


@cross_attention.mistake("You scaled by sqrt(c), the pixels' width. q and k have the width h.")
def cross_scale_of_pixels(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / pixels.shape[-1] ** 0.5, tokens, W_v, mask)


@cross_attention.mistake("You scaled by sqrt(d), the tokens' width before W_k. q and k have the width h.")
def cross_scale_of_tokens(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / tokens.shape[-1] ** 0.5, tokens, W_v, mask)


@cross_attention.mistake("You scaled by sqrt(m), the number of tokens. q . k is a sum of h products.")
def cross_scale_of_token_count(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / tokens.shape[1] ** 0.5, tokens, W_v, mask)


@cross_attention.mistake("You scaled by sqrt(n), the number of pixels. q . k is a sum of h products.")
def cross_scale_of_pixel_count(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / pixels.shape[1] ** 0.5, tokens, W_v, mask)


@cross_attention.mistake("You divided by sqrt(h) after the softmax: the weights no longer add up to 1. Divide before.")
def cross_scale_after_softmax(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k), mask).softmax(-1) / _root(W_q)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("Your mask is inverted: True is where a token counts, and masked_fill hides where it is True.")
def cross_mask_inverted(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / _root(W_q), tokens, W_v, ~mask)


@cross_attention.mistake("You did not use the mask: the pixels read the padding as well.")
def cross_mask_missing(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / _root(W_q), tokens, W_v, torch.ones_like(mask))


@cross_attention.mistake(
    "Both scale and mask are missing: divide q k^T by sqrt(h), and hide the tokens that do not count."
)
def cross_scale_and_mask_missing(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k), tokens, W_v, torch.ones_like(mask))


@cross_attention.mistake("You set weights to 0 after the softmax: those left no longer add up to 1. Hide before it.")
def cross_mask_after_softmax(pixels, tokens, W_q, W_k, W_v, mask):
    weights = (_logits(pixels, tokens, W_q, W_k) / _root(W_q)).softmax(-1) * mask[:, None, :]
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("You hid with 0 before the softmax. exp(0) is 1: hide with minus infinity.")
def cross_mask_with_zero(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask, 0.0).softmax(-1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("You added the mask to the logits as 0 and 1. That favours tokens by a factor e, no more.")
def cross_mask_added(pixels, tokens, W_q, W_k, W_v, mask):
    weights = (_logits(pixels, tokens, W_q, W_k) / _root(W_q) + mask[:, None, :]).softmax(-1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake(
    "You hid with minus infinity after the softmax. A weight that does not count is 0: hide before."
)
def cross_infinite_after_softmax(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden((_logits(pixels, tokens, W_q, W_k) / _root(W_q)).softmax(-1), mask)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake(
    "You set the values of hidden tokens to 0 and left their weights. Hide the logits, so that others get them."
)
def cross_mask_on_values(pixels, tokens, W_q, W_k, W_v, mask):
    weights = (_logits(pixels, tokens, W_q, W_k) / _root(W_q)).softmax(-1)
    return [weights @ (tokens @ W_v * mask[..., None]), weights]


@cross_attention.mistake("You set hidden tokens to 0 before W_k: their logit is then 0, and exp(0) is 1, not 0.")
def cross_mask_on_tokens(pixels, tokens, W_q, W_k, W_v, mask):
    kept = tokens * mask[..., None]
    return _read(_logits(pixels, kept, W_q, W_k) / _root(W_q), kept, W_v, torch.ones_like(mask))


@cross_attention.mistake("Your mask lies along the pixels. It is the tokens that count or not: mask[:, None, :].")
def cross_mask_along_pixels(pixels, tokens, W_q, W_k, W_v, mask):
    logits = (_logits(pixels, tokens, W_q, W_k) / _root(W_q)).masked_fill(~mask[:, :, None], -math.inf)
    weights = logits.softmax(-1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("Your mask has no axis for the pixels: its batch meets theirs. Use mask[:, None, :].")
def cross_mask_without_axis(pixels, tokens, W_q, W_k, W_v, mask):
    weights = (_logits(pixels, tokens, W_q, W_k) / _root(W_q)).masked_fill(~mask, -math.inf).softmax(-1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake("You used the first caption's mask for all. Each caption has its own padding.")
def cross_first_mask_for_all(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k) / _root(W_q), tokens, W_v, mask[:1].expand_as(mask))


@cross_attention.mistake("Your values come from the pixels. What is read is the sentence: v = tokens @ W_v.")
def cross_values_of_pixels(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask).softmax(-1)
    return [weights @ (pixels @ W_v), weights]


@cross_attention.mistake("Your keys and values come from the pixels: that is self-attention, and reads no sentence.")
def cross_self_attention(pixels, tokens, W_q, W_k, W_v, mask):
    return _read((pixels @ W_q) @ (pixels @ W_k).mT / _root(W_q), pixels, W_v, mask)


@cross_attention.mistake(
    "Your queries come from the tokens, keys and values from the pixels. It is the pixels that ask."
)
def cross_roles_swapped(pixels, tokens, W_q, W_k, W_v, mask):
    weights = ((tokens @ W_q) @ (pixels @ W_k).mT / _root(W_q)).softmax(-1)
    return [weights @ (pixels @ W_v), weights]


@cross_attention.mistake("Your queries come from the tokens. It is the pixels that ask: q = pixels @ W_q.")
def cross_queries_of_tokens(pixels, tokens, W_q, W_k, W_v, mask):
    return _read((tokens @ W_q) @ (tokens @ W_k).mT / _root(W_q), tokens, W_v, mask)


@cross_attention.mistake("You wrote k q^T, tokens by pixels. Rows are the pixels that ask: q k^T, (b, n, m).")
def cross_logits_transposed(pixels, tokens, W_q, W_k, W_v, mask):
    return _read(_logits(pixels, tokens, W_q, W_k).mT / _root(W_q), tokens, W_v, mask)


@cross_attention.mistake(
    "You used the keys as values. v = tokens @ W_v: where to look and what is read are two things."
)
def cross_keys_as_values(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q, W_k, W_k, mask)


@cross_attention.mistake("You used W_v for the keys as well. k = tokens @ W_k.")
def cross_values_as_keys(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q, W_v, W_v, mask)


@cross_attention.mistake("W_k and W_v have changed places: keys decide the weights, values are what is read.")
def cross_keys_and_values_swapped(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q, W_v, W_k, mask)


@cross_attention.mistake("You read the tokens as they are. What is read is their values, v = tokens @ W_v.")
def cross_raw_tokens(pixels, tokens, W_q, W_k, W_v, mask):
    weights = cross_attention(pixels, tokens, W_q, W_k, W_v, mask)[1]
    return [weights @ tokens, weights]


@cross_attention.mistake("Your matrices are transposed, W.T as in nn.Linear. Here they are applied as x @ W.")
def cross_matrices_transposed(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q.T, W_k.T, W_v.T, mask)


@cross_attention.mistake("Your weights are transposed, tokens by pixels. Asked for is (b, n, m): a row for each pixel.")
def cross_weights_transposed(pixels, tokens, W_q, W_k, W_v, mask):
    read, weights = cross_attention(pixels, tokens, W_q, W_k, W_v, mask)
    return [read, weights.mT]


@cross_attention.mistake("Your two results have changed places: first what is read, then the weights.")
def cross_order_swapped(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q, W_k, W_v, mask)[::-1]


@cross_attention.mistake("You returned what is read alone. The second result is the weights.")
def cross_read_alone(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q, W_k, W_v, mask)[0]


@cross_attention.mistake("You returned the weights alone. The first result is what each pixel reads, weights @ v.")
def cross_weights_alone(pixels, tokens, W_q, W_k, W_v, mask):
    return cross_attention(pixels, tokens, W_q, W_k, W_v, mask)[1]


@cross_attention.mistake("Your second result is the logits. The weights are their softmax.")
def cross_logits_returned(pixels, tokens, W_q, W_k, W_v, mask):
    logits = _logits(pixels, tokens, W_q, W_k) / _root(W_q)
    return [_read(logits, tokens, W_v, mask)[0], _hidden(logits, mask)]


@cross_attention.mistake("Your second result is the logits, unmasked. The weights are the softmax of the masked ones.")
def cross_unmasked_logits_returned(pixels, tokens, W_q, W_k, W_v, mask):
    logits = _logits(pixels, tokens, W_q, W_k) / _root(W_q)
    return [_read(logits, tokens, W_v, mask)[0], logits]


@cross_attention.mistake(
    "The softmax is missing: you took the logits for weights. They may be negative, and add up to anything."
)
def cross_softmax_missing(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask, 0.0)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake(
    "You took the sigmoid: each weight is then in 0..1, but a pixel's do not add up to 1. Use softmax."
)
def cross_sigmoid(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask).sigmoid()
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake(
    "You took the softmax twice. Once makes weights of logits; of weights it makes nearly equal ones."
)
def cross_softmax_twice(pixels, tokens, W_q, W_k, W_v, mask):
    weights = _hidden(_hidden(_logits(pixels, tokens, W_q, W_k) / _root(W_q), mask).softmax(-1), mask).softmax(-1)
    return [weights @ (tokens @ W_v), weights]


@cross_attention.mistake(
    "You normalised q and k to length 1. Attention compares with q . k / sqrt(h), lengths and all."
)
def cross_cosines(pixels, tokens, W_q, W_k, W_v, mask):
    logits = F.normalize(pixels @ W_q, dim=-1) @ F.normalize(tokens @ W_k, dim=-1).mT
    return _read(logits, tokens, W_v, mask)


@cross_attention.mistake(
    "You added the pixels to what they read. The residual is the block's affair; return the reading."
)
def cross_residual_added(pixels, tokens, W_q, W_k, W_v, mask):
    read, weights = cross_attention(pixels, tokens, W_q, W_k, W_v, mask)
    return [pixels + read, weights]


@cross_attention.mistake("You averaged the weights over the pixels. Each pixel has its own: (b, n, m).")
def cross_weights_averaged(pixels, tokens, W_q, W_k, W_v, mask):
    read, weights = cross_attention(pixels, tokens, W_q, W_k, W_v, mask)
    return [read, weights.mean(1)]


# 13.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "13.2",
    title="What goes into a step, and what should come out",
    hints=(
        "First the scale, x_0 = scale * z; x_t and v know x_0 alone.",
        "a and b hold one number for each picture: a[:, None, None, None] meets (n, c, h, w).",
        "torch.where(condition, null, tokens) takes null where the condition is True. Give the condition the shape "
        "(n, 1, 1): a caption is dropped as a whole or not at all.",
    ),
)
def training_pair(
    z: Tensor, scale: float, a: Tensor, b: Tensor, eps: Tensor, tokens: Tensor, null: Tensor, u: Tensor, drop: float
) -> list[Tensor]:
    """Make what one training step of the text-to-image model needs: x_t and cond go in, v should come out (C24, C25).

    x_0 = scale z has deviation 1. x_t = a x_0 + b eps, and the target is v = a eps - b x_0 (Salimans and Ho 2022,
    section 4). The captions of the pictures with u < drop are replaced by the empty caption's tokens, so that one
    network learns both with and without text (Ho and Salimans 2022, algorithm 1).

    z: (n, c, h, w), latents as the encoder gives them.
    scale: the scale factor, above 0.
    a, b: (n,), signal and noise factors at each picture's own time.
    eps: like z, the noise.
    tokens: (n, m, d), each picture's caption as tokens.
    null: (m, d), the empty caption's tokens.
    u: (n,), a uniform number in [0, 1) for each picture.
    drop: the share of captions to drop.
    Returns [x_t, v, cond]: like z, like z, like tokens.
    """
    x_0 = scale * z
    a, b = a[:, None, None, None], b[:, None, None, None]
    cond = torch.where((u < drop)[:, None, None], null, tokens)
    return [a * x_0 + b * eps, a * eps - b * x_0, cond]


def batch(rng: torch.Generator, dropped: list[bool], shape: tuple, text: tuple) -> tuple:
    """Arguments of `training_pair` in which the captions marked in `dropped` are dropped; one at least of the kept has
    u > 1 - drop. z has a deviation that the scale brings to about 1."""
    n, out = len(dropped), torch.tensor(dropped)
    one, two = torch.rand(2, generator=rng).tolist()
    scale, drop = 0.2 + 0.4 * one, 0.1 + 0.2 * two
    angle = 0.2 + 0.4 * torch.rand(n, generator=rng) + 0.2 * torch.arange(n)[torch.randperm(n, generator=rng)]
    u = drop * torch.rand(n, generator=rng)
    kept = drop + 0.02 + (0.96 - 2 * drop) * torch.rand(n, generator=rng)
    first = int((~out).nonzero()[0]) if not out.all() else n
    u = torch.where(out, u, torch.where(torch.arange(n) == first, 1 - u - 1e-3, kept))
    z, eps = normal(rng, n, *shape) / scale + 0.5, normal(rng, n, *shape)
    return z, scale, angle.cos(), angle.sin(), eps, normal(rng, n, *text), normal(rng, *text), u, drop


@training_pair.check
def test_training_matches_the_formulas(student, rng):
    """x_t, v and cond agree with the formulas, for several sizes, each picture at its own time"""
    for dropped, shape, text in (
        ([False, True, False, True], (3, 5, 2), (5, 6)),
        ([True, False, False], (3, 3, 3), (3, 3)),
        ([True], (4, 3, 5), (4, 2)),
    ):
        args = batch(rng, dropped, shape, text)
        agree(student.training_pair(*args), training_pair(*args))


@training_pair.check
def test_training_can_be_solved_for_both(student, rng):
    """a x_t - b v is scale z, and b x_t + a v is the noise, whatever the time"""
    args = batch(rng, [True, False, False], (4, 3, 2), (3, 5))
    z, scale, a, b, eps = args[:5]
    x_t, v, _ = student.training_pair(*args)
    a, b = a[:, None, None, None], b[:, None, None, None]
    agree([a * x_t - b * v, b * x_t + a * v], [scale * z, eps])


@training_pair.check
def test_training_drops_none_or_all(student, rng):
    """with drop = 0 every caption stays, with drop = 1 every one is the empty one"""
    *args, tokens, null, u, _ = batch(rng, [True, False, True], (2, 3, 3), (4, 5))
    agree(student.training_pair(*args, tokens, null, u, 0.0)[2], tokens)
    agree(student.training_pair(*args, tokens, null, u, 1.0)[2], null.expand(3, 4, 5))


@training_pair.check
def test_training_drops_its_share(student, rng):
    """of 2000 captions it drops the share asked for, each as a whole, and leaves the others as they are"""
    n = 2000
    u, one = torch.rand(n, generator=rng), torch.ones(n)
    z = torch.zeros(n, 1, 1, 1)
    cond = student.training_pair(z, 1.0, 0.6 * one, 0.8 * one, z, torch.ones(n, 2, 2), torch.zeros(2, 2), u, 0.15)[2]
    share = cond.mean((1, 2))
    assert ((share == 0) | (share == 1)).all()
    assert abs((share == 0).float().mean().item() - 0.15) < 0.048  # 6 standard errors, sqrt(0.15 * 0.85 / 2000)


@training_pair.check
def test_training_at_the_ends(student, rng):
    """without noise x_t is x_0 and v the noise; at pure noise x_t is the noise and v is -x_0"""
    z, scale, _, _, eps, *rest = batch(rng, [False, True], (2, 3, 3), (4, 5))
    one, zero = torch.ones(2), torch.zeros(2)
    agree(student.training_pair(z, scale, one, zero, eps, *rest)[:2], [scale * z, eps])
    agree(student.training_pair(z, scale, zero, one, eps, *rest)[:2], [eps, -scale * z])


def _wide(x: Tensor) -> Tensor:
    return x[:, None, None, None]


def _noised(z, scale, a, b, eps) -> Tensor:
    return _wide(a) * scale * z + _wide(b) * eps


def _v(z, scale, a, b, eps) -> Tensor:
    return _wide(a) * eps - _wide(b) * scale * z


def _cond(tokens, null, u, drop) -> Tensor:
    return torch.where((u < drop)[:, None, None], null, tokens)


@training_pair.mistake("You left the scale out: x_0 is scale z, or the latents would not have deviation 1.")
def pair_scale_left_out(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, 1.0, a, b, eps, tokens, null, u, drop)


@training_pair.mistake("You divided by the scale. It was chosen so that scale z has deviation 1: multiply.")
def pair_scale_divided(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, 1 / scale, a, b, eps, tokens, null, u, drop)


@training_pair.mistake("You scaled the noise as well, in x_t and in v. Only z is multiplied; eps has deviation 1.")
def pair_noise_scaled(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, a, b, scale * eps, tokens, null, u, drop)


@training_pair.mistake("You scaled x_t after the noise was added: the noise shrank with it. First x_0 = scale z.")
def pair_scaled_after_noise(z, scale, a, b, eps, tokens, null, u, drop):
    return [scale * _noised(z, 1, a, b, eps), _v(z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("You scaled x_t after noising, and made v of z unscaled. Both are made of x_0 = scale z.")
def pair_scaled_after_noise_alone(z, scale, a, b, eps, tokens, null, u, drop):
    return [scale * _noised(z, 1, a, b, eps), _v(z, 1, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("Your target is made of z unscaled. v = a eps - b x_0 with x_0 = scale z, as in x_t.")
def pair_target_unscaled(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), _v(z, 1, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("Your x_t is made of z unscaled, your target of scale z. x_0 = scale z in both.")
def pair_input_unscaled(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, 1, a, b, eps), _v(z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("Your target is eps. This model predicts v = a eps - b x_0.")
def pair_target_eps(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), eps, _cond(tokens, null, u, drop)]


@training_pair.mistake("Your target is x_0. This model predicts v = a eps - b x_0.")
def pair_target_clean(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), scale * z, _cond(tokens, null, u, drop)]


@training_pair.mistake("Your target is eps - x_0, as in flow matching. Here v = a eps - b x_0, with the factors.")
def pair_target_flow(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), eps - scale * z, _cond(tokens, null, u, drop)]


@training_pair.mistake(
    "Your target has the wrong sign: v = a eps - b x_0, so without noise it is the noise, not its negative."
)
def pair_target_negative(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), -_v(z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake(
    "You added b x_0 in the target. v = a eps - b x_0: at right angles to x_t in the plane of x_0 and eps."
)
def pair_target_added(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), _v(-z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("In the target a and b have changed places: a stands before eps, b before x_0.")
def pair_target_factors_swapped(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), _v(z, scale, b, a, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("Your target is a x_0 - b eps: x_0 and eps have changed places. v = a eps - b x_0.")
def pair_target_roles_swapped(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, eps), -_v(z, scale, b, a, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("You subtracted b x_t in the target. v is made of the clean x_0, not of the noised one.")
def pair_target_of_noised(z, scale, a, b, eps, tokens, null, u, drop):
    x_t = _noised(z, scale, a, b, eps)
    return [x_t, _v(x_t, 1, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("In x_t a and b have changed places: a is the signal's factor, b the noise's.")
def pair_input_factors_swapped(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, b, a, eps), _v(z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("a and b have changed places in x_t and in v: a is the signal's factor, b the noise's.")
def pair_factors_swapped(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, b, a, eps, tokens, null, u, drop)


@training_pair.mistake("You squared a and b. They are factors, a^2 and b^2 the variances.")
def pair_factors_squared(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, a**2, b**2, eps, tokens, null, u, drop)


@training_pair.mistake("You took roots of a and b. They are factors already, not alpha_bar_t and 1 - alpha_bar_t.")
def pair_factors_rooted(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, a**0.5, b**0.5, eps, tokens, null, u, drop)


@training_pair.mistake("You subtracted the noise in x_t: x_t = a x_0 + b eps.")
def pair_noise_subtracted(z, scale, a, b, eps, tokens, null, u, drop):
    return [_noised(z, scale, a, b, -eps), _v(z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("Your first result is x_0, without noise. The network sees x_t = a x_0 + b eps.")
def pair_input_clean(z, scale, a, b, eps, tokens, null, u, drop):
    return [scale * z, _v(z, scale, a, b, eps), _cond(tokens, null, u, drop)]


@training_pair.mistake("You used the first picture's a and b for all. Each picture has its own time.")
def pair_first_time_for_all(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, a[:1].expand_as(a), b[:1].expand_as(b), eps, tokens, null, u, drop)


@training_pair.mistake(
    "a and b, one number a picture, meet the last axis here, the columns. Give them the shape (n, 1, 1, 1)."
)
def pair_meets_last_axis(z, scale, a, b, eps, tokens, null, u, drop):
    x_0 = scale * z
    return [a * x_0 + b * eps, a * eps - b * x_0, _cond(tokens, null, u, drop)]


def _with(cond: Tensor, z, scale, a, b, eps) -> list[Tensor]:
    return [_noised(z, scale, a, b, eps), _v(z, scale, a, b, eps), cond]


@training_pair.mistake(
    "No caption is dropped: where u < drop, null belongs. Guidance needs a network that knows no text, too."
)
def pair_nothing_dropped(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(tokens, z, scale, a, b, eps)


@training_pair.mistake("You dropped where u is above drop, and so most captions. Drop where u < drop.")
def pair_drop_inverted(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(torch.where((u > drop)[:, None, None], null, tokens), z, scale, a, b, eps)


@training_pair.mistake("You dropped where u > 1 - drop. That is the share asked for, but other pictures: u < drop.")
def pair_drop_at_the_other_end(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(_cond(tokens, null, 1 - u, drop), z, scale, a, b, eps)


@training_pair.mistake("You dropped every caption. Only where u < drop; the other pictures keep theirs.")
def pair_all_dropped(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(null.expand_as(tokens), z, scale, a, b, eps)


@training_pair.mistake("Where one caption is dropped you dropped all. Each picture's own u decides.")
def pair_all_if_any(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(null.expand_as(tokens) if (u < drop).any() else tokens, z, scale, a, b, eps)


@training_pair.mistake("You dropped all captions or none. Each picture's own u decides.")
def pair_all_or_none(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(null.expand_as(tokens) if (u < drop).all() else tokens, z, scale, a, b, eps)


@training_pair.mistake("The first picture's u decided for all. Each picture has its own.")
def pair_first_decides(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(null.expand_as(tokens) if u[0] < drop else tokens, z, scale, a, b, eps)


@training_pair.mistake("You set dropped captions to 0. The empty caption has tokens of its own: null.")
def pair_zeros_for_null(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(_cond(tokens, 0 * null, u, drop), z, scale, a, b, eps)


@training_pair.mistake("You added null to the dropped captions. It takes their place.")
def pair_null_added(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(tokens + (u < drop)[:, None, None] * null, z, scale, a, b, eps)


@training_pair.mistake("You set the kept captions to 0: where u < drop null belongs, elsewhere the tokens.")
def pair_kept_captions_zeroed(z, scale, a, b, eps, tokens, null, u, drop):
    return _with((u < drop)[:, None, None] * null, z, scale, a, b, eps)


@training_pair.mistake(
    "You mixed null into every caption by the share drop. A caption is whole or dropped, never a mixture."
)
def pair_null_mixed(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(drop * null + (1 - drop) * tokens, z, scale, a, b, eps)


@training_pair.mistake("You replaced the first token alone. A dropped caption is null as a whole.")
def pair_first_token_alone(z, scale, a, b, eps, tokens, null, u, drop):
    cond = _cond(tokens, null, u, drop)
    return _with(torch.cat([cond[:, :1], tokens[:, 1:]], 1), z, scale, a, b, eps)


@training_pair.mistake("You removed the dropped pictures' captions. The batch keeps its size: null takes their place.")
def pair_rows_removed(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(tokens[u >= drop], z, scale, a, b, eps)


@training_pair.mistake("u < drop has one entry a picture, and meets the last axis here. Give it the shape (n, 1, 1).")
def pair_drop_meets_last_axis(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(torch.where(u < drop, null, tokens), z, scale, a, b, eps)


@training_pair.mistake("u < drop meets the axis of the tokens here. Give it the shape (n, 1, 1): two axes more.")
def pair_drop_meets_tokens(z, scale, a, b, eps, tokens, null, u, drop):
    return _with(torch.where((u < drop)[:, None], null, tokens), z, scale, a, b, eps)


@training_pair.mistake(
    "Where the caption was dropped you cleared the latent as well. The picture stays: only its text goes."
)
def pair_latent_dropped(z, scale, a, b, eps, tokens, null, u, drop):
    kept = z * _wide((u >= drop).to(z))
    return training_pair(kept, scale, a, b, eps, tokens, null, u, drop)


@training_pair.mistake("x_t and v have changed places: first what goes in, then what should come out.")
def pair_input_and_target_swapped(z, scale, a, b, eps, tokens, null, u, drop):
    x_t, v, cond = training_pair(z, scale, a, b, eps, tokens, null, u, drop)
    return [v, x_t, cond]


@training_pair.mistake("v and cond have changed places: x_t, then v, then cond.")
def pair_target_and_text_swapped(z, scale, a, b, eps, tokens, null, u, drop):
    x_t, v, cond = training_pair(z, scale, a, b, eps, tokens, null, u, drop)
    return [x_t, cond, v]


@training_pair.mistake("cond is missing: the third result is the captions, some of them replaced by null.")
def pair_without_text(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, a, b, eps, tokens, null, u, drop)[:2]


@training_pair.mistake("The target is missing: the results are x_t, v and cond.")
def pair_without_target(z, scale, a, b, eps, tokens, null, u, drop):
    return training_pair(z, scale, a, b, eps, tokens, null, u, drop)[::2]


# 13.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "13.3",
    title="One guided step",
    hints=(
        "v_both.chunk(2) cuts the batch in its two halves: the first is v for the empty caption.",
        "Guide once, at the start: v = v_null + w (v_cond - v_null). From then on there is only this v.",
        "x_t and v are x_0 and eps, turned by an angle; turned back they give x_0 = a_t x_t - b_t v and "
        "eps = b_t x_t + a_t v. DDIM mixes these two again, with the factors of s.",
    ),
)
def one_step(x_t: Tensor, v_both: Tensor, w: float, a_t: float, b_t: float, a_s: float, b_s: float) -> Tensor:
    """Take one guided DDIM step from time t to the earlier time s (Song et al. 2021; Ho and Salimans 2022; C25).

    The network was asked once, for both captions of every picture. Guide: v = v_null + w (v_cond - v_null), so w = 1
    is no guidance. Solve for x_0 = a_t x_t - b_t v and eps = b_t x_t + a_t v. Step: x_s = a_s x_0 + b_s eps.

    x_t: (n, c, h, w), the noised latents.
    v_both: (2n, c, h, w), the network's v: for the empty caption (the first n), then for the caption (the last n).
    w: the guidance weight.
    a_t, b_t: the factors of signal and noise at t, a_t^2 + b_t^2 = 1.
    a_s, b_s: those at s.
    Returns x_s, like x_t.
    """
    v_null, v_cond = v_both.chunk(2)
    v = v_null + w * (v_cond - v_null)
    x_0 = a_t * x_t - b_t * v
    eps = b_t * x_t + a_t * v
    return a_s * x_0 + b_s * eps


def stepping(rng: torch.Generator, *shape: int) -> tuple:
    """Arguments of `one_step`: t and s at angles 0.9..1.2 and 0.3..0.6, w in 2..4."""
    one, two, three = torch.rand(3, generator=rng).tolist()
    t, s, w = 0.9 + 0.3 * one, 0.3 + 0.3 * two, 2.2 + 1.8 * three
    v_both = normal(rng, 2 * shape[0], *shape[1:])
    return normal(rng, *shape), v_both, w, math.cos(t), math.sin(t), math.cos(s), math.sin(s)


@one_step.check
def test_step_matches_the_formula(student, rng):
    """agrees with the formulas, for batches of several sizes"""
    for shape in ((3, 4, 3, 5), (2, 4, 4, 4), (4, 1, 2, 3), (1, 4, 3, 3)):
        args = stepping(rng, *shape)
        agree(student.one_step(*args), one_step(*args))


@one_step.check
def test_step_by_the_true_v(student, rng):
    """where both halves hold the true v it lands on a_s x_0 + b_s eps, whatever w"""
    for w in (0.0, 1.0, 4.0):
        x_0, _, _, a_t, b_t, a_s, b_s = stepping(rng, 3, 2, 3, 4)
        eps = normal(rng, 3, 2, 3, 4)
        v = a_t * eps - b_t * x_0
        args = a_t * x_0 + b_t * eps, torch.cat([v, v]), w, a_t, b_t, a_s, b_s
        agree(student.one_step(*args), a_s * x_0 + b_s * eps)


@one_step.check
def test_step_without_guidance(student, rng):
    """at w = 1 the empty caption does not matter, and at w = 0 the caption does not"""
    x_t, v_both, _, *factors = stepping(rng, 2, 3, 3, 4)
    other = normal(rng, 2, 3, 3, 4)
    one = student.one_step(x_t, torch.cat([other, v_both[2:]]), 1.0, *factors)
    agree(student.one_step(x_t, v_both, 1.0, *factors), one)
    none = student.one_step(x_t, torch.cat([v_both[:2], other]), 0.0, *factors)
    agree(student.one_step(x_t, v_both, 0.0, *factors), none)


@one_step.check
def test_step_to_where_it_is(student, rng):
    """a step from t to t goes nowhere, whatever the network says"""
    x_t, v_both, w, a_t, b_t, _, _ = stepping(rng, 2, 4, 3, 3)
    agree(student.one_step(x_t, v_both, w, a_t, b_t, a_t, b_t), x_t)


@one_step.check
def test_step_from_noise_to_picture(student, rng):
    """from pure noise (a_t = 0, b_t = 1) to none (a_s = 1, b_s = 0) it is -v, guided"""
    x_t, v_both, w, *_ = stepping(rng, 2, 4, 3, 3)
    v_null, v_cond = v_both[:2], v_both[2:]
    agree(student.one_step(x_t, v_both, w, 0.0, 1.0, 1.0, 0.0), (w - 1) * v_null - w * v_cond)


def _guided(v_both: Tensor, w: float) -> Tensor:
    null, cond = v_both.chunk(2)
    return null + w * (cond - null)


def _step(x_t: Tensor, v: Tensor, a_t: float, b_t: float, a_s: float, b_s: float) -> Tensor:
    """The DDIM step by one v."""
    return a_s * (a_t * x_t - b_t * v) + b_s * (b_t * x_t + a_t * v)


@one_step.mistake("The halves have changed places: the empty caption comes first, so you guided away from the text.")
def step_halves_swapped(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both.roll(len(x_t), 0), w), a_t, b_t, a_s, b_s)


@one_step.mistake(
    "You guided by 1 + w, the paper's convention: v_cond + w (v_cond - v_null). Here w = 1 is no guidance."
)
def step_paper_convention(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, 1 + w), a_t, b_t, a_s, b_s)


@one_step.mistake("The sign of your guidance is wrong: from v_null toward v_cond, v_null + w (v_cond - v_null).")
def step_guidance_sign(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, -w), a_t, b_t, a_s, b_s)


@one_step.mistake(
    "You added v_null inside the brackets. Guidance follows the difference: v_null + w (v_cond - v_null)."
)
def step_halves_added(x_t, v_both, w, a_t, b_t, a_s, b_s):
    null, cond = v_both.chunk(2)
    return _step(x_t, null + w * (cond + null), a_t, b_t, a_s, b_s)


@one_step.mistake("You left w out and took the caption's v: no guidance.")
def step_no_guidance(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, 1.0), a_t, b_t, a_s, b_s)


@one_step.mistake("You took the empty caption's v: the sentence is not read at all.")
def step_null_alone(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, 0.0), a_t, b_t, a_s, b_s)


@one_step.mistake("You averaged the two halves. Guidance goes from v_null to v_cond and beyond, w times the way.")
def step_halves_averaged(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, 0.5), a_t, b_t, a_s, b_s)


@one_step.mistake("v_null is missing before the difference: v = v_null + w (v_cond - v_null).")
def step_difference_alone(x_t, v_both, w, a_t, b_t, a_s, b_s):
    null, cond = v_both.chunk(2)
    return _step(x_t, w * (cond - null), a_t, b_t, a_s, b_s)


@one_step.mistake(
    "You multiplied v_cond by w and left v_null out: a larger v, not a v further from the empty caption's."
)
def step_caption_times_w(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, w * v_both.chunk(2)[1], a_t, b_t, a_s, b_s)


@one_step.mistake("You added w v_cond to all of v_null. Of v_null 1 - w is left: v_null + w (v_cond - v_null).")
def step_caption_added(x_t, v_both, w, a_t, b_t, a_s, b_s):
    null, cond = v_both.chunk(2)
    return _step(x_t, null + w * cond, a_t, b_t, a_s, b_s)


@one_step.mistake("You guided eps alone, and made x_0 of the caption's v. Both come from the one guided v.")
def step_guided_noise_alone(x_t, v_both, w, a_t, b_t, a_s, b_s):
    x_0 = a_t * x_t - b_t * v_both.chunk(2)[1]
    return a_s * x_0 + b_s * (b_t * x_t + a_t * _guided(v_both, w))


@one_step.mistake("You guided x_0 alone, and made eps of the caption's v. Both come from the one guided v.")
def step_guided_picture_alone(x_t, v_both, w, a_t, b_t, a_s, b_s):
    eps = b_t * x_t + a_t * v_both.chunk(2)[1]
    return a_s * (a_t * x_t - b_t * _guided(v_both, w)) + b_s * eps


@one_step.mistake("You guided x_0, and made eps of the empty caption's v. Both come from the one guided v.")
def step_noise_of_null(x_t, v_both, w, a_t, b_t, a_s, b_s):
    eps = b_t * x_t + a_t * v_both.chunk(2)[0]
    return a_s * (a_t * x_t - b_t * _guided(v_both, w)) + b_s * eps


@one_step.mistake("You took every other entry of v_both. Its halves lie one behind the other: v_both.chunk(2).")
def step_interleaved(x_t, v_both, w, a_t, b_t, a_s, b_s):
    null, cond = v_both[::2], v_both[1::2]
    return _step(x_t, null + w * (cond - null), a_t, b_t, a_s, b_s)


@one_step.mistake("You cut v_both along its channels. The two captions lie along the batch: chunk(2), axis 0.")
def step_cut_by_channels(x_t, v_both, w, a_t, b_t, a_s, b_s):
    null, cond = v_both.tensor_split(2, dim=1)
    return _step(x_t, null + w * (cond - null), a_t, b_t, a_s, b_s)


@one_step.mistake("You took v for eps. The network predicts v: eps = b_t x_t + a_t v, x_0 = a_t x_t - b_t v.")
def step_v_as_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    v = _guided(v_both, w)
    x_0 = (x_t - b_t * v) / a_t if a_t else (x_t - b_t * v) * math.inf
    return a_s * x_0 + b_s * v


@one_step.mistake("x_0 is right, but you stepped with v where eps = b_t x_t + a_t v belongs.")
def step_v_for_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    v = _guided(v_both, w)
    return a_s * (a_t * x_t - b_t * v) + b_s * v


@one_step.mistake("You took v for x_0. x_0 = a_t x_t - b_t v.")
def step_v_as_picture(x_t, v_both, w, a_t, b_t, a_s, b_s):
    v = _guided(v_both, w)
    return a_s * v + b_s * (x_t - a_t * v) / b_t


@one_step.mistake("x_0 stands where eps belongs in the last line: a_s x_0 + b_s eps.")
def step_picture_for_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    x_0 = a_t * x_t - b_t * _guided(v_both, w)
    return a_s * x_0 + b_s * x_0


@one_step.mistake("x_t stands where eps belongs in the last line: a_s x_0 + b_s eps.")
def step_noised_for_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return a_s * (a_t * x_t - b_t * _guided(v_both, w)) + b_s * x_t


@one_step.mistake(
    "You turned the wrong way: the sign of v is wrong in x_0 and in eps, or t and s have changed places. Solve with t, "
    "mix with s."
)
def step_v_sign(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, -_guided(v_both, w), a_t, b_t, a_s, b_s)


@one_step.mistake("You added b_t v in x_0: x_0 = a_t x_t - b_t v.")
def step_picture_sign(x_t, v_both, w, a_t, b_t, a_s, b_s):
    v = _guided(v_both, w)
    return a_s * (a_t * x_t + b_t * v) + b_s * (b_t * x_t + a_t * v)


@one_step.mistake("You subtracted a_t v in eps: eps = b_t x_t + a_t v.")
def step_noise_sign(x_t, v_both, w, a_t, b_t, a_s, b_s):
    v = _guided(v_both, w)
    return a_s * (a_t * x_t - b_t * v) + b_s * (b_t * x_t - a_t * v)


@one_step.mistake("a_t and b_t have changed places: a is the signal's factor, b the noise's.")
def step_factors_of_t_swapped(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), b_t, a_t, a_s, b_s)


@one_step.mistake("a_s and b_s have changed places in the last line: a_s x_0 + b_s eps.")
def step_factors_of_s_swapped(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, b_s, a_s)


@one_step.mistake(
    "You solved and mixed with the factors of one time: that leads back to x_t. Solve with those of t, mix with those "
    "of s."
)
def step_stays(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, a_t, b_t)


@one_step.mistake("You mixed with a_s and b_t. Both factors are those of s.")
def step_noise_of_t(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, a_s, b_t)


@one_step.mistake("You returned x_0. The step goes to s only: a_s x_0 + b_s eps.")
def step_to_the_picture(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, 1.0, 0.0)


@one_step.mistake("You returned eps. The step goes to a_s x_0 + b_s eps.")
def step_to_the_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, 0.0, 1.0)


@one_step.mistake(
    "The noise is missing in x_s: a_s x_0 + b_s eps, or it holds less noise than the network expects at s."
)
def step_without_noise(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, a_s, 0.0)


@one_step.mistake("a_s is missing before x_0: x_s = a_s x_0 + b_s eps.")
def step_signal_factor_missing(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, 1.0, b_s)


@one_step.mistake("b_s is missing before eps: x_s = a_s x_0 + b_s eps.")
def step_noise_factor_missing(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, a_s, 1.0)


@one_step.mistake("You clipped x_0 to [-1, 1]. Pixels have that range; latents have none.")
def step_clipped(x_t, v_both, w, a_t, b_t, a_s, b_s):
    v = _guided(v_both, w)
    return a_s * (a_t * x_t - b_t * v).clamp(-1, 1) + b_s * (b_t * x_t + a_t * v)


@one_step.mistake("You clipped x_0 to [-1, 1] and made eps of it. Pixels have that range; latents have none.")
def step_clipped_throughout(x_t, v_both, w, a_t, b_t, a_s, b_s):
    x_0 = (a_t * x_t - b_t * _guided(v_both, w)).clamp(-1, 1)
    return a_s * x_0 + b_s * (x_t - a_t * x_0) / b_t


@one_step.mistake(
    "That is DDPM's mean of x_s given x_t and x_0, to which noise is added. DDIM needs none: a_s x_0 + b_s eps."
)
def step_ddpm_mean(x_t, v_both, w, a_t, b_t, a_s, b_s):
    x_0, ratio = a_t * x_t - b_t * _guided(v_both, w), a_t / a_s
    return (a_s * (1 - ratio**2) * x_0 + ratio * b_s**2 * x_t) / b_t**2


@one_step.mistake("You squared the factors of s. They are factors, a_s^2 and b_s^2 the variances.")
def step_factors_squared(x_t, v_both, w, a_t, b_t, a_s, b_s):
    return _step(x_t, _guided(v_both, w), a_t, b_t, a_s**2, b_s**2)


# 13.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "13.4",
    title="Keep what is known",
    hints=(
        "torch.where(mask, known, x_0) takes known where the mask is True, and x_0 elsewhere.",
        "x_t = a x_0 + b eps holds for the filled x_0, too: solve it for eps. x_t stays as it is.",
    ),
)
def keep_known(x_t: Tensor, x_0: Tensor, known: Tensor, mask: Tensor, a: float, b: float) -> list[Tensor]:
    """Fill the known part into a prediction, and make eps agree with it, so that a sampler keeps it at every step.

    The filled x_0 is `known` where the mask is True and the network's prediction elsewhere. eps follows from
    x_t = a x_0 + b eps with the filled x_0. Then DDIM's next a_s x_0 + b_s eps carries the known part at its noise
    level, as in RePaint (Lugmayr et al. 2022, eq. 8), where it is noised anew instead.

    x_t: (n, c, h, w), the noised latents at time t.
    x_0: like x_t, the network's prediction.
    known: like x_t, the true x_0; only where the mask is True does it mean anything.
    mask: (1, 1, h, w), bool, True where the picture is known; the same for all pictures and channels.
    a, b: the factors of signal and noise at t, b above 0.
    Returns [the filled x_0, its eps], both like x_t.
    """
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - a * filled) / b]


def painting(rng: torch.Generator, n: int, c: int, h: int, w: int) -> tuple:
    """Arguments of `keep_known`; part of the picture is known, part not, and the mask is not symmetric."""
    angle = 0.3 + 0.3 * torch.rand(1, generator=rng).item()
    mask = torch.rand(1, 1, h, w, generator=rng) < 0.5
    mask[..., 0, 1], mask[..., 1, 0] = True, False
    return *(normal(rng, n, c, h, w) for _ in range(3)), mask, math.cos(angle), math.sin(angle)


@keep_known.check
def test_known_matches_the_formulas(student, rng):
    """the filled x_0 and its eps agree with the formulas, for latents of several sizes"""
    for shape in ((3, 4, 3, 5), (2, 3, 4, 4), (1, 4, 5, 2)):
        args = painting(rng, *shape)
        agree(student.keep_known(*args), keep_known(*args))


@keep_known.check
def test_known_and_its_noise_make_x_t(student, rng):
    """a times the filled x_0 and b times its eps add up to x_t, which stays as it was"""
    x_t, x_0, known, mask, _, _ = painting(rng, 2, 3, 4, 5)
    for angle in (0.2, 0.8, 1.4):
        a, b = math.cos(angle), math.sin(angle)
        filled, eps = student.keep_known(x_t, x_0, known, mask, a, b)
        agree(a * filled + b * eps, x_t)


@keep_known.check
def test_known_all_or_nothing(student, rng):
    """where all is known the prediction does not matter; where nothing is, the prediction stays as it is"""
    x_t, x_0, known, mask, a, b = painting(rng, 2, 3, 4, 5)
    everything, nothing = torch.ones_like(mask), torch.zeros_like(mask)
    agree(student.keep_known(x_t, x_0, known, everything, a, b), [known, (x_t - a * known) / b])
    agree(student.keep_known(x_t, x_0, known, nothing, a, b), [x_0, (x_t - a * x_0) / b])


@keep_known.check
def test_known_outside_the_mask(student, rng):
    """what `known` holds outside the mask changes nothing, nor does what was predicted inside it"""
    x_t, x_0, known, mask, a, b = painting(rng, 2, 3, 4, 5)
    other = normal(rng, 2, 3, 4, 5)
    filled = student.keep_known(x_t, x_0, known, mask, a, b)
    agree(student.keep_known(x_t, x_0, torch.where(mask, known, other), mask, a, b), filled)
    agree(student.keep_known(x_t, torch.where(mask, other, x_0), known, mask, a, b), filled)


def _filled(filled: Tensor, x_t: Tensor, a: float, b: float) -> list[Tensor]:
    return [filled, (x_t - a * filled) / b]


@keep_known.mistake("Your mask is inverted: where it is True the picture is known.")
def known_mask_inverted(x_t, x_0, known, mask, a, b):
    return keep_known(x_t, x_0, known, ~mask, a, b)


@keep_known.mistake(
    "Your eps still belongs to the network's x_0. Solve with the filled one, or the next step undoes the filling."
)
def known_noise_left(x_t, x_0, known, mask, a, b):
    return [torch.where(mask, known, x_0), (x_t - a * x_0) / b]


@keep_known.mistake("Your eps is made of `known` everywhere. Outside the mask it means nothing: use the filled x_0.")
def known_noise_of_known(x_t, x_0, known, mask, a, b):
    return [torch.where(mask, known, x_0), (x_t - a * known) / b]


@keep_known.mistake("a is missing in eps: x_t holds a x_0, so subtract that.")
def known_signal_factor_missing(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - filled) / b]


@keep_known.mistake("The division by b is missing: x_t - a x_0 is b eps.")
def known_noise_not_divided(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, x_t - a * filled]


@keep_known.mistake("You divided by a: x_t - a x_0 is b eps. That is the noise's factor.")
def known_divided_by_signal_factor(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - a * filled) / a]


@keep_known.mistake("You multiplied by b. x_t - a x_0 is b eps: divide.")
def known_noise_multiplied(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - a * filled) * b]


@keep_known.mistake(
    "You divided by b^2, the noise's variance: that is the score without its sign. eps is divided by b."
)
def known_noise_by_variance(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - a * filled) / b**2]


@keep_known.mistake("You divided by sqrt(b). b is a factor already, not a variance.")
def known_noise_by_root(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - a * filled) / b**0.5]


@keep_known.mistake("You took a for alpha_bar_t: sqrt(a) and sqrt(1 - a). Here a and b are the factors themselves.")
def known_a_as_alpha_bar(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - a**0.5 * filled) / (1 - a) ** 0.5]


@keep_known.mistake("In eps a and b have changed places: x_t = a x_0 + b eps, solved for eps.")
def known_factors_swapped(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t - b * filled) / a]


@keep_known.mistake("The sign of your eps is wrong: (x_t - a x_0) / b.")
def known_noise_negative(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (a * filled - x_t) / b]


@keep_known.mistake("You added a x_0 in eps. Solve x_t = a x_0 + b eps: it is subtracted.")
def known_signal_added(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, (x_t + a * filled) / b]


@keep_known.mistake("Brackets: you divided a x_0 alone by b. All of x_t - a x_0 is divided.")
def known_brackets(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, x_t - a * filled / b]


@keep_known.mistake("Your eps was scaled by a as well: (x_t - a x_0) / b is eps as it is.")
def known_noise_scaled(x_t, x_0, known, mask, a, b):
    filled = torch.where(mask, known, x_0)
    return [filled, a * (x_t - a * filled) / b]


@keep_known.mistake("You filled in x_t where the picture is known. What is filled is the clean `known`: this is x_0.")
def known_filled_with_noised(x_t, x_0, known, mask, a, b):
    return _filled(torch.where(mask, x_t, x_0), x_t, a, b)


@keep_known.mistake("You filled `known` into x_t. It goes into the prediction x_0; x_t stays as it is.")
def known_filled_into_noised(x_t, x_0, known, mask, a, b):
    return _filled(torch.where(mask, known, x_t), x_t, a, b)


@keep_known.mistake("You multiplied `known` by a, as in x_t. Into x_0 it goes clean.")
def known_scaled_down(x_t, x_0, known, mask, a, b):
    return _filled(torch.where(mask, a * known, x_0), x_t, a, b)


@keep_known.mistake("You noised `known` before you filled it in. x_0 is clean: RePaint noises what it puts into x_t.")
def known_noised(x_t, x_0, known, mask, a, b):
    noised = a * known + x_t - a * x_0  # with the prediction's eps
    return _filled(torch.where(mask, noised, x_0), x_t, a, b)


@keep_known.mistake("You added `known` to the prediction where it is known. It takes the prediction's place.")
def known_added(x_t, x_0, known, mask, a, b):
    return _filled(x_0 + mask * known, x_t, a, b)


@keep_known.mistake("You put `known` everywhere. Outside the mask the network's x_0 stays.")
def known_everywhere(x_t, x_0, known, mask, a, b):
    return _filled(known, x_t, a, b)


@keep_known.mistake("Nothing is filled in: where the mask is True, `known` belongs.")
def known_nowhere(x_t, x_0, known, mask, a, b):
    return _filled(x_0, x_t, a, b)


@keep_known.mistake("Outside the mask you have 0. There the network's x_0 stays.")
def known_zero_outside(x_t, x_0, known, mask, a, b):
    return _filled(mask * known, x_t, a, b)


@keep_known.mistake("Where the mask is True you have 0. There `known` belongs.")
def known_zero_inside(x_t, x_0, known, mask, a, b):
    return _filled(~mask * x_0, x_t, a, b)


@keep_known.mistake(
    "Where the mask is True you averaged `known` and x_0. What is known is known: it takes x_0's place."
)
def known_averaged(x_t, x_0, known, mask, a, b):
    return _filled(torch.where(mask, (known + x_0) / 2, x_0), x_t, a, b)


@keep_known.mistake("Your mask is transposed: rows and columns have changed places.")
def known_mask_transposed(x_t, x_0, known, mask, a, b):
    return keep_known(x_t, x_0, known, mask.mT, a, b)


@keep_known.mistake("You filled in the first picture alone. The mask holds for all of them.")
def known_first_alone(x_t, x_0, known, mask, a, b):
    filled = torch.cat([torch.where(mask, known[:1], x_0[:1]), x_0[1:]])
    return _filled(filled, x_t, a, b)


@keep_known.mistake("You filled in the first channel alone. The mask holds for all of them.")
def known_first_channel_alone(x_t, x_0, known, mask, a, b):
    filled = torch.cat([torch.where(mask, known[:, :1], x_0[:, :1]), x_0[:, 1:]], 1)
    return _filled(filled, x_t, a, b)


@keep_known.mistake(
    "Where the picture is known you set eps to 0. It is (x_t - a x_0) / b there, too: x_t is noised everywhere."
)
def known_noise_cleared(x_t, x_0, known, mask, a, b):
    return [torch.where(mask, known, x_0), ~mask * (x_t - a * x_0) / b]


@keep_known.mistake("Your second result is x_t. It is the eps that makes x_t of the filled x_0.")
def known_noised_returned(x_t, x_0, known, mask, a, b):
    return [torch.where(mask, known, x_0), x_t]


@keep_known.mistake("Your two results have changed places: first the filled x_0, then its eps.")
def known_order_swapped(x_t, x_0, known, mask, a, b):
    return keep_known(x_t, x_0, known, mask, a, b)[::-1]


@keep_known.mistake("You returned the filled x_0 alone. A sampler needs its eps as well.")
def known_filled_alone(x_t, x_0, known, mask, a, b):
    return keep_known(x_t, x_0, known, mask, a, b)[0]


@keep_known.mistake("You returned eps alone. The first result is the filled x_0.")
def known_noise_alone(x_t, x_0, known, mask, a, b):
    return keep_known(x_t, x_0, known, mask, a, b)[1]


# 13.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "13.5",
    title="Along the great circle",
    hints=(
        "Flatten each noise to one vector of c h w numbers: start.flatten(1). The cosine of a pair is its dot product "
        "over the product of the two lengths.",
        "F.cosine_similarity(start.flatten(1), end.flatten(1), dim=1) gives it, (n,), and torch.acos the angle, in "
        "radians.",
        "One angle a pair: give it the shape (n, 1, 1, 1) before it meets the noises.",
    ),
)
def between(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Go from one noise to another along the great circle (slerp; Shoemake 1985), so that no step leaves the noise.

    A noise of c h w standard normal numbers has a length near sqrt(c h w). The straight way cuts through the sphere of
    that radius, and is too short in the middle; the arc stays on it. With the angle between the two noises as vectors:
    sin((1 - share) angle) / sin(angle) start + sin(share angle) / sin(angle) end.

    start, end: (n, c, h, w), n pairs of noises, none of them parallel.
    share: how much of the way is done, from 0 (start) to 1 (end).
    Returns the noises between, each pair along its own arc, (n, c, h, w).
    """
    cosine = F.cosine_similarity(start.flatten(1), end.flatten(1), dim=1)
    angle = cosine.acos()[:, None, None, None]
    return (((1 - share) * angle).sin() * start + (share * angle).sin() * end) / angle.sin()


def pairs(rng: torch.Generator, n: int, c: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """n pairs of noises at random angles in 0.6..2.6 radians, none within 0.15 of a right angle; of several lengths."""
    start, other = normal(rng, n, c, h, w), normal(rng, n, c, h, w)
    off = 0.15 + 0.8 * torch.rand(n, generator=rng)
    angle = _wide(math.pi / 2 + torch.where(torch.rand(n, generator=rng) < 0.5, off, -off))
    dot, size = (start * other).sum((1, 2, 3), keepdim=True), start.square().sum((1, 2, 3), keepdim=True)
    other = other - dot / size * start  # at a right angle to start
    other = other * (size / other.square().sum((1, 2, 3), keepdim=True)).sqrt()
    longer = 0.7 + 0.8 * torch.rand(n, 1, 1, 1, generator=rng)
    return start, longer * (angle.cos() * start + angle.sin() * other)


def shares(rng: torch.Generator) -> tuple[float, float, float]:
    """Three shares in (0, 1), none near the middle or the ends."""
    one, two, three = torch.rand(3, generator=rng).tolist()
    return 0.2 + 0.2 * one, 0.6 + 0.2 * two, 0.25 + 0.15 * three


@between.check
def test_between_matches_the_formula(student, rng):
    """agrees with the formula, for several sizes and shares, each pair with its own angle"""
    for shape, share in zip(((3, 2, 3, 4), (4, 4, 4, 4), (1, 4, 3, 2)), shares(rng), strict=True):
        start, end = pairs(rng, *shape)
        agree(student.between(start, end, share), between(start, end, share))


@between.check
def test_between_at_the_ends(student, rng):
    """at 0 it is the start, at 1 the end"""
    start, end = pairs(rng, 3, 2, 4, 5)
    agree(student.between(start, end, 0.0), start)
    agree(student.between(start, end, 1.0), end)


@between.check
def test_between_there_and_back(student, rng):
    """the way back is the same way"""
    start, end = pairs(rng, 2, 3, 4, 3)
    for share in shares(rng):
        agree(student.between(end, start, 1 - share), student.between(start, end, share))


@between.check
def test_between_goes_evenly(student, rng):
    """noises of one length: all between have that length, and their angle from the start grows evenly with the share"""
    start, end = pairs(rng, 3, 2, 3, 4)
    length = (start.square().sum((1, 2, 3)) / end.square().sum((1, 2, 3))).sqrt()
    end = end * _wide(length)
    angle = F.cosine_similarity(start.flatten(1), end.flatten(1)).acos()
    for share in (0.25, 0.5, 0.8):
        middle = student.between(start, end, share)
        agree(middle.flatten(1).norm(dim=1), start.flatten(1).norm(dim=1))
        agree(F.cosine_similarity(start.flatten(1), middle.flatten(1)).acos(), share * angle, 1e-3)


@between.check
def test_between_stays_noise(student, rng):
    """half way between two noises of 4096 numbers there is noise: its deviation is 1, not 0.71"""
    start, end = normal(rng, 2, 4, 32, 32), normal(rng, 2, 4, 32, 32)
    deviation = student.between(start, end, 0.5).flatten(1).std(1)
    assert ((deviation - 1).abs() < 0.07).all()  # 6 standard errors, 1 / sqrt(2 * 4096)


def _cosine(start: Tensor, end: Tensor) -> Tensor:
    """The cosine of each pair, (n, 1, 1, 1)."""
    return _wide(F.cosine_similarity(start.flatten(1), end.flatten(1), dim=1))


def _arc(start: Tensor, end: Tensor, share: float, angle: Tensor) -> Tensor:
    return (((1 - share) * angle).sin() * start + (share * angle).sin() * end) / angle.sin()


def _long(x: Tensor) -> Tensor:
    """The length of each noise, (n, 1, 1, 1)."""
    return _wide(x.flatten(1).norm(dim=1))


@between.mistake("That is the straight way. It cuts through the sphere, and half way the deviation is near 0.71.")
def between_linear(start, end, share):
    return (1 - share) * start + share * end


@between.mistake("You went straight and divided by sqrt((1 - share)^2 + share^2): right for a right angle alone.")
def between_linear_by_variance(start, end, share):
    return ((1 - share) * start + share * end) / math.hypot(1 - share, share)


@between.mistake(
    "You went straight and restored the start's length: on the sphere, but at an uneven pace. Use the sines."
)
def between_linear_normalised(start, end, share):
    straight = (1 - share) * start + share * end
    return straight / _long(straight) * _long(start)


@between.mistake("You went straight and divided by the deviation: on the sphere, but at an uneven pace. Use the sines.")
def between_linear_by_deviation(start, end, share):
    straight = (1 - share) * start + share * end
    return straight / straight.std((1, 2, 3), keepdim=True)


@between.mistake("You went straight and made the length 1. A noise has a length near sqrt(c h w); and use the sines.")
def between_linear_unit(start, end, share):
    straight = (1 - share) * start + share * end
    return straight / _long(straight)


@between.mistake(
    "You mixed with sqrt(1 - share) and sqrt(share): that keeps the deviation of independent noises, but is no arc."
)
def between_roots(start, end, share):
    return (1 - share) ** 0.5 * start + share**0.5 * end


@between.mistake("You took every angle for a right one. Noises of many numbers are near it; each pair has its own.")
def between_right_angle(start, end, share):
    return math.cos(share * math.pi / 2) * start + math.sin(share * math.pi / 2) * end


@between.mistake("You took one angle from the whole batch. Each pair has its own: flatten(1) keeps the batch.")
def between_angle_of_batch(start, end, share):
    return _arc(start, end, share, F.cosine_similarity(start.flatten(), end.flatten(), dim=0).acos())


@between.mistake("You took the mean angle of the batch. Each pair has its own.")
def between_mean_angle(start, end, share):
    return _arc(start, end, share, _cosine(start, end).acos().mean())


@between.mistake("You took the first pair's angle for all. Each pair has its own.")
def between_first_angle(start, end, share):
    return _arc(start, end, share, _cosine(start, end)[:1].acos())


@between.mistake(
    "You took an angle at each place, over the channels. A noise is one vector of c h w numbers: flatten(1)."
)
def between_angle_of_place(start, end, share):
    return _arc(start, end, share, F.cosine_similarity(start, end, dim=1)[:, None].acos())


@between.mistake("You took an angle for each channel. A noise is one vector of c h w numbers: flatten(1).")
def between_angle_of_channel(start, end, share):
    return _arc(start, end, share, F.cosine_similarity(start.flatten(2), end.flatten(2), dim=2)[..., None, None].acos())


@between.mistake("You took an angle for each row of a picture, over its last axis. A noise is one vector: flatten(1).")
def between_angle_of_row(start, end, share):
    return _arc(start, end, share, F.cosine_similarity(start, end, dim=-1)[..., None].acos())


@between.mistake("The angles, one a pair, meet the last axis here, the columns. Give them the shape (n, 1, 1, 1).")
def between_meets_last_axis(start, end, share):
    return _arc(start, end, share, _cosine(start, end).flatten().acos())


@between.mistake("share and 1 - share have changed places: at 0 it is the start.")
def between_share_swapped(start, end, share):
    return between(start, end, 1 - share)


@between.mistake("Your angle is in degrees. torch.sin takes radians, as torch.acos gives them.")
def between_degrees(start, end, share):
    return _arc(start, end, share, _cosine(start, end).acos().rad2deg())


@between.mistake("The division by sin(angle) is missing: at 0 the start would come back shortened.")
def between_not_divided(start, end, share):
    angle = _cosine(start, end).acos()
    return _arc(start, end, share, angle) * angle.sin()


@between.mistake("You multiplied by sin(angle). Divide by it.")
def between_multiplied(start, end, share):
    angle = _cosine(start, end).acos()
    return _arc(start, end, share, angle) * angle.sin() ** 2


@between.mistake("You divided by the angle. It is its sine that belongs below.")
def between_divided_by_angle(start, end, share):
    angle = _cosine(start, end).acos()
    return _arc(start, end, share, angle) * angle.sin() / angle


@between.mistake("Brackets: you divided the end's part alone by sin(angle). Both parts are divided.")
def between_end_divided_alone(start, end, share):
    angle = _cosine(start, end).acos()
    return ((1 - share) * angle).sin() * start + (share * angle).sin() * end / angle.sin()


@between.mistake("Brackets: you divided the start's part alone by sin(angle). Both parts are divided.")
def between_start_divided_alone(start, end, share):
    angle = _cosine(start, end).acos()
    return ((1 - share) * angle).sin() / angle.sin() * start + (share * angle).sin() * end


@between.mistake("You took cosines where the sines belong: at 0 the end must be gone, and sin(0) is 0.")
def between_cosines(start, end, share):
    angle = _cosine(start, end).acos()
    return (((1 - share) * angle).cos() * start + (share * angle).cos() * end) / angle.sin()


@between.mistake("You took cosines everywhere. All three are sines.")
def between_cosines_everywhere(start, end, share):
    angle = _cosine(start, end).acos()
    return (((1 - share) * angle).cos() * start + (share * angle).cos() * end) / angle.cos()


@between.mistake(
    "You mixed with cos(share angle) and sin(share angle). That ends at the end only where it is at a right angle."
)
def between_cosine_and_sine(start, end, share):
    angle = _cosine(start, end).acos()
    return (share * angle).cos() * start + (share * angle).sin() * end


@between.mistake("You took the cosine for the angle. The angle is its acos.")
def between_cosine_as_angle(start, end, share):
    return _arc(start, end, share, _cosine(start, end))


@between.mistake("You took asin of the cosine. The angle is its acos.")
def between_asin(start, end, share):
    return _arc(start, end, share, _cosine(start, end).asin())


@between.mistake("You took cos where acos belongs: from the cosine to the angle.")
def between_cos_of_cosine(start, end, share):
    return _arc(start, end, share, _cosine(start, end).cos())


@between.mistake("You took the size of the cosine. Noises may lie more than a right angle apart: keep its sign.")
def between_size_of_cosine(start, end, share):
    return _arc(start, end, share, _cosine(start, end).abs().acos())


@between.mistake("The sign of your cosine is wrong: the angle is then that to the opposite of the end.")
def between_sign_of_cosine(start, end, share):
    return _arc(start, end, share, (-_cosine(start, end)).acos())


@between.mistake("You took the dot product for the cosine. Divide it by both lengths; above 1, acos is NaN.")
def between_dot_product(start, end, share):
    return _arc(start, end, share, _wide((start * end).sum((1, 2, 3))).acos())


@between.mistake(
    "You divided the dot product by the number of numbers, c h w. Divide it by the two noises' own lengths."
)
def between_mean_product(start, end, share):
    return _arc(start, end, share, _wide((start * end).mean((1, 2, 3))).acos())


@between.mistake("You divided the dot product by one length alone. Divide it by both.")
def between_one_length(start, end, share):
    return _arc(start, end, share, (start * end).sum((1, 2, 3), keepdim=True).div(_long(start)).acos())


@between.mistake("You divided the dot product by the start's length squared. It is divided by both lengths, one each.")
def between_length_squared(start, end, share):
    return _arc(start, end, share, (start * end).sum((1, 2, 3), keepdim=True).div(_long(start) ** 2).acos())


@between.mistake(
    "You made both noises of length 1 and mixed those. The lengths are for the angle alone: mix the noises as they are."
)
def between_unit_noises(start, end, share):
    return between(start / _long(start), end / _long(end), share)


@between.mistake(
    "You subtracted the means before you took the cosine: that is a correlation. The angle is that from 0."
)
def between_correlation(start, end, share):
    angle = _cosine(start - start.mean((1, 2, 3), keepdim=True), end - end.mean((1, 2, 3), keepdim=True)).acos()
    return _arc(start, end, share, angle)


@between.mistake("You took sin(1 - share) times the angle. The sine is of the product, (1 - share) angle.")
def between_sine_of_share(start, end, share):
    angle = _cosine(start, end).acos()
    return (math.sin(1 - share) * angle * start + math.sin(share) * angle * end) / angle.sin()


@between.mistake("You took the sine of angle - share. It is of (1 - share) angle, a product.")
def between_angle_less_share(start, end, share):
    angle = _cosine(start, end).acos()
    return ((angle - share).sin() * start + (share * angle).sin() * end) / angle.sin()


@between.mistake(
    "You brought the result to the start's length. The formula leaves it as it comes, and ends at the end's."
)
def between_length_restored(start, end, share):
    middle = between(start, end, share)
    return middle / _long(middle) * _long(start)


@between.mistake("You subtracted the end's part: the two parts are added.")
def between_subtracted(start, end, share):
    angle = _cosine(start, end).acos()
    return (((1 - share) * angle).sin() * start - (share * angle).sin() * end) / angle.sin()
