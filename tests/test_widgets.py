"""Stepper, pad and sketch without a browser: what they draw, when, what they say when it goes wrong; the figures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import namedtuple
from collections.abc import Iterator

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_edu import viz, widgets
from ddpm_edu.viz import Picture
from ddpm_edu.widgets import Pad, Prompt, Sketch, Stepper, export_html, visit_all

State = namedtuple("State", "t x_t x_0")


@pytest.fixture(autouse=True)
def _no_stepper_left() -> Iterator[None]:
    yield
    for stepper in list(widgets._steppers):
        stepper.close()


def flat(level: int) -> np.ndarray:
    """A picture of one grey level."""
    return np.full((8, 12), level, np.uint8)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"))


class Recorder:
    """A draw function that remembers what it was asked for."""

    def __init__(self, wrong: dict | None = None) -> None:
        self.asked: list[dict] = []
        self.wrong = wrong

    def __call__(self, t: int, k: float = 1) -> np.ndarray:
        self.asked.append({"t": t, "k": k})
        if self.wrong == {"t": t, "k": k}:
            raise RuntimeError("diverged <here>")
        return flat(int(t * k))


# The stepper --------------------------------------------------------------------------------------------------------


def test_one_axis_is_drawn_at_once_and_once():
    draw = Recorder()
    stepper = Stepper(draw, t=range(0, 100, 20))
    assert [at["t"] for at in draw.asked] == [0, 20, 40, 60, 80]
    assert stepper.visit() == stepper.visit() == 5
    assert len(draw.asked) == 5
    assert stepper.slider.index == 0  # where it was


def test_two_axes_draw_the_first_row_and_the_rest_on_demand():
    draw = Recorder()
    stepper = Stepper(draw, t=[10, 20, 30], k=[1, 2])
    assert len(draw.asked) == 3
    stepper.controls[1].index = 1
    assert draw.asked[3:] == [{"t": 10, "k": 2}]
    assert "k = 2" in stepper.pages[0].value
    assert stepper.pages[1].value == ""  # nothing of the old row is left to be taken for the new one
    stepper.slider.index = 1
    assert draw.asked[4:] == [{"t": 20, "k": 2}]
    assert "k = 2" in stepper.pages[1].value
    stepper.controls[1].index = 0
    assert [page.value.count("k = 1</div>") for page in stepper.pages] == [1, 1, 1]
    assert stepper.visit() == 6
    assert len(draw.asked) == 6


def test_many_positions_are_visited_axis_by_axis():
    draw = Recorder()
    stepper = Stepper(draw, t=range(100), k=[1 + i / 8 for i in range(5)])
    assert stepper.visit() == 104  # 100 + 5, the corner counted once
    draw = Recorder()
    assert Stepper(draw, t=range(80), k=[1 + i / 8 for i in range(5)]).visit() == len(draw.asked) == 400


def test_labels_reach_slider_caption_and_static_version():
    process = {"linear": 1, "cosine": 2}
    stepper = Stepper(lambda t, schedule: flat(int(100 * t) * schedule), t=torch.linspace(0, 1, 5), schedule=process)
    assert [label for label, _ in stepper.slider.options] == ["0", "0.25", "0.5", "0.75", "1"]
    assert "t = 0.25, schedule = linear" in stepper.pages[1].value
    page = stepper._repr_mimebundle_()["text/html"]
    assert "here schedule = linear" in page
    assert "t = 0.25, schedule = linear" in page
    assert "cosine" not in page


def test_functions_are_labelled_by_name():
    stepper = Stepper(lambda t, f: flat(int(f(t) * 50)), t=[1, 2], f=[np.sqrt, np.square])
    assert [label for label, _ in stepper.controls[1].options] == ["sqrt", "square"]


def test_caption_is_escaped_everywhere():
    stepper = Stepper(Recorder(), t={"1": 1, "</script>": 2}, caption=lambda t: f"ᾱ_{t} < 1 & </script>")
    assert "ᾱ_1 &lt; 1 &amp; &lt;/script&gt;" in stepper.pages[0].value
    page = stepper._static()
    assert "ᾱ_1 &lt; 1" in page
    assert page.count("</script>") == 1


def test_of_takes_states_one_at_a_time_in_order_of_arrival():
    x = torch.zeros(8, 8)

    def states() -> Iterator[State]:
        for t in (40, 20, 0):
            x.fill_(t / 40)  # a sampler may reuse its memory: each frame must be drawn when its state arrives
            yield State(t, x, x)

    stepper = Stepper.of(states(), lambda state: state.x_t, caption=lambda state: f"mean {state.x_t.mean():.2f}")
    assert [label for label, _ in stepper.slider.options] == ["40", "20", "0"]
    assert ["mean 1.00" in page.value for page in stepper.pages] == [True, False, False]
    assert "mean 0.50" in stepper.pages[1].value
    assert stepper.visit() == 3


def test_of_numbers_the_steps_where_t_repeats():
    stepper = Stepper.of((State(7, torch.full((4, 4), v), None) for v in (0.0, 0.1, 0.2)), lambda s: s.x_t, name="step")
    assert [label for label, _ in stepper.slider.options] == ["0", "1", "2"]
    assert "step = 2" in stepper.pages[2].value


def test_error_is_raised_while_the_stepper_is_made():
    with pytest.raises(RuntimeError, match="diverged") as caught:
        Stepper(Recorder(wrong={"t": 20, "k": 1}), t=[10, 20])
    assert "t = 20" in caught.value.__notes__[0]
    assert not widgets._steppers


@pytest.mark.parametrize("where", ["draw", "caption"])
def test_error_is_shown_live_and_raised_by_visit(where: str):
    broken = Recorder(wrong={"t": 20, "k": 2})
    draw, caption = (broken, None) if where == "draw" else (Recorder(), lambda t, k: str(broken(t, k)))
    stepper = Stepper(draw, t=[10, 20, 30], k=[1, 2], caption=caption)
    stepper.slider.index = 1
    stepper.controls[1].index = 1  # must not raise: there would be nobody to see it
    page = stepper.pages[1].value
    assert "<b>RuntimeError: diverged &lt;here&gt;" in page
    assert "t = 20, k = 2" in page
    assert "<details>" in page
    stepper.controls[1].index = 0
    assert "ddpm-error" not in stepper.pages[1].value
    assert stepper.failure is None
    with pytest.raises(RuntimeError, match="diverged"):
        stepper.visit()


def test_visit_raises_what_goes_wrong_only_once():
    failures = [RuntimeError("the first time")]

    def draw(t: int, k: int) -> np.ndarray:
        if k == 2 and failures:
            raise failures.pop()
        return flat(t * k)

    with pytest.raises(RuntimeError, match="the first time"):
        Stepper(draw, t=[1, 2], k=[1, 2]).visit()


def test_visit_complains_of_one_picture_for_all():
    stepper = Stepper(lambda t: flat(3), t=[1, 2, 3])
    with pytest.raises(ValueError, match="all 3 pictures over t are the same"):
        stepper.visit()


def test_visit_all():
    with pytest.raises(ValueError, match="0 steppers and pads are alive, not 1"):
        visit_all(at_least=1)
    assert visit_all() == 0
    one, _two = Stepper(Recorder(), t=[1, 2]), Stepper(Recorder(), t=[1, 2, 3])
    assert visit_all(at_least=2) == 5
    one.close()
    assert visit_all() == 3
    pad = Pad(lambda x, y: flat(10 * x + y), lambda ax: None, x=[1, 2], y=[3, 4])
    assert visit_all(at_least=2) == 7
    pad.close()
    assert visit_all() == 3
    Stepper(Recorder(wrong={"t": 2, "k": 2}), t=[1, 2], k=[1, 2])
    with pytest.raises(RuntimeError, match="diverged"):
        visit_all()


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "something to step through"),
        ({"t": []}, "t has 0 value"),
        ({"t": [5]}, "t has 1 value"),
        ({"t": [1, 2], "k": [3.0, 3.0]}, "two values of k read the same"),
    ],
)
def test_bad_axes_get_a_sentence(axes: dict, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        Stepper(Recorder(), **axes)


def test_nothing_to_step_through_in_a_sampler_without_states():
    with pytest.raises(ValueError, match="t has 0 value"):
        Stepper.of(iter(()), lambda state: state.x_t)


def test_static_version_holds_its_frames_and_asks_for_nothing_else():
    stepper = Stepper(Recorder(), t=[1, 2, 3])
    bundle = stepper._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    page = bundle["text/html"]
    frames = json.loads(re.search(r"const frames = (\[.*?\]\])", page)[1])
    assert [label for _, _, label in frames] == ["1", "2", "3"]
    assert {uri.partition(",")[0] for uri, _, _ in frames} == {"data:image/webp;base64"}
    assert 'data-lm-suppress-shortcuts="true"' in page
    assert "http" not in page
    assert len(set(re.findall(r'id="(ddpm-\w+)"', page + stepper._static()))) == 2  # shown twice: two names


def test_fifty_frames_of_points_and_a_histogram_stay_small():
    noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))

    def draw(t: int):
        fig, (left, right) = viz.figure(7.2, 3.4, columns=2)
        viz.scatter(left, noise * t / 50)
        viz.histogram(right, noise[:, 0] * t / 50)
        return fig

    stepper = Stepper(draw, t=range(0, 50, 5))
    assert sum(len(frame.picture.data) for frame in stepper._main) * 5 < 1.7e6
    assert stepper._main[0].picture.css_size == (720, 340)


@pytest.mark.slow
def test_notebook_live_and_progress_leave_one_output(tmp_path):
    """In a real kernel: `live` replaces its one output, a finished progress bar leaves nothing to see."""
    from nbclient import NotebookClient

    cells = [
        "import time, numpy as np\nfrom ddpm_edu.widgets import *\n"
        "with live(every=0.05) as show:\n"
        "    for i in range(30): show(np.full((8, 8), i, np.uint8), f'step {i}'); time.sleep(0.01)",
        "def draw(t): time.sleep(0.8); return np.full((8, 8), t, np.uint8)\nStepper(draw, t=range(3))",
        "visit_all(at_least=1)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = book.cells[0].outputs
    assert "step 29" in shown.data["text/html"]
    bar, stepper = book.cells[1].outputs
    assert bar.data["text/html"] == ""
    assert "ddpm-static" in stepper.data["text/html"]
    assert book.cells[2].outputs[0].data["text/plain"] == "3"
    path = tmp_path / "book.ipynb"
    nbformat.write(book, path)
    page = export_html(path, tmp_path / "book.html").read_text()
    assert page.count('type="range"') == 1
    assert "drawing" not in page


def test_export_writes_a_table_that_a_cell_gives_as_markdown(tmp_path):
    data = {"text/markdown": "| a | b |\n|---|---|\n| 1 | 2 |", "text/plain": "<IPython.core.display.Markdown object>"}
    output = nbformat.v4.new_output("execute_result", data, execution_count=1)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("table", outputs=[output])])
    nbformat.write(book, tmp_path / "book.ipynb")
    page = export_html(tmp_path / "book.ipynb", tmp_path / "book.html").read_text()
    assert "<td>1</td>" in page
    assert "Markdown object" not in page


def test_live_shows_the_first_and_the_last(monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []
    monkeypatch.setattr(widgets, "_place", lambda: shown.append)

    def interrupted() -> None:
        with widgets.live(every=60) as show:
            for i in range(5):
                show(flat(i), f"loss {i}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [re.search(r"loss \d", page)[0] for page in shown] == ["loss 0", "loss 4"]


# The pad ------------------------------------------------------------------------------------------------------------


def test_pad_holds_every_position_under_its_name():
    asked = []

    def draw(x: float, y: int) -> np.ndarray:
        asked.append((x, y))
        return flat(int(100 * x) + y)

    caption = lambda x, y: f"x + y < {x + y:g}</script>"  # noqa: E731
    pad = Pad(draw, lambda ax: None, x=np.linspace(0, 1, 5), y=[1, 2, 4], caption=caption)
    assert pad.visit() == len(asked) == len(set(asked)) == 15
    page = pad._repr_html_()
    frames = json.loads(re.search(r"const frames = (\[.*?\]\])", page)[1])
    for (x, y), (uri, text, label) in zip(asked, frames, strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert image.getpixel((0, 0))[0] == int(100 * x) + y
        assert (label, text) == (f"x = {x:g}, y = {y}", f"x + y &lt; {x + y:g}&lt;/script&gt;")
    assert "<output>x = 0.5, y = 2</output>" in page  # before its script has run: the middle
    assert page.count("</script>") == 1
    assert "http" not in page
    assert len(set(re.findall(r'id="(ddpm-\w+)"', page + pad._repr_html_()))) == 2  # shown twice: two names


@pytest.mark.parametrize("setting", [{}, {"aspect": "equal"}, {"xscale": "log"}])
def test_pad_knows_where_on_the_plane_its_positions_are(setting: dict):
    """Points that the background draws at the positions are found in its picture, where the script puts the point."""
    x, y = [1, 2, 5], [-1, 0, 0.5, 1]

    def background(ax) -> None:
        ax.scatter(*np.meshgrid(x, y), s=60, color="#ff0000", clip_on=False, zorder=9)
        ax.set(**setting)

    pad = Pad(lambda x, y: flat(int(10 * (x + y))), background, x=x, y=y)
    plane = pixels(pad._plane).astype(int)
    high, wide, _ = plane.shape
    red = (plane[:, :, 0] > 200) & (plane[:, :, 1:] < 90).all(2)
    left, top = pad._places
    assert (len(left), len(top)) == (3, 4)
    assert left == sorted(left)
    assert top == sorted(top, reverse=True)
    assert [left[0], left[-1]] == pytest.approx([100 * 80 / 403, 100 * 388 / 403], abs=0.01)  # from edge to edge
    for i, j in np.ndindex(3, 4):
        column, row = round(left[i] / 100 * wide), round(top[j] / 100 * high)
        around = red[row - 15 : row + 16, column - 15 : column + 16]
        centre = np.argwhere(around).mean(0) - 15
        assert np.abs(centre).max() < 1, (i, j, centre)  # half a CSS pixel


def test_pad_that_goes_wrong_says_so_when_it_is_made():
    def draw(x: int, y: int) -> np.ndarray:
        if (x, y) == (2, 3):
            raise RuntimeError("diverged")
        return flat(x + y)

    with pytest.raises(RuntimeError, match="diverged") as caught:
        Pad(draw, lambda ax: None, x=[1, 2], y=[3, 4])
    assert "x = 2, y = 3" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="all 4 pictures over x, y are the same"):
        Pad(lambda x, y: flat(3), lambda ax: None, x=[1, 2], y=[3, 4]).visit()
    assert len(widgets._steppers) == 1


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"x": [1, 2]}, "two axes, not 1"),
        ({"x": [1, 2], "y": [1, 2], "z": [1, 2]}, "two axes, not 3"),
        ({"x": [1], "y": [1, 2]}, "x has 1 value"),
        ({"x": [1, 2], "y": [1, 3, 2]}, "the values of y must increase"),
    ],
)
def test_bad_axes_of_a_pad_get_a_sentence(axes: dict, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        Pad(lambda **at: flat(3), lambda ax: None, **axes)


# The sketch ---------------------------------------------------------------------------------------------------------

SHAPE = torch.tensor([[0.0, 0.5], [0.5, 0.0], [1.0, 1.0]])


class Answer:
    """An answer that remembers what it was asked, and goes wrong for a single point if told so."""

    def __init__(self, wrong: bool = False) -> None:
        self.asked: list[torch.Tensor] = []
        self.wrong = wrong

    def __call__(self, points: torch.Tensor) -> Stepper:
        self.asked.append(points)
        if self.wrong and len(points) == 1:
            raise RuntimeError("one point <only>")
        return Stepper(lambda t, k: flat(len(points) % 50 + t * k), t=[1, 2, 3], k=[1, 2])


def circle(n: int, radius: float = 0.5, hurry: float = 0.0) -> list[list[float]]:
    """A circle as n reports of the mouse; hurry: how much faster the hand is in one half of it than in the other."""
    turn = np.linspace(0, 2 * np.pi, n)
    turn = turn + hurry * np.sin(turn)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1).tolist()


def test_sketch_asks_for_the_points_given_then_for_those_drawn():
    answer = Answer()
    sketch = Sketch(answer, SHAPE)
    assert torch.equal(answer.asked[0], SHAPE)
    assert sketch.canvas.given == [[[0.0, 0.5]], [[0.5, 0.0]], [[1.0, 1.0]]]
    sketch.canvas.strokes = [[[-0.5, 0.25]]]
    assert answer.asked[1].tolist() == [[-0.5, 0.25]]  # a click is a point
    sketch.canvas.strokes = []  # cleared: there is nothing to ask, the last answer stays
    assert len(answer.asked) == 2
    assert sketch.points.shape == (0, 2)
    sketch.canvas.strokes = None  # undone
    assert torch.equal(answer.asked[2], SHAPE)


def test_sketch_has_the_size_it_is_told():
    answer = Answer()
    sketch = Sketch(answer, 4 * SHAPE, extent=4)
    assert sketch.canvas.given[0] == [[0.0, 0.5]]
    sketch.canvas.strokes = [[[-0.5, 0.25]]]
    assert answer.asked[1].tolist() == [[-2.0, 1.0]]


@pytest.mark.parametrize("hand", [circle(40), circle(900), circle(120, hurry=0.8)])
def test_fast_and_slow_hands_give_the_same_points(hand: list):
    sketch = Sketch(Answer(), SHAPE)
    sketch.canvas.strokes = [hand]
    points = sketch.points
    steps = (points[1:] - points[:-1]).norm(dim=1)
    assert len(points) in (157, 158)  # pi / 0.02, and one
    assert steps.max() / steps.min() < 1.01
    even = torch.tensor(circle(len(points)))
    assert (points - even).norm(dim=1).max() < 0.01


@pytest.mark.parametrize(
    ("strokes", "fewest", "most"),
    [
        ([circle(50, radius) for radius in np.linspace(0.1, 0.9, 30)], 270, 300),
        ([circle(50), [[0.2, 0.1]], [[-0.2, 0.1], [-0.2, 0.1001]]], 157 + 1 + 1, 158 + 1 + 1),
        ([[[x / 200, 0.0]] for x in range(200)], 200, 200),
    ],
    ids=["a scribble", "a face", "clicks"],
)
def test_points_are_not_too_many(strokes: list, fewest: int, most: int):
    sketch = Sketch(Answer(), SHAPE)
    sketch.canvas.strokes = strokes
    assert fewest <= len(sketch.points) <= most


def test_the_new_stepper_takes_the_place_of_the_old():
    sketch = Sketch(Answer(), SHAPE)
    first, alive = sketch.stepper, len(ipywidgets.widgets.widget._instances)
    first.slider.index, first.controls[1].index = 2, 1
    for k in range(3):
        sketch.canvas.strokes = [[[0.1 * k, 0.0]]]
    assert sketch.stepper is not first
    assert sketch._beside.children == (sketch.stepper,)
    assert [control.index for control in sketch.stepper.controls] == [2, 1]
    assert len(widgets._steppers) == 1
    assert len(ipywidgets.widgets.widget._instances) == alive  # nothing of the old ones is left
    assert visit_all(at_least=1) == 6
    with pytest.raises(ValueError, match="1 steppers and pads are alive, not 2"):
        visit_all(at_least=2)
    sketch.close()
    assert widgets._steppers == []


def test_another_axis_starts_at_its_beginning():
    def answer(points: torch.Tensor) -> Stepper:
        return Stepper(lambda **at: flat(*at.values()), **{"t": range(3 if len(points) == 1 else 9)})

    sketch = Sketch(answer, SHAPE)
    sketch.stepper.slider.index = 8
    sketch.canvas.strokes = [[[0.0, 0.0]]]
    assert sketch.stepper.slider.index == 0


def test_an_answer_that_goes_wrong_is_shown_until_the_next():
    sketch = Sketch(Answer(wrong=True), SHAPE)
    sketch.stepper.slider.index = 1
    sketch.canvas.strokes = [[[0.0, 0.0]]]  # must not raise: there would be nobody to see it
    (shown,) = sketch._beside.children
    assert "<b>RuntimeError: one point &lt;only&gt;" in shown.value
    assert "<details>" in shown.value
    assert "one point &lt;only&gt;" in sketch._static()
    with pytest.raises(RuntimeError, match="one point"):
        visit_all()
    sketch.canvas.strokes = [circle(50)]
    assert sketch._beside.children == (sketch.stepper,)
    assert sketch.stepper.slider.index == 1
    assert sketch.failure is None


def test_visit_tries_other_drawings_and_puts_back_what_was_drawn():
    answer = Answer()
    sketch = Sketch(answer, SHAPE)
    sketch.canvas.strokes = [circle(50)]
    assert visit_all() == 6
    assert [len(points) for points in answer.asked] == [3, 157, 1, 71, 157]
    assert sketch.canvas.strokes == [circle(50)]
    answer.wrong = True
    with pytest.raises(RuntimeError, match="one point"):
        visit_all()
    assert sketch.failure is None  # that drawing is gone again


def test_sketch_that_goes_wrong_says_so_when_it_is_made():
    with pytest.raises(RuntimeError, match="one point"):
        Sketch(Answer(wrong=True), SHAPE[:1])
    with pytest.raises(TypeError, match=r"not NoneType: does it end with `return`\?"):
        Sketch(lambda points: None, SHAPE)
    for points in (SHAPE[0], SHAPE.T, SHAPE[:0]):
        with pytest.raises(ValueError, match=r"points must have shape \(n, 2\), not"):
            Sketch(Answer(), points)
    assert widgets._steppers == []


def test_static_sketch_shows_the_drawing_and_the_stepper():
    sketch = Sketch(Answer(), SHAPE)
    bundle = sketch._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "http" not in bundle["text/html"]
    assert bundle["text/html"].count('type="range"') == bundle["text/html"].count('class="ddpm-static"') == 1

    def ink() -> str:
        picture = re.search(r"data:image/svg\+xml;base64,([\w+/=]+)", sketch._static())[1]
        return re.search(r' d="([^"]*)"', base64.b64decode(picture).decode())[1]

    assert ink() == "M0.0,0.5L0.0,0.5M0.5,0.0L0.5,0.0M1.0,1.0L1.0,1.0"
    sketch.canvas.strokes = [[[0.1, 0.2], [0.3, 0.4]]]
    assert ink() == "M0.1,0.2L0.1,0.2L0.3,0.4"
    sketch.canvas.strokes = []
    assert ink() == ""


# Pictures -----------------------------------------------------------------------------------------------------------


def test_pixels_are_kept_exactly_and_enlarged_by_the_page():
    array = np.random.default_rng(0).integers(0, 256, (28, 30, 3), np.uint8)
    picture = Picture.of(array)
    assert np.array_equal(pixels(picture), array)
    assert picture.css_size == (330, 308)  # 11 times: the largest whole number that leaves it at most 320 high
    assert np.array_equal(pixels(Picture.of(Image.fromarray(array))), array)


def test_floats_lie_in_minus_one_to_one_and_are_clipped():
    picture = Picture.of(torch.tensor([[-3.0, -1.0, 0.0, 1.0, 3.0]]))
    assert pixels(picture)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (None, "not NoneType: does the function that draws it end with `return`"),
        ([1, 2], "not list"),
        (np.zeros((3, 8, 8), np.uint8), r"not \(3, 8, 8\)"),
        (np.zeros((8, 8), np.int64), "int64"),
        (torch.full((8, 8), float("nan")), "NaN"),
    ],
)
def test_what_is_no_picture_gets_a_sentence(thing: object, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        Picture.of(thing)


def test_figures_are_drawn_at_twice_their_size_and_closed():
    before = plt.get_fignums()
    fig = plt.figure(figsize=(3, 2))
    picture = Picture.of(fig)
    assert pixels(picture).shape == (400, 600, 3)
    assert picture.css_size == (300, 200)
    assert plt.get_fignums() == before
    viz.figure(3, 2)
    assert plt.get_fignums() == before


def test_dots_stand_where_the_points_are():
    picture = viz.dots(torch.tensor([[1.0, 1.5], [-1.9, -1.9], [2.5, 0.0], [0.0, float("nan")]]), extent=2, side=100)
    assert picture.shape == (100, 100, 3)
    assert picture.dtype == np.uint8
    inked = (picture < 255).any(2)
    at = np.argwhere(inked & (np.arange(100) > 50)) - (12, 75)  # row and column of the first point, the only one there
    assert np.abs(at).max() == 2  # five pixels wide
    assert np.abs(at.mean(0)).max() < 1e-9
    assert inked[95:, :5].any()
    share = 0.6 * np.array([0, 0x72, 0xB2]) + 0.4 * 255
    assert picture[12, 75] == pytest.approx(share, abs=0.51)
    assert viz.dots(torch.zeros(9, 2))[160, 160].tolist() == pytest.approx([0, 0x72, 0xB2], abs=1)
    assert (viz.dots(torch.zeros(0, 2)) == 255).all()


def test_dots_show_as_much_as_scatter_does():
    points = torch.randn(600, 2, generator=torch.Generator().manual_seed(0)) / 3
    fig = viz._Figure(figsize=(3.2, 3.2))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    viz.scatter(ax, points, limits=(-1, 1), size=(5 * 0.72) ** 2)  # 5 pixels at 100 to the inch, in points
    drawn = np.asarray(viz._draw(fig).resize((320, 320), Image.Resampling.BOX)).astype(float)
    ours = viz.dots(points).astype(float)
    assert ours.mean() == pytest.approx(drawn.mean(), abs=1)
    coarse = [picture.reshape(20, 16, 20, 16, 3).mean((1, 3)) for picture in (ours, drawn)]
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.99


def test_grid_lays_out_row_after_row():
    images = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 1, 2, 2)
    laid = viz.grid(images, columns=3, gap=1, background=9)
    assert laid.tolist() == [
        [0, 0, 9, 1, 1, 9, 2, 2],
        [0, 0, 9, 1, 1, 9, 2, 2],
        [9, 9, 9, 9, 9, 9, 9, 9],
        [3, 3, 9, 4, 4, 9, 9, 9],
        [3, 3, 9, 4, 4, 9, 9, 9],
    ]
    assert viz.grid(images[:, 0], gap=0).shape == (4, 6)  # 5 pictures: 3 in a row
    colour = torch.stack([torch.full((3, 4, 5), level) for level in (-1.0, 1.0)])
    assert viz.grid(colour).shape == (4, 11, 3)
    assert viz.grid(colour)[0, [0, -1], 0].tolist() == [0, 255]


@pytest.mark.parametrize("shape", [(8, 8), (2, 4, 8, 8), (0, 1, 8, 8)])
def test_grid_refuses_what_is_no_batch(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="images must be a batch"):
        viz.grid(torch.zeros(shape))


def test_histogram_follows_its_density_also_when_points_lie_outside():
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    _, ax = viz.figure(4, 3)
    viz.histogram(ax, x, lambda at: torch.exp(-(at**2) / 2) / (2 * torch.pi) ** 0.5, limits=(-1, 1), bins=20)
    heights, edges, _ = ax.patches[0].get_data()
    at, curve = ax.lines[0].get_data()
    centres = (edges[1:] + edges[:-1]) / 2
    assert np.abs(heights - np.interp(centres, at, curve)).max() < 0.02


def test_show_images_puts_each_batch_under_its_title():
    fig = viz.show_images({"x_t": torch.zeros(4, 1, 8, 8), "ε": torch.zeros(1, 3, 8, 16)})
    assert [ax.get_title() for ax in fig.axes] == ["x_t", "ε"]
    png, size = fig._repr_png_()
    assert Image.open(io.BytesIO(png)).size == (2 * size["width"], 2 * size["height"])
    assert viz.show_grid(torch.zeros(4, 8, 8), "samples").axes[0].get_title() == "samples"


def test_figure_says_when_there_is_no_room():
    with pytest.raises(ValueError, match="leave no room"):
        viz.figure(2, 2, columns=4)


# The prompt -----------------------------------------------------------------------------------------------------------


def level_of(text: str, k: int) -> np.ndarray:
    """A picture whose grey level is the number written, times k."""
    asked.append((text, k))
    return flat(int(text) * k)


asked: list[tuple[str, int]] = []


@pytest.fixture
def prompt() -> Prompt:
    asked.clear()
    return Prompt(level_of, "3", caption=lambda text, k: f"<{text}> times {k}", k=[1, 2, 5])


def shown(prompt: Prompt) -> str:
    return prompt._page.value


def test_a_prompt_draws_its_first_text_at_once(prompt: Prompt):
    assert asked == [("3", 1)]
    assert "&lt;3&gt; times 1" in shown(prompt)
    assert "&lt;3&gt; times 1" in prompt._repr_mimebundle_()["text/html"]


def test_a_prompt_draws_what_is_written_and_chosen_once(prompt: Prompt):
    prompt.text.value = "7"
    prompt.controls[0].index = 2
    assert asked[1:] == [("7", 1), ("7", 5)]
    assert "&lt;7&gt; times 5" in shown(prompt)
    prompt.button.click()  # nothing new: what is drawn is kept
    prompt.text.value = "3"
    prompt.controls[0].index = 0
    assert asked[1:] == [("7", 1), ("7", 5), ("3", 5)]
    assert (prompt.button.disabled, prompt.button.description) == (False, "draw")


def test_a_prompt_shows_what_went_wrong_and_goes_on(prompt: Prompt):
    prompt.text.value = "<b>"
    assert isinstance(prompt.failure, ValueError)
    assert 'role="alert"' in shown(prompt)
    assert "<b>&#x27;" not in shown(prompt)
    assert "&lt;b&gt;" in shown(prompt)
    prompt.text.value = "4"
    assert prompt.failure is None
    assert "&lt;4&gt; times 1" in shown(prompt)


def test_a_prompts_first_error_is_raised():
    with pytest.raises(ValueError, match="invalid literal"):
        Prompt(level_of, "three", k=[1, 2])


def test_visiting_a_prompt_makes_every_choice(prompt: Prompt):
    assert visit_all(1) == 3
    assert asked == [("3", 1), ("3", 2), ("3", 5)]
    assert prompt.controls[0].index == 0
    prompt.text.value = "0"
    with pytest.raises(ValueError, match="pictures over k are the same"):
        prompt.visit()
    prompt.close()
    assert visit_all() == 0
