"""Recipes: everything that decides what a shipped model is. One dataclass a model; its fields are the command line's
flags (`ddpm-edu train NAME --help`) and are saved beside the weights."""

from ddpm_edu.recipes.autoencoder import Autoencoder
from ddpm_edu.recipes.base import Conditional, Generative, Recipe, config
from ddpm_edu.recipes.clip import Clip, Judge
from ddpm_edu.recipes.digits import Digits
from ddpm_edu.recipes.digits_class import DigitsClass
from ddpm_edu.recipes.digits_features import DigitsFeatures
from ddpm_edu.recipes.digits_gan import DigitsGAN
from ddpm_edu.recipes.digits_vae import DigitsVAE
from ddpm_edu.recipes.text2image import Text2Image

__all__ = [
    "RECIPES", "Autoencoder", "Clip", "Conditional", "Digits", "DigitsClass", "DigitsFeatures", "DigitsGAN",
    "DigitsVAE", "Generative", "Judge", "Recipe", "Text2Image", "config",
]  # fmt: skip

_ALL = (Digits, DigitsGAN, DigitsVAE, DigitsFeatures, DigitsClass, Clip, Judge, Autoencoder, Text2Image)
RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _ALL}
