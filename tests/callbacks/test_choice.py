"""Choice, duty and corrections: small pure pieces of the guard."""

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from callbacks.choice import Choice, Reference, choose, handicapped, home_of, lead_of
from callbacks.duty import Duty
from torch import Tensor

from callbacks import CollapseGuard
from callbacks.corrections import CORRECTIONS
from tests.methods.test_methods import created, images
from tta.adaptation import AdaptationModule
from tta.methods import Prediction


def test_the_best_is_chosen_and_the_current_one_kept_where_it_is_about_as_good() -> None:
    assert choose({"source": 1.0, "batch": 1.04}, "source", 0.05) == "source"
    assert choose({"source": 1.0, "batch": 1.06}, "source", 0.05) == "batch"
    assert (
        choose({"batch": 1.0}, "source", 0.05) == "batch"
    )  # the current one could not predict the batch


def test_corrected_statistics_must_lead_by_much_unless_the_mix_varies() -> None:
    evidence = {"source": 1.0, "batch": 1.0, "corrected": 1.25}
    assert lead_of(handicapped(evidence, varying=0), "batch") == pytest.approx(-0.05)
    assert lead_of(handicapped(evidence, varying=1), "batch") == pytest.approx(0.25)
    skewed = {"source": 1.2, "batch": 1.0, "corrected": 1.25}
    assert handicapped(skewed, varying=0) == handicapped(
        skewed, varying=1
    )  # the source leads: others are suspect
    assert home_of({"source": 0, "corrected": 0, "batch": 0}) == "batch"
    assert home_of({"source": 0, "control": 0}) == "control"
    assert home_of({"source": 0}) is None


def test_corrected_statistics_are_no_better_than_the_source_they_are_made_of() -> None:
    misled = {"source": -0.5, "batch": 1.0, "corrected": 1.45}
    assert lead_of(handicapped(misled, varying=0), "batch") == pytest.approx(0.45 - 0.3 - 0.3 * 1.5)
    assert lead_of(handicapped(misled, varying=1), "batch") == pytest.approx(0.45)
    assert lead_of(handicapped(misled, varying=2), "batch") == pytest.approx(0.45 + 0.2)


def test_at_first_all_serve_by_their_evidence_then_two_until_the_hedge_ends() -> None:
    choice, every = (
        Choice(num_classes=4, hysteresis=0.05),
        {"source": 0, "batch": 0, "corrected": 0},
    )
    choice.evidence, choice.looks, choice.current = (
        {"source": -0.3, "batch": 0.7, "corrected": 0.2},
        3,
        "batch",
    )
    share = {name: math.exp(value) for name, value in choice.evidence.items()}
    found = choice.weights(every, batch=2)
    assert found == pytest.approx(
        {name: value / sum(share.values()) for name, value in share.items()}
    )
    choice.looks = 4
    assert choice.alongside(5) == ["corrected"]
    handicap = math.exp(-(0.3 + 0.3 * 1.0))  # the source is 1.0 behind
    corrected = share["corrected"] * handicap / (share["batch"] + share["corrected"] * handicap)
    two = {"batch": 1 - corrected, "corrected": corrected}
    assert choice.weights({"corrected": 0, "batch": 0}, batch=5) == pytest.approx(two)
    assert (
        choice.weights({"batch": 0}, batch=5) == {}
    )  # corrected statistics were not asked about the whole batch
    choice.evidence["batch"] += 0.1  # fits well
    assert choice.alongside(5) == []
    choice.evidence["batch"] -= 0.1
    assert choice.alongside(6) == []
    assert choice.weights(every, batch=6) == {}
    choice.current = "corrected"
    assert choice.weights(every, batch=5) == {}  # an alarm has spoken


def test_nothing_speaks_against_statistics_that_fit_and_lead_or_that_are_all_there_is() -> None:
    choice = Choice(num_classes=4, hysteresis=0.05)
    assert choice.undisputed
    choice.current, choice.looks, choice.evidence = (
        "batch",
        4,
        {"source": 0.0, "batch": 0.9, "corrected": 0.5},
    )
    assert choice.undisputed
    for speaks in (
        {"varying": 1},
        {"mistrusted": 2},
        {"current": "source"},
        {"evidence": {"source": 0.9, "batch": 0.9}},
    ):
        other = copy.deepcopy(choice)
        for name, value in speaks.items():
            setattr(other, name, value)
        assert not other.undisputed, speaks


def test_candidates_that_do_not_serve_are_asked_about_a_part() -> None:
    choice = Choice(num_classes=4, hysteresis=0.05)
    assert choice.partly(0) == set()
    choice.current, choice.looks, choice.evidence = (
        "batch",
        1,
        {"source": 0.0, "batch": 0.7, "corrected": 0.5},
    )
    assert choice.partly(1) == set()
    choice.evidence["batch"] = 0.8
    assert choice.partly(1) == {"source", "corrected"}, (
        "published statistics that fit well serve alone"
    )
    choice.mistrusted = 1
    assert choice.partly(2) == set()
    choice.mistrusted, choice.looks, choice.evidence["batch"] = None, 4, 0.7
    assert choice.partly(5) == {"source"}
    assert choice.partly(6) == {"source", "corrected"}


def test_where_the_published_statistics_lead_others_are_asked_every_other_time() -> None:
    choice = Choice(num_classes=4, hysteresis=0.05)
    choice.evidence, choice.current = {"source": 0.5, "batch": 1.0, "corrected": 0.9}, "batch"
    asked = []
    for choice.looks in range(3, 9):
        names = choice.contenders(batch=20)
        asked.append(names is None or "corrected" in names)
    assert asked == [False, True, False, True, False, True]
    choice.varying, choice.looks = 1, 7
    assert "corrected" in (choice.contenders(batch=20) or [])


def test_a_source_that_was_not_asked_still_counts_for_the_handicap() -> None:
    choice = Choice(num_classes=4, hysteresis=0.05)
    choice.evidence = {"source": -1.0, "batch": 0.2, "corrected": 0.6}
    asked = {"batch": None, "corrected": None}
    assert choice.handicapped(asked) == pytest.approx(
        {"batch": 0.2, "corrected": 0.6 - 0.3 - 0.3 * 1.2}
    )


def test_published_statistics_come_first_and_are_left_by_an_alarm_only() -> None:
    choice, every = (
        Choice(num_classes=4, hysteresis=0.05),
        {"source": 0, "batch": 0, "corrected": 0},
    )
    choice.evidence, choice.looks = {"source": 2.0, "batch": 1.0, "corrected": 1.5}, 1
    assert (choice.at_home(every), choice.preferred(every), choice.lead(every)) == (
        False,
        "batch",
        None,
    )
    choice.current, choice.looks = "batch", 2
    assert choice.at_home(every)
    assert choice.lead(every) == pytest.approx(0.95)
    assert choice.lead({"batch": 0}) is None
    choice.current = "corrected"
    assert (choice.at_home(every), choice.preferred(every)) == (False, "source")
    assert (
        choice.preferred({"batch": 0, "source": 0}) == "batch"
    )  # the one in use could not predict this batch


@pytest.mark.parametrize(
    ("source", "batch", "doubt"),
    [(0.2, 0.3, 0.3), (-0.6, 0.3, 0.1), (-2.0, 0.3, -1.3), (0.2, 0.9, -0.3), (1.0, -0.4, 1.0)],
)
def test_published_statistics_are_doubted_where_they_fit_badly_and_the_source_supports_it(
    source: float, batch: float, doubt: float
) -> None:
    choice, every = (
        Choice(num_classes=4, hysteresis=0.05),
        {"source": 0, "batch": 0, "corrected": 0},
    )
    choice.evidence, choice.looks, choice.current = (
        {"source": source, "batch": batch, "corrected": 0.0},
        2,
        "batch",
    )
    assert choice.doubt(every) == pytest.approx(doubt)
    choice.scanner_changes = True
    assert choice.doubt(every) is None  # the source may fail on one of the scanners
    choice.scanner_changes, choice.looks = False, 1
    assert choice.doubt(every) is None  # a single look
    choice.looks, choice.current = 2, "corrected"
    assert choice.doubt(every) is None


def test_what_is_heard_between_looks_counts_as_what_is_looked_at() -> None:
    torch.manual_seed(0)
    said = [
        {name: predicted([20 + index, 44 - index]) for name in ("batch", "corrected")}
        for index in range(9)
    ]
    looking, hearing = (Choice(num_classes=2, hysteresis=0.05) for _ in range(2))
    for index, candidates in enumerate(said):
        looking.weigh(candidates)
        if index < 5 or index == 8:
            hearing.weigh(candidates)
        else:
            hearing.hear(candidates)
    assert (looking.looks, hearing.looks) == (9, 6)
    assert hearing.evidence == looking.evidence
    torch.testing.assert_close(hearing.state_dict()["spreads"], looking.state_dict()["spreads"])


def test_doubt_is_said_once_and_mistrust_lasts_while_it_does() -> None:
    choice = Choice(num_classes=4, hysteresis=0.05)
    choice.evidence, choice.current = {"source": 0.2, "batch": 0.3, "corrected": 0.1}, "batch"
    assert choice.reconsidered(0.3, 5) == 0.3
    choice.mistrusted = 5
    for batch, doubt in ((6, 0.3), (8, -0.1), (13, 0.2), (40, 0.1)):
        assert choice.reconsidered(doubt, batch) is None
        assert choice.hedging(batch + 1)
    choice.reconsidered(-0.1, 41)
    assert not choice.hedging(42)
    choice.reconsidered(0.3, 50)
    assert not choice.hedging(51)


def test_mistrusted_statistics_serve_together_with_all_others() -> None:
    choice = Choice(num_classes=4, hysteresis=0.05)
    choice.evidence, choice.looks = {"source": 0.2, "batch": 0.3, "corrected": 0.1}, 20
    choice.current, choice.mistrusted = "batch", 30
    share = {name: math.exp(value) for name, value in choice.evidence.items()}
    expected = pytest.approx({name: value / sum(share.values()) for name, value in share.items()})
    asked = {"source": 0, "corrected": 0}  # the adapted model itself speaks for batch statistics
    assert [choice.alongside(batch) for batch in (29, 30, 90)] == [
        [],
        ["source", "corrected"],
        ["source", "corrected"],
    ]
    assert choice.weights(asked, batch=37) == expected
    assert (choice.partly(37), choice.contenders(37)) == (set(), None)
    choice.looks, choice.evidence["batch"] = 21, 2.0
    assert choice.contenders(37) is None, (
        "also where they fit better meanwhile: they serve together still"
    )
    choice.looks, choice.evidence["batch"] = 20, 0.3
    choice.relented = True
    assert choice.weights(asked, batch=38) == {}
    choice.relented = False
    choice.current = "corrected"
    assert choice.alongside(33) == []  # others were chosen


def predicted(counts: Sequence[int]) -> Prediction:
    """Confident predictions of each class so often."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Prediction(10.0 * torch.eye(len(counts))[labels], torch.randn(len(labels), 5))


@pytest.mark.parametrize(
    ("blocks", "change"), [(True, None), (True, 1.0), (True, 4.0), (False, None), (False, 4.0)]
)
def test_a_mix_varies_where_published_and_corrected_predictions_both_say_so_under_one_scanner(
    blocks: bool, change: float | None
) -> None:
    torch.manual_seed(0)
    moved = None if change is None else torch.tensor(change)
    choice = Choice(num_classes=2, hysteresis=0.05)
    choice.current = "batch"
    for index in range(12):
        share = (index // 3) % 2 if blocks else 0.5
        evened, clear = (int(64 * (0.5 + by * (share - 0.5))) for by in (0.6, 1.0))
        batch, corrected = predicted([evened, 64 - evened]), predicted([clear, 64 - clear])
        choice.noticed(torch.tensor([evened, 64 - evened], dtype=torch.float32))
        choice.weigh({"batch": batch, "corrected": corrected}, scanner_change=moved)
    assert choice.varying == (2 if blocks and change != 4.0 else 0)
    assert choice.scanner_changes == (change == 4.0)
    again = Choice(num_classes=2, hysteresis=0.05)
    again.load_state_dict(choice.state_dict())
    for one in (again, choice):
        one.weigh({"batch": batch, "corrected": corrected}, scanner_change=moved)
    assert (again.evidence, again.varying, again.looks) == (
        choice.evidence,
        choice.varying,
        choice.looks,
    )
    assert again.scanner_changes == choice.scanner_changes


@pytest.mark.parametrize("doing", ["adapted", "both"])
def test_a_mix_that_varies_by_the_adapted_models_own_doing_is_no_block(doing: str) -> None:
    torch.manual_seed(0)
    choice = Choice(num_classes=2, hysteresis=0.05)
    choice.current = "batch"
    for index in range(12):
        first = 60 if (index // 3) % 2 else 4
        twin = 32 if doing == "adapted" else first
        choice.noticed(torch.tensor([first, 64 - first], dtype=torch.float32))
        choice.weigh(
            {"batch": predicted([twin, 64 - twin]), "corrected": predicted([first, 64 - first])}
        )
    assert choice.varying == (0 if doing == "adapted" else 2)


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


def test_a_watch_checks_the_more_often_the_nearer_the_alarm_without_a_look() -> None:
    planned = Duty(next_check=9, next_look=9)
    for room, interval in ((0.0, 1), (3.9, 1), (4.0, 2), (6.5, 3), (1000.0, 4), (math.inf, 4)):
        duty = planned.watching(3, room)
        assert [duty.checks(batch) for batch in range(4, 9)] == [
            batch >= 3 + interval for batch in range(4, 9)
        ]
        assert not duty.looks(8)
    assert planned.watching(7, math.inf).checks(9), "a look is also a check"
    hurried = planned.hurried(3)
    assert hurried.looks(3)
    after = hurried.looked(3, patience=1, longest=9)
    assert (after.next_check, after.next_look) == (4, 7), "one batch tells a jump from chance badly"
    assert after.looked(7, patience=1, longest=9).next_check == 15


def test_a_check_while_watching_stands_for_the_batches_since_the_last_one() -> None:
    duty = Duty(next_check=9, next_look=9)
    assert duty.stands_for(9) == 1, "who was not watching does not know when it began"
    duty = duty.watching(3, math.inf)
    assert duty.stands_for(4) == 1
    assert duty.stands_for(7) == 4
    assert duty.unwatched().stands_for(7) == 1
    assert duty.alerted(5).stands_for(7) == 1
    missed = duty.missed(6)
    assert missed.checks(7)
    assert missed.stands_for(7) == 3, (
        "the next check stands for the batches since the last one, less that which could not be "
        "measured"
    )
    assert Duty().missed(6).stands_for(7) == 1


def test_candidates_wait_for_the_end_of_a_rest_and_a_model_that_was_cleared_as_well() -> None:
    duty = Duty(next_check=30, next_look=30).corrected(20, rest=8, unmoved=False)
    assert duty.checks(21)
    assert [batch for batch in range(21, 31) if duty.looks(batch)] == [29, 30]
    assert [batch for batch in range(21, 31) if duty.cleared().checks(batch)] == [29, 30]
    assert duty.looked(29, patience=2, longest=16).next_look == 33, (
        "calm starts anew with the correction"
    )
    assert not Duty().corrected(20, rest=8, unmoved=True).checks(28), (
        "a model at the source is its own control"
    )


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
    ("rung", "left"),
    [("reset", 0.0), ("freeze", 0.0), ("reweight", 0.0), ("restore", 0.5), ("slow", 0.5)],
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


class Several(Plain):
    """A module with several statistics, under each of which features lie more or less blurred about
    their classes.
    """

    def __init__(self, blur: Mapping[str, float]) -> None:
        super().__init__()
        self.blur, self.used, self.paused = dict(blur), [], False

    def pause(self, paused: bool = True) -> None:
        self.paused = paused

    def predict(self, batch: Tensor, name: str) -> Prediction:
        noise = torch.randn(len(batch), 3, generator=torch.Generator().manual_seed(len(self.used)))
        features = 3 * torch.eye(3)[batch] + self.blur[name] * noise
        return Prediction(2 * features, features)

    def control(self, batch: Tensor) -> Prediction:
        return self.predict(batch, self.used[-1])

    def candidates(
        self, batch: Tensor, names: Sequence[str] | None = None, partly: Collection[str] = ()
    ) -> dict[str, Prediction]:
        return {name: self.predict(batch, name) for name in (self.blur if names is None else names)}

    def use(self, name: str) -> None:
        self.used.append(name)

    def scanner_change(self) -> Tensor | None:
        return None


def mixed(index: int) -> Tensor:
    return torch.arange(60) % 3


def watched(
    blur: Mapping[str, float], count: int = 12, batch_of: Callable[[int], Tensor] = mixed
) -> tuple[CollapseGuard, Several, list[dict[str, Any]]]:
    reference = Reference(3 * torch.eye(3), torch.ones(3, 3))
    guard, module, outputs = CollapseGuard(("a", "b", "c"), reference=reference), Several(blur), []
    for index in range(count):
        batch = batch_of(index)
        adapted = module.predict(batch, module.used[-1] if module.used else "batch")
        outputs.append({"logits": adapted.logits, "features": adapted.features})
        guard.on_train_batch_end(None, module, outputs[-1], batch, index)  # type: ignore[arg-type]
    return guard, module, outputs


@pytest.mark.parametrize(("better", "resets"), [("source", 1), ("corrected", 0)])
def test_statistics_that_do_not_suit_the_stream_are_left_by_an_alarm(
    better: str, resets: int
) -> None:
    guard, module, outputs = watched({"source": 3.0, "batch": 2.0, "corrected": 3.0, better: 0.2})
    assert guard.alarms == 1
    alarm = guard.alarmed[0]
    assert 1 <= alarm <= 3
    assert module.used == ["batch", better]
    assert outputs[alarm]["verdict"] == "ALARM"
    events = outputs[alarm]["events"]
    assert [event["event"] for event in events] == ["verdict", "correction"]
    assert events[1]["correction"] == "statistics"
    assert set(events[1]["evidence"]) == {"source", "batch", "corrected"}
    assert (outputs[alarm]["choice"], outputs[alarm + 1]["choice"]) == (
        "batch",
        better,
    )  # judged under
    # Where the source serves, what was learned is undone, and updates rest at the source.
    assert (guard.resets, module.resets, module.paused) == (
        [alarm] * resets,
        resets,
        better == "source",
    )
    assert guard.state == "OK"


def test_where_published_statistics_suit_there_is_no_alarm() -> None:
    guard, module, outputs = watched({"source": 0.3, "batch": 0.3, "corrected": 0.3})
    assert guard.alarms == 0
    assert module.used == ["batch"]
    assert {output["verdict"] for output in outputs} == {"OK"}


def test_where_the_mix_begins_to_vary_it_is_looked_at_without_waiting_for_the_next_look() -> None:
    def in_blocks(index: int) -> Tensor:
        return (
            mixed(index)
            if index < 20
            else torch.cat([torch.full((35,), index // 2 % 3), mixed(index)[:25]])
        )

    alike = {"source": 0.3, "batch": 0.3}
    _, _, calm = watched(alike, 32)
    _, _, outputs = watched(alike, 32, in_blocks)
    assert [output["checked"] for output in outputs[:20]] == [
        output["checked"] for output in calm[:20]
    ]
    assert sum(output["checked"] for output in calm[20:]) <= 2
    assert sum(output["checked"] for output in outputs[20:26]) >= 4


def test_a_suspicion_tires_until_the_mix_varies_still_more() -> None:
    duty = Duty(next_check=40, next_look=40).suspected(30, 0.8)
    assert (duty.next_look, duty.calm_since) == (30, 30)
    assert duty.suspect == pytest.approx(1.4 * 0.8)
    assert duty.alerted(31).suspect == duty.suspect
    assert Duty().suspect < 0.8


def blended(module: Several, names: Sequence[str], evidence: Mapping[str, float]) -> Tensor:
    """What candidates say together, each by the exponential of its evidence."""
    said = torch.stack([module.predict(mixed(0), name).logits.softmax(1) for name in names])
    return torch.einsum(
        "k,knc->nc", torch.tensor([evidence[name] for name in names]).softmax(0), said
    )


def test_at_first_candidates_serve_together_by_their_evidence() -> None:
    blur = {"source": 3.11, "batch": 3.1}
    guard, module, outputs = watched(blur, 2)
    torch.testing.assert_close(
        outputs[1]["logits"].exp(), blended(module, list(blur), guard.choice.evidence)
    )
    assert outputs[1]["shares"].keys() == {"adapted", "source"}
    assert outputs[1]["shares"]["source"] == pytest.approx(
        float(torch.tensor([*guard.choice.evidence.values()]).softmax(0)[0])
    )
    _, _, outputs = watched(blur, 4)
    served = [output["served_by"] for output in outputs]
    assert served == ["mixture", "mixture", "mixture", "adapted"]
    assert "shares" not in outputs[3]


def test_until_the_hedge_ends_corrected_statistics_serve_along_with_the_adapted_model() -> None:
    blur = {"source": 3.1, "batch": 3.1, "corrected": 3.6}
    guard, module, outputs = watched(blur, 6)
    names = ["batch", "corrected"]
    expected = blended(module, names, guard.choice.handicapped(dict.fromkeys(names)))
    torch.testing.assert_close(outputs[5]["logits"].exp(), expected)
    guard, _, outputs = watched(blur, 10)
    assert guard.alarms == 0
    assert [output["served_by"] for output in outputs] == ["mixture"] * 6 + ["adapted"] * 4
    assert outputs[5]["shares"].keys() == {"adapted", "corrected"}
    assert sum(outputs[5]["shares"].values()) == pytest.approx(1)
    _, _, outputs = watched({**blur, "batch": 0.3}, 10)
    assert "mixture" not in [output["served_by"] for output in outputs[3:]], (
        "where published statistics fit well"
    )


def test_corrected_statistics_see_every_other_look_however_far_behind() -> None:
    asked: list[list[str]] = []

    class Counting(Several):
        def candidates(
            self, batch: Tensor, names: Sequence[str] | None = None, partly: Collection[str] = ()
        ) -> dict[str, Prediction]:
            result = super().candidates(batch, names, partly)
            asked.append(list(result))
            return result

    guard, module = (
        CollapseGuard(("a", "b", "c")),
        Counting({"source": 9.0, "batch": 0.2, "corrected": 9.0}),
    )
    for index in range(80):
        adapted = module.predict(torch.arange(60) % 3, "batch")
        outputs = {"logits": adapted.logits, "features": adapted.features}
        guard.on_train_batch_end(None, module, outputs, torch.arange(60) % 3, index)  # type: ignore[arg-type]
    assert all("corrected" in names for names in asked[:5])
    later = ["corrected" in names for names in asked[5:]]
    assert all(this != following for this, following in pairwise(later))
    assert 4 <= sum("source" in names for names in asked) < len(asked)


def test_where_neither_batch_statistics_nor_the_source_fit_all_serve_and_updates_rest() -> None:
    blur = {"source": 4.2, "batch": 4.0, "corrected": 4.0}
    guard, module, outputs = watched(blur, 5)
    assert (guard.alarmed, guard.resets, module.resets) == ([1], [], 0)
    correction = next(event for event in outputs[1]["events"] if event["event"] == "correction")
    assert (correction["reason"], correction["correction"]) == ("doubt", "hedge")
    assert outputs[1]["verdict"] == "ALARM"
    assert module.paused
    names = ["source", "batch", "corrected"]
    torch.testing.assert_close(
        outputs[4]["logits"].exp(), blended(module, names, guard.choice.evidence)
    )
    guard, module, outputs = watched(blur, 20)
    assert guard.alarmed == [1]  # once
    assert module.paused, "for as long as doubt lasts"
    assert [output["served_by"] for output in outputs] == ["mixture"] * 20
    assert outputs[1]["shares"].keys() == {"control", "source", "corrected"}  # on the alarm
    module.blur["batch"] = 0.2
    for index in range(20, 60):
        adapted = module.predict(mixed(index), "batch")
        outputs.append({"logits": adapted.logits, "features": adapted.features})
        guard.on_train_batch_end(None, module, outputs[-1], mixed(index), index)  # type: ignore[arg-type]
    assert (guard.alarmed, module.paused) == ([1], False)
    assert outputs[-1]["served_by"] == "adapted"


def test_looks_thin_out_less_where_published_statistics_fit_badly() -> None:
    def gaps(blur: Mapping[str, float]) -> list[int]:
        guard, _, outputs = watched(blur, 60)
        assert guard.alarms == 0
        looks = [index for index, output in enumerate(outputs) if output["checked"]]
        return [following - this for this, following in pairwise(looks)]

    assert max(gaps({"source": 0.3, "batch": 0.3, "corrected": 0.3})) > 8
    assert max(gaps({"source": 30.0, "batch": 4.0, "corrected": 4.0})) == 4


def test_a_scanner_that_changes_is_told_once_when_it_is_first_seen() -> None:
    class Moving(Several):
        def scanner_change(self) -> Tensor | None:
            return torch.tensor(1.0 if len(self.used) == 0 else 5.0)

    guard, module, told = (
        CollapseGuard(("a", "b", "c")),
        Moving({"source": 0.3, "batch": 0.2, "corrected": 0.3}),
        [],
    )
    for index in range(6):
        adapted = module.predict(mixed(index), "batch")
        outputs: dict[str, Any] = {"logits": adapted.logits, "features": adapted.features}
        guard.on_train_batch_end(None, module, outputs, mixed(index), index)  # type: ignore[arg-type]
        told += [(event["event"], event["batch"]) for event in outputs["events"]]
    assert told == [("choice", 0), ("scanner", 1)]
