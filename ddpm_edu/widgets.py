"""The stepper behind every slider of the course, the pad behind every plane, the sketch to draw on, the prompt to write
on, and `live`, which shows a loop at work.

Stepper and pad draw each position once and keep the picture, so that a move only swaps bytes. In a running notebook a
`Stepper` is an ipywidgets box; in a page exported from one (`export_html`) the same frames move under a plain HTML
slider that needs neither kernel nor network. A `Pad` is such a piece of HTML everywhere, so it also moves in a notebook
that is reopened, where a stepper has to be run again. A `Sketch` hands what the learner draws to a function, and shows
the stepper that it makes of it.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import string
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import ipywidgets
import numpy as np
import torch
import traitlets
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, display
from matplotlib.axes import Axes
from torch import Tensor

from .viz import DATA, Picture, figure

__all__ = ["Pad", "Prompt", "Sketch", "Stepper", "export_html", "live", "visit_all"]

# Its comments, which no page needs, stand between the four.
_HTML = Path(__file__).with_name("stepper.html").read_text("utf-8")
STYLE, STATIC, PAD, SKETCH = re.split("<!--.*?-->", _HTML, flags=re.S)

# Every stepper, pad, prompt and sketch of the session, in the order they were made; `close` takes one out. A sketch's
# own stepper is not among them: the sketch answers for it.
_steppers: list[Stepper | Pad | Prompt | Sketch] = []


def _axis(name: str, values: Iterable[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """What one slider runs through, {label: value}: given so, or labelled here: a number, a word, a function's name."""
    pairs = list(values.items()) if isinstance(values, Mapping) else [(value, value) for value in values]
    axis = {_label(label): value for label, value in pairs}
    if len(pairs) < 2:
        raise ValueError(f"{name} has {len(pairs)} value(s): a slider needs at least two to move between")
    if len(axis) < len(pairs):
        raise ValueError(f"two values of {name} read the same on the slider: give {{label: value}} instead")
    return axis


def _label(value: Any) -> str:
    """A number, a word or a function (by its name) as it reads on a slider."""
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.6g}" if isinstance(value, float) else getattr(value, "__name__", str(value))


class Frame(NamedTuple):
    """One position, drawn: the picture, and the HTML under it. Both versions, live and static, show just this."""

    picture: Picture
    caption: str


class Film(dict[tuple[int, ...], Frame]):
    """The frames by position, an index into each axis: each is drawn when first asked for, then kept."""

    def __init__(
        self, draw: Callable[..., Any], caption: Callable[..., str] | None, axes: Mapping[str, Iterable[Any]]
    ) -> None:
        self.draw, self.caption = draw, caption
        self.axes = {name: _axis(name, values) for name, values in axes.items()}

    def __missing__(self, position: tuple[int, ...]) -> Frame:
        at = {name: list(axis.values())[i] for (name, axis), i in zip(self.axes.items(), position, strict=True)}
        where = self.where(position)
        try:
            text = where if self.caption is None else str(self.caption(**at))
            self[position] = Frame(Picture.of(self.draw(**at)), html.escape(text))
        except Exception as error:
            error.add_note(f"(while drawing {where})")
            raise
        return self[position]

    def where(self, position: tuple[int, ...]) -> str:
        """The position in words: "t = 20, schedule = linear"."""
        labels = {name: list(axis)[i] for (name, axis), i in zip(self.axes.items(), position, strict=True)}
        return ", ".join(f"{name} = {label}" for name, label in labels.items())

    def positions(self) -> list[tuple[int, ...]]:
        """Every combination of the axes' values, the last axis running fastest."""
        return list(itertools.product(*(range(len(axis)) for axis in self.axes.values())))

    def check(self, positions: list[tuple[int, ...]]) -> None:
        """Raise ValueError where all pictures are the same: then `draw` does not use what it is given."""
        if len({self[position].picture.data for position in positions}) == 1:
            raise ValueError(f"all {len(positions)} pictures over {', '.join(self.axes)} are the same")


class _Shown(ipywidgets.Box):
    """What stepper, sketch and prompt share: a way out, and beside the widget a picture for pages without a kernel."""

    _links: tuple[ipywidgets.Widget, ...] = ()

    def close(self) -> None:
        """Let go of the widget and its pictures: it stops answering, and `visit_all` no longer counts it."""
        if self in _steppers:
            _steppers.remove(self)
        for widget in [*self._links, *_held(self)]:
            widget.close()
        super().close()

    def _static(self) -> str:
        """The HTML that an exported page shows."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return (super()._repr_mimebundle_(**kwargs) or {}) | {"text/html": self._static(), "text/plain": repr(self)}


class Stepper(_Shown, ipywidgets.VBox):
    """Pictures stepped through by a slider: `Stepper(draw, t=range(0, 1001, 20), schedule=["linear", "cosine"])`.

    draw: called as draw(t=..., schedule=...), gives what `Picture.of` takes: a matplotlib Figure, a PIL image, or an
        array or tensor (h, w) or (h, w, 3), uint8 or float in [-1, 1].
    caption: called alike, gives the text under the picture; without it the text is "t = 20, schedule = linear".
    axes: for each keyword of draw, its values, or {label: value}. The first is the main one: it has the play and step
        buttons, is drawn at once (the others at their first value), and is what the static version moves through.

    An exception while it is made is raised; in the running notebook it is shown in place of the picture.
    """

    def __init__(
        self, draw: Callable[..., Any], *, caption: Callable[..., str] | None = None, **axes: Iterable[Any]
    ) -> None:
        if not axes:
            raise TypeError("a stepper needs something to step through: Stepper(draw, t=range(0, 1001, 20))")
        self._film = Film(draw, caption, axes)
        self.failure: Exception | None = None  # what went wrong at the position shown, if anything did
        n, *others = map(len, self._film.axes.values())
        self._main = [self._film[i, *[0] * len(others)] for i in _progress(range(n), "drawing")]
        self._size = self._main[0].picture.css_size  # of all frames, so that nothing jumps when one has another shape
        super().__init__(self._build())
        self.add_class("ddpm-stepper")
        _steppers.append(self)

    @classmethod
    def of(
        cls, states: Iterable[Any], draw: Callable[..., Any], name: str = "t", caption: Callable[..., str] | None = None
    ) -> Stepper:
        """One frame for each state of a sampler (or anything with a `.t`), in order of arrival.

        draw(state) and caption(state) are as for the class. The slider reads the states' t, or, where t repeats
        (Langevin), the number of the step. Each frame is drawn when its state arrives and the state is then let go,
        so a long chain takes no more memory than its pictures.
        """
        drawn = [
            (_label(state.t), Picture.of(draw(state)), caption and caption(state))
            for state in _progress(states, "sampling")
        ]
        steps = {label: i for i, (label, _, _) in enumerate(drawn)}
        axis = {name: steps if len(steps) == len(drawn) else range(len(drawn))}
        return cls(lambda **at: drawn[at[name]][1], caption=caption and (lambda **at: drawn[at[name]][2]), **axis)

    # Live ------------------------------------------------------------------------------------------------------------

    def _build(self) -> list[ipywidgets.Widget]:
        """Everything inside the box, wired up."""
        (name, main), *others = self._film.axes.items()
        n = len(main)
        self.slider = _control(name, main, slider=True).add_class("ddpm-slider")
        self._play = ipywidgets.Play(max=n - 1, interval=max(100, min(700, 8000 // n)), show_repeat=False).add_class(
            "ddpm-play"
        )
        back, forward = (
            ipywidgets.Button(icon=f"step-{way}", tooltip=f"one step {way}", layout={"width": "36px"}).add_class(
                f"ddpm-{css}"
            )
            for css, way in (("back", "backward"), ("forward", "forward"))
        )
        back.on_click(lambda _: setattr(self.slider, "index", max(self.slider.index - 1, 0)))
        forward.on_click(lambda _: setattr(self.slider, "index", min(self.slider.index + 1, n - 1)))
        self.controls = [self.slider, *(_control(name, axis) for name, axis in others)]

        # The main axis lies in the browser, as the pages of a Tab without tabs, and the slider turns the pages there.
        # By way of the kernel a move takes 20 to 70 ms, and while a training cell is running it waits for that to end.
        css, layout = ipywidgets.HTML(STYLE, layout={"display": "none"}), ipywidgets.Layout()
        shared = {"layout": layout, "style": css.style}  # by all pages: fewer messages
        self.pages = [ipywidgets.HTML(_frame_html(frame, self._size), **shared) for frame in self._main]
        film = ipywidgets.Tab(self.pages, selected_index=0, layout={"min_height": f"{self._size[1] + 40}px"})
        self._links = (
            ipywidgets.jslink((self._play, "value"), (self.slider, "index")),
            ipywidgets.jsdlink((self.slider, "index"), (film, "selected_index")),
        )
        for control in self.controls:
            control.observe(lambda _: self._show(), "index")

        rows = [[self._play, back, forward, self.slider], self.controls[1:]]
        return [css, *(ipywidgets.HBox(row) for row in rows if row), film.add_class("ddpm-film")]

    def _show(self) -> None:
        """Put on every page what is drawn of the controls' row, and on the one shown its frame or what went wrong."""
        here, *others = position = tuple(control.index for control in self.controls)
        self.failure, shown = None, ""
        try:
            self._film[position]
        except Exception as error:  # whatever it is, the learner must see it: a widget's callback has no other way out
            self.failure, shown = error, _error_html(error)
        for i, page in enumerate(self.pages):  # a page that keeps its value costs no message
            frame = self._film.get((i, *others))
            page.value = _frame_html(frame, self._size) if frame else shown if i == here else ""

    def visit(self) -> int:
        """Move through every position, raise whatever goes wrong there, and return how many there were.

        Up to 400 positions that is every combination; beyond, each axis alone with the others at their first value.
        Raises ValueError where all pictures are the same.
        """
        positions = self._film.positions()
        if len(positions) > 400:
            positions = [position for position in positions if sum(map(bool, position)) <= 1]
        before = [control.index for control in self.controls]
        for position in [*positions, before]:
            for control, index in zip(self.controls, position, strict=True):
                control.index = index
            if self.failure is not None:
                raise self.failure
        self._film.check(positions)
        return len(positions)

    # Static ----------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Stepper({', '.join(f'{name}: {len(axis)} positions' for name, axis in self._film.axes.items())})"

    def _static(self) -> str:
        """The main axis as a piece of HTML that stands alone: every frame a data URI, a few lines of plain script."""
        (name, main), *others = self._film.axes.items()
        fixed = ", ".join(f"{other} = {next(iter(axis))}" for other, axis in others)
        return STYLE + string.Template(STATIC).substitute(
            id=f"ddpm-{uuid.uuid4().hex}",  # two steppers of one page, or one shown twice, must not meet
            name=html.escape(name),
            label=html.escape(next(iter(main))),
            fixed=html.escape(f"here {fixed}" if fixed else ""),
            first=_frame_html(self._main[0], self._size),
            last=len(main) - 1,
            interval=self._play.interval,
            frames=_json(self._main, main),
        )


class Pad:
    """A plane with a point to move, and beside it the point's picture: `Pad(draw, background, x=range(9), y=range(9))`.

    draw: called as draw(x=..., y=...), gives what `Picture.of` takes. Every position is drawn at once and goes into the
        page, so let it be small: 441 digits are 0.2 MB, 441 figures would be 13 MB and half a minute.
    background: called as background(ax), draws the plane. Afterwards the limits of ax are set to the values' ranges.
    caption: called as draw is, gives the text under the picture. Where the point is stands above it in any case.
    axes: two keywords of draw, the horizontal one first, each with its values, or {label: value}: increasing numbers.

    The mouse shows what lies under it; a click or a drag leaves the point there, the arrow keys move it on. All of this
    is one piece of HTML that needs neither kernel nor network, in the running notebook as in an exported page. In a
    notebook that is not trusted, where no script runs, it shows the middle of the plane.
    """

    SIDE = 3.08  # inches of the plane: as high as a digit of 28 pixels beside it

    def __init__(
        self,
        draw: Callable[..., Any],
        background: Callable[[Axes], Any],
        *,
        caption: Callable[..., str] | None = None,
        **axes: Iterable[Any],
    ) -> None:
        if len(axes) != 2:
            raise TypeError(f"a pad has two axes, not {len(axes)}: Pad(draw, background, x=range(9), y=range(9))")
        self._film = Film(draw, caption or (lambda **at: ""), axes)
        self._plane, self._places = self._draw_plane(background)
        for position in _progress(self._film.positions(), "drawing"):
            self._film[position]
        _steppers.append(self)

    def _draw_plane(self, background: Callable[[Axes], Any]) -> tuple[Picture, list[list[float]]]:
        """The plane, and where in it the values of x stand from the left and those of y from the top, in percent."""
        names = list(self._film.axes)
        x, y = ([float(value) for value in axis.values()] for axis in self._film.axes.values())
        for name, values in zip(names, (x, y), strict=True):
            if any(left >= right for left, right in itertools.pairwise(values)):
                raise ValueError(f"the values of {name} must increase, as they do along the edge of the plane")
        fig, ax = figure(self.SIDE + 0.95, self.SIDE + 1.05)  # viz.figure's margins
        ax.set(xlabel=names[0], ylabel=names[1])
        background(ax)
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        plane = Picture.of(fig)  # drawn first: that settles where an axes of equal aspect stands
        in_figure = (ax.transData + fig.transFigure.inverted()).transform
        left = 100 * in_figure([(value, y[0]) for value in x])[:, 0]
        top = 100 - 100 * in_figure([(x[0], value) for value in y])[:, 1]
        return plane, [left.round(2).tolist(), top.round(2).tolist()]

    def visit(self) -> int:
        """The number of positions. Raises ValueError where all pictures are the same; other errors came out before."""
        positions = self._film.positions()
        self._film.check(positions)
        return len(positions)

    def close(self) -> None:
        """Let go of the pad: `visit_all` no longer counts it."""
        if self in _steppers:
            _steppers.remove(self)

    def __repr__(self) -> str:
        return f"Pad({', '.join(f'{name}: {len(axis)} positions' for name, axis in self._film.axes.items())})"

    def _repr_html_(self) -> str:
        positions = self._film.positions()
        start = tuple(len(axis) // 2 for axis in self._film.axes.values())
        size = self._film[start].picture.css_size
        return STYLE + string.Template(PAD).substitute(
            id=f"ddpm-{uuid.uuid4().hex}",
            names=html.escape(" and ".join(self._film.axes)),
            plane=self._plane.uri,
            width=self._plane.css_size[0],
            height=self._plane.css_size[1],
            room=size[0],
            where=html.escape(self._film.where(start)),
            first=_frame_html(self._film[start], size),
            start=list(start),
            places=self._places,
            frames=_json((self._film[at] for at in positions), map(self._film.where, positions)),
        )


class Canvas(anywidget.AnyWidget):
    """A square to draw on, 320 pixels wide; sketch.js says what its traits are and does all the drawing."""

    PAPER = string.Template(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 2 2"><path d="$ink" transform="scale(1 -1)" '
        f'fill="none" stroke="{DATA}" stroke-width=".035" stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )
    _esm = Path(__file__).with_name("sketch.js").read_text("utf-8")
    paper = traitlets.Unicode(PAPER.substitute(ink="")).tag(sync=True)
    given: Any = traitlets.Any().tag(sync=True)
    strokes: Any = traitlets.Any(None).tag(sync=True)

    def svg(self) -> str:
        """What is on it, as a picture."""
        strokes = self.given if self.strokes is None else self.strokes
        ink = ("M" + "L".join(f"{x},{y}" for x, y in [stroke[0], *stroke]) for stroke in strokes)  # as in sketch.js
        return self.PAPER.substitute(ink="".join(ink))


class Sketch(_Shown):
    """A square to draw on with mouse, pen or finger, and beside it what comes of it: `Sketch(answer, points)`.

    answer: called as answer(points) with a (n, 2) float32 tensor, gives a `Stepper`. Called again at the end of each
        stroke, so let it take less than a second: `viz.dots` draws points faster than matplotlib does.
    points: (n, 2), a shape to begin with, and what an exported page shows. The learner's first stroke replaces it.
    extent: the square reaches from -extent to extent in both directions.

    Strokes become points at even distances, about 300 at most, however fast the hand was; a click becomes one point.
    The new stepper stands where the old one stood, if their axes are alike. An exception for the first points is
    raised; later it is shown in place of the stepper.
    """

    def __init__(self, answer: Callable[[Tensor], Stepper], points: Any, *, extent: float = 1.0) -> None:
        self._given = torch.as_tensor(points).detach().cpu().float()
        if self._given.ndim != 2 or self._given.shape[1] != 2 or not len(self._given):
            raise ValueError(f"points must have shape (n, 2), not {tuple(self._given.shape)}")
        self._answer, self._extent = answer, extent
        self.canvas = Canvas(given=[[at] for at in (self._given.double() / extent).round(decimals=4).tolist()])
        self.canvas.observe(lambda _: self._respond(), "strokes")
        self.failure: Exception | None = None  # what went wrong in the last answer, if anything did
        self.stepper = self._make()
        self._beside = ipywidgets.Box([self.stepper], layout={"flex": "1 1 0"})
        self._make_room()
        super().__init__([ipywidgets.HTML(STYLE, layout={"display": "none"}), self.canvas, self._beside])
        self.add_class("ddpm-sketch")
        _steppers.append(self)

    @property
    def points(self) -> Tensor:
        """What is drawn, (n, 2)."""
        strokes = self.canvas.strokes
        return self._given if strokes is None else self._extent * _evenly(strokes)

    def _make(self) -> Stepper:
        """The answer to what is drawn."""
        stepper = self._answer(self.points)
        if not isinstance(stepper, Stepper):
            raise TypeError(f"answer must return a Stepper, not {type(stepper).__name__}: does it end with `return`?")
        _steppers.remove(stepper)
        return stepper

    def _make_room(self) -> None:
        """What the stepper needs, kept while it is replaced; and its picture level with the drawing."""
        rows = len(self.stepper.children) - 2  # of controls, each 32 pixels high; one such row stands above the drawing
        self._beside.layout.min_height = f"{self.stepper._size[1] + 40 + 32 * rows}px"
        self.canvas.layout.margin = f"{32 * (rows - 1)}px 0 0 0"

    def _respond(self) -> None:
        """Put the answer to what is drawn in the place of the former one, which stays if nothing is."""
        if self.canvas.strokes == []:
            return
        try:
            before, self.stepper, self.failure = self.stepper, self._make(), None
        except Exception as error:  # a widget's callback has no other way out
            self.failure = error
            self._beside.children = [ipywidgets.HTML(_error_html(error))]
            return
        for old, new in zip(before.controls, self.stepper.controls, strict=False):
            if old.options == new.options:
                new.index = old.index
        self._make_room()
        self._beside.children = [self.stepper]
        before.close()

    def visit(self) -> int:
        """Visit the stepper, then those of a dot and of a line, and return how many positions the first one had."""
        strokes, visited = self.canvas.strokes, []
        try:
            for drawn in (strokes, [[[0, 0]]], [[[-0.5, -0.5], [0.5, 0.5]]]):
                self.canvas.strokes = drawn
                if self.failure is not None:
                    raise self.failure
                visited.append(self.stepper.visit())
        finally:
            self.canvas.strokes = strokes
        return visited[0]

    def __repr__(self) -> str:
        return f"Sketch({len(self.points)} points, {self.stepper})"

    def _static(self) -> str:
        """The drawing as a picture, and the static version of what stands beside it."""
        return STYLE + string.Template(SKETCH).substitute(
            drawing=base64.b64encode(self.canvas.svg().encode()).decode(),
            answer=_error_html(self.failure) if self.failure else self.stepper._static(),
        )


class Prompt(_Shown, ipywidgets.VBox):
    """A line to write on, and the picture that comes of what is written: `Prompt(draw, "a red heart", w=[1, 3, 5])`.

    draw: called as draw(text, w=...), gives what `Picture.of` takes; so let it take a second or two. Called when Enter
        or the button is pressed or a choice is made, and once for each text and choices.
    text: drawn at once, and what an exported page shows. caption: called as draw is, gives the text under the picture.
    choices: for each further keyword of draw its values, or {label: value}, the first being what it begins with.

    An exception for the first text is raised; later it is shown in place of the picture.
    """

    def __init__(
        self,
        draw: Callable[..., Any],
        text: str,
        *,
        caption: Callable[..., str] | None = None,
        **choices: Iterable[Any],
    ) -> None:
        self._draw, self._caption = draw, caption
        self._choices = {name: _axis(name, values) for name, values in choices.items()}
        self._films: dict[str, Film] = {}
        self.failure: Exception | None = None  # what went wrong with what is asked for, if anything did
        self.text = ipywidgets.Text(text, continuous_update=False, layout={"width": "440px"}).add_class("ddpm-prompt")
        self.button = ipywidgets.Button(description="draw", icon="paint-brush", layout={"width": "110px"})
        self.controls = [_control(name, axis) for name, axis in self._choices.items()]
        self._first = self._film(text)[self._position()]
        self._size = self._first.picture.css_size
        self._page = ipywidgets.HTML(_frame_html(self._first, self._size))
        self.button.on_click(lambda _: self._respond())
        self.text.observe(lambda _: self._respond(), "value")
        for control in self.controls:
            control.observe(lambda _: self._respond(), "index")
        css = ipywidgets.HTML(STYLE, layout={"display": "none"})
        parts = [self.text, self.button, *self.controls]
        rows = [ipywidgets.HBox(parts[i : i + 2]) for i in range(0, len(parts), 2)]
        super().__init__([css, *rows, self._page])
        self.add_class("ddpm-stepper")
        _steppers.append(self)

    def _film(self, text: str) -> Film:
        if text not in self._films:
            caption = self._caption and partial(self._caption, text)
            self._films[text] = Film(partial(self._draw, text), caption, self._choices)
        return self._films[text]

    def _position(self) -> tuple[int, ...]:
        return tuple(control.index for control in self.controls)

    def _respond(self) -> None:
        """Put the picture of what is asked for, or what went wrong, on the page."""
        self.button.disabled, self.button.description, self.failure = True, "drawing", None
        try:
            self._page.value = _frame_html(self._film(self.text.value)[self._position()], self._size)
        except Exception as error:  # a widget's callback has no other way out
            self.failure = error
            self._page.value = _error_html(error)
        self.button.disabled, self.button.description = False, "draw"

    def visit(self) -> int:
        """Make every choice, the others at their first value, raise whatever goes wrong, and return how many there
        were. Raises ValueError where all pictures are the same."""
        film = self._film(self.text.value)
        positions = [position for position in film.positions() if sum(map(bool, position)) <= 1]
        before = self._position()
        for position in [*positions, before]:
            for control, index in zip(self.controls, position, strict=True):
                control.index = index
            if self.failure is not None:
                raise self.failure
        if len(positions) > 1:
            film.check(positions)
        return len(positions)

    def __repr__(self) -> str:
        return (
            f"Prompt({self.text.value!r}, {', '.join(f'{name}: {len(axis)}' for name, axis in self._choices.items())})"
        )

    def _static(self) -> str:
        """The first text and its picture."""
        asked = f'<div class="ddpm-caption"><b>{html.escape(next(iter(self._films)))}</b></div>'
        return f'{STYLE}<div class="ddpm-static">{asked}{_frame_html(self._first, self._size)}</div>'


def _evenly(strokes: list[list[list[float]]], step: float = 0.02, most: int = 300) -> Tensor:
    """Points (n, 2) along strokes, evenly spaced in each, at least `step` apart: about `most` of them at most."""
    lines = [np.asarray(stroke, float) for stroke in strokes]
    ways = [np.concatenate([[0], np.hypot(*np.diff(line, axis=0).T).cumsum()]) for line in lines]
    step = max(step, sum(way[-1] for way in ways) / max(1, most - len(lines)))
    at = [np.linspace(0, way[-1], 1 + int(way[-1] / step)) for way in ways]
    even = [[np.interp(a, way, axis) for axis in line.T] for a, way, line in zip(at, ways, lines, strict=True)]
    return torch.from_numpy(np.concatenate([np.zeros((2, 0)), *even], 1).T).float()


def _held(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """All that a widget is made of: children, layouts, styles, and what those are made of."""
    if widget.comm is None:  # closed, or never opened: there is nothing
        return
    for value in [getattr(widget, key) for key in widget.keys]:
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, ipywidgets.Widget):
                yield from _held(one)
                yield one


def _control(name: str, axis: dict[str, Any], slider: bool = False) -> ipywidgets.Widget:
    """The widget that moves an axis, its `index` the position: a slider if told so or for numbers, else a list."""
    slider = slider or all(isinstance(value, int | float) for value in axis.values())
    kind, width = (ipywidgets.SelectionSlider, "440px") if slider else (ipywidgets.Dropdown, "260px")
    options = [(label, i) for i, label in enumerate(axis)]
    style = {"description_width": "initial"}
    return kind(options=options, index=0, description=name, layout={"width": width}, style=style)


def _frame_html(frame: Frame, size: tuple[int, int]) -> str:
    """A picture, `size` CSS pixels wide and high, and the text under it, as they stand on every page, live or not."""
    pixels = "ddpm-pixels" if frame.picture.scale > 1 else ""
    # Decoded before it is shown: no flash of white between two frames.
    return (
        f'<img class="ddpm-image {pixels}" style="width: {size[0]}px; height: {size[1]}px" decoding="sync" '
        f'alt="{frame.caption}" src="{frame.picture.uri}"><div class="ddpm-caption">{frame.caption}</div>'
    )


def _json(frames: Iterable[Frame], labels: Iterable[str]) -> str:
    """[picture, caption, label] of every frame, for a script."""
    pages = [(frame.picture.uri, frame.caption, label) for frame, label in zip(frames, labels, strict=True)]
    return json.dumps(pages).replace("</", "<\\/")


def _error_html(error: Exception) -> str:
    """One red sentence, and the traceback folded away below it."""
    sentence = html.escape("".join(traceback.format_exception_only(error)))  # with the note of where it happened
    trace = html.escape("".join(traceback.format_exception(error)))
    return (
        f'<div class="ddpm-error" role="alert"><b>{sentence}</b>'
        f"<details><summary>traceback</summary><pre>{trace}</pre></details></div>"
    )


def visit_all(at_least: int = 0) -> int:
    """`visit` every stepper, pad, prompt and sketch of the session, and return the number of positions in all.

    at_least: how many of them there must be. Raises ValueError where there are fewer, and whatever a visit raises.
    """
    alive = len(_steppers)
    if alive < at_least:
        raise ValueError(f"{alive} steppers and pads are alive, not {at_least}: have the cells that make them run?")
    return sum(stepper.visit() for stepper in _steppers)


def _place() -> Callable[[str], None]:
    """A place in the cell's output; what is returned replaces the HTML there. Outside a notebook it shows nothing."""
    if not InteractiveShell.initialized():
        return lambda text: None
    handle = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(text))


def _progress(items: Iterable[Any], what: str) -> Iterator[Any]:
    """The items, with a bar that comes up after a second and is gone, from the saved notebook too, at the end."""
    total, place, due = len(items) if isinstance(items, Sized) else None, None, time.monotonic() + 1
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() > due:
            place, due = place or _place(), time.monotonic() + 0.2
            bar = f'<progress value="{done}" max="{total}"></progress>' if total else ""
            place(f"{what} {bar} {done}{f' / {total}' if total else ''}")
    if place is not None:
        place("")


@contextmanager
def live(every: float = 0.25) -> Iterator[Callable[..., None]]:
    """One picture and one line of text, replaced in place while a loop runs: `with live() as show: show(fig, "loss")`.

    The first call is shown at once, then at most one in `every` seconds, so that showing costs a loop little; the last
    one always is, even if the loop is interrupted. show(picture, caption="") takes what `Picture.of` takes.
    """
    place = _place()
    waiting: tuple[Any, str] | None = None
    due = 0.0

    def put(thing: Any, caption: str) -> None:
        picture = Picture.of(thing)
        frame = _frame_html(Frame(picture, html.escape(caption)), picture.css_size)
        place(f'{STYLE}<div class="ddpm-static">{frame}</div>')

    def show(picture: Any, caption: str = "") -> None:
        nonlocal waiting, due
        waiting = picture, caption
        if time.monotonic() >= due:
            put(*waiting)
            waiting, due = None, time.monotonic() + every

    try:
        yield show
    finally:
        if waiting is not None:
            put(*waiting)


def export_html(notebook: str | Path, out: str | Path) -> Path:
    """Write an executed notebook as one HTML page, and return `out`. Its steppers and pads need no kernel there.

    Nothing is fetched, not even MathJax: formulas stand as they were typed.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    page = nbformat.read(notebook, as_version=4)
    page.metadata.pop("widgets", None)  # with the widgets' state in it, the page would fetch their code from a CDN
    # nbconvert prefers the widget, which is dead on a page, to the HTML that stands beside it.
    config = Config(
        NbConvertBase={
            "display_data_priority": ["text/html", "text/markdown", "image/png", "image/svg+xml", "text/plain"]
        }
    )
    exporter = HTMLExporter(config=config, mathjax_url="", require_js_url="")
    out = Path(out)
    out.write_text(exporter.from_notebook_node(page)[0], encoding="utf-8")
    return out
