"""The two sides of a check: the learner's function, and what the checks call in its place.

`reply.here(function)` runs a call where the learner's function lives and answers with a `Reply`, which is plain data;
`Student` is what a check gets. Between them lies nothing but the arguments and the Reply, so the function may as well
live in another process: whoever grades gives `Student` a `call` that sends the arguments to a worker, and the worker
runs `here`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddpm_edu.exercises.declare import Exercise
from ddpm_edu.exercises.reply import Failure, Reply
from ddpm_edu.exercises.values import copy, describe, fault_of_form, like


@dataclass(frozen=True)
class Call:
    """One recorded call: its arguments as they were, the reply, what the reference gives, and the fault of form."""

    args: tuple[Any, ...]
    reply: Reply
    need: Any
    fault: str | None

    @property
    def own(self) -> int | None:
        """Which argument (by position) has one entry for each sample of the result, as t has; None where none has.

        Where the result is a vector, a vector of floats as long may be anything: its entries need not be samples.
        """
        if not isinstance(self.need, Tensor) or self.need.ndim == 0:
            return None
        vectors = [i for i, arg in enumerate(self.args) if isinstance(arg, Tensor) and arg.shape == self.need.shape[:1]]
        return next((i for i in vectors if self.need.ndim > 1 or not self.args[i].is_floating_point()), None)


class Refused(AssertionError):
    """The reply is not of a form the check could go on with; the recorded call says why."""


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
        fault = fault_of_reply(reply, need, dict(zip(self.exercise.parameters, args, strict=True)))
        self.calls.append(Call(tuple(copy(args)), reply, need, fault))
        if fault:
            raise Refused(fault)
        return like(reply.output, need)


def fault_of_reply(reply: Reply, need: Any, arguments: dict[str, Any]) -> str | None:
    """The sentence that says what is wrong with a reply before its values are looked at; None when nothing is."""
    if reply.failure:
        cause = _cause_of_failure(reply.failure, need, arguments)
        where = f" in {reply.failure.where}" if reply.failure.where else ""
        return f"Your function stopped{where}: {reply.failure.message.rstrip('.')}.{cause}"
    if isinstance(reply.output, Tensor) and (cause := _not_indexed(reply.output.shape, "", need, arguments)):
        return f"You returned {describe(reply.output)}, needed is {describe(need)}:{cause}"
    if fault := fault_of_form(reply.output, need):
        return fault
    if reply.mutated:
        names = ", ".join(f"`{list(arguments)[i]}`" for i in reply.mutated)
        return f"Your function changes its argument {names} in place (+=, mul_, x[...] = ...): work on a new tensor."
    return None


def _cause_of_failure(failure: Failure, need: Any, arguments: dict[str, Any]) -> str:
    """The likely cause of an exception, as a sentence to follow its message; empty when none stands out."""
    if "one element tensors" in failure.message and (called := re.search(r"\bmath\.(\w+)\(", failure.where)):
        return f" `math.{called[1]}` takes one number: use `torch.{called[1]}` (or `.{called[1]}()`)."
    if "must match the size of tensor" in failure.message:
        sizes = [int(size) for size in re.findall(r"\((\d+)\)", failure.message)]
        if cause := _not_indexed(sizes, failure.where, need, arguments):
            return cause
    return next((cause for part, cause in _CAUSE_OF_FAILURE.items() if part in failure.message), "")


def _not_indexed(sizes: Sequence[int], line: str, need: Any, arguments: dict[str, Any]) -> str:
    """Names the vector over all times that was used whole, if its length is among `sizes` where it has no place.

    `line`: where it went wrong, when that is known; a vector that this line only indexes is not suspected.
    """
    fitting = tuple(need.shape) if isinstance(need, Tensor) else ()
    for name, value in arguments.items():
        vector = isinstance(value, Tensor) and value.ndim == 1 and "t" in arguments and name != "t"
        whole = name not in line or re.search(rf"\b{name}\b(?!\[)", line)
        if vector and whole and len(value) in sizes and len(value) not in fitting:
            return f" `{name}` has T + 1 entries, one a time: pick with `{name}[t]`."
    return ""


_CAUSE_OF_FAILURE = {
    "must match the size of tensor": (
        " A factor of one number a sample must have as many axes as x to meet it: (b, 1) for points, (b, 1, 1, 1) "
        "for images."
    ),
    "tensors used as indices must be": " An index must be whole numbers: t as it comes, not t / T.",
    "is not defined": " Is it misspelt, or defined in another cell?",
    "only one element tensors": " A tensor of many numbers stands where Python wants one: use the whole of it.",
    "only integer tensors of a single element": " t holds many times: index a tensor with it, not a list.",
    "recursion": " Does the function call itself?",
}
