"""The weights that ship with the course: fp16, a few MiB each, checked against data/MANIFEST.json before they load."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import checkpoint
from ddpm_edu.data import asset
from ddpm_edu.denoiser import Denoise, Denoiser
from ddpm_edu.recipes import RECIPES, Recipe, config
from ddpm_edu.samplers import ddim


def shipped(name: str) -> Path:
    """The file of a shipped model, whole. name: one of `recipes.RECIPES`."""
    if name not in RECIPES:
        raise ValueError(f"There is no model {name!r}; the models are {', '.join(RECIPES)}.")
    return asset(f"checkpoints/{name}.safetensors")


def load(name: str) -> Denoiser:
    """A shipped model by name, ready to sample from.

    >>> load("digits").process
    Process(T=1000, alpha_bar[T]=4e-05)
    """
    return read(shipped(name))[1]


def read(path: Path) -> tuple[Recipe, Denoiser]:
    """The model in a file that `write` wrote, or in the checkpoint of a training run (then its running average)."""
    tree = checkpoint.load(path)
    try:
        weights = tree["weights"] if "weights" in tree else tree["learners"]["denoise"]["ema"]
        recipe = _recipe(tree["config"])
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} holds no model that this version of the course knows.") from None
    denoise = recipe.denoiser()
    checkpoint.load_weights(denoise, {key: value.float() for key, value in weights.items()}, str(path))
    return recipe, denoise.requires_grad_(False).eval()


def write(path: Path, run: Path) -> None:
    """From a training run's checkpoint to the file that ships: the running average in fp16 and the recipe."""
    tree = checkpoint.load(run)
    weights = {key: value.to(torch.float16) for key, value in tree["learners"]["denoise"]["ema"].items()}
    checkpoint.save(path, {"config": config(_recipe(tree["config"])), "weights": weights})


def sample(recipe: Recipe, denoise: Denoise, n: int = 64, steps: int = 50, seed: int = 0) -> Tensor:
    """n pictures as the recipe's codec decodes them, by DDIM. One seed gives the same pictures whatever n is."""
    if n < 1:
        raise ValueError(f"The number of pictures must be 1 or more; got {n}.")
    generators = [torch.Generator().manual_seed((seed << 20) + k) for k in range(n)]
    x_T = torch.stack([torch.randn(recipe.shape, generator=generator) for generator in generators])
    parts = []
    with tqdm(total=len(x_T.split(64)) * steps, desc="sampling") as bar:
        for part in x_T.split(64):
            for state in ddim(denoise, part, denoise.process.timesteps(steps)):
                bar.update(state.t > 0)
            parts.append(state.x_t)
    return recipe.codec.decode(torch.cat(parts))


def _recipe(fields: dict) -> Recipe:
    """From the fields that a file keeps, which JSON has turned from tuples into lists."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return RECIPES[fields.pop("recipe")](**fields)
