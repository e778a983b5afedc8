"""Every claim that a notebook proves has a test here, and every claim tested here is proved in its notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[1] / "notebooks"

# The notebook that each claim belongs to. A claim may be tested before its notebook is written.
CLAIMS = {
    **dict.fromkeys(["C01", "C02", "C03"], "01"),
    **dict.fromkeys(["C04", "C05", "C06"], "02"),
    **dict.fromkeys(["C07", "C08", "C09"], "03"),
    "C10": "04",
    **dict.fromkeys(["C11", "C12"], "05"),
    **dict.fromkeys(["C13", "C14", "C15", "C16"], "06"),
    **dict.fromkeys(["C17", "C18"], "07"),
    **dict.fromkeys(["C19", "C20", "C21"], "08"),
    "C22": "09",
    "C23": "11",
    "C24": "12",
    "C25": "10",
}
MARK = re.compile(r'^@pytest\.mark\.claim\("(C\d\d)"\)$', re.MULTILINE)


def by_claim() -> dict[str, list[str]]:
    """The names of the tests of each claim, read from the sources: whatever subset of them is being run."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for block in re.split(r"\n\n\n", path.read_text("utf-8")):
            for claim in MARK.findall(block):
                found.setdefault(claim, []).extend(
                    f"{path.name}::{name}" for name in re.findall(r"^def (test_\w+)", block, re.MULTILINE)
                )
    return found


def proved() -> dict[str, set[str]]:
    """The claims in the tags of each notebook's proof cells, by the notebook's number."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        tags = [cell["metadata"].get("tags", []) for cell in cells]
        proofs = [[tag for tag in cell if re.fullmatch(r"C\d\d", tag)] for cell in tags if "proof" in cell]
        assert all(proofs), f"{path.name}: a proof cell without the id of its claim"
        assert not [
            cell for cell in tags if "proof" not in cell and any(re.fullmatch(r"C\d\d", tag) for tag in cell)
        ], f"{path.name}: a claim's id on a cell that is not tagged as a proof"
        found[path.name[:2]] = {claim for cell in proofs for claim in cell}
    return found


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_has_a_test_and_its_notebook_a_proof(claim: str):
    assert by_claim().get(claim), f"{claim} has no test"
    notebook = proved().get(CLAIMS[claim])
    assert notebook is None or claim in notebook, f"notebook {CLAIMS[claim]} has no proof cell tagged {claim}"


def test_nothing_is_proved_or_tested_that_is_not_listed():
    assert by_claim().keys() == CLAIMS.keys()
    assert set().union(*proved().values()) <= CLAIMS.keys()


def test_every_test_here_names_its_claim():
    marked = {name for names in by_claim().values() for name in names}
    for path in sorted(HERE.glob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE):
            assert path == Path(__file__) or f"{path.name}::{name}" in marked, f"{path.name}::{name} names no claim"
