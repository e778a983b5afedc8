"""Runs the checks of one exercise on one answer: pytest itself, in this process, quiet, deaf to the user's settings."""

from __future__ import annotations

import inspect
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch

from ddpm_edu.exercises.cell import fault_of_names
from ddpm_edu.exercises.declare import Exercise, Mistake
from ddpm_edu.exercises.diagnose import describe_failure, name_mistake
from ddpm_edu.exercises.reply import Reply, here
from ddpm_edu.exercises.speed import slow
from ddpm_edu.exercises.student import Call, Student

_CONFIG = Path(__file__).with_name("checks.ini")
# What pytest does beyond collecting and running is switched off: a run takes 15 ms and leaves no output and no files.
_OFF = (
    *("terminal", "cacheprovider", "capture", "faulthandler", "unraisableexception", "threadexception", "warnings"),
    *("logging", "junitxml", "pastebin", "doctest", "unittest", "stepwise", "debugging", "setuponly", "setupplan"),
    *("recwarn", "monkeypatch", "tmpdir", "legacypath", "subtests", "pytester"),
)
_ARGS = ["-c", str(_CONFIG), "--rootdir", str(_CONFIG.parent), "--noconftest", "--assert=plain"]
_ARGS += [word for name in _OFF for word in ("-p", f"no:{name}")]


@dataclass(frozen=True)
class Row:
    """One check: what it says of itself, whether it passed (None: it had no value to judge), and the calls it made."""

    text: str
    passed: bool | None
    calls: tuple[Call, ...] = ()

    @property
    def stopped(self) -> bool:
        """Did the answer raise, so that the check had nothing to judge?"""
        return any(call.reply.failure for call in self.calls)


@dataclass(frozen=True)
class Outcome:
    """What the checks found. `sentence` is what the learner reads first, empty when everything passed.

    `note` is advice on an answer that passed.
    """

    rows: tuple[Row, ...]
    sentence: str = ""
    mistake: Mistake | None = None
    untried: bool = False
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(call for row in self.rows for call in row.calls)


def attempt(exercise: Exercise, answer: Any, seed: int = 0) -> Outcome:
    """Check a learner's function where it stands: first whether it can be called as the stub says, then its results."""
    if fault := _fault_of_function(exercise, answer):
        return Outcome(tuple(Row(says(test), None) for test in exercise.checks), fault)
    with torch.random.fork_rng(devices=[]):  # what the answer draws must not shift the notebook's own random numbers
        outcome = judge(exercise, here(answer), seed)
        if outcome.passed and slow(exercise, answer, outcome.calls):
            return replace(outcome, note="Right, but slow: broadcast over the batch, or the cells below take minutes.")
        return outcome


def judge(exercise: Exercise, call: Callable[..., Reply], seed: int) -> Outcome:
    """Run the checks against `call`, which answers for the learner's function, and name what is wrong."""
    rows = run_checks(exercise, call, seed)
    failed = next((row for row in rows if not row.passed), None)
    if failed is None:
        return Outcome(rows)
    if any(c.reply.failure and c.reply.failure.untried for c in failed.calls):
        return Outcome(rows, "Not attempted yet: replace `raise NotImplementedError` by your answer.", untried=True)
    calls = [c for row in rows for c in row.calls]
    mistake = name_mistake(exercise, calls, failed.calls)
    sentence = mistake.sentence if mistake else describe_failure(exercise, call, calls, failed.calls)
    # where a later check, too, was met by an exception, nothing is known of what it asks
    seen = tuple(replace(row, passed=None) if row.stopped and row is not failed else row for row in rows)
    return Outcome(seen, sentence, mistake)


def run_checks(exercise: Exercise, call: Callable[..., Reply], seed: int) -> tuple[Row, ...]:
    """pytest's verdict on each check. A RuntimeError when the checks themselves are at fault, never the answer."""
    plugin = _Checks(exercise, call, seed)
    with _own_environment():
        code = pytest.main(_ARGS, plugins=[plugin])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or plugin.broken or not plugin.rows:
        raise RuntimeError(
            f"The checks of {exercise.id} could not run, which is their fault, not yours. {plugin.broken}"
        )
    return tuple(plugin.rows)


@dataclass(eq=False)
class _Checks:
    """A pytest plugin: an exercise's checks are the only tests, and `student` and `rng` their fixtures."""

    exercise: Exercise
    call: Callable[..., Reply]
    seed: int
    rows: list[Row] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # of the check that runs
    broken: str = ""

    def pytest_collection(self, session: pytest.Session) -> bool:
        module = pytest.Module.from_parent(session, path=self.exercise.path)
        module.obj = ModuleType(self.exercise.name)  # in place of importing the file: no other test of it is collected
        for test in self.exercise.checks:
            setattr(module.obj, test.__name__, test)
        session.items = list(session.genitems(module))
        session.testscollected = len(session.items)
        if {getattr(item, "function", None) for item in session.items} != set(
            self.exercise.checks
        ):  # one of them would silently not run
            self.broken = "Each of them needs a name of its own that begins with test_."
        return True  # collected: pytest need not look for files

    @pytest.fixture
    def student(self) -> Student:
        student = Student(self.exercise, self.call)
        self.calls = student.calls
        return student

    @pytest.fixture
    def rng(self, request: pytest.FixtureRequest) -> torch.Generator:
        # by name, so that a check draws the same whichever others run
        return torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {request.node.name}".encode()))

    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]) -> pytest.TestReport:
        if call.when == "call":
            self.rows.append(Row(says(item.obj), call.excinfo is None, tuple(self.calls)))
            self.calls = []
        elif call.excinfo:
            self.broken = str(call.excinfo.value)
        assert call.when != "collect"  # items alone come here
        # In place of pytest's own report, which would spend 60 ms on a traceback that nobody is to see.
        outcome: Literal["passed", "failed"] = "failed" if call.excinfo else "passed"
        return pytest.TestReport(item.nodeid, item.location, {}, outcome, None, call.when)


def says(test: Callable[..., Any]) -> str:
    """A check's docstring as a row: its first line."""
    return (inspect.getdoc(test) or test.__name__).split("\n")[0].rstrip(".")


def _fault_of_function(exercise: Exercise, answer: Any) -> str | None:
    """Why the answer cannot be called as the stub says, or not be graded; None when nothing is in the way."""
    if not callable(answer):
        return (
            f"`{exercise.name}` is not a function here but a value of type {type(answer).__name__}: "
            f'hand in the function itself, check("{exercise.id}", {exercise.name}).'
        )
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):  # some callables written in C have none
        signature = None
    return fault_of_signature(exercise, signature) or fault_of_names(exercise, answer)


def fault_of_signature(exercise: Exercise, signature: inspect.Signature | None) -> str | None:
    """Why a function of this signature cannot be called as the stub says; None when it can, or none is known."""
    if signature is None:
        return None
    need, given = exercise.parameters, tuple(signature.parameters)
    wanted = f"{exercise.name}({', '.join(need)})"
    try:
        signature.bind(*need)
    except TypeError:
        missing = [f"`{name}`" for name in need if name not in given]
        if missing:
            return f"Your function lacks the argument {', '.join(missing)}: it is called as `{wanted}`."
        return f"Your function needs more than it is given: it is called as `{wanted}`."
    if sorted(given[: len(need)]) == sorted(need) and given[: len(need)] != need:
        return f"Your function takes its arguments in another order: it is called as `{wanted}`."
    return None


@contextmanager
def _own_environment() -> Iterator[None]:
    """What pytest reads and writes in the environment: set for the run, put back after it."""
    names = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
