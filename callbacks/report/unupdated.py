"""The stream once more, without updates: what source and control would have said, and where they
disagree with what left.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from holdfast.datamodules.streams.window import counted, taken
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.distributed import batch_of_all, objects_of_all, place
from holdfast.tta.repair import repaired
from holdfast.tta.step import Candidate

#: Images with the largest change of mind that are kept.
KEPT = 8


class Disagreement(NamedTuple):
    """An image of which source and served model say different things.

    Attributes:
        size: total variation between the two predictions.
        batch: number of its batch.
        id: of the image.
        domain: of the image.
        label: true class, -1 where unknown.
        control: class that the control says, and how sure it is.
        served: class that left, and how sure that was.
        image: (channels, ...).
    """

    size: float
    batch: int
    id: str
    domain: str
    label: int
    control: tuple[int, float]
    served: tuple[int, float]
    image: Tensor


@dataclass(frozen=True)
class StreamAnswers:
    """What a model says of a stream: probabilities (N, C)."""

    probabilities: Tensor

    @cached_property
    def predictions(self) -> Tensor:
        """(N,) classes."""
        return self.probabilities.argmax(1)

    @cached_property
    def confidences(self) -> Tensor:
        """(N,) of the predicted classes."""
        return self.probabilities.amax(1)


@dataclass(frozen=True)
class Unupdated:
    """A stream without updates: ``source`` and ``control``, and the largest changes of mind from
    control to what was served.
    """

    source: StreamAnswers
    control: StreamAnswers
    changes: list[Disagreement]


@torch.no_grad()
def unupdated_pass(
    module: AdaptationModule,
    batches: Iterable[Any],
    choices: Sequence[Candidate | None],
    served: Tensor,
    *,
    device: torch.device,
    precision: AbstractContextManager[Any] | None = None,
    progress: bool = True,
) -> Unupdated:
    """Ask the un-updated networks about a stream that was adapted to; all processes do so together.

    The control is under the statistics that the guard had chosen at each batch; where nobody chose,
    under the method's own.

    Args:
        module: new, as it was before the run.
        batches: of the stream, from its start.
        choices: the statistics in use at each batch of the run, None where nobody chose; the pass
            ends with them.
        served: (N, C) probabilities that left, in stream order.
        device: to compute on.
        precision: context of the forward passes.
        progress: whether to show a bar, on a terminal.
    """
    module.to(device)
    answers: dict[str, list[Tensor]] = {"source": [], "control": []}
    changes: list[Disagreement] = []
    rank, parts = place()
    at = 0
    hidden = None if progress else True
    bar = tqdm(
        total=len(choices), desc="source and control, for the report", unit="batch", disable=hidden
    )
    with precision or nullcontext(), bar:
        for index, (choice, batch) in enumerate(zip(choices, batches, strict=False)):
            both = ask(module, batch["image"].to(device), choice)
            new = counted(batch)
            source, control = (logits[new].float().softmax(1).cpu() for logits in both)
            whole = batch_of_all({"source": source, "control": control})
            for name, kept in answers.items():
                kept.append(whole[name])
            left = served[at : at + len(whole["control"])][rank::parts]
            at += len(whole["control"])
            shown = {key: taken(batch[key], new) for key in ("id", "domain", "label", "image")}
            if len(left) == len(
                control
            ):  # shares of several processes differ where one lost images
                changes = _largest([*changes, *_changes(index, shown, control, left)])
            bar.update()
    changes = _largest([change for own in objects_of_all(changes) for change in own])
    source_said, control_said = (StreamAnswers(torch.cat(kept)) for kept in answers.values())
    return Unupdated(source_said, control_said, changes)


def _largest(changes: Sequence[Disagreement]) -> list[Disagreement]:
    """The largest changes of mind, of an image that comes again its largest."""
    best: dict[str, Disagreement] = {}
    for change in changes:
        if change.id not in best or best[change.id].size < change.size:
            best[change.id] = change
    return sorted(best.values(), key=lambda change: -change.size)[:KEPT]


def ask(
    module: AdaptationModule, images: Tensor, choice: Candidate | None
) -> tuple[Tensor, Tensor]:
    """Outputs of source and control, such as logits (N, C).

    Args:
        module: new, but for what it was asked before.
        images: (N, channels, ...) on its device.
        choice: the statistics in use; None: the method's own.
    """
    source = module.method.source(repaired(images, module.largest)[0]).served
    batch = {"image": images}
    if choice is None or module.twins is None:
        return source, module.control(batch).served
    module.use(choice)
    # Corrected statistics are a running average of the stream: they see it from the start, chosen
    # or not.
    said = module.candidates(
        batch, [name for name in module.twins.names if name in ("corrected", choice)]
    )
    return source, said[choice].served if choice in said else source


def _changes(
    index: int, batch: dict[str, Any], control: Tensor, served: Tensor
) -> list[Disagreement]:
    """The largest changes of mind in a batch."""
    size = (control - served).abs().sum(1) / 2
    size = size.where(control.argmax(1) != served.argmax(1), 0.0).nan_to_num()
    found = []
    for row in size.topk(min(KEPT, len(size))).indices.tolist():
        if size[row] > 0:
            before, after = (int(p[row].argmax()) for p in (control, served))
            found.append(
                Disagreement(
                    *(
                        float(size[row]),
                        index,
                        batch["id"][row],
                        batch["domain"][row],
                        int(batch["label"][row]),
                    ),
                    *((before, float(control[row, before])), (after, float(served[row, after]))),
                    batch["image"][row].cpu().clone(),
                )
            )
    return found
