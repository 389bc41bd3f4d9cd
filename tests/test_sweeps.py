"""configs/sweep: valid by W&B's own schema, and each starts as W&B's agent would start it, without
an account.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import ACCELERATOR, ROOT, TINY_TRAINING
from tests.wandb_file import read_wandb

pytest.importorskip("sweeps")
FILES = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))


def configured(path: Path) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.create(path.read_text()))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sweep_opens_with_its_command_and_is_valid(path: Path) -> None:
    from sweeps.config import schema_violations_from_proposed_config

    assert path.read_text().startswith(f"# wandb sweep configs/sweep/{path.name}\n")
    assert schema_violations_from_proposed_config(configured(path)) == []


def run_agent(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **parameters: Any
) -> dict[str, Any]:
    """Let W&B's local search choose, and its agent run the command; returns the offline run."""
    import sweeps
    from wandb.wandb_agent import Agent

    config = configured(path)
    config["parameters"] |= {name: {"value": value} for name, value in parameters.items()}
    chosen = sweeps.next_run(sweeps.SweepConfig(config), [])
    assert chosen is not None
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(folder))
    environment = {
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_PROJECT": config["project"],
        "OMP_NUM_THREADS": "1",
    }
    # What the agent itself puts into the environment must not stay there.
    for name, value in {**environment, "WANDB_RUN_ID": "", "WANDB_SWEEP_PARAM_PATH": ""}.items():
        monkeypatch.setenv(name, value)
    agent = Agent(api=None, queue=None)
    agent._sweep_command = config["command"]
    arguments = {
        name: {"value": getattr(item["value"], "item", lambda v=item["value"]: v)()}
        for name, item in chosen.config.items()
    }
    agent._command_run({"run_id": "abc123", "program": config["program"], "args": arguments})
    assert agent._run_processes["abc123"].wait() == 0
    [file] = folder.glob("out/wandb/offline-run-*/*.wandb")
    content = read_wandb(file)
    assert (content["run_id"], content["sweep_id"], content["project"]) == (
        "abc123",
        "sweep1",
        config["project"],
    )
    return {**content, "chosen": {name: item["value"] for name, item in arguments.items()}}


TINY = {
    word.partition("=")[0]: int(word.partition("=")[2])
    for word in TINY_TRAINING
    if word.startswith("data.")
}
QUIET = {"trainer.accelerator": ACCELERATOR, "trainer.enable_progress_bar": "false"}


@pytest.mark.slow
@pytest.mark.gate
def test_training_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        **TINY,
        **QUIET,
        "epochs": 1,
        "model.kind": "compact",
        "fisher_images": 0,
        "output": str(tmp_path / "out"),
    }
    run = run_agent(ROOT / "configs" / "sweep" / "train.yaml", tmp_path, monkeypatch, **small)
    assert run["job_type"] == "train"
    assert run["config"]["lr"] == run["chosen"]["lr"]
    assert any("val/balanced_accuracy" in step for step in run["history"])
    assert run["config"]["model"]["kind"] == "compact"


@pytest.mark.slow
def test_adaptation_is_swept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {**QUIET, "source": str(source), "output": str(tmp_path / "out")}
    run = run_agent(ROOT / "configs" / "sweep" / "adapt.yaml", tmp_path, monkeypatch, **words)
    assert run["job_type"] == "adapt"
    assert run["config"]["method"]["kind"] == run["chosen"]["method.kind"]
    assert run["config"]["guard"]["kind"] == run["chosen"]["guard.kind"]
    assert "balanced_accuracy" in run["summary"]
