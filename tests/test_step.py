"""What a step leaves is what ``StepOutputs`` declares, by name and type, whoever left it."""

from collections.abc import Mapping
from typing import Any, get_type_hints

import pytest
import torch
from lightning import Callback
from pydantic import ConfigDict, ValidationError, create_model

import holdfast
from holdfast.callbacks import POLICIES, CollapseGuard, PolicyGuard
from tests.callbacks.guard.easy import CLASSES
from tests.callbacks.guard.test_tasks import blobs, network
from tests.test_stages import Own, passed, stream

DECLARED: dict[str, Any] = get_type_hints(holdfast.StepOutputs)
_CHECK = create_model(
    "Outputs",
    __config__=ConfigDict(arbitrary_types_allowed=True, extra="forbid", strict=True),
    **{name: (hint, None) for name, hint in DECLARED.items()},
)


class Keeps(Callback):
    """Keeps what was left, before ``predict`` takes from it what nobody needs."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []

    def on_predict_batch_end(self, *args: Any) -> None:
        self.outputs.append(dict(args[2]))


def undeclared(outputs: Mapping[str, Any]) -> set[Any]:
    """Entries that are not declared, or of another type than is declared."""
    try:
        _CHECK(**outputs)
    except ValidationError as error:
        return {one["loc"][0] for one in error.errors()}
    return set()


def test_what_a_guarded_step_leaves_is_declared() -> None:
    batches = [dict(batch) for batch in stream()]
    batches[3]["image"] = batches[3]["image"].clone()
    batches[3]["image"][1] = float("nan")
    module, keeps = Own(normalization="auto"), Keeps()
    module.tells_weights = True
    _, returned = passed("predict", module, CollapseGuard(CLASSES), keeps, data=batches)
    torch.manual_seed(0)
    method = holdfast.create_method("tent", network(), num_classes=2, task="segmentation")
    masks = holdfast.guard(method, source=[blobs(8, seed) for seed in range(4)])
    masks(blobs(8, 9)[0])
    left = [*keeps.outputs, *returned, masks._last or {}]
    for outputs in left:
        assert undeclared(outputs) == set()
    assert {name for outputs in left for name in outputs} == set(DECLARED)


@pytest.mark.parametrize("name", ["periodic", "entropy_floor"])
def test_what_a_published_guard_leaves_is_declared(name: str) -> None:
    policy, keeps = POLICIES[name], Keeps()
    passed("predict", Own(), PolicyGuard(policy(policy.Config(), 4)), keeps, data=stream()[:4])
    assert all(undeclared(outputs) == set() for outputs in keeps.outputs)
    assert {"verdict", "served_by", "statistics", "events"} <= set(keeps.outputs[0])


def test_what_is_not_declared_is_seen() -> None:
    rows = torch.zeros(2, 3)
    assert undeclared({"logits": rows, "served_by": "adapted", "broken": None}) == set()
    wrong = {"logits": [0.0], "served_by": "adpated", "share": 1.0, "shares": {"source": "half"}}
    assert undeclared(wrong) == set(wrong)
