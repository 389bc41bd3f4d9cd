"""Finished runs held against each other, as a paper does it."""

from holdfast.comparing.comparison import compare
from holdfast.comparing.found import Comparison
from holdfast.comparing.runs import Run, read_runs, table_of

__all__ = ["Comparison", "Run", "compare", "read_runs", "table_of"]
