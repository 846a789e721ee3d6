"""The headline table of a finished run, as the terminal shows it."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from entrob.report.markup import display

ROWS = 15
"""At most so many methods of a board; a run shows all."""


def show(folder: Path) -> None:
    """Print a run's success under every perturbation, or a board's first ranks.

    Args:
      folder: of the run, with its ``tables/``; without those that are shown, nothing is printed.
    """
    tables = folder / "tables"
    if (tables / "leaderboard.csv").exists():
        found = board(
            pd.read_csv(tables / "leaderboard.csv", keep_default_na=False, na_values=[""])
        )
    elif (tables / "success.csv").exists() and (tables / "nominal.csv").exists():
        found = success(pd.read_csv(tables / "nominal.csv"), pd.read_csv(tables / "success.csv"))
    else:
        return
    # A terminal's width; elsewhere, as in a file, whatever the table needs.
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(found)


def success(nominal: pd.DataFrame, perturbed: pd.DataFrame) -> Table:
    """A row per method, a column per perturbation: success with its interval, the best in bold.

    Args:
      nominal, perturbed: the tables ``nominal.csv`` and ``success.csv``.
    """
    columns = {"nominal": nominal.set_index("method")}
    for (name, magnitude), rows in perturbed.groupby(["perturbation", "magnitude"], sort=False):
        columns[f"{display(str(name))} {magnitude:g}"] = rows.set_index("method")
    table = Table(title="Success [95 %]", title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for method in nominal.method:
        cells = []
        for rows in columns.values():
            row = rows.loc[method] if method in rows.index else None
            if row is None or pd.isna(row.success):
                cells.append("–")
                continue
            text = f"{row.success:.2f}"
            if pd.notna(row.success_low):
                text += f" [{row.success_low:.2f}, {row.success_high:.2f}]"
            best = row.success == rows.success.max() and rows.success.nunique() > 1
            cells.append(f"[bold]{text}[/bold]" if best else text)
        table.add_row(display(method), *cells)
    return table


def board(ranks: pd.DataFrame) -> Table:
    """The first ranks: recovered share with its interval, every class, the price.

    Args:
      ranks: the table ``leaderboard.csv``.
    """
    start, end = list(ranks).index("least_class") + 1, list(ranks).index("nominal_gain")
    classes = list(ranks)[start:end]
    title = f"Recovered share R [95 %], {min(ROWS, len(ranks))} of {len(ranks)} methods"
    table = Table(title=title, title_justify="left")
    for name in ("rank", "method", "overall", *classes, "price"):
        table.add_column(name, justify="left" if name == "method" else "right")
    number = lambda value: "–" if pd.isna(value) else f"{value:z.2f}"
    for row in ranks.head(ROWS).to_dict("records"):
        overall = number(row["overall"])
        if pd.notna(row["overall_low"]):
            overall += f" [{number(row['overall_low'])}, {number(row['overall_high'])}]"
        rank = "–" if pd.isna(row["rank"]) else f"{row['rank']:.0f}"
        price = "–" if pd.isna(row["price"]) else f"{row['price']:z.1%}"
        shares = [number(row[name]) for name in classes]
        table.add_row(rank, display(row["method"]), overall, *shares, price)
    return table
