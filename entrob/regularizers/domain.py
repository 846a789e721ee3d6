"""Domains of coefficients: half-open intervals [low, high), bounded where high is finite.

Tuning goes evenly in the logarithm of a coefficient, or, where its domain is bounded, in the logit
of its place within.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from entrob.errors import EntrobError

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
    name, (low, high) = regularizer.name, regularizer.domain
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EntrobError(f"coefficient of {name} must be a finite number, not {value!r}")
    if number != 0 and not low <= number < high:
        raise EntrobError(f"coefficient of {name} must be in {interval(low, high)}, not {value!r}")
    return number


def interval(low: float, high: float) -> str:
    """A domain as it is written: ``[0, 1)``, ``[0, 1]`` if its end is the next number, [0, inf)."""
    end = math.nextafter(high, 0.0)
    closed = math.isfinite(high) and float(f"{end:g}") == end and float(f"{high:g}") != high
    return f"[{low:g}, {end:g}]" if closed else f"[{low:g}, {high:g})"


def greatest(domain: tuple[float, float]) -> np.float32:
    """The largest float32 below the domain's end, inf if it has none."""
    end = np.float32(domain[1])
    return end if float(end) < domain[1] or np.isinf(end) else np.nextafter(end, np.float32(0))


def steps_of(share: float, steps: int) -> int:
    """max(1, ⌊share · steps⌋) as float32 has it, 0 if the share is 0: how many steps a share is."""
    return max(1, int(np.floor(np.float32(share) * np.float32(steps)))) if share else 0
