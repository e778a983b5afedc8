"""What a learner sees: the same content as HTML in a notebook and as plain text in a terminal."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARKS = {True: "✓", False: "✗", None: "–"}
_COLOURS = {"✓": "#2e9949", "✗": "#d0402f", "–": "gray"}  # each legible on JupyterLab's light and dark ground


@dataclass(frozen=True)
class Page:
    """A heading, sentences, a table whose first column is a mark, code, more sentences, and what is folded away.

    Words in `backticks` are code. IPython shows `_repr_html_` in a notebook and `repr` in a terminal.
    """

    heading: str
    sentences: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    code: str = ""
    after: Sequence[str] = ()
    folded: Sequence[tuple[str, str]] = ()

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        rows = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in self.rows
        )
        folded = (line for title, text in self.folded for line in (f"{title}:", textwrap.indent(text, "  ")))
        parts = [*self.sentences, *rows, *filter(None, [self.code.rstrip("\n")]), *self.after, *folded]
        return "\n".join([self.heading, *(textwrap.indent(part, "  ") for part in parts)])

    def _repr_html_(self) -> str:
        return "".join(
            [
                '<div class="ddpm-edu-exercise" style="max-width: 60em">',
                f"<p><b>{_inline(self.heading)}</b></p>",
                *(f"<p>{_inline(sentence)}</p>" for sentence in self.sentences),
                *_table(self.rows),
                f"<pre>{html.escape(self.code)}</pre>" if self.code else "",
                *(f"<p>{_inline(sentence)}</p>" for sentence in self.after),
                *(
                    f"<details><summary>{_inline(title)}</summary><pre>{html.escape(text)}</pre></details>"
                    for title, text in self.folded
                ),
                "</div>",
            ]
        )


def show(page: Page) -> None:
    from IPython.display import (
        display,
    )  # prints the text where no notebook is there; slow to import, so only when needed

    display(page)


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    if rows:
        yield '<table style="margin: 0">'
        for mark, *cells in rows:
            yield f'<tr><td style="color: {_COLOURS[mark]}"><b>{mark}</b></td>'
            yield from (f'<td style="text-align: left">{_inline(cell)}</td>' for cell in cells)
            yield "</tr>"
        yield "</table>"


def _inline(text: str) -> str:
    """Escaped, `code` set as such; $ written so that the notebook does not take it for mathematics."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text)).replace("$", "<span>$</span>")
