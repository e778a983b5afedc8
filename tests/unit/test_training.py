"""The loop: exact resume (SIGKILL included), EMA, clipping, two learners, and what it says when something is wrong."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stats import seeded
from torch import Tensor, nn

from ddpm_edu import checkpoint, data, denoiser, pretrained, training
from ddpm_edu.denoiser import Denoiser
from ddpm_edu.nets.mlp import MLP
from ddpm_edu.nets.unet import UNet
from ddpm_edu.objectives import diffusion_errors, diffusion_loss, vae_loss
from ddpm_edu.process import Process, randn_like
from ddpm_edu.recipes import Digits, DigitsVAE
from ddpm_edu.samplers import ddim
from ddpm_edu.training import Learner, Step, precision, train

X = torch.randn(64, 1, 8, 8, generator=seeded())


def unet_learner() -> Learner:
    """A small network with everything in it that has a memory layout of its own, and a moving learning rate."""
    torch.manual_seed(0)
    net = UNet(1, (8, 16), 1, attend=(1,))
    return Learner(Denoiser(Process.linear(50), net, denoiser.v), lr=1e-2, schedule=training.cosine(20, warmup=4))


def run(
    learner: Learner, steps: int, path: Path | None = None, x: Tensor = X, size: int = 8, **options
) -> Iterator[Step]:
    def update(batch: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        yield "denoise", diffusion_loss(learner.net, batch, generator=generator)

    return train(update, data.minibatches(x, size), steps, {"denoise": learner}, path=path, progress=False, **options)


def finish(states: Iterator[Step]) -> list[Step]:
    return list(states)


def assert_same_state(one: Learner, other: Learner) -> None:
    """Bit for bit: network, EMA, moments of the optimizer, steps."""
    assert one.steps == other.steps
    for part in ("net", "ema"):
        for key, value in one.state_dict()[part].items():
            assert torch.equal(value, other.state_dict()[part][key]), (part, key)
    for p, q in zip(one.net.parameters(), other.net.parameters(), strict=True):
        for key, value in one.optimizer.state[p].items():
            assert torch.equal(value, other.optimizer.state[q][key]), key


# Resume ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted() -> Learner:
    learner = unet_learner()
    finish(run(learner, 20))
    return learner


@pytest.mark.parametrize("stops", [[1], [19], [7, 8, 15]], ids=str)
def test_leaving_and_resuming_changes_nothing(tmp_path: Path, uninterrupted: Learner, stops: list[int]):
    """A loop left at a yield keeps its state, however often: a new process would find just this file."""
    path = tmp_path / "run.safetensors"
    for stop in stops:
        loop = run(unet_learner(), 20, path)
        for step, _ in loop:
            if step == stop:
                break
        loop.close()
    learner = unet_learner()
    steps = finish(run(learner, 20, path))
    assert [step.step for step in steps] == list(range(stops[-1] + 1, 21))
    assert_same_state(learner, uninterrupted)


def test_the_end_is_saved_and_does_not_train_again(tmp_path: Path, uninterrupted: Learner):
    path = tmp_path / "run.safetensors"
    finish(run(unet_learner(), 20, path))
    learner = unet_learner()
    assert finish(run(learner, 20, path)) == []
    assert_same_state(learner, uninterrupted)


def test_checkpoints_are_written_while_the_loop_runs(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    loop = run(unet_learner(), 20, path, every=0)
    next(loop)
    first = path.read_bytes()
    next(loop)
    assert path.read_bytes() != first


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = {folders!r}
from test_training import run, unet_learner

for step, losses in run(unet_learner(), 20, Path(sys.argv[1]), every=0):
    print(step, flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_any_step_and_resume(tmp_path: Path, uninterrupted: Learner):
    """A process of its own, killed four times at random moments, as like as not in a write: it writes at every step."""
    path, pick = tmp_path / "run.safetensors", random.Random(0)
    command = [sys.executable, "-c", SCRIPT.format(folders=[*map(str, Path(__file__).parents[:2])]), str(path)]
    reached = 0
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in itertools.islice(process.stdout, pick.randint(1, 4)):
                reached = int(line)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(pick.random() * 0.03)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert reached < 20
    learner = unet_learner()
    steps = finish(run(learner, 20, path))
    assert steps[0].step >= reached  # at most the step that was under way is lost
    assert_same_state(learner, uninterrupted)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: run(unet_learner(), 20, path, config={"lr": 2}), r"another lr: resume it with the same"),
        (lambda path: run(Learner(MLP()), 20, path, config={"lr": 1}),
         r"run\.safetensors holds another network: \S+ is .* there and .* here"),
        (lambda path: train(lambda batch, generator: [], lambda generator: None, 20, {"other": unet_learner()},
                            path=path, config={"lr": 1}, progress=False),
         r"holds \['denoise'\], and this training needs \['other'\]"),
    ],
    ids=["config", "network", "learners"],
)  # fmt: skip
def test_a_checkpoint_of_another_training(tmp_path: Path, change, sentence: str):
    path = tmp_path / "run.safetensors"
    finish(run(unet_learner(), 1, path, config={"lr": 1}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=sentence) as error:
        next(change(path))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_shipped_weights_are_no_checkpoint_to_resume(tmp_path: Path):
    checkpoint.save(tmp_path / "x", {"config": {"lr": 1}, "weights": {}})
    with pytest.raises(ValueError, match=r"holds \[\], and this training needs \['denoise'\]"):
        next(run(unet_learner(), 20, tmp_path / "x", config={"lr": 1}))


def test_a_truncated_checkpoint(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    finish(run(unet_learner(), 1, path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        next(run(unet_learner(), 20, path))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_data_stops_the_training_and_spares_the_checkpoint(tmp_path: Path, bad: float):
    path, learner = tmp_path / "run.safetensors", unet_learner()
    finish(run(learner, 2, path))
    before, weights = path.read_bytes(), copy.deepcopy(learner.net.state_dict())
    with pytest.raises(
        ValueError, match=r"The loss of 'denoise' is (nan|inf) at step 3: look for NaN or huge values"
    ) as error:
        finish(run(learner, 20, path, x=torch.full_like(X, bad)))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    for key, value in weights.items():
        assert torch.equal(learner.net.state_dict()[key], value)


def test_a_gpu_is_asked_seldom_and_what_is_not_finite_is_never_saved(tmp_path: Path):
    """The losses told are those of the last look; data that go bad between two looks are found at the next, or at a
    save."""
    path, plain = tmp_path / "run.safetensors", [step.losses for step in finish(run(unet_learner(), 12))]
    steps = finish(run(unet_learner(), 12, ask=5))
    looks = [1, 5, 10, 12]
    assert [step.losses for step in steps] == [plain[max(n for n in looks if n <= step.step) - 1] for step in steps]

    loop = run(unet_learner(), 20, path, x=torch.full_like(X, math.nan), ask=5)
    with pytest.raises(ValueError, match="The loss of 'denoise' is nan at step 1:"):
        finish(loop)
    learner = unet_learner()
    loop = run(learner, 20, path, ask=5)
    next(loop)
    loop.close()
    before = path.read_bytes()
    loop = run(learner, 20, path, ask=5)
    next(loop)
    with torch.no_grad():
        next(learner.net.parameters()).fill_(math.nan)
    assert math.isfinite(next(loop).losses["denoise"])
    with pytest.raises(ValueError, match="The weights are not finite after step 3: look for NaN"):
        loop.close()
    assert path.read_bytes() == before


# One step -------------------------------------------------------------------------------------------------------------


class Scale(nn.Module):
    """One weight and one buffer, that counts calls."""

    def __init__(self, w: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w]))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self) -> Tensor:
        self.calls += 1
        return self.w.sum()


def test_the_ema_is_complete_when_the_step_is_yielded():
    """Recomputed by hand from the weights seen at each yield; buffers are copied."""
    learner = Learner(Scale(), lr=0.1, decay=0.5)
    expected = 1.0
    loop = train(lambda b, g: [("s", learner.net())], lambda g: None, 12, {"s": learner}, progress=False)
    for step, _ in loop:
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(learner.net.w.detach())
        assert float(learner.ema.w) == pytest.approx(expected, rel=1e-5)
        assert learner.ema.calls == learner.net.calls == step
    assert not learner.ema.w.requires_grad
    assert not learner.ema.training
    assert learner.net.training


@pytest.mark.parametrize(("scale", "norm"), [(1e4, 0.5), (0.1, 0.1)], ids=["large", "small"])
def test_gradients_are_clipped_to_a_norm(scale: float, norm: float):
    """A large gradient is cut to norm 0.5, a small one left alone."""
    learner = Learner(Scale(), clip=0.5)
    learner.step(scale * learner.net())
    assert float(learner.net.w.grad) == pytest.approx(norm, rel=1e-3)


def test_gradients_do_not_add_up_from_step_to_step():
    learner = Learner(Scale(), clip=100.0)
    for _ in range(3):
        learner.step(2 * learner.net())
    assert float(learner.net.w.grad) == pytest.approx(2)


def test_learning_rate_schedule():
    factor = training.cosine(1000, warmup=100)
    assert factor(0) == pytest.approx(0.01)
    assert factor(99) == factor(100) == pytest.approx(1)
    assert factor(550) == pytest.approx(0.5)
    assert factor(1000) == factor(2000) == pytest.approx(0)
    learner = Learner(Scale(), lr=0.2, schedule=lambda step: 0.5**step)
    for step in range(3):
        learner.step(learner.net())
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * 0.5**step)


def test_two_learners_each_steps_before_the_next_is_asked(tmp_path: Path):
    """As in a GAN: the generator's loss is computed by the critic just trained, and moves the generator alone."""

    def learners() -> dict[str, Learner]:
        return {"critic": Learner(Scale(1.0), lr=0.1), "generator": Learner(Scale(3.0), lr=0.1)}

    seen: list[tuple[float, float]] = []

    def update_of(two: dict[str, Learner]):
        critic, generator = two["critic"].net, two["generator"].net

        def update(z: Tensor, _: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            before = float(critic.w.detach())
            yield "critic", critic() * generator().detach() * z
            fixed = float(critic.w.detach())
            seen.append((before, fixed))
            yield "generator", critic() * generator() * z
            assert float(critic.w.detach()) == fixed

        return update

    def batches(generator: torch.Generator) -> Tensor:
        return torch.rand((), generator=generator) + 0.5

    whole = learners()
    steps = finish(train(update_of(whole), batches, 6, whole, progress=False))
    assert all(set(step.losses) == {"critic", "generator"} for step in steps)
    assert all(before != after for before, after in seen)
    assert whole["critic"].steps == whole["generator"].steps == 6

    path = tmp_path / "gan.safetensors"
    first = learners()
    finish(train(update_of(first), batches, 3, first, path=path, progress=False))
    second = learners()
    finish(train(update_of(second), batches, 6, second, path=path, progress=False))
    for name in whole:
        assert_same_state(whole[name], second[name])


def test_the_seed_decides_everything():
    final = []
    for seed in (0, 0, 1):
        learner = unet_learner()
        finish(run(learner, 3, seed=seed))
        final.append(learner.net.net.enter[0].weight.detach())
    assert torch.equal(final[0], final[1])
    assert not torch.equal(final[0], final[2])


# Precision ------------------------------------------------------------------------------------------------------------


def test_precision_says_what_and_why():
    here = precision()
    assert here.name in {"bf16", "fp32"}
    assert here.device == "cpu"
    assert here.why
    assert precision("meta").name == "fp32"


@pytest.mark.parametrize(
    ("hardware", "net", "dtype"),
    [
        (True, nn.Linear(256, 256), torch.bfloat16),
        (True, nn.Conv2d(4, 4, 1), torch.bfloat16),
        (True, nn.Linear(4, 4), torch.float32),
        (False, nn.Linear(256, 256), torch.float32),
    ],
)
def test_losses_are_computed_in_it(monkeypatch: pytest.MonkeyPatch, hardware: bool, net: nn.Module, dtype: torch.dtype):
    """bf16 where the CPU has it and the network is large enough to gain by it; the weights and the loss that is stepped
    on stay float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: hardware)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    learner, seen = Learner(net), []
    shape = (8, 4, 2, 2) if net.weight.ndim == 4 else (8, net.weight.shape[1])

    def update(x: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for _ in range(2):  # the second loss of an update too
            y = learner.net(x)
            seen.append(y.dtype)
            yield "l", y.float().square().mean()

    next(train(update, data.minibatches(torch.randn(shape), 4), 1, {"l": learner}, progress=False))
    assert seen == [dtype, dtype]
    assert learner.net.weight.dtype == torch.float32


# It learns ------------------------------------------------------------------------------------------------------------


def sliced_distance(x: Tensor, y: Tensor) -> float:
    """Mean Wasserstein-1 distance of the projections on 32 directions. x, y: (n, 2)."""
    angle = torch.arange(32) * torch.pi / 32
    directions = torch.stack([angle.cos(), angle.sin()])
    return float(((x @ directions).sort(0)[0] - (y @ directions).sort(0)[0]).abs().mean())


@pytest.mark.slow
def test_a_fresh_network_learns_the_moons():
    """1,200 steps, then DDIM with the EMA. In sliced distance noise is 0.27 from the moons, and two draws of 1,000
    points of the moons are about 0.025 from each other."""
    torch.manual_seed(0)
    learner = Learner(Denoiser(Process.cosine(100), MLP(2, 128), denoiser.v), lr=2e-3, decay=0.99)
    finish(run(learner, 1200, x=data.toy("moons", 20_000, seeded()), size=256))
    *_, last = ddim(learner.ema, torch.randn(1000, 2, generator=seeded(1)), Process.cosine(100).timesteps(50))
    moons, noise = data.toy("moons", 1000, seeded(2)), torch.randn(1000, 2, generator=seeded(3))
    assert sliced_distance(last.x_t, moons) < 0.07 < 0.2 < sliced_distance(noise, moons)


@pytest.mark.slow
def test_the_shipped_digits_go_on_training():
    """The recipe's own `train` call from the shipped weights: the loss of what one samples with (the EMA), on test
    digits, with the same t and noise, does not rise by more than 1 %. AdamW starts without its moments here.
    """
    recipe = replace(Digits(), lr=5e-5, batch=32, seed=1)
    learner = Learner(pretrained.load("digits").requires_grad_(True).train(), recipe.lr)
    x_0 = recipe.codec.encode(data.digits("test")[0][:300])
    t, eps = torch.randint(1, recipe.T + 1, (300,), generator=seeded()), randn_like(x_0, seeded(1))

    @torch.no_grad()
    def errors() -> Tensor:
        return diffusion_errors(learner.ema, x_0, t, eps)

    before = errors()
    loop = recipe.train({"denoise": learner}, progress=False)
    assert [step.step for step in itertools.islice(loop, 25)][-1] == 25
    rise = errors() - before
    assert rise.abs().max() > 0  # it did train
    assert rise.mean() < 0.01 * before.mean()


@pytest.mark.slow
def test_the_shipped_vae_goes_on_training():
    """The same of the VAE: minus the ELBO of test digits, by the same draws of z, does not rise by more than 1 %."""
    recipe = replace(DigitsVAE(), lr=5e-5, seed=1)
    learner = Learner(pretrained.load("digits_vae").requires_grad_(True).train(), recipe.lr, clip=100.0)
    x = recipe.codec.encode(data.digits("test")[0])

    @torch.no_grad()
    def loss() -> Tensor:
        return vae_loss(learner.ema, x, generator=seeded())

    before = loss()
    assert len(list(itertools.islice(recipe.train({"vae": learner}, progress=False), 25))) == 25
    assert loss() != before  # it did train
    assert loss() < 1.01 * before
