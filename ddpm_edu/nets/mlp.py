"""A residual multilayer perceptron for points: the UNet's place is taken by this when data is 2-D."""

from __future__ import annotations

from torch import Tensor, nn

from ddpm_edu.nets.layers import TimeEmbedding, zero


class MLP(nn.Module):
    """x_t: (b, d), t: (b,) -> (b, d). The embedding of t is added before every block. It takes no condition."""

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
