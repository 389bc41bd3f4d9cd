"""Statistics of prediction marginals, by hand."""

import math

import torch

from tta.marginal import marginal_drift, predicted_counts, vanished_classes


def test_counts_leave_out_non_finite_rows() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.nan, 1.0], [3.0, 2.0]])
    assert predicted_counts(logits, 2).tolist() == [2, 1]


def test_drift_is_total_variation() -> None:
    drift = marginal_drift(torch.tensor([30.0, 10.0, 0.0]), torch.tensor([5.0, 5.0, 10.0]))
    torch.testing.assert_close(drift, torch.tensor(0.5))
    assert marginal_drift(torch.tensor([3.0, 1.0]), torch.tensor([6.0, 2.0])).item() == 0


def test_a_class_vanishes_only_if_the_control_still_sees_it() -> None:
    adapted, control = torch.tensor([2.0, 0.0, 98.0]), torch.tensor([25.0, 19.0, 56.0])
    assert vanished_classes(adapted, control).tolist() == [True, False, False]
