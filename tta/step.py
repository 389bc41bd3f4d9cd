"""What a module's step leaves of a batch, and callbacks read and may change: names, types and
shapes, in one place.

All are plain strings and dictionaries, so that a LightningModule that returns a dictionary of its
own is served as ours is. An enum's member in a state dict would be an object, which
``torch.load(weights_only=True)`` refuses.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Required, TypedDict

from torch import Tensor

from holdfast.tta.prediction import Prediction

#: The un-updated network, by the normalisation statistics that it works under: the source's, each
#: batch's own, corrected ones, or those that a method has for itself.
Candidate = Literal["source", "batch", "corrected", "control"]
#: A model that may answer a batch: the adapted one, or a candidate.
Answering = Literal["adapted", "control", "source", "batch", "corrected"]
#: Who answered a batch: one model, or several by their shares.
ServedBy = Literal[Answering, "mixture"]
#: What a guard makes of a batch.
VerdictState = Literal["OK", "WATCH", "ALARM", "FROZEN"]
#: What the guard does.
Mode = Literal["adapting", "hedging", "holding", "resting", "frozen"]
#: What a look finds to lead: statistics that a model can adapt under, the source's own, or none.
Lead = Literal["adapted leads", "source leads", "none leads"]


class Counts(NamedTuple):
    """What is known on the host of a prediction, of all processes.

    Attributes:
        logits: (N, C) of this process's part of it.
        version: of that tensor: another, once somebody wrote into it.
        broken: above 0 where any value is not finite.
        classes: (C,) rows by class.
    """

    logits: Tensor
    version: int
    broken: float
    classes: tuple[float, ...]

    def are_of(self, logits: Tensor) -> bool:
        """Whether these are the logits, as they were."""
        return logits is self.logits and logits._version == self.version


class StepOutputs(TypedDict, total=False):
    """A step's dictionary. A guard needs the first two entries of it; all others may be absent.

    Attributes:
        logits: (N, C) of the prediction that counts, or the network's output (N, K, *spatial) in
            other tasks than single labels; without a graph.
        features: (N, D) of the same images.
        rows: what statistics see of that output, where logits are no rows.
        loss: of the update, where there was one.
        skipped: why nothing was learned; None: it was.
        restored: whether the method took itself back to the source.
        counts: of the step's own prediction; absent: nobody asked.
        broken: numbers (B,) of the images that were broken and repaired; None: none was.
        weights: tells the short hash of the weights with which the batch began.
        served_by: who answered.
        shares: of those in a mixture, which sum to 1.
        verdict: on the batch.
        mode: of the guard, after the batch.
        choice: the statistics that the module worked under; None: not known.
        statistics: values of the signals, or of a policy's evidence.
        looked: whether the guard looked at more than every batch's predictions.
        leads: what that look found to lead.
        stands_for: batches that the look stands for.
        events: what happened, as ``events.jsonl`` has it.
        labels: how many labels were known; None: none are to come.
        id: (N,) names of the images, in what ``predict`` returns.
        probabilities: (N, C) or (N, K, *spatial), there too.
    """

    logits: Required[Tensor]
    features: Required[Tensor]
    rows: Prediction
    loss: Tensor
    skipped: str | None
    restored: bool
    counts: Counts
    broken: Tensor | None
    weights: Callable[[], str]
    served_by: ServedBy
    shares: Mapping[ServedBy, float]
    verdict: VerdictState
    mode: Mode
    choice: Candidate | None
    statistics: Mapping[str, float | None]
    looked: bool
    leads: Lead | None
    stands_for: int
    events: list[dict[str, Any]]
    labels: int | None
    id: list[str]
    probabilities: Tensor
