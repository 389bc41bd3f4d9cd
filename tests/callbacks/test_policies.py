"""Published guards: each formula, what makes it fire and what does not, and the callback that runs
them.
"""

import csv
import math
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from holdfast.callbacks import GUARDS, POLICIES, CollapseGuard, PolicyGuard, create_guard
from holdfast.callbacks.policies.base import RESET, Action, Policy, Ruling
from holdfast.callbacks.settings import NoGuardConfig
from holdfast.programs import adapt
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction, create_method
from holdfast.tta.objectives import entropy
from tests.callbacks.guard.test_guard import Features, Harm, Recorder, batches, step
from tests.conftest import ACCELERATOR, QUICK
from tests.methods.test_methods import created, images

#: The source of the made-up streams: 3 classes on the axes of feature space, with unit variance.
FACTS = {
    "feature_mean": 3 * torch.eye(3),
    "feature_var": torch.ones(3, 3),
    "entropy_quantiles": torch.linspace(0, 1, 101),
}


def policy(name: str, classes: int = 3, **settings: Any) -> Policy:
    kind = POLICIES[name]
    return kind(kind.Config(**settings), classes, {key: FACTS[key] for key in kind.uses})


def predicted(
    seed: int, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3), size: int = 64, scale: float = 1.0
) -> Prediction:
    """A batch of the source's classes in these shares; logits are the features, times ``scale``."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(shares), size, replacement=True, generator=rng)
    features = 3 * torch.eye(3)[labels] + torch.randn(size, 3, generator=rng)
    return Prediction(scale * features, features)


def with_entropy(values: Tensor) -> Prediction:
    """Predictions of two classes with these entropies, found by bisection."""
    low, high = torch.zeros_like(values), torch.full_like(values, 40.0)
    for _ in range(60):
        middle = (low + high) / 2
        logits = torch.stack([middle, torch.zeros_like(middle)], 1)
        low, high = (
            torch.where(entropy(logits) > values, middle, low),
            torch.where(entropy(logits) > values, high, middle),
        )
    return Prediction(torch.stack([low, torch.zeros_like(low)], 1), torch.zeros(len(values), 3))


def run(
    judged: Policy, predictions: list[Prediction], control: list[Prediction] | None = None
) -> list[Ruling]:
    return [judged.judge(p, c) for p, c in zip(predictions, control or predictions, strict=True)]


def alarms(rulings: list[Ruling]) -> list[int]:
    return [index for index, ruling in enumerate(rulings) if ruling.verdict.state == "ALARM"]


CALM = [predicted(seed) for seed in range(40)]


def test_periodic_resets_after_every_nth_batch_and_calls_it_no_alarm() -> None:
    rulings = run(policy("periodic", every=3), CALM[:8])
    assert [index for index, ruling in enumerate(rulings) if ruling.action == RESET] == [2, 5]
    assert alarms(rulings) == []
    assert policy("periodic").config.every == 1000


def test_entropy_floor_by_hand() -> None:
    judged = policy("entropy_floor", classes=2, floor=0.3, memory=0.9)
    first, second = with_entropy(torch.full((5,), 0.5)), with_entropy(torch.full((5,), 0.1))
    rulings = run(judged, [first, second])
    assert [r.evidence["running_entropy"] for r in rulings] == pytest.approx(
        [0.5, 0.9 * 0.5 + 0.1 * 0.1], abs=1e-4
    )
    assert rulings[0].evidence["floor"] == pytest.approx(0.3 * math.log(2))
    # From .46 it takes n batches until .1 + .36 * .9^n is below .208; then the mean starts afresh,
    # at .1, below the floor.
    rulings = run(judged, [second] * 14)
    assert alarms(rulings) == [11, 12, 13]
    assert {rulings[index].action for index in alarms(rulings)} == {RESET}
    assert alarms(run(policy("entropy_floor"), CALM)) == []


def test_stochastic_restore_always_restores_and_never_alarms() -> None:
    rulings = run(policy("stochastic_restore", share=0.2), CALM[:3])
    assert [ruling.action for ruling in rulings] == [Action("restore_elements", 0.2)] * 3
    assert alarms(rulings) == []


def test_divergence_by_hand_and_on_features_that_leave() -> None:
    judged = policy("divergence", memory=0.5, pull=0.2, threshold=0.9)
    away = Prediction(torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[9.0, 0.0, 0.0]]))
    ruling = judged.judge(
        away
    )  # the mean of class 0 is now at 6, 3 from the source's, in one of three directions
    gamma = 1 - math.exp(-(3**2) / 3)
    assert ruling.evidence["divergence"] == pytest.approx(gamma, rel=1e-4)
    assert ruling.action == Action("restore", pytest.approx(0.2 * gamma, rel=1e-4))
    assert [r.verdict.state for r in [ruling, *run(judged, [away, away])]] == [
        "ALARM",
        "WATCH",
        "WATCH",
    ]
    calm = run(policy("divergence"), CALM)
    assert alarms(calm) == []
    assert max(ruling.evidence["divergence"] for ruling in calm) < 0.1


def test_concentration_by_hand() -> None:
    judged = policy("concentration", classes=4, rate=0.5, share=0.5, growth=2.0)
    flat = Prediction(torch.zeros(4, 4), torch.zeros(4, 3))
    other = Prediction(
        torch.eye(4).roll(1, 1) * torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None], flat.features
    )  # half agree
    ruling = judged.judge(flat, other)
    assert ruling.evidence == pytest.approx(
        {"concentration_entropy": math.log(4), "threshold": math.log(2)}
    )
    threshold = math.log(2) + 0.5 * 0.5 * math.log(2)
    assert judged.threshold == pytest.approx(threshold)
    logits = torch.tensor([[3.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]])
    sharp = Prediction(logits, torch.zeros(2, 3))
    value = entropy(torch.tensor([[2.0, 2.0, 0.0, 0.0]])).item()
    assert value > threshold
    assert judged.judge(sharp, sharp).verdict.state == "OK"
    before = judged.threshold
    sharper = Prediction(
        torch.tensor([[8.0, 0.0, 0.0, 0.0], [0.0, 7.0, 0.0, 0.0]]), torch.zeros(2, 3)
    )
    gap = before - entropy(torch.tensor([[4.0, 3.5, 0.0, 0.0]])).item()
    ruling = judged.judge(sharper, sharper)
    assert ruling.action == Action("restore_last", pytest.approx(0.5 + 2 * gap, rel=1e-4))
    assert judged.threshold == pytest.approx(math.log(2))


def test_concentration_with_two_classes_starts_where_it_cannot_fire() -> None:
    judged = policy("concentration", classes=2)
    sure = with_entropy(torch.full((8,), 1e-4))
    assert alarms(run(judged, [sure])) == []
    # but its threshold rises with the entropy, and then it can
    assert alarms(run(judged, [with_entropy(torch.full((8,), 0.6))] * 20 + [sure])) == [20]


def test_concentration_fires_on_collapse() -> None:
    collapsed = [predicted(100 + seed, (1.0, 0.0, 0.0), scale=3.0) for seed in range(5)]
    assert alarms(run(policy("concentration"), CALM[:10] + collapsed))[0] == 10


def test_zscore_against_numpy() -> None:
    stream = [predicted(seed, (0.5, 0.3, 0.2)) for seed in range(16)]
    rulings = run(policy("zscore", window=4, warm_up=5, threshold=50.0), stream)
    shares = np.stack([np.bincount(p.logits.argmax(1), minlength=3) / 64 for p in stream])
    for index, ruling in enumerate(rulings):
        before, recent = shares[: max(index - 3, 0)], shares[max(index - 3, 0) : index + 1]
        if len(before) < 5:
            assert ruling.evidence == {}
            continue
        unit = np.maximum(before.std(0, ddof=1), 1 / 64) * np.sqrt(1 / 4 + 1 / len(before))
        z = (recent.mean(0) - before.mean(0)) / unit
        assert ruling.evidence["z"] == pytest.approx(z[np.abs(z).argmax()])


def test_zscore_fires_when_the_marginal_moves() -> None:
    assert alarms(run(policy("zscore"), CALM)) == []
    skewed = [predicted(seed, (0.9, 0.05, 0.05)) for seed in range(10)]
    rulings = run(policy("zscore"), CALM[:25] + skewed)
    assert 25 <= alarms(rulings)[0] <= 30
    assert rulings[alarms(rulings)[0]].action == RESET


def test_martingale_fires_on_entropies_that_are_not_the_sources_only() -> None:
    kind = POLICIES["martingale"]
    rng = torch.Generator().manual_seed(0)
    fair = [with_entropy(torch.rand(64, generator=rng) * math.log(2)) for _ in range(40)]
    judged = kind(kind.Config(), 2, {"entropy_quantiles": torch.linspace(0, math.log(2), 101)})
    assert alarms(run(judged, fair)) == []
    lower = [with_entropy(torch.rand(64, generator=rng) * 0.2) for _ in range(10)]
    rulings = run(judged, lower)
    assert alarms(rulings)
    assert rulings[alarms(rulings)[0]].evidence["bet"] < 0
    assert rulings[alarms(rulings)[0]].evidence["log_wealth"] >= math.log(100)
    assert judged.state_dict()["log_wealth"] < math.log(100)  # betting anew


def test_proxy_risk_fires_when_uncertain_predictions_are_surely_too_many() -> None:
    kind = POLICIES["proxy_risk"]
    judged = kind(
        kind.Config(quantile=0.8, tolerance=0.05),
        2,
        {"entropy_quantiles": torch.linspace(0, math.log(2), 101)},
    )
    rng = torch.Generator().manual_seed(0)
    fair = [with_entropy(torch.rand(64, generator=rng) * math.log(2)) for _ in range(30)]
    rulings = run(judged, fair)
    assert alarms(rulings) == []
    seen = torch.cat([entropy(p.logits) for p in fair])
    assert rulings[-1].evidence["risk"] == pytest.approx(
        (seen > 0.8 * math.log(2)).float().mean().item(), abs=1e-3
    )
    assert 0.1 < rulings[-1].evidence["risk_bound"] < rulings[-1].evidence["risk"]
    unsure = [with_entropy(torch.rand(64, generator=rng) * 0.2 + 0.49) for _ in range(30)]
    assert alarms(run(judged, unsure))


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_goes_on_from_its_state(name: str) -> None:
    stream = [*CALM[:22], *[predicted(seed, (0.8, 0.2, 0.0), scale=4.0) for seed in range(18)]]
    straight = run(policy(name), stream)
    first = policy(name)
    half = run(first, stream[:25])
    second = policy(name)
    second.load_state_dict(first.state_dict())
    assert half + run(second, stream[25:]) == straight


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("periodic", {"every": 0}),
        ("entropy_floor", {"floor": 1.5}),
        ("entropy_floor", {"memory": 1.0}),
        ("stochastic_restore", {"share": -0.1}),
        ("divergence", {"pull": 2.0}),
        ("concentration", {"start": 0.0}),
        ("concentration", {"growth": -1.0}),
        ("zscore", {"threshold": 0.0}),
        ("zscore", {"warm_up": 1}),
        ("martingale", {"alpha": 0.0}),
        ("martingale", {"clip": 2.0}),
        ("proxy_risk", {"quantile": 1.0}),
        ("proxy_risk", {"alpha": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"guard\."):
        POLICIES[name].Config(**bad)


def test_a_part_of_the_source_comes_back() -> None:
    method = created("tent", lr=0.1)
    source = method.adapted_state()
    with torch.no_grad():
        for parameter in method.adapted.values():
            parameter.add_(1.0)
    method.restore_elements(0.5)
    moved = torch.cat(
        [(value - source[name]).flatten() for name, value in method.adapted_state().items()]
    )
    assert set(moved.round().tolist()) == {0.0, 1.0}
    assert 0.2 < moved.mean() < 0.8
    with torch.no_grad():
        for name, parameter in method.adapted.items():
            parameter.copy_(source[name] + 1)
    method(images())  # leaves optimiser moments behind
    adapted = method.adapted_state()
    names = list(adapted)
    method.restore_last(0.6)  # of four tensors the first two stay
    now = method.adapted_state()
    assert all(torch.equal(now[name], adapted[name]) for name in names[:2])
    assert all(torch.equal(now[name], source[name]) for name in names[2:])
    assert method.optimizer is not None
    assert not method.optimizer.state


def guarded(judged: Policy, stream: Any, *callbacks: Callback, **more: Any) -> Any:
    torch.manual_seed(0)
    module = AdaptationModule(
        create_method("tent", Features(), num_classes=3, **more), batch_size=64, screen=False
    )
    guard, recorder = PolicyGuard(judged), Recorder()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        max_epochs=1, accelerator=ACCELERATOR, callbacks=[*callbacks, guard, recorder], **quiet
    )
    trainer.fit(module, torch.utils.data.DataLoader(stream, batch_size=None))
    return module, guard, recorder.outputs


def test_the_callback_corrects_the_model_and_serves_the_adapted_prediction() -> None:
    module, guard, outputs = guarded(policy("periodic", every=4), batches(9), lr=1e-2)
    assert (guard.resets, guard.alarms, guard.batch) == ([3, 7], 0, 9)
    assert {output["served_by"] for output in outputs} == {"adapted"}
    assert [event["correction"] for event in outputs[3]["events"]] == ["reset"]
    once = create_method("tent", Features(), num_classes=3, lr=1e-2)
    once(batches(9)[8]["image"])  # one update since the last reset
    for name, value in once.adapted_state().items():
        torch.testing.assert_close(module.method.adapted_state()[name], value)


def test_an_alarm_is_recorded_with_its_evidence() -> None:
    _, guard, outputs = guarded(
        policy("zscore", window=3, warm_up=4), batches(30), Harm(start=15), lr=1e-5
    )
    first = guard.alarmed[0]
    assert first >= 15
    assert guard.resets[0] == first
    assert outputs[first]["verdict"] == "ALARM"
    assert [event["event"] for event in outputs[first]["events"]] == ["verdict", "correction"]
    assert abs(outputs[first]["events"][1]["evidence"]["z"]) > 3
    assert outputs[first]["statistics"] == outputs[first]["events"][1]["evidence"]
    assert outputs[first]["served_by"] == "adapted"


def test_values_that_are_not_finite_do_not_stay_in_a_policys_mean() -> None:
    class Poison(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, module: Any, batch: Any, index: int
        ) -> None:
            if index == 2:
                module.method.adapted["norm.weight"].data.fill_(math.nan)

    _, guard, outputs = guarded(policy("entropy_floor", floor=0.0), batches(5), Poison())
    assert not outputs[3]["logits"].isfinite().any()
    assert outputs[3]["statistics"] == {}
    assert math.isfinite(guard.policy.running)
    _, guard, outputs = guarded(policy("periodic", every=4), batches(6), Poison())
    assert outputs[4]["logits"].isfinite().all()


def test_a_stream_goes_on_exactly() -> None:
    stream = batches(24)
    _, straight, expected = guarded(
        policy("zscore", window=3, warm_up=4), stream, Harm(12), lr=1e-3
    )
    module, _, _ = guarded(policy("zscore"), [], lr=1e-3)
    guard = PolicyGuard(policy("zscore", window=3, warm_up=4))
    harm, outputs = Harm(12), []
    for index, batch in enumerate(stream):
        if index == 10:
            state = guard.state_dict()
            guard = PolicyGuard(policy("zscore", window=3, warm_up=4))
            guard.load_state_dict(state)
        harm.on_train_batch_start(None, module, batch, index)  # type: ignore[arg-type]
        outputs.append(step(module, batch, index))
        guard.on_train_batch_end(None, module, outputs[-1], batch, index)  # type: ignore[arg-type]
    assert [o["verdict"] for o in outputs] == [o["verdict"] for o in expected]
    assert (guard.alarmed, guard.resets) == (straight.alarmed, straight.resets)
    assert guard.alarms > 0


def test_a_module_that_lacks_a_function_is_told_which() -> None:
    guard = PolicyGuard(policy("concentration"))
    trainer = Trainer(logger=False, enable_checkpointing=False, callbacks=[guard])
    with pytest.raises(
        InputError, match=r"Concentration needs restore_last\(\) and control\(\) of LightningModule"
    ):
        guard.setup(trainer, LightningModule(), "test")


def test_guards_are_made_by_name(source: Any) -> None:
    checkpoint = SourceCheckpoint.load(source)
    assert create_guard("off", NoGuardConfig(), checkpoint) is None
    assert isinstance(create_guard("on", GUARDS["on"](), checkpoint), CollapseGuard)
    for name in POLICIES:
        guard = create_guard(name, GUARDS[name](), checkpoint)
        assert isinstance(guard, PolicyGuard)
        assert set(guard.policy.facts) == set(guard.policy.uses)


@pytest.mark.parametrize(
    "name", ["stochastic_restore", "divergence", "concentration"]
)  # which need most of the module
def test_adapt_runs_under_a_policy(name: str, source: Any, tmp_path: Any, caplog: Any) -> None:
    words = [
        f"source={source}",
        f"output={tmp_path}",
        f"guard={name}",
        "method=tent",
        "data.target_images=200",
        *QUICK,
    ]
    assert adapt.main(words) == 0
    assert "method.normalization=batch" in caplog.text
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert {row["served_by"] for row in csv.DictReader(file)} == {"adapted"}
