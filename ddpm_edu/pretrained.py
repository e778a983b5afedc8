"""The weights that ship with the course: fp16, a few MiB each, checked against data/MANIFEST.json before they load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import checkpoint
from ddpm_edu.data import asset
from ddpm_edu.recipes import RECIPES, Conditional, Generative, Recipe, config
from ddpm_edu.training import Learner


def shipped(name: str) -> Path:
    """The file of a shipped model, whole. name: one of `recipes.RECIPES`."""
    if name not in RECIPES:
        raise ValueError(f"There is no model {name!r}; the models are {', '.join(RECIPES)}.")
    return asset(f"checkpoints/{name}.safetensors")


def load(name: str) -> Any:
    """A shipped model by name, ready to use: a Denoiser, a generator, a VAE or a FeatureNet.

    >>> load("digits").process
    Process(T=1000, alpha_bar[T]=4e-05)
    """
    return read(shipped(name))[1]


def read(path: Path) -> tuple[Recipe, Any]:
    """The model in a file that `write` wrote, or in the checkpoint of a training run (then its running average)."""
    tree = checkpoint.load(path)
    try:
        recipe = _recipe(tree["config"])
        weights = tree["weights"] if "weights" in tree else tree["learners"][recipe.ships]["ema"]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} holds no model that this version of the course knows.") from None
    model = recipe.model()
    checkpoint.load_weights(model, {key: value.float() for key, value in weights.items()}, str(path))
    return recipe, model.requires_grad_(False).eval()


def start(recipe: Recipe, learners: dict[str, Learner], path: Path) -> None:
    """Gives a training that has not begun the weights of a trained model of the same shape, in a file as `read` takes
    it, in place of random ones. The optimizer, the average and the learning rate begin anew. A file of another network
    raises ValueError, and changes nothing."""
    weights = read(path)[1].state_dict()
    learner = learners[recipe.ships]
    for net in (learner.net, learner.ema):
        checkpoint.load_weights(net, weights, str(path))


def write(path: Path, run: Path) -> None:
    """From a training run's checkpoint to the file that ships: the running average in fp16 and the recipe."""
    tree = checkpoint.load(run)
    recipe = _recipe(tree["config"])
    weights = {key: value.to(torch.float16) for key, value in tree["learners"][recipe.ships]["ema"].items()}
    checkpoint.save(path, {"config": config(recipe), "weights": weights})


@torch.no_grad()
def sample(
    recipe: Recipe,
    model: Any,
    n: int = 64,
    steps: int | None = None,
    seed: int = 0,
    texts: Sequence[str] = (),
    w: float | None = None,
) -> Tensor:
    """n pictures as the recipe's codec decodes them. One seed gives the same pictures whatever n is.

    steps: of the sampler; models that make a picture in one pass take none. texts: what to make, for a recipe that is
    told so: one for each picture, or fewer, taken in turn; without any, the recipe's examples. w: of guidance.
    """
    if not isinstance(recipe, Generative):
        raise ValueError(f"{recipe.name} makes no pictures: it reads them.")
    if n < 1:
        raise ValueError(f"The number of pictures must be 1 or more; got {n}.")
    generators = [torch.Generator().manual_seed((seed << 20) + k) for k in range(n)]
    noise = torch.stack([torch.randn(recipe.noise_shape, generator=generator) for generator in generators])
    if isinstance(recipe, Conditional):
        said = list(islice(cycle(texts or recipe.examples), n))
        chains = [recipe.states(model, noise[i : i + 32], steps, said[i : i + 32], w) for i in range(0, n, 32)]
    elif texts or w is not None:
        raise ValueError(f"{recipe.name} cannot be told what to make: leave text and guidance out.")
    else:
        chains = [recipe.states(model, part, steps) for part in noise.split(32)]
    made, a_chain = [], 1 + (recipe.sampling if steps is None else steps)
    with tqdm(total=len(chains) * a_chain, desc="sampling") as bar:
        for chain in chains:
            *_, last = _ticking(chain, bar)
            made.append(last)
    return recipe.codec.decode(torch.cat(made))


def _ticking(chain: Iterator[Tensor], bar: tqdm) -> Iterator[Tensor]:
    for x in chain:
        bar.update()
        yield x


def _recipe(fields: dict) -> Recipe:
    """From the fields that a file keeps, which JSON has turned from tuples into lists."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return RECIPES[fields.pop("recipe")](**fields)
