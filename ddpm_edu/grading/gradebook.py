"""nbgrader's gradebook, formgrader, feedback and export, with our grading in the place of its kernel.

    c = get_config()
    from ddpm_edu.grading.gradebook import configure
    configure(c, course_id="generative models")

nbgrader would run a submission in its own process. Here the autograded notebook is made anew instead: the released
one, with the cells that were graded in their places and the verdicts as outputs of the check cells. No code of a
submission runs outside the sandbox, and nothing else of it (metadata, outputs, order, Markdown) gets past
`GradeSubmission`, so that nothing in it can stop the class.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bleach
import nbformat
import nbgrader.preprocessors as theirs
import torch
from nbconvert.exporters import NotebookExporter
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from nbformat.v4 import new_notebook, new_output
from nbgrader.preprocessors.base import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Bool, Unicode

from ddpm_edu.data import ROOT
from ddpm_edu.exercises.declare import catalogue
from ddpm_edu.exercises.report import MARKS
from ddpm_edu.grading.grade import allowed, grade_exercise, load_hidden, secret_of, seed_of
from ddpm_edu.grading.results import Result
from ddpm_edu.grading.sandbox import Sandbox, level
from ddpm_edu.grading.submission import answer_to, load, read
from ddpm_edu.grading.wire import text

_OURS = "ddpm_edu"  # the key of a cell's metadata in which `GradeSubmission` tells `SaveGrades` what no output holds
_NAMES = {"untried": "NotAttempted", "missing": "NoAnswer", "ungraded": "NotGraded", "wrong": "NotRight"}
_TAGS = "a b blockquote br code details div em h1 h2 h3 h4 hr i img li ol p pre span strong summary table td th tr ul"


def configure(c: Any, course_id: str) -> None:
    """Set up nbgrader for the course's notebooks. c: what `get_config()` gives in nbgrader_config.py.

    Set `c.GradeSubmission.hidden` to a folder with checks of your own, outside of `source`, which nbgrader hands out.
    """
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # nbgrader runs `alembic`
    c.CourseDirectory.course_id = course_id
    # Without ClearSolutions, which would take away signature and statement: the notebooks have their stubs already.
    c.GenerateAssignment.preprocessors = [
        *(theirs.LockCells, theirs.ClearOutput, theirs.CheckCellMetadata),
        *(theirs.ComputeChecksums, theirs.SaveCells, theirs.CheckCellMetadata),
    ]
    c.Autograde.exporter_class = Reader
    c.Autograde.pre_convert_hook = every_released_notebook
    c.Autograde.sanitize_preprocessors = [GradeSubmission]
    c.Autograde.autograde_preprocessors = [SaveGrades, theirs.AssignLatePenalties, theirs.CheckCellMetadata]
    c.HTMLExporter.filters = {"markdown2html": harmless_html}


class Verdict(NamedTuple):
    """What is known of one exercise, and the source that was graded; the submission's own where nothing was."""

    result: Result
    source: str | None


class GradeSubmission(NbGraderPreprocessor):
    """Puts the released notebook in the submission's place, with answers and verdicts of the submission in it."""

    hidden = Unicode("", help="a folder of Python files with checks of your own").tag(config=True)
    allow_weak_sandbox = Bool(False, help="grade also where submissions could read your files").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        here, course = resources["nbgrader"], self.parent.parent.coursedir
        released = course.format_path(course.release_directory, ".", here["assignment"])
        folder = course.format_path(course.submitted_directory, here["student"], here["assignment"])
        written = {_grade_id(cell): cell.source for cell in nb.cells}
        nb = nbformat.read(Path(released, here["notebook"] + ".ipynb"), as_version=4)
        checks = [_grade_id(cell) for cell in nb.cells if is_grade(cell) and not is_solution(cell)]
        verdicts = self.grade(here["student"], Path(folder), Path(course.root), checks)
        for cell in nb.cells:
            name = _grade_id(cell)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            if is_solution(cell):
                verdict = verdicts.get(f"{name}_check")
                source = verdict.source if verdict else written.get(name)  # else: a question of the teacher's own
                cell.source = cell.source if source is None else text(source, 200_000)
                cell.metadata[_OURS] = {"notes": list(verdict.result.notes) if verdict else []}
            elif is_grade(cell):
                given = verdicts.get(name)
                cell.metadata[_OURS] = {"ungraded": given is None or given.result.state == "ungraded"}
                cell.outputs = [_output(given.result if given else None)]
        return nb, resources

    def grade(self, student: str, folder: Path, course: Path, checks: Iterable[str]) -> dict[str, Verdict]:
        """Verdicts by the check cell's grade_id, of those checks that are exercises of the course."""
        submission, verdicts = read(student, folder), {}
        sandbox = _sandbox(self.hidden, self.allow_weak_sandbox, (course,))
        seed = seed_of(secret_of(course / "grading"), student)
        for exercise in catalogue():
            check = f"nb{exercise.id.replace('.', '_')}_check"
            if check in checks:
                source, notes = answer_to(exercise, submission)
                result = grade_exercise(exercise, source, submission.notes + notes, sandbox, seed)
                verdicts[check] = Verdict(result, source)
        sandbox.close_worker()  # the next student's answers find nothing of this one's
        return verdicts


class SaveGrades(theirs.SaveAutoGrades):
    """Saves the scores, the notes as the answers' comments; what could not be graded is left for a person to grade."""

    def _add_score(self, cell: NotebookNode, resources: Any) -> None:
        super()._add_score(cell, resources)
        if cell.metadata.get(_OURS, {}).get("ungraded"):
            grade = self.gradebook.find_grade(_grade_id(cell), self.notebook_id, self.assignment_id, self.student_id)
            grade.auto_score, grade.needs_manual_grade = None, True
            self.gradebook.db.commit()

    def _add_comment(self, cell: NotebookNode, resources: Any) -> None:
        super()._add_comment(cell, resources)
        if notes := cell.metadata.get(_OURS, {}).get("notes"):
            who = self.notebook_id, self.assignment_id, self.student_id
            self.gradebook.find_comment(_grade_id(cell), *who).auto_comment = "; ".join(notes)
            self.gradebook.db.commit()


class Reader(NotebookExporter):
    """Reads any file as a notebook: as one without cells where it is none. `submission.read` says what is wrong."""

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> tuple[Any, Any]:
        try:
            nb = nbformat.reads(json.dumps(load(Path(filename))), as_version=4)
            nbformat.validate(nb)
        except Exception:  # of a submission anything can be expected
            nb = new_notebook()
        return self.from_notebook_node(nb, resources, **kw)


def every_released_notebook(assignment: str, student: str, notebooks: list[str]) -> None:
    """A hook, run for each student in the course's folder: all that was handed out is graded, whatever came back."""
    folder = Path(notebooks[0]).parent
    for path in folder.rglob("*"):  # what a link points to, nbgrader would copy, into the feedback too
        if path.is_symlink() and path.suffix != ".ipynb":
            path.unlink()
    wanted = [str(folder / path.name) for path in sorted(Path("release", assignment).glob("*.ipynb"))]
    notebooks += [path for path in wanted if path not in notebooks]


def harmless_html(source: str) -> str:
    """Markdown as HTML without scripts: feedback is opened by people who trust it."""
    allowed = {"*": ["class", "id"], "a": ["href"], "img": ["src", "alt"]}
    return bleach.clean(markdown2html(source), tags=[*_TAGS.split(), "thead", "tbody"], attributes=allowed)


def _output(result: Result | None) -> NotebookNode:
    """What a check cell shows: the checks that passed, or an error, by which nbgrader knows of no points."""
    if result is None:
        return new_output("error", ename="NotGraded", evalue="No exercise of the course.", traceback=[])
    rows = [f"{MARKS[passed]}  {row}" for row, passed in result.rows]
    if result.state == "passed":
        return new_output("stream", name="stdout", text="\n".join([*rows, ""]))
    name = result.mistake or _NAMES[result.state]
    told = [] if result.state == "untried" else rows
    return new_output("error", ename=name, evalue=result.sentence, traceback=[f"{name}: {result.sentence}", *told])


_made: dict[tuple[str, bool], Sandbox] = {}


def _sandbox(hidden: str, weak: bool, hide: Sequence[Path]) -> Sandbox:
    """One sandbox for all students of a run; with it the hidden checks are loaded, once."""
    if (hidden, weak) not in _made:
        torch.set_num_threads(1)
        wanted = level() if weak else "bubblewrap"
        allowed(wanted)
        load_hidden(Path(hidden) if hidden else None)
        _made[hidden, weak] = Sandbox(wanted, hide=[ROOT, *hide])
        atexit.register(_made[hidden, weak].close)
    return _made[hidden, weak]


def _grade_id(cell: NotebookNode) -> str:
    told = cell.metadata.get("nbgrader")
    return text(told.get("grade_id") if isinstance(told, dict) else "", 100)
