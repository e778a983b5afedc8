"""Where submissions run: a process of their own that can reach nothing, made with bubblewrap.

    with Sandbox(level(), slot=0) as sandbox:
        with sandbox.job() as channel:  # a fresh fork of a warm worker; see worker.run for what to say to it
            channel.send({"cell": source, "name": "q_sample"})

Inside there is no network, no file of the course, of the class or of the user, and no other process; every job has a
limit on its memory, processes, time on the processor and files. What it does not promise: README, "Grading a class".
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType

from ddpm_edu.exercises.cell import PREAMBLE
from ddpm_edu.grading import seccomp
from ddpm_edu.grading.wire import Channel, Late, Violation

LEVELS = {
    "bubblewrap": "own namespaces, own user, no network, no files but the interpreter's, limits",
    "limits": "limits alone: a submission can read this user's files and use the network",
}
LIMITS = {  # of each process inside
    "as": 4 << 30,  # torch breaks below 4 GiB of addresses
    "cpu": 30,  # seconds
    "fsize": 64 << 20,
    "nofile": 256,
    "nproc": 48,
    "core": 0,
}
MOST_MEMORY = 6 << 30  # bytes that all processes of one sandbox may hold together
SCRATCH = 64 << 20  # bytes of /tmp, and of /dev/shm
FIRST_UID = 61000  # graders run their sandboxes as this and the following users, where they are root
START = 120.0  # seconds a worker may take to import torch, on a machine that is busy elsewhere

_PACKAGE = Path(__file__).resolve().parent.parent
_GIVEN = ("exercises/values.py", "exercises/reply.py", "grading/wire.py", "grading/worker.py")
_MAIN = (
    "import sys; sys.path.insert(0, {course!r})\n"
    "import socket; from ddpm_edu.grading.worker import serve; serve(socket.socket(fileno=0))"
)


def level() -> str:
    """The best level this machine has. A sandbox is tried out: many systems have bubblewrap and forbid what it does."""
    return "bubblewrap" if _bubblewrap_works() else "limits"


@cache
def _bubblewrap_works() -> bool:
    if not all(shutil.which(program) for program in ("bwrap", "prlimit", "setpriv")):
        return False
    python = [sys.executable, "-I", "-c", "print('works')"]
    try:
        with _filter() as number:
            command = [*_bubblewrap(Path(tempfile.gettempdir()), 0, [], number), *python]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=START, check=False, pass_fds=(number,)
            )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout == "works\n"


class Sandbox:
    """A warm worker in its sandbox. Closed and opened anew by itself when a job has broken it.

    Args:
        level: one of LEVELS.
        slot: which of the sandboxes that run at the same time; each is another user, so that limits are its own.
        hide: folders that must not be seen inside, should they lie below what is shown there.
    """

    def __init__(self, level: str, slot: int = 0, hide: Sequence[Path] = ()) -> None:
        self.level = level
        self.killed = ""  # why the sandbox was stopped during the last job, if it was
        self._slot, self._hide = slot, [path.resolve() for path in hide]
        self._folder = tempfile.TemporaryDirectory(prefix="ddpm-edu-")
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Channel | None = None
        course = Path(self._folder.name)
        for name in _GIVEN:
            to = course / "ddpm_edu" / name
            to.parent.mkdir(parents=True, exist_ok=True)
            (to.parent / "__init__.py").touch()
            shutil.copyfile(_PACKAGE / name, to)
        (course / "ddpm_edu" / "__init__.py").touch()
        for path in [course, *course.rglob("*")]:
            path.chmod(0o755)

    @contextmanager
    def job(self) -> Iterator[Channel]:
        """A channel to a fresh job; afterwards nothing of the job is left.

        Raises:
            RuntimeError: no sandbox can be started.
        """
        ours = self._hand_over()
        if ours is None:
            self._start()
            ours = self._hand_over()
        if ours is None:
            raise RuntimeError("The sandbox ends as soon as it is started.")
        self.killed = ""
        try:
            yield ours
        finally:
            ours.close()
            if not self._swept():
                self.close_worker()

    def _hand_over(self) -> Channel | None:
        """Our end of a new channel whose other end the worker has; None where there is no worker to take it."""
        if self._control is None:
            return None
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._control.socket, [b"j"], [theirs.fileno()])
        except OSError:
            ours.close()
            self.close_worker()
            return None
        finally:
            theirs.close()
        return Channel(ours)

    def _swept(self) -> bool:
        """Has the worker killed what the job left? A worker that has itself been killed, or stopped, has not."""
        if self._control is None:
            return False
        try:
            self._control.deadline = time.monotonic() + 5
            self._control.socket.send(b"s")
            return self._control.receive() == "swept"
        except (OSError, Violation, Late):
            return False

    def _start(self) -> None:
        self.close_worker()
        ours, theirs = socket.socketpair()
        isolated = self.level == "bubblewrap"
        course = "/course" if isolated else self._folder.name
        python = [sys.executable, "-I", "-c", _MAIN.format(course=course)]
        with _filter() as number:
            around = _bubblewrap(Path(self._folder.name), self._slot, self._hide, number) if isolated else []
            self._process = subprocess.Popen(
                [*around, *python],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
                preexec_fn=None if isolated else _limit,
                pass_fds=(number,) if isolated else (),
            )
        theirs.close()
        self._control = Channel(ours)
        self._control.deadline = time.monotonic() + START
        try:
            self._control.send({"preamble": PREAMBLE, "alone": isolated})
            self._control.receive()
        except (Violation, Late):
            self.close_worker()
            raise RuntimeError(f"The sandbox ({self.level}) does not start on this machine.") from None
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the sandbox when all that runs in it holds too much memory: the limits above are each process's own."""
        before = _shared()
        while process.poll() is None:
            if memory_of(process.pid) + max(0, _shared() - before) > MOST_MEMORY:
                self.killed = f"it used more than {MOST_MEMORY >> 30} GiB of memory"
                _kill(process)
                return
            time.sleep(0.2)

    def close_worker(self) -> None:
        """Stop the worker and all it has started; the next job starts another."""
        if self._control:
            self._control.close()
        if self._process:
            _kill(self._process)
        self._control = self._process = None

    def close(self) -> None:
        self.close_worker()
        self._folder.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With bubblewrap the whole namespace ends with its first process."""
    inner = below(process.pid)  # before they lose their parent
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in inner:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.wait()


def memory_of(pid: int) -> int:
    """Bytes of memory that a process and all below it hold, pages they share counted once. 0 where /proc is missing."""
    pids = [pid, *below(pid)]
    # cheap first: pages that a fork shares with its parent are counted in both, so this is never too low
    held = sum(_resident(one) for one in pids)
    return held if held <= MOST_MEMORY else sum(proportional(one) for one in pids)


def _shared() -> int:
    """Bytes of memory that belong to no process alone, on the whole machine: a submission may let go of its own."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("Shmem:"):
                return int(line.split()[1]) << 10
    return 0


def _resident(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def proportional(pid: int) -> int:
    """Bytes of memory that a process holds, of pages it shares its share. 0 where /proc does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def below(pid: int) -> list[int]:
    """The processes below `pid`, as far as /proc shows them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, ahead = [], [pid]
    while ahead:
        own = children.get(ahead.pop(), [])
        found += own
        ahead += own
    return found


def _limit() -> None:
    for name, most in LIMITS.items():
        if name != "nproc":  # it counts all processes of the user, who has others
            with suppress(ValueError, OSError):
                resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (most, most))


def _environment() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **threads}


@contextmanager
def _filter() -> Iterator[int]:
    """The number of an open file with the filter of system calls, as bubblewrap reads it: from its beginning."""
    with tempfile.TemporaryFile() as file:
        file.write(seccomp.program() or b"")
        file.seek(0)
        yield file.fileno()


def _bubblewrap(course: Path, slot: int, hide: Sequence[Path], filter: int) -> list[str]:
    """The command that a program's own is appended to. filter: see `_filter`."""
    root = os.geteuid() == 0
    uid = str(FIRST_UID + slot)
    command = ["bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    command += ["--unshare-uts", "--unshare-cgroup-try"]
    command += ["--seccomp", str(filter)] if seccomp.program() else []
    # With a user namespace root stays root to the kernel, which then does not count its processes.
    command += [] if root else ["--unshare-user", "--uid", uid, "--gid", uid]
    shown = [Path("/usr")]
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for scratch in ("/dev/shm", "/tmp"):  # before the interpreter, which may itself lie in /tmp
        command += ["--perms", "1777", "--size", str(SCRATCH), "--tmpfs", scratch]
    for prefix in dict.fromkeys(Path(path).resolve() for path in (sys.base_prefix, sys.prefix)):
        if not any(prefix.is_relative_to(other) for other in shown):
            for parent in reversed(prefix.parents[:-1]):  # bubblewrap would make them for root alone
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", str(prefix), str(prefix)]
            shown.append(prefix)
    # Installed, not only linked: the course's own package lies there, references and all.
    within = [*shown, Path("/usr/local"), *(Path(path).resolve() for path in (sys.base_prefix, sys.prefix))]
    installed = [path for prefix in within for path in prefix.glob("lib*/python3*/*-packages/ddpm_edu")]
    for path in dict.fromkeys([_PACKAGE, *installed, *hide]):
        if any(path.is_relative_to(other) for other in shown):
            command += ["--tmpfs", str(path), "--remount-ro", str(path)]
    command += ["--ro-bind", str(course), "/course"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--clearenv"]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    if root:  # another user inside; only as that user does the limit on processes count
        command += [
            "--cap-drop",
            "ALL",
            *(w for c in ("SETUID", "SETGID", "SETPCAP") for w in ("--cap-add", f"CAP_{c}")),
        ]
        command += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--inh-caps=-all"]
        command += ["--bounding-set=-all", "--no-new-privs"]
    return [*command, "prlimit", *(f"--{name}={most}" for name, most in LIMITS.items())]
