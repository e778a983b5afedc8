"""Whatever is handed in is read as data, and the right cell is found; what cannot be read is left out, with a note."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from classroom import code_cell, write

from ddpm_edu.exercises import find, stub
from ddpm_edu.exercises.cell import solution
from ddpm_edu.grading.submission import MOST_BYTES, answer_to, cells_of, read, students

Q_STEP, Q_SAMPLE = find("05.1"), find("05.2")
RIGHT = solution(Q_STEP)
STUB = stub("05.1")
OTHER = "def q_step(x_prev, t, eps, beta):\n    return 0 * x_prev\n"


def submission(path, *cells):
    write(path, [code_cell(*cell) for cell in cells])
    return read("ann", path)


# Who is there -------------------------------------------------------------------------------------------------------


def test_files_and_folders_are_students_and_keep_their_names(tmp_path):
    for name in ("ann.ipynb", "王 小明.ipynb", "Moodle, Ben_123_assignsubmission_file/05.ipynb", "eve/a/b/05.ipynb"):
        write(tmp_path / name, [])
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    assert list(students(tmp_path)) == ["Moodle, Ben_123_assignsubmission_file", "ann", "eve", "王 小明"]


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ([], ValueError, "has no submission"),
        (["notes.txt"], ValueError, "has no submission"),
        (["ann.ipynb", "ann/05.ipynb"], ValueError, "rename one"),
        (None, FileNotFoundError, "is no folder"),
    ],
)
def test_a_folder_that_is_no_class_is_refused(names, error, words, tmp_path):
    for name in names or []:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(error, match=words):
        students(tmp_path if names is not None else tmp_path / "none")


# Which cell ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "source", "note"),
    [
        ([(RIGHT, "nb05_1")], RIGHT, ""),
        ([(STUB, "nb05_1")], STUB, ""),
        ([("q_step = check('05.1', q_step)", "nb05_1_check"), (RIGHT, "nb05_1")], RIGHT, ""),
        ([("x = q_step(1)\nq_step  = check ('05.1', q_step)", ""), (STUB, "nb05_1")], STUB, ""),
        ([(OTHER, "nb05_1"), (RIGHT, "nb05_1")], RIGHT, "2 cells define q_step: the last one that was written in"),
        ([(RIGHT, "nb05_1"), (STUB, "nb05_1")], RIGHT, "2 cells define q_step"),
        ([(RIGHT, ""), (STUB, "nb05_1")], RIGHT, "found by its name: the cell does not carry the tag nb05_1"),
        ([(RIGHT, "")], RIGHT, "found by its name"),
        ([(RIGHT, "nb05_2")], RIGHT, "found by its name"),
        ([(OTHER, ""), (RIGHT, "nb05_1"), (OTHER, "")], RIGHT, "3 cells define q_step"),
        ([("q_step = lambda *args: args[0]", "nb05_1")], "q_step = lambda *args: args[0]", ""),
        ([("q_step: object = print", "nb05_1")], "q_step: object = print", ""),
        ([("async def q_step(): pass", "nb05_1")], "async def q_step(): pass", ""),
        ([("def q_steps(): pass", "nb05_1")], None, "the cell of 05.1 does not define q_step"),
        ([("q_step == 1", "nb05_1")], None, "does not define"),
        ([], None, ""),
    ],
)
def test_the_cell_is_found_and_what_was_odd_is_noted(cells, source, note, tmp_path):
    found, notes = answer_to(Q_STEP, submission(tmp_path / "ann.ipynb", *cells))
    assert found == source
    assert note in "; ".join(notes)
    assert bool(note) == bool(notes)


def test_the_order_of_cells_and_of_notebooks_does_not_matter(tmp_path):
    write(tmp_path / "ann" / "b.ipynb", [code_cell(solution(Q_SAMPLE), "nb05_2")])
    write(tmp_path / "ann" / "a" / "z.ipynb", [code_cell("x = 1"), code_cell(RIGHT, "nb05_1")])
    handed = read("ann", tmp_path / "ann")
    assert answer_to(Q_STEP, handed) == (RIGHT, ())
    assert answer_to(Q_SAMPLE, handed) == (solution(Q_SAMPLE), ())
    assert handed.chapters == {"05"}


# What cannot be read ------------------------------------------------------------------------------------------------

GOOD = json.dumps({"cells": [code_cell(RIGHT, "nb05_1")], "nbformat": 4}).encode()
BAD = {
    "not JSON": (b"print('hello')", "not JSON"),
    "empty": (b"", "not JSON"),
    "cut short": (GOOD[:-20], "not JSON"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "not UTF-8"),
    "Latin-1": (GOOD[:-1] + ', "é": 1}'.encode("latin-1"), "not UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8"),
    "deep lists": (b"[" * 500_000 + b"]" * 500_000, "too deep"),
    "deep objects": (b'{"cells":' * 300_000 + b"1" + b"}" * 300_000, "too deep"),
    "a number of a million digits": (b'{"cells": ' + b"1" * 1_000_000 + b"}", "not JSON"),
    "a list": (b"[]", "not a notebook"),
    "a number": (b"NaN", "not a notebook"),
    "no cells": (b'{"nbformat": 4}', "not a notebook"),
    "cells of text": (b'{"cells": "abc"}', "not a notebook"),
    "an old format": (b'{"worksheets": [{"cells": []}], "nbformat": 3}', "old format"),
    "a source of numbers": (b'{"cells": [{"cell_type": "code", "source": [1, 2]}]}', "not text"),
    "too large": (GOOD + b" " * MOST_BYTES, "larger than 20 MiB"),
    "a gigabyte of nothing": (None, "larger than 20 MiB"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_malformed_notebook_is_left_out_with_a_note(kind, tmp_path):
    data, words = BAD[kind]
    path = tmp_path / "ann" / "05.ipynb"
    path.parent.mkdir()
    path.write_bytes(data or b"")
    if data is None:
        os.truncate(path, 1 << 30)
    handed = read("ann", tmp_path / "ann")
    assert handed.cells == ()
    assert words in handed.notes[0]
    assert handed.notes[0].startswith("05.ipynb was left out: ")
    write(tmp_path / "ann" / "06.ipynb", [code_cell(RIGHT, "nb05_1")])  # the other notebook counts
    assert answer_to(Q_STEP, read("ann", tmp_path / "ann"))[0] == RIGHT


@pytest.mark.parametrize(
    "metadata", [None, [], {"nbgrader": []}, {"nbgrader": {"grade_id": ["nb05_1"]}}, {"nbgrader": {"grade_id": None}}]
)
def test_metadata_may_be_anything(metadata):
    (cell,) = cells_of({"cells": [{"cell_type": "code", "source": RIGHT, "metadata": metadata}, 1, {}, None]})
    assert (cell.source, cell.grade_id) == (RIGHT, "")


def test_half_characters_are_replaced():
    (cell,) = cells_of(json.loads('{"cells": [{"cell_type": "code", "source": "x = \'\\ud800\'"}]}'))
    assert cell.source == "x = '?'"
    cell.source.encode()


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "ann.ipynb").write_bytes(b"\xef\xbb\xbf" + GOOD)
    assert answer_to(Q_STEP, read("ann", tmp_path / "ann.ipynb"))[0] == RIGHT


def test_links_and_pipes_are_not_followed(tmp_path):
    (tmp_path / "class").mkdir()
    write(tmp_path / "secret" / "05.ipynb", [code_cell(RIGHT, "nb05_1")])
    (tmp_path / "class" / "ann.ipynb").symlink_to(tmp_path / "secret" / "05.ipynb")
    (tmp_path / "class" / "ben").symlink_to(tmp_path / "secret")
    (tmp_path / "class" / "cem").mkdir()
    (tmp_path / "class" / "cem" / "all").symlink_to(tmp_path)
    (tmp_path / "class" / "cem" / "05.ipynb").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "class" / "dee.ipynb")
    for student, path in students(tmp_path / "class").items():
        handed = read(student, path)
        assert handed.cells == (), student
        assert "link" in handed.notes[0] or student == "dee"
    assert read("dee", tmp_path / "class" / "dee.ipynb").notes == ("dee.ipynb was left out: it is not a file",)


def test_folders_without_end_are_cut_short(tmp_path):
    """As deep as a zip can make them; and of names too long to be asked about."""
    deep = tmp_path / "ann" / "/".join("d" * 1100)
    long = tmp_path / "ben" / "/".join(["d" * 250] * 17)
    for path in (deep, long):
        here = os.getcwd()
        path.parents[len(path.relative_to(tmp_path).parts) - 2].mkdir()
        os.chdir(path.parents[len(path.relative_to(tmp_path).parts) - 2])
        for part in path.relative_to(tmp_path).parts[1:]:
            os.mkdir(part)
            os.chdir(part)
        os.chdir(here)
    for student, path in students(tmp_path).items():
        handed = read(student, path)
        assert handed.cells == ()
        assert "it lies too deep" in handed.notes[0]
    subprocess.run(["rm", "-rf", str(tmp_path / "ann"), str(tmp_path / "ben")], check=True)


def test_a_notebook_of_very_many_cells_is_left_out(tmp_path):
    handed = submission(tmp_path / "ann.ipynb", *[("", "")] * 1001)
    assert "more than 1000 cells" in handed.notes[0]


def test_a_student_with_thousands_of_notebooks_is_cut_short(tmp_path):
    for i in range(60):
        write(tmp_path / "ann" / f"{i:02}.ipynb", [code_cell(f"x = {i}")])
    handed = read("ann", tmp_path / "ann")
    assert len(handed.cells) == 40
    assert "more than 40" in handed.notes[-1]
