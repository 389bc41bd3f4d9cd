"""Figures of masks: golden values by hand, MONAI's own, and what is empty."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from torch import Tensor

from holdfast.tta.masks.figures import CaseScorer, case_figures
from holdfast.tta.masks.scores import dice_gap, mask_scores
from holdfast.tta.masks.surfaces import surfaces


def square(side: int, low: int, high: int, dims: int = 2) -> Tensor:
    """A mask of zeros with a cube of ones from ``low`` up to ``high``."""
    mask = torch.zeros((side,) * dims, dtype=torch.long)
    mask[(slice(low, high),) * dims] = 1
    return mask


def figures(predicted: Tensor, target: Tensor, spacing: tuple[float, ...] = (1.0, 1.0)) -> dict:  # type: ignore[type-arg]
    found = case_figures(predicted, target, [1], spacing, tolerance=1.0)
    return {name: values[0] for name, values in found.items()}


def test_golden_values_of_two_squares() -> None:
    # 4 × 4 pixels against the same moved by two rows: 8 of 16 shared.
    found = figures(square(10, 2, 6).roll(2, 0), square(10, 2, 6))
    assert found["dice"] == 16 / 32
    assert found["iou"] == 8 / 24
    # Each surface has 12 pixels. Of the moved one the lowest row (4 pixels) is 2 from the other,
    # the row above it 1 in its two; the rest lies on it or, in the upper row, 1 from it in the two
    # inner ones. Seen from the other it is the same.
    each = [2] * 4 + [1] * 2 + [0] * 2 + [0] * 2 + [1] * 2
    assert found["assd"] == pytest.approx(sum(each) / 12)
    assert found["hd95"] == pytest.approx(np.percentile(each, 95))
    assert found["nsd"] == pytest.approx(8 / 12)
    assert (found["volume"], found["true_volume"]) == (16, 16)


def test_distances_and_volumes_are_in_millimetres() -> None:
    target = square(12, 2, 6, dims=3)
    found = figures(target.roll(1, 0), target, spacing=(5.0, 0.5, 0.5))
    assert found["hd95"] == 5.0  # one slice of 5 mm
    assert found["volume"] == 64 * 5.0 * 0.5 * 0.5
    assert found["nsd"] < 1
    assert figures(target.roll(1, 2), target, spacing=(5.0, 0.5, 0.5))["nsd"] == 1.0  # .5 mm


@pytest.mark.parametrize("dims", [2, 3])
def test_figures_are_those_of_monai(dims: int) -> None:
    generator = torch.Generator().manual_seed(dims)
    shape = (16,) * dims
    one, other = ((torch.rand(shape, generator=generator) < 0.3).long() for _ in range(2))
    spacing = (0.7, 1.3, 2.0)[:dims]
    both = [
        torch.stack([1 - mask, mask])[None].float() for mask in (one, other)
    ]  # (1, 2, *spatial)
    found = figures(one, other, spacing)
    steps = {"spacing": list(spacing)}
    expected = {
        "dice": compute_dice(*both, include_background=False),
        "iou": compute_iou(*both, include_background=False),
        "hd95": compute_hausdorff_distance(*both, percentile=95, **steps),
        "assd": compute_average_surface_distance(*both, symmetric=True, **steps),
        "nsd": compute_surface_dice(*both, class_thresholds=[1.0], **steps),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), abs=1e-5), name


def test_an_empty_reference_is_right_or_wrong_and_never_left_out() -> None:
    nothing, some = torch.zeros(4, 5, dtype=torch.long), square(5, 1, 3)[:4]
    right = figures(nothing, nothing)
    assert (right["dice"], right["iou"], right["nsd"]) == (1, 1, 1)
    assert (right["hd95"], right["assd"]) == (0, 0)
    for predicted, target in [(some, nothing), (nothing, some)]:
        wrong = figures(predicted, target)
        assert (wrong["dice"], wrong["iou"], wrong["nsd"]) == (0, 0, 0)
        assert (wrong["hd95"], wrong["assd"]) == (5.0, 5.0)  # the diagonal: 3 rows, 4 columns


def test_what_is_not_labelled_is_left_out() -> None:
    target = square(6, 1, 4)
    predicted = target.clone()
    predicted[5] = 1  # outside of what is known
    target[5] = -1
    assert figures(predicted, target)["dice"] == 1
    unknown = figures(predicted, torch.full_like(target, -1))
    assert math.isnan(unknown["dice"])
    assert unknown["volume"] == 15


def test_a_scorer_keeps_a_few_numbers_of_each_case() -> None:
    scorer = CaseScorer([1, 2], tolerance=1.0)
    target = torch.stack([square(8, 1, 4), 2 * square(8, 2, 5)])
    scorer.take(scorer.cases(target, target))
    scorer.take(scorer.cases(target, None))
    assert len(scorer) == 4
    found = scorer.figures
    assert {values.shape for values in found.values()} == {(4, 2)}
    assert found["dice"][:2].tolist() == [[1, 1], [1, 1]]
    assert np.isnan(found["dice"][2:]).all()
    assert found["volume"][2:].tolist() == [[9, 0], [0, 9]]


def scored(dice: list[list[float]], shown: list[list[float]] | None = None) -> dict:  # type: ignore[type-arg]
    values = np.array(dice, dtype=np.float64)
    volume = np.where(np.isnan(values), np.nan, 10.0 if shown is None else np.array(shown))
    return {
        **{name: values.copy() for name in ("dice", "iou", "hd95", "assd", "nsd")},
        "volume": 2 * np.nan_to_num(volume) + 1,
        "true_volume": volume,
        "share": np.zeros_like(values),
    }


def test_means_are_over_cases_then_classes() -> None:
    found = mask_scores(
        scored([[1.0, 0.5], [0.5, 0.0], [np.nan, np.nan]], [[10, 0], [10, 20], [0, 0]]),
        ("cell", "nucleus"),
        ["a", "b", "b"],
        groups=np.array(["p", "q", "q"]),
        columns={"sex": np.array(["f", "m", "m"])},
    )
    assert (found["level"], found["images"], found["groups"], found["few"]) == ("image", 2, 2, True)
    assert found["dice"] == 50.0
    assert found["per_class"]["cell"]["dice"] == 75.0
    assert found["hd95"] == 0.5
    nucleus = found["per_class"]["nucleus"]
    assert (nucleus["shown"], nucleus["false_alarms"]) == (1, 1)
    assert nucleus["volume_error"] == pytest.approx(100 * (1 + 41 - 20) / 20)
    assert {name: part["dice"] for name, part in found["domains"].items()} == {"a": 75, "b": 25}
    assert found["worst"] == {"sex": {"group": "m", "dice": 25.0}}
    assert "intervals" not in found


def test_nothing_is_said_of_streams_without_masks() -> None:
    unknown = scored([[np.nan]])
    assert mask_scores(unknown, ("cell",), ["a"], groups=np.array(["p"]), columns={}) == {}
    assert dice_gap(unknown, unknown, np.array(["p"]), 10) is None


def test_groups_count_once_in_each_domain() -> None:
    found = mask_scores(
        scored([[1.0], [0.0], [0.5], [np.nan]]),
        ("cell",),
        ["a"] * 4,
        groups=np.array(["p", "p", "q", "r"]),
        columns={},
        aggregate=True,
    )
    assert (found["level"], found["images"], found["groups"]) == ("group", 3, 2)
    assert found["dice"] == 50.0


def test_intervals_draw_whole_groups() -> None:
    dice = [[0.4]] * 30 + [[0.6]] * 30
    ours, names = scored(dice), np.repeat(["p", "q"], 30)
    found = mask_scores(ours, ("cell",), [""] * 60, groups=names, columns={}, bootstrap=200)
    assert found["intervals"]["dice"] == [40.0, 60.0]  # of two groups, either may come twice
    alone = mask_scores(ours, ("cell",), [""] * 60, groups=np.arange(60), columns={}, bootstrap=200)
    low, high = alone["intervals"]["dice"]
    assert 46 < low < 50 < high < 54
    assert alone["last_quarter"] == pytest.approx(60.0) if "last_quarter" in alone else True


def test_a_gap_is_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.8, (40, 1))
    ours, theirs = scored((hard + 0.1).tolist()), scored(hard.tolist())
    found = dice_gap(ours, theirs, np.arange(40), repeats=200)
    assert found is not None
    assert found["difference"] == pytest.approx(10.0)
    assert found["interval"] == pytest.approx([10.0, 10.0], abs=1e-3)  # each case gains as much
    assert found["dice"] == pytest.approx(100 * hard.mean(), abs=1e-3)


def test_surfaces_of_one_pixel() -> None:
    one, other = torch.zeros(5, 5, dtype=torch.bool), torch.zeros(5, 5, dtype=torch.bool)
    one[0, 0], other[3, 4] = True, True
    assert surfaces(one, other, (1.0, 1.0), tolerance=4.9) == (5.0, 5.0, 0.0)
    assert surfaces(one, other, (1.0, 1.0), tolerance=5.0) == (5.0, 5.0, 1.0)
