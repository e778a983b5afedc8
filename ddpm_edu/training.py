"""One training loop for every family.

A family supplies its `update`: given a batch, it yields (name, loss) for each step it wants taken, one for a diffusion
model, two for a GAN. The loop owns the rest: precision, gradient clipping, optimizer, EMA, checkpoints, progress.

    learner = Learner(denoise, lr=1e-3)

    def update(x_0, generator):
        yield "denoise", diffusion_loss(denoise, x_0, generator=generator)

    for step in train(update, minibatches(data, 128), 1000, {"denoise": learner}):
        ...                                       # look at learner.ema, draw, stop when you like
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ddpm_edu import checkpoint

__all__ = ["Learner", "Precision", "Step", "cosine", "precision", "train"]

T = TypeVar("T")
Update = Callable[[Any, torch.Generator], Iterable[tuple[str, Tensor]]]


# Precision ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Precision:
    """What train steps run in on this machine, and why."""

    name: str
    device: str
    why: str

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 for matrix products and convolutions where that is faster; weights stay in float32."""
        return torch.autocast(self.device, torch.bfloat16) if self.name == "bf16" else contextlib.nullcontext()


def precision(device: torch.device | str = "cpu") -> Precision:
    """The fastest safe precision of a device: bf16 where its hardware multiplies it, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        fast, what = torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_name(device)
    elif kind == "cpu":
        # torch has no public question for this; one that lacks the private one gets float32.
        asks = [getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
        fast, what = any(ask() for ask in asks), "this CPU"
    else:
        fast, what = False, f"device {kind}"
    return (
        Precision("bf16", kind, f"{what} multiplies bf16")
        if fast
        else Precision("fp32", kind, f"{what} has no fast bf16")
    )


# A network on its way -------------------------------------------------------------------------------------------------


def cosine(steps: int, warmup: int = 100) -> Callable[[int], float]:
    """Learning-rate factor: linear from 0 over `warmup` steps, then half a cosine down to 0 at `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return factor


Net = TypeVar("Net", bound=nn.Module)
LOOK_FOR = "look for NaN or huge values in the data, or lower the learning rate. The last checkpoint is untouched."


class Learner(Generic[Net]):
    """A network, its optimizer (AdamW) and the exponential moving average (EMA) of its weights.

    schedule: factor of lr by step. clip: largest norm of the gradient. decay: the share of itself that the EMA keeps at
    each step (less in the first steps, (1 + step) / (10 + step), so that it forgets the random start).
    """

    def __init__(
        self,
        net: Net,
        lr: float = 1e-3,
        schedule: Callable[[int], float] = lambda step: 1.0,
        clip: float = 1.0,
        decay: float = 0.999,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        # channels_last is the layout convolutions are fastest in, 1.3 to 1.7 times on a CPU.
        self.net: Net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema: Net = copy.deepcopy(net).requires_grad_(False).eval()
        self.lr, self.schedule, self.clip, self.decay = lr, schedule, clip, decay
        self.optimizer = torch.optim.AdamW(net.parameters(), lr, betas, weight_decay=weight_decay, fused=True)
        self.steps = 0

    def step(self, loss: Tensor, check: bool = True) -> None:
        """One step down the gradient of loss, then the EMA: all state belongs to the same step when it returns.

        check: raise ValueError where the gradient is not finite, before anything changes. On a GPU to ask is to wait.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule(self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        if check and not norm.isfinite():
            raise ValueError(f"The gradient is {norm:g} at step {self.steps + 1}: {LOOK_FOR}")
        self.optimizer.step()
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - decay)
            for mine, theirs in zip(self.ema.buffers(), self.net.buffers(), strict=True):
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any], where: str = "The checkpoint") -> None:
        checkpoint.load_weights(self.net, state["net"], where)
        checkpoint.load_weights(self.ema, state["ema"], where)
        self.optimizer.load_state_dict(state["optimizer"])
        # Files hold no memory layout, and the fused optimizer walks weights and moments in memory order: they must
        # share one.
        for p, moments in self.optimizer.state.items():
            moments.update({k: torch.empty_like(p).copy_(m) for k, m in moments.items() if m.shape == p.shape})
        self.steps = state["steps"]


# The loop -------------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """What the loop yields: the number of steps taken and the loss of each learner in the last one."""

    step: int
    losses: dict[str, float]


def train(
    update: Update,
    batches: Callable[[torch.Generator], Any],
    steps: int,
    learners: dict[str, Learner],
    *,
    seed: int = 0,
    path: Path | None = None,
    config: dict[str, Any] | None = None,
    every: float = 120.0,
    ask: int | None = None,
    progress: bool = True,
) -> Generator[Step, None, None]:
    """Trains up to `steps` steps and yields after each, when its state is complete.

    update(batch, generator) yields (name of a learner, loss): the loop steps each at once, so that a GAN's generator
    meets the discriminator just trained. batches(generator) gives a batch. All randomness comes from one generator.

    path: a checkpoint file. If it exists, training resumes from it and ends with the very weights that an uninterrupted
    run ends with (bit for bit on a CPU with the same number of threads). Written every `every` seconds, when the loop
    is left, and at the end. config is kept in it, and a checkpoint with another config is refused.

    Raises ValueError when a loss or a gradient is not finite, or when the checkpoint is another network's.

    ask: steps between two looks at losses and gradients; those yielded between are of the last look. None: 1 on a CPU,
    where a step that fails leaves the weights as they were, and 20 on a GPU, which a look makes wait. What is not
    finite is never saved.
    """
    if steps < 1:
        raise ValueError(f"There must be 1 step or more to train; got {steps}.")
    config = json.loads(json.dumps(config))  # as it comes back from a file: tuples are lists there
    generator, first = torch.Generator().manual_seed(seed), 0
    if path is not None and Path(path).exists():
        first = _resume(path, learners, generator, config)

    def save(step: int) -> None:
        if path is not None:
            if not all(p.isfinite().all() for p in weights):
                raise ValueError(f"The weights are not finite after step {step}: {LOOK_FOR}")
            states = {name: learner.state_dict() for name, learner in learners.items()}
            tree = {"step": step, "learners": states, "generator": generator.get_state(), "config": config}
            checkpoint.save(path, tree)

    weights = [p for learner in learners.values() for p in learner.net.parameters()]
    # bf16 pays where products are large: convolutions, matrices of 256 x 256. In the networks of points its casts cost
    # more than they save (twice the time), and a density wants all its digits.
    large = any(p.ndim == 4 or (p.ndim == 2 and p.numel() >= 2**16) for p in weights)
    autocast = precision(weights[0].device).autocast if large else contextlib.nullcontext
    ask = ask or (20 if weights[0].is_cuda else 1)
    saved, step, losses = time.monotonic(), first, dict.fromkeys(learners, math.nan)
    bar = tqdm(total=steps, initial=first, disable=not progress, desc="training", mininterval=0.5)
    try:
        for step in range(first + 1, steps + 1):
            due = time.monotonic() - saved > every
            look = due or step % ask == 0 or step in (first + 1, steps)
            for name, loss in _under(autocast, update(batches(generator), generator)):
                if look:
                    losses = {**losses, name: loss.item()}
                    if not math.isfinite(losses[name]):
                        raise ValueError(f"The loss of {name!r} is {losses[name]} at step {step}: {LOOK_FOR}")
                learners[name].step(loss, check=look)
            if due:
                save(step)
                saved = time.monotonic()
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            yield Step(step, losses)
    except GeneratorExit:  # left at a yield: the state is whole
        save(step)
        raise
    else:
        if step > first:
            save(step)
    finally:
        bar.close()


def _under(context: Callable[[], contextlib.AbstractContextManager], items: Iterable[T]) -> Iterator[T]:
    """The items, each computed inside the context, used outside of it: losses are computed in bf16, steps not."""
    iterator = iter(items)
    while True:
        with context():
            item = next(iterator, None)
        if item is None:
            return
        yield item


def _resume(path: Path, learners: dict[str, Learner], generator: torch.Generator, config: dict[str, Any] | None) -> int:
    """Puts the state of a checkpoint into the learners and the generator; the number of steps it has taken."""
    state = checkpoint.load(path)
    before, now = state["config"] or {}, config or {}
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        raise ValueError(
            f"{path} was trained with another {', '.join(changed)}: resume it with the same, or choose another folder."
        )
    held = state.get("learners", {})  # shipped weights have none
    if held.keys() != learners.keys():
        raise ValueError(f"{path} holds {sorted(held)}, and this training needs {sorted(learners)}.")
    for name, learner in learners.items():
        learner.load_state_dict(held[name], str(path))
    generator.set_state(state["generator"])
    return state["step"]
