"""From nnU-Net's raw layout to masks that lie on their cases again."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from holdfast.callbacks.replay import read_trace
from holdfast.programs import adapt, train
from tests.conftest import QUICK
from tests.datamodules.test_nnunet import TURNED, describe, write_cases


@pytest.mark.slow
def test_masks_of_volumes_open_with_the_affine_of_their_cases(tmp_path: Path) -> None:
    root = describe(tmp_path / "Dataset001_Eye")
    write_cases(root)
    write_cases(root, "imagesTs", 3, labelled=False)
    source, out = tmp_path / "source", tmp_path / "out"
    data = ["data=nnunet", f"data.root={root}", "patch=[12,16,12]", "augment=[flip]"]
    network = ["model=segresnet", "model.width=8", "batch_size=4", "epochs=12", "calibrate=off"]
    assert train.main([*QUICK, *data, *network, f"output={source}"]) == 0
    told = [f"source={source}", f"output={out}", "method=tent", "guard=off"]
    assert adapt.main([*QUICK, *told, "stream.batch_size=1"]) == 0
    for number in range(3):
        case = root / "imagesTs" / f"case_{number}_0000.nii.gz"
        image, mask = nibabel.load(case), nibabel.load(out / "masks" / f"case_{number}.nii.gz")
        np.testing.assert_array_equal(mask.affine, TURNED)
        assert mask.shape == image.shape
        truth = np.asarray(image.dataobj) > 50
        said = np.asarray(mask.dataobj) > 0
        dice = 2 * (truth & said).sum() / (truth.sum() + said.sum())
        assert dice > 0.7  # of other axes, or moved, it would be about .4
    header = (out / "cases.csv").read_text().splitlines()[0]
    assert "volume_disc" in header
    assert "dice_disc" not in header  # nothing is known of these cases
    # Guarded, one volume after the other: all candidates are asked, and flipped along two axes.
    watched = [f"source={source}", f"output={tmp_path / 'guarded'}", "method=tent", "guard=on"]
    assert adapt.main([*QUICK, *watched, "stream.batch_size=1", "stream.passes=2"]) == 0
    trace = read_trace(tmp_path / "guarded" / "trace.csv")
    assert {row["verdict"] for row in trace} <= {"OK", "WATCH"}
    assert all(row["looked"] for row in trace[:2])
    for number in range(3):
        one, other = (
            nibabel.load(folder / "masks" / f"case_{number}.nii.gz")
            for folder in (out, tmp_path / "guarded")
        )
        same = np.asarray(one.dataobj) == np.asarray(other.dataobj)
        assert same.mean() > 0.9
