"""Activity in the records: means of what was measured, and each run's median."""

import jax.numpy as jnp
import numpy as np

from entrob.agents.actor_critic import HEALTHY
from entrob.sweep import train
from entrob.sweep.groups import RunBatch, group_methods, runs_of


class State:
    """What is read of a batch's state: nothing diverged."""

    diverged_at = jnp.array([-1, -1])
    cause = jnp.array([HEALTHY, HEALTHY])


def test_points_average_what_was_measured_and_runs_have_the_median(tiny):
    (group,) = group_methods(tiny.methods)
    batch = RunBatch("", group, runs_of(tiny, tiny.methods[0]))
    updates, points = tiny.updates, tiny.points
    assert updates == 10 and points == 5
    ones = np.ones((2, updates), np.float32)
    curves = dict.fromkeys((*train._SUMS, "policy_entropy"), ones)
    activity = np.full_like(ones, np.nan)
    activity[0, [0, 1, 4, 9]] = 1.0, 3.0, 0.5, 0.0
    rows = train._curve_records(tiny, batch, {**curves, "activity": activity})
    first = rows[rows.run_id == batch.runs[0].id]
    np.testing.assert_array_equal(first.activity, [2.0, np.nan, 0.5, np.nan, 0.0])
    assert (first.policy_entropy == 1).all()
    runs = train._run_records(tiny, batch, State, {**curves, "activity": activity})
    assert runs.activity[0] == 0.75 and np.isnan(runs.activity[1])
