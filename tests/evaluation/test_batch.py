"""Evaluation of several policies on several instances: exact, sampled, paired, perturbed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.agents.model import Model
from entrob.distributions import Categorical
from entrob.envs import make
from entrob.evaluation import evaluator
from entrob.evaluation.batch import Same, distinct, evaluate, views
from entrob.persistence.store import Store, write_tree
from entrob.perturbations import perturb
from entrob.statistics.nominal import with_nominal
from entrob.sweep import measure, program
from entrob.sweep.experiment import Method
from entrob.sweep.groups import cut, group_methods, runs_of

HORIZON = 60
COUNT = 400
#: Two equal policies that choose by chance, and one that prefers to walk on.
NETS = np.float32([[0, 0, 0], [0, 0, 0], [0, 0, 2]])


def sequence(logits, carry, obs, start):
    """A policy that ignores what it sees; its parameters are the three logits."""
    shape = obs.shape[:-3]
    return Categorical(jnp.broadcast_to(logits, (*shape, 3))), jnp.zeros(shape)


BLIND = Model(
    recurrent=False,
    init=None,
    init_carry=lambda n: (),
    step=lambda logits, carry, obs, start: (*sequence(logits, carry, obs, start), carry),
    sequence=sequence,
)


@functools.partial(jax.jit, static_argnums=0)
def outcome(env, instances, seed):
    """`evaluate` on all three policies."""
    keys = jax.random.split(jax.random.key(seed), COUNT)
    return evaluate(env, BLIND, HORIZON, jnp.asarray(NETS), instances, keys)


def layouts(env_params, name, magnitude):
    """Instances of a perturbation, with the limit on steps that the tests use."""
    env_params = env_params.replace(max_steps_in_episode=jnp.int32(HORIZON))
    keys = jax.random.split(jax.random.key(1), COUNT)
    return jax.vmap(lambda k: perturb(k, env_params, name, magnitude))(keys)


@pytest.fixture(scope="module")
def minigrid():
    return make("minigrid/empty-8x8")


def small_goal(params):
    """The goal near the start, where chance reaches it now and then."""
    return params.replace(goal_pos=jnp.array([3, 2], jnp.int32))


def test_exact_success_is_the_frequency_of_sampled_success(minigrid):
    """Tolerance: four standard errors of a mean of Bernoulli variables with known means."""
    env, params = minigrid
    out = outcome(env, layouts(small_goal(params), "random_walls", 5.0), 2)
    exact, hits = np.asarray(out.exact[0]), np.asarray(out.steps_to_success[0]) > 0
    error = np.sqrt((exact * (1 - exact)).sum()) / COUNT
    assert 0.1 < exact.mean() < 0.9 and error < 0.03
    assert abs(hits.mean() - exact.mean()) < 4 * error
    # Where there is no way within the limit, neither finds one; elsewhere chance may.
    solvable = np.asarray(out.optimum) <= HORIZON
    assert not hits[~solvable].any() and not exact[~solvable].any() and (exact[solvable] > 0).all()
    steps = np.asarray(out.steps_to_success[0])
    assert (steps[hits] >= np.asarray(out.optimum)[hits]).all() and steps.max() <= HORIZON
    # Time spent within the horizon, until the goal: between the optimum and the limit.
    assert HORIZON * (1 - exact[0]) <= float(out.occupancy[0].sum()) <= HORIZON


def test_equal_policies_have_equal_episodes(minigrid):
    """The keys belong to the instances, so that methods are compared on the same luck."""
    env, params = minigrid
    instances = layouts(small_goal(params), "wall", 2.0)
    first, again, other = np.asarray(outcome(env, instances, 3).steps_to_success)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != np.asarray(outcome(env, instances, 4).steps_to_success[0])).any()


def test_noise_that_is_off_is_the_bare_environment(minigrid):
    bare, params = minigrid
    noisy, noisy_params = make("minigrid/empty-8x8", noise=True)
    wanted = outcome(bare, layouts(small_goal(params), "wall", 0.0), 5)
    found = outcome(noisy, layouts(small_goal(noisy_params), "slip", 0.0), 5)
    np.testing.assert_array_equal(found.steps_to_success, wanted.steps_to_success)
    np.testing.assert_array_equal(found.episode_return, wanted.episode_return)
    assert (np.asarray(wanted.steps_to_success) > 0).any()
    assert np.isnan(found.exact).all() and (np.asarray(found.optimum) == -1).all()
    slipping = outcome(noisy, layouts(small_goal(noisy_params), "slip", 1.0), 5)
    assert (np.asarray(slipping.steps_to_success) != np.asarray(found.steps_to_success)).any()
    # All actions replaced by random ones: which policy it was no longer matters.
    deaf = np.asarray(slipping.steps_to_success)
    np.testing.assert_array_equal(deaf[0], deaf[2])


MAGNITUDES = (4.0, 8.0)
NAMES = ["nominal", "wall", "slip"]


@pytest.fixture(scope="module")
def tested(tiny, tmp_path_factory):
    """Records of two untrained policies under walls and slips, and what was traced for that."""
    root = tmp_path_factory.mktemp("tested")
    limit = {"max_steps_in_episode": HORIZON}
    experiment = dataclasses.replace(
        tiny,
        methods=(Method("none", params=limit),),
        perturbations={"wall": MAGNITUDES, "slip": (0.25, 1.0)},
    )
    (group,) = group_methods(experiment.methods)
    (batch,) = cut(group, list(runs_of(experiment, group.methods[0])), 2)
    prog, store = program.program(experiment, group), Store(root)
    keys = jax.random.split(jax.random.key(0), 2)
    init = lambda key: prog.agent.init(key, None, prog.env_params).policy
    write_tree(store.part("policies", batch.id, ".msgpack"), jax.jit(jax.vmap(init))(keys))
    traces = {"evaluate": 0, "perturb": 0}

    def counted(name, function):
        def call(*args):
            traces[name] += 1
            return function(*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "evaluate", counted("evaluate", evaluator.evaluate))
        patch.setattr(evaluator, "perturb", counted("perturb", evaluator.perturb))
        tester = measure.Tester(experiment)
        assert tester.missing(store, batch) == NAMES
        tester.test(store, batch, prog, NAMES)
    assert tester.missing(store, batch) == [] and tester.evaluator.compile_s > 0
    return store, traces


def test_all_magnitudes_share_one_program(tested):
    """One trace of the evaluator per environment, bare and noisy; one draw per perturbation."""
    assert tested[1] == {"evaluate": 2, "perturb": 2}


def test_policies_are_tested_on_the_perturbed_layout(tested):
    """A wall over the whole height cuts the goal off: testing on the nominal one would show."""
    rows = tested[0].gather("evaluation")
    walls = rows[rows.perturbation == "wall"].groupby("magnitude")
    assert list(walls.groups) == list(MAGNITUDES)
    blocked = walls.get_group(8.0)
    assert (blocked.solvable == 0).all() and (blocked.success == 0).all()
    assert (blocked.exact_success == 0).all() and blocked.exact_worst.isna().all()
    free = rows[rows.perturbation == "nominal"]
    assert len(free) == 2 and (free.magnitude == 0).all()
    assert (free.solvable == 1).all() and (free.exact_success > 0).all()
    assert free.instance_success.map(lambda x: np.ptp(x) == 0).all()
    assert (walls.get_group(4.0).solvable == 1).all()


def test_the_nominal_is_tested_once_and_begins_every_curve(tested):
    rows = tested[0].gather("evaluation")
    assert len(rows) == 2 * 5 and (rows.magnitude == 0).sum() == 2
    curves = with_nominal(rows)
    nominal = curves[curves.magnitude == 0].set_index("perturbation")
    for field in ("success", "return_mean"):
        assert list(nominal.loc["wall", field]) == list(nominal.loc["slip", field])
    slips = curves[curves.perturbation == "slip"]
    assert set(slips.magnitude) == {0.0, 0.25, 1.0}
    # Under noise nothing is computed exactly, so neither is what the curve begins with.
    assert slips.exact_success.isna().all() and (slips.solvable == 1).all()
    assert curves[curves.perturbation == "wall"].exact_success.notna().all()


def test_occupancy_is_stored_once_per_run(tested):
    occupancy = tested[0].gather("occupancy")
    assert len(occupancy) == 2
    for visits in occupancy.visits:
        cells = np.reshape(visits, (10, 10))
        assert cells[1, 1] >= 1 and np.isnan([*cells[0], *cells[:, 9]]).all()  # walls
        assert 0 < np.nansum(cells) <= HORIZON * (1 + 1e-5)


@pytest.mark.parametrize(("name", "most"), [("wall", 6), ("random_walls", COUNT)])
def test_instances_that_are_the_same_are_solved_once(minigrid, name, most):
    """With the same bits as if each were solved for itself."""
    env, params = minigrid
    instances = layouts(params, name, 6)
    found, seen = distinct(instances), jax.vmap(functools.partial(views, env))(instances)
    assert found.number == len({*found.index.tolist()}) <= most and found.index[0] == 0
    assert (np.diff(np.maximum.accumulate(found.index)) <= 1).all()  # in the order of appearance
    again = jax.tree.map(lambda x: x[found.index], found.elements)
    jax.tree.map(np.testing.assert_array_equal, again, instances)
    keys = jax.random.split(jax.random.key(0), COUNT)
    nets = jnp.asarray(NETS)
    solve = jax.jit(lambda same: evaluate(env, BLIND, HORIZON, nets, instances, keys, same))
    once, each = solve(Same(found, distinct(seen))), outcome(env, instances, 0)
    jax.tree.map(np.testing.assert_array_equal, once, each)


def looking(weights, carry, obs, start):
    """A policy that sees; its numbers are whole, so that sums are exact in any order."""
    flat = obs.reshape(*obs.shape[:-3], -1).astype(jnp.float32)
    return Categorical(flat @ weights / 64), flat[..., 0]


SEEING = BLIND._replace(
    step=lambda weights, carry, obs, start: (*looking(weights, carry, obs, start), carry),
    sequence=looking,
)


@pytest.mark.parametrize("name", ["slip", "sticky_action", "observation_dropout", "start_shift"])
def test_what_is_looked_up_is_what_is_seen_step_by_step(name):
    """Views of states, and of nothing: the same bits as with the policy asked in every frame."""
    env, params = make("minigrid/empty-8x8", noise=True)
    assert env.few_views and not env.finite
    instances = layouts(small_goal(params), name, 0.4 if name != "start_shift" else 2)
    seen = jax.vmap(functools.partial(views, env))(instances)
    assert int(distinct(seen).number) == 1  # only starts, or chances, differ
    weights = np.random.default_rng(0).integers(-3, 4, (2, 147, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), COUNT)
    same = Same(distinct(instances), distinct(seen))
    play = lambda model: evaluate(env, model, HORIZON, jnp.asarray(weights), instances, keys, same)
    looked_up, step_by_step = jax.jit(
        lambda: (play(SEEING), play(SEEING._replace(recurrent=True)))
    )()
    jax.tree.map(np.testing.assert_array_equal, looked_up, step_by_step)
    assert 0 < (np.asarray(looked_up.steps_to_success) > 0).mean() < 1
