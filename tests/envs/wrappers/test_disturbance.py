"""Forces beside the agent's action: what they do, and that they pass other wrappers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import make
from entrob.envs.forces import DISTURBANCES, disturbance_of
from entrob.errors import EntrobError
from entrob.perturbations import with_randomization

TASKS = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]
TASKS += ["PointRobot-misc"]


@functools.cache
def game(task):
    """``(env, params, state, step)``: step maps an action and a force to all five values."""
    plain, params = make(f"gymnax:{task}")
    env, _ = make(f"gymnax:{task}", disturbed=True)
    key = jax.random.key(3)
    _, state = env.reset_env(key, params)
    _, native = plain.reset_env(key, params)

    @jax.jit
    def step(action, force):
        disturbed = env.step_env(key, state.replace(disturbance=force), action, params)
        return disturbed, plain.step_env(key, native, action, params)

    return env, params, state, step


def none(task):
    return jnp.zeros(game(task)[0].disturbance_space().shape)


def numbers(outcome):
    """Observation, reward and end."""
    return np.concatenate([np.ravel(np.float32(x)) for x in (outcome[0], *outcome[2:4])])


def test_all_disturbed_tasks_are_tested():
    assert len(TASKS) == len(DISTURBANCES)
    for task in TASKS:
        space = game(task)[0].disturbance_space()
        np.testing.assert_array_equal(space.high, np.float32(disturbance_of(game(task)[0]).unit))
        np.testing.assert_array_equal(space.low, -space.high)


@pytest.mark.parametrize("task", TASKS)
def test_without_a_force_nothing_changes_and_a_force_acts_for_one_step(task):
    env, params, _, step = game(task)
    action = env.action_space(params).sample(jax.random.key(0))
    disturbed, plain = step(action, none(task))
    np.testing.assert_array_equal(numbers(disturbed), numbers(plain))
    disturbed, plain = step(action, env.disturbance_space().high)
    assert np.abs(numbers(disturbed) - numbers(plain)).max() > 1e-4
    assert float(disturbed[2]) == float(plain[2])  # the reward is that of the agent's own action
    assert (disturbed[1].disturbance == 0).all()


@pytest.mark.parametrize(
    ("task", "action", "force", "same"),
    [
        ("CartPole-v1", 0, [20.0, 0.0], 1),  # from -10 N to 10 N
        ("MountainCar-v0", 1, [0.001], 2),
        ("MountainCarContinuous-v0", [0.2], [0.0006], [0.6]),
        ("Acrobot-v1", 1, [-1.0], 0),
        ("Pendulum-v1", [0.5], [0.75], [1.25]),
        ("PointRobot-misc", [0.05, 0.0], [-0.02, 0.03], [0.03, 0.03]),
    ],
)
def test_a_force_adds_to_the_agents_own(task, action, force, same):
    step = game(task)[3]
    pushed = step(jnp.asarray(action), jnp.float32(force))[0][1]
    itself = step(jnp.asarray(same), none(task))[1][1]
    for name in ("x_dot", "theta_dot", "velocity", "velocity_1", "velocity_2", "theta", "pos"):
        if hasattr(itself, name):
            values = getattr(pushed, name), getattr(itself, name)
            np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


def test_a_force_on_the_pole_obeys_newton():
    """The equations of cart and pole, solved as a linear system instead of one after the other."""
    _, params, state, step = game("CartPole-v1")
    force = np.array([3.0, -0.8])
    after = step(jnp.int32(1), jnp.float32(force))[0][1]
    m, length, total = params.masspole, params.length, params.masscart + params.masspole
    theta, omega = float(state.theta), float(state.theta_dot)
    cos, sin = np.cos(theta), np.sin(theta)
    system = [[total, m * length * cos], [m * length * cos, 4 / 3 * m * length**2]]
    pushes = [
        params.force_mag + force.sum() + m * length * omega**2 * sin,
        m * params.gravity * length * sin + force[1] * length * cos,
    ]
    x_acc, theta_acc = np.linalg.solve(system, pushes)
    # gymnax's equations (and the paper's) are those of this system.
    assert float(after.x_dot - state.x_dot) == pytest.approx(float(params.tau * x_acc), rel=1e-3)
    assert float(after.theta_dot - omega) == pytest.approx(float(params.tau * theta_acc), rel=1e-3)


def test_a_force_on_the_cart_does_not_trust_stale_derived_params():
    env, params = make("gymnax:CartPole-v1", disturbed=True)
    key = jax.random.key(0)
    _, state = env.reset_env(key, params)
    state = state.replace(disturbance=jnp.array([5.0, 1.0]))
    heavy = params.replace(masspole=1.0)
    stale, fresh = (
        env.step_env(key, state, 0, p)[0] for p in (heavy, heavy.replace(total_mass=2.0))
    )
    np.testing.assert_array_equal(stale, fresh)


def test_forces_pass_through_noise_and_randomization():
    env, params = make("gymnax:CartPole-v1", noise=True, disturbed=True)
    env, params = with_randomization(env, params, "slip", 0.0, 0.5)
    _, state = env.reset_env(jax.random.key(0), params)
    step = jax.jit(
        lambda force: env.step_env(
            jax.random.key(1), state.replace(disturbance=force), jnp.int32(0), params
        )
    )
    still, pushed = step(jnp.zeros(2)), step(jnp.float32([5.0, 0.0]))
    assert float(pushed[1].x_dot - still[1].x_dot) == pytest.approx(0.02 * 5 * 0.976, rel=0.02)
    np.testing.assert_array_equal(pushed[1].disturbance, [0, 0])


def test_what_cannot_be_pushed_is_named():
    with pytest.raises(EntrobError, match="no forces can act on"):
        make("minigrid/empty-8x8", disturbed=True)
