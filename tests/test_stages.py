"""A stream runs alike in every stage of the Trainer, whatever its batches look like; what a Trainer
of one's own cannot do is refused in a sentence.
"""

import copy
import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader

import holdfast
import holdfast.loop
from holdfast.callbacks import (
    POLICIES,
    CollapseGuard,
    PolicyGuard,
    PredictionWriter,
    TraceWriter,
)
from holdfast.callbacks.base import Guard
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.errors import InputError
from holdfast.tta.guarded import AdaptsAtTestTime
from holdfast.tta.methods import create_method
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.source_facts import source_facts
from holdfast.tta.stages import STEPS
from holdfast.tta.trainers import check_own
from tests.callbacks.guard.easy import CLASSES, PALE, quadrants, trained
from tests.commands import fenced
from tests.conftest import ACCELERATOR, ROOT

#: A rate at which Tent ends in fewer classes than there are.
WILD = {"optimizer": "adam", "lr": 1.0}
STAGES = tuple(STEPS)
#: Of those that reset, that watch a control, and that restore a part of each.
QUICK_POLICIES = ("periodic", "concentration", "stochastic_restore")


class Served(Callback):
    """Keeps what leaves, in every stage; place it last."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.outputs: list[Mapping[str, Any]] = []

    def _keep(self, *args: Any) -> None:
        self.logits.append(args[2]["logits"].cpu())
        self.outputs.append(args[2])

    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _keep


@cache
def stream() -> list[dict[str, Any]]:
    return quadrants(24, scanner=PALE)


@cache
def labels() -> Tensor:
    return torch.cat([batch["label"] for batch in stream()])


def adapting(lr: float = 1.0, **more: Any) -> AdaptationModule:
    torch.manual_seed(0)
    options = {**WILD, "lr": lr, **more}
    method = create_method("tent", copy.deepcopy(trained("compact")), num_classes=4, **options)
    return AdaptationModule(method, 64)


def passed(
    stage: str,
    module: LightningModule,
    *callbacks: Callback,
    data: Sequence[Any] | None = None,
    logger: Any = False,
    **arguments: Any,
) -> tuple[Tensor, Any]:
    """Logits of the images as they left, and what the Trainer returned."""
    served = Served()
    quiet = {
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        callbacks=[*callbacks, served],
        logger=logger,
        **{"max_epochs": 1, "accelerator": ACCELERATOR, **quiet, **arguments},
    )
    loader = DataLoader(stream() if data is None else data, batch_size=None)
    returned = getattr(trainer, stage)(module, loader)
    return torch.cat(served.logits), returned


class Plain(LightningModule):
    """Has all that a guard asks for, and a step that returns what cannot be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = False

    def control(self, batch: Any) -> None: ...
    def reset(self) -> None: ...
    def pause(self, paused: bool = True) -> None: ...

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.zeros(64, 4)

    predict_step = test_step


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_a_step_that_leaves_nothing_to_judge_is_refused(stage: str) -> None:
    with pytest.raises(InputError, match=f"needs a {stage}_step that returns a dictionary with"):
        passed(stage, Plain(), CollapseGuard(CLASSES))


@pytest.mark.parametrize("name", ["tent", "norm_ema", "cotta", "t3a"])
def test_a_plain_loop_in_inference_mode_learns_as_well(name: str) -> None:
    def own() -> Any:
        torch.manual_seed(0)
        rate = {} if name in ("norm_ema", "t3a") else {"lr": 1e-2}
        return create_method(name, copy.deepcopy(trained("compact")), num_classes=4, **rate)

    batches = [batch["image"] for batch in stream()[:4]]
    method, other = own(), own()
    expected = [method(images) for images in batches]
    with torch.inference_mode():
        found = [other(images + 0) for images in batches]
    assert all(torch.equal(one, same) for one, same in zip(found, expected, strict=True))
    assert torch.equal(other(batches[0]), method(batches[0]))  # and goes on outside of it


def test_a_guarded_loop_in_inference_mode_is_guarded_as_well() -> None:
    def own() -> holdfast.loop.GuardedMethod:
        return holdfast.guard(adapting().method, source=quadrants(4, seed=2), class_names=CLASSES)

    batches = [batch["image"] for batch in stream()[:8]]
    guarded, other = own(), own()
    expected = [guarded(images) for images in batches]
    with torch.inference_mode():
        found = [other(images) for images in batches[:6]]
    found += [other(images) for images in batches[6:]]
    assert all(torch.equal(one, same) for one, same in zip(found, expected, strict=True))
    assert [event["batch"] for event in other.events] == [
        event["batch"] for event in guarded.events
    ]


@cache
def guarded_in_fit() -> Tensor:
    return passed("fit", adapting(), CollapseGuard(CLASSES))[0]


def right(logits: Tensor) -> float:
    return balanced_accuracy(logits.argmax(1), labels(), 4)


def test_a_collapse_is_the_same_in_every_stage_and_a_guard_averts_it_in_every_stage() -> None:
    unguarded = {stage: passed(stage, adapting())[0] for stage in STAGES}
    assert right(unguarded["fit"]) < 92
    guards = {stage: CollapseGuard(CLASSES) for stage in STAGES}
    guarded = {stage: passed(stage, adapting(), guards[stage])[0] for stage in STAGES}
    assert right(guarded["fit"]) > right(unguarded["fit"]) + 5
    assert guards["fit"].alarms
    for stage in STAGES:
        assert torch.equal(unguarded[stage], unguarded["fit"]), stage
        assert torch.equal(guarded[stage], guarded["fit"]), stage
        assert guards[stage].alarmed == guards["fit"].alarmed
        assert guards[stage].batch == len(stream())


def test_what_predict_returns_is_what_was_served() -> None:
    guard = CollapseGuard(CLASSES)
    logits, returned = passed("predict", adapting(), guard)
    assert len(returned) == len(stream())
    assert torch.equal(torch.cat([one["logits"].cpu() for one in returned]), logits)
    probabilities = torch.cat([one["probabilities"].cpu() for one in returned])
    assert torch.equal(probabilities, logits.softmax(1))
    assert {one["served_by"] for one in returned} >= {"adapted", "control"}
    assert [one["verdict"] for one in returned].count("ALARM") == guard.alarms
    assert returned[3]["id"] == stream()[3]["id"]
    assert not {"features", "counts"} & set(returned[0])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK_POLICIES else pytest.mark.slow)
        for name in sorted(POLICIES)
    ],
)
def test_published_guards_act_in_every_stage(name: str) -> None:
    policy = POLICIES[name]
    known = source_facts(adapting().method, quadrants(4, seed=2))

    def guard() -> PolicyGuard:
        given = {"feature_mean": known.feature_mean, "feature_var": known.feature_var}
        quantiles = {"entropy_quantiles": torch.linspace(0, 1, 101), "temperature": 1.0}
        every = {"every": 3} if name == "periodic" else {}
        return PolicyGuard(policy(policy.Config(**every), 4, {**given, **quantiles}))

    guards: dict[str, Guard] = {stage: guard() for stage in STAGES}
    few = stream()[:8]
    logits = {stage: passed(stage, adapting(), guards[stage], data=few)[0] for stage in STAGES}
    for stage in STAGES:
        assert torch.equal(logits[stage], logits["fit"]), stage
        assert guards[stage].resets == guards["fit"].resets
        assert guards[stage].batch == len(few)
    if name == "periodic":
        assert len(guards["predict"].resets) == 2


@pytest.mark.parametrize(
    ("stage", "inference_mode"),
    [("validate", True), ("test", True), ("predict", True), ("predict", False)],
)
def test_what_was_learned_in_a_stage_is_gone_on_from_in_fit(
    stage: str, inference_mode: bool
) -> None:
    """Nothing that was made in inference mode is left behind, where it could not be changed."""
    data, halves = stream()[:10], (stream()[:5], stream()[5:10])
    options = {"lr": 1e-3, "normalization": "robust"}
    straight = adapting(**options)
    expected, _ = passed("fit", straight, CollapseGuard(CLASSES), data=data)
    module, guard = adapting(**options), CollapseGuard(CLASSES)
    first, _ = passed(stage, module, guard, data=halves[0], inference_mode=inference_mode)
    second, _ = passed("fit", module, guard, data=halves[1])
    assert torch.equal(torch.cat([first, second]), expected)
    found, same = module.method.adapted_state(), straight.method.adapted_state()
    assert all(torch.equal(found[name], same[name]) for name in same)
    module.method(data[0]["image"].to(module.device))  # without Lightning, from here on


@pytest.mark.parametrize("form", ["tuple", "list", "bare", "plain dictionary"])
def test_batches_in_every_form(form: str, tmp_path: Path) -> None:
    images = [batch["image"] for batch in stream()]
    known = [batch["label"] for batch in stream()]
    data = {
        "tuple": list(zip(images, known, strict=True)),
        "list": [list(pair) for pair in zip(images, known, strict=True)],
        "bare": images,
        "plain dictionary": [{"image": x, "y": y} for x, y in zip(images, known, strict=True)],
    }[form]
    expected = guarded_in_fit()
    writer = PredictionWriter(tmp_path / "predictions.csv", CLASSES)
    tracer = TraceWriter(tmp_path)
    guard = CollapseGuard(CLASSES)
    logits, _ = passed("predict", adapting(), guard, writer, tracer, data=data)
    assert torch.equal(logits, expected)
    assert torch.equal(writer.probabilities, expected.softmax(1))
    assert writer.rows.tolist() == list(range(len(labels())))
    told = torch.full_like(labels(), -1) if form == "bare" else labels()
    assert torch.equal(writer.labels, told)
    with writer.path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(row) for row in range(len(labels()))]
    assert len(tracer.rows) == len(stream())


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_labels_give_figures_of_what_was_served(stage: str) -> None:
    guarded, returned = passed(stage, adapting(), CollapseGuard(CLASSES))
    accuracy = 100 * (guarded.argmax(1) == labels()).double().mean().item()
    assert returned[0][f"{stage}/accuracy"] == pytest.approx(accuracy)
    assert returned[0][f"{stage}/balanced_accuracy"] == pytest.approx(right(guarded))
    bare = [batch["image"] for batch in stream()]
    assert passed(stage, adapting(), data=bare)[1] == [{}]


def test_broken_images_are_named_by_their_position() -> None:
    data = [batch["image"].clone() for batch in stream()[:4]]
    data[2][5] = torch.nan
    served = Served()
    passed("test", adapting(), CollapseGuard(CLASSES), served, data=data)
    assert len(served.outputs) == 4
    events = [event for event in served.outputs[2]["events"] if event["event"] == "skipped"]
    assert [event["ids"] for event in events] == [["133"]]


def test_batches_that_nobody_can_read_are_refused() -> None:
    image = stream()[0]["image"]
    for batch, told in (
        ({"scan": image}, "this dict has keys scan: bring it to one of these, or override"),
        (({"image": image}, 0), "a tuple .images, labels. or a tensor"),
        ((255 * image).byte(), "images are uint8: turn them into floats"),
    ):
        with pytest.raises(InputError, match=told):
            passed("predict", adapting(), data=[batch])


def test_two_loaders_are_one_stream(tmp_path: Path) -> None:
    expected = guarded_in_fit()
    tracer, served = TraceWriter(tmp_path), Served()
    trainer = Trainer(
        callbacks=[CollapseGuard(CLASSES), tracer, served],
        accelerator=ACCELERATOR,
        logger=False,
        enable_progress_bar=False,
    )
    halves = [DataLoader(half, batch_size=None) for half in (stream()[:10], stream()[10:])]
    trainer.predict(adapting(), halves)
    assert torch.equal(torch.cat(served.logits), expected)
    with (tmp_path / "trace.csv").open() as file:
        numbers = [row["batch"] for row in csv.DictReader(file)]
    assert numbers == [str(number) for number in range(len(stream()))]


class Modes(Callback):
    """Turns the module to train and to eval mode between batches, as loops do."""

    def on_test_batch_start(self, trainer: Trainer, module: Any, *args: Any) -> None:
        module.train(args[1] % 2 == 0)


def test_train_and_eval_mode_change_nothing() -> None:
    torch.manual_seed(0)
    network = copy.deepcopy(trained("compact"))
    network.head = nn.Sequential(nn.Dropout(0.5), network.head)

    def own() -> AdaptationModule:
        return AdaptationModule(
            create_method("tent", copy.deepcopy(network), num_classes=4, lr=1e-3)
        )

    calm, _ = passed("test", own())
    assert torch.equal(passed("test", own(), Modes())[0], calm)


def test_a_guard_behind_a_writer_is_refused(tmp_path: Path) -> None:
    class Theirs(BasePredictionWriter):
        pass

    for writer in (PredictionWriter(tmp_path / "p.csv", CLASSES), Theirs()):
        with pytest.raises(InputError, match="place CollapseGuard before it in Trainer"):
            passed("predict", adapting(), writer, CollapseGuard(CLASSES))


class Supervised(LightningModule):
    """Of a user: trains with labels, validates, and has hooks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.network = copy.deepcopy(trained("compact"))
        self.hooks: list[str] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        raise AssertionError("the stream is not validated")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_test_batch_end(self, *args: Any) -> None:
        self.hooks.append("test batch")

    def on_fit_start(self) -> None:
        self.hooks.append("fit")


class Own(AdaptsAtTestTime, Supervised):
    """The same, adapting."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        method = create_method("tent", self.network, num_classes=4, **{**WILD, **options})
        self.adapt_by(method, 64, source=source_facts(method, quadrants(8, seed=2)))


class Stream(LightningDataModule):
    """Of a user: pairs, and a validation loader that nobody asked for."""

    def predict_dataloader(self) -> DataLoader[Any]:
        pairs = [(batch["image"], batch["label"]) for batch in stream()]
        return DataLoader(pairs, batch_size=None)  # type: ignore[arg-type]

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader


@pytest.mark.parametrize("stage", STAGES)
def test_a_module_of_ones_own_is_guarded_with_candidates(stage: str) -> None:
    guard, served = CollapseGuard(CLASSES), Served()
    trainer = Trainer(
        max_epochs=1,
        accelerator=ACCELERATOR,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[guard, served],
    )
    module = Own(normalization="auto")
    getattr(trainer, stage)(module, datamodule=Stream())
    assert set(guard.experts.found) == {"source", "batch", "corrected"}
    assert right(torch.cat(served.logits)) > 97
    assert guard.batch == len(stream()) == len(served.logits)
    # Of the pale scanner's statistics the source's are the ones that cannot be trusted.
    assert guard.experts.shares["source"] < 0.5
    hooks = {"fit": ["fit"], "test": ["test batch"] * len(stream())}
    assert module.hooks == hooks.get(stage, [])


def test_statistics_that_nobody_has_chosen_yet_are_the_published_ones() -> None:
    fixed, _ = passed("predict", adapting(1e-3), data=stream()[:3])
    auto = adapting(1e-3, normalization="auto")
    assert torch.equal(passed("predict", auto, data=stream()[:3])[0], fixed)


def test_a_module_without_a_method_is_told() -> None:
    class Empty(AdaptsAtTestTime, Supervised):
        pass

    with pytest.raises(InputError, match=r"Empty has no method yet: call self.adapt_by"):
        passed("test", Empty())


class Notes(Logger):
    """A logger of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "notes"

    @property
    def version(self) -> int:
        return 0

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        return None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((step, metrics))


@pytest.mark.parametrize("stage", STAGES)
def test_a_logger_of_ones_own_gets_the_trace(stage: str, tmp_path: Path) -> None:
    notes = Notes()
    passed(stage, adapting(), CollapseGuard(CLASSES), TraceWriter(tmp_path), logger=notes)
    curve = [step for step, metrics in notes.metrics if "adapt/entropy" in metrics]
    assert curve == list(range(len(stream())))
    known = {name for _, metrics in notes.metrics for name in metrics}
    assert {"adapt/R", "adapt/drift", "adapt/mode"} <= known
    assert (f"{stage}/balanced_accuracy" in known) == (stage in ("validate", "test"))


@pytest.mark.parametrize("stage", STAGES)
def test_limits_are_honoured(stage: str) -> None:
    part = {"fit": "train", "validate": "val"}.get(stage, stage)
    whole, _ = passed(stage, adapting(), CollapseGuard(CLASSES), data=stream()[:7])
    fewer, _ = passed(stage, adapting(), CollapseGuard(CLASSES), **{f"limit_{part}_batches": 7})
    assert torch.equal(fewer, whole)
    quick, _ = passed(stage, adapting(), CollapseGuard(CLASSES), fast_dev_run=2)
    assert torch.equal(quick, whole[: 2 * 64])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision_is_honoured(stage: str, precision: Any) -> None:
    few = stream()[:5]
    exact, _ = passed(stage, adapting(1e-3), data=few)
    module = adapting(1e-3)
    rounded, _ = passed(stage, module, data=few, precision=precision)
    same, _ = passed("fit", adapting(1e-3), data=few, precision=precision)
    assert torch.equal(rounded, same)
    assert not torch.equal(rounded.float(), exact)
    assert (rounded.argmax(1) == exact.argmax(1)).float().mean() > 0.97
    weight = next(iter(module.method.adapted.values()))
    assert weight.dtype == (torch.float64 if precision == "64-true" else torch.float32)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"gradient_clip_val": 1.0}, r"gradient_clip_val=1.0.*make steps smaller by the method's"),
        ({"accumulate_grad_batches": 4}, r"accumulate_grad_batches=4.*let the loader give larger"),
        ({"precision": "bf16-true"}, "weights of 16 bits lose the small steps"),
    ],
    ids=["clip", "accumulate", "16 bits"],
)
def test_what_would_be_ignored_is_refused(stage: str, arguments: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        passed(stage, adapting(1e-3), **arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"max_epochs": 2}, r"max_epochs=2\): use Trainer\(max_epochs=1\)"),
        ({"max_epochs": None}, r"max_epochs=1000\): use Trainer\(max_epochs=1\)"),
        ({"max_steps": 5}, r"max_steps=5\) counts updates, which may rest"),
    ],
    ids=["twice", "not said", "steps"],
)
def test_fit_passes_a_stream_once(arguments: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        passed("fit", adapting(1e-3), **arguments)


def checked(stage: str, **arguments: Any) -> None:
    """Check a Trainer as a module does before anything runs."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **arguments)
    trainer.state.fn = TrainerFn(stage)
    check_own(trainer)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_several_processes_adapt_in_fit_alone(stage: str) -> None:
    processes: dict[str, Any] = {"devices": 2, "strategy": "ddp", "max_epochs": 1}
    with pytest.raises(InputError, match=f"Trainer.{stage} does not share gradients between its 2"):
        checked(stage, **processes)
    checked("fit", **processes)


def test_sharded_weights_are_refused() -> None:
    with pytest.raises(InputError, match="ModelParallelStrategy does not keep the weights whole"):
        checked("test", strategy=ModelParallelStrategy())


def test_the_page_shows_what_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "howto" / "running.md").read_text()
    blocks = [content for language, content in fenced(page) if language == "python"]
    assert len(blocks) == 1
    exec(compile(blocks[0], "docs/howto/running.md", "exec"), {})
    out = capsys.readouterr().out
    assert "tensor([[" in out
    assert "OK" in out
