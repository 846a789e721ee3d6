"""The leaderboard as a page: what can be said, the tables, the figures, a page per method."""

from pathlib import Path

import pandas as pd

from entrob.persistence import store
from entrob.persistence.drawings import redrawn
from entrob.report import markup, tables
from entrob.report.figures import leaderboard as board_figures
from entrob.report.figures.drawing import save
from entrob.report.method_pages import write_pages
from entrob.report.sentences import summary
from entrob.statistics import recovered_share
from entrob.statistics.board import Board, calibrated, write_board
from entrob.statistics.recovered_share import SOLVED
from entrob.suite.assemble import assemble

CAPTIONS = {
    "leaderboard": "Recovered share R: 0 is none, 1 the perturbed optimum or a specialist; overall "
    "is the mean over classes. Brackets: 95 % bootstrap-t intervals over seeds, tasks as strata, "
    "each for itself; of a rank the middle 95 % of the same replicates. •: the simultaneous 95 % "
    "interval over ranked methods × classes excludes 0. Price: share of none's nominal score that "
    f"is given up. Solved: runs with a nominal score of {SOLVED:g} or more. Pareto: no other row "
    "is as good in price and every class and better in one. Nominal gain and price are means over "
    "the tasks that a method has.",
    "classes": "Recovered share of every method in every class. Share: with the 95 % bootstrap-t "
    "interval for itself; simultaneous: with one of those that hold all at once over ranked "
    "methods × classes (max-t over sign flips). Pairs: the fewest of a task.",
    "families": "Mean recovered share of a family's ranked methods; ± s is the sample standard "
    "deviation between its methods, not an error of the mean.",
    "gains": "Paired gain in score over none under every perturbation, mean over tasks, with "
    "simultaneous 95 % intervals over all methods × perturbations; kept: none loses something.",
}

SPENT = {
    "reported runs": ("reported",),
    "tuning": ("pilot", "tuning"),
    "calibration": ("calibration", "references"),
}
"""Stages of a task by what they are for."""

IMAGES = {
    "gains": "Paired gain of every method under every perturbation",
    "price": "Price against recovered share, per class",
    "frontier": "Price and recovered share along every method's coefficients",
}


def write_leaderboard(root: Path) -> Path:
    """Write the board's tables, figures, pages and ``leaderboard.md``; returns the last.

    Args:
      root: a suite's folder, whose tidy tables are assembled from its tasks.

    Raises:
      EntrobError: a file cannot be written, or no task is finished yet.
      Damaged: a record cannot be read.
    """
    board = assemble(root)
    with redrawn(root):
        write_board(board, root)
        return write_report(board, root)


def write_report(board: Board, root: Path) -> Path:
    """The same from a board's tables alone, such as those of `board.read_board`."""
    board = recovered_share.comparable(board)
    frames, figures = computed(board), {}
    ranks, classes = frames["leaderboard"], frames["classes"]
    tables.write_tables(frames, root / "tables", CAPTIONS)
    if len(frames["gains"]):
        figures["gains"] = board_figures.gains_figure(frames["gains"], board)
    if board.classes:
        figures["price"] = board_figures.price_figure(ranks, classes)
    if frontier := board_figures.frontier_figure(board):
        figures["frontier"] = frontier
    for name, figure in figures.items():
        save(figure, root / "figures", name)
    image = lambda name: f"![{IMAGES[name]}](figures/{name}.png)"
    lines = [f"# {board.manifest['title']}", *_head(board)]
    lines += ["## What can be said", *summary(board, ranks, classes)]
    lines += [image("gains")] if "gains" in figures else []
    lines += ["## Ranking", markup.markdown(shown(ranks, classes), CAPTIONS["leaderboard"])]
    lines += [image(name) for name in figures if name != "gains"]
    if len(frames["families"]):
        lines += ["## Families", markup.markdown(frames["families"], CAPTIONS["families"])]
    lines += _cells(board)
    pages = write_pages(root, board, ranks, classes)
    facts = board.manifest["methods"]
    if pages:
        rows = [
            {"method": f"[{name}](regularizers/{name}.md)"}
            | {key: facts[name][key] for key in ("family", "label", "source")}
            for name in pages
        ]
        lines += ["## Methods", markup.markdown(pd.DataFrame(rows))]
    path = root / "leaderboard.md"
    store.write_bytes(path, ("\n\n".join(line.rstrip() for line in lines) + "\n").encode())
    return path


def computed(board: Board) -> dict[str, pd.DataFrame]:
    """Every table that is printed: "leaderboard", "classes", "families" and "gains"."""
    board = recovered_share.comparable(board)
    ranks = recovered_share.ranking(board)
    return {
        "leaderboard": ranks,
        "classes": recovered_share.classes_table(board),
        "families": recovered_share.families_table(board, ranks),
        "gains": recovered_share.perturbation_gains(board),
    }


def shown(ranks: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """The ranking as it is printed: classes as text, with a dot where they differ from `none`."""
    table = ranks.drop(columns=["tasks", "nominal_gain_low", "nominal_gain_high"])
    differs = set(zip(classes.method[classes.differs], classes["class"][classes.differs]))
    for name in classes["class"].unique():
        values = zip(ranks.method, ranks[name], strict=True)
        table[name] = [
            "–" if pd.isna(value) else f"{value:z.2f}{' •' * ((method, name) in differs)}"
            for method, value in values
        ]
    return table


def _head(board: Board) -> list[str]:
    """On what, how, by which commit, and how much of it."""
    manifest = board.manifest
    lines = []
    if "device" in manifest:
        facts = manifest["tasks"].values()
        commits = dict.fromkeys(own.get("git_commit", manifest["git_commit"]) for own in facts)
        trained = ", ".join(commit or "?" for commit in commits)
        lines += [f"On {manifest['device']}, trained at commit {trained}:"]
    if "commands" in manifest:
        lines += ["\n".join(["```bash", *manifest["commands"], "```"]), _spent(board)]
    counts = board.scores.groupby(["task", "method"], sort=False).seed.nunique()
    ends = counts.groupby("task", sort=False).agg(["min", "max"]).itertuples()
    seeds = [f"{t} {low}" if low == high else f"{t} {low} to {high}" for t, low, high in ends]
    lines += [f"Seeds: {', '.join(seeds)}."]
    broken = {
        f"Left out: {task}, {name}: {why}."
        for task, facts in manifest["tasks"].items()
        for name, why in facts.get("broken", {}).items()
    }
    return [line for line in [*lines, *sorted(broken)] if line]


def _spent(board: Board) -> str:
    """Frames and minutes of all tasks, what is reported apart from what chose it."""
    said = []
    for what, stages in SPENT.items():
        rows = [
            costs
            for facts in board.manifest["tasks"].values()
            for stage, costs in facts.get("costs", {}).items()
            if stage in stages
        ]
        if not rows:
            continue
        total = lambda key, of=rows: sum(row[key] for row in of)
        minutes = {name: total(f"{name}_s") / 60 for name in ("train", "test", "compile")}
        said.append(
            f"{what}: {total('frames'):,} frames, {minutes['train']:.1f} minutes "
            f"of training, {minutes['test']:.1f} of testing, {minutes['compile']:.1f} of compiling"
        )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if said else ""


def _cells(board: Board) -> list[str]:
    """What counts in which class, and what is left out and why."""
    rows = []
    for name in board.classes:
        kept = board.cells[board.cells.kept & (board.cells.category == name)]
        parts = [f"{task}: {', '.join(own.perturbation.unique())}" for task, own in _by_task(kept)]
        rows.append({"class": name, "cells": len(kept), "of": "; ".join(parts)})
    lines = ["## Classes", markup.markdown(pd.DataFrame(rows))] if rows else ["## Classes"]
    for why, cells in board.cells[~board.cells.kept].groupby("why"):
        named = [
            f"{task} {name} {', '.join(f'{m:g}' for m in own.magnitude)}"
            for (task, name), own in cells.groupby(["task", "perturbation"], sort=False)
        ]
        lines += [f"Left out, {why}: {'; '.join(named)}."]
    if not calibrated(board):
        lines += ["The cells are not calibrated: they lack 20 seeds of none of their own."]
    return lines


def _by_task(cells: pd.DataFrame):
    return cells.groupby("task", sort=False)
