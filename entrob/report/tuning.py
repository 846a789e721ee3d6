"""The table of a tuning run."""

from pathlib import Path
from typing import Any

import pandas as pd

from entrob.persistence.store import write_bytes, write_json
from entrob.report.latex import latex
from entrob.report.markup import markdown

MEASURES = {"success": "success", "return_mean": "return above random"}
"""What performance is measured by, and how it reads."""


def write_tuning(folder: Path, table: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Write ``tables/tuning.{md,csv,tex}`` and ``tuned.json`` with the chosen coefficients.

    Args:
      folder: where to.
      table: `entrob.sweep.tune.score_table`; 0 is chosen for a method of which nothing passed.
      manifest: of the tuning runs.
    """
    path = folder / "tables" / "tuning.csv"
    passed = table.coefficient.where(table.chosen, 0.0).groupby(table.method).max()
    chosen = passed.drop(index="none", errors="ignore").to_dict()
    nominal = f"nominal {MEASURES[table.measure.iloc[0]]}"
    shown = pd.DataFrame(
        {
            "method": table.method,
            "coefficient": [f"{c:g}" for c in table.coefficient],
            nominal: table["mean"],
            f"{nominal}_std": table["std"],
            "ratio to none": [f"{r:.3f}" for r in table.ratio],
            "passes (≥ 0.95)": ["yes" if p else "no" for p in table.passes],
            "chosen": ["chosen" if c else "" for c in table.chosen],
            "seeds": table.seeds,
        }
    )
    tables = folder / "tables"
    write_bytes(path, table.to_csv(index=False).encode())
    write_bytes(tables / "tuning.md", markdown(shown).encode())
    caption = "± s is the sample standard deviation over seeds."
    write_bytes(tables / "tuning.tex", latex(shown, caption, "tuning").encode())
    write_json(folder / "tuned.json", {"coefficients": chosen, "command": manifest["command"]})
