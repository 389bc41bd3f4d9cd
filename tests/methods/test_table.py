"""The page of methods is what the code says."""

from omegaconf import OmegaConf

from holdfast.tta.methods import METHODS
from holdfast.tta.methods.table import RELEASED, markdown
from tests.conftest import ROOT


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "reference" / "methods.md").read_text() == markdown()


def test_every_method_has_its_yaml_and_paper() -> None:
    for name, method in METHODS.items():
        assert (ROOT / "configs" / "method" / f"{name}.yaml").is_file()
        assert method.paper or name == "source"


def test_defaults_stand_in_the_dataclass_alone() -> None:
    for path in (ROOT / "configs" / "method").glob("*.yaml"):
        assert OmegaConf.load(path) == {"kind": path.stem}


def test_every_method_says_what_differs_from_released_code() -> None:
    assert list(RELEASED) == list(METHODS)
