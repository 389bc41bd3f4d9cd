"""Conformance tests as functions, for the test suites of those who add methods, shifts or streams.

    from holdfast.testing import check_method

    def test_my_method():
        check_method(MyMethod, threshold=0.0)

Each check that fails is an AssertionError whose sentence says what is wrong and what to do.
"""

from holdfast.testing.methods import check_method
from holdfast.testing.shifts import check_shift
from holdfast.testing.streams import check_stream

__all__ = ["check_method", "check_shift", "check_stream"]
