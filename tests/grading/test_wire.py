"""Plain data goes through the wire as it is; whatever else comes through it is refused, and nothing is run."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
import time

import pytest
import torch

from ddpm_edu.exercises.values import Opaque, plain, same
from ddpm_edu.grading.wire import DTYPES, MOST_BODY, Channel, Function, Late, Violation, pack, text, unpack


def channels() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    return Channel(ours), Channel(theirs)


def frame(head: object, body: bytes = b"") -> bytes:
    told = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack(">II", len(told), len(body)) + told + body


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2**63 - 1,
        0.1,
        math.inf,
        "ε, 的, 🦊",
        [],
        {},
        [1, [2.5, "x", None], {"a": [torch.arange(3)]}],
        {"tensor": [1, 2], "dict": {"opaque": "no"}},
        torch.randn(3, 4).T,
        torch.randn(4)[::2],
        torch.randn(4)[::2][:1],
        torch.tensor(2.0),
        torch.zeros(0, 3),
        torch.ones(1).expand(1000),
        -torch.randn(3, dtype=torch.cfloat).conj().imag,
        *(torch.tensor([0, 1, 2]).to(dtype) for dtype in DTYPES.values()),
    ],
    ids=str,
)
def test_plain_data_comes_as_it_went(value):
    ours, theirs = channels()
    ours.send(value)
    got = theirs.receive()
    assert same(got, plain(value), rtol=0)
    if isinstance(value, torch.Tensor):
        assert got.dtype == value.dtype


def test_a_large_tensor_goes_through_while_it_is_read():
    ours, theirs = channels()
    value = torch.randn(4 << 20)
    sender = threading.Thread(target=ours.send, args=(value,))
    sender.start()
    assert theirs.receive().equal(value)
    sender.join()


def test_nan_is_still_nan():
    ours, theirs = channels()
    ours.send([math.nan, torch.tensor([math.nan])])
    number, tensor = theirs.receive()
    assert math.isnan(number)
    assert tensor.isnan().all()


def test_functions_are_numbered_and_what_is_not_plain_is_named():
    ours, theirs = channels()
    functions: list = []
    ours.send([max, Opaque("numpy.ndarray"), torch.ones(2).to_sparse(), min], functions)
    one, opaque, sparse, other = theirs.receive()
    assert isinstance(one, Function)
    assert (one.number, other.number, functions) == (0, 1, [max, min])
    assert (opaque, sparse) == (Opaque("numpy.ndarray"), Opaque("sparse tensor"))


@pytest.mark.parametrize(
    "data",
    [
        frame(b""),
        frame(b"\xff\xfe"),
        frame(b"{"),
        frame(b"[" * 100_000 + b"]" * 100_000),
        frame(b'{"dict":' * 50_000 + b"1" + b"}" * 50_000),
        frame(b"1" * 100_000),
        frame({}),
        frame({"a": 1, "b": 2}),
        frame({"pickle": "gASVIAAAAA=="}),
        frame({"tensor": []}),
        frame({"tensor": ["float32", [2]]}, b"1234"),
        frame({"tensor": ["float32", [1]]}, b"12345"),
        frame({"tensor": ["float32", [-1]]}, b"1234"),
        frame({"tensor": ["float32", [2**40, 2**40]]}, b"1234"),
        frame({"tensor": ["float32", [0, 2**30, 2**30, 2**30]]}),
        frame({"tensor": ["float32", [True]]}, b"1234"),
        frame({"tensor": ["float32", [1.0]]}, b"1234"),
        frame({"tensor": ["float32", [1] * 100]}, b"1234"),
        frame({"tensor": ["complex64", [1]]}, b"12345678"),
        frame({"tensor": ["__class__", [1]]}, b"1234"),
        frame({"tensor": [["float32"], [1]]}, b"1234"),
        frame({"function": "0"}),
        frame(1, b"left over"),
        struct.pack(">II", 2**32 - 1, 0),
        struct.pack(">II", 1, MOST_BODY + 1),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0",
        b"",
    ],
    ids=lambda data: repr(data[:60]),
)
def test_forged_frames_are_refused(data):
    ours, theirs = channels()

    def send():
        theirs.socket.sendall(data)
        theirs.socket.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)  # more than a socket holds
    sender.start()
    ours.deadline = time.monotonic() + 30
    with pytest.raises(Violation):
        ours.receive()
    sender.join()


def test_a_bool_of_other_bytes_is_true():
    value = unpack(*_parts(frame({"tensor": ["bool", [3]]}, b"\x00\x02\xff")))
    assert value.tolist() == [False, True, True]
    assert value.view(torch.uint8).tolist() == [0, 1, 1]


def _parts(data: bytes) -> tuple[bytes, bytes]:
    head, body = struct.unpack(">II", data[:8])
    return data[8 : 8 + head], data[8 + head : 8 + head + body]


def test_an_int_beyond_64_bits_is_a_float():
    assert unpack(b"[10000000000000000000000]", b"") == [1e22]


@pytest.mark.parametrize("value", [torch.zeros(MOST_BODY // 4 + 1), "x" * (5 << 20), object])
def test_what_is_beyond_the_limits_is_not_sent(value):
    nested: list = []
    nested.append(nested)
    with pytest.raises(Violation):
        pack(nested if value is object else value)


def test_waiting_ends_at_the_deadline():
    ours, theirs = channels()
    ours.deadline = time.monotonic() + 0.1
    with pytest.raises(Late):
        ours.receive()
    theirs.socket.send(struct.pack(">II", 10, 0) + b"123")  # and stops within a frame
    ours.deadline = time.monotonic() + 0.1
    with pytest.raises(Late):
        ours.receive()
    ours.deadline = time.monotonic() + 0.5
    with pytest.raises(Late):  # nobody reads
        ours.send(torch.zeros(8 << 20))


def test_words_are_made_fit_to_be_written():
    assert text("a\ud800b") == "a?b"
    assert text("x" * 5000) == "x" * 2000
    assert text(["x"]) == ""
