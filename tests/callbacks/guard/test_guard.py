"""The guard on real trainers: planted collapse, label shift, broken batches, a user's own
module.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from callbacks import CollapseGuard, GuardConfig
from tests.conftest import ACCELERATOR
from tta.adaptation import AdaptationModule
from tta.errors import InputError
from tta.methods import Prediction, create_method
from tta.metrics import balanced_accuracy

CLASSES = ("a", "b", "c")


class Features(nn.Module):
    """Two features a class, normalised and classified: a network whose weights can be harmed at
    will.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3).repeat_interleave(2, 1))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.flatten(1)))


def batches(
    count: int, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3), size: int = 64
) -> list[dict[str, Any]]:
    rng = torch.Generator().manual_seed(0)
    result = []
    for _ in range(count):
        labels = torch.multinomial(torch.tensor(shares), size, replacement=True, generator=rng)
        centers = 3 * torch.eye(3).repeat_interleave(2, 1)
        images = (centers[labels] + torch.randn(size, 6, generator=rng))[:, None, None, :]
        ids = [str(i) for i in range(size)]
        result.append(
            {
                "image": images,
                "label": labels,
                "id": ids,
                "domain": ["x"] * size,
                "index": torch.arange(size),
            }
        )
    return result


class Recorder(Callback):
    """Keeps the outputs of every batch, on the CPU."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.outputs.append(move_data_to_device(args[2], "cpu"))


class Harm(Callback):
    """From a batch on, pulls the adapted weights to where all classes look alike."""

    def __init__(self, start: int) -> None:
        self.start = start

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if index >= self.start and not module.paused:
            with torch.no_grad():
                weight = module.method.adapted["norm.weight"]
                weight.lerp_(weight.new_tensor([1.0, 0, 0, 0, 0, 0]), 0.5)


def run(
    stream: Any,
    *callbacks: Callback,
    method: str = "tent",
    config: GuardConfig | None = None,
    model: nn.Module | None = None,
    classes: Sequence[str] = CLASSES,
    accelerator: str = ACCELERATOR,
    **more: Any,
) -> Any:
    torch.manual_seed(0)
    adapted = create_method(method, model or Features(), num_classes=len(classes), **more)
    guard, recorder = CollapseGuard(classes, config), Recorder()
    module = AdaptationModule(adapted, batch_size=64)
    trainer = Trainer(
        max_epochs=1,
        accelerator=accelerator,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, guard, recorder],
    )
    trainer.fit(module, torch.utils.data.DataLoader(stream, batch_size=None))
    return module, guard, recorder.outputs


def test_a_planted_collapse_is_caught_reset_and_not_served() -> None:
    module, guard, outputs = run(batches(90), Harm(start=20), lr=1e-5)
    first = next(i for i, output in enumerate(outputs) if output["verdict"] == "ALARM")
    assert 20 <= first <= 30
    assert outputs[first]["served_by"] == "control"
    assert {event["event"] for event in outputs[first]["events"]} == {"verdict", "correction"}
    torch.testing.assert_close(
        outputs[first]["logits"], module.method.control(batches(90)[first]["image"]).logits
    )
    rungs = [
        event["correction"]
        for output in outputs
        for event in output["events"]
        if event["event"] == "correction"
    ]
    assert rungs == list(guard.config.ladder)  # the harm came back after every correction
    assert guard.memory.frozen
    assert len(guard.resets) == 2  # the last two rungs
    served = [output["served_by"] for output in outputs[first : first + guard.config.rest]]
    assert served == ["control"] * 3 + ["adapted"] * 5, (
        "half restored and at rest, it serves after two checks that clear it"
    )
    assert [output["checked"] for output in outputs[first : first + 9]] == [True] * 3 + [False] * 6
    assert outputs[-1]["verdict"] == "FROZEN"
    assert outputs[-1]["served_by"] == "control"


def test_a_pause_is_no_new_alarm_on_every_batch_and_serves_what_it_says() -> None:
    _, guard, outputs = run(
        batches(60), Harm(start=20), lr=1e-5, config=GuardConfig(ladder=["pause"])
    )
    assert len(guard.alarmed) > 2
    assert min(later - earlier for earlier, later in pairwise(guard.alarmed)) > guard.config.rest
    first = guard.alarmed[0]
    served = [output["served_by"] for output in outputs[first : first + guard.config.rest]]
    assert served == ["control"] + ["adapted"] * (guard.config.rest - 1)


def test_a_model_that_a_correction_leaves_harmed_serves_when_two_checks_in_a_row_clear_it() -> None:
    class Wound(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, module: Any, batch: Any, index: int
        ) -> None:
            if index >= 20:
                module.method.adapted["norm.weight"].data.copy_(
                    torch.tensor([1.0, 1.0, 0.5, 0.5, 0.0, 0.0])
                )

    # A larger number of samples leaves R undefined for two checks after the correction: those clear
    # nothing.
    for config, unknown in (
        (GuardConfig(ladder=["slow"]), 0),
        (GuardConfig(ladder=["slow"], min_count=40), 2),
    ):
        _, guard, outputs = run(batches(45), Wound(), lr=1e-5, config=config)
        rest = outputs[guard.alarmed[0] : guard.alarmed[0] + guard.config.rest]
        sound = [
            output["verdict"] == "OK" and output["statistics"]["R"] is not None for output in rest
        ]
        cleared = next(i for i in range(1, len(rest)) if all(sound[i : i + 2])) + 2
        served = ["control"] * cleared + ["adapted"] * (len(rest) - cleared)
        assert [output["served_by"] for output in rest] == served[: len(rest)]
        assert all(output["checked"] for output in rest[:cleared])
        assert [output["statistics"]["R"] is None for output in rest[1:3]] == [unknown > 0] * 2


def test_a_run_taken_up_in_the_middle_of_a_rest_goes_on_resting() -> None:
    module, guard, _ = run(batches(30), Harm(start=20), lr=1e-5)
    assert guard.rest.left
    later = CollapseGuard(CLASSES)
    later.load_state_dict(guard.state_dict())
    module.pause(False)
    later.on_fit_start(None, module)  # type: ignore[arg-type]
    assert module.paused


def test_a_planted_collapse_is_caught_before_five_points_are_lost() -> None:
    stream = batches(60)
    module, guard, outputs = run(stream, Harm(start=20), lr=1e-5)
    until = slice(guard.alarmed[0] + 1)
    labels = torch.cat([batch["label"] for batch in stream[until]])
    served = torch.cat([output["logits"] for output in outputs[until]]).argmax(1)
    control = torch.cat(
        [module.method.control(batch["image"]).logits for batch in stream[until]]
    ).argmax(1)
    lost = balanced_accuracy(control, labels, 3) - balanced_accuracy(served, labels, 3)
    assert lost < 5
    alone = create_method("tent", Features(), num_classes=3)
    alone.adapted["norm.weight"].data.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0]))
    left = alone(stream[0]["image"]).argmax(1)
    assert balanced_accuracy(left, stream[0]["label"], 3) < 70, (
        "where the harm leads to, if nobody stops it"
    )


@pytest.mark.parametrize("order", ["one class", "blocks"])
def test_one_class_for_good_or_class_after_class_raises_no_alarm(order: str) -> None:
    one = [(1.0, 0.0, 0.0)] * 30
    after = [tuple(float(c == i // 10) for c in range(3)) for i in range(30)]
    stream = [
        batches(i + 1, shares)[i] for i, shares in enumerate(one if order == "one class" else after)
    ]
    _, guard, outputs = run(stream, lr=1e-3)
    assert (guard.alarms, guard.resets) == (0, [])
    assert all(output["logits"].isfinite().all() for output in outputs)


def test_a_thousand_classes() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 1000)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x.flatten(1)))

    class Merge(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, module: Any, batch: Any, index: int
        ) -> None:
            if index >= 16:
                module.method.adapted["norm.bias"].data.copy_(
                    50 * module.method.model.head.weight[7]
                )

    rng = torch.Generator().manual_seed(0)
    stream = batches(24)
    for batch in stream:
        batch["image"] = torch.randn(64, 1, 1, 64, generator=rng)
    names = [f"class {c}" for c in range(1000)]
    _, guard, outputs = run(stream, model=Many(), classes=names, lr=1e-5)
    assert guard.alarms == 0
    assert [index for index, output in enumerate(outputs) if output["checked"]] == [
        0,
        1,
        2,
        3,
        5,
        8,
        12,
        18,
    ]
    assert all(
        output["statistics"]["drift"] <= 0.1
        for output in outputs
        if output["checked"] and output["statistics"]["drift"]
    )
    _, guard, outputs = run(stream, Merge(), model=Many(), classes=names, lr=1e-5)
    assert 16 <= guard.alarmed[0] <= 19, (
        "one answer for everybody, though no class was common enough to vanish by itself"
    )
    message = next(
        event["message"]
        for event in outputs[guard.alarmed[0]]["events"]
        if event["event"] == "verdict"
    )
    assert "others; the control does" in message


@pytest.mark.parametrize("method", ["source", "norm"])
@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.9, 0.05, 0.05), (1.0, 0.0, 0.0)])
def test_no_alarm_on_what_does_not_learn(method: str, shares: tuple[float, ...]) -> None:
    _, guard, outputs = run(batches(30, shares), method=method)
    assert guard.alarms == 0
    assert {output["verdict"] for output in outputs} == {"OK"}


def test_pure_label_shift_never_resets() -> None:
    stream = [*batches(30), *batches(30, (0.9, 0.05, 0.05))]
    _, guard, _ = run(stream, lr=1e-3)
    assert guard.resets == []


def test_the_control_runs_ever_more_rarely_while_the_stream_is_calm() -> None:
    calls: list[int] = []

    class Counter(Callback):
        def on_fit_start(self, trainer: Trainer, module: Any) -> None:
            self.control = module.control

        def on_train_batch_start(
            self, trainer: Trainer, module: Any, batch: Any, index: int
        ) -> None:
            module.control = lambda batch: calls.append(index) or self.control(batch)

    run(batches(38), Counter(), lr=1e-5)
    assert calls == [0, 1, 2, 3, 5, 8, 12, 18, 27]  # after half of the time so far


def test_after_a_jump_the_next_batch_is_checked_and_then_as_planned() -> None:
    calm, jump = batches(76, (0.9, 0.05, 0.05)), batches(1, (0.05, 0.9, 0.05))
    _, guard, outputs = run([*calm[:40], *jump, *calm[41:]], lr=1e-6)
    assert guard.alarms == 0
    assert [index for index, output in enumerate(outputs) if output["checked"]][-4:] == [
        27,
        40,
        41,
        60,
    ]


def test_broken_short_and_single_class_batches_are_served_by_the_control_and_logged() -> None:
    stream = batches(6)
    stream[1]["image"][5, 0, 0, 2] = math.nan
    stream[3] = batches(4, (0.0, 1.0, 0.0))[3]
    stream[5] = {key: value[:10] for key, value in stream[5].items()}
    _, _, outputs = run(stream, lr=1e-2)
    assert [output["skipped"] for output in outputs] == [
        None,
        "broken_image",
        None,
        "single_class",
        None,
        "short_batch",
    ]
    for index in (1, 3, 5):
        assert outputs[index]["served_by"] == "control"
        assert outputs[index]["logits"].isfinite().all()
        assert outputs[index]["events"][0]["event"] == "skipped"
        assert "loss" not in outputs[index]
    assert outputs[1]["events"][0]["ids"] == ["5"]


def test_non_finite_weights_raise_the_alarm_at_once() -> None:
    class Poison(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, module: Any, batch: Any, index: int
        ) -> None:
            if index == 5:
                module.method.adapted["norm.weight"].data.fill_(math.nan)

    _, guard, outputs = run(batches(12), Poison())
    assert outputs[5]["verdict"] == "ALARM"
    assert all(output["logits"].isfinite().all() for output in outputs)
    assert guard.resets == [5]


def test_state_goes_on_exactly() -> None:
    stream = batches(24)
    _, straight, expected = run(
        stream, Harm(12), lr=1e-3, accelerator="cpu"
    )  # as below, to the last bit
    resumed = CollapseGuard(CLASSES)
    module, _, _ = run([], lr=1e-3)
    halves: list[dict[str, Any]] = []
    harm = Harm(12)
    for index, batch in enumerate(stream):
        if index == 10:  # as if the process had been killed here
            state = resumed.state_dict()
            resumed = CollapseGuard(CLASSES)
            resumed.load_state_dict(state)
        harm.on_train_batch_start(None, module, batch, index)  # type: ignore[arg-type]
        outputs = step(module, batch, index)
        resumed.on_train_batch_end(None, module, outputs, batch, index)  # type: ignore[arg-type]
        halves.append(outputs)
    assert [o["verdict"] for o in halves] == [o["verdict"] for o in expected]
    assert [o["statistics"] for o in halves] == [o["statistics"] for o in expected]
    assert resumed.state_dict()["resets"] == straight.resets


def test_what_a_checkpoint_gave_follows_the_module_to_its_device() -> None:
    _, guard, _ = run(batches(14), Harm(8), lr=1e-3, config=GuardConfig(ladder=["pause"]))
    guard.choice.hear({"batch": Prediction(torch.randn(64, 3), torch.randn(64, 6))})
    taken_up = CollapseGuard(CLASSES, guard.config)
    taken_up.load_state_dict(guard.state_dict())
    module, _, _ = run([], lr=1e-3)
    taken_up.on_fit_start(None, module.to("meta"))  # type: ignore[arg-type]
    found: list[Tensor] = []
    apply_to_collection(taken_up.state_dict(), Tensor, found.append)
    assert len(found) > 9
    assert {value.device.type for value in found} == {"meta"}


def step(module: AdaptationModule, batch: Any, index: int) -> dict[str, Any]:
    """A training step outside a trainer."""
    method = module.method
    assert method.optimizer is not None
    method.backward, method.step = Tensor.backward, method.optimizer.step
    with torch.enable_grad():
        return module.training_step(batch, index)


def test_a_module_of_the_users_own() -> None:
    class Own(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net, self.twin = Features(), Features()
            self.held = False

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.net.norm.parameters(), lr=0.5)

        def training_step(self, batch: Any, index: int) -> dict[str, Tensor]:
            features = self.net.norm(batch["image"].flatten(1))
            logits = self.net.head(features)
            if not self.held:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(features.square().mean())  # pulls all features together
                optimizer.step()
            return {"logits": logits.detach(), "features": features.detach()}

        def control(self, batch: Any) -> Prediction:
            with torch.no_grad():
                features = self.twin.norm(batch["image"].flatten(1))
                return Prediction(self.twin.head(features), features)

        def reset(self) -> None:
            self.net.load_state_dict(self.twin.state_dict())

        def pause(self, paused: bool = True) -> None:
            self.held = paused

    guard = CollapseGuard(CLASSES)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=1, accelerator=ACCELERATOR, callbacks=[guard], **quiet)
    trainer.fit(Own(), torch.utils.data.DataLoader(batches(40), batch_size=None))
    assert guard.batch == 40


def test_a_module_that_cannot_be_guarded_is_told_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"control\(batch\), reset\(\) and pause"):
        CollapseGuard(CLASSES).on_fit_start(None, LightningModule())  # type: ignore[arg-type]


def test_names_and_shapes_that_do_not_fit_are_told() -> None:
    said = {"logits": torch.zeros(4, 3), "features": torch.zeros(4, 6)}
    with pytest.raises(InputError, match="2 class names where logits have 3 columns"):
        CollapseGuard(CLASSES[:2]).on_train_batch_end(None, None, said, None, 0)  # type: ignore[arg-type]
    said["features"] = torch.zeros(4, 6, 1, 1)
    guard = CollapseGuard(CLASSES)
    with pytest.raises(
        InputError, match=r"features of training_step have shape \(4, 6, 1, 1\): flatten them"
    ):
        guard.on_train_batch_end(None, None, said, None, 0)  # type: ignore[arg-type]

    class Bare:
        def control(self, batch: Any) -> Any:
            return torch.zeros(4, 3)

    said["features"] = torch.zeros(4, 6)
    with pytest.raises(InputError, match="control that returns a Prediction"):
        guard.on_train_batch_end(None, Bare(), said, None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        {"patience": 0},
        {"ladder": []},
        {"ladder": ["rest"]},
        {"decay": 1.0},
        {"watch_ratio": -1.0},
        {"min_count": 1.0},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="guard"):
        GuardConfig(**bad)
