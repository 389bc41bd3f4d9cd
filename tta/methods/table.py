"""The table of methods in docs/methods.md: python -m tta.methods.table > docs/methods.md"""

from tta.methods import METHODS, Method, UpdateConfig

_HEADER = """\
# Methods

Every method is a plain `nn.Module`: `create_method(NAME, model, num_classes=C, **hyperparameters)`, or `method=NAME` on the
command line with the options of its YAML. This page is written by `python -m tta.methods.table > docs/methods.md`, and a test
holds it against the code.

All that adapt weights share `optimizer`, `lr`, `momentum`, `steps`, `episodic`, `exclude` (layers), `normalization` (batch,
source, blend, robust, median) and `alpha`. "Statistics" is what BatchNorm layers use unless `normalization` says otherwise:
methods on *batch* statistics need batches of several images. "Source" is what the method needs of the source checkpoint,
which `train.py` writes; *(option)* where only some hyperparameters do. Passes are forward/backward passes a batch.

| method | paper | updates | passes | statistics | source | YAML |
|---|---|---|---|---|---|---|
"""

_FOOTER = """
Where the passes differ from released code, work was saved without changing the result: `poem` bets on the forward pass that
predicts, and `petta` takes features and logits of its teacher from one pass.

A batch leaves with the prediction made *before* its update, but for `memo` (adapts to each image first), `norm_ema` (moves the
statistics first) and `t3a` (takes the supports first); the teachers of `cotta`, `rotta` and `petta` predict. With `steps`
above 1 it leaves with the forward pass before the last step.
"""


def markdown() -> str:
    """The page."""
    return (
        _HEADER + "\n".join(_row(name, method) for name, method in METHODS.items()) + "\n" + _FOOTER
    )


def _row(name: str, method: type[Method]) -> str:
    optional = {"prevalence"}
    uses = ", ".join(f"{use} *(option)*" if use in optional else use for use in method.uses)
    config = method.Config()
    statistics = config.normalization if isinstance(config, UpdateConfig) else method.normalization
    yaml = f"[{name}](../configs/method/{name}.yaml)"
    return f"| `{name}` | {method.paper or '–'} | {method.updates} | {method.passes} | {statistics} | {uses or '–'} | {yaml} |"


if __name__ == "__main__":
    print(markdown(), end="")
