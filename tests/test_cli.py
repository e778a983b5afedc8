"""The command `ddpm-edu`: what it says, what it passes on, and how it fails."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from harness import ROOT
from PIL import Image
from torch import Tensor

from ddpm_edu import cli, pretrained, recipes
from ddpm_edu.training import Step


@dataclasses.dataclass(frozen=True)
class Toy:
    """A model of the tests, 100 % made up.

    A second paragraph.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    looks: ClassVar[int] = 0

    steps: int = dataclasses.field(default=7, metadata={"help": "updates, 50 % of them useless"})
    minutes: float | None = None
    widths: tuple[int, ...] = (48, 96)
    target: str = "v"
    ema: bool = True

    def learners(self, device: str) -> str:
        return "the learners"

    def train(self, learners: str, path: Path) -> Iterator[int]:
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: give at least 1.")
        try:
            yield 1
            if self.target == "interrupt":
                signal.raise_signal(signal.SIGINT)
                yield 2
                raise AssertionError("goes on although it was interrupted")
        except GeneratorExit:
            print("saved")
            raise
        print(self, learners, path.as_posix())


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipes, "RECIPES", {"toy": Toy})


def test_help_is_quick_and_names_every_command():
    """`ddpm-edu --help` must not wait for torch, Jupyter or matplotlib."""
    code = (
        "import sys, ddpm_edu.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'matplotlib', 'jupyter_client', 'jupyterlab', 'IPython'} & set(sys.modules)))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert text.splitlines()[-1] == "[]"
    for name, command in cli.COMMANDS.items():
        assert f"  {name:8} {command.__doc__}" in text


def test_train_help_lists_models_and_their_fields(capsys: pytest.CaptureFixture[str]):
    for argv, wanted in (
        (["train", "--help"], ["toy", "A model of the tests, 100 % made up."]),
        (
            ["train", "toy", "--help"],
            ["A second paragraph.", "--steps INT", "50 % of them useless (default: 7)", "--minutes FLOAT", "--no-ema"],
        ),
    ):
        with pytest.raises(SystemExit, match="0"):
            cli.main(argv)
        text = " ".join(capsys.readouterr().out.split())
        for words in wanted:
            assert words in text


def test_help_of_the_models_of_text_to_image_needs_no_jupyter():
    """The real recipes with their presets: what trains on a machine of others imports nothing of a notebook's."""
    code = (
        "import sys, ddpm_edu.cli as cli\n"
        "from ddpm_edu import viz\n"  # draws on the way
        "for name in ('clip', 'judge', 'autoencoder', 'text2image'):\n"
        "    try: cli.main(['train', name, '--preset', 'laptop', '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'jupyter_client', 'jupyterlab', 'IPython', 'ipywidgets', 'anywidget'} & set(sys.modules)))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert text.splitlines()[-1] == "[]"
    assert text.count("--preset {laptop,gpu}") == 8  # usage and options of four
    assert "--swaps INT" in text
    assert "--perceptual FLOAT" in text


def test_train_passes_defaults(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "toy"]) == 0
    assert capsys.readouterr().out.startswith(f"{Toy()} the learners runs/toy/checkpoint.safetensors\n")


def test_train_passes_flags_in_their_types(capsys: pytest.CaptureFixture[str]):
    flags = [
        "--steps",
        "3",
        "--minutes",
        "2.5",
        "--widths",
        "1",
        "2",
        "3",
        "--target",
        "eps",
        "--no-ema",
        "--out",
        "there",
    ]
    assert cli.main(["train", "toy", *flags]) == 0
    expected = Toy(steps=3, minutes=2.5, widths=(1, 2, 3), target="eps", ema=False)
    assert capsys.readouterr().out.startswith(f"{expected} the learners there/checkpoint.safetensors\n")


def test_a_training_is_started_from_a_file_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Where there is a checkpoint already, the training goes on from there."""
    begun = []
    monkeypatch.setattr(pretrained, "start", lambda *given: begun.append(given))
    argv = ["train", "toy", "--out", str(tmp_path), "--start", "model.safetensors"]
    assert cli.main(argv) == 0
    assert begun == [(Toy(), "the learners", Path("model.safetensors"))]
    (tmp_path / "checkpoint.safetensors").touch()
    assert cli.main(argv) == 0
    assert len(begun) == 1


@dataclasses.dataclass(frozen=True)
class Looking(Toy):
    """One that is measured on its way."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "gpu": {"steps": 20, "target": "eps"}}
    looks: ClassVar[int] = 3
    ships: ClassVar[str] = "net"

    def learners(self, device: str) -> dict[str, SimpleNamespace]:
        return {"net": SimpleNamespace(ema=SimpleNamespace(step=0))}

    def train(self, learners: dict[str, SimpleNamespace], path: Path) -> Iterator[Step]:
        for k in range(1, self.steps + 1):
            learners["net"].ema.step = k
            yield Step(k, {"net": 1 / k})
        print(self)

    def quality(self, model: SimpleNamespace) -> dict[str, float]:
        return {"score": float(model.step)}

    def picture(self, model: SimpleNamespace) -> Tensor:
        return torch.full((2, 8, 8), model.step, dtype=torch.uint8)


def test_a_preset_rules_the_flags_that_are_not_given(monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(recipes, "RECIPES", {"looking": Looking, "toy": Toy})
    argv = ["train", "looking", "--out", str(tmp_path)]
    for flags, expected in (
        ([], Looking()),
        (["--preset", "laptop"], Looking()),
        (["--preset", "gpu"], Looking(steps=20, target="eps")),
        (["--steps", "5", "--preset", "gpu"], Looking(steps=5, target="eps")),
    ):
        assert cli.main([*argv, *flags]) == 0
        assert f"{expected}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "toy", "--preset", "gpu"])


def test_metrics_and_pictures_on_the_way(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(recipes, "RECIPES", {"looking": Looking})
    assert cli.main(["train", "looking", "--steps", "10", "--out", str(tmp_path / "deep" / "run")]) == 0
    lines = (tmp_path / "deep" / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": k, "net": pytest.approx(1 / k), "score": k} for k in (3, 6, 9)
    ]
    for k in (3, 6, 9):
        assert np.asarray(Image.open(tmp_path / "deep" / "run" / f"step_{k}.png")).min() == k


def test_what_the_user_can_mend_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "toy", "--steps", "0"]) == 2
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", "ddpm-edu train: steps = 0: give at least 1.\n")


def test_interrupted_training_is_saved_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "toy", "--target", "interrupt", "--out", "kept"]) == 130
    streams = capsys.readouterr()
    assert streams.out == "saved\n"
    assert "goes on from there: kept/checkpoint.safetensors" in streams.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "COMMAND"),
        (["bake"], "invalid choice: 'bake'"),
        (["train"], "NAME"),
        (["train", "cats"], "invalid choice: 'cats'"),
        (["train", "toy", "--steps", "many"], "invalid int value: 'many'"),
        (["train", "toy", "--speed", "9"], "unrecognized arguments: --speed 9"),
        (["sample", "digits"], "-o/--out"),
        (["doctor", "please"], "unrecognized arguments: please"),
    ],
)
def test_wrong_usage(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)
    assert words in capsys.readouterr().err


def test_sample_writes_a_picture_and_a_seed_fixes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.undo()  # the real models
    first, again, other = (tmp_path / f"{name}.png" for name in ("first", "again", "other"))
    for out, seed in ((first, "1"), (again, "1"), (other, "2")):
        argv = ["sample", "digits", "-o", str(out), "--n", "4", "--steps", "3", "--seed", seed]
        assert cli.main(argv) == 0
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert Image.open(first).size == (2 * 28 + 2, 2 * 28 + 2)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("cats", "No word of 'cats' was ever read in training"),
        ("nowhere.safetensors", "There is no checkpoint nowhere.safetensors"),
    ],
)
def test_an_unknown_model_is_one_line(model: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["sample", model, "-o", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ddpm-edu sample: {words}")
    assert error.count("\n") == 1


def test_sample_draws_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.undo()  # the real models
    paths = [tmp_path / f"{name}.png" for name in ("heart", "again", "unguided", "leaf")]
    sentences = 3 * ["a twemoji style red heart"] + ["a twemoji style green herat"]
    for path, sentence, guidance in zip(paths, sentences, ("3", "3", "1", "3"), strict=True):
        argv = ["sample", sentence, "-o", str(path), "--n", "2", "--steps", "3", "--seed", "5", "--guidance", guidance]
        assert cli.main(argv) == 0
    heart, again, unguided, leaf = (path.read_bytes() for path in paths)
    assert heart == again
    assert len({heart, unguided, leaf}) == 3
    assert Image.open(paths[0]).size == (2 * 64 + 2, 64)
    told = capsys.readouterr().err
    assert "The model has never read the word 'herat'; it knows 'heart'." in told
    assert "100%" in told  # a bar, step by step
    assert "4/4" in told

    argv = ["sample", sentences[0], "-o", str(tmp_path / "best.png"), "--n", "2", "--steps", "3", "--best-of", "6"]
    assert cli.main(argv) == 0
    assert Image.open(tmp_path / "best.png").size == (2 * 64 + 2, 64)


def test_sample_asks_another_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.undo()
    out = tmp_path / "seven.png"
    assert cli.main(["sample", "7", "--model", "digits_class", "-o", str(out), "--n", "1", "--steps", "2"]) == 0
    assert Image.open(out).size == (28, 28)
    assert cli.main(["sample", "seven", "--model", "digits_class", "-o", str(out)]) == 2
    assert "makes single digits, 0 to 9, and knows no 'seven'" in capsys.readouterr().err
    assert cli.main(["sample", "7", "--model", "digits_class", "-o", str(out), "--n", "1", "--best-of", "2"]) == 2
    assert "leave best_of at 1" in capsys.readouterr().err
    assert cli.main(["sample", "7", "--model", "digits", "-o", str(out)]) == 2
    assert "digits cannot be told what to make" in capsys.readouterr().err


def test_the_command_is_main_and_its_result_the_exit_status():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"ddpm-edu": "ddpm_edu.cli:main"}
    done = subprocess.run([sys.executable, "-m", "ddpm_edu.cli", "bake"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "invalid choice: 'bake'" in done.stderr
