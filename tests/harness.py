"""What the tests of JupyterLab share: programs that may be absent, a server of our own, a notebook run in a browser."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "token-of-the-tests"
NOTEBOOK_SECONDS = 150  # twice what a notebook may take
HERE = {"127.0.0.1", "localhost", None}  # data: and blob: have no host, and are no request at all


def program(*names: str, package: str) -> str:
    """The path of the first of these programs. Where there is none the test is skipped; under CI=true it fails."""
    for name in names:
        if path := shutil.which(name):
            return path
    absent(f"{names[0]} is not here: install it (Debian, Ubuntu: `sudo apt-get install {package}`)")


def absent(sentence: str) -> None:
    """Skip the test with this sentence, or fail it where CI=true promises that nothing is absent."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def private_jupyter(folder: Path) -> dict[str, str]:
    """Environment in which Jupyter reads the repository's settings, none of the person's, and writes into `folder`."""
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "DDPM_EDU_PROGRESS": "progress.json",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return kept | {name: str(folder / value) for name, value in own.items()}


def answer(url: str, process: subprocess.Popen, seconds: float = 60) -> str:
    """What the server says at `url`, as soon as it says something."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read().decode()
        except (urllib.error.URLError, ConnectionError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"nothing answers at {url}: {error}") from error
            time.sleep(0.1)


@dataclasses.dataclass
class Lab:
    """A running JupyterLab. `root`: the folder it shows, a copy of notebooks/ in which tests may write."""

    url: str
    root: Path

    def open_and_run(self, page: Page, notebook: str) -> Run:
        """Open `notebook` (a name in `root`), run all its cells and wait for the last one.

        Run All races with the start of the kernel when only the page is watched, so the page is asked itself.
        """
        seen = Run()
        page.on("console", lambda message: message.type == "error" and seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        for traffic in ("request", "websocket"):
            page.on(traffic, lambda it: urlsplit(it.url).hostname in HERE or seen.outside.append(it.url))
        page.goto(f"{self.url}/lab/tree/{notebook}?reset&token={TOKEN}")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        page.evaluate(
            """() => {
                const panel = jupyterapp.shell.currentWidget;
                (async () => {
                    await panel.context.ready;
                    await panel.sessionContext.ready;
                    await panel.sessionContext.session.kernel.info;
                    await jupyterapp.commands.execute("notebook:run-all-cells");
                    window.cellsThatRan = panel.content.model.toJSON().cells;
                })();
            }"""
        )
        cells = page.wait_for_function("window.cellsThatRan", timeout=1000 * NOTEBOOK_SECONDS).json_value()
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        seen.raised = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
        seen.executed = sum(bool(cell.get("execution_count")) for cell in cells)
        return seen


@dataclasses.dataclass
class Run:
    """What a notebook did in the browser, and goes on doing while the page is open."""

    executed: int = 0  # code cells that ran
    raised: list[str] = dataclasses.field(default_factory=list)  # errors of cells
    console: list[str] = dataclasses.field(default_factory=list)  # errors of the page
    outside: list[str] = dataclasses.field(default_factory=list)  # requests that leave the machine

    def assert_clean(self) -> None:
        assert self.executed, "no cell ran"
        assert (self.raised, self.console, self.outside) == ([], [], [])


@contextlib.contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """JupyterLab with the repository's settings, on a copy of its notebooks in `folder`."""
    root = folder / "notebooks"
    shutil.copytree(ROOT / "notebooks", root, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    port = free_port()
    options: dict[str, Any] = {
        "port": port,
        "ip": "127.0.0.1",
        "ServerApp.root_dir": root,
        "IdentityProvider.token": TOKEN,
        "LabApp.expose_app_in_browser": True,  # open_and_run speaks to it
    }
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", *(f"--{name}={v}" for name, v in options.items())],
            env=private_jupyter(folder) | {"JUPYTER_CONFIG_PATH": str(ROOT / "jupyter")},
            stdout=log,
            stderr=log,
        )
    try:
        answer(f"http://127.0.0.1:{port}/api", process)
        yield Lab(f"http://127.0.0.1:{port}", root)
    finally:
        process.terminate()  # lets it end its kernels
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
