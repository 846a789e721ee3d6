"""Seconds from a cold start to the report, for whole presets of an experiment.

    python benchmarks/speed/presets.py [--presets smoke,quick] [--out presets.json]

Each preset runs twice in fresh processes: with an empty compilation cache, then with a full one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def timed(preset: str, experiment: str, folder: Path, cache: Path) -> dict:
    """Run one preset in a process of its own and return its times in seconds."""
    out = folder / "run"
    command = [sys.executable, "-m", "entrob", "run", experiment, "--preset", preset]
    start = time.perf_counter()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    subprocess.run([*command, "--out", str(out)], check=True, env=environment)
    total = time.perf_counter() - start
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    kept = ("compile_time_s", "train_time_s", "test_time_s", "frames_per_s", "frames", "device")
    return {"total_s": round(total, 1)} | {key: manifest[key] for key in kept}


def main() -> None:
    """Print a table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="minigrid")
    parser.add_argument("--presets", default="smoke,quick")
    parser.add_argument("--out")
    options = parser.parse_args()
    rows = []
    for preset in options.presets.split(","):
        with tempfile.TemporaryDirectory() as cache:
            for start in ("cold", "warm"):
                with tempfile.TemporaryDirectory() as folder:
                    times = timed(preset, options.experiment, Path(folder), Path(cache))
                rows.append({"preset": preset, "start": start, **times})
    print("| preset | start | total, s | compiling, s | training, s | testing, s | frames/s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['preset']} | {row['start']} | {row['total_s']} | {row['compile_time_s']} | "
            f"{row['train_time_s']} | {row['test_time_s']} | {row['frames_per_s']:,} |"
        )
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
