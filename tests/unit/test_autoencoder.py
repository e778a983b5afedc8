"""The emoji's autoencoder: shapes, what its loss measures, and the distance that a network sees."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from stats import assert_average, seeded
from torch import Tensor

from ddpm_edu import pretrained
from ddpm_edu.data import Captioned, emoji
from ddpm_edu.metrics import psnr
from ddpm_edu.nets.autoencoder import autoencoder
from ddpm_edu.nets.clip import ImageEncoder
from ddpm_edu.objectives import autoencoder_losses, perceptual_distance
from ddpm_edu.recipes.autoencoder import Autoencoder, rebuild
from ddpm_edu.training import Learner

SMALL = {"widths": (16, 32), "blocks": (1, 1), "side": 16}


def pictures(n: int = 2, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=seeded(seed)) * 2 - 1


@pytest.mark.parametrize(
    ("patch", "widths", "z"), [(2, (16, 32), (4, 16, 16)), (4, (16,), (4, 16, 16)), (4, (16, 32), (4, 8, 8))]
)
def test_shapes(patch: int, widths: tuple[int, ...], z: tuple[int, ...]):
    vae, x = autoencoder(4, widths, (1,) * len(widths), patch=patch), pictures(side=64)
    q = vae.encode(x)
    assert q.mean.shape == q.var.shape == (2, *z) == (2, *vae.shape)
    assert vae(q.mean).shape == x.shape
    assert vae.sample(3).shape == (3, 3, 64, 64)
    with pytest.raises(ValueError, match=rf"z must be \(b, {z[0]}, {z[1]}, {z[2]}\)"):
        vae.decode(torch.zeros(2, 4))


def test_a_place_of_z_sees_and_draws_its_part_of_the_picture():
    """A change far away leaves z there as it is but for group norm's statistics, so: of the largest change in z, and of
    the largest change in the picture, the place is the one that was changed."""
    torch.manual_seed(0)
    vae, x = autoencoder(4, (16, 32), (1, 1)), pictures(1, 64)
    other = x.clone()
    other[..., 40:44, 8:12] *= -1
    moved = (vae.encode(other).mean - vae.encode(x).mean).abs().sum(1)[0]
    row, column = divmod(int(moved.argmax()), 16)
    assert abs(row - 10) <= 1
    assert abs(column - 2) <= 1
    z = vae.encode(x).mean
    other = z.clone()
    other[..., 10, 2] += 1
    moved = (vae(other) - vae(z)).abs().sum(1)[0]
    row, column = divmod(int(moved.argmax()), 64)
    assert 36 <= row < 48
    assert 4 <= column < 16


def test_the_losses_by_hand():
    torch.manual_seed(0)
    vae, eye, x = autoencoder(4, **SMALL), ImageEncoder((16,), 1), pictures()
    pixels, kl, perceptual, smaller = autoencoder_losses(vae, x, eye.features, seeded(1))
    q = vae.encode(x)
    z = q.mean + q.var.sqrt() * torch.randn(q.mean.shape, generator=seeded(1))
    y = vae.decode(z)
    torch.testing.assert_close(pixels, F.mse_loss(y, x))
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.var.sqrt()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl, theirs.mean())
    torch.testing.assert_close(perceptual, perceptual_distance(eye.features, x, y).mean())
    errors = []
    for f in (2, 4):  # means of f x f places, written as sums over shifted copies
        x_f, z_f = (sum(one[..., i::f, j::f] for i in range(f) for j in range(f)) / f**2 for one in (x, z))
        errors.append(F.mse_loss(vae.decoder(z_f), x_f))
    torch.testing.assert_close(smaller, sum(errors))


def test_perceptual_distance_by_hand():
    """Two layers: 1 - cos at each place, twice, averaged over places and summed over layers; scale does not count."""
    x, y = pictures(3, 4), pictures(3, 4, seed=1)
    layers = [lambda x: x, lambda x: 5 * x[:, :2, ::2, ::2] ** 3]
    expected = sum(2 * (1 - F.cosine_similarity(f(x), f(y), dim=1)).mean((1, 2)) for f in layers)
    found = perceptual_distance(lambda x: [f(x) for f in layers], x, y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (perceptual_distance(lambda x: [x], x, 3 * x) < 1e-6).all()


def test_a_gradient_reaches_every_weight():
    torch.manual_seed(0)
    vae, eye = autoencoder(4, **SMALL), ImageEncoder((16,), 1).requires_grad_(False)
    x = pictures()
    losses = autoencoder_losses(vae, x, eye.features)
    sum(losses).backward()
    silent = {n for n, p in vae.named_parameters() if p.grad is None or not p.grad.any()}
    # Blocks start as the identity: what stands before their last, zero convolution learns from the second step on.
    assert all(".norm_" in name or ".conv_1" in name for name in silent - {"likelihood.log_sigma"})


def test_psnr():
    """Uniform rounding to 1/128 of the range [-1, 1], an error of variance (2/127)^2 / 12: against the closed form."""
    x = torch.rand(100_000, generator=seeded()) * 2 - 1
    y = (x * 63.5).round() / 63.5
    assert_average((x - y) ** 2, (1 / 63.5) ** 2 / 12, bias=1e-8)
    assert psnr(x, y) == pytest.approx(10 * math.log10(4 * 12 * 63.5**2), abs=0.05)
    assert psnr(x, x + 0.1) == pytest.approx(10 * math.log10(4 / 0.01), abs=1e-4)
    with pytest.raises(ValueError, match="one shape"):
        psnr(x, x[1:])


# Recipe ---------------------------------------------------------------------------------------------------------------

TINY = replace(Autoencoder(), widths=(8,), blocks=(1,), patch=4, batch=4, steps=6)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A small eye that is not trained, in the place of the shipped CLIP; 24 pictures of each split; and what was asked
    for: models and splits."""
    torch.manual_seed(0)
    eye = ImageEncoder((8, 16), 1, patch=8).requires_grad_(False).eval()
    parts = SimpleNamespace(eye=eye, models=[], splits=[])

    def load(name: str) -> SimpleNamespace:
        parts.models.append(name)
        return SimpleNamespace(image=eye)

    def some(split: str, *more: str) -> Captioned:
        parts.splits.extend([split, *more])
        images, rows = emoji(split, *more)
        return Captioned(images[::7][:24], rows[::7][:24])

    monkeypatch.setattr(pretrained, "load", load)
    monkeypatch.setattr("ddpm_edu.recipes.autoencoder.emoji", some)
    return parts


def finish(recipe: Autoencoder, path: Path | None = None, stop: int | None = None) -> tuple[Learner, list[float]]:
    """Trains on from the file `path`, to the end or to step `stop`; the learner and the losses."""
    learners, losses = recipe.learners(), []
    loop = recipe.train(learners, path, progress=False)
    for step, loss in loop:
        losses.append(loss["autoencoder"])
        if step == stop:
            break
    loop.close()
    return learners["autoencoder"], losses


def test_the_recipe_resumes_exactly(parts: SimpleNamespace, tmp_path: Path):
    """Stopped after two steps and resumed: the very losses, weights, averages and moments of an uninterrupted run. It
    learns from train alone, sees with CLIP alone, and leaves it as it is."""
    before = copy.deepcopy(parts.eye.state_dict())
    whole, losses = finish(TINY)
    path = tmp_path / "run.safetensors"
    _, first = finish(TINY, path, stop=2)
    resumed, rest = finish(TINY, path)
    assert first + rest == losses
    assert len(set(losses)) == 6
    assert torch.tensor(losses).isfinite().all()
    for part in ("net", "ema"):
        for key, value in whole.state_dict()[part].items():
            assert torch.equal(value, resumed.state_dict()[part][key]), (part, key)
    for p, q in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        for key, value in whole.optimizer.state.get(p, {}).items():
            assert torch.equal(value, resumed.optimizer.state[q][key]), key
    assert set(parts.splits) == {"train"}
    assert set(parts.models) == {"clip"}  # never the judge, which measures what comes out
    assert all(torch.equal(value, before[key]) for key, value in parts.eye.state_dict().items())


def test_the_recipe_learns(parts: SimpleNamespace):
    """Two dozen pictures, 100 steps: what comes back is nearer than the best picture of one colour."""
    recipe = replace(TINY, steps=100, lr=3e-3)
    learner, losses = finish(recipe)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    x = recipe.codec.encode(emoji("train").images[::7][:24])
    _, y = rebuild(learner.net.eval(), x)
    assert psnr(x, y) > psnr(x, x.mean((2, 3), keepdim=True).expand_as(x))


@pytest.mark.usefixtures("parts")
def test_compiled_it_is_four_programs():
    """The encoder, and the decoder at each of the three sizes it sees: whole, and each for its size alone."""
    inputs: list[tuple[int, ...]] = []

    def watching(graph: torch.fx.GraphModule, given: list[Tensor]) -> Callable:
        (picture,) = (x.shape for x in given if x.ndim == 4 and not isinstance(x, torch.nn.Parameter))
        inputs.append(tuple(picture))
        return graph.forward

    learners = TINY.learners()
    TINY.compile(learners, backend=watching)
    for _ in TINY.train(learners, progress=False):
        pass
    side = learners["autoencoder"].net.shape[-1]
    assert inputs == [(4, 3, 64, 64), *((4, 4, side // f, side // f) for f in (1, 2, 4))]


def test_its_loss_is_the_weighted_sum(parts: SimpleNamespace):
    learners = TINY.learners()
    net = learners["autoencoder"].net
    images = emoji("val").images[:2]
    [(name, loss)] = list(TINY.update(learners)(images, seeded(3)))
    assert name == "autoencoder"
    pixels, kl, perceptual, smaller = autoencoder_losses(net, TINY.codec.encode(images), parts.eye.features, seeded(3))
    torch.testing.assert_close(loss, pixels + TINY.kl * kl + TINY.perceptual * perceptual + TINY.smaller * smaller)


def test_its_quality_and_its_picture_look_at_val_alone(parts: SimpleNamespace):
    model = TINY.model().eval()
    found, (images, _) = TINY.quality(model), emoji("val")
    assert found.keys() == {"psnr", "deviation", "n"}
    assert found["n"] == "24 pictures of val"
    x = TINY.codec.encode(images[::7][:24])
    z = model.encode(x).mean
    assert found["psnr"] == pytest.approx(psnr(x, model(z)), abs=0.01)
    assert found["deviation"] == pytest.approx(z.std().item(), abs=1e-3)
    sheet = TINY.picture(model)
    assert sheet.shape == (32, 64, 64, 3)
    assert sheet.dtype == torch.uint8
    assert torch.equal(sheet[0], images[0])  # a row of true pictures, and below it what comes back of them
    back = TINY.codec.decode(rebuild(model, TINY.codec.encode(sheet[16:24]))[1])
    assert (sheet[24:].int() - back.int()).abs().max() <= 1
    assert set(parts.splits) == {"val"}


def test_rebuild_decodes_the_mean():
    model, x = TINY.model().eval(), pictures(102, 64)
    z, y = rebuild(model, x)
    assert z.shape == (102, 4, 16, 16)
    torch.testing.assert_close(z[101:], model.encode(x[101:]).mean)
    torch.testing.assert_close(y[101:], model(z[101:]))
