"""A class that never was: submissions whose every grade is known before they are graded.

Each student has two or three notebooks, and each exercise in them is answered in one of the ways that the course knows
the outcome of: the reference, a right answer written another way, a mistake of the catalogue, the stub, no cell at
all, or something hostile. Mistakes come in turn, so that a large class makes every one of them.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import json
import random
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from hostile import HOSTILE

from ddpm_edu.exercises.cell import preamble, solution, stub
from ddpm_edu.exercises.declare import Exercise, catalogue, find
from ddpm_edu.exercises.reply import here
from ddpm_edu.exercises.run import judge
from ddpm_edu.grading.grade import seed_of
from ddpm_edu.grading.results import Graded, Result

sys.path.append(str(Path(__file__).parent.parent / "exercises"))
from answers import gathered

EXERCISES = 16  # that a student hands in, at least: with 200 students every mistake is then made
LASTING = ("loop", "bomb", "trickles", "memory", "million", "itself", "stopping", "flood", "{")  # not all of a class


@dataclass
class Truth:
    """What is known of a class: state and mistake ("" none, "?" any) by student and exercise; and who makes which."""

    grades: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        states = [state for exercises in self.grades.values() for state, _ in exercises.values()]
        return {state: states.count(state) for state in sorted(set(states))}


def make(folder: Path, students: int, seed: int = 0) -> Truth:
    """Write a class of `students` to `folder`, every third as a single notebook, the others as folders of them."""
    random_ = random.Random(seed)
    ways = _ways(random_)
    chapters = sorted({one.id[:2] for one in catalogue()})
    truth = Truth()
    for number in range(students):
        student = f"student {number:03} {random_.choice(['Ångström', '王', 'Nobody', 'O’Neil'])}"
        handed: dict[str, list[Exercise]] = {}
        while sum(map(len, handed.values())) < EXERCISES:
            left = {chapter: max(map(len, ways[chapter].values())) for chapter in chapters if chapter not in handed}
            chapter = random_.choices(list(left), [1 + count**2 for count in left.values()])[0]
            handed[chapter] = [one for one in catalogue() if one.id[:2] == chapter]
        grades = truth.grades[student] = {}
        cells = []
        for exercise in itertools.chain(*handed.values()):
            left_of_it = ways[exercise.id[:2]][exercise.id]
            source, state, mistake = left_of_it.pop() if left_of_it else (solution(exercise), "passed", "")
            grades[exercise.id] = (state, mistake)
            if source is not None:
                cells.append(code_cell(source, f"nb{exercise.id[:2]}_{exercise.id[3:]}"))
        if number % 3 == 0:
            write(folder / f"{student}.ipynb", cells)
        else:
            for i, chapter in enumerate(handed):
                of_it = [one for one in cells if one["metadata"]["nbgrader"]["grade_id"][2:4] == chapter]
                write(folder / student / f"{chapter}_{i}.ipynb", of_it)
    return truth


def _ways(random_: random.Random) -> dict[str, dict[str, list[tuple[str | None, str, str]]]]:
    """For each chapter's exercises the answers to come, the next one last: (source, state, mistake)."""
    rights: dict[str, list[Callable]] = {id: some for chapter in gathered("RIGHT") for id, some in chapter.items()}
    quick = [kind for kind in HOSTILE if not any(word in kind + HOSTILE[kind][0] for word in LASTING)]
    ways: dict[str, dict[str, list[tuple[str | None, str, str]]]] = {}
    for exercise in catalogue():
        some: list[tuple[str | None, str, str]] = [
            *((source_of(mistake.function, exercise.name), "wrong", mistake.name) for mistake in exercise.mistakes),
            *((source_of(right, exercise.name), "passed", "") for right in rights[exercise.id]),
            *[(solution(exercise), "passed", ""), (stub(exercise), "untried", ""), (None, "missing", "")] * 2,
        ]
        if exercise.id == "05.1":
            some += [(*HOSTILE[kind][:2], "?") for kind in quick if "q_step" in HOSTILE[kind][0]]
        random_.shuffle(some)
        ways.setdefault(exercise.id[:2], {})[exercise.id] = some
    return ways


def code_cell(source: str, grade_id: str = "") -> dict[str, Any]:
    marks = {"grade_id": grade_id, "grade": False, "locked": False, "solution": True, "task": False}
    metadata = {"nbgrader": {**marks, "schema_version": 3}} if grade_id else {}
    return {
        "cell_type": "code",
        "id": re.sub(r"\W", "-", grade_id) or "cell",
        "metadata": metadata,
        "execution_count": None,
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


def write(path: Path, cells: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def source_of(function: Callable, name: str) -> str:
    """A cell that defines `name` to be `function`, with all that it uses of the module it stands in."""
    parts: dict[str, str] = {}
    _collect(function, parts)
    # inside a function, so that a mistake which calls the reference by its name does not then call itself
    inner = textwrap.indent("\n\n".join([*parts.values(), f"return {_key(function)}"]), "    ")
    return f"def make():\n{inner}\n\n\n{name} = make()\n"


def _collect(function: Callable, parts: dict[str, str]) -> None:
    key = _key(function)
    if key in parts:
        return
    parts[key] = ""  # a function may call itself
    closed = (cell.cell_contents for cell in function.__closure__ or ())
    free = dict(zip(function.__code__.co_freevars, closed, strict=True))
    for name in sorted(_names(function.__code__)):
        if name in free:
            _define(name, free[name], parts)
        elif name in function.__globals__ and (name not in preamble() or name in _shadowed(function)):
            _define(name, function.__globals__[name], parts)
    for default in _defaults(function):
        _define(*default, parts)
    source = textwrap.dedent(inspect.getsource(function))
    if function.__name__ == "<lambda>":
        text = f"{key} = {_lambda(source, function.__code__)}"
    else:
        text = source[source.index("def ") :].rstrip()
        if not text.startswith(f"def {key}("):  # made by another function, and named by it
            text += f"\n\n{key} = {text[4 : text.index('(')]}"
    parts[key] = parts.pop(key) + text.rstrip()  # behind what it uses


def _define(name: str, value: Any, parts: dict[str, str]) -> None:
    if isinstance(value, Exercise):
        value = value.reference
    ours = getattr(value, "__module__", "").split(".")[0] in ("ddpm_edu", "answers")
    if inspect.isfunction(value) and ours:
        _collect(value, parts)
        if _key(value) != name:
            parts[name] = f"{name} = {_key(value)}"
    elif inspect.ismodule(value):
        parts[name] = f"import {value.__name__} as {name}"
    elif inspect.isclass(value) or inspect.isroutine(value):
        parts[name] = f"from {value.__module__} import {value.__name__} as {name}"
    elif name not in parts:
        parts[name] = f"{name} = float('{value}')" if isinstance(value, float) else f"{name} = {value!r}"


def _defaults(function: Callable) -> Iterator[tuple[str, Any]]:
    """Names of the module that a function's defaults use."""
    source = inspect.getsource(function)
    for parameter in inspect.signature(function).parameters.values():
        value = parameter.default
        for name, found in function.__globals__.items():
            if found is value and re.search(rf"={{1}}\s*{name}\b", source):
                yield name, value


def _told_in_a_notebook(id: str, mistake: str, seed: int, result: Result) -> str:
    """The mistake, if the check of a notebook calls it as the result does; else nothing."""
    function = next((one.function for one in find(id).mistakes if one.name == mistake), None)
    named = function and judge(find(id), here(function), seed).mistake
    return mistake if named and named.name == result.mistake else ""


def _names(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*map(_names, inner))


def _shadowed(function: Callable) -> set[str]:
    """Names of the preamble, or Python's own, by which the module means something else."""
    names: dict[str, Any] = {}
    from ddpm_edu.exercises.cell import PREAMBLE

    exec(PREAMBLE, names)
    builtin = names["__builtins__"]
    return {
        name
        for name, value in function.__globals__.items()
        if name in preamble() and value is not names.get(name, builtin.get(name))
    }


def _key(function: Callable) -> str:
    return f"lambda_{function.__code__.co_firstlineno}" if function.__name__ == "<lambda>" else function.__name__


def _lambda(source: str, code: CodeType) -> str:
    """Of the lambdas in some lines the one with this code's names and arguments."""
    for start in (match.start() for match in re.finditer("lambda", source)):
        for end in range(len(source), start, -1):
            with contextlib.suppress(SyntaxError):
                tree = ast.parse(text := source[start:end].strip(), mode="eval")
                if isinstance(tree.body, ast.Lambda):
                    inner = next(one for one in compile(text, "", "eval").co_consts if isinstance(one, CodeType))
                    if (inner.co_names, inner.co_varnames) == (code.co_names, code.co_varnames):
                        return text
                    break
    raise ValueError(source)


def differences(truth: Truth, graded: list[Graded], secret: str) -> list[str]:
    """Where grades are not what is known of them, in words: empty when every grade is right.

    On the inputs of one student in some thousands two mistakes give the same. There the name must be the one that the
    check of the notebook gives for the same inputs, outside of any sandbox.
    """
    found = []
    by_student = {one.student: one for one in graded}
    for student, exercises in truth.grades.items():
        if student not in by_student:
            found.append(f"{student}: no grade")
            continue
        results = {one.exercise: one for one in by_student[student].results}
        for id, result in results.items():
            state, mistake = exercises.get(id, ("missing", ""))
            if result.state != state or (result.points or 0) != (result.of if state == "passed" else 0):
                found.append(f"{student}, {id}: {result.state}, not {state}: {result.sentence} {result.notes}")
            elif mistake not in (
                result.mistake,
                "?",
                _told_in_a_notebook(id, mistake, seed_of(secret, student), result),
            ):
                found.append(f"{student}, {id}: {result.mistake or 'no mistake'}, not {mistake}: {result.sentence}")
        found += [f"{student}, {id}: not graded" for id in exercises if id not in results]
    return found
