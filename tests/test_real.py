"""The promises on real images; minutes long, and only where the images are."""

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.programs import adapt, train
from tests.conftest import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.real]


def score(source: Path, output: Path, *words: str) -> dict[str, Any]:
    assert adapt.main([f"source={source}", f"output={output}", *QUICK, *words]) == 0
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return metrics


def test_nuclei(data_folder: Path, tmp_path: Path) -> None:
    nuclei = tmp_path / "source"
    data = ["data=npz", f"data.path={data_folder / 'nuclei_patches.npz'}", "data.source=fluor_256"]
    assert train.main([*QUICK, *data, f"output={nuclei}"]) == 0
    assert json.loads((nuclei / "metrics.json").read_text())["balanced_accuracy"] >= 95
    target = "data.target=fluor_360"
    source = score(nuclei, tmp_path, target, "method=source")["balanced_accuracy"]
    for method in ("tent", "dsbr"):
        guarded = score(nuclei, tmp_path, target, f"method={method}")
        assert guarded["balanced_accuracy"] >= max(96, source)
        assert guarded["resets"] == 0
    skewed = [
        "data.target=fluor_520x696",
        "stream=prevalence",
        "stream.label=0",
        "stream.fraction=0.85",
    ]
    control = score(nuclei, tmp_path, *skewed, "method=norm")
    guarded = score(
        nuclei, tmp_path, *skewed, "method=dsbr", "method.optimizer=adam", "method.lr=1e-2"
    )
    assert guarded["last_quarter"] >= control["last_quarter"] - 2


def test_pneumonia_under_less_contrast(data_folder: Path, tmp_path: Path) -> None:
    data = ["data=npz", f"data.path={data_folder / 'pneumoniamnist.npz'}"]
    source = tmp_path / "source"
    assert train.main([*QUICK, *data, f"output={source}"]) == 0
    harsh = [
        "shift=contrast",
        "stream.passes=10",
        "method=tent",
        "method.optimizer=adam",
        "method.lr=1e-2",
    ]
    unguarded = score(source, tmp_path / "off", *harsh, "guard=off")
    guarded = score(source, tmp_path / "on", *harsh)
    assert guarded["last_quarter"] > unguarded["last_quarter"]
