"""``entrob theory``: every statement on random instances, one table, the figures, a manifest."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from entrob.persistence.provenance import provenance
from entrob.persistence.store import write_bytes, write_json
from entrob.report import markup
from entrob.report.latex import latex
from entrob.theory import checks, estimation, figures, limits, mirror_descent, recovery
from entrob.theory.batches import over
from entrob.theory.generators import garnet
from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import float64
from entrob.theory.regularized import REGULARIZERS, Weights
from entrob.theory.reward_uncertainty import soft_mean
from entrob.theory.rollout_optima import RolloutOptima, rollout_optima
from entrob.theory.statements import (
    failed,
    risk_losses,
    risk_row,
    robust_rows,
    rollout_row,
    run_checks,
)

SEED = 0

ALPHAS = np.geomspace(0.003, 10, 12)
"""Coefficients of the headline figure."""

ROBUST_MDPS = 256
"""MDPs of the headline figure, at most."""

HORIZONS = {"11 moves": 11, "17 moves": 17}
"""Of the 2×6 grid: the longest path that visits no cell twice, and one that must."""

RATES = (0.1, 0.3, 1.0, 3.0)
"""ηα of the curves of mirror descent."""

EXAMPLE = {"gap": 5.0, "beta": 0.25}
"""The MDP of Figure 7, with state entropy, α = 1."""


@float64
def run(mdps: int, out: Path, command: str, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Check every statement; write ``report.md``, ``tables/``, ``figures/`` and ``manifest.json``.

    Args:
      mdps: random instances per statement, >= 1.
      out: folder.
      command: the command line, for the manifest.
      say: told of every step before it begins.

    Returns:
      The table, a `statements.Row` per line.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    key = jax.random.key(SEED)

    def timed(name: str, function: Callable, *args, **kwargs) -> Any:
        say(name)
        begun = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[name] = round(time.perf_counter() - begun, 1)
        return result

    draw = lambda n: jax.random.fold_in(key, n)
    instances = timed("drawing instances", over, checks.instance, jax.random.split(key, mdps))
    rows, ratios = run_checks(instances, timed)
    losses = timed("Theorem 4.2", risk_losses, draw(1))
    optima = {
        title: timed(f"Section 4.3, {title}", rollout_optima, draw(2), moves=moves)
        for title, moves in HORIZONS.items()
    }
    size = min(mdps, ROBUST_MDPS)
    recovered = timed("robust baselines", recovery.recover, draw(3), size, ALPHAS)
    errors = timed("Section 4.3, estimation", estimation.estimation_errors, draw(4))
    curves = timed("mirror descent, curves", descent, draw(5))

    rows += [risk_row(losses), *(rollout_row(*item) for item in optima.items())]
    table = pd.DataFrame([*rows, *robust_rows(recovered)])
    slopes = estimation.fitted_slopes(errors)
    tables = {
        "statements": table,
        "rollouts": _rollout_table(optima),
        "estimation": slopes,
        "recovery": _recovery_table(recovered),
    }
    folder = Path(out) / "figures"
    example = limits.risky_mdp(Weights(0.0, 1.0), **EXAMPLE)
    figures.reward_sets(folder, soft_mean)
    figures.rollouts(folder, optima)
    figures.risk(folder, example, name="state", sweep=losses, **EXAMPLE)
    figures.convergence(folder, *curves)
    figures.kernel_bounds(folder, ratios)
    figures.estimation(folder, errors, slopes)
    figures.recovery(folder, recovered)
    manifest = {
        "experiment": "theory",
        "command": command,
        "mdps": mdps,
        "seed": SEED,
        **provenance(),
        "precision": "float64, but kNN distances, which are float32",
        "seconds": seconds,
        "wall_time_s": round(time.perf_counter() - started, 1),
    }
    write_json(Path(out) / "manifest.json", manifest)
    _write_tables(Path(out), tables, manifest)
    return table


def descent(key: jax.Array, mdps: int = 32, steps: int = 120):
    """Mirror descent's distance to the optimum: ηα -> float64[steps], and ηα -> guaranteed rate.

    The median over Garnet MDPs with policy entropy, α = 0.1, γ = 0.9.
    """
    alpha, gamma = 0.1, 0.9
    w = Weights(alpha, 0.0)

    def distance(mdp):
        best = interior_point(mdp, w, 1e-12)
        f = [mirror_descent.trajectory(mdp, w, rate / alpha, steps) for rate in RATES]
        return best.value - jnp.stack(f)

    batch = over(lambda k: garnet(k, 20, 4, 5, gamma), jax.random.split(key, mdps))
    left = np.median(over(distance, batch), 0)
    promised = {rate: 1 - (1 - gamma) * rate / (1 + rate) for rate in RATES}
    return dict(zip(RATES, left)), promised


def _rollout_table(optima: dict[str, RolloutOptima]) -> pd.DataFrame:
    columns = ("value", "bound", "uniform", "policy_entropy", "single", "limit")
    parts = []
    for title, found in optima.items():
        part = pd.DataFrame({name: getattr(found, name) for name in columns})
        sampled = {
            f"sampled{end}": found.sampled[:, i] for i, end in enumerate(["", "_low", "_high"])
        }
        names = ["∞" if np.isinf(n) else f"{n:g}" for n in found.rollouts]
        parts.append(part.assign(**sampled).assign(horizon=title, rollouts=names))
    frame = pd.concat(parts, ignore_index=True)
    return frame[["horizon", "rollouts", *columns, *sampled]]


def _recovery_table(found: recovery.Recovery) -> pd.DataFrame:
    """The best coefficient of every regularizer against every adversary."""
    share = recovery.shares(found)
    gain = (found.robust - found.nominal).mean(-1)
    rows = []
    for i, form in enumerate(recovery.FORMS):
        for j, change in enumerate(recovery.CHANGES):
            for k, name in enumerate(REGULARIZERS):
                best = int(share[i, j, k, :, 0].argmax())
                price = found.price[i, j, k, best].mean()
                row = (form, change, gain[i, j], name, found.alphas[best])
                rows.append((*row, *share[i, j, k, best], price))
    names = ["form", "change", "robust gain", "regularizer", "alpha"]
    shown = ["recovered", "recovered_low", "recovered_high", "nominal price"]
    return pd.DataFrame(rows, columns=[*names, *shown])


CAPTIONS = {
    "statements": "Errors in units of reward (0.05 to 1) unless the claim names another. "
    "Tightness: bound over exact value, median and the central 95 % of instances; for Corollary "
    "A.1 bound less exact value. A row that is not claimed documents what fails as the paper "
    "prints it.",
    "rollouts": "Entropies in nats: F_n of the best policy found, the bound that no policy "
    "exceeds, F_n of the uniform policy, policy entropy of the best, and what the best for n is "
    "worth for n = 1 (single) and n = ∞ (limit); sampled: F_n by simulation.",
    "estimation": "Fitted slope of log error against log samples, with its standard error, and "
    "what the paper gives.",
    "recovery": "What the exactly robust policy gains over the nominal one against the adversary, "
    "the share of it that is recovered at the best of twelve coefficients, and what that costs "
    "without an adversary; gain and price in units of reward.",
}


def _write_tables(out: Path, tables: dict[str, pd.DataFrame], manifest: dict[str, Any]) -> None:
    """Tables as CSV, Markdown and LaTeX, and the report."""
    tables["statements"] = _readable(tables["statements"])
    lines = ["# The theory, checked", ""]
    summary = (
        f"{manifest['mdps']:,} random instances per statement, {manifest['wall_time_s']:.0f} s"
    )
    lines += [f"{summary} on {manifest['device']}; `{manifest['command']}`.", ""]
    for name, frame in tables.items():
        text = markup.markdown(frame, CAPTIONS[name])
        write_bytes(out / "tables" / f"{name}.md", text.encode())
        write_bytes(out / "tables" / f"{name}.csv", frame.to_csv(index=False).encode())
        write_bytes(out / "tables" / f"{name}.tex", latex(frame, CAPTIONS[name], name).encode())
        lines += [f"## {name.capitalize()}", "", text]
    lines += [
        f"![{path.stem}](figures/{path.name})\n" for path in sorted((out / "figures").glob("*.png"))
    ]
    write_bytes(out / "report.md", "\n".join(lines).encode())


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Errors as powers of ten, the spread of the tightness beside it."""
    return table.assign(error=[f"{x:.1e}" for x in table.error])


__all__ = ["descent", "failed", "run"]
