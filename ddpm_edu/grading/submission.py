"""What a student handed in: notebooks, read as data and as nothing else, and the cell that answers each exercise.

A class is a folder. In it every notebook is a student's, named by the file; and every folder is a student's, named by
the folder, with notebooks at any depth. Whatever cannot be read is left out, with a note that says why.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_edu.exercises.declare import Exercise
from ddpm_edu.grading.wire import text

MOST_BYTES = 20 << 20  # of a notebook; with all its pictures the course's largest, executed, is below
MOST_CELLS = 1000  # code cells of a notebook
MOST_NOTEBOOKS = 40  # of a student
DEEPEST = 8  # folders in a student's


@dataclass(frozen=True)
class Cell:
    """A code cell. `grade_id` is nbgrader's name of it, "" where it has none; `notebook` is the file's name."""

    source: str
    grade_id: str = ""
    notebook: str = ""


@dataclass(frozen=True)
class Submission:
    """The code cells of a student's notebooks, in order, and notes on what was left out."""

    student: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def chapters(self) -> set[str]:
        """Numbers of the notebooks that cells say they are of: {"05", "06"}."""
        found = (re.match(r"nb(\d\d)_\d+", one.grade_id) for one in self.cells)
        return {match[1] for match in found if match}


def students(folder: Path) -> dict[str, Path]:
    """Each student's file or folder, by name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: nothing in it is a submission; or two are of one name, a file and a folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give the one with the submissions in it.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix != ".ipynb" and not (path.is_dir() or path.is_symlink()):
            continue
        student = text(path.stem if path.suffix == ".ipynb" else path.name, 200)
        if student in found:
            raise ValueError(f"Both {found[student].name} and {path.name} are of {student!r}: rename one of them.")
        found[student] = path
    if not found:
        raise ValueError(f"{folder} has no submission: a notebook for each student, or a folder with notebooks.")
    return found


def read(student: str, path: Path) -> Submission:
    """The submission at `path`, a notebook or a folder of them. Never raises for what is in it."""
    cells: list[Cell] = []
    notes: list[str] = []
    for count, (file, fault) in enumerate(notebooks(path)):
        name = text(file.name, 100)
        if count == MOST_NOTEBOOKS:
            notes.append(f"more than {MOST_NOTEBOOKS} notebooks: the rest was left out")
            break
        try:
            cells += cells_of(load(file, fault), name)
        except ValueError as error:
            notes.append(f"{name} was left out: {error}")
    if not cells and not notes:
        notes.append("no notebook was handed in")
    return Submission(student, tuple(cells), tuple(notes))


def answer_to(exercise: Exercise, submission: Submission) -> tuple[str | None, tuple[str, ...]]:
    """The source of the cell that answers an exercise, and notes for the record; None where there is no such cell.

    Of the cells that define the function, those with the exercise's grade_id come first; of several the last counts
    that is not the stub as it was handed out.
    """
    number = exercise.id.partition(".")[2]
    grade_id = f"nb{exercise.id[:2]}_{number}"
    name = re.escape(exercise.name)
    assigned = rf"{name}[ \t]*(:[^=\n]*)?=(?!\s*(=|check\b))"  # and not `name = check(...)`, the cell that checks
    defines = re.compile(rf"^(async\s+def\s+{name}\b|def\s+{name}\b|class\s+{name}\b|{assigned})", re.MULTILINE)
    defining = [one for one in submission.cells if defines.search(one.source)]
    tagged = [one for one in defining if one.grade_id == grade_id]
    written = [one for one in tagged if not _untried(one)]
    elsewhere = [one for one in defining if one.grade_id != grade_id and not _untried(one)]
    chosen = written or elsewhere or tagged or defining
    if not chosen:
        there = any(one.grade_id == grade_id for one in submission.cells)
        return None, ((f"the cell of {exercise.id} does not define {exercise.name}",) if there else ())
    notes = []
    if len(defining) > 1:
        notes.append(f"{len(defining)} cells define {exercise.name}: the last one that was written in was graded")
    if chosen[-1].grade_id != grade_id:
        notes.append(f"found by its name: the cell does not carry the tag {grade_id}")
    return chosen[-1].source, tuple(notes)


def _untried(one: Cell) -> bool:
    """Does it end as a stub does?"""
    return one.source.rstrip().endswith("raise NotImplementedError")


def cells_of(notebook: Any, name: str = "") -> list[Cell]:
    """The code cells of a notebook (format 4) that json has read.

    Raises:
        ValueError: it is no such notebook, in words to follow "was left out: ".
    """
    found = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(found, list):
        old = isinstance(notebook, dict) and "worksheets" in notebook
        raise ValueError("of an old format, save it in JupyterLab" if old else "it is not a notebook")
    cells: list[Cell] = []
    for one in found:
        if not (isinstance(one, dict) and one.get("cell_type") == "code"):
            continue
        source = one.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str):
            raise ValueError("a cell's source is not text")
        if len(cells) == MOST_CELLS:
            raise ValueError(f"it has more than {MOST_CELLS} cells of code")
        cells.append(Cell(text(source, 200_000), _grade_id(one), name))
    return cells


def _grade_id(one: dict[str, Any]) -> str:
    metadata = one.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return text(nbgrader.get("grade_id") if isinstance(nbgrader, dict) else "", 100)


def notebooks(path: Path) -> Iterator[tuple[Path, str]]:
    """The notebook files of a submission, in order of their names, and what is wrong with each before it is opened."""
    if os.path.islink(path):
        yield path, "it is a link, not a file"
    elif os.path.isdir(path):
        for folder, inner, names in os.walk(path):  # which follows no links
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            linked = [name for name in inner if os.path.islink(os.path.join(folder, name))]
            yield from ((Path(folder, name), "it is a link") for name in linked)
            if len(Path(folder).relative_to(path).parts) >= DEEPEST:
                yield from ((Path(folder, name), "it lies too deep") for name in inner)
                inner.clear()
            for name in sorted(names):
                if name.endswith(".ipynb") and not name.startswith("."):
                    yield from notebooks(Path(folder, name))
    else:
        yield path, ""


def load(path: Path, fault: str = "") -> Any:
    """A notebook file's JSON. Raises ValueError, in words to follow "was left out: "."""
    if fault:
        raise ValueError(fault)
    try:
        # neither a link put in the file's place since, nor a pipe that never ends
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise ValueError("it is not a file")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"it cannot be opened ({error.strerror})") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("its text is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or too deep") from None
