"""Grading: the same checks as in the notebook, here, on answers that run in a sandbox elsewhere.

`grade_submission` is one student's; `grade_class` a folder of them, several at a time, going on where it was stopped.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import inspect
import itertools
import json
import multiprocessing
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ddpm_edu.data import ROOT
from ddpm_edu.exercises.declare import Exercise, catalogue
from ddpm_edu.exercises.reply import Failure, Reply
from ddpm_edu.exercises.run import Outcome, Row, fault_of_signature, judge, says
from ddpm_edu.exercises.values import copy, plain
from ddpm_edu.grading import results
from ddpm_edu.grading.results import Graded, Result, State
from ddpm_edu.grading.sandbox import LEVELS, Sandbox, level
from ddpm_edu.grading.submission import Submission, answer_to, notebooks, read, students
from ddpm_edu.grading.wire import Channel, Function, Late, Violation, text

CALL = 10.0  # seconds that one call of an answer may take
EXERCISE = 40.0  # seconds for all calls of an exercise


# One submission ------------------------------------------------------------------------------------------------------


def grade_submission(submission: Submission, exercises: Sequence[Exercise], sandbox: Sandbox, seed: int) -> Graded:
    """All `exercises` of one student. `seed` decides the inputs of the checks: the same one gives the same marks."""
    graded = tuple(grade_exercise(one, *answer_to(one, submission), sandbox, seed) for one in exercises)
    return Graded(submission.student, sandbox.level, graded, submission.notes)


def grade_exercise(
    exercise: Exercise, source: str | None, notes: tuple[str, ...], sandbox: Sandbox, seed: int
) -> Result:
    """One exercise, its cell's source being `source`; None where there is none."""
    of = float(exercise.points)
    if source is None:
        return Result(exercise.id, "missing", 0.0, of, sentence="No cell answers this exercise.", notes=notes)
    try:
        for _ in range(2):  # a sandbox that was stopped for memory may have been stopped for another's: once more, then
            with sandbox.job() as channel:
                answer = Answer(channel, exercise, source)
                outcome = answer.outcome(seed)
            told = sandbox.killed
            if not told:
                break
    except Exception as error:  # the checks' fault, or the sandbox's, not the student's: no mark, and on with the class
        said = str(error) if type(error) is RuntimeError else f"{type(error).__name__}: {error}"
        return Result(exercise.id, "ungraded", None, of, sentence=text(said), notes=notes)
    notes += tuple(filter(None, [answer.note, told and f"stopped: {told}"]))
    rows = tuple((row.text, row.passed) for row in outcome.rows)
    if outcome.passed:
        return Result(exercise.id, "passed", of, of, rows=rows, notes=notes)
    mistake = outcome.mistake.name if outcome.mistake else ""
    state: State = "untried" if outcome.untried else "wrong"
    return Result(exercise.id, state, 0.0, of, mistake, text(outcome.sentence), rows, notes)


class Answer:
    """A student's function, in its sandbox: what the checks call in its place.

    The first call that is not answered in time, or at all, is the last one that is sent.
    """

    def __init__(self, channel: Channel, exercise: Exercise, source: str) -> None:
        self.note = ""
        self._channel, self._exercise, self._source = channel, exercise, source
        self._end = time.monotonic() + EXERCISE
        self._stopped: Reply | None = None

    def outcome(self, seed: int) -> Outcome:
        """What the checks find."""
        fault = self._defined()
        if fault:
            return Outcome(tuple(Row(says(test), None) for test in self._exercise.checks), fault)
        return judge(self._exercise, self.call, seed)

    def call(self, *args: Any) -> Reply:
        """One call of the function, with plain arguments, and functions of ours among them."""
        if self._stopped:
            return self._stopped
        functions: list[Callable[..., Any]] = []
        try:
            self._channel.deadline = min(time.monotonic() + CALL, self._end)
            self._channel.send(list(args), functions)
            while "asks" in (told := _fields(self._channel.receive())):
                self._channel.send(_answered(functions, told))
            return _reply(told, len(args))
        except (Late, Violation) as error:
            self._stopped = Reply(failure=Failure(_why(error), "", ""))
            return self._stopped

    def _defined(self) -> str:
        """Run the cell; why there is no function to call after it, "" where there is one."""
        try:
            self._channel.deadline = min(time.monotonic() + CALL, self._end)
            self._channel.send({"cell": self._source, "name": self._exercise.name})
            told = _fields(self._channel.receive())
            failure = _failure(told.get("failure"))
            if told.get("there") is True:  # what stopped the cell came after the function's definition
                self.note = f"the cell stopped: {failure.message}" if failure else ""
                return fault_of_signature(self._exercise, _signature(told.get("parameters"))) or ""
        except (Late, Violation) as error:
            return f"The cell stopped: {_why(error)}."
        if failure:
            where = f" in {failure.where}" if failure.where else ""
            return f"The cell stopped{where}: {failure.message.rstrip('.')}."
        return f"After the cell has run there is no function `{self._exercise.name}`."


def _why(error: Exception) -> str:
    if isinstance(error, Late):
        return f"TimeoutError: no answer within {CALL:.0f} seconds"
    return f"RuntimeError: {error}; it has ended Python, used too much memory, or broken off"


def _fields(told: Any) -> dict[str, Any]:
    """What every frame of a worker is. Raises Violation where it is something else."""
    if not isinstance(told, dict):
        raise Violation("a frame is malformed")
    return told


def _answered(functions: Sequence[Callable[..., Any]], told: dict[str, Any]) -> dict[str, Any]:
    """The value of one of our functions for arguments that an answer has chosen, or what it raises."""
    try:
        number, args = told["asks"], told["args"]
        if type(number) is not int or not 0 <= number < len(functions) or not isinstance(args, list):
            raise Violation("a frame is malformed")
        return {"value": plain(functions[number](*copy(args)))}
    except Violation:
        raise
    except Exception as error:
        return {"error": type(error).__name__, "message": text(str(error), 300)}


def _reply(told: dict[str, Any], arguments: int) -> Reply:
    """What a worker says of a call, as a Reply. Raises Violation where it cannot be one."""
    if not {"output", "failure", "mutated"} <= told.keys() or not isinstance(told["mutated"], list):
        raise Violation("a frame is malformed")
    mutated = tuple(i for i in told["mutated"] if type(i) is int and 0 <= i < arguments)
    output = _without_functions(told["output"])
    printed, warned = text(told.get("printed")), text(told.get("warned"), 300)
    return Reply(output, _failure(told["failure"]), mutated, printed, warned)


def _failure(told: Any) -> Failure | None:
    if told is None:
        return None
    message, where, trace = (text(_fields(told).get(name), 4000) for name in ("message", "where", "trace"))
    return Failure(message[:300] or "Exception", where[:300], trace, told.get("untried") is True)


def _without_functions(value: Any) -> Any:
    if isinstance(value, Function):
        raise Violation("a frame is malformed")
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        _without_functions(item)
    return value


def _signature(told: Any) -> inspect.Signature | None:
    """A function's signature from the names, kinds and defaults a worker tells; None where they make none."""
    try:
        kinds = list(inspect._ParameterKind)
        return inspect.Signature(
            [
                inspect.Parameter(name, kinds[kind], default=None if default is True else inspect.Parameter.empty)
                for name, kind, default in told[:100]
            ]
        )
    except (TypeError, ValueError, LookupError, RuntimeError):
        return None


# A class -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """What is to be graded, and how. `chapters`: numbers of notebooks, all that were handed in where it is empty."""

    folder: Path
    out: Path
    chapters: tuple[str, ...] = ()
    hidden: Path | None = None
    jobs: int = 1
    level: str = "bubblewrap"


@dataclass(frozen=True)
class _Work:
    student: str
    path: Path
    ids: tuple[str, ...]
    seed: int
    key: str


def grade_class(order: Order, done: Callable[[Graded], None] = lambda graded: None) -> list[Graded]:
    """Every submission of a folder, in the order of their names; `done` is told of each as it is graded.

    What is graded is written to `out`/results at once, so that a run which is stopped goes on from there. A submission
    is graded anew when it has changed, or when the exercises or the level have.

    Raises:
        ValueError, FileNotFoundError: the order cannot be carried out, and what to do.
    """
    allowed(order.level)
    found = students(order.folder)
    if order.out.resolve().is_relative_to(order.folder.resolve()):
        raise ValueError(f"Results in {order.out} would lie among the submissions: choose another folder with --out.")
    load_hidden(order.hidden)
    chapters = _chapters(order, found)
    exercises = [one for one in catalogue() if one.id[:2] in chapters]
    if not exercises:
        raise ValueError("There is nothing to grade: no submission has a cell of an exercise (tag nb05_2).")
    secret, state = secret_of(order.out), _state_of_course(order)
    ids = tuple(one.id for one in exercises)
    works = {}
    for student, path in found.items():
        digest = hashlib.sha256("\n".join([state, order.level, student, *ids, secret]).encode())
        _add_digest_of(digest, path)
        works[student] = _Work(student, path, ids, seed_of(secret, student), digest.hexdigest())
    graded: dict[str, Graded] = {}
    for student, work in works.items():
        before = results.read(result_path(order.out, student))
        if before and before.key == work.key and not any(one.state == "ungraded" for one in before.results):
            graded[student] = before
            done(before)
    for one in _graded(order, [work for student, work in works.items() if student not in graded]):
        results.write(result_path(order.out, one.student), one)
        graded[one.student] = one
        done(one)
    return [graded[student] for student in found]


def allowed(wanted: str) -> None:
    """Raise ValueError unless sandboxes of this level can be made here."""
    if os.name != "posix":
        raise ValueError("Grading needs Linux, or macOS at a weaker level: on Windows use WSL.")
    if wanted == "bubblewrap" and level() != wanted:
        raise ValueError(
            "No safe sandbox can be made here: install bubblewrap (Debian, Ubuntu: sudo apt-get install bubblewrap), "
            f"or add --allow-weak-sandbox if you trust every submission ({LEVELS['limits']})."
        )


def seed_of(secret: str, student: str) -> int:
    """A student's own seed: the same at every run with this secret, and not to be guessed without it."""
    return int.from_bytes(hmac.digest(secret.encode(), student.encode(), "sha256")[:6], "big")


def result_path(out: Path, student: str) -> Path:
    """The file of a student's results: the name as far as file systems take it, and a digest that makes it unique."""
    digest = hashlib.sha256(student.encode()).hexdigest()[:8]
    return out / "results" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', student)[:60]}-{digest}.json"


def load_hidden(folder: Path | None) -> None:
    """Run a teacher's own Python files, which add checks to exercises: `@find("05.2").check`.

    Raises:
        FileNotFoundError: there is no such folder, or no Python file in it.
    """
    if folder is None:
        return
    files = sorted(folder.glob("*.py"))
    if not files:
        raise FileNotFoundError(f"{folder} has no Python file with hidden checks.")
    for file in files:
        spec = importlib.util.spec_from_file_location(f"hidden_{file.stem}", file)
        assert spec
        assert spec.loader
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _chapters(order: Order, found: dict[str, Path]) -> set[str]:
    if not order.chapters:
        claims = Counter(chapter for student, path in found.items() for chapter in read(student, path).chapters)
        # what one student in ten says was asked for: a cell with a strange tag must not add to what all have to do
        return {chapter for chapter, count in claims.items() if count >= len(found) / 10}
    known = {one.id[:2] for one in catalogue()}
    wrong = [chapter for chapter in order.chapters if chapter not in known]
    if wrong:
        raise ValueError(f"No notebook {wrong[0]!r} has exercises: choose among {', '.join(sorted(known))}.")
    return set(order.chapters)


def secret_of(out: Path) -> str:
    """The secret of this folder of results, made when there is none: whoever has it can foretell a check's inputs."""
    path = out / "secret"
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        whole = path.with_name(f"secret.{os.getpid()}")  # never half of it, and never over another
        with open(os.open(whole, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
        with suppress(FileExistsError):
            os.link(whole, path)
        whole.unlink()
    return path.read_text().strip()


def _state_of_course(order: Order) -> str:
    """A digest of all code that decides a grade."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "exercises", package / "grading", order.hidden):
        for file in sorted(folder.glob("*.py")) if folder else ():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _add_digest_of(digest: hashlib._Hash, path: Path) -> None:
    """What would make a submission another: its files, each by name, size and time of change."""
    for file, fault in itertools.islice(notebooks(path), 1000):
        digest.update(json.dumps([str(file), fault]).encode())
        with suppress(OSError):
            at = file.lstat()
            digest.update(f"{at.st_size} {at.st_mtime_ns}".encode())


# Graders: processes, each with a sandbox of its own -------------------------------------------------------------------

_sandbox: Sandbox


def _graded(order: Order, works: Sequence[_Work]) -> Iterator[Graded]:
    """Results as they come. A grader that dies costs the submissions it had a second try, each alone."""
    left = {work.student: work for work in works}
    for jobs, tries in ((order.jobs, 1), (1, len(works))):
        for _ in range(tries):
            if not left:
                return
            with _graders(order, min(jobs, len(left))) as pool:
                futures: dict[Future[Graded], str] = {}
                try:
                    futures = {pool.submit(_grade, work): student for student, work in left.items()}
                    while futures:
                        ended = wait(futures, return_when=FIRST_COMPLETED).done
                        for future in sorted(ended, key=lambda one: one.exception() is not None):
                            student = futures.pop(future)
                            yield future.result()
                            del left[student]
                except BrokenProcessPool:
                    if jobs == 1:  # it was at work on the first that is left
                        yield _given_up(order, left.pop(next(iter(left))))
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise


def _given_up(order: Order, work: _Work) -> Graded:
    by_id = {one.id: one for one in catalogue()}
    sentence = "Grading it stopped the grader twice: look at the notebook."
    ungraded = tuple(Result(id, "ungraded", None, float(by_id[id].points), sentence=sentence) for id in work.ids)
    return Graded(work.student, order.level, ungraded, key=work.key)


def _graders(order: Order, jobs: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would take along what this process has open
    return ProcessPoolExecutor(jobs, context, _begin, (order, context.Value("i", 0)))


def _begin(order: Order, count: Any) -> None:
    """A grader's first act: its own sandbox, and the hidden checks."""
    global _sandbox
    import atexit

    torch.set_num_threads(1)
    load_hidden(order.hidden)
    with count.get_lock():
        slot, count.value = count.value, count.value + 1
    _sandbox = Sandbox(order.level, slot, hide=[path for path in (ROOT, order.folder, order.out, order.hidden) if path])
    atexit.register(_sandbox.close)


def _grade(work: _Work) -> Graded:
    by_id = {one.id: one for one in catalogue()}
    submission = read(work.student, work.path)
    graded = grade_submission(submission, [by_id[id] for id in work.ids], _sandbox, work.seed)
    _sandbox.close_worker()  # the next student's answers find nothing of this one's
    return replace(graded, key=work.key)
