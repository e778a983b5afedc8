"""The exercise engine on a toy: whatever an answer does, the learner gets one sentence and a function that works."""

from __future__ import annotations

import json
import linecache
import os
import re
import subprocess
import sys
import textwrap
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_edu import exercises
from ddpm_edu.exercises import agree, attempt, check, hint, progress, solution, stub
from ddpm_edu.exercises.cell import foreign_names
from ddpm_edu.exercises.declare import Exercise, catalogue, exercise
from ddpm_edu.exercises.reply import Reply, here
from ddpm_edu.exercises.report import Page
from ddpm_edu.exercises.run import judge
from ddpm_edu.exercises.values import Opaque, fault_of_form, plain, same


def blend(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Blend x and y, each sample with its own share w.

    x, y: (b, ...). w: (b,).
    Returns w x + (1 - w) y.
    """
    share = w.view(-1, *[1] * (x.ndim - 1))
    return share * x + (1 - share) * y


toy = Exercise("99.1", "A toy", blend, hints=("First.", "Second."))


@toy.check
def check_values(student, rng):
    """blends points and images."""
    for shape in [(4, 3), (4, 2, 4, 4)]:
        x, y, w = (torch.randn(*size, generator=rng) for size in (shape, shape, shape[:1]))
        agree(student.blend(x, y, w), blend(x, y, w))


@toy.check
def check_ends(student, rng):
    """gives x for w = 1"""
    x = torch.randn(3, 2, generator=rng)
    agree(student.blend(x, torch.zeros(3, 2), torch.ones(3)), x)


@toy.mistake("You blended the wrong way round.")
def swapped(x, y, w):
    return blend(y, x, w)


@toy.mistake("The share must meet the batch axis.")
def last_axis(x, y, w):
    return w * x + (1 - w) * y


@toy.mistake("You changed x itself.")
def in_place(x, y, w):
    share = w.view(-1, *[1] * (x.ndim - 1))
    return x.mul_(share).add_((1 - share) * y)


# pytest collects tests by name; these are collected by the engine alone
check_values.__name__, check_ends.__name__ = "test_values", "test_ends"


@pytest.fixture(autouse=True)
def _own_course(monkeypatch, tmp_path):
    """The toy is the only exercise, and progress goes to a folder of its own."""
    catalogue()
    monkeypatch.setattr("ddpm_edu.exercises.declare._exercises", {"99.1": toy})
    monkeypatch.setattr(exercises, "_hints", {})
    monkeypatch.setenv("DDPM_EDU_PROGRESS", str(tmp_path / "progress.json"))


_cells = count(1)


def from_cell(source: str, others: dict | None = None):
    """`blend` as a notebook's cell defines it, in a session where `others` are already defined."""
    name = f"<cell {next(_cells)}>"
    source = textwrap.dedent(source)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    session = {"torch": torch, "Tensor": Tensor, "__name__": "__main__", **(others or {})}
    exec(compile(source, name, "exec"), session)
    return session["blend"]


def sentence(answer) -> str:
    outcome = attempt(toy, answer)
    assert not outcome.passed
    assert "\n" not in outcome.sentence
    assert len(outcome.sentence) < 400
    return outcome.sentence


# Right, untried, and named mistakes -------------------------------------------------------------------------------


def test_a_right_answer_comes_back(capsys):
    def answer(x, y, w):
        return torch.stack([k * a + (1 - k) * b for a, b, k in zip(x, y, w, strict=True)])

    assert check("99.1", answer) is answer
    shown = capsys.readouterr().out
    assert "99.1 A toy: passed" in shown
    assert "✓  blends points and images" in shown
    assert "is now yours." in shown


def test_a_wrong_answer_gives_the_reference(capsys):
    assert check("99.1", lambda x, y, w: blend(y, x, w)) is blend
    shown = capsys.readouterr().out
    assert shown.index("You blended the wrong way round.") < shown.index("✗")
    assert "is now the course's own" in shown
    assert "assert" not in shown


def test_the_stub_is_told_from_a_wrong_answer(capsys):
    answer = from_cell(stub("99.1"))
    assert check("99.1", answer) is blend
    shown = capsys.readouterr().out
    assert "not attempted yet" in shown
    assert "✗" not in shown


def test_the_reference_handed_in_again_is_no_answer(capsys):
    """A check cell run twice, after a failure: the name now stands for the course's own function."""
    given = check("99.1", lambda x, y, w: x)
    assert check("99.1", given) is blend
    assert "the course's own" in capsys.readouterr().out
    progress()
    assert "0 of 1" in capsys.readouterr().out


@pytest.mark.parametrize("mistake", toy.mistakes, ids=lambda mistake: mistake.name)
def test_a_mistake_is_named_also_where_it_raises_or_changes_its_input(mistake):
    assert sentence(mistake.function) == mistake.sentence


def test_a_mistake_is_named_also_when_written_another_way():
    assert sentence(lambda x, y, w: y * w + x - x * w) == "The share must meet the batch axis."
    assert "wrong way" in sentence(lambda x, y, w: blend(y.double(), x.double(), w.double()))


def test_no_mistake_is_named_for_a_near_miss():
    assert attempt(toy, lambda x, y, w: 1.01 * blend(y, x, w)).mistake is None


def test_of_two_mistakes_alike_in_the_first_check_the_later_calls_tell():
    two = Exercise("99.4", "Two", blend, hints=())

    @two.check
    def test_points(student, rng):
        """on points"""
        points = torch.randn(3, 2, generator=rng)
        agree(student.blend(points, 0 * points, torch.full((3,), 0.3)), 0.3 * points)

    @two.check
    def test_images(student, rng):
        """on images"""
        images = torch.randn(3, 2, 2, 2, generator=rng)
        agree(student.blend(images, 0 * images, torch.full((3,), 0.3)), 0.3 * images)

    @two.mistake("Wrong on points.")
    def on_points(x, y, w):
        return blend(y, x, w) if x.ndim == 2 else blend(x, y, w)

    @two.mistake("Wrong everywhere.")
    def everywhere(x, y, w):
        return blend(y, x, w)

    for mistake in two.mistakes:
        assert attempt(two, mistake.function).mistake is mistake


# Everything else an answer may do ----------------------------------------------------------------------------------


class Hostile:
    def __eq__(self, other):
        raise RuntimeError("no")

    __hash__ = None
    __repr__ = __bool__ = __len__ = __iter__ = __float__ = __eq__

    @property
    def __class__(self):
        raise RuntimeError("no")


class HostileTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *args, **kwargs):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, "None"),
        (lambda: ..., "`...`"),
        (lambda: "text", "a str"),
        (lambda: Hostile(), "test_engine.Hostile"),
        (lambda: Hostile, "class itself"),
        (lambda: torch.ones(2).as_subclass(HostileTensor), "test_engine.HostileTensor"),
        (lambda: np.ones((4, 3)), "torch.from_numpy"),
        (lambda: [0] * 10**6, "torch.stack"),
        (lambda: [[1.0, 2.0]], "torch.stack"),
        (lambda: (torch.ones(4, 3),), "stray comma behind the return value"),
        (lambda: (x for x in count()), "yield"),
        (lambda: torch.ones, "call it with ()"),
        (lambda: lambda: 1, "call it with ()"),
        (lambda: 3, "shape ()"),
        (lambda: 1e400, "shape ()"),
        (lambda: torch.ones(4, 3, dtype=torch.long), "int64"),
        (lambda: torch.ones(4, 3, dtype=torch.bool), "bool"),
        (lambda: torch.ones(4, 3, dtype=torch.cfloat), "a complex tensor"),
        (lambda: torch.ones(4, 3, dtype=torch.half), "float16"),
        (lambda: torch.ones(4, 3, device="meta"), "Tensor"),
        (lambda: torch.ones(4, 3).to_sparse(), ""),
        (lambda: torch.full((4, 3), torch.nan), "NaN"),
        (lambda: torch.full((4, 3), torch.inf), "division by 0"),
        (lambda: torch.ones(3, 4), "transposed"),
        (lambda: torch.ones(()), "every axis"),
        (lambda: torch.ones(3), "batch axis is gone"),
        (lambda: torch.ones(4), "axes after the batch"),
        (lambda: torch.ones(4, 4, 3), "stretched"),
        (lambda: torch.ones(4, 1), "size 1"),
        (lambda: torch.ones(0), "shape (0,)"),
        (lambda: torch.ones(4, 3), "same number everywhere"),
        (lambda: np.float64(2.0), "shape ()"),
        (lambda: SimpleNamespace(), "SimpleNamespace"),
        (lambda: {"a": 1}, "a dict"),
    ],
)
def test_any_returned_value_gets_a_sentence(make, words):
    said = sentence(lambda x, y, w: make())
    assert words in said, said
    assert said.endswith((".", "?"))
    assert not said.endswith(("?.", ".."))


def test_what_the_values_look_like_is_said():
    assert "argument `y`" in sentence(lambda x, y, w: y)
    assert "sign" in sentence(lambda x, y, w: -blend(x, y, w))
    assert "its own `w`" in sentence(lambda x, y, w: blend(x, y, w[:1].expand_as(w)))
    assert sentence(lambda x, y, w: blend(x, y, w) + x * x) == (
        "Not right yet, and like none of the mistakes known here: try the hint."
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, y, w: 2.5 * blend(x, y, w), "Your result is 2.5 times what it should be, everywhere."),
        (lambda x, y, w: blend(x, y, w) - 0.3, "Your result is off by the same number everywhere."),
        (lambda x, y, w: blend(x, y, w).abs(), "Every value has the right size, but some have the wrong sign."),
        (
            lambda x, y, w: blend(x, y, w if x.ndim == 2 else w**2),
            "Your result is right for shape (3, 2) and (4, 3), and wrong for (4, 2, 4, 4).",
        ),
        (
            lambda x, y, w: blend(x, y, w) + (w > w.median()).float().view(-1, *[1] * (x.ndim - 1)) * x * x,
            "Your result is right for small `w`, and wrong for large `w`.",
        ),
        (
            lambda x, y, w: blend(x, y, w) + (w <= w.median()).float().view(-1, *[1] * (x.ndim - 1)) * x * x,
            "Your result is right for large `w`, and wrong for small `w`.",
        ),
    ],
)
def test_a_simple_relation_to_the_right_values_is_said(answer, words):
    """In the second check all w are alike, so what is wrong there for some must be wrong for all."""
    assert sentence(answer) == words


def test_a_single_number_is_not_called_a_multiple():
    """One number always is a multiple of another, and by how much would give it away."""
    one = Exercise("99.5", "One", blend, hints=())

    @one.check
    def test_one(student, rng):
        """one number"""
        x = torch.rand(1, 1, generator=rng)
        agree(student.blend(x, x, torch.ones(1)), x)

    assert "times" not in attempt(one, lambda x, y, w: 2 * x).sentence


def running(betas: Tensor) -> Tensor:
    """The running product."""
    return betas.cumprod(0)


def test_samples_are_only_spoken_of_where_there_are_any():
    """A vector has entries, and no t of their own."""
    vector = Exercise("99.6", "A vector", running, hints=())

    @vector.check
    def test_vector(student, rng):
        """multiplies"""
        betas = torch.rand(9, generator=rng)
        agree(student.running(betas), running(betas))

    def said(answer):
        return attempt(vector, answer).sentence

    assert said(lambda betas: betas + 0) == "Your function gives back its argument `betas` as it came."
    assert said(lambda betas: betas + (betas != betas[0])) == (
        "Entry 0 is right, later entries are not: how do you get from one to the next?"
    )
    assert said(lambda betas: torch.cat([running(betas)[:-1], betas[-1:]])) == (
        "Your result is right for the first entries, and wrong for the last."
    )


def both(t: Tensor, beta: Tensor) -> list[Tensor]:
    """What is kept and what is added."""
    return [1 - beta[t], beta[t]]


def test_results_and_arguments_of_any_form_get_a_sentence():
    """A list of tensors has no shape; and a check may call with and without one entry for each sample."""
    pair = Exercise("99.8", "A pair", both, hints=())

    @pair.check
    def test_pair(student, rng):
        """gives both"""
        t, beta = torch.tensor([1, 3]), torch.rand(5, generator=rng)
        agree(student.both(t, beta), both(t, beta))

    assert "`beta` has T + 1 entries" in attempt(pair, lambda t, beta: [t * beta, beta]).sentence
    assert "like none of the mistakes" in attempt(pair, lambda t, beta: [beta[t], beta[t] ** 2]).sentence

    mixed = Exercise("99.9", "Mixed", blend, hints=())

    @mixed.check
    def test_many(student, rng):
        """for many w"""
        x, y, w = (torch.rand(*shape, generator=rng) for shape in [(3, 2), (3, 2), (3,)])
        agree(student.blend(x, y, w), blend(x, y, w))

    @mixed.check
    def test_one(student, rng):
        """for one w"""
        x, y = torch.rand(3, 2, generator=rng), torch.rand(3, 2, generator=rng)
        agree(student.blend(x, y, torch.tensor([0.4])), blend(x, y, torch.tensor([0.4])))

    half = torch.tensor([[1.0], [2.0], [3.0]])
    assert "like none of the mistakes" in attempt(mixed, lambda x, y, w: half * blend(x, y, w)).sentence


def test_own_noise_is_said():
    answer = attempt(toy, lambda x, y, w: blend(x, y, w) + 0.1 * torch.randn_like(x))
    assert answer.sentence == (
        "Your function gives another result each time: draw nothing in it, use the noise it is given."
    )


def test_a_mistake_is_named_where_rounding_decides_how_huge_it_is():
    """The last ratio divides by what is 0 but for rounding: 1e14 with float32, 1e29 with float64."""
    ratios = Exercise("99.7", "Ratios", running, hints=())

    @ratios.check
    def test_ratios(student, rng):
        """ratios"""
        betas = torch.tensor([0.9, 0.5, 0.2])
        agree(student.running(betas), running(betas))

    @ratios.mistake("Upside down.")
    def upside_down(betas):
        return torch.tensor([2.0, 3.0, -1e29])

    @ratios.mistake("Upside down, and with another sign.")
    def other_sign(betas):
        return torch.tensor([2.0, 3.0, 1e29])

    assert attempt(ratios, lambda betas: torch.tensor([2.0, 3.0, -1e14])).mistake.function is upside_down
    assert attempt(ratios, lambda betas: torch.tensor([2.0, 3.1, -1e14])).mistake is None


def test_a_crash_leaves_later_checks_open_and_a_wrong_value_does_not():
    def stops_on_images(x, y, w):
        return blend(x, y, w) + (x if x.ndim == 2 else [][0])

    assert [row.passed for row in attempt(toy, lambda x, y, w: [][0]).rows] == [False, None]
    assert [row.passed for row in attempt(toy, stops_on_images).rows] == [False, False]
    assert [row.passed for row in attempt(toy, lambda x, y, w: None).rows] == [False, False]


def test_a_loop_over_the_batch_passes_with_a_note(capsys):
    def loop(x, y, w):
        return torch.stack([blend(*(part[i : i + 1] for part in (x, y, w)))[0] for i in range(len(w))])

    def loops_over_axes(x, y, w):
        for _ in range(x.ndim - 1):
            w = w[..., None]
        return w * x + (1 - w) * y

    def slow_loop(x, y, w):
        time.sleep(0.001 * len(w))
        return blend(x, y, w)

    start = time.perf_counter()
    assert "slow" in attempt(toy, slow_loop).note
    assert time.perf_counter() - start < 0.5  # 2,000 rows would take 2 s
    assert check("99.1", loop) is loop
    shown = capsys.readouterr().out
    assert "99.1 A toy: passed" in shown
    assert "Right, but slow: broadcast over the batch" in shown
    assert attempt(toy, loops_over_axes).note == ""
    assert attempt(toy, lambda x, y, w: blend(x, y, w) if len(w) < 10 else [][0]).note == ""


def test_a_warning_has_a_line_of_its_own(capsys):
    def answer(x, y, w):
        return blend(x, y, torch.tensor(w))

    check("99.1", answer)
    shown = capsys.readouterr().out
    assert "Python warns: UserWarning: To copy construct from a tensor" in shown
    assert "What your function printed" not in shown


def test_an_exception_is_told_by_its_line_in_the_learners_cell(capsys):
    check(
        "99.1",
        from_cell("""\
        def blend(x, y, w):
            def inner(x):
                return x / 0 if isinstance(x, int) else [][3]
            return inner(x)
        """),
    )
    shown = capsys.readouterr().out
    assert "line 3 of your cell, `return x / 0 if isinstance(x, int) else [][3]`" in shown
    assert "IndexError" in shown
    assert "line 4 of your cell, in blend" in shown
    assert ".py" not in shown


@pytest.mark.parametrize(
    "error", ["SystemExit(1)", "pytest.skip.Exception('no')", "GeneratorExit()", "Exception(Bad())"]
)
def test_whatever_is_raised_is_the_answers_fault(error):
    source = f"""
    import pytest
    class Bad:
        def __str__(self):
            raise RuntimeError
    def blend(x, y, w):
        raise {error}
    """
    assert "stopped in line 7" in sentence(from_cell(source))


def test_torchs_own_not_implemented_is_not_untried():
    def answer(x, y, w):
        raise NotImplementedError('"addmm" not implemented for "Int"')

    assert not attempt(toy, answer).untried


def test_an_interrupt_reaches_the_learner():
    def answer(x, y, w):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(toy, answer)


def test_endless_recursion_is_said():
    assert "call itself" in sentence(from_cell("def blend(x, y, w):\n    return blend(x, y, w)\n"))


def test_a_changed_argument_is_named():
    def answer(x, y, w):
        result = blend(x, y, w)
        y.zero_()
        return result

    assert "argument `y` in place" in sentence(answer)


def test_a_buffer_used_again_does_not_confuse_the_record():
    buffer: dict = {}

    def answer(x, y, w):
        out = buffer.setdefault(x.shape, torch.empty_like(x))
        return out.copy_(blend(x, y, w))

    assert attempt(toy, answer).passed


# Signatures, and names from other cells ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, y: x, "lacks the argument `w`"),
        (lambda: 1, "`x`, `y`, `w`"),
        (lambda x, y, w, more: x, "needs more"),
        (lambda y, x, w: x, "another order"),
        (torch.ones(2), "not a function"),
        (None, "NoneType"),
    ],
)
def test_a_wrong_signature_is_said_before_anything_runs(answer, words):
    outcome = attempt(toy, answer)
    assert words in outcome.sentence
    assert [row.passed for row in outcome.rows] == [None, None]


def test_other_names_and_defaults_are_fine():
    assert attempt(toy, lambda a, b, share, eps=1e-3: blend(a, b, share)).passed
    assert attempt(toy, lambda *args: blend(*args)).passed


def test_a_helper_from_another_cell_is_named():
    cell = """
    import math as m
    size = 1
    def blend(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        def share(axes):
            return widen(w, axes)
        return [share(x.ndim) * x + (size - share(x.ndim)) * y for x in [x]][0] * abs(m.cos(0))
    """
    source = "def widen(w, axes):\n    return w.view(-1, *[1] * (axes - 1))\n"
    helper: dict = {"__name__": "__main__"}
    exec(source, helper)
    answer = from_cell(cell, helper)
    assert foreign_names(answer) == ["widen"]
    assert sentence(answer) == (
        "Your function uses `widen` from another cell: grading sees this cell alone, so move it here."
    )
    assert attempt(toy, from_cell(source + textwrap.dedent(cell), helper)).passed


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("process.w * x", "`w` is an argument: use it, not `process.w`, which grading does not have."),
        ("process.alpha * x", "`process` comes from another cell, and grading does not have it. Write what you need"),
        ("noise(x)", "`noise` comes from another cell, and grading does not have it. Write what you need here, from"),
        ("noise(x) * process.a", "`noise`, `process` come from another cell, and grading does not have them. Write"),
        ("table[0] * x", "`table` comes from another cell"),
        ("size * x", "Your function uses `size` from another cell: grading sees this cell alone, so move it here."),
    ],
)
def test_what_cannot_be_moved_is_not_to_be_moved(expression, words):
    """Only a constant, or a function of the notebook's own, can be moved; what the course gives cannot."""
    others = {"process": SimpleNamespace(), "noise": blend, "table": torch.ones(3), "size": 3}
    said = sentence(from_cell(f"def blend(x, y, w):\n    return {expression}\n", others))
    assert said.startswith(words)
    assert ("`x`, `y`, `w` alone." in said) == ("Write" in words or "table" in words)


def test_another_exercises_answer_is_not_to_be_moved(monkeypatch):
    """Even where it is the learner's own."""
    session = {"__name__": "__main__"}
    exec("def running(x):\n    return x\n", session)
    answer = from_cell("def blend(x, y, w):\n    return running(x)\n", session)
    assert "move it here" in sentence(answer)
    monkeypatch.setitem(exercises.declare._exercises, "99.0", Exercise("99.0", "", running, hints=()))
    assert "`running` comes from another cell" in sentence(answer)


def test_a_name_that_is_nowhere_is_told_by_its_line():
    assert "`widen`" not in (said := sentence(from_cell("def blend(x, y, w):\n    return widn(x)\n")))
    assert "name 'widn' is not defined" in said
    assert "misspelt" in said


# The call ----------------------------------------------------------------------------------------------------------


def test_unknown_ids_and_swapped_arguments_get_one_sentence():
    for call in (lambda: check("99.7", blend), lambda: hint("x"), lambda: solution(99.1), lambda: stub(None)):
        with pytest.raises(ValueError, match=r"There is no exercise .*: write one of these as text, '99\.1'\."):
            call()
    with pytest.raises(ValueError, match=r'Swap the arguments: check\("99\.1", blend\)'):
        check(blend, "99.1")


def test_two_exercises_cannot_share_an_id():
    with pytest.raises(ValueError, match="both blend and other"):

        @exercise("99.1", title="", hints=())
        def other(x):
            return x


def test_hints_come_in_turn_and_start_anew(capsys):
    said = []
    for _ in range(4):
        hint("99.1")
        said.append(capsys.readouterr().out)
    assert "hint 1 of 2\n  First." in said[0]
    assert "hint 2 of 2\n  Second." in said[1]
    assert 'solution("99.1")' in said[2]
    assert said[3] == said[0]


def test_the_solution_shows_the_code_without_the_statement(capsys):
    solution("99.1")
    shown = capsys.readouterr().out
    assert "return share * x + (1 - share) * y" in shown
    assert '"""' not in shown


def test_a_broken_check_is_not_the_learners_fault():
    broken = Exercise("99.2", "Broken", blend, hints=())

    def test_needs_a_fixture(student, there_is_none):
        """never runs"""

    broken.check(test_needs_a_fixture)
    with pytest.raises(RuntimeError, match="their fault, not yours"):
        attempt(broken, blend)


def test_checks_may_be_parametrised():
    twice = Exercise("99.3", "Twice", blend, hints=())

    @pytest.mark.parametrize("n", [1, 2])
    def test_sizes(student, rng, n):
        """for sizes"""
        x, y, w = torch.rand(n, 2, generator=rng), torch.rand(n, 2, generator=rng), torch.rand(n, generator=rng)
        agree(student.blend(x, y, w), blend(x, y, w))

    twice.check(test_sizes)
    assert len(attempt(twice, blend).rows) == 2


def test_another_adapter_may_answer_for_the_function():
    """As grading does: only plain arguments go out, and only a Reply comes back."""
    sent = []

    def proxy(*args):
        sent.append(args)
        return here(swapped)(*args)

    outcome = judge(toy, proxy, seed=7)
    assert outcome.sentence == "You blended the wrong way round."
    assert all(same(plain(list(args)), list(args), rtol=0) for args in sent)
    assert not judge(toy, lambda *args: Reply(), seed=7).passed


def test_the_seed_changes_the_inputs_and_the_same_seed_does_not():
    first, again, other = (attempt(toy, blend, seed).calls[0].args for seed in (3, 3, 4))
    assert same(list(first), list(again), rtol=0)
    assert not same(list(first), list(other))


def test_a_check_leaves_no_trace(capfd, monkeypatch, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('picked up')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    torch.manual_seed(0)
    expected, before, modules = torch.rand(3), dict(os.environ), set(sys.path)
    torch.manual_seed(0)
    assert attempt(toy, lambda x, y, w: blend(x, y, w) + 0 * torch.rand(())).passed
    assert torch.equal(torch.rand(3), expected)
    assert set(sys.path) == modules
    assert {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} == {
        k: v for k, v in before.items() if k != "PYTEST_CURRENT_TEST"
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conftest.py", "pytest.ini"]
    assert capfd.readouterr() == ("", "")


def test_what_the_learner_prints_is_kept_short_and_folded(capsys):
    def answer(x, y, w):
        for i in range(100_000):
            print("shape", i)
        return x

    check("99.1", answer)
    shown = capsys.readouterr().out
    assert "What your function printed" in shown
    assert shown.index("99.1 A toy") < shown.index("shape 7")
    assert len(shown) < 4500


def test_a_check_is_quick():
    attempt(toy, blend)
    start = time.process_time()
    for _ in range(5):
        attempt(toy, swapped)
    assert (time.process_time() - start) / 5 < 0.3


# Progress ----------------------------------------------------------------------------------------------------------


def test_progress_is_kept_and_shown(capsys, tmp_path):
    progress()
    assert "–  notebook 99  99.1 A toy  not yet" in capsys.readouterr().out
    check("99.1", from_cell(stub("99.1")))
    assert json.loads((tmp_path / "progress.json").read_text()) == {"99.1": {"attempts": 0, "done": False}}
    check("99.1", swapped)
    capsys.readouterr()
    progress()
    shown = capsys.readouterr().out
    assert "✗  notebook 99  99.1 A toy  attempted" in shown
    assert "Next: 99.1, A toy." in shown
    check("99.1", lambda x, y, w: blend(x, y, w))
    check("99.1", swapped)  # done stays done
    capsys.readouterr()
    progress()
    shown = capsys.readouterr().out
    assert "1 of 1 exercises done" in shown
    assert "all are done" in shown
    assert json.loads((tmp_path / "progress.json").read_text()) == {"99.1": {"attempts": 3, "done": True}}
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"99.1": 3}', b""])
def test_a_damaged_file_is_set_aside(content, capsys, tmp_path):
    file = tmp_path / "progress.json"
    file.write_bytes(content)
    check("99.1", swapped)
    assert "was damaged: it is kept as progress.json.damaged" in capsys.readouterr().out
    assert (tmp_path / "progress.json.damaged").read_bytes() == content
    assert json.loads(file.read_text()) == {"99.1": {"attempts": 1, "done": False}}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_left_alone(capsys, tmp_path):
    file = tmp_path / "progress.json"
    file.write_text('{"99.1": {"attempts": 1, "done": true}}')
    file.chmod(0)
    check("99.1", swapped)
    assert "cannot be read" in capsys.readouterr().out
    file.chmod(0o600)
    assert json.loads(file.read_text())["99.1"]["done"] is True


def test_a_folder_in_the_files_place_is_left_alone(capsys, tmp_path):
    (tmp_path / "progress.json").mkdir()
    assert check("99.1", swapped) is blend
    assert "cannot be read" in capsys.readouterr().out
    assert (tmp_path / "progress.json").is_dir()


def test_strange_entries_do_no_harm(capsys, tmp_path):
    (tmp_path / "progress.json").write_text('{"99.1": {"attempts": "many", "done": "yes"}, "12.9": {"done": true}}')
    progress()
    assert "0 of 1" in capsys.readouterr().out
    check("99.1", lambda x, y, w: blend(x, y, w))
    assert json.loads((tmp_path / "progress.json").read_text())["99.1"] == {"attempts": 1, "done": True}


def test_a_place_that_cannot_be_written_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_EDU_PROGRESS", str(tmp_path / "nowhere" / "progress.json"))
    assert check("99.1", swapped) is blend
    assert "Progress cannot be kept in" in capsys.readouterr().out


# What is shown -----------------------------------------------------------------------------------------------------


def test_html_is_escaped_and_folded():
    page = Page("<b>", ["`x < y` costs $5$"], [("✗", "a & b")], after=["end"], folded=[("trace", "<script>")])
    shown = page._repr_html_()
    assert "<code>x &lt; y</code>" in shown
    assert "a &amp; b" in shown
    assert "<details><summary>trace</summary><pre>&lt;script&gt;</pre></details>" in shown
    assert "$5$" not in shown
    assert shown.index("costs") < shown.index("✗") < shown.index("end") < shown.index("<details>")


@pytest.mark.slow
def test_a_notebook_gets_html_and_its_own_line(tmp_path):
    """In a real kernel: the cell's line is named, a helper of another cell found, and HTML displayed."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        "import torch\nfrom ddpm_edu.exercises import check\nhelper = lambda x: x",
        "def q_step(x_prev, t, eps, beta):\n    return x_prev / [][0]",
        'q_step = check("05.1", q_step)',
        "def q_step(x_prev, t, eps, beta):\n    return helper(x_prev)",
        'q_step = check("05.1", q_step)\nprint(q_step.__module__)',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    env = {**os.environ, "DDPM_EDU_PROGRESS": str(tmp_path / "p.json"), "IPYTHONDIR": str(tmp_path)}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=env)
    raised, foreign = (notebook.cells[i].outputs[0]["data"]["text/html"] for i in (2, 4))
    assert "line 2 of your cell, <code>return x_prev / [][0]</code>" in raised
    assert re.search("<details>.*IndexError", raised, re.DOTALL)
    assert "<code>helper</code> from another cell" in foreign
    assert notebook.cells[4].outputs[1]["text"].strip() == "ddpm_edu.exercises.nb05"


def test_a_terminal_gets_text(tmp_path):
    code = 'from ddpm_edu.exercises import check\ncheck("05.1", lambda x_prev, t, eps, beta: None)'
    env = {**os.environ, "DDPM_EDU_PROGRESS": str(tmp_path / "p.json")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert run.returncode == 0
    assert run.stdout.startswith("05.1 One forward step: not right yet\n  Your function returned None")
    assert run.stderr == ""


# Values ------------------------------------------------------------------------------------------------------------


def test_plain_never_raises_and_keeps_what_is_plain():
    assert plain((1, 2.5, "a", None, True, {"k": [np.float32(0.5)]})) == [1, 2.5, "a", None, True, {"k": [0.5]}]
    assert plain(Hostile()) == Opaque("test_engine.Hostile")
    assert plain({1: 2}) == Opaque("dict")
    x = torch.ones(2, requires_grad=True)
    assert not plain(x).requires_grad
    assert plain(x) is not x


def test_same_scales_with_the_size():
    assert same(torch.tensor([1e6, 0.0]), torch.tensor([1e6, 1.0]))
    assert not same(torch.tensor([1e-6, 0.0]), torch.tensor([1e-6, 1e-6]))
    assert not same(torch.zeros(2), torch.full((2,), 1e-9))
    assert same(torch.tensor([torch.nan, torch.inf]), torch.tensor([torch.nan, torch.inf]))
    assert same(1.0, torch.tensor(1.0))
    assert not same(True, 1.0)
    assert not same("a", "b")
    assert not same([1.0], [1.0, 2.0])
    assert not same({"a": 1.0}, {"b": 1.0})


def test_form_of_lists_and_dicts():
    need = [torch.ones(2), torch.ones(3)]
    assert fault_of_form([torch.ones(2), torch.ones(3)], need) is None
    assert "a list or tuple of 1" in fault_of_form([torch.ones(2)], need)
    assert "stray comma" not in fault_of_form([torch.ones(2)], need)
    assert "(4,)" in fault_of_form([torch.ones(2), torch.ones(4)], need)
    assert "keys ['b']" in fault_of_form({"b": 1.0}, {"a": 1.0})
    assert "needed is a list or tuple of 2" in fault_of_form(torch.ones(2), need)
    assert "missing" in fault_of_form(torch.ones(4), torch.ones(5))


@pytest.mark.parametrize("name", ["test_values", "values"])
def test_a_check_that_would_not_run_is_told(name: str):
    """One of two checks of one name, or one that pytest does not take for a test, must not be passed over."""

    def other(student, rng):
        """never holds"""
        raise AssertionError

    other.__name__ = name
    twice = Exercise("99.2", "Twice", blend, hints=("One.", "Two."), checks=[check_values, other])
    with pytest.raises(RuntimeError, match="a name of its own that begins with test_"):
        attempt(twice, blend)


def test_one_hint_takes_a_comma():
    with pytest.raises(ValueError, match="must be a tuple"):
        exercise("99.3", title="Hint", hints="one letter at a time")(blend)
