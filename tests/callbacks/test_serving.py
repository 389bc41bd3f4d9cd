"""What a batch leaves with, by hand: one model's prediction, or the mean of several by shares."""

from typing import Any

import pytest
import torch
from torch import Tensor

from holdfast.callbacks import CollapseGuard
from holdfast.callbacks.serving import CONTROL, Said, mixed, serve
from holdfast.tta.methods import Prediction


def prediction(*first: float, mark: float = 0.0, width: int = 3) -> Prediction:
    """Of two classes, the first with these probabilities; features that are all ``mark``."""
    p = torch.tensor(first)
    return Prediction(torch.stack([p, 1 - p], 1).log(), torch.full((len(first), width), mark))


def first(logits: Tensor) -> list[float]:
    """Probability of the first class."""
    return logits.softmax(1)[:, 0].tolist()


ADAPTED = prediction(0.9, 0.2, mark=1.0)
SOURCE = prediction(0.5, 0.6, mark=2.0)
BATCH = prediction(0.1, 0.8, mark=3.0)
TWIN = prediction(0.3, 0.4, mark=4.0)


class Module:
    """Answers as its un-updated twin, and counts how often."""

    def __init__(self) -> None:
        self.asked = 0

    def control(self, batch: Any) -> Prediction:
        self.asked += 1
        return TWIN


def said(module: Module | None = None, **known: Prediction) -> Said:
    return Said(CollapseGuard("ab"), module or Module(), None, 2, dict(known))


def served(
    shares: dict[str, float], answers: Said, *, own: bool, working: str = "batch", **more: Any
) -> dict[str, Any]:
    outputs = {"logits": ADAPTED.logits, "features": ADAPTED.features, **more}
    serve(outputs, ADAPTED, answers, shares, working, own=own)
    return outputs


def test_a_mixture_is_the_mean_of_probabilities_and_has_the_largest_ones_features() -> None:
    both = mixed([(0.25, ADAPTED), (0.75, SOURCE)])
    logits, features = both.logits, both.features
    assert first(logits) == pytest.approx([0.25 * 0.9 + 0.75 * 0.5, 0.25 * 0.2 + 0.75 * 0.6])
    assert torch.equal(features, SOURCE.features)
    assert torch.equal(mixed([(0.6, ADAPTED), (0.4, SOURCE)]).features, ADAPTED.features)


def test_logits_of_a_mixture_do_not_depend_on_what_each_ones_logits_are_shifted_by() -> None:
    shifted = Prediction(SOURCE.logits + 30, SOURCE.features)
    expected = mixed([(0.5, ADAPTED), (0.5, SOURCE)]).logits
    torch.testing.assert_close(mixed([(0.5, ADAPTED), (0.5, shifted)]).logits, expected)


def test_one_alone_is_served_as_it_is() -> None:
    assert mixed([(1.0, SOURCE)]) is SOURCE


def test_a_class_that_none_gives_any_probability_leaves_finite_logits() -> None:
    sure = Prediction(torch.tensor([[0.0, -1e9]]), torch.zeros(1, 3))
    logits = mixed([(0.5, sure), (0.5, sure)]).logits
    assert logits.isfinite().all()
    assert logits.argmax(1).tolist() == [0]


def test_halves_are_mixed_in_single_precision() -> None:
    half = Prediction(ADAPTED.logits.half(), ADAPTED.features)
    assert mixed([(0.5, half), (0.5, half)]).logits.dtype == torch.float32


def test_the_adapted_model_alone_leaves_the_outputs_as_they_are_and_asks_nobody() -> None:
    module = Module()
    outputs = served({"batch": 1.0}, said(module), own=True)
    assert outputs["logits"] is ADAPTED.logits
    assert outputs["served_by"] == "adapted"
    assert "shares" not in outputs
    assert module.asked == 0


def test_while_updates_wait_the_control_stands_for_the_working_statistics() -> None:
    module = Module()
    outputs = served({"batch": 1.0}, said(module), own=False)
    assert outputs["served_by"] == CONTROL
    assert torch.equal(outputs["logits"], TWIN.logits)
    assert torch.equal(outputs["features"], TWIN.features)
    assert module.asked == 1
    known = served({"batch": 1.0}, said(module, batch=BATCH), own=False)
    assert torch.equal(known["logits"], BATCH.logits), "what was said is not asked for again"
    assert module.asked == 1


@pytest.mark.parametrize("own", [True, False])
def test_a_candidate_alone_is_served_by_its_name(own: bool) -> None:
    outputs = served({"source": 1.0}, said(source=SOURCE), own=own)
    assert outputs["served_by"] == "source"
    assert torch.equal(outputs["logits"], SOURCE.logits)


def test_where_the_source_is_the_working_one_it_is_called_so() -> None:
    outputs = served({"source": 1.0}, said(), own=False, working="source")
    assert outputs["served_by"] == "source"
    assert torch.equal(outputs["logits"], TWIN.logits)


def test_a_mixture_names_who_is_in_it_and_the_adapted_model_stands_for_its_statistics() -> None:
    shares, answers = {"source": 0.75, "batch": 0.25}, {"source": SOURCE, "batch": BATCH}
    outputs = served(shares, said(**answers), own=True)
    assert outputs["served_by"] == "mixture"
    assert outputs["shares"] == {"source": 0.75, "adapted": 0.25}
    assert first(outputs["logits"]) == pytest.approx([0.6, 0.5])
    outputs = served(shares, said(**answers), own=False)
    assert outputs["shares"] == {"source": 0.75, CONTROL: 0.25}
    assert first(outputs["logits"]) == pytest.approx([0.4, 0.65])


def test_who_said_nothing_of_the_whole_batch_has_no_share() -> None:
    half = prediction(0.5, mark=2.0)  # of one image
    shares = {"source": 0.6, "batch": 0.3, "corrected": 0.1}
    answers = said(source=half, corrected=SOURCE)
    outputs = served(shares, answers, own=True)
    assert outputs["shares"] == pytest.approx({"adapted": 0.75, "corrected": 0.25})
    assert sum(outputs["shares"].values()) == pytest.approx(1)
    alone = served({"source": 1.0}, said(source=half), own=True)
    assert (alone["served_by"], alone["logits"]) == ("adapted", ADAPTED.logits)
    waiting = served({"source": 1.0}, said(source=half), own=False)
    assert waiting["served_by"] == CONTROL


def test_before_the_first_look_the_working_statistics_serve() -> None:
    assert served({}, said(), own=True)["served_by"] == "adapted"
    assert served({}, said(), own=False)["served_by"] == CONTROL


def test_what_a_method_calls_what_it_serves_stays() -> None:
    outputs = served({"batch": 1.0}, said(), own=True, served_by="source")
    assert outputs["served_by"] == "source"
    parts, answers = {"batch": 0.5, "corrected": 0.5}, said(corrected=BATCH)
    mixture = served(parts, answers, own=True, served_by="source")
    assert mixture["shares"] == {"source": 0.5, "corrected": 0.5}


def test_what_was_said_of_part_of_the_batch_is_asked_for_again() -> None:
    module = Module()
    answers = said(module, source=prediction(0.5), batch=BATCH)
    assert not answers.speaks("source")
    assert not answers.speaks("corrected")
    assert answers.speaks("batch")
    assert answers.of("batch") is BATCH
    assert module.asked == 0
    assert torch.equal(answers.of("source").logits, TWIN.logits)
    assert answers.speaks("source")
    assert module.asked == 1
