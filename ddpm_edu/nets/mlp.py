"""Multilayer perceptrons, for points: where data is 2-D they take the place of convolutions."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ddpm_edu.nets.layers import TimeEmbedding, zero


def mlp(*widths: int, act: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """(b, widths[0]) -> (b, widths[-1]): linear layers with activations between them.

    >>> mlp(2, 64, 1)
    Sequential(
      (0): Linear(in_features=2, out_features=64, bias=True)
      (1): SiLU()
      (2): Linear(in_features=64, out_features=1, bias=True)
    )
    """
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(widths):
        layers += [act(), nn.Linear(d_in, d_out)]
    return nn.Sequential(*layers[1:])


class MLP(nn.Module):
    """The denoiser of points: residual blocks, the embedding of t added before each. x_t: (b, d), t: (b,) -> (b, d).
    It takes no condition."""

    def __init__(self, d: int = 2, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.time = TimeEmbedding(width)
        self.stem = nn.Linear(d, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), zero(nn.Linear(width, d)))

    def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        if cond is not None:
            raise ValueError("This network takes no condition; call it without.")
        emb, x = self.time(t), self.stem(x_t)
        for block in self.blocks:
            x = x + block(x + emb)
        return self.head(x)
