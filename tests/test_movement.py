"""Movement that no mix of classes explains: hand values, and the two streams that it has to tell
apart.
"""

import pytest
import torch
from torch import Tensor

from tta.movement import Span, class_span, moved_by, no_movement, scanner_change

#: Two classes, which differ by 4 in the first of three channels; the source's standard deviation is
#: 2 in each.
MEANS = torch.tensor([[0.0, 1.0, 5.0], [4.0, 1.0, 5.0]])
SPAN = class_span(MEANS, torch.full((3,), 4.0))


def change(means: list[Tensor], span: Span = SPAN) -> float:
    movement = no_movement(len(span.center))
    for mean in means:
        movement = moved_by(movement, mean, span)
    return float(scanner_change(movement, span))


def test_the_span_is_the_line_between_two_classes() -> None:
    torch.testing.assert_close(SPAN.center, torch.tensor([2.0, 1.0, 5.0]))
    torch.testing.assert_close(SPAN.outside, torch.diag(torch.tensor([0.0, 0.5, 0.5])))
    assert float(SPAN.extent) == pytest.approx(
        2.0 + 0.02
    )  # one class lies one deviation from the middle


def test_blocks_of_classes_do_not_move_out_of_it_under_any_scanner() -> None:
    for offset in (0.0, 10.0):
        assert change([MEANS[block % 2] + offset for block in range(6)]) == pytest.approx(
            0.0, abs=1e-2
        )


def test_scanners_in_turn_do() -> None:
    brighter = torch.tensor([0.0, 0.0, 8.0])  # 4 deviations: +-2 about their mean
    found = change([MEANS.mean(0) + (batch % 2) * brighter for batch in range(8)])
    assert found == pytest.approx(2 * 2 * (8 / 7) ** 0.5 / 2.02, rel=1e-4)


def test_one_batch_or_none_or_what_is_not_finite_says_nothing() -> None:
    assert change([]) == change([MEANS[0]]) == 0
    steady = [MEANS[0], MEANS[1]]
    assert change([*steady, torch.full((3,), torch.nan)]) == change(steady)


def test_a_channel_that_is_constant_on_the_source_does_not_make_noise_a_movement() -> None:
    span = class_span(MEANS, torch.tensor([4.0, 4.0, 0.0]))
    noise = 1e-4 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert (
        change([MEANS.mean(0) + torch.tensor([0.0, 0.0, float(value)]) for value in noise], span)
        < 0.2
    )


def test_classes_that_span_all_channels_explain_everything() -> None:
    span = class_span(
        torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)), torch.ones(3)
    )
    assert change([torch.zeros(3), torch.full((3,), 9.0)], span) == pytest.approx(0.0, abs=1e-2)


def test_classes_that_look_alike_explain_nothing() -> None:
    span = class_span(torch.ones(2, 3), torch.ones(3))
    assert change([torch.zeros(3), torch.ones(3)], span) > 100
