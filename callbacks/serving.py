"""What a batch leaves with: one model's prediction, or the mean of several by their shares."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from holdfast.callbacks.base import Guard, prediction_of
from holdfast.tta.distributed import counts_of_all
from holdfast.tta.methods import Prediction
from holdfast.tta.step import Candidate, ServedBy, StepOutputs
from holdfast.tta.tasks import Task

#: What the un-updated network is called under the statistics that the module works under.
CONTROL: Final = "control"


class Said:
    """What un-updated networks say of a batch, asked for when it is needed.

    Args:
        guard: who asks.
        module: that answers.
        batch: in question.
        images: of this process's share of it.
        known: what was asked already, by name.
    """

    def __init__(
        self, guard: Guard, module: Any, batch: Any, images: int, known: dict[Candidate, Prediction]
    ) -> None:
        self.guard, self.module, self.batch = guard, module, batch
        self.images, self.known = images, known
        self._partly = self._of_a_part()

    def speaks(self, name: Candidate) -> bool:
        """Whether a candidate has said something of the whole batch."""
        return name in self.known and name not in self._partly

    def hear(self, answers: Mapping[Candidate, Prediction]) -> None:
        """Take in what candidates say of the whole batch."""
        self.known.update(answers)
        self._partly -= set(answers)

    def _of_a_part(self) -> set[Candidate]:
        """Candidates that have spoken of a part of the batch of all processes; of one process's
        share alone all may have.
        """
        said = {name: self.known[name].served for name in sorted(self.known)}
        if not said:
            return set()
        device = next(iter(said.values())).device
        own = [self.images, *(len(answers) for answers in said.values())]
        images, *counts = counts_of_all(own, device)
        return {name for name, count in zip(said, counts, strict=True) if count != images}

    def of(self, name: Candidate) -> Prediction:
        """What a candidate says of the whole batch; the control where it has not been asked."""
        if not self.speaks(name):
            control = self.module.control(self.batch)
            self.hear({name: prediction_of(self.guard, control, "control")})
        return self.known[name]


def serve(
    outputs: StepOutputs,
    adapted: Prediction,
    said: Said,
    shares: Mapping[Candidate, float],
    working: Candidate,
    *,
    own: bool,
) -> None:
    """Put into a step's outputs what the batch leaves with, where that is not the adapted
    prediction alone.

    Args:
        outputs: of the step; ``logits``, ``features``, ``served_by`` and ``shares`` are set.
        adapted: what the adapted model says.
        said: what un-updated networks say.
        shares: of those that are trusted; who said nothing of the whole batch has none.
        working: the statistics that the module works under.
        own: whether the adapted model stands for these.
    """
    spoke = {
        name: share for name, share in shares.items() if name == working or said.speaks(name)
    } or {working: 1.0}
    mine = outputs.setdefault("served_by", "adapted")
    if own and set(spoke) == {working}:
        return
    parts: dict[ServedBy, tuple[float, Prediction]] = {}
    total = sum(spoke.values())
    for name, share in spoke.items():
        if name == working and own:
            parts[mine] = (share / total, adapted)
        else:
            who = name if name == "source" or name != working else CONTROL
            parts[who] = (share / total, said.of(name))
    leaves = mixed([*parts.values()], said.guard.task)
    outputs["logits"], outputs["features"] = leaves.served, leaves.features
    if leaves.output is not None:
        outputs["rows"] = leaves
    outputs["served_by"] = "mixture" if len(parts) > 1 else next(iter(parts))
    if len(parts) > 1:
        outputs["shares"] = {who: share for who, (share, _) in parts.items()}


def mixed(parts: Sequence[tuple[float, Prediction]], task: Task | None = None) -> Prediction:
    """One prediction for all: the mean of their probabilities, and the features of the largest.

    Args:
        parts: shares, which sum to 1, with predictions of the same images.
        task: what they are of; None: images with one label.
    """
    if len(parts) == 1:
        return parts[0][1]
    mean = torch.stack([share * said.logits.float().softmax(1) for share, said in parts]).sum(0)
    logits = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    largest = max(parts, key=lambda part: part[0])[1]
    if task is None or largest.output is None:
        return Prediction(logits, largest.features)
    chances = [share * task.probabilities(said.served.float()) for share, said in parts]
    output = task.inverse(torch.stack(chances).sum(0))
    return largest._replace(logits=logits, output=output, doubt=None)
