"""The nominal row in records of this and of earlier versions."""

import numpy as np
import pandas as pd

from entrob.statistics.nominal import with_nominal


def row(run, name, magnitude, success, exact=np.nan):
    instances = np.float32([exact] * 2)
    return {
        "run_id": run, "method": "none", "seed": 0, "perturbation": name, "magnitude": magnitude,
        "success": success, "exact_success": exact, "exact_worst": exact, "exact_cvar": exact,
        "instance_success": instances,
    }  # fmt: skip


NEW = pd.DataFrame(
    [
        row("a", "nominal", 0.0, 0.9, 0.95),
        row("a", "wall", 4.0, 0.5, 0.55),
        row("a", "slip", 0.5, 0.4),
        row("b", "nominal", 0.0, 0.8, 0.85),
        row("b", "wall", 4.0, 0.3, 0.35),
    ]
)
#: What earlier versions wrote of the same.
OLD = pd.DataFrame(
    [
        row("a", "wall", 0.0, 0.9, 0.95),
        row("a", "wall", 4.0, 0.5, 0.55),
        row("a", "slip", 0.0, 0.9),
        row("a", "slip", 0.5, 0.4),
        row("b", "wall", 0.0, 0.8, 0.85),
        row("b", "wall", 4.0, 0.3, 0.35),
    ]
)


def test_curves_are_those_of_records_with_a_row_per_perturbation():
    pd.testing.assert_frame_equal(with_nominal(NEW), OLD)
    pd.testing.assert_frame_equal(with_nominal(OLD), OLD)


def test_a_folder_with_rows_of_both_versions_has_no_row_twice():
    both = with_nominal(pd.concat([OLD, NEW[NEW.perturbation == "nominal"]], ignore_index=True))
    pd.testing.assert_frame_equal(both, OLD)


def test_a_single_policys_records_need_no_run():
    random = NEW[NEW.run_id == "a"].drop(columns=["run_id", "method", "seed"])
    expected = OLD[OLD.run_id == "a"].drop(columns=["run_id", "method", "seed"])
    pd.testing.assert_frame_equal(with_nominal(random), expected)


def test_a_run_tested_under_nothing_else_keeps_its_row():
    alone = NEW[NEW.perturbation == "nominal"].reset_index(drop=True)
    pd.testing.assert_frame_equal(with_nominal(alone), alone)
    assert with_nominal(alone.iloc[:0]).empty
