"""What grading finds, as plain data: a `Result` for each exercise, a `Graded` for each submission, kept as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

State = Literal[
    "passed",
    "wrong",
    "untried",  # the cell still has `raise NotImplementedError`
    "missing",  # no cell of the submission defines the function
    "ungraded",  # the checks themselves failed: their fault, and no mark at all
]


@dataclass(frozen=True)
class Result:
    """One exercise of one submission.

    `sentence` and `notes` may quote the submission (a message it raised, a file it is named by): text, to be escaped
    wherever it is shown.
    """

    exercise: str  # "05.2"
    state: State
    points: float | None  # None where the state is "ungraded"
    of: float
    mistake: str = ""  # its name in the catalogue, where the answer is a known wrong one
    sentence: str = ""  # what the learner reads; empty when passed
    rows: tuple[tuple[str, bool | None], ...] = ()  # what each check says of itself, and whether it passed
    notes: tuple[str, ...] = ()  # for the record: "2 cells define q_sample: the last was graded"


@dataclass(frozen=True)
class Graded:
    """One submission: the results of all exercises that were asked for, in the course's order."""

    student: str
    level: str  # of the sandbox, as `sandbox.LEVELS` names it
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    key: str = ""  # digest of all that went into it: the same key need not be graded again

    @property
    def points(self) -> float:
        """The sum; an exercise that could not be graded counts as nothing."""
        return sum(result.points or 0 for result in self.results)

    @property
    def of(self) -> float:
        return sum(result.of for result in self.results)


def write(path: Path, graded: Graded) -> None:
    """Keep a submission's results as JSON."""
    write_whole(path, json.dumps(asdict(graded), indent=1).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, its folder too: a run that is killed leaves no half of a grade behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(data)
    try:
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)
        raise


def read(path: Path) -> Graded | None:
    """What `write` has written; None where there is nothing, or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        results = tuple(
            Result(**{**one, "rows": tuple(map(tuple, one["rows"])), "notes": tuple(one["notes"])})
            for one in found["results"]
        )
        return Graded(**{**found, "results": results, "notes": tuple(found["notes"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
