"""What every recipe shares."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ddpm_edu.codec import Codec
from ddpm_edu.denoiser import Denoiser
from ddpm_edu.training import Learner, Step


class Recipe(Protocol):
    """A frozen dataclass: its fields decide everything about the model."""

    name: ClassVar[str]  # on the command line and in data/checkpoints
    shape: ClassVar[tuple[int, ...]]  # of one x_0

    @property
    def codec(self) -> Codec: ...

    def denoiser(self) -> Denoiser:
        """The model with fresh weights, drawn from the seed."""
        ...

    def quality(self, denoise: Denoiser) -> dict[str, Any]:
        """How good the trained model is, measured on held-out data, for data/MANIFEST.json."""
        ...

    def learner(self, device: str = "cpu") -> Learner[Denoiser]:
        """That model on a device, and its optimizer."""
        ...

    def train(
        self, learner: Learner[Denoiser], path: Path | None = None, progress: bool = True
    ) -> Generator[Step, None, None]:
        """Trains the learner, resuming from the checkpoint `path` if it exists."""
        ...


def config(recipe: Any) -> dict[str, Any]:
    """The recipe as a file keeps it: its name and its fields."""
    return {"recipe": recipe.name, **asdict(recipe)}
