"""The stepper in a real page: in JupyterLab with its kernel, and in an exported file without one."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import nbformat
import numpy as np
import pytest
from harness import Lab
from playwright.sync_api import Page, expect

from ddpm_edu.widgets import Stepper, export_html

pytestmark = pytest.mark.browser

LIVE = """
import torch
from ddpm_edu import viz
from ddpm_edu.widgets import Stepper

noise = torch.randn(500, 2)

def draw(t, scale=1.0):
    if (t, scale) == (40, 2.0):
        raise RuntimeError("diverged")
    fig, (left, right) = viz.figure(7.2, 3.4, columns=2)
    viz.scatter(left, scale * noise * t / 1000)
    viz.histogram(right, noise[:, 0] * t / 1000)
    return fig

Stepper(draw, t=range(0, 1001, 20), caption=lambda t: f"t = {t}, SNR < ∞")
"""
TWO_AXES = "Stepper(draw, t=range(0, 101, 20), scale=[1.0, 2.0])"

# From a key to the first frame of the screen in which another picture stands, complete.
STOPWATCH = """() => {
    const picture = () => [...document.querySelectorAll(".ddpm-stepper img")].find((image) => image.offsetParent);
    window.took = [];
    document.addEventListener("keydown", () => {
        const start = performance.now(), before = picture().src;
        const look = () => {
            const now = picture();
            if (now && now.src !== before && now.complete) took.push(performance.now() - start);
            else if (performance.now() - start < 2000) requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, true);
}"""


def write(path: Path, *cells: str) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(c) for c in cells]), path)


def test_live(lab: Lab, page: Page):
    write(lab.root / "stepper.ipynb", LIVE, TWO_AXES)
    run = lab.open_and_run(page, "stepper.ipynb")
    one, two = page.locator(".ddpm-stepper").nth(0), page.locator(".ddpm-stepper").nth(1)
    caption = one.locator(".ddpm-caption:visible")
    caption.get_by_text("t = 0, SNR < ∞").wait_for()
    assert one.locator("img:visible").count() == 1
    box = one.locator("img:visible").bounding_box()
    assert (box["width"], box["height"]) == (720, 340)

    # 1. A key on the focused slider: another picture, at once.
    page.evaluate(STOPWATCH)
    one.locator(".ddpm-slider .noUi-handle").focus()
    for _ in range(25):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)
    took = page.evaluate("took")
    assert len(took) == 25
    assert statistics.median(took) < 50, took
    assert caption.text_content() == "t = 500, SNR < ∞"
    assert one.locator(".ddpm-slider .widget-readout").text_content() == "500"

    # 2. The buttons.
    one.locator(".ddpm-back").click()
    caption.get_by_text("t = 480,").wait_for()
    one.locator(".ddpm-forward").click()
    caption.get_by_text("t = 500,").wait_for()
    one.locator(".ddpm-play button").first.click()  # play: no frame stays long enough to be waited for
    expect(caption).not_to_have_text("t = 500, SNR < ∞")
    one.locator(".ddpm-play button").first.click()  # pause
    page.wait_for_timeout(300)
    paused = caption.text_content()
    assert int(re.search(r"t = (\d+)", paused)[1]) > 500
    page.wait_for_timeout(500)
    assert caption.text_content() == paused

    # 3. A second axis; an error stands where the picture would, and goes when it is left.
    two.locator(".ddpm-slider .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    two.locator(".ddpm-caption:visible").get_by_text("t = 20, scale = 1").wait_for()
    two.locator(".noUi-handle").nth(1).focus()
    page.keyboard.press("ArrowRight")
    two.locator(".ddpm-caption:visible").get_by_text("t = 20, scale = 2").wait_for()
    two.locator(".ddpm-slider .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    two.locator(".ddpm-error:visible b").get_by_text(
        "RuntimeError: diverged (while the stepper was drawing t = 40, scale = 2)"
    ).wait_for()
    assert two.locator("img:visible").count() == 0
    page.keyboard.press("ArrowRight")
    two.locator(".ddpm-caption:visible").get_by_text("t = 60, scale = 2").wait_for()
    assert two.locator(".ddpm-error:visible").count() == 0

    # 4. While the kernel is at work on something else, the slider still moves.
    page.evaluate(
        "void jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute("
        "{code: 'import time; time.sleep(20)'})"
    )
    page.wait_for_timeout(300)
    one.locator(".ddpm-slider .noUi-handle").focus()
    page.keyboard.press("Home")
    caption.get_by_text("t = 0,").wait_for(timeout=3000)
    run.assert_clean()


def test_exported_page_needs_no_kernel_and_no_network(page: Page, tmp_path: Path):
    steppers = [
        Stepper(lambda t: np.full((8, 8), t, np.uint8), t=range(0, 100, 20), caption=lambda t: f"t = {t} < ∞"),
        Stepper(lambda t, k: np.full((8, 8), t * k, np.uint8), t=range(0, 100, 20), k=[1, 2]),
    ]
    outputs = [nbformat.v4.new_output("display_data", data=stepper._repr_mimebundle_()) for stepper in steppers]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    nbformat.write(book, tmp_path / "book.ipynb")
    for stepper in steppers:
        stepper.close()
    out = export_html(tmp_path / "book.ipynb", tmp_path / "book.html")

    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: request.url.startswith("data:") or asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(out.as_uri())
    one, two = page.locator(".ddpm-static").nth(0), page.locator(".ddpm-static").nth(1)
    before = [each.locator("img").get_attribute("src") for each in (one, two)]
    one.locator("input").focus()
    page.keyboard.press("ArrowRight")
    after = [each.locator("img").get_attribute("src") for each in (one, two)]
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
    assert one.locator(".ddpm-caption").text_content() == "t = 20 < ∞"
    assert one.locator("output").text_content() == "20"
    assert "here k = 1" in two.text_content()
    two.locator("button").click()
    two.locator(".ddpm-caption").get_by_text("t = 80, k = 1").wait_for()
    two.locator("button").get_by_text("▶").wait_for()  # stopped at the end
    assert asked == [out.as_uri()]
    assert complaints == []
