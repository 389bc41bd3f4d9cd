"""Two real processes adapt one model: moments are those of all images, and what one sees both act
on.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from holdfast.callbacks import CollapseGuard
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.heard import Asked
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.candidates import Candidates
from holdfast.tta.distributed import (
    any_of_all,
    batch_of_all,
    every,
    every_of,
    mean_of_all,
    place,
    rows_of_all,
    skipped_by_all,
    total_of_all,
)
from holdfast.tta.errors import ProcessLost
from holdfast.tta.methods import Prediction, create_method
from holdfast.tta.processes import together
from tests.callbacks.guard.test_guard import CLASSES, Features, Recorder, batches
from tests.conftest import ROOT, small_network

CPU = torch.device("cpu")
#: Status of the process that says that the other is gone.
_TOLD = 7


class Part(torch.utils.data.IterableDataset[dict[str, Any]]):
    """What a process gets of every batch; the second has a broken image in one, and a single class
    in another.
    """

    def __iter__(self) -> Any:
        rank, size = place()
        for index, batch in enumerate(batches(40)):
            part = {key: value[rank::size] for key, value in batch.items()}
            if rank == 1 and index == 9:
                part["image"][3] = float("nan")
            if rank == 1 and index == 25:
                part["image"] = part["image"][:1].expand_as(part["image"]).clone()
            yield part


class HarmOne(Callback):
    """From batch 12 on, what the second process measures of the adapted model has all classes in
    one place.
    """

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if index >= 12 and trainer.global_rank == 1 and not module.paused:
            outputs["features"] = outputs["features"] * 0.01


def work(folder: Path) -> None:
    """What each process does; it leaves what it found in a file of its own."""
    torch.manual_seed(0)
    method = create_method("tent", Features(), num_classes=3, lr=1e-3)
    guard, recorder = CollapseGuard(CLASSES), Recorder()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        callbacks=[HarmOne(), guard, recorder],
        **quiet,
    )
    trainer.fit(
        AdaptationModule(method, batch_size=64),
        torch.utils.data.DataLoader(Part(), batch_size=None),
    )
    rank, _ = place()
    # What the control says counts for all images, whoever holds them.
    balanced = create_method("dsbr", Features(), num_classes=3, target_prior="estimated")
    balanced.hear_control(
        Prediction(torch.eye(3)[[0] * 6 if rank == 0 else [1, 2]], torch.zeros(8 - 2 * rank, 6))
    )
    # The pure helpers, on numbers that are known.
    values = torch.arange(24.0).reshape(8, 3) ** 2
    labels = torch.tensor([0, 1, 0, 2, 2, 0, 1, 0])
    mine = slice(0, 3) if rank == 0 else slice(3, 8)
    (mean,), count = mean_of_all([values[mine].mean(0)], len(labels[mine]))
    (lonely,), _ = mean_of_all([values[:0].mean(0) if rank else values.mean(0)], 0 if rank else 8)
    torch.save(
        {
            "verdicts": [output["verdict"] for output in recorder.outputs],
            "modes": [output["mode"] for output in recorder.outputs],
            "statistics": [output["statistics"] for output in recorder.outputs],
            "skipped": [output["skipped"] for output in recorder.outputs],
            "resets": guard.resets,
            "alarmed": guard.alarmed,
            "estimate": balanced.estimate,
            "weights": method.adapted_state(),
            "mean": [mean, values.mean(0), lonely, values.mean(0)],
            "count": count,
            "rows": [rows_of_all(values[mine]), values],
            "asked": [
                tuple(Asked(rows[:, :2], rows, rows[:, 0], rows[:, 1]).of_all()[:4])
                for rows in (values[mine], values[mine] if rank == 0 else values[:0])
            ],
            "batch": batch_of_all(
                {"id": ["a", "c", "e"] if rank == 0 else ["b", "d"], "at": values[rank:5:2, 0]}
            ),
            "flags": [
                any_of_all(rank == 1, CPU),
                any_of_all(False, CPU),
                float(total_of_all(torch.tensor(1.0))),
            ],
            "reason": [skipped_by_all("broken" if rank else None, CPU), skipped_by_all(None, CPU)],
        },
        folder / f"{rank}.pt",
    )
    # At last one is gone, and the other has a sentence for it.
    trainer.strategy.barrier()
    if rank == 1:
        os._exit(1)
    try:
        with together():
            total_of_all(values)
    except ProcessLost:
        sys.exit(_TOLD)


@pytest.mark.slow
@pytest.mark.gate
def test_two_processes_act_alike_when_one_collapses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.test_distributed", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == _TOLD, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["verdicts"] == second["verdicts"]
    assert first["modes"] == second["modes"]
    assert first["statistics"] == second["statistics"]
    assert first["resets"] == second["resets"]
    assert first["alarmed"] == second["alarmed"]
    assert first["alarmed"]  # what one process saw was enough
    assert first["alarmed"][0] >= 12
    for found in (first, second):
        torch.testing.assert_close(
            found["estimate"], 0.9 / 3 + 0.1 * torch.tensor([6 / 8, 1 / 8, 1 / 8])
        )
    assert first["weights"].keys() == second["weights"].keys()
    assert all(
        torch.equal(value, second["weights"][name]) for name, value in first["weights"].items()
    )
    skipped = [[bool(reason) for reason in found["skipped"]] for found in (first, second)]
    assert skipped[0] == skipped[1]
    assert (first["skipped"][9], second["skipped"][9]) == ("elsewhere", "broken_image")
    for found in (first, second):
        torch.testing.assert_close(found["mean"][0], found["mean"][1])
        torch.testing.assert_close(found["mean"][2], found["mean"][3])
        assert found["count"] == 8
        torch.testing.assert_close(*found["rows"])
        values = found["rows"][1]
        # Of the second question one process knows nothing.
        for rows, told in zip((values, values[:3]), found["asked"], strict=True):
            for part, expected in zip(
                told, (rows[:, :2], rows, rows[:, 0], rows[:, 1]), strict=True
            ):
                torch.testing.assert_close(part, expected)
        assert found["batch"]["id"] == ["a", "b", "c", "d", "e"]
        assert found["batch"]["at"].tolist() == [0.0, 9.0, 36.0, 81.0, 144.0]
        assert found["flags"] == [True, False, 2.0]
    assert (first["reason"], second["reason"]) == (["elsewhere", None], ["broken", None])


def test_alone_everything_passes_through() -> None:
    values = [torch.randn(3)]
    assert mean_of_all(values, 3) == (values, 3)
    assert rows_of_all(values[0]) is values[0]
    assert place() == (0, 1)
    assert [any_of_all(flag, CPU) for flag in (True, False)] == [True, False]
    assert skipped_by_all("short_batch", CPU) == "short_batch"


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2), (2, 3)])
@pytest.mark.parametrize(("stride", "fewer"), [(1, 1), (1, 4), (4, 4), (2, 6), (3, 6), (2, 40)])
def test_rows_of_a_part_are_found_in_a_larger_part(
    monkeypatch: pytest.MonkeyPatch, rank: int, size: int, stride: int, fewer: int
) -> None:
    monkeypatch.setattr("holdfast.tta.distributed.place", lambda: (rank, size))
    numbers = torch.arange(rank, 25, size)
    larger, part = (every(numbers, each)[0] for each in (stride, fewer))
    found = larger[every_of(stride, fewer, len(numbers), numbers.device)]
    assert found.tolist() == part.tolist() == [n for n in numbers.tolist() if n % fewer == 0]


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.datamodules import StreamLoader
    from holdfast.tta.errors import InputError
    from tests.datamodules.test_streams import images

    target = images()
    order = torch.arange(len(target)).numpy()
    for module in ("holdfast.datamodules.streams.loader", "holdfast.tta.guarded"):
        monkeypatch.setattr(f"{module}.place", lambda: (1, 2))
    with pytest.raises(InputError, match="one process only"):
        next(iter(StreamLoader(target, order, 8, window=8)))
    with pytest.raises(InputError, match="too small for 2 processes"):
        next(iter(StreamLoader(target, order, 3)))
    loader = StreamLoader(target, order, len(target))
    assert next(iter(loader))["index"].tolist() == list(range(1, len(target), 2))
    for method in ("source", "memo"):
        with pytest.raises(InputError, match="one process only"):
            AdaptationModule(create_method(method, Features(), num_classes=3), 64).on_fit_start()


class Choices(torch.utils.data.IterableDataset[dict[str, Any]]):
    """What a process gets of batches in which one class follows another, under a shift in turns."""

    def __iter__(self) -> Any:
        rank, size = place()
        for index in range(36):
            mix = tuple(float(c == index // 6 % 3) for c in range(3)) if index > 11 else None
            batch = batches(index + 1, mix or (1 / 3, 1 / 3, 1 / 3))[index]
            batch["image"] = batch["image"] * (4 if index % 8 > 3 else 1)
            yield {key: value[rank::size] for key, value in batch.items()}


class SpoilOne(Callback):
    """What one process alone says of an image is no number."""

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if index == 20 and trainer.global_rank == 1:
            outputs["logits"] = outputs["logits"].clone()  # of a skipped batch it is the control's
            outputs["logits"][0] = float("nan")


def choose(folder: Path) -> None:
    """What each process does where there is a choice of statistics."""
    torch.manual_seed(0)
    network = small_network(classes=3)
    method = create_method("tent", network, num_classes=3, lr=1e-2, normalization="auto")
    images, labels = batches(1)[0]["image"], batches(1)[0]["label"]
    with torch.no_grad():
        features = method.source(images).features
    groups = [features[labels == label] for label in range(3)]
    source = Reference(
        torch.stack([own.mean(0) for own in groups]), torch.stack([own.var(0) for own in groups])
    )
    guard, recorder = CollapseGuard(CLASSES, reference=source), Recorder()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        callbacks=[SpoilOne(), guard, recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = AdaptationModule(method, batch_size=64, candidates=Candidates(method))
    trainer.fit(module, torch.utils.data.DataLoader(Choices(), batch_size=None))
    said = ("verdict", "mode", "choice", "statistics", "looked", "leads", "served_by", "stands_for")
    torch.save(
        {
            "said": [{key: output[key] for key in said} for output in recorder.outputs],
            "shares": [output.get("shares") for output in recorder.outputs],
            "trusted": guard.experts.trusted,
            "found": {name: list(one) for name, one in guard.experts.found.items()},
            "memory": str(guard.memory),
            "mix": guard.schedule.mix,
            "finite": [bool(output["logits"].isfinite().all()) for output in recorder.outputs],
        },
        folder / f"{place()[0]}.pt",
    )


@pytest.mark.slow
@pytest.mark.gate
def test_two_processes_trust_alike_and_go_on_where_one_has_no_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.test_distributed", str(tmp_path), "choose"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for key in ("said", "shares", "trusted", "found", "memory", "mix"):
        assert first[key] == second[key], key
    assert len(first["said"]) == 36
    assert first["said"][20]["verdict"] == "ALARM"
    assert all(first["finite"] + second["finite"])


if __name__ == "__main__":
    (choose if sys.argv[2:] else work)(Path(sys.argv[1]))
