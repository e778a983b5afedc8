"""One call of a learner's function, and what comes of it: a `Reply`, which is plain data.

`here(function)` runs calls where the function lives, which may be another process than that of the checks. So this
module needs nothing of the course but `values`, and knows no exercise.
"""

from __future__ import annotations

import inspect
import io
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import CodeType
from typing import Any

from ddpm_edu.exercises.values import copy, plain, same

MOST_PRINTED = 2000  # characters of a learner's own print() that are kept, of each call


@dataclass(frozen=True)
class Failure:
    """An exception in the learner's code, in words: nothing of it is code any more."""

    message: str  # "ZeroDivisionError: division by zero"
    where: str  # "line 4 of your cell, `return x / 0`", or "" when it is unknown
    trace: str  # the learner's own frames
    untried: bool = False  # the stub's bare NotImplementedError


@dataclass(frozen=True)
class Reply:
    """What came of one call: its output as plain data, or its failure; and which arguments (by position) it changed."""

    output: Any = None
    failure: Failure | None = None
    mutated: tuple[int, ...] = ()
    printed: str = ""
    warned: str = ""  # Python's first warning


def here(function: Callable[..., Any]) -> Callable[..., Reply]:
    """`function` as something that takes copies of plain arguments, never raises, and answers with a Reply."""

    def call(*args: Any) -> Reply:
        given, before = copy(args), copy(args)
        printed = _Head()
        try:
            with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings(record=True) as caught:
                output = plain(function(*given))
            failure = None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and pytest's own outcomes are failures of the answer, too
            output, failure = None, _failure(error, function)
        mutated = tuple(i for i, (a, b) in enumerate(zip(given, before, strict=True)) if not same(a, b, rtol=0))
        return Reply(output, failure, mutated, printed.text, _first_warning(caught))

    return call


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """The function's code; None where there is none (a class, a method written in C, a functools.partial)."""
    return getattr(inspect.unwrap(function), "__code__", None)


def _failure(error: BaseException, function: Callable[..., Any]) -> Failure:
    told = traceback.TracebackException.from_exception(error, limit=-50)
    code = code_of(function)
    own = [frame for frame in told.stack if code and frame.filename == code.co_filename]
    message = " ".join("".join(told.format_exception_only()).split())
    message = message if len(message) <= 300 else f"{message[:297]}..."
    lines = [f"line {frame.lineno} of your cell, in {frame.name}\n    {frame.line}" for frame in own[-9:]]
    return Failure(
        message=message,
        where=f"line {own[-1].lineno} of your cell, `{own[-1].line}`" if own and own[-1].line else "",
        trace="\n".join([*lines, message]),
        # as the stub has it; torch raises the same type where it lacks a dtype, but with words
        untried=type(error) is NotImplementedError and not error.args,
    )


def _first_warning(caught: list[warnings.WarningMessage]) -> str:
    """The first warning in one line, as Python would print it but for its place."""
    if not caught:
        return ""
    return " ".join(f"{caught[0].category.__name__}: {caught[0].message}".split())[:300]


class _Head(io.TextIOBase):
    """A stream that keeps the first characters written to it, and lets the rest go."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: max(0, MOST_PRINTED - len(self.text))]
        return len(text)
