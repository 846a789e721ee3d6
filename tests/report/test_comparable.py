"""What is ranked together was tested alike, and what is said of a table is what it shows."""

import numpy as np
import pandas as pd
import pytest

from entrob import cli
from entrob.errors import EntrobError
from entrob.report import experiment, leaderboard
from entrob.statistics import board as boards
from entrob.statistics import recovered_share
from entrob.sweep.train import OWN_FAULT


def without(board, method, perturbation, task="pole"):
    """The board as if a method had been there before the perturbation was added."""
    rows = board.scores
    gone = (rows.method == method) & (rows.task == task) & (rows.perturbation == perturbation)
    assert gone.any()
    return board._replace(scores=rows[~gone].reset_index(drop=True))


def test_a_board_whose_methods_were_tested_alike_stays_as_it_is(board):
    assert recovered_share.comparable(board) is board


def test_an_extended_board_ranks_over_what_all_have(board):
    """`plain` was not tested under mass: it had no rank and no reason, and the others had one."""
    old = without(board, "plain", "mass")
    found = recovered_share.comparable(old)
    lost = found.cells[(found.cells.perturbation == "mass") & board.cells.kept]
    assert (lost.why == "not tested for plain").all() and (lost.weight == 0).all()
    assert "dynamics" in board.classes and "dynamics" not in found.classes
    ranks = leaderboard.computed(old)["leaderboard"].set_index("method")
    assert set(ranks.index[ranks["rank"].notna()]) == {"good", "plain", "dear"}
    # As if nobody had been tested under it.
    nobody = board.cells.assign(kept=board.cells.kept & (board.cells.perturbation != "mass"))
    fair = board._replace(cells=boards.weighted(nobody.assign(reference=nobody.reference)))
    fair = fair._replace(
        cells=fair.cells[fair.cells.perturbation != "mass"].reset_index(drop=True),
        scores=board.scores[board.scores.perturbation != "mass"],
    )
    wanted = leaderboard.computed(fair)["leaderboard"].set_index("method")
    np.testing.assert_allclose(ranks.overall, wanted.overall.reindex(ranks.index), rtol=1e-9)
    assert list(ranks["rank"]) == list(wanted["rank"])


def test_what_counts_for_no_rank_is_named_on_the_page(board, tmp_path, sketched):
    old = without(board, "plain", "mass")
    boards.write_board(old, tmp_path)
    page = leaderboard.write_report(old, tmp_path).read_text()
    assert "Left out, not tested for plain: pole mass 1, 2" in page
    # What was measured stays in the table that it is computed from.
    assert boards.weighted(old.cells).kept.equals(old.cells.kept)
    kept = pd.read_csv(tmp_path / "tables" / "cells.csv")
    assert kept.kept.sum() == board.cells.kept.sum()


def test_one_that_was_not_perturbed_at_all_spoils_nothing(board):
    old = without(without(board, "plain", "mass"), "plain", "slip")
    status = recovered_share.standing(old)
    assert not status.ranked["plain"] and "not perturbed on pole" in status.status["plain"]
    assert recovered_share.comparable(old) is old


def test_controls_and_adversaries_spoil_nothing(board):
    old = without(board, "pr_mdp", "mass")
    assert recovered_share.comparable(old) is old


def test_a_method_of_which_no_run_is_left_has_a_dash_and_no_rank(board, tmp_path, sketched):
    scores = board.scores[board.scores.method != "plain"]
    activity = board.activity.copy()
    activity.loc[activity.method == "plain", "status"] = "diverged"
    lost = board._replace(scores=scores, activity=activity)
    ranks = leaderboard.computed(lost)["leaderboard"].set_index("method")
    row = ranks.loc["plain"]
    assert row.status == "diverged on grid, pole" and pd.isna(row["rank"])
    assert pd.isna(row.overall) and pd.isna(row.price) and pd.isna(row.solved)
    assert ranks.loc["dear", "rank"] == 2
    page = leaderboard.write_report(lost, tmp_path).read_text()
    (line,) = [x for x in page.splitlines() if "| plain |" in x and "diverged on" in x]
    assert line.startswith("| – [–, –] | plain | losses | – [–, –] |") and "nan" not in page


def test_a_header_says_the_seeds_of_the_table(board, make_frames, tmp_path, sketched):
    rows = board.scores
    fewer = board._replace(scores=rows[(rows.method != "good") | (rows.seed < 6)])
    assert "Seeds: grid 8, pole 8." in leaderboard._head(board)
    assert "Seeds: grid 6 to 8, pole 6 to 8." in leaderboard._head(fewer)
    runs, curves, evaluation = make_frames(seeds=range(3), perturbations={"wall": (6,)})
    runs = runs[(runs.method == "none") | (runs.seed < 2)].assign(coefficients='{"x": 1}')
    evaluation = evaluation[evaluation.run_id.isin(runs.run_id)]
    facts = {"seeds": [0], "methods": {"another": {}}}
    page = experiment.write_report(tmp_path, runs, curves, evaluation, facts).read_text()
    assert "| seeds | 0, 1, 2 (none); 0, 1 (policy entropy, state entropy)" in page or (
        "| seeds | 0, 1, 2 (none); 0, 1 (policy_entropy, state_entropy)" in page
    )
    assert "another" not in page and "{'x': 1}" in page


def test_a_command_fails_if_a_method_diverged_in_every_seed():
    class Kept:
        def __init__(self, status):
            self.status = status

        def manifest(self):
            return {}

        def gather(self, kind):
            methods = ["none", "none", "loud", "loud"]
            cause = [OWN_FAULT if s == "diverged" else "" for s in self.status]
            return pd.DataFrame({"method": methods, "status": self.status, "cause": cause})

    fine, lost = "finished", "diverged"
    cli.running._complain(Kept([fine, fine, fine, lost]))
    with pytest.raises(EntrobError, match="'loud' diverged in every seed: loss or weights"):
        cli.running._complain(Kept([fine, fine, lost, lost]))
