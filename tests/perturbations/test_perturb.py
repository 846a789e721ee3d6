"""What holds for every perturbation: identity at 0, ranges, registry, composition, bad input."""

import functools

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.perturbations import (
    compose,
    instance_keys,
    needs_noise,
    perturb,
    perturbation,
    perturbations,
    stratum,
)

# Those of a grid, as the issue and the paper declare them; test_physics.py has the others.
EXPECTED = {  # name: (low, high, the paper's magnitude)
    "wall": (0, 8, 6),
    "elbow": (0, 5, 5),
    "goal_shift": (0, 7, 7),
    "start_shift": (0, 7, None),
    "random_walls": (0, 20, 7),
    "blocked_route": (0, 4, None),
    "wall_mirrored": (0, 8, None),
    "elbow_mirrored": (0, 5, None),
    "blocked_route_mirrored": (0, 4, None),
    "slip": (0, 1, None),
    "sticky_action": (0, 1, None),
    "observation_dropout": (0, 1, None),
    "reward_noise": (0, 10, None),
    "action_delay": (0, 3, None),
}


@pytest.fixture(scope="module")
def nominal():
    """Params that every perturbation of a grid can act on."""
    return jax.tree.map(jnp.asarray, make("minigrid/empty-8x8", noise=True)[1])


@pytest.fixture(scope="module")
def busy(nominal):
    """Away from the defaults: walls standing, noise on, start and goal elsewhere."""
    steps = [(name, (high + 1) // 2) for name, (_, high, _) in EXPECTED.items() if high > 1]
    steps += [("slip", 0.1), ("sticky_action", 0.3), ("observation_dropout", 0.7)]
    return jax.jit(lambda params: compose(jax.random.key(9), params, steps))(nominal)


@functools.cache
def compiled(name):
    """One program for all keys, params and magnitudes."""
    return jax.jit(lambda key, params, magnitude: perturb(key, params, name, magnitude))


def draw(name, seed, params, magnitude):
    return compiled(name)(jax.random.key(seed), params, np.float32(magnitude))


@pytest.fixture
def registered():
    """Register perturbations for one test only."""
    before = dict(perturbations._entries)
    yield perturbation
    perturbations._entries.clear()
    perturbations._entries.update(before)


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.result_type(x) == jnp.result_type(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_declarations(nominal):
    everything = {name: perturbations.get(name) for name in perturbations.names()}
    declared = {name: p for name, p in everything.items() if p.lacks(nominal) is None}
    assert {n: (p.low, p.high, p.paper) for n, p in declared.items()} == EXPECTED
    routes = {"wall", "elbow", "blocked_route"}
    classes = {
        "routes": routes | {f"{name}_mirrored" for name in routes},
        "random walls": {"random_walls"},
        "shifts": {"goal_shift", "start_shift"},
        "action noise": {"slip", "sticky_action", "action_delay"},
        "observation noise": {"observation_dropout", "reward_noise"},
    }
    for category, names in classes.items():
        assert {n for n, p in declared.items() if p.category == category} == names
    assert {n for n, p in declared.items() if p.stratified} == {f"{n}_mirrored" for n in routes}
    assert {n for n, p in declared.items() if p.training_only} == {"reward_noise"}
    assert {n for n, p in declared.items() if "noise" in p.requires} == {
        n for n, p in declared.items() if not p.instances_distinct
    }
    assert all(p.doc.endswith(".") for p in everything.values())


@pytest.mark.parametrize("name", EXPECTED)
def test_the_range_of_the_paper_grid_is_the_declared_one(name, nominal):
    assert perturbations.get(name).range(nominal) == EXPECTED[name][:2]


@pytest.mark.parametrize("name", EXPECTED)
def test_magnitude_0_is_the_identity_bit_for_bit(name, nominal, busy):
    same_bits(perturb(jax.random.key(0), nominal, name, 0), nominal)
    for params in (nominal, busy):
        for seed in range(5):
            same_bits(draw(name, seed, params, 0), params)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_largest_magnitude_changes_something_and_keeps_the_form(name, nominal):
    changed = draw(name, 0, nominal, EXPECTED[name][1])
    chex.assert_trees_all_equal_shapes_and_dtypes(changed, nominal)
    with pytest.raises(AssertionError):
        same_bits(changed, nominal)


@pytest.mark.parametrize("name", EXPECTED)
def test_one_compilation_serves_all_magnitudes_and_keys(name, nominal):
    """And gives what there is without one."""
    low, high, _ = EXPECTED[name]
    draw(name, 0, nominal, low)
    programs = compiled(name)._cache_size()
    for seed, magnitude in ((1, high / 2), (2, high)):
        one = draw(name, seed, nominal, magnitude)
    assert compiled(name)._cache_size() == programs
    same_bits(one, perturb(jax.random.key(2), nominal, name, high))


@pytest.mark.parametrize("name", EXPECTED)
def test_vmap_over_magnitudes_and_keys_equals_one_at_a_time(name, nominal):
    keys = jax.random.split(jax.random.key(3), 4)
    magnitudes = np.array([0, 1, EXPECTED[name][1]], np.float32)
    several = lambda m: jax.vmap(lambda key: perturb(key, nominal, name, m))(keys)
    grid = jax.jit(jax.vmap(several))(magnitudes)
    for i, magnitude in enumerate(magnitudes):
        for j in range(4):
            cell = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], grid)
            same_bits(cell, compiled(name)(keys[j], nominal, magnitude))


def test_the_same_key_draws_the_same_instance_and_others_differ(nominal):
    drawn = [draw("random_walls", seed, nominal, 7).walls for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_compose_goes_left_to_right_with_keys_by_position(nominal):
    key = jax.random.key(5)
    steps = [("start_shift", 7), ("wall", 6), ("goal_shift", 3)]
    by_hand = nominal
    for i, (name, magnitude) in enumerate(steps):
        by_hand = perturb(jax.random.fold_in(key, i), by_hand, name, magnitude)
    same_bits(compose(key, nominal, steps), by_hand)
    same_bits(compose(key, nominal, []), nominal)
    # A step that is off leaves the draws of the others alone, and equal names draw apart.
    off = compose(key, nominal, [("start_shift", 0), ("wall", 6)])
    np.testing.assert_array_equal(
        off.walls, perturb(jax.random.fold_in(key, 1), nominal, "wall", 6).walls
    )
    twice = jax.vmap(lambda key: compose(key, nominal, [("wall", 8), ("wall", 8)]).walls.sum())
    # Two walls of the whole height, in two columns.
    assert max(twice(jax.random.split(jax.random.key(0), 20))) == 36 + 16


def test_equal_noises_compose_as_independent_events(nominal):
    key = jax.random.key(0)
    for name in ("slip", "sticky_action", "observation_dropout"):
        both = compose(key, nominal, [(name, 0.5), (name, 0.2)])
        np.testing.assert_allclose(getattr(both.noise, name), 0.6, rtol=1e-6)
    both = compose(key, nominal, [("reward_noise", 3), ("reward_noise", 4)])
    np.testing.assert_allclose(both.noise.reward_noise, 5.0, rtol=1e-6)


def test_a_user_perturbation(registered, nominal):
    @registered("later", high=3.0, integer=True)
    def later(key, params, magnitude):
        """Truncate later.

        More text.
        """
        steps = params.max_steps_in_episode + (1 + magnitude).astype(jnp.int32)
        return params.replace(max_steps_in_episode=steps)

    assert perturbations.get("later").doc == "Truncate later."
    key = jax.random.key(0)
    assert perturb(key, nominal, "later", 3).max_steps_in_episode == 204
    # The function forgot to be the identity at 0; perturb sees to it.
    same_bits(perturb(key, nominal, "later", 0), nominal)
    with pytest.raises(EntrobError, match="registered twice"):
        registered("later")(lambda key, params, magnitude: params)


def test_one_name_serves_several_families_of_params(registered, nominal):
    cart = gymnax.make("CartPole-v1")[1]
    key = jax.random.key(0)

    @registered("grow", high=3, requires=("walls", "goal_pos"))
    def grow_room(key, params, magnitude):
        return params.replace(reward_decay=params.reward_decay + magnitude)

    @registered("grow", high=0.5, requires=("length",))
    def grow_pole(key, params, magnitude):
        return params.replace(length=params.length * (1 + magnitude))

    assert [p.fn for p in perturbations.variants("grow")] == [grow_room, grow_pole]
    assert perturbations.names().count("grow") == 1
    assert perturbations.get("grow").fn is perturbations.get("grow", nominal).fn is grow_room
    assert perturbations.get("grow", cart).fn is grow_pole
    assert perturb(key, nominal, "grow", 2).reward_decay == 2
    assert perturb(key, cart, "grow", 0.5).length == 0.75
    with pytest.raises(EntrobError, match=r"in 0\.\.0\.5, not 2"):
        perturb(key, cart, "grow", 2)
    bandit = gymnax.make("GaussianBandit-misc")[1]
    with pytest.raises(EntrobError, match="needs params with 'walls' or 'length': this env"):
        perturb(key, bandit, "grow", 0.1)


@pytest.mark.parametrize("fields", [(), ("walls",), ("walls", "goal_pos", "start_pos")])
def test_two_perturbations_of_a_name_must_be_told_apart_by_their_fields(registered, fields):
    """Params with all fields of the one would always fit the other too."""
    registered("grow", requires=("walls", "goal_pos"))(lambda key, params, magnitude: params)
    with pytest.raises(EntrobError, match="'grow' is registered twice"):
        registered("grow", requires=fields)(lambda key, params, magnitude: params)


def test_a_field_that_is_none_is_lacking(registered, nominal):
    registered("deep", requires=("noise.action_noise",))(lambda key, params, magnitude: params)
    registered("flat", requires=("noise.slip",))(lambda key, params, magnitude: params)
    assert nominal.noise.action_noise is None  # its actions are discrete
    assert perturbations.get("deep").lacks(nominal) == "noise.action_noise"
    assert perturbations.get("flat").lacks(nominal) is None
    assert perturbations.get("flat").lacks(nominal.goal_pos) == "noise.slip"


def test_what_needs_noise():
    assert needs_noise("slip") and needs_noise("action_noise")
    assert not needs_noise("wall") and not needs_noise("leg_failure")
    with pytest.raises(EntrobError, match="did you mean 'slip'"):
        needs_noise("slp")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda params: params.replace(max_steps_in_episode=params.max_steps_in_episode * 1.5),
        lambda params: params.replace(walls=params.walls[:5]),
        lambda params: params.goal_pos,
    ],
)
def test_a_user_perturbation_of_the_wrong_form(wrong, registered, nominal):
    registered("wrong")(lambda key, params, magnitude: wrong(params))
    with pytest.raises(EntrobError, match="'wrong' must return params of the same fields, shapes"):
        perturb(jax.random.key(0), nominal, "wrong", 1)


def test_a_category_that_is_none_and_a_reserved_name_are_refused(registered):
    same = lambda key, params, magnitude: params
    with pytest.raises(EntrobError, match="unknown category of a perturbation 'route': did you"):
        registered("detour", category="route")(same)
    with pytest.raises(EntrobError, match="no perturbation can be called 'nominal'"):
        registered("nominal")(same)


@pytest.mark.parametrize("count", [1, 2, 16, 200])
def test_the_instances_of_a_test_have_equal_shares_of_what_is_drawn_by_stratum(registered, count):
    same = lambda key, params, magnitude: params
    registered("even", stratified=True)(same)
    registered("plain")(same)
    for seed in range(3):
        key = jax.random.key(seed)
        keys = instance_keys(key, perturbations.get("even"), count)
        where = np.asarray(jax.vmap(stratum)(keys))
        assert sorted(np.floor(count * where)) == list(range(count))
        # In random order: the first tenth of the instances is no tenth of the range.
        assert count < 200 or np.ptp(where[:20]) > 0.5
        data = np.asarray(jax.random.key_data(keys))
        assert len(np.unique(data, axis=0)) == count
        # What is drawn of such a key otherwise is no less random than of any.
        assert count < 200 or 0.4 < np.mean(jax.vmap(jax.random.uniform)(keys)) < 0.6
        plain = instance_keys(key, perturbations.get("plain"), count)
        assert (
            jax.random.key_data(plain) == jax.random.key_data(jax.random.split(key, count))
        ).all()


def test_a_range_without_0_is_refused(registered):
    with pytest.raises(EntrobError, match="must contain 0"):
        registered("never_off", low=1.0, high=2.0)(lambda key, params, magnitude: params)


BAD = [
    ("wal", 6, "unknown perturbation 'wal': did you mean 'wall'?"),
    ("wall", 9, "'wall' must be a whole number in 0..8, not 9"),
    ("wall", -1, "in 0..8, not -1"),
    ("wall", 2.5, "must be a whole number in 0..8, not 2.5"),
    ("wall", float("nan"), "not nan"),
    ("wall", float("inf"), "not inf"),
    ("wall", "6", "not '6'"),
    ("wall", None, "not None"),
    ("wall", [1, 2], r"not \[1, 2\]"),
    ("wall", np.arange(200).reshape(2, 100), "must be a whole number"),
    ("random_walls", jnp.array(21), "in 0..20, not Array"),
    ("slip", 1.01, "'slip' must be a number in 0..1, not 1.01"),
]


@pytest.mark.parametrize(("name", "magnitude", "message"), BAD)
def test_bad_input_is_one_clear_line(name, magnitude, message, nominal):
    with pytest.raises(EntrobError, match=message) as caught:
        perturb(jax.random.key(0), nominal, name, magnitude)
    assert "\n" not in str(caught.value)


def test_params_that_lack_what_is_perturbed():
    _, bare = make("minigrid/empty-8x8")
    key = jax.random.key(0)
    for name in ("slip", "sticky_action", "observation_dropout", "reward_noise"):
        with pytest.raises(EntrobError, match=r"entrob\.make\(id, noise=True\)"):
            perturb(key, bare, name, 0.1)
    from gymnax.environments.classic_control.cartpole import CartPole

    for name in ("wall", "elbow", "goal_shift", "start_shift", "random_walls"):
        with pytest.raises(EntrobError, match=f"{name!r} needs params with 'walls'"):
            perturb(key, CartPole().default_params, name, 1)
