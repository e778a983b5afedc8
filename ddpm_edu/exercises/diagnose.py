"""From a failed check to the one sentence the learner reads first.

The replies are compared with what each mistake of the catalogue gives for the recorded arguments: a mistake that gives
the same is named. Where none does, the fault of form or the look of the values is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ddpm_edu.exercises.declare import Exercise, Mistake
from ddpm_edu.exercises.student import Call, Reply, here
from ddpm_edu.exercises.values import number, same


def name_mistake(exercise: Exercise, calls: Sequence[Call], failed: Sequence[Call]) -> Mistake | None:
    """The mistake that gives the learner's replies to every call of the first failed check, and to most calls overall.

    A reply that is right says nothing, so at least one of the `failed` must differ from the reference.
    """
    if all(_right(call) for call in failed):
        return None

    def alike(mistake: Mistake, some: Sequence[Call]) -> int:
        run = here(mistake.function)
        return sum(_same_reply(call.reply, run(*call.args)) for call in some)

    matching = [mistake for mistake in exercise.mistakes if alike(mistake, failed) == len(failed)]
    return max(matching, key=lambda mistake: alike(mistake, calls), default=None)


def describe_failure(exercise: Exercise, failed: Sequence[Call], row: str) -> str:
    """One sentence on a failure that is no known mistake; `row` is what the failed check says of itself."""
    fault = next((call.fault for call in failed if call.fault), None)
    return (
        fault
        or _look_of_values(exercise, [call for call in failed if not _right(call)])
        or f"Not yet true of yours: {row}."
    )


def _right(call: Call) -> bool:
    return call.fault is None and same(call.reply.output, call.need)


def _same_reply(one: Reply, other: Reply) -> bool:
    if one.failure and other.failure:  # alike when the same thing went wrong with the same sizes
        return _gist(one.failure.message) == _gist(other.failure.message)
    return one.failure is other.failure and one.mutated == other.mutated and same(one.output, other.output)


def _gist(message: str) -> tuple[str, list[str]]:
    """An exception's type and the numbers in its message: whichever tensor torch calls a, and which b."""
    kind, _, words = message.partition(":")
    return kind, sorted(word.strip("()[],.") for word in words.split() if any(map(str.isdigit, word)))


def _look_of_values(exercise: Exercise, wrong: Sequence[Call]) -> str | None:
    """What the wrong values have in common, in one sentence, without giving away the right ones."""
    if not wrong:
        return None
    outputs = [call.reply.output for call in wrong]
    for i, parameter in enumerate(exercise.parameters):
        if all(same(call.reply.output, _listed(call.args[i])) for call in wrong):
            return f"Your function gives back its argument `{parameter}` as it came."
    tensors = [output for output in outputs if isinstance(output, Tensor) and output.numel() > 1]
    if tensors and all((output == output.flatten()[0]).all() for output in tensors):
        return "Your result is the same number everywhere, whatever goes in."
    if len(outputs) > 1 and all(same(output, outputs[0]) for output in outputs):
        return "Your function gives the same result whatever goes in."
    if all(number(call.need) and same(-1 * call.reply.output, call.need) for call in wrong):
        return "Only the sign is wrong: every value is the negative of the right one."
    if all(_first_sample_right(call) for call in wrong):
        return "The first sample is right and others are not: does each sample use its own t?"
    return None


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _first_sample_right(call: Call) -> bool:
    got, need = call.reply.output, call.need
    return (
        isinstance(got, Tensor)
        and isinstance(need, Tensor)
        and need.ndim > 0
        and len(need) > 1
        and same(got[0], need[0])
    )
