"""The diagram of the text-to-image model; what else `viz` draws is tested beside the sliders that show it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch

from ddpm_edu import viz
from ddpm_edu.recipes import Autoencoder, Clip


def texts(fig) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in fig.axes[0].texts]


def test_each_part_lights_up_alone():
    fills = {}
    for lit in (None, *viz.PARTS):
        boxes = [patch for patch in viz.parts(lit).axes[0].patches if isinstance(patch, FancyBboxPatch)]
        fills[lit] = [box.get_facecolor()[:3] == pytest.approx(to_rgb(viz.MODEL)) for box in boxes]
    assert fills[None] == [False] * 4  # the three parts and the encoder
    assert [fills[lit].index(True) for lit in viz.PARTS] == [0, 1, 2]
    assert all(sum(fills[lit]) == 1 for lit in viz.PARTS)


def test_the_drawings_differ():
    drawn = [np.asarray(viz._draw(viz.parts(lit))) for lit in (None, *viz.PARTS)]
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(drawn, 2))


def test_the_shapes_are_those_of_the_models():
    said, latent = texts(viz.parts()), Autoencoder().model().shape
    assert f"(n, {Clip().d})" in said
    assert sum(str(latent) in text for text in said) == 3  # noise, what the decoder reads, what the encoder gives
    assert said.count("(64, 64, 3)") == 2
    assert set(viz.PARTS) <= set(said)


@pytest.mark.parametrize("lit", [None, *viz.PARTS])
def test_its_words_are_readable(lit: str | None):
    """11 points or more, none on another, none over the edge."""
    fig = viz.parts(lit)
    fig.canvas.draw()
    written = fig.axes[0].texts
    assert min(text.get_fontsize() for text in written) >= 11
    frames = [text.get_window_extent() for text in written]
    assert all(not one.overlaps(other) for one, other in itertools.combinations(frames, 2))
    assert all(
        frame.x0 >= 0 and frame.x1 <= fig.bbox.x1 and frame.y0 >= 0 and frame.y1 <= fig.bbox.y1 for frame in frames
    )


@pytest.mark.parametrize("lit", ["encoder", "", "Decoder"])
def test_another_name_gets_a_sentence(lit: str):
    with pytest.raises(ValueError, match="the parts are 'text encoder', 'generation model', 'decoder'") as error:
        viz.parts(lit)
    assert "\n" not in str(error.value)
