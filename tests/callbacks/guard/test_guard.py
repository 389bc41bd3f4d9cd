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

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.heard import read_back
from holdfast.callbacks.settings import Tuned
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction, create_method
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.stages import STEPS
from tests.conftest import ACCELERATOR

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
    stream = batches(150)
    module, guard, outputs = run(stream, Harm(start=20), lr=1e-5)
    first, rest = guard.alarmed[0], guard.config.tuned.rest
    assert 20 <= first <= 30
    assert [i for i, output in enumerate(outputs) if output["verdict"] == "ALARM"] == guard.alarmed
    kinds = [event["event"] for event in outputs[first]["events"]]
    assert kinds == ["mode", "verdict", "correction"]
    for alarm in guard.alarmed[:-1]:
        resting = outputs[alarm : alarm + rest + 1]
        assert {output["mode"] for output in resting} == {"resting"}
        assert [output["verdict"] for output in resting[1:]] == ["WATCH"] * rest
    waiting = [i for i, output in enumerate(outputs) if output["mode"] != "adapting"]
    assert len(waiting) > len(guard.config.ladder) * rest
    for index in waiting:  # nothing of the harmed model is served while updates wait
        assert outputs[index]["served_by"] == "control"
        control = module.method.control(stream[index]["image"].to(module.device))
        torch.testing.assert_close(outputs[index]["logits"], control.logits.cpu())
    rungs = [
        event["correction"]
        for output in outputs
        for event in output["events"]
        if event["event"] == "correction"
    ]
    assert rungs == list(guard.config.ladder)  # the harm came back after every correction
    assert guard.memory.mode == "frozen"
    assert guard.resets == guard.alarmed[-2:]  # the last two rungs
    assert outputs[-1]["verdict"] == "FROZEN"
    assert outputs[-1]["served_by"] == "control"


def test_a_pause_is_no_new_alarm_on_every_batch_and_the_control_serves_for_all_of_it() -> None:
    _, guard, outputs = run(
        batches(60), Harm(start=20), lr=1e-5, config=GuardConfig(ladder=["pause"])
    )
    rest = guard.config.tuned.rest
    assert len(guard.alarmed) > 2
    assert min(later - earlier for earlier, later in pairwise(guard.alarmed)) > rest
    first = guard.alarmed[0]
    served = [output["served_by"] for output in outputs[first : first + rest + 1]]
    assert served == ["control"] * (rest + 1)


def test_updates_wait_for_all_of_a_rest_and_what_is_shown_never_says_ok_meanwhile() -> None:
    learned: list[bool] = []

    class Learned(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            learned.append("loss" in args[2])

    _, guard, outputs = run(batches(60), Learned(), Harm(start=20), lr=1e-5)
    assert guard.alarms > 1
    for first in guard.alarmed[:2]:
        rest = slice(first + 1, first + guard.config.tuned.rest + 1)
        assert not any(learned[rest])
        assert {output["verdict"] for output in outputs[rest]} == {"WATCH"}
    for output in outputs:
        assert output["mode"] == "adapting" or output["verdict"] != "OK"


def test_a_run_taken_up_in_the_middle_of_a_rest_goes_on_resting() -> None:
    module, guard, _ = run(batches(30), Harm(start=20), lr=1e-5)
    assert guard.memory.mode == "resting"
    later = CollapseGuard(CLASSES)
    later.load_state_dict(guard.state_dict())
    module.pause(False)
    later.on_stream_start(None, module)  # type: ignore[arg-type]
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
    assert [index for index, output in enumerate(outputs) if output["looked"]] == [
        0,
        1,
        2,
        3,
        4,  # so many classes jump by chance, until what is seen of them has filled up
        6,
        9,
        14,
        21,
    ]
    assert all(
        output["statistics"]["drift"] <= 0.1
        for output in outputs
        if output["looked"] and output["statistics"]["drift"]
    )
    _, guard, outputs = run(stream, Merge(), model=Many(), classes=names, lr=1e-5)
    assert 16 <= guard.alarmed[0] <= 19, (
        "one answer for everybody, though no class was common enough to vanish by itself"
    )
    first = guard.alarmed[0]
    told = [event for event in outputs[first]["events"] if event["event"] == "verdict"]
    assert told[0]["reason"] == "vanished"
    assert {output["served_by"] for output in outputs[first:]} == {"control"}


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
    assert [index for index, output in enumerate(outputs) if output["looked"]][-4:] == [
        27,
        40,
        41,
        62,
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


def test_what_is_remembered_stays_on_the_host_whatever_the_device() -> None:
    _, guard, _ = run(batches(14), lr=1e-3)
    asked = guard.experts.asks({"batch": Prediction(torch.randn(64, 3), torch.randn(64, 6))})
    guard.experts.hear(dict(zip(asked, read_back(asked.values()), strict=True)))
    taken_up = CollapseGuard(CLASSES, guard.config)
    taken_up.load_state_dict(guard.state_dict())
    module, _, _ = run([], lr=1e-3)
    taken_up.on_stream_start(None, module.to("meta"))  # type: ignore[arg-type]
    found: list[Tensor] = []
    apply_to_collection(taken_up.state_dict(), Tensor, found.append)
    assert len(found) > 9
    assert {value.device.type for value in found} == {"cpu"}


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
    class Half(LightningModule):
        def control(self, batch: Any) -> None: ...
        def reset(self) -> None: ...

    class Choosing(Half):
        def pause(self, paused: bool = True) -> None: ...
        def candidates(self, batch: Any) -> None: ...

    for module, told in (
        (LightningModule(), r"CollapseGuard needs control\(\) and reset\(\) and pause\(\) of "),
        (Half(), r"CollapseGuard needs pause\(\) of Half: define them, or use AdaptationModule"),
        (Choosing(), r"candidates\(\) and use\(\), and Choosing has one of them"),
    ):
        for stage in STEPS:
            guard = CollapseGuard(CLASSES)
            trainer = Trainer(logger=False, enable_checkpointing=False, callbacks=[guard])
            with pytest.raises(InputError, match=told):
                guard.setup(trainer, module, stage)


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
        {"ladder": []},
        {"ladder": ["rest"]},
        {"window": 0},
        {"false_alarm": 0.0},
        {"false_alarm": 0.6},
        {"levels": {"R": -1.0}},
        {"levels": {"ratio": 0.1}},
        {"limits": {"gain": -0.1}},
        {"limits": {"drift": -0.1}},  # raises no alarm unless it is set
        {"limits": {"J": 0.1}},  # is shown, and decides nothing
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="guard"):
        GuardConfig(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"patience": 0},
        {"longest": 0},
        {"looks": 0},
        {"memory": 0.5},
        {"decay": 1.0},
        {"min_count": 1.0},
        {"alone": 1.1},
        {"sharpness": -1.0},
        {"rest": -1},
    ],
)
def test_tuned_numbers_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"guard\.tuned"):
        Tuned(**bad)


@pytest.mark.parametrize(
    ("prevalence", "message"),
    [
        ([0.1], r"guard\.prevalence of c must be \[LOW,HIGH\]"),
        ({"c": [0.5, 0.1]}, "two shares from 0 to 1"),
        ({"c": [0.1, 1.5]}, "two shares from 0 to 1"),
        ({"c": ["few", "many"]}, "two shares from 0 to 1"),
        ({"d": [0.0, 0.5]}, "unknown class 'd'"),
        ({"a": [0.6, 1.0], "b": [0.6, 1.0]}, "summing to 1"),
        ({"a": [0.0, 0.2], "b": [0.0, 0.2], "c": [0.0, 0.2]}, "summing to 1"),
    ],
)
def test_bounds_that_no_stream_can_have_are_refused(prevalence: Any, message: str) -> None:
    if not isinstance(prevalence, dict):
        with pytest.raises(InputError, match="is for two classes, and there are 3"):
            GuardConfig(prevalence=prevalence).bounds(CLASSES)
        prevalence = {"c": prevalence}
    with pytest.raises(InputError, match=message):
        GuardConfig(prevalence=prevalence).bounds(CLASSES)


def test_bounds_by_class_and_of_the_second_of_two() -> None:
    assert GuardConfig().bounds(CLASSES) is None
    two = GuardConfig(prevalence=[0.05, 0.2]).bounds(["benign", "malignant"])
    assert two is not None
    assert two[:, 1].tolist() == pytest.approx([0.05, 0.2])
    assert two[:, 0].tolist() == pytest.approx([0.8, 0.95]), "what the other leaves"
    tenths = [f"class {index}" for index in range(10)]
    exact = GuardConfig(prevalence={name: [0.1, 0.1] for name in tenths}).bounds(tenths)
    assert exact is not None
    assert torch.allclose(exact, torch.full((2, 10), 0.1))
    assert bool((exact[0] <= exact[1]).all())
    some = GuardConfig(prevalence={"b": [0.5, 0.9]}).bounds(CLASSES)
    assert some is not None
    torch.testing.assert_close(some.T, torch.tensor([[0, 0.5], [0.5, 0.9], [0, 0.5]]))
