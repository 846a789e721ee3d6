"""The page of a leaderboard, from its tables alone and what can be shown of its policies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from entrob.report.html import board_charts as charts
from entrob.report.html.charts import interval_texts, ordered
from entrob.report.html.page import (
    Card,
    Group,
    Page,
    Picture,
    Section,
    Text,
    code,
    data_uri,
    downloads,
    paragraphs,
    table,
    write_page,
)
from entrob.report.leaderboard import CAPTIONS, computed, shown
from entrob.report.markup import display
from entrob.report.sentences import headline, listed, summary
from entrob.statistics.board import COLUMNS, Board, calibrated
from entrob.statistics.intervals import FEWEST

SEEDS = 10
"""Paired seeds that every board should have."""

Animations = Mapping[str, Sequence[tuple[str, bytes]]]
"""Method -> what is shown ("nominal", "wall 6", with the task) and the GIF."""


def write_leaderboard_page(
    board: Board, path: Path, command: str, animations: Animations | None = None
) -> Path:
    """Write a board's page.

    Args:
      board: its tables, assembled or as `board.read_board` reads them.
      path: of the file.
      command: what makes it again.
      animations: of policies; None: there are no policies, and the page says so.

    Raises:
      EntrobError: a library is missing, or the file cannot be written.
    """
    return write_page(leaderboard_page(board, command, animations), path)


def leaderboard_page(board: Board, command: str, animations: Animations | None = None) -> Page:
    """The page, see `write_leaderboard_page`."""
    frames = computed(board)
    ranks, classes, gains = frames["leaderboard"], frames["classes"], frames["gains"]
    found = warnings(board, ranks)
    first: list[Any] = []
    if found:
        first = [Text(paragraphs(["\n".join(f"- {text}" for text in found)]), "warnings")]
    said = Text(paragraphs(summary(board, ranks, classes)))
    first.append(Card("Class by class", ("and what else the numbers rest on",), (said,)))
    sections = [Section("What can be said", tuple(first))]
    if len(gains):
        key = charts.family_legend(ranks.family, "▮")
        heat_map = charts.gains_chart(gains, ranks, board)
        sections.append(Section("Gain under every perturbation", (key, heat_map)))
    if prices := charts.price_charts(ranks, classes):
        note = (
            "Price: share of none's nominal score that is given up. R: share of the damage that is "
            "recovered. Bars: 95 % bootstrap-t intervals, each for itself. Line: Pareto front "
            "without controls; ★ is none. Prices stand on a logarithmic scale that is linear "
            "around 0."
        )
        note_text = Text(paragraphs([note]))
        legend = charts.family_legend(ranks.family)
        sections.append(Section("Price against gain", (legend, Group(tuple(prices)), note_text)))
    note = CAPTIONS["leaderboard"]
    whole = _ranking(ranks, classes)
    ranking = table(whole, "ranking", filters=["family"], rows=100, note=note)
    sections.append(Section("Ranking", (ranking,)))
    rows = charts.cell_rows(board)
    filters = ["method", "family", "task", "class", "perturbation", "magnitude"]
    note = (
        "Score, none's score on the same seeds and the difference, with Student's 95 % t interval "
        "over pairs, each for itself. The sign at a column's head opens a list of its values."
    )
    everything = table(rows, "cells", filters=filters, note=note)
    sections.append(Section("Every task and magnitude", (everything,)))
    sections.append(Section("Methods", _cards(board, ranks, classes, animations)))
    tables = {name: getattr(board, name) for name in COLUMNS} | frames
    commands = [code("\n".join(board.manifest["commands"]))] if "commands" in board.manifest else []
    sections.append(Section("Data", (*commands, downloads(tables))))
    title = str(board.manifest["title"])
    return Page(title, headline(board, ranks, classes), badges(board), sections, command)


def badges(board: Board) -> list[tuple[str, str]]:
    """The scope: preset, tasks, methods, seeds, frames, commit, device."""
    manifest, facts = board.manifest, board.manifest["tasks"]
    seeds = board.scores.groupby("task").seed.nunique()
    span = f"{seeds.min()}" if seeds.nunique() == 1 else f"{seeds.min()}–{seeds.max()}"
    found = [("preset", str(manifest["preset"]))] if "preset" in manifest else []
    found += [("tasks", f"{len(board.tasks)}: {', '.join(board.tasks)}")]
    found += [("methods", str(len(board.methods))), ("seeds", span)]
    costs = [own.get("costs", {}) for own in facts.values()]
    if any(costs):
        frames = sum(stage["frames"] for own in costs for stage in own.values())
        reported = sum(own["reported"]["frames"] for own in costs if "reported" in own)
        found += [("frames", f"{frames:,}, of which reported {reported:,}")]
    commits = dict.fromkeys(
        own.get("git_commit", manifest.get("git_commit")) for own in facts.values()
    )
    if known := [str(commit)[:10] for commit in commits if commit]:
        found += [("trained at commit", ", ".join(known))]
    if "device" in manifest:
        found += [("device", str(manifest["device"]))]
    return found


def warnings(board: Board, ranks: pd.DataFrame) -> list[str]:
    """What the numbers cannot carry, found by the machine.

    Inactive or identical methods, broken prices, grids of coefficients that end before the price
    does, methods without a passing coefficient, classes on one task, few seeds, cells that are not
    calibrated, methods that were left out.
    """
    said = []
    seeds = board.scores.groupby("task").seed.nunique()
    if len(few := seeds[seeds < SEEDS]):
        named = ", ".join(f"{task} {count}" for task, count in few.items())
        word = f"; below {FEWEST} pairs nothing has an interval" if (few < FEWEST).any() else ""
        said.append(f"**Fewer than ten seeds**: {named}{word}.")
    if not calibrated(board):
        said.append("**Not calibrated**: cells and weights come from the reported runs of none.")
    kept = board.cells[board.cells.kept].groupby("category", sort=False).task
    alone = [f"{name} ({tasks.iloc[0]})" for name, tasks in kept if tasks.nunique() == 1]
    if len(board.tasks) == 1:
        said += [f"**One task**: {board.tasks[0]}. What holds on it need not hold on another."]
    elif alone:
        said += [f"**One task in a class**: {listed(alone)}."]
    for text in ("identical", "inactive"):
        if names := list(ranks.method[ranks.status.str.contains(text)]):
            said.append(f"**{text.capitalize()}**, so not ranked: {_named(names)}.")
    if names := list(ranks.method[ranks.status.str.contains("price broken")]):
        said.append(f"**Price broken**: beyond 5 % with 95 % confidence: {_named(names)}.")
    for key, wanted, text in (
        ("open", True, "**Open grid**: even the largest coefficient tried keeps the price"),
        ("passed", False, "**No coefficient keeps the price**, so the smallest was taken"),
    ):
        where: dict[str, list[str]] = {}
        for task, facts in board.manifest["tasks"].items():
            for name, value in facts.get(key, {}).items():
                if value is wanted:
                    where.setdefault(name, []).append(task)
        names = [display(name) + _on(tasks, board) for name, tasks in where.items()]
        said += [f"{text}: {listed(names)}."] if names else []
    for task, facts in board.manifest["tasks"].items():
        broken = facts.get("broken", {})
        said += [f"**Left out**: {task}, {name}: {why}." for name, why in broken.items() if why]
    return said


def _on(tasks: Sequence[str], board: Board) -> str:
    """On which of a board's tasks, " (a, b)"; nothing if it has no other."""
    if len(board.tasks) == 1:
        return ""
    return f" ({'all tasks' if set(tasks) >= set(board.tasks) else ', '.join(tasks)})"


def _named(names: Sequence[str]) -> str:
    return listed([display(name) for name in names])


def _ranking(ranks: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """The ranking as a table whose numbers are sorted as numbers, intervals beside them."""
    marked = shown(ranks, classes)
    found = pd.DataFrame({"rank": ranks["rank"].astype("Float64").astype(float)})
    low, high = (ranks[f"rank_{end}"].astype("Float64").astype(float) for end in ("low", "high"))
    found["ranks"] = interval_texts(low, high, 0)
    found["rank"] = [int(rank) if rank == rank else None for rank in found["rank"]]
    found["rank"] = found["rank"].astype("Int64")
    found["method"], found["family"] = ranks.method, ranks.family
    found["overall R"] = ranks.overall
    found["95 %"] = interval_texts(ranks.overall_low, ranks.overall_high)
    found["price"] = ranks.price
    for name in classes["class"].unique():
        found[name] = ordered(marked[name], ranks[name])
    found["solved"] = ranks.solved
    found["pareto"] = ["yes" if value else "" for value in ranks.pareto]
    found["status"] = ranks.status
    return found


def _cards(
    board: Board, ranks: pd.DataFrame, classes: pd.DataFrame, animations: Animations | None
) -> tuple[Any, ...]:
    """A card per method that the manifest describes, in the order of the ranking."""
    pairs, described = charts.pair_shares(board), board.manifest["methods"]
    blocks: list[Any] = []
    if animations is None:
        text = "No policies are in this folder, so none is shown at work."
        blocks.append(Text(paragraphs([text])))
    for row in ranks.itertuples():
        if row.method not in described:
            continue
        facts = described[row.method]
        label, _, grade = facts["label"].removesuffix("]").partition(" [")
        summary_line, _, rest = facts["doc"].strip().partition("\n")
        lines = [f"**{summary_line}**", f"Source: {facts['source'] or 'not given'}."]
        lines += [f"Label: {label}. Evidence: {grade or 'not graded'}."]
        lines += [_setting(board, row.method, facts)]
        inside: list[Any] = [Text(paragraphs(lines))]
        graphs = (
            charts.seeds_chart(pairs, classes, row.method),
            charts.frontier_chart(board, row.method),
        )
        inside += [Group(tuple(g for g in graphs if g))] if any(graphs) else []
        if films := (animations or {}).get(row.method):
            shown_ = [Picture(data_uri(data, "image/gif"), title) for title, data in films]
            inside.append(Group(tuple(shown_)))
        if rest.strip():
            inside.append(code(rest.strip("\n")))
        rank = "" if pd.isna(row.rank) else f"rank {row.rank}"
        share = "" if pd.isna(row.overall) else f"R = {row.overall:z.2f}"
        price = "" if pd.isna(row.price) else f"price {row.price:z.1%}"
        marks = [rank, row.family, share, price, row.status]
        blocks.append(Card(row.method, tuple(mark for mark in marks if mark), tuple(inside)))
    return tuple(blocks)


def _setting(board: Board, name: str, facts: Mapping[str, Any]) -> str:
    """Coefficients, and activity as far as it was measured."""
    text = f"Coefficient: {charts.coefficient_text(board, name)}"
    text += f" (default {facts['coef']:g})." if "coef" in facts else "."
    active = board.activity[board.activity.method == name].groupby("task", sort=False).activity
    if len(medians := active.median().dropna()):
        text += " Activity: " + ", ".join(f"{task} {x:.1%}" for task, x in medians.items()) + "."
    return text
