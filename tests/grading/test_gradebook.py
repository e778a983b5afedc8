"""nbgrader itself, end to end: assignment, autograde, feedback and export, whatever students do to their cells."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from ddpm_edu.data import ROOT
from ddpm_edu.exercises.cell import solution
from ddpm_edu.exercises.declare import catalogue, find

pytestmark = pytest.mark.slow
NOTEBOOK = "05_diffusion_forward.ipynb"
EXERCISES = [one for one in catalogue() if one.id[:2] == "05"]


def cell_of(nb, number: int):
    return next(c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") == f"nb05_{number}")


def check_of(nb, number: int):
    return next(c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") == f"nb05_{number}_check")


def solve(nb):
    for number, exercise in enumerate(EXERCISES, start=1):
        cell_of(nb, number).source = solution(exercise)


def unsolved(nb):
    for number in range(1, 6):
        cell_of(nb, number).source += "\n"


def mistaken(nb):
    cell_of(nb, 1).source = solution(find("05.1")).replace("beta_t.sqrt() * eps", "beta_t * eps")


def duplicated(nb):
    nb.cells.insert(3, nbformat.from_dict(dict(cell_of(nb, 1))))


def deleted(nb):
    nb.cells.remove(cell_of(nb, 1))


def check_deleted(nb):
    nb.cells.remove(check_of(nb, 1))


def reordered(nb):
    nb.cells.reverse()


def pasted(nb):
    """The answer in a new cell without metadata, below the stub."""
    answer = cell_of(nb, 1).source
    cell_of(nb, 1).source = "def q_step(x_prev, t, eps, beta):\n    raise NotImplementedError\n"
    nb.cells.append(nbformat.v4.new_code_cell(answer))


def retagged(nb):
    cell_of(nb, 1).metadata.nbgrader.grade_id = "nb05_9"


def greedy(nb):
    check_of(nb, 1).metadata.nbgrader.points = 100
    check_of(nb, 1).source = "assert True"
    cell_of(nb, 2).source = "def q_sample(x_0, t, eps, alpha_bar):\n    return x_0\n"


def schema_changed(nb):
    cell_of(nb, 1).metadata.nbgrader.schema_version = 99


def hostile(nb):
    cell_of(nb, 1).source = "import os\ndef q_step(x_prev, t, eps, beta):\n    os._exit(0)\n"
    nb.cells.append(nbformat.v4.new_markdown_cell("<script>alert(1)</script>"))


# what each does to a right notebook, the points it has then, and words of the note on the record
CASES = {
    "ann": (lambda nb: None, 5, ""),
    "ben": (unsolved, 5, ""),
    "cem": (duplicated, 5, "2 cells define q_step"),
    "dee": (check_deleted, 5, ""),
    "eve": (deleted, 4, ""),
    "fay": (reordered, 5, ""),
    "gus": (pasted, 5, "found by its name"),
    "hal": (retagged, 5, "found by its name"),
    "joe": (greedy, 4, ""),
    "lea": (mistaken, 4, ""),
    "max": (schema_changed, 5, ""),
    "ned": (hostile, 4, ""),
    "ole": ("not JSON", 0, "was left out"),
    "tim": (Path("/etc/passwd"), 0, "link"),
}


@pytest.fixture(scope="module")
def course(safe, tmp_path_factory):
    """A class's folder after all commands."""
    course = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "teaching" / "nbgrader_config.py", course)
    (course / "source" / "ps05").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, course / "source" / "ps05")
    nbgrader(course, "generate_assignment", "ps05")
    for student, (change, _, _) in CASES.items():
        path = course / "submitted" / student / "ps05" / NOTEBOOK
        path.parent.mkdir(parents=True)
        nb = nbformat.read(course / "release" / "ps05" / NOTEBOOK, as_version=4)
        if isinstance(change, Path):
            path.symlink_to(change)
        elif isinstance(change, str):
            path.write_text(change)
        else:
            solve(nb)
            change(nb)
            path.write_text(json.dumps(nb))
    for command in (["autograde", "ps05"], ["generate_feedback", "ps05"], ["export"]):
        nbgrader(course, *command)
    return course


def nbgrader(course: Path, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command], cwd=course, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_is_handed_out_is_the_notebook(course):
    source, released = (nbformat.read(course / to / "ps05" / NOTEBOOK, 4) for to in ("source", "release"))
    assert [cell.source for cell in released.cells] == [cell.source for cell in source.cells]


@pytest.mark.parametrize("student", CASES)
def test_every_student_has_the_score_that_was_earned(course, student):
    _, points, words = CASES[student]
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        handed = gradebook.find_submission("ps05", student)
        assert (handed.score, handed.max_score, handed.needs_manual_grade) == (points, 5, False)
        comments = [one.auto_comment or "" for book in handed.notebooks for one in book.comments]
        assert words in "; ".join(comments)


def test_the_export_has_the_same_numbers(course):
    with open(course / "grades.csv", newline="") as file:
        rows = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows == {student: points for student, (_, points, _) in CASES.items()}


def test_feedback_names_the_mistake_and_nothing_else_of_the_checks(course):
    page = (course / "feedback" / "lea" / "ps05" / NOTEBOOK.replace(".ipynb", ".html")).read_text()
    assert "beta_as_deviation" in page
    assert "You multiplied the noise by beta_t. That is its variance" in page
    assert "agree(" not in page
    assert "rng" not in page


def test_nothing_of_a_submission_but_its_answers_gets_through(course):
    told = (course / "autograded" / "ned" / "ps05" / NOTEBOOK).read_text()
    assert "os._exit" in told  # the answer, which the teacher wants to see
    assert "alert" not in told
    joe = nbformat.read(course / "autograded" / "joe" / "ps05" / NOTEBOOK, 4)
    assert "check(" in check_of(joe, 1).source
    assert not any("root:" in path.read_text() for path in course.glob("*/tim/ps05/*") if not path.is_symlink())
