"""The figures of the theory, each drawn from what was computed."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from entrob.report.figures.drawing import RC, save
from entrob.theory.limits import RiskyMDP
from entrob.theory.recovery import CHANGES, FORMS, Recovery, shares
from entrob.theory.regularized import REGULARIZERS
from entrob.theory.rollout_optima import RolloutOptima

COLORS = {"policy": "#e08a00", "state": "#0072b2", "state_action": "#009e73"}
"""As in the figures of runs: policy entropy orange, state entropy blue."""

LABELS = {"policy": "policy", "state": "state", "state_action": "state-action"}


def reward_sets(folder: Path, soft_mean) -> None:
    """Figure 2: boundaries of the uncertainty sets of two states, r^π = (1, 0), ε = 2.

    Args:
      folder: where it is written.
      soft_mean: (Δ float64[..., 2], α) -> the gauge.
    """
    figure, axis = _new(5.8, 4.2)
    side = np.linspace(-6, 5, 600)
    x, y = np.meshgrid(side, side)
    delta = np.stack([1 - x, 0 - y], -1)
    alphas = [0.0, 0.5, 1.0, 2.0, 5.0, np.inf]
    names = [
        r"$\alpha \to 0$",
        *(rf"$\alpha = {a:g}$" for a in alphas[1:-1]),
        r"$\alpha \to \infty$",
    ]
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(alphas)))
    for alpha, name, color in zip(alphas, names, colors):
        level = np.asarray(soft_mean(delta, alpha))
        axis.contour(x, y, level, levels=[2.0], colors=[color], linewidths=1.6)
        axis.plot([], [], color=color, label=name)
    axis.plot(1, 0, "k*", markersize=9, label=r"nominal $r^\pi$")
    axis.set(xlabel=r"$\tilde r^\pi(s_1)$", ylabel=r"$\tilde r^\pi(s_2)$", aspect="equal")
    axis.set_title("reward sets, above each line; ε = 2")
    _legend_beside(axis)
    save(figure, folder, "figure2")


def rollouts(folder: Path, found: dict[str, RolloutOptima]) -> None:
    """Figure 3: optimal policies on the 2×6 grid, and how random they are for each n.

    Args:
      folder: where it is written.
      found: title of a horizon -> its optima; a row of panels each.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(10.4, 1.8 * len(found)), layout="constrained")
        grid = figure.subplots(len(found), 3, squeeze=False, width_ratios=[1, 1, 0.7])
        for (title, optima), row in zip(found.items(), grid):
            for column, axis in ((0, row[0]), (len(optima.rollouts) - 1, row[1])):
                _grid_policy(axis, optima.policy[column], optima.visits[column])
                n = optima.rollouts[column]
                axis.set_title(f"{title}: optimum for n = {'∞' if np.isinf(n) else f'{n:g}'}")
            x = np.arange(len(optima.rollouts))
            row[2].plot(x, optima.policy_entropy, "o-", color=COLORS["policy"], clip_on=False)
            names = ["∞" if np.isinf(n) else f"{n:g}" for n in optima.rollouts]
            row[2].set_xticks(x, names)
            row[2].set(xlabel="rollouts n", ylabel="policy entropy (nats)")
            row[2].set_ylim(0, max(1.0, 1.05 * optima.policy_entropy.max()))
            row[2].set_title(f"{title}: randomness of the optimum")
        save(figure, folder, "figure3")


def _grid_policy(axis, policy: np.ndarray, visits: np.ndarray) -> None:
    """Cells shaded by their share of visits; arrows as wide as their action is likely.

    A square marks where no move is made, a dot the start.
    """
    steps = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    rows, columns = visits.shape
    for y in range(rows):
        for x in range(columns):
            shade = 1 - 0.55 * visits[y, x] / visits.max()
            axis.add_patch(Rectangle((x, y), 1, 1, facecolor=(shade, shade, 1), edgecolor="0.6"))
            if np.ptp(policy[y, x]) == 0:  # no move is made from here
                axis.plot(x + 0.5, y + 0.5, "ks", markersize=4)
                continue
            for p, (dx, dy) in zip(policy[y, x], steps):
                if p > 0.02:
                    start = (x + 0.5, y + 0.5)
                    end = (x + 0.5 + 0.42 * dx, y + 0.5 + 0.42 * dy)
                    look = {"arrowstyle": "-|>", "mutation_scale": 4 + 6 * p, "color": "k"}
                    axis.add_patch(
                        FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, lw=0.3 + 2 * p, **look)
                    )
    axis.plot(0.5, 0.5, "o", color="#b03a00", markersize=5)
    axis.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])
    axis.grid(False)


def risk(folder: Path, risky: RiskyMDP, gap: float, beta: float, name: str, sweep: pd.DataFrame):
    """Figure 7: Theorem 4.2's MDP, the two return distributions, and the loss in CVaR.

    Args:
      folder: where it is written.
      risky: the MDP.
      gap: M.
      beta: β.
      name: the regularizer, for the title.
      sweep: columns alpha, wanted, lost, regularizer: the losses of solved optima.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(10, 3.1), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _diagram(left, risky)
        mdp = risky.mdp
        scale = float(mdp.gamma / (1 - mdp.gamma))
        leaves = (len(mdp.mu) - 2) // 2
        good, bad = scale * mdp.r[2, 0], scale * mdp.r[2 + leaves, 0]
        mass = np.array([1 - risky.risky, risky.risky * (1 - risky.bad), risky.risky * risky.bad])
        width = 0.05 * (good - bad)
        at = np.array([0, good, bad])
        middle.bar(at - width / 2, [1, 0, 0], width, color="0.55", label="no regularizer")
        look: dict[str, Any] = {"color": COLORS[name], "label": f"{LABELS[name]} entropy"}
        middle.bar(at + width / 2, mass, width, **look)
        middle.axvline(
            bad, color="k", lw=0.8, ls=":", label=rf"its mean over the lowest {beta:.0%}"
        )
        middle.set(xlabel="discounted return", ylabel="probability")
        middle.set_title(f"returns: M = {gap:g}, β = {beta:g}")
        middle.legend(loc="upper center")
        marks = zip(sweep.groupby("regularizer", sort=False), ("o", "s", "^"), (9, 6, 3))
        for (regularizer, rows), mark, size in marks:
            look = {"color": COLORS[regularizer], "label": LABELS[regularizer], "mew": 0}
            right.plot(rows.wanted, rows.lost, mark, markersize=size, **look)
        ends = np.array([sweep.wanted.min(), sweep.wanted.max()])
        right.plot(ends, ends, "k-", lw=0.8, label="lost = M")
        right.set(
            xscale="log", yscale="log", xlabel="M asked for", ylabel="CVaR lost by the optimum"
        )
        right.set_title(
            rf"{len(sweep)} optima, $\alpha$ from {sweep.alpha.min():.2g} to "
            rf"{sweep.alpha.max():.2g}"
        )
        right.legend(loc="upper left")
        save(figure, folder, "figure7")


def _diagram(axis, risky: RiskyMDP) -> None:
    """The MDP as circles and arrows."""
    leaves = (len(risky.mdp.mu) - 2) // 2
    places = {"start": (0, 0), "safe": (1, 1), f"good ×{leaves}": (2, 0), f"bad ×{leaves}": (2, -1)}
    for text, (x, y) in places.items():
        axis.text(x, y, text, ha="center", va="center", bbox={"boxstyle": "round", "fc": "white"})
    arrows = {
        ((0, 0), (1, 1)): "action 0",
        ((0, 0), (2, 0)): f"actions 1..{leaves}: 1 − q",
        ((0, 0), (2, -1)): f"q = {risky.bad:.2f}",
    }
    for (start, end), text in arrows.items():
        arrow: dict[str, Any]
        arrow = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 18, "shrinkB": 22}
        axis.add_patch(FancyArrowPatch(start, end, color="k", **arrow))
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
        axis.text(*middle, text, bbox={"fc": "white", "ec": "none", "pad": 1}, **look)
    axis.spines[:].set_visible(False)
    axis.set(xlim=(-0.5, 2.6), ylim=(-1.4, 1.4), xticks=[], yticks=[])
    axis.grid(False)
    axis.set_title(f"optimum risks with probability {risky.risky:.2f}")


def convergence(folder: Path, left: dict[float, np.ndarray], promised: dict[float, float]) -> None:
    """Policy mirror descent: distance to the optimum against steps, beside the guarantee.

    Args:
      folder: where it is written.
      left: ητ -> float64[K], f* - f after each step, median over MDPs.
      promised: ητ -> the guaranteed contraction.
    """
    figure, axis = _new(6.0, 3.4)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(left)))
    for (rate, distance), color in zip(left.items(), colors):
        axis.semilogy(distance, color=color, label=rf"$\eta\alpha = {rate:g}$")
        axis.semilogy(
            distance[0] * promised[rate] ** np.arange(len(distance)), color=color, ls=":", lw=1
        )
    axis.plot([], [], "k:", lw=1, label="guaranteed rate")
    axis.set_ylim(1e-12, None)
    axis.set(xlabel="step", ylabel="f* − f (reward)")
    axis.set_title("mirror descent: α = 0.1, γ = 0.9")
    _legend_beside(axis)
    save(figure, folder, "mirror_descent")


def kernel_bounds(folder: Path, frame: pd.DataFrame) -> None:
    """Theorem 3.3 and A.4.1: bound over exact worst case, by α.

    Args:
      folder: where it is written.
      frame: columns alpha, state, state_action: the ratios of every instance.
    """
    figure, axis = _new(5.2, 3.6)
    edges = np.geomspace(0.01, 10, 10)
    middle = np.sqrt(edges[1:] * edges[:-1])
    bins = pd.cut(frame.alpha, edges)
    drawn = {"state": "Theorem 3.3", "state_action": "A.4.1: policy entropy added"}
    for name, text in drawn.items():
        low, half, high = (
            frame.groupby(bins, observed=False)[name].quantile(q) for q in (0.025, 0.5, 0.975)
        )
        axis.plot(middle, half, "o-", color=COLORS[name], label=text)
        axis.fill_between(middle, low, high, color=COLORS[name], alpha=0.18, lw=0)
    axis.axhline(1, color="k", lw=0.8)
    axis.set(
        xscale="log", xlabel="coefficient α", ylabel="bound ÷ exact worst case", ylim=(0, 1.05)
    )
    axis.set_title(f"median and central 95 % of {len(frame):,} instances")
    axis.legend(loc="lower left")
    save(figure, folder, "kernel_bounds")


def estimation(folder: Path, errors: pd.DataFrame, slopes: pd.DataFrame) -> None:
    """Error of kNN state entropy, of policy entropy and of the return against samples."""
    with matplotlib.rc_context(RC):
        kinds = [q for q in errors.quantity.unique() if q.startswith("state")]
        figure = Figure(figsize=(3.4 * (len(kinds) + 1), 3.4), layout="constrained")
        axes = figure.subplots(1, len(kinds) + 1, sharey=True)
        fitted = dict(zip(zip(slopes.quantity, slopes.dimension.fillna(0)), slopes.slope))
        for axis, kind in zip(axes, [*kinds, None]):
            rows = errors[errors.quantity == kind] if kind else errors[~errors.quantity.isin(kinds)]
            curves = rows.assign(dimension=rows.dimension.fillna(0)).groupby(
                ["quantity", "dimension"], sort=False
            )
            colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, curves.ngroups))
            for (key, part), color in zip(curves, colors):
                text = f"D = {key[1]}" if kind else key[0]
                text += f", slope {fitted[key]:.2f}"
                axis.plot(part.n, part.rmse, "o-", color=color, label=text)
                axis.fill_between(
                    part.n, part.rmse_low, part.rmse_high, color=color, alpha=0.2, lw=0
                )
            axis.set(xscale="log", yscale="log", xlabel="samples n")
            axis.set_title(kind or "policy entropy and return")
            axis.legend(loc="lower left", fontsize=7)
        axes[0].set_ylabel("root mean squared error")
        save(figure, folder, "estimation")


def recovery(folder: Path, found: Recovery) -> None:
    """The headline: recovered share of the exactly robust value against the coefficient."""
    share, gain = shares(found), (found.robust - found.nominal).mean(-1)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(11, 5.6), layout="constrained")
        axes = figure.subplots(2, len(CHANGES), sharex=True, sharey=True)
        for i, j in np.ndindex(axes.shape):
            axis = axes[i, j]
            for name, (middle, low, high) in zip(REGULARIZERS, np.moveaxis(share[i, j], -1, 1)):
                axis.plot(found.alphas, middle, "o-", color=COLORS[name], label=LABELS[name])
                axis.fill_between(found.alphas, low, high, color=COLORS[name], alpha=0.2, lw=0)
            axis.axhline(1, color="k", lw=0.8)
            axis.axhline(0, color="k", lw=0.8, ls=":")
            axis.set(xscale="log", ylim=(-0.5, 1.08))
            axis.set_title(f"{CHANGES[j]}, {FORMS[i]}: gain {gain[i, j]:.3f}")
        for axis in axes[:, 0]:
            axis.set_ylabel("share of the robust gain")
        for axis in axes[-1]:
            axis.set_xlabel("coefficient α")
        axes[0, -1].legend(title="entropy", loc="upper right")
        save(figure, folder, "recovery")


def _legend_beside(axis) -> None:
    """A legend to the right of the axes, where it covers nothing."""
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _new(width: float, height: float):
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()
