"""Normalized scores and the ranking from records made by hand."""

import numpy as np
import pandas as pd
import pytest

from entrob.agents.adversary import KINDS
from entrob.results import leaderboard, pages, store

RETURNS = {"none": (10.0, 4.0), "good": (10.0, 8.0), "lost": (10.0, 9.0)}


def records(exact=False):
    """Two seeds of three methods at magnitudes 0 and 1; the last method's second run diverged."""
    rows, runs = [], []
    for method, means in RETURNS.items():
        for seed in (0, 1):
            id = f"{method}/{seed}"
            bad = method == "lost" and seed == 1
            runs.append({"run_id": id, "status": "diverged" if bad else "finished"})
            for magnitude, mean in zip((0.0, 1.0), means):
                row = {"run_id": id, "method": method, "seed": seed, "perturbation": "p"}
                row |= {"magnitude": magnitude, "return_mean": mean + seed * magnitude}
                row |= {"return_worst": mean - 3, "return_cvar": mean - 2}
                success = np.float32([mean / 10, np.nan, mean / 10])
                row |= {"exact_success": 0.5 if exact else np.nan, "instance_success": success}
                rows.append(row | {"exact_worst": 0.1, "exact_cvar": 0.2, "success_solvable": 0.7})
    random = pd.DataFrame(
        {
            "perturbation": "p",
            "magnitude": [0.0, 1.0],
            "return_mean": [0.0, 2.0],
            "return_worst": 0.0,
            "return_cvar": 0.0,
            "exact_success": 0.1,
            "exact_worst": 0.0,
            "exact_cvar": 0.0,
            "success_solvable": 0.3,
            "instance_success": [np.float32([0.2, np.nan, 0.2])] * 2,
        }
    )
    return pd.DataFrame(runs), pd.DataFrame(rows), random


def test_returns_run_from_random_to_the_best_methods_mean():
    at = ["method", "seed", "magnitude"]
    scores = leaderboard.normalized(*records())[0].set_index(at).sort_index()
    # Best at magnitude 1: 9 of `lost`, whose finished run counts; random: 2.
    assert scores.score["good", 0, 1.0] == pytest.approx((8 - 2) / (9 - 2))
    assert scores.score["good", 1, 1.0] == pytest.approx((9 - 2) / (9 - 2))
    assert scores.worst["good", 0, 1.0] == pytest.approx((5 - 2) / (9 - 2))
    assert scores.cvar["none", 0, 1.0] == pytest.approx((2 - 2) / (9 - 2))
    # A diverged run is no better than random, nor than the worst of the others (none's: 1 - 2).
    diverged = scores.loc["lost", 1]
    assert (diverged.score == 0).all()
    assert diverged.worst.tolist() == pytest.approx([0, (1 - 2) / (9 - 2)])
    assert (diverged.cvar == 0).all()


def test_a_run_without_a_score_has_failed():
    runs, evaluation, random = records()
    evaluation.loc[(evaluation.method == "good") & (evaluation.seed == 0), "return_mean"] = np.nan
    scores, _ = leaderboard.normalized(runs, evaluation, random)
    assert (scores.score[(scores.method == "good") & (scores.seed == 0)] == 0).all()


def test_exact_success_runs_from_random_to_the_optimum():
    scores = leaderboard.normalized(*records(exact=True))[0].set_index(["method", "magnitude"])
    assert scores.score["good", 1.0].iloc[0] == pytest.approx((0.8 - 0.2) / 0.8)
    assert scores.worst["good", 1.0].iloc[0] == pytest.approx((0.1 - 0.2) / 0.8)


def test_on_a_grid_with_noise_success_is_sampled_and_measured_by_the_best():
    runs, evaluation, random = records(exact=True)
    noisy = evaluation.magnitude == 1
    evaluation.loc[noisy, "exact_success"] = np.nan
    evaluation.loc[noisy & (evaluation.method == "good"), "success_solvable"] = 0.9
    random.loc[1, "exact_success"] = np.nan
    scores, _ = leaderboard.normalized(runs, evaluation, random)
    scores = scores.set_index(["method", "magnitude"])
    assert scores.score["good", 1.0].tolist() == pytest.approx([1.0, 1.0])
    assert scores.score["none", 1.0].iloc[0] == pytest.approx((0.7 - 0.3) / (0.9 - 0.3))
    assert scores.score["good", 0.0].iloc[0] == pytest.approx((1.0 - 0.2) / 0.8)


@pytest.mark.parametrize("floor", [50.0, 9.0, 8.6])
def test_a_condition_in_which_hardly_anybody_beats_random_is_left_out(floor):
    """At magnitude 1 the best has 9, at 0 there are 10 between random and best."""
    runs, evaluation, random = records()
    random.loc[1, "return_mean"] = floor
    scores, omitted = leaderboard.normalized(runs, evaluation, random)
    assert set(scores.magnitude) == {0.0}
    assert omitted.to_dict("records") == [{"perturbation": "p", "magnitude": 1.0}]
    random.loc[1, "return_mean"] = 8.4
    assert leaderboard.normalized(runs, evaluation, random)[1].empty


def board():
    runs, evaluation, random = records()
    scores, omitted = leaderboard.normalized(runs, evaluation, random)
    scores = scores.assign(task="t", kind="diffuse")
    facts = {"family": "losses"}
    manifest = {
        "tasks": {"t": {"passed": {"good": False}, "open": {"lost": True}}},
        "methods": {"good": facts, "lost": facts},
    }
    overhead = pd.DataFrame({"method": ["good"], "ratio": [1.2]})
    return leaderboard.Board(scores, omitted, overhead, manifest)


def test_ranking_orders_by_the_robust_score_of_magnitudes_above_zero():
    table = leaderboard.ranking(board()).set_index("method")
    assert table.robust["good"] == pytest.approx(np.mean([6, 7]) / 7)
    assert table.robust["none"] == pytest.approx(np.mean([2, 3]) / 7)
    assert table.robust["lost"] == pytest.approx(np.mean([1.0, 0.0]))
    assert list(table.index) == ["good", "lost", "none"]
    assert table.price["good"] == pytest.approx(0) and table.price["lost"] == pytest.approx(0.5)
    assert table.improvement["good"] == 1 and np.isnan(table.improvement["none"])
    assert table.improvement["lost"] == 0.5
    assert table.overhead["good"] == 1.2 and table.overhead["none"] == 1
    assert table.unpassed.to_dict() == {"good": 1, "lost": 0, "none": 0}
    assert table.open.to_dict() == {"good": 0, "lost": 1, "none": 0}
    assert table.structured.isna().all() and table.diffuse["good"] == table.robust["good"]


def test_gains_are_paired_with_none():
    table = leaderboard.gains(board())
    families, table = table[table.method.isna()], table.set_index("method")
    assert table.diffuse["good"] == pytest.approx(4 / 7)
    assert table.diffuse["lost"] == pytest.approx((5 / 7 - 3 / 7) / 2)
    assert families.family.tolist() == ["losses"]
    assert families.diffuse.iloc[0] == pytest.approx((4 + 1) / 2 / 7)


def test_who_has_not_played_every_task_has_no_rank():
    games = board()
    more = games.scores[games.scores.method != "good"].assign(task="u")
    tasks = {task: {"passed": {}, "open": {}} for task in "tu"}
    games = games._replace(
        scores=pd.concat([games.scores, more]), manifest={**games.manifest, "tasks": tasks}
    )
    table = leaderboard.ranking(games)
    assert table.method.tolist() == ["lost", "none", "good"]
    assert table["rank"].tolist()[:2] == [1, 2] and pd.isna(table["rank"].iloc[2])
    assert set(leaderboard.gains(games).method.dropna()) == {"lost"}


def test_intervals_redraw_a_seed_with_all_that_was_measured_of_it():
    """Two perturbations that say the same of each seed tell no more than one."""
    games = board()
    twice = pd.concat([games.scores, games.scores.assign(perturbation="q")])
    one, two = (leaderboard.ranking(games._replace(scores=x)) for x in (games.scores, twice))
    ends = ["method", "robust_low", "robust_high"]
    pd.testing.assert_frame_equal(one[ends], two[ends])


def test_runs_with_earlier_coefficients_are_not_read(tmp_path):
    runs, evaluation, random = records()
    old = [frame.assign(run_id=frame.run_id + "-old") for frame in (runs, evaluation)]
    old[1]["return_mean"] = 0.0
    frames = {"runs": pd.concat([runs, old[0]]), "evaluation": pd.concat([evaluation, old[1]])}
    for kind, frame in {**frames, "random": random}.items():
        store.write_frame(tmp_path / "t" / f"{kind}.parquet", frame)
    ids = runs.groupby(runs.run_id.str.split("/").str[0]).run_id.agg(list).to_dict()
    facts = {"classes": {"p": "action noise"}, "runs": ids, "passed": {}, "open": {}}
    store.write_json(tmp_path / "manifest.json", {"tasks": {"t": facts}, "methods": {}})
    found = leaderboard.read_board(tmp_path).scores
    wanted, _ = leaderboard.normalized(runs, evaluation, random)
    pd.testing.assert_frame_equal(found[wanted.columns], wanted)


def test_an_adversarys_page_says_what_it_is_and_that_it_is_not_tuned(tmp_path):
    facts = {"family": "adversaries", "strength": 0.25, **KINDS["forces"]._asdict()}
    games = board()._replace(manifest={**board().manifest, "methods": {"lost": facts}})
    ranks = leaderboard.ranking(games)
    assert ranks.set_index("method").family["lost"] == "adversaries"
    assert pages.write_pages(tmp_path, games, ranks) == ["lost"]
    text = (tmp_path / "regularizers" / "lost.md").read_text()
    assert "Strength: 0.25, not tuned." in text and "1703.02702" in text
    assert (tmp_path / "regularizers" / "lost.png").stat().st_size > 2_000
