"""All regularizers of a family train side by side, each does something, and zero is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import ORACLES, OWN, kinds_of, part_of

from entrob.regularizers import family


@pytest.mark.parametrize("name", sorted({family(name) for name in OWN}))
def test_a_family_trains_in_one_program_and_zero_is_none(train, name):
    """All members beside policy and state entropy: none on, then one at a time."""
    entropies = {"policy_entropy": 0.01, "state_entropy": 0.01}
    members = [n for n in OWN if family(n) == name and "discrete" in kinds_of(n)]
    members = [member for member in members if member not in entropies]
    width = 2 + len(members)
    coefs = {other: [coef] * width for other, coef in entropies.items()}
    for i, member in enumerate(members):
        coefs[member] = [0.0] * width
        coefs[member][2 + i] = part_of(member).coef
    options = {n: tuple(oracle.train.items()) for n, oracle in ORACLES.items()}
    parts = [part_of(member, options.get(member, ())) for member in coefs]
    settings = {"algorithm": "ppo", "epochs": 2, "minibatches": 2}
    start, _ = train(parts, coefs, updates=0, **settings)
    # While they are off, whatever their states hold does no harm.
    spoil = lambda x: x.at[1].set(jnp.nan) if x.dtype.kind == "f" else x
    states = {member: jax.tree.map(spoil, start.regularizers[member].inner) for member in members}
    state, _ = train(parts, coefs, states=states, **settings)
    assert state.diverged_at.tolist() == [-1] * width
    alone, _ = train(parts[:2], {other: [coef] for other, coef in entropies.items()}, **settings)
    runs, reference = (jax.tree.leaves(x.network) for x in (state, alone))
    for x, z in zip(runs, reference):
        assert (x[0] == x[1]).all()
        np.testing.assert_allclose(x[0], z[0], atol=2e-5)  # another program, several steps
    for i, member in enumerate(members):
        assert any((x[0] != x[2 + i]).any() for x in runs), member
