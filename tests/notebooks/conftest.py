"""Each notebook is executed once a session, as a learner meets it; whatever needs the executed copy shares it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from harness import NOTEBOOK_SECONDS, ROOT, private_jupyter
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
VISIT = """from ddpm_edu.widgets import visit_all

print(visit_all(at_least={at_least}))"""


class Executed(NamedTuple):
    """An executed copy: the notebook, its file, the seconds its own cells took; its steppers and pads, the positions
    of them all, each visited."""

    notebook: nbformat.NotebookNode
    path: Path
    seconds: float
    steppers: int
    pads: int
    positions: int


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Executed]:
    """Runs a notebook from top to bottom, then moves each of its sliders through all positions, errors raised."""
    folder = tmp_path_factory.mktemp("notebooks")
    private = {k: v for k, v in private_jupyter(folder).items() if k.startswith(("DDPM", "IPYTHON", "JUPYTER"))}

    @cache
    def run(path: Path) -> Executed:
        notebook = nbformat.read(path, as_version=4)
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        steppers, pads = (len(re.findall(rf"\b{made}\(", code)) for made in (r"Stepper(?:\.of)?", "Pad"))
        visit = nbformat.v4.new_code_cell(VISIT.format(at_least=steppers + pads))
        last = len(notebook.cells) - 1
        finished: dict[int, float] = {}
        client = NotebookClient(
            notebook,
            timeout=NOTEBOOK_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=lambda cell, cell_index, execute_reply: finished.update({cell_index: time.monotonic()}),
        )
        start = time.monotonic()
        notebook.cells.append(visit)
        client.execute(env={**os.environ, **private})
        seconds = max((at for index, at in finished.items() if index <= last), default=start) - start
        notebook.cells.pop()
        positions = int(visit.outputs[0]["text"])
        out = folder / path.name
        nbformat.write(notebook, out)
        return Executed(notebook, out, seconds, steppers, pads, positions)

    return run


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="session")
def path(request: pytest.FixtureRequest) -> Path:
    """One notebook of the course after another."""
    return request.param
