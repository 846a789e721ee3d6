"""Knobs: the one number of a method that is tuned, and the values of it that are tried."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import numpy as np
from scipy.optimize import isotonic_regression

from entrob.regularizers import regularizers
from entrob.regularizers.domain import MIXTURE
from entrob.sweep.experiment import Experiment, Method

Kind = Literal["coefficient", "strength", "learning_rate", "temperature"]


@dataclasses.dataclass(frozen=True)
class Knob:
    """A number of a method, whose larger values do more.

    Attributes:
      kind: what it is: a regularizer's coefficient, an adversary's strength, the learning
        rate, or the temperature of the test.
      name: of the regularizer, for a coefficient.
      middle: where values are tried if nothing else is known.
      domain: ``(low, high)``: values lie in [low, high).
      distinct: values with equal keys act alike; None: all differ.
    """

    kind: Kind
    name: str = ""
    middle: float = 1.0
    domain: tuple[float, float] = (0.0, math.inf)
    distinct: Callable[[float], Hashable] | None = None

    def turned(self, method: Method, value: float) -> Method:
        """The method with this value, and all else as it is."""
        new: dict[str, Any]
        if self.kind == "coefficient":
            new = {"coefficients": {**method.coefficients, self.name: value}}
        elif self.kind == "strength":
            new = {"adversary": {**method.adversary, "strength": value}}
        elif self.kind == "learning_rate":
            new = {"hyper": {**method.hyper, "learning_rate": value}}
        else:
            new = {"temperature": value}
        return dataclasses.replace(method, **new)

    def candidate(self, method: Method, value: float) -> Method:
        """The same, under a name that says which value."""
        return dataclasses.replace(self.turned(method, value), value=f"{value:g}")

    def place(self, value: float) -> float:
        """Where a value lies on the line that is searched: in decades, of the odds if bounded."""
        low, high = self.domain
        if math.isinf(high):
            return math.log10(value)
        share = (value - low) / (high - low)
        return math.log10(share / (1 - share))

    def value(self, place: float) -> float:
        """The value at a place, to three digits."""
        low, high = self.domain
        if math.isinf(high):
            return float(f"{10**place:.3g}")
        share = 1 / (1 + 10**-place)
        return float(f"{low + (high - low) * share:.3g}")


def candidate_name(method: Method, value: float) -> str:
    """What a method with one value of its knob is called in records."""
    return dataclasses.replace(method, value=f"{value:g}").name


def knob_of(method: Method, experiment: Experiment) -> Knob | None:
    """What is tuned of a method: its one regularizer or its adversary; None if it has neither."""
    if method.adversary:
        return Knob("strength", "", 0.5, MIXTURE)
    if len(method.coefficients) != 1:
        return None
    ((name, coef),) = method.coefficients.items()
    made = regularizers.get(name)()
    low, high = made.domain
    middle = coef if math.isinf(high) else (low + high) / 2
    steps = experiment.num_envs * experiment.num_steps // experiment.minibatches
    acts = made.distinct
    distinct = (lambda value: acts(value, steps)) if acts else None
    return Knob("coefficient", name, middle, made.domain, distinct)


def grid(knob: Knob, center: float, count: int, step: float = 0.5) -> tuple[float, ...]:
    """Values around a center, ascending, within the domain, of which no two act alike.

    Args:
      knob: whose.
      center: within the domain.
      count: how many before any are left out.
      step: decades between two.
    """
    places = knob.place(center) + step * (np.arange(count) - (count - 1) / 2)
    return _acting(knob, places, (0.0,))


def beyond(knob: Knob, values: Sequence[float], count: int, step: float = 0.5) -> tuple[float, ...]:
    """Values that continue a grid upward, within the domain, none of which acts like one before.

    Args:
      knob: whose.
      values: the grid, ascending, at least one.
      count: how many before any are left out.
      step: decades between two.
    """
    places = knob.place(values[-1]) + step * np.arange(1, count + 1)
    return _acting(knob, places, (0.0, *values))


def _acting(knob: Knob, places: np.ndarray, known: Sequence[float]) -> tuple[float, ...]:
    """The values at places that are in the domain and act like no other and no known one."""
    acts = knob.distinct or (lambda value: value)
    low, high = knob.domain
    seen = set(map(acts, known))
    kept = []
    for value in map(knob.value, places):
        if low <= value < high and acts(value) not in seen:
            seen.add(acts(value))
            kept.append(value)
    return tuple(kept)


def center(knob: Knob, found: dict[float, float], target: float = 0.1) -> float:
    """The value at which activity would be the target.

    The logarithm of activity is made monotone over the knob's line and linear in between; beyond
    the values that were tried it goes on with slope 1, as activity is close to linear in a
    coefficient.

    Args:
      knob: whose.
      found: activity by value that was tried, NaN where it cannot be had.
      target: activity sought.

    Returns:
      The knob's middle where no activity is known or above 0. In a bounded domain at most three
      decades of odds from its middle.
    """
    known = sorted((v, a) for v, a in found.items() if a > 0 and math.isfinite(a))
    if not known:
        return knob.middle
    x = np.array([knob.place(value) for value, _ in known])
    y = isotonic_regression(np.log10([activity for _, activity in known])).x
    aim = math.log10(target)
    if y[-1] < aim:
        place = x[-1] + aim - y[-1]
    elif y[0] > aim:
        place = x[0] + aim - y[0]
    else:
        right = int(np.argmax(y >= aim))
        left = max(right - 1, 0)
        rise = y[right] - y[left]
        share = (aim - y[left]) / rise if rise > 0 else 0.0
        place = x[left] + share * (x[right] - x[left])
    return knob.value(place if math.isinf(knob.domain[1]) else min(max(place, -3.0), 3.0))


def largest_keeping(
    knob: Knob, values: Sequence[float], scores: Sequence[float] | np.ndarray, keep: float
) -> tuple[float, bool, bool]:
    """The largest value that keeps a share of the score, on a monotone curve through the scores.

    The curve is the isotonic regression, falling, over the knob's line; between two values it is
    linear.

    Args:
      knob: whose.
      values: that were tried, ascending, at least one.
      scores: nominal scores in units of the baseline's, NaN where there is none.
      keep: share of the baseline's score.

    Returns:
      ``(value, pas, open)``: the smallest if none passes; open if even the largest does.
    """
    places = [knob.place(value) for value in values]
    curve = isotonic_regression(np.nan_to_num(np.asarray(scores, float)), increasing=False).x
    if curve[0] < keep:
        return float(values[0]), False, False
    last = int(np.flatnonzero(curve >= keep)[-1])
    if last == len(values) - 1:
        return float(values[-1]), True, True
    share = (curve[last] - keep) / (curve[last] - curve[last + 1])
    return knob.value(places[last] + share * (places[last + 1] - places[last])), True, False
