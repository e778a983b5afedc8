"""The command `ddpm-edu`: doctor, train, sample, grade.

Each command is a function of its arguments whose docstring is its help. What it needs it imports itself, so that
`ddpm-edu --help` answers at once and `train` runs on a machine without Jupyter.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import NoneType

if typing.TYPE_CHECKING:
    from ddpm_edu.recipes import Recipe
    from ddpm_edu.training import Learner, Step

COMPILE = "fuse the networks' layers by torch.compile: as a rule on a GPU, and not on a CPU, which gains nothing"


def doctor(argv: Sequence[str]) -> int:
    """Check this installation, line by line, each with its remedy."""
    _parser(doctor).parse_args(argv)
    from ddpm_edu.doctor import findings, show

    return 1 if show(findings()) else 0


def train(argv: Sequence[str]) -> int:
    """Train one of the course's models, or go on where a stopped training left off."""
    import torch

    from ddpm_edu import pretrained
    from ddpm_edu.recipes import RECIPES, Generative

    parser = _parser(train)
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True, title="models")
    for name, recipe in RECIPES.items():
        text = (recipe.__doc__ or "").strip()
        one = names.add_parser(name, help=_literal(text.split("\n")[0]), description=text)
        _add(one, "out", Path, Path("runs") / name, "folder of the checkpoint; the same folder again resumes")
        _add(one, "start", Path, None, "weights to begin with: a model, or a training's checkpoint")
        one.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help=COMPILE)
        if recipe.presets:
            one.add_argument("--preset", choices=recipe.presets, help="all flags below, as they suit a machine")
        for field, kind in _fields(recipe):
            _add(one, field.name, kind, getattr(recipe(), field.name), field.metadata.get("help", ""))
    options = vars(parser.parse_args(argv))
    name, out, start = options.pop("name"), options.pop("out"), options.pop("start")
    preset, fuse = options.pop("preset", None), options.pop("compile")
    if preset:  # flags that are given rule over it
        names.choices[name].set_defaults(**RECIPES[name].presets[preset])
        options = {key: value for key, value in vars(parser.parse_args(argv)).items() if key in options}
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    chosen, path = RECIPES[name](**options), out / "checkpoint.safetensors"
    cuda = torch.cuda.is_available()
    learners = chosen.learners("cuda" if cuda else "cpu")
    if start and not path.exists():
        pretrained.start(chosen, learners, start)
    if cuda if fuse is None else fuse:
        chosen.compile(learners)
    steps = _looking(chosen, learners, chosen.train(learners, path), out)
    if not _until_interrupted(steps):
        print(f"\nStopped, and saved. The same command goes on from there: {path}", file=sys.stderr)
        return 130
    see = f" See it: ddpm-edu sample {path} -o samples.png" if isinstance(chosen, Generative) else ""
    print(f"{path} holds the trained model.{see}")
    return 0


def sample(argv: Sequence[str]) -> int:
    """Draw pictures, from a sentence or from any trained model, into one image file."""
    parser = _parser(sample)
    parser.add_argument(
        "what",
        metavar="WHAT",
        help="a sentence, in quotes, such as 'a twemoji style red heart'; or a model of the course, such as digits, or "
        "a checkpoint's file, for some of what it makes",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="the picture to write, .png or .webp"
    )
    _add(parser, "model", str, "text2image", "who draws the sentence: a model that can be told, or a checkpoint's file")
    _add(parser, "n", int, None, "how many pictures: 4 of a sentence, 64 of a model, unless told")
    _add(parser, "steps", int, None, "denoising steps of a diffusion model, 25 or 50 unless told")
    _add(parser, "seed", int, 0, "the same seed gives the same pictures")
    _add(parser, "guidance", float, None, "how far to follow the sentence; 1 is off")
    _add(parser, "best-of", int, 1, "draw so many for each picture, and keep the one that CLIP finds fits best")
    options = parser.parse_args(argv)
    from PIL import Image

    from ddpm_edu import captions, pretrained, viz
    from ddpm_edu.recipes import RECIPES

    if options.out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{options.out.name} names no kind of picture: end it in .png or .webp.")
    names_model = options.what in RECIPES or Path(options.what).suffix == ".safetensors"
    texts, model = ([], options.what) if names_model else ([options.what], options.model)
    path = Path(model)
    recipe, net = pretrained.read(path if path.suffix else pretrained.shipped(model))
    if texts and recipe.name == "text2image":
        if not captions.understood(options.what):
            raise ValueError(
                f"No word of {options.what!r} was ever read in training: say what an emoji shows, like 'a noto style "
                f"red heart', or name a model: {', '.join(RECIPES)}."
            )
        for word, near in captions.unknown(options.what).items():
            print(
                f"The model has never read the word {word!r}" + (f"; it knows {near!r}." if near else "."),
                file=sys.stderr,
            )
    n = options.n if options.n is not None else 4 if texts else 64
    images = pretrained.sample(recipe, net, n, options.steps, options.seed, texts, options.guidance, options.best_of)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(viz.grid(images, gap=2)).save(options.out)
    print(f"{options.out}: {n} picture{'s' * (n > 1)}")
    return 0


def grade(argv: Sequence[str]) -> int:
    """Grade a class's notebooks: run every submission in a sandbox, and name what was misunderstood."""
    parser = _parser(grade)
    parser.epilog = (
        "Stopped and started again, it goes on where it was. The marks, the reports and the secret that the checks' "
        "inputs are drawn from lie in the folder of --out: keep it, and keep it to yourself."
    )
    parser.add_argument(
        "submissions", type=Path, metavar="SUBMISSIONS", help="a folder: a notebook, or a folder of them, per student"
    )
    parser.add_argument(
        "--notebook", action="append", default=[], metavar="NN", help="such as 05; may be given again (all handed in)"
    )
    _add(parser, "hidden", Path, None, "a folder of Python files with checks of your own")
    _add(parser, "out", Path, Path("grades"), "folder of the results; the same folder again goes on")
    _add(parser, "csv", Path, None, "where the table goes, if not to grades.csv in that folder")
    _add(parser, "junit", Path, None, "where JUnit's XML goes, if not to grades.xml")
    _add(parser, "report", Path, None, "where the report for the class goes, if not to report.html")
    _add(parser, "jobs", int, os.cpu_count() or 1, "submissions graded at the same time")
    parser.add_argument(
        "--allow-weak-sandbox", action="store_true", help="grade also where submissions could read your files"
    )
    options = parser.parse_args(argv)
    from tqdm.auto import tqdm

    from ddpm_edu.grading import report, sandbox
    from ddpm_edu.grading.grade import Order, grade_class
    from ddpm_edu.grading.submission import students

    level = sandbox.level() if options.allow_weak_sandbox else "bubblewrap"
    chapters = tuple(str(chapter).zfill(2) for chapter in options.notebook)
    order = Order(options.submissions, options.out, chapters, options.hidden, max(1, options.jobs), level)
    try:
        with tqdm(total=len(students(order.folder)), desc="grading", unit="submission") as bar:
            graded = grade_class(order, done=lambda one: bar.update())
    except KeyboardInterrupt:
        print("\nStopped. What was graded is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    written = {
        options.csv or order.out / "grades.csv": report.write_csv,
        options.junit or order.out / "grades.xml": report.write_junit,
        options.report or order.out / "report.html": report.write_html,
    }
    for path, write in written.items():
        write(path, graded)
    mean = sum(one.points for one in graded) / len(graded)
    asked = ", ".join(sorted({one.exercise[:2] for one in graded[0].results}))
    print(f"{len(graded)} submissions, notebooks {asked}: on average {mean:.1f} of {graded[0].of:.0f} points.")
    print(f"sandbox: {level}")
    print("\n".join(map(str, written)))
    faults = {f"{one.exercise}: {one.sentence}" for each in graded for one in each.results if one.state == "ungraded"}
    for fault in sorted(faults):
        print(f"Not graded: {fault}", file=sys.stderr)
    return 1 if faults else 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {f.__name__: f for f in (doctor, train, sample, grade)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 1 if doctor found a fault, or grade could not give a mark; 2 for what the user can
    mend, told in one line."""
    parser = argparse.ArgumentParser(
        prog="ddpm-edu",
        description="Generative models from likelihood to text-to-image: the course's command.",
        epilog="commands:\n" + "\n".join(f"  {name:8} {f.__doc__}" for name, f in COMMANDS.items()) + "\n\n"
        "`ddpm-edu COMMAND --help` tells more. `make lab` opens the course itself.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what that command takes")
    options = parser.parse_args(argv)
    try:
        return COMMANDS[options.command](options.arguments)
    except (ValueError, FileNotFoundError) as error:
        print(f"ddpm-edu {options.command}: {error}", file=sys.stderr)
        return 2


def _looking(
    recipe: Recipe, learners: dict[str, Learner], steps: Generator[Step, None, None], out: Path
) -> Generator[Step, None, None]:
    """The steps; between them, `recipe.looks` times in all, the model's quality goes into metrics.jsonl and its picture
    into step_N.png."""
    import json

    import torch
    from PIL import Image
    from tqdm.auto import tqdm

    from ddpm_edu import viz

    every = max(1, recipe.steps // max(1, recipe.looks))
    with contextlib.closing(steps):
        for step in steps:
            if recipe.looks and step.step % every == 0:
                out.mkdir(parents=True, exist_ok=True)
                model = learners[recipe.ships].ema
                with torch.compiler.set_stance("force_eager"):  # its pictures would be new shapes to compile for
                    quality, images = recipe.quality(model), recipe.picture(model)
                line = json.dumps({"step": step.step, **step.losses, **quality})
                with open(out / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write(line + "\n")
                tqdm.write(line)
                if images is not None:
                    Image.fromarray(viz.grid(images, columns=8, gap=2)).save(out / f"step_{step.step}.png")
            yield step


def _until_interrupted(steps: Generator[object, None, None]) -> bool:
    """Take all steps; or, at Ctrl-C, finish the one under way and close, which saves. Whether all were taken.

    A second Ctrl-C stops at once.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        for _ in steps:
            if asked.is_set():
                steps.close()
                return False
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def _parser(command: Callable[[Sequence[str]], int]) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"ddpm-edu {command.__name__}", description=command.__doc__)


def _fields(recipe: type) -> list[tuple[dataclasses.Field, type]]:
    """The fields of a recipe with the type of one value: `int | None` gives int, its default being None."""
    hints = typing.get_type_hints(recipe)
    kinds = {name: [k for k in typing.get_args(hint) if k is not NoneType] or [hint] for name, hint in hints.items()}
    return [(field, kinds[field.name][0]) for field in dataclasses.fields(recipe)]


def _add(parser: argparse.ArgumentParser, name: str, kind: type, default: object, text: str) -> None:
    """One --flag: a switch with its --no- twin for a bool, several values for a tuple, else one value."""
    shape: dict[str, typing.Any] = {"type": kind, "metavar": kind.__name__.upper()}
    if isinstance(default, tuple):
        shape["nargs"] = "*"
    if kind is bool:
        shape = {"action": argparse.BooleanOptionalAction}
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    note = "" if default is None else f" (default: {shown})"
    parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=_literal((text + note).strip()), **shape)


def _literal(text: str) -> str:
    """argparse expands % in a help text."""
    return text.replace("%", "%%")


if __name__ == "__main__":
    sys.exit(main())
