"""Plain values: what goes into a learner's function and what comes out of it.

Plain are tensors, numbers, strings, None, and lists and dicts of these: what can be copied, compared, and carried to
another process. Whatever else a function returns becomes an `Opaque`, of which nothing but the name of its type is
known, so that nothing a learner's object does (an __eq__ that raises, a list without end) reaches the checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

RTOL = 1e-4  # float32 sums in any order agree far closer than this; the mistakes are all far off
LONGEST = 10_000  # elements of a list or dict that are looked at


@dataclass(frozen=True)
class Opaque:
    """A value that is not plain, known by the name of its type."""

    type: str


def plain(value: Any) -> Any:
    """`value` as plain data, copied; an Opaque in place of what is not plain. Never raises."""
    kind = type(value)
    try:
        if value is None or kind in (str, bool) or (kind is int and -(2**63) <= value < 2**63):  # as torch holds them
            return value
        if issubclass(kind, Tensor):
            if value.is_complex():
                return Opaque("complex tensor")
            return value.detach().as_subclass(Tensor).cpu().clone()
        if issubclass(kind, Real):  # NumPy's numbers among them
            return float(value)
        if kind in (list, tuple) and len(value) <= LONGEST:
            return [plain(item) for item in value]
        if kind is dict and len(value) <= LONGEST and all(type(key) is str for key in value):
            return {key: plain(item) for key, item in value.items()}
    except Exception:  # a subclass may do anything: it is then a thing known by its type
        pass
    return Opaque(
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
    )


def copy(value: Any) -> Any:
    """An independent copy of plain data; anything else (a function) is passed on as it is."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return [copy(item) for item in value]
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    return value


def number(value: Any) -> bool:
    """Is it a tensor or a number, and so a tensor after `torch.as_tensor`?"""
    return isinstance(value, Tensor) or (isinstance(value, int | float) and not isinstance(value, bool))


def same(got: Any, need: Any, rtol: float = RTOL) -> bool:
    """Equal plain data: numbers within `rtol` of their own size or of the tensor's mean size, the rest exactly."""
    if isinstance(got, Tensor) and isinstance(need, Tensor) and got.dtype == need.dtype and torch.equal(got, need):
        return True  # the usual case, and many times faster than what follows
    if number(got) and number(need):
        got, need = torch.as_tensor(got), torch.as_tensor(need)
        return got.shape == need.shape and bool(near(got, need, rtol).all())
    if isinstance(got, list) and isinstance(need, list | tuple):
        return len(got) == len(need) and all(same(a, b, rtol) for a, b in zip(got, need, strict=True))
    if isinstance(got, dict) and isinstance(need, dict):
        return got.keys() == need.keys() and all(same(got[key], need[key], rtol) for key in need)
    return type(got) is type(need) and got == need


def near(got: Tensor, need: Tensor, rtol: float = RTOL) -> Tensor:
    """Where two tensors of one shape agree within `rtol` of their own size or of the mean size of `need`."""
    got, need = got.to(torch.float64), need.to(torch.float64)
    return torch.isclose(got, need, rtol=rtol, atol=rtol * size(need), equal_nan=True)


def size(values: Tensor) -> float:
    """The mean size (root mean square) of what is finite in a tensor; 0 where nothing is."""
    finite = values[values.isfinite()].to(torch.float64)
    return finite.square().mean().sqrt().item() if finite.numel() else 0.0


def agree(got: Any, need: Any, rtol: float = RTOL) -> None:
    """Fail the check, without a word about the values, unless both are the same up to rounding (see `same`)."""
    assert same(plain(got), plain(need), rtol), "the values differ"


def describe(value: Any) -> str:
    """A plain value's kind in words: "a tensor of shape (4, 2)", "a list or tuple of 3", "a generator"."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.ndim else "a tensor of one number, shape ()"
    if isinstance(value, list | dict):
        kind = "dict" if isinstance(value, dict) else "list or tuple"
        return f"a {kind} of {len(value)}"
    name = value.type if isinstance(value, Opaque) else type(value).__name__
    return "None" if value is None else f"a{'n' if name[0] in 'aeio' else ''} {name}"


def fault_of_form(got: Any, need: Any) -> str | None:
    """What is wrong with the form of `got`: its type, shape, dtype, NaN. None when nothing is.

    One sentence. Afterwards `got` may be used wherever `need` may (see `like`).
    """
    if got is None:
        return f"Your function returned None, where {describe(need)} is needed: is its `return` missing?"
    if isinstance(need, Tensor) and number(got):
        got = torch.as_tensor(got)
        if got.shape != need.shape:
            cause = _cause_of_shape(tuple(got.shape), tuple(need.shape))
            return _sentence(f"You returned shape {tuple(got.shape)}, needed is {tuple(need.shape)}{cause}")
        if need.is_floating_point() and not got.is_floating_point() and got.ndim:
            return (
                f"You returned numbers of type {_dtype(got)}, needed are {_dtype(need)}: a float was lost on the way."
            )
        if got.dtype in (torch.float16, torch.bfloat16) and need.dtype not in (torch.float16, torch.bfloat16):
            return f"You returned {_dtype(got)}, too coarse to go on with: compute in {_dtype(need)}."
        if need.isfinite().all() and got.isnan().any():
            return "Your result has NaN in it: the root or the logarithm of a negative number, or 0 / 0."
        if need.isfinite().all() and got.isinf().any():
            return "Your result has infinite values: a division by 0, at an index where a coefficient is 0."
        return None
    if isinstance(need, list | tuple) and isinstance(got, list):
        if len(got) != len(need):
            return f"You returned {describe(got)}, needed is {describe(list(need))}."
        return next((fault for pair in zip(got, need, strict=True) if (fault := fault_of_form(*pair))), None)
    if isinstance(need, dict) and isinstance(got, dict):
        if got.keys() != need.keys():
            return f"Your dict has the keys {sorted(got)[:9]}, needed are {sorted(need)}."
        return next((fault for key in need if (fault := fault_of_form(got[key], need[key]))), None)
    if type(got) is type(need):
        return None
    cause = _CAUSE_OF_TYPE.get(_type(got), "")
    if isinstance(got, list) and len(got) == 1 and number(got[0]):
        cause = ": is there a stray comma behind the return value, or are there brackets around it?"
    return _sentence(f"You returned {describe(got)}, needed is {describe(plain(need))}{cause}")


def like(got: Any, need: Any) -> Any:
    """`got`, whose form is right, exactly in the form of `need`: its dtype, a tensor for a number."""
    if isinstance(need, Tensor):
        return torch.as_tensor(got).to(need.dtype)
    if isinstance(need, list | tuple):
        return [like(*pair) for pair in zip(got, need, strict=True)]
    if isinstance(need, dict):
        return {key: like(got[key], need[key]) for key in need}
    return got


_CAUSE_OF_TYPE = {
    "numpy.ndarray": ": stay with torch, or end with `torch.from_numpy(...)`",
    "generator": ": is there a `yield` where `return` is meant, or a list without its brackets?",
    "function": ": you returned a function itself; call it with ()",
    "builtin_function_or_method": ": you returned a method itself; call it with ()",
    "type": ": you returned a class itself; make an object with ()",
    "coroutine": ": leave out `async`",
    "ellipsis": ": the `...` still stands for your answer",
    "list": ": make one tensor of it with `torch.stack(...)` or `torch.tensor(...)`",
}


def _sentence(words: str) -> str:
    return words if words.endswith("?") else f"{words}."


def _type(value: Any) -> str:
    return value.type if isinstance(value, Opaque) else type(value).__name__


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _cause_of_shape(got: tuple[int, ...], need: tuple[int, ...]) -> str:
    """The likely cause of a wrong shape, as the end of a sentence; empty when none stands out."""
    if len(got) > len(need):
        return ": two shapes were stretched against each other; give per-sample factors as many axes as x has"
    if got == ():
        return ": something sums or averages over every axis"
    if got == need[1:]:
        return ": the batch axis is gone; did you sum or average over it, or use one sample's t for all?"
    if got == need[: len(got)] and len(got) < len(need):
        return ": the axes after the batch are gone; did you sum or average over them?"
    if len(got) == len(need) == 1 and abs(got[0] - need[0]) == 1:
        return f": {'one entry is missing' if got < need else 'one entry too many'}; look at index 0 and at the last"
    if got != need and sorted(got) == sorted(need):
        return ": two axes have changed places (transposed?)"
    if len(got) == len(need) and all(g == n or 1 in (g, n) for g, n in zip(got, need, strict=True)):
        return ": an axis of size 1 was lost or stretched against another"
    return ""
