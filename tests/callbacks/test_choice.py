"""Choice, duty and corrections: small pure pieces of the guard."""

from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks.choice import choose
from callbacks.corrections import CORRECTIONS
from callbacks.duty import Duty
from tests.methods.test_methods import created, images
from tta.adaptation import AdaptationModule


def test_the_best_is_chosen_and_the_current_one_kept_where_it_is_about_as_good() -> None:
    assert choose({"source": 1.0, "batch": 2.0}, None, 0.05) == "batch"
    assert choose({"source": 1.0, "batch": 1.0}, None, 0.05) == "source"
    assert choose({"source": 1.0, "batch": 1.04}, "source", 0.05) == "source"
    assert choose({"source": 1.0, "batch": 1.06}, "source", 0.05) == "batch"
    assert choose({"batch": 1.0}, "source", 0.05) == "batch"  # the current one could not predict the batch
    assert choose({}, "source", 0.05) == "source"


def looks(duty: Duty, count: int, happened: tuple[int, ...] = ()) -> list[int]:
    seen = []
    for batch in range(count):
        if duty.looks(batch):
            seen.append(batch)
            duty = duty.looked(batch, patience=2, longest=4)
        if batch in happened:
            duty = duty.alerted(batch)
    return seen


def test_looks_thin_out_with_calm_and_start_anew_when_something_happens() -> None:
    assert looks(Duty(), 20) == [0, 1, 2, 3, 5, 8, 12, 16]
    assert looks(Duty(), 16, happened=(9,)) == [0, 1, 2, 3, 5, 8, 10, 11, 12, 13, 15]


def test_a_watch_checks_the_next_batch_without_a_look() -> None:
    duty = Duty(next_check=9, next_look=9).watching(3)
    assert duty.checks(4)
    assert not duty.looks(4)
    assert Duty(next_check=9, next_look=9).hurried(3).looks(4)


class Plain:
    """A user's module that knows no correction but the reset."""

    def __init__(self) -> None:
        self.resets = 0

    def control(self, batch: Any) -> Any: ...

    def pause(self, paused: bool = True) -> None: ...

    def reset(self) -> None:
        self.resets += 1


PRIOR = torch.tensor([0.7, 0.1, 0.1, 0.1])


def learned(name: str = "tent") -> AdaptationModule:
    method = created(name, lr=0.1)
    for seed in range(3):
        method(images(seed=seed))
    return AdaptationModule(method, 16)


def distance(module: AdaptationModule) -> Tensor:
    gaps = [(p - module.method._source[name]).norm() for name, p in module.method.adapted.items()]
    return torch.stack(gaps).norm()


@pytest.mark.parametrize(
    ("rung", "left"), [("reset", 0.0), ("freeze", 0.0), ("reweight", 0.0), ("restore", 0.5), ("slow", 0.5)]
)
def test_how_far_each_correction_takes_the_weights_back(rung: str, left: float) -> None:
    module = learned()
    before = distance(module)
    assert before > 0
    assert CORRECTIONS[rung].apply(module, PRIOR)
    torch.testing.assert_close(distance(module), left * before)


def test_slowing_down_lasts_until_the_reset() -> None:
    module = learned()
    optimizer = module.method.optimizer
    assert optimizer is not None
    CORRECTIONS["slow"].apply(module, PRIOR)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    CORRECTIONS["reset"].apply(module, PRIOR)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_reweighting_aims_dsbr_at_the_controls_shares() -> None:
    module = learned("dsbr")
    assert "aims" in CORRECTIONS["reweight"].apply(module, PRIOR)
    torch.testing.assert_close(module.method.target, 0.125 + 0.5 * PRIOR)
    assert "aims" not in CORRECTIONS["reweight"].apply(learned("tent"), PRIOR)


@pytest.mark.parametrize("rung", ["restore", "slow", "reweight"])
def test_a_module_that_knows_no_milder_correction_is_reset(rung: str) -> None:
    module = Plain()
    CORRECTIONS[rung].apply(module, PRIOR)  # type: ignore[arg-type]
    assert module.resets == 1
