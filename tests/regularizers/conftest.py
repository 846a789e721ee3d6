"""Rollouts made of random numbers, and a training program that compiles in a second."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import in_tables

from entrob.agents.actor_critic import make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.distributions import Categorical
from entrob.envs.minigrid import MiniGrid
from entrob.regularizers import chain
from entrob.rollout import Context, Rollout


class Linear(nn.Module):
    """The smallest network."""

    @nn.compact
    def __call__(self, image):
        x = nn.Dense(4)(image.reshape(*image.shape[:-3], -1) / 10)  # far from deterministic
        return x[..., :3], x[..., 3]


@pytest.fixture
def make_rollout():
    """Function ``(seed, finite=False, points=None) -> Rollout`` of 12 steps in 4 environments."""

    def build(seed, finite=False, points=None):
        rng = np.random.default_rng(seed)
        shape = (12, 4)
        table = np.random.default_rng(0).integers(0, 4, (20, 3)).astype(np.float32)
        index = rng.integers(0, 20, shape)
        features = table[index] if finite else rng.normal(size=(*shape, 3))
        number = lambda: jnp.asarray(rng.normal(size=shape), jnp.float32)
        done = lambda: jnp.asarray(rng.random(shape) < 0.1)
        return Rollout(
            obs=jnp.zeros((*shape, 2)),
            features=jnp.asarray(features if points is None else points, jnp.float32),
            time=jnp.asarray(rng.integers(0, 9, shape), jnp.int32),
            action=jnp.zeros(shape, jnp.int32),
            log_prob=number(),
            value=number(),
            reward=number(),
            terminated=done(),
            truncated=done(),
            success=done(),
            advantage=number(),
            target=number(),
            dist=Categorical(jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32)),
            context=Context(
                progress=jnp.float32(0.5),
                gamma=jnp.float32(0.9),
                reward_scale=jnp.float32(2.0),
                finite=in_tables(table) if finite else None,
            ),
            index=jnp.asarray(index, jnp.int32) if finite else None,
        )

    return build


ENV = MiniGrid(5, 5)


@functools.cache
def programs(parts, settings):
    """What `train` runs: programs for the states at the start and for the updates, side by side."""
    sizes = {"num_envs": 4, "num_steps": 12}
    agent = make_agent(Spec(ENV, chain(*parts), Linear(), **sizes, **dict(settings)))
    params = ENV.default_params
    begin, finite = lambda key, hyper: agent.init(key, hyper, params), agent.tables(params)

    def chunk(state, hyper, updates):
        return jax.vmap(lambda s, h: agent.train_chunk(s, h, params, updates, finite))(state, hyper)

    return jax.jit(jax.vmap(begin)), jax.jit(chunk, static_argnames="updates")


@pytest.fixture
def train():
    """Function ``(parts, coefs, updates, states=None, ..., **settings) -> (AgentState, curves)``.

    Coefficients are given by name as one number per run; the runs, all of seed 0, go side by side
    through one program, which is compiled once for the same objects as parts. `states` replaces the
    states of regularizers by name; `hyper` are fields of the agent's `Hyper`, `settings` of its
    `Spec`.
    """

    def run(parts, coefs, updates=2, states=None, hyper=None, **settings):
        width = len(next(iter(coefs.values()), [0.0]))
        coefs = {name: jnp.asarray(c, jnp.float32) for name, c in coefs.items()}
        wide = lambda x: jnp.full(width, x, jnp.float32)
        numbers = Hyper(**{"total_updates": 10, **(hyper or {})})
        hyper = jax.tree.map(wide, numbers).replace(coefs=coefs)
        keys = jnp.stack([jax.random.PRNGKey(0)] * width)
        begin, chunk = programs(tuple(parts), tuple(settings.items()))
        state = begin(keys, hyper)
        inner = {
            name: state.regularizers[name]._replace(inner=own)
            for name, own in (states or {}).items()
        }
        state = state.replace(regularizers={**state.regularizers, **inner})
        return chunk(state, hyper, updates) if updates else (state, {})

    return run


@pytest.fixture
def traced():
    """Function ``(parts, **settings) -> (state, state, curves)``: shapes around two updates."""

    def run(parts, **settings):
        begin, chunk = programs(tuple(parts), tuple(settings.items()))
        hyper = Hyper(total_updates=10, coefs={part.name: part.coef for part in parts})
        hyper = jax.tree.map(lambda x: jnp.full(1, x, jnp.float32), hyper)
        keys = jnp.stack([jax.random.PRNGKey(0)])
        state = jax.eval_shape(begin, keys, hyper)
        return state, *jax.eval_shape(functools.partial(chunk, updates=2), state, hyper)

    return run
