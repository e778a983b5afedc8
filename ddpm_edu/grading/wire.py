"""Plain data between two processes that do not trust each other: frames on a socket, without pickle.

A frame is the length of a head and of a body (two big-endian 32-bit numbers), the head as JSON, and the body: the
bytes of the tensors that the head names. JSON stands for itself but for objects, which are always one of

    {"tensor": [dtype, shape]}   its bytes are the next of the body
    {"dict": {...}}              a dict with text keys
    {"opaque": "function"}       a value that is not plain, by the name of its type
    {"function": 2}              one of the sender's functions, by number: asked for with a frame of its own

Whatever arrives is either plain data within the limits below or a `Violation`; nothing in it is ever run.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddpm_edu.exercises.values import Opaque

MOST_HEAD = 1 << 20  # bytes
MOST_BODY = 64 << 20
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}
_LENGTHS = struct.Struct(">II")


class Violation(Exception):
    """What the other side sent is no frame, is too large, or is nothing at all."""


class Late(Exception):
    """The other side has not answered, or not read, before the deadline."""


class Channel:
    """One end of a stream socket on which frames go both ways.

    `deadline`: the moment (of `time.monotonic`) after which `send` and `receive` raise Late; None waits for ever.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.deadline: float | None = None

    def send(self, value: Any, functions: list[Callable[..., Any]] | None = None) -> None:
        """Send plain data. Functions in it are appended to `functions`, by whose index the other side names them.

        Raises:
            Violation: the value is beyond the limits, or the other side is gone.
        """
        frame = memoryview(pack(value, functions))
        while frame:
            frame = frame[self._within(self.socket.send, frame) :]

    def receive(self) -> Any:
        """The next frame's value; a function comes as `Function`.

        Raises:
            Violation: what came is not a frame, or the other side is gone.
        """
        head, body = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if head > MOST_HEAD or body > MOST_BODY:
            raise Violation("a frame is too large")
        return unpack(self._exactly(head), self._exactly(body))

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            got = self._within(self.socket.recv_into, rest)
            if not got:
                raise Violation("the process is gone")
            rest = rest[got:]
        return data

    def _within(self, operation: Callable[[Any], int], data: memoryview) -> int:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Late
            self.socket.settimeout(left)
        try:
            return operation(data)
        except TimeoutError:
            raise Late from None
        except OSError:  # the other side has closed
            raise Violation("the process is gone") from None


class Function:
    """A function of the other side, known by its number."""

    def __init__(self, number: int) -> None:
        self.number = number


def pack(value: Any, functions: list[Callable[..., Any]] | None = None) -> bytes:
    """A value as one frame. Raises Violation where it is beyond the limits."""
    bodies: list[bytes] = []
    try:
        head = json.dumps(_told(value, bodies, [] if functions is None else functions)).encode()
    except (RecursionError, ValueError) as error:
        raise Violation(f"the value cannot be sent: {error}") from None
    body = b"".join(bodies)
    if len(head) > MOST_HEAD or len(body) > MOST_BODY:
        raise Violation("the value is too large to be sent")
    return _LENGTHS.pack(len(head), len(body)) + head + body


def unpack(head: bytes | bytearray, body: bytes | bytearray) -> Any:
    """The value of a frame's two parts. Raises Violation where they do not hold plain data."""
    try:
        told = json.loads(head)
        rest = memoryview(body)
        value, rest = _read(told, rest)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RuntimeError) as error:
        raise Violation(f"a frame is malformed: {type(error).__name__}") from None
    if rest:
        raise Violation("a frame is malformed: its body is too long")
    return value


def text(words: Any, most: int = 2000) -> str:
    """Words that came in a frame, fit to be written anywhere: text, not too long, without half characters."""
    words = words if isinstance(words, str) else ""
    return words[:most].encode("utf-8", "replace").decode()


def _told(value: Any, bodies: list[bytes], functions: list[Callable[..., Any]]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_told(item, bodies, functions) for item in value]
    if isinstance(value, dict):
        return {"dict": {key: _told(item, bodies, functions) for key, item in value.items()}}
    if isinstance(value, Tensor):
        name = str(value.dtype).removeprefix("torch.")
        if name not in DTYPES or value.layout != torch.strided:
            return {"opaque": f"tensor of type {name}" if name not in DTYPES else "sparse tensor"}
        # a clone: torch calls a single number contiguous whatever its stride, and cannot then view it as bytes
        flat = value.detach().cpu().resolve_neg().reshape(-1).clone(memory_format=torch.contiguous_format)
        bodies.append(flat.view(torch.uint8).numpy().tobytes() if len(flat) else b"")
        return {"tensor": [name, list(value.shape)]}
    if isinstance(value, Opaque):
        return {"opaque": value.type}
    if callable(value):
        functions.append(value)
        return {"function": len(functions) - 1}
    raise ValueError(f"a {type(value).__name__} is not plain data")


def _read(told: Any, body: memoryview) -> tuple[Any, memoryview]:
    """The value, and what of the body it leaves."""
    if told is None or isinstance(told, bool | float | str):
        return told, body
    if isinstance(told, int):
        return (told if -(2**63) <= told < 2**63 else float(told)), body
    if isinstance(told, list):
        items = []
        for one in told:
            item, body = _read(one, body)
            items.append(item)
        return items, body
    ((kind, inner),) = told.items()
    match kind:
        case "tensor":
            name, shape = inner
            return _tensor(name, shape, body)
        case "dict":
            values = {}
            for key, one in inner.items():
                values[key], body = _read(one, body)
            return values, body
        case "opaque":
            return Opaque(text(inner, 100) or "?"), body
        case "function" if isinstance(inner, int):
            return Function(inner), body
    raise ValueError(kind)


def _tensor(name: str, shape: list[int], body: memoryview) -> tuple[Tensor, memoryview]:
    dtype = DTYPES[name]
    if not all(type(length) is int and 0 <= length < 2**31 for length in shape) or len(shape) > 32:
        raise ValueError("shape")
    count = math.prod(shape) * dtype.itemsize
    if count > len(body):
        raise ValueError("the body is too short")
    if not count:
        return torch.empty(shape, dtype=dtype), body
    flat = torch.frombuffer(bytearray(body[:count]), dtype=torch.uint8)
    # a byte that is neither 0 nor 1 is no bool: it would be two truths at once
    return (flat != 0 if dtype == torch.bool else flat.view(dtype)).reshape(shape), body[count:]
