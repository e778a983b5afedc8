"""The stepper behind every slider of the course, and `live`, which shows a long loop at work.

A `Stepper` draws each position once and keeps the picture, so that a move only swaps bytes. In a running notebook it is
an ipywidgets box; in a page exported from one (`export_html`), or a notebook reopened without its kernel, the same
frames move under a plain HTML slider that needs neither kernel nor network.
"""

from __future__ import annotations

import html
import itertools
import json
import string
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, display

from .viz import Picture

__all__ = ["Stepper", "export_html", "live", "visit_all"]

STYLE, _, _page = (Path(__file__).with_name("stepper.html")).read_text("utf-8").partition("<!-- split")
STATIC = string.Template(_page.partition("-->")[2])

# Every stepper of the session, in the order they were made; `close` takes one out.
_steppers: list[Stepper] = []


def _axis(name: str, values: Iterable[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """What one slider runs through, {label: value}: given so, or labelled here: a number, a word, a function's name."""
    pairs = list(values.items()) if isinstance(values, Mapping) else [(value, value) for value in values]
    axis = {_label(label): value for label, value in pairs}
    if len(pairs) < 2:
        raise ValueError(f"{name} has {len(pairs)} value(s): a slider needs at least two to move between")
    if len(axis) < len(pairs):
        raise ValueError(f"two values of {name} read the same on the slider: give {{label: value}} instead")
    return axis


class Frame(NamedTuple):
    """One position, drawn: the picture, and the HTML under it. Both versions, live and static, show just this."""

    picture: Picture
    caption: str


def _label(value: Any) -> str:
    """A number, a word or a function (by its name) as it reads on a slider."""
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.6g}" if isinstance(value, float) else getattr(value, "__name__", str(value))


class Stepper(ipywidgets.VBox):
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
        self._draw, self._caption = draw, caption
        self._axes = {name: _axis(name, values) for name, values in axes.items()}
        self._frames: dict[tuple[int, ...], Frame] = {}
        self.failure: Exception | None = None  # what went wrong at the position shown, if anything did
        n, *others = map(len, self._axes.values())
        self._main = [self._frame((i, *[0] * len(others))) for i in _progress(range(n), "drawing")]
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

    # Drawing ---------------------------------------------------------------------------------------------------------

    def _frame(self, position: tuple[int, ...]) -> Frame:
        """The frame at a position, an index into each axis: drawn when first asked for, then kept."""
        if position not in self._frames:
            picked = [list(axis.items())[i] for axis, i in zip(self._axes.values(), position, strict=True)]
            at = {name: value for name, (_, value) in zip(self._axes, picked, strict=True)}
            where = ", ".join(f"{name} = {label}" for name, (label, _) in zip(self._axes, picked, strict=True))
            try:
                text = where if self._caption is None else str(self._caption(**at))
                self._frames[position] = Frame(Picture.of(self._draw(**at)), html.escape(text))
            except Exception as error:
                error.add_note(f"(while the stepper was drawing {where})")
                raise
        return self._frames[position]

    # Live ------------------------------------------------------------------------------------------------------------

    def _build(self) -> list[ipywidgets.Widget]:
        """Everything inside the box, wired up."""
        (name, main), *others = self._axes.items()
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
        layout, style = ipywidgets.Layout(), ipywidgets.HTML().style  # one for all pages: fewer messages
        self.pages = [ipywidgets.HTML(_frame_html(f, self._size), layout=layout, style=style) for f in self._main]
        film = ipywidgets.Tab(self.pages, selected_index=0, layout={"min_height": f"{self._size[1] + 40}px"})
        ipywidgets.jslink((self._play, "value"), (self.slider, "index"))
        ipywidgets.jsdlink((self.slider, "index"), (film, "selected_index"))
        for control in self.controls:
            control.observe(lambda _: self._show(), "index")

        rows = [[self._play, back, forward, self.slider], self.controls[1:]]
        css = ipywidgets.HTML(STYLE, layout={"display": "none"})
        return [css, *(ipywidgets.HBox(row) for row in rows if row), film.add_class("ddpm-film")]

    def _show(self) -> None:
        """Put on every page what is drawn of the controls' row, and on the one shown its frame or what went wrong."""
        here, *others = position = tuple(control.index for control in self.controls)
        self.failure, shown = None, ""
        try:
            self._frame(position)
        except Exception as error:  # whatever it is, the learner must see it: a widget's callback has no other way out
            self.failure, shown = error, _error_html(error)
        for i, page in enumerate(self.pages):  # a page that keeps its value costs no message
            frame = self._frames.get((i, *others))
            page.value = _frame_html(frame, self._size) if frame else shown if i == here else ""

    def visit(self) -> int:
        """Move through every position, raise whatever goes wrong there, and return how many there were.

        Up to 400 positions that is every combination; beyond, each axis alone with the others at their first value.
        Raises ValueError where all pictures are the same: then `draw` does not use what it is given.
        """
        positions = list(itertools.product(*(range(len(axis)) for axis in self._axes.values())))
        if len(positions) > 400:
            positions = [position for position in positions if sum(map(bool, position)) <= 1]
        before = [control.index for control in self.controls]
        for position in [*positions, before]:
            for control, index in zip(self.controls, position, strict=True):
                control.index = index
            if self.failure is not None:
                raise self.failure
        if len({self._frame(position).picture.data for position in positions}) == 1:
            raise ValueError(f"all {len(positions)} pictures of the stepper over {', '.join(self._axes)} are the same")
        return len(positions)

    def close(self) -> None:
        """Let go of the widget: it stops answering, and `visit_all` no longer counts it."""
        if self in _steppers:
            _steppers.remove(self)
        super().close()

    # Static ----------------------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return (super()._repr_mimebundle_(**kwargs) or {}) | {"text/html": self._static(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Stepper({', '.join(f'{name}: {len(axis)} positions' for name, axis in self._axes.items())})"

    def _static(self) -> str:
        """The main axis as a piece of HTML that stands alone: every frame a data URI, a few lines of plain script."""
        (name, main), *others = self._axes.items()
        fixed = ", ".join(f"{other} = {next(iter(axis))}" for other, axis in others)
        frames = [(f.picture.uri, f.caption, label) for f, label in zip(self._main, main, strict=True)]
        return STYLE + STATIC.substitute(
            id=f"ddpm-{uuid.uuid4().hex}",  # two steppers of one page, or one shown twice, must not meet
            name=html.escape(name),
            label=html.escape(frames[0][2]),
            fixed=html.escape(f"here {fixed}" if fixed else ""),
            first=_frame_html(self._main[0], self._size),
            last=len(frames) - 1,
            interval=self._play.interval,
            frames=json.dumps(frames).replace("</", "<\\/"),
        )


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


def _error_html(error: Exception) -> str:
    """One red sentence, and the traceback folded away below it."""
    sentence = html.escape("".join(traceback.format_exception_only(error)))  # with the note of where it happened
    trace = html.escape("".join(traceback.format_exception(error)))
    return (
        f'<div class="ddpm-error" role="alert"><b>{sentence}</b>'
        f"<details><summary>traceback</summary><pre>{trace}</pre></details></div>"
    )


def visit_all(at_least: int = 0) -> int:
    """`visit` every stepper of the session, and return the number of positions in all.

    at_least: how many steppers there must be. Raises ValueError where there are fewer, and whatever a visit raises.
    """
    if len(_steppers) < at_least:
        raise ValueError(f"{len(_steppers)} steppers are alive, not {at_least}: have the cells that make them run?")
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
    """Write an executed notebook as one HTML page, its steppers working without kernel and network, and return `out`.

    Nothing is fetched, not even MathJax: formulas stand as they were typed.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    page = nbformat.read(notebook, as_version=4)
    page.metadata.pop("widgets", None)  # with the widgets' state in it, the page would fetch their code from a CDN
    # nbconvert prefers the widget, which is dead on a page, to the HTML that stands beside it.
    config = Config(NbConvertBase={"display_data_priority": ["text/html", "image/png", "image/svg+xml", "text/plain"]})
    exporter = HTMLExporter(config=config, mathjax_url="", require_js_url="")
    out = Path(out)
    out.write_text(exporter.from_notebook_node(page)[0], encoding="utf-8")
    return out
