"""Other libraries of networks, for comparison: timm and torchvision, which tests never require.

They are looked for in the environment, and in a folder of their own (``make peers``): torchvision's
wheels are built for torch with CUDA, and beside a torch without it break whatever imports them.
"""

import importlib
import os
import sys
from types import ModuleType

import pytest
import torch

from tests.conftest import ROOT

_FOLDER = os.environ.get("HOLDFAST_PEERS", str(ROOT / ".venv" / "peers"))
#: Operators of torchvision's compiled part that it declares when it is imported, and that no
#: network for classification calls.
_OPERATORS = ("nms", "qnms")
_kept: list[torch.library.Library] = []


def peer(name: str) -> ModuleType:
    """A library, or the test is skipped."""
    if os.path.isdir(_FOLDER) and _FOLDER not in sys.path:
        sys.path.append(_FOLDER)
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed: make peers")
    except RuntimeError:  # the compiled part is not for this torch
        _declare()
        for known in [key for key in sys.modules if key.split(".")[0] in ("torchvision", "timm")]:
            del sys.modules[known]
        return importlib.import_module(name)


def _declare() -> None:
    """Declare the operators that torchvision's compiled part would."""
    if _kept:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
