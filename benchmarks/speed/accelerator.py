"""What training a task of the leaderboard takes on the device there is, by the number of runs.

    python benchmarks/speed/accelerator.py [--tasks four_rooms,lava_crossing] [--runs 16,128]
    ... [--methods none,state_entropy] [--out results/speed/accelerator.json]

On a GPU also without the options that give a repeated run the same bits (`compiler_options`). Every
program trains two chunks from the start, twice: the least time of one counts, the first apart, and
the states at the end are compared bit by bit.
"""

import argparse
import dataclasses
import json
from typing import Any

from entrob.cli import setup

setup()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from entrob import compiling  # noqa: E402
from entrob.persistence.provenance import provenance  # noqa: E402
from entrob.suite import declaration  # noqa: E402
from entrob.sweep.program import timed_alone  # noqa: E402


def measure(task: declaration.SuiteTask, name: str, runs: int) -> dict[str, Any]:
    """Compile what trains one method's runs side by side, and train two chunks of it twice."""
    experiment = dataclasses.replace(task.experiment, seeds=runs)
    method = next(m for m in experiment.methods if m.name == name)
    trainer, begin, chunk = timed_alone(experiment, method)
    ends, seconds = [], []
    for _ in range(2):
        state = begin()
        for _ in range(2):
            state, took = chunk(state)
            seconds.append(took)
        ends.append([np.asarray(x).tobytes() for x in jax.tree.leaves(state)])
    frames = experiment.chunk * experiment.num_envs * experiment.num_steps * runs
    return {
        "task": task.name,
        "method": name,
        "runs": runs,
        "frames_per_s": frames / min(seconds[1:]),
        "compile_s": trainer.compile_s,
        "bytes": trainer.bytes,
        "same_bits": ends[0] == ends[1],
    }


def main() -> None:
    """Print the table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="four_rooms,lava_crossing")
    parser.add_argument("--methods", default="none")
    parser.add_argument("--runs", default="16,128")
    parser.add_argument("--out")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured
    suite = declaration.load("leaderboard", "standard")
    usual = compiling.compiler_options
    modes = {"same bits": usual}
    if jax.default_backend() != "cpu":
        modes["free"] = lambda: {}
    print("| task | method | runs | options | frames/s | compile, s | same bits again |")
    print("|---|---|---:|---|---:|---:|---|")
    rows = []
    for task in options.tasks.split(","):
        for method in options.methods.split(","):
            for runs in map(int, options.runs.split(",")):
                for mode, choose in modes.items():
                    compiling.compiler_options = choose
                    row = {**measure(suite.tasks[task], method, runs), "options": mode}
                    rows.append(row)
                    print(
                        f"| {task} | {method} | {runs} | {mode} | {row['frames_per_s']:,.0f} "
                        f"| {row['compile_s']:.1f} | {'yes' if row['same_bits'] else 'no'} |",
                        flush=True,
                    )
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"machine": provenance(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
