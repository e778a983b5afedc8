"""Codecs: there and back."""

from __future__ import annotations

import pytest
import torch
from stats import seeded

from ddpm_edu.codec import Binary, Identity, Pixels


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 8, 6, 3)], ids=["grey", "colour"])
def test_pixels_come_back_unchanged(shape: tuple[int, ...]):
    """All 256 levels, exactly; channels first in between."""
    x = torch.randint(256, shape, generator=seeded(), dtype=torch.uint8)
    x.flatten()[:144] = torch.arange(0, 144, dtype=torch.uint8)
    x.flatten()[-112:] = torch.arange(144, 256, dtype=torch.int).to(torch.uint8)
    x_0 = Pixels().encode(x)
    assert x_0.shape == (3, 3 if len(shape) == 4 else 1, *shape[1:3])
    assert x_0.dtype == torch.float32
    assert torch.equal(Pixels().decode(x_0), x)


def test_pixels_range_and_channel_order():
    x = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)  # red, green, blue
    torch.testing.assert_close(Pixels().encode(x).flatten(), torch.tensor([-1.0, 1.0, -0.6]))
    assert Pixels().encode(x).shape == (1, 3, 1, 1)


def test_decode_rounds_and_clips():
    x_0 = torch.tensor([-7.0, -1.001, 0.0, 0.003, 1.5]).reshape(1, 1, 1, 5)
    assert Pixels().decode(x_0).flatten().tolist() == [0, 0, 128, 128, 255]
    assert Pixels().decode(x_0.bfloat16()).dtype == torch.uint8


def test_identity():
    x = torch.randn(3, 2)
    assert Identity().encode(x) is x
    assert Identity().decode(x) is x


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Pixels().encode(torch.zeros(2, 28, 28)), r"must be uint8.*got torch\.float32 of shape \(2, 28, 28\)"),
        (lambda: Pixels().encode(torch.zeros(28, 28, dtype=torch.uint8)), r"got torch\.uint8 of shape \(28, 28\)"),
        (lambda: Pixels().encode(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)), r"\(b, h, w, 3\) colour; got"),
        (lambda: Pixels().decode(torch.full((1, 1, 2, 2), torch.nan)), r"NaN or inf.*diverged"),
        (lambda: Pixels().decode(torch.full((1, 1, 2, 2), torch.inf)), r"NaN or inf"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence: str):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


def test_binary_is_ink_or_none_and_probabilities_are_grey_levels():
    x = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).reshape(1, 2, 2)
    ink = Binary().encode(x)
    assert ink.shape == (1, 1, 2, 2)
    assert ink.flatten().tolist() == [0, 0, 1, 1]
    assert Binary().decode(ink).flatten().tolist() == [0, 0, 255, 255]
    assert Binary().decode(torch.tensor([0.2]).reshape(1, 1, 1, 1)).item() == 51
    with pytest.raises(ValueError, match=r"uint8, \(b, h, w\)"):
        Binary().encode(x.float())
