"""Grade a class of 200 whose every grade is known: is each as it should be, in what time, with how much memory?

    python scripts/grade_200.py [--students 200] [--jobs 2] [--seed 0]

The class is made by tests/grading/classroom.py: references, right answers written another way, every mistake of the
catalogue in turn, stubs, deleted cells, and hostile ones. It is graded by `ddpm-edu grade`, as a teacher would, and
the table it writes is compared with what is known. Ends with 1 where a grade differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests" / "grading"))
from classroom import differences, make

from ddpm_edu.grading import results
from ddpm_edu.grading.sandbox import below, proportional


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        submissions, out = Path(place, "submissions"), Path(place, "grades")
        truth = make(submissions, options.students, options.seed)
        command = [sys.executable, "-m", "ddpm_edu.cli", "grade", str(submissions)]
        start, peak = time.monotonic(), 0
        process = subprocess.Popen([*command, "--out", str(out), "--jobs", str(options.jobs)])
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.5):
                peak = max(peak, sum(map(proportional, [process.pid, *below(process.pid)])))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
        minutes = (time.monotonic() - start) / 60
        graded = [one for path in sorted((out / "results").glob("*.json")) if (one := results.read(path))]
        secret = (out / "secret").read_text()
    wrong = differences(truth, graded, secret)
    known = sum(map(len, truth.grades.values()))
    mistakes = len({(id, name) for each in truth.grades.values() for id, (_, name) in each.items() if name})
    print("\n".join(wrong[:50]))
    print(f"{len(graded)} submissions, {known} answers ({truth.counts()}), {mistakes} different mistakes among them")
    print(f"{len(wrong)} grades differ from what is known; exit {code}")
    print(f"{minutes:.1f} minutes with {options.jobs} jobs, peak memory {peak / 2**30:.2f} GiB")
    return 1 if wrong or code or len(graded) != options.students else 0


if __name__ == "__main__":
    sys.exit(main())
