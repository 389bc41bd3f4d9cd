"""The comparison with released code, on a checkout that is made here: whose steps are another's is
seen, and nothing of it stays behind.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.benchmarks import peers
from holdfast.benchmarks.speed_cases import CASES

#: An engine that adapts nothing, and imports a library for what it never calls.
_ENGINE = """
import torch
from torchvision.transforms import Compose

class {name}Engine(torch.nn.Module):
    def __init__(self, model, *options):
        super().__init__()
        self.model = model

    def forward(self, images):
        with torch.no_grad():
            return self.model(images), None
"""


def test_what_is_apart_is_seen_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "torch-ttt" / "torch_ttt" / "engine"
    folder.mkdir(parents=True)
    for name in ("Tent", "Eata"):
        (folder / f"{name.lower()}_engine.py").write_text(_ENGINE.format(name=name))
    monkeypatch.setitem(CASES, "compact", replace(CASES["compact"], batch=4))
    before = set(sys.modules)
    words = [f"peers={tmp_path}", "networks=[compact]", "rounds=1", "steps=1"]
    assert peers.main(words) == 0
    assert not {"torch_ttt.engine.tent_engine", "torchvision"} & (set(sys.modules) - before)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:3] for line in lines] == [
        ["torch-ttt", "compact", "tent"],
        ["torch-ttt", "compact", "eata"],
    ]
    for *_, moved, apart in lines:
        assert float(moved) < 1e-9  # theirs stands still
        assert float(apart) > 0.1  # and ours does not


def test_a_folder_without_checkouts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main([f"peers={tmp_path}"]) == 2
    assert "has no checkout of test-time-adaptation" in capsys.readouterr().err
