"""Runs on masks are looked at before they start, and judged again once they are done."""

import json
from pathlib import Path

import pytest
import torch

from holdfast.callbacks.preflight import EXIT
from holdfast.callbacks.replay import main, read_trace
from holdfast.programs import adapt
from holdfast.tta.prediction import Prediction
from holdfast.tta.tasks import Multilabel, Segmentation, Task
from tests.callbacks.guard.test_resume import HARM, MIXED
from tests.conftest import MASKS, QUICK
from tests.test_programs import run_adapt

Capture = pytest.CaptureFixture[str]
#: At a rate that harms at once, and adapting whatever trust says: the order that ``MIXED`` names
#: says nothing of masks, so that batch statistics would never win.
HARM_OF_SOURCE = (*HARM, "method.normalization=source")


@pytest.mark.parametrize("target", ["scanner_a", "scanner_d"])
def test_masks_are_looked_at_in_pixels(
    mask_source: Path, tmp_path: Path, capsys: Capture, target: str
) -> None:
    words = [f"source={mask_source}", f"output={tmp_path}", *QUICK, *MASKS, "stream.batch_size=8"]
    status = adapt.main([*words, f"data.target={target}", "preflight=only", "preflight.images=16"])
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "preflight.json").read_text())
    assert status == EXIT[found["advice"]]
    assert told.startswith(found["advice"])
    assert "of the pixels are less certain" in told
    assert found["views"].keys() == {"source", "batch"}
    source = found["views"]["source"]
    assert sum(source["marginal"]) == pytest.approx(1)
    home = target == "scanner_a"
    assert (source["unsure"] < 0.15 and source["drift"] < 0.1) == home
    assert sum(view["share"] for view in found["views"].values()) == pytest.approx(1)


@pytest.mark.parametrize(("words", "alarms"), [(MIXED, False), (HARM_OF_SOURCE, True)])
def test_a_run_on_masks_replays_to_its_own_verdicts(
    mask_source: Path, tmp_path: Path, capsys: Capture, words: tuple[str, ...], alarms: bool
) -> None:
    run = [*MASKS, "method=tent", "method.optimizer=adam", "stream.batch_size=4", *words]
    run_adapt(mask_source, tmp_path, *run, "predictions.masks=false")
    rows = read_trace(tmp_path / "trace.csv")
    assert ("ALARM" in {row["verdict"] for row in rows}) == alarms
    capsys.readouterr()
    assert main([str(tmp_path)]) == 0
    assert f"0 of {len(rows)} verdicts differ." in capsys.readouterr().out


@pytest.mark.parametrize("task", [Segmentation(3), Multilabel(3)])
def test_answers_to_some_images_are_those_of_the_others_left_out(task: Task) -> None:
    shape = (4, 3, 8, 8) if task.dense else (4, 3)
    output, features = torch.rand(shape), torch.rand(4, 5, *shape[2:])
    keep = torch.tensor([True, False, True, True])
    said = task.rows(output, features)._replace(doubt=torch.arange(4.0)).of_images(keep)
    alone = task.rows(output[keep], features[keep])._replace(doubt=torch.tensor([0.0, 2, 3]))
    for found, expected in zip(said, alone, strict=True):
        assert (found is None and expected is None) or torch.equal(found, expected)
    plain = Prediction(torch.rand(4, 3), torch.rand(4, 5)).of_images(keep)
    assert (len(plain.logits), len(plain.features), plain.output) == (3, 3, None)
