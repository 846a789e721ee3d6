"""All regularizers of a family train side by side, each does something, and zero is none.

They take long to compile: in fast tests they are traced, in slow ones trained. That zero is none
is seen of each member in `test_zoo.py`, and of programs that train in `test_gates.py` and
`test_protocol.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import ORACLES, OWN, kinds_of, part_of

from entrob.regularizers import family

FAMILIES = sorted({family(name) for name in OWN})
ENTROPIES = {"policy_entropy": 0.01, "state_entropy": 0.01}
SETTINGS = {"algorithm": "ppo", "epochs": 2, "minibatches": 2}


def members_of(name):
    members = [n for n in OWN if family(n) == name and "discrete" in kinds_of(n)]
    return [member for member in members if member not in ENTROPIES]


def parts_of(names):
    options = {n: tuple(oracle.train.items()) for n, oracle in ORACLES.items()}
    return [part_of(name, options.get(name, ())) for name in names]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_fits_the_agent(traced, name):
    """Every hook of every member, as an update calls it."""
    before, after, curves = traced(parts_of([*ENTROPIES, *members_of(name)]), **SETTINGS)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert all(x.shape == (1, 2) for x in curves.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_in_one_program_and_zero_is_none(train, name):
    """All members beside policy and state entropy: none on, then one at a time."""
    members = members_of(name)
    width = 2 + len(members)
    coefs = {other: [coef] * width for other, coef in ENTROPIES.items()}
    for i, member in enumerate(members):
        coefs[member] = [0.0] * width
        coefs[member][2 + i] = part_of(member).coef
    parts = parts_of(coefs)
    start, _ = train(parts, coefs, updates=0, **SETTINGS)
    # While they are off, whatever their states hold does no harm.
    spoil = lambda x: x.at[1].set(jnp.nan) if x.dtype.kind == "f" else x
    states = {member: jax.tree.map(spoil, start.regularizers[member].inner) for member in members}
    state, _ = train(parts, coefs, states=states, **SETTINGS)
    assert state.diverged_at.tolist() == [-1] * width
    alone, _ = train(parts[:2], {other: [coef] for other, coef in ENTROPIES.items()}, **SETTINGS)
    runs, reference = (jax.tree.leaves(x.network) for x in (state, alone))
    for x, z in zip(runs, reference):
        assert (x[0] == x[1]).all()
        np.testing.assert_allclose(x[0], z[0], atol=2e-5)  # another program, several steps
    for i, member in enumerate(members):
        assert any((x[0] != x[2 + i]).any() for x in runs), member
