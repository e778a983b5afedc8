"""What is told what to make: the network of classes, what attention looks at, what is kept, the recipe of digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stats import seeded
from torch import Tensor, nn

from ddpm_edu import checkpoint, data, pretrained
from ddpm_edu.denoiser import Denoise, Denoiser, ExactDenoiser, guided, inpainted
from ddpm_edu.nets import layers
from ddpm_edu.nets.layers import AttentionBlock, Tokens
from ddpm_edu.nets.unet import ClassUNet, UNet, watched
from ddpm_edu.process import Process
from ddpm_edu.recipes import Digits, digits_class
from ddpm_edu.recipes.digits_class import DigitsClass
from ddpm_edu.samplers import State, ancestral, beta, ddim, dpmpp_2m, heun


def awake(net: nn.Module) -> nn.Module:
    """The net with weights everywhere, those that start at zero included: new blocks ignore their condition."""
    generator = seeded()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.1 if p.ndim == 1 else p[0].numel() ** -0.5))
    return net.eval()


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def last(states: Iterator[State]) -> Tensor:
    *_, state = states
    return state.x_t


# The network of classes -----------------------------------------------------------------------------------------------


@pytest.fixture
def of_classes() -> ClassUNet:
    net = awake(ClassUNet(3, 1, (16, 16), 1, (1,), 8, patch=2))
    assert isinstance(net, ClassUNet)
    nn.init.normal_(net.tokens.weight, generator=seeded(1))
    return net


@torch.no_grad()
def test_every_class_and_null_have_a_vector_of_their_own(of_classes: ClassUNet):
    x, t, every = randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.full((4,), 5), torch.arange(4)
    assert of_classes.null == 3
    assert of_classes.tokens.weight.shape == (4, 8)
    before = of_classes(x, t, every)
    assert (before[:, None] - before[None]).abs().amax((2, 3, 4)).add(torch.eye(4)).min() > 1e-3  # all differ
    of_classes.tokens.weight[of_classes.null] += 1
    after = of_classes(x, t, every)
    assert torch.equal(after[:3], before[:3])
    assert not torch.allclose(after[3], before[3])
    with pytest.raises(IndexError):
        of_classes(x, t, every + 1)


@torch.no_grad()
@pytest.mark.parametrize("b", [1, 2, 5])
def test_one_class_serves_a_whole_batch(of_classes: ClassUNet, b: int):
    x, t = randn(b, 1, 8, 8), torch.arange(1, b + 1)
    for k in range(4):
        one = of_classes(x, t, torch.tensor([k]))
        assert one.shape == x.shape
        torch.testing.assert_close(one, of_classes(x, t, torch.full((b,), k)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_to_one_token_adds_the_same_everywhere_and_to_more_does_not():
    """Weights over one token are 1 whatever the pixel asks for: what is added depends on the token alone."""
    block = awake(AttentionBlock(16, 8))
    x, tokens = randn(2, 16, 4, 4), randn(1, 2, 8, seed=1)
    added = block(x, Tokens(tokens[:, :1])) - x
    assert (added - added[:1, :, :1, :1]).abs().max() < 1e-5
    assert added.abs().max() > 1e-2
    expected = block.out(block.kv(tokens[0, 0])[16:])
    torch.testing.assert_close(added[0, :, 0, 0], expected, rtol=1e-4, atol=1e-5)
    other = block(x, Tokens(tokens)) - x
    assert (other - other[:1, :, :1, :1]).abs().max() > 1e-3


# What attention looks at ----------------------------------------------------------------------------------------------

MASK = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])


@pytest.fixture(scope="module")
def reader() -> nn.Module:
    """Attends at two levels: 8 x 8 and 4 x 4."""
    return awake(UNet(1, (16, 32), 1, (0, 1), d_cond=6))


def asked(seed: int = 0) -> tuple[Tensor, Tensor, Tokens]:
    return randn(2, 1, 8, 8, seed=seed), torch.tensor([3, 7]), Tokens(randn(2, 5, 6, seed=seed + 1), MASK)


@torch.no_grad()
def test_watched_gives_the_weights_that_the_network_used(reader: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """In the order of its stages, call after call; self-attention is not among them."""
    used: list[Tensor] = []

    def recording(*given: Tensor) -> tuple[Tensor, Tensor]:
        y, weights = real(*given)
        used.append(weights)
        return y, weights

    real = layers.attention
    with monkeypatch.context() as patch:
        patch.setattr(layers, "attention", recording)
        for seed in (0, 1):
            reader(*asked(seed))
    expected = [weights for weights in used if weights.shape[-1] == 5]  # of 64 or 16 pixels, else
    with watched(reader) as maps:
        for seed in (0, 1):
            reader(*asked(seed))
    # down, middle twice, up: at 8, 4, 4, 4, 4 and 8 pixels
    assert [tuple(one.shape) for one in maps] == 2 * [(2, 4, side, side, 5) for side in (8, 4, 4, 4, 4, 8)]
    for found, weights in zip(maps, expected, strict=True):
        torch.testing.assert_close(found.flatten(2, 3), weights)


@torch.no_grad()
def test_watched_weights_sum_to_1_over_the_tokens_that_count(reader: nn.Module):
    with watched(reader) as maps:
        reader(*asked())
    for one in maps:
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))
        hidden = ~MASK[:, None, None, None].expand_as(one)
        assert (one[hidden] == 0).all()
        assert (one[~hidden] > 0).all()
        assert one[0].std() > 1e-3  # three tokens count: not all alike


@torch.no_grad()
def test_watching_changes_no_answer_and_leaves_nothing_behind(reader: nn.Module):
    plain = reader(*asked())
    with watched(reader) as maps:
        assert torch.equal(reader(*asked()), plain)
        assert len(maps) == 6
    reader(*asked())
    assert len(maps) == 6
    with pytest.raises(RuntimeError, match="stop"), watched(reader) as maps:
        raise RuntimeError("stop")
    reader(*asked())
    assert maps == []
    assert not any(part._forward_pre_hooks for part in reader.modules())


def test_watched_keeps_no_graph_and_training_goes_on(reader: nn.Module):
    net = awake(ClassUNet(3, 1, (16, 16), 1, (1,), 8))
    with watched(net) as maps:
        net(randn(2, 1, 8, 8), torch.tensor([1, 2]), torch.tensor([0, 3])).square().mean().backward()
    assert not any(one.requires_grad for one in maps)
    assert all(p.grad is not None for p in net.parameters())
    for one in maps:  # a class is one token
        assert torch.equal(one, torch.ones(2, 4, 4, 4, 1))


@torch.no_grad()
def test_a_network_without_a_condition_has_nothing_to_watch():
    with watched(UNet(1, (16, 16), 1, (1,))) as maps:
        UNet(1, (16, 16), 1, (1,))(randn(1, 1, 8, 8), torch.tensor([1]))
    assert maps == []


# What is known stays --------------------------------------------------------------------------------------------------

PROCESS = Process.linear(50, 0.002, 0.4)  # as noisy at the end as 1,000 steps of the usual ones
SAMPLERS: dict[str, Callable[..., Iterator[State]]] = {
    "ancestral": lambda *given: ancestral(*given, generator=seeded(8)),
    "ancestral-beta": lambda *given: ancestral(*given, sigma2=beta, generator=seeded(8)),
    "ddim": ddim,
    "ddim-eta": lambda *given: ddim(*given, eta=1.0, generator=seeded(8)),
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
}


def four() -> ExactDenoiser:
    """Four small clouds at the corners of a square."""
    return ExactDenoiser(PROCESS, [1, 1, 1, 1], [[-2, -2], [-2, 2], [2, -2], [2, 2]], 0.04)


def two() -> ExactDenoiser:
    """Two small clouds, where the first coordinate tells the second."""
    return ExactDenoiser(PROCESS, [1, 1], [[-2, 2], [2, -2]], 0.04)


def test_inpainted_takes_what_is_known_and_leaves_the_rest():
    x_0, x_t, t = randn(6, 2), randn(6, 2, seed=1), torch.tensor([1, 2, 10, 30, 49, 50])
    known = torch.tensor([True, False])
    free, kept = four()(x_t, t), inpainted(four(), x_0, known)(x_t, t)
    assert torch.equal(kept.x_0[:, 0], x_0[:, 0])
    assert torch.equal(kept.x_0[:, 1], free.x_0[:, 1])
    torch.testing.assert_close(kept.eps[:, 1], free.eps[:, 1], rtol=1e-3, atol=1e-3)
    a, b = PROCESS.at(t, x_t)
    torch.testing.assert_close(a * kept.x_0 + b * kept.eps, x_t, rtol=1e-5, atol=1e-5)
    assert inpainted(four(), x_0, known).process is PROCESS
    nothing = inpainted(four(), x_0, torch.tensor(False))(x_t, t)
    torch.testing.assert_close(nothing, free, rtol=1e-3, atol=1e-3)


def test_inpainted_hands_the_condition_on():
    given: list[Any] = []

    class Asked(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            given.append(cond)
            return x_t

    denoise = Denoiser(PROCESS, Asked(), digits_class.v)
    inpainted(denoise, randn(1, 1), torch.tensor([True]))(randn(1, 1), 3, "a rose")
    assert given == ["a rose"]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("known", [[[True, False]], [[False, False]], [[True, True]]], ids=["first", "none", "all"])
def test_what_is_known_comes_out_of_every_sampler(name: str, known: list[list[bool]]):
    x_0, mask = 3 * randn(40, 2, seed=5), torch.tensor(known)
    made = last(SAMPLERS[name](inpainted(four(), x_0, mask), randn(40, 2), PROCESS.timesteps(25)))
    kept = mask.expand_as(made)
    torch.testing.assert_close(made[kept], x_0[kept], rtol=0, atol=1e-4)
    free = made[~kept]  # on the clouds, whatever is kept
    assert ((free.abs() - 2).abs() < 5 * 0.2).all()
    if len(free):
        assert 0.2 < (free > 0).double().mean() < 0.8  # and not on one alone


FRESH = {"ancestral", "ancestral-beta", "ddim-eta"}  # these draw noise on their way


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_made_fits_what_is_known_more_often_than_by_chance(name: str):
    """Where the first coordinate is 2 the second is -2, and the other way round. Not always: at a noisy t the known
    part says little, and where the noise is drawn once for all, it misleads all the way."""
    x_0 = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).repeat(500, 1)
    kept = inpainted(two(), x_0, torch.tensor([True, False]))

    def right(denoise: Denoise) -> float:
        made = last(SAMPLERS[name](denoise, randn(1000, 2), PROCESS.timesteps(25)))
        return ((made[:, 1] + x_0[:, 0]).abs() < 5 * 0.2).double().mean().item()

    assert right(kept) > (0.9 if name in FRESH else 0.75)
    assert 0.4 < right(two()) < 0.6


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_made_leans_towards_the_conditional_and_is_not_it(name: str):
    """Standard normals of correlation 0.8, the first known to be 1.5: the second's mean is 1.2. What comes out lies
    between 0 and that: nearer with fresh noise at every step, and short of it by more than 0.3 even so."""
    rho = 0.8
    denoise = ExactDenoiser(PROCESS, [1.0], [[0.0, 0.0]], torch.tensor([[[1.0, rho], [rho, 1.0]]]))
    x_0 = torch.tensor([[1.5, 0.0]]).expand(4000, -1)
    made = last(
        SAMPLERS[name](inpainted(denoise, x_0, torch.tensor([True, False])), randn(4000, 2), PROCESS.timesteps(50))
    )[:, 1]
    error = made.std().item() / 4000**0.5
    low, high = (0.6, 0.9) if name in FRESH else (0.4, 0.6)
    assert low + 5 * error < made.mean() < high - 5 * error


def test_the_known_part_of_a_state_is_the_truth_under_one_noise():
    """DDIM keeps the noise that x_T implies: every state is x_0 as noisy as its t says."""
    x_0 = randn(20, 2, seed=5)
    states = list(ddim(inpainted(four(), x_0, torch.tensor([True, False])), randn(20, 2), PROCESS.timesteps(10)))
    a, b = PROCESS.a.float(), PROCESS.b.float()
    eps = (states[0].x_t - a[50] * x_0) / b[50]
    for state in states:
        expected = a[state.t] * x_0 + b[state.t] * eps
        torch.testing.assert_close(state.x_t[:, 0], expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_region_serves_the_batch_and_its_channels():
    """known (h, w) for pictures (b, c, h, w)."""
    denoise = Denoiser(PROCESS, awake(UNet(2, (16,), 1)).requires_grad_(False), digits_class.v)
    x_0, known = randn(3, 2, 4, 4, seed=2).clamp(-1, 1), torch.rand(4, 4, generator=seeded(3)) < 0.5
    made = last(ddim(inpainted(denoise, x_0, known), randn(3, 2, 4, 4), PROCESS.timesteps(8)))
    torch.testing.assert_close(made[..., known], x_0[..., known], rtol=0, atol=1e-4)
    assert (made[..., ~known] - x_0[..., ~known]).abs().max() > 0.1


# From a picture instead of from noise ---------------------------------------------------------------------------------


def changed(start: int, x_0: Tensor, denoise: Denoise) -> Tensor:
    """x_0 made as noisy as `start` says, and back."""
    x_t = PROCESS.marginal(x_0, start).sample(seeded(7))
    return last(ddim(denoise, x_t, [t for t in PROCESS.timesteps(50) if t <= start]))


def test_a_chain_may_start_at_a_noisy_picture():
    """Far below T it comes back to the cloud it started from; at T it forgets which."""
    x_0 = torch.tensor([[-2.0, 2.0], [2.0, -2.0]]).repeat(200, 1)
    same = [(changed(t, x_0, two()) * x_0 > 0).all(1).double().mean().item() for t in (5, 20, 50)]
    assert same[0] == 1
    assert 0.6 < same[1] < 1
    assert 0.4 < same[2] < 0.6


@pytest.mark.parametrize("start", [5, 25, 50])
def test_data_made_noisy_and_back_is_data(start: int):
    """Deviation 0.5 about 1 before and after: what differs from the start is the sample, not its law."""
    denoise = ExactDenoiser(PROCESS, [1.0], [[1.0]], 0.25)
    x_0 = denoise.sample(4000, seeded(3))
    made = changed(start, x_0, denoise)
    assert made.mean().item() == pytest.approx(1, abs=5 * 0.5 / 4000**0.5 + 0.01)
    assert made.std().item() == pytest.approx(0.5, rel=0.1)
    assert (made - x_0).abs().mean() > 0.01


# The recipe of digits -------------------------------------------------------------------------------------------------

SMALL = DigitsClass(T=50, widths=(16, 16), d_cond=8, batch=8, steps=4)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few digits of each split."""

    def digits(split: str) -> tuple[Tensor, Tensor]:
        images, labels = data.digits(split)
        return images[:40], labels[:40]

    monkeypatch.setattr(digits_class, "digits", digits)


def trained(recipe: DigitsClass, path: Path | None = None, until: int | None = None) -> Denoiser:
    learners = recipe.learners()
    steps = recipe.train(learners, path, progress=False)
    for step in steps:
        assert step.losses["denoise"] < 10
        if step.step == until:
            steps.close()
    return learners["denoise"].net


def test_digits_are_read_as_labels_and_nothing_as_null():
    assert torch.equal(SMALL.read(["7", "", "0", "9"]), torch.tensor([7, 10, 0, 9]))
    assert SMALL.read(["3"]).dtype == torch.int64
    assert torch.equal(SMALL.read(SMALL.examples), torch.arange(10))
    assert SMALL.model().net.null == 10


@pytest.mark.parametrize("word", ["10", "seven", " 7", "-1", "7.0", "٧", "12"])
def test_other_words_are_named(word: str):
    with pytest.raises(ValueError, match="single digits, 0 to 9") as error:
        SMALL.read(["7", word])
    assert repr(word) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("few")
def test_resumes_exactly(tmp_path: Path):
    whole = trained(SMALL)
    trained(SMALL, tmp_path / "c.safetensors", until=2)
    assert checkpoint.load(tmp_path / "c.safetensors")["step"] == 2
    again = trained(SMALL, tmp_path / "c.safetensors")
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(("drop", "low", "high"), [(0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 1, 1)])
@pytest.mark.usefixtures("few")
def test_labels_are_dropped_as_often_as_told(monkeypatch, drop: float, low: float, high: float):
    """And what is not dropped is the picture's own label."""
    said: list[Tensor] = []
    shown: list[Tensor] = []
    loss = digits_class.diffusion_loss

    def looking(denoise: Denoiser, x_0: Tensor, cond: Tensor, generator: torch.Generator) -> Tensor:
        shown.append(x_0)
        said.append(cond)
        return loss(denoise, x_0, cond, generator)

    monkeypatch.setattr(digits_class, "diffusion_loss", looking)
    trained(replace(SMALL, batch=40, steps=3, drop=drop))
    cond, null = torch.cat(said), SMALL.read([""])
    assert len(cond) == 120
    assert low <= (cond == null).double().mean() <= high
    images, labels = digits_class.digits("train")
    distance = torch.cdist(torch.cat(shown).flatten(1), SMALL.codec.encode(images).flatten(1))
    assert ((cond == null) | (cond == labels[distance.argmin(1)])).all()


def test_it_learns_which_picture_belongs_to_which_class():
    """Two classes, two plain pictures, and x_T, which says nothing: the prediction can follow the class alone."""
    recipe = replace(SMALL, steps=60)
    learner = recipe.learners()["denoise"]
    x_0 = torch.stack([torch.full((1, 28, 28), value) for value in (-1.0, 1.0)])
    process, generator, t = learner.net.process, seeded(), torch.full((2,), 50)
    for _ in range(60):
        x_t = torch.randn(x_0.shape, generator=generator)
        learner.step((learner.net.net(x_t, t, recipe.read(["3", "8"])) + x_0).square().mean())  # v at a = 0 is -x_0
    assert process.a[50] < 1
    x_t = torch.randn(1, 1, 28, 28, generator=seeded(1)).expand(2, -1, -1, -1)
    with torch.no_grad():
        low, high = -learner.net.net(x_t, t, recipe.read(["3", "8"])).mean((1, 2, 3))
    assert low < -0.5
    assert high > 0.5


@pytest.fixture(scope="module")
def model() -> Denoiser:
    """Every weight at random: fresh, the class would not matter."""
    fresh = SMALL.model()
    awake(fresh.net)
    nn.init.normal_(fresh.net.tokens.weight, generator=seeded(1))
    return fresh.requires_grad_(False).eval()


def test_guidance_of_one_is_plain_sampling_and_of_none_ignores_the_class(model: Denoiser):
    noise, texts = randn(2, 1, 28, 28), ["3", "8"]
    times = model.process.timesteps(5)

    def made(**options: Any) -> Tensor:
        *_, x = SMALL.states(model, noise, 5, texts, **options)
        return x

    plain = last(ddim(model, noise, times, torch.tensor([3, 8])))
    empty = last(ddim(model, noise, times, torch.tensor([10])))
    torch.testing.assert_close(made(w=1), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made(w=0), empty, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made(), plain, atol=1e-4, rtol=1e-4)  # off unless told
    strong = last(ddim(guided(model, torch.tensor([10]), 3.0), noise, times, torch.tensor([3, 8])))
    torch.testing.assert_close(made(w=3), strong, atol=1e-4, rtol=1e-4)
    assert (strong - plain).abs().max() > 1e-2
    assert (plain - empty).abs().max() > 1e-2


def test_each_picture_needs_a_text(model: Denoiser):
    for texts in (["3"], ["3", "8", "1"], []):
        with pytest.raises(ValueError, match=rf"Each picture needs a text: got 2 pictures and {len(texts)}"):
            SMALL.states(model, randn(2, 1, 28, 28), 2, texts)


def test_sample_takes_texts_in_turn(model: Denoiser):
    """One picture for each noise; fewer texts start again, and without any the ten digits are asked for."""
    three = pretrained.sample(SMALL, model, 3, 2, texts=["4", "2"])
    assert three.shape == (3, 28, 28)
    assert three.dtype == torch.uint8
    assert torch.equal(pretrained.sample(SMALL, model, 3, 2, texts=["4", "2", "4"]), three)
    assert not torch.equal(pretrained.sample(SMALL, model, 3, 2, texts=["4"]), three)
    assert torch.equal(
        pretrained.sample(SMALL, model, 3, 2), pretrained.sample(SMALL, model, 3, 2, texts=["0", "1", "2"])
    )
    assert not torch.equal(pretrained.sample(SMALL, model, 3, 2, texts=["4", "2"], w=4), three)
    for options in ({"texts": ["4"]}, {"w": 2.0}):
        with pytest.raises(ValueError, match="digits cannot be told what to make"):
            pretrained.sample(Digits(), None, 1, **options)


@pytest.mark.usefixtures("few")
def test_quality_gives_both_losses_on_the_same_draws(model: Denoiser):
    quality = SMALL.quality(model)
    torch.manual_seed(5)
    assert SMALL.quality(model) == quality
    assert quality.keys() == {"test_loss", "without_label", "deviation_test_loss", "deviation_without_label", "n"}
    assert quality["test_loss"] != quality["without_label"]
    alike = SMALL.model()
    alike.load_state_dict(model.state_dict())
    alike.net.tokens.weight.data[:] = model.net.tokens.weight[10]
    quality = SMALL.quality(alike)
    assert quality["test_loss"] == quality["without_label"]
    assert quality["deviation_test_loss"] == quality["deviation_without_label"]
