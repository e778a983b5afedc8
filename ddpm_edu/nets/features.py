"""A network that reads digits: what it computes on the way to its answer are the features that metrics compare."""

from __future__ import annotations

from torch import Tensor, nn

from ddpm_edu.nets.layers import group_norm

__all__ = ["FeatureNet"]


def _block(c_in: int, c_out: int) -> list[nn.Module]:
    """Half the side, rounded up: 28 -> 14 -> 7 -> 4."""
    return [nn.Conv2d(c_in, c_out, 3, padding=1), group_norm(c_out), nn.SiLU(), nn.MaxPool2d(2, ceil_mode=True)]


class FeatureNet(nn.Module):
    """A small convolutional classifier. Pictures (b, 1, 28, 28) in [-1, 1] -> features (b, d), the last layer but one,
    and from these the logits of the ten digits (b, 10)."""

    def __init__(self, d: int = 64, width: int = 32) -> None:
        super().__init__()
        body = [*_block(1, width), *_block(width, 2 * width), *_block(2 * width, 2 * width)]
        self.body = nn.Sequential(*body, nn.Flatten(), nn.Linear(2 * width * 4 * 4, d), nn.SiLU())
        self.head = nn.Linear(d, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
