"""From a suite's records to the tidy tables: scores, cells without calibration, prefixes."""

import numpy as np
import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.persistence import store
from entrob.report.leaderboard import write_leaderboard
from entrob.statistics.board import category
from entrob.suite import assemble

RETURNS = {"none": (10.0, 4.0), "good": (10.0, 8.0), "lost": (9.0, 9.0)}


def records(exact=False):
    """Two seeds of three methods at magnitudes 0 and 1; the last method's second run diverged."""
    rows, runs = [], []
    for method, means in RETURNS.items():
        for seed in (0, 1):
            identity = f"{method}/{seed}"
            bad = method == "lost" and seed == 1
            runs.append({"run_id": identity, "status": "diverged" if bad else "finished"})
            for name in ("wall", "slip"):
                for magnitude, mean in zip((0.0, 1.0), means, strict=True):
                    row = {"run_id": identity, "method": method, "seed": seed}
                    row |= {"perturbation": name, "magnitude": magnitude}
                    row |= {"return_mean": mean + seed * magnitude}
                    success = np.float32([mean / 10, np.nan, mean / 10])
                    known = exact and (name == "wall" or magnitude == 0)
                    row |= {"exact_success": 0.5 if known else np.nan}
                    rows.append(
                        row | {"instance_success": success, "success_solvable": 0.07 * mean}
                    )
    random = pd.DataFrame(
        {"perturbation": "wall", "magnitude": [0.0, 1.0], "return_mean": [2.0, 1]}
    )
    return pd.DataFrame(runs), pd.DataFrame(rows), random


def test_returns_run_from_random_to_the_best_on_the_nominal_task():
    runs, evaluation, random = records()
    measure, scale = assemble.scaling(evaluation, random)
    assert (measure, scale) == ("return_mean", (2.0, 10.0))
    frame = assemble.scores(runs, evaluation, measure, scale)
    scores = frame.set_index(["method", "seed", "perturbation", "magnitude"]).sort_index()
    assert scores.score["good", 1, "wall", 1.0] == pytest.approx((9 - 2) / 8)
    assert scores.score["none", 0, "nominal", 0.0] == 1
    # A diverged run is no better than random: 0, which no other run is below.
    assert (
        scores.score["lost", 1, "wall", 1.0] == 0 and scores.price["lost", 1, "nominal", 0.0] == 1
    )
    assert scores.price["lost", 0, "nominal", 0.0] == pytest.approx(1 / 8)
    assert scores.price["none", 0, "nominal", 0.0] == 0
    assert np.isnan(scores.price["good", 0, "wall", 1.0])
    # The nominal task stands there once, however many perturbations it was tested with.
    assert len(frame) == 6 * 3


def test_a_run_without_a_score_has_failed_and_a_failed_none_has_no_infinite_prices():
    runs, evaluation, random = records()
    lost = (evaluation.method == "none") & (evaluation.seed == 0)
    evaluation.loc[lost, "return_mean"] = np.nan
    frame = assemble.scores(runs, evaluation, *assemble.scaling(evaluation, random))
    assert (frame.score[(frame.method == "none") & (frame.seed == 0)] == 0).all()
    prices = frame[(frame.method == "good") & (frame.perturbation == "nominal")].price
    assert prices.tolist() == pytest.approx([-2.0, 0.0])


def test_on_grids_success_is_exact_where_it_can_be():
    runs, evaluation, random = records(exact=True)
    measure, scale = assemble.scaling(evaluation, random)
    assert (measure, scale) == ("success", (0.0, 1.0))
    frame = assemble.scores(runs, evaluation, measure, scale)
    scores = frame.set_index(["method", "seed", "perturbation"]).score
    assert scores["good", 0, "wall"] == pytest.approx(0.8)
    assert scores["good", 0, "slip"] == pytest.approx(0.56)
    cells = assemble.cells(frame, evaluation, measure, {"wall": "routes", "slip": "action noise"})
    cells = cells.set_index("perturbation")
    assert cells.reference["wall"] == 1  # the optimum
    assert cells.reference["slip"] == pytest.approx(0.56)  # the best: one of lost's runs failed
    assert cells.none["wall"] == pytest.approx(0.4) and cells.nominal["slip"] == pytest.approx(1)


def folder(root, tasks=("t",)):
    runs, evaluation, random = records()
    old = [frame.assign(run_id=frame.run_id + "-old") for frame in (runs, evaluation)]
    old[1]["return_mean"] = 0.0
    frames = {"runs": pd.concat([runs, old[0]]), "evaluation": pd.concat([evaluation, old[1]])}
    ids = runs.groupby(runs.run_id.str.split("/").str[0]).run_id.agg(list).to_dict()
    facts = {"runs": ids, "coefficients": {"good": 0.5}, "broken": {}}
    facts |= {"categories": {"wall": "routes", "slip": "action noise"}}
    for task in tasks:
        for kind, frame in {**frames, "random": random}.items():
            store.write_frame(root / task / f"{kind}.parquet", frame)
    described = {"family": "losses", "label": "paper", "source": "", "coef": 1.0, "doc": "Doc."}
    manifest = {"title": "T", "tasks": dict.fromkeys(tasks, facts)}
    manifest["methods"] = dict.fromkeys(("good", "lost"), described)
    store.write_json(root / "manifest.json", manifest)
    return runs, evaluation, random


def test_runs_with_earlier_coefficients_are_not_read(tmp_path):
    runs, evaluation, random = folder(tmp_path)
    found = assemble.assemble(tmp_path)
    wanted = assemble.scores(runs, evaluation, *assemble.scaling(evaluation, random))
    pd.testing.assert_frame_equal(found.scores[wanted.columns], wanted, check_dtype=False)
    assert not found.manifest["calibrated"] and found.activity.empty


def test_a_tasks_own_tables_come_first_and_weights_are_those_of_the_prefix(tmp_path):
    folder(tmp_path, ("t", "u"))
    one = assemble.assemble(tmp_path)
    assert one.cells.weight.tolist() == [0.5] * 4
    cells = one.cells[one.cells.task == "t"].drop(columns="task").assign(none=0.25, gap=0, weight=7)
    cells.to_csv(tmp_path / "t" / "cells.csv", index=False)
    board = assemble.assemble(tmp_path)
    own = board.cells[board.cells.task == "t"]
    assert (own.none == 0.25).all() and (own.gap == own.reference - 0.25).all()
    assert not board.manifest["calibrated"]  # u is not
    cells.to_csv(tmp_path / "u" / "cells.csv", index=False)
    assert assemble.assemble(tmp_path).manifest["calibrated"]


def test_tuning_runs_become_rows_per_seed(tmp_path):
    runs, evaluation, _ = folder(tmp_path)
    nominal = evaluation[evaluation.magnitude == 0]
    rename = {"good": "good@0.5", "lost": "good@2", "none": "none"}
    for kind, frame in {"runs": runs, "evaluation": nominal}.items():
        if "method" in frame:
            frame = frame.assign(method=frame.method.map(rename))
        store.write_frame(tmp_path / "tune" / "t" / f"{kind}.parquet", frame)
    tuning = assemble.assemble(tmp_path).tuning
    assert tuning.coefficient.tolist() == [0.5, 0.5, 2, 2] and set(tuning.method) == {"good"}
    assert tuning.chosen.tolist() == [True, True, False, False]
    assert tuning.nominal.tolist() == pytest.approx([1, 1, 7 / 8, 0])


def test_a_board_of_two_seeds_is_written_and_says_what_it_cannot(tmp_path):
    folder(tmp_path)
    page = write_leaderboard(tmp_path).read_text()
    assert "Not calibrated" in page and "Activity was not measured" in page
    assert "Undecided: 0 of 0 comparisons" in page and "fewer than 6 pairs" in page
    assert "Ranks have no intervals" in page and "nan" not in page
    assert (tmp_path / "tables" / "scores.csv").exists()
    assert (tmp_path / "figures" / "gains.png").stat().st_size > 5_000


def test_nothing_kept_is_a_board_without_classes(tmp_path):
    _, evaluation, _ = folder(tmp_path)
    store.write_frame(tmp_path / "t" / "evaluation.parquet", evaluation.assign(return_mean=5.0))
    page = write_leaderboard(tmp_path).read_text()
    assert "No method is ranked" in page and "Left out, none loses less than 0.1: t wall 1" in page


def test_a_perturbation_without_a_class_is_named(tmp_path):
    assert assemble.categorize({"categories": {"wall": "routes"}}, "wall") == "routes"
    with pytest.raises(EntrobError, match="perturbation 'storm' has no class"):
        assemble.categorize({"categories": {"storm": "weather"}}, "storm")


def test_every_perturbation_has_a_class():
    from entrob.perturbations import perturbations

    every = [v for name in perturbations.names() for v in perturbations.variants(name)]
    found = {v.name: category(v) for v in every if not v.training_only}
    for name in found:
        assert assemble.categorize({"categories": found}, name) == found[name]
    assert found["wall"] == "routes" and found["observation_dropout"] == "observation noise"
