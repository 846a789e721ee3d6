"""A2C and PPO: one actor-critic loop with two losses.

An agent is three pure functions of one run; the sweep vmaps them. Where an environment is finite,
the network is evaluated once per distinct state and update instead of once per frame, and steps
look the result up. That changes the order of additions, nothing else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from entrob.agents.activity import activity
from entrob.agents.adversarial import curriculum as curricula
from entrob.agents.adversarial import opponent as rival
from entrob.agents.adversarial.response import respond, take_turns
from entrob.agents.collect import Actors, begin, collect
from entrob.agents.estimate import estimate
from entrob.agents.learn import learn, make_optimizer
from entrob.agents.model import Model, PolicyParams, make_model
from entrob.agents.normalizer import BOUND, Normalizer
from entrob.agents.spec import TIME_LIMITS, Hyper, Spec, tabulate
from entrob.envs import adopted
from entrob.ranges import check
from entrob.regularizers.protocol import blame, chain

#: `AgentState.cause` of a run that did not diverge, and of one whose own loss or weights did;
#: a value of 2 + i blames entry i of `entrob.regularizers.protocol.faults`.
HEALTHY, AGENT = 0, 1


@struct.dataclass
class AgentState:
    """Everything that changes while one run trains.

    Attributes:
      key: PRNG key.
      network: network parameters; with an adversary, by player: protagonist and adversary.
      opt_state: optimizer state, likewise.
      normalizer: `Normalizer`, or ``()`` if the spec does not normalize.
      actors: `Actors`, where the environments stand.
      regularizers: per-regularizer states by name.
      update: int32[], updates done.
      diverged_at: int32[], the update at which the run was frozen, -1 if it was not.
      cause: int32[], why: `HEALTHY`, `AGENT`, or 2 + the index of the fault.
      curriculum: the `Curriculum` of an adversary that has one, else ().
    """

    key: jax.Array
    network: Any
    opt_state: Any
    normalizer: Any
    actors: Actors
    regularizers: dict[str, Any]
    update: jax.Array
    diverged_at: jax.Array
    cause: jax.Array
    curriculum: Any = ()

    @property
    def policy(self) -> PolicyParams:
        """What acts, and what is saved."""
        return PolicyParams(self.network, self.normalizer.observation if self.normalizer else ())


class Agent(NamedTuple):
    """Pure functions of one run.

    Attributes:
      spec: the static part.
      model: functions of the protagonist's policy, or of the only one.
      actor: the same as functions of `AgentState.policy`, which may hold an adversary's too.
      opponent: the adversary, or None.
      init: ``(key, hyper, env_params) -> AgentState``.
      train_chunk: ``(state, hyper, env_params, updates) -> (state, curves)``; curves are
        float32[updates] each. ``updates`` is static. ``activity`` (see `activity`) is measured in
        the last of these updates and NaN in the others, and in all of them with an adversary.
    """

    spec: Spec
    model: Model
    actor: Model
    opponent: rival.Opponent | None
    init: Callable
    train_chunk: Callable


def make_agent(spec: Spec) -> Agent:
    """Build the functions of an A2C or PPO agent.

    Raises:
      EntrobError: the environment's actions fit no distribution, the network is unknown, the
        adversary does not fit the environment, or a number of something is not positive.
      ValueError: unknown algorithm or time limit, or the minibatches do not divide the rollout.
    """
    if spec.algorithm not in ("a2c", "ppo"):
        raise ValueError(f"unknown algorithm {spec.algorithm!r}: a2c or ppo")
    if spec.time_limit not in TIME_LIMITS:
        raise ValueError(f"unknown time limit {spec.time_limit!r}: {' or '.join(TIME_LIMITS)}")
    check("", spec)
    regularizer = chain(spec.regularizer)
    spec = spec._replace(env=adopted(spec.env), regularizer=regularizer)
    actor = model = make_model(spec.env, spec.network)
    opponent = None
    if spec.adversary:
        actor = rival.protagonist(model)
        opponent = rival.make_opponent(spec.env, spec.adversary, spec.network)
    if (spec.num_envs if model.recurrent else spec.frames_per_update) % spec.minibatches:
        raise ValueError("minibatches must divide the rollout (its environments, if recurrent)")
    optimizer = make_optimizer(spec.algorithm)

    def init(key: jax.Array, hyper: Hyper, env_params: Any) -> AgentState:
        """The state before training; hyper is not used but fixes the signature of `vmap`."""
        key, key_net, key_env, key_reg = jax.random.split(key, 4)
        finite = tabulate(spec, model, env_params)
        actors, obs = begin(spec, model, finite, env_params, key_env, opponent)
        network = model.init(key_net, obs)
        regularizers = regularizer.init(key_reg, spec, network)
        opt_state = optimizer.init(network)
        curriculum: curricula.Curriculum | tuple[()] = ()
        if opponent:
            theirs = rival.init(opponent, actors.standing, obs, key_net)
            network = {"protagonist": network, "adversary": theirs}
            opt_state = {"protagonist": opt_state, "adversary": optimizer.init(theirs)}
            if rival.is_quantal(opponent):
                curriculum = curricula.start(opponent.adversary.bound)
        shape = obs.shape[1:]
        return AgentState(
            key=key,
            network=network,
            opt_state=opt_state,
            normalizer=Normalizer.empty(shape, spec.num_envs) if spec.normalize else (),
            actors=actors,
            regularizers=regularizers,
            update=jnp.zeros((), jnp.int32),
            diverged_at=jnp.full((), -1, jnp.int32),
            cause=jnp.zeros((), jnp.int32),
            curriculum=curriculum,
        )

    def train_chunk(state: AgentState, hyper: Hyper, env_params: Any, updates: int):
        """Train for a number of updates: ``(state, curves)``."""
        finite = tabulate(spec, model, env_params)

        def body(state, measure):
            return _update(
                spec, model, opponent, optimizer, finite, env_params, hyper, state, measure
            )

        # The same for all runs side by side, so that a `cond` on it stays one.
        last = jnp.arange(updates) == updates - 1
        return jax.lax.scan(body, state, last)

    return Agent(spec, model, actor, opponent, init, train_chunk)


def _update(
    spec, model, opponent, optimizer, finite, env_params, hyper, state: AgentState, measure
):
    """One update of one run: rollout, bonuses, advantages, gradient steps, regularizer states.

    Where `measure`, bool[], activity is measured.
    """
    chain = spec.regularizer
    key, key_roll, key_reward, key_learn, key_reg = jax.random.split(state.key, 5)
    progress = state.update / hyper.total_updates
    coefs = chain.coefs(hyper.coefs, progress)
    behavior = lambda dist: chain.behavior(state.regularizers, dist, coefs)

    policy, opt_state, game = state.policy, state.opt_state, None
    if opponent:
        theirs = rival.player(policy, "adversary")
        game = rival.Game(
            opponent, theirs, opt_state["adversary"], state.curriculum, hyper.strength
        )
        policy, opt_state = rival.player(policy, "protagonist"), opt_state["protagonist"]

    actors, rollout, next_value, episodes, moves = collect(
        spec, model, finite, env_params, behavior, progress, hyper.gamma,
        policy, state.actors, key_roll, game,
    )  # fmt: skip
    if spec.time_limit == "terminal":
        ended = rollout.terminated | rollout.truncated
        rollout = rollout.replace(terminated=ended, truncated=jnp.zeros_like(ended))
    normalizer, rollout = _normalize(state.normalizer, rollout, hyper.gamma)
    bonus, reg_states, bad_bonus = chain.reward(key_reward, state.regularizers, rollout, coefs)
    rollout = estimate(rollout, bonus, next_value, hyper)
    bad_behavior = chain.behavior_faults(rollout, coefs)
    rollout, bad_advantage = chain.advantage(reg_states, rollout, coefs)
    rollout = rollout.replace(notes=chain.prepare(reg_states, rollout, coefs))
    network, opt_state, metrics, bad = learn(
        spec, model, optimizer, hyper, coefs, reg_states, policy,
        opt_state, state.actors.memory, rollout, key_learn,
    )  # fmt: skip
    active = jnp.float32(jnp.nan)
    if not game:
        active = jax.lax.cond(
            measure,
            lambda: activity(
                spec, model, hyper, coefs, reg_states, policy, state.actors.memory, rollout,
                bonus, next_value, network, key_learn,
            ),
            lambda: active,
        )  # fmt: skip
    curriculum, learned = state.curriculum, {**metrics, "params": network}
    if game:
        network, opt_state, curriculum = respond(
            game, spec, optimizer, hyper, state, (network, opt_state), rollout, moves, key_learn
        )
    reg_states, bad_state = chain.update(
        key_reg, reg_states, rollout.replace(notes=None), learned, coefs
    )

    if game:
        old_new = ({"protagonist": states} for states in (state.regularizers, reg_states))
        reg_states = take_turns(opponent, state.update, *old_new)["protagonist"]
    new = AgentState(
        key=key,
        network=network,
        opt_state=opt_state,
        normalizer=normalizer,
        actors=actors,
        regularizers=reg_states,
        update=state.update + 1,
        diverged_at=state.diverged_at,
        cause=state.cause,
        curriculum=curriculum,
    )
    curves = {
        "bonus_mean": bonus.mean(),
        "trust": rollout.context.trust,
        "activity": active,
        **metrics,
        **episodes,
    }
    bad |= {"behavior": bad_behavior, "reward": bad_bonus, "advantage": bad_advantage}
    bad |= {"update": bad_state}
    return _freeze_if_diverged(state, new, curves, blame(bad))


def _normalize(normalizer, rollout, gamma):
    """Statistics with this rollout, and the rollout with its rewards in their units."""
    if not normalizer:
        return normalizer, rollout
    done = rollout.terminated | rollout.truncated
    normalizer, scale = normalizer.add(rollout.obs, rollout.reward, done, gamma)
    reward = jnp.clip(rollout.reward / scale, -BOUND, BOUND)
    return normalizer, rollout.replace(reward=reward).with_context(reward_scale=scale)


def _freeze_if_diverged(old: AgentState, new: AgentState, curves: dict, bad: jax.Array):
    """Keep the old state of a run that is, or now becomes, not finite; its curves read NaN."""
    leaves = jax.tree.leaves((new.policy, new.opt_state))
    finite = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
    faulty = bad.any() | ~finite
    frozen = (old.diverged_at >= 0) | faulty
    cause = jnp.where(bad.any(), 2 + jnp.argmax(bad) if bad.size else AGENT, AGENT)
    first = frozen & (old.diverged_at < 0)
    state = jax.tree.map(lambda a, b: jnp.where(frozen, a, b), old, new).replace(
        diverged_at=jnp.where(first, old.update, old.diverged_at),
        cause=jnp.where(first, cause, old.cause).astype(jnp.int32),
    )
    return state, jax.tree.map(lambda x: jnp.where(frozen, jnp.nan, x), curves)
