"""Perturbations of gymnax's tasks: what they change, in what shares, and that it is felt.

That the perturbed motion is the one intended is tested in tests/envs/test_tasks.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.perturbations import compose, instance_keys, perturb, perturbations

DERIVED = {"total_mass", "polemass_length"}
LINKS = {"link_length_1", "link_length_2", "link_com_pos_1", "link_com_pos_2", "link_moi"}
EXPECTED = [  # id, name, largest magnitude, what it changes
    ("CartPole-v1", "gravity", 9, {"gravity"}),
    ("CartPole-v1", "mass", 99, {"masspole", *DERIVED}),
    ("CartPole-v1", "length", 9, {"length", "polemass_length"}),
    ("CartPole-v1", "force", 0.99, {"force_mag"}),
    ("Acrobot-v1", "gravity", 1, {"gravity"}),
    ("Acrobot-v1", "mass", 9, {"link_mass_1", "link_mass_2", "link_moi"}),
    ("Acrobot-v1", "length", 1, LINKS),
    ("Acrobot-v1", "force", 0.9, {"available_torque"}),
    ("Acrobot-v1", "goal_shift", 0.95, {"goal_height"}),
    ("MountainCar-v0", "gravity", 1, {"gravity"}),
    ("MountainCar-v0", "force", 0.9, {"force"}),
    ("MountainCar-v0", "goal_shift", 0.09, {"goal_position"}),
    ("Pendulum-v1", "gravity", 1, {"g"}),
    ("Pendulum-v1", "mass", 1, {"m"}),
    ("Pendulum-v1", "length", 1, {"l"}),
    ("Pendulum-v1", "force", 0.9, {"max_torque"}),
    ("PointRobot-misc", "force", 0.9, {"max_force"}),
    ("PointRobot-misc", "goal_shift", 3, {"goal_rotation"}),
    ("Asterix-MinAtar", "enemy_speed", 4, {"init_move_interval"}),
    ("Asterix-MinAtar", "enemy_rate", 9, {"init_spawn_speed"}),
    ("SpaceInvaders-MinAtar", "enemy_speed", 10, {"enemy_move_interval"}),
    ("SpaceInvaders-MinAtar", "enemy_rate", 9, {"enemy_shot_interval"}),
    ("SpaceInvaders-MinAtar", "reload", 15, {"shot_cool_down"}),
]
TWO_SIDED = ("gravity", "mass", "length", "goal_shift")
EXPECTED += [(task, f"{n}_exact", *rest) for task, n, *rest in EXPECTED if n in TWO_SIDED]
TASKS = sorted({task for task, *_ in EXPECTED})
#: The noises that fit, and a magnitude at which 60 steps feel them.
NOISE = {"slip": 0.5, "sticky_action": 0.5, "observation_dropout": 0.5, "reward_noise": 1}
NOISE |= {"observation_noise_raw": 0.1, "action_noise": 0.5, "action_delay": 2}
NOISE |= {"observation_noise": 0.1}  # where the spread of what is seen is declared
BOXES = {"Pendulum-v1", "PointRobot-misc"}
STEPS = 60
every = pytest.mark.parametrize(("task", "name", "high", "changes"), EXPECTED)


@functools.cache
def nominal(task):
    return make(f"gymnax:{task}", noise=True)


@functools.cache
def compiled(task, name):
    """``(key, params, magnitude) -> params``: one program for all of them."""
    return jax.jit(lambda key, params, magnitude: perturb(key, params, name, magnitude))


@functools.cache
def busy(task):
    """Params that everything has changed."""
    steps = [(n, h // 2 if h >= 4 else h / 3) for t, n, h, _ in EXPECTED if t == task]
    steps = [(n, h) for n, h in steps if not n.endswith("_exact")]
    steps += [("slip", 0.2), ("reward_noise", 0.5)]
    return jax.jit(lambda params: compose(jax.random.key(1), params, steps))(nominal(task)[1])


def near_the_goal(task, state):
    """Where a shifted goal is felt at once, half of the copies below the nominal one."""
    shift = jnp.linspace(-0.06, 0.06, 4)
    if task == "MountainCar-v0":
        return state.replace(position=0.5 + shift, velocity=jnp.full(4, 0.005))
    if task == "Acrobot-v1":
        return state.replace(joint_angle1=jnp.arccos(-0.5 - 3 * shift), joint_angle2=jnp.zeros(4))
    return state.replace(pos=state.goal)


@functools.cache
def player(task):
    """Function ``(params, goals) -> leaves [4, STEPS, ...]`` of what four copies see and are paid,
    without auto-reset; with goals, from beside or on the goal that the nominal params have."""
    env, params = nominal(task)
    space = env.action_space(params)

    def play(params, goals):
        keys = jax.random.split(jax.random.key(0), 4)
        obs, state = jax.vmap(env.reset_env, (0, None))(keys, params)
        if task in ("MountainCar-v0", "Acrobot-v1", "PointRobot-misc"):
            _, known = jax.vmap(env.reset_env, (0, None))(keys, nominal(task)[1])
            beside = near_the_goal(task, known)
            if task == "PointRobot-misc":
                beside = state.replace(pos=beside.pos)
            state = jax.tree.map(lambda a, b: jnp.where(goals, a, b), beside, state)

        def step(state, key):
            key_action, key_step = jax.random.split(key)
            actions = jax.vmap(space.sample)(jax.random.split(key_action, 4))
            obs, state, reward, terminated, _ = jax.vmap(env.step_env, (0, 0, 0, None))(
                jax.random.split(key_step, 4), state, actions, params
            )
            return state, (obs, reward, terminated)

        rest = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), STEPS))[1]
        return obs, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), rest)

    return jax.jit(play)


@functools.cache
def played_nominally(task, goals):
    return player(task)(nominal(task)[1], goals)


def differs(task, changed, goals=False):
    """Which of observation, reward and termination differ from nominal ones."""
    (first, before), (first_after, after) = (
        played_nominally(task, goals),
        player(task)(changed, goals),
    )
    assert np.isfinite(after[0]).all() and np.isfinite(after[1]).all()
    names = [
        name
        for name, a, b in zip(("seen", "reward", "ends"), before, after, strict=True)
        if (np.asarray(a) != np.asarray(b)).any()
    ]
    return set(names) | (
        {"first"} if (np.asarray(first) != np.asarray(first_after)).any() else set()
    )


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def changed_fields(params, other):
    return {f for f, x in vars(params).items() if f != "noise" and np.any(x != getattr(other, f))}


def test_all_that_fit_are_tested():
    fitting = lambda task, name: any(
        variant.lacks(nominal(task)[1]) is None for variant in perturbations.variants(name)
    )
    found = {(t, n) for t in TASKS for n in perturbations.names() if fitting(t, n)}
    expected = {(task, name) for task, name, *_ in EXPECTED}
    noises = {(t, n) for t in TASKS for n in NOISE if n != "action_noise" or t in BOXES}
    noises -= {(t, "observation_noise") for t in TASKS if "MinAtar" in t}
    assert found == expected | noises


@every
def test_declarations_and_what_each_changes(task, name, high, changes):
    _, params = nominal(task)
    entry = perturbations.get(name, params)
    assert entry.range(params) == (0, high)
    assert entry.category == ("shifts" if name.startswith("goal_shift") else "dynamics")
    keys = jax.random.split(jax.random.key(0), 8)
    drawn = jax.vmap(lambda key: perturb(key, params, name, high))(keys)
    one = jax.tree.map(lambda x: x[0], drawn)
    assert changed_fields(params, one) == changes
    several = {f for f in changes if len(np.unique(getattr(drawn, f), axis=0)) > 1}
    assert several == (changes if entry.instances_distinct else set())
    assert entry.stratified == (name.removesuffix("_exact") in TWO_SIDED)
    for bad in (-0.1, high * 1.2):
        with pytest.raises(EntrobError, match=rf"in 0\.\.{high:g}, not"):
            perturb(jax.random.key(0), params, name, bad)


@every
def test_magnitude_0_is_the_identity_bit_for_bit(task, name, high, changes):
    _, params = nominal(task)
    for before in (params, busy(task)):
        same_bits(perturb(jax.random.key(2), before, name, 0), before)
        same_bits(compiled(task, name)(jax.random.key(2), before, 0.0), before)


@every
def test_one_compilation_serves_all_magnitudes_and_keys(task, name, high, changes):
    _, params = nominal(task)
    draw = lambda seed, m: compiled(task, name)(jax.random.key(seed), params, float(m))
    drawn = [draw(0, 0)]
    programs = compiled(task, name)._cache_size()
    drawn += [draw(1, 1), draw(2, high)]
    assert compiled(task, name)._cache_size() == programs
    assert [changed_fields(params, one) for one in drawn] == [set(), changes, changes]


@every
def test_each_is_felt(task, name, high, changes):
    """No knob is a param that the task ignores: something seen, paid or ended is another."""
    goals = name.startswith("goal_shift")
    felt = set()
    entry = perturbations.get(name, nominal(task)[1])
    for key in instance_keys(jax.random.key(0), entry, 4):  # both signs
        changed = compiled(task, name)(key, nominal(task)[1], float(high))
        differs_here = differs(task, changed, goals)
        felt |= differs_here
        assert goals or "seen" in differs_here
    assert "first" not in felt  # none of them changes where an episode begins
    if goals:
        # The goal is not observed: the car's and the acrobot's end is, the robot's reward.
        assert "reward" in felt if task == "PointRobot-misc" else "ends" in felt


@pytest.mark.parametrize("task", TASKS)
def test_noise_that_is_off_changes_nothing(task):
    _, params = nominal(task)
    unfit = {"action_noise"} | ({"observation_noise"} if "MinAtar" in task else set())
    zeros = compose(jax.random.key(0), params, [(n, 0) for n in NOISE if n not in unfit])
    assert differs(task, zeros) == set()


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("task", TASKS)
def test_each_noise_is_felt(task, name):
    _, params = nominal(task)
    if name == "action_noise" and task not in BOXES:
        with pytest.raises(EntrobError, match="the actions of this environment are no box"):
            perturb(jax.random.key(0), params, name, 0.5)
        return
    if name == "observation_noise" and "MinAtar" in task:
        with pytest.raises(EntrobError, match="does not declare its observation_spread"):
            perturb(jax.random.key(0), params, name, 0.1)
        return
    changed = perturb(jax.random.key(0), params, name, NOISE[name])
    felt = differs(task, changed)
    if name == "reward_noise":
        assert felt == {"reward"}
    elif name.startswith("observation"):
        assert {"seen"} <= felt <= {"seen", "first"}
    else:
        assert "seen" in felt and "first" not in felt


RATIOS = {"CartPole-v1": ("gravity", "gravity"), "Pendulum-v1": ("mass", "m")}
SHIFTS = {"Acrobot-v1": "goal_height", "MountainCar-v0": "goal_position"}
SHIFTS |= {"PointRobot-misc": "goal_rotation"}


def drawn(task, name, magnitude, field, count=16):
    """A param's values over the instances of a test."""
    _, params = nominal(task)
    keys = instance_keys(jax.random.key(7), perturbations.get(name, params), count)
    changed = jax.vmap(lambda key: perturb(key, params, name, magnitude))(keys)
    return np.asarray(getattr(changed, field)), float(getattr(params, field))


@pytest.mark.parametrize("task", RATIOS)
def test_factors_are_log_uniform_and_go_both_ways_equally_often(task):
    name, field = RATIOS[task]
    values, before = drawn(task, name, 1.0, field)
    exponents = np.sort(np.log2(values / before))
    assert len(np.unique(values)) == 16 and (exponents > 0).sum() == 8
    # One in each sixteenth of -1..1.
    assert (np.floor(8 * (exponents + 1)) == np.arange(16)).all()
    ends, before = drawn(task, f"{name}_exact", 1.0, field)
    assert sorted(np.round(ends / before, 5)) == [0.5] * 8 + [2.0] * 8


@pytest.mark.parametrize("task", SHIFTS)
def test_goals_go_both_ways_equally_often(task):
    values, before = drawn(task, "goal_shift", 0.08, SHIFTS[task])
    moved = np.sort(values - before)
    assert len(np.unique(values)) == 16 and (moved > 0).sum() == 8
    assert 0.065 < -moved[0] <= 0.08 and 0.065 < moved[-1] <= 0.08
    ends, before = drawn(task, "goal_shift_exact", 0.08, SHIFTS[task])
    assert sorted(np.round(ends - before, 5)) == [-0.08] * 8 + [0.08] * 8


def test_the_derived_params_of_cartpole_follow():
    _, params = nominal("CartPole-v1")
    for name, field in (("mass", "masspole"), ("length", "length")):
        for seed in range(4):
            changed = perturb(jax.random.key(seed), params, f"{name}_exact", 2)
            factor = float(getattr(changed, field) / getattr(params, field))
            assert factor == pytest.approx(3) or factor == pytest.approx(1 / 3)
            between = perturb(jax.random.key(seed), params, name, 2)
            assert 1 / 3 < getattr(between, field) / getattr(params, field) < 3
            masses = changed.masscart + changed.masspole
            np.testing.assert_allclose(changed.total_mass, masses, rtol=1e-7)
            moment = changed.masspole * changed.length
            np.testing.assert_allclose(changed.polemass_length, moment, rtol=1e-7)


def test_intervals_of_the_games_stay_whole_and_above_0():
    for task, name, high, (field,) in [e for e in EXPECTED if "MinAtar" in e[0]]:
        _, params = nominal(task)
        twice = compose(jax.random.key(0), params, [(name, high), (name, high)])
        assert getattr(twice, field).dtype == jnp.int32 and getattr(twice, field) >= 1


@pytest.mark.parametrize("sooner", [1, 4])
def test_asterixs_enemies_never_stop(sooner):
    """The game gets faster as it goes on; an interval of 0 would stop it."""
    env, params = nominal("Asterix-MinAtar")
    faster = perturb(jax.random.key(0), params, "enemy_speed", sooner)

    def step(state, key):
        _, state, *_ = env.step_env(key, state, 0, faster)
        return state, state.move_timer

    _, state = env.reset_env(jax.random.key(0), faster)
    _, timer = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(
        state, jax.random.split(jax.random.key(1), 2000)
    )
    assert timer.min() == 0 and (timer[-20:] == 0).sum() >= 4


def test_the_robots_goals_turn_by_the_angle():
    env, params = nominal("PointRobot-misc")
    angle = lambda p, key: np.arctan2(*np.asarray(env.reset(key, p)[1].goal)[::-1])
    for seed in range(4):
        changed = perturb(jax.random.key(seed), params, "goal_shift_exact", 0.5)
        key = jax.random.key(seed + 10)
        assert abs(angle(changed, key) - angle(params, key)) == pytest.approx(0.5, abs=1e-5)
        fixed = changed.replace(goal_spread=jnp.float32(0.0))
        assert abs(angle(fixed, key) - np.pi / 2) == pytest.approx(0.5, abs=1e-5)
