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
    best_of: int = 1,
) -> Tensor:
    """n pictures as the recipe's codec decodes them. One seed gives the same pictures whatever n is.

    steps: of the sampler; models that make a picture in one pass take none. texts: what to make, for a recipe that is
    told so: one for each picture, or fewer, taken in turn; without any, the recipe's examples. w: of guidance.
    best_of: so many are drawn for each picture, and the one is kept that fits its text best by the recipe's own eye,
    as DALL-E's were (Ramesh et al. 2021, section 2.6): no measure of how good they are, which wants another eye.
    """
    if not isinstance(recipe, Generative):
        raise ValueError(f"{recipe.name} makes no pictures: it reads them.")
    if min(n, best_of) < 1:
        raise ValueError(f"There must be 1 picture or more, the best of 1 or more; got {n}, the best of {best_of}.")
    generators = [torch.Generator().manual_seed((seed << 20) + k) for k in range(n)]
    noise = torch.stack([torch.randn(recipe.noise_shape, generator=one) for one in generators for _ in range(best_of)])
    said = []
    if isinstance(recipe, Conditional):
        said = [text for text in islice(cycle(texts or recipe.examples), n) for _ in range(best_of)]
        parts = range(0, len(said), 32)
        chains = [recipe.states(model, noise[i : i + 32], steps, said[i : i + 32], w) for i in parts]
    elif texts or w is not None or best_of > 1:
        raise ValueError(f"{recipe.name} cannot be told what to make: leave text, guidance and best_of out.")
    else:
        chains = [recipe.states(model, part, steps) for part in noise.split(32)]
    made, a_chain = [], 1 + (recipe.sampling if steps is None else steps)
    with tqdm(total=len(chains) * a_chain, desc="sampling") as bar:
        for chain in chains:
            *_, last = _ticking(chain, bar)
            made.append(last)
    images = recipe.codec.decode(torch.cat(made))
    if best_of == 1 or not isinstance(recipe, Conditional):
        return images
    best = recipe.fit(images, said).view(n, best_of).argmax(1).to(images.device)
    return images.unflatten(0, (n, best_of))[torch.arange(n, device=images.device), best]


def _ticking(chain: Iterator[Tensor], bar: tqdm) -> Iterator[Tensor]:
    for x in chain:
        bar.update()
        yield x


def _recipe(fields: dict) -> Recipe:
    """From the fields that a file keeps, which JSON has turned from tuples into lists."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return RECIPES[fields.pop("recipe")](**fields)
