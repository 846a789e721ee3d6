"""Proofs of what perturbations do, on a task that is read off, with faults injected."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from entrob.envs.wrappers import with_noise
from entrob.evaluation import proofs
from entrob.perturbations import NOMINAL, perturbation, perturbations


@struct.dataclass
class LineState(environment.EnvState):
    time: jax.Array
    x: jax.Array = 0.0


@struct.dataclass
class LineParams(environment.EnvParams):
    gain: jax.Array = 1.0
    goal: jax.Array = 3.0
    limit: jax.Array = 9.0
    line_unused: jax.Array = 1.0
    max_steps_in_episode: jax.Array = 30


class Line(environment.Environment):
    """A point that steps left or right, is paid for being near a goal, and falls off the ends."""

    @property
    def default_params(self):
        return jax.tree.map(jnp.asarray, LineParams())

    def action_space(self, params=None):
        return spaces.Discrete(3)

    def reset_env(self, key, params):
        x = jax.random.uniform(key)
        return x[None], LineState(jnp.int32(0), x)

    def step_env(self, key, state, action, params):
        x = state.x + params.gain * (action - 1)
        after = LineState(state.time + 1, x)
        return x[None], after, -abs(x - params.goal), abs(x) > params.limit, {}

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode

    def entropy_features(self, state, params):
        return state.x[None]


LINE = ("line_unused",)


def _set(field, change):
    return lambda key, p, m: p.replace(**{field: change(key, getattr(p, field), m)})


@pytest.fixture(scope="module")
def prover():
    before = dict(perturbations._entries)
    more = lambda key, x, m: x + m
    drawn = lambda key, x, m: x + m * jax.random.uniform(key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proofs, "HELD", 16)
        same = {"requires": LINE, "instances_distinct": False}
        perturbation("longer_steps", high=2, **same)(_set("gain", more))
        perturbation("other_goal", high=2, **same)(_set("goal", more))
        perturbation("earlier_end", high=8, **same)(_set("limit", lambda key, x, m: x - m))
        perturbation("deaf", high=2, **same)(_set("line_unused", more))
        perturbation("drawn", high=2, requires=LINE)(_set("gain", drawn))
        perturbation("claims_to_differ", high=2, requires=LINE)(_set("gain", more))
        perturbation("claims_to_be_one", high=2, **same)(_set("gain", drawn))
        bare = Line(), Line().default_params
        yield proofs.Prover(*with_noise(*bare), bare, jax.random.key(0))
    perturbations._entries.clear()
    perturbations._entries.update(before)


@pytest.mark.parametrize(
    ("name", "felt"),
    [
        ("longer_steps", ("observation", "reward", "dynamics")),
        ("other_goal", ("reward",)),
        ("earlier_end", ("observation", "reward", "dynamics")),
        ("drawn", ("observation", "reward", "dynamics")),
        ("slip", ("observation", "reward", "dynamics")),
        ("action_delay", ("observation", "reward", "dynamics")),
        ("observation_dropout", ("observation",)),
        ("observation_noise_raw", ("observation",)),
    ],
)
def test_what_each_reaches(prover, name, felt):
    high = float(perturbations.get(name, prover.params).high)
    proof = prover.prove(name, (1.0, high), 8)
    assert proof.reaches[high] == felt and proof.identity and proof.faults == ()
    assert proof.distinct == (8 if name == "drawn" else 1)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("deaf", "2 reaches neither observation, reward nor dynamics"),
        ("claims_to_differ", "all instances are the same, and it says that they differ"),
        ("claims_to_be_one", "instances differ, and it says that they are the same"),
    ],
)
def test_what_does_not_do_what_it_says_is_found(prover, name, fault):
    assert prover.prove(name, (2.0,), 8).faults == (fault,)


def test_a_perturbation_that_is_not_off_at_0_is_found(prover, monkeypatch):
    entry = perturbations.get("longer_steps")
    leaky = lambda key, params, name, magnitude: entry.fn(key, params, magnitude + 1e-6)
    monkeypatch.setattr(proofs, "perturb", leaky)
    assert prover.prove("longer_steps", (2.0,), 8).faults == ("0 is not the identity",)


def test_noise_that_is_not_off_at_0_is_found(monkeypatch):
    """Its params are as they should be; what is seen is not."""
    bare = Line(), Line().default_params
    monkeypatch.setattr(
        "entrob.envs.wrappers.noise._drop", lambda observation, hidden: observation + 0.01
    )
    loud = proofs.Prover(*with_noise(*bare), bare, jax.random.key(0))
    assert not loud.quiet
    assert "0 is not the identity" in loud.prove("slip", (1.0,), 2).faults


def test_what_is_felt_at_the_largest_magnitude_need_not_be_at_the_smallest(prover):
    proof = prover.prove("earlier_end", (1e-4, 8.0), 2)
    assert proof.reaches[np.float32(8.0)] and proof.faults == ()


def test_held_actions_get_further_than_drawn_ones(prover):
    first, held = np.split(np.asarray(prover.actions), 2)
    changes = lambda actions: (np.diff(actions) != 0).mean()
    assert changes(held) < changes(first) / 2
    assert prover.actions.shape == (2 * proofs.COPIES, 30)


@functools.cache
def leaves():
    return {"a": jnp.array([[1.0], [2.0], [1.0]]), "b": jnp.array([0, 0, 0])}


def test_distinct_counts_whole_params():
    assert proofs.distinct(leaves()) == 2
    assert proofs.distinct({**leaves(), "b": jnp.array([0, 0, 1])}) == 3
    assert NOMINAL not in perturbations
