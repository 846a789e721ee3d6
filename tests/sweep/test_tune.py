"""The 5 % rule on scores made by hand."""

import dataclasses

import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.sweep import tune
from entrob.sweep.experiment import FIRST_TUNING_SEED, Method, Tuning
from entrob.sweep.knobs import Knob

FREE = Knob("coefficient", "policy_entropy", 0.01)
GRID = tune.Grid(Method("p", {"state_entropy": 0.3}), FREE, (0.01, 0.02, 0.05, 0.1))


def scores(*values):
    return dict(zip(GRID.values, values, strict=True))


@pytest.mark.parametrize(
    ("score", "chosen"),
    [
        ((1.0, 1.0, 0.9, 0.9), 0.02),  # falls once
        ((1.0, 0.9, 1.0, 1.0), 0.01),  # not monotone: below the FIRST failure
        ((0.9, 1.0, 1.0, 1.0), 0.0),  # the smallest fails
        ((1.0, 1.0, 1.0, 1.0), 0.1),  # all pass
        ((0.95, 0.95, 0.9499, 1.0), 0.02),  # the threshold itself passes
        ((1.0, float("nan"), 1.0, 1.0), 0.01),  # what is unknown fails
    ],
)
def test_select(score, chosen):
    assert tune.select(GRID, scores(*score), baseline=1.0) == chosen


def test_select_is_relative_to_the_baseline():
    assert tune.select(GRID, scores(0.5, 0.48, 0.47, 0.5), baseline=0.5) == 0.02


def test_a_grid_whose_edge_passes_grows_upward_and_one_that_fails_downward():
    up = tune._widen(GRID, 0.1)
    assert up.values == (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    down = tune._widen(GRID, 0.0)
    assert down.values == (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
    assert tune._widen(GRID, 0.02) == GRID


def test_a_grid_grows_within_its_domain_only():
    knob = lambda *domain: dataclasses.replace(FREE, domain=domain)
    within = lambda *domain: dataclasses.replace(GRID, knob=knob(*domain))
    bounded = within(0.004, 0.3)
    assert tune._widen(bounded, 0.1).values == (0.01, 0.02, 0.05, 0.1, 0.2)
    assert tune._widen(bounded, 0.0).values == (0.005, 0.01, 0.02, 0.05, 0.1)
    full = within(0.01, 0.101)
    assert tune._widen(full, 0.1) == full == tune._widen(full, 0.0)


def test_a_grid_of_one_coefficient_grows_by_threes():
    one = dataclasses.replace(GRID, values=(0.1,))
    assert one.extended(upward=True).values == (0.1, 0.3, 0.9)
    assert one.extended(upward=False).values == pytest.approx((0.0111, 0.0333, 0.1))


def frames(by_method, diverged=()):
    """Records of two seeds a method whose mean success is given."""
    rows, runs = [], []
    for method, mean in by_method.items():
        for seed, offset in ((0, -0.01), (1, 0.01)):
            id = f"{method}/{seed}"
            rows.append({"run_id": id, "method": method, "seed": seed, "magnitude": 0.0})
            rows[-1] |= {"success": mean + offset, "return_mean": 7.0}
            rows.append({**rows[-1], "magnitude": 8.0, "success": 0.0})
            runs.append({"run_id": id, "status": "diverged" if id in diverged else "finished"})
    return pd.DataFrame(rows), pd.DataFrame(runs)


def test_score_table_uses_nominal_success_and_counts_a_diverged_run_as_zero():
    means = {"none": 0.8, "p@0.01": 0.8, "p@0.02": 0.79, "p@0.05": 0.8, "p@0.1": 0.5}
    table = tune.score_table([GRID], *frames(means, diverged=("p@0.05/1",)))
    by = table.set_index("coefficient")
    assert by.loc[0.02, "mean"] == pytest.approx(0.79)
    assert by.loc[0.05, "mean"] == pytest.approx(0.395)
    assert by.loc[0.02, "ratio"] == pytest.approx(0.79 / 0.8)
    assert list(by["passes"]) == [True, True, True, False, False]
    assert list(table[table.chosen].coefficient) == [0.02]
    assert set(table.measure) == {"success"}


def test_score_table_uses_the_return_where_nothing_succeeds():
    evaluation, runs = frames(dict.fromkeys(["none", *(f"p@{v:g}" for v in GRID.values)], 0.0))
    evaluation["success"] = 0.0
    table = tune.score_table([GRID], evaluation, runs)
    assert set(table.measure) == {"return_mean"} and set(table["mean"]) == {7.0}


def test_tuning_seeds_are_disjoint_from_reported_ones(tiny):
    tuning = tune.tuning_experiment(dataclasses.replace(tiny, tuning=Tuning(seeds=3)), [GRID])
    assert (tuning.first_seed, tuning.seeds) == (FIRST_TUNING_SEED, 3)
    assert tuning.first_seed > 10_000  # more seeds than anybody reports
    assert tuning.hash != tiny.hash
    candidate = tuning.methods[1]
    assert candidate.coefficients == {"state_entropy": 0.3, "policy_entropy": 0.01}


def fake_run(monkeypatch, success):
    """Replace training by `success(coefficient)`; returns the grids that were asked for."""
    asked = []

    def run(experiment, store, command, parallel_runs, trainers, resume):
        means = {
            m.name: success(m.coefficients.get("policy_entropy", 0)) for m in experiment.methods
        }
        asked.append(means)
        store.frames = dict(zip(("evaluation", "runs"), frames(means)))
        return {}

    class FakeStore:
        def gather(self, kind):
            return self.frames[kind]

    monkeypatch.setattr(tune, "run", run)
    return asked, FakeStore()


def test_tune_extends_until_a_coefficient_fails(tiny, monkeypatch):
    asked, store = fake_run(monkeypatch, lambda c: 1.0 if c <= 0.5 else 0.1)
    grid = {"policy_entropy": {"values": [0.05, 0.1]}}
    experiment = dataclasses.replace(tiny, tuning=Tuning(grids=grid))
    chosen, table, _ = tune.tune(experiment, store, "command")
    assert chosen == {"policy_entropy": 0.4}
    assert table[table.chosen].coefficient.tolist() == [0.4]
    assert [len(means) - 1 for means in asked] == [2, 4, 6]  # 0.05..0.1, ..0.4, ..1.6


def test_tune_extends_downward_and_gives_up_in_the_end(tiny, monkeypatch):
    asked, store = fake_run(monkeypatch, lambda c: 1.0 if c == 0 else 0.1)
    grid = {"policy_entropy": {"values": [1, 2]}}
    experiment = dataclasses.replace(tiny, tuning=Tuning(grids=grid))
    chosen, table, _ = tune.tune(experiment, store, "command")
    assert chosen == {"policy_entropy": 0.0} and not table.chosen.any()
    assert len(asked) == 5 and min(table.coefficient[1:]) < 0.01


def test_candidates_keep_all_else_that_their_method_has(tiny):
    """PointRobot was tuned on another task than it is reported on."""
    own = {"params": {"goal_spread": 0.0}, "training": {"reward_noise": 0.1}}
    own |= {"randomize": {"slip": [0.0, 0.2]}, "adversary": {"kind": "pr_mdp"}}
    own |= {"options": {"state_entropy": {"discount": 0.9}}, "hyper": {"clip": 0.1}}
    none = Method("none", params=own["params"])
    declared = Method("state_entropy", {"state_entropy": 1.0}, **own)
    grids = {"state_entropy": {"values": [0.1]}, "kl": {"values": [0.1]}}
    experiment = dataclasses.replace(tiny, methods=(none, declared), tuning=Tuning(grids=grids))
    of = tune.grids(experiment)
    first, second, third = tune.tuning_experiment(experiment, of).methods
    assert first == none
    changed = {"value": "0.1", "coefficients": {"state_entropy": 0.1}}
    assert second == dataclasses.replace(declared, **changed)
    assert third == Method("kl", {"kl": 0.1}, params=own["params"], value="0.1")


def test_values_outside_a_domain_are_named(tiny):
    grids = {"steer": {"values": [0.2, 20]}}
    with pytest.raises(
        EntrobError, match=r"coefficient of steer must be a number in \[0, 1\), not 20"
    ):
        tune.grids(dataclasses.replace(tiny, tuning=Tuning(grids=grids)))


@pytest.mark.parametrize("grids", [{}, {"p": {}}, {"p": {"values": 3}}, {"p": [1]}])
def test_missing_grids_are_named(tiny, grids):
    with pytest.raises(EntrobError, match=r"tune\.grids"):
        tune.grids(dataclasses.replace(tiny, tuning=Tuning(grids=grids)))


def test_returns_count_from_the_random_policys():
    # none 10, random -90: a return of 5.1 is 95.1 % of the way, 4.9 is not.
    evaluation, runs = frames({"none": 1.0, "p@0.01": 1.0, "p@0.1": 1.0})
    returns = {"none": 10.0, "p@0.01": 5.1, "p@0.1": 4.9}
    evaluation["return_mean"] = evaluation.method.map(returns)
    grid = dataclasses.replace(GRID, values=(0.01, 0.1))
    table = tune.score_table([grid], evaluation, runs, -90.0, "return_mean").set_index(
        "coefficient"
    )
    assert table.chosen.to_dict() == {0.0: False, 0.01: True, 0.1: False}
    assert table.ratio[0.01] == pytest.approx(0.951)
    # By success, which all have, the largest passes.
    table = tune.score_table([grid], evaluation, runs, -90.0).set_index("coefficient")
    assert table.chosen[0.1]


def test_a_candidate_without_runs_fails():
    evaluation, runs = frames({"none": 1.0, "p@0.01": 1.0})
    grid = dataclasses.replace(GRID, values=(0.01, 0.1))
    table = tune.score_table([grid], evaluation, runs).set_index("coefficient")
    assert not table.passes[0.1] and table.chosen[0.01]
