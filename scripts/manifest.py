"""Lists a shipped file in data/MANIFEST.json, with its sha256. Used by the scripts that make those files."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from ddpm_edu import pretrained
from ddpm_edu.data import DATA, ROOT, sha256


def head() -> str:
    """The commit whose code is running; "unknown" in a copy of the course that has no history."""
    git = shutil.which("git")
    found = git and subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found and found.returncode == 0 else "unknown"


def weights(*names: str) -> dict[str, str]:
    """The sha256 of shipped models, which a table of numbers keeps, so that a test can tell when it is out of date."""
    return {name: sha256(pretrained.shipped(name)) for name in names}


def record(name: str, **about: Any) -> None:
    """Adds or renews the entry of data/`name`: what, licence, command, commit, quality ... as given."""
    path, file = DATA / "MANIFEST.json", DATA / name
    entries = {entry["path"]: entry for entry in json.loads(path.read_text("utf-8"))["files"]}
    entries[name] = {"path": name, "bytes": file.stat().st_size, "sha256": sha256(file), **about}
    listed = [entries[key] for key in sorted(entries)]
    path.write_text(json.dumps({"files": listed}, indent=2, ensure_ascii=False) + "\n", "utf-8")
