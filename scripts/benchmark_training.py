"""How fast each stage of text to image trains on this machine, and how near it comes to what the machine can multiply.

    python scripts/benchmark_training.py [--preset gpu] [--seconds 10] [--out FILE]

For each of clip, autoencoder and text2image, as written and fused by torch.compile: pictures a second, the arithmetic
of a train step (matrix products and convolutions, counted by torch) a second, and its share of the peak, which is that
of a large bf16 matrix product measured just before. On a GPU the kernels that take most of its time, too: they name
what bounds a stage. Prints a table; with --out also writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ddpm_edu.recipes import RECIPES
from ddpm_edu.training import Step, precision

STAGES = ("clip", "autoencoder", "text2image")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def wait() -> float:
    """The time, once the device has done all it was told."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def rate(once: Callable[[], Any], seconds: float) -> float:
    """How often a second, over about that many seconds and 3 times at least, after 3 that warm up."""
    for _ in range(3):
        once()
    start, n = wait(), 0
    while n < 3 or time.perf_counter() - start < seconds:
        once()
        n += 1
    return n / (wait() - start)


def peak(seconds: float) -> float:
    """FLOP a second of a large product of matrices, in what training runs in."""
    n, dtype = (8192, torch.bfloat16) if CUDA else (2048, torch.bfloat16)
    dtype = dtype if precision(DEVICE).name == "bf16" else torch.float32
    a, b = torch.randn(2, n, n, device=DEVICE, dtype=dtype)
    return 2 * n**3 * rate(lambda: a @ b, seconds)


def kernels(loop: Iterator[Step]) -> dict[str, float]:
    """The share of the GPU's time that the eight longest-running kernels take, over five steps."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
        list(islice(loop, 5))
        wait()
    spent = {
        one.key: one.self_device_time_total
        for one in watched.key_averages()
        if one.device_type == torch.autograd.DeviceType.CUDA and not getattr(one, "is_user_annotation", False)
    }
    longest = sorted(spent, key=spent.__getitem__, reverse=True)[:8]
    return {key[:80]: round(spent[key] / sum(spent.values()), 3) for key in longest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="gpu", choices=("laptop", "gpu"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    most = peak(min(3.0, options.seconds))
    device = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, torch {torch.__version__}: a matrix product runs at {most / 1e12:.2f} TFLOP/s", flush=True)
    found: dict[str, Any] = {"device": device, "torch": torch.__version__, "peak": most, "stages": {}}
    for name in options.stages:
        recipe = RECIPES[name](**RECIPES[name].presets[options.preset])
        start, learners = wait(), recipe.learners(DEVICE)
        loop = recipe.train(learners, progress=False)
        with FlopCounterMode(display=False) as counter:
            next(loop)
        flops, batch, ready = counter.get_total_flops(), recipe.batch, wait() - start
        for how in ("as written", "compiled"):
            if how == "compiled":
                start = wait()
                recipe.compile(learners)
                next(loop)
                ready = wait() - start
            a_second = rate(lambda loop=loop: next(loop), options.seconds)
            row = {
                "ready": round(ready, 1),  # seconds until the first step was done: reading, compiling
                "batch": batch,
                "pictures": round(batch * a_second, 1),  # a second
                "flops": flops,  # of a step
                "share": round(flops * a_second / most, 4),  # of the peak
            }
            if CUDA:
                row["kernels"] = kernels(loop)
            found["stages"].setdefault(name, {})[how] = row
            print(
                f"{name:12s} {how:10s} batch {batch:4d}  {row['pictures']:9.1f} pictures/s  {1 / a_second:7.4f} s a "
                f"step  {flops * a_second / 1e12:7.2f} TFLOP/s, {row['share']:.1%} of the peak; first {ready:.0f} s",
                flush=True,
            )
            for kernel, taken in row.get("kernels", {}).items():
                print(f"    {taken:6.1%}  {kernel}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
