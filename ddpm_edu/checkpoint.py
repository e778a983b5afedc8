"""Files that hold tensors and plain values: safetensors, read without running anything, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn


def save(path: Path, tree: dict[str, Any]) -> None:
    """Writes nested dicts, lists, numbers, strings and tensors. The file appears complete under its name or not at all:
    a write that is killed leaves the one before it untouched."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    outline = json.dumps(_take_out(tree, tensors))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(serialise(tensors, metadata={"outline": outline}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save` wrote. A file that is cut short or is none of ours raises ValueError with one sentence."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}; train one, or check the path.")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return _put_back(json.loads((file.metadata() or {})["outline"]), tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint of this course ({error}); delete it and train or fetch it again."
        ) from None


def load_weights(net: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Puts weights into a network; those of another network raise ValueError that names the first difference."""
    own = net.state_dict()
    for name in sorted(own.keys() | state.keys()):
        shapes = [tuple(d[name].shape) if name in d else "missing" for d in (own, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{where} holds another network: {name} is {shapes[1]} there and {shapes[0]} here.")
    net.load_state_dict(state)


# JSON knows neither tensors nor integer keys (optimizers have those), so dicts are written as lists of pairs.


def _take_out(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        key = str(len(tensors))
        tensors[key] = node.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(node, dict):
        return {"pairs": [[key, _take_out(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {"list": [_take_out(value, tensors) for value in node]}
    return node


def _put_back(node: Any, tensors: dict[str, Tensor]) -> Any:
    match node:
        case {"tensor": key}:
            return tensors[key]
        case {"pairs": pairs}:
            return {key: _put_back(value, tensors) for key, value in pairs}
        case {"list": values}:
            return [_put_back(value, tensors) for value in values]
    return node
