"""A learner's progress: a small JSON file, `{"05.1": {"attempts": 3, "done": true}}`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ddpm_edu.data import ROOT


def path() -> Path:
    """Where progress is kept: $DDPM_EDU_PROGRESS, else progress.json in the course's folder."""
    return Path(os.environ.get("DDPM_EDU_PROGRESS") or ROOT / "progress.json")


def read() -> tuple[dict[str, dict[str, Any]], str]:
    """The record, and a sentence to show when the file could not be read (the record is then empty); "" otherwise."""
    try:
        record = json.loads(path().read_text(encoding="utf-8"))
        if not (isinstance(record, dict) and all(isinstance(entry, dict) for entry in record.values())):
            raise ValueError("not a record of exercises")
        return record, ""
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"Progress in {path()} cannot be read ({error.strerror}); check its permissions."
    except ValueError:  # not JSON, not UTF-8, or of another form
        return {}, _set_aside()


def note(id: str, done: bool, attempted: bool) -> str:
    """Enter the outcome of a check; once done stays done. A sentence to show when that went wrong; "" otherwise."""
    record, trouble = read()
    if trouble and path().exists():  # there, but unreadable: what is in it must not be written over
        return trouble
    entry = record.setdefault(id, {})
    entry["attempts"] = (entry["attempts"] if isinstance(entry.get("attempts"), int) else 0) + attempted
    entry["done"] = entry.get("done") is True or done
    return _write(record) or trouble


def _write(record: dict[str, dict[str, Any]]) -> str:
    """Whole or not at all: written beside the file, then put in its place."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path().parent, delete=False, encoding="utf-8", suffix=".tmp") as file:
            temporary = Path(file.name)
            json.dump(record, file, indent=1, sort_keys=True)
        os.replace(temporary, path())
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        return f"Progress cannot be kept in {path()} ({error.strerror}); set DDPM_EDU_PROGRESS to a file you may write."
    return ""


def _set_aside() -> str:
    aside = path().with_name(f"{path().name}.damaged")
    try:
        os.replace(path(), aside)
    except OSError as error:
        return f"Progress in {path()} is damaged and cannot be moved ({error.strerror}); delete it to start afresh."
    return f"Progress in {path()} was damaged: it is kept as {aside.name}, and a new record is begun."
