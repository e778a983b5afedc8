"""The recipe of the text-to-image model, with small parts in place of the shipped ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stats import seeded
from torch import Tensor

from ddpm_edu import captions, checkpoint, pretrained
from ddpm_edu.codec import Latents, Pixels
from ddpm_edu.data import Captioned, emoji
from ddpm_edu.denoiser import Denoiser, guided
from ddpm_edu.recipes import text2image
from ddpm_edu.recipes.autoencoder import Autoencoder
from ddpm_edu.recipes.clip import Clip
from ddpm_edu.recipes.digits_class import DigitsClass
from ddpm_edu.recipes.text2image import Text2Image
from ddpm_edu.samplers import ddim

SMALL = Text2Image(widths=(16, 16, 16), blocks=1, attend=(2,), batch=4, steps=4, T=50)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained and small; and a few pictures of each split."""
    parts = {
        "clip": Clip(d=32, layers=1, widths=(16,), blocks=1, patch=8),
        "autoencoder": Autoencoder(widths=(16,), blocks=(1,), patch=4),
    }
    models = {name: (recipe, recipe.model().requires_grad_(False).eval()) for name, recipe in parts.items()}
    monkeypatch.setattr(text2image, "_shipped", models.__getitem__)

    def few(split: str) -> Captioned:
        images, rows = emoji(split)
        return Captioned(images[::100][:40], rows[::100][:40])

    monkeypatch.setattr(text2image, "emoji", few)


def trained(recipe: Text2Image, path: Path | None = None, until: int | None = None) -> Denoiser:
    learners = recipe.learners()
    steps = recipe.train(learners, path, progress=False)
    for step in steps:
        assert step.losses["denoise"] < 10
        if step.step == until:
            steps.close()
    return learners["denoise"].net


def test_resumes_exactly(tmp_path: Path):
    whole = trained(SMALL)
    trained(SMALL, tmp_path / "c.safetensors", until=2)
    assert checkpoint.load(tmp_path / "c.safetensors")["step"] == 2
    again = trained(SMALL, tmp_path / "c.safetensors")
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_compiled_it_trains_to_the_same_weights(monkeypatch: pytest.MonkeyPatch):
    """All of its networks go through the compiler whole, and what is learned has the same names and, but for rounding,
    the same values. (torch's own "eager" compiler: the graphs without the fusing, which wants a C++ compiler here.)"""
    graphs: list[str] = []

    def watching(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(str(graph.graph))
        return graph.forward

    monkeypatch.setattr(captions, "trimmed", lambda tokens: tokens)  # as on a GPU: all texts of one length
    recipe = replace(SMALL, lr=1e-1)  # so that four steps go somewhere
    fresh, plain, learners = recipe.model(), trained(recipe), recipe.learners()
    recipe.compile(learners, backend=watching)
    for _ in recipe.train(learners, progress=False):
        pass
    SMALL._clip[1].text._compiled_call_impl = None  # which other tests go on using
    assert len(graphs) == 2, "a network was compiled in pieces, or for more than one shape"
    for (name, p), (other, q) in zip(plain.named_parameters(), learners["denoise"].net.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-3)
    far = max((p - q).abs().max() for p, q in zip(plain.parameters(), fresh.parameters(), strict=True))
    assert far > 0.005


def test_only_the_denoiser_is_trained():
    recipe = SMALL
    before = [p.clone() for part in (recipe._clip[1], recipe.codec.vae) for p in part.parameters()]
    net = trained(recipe)
    after = [p for part in (recipe._clip[1], recipe.codec.vae) for p in part.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))
    assert any(not torch.equal(p, q) for p, q in zip(recipe.model().parameters(), net.parameters(), strict=True))


@pytest.mark.parametrize(("drop", "low", "high"), [(0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 1, 1)])
def test_captions_are_left_empty_as_often_as_told(monkeypatch, drop: float, low: float, high: float):
    """And what is not left empty says something true of its picture: one of the ways in which it can be said."""
    read: list[Tensor] = []
    shown: list[Tensor] = []
    encode, loss = Text2Image._encode, text2image.diffusion_loss

    def encoding(self: Text2Image, tokens: Tensor) -> Any:
        read.extend(tokens)
        return encode(self, tokens)

    def looking(denoise: Denoiser, x_0: Tensor, *rest: Any) -> Tensor:
        shown.extend(x_0)
        return loss(denoise, x_0, *rest)

    monkeypatch.setattr(Text2Image, "_encode", encoding)
    monkeypatch.setattr(text2image, "diffusion_loss", looking)
    recipe = Text2Image(widths=(16, 16, 16), blocks=1, attend=(2,), batch=40, steps=3, T=50, drop=drop)
    trained(recipe)
    assert len(read) == len(shown) == 120
    by, (images, rows) = captions.tokenizer(1000), text2image.emoji("train")
    texts = [by.decode(tokens.tolist()).strip() for tokens in read]
    assert low <= texts.count("") / len(texts) <= high
    of = torch.cdist(torch.stack(shown).flatten(1), recipe.codec.encode(images).flatten(1)).argmin(1).tolist()
    u = torch.rand(2000, 5, generator=seeded()).tolist()
    ways = {i: {captions.say(rows[i], draw).text.lower() for draw in u} for i in set(of)}
    assert all(text in ways[i] for text, i in zip(texts, of, strict=True) if text)


def test_it_learns_what_text_belongs_to_what_picture():
    """Two captions, two plain latents, and x_T, which says nothing: the prediction can follow the caption alone."""
    recipe = Text2Image(widths=(16, 16, 16), blocks=1, attend=(2,), T=50)
    learner = recipe.learners()["denoise"]
    texts = ["a red heart", "a green leaf"]
    x_0 = torch.stack([torch.full((4, 16, 16), value) for value in (-1.0, 1.0)])
    process, generator = learner.net.process, seeded()
    for _ in range(100):
        t = torch.full((2,), 50)
        x_t = process.marginal(x_0, t).sample(generator)
        learner.step((learner.net(x_t, t, recipe.read(texts)).x_0 - x_0).square().mean())
    x_t = torch.randn(1, 4, 16, 16, generator=seeded(1)).expand(2, -1, -1, -1)
    low, high = learner.net(x_t, torch.full((2,), 50), recipe.read(texts)).x_0.mean((1, 2, 3))
    assert low < -0.5
    assert high > 0.5


def last(states: Iterator[torch.Tensor]) -> torch.Tensor:
    *_, x = states
    return x


def test_guidance_of_one_is_plain_sampling_and_of_none_ignores_the_text():
    recipe, noise = SMALL, torch.randn(2, 4, 16, 16, generator=seeded())
    model = trained(recipe).requires_grad_(False)
    for head in model.net.head.parameters():
        torch.nn.init.normal_(head, std=0.5)  # after so few steps the text hardly matters
    texts = ["a red heart", "a green leaf"]
    *_, plain = ddim(model, noise, model.process.timesteps(5), recipe.read(texts))
    torch.testing.assert_close(last(recipe.states(model, noise, 5, texts, w=1)), plain.x_t, atol=1e-4, rtol=1e-4)
    *_, empty = ddim(model, noise, model.process.timesteps(5), recipe.read([""]))
    torch.testing.assert_close(last(recipe.states(model, noise, 5, texts, w=0)), empty.x_t, atol=1e-4, rtol=1e-4)
    # Past 1 it guides in its interval alone; told so, always.
    strong = [guided(model, recipe.read([""]), 3.0, between) for between in ((10, 45), None)]
    for denoise, between in zip(strong, (None, (0.0, 1.0)), strict=True):
        *_, by_hand = ddim(denoise, noise, model.process.timesteps(5), recipe.read(texts))
        assert torch.equal(last(recipe.states(model, noise, 5, texts, 3.0, between)), by_hand.x_t)
    with pytest.raises(ValueError, match="Each picture needs a text"):
        recipe.states(model, noise, 5, texts[:1])


def test_quality_and_picture():
    recipe = SMALL
    model = trained(recipe).requires_grad_(False)
    quality = recipe.quality(model)
    assert quality == recipe.quality(model)
    assert min(quality["with_tone"], quality["without"]) <= quality["val_loss"]
    assert max(quality["with_tone"], quality["without"]) >= quality["val_loss"]
    picture = recipe.picture(model)
    assert picture.shape == (32, 64, 64, 3)
    true = text2image.emoji("val").images
    assert torch.equal(picture[8], true[0])
    assert torch.equal(picture[31], true[-1])


def test_latents_are_the_mean_scaled_and_come_back():
    _, vae = text2image._shipped("autoencoder")
    images = emoji("val").images[:3]
    mean = vae.encode(Pixels().encode(images)).mean
    latents = Latents(vae, 2.5)
    torch.testing.assert_close(latents.encode(images), 2.5 * mean)
    assert torch.equal(latents.decode(2.5 * mean), Pixels().decode(vae(mean)))
    with pytest.raises(ValueError, match="scale must be above 0"):
        Latents(vae, 0)


def test_the_best_of_several_is_the_one_that_fits(monkeypatch: pytest.MonkeyPatch):
    """The first of each several is that of best_of = 1, and all differ; what is kept has the largest cosine of them."""
    model = trained(SMALL).requires_grad_(False)
    for head in model.net.head.parameters():
        torch.nn.init.normal_(head, std=0.5)
    texts, drawn = ["a red heart", "a green leaf"], []
    fit = Text2Image.fit

    def fitting(self: Text2Image, images: Tensor, said: list[str]) -> Tensor:
        drawn.append((images, said))
        return fit(self, images, said)

    monkeypatch.setattr(Text2Image, "fit", fitting)
    one = pretrained.sample(SMALL, model, 3, 2, 5, texts)
    assert not drawn
    best = pretrained.sample(SMALL, model, 3, 2, 5, texts, best_of=4)
    ((images, said),) = drawn
    assert said == ["a red heart"] * 4 + ["a green leaf"] * 4 + ["a red heart"] * 4
    assert (images[::4].int() - one.int()).abs().max() <= 2  # in a larger batch sums are rounded otherwise
    assert len({picture.numpy().tobytes() for picture in images}) == 12
    recipe, clip = SMALL._clip
    tokens = captions.read(said, captions.tokenizer(recipe.merges))
    cosines = (clip.embed_image(Pixels().encode(images)) * clip.embed_text(tokens)).sum(1)
    torch.testing.assert_close(fit(SMALL, images, said), cosines)
    for k in range(3):
        assert torch.equal(best[k], images[4 * k + int(cosines[4 * k : 4 * k + 4].argmax())])
    with pytest.raises(ValueError, match="the best of 1 or more"):
        pretrained.sample(SMALL, model, 3, 2, 5, texts, best_of=0)
    digit = DigitsClass(T=50, widths=(16, 16), d_cond=8)
    with pytest.raises(ValueError, match="digits_class cannot tell how well a picture shows its text"):
        pretrained.sample(digit, digit.model(), 1, 1, best_of=2)
