"""What every registered regularizer costs per update: ratios to `none`, side by side in one run.

    python benchmarks/speed/overhead.py [--tasks empty,cartpole] [--methods apt,re3] [--repeats 7]
        [--out overhead.json]

The programs are the leaderboard's: PPO, three runs side by side. `none` runs
before each chunk of a regularizer; the ratio is the median of the pairs, with its quartiles.
"""

import argparse
import dataclasses
import json
import platform
import sys
from pathlib import Path

from entrob.cli import setup

setup()

import jax  # noqa: E402

from entrob.suite import declaration  # noqa: E402
from entrob.suite.overhead import overhead  # noqa: E402


def main() -> None:
    """Print a table per task; write all as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="empty,cartpole")
    parser.add_argument("--methods", help="all by default")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out")
    options = parser.parse_args()
    say = lambda name: print(name, end=" ", file=sys.stderr, flush=True)
    tasks = declaration.load("leaderboard", "standard").tasks
    results, names = {}, options.methods and options.methods.split(",")
    for task in options.tasks.split(","):
        experiment = tasks[task].experiment
        chosen = [m for m in experiment.methods if not names or m.name in names]
        experiment = dataclasses.replace(experiment, methods=tuple(chosen), seeds=3)
        table = overhead(experiment, options.repeats, say)
        print(
            f"\n{task}\n\n| regularizer | × none | quartiles | compiling, s |\n|---|---:|---|---:|"
        )
        for row in table.sort_values("ratio").itertuples():
            spread = f"{row.ratio_low:.2f}–{row.ratio_high:.2f}"
            print(f"| {row.method} | {row.ratio:.2f} | {spread} | {row.compile_s:.1f} |")
        results[task] = table.round(4).to_dict("records")
    if options.out:
        facts = {"jax": jax.__version__, "python": platform.python_version()}
        facts |= {"command": " ".join(["python", *sys.argv]), "tasks": results}
        Path(options.out).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
