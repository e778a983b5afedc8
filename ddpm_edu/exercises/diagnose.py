"""From a failed check to the one sentence the learner reads first.

The replies are compared with what each mistake of the catalogue gives for the recorded arguments: a mistake that gives
the same is named. Where none does, the fault of form is said, or what the wrong values have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_edu.exercises.declare import Exercise, Mistake
from ddpm_edu.exercises.reply import Reply, here
from ddpm_edu.exercises.student import Call
from ddpm_edu.exercises.values import copy, near, number, same, size


def name_mistake(exercise: Exercise, calls: Sequence[Call], failed: Sequence[Call]) -> Mistake | None:
    """The mistake that gives the learner's replies to every call of the first failed check, and to most calls overall.

    A reply that is right says nothing, so at least one of the `failed` must differ from the reference.
    """
    if all(_right(call) for call in failed):
        return None

    def alike(mistake: Mistake, some: Sequence[Call]) -> Iterator[bool]:
        run = here(mistake.function)
        return (_same_reply(call.reply, run(*call.args), call.need) for call in some)

    matching = [mistake for mistake in exercise.mistakes if all(alike(mistake, failed))]
    if len(matching) < 2:
        return matching[0] if matching else None
    return max(matching, key=lambda mistake: sum(alike(mistake, calls)))


def describe_failure(
    exercise: Exercise, call: Callable[..., Reply], calls: Sequence[Call], failed: Sequence[Call]
) -> str:
    """One sentence on a failure that is no known mistake.

    call: the answer, to be asked once more. calls: all that were recorded; failed: those of the first failed check.
    """
    if fault := next((one.fault for one in failed if one.fault), None):
        return fault
    wrong = [one for one in calls if not one.fault and not _right(one)]
    if any(not same(call(*copy(one.args)).output, one.reply.output) for one in wrong[:1]):
        return "Your function gives another result each time: draw nothing in it, use the noise it is given."
    right = [one for one in calls if _right(one)]
    unknown = "Not right yet, and like none of the mistakes known here: try the hint."
    return next(_looks(exercise, right, wrong), unknown)


def _right(call: Call) -> bool:
    return call.fault is None and same(call.reply.output, call.need)


def _same_reply(one: Reply, other: Reply, need: Any) -> bool:
    if one.failure and other.failure:  # alike when the same thing went wrong with the same sizes
        return _gist(one.failure.message) == _gist(other.failure.message)
    sizes = [torch.as_tensor(reply.output).shape for reply in (one, other) if number(reply.output)]
    if len(set(sizes)) > 1:  # before anything is reckoned with what may be far too large
        return False
    outputs = (_tame(reply.output, need) for reply in (one, other))
    return one.failure is other.failure and one.mutated == other.mutated and same(*outputs)


def _tame(output: Any, need: Any) -> Any:
    """Numbers as multiples of the right ones' size, all of the far larger ones alike.

    Where a mistake divides by next to nothing, rounding alone decides how large the result is.
    """
    if not (number(output) and number(need)):
        return output
    return (torch.as_tensor(output).double() / (size(torch.as_tensor(need)) or 1.0)).atan()


def _gist(message: str) -> tuple[str, list[str]]:
    """An exception's type and the numbers in its message: whichever tensor torch calls a, and which b."""
    kind, _, words = message.partition(":")
    return kind, sorted(word.strip("()[],.") for word in words.split() if any(map(str.isdigit, word)))


def _looks(exercise: Exercise, right: Sequence[Call], wrong: Sequence[Call]) -> Iterator[str]:
    """What the wrong values have in common, the most telling first, without giving away the right ones."""
    outputs = [call.reply.output for call in wrong]
    for i, parameter in enumerate(exercise.parameters):
        if wrong and all(same(call.reply.output, _listed(call.args[i])) for call in wrong):
            yield f"Your function gives back its argument `{parameter}` as it came."
    tensors = [output for output in outputs if isinstance(output, Tensor) and output.numel() > 1]
    if tensors and all((output == output.flatten()[0]).all() for output in tensors):
        yield "Your result is the same number everywhere, whatever goes in."
    if len(outputs) > 1 and all(same(output, outputs[0]) for output in outputs):
        yield "Your function gives the same result whatever goes in."
    pairs = [
        (torch.as_tensor(call.reply.output).double(), torch.as_tensor(call.need).double())
        for call in wrong
        if number(call.need)
    ]
    if pairs and len(pairs) == len(wrong):
        yield from _relations(pairs)
        yield from _by_row(exercise, wrong, [near(got, need) for got, need in pairs])
        fits, fails = ({tuple(torch.as_tensor(call.need).shape) for call in some} for some in (right, wrong))
        if fits and fits.isdisjoint(fails):
            words = (" and ".join(map(str, sorted(shapes))) for shapes in (fits, fails))
            yield "Your result is right for shape {}, and wrong for {}.".format(*words)


def _relations(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[str]:
    """One simple relation that holds between all that came and all that should have; of 2 numbers or more."""
    got, need = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    if len(got) < 2:
        return
    factor, offset = (got @ need / need.square().sum()).item(), (got - need).mean()
    if all(same(a, -b) for a, b in pairs):
        yield "Only the sign is wrong: every value is the negative of the right one."
    if all(same(a, factor * b) for a, b in pairs):
        yield f"Your result is {factor:.4g} times what it should be, everywhere."
    if all(same(a.abs(), b.abs()) for a, b in pairs):
        yield "Every value has the right size, but some have the wrong sign."
    if all(same(a - offset, b) for a, b in pairs):
        yield "Your result is off by the same number everywhere."


def _by_row(exercise: Exercise, wrong: Sequence[Call], close: Sequence[Tensor]) -> Iterator[str]:
    """Which rows (samples, or entries of a vector) are right in every wrong result, if there is an order to it.

    close: for each wrong result, where it is right.
    """
    if len({call.own for call in wrong}) > 1 or not all(part.ndim and len(part) > 1 for part in close):
        return
    rows = [part.reshape(len(part), -1).all(1) for part in close]
    first_alone = all(row[0] for row in rows) and not rows[0][1:].any()
    own = wrong[0].own
    if own is None:
        low, high = "the first entries", "the last"
        if first_alone:
            yield "Entry 0 is right, later entries are not: how do you get from one to the next?"
    else:
        t = exercise.parameters[own]
        low, high = f"small `{t}`", f"large `{t}`"
        if first_alone:
            yield f"The first sample is right and others are not: does each sample use its own `{t}`?"
        rows = [row[call.args[own].argsort()] for row, call in zip(rows, wrong, strict=True)]
    if rows[0].any():
        steps = torch.cat([row.int().diff() for row in rows])
        if (steps <= 0).all():
            yield f"Your result is right for {low}, and wrong for {high}."
        if (steps >= 0).all():
            yield f"Your result is right for {high}, and wrong for {low}."


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
