"""C10: normalising flows."""

from __future__ import annotations

import math

import pytest
import torch
from stats import assert_average, seeded
from torch import Tensor, nn

from ddpm_edu import data
from ddpm_edu.nets.realnvp import RealNVP
from ddpm_edu.objectives import flow_loss


def bent(d: int = 2, layers: int = 6, seed: int = 0) -> RealNVP:
    """A flow in float64 that is far from the identity, which it starts as."""
    flow, generator = RealNVP(d, layers, width=16).double().requires_grad_(False), seeded(seed)
    for weight in flow.parameters():
        weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return flow


def points(n: int, d: int, seed: int = 1) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=seeded(seed))


def jacobians(f: nn.Module, x: Tensor) -> Tensor:
    """df/dx by autograd, row after row, which knows nothing of triangles: (b, d, d)."""
    return torch.stack([torch.autograd.functional.jacobian(lambda row: f(row[None])[0][0], row) for row in x])


def plane(width: float, side: int) -> tuple[Tensor, float]:
    """The middles of side^2 equal cells of a square, (side^2, 2), and the area of one."""
    middles = (torch.arange(side, dtype=torch.float64) + 0.5) * (2 * width / side) - width
    return torch.cartesian_prod(middles, middles), (2 * width / side) ** 2


@pytest.mark.claim("C10")
@pytest.mark.parametrize("d", [2, 5])
def test_c10_log_density_is_that_of_the_noise_plus_the_log_determinant(d: int):
    """log p_x(x) = log N(f(x); 0, I) + log |det df/dx|, the Jacobian taken by autograd."""
    flow, x = bent(d), points(20, d)
    z, log_det = flow(x)
    sign, exact = torch.linalg.slogdet(jacobians(flow, x))
    assert (sign > 0).all()
    assert exact.abs().mean() > 0.3  # a flow that stretches nothing would prove nothing
    torch.testing.assert_close(log_det, exact)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    )
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(z) + exact)
    torch.testing.assert_close(flow_loss(flow, x), -(normal.log_prob(z) + exact).mean())


@pytest.mark.claim("C10")
def test_c10_the_jacobian_of_a_coupling_layer_is_triangular():
    """With the kept half first: ones on the diagonal, then exp(s); above it, zeros. log det is the sum of s."""
    flow, x = bent(6, layers=4), points(10, 6)
    for layer in flow.layers:
        order = layer.mask.argsort(descending=True, stable=True)
        jacobian = jacobians(layer, x)[:, order][:, :, order]
        assert (jacobian.triu(1) == 0).all()
        assert jacobian[:, 3:, :3].abs().mean() > 0.02  # the other half does hear of the kept one
        s = layer.scale_and_shift(layer.mask * x)[0]
        torch.testing.assert_close(jacobian.diagonal(dim1=1, dim2=2), s.exp()[:, order])
        torch.testing.assert_close(layer(x)[1], s.sum(1))
        x, _ = layer(x)


@pytest.mark.claim("C10")
def test_c10_determinants_multiply_and_the_way_back_has_the_inverse_one():
    flow, x = bent(4), points(10, 4)
    there, total = x, 0.0
    for layer in flow.layers:
        there, log_det = layer(there)
        total = total + log_det
    torch.testing.assert_close(total, flow(x)[1])
    back = torch.stack([torch.autograd.functional.jacobian(lambda z: flow.inverse(z[None])[0], z) for z in there])
    torch.testing.assert_close(torch.linalg.slogdet(back).logabsdet, -total)


@pytest.mark.claim("C10")
@pytest.mark.parametrize("layers", [1, 4, 16])
def test_c10_invertible_to_float_precision(layers: int):
    """The error of the round trip is the rounding of the number type, and nothing else: float32 and float64 have the
    same one, in units of their precision, at any depth."""
    flow, x = bent(2, layers), points(2000, 2)
    for there in (lambda x: flow.inverse(flow(x)[0]), lambda x: flow(flow.inverse(x))[0]):
        errors = {}
        for dtype in (torch.float32, torch.float64):
            flow.to(dtype)
            given = x.to(dtype)
            errors[dtype] = (there(given) - given).abs().mean().item() / torch.finfo(dtype).eps
        assert errors[torch.float32] < 4 * layers
        assert 0.5 < errors[torch.float32] / errors[torch.float64] < 2


@pytest.mark.claim("C10")
@pytest.mark.parametrize("seed", [0, 1])
def test_c10_the_density_integrates_to_one(seed: int):
    """By quadrature over the plane, which the layers are no part of. Without the determinant it does not."""
    flow = bent(seed=seed)
    at, area = plane(12.0, 600)
    assert abs(flow.log_prob(at).exp().sum().item() * area - 1) < 2e-3
    z, _ = flow(at)
    forgotten = (-0.5 * z.square().sum(1)).exp().sum().item() * area / (2 * math.pi)
    assert abs(forgotten - 1) > 0.1


@pytest.mark.claim("C10")
def test_c10_samples_have_that_density():
    """G(z), z ~ N(0, I), falls into a box as often as the integral of the density over it says."""
    flow = bent()
    x = flow.sample(200_000, seeded(2)).double()
    for low, high in [((-1.0, -1.0), (0.0, 1.0)), ((0.0, 0.0), (1.0, 2.0)), ((-0.5, -2.0), (1.5, 0.0))]:
        low, size = torch.tensor(low), torch.tensor(high) - torch.tensor(low)
        unit, _ = plane(0.5, 200)
        mass = flow.log_prob(low + (unit + 0.5) * size).exp().mean() * size.prod()
        inside = ((x > low) & (x < low + size)).all(1)
        assert 0.02 < mass < 0.9
        assert_average(inside, mass)


@pytest.mark.claim("C10")
def test_c10_in_one_dimension():
    """f(x) = x^3 falling or rising, and the formula against the derivative of P(x <= c) = P(f(x) <= f(c))."""
    c = torch.linspace(0.2, 2, 50, dtype=torch.float64).requires_grad_()
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    for sign in (1, -1):
        below = normal.cdf(c**3) if sign > 0 else 1 - normal.cdf(-(c**3))
        (density,) = torch.autograd.grad(below.sum(), c)
        formula = normal.log_prob(sign * c**3) + (sign * 3 * c**2).abs().log()
        torch.testing.assert_close(density.log(), formula)


@pytest.mark.claim("C10")
def test_c10_the_gap_to_the_entropy_is_the_kl():
    """NLL - H(data) = KL(data || flow), the first by sampling, the second by quadrature; it is above 0."""
    target, flow = data.eight_gaussians(), bent()
    x = target.sample(50_000, seeded(3)).double()
    at, area = plane(2.5, 500)
    log_p = target.log_prob(at)
    kl = (log_p.exp() * (log_p - flow.log_prob(at))).sum() * area
    assert kl > 0.5
    assert_average(target.log_prob(x) - flow.log_prob(x), kl)


@pytest.mark.claim("C10")
def test_c10_many_small_steps():
    """log det(I + h J) = h tr J + O(h^2): half the step, a quarter of the error of one and half that of the whole."""
    matrix = torch.randn(5, 5, dtype=torch.float64, generator=seeded())
    one = torch.eye(5, dtype=torch.float64)
    errors = [torch.linalg.slogdet(one + h * matrix).logabsdet - h * matrix.trace() for h in (0.02, 0.01, 0.005)]
    # The next term is -h^2 tr(J^2) / 2.
    assert errors[2] == pytest.approx(-(0.005**2) * (matrix @ matrix).trace().item() / 2, rel=0.05)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)
