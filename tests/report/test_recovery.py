"""The board from its tables: shares by hand, who is ranked, what is printed recomputed."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.report import leaderboard, sentences
from entrob.report.figures import leaderboard as board_figures
from entrob.statistics import board as boards
from entrob.statistics import recovered_share

CELL = ["task", "perturbation", "magnitude"]


def pick(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_weights_are_those_of_tasks_perturbations_and_magnitudes_kept():
    rows = [
        ("a", "wall", 1.0, "routes", 0.5, 1.0, 1.0),
        ("a", "wall", 2.0, "routes", 0.1, 1.0, 1.0),
        ("a", "elbow", 1.0, "routes", 0.2, 1.0, 1.0),
        ("b", "wall", 1.0, "routes", 0.6, 0.9, 1.0),
        ("b", "wall", 2.0, "routes", 0.85, 0.9, 1.0),  # none loses 0.05
        ("b", "slip", 1.0, "action noise", 0.2, 0.9, 0.25),  # nobody does better
    ]
    columns = [*CELL, "category", "none", "nominal", "reference"]
    cells = boards.weighted(pd.DataFrame(rows, columns=columns))
    assert cells.weight.tolist() == [1 / 8, 1 / 8, 1 / 4, 1 / 2, 0, 0]
    assert cells.kept.tolist() == [True] * 4 + [False] * 2
    assert cells.why.iloc[4] == "none loses less than 0.1"
    assert cells.why.iloc[5] == "less than 0.1 between none and the reference"
    assert cells.gap.iloc[1] == pytest.approx(0.9)


def test_the_recovered_share_by_hand(board):
    """Σ w (S_m - S_none) / Σ w D, with loops."""
    table = recovered_share.classes_table(board)
    mean = board.scores.groupby([*CELL, "method"]).score.mean()
    for name in board.classes:
        cells = board.cells[board.cells.kept & (board.cells.category == name)]
        bought = total = 0.0
        for cell in cells.itertuples():
            at = (cell.task, cell.perturbation, cell.magnitude)
            bought += cell.weight * (mean[(*at, "good")] - mean[(*at, "none")])
            total += cell.weight * (cell.reference - cell.none)
        assert pick(table, method="good", **{"class": name}).share == pytest.approx(bought / total)
    ranks = recovered_share.ranking(board)
    shares = table[table.method == "good"].share
    row = pick(ranks, method="good")
    assert row.overall == pytest.approx(shares.mean()) and row.least == shares.min()
    assert row.least_class == table.loc[shares.idxmin(), "class"]
    assert row.overall_low < row.overall < row.overall_high


def test_the_share_of_one_pair_of_seeds(board):
    pairs = recovered_share.pair_shares(board)
    row = pick(pairs, task="grid", method="good", seed=3)
    scores = board.scores[(board.scores.task == "grid") & (board.scores.seed == 3)]
    scores = scores.set_index(["method", "perturbation", "magnitude"]).score
    cells = board.cells[(board.cells.task == "grid") & board.cells.kept].set_index(CELL[1:])
    wall = cells.loc["wall"]
    gain = scores["good"]["wall"] - scores["none"]["wall"]
    assert row.routes == pytest.approx((wall.weight * gain).sum() / (wall.weight * wall.gap).sum())
    assert np.isnan(row.dynamics) and np.isfinite(
        pick(pairs, task="pole", method="good", seed=3).dynamics
    )
    # A class on one task: the mean over pairs is the share.
    share = pick(recovered_share.classes_table(board), method="good", **{"class": "routes"}).share
    own = pairs[(pairs.task == "grid") & (pairs.method == "good")]
    assert own.routes.mean() == pytest.approx(share) and len(own) == 8


def replaced(board, method, change):
    """The board with other scores of a method: `change` of its perturbed and of none's rows."""
    scores = board.scores.copy()
    key = ["seed", *CELL]
    base = scores[scores.method == "none"].set_index(key)
    rows = scores.method == method
    own = scores[rows].set_index(key)
    scores.loc[rows, "score"] = change(own, base.reindex(own.index)).to_numpy()
    return board._replace(scores=scores)


def test_the_reference_recovers_all_and_none_nothing(board):
    reference = board.cells.set_index(CELL).reference
    ours = lambda own, base: pd.Series(
        [
            base.score[index]
            if index[2] == "nominal"
            else base.score[index] + reference[index[1:]] - constant[index[1:]]
            for index in own.index
        ]
    )
    constant = board.cells.set_index(CELL).none
    full = recovered_share.ranking(replaced(board, "good", ours))
    assert pick(full, method="good").overall == pytest.approx(1)
    # Not clipped: twice the way is 2.  With pairs that are all alike there is no interval.
    assert np.isnan(pick(full, method="good").overall_low)
    same = recovered_share.ranking(replaced(board, "good", lambda own, base: base.score))
    assert pick(same, method="good").overall == 0 and pick(same, method="good").nominal_gain == 0


def test_who_is_ranked(board):
    ranks = recovered_share.ranking(board)
    status = dict(zip(ranks.method, ranks.status, strict=True))
    assert set(ranks.method[ranks["rank"].notna()]) == {"good", "plain", "dear"}
    assert status == {
        "good": "",
        "plain": "",
        "dear": "price broken",
        "none": "",
        "idle": "inactive on grid",
        "same": "identical on grid, pole",
        "partial": "not on pole",
        "placebo_reward": "control",
        "pr_mdp": "adversary",
    }
    assert ranks.method.iloc[0] == "good" and ranks["rank"].iloc[:3].tolist() == [1, 2, 3]
    assert ranks.rank_low.iloc[0] == ranks.rank_high.iloc[0] == 1
    # It has no mean of a class of which it lacks a task, and none overall.
    partial = pick(ranks, method="partial")
    assert np.isfinite(partial.routes) and np.isnan(partial["action noise"])
    assert np.isnan(partial.overall) and partial.tasks == 1 and np.isfinite(partial.price)


def test_a_method_may_have_no_price(board, tmp_path):
    """Where `none` has nothing to give up, as in a task that it does not learn."""
    scores = board.scores.copy()
    scores.loc[scores.method == "partial", "price"] = np.nan
    priceless = board._replace(scores=scores)
    partial = pick(recovered_share.ranking(priceless), method="partial")
    assert np.isnan(partial.price) and partial.status == "not on pole"
    leaderboard.write_report(priceless, tmp_path)
    assert "partial" in (tmp_path / "leaderboard.md").read_text("utf-8")


def test_a_price_is_broken_only_if_its_lower_bound_is(board):
    ranks = recovered_share.ranking(board)
    assert pick(ranks, method="dear").price > 0.05
    noisy = board.scores.copy()
    rows = (noisy.method == "dear") & (noisy.perturbation == "nominal")
    noisy.loc[rows, "price"] += np.resize([0.3, -0.3], rows.sum())
    status = recovered_share.standing(board._replace(scores=noisy)).status
    assert status["dear"] == ""


def test_solved_and_pareto(board):
    ranks = recovered_share.ranking(board)
    rows = boards.nominal(board.scores)
    share = (rows[rows.method == "dear"].score >= 0.9).mean()
    assert pick(ranks, method="dear").solved == share < 1
    assert pick(ranks, method="good").pareto and not pick(ranks, method="plain").pareto
    values = pd.DataFrame({"a": [1, 1, 0, np.nan, 2], "b": [1, 1, 2, 9, 0.5]})
    assert recovered_share.pareto(values).tolist() == [True, True, True, False, True]
    assert recovered_share.pareto(pd.DataFrame({"a": [1, 2], "b": [1, 1]})).tolist() == [
        False,
        True,
    ]


def test_families_come_with_the_spread_between_methods(board):
    ranks = recovered_share.ranking(board)
    table = recovered_share.families_table(board, ranks)
    losses = pick(table, family="losses")
    shares = [pick(ranks, method=name).routes for name in ("good", "plain")]
    assert losses.methods == 2 and losses.routes == pytest.approx(np.mean(shares))
    assert losses.routes_std == pytest.approx(np.std(shares, ddof=1))
    assert np.isnan(pick(table, family="intrinsic").routes_std)


def test_what_differs_from_none_differs_with_all_others_at_once(board):
    table = recovered_share.classes_table(board)
    good = pick(table, method="good", **{"class": "routes"})
    assert good.differs and good.all_low > 0 and good.all_low < good.share_low
    assert not pick(table, method="plain", **{"class": "routes"}).differs
    # Only ranked methods are in the family.
    assert table[table.method == "pr_mdp"].all_low.isna().all()
    few = board._replace(scores=board.scores[board.scores.seed < 5])
    assert recovered_share.classes_table(few).all_low.isna().all()
    assert recovered_share.ranking(few).overall_low.isna().all()


def test_gains_per_perturbation(board):
    gains = recovered_share.perturbation_gains(board)
    harmless = gains[gains.perturbation == "gravity"]
    assert not harmless.kept.any() and not harmless.differs.any() and harmless.gain.notna().any()
    row = pick(gains, method="good", perturbation="wall")
    rows = board.scores[board.scores.perturbation == "wall"]
    mean = rows.groupby(["method", "magnitude"]).score.mean()
    assert row.gain == pytest.approx((mean["good"] - mean["none"]).mean())
    assert row["class"] == "routes" and row.kept and row.differs
    assert gains[(gains.method == "partial") & (gains.perturbation == "slip")].gain.isna().all()


def test_the_summary_says_what_is_known_and_what_not(board):
    frames = leaderboard.computed(board)
    said = sentences.summary(board, frames["leaderboard"], frames["classes"])
    text = "\n".join(said)
    share = pick(frames["leaderboard"], method="good").routes
    assert f"**routes** (on one task: grid): good (R = {share:.2f})" in text
    assert "Undecided: " in text and "First is good" in text
    assert "Controls recover overall: placebo reward" in text
    assert "with 95 % confidence each: dear." in text and "Not calibrated" not in text
    own = board._replace(manifest={**board.manifest, "calibrated": False})
    assert "Not calibrated" in "\n".join(sentences.summary(own, *list(frames.values())[:2]))
    nothing = board._replace(scores=board.scores[board.scores.method.isin(["none", "pr_mdp"])])
    frames = leaderboard.computed(nothing)
    said = sentences.summary(nothing, frames["leaderboard"], frames["classes"])
    assert said == ["No method is ranked: none has every task and a class to be compared in."]


def test_the_printed_table_is_recomputed_from_the_committed_ones(board, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(board.manifest))
    boards.write_board(board, tmp_path)
    leaderboard.write_report(board, tmp_path)
    again = leaderboard.computed(boards.read_board(tmp_path))
    for name, frame in again.items():
        printed = pd.read_csv(
            tmp_path / "tables" / f"{name}.csv", keep_default_na=False, na_values=""
        )
        for column in frame.select_dtypes("number"):
            wanted, found = printed[column].astype(float), frame[column].astype(float)
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9, err_msg=column)
    page = (tmp_path / "leaderboard.md").read_text()
    row = pick(again["leaderboard"], method="good")
    assert f"| 1 [1, 1] | good | losses | {row.overall:.3f} [" in page
    assert "| good " in page and f"{row.routes:.2f} •" in page and "nan" not in page
    for name in ("gains", "price", "frontier"):
        assert f"figures/{name}.png" in page
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "regularizers" / "good.md").exists()


def test_tables_that_contradict_themselves_are_refused(board, tmp_path):
    twice = pd.concat([board.scores, board.scores.head(1)])
    with pytest.raises(EntrobError, match="two rows for method none, seed 0"):
        boards.checked(board._replace(scores=twice))
    with pytest.raises(EntrobError, match="no score for none on grid"):
        lost = board.scores.assign(score=np.where(board.scores.index == 0, np.nan, 1.0))
        boards.checked(board._replace(scores=lost))
    with pytest.raises(EntrobError, match=r"unknown class of perturbations 'route'.*'routes'"):
        odd = board.cells.assign(category=board.cells.category.replace("routes", "route"))
        boards.checked(board._replace(cells=odd))
    with pytest.raises(EntrobError, match="no runs of 'none'"):
        boards.checked(board._replace(scores=board.scores[board.scores.method != "none"]))
    with pytest.raises(EntrobError, match=r"scores\.csv is missing"):
        boards.read_board(tmp_path)


def test_a_frontier_runs_along_the_coefficients(board):
    points = board_figures.frontier_points(board)
    good = points[points.method == "good"]
    assert good.step.tolist() == [1, 2, 3] and good.chosen.tolist() == [0, 1, 0]
    assert good.price.tolist() == pytest.approx([0.0, 0.02, 0.1])
    assert good.share.tolist() == pytest.approx([0.1, 0.4, 0.5])
    bare = board._replace(tuning=board.tuning.assign(**dict.fromkeys(boards.CLASSES, np.nan)))
    assert board_figures.frontier_figure(bare) is None


def test_a_frontier_says_how_many_seeds_it_rests_on(board):
    """Those of the values that were tried, of which `none`, as on the boards, has more."""
    more = [board.tuning[board.tuning.method == "none"].assign(seed=2_000 + i) for i in range(8)]
    tuning = pd.concat([board.tuning, *(rows.drop_duplicates("task") for rows in more)])
    said = "tuning seeds: 2 of every value, 10 of none"
    assert board_figures.tuning_seeds(tuning) == said
    (legend,) = board_figures.frontier_figure(board._replace(tuning=tuning)).legends
    assert said in legend.get_title().get_text()
    lost = (tuning.coefficient == 10) & (tuning.seed == 1_000_000)
    assert "1–2 of every value, 10 of none" in board_figures.tuning_seeds(tuning[~lost])


def test_a_column_of_words_may_be_empty(board, tmp_path):
    """A board without a remark is read without a warning, and written again with the same bytes."""
    activity = board.activity.assign(status="")
    boards.write_board(board._replace(activity=activity), tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(board.manifest))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = boards.read_board(tmp_path / "a")
    assert set(again.activity.status) == {""}
    boards.write_board(again, tmp_path / "b")
    for name in boards.COLUMNS:
        wrote, rewrote = (tmp_path / x / "tables" / f"{name}.csv" for x in "ab")
        assert wrote.read_bytes() == rewrote.read_bytes()
