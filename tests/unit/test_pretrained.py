"""The shipped weights: what is written is read, what is altered is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from stats import seeded
from torch import Tensor

from ddpm_edu import checkpoint, data, pretrained
from ddpm_edu.metrics import sliced_wasserstein
from ddpm_edu.objectives import elbo
from ddpm_edu.recipes import RECIPES, Digits, DigitsFeatures, DigitsGAN, DigitsVAE, config

SMALL = replace(Digits(), widths=(8, 16), batch=4, steps=3, lr=0.1, decay=0.5)
SMALL_GAN = replace(DigitsGAN(), width=8, batch=4, steps=3, decay=0.5)
SMALL_VAE = replace(DigitsVAE(), width=8, batch=4, steps=3, decay=0.5)
SMALL_FEATURES = replace(DigitsFeatures(), width=8, d=16, batch=4, steps=3, decay=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A learner three steps on its way, and its checkpoint."""
    path, learners = tmp_path_factory.mktemp("run") / "run.safetensors", SMALL.learners()
    list(SMALL.train(learners, path, progress=False))
    return learners["denoise"], path


def test_a_run_is_read_as_its_ema(trained):
    learner, path = trained
    recipe, denoise = pretrained.read(path)
    assert recipe == SMALL
    for key, value in denoise.state_dict().items():
        assert torch.equal(value, learner.ema.state_dict()[key])
    assert any(not torch.equal(v, learner.net.state_dict()[k]) for k, v in denoise.state_dict().items())
    assert not denoise.training
    assert not any(p.requires_grad for p in denoise.parameters())
    assert denoise.process.T == SMALL.T
    assert denoise.target.name == SMALL.target


def test_what_ships_is_the_ema_in_half_precision(trained, tmp_path: Path):
    learner, run = trained
    path = tmp_path / "digits.safetensors"
    pretrained.write(path, run)
    tree = checkpoint.load(path)
    assert tree.keys() == {"config", "weights"}
    assert tree["config"] == json.loads(json.dumps(config(SMALL)))
    assert {value.dtype for value in tree["weights"].values()} == {torch.float16}
    assert path.stat().st_size < 0.3 * run.stat().st_size  # no optimizer, no second copy
    recipe, shipped = pretrained.read(path)
    assert recipe == SMALL
    for key, value in shipped.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, learner.ema.state_dict()[key].half().float())


def test_weights_of_another_network(trained, tmp_path: Path):
    _, run = trained
    tree = checkpoint.load(run)
    tree["config"]["widths"] = [8, 32]
    checkpoint.save(tmp_path / "x", tree)
    with pytest.raises(ValueError, match=r"x holds another network: net\.\S+ is"):
        pretrained.read(tmp_path / "x")


def test_a_training_starts_from_a_models_weights(trained, tmp_path: Path):
    """Both the network and its average begin as the file's model; the first step is the first of a schedule."""
    learner, run = trained
    longer = replace(SMALL, steps=50)
    learners = longer.learners()
    pretrained.start(longer, learners, run)
    for begun in (learners["denoise"].net, learners["denoise"].ema):
        for key, value in learner.ema.state_dict().items():
            assert torch.equal(begun.state_dict()[key], value), key
    assert next(longer.train(learners, progress=False)).step == 1
    with pytest.raises(ValueError, match="holds another network"):
        pretrained.start(longer, replace(SMALL, widths=(8, 32)).learners(), run)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_model_is_what_its_recipe_makes(name: str):
    """What a person who types the manifest's command, the last one if there are several, gets: with the quality that
    the manifest says."""
    recipe, model = pretrained.read(pretrained.shipped(name))
    listed = data.manifest()[f"checkpoints/{name}.safetensors"]
    flags = re.findall(r"--(steps|lr) ([\d.e-]+)", listed["command"].split("ddpm-edu train")[-1])
    assert recipe == replace(RECIPES[name](), **{flag: json.loads(value) for flag, value in flags})
    found, kept = recipe.quality(model), listed["quality"]
    assert found.keys() == kept.keys()
    for what, value in kept.items():
        assert found[what] == (value if isinstance(value, str) else pytest.approx(value, rel=0.02, abs=0.002)), what


@pytest.mark.parametrize("name", ["clip", "autoencoder", "text2image", "text2image_guidance"])
def test_kept_tables_are_of_the_models_that_ship(name: str):
    """A model that is replaced takes its numbers with it."""
    kept = json.loads(data.asset(f"results/{name}.json").read_text("utf-8"))["weights"]
    assert len(kept) >= 2
    for model, sha in kept.items():
        assert sha == data.manifest()[f"checkpoints/{model}.safetensors"]["sha256"], model


def test_the_three_parts_of_text_to_image_fit_into_24_mib_of_half_precision():
    parts = pretrained.load("autoencoder"), pretrained.load("clip").text, pretrained.load("text2image")
    assert sum(2 * weight.numel() for part in parts for weight in part.parameters()) < 24 * 2**20


def test_the_shipped_denoiser_has_learnt_something():
    """It is nearer to the digit than the noisy picture, or nothing, is."""
    denoise = pretrained.load("digits")
    x_0 = Digits().codec.encode(data.digits("test")[0][:8])
    t = torch.full((8,), denoise.process.T // 5)
    x_t = denoise.process.marginal(x_0, t).sample(seeded())
    with torch.no_grad():
        found = denoise(x_t, t).x_0
    assert (found - x_0).square().mean() < 0.5 * min((x_t - x_0).square().mean(), x_0.var())


def test_the_shipped_vae_has_learnt_something():
    """It bounds log p(x) of unseen digits far above the best model whose pixels are independent of each other."""
    vae, codec = pretrained.load("digits_vae"), DigitsVAE().codec
    train, test = (codec.encode(data.digits(split)[0]) for split in ("train", "test"))
    p = train.mean(0).clamp(1e-3, 1 - 1e-3)
    independent = (test * p.log() + (1 - test) * (1 - p).log()).flatten(1).sum(1).mean()
    with torch.no_grad():
        reconstruction, kl = elbo(vae, test, seeded())
    assert (reconstruction - kl).mean() > independent + 50
    assert kl.mean() > 3  # nats: the latent is used


def test_the_shipped_generator_has_learnt_something():
    """Its samples lie nearer to the test digits, in sliced Wasserstein distance, than half of what a grey average
    does."""
    found = DigitsGAN().quality(pretrained.load("digits_gan"))
    test = DigitsGAN().codec.encode(data.digits("test")[0]).flatten(1)
    average = test.mean(0, keepdim=True).expand_as(test)
    assert found["sliced_wasserstein"] < 0.5 * sliced_wasserstein(average, test, generator=seeded())
    assert found["sliced_wasserstein"] > found["floor"]


def test_unknown_model():
    with pytest.raises(ValueError, match=r"There is no model 'faces'; the models are digits"):
        pretrained.load("faces")


def test_an_altered_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = data.asset("checkpoints/digits.safetensors").read_bytes()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": list(data.manifest().values())}))
    (tmp_path / "checkpoints/digits.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    monkeypatch.setattr(data, "DATA", tmp_path)
    with pytest.raises(ValueError, match="truncated or altered"):
        pretrained.load("digits")


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one, state = SMALL.model(), torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(one.net.enter[0].weight, SMALL.model().net.enter[0].weight)
    assert not torch.equal(one.net.enter[0].weight, replace(SMALL, seed=5).model().net.enter[0].weight)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)  # and leave the caller's random numbers alone


@pytest.mark.parametrize("recipe", [SMALL, SMALL_GAN, SMALL_VAE, SMALL_FEATURES], ids=lambda recipe: recipe.name)
def test_a_recipe_trains_on_training_digits(recipe, monkeypatch: pytest.MonkeyPatch):
    asked = []
    real = data.digits
    monkeypatch.setattr(f"{type(recipe).__module__}.digits", lambda split: asked.append(split) or real(split))
    learners = recipe.learners()
    before = {name: [p.clone() for p in learner.net.parameters()] for name, learner in learners.items()}
    assert len(list(islice(recipe.train(learners, progress=False), 5))) == recipe.steps
    assert asked == ["train"]
    for name, learner in learners.items():
        changed = [not torch.equal(old, p) for old, p in zip(before[name], learner.net.parameters(), strict=True)]
        assert all(changed), name


def losses_of(recipe, x: Tensor) -> tuple[dict, dict[str, Tensor]]:
    learners = recipe.learners()
    return {name: learner.net for name, learner in learners.items()}, dict(recipe.update(learners)(x, seeded()))


def test_what_the_gan_minimises():
    x = SMALL_GAN.data()[:6]
    nets, losses = losses_of(SMALL_GAN, x)
    G, D = nets["generator"], nets["discriminator"]
    fake = G(torch.randn(6, SMALL_GAN.d_z, generator=seeded()))
    real_logits, fake_logits = D(x), D(fake)
    value = real_logits.sigmoid().log().mean() + (1 - fake_logits.sigmoid()).log().mean()
    slopes = torch.stack([torch.autograd.functional.jacobian(lambda one: D(one[None])[0], picture) for picture in x])
    penalty = slopes.square().flatten(1).sum(1).mean()
    torch.testing.assert_close(losses["discriminator"], -value + SMALL_GAN.gamma / 2 * penalty)
    torch.testing.assert_close(losses["generator"], -fake_logits.sigmoid().log().mean())
    assert penalty > 1e-6


def test_what_the_vae_minimises():
    x, recipe = SMALL_VAE.data()[:6], replace(SMALL_VAE, beta=3.0)
    nets, losses = losses_of(recipe, x)
    reconstruction, kl = elbo(nets["vae"], x, seeded())
    torch.testing.assert_close(losses["vae"], (3 * kl - reconstruction).mean())


@pytest.mark.parametrize("recipe", [SMALL_GAN, SMALL_VAE, SMALL_FEATURES], ids=lambda recipe: recipe.name)
def test_a_run_resumes_and_ships_one_network(recipe, tmp_path: Path):
    """Stopped after 2 of 3 steps and resumed, it ends where an uninterrupted run ends, and what ships is read back."""
    straight, resumed = recipe.learners(), recipe.learners()
    list(recipe.train(straight, progress=False))
    stopped = recipe.train(recipe.learners(), tmp_path / "run", progress=False)
    next(stopped), next(stopped)
    stopped.close()
    assert len(list(recipe.train(resumed, tmp_path / "run", progress=False))) == 1
    for name, learner in straight.items():
        for one, other in zip(learner.net.parameters(), resumed[name].net.parameters(), strict=True):
            assert torch.equal(one, other)
    found, model = pretrained.read(tmp_path / "run")
    assert found == recipe
    for key, value in model.state_dict().items():
        assert torch.equal(value, straight[recipe.ships].ema.state_dict()[key])


def test_what_the_feature_network_minimises():
    """The cross-entropy of digits moved by at most two pixels, with their own labels."""
    rows = SMALL_FEATURES.data()[:6]
    nets, losses = losses_of(SMALL_FEATURES, rows)
    i, j = torch.randint(5, (2,), generator=seeded()).tolist()
    images, labels = (part[:6] for part in data.digits("train"))
    moved = torch.full((6, 1, 32, 32), -1.0)
    moved[..., 2:30, 2:30] = SMALL_FEATURES.codec.encode(images)
    p = nets["net"].logits(moved[..., i : i + 28, j : j + 28]).softmax(1)
    torch.testing.assert_close(losses["net"], -p[range(6), labels].log().mean())


def test_a_model_that_reads_pictures_makes_none():
    with pytest.raises(ValueError, match="digits_features makes no pictures: it reads them"):
        pretrained.sample(SMALL_FEATURES, SMALL_FEATURES.model(), n=1)


def test_models_of_one_pass_take_no_steps():
    with pytest.raises(ValueError, match="digits_gan makes a picture in one pass: leave the number of steps out"):
        pretrained.sample(SMALL_GAN, SMALL_GAN.model(), n=1, steps=5)


@pytest.mark.parametrize("recipe", [SMALL_GAN, SMALL_VAE], ids=lambda recipe: recipe.name)
def test_models_of_one_pass_give_pictures(recipe):
    pictures = pretrained.sample(recipe, recipe.model(), n=3)
    assert (pictures.shape, pictures.dtype) == ((3, 28, 28), torch.uint8)


def test_one_seed_gives_the_same_pictures_whatever_n_is(trained):
    recipe, denoise = pretrained.read(trained[1])
    four = pretrained.sample(recipe, denoise, n=4, steps=2)
    assert (four.shape, four.dtype) == ((4, 28, 28), torch.uint8)
    two = pretrained.sample(recipe, denoise, n=2, steps=2)
    assert (two.int() - four[:2].int()).abs().max() <= 1  # sums in another order: a level of grey at most
    assert not torch.equal(pretrained.sample(recipe, denoise, n=2, steps=2, seed=1), two)
