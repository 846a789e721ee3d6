"""The spread of what is seen: its formula, and what the environments declare of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import make
from entrob.evaluation.spread import observation_spread
from entrob.persistence.store import Store
from entrob.suite.calibrate import calibration
from entrob.suite.check import task_of, trained
from entrob.sweep import runner, stored
from entrob.sweep.program import program

TASKS = ("cartpole", "acrobot", "mountain_car", "pendulum", "point_robot")


class Count:
    """Shows how many steps were taken and that number's double; ends after 2 or 4 of them."""

    def reset_env(self, key, params):
        limit = jnp.where(jax.random.bernoulli(key), 2, 4)
        return self.seen(0), (jnp.int32(0), limit)

    def seen(self, time):
        return {"time": jnp.full((1,), time, jnp.float32), "double": jnp.float32(2 * time)}

    def step_env(self, key, state, action, params):
        time = state[0] + 1
        return self.seen(time), (time, state[1]), 0.0, time >= state[1], {}

    def is_truncated(self, state, params):
        return jnp.bool_(False)


def test_it_is_the_deviation_over_the_steps_that_were_taken():
    act = lambda key, carry, state, obs: (0, carry)
    keys = jax.random.split(jax.random.key(0), 8)
    ends = [int(Count().reset_env(jax.random.split(key)[0], None)[1][1]) for key in keys]
    assert set(ends) == {2, 4}
    spread = observation_spread(Count(), act, (), None, keys, 10)
    expected = np.std([time for end in ends for time in range(end)])
    np.testing.assert_allclose(spread["time"], [expected], rtol=1e-6)
    np.testing.assert_allclose(spread["double"], 2 * expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_declared_spreads_are_those_of_trained_policies(task, tmp_path):
    """Within a factor of two, the median of four runs: seeds differ by as much."""
    experiment = calibration(task_of(f"leaderboard:{task}"), 4)
    (group,) = stored.groups(experiment)
    prog, store = program(experiment, group), Store(tmp_path)
    runner.run(experiment, store, "test", test=False)
    env, params = make(experiment.environment)
    if group.setting["params"]:
        params = prog.env_params
    model = prog.agent.actor

    def spread(policy, keys):
        act = lambda key, carry, state, obs: model.act(key, policy, carry, obs)
        horizon = int(params.max_steps_in_episode)
        return observation_spread(env, act, model.initial(), params, keys, horizon)

    keys = jax.random.split(jax.random.key(experiment.evaluation_seed), 32)
    found = jax.jit(jax.vmap(spread, (0, None)))(trained(store, prog), keys)
    ratio = np.median(found, 0) / env.observation_spread
    assert (ratio > 0.5).all() and (ratio < 2).all()
