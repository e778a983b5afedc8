"""What is said of a picture: its caption in several ways, with attributes left out, so that the text encoder learns
words and not places in a template; and the numbers that it reads."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_edu.data import EMOJI_SPLITS, Emoji, emoji
from ddpm_edu.process import sent
from ddpm_edu.tokenizer import END, START, Tokenizer

__all__ = [
    "ATTRIBUTES", "GENDERS", "STYLES", "TONES", "Said", "Sayings", "describes", "facts", "misread", "neutral", "read",
    "say", "sayings", "swapped", "tokenizer", "trimmed", "understood", "unknown",
]  # fmt: skip

ATTRIBUTES = ("thing", "gender", "tone", "tone2", "style")  # what a caption states or leaves out
LENGTH = 40  # tokens at most, START and END among them
LEAVE_OUT = {
    "style": 0.1,
    "gender": 0.05,
    "tone": 0.1,
}  # how often; a tone left out is read as yellow more often than not
PLAIN = 0.4  # how often the caption is the canonical one
STYLED = (
    "a {style} style {what}", "{what}, {style} style", "{style} {what}", "{what} in {style} style",
    "a picture of {what} in the style of {style}", "{style} style: {what}",
)  # fmt: skip
BARE = ("{what}", "a {what}", "a picture of {what}", "an emoji of {what}")
TONED = ("{name}, {tone} skin tone", "{name} with {tone} skin tone", "{tone} skin tone {name}", "{name}, {tone} skin")


class Said(NamedTuple):
    """A text, and which of `ATTRIBUTES` it states: (5,) bool."""

    text: str
    states: Tensor


STYLES = ("noto", "twemoji", "fluent", "fluent 3d", "blob")
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
GENDERS = ("woman", "man")
VALUES = {"style": STYLES, "tone": TONES, "gender": GENDERS}


@lru_cache
def tokenizer(merges: int = 1000) -> Tokenizer:
    """Learned from the captions of the training pictures, every style of one thing counted."""
    return Tokenizer.learn((_normal(row.caption) for row in emoji("train").rows), merges)


def read(texts: Sequence[str], by: Tokenizer, length: int | None = None) -> Tensor:
    """Tokens (b, n), int64, n = length or those of the longest text: START, the text in lower case, END and ENDs to
    fill up."""
    rows = [[START, *by.encode(_normal(text)), END] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > LENGTH:
            raise ValueError(f"This text has {len(row)} tokens, {LENGTH} at most can be read; shorten it: {text!r}")
    n = length or max(map(len, rows), default=2)
    return torch.tensor([row + [END] * (n - len(row)) for row in rows], dtype=torch.long).reshape(-1, n)


def trimmed(tokens: Tensor) -> Tensor:
    """Tokens (b, n) without the last columns, where every text has ended but for one. On a GPU as they are: to know the
    longest text it would have to be waited for, and each length would be another program to compile."""
    return tokens if tokens.is_cuda else tokens[:, : int((tokens != END).sum(1).max()) + 1]


def unknown(text: str) -> dict[str, str]:
    """The words of text that no training caption has, each with the known word that is spelt most like it, or ""."""
    known = _vocabulary()
    return {word: next(iter(get_close_matches(word, known, 1, 0.75)), "") for word in _words(text) if word not in known}


def understood(text: str) -> bool:
    """Was any of its words ever read in training?"""
    return any(word in _vocabulary() for word in _words(text))


@lru_cache
def _vocabulary() -> dict[str, None]:
    """Every word that training captions are made of."""
    rows = emoji("train").rows
    said = {text for row in rows for text in (row.caption, row.base, neutral(row))}
    forms = (form.format(style="", what="", name="", tone="") for form in (*STYLED, *BARE, *TONED))
    return dict.fromkeys(word for text in (*sorted(said), *forms) for word in _words(text))


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"\w+", text.lower())))


def _normal(text: str) -> str:
    """Lower case, single spaces; one before the first word, so that it is the same token at the start of a text."""
    return " " + " ".join(text.lower().split())


def say(row: Emoji, u: Sequence[float]) -> Said:
    """One way of saying what the picture shows. u: (5,) uniform in [0, 1) decide, so that one generator rules all."""
    leave = {name: v < LEAVE_OUT[name] for name, v in zip(("style", "gender", "tone"), u[:3], strict=True)}
    states = {name: not leave.get("tone" if name == "tone2" else name, False) for name in ATTRIBUTES}
    if u[3] < PLAIN and not any(leave.values()):
        return Said(row.caption, torch.ones(len(ATTRIBUTES), dtype=torch.bool))
    pick = int(u[4] * 2**16)
    what = neutral(row) if leave["gender"] else row.base
    if row.tone and not leave["tone"]:
        tone = f"{row.tone} skin tone, {row.tone2}" if row.tone2 else row.tone
        what = TONED[pick % len(TONED)].format(name=what, tone=tone)
    forms = BARE if leave["style"] else STYLED
    text = forms[pick // len(TONED) % len(forms)].format(what=what, style=row.style)
    return Said(text, torch.tensor(list(states.values())))


class Sayings(NamedTuple):
    """Some ways of saying what each picture shows, drawn once, so that training need not wait for words.

    tokens: (n, ways, LENGTH) int16, as `read` gives them; states: (n, ways, 5) bool, what each states of `ATTRIBUTES`.
    """

    tokens: Tensor
    states: Tensor

    def draw(self, which: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One of the ways for each of these pictures, (b,) int64: tokens (b, LENGTH) int64 and states (b, 5)."""
        way = sent(torch.randint(self.tokens.shape[1], which.shape, generator=generator), self.tokens.device)
        which = sent(which, self.tokens.device)
        return self.tokens[which, way].long(), self.states[which, way]


def sayings(
    rows: Sequence[Emoji], ways: int, by: Tokenizer, seed: int = 0, device: torch.device | str = "cpu"
) -> Sayings:
    """`ways` draws of `say` for each row. 32 of all training pictures take some ten seconds and 35 MB."""
    if ways < 1:
        raise ValueError(f"There must be 1 way or more to say a picture; got {ways}.")
    u = torch.rand(len(rows), ways, 5, generator=torch.Generator().manual_seed(seed))
    said = [say(row, draw) for row, draws in zip(rows, u.tolist(), strict=True) for draw in draws]
    tokens = read([one.text for one in said], by, LENGTH).short().view(len(rows), ways, LENGTH)
    states = torch.stack([one.states for one in said]).view(len(rows), ways, len(ATTRIBUTES))
    return Sayings(tokens.to(device), states.to(device))


@lru_cache
def _names() -> tuple[dict[tuple[str, str, str], str], dict[tuple[str, str, str, str], str]]:
    """How things are called, by base and tones; and the base, by role and gender. Names alone, so those of held-out
    pictures too."""
    rows = emoji(*EMOJI_SPLITS).rows
    labels = {(row.base, row.tone, row.tone2): row.caption.removeprefix(f"{row.style} style: ") for row in rows}
    return labels, {(row.role, row.hair, row.facing, row.gender): row.base for row in rows}


def neutral(row: Emoji) -> str:
    """What it is called if nothing is said of man or woman, nor of tones."""
    _, bases = _names()
    return bases.get((row.role, row.hair, row.facing, ""), row.base) if row.gender in GENDERS else row.base


def _with(row: Emoji, attribute: str) -> dict[str, Emoji]:
    """The row with one attribute at each of its values, the true one among them: {value: row}; empty where the picture
    has none, or two, or there is no such emoji. What such a row says is meant, not its picture."""
    values, (labels, bases) = VALUES[attribute], _names()
    if getattr(row, attribute) not in values or (attribute == "tone" and row.tone2):
        return {}

    def other(style: str = row.style, tone: str = row.tone, gender: str = row.gender) -> Emoji | None:
        base = row.base if gender == row.gender else bases.get((row.role, row.hair, row.facing, gender), "")
        label = labels.get((base, tone, row.tone2))
        caption = f"{style} style: {label}"
        return replace(row, caption=caption, base=base, style=style, tone=tone, gender=gender) if label else None

    rows = {value: other(**{attribute: value}) for value in values}
    return {value: one for value, one in rows.items() if one} if all(rows.values()) else {}


def swapped(row: Emoji, attribute: str) -> dict[str, str]:
    """The caption with one attribute, `style`, `tone` or `gender`, at each of its values, the true one among them:
    {value: caption}; empty where the picture has none, or two, or there is no such emoji."""
    return {value: one.caption for value, one in _with(row, attribute).items()}


def misread(row: Emoji, u: float, among: Container[str]) -> Emoji | None:
    """The row with one of its attributes wrong: another style, skin tone or gender. u: in [0, 1), decides which.

    Its caption is one of `among`, or there is None. With the captions of the training pictures, each of which is right
    somewhere, no caption is only ever shown as wrong: those of the held-out pictures would be, and would be learned to
    be wrong of whatever they are said.
    """
    wrong = [
        [one for one in _with(row, name).values() if getattr(one, name) != getattr(row, name) and one.caption in among]
        for name in VALUES
    ]
    wrong = [rows for rows in wrong if rows]
    if not wrong:
        return None
    which, rest = divmod(u * len(wrong), 1)
    return wrong[int(which)][int(rest * len(wrong[int(which)]))]


@lru_cache
def _codes() -> list[dict[str, int]]:
    """A number for every value of every attribute, those of held-out pictures included."""
    columns = zip(*map(_true_of, emoji(*EMOJI_SPLITS).rows), strict=True)
    return [{value: k for k, value in enumerate(sorted(set(column)))} for column in columns]


def _true_of(row: Emoji) -> tuple[str, ...]:
    return neutral(row), row.gender, row.tone, row.tone2, row.style


def facts(rows: Sequence[Emoji]) -> Tensor:
    """What is true of each picture, as numbers that can be compared: (n, 5) int64, a column for each of ATTRIBUTES."""
    return torch.tensor(
        [[code[value] for code, value in zip(_codes(), _true_of(row), strict=True)] for row in rows], dtype=torch.long
    ).reshape(-1, len(ATTRIBUTES))


def describes(states: Tensor, said: Tensor, truth: Tensor) -> Tensor:
    """[i, j]: is caption i true of picture j? In a batch such pairs are no negatives.

    states: (m, 5) bool, what caption i states; said: (m, 5) int64, the `facts` that it was made from; truth: (b, 5)
    int64, the facts of the pictures -> (m, b) bool.
    """
    return ((said[:, None] == truth[None]) | ~states[:, None]).all(-1)
