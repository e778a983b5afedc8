"""A class graded by the command: every grade as it is known to be, and none lost when a run is stopped."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from classroom import code_cell, differences, make, write

from ddpm_edu import cli
from ddpm_edu.exercises import find
from ddpm_edu.exercises.cell import solution
from ddpm_edu.grading import grade, results
from ddpm_edu.grading.grade import Order, grade_class, result_path, seed_of

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "ddpm_edu.cli", "grade"]


def test_every_grade_of_twenty_is_the_known_one(safe, tmp_path):
    truth = make(tmp_path / "class", students=20, seed=1)
    counts = truth.counts()
    assert min(counts.values()) > 5  # each state is among them
    code = subprocess.run([*COMMAND, str(tmp_path / "class"), "--out", str(tmp_path / "out"), "--jobs", "2"]).returncode
    assert code == 0
    graded = [results.read(result_path(tmp_path / "out", student)) for student in truth.grades]
    assert differences(truth, graded, (tmp_path / "out" / "secret").read_text()) == []
    with open(tmp_path / "out" / "grades.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["student"] for row in rows} == set(truth.grades)
    assert sum(float(row["points"]) for row in rows) == counts["passed"]
    assert {row["level"] for row in rows} == {"bubblewrap"}
    assert (tmp_path / "out" / "grades.xml").read_bytes().startswith(b"<?xml")
    assert (tmp_path / "out" / "report.html").stat().st_size > 5000


@pytest.fixture
def three(tmp_path):
    """Three students, and how to have them graded: (folder, out)."""
    right = solution(find("05.1"))
    for student, source in {"ann": right, "ben": right.replace("1 - beta_t", "1 + beta_t"), "cem": "x = 1"}.items():
        write(tmp_path / "class" / f"{student}.ipynb", [code_cell(source, "nb05_1")])
    return tmp_path / "class", tmp_path / "out"


def test_a_killed_run_goes_on_and_grades_none_twice(safe, three):
    folder, out = three
    slow = "import time\ntime.sleep(2)\n" + solution(find("05.1"))
    for student in ("ann", "ben", "cem", "dee", "eve"):
        write(folder / f"{student}.ipynb", [code_cell(slow, "nb05_1")])
    run = subprocess.Popen([*COMMAND, str(folder), "--out", str(out), "--jobs", "1"], start_new_session=True)
    while len(list((out / "results").glob("*.json"))) < 2:
        time.sleep(0.1)
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}
    assert 2 <= len(before) < 5
    graded = grade_class(Order(folder, out))
    assert [one.results[0].state for one in graded] == ["passed"] * 5
    assert [one.student for one in graded] == ["ann", "ben", "cem", "dee", "eve"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((out / "results").glob("*.json"))) == 5


def test_what_has_changed_is_graded_anew_and_nothing_else(safe, three):
    folder, out = three
    told: list[str] = []
    first = grade_class(Order(folder, out), lambda one: told.append(one.student))
    assert [one.points for one in first] == [1, 0, 0]
    assert [one.results[0].state for one in first] == ["passed", "wrong", "missing"]
    changed = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    write(folder / "ben.ipynb", [code_cell(solution(find("05.1")), "nb05_1")])
    result_path(out, "cem").write_text("{")  # damaged
    second = grade_class(Order(folder, out))
    assert [one.points for one in second] == [1, 1, 0]
    again = {path for path in changed if path.stat().st_mtime_ns != changed[path]}
    assert again == {result_path(out, "ben"), result_path(out, "cem")}


def test_a_regrade_draws_the_same_inputs_and_each_student_others():
    assert seed_of("secret", "ann") == seed_of("secret", "ann")
    assert len({seed_of("secret", "ann"), seed_of("secret", "ben"), seed_of("other", "ann")}) == 3


def test_the_secret_is_kept_from_others(safe, three):
    folder, out = three
    grade_class(Order(folder, out))
    assert (out / "secret").stat().st_mode & 0o777 == 0o600
    kept = (out / "secret").read_text()
    shutil.rmtree(out / "results")
    grade_class(Order(folder, out))
    assert (out / "secret").read_text() == kept
    assert all(kept not in path.read_text() for path in (out / "results").iterdir())


HIDDEN = '''
from ddpm_edu.exercises import agree, find

q_step = find("05.1")

@q_step.check
def test_of_the_teacher(student, rng):
    """holds where beta is 1"""
    import torch
    beta = torch.tensor([0.0, {beta}])
    x, t = torch.randn(1, 2, generator=rng), torch.tensor([1])
    agree(student.q_step(x, t, x, beta), q_step(x, t, x, beta))
'''


def test_hidden_checks_count_and_are_told_by_their_docstring_alone(safe, three, tmp_path):
    folder, out = three
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "nb05.py").write_text(HIDDEN.format(beta="0.98765"))
    sly = "    if beta.max() > 0.9: return 0 * x_prev\n"
    head, _, body = solution(find("05.1")).partition("\n")
    write(folder / "eve.ipynb", [code_cell(f"{head}\n{sly}{body}", "nb05_1")])
    command = [*COMMAND, str(folder), "--out", str(out)]
    assert subprocess.run(command).returncode == 0
    assert results.read(result_path(out, "eve")).points == 1
    assert subprocess.run([*command, "--hidden", str(hidden)]).returncode == 0  # and so all are graded anew
    assert results.read(result_path(out, "ann")).points == 1
    eve = results.read(result_path(out, "eve")).results[0]
    assert eve.state == "wrong"
    assert eve.rows[-1] == ("holds where beta is 1", False)
    assert "0.98765" not in "".join(path.read_text() for path in out.rglob("*.*"))


def test_a_fault_of_the_checks_is_no_mark(safe, three, tmp_path, capsys):
    folder, out = three
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "nb05.py").write_text(HIDDEN.replace("student, rng", "student, rng, there_is_none"))
    done = subprocess.run(
        [*COMMAND, str(folder), "--out", str(out), "--hidden", str(hidden)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Not graded: 05.1: The checks of 05.1 could not run, which is their fault, not yours." in done.stderr
    result = results.read(result_path(out, "ann")).results[0]
    assert (result.state, result.points) == ("ungraded", None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "is no folder"),
        (["class", "--notebook", "99"], "No notebook '99' has exercises"),
        (["class", "--out", "class/grades"], "would lie among the submissions"),
        (["class", "--hidden", "class"], "no Python file"),
    ],
)
def test_what_a_teacher_can_mend_is_one_sentence(safe, three, arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(three[0].parent)
    assert cli.main(["grade", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_weak_sandbox_is_refused_unless_told(three, capsys, monkeypatch):
    folder, out = three
    monkeypatch.setattr(grade, "level", lambda: "limits")
    assert cli.main(["grade", str(folder), "--out", str(out)]) == 2
    assert "install bubblewrap" in (said := capsys.readouterr().err)
    assert "--allow-weak-sandbox" in said
    assert not out.exists()
    monkeypatch.setattr("ddpm_edu.grading.sandbox.level", lambda: "limits")
    assert cli.main(["grade", str(folder), "--out", str(out), "--allow-weak-sandbox"]) == 0
    told = json.loads(result_path(out, "ann").read_text())
    assert (told["level"], told["results"][0]["state"]) == ("limits", "passed")
    assert "limits" in Path(out / "grades.csv").read_text(encoding="utf-8")
    assert "limits" in Path(out / "grades.xml").read_text()


def test_an_unforeseen_death_of_a_grader_costs_no_one_else(safe, three, monkeypatch):
    """A submission that stops the process of its grader twice gets no mark, and the others get theirs."""
    folder, out = three
    hidden = folder.parent / "hidden"
    hidden.mkdir()
    (hidden / "dies.py").write_text(
        "import os\nfrom ddpm_edu.grading import grade\nbefore = grade.read\n"
        "def read(student, path):\n"
        "    if student == 'ben' and path.name == 'ben.ipynb': os._exit(1)\n"
        "    return before(student, path)\n"
        "grade.read = read\n"
    )
    done = subprocess.run(
        [*COMMAND, str(folder), "--out", str(out), "--hidden", str(hidden), "--notebook", "05", "--jobs", "2"],
    )
    assert done.returncode == 1
    states = [results.read(result_path(out, student)).results[0].state for student in ("ann", "ben", "cem")]
    assert states == ["passed", "ungraded", "missing"]
