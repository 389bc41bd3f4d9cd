"""What a source of masks or findings is found to look like."""

import math

import pytest
import torch
from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods import Method, create_method
from holdfast.tta.row_facts import row_facts
from holdfast.tta.source_facts import source_facts


class _Pixels(nn.Module):
    """Answers with what it sees, two channels, of which the second is foreground."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(2)[:, :, None, None])
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images)


def pixels() -> Method:
    return create_method("norm", _Pixels(), num_classes=2, task="segmentation")


def test_pixels_by_hand() -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    mask[0, 0] = 1
    mask[1, :2] = 1
    mask[1, 3] = -1
    images = torch.stack([1 - mask.clamp(min=0), 3 * mask.clamp(min=0)], 1).float()
    facts = row_facts(pixels(), [{"image": images, "mask": mask}])
    torch.testing.assert_close(
        facts.prevalence, torch.tensor([(0.75 + 1 / 3) / 2, (0.25 + 2 / 3) / 2])
    )
    torch.testing.assert_close(facts.feature_mean, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    assert not facts.feature_var.any()
    assert len(facts.labels) == 28
    assert facts.entropy_quantiles.shape == (101,)
    again = source_facts(pixels(), [(images, mask)])
    assert torch.equal(again.feature_mean, facts.feature_mean)
    assert again.layer_moments == {}


def test_findings_by_hand() -> None:
    network = nn.Sequential(nn.LayerNorm(2, elementwise_affine=True), nn.Linear(2, 3))
    method = create_method("source", network, num_classes=3, task="multilabel")
    findings = torch.tensor([[1.0, 0.0, math.nan], [1.0, 1.0, 0.0]])
    images = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    facts = row_facts(method, [(images, findings)])
    assert facts.prevalence.tolist() == [0, 1, 0.5, 0.5, 1, 0]
    torch.testing.assert_close(facts.feature_mean[3], images[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(facts.feature_mean[1], torch.zeros(2))
    torch.testing.assert_close(facts.feature_var[1], torch.ones(2), atol=1e-4, rtol=0)
    assert len(facts.labels) == 5


def test_a_source_without_truth_says_so() -> None:
    with pytest.raises(InputError, match="no image of the source has a known mask"):
        row_facts(pixels(), [torch.rand(2, 2, 4, 4)])
