"""The two sides of a check: the learner's function, and what the checks call in its place.

`here(function)` runs a call where the learner's function lives and answers with a `Reply`, which is plain data;
`Student` is what a check gets. Between them lies nothing but the arguments and the Reply, so the function may as well
live in another process: whoever grades gives `Student` a `call` that sends the arguments to a worker, and the worker
runs `here`.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from ddpm_edu.exercises.cell import code_of
from ddpm_edu.exercises.declare import Exercise
from ddpm_edu.exercises.values import copy, fault_of_form, like, plain, same

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


@dataclass(frozen=True)
class Call:
    """One recorded call: its arguments as they were, the reply, what the reference gives, and the fault of form."""

    args: tuple[Any, ...]
    reply: Reply
    need: Any
    fault: str | None


class Refused(AssertionError):
    """The reply is not of a form the check could go on with; the recorded call says why."""


def here(function: Callable[..., Any]) -> Callable[..., Reply]:
    """`function` as something that takes copies of plain arguments, never raises, and answers with a Reply."""

    def call(*args: Any) -> Reply:
        given, before = copy(args), copy(args)
        printed = _Head()
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                output = plain(function(*given))
            failure = None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and pytest's own outcomes are failures of the answer, too
            output, failure = None, _failure(error, function)
        mutated = tuple(i for i, (a, b) in enumerate(zip(given, before, strict=True)) if not same(a, b, rtol=0))
        return Reply(output, failure, mutated, printed.text)

    return call


@dataclass
class Student:
    """What a check calls: `student.q_step(...)`. Records every call, and refuses a reply whose form is wrong.

    The reference is called with the same arguments, and says what form is right; so a check is handed only tensors of
    the right shape and dtype, and may reckon with them as it likes.
    """

    exercise: Exercise
    call: Callable[..., Reply]
    calls: list[Call] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name != self.exercise.name:
            raise AttributeError(f"The checks of {self.exercise.id} may call student.{self.exercise.name}, not {name}.")
        return self._ask

    def _ask(self, *args: Any) -> Any:
        reply, need = self.call(*copy(args)), self.exercise(*copy(args))
        fault = fault_of_reply(reply, need, self.exercise.parameters)
        self.calls.append(Call(tuple(copy(args)), reply, need, fault))
        if fault:
            raise Refused(fault)
        return like(reply.output, need)


def fault_of_reply(reply: Reply, need: Any, parameters: tuple[str, ...]) -> str | None:
    """The sentence that says what is wrong with a reply before its values are looked at; None when nothing is."""
    if reply.failure:
        cause = next((cause for part, cause in _CAUSE_OF_FAILURE.items() if part in reply.failure.message), "")
        where = f" in {reply.failure.where}" if reply.failure.where else ""
        return f"Your function stopped{where}: {reply.failure.message.rstrip('.')}.{cause}"
    if fault := fault_of_form(reply.output, need):
        return fault
    if reply.mutated:
        names = ", ".join(f"`{parameters[i]}`" for i in reply.mutated)
        return f"Your function changes its argument {names} in place (+=, mul_, x[...] = ...): work on a new tensor."
    return None


_CAUSE_OF_FAILURE = {
    "must match the size of tensor": " A factor of shape (b,) must have as many axes as x to meet it: (b, 1, ...).",
    "tensors used as indices must be": " An index must be whole numbers: t as it comes, not t / T.",
    "is not defined": " Is it misspelt, or defined in another cell?",
    "only one element tensors": " t holds one time for each sample: index with the whole of it.",
    "only integer tensors of a single element": " t holds many times: index a tensor with it, not a list.",
    "recursion": " Does the function call itself?",
}


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


class _Head(io.TextIOBase):
    """A stream that keeps the first characters written to it, and lets the rest go."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: max(0, MOST_PRINTED - len(self.text))]
        return len(text)
