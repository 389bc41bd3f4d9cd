"""Streams that nobody hopes for: a pixel out of all bounds, images that are no images, a run taken
up in its middle.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from callbacks.choice import Choice
from callbacks.duty import Duty
from callbacks.rest import Rest
from lightning import Callback, LightningModule, Trainer

import adapt
from callbacks import CollapseGuard
from datamodules import StreamLoader, create_stream
from tests.callbacks.guard.test_guard import Recorder
from tests.conftest import ACCELERATOR, QUICK
from tta.adaptation import AdaptationModule
from tta.candidates import Candidates
from tta.checkpoint import SourceCheckpoint
from tta.repair import largest_pixel, repaired

Spoil = Callable[[int, dict[str, Any]], None]


class At(Callback):
    """Does something to guard and module before a batch."""

    def __init__(self, index: int, act: Callable[[CollapseGuard, AdaptationModule], None]) -> None:
        self.index, self.act = index, act

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int
    ) -> None:
        if index == self.index:
            guard = next(
                callback for callback in trainer.callbacks if isinstance(callback, CollapseGuard)
            )  # type: ignore[attr-defined]
            assert isinstance(pl_module, AdaptationModule)
            self.act(guard, pl_module)


def put_corrected_in_use(guard: CollapseGuard, module: AdaptationModule) -> None:
    """Corrected statistics are in use, and no look comes for a while."""
    guard.choice.current = "corrected"
    module.use("corrected")
    guard.duty = Duty(12, 12, 0)


class Spoilt:
    """A stream whose batches are spoilt as they come."""

    def __init__(self, loader: StreamLoader, spoil: Spoil) -> None:
        self.loader, self.spoil = loader, spoil

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index, batch in enumerate(self.loader):
            self.spoil(index, batch)
            yield batch


def run(
    source: Path,
    *words: str,
    count: int = 16,
    spoil: Spoil | None = None,
    also: Callback | None = None,
    **fit: Any,
) -> tuple[AdaptationModule, CollapseGuard, list[dict[str, Any]]]:
    """An adaptation by tent to the first batches of a stream, and their outputs."""
    config = adapt.configure(
        [f"source={source}", *QUICK, "method=tent", "stream.batch_size=32", *words]
    )
    checkpoint = SourceCheckpoint.load(source)
    images = adapt.target_images(config, checkpoint)
    loader = StreamLoader(
        images, create_stream(config.stream.options, images, 0).part(slice(32 * count)), 32
    )
    torch.manual_seed(0)
    module, guard, _ = adapt.create_module(config, checkpoint)
    assert isinstance(guard, CollapseGuard)
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=1,
        accelerator=ACCELERATOR,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[guard, recorder, *([also] if also else [])],
    )
    trainer.fit(module, loader if spoil is None else Spoilt(loader, spoil), **fit)
    return module, guard, recorder.outputs


@pytest.mark.parametrize("pixel", [1e5, 1e30, float("inf")])
def test_a_pixel_out_of_all_bounds_is_an_event_and_spoils_nothing(
    source: Path, pixel: float
) -> None:
    def spoil(index: int, batch: dict[str, Any]) -> None:
        if index == 4:
            batch["image"][5, 0, 0, 0] = pixel

    words = ("stream=prevalence", "data.target=scanner_b")
    _, clean, _ = run(source, *words)
    _, guard, outputs = run(source, *words, spoil=spoil)
    assert all(output["logits"].isfinite().all() for output in outputs)
    assert guard.choice.evidence == pytest.approx(clean.choice.evidence, abs=0.05)
    [event] = [
        event
        for output in outputs
        for event in output["events"]
        if event["reason"] == "broken_image"
    ]
    assert (event["batch"], event["event"], len(event["ids"])) == (4, "skipped", 1)


def test_what_counts_as_broken_depends_on_the_sources_range(source: Path) -> None:
    assert 1e3 < largest_pixel(SourceCheckpoint.load(source).build()) < 1e5
    assert largest_pixel(torch.nn.Linear(2, 2)) == 1e9
    images = torch.tensor([[[[1.0, 3.0]]], [[[-4e3, 5.0]]]])
    shown, broken = repaired(images, 1e3)
    assert broken is not None
    assert broken.tolist() == [1]
    assert shown.flatten().tolist() == [1, 3, 3, 5]
    assert repaired(images)[1] is None
    assert repaired(torch.tensor([[[[1.0, float("inf")]]]]).half())[1] is not None


def test_batches_of_broken_images_say_nothing_of_the_statistics(source: Path) -> None:
    def spoil(index: int, batch: dict[str, Any]) -> None:
        if index < 3:
            batch["image"][:20] = float("nan")

    _, guard, outputs = run(source, spoil=spoil, count=5)
    assert [output["skipped"] for output in outputs] == ["broken_image"] * 3 + [None] * 2
    assert guard.choice.looks == 2, "the first three tell nothing"
    assert all(alarm >= 3 for alarm in guard.alarmed)
    assert all(output["logits"].isfinite().all() for output in outputs)


def test_a_batch_that_batch_statistics_cannot_predict_is_no_reason_to_leave_them(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Candidates.predict

    def without(twins: Candidates, *args: Any) -> dict[str, Any]:
        said = predict(twins, *args)
        return (
            {name: value for name, value in said.items() if name != "batch"}
            if twins.batches == 6
            else said
        )

    monkeypatch.setattr(Candidates, "predict", without)
    monkeypatch.setattr(
        Choice, "preferred", lambda choice, names: "batch" if "batch" in names else "source"
    )
    look = At(5, lambda guard, module: setattr(guard, "duty", Duty(5, 5, 0)))
    _, guard, outputs = run(
        source,
        "guard.alarm_lead=1000",
        "guard.alarm_doubt=1000",
        "guard.longest=1",
        count=7,
        also=look,
    )
    assert [output["choice"] for output in outputs] == ["batch"] * 7
    assert guard.resets == []


def test_a_change_of_statistics_ends_what_was_measured_under_the_old_ones(source: Path) -> None:
    def change(guard: CollapseGuard, module: AdaptationModule) -> None:
        guard.rest = Rest(left=4, sound=1, shift=torch.tensor([1.0, -1.0, 0.0, 0.0]))
        guard._use(module, "corrected", others=True)
        assert (guard.rest.left, guard.rest.sound, guard.rest.shift) == (4, 0, None)

    run(source, count=4, also=At(2, change))


def test_an_episode_starts_from_the_source_while_updates_rest_as_well(source: Path) -> None:
    def rest(guard: CollapseGuard, module: AdaptationModule) -> None:
        assert module.has_learned
        guard.rest = Rest(left=4)
        module.pause(True)

    module, _, _ = run(source, "method.episodic=true", "method.lr=0.1", count=3, also=At(2, rest))
    for name, value in module.method.adapted_state().items():
        assert torch.equal(value, module.method._source[name])


def test_nor_are_they_asked_to_serve_along(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def along(guard: CollapseGuard, module: Any, batch: Any) -> dict[str, Any]:
        asked.append(guard.batch)
        return {}

    def spoil(index: int, batch: dict[str, Any]) -> None:
        if index == 4:
            batch["image"][:20] = float("nan")

    monkeypatch.setattr(CollapseGuard, "_along", along)
    monkeypatch.setattr(CollapseGuard, "_hurry", lambda guard, counts: None)
    _, _, outputs = run(
        source,
        spoil=spoil,
        count=6,
        also=At(3, lambda guard, module: setattr(guard, "duty", Duty(12, 12, 0))),
    )
    assert asked == [3, 5]
    assert (outputs[4]["skipped"], outputs[4]["served_by"]) == ("broken_image", "control")
    assert outputs[4]["logits"].isfinite().all()


@pytest.mark.parametrize(("method", "resets"), [("norm", []), ("tent", [4])])
def test_back_to_the_source_is_a_reset_where_something_was_learned(
    source: Path, method: str, resets: list[int]
) -> None:
    def go_back(guard: CollapseGuard, module: AdaptationModule) -> None:
        guard._use(module, "source", others=True)
        assert guard.holding
        assert guard.resets == resets
        event = guard._choice_event(
            "choice", "evidence", "The source statistics suit the stream best."
        )
        assert ("what was learned is undone" in event["message"]) == bool(resets)

    run(source, f"method={method}", count=5, also=At(4, go_back))


def test_a_control_whose_statistics_move_sees_what_the_adapted_model_sees(source: Path) -> None:
    _, _, outputs = run(
        source, "method.normalization=robust", "method.optimizer=sgd", "method.lr=1e-7", count=15
    )
    found = [output["statistics"] for output in outputs if output["statistics"]["R"] is not None]
    assert len(found) > 10
    assert all(row["R"] == pytest.approx(1, abs=1e-3) and row["drift"] == 0 for row in found)
    corrections = {event.get("correction") for output in outputs for event in output["events"]}
    assert corrections <= {None, "statistics", "hedge"}, (
        "of the statistics in use there may be doubt, of the model none"
    )


class SaveAt(At):
    """And leaves a checkpoint in the middle of that."""

    def __init__(self, path: Path) -> None:
        super().__init__(5, put_corrected_in_use)
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if args[-1] == 7:
            trainer.save_checkpoint(self.path)


def test_a_run_that_is_taken_up_goes_on_under_the_statistics_in_use(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CollapseGuard, "_hurry", lambda guard, counts: None)
    _, _, expected = run(source, count=12, also=SaveAt(tmp_path / "mid.ckpt"))
    _, guard, outputs = run(source, count=12, ckpt_path=tmp_path / "mid.ckpt", weights_only=False)
    assert guard.batch == 12
    assert [output["choice"] for output in outputs] == ["corrected"] * len(outputs)
    for output, straight in zip(outputs, expected[-len(outputs) :], strict=True):
        torch.testing.assert_close(output["logits"], straight["logits"])
