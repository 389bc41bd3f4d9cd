"""ISIC 2019: dermoscopic images of eight diagnoses from several clinics, with age, sex and site on
the body.
"""

import re
from dataclasses import dataclass

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, repeated, text
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
_PREFIX = "ISIC_2019_Training"


@dataclass
class IsicConfig(PublishedConfig):
    """ISIC 2019: domains are clinics (BCN, HAM, MSK), or the values of another column of its
    metadata.
    """

    root: str = option(
        "data/isic2019", f"folder of {_PREFIX}_GroundTruth.csv, _Metadata.csv and _Input/"
    )
    source: str | list[str] | None = option("BCN", "domain, or domains, to train on")
    domain: str = option(
        "clinic",
        "what divides the domains: clinic, or a column such as age_approx, sex or a skin tone",
    )


def load_isic(config: IsicConfig, split: Split) -> ImageSet:
    """Read a split; source splits are cut between lesions. Clinics are known by the lesions' names,
    else ``unknown``.
    """
    root = folder(config.root)
    folder(root, f"{_PREFIX}_Input")
    known = columns(root, [f"{_PREFIX}_Metadata.csv"], ["image", "lesion_id"])
    truth = columns(root, [f"{_PREFIX}_GroundTruth.csv"], ["image", *CLASSES])
    place = {name: row for row, name in enumerate(known["image"].tolist())}
    names = truth["image"].tolist()
    for name in names:
        if name not in place:
            raise InputError(
                f"{root / _PREFIX}_Metadata.csv has no row for the image {name}: fetch both tables "
                "again"
            )
    rows = [place[name] for name in names]
    metadata = {
        name: values[rows] for name, values in known.items() if name not in ("image", "lesion_id")
    }
    lesions = known["lesion_id"][rows]
    clinics = text(
        match[0] if (match := re.match("[A-Z]+", lesion)) else "unknown"
        for lesion in lesions.tolist()
    )
    choices = {"clinic": clinics, **metadata}
    if config.domain not in choices:
        raise InputError(
            f"data.domain={config.domain} is no column of ISIC's metadata: "
            f"{closest(config.domain, choices)}"
        )
    labels = repeated("", len(names))
    for name in CLASSES:
        labels[truth[name].astype(float) > 0] = name
    records = Records(
        origin=root,
        root=root,
        paths=text(f"{_PREFIX}_Input/{name}.jpg" for name in names),
        labels=labels,
        domains=text(value or "unknown" for value in choices[config.domain].tolist()),
        groups=lesions,
        class_names=CLASSES,
        metadata={"clinic": clinics, **metadata},
    )
    return published(records, config, split)
