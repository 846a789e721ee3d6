"""Tuning of a suite: values of every method, each tested under all perturbations.

The values that were tried are each method's frontier of price against robustness. The largest that
keeps 97 % of the nominal score of `none`, on a monotone curve through the values, is what is
reported with seeds of its own; 3 %, so that noise does not break a promise of 5 %. While even the
largest keeps it, larger ones are tried.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from entrob.agents.spec import Hyper
from entrob.persistence.store import Damaged, Store, write_frame
from entrob.perturbations import NOMINAL
from entrob.statistics.board import CLASSES
from entrob.suite.cells import Calibration
from entrob.suite.declaration import RANDOMIZED, TUNED, SuiteTask, active
from entrob.suite.desk import Desk, Records
from entrob.suite.scores import CONDITION, recovered, scored
from entrob.sweep.experiment import FIRST_TUNING_SEED, Experiment, Method, digest
from entrob.sweep.groups import Run, RunBatch, group_methods, known_ids, runs_of
from entrob.sweep.knobs import Knob, beyond, candidate_name, grid, largest_keeping
from entrob.sweep.measure import Tester, policies
from entrob.sweep.program import program
from entrob.sweep.progress import steps
from entrob.sweep.sources import code_of_test
from entrob.sweep.stored import finished

#: Learning rates that `none_tuned` tries, as factors, and temperatures, both ascending.
RATES = tuple(10 ** (k / 4) for k in range(-3, 4))
TEMPERATURES = tuple(10 ** (k / 10) for k in range(1, 8))
#: How often values are added above a grid whose largest keeps the price.
ROUNDS = 2
#: Learning rates whose nominal scores differ by less are as good: the nearest to the task's wins.
AS_GOOD = 0.01
COLUMNS: tuple[str, ...]
COLUMNS = ("task", "method", "knob", "coefficient", "seed", "nominal", "activity", *CLASSES)
COLUMNS = (*COLUMNS, "chosen", "taken", "passed", "open")


class Tuned(NamedTuple):
    """What tuning finds.

    Attributes:
      methods: as they are reported.
      table: a row per run that tried a value: ``knob`` and ``coefficient`` say what, ``nominal`` is
        its nominal score, then its activity and the share that it recovers in every class.
        ``taken`` is the value that is reported, ``chosen`` marks the one tried that is nearest;
        ``passed``: whether any keeps the price; ``open``: whether even the largest does. `none`,
        which these are held against, has the value 0.
      rates: the same for the learning rates of `none_tuned`, of which the best is taken.
    """

    methods: tuple[Method, ...]
    table: pd.DataFrame
    rates: pd.DataFrame


class Baseline(NamedTuple):
    """What candidates are held against: `none` on tuning's seeds and instances.

    Attributes:
      scores: means over its seeds, by condition.
      nominal: nominal score of its median seed: one that did not learn lowers no price.
    """

    scores: pd.Series
    nominal: float


def tune(task: SuiteTask, desk: Desk, found: Calibration, centers: dict[str, float]) -> Tuned:
    """Try values of every method, and take the largest that keeps the price.

    Args:
      task, desk: what is tuned, and where.
      found: its calibration.
      centers: where values are tried, by method; others stay as they are.
    """
    methods = {m.name: m for m in desk.working(task.experiment.methods)}
    count = task.rules.candidates
    values = {name: grid(task.knobs[name], at, count) for name, at in centers.items()}
    values = {name: some for name, some in values.items() if name in methods and some}
    parts, rates = [], pd.DataFrame(columns=COLUMNS)
    if values or TUNED in methods:
        none, part = untuned(task, desk, found)
        parts.append(part)
    if values:
        own = {name: methods[name] for name in values}
        for name, part in tune_values(task, desk, found, own, values, none).items():
            methods[name] = task.knobs[name].turned(methods[name], part.taken.iloc[0])
            parts.append(part)
    if TUNED in methods:
        methods[TUNED], rates, part = tune_none(task, desk, found, methods[TUNED], none)
        parts.append(part)
    if RANDOMIZED in methods:
        kept = found.cells[found.cells.kept]
        mixture = [[c.perturbation, float(c.magnitude), 1.0] for c in kept.itertuples()]
        methods[RANDOMIZED] = dataclasses.replace(methods[RANDOMIZED], mixture=mixture)
        if not mixture:  # nothing to see
            del methods[RANDOMIZED]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return Tuned(desk.working(tuple(methods.values())), table, rates)


def untuned(task: SuiteTask, desk: Desk, found: Calibration) -> tuple[Baseline, pd.DataFrame]:
    """What candidates are held against, and its rows of `Tuned.table`; arguments as of `tune`."""
    desk.say(f"{task.name}: {task.none.name}, which tuning is held against")
    experiment = tuning_experiment(task, (task.none,), found)
    experiment = dataclasses.replace(experiment, seeds=task.rules.baseline)
    records = desk.run(experiment, "tuning")
    by_condition = scored(records.runs, records.evaluation, found.scale).groupby(CONDITION).score
    none = Baseline(by_condition.mean(), float(by_condition.median()[NOMINAL, 0.0]))
    facts = {"task": task.name, "knob": "", "coefficient": 0.0, "chosen": False, "passed": True}
    facts |= {"taken": 0.0, "open": False, "activity": np.nan}
    return none, frontier(records, found, none).assign(**facts)[list(COLUMNS)]


def tune_values(
    task: SuiteTask,
    desk: Desk,
    found: Calibration,
    methods: dict[str, Method],
    values: dict[str, tuple[float, ...]],
    none: Baseline,
) -> dict[str, pd.DataFrame]:
    """The rows of every method's candidates, as of `judged`, but of those that are broken.

    Where even the largest value keeps the price, larger ones are tried, at most `ROUNDS` times.

    Args:
      task, desk, found: as of `tune`.
      methods: that are tuned, by name.
      values: what is tried first, by method.
      none: what they are held against.
    """
    tried, tables, parts = dict(values), [], {}
    for more in range(ROUNDS + 1):
        candidates = tuple(
            task.knobs[name].candidate(methods[name], value)
            for name, some in values.items()
            for value in some
        )
        where = " above those that all keep the price" if more else ""
        desk.say(f"{task.name}: {len(candidates)} values of {len(values)} methods{where}")
        records = desk.run(tuning_experiment(task, candidates, found), "tuning")
        tables.append(frontier(records, found, none))
        table = pd.concat(tables, ignore_index=True)
        for name in values:
            if name not in desk.broken:
                knob = task.knobs[name]
                parts[name] = judged(task, methods[name], knob, tried[name], table, none)
        open_ = [name for name in values if name in parts and parts[name].open.iloc[0]]
        values = {name: beyond(task.knobs[name], tried[name], task.rules.further) for name in open_}
        values = {name: some for name, some in values.items() if some}
        tried |= {name: tried[name] + some for name, some in values.items()}
        if not values:
            break
    return parts


def tuning_experiment(
    task: SuiteTask, methods: tuple[Method, ...], found: Calibration
) -> Experiment:
    """Methods on tuning's seeds and instances, tested under all that is reported."""
    return dataclasses.replace(
        task.experiment,
        name=f"{task.experiment.name}-tuning",
        title=f"Values of {task.experiment.name}",
        methods=methods,
        perturbations=found.magnitudes,
        seeds=task.rules.seeds,
        first_seed=FIRST_TUNING_SEED,
        evaluation_seed=FIRST_TUNING_SEED,
    )


def frontier(records: Records, found: Calibration, none: Baseline) -> pd.DataFrame:
    """A row per run: ``method``, ``seed``, ``nominal``, ``activity``, a column per class.

    Args:
      records: of candidates.
      found: the task's calibration.
      none: `none` on the same instances.
    """
    scores = scored(records.runs, records.evaluation, found.scale)
    table = scores[scores.perturbation == NOMINAL].rename(columns={"score": "nominal"})
    table = table[["run_id", "method", "seed", "nominal"]]
    activity = records.runs.set_index("run_id").get("activity", pd.Series(dtype=float))
    table = table.assign(activity=table.run_id.map(activity).astype(float))
    shares = recovered(scores, found.cells, none.scores).reindex(columns=CLASSES)
    return table.join(shares, on="run_id").drop(columns="run_id")


def judged(
    task: SuiteTask,
    method: Method,
    knob: Knob,
    values: tuple[float, ...],
    table: pd.DataFrame,
    none: Baseline,
) -> pd.DataFrame:
    """The rows of one method's candidates, with the value that is taken: see `Tuned`.

    Args:
      task: it.
      method, knob, values: what was tried.
      table: as from `frontier`.
      none: what they are held against.
    """
    names = {candidate_name(method, value): value for value in values}
    own = table[table.method.isin(names)]
    means = own.groupby("method").nominal.mean().reindex(list(names))
    ratios = means.to_numpy() / none.nominal if none.nominal > 0 else np.ones(len(means))
    taken, passed, open_ = largest_keeping(knob, values, ratios, task.rules.keep / 100)
    nearest = min(values, key=lambda value: abs(knob.place(value) - knob.place(taken)))
    tried = own.method.map(names)
    facts = {"task": task.name, "method": method.name, "knob": knob.kind, "coefficient": tried}
    verdict = {"chosen": tried == nearest, "taken": taken, "passed": passed, "open": open_}
    part = own.drop(columns="method").assign(**facts, **verdict)
    if not active(method):
        part["activity"] = np.nan
    return part[list(COLUMNS)].sort_values(["coefficient", "seed"], ignore_index=True)


def tune_none(
    task: SuiteTask, desk: Desk, found: Calibration, method: Method, none: Baseline
) -> tuple[Method, pd.DataFrame, pd.DataFrame]:
    """The best that `none` does by itself: its learning rate, then the temperature of its test.

    Temperatures are tried on the policies that the best learning rate trained.

    Returns:
      The method, the table of learning rates, and that of temperatures: see `Tuned`.
    """
    usual = float(task.experiment.hyper.get("learning_rate", Hyper().learning_rate))
    rate = Knob("learning_rate", middle=usual)
    rates = tuple(float(f"{usual * factor:.3g}") for factor in RATES)
    desk.say(f"{task.name}: learning rates and temperatures of {method.name}")
    experiment = tuning_experiment(
        task, tuple(rate.candidate(method, value) for value in rates), found
    )
    table = frontier(desk.run(experiment, "tuning"), found, none)
    means = table.groupby("method").nominal.mean()
    means = {value: means[candidate_name(method, value)] for value in rates}
    good = [value for value in rates if means[value] >= max(means.values()) - AS_GOOD]
    best = min(good, key=lambda value: abs(rate.place(value) - rate.place(usual)))
    first = judged(task, method, rate, rates, table, none)
    first = first.assign(chosen=first.coefficient == best, taken=best, passed=True, open=False)
    method = rate.turned(method, best)
    heat = Knob("temperature")
    temperatures = tuple(map(heat.value, map(heat.place, TEMPERATURES)))
    trained = rate.candidate(method, best)
    hot = {t: dataclasses.replace(heat.turned(method, t), value=f"T={t:g}")
           for t in temperatures}  # fmt: skip
    records = tested_at(experiment, Store(desk.folder / "tuning"), trained, list(hot.values()))
    table = frontier(records, found, none).replace(
        {"method": {m.name: candidate_name(method, t) for t, m in hot.items()}}
    )
    second = judged(task, method, heat, temperatures, table, none)
    taken = float(second.taken.iloc[0])
    if not second.passed.iloc[0]:  # as it was trained
        taken, second = 1.0, second.assign(chosen=False, taken=1.0)
    return heat.turned(method, taken), first, second


def tested_at(experiment: Experiment, store: Store, trained: Method, hot: list[Method]) -> Records:
    """Records of a method's trained policies, tested as those of other methods.

    Args:
      experiment: whose method `trained` is.
      store: where its policies are; the records come there too.
      trained: the method that was trained.
      hot: methods that train alike and have temperatures of their own.
    """
    (group,) = group_methods((trained,))
    prog = program(experiment, group)
    tester = Tester(experiment)
    wanted = known_ids(runs_of(experiment, trained))
    batches = list(finished(experiment, store, group))
    runs, frames = [], []
    with steps(f"testing {trained.name} at temperatures", len(batches) * len(hot)) as step:
        for batch in batches:
            places = [i for i, run in enumerate(batch.runs) if run.id in wanted]
            status = store.read(store.part("runs", batch.id)).status
            for method in hot:
                own = tuple(
                    Run(digest(batch.runs[i].id, method.temperature), method, batch.runs[i].seed)
                    for i in places
                )
                runs += [{"run_id": run.id, "status": status[i]} for i, run in zip(places, own)]
                tested = (code_of_test(experiment, n) for n in experiment.perturbations)
                code = [c for c in tested if c]
                ids = [run.id for run in own]
                name = digest(experiment.hash, experiment.perturbations, ids, *code)
                path = store.part("tempered", name)
                if not _whole(store, path):
                    everything = policies(store, batch, prog)
                    those = jax.tree.map(lambda x, at=places: x[at], everything)
                    write_frame(path, tester.table(prog, RunBatch(name, group, own), those))
                frames.append(store.read(path))
                step()
    return Records(pd.DataFrame(runs), pd.DataFrame(), pd.concat(frames, ignore_index=True))


def _whole(store: Store, path: Path) -> bool:
    """Whether records are there and undamaged; damaged ones are written again."""
    try:
        store.read(path)
    except Damaged:
        return False
    return True
