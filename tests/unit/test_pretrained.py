"""The shipped weights: what is written is read, what is altered is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from stats import seeded

from ddpm_edu import checkpoint, data, pretrained
from ddpm_edu.recipes import RECIPES, Digits, config

SMALL = replace(Digits(), widths=(8, 16), batch=4, steps=3, lr=0.1, decay=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A learner three steps on its way, and its checkpoint."""
    path, learner = tmp_path_factory.mktemp("run") / "run.safetensors", SMALL.learner()
    list(SMALL.train(learner, path, progress=False))
    return learner, path


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


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_model_loads_and_answers(name: str):
    denoise = pretrained.load(name)
    recipe, _ = pretrained.read(pretrained.shipped(name))
    assert recipe == RECIPES[name]()  # what a person who types `ddpm-edu train` gets
    x_0 = recipe.codec.encode(data.digits("test")[0][:8])
    t = torch.full((8,), denoise.process.T // 5)
    x_t = denoise.process.marginal(x_0, t).sample(seeded())
    with torch.no_grad():
        found = denoise(x_t, t).x_0
    # It has learnt something: nearer to the digit than the noisy picture, or nothing, is.
    assert (found - x_0).square().mean() < 0.5 * min((x_t - x_0).square().mean(), x_0.var())


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
    one, state = SMALL.denoiser(), torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(one.net.enter[0].weight, SMALL.denoiser().net.enter[0].weight)
    assert not torch.equal(one.net.enter[0].weight, replace(SMALL, seed=5).denoiser().net.enter[0].weight)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)  # and leave the caller's random numbers alone


def test_the_recipe_trains_on_training_digits(monkeypatch: pytest.MonkeyPatch):
    asked = []
    real = data.digits
    monkeypatch.setattr("ddpm_edu.recipes.digits.digits", lambda split: asked.append(split) or real(split))
    assert len(list(islice(SMALL.train(SMALL.learner(), progress=False), 5))) == SMALL.steps
    assert asked == ["train"]


def test_one_seed_gives_the_same_pictures_whatever_n_is(trained):
    recipe, denoise = pretrained.read(trained[1])
    four = pretrained.sample(recipe, denoise, n=4, steps=2)
    assert (four.shape, four.dtype) == ((4, 28, 28), torch.uint8)
    two = pretrained.sample(recipe, denoise, n=2, steps=2)
    assert (two.int() - four[:2].int()).abs().max() <= 1  # sums in another order: a level of grey at most
    assert not torch.equal(pretrained.sample(recipe, denoise, n=2, steps=2, seed=1), two)
