"""Adapting to images that are larger than what a network sees at once."""

import pytest
import torch
from torch import Tensor

from holdfast.tta import windows
from holdfast.tta.methods import Method, create_method
from holdfast.tta.methods.intent import InTEnt
from holdfast.tta.networks import MODELS, DenseNetwork, create_network
from holdfast.tta.normalization import (
    choose_statistics,
    depends_on_batch,
    named_adjustable_layers,
    seen_moments,
    statistics,
)
from holdfast.tta.windows import WINDOWS


def network(window: int) -> DenseNetwork:
    torch.manual_seed(0)
    made, _ = create_network(
        "basicunet", MODELS["basicunet"](width=8), num_classes=2, channels=1, size=(window, window)
    )
    assert isinstance(made, DenseNetwork)
    return made.eval()


def adapting(window: int, **options: object) -> Method:
    torch.manual_seed(0)
    return create_method(
        "tent", network(window), num_classes=2, task="segmentation", lr=1e-2, **options
    )


def case() -> Tensor:
    return torch.rand(1, 1, 48, 40, generator=torch.Generator().manual_seed(1))


def test_a_case_leaves_whole_and_a_few_windows_of_it_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = adapting(32), list[tuple[torch.Size, bool]]()
    learn = method.learn

    def noted(images: Tensor, prediction: object) -> object:
        seen.append((images.shape, prediction.logits.requires_grad))  # type: ignore[attr-defined]
        return learn(images, prediction)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "learn", noted)
    assert not method.predict(case()).logits.requires_grad  # no graph of all windows
    output = method(case())
    assert output.shape == (1, 2, 48, 40)
    assert seen == [((WINDOWS, 1, 32, 32), True)]
    assert method.has_learned


def test_windows_are_the_same_by_seed_and_after_a_reset() -> None:
    one, other = adapting(32), adapting(32)
    for method in (one, other):
        method(case())
    first = one.adapted_state()
    for name, value in other.adapted_state().items():
        assert torch.equal(first[name], value)
    one.reset()
    one(case())
    for name, value in one.adapted_state().items():
        assert torch.equal(first[name], value)


@pytest.mark.parametrize(
    ("normalization", "passes"), [("source", [1, 1, 1, 1]), ("batch", [4]), ("blend", [4])]
)
def test_a_cpu_sees_one_window_after_another_unless_statistics_are_of_all(
    normalization: str, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, seen = adapting(32, normalization=normalization), list[int]()
    monkeypatch.setattr(windows, "_AT_ONCE_ON_CPU", 32 * 32)
    assert isinstance(method.model, DenseNetwork)
    method.model.features.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    said = method.predict(case()).logits
    assert seen == passes
    monkeypatch.setattr(windows, "_AT_ONCE_ON_CPU", windows._AT_ONCE)
    torch.testing.assert_close(method.predict(case()).logits, said)


def test_windows_stay_together_for_who_hears_what_layers_see() -> None:
    model = network(32)
    choose_statistics(model, "source")
    assert not depends_on_batch(model)
    with seen_moments(model):
        assert depends_on_batch(model)
    layer = next(iter(named_adjustable_layers(model).values()))
    hook = layer.register_forward_hook(lambda *_: None)
    assert depends_on_batch(model)
    hook.remove()
    assert not depends_on_batch(model)
    with statistics(model, "moving"):  # of which it has none: the batch's own stand in for them
        assert depends_on_batch(model)
    norm = torch.nn.BatchNorm2d(3)
    assert depends_on_batch(norm.train())
    assert not depends_on_batch(norm.eval())


def test_moving_statistics_take_in_a_case_once() -> None:
    method = create_method("norm_ema", network(32), num_classes=2, task="segmentation")
    method(case())
    moved = method.moving_statistics()
    whole = create_method("norm_ema", network(64), num_classes=2, task="segmentation")
    whole(case())
    for name, value in whole.moving_statistics().items():
        assert moved[name].shape == value.shape
        assert not torch.equal(moved[name], torch.zeros_like(value))


def test_what_several_steps_leave_is_of_the_whole_case() -> None:
    method = adapting(32, steps=2)
    assert method(case()).shape == (1, 2, 48, 40)
    assert not method.in_windows(case()[..., :32, :32])


def test_statistics_of_a_case_are_those_of_all_its_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are seen at once: the first layer normalises nothing before it."""
    method = create_method("intent", network(32), num_classes=2, task="segmentation")
    assert isinstance(method, InTEnt)
    name = next(iter(method.layers))
    whole = method._own_statistics(case())[name]
    monkeypatch.setattr(windows, "_AT_ONCE", 2 * 32 * 32)
    parts = method._own_statistics(case())[name]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
