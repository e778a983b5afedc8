"""The shipped data, the sentences when it is not whole, the 2-D sets, and batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from stats import assert_average, seeded

from ddpm_edu import data

# Digits ---------------------------------------------------------------------------------------------------------------


def test_digits_splits():
    parts = {split: data.digits(split) for split in ("train", "test", "all")}
    for split, n in {"train": 9000, "test": 1000, "all": 10_000}.items():
        images, labels = parts[split]
        assert (images.shape, images.dtype) == ((n, 28, 28), torch.uint8)
        assert (labels.shape, labels.dtype) == ((n,), torch.int64)
        counts = labels.bincount(minlength=10)
        assert len(counts) == 10
        assert counts.min() > 0.07 * n
    for k in range(2):
        assert torch.equal(torch.cat([parts["train"][k], parts["test"][k]]), parts["all"][k])


def test_digits_are_upright_pictures_with_their_own_labels():
    """A sheet cut wrongly, or labels out of step, and the nearest class mean would guess at 10 %, not MNIST's 82 %."""
    images, labels = data.digits("all")
    assert images.float().mean() == pytest.approx(33.3, abs=1)  # MNIST's mean, on black
    assert images[:, 0].float().mean() < 1  # the frame is empty
    x = images.flatten(1).float()
    means = torch.stack([x[:9000][labels[:9000] == digit].mean(0) for digit in range(10)])
    assert (torch.cdist(x[9000:], means).argmin(1) == labels[9000:]).float().mean() > 0.75


def test_unknown_split():
    with pytest.raises(ValueError, match="Unknown split 'val'; the splits are train, test, all"):
        data.digits("val")


# Files that are not whole ---------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of our own, with one small file in its manifest."""
    (tmp_path / "digits").mkdir()
    shutil.copy(data.DATA / "digits/mnist_10k.labels", tmp_path / "digits")
    entry = {"path": "digits/mnist_10k.labels", "sha256": data.manifest()["digits/mnist_10k.labels"]["sha256"]}
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": [entry]}))
    monkeypatch.setattr(data, "DATA", tmp_path)
    return tmp_path / "digits/mnist_10k.labels"


def test_a_whole_file(copy: Path):
    assert data.asset("digits/mnist_10k.labels") == copy


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file(copy: Path, damage: str):
    whole = copy.read_bytes()
    copy.write_bytes({"truncated": whole[:-1], "altered": bytes([whole[0] ^ 1]) + whole[1:], "empty": b""}[damage])
    assert copy.read_bytes() != whole
    with pytest.raises(ValueError, match=r"truncated or altered.*git checkout -- data/digits/mnist_10k\.labels"):
        data.asset("digits/mnist_10k.labels")


def test_a_missing_file(copy: Path):
    copy.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"is missing; restore it with: git checkout -- data/digits/mnist_10k\.labels"
    ):
        data.asset("digits/mnist_10k.labels")


def test_a_missing_manifest(copy: Path):
    (data.DATA / "MANIFEST.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"MANIFEST\.json is missing: use a full clone"):
        data.asset("digits/mnist_10k.labels")


@pytest.mark.usefixtures("copy")
def test_an_unlisted_file():
    with pytest.raises(ValueError, match=r"'MANIFEST\.json' is not listed.*listed are: digits/mnist_10k\.labels"):
        data.asset("MANIFEST.json")


# Points ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_are_about_as_wide_as_a_standard_normal(name: str):
    x = data.toy(name, 5000, seeded())
    assert (x.shape, x.dtype) == ((5000, 2), torch.float32)
    assert 0.6 < x.var(0).sum().div(2).sqrt() < 1.3
    assert x.mean(0).norm() < 0.5
    assert x.abs().max() < 3
    assert torch.equal(x, data.toy(name, 5000, seeded()))
    assert not torch.equal(x, data.toy(name, 5000, seeded(1)))


def test_toys_are_what_they_are_called():
    eight = data.toy("eight gaussians", 8000, seeded())
    octant = (torch.atan2(eight[:, 1], eight[:, 0]) / (torch.pi / 4)).round().long() % 8
    for k in range(8):
        assert_average((octant == k).double(), 1 / 8)
    radius = data.toy("rings", 9000, seeded()).norm(dim=1)
    assert_average((radius > 1.125).double(), 2 / 3)  # two radii, each as dense a line as the other
    board = data.toy("checkerboard", 5000, seeded())
    # row and column (0..3) of each point's square: always of one colour, all eight squares alike
    row, column = (board + 2).floor().long().T[[1, 0]]
    assert ((row + column) % 2 == 0).float().mean() > 0.999
    for square in range(8):
        assert_average((row * 2 + column // 2 == square).double(), 1 / 8)
    moons = data.toy("moons", 8000, seeded())
    assert_average((torch.cdist(moons, -moons[:200]).amin(1) < 0.2).double(), 1.0)  # each the other turned around


def test_unknown_toy():
    with pytest.raises(ValueError, match="Unknown 2-D set 'moon'; the sets are moons, spiral"):
        data.toy("moon", 10)


# Batches --------------------------------------------------------------------------------------------------------------


def test_minibatches_are_a_function_of_the_generator():
    x = torch.arange(50.0)[:, None]
    batches, generator = data.minibatches(x, 7), seeded()
    first, second = batches(generator), batches(generator)
    assert first.shape == (7, 1)
    assert torch.isin(first, x).all()
    assert not torch.equal(first, second)
    again = seeded()
    assert torch.equal(first, data.minibatches(x, 7)(again))
    assert torch.equal(second, batches(again))  # no state but the generator's


def test_minibatches_draw_every_row_alike():
    drawn = data.minibatches(torch.arange(4), 20_000)(seeded())
    for row in range(4):
        assert_average((drawn == row).double(), 0.25)


@pytest.mark.parametrize(("rows", "size"), [(0, 4), (4, 0)])
def test_no_rows_or_no_size(rows: int, size: int):
    with pytest.raises(ValueError, match=f"got {rows} rows, size {size}"):
        data.minibatches(torch.zeros(rows, 2), size)
