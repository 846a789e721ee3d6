"""A2C and PPO: one actor-critic loop with two losses.

An agent is three pure functions of one run; the sweep vmaps them. Where an environment is finite,
the network is evaluated once per distinct observation and update instead of once per frame, and
steps look the result up. That changes the order of additions, nothing else.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from entrob.agents.activity import activity
from entrob.agents.adversarial import curriculum as curricula
from entrob.agents.adversarial import play
from entrob.agents.adversarial.response import respond, take_turns
from entrob.agents.batching import differing
from entrob.agents.collect import RolloutState, begin, collect
from entrob.agents.estimate import estimate
from entrob.agents.learn import Learner, learn, make_optimizer
from entrob.agents.model import Model, PolicyParams, make_model
from entrob.agents.normalizer import BOUND, Normalizer, PerEnvironment
from entrob.agents.spec import CHOICES, Build, Hyper, Spec, tabulate, tabulated
from entrob.envs import adopted
from entrob.errors import EntrobError
from entrob.ranges import check
from entrob.regularizers.chaining import States, chain
from entrob.rollout import Context, Finite

#: `AgentState.cause` of a run that did not diverge, and of one whose own loss or weights did;
#: a value of 2 + i blames entry i of `entrob.regularizers.chaining.faults`.
HEALTHY, AGENT = 0, 1


@struct.dataclass
class AgentState:
    """Everything that changes while one run trains.

    Attributes:
      key: PRNG key.
      network: network parameters; with an adversary, by player: protagonist and adversary.
      opt_state: optimizer state, likewise.
      normalizer: `Normalizer` or `PerEnvironment`, or ``()`` if the spec does not normalize.
      rollout_state: `RolloutState`, where the environments stand.
      regularizers: `Guarded` states by name.
      update: int32[], updates done.
      diverged_at: int32[], the update at which the run was frozen, -1 if it was not.
      cause: int32[], why: `HEALTHY`, `AGENT`, or 2 + the index of the fault.
      curriculum: the `Curriculum` of an adversary that has one, else ().
    """

    key: jax.Array
    network: Any
    opt_state: Any
    normalizer: Any
    rollout_state: RolloutState
    regularizers: States
    update: jax.Array
    diverged_at: jax.Array
    cause: jax.Array
    curriculum: Any = ()

    @property
    def policy(self) -> PolicyParams:
        """What is tested and saved; it also acts in training, unless with statistics of its own."""
        return PolicyParams(self.network, self.normalizer.tested if self.normalizer else ())


class Agent(NamedTuple):
    """Pure functions of one run.

    Attributes:
      build: the static part of the protagonist, or of the only player.
      actor: the same as functions of `AgentState.policy`, which may hold an adversary's too.
      adversary: its static part, or None.
      init: ``(key, hyper, env_params) -> AgentState``.
      tables: ``env_params -> Finite | None``, not to be traced: what `train_chunk` may be given, so
        that the network is evaluated once for states that look the same.
      train_chunk: ``(state, hyper, env_params, updates, finite=None) -> (state, curves)``; curves
        are float32[updates] each. ``updates`` is static. ``activity`` (see `activity`) is measured
        in the last of these updates and NaN in the others, and in all of them with an adversary.
        Without tables it makes its own, in which every state has an observation.
    """

    build: Build
    actor: Model
    adversary: play.AdversaryBuild | None
    init: Callable
    tables: Callable
    train_chunk: Callable

    @property
    def spec(self) -> Spec:
        """What it was made of."""
        return self.build.spec

    @property
    def model(self) -> Model:
        """Functions of the protagonist's policy, or of the only one."""
        return self.build.model


def make_agent(spec: Spec) -> Agent:
    """Build the functions of an A2C or PPO agent.

    Raises:
      EntrobError: the environment's actions fit no distribution, the network is unknown, the
        adversary does not fit the environment, or a number of something is not positive.
      ValueError: unknown algorithm or another setting that is none of its words, or the minibatches
        do not divide the rollout.
    """
    if spec.algorithm not in ("a2c", "ppo"):
        raise ValueError(f"unknown algorithm {spec.algorithm!r}: a2c or ppo")
    for name, offered in CHOICES.items():
        if getattr(spec, name) not in offered:
            words = " or ".join(map(str, offered))
            raise ValueError(f"unknown {name} {getattr(spec, name)!r}: {words}")
    if spec.advantage_std != "population" and spec.algorithm != "ppo":
        raise EntrobError("advantage_std is for the algorithm 'ppo': a2c standardizes nothing")
    if spec.per_environment and not spec.normalize:
        raise EntrobError("statistics of each environment are for normalize = true")
    check("", spec)
    spec = spec._replace(env=adopted(spec.env))
    regularizers = chain(spec.regularizer)
    actor = model = make_model(spec.env, spec.network, gaussian=spec.gaussian)
    optimizer, adversary = make_optimizer(spec.algorithm), None
    build = Build(spec, regularizers, model, optimizer)
    if spec.adversary:
        actor = play.protagonist(model)
        adversary = play.build_adversary(spec.adversary, spec, optimizer)
    if (spec.num_envs if model.recurrent else spec.frames_per_update) % spec.minibatches:
        raise ValueError("minibatches must divide the rollout (its environments, if recurrent)")

    def init(key: jax.Array, hyper: Hyper, env_params: Any) -> AgentState:
        """The state before training; hyper is not used but fixes the signature of `vmap`."""
        key, key_net, key_env, key_reg = jax.random.split(key, 4)
        rollout_state, obs = begin(build, env_params, key_env, adversary)
        network = model.init(key_net, obs)
        states = regularizers.init(key_reg, spec, network)
        opt_state = optimizer.init(network)
        curriculum: curricula.Curriculum | tuple[()] = ()
        if adversary:
            theirs = play.init(adversary, rollout_state.standing, obs, key_net)
            network = {"protagonist": network, "adversary": theirs}
            opt_state = {"protagonist": opt_state, "adversary": optimizer.init(theirs)}
            if adversary.quantal:
                curriculum = curricula.start(adversary.declared.bound)
        normalizer: Any = ()
        if spec.per_environment:
            normalizer = PerEnvironment.begin(obs)
        elif spec.normalize:
            normalizer = Normalizer.empty(obs.shape[1:], spec.num_envs)
        return AgentState(
            key=key,
            network=network,
            opt_state=opt_state,
            normalizer=normalizer,
            rollout_state=rollout_state,
            regularizers=states,
            update=jnp.zeros((), jnp.int32),
            diverged_at=jnp.full((), -1, jnp.int32),
            cause=jnp.zeros((), jnp.int32),
            curriculum=curriculum,
        )

    def tables(env_params: Any) -> Finite | None:
        """The tables of finite environments, in which an observation occurs once."""
        if not tabulated(spec, model):
            return None
        finite = jax.jit(lambda params: tabulate(spec, params))(env_params)
        first, index = differing(finite.observations)
        return finite._replace(observations=finite.observations[first], view=jnp.asarray(index))

    def train_chunk(
        state: AgentState,
        hyper: Hyper,
        env_params: Any,
        updates: int,
        finite: Finite | None = None,
    ):
        """Train for a number of updates: ``(state, curves)``."""
        if finite is None and tabulated(spec, model):
            finite = tabulate(spec, env_params)

        def body(state, measure):
            return _update(build, adversary, env_params, finite, hyper, state, measure)

        # The same for all runs side by side, so that a `cond` on it stays one.
        last = jnp.arange(updates) == updates - 1
        return jax.lax.scan(body, state, last)

    return Agent(build, actor, adversary, init, tables, train_chunk)


def _update(
    build: Build,
    adversary: play.AdversaryBuild | None,
    env_params: Any,
    finite: Finite | None,
    hyper: Hyper,
    state: AgentState,
    measure: jax.Array,
):
    """One update of one run: rollout, bonuses, advantages, gradient steps, regularizer states.

    Where `measure`, bool[], activity is measured.
    """
    chain = build.chain
    key, key_roll, key_reward, key_learn, key_reg = jax.random.split(state.key, 5)
    progress = state.update / hyper.total_updates
    coefs = chain.coefs(hyper.coefs, progress)
    hyper = dataclasses.replace(hyper, coefs=coefs)
    behavior = lambda dist: chain.behavior(state.regularizers, dist, coefs)

    policy, opt_state, game = state.policy, state.opt_state, None
    own = state.normalizer if build.spec.per_environment else ()
    if own:  # its observations are standardized when they are made
        policy = PolicyParams(policy.network)
    if adversary:
        theirs = Learner(play.player(policy, "adversary"), opt_state["adversary"], {})
        game = play.Game(adversary, theirs, state.curriculum, hyper.strength)
        policy, opt_state = play.player(policy, "protagonist"), opt_state["protagonist"]

    one = jnp.ones(())
    context = Context(progress, hyper.gamma, one, one, finite)
    rollout_state, rollout, next_value, episodes, moves, own = collect(
        build, env_params, context, policy, behavior, state.rollout_state, key_roll, game, own
    )
    if build.spec.time_limit == "terminal":
        ended = rollout.terminated | rollout.truncated
        rollout = rollout.replace(terminated=ended, truncated=jnp.zeros_like(ended))
    if own:
        normalizer, rollout = own, rollout.with_context(reward_scale=own.scale)
    else:
        normalizer, rollout = _normalize(state.normalizer, rollout, hyper.gamma)
    bonus, regularizers = chain.reward(key_reward, state.regularizers, rollout, coefs)
    rollout = estimate(rollout, bonus, next_value, hyper)
    rollout, regularizers = chain.advantage(regularizers, rollout, coefs)
    rollout = rollout.replace(notes=chain.prepare(regularizers, rollout, coefs))
    before, carry = Learner(policy, opt_state, regularizers), state.rollout_state.carry
    learner, metrics = learn(build, hyper, before, rollout, carry, key_learn)
    network = learner.policy.network
    active = jnp.float32(jnp.nan)
    if not game:
        active = jax.lax.cond(
            measure,
            lambda: activity(
                build, hyper, before, rollout, carry, bonus, next_value, network, key_learn
            ),
            lambda: active,
        )
    metrics_of_all = {**metrics, "params": network}
    regularizers = chain.update(
        key_reg, learner.regularizers, rollout.replace(notes=None), metrics_of_all, coefs
    )
    fault = chain.fault(regularizers)
    opt_state, curriculum = learner.opt_state, state.curriculum
    if adversary and game:
        network, opt_state, curriculum = respond(
            game, hyper, state, learner, rollout, moves, key_learn
        )
        old_new = ({"protagonist": states} for states in (state.regularizers, regularizers))
        regularizers = take_turns(adversary, state.update, *old_new)["protagonist"]
    new = AgentState(
        key=key,
        network=network,
        opt_state=opt_state,
        normalizer=normalizer,
        rollout_state=rollout_state,
        regularizers=regularizers,
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
    return _freeze_if_diverged(state, new, curves, fault)


def _normalize(normalizer, rollout, gamma):
    """Statistics with this rollout, and the rollout with its rewards in their units."""
    if not normalizer:
        return normalizer, rollout
    done = rollout.terminated | rollout.truncated
    normalizer, scale = normalizer.add(rollout.obs, rollout.reward, done, gamma)
    reward = jnp.clip(rollout.reward / scale, -BOUND, BOUND)
    return normalizer, rollout.replace(reward=reward).with_context(reward_scale=scale)


def _freeze_if_diverged(old: AgentState, new: AgentState, curves: dict, fault: jax.Array):
    """Keep the old state of a run that is, or now becomes, not finite; its curves read NaN."""
    leaves = jax.tree.leaves((new.policy, new.opt_state))
    finite = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
    frozen = (old.diverged_at >= 0) | (fault > 0) | ~finite
    cause = AGENT + fault
    first = frozen & (old.diverged_at < 0)
    state = jax.tree.map(lambda a, b: jnp.where(frozen, a, b), old, new).replace(
        diverged_at=jnp.where(first, old.update, old.diverged_at),
        cause=jnp.where(first, cause, old.cause).astype(jnp.int32),
    )
    return state, jax.tree.map(lambda x: jnp.where(frozen, jnp.nan, x), curves)
