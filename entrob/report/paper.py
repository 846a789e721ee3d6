"""What an experiment declares about itself and about the paper, read from a run's manifest.

The facts stand in the ``[paper]`` table of the experiment's file, are checked there
(`entrob.sweep.reading`) and travel in ``manifest["paper"]``; nothing here is about one
experiment.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from entrob.naming import Label
from entrob.perturbations.base import NOMINAL

TEXT_LEVEL = 0.96
"""Confidence level of the bands by the paper's text: mean ± 2.054 s/√n."""

CODE_LEVEL = 0.95
"""Confidence level the released code draws: mean ± 1.96 s/√n."""


class Claim(NamedTuple):
    """One pair out of a reported order: `better` `relation` (one of > ≥ ≫) `worse`."""

    better: str
    relation: str
    worse: str


class Number(NamedTuple):
    """A success rate that the paper reports.

    Attributes:
      mean: over seeds, in 0..1.
      std: sample standard deviation over seeds; NaN where the paper shows none.
      n: seeds behind it; 0 where the paper does not say.
    """

    mean: float
    std: float = math.nan
    n: int = 0


@dataclasses.dataclass(frozen=True)
class Paper:
    """The facts that tables and figures quote; whatever an experiment does not declare is empty.

    Attributes:
      methods: the experiment's methods, in the order of its file.
      units: what the magnitude of a perturbation measures, by its name.
      figure: number of the paper's figure of success against the horizon.
      note: a sentence on what can be compared.
      seeds, instances, frames: policies per method, test episodes of each, training frames of each.
      magnitudes: by perturbation, what the paper tests.
      orders: by perturbation, the order of success rates as the paper prints it.
      claims: by perturbation, the pairs which that order claims.
      numbers: by method and condition (`NOMINAL` or a perturbation), the success rates it reports.
      measures: the means of other measures that its authors' files give, by column of the
        evaluation records, method and condition.
      threshold: distance from the goal in meters below which an episode succeeds; NaN if there is
        none.
    """

    methods: tuple[str, ...] = ()
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    figure: int | None = None
    note: str = ""
    seeds: int | None = None
    instances: int | None = None
    frames: int | None = None
    magnitudes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    orders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    claims: Mapping[str, tuple[Claim, ...]] = dataclasses.field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, Number]] = dataclasses.field(default_factory=dict)
    measures: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(
        default_factory=dict
    )
    threshold: float = math.nan

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> "Paper":
        """The facts in a manifest; none of them need be there."""
        known = {field.name for field in dataclasses.fields(cls)}
        facts = {k: v for k, v in (manifest.get("paper") or {}).items() if k in known}
        claims: dict[str, tuple[Claim, ...]] = {}
        for claim in facts.pop("claims", ()):
            pair = Claim(claim["better"], claim["relation"], claim["worse"])
            claims[claim["perturbation"]] = (*claims.get(claim["perturbation"], ()), pair)
        numbers = {
            method: {condition: Number(*values) for condition, values in row.items()}
            for method, row in facts.pop("numbers", {}).items()
        }
        methods, units = tuple(manifest.get("methods", ())), manifest.get("units", {})
        return cls(methods=methods, units=units, claims=claims, numbers=numbers, **facts)

    @property
    def compared(self) -> tuple[str, ...]:
        """The methods that the paper orders, in the order of the file."""
        named = {
            name for claims in self.claims.values() for c in claims for name in (c.better, c.worse)
        }
        bases = list(dict.fromkeys(Label.parse(name).base for name in self.methods))
        return tuple(sorted(named, key=lambda n: (bases.index(n) if n in bases else len(bases), n)))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions with numbers: `NOMINAL` first, perturbations as in `magnitudes`."""
        present = {condition for row in self.numbers.values() for condition in row}
        return tuple(name for name in (NOMINAL, *self.magnitudes) if name in present)

    def number(self, method: str, condition: str) -> Number | None:
        """What the paper reports for a method under a condition, None if it does not."""
        return self.numbers.get(method, {}).get(condition)

    def order(self, perturbation: str) -> str:
        """The order the paper reports under a perturbation, or a statement that it reports none."""
        return self.orders.get(perturbation, "no order reported")

    def unit(self, perturbation: str) -> str:
        """What the magnitude of a perturbation measures, as an axis label."""
        return self.units.get(perturbation, "magnitude")
