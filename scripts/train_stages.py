"""All three stages of text to image, one after the other, each trained on what the stages before it became.

    python scripts/train_stages.py --preset gpu [--minutes 9] [--out runs/stages] [--results FOLDER]

Needs no Jupyter. The course's own weights stay as they are: what is trained goes into a copy of data/ in --out, which
DDPM_EDU_DATA=OUT/data makes the course use. Stopped, by Ctrl-C or when --minutes are over, it has saved; the same
command goes on from there, and ends with the weights that an undisturbed run ends with (on a CPU to the bit).

With --fit MINUTES, each stage takes as many steps as its share of that time allows, by the speeds that
benchmark_training.py has written into --speeds; what goes into reading, compiling and looking is taken off first.
Learning rates fall to zero over a stage, so a training must be planned to end in time: one cut short is no good.

Into --results, at every end, goes all that is worth keeping, in files small enough to send: the weights of the stages
that are done, in fp16; of the one under way, its running average likewise; and results.tar.gz with the log, the
metrics, the pictures drawn on the way, the manifest, and summary.json, which tells each stage's time and speed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch

from ddpm_edu import checkpoint, pretrained
from ddpm_edu.codec import Latents
from ddpm_edu.data import DATA, ROOT, emoji
from ddpm_edu.recipes import RECIPES

SHARES = {"clip": 0.15, "autoencoder": 0.25, "text2image": 0.6}  # of the time that --fit leaves for train steps
STAGES = tuple(SHARES)
START, LOOK, GRACE = 25.0, 1.0, 60.0  # seconds: to read pictures and captions; of a look at val; to save when stopped
CHECKPOINT = "checkpoint.safetensors"
STOPPED = (130, -signal.SIGINT, -signal.SIGKILL)  # while it trained; before it began to; after the grace


def flags(name: str, preset: str, out: Path, steps: int | None) -> list[str]:
    """What `ddpm-edu train` is told for a stage."""
    told = [name, "--preset", preset, "--out", str(out / name)]
    if steps:
        told += ["--steps", str(steps)]
    if name == "text2image":
        told += ["--scale", str(scale(out))]
    return told


@torch.no_grad()
def scale(out: Path) -> float:
    """1 / the deviation of the new autoencoder's latents over the training pictures; the same when a stopped training
    goes on, whatever the last digits do."""
    kept = out / "text2image" / "scale.txt"
    if kept.exists():
        return float(kept.read_text("utf-8"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = pretrained.read(out / "data" / "checkpoints" / "autoencoder.safetensors")[1].to(device)
    found = round(1 / Latents(vae, 1.0).encode(emoji("train").images).std().item(), 4)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(str(found), "utf-8")
    return found


def fitted(speeds: Path, minutes: float) -> dict[str, int]:
    """The steps of each stage that fit into so many minutes together, by what the benchmark measured."""
    found = json.loads(speeds.read_text("utf-8"))
    how = "as written" if found["device"].startswith("CPU") else "compiled"  # as `ddpm-edu train` does
    rows = {name: found["stages"][name][how] for name in SHARES}
    left = 60 * minutes - sum(START + rows[name]["ready"] + LOOK * RECIPES[name].looks for name in SHARES)
    if left < 30:
        raise SystemExit(
            f"Of {minutes:g} minutes reading and compiling leave {max(0, left):.0f} seconds: give it more."
        )
    rates = {name: row["pictures"] / row["batch"] for name, row in rows.items()}
    return {name: max(100, int(round(rates[name] * share * left, -2))) for name, share in SHARES.items()}


def run(command: list[str], env: dict[str, str], log: Path, until: float) -> int:
    """The exit status of a command whose words go into a log too. At the time `until` it is sent SIGINT, as by Ctrl-C,
    which makes a training save; one that does not end then is killed. A Ctrl-C reaches the command itself, and this
    waits for it to save."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with (
            open(log, "ab") as file,
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
        ):
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            asked = False
            while True:
                ended = process.poll() is not None
                for words in iter(lambda: process.stdout.read() or b"", b""):  # type: ignore[union-attr]
                    file.write(words)
                    file.flush()
                    sys.stdout.buffer.write(words)
                    sys.stdout.flush()
                if ended:
                    return process.returncode
                if time.monotonic() > until and not asked:
                    process.send_signal(signal.SIGINT)
                    asked = True
                if time.monotonic() > until + GRACE:
                    process.kill()
                time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)


def train(name: str, out: Path, preset: str, steps: int | None, until: float) -> bool:
    """Trains a stage to its end, or to the time `until`; whether it is done. Its weights go into the copy of data/."""
    folder, env = out / name, os.environ | {"DDPM_EDU_DATA": str(out / "data"), "PYTHONPATH": str(ROOT)}
    folder.mkdir(parents=True, exist_ok=True)
    told, start = flags(name, preset, out, steps), time.monotonic()
    code = run([sys.executable, "-m", "ddpm_edu.cli", "train", *told], env, out / "log.txt", until)
    entry = {"seconds": round(time.monotonic() - start, 2), "command": " ".join(["ddpm-edu", "train", *told])}
    if (folder / CHECKPOINT).exists():
        entry["step"] = checkpoint.load(folder / CHECKPOINT)["step"]
    with open(folder / "pieces.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    if code not in (0, *STOPPED):
        raise SystemExit(f"{name} failed ({code}); see {out / 'log.txt'}.")
    if code == 0:
        release = [sys.executable, str(ROOT / "scripts" / "release.py"), name, str(folder / CHECKPOINT)]
        release += ["--command", entry["command"]]
        if run(release, env, out / "log.txt", float("inf")):
            raise SystemExit(f"{name} could not be released; see {out / 'log.txt'}.")
        (folder / "done").touch()
    return code == 0


def summary(out: Path) -> dict[str, Any]:
    """Of each stage that was begun: steps, seconds (loading, compiling and looking at itself among them), pictures a
    second, whether it is done, and what it last measured on val."""
    found = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU", "stages": {}}
    for name in STAGES:
        folder = out / name
        if not (folder / CHECKPOINT).exists():
            continue
        pieces = [json.loads(line) for line in (folder / "pieces.jsonl").read_text("utf-8").splitlines()]
        looks = folder / "metrics.jsonl"
        tree = checkpoint.load(folder / CHECKPOINT)
        seconds = sum(piece["seconds"] for piece in pieces)
        found["stages"][name] = {
            "step": tree["step"],
            "of": tree["config"]["steps"],
            "seconds": round(seconds, 1),
            "pictures": round(tree["step"] * tree["config"]["batch"] / max(seconds, 0.01), 1),  # a second
            "done": (folder / "done").exists(),
            "pieces": pieces,
            "last": json.loads(looks.read_text("utf-8").splitlines()[-1]) if looks.exists() else {},
        }
    return found


def collect(out: Path, results: Path) -> None:
    """All that is worth keeping, in few files."""
    results.mkdir(parents=True, exist_ok=True)
    for name in STAGES:
        whole, half = results / f"{name}.safetensors", results / f"{name}_under_way.safetensors"
        half.unlink(missing_ok=True)
        if (out / name / "done").exists():
            shutil.copyfile(out / "data" / "checkpoints" / whole.name, whole)
        elif (out / name / CHECKPOINT).exists():
            pretrained.write(half, out / name / CHECKPOINT)
    (out / "summary.json").write_text(json.dumps(summary(out), indent=1) + "\n", "utf-8")
    shutil.copyfile(out / "data" / "MANIFEST.json", out / "MANIFEST.json")
    kept = [path for one in ("summary.json", "MANIFEST.json", "log.txt", "steps.json") if (path := out / one).exists()]
    kept += [path for name in STAGES for path in sorted((out / name).glob("*")) if path.suffix in (".jsonl", ".png")]
    with tarfile.open(results / "results.tar.gz", "w:gz") as archive:
        for path in kept:
            archive.add(path, path.relative_to(out))


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", required=True, choices=("laptop", "gpu"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="to stop after, all saved")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "stages")
    parser.add_argument("--results", type=Path, help="where what is worth keeping goes; OUT/results unless told")
    parser.add_argument("--steps", type=int, help="of every stage, to try it out")
    parser.add_argument("--fit", type=float, metavar="MINUTES", help="as many steps as fit into these")
    parser.add_argument("--speeds", type=Path, help="what benchmark_training.py wrote, for --fit")
    options = parser.parse_args()
    if (options.fit is None) != (options.speeds is None):
        parser.error("--fit and --speeds go together.")
    out, until = options.out.resolve(), start + 60 * options.minutes
    if not (out / "data").exists():
        shutil.copytree(DATA, out / "half", dirs_exist_ok=True)
        (out / "half").rename(out / "data")  # never half a copy
    steps, plan = dict.fromkeys(STAGES, options.steps), out / "steps.json"
    if options.fit and not plan.exists():  # once: a training that goes on must be the same
        plan.write_text(json.dumps(fitted(options.speeds, options.fit)), "utf-8")
    if options.fit:
        steps = json.loads(plan.read_text("utf-8"))
    results = options.results or out / "results"
    try:
        for name in STAGES:
            if (out / name / "done").exists():
                continue
            if time.monotonic() > until or not train(name, out, options.preset, steps[name], until):
                print(f"Stopped, and all is saved. The same command goes on with {name}.")
                break
            collect(out, results)  # whatever becomes of the next
        else:
            print(f"All is trained. To use it: DDPM_EDU_DATA={out / 'data'} ddpm-edu sample 'a rose' -o rose.png")
    finally:
        collect(out, results)
    for name, stage in summary(out)["stages"].items():
        print(f"{name:12s} step {stage['step']:6d} of {stage['of']:6d}  {stage['seconds']:7.1f} s  "
              f"{stage['pictures']:8.1f} pictures/s  {stage['last']}")  # fmt: skip


if __name__ == "__main__":
    main()
