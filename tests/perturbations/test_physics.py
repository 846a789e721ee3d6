"""Perturbations of bodies and forces: what they make of the params of Pusher and Ant.

What that does to the motion is tested in test_physics_reach.py.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.perturbations import compose, perturb, perturbations

PUSHER, ANT = make("mujoco/pusher")[1], make("mujoco/ant")[1]
# Of Pusher's joints, in radians; the elbow and the wrist begin at an end.
RANGE = [[-2.2854, 1.714602], [-0.5236, 1.3963], [-1.5, 1.7], [-2.3213, 0], [-1.5, 1.5]]
RANGE += [[-1.094, 0], [-1.5, 1.5]]
EXPECTED = [  # nominal params, name, largest and the paper's magnitude, what it changes
    (PUSHER, "wall", 2, 1, {"block_size", "block_on"}),
    (PUSHER, "goal_shift", 0.2, 0.15, {"goal_pos"}),
    (PUSHER, "joint_damping", 9, None, {"joint_damping"}),
    (PUSHER, "joint_range", 0.5, None, {"joint_range"}),
    (PUSHER, "puck_mass", 4, None, {"puck_mass"}),
    (PUSHER, "actuator_gain", 1, None, {"actuator_gain"}),
    (ANT, "actuator_gain", 1, None, {"actuator_gain"}),
    (ANT, "hurdle", 0.6, 0.3, {"wall_height"}),
    (ANT, "leg_failure", 1, None, {"actuator_gain"}),
    (ANT, "friction", 0.9, None, {"friction"}),
    (ANT, "torso_mass", 2, None, {"torso_mass"}),
]
IDS = [f"{type(params).__name__.removesuffix('Params')}-{name}" for params, name, *_ in EXPECTED]
every = pytest.mark.parametrize(("params", "name", "high", "paper", "changes"), EXPECTED, ids=IDS)


@functools.partial(jax.jit, static_argnames="name")
def draw_all(keys, params, name, magnitude):
    return jax.vmap(lambda key: perturb(key, params, name, magnitude))(keys)


def draw(params, name, magnitude, n):
    """Params of n instances, stacked."""
    return draw_all(jax.random.split(jax.random.key(0), n), params, name, magnitude)


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.result_type(x) == jnp.result_type(y)
        assert jnp.asarray(x).tobytes() == jnp.asarray(y).tobytes()


def changed(params, other):
    """Names of the fields in which two params differ."""
    names = vars(params)
    return {f for f in names if np.any(np.asarray(names[f]) != np.asarray(getattr(other, f)))}


def inside_a_block(params, point, slack=0.0):
    """Whether a point is within the sides of a block, by more than the slack: bool[...]."""
    offset = np.abs(np.asarray(point)[..., None, :] - np.asarray(params.block_pos))
    return (offset < np.asarray(params.block_size) - slack).all(-1).any(-1)


@every
def test_declarations_and_what_each_changes(params, name, high, paper, changes):
    entry = perturbations.get(name, params)
    assert (entry.range(params), entry.paper) == ((0, high), paper)
    assert changed(params, perturb(jax.random.key(0), params, name, high)) == changes
    # Different keys are different instances exactly where that is declared.
    drawn = draw(params, name, high, 8)
    distinct = {np.asarray(x).tobytes() for f in changes for x in getattr(drawn, f)}
    assert (len(distinct) > len(changes)) == entry.instances_distinct
    for bad in (-0.1, high * 1.01):
        with pytest.raises(EntrobError, match=f"must be a number in 0..{high:g}"):
            perturb(jax.random.key(0), params, name, bad)


@every
def test_magnitude_0_is_the_identity_bit_for_bit(params, name, high, paper, changes):
    others = [(n, h / 3) for p, n, h, *_ in EXPECTED if p is params]
    busy = compose(jax.random.key(1), params, others)
    traced = jax.jit(lambda key, params, m: perturb(key, params, name, m))
    for nominal in (params, busy):
        same_bits(perturb(jax.random.key(2), nominal, name, 0), nominal)
        same_bits(traced(jax.random.key(2), nominal, 0.0), nominal)


@every
def test_one_compilation_serves_all_magnitudes_and_keys(params, name, high, paper, changes):
    one = jax.jit(chex.assert_max_traces(lambda key, m: perturb(key, params, name, m), n=1))
    keys = jax.random.split(jax.random.key(3), 3)
    magnitudes = jnp.array([0.0, high / 3, high])
    grid = jax.jit(jax.vmap(lambda m: jax.vmap(lambda k: perturb(k, params, name, m))(keys)))
    cells = grid(magnitudes)
    for i, magnitude in enumerate(magnitudes):
        for j, key in enumerate(keys):
            cell = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], cells)
            chex.assert_trees_all_close(one(key, magnitude), cell, rtol=1e-6)
    chex.clear_trace_counter()


def test_a_name_of_grids_and_of_physics_is_chosen_by_the_params():
    _, grid = make("minigrid/empty-8x8")
    for name in ("wall", "goal_shift"):
        assert perturbations.get(name, grid) is not perturbations.get(name, PUSHER)
        assert perturbations.get(name, grid).integer
    with pytest.raises(EntrobError, match="'wall' needs params with 'walls' or 'block_pos'"):
        perturb(jax.random.key(0), ANT, "wall", 1)
    with pytest.raises(EntrobError, match="'hurdle' needs params with 'wall_height': this env"):
        perturb(jax.random.key(0), PUSHER, "hurdle", 0.3)
    with pytest.raises(EntrobError, match="'leg_failure' needs params with 'torso_mass'"):
        perturb(jax.random.key(0), PUSHER, "leg_failure", 1)


@pytest.mark.parametrize(("magnitude", "width"), [(0.5, 0.015), (1, 0.03), (2, 0.06)])
def test_wall_scales_the_paper_blocks_about_their_centers(magnitude, width):
    walled = perturb(jax.random.key(0), PUSHER, "wall", magnitude)
    np.testing.assert_allclose(2 * walled.block_size, width, rtol=1e-6)
    assert walled.block_on == 1
    # Centers, and so the puck's fixed start of 5 cm radius, stay clear.
    gap = np.abs(np.array([0.65, -0.35]) - walled.block_pos) - walled.block_size
    assert np.linalg.norm(np.maximum(gap, 0), axis=-1).min() - 0.05 > 0.07


def test_a_wall_ends_at_a_goal_that_it_would_cover():
    near = PUSHER.replace(goal_pos=jnp.array([0.54, -0.2]))
    walled = perturb(jax.random.key(0), near, "wall", 2)
    assert not inside_a_block(walled, near.goal_pos, 1e-6)
    np.testing.assert_allclose(walled.block_size[:, 0], [0.03, 0.01, 0.03], rtol=1e-5)
    np.testing.assert_allclose(walled.block_size[:, 1], [0.03, 0.01, 0.03], rtol=1e-5)
    small = perturb(jax.random.key(0), near, "wall", 0.5)
    np.testing.assert_allclose(small.block_size, 0.0075, rtol=1e-5)


def test_goal_shift_is_uniform_on_the_circle_and_keeps_its_direction():
    offset = np.asarray(draw(PUSHER, "goal_shift", 0.15, 4000).goal_pos - PUSHER.goal_pos)
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), 0.15, rtol=1e-5)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    nearer = np.asarray(draw(PUSHER, "goal_shift", 0.05, 4000).goal_pos - PUSHER.goal_pos)
    np.testing.assert_allclose(nearer * 3, offset, atol=1e-6)


def test_goal_shift_avoids_blocks_that_stand_and_only_those():
    off = draw(PUSHER, "goal_shift", 0.2, 4000).goal_pos
    walled = perturb(jax.random.key(0), PUSHER, "wall", 2)
    covered = inside_a_block(walled, off)
    assert 0.01 < covered.mean() < 0.2  # so there is something to avoid
    on = draw(walled, "goal_shift", 0.2, 4000).goal_pos
    assert not inside_a_block(walled, on, 1e-6).any()
    np.testing.assert_array_equal(np.asarray(on)[~covered], np.asarray(off)[~covered])
    radius = np.linalg.norm(on - PUSHER.goal_pos, axis=1)
    np.testing.assert_allclose(radius, 0.2, rtol=1e-5)


@pytest.mark.parametrize("order", [("wall", "goal_shift"), ("goal_shift", "wall")])
def test_blocks_and_goal_stay_apart_in_either_order(order):
    strongest = {"wall": 2, "goal_shift": 0.2}
    steps = [(name, strongest[name]) for name in order]
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.jit(jax.vmap(lambda key: compose(key, PUSHER, steps)))(keys)
    offset = np.abs(np.asarray(drawn.goal_pos)[:, None] - np.asarray(drawn.block_pos))
    assert not (offset < np.asarray(drawn.block_size) - 1e-6).all(-1).any()
    assert (drawn.block_on == 1).all()


def test_joint_damping_4_is_what_the_authors_prepared_for_the_outer_joints():
    damped = perturb(jax.random.key(0), PUSHER, "joint_damping", 4).joint_damping
    np.testing.assert_allclose(damped, [5, 5, 0.5, 0.5, 0.5, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("magnitude", [0.05, 0.2, 0.5])
def test_joint_range_shrinks_and_keeps_the_start(magnitude):
    narrowed = np.asarray(perturb(jax.random.key(0), PUSHER, "joint_range", magnitude).joint_range)
    nominal = np.array(RANGE)
    assert (narrowed[:, 0] <= 0).all() and (narrowed[:, 1] >= 0).all()
    assert (narrowed[:, 0] > nominal[:, 0]).all() and (narrowed[:, 1] <= nominal[:, 1]).all()
    cut = magnitude * (nominal[:, 1] - nominal[:, 0])
    for joint in (0, 2, 4, 6):  # those that begin well inside, which shrink towards their middle
        np.testing.assert_allclose(narrowed[joint].mean(), nominal[joint].mean(), atol=1e-6)
        left = np.ptp(nominal[joint]) - cut[joint]
        np.testing.assert_allclose(np.ptp(narrowed[joint]), left, rtol=1e-5)
    for joint in (3, 5):  # the elbow and the wrist keep the end at which they begin
        expected = [nominal[joint, 0] + cut[joint] / 2, 0]
        np.testing.assert_allclose(narrowed[joint], expected, rtol=1e-5)


def test_joint_range_never_widens_a_range_that_lacks_the_start():
    odd = PUSHER.replace(joint_range=jnp.tile(jnp.array([0.5, 1.5]), (7, 1)))
    narrowed = perturb(jax.random.key(0), odd, "joint_range", 0.4).joint_range
    np.testing.assert_allclose(narrowed, np.tile([0.5, 1.3], (7, 1)), rtol=1e-5)


def test_fractions():
    key = jax.random.key(0)
    for params, name, magnitude, factor in [
        (PUSHER, "actuator_gain", 0.25, 0.75),
        (ANT, "actuator_gain", 1, 0),
        (ANT, "friction", 0.75, 0.25),
        (ANT, "torso_mass", 0.5, 1.5),
    ]:
        after = getattr(perturb(key, params, name, magnitude), name)
        np.testing.assert_allclose(after, getattr(params, name) * factor, rtol=1e-6)


def test_a_share_of_the_pucks_inertia():
    after = perturb(jax.random.key(0), PUSHER, "puck_mass", 1.5)
    inertia = [p.puck_mass + p.contact_armature for p in (PUSHER, after)]
    np.testing.assert_allclose(inertia[1], 2.5 * inertia[0], rtol=1e-6)
    assert after.contact_armature == PUSHER.contact_armature  # it is mass that was added


def test_leg_failure_takes_both_actuators_of_a_uniformly_random_leg():
    gain = np.asarray(draw(ANT, "leg_failure", 0.75, 2000).actuator_gain / ANT.actuator_gain)
    legs = gain.reshape(-1, 4, 2)
    assert (legs[..., 0] == legs[..., 1]).all()
    failed = legs[..., 0] == 0.25
    assert (failed.sum(1) == 1).all() and (legs[~failed] == 1).all()
    assert stats.chisquare(failed.sum(0)).pvalue > 1e-3
    limp = np.asarray(draw(ANT, "leg_failure", 1, 10).actuator_gain)
    assert ((limp == 0).sum(1) == 2).all()


def test_a_hurdle_is_as_high_as_its_magnitude_and_no_later_one_lowers_it():
    key = jax.random.key(0)
    np.testing.assert_allclose(perturb(key, ANT, "hurdle", 0.3).wall_height, 0.3, rtol=1e-6)
    both = compose(key, ANT, [("hurdle", 0.5), ("hurdle", 0.2)])
    np.testing.assert_allclose(both.wall_height, 0.5, rtol=1e-6)
