"""What ``holdfast export`` does: write a source's network, or what an adaptation made of it, for
other programs.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.settings import SUFFIXES, check_format

USAGE = (
    "usage: holdfast export SOURCE [adapted.ckpt] [format=torch|safetensors|onnx|program] ...\n\n"
    "Write the source's network, with the adapted values where an adapted.ckpt is named, and check "
    "it.\nFILE.json beside it tells how images are to be prepared."
)


@dataclass
class ExportConfig:
    """Options of ``holdfast export``."""

    source: str | None = option(None, "source checkpoint, or the folder of one; required")
    adapted: str | None = option(None, "adapted.ckpt of a run from it; null: the source itself")
    format: str = option(
        "torch",
        "torch: a state dict; safetensors: the same; onnx: a graph; program: of torch.export",
    )
    output: str | None = option(None, "file to write; null: exported.* beside what is exported")
    model: str | None = option(None, "FILE.py:function that built the network, where one did")
    overwrite: bool = option(False, "replace a file that is there")

    def __post_init__(self) -> None:
        check_format(self.format)
        ending = Path(self.output or "").suffix
        meant = [name for name, suffix in SUFFIXES.items() if suffix == ending]
        if meant and self.format not in meant:
            raise InputError(
                f"output={self.output} ends as format={meant[0]} does, and format={self.format} "
                f"would be written: add format={meant[0]}, or name it {SUFFIXES[self.format]}"
            )


def _words(argv: Sequence[str]) -> list[str]:
    """Options of words of which the first may be the source and the adapted state alone."""
    names = iter(("source", "adapted"))
    words = []
    for word in argv:
        bare = "=" not in word and not word.startswith("-") and not word.endswith((".yaml", ".yml"))
        name = next(names, None) if bare else None
        words.append(word if name is None else f"{name}={word}")
    return words


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        config = entry.configured(ExportConfig, {}, _words(argv))
        if config.source is None:
            raise InputError("source is missing: holdfast export DIR_OR_CKPT [adapted.ckpt]")
        from holdfast.export import export, facts_of
        from holdfast.tta.checkpoint import SourceCheckpoint, source_file

        checkpoint = SourceCheckpoint.load(config.source, config.model)
        beside = config.adapted or source_file(config.source)
        default = Path(beside).expanduser().parent / f"exported{SUFFIXES[config.format]}"
        file = default if config.output is None else Path(config.output).expanduser()
        there = [path for path in (file, facts_of(file)) if path.exists()]
        if there and not config.overwrite:
            raise InputError(
                f"{there[0]} is there already: name another, output=FILE, or overwrite=true"
            )
        if not file.parent.is_dir():
            raise InputError(f"the folder {file.parent} does not exist: make it, or name another")
        export(checkpoint, config.adapted, format=config.format, path=file)  # type: ignore[arg-type]

    return entry.run(run, ExportConfig, {}, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
