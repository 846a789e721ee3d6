"""Two-player training: what is executed, whose gain it is, whose turn, and that it does harm."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnax.environments import environment, spaces
from gymnax.environments.classic_control import cartpole

from entrob.agents.actor_critic import make_agent
from entrob.agents.adversarial import curriculum as curricula
from entrob.agents.adversarial import play
from entrob.agents.adversarial.adversary import Adversary, check_adversary, misfit
from entrob.agents.adversarial.response import rollout_of
from entrob.agents.learn import make_optimizer
from entrob.agents.networks import LSTM, MLP
from entrob.agents.spec import Hyper, Spec
from entrob.distributions import Categorical, TanhNormal
from entrob.envs import make
from entrob.envs.wrappers import with_disturbance
from entrob.errors import EntrobError
from entrob.regularizers import Regularizer, chain
from entrob.rollout import Context

N = 5000


class Push(environment.Environment):
    """One step; the reward is the action, in [-1, 1]: one player pushes up, the other down."""

    def __init__(self, actions=None):
        self.actions = actions

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=10)

    def reset_env(self, key, params):
        return jnp.ones(1), environment.EnvState(time=jnp.int32(0))

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        reward = 2.0 * action - 1.0 if self.actions else action[0]
        return jnp.ones(1), state, reward, jnp.bool_(True), {}

    def action_space(self, params=None):
        if self.actions:
            return spaces.Discrete(self.actions)
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def observation_space(self, params=None):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)


def normal(mean, size=1):
    return TanhNormal(
        jnp.full((N, size), mean), jnp.full((N, size), -1.0), (-1.0,) * size, (1.0,) * size
    )


def interfere(adversary, strength, theirs, executed, env=None, state=None):
    """One move of an adversary whose distribution is `theirs`: see `play.interfere`."""
    spec = Spec(env or Push(), network=MLP(2, hidden=(4,)))
    built = play.build_adversary(adversary, spec, make_optimizer("ppo"))
    shape, key = jnp.float32(4.0), jax.random.key(0)
    quantal = adversary.kind == "qarl"
    standing = play.Standing((), jnp.full(N, 0.01), jnp.full(N, shape)) if quantal else None
    seen = []

    def heads(carry, obs, start):
        seen.append(obs)
        return theirs, jnp.zeros(N), carry

    game = play.Game(built, None, curricula.start(None)._replace(shape=shape), strength)
    obs = jnp.ones((N, 1))
    out = play.interfere(
        game, heads, standing or play.Standing(()), obs, None, executed, state, key
    )
    return *out, seen[0], game


def test_the_noisy_action_is_the_weighted_mean():
    ours, theirs = jnp.tanh(normal(0.5).mean), normal(-0.7)
    executed, _, _, moves, *_ = interfere(Adversary("nr_mdp"), 0.25, theirs, ours)
    expected = 0.75 * ours + 0.25 * jnp.tanh(moves.action)
    np.testing.assert_allclose(executed, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moves.log_prob, theirs.log_prob(moves.action))
    assert moves.acted is None


@pytest.mark.parametrize("actions", [None, 3])
def test_the_probabilistic_action_is_that_of_the_one_whose_turn_it_is(actions):
    theirs = Categorical(jnp.zeros((N, 3))) if actions else normal(-0.7)
    ours = jnp.full(N, 7) if actions else jnp.full((N, 1), 7.0)
    out = interfere(Adversary("pr_mdp"), 0.3, theirs, ours, Push(actions))
    executed, moves = np.asarray(out[0]), out[3]
    turn = np.asarray(moves.acted)
    assert turn.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(executed[turn], np.asarray(theirs.execute(moves.action))[turn])
    assert (executed[~turn] == 7).all() and (executed[turn] != 7).all()


class Pushed(cartpole.CartPole):
    """A pole that somebody else balances: the action is not read. 100 steps; starts upright."""

    @property
    def default_params(self):
        return super().default_params.replace(max_steps_in_episode=100)

    def step_env(self, key, state, action, params):
        action = state.theta + 0.3 * state.theta_dot + 0.05 * (state.x + 2 * state.x_dot) > 0
        return super().step_env(key, state, action.astype(jnp.int32), params)


@pytest.fixture(scope="module")
def states():
    env = with_disturbance(Pushed())
    keys = jax.random.split(jax.random.key(0), N)
    return env, jax.vmap(env.reset_env, (0, None))(keys, env.default_params)[1]


@pytest.mark.parametrize("mean", [0.3, 2.0])
def test_forces_are_together_as_strong_as_is_said(states, mean):
    env, state = states
    still = jnp.zeros(N)
    executed, pushed, _, moves, *_ = interfere(
        Adversary("rarl"), 0.5, normal(mean, 2), still, env, state
    )
    np.testing.assert_array_equal(executed, still)
    shares = np.tanh(moves.action)
    inside = np.abs(shares).sum(1) <= 1
    used = np.asarray(pushed.disturbance) / [10, 1]
    np.testing.assert_allclose(used[inside], 0.5 * shares[inside], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.abs(used[~inside]).sum(1), 0.5, rtol=1e-5)
    np.testing.assert_allclose(used[:, 0] * shares[:, 1], used[:, 1] * shares[:, 0], atol=1e-5)
    assert 0.05 < inside.mean() < 0.95 if mean < 1 else not inside.any()


def test_one_axis_may_have_all_of_the_strength(states):
    env, state = states
    theirs = TanhNormal(
        jnp.tile(jnp.array([0.0, 9.0]), (N, 1)), jnp.full((N, 2), -5.0), (-1.0,) * 2, (1.0,) * 2
    )
    pushed = interfere(Adversary("rarl"), 0.5, theirs, jnp.zeros(N), env, state)[1]
    np.testing.assert_allclose(pushed.disturbance[:, 1], 0.5, atol=0.02)


@pytest.mark.parametrize("kind", ["pr_mdp", "nr_mdp", "rarl", "qarl"])
def test_an_adversary_without_strength_changes_nothing_that_is_executed(kind, states):
    forced = kind in ("rarl", "qarl")
    env, state = states if forced else (None, None)
    ours = jnp.tanh(normal(0.5).mean)
    theirs = normal(-0.7, 2 if forced else 1)
    executed, after, _, moves, *_ = interfere(Adversary(kind), 0.0, theirs, ours, env, state)
    np.testing.assert_array_equal(executed, ours)
    assert jnp.isfinite(moves.log_prob).all()
    if forced:
        assert (after.disturbance == 0).all()


def test_the_quantal_one_sees_its_temperature_and_draws_a_new_one_for_a_new_episode(states):
    env, state = states
    _, _, standing, _, seen, game = interfere(
        Adversary("qarl"), 0.5, normal(0.3, 2), jnp.zeros(N), env, state
    )
    np.testing.assert_allclose(seen, np.stack([np.ones(N), np.full(N, 0.2)], 1), rtol=1e-6)
    done = jnp.arange(N) % 2 == 0
    after = play.redraw(game, standing, done, jax.random.key(1))
    np.testing.assert_array_equal(after.temperature[~done], standing.temperature[~done])
    drawn = np.asarray(after.temperature[done])
    assert scipy.stats.kstest(drawn, scipy.stats.gamma(4.0, scale=1e-3).cdf).pvalue > 0.01


def hyper(rate=3e-3, updates=100, strength=0.5, **coefs):
    return Hyper(learning_rate=rate, total_updates=updates, strength=strength, coefs=coefs)


@pytest.fixture(scope="module")
def quantal():
    """A tiny agent and the states after 0, 1 and 2 updates, with one compilation."""
    env, params = make("gymnax:CartPole-v1", noise=True, disturbed=True)
    bonus = Regularizer(
        "bonus",
        init=lambda *args: jnp.zeros(()),
        reward=lambda key, s, rollout, coef: (coef + rollout.reward * 0, s),
        update=lambda key, s, rollout, metrics: s + 1,
    )
    network = MLP(2, hidden=(8,))
    spec = Spec(env, chain(bonus), network, "ppo", num_envs=16, num_steps=8,
                adversary=Adversary("qarl"), normalize=True)  # fmt: skip
    agent = make_agent(spec)
    settings = jax.tree.map(jnp.float32, hyper(bonus=0.1))
    chunk = jax.jit(chex.assert_max_traces(lambda s, h, p: agent.train_chunk(s, h, p, 1), n=1))
    state = jax.jit(agent.init)(jax.random.PRNGKey(0), settings, params)
    # Once compiled for what the environment's first state is, and for what comes after.
    params = jax.tree.map(jnp.asarray, params)
    states = [state]
    for _ in range(2):
        states.append(chunk(states[-1], settings, params)[0])
    return agent, states, settings, params, chunk


def test_players_take_turns_bit_for_bit(quantal):
    _, states, *_ = quantal
    for before, after, learner in zip(states, states[1:], ("protagonist", "adversary")):
        for field in ("network", "opt_state"):
            old, new = getattr(before, field), getattr(after, field)
            for side in ("protagonist", "adversary"):
                same = jax.tree.map(lambda a, b: bool((a == b).all()), old[side], new[side])
                assert all(jax.tree.leaves(same)) == (side != learner), (field, side)
    # What adapts to the protagonist's steps waits for them.
    assert [float(state.regularizers["bonus"].inner) for state in states] == [0, 1, 1]


def test_nothing_recompiles_while_the_curriculum_goes_on(quantal):
    _, states, settings, params, chunk = quantal
    state = states[-1]
    for _ in range(40):
        state, _ = chunk(state, settings, params)  # raises if it is traced once more
    assert int(state.diverged_at) == -1
    assert float(state.curriculum.shape) < curricula.FIRST and np.isfinite(state.curriculum.bound)


def test_the_adversary_gains_what_the_protagonist_loses_and_its_entropy():
    plain = play.AdversaryBuild(Adversary("rarl"), None, ())
    quantal = play.AdversaryBuild(Adversary("qarl"), None, ())
    env = Push()
    agent = make_agent(Spec(env, chain(), MLP(2, hidden=(4,)), num_envs=2, num_steps=3))
    rollout = roll(agent, env)
    rewards = jnp.arange(6.0).reshape(3, 2)
    rollout = rollout.replace(reward=rewards)
    moves = play.Moves(
        rollout.obs, rollout.action, rewards - 3.0, rollout.dist, rollout.value, None,
        rewards / 10, None, None,
    )  # fmt: skip
    np.testing.assert_array_equal(rollout_of(plain, rollout, moves).reward, -rewards)
    expected = -rewards - rewards / 10 * (rewards - 3.0)
    soft = rollout_of(quantal, rollout, moves)
    np.testing.assert_allclose(soft.reward, expected, rtol=1e-6)
    np.testing.assert_array_equal(soft.log_prob, rewards - 3.0)


def roll(agent, env):
    """A rollout of an untrained agent."""
    from entrob.agents.collect import collect

    params, context = env.default_params, Context(0.0, 0.9)

    @jax.jit
    def rolled(key):
        state = agent.init(jax.random.PRNGKey(0), Hyper(), params)
        return collect(
            agent.build, params, context, state.policy, lambda d: d, state.rollout_state, key
        )[1]

    return rolled(jax.random.key(0))


def train(adversary, strength, network, env=None, updates=100):
    env = env or Push()
    spec = Spec(env, chain(), network, "ppo", num_envs=16, num_steps=8, epochs=4, minibatches=2,
                adversary=adversary)  # fmt: skip
    agent = make_agent(spec)
    settings = hyper(strength=strength)
    state = agent.init(jax.random.PRNGKey(0), settings, env.default_params)
    chunk = jax.jit(agent.train_chunk, static_argnums=3)
    return agent, *chunk(state, settings, env.default_params, updates)


@pytest.mark.parametrize(
    ("kind", "network", "actions"),
    [
        ("nr_mdp", MLP(2, hidden=(16,)), None),
        pytest.param("pr_mdp", LSTM(2, width=16), None, marks=pytest.mark.slow),
        pytest.param("pr_mdp", MLP(2, hidden=(16,)), 2, marks=pytest.mark.slow),
    ],
)
def test_both_players_get_what_they_want(kind, network, actions):
    """The game's value is (1 - α) · 1 + α · (-1), whichever way actions are mixed."""
    agent, state, curves = train(Adversary(kind), 0.25, network, Push(actions))
    late = curves["return_sum"][-10:].sum() / curves["episodes"][-10:].sum()
    assert float(late) == pytest.approx(0.5, abs=0.12)
    assert np.isnan(curves["activity"]).all()
    # Tested alone, the protagonist does as it likes.
    act = lambda key: agent.actor.act(key, state.policy, agent.actor.initial(), jnp.ones(1))[0]
    actions = jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(0), 20))
    assert float(actions.mean()) > 0.85


@pytest.mark.slow
def test_a_trained_adversary_does_more_harm_than_random_forces():
    """The pole's balance is somebody else's, so nothing but the forces can change the return."""
    env = with_disturbance(Pushed())
    spec = Spec(env, chain(), MLP(2, hidden=(32,)), "ppo", num_envs=16, num_steps=64, epochs=4,
                minibatches=4, adversary=Adversary("rarl"))  # fmt: skip
    agent = make_agent(spec)

    @functools.partial(jax.jit, static_argnums=1)
    def late(rate, updates):
        settings = hyper(rate, strength=1.0)
        state = agent.init(jax.random.PRNGKey(0), settings, env.default_params)
        _, curves = agent.train_chunk(state, settings, env.default_params, updates)
        return curves["return_sum"][-10:].sum() / curves["episodes"][-10:].sum()

    random, trained = (float(late(jnp.float32(rate), 60)) for rate in (0.0, 3e-3))
    # Random forces, those of the untrained policy, leave most of the 100 steps.
    assert random > 60 and trained < random / 2


def test_bad_adversaries_are_named():
    with pytest.raises(EntrobError, match="did you mean 'nr_mdp'"):
        check_adversary(Adversary("nrmdp"))
    with pytest.raises(EntrobError, match=r"must be a number in 0\.\.1, not 2"):
        check_adversary(Adversary("nr_mdp"), 2)
    with pytest.raises(EntrobError, match=r"must be a finite number of at least 0, not -1"):
        check_adversary(Adversary("rarl"), -1)
    with pytest.raises(EntrobError, match="bound is for the adversary 'qarl', not for 'rarl'"):
        check_adversary(Adversary("rarl", bound=3.0))
    with pytest.raises(EntrobError, match="bound must be a finite number, not 'high'"):
        check_adversary(Adversary("qarl", bound="high"))


def test_what_an_environment_cannot_have_is_said():
    grid, _ = make("minigrid/empty-8x8", noise=True)
    assert "those of MiniGrid" in misfit(grid, Adversary("nr_mdp"))
    assert "none can act on MiniGrid" in misfit(grid, Adversary("qarl"))
    assert misfit(grid, Adversary("pr_mdp")) is None
    pendulum, _ = make("gymnax:Pendulum-v1")
    assert all(misfit(pendulum, Adversary(kind)) is None for kind in ("nr_mdp", "rarl"))
    with pytest.raises(EntrobError, match="disturbed=True"):
        make_agent(Spec(pendulum, chain(), adversary=Adversary("rarl")))
