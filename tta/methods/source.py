"""No adaptation at all: the source model as it was trained."""

from typing import ClassVar

from holdfast.tta.methods.base import Method
from holdfast.tta.normalization import Statistics


class Source(Method):
    """Predict with the source's weights and running statistics."""

    normalization: ClassVar[Statistics] = "source"
    static: ClassVar[bool] = True
