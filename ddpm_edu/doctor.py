"""Is this installation fit for the course? One line a check, each with its remedy when it fails.

`ddpm-edu doctor` in a terminal, `from ddpm_edu.doctor import doctor; doctor()` in a notebook. Nothing here is imported
from the rest of the package before its own check, so a broken torch is a line too, and not a traceback.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]  # ddpm_edu.data has it too, but imports torch
IMPORT_NAMES = {"pillow": "PIL"}  # where a package is imported under another name than it is installed
KERNEL_SECONDS = 60  # a cold disk may take half of it
FREE_BYTES = 500_000_000  # checkpoints and a few runs
BROKEN = "a file of the course is missing or altered (`git status` names it): restore it, then `make install`"
REINSTALL = "run `make install` (without make: `pip install -e .`)"


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and the remedy, which is empty when all is well."""

    what: str
    found: str
    remedy: str = ""


def doctor() -> None:
    """Print every line. Takes some seconds: packages are really imported, a kernel is really started."""
    show(findings())


def show(lines: Iterable[Finding]) -> int:
    """Print the lines as they come and a last one that sums up. Returns how many have a remedy."""
    failed = 0
    for what, found, remedy in lines:
        failed += bool(remedy)
        print(
            f"{'FAIL' if remedy else 'ok':4}  {what:31}  {found}" + (f"\n      -> {remedy}" if remedy else ""),
            flush=True,
        )
    print(f"{failed} to mend." if failed else "All is well.")
    return failed


def findings() -> Iterator[Finding]:
    """Every check in turn. One that breaks down itself becomes a line as well."""
    for check in (python, packages, hardware, files, kernel, disk):
        try:
            yield from check()
        except Exception as error:
            yield Finding(check.__name__, f"{type(error).__name__}: {error}", BROKEN)


def python() -> Iterator[Finding]:
    """The Python running, against pyproject.toml."""
    needed = SpecifierSet(_project()["requires-python"])
    found = f"{platform.python_version()} at {sys.executable}"
    fits = platform.python_version() in needed
    yield Finding("Python", found, "" if fits else f"install Python {needed}, then `make lab PYTHON=/path/to/it`")


def packages() -> Iterator[Finding]:
    """Each dependency of pyproject.toml: its version, and an import, which fails for a torchvision of another torch."""
    for needed in map(Requirement, _project()["dependencies"]):
        try:
            version = importlib.metadata.version(needed.name)
            importlib.import_module(IMPORT_NAMES.get(needed.name, needed.name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(needed.name, "not installed", REINSTALL)
        except Exception as error:
            remedy = (
                f"`{sys.executable} -m pip install --force-reinstall {needed.name}`, torch and torchvision together"
            )
            yield Finding(needed.name, f"{version} cannot be imported: {error}", remedy)
        else:
            yield Finding(needed.name, version, "" if version in needed.specifier else f"needs {needed}: {REINSTALL}")


def hardware() -> Iterator[Finding]:
    """What training will run on, and in which precision."""
    import torch

    from ddpm_edu.training import precision

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU", f"{platform.machine()}, {cores} cores, torch uses {torch.get_num_threads()}")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        yield Finding("GPU", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    else:
        yield Finding("GPU", "none that torch can use: the course runs on the CPU")
    chosen = precision("cuda" if torch.cuda.is_available() else "cpu")
    yield Finding("precision", f"{chosen.name}: {chosen.why}")


def files() -> Iterator[Finding]:
    """Data and checkpoints: present, and the very bytes that data/MANIFEST.json lists."""
    for entry in json.loads((ROOT / "data" / "MANIFEST.json").read_text())["files"]:
        path = ROOT / "data" / entry["path"]
        restore = f"bring it back: `git checkout -- data/{entry['path']}`, or unpack the course again"
        if not path.is_file():
            yield Finding(entry["path"], "missing", restore)
            continue
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
        size = f"{path.stat().st_size:,} bytes"
        yield Finding(entry["path"], size + (", as listed" if same else ", altered"), "" if same else restore)


def kernel() -> Iterator[Finding]:
    """JupyterLab's side of a slider: a kernel of this Python that imports ipywidgets, the extension that draws it."""
    try:
        from jupyter_client.manager import start_new_kernel
        from jupyter_core.paths import jupyter_path
    except ImportError:
        yield Finding("kernel", "not tried, Jupyter is absent: training needs none")
        return
    printed: list[str] = []
    manager, client = start_new_kernel(startup_timeout=KERNEL_SECONDS, stderr=subprocess.DEVNULL)
    try:
        reply = client.execute_interactive(
            "import sys, ipywidgets, ddpm_edu; print(sys.prefix)",
            allow_stdin=False,
            timeout=KERNEL_SECONDS,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["status"] != "ok":
        yield Finding("kernel", f"{reply['ename']}: {reply['evalue']}", REINSTALL)
    elif (prefix := "".join(printed).strip()) != sys.prefix:
        yield Finding("kernel", f"runs another Python, {prefix}", "open the course with `make lab`")
    else:
        yield Finding("kernel", "starts, and imports ipywidgets")
    drawn = [
        p for p in map(Path, jupyter_path("labextensions")) if (p / "@jupyter-widgets/jupyterlab-manager").is_dir()
    ]
    found = f"drawn by {drawn[0]}" if drawn else "JupyterLab's widget extension is missing"
    yield Finding("widgets", found, "" if drawn else REINSTALL)


def disk() -> Iterator[Finding]:
    """Room and permission to write: progress, checkpoints, and the notebooks themselves."""
    free = shutil.disk_usage(ROOT).free
    try:
        tempfile.TemporaryFile(dir=ROOT).close()
    except OSError as error:
        yield Finding("disk", f"cannot write in {ROOT}: {error.strerror}", "move the course to a folder of your own")
    else:
        remedy = "" if free >= FREE_BYTES else f"make room: {FREE_BYTES / 1e9:.1f} GB are needed"
        yield Finding("disk", f"{free / 1e9:.1f} GB free, writable", remedy)


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
