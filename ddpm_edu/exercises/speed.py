"""Whether a right answer is far too slow for the cells that call it on thousands of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import Exercise
from ddpm_edu.exercises.reply import here
from ddpm_edu.exercises.student import Call

ROWS = (20, 60, 200, 600, 2000)
ENOUGH = 0.01  # seconds of one call after which no larger batch is tried
TIMES_SLOWER = 50  # a loop over 2,000 samples takes several hundred times as long as broadcasting


def slow(exercise: Exercise, answer: Callable[..., Any], calls: Sequence[Call]) -> bool:
    """Is the answer more than 50 times slower than the reference on a large batch? Takes 0.2 s at most.

    The batch repeats the rows of the first recorded call that has any, up to 2,000; without such a call, False.
    """
    call = next((call for call in calls if call.own is not None), None)
    if call is None:
        return False
    for rows in ROWS:
        args = [_repeated(arg, len(call.need), rows) for arg in call.args]
        spent = _seconds(answer, args)
        if spent > ENOUGH:
            break
    # each once more: a machine that is busy elsewhere must not make an answer slow
    needed = min(_seconds(exercise.reference, args) for _ in range(2))
    return min(spent, _seconds(answer, args)) > TIMES_SLOWER * needed


def _repeated(arg: Any, b: int, rows: int) -> Any:
    """An argument of `b` rows as one of `rows`; any other as it is."""
    return arg[torch.arange(rows) % b] if isinstance(arg, Tensor) and arg.shape[:1] == (b,) else arg


def _seconds(function: Callable[..., Any], args: Sequence[Any]) -> float:
    def timed(*given: Any) -> float:
        start = perf_counter()
        function(*given)
        return perf_counter() - start

    return here(timed)(*args).output or 0.0  # an answer that raises here, but not in the checks, is not slow
