"""Time of a train step: ours beside diffusers' UNet2DModel as it comes, at equal parameters, in one process.

    python scripts/benchmark_unet.py [--rounds 7]

Forward, backward, AdamW and EMA on 64 pictures of 1x32x32. Prints the median of each and the ratio to diffusers, with
the smallest and the largest ratio of any round. Rounds are interleaved, so that a noisy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DModel
from torch import nn

from ddpm_edu.denoiser import Denoiser, eps
from ddpm_edu.nets.unet import UNet
from ddpm_edu.objectives import diffusion_loss
from ddpm_edu.process import Process
from ddpm_edu.training import Learner, precision

PICTURES = torch.randn(64, 1, 32, 32)


def theirs() -> tuple[nn.Module, Callable[[], None]]:
    net = UNet2DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D",) * 3,  # without attention but in the middle: its fastest form
        up_block_types=("UpBlock2D",) * 3,
    )
    ema, optimizer = copy.deepcopy(net).requires_grad_(False), torch.optim.AdamW(net.parameters(), 1e-4)
    process = Process.linear()

    def step() -> None:
        t, noise = torch.randint(1, process.T + 1, (len(PICTURES),)), torch.randn_like(PICTURES)
        x_t = process.marginal(PICTURES, t)
        loss = (net(x_t.mean + x_t.var.sqrt() * noise, t - 1).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for mine, current in zip(ema.parameters(), net.parameters(), strict=True):
                mine.lerp_(current, 0.001)

    return net, step


def ours(**shape) -> tuple[nn.Module, Callable[[], None]]:
    denoise = Denoiser(Process.linear(), UNet(1, **shape), eps)
    learner, autocast = Learner(denoise, 1e-4), precision().autocast

    def step() -> None:
        with autocast():
            loss = diffusion_loss(denoise, PICTURES)
        learner.step(loss)

    return denoise.net, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    contestants = {
        "diffusers UNet2DModel (32, 64, 128), fp32": theirs(),
        "ours (48, 96, 176)": ours(widths=(48, 96, 176), blocks=1),
        "ours (80, 160) on 2x2 patches, as for the digits": ours(widths=(80, 160), blocks=1, attend=(1,), patch=2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):  # the first warms up
        for name, (_, step) in contestants.items():
            start = time.perf_counter()
            step()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    reference = next(iter(seconds.values()))
    print(f"{torch.get_num_threads()} threads, ours in {precision().name}; {rounds} rounds")
    for name, (net, _) in contestants.items():
        ratios = [r / s for r, s in zip(reference, seconds[name], strict=True)]
        size = sum(p.numel() for p in net.parameters()) / 1e6
        print(
            f"{name:50s} {size:.2f} M  {1000 * statistics.median(seconds[name]):5.0f} ms  "
            f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
