"""What holds of every notebook: as a file, when it is run, and as a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from harness import ROOT
from nbformat import NotebookNode

from ddpm_edu import exercises

SLIDE_TYPES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
LIMIT = 75  # seconds a notebook may take on two cores that have nothing else to do
NOISE = 2  # times longer it may take here, where they may have


@pytest.fixture(scope="session")
def source(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


# As a file ------------------------------------------------------------------------------------------------------------


def test_is_committed_clean(source: NotebookNode) -> None:
    """Without outputs, with ids and slide types; its kernel is any Python 3."""
    ids = [cell.get("id") for cell in source.cells]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for cell in source.cells:
        assert not cell.get("outputs"), cell.id
        assert cell.get("execution_count") is None, cell.id
        assert cell.metadata.get("slideshow", {}).get("slide_type") in SLIDE_TYPES, cell.id
    assert source.metadata.kernelspec.name == "python3"


def test_exercise_cells_are_the_catalogues(path: Path, source: NotebookNode) -> None:
    """Each exercise of this notebook's chapter stands in it once: the stub, then the locked cell that checks it."""
    expected = [one for one in exercises.catalogue() if one.id[:2] == path.name[:2]]
    cells, checks = tagged(source, "exercise"), tagged(source, "exercise-check")
    assert [cell.source for cell in cells] == [exercises.stub(one.id).rstrip("\n") for one in expected]
    assert [cell.source for cell in checks] == [f'{one.name} = check("{one.id}", {one.name})' for one in expected]
    for one, cell, check in zip(expected, cells, checks, strict=True):
        assert source.cells.index(check) == source.cells.index(cell) + 1
        name = f"nb{one.id.replace('.', '_')}"
        shared = {"schema_version": 3, "task": False}
        answer = {"grade_id": name, "solution": True, "grade": False, "locked": False}
        points = {"grade_id": f"{name}_check", "solution": False, "grade": True, "locked": True, "points": one.points}
        assert cell.metadata.nbgrader == shared | answer
        assert check.metadata.nbgrader == shared | points


def test_chapters_have_proofs_and_exercises(path: Path, source: NotebookNode) -> None:
    """All but the welcome: three exercises or more, proof cells that name their claim, questions to be ready for it."""
    if path.name.startswith("00"):
        pytest.skip("the welcome teaches no claim")
    assert len(tagged(source, "exercise")) >= 3
    proofs = tagged(source, "proof")
    assert proofs
    for cell in proofs:
        assert [tag for tag in cell.metadata.tags if re.fullmatch(r"C\d\d", tag)], cell.id
        assert "assert" in cell.source, f"{cell.id} cannot fail"
    text = "\n".join(cell.source for cell in source.cells)
    for part in ("After this notebook you can", "Are you ready?", "## Recap", "## Pitfalls", "## Further reading"):
        assert part in text


def test_binds_the_names_an_exercise_may_use(path: Path, source: NotebookNode) -> None:
    """What grading gives to an exercise's cell, the notebook gives it too."""
    if tagged(source, "exercise"):
        first = next(cell for cell in source.cells if cell.cell_type == "code")
        missing = [line for line in exercises.PREAMBLE.splitlines() if line not in first.source]
        assert missing == []


def test_links_lead_to_files(source: NotebookNode) -> None:
    links = re.findall(r"\]\(([^)#:]+\.ipynb)\)", "\n".join(cell.source for cell in source.cells))
    assert [link for link in links if not (ROOT / "notebooks" / link).exists()] == []


# Run ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_top_to_bottom_unsolved(path: Path, executed: Callable) -> None:
    """Every cell runs with no exercise solved, every slider moves through all its positions, in the time promised."""
    run = executed(path)
    print(f"{path.stem}: {run.seconds:.0f} s, {run.positions} slider positions")
    assert run.positions > 0
    assert run.seconds < NOISE * LIMIT


@pytest.mark.slow
def test_unsolved_exercises_are_told_kindly(path: Path, executed: Callable) -> None:
    for cell in tagged(executed(path).notebook, "exercise-check"):
        shown = "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)
        assert "not attempted yet" in shown, cell.id


@pytest.mark.slow
def test_says_nothing_on_stderr(path: Path, executed: Callable) -> None:
    """No warning reaches a learner. Progress bars write there; they are what is left out."""
    for cell in executed(path).notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                left = [line for line in re.split(r"[\r\n]", output.text) if line.strip() and "%|" not in line]
                assert left == [], cell.id


# As a page ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.browser
def test_exported_page_moves_without_kernel_or_network(path: Path, executed: Callable, page, tmp_path: Path) -> None:
    """Every stepper and pad of the exported page shows another picture when it is moved; nothing is requested."""
    from ddpm_edu.widgets import export_html

    run = executed(path)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(export_html(run.path, tmp_path / "page.html").as_uri())
    to_the_corner = ["ArrowRight", "ArrowUp"] * 50
    for moved, keys, expected in (
        ("input[type=range]", ["End"], run.steppers),
        (".ddpm-plane", to_the_corner, run.pads),
    ):
        widgets = page.locator(".ddpm-static", has=page.locator(moved))
        assert widgets.count() == expected
        for widget in widgets.all():
            picture = widget.locator(".ddpm-image")
            before = picture.get_attribute("src")
            widget.locator(moved).focus()
            for key in keys:
                page.keyboard.press(key)
            assert picture.get_attribute("src") != before
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
