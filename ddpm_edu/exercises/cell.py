"""The exercise's cell: its stub, the preamble it may use, and what it takes from other cells though it must not."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ddpm_edu.exercises.declare import Exercise, catalogue
from ddpm_edu.exercises.reply import code_of

PREAMBLE = """\
import math
import einops
import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn
"""


@cache
def preamble() -> frozenset[str]:
    """The names an exercise's cell may use without defining them: the preamble's and Python's own."""
    bound = (
        alias
        for node in ast.parse(PREAMBLE).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    )
    return frozenset(dir(builtins)) | {(alias.asname or alias.name).split(".")[0] for alias in bound}


def stub(exercise: Exercise) -> str:
    """The source of the notebook's exercise cell: signature, statement, `raise NotImplementedError`."""
    lines, node = _definition(exercise)
    return "\n".join([*lines[: node.body[0].end_lineno], "    raise NotImplementedError"]) + "\n"


def solution(exercise: Exercise) -> str:
    """The reference as the learner would have written it: the signature and the lines below the statement."""
    lines, node = _definition(exercise)
    statement = node.body[0]
    return "\n".join([*lines[: statement.lineno - 1], *lines[statement.end_lineno :]]) + "\n"


def foreign_names(function: Callable[..., Any]) -> list[str]:
    """Names the function's notebook cell uses inside functions, and that only other cells define.

    Grading runs the cell alone, after the preamble. Empty for a function that does not come from a notebook's cell.
    """
    code = code_of(function)
    if code is None or Path(code.co_filename).is_file():
        return []
    try:
        cell = symtable.symtable(_source(function), "cell", "exec")
    except SyntaxError:  # a cell with magics: left to run as it is
        return []
    own = {symbol.get_name() for symbol in cell.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    elsewhere = getattr(function, "__globals__", {})
    used = (name for scope in cell.get_children() for name in _globals_used(scope))
    return sorted({name for name in used if name not in own | preamble() and name in elsewhere})


def fault_of_names(exercise: Exercise, function: Callable[..., Any]) -> str | None:
    """The sentence on what the function takes from other cells; None when it takes nothing."""
    names = foreign_names(function)
    if not names:
        return None
    session = function.__globals__
    given = [f"`{name}`" for name in exercise.parameters]
    for node in ast.walk(ast.parse(_source(function))):
        match node:
            case ast.Attribute(ast.Name(name), argument) if name in names and argument in exercise.parameters:
                return f"`{argument}` is an argument: use it, not `{name}.{argument}`, which grading does not have."
    quoted, it = ", ".join(f"`{name}`" for name in names), "it" if len(names) == 1 else "them"
    answers = {other.name for other in catalogue()}
    if all(name not in answers and _made_in(session, session[name]) for name in names):
        return f"Your function uses {quoted} from another cell: grading sees this cell alone, so move {it} here."
    come = "comes" if len(names) == 1 else "come"
    alone = f"the argument{'s' if len(given) > 1 else ''} {', '.join(given)} alone"
    return f"{quoted} {come} from another cell, and grading does not have {it}. Write what you need here, from {alone}."


def _made_in(session: dict[str, Any], value: Any) -> bool:
    """Is it a constant, or a function or class that the notebook itself defines, and so easily moved?"""
    return isinstance(value, int | float | str) or getattr(value, "__module__", None) == session.get("__name__")


def _source(function: Callable[..., Any]) -> str:
    """The source of the function's cell."""
    code = code_of(function)
    return "".join(linecache.getlines(code.co_filename)) if code else ""


def _globals_used(scope: symtable.SymbolTable) -> Iterator[str]:
    yield from (symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced())
    for inner in scope.get_children():
        yield from _globals_used(inner)


def _definition(exercise: Exercise) -> tuple[list[str], ast.FunctionDef]:
    """The reference's source from `def` on, as lines and as a tree numbered alike."""
    source = textwrap.dedent(inspect.getsource(exercise.reference))
    source = source[source.index("def ") :]  # below its decorator
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return source.rstrip("\n").split("\n"), node
