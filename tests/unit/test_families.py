"""GAN, VAE and flow, part by part, against torch.distributions, autograd and cases whose answer is known; then all four
families on the common target."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from scipy.stats import wasserstein_distance_nd
from stats import assert_average, assert_moments, seeded
from torch import nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, kl_divergence
from torch.distributions import Normal as TorchNormal

from ddpm_edu.data import eight_gaussians, toy
from ddpm_edu.metrics import modes_covered, sliced_wasserstein
from ddpm_edu.mixture import Mixture
from ddpm_edu.nets.gan import DCDiscriminator, DCGenerator, points_gan
from ddpm_edu.nets.mlp import mlp
from ddpm_edu.nets.realnvp import Coupling, RealNVP
from ddpm_edu.nets.vae import VAE, Bernoulli, Normal, digits_vae, points_vae
from ddpm_edu.objectives import (
    elbo,
    flow_loss,
    gan_value,
    gradient_penalty,
    importance_bound,
    non_saturating,
    saturating,
    vae_loss,
)
from ddpm_edu.recipes.families import FAMILIES, TARGET, score, training


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def stirred(net: nn.Module) -> nn.Module:
    """The network with weights that are no longer those of the start (a flow starts as the identity)."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return net


# The target -----------------------------------------------------------------------------------------------------------


def test_a_mixtures_density_is_that_of_torch():
    means, covs = torch.randn(3, 2), torch.stack([torch.eye(2) * s for s in (0.5, 1.0, 2.0)])
    ours = Mixture([1, 2, 3], means, covs)
    theirs = MixtureSameFamily(Categorical(torch.tensor([1.0, 2, 3])), MultivariateNormal(means, covs))
    x = torch.randn(20, 2)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.deviations, torch.tensor([0.5, 1, 2]).double().sqrt())
    assert torch.equal(ours.means, means)


def test_a_mixture_is_as_wide_as_its_widest_axis_and_takes_floats():
    long = Mixture([1], [[0.0, 0.0]], torch.diag(torch.tensor([100.0, 0.01]))[None])
    assert long.deviations.tolist() == pytest.approx([10.0])
    with pytest.raises(ValueError, match=r"floating point; got torch.int64. Use x.float\(\)"):
        long.log_prob(torch.tensor([[1, 0]]))


def test_a_mixture_without_width_has_no_density():
    with pytest.raises(ValueError, match="variance 0 has no density"):
        Mixture([1], [[0.0]], 0.0).log_prob(torch.zeros(1, 1))


def test_the_toy_set_is_the_target():
    """Draws of the one have the moments of the other about every centre, and each its eighth."""
    x, centres = toy("eight gaussians", 40_000, seeded()), eight_gaussians().means
    nearest = torch.cdist(x, centres).argmin(1)
    for k, centre in enumerate(centres):
        assert_average((nearest == k).double(), 1 / 8)
        assert_moments(x[nearest == k], centre, 0.12**2)


# Networks -------------------------------------------------------------------------------------------------------------


def test_mlp_has_the_widths_it_is_given():
    net = mlp(3, 16, 8, 2)
    assert [(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)] == [(3, 16), (16, 8), (8, 2)]
    assert isinstance(net[0], nn.Linear)
    assert isinstance(net[-1], nn.Linear)


def test_gan_shapes():
    G, D = points_gan(d=3, d_z=5)
    assert G(torch.randn(7, 5)).shape == (7, 3)
    assert D(torch.randn(7, 3)).shape == (7,)
    x = DCGenerator(d_z=5, width=8)(torch.randn(4, 5))
    assert x.shape == (4, 1, 28, 28)
    assert x.abs().max() <= 1
    assert DCDiscriminator(width=8)(x).shape == (4,)


@pytest.mark.parametrize(
    "net", [DCGenerator(4, 8), DCDiscriminator(8), digits_vae(2, 8).decoder], ids=["G", "D", "VAE"]
)
def test_a_picture_does_not_depend_on_the_rest_of_its_batch(net: nn.Module):
    shape = (1, 28, 28) if isinstance(net, DCDiscriminator) else (net[0].in_features,)
    x = torch.randn(6, *shape)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:2], net(x[:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "make", [lambda: points_vae(d_z=3), lambda: digits_vae(d_z=3, width=8)], ids=["points", "digits"]
)
def test_vae_shapes(make):
    vae = make()
    x = vae.sample(5, seeded())
    m, s = vae.heads(x)
    q = vae.encode(x)
    assert m.shape == s.shape == (5, 3)
    torch.testing.assert_close(q.var, s.exp())
    assert torch.equal(q.mean, m)
    assert vae.decode(m).shape == vae(m).shape == x.shape
    assert not torch.allclose(vae(m), vae(m + 1))  # z decides
    with pytest.raises(ValueError, match=r"z must be \(b, 3\); got"):
        vae(x)
    assert torch.equal(x, vae.sample(5, seeded()))


def test_normal_likelihood_is_that_of_torch():
    x, y = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    ours = Normal(0.7)
    torch.testing.assert_close(ours.log_prob(x, y), TorchNormal(y, 0.7).log_prob(x).flatten(1).sum(1))
    assert_moments(ours.sample(torch.ones(50_000, 1), seeded()), 1.0, 0.49)
    assert torch.equal(ours.mean(y), y)
    assert not any(p.requires_grad for p in ours.parameters())
    assert all(p.requires_grad for p in Normal(0.7, learned=True).parameters())


def test_bernoulli_likelihood_is_that_of_torch():
    y, x = torch.randn(4, 1, 3, 3), torch.randint(2, (4, 1, 3, 3)).float()
    ours = Bernoulli()
    torch.testing.assert_close(ours.log_prob(x, y), TorchBernoulli(logits=y).log_prob(x).flatten(1).sum(1))
    assert_average(ours.sample(torch.full((50_000, 1), 1.2), seeded()), torch.tensor(1.2).sigmoid())
    torch.testing.assert_close(ours.mean(y), y.sigmoid())
    assert ours.log_prob(torch.ones(1, 1), torch.full((1, 1), -200.0)).item() == -200  # no log of a rounded 0
    with pytest.raises(ValueError, match=r"0..1, not in -1..1: encode pictures by codec.Binary"):
        ours.log_prob(torch.tensor([[-1.0, 1.0]]), torch.zeros(1, 2))


@pytest.mark.parametrize("d", [2, 5])
def test_a_coupling_layers_jacobian_is_triangular_and_its_determinant_right(d: int):
    mask = (torch.arange(d) % 2).float()
    layer = stirred(Coupling(mask, 16))
    x = torch.randn(6, d)
    y, log_det = layer(x)
    assert torch.equal(y[:, mask == 1], x[:, mask == 1])
    for row in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda one: layer(one[None])[0][0], x[row])
        order = torch.cat([torch.where(mask == 1)[0], torch.where(mask == 0)[0]])
        assert jacobian[order][:, order].triu(1).abs().max() == 0
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[row])


@pytest.mark.parametrize("d", [2, 3])
def test_a_flow_goes_there_and_back_and_counts_the_volume(d: int):
    flow = stirred(RealNVP(d, layers=5, width=16)).double()
    x = torch.randn(6, d, dtype=torch.float64)
    z, log_det = flow(x)
    assert (z - x).abs().max() > 0.1  # it does something
    torch.testing.assert_close(flow.inverse(z), x, atol=1e-10, rtol=1e-10)
    for row in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one[None])[0][0], x[row])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[row])


def test_a_flows_density_integrates_to_1_and_its_samples_follow_it():
    flow = stirred(RealNVP(layers=4, width=16))
    with torch.no_grad():
        wide = torch.linspace(-12, 12, 801)
        grid = torch.cartesian_prod(wide, wide)
        p = flow.log_prob(grid).exp() * (wide[1] - wide[0]) ** 2
        assert p.sum().item() == pytest.approx(1, abs=2e-3)
        x = flow.sample(40_000, seeded())
        mean = (p[:, None] * grid).sum(0)
        assert_moments(x, mean, (p[:, None] * (grid - mean) ** 2).sum(0), bias=0.02)


def test_a_layer_scales_by_a_bounded_factor():
    layer = Coupling(torch.tensor([1.0, 0.0]), 8)
    with torch.no_grad():
        layer.net[-1].bias.fill_(1e6)
    assert layer(torch.zeros(1, 2))[1].item() == pytest.approx(2)


def test_a_flow_starts_as_the_identity():
    x = torch.randn(4, 2)
    z, log_det = RealNVP()(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(4))
    torch.testing.assert_close(flow_loss(RealNVP(), x), -TorchNormal(0, 1).log_prob(x).sum(1).mean())


# Losses ---------------------------------------------------------------------------------------------------------------


def test_gan_losses_are_what_they_say():
    real, fake = torch.randn(50), torch.randn(50)
    value = real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(gan_value(real, fake), value)
    torch.testing.assert_close(saturating(fake), (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(non_saturating(fake), -fake.sigmoid().log().mean())
    sure = torch.tensor([-200.0, 200.0])
    assert gan_value(sure, sure).isfinite()
    assert non_saturating(sure).item() == 100


def test_gradient_penalty_is_the_squared_slope():
    """Of a plane (weights w, times 3) and of a network, by hand; and it can be minimised."""
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    x = torch.randn(5, 2)
    penalty = gradient_penalty(lambda x: 3 * x @ w, x)
    assert penalty.item() == pytest.approx(9 * 25)
    penalty.backward()
    torch.testing.assert_close(w.grad, 18 * w.detach())
    D = points_gan()[1]
    slopes = [torch.autograd.functional.jacobian(lambda one: D(one[None])[0], row) for row in x]
    torch.testing.assert_close(gradient_penalty(D, x), torch.stack(slopes).square().sum(1).mean())


def linear_gaussian(q_mean: float, q_var: float) -> VAE:
    """z ~ N(0, 1), x = 2 z + 0.5 eps; the encoder says N(q_mean x, q_var). p(x) = N(0, 4.25), and the posterior is
    N(2 / 4.25 x, 0.25 / 4.25)."""
    encoder, decoder = nn.Linear(1, 2), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[q_mean], [0.0]]))
        encoder.bias.copy_(torch.tensor([0.0, math.log(q_var)]))
        decoder.weight.fill_(2.0)
    return VAE(encoder, decoder, Normal(0.5), 1)


X = torch.tensor([[0.3], [-2.0], [4.0]])
LOG_P = TorchNormal(0, 4.25**0.5).log_prob(X)[:, 0]


def test_elbo_is_log_p_less_the_divergence_from_the_posterior():
    vae, many = linear_gaussian(0.3, 0.2), 100_000
    gap = kl_divergence(TorchNormal(0.3 * X, 0.2**0.5), TorchNormal(2 / 4.25 * X, (0.25 / 4.25) ** 0.5))[:, 0]
    for k in range(3):
        reconstruction, kl = elbo(vae, X[k].expand(many, 1), seeded())
        assert_average(reconstruction - kl, (LOG_P - gap)[k])
        expected = kl_divergence(TorchNormal(0.3 * X[k], 0.2**0.5), TorchNormal(0.0, 1.0))
        torch.testing.assert_close(kl, expected.expand(many))


def test_elbo_is_tight_at_the_posterior_at_every_draw():
    vae = linear_gaussian(2 / 4.25, 0.25 / 4.25)
    reconstruction, kl = elbo(vae, X.repeat(30_000, 1), seeded())
    assert_average((reconstruction - kl).reshape(-1, 3), LOG_P)
    torch.testing.assert_close(importance_bound(vae, X, 1, seeded(3)), LOG_P)


def test_importance_bound_rises_to_log_p():
    vae, many = linear_gaussian(0.3, 0.2), 4000
    bounds = {k: importance_bound(vae, X.repeat(many, 1), k, seeded()).reshape(-1, 3).mean(0) for k in (1, 5, 50)}
    assert (bounds[1] < bounds[5]).all()
    assert (bounds[5] < bounds[50]).all()
    assert (bounds[50] < LOG_P + 0.02).all()
    assert (LOG_P - bounds[50]).max() < 0.15 * (LOG_P - bounds[1]).max()


def test_vae_loss_weighs_the_divergence_alone():
    vae, x = points_vae(), torch.randn(20, 2)
    reconstruction, kl = elbo(vae, x, seeded())
    torch.testing.assert_close(vae_loss(vae, x, 1.0, seeded()), -(reconstruction - kl).mean())
    torch.testing.assert_close(vae_loss(vae, x, 3.0, seeded()), (3 * kl - reconstruction).mean())


# Scores ---------------------------------------------------------------------------------------------------------------


def test_modes_covered():
    three = Mixture([0.5, 0.25, 0.25], [[0.0, 0], [5, 0], [0, 5]], [0.01, 0.01, 1.0])
    assert modes_covered(three.sample(4000, seeded()), three).covered == 3
    at = [[0.0, 0.29]] * 90 + [[0.0, 0.31]] * 3 + [[5.0, 0.0]] * 3 + [[0.0, 7.9]] * 4  # the deviations are 0.1, 0.1, 1
    covered, quality = modes_covered(torch.tensor(at), three)
    assert (covered, quality) == (3, 0.97)
    assert (
        modes_covered(torch.tensor(at[:93] + at[96:] + [[9.0, 9]] * 3), three).covered == 2
    )  # none lies on the second
    assert modes_covered(torch.tensor(at[:95] + [[9.0, 9]] * 5), three).covered == 1  # 2 of 100: below a tenth of 25


def test_sliced_wasserstein_of_a_shift_and_of_a_scale():
    """A shift by v moves every projection by v u, of mean square |v|^2 / d. In one dimension it is Wasserstein's."""
    x = torch.randn(500, 2, generator=seeded())
    moved = x + torch.tensor([0.6, 0.8])
    assert sliced_wasserstein(x, moved, 5000, seeded()) == pytest.approx(0.5**0.5, rel=0.02)
    assert sliced_wasserstein(x, x[torch.randperm(500)]) == 0
    one, other = torch.randn(50, 1), torch.rand(50, 1)
    found = sliced_wasserstein(one, other, 3)
    pairs = (one.sort(0).values - other.sort(0).values).square().mean().sqrt()
    assert found == pytest.approx(pairs.item())
    assert found >= wasserstein_distance_nd(one.numpy(), other.numpy())  # W2 >= W1, by another's transport
    with pytest.raises(ValueError, match="of one shape"):
        sliced_wasserstein(x, x[:-1])
    with pytest.raises(ValueError, match="NaN or inf"):
        sliced_wasserstein(x, x / 0)


# All four -------------------------------------------------------------------------------------------------------------


def test_families_are_of_one_size():
    sizes = {
        name: sum(p.numel() for learner in make().learners.values() for p in learner.net.parameters())
        for name, make in FAMILIES.items()
    }
    assert max(sizes.values()) < 1.1 * min(sizes.values()), sizes


def test_the_target_scores_as_it_must():
    found = score(TARGET.sample(4000, seeded()), TARGET.log_prob)
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.12**2)  # the modes do not overlap
    assert found["nll"] == pytest.approx(entropy, abs=4 * found["nll_error"])
    assert found["covered"] == 8
    assert found["quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.01)  # within 3 deviations, in the plane
    assert found["distance"] < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns(name: str):
    """600 steps from random weights bring the samples nearer to the target."""
    family = FAMILIES[name]()

    def now() -> dict:
        with torch.no_grad():
            return score(family.sample(1000, seeded()), family.log_prob)

    before = now()
    list(islice(training(family), 600))
    after = now()
    assert after["distance"] < 0.7 * before["distance"]
    assert after["quality"] > before["quality"] + 0.1
    assert ("nll" in after) == (family.log_prob is not None)
    if family.log_prob is not None:
        assert after["nll"] < before["nll"] - 0.3


def test_a_density_is_exact_or_a_bound():
    """On a grid that holds all of it: the flow's integrates to 1, and the VAE's bound lies below its log p(x), which is
    the integral of p(x | z) p(z) over a grid of z."""
    assert FAMILIES["GAN"]().log_prob is None
    wide = torch.linspace(-6, 6, 121)
    grid = torch.cartesian_prod(wide, wide)
    flow, vae = FAMILIES["flow"](), FAMILIES["VAE"]()
    assert not flow.bound
    assert vae.bound
    with torch.no_grad():
        assert flow.log_prob(grid).exp().sum() * 0.1**2 == pytest.approx(1, abs=1e-3)
        net, x = vae.learners["VAE"].ema, TARGET.sample(20, seeded())
        prior = TorchNormal(0, 1).log_prob(grid).sum(1)
        joint = torch.stack([net.likelihood.log_prob(row.expand(len(grid), 2), net.decode(grid)) + prior for row in x])
        exact = joint.logsumexp(1) + math.log(0.1**2)
        assert (vae.log_prob(x) < exact + 0.1).all()
        assert (vae.log_prob(x) > exact - 0.5).all()
