"""The three reports: each reads back as what grading found, whatever a submission has put into names and messages."""

from __future__ import annotations

import csv
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from ddpm_edu.exercises.declare import catalogue, find
from ddpm_edu.grading.report import COLUMNS, write_csv, write_html, write_junit
from ddpm_edu.grading.results import Graded, Result, State

if TYPE_CHECKING:
    from playwright.sync_api import Page

Write = Callable[[Path, Sequence[Graded]], None]
every = pytest.mark.parametrize("write", [write_csv, write_junit, write_html])

HOSTILE = {
    "surrogate": ("half \ud800 a character", "half  a character"),
    "nul": ("nul\0 and escape\x1b", "nul and escape"),
    "markup": ("<script>alert('1')</script> & ]]>", "<script>alert('1')</script> & ]]>"),
    "lines": ('two\nlines, "quoted"\tand tabbed', 'two\nlines, "quoted"\tand tabbed'),
    "long": ("x" * 10_000, "x" * 10_000),
    "wide": ("王小明 😀 é", "王小明 😀 é"),
}
hostile = pytest.mark.parametrize(("text", "kept"), HOSTILE.values(), ids=HOSTILE)


def passed(id: str) -> Result:
    return Result(id, "passed", 1.0, 1.0)


def wrong(id: str, mistake: str = "", sentence: str = "A message that was raised.") -> Result:
    known = {one.name: one.sentence for one in find(id).mistakes}
    rows = (("it returns a tensor", True), ("it matches eq. 2", False), ("it serves images", None))
    return Result(id, "wrong", 0.0, 1.0, mistake, known.get(mistake, sentence), rows)


def other(id: str, state: State) -> Result:
    told = {"untried": "Not written yet.", "missing": "No cell answers this exercise.", "ungraded": "A check failed."}
    return Result(id, state, None if state == "ungraded" else 0.0, 1.0, sentence=told[state])


CLASS = [
    Graded("Ada Lovelace", "bubblewrap", (passed("05.1"), wrong("05.2", "no_roots_in_jump"), passed("05.3"))),
    Graded("Émilie", "bubblewrap", (passed("05.1"), wrong("05.2", "no_roots_in_jump"), passed("05.3"))),
    Graded("王小明", "bubblewrap", (wrong("05.1", "beta_as_deviation"), wrong("05.2"), passed("05.3"))),
    Graded("Kurt", "bubblewrap", (wrong("05.1", "beta_as_deviation"), other("05.2", "missing"), passed("05.3"))),
    Graded("Emmy", "bubblewrap", (wrong("05.1", "beta_as_deviation"), other("05.2", "untried"), passed("05.3"))),
    Graded("Alan", "bubblewrap", (wrong("05.1", "mean_alone"), other("05.2", "ungraded"), passed("05.3"))),
]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def visible(page: str) -> str:
    """The page's words, tags left out."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]))


def section(page: str, id: str) -> str:
    """The words of one exercise."""
    return next(visible(f"<body>{one}") for one in page.split("<section>")[1:] if one.startswith(f"<h3><b>{id}</b>"))


# The table -----------------------------------------------------------------------------------------------------------


def test_the_table_reads_back(tmp_path: Path):
    result = Result("05.2", "wrong", 0.5, 1.5, "no_roots_in_jump", "Both roots.", notes=("found by name", "stopped"))
    graded = Graded("王小明", "limits", (passed("05.1"), result, other("05.3", "ungraded")), ("b.ipynb was left out",))
    write_csv(tmp_path / "marks.csv", [graded])
    rows = table(tmp_path / "marks.csv")
    assert rows[1] == {
        "student": "王小明",
        "exercise": "05.2",
        "title": find("05.2").title,
        "points": "0.5",
        "of": "1.5",
        "state": "wrong",
        "mistake": "no_roots_in_jump",
        "sentence": "Both roots.",
        "notes": "b.ipynb was left out; found by name; stopped",
        "level": "limits",
    }
    assert tuple(rows[0]) == COLUMNS
    assert [row["points"] for row in rows] == ["1", "0.5", ""]
    assert [row["notes"] for row in rows[::2]] == ["b.ipynb was left out"] * 2
    assert (tmp_path / "marks.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_the_table_has_a_row_for_each_student_and_exercise(tmp_path: Path):
    write_csv(tmp_path / "marks.csv", CLASS)
    found = [(row["student"], row["exercise"], row["state"]) for row in table(tmp_path / "marks.csv")]
    assert found == [(one.student, result.exercise, result.state) for one in CLASS for result in one.results]


@hostile
def test_the_table_keeps_what_a_submission_says(tmp_path: Path, text: str, kept: str):
    write_csv(tmp_path / "marks.csv", [Graded(text, "limits", (wrong("05.1", sentence=text),), (text,))])
    (row,) = table(tmp_path / "marks.csv")
    assert (row["student"], row["sentence"], row["notes"]) == (kept, kept, kept)


@pytest.mark.parametrize(
    "text", ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "\0=cmd()", "\ud800=cmd()"]
)
def test_a_spreadsheet_finds_no_formula(tmp_path: Path, text: str):
    submitted = Graded(text, "limits", (wrong("05.1", sentence=text),), (text,))
    write_csv(tmp_path / "marks.csv", [submitted])
    (row,) = table(tmp_path / "marks.csv")
    guarded = "'" + text.lstrip("\0\ud800")
    assert (row["student"], row["sentence"], row["notes"]) == (guarded, guarded, guarded)
    assert row["points"] == "0"


def test_a_formula_is_not_found_within_a_text(tmp_path: Path):
    write_csv(tmp_path / "marks.csv", [Graded("anne-marie", "limits", (wrong("05.1", sentence="x_t = a + b"),))])
    (row,) = table(tmp_path / "marks.csv")
    assert (row["student"], row["sentence"]) == ("anne-marie", "x_t = a + b")


# JUnit ---------------------------------------------------------------------------------------------------------------


def suites(path: Path) -> list[ElementTree.Element]:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    return list(root)


def test_junit_counts(tmp_path: Path):
    write_junit(tmp_path / "marks.xml", CLASS)
    root = ElementTree.parse(tmp_path / "marks.xml").getroot()
    assert root.attrib == {"tests": "18", "failures": "7", "errors": "1", "skipped": "2"}
    assert [suite.get("name") for suite in root] == [one.student for one in CLASS]
    for suite in root:
        cases = suite.findall("testcase")
        for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(count) == str(sum(case.find(kind) is not None for case in cases))
        assert suite.get("tests") == str(len(cases)) == "3"
        assert {case.get("classname") for case in cases} == {suite.get("name")}


def test_junit_tells_what_became_of_each_exercise(tmp_path: Path):
    states: tuple[State, ...] = ("untried", "missing", "ungraded")
    results = (passed("05.1"), wrong("05.2", "no_roots_in_jump"), wrong("05.3"))
    results += tuple(other(id, state) for id, state in zip(("05.4", "05.5", "06.1"), states, strict=True))
    write_junit(tmp_path / "marks.xml", [Graded("Ada", "limits", results)])
    (suite,) = suites(tmp_path / "marks.xml")
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties == {"level": "limits", "points": "1", "of": "6"}
    right, known, unknown, untried, missing, ungraded = suite.findall("testcase")
    assert known.get("name") == f"05.2 {find('05.2').title}"
    assert len(right) == 0
    sentence = results[1].sentence
    assert known[0].tag == "failure"
    assert known[0].attrib == {"message": sentence, "type": "no_roots_in_jump"}
    assert known[0].text == "✓ it returns a tensor\n✗ it matches eq. 2\n– it serves images"
    assert unknown[0].attrib == {"message": "A message that was raised.", "type": "wrong"}
    assert [case[0].tag for case in (untried, missing, ungraded)] == ["skipped", "skipped", "error"]
    assert ungraded[0].get("message") == "A check failed."


@hostile
def test_junit_parses_whatever_a_submission_says(tmp_path: Path, text: str, kept: str):
    write_junit(tmp_path / "marks.xml", [Graded(text, text, (wrong("05.1", text, text), other("05.2", "missing")))])
    (suite,) = suites(tmp_path / "marks.xml")
    failure = next(suite.iter("failure"))
    assert (suite.get("name"), failure.get("message"), failure.get("type")) == (kept, kept, kept)


def test_junit_has_no_character_that_xml_forbids(tmp_path: Path):
    text = "".join(map(chr, [*range(0x20), *range(0xD7F0, 0xE010), 0xFFFD, 0xFFFE, 0xFFFF, 0x1F600]))
    write_junit(tmp_path / "marks.xml", [Graded(text, "limits", (wrong("05.1", sentence=text),))])
    (suite,) = suites(tmp_path / "marks.xml")
    allowed = [0x9, 0xA, 0xD, *range(0xD7F0, 0xD800), *range(0xE000, 0xE010), 0xFFFD, 0x1F600]
    assert [ord(one) for one in suite.get("name", "")] == allowed


# The page ------------------------------------------------------------------------------------------------------------


def page_of(tmp_path: Path, graded: Sequence[Graded]) -> str:
    write_html(tmp_path / "report.html", graded)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_sums_the_class_up(tmp_path: Path):
    words = visible(page_of(tmp_path, CLASS))
    assert "6 submissions Notebook 05 · 1.3 of 3 points on average · sandbox: bubblewrap" in words


def test_the_page_names_all_notebooks(tmp_path: Path):
    assert "1 submission Notebooks 05, 13 ·" in visible(
        page_of(tmp_path, [Graded("Ada", "limits", (passed("05.1"), passed("13.1")))])
    )


def test_the_page_lists_mistakes_by_how_many_made_them(tmp_path: Path):
    talk = page_of(tmp_path, CLASS).partition("What to talk about")[2].partition("Exercise by exercise")[0]
    sentences = {one.name: one.sentence for id in ("05.1", "05.2") for one in find(id).mistakes}
    words, first, second = visible(f"<body>{talk}"), find("05.1").title, find("05.2").title
    told = [
        f"3 of 6 05.1 {first} {sentences['beta_as_deviation']}",
        f"2 of 6 05.2 {second} {sentences['no_roots_in_jump']}",
        f"1 more, made by one student each 1 of 6 05.1 {first} {sentences['mean_alone']}",
    ]
    assert words.strip() == " ".join(told)


def test_the_page_folds_nothing_away_where_no_mistake_is_shared(tmp_path: Path):
    page = page_of(tmp_path, CLASS[-1:])
    assert "<details>" not in page
    assert "1 of 1 05.1" in visible(page)


def test_the_page_counts_each_exercise(tmp_path: Path):
    page = page_of(tmp_path, CLASS)
    first, second = section(page, "05.1"), section(page, "05.2")
    assert "2 passed 4 wrong" in first
    assert "not attempted" not in first
    assert "in another way" not in first
    assert "3 wrong 2 not attempted 1 could not be graded 2 You left out both square roots" in second
    assert "1 wrong in another way" in second
    assert section(page, "05.3").split("</section>")[0].strip() == f"05.3 {find('05.3').title} ✓ all 6 passed"
    lengths = re.findall(r'<i class="(\w+)" style="flex-grow: (\d+)">', page)
    assert lengths == [("passed", "2"), ("wrong", "4"), ("wrong", "3"), ("untried", "2"), ("ungraded", "1")]


def test_the_page_follows_the_course(tmp_path: Path):
    page = page_of(tmp_path, [Graded("Ada", "limits", tuple(passed(id) for id in ("13.1", "05.2", "05.1")))])
    assert re.findall(r"<section><h3><b>([\d.]+)</b>", page) == ["05.1", "05.2", "13.1"]


def test_two_exercises_may_have_mistakes_of_one_name(tmp_path: Path):
    owners: dict[str, list[str]] = {}
    for exercise in catalogue():
        for mistake in exercise.mistakes:
            owners.setdefault(mistake.name, []).append(exercise.id)
    name, (first, second, *_) = next(one for one in owners.items() if len(one[1]) > 1)
    graded = [Graded(str(i), "limits", (wrong(first, name), wrong(second, name))) for i in range(2)]
    assert page_of(tmp_path, graded).count('<p class="count"><b>2</b> of 2</p>') == 2


def test_the_page_escapes_the_catalogue_and_sets_code(tmp_path: Path):
    """Of 13.2 a sentence has a <, of 13.4 one has `code`."""
    inverted = wrong("13.2", "pair_drop_inverted")
    nowhere = wrong("13.4", "known_nowhere")
    page = page_of(tmp_path, [Graded("Ada", "limits", (inverted, nowhere))])
    assert "u &lt; drop" in page
    assert "u < drop" not in page
    assert "<code>known</code>" in page
    assert "`" not in page


@hostile
def test_the_page_says_nothing_that_a_submission_says(tmp_path: Path, text: str, kept: str):
    said = "a secret " + text
    results = (
        Result("05.1", "wrong", 0.0, 1.0, said, said, ((said, False),), (said,)),
        Result("05.2", "ungraded", None, 1.0, "", said, (), (said,)),
    )
    page = page_of(tmp_path, [Graded(said, "limits", results, (said,))])
    assert "secret" not in page
    assert kept not in page
    assert "1 wrong in another way" in visible(page)
    assert page_of(tmp_path, [Graded("someone else", "limits", results)]) == page


def test_the_page_names_no_student(tmp_path: Path):
    page = page_of(tmp_path, CLASS)
    assert not [one.student for one in CLASS if one.student in page]


def test_the_page_needs_nothing_else(tmp_path: Path):
    page = page_of(tmp_path, CLASS)
    assert not re.search(r"<script|<link|<img|url\(|@import|https?:|src=|href=", page)


@pytest.mark.browser
def test_the_page_fits_a_projector(tmp_path: Path, page: Page):
    """All exercises of the course, each with its longest sentence, beside bars that are as long as they say."""
    longest = {one.id: max(one.mistakes, key=lambda mistake: len(mistake.sentence)).name for one in catalogue()}
    graded = [Graded(str(i), "bubblewrap", tuple(wrong(*each) for each in longest.items())) for i in range(120)]
    graded += [Graded(str(i), "bubblewrap", tuple(map(passed, longest))) for i in range(40)]
    write_html(tmp_path / "report.html", graded)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth") == 1280
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 22
    right, false = (page.locator(f".bar i.{kind}").first.bounding_box() for kind in ("passed", "wrong"))
    assert right
    assert false
    assert false["width"] / right["width"] == pytest.approx(3, rel=0.05)
    assert len(requests) == 1


# All three -----------------------------------------------------------------------------------------------------------


def test_a_class_may_be_empty(tmp_path: Path):
    write_csv(tmp_path / "marks.csv", [])
    write_junit(tmp_path / "marks.xml", [])
    assert table(tmp_path / "marks.csv") == []
    assert suites(tmp_path / "marks.xml") == []
    assert visible(page_of(tmp_path, [])).strip() == "No submissions"


def test_a_class_may_have_passed_everything(tmp_path: Path):
    words = visible(page_of(tmp_path, [Graded("Ada", "limits", (passed("05.1"),))]))
    assert "Nobody made a mistake that the course has a name for." in words


@every
def test_reports_are_written_whole_into_folders_that_are_made(tmp_path: Path, write: Write):
    path = tmp_path / "new" / "folder" / "report"
    write(path, [])
    write(path, CLASS)
    once = path.read_bytes()
    write(path, CLASS)
    assert path.read_bytes() == once
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_csv, write_junit])
def test_marks_are_for_their_owner_alone(tmp_path: Path, write: Write):
    write(tmp_path / "report", CLASS)
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o600


@every
def test_nothing_is_left_beside_a_report_that_cannot_be_written(tmp_path: Path, write: Write):
    (tmp_path / "report" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="report"):
        write(tmp_path / "report", CLASS)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
