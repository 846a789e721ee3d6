"""Domain randomization: another instance in every episode, seen by everything of that episode."""

import functools

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment
from scipy import stats

from entrob.compiling import compiler_options
from entrob.envs import entropy_features, make
from entrob.envs.minigrid import MiniGrid
from entrob.envs.wrappers import with_noise
from entrob.errors import EntrobError
from entrob.perturbations import perturb, with_mixture, with_randomization
from entrob.perturbations.randomization import Range

ID = "minigrid/empty-8x8"
# Quick to compile and slow to run, which suits a test.
QUICK = compiler_options() | {"xla_backend_optimization_level": 0}


quick_jit = functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)


@functools.cache
def plain():
    return make(ID)


@functools.cache
def walled():
    """The room with a wall of 0..8 cells, redrawn in every episode of ten steps."""
    env, params = plain()
    params = params.replace(max_steps_in_episode=jnp.array(10, jnp.int32))
    return with_randomization(env, params, "wall", 0, 8)


def with_range(params, low, high, name="wall"):
    return params.replace(randomization={name: Range(jnp.float32(low), jnp.float32(high))})


@quick_jit
def reset_many(env, keys, params):
    return jax.vmap(env.reset, (0, None))(keys, params)


@quick_jit
def rollout(env, params, actions):
    def step(state, inputs):
        key, action = inputs
        observation, after, *rest = env.step(key, state, action, params)
        return after, (after, observation, *rest)

    observation, state = env.reset(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(1), len(actions))
    return observation, state, jax.lax.scan(step, state, (keys, actions))[1]


def cells(walls):
    """Number of cells that are walled up: int[...]."""
    return np.asarray(walls).sum((-2, -1)) - 36


def test_magnitudes_and_instances_are_uniform_over_the_range():
    env, params = walled()
    keys = jax.random.split(jax.random.key(0), 3600)
    drawn = reset_many(env, keys, params)[1].drawn
    sizes, counts = np.unique(cells(drawn.walls), return_counts=True)
    np.testing.assert_array_equal(sizes, np.arange(9))  # both ends included
    assert stats.chisquare(counts).pvalue > 1e-3
    column = np.argmax(np.asarray(drawn.walls)[cells(drawn.walls) > 0, 1:-1, 1], 1) + 1
    columns, counts = np.unique(column, return_counts=True)
    np.testing.assert_array_equal(columns, np.arange(2, 8))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_range_is_a_traced_leaf():
    env, params = walled()
    keys = jax.random.split(jax.random.key(0), 200)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @chex.assert_max_traces(n=1)
    def sizes(low, high):
        reset = jax.vmap(env.reset, (0, None))
        return reset(keys, with_range(params, low, high))[1].drawn.walls

    assert set(cells(sizes(3, 5))) == {3, 4, 5}
    assert set(cells(sizes(8, 8))) == {8}
    assert set(cells(sizes(0, 0))) == {0}
    chex.clear_trace_counter()


def test_at_0_it_is_the_plain_environment_bit_for_bit():
    env, nominal = plain()
    nominal = nominal.replace(max_steps_in_episode=jnp.array(10, jnp.int32))
    random_env, params = walled()
    actions = jax.random.randint(jax.random.key(2), (60,), 0, 3)
    expected = rollout(env, nominal, actions)
    got = rollout(random_env, with_range(params, 0, 0), actions)
    assert np.asarray(got[2][4]).sum() == 6  # it was reset on the way

    def leaves(tree):
        return [
            (jax.tree_util.keystr(path), jnp.result_type(leaf), np.asarray(leaf).tobytes())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if ".drawn" not in jax.tree_util.keystr(path)
        ]

    assert leaves(got) == leaves(expected)
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (60, *jnp.shape(leaf))), nominal)
    chex.assert_trees_all_equal(got[2][0].drawn, each)


def test_the_drawn_layout_lasts_an_episode_and_another_follows():
    env, params = walled()
    turning = jnp.zeros(60, jnp.int32)
    _, first, (after, _, _, _, truncated, _) = rollout(env, params, turning)
    walls = np.concatenate([np.asarray(first.drawn.walls)[None], np.asarray(after.drawn.walls)])
    differs = (walls[1:] != walls[:-1]).any((1, 2))
    ended = np.asarray(truncated)
    assert ended.sum() == 6
    assert not differs[~ended].any()
    assert differs[ended].sum() >= 4  # two neighbors in time may draw the same


def test_steps_and_observations_are_those_of_the_drawn_params():
    env, params = walled()
    bare, _ = plain()
    step = jax.jit(jax.vmap(env.step_env, (None, 0, None, None)), compiler_options=QUICK)
    bare_step = jax.jit(jax.vmap(bare.step_env, (None, 0, None, 0)), compiler_options=QUICK)
    keys = jax.random.split(jax.random.key(3), 64)
    _, state = reset_many(env, keys, with_range(params, 6, 6))
    key, forward = jax.random.key(0), 2
    blocked = 0
    for _ in range(6):
        fields = {name: getattr(state, name) for name in ("time", "pos", "dir")}
        native = bare.reset_env(key, plain()[1])[1].replace(**fields)
        expected = bare_step(key, native, forward, state.drawn)
        stepped = step(key, state, forward, params)
        np.testing.assert_array_equal(stepped[0], expected[0])
        np.testing.assert_array_equal(stepped[1].pos, expected[1].pos)
        chex.assert_trees_all_equal(stepped[1].drawn, state.drawn)
        blocked += (np.asarray(stepped[1].pos) == np.asarray(state.pos)).all(-1).sum()
        state = stepped[1]
    assert blocked > 20
    seen = jax.vmap(lambda s: env.get_obs(s, params))(state)
    np.testing.assert_array_equal(seen, stepped[0])


def test_what_reads_a_state_sees_the_drawn_params():
    env, params = with_randomization(*plain(), "goal_shift", 7, 7)
    keys = jax.random.split(jax.random.key(4), 20)
    state = reset_many(env, keys, params)[1]
    assert (state.drawn.goal_pos != params.goal_pos).any()
    on_goal = state.replace(pos=state.drawn.goal_pos)
    success = jax.vmap(lambda s: env.is_success(s, params))
    assert success(on_goal).all()
    elsewhere = (np.asarray(state.drawn.goal_pos) != np.asarray(params.goal_pos)).any(-1)
    on_nominal = state.replace(pos=jnp.tile(params.goal_pos, (20, 1)))
    np.testing.assert_array_equal(success(on_nominal), ~elsewhere)
    features = entropy_features(env, jax.tree.map(lambda x: x[0], on_goal), None, params)
    np.testing.assert_array_equal(features[:2], state.drawn.goal_pos[0])


@struct.dataclass
class TrackState(environment.EnvState):
    time: int


@struct.dataclass
class TrackParams(environment.EnvParams):
    length: float = 1.0
    max_steps_in_episode: int = 5


class Track(environment.Environment):
    """Everything that it computes shows the params that it was given."""

    @property
    def default_params(self):
        return TrackParams()

    def reset_env(self, key, params):
        return jnp.float32(params.length), TrackState(jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        length = jnp.float32(params.length)
        return length, state, length, length < 0, {}

    def action_space(self, params):
        return gymnax.environments.spaces.Discrete(2)

    def is_truncated(self, state, params):
        return state.time >= params.length

    def is_success(self, state, params):
        return params.length

    def entropy_features(self, state, params):
        return params.length

    def trace(self, state, params=None):
        return None if params is None else params.length


@pytest.fixture
def longer():
    from entrob.perturbations import perturbation, perturbations

    before = dict(perturbations._entries)
    perturbation("longer", high=9.0, requires=("length",))(
        lambda key, params, magnitude: params.replace(length=params.length + magnitude)
    )
    yield
    perturbations._entries.clear()
    perturbations._entries.update(before)


def test_every_reader_is_given_the_drawn_params(longer):
    env, params = with_randomization(Track(), TrackParams(), "longer", 2, 7)
    observation, state = env.reset(jax.random.key(0), params)
    length = state.drawn.length
    assert 3 <= length <= 8 and length != jnp.floor(length)  # real numbers, not whole ones
    assert observation == length
    assert env.step_env(jax.random.key(0), state, 0, params)[2] == length
    for read in (env.is_success, env.entropy_features, env.trace):
        assert read(state, params) == read(state, params=params) == length
    assert env.trace(state) is None  # asked without params, it is given none
    for time in range(10):
        late = state.replace(time=time)
        assert env.is_truncated(late, params) == (time >= length)
    assert not hasattr(env, "is_finished")


def test_the_time_limit_of_the_drawn_params_ends_episodes(longer):
    """gymnax's `step` decides about the reset by `is_truncated`."""
    env, params = with_randomization(Track(), TrackParams(), "longer", 2, 7)
    _, first, (after, _, _, _, truncated, _) = rollout(env, params, jnp.zeros(60, jnp.int32))
    ends = np.flatnonzero(truncated)
    lengths = np.ceil([first.drawn.length, *np.asarray(after.drawn.length)[ends[:-1]]])
    np.testing.assert_array_equal(np.diff([-1, *ends]), lengths)
    assert len(set(lengths)) > 2


def test_several_perturbations_are_drawn_independently():
    env, params = with_randomization(*plain(), "wall", 1, 8)
    env, params = with_randomization(env, params, "start_shift", 0, 7)
    assert set(params.randomization) == {"wall", "start_shift"}
    keys = jax.random.split(jax.random.key(5), 2000)
    drawn = reset_many(env, keys, params)[1].drawn
    # A start within the column of the wall takes a cell of it away.
    assert set(cells(drawn.walls)) <= set(range(9))
    moved = (np.asarray(drawn.start_pos) != 1).any(-1)
    assert 0.5 < moved.mean() < 1
    assert abs(np.corrcoef(moved, cells(drawn.walls))[0, 1]) < 4.5 / np.sqrt(2000)
    assert type(env).__mro__.count(MiniGrid) == 1
    still = with_range(params, 0, 0).replace(randomization={
        name: Range(jnp.float32(0), jnp.float32(0)) for name in params.randomization
    })  # fmt: skip
    assert (cells(reset_many(env, keys, still)[1].drawn.walls) == 0).all()


def test_noise_can_be_randomized():
    env, params = with_randomization(*make(ID, noise=True), "slip", 0.25, 0.75)
    keys = jax.random.split(jax.random.key(6), 500)
    slip = np.asarray(reset_many(env, keys, params)[1].drawn.noise.slip)
    assert stats.kstest(slip, stats.uniform(0.25, 0.5).cdf).pvalue > 1e-3
    _, _, (after, *_) = rollout(env, params, jnp.zeros(100, jnp.int32))
    assert 0.1 < (np.asarray(after.executed_action) != 0).mean() < 0.6


def test_it_is_the_same_environment_and_more():
    bare_env, bare = plain()
    env, params = with_randomization(bare_env, bare, "wall", 2, 6)
    assert isinstance(env, MiniGrid) and isinstance(params, type(bare))
    assert (env.name, env.view, env.num_actions) == (bare_env.name, bare_env.view, 3)
    assert bare_env.finite and not env.finite
    chex.assert_trees_all_equal(env.default_params, params)
    again = with_randomization(bare_env, bare, "wall", 2, 6)
    assert type(again[0]) is type(env) and type(again[1]) is type(params)
    other = with_randomization(bare_env, bare, "elbow", 0, 5)[0]
    assert type(other) is not type(env)  # what is compiled for the one does not fit the other
    cart = with_randomization(*with_noise(*gymnax.make("CartPole-v1")), "slip", 0, 1)[0]
    assert cart.entropy_features is None and cart.trace is None  # as adopted, and no readers


def test_the_same_key_draws_the_same_instance_as_perturb():
    env, params = with_randomization(*plain(), "wall", 6, 6)
    states = reset_many(env, jax.random.split(jax.random.key(7), 50), params)[1]
    keys = jax.random.split(jax.random.key(8), 200)
    possible = jax.jit(jax.vmap(lambda k: perturb(k, plain()[1], "wall", 6)))(keys).walls
    possible = {np.asarray(walls).tobytes() for walls in possible}
    assert {np.asarray(walls).tobytes() for walls in states.drawn.walls} == possible


@pytest.mark.parametrize(
    ("name", "low", "high", "words"),
    [
        ("wal", 0, 1, "did you mean 'wall'"),
        ("slip", 0, 1, r"entrob\.make\(id, noise=True\)"),
        ("hurdle", 0, 0.3, "needs params with 'wall_height'"),
        ("wall", 0, 9, r"must be a whole number in 0\.\.8, not 9"),
        ("wall", 0.5, 3, "must be a whole number"),
        ("wall", 3, 2, "cannot draw 'wall' from 3 to 2: the range is empty"),
    ],
)
def test_bad_input_is_one_clear_line(name, low, high, words):
    with pytest.raises(EntrobError, match=words) as caught:
        with_randomization(*plain(), name, low, high)
    assert "\n" not in str(caught.value)


def test_once_per_name_and_after_the_noise():
    env, params = walled()
    with pytest.raises(EntrobError, match="'wall' is randomized already"):
        with_randomization(env, params, "wall", 0, 1)
    with pytest.raises(EntrobError, match="must be given noise before it is randomized"):
        with_randomization(*with_noise(env, params), "slip", 0, 1)


@functools.cache
def mixed():
    """Walls of two heights and a noise, one in each episode."""
    env, params = make(ID, noise=True)
    cells = [("wall", 2), ("slip", 0.3), ("wall", 5)]
    return with_mixture(env, params, cells)


def weighted(params, *weights):
    mixture = params.randomization.replace(weight=jnp.float32(weights))
    return params.replace(randomization=mixture)


def test_an_episode_of_a_mixture_has_one_of_its_perturbations_in_equal_shares():
    env, params = mixed()
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = reset_many(env, keys, params)[1].drawn
    found, counts = np.unique(
        np.stack([cells(drawn.walls), np.round(np.asarray(drawn.noise.slip), 3)]),
        axis=1,
        return_counts=True,
    )
    np.testing.assert_allclose(sorted(found.T.tolist()), [[0, 0.3], [2, 0], [5, 0]], atol=1e-6)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("weights", "cell"), [((1, 0, 0), (2, 0)), ((0, 2, 0), (0, 0.3))])
def test_one_weight_leaves_one_perturbation(weights, cell):
    env, params = mixed()
    keys = jax.random.split(jax.random.key(1), 100)
    drawn = reset_many(env, keys, weighted(params, *weights))[1].drawn
    assert (cells(drawn.walls) == cell[0]).all()
    np.testing.assert_allclose(drawn.noise.slip, cell[1])


def test_what_is_no_mixture_is_named():
    env, params = make(ID, noise=True)
    with pytest.raises(EntrobError, match="at least one perturbation"):
        with_mixture(env, params, [])
    with pytest.raises(EntrobError, match=r"must be a number in 0\.\.1, not 2"):
        with_mixture(env, params, [("slip", 2)])
    with pytest.raises(EntrobError, match="is randomized already"):
        with_mixture(*mixed(), [("wall", 2)])
