"""Any policy on a leaderboard, beside the methods that were trained for it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from entrob.errors import EntrobError, unknown
from entrob.library.policy import Policy
from entrob.library.testing import Act, evaluate
from entrob.naming import BASELINE
from entrob.perturbations import NOMINAL
from entrob.statistics.board import COLUMNS, Board, checked
from entrob.suite.declaration import SuiteTask, load
from entrob.suite.scores import Scale, priced, scored

#: Family of what was only tested; it is never ranked.
FAMILY = "tested only"


def with_tested(
    board: Board, policies: Sequence[Policy | Act], name: str, tasks: Sequence[str] = ()
) -> Board:
    """The board with one more method, which was trained elsewhere and only tested here.

    Args:
      board: a suite's.
      policies: of the method; the i-th is compared with the i-th seed of `none`.
      name: what the method is called.
      tasks: names; by default those whose environment the policies were trained in. A function can
        only be tested on tasks that are named.

    Returns:
      A board whose manifest puts the method into the family `FAMILY`.

    Raises:
      EntrobError: the name is taken, a task is unknown, no task fits, or a policy does not fit one.
    """
    if name in {BASELINE, *board.methods}:
        raise EntrobError(f"the board has a method {name!r} already")
    suite = load(board.manifest["suite"], board.manifest["preset"])
    for task in tasks:
        if task not in board.tasks:
            raise unknown("task of the board", task, board.tasks)
    fitting = tasks or [task for task in board.tasks if _fits(suite.tasks[task], policies)]
    chosen = [task for task in board.tasks if task in fitting]
    if not chosen:
        raise EntrobError("no task of the board fits: name those that these policies are for")
    rows = [_scores(board, suite.tasks[task], policies, name) for task in chosen]
    described = {"family": FAMILY, "label": FAMILY, "source": "", "doc": "Trained elsewhere."}
    manifest = {
        **board.manifest,
        "methods": {**board.manifest["methods"], name: described},
        "tested": {**board.manifest.get("tested", {}), name: [_origin(p) for p in policies]},
    }
    scores = pd.concat([board.scores, *rows], ignore_index=True)
    return checked(board._replace(scores=scores, manifest=manifest))


def _fits(task: SuiteTask, policies: Sequence[Policy | Act]) -> bool:
    environment = task.experiment.environment
    return all(isinstance(p, Policy) and p.environment == environment for p in policies)


def _origin(policy: Policy | Act) -> Any:
    return dict(policy.provenance) if isinstance(policy, Policy) else repr(policy)


def _scores(
    board: Board, task: SuiteTask, policies: Sequence[Policy | Act], name: str
) -> pd.DataFrame:
    """Rows of ``scores.csv`` of one task."""
    experiment, facts = task.experiment, dict(board.manifest["tasks"][task.name]["scale"])
    facts.pop(BASELINE)
    cells = board.cells[board.cells.task == task.name]
    magnitudes = cells.groupby("perturbation", sort=False).magnitude.agg(list).to_dict()
    tables = [
        evaluate(
            policy,
            experiment.environment,
            magnitudes,
            instances=experiment.instances,
            episodes=experiment.episodes,
            seed=experiment.evaluation_seed,
            params=task.none.params,
        ).assign(seed=seed, run_id=f"{name}:{seed}", method=name)
        for seed, policy in enumerate(policies)
    ]
    records = pd.concat(tables, ignore_index=True)
    runs = pd.DataFrame({"run_id": records.run_id.unique(), "status": "finished"})
    own = scored(runs, records, Scale(**facts)).assign(task=task.name)
    none = board.scores[(board.scores.task == task.name) & (board.scores.method == BASELINE)]
    none = none[none.seed.isin(own.seed) | (none.perturbation == NOMINAL)]
    both = priced(pd.concat([none, own], ignore_index=True))
    return both[both.method == name].reindex(columns=COLUMNS["scores"])
