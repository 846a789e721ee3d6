"""What is bought, and for what price: recovered shares, their intervals, the ranking.

The share that method m recovers in class k is R(m, k) = Σ w (S_m - S_none) / Σ w D over the kept
cells of the class: 1 if all damage is undone, 0 like `none`, below 0 if it does harm.  w and D are
constants (`board.weighted`), so R is a sum over tasks of means over paired seeds, a contrast of
`intervals`.  Nothing is trimmed or clipped.  The overall share is the mean over classes.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from entrob.naming import BASELINE
from entrob.perturbations.base import NOMINAL
from entrob.statistics import intervals
from entrob.statistics.board import CELL, CLASSES, Board, common, nominal

SOLVED = 0.9
"""A run has solved the nominal task from this score on."""

BROKEN = 0.05
"""The price that tuning promises to stay below."""

UNRANKED = {"controls": "control", "adversaries": "adversary", "tested only": "tested only"}
"""Families that are shown but not ranked, as what others are compared with, and their mark."""

IDLE = ("identical", "inactive", "diverged")
"""What `activity.csv` says of methods that are not ranked."""


class Contrasts(NamedTuple):
    """What each pair of seeds adds to numbers per method, and which number is whose.

    Attributes:
      values: float[tasks, seeds, contrasts], as in `intervals`.
      keys: method and column of each contrast.
    """

    values: np.ndarray
    keys: pd.MultiIndex

    def table(self, numbers: np.ndarray) -> pd.DataFrame:
        """Numbers of the contrasts as a frame, a row per method and a column per column."""
        series = pd.Series(np.asarray(numbers, dtype=float), index=self.keys)
        return series.unstack("column").reindex(
            index=self.keys.unique("method"), columns=self.keys.unique("column")
        )

    def of(self, methods: list[str], columns: list[str]) -> "Contrasts":
        """Only those of some methods and columns."""
        some = self.keys.isin(methods, "method") & self.keys.isin(columns, "column")
        return Contrasts(self.values[:, :, some], self.keys[some])


def class_weights(cells: pd.DataFrame) -> pd.DataFrame:
    """What a cell's gain counts in every class, w / Σ w D, and overall: float[cells, columns].

    Returns:
      Indexed by `CELL`, with the classes that have kept cells and "overall", their mean.
    """
    kept = cells[cells.kept]
    total = (kept.weight * kept.gap).groupby(kept.category).sum()
    table = kept.assign(share=kept.weight / total.reindex(kept.category).to_numpy())
    table = table.pivot_table(index=CELL, columns="category", values="share", sort=False)
    table = table.fillna(0.0)
    return table.assign(overall=table.mean(axis=1) if len(table.columns) else 0.0)


def contrasts(board: Board, weights: pd.DataFrame, whole: bool = True) -> Contrasts:
    """Weighted gains over `none` of every method and pair of seeds.

    Args:
      board: the tables.
      weights: float[cells, columns], indexed by `CELL`.
      whole: a method that lacks one of a column's cells has no number in it, rather than one from
        the tasks that it has.

    Returns:
      `Contrasts` of all methods in the order of the board, and all columns.
    """
    tasks, methods = board.tasks, board.methods
    seeds = sorted(board.scores.seed.unique())
    shape = (len(tasks), len(seeds), len(methods), weights.shape[1])
    values = np.full(shape, np.nan)
    lacking = np.zeros(shape[2:], dtype=bool)
    for i, task in enumerate(tasks):
        own = weights[weights.index.get_level_values("task") == task]
        used = (own != 0).to_numpy()
        if not used.any():
            continue
        rows = board.scores[board.scores.task == task]
        table = rows.pivot(index="seed", columns=["method", *CELL[1:]], values="score")
        cells = [tuple(cell) for cell in own.index.droplevel("task")]
        base = _scores_of(table, BASELINE, seeds, cells)
        for j, method in enumerate(methods):
            gain = _scores_of(table, method, seeds, cells) - base
            missing = np.isnan(gain)
            sums = np.where(missing, 0.0, gain) @ own.to_numpy()
            sums[(missing.astype(float) @ used > 0) | ~used.any(0)] = np.nan
            values[i, :, j] = sums
            lacking[j] |= used.any(0) & np.isnan(sums).all(0)
    if whole:
        values[:, :, lacking] = np.nan
    keys = pd.MultiIndex.from_product([methods, weights.columns], names=["method", "column"])
    return Contrasts(values.reshape(*shape[:2], -1), keys)


def _scores_of(
    table: pd.DataFrame, method: str, seeds: list[int], cells: list[tuple[str, float]]
) -> np.ndarray:
    """A method's scores as float[seeds, cells], NaN where it has none."""
    own = [(method, *cell) for cell in cells]
    return table.reindex(index=seeds, columns=pd.MultiIndex.from_tuples(own)).to_numpy(dtype=float)


def shares(board: Board) -> Contrasts:
    """Contrasts whose values are the recovered shares of all methods in all classes and overall."""
    return contrasts(board, class_weights(board.cells))


def pair_shares(board: Board) -> pd.DataFrame:
    """The share that each run recovers on its task, against the run of `none` with its seed.

    As ``tuning.csv`` has it, of a board whose scores are those of tuning runs.

    Returns:
      A row per task × method × seed with a column per class, NaN where the task has no kept cells.
    """
    parts = []
    for task in board.tasks:
        rows, cells = (frame[frame.task == task] for frame in (board.scores, board.cells))
        own = board._replace(scores=rows, cells=cells)
        if not own.classes:
            continue
        found = contrasts(own, class_weights(cells).drop(columns="overall"), whole=False)
        table = pd.DataFrame(found.values[0], index=sorted(rows.seed.unique()), columns=found.keys)
        part = table.rename_axis("seed").stack("method", future_stack=True).reset_index()
        parts.append(part.rename_axis(columns=None).assign(task=task))
    columns = ["task", "method", "seed", *board.classes]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def nominal_gains(board: Board) -> Contrasts:
    """Contrasts of the gain in nominal score, mean over the tasks that a method has."""
    return _over_tasks(board, nominal(board.scores))


def prices(board: Board) -> Contrasts:
    """Contrasts of the price, mean over the tasks that a method has.

    The price of `none` itself is 0, so a run's price is its difference from it.
    """
    rows = nominal(board.scores)
    rows = rows.assign(score=rows.price.where(rows.method != BASELINE, 0.0))
    return _over_tasks(board, rows[rows.score.notna()])


def _over_tasks(board: Board, rows: pd.DataFrame) -> Contrasts:
    """Mean over tasks of the gain in one number per run."""
    index = pd.MultiIndex.from_tuples([(task, NOMINAL, 0.0) for task in board.tasks], names=CELL)
    weights = pd.DataFrame({NOMINAL: 1.0}, index=index)
    found = contrasts(board._replace(scores=rows), weights, whole=False)
    counts = (~np.isnan(found.values)).any(1).sum(0)
    return found._replace(values=found.values / np.maximum(counts, 1))


def standing(board: Board) -> pd.DataFrame:
    """Why a method is not ranked, and other things to know of it, indexed by method.

    Returns:
      `ranked` and `status`: "control" or "adversary", "identical on TASK", "inactive on TASK",
      "diverged on TASK", "not on TASK", "not perturbed on TASK" (in no kept cell), and "price
      broken" if the one-sided 95 % lower bound of its price is above 5 %.
    """
    bounds = prices(board)
    low = bounds.table(intervals.bootstrap_t(bounds.values, level=0.9).low)[NOMINAL]
    played = board.scores.groupby("method").task.unique().to_dict()
    kept = board.scores.merge(board.cells.loc[board.cells.kept, CELL])
    tested, counting = set(zip(kept.task, kept.method)), set(kept.task)
    rows = {}
    for method in board.methods:
        family = board.family(method)
        notes = [UNRANKED[family]] if family in UNRANKED else []
        own = board.activity[board.activity.method == method]
        for status in () if family in UNRANKED else IDLE:
            tasks = own.task[own.status == status].unique()
            notes += [f"{status} on {', '.join(tasks)}"] if len(tasks) else []
        lost = set(own.task[own.status == "diverged"])
        absent = [t for t in board.tasks if t not in played.get(method, ()) and t not in lost]
        notes += [f"not on {', '.join(absent)}"] if absent else []
        bare = [t for t in played.get(method, ()) if t in counting and (t, method) not in tested]
        notes += [f"not perturbed on {', '.join(bare)}"] if bare else []
        ranked = not notes and bool(board.classes)
        # One has no price where `none` has nothing to give up.
        notes += ["price broken"] if low.get(method, np.nan) > BROKEN else []
        rows[method] = {"ranked": ranked, "status": "; ".join(notes)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["ranked", "status"])


def comparable(board: Board) -> Board:
    """The board over the cells that its ranked methods have in common, see `board.common`.

    Methods that were tested under different perturbations would else be ranked together.
    """
    status = standing(board)
    return common(board, list(status.index[status.ranked]))


def classes_table(board: Board) -> pd.DataFrame:
    """Recovered share of every method in every class.

    Returns:
      A row per method × class: `method`, `family`, `class`, `tasks` (names of those with kept
      cells), `pairs` (the fewest in a task), `share`, ``share_low``, ``share_high`` (bootstrap-t,
      each for itself), `all`, the share again, with ``all_low``, ``all_high`` (simultaneous over
      the ranked methods × classes; NaN for others), `differs`: whether the latter exclude 0.
    """
    found, status = shares(board), standing(board)
    own = intervals.bootstrap_t(found.values)
    ranked = list(status.index[status.ranked])
    tested = found.of(ranked, board.classes)
    joint = intervals.simultaneous(tested.values)
    ends = {(m, c): pair for (m, c), *pair in zip(tested.keys, joint.low, joint.high, strict=True)}
    kept = board.cells[board.cells.kept]
    tasks = {c: ", ".join(rows.task.unique()) for c, rows in kept.groupby("category")}
    counts = (~np.isnan(found.values)).sum(1)
    fewest = np.where(counts > 0, counts, counts.max(initial=0)).min(0)
    rows = []
    for i, (method, column) in enumerate(found.keys):
        if column == "overall":
            continue
        low, high = ends.get((method, column), (np.nan, np.nan))
        row = {"method": method, "family": board.family(method), "class": column}
        row |= {"tasks": tasks[column], "pairs": int(fewest[i])}
        row |= {"share": own.value[i], "share_low": own.low[i], "share_high": own.high[i]}
        row |= {"all": own.value[i], "all_low": low, "all_high": high}
        rows.append(row | {"differs": bool(low > 0 or high < 0)})
    columns = ["method", "family", "class", "tasks", "pairs", "share", "share_low", "share_high"]
    columns += ["all", "all_low", "all_high", "differs"]
    return pd.DataFrame(rows, columns=columns).astype({"differs": bool})


def ranking(board: Board) -> pd.DataFrame:
    """A row per method, ranked ones first, the largest overall share on top; then `none`, others.

    Returns:
      ``rank``, ``rank_low``, ``rank_high`` (middle 95 % of the replicates), ``method``, ``family``,
      ``overall`` with ``overall_low``, ``overall_high`` (bootstrap-t), ``least`` and
      ``least_class`` (the class with the smallest share), the classes, ``nominal_gain`` and
      ``price`` with their intervals, ``solved`` (share of the runs that solved the nominal
      task), ``pareto`` (no other row is as good in price and every class and better in one),
      ``tasks`` (how many it has) and ``status``.
    """
    found, status = shares(board), standing(board)
    own = intervals.bootstrap_t(found.values)
    names = ["value", "low", "high"]
    value, low, high = (found.table(getattr(own, name)) for name in names)
    table = pd.DataFrame({"method": board.methods}).set_index("method")
    table["family"] = [board.family(method) for method in table.index]
    overall = {"overall": value, "overall_low": low, "overall_high": high}
    for name, frame in overall.items():
        table[name] = frame["overall"]
    some = value[board.classes]
    table["least"] = some.min(axis=1, skipna=False)
    table["least_class"] = [
        row.idxmin() if len(row) and row.notna().all() else None for _, row in some.iterrows()
    ]
    table[board.classes] = some
    for name, part in (("nominal_gain", nominal_gains(board)), ("price", prices(board))):
        interval = intervals.bootstrap_t(part.values)
        for end, numbers in zip(("", "_low", "_high"), interval, strict=True):
            table[name + end] = part.table(numbers)[NOMINAL]
    table = table.reindex([*table.index, BASELINE])
    table.loc[BASELINE, ["overall", "least", *board.classes, "nominal_gain", "price"]] = 0.0
    table.loc[BASELINE, "family"] = BASELINE
    rows = nominal(board.scores)
    table["solved"] = (rows.score >= SOLVED).groupby(rows.method).mean()
    table["pareto"] = pareto(table[["price", *board.classes]].assign(price=-table.price))
    tasks = board.scores.groupby("method").task.nunique()
    table["tasks"] = tasks.reindex(table.index, fill_value=0)
    table["status"] = status.status.reindex(table.index, fill_value="")
    ranked = status.ranked.reindex(table.index, fill_value=False).astype(bool)
    chosen = found.of(list(table.index[ranked]), ["overall"])
    best, worst = intervals.rank_intervals(chosen.values)
    order = chosen.keys.get_level_values("method")
    table["rank"] = table.overall.where(ranked).rank(ascending=False, method="min")
    for name, numbers in (("rank_low", best), ("rank_high", worst)):
        table[name] = pd.Series(numbers, index=order)
    place = np.select([ranked, table.index == BASELINE], [0, 1], 2)
    table = table.assign(place=place).sort_values(["place", "overall"], ascending=[True, False])
    ends = ["rank", "rank_low", "rank_high"]
    table[ends] = table[ends].astype("Int64")
    first = [*ends, "family"]
    rest = [column for column in table if column not in {*first, "place"}]
    table = table.reset_index()
    return table[[*ends, "method", "family", *rest]]


def pareto(values: pd.DataFrame) -> pd.Series:
    """Whether no other row is at least as good in all columns and better in one; more is better.

    Rows with a NaN are neither optimal nor in the way of others.
    """
    array = values.to_numpy(dtype=float)
    whole = ~np.isnan(array).any(1)
    with np.errstate(invalid="ignore"):
        as_good = (array[:, None] >= array[None]).all(2)
        better = (array[:, None] > array[None]).any(2)
    beaten = (as_good & better & whole[:, None]).any(0)
    return pd.Series(whole & ~beaten, index=values.index)


def families_table(board: Board, ranks: pd.DataFrame) -> pd.DataFrame:
    """Mean recovered share of every family's ranked methods, with the spread between them.

    Returns:
      ``family``, ``methods`` (their number), then ``overall`` and the classes, each with ``_std``,
      the sample standard deviation between methods, NaN for one alone.
    """
    rows = []
    for family, group in ranks[ranks["rank"].notna()].groupby("family", sort=False):
        row = {"family": family, "methods": len(group)}
        for column in ("overall", *board.classes):
            row |= {column: group[column].mean(), f"{column}_std": group[column].std(ddof=1)}
        rows.append(row)
    columns = ["family", "methods"]
    columns += [name + end for name in ("overall", *board.classes) for end in ("", "_std")]
    return pd.DataFrame(rows, columns=columns)


def perturbation_gains(board: Board) -> pd.DataFrame:
    """Paired gain in score of every method under every perturbation.

    The mean over the tasks with kept cells of the perturbation, and over those; of a perturbation
    that costs `none` nothing anywhere, over all its cells.

    Returns:
      ``method``, ``perturbation``, ``class``, ``gain`` with ``gain_low`` and ``gain_high``
      (simultaneous 95 % over all methods and all perturbations that cost `none` something),
      ``kept``, ``differs``.
    """
    cells = board.cells
    kept = cells.groupby(["category", "perturbation"], sort=False).kept.any()
    order = sorted(kept.index, key=lambda key: CLASSES.index(key[0]))
    weights = {}
    for category, name in order:
        rows = cells[(cells.perturbation == name) & (cells.category == category)]
        rows = rows[rows.kept] if kept[category, name] else rows
        share = 1 / (rows.task.nunique() * rows.groupby("task").magnitude.transform("size"))
        weights[name] = pd.Series(share.to_numpy(), index=pd.MultiIndex.from_frame(rows[CELL]))
    found = contrasts(board, pd.DataFrame(weights).fillna(0.0))
    value, _, _ = intervals.estimate(found.values)
    tested = found.of(board.methods, [name for (_, name), some in kept.items() if some])
    joint = intervals.simultaneous(tested.values)
    ends = dict(zip(tested.keys, zip(joint.low, joint.high, strict=True), strict=True))
    categories = {name: category for category, name in order}
    rows = []
    for (method, name), gain in zip(found.keys, value, strict=True):
        low, high = ends.get((method, name), (np.nan, np.nan))
        row = {"method": method, "perturbation": name, "class": categories[name], "gain": gain}
        row |= {"gain_low": low, "gain_high": high, "kept": bool(kept[categories[name], name])}
        rows.append(row | {"differs": bool(low > 0 or high < 0)})
    columns = ["method", "perturbation", "class", "gain", "gain_low", "gain_high", "kept"]
    return pd.DataFrame(rows, columns=[*columns, "differs"]).astype({"differs": bool})
