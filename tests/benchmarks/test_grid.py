"""The grid: its product, and a balanced part of it."""

from collections import Counter
from itertools import combinations

from holdfast.benchmarks.grid import MethodAtRate, Setting, balanced, create_grid, settings

STREAMS = settings(
    ["phantom/scanner_b", "phantom/scanner_c", "chest"],
    ["none", "noise", "blur"],
    [3, 5],
    ["iid", "prevalence", "blocks"],
    [0, 1],
    ["compact", "group"],
    [64, 16],
)
CASES = [
    MethodAtRate(method, rate) for method in ("tent", "dsbr", "sar", "eata") for rate in (1.0, 10.0)
]


def test_the_product_of_the_axes() -> None:
    assert len(STREAMS) == 3 * 5 * 3 * 2 * 2 * 2 == len(set(STREAMS))
    assert {setting.severity for setting in STREAMS if setting.shift == "none"} == {0}
    assert STREAMS[-1] == Setting("chest", "chest", "group", "blur", 5, "blocks", 16, 1)
    whole = create_grid(STREAMS, CASES)
    assert [setting for setting, _ in whole] == STREAMS
    assert all(cases == CASES for _, cases in whole)


def test_a_part_has_the_asked_size_and_no_cell_twice() -> None:
    grid = create_grid(STREAMS, CASES, cells=50, per_stream=4)
    cells = [(setting, case) for setting, cases in grid for case in cases]
    assert len(cells) == len(set(cells)) == 50
    assert [len(cases) for _, cases in grid].count(4) == 12
    assert len({setting for setting, _ in grid}) == len(grid) == 13
    assert sum(len(cases) for _, cases in create_grid(STREAMS, CASES, cells=10**6)) == len(
        STREAMS
    ) * len(CASES)


def test_a_part_covers_every_value_and_nearly_every_pair_evenly() -> None:
    grid = create_grid(STREAMS, CASES, cells=120, per_stream=3)
    cells = [(*setting, *case) for setting, cases in grid for case in cases]
    everything = [(*setting, *case) for setting in STREAMS for case in CASES]
    for axis in range(10):
        counts, expected = (Counter(cell[axis] for cell in part) for part in (cells, everything))
        assert counts.keys() == expected.keys()
        assert max(counts.values()) <= 2.2 * min(counts.values())
    pairs, possible = (
        {(a, b, cell[a], cell[b]) for cell in part for a, b in combinations(range(10), 2)}
        for part in (cells, everything)
    )
    assert len(pairs) >= 0.97 * len(possible)


def test_the_same_words_give_the_same_part() -> None:
    first, again = (create_grid(STREAMS, CASES, cells=40, per_stream=3) for _ in range(2))
    assert first == again


def test_a_part_of_a_huge_product_is_balanced_in_a_moment() -> None:
    huge = [(a, b, c, d) for a in range(8) for b in range(16) for c in range(40) for d in range(9)]
    counts = [Counter(part[axis] for part in balanced(huge, 64)) for axis in range(4)]
    assert [len(count) for count in counts] == [8, 16, 40, 9]
    assert all(max(count.values()) <= 2 * min(count.values()) for count in counts)


def test_balanced_takes_all_where_there_are_no_more() -> None:
    assert balanced(CASES, 99) == CASES
