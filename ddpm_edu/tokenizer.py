"""Byte-pair encoding: text as a short list of numbers, and back, whatever the text is.

Sennrich, Haddow and Birch 2016, on the bytes of UTF-8 as in GPT-2 (Radford et al. 2019): start from the 256 bytes, and
again and again give the pair of neighbours that is most frequent in the captions a number of its own. A common word
ends up as one number, and a word never seen, an emoji or a Chinese sign still has its bytes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

START, END = 256, 257  # of a text, after the bytes 0..255; the merged pairs follow
FIRST = 258
# Merges stay inside a piece: a word with the space before it, a digit, a run of other signs. Every character of every
# text is in exactly one piece.
PIECE = re.compile(r" ?[^\W\d_]+| ?\d| ?(?:[^\w\s]|_)+|\s+")


class Tokenizer:
    """merges: pairs of tokens; the k-th becomes token 258 + k.

    >>> tokenizer = Tokenizer.learn(["red heart", "red square", "red circle"], merges=2)
    >>> tokenizer.words("red heart 心")
    ['red', ' ', 'h', 'e', 'a', 'r', 't', ' ', '\\xe5', '\\xbf', '\\x83']
    >>> tokenizer.decode(tokenizer.encode("red heart 心"))
    'red heart 心'
    """

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        self.merges = [(int(left), int(right)) for left, right in merges]
        self._rank = {pair: FIRST + k for k, pair in enumerate(self.merges)}
        self._bytes = {i: bytes([i]) for i in range(256)} | {START: b"", END: b""}
        for new, (left, right) in enumerate(self.merges, FIRST):
            self._bytes[new] = self._bytes[left] + self._bytes[right]
        self._piece = cache(self._merge)  # captions repeat their words

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int = 1000) -> Tokenizer:
        """The `merges` most frequent pairs, each counted after the ones before it are merged."""
        count = Counter(piece for text in texts for piece in PIECE.findall(text))
        tokens = {piece: list(piece.encode()) for piece in count}
        pairs, pieces = Counter[tuple[int, int]](), defaultdict[tuple[int, int], set[str]](set)

        def tally(piece: str, sign: int) -> None:
            for pair in pairwise(tokens[piece]):
                pairs[pair] += sign * count[piece]
                pieces[pair].add(piece)

        for piece in tokens:
            tally(piece, 1)
        learned: list[tuple[int, int]] = []
        while len(learned) < merges:
            best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)  # ties: any fixed order will do
            if best is None or pairs[best] < 1:
                raise ValueError(f"These texts have only {len(learned)} pairs to merge; ask for that many at most.")
            for piece in pieces.pop(best):
                tally(piece, -1)
                tokens[piece] = _replace(tokens[piece], best, FIRST + len(learned))
                tally(piece, 1)
            learned.append(best)
        return cls(learned)

    def __len__(self) -> int:
        """The number of different tokens."""
        return FIRST + len(self.merges)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without START and END."""
        return [token for piece in PIECE.findall(text) for token in self._piece(piece)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens. START and END are silent; bytes that are no UTF-8 read as the sign U+FFFD."""
        text = b"".join(self._bytes[int(token)] for token in tokens)
        try:
            return text.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return text.decode("utf-8", "replace")

    def words(self, text: str) -> list[str]:
        """The tokens of a text as one reads them; a byte of a longer sign as its Latin-1 letter."""
        return [self._bytes[token].decode("latin-1") for token in self.encode(text)]

    def _merge(self, piece: str) -> tuple[int, ...]:
        tokens = list(piece.encode("utf-8", "surrogatepass"))  # half of a pair, as broken input has, is no text's end
        while pair := min(pairwise(tokens), key=lambda pair: self._rank.get(pair, len(self)), default=None):
            if pair not in self._rank:
                break
            tokens = _replace(tokens, pair, self._rank[pair])
        return tuple(tokens)


def _replace(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Every occurrence of the pair, from the left, by one new token."""
    out: list[int] = []
    for token in tokens:
        if out and (out[-1], token) == pair:
            out[-1] = new
        else:
            out.append(token)
    return out
