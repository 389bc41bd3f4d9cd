"""A graph that ``export`` wrote in ONNX, run by onnxruntime: a frozen service answers twice as fast
by it, and needs no pickle.
"""

import hashlib
import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.export import facts_of
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError, said

#: The names by which ``export`` calls what goes in and what comes out.
_IN, _OUT = "images", "logits"
#: What ``export`` says of statistics: the batch's own, or none that depend on it.
_NORMALIZATIONS = ("batch", "fixed")
#: Of onnxruntime's log: errors, and no remarks on the machine.
_ERRORS = 3


class Graph(nn.Module):
    """A network that is a graph: images (N, channels, ...) in [0, 1] to its logits.

    What it keeps of features nobody sees, so its logits stand for them.

    Args:
        file: of ONNX.
        checkpoint: the source that it was exported from.

    Raises:
        InputError: it cannot be run, or answers otherwise than the source.
    """

    head_name = "logits"

    def __init__(self, file: Path, checkpoint: SourceCheckpoint) -> None:
        super().__init__()
        self.logits = nn.Identity()
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # tells its device
        self._session = _session(file)
        blank = torch.zeros(1, checkpoint.channels, *checkpoint.size)
        try:
            shape = tuple(self(blank).shape)
        except Exception as error:  # onnxruntime has a dozen types, under no name of their own
            raise _refused(file, said(error)) from error
        classes = len(checkpoint.class_names)
        one = classes == 2 and shape == (1, 1)  # one logit will do for two classes
        if shape != (1, classes) and not one:
            raise _refused(file, f"it answers with {shape} where the source has {classes} classes")

    def forward(self, images: Tensor) -> Tensor:
        """Logits, on the device of the images; they are computed on the CPU."""
        told = self._session.run([_OUT], {_IN: images.detach().cpu().numpy()})[0]
        logits: Tensor = self.logits(torch.from_numpy(told).to(images.device))
        return logits


def graph_of(file: Path, checkpoint: SourceCheckpoint) -> tuple[Graph, str]:
    """The graph of a file, and its version, a hash of the file.

    Raises:
        InputError: it cannot serve images one by one.
    """
    told = json.loads(facts_of(file).read_text(encoding="utf-8"))
    normalization = told.get("normalization")
    if normalization not in _NORMALIZATIONS:
        raise InputError(
            f"{facts_of(file)} does not tell whether the graph normalises each batch by its own "
            "statistics (normalization): export it again"
        )
    if normalization == "batch":
        raise InputError(
            f"{file} normalises each batch by its own statistics, so an answer would depend on "
            "who else asks: export a run with method.normalization=source, or serve its "
            "adapted.ckpt with serve.adapt=true"
        )
    return Graph(file, checkpoint), hashlib.sha256(file.read_bytes()).hexdigest()


def _session(file: Path) -> Any:
    if find_spec("onnxruntime") is None:
        raise InputError(
            f"serving {file} needs onnxruntime: pip install 'holdfast[onnx]', or serve weights, a "
            ".safetensors file"
        )
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _ERRORS
    try:
        return runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise _refused(file, said(error)) from error


def _refused(file: Path, why: str) -> InputError:
    return InputError(f"{file} is no graph of this source ({why[:160]}): export it again")
