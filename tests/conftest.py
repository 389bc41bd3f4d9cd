"""What the tests share: a tiny source model, and where the real images are."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

# Tests of W&B ask for it; all others neither wait for it nor write its files.
os.environ["WANDB_MODE"] = "disabled"

ROOT = Path(__file__).resolve().parent.parent

#: Where Lightning runs in most tests of one process: ``HOLDFAST_ACCELERATOR=gpu`` runs them on a
#: GPU.
ACCELERATOR = os.environ.get("HOLDFAST_ACCELERATOR", "cpu")
#: Words that make a program quick and silent in a test.
QUICK = [
    "wandb.mode=disabled",
    "trainer.enable_progress_bar=false",
    f"trainer.accelerator={ACCELERATOR}",
]
#: A phantom small enough to train on in seconds, and no calibration, which takes as long again.
TINY = [
    "data.train_images=600",
    "data.val_images=160",
    "data.test_images=160",
    "data.target_images=500",
]
#: The same, for training that takes no time to calibrate.
TINY_TRAINING = [*TINY, "calibrate=off"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: Any) -> Path:
    """Folder of a source model trained briefly on the phantom."""
    from holdfast.training.config import GROUPS, TrainConfig
    from holdfast.training.run import train
    from holdfast.tta import entry

    folder = tmp_path_factory.mktemp("source")
    words = [*QUICK, *TINY_TRAINING, "epochs=4", f"output={folder}"]
    return train(entry.configured(TrainConfig, GROUPS, words))


#: Fields with masks, and a network of pixels, that train in seconds.
MASKS = [
    *("data.task=segmentation", "data.train_images=48", "data.val_images=24"),
    *("data.test_images=24", "data.target_images=40"),
]


@pytest.fixture(scope="session")
def mask_source(tmp_path_factory: Any) -> Path:
    """Folder of a source model trained briefly on the phantom's masks, in patches."""
    from holdfast.training.config import GROUPS, TrainConfig
    from holdfast.training.run import train
    from holdfast.tta import entry

    folder = tmp_path_factory.mktemp("mask_source")
    network = ["model=basicunet", "model.width=8", "patch=[32,32]", "batch_size=16", "epochs=4"]
    words = [*QUICK, *MASKS, *network, "calibrate=off", f"output={folder}"]
    return train(entry.configured(TrainConfig, GROUPS, words))


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Within it no file grows beyond some bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def data_folder() -> Path:
    """Folder of the real images; the test is skipped where there is none."""
    folder = Path(os.environ.get("HOLDFAST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "nuclei_patches.npz").is_file():
        pytest.skip("the real images are not here: set HOLDFAST_DATA to their folder")
    return folder


def small_network(norm: Any = nn.BatchNorm2d, classes: int = 4) -> nn.Sequential:
    """The network of the golden vectors, with fresh weights."""
    layer = (lambda c: nn.GroupNorm(4, c)) if norm is nn.GroupNorm else norm
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        layer(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        layer(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def golden(name: str) -> dict[str, Any]:
    """A golden file's arrays."""
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def golden_network(norm: str = "bn") -> nn.Sequential:
    """The network of the golden vectors, with its weights."""
    network = small_network(nn.BatchNorm2d if norm == "bn" else nn.GroupNorm)
    network.load_state_dict(
        {key: torch.from_numpy(value) for key, value in golden(f"model_{norm}").items()}
    )
    return network
