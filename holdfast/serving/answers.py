"""What the service answers: its forms, by which OpenAPI describes them, and the advice that comes
with an answer.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from holdfast.tta.step import StepOutputs
from holdfast.tta.tasks.base import Task

#: What the guard's verdicts mean for whoever reads an answer.
_ADVICE: Mapping[str, str] = {
    "ALARM": "The guard has just corrected the model, and an un-updated network answered: have a "
    "person look at this image.",
    "FROZEN": "The guard froze the model after alarm upon alarm, and an un-updated network "
    "answers: have a person look at the images, and at the service.",
}
#: The same of its modes, where the verdict says less.
_WAITING: Mapping[str, str] = {
    "resting": "The guard lets updates rest after an alarm, and an un-updated network answered: "
    "take the class for a first guess.",
    "hedging": "No network is trusted alone on these images, and all answered together: take the "
    "class for a first guess.",
}
_BROKEN = (
    "Pixels of this image are broken (no numbers, or far too large) and were replaced: send it "
    "again, or have a person look at it."
)


class Answer(BaseModel):
    """What is said of one image."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="name of the image: the one that was sent, or a new one")
    prediction: str | list[str] = Field(description="its class; of findings those that are present")
    confidence: float | None = Field(description="probability of that class; null for findings")
    probabilities: dict[str, float] = Field(description="of each class or finding")
    mode: str | None = Field(
        description="the guard's: adapting, hedging, holding, resting or frozen; null without guard"
    )
    verdict: str | None = Field(description="the guard's on the batch: OK, WATCH, ALARM or FROZEN")
    served_by: str = Field(description="who answered: adapted, control, source, mixture, …")
    weights: str = Field(description="version of the weights: short hash of the adapted tensors")
    batch: int = Field(description="number of the batch, as in trace.csv")
    advice: str | None = Field(description="what to do where the guard mistrusts; null: nothing")


class Answers(BaseModel):
    """What is said of a request's images, in their order."""

    images: list[Answer]


class Label(BaseModel):
    """The truth of an image that was sent before, or will be."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=256)
    label: str = Field(min_length=1, max_length=256, description="name of its class")


class Labels(BaseModel):
    """Labels, at most 10,000 of them."""

    model_config = ConfigDict(extra="forbid")

    labels: list[Label] = Field(min_length=1, max_length=10_000)


class Taken(BaseModel):
    """How many labels were taken."""

    taken: int


class Refusal(BaseModel):
    """Why a request was refused, in a sentence."""

    detail: str


class State(BaseModel):
    """Whether the service lives, or is ready."""

    status: str


def answers_of(
    task: Task,
    class_names: Sequence[str],
    ids: Sequence[str],
    outputs: StepOutputs,
    weights: str,
    batch: int,
) -> list[Answer]:
    """The answers to the images of a batch.

    Args:
        task: that knows what an output means.
        class_names: of the classes or findings.
        ids: (N,) of the images.
        outputs: of the step, as the guard left them.
        weights: version of the weights.
        batch: its number.
    """
    probabilities = task.probabilities(outputs["logits"].float()).cpu()
    decided = task.decide(probabilities).tolist()
    broken = outputs.get("broken")
    replaced = set() if broken is None else set(broken.tolist())
    result = []
    for place, (name, row, said) in enumerate(
        zip(ids, probabilities.tolist(), decided, strict=True)
    ):
        one = isinstance(said, int)
        names = (
            [c for c, present in zip(class_names, said, strict=True) if present] if not one else []
        )
        result.append(
            Answer(
                id=name,
                prediction=class_names[said] if one else names,
                confidence=row[said] if one else None,
                probabilities=dict(zip(class_names, row, strict=True)),
                mode=outputs.get("mode"),
                verdict=outputs.get("verdict"),
                served_by=str(outputs.get("served_by", "")),
                weights=weights,
                batch=batch,
                advice=advice_of(outputs, place in replaced),
            )
        )
    return result


def advice_of(outputs: StepOutputs, broken: bool) -> str | None:
    """What to do about an answer; None where nothing is to be done.

    >>> advice_of({"verdict": "OK", "mode": "adapting"}, broken=False) is None
    True
    >>> advice_of({"verdict": "ALARM", "mode": "resting"}, broken=False).startswith("The guard has")
    True
    """
    verdict, mode = outputs.get("verdict") or "", outputs.get("mode") or ""
    told = [_BROKEN] if broken else []
    doubt = _ADVICE.get(verdict) or _WAITING.get(mode)
    return " ".join([*told, doubt] if doubt else told) or None
