"""Notebook 11, CLIP: Radford et al. 2021 unless another paper is named. C23 is a claim of the course.

Symbols: b pairs of a picture and its caption, n tokens in a text, d numbers in an embedding; the cosines times `scale`,
which is 1 / temperature, are the logits.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

INF = float("inf")

# 11.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "11.1",
    title="Merge a pair",
    hints=(
        "Walk from left to right with an index i, and build a new list. tokens[i : i + 2] == pair asks whether the "
        "pair begins at i, and is False, with no error, at the last token.",
        "Where the pair begins, append new and go on two places; elsewhere append tokens[i] and go on one. A for loop "
        "cannot go two places at once: take `while i < len(tokens)`.",
    ),
)
def merge_pair(tokens: list[int], pair: list[int], new: int) -> list[int]:
    """Do one merge of byte-pair encoding (Sennrich, Haddow and Birch 2016, algorithm 1).

    Wherever the two tokens of the pair stand side by side, in this order, they become the one token `new`. Search from
    the left; a token that is part of one merge is part of no other: [7, 7, 7] with the pair [7, 7] becomes [new, 7].

    tokens: a list of whole numbers; it may be empty.
    pair: a list of two whole numbers, which may be equal.
    new: the number of the merged pair; it does not occur in tokens.
    Returns the tokens after the merge, a new list; tokens stays as it is.
    """
    merged, i = [], 0
    while i < len(tokens):
        if tokens[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def text_with_pair(rng: torch.Generator, tail: list[int]) -> tuple[list[int], list[int], int]:
    """Tokens, a pair of different ones, and the new one. Also in it: the pair twice side by side, turned round, each
    half alone, and numbers that end or begin with the pair's digits."""
    a, b, c = (torch.randperm(7, generator=rng)[:3] + 2).tolist()
    parts = [[a, b, a, b], [c, a, b], [b, a, c], [a, c], [c, b], [10 + a, b], [a, 10 * b + 1], [c, c]]
    order = torch.randperm(len(parts), generator=rng).tolist()
    last = [[a, b, c][i] for i in tail]
    return [token for i in order for token in parts[i]] + last, [a, b], 258 + a


@merge_pair.check
def test_merge_matches_the_algorithm(student, rng):
    """agrees with the merge for random tokens, with the pair in the middle, at the end and at the start"""
    for tail in ([2, 0], [2, 0, 1], [1]):
        agree(student.merge_pair(*(args := text_with_pair(rng, tail))), merge_pair(*args))
    agree(student.merge_pair([3, 4, 5], [3, 4], 300), [300, 5])


@merge_pair.check
def test_merge_of_equal_tokens(student, rng):
    """of a run of equal tokens, it merges from the left and uses no token twice"""
    a, c = (torch.randperm(90, generator=rng)[:2] + 2).tolist()
    for runs in ((3, 2, 5, 4), (2, 1, 7), (5,)):
        tokens = [token for run in runs for token in [*[a] * run, c]]
        agree(student.merge_pair(tokens, [a, a], 258), merge_pair(tokens, [a, a], 258))


@merge_pair.check
def test_merge_loses_nothing(student, rng):
    """written out again, each new token as its pair, the text is what it was; and the pair is gone"""
    tokens, pair, new = text_with_pair(rng, [0])
    merged = student.merge_pair(tokens, pair, new)
    assert [old for token in merged for old in (pair if token == new else [token])] == tokens
    assert all(merged[i : i + 2] != pair for i in range(len(merged)))


@merge_pair.check
def test_merge_of_nothing(student, rng):
    """where the pair is not there, the tokens stay as they are: also of one token, and of none"""
    a, b, c = (torch.randperm(90, generator=rng)[:3] + 2).tolist()
    for tokens in ([b, a, c, a, a], [a], []):
        agree(student.merge_pair(tokens, [a, b], 258), tokens)


def _starts(tokens: list[int], pair: list[int]) -> list[int]:
    """Where the pair begins, occurrences that overlap included."""
    return [i for i in range(len(tokens)) if tokens[i : i + 2] == pair]


@merge_pair.mistake("You merged the first occurrence alone. One merge replaces the pair wherever it occurs.")
def first_occurrence_only(tokens, pair, new):
    i = next(iter(_starts(tokens, pair)), None)
    return list(tokens) if i is None else [*tokens[:i], new, *tokens[i + 2 :]]


@merge_pair.mistake(
    "The pair's second token stays behind new. Go on two places after a merge; in a for loop i += 2 does not do that."
)
def second_stays(tokens, pair, new):
    return [new if tokens[i : i + 2] == pair else tokens[i] for i in range(len(tokens))]


@merge_pair.mistake(
    "The pair's second token stays behind new, and the last token is lost. After a merge go on two places; visit the "
    "last token too."
)
def second_stays_last_lost(tokens, pair, new):
    return second_stays(tokens, pair, new)[:-1]


@merge_pair.mistake("The pair's first token stays in front of new. Both tokens of the pair make way for it.")
def first_stays(tokens, pair, new):
    starts = _starts(tokens, pair)
    return [new if i - 1 in starts else token for i, token in enumerate(tokens)]


@merge_pair.mistake("You put new behind the pair and left the pair standing. new takes the place of both.")
def pair_left_standing(tokens, pair, new):
    starts = _starts(tokens, pair)
    return [out for i, token in enumerate(tokens) for out in ([token, new] if i - 1 in starts else [token])]


@merge_pair.mistake("You put new between the two tokens of the pair. It takes the place of both.")
def put_between(tokens, pair, new):
    starts = _starts(tokens, pair)
    return [out for i, token in enumerate(tokens) for out in ([token, new] if i in starts else [token])]


@merge_pair.mistake("You appended new at the end of the text. It stands where the pair stood.")
def appended_at_the_end(tokens, pair, new):
    return [*tokens, new]


@merge_pair.mistake("The last token is lost: it has no right neighbour, but still belongs to the text.")
def last_lost(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens) - 1:
        merged.append(new if tokens[i : i + 2] == pair else tokens[i])
        i += 2 if tokens[i : i + 2] == pair else 1
    return merged


@merge_pair.mistake("The pair is not merged at the very end of the text: your last place to compare is one too early.")
def not_at_the_end(tokens, pair, new):
    if tokens[-2:] != pair:
        return merge_pair(tokens, pair, new)
    return [*merge_pair(tokens[:-1], pair, new), tokens[-1]]


@merge_pair.mistake(
    "The pair is not merged at the very start of the text: the first pair to compare begins at index 0."
)
def not_at_the_start(tokens, pair, new):
    return [*tokens[:1], *merge_pair(tokens[1:], pair, new)]


@merge_pair.mistake(
    "You looked at tokens[i + 1] where i is the last index. Compare tokens[i : i + 2], which is merely shorter there."
)
def beyond_the_end(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens):
        found = tokens[i] == pair[0] and tokens[i + 1] == pair[1]
        merged.append(new if found else tokens[i])
        i += 2 if found else 1
    return merged


@merge_pair.mistake("You merged the pair turned round as well. The order counts: [a, b] is not [b, a].")
def order_ignored(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens):
        found = sorted(tokens[i : i + 2]) == sorted(pair)
        merged.append(new if found else tokens[i])
        i += 2 if found else 1
    return merged


@merge_pair.mistake("You merged [b, a] in place of [a, b]: the pair's first token stands on the left.")
def pair_turned_round(tokens, pair, new):
    return merge_pair(tokens, pair[::-1], new)


@merge_pair.mistake(
    "You replaced every token that is one of the two. Only side by side, in this order, are they a pair."
)
def each_replaced(tokens, pair, new):
    return [new if token in pair else token for token in tokens]


@merge_pair.mistake("You merge where one of the two tokens fits. Both must: `and`, not `or`.")
def one_fits(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens):
        found = i + 1 < len(tokens) and (tokens[i] == pair[0] or tokens[i + 1] == pair[1])
        merged.append(new if found else tokens[i])
        i += 2 if found else 1
    return merged


@merge_pair.mistake("You looked at the first token of the pair alone and took the next for its second without a look.")
def first_fits(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens):
        merged.append(new if tokens[i] == pair[0] else tokens[i])
        i += 2 if tokens[i] == pair[0] else 1
    return merged


@merge_pair.mistake("You took the pairs out and put nothing in their place: new stands where each of them stood.")
def taken_out(tokens, pair, new):
    return [token for token in merge_pair(tokens, pair, new) if token != new]


@merge_pair.mistake(
    "Of two pairs side by side you merge only the first: after a merge, compare again at the next token."
)
def side_by_side(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens):
        if tokens[i : i + 2] == pair:
            merged.append(new)
            i += 2
        merged.extend(tokens[i : i + 1])
        i += 1
    return merged


@merge_pair.mistake(
    "You replaced in a text of digits, where '3 4' is also found in '13 4' and in '3 41'. Compare the numbers "
    "themselves."
)
def in_a_string(tokens, pair, new):
    text = " ".join(map(str, tokens)).replace(f"{pair[0]} {pair[1]}", str(new))
    return [int(word) for word in text.split()]


@merge_pair.mistake("You gave each occurrence another number. Every occurrence of the pair becomes the same new.")
def numbered(tokens, pair, new):
    merged: list[int] = []
    for token in merge_pair(tokens, pair, new):
        merged.append(new + sum(other >= new for other in merged) if token == new else token)
    return merged


@merge_pair.mistake(
    "You added the two numbers of the pair. They are names, not amounts: the merged pair is called new."
)
def summed(tokens, pair, new):
    return [sum(pair) if token == new else token for token in merge_pair(tokens, pair, new)]


@merge_pair.mistake(
    "Nothing was merged. A tuple never equals a list, (a, b) == [a, b] is False: compare tokens[i : i + 2] == pair, "
    "both lists."
)
def nothing_merged(tokens, pair, new):
    return list(tokens)


@merge_pair.mistake(
    "The merge is right, but you changed the list you were given. Build a new one, or start with list(tokens)."
)
def list_changed(tokens, pair, new):
    tokens[:] = merge_pair(tokens, pair, new)
    return tokens


@merge_pair.mistake(
    "You merged from the right. Of three equal tokens the first two make the pair: search from the left."
)
def from_the_right(tokens, pair, new):
    return merge_pair(tokens[::-1], pair[::-1], new)[::-1]


@merge_pair.mistake(
    "You used a token in two merges: of three equal tokens the middle one belongs to the first pair alone."
)
def overlapping(tokens, pair, new):
    starts = _starts(tokens, pair)
    return [new if i in starts else token for i, token in enumerate(tokens) if i in starts or i - 1 not in starts]


@merge_pair.mistake("You merged a whole run of equal tokens into one. Each new stands for two tokens, and no more.")
def whole_run(tokens, pair, new):
    starts = _starts(tokens, pair)
    return [new if i in starts else t for i, t in enumerate(tokens) if i - 1 not in starts]


@merge_pair.mistake(
    "Nothing was merged, for a tuple never equals a list; and the last token is lost. Compare tokens[i : i + 2] == "
    "pair."
)
def nothing_merged_last_lost(tokens, pair, new):
    return tokens[:-1]


@merge_pair.mistake(
    "You go on three places after a merge and lose the token behind the pair. The pair is two places long."
)
def three_places(tokens, pair, new):
    merged, i = [], 0
    while i < len(tokens):
        found = tokens[i : i + 2] == pair
        merged.append(new if found else tokens[i])
        i += 3 if found else 1
    return merged


@merge_pair.mistake("You put the pair itself, a list, into the list. What takes its place is the one number new.")
def pair_in_the_list(tokens, pair, new):
    return [pair if token == new else token for token in merge_pair(tokens, pair, new)]


@merge_pair.mistake("Your `return` stands inside the loop: it ends the function in the first round.")
def returned_in_the_loop(tokens, pair, new):
    return merge_pair(tokens, pair, new)[:1]


# 11.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "11.2",
    title="Look back only",
    hints=(
        "The logits are q @ k.mT / math.sqrt(d), (b, n, n): row i is what token i asks, column j whom it asks.",
        "torch.ones(n, n, dtype=torch.bool).tril() is True on and below the diagonal, where j is at most i: what may "
        "be read.",
        "Hide before the softmax: logits.masked_fill(~mask, float('-inf')). Then exp gives 0 there, and the rest of "
        "the row still adds up to 1.",
    ),
)
def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Let each token read itself and the tokens before it, as CLIP's text encoder does (Radford et al. 2021,
    section 2.4).

    softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1), where token i reads the tokens 0..i only, and its weights
    for these add up to 1.

    q, k, v: (b, n, d), the queries, keys and values of b texts of n tokens.
    Returns what each token reads, (b, n, d).
    """
    n, d = q.shape[1:]
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    logits = q @ k.mT / math.sqrt(d)
    return logits.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v


def queries_keys_values(rng: torch.Generator, b: int, n: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = normal(rng, 3, b, n, d)
    return 1.5 * q, k, v


@causal_attention.check
def test_attention_matches_the_formula(student, rng):
    """agrees with the formula for random queries, keys and values of several sizes"""
    for b, n, d in ((3, 5, 8), (2, 7, 3), (4, 4, 4)):
        args = queries_keys_values(rng, b, n, d)
        agree(student.causal_attention(*args), causal_attention(*args))


@causal_attention.check
def test_attention_does_not_see_what_follows(student, rng):
    """other tokens from place 3 on change nothing before it"""
    one, two = (queries_keys_values(rng, 2, 6, 4) for _ in range(2))
    changed = [torch.cat([x[:, :3], y[:, 3:]], 1) for x, y in zip(one, two, strict=True)]
    agree(student.causal_attention(*changed)[:, :3], student.causal_attention(*one)[:, :3])


@causal_attention.check
def test_attention_of_equal_keys(student, rng):
    """the first token reads itself alone; where all keys are equal, each token reads the mean of the values so far"""
    q, k, v = queries_keys_values(rng, 3, 6, 5)
    agree(student.causal_attention(q, k, v)[:, 0], v[:, 0])
    so_far = v.cumsum(1) / torch.arange(1, 7)[:, None]
    agree(student.causal_attention(q, k[:, :1].expand_as(k), v), so_far)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[2])


def _mask(q: Tensor, diagonal: int = 0) -> Tensor:
    """(n, n), True where a token may be read."""
    return torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril(diagonal)


def _hidden(logits: Tensor, diagonal: int = 0) -> Tensor:
    return logits.masked_fill(~_mask(logits, diagonal), -INF)


@causal_attention.mistake("The mask is missing: every token reads the whole text, also what follows it.")
def attention_unmasked(q, k, v):
    return _logits(q, k).softmax(-1) @ v


@causal_attention.mistake(
    "Your mask is transposed: token i reads itself and what follows. Row i may read the columns 0..i: tril, not triu."
)
def sees_the_future(q, k, v):
    return _logits(q, k).masked_fill(~_mask(q).mT, -INF).softmax(-1) @ v


@causal_attention.mistake(
    "Your mask is inverted: you hide what may be read, and the last token has nothing left. masked_fill fills where "
    "it is True."
)
def mask_inverted(q, k, v):
    return _logits(q, k).masked_fill(_mask(q), -INF).softmax(-1) @ v


@causal_attention.mistake(
    "You hide each token from itself, too; the first then has nothing to read, 0 / 0. The diagonal stays visible."
)
def diagonal_hidden(q, k, v):
    return _hidden(_logits(q, k), -1).softmax(-1) @ v


@causal_attention.mistake(
    "You hide each token from itself, too; the first, with nothing to read, reads all alike. The diagonal stays "
    "visible."
)
def diagonal_hidden_finite(q, k, v):
    return _logits(q, k).masked_fill(~_mask(q, -1), -1e9).softmax(-1) @ v


@causal_attention.mistake("Your mask is one place off: each token reads the next one, too. Token i reads 0..i.")
def sees_the_next(q, k, v):
    return _hidden(_logits(q, k), 1).softmax(-1) @ v


@causal_attention.mistake(
    "You hide after the softmax: the weights that are left no longer add up to 1. Hide before, with -inf."
)
def hidden_after(q, k, v):
    return _logits(q, k).softmax(-1).masked_fill(~_mask(q), 0) @ v


@causal_attention.mistake("You put 0 for the hidden logits. exp(0) is 1, so they still have weight: it takes -inf.")
def hidden_with_0(q, k, v):
    return _logits(q, k).masked_fill(~_mask(q), 0).softmax(-1) @ v


@causal_attention.mistake(
    "You put -inf into the weights, after the softmax. It belongs into the logits: the softmax makes a weight of 0 of "
    "it."
)
def minus_inf_after(q, k, v):
    return _logits(q, k).softmax(-1).masked_fill(~_mask(q), -INF) @ v


@causal_attention.mistake(
    "You added a mask of 0 and 1 to the logits, which makes the others only a little smaller. Hiding takes -inf."
)
def mask_added(q, k, v):
    return (_logits(q, k) + _mask(q)).softmax(-1) @ v


@causal_attention.mistake("0 times inf is NaN: a mask cannot be multiplied by -inf. Use masked_fill, or torch.where.")
def zero_times_inf(q, k, v):
    return (_logits(q, k) + (~_mask(q)).float() * -INF).softmax(-1) @ v


@causal_attention.mistake("The scale is missing: q k^T is divided by sqrt(d), so that its size does not grow with d.")
def scale_missing(q, k, v):
    return _hidden(q @ k.mT).softmax(-1) @ v


@causal_attention.mistake("You divided by d. A sum of d products of unit size is of size sqrt(d): divide by the root.")
def scaled_by_d(q, k, v):
    return _hidden(q @ k.mT / q.shape[2]).softmax(-1) @ v


@causal_attention.mistake("You multiplied by sqrt(d). q k^T is divided by it.")
def scaled_up(q, k, v):
    return _hidden(q @ k.mT * math.sqrt(q.shape[2])).softmax(-1) @ v


@causal_attention.mistake("You divided by sqrt(n), of the number of tokens. d is the last axis, over which q k^T sums.")
def scaled_by_n(q, k, v):
    return _hidden(q @ k.mT / math.sqrt(q.shape[1])).softmax(-1) @ v


@causal_attention.mistake("You divided by sqrt(b): len(q) is the number of texts. d is the last axis, q.shape[-1].")
def scaled_by_b(q, k, v):
    return _hidden(q @ k.mT / math.sqrt(len(q))).softmax(-1) @ v


@causal_attention.mistake("You divided the weights by sqrt(d). The logits are divided, before the softmax.")
def scaled_after(q, k, v):
    return _hidden(q @ k.mT).softmax(-1) / math.sqrt(q.shape[2]) @ v


@causal_attention.mistake(
    "Your softmax runs over the asking tokens. For each of them, a row, the weights of what it reads add up to 1: "
    "dim=-1."
)
def softmax_over_queries(q, k, v):
    return _hidden(_logits(q, k)).softmax(1) @ v


@causal_attention.mistake("Your softmax runs over the texts of the batch. Each text, each row is on its own: dim=-1.")
def softmax_over_texts(q, k, v):
    return _hidden(_logits(q, k)).softmax(0) @ v


@causal_attention.mistake("The softmax is missing: your weights may be negative, and they do not add up to 1.")
def softmax_missing(q, k, v):
    return _logits(q, k).masked_fill(~_mask(q), 0) @ v


@causal_attention.mistake(
    "The softmax is missing, and so -inf itself is multiplied by v: it is there to become 0 in exp."
)
def softmax_missing_inf(q, k, v):
    return _hidden(_logits(q, k)) @ v


@causal_attention.mistake("You took the logarithm of the weights, log_softmax. Values are averaged with the weights.")
def log_weights(q, k, v):
    return _hidden(_logits(q, k)).log_softmax(-1) @ v


@causal_attention.mistake("q and k have changed places: row i is what token i asks, its query, of every key: q k^T.")
def roles_swapped(q, k, v):
    return _hidden(_logits(k, q)).softmax(-1) @ v


@causal_attention.mistake("You averaged the keys. Keys say whom to read; what is read are the values v.")
def keys_for_values(q, k, v):
    return _hidden(_logits(q, k)).softmax(-1) @ k


@causal_attention.mistake("You compared the queries with the values. They are compared with the keys k.")
def values_for_keys(q, k, v):
    return _hidden(_logits(q, v)).softmax(-1) @ v


@causal_attention.mistake("You compared the queries with one another. They are compared with the keys k.")
def queries_for_keys(q, k, v):
    return _hidden(_logits(q, q)).softmax(-1) @ v


@causal_attention.mistake("You returned the weights. They are still to be multiplied by v: weights @ v.")
def weights_returned(q, k, v):
    return _hidden(_logits(q, k)).softmax(-1)


@causal_attention.mistake("k is not transposed: q @ k.mT pairs every query with every key, (b, n, n).")
def not_transposed(q, k, v):
    return q @ k


@causal_attention.mistake(
    "k.T turns all three axes round, the batch too. k.mT, or k.transpose(1, 2), leaves it in front."
)
def all_axes_turned(q, k, v):
    return q @ k.permute(2, 1, 0)


@causal_attention.mistake("You averaged the values so far, all alike. How much each counts is what q and k say.")
def all_alike(q, k, v):
    return _hidden(0 * _logits(q, k)).softmax(-1) @ v


@causal_attention.mistake(
    "Your mask is inverted: you hide what may be read; the last token, with nothing to read, reads all alike. "
    "masked_fill "
    "fills where it is True."
)
def mask_inverted_finite(q, k, v):
    return _logits(q, k).masked_fill(_mask(q), -1e9).softmax(-1) @ v


@causal_attention.mistake(
    "You put +inf for the hidden logits, and inf / inf is NaN. What does not count has the logit -inf."
)
def hidden_with_plus_inf(q, k, v):
    return _logits(q, k).masked_fill(~_mask(q), INF).softmax(-1) @ v


@causal_attention.mistake(
    "Your softmax runs over the texts of the batch; without dim, F.softmax takes the first of three axes. Give dim=-1."
)
def softmax_over_texts_finite(q, k, v):
    return _logits(q, k).masked_fill(~_mask(q), -1e9).softmax(0) @ v


@causal_attention.mistake(
    "You divided by the sum of all weights. Each row adds up to 1 on its own: sum(-1, keepdim=True)."
)
def one_sum_for_all_weights(q, k, v):
    weights = _logits(q, k).softmax(-1).masked_fill(~_mask(q), 0)
    return weights / weights.sum() @ v


@causal_attention.mistake("You divided by the sums of the columns. Each row adds up to 1: sum(-1, keepdim=True).")
def divided_by_columns(q, k, v):
    weights = _logits(q, k).softmax(-1).masked_fill(~_mask(q), 0)
    return weights / weights.sum(1, keepdim=True) @ v


@causal_attention.mistake("You took exp and did not divide by the row's sum: the weights of a token add up to 1.")
def exp_alone(q, k, v):
    return _hidden(_logits(q, k)).exp() @ v


@causal_attention.mistake(
    "You took a sigmoid of each logit: the weights of a token do not add up to 1. It takes the softmax."
)
def sigmoid_for_softmax(q, k, v):
    return _hidden(_logits(q, k)).sigmoid() @ v


@causal_attention.mistake(
    "You cut a triangle out of the result, whose axes are tokens and numbers. What is hidden are pairs of tokens: the "
    "logits."
)
def result_cut(q, k, v):
    return (_logits(q, k).softmax(-1) @ v).tril()


@causal_attention.mistake("You turned the weights before they meet v. Row i holds what token i reads: weights @ v.")
def weights_turned(q, k, v):
    return _hidden(_logits(q, k)).softmax(-1).mT @ v


@causal_attention.mistake(
    "You multiplied q and k number by number, so no token meets another. All pairs of tokens are q @ k.mT, (b, n, n)."
)
def number_by_number(q, k, v):
    return (q * k / math.sqrt(q.shape[2])).softmax(-1) * v


# 11.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "11.3",
    title="Where the text ends",
    hints=(
        "tokens == end is (b, n), True at every end. The first True of a row: turn it into numbers and take "
        "argmax(dim=1), which gives the first of several largest.",
        "One place a row: states[torch.arange(b), first], with two lists of indices of length b, is (b, d).",
    ),
)
def pool_end(states: Tensor, tokens: Tensor, end: int) -> Tensor:
    """Pick the state that stands for the whole text: the one at the first end token (Radford et al. 2021,
    section 2.4).

    A text is START, its words, then `end`; shorter texts are filled up with more of `end`. The first one has read the
    text and nothing else. Other tokens may have larger numbers than `end`, or smaller ones.

    states: (b, n, d), what the encoder gives for each token.
    tokens: (b, n), int64.
    end: the number of the end token; every row has it at least once.
    Returns the states at the first end of each row, (b, d).
    """
    first = (tokens == end).int().argmax(dim=1)
    return states[torch.arange(len(tokens)), first]


def texts(rng: torch.Generator, b: int, n: int, d: int, end: int = 257) -> tuple[Tensor, Tensor, int]:
    """Texts of all lengths, the first without a filling, with words below and above `end`; their states."""
    tokens = torch.randint(0, 2 * end, (b, n), generator=rng)
    tokens[tokens == end] += 1
    tokens[:, 0] = end - 1  # START
    tokens[:, 1] = end + 9  # one word at least is above end
    tokens[:, 2] = end - 9
    length = 3 + torch.randperm(n - 3, generator=rng)[torch.arange(b) % (n - 3)]  # START and the words
    length[0] = n - 1
    tokens[torch.arange(n) >= length[:, None]] = end
    return normal(rng, b, n, d), tokens, end


@pool_end.check
def test_end_is_found(student, rng):
    """finds the first end in texts of all lengths"""
    for b, n, d in ((4, 9, 5), (7, 8, 3), (5, 6, 6)):
        args = texts(rng, b, n, d)
        agree(student.pool_end(*args), pool_end(*args))


@pool_end.check
def test_end_of_longer_fillings(student, rng):
    """filling the texts up further changes nothing"""
    states, tokens, end = texts(rng, 5, 8, 4)
    longer = torch.cat([states, normal(rng, 5, 3, 4)], 1), torch.cat([tokens, torch.full((5, 3), end)], 1)
    agree(student.pool_end(*longer, end), student.pool_end(states, tokens, end))


@pool_end.check
def test_end_of_another_number(student, rng):
    """another number may be the end: the largest of all, or a small one"""
    for end in (50, 1000):
        states, tokens, _ = texts(rng, 6, 7, 4, end)
        agree(student.pool_end(states, tokens, end), pool_end(states, tokens, end))
    tokens = tokens.clamp(max=end)
    tokens[:, 1] = 3
    agree(student.pool_end(states, tokens, end), pool_end(states, tokens, end))


def _first(tokens: Tensor, end: int) -> Tensor:
    return (tokens == end).int().argmax(1)


def _at(states: Tensor, index: Tensor) -> Tensor:
    return states[torch.arange(len(states)), index]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of the states where the mask, (b, n), is True."""
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@pool_end.mistake(
    "You took the last place of the row. In a shorter text that is filling; what stands for it is the first end."
)
def last_place(states, tokens, end):
    return states[:, -1]


@pool_end.mistake(
    "You took the state of START. It stands before the words and, looking back only, has read none of them."
)
def start(states, tokens, end):
    return states[:, 0]


@pool_end.mistake("You took the last word, one place before the first end: that is the token the end comes after.")
def before_the_end(states, tokens, end):
    return _at(states, _first(tokens, end) - 1)


@pool_end.mistake(
    "You took the place after the first end, and a text without filling has none. Places are counted from 0."
)
def after_the_end(states, tokens, end):
    return _at(states, _first(tokens, end) + 1)


@pool_end.mistake(
    "You took the largest token of the row. CLIP's own code may do so, for its end is the largest of all; here it is "
    "not."
)
def largest_token(states, tokens, end):
    return _at(states, tokens.argmax(1))


@pool_end.mistake("You took the smallest token of the row. Compare with end, then search for the first True.")
def smallest_token(states, tokens, end):
    return _at(states, tokens.argmin(1))


@pool_end.mistake(
    "You compared with 257, the number of END in our tokenizer. Which number it is comes in as an argument: end."
)
def end_fixed(states, tokens, end):
    return _at(states, _first(tokens, 257))


@pool_end.mistake("You averaged all places, the filling too. Asked for is one state, that of the first end.")
def mean_of_all(states, tokens, end):
    return states.mean(1)


@pool_end.mistake("You averaged the states up to the first end. Asked for is the state of the end alone.")
def mean_up_to_end(states, tokens, end):
    return _mean(states, torch.arange(tokens.shape[1]) <= _first(tokens, end)[:, None])


@pool_end.mistake("You averaged the states before the end. Asked for is the end's own: it has read them all.")
def mean_before_end(states, tokens, end):
    return _mean(states, tokens != end)


@pool_end.mistake(
    "You averaged the states of the words. Asked for is the state of the first end: it has read them all."
)
def mean_of_words(states, tokens, end):
    return _mean(states, (tokens != end) & (torch.arange(tokens.shape[1]) > 0))


@pool_end.mistake("You averaged over every end of a row. The later ones are filling: take the first alone.")
def mean_of_ends(states, tokens, end):
    return _mean(states, tokens == end)


@pool_end.mistake("You added up the states of every end of a row. The later ones are filling: take the first alone.")
def sum_of_ends(states, tokens, end):
    return (states * (tokens == end)[..., None]).sum(1)


@pool_end.mistake(
    "You took the largest value of each number over all places. Asked for is one state, at the first end."
)
def largest_of_all(states, tokens, end):
    return states.amax(1)


@pool_end.mistake("You used the first text's end for all texts. Each row has its own.")
def end_of_first_text(states, tokens, end):
    return states[:, int(_first(tokens, end)[0])]


@pool_end.mistake(
    "You counted all end tokens of a row and went to that place. The first end stands where the words end."
)
def number_of_ends(states, tokens, end):
    return _at(states, (tokens == end).sum(1).clamp(max=tokens.shape[1] - 1))


@pool_end.mistake("You counted the places from the wrong side: -k counts from the end of the row.")
def from_the_other_side(states, tokens, end):
    return _at(states, tokens.shape[1] - 1 - _first(tokens, end))


@pool_end.mistake("You took the second end. The first one has read the text and nothing else.")
def second_end(states, tokens, end):
    return _at(states, (_first(tokens, end) + 1).clamp(max=tokens.shape[1] - 1))


@pool_end.mistake(
    "states[:, first] takes all b places from every text, (b, b, d). Pair each row with its own: "
    "states[torch.arange(b), first]."
)
def every_place_of_every_text(states, tokens, end):
    return states[:, _first(tokens, end)]


@pool_end.mistake(
    "states[first] takes whole texts: the first axis is the batch. Pair rows and places: states[torch.arange(b), "
    "first]."
)
def texts_by_place(states, tokens, end):
    return states[_first(tokens, end)]


@pool_end.mistake(
    "states[tokens == end] gives a state for every end, the filling too, all texts in one list. Take one a row."
)
def every_end(states, tokens, end):
    return states[tokens == end]


@pool_end.mistake(
    "You took the first b of all end states. A text with filling has several, so later texts are never reached."
)
def first_b_ends(states, tokens, end):
    return states[tokens == end][: len(states)]


@pool_end.mistake("gather picked the first number of each state alone: expand the index to (b, 1, d) first.")
def gathered_one_number(states, tokens, end):
    return states.gather(1, _first(tokens, end)[:, None, None])


@pool_end.mistake("An axis of size 1 is left over, (b, 1, d). One state a text is (b, d): .squeeze(1), or [:, 0].")
def axis_left(states, tokens, end):
    return pool_end(states, tokens, end)[:, None]


@pool_end.mistake("You set the states before the end to 0 and kept the axis of places. Asked for is one state a text.")
def only_masked(states, tokens, end):
    return states * (tokens == end)[..., None]


@pool_end.mistake("You returned the place of the first end. Asked for is the state that stands there.")
def place_returned(states, tokens, end):
    return _first(tokens, end)


@pool_end.mistake(
    "(tokens == end).nonzero() lists every end, the filling too: more places than texts. Take the first of each row."
)
def all_ends_as_places(states, tokens, end):
    return _at(states, (tokens == end).nonzero()[:, 1])


@pool_end.mistake("You used end as a place. It is the number of a token: search for it in tokens.")
def end_as_place(states, tokens, end):
    return states[:, end]


@pool_end.mistake("You took the first token that is at least end. Words may have larger numbers: it must equal end.")
def at_least_end(states, tokens, end):
    return _at(states, (tokens >= end).int().argmax(1))


@pool_end.mistake("You averaged the places of all texts' ends in every text. Each text has one place of its own.")
def mean_over_places(states, tokens, end):
    return states[:, _first(tokens, end)].mean(1)


@pool_end.mistake("You set all but the ends to 0 and averaged over n. Take one state a text, that of the first end.")
def ends_over_n(states, tokens, end):
    return (states * (tokens == end)[..., None]).mean(1)


@pool_end.mistake("You added up the states before the end. Asked for is the end's own: it has read them all.")
def sum_before_end(states, tokens, end):
    return (states * (tokens != end)[..., None]).sum(1)


@pool_end.mistake("You set the ends to 0 and averaged over n. Asked for is the state of the first end itself.")
def words_over_n(states, tokens, end):
    return (states * (tokens != end)[..., None]).mean(1)


@pool_end.mistake("gather picked the first number of each state alone, (b, 1): expand the index to (b, 1, d) first.")
def gathered_one_number_each(states, tokens, end):
    return pool_end(states, tokens, end)[:, :1]


# 11.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "11.4",
    title="The contrastive loss",
    hints=(
        "First give every row length 1: F.normalize(image, dim=1), and text alike. Then a product of matrices gives "
        "all b x b cosines.",
        "Row i of logits = scale * image @ text.mT holds what picture i has with every caption. The right answer is "
        "column i: F.cross_entropy(logits, torch.arange(b)).",
        "The other question, which picture belongs to a caption, is the same with logits.mT. The loss is the mean of "
        "the two.",
    ),
)
def contrastive(image: Tensor, text: Tensor, scale: float) -> Tensor:
    """Compute CLIP's loss (Radford et al. 2021, figure 3): which caption belongs to which picture?

    The logits are the cosines of all b x b pairs, times scale. One cross-entropy asks for each picture which of the b
    captions is its own, the other for each caption which of the b pictures; each is a mean over b.

    image, text: (b, d), embeddings of any length; row i of one belongs to row i of the other.
    scale: a number above 0, 1 / temperature.
    Returns the mean of the two cross-entropies, a tensor of shape ().
    """
    logits = scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).mT
    own = torch.arange(len(image))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own)) / 2


def embeddings(rng: torch.Generator, b: int, d: int) -> tuple[Tensor, Tensor]:
    """Embeddings of pictures and captions that belong together, roughly, each of another length."""
    image = normal(rng, b, d)
    text = image + 0.8 * normal(rng, b, d)
    lengths = 0.3 + 2 * torch.rand(2, b, 1, generator=rng)
    return lengths[0] * image, lengths[1] * text


@contrastive.check
def test_contrastive_matches_figure_3(student, rng):
    """agrees with figure 3 for random embeddings and several scales"""
    for b, d, scale in ((4, 6, 3.0), (7, 3, 5.0), (5, 5, 1.5)):
        args = *embeddings(rng, b, d), scale
        agree(student.contrastive(*args), contrastive(*args))


@contrastive.check
def test_contrastive_by_hand(student, rng):
    """with b pairs at right angles it is log(1 + (b - 1) exp(-scale)), and with all embeddings equal log b"""
    for b, scale in ((3, 2.0), (6, 4.0)):
        agree(
            student.contrastive(torch.eye(b), torch.eye(b), scale), torch.tensor(1 + (b - 1) * math.exp(-scale)).log()
        )
        same = normal(rng, 1, 4).expand(b, 4)
        agree(student.contrastive(same, same, scale), torch.tensor(math.log(b)))


@contrastive.check
def test_contrastive_sees_directions_alone(student, rng):
    """the lengths of the embeddings do not matter, nor which of the two comes first"""
    image, text = embeddings(rng, 6, 4)
    stretch = 0.2 + 3 * torch.rand(2, 6, 1, generator=rng)
    loss = student.contrastive(image, text, 4.0)
    agree(student.contrastive(stretch[0] * image, stretch[1] * text, 4.0), loss)
    agree(student.contrastive(text, image, 4.0), loss)


def _cosines(image: Tensor, text: Tensor) -> Tensor:
    """(b, b), row i of picture i."""
    return F.normalize(image, dim=1) @ F.normalize(text, dim=1).mT


def _both(logits: Tensor) -> Tensor:
    """The mean of the two cross-entropies."""
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own)) / 2


@contrastive.mistake("You used the embeddings as they come. A cosine is of directions: give each row length 1 first.")
def not_normalised(image, text, scale):
    return _both(scale * image @ text.mT)


@contrastive.mistake("You gave the pictures alone length 1. A cosine divides by the lengths of both.")
def text_not_normalised(image, text, scale):
    return _both(scale * F.normalize(image, dim=1) @ text.mT)


@contrastive.mistake("You gave the captions alone length 1. A cosine divides by the lengths of both.")
def image_not_normalised(image, text, scale):
    return _both(scale * image @ F.normalize(text, dim=1).mT)


@contrastive.mistake(
    "You normalised down the columns, over the batch. Each embedding, a row, gets length 1: dim=1, or dim=-1."
)
def normalised_over_the_batch(image, text, scale):
    return _both(scale * F.normalize(image, dim=0) @ F.normalize(text, dim=0).mT)


@contrastive.mistake("You divided by the norm of the whole matrix. Each row has a length of its own: norm(dim=1).")
def one_norm_for_all(image, text, scale):
    return _both(scale * (image / image.norm()) @ (text / text.norm()).mT)


@contrastive.mistake("You divided by the squared length. The length is the root of the sum of squares.")
def squared_length(image, text, scale):
    image, text = (x / x.square().sum(1, keepdim=True) for x in (image, text))
    return _both(scale * image @ text.mT)


@contrastive.mistake("You divided by the sum of absolute values. A cosine takes the root of the sum of squares.")
def absolute_values(image, text, scale):
    return _both(scale * F.normalize(image, p=1, dim=1) @ F.normalize(text, p=1, dim=1).mT)


@contrastive.mistake("You divided by the mean length. Each embedding is divided by its own.")
def mean_length(image, text, scale):
    image, text = (x / x.norm(dim=1).mean() for x in (image, text))
    return _both(scale * image @ text.mT)


@contrastive.mistake("You normalised the products. The embeddings get length 1, before they are multiplied.")
def products_normalised(image, text, scale):
    return _both(scale * F.normalize(image @ text.mT, dim=1))


@contrastive.mistake(
    "You asked for each picture's caption alone (or twice). Transpose the logits for the other question."
)
def picture_to_caption_alone(image, text, scale):
    return F.cross_entropy(scale * _cosines(image, text), torch.arange(len(image)))


@contrastive.mistake(
    "You asked for each caption's picture alone (or twice). Transpose the logits for the other question."
)
def caption_to_picture_alone(image, text, scale):
    return F.cross_entropy(scale * _cosines(text, image), torch.arange(len(image)))


@contrastive.mistake("You added the two cross-entropies. The loss is their mean: half of that.")
def not_halved(image, text, scale):
    return 2 * contrastive(image, text, scale)


@contrastive.mistake("You summed over the batch. Each cross-entropy is a mean over the b pictures or captions.")
def summed_over_the_batch(image, text, scale):
    return len(image) * contrastive(image, text, scale)


@contrastive.mistake("You summed over the batch and over the two questions. The loss is the mean of both.")
def summed_over_both(image, text, scale):
    return 2 * len(image) * contrastive(image, text, scale)


@contrastive.mistake(
    "You left scale out (or took it in before normalising). Cosines alone are too close to tell apart."
)
def scale_left_out(image, text, scale):
    return _both(_cosines(image, text))


@contrastive.mistake("You divided by scale. It is 1 / temperature: the cosines are multiplied by it.")
def scale_divides(image, text, scale):
    return _both(_cosines(image, text) / scale)


@contrastive.mistake("You took exp(scale). CLIP learns a logarithm, but scale here is already 1 / temperature itself.")
def scale_exponentiated(image, text, scale):
    return _both(_cosines(image, text) * math.exp(scale))


@contrastive.mistake("scale is in it twice, with the pictures and with the captions. The cosines get it once.")
def scale_twice(image, text, scale):
    return _both(scale**2 * _cosines(image, text))


@contrastive.mistake("You multiplied the loss by scale. It multiplies the cosines, inside the softmax.")
def scale_on_the_loss(image, text, scale):
    return scale * _both(_cosines(image, text))


@contrastive.mistake("You divided by sqrt(d), as attention does. Cosines are already free of d: only scale is wanted.")
def root_of_d(image, text, scale):
    return _both(scale * _cosines(image, text) / math.sqrt(image.shape[1]))


@contrastive.mistake(
    "The sign is turned round: a loss is small where a picture finds its caption. Cross-entropy is -log p."
)
def sign_of_loss(image, text, scale):
    return -contrastive(image, text, scale)


@contrastive.mistake("The logits have the wrong sign: what fits has a large cosine and must have a large logit.")
def sign_of_logits(image, text, scale):
    return _both(-scale * _cosines(image, text))


@contrastive.mistake("You took the softmax over all b^2 pairs at once. It runs over a row, and then over a column.")
def softmax_over_all_pairs(image, text, scale):
    logits = scale * _cosines(image, text)
    return logits.logsumexp((0, 1)) - logits.diagonal().mean()


@contrastive.mistake("You took softmax twice: F.cross_entropy takes the logits and does it itself.")
def softmax_twice(image, text, scale):
    logits, own = scale * _cosines(image, text), torch.arange(len(image))
    return (F.cross_entropy(logits.softmax(1), own) + F.cross_entropy(logits.mT.softmax(1), own)) / 2


@contrastive.mistake("The logarithm is missing: you averaged 1 - p or -p. A cross-entropy is the mean of -log p.")
def log_missing(image, text, scale):
    logits = scale * _cosines(image, text)
    return -(logits.softmax(0) + logits.softmax(1)).diagonal().mean() / 2


@contrastive.mistake("You averaged 1 - p. A cross-entropy is the mean of -log p.")
def one_minus_p(image, text, scale):
    return 1 + log_missing(image, text, scale)


@contrastive.mistake("You asked of each pair, yes or no: a binary cross-entropy. CLIP chooses one of b, by a softmax.")
def binary(image, text, scale):
    return F.binary_cross_entropy_with_logits(scale * _cosines(image, text), torch.eye(len(image)))


@contrastive.mistake(
    "The wrong pairs are missing: without them all embeddings may fall together. The softmax holds them."
)
def no_negatives(image, text, scale):
    return -scale * _cosines(image, text).diagonal().mean()


@contrastive.mistake("You left the right pair out of the softmax's sum. It runs over all b, the right one included.")
def own_left_out(image, text, scale):
    logits = scale * _cosines(image, text)
    others = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool), -INF)
    return (others.logsumexp(0) + others.logsumexp(1)).mean() / 2 - logits.diagonal().mean()


@contrastive.mistake(
    "You compared squared cosines with 0 and 1. CLIP's loss is a cross-entropy over each row and column."
)
def squares(image, text, scale):
    return (scale * _cosines(image, text) - torch.eye(len(image))).square().mean()


@contrastive.mistake("You gave 0 as the right answer of every row. Picture i belongs to caption i: torch.arange(b).")
def targets_0(image, text, scale):
    logits, own = scale * _cosines(image, text), torch.zeros(len(image), dtype=torch.int64)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own)) / 2


@contrastive.mistake("text is not transposed: image @ text.mT multiplies every picture with every caption, (b, b).")
def text_not_transposed(image, text, scale):
    return _both(image @ text)


@contrastive.mistake(
    "You transposed the first factor: that compares features with features, (d, d). Every picture with every caption "
    "is "
    "image @ text.mT."
)
def features_with_features(image, text, scale):
    return F.cross_entropy(image.mT @ text, torch.arange(len(image)))


@contrastive.mistake(
    "You transposed the first factor: that compares features with features, (d, d). Each picture with each caption is "
    "image @ text.mT."
)
def features_as_pairs(image, text, scale):
    return _both(scale * F.normalize(image, dim=1).mT @ F.normalize(text, dim=1))


@contrastive.mistake(
    "You gave 1 as the right answer of every row, as if it meant yes. It is a column's index: torch.arange(b)."
)
def targets_1(image, text, scale):
    logits, own = scale * _cosines(image, text), torch.ones(len(image), dtype=torch.int64)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own)) / 2


@contrastive.mistake(
    "The logarithm is missing, and so is one question: F.nll_loss wants log_softmax, of rows and of columns."
)
def log_missing_one_way(image, text, scale):
    return -(scale * _cosines(image, text)).softmax(1).diagonal().mean()


@contrastive.mistake("You took a softmax of the embeddings. They get length 1: each row divided by its norm.")
def embeddings_softmaxed(image, text, scale):
    return _both(scale * image.softmax(1) @ text.softmax(1).mT)


@contrastive.mistake(
    "You standardised the embeddings, as a layer norm does. A cosine divides by the length and shifts nothing."
)
def standardised(image, text, scale):
    image, text = (F.layer_norm(x, x.shape[1:]) for x in (image, text))
    return _both(scale * image @ text.mT)


@contrastive.mistake("You averaged -log p over all b^2 pairs. Right answers are those on the diagonal alone.")
def every_pair_right(image, text, scale):
    logits = scale * _cosines(image, text)
    return -(logits.log_softmax(0) + logits.log_softmax(1)).mean() / 2


@contrastive.mistake(
    "You averaged the two probabilities before the logarithm. Each question has its own -log p; average those."
)
def mean_before_log(image, text, scale):
    logits = scale * _cosines(image, text)
    return -((logits.softmax(0) + logits.softmax(1)) / 2).diagonal().log().mean()


@contrastive.mistake("You divided by b once more. cross_entropy is a mean already; of the two take half the sum.")
def divided_by_b(image, text, scale):
    return 2 * contrastive(image, text, scale) / len(image)


@contrastive.mistake("You used distances for cosines: what fits has a small distance, but must have a large logit.")
def distances_for_cosines(image, text, scale):
    return _both(scale * torch.cdist(F.normalize(image, dim=1), F.normalize(text, dim=1)))


@contrastive.mistake("You returned both cross-entropies. The loss is one number, their mean.")
def both_returned(image, text, scale):
    logits, own = scale * _cosines(image, text), torch.arange(len(image))
    return [F.cross_entropy(logits, own), F.cross_entropy(logits.mT, own)]


# 11.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "11.5",
    title="Twins are no negatives",
    hints=(
        "Left out of a softmax is what has logit -inf: logits.masked_fill(..., float('-inf')).",
        "A caption must keep its own picture: take the diagonal out of the mask, also & ~torch.eye(b, "
        "dtype=torch.bool).",
        "Mask first, transpose afterwards: then both directions leave out the same pairs.",
    ),
)
def contrastive_without(logits: Tensor, also: Tensor) -> Tensor:
    """Compute CLIP's loss where some captions are true of more pictures than their own.

    Two pictures of a red heart have one caption. To call the second a wrong answer would be wrong: such pairs are left
    out of both softmaxes, of that over the pictures for each caption and of that over the captions for each picture.

    logits: (b, b), [caption i, picture j], the cosines times scale; caption i belongs to picture i.
    also: (b, b), bool, [i, j] True where caption i is true of picture j as well; it need not be symmetric. The pairs
        [i, i] always count, whatever `also` says of them.
    Returns the mean of the two cross-entropies, each a mean over b, a tensor of shape ().
    """
    own = torch.arange(len(logits))
    twins = also & ~torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(twins, float("-inf"))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own)) / 2


def logits_with_twins(rng: torch.Generator, b: int) -> tuple[Tensor, Tensor]:
    """Logits and `also`, b odd: not symmetric, its diagonal now True, now False; the last caption and the first picture
    have no twins, those of which `also` says nothing to their own pair have some."""
    also = torch.rand(b, b, generator=rng) < 0.35
    also[-1], also[:, 0] = False, False
    odd = torch.arange(1, b, 2)
    also[odd, odd + 1], also[odd - 1, odd] = True, True
    also[torch.arange(b), torch.arange(b)] = torch.arange(b) % 2 == 0
    return 2 * normal(rng, b, b) + torch.eye(b), also


@contrastive_without.check
def test_without_matches_the_loss(student, rng):
    """agrees with the loss without the twins for random logits, where `also` is not symmetric"""
    for b in (5, 7, 9):
        args = logits_with_twins(rng, b)
        agree(student.contrastive_without(*args), contrastive_without(*args))


@contrastive_without.check
def test_without_twins(student, rng):
    """without twins it is the loss of 11.4, whether or not `also` is True for a caption's own picture"""
    logits = 2 * normal(rng, 6, 6)
    for also in (torch.zeros(6, 6, dtype=torch.bool), torch.eye(6, dtype=torch.bool)):
        agree(student.contrastive_without(logits, also), _both(logits))


@contrastive_without.check
def test_without_does_not_see_the_twins(student, rng):
    """other logits of the twins change nothing; and where all are twins, nothing is left to confuse: the loss is 0"""
    logits, also = logits_with_twins(rng, 7)
    twins = also & ~torch.eye(7, dtype=torch.bool)
    changed = torch.where(twins, 3 * normal(rng, 7, 7), logits)
    agree(student.contrastive_without(changed, also), student.contrastive_without(logits, also))
    assert student.contrastive_without(logits, torch.ones_like(also)).abs() < 1e-5


def _twins(also: Tensor) -> Tensor:
    return also & ~torch.eye(len(also), dtype=torch.bool)


def _directions(by_caption: Tensor, by_picture: Tensor) -> Tensor:
    """The mean of two cross-entropies over rows."""
    own = torch.arange(len(by_caption))
    return (F.cross_entropy(by_caption, own) + F.cross_entropy(by_picture, own)) / 2


def _without(logits: Tensor, twins: Tensor) -> Tensor:
    return logits.masked_fill(twins, -INF)


@contrastive_without.mistake(
    "The twins still count. They must go before the softmax; what is set to 0 after it leaves the own pair's p as it "
    "was."
)
def nothing_left_out(logits, also):
    return _both(logits)


@contrastive_without.mistake("You put 0 for the twins' logits. exp(0) is 1, so they still count: it takes -inf.")
def twins_at_0(logits, also):
    return _both(logits.masked_fill(_twins(also), 0))


@contrastive_without.mistake(
    "You put 0 for the twins' logits, and for own pairs where also says so. It takes -inf, and the diagonal always "
    "counts."
)
def twins_and_own_at_0(logits, also):
    return _both(logits.masked_fill(also, 0))


@contrastive_without.mistake(
    "You left out own pairs as well, so a right answer has probability 0. Take the diagonal out of the mask."
)
def own_left_out_too(logits, also):
    return _both(_without(logits, also))


@contrastive_without.mistake("You put +inf for the twins. exp(-inf) is 0: what does not count has the logit -inf.")
def plus_inf(logits, also):
    return _both(logits.masked_fill(_twins(also), INF))


@contrastive_without.mistake(
    "You subtracted 1 where also is True, which makes a twin only a little less likely. Left out is what has logit "
    "-inf."
)
def one_subtracted(logits, also):
    return _both(logits - _twins(also).float())


@contrastive_without.mistake(
    "0 times inf is NaN: a mask cannot be multiplied by -inf. Use masked_fill, or torch.where."
)
def mask_times_inf(logits, also):
    return _both(logits + _twins(also).float() * -INF)


@contrastive_without.mistake(
    "For the pictures you turned the logits, but not the mask: [i, j] becomes [j, i] in both. Mask first, then "
    "transpose."
)
def second_mask_not_turned(logits, also):
    return _directions(_without(logits, _twins(also)), _without(logits.mT, _twins(also)))


@contrastive_without.mistake("Your mask is turned: also[i, j] is of caption i and picture j, as the logits are.")
def mask_turned(logits, also):
    return _both(_without(logits, _twins(also).mT))


@contrastive_without.mistake(
    "For the captions you turned the mask, but not the logits. As they come, both have the captions as rows."
)
def first_mask_turned(logits, also):
    return _directions(_without(logits, _twins(also).mT), _without(logits.mT, _twins(also).mT))


@contrastive_without.mistake(
    "You left the twins out for the captions alone. For a picture, too, a caption that is true of it is no wrong "
    "answer."
)
def captions_alone_masked(logits, also):
    return _directions(_without(logits, _twins(also)), logits.mT)


@contrastive_without.mistake(
    "You left the twins out for the pictures alone. For a caption, too, a picture it is true of is no wrong answer."
)
def pictures_alone_masked(logits, also):
    return _directions(logits, _without(logits, _twins(also)).mT)


@contrastive_without.mistake("Your mask is inverted: you left out the wrong answers and kept the twins.")
def twins_mask_inverted(logits, also):
    eye = torch.eye(len(also), dtype=torch.bool)
    return _both(_without(logits, ~(also | eye)))


@contrastive_without.mistake(
    "Your mask is inverted, and own pairs go with it where also is False. Left out are the twins."
)
def twins_mask_inverted_own(logits, also):
    return _both(_without(logits, ~also))


@contrastive_without.mistake(
    "You left out a pair if either direction says so. also need not be symmetric: a caption may say less than another."
)
def either_direction(logits, also):
    return _both(_without(logits, _twins(also | also.mT)))


@contrastive_without.mistake("You left out a pair only if both directions say so. also[i, j] alone decides on [i, j].")
def both_directions(logits, also):
    return _both(_without(logits, _twins(also & also.mT)))


@contrastive_without.mistake(
    "You counted twins as right answers, with a share of the target each. They are neither right nor wrong: left out."
)
def twins_as_targets(logits, also):
    right = (also | torch.eye(len(also), dtype=torch.bool)).float()
    target = [right / right.sum(1, keepdim=True), right.mT / right.mT.sum(1, keepdim=True)]
    return (F.cross_entropy(logits, target[0]) + F.cross_entropy(logits.mT, target[1])) / 2


@contrastive_without.mistake(
    "You added the twins' probability to that of the own pair, as right answers. Left out, they are in neither sum."
)
def twins_in_the_numerator(logits, also):
    right = _without(logits, ~(also | torch.eye(len(also), dtype=torch.bool)))
    return sum((logits.logsumexp(axis) - right.logsumexp(axis)).mean() for axis in (0, 1)) / 2


@contrastive_without.mistake(
    "You left out every caption and picture that has a twin. Each keeps its question, with a few answers less."
)
def rows_left_out(logits, also):
    own, twins = torch.arange(len(logits)), _twins(also)
    rows, columns = ~twins.any(1), ~twins.any(0)
    return (F.cross_entropy(logits[rows], own[rows]) + F.cross_entropy(logits.mT[columns], own[columns])) / 2


@contrastive_without.mistake(
    "You asked for each caption's picture alone (or twice). The other direction is the same with the masked logits "
    "turned."
)
def captions_alone(logits, also):
    return F.cross_entropy(_without(logits, _twins(also)), torch.arange(len(logits)))


@contrastive_without.mistake(
    "You asked for each picture's caption alone (or twice). The other direction is the same, over the rows."
)
def pictures_alone(logits, also):
    return F.cross_entropy(_without(logits, _twins(also)).mT, torch.arange(len(logits)))


@contrastive_without.mistake("You added the two cross-entropies. The loss is their mean: half of that.")
def without_not_halved(logits, also):
    return 2 * contrastive_without(logits, also)


@contrastive_without.mistake("You summed over the batch. Each cross-entropy is a mean over the b captions or pictures.")
def without_summed(logits, also):
    return len(logits) * contrastive_without(logits, also)


@contrastive_without.mistake("You took softmax twice: F.cross_entropy takes the logits and does it itself.")
def without_softmax_twice(logits, also):
    masked = _without(logits, _twins(also))
    return _directions(masked.softmax(1), masked.mT.softmax(1))


@contrastive_without.mistake("You left the own pair out of the softmax's sum. Left out are its twins alone.")
def own_out_of_the_sum(logits, also):
    others = _without(logits, also | torch.eye(len(also), dtype=torch.bool))
    own = logits.diagonal()
    return ((others.logsumexp(0) - own).mean() + (others.logsumexp(1) - own).mean()) / 2


@contrastive_without.mistake("The sign is turned round: a cross-entropy is -log p, and small where the own pair wins.")
def without_sign(logits, also):
    return -contrastive_without(logits, also)


@contrastive_without.mistake(
    "The loss is right, but you changed the mask you were given: fill_diagonal_ works in place. Use also & "
    "~torch.eye(...)."
)
def also_changed(logits, also):
    also.fill_diagonal_(False)
    return contrastive_without(logits, also)


@contrastive_without.mistake(
    "The loss is right, but you changed the logits you were given. masked_fill, without _, makes new ones."
)
def logits_changed(logits, also):
    logits[_twins(also)] = -INF
    return _both(logits)


@contrastive_without.mistake(
    "You counted twins as right answers, each with the whole target. They are neither right nor wrong: left out."
)
def twins_as_whole_targets(logits, also):
    right = (also | torch.eye(len(also), dtype=torch.bool)).float()
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.mT, right.mT)) / 2


@contrastive_without.mistake(
    "You counted twins as right answers, with the captions' shares for the pictures too. They are neither right nor "
    "wrong: "
    "left out."
)
def twins_as_targets_of_rows(logits, also):
    right = (also | torch.eye(len(also), dtype=torch.bool)).float()
    right = right / right.sum(1, keepdim=True)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.mT, right.mT)) / 2


@contrastive_without.mistake(
    "You put -1 for the twins' logits, a number like any other: they still count. It takes -inf."
)
def twins_at_minus_1(logits, also):
    return _both(logits.masked_fill(_twins(also), -1))


@contrastive_without.mistake("You gave the twins the smallest of all logits, so they still count. It takes -inf.")
def twins_at_the_smallest(logits, also):
    return _both(logits.masked_fill(_twins(also), logits.min().item()))


@contrastive_without.mistake("You used one half of the mask alone. Above and below the diagonal are different pairs.")
def half_of_the_mask(logits, also):
    return _both(_without(logits, also.triu(1)))


@contrastive_without.mistake("You took the softmax over all pairs at once. It runs over a row, and then over a column.")
def without_over_all_pairs(logits, also):
    return _without(logits, _twins(also)).logsumexp((0, 1)) - logits.diagonal().mean()


# 11.6 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "11.6",
    title="CLIP score",
    hints=(
        "Row i with row i, not all pairs: (image * text).sum(1) of rows of length 1, or F.cosine_similarity(image, "
        "text, dim=1).",
        "max with 0, for each pair: .clamp(min=0). Then times w.",
    ),
)
def score(image: Tensor, text: Tensor, w: float) -> Tensor:
    """Compute the CLIP score of each picture with its caption (Hessel et al. 2021, eq. 1): w max(cos, 0).

    image, text: (b, d), embeddings of any length; row i of one belongs to row i of the other.
    w: a number above 0 that stretches the scale: 2.5 in the paper, 100 elsewhere.
    Returns the scores, (b,).
    """
    return w * F.cosine_similarity(image, text, dim=1).clamp(min=0)


def good_and_bad(rng: torch.Generator, b: int, d: int) -> tuple[Tensor, Tensor]:
    """Embeddings of pictures and captions, of which every third does not fit: their cosine is below 0."""
    image, text = embeddings(rng, b, d)
    text[1::3] *= -1
    return image, text


@score.check
def test_score_matches_eq_1(student, rng):
    """agrees with eq. 1 for random embeddings and several w"""
    for b, d, w in ((5, 4, 2.5), (4, 7, 100.0), (6, 6, 1.7)):
        args = *good_and_bad(rng, b, d), w
        agree(student.score(*args), score(*args))


@score.check
def test_score_of_one_direction(student, rng):
    """it is w for embeddings of one direction, whatever their lengths, and 0 for opposite ones"""
    image = normal(rng, 5, 3)
    length = 0.2 + 3 * torch.rand(5, 1, generator=rng)
    agree(student.score(image, length * image, 2.5), torch.full((5,), 2.5))
    assert (student.score(image, -length * image, 100.0).abs() < 1e-6).all()


@score.check
def test_score_of_each_pair(student, rng):
    """each score is that of its own pair: other rows in another order change nothing in it"""
    image, text = good_and_bad(rng, 6, 4)
    order = torch.randperm(6, generator=rng)
    agree(student.score(image[order], text[order], 2.5), student.score(image, text, 2.5)[order])


def _cosine(image: Tensor, text: Tensor) -> Tensor:
    return F.cosine_similarity(image, text, dim=1)


@score.mistake("You compared every picture with every caption, (b, b). Asked for is row i with row i: the diagonal.")
def all_pairs(image, text, w):
    return w * _cosines(image, text).clamp(min=0)


@score.mistake("You averaged each picture over all captions. It has one caption of its own: row i with row i.")
def mean_over_captions(image, text, w):
    return all_pairs(image, text, w).mean(1)


@score.mistake("You took each picture's best caption of the batch. Its own one is judged: row i with row i.")
def best_caption(image, text, w):
    return all_pairs(image, text, w).amax(1)


@score.mistake("You used the embeddings as they come. A cosine divides by the lengths of both.")
def score_not_normalised(image, text, w):
    return w * (image * text).sum(1).clamp(min=0)


@score.mistake("You divided by the length of the picture's embedding alone. A cosine divides by both lengths.")
def by_the_picture_alone(image, text, w):
    return w * (image * text).sum(1).clamp(min=0) / image.norm(dim=1)


@score.mistake("You divided by the length of the caption's embedding alone. A cosine divides by both lengths.")
def by_the_caption_alone(image, text, w):
    return w * (image * text).sum(1).clamp(min=0) / text.norm(dim=1)


@score.mistake("You divided by the squared lengths. A length is the root of the sum of squares.")
def by_squared_lengths(image, text, w):
    return score(image, text, w) / (image.norm(dim=1) * text.norm(dim=1))


@score.mistake("You divided by the norms of the whole matrices. Each row has a length of its own: norm(dim=1).")
def by_matrix_norms(image, text, w):
    return w * (image * text).sum(1).clamp(min=0) / (image.norm() * text.norm())


@score.mistake("You averaged the products over d. A cosine sums them, over rows of length 1.")
def mean_of_products(image, text, w):
    return score(image, text, w) / image.shape[1]


@score.mistake("You averaged unscaled products over d. A cosine sums them and divides by both lengths.")
def mean_of_unscaled(image, text, w):
    return w * (image * text).mean(1).clamp(min=0)


@score.mistake(
    "You normalised down the columns, over the batch. Each embedding, a row, gets length 1: dim=1, or dim=-1."
)
def normalised_by_column(image, text, w):
    return w * (F.normalize(image, dim=0) * F.normalize(text, dim=0)).sum(1).clamp(min=0)


@score.mistake("Your cosine runs over the batch, dim=0, and gives one number a feature. It runs over d: dim=1.")
def over_the_batch(image, text, w):
    return w * F.cosine_similarity(image, text, dim=0).clamp(min=0)


@score.mistake("The max is missing: where the cosine is below 0, the score is 0.")
def clamp_missing(image, text, w):
    return w * _cosine(image, text)


@score.mistake(
    "You took min where max is meant: clamp(min=0) raises what is below 0 to 0, clamp(max=0) cuts the good ones."
)
def min_for_max(image, text, w):
    return w * _cosine(image, text).clamp(max=0)


@score.mistake("You took the absolute value. A caption that says the opposite has score 0, not a high one.")
def absolute(image, text, w):
    return w * _cosine(image, text).abs()


@score.mistake("You moved the cosine into 0..1 by (cos + 1) / 2. Eq. 1 cuts off what is below 0.")
def moved_into_0_1(image, text, w):
    return w * (_cosine(image, text) + 1) / 2


@score.mistake("You cut the products off at 0 one by one. First comes the whole cosine, then max with 0.")
def products_cut(image, text, w):
    return w * (F.normalize(image, dim=1) * F.normalize(text, dim=1)).clamp(min=0).sum(1)


@score.mistake("You cut the embeddings off at 0. The cosine is of the whole embeddings, and is cut off afterwards.")
def embeddings_cut(image, text, w):
    return w * _cosine(image.clamp(min=0), text.clamp(min=0))


@score.mistake("You returned the mean over the batch. Asked for is a score for each pair, (b,).")
def mean_returned(image, text, w):
    return score(image, text, w).mean()


@score.mistake("You averaged the cosines, then took the max with 0. Each pair has its own score, and its own max.")
def clamp_at_the_mean(image, text, w):
    return w * _cosine(image, text).mean().clamp(min=0)


@score.mistake("w is missing: the cosine, cut off at 0, is still to be multiplied by it.")
def w_missing(image, text, w):
    return _cosine(image, text).clamp(min=0)


@score.mistake("You multiplied by 2.5, the paper's value, whatever w is. Use the argument.")
def w_fixed(image, text, w):
    return score(image, text, 2.5)


@score.mistake("You multiplied by 100, whatever w is. Use the argument.")
def w_fixed_at_100(image, text, w):
    return score(image, text, 100)


@score.mistake("You divided by w. The cosine is multiplied by it.")
def w_divides(image, text, w):
    return _cosine(image, text).clamp(min=0) / w


@score.mistake("You added w. The cosine is multiplied by it.")
def w_added(image, text, w):
    return _cosine(image, text).clamp(min=0) + w


@score.mistake("You raised the cosine to the power w. It is multiplied by it.")
def w_as_power(image, text, w):
    return _cosine(image, text).clamp(min=0) ** w


@score.mistake("w is in it twice, with the picture and with the caption. The cosine gets it once.")
def w_twice(image, text, w):
    return score(image, text, w**2)


@score.mistake("You took exp of the cosine. Eq. 1 takes it as it is, cut off at 0.")
def exponential(image, text, w):
    return (w * _cosine(image, text)).exp()


@score.mistake("You squared the cosine. Eq. 1 takes it as it is, cut off at 0.")
def cosine_squared(image, text, w):
    return w * _cosine(image, text).clamp(min=0).square()


@score.mistake("That is a distance, 1 - cos: large where they do not fit. A score is large where they do.")
def distance(image, text, w):
    return w * (1 - _cosine(image, text)).clamp(min=0)


@score.mistake("The sign is turned round: the score is large where the cosine is large.")
def minus_cosine(image, text, w):
    return w * (-_cosine(image, text)).clamp(min=0)


@score.mistake("You took a softmax over the batch. A score belongs to one pair, whatever else is in the batch.")
def softmax_over_batch(image, text, w):
    return (w * _cosine(image, text)).softmax(0)


@score.mistake("An axis of size 1 is left over, (b, 1). One score a pair is (b,): leave keepdim out of the sum.")
def score_axis_left(image, text, w):
    return score(image, text, w)[:, None]


@score.mistake(
    "Python's max and if want one True or False, and a tensor holds many. For each of them alone: .clamp(min=0)."
)
def python_max(image, text, w):
    return w * max(_cosine(image, text), 0)


@score.mistake("torch.max(x, 0) searches along axis 0, for the largest and its place. Max with 0 is .clamp(min=0).")
def max_along_0(image, text, w):
    return torch.max(w * _cosine(image, text), 0)


@score.mistake("You returned the best score of the batch. Asked for is max with 0, of each pair: .clamp(min=0).")
def best_of_batch(image, text, w):
    return w * _cosine(image, text).max()


@score.mistake(
    "You compared every picture with every caption, (b, b), and without dividing by the lengths. Asked for is row i "
    "with "
    "row i."
)
def all_products(image, text, w):
    return w * (image @ text.mT).clamp(min=0)


@score.mistake("You averaged each caption over all pictures. It has one picture of its own: row i with row i.")
def mean_over_pictures(image, text, w):
    return all_pairs(image, text, w).mean(0)


@score.mistake("You averaged over all pairs. Asked for are b scores, of row i with row i.")
def mean_of_all_pairs(image, text, w):
    return all_pairs(image, text, w).mean()


@score.mistake("The sum is missing: a cosine adds up the d products of a row.")
def not_summed(image, text, w):
    return w * (F.normalize(image, dim=1) * F.normalize(text, dim=1)).clamp(min=0)


@score.mistake("You summed over the batch, one number a feature. The sum runs over d: sum(1).")
def summed_by_feature(image, text, w):
    return w * (F.normalize(image, dim=1) * F.normalize(text, dim=1)).sum(0).clamp(min=0)


@score.mistake("Brackets: x / a * b divides by a and multiplies by b. Both lengths divide: x / (a * b).")
def brackets_missing(image, text, w):
    return w * ((image * text).sum(1) / image.norm(dim=1) * text.norm(dim=1)).clamp(min=0)


@score.mistake("You divided by the sum of the lengths. A cosine divides by their product.")
def by_the_sum_of_lengths(image, text, w):
    return w * ((image * text).sum(1) / (image.norm(dim=1) + text.norm(dim=1))).clamp(min=0)


@score.mistake("You raised w to the power of the cosine. The cosine is multiplied by it: * is not **.")
def w_to_the_power(image, text, w):
    return w ** _cosine(image, text).clamp(min=0)


@score.mistake("You cut off above 1 as well. Eq. 1 cuts off what is below 0; with w the score may reach w.")
def cut_at_1(image, text, w):
    return (w * _cosine(image, text)).clamp(0, 1)


@score.mistake("You left out the pairs whose cosine is below 0. They have a score, too: it is 0.")
def left_out_below_0(image, text, w):
    cosine = _cosine(image, text)
    return w * cosine[cosine > 0]


@score.mistake("You took a sigmoid of the cosine. Eq. 1 takes it as it is, cut off at 0.")
def sigmoid_of_cosine(image, text, w):
    return w * _cosine(image, text).sigmoid()
