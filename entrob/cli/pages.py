"""What `entrob report --html` makes a page of, and the policies that it shows at work."""

import shlex
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from entrob.errors import EntrobError
from entrob.naming import BASELINE

PAGE = "index.html"
"""The page's file."""

FIRST = "routes"
"""The class whose perturbation is shown, if a task has one; else that of the task's first cell."""


def check() -> None:
    """Raises `EntrobError` if the extra ``[html]`` is not installed."""
    from entrob.report.html.page import check_libraries

    check_libraries()


def exported(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether a folder holds tables, and neither runs nor a suite's tasks."""
    if "suite" in manifest:
        runs = any((folder / task / "task.json").exists() for task in manifest["tasks"])
    else:
        runs = (folder / "parts").is_dir()
    return not runs and (folder / "tables").is_dir()


def records(store) -> tuple[dict[str, pd.DataFrame], dict[str, Any], dict[str, Any]]:
    """What a report is made of: records by kind, the manifest, and `occupancies` with `walls`.

    Raises:
      EntrobError: the folder holds no finished runs.
      Damaged: a record cannot be read.
    """
    from entrob.persistence.store import RECORDS
    from entrob.statistics.nominal import with_nominal
    from entrob.statistics.occupancies import mean_occupancies
    from entrob.sweep.describe import complete

    store.check_curves()
    frames = {kind: store.gather(kind) for kind in RECORDS}
    if not len(frames["runs"]) or not len(frames["evaluation"]):
        raise EntrobError(f"{store.root} holds no finished runs yet")
    frames["evaluation"] = with_nominal(frames["evaluation"])
    occupancies, walls = mean_occupancies(frames.pop("occupancy"))
    drawn = {"occupancies": occupancies, "walls": walls}
    return frames, complete(store.manifest()), drawn


def write(folder: Path, manifest: dict[str, Any], level: float) -> Path:
    """Write a folder's page and return its path; raises `EntrobError` if it cannot be made."""
    from entrob.persistence.store import Store
    from entrob.report.html.experiment import write_experiment_page
    from entrob.report.html.exported import ABSENT, write_exported_page
    from entrob.report.html.leaderboard import write_leaderboard_page
    from entrob.statistics.board import read_board

    name = folder.name if folder.is_absolute() else folder
    again, path = shlex.join(["entrob", "report", str(name), "--html"]), folder / PAGE
    alone = exported(folder, manifest)
    if "suite" in manifest:
        try:
            board = read_board(folder)
        except EntrobError as error:
            if not alone:
                raise
            # A board of an earlier version: its tables can be shown, not computed with.
            reason = str(error).replace(f"{folder}/", "")
            note = (
                "**A board of another version of entrob**, which today's cannot compute with: "
                f"{reason}. Its tables and figures stand here as they were exported, its ranks are "
                "by another score, and nothing was computed anew."
            )
            return write_exported_page(folder, path, manifest, again, note)
        films = None if alone else animations(folder, board)
        return write_leaderboard_page(board, path, again, films)
    if alone:
        return write_exported_page(folder, path, manifest, again, ABSENT)
    frames, facts, drawn = records(Store(folder))
    return write_experiment_page(path, frames, facts, again, level=level, **drawn)


def animations(folder: Path, board) -> dict[str, list[tuple[str, bytes]]]:
    """Every method's first policy at work, nominal and perturbed, on the first task to be drawn.

    Task, perturbation, magnitude and instance are the same for all methods: the largest magnitude
    of the task's first perturbation in `FIRST`, or of all, and instance 0.
    """
    from entrob.sweep.progress import steps

    found: dict[str, list[tuple[str, bytes]]] = {}
    for task in board.tasks:
        cells = board.cells[board.cells.task == task]
        first = cells[cells.category == FIRST] if (cells.category == FIRST).any() else cells
        name = first.perturbation.iloc[0]
        at = {name: float(first.magnitude[first.perturbation == name].max())}
        rows = board.scores[board.scores.task == task]
        seeds = rows.groupby("method", sort=False).seed.min()
        names = [m for m in seeds.index if m != BASELINE and m in board.manifest["methods"]]
        with steps("drawing policies", len(names)) as step:
            for method in names:
                films = _films(f"{folder / task / 'reported'}:{method}:{seeds[method]}", task, at)
                if films is None:
                    break
                found |= {method: films} if films else {}
                step()
        if found:
            break
    return found


def _films(address: str, task: str, at: dict[str, float]) -> list[tuple[str, bytes]] | None:
    """A policy's GIFs with their titles, none if it is gone; None if the task is never drawn."""
    from entrob.library import Policy, load_policy

    try:
        policy = load_policy(address)
    except EntrobError:
        return []  # of a method that is only tested, or removed
    if not isinstance(policy, Policy) or policy.task.env.pictures is None:
        return None
    perturbed = ", ".join(f"{name} {magnitude:g}" for name, magnitude in at.items())
    titles = {"nominal": {}, perturbed.replace("_", " "): at}
    return [(f"{task}, {title}", _film(policy, params)) for title, params in titles.items()]


def _film(policy, perturbations: dict[str, float]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "walk.gif"
        policy.gif(path, **perturbations)
        return path.read_bytes()
