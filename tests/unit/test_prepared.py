"""The latents that are kept: the values that the codec gives, made anew when they are stale, refused when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stats import seeded
from torch import Tensor

from ddpm_edu import checkpoint, pretrained
from ddpm_edu.codec import Pixels
from ddpm_edu.data import Captioned, emoji
from ddpm_edu.nets.autoencoder import autoencoder
from ddpm_edu.nets.vae import VAE
from ddpm_edu.recipes import prepared

N = 102  # more than one batch


class Made:
    """A small autoencoder that is not trained, pictures of noise, and how often each split of them was asked for."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.vae: VAE = autoencoder(4, (8,), (1,), patch=4).requires_grad_(False).eval()
        self.asked: list[str] = []
        self.listed: dict[str, dict[str, Any]] = {
            name: {"sha256": name} for name in (prepared.AUTOENCODER, "emoji/noto.webp", "digits/mnist_10k.webp")
        }

    def emoji(self, split: str) -> Captioned:
        if split not in ("train", "val"):
            return emoji(split)  # which refuses it
        self.asked.append(split)
        return Captioned(self.images(split), ())

    def images(self, split: str) -> Tensor:
        return torch.randint(256, (N, 64, 64, 3), generator=seeded(len(split))).to(torch.uint8)

    def expected(self, split: str) -> Tensor:
        return self.vae.encode(Pixels().encode(self.images(split))).mean


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(pretrained, "load", {"autoencoder": made.vae}.__getitem__)
    monkeypatch.setattr(prepared, "emoji", made.emoji)
    monkeypatch.setattr(prepared, "manifest", lambda: made.listed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return made


def test_they_are_what_the_codec_gives_and_are_computed_once(made: Made, tmp_path: Path):
    first = prepared.latents("val", tmp_path / "deep")
    assert first.shape == (N, 4, 16, 16)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, made.expected("val"), rtol=2**-10, atol=1e-4)  # float16 has 11 bits
    made.vae.encoder[1].weight.zero_()  # had it to be computed again, it would be something else
    again = prepared.latents("val", tmp_path / "deep")
    assert torch.equal(first, again)
    assert made.asked == ["val"]


def test_splits_have_files_of_their_own(made: Made, tmp_path: Path):
    val, train = (prepared.latents(split, tmp_path) for split in ("val", "train"))
    assert not torch.equal(val, train)
    torch.testing.assert_close(train, made.expected("train"), rtol=2**-10, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latents_train.safetensors", "latents_val.safetensors"]
    assert made.asked == ["val", "train"]


@pytest.mark.parametrize("name", [prepared.AUTOENCODER, "emoji/noto.webp"])
def test_other_weights_or_pictures_are_encoded_anew(made: Made, tmp_path: Path, name: str):
    first = prepared.latents("val", tmp_path)
    made.vae.encoder[-1].bias.add_(1.0)
    made.listed["digits/mnist_10k.webp"]["sha256"] = "no matter"
    assert torch.equal(prepared.latents("val", tmp_path), first)
    made.listed[name]["sha256"] = "another"
    second = prepared.latents("val", tmp_path)
    torch.testing.assert_close(second, made.expected("val"), rtol=2**-10, atol=1e-4)
    assert not torch.equal(first, second)
    assert torch.equal(prepared.latents("val", tmp_path), second)
    assert made.asked == ["val", "val"]


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_file_gets_a_sentence_and_stays(made: Made, tmp_path: Path, damage: str):
    path = tmp_path / "latents_val.safetensors"
    prepared.latents("val", tmp_path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        checkpoint.save(path, {"weights": torch.zeros(3)})
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"latents_val\.safetensors is damaged: delete it, and it is made anew\.$"
    ) as e:
        prepared.latents("val", tmp_path)
    assert "\n" not in str(e.value)
    assert path.read_bytes() == before
    path.unlink()
    assert prepared.latents("val", tmp_path).shape == (N, 4, 16, 16)


def test_without_an_autoencoder(made: Made, tmp_path: Path):
    del made.listed[prepared.AUTOENCODER]
    with pytest.raises(ValueError, match="ship an autoencoder first"):
        prepared.latents("val", tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_unknown_split(made: Made, tmp_path: Path):
    with pytest.raises(ValueError, match="Unknown split 'test'"):
        prepared.latents("test", tmp_path)
    assert not any(tmp_path.iterdir())
