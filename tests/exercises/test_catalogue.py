"""Every exercise of the course: its reference passes, its stub fails kindly, and every wrong answer fails and is named.

All of it on one seed, then the reference and the mistakes on others, as a class being graded meets them.
"""

from __future__ import annotations

import linecache
import math

import numpy as np
import pytest
import torch

from ddpm_edu.exercises import PREAMBLE, agree, attempt, catalogue, find, hint, solution, stub
from ddpm_edu.exercises.declare import Exercise
from ddpm_edu.exercises.nb07 import CAUSES, FAULTS, SYMPTOMS, diagnose
from ddpm_edu.exercises.student import here
from ddpm_edu.exercises.values import copy, plain, same

EXERCISES = catalogue()
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)


def in_its_cell(source: str, name: str):
    """The function that a cell with this source defines after the preamble, as grading sees it."""
    names: dict = {}
    exec(PREAMBLE, names)
    exec(source, names)
    return names[name]


@each
def test_the_declaration_is_complete(exercise: Exercise):
    assert len(exercise.checks) >= 2
    assert len(exercise.mistakes) >= 5
    assert len(exercise.hints) >= 2
    assert "Returns" in (exercise.reference.__doc__ or "")
    assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)
    assert all(test.__doc__ and test.__name__.startswith("test_") for test in exercise.checks)
    for mistake in exercise.mistakes:
        assert mistake.sentence.endswith("."), mistake.sentence
        assert len(mistake.sentence) < 200, mistake.sentence
    assert len({mistake.sentence for mistake in exercise.mistakes}) == len(exercise.mistakes)


@each
def test_the_reference_passes(exercise: Exercise):
    for seed in range(5):
        outcome = attempt(exercise, exercise.reference, seed)
        assert outcome.passed, (seed, outcome.sentence)
        assert outcome.sentence == ""


@each
def test_the_solution_passes_in_a_cell_of_its_own(exercise: Exercise, capsys):
    solution(exercise.id)
    shown = capsys.readouterr().out
    source = shown[shown.index("  def ") :].replace("\n  ", "\n").removeprefix("  ")
    assert attempt(exercise, in_its_cell(source, exercise.name)).passed


@each
def test_the_stub_is_not_attempted_yet(exercise: Exercise):
    assert stub(exercise.id).startswith(f"def {exercise.name}(")
    answer = in_its_cell(stub(exercise.id), exercise.name)
    assert answer.__doc__ == exercise.reference.__doc__
    outcome = attempt(exercise, answer)
    assert outcome.untried
    assert not outcome.passed
    assert outcome.sentence.startswith("Not attempted yet")


@each
def test_every_mistake_fails_and_is_named(exercise: Exercise):
    for seed in (0, 1):
        for mistake in exercise.mistakes:
            outcome = attempt(exercise, mistake.function, seed)
            named = outcome.mistake and outcome.mistake.name
            assert not outcome.passed, f"seed {seed}: the checks let {mistake.name} through"
            assert named == mistake.name, f"seed {seed}: {mistake.name} is called {named}: {outcome.sentence}"
            assert outcome.sentence == mistake.sentence


def constant(exercise: Exercise):
    kept: list = []

    def answer(*args):
        kept.append(exercise(*args))
        return kept[0]

    return answer


def on_every_tensor(change, exercise: Exercise):
    def changed(value):
        if isinstance(value, list):
            return [changed(item) for item in value]
        return change(value) if isinstance(value, torch.Tensor) else value

    return lambda *args: changed(exercise(*args))


def mutating(exercise: Exercise):
    def answer(*args):
        result = exercise(*args)
        for arg in args:
            for value in arg if isinstance(arg, list) else [arg]:
                if isinstance(value, torch.Tensor):
                    value.zero_()
        return result

    return answer


AUTOMATIC = {
    "None": lambda exercise: lambda *args: None,
    "the first argument": lambda exercise: lambda *args: args[0],
    "zeros": lambda exercise: on_every_tensor(torch.zeros_like, exercise),
    "ones": lambda exercise: on_every_tensor(torch.ones_like, exercise),
    "transposed": lambda exercise: on_every_tensor(lambda x: x.transpose(0, -1) if x.ndim else x, exercise),
    "NaN": lambda exercise: on_every_tensor(lambda x: x * math.nan, exercise),
    "rounded": lambda exercise: on_every_tensor(lambda x: x.round(), exercise),
    "a little off": lambda exercise: on_every_tensor(lambda x: 1.002 * x, exercise),
    "of each batch only the first right": lambda exercise: on_every_tensor(
        lambda x: torch.cat([x[:1], 0 * x[1:]]) if x.ndim else x, exercise
    ),
    "numpy": lambda exercise: on_every_tensor(lambda x: x.numpy(), exercise),
    "an axis more": lambda exercise: on_every_tensor(lambda x: x[None], exercise),
    "a constant": constant,
    "mutating": mutating,
}


@each
@pytest.mark.parametrize("kind", AUTOMATIC)
def test_automatic_wrong_answers_fail(exercise: Exercise, kind: str):
    """Wherever one differs from the reference on the calls the checks make, in its values or in what it changes."""
    calls = attempt(exercise, exercise.reference).calls
    run = here(AUTOMATIC[kind](exercise))
    replies = [run(*copy(call.args)) for call in calls]
    differs = any(
        reply.failure or reply.mutated or not same(reply.output, plain(call.need))
        for call, reply in zip(calls, replies, strict=True)
    )
    outcome = attempt(exercise, AUTOMATIC[kind](exercise))
    assert outcome.passed == (not differs), outcome.sentence
    if differs:
        assert outcome.sentence.endswith((".", "?"))
        assert "\n" not in outcome.sentence


def column(values, x):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, *[1] * (x.ndim - 1))


def loop_q_step(x_prev, t, eps, beta):
    out = torch.empty_like(x_prev)
    for i in range(len(t)):
        out[i] = math.sqrt(1 - beta[t[i]].item()) * x_prev[i] + math.sqrt(beta[t[i]].item()) * eps[i]
    return out


def loop_q_sample(x_0, t, eps, alpha_bar):
    pairs = zip(x_0, t.tolist(), eps, strict=True)
    return torch.stack([alpha_bar[s] ** 0.5 * x + (1 - alpha_bar[s]) ** 0.5 * e for x, s, e in pairs])


def loop_make_alpha_bar(betas):
    out = [1.0]
    for beta in betas.tolist():
        out.append(out[-1] * (1 - beta))
    return torch.tensor(out)


def loop_cosine_betas(T):
    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)])


def precise_denoise(x_t, t, alpha_bar, m, s):
    """precision-weighted: 1 / s^2 for m, alpha_bar / (1 - alpha_bar) for x_t / a"""
    a = column(alpha_bar[t].double().sqrt().tolist(), x_t)
    weight = a**2 / (1 - a**2)
    return ((m / s**2 + weight * x_t / a) / (1 / s**2 + weight)).float()


def loop_x_0(x_t, t, eps, alpha_bar):
    a = alpha_bar[t].sqrt().tolist()
    return torch.stack([x / k - math.sqrt(1 / k**2 - 1) * e for x, k, e in zip(x_t, a, eps, strict=True)])


def loop_last_noise(t, eps, beta, alpha_bar):
    return torch.stack([beta[s] * (1 - alpha_bar[s]) ** -0.5 * e for s, e in zip(t, eps, strict=True)])


def loop_simple_loss(eps, eps_pred):
    total = 0.0
    for a, b in zip(eps.flatten().tolist(), eps_pred.flatten().tolist(), strict=True):
        total += (a - b) ** 2
    return total / eps.numel()


def loop_ema(ema, params, decay):
    out = []
    for i in reversed(range(len(ema))):
        out.insert(0, ema[i].double() - (1 - decay) * (ema[i].double() - params[i].double()))
    return tuple(out)


def long_diagnose(symptom):
    if symptom == "A":
        return CAUSES["A"]
    return CAUSES["B"] if symptom == "B" else CAUSES["C"]


# Right answers written another way: with loops, in float64, in another order of reduction.
VARIANTS = {
    "05.1": [
        loop_q_step,
        lambda x_prev, t, eps, beta: (
            column((1 - beta[t].double()).sqrt().tolist(), x_prev) * x_prev
            + column(beta[t].double().sqrt().tolist(), x_prev) * eps
        ),
        lambda x_prev, t, eps, beta: (
            (1 - beta)[(t, *[None] * (x_prev.ndim - 1))] ** 0.5 * x_prev
            + (beta**0.5)[(t, *[None] * (x_prev.ndim - 1))] * eps
        ),
    ],
    "05.2": [
        loop_q_sample,
        lambda x_0, t, eps, alpha_bar: (
            torch.einsum("b,b...->b...", alpha_bar[t].sqrt(), x_0)
            + torch.einsum("b,b...->b...", (1 - alpha_bar[t]).sqrt(), eps)
        ),
        lambda x_0, t, eps, alpha_bar: (
            (x_0.transpose(0, -1) * alpha_bar[t].double().sqrt()).transpose(0, -1)
            + column((1 - alpha_bar[t].double()).sqrt().tolist(), eps) * eps
        ),
    ],
    "05.3": [
        loop_make_alpha_bar,
        lambda betas: torch.cat([torch.zeros(1), torch.log1p(-betas.double()).cumsum(0)]).exp(),
        lambda betas: torch.from_numpy(np.cumprod(np.append(1.0, 1 - betas.numpy()))),
        lambda betas: torch.stack([(1 - betas[:t]).prod() for t in range(len(betas) + 1)]),
    ],
    "05.4": [
        loop_cosine_betas,
        lambda T: torch.as_tensor(loop_cosine_betas(T), dtype=torch.float64),
        lambda T: (
            lambda f: torch.minimum((f[:-1] - f[1:]) / f[:-1], torch.tensor(0.999))
        )(torch.cos((torch.linspace(0, 1, T + 1) + 0.008) / 1.008 * torch.pi / 2).square()),
    ],
    "05.5": [
        precise_denoise,
        lambda x_t, t, alpha_bar, m, s: torch.stack(
            [
                m + math.sqrt(a) * s * s / (a * s * s + 1 - a) * (x - math.sqrt(a) * m)
                for x, a in zip(x_t, alpha_bar[t].tolist(), strict=True)
            ]
        ),
    ],
    "07.1": [
        loop_x_0,
        lambda x_t, t, eps, alpha_bar: (
            (x_t - column((1 - alpha_bar[t].double()).sqrt().tolist(), eps) * eps)
            / column(alpha_bar[t].double().sqrt().tolist(), eps)
        ),
    ],
    "07.2": [
        loop_last_noise,
        lambda t, eps, beta, alpha_bar: torch.einsum(
            "b,b...->b...", beta[t].double() / (1 - alpha_bar[t].double()) ** 0.5, eps.double()
        ),
    ],
    "07.3": [
        loop_simple_loss,
        lambda eps, eps_pred: (eps_pred - eps).pow(2).flatten(1).mean(1).mean(),
        lambda eps, eps_pred: torch.nn.functional.mse_loss(eps_pred, eps),
        lambda eps, eps_pred: np.float32(((eps - eps_pred).double().numpy() ** 2).mean()),
    ],
    "07.4": [
        lambda t, beta, alpha_bar: torch.tensor([beta[s] / (2 * (1 - beta[s]) * (1 - alpha_bar[s])) for s in t]),
        lambda t, beta, alpha_bar: 0.5 * beta.double()[t] / (1 - beta.double()[t]) / (1 - alpha_bar.double()[t]),
    ],
    "07.5": [loop_ema, lambda ema, params, decay: [torch.lerp(p, e, decay) for e, p in zip(ema, params, strict=True)]],
    "07.6": [long_diagnose],
}  # fmt: skip


@each
def test_right_answers_written_another_way_pass(exercise: Exercise):
    for i, answer in enumerate(VARIANTS[exercise.id]):
        for seed in (0, 1, 2):
            outcome = attempt(exercise, answer, seed)
            assert outcome.passed, f"variant {i}, seed {seed}: {outcome.sentence}"


BETA = "b = beta[t].view(-1, *[1] * (x_prev.ndim - 1))"
SIGNAL = "ab = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1)); a = ab.sqrt(); b = (1 - ab).sqrt()"
F = "f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2; a = f / f[0]"

# Wrong answers as learners write them, in float32 and in their own order, and words of the sentence they get.
WRITTEN = [
    ("05.1", [BETA, "return x_prev + b * eps"], "as it was"),
    ("05.1", [BETA, "return (1 - b).sqrt() * x_prev - b.sqrt() * eps"], "You subtracted the noise"),
    ("05.1", [BETA, "return (1 - b).sqrt() * x_prev + b.sqrt() * torch.randn_like(eps)"], "another result each time"),
    ("05.1", ["return (1 - beta).sqrt() * x_prev + beta.sqrt() * eps"], "`beta` has T + 1 entries, one a time"),
    ("05.1", ["b = beta[:, None, None]", "return b * x_prev"], "(4, 2): `beta` has T + 1 entries"),
    ("05.1", ["return math.sqrt(1 - beta[t]) * x_prev"], "`math.sqrt` takes one number: use `torch.sqrt`"),
    ("05.1", ["return beta[int(t)] * x_prev"], "scalars. A tensor of many numbers stands where Python wants one"),
    ("05.1", ["b = beta[t].unsqueeze(1)", "return (1 - b) * x_prev + b * b * eps"], "none of the mistakes known"),
    ("05.1", ["b = beta[t].view(-1, 1, 1)", "return b * x_prev"], "as many axes as x has"),
    ("05.2", ["ab = alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1))", "return x_0 + (1 - ab).sqrt() * eps"], "left x_0"),
    ("05.3", ["return torch.cat([torch.ones(1), (1 - betas).cumsum(0)])"], "running sum of alpha_t"),
    ("05.3", ["return torch.cat([torch.ones(1), 1 - betas.cumprod(0)])"], "one minus the product"),
    ("05.3", ["return torch.exp(-torch.cat([torch.zeros(1), betas]).cumsum(0))"], "exp(-sum of betas)"),
    ("05.3", ["return torch.cat([torch.ones(1), 1 - betas ** 2])"], "Entry 0 is right, later entries are not"),
    ("05.4", [F, "return (1 - a[:-1] / a[1:]).clamp(max=0.999)"], "alpha_bar_{t-1} is the larger"),
    ("05.4", [F, "return (1 - a[:-1] / a[1:]).clamp(0, 0.999)"], "turns all of it to 0"),
    ("05.4", [F, "return (a[:-1] / a[1:] - 1).clamp(0, 0.999)"], "as a share of alpha_bar_t"),
    ("05.4", [F, "return (a[:-1] / a[1:]).clamp(max=0.999)"], "above 1 at every t"),
    ("05.4", [F, "return (a[1:] / a[:-1]).clamp(max=0.999)"], "You clipped the ratio"),
    ("05.4", [F, "return 1 - (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "You returned alpha_t"),
    ("05.4", [F, "return (1 - a[1:]).clamp(max=0.999)"], "noise of all t steps"),
    ("05.4", [F, "return 1 - a[1:] / a[:-1]"], "The clip is missing"),
    ("05.4", [F.replace(" * math.pi / 2", ""), "return (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "pi / 2 is missing"),
    ("05.4", [F.replace("math.pi / 2", "math.pi"), "return (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "runs to pi"),
    ("05.4", [F.replace(" / T", ""), "return (1 - a[1:] / a[:-1]).clamp(max=0.999)"], "where t / T belongs"),
    ("05.4", [F.replace("torch.cos", "math.cos"), "return a"], "`math.cos` takes one number: use `torch.cos`"),
    ("05.5", [SIGNAL, "return m + s**2 / (ab * s**2 + b * b) * (x_t - a * m)"], "Your gain has s^2 above"),
    ("05.5", [SIGNAL, "return m + a * s**2 / (a * s**2 + b * b) * (x_t - a * m)"], "takes the factor squared"),
    ("05.5", [SIGNAL, "return a * m + a * s**2 / (ab * s**2 + b * b) * (x_t - a * m)"], "starts from its mean, m"),
    ("05.5", [SIGNAL, "return m + a * (x_t - a * m)"], "variance 1 only"),
    ("05.5", [SIGNAL, "return m + b * s**2 / (b * b * s**2 + ab) * (x_t - b * m)"], "have changed places"),
    ("05.5", [SIGNAL, "return b / (ab * s**2 + b * b) * (x_t - a * m)"], "best guess of the noise"),
    ("05.5", [SIGNAL.replace("*[1] * (x_t.ndim - 1)", "1"), "return m + a * s**2 / (ab * s**2 + b * b) * (x_t - a * m)"
              ], "serve points"),
    ("07.2", ["return (beta[t] / (1 - alpha_bar[t]).sqrt())[:, None] * eps"], "(b, 1, 1, 1) for images"),
    ("07.2", ["return (beta[t] / (1 - alpha_bar).sqrt())[:, None] * eps"], "pick with `alpha_bar[t]`"),
    ("07.3", ["return 3 * ((eps - eps_pred) ** 2).mean()"], "Your result is 3 times what it should be"),
]  # fmt: skip


@pytest.mark.parametrize(("id", "lines", "words"), WRITTEN)
def test_what_learners_write_gets_its_sentence(id, lines, words):
    asked = find(id)
    source = "\n    ".join([f"def {asked.name}({', '.join(asked.parameters)}):", *lines]) + "\n"
    name = f"<cell of {id}: {lines[-1]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names: dict = {}
    exec(PREAMBLE, names)
    exec(compile(source, name, "exec"), names)
    outcome = attempt(asked, names[asked.name])
    assert not outcome.passed
    assert words in outcome.sentence


def test_the_third_check_of_05_5_tells_apart_at_a_middle_t():
    """Where alpha_bar is 1/2 it could not: signal and noise are alike there, and a root changes little."""
    asked = find("05.5")
    for name in ("signal_deviation_in_variance", "signal_and_noise_swapped", "unit_variance"):
        wrong = next(mistake.function for mistake in asked.mistakes if mistake.name == name)
        for seed in range(3):
            assert attempt(asked, wrong, seed).rows[2].passed is False, name
    for seed in range(30):
        assert attempt(asked, asked.reference, seed).passed


@each
def test_no_words_of_ours_give_the_values_away(exercise: Exercise):
    """A failed check says its sentence and its rows, never an expected value."""
    outcome = attempt(exercise, lambda *args: on_every_tensor(lambda x: x + 0.123, exercise)(*args))
    assert outcome.passed == (exercise.id == "07.6")  # which returns text
    words = " ".join([outcome.sentence, *(row.text for row in outcome.rows)])
    for call in outcome.calls:
        if isinstance(call.need, torch.Tensor):
            for value in call.need.flatten()[:20].tolist():
                assert f"{value:.4f}".rstrip("0") not in words or value in (0, 1)


@each
def test_hints_come_in_turn(exercise: Exercise, capsys):
    for number, text in enumerate(exercise.hints, start=1):
        hint(exercise.id)
        shown = capsys.readouterr().out
        assert f"hint {number} of {len(exercise.hints)}" in shown
        assert text in shown
    hint(exercise.id)
    assert f'solution("{exercise.id}")' in capsys.readouterr().out


def test_the_clinic_says_the_same_everywhere():
    """The tables of the clinic, and the words written out for the learner."""
    assert {case: diagnose(case) for case in SYMPTOMS} == CAUSES
    assert set(CAUSES.values()) <= set(FAULTS)
    statement = " ".join(stub("07.6").split())
    assert all(f'"{name}": {words}' in statement for name, words in FAULTS.items())
    assert [test.__doc__ for test in diagnose.checks] == [f"{case}: {words}" for case, words in SYMPTOMS.items()]


def test_agree_is_neither_blind_nor_strict():
    x = torch.linspace(-1, 1, 101)
    agree(x.double() * (1 + 1e-6), x)
    for wrong in (1.001 * x, x + 0.001, x[:-1], -x, x[:, None]):
        with pytest.raises(AssertionError, match="the values differ"):
            agree(wrong, x)
