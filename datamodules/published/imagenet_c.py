"""ImageNet-C (Hendrycks & Dietterich, ICLR 2019): ImageNet's validation images, corrupted; a target
only.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, class_folders, folder
from holdfast.datamodules.records import images_of, text
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

CORRUPTIONS = (
    *(
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
    ),
    *(
        "frost",
        "fog",
        "brightness",
        "contrast",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
    ),
)


@dataclass
class ImageNetCConfig(PublishedConfig):
    """ImageNet-C: the fifteen standard corruptions at one severity, or some; train on ImageNet with
    data=folder.
    """

    root: str = option(
        "data/ImageNetC", "folder of CORRUPTION/SEVERITY/WNID, or of folders of such"
    )
    target: str | list[str] | None = option(
        None, "corruption, or corruptions; null: the fifteen standard ones"
    )
    severity: int = option(5, "1 to 5")


def load_imagenet_c(config: ImageNetCConfig, split: Split) -> ImageSet:
    """Read the target; its domains are the corruptions, its groups the images underneath."""
    if split != "target":
        raise InputError(
            "ImageNet-C has nothing to train on: train on ImageNet's folders, data=folder "
            "data.root=DIR"
        )
    root = folder(config.root)
    wanted = (
        [config.target] if isinstance(config.target, str) else list(config.target or CORRUPTIONS)
    )
    places = [_find(root, name, config.severity) for name in wanted]
    records = class_folders(root, places)
    parts = [path.split("/") for path in records.paths.tolist()]
    records = replace(
        records,
        labels=text(part[-2] for part in parts),
        domains=text(part[-4] for part in parts),
        groups=text(part[-1] for part in parts),
    )
    return images_of(records, replace(config, shares=None), split)


def _find(root: Path, corruption: str, severity: int) -> str:
    """The corruption's folder below the root: there itself, or in a category as the archives have
    it.
    """
    for place in (
        Path(corruption),
        *(Path(inner.name, corruption) for inner in sorted(root.iterdir()) if inner.is_dir()),
    ):
        if (root / place / str(severity)).is_dir():
            return f"{place.as_posix()}/{severity}"
    remedy = (
        "fetch it, or name others, data.target"
        if corruption in CORRUPTIONS
        else closest(corruption, CORRUPTIONS)
    )
    raise InputError(f"expected {corruption}/{severity} in {root} or a folder in it: {remedy}")
