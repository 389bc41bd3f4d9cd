"""What a step costs: no more operations than a plain loop's, and no wait for the device."""

import math
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.benchmarks.plain import LOOPS
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.methods import METHODS, Method, create_method
from holdfast.tta.methods.settings import UpdateConfig
from holdfast.tta.networks import MODELS, SplitNetwork, create_network
from tests.counts import Run, a_batch, patterns

CASES = (("compact", 28), ("resnet18", 32))
#: Methods whose weights and moments are all that updates change: nothing waits for them.
UNWATCHED = ("tent", "come", "shot_im")


def network(name: str, size: int) -> nn.Module:
    """Random, but for a head that tells the images apart: a batch of one class costs more."""
    torch.manual_seed(0)
    made = create_network(name, MODELS[name](), num_classes=4, channels=3, size=(size, size))[0]
    assert isinstance(made, SplitNetwork)
    with torch.no_grad():
        features = made.train().features(torch.cat(patterns(size)))
        nn.init.normal_(made.head.weight)
        made.head.bias.copy_(-made.head.weight @ features.mean(0))
    return made


def method(kind: str, name: str = "compact", size: int = 28, **options: Any) -> Method:
    made, model = METHODS[kind], network(name, size)
    learns = issubclass(made.Config, UpdateConfig)
    known: dict[str, Any] = {"optimizer": "adam", "lr": 1e-5} if learns else {}
    return create_method(kind, model, num_classes=4, **{**known, **options})


def alone(kind: str, name: str, size: int) -> Run:
    made = method(kind, name, size)
    return lambda batches: [made(batch) for batch in batches]


def passed(kind: str, name: str, size: int) -> Run:
    """The whole pass of a Trainer, without guard and records."""
    module = AdaptationModule(method(kind, name, size), batch_size=16)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet)

    def run(batches: Any) -> None:
        loader = torch.utils.data.DataLoader(torch.cat(list(batches)), batch_size=16)
        trainer.fit(module, loader)

    return run


@pytest.mark.parametrize(("name", "size"), CASES)
def test_tent_dispatches_no_more_than_a_plain_loop(name: str, size: int) -> None:
    batches = patterns(size)
    # Adam as it is by default on a GPU, where it is one operation for all tensors of a kind; that
    # it reads its counts of steps, on CPUs alone, does not count.
    plain, counts = a_batch(lambda: LOOPS["tent"](network(name, size), 1e-5, foreach=True), batches)
    ours, read = a_batch(lambda: alone("tent", name, size), batches)
    assert ours <= 1.1 * (plain - counts)
    assert read == 0


@pytest.mark.parametrize("kind", UNWATCHED)
def test_nothing_is_read_back_by_what_learns_by_weights_alone(kind: str) -> None:
    _, read = a_batch(lambda: alone(kind, "compact", 28), patterns(28))
    assert read == 0


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_trainers_pass_adds_forty_operations_and_one_wait(name: str, size: int) -> None:
    batches = patterns(size)
    ours, _ = a_batch(lambda: alone("tent", name, size), batches)
    whole, read = a_batch(lambda: passed("tent", name, size), batches)
    assert whole <= ours + 40
    assert read <= 1


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd", "lr": 1e-2}])
@pytest.mark.parametrize("first", [True, False])
def test_a_step_on_values_that_are_not_finite_comes_to_nothing(
    options: dict[str, Any], first: bool
) -> None:
    """Nobody waits to hear of it, and weights and moments are as they were."""
    broken = patterns(28)[0].clone()
    broken[0, 0, 0, 0] = math.nan
    calm, met = method("tent", **options), method("tent", **options)
    for batch in patterns(28)[: 0 if first else 2]:
        calm(batch), met(batch)
    assert met.masks
    met(broken)
    for name, value in calm.adapted.items():
        assert torch.equal(value, met.adapted[name])
    for batch in patterns(28)[2:4]:
        assert torch.equal(calm(batch), met(batch))


def test_what_is_read_back_is_the_same_as_what_is_not() -> None:
    """A step that might have come to nothing is, to the last bit, the one that could not."""
    asked, unasked = method("tent"), method("tent")
    for batch in patterns(28):
        told = asked.update(batch, asked.predict(batch))
        unasked(batch)
        assert told.skipped is None
    state: dict[str, Tensor] = unasked.adapted_state()
    assert all(torch.equal(value, state[name]) for name, value in asked.adapted.items())


class Listed(TorchDispatchMode):
    """Lists operations in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", UNWATCHED)
def test_a_step_is_the_same_operations_on_the_same_memory_batch_after_batch(kind: str) -> None:
    """So a GPU could take it as one graph: nothing depends on values, and no state moves."""
    made = method(kind)
    made.predict(patterns(28)[0])
    for batch in patterns(28)[:2]:
        made(batch)

    def state() -> list[int]:
        moments = [v for one in made.optimizer.state.values() for v in one.values()]
        kept = [*made.adapted.values(), *(v for v in moments if isinstance(v, Tensor))]
        return [value.data_ptr() for value in kept]

    before, steps = state(), []
    for batch in patterns(28)[2:]:
        with Listed() as listed:
            made(batch)
        steps.append(listed.names)
        assert state() == before
    assert len(steps[0]) > 100
    assert all(names == steps[0] for names in steps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits are seen on a GPU alone")
def test_fifty_calm_steps_wait_for_nothing() -> None:
    made = method("tent").to("cuda")
    batches = [batch.cuda() for batch in patterns(28, 50)]
    made(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            made(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
