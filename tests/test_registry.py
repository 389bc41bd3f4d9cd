"""Plug-ins: registered ones, and those of installed distributions, good and broken."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.adapting.config import GROUPS
from holdfast.tta.errors import InputError
from holdfast.tta.methods import HYPERPARAMETERS, METHODS, MethodConfig, create_method
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.tent import Tent
from holdfast.tta.registry import Registry
from tests.conftest import QUICK, ROOT, TINY, small_network

#: A method that a distribution brings.
CALM = '''
from dataclasses import dataclass
from holdfast.tta.methods import UpdateConfig
from holdfast.tta.methods.tent import Tent
from holdfast.tta.options import option

@dataclass
class CalmConfig(UpdateConfig):
    """Hyperparameters of calm Tent."""
    calm: float = option(0.5, "share of the entropy that counts")

class Calm(Tent):
    Config = CalmConfig

    def objective(self, images, prediction):
        return self.config.calm * super().objective(images, prediction)
'''


def install(folder: Path, name: str, code: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """A distribution of one module, as pip leaves it in site-packages."""
    module, info = folder / f"{name}.py", folder / f"{name}-1.0.dist-info"
    module.write_text(code)
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of distributions: a good one, one that fails at import, one that takes our name."""
    group = "holdfast.methods"
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "calm_plugin", CALM, {group: {"calm": "calm_plugin:Calm"}})
    install(folder, "torn_plugin", "import not_there_at_all", {group: {"torn": "torn_plugin:Torn"}})
    install(folder, "odd_plugin", "Odd = 3", {group: {"odd": "odd_plugin:Odd"}})
    install(folder, "greedy_plugin", CALM, {group: {"tent": "greedy_plugin:Calm"}})
    monkeypatch.syspath_prepend(str(folder))
    for name in ("calm_plugin", "torn_plugin", "odd_plugin"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def registry() -> Registry[Any]:
    """A new one over the entry points that are there now, with our check."""
    return Registry("method", "holdfast.methods", {"tent": Tent}, METHODS._check)


def test_a_plug_in_is_imported_when_it_is_asked_for(site: Path) -> None:
    methods = registry()
    assert methods["tent"] is Tent
    assert "calm" in methods
    assert "calm_plugin" not in sys.modules
    assert methods["calm"].__name__ == "Calm"
    assert issubclass(methods["calm"], Tent)
    assert "torn_plugin" not in sys.modules


def test_a_broken_plug_in_is_one_warning_that_names_the_distribution(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    methods = registry()
    assert methods["tent"] is Tent
    assert not caplog.messages
    assert list(methods) == list(methods) == ["tent", "calm"]
    torn, odd = (
        [message for message in caplog.messages if name in message]
        for name in ("torn_plugin", "odd_plugin")
    )
    assert torn == [
        "method=torn is left out: torn_plugin 1.0 is broken (ModuleNotFoundError: No module named "
        "'not_there_at_all'); update or uninstall it"
    ]
    assert len(odd) == 1
    assert "3 is no method: make it a subclass" in odd[0]
    with pytest.raises(InputError, match=r"method=torn cannot be used: torn_plugin 1.0 is broken"):
        methods["torn"]


def test_a_name_taken_twice_is_refused(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(site, "other_plugin", CALM, {"holdfast.methods": {"calm": "other_plugin:Calm"}})
    methods = registry()
    with pytest.raises(InputError, match=r"calm_plugin 1\.0 and other_plugin 1.0 both have one"):
        methods["calm"]
    assert not caplog.messages
    assert list(methods) == ["tent"]
    assert len(caplog.messages) == 4
    assert any("method=tent of greedy_plugin 1.0 is left out" in text for text in caplog.messages)
    with pytest.raises(InputError, match=r"there is a method 'tent' already: register yours under"):
        methods.register("tent", NormAffineMethod)
    with pytest.raises(InputError, match="cannot be called 'my tent'"):
        methods.register("my tent", Tent)
    assert methods.register("tent", Tent) is Tent  # a cell that is run again


def test_what_is_no_method_is_refused_with_the_remedy() -> None:
    class Plain:
        pass

    class Bare(Tent):
        Config = type("Bare", (), {})  # type: ignore[assignment]

    methods = registry()
    with pytest.raises(InputError, match="is no method: make it a subclass"):
        methods.register("plain", Plain)
    with pytest.raises(InputError, match="Config must be a dataclass"):
        methods.register("bare", Bare)


def test_a_method_registered_late_has_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))

    @METHODS.register("late")
    class Late(Tent):
        pass

    assert GROUPS["method"]["late"] is Late.Config
    assert HYPERPARAMETERS["late"] is Late.Config
    assert "late" in METHODS
    assert isinstance(create_method("late", small_network(), num_classes=4), Late)
    # Defaults are those of our own: programs choose, and Python takes published constants.
    assert Late.Config() == METHODS["tent"].Config()
    assert create_method("late", small_network(), num_classes=4).config.lr == 2.5e-4
    assert issubclass(METHODS["late"].Config, MethodConfig)


#: What is asked of a process of its own, with a plug-in installed.
ASK = """
import sys
import holdfast
assert "torch" not in sys.modules and "calm_plugin" not in sys.modules
from holdfast.adapting.config import GROUPS
from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.plan import create_plan
from holdfast.datamodules import STREAMS
from holdfast.datamodules.shifts import CORRUPTIONS, SHIFTS
from holdfast.tta import entry
from holdfast.tta.networks import MODELS
assert "calm_plugin" not in sys.modules
config = entry.configured(BenchmarkConfig, {}, ["methods=[calm]", "rates=[1]"])
assert {case.method for _, cases in create_plan(config) for case in cases} == {"calm"}
assert "negative" in SHIFTS and "negative" in CORRUPTIONS and "backwards" in STREAMS
assert "tiny" in MODELS
print("asked")
"""
#: One of each other kind.
OTHERS = """
import numpy as np
from torch import nn
from holdfast.datamodules.shifts import Corruption
from holdfast.datamodules.streams import Stream, StreamConfig
from holdfast.tta.networks import Architecture, ModelConfig

def turned(image, strength, rng):
    return image + strength * (1 - 2 * image)

negative = Corruption(turned, (.1, .2, .3, .4, .5))
class Backwards(StreamConfig):
    def one_pass(self, images, rng):
        return Stream(np.arange(len(images))[::-1].copy(), (images.transform,))
def build(config, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], 8)), 8
tiny = Architecture(ModelConfig, build)
"""


@pytest.mark.slow
def test_an_installed_method_runs_by_its_name(source: Path, site: Path, tmp_path: Path) -> None:
    points = {
        "holdfast.shifts": {"negative": "others_plugin:negative"},
        "holdfast.streams": {"backwards": "others_plugin:Backwards"},
        "holdfast.networks": {"tiny": "others_plugin:tiny"},
    }
    install(site, "others_plugin", OTHERS, points)
    path = os.pathsep.join([str(ROOT), str(site), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, cwd=ROOT
        )

    words = [f"source={source}", *QUICK, *TINY, "stream=backwards", "shift=negative"]
    told = [*words, "method=calm", "method.calm=0.25", f"output={tmp_path / 'run'}"]
    done = run("adapt.py", *told)
    assert done.returncode == 0, done.stderr
    assert "plugin" not in done.stderr  # who does not use them does not meet broken ones
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "kind: calm" in saved
    assert "calm: 0.25" in saved
    assert "lr: 0.001" in saved  # auto, as for our own
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["images"] == 500
    done = run("adapt.py", *words, "method=torn")
    assert done.returncode == 2
    assert "method=torn cannot be used: torn_plugin 1.0 is broken" in done.stderr
    asked = run("-c", ASK)
    assert asked.stdout.splitlines()[-1:] == ["asked"], asked.stderr
    shown = run("adapt.py", "--help=method.calm")
    assert "method.calm=0.5" in shown.stdout, shown.stderr
    assert "torn_plugin 1.0 is broken" in shown.stderr
