"""RealNVP (Dinh, Sohl-Dickstein and Bengio 2017): an invertible network whose Jacobian is triangular, layer by layer.

f maps data x to z ~ N(0, I). Every layer is called as layer(x) -> (y, log_det), log_det = log |det dy/dx|, (b,), and
goes back by layer.inverse(y) -> x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ddpm_edu.nets.layers import zero
from ddpm_edu.nets.mlp import mlp
from ddpm_edu.process import randn_like

__all__ = ["Coupling", "RealNVP"]


class Coupling(nn.Module):
    """An affine coupling layer, in its masked form (eq. 9): where mask is 1 x is kept, elsewhere it is scaled and
    shifted by what the kept half says: y = mask x + (1 - mask) (x exp(s(mask x)) + t(mask x)).

    mask: (d,) of zeros and ones. dy/dx is triangular with diagonal 1 or exp(s) (eq. 6), so log_det = sum of s.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, width: int) -> None:
        super().__init__()
        d = len(mask)
        self.register_buffer("mask", mask.float(), persistent=False)
        net = mlp(d, width, width, 2 * d, act=nn.ReLU)
        self.net = nn.Sequential(*net[:-1], zero(net[-1]))  # starts as the identity

    def scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """s and t from the kept half: (b, d) each, 0 where x is kept. |s| < 2, so that no layer scales by more than
        exp(2) = 7.4: unbounded, one bad step of training can make the density overflow."""
        s, t = (self.net(kept) * (1 - self.mask).repeat(2)).chunk(2, dim=1)
        return 2 * (s / 2).tanh(), t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.scale_and_shift(self.mask * x)
        return x * s.exp() + t, s.sum(1)  # s = t = 0 where x is kept

    def inverse(self, y: Tensor) -> Tensor:
        s, t = self.scale_and_shift(self.mask * y)  # the kept half is the same in x and y
        return (y - t) * (-s).exp()


class RealNVP(nn.Module):
    """Coupling layers that keep one half of the elements and the other in turn.

    >>> flow = RealNVP()
    >>> x = torch.randn(5, 2)
    >>> z, log_det = flow(x)
    >>> torch.allclose(flow.inverse(z), x, atol=1e-5)
    True
    """

    def __init__(self, d: int = 2, layers: int = 8, width: int = 64) -> None:
        super().__init__()
        self.d = d
        halves = torch.arange(d) % 2
        self.layers = nn.ModuleList(Coupling(halves if k % 2 else 1 - halves, width) for k in range(layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (b, d) -> z: (b, d) and log |det dz/dx|: (b,), the sum over the layers."""
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, more = layer(x)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """z: (b, d) -> x: (b, d)."""
        for layer in reversed(self.layers):
            z = layer.inverse(z)  # type: ignore[operator]
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log N(f(x); 0, I) + log |det df/dx| (eq. 3), in nats: (b,)."""
        z, log_det = self(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, d): noise, taken back through the layers."""
        return self.inverse(randn_like(torch.empty(n, self.d, device=next(self.parameters()).device), generator))
