"""System calls that a submission has no use for, refused: a filter for `bwrap --seccomp`.

They are those that hold memory which no process is seen to hold, leave something behind that outlives the process, or
open more of the kernel than computing needs (other namespaces, tracing, rings).
"""

from __future__ import annotations

import errno
import platform
import struct
import sys

_REFUSED = {  # name: its number on x86_64 and on aarch64
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
}
_CLONE = (56, 220)
_CLONE3 = 435  # its flags lie in memory, where a filter cannot look: without it, libraries use clone
_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Classic BPF (linux/filter.h): the instructions used, and what they return (linux/seccomp.h)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # where in struct seccomp_data; of the argument the low half
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


def program() -> bytes | None:
    """The filter, as an array of struct sock_filter; None for a processor whose numbers are not listed here."""
    found = _ARCHITECTURES.get(platform.machine())
    if found is None or sys.byteorder != "little":
        return None
    which, architecture = found
    refused = [numbers[which] for numbers in _REFUSED.values()]
    # at the end: allow, refuse, "no such call"; a test jumps forward to one of them, or falls through to the next line
    tests: list[tuple[int, int, str, str]] = [
        (_LOAD, _ARCHITECTURE, "", ""),
        (_EQUAL, architecture, "", "refuse"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, 0x40000000, "refuse", ""),  # x32: the same calls under other numbers
        *((_EQUAL, number, "refuse", "") for number in refused),
        (_EQUAL, _CLONE3, "absent", ""),
        (_EQUAL, _CLONE[which], "", "allow"),
        (_LOAD, _FIRST_ARGUMENT, "", ""),
        (_ANY_BIT, _NAMESPACES, "refuse", "allow"),
    ]
    ends = {"allow": _ALLOW, "refuse": _ERROR | errno.EPERM, "absent": _ERROR | errno.ENOSYS}
    place = {name: len(tests) + i for i, name in enumerate(ends)}
    lines = []
    for i, (code, value, if_true, if_false) in enumerate(tests):
        jumps = [place[to] - i - 1 if to else 0 for to in (if_true, if_false)]
        lines.append(struct.pack("HBBI", code, *jumps, value))
    return b"".join([*lines, *(struct.pack("HBBI", _RETURN, 0, 0, value) for value in ends.values())])
