"""The data sets that tables are made on, the networks of source models, and a model for each seed,
trained once.
"""

from collections.abc import Sequence
from pathlib import Path

from holdfast.training.config import GROUPS, TrainConfig
from holdfast.training.run import train
from holdfast.tta import entry
from holdfast.tta.errors import InputError

#: The files of real images, by the names that tables give the data sets.
FILES = {
    "nuclei": "nuclei_patches.npz",
    "vessels": "vessel_patches.npz",
    "chest": "pneumoniamnist.npz",
    "mednist": "mednist_64.npz",
}
#: The networks of source models, by the names that tables give them, and how train.py is asked for
#: each. NAME/EPOCHS is one of so many epochs: a weak source.
NETWORKS: dict[str, tuple[str, ...]] = {
    "compact": (),
    "group": ("model.norm=group",),
    "resnet18": ("model=resnet18",),
}


def network_words(label: str) -> list[str]:
    """How train.py is asked for a network.

    Args:
        label: a key of ``NETWORKS``, or NAME/EPOCHS.

    Raises:
        InputError: it is neither.
    """
    name, slash, epochs = label.partition("/")
    if name not in NETWORKS or (slash and not (epochs.isdigit() and int(epochs))):
        raise InputError(
            f"unknown network {label!r}: it must be one of {', '.join(NETWORKS)}, alone or with "
            "its epochs, compact/3"
        )
    return [*NETWORKS[name], *([f"epochs={epochs}"] if slash else [])]


def data_words(name: str, root: str) -> list[str]:
    """How train.py and adapt.py are asked for a data set.

    Args:
        name: phantom, or a key of ``FILES``.
        root: folder of the files.

    Raises:
        InputError: the file is not there.
    """
    if name == "phantom":
        return ["data=phantom"]
    path = Path(root) / FILES[name]
    if not path.is_file():
        raise InputError(f"{path} does not exist: set root to the folder of {FILES[name]}")
    return ["data=npz", f"data.path={path}"]


def source_model(folder: Path, name: str, seed: int, words: Sequence[str]) -> Path:
    """The folder of the source model ``NAME-seedN`` in ``folder``, trained by train.py if it is not
    there yet.

    Args:
        folder: of the source models.
        name: of what it is trained on.
        seed: of the training.
        words: the data set, and what differs from train.py's defaults.
    """
    source = folder / f"{name}-seed{seed}"
    if not (source / "source.ckpt").is_file():
        quiet = ["wandb.mode=disabled", "trainer.enable_progress_bar=false"]
        quiet += ["overwrite=true"]  # of what a stopped training left
        train(
            entry.configured(
                TrainConfig, GROUPS, [*quiet, *words, f"seed={seed}", f"output={source}"]
            )
        )
    return source
