"""What a board can say with confidence, and what it cannot, in generated sentences."""

from collections.abc import Sequence

import pandas as pd

from entrob.naming import BASELINE
from entrob.report.markup import display
from entrob.statistics.board import Board, calibrated
from entrob.statistics.intervals import FEWEST


def summary(board: Board, ranks: pd.DataFrame, classes: pd.DataFrame) -> list[str]:
    """Sentences on the ranked methods, a paragraph each.

    Args:
      board: the tables.
      ranks, classes: `recovery.ranking` and `recovery.classes_table`.

    Returns:
      What is known with simultaneous 95 % confidence in each class; how many comparisons that
      leaves open; how far the ranks are known; and what else the numbers rest on.
    """
    ranked = ranks[ranks["rank"].notna()]
    rows = classes[classes.method.isin(ranked.method)]
    if rows.empty:
        return ["No method is ranked: none has every task and a class to be compared in."]
    said = [_in_class(name, rows[rows["class"] == name]) for name in board.classes]
    differ, tested = int(rows.differs.sum()), int(rows.all_low.notna().sum())
    counts = f"{len(ranked)} ranked methods × {len(board.classes)} classes"
    first = f"With simultaneous 95 % confidence over {counts}, seeds paired with {BASELINE}'s:"
    said = ["\n".join([first, "", *(f"- {sentence}" for sentence in said)])]
    short = len(rows) - tested
    left = f"Undecided: {tested - differ} of {tested} comparisons have an interval that holds 0"
    if short:
        left += f"; {short} have none (fewer than {FEWEST} pairs, or pairs that are all alike)"
    said.append(f"{left}. No interval here compares two methods with each other.")
    return [*said, _ranks(ranked), *_basis(board, rows, ranks)]


def headline(board: Board, ranks: pd.DataFrame, classes: pd.DataFrame) -> str:
    """All that can be said, in one sentence; arguments as of `summary`."""
    ranked = ranks[ranks["rank"].notna()]
    rows = classes[classes.method.isin(ranked.method)]
    tested = int(rows.all_low.notna().sum())
    if not tested:
        return (
            f"Nothing can be said with confidence yet: no ranked method has {FEWEST} pairs of "
            "seeds that differ in a class."
        )
    better, worse = rows[rows.all_low > 0], rows[rows.all_high < 0]
    said = [f"none of {len(ranked)} ranked methods recovers more than {BASELINE}"]
    if len(better):
        most = better.loc[better.share.idxmax()]
        count = better.method.nunique()
        said = [
            f"{count} of {len(ranked)} ranked methods recover{'s' * (count == 1)} more than "
            f"{BASELINE} in a class, most of all {display(most.method)} against {most['class']} "
            f"(R = {most.share:.2f})"
        ]
    if len(worse):
        count = worse.method.nunique()
        said.append(f"{count} do{'es' * (count == 1)} harm in one")
    left = tested - int(rows.differs.sum())
    said.append(f"{left} of {tested} comparisons are undecided")
    return f"With simultaneous 95 % confidence, {listed(said)}."


def _in_class(name: str, rows: pd.DataFrame) -> str:
    """Who recovers more than none in a class, and who less."""
    better = rows[rows.all_low > 0].sort_values("share", ascending=False)
    worse = rows[rows.all_high < 0].sort_values("share")
    parts = []
    if len(better):
        parts.append(f"{_named(better)} recover{'s' if len(better) == 1 else ''} more than none")
    if len(worse):
        parts.append(f"{_named(worse)} do{'es' if len(worse) == 1 else ''} harm")
    if not parts:
        parts = ["no method can be told from none"]
    tasks = rows.tasks.iloc[0]
    alone = f" (on one task: {display(tasks)})" if ", " not in tasks else ""
    return f"**{name}**{alone}: {'; '.join(parts)}."


def _named(rows: pd.DataFrame) -> str:
    """Methods with their shares."""
    names = [f"{display(row.method)} (R = {row.share:.2f})" for row in rows.itertuples()]
    return listed(names)


def listed(names: Sequence[str]) -> str:
    """Names in a row: "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _ranks(ranked: pd.DataFrame) -> str:
    """How far the order is known."""
    top = ranked.iloc[0]
    if pd.isna(top.rank_low):
        return f"Ranks have no intervals: fewer than {FEWEST} pairs in a task."
    close = ranked[ranked.rank_low <= top.rank_high]
    span = f"{top.rank_low} to {top.rank_high}" if top.rank_high > top.rank_low else "1 as well"
    text = (
        f"First is {display(top.method)}; in the middle 95 % of the replicates its rank is {span}"
    )
    if len(close) > 1:
        others = [display(name) for name in close.method if name != top.method]
        text += f", a place that {listed(others)} may have instead"
    return f"{text}."


def _basis(board: Board, rows: pd.DataFrame, ranks: pd.DataFrame) -> list[str]:
    """What the numbers rest on: calibration, activity, controls, broken prices."""
    said = []
    if not calibrated(board):
        said.append(
            "Not calibrated: cells and weights do not come from 20 seeds of none of their own, "
            "which may favor methods where its luck was bad."
        )
    if board.activity.empty:
        said.append("Activity was not measured: a method that changes nothing would be ranked.")
    controls = ranks[(ranks.family == "controls") & ranks.overall.notna()]
    if len(controls):
        shares = [f"{display(row.method)} {row.overall:.2f}" for row in controls.itertuples()]
        said.append(f"Controls recover overall: {listed(shares)}.")
    broken = ranks[ranks.status.str.contains("price broken")].method
    if len(broken):
        named = listed([display(name) for name in broken])
        said.append(f"Beyond the 5 % that tuning allows, with 95 % confidence each: {named}.")
    return said
