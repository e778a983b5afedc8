"""From nothing to an open notebook: `make lab`, the sentences when something is missing, and `ddpm-edu doctor`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from harness import ROOT, absent, answer, free_port, private_jupyter, program
from jupyter_client import BlockingKernelClient
from packaging.specifiers import SpecifierSet

from ddpm_edu import cli, doctor

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in `folder`, as if no other make had called the tests."""
    command = [program("make", package="make"), "-C", str(folder), "--no-print-directory", *arguments]
    return subprocess.run(
        command, env=private_jupyter(folder) | {"LC_ALL": "C"} | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """What `make` reads, in a folder without .venv; its name has a space in it, as a learner's may have."""
    folder = tmp_path / "my course"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def installed(fresh: Path) -> Path:
    """The same folder when the course is installed, as far as make can tell."""
    (fresh / ".venv/bin").mkdir(parents=True)
    (fresh / ".venv/bin/python").symlink_to(sys.executable)
    (fresh / ".venv/ready-lab").write_text(f"{fresh}\n")
    return fresh


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


# make -----------------------------------------------------------------------------------------------------------------


def test_make_alone_lists_the_targets(fresh: Path):
    listed = re.findall(r"^make (\w+) ", make(fresh).stdout, re.MULTILINE)
    assert listed == ["help", "lab", "install", "test", "check", "format"]
    assert re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split() == listed


def test_make_lab_opens_the_course_and_leaves_nothing_behind(tmp_path: Path):
    """The very command: it answers with the page of notebook 00, runs a kernel, and Ctrl-C ends all of it."""
    if not (ROOT / ".venv/ready-test").exists():
        absent("the course is not installed by make: run `make test`")
    if not (ROOT / "notebooks/00_welcome.ipynb").exists():
        pytest.skip("notebook 00 is not written yet")
    port = free_port()
    environment = private_jupyter(tmp_path) | {"BROWSER": "true"}  # the program true, which opens nothing
    ours, terminal = pty.openpty()  # from a file Jupyter reads no answer and stops; from a terminal it would ask
    with subprocess.Popen(
        [program("make", package="make"), "-s", "lab", f"PORT={port}"],
        cwd=ROOT,
        env=environment,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the signal below reaches make and its children, and not us
    ) as process:
        watchdog = threading.Timer(90, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            said = ""
            while not (link := re.search(r"http://127\S+", said)):
                line = process.stdout.readline()
                assert line, f"make lab ended: {said}"
                said += line
            assert f"Opening JupyterLab at http://localhost:{port} (Ctrl-C here stops it) ..." in said
            assert f":{port}/lab/tree/notebooks/00_welcome.ipynb?token=" in link[0]
            assert "<title>JupyterLab</title>" in answer(link[0], process)
            token = link[0].partition("token=")[2]
            base = f"http://127.0.0.1:{port}/api"
            page = json.loads(answer(f"{base}/contents/notebooks/00_welcome.ipynb?token={token}", process))
            assert page["type"] == "notebook"
            start = urllib.request.Request(f"{base}/kernels?token={token}", data=b"{}", method="POST")
            with urllib.request.urlopen(start, timeout=30) as response:
                kernel = json.load(response)["id"]
            client = BlockingKernelClient(connection_file=str(tmp_path / f"runtime/kernel-{kernel}.json"))
            client.load_connection_file()
            client.start_channels()
            client.wait_for_ready(30)  # a kernel stopped in its first imports complains, rightly
            client.stop_channels()
            family = psutil.Process(process.pid).children(recursive=True)
            assert any("ipykernel_launcher" in " ".join(one.cmdline()) for one in family)
            os.killpg(process.pid, signal.SIGINT)
            _, alive = psutil.wait_procs(family, timeout=20)
            assert alive == []
            assert "Traceback" not in process.stdout.read()
            process.wait(5)
        finally:
            watchdog.cancel()
            os.close(ours)
            os.close(terminal)
            with contextlib.suppress(ProcessLookupError):  # gone, as it should be
                os.killpg(process.pid, signal.SIGKILL)  # kernels notice and follow


def test_a_second_run_installs_nothing(installed: Path):
    assert make(installed, "install").stdout == "make: Nothing to be done for 'install'.\n"


@pytest.mark.parametrize("change", ["pyproject.toml is newer", "the folder was moved"])
def test_what_makes_the_installation_stale(installed: Path, change: str):
    if change == "the folder was moved":
        installed = installed.rename(installed.with_name("elsewhere"))
    else:
        os.utime(installed / "pyproject.toml", (2**31, 2**31))
    assert "pip install -e ." in make(installed, "--dry-run", "install").stdout


@pytest.mark.parametrize("port", ["taken", "99999", "many"])
def test_port_that_cannot_be_used(installed: Path, port: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = make(installed, "lab", f"PORT={server.getsockname()[1] if port == 'taken' else port}")
    assert done.returncode
    assert "cannot be used" in done.stderr
    assert "`make lab PORT=8899`" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Opening" not in done.stdout


def test_python_too_old(fresh: Path):
    old = script(fresh / "python3.9", '[ "$1" = --version ] && echo Python 3.9.2')
    done = make(fresh, "lab", f"PYTHON={str(old).replace(' ', chr(92) + ' ')}")
    assert done.returncode
    assert "needs Python 3.11 or newer and found none (Python 3.9.2)" in done.stderr
    assert not (fresh / ".venv").exists()


def test_no_python_at_all(fresh: Path):
    tools = fresh / "bin"
    tools.mkdir()
    for name in ("sh", "cat"):
        (tools / name).symlink_to(program(name, package=name))
    done = make(fresh, "lab", PATH=str(tools))
    assert done.returncode
    assert "found none (python3 does not start): install one" in done.stderr


def test_no_venv_module(fresh: Path):
    python = script(fresh / "python3", f'case "$*" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"')
    done = make(fresh, "lab", PATH=f"{python.parent}:{os.environ['PATH']}")
    assert done.returncode
    assert "python3 cannot make virtual environments" in done.stderr
    assert "`sudo apt install python3-venv`" in done.stderr


def test_a_stub_named_python3_is_passed_over(fresh: Path):
    """pyenv and Windows put commands of that name on PATH that start nothing."""
    tools = fresh / "bin"
    tools.mkdir()
    script(tools / "python3", "exit 127")
    (tools / "python3.13").symlink_to(sys.executable)
    done = subprocess.run(
        ["sh", "scripts/venv.sh"], cwd=fresh, env={"PATH": f"{tools}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (fresh / ".venv/bin/pip").exists()


def test_no_list_is_kept_twice():
    """environment.yml brings a Python that pyproject.toml admits, and then installs what it lists; so does venv.sh."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, rest = environment["dependencies"]
    assert python.partition("=")[2] in SpecifierSet(PROJECT["requires-python"])
    assert (environment["name"], pip, rest) == ("ddpm_edu", "pip", {"pip": ["-e ."]})
    least = PROJECT["requires-python"].removeprefix(">=")
    assert f"sys.version_info < ({least.replace('.', ', ')})" in (ROOT / "scripts/venv.sh").read_text()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_absent_program_is_named_and_fails_only_in_ci(ci: str, outcome: type, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(outcome, match=r"chromium is not here: install it .*apt-get install chromium"):
        program("chromium", "google-chrome", package="chromium")


# doctor ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course that doctor takes for its own: one dependency, one file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.bin").write_bytes(b"abc")
    listed = {"path": "a.bin", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    (tmp_path / "data/MANIFEST.json").write_text(json.dumps({"files": [listed]}))
    project(tmp_path, "tqdm>=1")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    return tmp_path


def project(course: Path, dependency: str, python: str = ">=3.11") -> None:
    text = f'[project]\nrequires-python = "{python}"\ndependencies = ["{dependency}"]\n'
    (course / "pyproject.toml").write_text(text)


def only(check: Callable) -> doctor.Finding:
    (finding,) = check()
    return finding


def test_doctor_finds_this_installation_well(capsys: pytest.CaptureFixture[str]):
    """Everything real: packages imported, hashes compared, a kernel started."""
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "All is well."
    named = {line[6:].split()[0] for line in lines[:-1] if line.startswith("ok")}
    files = [entry["path"] for entry in json.loads((ROOT / "data/MANIFEST.json").read_text())["files"]]
    assert named >= {"Python", "torch", "torchvision", "CPU", "GPU", "precision", *files, "kernel", "widgets", "disk"}


def test_doctor_counts_what_fails_and_prints_remedies(capsys: pytest.CaptureFixture[str]):
    assert doctor.show([doctor.Finding("a", "1"), doctor.Finding("b", "broken", "mend it")]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^ok    a +1$", out, re.MULTILINE)
    assert re.search(r"^FAIL  b +broken\n +-> mend it\n1 to mend\.$", out, re.MULTILINE)


def test_doctor_exits_with_1(course: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "findings", lambda: [doctor.Finding("a", "broken", "mend it")])
    assert cli.main(["doctor"]) == 1


def test_a_check_that_breaks_down_is_a_line(course: Path, monkeypatch: pytest.MonkeyPatch):
    (course / "data/MANIFEST.json").unlink()
    monkeypatch.setattr(doctor, "kernel", lambda: iter(()))
    broken = [finding for finding in doctor.findings() if finding.remedy]
    assert [finding.what for finding in broken] == ["files"]
    assert "FileNotFoundError" in broken[0].found


def test_python_line(course: Path):
    assert only(doctor.python).remedy == ""
    project(course, "tqdm", python=">=4")
    assert "install Python >=4" in only(doctor.python).remedy


def test_package_lines(course: Path, monkeypatch: pytest.MonkeyPatch):
    assert only(doctor.packages).remedy == ""
    project(course, "tqdm>=999")
    assert "needs tqdm>=999" in only(doctor.packages).remedy
    project(course, "no-such-package-at-all")
    assert only(doctor.packages) == ("no-such-package-at-all", "not installed", doctor.REINSTALL)
    project(course, "torchvision")

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert "cannot be imported: operator torchvision::nms does not exist" in only(doctor.packages).found
    assert "torch and torchvision together" in only(doctor.packages).remedy


def test_file_lines(course: Path):
    assert only(doctor.files) == ("a.bin", "3 bytes, as listed", "")
    (course / "data/a.bin").write_bytes(b"abd")
    assert only(doctor.files).found == "3 bytes, altered"
    (course / "data/a.bin").unlink()
    assert only(doctor.files).found == "missing"
    assert "git checkout -- data/a.bin" in only(doctor.files).remedy


def test_disk_lines(course: Path, monkeypatch: pytest.MonkeyPatch):
    assert only(doctor.disk).remedy == ""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    assert "make room" in only(doctor.disk).remedy

    def refuse(**where: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert "cannot write" in only(doctor.disk).found


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('no ipywidgets')", "ImportError: no ipywidgets"),
        ("print('/another')", "runs another Python"),
    ],
)
def test_kernel_lines(code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real kernel that starts with a surprise: its IPython runs `code` instead of what doctor sends."""
    startup = tmp_path / "profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "surprise.py").write_text(f"get_ipython().input_transformers_cleanup.append(lambda lines: [{code!r}])")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    kernel, widgets = doctor.kernel()
    assert words in kernel.found
    assert kernel.remedy
    assert widgets.remedy == ""


def test_widgets_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from jupyter_core import paths

    monkeypatch.setattr(paths, "jupyter_path", lambda *sub: [str(tmp_path)])
    kernel, widgets = doctor.kernel()
    assert kernel.remedy == ""
    assert widgets == ("widgets", "JupyterLab's widget extension is missing", doctor.REINSTALL)


def test_no_jupyter_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    """A rented GPU trains without it."""
    monkeypatch.setitem(sys.modules, "jupyter_client.manager", None)
    assert only(doctor.kernel) == ("kernel", "not tried, Jupyter is absent: training needs none", "")


# data/ ----------------------------------------------------------------------------------------------------------------


def test_manifest_lists_every_file_with_its_licence_and_origin():
    entries = {e["path"]: e for e in json.loads((ROOT / "data/MANIFEST.json").read_text())["files"]}
    kept = [path for path in (ROOT / "data").rglob("*") if path.is_file() and path.name != "MANIFEST.json"]
    shipped = {path.relative_to(ROOT / "data").as_posix() for path in kept} - {".gitkeep"}
    assert {path for path in shipped if not path.startswith("results/")} <= set(entries)
    for path, entry in entries.items():
        assert entry["bytes"] == (ROOT / "data" / path).stat().st_size
        assert entry.get("source") or entry.get("command"), f"{path}: where does it come from?"
        assert entry["licence"], path
