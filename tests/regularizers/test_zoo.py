"""Every registered regularizer: against NumPy, against finite differences, off, composed, at edges.

A regularizer joins by being registered; one of entrob's own also needs an oracle in `oracles`.
"""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import ORACLES, OWN, kinds_of, part_of

COEFS = (0.0, 1.0, 3.0)  # times the default coefficient, or a third of it where that is no more
STEP = 1e-5


def coefs_of(part):
    values = np.float32(COEFS) * np.float32(part.coef)
    return np.where(values < part.domain[1], values, np.float32(part.coef / 3))


def warmed(part, case, finite):
    """The state after two updates on other rollouts."""
    state = cases.initial_state(part, case)
    for seed in (11, 12):
        other = cases.make_case(seed, case.kind, finite)
        out = cases.look(part, other, state, coefs_of(part))
        state = jax.tree.map(lambda x: jnp.asarray(x[1]), out["updated"])
    return state


def fast(oracle):
    """Indices of options, kind and finite such that each of them is compared at least once.

    The first options with every kind, which are the programs of the edges below, then the others.
    """
    kinds, finite = len(oracle.kinds), len(oracle.finite)
    first = {(0, j, j % finite) for j in range(kinds)}
    return first | {(i, i % kinds, i % finite) for i in range(1, len(oracle.options))}


def comparisons():
    """(name, options, kind, finite) for all that oracles cover.

    All of their combinations are slow tests; the fast ones have each options, kind and finite.
    """
    for name, oracle in ORACLES.items():
        chosen = fast(oracle)
        for i, options in enumerate(oracle.options):
            for j, kind in enumerate(oracle.kinds):
                for k, finite in enumerate(oracle.finite):
                    yield pytest.param(
                        name, tuple(options.items()), kind, finite,
                        id="-".join([name, *map(str, options.values()), kind, f"{finite}"]),
                        marks=() if (i, j, k) in chosen else pytest.mark.slow,
                    )  # fmt: skip


def test_the_fast_comparisons_have_all_options_kinds_and_finite():
    for name, oracle in ORACLES.items():
        for chosen, all in zip(zip(*fast(oracle)), (oracle.options, oracle.kinds, oracle.finite)):
            assert set(chosen) == set(range(len(all))), name


def test_every_regularizer_has_an_oracle_for_its_actions():
    assert sorted(ORACLES) == sorted(OWN)
    for name, oracle in ORACLES.items():
        assert set(part_of(name).actions) == set(oracle.kinds), name


@pytest.mark.parametrize("name, options, kind, finite", list(comparisons()))
def test_it_is_its_formula_and_so_is_its_gradient(name, options, kind, finite):
    part, case = part_of(name, options), cases.make_case(0, kind, finite)
    function = functools.partial(ORACLES[name].function, **dict(options))
    states = cases.initial_state(part, case), warmed(part, case, finite)
    for cold, state in zip((True, False), states):
        out = cases.look(part, case, state, coefs_of(part))
        for i, coef in enumerate(coefs_of(part)):
            if coef == 0:
                continue
            got = jax.tree.map(lambda x, i=i: x[i], out)
            slopes = (coef == part.coef) == cold  # differences take time: once per state
            _compare(part, case, state, float(coef), got, function, slopes)


def _compare(part, case, state, coef, got, function, with_slopes):
    """One coefficient: every hook's value, then, if asked, the objective's gradient."""
    state = jax.tree.map(lambda x: np.asarray(x, np.float64), state)
    whole, _ = cases.numpy_rollout(case)
    _, batch = cases.numpy_rollout(case, got["advantage"])
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), case.params)
    frozen = cases.NumPyPolicy(case.kind, params, batch.obs)

    def expected(params):
        now = cases.NumPyPolicy(case.kind, params, batch.obs)
        return function(cases.Seen(whole, batch, state, coef, now, frozen)), now

    def objective(params):
        want, now = expected(params)
        fill = lambda key, value: want.get(key, np.full(batch.reward.shape, value))
        ratio = np.exp(now.log_prob(batch.action) - batch.log_prob)
        low, high = 1 - fill("low", cases.CLIP), 1 + fill("high", cases.CLIP)
        gain = np.minimum(ratio * batch.advantage, np.clip(ratio, low, high) * batch.advantage)
        return -np.mean(fill("weight", 1.0) * gain) + want.get("loss", 0.0)

    want, _ = expected(params)
    needed = {"behavior": "behavior", "reward": "bonus", "advantage": "advantage", "loss": "loss"}
    needed |= {"surrogate": "weight", "update": "updated"}
    for hook, key in needed.items():
        assert getattr(part, hook) is None or key in want, f"the oracle does not cover {hook}"
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5)
    for key in ("bonus", "advantage", "target", "weight", "low", "high", "loss"):
        if key in want:
            close(got[key], np.reshape(want[key], got[key].shape), err_msg=key)
    if "behavior" in want:
        for x, y in zip(jax.tree.leaves(got["behavior"]), want["behavior"]):
            close(x, y, err_msg="behavior")
    if "updated" in want:
        leaves = jax.tree.leaves(got["updated"])
        assert len(leaves) == len(want["updated"])
        for x, y in zip(leaves, want["updated"]):
            if y is not None:
                close(x, y, err_msg="updated")
    close(got["objective"], objective(params), err_msg="objective")
    if not with_slopes:
        return
    slopes = {name: np.zeros_like(x) for name, x in params.items()}
    for name, x in params.items():
        for where in np.ndindex(*x.shape):
            ends = []
            for step in (-STEP, STEP):
                moved = {**params, name: x.copy()}
                moved[name][where] += step
                ends.append(objective(moved))
            slopes[name][where] = (ends[1] - ends[0]) / (2 * STEP)
    scale = max(np.abs(x).max() for x in slopes.values())
    for name in params:
        np.testing.assert_allclose(
            got["gradient"][name], slopes[name], rtol=5e-3, atol=1e-3 * scale, err_msg=name
        )


@pytest.mark.parametrize("name, kind", [(name, kind) for name in OWN for kind in kinds_of(name)])
def test_at_the_edges_nothing_is_nan_and_zero_is_off(name, kind):
    part, finite = part_of(name), False
    if name in ORACLES:  # the program of a comparison above
        choices = ORACLES[name].finite
        finite = choices[kinds_of(name).index(kind) % len(choices)]
    for edge in (None, *cases.EDGES):
        case = cases.make_case(3, kind, finite, edge)
        out = cases.look(part, case, cases.initial_state(part, case), coefs_of(part))
        ranges = {key: out.pop(key) for key in ("low", "high")}
        assert not any(np.isnan(x).any() for x in ranges.values()), edge
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            if leaf.dtype.kind == "f":
                assert np.isfinite(leaf).all(), (edge, jax.tree_util.keystr(path))
        off = {"bonus": 0 * out["bonus"][0], "weight": 0 * out["weight"][0] + 1, "loss": 0.0}
        off |= {"advantage": case.rollout.advantage, "target": case.rollout.target}
        for key, value in off.items():
            assert (out[key][0] == np.asarray(value)).all(), (edge, key)
        for key, value in ranges.items():
            assert (value[0] == np.float32(cases.CLIP)).all(), (edge, key)
        for x, y in zip(jax.tree.leaves(out["behavior"]), jax.tree.leaves(case.rollout.dist)):
            assert (x[0] == np.asarray(y)).all(), edge
