"""The process in which submissions run. Everything here is at their mercy, so it is given nothing worth having.

It knows torch, the preamble, and four small files of the course: no reference, no check, no input before the call
that brings it, no mark. `serve` imports what is slow once, and forks a job for every exercise; a job runs the
exercise's cell, and answers calls. What it answers is the submission's word: the other side compares values, and
takes no verdict from here.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import linecache
import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict
from types import FunctionType
from typing import Any

import torch

from ddpm_edu.exercises.reply import Failure, Reply, here
from ddpm_edu.exercises.values import plain
from ddpm_edu.grading.wire import Channel, Function, Violation

_magic = re.compile(r"^([ \t]*)([%!?].*)$", re.MULTILINE)


def serve(control: socket.socket) -> None:
    """Fork a job for each channel that is handed over, until the other side is gone.

    The first frame says {"preamble": source, "alone": whether every process that can be seen here is a job's}. Then
    one byte with a channel begins a job, and one byte without a channel asks for what is left of it to be killed.
    """
    torch.set_num_threads(1)  # no pool of threads: it would not survive the fork
    order = Channel(control)
    told = order.receive()
    names: dict[str, Any] = {}
    exec(told["preamble"], names)
    torch.zeros(2).sum()  # what torch loads late, it loads before the forks
    order.send("ready")
    jobs: list[int] = []
    while True:
        asked, channels, _, _ = socket.recv_fds(control, 1, 1)
        if not asked:
            return
        if channels:
            if (job := os.fork()) == 0:
                os.dup2(os.open(os.devnull, os.O_RDWR), control.detach())
                os.setsid()
                run(Channel(socket.socket(fileno=channels[0])), names)
                os._exit(0)
            os.close(channels[0])
            jobs.append(job)
        else:
            _sweep(jobs, alone=told["alone"] is True)
            order.send("swept")


def run(channel: Channel, names: dict[str, Any]) -> None:
    """One job: run an exercise's cell, say whether its function is there and how it is called, and answer the calls.

    The first frame says {"cell": source, "name": the function's}; each further one is the list of a call's arguments.
    """
    told = channel.receive()
    function, failure = _defined(told["cell"], told["name"], names)
    there = callable(function)
    channel.send({"there": there, "failure": failure and asdict(failure), "parameters": _parameters(function)})
    call = here(function)
    with contextlib.suppress(Violation):  # the other side has what it wanted
        while True:
            args = [_proxy(arg, channel) if isinstance(arg, Function) else arg for arg in channel.receive()]
            reply = call(*args)
            try:
                channel.send(_plain(reply))
            except Exception as error:
                channel.send(_plain(Reply(failure=Failure(f"ValueError: your result, {error}", "", ""))))


def _defined(cell: str, name: str, names: dict[str, Any]) -> tuple[Any, Failure | None]:
    """What `name` is after the cell has run, and what stopped the cell."""
    place = f"<cell of {name}>"
    linecache.cache[place] = (len(cell), None, cell.splitlines(keepends=True), place)
    names |= {"__name__": "__main__", "check": lambda id, answer=None: answer}  # the notebook's, which a cell may call
    names |= {other: lambda *_: None for other in ("hint", "solution", "progress", "display")}
    try:
        try:
            code = compile(cell, place, "exec", dont_inherit=True)
        except SyntaxError:  # is it the notebook's magic (%, !, ?)? In plain Python, too, a line may begin with %
            code = compile(_magic.sub(r"\1pass  # \2", cell), place, "exec", dont_inherit=True)
    except SyntaxError as error:
        return None, Failure(f"{type(error).__name__}: {error.msg}", f"line {error.lineno} of your cell", "")
    except Exception as error:  # too deep, or not text to Python
        return None, Failure(f"{type(error).__name__}: {error}"[:300], "", "")
    failure = here(FunctionType(code, names))().failure
    return names.get(name), failure


def _parameters(function: Any) -> list[list[Any]] | None:
    """Name, kind and whether it has a default, of each parameter; None where they cannot be told."""
    try:
        each = inspect.signature(function).parameters.values()
        return [[str(one.name), int(one.kind), one.default is not one.empty] for one in each]
    except Exception:
        return None


def _proxy(function: Function, channel: Channel) -> Callable[..., Any]:
    """A function of the other side as one to call here: the call goes there, and its value or exception comes back."""

    def ask(*args: Any) -> Any:
        channel.send({"asks": function.number, "args": [plain(arg) for arg in args]})
        told = channel.receive()
        if "error" in told:
            kind = getattr(builtins, told["error"], RuntimeError)
            raise kind(told["message"])
        return told["value"]

    return ask


def _plain(reply: Reply) -> dict[str, Any]:
    return {
        "output": reply.output,
        "failure": reply.failure and asdict(reply.failure),
        "mutated": reply.mutated,
        "printed": reply.printed,
        "warned": reply.warned,
    }


def _sweep(jobs: list[int], alone: bool) -> None:
    """Kill what jobs have left running: all that can be seen, if that is theirs, else the group each began with."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if alone:
            os.kill(-1, signal.SIGKILL)
    for job in jobs:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(job, signal.SIGKILL)
    for job in jobs:
        os.waitpid(job, 0)
    jobs.clear()
