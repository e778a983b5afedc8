"""The script that trains all three stages of text to image: it plans, stops, goes on, and gathers what is kept. (That
the trainings themselves resume exactly is for test_training.)"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from ddpm_edu import checkpoint, pretrained
from ddpm_edu.data import ROOT
from ddpm_edu.recipes import RECIPES, DigitsVAE

SMALL = DigitsVAE(width=4, batch=4, steps=3)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import train_stages

    return train_stages


def test_as_many_steps_as_fit(stages, tmp_path: Path):
    """Each stage's share of 10 minutes less what all take to begin; compiled on a GPU, as it will train there."""
    rates = {"clip": 10.0, "autoencoder": 20.0, "text2image": 100.0}
    for device, how in (("NVIDIA H100", "compiled"), ("CPU, 2 threads", "as written")):
        none = {"pictures": 1.0, "batch": 1, "ready": 0.0}
        speeds = {name: {"compiled": none, "as written": none} for name in rates}
        for name, rate in rates.items():
            speeds[name] = speeds[name] | {how: {"pictures": 50 * rate, "batch": 50, "ready": 7.0}}
        (tmp_path / "speeds.json").write_text(json.dumps({"device": device, "stages": speeds}))
        steps = stages.fitted(tmp_path / "speeds.json", 10)
        left = 600 - sum(stages.START + 7 + stages.LOOK * RECIPES[name].looks for name in rates)
        for name, rate in rates.items():
            assert abs(steps[name] / rate - left * stages.SHARES[name]) <= 50 / rate
        with pytest.raises(SystemExit, match="Of 1 minutes reading and compiling leave 0 seconds"):
            stages.fitted(tmp_path / "speeds.json", 1)
    assert sum(stages.SHARES.values()) == pytest.approx(1)


SCRIPT = """
import signal, sys, time
print("begun", flush=True)
try:
    time.sleep(float(sys.argv[1]))
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(130)
"""


def test_a_command_is_stopped_in_time_as_by_ctrl_c(
    stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture
):
    start = time.monotonic()
    code = stages.run([sys.executable, "-c", SCRIPT, "60"], {}, tmp_path / "log.txt", start + 1.5)
    assert code == 130
    assert stages.run([sys.executable, "-c", SCRIPT, "0"], {}, tmp_path / "log.txt", float("inf")) == 0
    # One that is asked before it can save, and one that does not listen.
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert stages.run(sleep, {}, tmp_path / "log.txt", 0) in stages.STOPPED
    monkeypatch.setattr(stages, "GRACE", 1.5)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    code = stages.run([sys.executable, "-c", deaf], {}, tmp_path / "log.txt", time.monotonic() + 1)
    assert code == -signal.SIGKILL
    assert time.monotonic() - start < 30
    words = "begun\nsaved\nbegun\n"
    assert (tmp_path / "log.txt").read_text().startswith(words)
    assert capfdbinary.readouterr().out.startswith(words.encode())


CTRL_C = """
import os, sys, threading, time
sys.path.insert(0, {scripts!r})
import train_stages
from pathlib import Path
log = Path(sys.argv[1])


def stop():
    while not (log.exists() and "begun" in log.read_text()):
        time.sleep(0.05)
    os.killpg(0, 2)


threading.Thread(target=stop).start()
code = train_stages.run([sys.executable, "-c", {script!r}, "600"], {{}}, log, float("inf"))
print("then", code, flush=True)
"""


def test_ctrl_c_reaches_the_training_and_is_waited_for(tmp_path: Path):
    command = [sys.executable, "-c", CTRL_C.format(scripts=str(ROOT / "scripts"), script=SCRIPT), str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=300, check=True)
    assert done.stdout == "begun\nsaved\nthen 130\n"


def test_it_goes_on_and_gathers(stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """A stage stopped and gone on with: what is gathered are the average of a training under way, then the weights that
    were released, and each piece's command and time. The other commands are played by hand."""
    monkeypatch.setattr(stages, "STAGES", ("digits_vae",))
    out, results, told = tmp_path / "out", tmp_path / "results", []
    path = out / "digits_vae" / stages.CHECKPOINT

    def run(command: list[str], env: dict[str, str], log: Path, until: float) -> int:
        told.append(command)
        assert env["DDPM_EDU_DATA"] == str(out.resolve() / "data")
        log.touch()
        if "release.py" in command[1]:
            pretrained.write(out / "data" / "checkpoints" / "digits_vae.safetensors", path)
            return 0
        loop = SMALL.train(SMALL.learners(), path, progress=False)
        for step in loop:
            if step.step == 2 and len(told) == 1:
                loop.close()
                return 130
        return 0

    monkeypatch.setattr(stages, "run", run)
    monkeypatch.setattr(sys, "argv", ["", "--preset", "gpu", "--out", str(out), "--results", str(results)])
    stages.main()
    assert "goes on with digits_vae" in capsys.readouterr().out
    assert sorted(p.name for p in results.iterdir()) == ["digits_vae_under_way.safetensors", "results.tar.gz"]
    pretrained.read(results / "digits_vae_under_way.safetensors")
    stages.main()
    assert "All is trained" in capsys.readouterr().out
    assert checkpoint.load(path)["step"] == 3
    assert sorted(p.name for p in results.iterdir()) == ["digits_vae.safetensors", "results.tar.gz"]
    pretrained.read(results / "digits_vae.safetensors")
    with tarfile.open(results / "results.tar.gz") as archive:
        found = json.load(archive.extractfile("summary.json"))["stages"]["digits_vae"]  # type: ignore[arg-type]
    assert found["step"] == found["of"] == 3
    assert found["done"]
    assert [piece["step"] for piece in found["pieces"]] == [2, 3]
    assert len(told) == 3  # train, train, release
    stages.main()
    assert len(told) == 3  # nothing is trained twice
