"""Answers to 05.1 that are out for something else, by kind: (cell, the state it must be graded with, words of why).

Those that end in RIGHT do harm, or try to, and then answer rightly: they must pass, which also shows that the attempt
ended inside the answer. Those that look for what they must not see answer rightly only if they have found nothing.
`{root}`, `{secret}` and `{port}` are a folder outside the sandbox, a file in it, and a port of this machine.
"""

from __future__ import annotations

RIGHT = """
def right(x_prev, t, eps, beta):
    b = beta[t].view(-1, *[1] * (x_prev.ndim - 1))
    return (1 - b).sqrt() * x_prev + b.sqrt() * eps
"""

ANSWER = "def q_step(x_prev, t, eps, beta):\n"


def _first(lines: str) -> str:
    """A cell whose function does this once, and then answers rightly."""
    body = "\n".join(f"        {line}" for line in lines.strip("\n").split("\n"))
    once = f"    if not done:\n        done.append(1)\n{body}\n"
    return f"{RIGHT}\ndone = []\n{ANSWER}{once}    return right(x_prev, t, eps, beta)\n"


def _unless(lines: str) -> str:
    """A cell whose function answers rightly only where all of these lines fail, each by itself."""
    tries = "".join(
        f"    try:\n        {line}\n        found.append({line!r})\n    except Exception: pass\n"
        for line in lines.strip("\n").split("\n")
    )
    end = "    return 'found ' + found[0] if found else right(x_prev, t, eps, beta)\n"
    return f"{RIGHT}\n{ANSWER}    found = []\n{tries}{end}"


_CHANNEL = """
def channels():
    import os, socket
    for number in map(int, os.listdir('/proc/self/fd')):
        try:
            yield socket.socket(fileno=os.dup(number))
        except OSError: pass
def write(data):
    for end in channels():
        try: end.sendall(data)
        except OSError: pass
"""

_FORGED = """
    import json, struct
    told = json.dumps({told}).encode()
    write(struct.pack('>II', len(told), 0) + told)
    return x_prev
"""


def _raw(head: str, body: int) -> str:
    """A cell whose function answers with a frame of this head, and a body of so many zero bytes."""
    told = f"told = {head.encode()!r}; write(struct.pack('>II', len(told), {body}) + told + bytes({body}))"
    return f"{_CHANNEL}{ANSWER}    import struct\n    {told}\n    return x_prev\n"


HOSTILE: dict[str, tuple[str, str, str]] = {
    # time
    "an endless loop": (f"{ANSWER}    while True: pass\n", "wrong", "no answer within"),
    "an endless loop when the cell runs": (
        f"while True: pass\n{ANSWER}    return x_prev\n",
        "wrong",
        "no answer within",
    ),
    "a loop that ignores signals": (
        f"""{ANSWER}
    import signal
    for number in signal.valid_signals():
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        try: time.sleep(1)
        except BaseException: pass
""",
        "wrong",
        "no answer within",
    ),
    "an answer that trickles": (
        f"""{_CHANNEL}{ANSWER}
    import time
    while True:
        write(b'\\0')
        time.sleep(3)
""",
        "wrong",
        "",
    ),
    # ends
    "os._exit": (f"import os\n{ANSWER}    os._exit(0)\n", "wrong", "gone"),
    "sys.exit when the cell runs": ("import sys\nsys.exit(0)\n", "wrong", "SystemExit"),
    "sys.exit after the definition": (f"{RIGHT}q_step = right\nimport sys\nsys.exit(0)\n", "passed", ""),
    "a crash of the interpreter": (f"import ctypes\n{ANSWER}    ctypes.string_at(0)\n", "wrong", "gone"),
    # memory and processes
    "memory": (
        f"{ANSWER}    held = []\n    while True: held.append(bytearray(1 << 28))\n",
        "wrong",
        "MemoryError",
    ),
    "memory of torch": (f"{ANSWER}    return torch.ones(10**12)\n", "wrong", "RuntimeError"),
    "memory of many processes": (
        f"""import os, time
{ANSWER}
    for _ in range(20):
        if os.fork() == 0:
            held = bytearray(os.urandom(1 << 20)) * 1500
            time.sleep(1000)
    time.sleep(1000)
""",
        "wrong",
        "",
    ),
    "a fork bomb": (
        _first("""
import os, time
try:
    for _ in range(400):
        if os.fork() == 0: time.sleep(1000)
except OSError: pass
else: os._exit(1)  # it was let
"""),
        "passed",
        "",
    ),
    "a fork bomb that forks on": (
        f"import os\n{ANSWER}    while True:\n        try: os.fork()\n        except OSError: pass\n",
        "wrong",
        "",
    ),
    "a thread bomb": (
        _first("""
import threading, time
try:
    for _ in range(2000): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
except RuntimeError: pass
else: raise SystemError('it was let')
"""),
        "passed",
        "",
    ),
    "processes that stay": (
        _first("""
import os, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        time.sleep(1000)
"""),
        "passed",
        "",
    ),
    "a full disk": (
        _first("""
try:
    for i in range(100):
        with open(f'/tmp/{i}', 'wb') as file: file.write(bytes(32 << 20))
except OSError: pass
else: raise SystemError('it was let')
"""),
        "passed",
        "",
    ),
    # output
    "100 MB of prints": (_first("for _ in range(100): print('x' * 1_000_000)"), "passed", ""),
    "100 MB past print": (
        _first("import os\nfor _ in range(100): os.write(1, bytes(1_000_000)), os.write(2, bytes(1_000_000))"),
        "passed",
        "",
    ),
    "a result of terabytes": (f"{ANSWER}    return torch.ones(1).expand(10**12)\n", "wrong", ""),
    "a result of 200 MB": (f"{ANSWER}    return torch.zeros(50_000_000)\n", "wrong", "too large"),
    "a text of 200 MB": (f"{ANSWER}    return 'x' * 200_000_000\n", "wrong", "too large"),
    "a list that holds itself": (
        f"{ANSWER}    a = []\n    for _ in range(9999): a.append(a)\n    return a\n",
        "wrong",
        "",
    ),
    "a list of a million lists": (f"{ANSWER}    return [[[0.0] * 1000] * 1000] * 9\n", "wrong", ""),
    "an int of a million digits": (f"{ANSWER}    return 10 ** 1_000_000\n", "wrong", ""),
    # what judges, patched
    "numpy patched": (
        f"np.allclose = np.array_equal = np.isclose = lambda *a, **k: True\n{ANSWER}    return x_prev\n",
        "wrong",
        "",
    ),
    "torch patched": (
        f"""
for name in ('allclose', 'isclose', 'equal'): setattr(torch, name, lambda *a, **k: torch.tensor(True))
for name in ('__eq__', 'equal', 'allclose', 'isclose', 'clone', 'detach'):
    setattr(Tensor, name, lambda self, *a, **k: self)
{ANSWER}    return x_prev
""",
        "wrong",
        "",
    ),
    "pytest and builtins patched": (
        f"""
import builtins, sys, types
sys.modules['pytest'] = types.SimpleNamespace(main=lambda *a, **k: 0)
builtins.all = builtins.any = builtins.isinstance = lambda *a, **k: True
{ANSWER}    return x_prev
""",
        "wrong",
        "",
    ),
    "the worker patched": (
        f"""
import sys
for module in [m for name, m in sys.modules.items() if name.startswith('ddpm_edu')]:
    for name in ('here', 'plain', 'same', 'agree', 'judge'):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: True)
{ANSWER}    return x_prev
""",
        "wrong",
        "",
    ),
    "an object equal to everything": (
        f"""
class Equal:
    __hash__ = None
    def __eq__(self, other): return True
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
{ANSWER}    return Equal()
""",
        "wrong",
        "",
    ),
    "a tensor subclass": (
        f"""
class Equal(Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None): return torch.tensor(True)
{ANSWER}    return x_prev.as_subclass(Equal)
""",
        "wrong",
        "",
    ),
    # what is to be had here
    "walking the stack": (
        f"""
import sys
{ANSWER}
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            for name in ('reference', 'need', 'exercise'):
                if hasattr(value, name): return getattr(value, name)
        frame = frame.f_back
    return x_prev
""",
        "wrong",
        "",
    ),
    "searching the memory": (
        f"""
import gc
{ANSWER}
    given = {{id(x_prev), id(t), id(eps), id(beta)}}
    for one in gc.get_objects():
        if type(one) is Tensor and id(one) not in given and one.shape == x_prev.shape and not one.equal(x_prev):
            if not one.equal(eps): return one
        if type(one).__name__ == 'Exercise': return one(x_prev, t, eps, beta)
    return x_prev
""",
        "wrong",
        "",
    ),
    "importing the references": (
        _unless("""
import ddpm_edu.exercises.nb05
import ddpm_edu.exercises.declare
import ddpm_edu.exercises.run
import ddpm_edu.process
from ddpm_edu.exercises import solution
"""),
        "passed",
        "",
    ),
    "reading files": (
        _unless("""
open('{secret}').read()
next(iter(__import__('os').scandir('{root}')))
open('/proc/1/root{secret}').read()
open('/etc/passwd').read()
open('/etc/shadow').read()
next(iter(__import__('pathlib').Path('/').rglob('05_diffusion_forward.ipynb')))
next(iter(__import__('pathlib').Path('/').rglob('nb05.py')))
next(iter(__import__('pathlib').Path('/home').rglob('*')))
"""),
        "passed",
        "",
    ),
    "reading other processes": (
        _unless("""
open('/proc/1/environ').read()
open('/proc/1/mem', 'rb').read(1)
[0][len([p for p in __import__('os').listdir('/proc') if p.isdigit()]) < 8]
"""),
        "passed",
        "",
    ),
    "writing files": (
        _unless("""
open('{root}/results.json', 'w')
open('{secret}', 'a')
open('/course/ddpm_edu/grading/worker.py', 'a')
open('/usr/bin/python3', 'a')
open('/new', 'w')
open('/dev/new', 'w')
open(torch.__file__, 'a')
__import__('os').mkdir('/home/new')
"""),
        "passed",
        "",
    ),
    "becoming root": (
        _unless("""
__import__('os').setuid(0)
__import__('os').setgroups([0])
__import__('os').chroot('/tmp')
__import__('os').nice(-5)
__import__('resource').setrlimit(__import__('resource').RLIMIT_NPROC, (10**6, 10**6))
"""),
        "passed",
        "",
    ),
    "the network": (
        _unless("""
__import__('socket').create_connection(('127.0.0.1', {port}), timeout=2)
__import__('socket').create_connection(('1.1.1.1', 53), timeout=2)
__import__('socket').getaddrinfo('pypi.org', 443)
"""),
        "passed",
        "",
    ),
    # those around it
    "killing the parent": (
        _first("import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(5)"),
        "wrong",
        "gone",
    ),
    "killing everyone": (
        _first("import os, signal, time\nos.kill(-1, signal.SIGKILL)\ntime.sleep(5)"),
        "wrong",
        "gone",
    ),
    "stopping the parent": (_first("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)"), "passed", ""),
    # the channel
    "a forged reply": (
        _CHANNEL
        + ANSWER
        + _FORGED.format(told={"dict": {"output": 1, "failure": None, "mutated": [], "printed": "", "warned": ""}}),
        "wrong",
        "shape ()",
    ),
    "a forged verdict": (
        _CHANNEL + ANSWER + _FORGED.format(told={"dict": {"passed": True, "points": 100}}),
        "wrong",
        "malformed",
    ),
    "a forged length": (f"{_CHANNEL}{ANSWER}    write(b'\\xff' * 8)\n    return x_prev\n", "wrong", "too large"),
    "a pickle": (
        f"""{_CHANNEL}
import os, pickle
class Bad:
    def __reduce__(self): return os.system, ('touch {{root}}/pwned',)
{ANSWER}
    write(pickle.dumps(Bad()))
    return Bad()
""",
        "wrong",
        "",
    ),
    "a tensor for a frame": (_raw('{"tensor": ["float32", []]}', 4), "wrong", "malformed"),
    "a tensor for a failure": (
        _raw('{"dict": {"output": 1, "mutated": [], "failure": {"tensor": ["float32", [2]]}}}', 8),
        "wrong",
        "malformed",
    ),
    "a number for a dict": (_raw('{"dict": 1}', 0), "wrong", "malformed"),
    "60 million small numbers": (f"{ANSWER}    return torch.zeros(60_000_000, dtype=torch.int8)\n", "wrong", "shape"),
    "memory that no process holds": (
        _unless("""
__import__('os').memfd_create('x')
__import__('os').unshare(0x10000000) if hasattr(__import__('os'), 'unshare') else 1/0
1/(__import__('ctypes').CDLL(None).unshare(0x10000000 | 0x20000) == 0)
1/(__import__('ctypes').CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0)
"""),
        "passed",
        "",
    ),
    "a key that outlives it": (
        _unless("""
1/(__import__('ctypes').CDLL(None).syscall(248, b'user', b'left', b'1', 1, -4) >= 0)
1/(__import__('ctypes').CDLL(None).syscall(217, b'user', b'left', b'1', 1, -4) >= 0)
"""),
        "passed",
        "",
    ),
    "a flood": (f"{_CHANNEL}{ANSWER}    while True: write(bytes(1 << 20))\n", "wrong", ""),
    "a definition forged": (
        f"""{_CHANNEL}
import json, struct
told = json.dumps({{'dict': {{'there': True, 'failure': None, 'parameters': None}}}}).encode()
write(struct.pack('>II', len(told), 0) + told)
{ANSWER}    return x_prev
""",
        "wrong",
        "",
    ),
}
