"""What an exercise is, and the list of them.

An exercise is one function a learner writes. Its module `nbNN.py` declares it around the reference:

    @exercise("05.1", title="One forward step", hints=("...", "..."))
    def q_step(x_prev: Tensor, t: Tensor, eps: Tensor, beta: Tensor) -> Tensor:
        '''The statement, as the learner reads it.'''
        return ...

    @q_step.mistake("The sentence that should reach whoever made it.")
    def beta_as_deviation(x_prev, t, eps, beta): ...

    @q_step.check
    def test_matches_eq_2(student, rng):
        '''the row's text in the learner's table'''
        agree(student.q_step(...), q_step(...))
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Function = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer and the one sentence that should reach the learner who gave it."""

    sentence: str
    function: Function

    @property
    def name(self) -> str:
        return self.function.__name__


@dataclass(eq=False)
class Exercise:
    """One function to write. Calling the exercise calls its reference, so that others can build on it.

    The reference is what `solution` shows, so it must run in its own cell: it uses the preamble (see `cell.py`) alone.
    """

    id: str
    title: str
    reference: Function
    hints: tuple[str, ...]
    points: int = 1
    mistakes: list[Mistake] = field(default_factory=list)
    checks: list[Function] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.reference.__name__

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.reference).parameters)

    @property
    def path(self) -> Path:
        """The file the exercise is declared in."""
        return Path(self.reference.__code__.co_filename)

    def __call__(self, *args: Any) -> Any:
        return self.reference(*args)

    def mistake(self, sentence: str) -> Callable[[Function], Function]:
        """The decorated function is a mistake; the sentence says what is wrong and why (under 200 characters)."""

        def declare(function: Function) -> Function:
            self.mistakes.append(Mistake(sentence, function))
            return function

        return declare

    def check(self, test: Function) -> Function:
        """Declare the decorated function a check: a pytest test that takes `student` and, for its inputs, `rng`."""
        self.checks.append(test)
        return test


_exercises: dict[str, Exercise] = {}


def exercise(id: str, *, title: str, hints: tuple[str, ...], points: int = 1) -> Callable[[Function], Exercise]:
    """Declare the decorated function the reference of exercise `id` ("05.2": notebook 05, second exercise)."""

    def declare(reference: Function) -> Exercise:
        if not isinstance(hints, tuple):
            raise ValueError(f"The hints of exercise {id} must be a tuple; one alone takes a comma: ('...',).")
        declared = Exercise(id, title, reference, hints, points)
        known = _exercises.get(id, declared)
        if (known.path, known.name) != (declared.path, declared.name):  # a module loaded anew declares the same again
            raise ValueError(f"Exercise {id} is both {known.name} and {declared.name}: give one of them another id.")
        _exercises[id] = declared
        return declared

    return declare


@cache
def _load() -> None:
    import ddpm_edu.exercises as package

    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("nb"):
            importlib.import_module(f"{package.__name__}.{module.name}")


def catalogue() -> list[Exercise]:
    """Every exercise of the course, in order; each with `.id`, `.title`, `.hints` and `.mistakes`."""
    _load()
    return [_exercises[id] for id in sorted(_exercises, key=lambda id: [int(part) for part in id.split(".")])]


def find(id: str) -> Exercise:
    """The exercise `id`; a ValueError that lists its neighbours when there is none."""
    _load()
    if id in _exercises:
        return _exercises[id]
    near = [known for known in sorted(_exercises) if known[:2] == str(id)[:2]] or sorted(_exercises)
    raise ValueError(f"There is no exercise {id!r}: write one of these as text, {', '.join(map(repr, near))}.")
