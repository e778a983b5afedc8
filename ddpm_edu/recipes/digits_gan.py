"""A GAN of handwritten digits, for notebook 02."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ddpm_edu.codec import Pixels
from ddpm_edu.data import digits
from ddpm_edu.metrics import sliced_wasserstein
from ddpm_edu.nets.gan import DCDiscriminator, DCGenerator
from ddpm_edu.objectives import gan_value, gradient_penalty, non_saturating
from ddpm_edu.recipes.base import Generative
from ddpm_edu.training import Learner, Update


@dataclass(frozen=True)
class DigitsGAN(Generative):
    """A small DCGAN of handwritten digits: non-saturating loss, R1 penalty. About 8 minutes on two CPU cores."""

    name: ClassVar[str] = "digits_gan"
    ships: ClassVar[str] = "generator"
    codec: ClassVar[Pixels] = Pixels()

    d_z: int = 32
    width: int = 48
    gamma: float = 1.0
    batch: int = 64
    lr: float = 5e-4
    decay: float = 0.999
    steps: int = 6_000
    seed: int = 0

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.d_z,)

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": DCGenerator(self.d_z, self.width), "discriminator": DCDiscriminator()}

    def learner(self, net: nn.Module) -> Learner:
        # A first moment that remembers less: 0.9 made training oscillate (Radford et al. 2016, section 4).
        return Learner(net, self.lr, decay=self.decay, betas=(0.5, 0.99))

    def programs(self, learners: dict[str, Learner]) -> list[nn.Module]:
        """None: the gradient penalty is differentiated twice, which a compiled network cannot be."""
        return []

    def update(self, learners: dict[str, Learner]) -> Update:
        G, D = learners["generator"].net, learners["discriminator"].net

        def update(x: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            fake = G(torch.randn(len(x), self.d_z, generator=generator).to(x.device))
            penalty = gradient_penalty(D, x)
            yield "discriminator", -gan_value(D(x), D(fake.detach())) + self.gamma / 2 * penalty
            yield "generator", non_saturating(D(fake))

        return update

    def data(self) -> Tensor:
        return self.codec.encode(digits("train")[0])

    @torch.no_grad()
    def quality(self, model: nn.Module) -> dict[str, Any]:
        """Sliced Wasserstein distance of 1,000 samples to the 1,000 test digits, pixels in [-1, 1]: mean and deviation
        over 5 sets of samples. Beside it the floor: 1,000 training digits in place of the samples."""
        generator = torch.Generator().manual_seed(0)
        test, train = (self.codec.encode(digits(split)[0]).flatten(1) for split in ("test", "train"))

        def distance(x: Tensor) -> float:
            return sliced_wasserstein(x, test, 1000, generator)

        z = torch.randn(5, len(test), self.d_z, generator=generator)
        generated = torch.tensor([distance(model(part).flatten(1)) for part in z])
        floor = torch.tensor([distance(part) for part in train[:5000].split(1000)])
        return {
            "sliced_wasserstein": round(generated.mean().item(), 4),
            "deviation": round(generated.std().item(), 4),
            "floor": round(floor.mean().item(), 4),
            "n": "5 x 1000 samples",
        }
