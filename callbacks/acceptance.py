"""Before a method goes live: the stream is served in each way there is, so that a few labels can
tell which to deploy.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from tqdm import tqdm

from holdfast.callbacks.base import Guard
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.datamodules import ImageSet, StreamLoader
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.labelfile import LabelFile, known_as
from holdfast.datamodules.streams.window import NewestOnly, counted
from holdfast.tta import entry
from holdfast.tta.acceptance import GUARDED, UNGUARDED, Acceptance, accepted, check_sample
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.errors import InputError
from holdfast.tta.folder import Program
from holdfast.tta.saying import say
from holdfast.tta.scores import check_groups, pooled

PROGRAM = Program(
    "holdfast adapt accept",
    "runs/accept",
    results=("acceptance.json", "acceptance.html"),
    others=("config.yaml",),
)

Rows = npt.NDArray[np.int64]
#: Makes a new module, with its guard if it is to have one.
Maker = Callable[[], tuple[AdaptationModule, Guard | None]]


class ServedKeeper(Callback):
    """Keeps what left of a stream in memory; place it behind all others."""

    def __init__(self) -> None:
        self.batches = 0
        self._probabilities: list[Tensor] = []
        self._rows: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the batch."""
        self.batches += 1
        self._probabilities.append(outputs["logits"].float().softmax(1).cpu())
        self._rows.append(batch["index"].cpu())

    def served(self) -> int:
        """Images that left so far."""
        return sum(map(len, self._rows))

    @property
    def probabilities(self) -> Tensor:
        """(N, C) in stream order."""
        return torch.cat(self._probabilities)

    @property
    def rows(self) -> Rows:
        """(N,) which image each is."""
        rows: Rows = torch.cat(self._rows).numpy()
        return rows


def labels_of(
    images: ImageSet,
    shown: Rows,
    path: str | None,
    class_names: Sequence[str],
    called: Mapping[str, str | None] | None = None,
    together: bool = False,
) -> Rows:
    """The labels (N,) to accept by: those of a file, or else the images' own.

    Args:
        images: the target.
        shown: (M,) rows of the images that the stream shows.
        path: CSV with the columns id and label; None: the images' own labels.
        class_names: names of the classes.
        called: the class that a word of the site stands for (``data.classes``).
        together: whether groups are scored instead of images.

    Raises:
        InputError: the file is none, it names none of the images, a group has several labels, or
            there are too few of them.
    """
    labels = images.labels
    if path is not None:
        labels = _given(images, path, class_names, called)
    units = shown
    if together:
        check_groups(labels[shown], images.groups[shown], {})
        units = _codes(images.groups[shown])
    check_sample(torch.from_numpy(labels[shown]), units, "group" if together else "image")
    return labels


def _given(
    images: ImageSet, path: str, class_names: Sequence[str], called: Mapping[str, str | None] | None
) -> Rows:
    """The labels (N,) that a file gives."""
    given = LabelFile(path, class_names, growing=False, called=called).checked()
    names = map(known_as, images.ids.tolist())
    labels = np.array([given.get(name, UNLABELLED) for name in names], np.int64)
    if given and (labels == UNLABELLED).all():
        raise InputError(
            f"none of the {len(given)} ids in {path} is one of the target's images, which are "
            f"called as {images.ids[0]}: write their ids as predictions.csv has them"
        )
    return labels


def acceptance(
    images: ImageSet,
    labels: Rows,
    loader: StreamLoader,
    makers: Mapping[str, Maker],
    arguments: Mapping[str, Any],
    seed: int,
    together: bool = False,
) -> Acceptance:
    """Serve the stream in each way, and say which to deploy.

    Args:
        images: the target.
        labels: (N,) of its images, -1 where unknown.
        loader: of the stream, which shows all of them.
        makers: of the ``guarded`` module, the ``unguarded`` one, and one that has candidates, the
            source's ``fixed`` choices of statistics.
        arguments: of Lightning's Trainer.
        seed: of each pass.
        together: score groups, by the mean probabilities of their images.

    Raises:
        InputError: several processes are to share the work.
    """
    said: dict[str, Tensor] = {}
    for name in (GUARDED, UNGUARDED):
        say(f"{name}: the method adapts to the stream")
        seed_everything(seed, verbose=False)
        module, guard = makers[name]()
        kept = ServedKeeper()
        callbacks = [*([guard] if guard else []), NewestOnly(), kept]
        trainer = entry.create_trainer({"logger": False, "callbacks": callbacks, **arguments})
        if trainer.world_size > 1:
            raise InputError("accept works in one process: leave trainer.devices at 1")
        with entry.incomplete(kept.served, len(loader.stream)):
            entry.fit(trainer, module, loader)
        said[name] = kept.probabilities
    twin, guard = makers["fixed"]()
    if isinstance(guard, CollapseGuard):
        guard.start(twin)  # which tells what is known of the classes
    said = {
        **fixed_pass(twin, loader, trainer, kept.batches),
        UNGUARDED: said[UNGUARDED],
        GUARDED: said[GUARDED],
    }
    rows, names = kept.rows, images.class_names
    truth, groups = torch.from_numpy(labels[rows]), images.groups[rows]
    if not together:
        return accepted(said, truth, groups, rows, names)
    domains = images.domains[rows].tolist()
    pools = {name: pooled(values, truth, groups, domains) for name, values in said.items()}
    first, _, _, truth = pools["source"]
    groups, said = groups[first], {name: mean for name, (_, _, mean, _) in pools.items()}
    return accepted(said, truth, groups, _codes(groups), names, "group")


@torch.no_grad()
def fixed_pass(
    module: AdaptationModule, loader: StreamLoader, trainer: Trainer, batches: int
) -> dict[str, Tensor]:
    """What the un-updated network says of the stream under each choice of statistics.

    Args:
        module: new, with candidates.
        loader: of the stream.
        trainer: of another pass, whose device and precision this one has.
        batches: how many were served.

    Returns:
        (N, C) probabilities by choice.
    """
    assert module.twins is not None, "the guard's own module has candidates"
    device = trainer.strategy.root_device
    module.to(device)
    names = module.twins.names
    said: dict[str, list[Tensor]] = {name: [] for name in names}
    shown = tqdm(
        islice(loader, batches),
        total=batches,
        desc=f"{', '.join(names)}: nothing adapts",
        unit="batch",
        disable=None if trainer.progress_bar_callback is not None else True,
    )
    with trainer.precision_plugin.forward_context():
        for batch in shown:
            new, both = counted(batch), module.candidates({"image": batch["image"].to(device)})
            for name in names:  # one value per channel has no statistics: the source answers
                logits = both.get(name, both["source"]).logits
                said[name].append(logits[new].float().softmax(1).cpu())
    return {name: torch.cat(parts) for name, parts in said.items()}


def _codes(groups: npt.NDArray[Any]) -> Rows:
    """A number for each group."""
    codes: Rows = np.unique(groups, return_inverse=True)[1]
    return codes


def write(folder: Path, found: Acceptance, page: str) -> None:
    """Leave the result as a file for programs and as a page."""
    entry.write_json(folder / "acceptance.json", found.to_dict())
    (folder / "acceptance.html").write_text(page, encoding="utf-8")
