"""How `entrob check` prints what it found."""

import math

from rich.console import Console
from rich.table import Table

from entrob.perturbations import NOMINAL
from entrob.suite.check import Checked


def tables(task: str, found: Checked) -> None:
    """Print a row per perturbation × magnitude, with what was proved in each one's first."""
    what = "success" if found.measure == "success" else "return"
    table = Table(title=f"{task}: {what}", title_justify="left")
    for column in ("perturbation", "class", "magnitude", "reaches", "0 is nothing", "distinct"):
        table.add_column(column, no_wrap=column == "perturbation")
    for column in ("random", "none", "optimum", "loss of none"):
        table.add_column(column, justify="right")
    proofs = {proof.name: proof for proof in found.proofs}
    for name, rows in found.scores.groupby("perturbation", sort=False):
        for position, row in enumerate(rows.itertuples()):
            scores = [_number(row.random), _number(row.none), _number(row.optimum)]
            if name == NOMINAL:
                table.add_row(name, *[""] * 5, *scores, "")
                continue
            proof = proofs[name]
            told = ["", "", ""]
            if not position:
                told = [name, proof.category, "yes" if proof.identity else "NO"]
            reaches = ", ".join(proof.reaches[row.magnitude]) or "nothing"
            count = "" if position else f"{proof.distinct} of {proof.instances}"
            cells = [*told[:2], f"{row.magnitude:g}", reaches, told[2], count]
            table.add_row(*cells, *scores, "" if math.isnan(row.loss) else f"{row.loss:.0%}")
    Console(width=140).print(table)
    failed = sum(bool(proof.faults) for proof in found.proofs)
    print(f"{len(found.proofs) - failed} of {len(found.proofs)} perturbations prove what they say")


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
