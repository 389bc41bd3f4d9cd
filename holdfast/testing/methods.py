"""What every method promises, as one function for anybody's tests."""

import io
import math
from typing import Any

import torch

from holdfast.testing.subject import (
    CLASSES,
    NETWORKS,
    Subject,
    differing,
    images,
    tensors,
)
from holdfast.testing.trainer import runs_guarded
from holdfast.tta.errors import said
from holdfast.tta.methods import METHODS, Method, Update
from holdfast.tta.tasks import Task, create_task

_STATE = "keep running state in buffers (register_buffer) or self.memory, made in register_state"
_DRAWS = "draw from self.generator (generator=self.generator), never from torch's own"


def check_method(
    method: type[Method] | str, *, task: str | type[Task] = "single", **options: Any
) -> None:
    """Check that a method keeps what methods promise; takes about a second.

    It runs on three small networks (BatchNorm, GroupNorm, and LayerNorm or InstanceNorm) of four
    classes and one channel. What it ``uses`` of a source is made up. Random numbers of the caller
    are left alone.

    Args:
        method: the class, or the name that it is registered by.
        task: what the networks answer: a key of ``TASKS``, or a class of one.
        **options: hyperparameters, such as let every image through its filters: a method that skips
            all batches cannot be checked.

    Raises:
        AssertionError: a promise is broken; the sentence says which, and what to do.

    Example:
        >>> check_method("tent", lr=0.01)
    """
    checked = METHODS[method] if isinstance(method, str) else method
    subject = Subject(checked, options, create_task(task, CLASSES))
    with torch.random.fork_rng(devices=[]):
        for promise, check in _PROMISES.items():
            try:
                check(subject)
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(
                    f"{subject.method.__name__} breaks the promise that it {promise}, by an error "
                    f"({said(error)}): the traceback above says where"
                ) from error


def _runs_on_any_network(subject: Subject) -> None:
    for norm in NETWORKS:
        method = subject.create(norm)
        batches = {
            "eight images": images(),
            "one image": images(1, count=1),
            "identical images": images(2, count=1).expand(3, -1, -1, -1).clone(),
            "other images": images(3),
        }
        for what, batch in batches.items():
            where = f"for {what} on a network with {norm}"
            logits = method(batch)
            subject.require(
                logits.shape == subject.shape(len(batch)),
                f"answers {tuple(logits.shape)} {where}",
                f"return logits of shape {_SHAPES[subject.task.dense]}",
            )
            finite = logits.isfinite().all() and all(
                value.isfinite().all() for value in method.adapted.values()
            )
            subject.require(
                bool(finite),
                f"has NaN or infinity in its logits or weights {where}",
                "guard divisions, logarithms and variances, and let objective return None where "
                "there is nothing to learn from",
            )


def _learns(subject: Subject) -> None:
    method, calls = subject.create(), [0]
    if not method.adapted:
        return
    step = method.step

    def counted() -> Any:
        calls[0] += 1
        return step()

    method.step = counted
    updates, served, source = [], [], method.adapted_state()
    for seed in range(4):
        method.begin_batch()
        prediction = method.predict(images(seed)) if method.predicts_first else None
        updates.append(method.update(images(seed), prediction))
        served.append((updates[-1].prediction or prediction or method.predict(images(seed))).served)
    subject.require(
        any(update.skipped is None for update in updates),
        f"skipped all batches ({updates[-1].skipped}), so nothing can be checked",
        "give check_method the options that open its filters",
    )
    moved = differing(source, method.adapted_state())
    twin = [_served(method.control(images(seed))) for seed in range(4)]
    subject.require(
        bool(moved) or any(not torch.allclose(*pair) for pair in zip(served, twin, strict=True)),
        "never moves what it adapts",
        "return a loss from objective that depends on the adapted tensors",
    )
    subject.require(
        calls[0] > 0 or not moved,
        "moves its weights without self.step",
        "learn by self.descend(loss), or self.backward and self.step: Lightning puts its own there",
    )


def _changes_its_own_tensors_only(subject: Subject) -> None:
    method = subject.create()
    before = tensors(method.model.state_dict())
    for seed in range(3):
        method(images(seed))
    changed = [
        name
        for name in differing(before, tensors(method.model.state_dict()))
        if name not in method.adapted and "moving_" not in name
    ]
    subject.require(
        not changed,
        f"changed {', '.join(changed[:3])} of the source's network",
        "name in adapts() what updates may change, and leave parameters and buffers else alone",
    )
    leaking = [
        name
        for name, parameter in method.model.named_parameters()
        if name not in method.adapted and (parameter.requires_grad or parameter.grad is not None)
    ]
    subject.require(
        not leaking,
        f"lets gradients into {', '.join(leaking[:3])}",
        "leave requires_grad as Method sets it: on for what adapts() names",
    )


def _predicts_before_it_learns(subject: Subject) -> None:
    method = subject.having_learned(1)
    state, draws = tensors(method.state_dict()), method.generator.get_state()
    with torch.enable_grad():
        before = method.predict(images(1)).detach()
    subject.require(
        before.features.dim() == 2 and len(before.features) == len(before.logits),
        f"predicts features of shape {tuple(before.features.shape)}",
        f"return those that self.run gives, a row each {subject.task.row}",
    )
    changed = differing(_without_draws(state), _without_draws(tensors(method.state_dict())))
    subject.require(
        not changed,
        f"learns in predict ({', '.join(changed[:3])} changed)",
        "change state in objective or learn only",
    )
    method.generator.set_state(draws)
    update: list[Update] = []
    learn = method.update

    def noted(*arguments: Any) -> Update:
        update.append(learn(*arguments))
        return update[-1]

    method.update = noted  # type: ignore[assignment, method-assign]
    served = method(images(1))
    if method.predicts_first and update[0].prediction is None and not _episodic(method):
        subject.require(
            torch.equal(served, before.served),
            "serves a batch by weights that have learned from it",
            "leave forward alone, or say Update(prediction=…) or predicts_first = False",
        )


def _keeps_the_source(subject: Subject) -> None:
    expected = _served(subject.create().control(images(9)))
    method = subject.having_learned()
    with torch.no_grad():
        source = subject.network().eval()(images(9))
    for name, told, truth in (
        ("control", _served(method.control(images(9))), expected),
        ("source", _served(method.source(images(9))), source),
    ):
        subject.require(
            torch.allclose(told, truth, atol=1e-5, rtol=1e-4),
            f"no longer has its {name} once it has learned",
            "write neither into source_values nor into the network's buffers",
        )


def _resets_bit_for_bit(subject: Subject) -> None:
    method = subject.create()
    before = tensors(method.state_dict())
    first = [method(images(seed)) for seed in range(3)]
    method.reset()
    changed = differing(before, tensors(method.state_dict()))
    subject.require(
        not changed,
        f"is not where it began after reset ({', '.join(changed[:3])})",
        f"{_STATE}; where reset is overridden, call super().reset()",
    )
    again = [method(images(seed)) for seed in range(3)]
    subject.require(
        all(torch.equal(*pair) for pair in zip(first, again, strict=True)),
        "answers the same stream otherwise after reset",
        f"{_STATE}, and {_DRAWS}",
    )


def _is_repeatable(subject: Subject) -> None:
    one, other = subject.create(), subject.create()
    for seed in range(3):
        subject.require(
            torch.equal(one(images(seed)), other(images(seed))),
            "answers otherwise under the same seed",
            f"{_DRAWS}, and share no state among instances",
        )


def _goes_on_from_a_file(subject: Subject) -> None:
    straight = subject.having_learned()
    straight.control(images(2))
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"{subject.method.__name__} has a state dict that weights_only refuses "
            f"({said(error).split('.')[0]}): keep tensors, numbers, strings, lists and "
            "dictionaries in it"
        ) from error
    other = subject.create()
    other.load_state_dict(state)
    pairs = [(straight(images(seed)), other(images(seed))) for seed in range(3, 5)]
    changed = differing(tensors(straight.state_dict()), tensors(other.state_dict()))
    subject.require(
        not changed and all(torch.equal(*pair) for pair in pairs),
        "goes on otherwise from its saved state",
        _STATE,
    )


def _passes_adapted_tensors_on(subject: Subject) -> None:
    method = subject.having_learned()
    other = subject.create()
    other.load_adapted_state(method.adapted_state())
    subject.require(
        not differing(method.adapted_state(), other.adapted_state()),
        "does not take up the adapted_state of another",
        "leave adapted_state and load_adapted_state alone, or make them agree",
    )
    other.reset()
    subject.require(
        not differing(subject.create().adapted_state(), other.adapted_state()),
        "takes adapted tensors that it took up for the source's",
        "let reset go to source_values",
    )


def _can_be_corrected(subject: Subject) -> None:
    for name, argument in (("restore", 1.0), ("restore_elements", 1.0), ("restore_last", 1.0)):
        method = subject.having_learned()
        getattr(method, name)(argument)
        away = [
            key
            for key, value in method.adapted.items()
            if not torch.allclose(value, method.source_values[key])
        ]
        subject.require(
            not away,
            f"is not at the source after {name}({argument:g}) ({', '.join(away[:3])})",
            f"where {name} is overridden, call super().{name} first",
        )
    method = subject.having_learned()
    method.scale_lr(0.5)
    aims = method.reweight(method.uniform())
    subject.require(
        isinstance(aims, bool),
        f"answers reweight by {aims!r}",
        "return True, or False where the objective has no such aim",
    )
    subject.require(
        bool(method(images(5)).isfinite().all()),
        "has NaN or infinity after a correction",
        "leave state consistent in restore, scale_lr and reweight",
    )


def _survives_broken_images(subject: Subject) -> None:
    method = subject.having_learned(1)
    before = tensors(method.state_dict())
    broken = images(1)
    broken[3, 0, 0, 0] = math.nan
    prediction = method.predict(broken) if method.predicts_first else None
    update = method.update(broken, prediction)
    changed = [
        name
        for name in differing(_without_draws(before), _without_draws(tensors(method.state_dict())))
        if name in before
    ]
    subject.require(
        update.skipped is not None and not changed,
        "learns from a batch that holds a NaN",
        "override learn rather than update, which leaves such batches out",
    )


def _without_draws(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the generator, which a prediction may move."""
    return {path: value for path, value in state.items() if not path.endswith("/generator")}


def _served(prediction: Any) -> torch.Tensor:
    """What leaves of a prediction, or of what stands for one."""
    served: torch.Tensor = getattr(prediction, "served", prediction.logits)
    return served


def _episodic(method: Method) -> bool:
    return bool(getattr(method.config, "episodic", False))


#: What methods answer, without and with pixels.
_SHAPES = ("(images, classes)", "(images, classes, height, width)")
#: What is promised, to stand behind "it", and how it is checked; in order of how much else breaks.
_PROMISES = {
    "runs on any network, and on a batch of one": _runs_on_any_network,
    "learns": _learns,
    "changes its own tensors only": _changes_its_own_tensors_only,
    "predicts before it learns": _predicts_before_it_learns,
    "keeps the source": _keeps_the_source,
    "repeats itself under the same seed": _is_repeatable,
    "resets bit for bit": _resets_bit_for_bit,
    "goes on from a file": _goes_on_from_a_file,
    "passes its adapted tensors on": _passes_adapted_tensors_on,
    "can be corrected": _can_be_corrected,
    "leaves broken images out": _survives_broken_images,
    "runs in a Trainer, guarded": runs_guarded,
}
