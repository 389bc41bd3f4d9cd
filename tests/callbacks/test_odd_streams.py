"""Streams that nobody hopes for: a pixel out of all bounds, images that are no images, a run taken
up in its middle.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.callbacks import CollapseGuard
from holdfast.callbacks.guard.experts import Experts
from holdfast.callbacks.guard.schedule import Glance, Schedule
from holdfast.datamodules import StreamLoader, create_stream
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.candidates import Candidates
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.methods import create_method
from holdfast.tta.repair import largest_pixel, repaired
from tests.callbacks.guard.test_guard import Recorder
from tests.conftest import ACCELERATOR, QUICK, small_network

#: What a batch of ``run`` counts for where a look is of 64 images.
LOOK = 32 / 64
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
    guard.experts.working = "corrected"
    module.use("corrected")
    guard.schedule = Schedule(next_look=12)


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
    config = configure([f"source={source}", *QUICK, "method=tent", "stream.batch_size=32", *words])
    checkpoint = SourceCheckpoint.load(source)
    images = Assembly.of(config, checkpoint).images
    loader = StreamLoader(
        images, create_stream(config.stream.options, images, 0).part(slice(32 * count)), 32
    )
    torch.manual_seed(0)
    module, guard = Assembly.of(config, checkpoint).guarded()
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
    far, expected = (
        {name: one.divergence for name, one in watch.experts.found.items()}
        for watch in (guard, clean)
    )
    assert far == pytest.approx(expected, abs=0.05)
    assert guard.experts.trusted.keys() == clean.experts.trusted.keys()
    [event] = [
        event
        for output in outputs
        for event in output["events"]
        if event["reason"] == "broken_image"
    ]
    assert (event["batch"], event["event"], len(event["ids"])) == (4, "skipped", 1)


def test_views_are_drawn_as_if_a_broken_image_had_come_mended() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 1, 12, 12)
    spoiled = images.clone()
    spoiled[1, 0, 2, 2] = 1e30
    said = []
    for batch in (spoiled, repaired(spoiled)[0]):
        torch.manual_seed(0)
        network = small_network(torch.nn.BatchNorm2d, 4)
        method = create_method("cotta", network, num_classes=4, views=2, threshold=1.0)
        module = AdaptationModule(method, 4)
        module.pause()
        answers = [module.serve({"image": one})["logits"] for one in (batch, images)]
        said.append(torch.cat(answers))
    assert torch.equal(*said)


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
    assert guard.experts.looks == 2 * LOOK, "the first three tell nothing"
    assert all(alarm >= 3 for alarm in guard.alarmed)
    assert all(output["logits"].isfinite().all() for output in outputs)


def test_a_batch_that_batch_statistics_cannot_predict_is_no_reason_to_leave_them(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Candidates.predict

    def without(twins: Candidates, *args: Any) -> dict[str, Any]:
        said = predict(twins, *args)
        return {
            name: value for name, value in said.items() if twins.batches != 6 or name != "batch"
        }

    monkeypatch.setattr(Candidates, "predict", without)
    monkeypatch.setattr(Experts, "best_to_adapt", lambda experts: "batch")
    look = At(5, lambda guard, module: setattr(guard, "schedule", Schedule(5)))
    _, guard, outputs = run(source, "guard.tuned.longest=1", count=7, also=look)
    assert [output["choice"] for output in outputs] == ["batch"] * 7
    assert guard.resets == []
    assert all(output["logits"].isfinite().all() for output in outputs)


class Leading:
    """Makes statistics lead from a batch on, and look at every batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, leads: dict[int, tuple[str, str]]) -> None:
        def now(experts: Experts) -> tuple[str, str]:
            return leads[max(look for look in leads if (look + 1) * LOOK <= experts.looks)]

        monkeypatch.setattr(Experts, "leads", lambda experts: now(experts)[0])
        monkeypatch.setattr(Experts, "best_to_adapt", lambda experts: "batch")
        monkeypatch.setattr(
            Experts,
            "trusted",
            property(lambda experts: {now(experts)[1]: 1.0} if experts.looks else {}),
        )


def test_a_change_of_statistics_ends_what_was_measured_under_the_old_ones(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Experts, "leads", lambda experts: "adapted leads")
    monkeypatch.setattr(
        Experts,
        "best_to_adapt",
        lambda experts: "batch" if experts.looks < 5 * LOOK else "corrected",
    )
    kept: list[Any] = []

    class Kept(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            guard = next(c for c in trainer.callbacks if isinstance(c, CollapseGuard))  # type: ignore[attr-defined]
            kept.append((dict(guard.memory.sums), guard.memory.peak, guard.health._counts))

    words = ("data.target=scanner_a", "guard.tuned.longest=1")  # where the source knows all classes
    module, _, outputs = run(source, *words, count=7, also=Kept())
    assert [output["choice"] for output in outputs] == ["batch"] * 5 + ["corrected"] * 2
    assert module.twins is not None
    assert module.twins.current == "corrected"
    assert kept[3][2] is not None
    assert kept[4][2] is None, "the comparison starts afresh"
    assert kept[5][2].sum() == 2 * 32


def test_an_episode_starts_from_the_source_while_updates_rest_as_well(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Experts, "leads", lambda experts: "adapted leads")  # it learns at once

    def rest(guard: CollapseGuard, module: AdaptationModule) -> None:
        assert module.has_learned
        guard.memory = replace(guard.memory, mode="resting", resting=4)
        module.pause(True)

    module, _, _ = run(source, "method.episodic=true", "method.lr=0.1", count=3, also=At(2, rest))
    for name, value in module.method.adapted_state().items():
        assert torch.equal(value, module.method.source_values[name])


def test_nor_do_corrected_statistics_take_them_in_to_serve_along(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    predict = Candidates.predict

    def counted(twins: Candidates, *args: Any) -> dict[str, Any]:
        asked.append(now[0])
        return predict(twins, *args)

    def spoil(index: int, batch: dict[str, Any]) -> None:
        now[0] = index
        if index == 4:
            batch["image"][:20] = float("nan")

    now = [0]
    monkeypatch.setattr(Candidates, "predict", counted)
    monkeypatch.setattr(CollapseGuard, "_glance", lambda guard, numbers: Glance(True, False))
    monkeypatch.setattr(Experts, "leads", lambda experts: "none leads")
    even = {"source": 1 / 3, "batch": 1 / 3, "corrected": 1 / 3}
    monkeypatch.setattr(Experts, "trusted", property(lambda experts: even if experts.looks else {}))
    wait = At(3, lambda guard, module: setattr(guard, "schedule", Schedule(12)))
    _, _, outputs = run(source, spoil=spoil, count=6, also=wait)
    assert [output["served_by"] for output in outputs[:4]] == ["mixture"] * 4
    assert (outputs[4]["skipped"], outputs[4]["served_by"]) == ("broken_image", "control")
    assert outputs[4]["logits"].isfinite().all()
    assert outputs[5]["served_by"] == "mixture"
    assert 4 not in asked


@pytest.mark.parametrize("method", ["norm", "tent"])
def test_where_the_source_leads_it_serves_and_what_was_learned_waits(
    source: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Leading(
        monkeypatch,
        {
            0: ("adapted leads", "batch"),
            4: ("source leads", "source"),
            7: ("adapted leads", "batch"),
        },
    )
    states: list[dict[str, torch.Tensor]] = []

    class States(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
            state = module.method.adapted_state()
            states.append({name: value.clone() for name, value in state.items()})

    _, guard, outputs = run(
        source, f"method={method}", "guard.tuned.longest=1", count=10, also=States()
    )
    modes = ["adapting"] * 4 + ["holding"] * 3 + ["adapting"] * 3
    assert [output["mode"] for output in outputs] == modes
    assert [output["served_by"] for output in outputs[4:7]] == ["source"] * 3
    assert {output["verdict"] for output in outputs[4:7]} == {"WATCH"}
    same = [all(torch.equal(a[k], b[k]) for k in a) for a, b in pairwise(states)]
    assert all(same[4:7]), "updates wait"
    assert method == "norm" or not any(same[:4] + same[8:])
    assert guard.resets == []


@pytest.mark.parametrize(("longest", "looks"), [(1, 10), (32, 4)])
def test_a_control_whose_statistics_move_sees_what_the_adapted_model_sees(
    source: Path, longest: int, looks: int
) -> None:
    _, _, outputs = run(
        source,
        "method.normalization=robust",
        "method.optimizer=sgd",
        "method.lr=1e-7",
        f"guard.tuned.longest={longest}",
        count=15,
    )
    found = [output["statistics"] for output in outputs if output["statistics"].get("R")]
    assert len(found) > looks
    assert all(row["R"] == pytest.approx(1, abs=1e-3) and row["drift"] == 0 for row in found)
    assert not [e for output in outputs for e in output["events"] if e["event"] == "correction"]


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
    monkeypatch.setattr(CollapseGuard, "_glance", lambda guard, numbers: Glance(True, False))
    _, _, expected = run(source, count=12, also=SaveAt(tmp_path / "mid.ckpt"))
    _, guard, outputs = run(source, count=12, ckpt_path=tmp_path / "mid.ckpt", weights_only=False)
    assert guard.batch == 12
    assert [output["choice"] for output in outputs] == ["corrected"] * len(outputs)
    for output, straight in zip(outputs, expected[-len(outputs) :], strict=True):
        torch.testing.assert_close(output["logits"], straight["logits"])
