"""The leaderboard as a page: its table, the ranking, the glance by family, performance profiles."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from entrob.results import leaderboard, markup, statistics, store, tables
from entrob.results.drawing import RC, label, save
from entrob.results.leaderboard import BASELINE, Board
from entrob.results.pages import write_pages

COLORS = {
    BASELINE: "#7a7a7a",
    "losses": "#e08a00",
    "shaping": "#cc79a7",
    "temperature": "#009e73",
    "intrinsic": "#0072b2",
    "adversaries": "#b03a00",
    "controls": "#000000",
}
"""Families, told apart by the color-blind (after Okabe and Ito)."""

NAMED = 12
"""How many points of the glance have their names beside them; the others crowd around 0."""

NAMES = {
    BASELINE: "none",
    "losses": "loss terms",
    "shaping": "shaped advantages",
    "temperature": "temperatures",
    "intrinsic": "intrinsic rewards",
    "adversaries": "adversaries",
    "controls": "controls",
}

CAPTION = (
    "Scores: 0 is the uniformly random policy, 1 the best known (on grids the optimum); robust is "
    "the interquartile mean over seeds, tasks and perturbations of the mean over magnitudes above "
    "0, with its 95 % bootstrap interval, seeds being redrawn task by task. Methods that cannot "
    "play all tasks have no rank. Worst and CVaR: of the worst instance and of the worst tenth, "
    "where instances differ; on grids not under noise. Price: nominal score of none less its own. "
    "Improvement: probability of a higher score than none's run of the same seed. Overhead: time "
    "per update over none's. Unpassed: on how many tasks no coefficient kept 95 % of none's "
    "performance, so that the smallest was taken. Open: on how many even the largest that was "
    "tried kept it."
)

GAINS = (
    "Mean robust score less that of none, with its 95 % bootstrap interval: of each method that "
    "can play all tasks, and of each family's mean."
)


def write_leaderboard(root: Path) -> Path:
    """Write tables, figures, pages and ``leaderboard.md`` into a suite's folder; returns the last.

    Raises:
      EntrobError: a file cannot be written.
      Damaged: a record cannot be read.
    """
    board = leaderboard.read_board(root)
    ranks, gained = leaderboard.ranking(board), leaderboard.gains(board)
    pages = write_pages(root, board, ranks)
    facts = board.manifest["methods"]
    described = pd.DataFrame(
        [
            {"method": f"[{name}](regularizers/{name}.md)"}
            | {key: facts[name][key] for key in ("family", "label", "source")}
            for name in pages
        ]
    )
    frames = {"leaderboard": ranks, "gains": gained}
    captions = {"leaderboard": CAPTION, "gains": GAINS}
    tables.write_tables(frames, root / "tables", captions)
    drawn = {"ranking": ranking_figure(ranks), "profiles": profiles_figure(board, ranks)}
    if len(gained):
        drawn = {"glance": glance_figure(gained), **drawn}
    for name, figure in drawn.items():
        save(figure, root / "figures", name)
    manifest = board.manifest
    seeds = board.scores.groupby("task").seed.nunique().to_dict()
    lines = [f"# {manifest['title']}", f"On {manifest['device']}:"]
    lines += ["\n".join(["```bash", *manifest["commands"], "```"])]
    lines += [_spent(root, list(manifest["tasks"]))]
    lines += ["Seeds: " + ", ".join(f"{task} {count}" for task, count in seeds.items()) + "."]
    broken = {
        f"{task}, {name}: {why}"
        for task, facts in manifest["tasks"].items()
        for name, why in facts["broken"].items()
    }
    lines += [f"Left out: {line}." for line in sorted(broken)]
    narrow = [
        f"{row.task} {row.perturbation} {row.magnitude:g}" for row in board.omitted.itertuples()
    ]
    if narrow:
        lines += [f"Left out, as nobody does much better than random there: {', '.join(narrow)}."]
    lines += [markup.markdown(_shown(ranks), CAPTION)]
    lines += [f"![{name}](figures/{name}.png)" for name in drawn]
    lines += ["## Regularizers", markup.markdown(described)] if pages else []
    path = root / "leaderboard.md"
    store.write_bytes(path, ("\n\n".join(line.rstrip() for line in lines) + "\n").encode())
    return path


def _spent(root: Path, tasks: list[str]) -> str:
    """Frames and minutes of all tasks, tuning included."""
    folders = [folder / task for task in tasks for folder in (root, root / "tune")]
    paths = [folder / "manifest.json" for folder in folders if (folder / "manifest.json").exists()]
    manifests = [json.loads(path.read_text()) for path in paths]
    total = lambda key: sum(manifest[key] for manifest in manifests)
    minutes = {name: total(f"{name}_time_s") / 60 for name in ("train", "test", "compile")}
    return (
        f"{total('frames'):,} frames, tuning included: {minutes['train']:.1f} minutes of training, "
        f"{minutes['test']:.1f} of testing, {minutes['compile']:.1f} of compiling."
    )


def _shown(ranks: pd.DataFrame) -> pd.DataFrame:
    """The ranking without the intervals of single kinds, which the CSV file has."""
    kinds = leaderboard.KINDS
    return ranks.drop(columns=[f"{kind}_{end}" for kind in kinds for end in ("low", "high")])


def ranking_figure(ranks: pd.DataFrame) -> Figure:
    """Robust scores with their intervals, the best on top, in the colors of their families."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(6.4, 1.2 + 0.2 * len(ranks)), layout="constrained")
        axis = figure.subplots()
        for family, rows in ranks.groupby("family", sort=False):
            spread = [rows.robust - rows.robust_low, rows.robust_high - rows.robust]
            look = {"color": COLORS[family], "label": NAMES[family], "capsize": 2}
            axis.errorbar(rows.robust, -rows.index, xerr=spread, fmt="o", **look)
        some = lambda row: "" if pd.notna(row["rank"]) else " (not all tasks)"
        names = [label(row.method) + some(row) for _, row in ranks.iterrows()]
        axis.set_yticks(-ranks.index, names)
        axis.axvline(float(ranks.robust[ranks.method == BASELINE].iloc[0]), color="0.5", lw=0.8)
        axis.set(xlabel="robust score (IQM, 95 %)")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def glance_figure(gained: pd.DataFrame) -> Figure:
    """Which family helps against what: gains over `none`, diffuse ones against the other kinds."""
    kinds = [kind for kind in ("structured", "dynamics") if gained[kind].notna().any()]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(4.6 * max(len(kinds), 1) + 1.6, 4.4), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, max(len(kinds), 1), sharey=True))
        for axis, kind in zip(axes, kinds):
            for family, rows in gained.groupby("family", sort=False):
                _family_points(axis, rows, kind, family, _farthest(gained, kind))
            axis.axhline(0, color="k", lw=0.8)
            axis.axvline(0, color="k", lw=0.8)
            axis.set(xlabel=f"gain against {kind} perturbations")
        axes[0].set_ylabel("gain against diffuse perturbations")
        title = f"family: mean, 95 % interval\n(the {NAMED} farthest methods are named)"
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title)
    return figure


def _farthest(gained: pd.DataFrame, kind: str) -> list[str]:
    """The methods farthest from `none`, in units of what lies between the extremes of each axis."""
    rows = gained[gained.method.notna()]
    parts = [rows[name] / max(np.ptp(rows[name]), 1e-9) for name in (kind, "diffuse")]
    order = np.argsort(-np.hypot(*parts), kind="stable")
    return rows.method.iloc[order[:NAMED]].tolist()


def _family_points(axis, rows: pd.DataFrame, kind: str, family: str, named: list[str]) -> None:
    """A point per method, named if it is far out, and a diamond at their mean with its interval."""
    color = COLORS[family]
    middle, rows = rows[rows.method.isna()].iloc[0], rows[rows.method.notna()]
    axis.scatter(rows[kind], rows.diffuse, s=14, color=color, alpha=0.6, lw=0)
    far = rows[rows.method.isin(named)]
    for name, x, y in zip(far.method, far[kind], far.diffuse):
        look = {"xytext": (3, 2), "textcoords": "offset points", "fontsize": 6, "color": color}
        axis.annotate(label(name), (x, y), **look)
    spread = [
        [[middle[name] - middle[f"{name}_low"]], [middle[f"{name}_high"] - middle[name]]]
        for name in (kind, "diffuse")
    ]
    look = {"fmt": "D", "ms": 9, "color": color, "mec": "k", "capsize": 2, "label": NAMES[family]}
    axis.errorbar(middle[kind], middle.diffuse, xerr=spread[0], yerr=spread[1], **look)


def profiles_figure(board: Board, ranks: pd.DataFrame) -> Figure:
    """Share of runs above each score, all methods of a family together, by kind."""
    with matplotlib.rc_context(RC):
        kinds = [kind for kind in leaderboard.KINDS if (board.scores.kind == kind).any()]
        figure = Figure(figsize=(3.2 * len(kinds) + 1.4, 3.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(kinds), sharey=True))
        thresholds = np.linspace(-0.2, 1.2, 141)
        for axis, kind in zip(axes, kinds):
            for family, rows in ranks[ranks["rank"].notna()].groupby("family", sort=False):
                parts = [leaderboard.matrix(board.scores, m, kind, "score") for m in rows.method]
                values = np.concatenate([part.to_numpy().ravel() for part in parts])
                values = values[~np.isnan(values)]
                share = statistics.performance_profile(values, thresholds)
                axis.plot(thresholds, share, color=COLORS[family], label=NAMES[family])
            axis.set(xlabel="robust score τ", title=kind, ylim=(0, 1.02), xticks=[0, 0.5, 1])
        axes[0].set_ylabel("share of runs above τ")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
