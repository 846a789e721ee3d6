"""What methods are called: ``base[variant]@value``, all that records know of them.

A base is what is compared, a variant another reading of it, a value one of those that are tried.
"""

import re
from typing import NamedTuple

#: The method without any regularizer, which everything is compared with.
BASELINE = "none"

_PATTERN = re.compile(r"(?P<base>[^\[@]+)(\[(?P<variant>[^\]]+)\])?(@(?P<value>.+))?", re.DOTALL)


class Label(NamedTuple):
    """The parts of a method's name.

    Attributes:
      base: the method without variant and value.
      variant: what stands in brackets, "" if nothing does.
      value: what follows the at sign, "" if nothing does.
    """

    base: str
    variant: str = ""
    value: str = ""

    @classmethod
    def parse(cls, name: str) -> "Label":
        """The parts of a name; one that is formed otherwise is a base as a whole."""
        found = _PATTERN.fullmatch(name)
        if not found:
            return cls(name)
        return cls(found["base"], found["variant"] or "", found["value"] or "")

    def __str__(self) -> str:
        variant = f"[{self.variant}]" if self.variant else ""
        return self.base + variant + (f"@{self.value}" if self.value else "")

    @property
    def shown(self) -> str:
        """The name as it is read: "state entropy (paper)"."""
        variant = f" ({self.variant})" if self.variant else ""
        text = self.base + variant + (f"@{self.value}" if self.value else "")
        return text.replace("_", " ")
