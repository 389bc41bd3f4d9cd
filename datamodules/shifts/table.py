"""The tables of shifts and families in docs/reference/shifts.md.

python -m holdfast.datamodules.shifts.table
"""

import re

from holdfast.datamodules.shifts.registry import CORRUPTIONS, FAMILIES, Corruption
from holdfast.tta.options import opening


def shifts_table() -> str:
    """A row a shift: what it does, its strengths, and the images that it needs."""
    header = (
        "| `shift=` | what it does | strength at severity 1, 2, 3, 4, 5 | images "
        "|\n|---|---|---|---|\n"
    )
    return header + "".join(_row(name, corruption) for name, corruption in CORRUPTIONS.items())


def families_table() -> str:
    """A row a modality."""
    rows = (
        f"| `{name}` | {', '.join(f'`{member}`' for member in family)} |\n"
        for name, family in FAMILIES.items()
    )
    return "| `stream.shifts=` | its shifts |\n|---|---|\n" + "".join(rows)


def _row(name: str, corruption: Corruption) -> str:
    text = re.sub("``(.*?)``", r"*\1*", opening(corruption.function).rstrip("."))
    levels = ", ".join(f"{level:g}" for level in corruption.levels)
    needs = "colour, " * corruption.colour + ("2D" if corruption.flat else "2D, 3D")
    return f"| `{name}` | {text} | {levels} | {needs} |\n"


if __name__ == "__main__":
    print(f"{shifts_table()}\n{families_table()}", end="")
