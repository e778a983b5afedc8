"""Recipes: everything that decides what a shipped model is. One dataclass a model; its fields are the command line's
flags (`ddpm-edu train NAME --help`) and are saved beside the weights."""

from ddpm_edu.recipes.autoencoder import Autoencoder
from ddpm_edu.recipes.base import Generative, Recipe, config
from ddpm_edu.recipes.clip import Clip, Judge
from ddpm_edu.recipes.digits import Digits
from ddpm_edu.recipes.digits_features import DigitsFeatures
from ddpm_edu.recipes.digits_gan import DigitsGAN
from ddpm_edu.recipes.digits_vae import DigitsVAE

__all__ = [
    "RECIPES", "Autoencoder", "Clip", "Digits", "DigitsFeatures", "DigitsGAN", "DigitsVAE", "Generative", "Judge",
    "Recipe", "config",
]  # fmt: skip

RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe for recipe in (Digits, DigitsGAN, DigitsVAE, DigitsFeatures, Clip, Judge, Autoencoder)
}
