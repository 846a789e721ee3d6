"""Choosing coefficients by the paper's rule: the largest that costs less than 5 % of performance.

Made precise: performance is sampled success in the nominal environment (where nobody succeeds, or
where the experiment's ``[tune]`` table says ``measure = "return_mean"``, the return above that of a
uniformly random policy); a coefficient passes if its mean over tuning seeds is at most 5 % below
that of ``none``; the largest one below the first failure is taken; the grid is extended upward
while its largest coefficient passes and downward while its smallest fails, within its bounds.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from entrob.agents.training import Trainer
from entrob.errors import EntrobError
from entrob.naming import BASELINE
from entrob.persistence.store import Store
from entrob.regularizers import regularizers
from entrob.regularizers.domain import check_coefficient
from entrob.sweep.experiment import FIRST_TUNING_SEED, SEEDS, Experiment, Method
from entrob.sweep.groups import group_methods
from entrob.sweep.knobs import Knob
from entrob.sweep.measure import Tester
from entrob.sweep.program import nominal
from entrob.sweep.reading import coefficient
from entrob.sweep.runner import run

THRESHOLD = 0.95
_MAX_EXTENSIONS = 4


@dataclasses.dataclass(frozen=True)
class Grid:
    """Values to try for one method.

    Attributes:
      method: the method being tuned; whatever else it has, every candidate has.
      knob: its regularizer's coefficient.
      values: ascending.
    """

    method: Method
    knob: Knob
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    def candidates(self) -> dict[float, Method]:
        """The method with each value above 0."""
        return {v: self.knob.candidate(self.method, v) for v in self.values if v > 0}

    def extended(self, upward: bool) -> "Grid":
        """Two more values above or below, with the spacing of the grid's edge, if in the domain."""
        a, b = (
            (self.values[-2:] if upward else self.values[1::-1])
            if len(self.values) > 1
            else ((1.0, 3.0) if upward else (3.0, 1.0))
        )
        edge = self.values[-1 if upward else 0]
        new = [float(f"{edge * (b / a) ** i:.3g}") for i in (1, 2)]
        low, high = self.knob.domain
        new = [value for value in new if low <= value < high]
        return dataclasses.replace(self, values=tuple(sorted({*self.values, *new})))


def grids(experiment: Experiment) -> list[Grid]:
    """The grids of an experiment's ``[tune.grids]``.

    Raises:
      EntrobError: there are none, or a value is outside its regularizer's domain.
    """
    declared = experiment.tuning.grids
    if not declared:
        raise EntrobError(f"experiment {experiment.name!r} declares no [tune.grids]")
    known = {m.name: m for m in experiment.methods}
    none = known.get(BASELINE, Method(BASELINE))  # has what the file gives to all
    bases = {name: known.get(name, dataclasses.replace(none, base=name)) for name in declared}
    return [_grid(name, entry, bases[name]) for name, entry in declared.items()]


def _grid(name: str, entry: Any, method: Method) -> Grid:
    if not (isinstance(entry, dict) and isinstance(entry.get("values"), list)):
        raise EntrobError(f"tune.grids.{name} needs a list of values")
    tuned = entry.get("coefficient", name)
    part = regularizers.get(tuned)()
    fixed = {k: coefficient(k, v) for k, v in entry.get("fixed", {}).items()}
    values = sorted(check_coefficient(part, value) for value in entry["values"])
    method = dataclasses.replace(method, coefficients=fixed)
    return Grid(method, Knob("coefficient", tuned, part.coef, part.domain), tuple(values))


def tuning_experiment(experiment: Experiment, of: list[Grid]) -> Experiment:
    """The sweep that scores every candidate on seeds that are never reported."""
    known = {m.name: m for m in experiment.methods}
    methods = [known.get(BASELINE, Method(BASELINE))]
    methods += [method for grid in of for method in grid.candidates().values()]
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-tune",
        title=f"Coefficients of {experiment.name} by the 5 % rule",
        methods=tuple(methods),
        seeds=SEEDS.check("tune.seeds", experiment.tuning.seeds),
        first_seed=FIRST_TUNING_SEED,
        perturbations={},  # the nominal environment is tested anyway
    )


def select(grid: Grid, score: dict[float, float], baseline: float) -> float:
    """The largest coefficient below the first that fails; 0 if the smallest fails already.

    Args:
      grid: the grid.
      score: mean performance by coefficient.
      baseline: mean performance of ``none``.
    """
    chosen = 0.0
    for value in grid.values:
        if not score[value] >= least(baseline):
            break
        chosen = value
    return chosen


def least(baseline: float) -> float:
    """The performance that passes; none worse than random asks for no more than it has itself."""
    return baseline - (1 - THRESHOLD) * abs(baseline)


def tune(
    experiment: Experiment,
    store: Store,
    command: str,
    parallel_runs: int | None = None,
    trainers: dict[tuple[str, int], Trainer] | None = None,
    resume: bool = True,
):
    """Tune every grid of an experiment.

    Args:
      experiment: it.
      store: of the tuning runs.
      command, parallel_runs, trainers, resume: as of `entrob.sweep.runner.run`.

    Returns:
      ``(chosen, table, manifest)``: coefficient by method, a row per candidate, and the manifest
      of the tuning runs, whose time is thus apart from that of the reported ones.
    """
    of = grids(experiment)
    first = tuning_experiment(experiment, of)
    random = Tester(first).random_policy(nominal(first, group_methods(first.methods)[0]))
    trainers = {} if trainers is None else trainers
    for _ in range(_MAX_EXTENSIONS + 1):
        sweep = tuning_experiment(experiment, of)
        manifest = run(sweep, store, command, parallel_runs, trainers=trainers, resume=resume)
        resume = True  # what is extended is kept
        frames = store.gather("evaluation"), store.gather("runs")
        floor, measure = float(random.return_mean.iloc[0]), experiment.tuning.measure
        table = score_table(of, *frames, floor, measure)
        chosen = dict(table[table.chosen][["method", "coefficient"]].itertuples(index=False))
        chosen = {g.name: chosen.get(g.name, 0.0) for g in of}
        wider = [_widen(g, chosen[g.name]) for g in of]
        if wider == of:
            break
        of = wider
    return chosen, table, manifest


def _widen(grid: Grid, chosen: float) -> Grid:
    if chosen == grid.values[-1]:
        return grid.extended(upward=True)
    return grid.extended(upward=False) if chosen == 0.0 else grid


def score_table(
    of: list[Grid],
    evaluation: pd.DataFrame,
    runs: pd.DataFrame,
    floor: float = 0.0,
    measure: str | None = None,
) -> pd.DataFrame:
    """A row per candidate: mean performance, its ratio to ``none``, whether it passes, is chosen.

    A diverged run performs 0, a candidate without runs fails.

    Args:
      of: the grids.
      evaluation, runs: records of the tuning runs.
      floor: return of a uniformly random policy, which returns are counted from.
      measure: ``"success"`` or ``"return_mean"``; None: success if anybody succeeds.
    """
    diverged = set(runs.loc[runs.status == "diverged", "run_id"])
    nominal = evaluation[evaluation.magnitude == 0].copy()
    measure = measure or ("success" if nominal.success.max() > 0 else "return_mean")
    nominal[measure] -= floor if measure == "return_mean" else 0.0
    nominal.loc[nominal.run_id.isin(diverged), measure] = 0.0
    mean = nominal.groupby("method")[measure].mean()
    spread = nominal.groupby("method")[measure].std()
    count = nominal.groupby("method")[measure].size()
    names = [BASELINE, *(m.name for g in of for m in g.candidates().values())]
    mean, spread, count = (x.reindex(names) for x in (mean, spread, count.astype(float)))
    baseline = mean[BASELINE]
    rows = [_row(BASELINE, 0.0, BASELINE, mean, spread, count, measure)]
    for grid in of:
        tried = {value: method.name for value, method in grid.candidates().items()}
        score = {v: mean[n] for v, n in tried.items()} | (
            {0.0: baseline} if 0.0 in grid.values else {}
        )
        chosen = select(grid, score, baseline)
        for value, name in tried.items():
            row = _row(grid.name, value, name, mean, spread, count, measure)
            rows.append({**row, "chosen": value == chosen})
    table = pd.DataFrame(rows)
    table["ratio"] = table["mean"] / baseline
    table["passes"] = table["mean"] >= least(baseline)
    table["chosen"] = table.chosen.fillna(False).astype(bool)
    return table


def _row(method, value, name, mean, spread, count, measure) -> dict[str, Any]:
    return {
        "method": method,
        "coefficient": value,
        "measure": measure,
        "mean": float(mean[name]),
        "std": float(np.nan_to_num(spread[name])),
        "seeds": int(np.nan_to_num(count[name])),
        "chosen": False,
    }
