"""Adapting to images that are larger than what a network sees at once."""

import pytest
import torch
from torch import Tensor

from holdfast.tta import windows
from holdfast.tta.methods import Method, create_method
from holdfast.tta.methods.intent import InTEnt
from holdfast.tta.networks import MODELS, DenseNetwork, create_network
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
