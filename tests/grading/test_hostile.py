"""Hostile answers: each gets the marks it has earned, and nothing of it is left when the next is graded."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hostile import ANSWER, HOSTILE, RIGHT

from ddpm_edu.exercises import find
from ddpm_edu.grading.grade import grade_exercise
from ddpm_edu.grading.sandbox import FIRST_UID, Sandbox

pytestmark = pytest.mark.slow
Q_STEP = find("05.1")
HONEST = f"{RIGHT}q_step = right\n"


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with a secret, and a server that counts who comes."""
    root = tmp_path_factory.mktemp("outside")
    os.chmod(root, 0o777)
    secret = root / "secret"
    secret.write_text("the inputs")
    secret.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"root": str(root), "secret": str(secret), "port": str(server.getsockname()[1])}


def left_running() -> list[str]:
    """Command lines of what runs as the sandbox's user but the worker; what was killed may take a moment to end."""
    for _ in range(50):
        lines = []
        for one in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if one.uids().real == FIRST_UID + 17 and one.status() != psutil.STATUS_ZOMBIE:
                    lines.append(" ".join(one.cmdline()))
        workers = [line for line in lines if "serve(" in line]
        if len(lines) == len(workers) <= 1:
            return []
        time.sleep(0.1)
    return lines


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_earns_what_it_earns_and_leaves_nothing(kind: str, sandbox: Sandbox, outside: dict[str, str]):
    source, state, words = HOSTILE[kind]
    for name, value in outside.items():
        source = source.replace(f"{{{name}}}", value)
    result = grade_exercise(Q_STEP, source, (), sandbox, seed=3)
    assert result.state == state, result
    assert result.points == (state == "passed")
    assert words in result.sentence
    assert len(result.sentence) < 1000
    assert left_running() == []
    after = grade_exercise(Q_STEP, HONEST, (), sandbox, seed=3)
    assert (after.state, after.points) == ("passed", 1), after
    assert os.listdir(outside["root"]) == ["secret"]
    assert Path(outside["secret"]).read_text() == "the inputs"


def test_the_same_kinds_do_reach_out_where_nothing_holds_them(outside):
    """The attempts are real: outside a sandbox, files are read and written, and the port answers."""
    reads = HOSTILE["reading files"][0].replace("{secret}", outside["secret"]).replace("{root}", outside["root"])
    with Sandbox("limits") as weak:
        assert grade_exercise(Q_STEP, reads, (), weak, seed=3).state == "wrong"
        reaches = HOSTILE["the network"][0].replace("{port}", outside["port"])
        assert grade_exercise(Q_STEP, reaches, (), weak, seed=3).state == "wrong"


def test_a_timeout_ends_the_exercise(sandbox: Sandbox):
    """After the first call that is late no other is sent: a check makes many, and each would wait as long."""
    start = time.monotonic()
    result = grade_exercise(Q_STEP, f"{ANSWER}    while True: pass\n", (), sandbox, seed=3)
    assert "10 seconds" in result.sentence
    assert time.monotonic() - start < 25


def test_memory_that_was_let_go_of_is_still_counted(sandbox: Sandbox):
    """Shared pages that no process maps any more: each child fills some, and forgets them."""
    fills = f"""
import mmap, os, time
{ANSWER}
    for _ in range(40):
        if os.fork() == 0:
            held = mmap.mmap(-1, 1 << 28)
            for i in range(0, 1 << 28, 1 << 20): held[i : i + (1 << 20)] = bytes(1 << 20)
            held.madvise(mmap.MADV_DONTNEED)
            time.sleep(1000)
    time.sleep(1000)
"""
    result = grade_exercise(Q_STEP, fills, (), sandbox, seed=3)
    assert result.state == "wrong"
    assert any("more than 6 GiB of memory" in note for note in result.notes), result


def test_nothing_of_one_answer_is_seen_by_the_next(sandbox: Sandbox):
    """Neither what it set in memory nor, once the student changes, what it wrote."""
    leaves = f"import builtins\nbuiltins.left = torch.left = 1\nopen('/tmp/left', 'w').write('x')\n{HONEST}"
    finds = f"import builtins, os\n{RIGHT}q_step = right if not hasattr(builtins, 'left') else None\n"
    assert grade_exercise(Q_STEP, leaves, (), sandbox, seed=3).state == "passed"
    assert grade_exercise(Q_STEP, finds, (), sandbox, seed=3).state == "passed"
    sandbox.close_worker()
    finds = f"import os\n{RIGHT}q_step = right if not os.path.exists('/tmp/left') else None\n"
    assert grade_exercise(Q_STEP, finds, (), sandbox, seed=3).state == "passed"


def test_magic_is_left_out_and_percent_signs_are_not(sandbox: Sandbox):
    magic = f"%timeit 1\n!ls\n{HONEST}"
    plain = HONEST + "k = (\n    7\n    % 3\n)\nassert k == 1\n"
    for source in (magic, plain):
        result = grade_exercise(Q_STEP, source, (), sandbox, seed=3)
        assert (result.state, result.notes) == ("passed", ())


ASKS = """
def p_sample_loop(predict_eps, x_T, beta, alpha_bar, z):
    {}
    return x_T
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("while True: predict_eps(x_T, torch.full((len(x_T),), 1))", "no answer within"),
        ("predict_eps(torch.zeros(4000, 4000), torch.ones(4000).long())", "ValueError"),
        ("predict_eps('x', print)", "stopped"),
        ("predict_eps.__closure__[0].cell_contents.number = 7; predict_eps(x_T, x_T)", ""),
        ("[c.cell_contents for c in predict_eps.__closure__][0].send({'asks': -1, 'args': []})", ""),
        ("return [c.cell_contents for c in predict_eps.__closure__]", ""),
    ],
)
def test_a_function_of_ours_gives_its_values_and_nothing_else(line, words, sandbox: Sandbox):
    result = grade_exercise(find("08.3"), ASKS.format(line), (), sandbox, seed=3)
    assert result.state == "wrong", result
    assert words in result.sentence
    assert grade_exercise(Q_STEP, HONEST, (), sandbox, seed=3).state == "passed"


def test_the_worker_is_given_four_files_and_no_more(sandbox: Sandbox):
    lists = f"""
import os, sys
from pathlib import Path
seen = sorted(path.name for path in Path('/course').rglob('*.py') if path.stat().st_size)
known = sorted(name for name in sys.modules if name.startswith('ddpm_edu.'))
{ANSWER}    return f'{{seen}} {{known}} {{sorted(os.environ)}} {{os.getcwd()}}'
"""
    from ddpm_edu.grading.grade import Answer

    with sandbox.job() as channel:
        answer = Answer(channel, Q_STEP, lists)
        answer.outcome(seed=3)
        told = answer.call(*[0] * 4).output
    assert told.startswith("['reply.py', 'values.py', 'wire.py', 'worker.py'] ['ddpm_edu.exercises', ")
    assert "nb05" not in told
    assert "'ddpm_edu.exercises.run'" not in told
    assert told.endswith("'PYTHONDONTWRITEBYTECODE'] /tmp")
