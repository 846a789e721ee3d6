"""Whether two runs of one experiment came to the same evaluation records.

    entrob run minigrid --preset smoke --out old      # in a tree of an earlier commit
    entrob run minigrid --preset smoke --out new      # in this one, on the same machine
    python benchmarks/compare_records.py old new

Records are compared bit for bit, run by run and condition by condition, in every column that both
have; of a suite, those of every stage of every task. Exits with 1 if anything differs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.persistence.store import read_frame

#: What tells records apart; run ids may differ between versions.
KEYS = ["method", "seed", "perturbation", "magnitude"]


def compared(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """A row per column that both frames have: records compared, records that differ, by how much.

    Args:
      old, new: evaluation records.

    Returns:
      ``column``, ``records``, ``differ`` and ``largest``, the largest difference of two numbers.

    Raises:
      ValueError: there are records in one that the other lacks.
    """
    left, right = (frame.set_index(KEYS).sort_index() for frame in (old, new))
    if not left.index.equals(right.index):
        only = left.index.symmetric_difference(right.index)
        raise ValueError(f"{len(only)} records are in one of the two only, such as {only[0]}")
    rows = []
    for name in left.columns.intersection(right.columns).drop("run_id", errors="ignore"):
        a, b = left[name].to_numpy(), right[name].to_numpy()
        if a.dtype == object:
            differ, largest = ~_equal(a, b), np.nan
        else:
            differ = ~((a == b) | (pd.isna(a) & pd.isna(b)))
            largest = float(np.abs(a[differ].astype(float) - b[differ]).max(initial=0.0))
        rows.append((name, len(a), int(differ.sum()), largest))
    return pd.DataFrame(rows, columns=["column", "records", "differ", "largest"])


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True)])


def main() -> None:
    """Print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    paths = sorted(
        path.relative_to(options.old) for path in options.old.rglob("evaluation.parquet")
    )
    if not paths:
        sys.exit(f"{options.old} holds no evaluation records")
    wrong = 0
    for path in paths:
        table = compared(*(read_frame(root / path) for root in (options.old, options.new)))
        bad = table[table.differ > 0]
        wrong += len(bad)
        count = f"{table.records.max()} records in {len(table)} columns"
        print(f"{path.parent}: {count}: {'all equal' if bad.empty else f'{len(bad)} differ'}")
        if len(bad):
            print(bad.to_string(index=False))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
