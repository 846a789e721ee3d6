"""What runs for a part of a batch only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.agents import batching
from entrob.agents.batching import where_needed


def drawn(key, scale):
    return {
        "x": scale * jax.random.randint(key, (3,), 0, 99),
        "n": jax.random.randint(key, (), 0, 9),
    }


NOTHING = {"x": jnp.zeros(3), "n": jnp.int32(-1)}


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_runs_of_environments_get_what_they_need_and_keep_the_rest(share):
    keys = jax.random.split(jax.random.key(0), (3, 50))
    needed = jnp.asarray(np.random.default_rng(0).random((3, 50)) < share)
    scales = jnp.arange(1.0, 4.0)  # of the runs, as params are

    @jax.jit
    def some(needed, keys, scales):
        one = lambda n, k, s: where_needed(drawn)(n, NOTHING, k, s)
        return jax.vmap(jax.vmap(one, (0, 0, None)))(needed, keys, scales)

    found = some(needed, keys, scales)
    all_ = jax.vmap(jax.vmap(drawn, (0, None)))(keys, scales)
    for name, value in all_.items():
        mask = needed.reshape(3, 50, *[1] * (value.ndim - 2))
        np.testing.assert_array_equal(found[name], jnp.where(mask, value, NOTHING[name]))


def test_one_alone_is_a_plain_condition():
    key = jax.random.key(1)
    one = jax.jit(lambda n: where_needed(drawn)(n, NOTHING, key, jnp.float32(1.0)))
    np.testing.assert_array_equal(one(True)["x"], drawn(key, 1.0)["x"])
    np.testing.assert_array_equal(one(False)["n"], -1)


def test_it_runs_for_a_sixteenth_at_a_time_as_often_as_needed():
    """Five of forty-eight in need: two rounds of three, and none where nobody is."""
    rounds = []

    def counted(x):
        jax.debug.callback(lambda x: rounds.append(x), x)
        return x + 1

    def run(needed):
        some = jax.vmap(where_needed(counted))
        return jax.jit(some)(needed, jnp.zeros(48), jnp.arange(48.0))

    found = run(jnp.arange(48) % 10 == 0)
    jax.effects_barrier()
    assert len(rounds) == 2 * (48 // batching.SHARE)
    np.testing.assert_array_equal(np.flatnonzero(found), [0, 10, 20, 30, 40])
    rounds.clear()
    run(jnp.zeros(48, bool))
    jax.effects_barrier()
    assert not rounds
