"""What every recipe shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ddpm_edu.codec import Codec
from ddpm_edu.data import minibatches
from ddpm_edu.denoiser import Denoise, guided
from ddpm_edu.samplers import ddim
from ddpm_edu.training import Learner, Step, Update, train


class Recipe(ABC):
    """A frozen dataclass: its fields, `batch`, `steps` and `seed` among them, decide everything about the model."""

    name: ClassVar[str]  # on the command line and in data/checkpoints
    ships: ClassVar[str]  # the learner whose averaged weights are the model
    codec: ClassVar[Codec]
    any_size: ClassVar[bool | None] = None  # one program for inputs of all sizes; None: if several sizes come
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # fields by the name of a machine; as they stand, a laptop's
    looks: ClassVar[int] = 0  # how often a training is measured, and drawn, on its way
    batch: int
    steps: int
    seed: int

    @abstractmethod
    def networks(self) -> dict[str, Any]:
        """What is trained, by the name of its learner, with the weights that torch's generator gives."""

    @abstractmethod
    def learner(self, net: Any) -> Learner:
        """A network and its optimizer."""

    @abstractmethod
    def update(self, learners: dict[str, Learner]) -> Update:
        """What is minimised, as `training.train` takes it."""

    @abstractmethod
    def data(self) -> Tensor:
        """The training data, encoded."""

    def batches(self, data: Tensor) -> Callable[[torch.Generator], Tensor]:
        """Batches of the training data: rows drawn independently, unless the recipe says otherwise."""
        return minibatches(data, self.batch)

    @abstractmethod
    def quality(self, model: Any) -> dict[str, Any]:
        """How good the trained model is, measured on held-out data, for data/MANIFEST.json."""

    def picture(self, model: Any) -> Tensor | None:
        """Pictures that show how far the model is, uint8 as its codec decodes them, or None."""
        return None

    def model(self) -> Any:
        """What ships, with fresh weights."""
        return self._fresh()[self.ships]

    def learners(self, device: str = "cpu") -> dict[str, Learner]:
        """All that is trained, with fresh weights drawn from the seed, on a device."""
        return {name: self.learner(net.to(device)) for name, net in self._fresh().items()}

    def programs(self, learners: dict[str, Learner]) -> list[nn.Module]:
        """The modules whose forward does the work of a train step, each to be made one program of."""
        return [part for learner in learners.values() for part in learner.net.children()]

    def compile(self, learners: dict[str, Learner], backend: str | Callable = "inductor") -> None:
        """Lets `torch.compile` fuse the layers of what does the work, for a GPU; weights and files stay as they are.
        The first step waits for it, a minute or two."""
        for part in self.programs(learners):
            part.compile(backend=backend, dynamic=self.any_size)

    def train(
        self, learners: dict[str, Learner], path: Path | None = None, progress: bool = True
    ) -> Generator[Step, None, None]:
        """Trains the learners to `steps`, resuming from the checkpoint `path` if it exists; see `training.train`."""
        device = next(next(iter(learners.values())).net.parameters()).device
        return train(
            self.update(learners),
            self.batches(self.data().to(device)),
            self.steps,
            learners,
            seed=self.seed,
            path=path,
            config=config(self),
            progress=progress,
        )

    def _fresh(self) -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.networks()


class Generative(Recipe):
    """A recipe whose model makes pictures from noise."""

    sampling: ClassVar[int] = 0  # the sampler's steps, unless told; 0: a picture is made in one pass

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of the noise that one sample is made from."""

    def states(self, model: Any, noise: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """From noise, (b, ...), to what the codec decodes: what there is before the first step, ..., after the last."""
        if steps is not None:
            raise ValueError(f"{self.name} makes a picture in one pass: leave the number of steps out.")
        yield model(noise)


class Conditional(Generative):
    """A generative recipe whose denoiser is told what to make. In words: a class is the word for it ("7"), and the
    empty text says nothing."""

    sampling: ClassVar[int] = 25
    w: ClassVar[float]  # of guidance, unless told
    between: ClassVar[tuple[float, float]] = (0.0, 1.0)  # the times t / T at which it guides
    examples: ClassVar[Sequence[str]]  # what it is asked for, unless told

    @abstractmethod
    def read(self, texts: Sequence[str]) -> Any:
        """What the denoiser is given for texts, a row each. The empty text gives the null token."""

    def fit(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """How well pictures, as the codec decodes them, show their texts, by the recipe's own measure: (n,), more is
        better. A recipe without one raises ValueError."""
        raise ValueError(f"{self.name} cannot tell how well a picture shows its text: leave best_of at 1.")

    def states(
        self,
        model: Any,
        noise: Tensor,
        steps: int | None = None,
        texts: Sequence[str] = (),
        w: float | None = None,
        between: tuple[float, float] | None = None,
    ) -> Iterator[Tensor]:
        """From noise, (b, ...), and as many texts: DDIM, `guided`."""
        if len(texts) != len(noise):
            raise ValueError(f"Each picture needs a text: got {len(noise)} pictures and {len(texts)} texts.")
        timesteps = model.process.timesteps(self.sampling if steps is None else steps)
        return (state.x_t for state in ddim(self.guided(model, w, between), noise, timesteps, self.read(texts)))

    def prepare(self, model: Any) -> None:
        """Brings what the recipe uses beside the model to where the model is."""

    def guided(self, model: Any, w: float | None = None, between: tuple[float, float] | None = None) -> Denoise:
        """The model guided by w (1 is off) at the times t / T between the two. Unless told, those of the recipe, or all
        where w is below 1: then it does not exaggerate the text, but turns away from it."""
        self.prepare(model)
        w = self.w if w is None else w
        first, last = (round(share * model.process.T) for share in between or (self.between if w > 1 else (0, 1)))
        return guided(model, self.read([""]), w, (first, last))


def config(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a file keeps it: its name and its fields."""
    return {"recipe": recipe.name, **asdict(recipe)}  # type: ignore[call-overload]
