"""Checkpoints: what goes in comes out, a killed write loses nothing, and foreign files get one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddpm_edu import checkpoint


def tree() -> dict[str, Any]:
    return {
        "tensors": [torch.randn(3, 2), torch.arange(3), torch.zeros((), dtype=torch.float64), torch.zeros(0, 2)],
        "half": torch.ones(2, dtype=torch.float16),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "int keys": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "plain": [1, 0.1, 1e-300, "ü", None, True, [], {}],
        "tensor": {"tensor": "a key of ours", "pairs": 1},  # names the format uses itself
    }


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert type(one) is type(other)
        assert one == other


def test_round_trip(tmp_path: Path):
    before = tree()
    checkpoint.save(tmp_path / "new" / "folder" / "x.safetensors", before)
    assert_same(before, checkpoint.load(tmp_path / "new" / "folder" / "x.safetensors"))


def test_shared_strided_and_trainable_tensors(tmp_path: Path):
    """Views, transposes, channels_last and parameters are stored by value."""
    base = torch.randn(2, 3, 4, 4)
    before = {
        "a": base,
        "b": base[0],
        "c": base.mT,
        "d": base.to(memory_format=torch.channels_last),
        "e": nn.Parameter(base),
    }
    checkpoint.save(tmp_path / "x", before)
    for key, value in checkpoint.load(tmp_path / "x").items():
        assert torch.equal(value, before[key])


def test_saving_leaves_no_other_file(tmp_path: Path):
    for step in range(2):
        checkpoint.save(tmp_path / "x", {"step": step})
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "x", {"step": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert checkpoint.load(tmp_path / "x") == {"step": 1}


KILLED_WRITES = """
import os, signal, sys, torch
from ddpm_edu import checkpoint

path, replace = sys.argv[1], os.replace

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half_a_file(descriptor):
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()

def replace_then_die(*names):
    replace(*names)
    die()

for owner, name, fault in [(checkpoint, "serialise", die), (os, "fsync", half_a_file), (os, "fsync", die),
                            (os, "replace", die), (os, "replace", replace_then_die)]:
    checkpoint.save(path, {"step": 1, "w": torch.ones(1000)})
    child = os.fork()
    if child == 0:
        setattr(owner, name, fault)
        checkpoint.save(path, {"step": 2, "w": torch.full((1000,), 2.0)})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    tree = checkpoint.load(path)
    assert (tree["w"] == tree["step"]).all() and len(tree["w"]) == 1000
    print(tree["step"], end=" ")
"""


def test_a_killed_write_loses_nothing(tmp_path: Path):
    """SIGKILL before, in the middle of and after the write, before and after the rename: always a whole file."""
    code = [sys.executable, "-c", KILLED_WRITES, str(tmp_path / "x")]
    done = subprocess.run(code, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["1", "1", "1", "1", "2"], done.stderr


@pytest.mark.parametrize("content", ["truncated", "header only", "empty", "text", "another safetensors"])
def test_a_file_that_is_none_of_ours(tmp_path: Path, content: str):
    path = tmp_path / "x"
    checkpoint.save(path, tree())
    whole = path.read_bytes()
    match content:
        case "truncated":
            path.write_bytes(whole[:-1])
        case "header only":
            path.write_bytes(whole[:20])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("version https://git-lfs.github.com/spec/v1\n" * 9)
        case _:
            from safetensors.torch import save_file

            save_file({"w": torch.ones(2)}, path)
    with pytest.raises(
        ValueError, match=r"is not a whole checkpoint of this course.*delete it and train or fetch"
    ) as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*x; train one"):
        checkpoint.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (nn.Linear(3, 2), r"here\.pt holds another network: weight is \(2, 3\) there and \(2, 2\) here"),
        (nn.Linear(2, 2, bias=False), r"bias is missing there and \(2,\) here"),
        (nn.Sequential(nn.Linear(2, 2)), r"0\.bias is \(2,\) there and missing here"),
    ],
)
def test_weights_of_another_network(other: nn.Module, sentence: str):
    net = nn.Linear(2, 2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        checkpoint.load_weights(net, other.state_dict(), "here.pt")
    assert_same(before, dict(net.state_dict()))
