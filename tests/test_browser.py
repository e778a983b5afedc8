"""A learner's morning: open a notebook in JupyterLab, run it, drag the slider, see the picture change."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import numpy as np
import pytest
from harness import ROOT, TOKEN, Lab
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

SLIDER = """
import io
import ipywidgets as widgets
from PIL import Image

def draw(t):
    file = io.BytesIO()
    Image.new("L", (64, 64), t).save(file, "PNG")
    return file.getvalue()

slider, image = widgets.IntSlider(0, 0, 255), widgets.Image(value=draw(0))
slider.observe(lambda change: setattr(image, "value", draw(change.new)), "value")
box = widgets.VBox([slider, image])
box.add_class("ddpm-stepper")
box
"""


def drag(page: Page, stepper: Locator) -> None:
    """Take the first slider's handle with the mouse and carry it 80 pixels to the right."""
    handle = stepper.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box, "the slider has no handle"
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y, steps=8)
    page.mouse.up()


def assert_dragging_changes_the_picture(page: Page, stepper: Locator) -> None:
    """A stepper may hold its frames in several images: the one that is seen counts."""
    before = stepper.locator("img:visible").first.get_attribute("src")
    drag(page, stepper)
    page.wait_for_function(
        "([stepper, before]) => [...stepper.querySelectorAll('img')].find((img) => img.offsetParent)?.src !== before",
        arg=[stepper.element_handle(), before],
    )


def write_notebook(path: Path, *cells: str) -> None:
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }  # else Lab asks for one
    notebook = nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, path)


def test_plain_ipywidgets_slider(lab: Lab, page: Page):
    """JupyterLab, kernel, ipywidgets and browser work together at all: when this fails, look no further."""
    write_notebook(lab.root / "slider.ipynb", SLIDER)
    run = lab.open_and_run(page, "slider.ipynb")
    assert_dragging_changes_the_picture(page, page.locator(".ddpm-stepper").first)
    run.assert_clean()


def test_jupyterlab_asks_the_network_nothing(lab: Lab):
    """The repository's settings are in force: no news, no look for updates, no extension manager, no cell unloaded."""

    def ask(path: str) -> dict:
        with urllib.request.urlopen(f"{lab.url}/lab/api/{path}?token={TOKEN}", timeout=30) as response:
            return json.loads(response.read() or "{}")

    def default(plugin: str, name: str) -> object:
        return ask(f"settings/{plugin}")["schema"]["properties"][name]["default"]

    assert default("@jupyterlab/apputils-extension:notification", "fetchNews") == "false"
    assert default("@jupyterlab/apputils-extension:notification", "checkForUpdates") is False
    assert default("@jupyterlab/extensionmanager-extension:plugin", "enabled") is False
    assert default("@jupyterlab/notebook-extension:tracker", "windowingMode") == "none"
    page = urllib.request.urlopen(f"{lab.url}/lab?token={TOKEN}", timeout=30).read().decode()
    config = json.loads(
        re.search(r'id="jupyter-config-data" type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    )
    assert config["extensionManager"]["can_install"] is False


def test_harness_sees_what_goes_wrong(lab: Lab, page: Page):
    """A cell that raises, a page that complains and a request that leaves the machine are not overlooked."""
    script = "console.error('complaint'); fetch('http://192.0.2.1/').catch(() => null)"  # an address that is nobody's
    display = f"from IPython.display import Javascript, display; display(Javascript({script!r}))"
    write_notebook(lab.root / "wrong.ipynb", display, "1 / 0")
    run = lab.open_and_run(page, "wrong.ipynb")
    assert run.executed == 2
    assert run.raised == ["ZeroDivisionError: division by zero"]
    assert "complaint" in run.console
    assert run.outside == ["http://192.0.2.1/"]


def test_notebook_05(lab: Lab, page: Page):
    """The main slider of the course, dragged: real digits and points through t."""
    names = [path.name for path in (ROOT / "notebooks").glob("05_*.ipynb")]
    if not names:
        pytest.skip("notebook 05 is not written yet")
    run = lab.open_and_run(page, names[0])
    steppers = page.locator(".ddpm-stepper")
    steppers.first.wait_for()
    for i in range(steppers.count()):
        assert_dragging_changes_the_picture(page, steppers.nth(i))
    run.assert_clean()


def excerpt(lab: Lab, name: str, word: str, alone: bool = False) -> str:
    """A notebook of the course down to its first cell with this word; alone: only that cell and the first, imports."""
    notebook = nbformat.read(next((ROOT / "notebooks").glob(f"{name}_*.ipynb")), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    here = next(i for i, cell in enumerate(code) if word in cell.source)
    notebook.cells = [code[0], code[here]] if alone else code[: here + 1]
    nbformat.write(notebook, lab.root / f"excerpt_{name}.ipynb")
    return f"excerpt_{name}.ipynb"


@pytest.mark.parametrize("name", ["03", "06"])
def test_notebook_has_a_plane_to_walk_in(lab: Lab, page: Page, name: str):
    """03: the latent plane of digits. 06: x_0 and x_t. The mouse, dragged over it, turns one picture into another."""
    run = lab.open_and_run(page, excerpt(lab, name, "Pad("))
    plane, image, where = (page.locator(f".ddpm-pad {what}") for what in (".ddpm-plane", ".ddpm-image", "output"))
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()
    assert box
    pictures, places = set(), set()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    for share in (0.3, 0.4, 0.5, 0.6, 0.7):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + share * box["height"], steps=3)
        page.wait_for_timeout(50)
        pictures.add(image.get_attribute("src"))
        places.add(where.inner_text())
    page.mouse.up()
    assert len(pictures) == len(places) == 5
    run.assert_clean()


def test_notebook_00_draws_what_is_written(lab: Lab, page: Page):
    """A sentence, Enter, and soon its picture, red for a red heart; a word it never read is named with one it knows."""
    run = lab.open_and_run(page, excerpt(lab, "00", "Prompt("))
    line, image = page.locator(".ddpm-prompt input").first, page.locator(".ddpm-stepper:has(.ddpm-prompt) img").first
    line.scroll_into_view_if_needed()
    for text, wanted in (("noto style red heart", ""), ("noto style sailbaot", "sailbaot (it knows sailboat)")):
        before, start = image.get_attribute("src"), time.monotonic()
        line.fill(text)
        line.press("Enter")
        page.wait_for_function(
            "(b) => document.querySelector('.ddpm-stepper:has(.ddpm-prompt) img')?.src !== b", arg=before
        )
        assert time.monotonic() - start < 15, text  # one to two seconds where two cores have little else to do
        if wanted:
            page.get_by_text(wanted).first.wait_for()
        else:
            data = base64.b64decode(image.get_attribute("src").partition(",")[2])
            heart = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
            assert (heart[..., 0] - heart[..., 1] > 100).mean() > 0.2
    run.assert_clean()


def test_notebook_08_diffuses_what_is_drawn(lab: Lab, page: Page):
    """A circle, drawn with the mouse, is data at once: a new picture within a second, and of a circle at t = 0."""
    run = lab.open_and_run(page, excerpt(lab, "08", "Sketch(", alone=True))
    paper, image, caption = (
        page.locator(f".ddpm-sketch {what}") for what in (".ddpm-paper", "img:visible", ".ddpm-caption:visible")
    )
    given, took = caption.inner_text(), []
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for _ in range(3):  # one over the other
        before = image.get_attribute("src")
        page.mouse.move(x + 100, y)
        page.mouse.down()
        for k in range(1, 61):
            turn = 2 * math.pi * k / 60
            page.mouse.move(x + 100 * math.cos(turn), y - 100 * math.sin(turn))
        page.mouse.up()
        start = time.monotonic()
        page.wait_for_function(
            "(b) => [...document.querySelectorAll('.ddpm-sketch img')].find((i) => i.offsetParent)?.src !== b",
            arg=before,
        )
        took.append(time.monotonic() - start)
    assert min(took) < 2, took  # a quarter of a second where two cores have little else to do
    assert caption.inner_text() != given
    page.locator(".ddpm-sketch .ddpm-slider .noUi-handle").focus()
    page.keyboard.press("End")
    page.wait_for_timeout(300)
    data = base64.b64decode(image.get_attribute("src").partition(",")[2])
    ink = np.argwhere(np.asarray(Image.open(io.BytesIO(data)).convert("L")) < 200)
    radius = np.hypot(*(ink - 159.5).T)
    assert np.quantile(radius, [0.05, 0.95]) == pytest.approx(100, abs=20)
    run.assert_clean()
