"""The SLURM script of the page, run by a scheduler that is none: stand-ins for ``sbatch``, ``srun``
and ``scontrol`` do what the script asks of them, and send the signal that it asks for.

SLURM itself is not needed, and not tried.
"""

import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.programs import benchmark
from tests.benchmarks.test_benchmark import results
from tests.commands import fenced
from tests.conftest import ROOT
from tests.test_resume import assert_same

PAGE = ROOT / "docs" / "howto" / "scale.md"
#: What is added to the script's words, for two processes of a machine without a GPU.
MORE = (
    "trainer.accelerator=cpu trainer.enable_progress_bar=false wandb.mode=disabled method=tent "
    "stream.batch_size=16 data.target_images=480 checkpoint.every=2"
)
#: Starts as many tasks as the job has, tells each its place, and passes signals on; its status is
#: the largest of theirs.
SRUN = """#!{python}
import os, pathlib, signal, subprocess, sys
tasks = int(os.environ["SLURM_NTASKS"])
places = [dict(SLURM_PROCID=str(r), SLURM_LOCALID=str(r), SLURM_NODEID="0") for r in range(tasks)]
started = [subprocess.Popen(sys.argv[1:], env={{**os.environ, **place}}) for place in places]
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in started])
pathlib.Path("srun.pid").write_text(str(os.getpid()))
ended = [task.wait() for task in started]
sys.exit(max(status if status >= 0 else 128 - status for status in ended))
"""
#: Starts a job at once, in a session of its own, and tells its number.
SBATCH = """#!{python}
import subprocess, sys
log = open("jobs.log", "a")
job = subprocess.Popen(["bash", sys.argv[-1]], stdout=log, stderr=log, start_new_session=True)
print(f"Submitted batch job {{job.pid}}")
"""
SCANCEL = """#!{python}
import os, signal, sys
for job in sys.argv[1:]:
    os.killpg(int(job), signal.SIGKILL)
"""
SCONTROL = '#!/bin/sh\necho "$@" >> scontrol.log\n'
HOLDFAST = '#!/bin/sh\nexec {python} -m holdfast "$@"\n'
#: Seconds that a job may take on a busy machine.
_PATIENCE = 300


class Scheduler:
    """A stand-in for SLURM, of one machine and one job.

    Args:
        folder: where jobs run; it has what they need.
    """

    job = "7"

    def __init__(self, folder: Path) -> None:
        self.folder, self.commands = folder, folder / "bin"
        self.commands.mkdir()
        for name, content in (("srun", SRUN), ("scontrol", SCONTROL), ("holdfast", HOLDFAST)):
            path = self.commands / name
            path.write_text(content.format(python=sys.executable))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def sbatch(self, script: Path) -> "subprocess.Popen[bytes]":
        """Start a job as its header asks for."""
        asked = header(script.read_text())
        tasks = asked["ntasks-per-node"]
        told = {"JOB_ID": self.job, "JOB_NAME": script.stem, "NTASKS": tasks}
        told |= {"NTASKS_PER_NODE": tasks, "NODELIST": "localhost", "NNODES": asked["nodes"]}
        environment = {**os.environ, **{f"SLURM_{name}": value for name, value in told.items()}}
        environment |= {"PATH": f"{self.commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        (self.folder / "srun.pid").unlink(missing_ok=True)
        with (self.folder / "job.log").open("ab") as log:
            return subprocess.Popen(
                ["bash", str(script)], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def preempt(self, script: Path) -> None:
        """Send the job's steps the signal that the header asks for; the script itself gets none."""
        name = header(script.read_text())["signal"].split("@")[0]
        steps = int((self.folder / "srun.pid").read_text())
        os.kill(steps, getattr(signal, f"SIG{name}"))

    @property
    def queued_again(self) -> list[str]:
        """What ``scontrol`` was asked."""
        log = self.folder / "scontrol.log"
        return log.read_text().splitlines() if log.is_file() else []


def header(script: str) -> dict[str, str]:
    """Options of the ``#SBATCH`` lines."""
    words = [word for line in re.findall(r"^#SBATCH (.*)$", script, re.M) for word in line.split()]
    pairs = [word.removeprefix("--").partition("=") for word in words]
    return {name: value for name, _, value in pairs}


@pytest.fixture
def script(tmp_path: Path, source: Path) -> Path:
    """The page's script in a folder of its own, with words for this machine."""
    [content] = [text for _, text in fenced(PAGE.read_text()) if text.startswith("#!/bin/bash")]
    (tmp_path / "runs" / "train").mkdir(parents=True)
    (tmp_path / "runs" / "train" / "here").symlink_to(source)
    path = tmp_path / "night.sh"
    path.write_text(content.replace("trainer.devices=2", f"trainer.devices=2 {MORE}"))
    return path


def test_the_script_asks_for_what_it_needs(script: Path) -> None:
    asked = header(script.read_text())
    assert "requeue" in asked
    assert asked["open-mode"] == "append"
    assert asked["signal"] == "TERM@120"
    assert asked["ntasks-per-node"] == "2"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_ends_as_if_it_had_not_been(
    script: Path, tmp_path: Path
) -> None:
    scheduler, out = Scheduler(tmp_path), tmp_path / "runs" / "adapt" / "night"
    assert scheduler.sbatch(script).wait(_PATIENCE) == 0
    assert scheduler.queued_again == []
    whole = tmp_path / "whole"
    out.rename(whole)
    size, table = (whole / "predictions.csv").stat().st_size, out / "predictions.csv"
    for number, moment in enumerate((0.2, 0.5, 0.8), 1):
        job, deadline = scheduler.sbatch(script), time.monotonic() + _PATIENCE
        while not (table.is_file() and table.stat().st_size > moment * size):
            assert job.poll() is None, (tmp_path / "job.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        scheduler.preempt(script)
        assert job.wait(_PATIENCE) == 128 + signal.SIGTERM
        assert scheduler.queued_again == [shlex.join(["requeue", scheduler.job])] * number
    assert scheduler.sbatch(script).wait(_PATIENCE) == 0
    assert len(scheduler.queued_again) == 3
    assert_same(out, whole)


@pytest.mark.slow
def test_a_benchmark_runs_on_the_workers_of_the_page(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    [content] = [text for _, text in fenced(PAGE.read_text()) if "SLURMCluster" in text]
    (tmp_path / "workers.py").write_text(content.replace("jobs=16", "jobs=2"))
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "phantom0").symlink_to(source)
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = tmp_path / "bin" / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    path_ = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path_, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    workers = subprocess.Popen(
        [sys.executable, "workers.py"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert workers.stdin is not None
    assert workers.stdout is not None
    few = ["streams=[iid,blocks]", "shifts=[none]", "methods=[norm]", "policies=[on]", "images=128"]
    words = [*few, f"sources={tmp_path / 'sources'}", "wandb.mode=disabled"]
    try:
        address = workers.stdout.readline().strip()
        assert address.startswith("tcp://")
        assert benchmark.main([*words, f"cluster={address}", f"output={tmp_path / 'many'}"]) == 0
    finally:
        workers.communicate("\n", timeout=_PATIENCE)
    assert "Start worker at" in (tmp_path / "jobs.log").read_text()
    assert benchmark.main([*words, "processes=1", f"output={tmp_path / 'one'}"]) == 0
    assert results(tmp_path / "many") == results(tmp_path / "one")
