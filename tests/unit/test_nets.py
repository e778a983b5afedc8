"""Networks: shapes, what a mask hides, the norm under autocast, and blocks that start as the identity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from stats import seeded
from torch import Tensor, nn

from ddpm_edu.nets.layers import AttentionBlock, GroupNorm, ResBlock, TimeEmbedding, Tokens, attention, group_norm
from ddpm_edu.nets.mlp import MLP
from ddpm_edu.nets.unet import UNet


def awake(net: nn.Module) -> nn.Module:
    """The net with weights everywhere, those that start at zero included."""
    generator = seeded()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.1 if p.ndim == 1 else p[0].numel() ** -0.5))
    return net.eval()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_torchs(masked: bool):
    q, k, v = randn(2, 3, 5, 8), randn(2, 3, 7, 8, seed=1), randn(2, 3, 7, 8, seed=2)
    mask = torch.rand(2, 1, 1, 7, generator=seeded(3)) < 0.6 if masked else None
    y, weights = attention(q, k, v, mask)
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v, mask))
    assert weights.shape == (2, 3, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    if mask is not None:
        assert (weights[~mask.expand_as(weights)] == 0).all()


@pytest.mark.parametrize("channels", [8, 24, 32, 48])
def test_group_norm_is_torchs(channels: int):
    ours, x = awake(group_norm(channels)), randn(2, channels, 4, 4)
    theirs = nn.GroupNorm(ours.num_groups, channels)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))
    assert channels // ours.num_groups <= 16


def test_group_norm_under_autocast_keeps_the_dtype_and_the_value():
    """bf16 in, bf16 out; within bf16's rounding (2^-8) of float32, statistics of a far-off mean included."""
    norm, x = awake(GroupNorm(2, 32)), randn(2, 32, 8, 8) + 10
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x.bfloat16())
        assert norm(x).dtype == torch.float32
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x.bfloat16().float()), rtol=2**-7, atol=2**-7)


def test_time_embedding_tells_every_t_apart():
    """Before its two layers: sines and cosines from wavelength 2 pi up; 1,000 times, all different."""
    time = TimeEmbedding(32)
    time.mlp = nn.Identity()
    y = time(torch.arange(1, 1001))
    assert y.shape == (1000, 32)
    torch.testing.assert_close(y[:, 0], torch.arange(1, 1001).float().sin())
    torch.testing.assert_close(y[:, :16] ** 2 + y[:, 16:] ** 2, torch.ones(1000, 16))
    assert (torch.cdist(y, y) + 9 * torch.eye(1000)).min() > 0.1


def test_new_blocks_are_the_identity():
    x, emb = randn(2, 32, 4, 4), randn(2, 16, seed=1)
    assert torch.equal(ResBlock(32, 32, 16)(x, emb), x)
    assert torch.equal(AttentionBlock(32)(x), x)
    assert torch.equal(AttentionBlock(32, 8)(x, Tokens(randn(2, 3, 8))), x)
    widening = ResBlock(32, 48, 16)
    assert torch.equal(widening(x, emb), widening.skip(x))
    assert not torch.equal(awake(ResBlock(32, 32, 16))(x, emb), x)


def test_new_networks_answer_zero():
    assert (UNet(1, (16, 32))(randn(2, 1, 8, 8), torch.tensor([1, 2])) == 0).all()
    assert (MLP(2, 32)(randn(2, 2), torch.tensor([1, 2])) == 0).all()


def test_attention_block_is_torchs_multihead_attention():
    """The same weights in nn.MultiheadAttention, over the pixels in rows."""
    block, x = awake(AttentionBlock(16, heads=4)), randn(2, 16, 3, 5)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.q.weight, block.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([block.q.bias, block.kv.bias]))
        theirs.out_proj.load_state_dict(block.out.state_dict())
        pixels = block.norm(x).flatten(2).mT
        y, _ = theirs(pixels, pixels, pixels)
        torch.testing.assert_close(block(x), x + y.mT.reshape(x.shape))


# UNet -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "size", "options"),
    [
        (1, (28, 28), {"widths": (16, 32, 48)}),
        (3, (16, 24), {"widths": (16, 32), "attend": (0, 1)}),
        (4, (16, 16), {"widths": (16,), "blocks": 1}),
        (1, (28, 28), {"widths": (16, 32), "patch": 2, "attend": (1,)}),
    ],
)
def test_unet_returns_the_shape_it_was_given(channels: int, size: tuple[int, int], options: dict):
    net, x = awake(UNet(channels, **options)), randn(2, channels, *size)
    t = torch.tensor([1, 900])
    y = net(x, t)
    assert y.shape == x.shape
    assert y.isfinite().all()
    torch.testing.assert_close(net(x[1:], t[1:]), y[1:], rtol=1e-4, atol=1e-4)  # rows do not see each other
    assert not torch.allclose(net(x, t.flip(0)), y)  # t matters
    y.sum().backward()
    assert all(p.grad is not None for p in net.parameters())  # no part is idle


@pytest.mark.parametrize(("size", "multiple"), [((30, 28), 4), ((28, 29), 4)])
def test_unet_says_which_sizes_it_takes(size: tuple[int, int], multiple: int):
    with pytest.raises(ValueError, match=rf"multiples of {multiple}; got \({size[0]}, {size[1]}\)"):
        UNet(1, (16, 16, 16))(randn(1, 1, *size), torch.tensor([1]))
    assert UNet(1, (16, 16), patch=2).multiple == 4


D = 6


@pytest.fixture(scope="module")
def conditional() -> nn.Module:
    return awake(UNet(1, (16, 32), blocks=1, attend=(1,), d_cond=D))


def test_a_masked_token_has_no_influence(conditional: nn.Module):
    x, t, tokens = randn(2, 1, 8, 8), torch.tensor([3, 7]), randn(2, 4, D)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    y = conditional(x, t, Tokens(tokens, mask))
    other = torch.where(mask[..., None], tokens, torch.full_like(tokens, 99.0))
    assert torch.equal(conditional(x, t, Tokens(other, mask)), y)
    torch.testing.assert_close(conditional(x[:1], t[:1], Tokens(tokens[:1, [0, 1, 3]])), y[:1], rtol=1e-4, atol=1e-4)
    for changed in (Tokens(tokens + mask[..., None], mask), Tokens(tokens), Tokens(tokens, ~mask)):
        assert not torch.allclose(conditional(x, t, changed), y)


def test_one_null_token_serves_a_batch(conditional: nn.Module):
    x, t, null = randn(3, 1, 8, 8), torch.tensor([3, 7, 9]), randn(1, 1, D)
    y = conditional(x, t, Tokens(null.expand(3, 1, D)))
    torch.testing.assert_close(conditional(x, t, Tokens(null)), y)
    torch.testing.assert_close(conditional(x, t, Tokens(null, torch.tensor([[True]]))), y)


def test_condition_and_network_must_fit(conditional: nn.Module):
    with pytest.raises(ValueError, match="needs a condition: Tokens of width 6"):
        conditional(randn(1, 1, 8, 8), torch.tensor([1]))
    with pytest.raises(ValueError, match="built without a condition"):
        UNet(1, (16,))(randn(1, 1, 8, 8), torch.tensor([1]), Tokens(randn(1, 1, D)))


# MLP ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_mlp(d: int):
    net, x, t = awake(MLP(d, 32)), randn(4, d), torch.tensor([1, 2, 500, 1000])
    y = net(x, t)
    assert y.shape == x.shape
    torch.testing.assert_close(net(x[2:], t[2:]), y[2:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(x, t.flip(0)), y)
    y.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
