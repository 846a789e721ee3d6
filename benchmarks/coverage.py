"""How often the intervals of the board hold what they should, by simulation.

    python benchmarks/coverage.py results/coverage

Writes ``coverage.csv`` and ``coverage.md``: for several laws of the differences between paired
seeds, the share of simulated boards whose 95 % bootstrap-t interval holds the truth; and the share
of boards without any effect on which max-t over sign flips declares at least one.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.persistence.store import write_bytes
from entrob.report import markup
from entrob.statistics import intervals

LAWS = {
    "normal": (lambda rng, shape: rng.normal(0.3, 1.0, shape), 0.3),
    "exponential": (lambda rng, shape: rng.exponential(1.0, shape), 1.0),
    "lognormal, σ = 0.5": (lambda rng, shape: rng.lognormal(0, 0.5, shape), np.exp(0.125)),
    "lognormal, σ = 1": (lambda rng, shape: rng.lognormal(0, 1.0, shape), np.exp(0.5)),
    "Beta(0.5, 2)": (lambda rng, shape: rng.beta(0.5, 2, shape), 0.2),
    "0/1, 0.5": (lambda rng, shape: (rng.random(shape) < 0.5).astype(float), 0.5),
    "0/1, 0.8": (lambda rng, shape: (rng.random(shape) < 0.8).astype(float), 0.8),
    "0/1 less 0/1, 0.6 and 0.2": (
        lambda rng, shape: (rng.random(shape) < 0.6) - 1.0 * (rng.random(shape) < 0.2),
        0.4,
    ),
    "0/1 less 0/1, 0.9 and 0.1": (
        lambda rng, shape: (rng.random(shape) < 0.9) - 1.0 * (rng.random(shape) < 0.1),
        0.8,
    ),
}
"""Laws of a pair's difference, and their means."""


def coverage(law: str, seeds: int, tasks: int, boards: int, seed: int = 0) -> dict[str, float]:
    """Share of bootstrap-t intervals that hold the truth, and of boards that had an interval.

    Boards are contrasts side by side: each is resampled with the same draws, which leaves the share
    without bias.  It is taken over a hundred sets of draws.
    """
    draw, mean = LAWS[law]
    rng = np.random.default_rng(seed)
    held = printed = 0
    for part in range(100):
        pairs = draw(rng, (tasks, seeds, boards // 100))
        found = intervals.bootstrap_t(pairs, samples=1999, seed=part)
        held += ((found.low <= tasks * mean) & (tasks * mean <= found.high)).sum()
        printed += np.isfinite(found.low).sum()
    return {"coverage": held / printed, "printed": printed / boards}


def family_error(
    law: str, seeds: int, tasks: int, methods: int, boards: int, seed: int = 0
) -> float:
    """Share of boards without any effect on which some simultaneous interval excludes 0.

    Methods and the baseline are drawn alike; the methods share the baseline, as on a board.
    """
    draw, _ = LAWS[law]
    rng = np.random.default_rng(seed)
    wrong = 0
    for part in range(boards):
        own, none = draw(rng, (tasks, seeds, methods)), draw(rng, (tasks, seeds, 1))
        found = intervals.simultaneous(own - none, flips=999, seed=part)
        wrong += bool(((found.low > 0) | (found.high < 0)).any())
    return wrong / boards


def main(folder: Path, boards: int = 4_000) -> None:
    """Simulate and write both tables."""
    rows = [
        {"law": law, "seeds": 10, "tasks": tasks} | coverage(law, 10, tasks, boards)
        for law in LAWS
        for tasks in (1, 3)
    ]
    errors = [
        {"law": law, "seeds": 10, "tasks": tasks, "contrasts": 40}
        | {"family error": family_error(law, 10, tasks, 40, boards // 5)}
        for law in ("normal", "exponential", "lognormal, σ = 1", "0/1, 0.5")
        for tasks in (1, 3)
    ]
    tables = {"coverage": pd.DataFrame(rows), "family_error": pd.DataFrame(errors)}
    captions = {
        "coverage": "Share of 95 % bootstrap-t intervals that hold the truth, of those printed; "
        f"{boards:,} simulated boards each.",
        "family_error": "Share of boards without any effect on which some of the simultaneous 95 % "
        f"intervals excludes 0; {boards // 5:,} simulated boards each. Flips are exact where all "
        "pairs are symmetric together, which skewed scores that share a baseline are not.",
    }
    for name, table in tables.items():
        text = table.to_csv(index=False, lineterminator="\n", float_format="%.4f")
        write_bytes(folder / f"{name}.csv", text.encode())
        write_bytes(folder / f"{name}.md", markup.markdown(table, captions[name]).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
