"""A row a patient: means of what was served, what is known, and nothing that a spreadsheet runs."""

from pathlib import Path

import numpy as np
import torch

from holdfast.callbacks.patients import write_patients
from holdfast.tta.csvfile import read_rows

SAID = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])


def test_a_patient_is_the_mean_of_its_images_in_a_domain(tmp_path: Path) -> None:
    path, domains = tmp_path / "patients.csv", ["x", "x", "x", "y", "x"]
    known = {
        "label": np.array(["a", "", "b", "a", "a"], dtype=object),
        "domain": np.array(domains),
        "site": np.array(["s", "s", "s", "s", ""]),
        "images": np.array(["clash"] * 5),
    }
    groups = np.array(["p", "p", "=q", "p", "=q"])
    write_patients(path, SAID, groups, domains, known, ("a", "b"))
    rows = list(read_rows(path))
    assert list(rows[0]) == [
        *("group", "images", "prediction", "confidence", "prob_a", "prob_b"),
        *("label", "domain", "site"),
    ]
    assert [tuple(row[name] for name in ("group", "images", "domain")) for row in rows] == [
        ("p", "2", "x"),
        ("=q", "2", "x"),
        ("p", "1", "y"),
    ]
    assert [row["prob_a"] for row in rows] == ["0.550000", "0.500000", "0.300000"]
    assert (rows[0]["prediction"], rows[2]["prediction"]) == ("a", "b")
    # What is unknown of one image is known by the others; of two classes there is no label.
    assert [row["label"] for row in rows] == ["a", "", "a"]
    assert [row["site"] for row in rows] == ["s", "s", "s"]
    assert "\n'=q," in path.read_text()
