"""The checks find nothing where the statements hold, and find what is broken on purpose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from entrob import cli
from entrob.theory import checks, kernel_uncertainty, limits, statements, suite
from entrob.theory.batches import over


@pytest.fixture(scope="module")
def instances():
    with jax.enable_x64(True):
        draw = functools.partial(checks.instance, states=6, actions=3)
        return over(draw, jax.random.split(jax.random.key(0), 12))


def test_over_is_a_map_whatever_the_blocks():
    x = np.arange(11.0)
    for block in (1, 3, 64):
        found = over(lambda x, y: (x + y, x * 1.5), x, 2 * x, block=block)
        np.testing.assert_array_equal(found[0], 3 * x)
        np.testing.assert_array_equal(found[1], 1.5 * x)


@pytest.mark.parametrize("check", statements.all_checks(), ids=lambda c: c.claim[:40])
def test_what_we_claim_holds_and_what_we_do_not_fails(instances, check):
    found = over(check.function, instances)
    assert np.isfinite(found.error).all()
    assert np.asarray(found.violated).any() != check.claimed


def test_corollaries_hold(instances):
    few = jax.tree.map(lambda x: x[:4], instances)
    check = functools.partial(checks.sampled_bounds, trajectories=16, datasets=8, horizon=60)
    for found in over(check, few):
        assert not np.asarray(found.violated).any()


BROKEN = {
    # The worst reward of the policy's set, with a log A too few.
    "reward": (
        checks.reward_uncertainty,
        "worst_case_reward",
        lambda f: lambda *a: f(*a)._replace(value=f(*a).value + 0.1),
        functools.partial(checks.reward_duality, regularizer="policy"),
    ),
    "gauge": (
        checks.reward_uncertainty,
        "soft_mean",
        lambda f: lambda x, a: f(x, 1 / (a + 1e-9)),
        checks.nested_sets,
    ),
    "bound": (
        kernel_uncertainty,
        "kernel_bound",
        lambda f: lambda *a, **k: 1.5 * f(*a, **k),
        functools.partial(checks.kernel_bound, with_policy=False),
    ),
    "dual": (
        checks,
        "interior_point",
        lambda f: lambda *a: (lambda s: s._replace(value=s.value - 1e3))(f(*a)),
        functools.partial(checks.optimum, regularizer="state"),
    ),
    "agreement": (
        checks.mirror_descent,
        "mirror_descent",
        lambda f: lambda *a: (lambda s: s._replace(value=s.value - 1e-5))(f(*a)),
        functools.partial(checks.solvers_agree, regularizer="policy"),
    ),
    "rate": (
        checks.mirror_descent,
        "trajectory",
        lambda f: lambda m, w, eta, k: f(m, w, eta / 20, k),
        checks.linear_rate,
    ),
    "refutation": (
        limits,
        "state_distribution",
        lambda f: lambda m, p: jnp.full(6, 1 / 6),
        checks.no_regularizer,
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found(monkeypatch, instances, fault):
    module, name, breaks, check = BROKEN[fault]
    monkeypatch.setattr(module, name, breaks(getattr(module, name)))
    assert np.asarray(over(check, instances).violated).any()


def test_losses_are_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(statements, "DRAWS", 3)
    monkeypatch.setattr(statements, "BETAS", (0.25,))
    losses = statements.risk_losses(jax.random.key(0))
    assert len(losses) == 9 and statements.risk_row(losses).violations == 0
    worse = losses.assign(lost=losses.lost * 0.99)
    assert statements.risk_row(worse).violations == 9


def test_only_claimed_rows_fail():
    row = statements.Row("s", "c", 10, 0, 0.0)
    table = pd.DataFrame([row, row._replace(violations=3, claimed=False)])
    assert not len(statements.failed(table))
    assert len(statements.failed(pd.DataFrame([row, row._replace(violations=1)]))) == 1


@pytest.fixture
def small(monkeypatch):
    """A suite that takes seconds."""
    few = [c for c in statements.all_checks() if c.statement in ("Theorem 3.2", "Theorem 3.3")]
    few.append(next(c for c in statements.all_checks() if c.ratio == "state_action"))
    monkeypatch.setattr(statements, "all_checks", lambda: few)
    monkeypatch.setattr(statements, "SUBSET", 2)
    monkeypatch.setattr(statements, "DRAWS", 2)
    monkeypatch.setattr(statements, "BETAS", (0.25,))
    monkeypatch.setattr(suite, "ALPHAS", np.array([0.05, 0.5]))
    monkeypatch.setattr(suite, "ROBUST_MDPS", 2)
    monkeypatch.setattr(suite, "HORIZONS", {"3 moves": 3})
    budget = {"starts": 2, "iterations": 5, "simulated": 100}
    optima = functools.partial(suite.rollout_optima, **budget)
    monkeypatch.setattr(suite, "rollout_optima", optima)
    errors = functools.partial(
        suite.estimation.estimation_errors, sizes=(16, 32), points=64, fewest=2, most=3
    )
    monkeypatch.setattr(suite.estimation, "estimation_errors", errors)


@pytest.mark.slow
def test_the_command_writes_everything(small, tmp_path, capsys, monkeypatch):
    out, export = tmp_path / "run", tmp_path / "export"
    monkeypatch.setattr(statements, "rollout_row", lambda *a: statements.Row("s", "c", 1, 0, 0.0))
    monkeypatch.setattr(suite, "rollout_row", lambda *a: statements.Row("s", "c", 1, 0, 0.0))
    cli.main(["theory", "--mdps", "3", "--out", str(out), "--export", str(export)])
    for folder in (out, export):
        names = {"statements", "rollouts", "estimation", "recovery"}
        assert {p.stem for p in (folder / "tables").iterdir()} == names
        assert len(list((folder / "figures").glob("*.png"))) == 7
        assert "Theorem 3.3" in (folder / "report.md").read_text()
    assert '"mdps": 3' in (out / "manifest.json").read_text()
    assert "Theorem 3.3" in capsys.readouterr().out


def test_a_violated_statement_exits_with_1(monkeypatch, tmp_path, capsys):
    def run(mdps, out, command, say):
        (out / "tables").mkdir(parents=True)
        (out / "tables" / "statements.md").write_text("| table |")
        return pd.DataFrame([statements.Row("Theorem 3.1", "c", 10, 1, 0.1)])

    monkeypatch.setattr(suite, "run", run)
    with pytest.raises(SystemExit) as exit:
        cli.main(["theory", "--out", str(tmp_path)])
    assert exit.value.code == 1
    assert "1 statements are violated" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_2(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["theory", "--mdps", "0"])
    assert exit.value.code == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
