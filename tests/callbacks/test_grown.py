"""What a stream leaves in memory: the same as lists would hold, in a few bytes an entry."""

import tracemalloc
from typing import Any

import numpy as np

from holdfast.callbacks.grown import Grown, Names, Rows


def test_arrays_grow() -> None:
    for expected in (0, 5000):
        grown = Grown(np.float32, expected)
        assert grown.values.shape == (0,)
        parts = np.random.default_rng(0).random((40, 25, 3), dtype=np.float32)
        for part in parts:
            grown.add(part)
        assert len(grown) == 1000
        assert (grown.values == parts.reshape(1000, 3)).all()


def test_names_are_kept_once() -> None:
    names = Names()
    names.add(["a", "b"])
    names.add(["a", None, ("x", "y")])
    assert names.values == ["a", "b", "a", None, ("x", "y")]
    assert (len(names), names[1], names[4]) == (5, "b", ("x", "y"))


def test_rows_are_dictionaries_again() -> None:
    given: list[dict[str, Any]] = [
        {"batch": 0, "R": None, "verdict": "OK", "vanished": (), "checked": False},
        {"batch": 1, "R": 0.5, "verdict": None, "vanished": ("a",), "checked": True},
        {"batch": 2, "R": None, "verdict": "ALARM", "vanished": (), "checked": True, "more": 2.5},
    ]
    rows = Rows()
    for row in given:
        rows.add(row)
    assert len(rows) == 3
    assert list(rows) == [{**row, "more": row.get("more")} for row in given]
    assert rows[-1]["more"] == 2.5
    assert [row["R"] for row in rows[1:]] == [0.5, None]
    few = Rows(["R"])
    few.add(given[1])
    assert list(few) == [{"batch": 0, "R": 0.5}]


def test_a_batch_takes_a_few_bytes() -> None:
    row = {f"column{k}": 0.1 * k for k in range(40)} | {
        "choice": "control",
        "R": 0.5,
        "skipped": None,
    }
    rows, images, domains = Rows(["R", "choice"]), Grown(np.float32), Names()
    tracemalloc.start()
    for number in range(20_000):
        rows.add({**row, "batch": number, "R": float(number)})
        images.add(np.full((1, 4), number, np.float32))
        domains.add([f"scanner {number % 3}"])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 20_000 < 80
