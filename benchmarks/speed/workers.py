"""What sharing a folder costs: one worker against two, and a plan of very many batches.

    python benchmarks/speed/workers.py --out results/speed/workers.json

Three measurements. The suite's smoke preset is worked off by one worker and by two, of one device
each. A tiny experiment is cut into batches of one run, and what is neither training, testing nor
compiling is divided by their number. And records of as many batches as `--batches` says, made up,
are planned, read and gathered.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.persistence.provenance import provenance
from entrob.persistence.store import Store, read_json, write_frame, write_json

TINY = """
environment = "minigrid/empty-8x8"
num_envs = 2
num_steps = 8
chunk = 5
points = 5
instances = 4
perturbations = { wall = [6] }
methods = [{ name = "none" }]
presets.smoke = { seeds = 1, frames = 240 }
"""


def entrob(*arguments) -> subprocess.Popen:
    """Start a command with one device and one core's worth of threads."""
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "entrob", *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(*processes: subprocess.Popen) -> float:
    """Seconds until all have ended well."""
    started = time.perf_counter()
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - started
    if any(codes):
        raise SystemExit("a worker failed")
    return seconds


def by_workers(folder: Path, suite: str, counts: tuple[int, ...]) -> list[dict]:
    """Seconds for a suite's smoke preset by number of workers; programs are compiled before."""
    rows = []
    for number in (counts[0], *counts):  # the first one fills the cache of compiled programs
        out = folder / f"suite-{len(rows)}-{number}"
        finished(entrob("plan", suite, "--preset", "smoke", "--out", out))
        seconds = finished(*(entrob("work", out) for _ in range(number)))
        rows.append({"workers": number, "seconds": seconds})
        shutil.rmtree(out)
    return rows[1:]


def per_batch(folder: Path, seeds: int) -> dict:
    """Seconds per batch that are spent on neither training, testing nor compiling."""
    file, out = folder / "tiny.toml", folder / "tiny"
    file.write_text(TINY)
    plan = ("plan", file, "--preset", "smoke", "--seeds", seeds, "--parallel-runs", 1)
    finished(entrob(*plan, "--out", out))
    finished(entrob("work", out))
    facts = read_json(out / "manifest.json")
    inside = sum(facts[f"{what}_time_s"] for what in ("train", "test", "compile"))
    return {"batches": seeds, "overhead_s": (facts["wall_time_s"] - inside) / seeds}


def synthetic(folder: Path, count: int) -> dict:
    """A folder of so many batches of ten runs: sizes, and seconds to list and to gather it."""
    store, runs = Store(folder / "synthetic"), np.arange(10)
    batches = {}
    started = time.perf_counter()
    for i in range(count):
        ids = [f"{10 * i + j:016x}" for j in runs]
        frame = pd.DataFrame({"run_id": ids, "method": "none", "seed": 10 * i + runs})
        write_frame(store.part("runs", f"{i:016x}"), frame)
        batches[f"{i:016x}"] = {"devices": ["cpu", 1], "frames": 10, "runs": ids}
    written = time.perf_counter() - started
    path = store.root / "plan" / "0123456789abcdef.json"
    write_json(path, {"format": 1, "size": 10, "batches": batches})
    started = time.perf_counter()
    read_json(path)
    read = time.perf_counter() - started
    started = time.perf_counter()
    rows = len(Store(store.root).gather("runs"))
    return {
        "batches": count,
        "files": count + 1,
        "plan_bytes": path.stat().st_size,
        "plan_read_s": read,
        "part_written_s": written / count,
        "gather_s": time.perf_counter() - started,
        "rows": rows,
    }


def main() -> None:
    """Print what was measured; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="leaderboard")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seeds", type=int, default=30, help="batches of the tiny experiment")
    parser.add_argument("--batches", type=int, default=100_000, help="made-up batches")
    parser.add_argument("--out")
    options = parser.parse_args()
    counts = tuple(int(n) for n in options.workers.split(","))
    facts = provenance() | {"command": " ".join(["python", *sys.argv])}
    found = {"machine": facts}
    with tempfile.TemporaryDirectory() as name:
        parts = {
            "per_batch": lambda: per_batch(Path(name), options.seeds),
            "suite": lambda: by_workers(Path(name), options.suite, counts),
            "synthetic": lambda: synthetic(Path(name), options.batches),
        }
        for part, measured in parts.items():
            found[part] = measured()
            print(part, found[part], flush=True)
            if options.out:  # at once: all of it takes half an hour
                Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
