"""Every exercise of the course: its reference passes, its stub fails kindly, and every wrong answer fails and is named.

All of it on one seed, then the reference and the mistakes on others, as a class being graded meets them.
"""

from __future__ import annotations

import linecache
import math

import pytest
import torch
from answers import gathered

from ddpm_edu.exercises import PREAMBLE, agree, attempt, catalogue, find, hint, solution, stub
from ddpm_edu.exercises.declare import Exercise
from ddpm_edu.exercises.nb07 import CAUSES, FAULTS, SYMPTOMS, diagnose
from ddpm_edu.exercises.reply import here
from ddpm_edu.exercises.values import copy, plain, same

EXERCISES = catalogue()
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)


def in_its_cell(source: str, name: str):
    """The function that a cell with this source defines after the preamble, as grading sees it."""
    names: dict = {}
    exec(PREAMBLE, names)
    exec(compile(source, "<cell>", "exec", dont_inherit=True), names)  # a cell has no `from __future__`
    return names[name]


@each
def test_the_declaration_is_complete(exercise: Exercise):
    assert len(exercise.checks) >= 2
    assert len(exercise.mistakes) >= 5
    assert len(exercise.hints) >= 2
    assert "Returns" in (exercise.reference.__doc__ or "")
    assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)
    assert all(test.__doc__ and test.__name__.startswith("test_") for test in exercise.checks)
    for mistake in exercise.mistakes:
        assert mistake.sentence.endswith("."), mistake.sentence
        assert len(mistake.sentence) < 200, mistake.sentence
    assert len({mistake.sentence for mistake in exercise.mistakes}) == len(exercise.mistakes)


@each
def test_the_reference_passes(exercise: Exercise):
    for seed in range(5):
        outcome = attempt(exercise, exercise.reference, seed)
        assert outcome.passed, (seed, outcome.sentence)
        assert outcome.sentence == ""


@each
def test_the_solution_passes_in_a_cell_of_its_own(exercise: Exercise, capsys):
    solution(exercise.id)
    shown = capsys.readouterr().out
    source = shown[shown.index("  def ") :].replace("\n  ", "\n").removeprefix("  ")
    assert attempt(exercise, in_its_cell(source, exercise.name)).passed


@each
def test_the_stub_is_not_attempted_yet(exercise: Exercise):
    assert stub(exercise.id).startswith(f"def {exercise.name}(")
    answer = in_its_cell(stub(exercise.id), exercise.name)
    assert answer.__doc__ == exercise.reference.__doc__
    outcome = attempt(exercise, answer)
    assert outcome.untried
    assert not outcome.passed
    assert outcome.sentence.startswith("Not attempted yet")


@each
def test_every_mistake_fails_and_is_named(exercise: Exercise):
    for seed in (0, 1):
        for mistake in exercise.mistakes:
            outcome = attempt(exercise, mistake.function, seed)
            named = outcome.mistake and outcome.mistake.name
            assert not outcome.passed, f"seed {seed}: the checks let {mistake.name} through"
            assert named == mistake.name, f"seed {seed}: {mistake.name} is called {named}: {outcome.sentence}"
            assert outcome.sentence == mistake.sentence


def constant(exercise: Exercise):
    kept: list = []

    def answer(*args):
        kept.append(exercise(*args))
        return kept[0]

    return answer


def on_every_tensor(change, exercise: Exercise):
    def changed(value):
        if isinstance(value, list | tuple):
            return [changed(item) for item in value]
        return change(value) if isinstance(value, torch.Tensor) else value

    return lambda *args: changed(exercise(*args))


def mutating(exercise: Exercise):
    def answer(*args):
        result = exercise(*args)
        for arg in args:
            for value in arg if isinstance(arg, list) else [arg]:
                if isinstance(value, torch.Tensor):
                    value.zero_()
        return result

    return answer


AUTOMATIC = {
    "None": lambda exercise: lambda *args: None,
    "the first argument": lambda exercise: lambda *args: args[0],
    "zeros": lambda exercise: on_every_tensor(torch.zeros_like, exercise),
    "ones": lambda exercise: on_every_tensor(torch.ones_like, exercise),
    "transposed": lambda exercise: on_every_tensor(lambda x: x.transpose(0, -1) if x.ndim else x, exercise),
    "NaN": lambda exercise: on_every_tensor(lambda x: x * math.nan, exercise),
    "rounded": lambda exercise: on_every_tensor(lambda x: x.round(), exercise),
    "a little off": lambda exercise: on_every_tensor(lambda x: 1.002 * x, exercise),
    "of each batch only the first right": lambda exercise: on_every_tensor(
        lambda x: torch.cat([x[:1], 0 * x[1:]]) if x.ndim else x, exercise
    ),
    "numpy": lambda exercise: on_every_tensor(lambda x: x.numpy(), exercise),
    "an axis more": lambda exercise: on_every_tensor(lambda x: x[None], exercise),
    "a constant": constant,
    "mutating": mutating,
}


@each
@pytest.mark.parametrize("kind", AUTOMATIC)
def test_automatic_wrong_answers_fail(exercise: Exercise, kind: str):
    """Wherever one differs from the reference on the calls the checks make, in its values or in what it changes."""
    calls = attempt(exercise, exercise.reference).calls
    run = here(AUTOMATIC[kind](exercise))
    replies = [run(*copy(call.args)) for call in calls]
    differs = any(
        reply.failure or reply.mutated or not same(reply.output, plain(call.need))
        for call, reply in zip(calls, replies, strict=True)
    )
    outcome = attempt(exercise, AUTOMATIC[kind](exercise))
    assert outcome.passed == (not differs), outcome.sentence
    if differs:
        assert outcome.sentence.endswith((".", "?"))
        assert "\n" not in outcome.sentence


RIGHT: dict = {id: answers for chapter in gathered("RIGHT") for id, answers in chapter.items()}


@each
def test_right_answers_written_another_way_pass(exercise: Exercise):
    for i, answer in enumerate(RIGHT[exercise.id]):
        for seed in (0, 1, 2):
            outcome = attempt(exercise, answer, seed)
            assert outcome.passed, f"variant {i}, seed {seed}: {outcome.sentence}"


WRONG = [answer for chapter in gathered("WRONG") for answer in chapter]


@pytest.mark.parametrize(("id", "lines", "words"), WRONG)
def test_what_learners_write_gets_its_sentence(id, lines, words):
    asked = find(id)
    source = "\n    ".join([f"def {asked.name}({', '.join(asked.parameters)}):", *lines]) + "\n"
    name = f"<cell of {id}: {lines[-1]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names: dict = {}
    exec(PREAMBLE, names)
    exec(compile(source, name, "exec", dont_inherit=True), names)
    outcome = attempt(asked, names[asked.name])
    assert not outcome.passed
    assert words in outcome.sentence


def test_the_third_check_of_05_5_tells_apart_at_a_middle_t():
    """Where alpha_bar is 1/2 it could not: signal and noise are alike there, and a root changes little."""
    asked = find("05.5")
    for name in ("signal_deviation_in_variance", "signal_and_noise_swapped", "unit_variance"):
        wrong = next(mistake.function for mistake in asked.mistakes if mistake.name == name)
        for seed in range(3):
            assert attempt(asked, wrong, seed).rows[2].passed is False, name
    for seed in range(30):
        assert attempt(asked, asked.reference, seed).passed


@each
def test_no_words_of_ours_give_the_values_away(exercise: Exercise):
    """A failed check says its sentence and its rows, never an expected value."""
    outcome = attempt(exercise, lambda *args: on_every_tensor(lambda x: x + 0.123, exercise)(*args))
    assert outcome.passed == (exercise.id in ("07.6", "11.1"))  # which return no tensor
    words = " ".join([outcome.sentence, *(row.text for row in outcome.rows)])
    for call in outcome.calls:
        if isinstance(call.need, torch.Tensor):
            for value in call.need.flatten()[:20].tolist():
                assert f"{value:.4f}".rstrip("0") not in words or value in (0, 1)


@each
def test_hints_come_in_turn(exercise: Exercise, capsys):
    for number, text in enumerate(exercise.hints, start=1):
        hint(exercise.id)
        shown = capsys.readouterr().out
        assert f"hint {number} of {len(exercise.hints)}" in shown
        assert text in shown
    hint(exercise.id)
    assert f'solution("{exercise.id}")' in capsys.readouterr().out


def test_the_clinic_says_the_same_everywhere():
    """The tables of the clinic, and the words written out for the learner."""
    assert {case: diagnose(case) for case in SYMPTOMS} == CAUSES
    assert set(CAUSES.values()) <= set(FAULTS)
    statement = " ".join(stub("07.6").split())
    assert all(f'"{name}": {words}' in statement for name, words in FAULTS.items())
    assert [test.__doc__ for test in diagnose.checks] == [f"{case}: {words}" for case, words in SYMPTOMS.items()]


def test_agree_is_neither_blind_nor_strict():
    x = torch.linspace(-1, 1, 101)
    agree(x.double() * (1 + 1e-6), x)
    for wrong in (1.001 * x, x + 0.001, x[:-1], -x, x[:, None]):
        with pytest.raises(AssertionError, match="the values differ"):
            agree(wrong, x)
