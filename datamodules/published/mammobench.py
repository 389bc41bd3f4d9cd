"""Mammo-Bench v2 (Bhole et al., 2025): mammograms of several sites, preprocessed alike, in one
table.
"""

from dataclasses import dataclass

import numpy as np

from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.published.common import PublishedConfig, columns, folder, published
from holdfast.datamodules.records import Records, text
from holdfast.tta.options import option

#: The sites that have normal mammograms too; cmmd has none.
SITES = ("cdd-cesm", "ddsm", "dmid", "inbreast", "kau-bcmd")
_METADATA = {
    "subject_age": "age",
    "density": "density",
    "BIRADS": "birads",
    "view": "view",
    "laterality": "laterality",
}


@dataclass
class MammoBenchConfig(PublishedConfig):
    """Mammo-Bench v2, normal or not: train on all of five sites but one, test on that."""

    root: str = option(
        "data/Mammo_Bench_v2", "folder of mammo-bench.csv (or CSV_Files/) and Preprocessed_Dataset/"
    )
    target: str | list[str] | None = option(
        "cdd-cesm", "site that is left out: cdd-cesm, ddsm, dmid, inbreast or kau-bcmd"
    )


def load_mammobench(config: MammoBenchConfig, split: Split) -> ImageSet:
    """Read a split; patients are numbered anew in each site, so they count as the site's."""
    root = folder(config.root)
    wanted = ["source_dataset", "preprocessed_image_path", "classification"]
    table = columns(root, ["mammo-bench.csv", "CSV_Files/mammo-bench.csv"], wanted)
    rows = np.flatnonzero(np.isin(np.array(table["source_dataset"].tolist()), SITES))
    table = {name: values[rows] for name, values in table.items()}
    sites = table["source_dataset"].tolist()
    subjects = table.get("source_subjectID", text([""] * len(sites))).tolist()
    records = Records(
        origin=root / "mammo-bench.csv",
        root=root,
        paths=table["preprocessed_image_path"],
        labels=text(
            "normal" if name == "Normal" else "abnormal"
            for name in table["classification"].tolist()
        ),
        domains=table["source_dataset"],
        groups=text(
            f"{site}:{subject}" if subject else ""
            for site, subject in zip(sites, subjects, strict=True)
        ),
        class_names=("normal", "abnormal"),
        metadata={new: table[old] for old, new in _METADATA.items() if old in table},
    )
    return published(records, config, split)
