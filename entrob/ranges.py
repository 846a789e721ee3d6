"""Ranges: what a number may be, declared where its field is declared and checked in one place.

A field of a dataclass or named tuple declares its range in its type, and `check` holds an instance,
or a table of values that are to become one, to all of them::

    class Hyper:
        gamma: Annotated[float, Range(0, 1, below=True)] = 0.99
        epochs: Annotated[int, COUNT] = 1
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from entrob.errors import EntrobError


class Range(NamedTuple):
    """The numbers from one to another; NaN is in none.

    Attributes:
      low, high: its ends, which are in it, but for infinity.
      above: it begins above `low`.
      below: it ends below `high`.
      whole: it has whole numbers only.
      endless: infinity is in it where an end is infinite: there is no bound.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    endless: bool = False

    def holds(self, number: float) -> bool:
        """Whether one real number is in it."""
        if isinstance(number, float) and math.isinf(number) and not self.endless:
            return False
        inside = self.low < number if self.above else self.low <= number
        inside = inside and (number < self.high if self.below else number <= self.high)
        return inside and (not self.whole or number == math.floor(number))

    def check(self, what: str, value: Any) -> Any:
        """The value itself, a number or a (nested) sequence or array of numbers.

        Returns:
          The value; as an `int` if it is a `float` and the range is of whole numbers.

        Raises:
          EntrobError: one of them is outside, or no number: what it is called, what it must be, and
            what it is.
        """
        for item in _flat(value):
            number = _number(item)
            if number is None or not self.holds(number):
                shown = repr(item) if number is None or isinstance(item, int) else f"{number:.6g}"
                raise EntrobError(f"{what} must be {self}, not {shown}")
        return int(value) if self.whole and isinstance(value, float) else value

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low, high = f"{self.low:.9g}", f"{self.high:.10g}"
        if math.isfinite(self.low) and math.isfinite(self.high):
            if not (self.above or self.below):
                return f"{kind} in {low}..{high}"
            return f"{kind} in {'[('[self.above]}{low}, {high}{'])'[self.below]}"
        if not (self.whole or self.endless):
            kind = "a finite number"
        if math.isfinite(self.low):
            return f"{kind} above {low}" if self.above else f"{kind} of at least {low}"
        if math.isfinite(self.high):
            return f"{kind} below {high}" if self.below else f"{kind} of at most {high}"
        return kind


#: Every number but infinities.
FINITE = Range()
#: Finite and at least 0.
NOT_NEGATIVE = Range(0)
#: Finite and above 0.
POSITIVE = Range(0, above=True)
#: A share or probability.
SHARE = Range(0, 1)
#: How many of something there are, at least one.
COUNT = Range(1, whole=True)
#: How many of something there are that are counted in 32 bits, at least one.
COUNT32 = Range(1, 2**31 - 1, whole=True)
#: What begins a sequence of random numbers.
SEED = Range(0, 2**32 - 1, whole=True)

_FOREIGN: dict[type, dict[str, Range]] = {}


def declare(cls: type, **ranges: Range) -> None:
    """Say which ranges fields of a class have that is another library's, and of its subclasses."""
    _FOREIGN[cls] = ranges


def declared(cls: type) -> Mapping[str, Range]:
    """The ranges of a class's fields by name, inherited ones included."""
    return _declared(cls)


@functools.cache
def _declared(cls: type) -> Mapping[str, Range]:
    found: dict[str, Range] = {}
    for base in reversed(cls.__mro__):
        found |= _FOREIGN.get(base, {})
        try:
            types = inspect.get_annotations(base, eval_str=True)
        except Exception:  # a name that only a type checker knows
            types = inspect.get_annotations(base)
        for name, type_ in types.items():
            ranges = [x for x in getattr(type_, "__metadata__", ()) if isinstance(x, Range)]
            if ranges:
                found[name] = ranges[0]
    return found


def check(where: str, values: Any, cls: type | None = None) -> dict[str, Any]:
    """Hold numbers to the ranges that the fields of a class declare; None is no number yet.

    Args:
      where: what an error puts before the name of a field.
      values: an instance of the class, or values by name of some of its fields.
      cls: the class, by default that of the instance.

    Returns:
      The numbers by name, as `Range.check` has them.

    Raises:
      EntrobError: one is outside of its range.
    """
    ranges = declared(cls or type(values))
    by_name = values if isinstance(values, Mapping) else vars_of(values)
    given = {name: by_name[name] for name in ranges if by_name.get(name) is not None}
    return {name: ranges[name].check(f"{where}{name}", value) for name, value in given.items()}


def vars_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass's or named tuple's instance, by name."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: getattr(value, name) for name in getattr(value, "_fields", ())}


def _flat(value: Any) -> list[Any]:
    """The numbers of a (nested) sequence or array, one by one."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [item for part in value for item in _flat(part)]
    return [value]


def _number(item: Any) -> float | None:
    """A real number as such; None for anything else, of which True is one, too."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None
    return item
