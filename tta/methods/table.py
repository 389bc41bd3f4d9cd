"""The table of methods in the reference.

python -m holdfast.tta.methods.table > docs/reference/methods.md
"""

from typing import NamedTuple

from holdfast.tta.methods import METHODS, Method, UpdateConfig
from holdfast.tta.tasks import OURS, create_task

_HEADER = """\
# Methods

Every method is a plain `nn.Module`: `create_method(NAME, model, num_classes=C, **hyperparameters)`, or `method=NAME` on the
command line with the same options. This page is written by `python -m holdfast.tta.methods.table > docs/reference/methods.md`, and a test
holds it against the code.

All that adapt weights share `optimizer`, `lr`, `momentum`, `steps`, `episodic`, `exclude` (layers), `normalization` (batch,
source, blend, robust, median) and `alpha`. The first two and `normalization` are `auto`: programs choose by network, images and guard, and
`create_method` takes what was published. "Statistics" is what BatchNorm layers use unless `normalization` says otherwise:
methods on *batch* statistics need batches of several images. "Source" is what the method needs of the source checkpoint,
which `train.py` writes; *(option)* where only some hyperparameters do. Passes are forward/backward passes a batch.

A network answers with logits (N, C), or with a tuple or dictionary that holds them; for two classes one logit will do.

`create_method` takes a task. For segmentation the network answers for each pixel or voxel, (N, C, height, width, …). For multilabel it has
a logit for each finding, (N, L). "Tasks" says which a method does. All see *rows*: images; pixels (2¹⁸ a
batch at most, evenly spread); or image by finding, each present or not. Class statistics are kept for each finding apart. A batch may be
one case. These differ there from what was published for one label an image:

- `dsbr` holds predictions to the control's shares (`method.target_prior=control`), since pixels and findings are never balanced;
  `dot` and `shot_im` do lean to equal shares.
- `roid` and `cmf` do not correct the prior, which the network has learned.
- `roid`, `cmf`, `cotta`, `memo`, `rotta` and `petta` look at turned views, and `deyo` at shuffled patches. What is said of these is moved
  back to the pixel that it is about.
- `rotta` and `petta` remember images, by the foreground class with most pixels or the likeliest finding. `poem` settles a bet an
  image. `t3a` takes 64 pixels an image into its supports.

| method | paper | updates | passes | statistics | source | tasks | YAML |
|---|---|---|---|---|---|---|---|
"""

_MIDDLE = """
A batch leaves with the prediction made *before* its update. Exceptions are `memo` (adapts to each image first), `norm_ema` (moves the
statistics first), `t3a` (takes the supports first) and `grata` (steps first). `vptta` learns the prompt of an image before it predicts
it. `intent` mixes several predictions, and `sictta` several images; the teachers of `cotta`, `rotta` and `petta` predict. With `steps` above 1 a batch leaves with the
forward pass before the last step.

## Beside the released code

Each method was run beside the code that its authors, or others, released (`dsbr` beside its formula): same weights, same
images, same views. Predictions and weights agree to 1e-4 over 24 updates; [tests/golden](../../tests/golden/README.md) holds what
that code returned. This differs, by choice, in all methods that it concerns:

- A batch of which the filters leave nothing is no update. Some of that code takes a mean of nothing, which is NaN.
- The source's running statistics are kept. Most of that code sets them to None, and then the checkpoint does not load.
- `reset` takes back all that a method remembers. Some of that code keeps running means, variances or momentum.
- Random views are this project's own (`tta/views.py`): flips, turns, shifts, brightness, contrast and noise, for any number of
  channels, and for volumes.

| method | code | what differs |
|---|---|---|
"""

_FOOTER = """
The study behind `dsbr` leaves the last stage alone **in every method**. Its code skips `layer4` of a ResNet; of a ViT it skips `blocks.9`
to `blocks.11` and the last `norm`. Here `tent`, `dot`, `roid` and `dsbr` adapt all normalisation layers;
`method.exclude=[features.layer4]` adapts what that code does. [paper.md](../evidence/paper.md) can be measured so as well:

    python benchmark.py configs/benchmark/paper_exclude.yaml data.root=DIR sources=DIR
"""


class _Released(NamedTuple):
    """The code that a method was compared with, as OWNER/NAME, and what differs from it, in a few
    words.
    """

    repository: str
    differs: str = "–"


_TTA = "mariodoebler/test-time-adaptation"
_LAST = (
    "the last stage is found by position, in any network, not by the names `layer4` and `blocks.9`"
)
#: By method; a test asks for one of each.
RELEASED: dict[str, _Released] = {
    "source": _Released(_TTA),
    "norm": _Released(_TTA),
    "alpha_norm": _Released(_TTA),
    "norm_ema": _Released(_TTA),
    "tent": _Released(_TTA),
    "pseudo_label": _Released(
        "matsuolab/T3A",
        "adapts the normalisation layers, under batch statistics; there all weights, under the "
        "source's",
    ),
    "shot_im": _Released(
        "matsuolab/T3A",
        "the information-maximisation terms alone, without pseudo-labels; no 1e-5 within the "
        "logarithm",
    ),
    "dot": _Released("bwbwzhao/DELTA", "without DELTA's renormalisation of features"),
    "dsbr": _Released(
        "arXiv 2606.02339", "all layers: see below; targets other than uniform are ours"
    ),
    "eta": _Released(
        "mr-eggplant/EATA",
        "the redundancy margin follows C: .05 or .4 would reject every sample where classes are "
        "few",
    ),
    "eata": _Released("mr-eggplant/EATA", "the margin of `eta`"),
    "sar": _Released(
        "mr-eggplant/SAR",
        "restores at .029 ln C, .2 nats for 1000 classes (there .2 for any C), and forgets "
        "momentum and running loss then "
        f"(there both stay); {_LAST}",
    ),
    "deyo": _Released("Jhyun17/DeYO", f"`reset` works (there it raises); {_LAST}"),
    "come": _Released(
        "BlueWhaleLab/COME", "C for the 1000 in its formula; no 1e-7 within the logarithm"
    ),
    "come_eata": _Released("BlueWhaleLab/COME", "those of `come` and `eata`"),
    "come_sar": _Released("BlueWhaleLab/COME", "those of `come` and `sar`"),
    "roid": _Released(
        _TTA,
        "the logarithm of the prior is added to logits (`method.prior_correction=multiply`: as "
        "released); equal weights, as "
        "in a batch of one, are 0 (there 0/0)",
    ),
    "cmf": _Released(_TTA, "those of `roid`"),
    "cotta": _Released(
        "qinenergy/cotta",
        "views are made only where they are used; `method.symmetric=true` is the loss of its "
        "ImageNet folder",
    ),
    "rotta": _Released("BIT-DA/RoTTA", "adapts GroupNorm and LayerNorm as well"),
    "petta": _Released(
        "hthieu166/petta",
        "updates every `method.update_every` samples, there after each batch (the same at the "
        "published 64); the source's "
        "class means go by true labels, there by predicted ones; `method.loss=sce` is the loss of "
        "its CIFAR settings",
    ),
    "rdumb": _Released("oripress/CCC", "the margin of `eta`"),
    "poem": _Released(
        "yarinbar/poem",
        "the source's entropies are kept as 101 quantiles; a clip that lets a bet lose all is "
        f"refused; {_LAST}",
    ),
    "memo": _Released(_TTA, "keeps the source's statistics; there a blend with the views'"),
    "lame": _Released(_TTA, "returns log-probabilities; there probabilities"),
    "t3a": _Released("matsuolab/T3A"),
    "intent": _Released(
        "mazurowski-lab/single-image-test-time-adaptation",
        "one network, not an ensemble; of more than two classes, the mean over those predicted",
    ),
    "grata": _Released(
        "Chen-Ziyang/GraTa",
        "its entropy lacks the term of the background, here it is whole; views in another style "
        "are this project's",
    ),
    "adami": _Released(
        "mathilde-b/TTA",
        "one pass over the stream; the prior is the source's, the control's or yours, there it "
        "comes from image-level tags",
    ),
    "vptta": _Released(
        "Chen-Ziyang/VPTTA",
        "volumes and oblong images too, whose prompt has the share of each side; layers that see a "
        "single value are left out",
    ),
    "sictta": _Released(
        "HiLab-git/SicTTA",
        "the bottleneck of any network is found by its coarsest map; in a batch all images are "
        "predicted before one is remembered",
    ),
}


def markdown() -> str:
    """The page."""
    methods = "".join(
        _row(name, method) for name, method in ((name, METHODS[name]) for name in RELEASED)
    )
    released = "".join(_released(name) for name in RELEASED)
    return _HEADER + methods + _MIDDLE + released + _FOOTER


def _row(name: str, method: type[Method]) -> str:
    optional = {"prevalence"}
    uses = ", ".join(f"{use} *(option)*" if use in optional else use for use in method.uses)
    config = method.Config.as_published()
    statistics = config.normalization if isinstance(config, UpdateConfig) else method.normalization
    yaml = f"[{name}](../../configs/method/{name}.yaml)"
    cells = [f"`{name}`", method.paper or "–", method.updates, method.passes, statistics]
    return f"| {' | '.join([*cells, uses or '–', _tasks(method), yaml])} |\n"


def _tasks(method: type[Method]) -> str:
    """The tasks that it does, of ours."""
    done = [task for task in OURS if method.refuses(create_task(task, 2)) is None]
    return "all" if len(done) == len(OURS) else ", ".join(done)


def _released(name: str) -> str:
    repository, differs = RELEASED[name]
    linked = f"[{repository}](https://github.com/{repository})" if "/" in repository else repository
    return f"| `{name}` | {linked} | {differs} |\n"


if __name__ == "__main__":
    print(markdown(), end="")
