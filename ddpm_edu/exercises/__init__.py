"""The exercises: what a learner calls in a notebook.

    q_sample = check("05.2", q_sample)    # runs the checks; the cells below use what it gives back
    hint("05.2")                          # the next hint
    solution("05.2")                      # an answer
    progress()                            # what is done, what is next

`catalogue()` lists them all; `stub(id)` is the cell the notebook starts from. Exercises are declared in the modules
`nbNN.py` (see `declare.py` for how).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from ddpm_edu.exercises import cell, record
from ddpm_edu.exercises.cell import PREAMBLE
from ddpm_edu.exercises.declare import Exercise, Mistake, catalogue, exercise, find
from ddpm_edu.exercises.report import MARKS, Page, show
from ddpm_edu.exercises.run import Outcome, attempt
from ddpm_edu.exercises.values import agree

__all__ = [
    "PREAMBLE",
    "Exercise",
    "Mistake",
    "Outcome",
    "agree",
    "attempt",
    "catalogue",
    "check",
    "exercise",
    "find",
    "hint",
    "progress",
    "solution",
    "stub",
]


def check(id: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """Check `answer`, show what was found, and give back a function that works: the answer or the reference.

    Args:
        id: the exercise, such as "05.2".
        answer: the function asked for.

    Raises:
        ValueError: there is no such exercise, or the arguments are swapped.
    """
    if callable(id) and isinstance(answer, str):
        raise ValueError(f'Swap the arguments: check("{answer}", {getattr(id, "__name__", "your_function")}).')
    asked = find(id)
    if answer is asked.reference:
        show(
            Page(
                _heading(asked, "not checked"),
                [f"`{asked.name}` is the course's own here, from an earlier check: run the cell with yours again."],
            )
        )
        return asked.reference
    outcome = attempt(asked, answer)
    trouble = record.note(asked.id, done=outcome.passed, attempted=not outcome.untried)
    show(_page(asked, outcome, trouble))
    return answer if outcome.passed else asked.reference


def hint(id: str) -> None:
    """Show the next hint of an exercise. After the last it says where an answer is, and then starts anew."""
    asked = find(id)
    show(next(_hints.setdefault(asked.id, _pages_of_hints(asked))))


def solution(id: str) -> None:
    """Show an answer to an exercise."""
    asked = find(id)
    show(Page(_heading(asked, "one answer"), code=cell.solution(asked)))


def stub(id: str) -> str:
    """The source of an exercise's cell as the notebook has it: signature, statement, `raise NotImplementedError`."""
    return cell.stub(find(id))


def progress() -> None:
    """Show every exercise as done (✓), attempted (✗) or not yet begun (–), and which is next."""
    entries, trouble = record.read()
    exercises = catalogue()
    done = {one.id: entries.get(one.id, {}).get("done") is True for one in exercises}
    rows = [_row_of_progress(one, done[one.id], bool(entries.get(one.id, {}).get("attempts"))) for one in exercises]
    upcoming = next((one for one in exercises if not done[one.id]), None)
    next_one = f"Next: {upcoming.id}, {upcoming.title}." if upcoming else "That was the last one: all are done."
    show(Page(f"{sum(done.values())} of {len(exercises)} exercises done", [*filter(None, [trouble]), next_one], rows))


_hints: dict[str, Iterator[Page]] = {}


def _pages_of_hints(asked: Exercise) -> Iterator[Page]:
    count = len(asked.hints)
    pages = [Page(_heading(asked, f"hint {i} of {count}"), [text]) for i, text in enumerate(asked.hints, start=1)]
    end = Page(
        _heading(asked, "no more hints"),
        [f'`solution("{asked.id}")` shows an answer; `hint("{asked.id}")` starts anew.'],
    )
    return cycle([*pages, end])


def _heading(asked: Exercise, state: str) -> str:
    return f"{asked.id} {asked.title}: {state}"


def _page(asked: Exercise, outcome: Outcome, trouble: str) -> Page:
    state = "passed" if outcome.passed else "not attempted yet" if outcome.untried else "not right yet"
    whose = "yours" if outcome.passed else "the course's own, so that the cells below run"
    below = f"`{asked.name}` is now {whose}." + ("" if outcome.passed else f' `hint("{asked.id}")` gives a hint.')
    failure = next((call.reply.failure for call in outcome.calls if call.reply.failure), None)
    printed = next((call.reply.printed for call in outcome.calls if call.reply.printed), "")
    warned = next((call.reply.warned for call in outcome.calls if call.reply.warned), "")
    folded = [
        *([("Where your function stopped", failure.trace)] if failure and not outcome.untried else []),
        *([("What your function printed at its first call", printed)] if printed else []),
    ]
    return Page(
        _heading(asked, state),
        list(filter(None, [outcome.sentence, outcome.note])),
        [] if outcome.untried else [(MARKS[row.passed], row.text) for row in outcome.rows],
        after=list(filter(None, [warned and f"Python warns: {warned}", below, trouble])),
        folded=folded,
    )


def _row_of_progress(one: Exercise, done: bool, attempted: bool) -> tuple[str, str, str, str]:
    mark, words = (True, "done") if done else (False, "attempted") if attempted else (None, "not yet")
    return MARKS[mark], f"notebook {one.id[:2]}", f"{one.id} {one.title}", words
