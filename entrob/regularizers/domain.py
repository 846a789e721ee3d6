"""Domains of coefficients: half-open intervals [low, high), bounded where high is finite.

Tuning goes evenly in the logarithm of a coefficient, or, where its domain is bounded, in the logit
of its place within.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from entrob.ranges import Range

if TYPE_CHECKING:
    from entrob.regularizers.protocol import Regularizer

#: A strictness or share whose end, 1, would leave nothing: [0, 1).
BELOW_ONE = (0.0, 1.0)
#: The weight of a mixture with the unregularized agent, whose end is the method itself: [0, 1].
MIXTURE = (0.0, math.nextafter(1.0, 2.0))


def check_coefficient(regularizer: "Regularizer", value: Any) -> float:
    """The value as float if it is within the regularizer's domain; 0, which is off, always is.

    Raises:
      EntrobError: it is no finite number, or outside; one line that names the domain.
    """
    if value != 0 or isinstance(value, bool):
        range_of(regularizer.domain).check(f"coefficient of {regularizer.name}", value)
    return float(value)


def range_of(domain: tuple[float, float]) -> Range:
    """A domain as a range: half open, or closed if its end is the number after a short one."""
    low, high = domain
    end = math.nextafter(high, 0.0)
    closed = math.isfinite(high) and float(f"{end:g}") == end and float(f"{high:g}") != high
    return Range(low, end) if closed else Range(low, high, below=True)


def greatest(domain: tuple[float, float]) -> np.float32:
    """The largest float32 below the domain's end, inf if it has none."""
    end = np.float32(domain[1])
    return end if float(end) < domain[1] or np.isinf(end) else np.nextafter(end, np.float32(0))


def steps_of(share: float, steps: int) -> int:
    """max(1, ⌊share · steps⌋) as float32 has it, 0 if the share is 0: how many steps a share is."""
    return max(1, int(np.floor(np.float32(share) * np.float32(steps)))) if share else 0
