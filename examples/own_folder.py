"""Your own images: train on a folder, adapt to another, and compare subgroups by a table.

python examples/own_folder.py
python examples/own_folder.py here=DIR there=DIR

``here`` has a folder for each class, ``there`` likewise, or images alone: then there are
predictions and no metrics. Without them two small folders of PNGs are drawn, the second with a
table that also knows each image's patient, sex and age (``draw=true`` stops there). The script does
nothing but write those and call ``train.py`` and ``adapt.py``; it prints the commands.
"""

import csv
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from shapes import CLASSES, cells

from holdfast.programs import adapt, train
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

USAGE = (
    "usage: python examples/own_folder.py [here=DIR there=DIR]\n\nTrain on a folder of images "
    "and adapt to another."
)


@dataclass
class ExampleConfig:
    """Options of the example."""

    here: str | None = option(None, "folder to train on, with a folder for each class; null: drawn")
    there: str | None = option(None, "folder to adapt to; null: drawn, with a table")
    draw: bool = option(False, "draw the two folders, and stop")
    output: str = option("runs/examples/own_folder", "folder of the results")


def example(config: ExampleConfig) -> dict[str, Any]:
    """Run the commands; returns the metrics of the last, or nothing where it only draws."""
    if (config.here is None) != (config.there is None):
        raise InputError("here and there belong together: name both folders, or neither")
    output = Path(config.output)
    here, there, table = config.here, config.there, None
    if here is None or there is None:
        here, there, table = (
            draw(output / "here", 500, 1.0),
            draw(output / "there", 480, 0.6),
            output / "there.csv",
        )
    if config.draw:
        print(f"drawn: {here}, {there}, and the table {table}")
        return {}
    source = f"output={output / 'source'}"
    short = ["epochs=6", "batch_size=32", "calibrate=off"]  # for a few hundred images
    command(train, "data=folder", f"data.root={here}", "data.shares=[.7,.15,.15]", *short, source)
    command(
        adapt,
        f"source={output / 'source'}",
        f"data.target={there}",
        "method=dsbr",
        f"output={output / 'adapted'}",
    )
    if table is not None:
        columns = ["data.subgroups=[sex,age/20]", "data.aggregate=group"]
        words = [f"source={output / 'source'}", "data=table", f"data.path={table}", *columns]
        command(adapt, *words, f"output={output / 'table'}")
    metrics: dict[str, Any] = json.loads(
        (output / ("table" if table else "adapted") / "metrics.json").read_text()
    )
    for column, groups in {"all": {"": metrics}, **metrics.get("subgroups", {})}.items():
        for name, scores in groups.items():
            print(
                f"{column:8}{name:8}balanced accuracy "
                f"{scores.get('balanced_accuracy', float('nan')):5.1f} %"
            )
    return metrics


def draw(folder: Path, count: int, contrast: float) -> str:
    """Files CLASS/NUMBER.png in a folder, and beside it a table of them; a patient has two
    images.
    """
    images, labels = cells(count, contrast, seed=count)
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group", "sex", "age"])
        seen = dict.fromkeys(range(len(CLASSES)), 0)
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            path = folder / CLASSES[label] / f"{number:04d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray((255 * image[0]).byte().numpy()).save(path)
            patient = seen[label] // 2  # a patient's images show one class
            seen[label] += 1
            name = path.relative_to(folder.parent)
            row = [
                name,
                CLASSES[label],
                f"{CLASSES[label]}-{patient}",
                "FM"[patient % 2],
                30 + patient % 50,
            ]
            writer.writerow(row)
    return str(folder)


def command(program: Any, *words: str) -> None:
    """Print a command and run it."""
    print(f"$ python {program.__name__}.py {shlex.join(words)}")
    quiet = ["overwrite=true", "wandb.mode=disabled", "trainer.enable_progress_bar=false"]
    if program.main([*words, *quiet]):
        raise InputError("that command failed: its message is above")


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: example(entry.configured(ExampleConfig, {}, argv)), ExampleConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
