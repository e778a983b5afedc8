"""What grading found, told three ways: a table with every mark, JUnit's XML, and a page to show in class.

The table and the XML name the students. The page does not, and quotes nothing they wrote: it holds numbers, and the
catalogue's own words.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ddpm_edu.exercises.declare import Exercise, Mistake, catalogue, find
from ddpm_edu.exercises.report import MARKS
from ddpm_edu.grading.results import Graded, Result, State, write_whole

COLUMNS = ("student", "exercise", "title", "points", "of", "state", "mistake", "sentence", "notes", "level")

# What XML 1.0 has no place for, not even escaped: control characters and halves of characters among it.
_forbidden = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What a spreadsheet may take for a formula, and run: the wide signs are what a Chinese keyboard types.
_formula = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")


# A table -------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, graded: Sequence[Graded]) -> None:
    """A row for each student and exercise, with the columns COLUMNS; `points` is empty where there is no mark.

    A cell that a spreadsheet would run as a formula begins with '. The file is UTF-8 with a byte order mark, without
    which spreadsheets misread names.

    Raises:
        ValueError: a result is of no exercise of the course.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    for one in graded:
        for result in one.results:
            points = "" if result.points is None else f"{result.points:g}"
            notes = "; ".join([*one.notes, *result.notes])
            told = [points, f"{result.of:g}", result.state, result.mistake, result.sentence, notes, one.level]
            writer.writerow(map(_cell, [one.student, result.exercise, find(result.exercise).title, *told]))
    write_whole(path, table.getvalue().encode("utf-8-sig"))


def _cell(text: str) -> str:
    text = _clean(text)
    return f"'{text}" if _formula.match(text) else text


# JUnit ---------------------------------------------------------------------------------------------------------------


def write_junit(path: Path, graded: Sequence[Graded]) -> None:
    """A test suite for each student, a test case for each exercise.

    A wrong answer is a failure, its type the mistake's name or "wrong"; one that was not attempted is skipped; one that
    could not be graded is an error. All that XML cannot hold is left out of the texts.

    Raises:
        ValueError: a result is of no exercise of the course.
    """
    root = ElementTree.Element("testsuites", _counts([result for one in graded for result in one.results]))
    for one in graded:
        student = _clean(one.student)
        suite = ElementTree.SubElement(root, "testsuite", {"name": student, **_counts(one.results)})
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in (("level", one.level), ("points", f"{one.points:g}"), ("of", f"{one.of:g}")):
            ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
        for result in one.results:
            title = f"{result.exercise} {find(result.exercise).title}"
            _add_outcome(ElementTree.SubElement(suite, "testcase", classname=student, name=title), result)
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _counts(results: Sequence[Result]) -> dict[str, str]:
    states = Counter(result.state for result in results)
    skipped = states["untried"] + states["missing"]
    counts = {"tests": len(results), "failures": states["wrong"], "errors": states["ungraded"], "skipped": skipped}
    return {name: str(count) for name, count in counts.items()}


def _add_outcome(case: ElementTree.Element, result: Result) -> None:
    """What is inside a test case: nothing where the answer passed."""
    message = _clean(result.sentence)
    if result.state == "wrong":
        failure = ElementTree.SubElement(case, "failure", message=message, type=_clean(result.mistake) or "wrong")
        failure.text = _clean("\n".join(f"{MARKS[passed]} {text}" for text, passed in result.rows))
    elif result.state == "ungraded":
        ElementTree.SubElement(case, "error", message=message, type="ungraded")
    elif result.state != "passed":
        ElementTree.SubElement(case, "skipped", message=message or result.state)


# A page --------------------------------------------------------------------------------------------------------------

# The parts of a bar: what each is called, and the states it stands for; the first state is its class in the style.
_PARTS: dict[str, tuple[State, ...]] = {
    "passed": ("passed",),
    "wrong": ("wrong",),
    "not attempted": ("untried", "missing"),
    "could not be graded": ("ungraded",),
}


@dataclass(frozen=True)
class _Tally:
    """One exercise in the whole class: results of each part of its bar, and the mistakes made, most common first."""

    exercise: Exercise
    parts: dict[str, int]
    mistakes: tuple[tuple[Mistake, int], ...]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def otherwise(self) -> int:
        """Wrong answers that are no known mistake."""
        return self.parts["wrong"] - sum(count for _, count in self.mistakes)


def write_html(path: Path, graded: Sequence[Graded]) -> None:
    """The report for the class: one file without a name in it, to be projected; it needs no network and no script."""
    write_whole(path, "\n".join(_page(graded)).encode())


def _page(graded: Sequence[Graded]) -> Iterator[str]:
    tallies = _tallies(graded)
    yield _HEAD
    yield from _summary(graded, tallies)
    if tallies:
        yield from _talk(tallies)
        yield "<h2>Exercise by exercise</h2>"
        for tally in tallies:
            yield from _section(tally)
    yield "</body>\n</html>\n"


def _tallies(graded: Sequence[Graded]) -> list[_Tally]:
    """Of all exercises that were asked for, in the course's order."""
    results: dict[str, list[Result]] = {}
    for one in graded:
        for result in one.results:
            results.setdefault(result.exercise, []).append(result)
    return [_tally(one, results[one.id]) for one in catalogue() if one.id in results]


def _tally(exercise: Exercise, results: Sequence[Result]) -> _Tally:
    states = Counter(result.state for result in results)
    made = Counter(result.mistake for result in results if result.state == "wrong")
    mistakes = [(mistake, made[mistake.name]) for mistake in exercise.mistakes if made[mistake.name]]
    return _Tally(
        exercise,
        {part: sum(states[state] for state in of) for part, of in _PARTS.items()},
        tuple(sorted(mistakes, key=lambda each: -each[1])),
    )


def _summary(graded: Sequence[Graded], tallies: Sequence[_Tally]) -> Iterator[str]:
    if not graded:
        yield "<h1>No submissions</h1>"
        return
    chapters = sorted({tally.exercise.id[:2] for tally in tallies})
    points, of = sum(one.points for one in graded) / len(graded), sum(one.of for one in graded) / len(graded)
    told = [
        f"Notebook{'s' * (len(chapters) > 1)} {', '.join(chapters)}",
        f"<b>{points:.1f}</b> of {of:g} points on average",
        f"sandbox: {html.escape(', '.join(sorted({one.level for one in graded})))}",
    ]
    yield f"<h1>{len(graded)} submission{'s' * (len(graded) > 1)}</h1>"
    yield f'<p class="summary">{" · ".join(told)}</p>'


def _talk(tallies: Sequence[_Tally]) -> Iterator[str]:
    """All mistakes, most common first; those of one student each are folded away below what others share."""
    made = [(count, tally, mistake) for tally in tallies for mistake, count in tally.mistakes]
    made.sort(key=lambda each: -each[0])
    shared = [each for each in made if each[0] > 1] or made
    alone = made[len(shared) :]
    yield "<h2>What to talk about</h2>"
    if not made:
        yield "<p>Nobody made a mistake that the course has a name for.</p>"
    yield from _mistakes(shared)
    if alone:
        yield f"<details><summary>{len(alone)} more, made by one student each</summary>"
        yield from _mistakes(alone)
        yield "</details>"


def _mistakes(made: Iterable[tuple[int, _Tally, Mistake]]) -> Iterator[str]:
    yield '<ol class="talk">'
    for count, tally, mistake in made:
        yield f'<li><p class="count"><b>{count}</b> of {tally.total}</p>'
        yield f'<div><p class="where">{_title(tally)}</p><p>{_inline(mistake.sentence)}</p></div></li>'
    yield "</ol>"


def _section(tally: _Tally) -> Iterator[str]:
    """An exercise's bar, what its parts are, and the mistakes in it; one line where all passed."""
    if tally.parts["passed"] == tally.total:
        yield f'<section><h3>{_title(tally)} <span class="all">✓ all {tally.total} passed</span></h3></section>'
        return
    parts = [(_PARTS[part][0], count, part) for part, count in tally.parts.items() if count]
    yield f'<section><h3>{_title(tally)}</h3>\n<div class="bar">'
    yield from (f'<i class="{kind}" style="flex-grow: {count}"></i>' for kind, count, _ in parts)
    yield '</div>\n<p class="parts">'
    yield from (f'<span><i class="{kind}"></i> <b>{count}</b> {part}</span>' for kind, count, part in parts)
    yield "</p>"
    made = [(count, _inline(mistake.sentence)) for mistake, count in tally.mistakes]
    if tally.otherwise:
        made.append((tally.otherwise, "<em>wrong in another way</em>"))
    if made:
        yield '<ul class="made">'
        yield from (f"<li><b>{count}</b> <span>{sentence}</span></li>" for count, sentence in made)
        yield "</ul>"
    yield "</section>"


def _title(tally: _Tally) -> str:
    return f"<b>{tally.exercise.id}</b> {_inline(tally.exercise.title)}"


def _inline(text: str) -> str:
    """Escaped, `code` set as such."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(_clean(text)))


# Colours of Okabe and Ito, and a pattern each, so that a bar can be read without seeing colours.
_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Class report</title>
<style>
:root {
  color-scheme: light dark;
  --ground: #fff; --ink: #151515; --quiet: #555; --line: #ccc; --code: #eee;
  --passed: #0072b2; --wrong: #d55e00; --wrong-too: #ffb37a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #151515; --ink: #f2f2f2; --quiet: #b5b5b5; --line: #4a4a4a; --code: #333;
    --passed: #56b4e9; --wrong: #f07f1f; --wrong-too: #7a3a00;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.2em 2em 3em; max-width: 54em; overflow-wrap: anywhere;
  background: var(--ground); color: var(--ink);
  font: clamp(22px, 1.9vw, 40px)/1.35 system-ui, "Segoe UI", "Noto Sans", "Liberation Sans", sans-serif;
}
h1, h2, h3, p, ul, ol { margin: 0; padding: 0; }
h1 { font-size: 2em; line-height: 1.1; }
h2 { font-size: 1.4em; margin-top: 1.6em; padding-bottom: .2em; border-bottom: 3px solid var(--ink); }
h3 { font-size: 1.1em; font-weight: normal; }
ol, ul { list-style: none; }
b { font-variant-numeric: tabular-nums; }
code { font-size: .9em; padding: 0 .25em; border-radius: .2em; background: var(--code); }
.summary, .where, .count { color: var(--quiet); }
.summary { font-size: 1.1em; margin-top: .3em; }
.talk li { display: flex; gap: 1.2em; padding: .7em 0; border-bottom: 1px solid var(--line); break-inside: avoid; }
.talk .count { flex: 0 0 4.5em; line-height: 1.1; }
.talk .count b { display: block; font-size: 2.3em; line-height: 1; color: var(--ink); }
.talk div p:last-child { font-size: 1.2em; line-height: 1.3; text-wrap: pretty; }
summary { padding: .7em 0; color: var(--quiet); cursor: pointer; }
section { padding: 1em 0; border-bottom: 1px solid var(--line); break-inside: avoid; }
.all { float: right; color: var(--passed); font-weight: bold; }
.bar { display: flex; gap: 3px; height: 1.5em; margin-top: .4em; }
.bar i, .parts i { border: 2px solid; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar i { flex: 0 1 0; }
.parts { display: flex; flex-wrap: wrap; gap: 0 1.8em; margin-top: .3em; }
.parts i { display: inline-block; width: 1em; height: 1em; vertical-align: -.12em; }
i.passed { background: var(--passed); border-color: var(--passed); }
i.wrong {
  border-color: var(--wrong);
  background: repeating-linear-gradient(135deg, var(--wrong) 0 6px, var(--wrong-too) 6px 12px);
}
i.untried { border-color: var(--quiet); }
i.ungraded { border: 2px dotted var(--ink); }
.made { margin-top: .5em; }
.made li { display: flex; gap: .8em; margin-top: .25em; text-wrap: pretty; }
.made li > b { flex: 0 0 1.6em; text-align: right; }
</style>
</head>
<body>"""


# All three -----------------------------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    return _forbidden.sub("", text)
